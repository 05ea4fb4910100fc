"""Compiled stretches: equal to the Python loop on the same rows, for every loss, penalty, storage and batch size."""

import functools
import itertools

from npopt import (
    L1,
    L1L2,
    L2,
    SAGA,
    SGD,
    SVRG,
    Exponential,
    HeavyBall,
    Minibatch,
    Nesterov,
    Proximal,
    RandomReshuffling,
    Stop,
    minimize,
)
from problems import LeastSquares, LinearModel, Logistic
from problems.linear import Huber, SquaredHinge, stretches
from problems.linear.dense import dense_stretch
from problems.linear.single import single_stretch
from problems.linear.sparse import sparse_stretch
from problems.linear.steps import Batches, Memory, Rule, caught_up

import numpy as np
import pytest
import scipy.sparse

N, D = 60, 12


def make(loss, sparse, rng, dtype=np.float64, **more):
    """Data with an empty row and an empty column; None as metrics, which are not the question here."""
    X = rng.standard_normal((N, D)) * (rng.random((N, D)) < 0.4)
    X[3], X[:, 2] = 0, 0
    y = {
        "squares": rng.standard_normal(N),
        "binary": np.where(rng.random(N) < 0.4, -1, 1),
        "classes": np.r_[0, 1, 2, rng.integers(0, 3, N - 3)],
    }[{"huber": "squares", "hinge": "binary"}.get(loss, loss)]
    X = X.astype(dtype)
    model = {
        "squares": LeastSquares,
        "huber": functools.partial(LinearModel, loss=Huber(0.6)),
        "hinge": functools.partial(LinearModel, loss=SquaredHinge()),
    }.get(loss, Logistic)
    problem = model(scipy.sparse.csr_matrix(X) if sparse else X, y, **more)
    problem.metrics = lambda x: {}
    return problem


def in_python(problem):
    """The same problem, whose steps the loop has to make one by one."""
    problem.__class__ = type("InPython", (type(problem),), {"takes_stretches": lambda self, *_: False})
    return problem


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("penalty", [None, L1(0.02), L2(0.1), L1L2(0.01, 0.05)], ids=repr)
@pytest.mark.parametrize(
    "loss, sparse", list(itertools.product(["squares", "binary", "classes", "huber", "hinge"], [0, 1]))
)
def test_compiled_steps_are_those_of_the_loop(loss, sparse, penalty, size, rng):
    for intercept, weights in ((False, None), (True, rng.random(N) + 0.1)):
        problem = make(loss, sparse, rng, l2=0.1, intercept=intercept, regulariser=penalty)

        class Weighted(RandomReshuffling):
            def epoch(self, e, weights=weights):
                order, _ = super().epoch(e)
                return order, None if weights is None else weights[order]

        rates = Exponential(0.3 / problem.row_smoothness().max(), 0.9)
        common = dict(optimizer=Proximal(SGD()), sampler=Weighted(size), schedule=rates, seed=3, stop=Stop(epochs=6))
        for estimator in (Minibatch(), SVRG(1.3, "II"), SAGA(refresh=2.5)):
            fast = minimize(problem, **common, estimator=estimator)
            slow = minimize(in_python(problem), **common, estimator=estimator)
            problem.__class__ = type(problem).__bases__[0]
            assert (fast.loop, slow.loop) == ("compiled", "python")
            np.testing.assert_allclose(fast.x, slow.x, rtol=1e-12, atol=1e-13)
            for name in ("gradients", "step", "epoch", "lr"):
                assert fast.columns[name] == slow.columns[name]
            if not sparse:  # on sparse rows the l2 term of the loss is an older one
                np.testing.assert_allclose(fast.columns["loss"][1:], slow.columns["loss"][1:], rtol=1e-12)


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("loss", ["squares", "classes"])
def test_steps_with_momentum_are_those_of_the_loop(loss, size, rng):
    class Weighted(RandomReshuffling):
        def epoch(self, e):
            order, _ = super().epoch(e)
            return order, weights[order]

    problem, weights = make(loss, False, rng, l2=0.1, intercept=True), rng.random(N) + 0.1
    rates = Exponential(0.1 / problem.row_smoothness().max(), 0.9)
    common = dict(optimizer=HeavyBall(0.7), schedule=rates, seed=3, stop=Stop(epochs=6))
    for estimator in (Minibatch(), SVRG(1.3), SAGA(refresh=2.5)):
        fast = minimize(problem, **common, sampler=Weighted(size), estimator=estimator)
        slow = minimize(in_python(problem), **common, sampler=Weighted(size), estimator=estimator)
        problem.__class__ = type(problem).__bases__[0]
        assert (fast.loop, slow.loop) == ("compiled", "python")
        np.testing.assert_allclose(fast.x, slow.x, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(fast.columns["loss"][1:], slow.columns["loss"][1:], rtol=1e-12)


def test_momentum_on_sparse_rows_and_other_methods_go_through_the_loop(rng):
    for sparse, optimizer in ((True, HeavyBall()), (False, Nesterov())):
        problem = make("squares", sparse, rng)
        assert minimize(problem, optimizer, RandomReshuffling(1), 1e-3, stop=Stop(epochs=1)).loop == "python"


class Twice(SGD):
    def update(self, x, g, lr):
        x -= 2 * lr * g


class Halved(Minibatch):
    def again(self, y, out):
        loss = super().again(y, out)
        out *= 0.5
        return loss


def test_what_a_subclass_overrides_is_called(rng):
    problem, found = make("squares", False, rng), []
    for optimizer, estimator in (
        (Twice(), None),
        (Proximal(Twice()), None),
        (SGD(), Halved()),
        (HeavyBall(0.0), Halved()),
    ):
        rate = 0.001 if estimator is None else 0.004
        run = minimize(problem, optimizer, RandomReshuffling(1), rate, estimator, stop=Stop(epochs=1))
        assert run.loop == "python"
        found.append(run.x)
    np.testing.assert_allclose(found[1:], found[:1] * 3, rtol=1e-12)


def test_momentum_resumes_where_a_stretch_ended(rng, tmp_path):
    problem = make("binary", False, rng, l2=0.1)
    common = dict(optimizer=HeavyBall(0.8), sampler=RandomReshuffling(7), schedule=0.05)
    minimize(problem, **common, stop=Stop(epochs=2), events=dict(checkpoint=tmp_path / "c.npz"))
    resumed = minimize(problem, **common, stop=Stop(epochs=4), events=dict(checkpoint=tmp_path / "c.npz"))
    np.testing.assert_array_equal(resumed.x, minimize(problem, **common, stop=Stop(epochs=4)).x)


def test_losses_on_sparse_rows_lack_only_the_change_of_the_l2_term(rng):
    problem = make("binary", True, rng, l2=0.1)
    x, rows = rng.standard_normal(D), rng.integers(0, N, 40)
    losses, at = problem.compiled_stretch(x.copy(), rows, None, np.full(40, 0.05)), x.copy()
    g = np.empty(D)
    for t in range(40):
        exact = problem.value_and_gradient(at, rows[t : t + 1], None, g) - 0.05 * (at @ at) + 0.05 * (x @ x)
        assert losses[t] == pytest.approx(exact, rel=1e-12)
        at -= 0.05 * g


@pytest.mark.parametrize("l1", [0.0, 0.3])
def test_catching_up_equals_the_steps_one_by_one(l1, rng):
    for _ in range(3000):
        steps = int(rng.integers(1, 25))
        d = rng.random(steps) * 0.4 + 1e-3
        v = w = rng.standard_normal() * (rng.random() < 0.9)
        m = rng.standard_normal() * (rng.random() < 0.9) * 0.5
        C = np.concatenate([[0.0], np.cumsum(d)])
        first = int(rng.integers(0, steps + 1))
        for t in range(first, steps):
            u = w - d[t] * m
            w = np.sign(u) * max(abs(u) - d[t] * l1, 0)
        assert caught_up(v, m, C, first, steps, l1) == pytest.approx(w, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("penalty", [None, L1(0.05)], ids=repr)
def test_the_scale_may_shrink_below_every_float(penalty, rng):
    """4,000 steps of x <- x/2 - ...: the scale alone would be 1e-1204."""
    problem = make("squares", True, rng, l2=5.0, regulariser=penalty)
    x, y, rows = np.ones(D), np.ones(D), rng.integers(0, N, 4000)
    problem.compiled_stretch(x, rows, None, np.full(4000, 0.1))
    g = np.empty(D)
    for t in range(4000):
        problem.value_and_gradient(y, rows[t : t + 1], None, g)
        y -= 0.1 * g
        problem.prox(y, 0.1)
    np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)


def test_steps_beyond_one_over_l2_are_made_one_by_one(rng):
    for rate in (0.25, 0.2):  # 1 - lr l2 is -0.25 and 0
        problem = make("squares", True, rng, l2=5.0)
        fast = minimize(problem, SGD(), RandomReshuffling(1), rate / 4, SAGA(), stop=Stop(epochs=2))
        assert problem.allows(np.array([0.1]), None) and not problem.allows(np.array([rate]), None)
        problem.host_X *= 0.1  # so that such a step is stable
        problem = LeastSquares(problem.host_X, problem.host_y, l2=5.0)
        runs = [
            minimize(p, SGD(), RandomReshuffling(3), rate, e, stop=Stop(epochs=4)).x
            for p in (problem, in_python(LeastSquares(problem.host_X, problem.host_y, l2=5.0)))
            for e in (SAGA(), SVRG(1.5))
        ]
        np.testing.assert_array_equal(runs[:2], runs[2:])
        assert np.isfinite(fast.x).all() and np.isfinite(runs).all()


def test_the_compiled_loops_say_the_same_without_the_compiler(rng):
    rule = Rule(np.full(9, 0.2), l2=0.1, l1=0.05, ridge=0.07, beta=0.0)
    for loss, size, loop in (
        ("binary", 1, single_stretch),
        ("huber", 1, single_stretch),
        ("classes", 3, sparse_stretch),
        ("classes", 3, dense_stretch),
    ):
        problem, found = make(loss, loop is not dense_stretch, rng, intercept=True), []
        data, batches = problem.stretch_data(), Batches(rng.integers(0, N, 9 * size), np.empty(0), size)
        for run in (loop, stretches.loop(problem.loss, data, single=size == 1)):
            memory = Memory(np.full((N, problem.outputs), 0.2), np.full(problem.dim, 0.1), True, np.empty(0))
            x, losses = np.ones(problem.dim), np.empty(9)
            assert run(problem.loss, data, x, batches, rule, memory, losses) == 9
            found.append((x, memory.mean, memory.table.ravel(), losses))
        for plain, fast in zip(*found, strict=True):
            np.testing.assert_allclose(plain, fast, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("sparse", [False, True])
def test_float32_stays_close_to_float64(sparse, rng):
    found = []
    for dtype in (np.float32, np.float64):
        problem = make("binary", sparse, np.random.default_rng(5), dtype, l2=0.1, regulariser=L1(0.01))
        run = minimize(problem, Proximal(SGD()), RandomReshuffling(1), 0.05, SAGA(), stop=Stop(epochs=5))
        assert run.x.dtype == dtype and run.loop == "compiled"
        found.append(run.x)
    np.testing.assert_allclose(found[0], found[1], atol=2e-6)


def test_a_run_that_diverges_stops_before_the_step_of_the_bad_loss(rng):
    for sparse in (False, True):
        problem = make("squares", sparse, rng)
        common = dict(optimizer=SGD(), sampler=RandomReshuffling(1), schedule=1e6, stop=Stop(epochs=50))
        fast, slow = minimize(problem, **common), minimize(in_python(problem), **common)
        assert fast.diverged and slow.diverged and fast.loop == "compiled"
        for name in ("step", "epoch", "gradients"):
            assert fast.final[name] == slow.final[name]
        np.testing.assert_allclose(fast.x, slow.x, rtol=1e-10)


def test_a_stretch_ends_with_the_loss_that_is_not_finite(rng):
    """Whichever piece of it that loss is in: SAGA's mean is summed anew every 20 steps here."""
    problem = make("squares", True, rng)
    x = np.zeros(D)
    estimator = SAGA(refresh=20 / N)
    estimator.start(problem, x, 0)
    sampler = RandomReshuffling(1)
    sampler.start(problem, 0)
    stretch = estimator.compiled(SGD(), sampler)
    rates = np.full(200, 1e-3)
    rates[30:] = 1e30
    losses = stretch(x, np.arange(200) % N, None, rates)
    assert 31 <= len(losses) < 60 and np.isfinite(losses[:-1]).all() and not np.isfinite(losses[-1])
    assert estimator.counts["gradients"] == N + len(losses) and np.isfinite(x).all()


def test_stretches_end_where_the_clock_has_no_say(rng, monkeypatch):
    """Metrics twice an epoch and LONGEST in between: the losses and x of a run repeat bit for bit."""
    import sys

    problem = make("binary", True, rng, l2=0.1)
    loop, found = sys.modules["npopt.minimize"], []
    for seconds in (0.5, 1e-9):
        monkeypatch.setattr(loop, "STRETCH", seconds)
        monkeypatch.setattr(loop, "LONGEST", 7)
        run = minimize(problem, SGD(), RandomReshuffling(1), 0.1, SAGA(), stop=Stop(epochs=5), events=dict(metrics=0.5))
        found.append((run.x, run.columns["loss"][1:], run.final["step"]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:] and found[0][2] == 5 * N


def test_takes_stretches_says_which_problems_do(rng):
    assert make("squares", True, rng).takes_stretches(1) and isinstance(make("squares", True, rng), LinearModel)
    assert not in_python(make("squares", True, rng)).takes_stretches(1)
