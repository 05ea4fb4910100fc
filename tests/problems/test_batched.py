"""Fixed mini-batches as rows: sums over batches, unbiased estimates with batch norm and dropout, variances, resume."""

import itertools
from types import SimpleNamespace

import nn
from npopt import (
    SAGA,
    SGD,
    SVRG,
    Batch,
    Events,
    Minibatch,
    RandomReshuffling,
    ShuffleOnce,
    Stop,
    WithReplacement,
    minimize,
)
from npopt.errors import UserError
from problems import LeastSquares
from problems.batched import Batched
from problems.feeds import Table
from problems.neural import Neural

import numpy as np
import pytest


def network(rng, n=23, dtype="float64"):
    """A perceptron with batch norm and dropout on n rows."""
    rows = SimpleNamespace(
        name="rows", x_train=rng.standard_normal((n, 5)), y_train=rng.integers(0, 3, n), x_test=None, y_test=None
    )
    return Neural(nn.mlp((5, 6, 3), nn.Tanh, norm="batch", dropout=0.3), Table(rows), l2=0.02, dtype=dtype)


def gradients(problem, x):
    """grad f_k(x) of every batch, (K, dim), straight from the network."""
    found = np.empty((problem.n, problem.dim))
    for g, rows in zip(found, problem.batches, strict=True):
        problem.problem.value_and_gradient(x, rows, None, g)
    return found


@pytest.fixture
def problem(rng):
    made = Batched(network(rng), 4, seed=3)
    made.begin(0)
    return made


def test_batches_have_one_size_and_every_row_is_in_at_most_one(problem):
    rows = problem.batches.reshape(-1)
    assert problem.n == 5 and problem.batches.shape == (5, 4)
    assert len(set(rows)) == 20 and set(rows) <= set(range(23))
    assert not np.array_equal(rows, Batched(problem.problem, 4, seed=4).batches.reshape(-1))


@pytest.mark.parametrize("rows", [None, [2], [4, 0, 4]])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_weighted_means_over_batches(problem, rng, rows, weighted):
    x, out = problem.x0(rng), np.full(problem.dim, np.nan)
    chosen = list(range(5)) if rows is None else rows
    weights = rng.random(len(chosen)) if weighted else None
    w = (np.ones(len(chosen)) if weights is None else weights) / len(chosen)
    given = None if rows is None else np.array(rows)
    loss = problem.value_and_gradient(x, given, weights, out)
    values = [problem.problem.value(x, problem.batches[k]) for k in chosen]
    np.testing.assert_allclose(loss, w @ values, rtol=1e-12)
    np.testing.assert_allclose(problem.value(x, given, weights), loss, rtol=1e-12)
    np.testing.assert_allclose(out, w @ gradients(problem, x)[chosen], rtol=1e-10, atol=1e-13)


def test_the_gradient_is_the_derivative_of_the_value(problem, rng):
    x, out, u = problem.x0(rng), np.empty(problem.dim), rng.standard_normal(problem.dim)
    problem.value_and_gradient(x, None, None, out)
    h = 1e-5
    slope = (problem.value(x + h * u) - problem.value(x - h * u)) / (2 * h)
    assert abs(slope - out @ u) < 1e-7 * abs(slope)


@pytest.mark.parametrize("estimator", [SVRG(2), SAGA("gradients")], ids=repr)
def test_estimates_are_unbiased_with_batch_norm_and_dropout(problem, rng, estimator):
    x, g, full = problem.x0(rng), np.empty(problem.dim), np.empty(problem.dim)
    estimator.start(problem, x, 7)
    for k in (3, 1, 4):
        estimator(x, Batch(np.array([k])), g)
        x -= 0.2 * g
    problem.value_and_gradient(x, None, None, full)
    kept, seen = estimator.state(), []
    kept = {name: value.copy() if hasattr(value, "copy") else value for name, value in kept.items()}
    for k in range(problem.n):
        estimator(x, Batch(np.array([k])), g)
        seen.append(g.copy())
        estimator.load_state(kept)
    np.testing.assert_allclose(np.mean(seen, 0), full, rtol=1e-9, atol=1e-12)
    assert np.ptp(seen, 0).max() > 1e-3
    spread = np.mean([np.sum((row - full) ** 2) for row in seen])
    np.testing.assert_allclose(estimator.variance(x), spread, rtol=1e-9)


def test_right_after_a_snapshot_every_batch_gives_the_full_gradient(problem, rng):
    x, g = problem.x0(rng), np.empty(problem.dim)
    full = gradients(problem, x).mean(0)
    for k in range(problem.n):
        estimator = SVRG(1)
        estimator.start(problem, x, 0)
        estimator(x, Batch(np.array([k])), g)
        np.testing.assert_allclose(g, full, rtol=1e-10, atol=1e-13)
        assert estimator.variance(x) == 0


def test_variances_are_those_of_all_batches_or_of_a_sample(problem, rng):
    x, old, table = problem.x0(rng), problem.x0(rng), rng.standard_normal((5, problem.dim))
    fresh = gradients(problem, x)
    for before, given in ((0, None), (gradients(problem, old), old), (table, table)):
        change = fresh - before
        exact = np.mean(np.sum((change - change.mean(0)) ** 2, 1))
        np.testing.assert_allclose(problem.gradient_variance(x, given), exact, rtol=1e-10)
    # the mean over all samples of 3 of the 5 is the exact number
    change = fresh - table
    means = [4 / 5 * change[list(some)].var(0, ddof=1).sum() for some in itertools.combinations(range(5), 3)]
    exact = change.var(0).sum()
    np.testing.assert_allclose(np.mean(means), exact, rtol=1e-10)
    part = Batched(problem.problem, 4, seed=3, sampled=3)
    assert any(abs(part.gradient_variance(x, table) - one) < 1e-10 * one for one in means)


def slow_svrg(problem, x, keys, lr, m):
    for t, k in enumerate(keys):
        if t % m == 0:
            snapshot, full = x.copy(), gradients(problem, x).mean(0)
        x = x - lr * (gradients(problem, x)[k] - gradients(problem, snapshot)[k] + full)
    return x


def test_svrg_on_batches_takes_the_papers_steps(problem, rng):
    sampler, x0 = WithReplacement(1), problem.x0(rng)
    problem.x0 = lambda rng: x0.copy()
    run = minimize(problem, SGD(), sampler, 0.07, estimator=SVRG(1.4), stop=Stop(steps=16), seed=5)
    sampler.start(problem, 5)
    keys = [int(batch.rows[0]) for batch in sampler.take(16)]
    again = Batched(problem.problem, 4, seed=3)
    again.set_seed(5)
    again.begin(0)
    np.testing.assert_allclose(run.x, slow_svrg(again, x0, keys, 0.07, 7), rtol=1e-9, atol=1e-12)
    assert run.final["gradients"] == 16 * 2 + 3 * 5


def test_masks_stay_for_lock_steps(rng):
    problem = Batched(network(rng), 4, lock=3)
    x, seen = problem.x0(rng), []
    for t in range(7):
        problem.begin(t)
        seen.append(problem.value(x, np.array([1])))
        problem.commit()
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


def test_svrg_is_unbiased_after_the_masks_have_changed(rng):
    problem, estimator = Batched(network(rng), 4, lock=10), SVRG(1)
    x, g, full = problem.x0(rng), np.empty(problem.dim), np.empty(problem.dim)
    estimator.start(problem, x, 7)
    for t in range(12):
        problem.begin(t)
        estimator(x, Batch(np.array([t % 5])), g)
        x -= 0.05 * g
    problem.value_and_gradient(x, None, None, full)
    change = gradients(problem, x) - gradients(problem, estimator.snapshot)
    np.testing.assert_allclose(change.mean(0) + estimator.G, full, rtol=1e-9, atol=1e-12)


def test_metrics_are_the_others_with_the_plain_variance(rng):
    inner = network(rng)
    problem, x = Batched(inner, 4, plain=True), inner.x0(rng)
    problem.begin(0)
    found = problem.metrics(x)
    assert found.pop("plain_variance") == problem.gradient_variance(x) > 0
    assert found == inner.metrics(x) and Batched(inner, 4).metrics(x) == found


def test_statistics_are_taken_over_the_rows_of_the_batches(problem, rng):
    x, inner = problem.x0(rng), problem.problem
    problem.recalibrate(x, np.array([3, 1]))
    found = {name: {k: v.copy() for k, v in kept.items()} for name, kept in inner.network.state().items()}
    inner.recalibrate(x)
    assert any(np.any(found[n][k] != v) for n, kept in inner.network.state().items() for k, v in kept.items())
    inner.recalibrate(x, np.concatenate([problem.batches[3], problem.batches[1]]))
    for name, kept in inner.network.state().items():
        for key, value in kept.items():
            np.testing.assert_array_equal(found[name][key], value)


def test_a_run_goes_on_bit_for_bit(rng, tmp_path):
    def run(steps, path):
        problem = Batched(network(np.random.default_rng(4), dtype="float32"), 4, lock=5, plain=True)
        events = Events(3, "step", checkpoint=path, variance=True)
        return minimize(
            problem, SGD(), RandomReshuffling(1), 0.1, estimator=SVRG(1), stop=Stop(steps=steps), events=events, seed=2
        )

    whole = run(12, tmp_path / "whole.npz")
    run(7, tmp_path / "parts.npz")
    parts = run(12, tmp_path / "parts.npz")
    assert np.array_equal(whole.x, parts.x)
    assert whole.columns["variance"][-1] == parts.columns["variance"][-1] > 0


def test_what_does_not_fit_is_one_sentence(problem, rng):
    x, out = problem.x0(rng), np.empty(problem.dim)
    with pytest.raises(UserError, match="inputs and dinputs are those of rows"):
        problem.value_and_gradient(x, None, None, out, dinputs=np.empty((5, 5)))
    with pytest.raises(UserError, match="drawn uniformly"):
        problem.gradient_variance(x, None, np.full(5, 0.2))
    with pytest.raises(UserError, match="a batch of 24 rows is more than the 23"):
        Batched(problem.problem, 24)
    with pytest.raises(UserError, match="size must be a whole number"):
        Batched(problem.problem, 0)
    with pytest.raises(UserError, match="sampled must be a whole number of at least 2"):
        Batched(problem.problem, 4, sampled=1)
    with pytest.raises(UserError, match="has no variance"):
        Batched(problem.problem, 20).gradient_variance(x)
    saga = dict(estimator=SAGA("gradients", initial="zeros"), events=Events(variance=True))
    with pytest.raises(UserError, match="the table holds 3 gradients"):
        minimize(problem, SGD(), ShuffleOnce(2), 0.1, stop=Stop(steps=4), **saga)
    with pytest.raises(UserError, match="every 3 steps, within stages of 7"):
        minimize(Batched(problem.problem, 4, lock=3), SGD(), WithReplacement(1), 0.1, SVRG(1.4), stop=Stop(steps=4))
    linear = Batched(LeastSquares(rng.standard_normal((9, 2)), rng.standard_normal(9)), 4)
    x = linear.x0(rng)
    estimator = Minibatch()
    estimator.start(linear, x, 0)
    assert estimator.variance(x) > 0
