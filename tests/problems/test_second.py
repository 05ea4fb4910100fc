"""problem.curvature: exact products, against central differences of gradients and matrices written out."""

from types import SimpleNamespace

import nn
from npopt import backend
from npopt.analysis import hessian
from problems import Logistic, Neural, Quadratic
from problems.curved import Linearised
from problems.feeds import Images, Table

import numpy as np
import pytest
import test_linear

THREADS = 1  # layers of a few numbers: tests/conftest.py


def columns(product, dim):
    """The matrix behind a product."""
    return np.stack([backend.to_host(product(backend.asarray(e))) for e in np.eye(dim)], axis=1)


def by_differences(problem, x, rows, weights, h=1e-5):
    """The same by central differences of gradients."""
    found, g = [], np.empty_like(x)
    for e in np.eye(len(x)):
        pair = []
        for sign in (1, -1):
            problem.value_and_gradient(x + sign * h * e, rows, weights, g)
            pair.append(g.copy())
        found.append((pair[0] - pair[1]) / (2 * h))
    return np.stack(found, axis=1)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("loss", test_linear.LOSSES)
def test_linear_models(loss, sparse, device, rng):
    def made():
        options = dict(l2=0.3, intercept=True) if loss in ("squares", "binary", "classes") else dict(l2=0.3)
        return test_linear.make(loss, np.random.default_rng(2), sparse=sparse, **options)

    problem = made()
    x, w, there = rng.standard_normal(problem.dim), rng.random(5), backend.asarray
    rows, found = np.array([7, 1, 7, 30, 12]), []
    for chosen, weights in ((rows, w), (None, None)):
        on = [None if a is None else there(a) for a in (chosen, weights)]
        found.append(columns(problem.curvature(there(x), *on), problem.dim))
    backend.use("cpu")
    problem = made()
    close(found[0], by_differences(problem, x, rows, w))
    close(found[1], by_differences(problem, x, None, None))


def test_products_of_the_logistic_model_are_the_closed_form(rng):
    X, y = rng.standard_normal((50, 6)), np.where(rng.random(50) < 0.5, 1.0, -1.0)
    problem, x, v = Logistic(X, y, 0.1), rng.standard_normal(6), rng.standard_normal(6)
    p = 1 / (1 + np.exp(-X @ x))
    np.testing.assert_allclose(problem.curvature(x)(v), X.T @ (p * (1 - p) * (X @ v)) / 50 + 0.1 * v, rtol=1e-12)


def test_quadratics_and_blocks_of_them(device, rng):
    A = rng.standard_normal((4, 4))
    A = A + A.T
    problem, w = Quadratic(A, n=3), np.array([0.5, 2.0])
    product = problem.curvature(backend.zeros((4,), "float64"), np.array([0, 2]), backend.asarray(w))
    np.testing.assert_allclose(columns(product, 4), 1.25 * A, rtol=1e-13)


def small(network, shape, loss=None, rows=9, outputs=4, dtype="float64", **options):
    """A problem on noise."""
    rng = np.random.default_rng(0)
    images, t = rng.standard_normal((rows, *shape)), rng.integers(0, outputs, rows)
    if isinstance(loss, nn.SquaredError):
        t = rng.standard_normal((rows, outputs))
    none = dict(x_test=None, y_test=None, mean=None, std=None, scale=1.0, classes=tuple(range(outputs)), sha256="")
    data = SimpleNamespace(name="noise", x_train=images, y_train=t, **none)
    feed = Images(data) if len(shape) == 3 else Table(data)
    return Neural(network(), feed, loss, dtype=dtype, **options)


def skipping():
    """A residual network with batch norm, pools and a kink or two."""
    body = [nn.basic_block(2, 3, 2), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(3, 4)]
    return nn.Network(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), *body), (4, 4, 1))


NETWORKS = {
    "tanh": (lambda: nn.mlp((3, 5, 4), activation=nn.Tanh), (3,), None),
    "relu": (lambda: nn.mlp((3, 6, 5, 4)), (3,), nn.SoftmaxCrossEntropy(0.1)),
    "gelu and squares": (lambda: nn.mlp((3, 5, 4), activation=nn.GELU), (3,), nn.SquaredError()),
    "batch norm": (lambda: nn.mlp((3, 5, 4), norm="batch"), (3,), None),
    "residual": (skipping, (4, 4, 1), None),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_column_by_column(name, rng):
    problem = small(*NETWORKS[name], l2=0.02)
    x, w, rows = problem.x0(rng), rng.random(6), np.array([3, 8, 0, 1, 5, 3])
    x += 0.2 * rng.standard_normal(x.size)
    problem.begin(3)
    before = problem.state()
    product = problem.curvature(x, rows, w)
    found = columns(product, problem.dim)
    close(found, by_differences(problem, x, rows, w, 1e-6 if "relu" in name else 1e-5))
    np.testing.assert_allclose(found, found.T, rtol=0, atol=1e-12 * np.abs(found).max())
    assert isinstance(product, Linearised)
    assert product.loss == pytest.approx(problem.value(x, rows, w), rel=1e-13)
    problem.network.begin()
    columns(problem.curvature(x, rows, w), problem.dim)
    assert problem.network.pending is None
    np.testing.assert_equal(problem.state(), before)


def test_gauss_newton_is_the_jacobian_around_the_losses_curvature(rng):
    problem = small(*NETWORKS["tanh"], l2=0.1)
    x, rows, w = problem.x0(rng), np.arange(5), rng.random(5)
    linearised = problem.curvature(x, rows, w)
    J = np.stack([linearised.tangent(e) for e in np.eye(problem.dim)], axis=-1)  # (5, 4, dim)
    up, down = (problem.outputs(x + s * 1e-5 * np.ones(problem.dim), "train", rows) for s in (1, -1))
    close(J.sum(-1), (up - down) / 2e-5)
    z = problem.outputs(x, "train", rows)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    expected = 0.1 * w.mean() * np.eye(problem.dim)
    for b in range(5):
        expected += w[b] / 5 * J[b].T @ (np.diag(p[b]) - np.outer(p[b], p[b])) @ J[b]
    np.testing.assert_allclose(columns(linearised.gauss_newton, problem.dim), expected, rtol=0, atol=1e-13)
    u = rng.standard_normal((5, 4))
    np.testing.assert_allclose(linearised.adjoint(u.copy()), np.einsum("bk,bkd->d", u, J), rtol=0, atol=1e-13)


def test_a_linear_networks_gauss_newton_matrix_is_its_hessian(rng):
    problem = small(lambda: nn.mlp((3, 4)), (3,))
    product = problem.curvature(problem.x0(rng))
    found = columns(product, problem.dim)
    np.testing.assert_allclose(columns(product.gauss_newton, problem.dim), found, rtol=0, atol=1e-14)


def test_blocks_of_the_whole(rng):
    problem = small(*NETWORKS["tanh"])
    x = problem.x0(rng)
    block = problem.restrict(x, ["fc2.W"])
    whole, at = columns(problem.curvature(x), problem.dim), problem.segments.find("fc2.W").slice
    y = block.x0(rng)
    np.testing.assert_allclose(columns(block.curvature(y), block.dim), whole[at, at], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_where_nothing_may_be_read(name, device, rng):
    found, v = [], None
    for where in ("cpu", device):
        backend.use(where)
        problem = small(*NETWORKS[name], l2=0.02)
        x = problem.x0(np.random.default_rng(1))
        v = rng.standard_normal(problem.dim) if v is None else v
        product = problem.curvature(x, backend.asarray(np.arange(6)))
        found.append([backend.to_host(f(backend.asarray(v))).copy() for f in (product, product.gauss_newton)])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_none_where_second_derivatives_are_not_known(rng):
    problem = small(lambda: nn.mlp((3, 5, 4), norm="layer"), (3,))
    assert problem.curvature(problem.x0(rng)) is None
    assert problem.restrict(problem.x0(rng), ["fc1.W"]).curvature(np.zeros(15)) is None


def test_float32_products_are_near(rng):
    problem = small(*NETWORKS["residual"])
    x, v = problem.x0(rng), rng.standard_normal(problem.dim)
    near = small(*NETWORKS["residual"], dtype="float32")
    found = near.curvature(x.astype("float32"))(v.astype("float32"))
    assert found.dtype == np.float32
    expected = problem.curvature(x)(v)
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


class Own(nn.Tanh):
    """Another function with the second derivative of Tanh."""

    def apply(self, x, y):
        y[...] = x / (1 + np.exp(-x))
        return (x.copy(),)

    def derive(self, dy, x):
        s = 1 / (1 + np.exp(-x))
        dy *= s + x * s * (1 - s)


class Half(nn.Linear):
    """A layer that brings its passes and inherits the tangent of another."""

    def forward(self, x, run):
        y, saved = super().forward(x, run)
        return 0.5 * y, saved

    def backward(self, dy, saved, run):
        return super().backward(0.5 * dy, saved, run)


class NoSecond(nn.SquaredError):
    """A loss whose second derivative is that of another."""

    def gradient(self, z, t):
        return z - t.reshape(z.shape)


@pytest.mark.parametrize(
    "layer, loss", [(Own(), None), (nn.Tanh(), NoSecond()), (Half(4, 4), None)], ids=["activation", "loss", "layer"]
)
def test_a_second_derivative_that_is_another_functions_is_not_taken(layer, loss, rng):
    rows = SimpleNamespace(name="rows", x_train=rng.standard_normal((9, 3)), x_test=None, y_test=None)
    rows.y_train = rng.integers(0, 2, 9) if loss is None else rng.standard_normal((9, 2))
    network = nn.Network(nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2)), (3,))
    problem = Neural(network, Table(rows), loss, dtype="float64")
    x, v = problem.x0(rng), rng.standard_normal(network.dim)
    assert problem.curvature(x) is None
    np.testing.assert_allclose(
        hessian(problem, x)(v), hessian(problem, x, how="differences", radius=1e-6)(v), rtol=0, atol=1e-4
    )
