"""Where the gradient comes from, against sums written out."""

from npopt import Accumulated, Batch, Clipped, Minibatch, backend
from problems.linear import LeastSquares, Logistic

import numpy as np
import pytest
import scipy.sparse


def data(rng, n=23, d=5):
    return rng.standard_normal((n, d)), rng.standard_normal(n)


def slow_gradient(A, b, l2, x, rows, weights):
    """(1/B) sum_b w_b ((a_b.x - b_b) a_b + l2 x), a loop."""
    total = np.zeros_like(x)
    for i, w in zip(rows, weights, strict=True):
        total += w * ((A[i] @ x - b[i]) * A[i] + l2 * x)
    return total / len(rows)


ROWS = np.array([3, 7, 7, 0, 22, 11, 5])


@pytest.mark.parametrize(
    "estimator", [Minibatch(), Accumulated(3), Accumulated(7), Accumulated(100), Accumulated(1)], ids=repr
)
def test_minibatch_and_unequal_micro_batches_give_the_mean_of_the_weighted_row_gradients(estimator, rng):
    A, b = data(rng)
    x, weights = rng.standard_normal(5), rng.random(7)
    for problem in (LeastSquares(A, b, l2=0.3), LeastSquares(scipy.sparse.csr_matrix(A), b, l2=0.3)):
        g = estimator.start(problem, x, 0)
        for w in (weights, None):
            loss = estimator(x, Batch(ROWS, w), out=g)
            np.testing.assert_allclose(g, slow_gradient(A, b, 0.3, x, ROWS, np.ones(7) if w is None else w), rtol=1e-12)
            assert loss == pytest.approx(problem.value(x, ROWS, w), rel=1e-13)
    assert estimator.counts["gradients"] == 14


def test_all_rows_where_the_batch_names_none(rng):
    A, b = data(rng)
    x = rng.standard_normal(5)
    problem = LeastSquares(A, b)
    for estimator in (Minibatch(), Accumulated(4)):
        g = estimator.start(problem, x, 0)
        estimator(x, Batch(None), out=g)
        np.testing.assert_allclose(g, A.T @ (A @ x - b) / 23, rtol=1e-12)
        assert estimator.counts["gradients"] == 23


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix], ids=["dense", "sparse"])
def test_estimators_run_where_nothing_may_be_read(kind, rng, device):
    A, b = data(rng)
    x = rng.standard_normal(5)
    problem = LeastSquares(kind(A), b, l2=0.1)
    moved, rows, weights = backend.asarray(x), backend.asarray(ROWS), backend.asarray(rng.random(7))
    expected = slow_gradient(A, b, 0.1, x, ROWS, backend.to_host(weights))
    for estimator in (Minibatch(), Accumulated(3), Clipped(1e9, Accumulated(2)), Clipped(1e9)):
        g = estimator.start(problem, moved, 0)
        estimator(moved, Batch(rows, weights), out=g)
        np.testing.assert_allclose(backend.to_host(g), expected, rtol=1e-12)


def test_again_is_the_same_batch_at_another_point(rng):
    A, b = data(rng)
    x, y = rng.standard_normal((2, 5))
    problem = LeastSquares(A, b)
    for estimator in (Minibatch(), Accumulated(2), Clipped(1e9, Accumulated(2))):
        g, h = estimator.start(problem, x, 0), np.empty(5)
        estimator(x, Batch(ROWS), out=g)
        estimator.again(y, h)
        np.testing.assert_allclose(h, slow_gradient(A, b, 0, y, ROWS, np.ones(7)), rtol=1e-12)


@pytest.mark.parametrize(
    "order",
    [
        lambda c: Clipped(c),
        lambda c: Clipped(c, Accumulated(3)),
        lambda c: Accumulated(7, Clipped(c)),
    ],
)
def test_clipping_shortens_to_the_bound_and_leaves_short_gradients_alone(order, rng):
    A, b = data(rng)
    x = rng.standard_normal(5)
    problem = LeastSquares(A, b)
    plain = slow_gradient(A, b, 0, x, ROWS, np.ones(7))
    for c in (0.01, 0.5 * np.linalg.norm(plain), 2 * np.linalg.norm(plain)):
        estimator = order(c)
        g = estimator.start(problem, x, 0)
        estimator(x, Batch(ROWS), out=g)
        np.testing.assert_allclose(g, plain * min(1, c / np.linalg.norm(plain)), rtol=1e-12)
        estimator.again(x, g)  # of which methods take differences
        np.testing.assert_allclose(g, plain, rtol=1e-12)


@pytest.mark.parametrize("dtype, size", [("float32", 1e20), ("float64", 1e120)])
def test_clipping_a_gradient_whose_squares_overflow(dtype, size, device):
    from types import SimpleNamespace

    def gradient(x, rows, weights, out):
        out[...] = size
        return 1.0

    estimator, x = Clipped(2.0), backend.zeros(4, dtype)
    g = estimator.start(SimpleNamespace(n=1, value_and_gradient=gradient), x, 0)
    estimator(x, Batch(None), out=g)
    np.testing.assert_allclose(backend.to_host(g), 1.0, rtol=1e-6)  # 2 / |(1, 1, 1, 1)|


def test_clipping_a_zero_gradient_and_one_that_is_not_a_number(rng):
    problem = LeastSquares(np.eye(3), np.zeros(3))
    estimator = Clipped(1.0)
    g = estimator.start(problem, np.zeros(3), 0)
    estimator(np.zeros(3), Batch(None), out=g)
    np.testing.assert_array_equal(g, 0)
    estimator(np.array([np.nan, 1, 1]), Batch(None), out=g)
    assert np.isnan(g).any()


def test_counts_are_one_for_the_whole_chain_and_survive_a_save(rng):
    A, b = data(rng)
    problem = Logistic(A, np.sign(b))
    chain = Clipped(1.0, Accumulated(2))
    x = np.zeros(5)
    g = chain.start(problem, x, 0)
    chain(x, Batch(ROWS), out=g)
    chain.again(x, g)
    assert chain.counts == {"gradients": 14, "values": 0, "bytes": 0}
    other = Clipped(1.0, Accumulated(2))
    other.start(problem, x, 0)
    other.load_state(chain.state())
    assert other.counts == chain.counts == other.inner.inner.counts
    assert other.counts is other.inner.inner.counts


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Clipped(0),
        lambda: Clipped(-1.0),
        lambda: Clipped(float("nan")),
        lambda: Accumulated(0),
    ],
)
def test_bad_arguments(wrong):
    with pytest.raises(ValueError, match="(Clipped: c|Accumulated: rows) must"):
        wrong()
