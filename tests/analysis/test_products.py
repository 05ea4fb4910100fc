"""Products with Hessians of any problem: exact where they are known, else by differences, over batches, and how batches
disagree."""

import nn
from npopt import backend
from npopt.analysis import Hessian, Nonuniformity, eigenpairs, gauss_newton, hessian
from problems import LeastSquares, Logistic, Quadratic
from problems.batched import Batched

import numpy as np
import pytest
from nets import dense, small


def test_exact_where_it_is_known_and_else_by_differences(rng):
    problem = small(activation=nn.Tanh)
    x, v = problem.x0(rng), rng.standard_normal(problem.dim)
    expected = hessian(problem, x, how="exact")(v)
    np.testing.assert_array_equal(hessian(problem, x)(v), expected)
    near = hessian(problem, x, how="differences", radius=1e-6)
    assert isinstance(near, Hessian)
    assert np.linalg.norm(near(v) - expected) < 1e-7 * np.linalg.norm(expected)
    assert isinstance(hessian(Batched(problem, 4), x), Hessian)
    with pytest.raises(ValueError, match="no exact second derivatives"):
        hessian(Batched(problem, 4), x, how="exact")
    with pytest.raises(ValueError, match="how must be"):
        hessian(problem, x, how="R")
    with pytest.raises(ValueError, match="no tangents"):
        gauss_newton(Quadratic(np.ones(3)), np.ones(3))


def test_the_uncertainty_of_differences_bounds_their_error(rng):
    problem = small(activation=nn.Tanh)
    x, v = problem.x0(rng), rng.standard_normal(problem.dim)
    expected = hessian(problem, x)(v)
    for radius in (1e-2, 1e-3):  # r^2 rules: three times the error
        H = Hessian(problem, x, radius=radius)
        assert H.uncertainty(v) == pytest.approx(3 * np.linalg.norm(H(v) - expected), rel=0.05)
    A = np.array([2.0, -1.0, 0.5])
    assert Hessian(Quadratic(A), np.ones(3), radius=1e-3).uncertainty(np.ones(3)) < 1e-11


@pytest.mark.parametrize("how", ["exact", "differences"])
def test_batches_of_unequal_sizes_add_up(how, rng):
    problem = small(activation=nn.Tanh)
    x, v, rows = problem.x0(rng), rng.standard_normal(problem.dim), rng.permutation(12)[:10]
    whole = hessian(problem, x, rows)(v)
    parts = hessian(problem, x, rows, how, 1e-6, batch=4)(v)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-7 * np.abs(whole).max())


def test_gauss_newton_is_the_mean_of_squares_of_gradients_over_drawn_labels(rng):
    """For the cross-entropy J'L''J is the Fisher matrix: sum over rows and labels of p(label) g g'."""
    problem = small(activation=nn.Tanh)
    x, expected, g = problem.x0(rng), 0.0, np.empty(problem.dim)
    z = problem.outputs(x, "train", np.arange(12))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    labels = problem.feed.parts["train"][1]
    before = labels.copy()
    for row in range(12):
        for label in range(4):
            labels[row] = label
            problem.value_and_gradient(x, np.array([row]), None, g)
            expected = expected + p[row, label] / 12 * np.outer(g, g)
    labels[...] = before
    np.testing.assert_allclose(dense(gauss_newton(problem, x), problem.dim), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [1, 4])
def test_non_uniformity_is_the_matrix_of_its_definition(size, rng):
    X, y = rng.standard_normal((11, 5)), np.where(np.arange(11) % 3, 1.0, -1.0)
    problem, x = Logistic(X, y, 0.1), rng.standard_normal(5)
    p = 1 / (1 + np.exp(-X @ x))
    each = p[:, None, None] * (1 - p)[:, None, None] * X[:, :, None] * X[:, None, :] + 0.1 * np.eye(5)
    parts = [each[i : i + size].mean(0) for i in range(0, 11, size)]
    shares = [len(each[i : i + size]) / 11 for i in range(0, 11, size)]
    expected = sum(s * H @ H for s, H in zip(shares, parts, strict=True)) - each.mean(0) @ each.mean(0)
    found = Nonuniformity(problem, x, size=size)
    np.testing.assert_allclose(dense(found, 5), expected, rtol=0, atol=1e-13)
    assert eigenpairs(found, 5, steps=5).value == pytest.approx(np.linalg.eigvalsh(expected)[-1], rel=1e-10)


def test_the_toy_of_wu_ma_and_e_has_non_uniformity_1_8():
    """Two samples with second derivatives 0.2 and 3.8: mean 2, s = 1.8."""
    rows = np.sqrt(np.array([[0.2], [3.8]]))
    problem = LeastSquares(rows, np.zeros(2))
    found = Nonuniformity(problem, np.zeros(1))(np.ones(1))
    assert found[0] ** 0.5 == pytest.approx(1.8, rel=1e-12)


def test_products_where_nothing_may_be_read(device, rng):
    X, y, found = rng.standard_normal((11, 5)), np.where(np.arange(11) % 3, 1.0, -1.0), []
    for where in ("cpu", device):
        backend.use(where)
        problem, x, v = Logistic(X, y, 0.1), *(backend.asarray(np.linspace(-1, 1, 5) ** k) for k in (1, 2))
        products = [hessian(problem, x, batch=4), Nonuniformity(problem, x), hessian(problem, x, how="differences")]
        found.append([backend.to_host(f(v)) for f in products[:2]] + [backend.to_host(products[2](v))])
    for ours, theirs, tolerance in zip(*found, (1e-12, 1e-12, 1e-4), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=1e-12)
