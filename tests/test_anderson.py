"""Anderson acceleration: against least squares solved anew at every step, finite termination, the guard, resume."""

from npopt import SGD, Anderson, Box, Events, Proximal, RandomReshuffling, Stop, backend, minimize
from problems import LeastSquares, Logistic, Problem, Quadratic

import numpy as np
import pytest

FULL = RandomReshuffling(None)


def logistic(rng, n=40, d=6, regulariser=None):
    X = rng.standard_normal((n, d)) * np.linspace(0.2, 3, d)
    problem = Logistic(X, np.where(X @ np.ones(d) + rng.standard_normal(n) > 0, 1, -1), 0.01, regulariser=regulariser)
    problem.metrics = lambda x: {"x": backend.to_host(x).copy()}
    return problem


def slow_anderson(f, gradient, x, lr, m, steps, guard, prox=lambda u: u, reg=None):
    """The paper's algorithm with its synchronous guard, the combination from the constrained problem by lstsq:
    a = (1 - sum z, z) turns it into  min |r_k + sum_j z_j (r_{k-j} - r_k)|."""
    y, R, Q = x.copy(), [], []
    for _ in range(steps):
        g = gradient(x)
        q = x - lr * g
        R, Q = ([q - y] + R)[: m + 1], ([q] + Q)[: m + 1]
        if reg is not None:
            G = np.array(R) @ np.array(R).T
            a = np.linalg.solve(G / np.linalg.norm(G, 2) + reg * np.eye(len(R)), np.ones(len(R)))
            a /= a.sum()
        else:
            z = np.zeros(0)
            if len(R) > 1:
                z = np.linalg.lstsq(np.array([r - R[0] for r in R[1:]]).T, -R[0], rcond=1e-13)[0]
            a = np.concatenate([[1 - z.sum()], z])
        test = sum(c * v for c, v in zip(a, Q, strict=True))
        plain = prox(q)
        bound = f(x) + g @ (plain - x) + np.sum((plain - x) ** 2) / (2 * lr)
        if len(R) > 1 and guard and not f(prox(test)) <= bound + 1e-15 * abs(bound):
            y = q
        else:
            y = test
        x = prox(y)
        yield x


@pytest.mark.parametrize("guard", [False, True])
@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("solver", ["qr", "gram"])
def test_accepted_iterates_are_those_of_the_paper(guard, boxed, solver, rng, device):
    """Where the guard rejects, one gradient is spent at the rejected point, and the sequence goes on without it."""
    problem = logistic(rng, regulariser=Box(-0.6, 0.5) if boxed else None)
    X, y = problem.host_X, problem.host_y
    f = lambda w: np.mean(np.logaddexp(0, -y * (X @ w))) + 0.005 * w @ w  # noqa: E731
    gradient = lambda w: X.T @ (-y / (1 + np.exp(y * (X @ w)))) / len(y) + 0.01 * w  # noqa: E731
    lr, m, reg = 1 / problem.smoothness(), 3, 1e-8
    prox = (lambda u: np.clip(u, -0.6, 0.5)) if boxed else (lambda u: u)
    slow = list(slow_anderson(f, gradient, np.zeros(6), lr, m, 14, guard, prox, reg if solver == "gram" else None))
    method = Anderson(m, solver, reg, 1e13, guard, None)
    run = minimize(problem, method, FULL, lr, stop=Stop(steps=24), events=Events(1, "step"))
    found, k = run.columns["x"][1:], 0
    for x in slow:  # in order, rejected points in between
        while not np.allclose(found[k], x, rtol=1e-6, atol=1e-8):
            k += 1
            assert k < len(found), "an iterate of the paper's does not occur"
        k += 1
    assert guard or k == 14


def test_constrained_and_unconstrained_forms_agree(rng):
    A = rng.standard_normal((20, 20))
    problem = Quadratic(A @ A.T / 20 + 0.1 * np.eye(20), rng.standard_normal(20))
    problem.metrics = lambda x: {"x": x.copy()}
    lr = 1 / problem.smoothness()
    one, two = (
        minimize(
            problem, Anderson(4, solver, 0.0, guard=False), FULL, lr, stop=Stop(steps=15), events=Events(1, "step")
        )
        for solver in ("qr", "gram")
    )
    np.testing.assert_allclose(one.columns["x"], two.columns["x"], rtol=1e-5, atol=1e-7)


def test_window_zero_is_gradient_descent_bit_for_bit(rng):
    for regulariser in (None, Box(-0.2, 0.2)):
        problem = logistic(rng, regulariser=regulariser)
        one, two = (minimize(problem, o, FULL, 0.7, stop=Stop(steps=20)) for o in (Anderson(0), Proximal(SGD())))
        np.testing.assert_array_equal(one.x, two.x)


@pytest.mark.parametrize("distinct", [1, 3, 8])
def test_a_quadratic_ends_after_as_many_steps_as_there_are_eigenvalues(distinct, rng):
    """In exact arithmetic GMRES; here to 1e-9 of the first gradient."""
    basis = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    values = np.linspace(0.5, 2, distinct)[np.arange(8) % distinct]
    problem = Quadratic(basis @ np.diag(values) @ basis.T, rng.standard_normal(8))
    run = minimize(problem, Anderson(8, guard=False), FULL, 0.5, stop=Stop(steps=distinct + 1), x=np.ones(8))
    g = np.empty(8)
    first = problem.value_and_gradient(np.ones(8), out=g) * 0 + np.linalg.norm(g)
    problem.value_and_gradient(run.x, out=g)
    assert np.linalg.norm(g) < 1e-9 * first


class Kinked(Problem):
    """Mai & Johansson's function of one unknown: f' = 0.1 x - 24.9, 25 x, 0.1 x + 24.9 on x < -1, |x| < 1, x >= 1."""

    name, n = "kinked", 1

    def __init__(self):
        self.set_shape(1, "float64")

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        (v,) = x
        inner = abs(v) < 1
        if out is not None:
            out[0] = 25 * v if inner else 0.1 * v + 24.9 * np.sign(v)
        return float(12.5 * v * v if inner else 0.05 * v * v + 24.9 * abs(v) - 12.45)

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x)

    def metrics(self, x):
        return {"x": float(x[0])}


@pytest.mark.parametrize("start", [2.1, 17.0, 100.0, 246.0])
def test_without_the_guard_a_cycle_with_it_convergence(start):
    common = dict(sampler=FULL, schedule=1 / 25, x=np.array([start]), events=Events(1, "step"))
    wild = minimize(Kinked(), Anderson(1, guard=False), **common, stop=Stop(steps=60))
    late = np.array(wild.columns["x"][-12:])
    assert np.isclose(late.max(), 249, atol=1) and np.isclose(late.min(), -249, atol=1)
    tame = minimize(Kinked(), Anderson(1), **common, stop=Stop(steps=400))
    assert abs(tame.final["x"]) < 1e-12


@pytest.mark.parametrize("regulariser", [None, Box(-0.3, 0.3)], ids=repr)
def test_every_accepted_point_descends(regulariser, rng):
    problem = logistic(rng, regulariser=regulariser)
    lr = 1 / problem.smoothness()
    problem.metrics = lambda x: {"F": problem.value(x) + problem.penalty(x)}
    method, kept = Anderson(5), []

    class Watched(Anderson):
        def step(self, x, g, lr):
            rejected = self.rejected
            super().step(x, g, lr)
            kept.append(self.rejected == rejected)

    run = minimize(problem, Watched(5), FULL, lr, stop=Stop(steps=60), events=Events(1, "step"))
    F, last = run.columns["F"], run.columns["F"][0]
    for k in range(1, len(kept)):  # row k is judged by step k + 1
        if kept[k]:
            assert F[k] <= last + 1e-14
            last = F[k]
    assert kept and method.window == 5


def test_conditioning_control_drops_columns_and_keeps_the_factorisation(rng):
    problem = logistic(rng, d=6)
    for condition, fewer in ((1e14, False), (30.0, True)):
        method = Anderson(5, condition=condition, guard=False)
        x, g = np.zeros(6), np.empty(6)
        from npopt import Minibatch
        from npopt.samplers import Batch

        oracle = Minibatch()
        oracle.start(problem, x, 0)
        method.start(x, oracle)
        sizes, points = [], []
        for _ in range(12):
            oracle.loss = oracle(x, Batch(None), g)
            points.append((x - 0.1 * g, -0.1 * g))
            method.step(x, g, 0.1)
            history = method.history
            k = history.k
            sizes.append(k)
            if k:
                dR = np.diff([r for _, r in points], axis=0)[-k:].T
                dQ = np.diff([q for q, _ in points], axis=0)[-k:]
                Q, R = history.Q[:k].T, history.R[:k, :k]
                np.testing.assert_allclose(Q.T @ Q, np.eye(k), atol=1e-10)
                np.testing.assert_allclose(Q @ R, dR, atol=1e-12)
                np.testing.assert_allclose(history.steps[history.ring[:k]], dQ, atol=1e-15)
                assert np.linalg.cond(R) <= condition or k == 1
        assert (max(sizes) < 5) == fewer


def fed(history, differences, at=0.0):
    """What a history makes of points q, r; the last of each is `at` plus the sum of the differences."""
    found = []
    for q, r in np.cumsum(differences, 0) + at:
        mixed = history.extrapolate(backend.asarray(q), backend.asarray(r.copy()))
        found.append(None if mixed is None else backend.to_host(mixed).copy())
    return found


def test_the_compiled_window_takes_the_steps_of_least_squares(rng, device):
    """Eleven points, window 4: at each the differences that are left, solved anew by lstsq."""
    from npopt.optimizers.history import UpdatedQR

    points = rng.standard_normal((11, 2, 9))
    history = UpdatedQR(4, backend.zeros(9, "float64"), 1e10)
    q, r = points.cumsum(0).transpose(1, 0, 2)
    for k, mixed in enumerate(fed(history, points)):
        low = max(0, k - 4)
        if k:
            dQ, dR = (np.diff(v[low : k + 1], axis=0).T for v in (q, r))
            expected = q[k] - dQ @ np.linalg.lstsq(dR, r[k], rcond=None)[0]
            np.testing.assert_allclose(mixed, expected, rtol=1e-9, atol=1e-10)
        else:
            assert mixed is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_point_that_is_not_finite_leaves_nothing_behind(bad, rng, device):
    from npopt.optimizers.history import UpdatedQR

    points = rng.standard_normal((6, 2, 5))
    fresh, struck = (UpdatedQR(3, backend.zeros(5, "float64"), 1e10) for _ in range(2))
    fed(struck, rng.standard_normal((4, 2, 5)))
    assert fed(struck, np.full((1, 2, 5), bad)) == [None]
    for one, two in zip(fed(struck, points, 1.0), fed(fresh, points, 1.0), strict=True):
        assert (one is None) == (two is None) and (one is None or np.isfinite(one).all())
        np.testing.assert_array_equal(one, two)


def test_the_condition_bound_is_between_the_condition_number_and_k_times_it(rng):
    from npopt.optimizers.history import condition_bound

    for k in (1, 4, 9):
        R = np.triu(rng.standard_normal((k, k))) + 2 * np.eye(k)
        frobenius = np.linalg.norm(R) * np.linalg.norm(np.linalg.inv(R))
        assert condition_bound(R, k) == pytest.approx(frobenius, rel=1e-10)
        assert np.linalg.cond(R) * (1 - 1e-9) <= frobenius <= k * np.linalg.cond(R) * (1 + 1e-9)


@pytest.mark.parametrize("solver", ["qr", "gram"])
def test_rejections_in_a_row_empty_the_window(solver, rng, device):
    """The guard is made to reject everything: after every second rejection the next point is a plain step, since the
    window begins anew; without patience every other step tries again."""
    tried = {}
    for patience in (2, None):
        problem, kept = logistic(rng), []

        class Refused(Anderson):
            def objective(self, x):
                return np.inf

            def step(self, x, g, lr, kept=kept):
                super().step(x, g, lr)
                kept.append(self.bound is not None)

        method = Refused(4, solver, patience=patience)
        minimize(problem, method, FULL, 1 / problem.smoothness(), stop=Stop(steps=13), events=Events(None))
        tried[patience] = kept
    assert tried[None] == [False] + [True, False] * 6
    assert tried[2] == [False] + [True, False, True, False] * 3


def test_memory_is_two_windows_and_two_vectors():
    for solver, penalised in (("qr", False), ("gram", False), ("qr", True)):
        problem = LeastSquares(np.eye(50), np.ones(50), regulariser=Box(0, 1) if penalised else None)
        from npopt import Minibatch

        oracle, x, method = Minibatch(), np.zeros(50), Anderson(7, solver)
        oracle.start(problem, x, 0)
        method.start(x, oracle)
        arrays = [v for v in (*method.state().values(), *method.state()["history"].values()) if hasattr(v, "size")]
        assert sum(v.size for v in arrays if v.size >= 50 and v.shape[-1] == 50) == (2 * (7 + 1) + penalised) * 50


def test_faster_than_gradient_descent_on_an_ill_conditioned_problem(rng):
    X = rng.standard_normal((300, 12)) * np.logspace(-1.2, 0.5, 12)
    problem = Logistic(X, np.where(X @ rng.standard_normal(12) > 0, 1, -1), 1e-3)
    common = dict(
        sampler=FULL,
        schedule=1 / problem.smoothness(),
        stop=Stop(steps=20000, target=("gap", 1e-9)),
        events=Events(10, "step"),
    )
    fast, slow = minimize(problem, Anderson(10), **common), minimize(problem, SGD(), **common)
    assert fast.reason == "target" and fast.final["step"] * 20 < slow.final["step"]


def test_a_window_wider_than_the_problem_is_cut_with_a_word(rng):
    with pytest.warns(RuntimeWarning, match="window 50 is more than the 6 unknowns; 6 are used"):
        run = minimize(logistic(rng), Anderson(50), FULL, 0.5, stop=Stop(steps=60))
    assert np.isfinite(run.x).all()


def test_a_run_that_diverges_says_so(rng):
    with pytest.warns(RuntimeWarning, match="lr = 10 is above 2/L"):
        run = minimize(Quadratic([1.0, 3.0]), Anderson(0), FULL, 10.0, stop=Stop(steps=2000), events=Events(None))
    assert run.diverged


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Anderson(-1), "window must be a whole number"),
        (lambda: Anderson(3, "svd"), 'solver must be "qr" or'),
        (lambda: Anderson(reg=-1), "reg must lie in"),
        (lambda: Anderson(condition=0.5), "condition must lie in"),
    ],
)
def test_bad_input_gets_one_sentence(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
