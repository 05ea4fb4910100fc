"""Products with the Hessian against closed forms, and Lanczos against known spectra and its own certificate."""

from nn import GELU
from npopt import backend
from npopt.analysis.curvature import Hessian, Spectrum, lanczos, stable
from problems import Logistic
from problems.classifiers import perceptron

import numpy as np
import pytest


def rows():
    """50 rows of 6 numbers, and labels."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((50, 6)), np.where(rng.random(50) < 0.5, 1.0, -1.0)


def matrix(values, rng):
    """A symmetric matrix with these eigenvalues."""
    q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return (q * values) @ q.T


def test_lanczos_finds_the_whole_spectrum_of_a_small_matrix():
    values = np.array([-3.0, -1.0, 0.5, 2.0, 7.0])
    A = matrix(values, np.random.default_rng(0))
    found = lanczos(lambda v: A @ v, 5, steps=20, seed=1)
    assert isinstance(found, Spectrum)
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    np.testing.assert_allclose(found.weights.sum(), 1)
    assert (found.errors < 1e-10).all()


def test_errors_of_lanczos_are_bounds_and_extremes_come_first():
    values = np.concatenate([[-2.0], np.linspace(-0.1, 0.5, 298), [9.0]])
    A = matrix(values, np.random.default_rng(0))
    for steps in (3, 8, 25):
        found = lanczos(lambda v: A @ v, 300, steps=steps, seed=2)
        nearest = np.abs(found.values[:, None] - values).min(1)
        assert (nearest <= found.errors + 1e-12).all()
        assert values[0] - 1e-12 <= found.values[0] and found.values[-1] <= values[-1] + 1e-12
    assert abs(found.values[0] + 2) < 1e-10 and abs(found.values[-1] - 9) < 1e-10


def test_quadrature_of_lanczos_is_exact_for_polynomials():
    values = np.random.default_rng(3).standard_normal(40)
    A = matrix(values, np.random.default_rng(0))
    found, z = lanczos(lambda v: A @ v, 40, steps=6, seed=5), np.empty(40)
    backend.normals(backend.key(5, "lanczos"), z)
    z /= np.linalg.norm(z)
    for power in range(12):
        expected = z @ np.linalg.matrix_power(A, power) @ z
        assert abs(found.weights @ found.values**power - expected) < 1e-10 * max(1, abs(expected))


def test_many_steps_make_no_ghosts():
    values = np.array([1e4] + [float(k) for k in range(60)])
    A = matrix(values, np.random.default_rng(0))
    found = lanczos(lambda v: A @ v, 61, steps=61, seed=0)
    assert (found.values > 5000).sum() == 1
    np.testing.assert_allclose(found.values, np.sort(values), atol=1e-6)


def test_products_are_those_of_the_logistic_hessian():
    (X, y), (w, v), some = rows(), np.random.default_rng(1).standard_normal((2, 6)), np.arange(7, 40)
    problem = Logistic(X, y, 0.1)
    p = 1 / (1 + np.exp(-X[some] @ w))
    expected = X[some].T @ (p * (1 - p) * (X[some] @ v)) / len(some) + 0.1 * v
    np.testing.assert_allclose(Hessian(problem, w, some, 1e-6)(v), expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(Hessian(problem, w, some)(np.zeros(6)), np.zeros(6))


def relu_hessian(problem, x):
    """The Hessian of a one-layer ReLU network's mean loss with its pattern of active units held fixed: by differences
    of a smooth function, the loss with relu(z) replaced by mask z."""
    a, t = problem.inputs(), problem.targets().astype(int)
    d, (h, k) = a.shape[1], (problem.segments[0].shape[0], 10)

    def pieces(x):
        cuts = np.cumsum([h * d, h, k * h])
        w1, b1, w2, b2 = np.split(x, cuts)
        return w1.reshape(h, d), b1, w2.reshape(k, h), b2

    w1, b1, _, _ = pieces(x)
    mask = a @ w1.T + b1 > 0

    def gradient(x):
        w1, b1, w2, b2 = pieces(x)
        y = (a @ w1.T + b1) * mask
        z = y @ w2.T + b2
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(t)), t] -= 1
        p /= len(t)
        dy = p @ w2 * mask
        return np.concatenate([(dy.T @ a).ravel(), dy.sum(0), (p.T @ y).ravel(), p.sum(0)])

    return np.array([(gradient(x + 1e-5 * e) - gradient(x - 1e-5 * e)) / 2e-5 for e in np.eye(len(x))])


def test_extreme_eigenvalues_of_a_relu_network_are_those_of_its_active_units():
    problem = perceptron("digits", (3,), rows=80, dtype="float64")
    x = problem.x0(np.random.default_rng(1))
    assert [s.name for s in problem.segments] == ["fc1.W", "fc1.b", "fc2.W", "fc2.b"]
    H = relu_hessian(problem, x)
    found = stable(problem, x, steps=200)
    np.testing.assert_allclose(found.values[[0, -1]], np.linalg.eigvalsh((H + H.T) / 2)[[0, -1]], rtol=1e-4)


def test_a_kink_between_the_points_is_noticed():
    problem = perceptron("digits", (64, 32), rows=500, dtype="float64")
    x = problem.x0(np.random.default_rng(1))
    assert stable(problem, x, steps=15) is not None
    assert stable(problem, x, steps=15, radius=1e-5) is None


def test_products_of_a_network_are_symmetric_and_fit_differences_of_the_loss():
    problem = perceptron("digits", (7, 5), rows=60, dtype="float64", activation=GELU)
    rng = np.random.default_rng(1)
    x = problem.x0(rng)
    u, v = rng.standard_normal((2, x.size))
    H = Hessian(problem, x, radius=1e-6)
    assert abs(u @ H(v) - v @ H(u)) < 1e-6 * abs(u @ H(v))
    u /= np.linalg.norm(u)
    r = 1e-4
    second = (problem.value(x + r * u) - 2 * problem.value(x) + problem.value(x - r * u)) / r**2
    assert abs(u @ H(u) - second) < 1e-5 * max(1, abs(second))


def test_spectra_are_the_same_where_nothing_may_be_read(device):
    found = []
    for name in (device, "cpu"):
        backend.use(name)
        problem = Logistic(*rows(), 0.1)
        x = backend.asarray(np.linspace(-1, 1, 6))
        found.append(lanczos(Hessian(problem, x, radius=1e-6), 6, steps=6, seed=1))
    np.testing.assert_allclose(found[0].values, found[1].values, rtol=1e-7)


def test_float32_is_refused():
    problem = perceptron("digits", (4,), rows=20)
    with pytest.raises(ValueError, match="float64"):
        Hessian(problem, problem.x0(np.random.default_rng(0)))
