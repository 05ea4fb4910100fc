"""Methods in a subspace of each matrix, against slow loops of their papers; projectors by what they promise."""

import copy
from types import SimpleNamespace

from nn.language import llama
from npopt import (
    Adam,
    AdamMini,
    AdamW,
    Flora,
    GaLore,
    GoLore,
    HeavyBall,
    Lookahead,
    backend,
)
from npopt.projectors import Gaussian, RangeFinder, Stiefel, Svd, Switching
from npopt.segments import Segments

import numpy as np
import pytest
from methods import ORACLE, SUBSPACE, TABLE, short


# --------------------------------------------------------------------------------------------------- slow loops
def normal_matrix(k, r, key):
    return backend.normals(key, np.empty(k * r)).reshape(k, r)


def slow_basis(projector, H, r, key, t):
    if isinstance(projector, Switching):
        return slow_basis(projector.first if t < projector.at else projector.then, H, r, key, t)
    if isinstance(projector, Gaussian):
        return normal_matrix(len(H), r, key) / np.sqrt(r)
    if isinstance(projector, Svd):
        values, vectors = np.linalg.eigh(H @ H.T)
        P = vectors[:, np.argsort(-values)[:r]]
        for j in range(r):
            P[:, j] *= np.sign(P[np.argmax(np.abs(P[:, j])), j])
        return P
    P = normal_matrix(len(H), r, key)  # Gram-Schmidt: diag R > 0
    for j in range(r):
        for i in range(j):
            P[:, j] -= P[:, i] * (P[:, i] @ P[:, j])
        P[:, j] /= np.linalg.norm(P[:, j])
    return P


class SlowInner:
    """Adam or heavy ball on one array."""

    def __init__(self, method, shape):
        self.o, self.m, self.v, self.t = method, np.zeros(shape), np.zeros(shape), 0

    def step(self, g, lr):
        self.t, o = self.t + 1, self.o
        if isinstance(o, HeavyBall):
            self.m = o.beta * self.m + g
            return lr * self.m
        self.m, self.v = o.b1 * self.m + (1 - o.b1) * g, o.b2 * self.v + (1 - o.b2) * g**2
        return lr * self.m / (1 - o.b1**self.t) / (np.sqrt(self.v / (1 - o.b2**self.t)) + o.eps)


def slow_segment(s, x, gradients, rates, o):
    """Every x of one segment."""
    decay, found = (o.weight_decay[s.start] if np.ndim(o.weight_decay) else o.weight_decay), []
    m = s.shape[0]
    n = s.size // m
    matrix = s.kind in o.kinds and len(s.shape) > 1 and s.name not in o.others
    rows = o.side == "rows" or o.side == "shorter" and m < n
    r = min(o.rank, m, n)
    inner = SlowInner(o.inner, s.shape if not matrix else (r, n) if rows else (m, r))
    total, P = 0.0, None
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True)):
        G = g.reshape(m, n) if matrix else g
        if matrix and t % o.gather == 0 and t // o.gather % o.period == 0:
            H = G if rows else G.T
            old, P = P, slow_basis(o.projector, H, r, backend.key(0, f"projector {s.name}", t), t)
            if old is not None and o.moments == "reset":
                inner.m, inner.v = 0 * inner.m, 0 * inner.v
            if old is not None and o.moments == "turned":
                inner.m = P.T @ old @ inner.m if rows else inner.m @ old.T @ P
        total = total + (G if not matrix else P.T @ G if rows else G @ P)
        if (t + 1) % o.gather == 0:
            step, total = inner.step(total / o.gather, lr), 0.0
            if matrix:
                step = o.alpha * (P @ step if rows else step @ P.T).reshape(s.shape)
            x = x - step.reshape(s.shape) - lr * decay * x
        found.append(x)
    return found


def slow(x, gradients, rates, o):
    """The whole x after every step."""
    parts = [
        slow_segment(s, x[s.slice].reshape(s.shape), [g[s.slice].reshape(s.shape) for g in gradients], rates, o)
        for s in TABLE
    ]
    return [np.concatenate([p.ravel() for p in row]) for row in zip(*parts, strict=True)]


@pytest.mark.parametrize("optimizer", SUBSPACE, ids=short)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-3)])
def test_trajectory(optimizer, dtype, tolerance, rng, device):
    """In float32 a singular vector is known to about 1e-6 |G| / gap, and Adam divides by small numbers."""
    x, gradients, optimizer = (
        rng.standard_normal(TABLE.dim),
        rng.standard_normal((15, TABLE.dim)),
        copy.deepcopy(optimizer),
    )
    rates = 0.03 * rng.uniform(0.5, 1.5, 15)
    moving, expected = backend.asarray(x.astype(dtype)), slow(x, gradients, rates, optimizer)
    optimizer.start(moving, ORACLE)
    for g, lr, there in zip(gradients, rates, expected, strict=True):
        given = backend.asarray(g.astype(dtype))
        optimizer.step(moving, given, float(lr))
        np.testing.assert_allclose(backend.to_host(moving), there, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(backend.to_host(given), g.astype(dtype))
    assert optimizer.t == 15


# --------------------------------------------------------------------------------------------------- projectors
def gradient(rng, fall=0.7, k=30, n=40):
    """A matrix whose singular values fall by `fall`, and its factors."""
    U, V = (np.linalg.qr(rng.standard_normal((size, k)))[0] for size in (k, n))
    S = fall ** np.arange(k)
    return (U * S) @ V.T, U, S


@pytest.mark.parametrize("projector", [Svd(), RangeFinder(), RangeFinder(3, 0), Stiefel()], ids=repr)
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-6)])
def test_bases_are_orthonormal(projector, dtype, tolerance, rng, device):
    H = backend.asarray(gradient(rng)[0].astype(dtype))
    P = projector.basis(H, 6, 11, 0)
    assert P.shape == (30, 6) and P.dtype == dtype
    host = backend.to_host(P).astype("float64")
    np.testing.assert_allclose(host.T @ host, np.eye(6), atol=tolerance)
    again = backend.to_host(projector.basis(H, 6, 11, 0))
    np.testing.assert_array_equal(again, backend.to_host(P))


def test_svd_spans_the_leading_singular_vectors_and_fixes_their_signs(rng):
    H, U, S = gradient(rng)
    P = Svd().basis(H, 6, 0, 0)
    np.testing.assert_allclose(P @ P.T, U[:, :6] @ U[:, :6].T, atol=1e-10)
    assert np.linalg.norm(H - P @ P.T @ H) == pytest.approx(np.sqrt((S[6:] ** 2).sum()))  # Eckart & Young
    assert all(column[np.abs(column).argmax()] > 0 for column in P.T)
    np.testing.assert_allclose(Svd().basis(-H, 6, 0, 0), P, atol=1e-9)
    assert np.isfinite(Svd().basis(np.full((3, 4), np.nan), 2, 0, 0)).all()


@pytest.mark.parametrize("fall, bound", [(0.7, 1.02), (0.99, 1.6)])
def test_the_range_finder_loses_hardly_more_than_the_best_subspace(fall, bound, rng):
    """Theorem 10.6 of Halko et al. for the spectral norm, q = 1, k = 6, p = 8, as the mean over keys."""
    H, _, S = gradient(rng, fall=fall)
    k, p, n = 6, 8, 30
    ratios = []
    for key in range(40):
        P = RangeFinder(p, 1).basis(H, k, key, 0)
        ratios.append(np.linalg.norm(H - P @ P.T @ H, 2) / S[k])
    theory = (1 + np.sqrt(k / (p - 1)) + np.e * np.sqrt(k + p) / p * np.sqrt(n - k)) ** (1 / 3)
    assert 1 - 1e-12 <= min(ratios) and np.mean(ratios) <= min(theory, bound)


def test_random_bases_have_the_means_that_they_promise():
    H, draws, k, r = np.zeros((5, 7)), 20_000, 5, 2
    for projector, mean in ((Stiefel(), r / k), (Gaussian(), 1.0)):
        found = np.array([projector.basis(H, r, backend.key(3, "draw", i), 0) for i in range(draws)])
        products = np.einsum("dir,djr->dij", found, found)
        error = products.std(axis=0) / np.sqrt(draws)
        assert (np.abs(products.mean(axis=0) - mean * np.eye(k)) < 4.5 * error + 1e-12).all()
        assert (np.abs(found.mean(axis=0)) < 4.5 * found.std(axis=0) / np.sqrt(draws)).all()  # signs, too


# --------------------------------------------------------------------------------------------------- identities
def oracle_of(*shapes):
    table = Segments.of(*((f"W{i}", shape, "matrix", "W") for i, shape in enumerate(shapes)))
    return table, SimpleNamespace(problem=SimpleNamespace(segments=table), seed=0)


class Eye(Svd):
    """The first r coordinates: a fixed basis."""

    def basis(self, H, r, key, t):
        return np.eye(len(H), r, dtype=H.dtype)


def test_in_all_directions_of_a_fixed_basis_galore_is_adam_in_rotated_coordinates(rng):
    """With the coordinates themselves it is Adam, number by number; in others only up to the rotation."""
    table, oracle = oracle_of((4, 6))
    x, gradients = rng.standard_normal(24), rng.standard_normal((8, 24))
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]

    class Turned(Svd):
        def basis(self, H, r, key, t):
            return turn

    ends = {}
    for name, o in (
        ("adam", Adam(0.7, 0.9, 1e-2)),
        ("eye", GaLore(9, 1, 1.0, Adam(0.7, 0.9, 1e-2), Eye())),
        ("turned", GaLore(9, 1, 1.0, Adam(0.7, 0.9, 1e-2), Turned())),
    ):
        y = x.copy()
        o.start(y, oracle)
        for g in gradients:
            o.step(y, g, 0.1)
        ends[name] = y
    np.testing.assert_allclose(ends["eye"], ends["adam"], rtol=1e-13)
    assert np.abs(ends["turned"] - ends["adam"]).max() > 1e-2
    y, a = (turn.T @ x.reshape(4, 6)).ravel(), Adam(0.7, 0.9, 1e-2)
    a.start(y, oracle)
    for g in gradients:
        a.step(y, (turn.T @ g.reshape(4, 6)).ravel(), 0.1)
    np.testing.assert_allclose(ends["turned"], (turn @ y.reshape(4, 6)).ravel(), rtol=1e-11)


def test_without_matrices_it_is_adamw_and_a_zero_gradient_shrinks_x(rng):
    x = rng.standard_normal(TABLE.dim)
    y, a, b = x.copy(), GaLore(2, 3, 0.7, Adam(0.7, 0.9, 1e-2), kinds=(), weight_decay=0.2), AdamW(0.7, 0.9, 1e-2, 0.2)
    a.start(x, ORACLE)
    b.start(y, ORACLE)
    for _ in range(5):
        g = rng.standard_normal(TABLE.dim)
        a.step(x, g, 0.1)
        b.step(y, g, 0.1)
    np.testing.assert_allclose(x, y, rtol=1e-13)
    for o in (GaLore(2, 3, weight_decay=0.3), Flora(2, 3, weight_decay=0.3)):
        x = y.copy()
        o.start(x, ORACLE)
        o.step(x, np.zeros(TABLE.dim), 0.1)
        np.testing.assert_allclose(x, 0.97 * y, rtol=1e-14)


def test_the_update_of_a_period_has_the_rank_that_was_asked_for(rng):
    table, oracle = oracle_of((20, 30), (30, 20))
    x, o = np.zeros(table.dim), GaLore(4, 5, 1.0)
    o.start(x, oracle)
    for t in range(15):
        o.step(x, rng.standard_normal(table.dim), 0.1)
        ranks = [np.linalg.matrix_rank(table.view(x, name), tol=1e-9) for name in table.names]
        assert ranks == [4 * (t // 5 + 1)] * 2


def test_flora_is_right_on_average_and_sums_gradients_in_the_subspace(rng):
    """One step of SGD's kind, over many seeds: E[G A' A] = G. Three gathered gradients take the step of their mean."""
    table, oracle = oracle_of((3, 4))
    G, draws = rng.standard_normal(12), []
    for seed in range(4000):
        oracle.seed, x = seed, np.zeros(12)
        o = Flora(2, 3, 1.0, HeavyBall(0.0))
        o.start(x, oracle)
        o.step(x, G, 1.0)
        draws.append(-x)
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - G) < 4.5 * error).all()
    some, (x, y) = rng.standard_normal((3, 12)), np.zeros((2, 12))
    a, b = Flora(2, 1, inner=HeavyBall(0.0), gather=3), Flora(2, 1, inner=HeavyBall(0.0))
    a.start(x, oracle)
    b.start(y, oracle)
    for g in some:
        assert not x.any()
        a.step(x, g, 0.1)
    b.step(y, some.mean(axis=0), 0.1)
    np.testing.assert_allclose(x, y, rtol=1e-12)


# --------------------------------------------------------------------------------------------------- state
def bytes_of(optimizer, x, oracle):
    optimizer.start(x, oracle)
    return optimizer.bytes()


def test_bytes_are_those_of_the_formulas():
    """m <= n: m r for P, 2 n r for m and v; random P cost nothing. Of a small Llama, and of inner's choice."""
    network, r = llama(50, 8, 16, 2, 2, 48, tied=False), 4
    oracle, x = SimpleNamespace(problem=SimpleNamespace(segments=network.segments)), np.zeros(network.dim, "float32")
    matrices = [s for s in network.segments if s.kind == "matrix" and s.name != "head.W"]
    rest = network.dim - sum(s.size for s in matrices)
    small, large = (sum(r * f(s.shape) for s in matrices) for f in (min, max))
    head = dict(others="head.W")
    assert bytes_of(Adam(), x, oracle) == 8 * network.dim
    assert bytes_of(GaLore(r, 3, **head), x, oracle) == 4 * (small + 2 * large + 2 * rest)
    assert bytes_of(GoLore(r, 3, **head), x, oracle) == 4 * (small + 2 * large + 2 * rest)
    assert bytes_of(GaLore(r, 3, projector=Stiefel(), **head), x, oracle) == 4 * (2 * large + 2 * rest)
    rows = sum(r * s.shape[0] for s in matrices)
    assert bytes_of(Flora(r, 3, **head), x, oracle) == 4 * (2 * rows + 2 * rest)
    assert bytes_of(Flora(r, 3, gather=2, **head), x, oracle) == 4 * (3 * rows + 3 * rest)
    assert bytes_of(GaLore(r, 3, inner=HeavyBall(), **head), x, oracle) == 4 * (small + large + rest)
    mini = bytes_of(GaLore(r, 3, inner=AdamMini(), **head), x, oracle)
    assert 4 * (small + large + rest) < mini < 4 * (small + 1.2 * large + 2 * rest)


def test_lookahead_restarts_it_and_draws_do_not_come_twice(rng):
    table, oracle = oracle_of((6, 6))
    o = Lookahead(GaLore(2, 3, 1.0, projector=Stiefel()), 3, 0.5, True)
    x, seen = np.zeros(36), []
    o.start(x, oracle)
    for _ in range(9):
        o.step(x, rng.standard_normal(36), 0.1)
        seen.append(x.copy())
    assert o.inner.before == 9 and o.inner.t == 0
    steps = [seen[0], seen[3] - seen[2], seen[6] - seen[5]]
    spans = [np.linalg.svd(s.reshape(6, 6))[0][:, :2] for s in steps]
    assert all(np.linalg.norm(a.T @ b) < 1.40 for a, b in zip(spans, spans[1:], strict=False))


def test_what_is_refused():
    for wrong, message in (
        (lambda: GaLore(0), "GaLore: rank must be a whole number of at least 1"),
        (lambda: GaLore(inner=AdamW()), "GaLore: inner works in a subspace, where it cannot decay x; give GaLore"),
        (lambda: GaLore(projector="svd"), "GaLore: projector must be a projector such as Svd"),
        (lambda: GaLore(side="left"), "GaLore: side must be one of shorter, rows, columns"),
        (lambda: GaLore(moments="gone"), "GaLore: moments must be one of kept, reset, turned"),
        (lambda: Flora(gather=0), "Flora: gather must be a whole number"),
        (lambda: GoLore(at=-1), "GoLore: at must be a whole number of at least 0"),
        (lambda: Switching(Svd(), None, 3), "Switching: then must be a projector"),
        (lambda: GaLore(others="head").start(np.zeros(TABLE.dim), ORACLE), "no segment is named 'head'"),
        (lambda: GaLore(moments="turned", inner=AdamSigns()).start(np.zeros(TABLE.dim), ORACLE), "keeps no m"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    o, x = GaLore(2, 3), np.zeros(TABLE.dim)
    o.start(x, ORACLE)
    with pytest.raises(ValueError, match="lr must be one number"):
        o.step(x, x, np.ones(TABLE.dim))


class AdamSigns(Adam):
    """A method without a first moment."""

    arrays = ("v",)

    def update(self, x, g, lr, v, l2):
        x -= lr * np.sign(g)
