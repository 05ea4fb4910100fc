"""Landscapes: gradients against central differences, minima where they are said to be."""

from npopt import SGD, HeavyBall, Stop, gradcheck, minimize
from problems import LANDSCAPES, Surface
from problems.landscapes import EVERY

import numpy as np
import pytest
import scipy.optimize


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_derivatives(name, rng):
    land = EVERY[name]
    low_x, high_x, low_y, high_y = land.window
    for _ in range(20):
        x, y, h = rng.uniform(low_x, high_x), rng.uniform(low_y, high_y), 1e-5
        a, b = land.gradient(x, y)
        size = abs(a) + abs(b) + 1
        assert abs((land.f(x + h, y) - land.f(x - h, y)) / (2 * h) - a) < 1e-6 * size + 1e-9 * abs(land.f(x, y)) / h
        assert abs((land.f(x, y + h) - land.f(x, y - h)) / (2 * h) - b) < 1e-6 * size + 1e-9 * abs(land.f(x, y)) / h
    grid = np.meshgrid(np.linspace(low_x, high_x, 5), np.linspace(low_y, high_y, 5))
    assert land.f(*grid).shape == (5, 5) and all(v.shape == (5, 5) for v in land.gradient(*grid))


@pytest.mark.parametrize("name", LANDSCAPES)
def test_minima_are_minima(name):
    land = LANDSCAPES[name]
    for x, y in land.minima:
        assert land.f(x, y) == pytest.approx(land.value, abs=1e-9)
        assert np.abs(land.gradient(x, y)).max() < 1e-6
        low_x, high_x, low_y, high_y = land.window
        assert low_x < x < high_x and low_y < y < high_y
        near = scipy.optimize.minimize(lambda v: land.f(*v), (x + 0.01, y - 0.01), method="Nelder-Mead")
        assert near.fun > land.value - 1e-9
    x, y = np.meshgrid(np.linspace(*land.window[:2], 400), np.linspace(*land.window[2:], 400))
    assert land.f(x, y).min() > land.value - 1e-9
    assert low_x < land.start[0] < high_x and low_y < land.start[1] < high_y


def test_a_surface_is_a_problem():
    problem = Surface("beale", (2.0, 1.0))
    assert gradcheck(problem, np.array([2.0, 1.0])).ok
    run = minimize(Surface("valley"), HeavyBall(0.8), schedule=0.1, stop=Stop(steps=200))
    assert run.final["gap"] < 1e-8 and run.final["distance"] < 1e-3
    assert problem.minimum()[1] == 0 and problem.metrics(np.array([3.0, 0.5]))["gap"] == 0
    with pytest.raises(ValueError, match="no landscape is called 'bowl'"):
        Surface("bowl")


@pytest.mark.parametrize("name", LANDSCAPES)
def test_a_shift_moves_a_surface_with_its_minima_and_its_start(name, rng):
    shift, g, h = np.array([0.7, -1.3]), np.empty(2), np.empty(2)
    plain, moved, land = Surface(name), Surface(name, shift=shift), LANDSCAPES[name]
    x = rng.standard_normal(2)
    assert moved.value_and_gradient(x + shift, out=g) == pytest.approx(plain.value_and_gradient(x, out=h), rel=1e-9)
    np.testing.assert_allclose(g, h, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(moved.x0(rng), land.start + shift, rtol=1e-12)
    for minimum in moved.minimum()[0]:
        seen = moved.metrics(minimum)
        assert seen["distance"] == 0 and seen["gap"] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(moved.minimum()[0], land.minima + shift, rtol=1e-12)
    assert Surface(name, (1.0, 2.0), shift=shift).x0(rng).tolist() == [1.0, 2.0]  # a start stands where it is


def test_down_an_open_saddle_there_is_no_minimum_and_sgd_leaves_its_ridge_as_a_power():
    run = minimize(Surface("open saddle"), SGD(), schedule=0.03, stop=Stop(steps=200))
    x, y = 0.5, 1e-4
    for _ in range(200):
        x, y = x - 0.03 * 2 * x, y + 0.03 * 2 * y
    assert run.final["x"] == pytest.approx(x, rel=1e-12) and run.final["y"] == pytest.approx(y, rel=1e-12)
    assert (
        run.final["gap"] == run.final["f"] == pytest.approx(x**2 - y**2, rel=1e-12) and run.final["distance"] == np.inf
    )
    assert Surface("open saddle").minimum()[0].shape == (0, 2)


def test_far_away_a_surface_is_infinite_and_a_run_there_diverges():
    g = np.empty(2)
    assert Surface("beale", (1e90, 1e90)).value_and_gradient(np.array([1e90, 1e90]), out=g) == np.inf
    assert not np.isfinite(g).all()
    run = minimize(Surface("beale"), SGD(), schedule=10.0, stop=Stop(steps=50))
    assert run.diverged
