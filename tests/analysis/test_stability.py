"""Linear stability of minima under SGD: against full Hessians, enumerated batches and numbers of Wu, Ma & E."""

import itertools

from nn import Linear, Network, Sequential, Tanh
from npopt import SGD, Adam, AdamW, HeavyBall, Lion, Nesterov
from npopt.analysis import Top, scaled
from npopt.analysis.products import Nonuniformity
from npopt.analysis.stability import box, edge, growth, non_uniformity, preconditioner, share
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


METHODS = {
    "gradient descent": (SGD(), 2),
    "heavy ball": (HeavyBall(0.7), 3.4),
    "Nesterov": (Nesterov(0.7), 3.4 / 2.4),
    "Adam": (Adam(b1=0.7, b2=1 - 1e-15, eps=1e-2), 3.4 / 0.3),
    "AdamW": (AdamW(b1=0.7, b2=1 - 1e-15, eps=1e-2, weight_decay=0.0), 3.4 / 0.3),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("part", [0.99, 1.01])
def test_quadratics_blow_up_beyond_the_edge_and_not_below(name, part, rng):
    """The library's own steps, with Adam's v far from all ones and as good as fixed."""
    method, share = METHODS[name]
    A, lr = rng.standard_normal((6, 6)), 0.3
    H, x = A @ A.T + 0.1 * np.eye(6), rng.standard_normal(6)
    assert edge(method, lr) == pytest.approx(share / lr)
    method.start(x)
    root = np.ones(6)
    if hasattr(method, "b2"):
        v = rng.uniform(0.1, 5, 6)
        method.load_state(method.state() | {"t": 10**18, "v": v})
        root = 1 / np.sqrt(np.sqrt(v) + 1e-2)
    H *= part * share / lr / np.linalg.eigvalsh(root[:, None] * H * root)[-1]
    first = np.linalg.norm(x)
    for _ in range(2000):
        method.step(x, H @ x, lr)
        if np.linalg.norm(x) > 1e2 * first:  # before v changes
            break
    if hasattr(method, "b2"):
        np.testing.assert_allclose(preconditioner(method) ** -0.5, root, rtol=1e-6)
        product = scaled(lambda u: H @ u, preconditioner(method) ** -0.5)
        assert Top(6)(product)[0] == pytest.approx(part * edge(method, lr), rel=1e-3)
    assert (np.linalg.norm(x) > 1e2 * first) == (part > 1)


def test_the_preconditioner_is_what_divides_adams_average(rng):
    x, lr, b1, b2, eps = rng.standard_normal(5), 0.1, 0.8, 0.95, 0.03
    method, m, v = Adam(b1, b2, eps), np.zeros(5), np.zeros(5)
    method.start(x)
    for _ in range(4):
        g, before = rng.standard_normal(5), x.copy()
        method.step(x, g, lr)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        np.testing.assert_allclose(before - lr * m / preconditioner(method), x, rtol=1e-12)
    with pytest.raises(ValueError, match="edge: known for SGD, .* not for Lion"):
        edge(Lion(), 0.1)
