"""Second moments of zeroth-order SGD on quadratics, against averages of many runs."""

from npopt.analysis import moments

import numpy as np
import pytest

LAM = np.array([0.1, 0.5, 1.0, 2.0])
RUNS = 40_000


def directions(rng, kind, q):
    u = rng.standard_normal((RUNS, q, LAM.size))
    return u / np.linalg.norm(u, axis=2, keepdims=True) * LAM.size**0.5 if kind == "sphere" else u


@pytest.mark.parametrize("kind, q", [("normal", 1), ("normal", 3), ("sphere", 1), ("sphere", 3)])
def test_the_transition_is_the_average_of_runs(kind, q, rng):
    lr = 0.1
    T = moments.transition(LAM, lr, q, kind)
    e = np.tile(rng.standard_normal(LAM.size) * 2, (RUNS, 1))
    M = e[0] ** 2
    for _ in range(4):
        u = directions(rng, kind, q)
        e = e - lr * np.einsum("rqi,rqj,j,rj->ri", u, u, LAM, e) / q
        M = T @ M
    error = (e**2).std(0) / RUNS**0.5
    assert (np.abs((e**2).mean(0) - M) < 4.5 * error).all() and (error < 0.05 * M).all()


@pytest.mark.parametrize("kind", ["normal", "sphere"])
def test_the_noise_of_forward_differences_is_the_average_of_draws(kind, rng):
    lr, mu = 0.1, 0.3
    u = directions(rng, kind, 1)[:, 0]
    if kind == "sphere":  # a move along the unit vector, the factor d in front
        unit = u / LAM.size**0.5
        g = LAM.size * mu / 2 * ((unit**2 * LAM).sum(1, keepdims=True)) * unit
    else:
        g = mu / 2 * ((u**2 * LAM).sum(1, keepdims=True)) * u
    expected = moments.forward_noise(LAM, lr, mu, kind)
    squares = (lr * g) ** 2
    assert (np.abs(squares.mean(0) - expected) < 4.5 * squares.std(0) / RUNS**0.5).all()


def test_coordinates_are_gradient_descent_and_levels_are_fixed_points(rng):
    T = moments.transition(LAM, 0.3, kind="coordinates")
    np.testing.assert_allclose(T, np.diag((1 - 0.3 * LAM) ** 2), rtol=1e-12)
    start = rng.random(LAM.size)
    found = moments.gaps(LAM, start, T, 50)
    np.testing.assert_allclose(found[50], (LAM * (1 - 0.3 * LAM) ** 100 * start).sum() / 2, rtol=1e-10)
    one, two = moments.steps_to(LAM, start, T, (1e-2, 1e-6))
    long = moments.gaps(LAM, start, T, two)
    for steps, ratio in ((one, 1e-2), (two, 1e-6)):
        assert long[steps] <= ratio * long[0] < long[steps - 1]
    assert moments.steps_to(LAM, start, moments.transition(LAM, 1.1, kind="coordinates"), (1e-2,)) == [np.inf]
    noise = rng.random(LAM.size)
    M = np.zeros(LAM.size)
    for _ in range(3000):
        M = T @ M + noise
    assert moments.level(LAM, T, noise) == pytest.approx(LAM @ M / 2, rel=1e-9)
    with pytest.raises(ValueError, match="directions must be among"):
        moments.transition(LAM, 0.3, kind="cube")


def test_where_forward_differences_of_all_coordinates_stop(rng):
    B = rng.standard_normal((4, 4))
    H, mu, e = B @ B.T + np.eye(4), 0.1, np.ones(4)
    for _ in range(5000):
        e = e - 0.05 * (H @ e + mu / 2 * np.diag(H))
    assert moments.coordinate_floor(H, mu) == pytest.approx(e @ H @ e / 2, rel=1e-9)
