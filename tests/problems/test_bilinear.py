"""The smallest network of two layers: derivatives, and gradient descent against its recursion of two numbers."""

from npopt import SGD, Events, Stop, backend, gradcheck, minimize
from problems.bilinear import Bilinear, recursion

import numpy as np
import pytest


def test_derivatives(rng):
    start = rng.standard_normal(8)
    problem, g = Bilinear(start), np.empty((2, 8))
    u, v = start[:4], start[4:]
    assert problem.value(start) == pytest.approx(0.5 * (sum(u * v) / 2) ** 2, rel=1e-14)
    assert gradcheck(problem, start).ok
    product, p = problem.curvature(start), rng.standard_normal(8)
    for out, h in zip(g, (1e-6, -1e-6), strict=True):
        problem.value_and_gradient(start + h * p, out=out)
    np.testing.assert_allclose(product(p), (g[0] - g[1]) / 2e-6, rtol=1e-7, atol=1e-8)
    weights = np.array([1.0, 3.0])
    assert problem.value_and_gradient(start, np.array([0, 0]), weights, g[0]) == pytest.approx(2 * problem.value(start))
    np.testing.assert_allclose(problem.curvature(start, None, weights)(p), 2 * product(p))
    with pytest.raises(ValueError, match="2 m numbers"):
        Bilinear(np.ones(3))


def test_at_a_minimum_the_kernel_is_the_largest_eigenvalue(rng):
    u = rng.standard_normal(5)
    v = rng.standard_normal(5)
    v -= u * (u @ v) / (u @ u)
    problem = Bilinear(np.concatenate([u, v]))
    H = np.stack([problem.curvature(problem.start)(e) for e in np.eye(10)])
    assert np.linalg.eigvalsh(H)[-1] == pytest.approx(problem.kernel(problem.start), rel=1e-12)


@pytest.mark.parametrize("factor", [0.5, 1.9, 2.1, 3.0, 3.9])
def test_gradient_descent_is_the_recursion(factor, device, rng):
    start = rng.standard_normal(60)
    problem = Bilinear(start)
    K, z = problem.kernel(start), start[:30] @ start[30:] / 30**0.5
    lr, events = factor / K, Events(1, "step")
    f, kernel = recursion(z, K, lr, 30, 40)
    for where in ("cpu", device):
        backend.use(where)
        run = minimize(Bilinear(start), SGD(), None, lr, stop=Stop(steps=40), events=events)
        np.testing.assert_allclose(run.columns["kernel"], kernel, rtol=1e-9)
        np.testing.assert_allclose(run.columns["f"], f, rtol=1e-6, atol=1e-20)
    assert kernel[-1] < 2 / lr and (max(f) > f[0]) == (factor > 2)


def test_from_four_on_it_flies_apart_where_it_is_wide_and_the_start_is_near():
    """z is small beside sqrt(m), so K rises by itself and z grows for good."""
    for factor, gone in ((3.9, False), (4.1, True)):
        f, _ = recursion(0.01, 2.0, factor / 2, 10_000, 400)
        assert (not f[-1] < 1e6) == gone
    run = minimize(Bilinear((1.5, 0.2)), SGD(), None, 0.1, stop=Stop(steps=1), events=Events(1, "step"))
    x, y = 1.5 - 0.1 * 0.3 * 0.2, 0.2 - 0.1 * 0.3 * 1.5
    assert (run.columns["x"][-1], run.columns["y"][-1]) == pytest.approx((x, y))
