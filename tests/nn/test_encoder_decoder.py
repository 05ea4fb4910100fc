"""Encoder and decoder together: gradients of every variant, what masks promise, and that it is the sum of its parts."""

import nn
from nn.decoding import Decoder, generate
from nn.language import transformer
from npopt import backend
from problems import Neural
from problems.tokens import Pairs

import numpy as np
import pytest

THREADS = 1  # layers of a few numbers: tests/conftest.py

RUN = nn.Run(training=True, backward=True, seed=3)
KEEP = np.arange(5) < np.array([[3], [5], [4]])
VARIANTS = {
    "post": dict(dropout=0.2),
    "pre": dict(place="pre", positions="learned", activation="gelu"),
    "rotary, gated": dict(place="pre", norm="rms", positions="rotary", activation="swiglu"),
    "relative, loose": dict(positions="relative", tied=False, activation="reglu"),
    "sparse": dict(positions="alibi", pattern=("strided", 2)),
    "no positions": dict(positions=None, place="pre", pattern=("fixed", 2, 1)),
}


@pytest.fixture(params=["fast", "reference"])
def path(request):
    nn.kernels.use(request.param)
    yield request.param
    nn.kernels.use("fast")


def made(seed=0, dtype="float64", hidden=6, **options):
    """(network, x, g, inputs): 11 words, sources of 5, targets of 4."""
    network, rng = transformer(11, 5, 4, 4, 2, 2, hidden, **options), np.random.default_rng(seed)
    x, g = network.x0(rng, dtype), backend.zeros((network.dim,), dtype)
    x += backend.asarray(0.2 * rng.standard_normal(network.dim))
    network.bind(x, g)
    return network, x, g, (rng.integers(0, 11, (3, 5)), KEEP, rng.integers(0, 11, (3, 4)))


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients(name, rng):
    network = transformer(11, 5, 4, 4, 2, 2, 6, **VARIANTS[name])
    inputs = rng.integers(0, 11, (3, 5)), KEEP, rng.integers(0, 11, (3, 4))
    report = nn.gradcheck_layer(network, network.input_shape, batch=3, inputs=inputs)
    assert report.ok, str(report)


@pytest.mark.parametrize("path", ["fast"], indirect=True)
@pytest.mark.parametrize("name", VARIANTS)
def test_the_reference_has_the_same_values_and_gradients_in_every_number(name, path, rng):
    """So that differences of one of them are a proof for both."""
    c, found = rng.standard_normal((3, 4, 11)), []
    for which in (path, "reference"):
        nn.kernels.use(which)
        network, _, g, inputs = made(**VARIANTS[name])
        y, saved = network.forward(inputs, RUN)
        y = y.copy()
        network.backward(c.copy(), saved, RUN)
        found.append((y, g))
    (y, g), (slow_y, slow_g) = found
    np.testing.assert_allclose(y, slow_y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(g, slow_g, rtol=1e-10, atol=1e-12)
    assert np.abs(g).max() > 0.1


@pytest.mark.parametrize("place", ["pre", "post"])
def test_it_is_its_parts_one_after_the_other(place, path):
    network, _, _, (source, keep, words) = made(place=place)
    parts = dict(network.layer.children())
    body = parts["body"]
    run = lambda layer, *x: layer.forward(x if len(x) > 1 else x[0], nn.Run())[0]  # noqa: E731
    memory = run(body.encoder.start, source)
    for layer in body.encoder.layers:
        memory = run(layer, memory, keep)
    memory = memory if body.norm is None else run(body.norm, memory)
    x = run(body.start, words)
    for layer in body.layers:
        x = run(layer, x, memory, keep)
    x = x if place == "post" else run(parts["norm"], x)
    expected = x @ parts["head"].W.T
    np.testing.assert_array_equal(network.forward((source, keep, words), nn.Run())[0], expected)
    np.testing.assert_array_equal(body.encode(source, keep, nn.Run())[0], memory)
    assert (body.norm is None) == (place == "post")


def test_vectors_are_scaled_sums_of_words_and_sinusoids():
    network, x, _, (source, keep, words) = made(positions="sinusoidal")
    start, table = network.layer.layers[0].start, x[network.segments.find("body.encoder.embed.W").slice].reshape(11, 4)
    places = [[np.sin(t), np.cos(t), np.sin(t / 100), np.cos(t / 100)] for t in range(4)]
    np.testing.assert_allclose(start.forward(words, nn.Run())[0], 2 * table[words] + places, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "relative", "alibi"])
def test_padding_of_the_source_and_words_to_come_change_nothing(positions, path, rng):
    network, _, _, (source, keep, words) = made(positions=positions)
    y, _ = network.forward((source, keep, words), nn.Run())
    other = np.where(keep, source, rng.integers(0, 11, source.shape))
    np.testing.assert_array_equal(network.forward((other, keep, words), nn.Run())[0], y)
    longer = np.concatenate([source, source], 1), np.concatenate([keep, ~keep & False], 1), words
    np.testing.assert_allclose(network.layer.forward(longer, nn.Run())[0], y, rtol=1e-11, atol=1e-12)
    later = words.copy()
    later[:, 2:] = (later[:, 2:] + 1) % 11
    moved, _ = network.forward((source, keep, later), nn.Run())
    np.testing.assert_array_equal(moved[:, :2], y[:, :2])
    assert np.abs(moved[:, 2:] - y[:, 2:]).max() > 1e-3
    source = source.copy()
    source[:, 1] = (source[:, 1] + 1) % 11
    assert (np.abs(network.forward((source, keep, words), nn.Run())[0] - y).max((0, 2)) > 1e-6).all()


FROZEN = (
    ["body.encoder.embed.W"],
    ["body.encoder.layer1.attention.key.W"],
    ["body.memory_norm.a"],
    ["body.layer1.cross.value.W"],
    ["body.layer2.feed.up.b", "norm.a"],
    ["body.embed.W"],
    ["head.W"],
)


@pytest.mark.parametrize("active", FROZEN, ids=lambda names: names[0])
def test_frozen_gradients_are_those_of_the_full_pass(active, rng):
    network, x, g, inputs = made(place="pre", tied=False)
    c = rng.standard_normal((3, 4, 11))
    network.backward(c.copy(), network.forward(inputs, RUN)[1], RUN)
    assert all(np.abs(g[segment.slice]).max() > 0 for segment in network.segments)
    part = np.full(network.dim, np.nan)
    network.bind(x, part, frozenset(active))
    network.backward(c.copy(), network.forward(inputs, RUN)[1], RUN)
    for segment in network.segments:
        expected = g[segment.slice] if segment.name in active else np.nan
        np.testing.assert_array_equal(part[segment.slice], expected)


def test_the_paper_s_network_has_as_many_parameters_as_published():
    """torch.nn.Transformer() of PyTorch, with a norm behind each stack, has 44,140,544; tables of 37,000 words more."""
    network = transformer(37_000, 8, 8, 512, 6, 8, 2048, place="pre")
    assert network.dim == 44_140_544 + 37_000 * 512
    gated = [transformer(50, 8, 8, 96, 1, 2, activation=kind, positions=None).dim for kind in ("relu", "swiglu")]
    assert abs(gated[0] - gated[1]) < 0.01 * gated[0]


def test_it_learns_to_turn_a_text_round(rng):
    """Loss from the uniform law's to almost nothing on rows that were not seen: the source must have been read."""
    from npopt import Adam, Cosine, RandomReshuffling, Stop, minimize

    texts = [(row, row[::-1]) for row in rng.integers(3, 9, (2_200, 4))]
    feed = Pairs(texts[:2_000], 4, 5, 1, 2, test=texts[2_000:])
    network = transformer(9, 4, 5, 32, 1, 4, 64, place="pre")
    problem = Neural(network, feed)
    run = minimize(problem, Adam(), RandomReshuffling(50), Cosine(5e-3), stop=Stop(epochs=8), seed=1)
    assert run.columns["test_loss"][-1] < 0.05 * np.log(9)


@pytest.mark.parametrize("name", VARIANTS)
def test_word_by_word_it_is_what_it_is_at_once(name, path):
    """Logits from a decoder's state, which reads the source once, beside those of one pass; then with other beginnings
    and rows."""
    network, x, _, (source, keep, words) = made(**VARIANTS[name])
    decoder = Decoder(network, x)
    state = decoder.start(memory=decoder.read(source, keep), keep=keep)
    z = [state.append(words[:, :2], every=True)]
    z += [state.append(words[:, t : t + 1], every=True) for t in (2, 3)]
    whole, _ = network.forward((source, keep, words), nn.Run())
    np.testing.assert_allclose(np.concatenate(z, 1), whole, rtol=1e-11, atol=1e-12)
    state.rollback(1)
    rows = np.array([2, 0])
    other = np.concatenate([words[rows, :1], words[rows, 2:4]], axis=1)
    z = state.branch(rows).append(other[:, 1:], every=True)
    expected, _ = network.layer.forward((source[rows], keep[rows], other), nn.Run())
    np.testing.assert_allclose(z, expected[:, 1:], rtol=1e-11, atol=1e-12)
    lines = generate(decoder, [[1]] * 3, 4, memory=decoder.read(source, keep), keep=keep)
    for line, s, k in zip(lines, source, keep, strict=True):
        for t in range(1, 4):
            z, _ = network.layer.forward((s[None], k[None], line[None, :t]), nn.Run())
            assert z[0, -1].argmax() == line[t]


def test_it_never_touches_the_host(device):
    found = []
    for where in ("cpu", device):
        backend.use(where)
        network, _, g, inputs = made(place="pre", positions="relative", dropout=0.2)
        y, saved = network.forward(tuple(backend.asarray(a) for a in inputs), RUN)
        network.backward(backend.xp(y).cos(y), saved, RUN)
        found.append([backend.to_host(a) for a in (y, g)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_errors_are_one_sentence():
    with pytest.raises(ValueError, match="positions must be one of"):
        transformer(9, 4, 4, 8, 1, 2, positions="sine")
    with pytest.raises(ValueError, match=r"a row must be \(source, keep, words\)"):
        nn.Network(transformer(9, 4, 4, 8, 1, 2).layer.layers[0], (4,))
    network = nn.gpt2(9, 4, 8, 1, 2)
    with pytest.raises(ValueError, match="has no encoder"):
        Decoder(network, network.x0(np.random.default_rng(0))).read(np.array([[1]]))
