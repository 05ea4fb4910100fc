"""Methods that look at segments, blocks, or the Hessian's diagonal, against slow loops; then the papers' identities."""

import copy
from types import SimpleNamespace

from nn import SoftmaxCrossEntropy, networks
from npopt import (
    EMA,
    LAMB,
    LARS,
    SWA,
    Accumulated,
    Adafactor,
    AdamMini,
    AdamW,
    Batch,
    Clipped,
    Events,
    HeavyBall,
    InverseSquareRoot,
    Lookahead,
    Minibatch,
    Muon,
    RandomReshuffling,
    SophiaG,
    SophiaH,
    Stop,
    backend,
    minimize,
)
from npopt.segments import Segments
from problems import Neural, Quadratic, datasets
from problems.feeds import Images

import numpy as np
import pytest
from methods import BY_SEGMENT, FOUND, ORACLE, SUBSPACE, TABLE, short

THREADS = 1  # layers of a few numbers: tests/conftest.py


def start(rng):
    x = rng.standard_normal(TABLE.dim)
    x[TABLE.find("zero").slice] = 0
    return x


def by_segment(function):
    """A slow trajectory out of function(x, gradients, lr, kind, decay, optimizer) -> list of x, for one segment."""

    def slow(x, gradients, lr, o):
        parts = []
        for s in TABLE:
            decay = getattr(o, "weight_decay", 0.0)
            decay = decay[s.start] if np.ndim(decay) else decay
            mine = [g[s.slice].reshape(s.shape) for g in gradients]
            kind = "other" if s.name in getattr(o, "others", ()) else s.kind
            parts.append(function(x[s.slice].reshape(s.shape), mine, lr, kind, decay, o))
        return [np.concatenate([p.ravel() for p in row]) for row in zip(*parts, strict=True)]

    return slow


@by_segment
def slow_lars(x, gradients, rates, kind, decay, o):
    m, found = 0 * x, []
    for g, lr in zip(gradients, rates, strict=True):
        u = g + decay * x
        trust = 1.0
        if kind in o.kinds and np.abs(x).max() > 0 and np.abs(u).max() > 0:
            trust = o.coefficient * np.linalg.norm(x) / np.linalg.norm(u)
        m = o.beta * m + lr * trust * u
        x = x - m
        found.append(x)
    return found


@by_segment
def slow_lamb(x, gradients, rates, kind, decay, o):
    m = v = 0 * x
    found = []
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        m, v = o.b1 * m + (1 - o.b1) * g, o.b2 * v + (1 - o.b2) * g**2
        a, b = (1 - o.b1**t, 1 - o.b2**t) if o.corrected else (1, 1)
        u = m / a / (np.sqrt(v / b) + o.eps) + decay * x
        size, trust = np.linalg.norm(x), 1.0
        if kind in o.kinds and size > 0 and np.linalg.norm(u) > 0:
            trust = (size if o.cap is None else min(size, o.cap)) / np.linalg.norm(u)
        x = x - lr * trust * u
        found.append(x)
    return found


@by_segment
def slow_adam_mini(x, gradients, rates, kind, decay, o):
    blocks = {
        "matrix": [(i,) for i in range(x.shape[0])],
        "embedding": [(i,) for i in range(x.shape[0])],
        "bias": list(np.ndindex(x.shape)),
    }.get(kind, [...])
    m, v, found = 0 * x, [0.0] * len(blocks), []
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        x, m = x * (1 - lr * decay), o.b1 * m + (1 - o.b1) * g
        for k, block in enumerate(blocks):
            v[k] = o.b2 * v[k] + (1 - o.b2) * np.mean(g[block] ** 2)
            x[block] -= lr * m[block] / (1 - o.b1**t) / (np.sqrt(v[k] / (1 - o.b2**t)) + o.eps)
        found.append(x.copy())
    return found


@by_segment
def slow_adafactor(x, gradients, rates, kind, decay, o):
    shape = x.shape
    if x.ndim > 1:
        x = x.reshape(shape[0], -1)
    full, memory, rows, columns, found = 0 * x, 0 * x, np.zeros(x.shape[0]), np.zeros(x.shape[-1]), []
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        g = g.reshape(x.shape)
        b, a = 1 - t ** (-o.decay), g**2 + o.eps1
        full = b * full + (1 - b) * a
        v = full
        if x.ndim > 1 and min(x.shape) >= o.least:
            rows, columns = b * rows + (1 - b) * a.sum(1), b * columns + (1 - b) * a.sum(0)
            v = np.outer(rows, columns) / rows.sum()  # the paper's form, with sums
        u = g / np.sqrt(v)
        u = u / max(1, np.sqrt(np.mean(u**2)) / o.clip)
        u = lr * (max(o.eps2, np.sqrt(np.mean(x**2))) if o.relative else 1) * u
        if o.b1 is not None:
            u = memory = o.b1 * memory + (1 - o.b1) * u
        x = x - u - lr * decay * x
        found.append(x.reshape(shape))
    return found


@by_segment
def slow_muon(x, gradients, rates, kind, decay, o):
    """By the singular values: W p(S / |U|) V', p the scalar iteration."""
    shape, found = x.shape, []
    m = v = 0 * x
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        if kind not in o.kinds:
            m, v = o.b1 * m + (1 - o.b1) * g, o.b2 * v + (1 - o.b2) * g**2
            lr = lr * o.adam_rate
            u = m / (1 - o.b1**t) / (np.sqrt(v / (1 - o.b2**t)) + o.eps)
        else:
            m = o.beta * m + g
            u = (g + o.beta * m if o.nesterov else m).reshape(shape[0], -1)
            W, S, V = np.linalg.svd(u, full_matrices=False)
            S = S / (np.linalg.norm(u) + 1e-7)
            for _ in range(o.steps):
                S = 3.4445 * S - 4.775 * S**3 + 2.0315 * S**5
            n, k = u.shape
            size = max(1, n / k) ** 0.5 if o.scale == "original" else 0.2 * max(n, k) ** 0.5
            u = (W * S @ V).reshape(shape) * size
        x = x - lr * u - lr * decay * x
        found.append(x)
    return found


SLOW = {Muon: slow_muon, LARS: slow_lars, LAMB: slow_lamb, AdamMini: slow_adam_mini, Adafactor: slow_adafactor}


@pytest.mark.parametrize("optimizer", BY_SEGMENT, ids=short)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-11), ("float32", 2e-4)])
def test_trajectory(optimizer, dtype, tolerance, rng, device):
    x, gradients, optimizer = start(rng), rng.standard_normal((15, TABLE.dim)), copy.deepcopy(optimizer)
    rates = 0.03 * rng.uniform(0.5, 1.5, 15)
    moving, slow = backend.asarray(x.astype(dtype)), SLOW[type(optimizer)](x, gradients, rates, optimizer)
    optimizer.start(moving, ORACLE)
    for g, lr, expected in zip(gradients, rates, slow, strict=True):
        given = backend.asarray(g.astype(dtype))
        optimizer.step(moving, given, float(lr))
        np.testing.assert_allclose(backend.to_host(moving), expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(backend.to_host(given), g.astype(dtype))
    assert optimizer.t == 15


@pytest.mark.parametrize("optimizer", BY_SEGMENT + SUBSPACE + FOUND, ids=short)
def test_pieces_of_whole_segments_give_the_step_of_the_whole_and_others_are_refused(optimizer, rng):
    whole, pieces = copy.deepcopy(optimizer), copy.deepcopy(optimizer)
    x = start(rng)
    y = x.copy()
    whole.start(x, ORACLE)
    pieces.start(y, ORACLE)
    cuts = [0, TABLE.find("fc.b").stop, TABLE.find("embed").start, TABLE.dim]
    for _ in range(4):
        g = rng.standard_normal(TABLE.dim)
        whole.step(x, g, 0.1)
        pieces.step(y, ((slice(a, b), g[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)), 0.1)
    np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="cuts a segment in two"):
        pieces.step(y, iter([(slice(0, 5), g[:5])]), 0.1)


def bytes_of(optimizer, x, oracle):
    optimizer.start(x, oracle)
    return optimizer.bytes() / x.size


def test_state_bytes_for_each_parameter():
    network = networks.resnet18(width=8)
    oracle, x = SimpleNamespace(problem=SimpleNamespace(segments=network.segments)), np.zeros(network.dim, "float32")
    assert bytes_of(LARS(), x, oracle) == 4 and bytes_of(LAMB(), x, oracle) == 8
    hidden = sum(s.size for s in network.segments if s.kind == "matrix")
    assert bytes_of(Muon(), x, oracle) == 8 - 4 * hidden / x.size
    assert bytes_of(SophiaG(), x, oracle) == bytes_of(SophiaH(), x, oracle) == 8
    assert bytes_of(Lookahead(AdamW()), x, oracle) == 12  # one more than Adam
    mini = sum(s.shape[0] if s.kind == "matrix" else s.size if s.kind == "bias" else 1 for s in network.segments)
    assert bytes_of(AdamMini(), x, oracle) == 4 + 4 * mini / x.size < 4.1
    factored = sum(s.shape[0] + s.size // s.shape[0] if len(s.shape) > 1 else s.size for s in network.segments)
    assert bytes_of(Adafactor(), x, oracle) == 4 * factored / x.size < 0.35
    assert bytes_of(Adafactor(b1=0.9), x, oracle) == 4 + 4 * factored / x.size


def test_a_trust_ratio_of_one_where_a_norm_is_zero_and_outside_the_kinds():
    zero, bias = TABLE.find("zero"), TABLE.find("fc.b")
    g, x = np.ones(TABLE.dim), start(np.random.default_rng(0))
    before = x.copy()
    lamb = LAMB(eps=0.0, weight_decay=0.0)
    lamb.start(x, ORACLE)
    lamb.step(x, g, 0.1)
    for s in (zero, bias):
        np.testing.assert_allclose(x[s.slice], before[s.slice] - 0.1)  # Adam's first step
    w = TABLE.find("fc.W").slice
    assert np.linalg.norm(x[w] - before[w]) == pytest.approx(0.1 * np.linalg.norm(before[w]))
    x, lamb = before.copy(), LAMB(weight_decay=0.0)
    lamb.start(x, ORACLE)
    lamb.step(x, 0 * g, 0.1)
    np.testing.assert_array_equal(x, before)  # u = 0: nothing moves, no NaN
    x = before.copy()
    lars = LARS(0.0, 0.0, 0.01)
    lars.start(x, ORACLE)
    lars.step(x, g, 0.1)
    np.testing.assert_allclose(x[zero.slice], before[zero.slice] - 0.1)
    assert np.linalg.norm(x[w] - before[w]) == pytest.approx(0.1 * 0.01 * np.linalg.norm(before[w]))


def test_adafactor_is_exact_for_squares_of_rank_one(rng):
    table = Segments.of(("W", (6, 9), "matrix", "W"))
    g = np.outer(rng.standard_normal(6), rng.standard_normal(9))
    x = rng.standard_normal(54)
    before = x.copy()
    o = Adafactor(eps1=0.0, clip=1e9, relative=False)
    o.start(x, SimpleNamespace(problem=SimpleNamespace(segments=table)))
    for _ in range(3):
        o.step(x, g.ravel(), 0.1)
    np.testing.assert_allclose(x, before - 0.3 * np.sign(g.ravel()), rtol=1e-12)  # v = g^2 at all times
    schedule = InverseSquareRoot(1.0, cap=1e-2)
    schedule.start(1, None)
    assert [schedule(t) for t in (0, 9_999, 39_999)] == pytest.approx([1e-2, 1e-2, 5e-3])


@pytest.mark.parametrize("heads, blocks", [(3, (3, 2, 6)), (1, (1, 1, 6)), (None, (6, 4, 6))])
def test_adam_mini_has_a_second_moment_for_each_head_of_queries_and_keys(heads, blocks, rng):
    """Three heads of queries, two of keys that they share; values have one for each row, whatever the heads."""
    shapes = {"query": (6, 6), "key": (4, 6) if heads != 1 else (6, 6), "value": (6, 6)}
    table = Segments.of(*((f"layer1.attention.{name}.W", shape, "matrix", "a") for name, shape in shapes.items()))
    o = AdamMini(0.7, 0.9, 1e-2, 0.2, heads)
    x = rng.standard_normal(table.dim)
    y, gradients = x.copy(), rng.standard_normal((5, table.dim))
    o.start(y, SimpleNamespace(problem=SimpleNamespace(segments=table)))
    for segment, count in zip(table, blocks, strict=True):
        rows = segment.shape[0] // count
        m, v, w = np.zeros(segment.shape), np.zeros(count), x[segment.slice].reshape(segment.shape).copy()
        for t, g in enumerate(gradients, 1):
            g = g[segment.slice].reshape(segment.shape)
            m, w = 0.7 * m + 0.3 * g, w * (1 - 0.1 * 0.2)
            for k in range(count):
                head = slice(k * rows, (k + 1) * rows)
                v[k] = 0.9 * v[k] + 0.1 * np.mean(g[head] ** 2)
                w[head] -= 0.1 * m[head] / (1 - 0.7**t) / (np.sqrt(v[k] / (1 - 0.9**t)) + 1e-2)
        x[segment.slice] = w.reshape(-1)
    for g in gradients:
        o.step(y, g, 0.1)
    np.testing.assert_allclose(y, x, rtol=1e-12)
    assert o.slot("v").size == sum(blocks)
    with pytest.raises(ValueError, match=r"layer1.attention.query.W of shape \(6, 6\) has no 4 equal heads"):
        AdamMini(heads=4).start(y, o.oracle)


def test_adam_mini_with_blocks_of_one_number_is_adamw(rng):
    table = Segments.of(("b", (7,), "bias", "b"), ("W", (4, 1), "matrix", "W"))
    oracle = SimpleNamespace(problem=SimpleNamespace(segments=table))
    x = rng.standard_normal(11)
    y, a, b = x.copy(), AdamMini(0.7, 0.9, 1e-2, 0.2), AdamW(0.7, 0.9, 1e-2, 0.2)
    a.start(x, oracle)
    b.start(y, oracle)
    for _ in range(5):
        g = rng.standard_normal(11)
        a.step(x, g, 0.1)
        b.step(y, g, 0.1)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("shape", [(24, 24), (40, 7), (5, 60)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_singular_values_of_muons_update_are_near_one_and_its_scale_is_the_one_that_was_named(shape, dtype, rng):
    table, (n, k) = Segments.of(("W", shape, "matrix", "W")), shape
    oracle = SimpleNamespace(problem=SimpleNamespace(segments=table))
    W, _, V = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    g = ((W * np.logspace(0, -1.5, min(shape))) @ V).astype(dtype)  # a condition number of 32
    for scale, factor in (("original", max(1, n / k) ** 0.5), ("rms", 0.2 * max(n, k) ** 0.5)):
        x, o = np.zeros(table.dim, dtype), Muon(scale=scale)
        o.start(x, oracle)
        o.step(x, g.ravel(), 0.5)
        update = x.reshape(shape) / (-0.5 * factor)
        values = np.linalg.svd(update, compute_uv=False)
        assert 0.68 < values.min() and values.max() < 1.21
        assert np.trace(update.T @ (W @ V)) > 0.8 * min(shape)  # and they go with the same vectors
        if scale == "rms":
            assert np.sqrt(np.mean((x / 0.5) ** 2)) == pytest.approx(0.2, rel=0.25)
        before = x.copy()
        o = Muon(scale=scale, weight_decay=0.3)
        o.start(x, oracle)
        o.step(x, 0 * g.ravel(), 0.5)  # no gradient: decay alone, no NaN
        np.testing.assert_allclose(x, before * (1 - 0.5 * 0.3), rtol=1e-6)


def test_muon_without_matrices_is_adamw(rng):
    x = start(rng)
    y, a, b = x.copy(), Muon(kinds=(), adam_rate=0.7, b1=0.8, b2=0.9, eps=1e-2, weight_decay=0.2), AdamW(0.8, 0.9, 1e-2)
    b.weight_decay = 0.2
    a.start(x, ORACLE)
    b.start(y, ORACLE)
    for _ in range(4):
        g = rng.standard_normal(TABLE.dim)
        a.step(x, g, 0.1)
        b.step(y, g, 0.07)
    np.testing.assert_allclose(x, y, rtol=1e-14)
    for wrong, message in (
        (lambda: Muon(scale="none"), "Muon: scale must be one of original, rms"),
        (lambda: Muon(kinds=("weights",)), "Muon: kinds must be among"),
        (lambda: Muon(others="fc9.W").start(x, ORACLE), "no segment is named 'fc9.W'"),
        (lambda: Muon(steps=0), "Muon: steps must be a whole number"),
        (lambda: Muon(beta=1.0), "Muon: beta must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_the_first_moment_of_adafactor_is_not_corrected_and_cannot_appear_in_mid_run():
    x, y, g = np.ones(TABLE.dim), np.ones(TABLE.dim), np.linspace(-1, 2, TABLE.dim)
    plain, moving = Adafactor(), Adafactor(b1=0.75)
    plain.start(x, ORACLE)
    moving.start(y, ORACLE)
    plain.step(x, g, 0.1)
    moving.step(y, g, 0.1)
    np.testing.assert_allclose(1 - y, (1 - x) / 4, rtol=1e-12)  # (1 - b1) s u
    plain.b1 = 0.5
    with pytest.raises(ValueError, match="Adafactor: b1 varies, but m is not there"):
        plain.step(x, g, 0.1)


# ----------------------------------------------------------------------------------------------------------- Sophia


def started(problem, optimizer, x, rows=None, seed=3):
    estimator = Minibatch()
    estimator.start(problem, x, seed)
    g = np.empty_like(x)
    optimizer.start(x, estimator)
    return estimator, g, SimpleNamespace(rows=rows, weights=None)


def test_sophia_h_trajectory(device):
    diagonal = np.array([4.0, 1.0, 0.25])
    optimizer = SophiaH(0.7, 0.8, 0.5, 1e-3, 0.2, every=2, radius=1e-2)
    x = backend.asarray(np.array([1.0, -2.0, 3.0]))
    problem = Quadratic(diagonal)
    estimator, batch = Minibatch(), SimpleNamespace(rows=None, weights=None)
    g = estimator.start(problem, x, 3)
    optimizer.start(x, estimator)
    w, m, h = backend.to_host(x).copy(), np.zeros(3), np.zeros(3)
    for t in range(6):
        estimator(x, batch, g)
        gradient = diagonal * w
        if t % 2 == 0:
            u = np.empty(3)
            backend.use("cpu")
            backend.normals(backend.key(3, "SophiaH", t), u)
            h = 0.8 * h + 0.2 * u * (diagonal * u)
        m = 0.7 * m + 0.3 * gradient
        w = w - 0.05 * (np.clip(m / np.maximum(0.5 * h, 1e-3), -1, 1) + 0.2 * w)
        backend.use(device)
        optimizer.step(x, g, 0.05)
        np.testing.assert_allclose(backend.to_host(x), w, rtol=1e-9)
    assert estimator.counts["gradients"] == 6 + 2 * 3 or problem.n is None


class Quartic(Quadratic):
    """f = sum_i a_i x_i^4 / 4, whose differences show how far apart their points are."""

    def value_and_gradient(self, x, rows=None, weights=None, out=None):
        out[...] = 2.0 * x**3
        return float(0.5 * (x**4).sum())


@pytest.mark.parametrize("size", [1e-6, 3.0, 1e4])
def test_the_points_of_sophia_h_lie_apart_by_a_part_of_one_plus_x(size, rng):
    # for the gradient a x^3 the difference is a (3 x^2 u + r^2 u^3), r = radius (1 + |x|) / |u|
    x, optimizer = size * rng.standard_normal(50), SophiaH(b2=0.25, every=1, radius=0.3)
    _, g, batch = started(Quartic(np.ones(50)), optimizer, x)
    optimizer.oracle.batch = batch
    u = np.empty(50)
    backend.normals(backend.key(3, "SophiaH", 0), u)
    optimizer.estimate(x, optimizer.slot("h"))
    r = 0.3 * (1 + np.linalg.norm(x)) / np.linalg.norm(u)
    np.testing.assert_allclose(optimizer.slot("h"), 0.75 * u * 2.0 * (3 * x**2 * u + r**2 * u**3), rtol=1e-9)


def test_hutchinsons_estimate_has_the_diagonal_as_its_mean(rng):
    a = rng.standard_normal((4, 4))
    problem = Quadratic(a @ a.T)
    x, total = np.zeros(4), np.zeros(4)
    optimizer = SophiaH(b2=0.0, every=1)
    for seed in range(4000):
        started(problem, optimizer, x, seed=seed)
        optimizer.oracle.batch = SimpleNamespace(rows=None, weights=None)
        optimizer.estimate(x, optimizer.slot("h"))
        total += optimizer.slot("h")
    error = np.abs(total / 4000 - np.diag(a @ a.T))
    assert (error < 5 * np.sqrt(3) * np.linalg.norm(a @ a.T, axis=1) / 4000**0.5).all()


def test_hutchinsons_estimate_is_of_gradients_that_nobody_clipped():
    diagonal, total = np.array([4.0, 1.0, 0.25]), np.zeros(3)
    problem, x = Quadratic(diagonal), np.array([1.0, -2.0, 3.0])
    for seed in range(2000):
        estimator, optimizer = Clipped(1e-2), SophiaH(b2=0.0, every=1)
        g = estimator.start(problem, x, seed)
        optimizer.start(x, estimator)
        estimator(x, SimpleNamespace(rows=None, weights=None), g)
        optimizer.estimate(x, optimizer.slot("h"))
        total += optimizer.slot("h") / 2000
    np.testing.assert_allclose(total, diagonal, rtol=0.15)


def test_sophia_g_on_a_device(device):
    def run():
        optimizer = SophiaG(0.7, 0.8, 5.0, 1e-3, 0.2, every=2)
        return minimize(
            small(), optimizer, RandomReshuffling(30), 0.05, Accumulated(7), stop=Stop(steps=5), events=Events(None)
        )

    backend.use(device)
    x = backend.to_host(run().x)
    backend.use("cpu")
    np.testing.assert_allclose(x, run().x, rtol=1e-9, atol=1e-12)


def test_sophia_g_trajectory(rng):
    problem, rows = small(), np.arange(30)
    x = problem.x0(backend.generator(0, "x0"))
    estimator, optimizer = Clipped(1e9, Accumulated(7)), SophiaG(0.7, 0.8, 5.0, 1e-3, 0.2, every=2)
    g = estimator.start(problem, x, 3)
    optimizer.start(x, estimator)
    w, m, h, drawn, keys = x.copy(), np.zeros_like(x), np.zeros_like(x), np.empty_like(x), set()
    for t in range(6):
        problem.begin(t)
        estimator(x, Batch(rows), g)
        gradient = g.copy()
        if t % 2 == 0:
            keys.add(backend.key(3, "SophiaG", t))
            problem.sampled_gradient(w, rows, drawn, backend.key(3, "SophiaG", t))
            h = 0.8 * h + 0.2 * 30 * drawn**2
        m = 0.7 * m + 0.3 * gradient
        w = w - 0.05 * (np.clip(m / np.maximum(5.0 * h, 1e-3), -1, 1) + 0.2 * w)
        optimizer.step(x, g, 0.05)
        np.testing.assert_allclose(x, w, rtol=1e-9, atol=1e-12)
    assert len(keys) == 3 and estimator.counts["gradients"] == 30 * 9


def test_a_restarted_sophia_draws_anew():
    problem, seen = small(), []
    optimizer = Lookahead(SophiaG(every=1), k=2, reset=True)
    x = problem.x0(backend.generator(0, "x0"))
    estimator = Minibatch()
    g = estimator.start(problem, x, 3)
    optimizer.start(x, estimator)
    sampled = problem.sampled_gradient
    problem.sampled_gradient = lambda x, rows, out, key: (seen.append(key), sampled(x, rows, out, key))
    for t in range(6):
        problem.begin(t)
        estimator(x, Batch(np.arange(10)), g)
        optimizer.step(x, g, 1e-3)
    assert len(set(seen)) == 6
    again = Lookahead(SophiaG(every=1), k=2, reset=True)
    again.start(x, estimator)
    again.load_state(optimizer.state())
    assert again.inner.key() == optimizer.inner.key() and optimizer.inner.before == 6


def test_adafactor_survives_a_row_without_gradients():
    table = Segments.of(("W", (4, 6), "matrix", "W"))
    for dtype, size in (("float32", 3e4), ("float64", 3e4)):
        x, g = np.ones(24, dtype), np.full(24, size, dtype)
        g[:6] = 0
        optimizer = Adafactor()
        optimizer.start(x, SimpleNamespace(problem=SimpleNamespace(segments=table)))
        for _ in range(3):
            optimizer.step(x, g, 0.1)
        assert np.isfinite(x).all() and (x[:6] == 1).all() and (x[6:] < 1).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_restricted_to_everything_a_network_is_itself(smoothing):
    def problem():
        return Neural(
            networks.mlp((64, 8, 10), norm="batch"),
            Images(datasets.load("digits")),
            SoftmaxCrossEntropy(smoothing),
            dtype="float64",
            metrics_rows=99,
        )

    whole = problem()
    x = whole.x0(backend.generator(0, "x0"))
    part = problem().restrict(x, whole.segments.names)
    some = dict(sampler=RandomReshuffling(50), schedule=0.01, stop=Stop(steps=12), events=Events(4, "step"))
    for optimizer in (EMA(HeavyBall(0.5), 0.9), SophiaG(every=3)):
        one, two = minimize(whole, optimizer, x=x, **some), minimize(part, optimizer, x=x, **some)
        np.testing.assert_allclose(one.answer, two.answer, rtol=1e-10)
        for name in ("train_loss", "test_accuracy"):
            assert one.final[name] == pytest.approx(two.final[name], rel=1e-9), name
        whole.reset()
        part.reset()


def small(loss=None):
    return Neural(networks.mlp((64, 4, 10)), Images(datasets.load("digits")), dtype="float64", loss=loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sophia_g_is_the_gauss_newton_diagonal_on_average(smoothing):
    problem, rows = small(SoftmaxCrossEntropy(smoothing)), np.arange(6)
    x = problem.x0(backend.generator(0, "x0"))
    problem.begin(0)
    z = problem.outputs(x, "train", rows)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    exact = np.zeros_like(x)  # (1/B) sum_b J_b' (diag p - p p') J_b, its diagonal
    for b in rows:
        jacobian = []
        for k in range(10):
            out = np.empty_like(x)
            network = problem.network
            inputs, _, run = problem._prepare(np.array([b]), None)
            network.bind(x, out)
            _, saved = network.forward(inputs, run)
            network.backward(np.eye(10)[k : k + 1], saved, run)
            jacobian.append(out)
        jacobian = np.array(jacobian)
        exact += (p[b] @ jacobian**2 - (p[b] @ jacobian) ** 2) / len(rows)
    total, g, draws = np.zeros_like(x), np.empty_like(x), 3000
    for seed in range(draws):
        problem.sampled_gradient(x, rows, g, backend.key(seed, "labels"))
        total += len(rows) * g**2 / draws
    big = exact > 0.05 * exact.max()
    np.testing.assert_allclose(total[big], exact[big], rtol=0.3)
    assert abs(total[big].sum() / exact[big].sum() - 1) < 0.03


def test_drawn_labels_have_the_probabilities_of_the_softmax():
    z = np.tile(np.log([0.1, 0.6, 0.3]), (30_000, 1))
    u = (np.arange(30_000) + 0.5) / 30_000
    labels = SoftmaxCrossEntropy().draw(z, u)
    np.testing.assert_allclose(np.bincount(labels) / 30_000, [0.1, 0.6, 0.3], atol=1e-4)
    assert SoftmaxCrossEntropy().draw(np.array([[0.0, -1e9]]), np.array([1 - 1e-12]))[0] == 0


@pytest.mark.parametrize("optimizer", [SophiaH(every=3, radius=1e-3), SophiaG(every=3)], ids=short)
def test_sophia_trains_resumes_and_counts_its_gradients(optimizer, tmp_path):
    def run(steps, path=None):
        return minimize(
            small(),
            optimizer,
            RandomReshuffling(30),
            1e-2,
            stop=Stop(steps=steps),
            seed=2,
            events=Events(metrics=None, checkpoint=path),
        )

    straight = run(40)
    run(17, tmp_path / "c.npz")
    again = run(40, tmp_path / "c.npz")
    np.testing.assert_array_equal(straight.x, again.x)
    assert straight.columns["loss"][-1] < 2.0
    more = 2 if isinstance(optimizer, SophiaH) else 1
    assert straight.columns["gradients"][-1] == 30 * (40 + more * 14)


def test_sophia_asks_for_what_it_needs():
    x = np.zeros(3)
    optimizer = SophiaH()
    optimizer.start(x)
    with pytest.raises(ValueError, match="run it by minimize"):
        optimizer.step(x, x.copy(), 0.1)
    with pytest.raises(ValueError, match="draws no targets"):
        minimize(Quadratic([1.0, 2.0]), SophiaG(), stop=Stop(steps=1), schedule=0.1, sampler=None)


# ------------------------------------------------------------------------------------------- averages report themselves


@pytest.mark.parametrize(
    "around", [Lookahead(HeavyBall(0.5), 3), EMA(HeavyBall(0.5), 0.9), SWA(HeavyBall(0.5), 4, 2)], ids=short
)
def test_averages_are_measured_with_statistics_of_their_own(around):
    def problem():
        return Neural(networks.mlp((64, 8, 10), norm="batch"), Images(datasets.load("digits")), metrics_rows=200)

    run = minimize(problem(), around, RandomReshuffling(50), 0.1, stop=Stop(steps=20), events=Events(10, "step"))
    assert not np.array_equal(run.answer, run.x)
    fresh = problem()
    fresh.recalibrate(run.answer)
    for name, value in fresh.metrics(run.answer).items():
        assert run.final[name] == pytest.approx(value, rel=1e-6), name
    plain = minimize(problem(), around, RandomReshuffling(50), 0.1, stop=Stop(steps=20), events=Events(None))
    np.testing.assert_array_equal(plain.x, run.x)  # measuring changes nothing
