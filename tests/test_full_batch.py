"""ISTA, FISTA and theory's constants: slow loops, the bounds of the papers as certificates, closed forms."""

import math
import warnings

from npopt import (
    FISTA,
    ISTA,
    L1,
    SGD,
    Box,
    Events,
    HeavyBall,
    Nesterov,
    Proximal,
    RandomReshuffling,
    Stop,
    backend,
    minimize,
    theory,
)
from problems import Lasso, LeastSquares, Logistic, Quadratic

import numpy as np
import pytest

FULL = RandomReshuffling(None)


@pytest.fixture
def data(rng):
    return rng.standard_normal((12, 5)), rng.standard_normal(12)


def lasso(data, l1=0.1):
    problem = Lasso(*data, l1)
    problem.metrics = lambda x: {"x": backend.to_host(x).copy(), "F": objective(data, backend.to_host(x), l1)}
    return problem


def objective(data, x, l1):
    A, b = data
    return np.sum((A @ x - b) ** 2) / (2 * len(b)) + l1 * np.abs(x).sum()


def soft(v, t):
    return np.sign(v) * np.maximum(np.abs(v) - t, 0)


def slow_fista(data, l1, lr, steps, restart=None, eta=None, momentum=True):
    """Beck & Teboulle's two algorithms with their backtracking, and O'Donoghue & Candes' restarts."""
    A, b = data
    f = lambda x: np.sum((A @ x - b) ** 2) / (2 * len(b))  # noqa: E731
    x = y = np.zeros(A.shape[1])
    t, before = 1.0, math.inf
    for _ in range(steps):
        g = A.T @ (A @ y - b) / len(b)
        while True:
            p = soft(y - lr * g, lr * l1)
            if eta is None or f(p) <= f(y) + g @ (p - y) + np.sum((p - y) ** 2) / (2 * lr) + 1e-15:
                break
            lr /= eta
        now = f(p) + l1 * np.abs(p).sum()
        stop = (restart == "function" and now > before) or (restart == "gradient" and (y - p) @ (p - x) > 0)
        before, after = now, (1 + math.sqrt(1 + 4 * t * t)) / 2
        beta = (t - 1) / after
        if stop:
            after, beta = 1.0, 0.0
        y = p + (beta * (p - x) if momentum else 0)
        x, t = p, after
        yield x


@pytest.mark.parametrize("restart", [None, "function", "gradient"])
@pytest.mark.parametrize("backtracking", [False, True])
def test_fista_trajectory(restart, backtracking, data, device):
    lr = 3.0 if backtracking else 0.9 / np.linalg.eigvalsh(data[0].T @ data[0] / 12)[-1]
    method = FISTA(restart, backtracking, 1.7)
    run = minimize(lasso(data), method, FULL, lr, stop=Stop(steps=30), events=Events(1, "step"))
    slow = list(slow_fista(data, 0.1, lr, 30, restart, 1.7 if backtracking else None))
    np.testing.assert_allclose(run.columns["x"][1:], slow, rtol=1e-9, atol=1e-11)
    if restart is not None and not backtracking:
        plain = list(slow_fista(data, 0.1, lr, 30))
        assert np.abs(plain[-1] - slow[-1]).max() > 1e-8  # a restart did happen
    assert (run.final["values"] > 0) == (backtracking or restart == "function")


def test_ista_trajectory_and_it_is_proximal_sgd_without_backtracking(data, device):
    method = ISTA(True, 1.7)
    run = minimize(lasso(data), method, FULL, 3.0, stop=Stop(steps=40), events=Events(1, "step"))
    np.testing.assert_allclose(
        run.columns["x"][1:], list(slow_fista(data, 0.1, 3.0, 40, None, 1.7, momentum=False)), rtol=1e-10, atol=1e-12
    )
    one, two = (minimize(lasso(data), o, FULL, 0.3, stop=Stop(steps=9)) for o in (ISTA(), Proximal(SGD())))
    np.testing.assert_array_equal(backend.to_host(one.x), backend.to_host(two.x))


def test_the_bounds_of_beck_and_teboulle(data, rng):
    """F(x_k) - F* <= L |x0 - x*|^2 / 2k for ISTA, 2 L |x0 - x*|^2 / (k+1)^2 for FISTA, at every k."""
    L = np.linalg.eigvalsh(data[0].T @ data[0] / 12)[-1]
    best = list(slow_fista(data, 0.1, 1 / L, 20000, "gradient"))[-1]
    least, distance = objective(data, best, 0.1), np.sum(best**2)
    for method, bound in (
        (ISTA(), lambda k: L * distance / (2 * k)),
        (FISTA(), lambda k: 2 * L * distance / (k + 1) ** 2),
        (FISTA("gradient"), lambda k: 2 * L * distance / (k + 1) ** 2),
    ):
        run = minimize(lasso(data), method, FULL, 1 / L, stop=Stop(steps=300), events=Events(1, "step"))
        for k, F in enumerate(run.columns["F"][1:], 1):
            assert F - least <= bound(k) + 1e-15, (method, k)


def test_restart_gives_the_linear_rate_of_a_known_mu():
    """kappa = 1e4: Nesterov's constants need about sqrt(kappa) ln(1e10) / 2 steps; FISTA with a restart knows no mu."""
    problem = Quadratic(np.logspace(-4, 0, 50), b=np.ones(50))
    tuned = theory.nesterov(1.0, 1e-4)
    common = dict(
        sampler=FULL, schedule=1.0, stop=Stop(steps=20000, target=("gap", 1e-7)), seed=1, events=Events(10, "step")
    )
    steps = {
        str(o): minimize(problem, o, **common).final["step"]
        for o in (FISTA("gradient"), FISTA("function"), FISTA(), Nesterov(tuned.beta), SGD())
    }
    assert steps["SGD()"] == 20000
    restarted = [steps[str(FISTA(r))] for r in ("gradient", "function")]
    assert max(restarted) < 3 * steps[str(Nesterov(tuned.beta))] and max(restarted) < steps[str(FISTA())]


def test_other_penalties_and_none(rng):
    X, y = rng.standard_normal((30, 4)), rng.standard_normal(30)
    L = LeastSquares(X, y).smoothness()
    boxed = LeastSquares(X, y, regulariser=Box(0, None))
    boxed.metrics = lambda x: {}
    run = minimize(boxed, FISTA("gradient"), FULL, 1 / L, stop=Stop(steps=500))
    import scipy.optimize

    np.testing.assert_allclose(run.answer, scipy.optimize.nnls(X, y)[0], atol=1e-9)
    smooth = minimize(LeastSquares(X, y), FISTA("function"), FULL, 1 / L, stop=Stop(steps=400))
    assert smooth.final["gap"] < 1e-13 and smooth.final["values"] == 400 * 30


# ------------------------------------------------------------------------------------------------------------- theory
@pytest.mark.parametrize("L, mu", [(1.0, 0.01), (7.3, 0.5), (2.0, 2.0)])
def test_factors_are_spectral_radii(L, mu):
    """The error of a quadratic of curvature c obeys e+ = (1 + beta - lr c) e - beta e_prev, or Nesterov's form."""

    def radius(c, lr, beta, look_ahead):
        trace = (1 + beta) * (1 - lr * c) if look_ahead else 1 + beta - lr * c
        product = beta * (1 - lr * c) if look_ahead else beta
        return max(abs(np.roots([1, -trace, product])))

    curvatures = np.linspace(mu, L, 2001)
    for tuned, look_ahead in ((theory.heavy_ball(L, mu), False), (theory.nesterov_quadratic(L, mu), True)):
        worst = max(radius(c, tuned.lr, tuned.beta, look_ahead) for c in curvatures)
        assert worst == pytest.approx(tuned.factor, abs=2e-7 if mu < L else 1e-6)
    gradient, bound = theory.gradient_descent(L, mu), theory.nesterov(L, mu)
    assert max(abs(1 - gradient.lr * c) for c in curvatures) == pytest.approx(gradient.factor, abs=1e-12)
    worst = max(radius(c, bound.lr, bound.beta, True) for c in curvatures)
    assert worst == pytest.approx(bound.factor, abs=2e-7 if mu < L else 1e-6)


def test_constants_by_hand():
    """L = 9, mu = 1: kappa = 9, square root 3."""
    assert theory.heavy_ball(9, 1) == pytest.approx((4 / 16, 0.25, 0.5, 0.5, 1.5))
    assert theory.nesterov(9, 1) == pytest.approx((1 / 9, 0.5, 2 / 3, 0.25, 0.25))
    q = math.sqrt(28)
    assert theory.nesterov_quadratic(9, 1) == pytest.approx((4 / 28, (q - 2) / (q + 2), 1 - 2 / q, 0, 0))
    assert theory.gradient_descent(9, 1) == pytest.approx((1 / 9, 0.0, 8 / 9, 0, 0))
    assert theory.iterations(0.5, 16.0, 1.0) == pytest.approx(2) and theory.iterations(0.5, 1e-9, 1e-7) == 0


def test_iterations_with_a_transient_solve_their_equation():
    for factor, growth in ((0.9, 0.3), (0.999, 1.9), (0.5, 1.5)):
        t = theory.iterations(factor, 3.0, 1e-7, growth)
        assert 3.0 * (factor**t * (1 + growth * t)) ** 2 == pytest.approx(1e-7, rel=1e-8)
        assert t > theory.iterations(factor, 3.0, 1e-7)


@pytest.mark.parametrize("method, look_ahead", [(theory.heavy_ball, False), (theory.nesterov, True)])
def test_the_transient_is_exact_at_mu_and_a_bound_elsewhere(method, look_ahead):
    L, mu, steps = 1.0, 2e-3, 600
    tuned = method(L, mu)
    curvatures = np.linspace(mu, L, 801)
    x, y = (np.ones_like(curvatures) for _ in range(2))  # errors, one curvature each, by the formulas of the module
    for t in range(1, steps):
        if look_ahead:
            new = y - tuned.lr * curvatures * y
            x, y = new, new + tuned.beta * (new - x)
        else:
            x, y = y, y - tuned.lr * curvatures * y + tuned.beta * (y - x)
        assert y[0] == pytest.approx(tuned.factor**t * (1 + tuned.slow * t), rel=1e-6)
        assert np.abs(y).max() <= tuned.factor**t * (1 + tuned.fast * t) * (1 + 1e-6)


def test_predicted_iterations_are_observed_on_a_quadratic():
    problem = Quadratic(np.linspace(0.01, 1, 40), b=np.zeros(40))
    for tuned, method in (
        (theory.gradient_descent(1.0, 0.01), SGD()),
        (theory.heavy_ball(1.0, 0.01), None),
        (theory.nesterov_quadratic(1.0, 0.01), Nesterov),
    ):
        method = method if isinstance(method, SGD) else (method or HeavyBall)(tuned.beta)
        run = minimize(
            problem, method, FULL, tuned.lr, stop=Stop(steps=5000, target=("gap", 1e-28)), events=Events(1, "step")
        )
        gap = np.array(run.columns["gap"])  # late, where the slowest direction is left
        observed = np.argmax(gap <= 1e-28) - np.argmax(gap <= 1e-12)
        assert 0.9 < observed / theory.iterations(tuned.factor, 1e-12, 1e-28) < 1.2, method


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: theory.heavy_ball(1, 0), "no linear rate exists; give l2 > 0"),
        (lambda: theory.nesterov(1, 2), "exceeds L"),
        (lambda: theory.gradient_descent(0, 0), "L must lie in"),
        (lambda: theory.iterations(1.0, 1, 0.1), "factor must lie in"),
        (lambda: FISTA("often"), "restart must be None"),
        (lambda: FISTA(eta=1), "eta must lie in"),
        (lambda: ISTA(True, 0.5), "eta must lie in"),
    ],
)
def test_bad_input_gets_one_sentence(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_step_above_the_bound_is_warned_of():
    with pytest.warns(RuntimeWarning, match=r"lr = 3 is above 2/L = 2.*at most 1/L"):
        assert theory.check_step(3.0, 1.0) == 3.0
    with pytest.warns(RuntimeWarning, match="lr = 3 is above 2/L = 2"):
        run = minimize(Quadratic([1.0, 0.5]), SGD(), FULL, 3.0, stop=Stop(steps=5000), events=Events(None))
    assert run.diverged
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method, lr in ((SGD(), 2.0), (ISTA(True), 3.0), (HeavyBall(0.5), 3.0)):
            minimize(Quadratic([1.0, 0.5]), method, FULL, lr, stop=Stop(steps=3))
        minimize(Quadratic([1.0, 0.5], n=4), SGD(), RandomReshuffling(2), 3.0, stop=Stop(steps=3))
    assert Logistic(np.eye(2), [1, -1], regulariser=L1(0.1)).has_penalty


def test_singular_problems_say_that_no_linear_rate_exists(rng):
    problem = Logistic(rng.standard_normal((9, 3)), np.where(rng.random(9) < 0.5, 1, -1))
    with pytest.raises(ValueError, match="no linear rate"):
        theory.nesterov(problem.smoothness(), problem.strong_convexity())
