"""Linear models with every loss: gradients, storage, constants, minima, bad input."""

import copy
import functools
import pickle

from npopt import backend
from problems import LeastSquares, LinearModel, Logistic
from problems.linear import Huber, Logit, Squared, SquaredHinge

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.special

MODELS = {
    "squares": LeastSquares,
    "binary": Logistic,
    "classes": Logistic,
    "huber": functools.partial(LinearModel, loss=Huber(0.7)),
    "hinge": functools.partial(LinearModel, loss=SquaredHinge()),
}
LOSSES = list(MODELS)
DTYPES = [np.float64, np.float32]


def make(loss, rng, n=40, d=6, dtype=np.float64, sparse=False, **options):
    """A problem on data with zeros, an empty row and an empty column."""
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.6)
    X[3], X[:, 2] = 0, 0
    X = X.astype(dtype)
    return MODELS[loss](sp.csr_matrix(X) if sparse else X, targets(loss, rng, n), **options)


def targets(loss, rng, n):
    if loss in ("squares", "huber"):
        return rng.standard_normal(n)
    return np.r_[0, 1, 2, 3, rng.integers(0, 4, n - 4)] if loss == "classes" else np.where(rng.random(n) < 0.4, -1, 1)


def textbook(problem, x, rows, weights):
    """(1/B) sum_b w_b (l + l2/2 |W|^2) in float64, row by row, from the definition."""
    X = problem.host_X.toarray() if sp.issparse(problem.host_X) else problem.host_X
    K, d, x = problem.outputs, problem.d, x.astype(np.float64)
    W, c = x[: K * d].reshape(K, d), x[K * d :] if problem.intercept else np.zeros(K)
    total = 0.0
    for i, w in zip(rows, weights, strict=True):
        z, y = W @ X[i].astype(np.float64) + c, problem.host_y[i]
        kind = problem.loss
        if kind == Squared():
            loss = (z[0] - y) ** 2 / 2
        elif isinstance(kind, Huber):
            r = abs(z[0] - y)
            loss = r * r / 2 if r <= 0.7 else 0.7 * r - 0.7**2 / 2
        elif kind == SquaredHinge():
            loss = (1 - y * z[0]) ** 2 / 2 if y * z[0] < 1 else 0
        elif kind == Logit():
            loss = np.logaddexp(0, -y * z[0])
        else:
            loss = scipy.special.logsumexp(z) - z[int(y)]
        total += w * (loss + problem.l2 / 2 * np.sum(W**2))
    return total / len(rows)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_value_is_the_definition_and_the_gradient_its_derivative(loss, sparse, intercept, rng):
    problem = make(loss, rng, sparse=sparse, l2=0.3, intercept=intercept)
    for rows, weights in [
        (None, None),
        (None, rng.random(40)),
        (np.array([3]), None),
        (np.array([5, 1, 5, 5, 39, 0]), rng.standard_normal(6)),
        (rng.integers(0, 40, 100), rng.random(100)),  # more rows than n, and than the buffer of slopes
    ]:
        x, g = rng.standard_normal(problem.dim), np.full(problem.dim, np.nan)
        value = problem.value_and_gradient(x, rows, weights, g)
        listed = np.arange(40) if rows is None else rows
        assert type(value) is float
        expected = textbook(problem, x, listed, np.ones(len(listed)) if weights is None else weights)
        assert value == pytest.approx(expected, rel=1e-12)
        assert problem.value(x, rows, weights) == pytest.approx(value, rel=1e-14)
        for _ in range(3):
            d, h = rng.standard_normal(problem.dim), 1e-6
            numeric = (problem.value(x + h * d, rows, weights) - problem.value(x - h * d, rows, weights)) / (2 * h)
            assert abs(numeric - g @ d) < 1e-7 * max(1, abs(numeric))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_csr_dense_and_array_code_agree(loss, dtype, rng):
    eps = float(np.finfo(dtype).eps)
    dense = make(loss, np.random.default_rng(1), dtype=dtype, l2=0.2, intercept=True)
    sparse = make(loss, np.random.default_rng(1), dtype=dtype, sparse=True, l2=0.2, intercept=True)
    x, rows, weights = rng.standard_normal(dense.dim).astype(dtype), rng.integers(0, 40, 17), rng.random(17)
    gradients = np.empty((3, dense.dim), dtype)
    values = [p.value_and_gradient(x, rows, weights, g) for p, g in zip((dense, sparse), gradients, strict=False)]
    values.append(dense.arrays(dense.X[rows], dense.y[rows], x, weights, dense.l2, gradients[2])[0])
    for value, g in zip(values[1:], gradients[1:], strict=True):
        assert value == pytest.approx(values[0], rel=20 * eps)
        np.testing.assert_allclose(g, gradients[0], rtol=20 * eps, atol=20 * eps)


def test_the_compiled_loops_say_the_same_without_the_compiler(rng):
    from problems.linear import passes

    problem = make("classes", rng, sparse=True, l2=0.2, intercept=True)
    x, rows = rng.standard_normal(problem.dim), np.array([7, 3, 7])
    g, plain, s = np.empty(problem.dim), np.empty(problem.dim), np.empty((3, 4))
    value = problem.value_and_gradient(x, rows, None, g)
    A = problem.X
    data = (A.data, A.indices, A.indptr, problem.d, problem.y, problem.dim)
    loss = passes.rows_pass.py_func(problem.loss, data, x, rows, np.empty(0), 0.2, s, plain)
    assert loss == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(plain, g, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_scalars_combined_and_l2_are_the_gradient(loss, sparse, rng):
    problem = make(loss, rng, sparse=sparse, l2=0.3, intercept=True)
    x = rng.standard_normal(problem.dim)
    for rows in (None, np.array([4]), np.array([8, 3, 8, 0])):
        B = 40 if rows is None else len(rows)
        s = np.empty((B, problem.outputs) if problem.outputs > 1 else B)
        g, built = np.empty(problem.dim), np.empty(problem.dim)
        problem.value_and_gradient(x, rows, None, g)
        assert problem.scalars(x, rows, s) == pytest.approx(problem.value(x, rows), rel=1e-14)
        problem.add_l2(x, problem.combine(s, rows, built))
        np.testing.assert_allclose(built, g, rtol=1e-12, atol=1e-14)
    weights = rng.random(4)
    problem.value_and_gradient(x, rows, weights, g)
    problem.combine((s.T * weights).T, rows, built)  # weighted scalars, in Fortran order where there are classes
    built[: problem.outputs * problem.d] += 0.3 * weights.mean() * x[: problem.outputs * problem.d]
    np.testing.assert_allclose(built, g, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_row_norms_are_those_of_single_row_gradients_of_the_loss(loss, rng):
    problem = make(loss, rng, sparse=True, l2=0.3, intercept=True)
    assert problem.row_norms() is None
    x, g = rng.standard_normal(problem.dim), np.empty(problem.dim)
    alone = make(loss, np.random.default_rng(12345), sparse=True, intercept=True)
    expected = []
    for i in range(40):
        alone.value_and_gradient(x, np.array([i]), None, g)
        expected.append(np.linalg.norm(g))
    problem.value_and_gradient(x, np.array([9, 3, 9]), np.array([1.0, 5.0, 2.0]), g)
    problem.metrics(x)  # leaves no trace
    np.testing.assert_allclose(problem.row_norms(), np.array(expected)[[9, 3, 9]], rtol=1e-12)
    problem.value_and_gradient(x, None, None, g)
    np.testing.assert_allclose(problem.row_norms(), expected, rtol=1e-12)


def test_logistic_losses_are_finite_and_exact_far_out():
    X, y = np.array([[1.0], [-1.0]]), np.array([1, -1])
    problem, g = Logistic(X, y), np.empty(1)
    assert problem.value_and_gradient(np.array([1e4]), out=g) == 0.0 and g[0] == 0.0
    assert problem.value_and_gradient(np.array([-1e4]), out=g) == 1e4 and g[0] == -1.0
    for x in (30.0, 300.0):  # relative precision of the tail: exp(-x), not 1 - 1
        for rows in (None, np.array([0, 1])):
            value = problem.value_and_gradient(np.array([x]), rows, None, g)
            assert value == pytest.approx(np.exp(-x), rel=1e-12) and g[0] == pytest.approx(-np.exp(-x), rel=1e-12)
    wide = Logistic(np.eye(3), [0, 1, 2])
    for rows in (None, np.arange(3)):
        assert wide.value(np.full(9, 1e5), rows) == pytest.approx(np.log(3), rel=1e-12)
        assert wide.value(np.arange(9) * 1e5, rows) == pytest.approx(1e5 * (6 + 3 + 0) / 3, rel=1e-12)


def test_a_diverged_x_gives_nan_or_inf_not_a_number():
    problem = Logistic(np.eye(2), [-1, 1])
    for rows in (None, np.array([0, 1])):
        assert np.isnan(problem.value(np.array([np.nan, 0.0]), rows))
        assert not np.isfinite(LeastSquares(np.eye(2), [1.0, 2.0]).value(np.array([1e300, 0.0]), rows))


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_minimum_is_certified_and_no_point_lies_below(loss, intercept, rng):
    problem = make(loss, rng, l2=0.05, intercept=intercept)
    x, f = problem.minimum()
    g = np.empty(problem.dim)
    assert problem.value_and_gradient(x, np.arange(40), None, g) == pytest.approx(f, rel=1e-13)
    assert np.linalg.norm(g) < 1e-11 and problem.certificate < 1e-11
    for _ in range(20):
        assert problem.value(x + 1e-3 * rng.standard_normal(problem.dim)) > f
    x[:] = 0  # the answer is a copy
    assert np.abs(problem.minimum()[0]).max() > 0
    assert make(loss, np.random.default_rng(12345), sparse=True, l2=0.05, intercept=intercept).minimum()[1] == (
        pytest.approx(f, rel=1e-12)
    )


def test_minimum_of_least_squares_solves_the_normal_equations(rng):
    X, y = rng.standard_normal((30, 4)), rng.standard_normal(30)
    x, f = LeastSquares(X, y, l2=0.2).minimum()
    w = np.linalg.solve(X.T @ X / 30 + 0.2 * np.eye(4), X.T @ y / 30)
    np.testing.assert_allclose(x, w, rtol=1e-12)
    assert f == pytest.approx(np.sum((X @ w - y) ** 2) / 60 + 0.1 * w @ w, rel=1e-13)
    x, f = LeastSquares(X + 5, y, intercept=True).minimum()  # centring removes an unpenalised intercept
    w = np.linalg.lstsq(X - X.mean(0), y - y.mean(), rcond=None)[0]
    np.testing.assert_allclose(x[:4], w, rtol=1e-11)
    assert x[4] == pytest.approx(y.mean() - (X + 5).mean(0) @ w, rel=1e-11)


def test_minimum_of_many_unknowns_is_found_without_a_matrix(rng):
    X = sp.random(60, 2500, density=0.02, random_state=3, format="csr")
    for problem in (
        Logistic(X, np.where(rng.random(60) < 0.5, -1, 1), l2=0.01),
        LeastSquares(X, rng.standard_normal(60), l2=0.01, intercept=True),
    ):
        x, f = problem.minimum()
        g = np.empty(problem.dim)
        problem.value_and_gradient(x, None, None, g)
        assert np.linalg.norm(g) < 1e-11
        assert "gap" in problem.metrics(x)


def test_a_problem_without_minimum_says_so_and_its_metrics_hold_no_gap(rng):
    X = rng.standard_normal((20, 3))
    problem = Logistic(X, np.sign(X[:, 0]))
    with pytest.raises(ValueError, match="separates"):
        problem.minimum()
    assert set(problem.metrics(np.zeros(3))) == {"objective", "gradient_norm"}
    shared = Logistic(np.ones((4, 1)), [1, -1, 1, 1])  # not separable: log-odds of the mean
    assert shared.minimum()[0][0] == pytest.approx(np.log(3), rel=1e-12)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_smoothness_bounds_the_largest_eigenvalue_of_every_hessian(loss, intercept, rng):
    problem = make(loss, rng, l2=0.1, intercept=intercept)
    L, mu, Li = problem.smoothness(), problem.strong_convexity(), problem.row_smoothness()
    assert Li.shape == (40,) and L <= Li.max() * (1 + 1e-12) and Li.mean() >= L * (1 - 1e-12)
    for scale in (0, 1, 5):
        x, h = scale * rng.standard_normal(problem.dim), 1e-5
        H = np.empty((problem.dim, problem.dim))  # by differences of gradients, not by the code's own Hessian
        for j, e in enumerate(np.eye(problem.dim)):
            up, down = np.empty(problem.dim), np.empty(problem.dim)
            problem.value_and_gradient(x + h * e, None, None, up)
            problem.value_and_gradient(x - h * e, None, None, down)
            H[j] = (up - down) / (2 * h)
        np.testing.assert_allclose(problem.hessian(x), H, atol=1e-8)
        v = rng.standard_normal(problem.dim)
        np.testing.assert_allclose(problem.hessian_product(x)(v), problem.hessian(x) @ v, atol=1e-12)
        values = np.linalg.eigvalsh((H + H.T) / 2)
        assert mu - 1e-8 <= values[0] and values[-1] <= L + 1e-8
        if loss == "squares":  # the only one whose Hessian is the bound, and mu
            assert values[-1] == pytest.approx(L, rel=1e-7) and values[0] == pytest.approx(mu, abs=1e-8)
        if loss == "binary" and scale == 0:  # l'' = 1/4 at 0: the bound is reached
            assert values[-1] == pytest.approx(L, rel=1e-7)


def test_smoothness_of_wide_data_is_an_upper_bound(rng):
    X = sp.random(80, 2100, density=0.01, random_state=1, format="csr")
    problem = LeastSquares(X, rng.standard_normal(80), l2=0.01, intercept=True)
    exact = np.linalg.eigvalsh(problem.design.dot(problem.design.T).toarray() / 80)[-1] + 0.01
    assert exact <= problem.smoothness() <= 1.02 * exact
    assert problem.strong_convexity() == 0.0
    assert LeastSquares(X, rng.standard_normal(80), l2=0.01).strong_convexity() == 0.01


def test_singular_data_promises_no_linear_rate(rng):
    X = rng.standard_normal((20, 3))
    X = np.hstack([X, X[:, :1]])
    assert LeastSquares(X, np.ones(20)).strong_convexity() == 0.0
    assert LeastSquares(X, np.ones(20), l2=0.1).strong_convexity() == 0.1
    assert LeastSquares(np.zeros((3, 2)), np.ones(3)).smoothness() == 0.0
    assert LeastSquares(sp.csr_matrix((3, 2500)), np.ones(3), l2=0.5).smoothness() == 0.5
    assert Logistic(X, np.sign(X[:, 1]), l2=0.1, intercept=True).strong_convexity() == 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_metrics_are_float64_on_the_host_and_test_rows_are_seen(loss, device, rng):
    y, X = targets(loss, rng, 40), rng.standard_normal((40, 5)).astype(np.float32)
    problem = MODELS[loss](X[:30], y[:30], l2=0.1, test=(X[30:], y[30:]))
    host = rng.standard_normal(problem.dim).astype(np.float32)
    x = backend.asarray(host)
    found = problem.metrics(x)
    assert all(type(v) is float for v in found.values())
    assert found["objective"] == pytest.approx(textbook(problem, host, range(30), np.ones(30)), rel=1e-13)
    assert found["gap"] == pytest.approx(found["objective"] - problem.minimum()[1], abs=1e-15)
    W = host.reshape(-1, 5).astype(np.float64)
    z = X[30:].astype(np.float64) @ W.T
    if loss == "squares":
        assert found["test_loss"] == pytest.approx(np.mean((z[:, 0] - y[30:]) ** 2) / 2, rel=1e-13)
    if loss in ("squares", "huber"):
        assert "test_accuracy" not in found
        np.testing.assert_allclose(problem.predict(host, X[30:]), z[:, 0], rtol=1e-6)
    else:
        guess = z.argmax(1) if loss == "classes" else np.sign(z[:, 0])
        assert found["test_accuracy"] == np.mean(guess == y[30:])
    at_best = problem.metrics(backend.asarray(problem.minimum()[0].astype(np.float32)))
    assert abs(at_best["gap"]) < 1e-12  # f is flat there: (1e-7)^2


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_passes_run_where_arrays_cannot_become_numpy(loss, sparse, device, rng):
    problem = make(loss, rng, l2=0.3, intercept=True, sparse=sparse)
    x = rng.standard_normal(problem.dim)
    for rows, weights in [(None, None), (None, rng.random(40)), (np.array([5, 1, 5]), None), (np.array([7]), [2.0])]:
        weights = None if weights is None else np.asarray(weights)
        on = [None if a is None else backend.asarray(a) for a in (x, rows, weights)]
        g = backend.zeros(problem.dim, np.float64)
        value = problem.value_and_gradient(*on, g)
        listed = np.arange(40) if rows is None else rows
        expected = textbook(problem, x, listed, np.ones(len(listed)) if weights is None else weights)
        assert backend.to_host(value) == pytest.approx(expected, rel=1e-12)
        assert backend.to_host(problem.value(*on)) == pytest.approx(expected, rel=1e-12)
        exact = np.empty(problem.dim)
        w = np.empty(0) if weights is None else weights
        problem.arrays(problem.host_X[listed], problem.host_y[listed], x, w, 0.3, exact)
        np.testing.assert_allclose(backend.to_host(g), exact, rtol=1e-12, atol=1e-14)
        assert backend.to_host(problem.row_norms()).shape == (len(listed),)
    s, built = backend.zeros((2, problem.outputs), np.float64), backend.zeros(problem.dim, np.float64)
    rows = backend.asarray(np.array([4, 6]))
    problem.scalars(on[0], rows, s)
    problem.add_l2(on[0], problem.combine(s, rows, built))
    problem.value_and_gradient(on[0], rows, None, g)
    np.testing.assert_allclose(backend.to_host(built), backend.to_host(g), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: LeastSquares(np.ones((3, 2)), np.ones(4)), r"X has 3 rows, so y must have shape \(3,\), got \(4,\)"),
        (lambda: LeastSquares(np.ones(3), np.ones(3)), "X must have shape"),
        (lambda: LeastSquares(np.ones((0, 3)), np.ones(0)), "X must have shape"),
        (lambda: LeastSquares(np.array([[1, 2], [np.nan, 0.0]]), np.ones(2)), "row 1 of X holds NaN or inf"),
        (lambda: LeastSquares(sp.csr_matrix([[0, 0], [0, 1], [np.inf, 0]]), np.ones(3)), "row 2 of X holds NaN or inf"),
        (lambda: LeastSquares(np.ones((2, 1)), [1.0, np.inf]), "label 1 is inf"),
        (lambda: LeastSquares(np.ones((2, 1)), ["a", "b"]), "labels must be numbers, got <U1, such as 'a'"),
        (lambda: LeastSquares(np.ones((2, 1)), np.ones(2), l2=-1), r"l2 must lie in \[0"),
        (lambda: LeastSquares(np.ones((2, 1)), np.ones(2), l2=np.nan), "l2 must lie in"),
        (lambda: Logistic(np.ones((2, 1)), [1, 2]), "labelled -1 and [+]1 or 0 and 1, got 1 and 2; use numpy.where"),
        (lambda: Logistic(np.ones((2, 1)), [-1, 0]), "labelled -1 and [+]1 or 0 and 1, got -1 and 0"),
        (lambda: LinearModel(np.eye(3), [0, 1, 2], SquaredHinge()), "separates two classes, got 3 different labels"),
        (lambda: Logistic(np.ones((2, 1)), [1, 1]), "all labels are 1"),
        (lambda: Logistic(np.ones((3, 1)), [-1, 0, 1]), "among them -1"),
        (lambda: Logistic(np.ones((3, 1)), [0, 1, 2.5]), "among them 2.5"),
        (lambda: Logistic(np.ones((3, 1)), [0, 1, 1e9]), "among them 1e[+]09"),
        (lambda: Logistic(np.eye(2), [-1, 1], test=(np.eye(2), [0, 1])), "test labels hold 0"),
        (lambda: Logistic(np.eye(2), [0, 1], test=(np.eye(2), [-1, 1])), "test labels hold -1"),
        (lambda: Logistic(np.eye(3), [0, 1, 2], test=(np.eye(3), [0, 1.5, 2])), "test labels hold 1.5"),
        (lambda: LinearModel(np.eye(2), [0, 1], Huber(0)), r"Huber: delta must lie in \(0, inf\), got 0"),
        (lambda: Logistic(np.eye(2), [-1, 1], test=(np.eye(3), [1, 1, 1])), "test rows have 3 columns"),
        (lambda: LeastSquares(np.ones((2, 1)), np.ones(2), dtype=np.float16), "float32 or float64"),
    ],
)
def test_bad_data_is_one_sentence(make, says):
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "rows, weights, out, says",
    [
        (np.array([0, 40]), None, np.empty(6), r"rows must lie in 0..39, got 40"),
        (np.array([-1, 4]), None, np.empty(6), r"rows must lie in 0..39, got -1"),
        (np.array([], np.int64), None, np.empty(6), "one or more row numbers"),
        (np.full(999, 0.5), None, np.empty(6), r"one or more row numbers, got shape \(999,\) of float64"),
        (np.array([1, 2]), np.ones(3), np.empty(6), "2 rows need 2 weights"),
        (None, np.ones(3), np.empty(6), "40 rows need 40 weights"),
        (np.array([1, 2]), None, np.empty(5), "out must be a contiguous vector of 6"),
        (np.array([1, 2]), None, np.empty(6, np.float32), "out must be a contiguous vector of 6 numbers of float64"),
    ],
)
def test_bad_batches_are_one_sentence(sparse, rows, weights, out, says, rng):
    problem = make("binary", rng, sparse=sparse)
    with pytest.raises(ValueError, match=says):
        problem.value_and_gradient(np.zeros(6), rows, weights, out)
    with pytest.raises(ValueError, match="no inputs= or dinputs="):
        problem.value_and_gradient(np.zeros(6), rows, weights, out, inputs=np.zeros(1))


def test_rows_and_weights_of_other_kinds_are_converted(rng):
    problem, x = make("binary", rng, dtype=np.float32), np.ones(6, np.float32)
    g, other = np.empty(6, np.float32), np.empty(6, np.float32)
    value = problem.value_and_gradient(x, np.array([1, 5, 7]), np.array([1.0, 2.0, 0.5]), g)
    spaced = np.arange(9)
    spaced[:6:2] = [1, 5, 7]
    for rows in ([1, 5, 7], np.array([1, 5, 7], np.int32), spaced[:6:2], np.array([1, 5, 7], np.uint8)):
        for weights in (np.array([1, 2, 0.5], np.float32), [1.0, 2.0, 0.5]):
            assert problem.value_and_gradient(x, rows, weights, other) == value
            np.testing.assert_array_equal(other, g)


def test_the_callers_data_is_not_changed(rng):
    X = sp.coo_matrix(([1.0, 2.0, 3.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2)).tocsr()
    X.indices.flags.writeable = X.data.flags.writeable = False
    before = X.toarray()
    problem = LeastSquares(X, np.array([1, 2]))  # whole numbers as labels
    problem.value_and_gradient(np.ones(2), np.array([0]), None, np.empty(2))
    np.testing.assert_array_equal(X.toarray(), before)
    assert problem.value(np.ones(2)) == pytest.approx(((3 - 1) ** 2 + (3 - 2) ** 2) / 4)


def test_labels_zero_and_one_are_those_of_minus_and_plus_one(rng):
    X, y = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)
    for make in (Logistic, functools.partial(LinearModel, loss=SquaredHinge())):
        ones, signs = make(X, y, l2=0.1, test=(X, y)), make(X, 2 * y - 1, l2=0.1, test=(X, 2 * y - 1))
        np.testing.assert_array_equal(ones.host_y, signs.host_y)
        x = signs.minimum()[0]
        assert ones.metrics(x) == signs.metrics(x) and ones.metrics(x)["test_accuracy"] > 0.5
        np.testing.assert_array_equal(signs.predict(x, X), 2 * ones.predict(x, X) - 1)
        assert set(ones.predict(x, X)) == {0.0, 1.0}


def test_a_model_is_named_by_its_class_or_its_loss(rng):
    assert repr(make("squares", rng, l2=0.5)) == "LeastSquares(40x6, l2=0.5)"
    assert repr(make("huber", rng, intercept=True)) == "Huber(delta=0.7)(40x6, l2=0, intercept)"


def test_segments_name_weights_and_intercept(rng):
    assert [(s.name, s.shape, s.kind) for s in make("binary", rng, intercept=True).segments] == [
        ("w", (6,), "vector"),
        ("intercept", (1,), "bias"),
    ]
    assert [(s.name, s.shape, s.kind) for s in make("classes", rng, intercept=True).segments] == [
        ("w", (4, 6), "matrix"),
        ("intercept", (4,), "bias"),
    ]


def test_a_problem_survives_copy_and_pickle(rng):
    problem, x, g = make("classes", rng, sparse=True, l2=0.1), rng.standard_normal(24), np.empty(24)
    value = problem.value_and_gradient(x, np.array([3, 4]), None, g)
    for twin in (copy.deepcopy(problem), pickle.loads(pickle.dumps(problem))):
        assert twin.value_and_gradient(x, np.array([3, 4]), None, g) == value
