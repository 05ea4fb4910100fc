"""SVRG and SAGA: trajectories against loops written from the papers, unbiasedness by enumeration, variances, resume."""

import nn
from nn.networks import mlp
from npopt import (
    L1,
    SAGA,
    SGD,
    SVRG,
    Batch,
    Box,
    Clipped,
    Constant,
    Events,
    Exponential,
    Minibatch,
    Proximal,
    RandomReshuffling,
    ShuffleOnce,
    Stop,
    WithReplacement,
    backend,
    minimize,
)
from problems import LeastSquares, Logistic, Quadratic, load
from problems.feeds import Images
from problems.neural import Neural

import numpy as np
import pytest
import scipy.sparse

N, D, L2 = 17, 5, 0.3


@pytest.fixture
def data(rng):
    X = rng.standard_normal((N, D)) * (rng.random((N, D)) < 0.7)
    X[4], X[:, 3] = 0, 0
    return X, np.where(rng.random(N) < 0.4, -1.0, 1.0)


def row_gradient(X, y, i, w):
    """The gradient of log(1 + exp(-y x.w)) + l2/2 |w|^2 for one row."""
    return -y[i] / (1 + np.exp(y[i] * (X[i] @ w))) * X[i] + L2 * w


def order(sampler, problem, steps, seed=0):
    """The rows of the first steps, (steps, B)."""
    sampler.start(problem, seed)
    return [np.asarray(batch.rows) for batch in sampler.take(steps)]


def soft(v, t):
    return np.sign(v) * np.maximum(np.abs(v) - t, 0)


def slow_svrg(X, y, batches, lr, m, picks=None, l1=0.0):
    """Johnson & Zhang's procedure: a snapshot every m steps; picks: the inner iterate of each stage (option II)."""
    w, stage, inner = np.zeros(D), -1, []
    for t, rows in enumerate(batches):
        if t % m == 0:
            if picks is not None and t:
                w = inner[picks[stage]]
            stage, inner, snapshot = stage + 1, [], w.copy()
            full = sum(row_gradient(X, y, i, snapshot) for i in range(N)) / N
        inner.append(w.copy())
        g = sum(row_gradient(X, y, i, w) - row_gradient(X, y, i, snapshot) for i in rows) / len(rows) + full
        w = soft(w - lr * g, lr * l1)
        yield w


def slow_saga(X, y, batches, lr, start, l1=0.0):
    """Defazio et al., a table of n vectors without the l2 term; the mean is summed anew at every step."""
    w = np.zeros(D)
    table = np.array([row_gradient(X, y, i, w) if start == "gradients" else np.zeros(D) for i in range(N)])
    for rows in batches:
        fresh = {i: row_gradient(X, y, i, w) - L2 * w for i in rows}
        g = sum(fresh[i] - table[i] for i in rows) / len(rows) + table.mean(0) + L2 * w
        for i in fresh:
            table[i] = fresh[i]
        w = soft(w - lr * g, lr * l1)
        yield w


@pytest.mark.parametrize("l1", [0, 0.05])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("size", [1, 4])
def test_trajectories(size, sparse, l1, data):
    """Three passes and a bit; every iterate is compared, so that the loops run in stretches of one step."""
    X, y = data
    problem = Logistic(scipy.sparse.csr_matrix(X) if sparse else X, y, L2, regulariser=L1(l1) if l1 else None)
    problem.metrics = lambda x: {"w": x.copy()}
    steps, lr = 3 * -(-N // size) + 2, 0.4
    batches = order(WithReplacement(size), problem, steps)
    m = int(np.ceil(1.3 * N / size))
    draws = [int(backend.generator(0, "svrg", stage).integers(1, m, endpoint=True)) for stage in range(9)]
    for estimator, slow in (
        (SVRG(1.3), slow_svrg(X, y, batches, lr, m, None, l1)),
        (SVRG(1.3, "II"), slow_svrg(X, y, batches, lr, m, [m - left for left in draws], l1)),
        (SAGA(refresh=0.7), slow_saga(X, y, batches, lr, "gradients", l1)),
        (SAGA(initial="zeros", refresh=None), slow_saga(X, y, batches, lr, "zeros", l1)),
        (SAGA("gradients"), slow_saga(X, y, batches, lr, "gradients", l1)),
    ):
        optimizer = Proximal(SGD()) if l1 else SGD()
        run = minimize(
            problem, optimizer, WithReplacement(size), lr, estimator, stop=Stop(steps=steps), events=Events(1, "step")
        )
        np.testing.assert_allclose(run.columns["w"][1:], list(slow), rtol=1e-12, atol=1e-14, err_msg=repr(estimator))
        assert run.loop == ("python" if estimator.arguments().get("table") == "gradients" else "compiled")
        if l1:
            assert (run.x == 0).any()


def test_a_snapshot_at_every_step_is_gradient_descent(data):
    X, y = data
    problem = Logistic(X, y, L2)
    run = minimize(problem, SGD(), WithReplacement(1), 0.7, SVRG(1e-9), stop=Stop(steps=12))
    w = np.zeros(D)
    for _ in range(12):
        w = w - 0.7 * sum(row_gradient(X, y, i, w) for i in range(N)) / N
    np.testing.assert_allclose(run.x, w, rtol=1e-13)
    assert run.final["gradients"] == 12 * (N + 1)


def test_on_a_network_a_snapshot_at_every_step_is_gradient_descent():
    problem = Neural(mlp((64, 6, 10)), Images(load("digits")), metrics_rows=10)
    x = problem.x0(np.random.default_rng(0))
    full, g = np.empty_like(x), SVRG(1e-9).start(problem, x, 0)
    problem.value_and_gradient(x, None, None, full)
    estimator = SVRG(1e-9)
    estimator.start(problem, x, 0)
    estimator(x, Batch(np.arange(9)), out=g)
    np.testing.assert_allclose(g, full, rtol=1e-4, atol=1e-6)
    assert isinstance(problem.network, nn.Network) and estimator.counts["gradients"] == problem.n + 18


@pytest.mark.parametrize("weighted", [False, True])
def test_estimates_are_unbiased_by_enumeration(weighted, data, rng):
    """sum_i p_i g_i = grad f, whatever the table and the snapshot hold."""
    X, y = data
    quadratic = Quadratic(np.array([0.5, 1, 2, 3, 4.0]), noise=rng.standard_normal((N, D)))
    for problem, estimators in (
        (Logistic(X, y, L2), [Minibatch(), SVRG(3), SAGA(initial="zeros"), SAGA("gradients")]),
        (quadratic, [SVRG(3), SAGA("gradients", "zeros")]),
    ):
        p = rng.dirichlet(np.ones(N)) if weighted else np.full(N, 1 / N)
        for estimator in estimators:
            x = rng.standard_normal(D)
            g = estimator.start(problem, x, 0)
            for i in (3, 4, 9):  # the table and the snapshot get a past
                estimator(x, Batch(np.array([i])), out=g)
                x = x - 0.3 * g
            at, total, full = rng.standard_normal(D), np.zeros(D), np.empty(D)
            for i in range(N):
                estimator.batch = Batch(np.array([i]), np.array([1 / (N * p[i])]))
                estimator.again(at, g)
                total += p[i] * g
            problem.value_and_gradient(at, None, None, full)
            np.testing.assert_allclose(total, full, rtol=1e-11, atol=1e-13, err_msg=repr(estimator))


def test_fixed_batches_of_unequal_size_are_unbiased_by_enumeration(data, rng):
    for problem in (Logistic(*data, L2), Quadratic(np.ones(D), noise=rng.standard_normal((N, D)))):
        estimator, x, sampler = SAGA("gradients", "zeros"), rng.standard_normal(D), ShuffleOnce(5)
        g = estimator.start(problem, x, 0)
        sampler.start(problem, 0)
        batches = list(sampler.take(4))
        assert [len(batch.rows) for batch in batches] == [5, 5, 5, 2]
        for batch in (*batches, batches[1]):
            estimator(x, batch, out=g)
            x = x - 0.1 * g
        total, full = np.zeros(D), np.empty(D)
        for batch in batches:
            estimator.batch = batch
            estimator.again(x, g)
            total += g / 4
        problem.value_and_gradient(x, None, None, full)
        np.testing.assert_allclose(total, full, rtol=1e-12)
        kept = np.array([5, 5, 5, 2]) / N @ estimator.kept.table
        np.testing.assert_allclose(estimator.mean, kept, rtol=1e-12, atol=1e-15)


def test_a_row_that_comes_twice_in_a_batch_moves_the_mean_once(data, device):
    problem = Logistic(*data, L2)
    x = backend.asarray(np.linspace(-1, 1, D))
    for table in ("scalars", "gradients"):
        estimator = SAGA(table, refresh=None)
        g = estimator.start(problem, backend.zeros(D, "float64"), 0)
        estimator(x, Batch(backend.asarray(np.array([7, 2, 7, 7]))), out=g)
        moved = backend.to_host(estimator.mean).copy()
        estimator.kept.average(estimator.mean)
        np.testing.assert_allclose(moved, backend.to_host(estimator.mean), rtol=1e-12, atol=1e-15)


def test_scalars_and_vectors_are_the_same_method(data):
    """One number a row instead of d, on least squares with an intercept and on three classes."""
    X, y = data
    classes = np.r_[0, 1, 2, np.arange(N - 3) % 3]
    for problem in (LeastSquares(X, y, L2, intercept=True), Logistic(X, classes, L2, intercept=True)):
        one, two = (
            minimize(problem, SGD(), WithReplacement(3), Exponential(0.2, 0.8), SAGA(table), stop=Stop(epochs=5))
            for table in ("scalars", "gradients")
        )
        np.testing.assert_allclose(one.x, two.x, rtol=1e-12, atol=1e-14)
        assert (one.loop, two.loop) == ("compiled", "python")
        assert one.final["gradients"] == two.final["gradients"]


def test_variance_is_that_of_the_enumerated_estimates(data, rng):
    X, y = data
    for intercept in (False, True):
        problem = Logistic(X, y, L2, intercept=intercept)
        p = rng.dirichlet(np.full(N, 3.0))
        for estimator in (Minibatch(), SVRG(3), SAGA(initial="zeros")):
            x = rng.standard_normal(problem.dim)
            g = estimator.start(problem, x, 0)
            for i in (3, 9):
                estimator(x, Batch(np.array([i])), out=g)
                x = x - 0.3 * g
            for probabilities, shares in ((None, np.full(N, 1 / N)), (p, p)):
                found = []
                for i in range(N):
                    estimator.batch = Batch(np.array([i]), np.array([1 / (N * shares[i])]))
                    estimator.again(x, g)
                    found.append(g.copy())
                mean = shares @ np.array(found)
                expected = shares @ np.sum((np.array(found) - mean) ** 2, 1)
                assert estimator.variance(x, probabilities) == pytest.approx(expected, rel=1e-10)


def test_right_after_a_snapshot_the_variance_is_zero(data):
    problem, x = Logistic(*data, L2), np.ones(D)
    estimator = SVRG(2)
    g = estimator.start(problem, x, 0)
    estimator(x, Batch(np.array([2])), out=g)
    assert estimator.variance(x) < 1e-30  # the slopes come from two codes: one ulp, squared


@pytest.mark.parametrize("estimator, passes", [(SVRG(2), 90), (SAGA(), 60), (SAGA(initial="zeros"), 60)], ids=repr)
def test_linear_convergence_to_the_minimum(estimator, passes, rng):
    X = rng.standard_normal((200, 6))
    problem = Logistic(scipy.sparse.csr_matrix(X), np.where(X[:, 0] + rng.standard_normal(200) > 0, 1, -1), 0.05)
    run = minimize(
        problem,
        SGD(),
        WithReplacement(1),
        1 / (3 * problem.row_smoothness().max()),
        estimator,
        stop=Stop(evaluations=passes * 200),
        events=Events(1, variance=True),
    )
    assert run.final["gap"] < 1e-13 and run.final["variance"] < 1e-13
    plain = minimize(
        problem,
        SGD(),
        WithReplacement(1),
        1 / (3 * problem.row_smoothness().max()),
        stop=Stop(evaluations=passes * 200),
        events=Events(1, variance=True),
    )
    assert plain.final["gap"] > 1e-5 and plain.final["variance"] > 1e-2
    assert run.loop == plain.loop == "compiled" and run.final["gradients"] <= (passes + 2) * 200


@pytest.mark.parametrize(
    "estimator", [SVRG(1.7, "II"), SAGA(refresh=1.5), SAGA("gradients"), Clipped(0.5, SVRG(1.2))], ids=repr
)
def test_two_halves_equal_the_whole_bitwise(estimator, data, tmp_path):
    for X in (data[0], scipy.sparse.csr_matrix(data[0])):
        problem, path = Logistic(X, data[1], L2), tmp_path / f"{type(X).__name__}.npz"
        common = dict(optimizer=SGD(), sampler=RandomReshuffling(2), schedule=0.2, estimator=estimator, seed=3)
        whole = minimize(problem, **common, stop=Stop(epochs=7))
        minimize(problem, **common, stop=Stop(epochs=3), events=Events(checkpoint=path))
        rest = minimize(problem, **common, stop=Stop(epochs=7), events=Events(checkpoint=path))
        np.testing.assert_array_equal(whole.x, rest.x)
        for name in set(whole.columns) - {"seconds"}:
            np.testing.assert_array_equal(whole.columns[name], rest.columns[name], err_msg=name)


@pytest.mark.parametrize(
    "estimator", [SVRG(1.3, "II"), SAGA(refresh=1.5), SAGA("gradients"), SAGA("gradients", "zeros")], ids=repr
)
@pytest.mark.parametrize("sampler", [WithReplacement(3), ShuffleOnce(3)], ids=repr)
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix], ids=["dense", "sparse"])
def test_where_nothing_may_be_read(kind, estimator, sampler, data, device):
    fixed = isinstance(sampler, ShuffleOnce) and estimator.arguments().get("table") == "gradients"
    if fixed and estimator.initial == "gradients":
        return
    found = []
    for name in (device, "cpu"):
        backend.use(name)
        problem = Logistic(kind(data[0]), data[1], L2, intercept=True)
        run = minimize(problem, SGD(), sampler, 0.2, estimator, stop=Stop(epochs=3))
        found.append(backend.to_host(run.x))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-11, atol=1e-13)


def test_combinations_that_have_no_compiled_form_run_in_the_loop(data):
    problem = Logistic(*data, L2, regulariser=Box(-0.1, 0.1))
    problem.metrics = lambda x: {}
    run = minimize(problem, Proximal(SGD()), RandomReshuffling(1), 0.2, SAGA(), stop=Stop(epochs=3))
    assert run.loop == "python" and np.abs(run.x).max() <= 0.1
    smooth = Logistic(*data, L2)
    rates = Constant(0.1)
    for estimator, sampler in ((Clipped(0.5, SAGA()), RandomReshuffling(1)), (SVRG(), RandomReshuffling(None))):
        assert minimize(smooth, SGD(), sampler, rates, estimator, stop=Stop(epochs=2)).loop == "python"


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda p, q: SVRG(0), "passes must lie in"),
        (lambda p, q: SVRG(1, "III"), 'option must be "I" or "II"'),
        (lambda p, q: SAGA("rows"), 'table must be "scalars"'),
        (lambda p, q: SAGA(refresh=0), "refresh must lie in"),
        (lambda p, q: minimize(q, SGD(), estimator=SAGA()), "not a linear model.*table='gradients'"),
        (
            lambda p, q: minimize(q, SGD(), estimator=SVRG(), events=Events(variance=True)),
            "measured for linear models",
        ),
        (lambda p, q: minimize(p, SGD(), ShuffleOnce(5), estimator=SAGA("gradients")), "use initial='zeros'"),
    ],
)
def test_bad_input_gets_one_sentence(wrong, message, data):
    with pytest.raises(ValueError, match=message):
        wrong(Logistic(*data, L2), Quadratic([1.0, 2.0], n=7, noise=0.1))
