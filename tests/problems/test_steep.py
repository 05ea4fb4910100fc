"""Walls that rise exponentially: derivatives, constants, and where gradient descent comes down."""

from npopt import SGD, Clipped, Events, Stop, backend, gradcheck, minimize
from problems import Steep
from problems.steep import clipped_steps, descent_steps, iterations, longest_step, walk

import numpy as np
import pytest


def slow(u, L0, L1):
    """phi, phi', phi'' of one number."""
    if L1 * abs(u) <= 1:
        return L0 * u * u / 2 + L0 / (2 * L1 * L1), L0 * u, L0
    rise = np.exp(L1 * abs(u) - 1)
    return L0 / L1**2 * rise, np.sign(u) * L0 / L1 * rise, L0 * rise


@pytest.mark.parametrize("L0, L1", [(1.0, 1.0), (0.3, 2.0), (4.0, 0.5)])
def test_values_gradients_and_curvature_are_those_of_the_formula(L0, L1, device, rng):
    x = np.concatenate([3 * rng.standard_normal(6) / L1, [0.0, 1 / L1, -1 / L1]])
    problem, want = Steep(x, L0, L1), np.array([slow(u, L0, L1) for u in x])
    backend.use(device)
    at, g = backend.asarray(x), backend.zeros(x.shape, "float64")
    weights = backend.asarray(np.array([0.5, 2.0]))
    assert float(backend.to_host(problem.value_and_gradient(at, out=g))) == pytest.approx(want[:, 0].sum(), rel=1e-13)
    np.testing.assert_allclose(backend.to_host(g), want[:, 1], rtol=1e-13)
    assert float(backend.to_host(problem.value(at, weights=weights))) == pytest.approx(
        1.25 * want[:, 0].sum(), rel=1e-13
    )
    seen = problem.metrics(at)
    assert seen["gradient_norm"] == pytest.approx(np.linalg.norm(want[:, 1]), rel=1e-13)
    assert seen["curvature"] == pytest.approx(want[:, 2].max(), rel=1e-13)
    assert seen["gap"] == pytest.approx(want[:, 0].sum() - problem.minimum()[1], rel=1e-12)
    assert seen["curvature"] <= L0 + L1 * seen["gradient_norm"]  # (L0, L1)-smooth
    assert problem.metrics(backend.zeros(x.shape, "float64"))["gap"] == 0
    backend.use("cpu")
    assert gradcheck(problem, x + 0.01).ok  # not at a joint


def test_the_second_derivative_is_continuous_and_bounded_by_the_slope():
    for L0, L1 in ((1.0, 1.0), (0.3, 2.0)):
        for u in (1 / L1 - 1e-9, 1 / L1 + 1e-9):
            phi, slope, curved = slow(u, L0, L1)
            assert (phi, slope, curved) == pytest.approx((L0 / L1**2, L0 / L1, L0), rel=1e-8)
        u, h, problem = 2.0 / L1, 1e-5, Steep([0.0], L0, L1)
        g = [np.empty(1) for _ in "ab"]
        for sign, out in zip((1, -1), g, strict=True):
            problem.value_and_gradient(np.array([u + sign * h]), out=out)
        assert (g[0] - g[1])[0] / (2 * h) == pytest.approx(problem.metrics(np.array([u]))["curvature"], rel=1e-8)


@pytest.mark.parametrize("M", [5.0, 300.0])
def test_gradient_descent_comes_down_if_and_only_if_its_step_is_below_two_u_over_m(M):
    for L0, L1 in ((1.0, 1.0), (2.0, 0.5)):
        problem = Steep.on_wall(M, L0=L0, L1=L1)
        u = problem.start[0]
        assert problem.metrics(problem.x0(None))["gradient_norm"] == pytest.approx(M, rel=1e-12)
        below = minimize(
            problem,
            SGD(),
            schedule=0.99 * 2 * u / M,
            stop=Stop(steps=20_000, target=("gap", 1e-9)),
            events=Events(50, "step"),
        )
        assert below.final["gap"] < 1e-9
        assert minimize(problem, SGD(), schedule=1.01 * 2 * u / M, stop=Stop(steps=5000)).diverged


def test_clipped_steps_go_down_a_wall_by_the_length_of_a_step():
    run = minimize(Steep.on_wall(1e6), SGD(), schedule=0.1, estimator=Clipped(1.0), stop=Stop(steps=100))
    assert run.x[0] == pytest.approx(1 + np.log(1e6) - 100 * 0.1, rel=1e-12)


def by_hand(M, lr, eps, most, bound=np.inf):
    """Iterations of descent, clipped at `bound`, from (1 + log M, 1), number by number; None: more than `most`."""
    x = [1 + np.log(M), 1.0]
    for t in range(most + 1):
        g = [slow(u, 1.0, 1.0)[1] for u in x]
        size = np.hypot(*g)
        if size <= eps or not np.isfinite(size):
            return t if size <= eps else None
        x = [u - lr * v * min(1, bound / size) for u, v in zip(x, g, strict=True)]


def test_iterations_are_those_of_a_loop_and_near_what_theory_says():
    M, eps = 40.0, 1e-3
    edge = longest_step(M)
    rates = [2 * edge, 0.97 * edge, 0.6 * edge, 0.4 * edge, 0.3 * edge]
    found = iterations(SGD(), None, M, rates, eps, seed=0, events=None, most=2000)
    with np.errstate(over="ignore"):
        wanted = [by_hand(M, lr, eps, 2000) for lr in rates]
    assert wanted[0] is None and np.isnan(found["iterations"][0]) and found["iterations"][1:3] == wanted[1:3]
    assert (
        wanted[3] > 2 * min(wanted[1:3]) and np.isnan(found["iterations"][3]) and found["lr"] == rates[:4]
    )  # ends there
    assert 1 <= wanted[1] / descent_steps(M, eps) < 1.25
    clipped = iterations(SGD(), Clipped(1.0), M, (0.1,), eps, seed=0, events=None)["iterations"]
    assert clipped == [by_hand(M, 0.1, eps, 2000, 1.0)] and abs(clipped[0] / clipped_steps(M, eps) - 1) < 0.05


def test_a_walk_has_the_norms_of_the_loop_and_the_smoothness_of_its_steps():
    found = walk(Clipped(1.0), 50.0, 0.1, 30, seed=0, events=None)
    x, norms = np.array([1 + np.log(50.0), 1.0]), []
    for _ in range(30):
        g = np.array([slow(u, 1.0, 1.0)[1] for u in x])
        norms.append(np.linalg.norm(g))
        x = x - 0.1 * g / max(1, norms[-1])
    np.testing.assert_allclose(found["norm"], norms, rtol=1e-12)
    assert len(found["smoothness"]) == 30 and (np.array(found["smoothness"]) <= 1 + np.array(norms)).all()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="M"):
        Steep.on_wall(0.5)
    with pytest.raises(ValueError, match="start must be a vector"):
        Steep(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="no inputs="):
        Steep([1.0]).value_and_gradient(np.ones(1), inputs=np.ones(1))
