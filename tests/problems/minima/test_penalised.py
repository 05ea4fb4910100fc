"""Minima of penalised linear models: optimality conditions, scipy and scikit-learn as rivals, gaps, closed forms."""

from npopt import FISTA, L1, L1L2, L2, Box, Events, RandomReshuffling, Simplex, Stop, minimize
from problems import ElasticNet, Lasso, LeastSquares, Logistic
from problems.minima import penalised

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

PENALTIES = [L1(0.05), L1L2(0.04, 0.1), L2(0.2), Box(-0.2, 0.3), Box(0, None)]


def make(kind, rng, n=50, d=8, sparse=False, **more):
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.7)
    X[:, 2] = 0
    y = {
        "squares": X @ np.linspace(-1, 1, d) + rng.standard_normal(n),
        "binary": np.where(rng.random(n) < 0.5, 1, -1),
        "classes": np.r_[0, 1, 2, rng.integers(0, 3, n - 3)],
    }[kind]
    X = scipy.sparse.csr_matrix(X) if sparse else X
    return (LeastSquares if kind == "squares" else Logistic)(X, y, **more)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
@pytest.mark.parametrize("kind", ["squares", "binary", "classes"])
def test_the_minimum_is_stationary_and_nobody_undercuts_it(kind, penalty, intercept, rng):
    problem = make(kind, rng, intercept=intercept, regulariser=penalty, l2=0.01, sparse=intercept)
    x, best = problem.minimum()
    assert problem.certificate < 1e-11
    objective = lambda u: problem.value(u) + problem.penalty(u)  # noqa: E731
    assert objective(x) == pytest.approx(best, rel=1e-14)
    for scale in (1e-7, 1e-4, 1e-1):
        for _ in range(20):
            u = x + scale * rng.standard_normal(problem.dim)
            problem.prox(u, 1e-12)  # into the set
            assert objective(u) >= best - 1e-15


@pytest.mark.parametrize("penalty", [*PENALTIES, Simplex(0.7)], ids=repr)
@pytest.mark.parametrize("kind", ["squares", "binary"])
def test_fista_reaches_the_same_point(kind, penalty, rng):
    problem = make(kind, rng, regulariser=penalty, l2=0.02)
    run = minimize(
        problem,
        FISTA("gradient"),
        RandomReshuffling(None),
        1 / problem.smoothness(),
        stop=Stop(steps=3000),
        events=Events(None),
    )
    assert run.final["gradient_norm"] < 1e-9
    if isinstance(penalty, Simplex):
        with pytest.raises(ValueError, match="is not computed"):
            problem.minimum()
        assert "gap" not in run.final
    else:
        np.testing.assert_allclose(run.answer, problem.minimum()[0], atol=1e-8)
        assert abs(run.final["gap"]) < 1e-13


def test_wide_least_squares_go_by_columns(rng, monkeypatch):
    monkeypatch.setattr(penalised.solve, "DIRECT", 5)
    for intercept in (False, True):
        for l2 in (0.0, 0.1):
            more = dict(sparse=True, intercept=intercept, regulariser=L1L2(0.05, 0.02), l2=l2)
            problem = make("squares", rng, 30, 60, **more)
            problem.minimum()
            assert problem.certificate < 1e-11
    with pytest.raises(ValueError, match="not computed"):
        make("binary", rng, regulariser=L1(0.1)).minimum()


def test_the_classes_lasso_and_elastic_net(rng):
    X, y = rng.standard_normal((40, 6)), rng.standard_normal(40)
    lasso, net = Lasso(X, y, 0.1, intercept=True), ElasticNet(X, y, 0.1, 0.3)
    from sklearn import linear_model

    rival = linear_model.Lasso(0.1, tol=1e-14, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(lasso.minimum()[0], [*rival.coef_, rival.intercept_], atol=1e-9)
    rival = linear_model.ElasticNet(0.4, l1_ratio=0.25, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(net.minimum()[0], rival.coef_, atol=1e-9)
    assert net.strong_convexity() >= 0.3 and net.l2 == 0.3 and net.l1 == 0.1
    big = np.abs(X.T @ y).max() / 40
    assert not Lasso(X, y, big * 1.0001).minimum()[0].any() and Lasso(X, y, big * 0.99).minimum()[0].any()
    x = rng.standard_normal(7)
    written = np.sum((X @ x[:6] + x[6] - y) ** 2) / 80 + 0.1 * np.abs(x[:6]).sum()
    assert lasso.value(x) + lasso.penalty(x) == pytest.approx(written, rel=1e-13)
    assert lasso.metrics(x)["objective"] == pytest.approx(written, rel=1e-13)


@pytest.mark.parametrize(
    "kind, l2, penalty",
    [
        ("squares", 0.0, L1(0.1)),
        ("squares", 0.2, L1L2(0.1, 0.05)),
        ("binary", 0.0, L1(0.05)),
        ("binary", 0.1, L1(0.02)),
        ("binary", 0.0, L1L2(0.02, 0.3)),
    ],
)
def test_the_duality_gap_bounds_the_distance_and_closes_at_the_minimum(kind, l2, penalty, rng):
    problem = make(kind, rng, l2=l2, regulariser=penalty)
    x, best = problem.minimum()
    assert 0 <= problem.duality_gap(x) < 1e-12
    for scale in (1e-5, 1e-2, 1.0):
        u = x + scale * rng.standard_normal(8)
        assert problem.duality_gap(u) >= problem.value(u) + problem.penalty(u) - best - 1e-14


def test_stationarity_by_hand():
    problem = LeastSquares(np.eye(3), np.array([3.0, -0.6, 9.0]), regulariser=L1(0.5))
    x = np.array([0.5, 0.0, 0.0])  # gradients (x - y) / 3
    expected = [2.5 / -3 + 0.5, 0.0, -(3.0 - 0.5)]
    assert penalised.stationarity(problem, x) == pytest.approx(np.linalg.norm(expected))
    problem.regulariser = Box(0, 0.5)
    assert penalised.stationarity(problem, x) == pytest.approx(np.linalg.norm([0, 0, 3.0]))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda rng: make("classes", rng, l2=1, intercept=True).duality_gap(np.zeros(27)), "without intercepts only"),
        (lambda rng: make("binary", rng).duality_gap(np.zeros(8)), "l1 > 0 or l2 > 0"),
        (
            lambda rng: make("squares", rng, regulariser=Box(0, 1)).duality_gap(np.zeros(8)),
            "known for the penalties L1",
        ),
    ],
)
def test_bad_input_gets_one_sentence(wrong, message, rng):
    with pytest.raises(ValueError, match=message):
        wrong(rng)


def test_against_scipys_bounded_least_squares(rng):
    X, y = rng.standard_normal((30, 5)), rng.standard_normal(30)
    rival = scipy.optimize.lsq_linear(X, y, (-0.1, 0.2), method="bvls", tol=1e-15).x
    np.testing.assert_allclose(LeastSquares(X, y, regulariser=Box(-0.1, 0.2)).minimum()[0], rival, atol=1e-10)
