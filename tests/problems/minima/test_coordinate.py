"""Coordinate descent: a slow loop, certificates, storages that agree, edges."""

from problems.minima import coordinate

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import ElasticNet, Lasso


def F(X, y, w, c, l1, l2):
    return np.sum((X @ w + c - y) ** 2) / (2 * len(y)) + l1 * np.abs(w).sum() + l2 / 2 * w @ w


def make(rng, n=60, d=25):
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.5)
    X[:, 3] = 0
    return X, X[:, :4] @ np.ones(4) + rng.standard_normal(n) + 0.7


FORMS = {
    "dense": lambda X, y, c: coordinate.Columns(X, y, c, gram=False),
    "sparse": lambda X, y, c: coordinate.Columns(scipy.sparse.csr_matrix(X), y, c, gram=False),
    "gram": lambda X, y, c: coordinate.Columns(X, y, c, gram=True),
    "sparse gram": lambda X, y, c: coordinate.Columns(scipy.sparse.csr_matrix(X), y, c, gram=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_epochs_are_those_of_the_textbook(form, rng):
    """Three epochs, column by column; fewer than are needed for an extrapolation."""
    X, y = make(rng)
    n, l1, l2 = 60, 0.05, 0.3
    with pytest.warns(RuntimeWarning, match="stopped after 3 epochs at a duality gap of"):
        found = coordinate.solve(FORMS[form](X, y, False), None, l1, l2, tol=0, epochs=3)
    w = np.zeros(25)
    for _ in range(3):
        for j in range(25):
            if not X[:, j].any():
                continue
            r = y - X @ w + X[:, j] * w[j]
            rho = X[:, j] @ r / n
            w[j] = np.sign(rho) * max(abs(rho) - l1, 0) / (X[:, j] @ X[:, j] / n + l2)
    np.testing.assert_allclose(found.x, w, rtol=1e-12, atol=1e-14)
    assert not found.converged and found.epochs == 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize("n, d", [(60, 25), (30, 200)])
def test_the_certificate_holds_and_the_minimum_is_scikit_learns(form, intercept, l2, n, d, rng):
    X, y = make(rng, n, d)
    columns = FORMS[form](X, y, intercept)
    l1 = 0.05 * coordinate.lam_max(columns)
    found = coordinate.solve(columns, None, l1, l2, tol=1e-10)
    rival = ElasticNet(l1 + l2, l1_ratio=l1 / (l1 + l2), fit_intercept=intercept, tol=1e-14, max_iter=200_000).fit(X, y)
    best = F(X, y, rival.coef_, rival.intercept_, l1, l2)
    ours = F(X, y, found.x, found.intercept, l1, l2)
    assert found.converged and found.gap <= 1e-10 and -1e-13 <= ours - best + 1e-12 and ours - best <= found.gap + 1e-13
    assert found.x[3] == 0 and (intercept or found.intercept == 0)


def test_the_gap_is_never_below_the_true_distance(rng):
    X, y = make(rng)
    for l1, l2 in ((0.1, 0.0), (0.02, 0.5)):
        best = coordinate.solve(X, y, l1, l2, tol=1e-13)
        least = F(X, y, best.x, 0, l1, l2)
        for scale in (1e-6, 1e-3, 1.0):
            w = best.x + scale * rng.standard_normal(25) * (rng.random(25) < 0.5)
            gap = coordinate.duality_gap(X, y, w, l1, l2)
            assert gap >= F(X, y, w, 0, l1, l2) - least - 1e-14
        assert coordinate.duality_gap(X, y, best.x, l1, l2) <= 1e-13


def test_screened_columns_are_zero_in_the_solution(rng):
    X, y = make(rng, 40, 400)
    columns = coordinate.Columns(X, y, gram=False)
    found = coordinate.solve(columns, None, 0.3 * coordinate.lam_max(columns), tol=1e-12)
    rival = Lasso(0.3 * coordinate.lam_max(columns), fit_intercept=False, tol=1e-15, max_iter=100_000).fit(X, y)
    assert 300 < found.screened < 400
    np.testing.assert_allclose(found.x, rival.coef_, atol=1e-6)


def test_paths_are_warm_started_and_every_point_is_certified(rng):
    X, y = make(rng, 50, 300)
    l1s = coordinate.lam_max(X, y) * np.logspace(0, -2, 12)
    found = coordinate.path(X, y, l1s, tol=1e-8)
    assert not found[0].x.any() and found[0].epochs == 0 and found[-1].x.any()
    for l1, point in zip(l1s, found, strict=True):
        assert coordinate.duality_gap(X, y, point.x, l1) <= 1e-7 and point.gap <= 1e-8
    cold = coordinate.solve(X, y, l1s[-1], tol=1e-8)
    assert F(X, y, cold.x, 0, l1s[-1], 0) == pytest.approx(F(X, y, found[-1].x, 0, l1s[-1], 0), abs=2e-8)


@pytest.mark.parametrize("form", FORMS)
def test_edges(form, rng):
    X, y = make(rng)
    zero = coordinate.solve(FORMS[form](X, y, True), None, 1.0000001 * coordinate.lam_max(X, y, True))
    assert not zero.x.any() and zero.intercept == pytest.approx(y.mean()) and zero.converged
    less = coordinate.solve(FORMS[form](X, y, False), None, 0.999 * coordinate.lam_max(X, y), tol=1e-12)
    assert np.count_nonzero(less.x) == 1
    nothing = coordinate.solve(FORMS[form](np.zeros((5, 3)), np.ones(5), False), None, 0.1)
    assert not nothing.x.any() and nothing.converged
    one = coordinate.solve(FORMS[form](np.array([[2.0]]), np.array([3.0]), False), None, 1.0, tol=1e-14)
    assert one.x[0] == pytest.approx((6 - 1) / 4)
    twice = np.hstack([X, X])  # duplicate columns: many minimisers, one minimum
    a = coordinate.solve(FORMS[form](twice, y, False), None, 0.05, tol=1e-11)
    b = coordinate.solve(FORMS[form](X, y, False), None, 0.05, tol=1e-11)
    assert F(twice, y, a.x, 0, 0.05, 0) == pytest.approx(F(X, y, b.x, 0, 0.05, 0), abs=1e-10)


def test_float32_columns(rng):
    X, y = make(rng, 200, 40)
    for gram in (False, True):
        one, two = (
            coordinate.solve(coordinate.Columns(X.astype(t), y, gram=gram), None, 0.05, tol=1e-9)
            for t in ("float32", "float64")
        )
        np.testing.assert_allclose(one.x, two.x, atol=1e-5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda X, y: coordinate.solve(X, y, 0.0), "l1 must lie in"),
        (lambda X, y: coordinate.solve(X, y, -1), "l1 must"),
        (lambda X, y: coordinate.solve(X, y[:-1], 0.1), "y must have shape"),
        (lambda X, y: coordinate.solve(X, y, 0.1, start=np.zeros(3)), "start must have shape"),
        (lambda X, y: coordinate.solve(X * np.nan, y, 0.1), "NaN or inf"),
        (lambda X, y: coordinate.solve(np.empty((0, 3)), y[:0], 0.1), "none of them 0"),
    ],
)
def test_bad_input_gets_one_sentence(wrong, message, rng):
    with pytest.raises(ValueError, match=message):
        wrong(*make(rng))
