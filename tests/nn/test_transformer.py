"""Transformer layers: gradients of every variant, what masks promise, and that they are their parts."""

import nn
from npopt import backend

import numpy as np
import pytest

THREADS = 1  # layers of a few numbers: tests/conftest.py

RUN = nn.Run(training=True, dx=True, seed=7)
KEEP = np.array([[True, True, True, False], [True] * 4])
VARIANTS = {
    "pre": dict(place="pre", dropout=0.3),
    "post": dict(place="post", dropout=0.3, activation="relu"),
    "post, rms norm": dict(place="post", norm="rms", activation="gelu-tanh", bias=False),
    "llama's": dict(norm="rms", activation="swiglu", bias=False, kv_heads=1, causal=True, positions=nn.Rotary()),
    "gated, with biases": dict(activation="geglu", hidden=3),
    "rectified gate": dict(activation="reglu", norm=lambda features: nn.LayerNorm(features, eps=0.1)),
}


@pytest.fixture(params=["fast", "reference"])
def path(request):
    nn.kernels.use(request.param)
    yield request.param
    nn.kernels.use("fast")


def bound(layer, shape, seed=0):
    network = nn.Network(layer, shape)
    x, g = np.random.default_rng(seed).standard_normal(network.dim), np.zeros(network.dim)
    network.bind(x, g)
    return network, x, g


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_of_encoder_layers(name, path):
    layer = nn.EncoderLayer(4, 2, **{"hidden": 6, **VARIANTS[name]})
    report = nn.gradcheck_layer(layer, ((4, 4), (4,)), batch=2, inputs=(None, KEEP))
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["pre", "post", "llama's"])
def test_gradients_of_decoder_layers_and_of_their_memory(name, path):
    layer = nn.DecoderLayer(4, 2, 6, memory_features=3, **VARIANTS[name])
    report = nn.gradcheck_layer(layer, ((3, 4), (4, 3), (4,)), batch=2, inputs=(None, None, KEEP))
    assert report.ok, str(report)


def by_hand(layer, x, keep):
    """The docstring's formulas from the parts themselves, without dropout."""
    for part in layer.parts:
        others = (keep,) if part.name == "attention" else ()
        f = lambda h: part.f.forward((h, *others) if others else h, nn.Run())[0]  # noqa: E731, B023
        norm = lambda h: part.norm.forward(h, nn.Run())[0]  # noqa: E731, B023
        x = norm(x + f(x)) if part.place == "post" else x + f(norm(x))
    return x


@pytest.mark.parametrize("place", ["pre", "post"])
def test_layers_are_their_formulas_and_names_stand_where_files_have_them(place, path, rng):
    layer = nn.EncoderLayer(4, 2, 6, place=place)
    network, _, _ = bound(layer, ((4, 4), (4,)))
    x = rng.standard_normal((2, 4, 4))
    np.testing.assert_allclose(network.forward((x, KEEP), nn.Run())[0], by_hand(layer, x, KEEP), rtol=1e-12, atol=1e-13)
    names = network.segments.names
    assert names[:2] == ["attention.query.W", "attention.query.b"] and "attention_norm.a" in names
    assert {"feed.up.W", "feed.down.b", "feed_norm.b"} <= set(names)
    assert len(nn.Network(nn.Sequential(a=nn.EncoderLayer(4, 2), b=nn.EncoderLayer(4, 2)), (5, 4)).segments.blocks) == 2


def test_a_layer_before_the_norm_is_nested_residuals(path, rng):
    one = nn.EncoderLayer(4, 2, 6)
    parts = nn.MultiHeadAttention(4, 2), nn.feed_forward(4, 6)
    two = nn.Sequential(*(nn.Residual(nn.Sequential(norm=nn.LayerNorm(4), f=part)) for part in parts))
    (first, x, g), (second, z, h) = bound(one, (5, 4)), bound(two, (5, 4))
    prefix = {"0.f.": "attention.", "0.norm.": "attention_norm.", "1.f.": "feed.", "1.norm.": "feed_norm."}
    pairs = []
    for segment in second.segments:
        start = next(p for p in prefix if segment.name.startswith(p))
        mine = first.segments.find(prefix[start] + segment.name.removeprefix(start))
        pairs.append((segment.slice, mine.slice))
        z[segment.slice] = x[mine.slice]
    a, c = rng.standard_normal((2, 3, 5, 4))
    found = []
    for network in (first, second):
        y, saved = network.forward(a, RUN)
        found.append((y, network.backward(c.copy(), saved, RUN)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    for theirs, mine in pairs:
        np.testing.assert_allclose(g[mine], h[theirs], rtol=1e-11, atol=1e-12)


def test_what_is_padded_changes_nothing_and_the_future_neither(path, rng):
    network, _, _ = bound(nn.Sequential(nn.EncoderLayer(4, 2)), (5, 4))
    layer, x = network.layer.layers[0], rng.standard_normal((2, 5, 4))
    short = layer.forward(x, nn.Run())[0]
    longer = np.concatenate([x, 100 * rng.standard_normal((2, 3, 4))], axis=1)
    padded = layer.forward((longer, np.array([5, 5])), nn.Run())[0]
    np.testing.assert_allclose(padded[:, :5], short, rtol=1e-12, atol=1e-13)
    decoder, _, _ = bound(nn.DecoderLayer(4, 2), ((6, 4), (5, 4)))
    y, memory = rng.standard_normal((2, 6, 4)), x
    later = y.copy()
    later[:, 3:] += 5
    one, two = (decoder.forward((a, memory), nn.Run())[0] for a in (y, later))
    np.testing.assert_array_equal(one[:, :3], two[:, :3])
    assert np.abs(one[:, 3:] - two[:, 3:]).max() > 1e-3
    other = decoder.forward((y, memory + 1), nn.Run())[0]
    assert np.abs(other - one).min() > 0


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize(
    "active", [["attention.key.W"], ["feed.up.b"], ["attention_norm.a"], ["cross.value.W", "feed_norm.b"]]
)
def test_frozen_gradients_are_those_of_the_full_pass(active, place, rng):
    network, x, g = bound(nn.DecoderLayer(4, 2, 6, place=place), ((3, 4), (4, 4)))
    inputs, c = (rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 4, 4))), rng.standard_normal((2, 3, 4))
    run = nn.Run(training=True, backward=True)
    network.backward(c.copy(), network.forward(inputs, run)[1], run)
    part = np.full(network.dim, np.nan)
    network.bind(x, part, frozenset(active))
    y, saved = network.forward(inputs, run)
    assert network.backward(c.copy(), saved, run) is None
    for segment in network.segments:
        expected = g[segment.slice] if segment.name in active else np.nan
        np.testing.assert_array_equal(part[segment.slice], expected)


def test_decoder_layers_never_touch_the_host(device, rng):
    arrays, found = (*rng.standard_normal((2, 2, 4, 4)), KEEP), []
    for where in ("cpu", device):
        backend.use(where)
        network = nn.Network(nn.DecoderLayer(4, 2, 6, dropout=0.3, activation="swiglu"), ((4, 4), (4, 4), (4,)))
        weights = backend.asarray(np.random.default_rng(0).standard_normal(network.dim))
        g = backend.zeros(weights.shape, "float64")
        network.bind(weights, g)
        y, saved = network.forward(tuple(backend.asarray(a) for a in arrays), RUN)
        found.append([backend.to_host(a) for a in (y, *network.backward(backend.xp(y).cos(y), saved, RUN), g)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.LearnedPositions, nn.SinusoidalPositions])
def test_positions_that_are_added(kind, rng):
    layer = (
        nn.LearnedPositions(6, 5) if kind is nn.LearnedPositions else nn.SinusoidalPositions(5, scale=2.0, base=30.0)
    )
    network, x, _ = bound(layer, (4, 5))
    a = rng.standard_normal((2, 4, 5))
    y, _ = network.forward(a, nn.Run())
    for t in range(4):
        if kind is nn.LearnedPositions:
            expected = a[:, t] + x.reshape(6, 5)[t]
        else:
            angles = [t / 30.0 ** (2 * (i // 2) / 5) for i in range(5)]
            expected = 2 * a[:, t] + [np.cos(v) if i % 2 else np.sin(v) for i, v in enumerate(angles)]
        np.testing.assert_allclose(y[:, t], expected, rtol=1e-13, atol=1e-14)


def test_a_tied_head_adds_to_the_embedding_and_padding_is_not_trained(rng):
    """dW = dlogits' h + the sum by words; the row of padding has the head's part alone."""
    words, found = np.array([[1, 3, 0], [3, 3, 2]]), {}
    for padding in (None, 0):
        body = dict(
            embed=nn.Embedding(5, 4, padding=padding),
            layer=nn.EncoderLayer(4, 2, causal=True),
            head=nn.Linear(4, 5, bias=False),
        )
        network = nn.Network(nn.Sequential(**body), (3,), share={"head.W": "embed.W"})
        x, g = np.random.default_rng(1).standard_normal(network.dim), np.zeros(network.dim)
        network.bind(x, g)
        z, saved = network.forward(words, nn.Run(training=True, backward=True))
        c = np.cos(z)
        h = saved[2][0]
        network.backward(c.copy(), saved, nn.Run(training=True, backward=True))
        found[padding] = network.segments.find("embed.W").slice, g.copy(), c.reshape(-1, 5).T @ h
    where, full, of_head = found[None]
    np.testing.assert_allclose(found[0][1][where].reshape(5, 4)[0], of_head[0], rtol=1e-12)
    np.testing.assert_array_equal(found[0][1][where].reshape(5, 4)[1:], full[where].reshape(5, 4)[1:])
    assert np.abs(full[where].reshape(5, 4)[0] - of_head[0]).max() > 1e-3
    assert repr(network.layer.layers[0].init["W"]) == repr(nn.init.ZeroRow(nn.init.Normal(0.02), 0))
    start = network.x0(np.random.default_rng(0))
    np.testing.assert_array_equal(start[where].reshape(5, 4)[0], 0)
    assert start[where].reshape(5, 4)[1:].all()


@pytest.mark.parametrize("layer", [nn.RMSNorm(8), nn.MultiHeadAttention(8, 2)], ids=repr)
def test_without_kernels_for_two_bytes_a_device_keeps_halves_in_float32(layer, rng, monkeypatch):
    """On a device that has arrays of float16 these layers get float32 arrays of its numbers, as on a CPU."""
    network, x = nn.Network(layer, (3, 8)), rng.standard_normal((2, 3, 8)).astype("float32")
    start, dy = network.x0(rng), rng.standard_normal((2, 3, 8)).astype("float32")
    found = {}
    for place in ("cpu", "strict"):
        backend.use(place)
        monkeypatch.setattr(backend.owner(backend.zeros(1, "float32")), "stores", ("float16",))
        parameters = backend.asarray(start)
        g = backend.zeros(start.shape, "float32")
        network.bind(parameters, g)
        run = nn.Run(training=True, dx=True, compute="float16")
        y, saved = network.forward(backend.asarray(x), run)
        dx = network.backward(backend.asarray(dy.copy()), saved, run)
        found[place] = [backend.to_host(a) for a in (y, dx, g)]
    backend.use("cpu")
    assert not network.two_bytes
    for one, other in zip(*found.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2.0**-9, atol=2.0**-9)
    np.testing.assert_array_equal(found["cpu"][0], found["cpu"][0].astype("float16"))


def test_as_many_lengths_as_rows_are_wanted(rng):
    network = nn.Network(nn.MultiHeadAttention(4, 2), ((3, 4), ()))
    network.bind(network.x0(rng))
    x = np.ones((2, 3, 4), "float32")
    assert np.isfinite(network.layer.forward((x, np.array([2, 3])), nn.Run())[0]).all()
    with pytest.raises(ValueError, match=r"whole numbers of shape \(2,\), got int64 \(1,\)"):
        network.layer.forward((x, np.array([2])), nn.Run())
