"""States of decoders: word by word the logits are those of one pass over the whole text."""

import nn
from nn.composites import Sequential
from nn.decoding import Decoder, Full, State
from nn.language import gpt2, llama
from nn.layer import Layer, Run
from npopt import backend
from npopt.errors import UserError

import numpy as np
import pytest

V, D, T = 7, 8, 12
LIMITS = {"float64": 1e-12, "float32": 1e-5}


def by_hand(layers=2, before=(), after=(), **options):
    """A decoder of these layers."""
    options = dict(causal=True, norm="rms", **options) if "norm" not in options else dict(causal=True, **options)
    parts = [nn.EncoderLayer(D, 4, 12, **options) for _ in range(layers)]
    return nn.Network(nn.Sequential(nn.Embedding(V, D), *before, *parts, *after, nn.Linear(D, V)), (T,))


NETWORKS = {
    "llama, shared keys": lambda: llama(V, T, D, 2, 4, 12, kv_heads=2),
    "llama, adjacent pairs, own head": lambda: llama(V, T, D, 2, 2, 12, pairing="adjacent", tied=False),
    "gpt2 with dropout": lambda: gpt2(V, T, D, 2, 4, dropout=0.3),
    "post, sinusoids": lambda: by_hand(place="post", norm="layer", before=[nn.SinusoidalPositions(D, scale=2.0)]),
    "part of a head turned": lambda: by_hand(width=6, positions=nn.Rotary(30.0, features=4), kv_heads=1),
    "window": lambda: by_hand(window=3, positions=nn.Rotary()),
    "strided": lambda: by_hand(pattern=("strided", 3), after=[nn.RMSNorm(D), nn.Dropout(0.2)]),
    "fixed": lambda: by_hand(pattern=("fixed", 4, 1), activation="swiglu", bias=False),
    "Alibi": lambda: by_hand(positions=nn.Alibi(), scale=0.7),
    "Relative": lambda: by_hand(layers=1, positions=nn.Relative(3)),
    "Relative, keys alone": lambda: by_hand(layers=1, positions=nn.Relative(2, values=False)),
    "residual blocks of one's own": lambda: nn.Network(
        nn.Sequential(
            nn.Embedding(V, D),
            nn.LearnedPositions(T, D),
            nn.Residual(nn.Sequential(nn.LayerNorm(D), nn.MultiHeadAttention(D, 2, causal=True)), activation=nn.Tanh()),
            nn.Residual(nn.Linear(D, 5), nn.Sequential(nn.Linear(D, 5), nn.GELU())),
            nn.Linear(5, V),
        ),
        (T,),
    ),
}


@pytest.fixture(params=["fast", "reference"])
def path(request):
    nn.kernels.use(request.param)
    yield request.param
    nn.kernels.use("fast")


def parameters(network, dtype="float64", seed=0):
    """Random ones that leave no part at its neutral value, on the device in use."""
    x = np.random.default_rng(seed).standard_normal(network.dim) * 0.5
    return backend.asarray(x.astype(dtype))


def whole_pass(network, x, tokens):
    network.bind(x)
    return backend.to_host(network.layer.forward(backend.asarray(tokens), Run())[0])


def close(found, expected, dtype):
    np.testing.assert_allclose(found, expected, rtol=0, atol=LIMITS[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_one_pass(name, dtype, path, rng):
    network = NETWORKS[name]()
    x, tokens = parameters(network, dtype), rng.integers(0, V, (2, T))
    expected = whole_pass(network, x, tokens)
    for cuts in ([], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [3, 4, 9], [5]):
        state = Decoder(network, x).start(2)
        found = [state.append(part, every=True) for part in np.split(tokens, cuts, axis=1)]
        close(np.concatenate(found, axis=1), expected, dtype)
        state = Decoder(network, x).start(2)
        last = [state.append(part) for part in np.split(tokens, cuts, axis=1)]
        for end, logits in zip([*cuts, T], last, strict=True):
            close(logits, expected[:, end - 1], dtype)
        assert state.length == T


def test_long_texts_outgrow_their_first_memory_and_large_pieces_take_the_compiled_loops(path, rng):
    network = llama(V, 200, D, 2, 4, 12, kv_heads=2)
    x, tokens = parameters(network), rng.integers(0, V, (2, 200))
    expected, state = whole_pass(network, x, tokens), Decoder(network, x).start(2)
    cuts = [60, 61, 62, 63, 64, 65, 66, 90, 129]
    found = [state.append(part, every=True) for part in np.split(tokens, cuts, axis=1)]
    close(np.concatenate(found, axis=1), expected, "float64")


@pytest.mark.parametrize("name", ["llama, shared keys", "Relative", "post, sinusoids"])
def test_a_state_is_rolled_back_and_branched(name, rng):
    network = NETWORKS[name]()
    x, tokens = parameters(network), rng.integers(0, V, (3, T))
    state = Decoder(network, x).start(3)
    state.append(tokens[:, :7])
    other = state.branch([2, 0, 2, 1])
    later = rng.integers(0, V, (4, 5))
    logits = other.append(later)
    rows = np.concatenate([tokens[[2, 0, 2, 1], :7], later], axis=1)
    close(logits, whole_pass(network, x, rows)[:, -1], "float64")
    state.rollback(4)
    changed = np.concatenate([tokens[:, :4], (tokens[:, 4:9] + 1) % V], axis=1)
    close(state.append(changed[:, 4:]), whole_pass(network, x, changed)[:, -1], "float64")
    other.rollback(7)
    np.testing.assert_allclose(other.append(later), logits, rtol=1e-13, atol=1e-13)
    state.rollback(0)
    close(state.append(rows[:3]), whole_pass(network, x, rows[:3])[:, -1], "float64")


def test_memory_is_as_much_as_the_docstring_says():
    network = llama(V, 200, 24, 3, 4, 12, kv_heads=2)
    state = Decoder(network, parameters(network, "float32")).start(5)
    assert state.nbytes == 0
    for length, room in ((1, 64), (64, 64), (65, 128), (130, 256)):
        state.append(np.zeros((5, length - state.length), int))
        assert state.nbytes == 2 * 3 * 5 * 2 * room * 6 * 4  # 2 L B G T d numbers of four bytes
    assert state.branch([0]).nbytes == 2 * 3 * 2 * 256 * 6 * 4


class Translator(Layer):
    """(words, memory, keep) -> logits: decoder layers made by hand."""

    def __init__(self, place):
        self.start = Sequential(embed=nn.Embedding(V, D), positions=nn.LearnedPositions(T, D))
        options = dict(memory_features=5, place=place, kv_heads=2)
        self.layers, self.head = [nn.DecoderLayer(D, 4, 12, **options) for _ in "12"], nn.Linear(D, V)

    def children(self):
        return [("", self.start), *((f"layer{i}", layer) for i, layer in enumerate(self.layers)), ("head", self.head)]

    def output_shape(self, shape):
        return (shape[0][0], V)

    def forward(self, x, run):
        words, *others = x
        x = self.start.forward(words, run)[0]
        for layer in self.layers:
            x = layer.forward((x, *others), run)[0]
        return self.head.forward(x, run)[0], ()

    def extend(self, x, past):
        for _, layer in self.children():
            x = layer.extend(x, past)
        return x

    def extendable(self):
        for _, layer in self.children():
            layer.extendable()


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("kept", ["all", "some", "lengths"])
def test_decoders_look_at_a_memory(kept, place, path, rng):
    network = nn.Network(Translator(place), ((T,), (6, 5), (6,)))
    x, tokens, memory = parameters(network), rng.integers(0, V, (3, 9)), rng.standard_normal((3, 6, 5))
    keep = {"all": None, "some": rng.random((3, 6)) < 0.6, "lengths": np.array([6, 1, 4])}[kept]
    network.bind(x)
    others = (memory,) if keep is None else (memory, keep)
    expected = network.layer.forward((tokens, *others), Run())[0]
    state = Decoder(network, x).start(memory=memory, keep=keep)
    found = [state.append(part, every=True) for part in np.split(tokens, [2, 3, 4], axis=1)]
    close(np.concatenate(found, axis=1), expected, "float64")
    state.rollback(4)
    rows, more = [2, 0, 0], np.concatenate([tokens[[2, 0, 0], :4], rng.integers(0, V, (3, 2))], axis=1)
    branched = tuple(None if part is None else part[rows] for part in (memory, keep))
    expected = network.layer.forward((more, *(part for part in branched if part is not None)), Run())[0]
    close(state.branch(rows).append(more[:, 4:]), expected[:, -1], "float64")
    close(state.append(tokens[:, 4:]), network.layer.forward((tokens, *others), Run())[0][:, -1], "float64")


@pytest.mark.parametrize("name", ["llama, shared keys", "gpt2 with dropout", "Relative", "Alibi", "post, sinusoids"])
def test_a_state_never_brings_activations_to_the_host(name, device, rng):
    network, tokens = NETWORKS[name](), rng.integers(0, V, (2, T))
    expected = whole_pass(network, parameters(network), tokens)
    state = Decoder(network, parameters(network)).start(2)
    logits = [state.append(tokens[:, :6]), state.append(tokens[:, 6:7])]
    assert all(backend.owner(part).name == backend.device() for part in logits)
    other = state.branch([1, 0])
    logits += [other.append(tokens[::-1, 7:9])]
    for part, right in zip(logits, (expected[:, 5], expected[:, 6], expected[::-1, 8]), strict=True):
        close(backend.to_host(part), right, "float64")


def test_what_cannot_extend_a_text_is_refused_in_one_sentence():
    for layer, message in (
        (nn.EncoderLayer(D, 2), "MultiHeadAttention.* cannot extend a text: without causal=True"),
        (nn.BatchNorm(D), r"BatchNorm cannot extend a text: give it extend\(x, past\), or positionwise = True"),
        (nn.Residual(nn.BatchNorm(D)), "BatchNorm cannot extend a text"),
    ):
        network = nn.Network(nn.Sequential(nn.Embedding(V, D), layer, nn.Linear(D, V)), (T,))
        with pytest.raises(UserError, match=message):
            Decoder(network, parameters(network))
    network = nn.bert(V, T, D, 1, 2, head="words")
    with pytest.raises(UserError, match="Encoder cannot extend a text"):
        Decoder(network, parameters(network))


def test_a_state_that_refuses_is_as_it_was(rng):
    network = NETWORKS["gpt2 with dropout"]()
    x, tokens = parameters(network), rng.integers(0, V, (2, T))
    decoder = Decoder(network, x, Full())
    state = decoder.start(2)
    assert type(state) is State
    state.append(tokens[:, :5])
    for wrong, message in (
        ([[1, 2]], r"tokens must be whole numbers of shape \(2, n\), got int64 \(1, 2\)"),
        ([[1.0], [2.0]], "got float64"),
        (np.zeros((2, 0), int), r"got int64 \(2, 0\)"),
        ([[1], [V]], "7 is not one of the 7 words"),
        ([[-1], [0]], "-1 is not one of the 7 words"),
        (np.zeros((2, 8), int), "there are 12 positions, a text would have 13"),
    ):
        with pytest.raises(UserError, match=message):
            state.append(wrong)
    other = nn.Network(Translator("pre"), ((T,), (6, 5)))
    for call, message in (
        (lambda: state.rollback(6), "the texts have 5 words, 6 cannot be kept"),
        (lambda: state.rollback(-1), "length must be a whole number of at least 0"),
        (lambda: state.branch([0, 2]), r"rows must be some of 0..1, got \[0, 2\]"),
        (lambda: state.branch([]), "rows must be some of"),
        (lambda: decoder.start(0), "rows must be a whole number of at least 1"),
        (lambda: decoder.start(memory=np.zeros((1, 2, 3))), "has no cross-attention"),
        (lambda: Decoder(other, parameters(other)).start(), "wants memory="),
        (lambda: Decoder(other, x), r"x must have shape \(\d+,\)"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    assert state.length == 5
    close(state.append(tokens[:, 5:]), whole_pass(network, x, tokens)[:, -1], "float64")
