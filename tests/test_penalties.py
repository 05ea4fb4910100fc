"""Penalties: the definition of the prox, closed forms, the three-point inequality; then the proximal step."""

from npopt import (
    L1,
    L1L2,
    L2,
    SGD,
    Adam,
    Box,
    Constant,
    Events,
    HeavyBall,
    Proximal,
    RandomReshuffling,
    Simplex,
    Stop,
    backend,
    minimize,
)
from problems import Lasso, LeastSquares

import numpy as np
import pytest
import scipy.sparse

PENALTIES = [L1(0.7), L2(0.6), L1L2(0.3, 0.8), Box(-0.4, 0.9), Box(0.1, None), Simplex(1.7)]


def slow_value(h, u):
    """h(u) from the definition, infinity outside of a set."""
    if isinstance(h, Box):
        low, high = h.bounds
        return 0.0 if all(low <= v <= high for v in u) else np.inf
    if isinstance(h, Simplex):
        return 0.0 if min(u) >= 0 and abs(sum(u) - h.radius) < 1e-9 else np.inf
    return h.l1 * sum(abs(v) for v in u) + h.l2 / 2 * sum(v * v for v in u)


def members(h, rng, d):
    """Points where h is finite."""
    for _ in range(200):
        u = 2 * rng.standard_normal(d) * (rng.random(d) < 0.7)
        if isinstance(h, Box):
            u = np.minimum(np.maximum(u, h.bounds[0]), h.bounds[1])
        if isinstance(h, Simplex):
            u = h.radius * rng.dirichlet(np.full(d, 0.5))
        yield u


@pytest.mark.parametrize("h", PENALTIES, ids=repr)
def test_three_point_inequality(h, rng, device):
    for step in (0.3, 2.5):
        x = 2 * rng.standard_normal(5)
        moved = backend.asarray(x.copy())
        assert h.prox(moved, step) is moved
        p = backend.to_host(moved)
        assert h.value(moved) == pytest.approx(slow_value(h, p), rel=1e-14)
        at_p = slow_value(h, p) + np.sum((p - x) ** 2) / (2 * step)
        for u in members(h, rng, 5):
            at_u = slow_value(h, u) + np.sum((u - x) ** 2) / (2 * step)
            assert at_u >= at_p + np.sum((u - p) ** 2) / (2 * step) - 1e-12


@pytest.mark.parametrize(
    "h, expected",
    [
        (L1(0.5), [2.5, 0, 0, -1]),
        (L2(0.5), [1.75, -0.2, 0, -1]),
        (L1L2(0.25, 0.5), [1.5, 0, 0, -0.75]),
        (Box(-1, 3), [3, -0.4, 0, -1]),
        (Box(0, None), [3.5, 0, 0, 0]),
        (Simplex(2.0), [2, 0, 0, 0]),
    ],
    ids=repr,
)
def test_closed_forms_at_step_two(h, expected):
    np.testing.assert_allclose(h.prox(np.array([3.5, -0.4, 0, -2]), 2.0), expected, atol=1e-15)


def test_projection_on_the_simplex_equals_bisection(rng):
    for d in (1, 2, 7, 100):
        x = 3 * rng.standard_normal(d)
        low, high = x.min() - 2.0, x.max()
        for _ in range(200):
            theta = (low + high) / 2
            low, high = (theta, high) if np.maximum(x - theta, 0).sum() > 1.3 else (low, theta)
        np.testing.assert_allclose(Simplex(1.3).prox(x.copy(), 0.2), np.maximum(x - low, 0), atol=1e-13)
        single = Simplex(1.3).prox(x.astype("float32"), 0.2)
        assert single.dtype == np.float32 and Simplex(1.3).value(single) == 0


def test_limits_of_the_elastic_net(rng):
    x = rng.standard_normal(50)
    np.testing.assert_array_equal(L1L2(0.3, 0).prox(x.copy(), 0.7), L1(0.3).prox(x.copy(), 0.7))
    np.testing.assert_array_equal(L1L2(0, 0.3).prox(x.copy(), 0.7), L2(0.3).prox(x.copy(), 0.7))
    np.testing.assert_array_equal(L1(0).prox(x.copy(), 0.7), x)


def test_outside_of_a_set_the_value_is_infinite(device):
    for h, x in ((Box(0, 1), [0.5, 1.1]), (Box(None, 0), [-3, 0.1]), (Simplex(), [0.5, 0.6]), (Simplex(), [-0.5, 1.5])):
        assert h.value(backend.asarray(np.array(x))) == np.inf
    assert Box(None, None).value(backend.asarray(np.array([1e300]))) == 0


def test_the_intercept_is_not_penalised(rng):
    problem = Lasso(rng.standard_normal((9, 3)), rng.standard_normal(9), 0.5, intercept=True)
    x = np.array([3.0, -0.1, 0.2, 7.0])
    assert problem.penalty(x) == pytest.approx(0.5 * 3.3)
    np.testing.assert_allclose(problem.prox(x, 1.0), [2.5, 0, 0, 7])


def test_proximal_sgd_is_the_step_of_the_definition(rng, device):
    X, y = rng.standard_normal((8, 4)), rng.standard_normal(8)
    problem, x = Lasso(X, y, 0.2), np.zeros(4)
    run = minimize(problem, Proximal(SGD()), schedule=Constant(0.3), stop=Stop(steps=6))
    for _ in range(6):
        u = x - 0.3 * X.T @ (X @ x - y) / 8
        x = np.sign(u) * np.maximum(np.abs(u) - 0.3 * 0.2, 0)
    np.testing.assert_allclose(backend.to_host(run.x), x, rtol=1e-12, atol=1e-14)
    assert run.final["objective"] == pytest.approx(np.mean((X @ x - y) ** 2) / 2 + 0.2 * np.abs(x).sum(), rel=1e-12)


@pytest.mark.parametrize("sparse", [False, True])
def test_prox_rr_is_the_algorithm_of_mishchenko_khaled_and_richtarik(sparse, rng, tmp_path):
    """Every row once in a new order, x <- x - lr grad f_i(x), and one prox of n lr at the end of the epoch."""
    n, lr, l1 = 7, 0.11, 0.05
    X, y = rng.standard_normal((n, 4)) * (rng.random((n, 4)) < 0.7), rng.standard_normal(n)
    problem, x, ends = Lasso(scipy.sparse.csr_matrix(X) if sparse else X, y, l1), np.zeros(4), []
    sampler = RandomReshuffling(1)
    sampler.start(problem, 0)
    for e in range(5):
        for i in sampler.epoch(e)[0]:
            x = x - lr * (X[i] @ x - y[i]) * X[i]
        x = np.sign(x) * np.maximum(np.abs(x) - n * lr * l1, 0)
        ends.append(x)
    problem.metrics = lambda w: {"w": w.copy()}
    run = minimize(problem, Proximal(SGD(), n), RandomReshuffling(1), lr, stop=Stop(epochs=5))
    assert run.loop == "compiled" and (x == 0).any() and (x != 0).any()
    np.testing.assert_allclose(run.columns["w"][1:], ends, rtol=1e-12, atol=1e-14)
    python = minimize(problem, Observed(SGD(), n), RandomReshuffling(1), lr, stop=Stop(epochs=5))
    assert python.loop == "python"
    np.testing.assert_allclose(python.x, x, rtol=1e-12, atol=1e-14)
    checkpoint = tmp_path / "run"  # broken in the middle of an epoch
    for steps in (17, 35):
        again = minimize(
            problem, Proximal(SGD(), n), RandomReshuffling(1), lr, stop=Stop(steps=steps),
            events=Events(None, checkpoint=checkpoint),
        )  # fmt: skip
    np.testing.assert_allclose(again.x, run.x, rtol=1e-12, atol=1e-14)


class Observed(Proximal):
    """Step by step, in Python."""

    plain = False


def test_without_a_penalty_it_is_the_inner_method(rng):
    problem = LeastSquares(rng.standard_normal((8, 4)), rng.standard_normal(8))
    one, two = (minimize(problem, o, schedule=0.1, stop=Stop(steps=9)) for o in (SGD(), Proximal(SGD())))
    np.testing.assert_array_equal(one.x, two.x)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: L1(-1), "l1 must lie in"),
        (lambda: L1L2(1, float("nan")), "l2 must lie in"),
        (lambda: Box(2, 1), "low must not exceed high"),
        (lambda: Simplex(0), "radius must lie in"),
        (lambda: Proximal(HeavyBall()), r"stop at another point.*FISTA\(\)"),
        (lambda: Proximal(Adam()), "another point"),
        (lambda: Proximal(0.1), "give an optimizer"),
        (lambda: Proximal(SGD(), 0), "every must be a whole number"),
        (lambda: Lasso(np.ones((2, 1)), np.ones(2), -0.1), "l1 must lie in"),
        (lambda: LeastSquares(np.ones((2, 1)), np.ones(2), regulariser=0.1), r"a penalty such as L1\(0.1\)"),
    ],
)
def test_bad_input_gets_one_sentence(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_rates_that_differ_by_coordinate_are_refused(rng):
    problem, x = Lasso(np.ones((2, 3)), np.ones(2), 0.1), np.zeros(3)
    optimizer = Proximal(SGD())
    optimizer.start(x)
    with pytest.raises(ValueError, match="one step size"):
        optimizer.step(x, np.ones(3), np.full(3, 0.1))
    assert problem.has_penalty
