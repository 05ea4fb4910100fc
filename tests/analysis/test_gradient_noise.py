"""The noise of mini-batch gradients against covariances written out."""

from npopt import backend
from npopt.analysis import GradientNoise, gradient_noise
from problems import Logistic, Quadratic

import numpy as np
import pytest


def logistic():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 4)), np.where(rng.random(30) < 0.5, 1.0, -1.0)
    return Logistic(X, y, 0.1), rng.standard_normal(4), rng.standard_normal((3, 4))


def row_gradients(problem, x):
    g, found = np.empty_like(x), []
    for i in range(problem.n):
        problem.value_and_gradient(x, np.array([i]), None, g)
        found.append(g.copy())
    return np.array(found)


def test_with_single_rows_it_is_their_covariance(rng):
    problem, x, u = logistic()
    rows, A = row_gradients(problem, x), np.diag([1.0, 2.0, -1.0, 0.5]) + 0.1
    S = np.cov(rows, rowvar=False)
    found = gradient_noise(problem, x, u, 1, seed=4, product=lambda v: A @ v)
    assert isinstance(found, GradientNoise) and (found.batches, found.size) == (30, 1)
    np.testing.assert_allclose(found.covariance, u @ S @ u.T, rtol=1e-12)
    np.testing.assert_allclose(found.mean, u @ rows.mean(0), rtol=1e-12)
    assert found.trace == pytest.approx(np.trace(S), rel=1e-12)
    assert found.curved == pytest.approx(np.trace(A @ S), rel=1e-12)
    assert found.norm == pytest.approx(np.linalg.norm(rows.mean(0)), rel=1e-12)


def test_with_batches_it_is_theirs_and_some_rows_are_enough():
    problem, x, u = logistic()
    some = np.arange(3, 28)
    found = gradient_noise(problem, x, u[:1], 4, seed=2, rows=some)
    order = backend.generator(2, "gradient noise").permutation(some)[:24].reshape(6, 4)
    means = row_gradients(problem, x)[order].mean(1)
    np.testing.assert_allclose(found.covariance, u[:1] @ np.cov(means, rowvar=False) @ u[:1].T, rtol=1e-12)
    assert found.batches == 6 and found.curved is None
    assert gradient_noise(problem, x, u, 4, batches=2).batches == 2


def test_it_is_unbiased_for_the_covariance_of_rows_over_the_batch_size():
    noise = np.random.default_rng(1).standard_normal((40, 3)) * [1.0, 2.0, 0.5]
    problem = Quadratic(np.ones(3), noise=noise)
    expected = np.trace(np.cov(noise, rowvar=False)) / 5
    found = [gradient_noise(problem, np.zeros(3), np.eye(3), 5, seed=s).trace for s in range(400)]
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / 20


def test_noise_where_nothing_may_be_read(device):
    found = []
    for where in ("cpu", device):
        backend.use(where)
        problem, x, u = logistic()
        noise = gradient_noise(problem, backend.asarray(x), backend.asarray(u), 5, product=lambda v: 2 * v)
        found.append([noise.covariance, noise.trace, noise.curved, noise.norm])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_too_few_batches_and_other_directions_are_refused():
    problem, x, u = logistic()
    with pytest.raises(ValueError, match="two are needed"):
        gradient_noise(problem, x, u, 16)
    with pytest.raises(ValueError, match=r"directions must be \(k, 4\)"):
        gradient_noise(problem, x, u[0], 2)
