"""Quadratic: rows whose mean is exact, closed-form answers, bad input."""

from npopt import backend
from problems import Quadratic

import numpy as np
import pytest


def dense(rng, d=4):
    A = rng.standard_normal((d, d))
    return A @ A.T + np.eye(d)


@pytest.mark.parametrize("diagonal", [False, True])
def test_rows_and_weights_follow_the_convention_and_their_mean_is_f(diagonal, rng):
    A = np.array([3.0, 1.0, 0.5, 2.0]) if diagonal else dense(rng)
    b = rng.standard_normal(4)
    problem = Quadratic(A, b, n=7, noise=0.5, seed=3)
    full = np.diag(A) if diagonal else A
    x, g, rows, w = rng.standard_normal(4), np.empty(4), np.array([2, 6, 2]), rng.random(3)
    single = []
    for i in range(7):
        value = problem.value_and_gradient(x, np.array([i]), None, g)
        single.append((value, g.copy()))
    noise = np.array([s for _, s in single]) - (full @ x - b)
    assert 0.2 < noise.std() < 0.9
    np.testing.assert_allclose(noise.mean(0), 0, atol=1e-15)
    assert problem.value_and_gradient(x, None, None, g) == pytest.approx(0.5 * x @ full @ x - b @ x, rel=1e-13)
    np.testing.assert_allclose(g, full @ x - b, rtol=1e-12)
    for r, weights in ((rows, w), (None, np.arange(7.0))):
        value = problem.value_and_gradient(x, r, weights, g)
        picked = [single[i] for i in (range(7) if r is None else r)]
        assert value == pytest.approx(np.mean([c * f for c, (f, _) in zip(weights, picked, strict=True)]), rel=1e-12)
        mean = np.mean([c * s for c, (_, s) in zip(weights, picked, strict=True)], 0)
        np.testing.assert_allclose(g, mean, rtol=1e-12, atol=1e-14)
        d, h = rng.standard_normal(4), 1e-6
        numeric = (problem.value(x + h * d, r, weights) - problem.value(x - h * d, r, weights)) / (2 * h)
        assert abs(numeric - g @ d) < 1e-7 * max(1, abs(numeric))
    again, other = Quadratic(A, b, n=7, noise=0.5, seed=3), Quadratic(A, b, n=7, noise=0.5, seed=4)
    assert again.value(x, rows) == problem.value(x, rows) != other.value(x, rows)


def test_minimum_and_constants_are_closed_form(rng):
    A, b = dense(rng), rng.standard_normal(4)
    problem = Quadratic(A, b, n=5, noise=1.0)
    x, f = problem.minimum()
    np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-10)
    assert problem.value(x) == pytest.approx(f, rel=1e-13)
    values = np.linalg.eigvalsh(A)
    assert (problem.strong_convexity(), problem.smoothness()) == pytest.approx((values[0], values[-1]), rel=1e-12)
    assert list(problem.row_smoothness()) == [problem.smoothness()] * 5
    found = problem.metrics(x + 0.1)
    assert found["gap"] == pytest.approx(found["objective"] - f, rel=1e-10) and found["gap"] > 0
    assert found["gradient_norm"] == pytest.approx(np.linalg.norm(A @ (x + 0.1) - b), rel=1e-12)


def test_singular_and_indefinite_quadratics_say_what_they_have():
    flat = Quadratic([2.0, 0.0], [1.0, 0.0])
    assert flat.strong_convexity() == 0.0 and flat.minimum()[1] == -0.25
    for problem in (Quadratic([2.0, 0.0], [1.0, 1.0]), Quadratic([2.0, -1.0])):
        with pytest.raises(ValueError, match="not bounded below"):
            problem.minimum()
        assert set(problem.metrics(np.zeros(2))) == {"objective", "gradient_norm"}
    saddle = Quadratic([2.0, -3.0])
    assert (saddle.smoothness(), saddle.strong_convexity()) == (3.0, 0.0)


@pytest.mark.parametrize("diagonal", [False, True])
def test_passes_run_where_arrays_cannot_become_numpy(diagonal, device, rng):
    A = np.array([3.0, 1.0]) if diagonal else np.array([[3.0, 1.0], [1.0, 2.0]])
    problem = Quadratic(A, [1.0, 2.0], n=4, noise=0.3)
    x, g = problem.x0(rng), backend.zeros(2, np.float64)
    for rows in (None, backend.asarray(np.array([1, 3]))):
        for weights in (None, backend.asarray(np.ones(4 if rows is None else 2))):
            value = problem.value_and_gradient(x, rows, weights, g)
            assert backend.to_host(value) == pytest.approx(backend.to_host(problem.value(x, rows, weights)), rel=1e-15)
    assert all(type(v) is float for v in problem.metrics(x).values())


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: Quadratic(np.ones((2, 3))), "A must have shape"),
        (lambda: Quadratic([]), "A must have shape"),
        (lambda: Quadratic([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (lambda: Quadratic([np.nan]), "finite"),
        (lambda: Quadratic([1.0], [1.0, 2.0]), "b must be 1 finite numbers"),
        (lambda: Quadratic([1.0], noise=-1), "noise must lie in"),
        (lambda: Quadratic([1.0], noise=np.ones((3, 2))), r"of shape \(rows, 1\)"),
        (lambda: Quadratic([1.0], n=0), "n must be a whole number"),
        (lambda: Quadratic([1.0], n=3).value(np.ones(1), np.array([3])), "rows must be one or more of 0..2"),
        (lambda: Quadratic([1.0], n=3).value(np.ones(1), np.array([1]), np.ones(2)), "1 rows need 1 weights"),
    ],
)
def test_bad_input_is_one_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call()
