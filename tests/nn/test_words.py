"""The compiled way through a decoder: which networks take it, and that it is the way layer by layer."""

import nn
from nn.decoding import Decoder, Full, generate
from nn.decoding.drafts import parts_of
from nn.kernels import word_products
from nn.language import gpt2, llama
from npopt.errors import UserError

import numpy as np
import pytest
from test_decoding import by_hand, close, parameters

V = 7


def stacked(features, layers, before=(), **options):
    """A decoder of 37 words; odd sizes leave no vector of numbers full."""
    parts = [nn.EncoderLayer(features, causal=True, **options) for _ in range(layers)]
    norm = nn.RMSNorm(features) if options.get("norm") == "rms" else nn.LayerNorm(features)
    return nn.Network(nn.Sequential(nn.Embedding(37, features), *before, *parts, norm, nn.Linear(features, 37)), (80,))


TAKEN = {
    "llama": lambda: llama(V, 80, 16, 2, 4, 12, kv_heads=2),
    "llama, adjacent, own head": lambda: llama(V, 80, 64, 1, 2, 40, pairing="adjacent", tied=False),
    "gpt2": lambda: gpt2(V, 80, 8, 3, 4, dropout=0.2),
    "biases and gates": lambda: stacked(15, 2, heads=3, hidden=19, activation="geglu", norm="layer"),
    "relu, one key head": lambda: stacked(21, 2, heads=3, kv_heads=1, hidden=33, activation="relu", norm="rms"),
    "part of wide heads": lambda: stacked(
        10, 1, heads=2, width=20, activation="gelu", positions=nn.Rotary(50.0, "half", features=6)
    ),
    "scaled": lambda: stacked(
        8, 1, [nn.LearnedPositions(80, 8)], heads=2, activation="silu", scale=0.3, positions=nn.Rotary()
    ),
}
LEFT = {
    "norms behind": lambda: stacked(8, 1, heads=2, place="post"),
    "window": lambda: stacked(8, 1, heads=2, window=3),
    "Alibi": lambda: stacked(8, 1, heads=2, positions=nn.Alibi()),
    "added sinusoids": lambda: stacked(8, 1, [nn.SinusoidalPositions(8)], heads=2),
    "no last norm": lambda: by_hand(),
    "layers that differ": lambda: nn.Network(
        nn.Sequential(
            nn.Embedding(V, 8),
            *(nn.EncoderLayer(8, 2, hidden, causal=True) for hidden in (12, 16)),
            nn.LayerNorm(8),
            nn.Linear(8, V),
        ),
        (9,),
    ),
}


def slow(decoder, rows=1):
    """A state of the same decoder that goes layer by layer."""
    other = Decoder(decoder.network, decoder.x)
    other.fast = None
    return other.start(rows)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", TAKEN)
def test_it_is_the_way_layer_by_layer(name, dtype, rng):
    network = TAKEN[name]()
    decoder = Decoder(network, 0.6 * parameters(network, dtype))
    tokens, states = rng.integers(0, decoder.words, (3, 80)), (decoder.start(3), slow(decoder, 3))
    decoder.fast.most = 10**9
    for first, last, every in ((0, 1, False), (1, 5, True), (5, 6, False), (6, 9, False), (9, 61, True), (61, 62, True),
                               *((t, t + 1, False) for t in range(62, 68)), (68, 80, True)):  # fmt: skip
        assert decoder.fast.takes(tokens[:, first:last], first)
        one, two = (state.append(tokens[:, first:last], every) for state in states)
        close(one, two, dtype)


def test_both_ways_take_turns_on_one_memory(rng):
    network = TAKEN["llama"]()
    decoder, tokens = Decoder(network, parameters(network)), rng.integers(0, V, (2, 40))
    expected, state = slow(decoder, 2).append(tokens, every=True), decoder.start(2)
    most = (0, 10**9)
    for i, cut in enumerate(np.split(np.arange(40), [7, 8, 20, 21, 22, 30], axis=0)):
        decoder.fast.most = most[i % 2]
        assert decoder.fast.takes(tokens[:, cut], state.length) == i % 2
        close(state.append(tokens[:, cut], every=True), expected[:, cut], "float64")


def test_many_words_go_layer_by_layer():
    network = llama(V, 200, 8, 1, 1, 12)
    fast = Decoder(network, parameters(network)).fast
    one, two, many = (np.zeros(shape, int) for shape in ((1, 1), (2, 64), (1, 129)))
    assert fast.takes(one, 0) and fast.takes(two, 7) and not fast.takes(many, 0)
    nn.kernels.use("reference")
    assert not fast.takes(one, 0)
    nn.kernels.use("fast")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", TAKEN)
def test_words_have_the_same_bits_alone_and_together(name, dtype, rng):
    """Sums are in the same order. So a greedy text with drafts is bit by bit the one without."""
    network = TAKEN[name]()
    decoder = Decoder(network, 0.6 * parameters(network, dtype))
    tokens, one = rng.integers(0, decoder.words, (2, 60)), decoder.start(2)
    expected = np.stack([one.append(tokens[:, t : t + 1]) for t in range(60)], axis=1)
    for sizes in ((2, 3, 4, 5, 6, 7, 33), (60,)):  # 24 go through a layer together
        state = decoder.start(2)
        parts = np.split(tokens, np.cumsum(sizes)[:-1], axis=1)
        found = np.concatenate([state.append(part, every=True) for part in parts], axis=1)
        np.testing.assert_array_equal(found, expected)
    other = decoder.start(2)
    np.testing.assert_array_equal(other.append(tokens), expected[:, -1])  # logits of the last words alone


@pytest.mark.parametrize("name", TAKEN)
def test_a_tree_is_the_way_layer_by_layer(name, rng):
    network = TAKEN[name]()
    decoder = Decoder(network, 0.6 * parameters(network))
    states = decoder.start(), slow(decoder)
    before = rng.integers(0, decoder.words, (1, 9))
    for state in states:
        state.append(before)
    for n in (1, 6, 30):
        words, parents = rng.integers(0, decoder.words, n), [int(rng.integers(-1, i)) if i else -1 for i in range(n)]
        one, two = (state.append_tree(words, parents) for state in states)
        close(one, two, "float64")
        path = [n - 1]
        while parents[path[0]] >= 0:
            path = [parents[path[0]], *path]
        for state in states:
            state.choose_path(path)
        close(*(state.append([[1]]) for state in states), "float64")


def test_a_tree_of_no_branches_is_a_text(rng):
    network = TAKEN["llama"]()
    decoder = Decoder(network, parameters(network, "float32"))
    words = rng.integers(0, V, 12)
    found = decoder.start().append_tree(words, np.arange(12) - 1)
    np.testing.assert_array_equal(found, decoder.start().append(words[None], every=True)[0])


@pytest.mark.parametrize("name", ["llama", "gpt2", "relu, one key head"])
def test_parts_are_left_out_as_layer_by_layer(name, rng):
    network = TAKEN[name]()
    decoder = Decoder(network, parameters(network))
    other, tokens = slow(decoder), rng.integers(0, decoder.words, (1, 20))
    paths, state = sorted(parts_of(decoder)), decoder.start()
    for skip in (paths[:1], paths[1:2], paths[1:], paths, []):
        found = []
        for each in (state, other):
            with each.without([parts_of(each.decoder)[path] for path in skip]):
                found.append(each.append(tokens, every=True))
            each.rollback(3)
        close(*found, "float64")


@pytest.mark.parametrize("name", LEFT)
def test_other_networks_do_not_take_it(name):
    network = LEFT[name]()
    decoder = Decoder(network, parameters(network))
    assert decoder.fast is None
    assert len(generate(decoder, [1], 5)) == 5


def test_other_caches_and_arrays_do_not_take_it():
    class Own(Full):
        pass

    network = TAKEN["llama"]()
    x = parameters(network)
    assert Decoder(network, x, Own()).fast is None
    assert Decoder(network, np.stack([x, x], 1)[:, 0]).fast is None


def test_it_reads_the_parameters_where_they_are(rng):
    network = TAKEN["gpt2"]()
    decoder, tokens = Decoder(network, parameters(network)), rng.integers(0, V, (1, 9))
    before = decoder.start().append(tokens)
    decoder.x *= 0.5
    after = decoder.start().append(tokens)
    assert np.abs(after - before).max() > 0.1
    close(after, slow(decoder).append(tokens), "float64")


def test_what_it_cannot_do_is_said_as_layers_say_it():
    network = TAKEN["gpt2"]()
    state = Decoder(network, parameters(network)).start(2)
    state.append(np.zeros((2, 79), int))
    for wrong, message in (([[0], [V]], "7 is not one of the 7 words"), ([[0, 0]] * 2, "a text would have 81")):
        with pytest.raises(UserError, match=message):
            state.append(wrong)
    state.append([[0], [0]])
    with pytest.raises(UserError, match="there are 80 positions, a text would have 81"):
        state.append([[0], [0]])


def test_where_it_does_not_compile_layers_do_the_work(monkeypatch, rng):
    def broken(*arguments):
        raise TypeError("numba has changed")

    network = TAKEN["llama"]()
    x, tokens = parameters(network), rng.integers(0, V, (1, 9))
    monkeypatch.setattr(nn.kernels.words, "run", broken)
    monkeypatch.setattr(nn.kernels, "SAID", [])
    decoder = Decoder(network, x)
    with pytest.warns(RuntimeWarning, match="cannot be used here .TypeError: numba has changed"):
        found = decoder.start().append(tokens)
    np.testing.assert_array_equal(found, slow(decoder).append(tokens))
    assert not decoder.fast.takes(tokens[:, :1], 0)
    monkeypatch.setattr(nn.kernels.words, "run", None)
    assert Decoder(network, x).fast is None


def test_weights_that_no_cache_holds_are_read_row_by_row():
    """A network of more than LARGE parameters goes another way through its matrices, to the same numbers."""
    network = llama(3000, 16, 640, 1, 4)
    assert network.dim > word_products.LARGE
    x = 0.1 * network.x0(np.random.default_rng(0))
    tokens = np.random.default_rng(1).integers(0, 3000, (2, 5))
    decoder = Decoder(network, x)
    assert decoder.fast is not None
    state = decoder.start(2)
    found = np.stack([state.append(tokens[:, t : t + 1]) for t in range(5)], axis=1)
    np.testing.assert_array_equal(decoder.start(2).append(tokens, every=True), found)
    decoder.fast = None
    expected = decoder.start(2).append(tokens, every=True)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
