"""Functions with a sharp and a flat minimum: values and gradients by differences, minima, Hessians, ridges."""

from npopt import SGD, Stop, WithReplacement, backend, gradcheck, minimize
from problems.wells import RIDGE, SHARP, Bowls, Wells, two_basins, uneven

import numpy as np
import pytest


def slow(problem, x, rows):
    """The definition, row by row."""
    total = 0.0
    for i in rows:
        away = [x - c for c in problem.centres[i]]
        total += min(0.5 * a @ A @ a for a, A in zip(away, problem.exact_hessians[i], strict=True))
    return total / len(rows)


@pytest.mark.parametrize("problem", [two_basins(), two_basins(1), uneven(1), uneven(2)], ids=repr)
def test_bowls_are_the_lowest_of_their_bowls_and_gradients_their_derivatives(problem, rng):
    for _ in range(10):
        x, rows = rng.uniform(-2, 2, problem.dim), rng.integers(0, problem.n, 5)
        g, weights = np.empty(problem.dim), rng.uniform(0.5, 2, 5)
        assert problem.value_and_gradient(x, rows, None, g) == pytest.approx(slow(problem, x, rows), rel=1e-12)
        assert gradcheck(problem, x).ok
        problem.value_and_gradient(x, rows, weights, g)
        step, h = rng.standard_normal(problem.dim), 1e-7
        up, down = (problem.value(x + s * h * step, rows, weights) for s in (1, -1))
        assert (up - down) / (2 * h) == pytest.approx(g @ step, rel=1e-5, abs=1e-6)
        if problem.dim == 2:
            x, y = rng.uniform(-2, 2, (2, 3, 4))
            expected = [
                [slow(problem, np.array(p), range(problem.n)) for p in zip(*r, strict=True)]
                for r in zip(x, y, strict=True)
            ]
            np.testing.assert_allclose(problem.f(x, y), expected, rtol=1e-12)


def test_the_basins_of_zhu_et_al():
    problem, rng = two_basins(), np.random.default_rng(0)
    H = np.array(SHARP)
    np.testing.assert_allclose(np.linalg.eigvalsh(H), [20, 200])
    np.testing.assert_allclose(problem.row_hessians(np.ones(2)), np.broadcast_to(H, (100, 2, 2)))
    np.testing.assert_allclose(problem.row_hessians(-np.ones(2)), np.broadcast_to(2 * np.eye(2), (100, 2, 2)))
    w = rng.uniform(-2, 2, (20, 2))
    for i, (a, b) in enumerate(w):  # the formula of the paper's code, for its first rows
        cloud = problem.centres[i, 0] - 1
        p, q, s, t = a - cloud[0] - 1, b - cloud[1] - 1, a - cloud[0] + 1, b - cloud[1] + 1
        c = 0.5**0.5
        expected = min(10 * (c * p - c * q) ** 2 + 100 * (c * p + c * q) ** 2, s**2 + t**2)
        assert problem.value(np.array([a, b]), np.array([i])) == pytest.approx(expected, rel=1e-12)
    cloud = problem.centres[:, 0] - 1
    across, along = (cloud @ np.array(v) / 2**0.5 for v in ((1, -1), (1, 1)))
    assert across.std() == pytest.approx(10**0.5 / 100, rel=0.25) and along.std() == pytest.approx(0.01, rel=0.25)
    one, diagonal = two_basins(1), np.ones(2) / 2**0.5
    inside, outside = (one.row_hessians(np.ones(2) - d * diagonal)[0] for d in (RIDGE - 1e-9, RIDGE + 1e-9))
    np.testing.assert_allclose(inside, H)
    np.testing.assert_allclose(outside, 2 * np.eye(2))


@pytest.mark.parametrize("d", [1, 2])
def test_the_uneven_rows_of_wu_ma_and_e(d, rng):
    problem = uneven(d)
    for x in rng.uniform(-1, 2, (10, d)):
        for row, a in enumerate((0.1, 1.9)):
            assert problem.value(x, np.array([row])) == pytest.approx(min(x @ x, a * ((x - 1) @ (x - 1))), rel=1e-12)
    for point, curvatures in ((np.zeros(d), (2, 2)), (np.ones(d), (0.2, 3.8))):
        assert problem.value(point) == 0
        for H, a in zip(problem.row_hessians(point + 1e-9), curvatures, strict=True):
            np.testing.assert_allclose(H, a * np.eye(d))
        np.testing.assert_allclose(problem.row_gradients(point), 0, atol=1e-12)
    assert problem.metrics(np.zeros(d))["nearest"] == 1 and problem.metrics(np.zeros(d))["distance"] == 0


def test_wells_have_the_minima_and_curvatures_that_are_said():
    problem = Wells()
    assert gradcheck(problem, np.array([-0.9, 0.2])).ok and gradcheck(problem, np.array([0.5, -0.7])).ok
    minima, values = problem.minimum()
    np.testing.assert_allclose(minima, [[-1, 0], [1.162, 0]], atol=0.005)
    np.testing.assert_allclose(values, [-1.031, -0.972], atol=0.001)
    curvatures = [np.linalg.eigvalsh(problem.hessian(*w))[-1] for w in minima]
    np.testing.assert_allclose(curvatures, [44, 1.27], rtol=0.02)
    for w in minima:
        np.testing.assert_allclose(problem.gradient(*w), 0, atol=1e-12)
        h, H = 1e-5, problem.hessian(*w)
        for j, e in enumerate(np.eye(2) * h):
            slope = (np.array(problem.gradient(*(w + e))) - problem.gradient(*(w - e))) / (2 * h)
            np.testing.assert_allclose(slope, H[:, j], rtol=1e-6, atol=1e-7)
    ridge = problem.critical(-0.55)
    assert -1 < ridge[0] < minima[1][0] and np.linalg.eigvalsh(problem.hessian(*ridge))[0] < 0


@pytest.mark.parametrize("build", [two_basins, uneven, Wells])
def test_runs_where_nothing_may_be_read(build, device):
    found = []
    for name in (device, "cpu"):
        backend.use(name)
        found.append(minimize(build(), SGD(), WithReplacement(1), 0.003, stop=Stop(steps=20), seed=3))
    np.testing.assert_allclose(backend.to_host(found[0].x), found[1].x, rtol=1e-10)
    assert found[0].final["f"] == pytest.approx(found[1].final["f"], rel=1e-9, abs=1e-15)


def test_bad_shapes():
    with pytest.raises(ValueError, match="centres must have shape"):
        Bowls(np.zeros((2, 2)), np.zeros((2, 2, 2)), (0, 0), ((0, 0),))
    with pytest.raises(ValueError, match="hessians must have shape"):
        Bowls(np.zeros((3, 2, 2)), np.zeros((2, 3, 3)), (0, 0), ((0, 0),))
    with pytest.raises(ValueError, match="2 widths need"):
        Wells(centres=((0, 0),))
    with pytest.raises(ValueError, match="one or two numbers a well"):
        Wells(widths=np.ones((2, 3)))


def test_wells_may_have_two_widths(rng):
    """-3 exp(-(x - 1)^2 / 2 - (y + 1)^2 / 8): its Hessian at the middle is diag(3, 3/4), and differences agree."""
    problem = Wells(((1.0, -1.0),), ((1.0, 2.0),), (3.0,), bowl=0.0, start=(0, 0))
    assert problem.f(2.0, 1.0) == pytest.approx(-3 * np.exp(-1), rel=1e-12)
    np.testing.assert_allclose(problem.hessian(1.0, -1.0), np.diag([3, 0.75]), rtol=1e-12)
    np.testing.assert_allclose(problem.minimum()[0], [[1, -1]], atol=1e-12)
    for x in rng.uniform(-1, 1, (4, 2)):
        assert gradcheck(problem, x).ok
        columns = [np.subtract(problem.gradient(*(x + h)), problem.gradient(*(x - h))) / 2e-5 for h in np.eye(2) * 1e-5]
        np.testing.assert_allclose(problem.hessian(*x), columns, atol=1e-8)
