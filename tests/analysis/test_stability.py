"""Linear stability of minima under SGD: against full Hessians, enumerated batches and numbers of Wu, Ma & E."""

import itertools

from nn import Linear, Network, Sequential, Tanh
from npopt.analysis.products import Nonuniformity
from npopt.analysis.stability import box, growth, non_uniformity, share
from problems import LeastSquares, Neural, datasets
from problems.feeds import Images
from problems.wells import uneven

import numpy as np
import pytest


def test_numbers_of_the_paper():
    """Dashed lines of its diagram for n = 1000, and the two rows of its example."""
    for lr, lines in ((0.5, (10.12, 6.35, 4.01)), (0.1, (50.6, 31.8, 20.0))):
        found = [box(lr, batch, 1000) for batch in (25, 10, 4)]
        assert all(a == 2 / lr for a, _ in found)
        np.testing.assert_allclose([s for _, s in found], lines, rtol=2e-3)
    assert box(0.1, 1000, 1000) == (20.0, np.inf)
    rows = uneven().row_hessians(np.ones(2) + 1e-9)
    assert growth(rows, 4 / 7.24, 1) == pytest.approx(1, rel=1e-12)
    assert growth(rows, 0.99, 2) < 1 < growth(rows, 1.01, 2)
    assert non_uniformity(uneven(), np.ones(2) + 1e-6)[0] == pytest.approx(1.8, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_growth_is_that_of_enumerated_batches(batch, rng):
    """E|(I - lr H_B) w|^2 over all batches without replacement, in the worst direction."""
    A = rng.standard_normal((4, 3, 3))
    rows, lr = A @ A.transpose(0, 2, 1), 0.2
    second = [np.eye(3) - lr * rows[list(b)].mean(0) for b in itertools.combinations(range(4), batch)]
    expected = np.linalg.eigvalsh(np.mean([m @ m for m in second], 0))[-1]
    assert growth(rows, lr, batch) == pytest.approx(expected, rel=1e-12)
    means = np.array([np.mean(b) for b in itertools.combinations((1.0, 5.0, 2.0, 9.0), batch)])
    assert means.var() == pytest.approx(share(batch, 4) * np.var((1, 5, 2, 9)), rel=1e-12)


def spread_of(hessians):
    H = hessians.mean(0)
    return np.mean([h @ h for h in hessians], 0) - H @ H


def test_linear_models(rng):
    A = rng.standard_normal((12, 5))
    sigma = spread_of(np.array([np.outer(a, a) + 0.3 * np.eye(5) for a in A]))
    problem, x = LeastSquares(A, rng.standard_normal(12), l2=0.3), rng.standard_normal(5)
    v = rng.standard_normal(5)
    np.testing.assert_allclose(
        Nonuniformity(problem, x, how="differences", radius=1e-5)(v), sigma @ v, rtol=1e-6, atol=1e-7
    )
    s, error = non_uniformity(problem, x, steps=5, radius=1e-5)
    assert s == pytest.approx(np.linalg.eigvalsh(sigma)[-1] ** 0.5, rel=1e-6) and error < 1e-3
    some = [3, 7, 1]
    part = spread_of(np.array([np.outer(a, a) for a in A[some]]))
    assert non_uniformity(problem, x, some, 5, radius=1e-5)[0] == pytest.approx(np.linalg.eigvalsh(part)[-1] ** 0.5)


def test_a_network_against_its_full_hessians(rng):
    network = Network(Sequential(a=Linear(64, 2), t=Tanh(), b=Linear(2, 10)), (64,))
    problem = Neural(network, Images(datasets.load("digits").part(6)), dtype="float64")
    x = problem.x0(rng) + 0.3 * rng.standard_normal(network.dim)
    hessians, h, g = np.empty((6, network.dim, network.dim)), 1e-5, np.empty(network.dim)
    for i, j in itertools.product(range(6), range(network.dim)):
        e = np.zeros(network.dim)
        e[j] = h
        problem.value_and_gradient(x + e, np.array([i]), out=g)
        hessians[i, j] = g
        problem.value_and_gradient(x - e, np.array([i]), out=g)
        hessians[i, j] = (hessians[i, j] - g) / (2 * h)
    s, _ = non_uniformity(problem, x, steps=20, radius=1e-6)
    assert s == pytest.approx(np.linalg.eigvalsh(spread_of(hessians))[-1] ** 0.5, rel=1e-5)
