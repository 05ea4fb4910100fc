"""Attention and positions: values by loops over pairs, both ways of computing them, masks, identities, gradients."""

from math import exp

import nn
from nn import kernels
from nn.kernels import reference_attention
from nn.kernels.reference_attention import How
from npopt import backend

import numpy as np
import pytest

TRAINING = nn.Run(training=True, dx=True, seed=7)
KEEP = np.array([[True, True, False, True, True], [False] * 5, [True, True, True, False, False]])
MAKE = {  # name: how a layer of 8 features is made
    "plain": dict(heads=2),
    "causal": dict(heads=2, causal=True),
    "grouped queries": dict(heads=4, kv_heads=2, causal=True),
    "one head of keys": dict(heads=4, kv_heads=1, bias=False),
    "wide heads": dict(heads=2, width=5, scale=0.3),
    "window": dict(heads=2, window=2),
    "causal window": dict(heads=2, causal=True, window=3),
    "strided": dict(heads=2, causal=True, pattern=("strided", 2)),
    "fixed": dict(heads=2, causal=True, pattern=("fixed", 3, 1)),
    "dropout": dict(heads=2, dropout=0.4),
    "rotary": dict(heads=2, positions=nn.Rotary(theta=50.0)),
    "rotary, adjacent pairs": dict(heads=2, causal=True, positions=nn.Rotary(theta=50.0, pairing="adjacent")),
    "rotary, half of a head": dict(heads=2, positions=nn.Rotary(features=2)),
    "alibi": dict(heads=3, width=4, causal=True, positions=nn.Alibi()),
    "alibi, both sides": dict(heads=2, positions=nn.Alibi()),
    "relative": dict(heads=2, kv_heads=1, positions=nn.Relative(2), dropout=0.3),
    "relative, keys alone": dict(heads=2, causal=True, positions=nn.Relative(1, values=False)),
}


@pytest.fixture(params=["fast", "reference"])
def path(request):
    kernels.use(request.param)
    yield request.param
    kernels.use("fast")


def bound(layer, shape, rng, dtype="float64"):
    network = nn.Network(layer, shape)
    x, g = rng.standard_normal(network.dim).astype(dtype), np.zeros(network.dim, dtype)
    network.bind(x, g)
    return network, x, g


def sees(layer, i, j):
    """Whether query i may see key j, from the docstring."""
    near = not layer.window or abs(i - j) < layer.window
    if layer.pattern and layer.pattern[0] == "strided":
        near = near and (abs(i - j) < layer.pattern[1] or (i - j) % layer.pattern[1] == 0)
    if layer.pattern and layer.pattern[0] == "fixed":
        near = near and (
            i // layer.pattern[1] == j // layer.pattern[1]
            or j % layer.pattern[1] >= layer.pattern[1] - layer.pattern[2]
        )
    return near and (j <= i or not layer.causal)


def turned(vector, t, rotary):
    """Rotary positions of one head's numbers, pair by pair."""
    d, out = rotary.features or len(vector), vector.copy()
    for i in range(d // 2):
        a, b = (2 * i, 2 * i + 1) if rotary.pairing == "adjacent" else (i, i + d // 2)
        angle = t * rotary.theta ** (-2 * i / d)
        out[a] = vector[a] * np.cos(angle) - vector[b] * np.sin(angle)
        out[b] = vector[a] * np.sin(angle) + vector[b] * np.cos(angle)
    return out


def slow(layer, x, memory, keep, mask=None):
    """The docstring's equations for one row: x (T, D), memory (S, M), keep (S,); mask (H, T, S) of dropout."""

    def maps(part, rows):
        return np.array([part.W @ row + (part.b if part.bias else 0) for row in rows])

    q, k, v = maps(layer.query, x), maps(layer.key, memory), maps(layer.value, memory)
    d, kind, outputs = layer.width, layer.positions, []
    for i in range(len(x)):
        heads = []
        for h in range(layer.heads):
            g = h // (layer.heads // layer.kv_heads)
            mine, theirs, values = q[i, h * d : h * d + d], k[:, g * d : g * d + d], v[:, g * d : g * d + d]
            weights, found = [], []
            for j in range(len(memory)):
                key, value, bias = theirs[j], values[j], 0.0
                if isinstance(kind, nn.Rotary):
                    key = turned(key, j - i, kind)  # by the difference alone
                if isinstance(kind, nn.Relative):
                    c = max(-kind.distance, min(kind.distance, j - i)) + kind.distance
                    key = key + layer.K[c]
                    value = value + layer.V[c] if kind.values else value
                if isinstance(kind, nn.Alibi):
                    bias = -kind.slopes(layer.heads)[h] * abs(i - j)
                there = sees(layer, i, j) and keep[j]
                weights.append(exp(layer.scale * float(mine @ key) + bias) if there else 0.0)
                found.append(value)
            total = sum(weights)
            drops = np.ones(len(memory)) if mask is None else mask[h, i]
            heads.append(
                sum((w / total * m * f for w, m, f in zip(weights, drops, found, strict=True)), np.zeros(d))
                if total
                else np.zeros(d)
            )
        outputs.append(layer.out.W @ np.concatenate(heads) + (layer.out.b if layer.out.bias else 0))
    return np.array(outputs)


@pytest.mark.parametrize("name", MAKE)
def test_values_are_the_equations_pair_by_pair(name, path, rng):
    layer = nn.MultiHeadAttention(8, **MAKE[name])
    network, _, _ = bound(layer, ((5, 8), (5,)), rng)
    x, mask = rng.standard_normal((3, 5, 8)), [None] * 3
    if layer.dropout:
        u = np.empty((3, layer.heads * 25))
        backend.row_uniform(backend.key(7, "attention ", 0), np.arange(3), u)
        mask = (u >= layer.dropout).reshape(3, layer.heads, 5, 5) / (1 - layer.dropout)
    y, _ = network.forward((x, KEEP), TRAINING)
    for b in range(3):
        np.testing.assert_allclose(y[b], slow(layer, x[b], x[b], KEEP[b], mask[b]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", MAKE)
def test_gradients_with_keys_that_are_left_out(name, path):
    report = nn.gradcheck_layer(nn.MultiHeadAttention(8, **MAKE[name]), ((5, 8), (5,)), inputs=(None, KEEP))
    assert report.ok, str(report)


@pytest.mark.parametrize("options", [dict(heads=2), dict(heads=4, kv_heads=2, memory=3, dropout=0.3)])
def test_cross_attention(options, path, rng):
    layer, other = nn.MultiHeadAttention(8, cross=True, **options), options.get("memory", 8)
    lengths = np.array([6, 0, 2])
    report = nn.gradcheck_layer(layer, ((4, 8), (6, other), ()), inputs=(None, None, lengths))
    assert report.ok, str(report)
    network, _, _ = bound(layer, ((4, 8), (6, other), (6,)), rng)
    x, memory = rng.standard_normal((3, 4, 8)), rng.standard_normal((3, 6, other))
    keep = np.arange(6) < lengths[:, None]
    y, _ = network.forward((x, memory, keep), nn.Run())
    for b in range(3):
        np.testing.assert_allclose(y[b], slow(layer, x[b], memory[b], keep[b]), rtol=1e-11, atol=1e-12)


SIZES = {  # T, S, H, G, D and what else: blocks that end early, and keys that nobody may see
    "one block": (7, 9, 4, 2, 5, {}),
    "many blocks, causal": (150, 150, 2, 1, 34, dict(causal=True)),
    "causal window": (150, 150, 1, 1, 8, dict(causal=True, window=9)),
    "window": (140, 140, 1, 1, 8, dict(window=9)),
    "strided": (70, 70, 1, 1, 8, dict(causal=True, pattern=("strided", 4))),
    "fixed": (70, 70, 1, 1, 8, dict(causal=True, pattern=("fixed", 8, 2))),
    "keys that are there": (
        20,
        140,
        2,
        1,
        8,
        dict(keep=np.random.default_rng(0).random((2, 140)) > np.array([[0.5], [1]])),
    ),
    "slopes": (20, 30, 2, 1, 8, dict(slopes=(0.5, 0.25))),
    "the end of a sequence": (4, 30, 2, 2, 8, dict(causal=True, first=26, slopes=(0.5, 0.25))),
    "dropout": (20, 30, 2, 1, 8, dict(dropout=(0.3, 12345678901234567890, np.array([5, 2])))),
    "relative": (9, 23, 4, 2, 8, dict(tables=np.random.default_rng(1).standard_normal((2, 7, 8)), causal=True)),
}


@pytest.mark.parametrize("dtype, near", [("float64", 1e-12), ("float32", 3e-5)])
@pytest.mark.parametrize("name", SIZES)
def test_both_forms_and_the_compiled_one_agree(name, dtype, near, monkeypatch):
    """All T x S probabilities at once, blocks of keys, compiled blocks on one thread and on two."""
    monkeypatch.setattr(reference_attention, "BLOCK", 5)
    T, S, H, G, D, more = SIZES[name]
    rng, found = np.random.default_rng(2), []
    q, k, v, do = (rng.standard_normal((2, n, h, D)).astype(dtype) for n, h in ((T, H), (S, G), (S, G), (T, H)))
    more = {n: np.array(a, dtype) if n in ("slopes", "tables") else a for n, a in more.items()}
    how, tables = How(0.3, **more), [np.empty_like(a) for a in more.get("tables", ())]
    compiled = kernels.attention.fast["cpu"], kernels.attention_backward.fast["cpu"]
    ways = [
        (getattr(reference_attention, f"attention{way}"), getattr(reference_attention, f"attention{way}_backward"), 1)
        for way in ("", "_in_blocks")
    ]
    for forward, backward, threads in (*ways, (*compiled, 1), (*compiled, 2)):
        backend.threads(threads)
        o, lse = np.full(q.shape, np.nan, dtype), np.full((2, H, T), np.nan, dtype)
        grads = tuple(np.full(a.shape, np.nan, dtype) for a in (q, k, v, *tables)) + (None, None)
        forward(q, k, v, o, lse, how)
        backward(q, k, v, o, lse, do.copy(), grads[:5], how)
        found.append([o, lse, *grads[:3], *grads[3 : 3 + len(tables)]])
    for whole, blocks, fast, again in zip(*found, strict=True):
        np.testing.assert_allclose(blocks, whole, rtol=near, atol=near)  # sums of up to 150 terms in another order
        np.testing.assert_allclose(fast, whole, rtol=near, atol=near)
        np.testing.assert_array_equal(fast, again)


def test_what_may_not_be_seen_changes_nothing(path, rng):
    layer = nn.MultiHeadAttention(8, 2)
    network, _, _ = bound(layer, ((5, 8), (5,)), rng)
    x, other = rng.standard_normal((3, 5, 8)), None
    other = np.where(KEEP[..., None], x, rng.standard_normal(x.shape) * 100)
    c, found = rng.standard_normal(x.shape) * KEEP[..., None], []
    for given in (x, other):
        y, saved = network.forward((given, KEEP), TRAINING)
        found.append((y * KEEP[..., None], network.backward(c.copy(), saved, TRAINING)))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one[KEEP], two[KEEP])
    np.testing.assert_array_equal(found[0][1][~KEEP], 0)  # neither queries, whose c is 0, nor keys and values
    np.testing.assert_array_equal(y[1], np.broadcast_to(layer.out.b, y[1].shape))  # a row without any key
    lengths = np.array([5, 0, 3])
    np.testing.assert_array_equal(
        network.layer.forward((x, lengths), TRAINING)[0],
        network.forward((x, np.arange(5) < lengths[:, None]), TRAINING)[0],
    )


def test_the_future_changes_nothing(path, rng):
    for options in (dict(), dict(positions=nn.Rotary()), dict(window=3), dict(pattern=("strided", 2))):
        network, _, _ = bound(nn.MultiHeadAttention(8, 2, causal=True, **options), (6, 8), rng)
        x = rng.standard_normal((2, 6, 8))
        later = x.copy()
        later[:, 4:] = 1e3 * rng.standard_normal((2, 2, 8))
        np.testing.assert_array_equal(
            network.forward(x, TRAINING)[0][:, :4], network.forward(later, TRAINING)[0][:, :4]
        )


def test_grouped_queries_are_repeated_heads(path, rng):
    few, many = nn.MultiHeadAttention(8, 4, kv_heads=2), nn.MultiHeadAttention(8, 4)
    bound(few, (5, 8), rng)
    bound(many, (5, 8), rng)
    for part in ("query", "out", "key", "value"):
        mine, theirs = getattr(few, part), getattr(many, part)
        repeat = (lambda a: a) if part in ("query", "out") else lambda a: np.repeat(a.reshape(2, 2, -1), 2, axis=0)
        theirs.W[...], theirs.b[...] = repeat(mine.W).reshape(8, 8), repeat(mine.b).reshape(8)
    x, c, found = rng.standard_normal((2, 5, 8)), rng.standard_normal((2, 5, 8)), []
    for layer in (few, many):
        y, saved = layer.forward(x, TRAINING)
        found.append((y, layer.backward(c.copy(), saved, TRAINING)))
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(few.key.dW, many.key.dW.reshape(2, 2, 2, 8).sum(1).reshape(4, 8), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("pairing", ["half", "adjacent"])
def test_rotations_depend_on_differences_and_are_undone_on_the_way_back(pairing, path, rng):
    rotary = nn.Rotary(100.0, pairing)
    q, k = rng.standard_normal((2, 2, 6, 3, 8))
    scores = []
    for start in (0, 5, 1000):
        a, b = q.copy(), k.copy()
        rotary.turn(a, start)
        rotary.turn(b, start)
        scores.append(np.einsum("bihd,bjhd->bhij", a, b))
        np.testing.assert_allclose((a * a).sum(-1), (q * q).sum(-1), rtol=1e-12)
        rotary.turn(a, start, back=True)
        np.testing.assert_allclose(a, q, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(scores[2], scores[0], rtol=1e-10, atol=1e-11)  # cos of angles near 1000


def test_both_pairings_are_equal_after_rows_are_exchanged(path, rng):
    adjacent, half = (
        nn.MultiHeadAttention(8, 2, kv_heads=1, positions=nn.Rotary(60.0, p)) for p in ("adjacent", "half")
    )
    bound(adjacent, (5, 8), rng)
    bound(half, (5, 8), rng)
    order = half.positions.permutation(4)
    for part in ("query", "key", "value", "out"):
        mine, theirs = getattr(adjacent, part), getattr(half, part)
        turn = order if part in ("query", "key") else [*range(4)]
        rows = np.concatenate([h * 4 + np.array(turn) for h in range(len(mine.b) // 4)])
        theirs.W[...], theirs.b[...] = mine.W[rows], mine.b[rows]
    x = rng.standard_normal((2, 5, 8))
    one, two = (layer.forward(x, TRAINING)[0] for layer in (adjacent, half))
    np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-13)


def test_special_cases_of_patterns_and_positions(path, rng):
    def made(**options):
        layer = nn.MultiHeadAttention(8, 2, causal=True, **options)
        network, x, _ = bound(layer, (6, 8), np.random.default_rng(3))
        if isinstance(layer.positions, nn.Relative):  # the tables come first
            tables = 2 * 7 * 4
            x[tables:], x[:tables] = bound(nn.MultiHeadAttention(8, 2), (6, 8), np.random.default_rng(3))[1], 0
        return network.forward(inputs, nn.Run())[0]

    inputs = rng.standard_normal((2, 6, 8))
    plain = made()
    for options in (
        dict(pattern=("strided", 6)),
        dict(window=6),
        dict(pattern=("fixed", 6, 1)),
        dict(positions=nn.Relative(3)),
    ):
        np.testing.assert_allclose(made(**options), plain, rtol=1e-12, atol=1e-13)
    assert np.abs(made(pattern=("strided", 3)) - plain).max() > 1e-3


def test_slopes_of_alibi_are_the_papers():
    np.testing.assert_allclose(nn.Alibi().slopes(8), 0.5 ** np.arange(1, 9))
    np.testing.assert_allclose(nn.Alibi().slopes(16)[:3], 2 ** -np.array([0.5, 1, 1.5]))
    np.testing.assert_allclose(nn.Alibi().slopes(12), [*0.5 ** np.arange(1, 9), *2 ** -np.array([0.5, 1.5, 2.5, 3.5])])


def test_passes_in_flight_and_what_they_keep(path, rng):
    """Two passes forward, then back in the other order; the fast path keeps nothing of T x T numbers."""
    layer = nn.MultiHeadAttention(4, 2, causal=True, positions=nn.Rotary(), dropout=0.2)
    network, _, g = bound(layer, (40, 4), rng)
    first, second = rng.standard_normal((2, 1, 40, 4))
    alone = []
    for x in (first, second):
        y, saved = network.forward(x, TRAINING)
        alone.append((network.backward(np.cos(y), saved, TRAINING).copy(), g.copy()))
    passes = [network.forward(x, TRAINING) for x in (first, second)]
    for (y, saved), expected in reversed(list(zip(passes, alone, strict=True))):
        np.testing.assert_array_equal(network.backward(np.cos(y), saved, TRAINING), expected[0])
        np.testing.assert_array_equal(g, expected[1])

    def arrays(thing):
        if isinstance(thing, (tuple, list)):
            for part in thing:
                yield from arrays(part)
        elif isinstance(thing, np.ndarray):
            yield thing

    assert max(a.size for a in arrays(passes[0][1])) == 160 < 40 * 40


@pytest.mark.parametrize("active", [["V"], ["K", "out.b"], ["key.b"], ["out.W"]])
def test_frozen_gradients_are_those_of_the_full_pass(active, path, rng):
    network, x, full = bound(nn.MultiHeadAttention(8, 2, positions=nn.Relative(2)), (5, 8), rng)
    a, c, run = *rng.standard_normal((2, 3, 5, 8)), nn.Run(training=True, backward=True)
    network.backward(c.copy(), network.forward(a, run)[1], run)
    part = np.full(network.dim, np.nan)
    network.bind(x, part, frozenset(active))
    assert network.backward(c.copy(), network.forward(a, run)[1], run) is None
    for segment in network.segments:
        expected = full[segment.slice] if segment.name in active else np.nan
        np.testing.assert_array_equal(part[segment.slice], expected)


def test_float32_is_near_float64(rng):
    found = []
    for dtype in ("float64", "float32"):
        layer = nn.MultiHeadAttention(16, 2, causal=True, positions=nn.Rotary())
        network, x, g = bound(layer, (30, 16), np.random.default_rng(5), dtype)
        x *= 0.3
        a = np.random.default_rng(6).standard_normal((2, 30, 16)).astype(dtype)
        y, saved = network.forward(a, TRAINING)
        found.append((y, network.backward(np.sin(a), saved, TRAINING), g))
    for exact, single in zip(*found, strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, exact, rtol=0, atol=2e-5 * np.abs(exact).max())  # a few hundred roundings


@pytest.mark.parametrize("name", ["grouped queries", "fixed", "dropout", "rotary", "alibi", "relative"])
def test_layers_with_masks_never_touch_the_host(name, device, rng):
    x, c, found = rng.standard_normal((3, 5, 8)), rng.standard_normal((3, 5, 8)), []
    for where in ("cpu", device):
        backend.use(where)
        network = nn.Network(nn.MultiHeadAttention(8, **MAKE[name]), ((5, 8), (5,)))
        weights = backend.asarray(np.random.default_rng(0).standard_normal(network.dim))
        g = backend.zeros(weights.shape, "float64")
        network.bind(weights, g)
        y, saved = network.forward((backend.asarray(x), backend.asarray(KEEP)), TRAINING)
        dx = network.backward(backend.asarray(c.copy()), saved, TRAINING)
        found.append([backend.to_host(a) for a in (y, dx, g)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_a_number_that_is_none_stays_seen(path, rng):
    network, _, _ = bound(nn.MultiHeadAttention(8, 2, causal=True), (6, 8), rng)
    x = rng.standard_normal((1, 6, 8))
    x[0, 2, 3] = np.nan
    y = network.forward(x, nn.Run())[0]
    assert np.isnan(y[0, 2:]).all()


@pytest.mark.parametrize(
    "make, shape, words",
    [
        (lambda: nn.MultiHeadAttention(8, 3), (5, 8), "cannot be cut into 3 heads"),
        (lambda: nn.MultiHeadAttention(8, 4, kv_heads=3), (5, 8), "kv_heads must divide the 4 heads"),
        (lambda: nn.MultiHeadAttention(8, 2, pattern=("fixed", 3)), (5, 8), "pattern must be"),
        (lambda: nn.MultiHeadAttention(8, 2, cross=True, causal=True), (5, 8), "in cross attention there are no"),
        (lambda: nn.MultiHeadAttention(8, 2, cross=True), (5, 8), r"a row must be \(x, memory\)"),
        (lambda: nn.MultiHeadAttention(8, 2, cross=True), ((5, 8), (4, 3)), "x has 3 features, the weight expects 8"),
        (lambda: nn.MultiHeadAttention(6, 2, positions=nn.Rotary()), (5, 6), "need an even number"),
        (lambda: nn.MultiHeadAttention(8, 2, positions="rotary"), (5, 8), "positions must be Rotary, Alibi or"),
        (lambda: nn.Sequential(nn.Rotary(pairing="both")), (5, 8), "pairing must be"),
        (lambda: nn.LearnedPositions(4, 8), (5, 8), "at most 4 positions"),
        (lambda: nn.Embedding(4, 8, padding=4), (5,), "padding must be one of the 4 words"),
        (lambda: nn.SwiGLU(3, 4), (5,), "x has 5 features, the weight expects 3"),
        (lambda: nn.Gated(3, 4, "cosine"), (3,), "activation must be one of"),
    ],
)
def test_what_does_not_fit_gets_one_sentence(make, shape, words):
    with pytest.raises(ValueError, match=words):
        nn.Network(make(), shape)


def test_keep_that_does_not_fit_gets_one_sentence(rng):
    network, _, _ = bound(nn.MultiHeadAttention(8, 2), ((5, 8), (4,)), rng)
    with pytest.raises(ValueError, match=r"keep must be bool of shape \(2, 5\)"):
        network.forward((rng.standard_normal((2, 5, 8)), np.ones((2, 4), bool)), TRAINING)
