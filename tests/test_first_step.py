"""A method that somebody writes: one whose first step moves nothing is told so, and the others are left alone."""

import linecache
import subprocess
import sys

from npopt import (
    EMA,
    SGD,
    Events,
    Lookahead,
    Minibatch,
    RandomReshuffling,
    Stop,
    backend,
    minimize,
)
from npopt.optimizers import BySegment, Optimizer
from npopt.optimizers.base import Witness
from npopt.schedules import Schedule
from problems import LeastSquares

import numpy as np
import pytest
import strict_moves


class Rebound(Optimizer):
    def update(self, x, g, lr):
        x = x - lr * g


class Returned(Optimizer):
    def update(self, x, g, lr):
        return x - lr * g


class Stepped(Optimizer):
    def step(self, x, g, lr):
        self.t += 1
        x = x - lr * g


class Segmented(BySegment):
    def update_segment(self, segment, x, g, lr):
        x = x - lr * g


class Averaged(Optimizer):
    arrays = ("m",)

    def update(self, x, g, lr, m):
        m *= 0.9
        m += g
        x = x - lr * m


class Copied(Optimizer):
    def update(self, x, g, lr):
        x = x.reshape(2, -1).copy()
        x -= lr * g.reshape(2, -1)


class Chosen(Optimizer):
    """By a list of indices, which is a copy."""

    def update(self, x, g, lr):
        x = x[[3, 2, 1, 0]]
        x -= lr * g[::-1]


class ViewThenLost(Optimizer):
    def update(self, x, g, lr):
        x = x.reshape(2, -1)
        x = x - lr * g.reshape(2, -1)


class Viewed(Optimizer):
    """Through a view of the same memory, at every third step."""

    arrays = ("m",)

    def update(self, x, g, lr, m):
        rows = 2
        x = x.reshape(rows, -1)
        m += g
        if self.t % 3 == 0:
            x -= lr * m.reshape(rows, -1) / 3
            m[...] = 0
        return x


class ViewedOften(Optimizer):
    arrays = ("m",)

    def update(self, x, g, lr, m):
        x = x[:]
        x = x.reshape(len(g), self.t - self.t + 1).T.ravel()
        m += g
        if self.t % 2 == 0:
            x -= lr * m


class Nothing(Optimizer):
    def update(self, x, g, lr):
        lr * g


class Warmed(Optimizer):
    """With a warm-up of its own, from 0."""

    def update(self, x, g, lr):
        x -= lr * min(1, (self.t - 1) / 4) * g


class Subtracted(Optimizer):
    def update(self, x, g, lr):
        x -= lr * g


class Assigned(Optimizer):
    def update(self, x, g, lr):
        x[...] = x - lr * g


class Gathered(Optimizer):
    """Moves at every third step."""

    arrays = ("m",)

    def update(self, x, g, lr, m):
        m += g
        if self.t % 3 == 0:
            x -= lr * m / 3
            m[...] = 0


class Counted(Optimizer):
    numbers = {"seen": 0}

    def update(self, x, g, lr):
        self.seen += 1
        if self.seen > 2:
            x -= lr * g


class Late(Schedule):
    """The first step at rate 0."""

    def at(self, k):
        return 0.05 if k else 0.0


class Patient(Minibatch):
    """Lets a step be taken at every third batch."""

    def __call__(self, x, batch, out):
        self.seen = getattr(self, "seen", 0) + 1
        self.skip = self.seen % 3 != 0
        return super().__call__(x, batch, out)


def problem():
    rng = np.random.default_rng(2)
    return LeastSquares(rng.standard_normal((20, 4)), rng.standard_normal(20), 0.1)


def run(optimizer, schedule=0.05, **more):
    return minimize(problem(), optimizer, RandomReshuffling(5), schedule, stop=Stop(steps=7), seed=4, **more)


@pytest.mark.parametrize(
    "method",
    [
        Rebound(),
        Returned(),
        Stepped(),
        Segmented(),
        Averaged(),
        Copied(),
        Chosen(),
        ViewThenLost(),
        EMA(Rebound()),
        Lookahead(Averaged(), 1),
        Lookahead(EMA(Returned())),
    ],
)
@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_an_update_that_moves_nothing_is_told_what_to_write(method, where):
    backend.use(where)
    try:
        with pytest.raises(ValueError, match=r"first step left x as it was.*x -= lr \* g or x\[...\] = x - lr"):
            run(method)
    finally:
        backend.use("cpu")


@pytest.mark.parametrize(
    "method, schedule",
    [
        (Subtracted(), 0.05),
        (Assigned(), 0.05),
        (Gathered(), 0.05),
        (Counted(), 0.05),
        (EMA(Gathered()), 0.05),
        (Viewed(), 0.05),
        (ViewedOften(), 0.05),
        (Lookahead(Subtracted(), 5), 0.05),
        (Subtracted(), Late()),
        (Rebound(), 0.0),
        (SGD(), 0.05),
    ],
)
@pytest.mark.filterwarnings("error")
def test_methods_that_rightly_leave_x_are_not_refused(method, schedule):
    assert run(method, schedule).reason == "steps"


@pytest.mark.parametrize("method", [Nothing(), Warmed(), Lookahead(Nothing(), 1)])
def test_where_it_may_be_meant_it_is_a_warning(method):
    with pytest.warns(UserWarning, match="first step left x as it was"):
        run(method)


@pytest.mark.filterwarnings("error")
def test_a_step_below_rounding_is_not_refused():
    x = np.ones(4)
    end = minimize(problem(), Subtracted(), RandomReshuffling(5), 1e-30, stop=Stop(steps=2), x=x)
    np.testing.assert_array_equal(end.x, x)


@pytest.mark.filterwarnings("error")
def test_no_gradient_is_no_reason():
    still = LeastSquares(np.eye(4), np.zeros(4), 0.1)  # its minimum is 0, the start
    assert minimize(still, Rebound(), None, 0.1, stop=Stop(steps=2)).reason == "steps"


def test_the_first_step_with_a_rate_is_looked_at():
    assert run(Subtracted(), Late()).reason == "steps"
    with pytest.raises(ValueError, match="left x as it was"):
        run(Rebound(), Late())


def test_skipped_steps_are_waited_for():
    assert run(Subtracted(), estimator=Patient()).reason == "steps"
    with pytest.raises(ValueError, match="left x as it was"):
        run(Rebound(), estimator=Patient())


def test_it_looks_once_and_changes_nothing(monkeypatch):
    made, first = [], Witness.__init__
    monkeypatch.setattr(Witness, "__init__", lambda self, *given: (made.append(1), first(self, *given))[1])
    ours, theirs = run(Subtracted()), run(SGD())
    assert len(made) == 1
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-13)


def test_on_a_device_it_reads_one_number():
    found = []
    backend.use("strict")
    try:
        for method in (SGD(), Subtracted(), Gathered()):
            with strict_moves.counted() as moves:
                run(method, events=Events(None))
            assert not moves.in_steps()[0] and not moves.waits
            found.append([move.size for move in moves.reads if "base.check" in move.stack])
    finally:
        backend.use("cpu")
    assert found == [[], [1], [1]]


FORMULA = """
from npopt import elementwise
@elementwise
def halve(x):
    x = x / 2
    return x

"""


def test_a_formula_typed_at_the_prompt():
    """Where Python keeps what was typed, as newer prompts and notebooks do, it is taken; else one sentence says so."""
    name, space = "<python-input-7>", {}
    linecache.cache[name] = len(FORMULA), None, FORMULA.splitlines(True), name
    try:
        exec(compile(FORMULA, name, "exec"), space)
    finally:
        del linecache.cache[name]
    x = np.array([2.0, 3.0])
    space["halve"](x)
    np.testing.assert_array_equal(x, [1.0, 1.5])
    with pytest.raises(ValueError, match="halve: Python keeps no source.*put the formula into a file"):
        exec(compile(FORMULA, "<another>", "exec"), {})
    if sys.version_info < (3, 13):
        done = subprocess.run([sys.executable, "-iq"], input=FORMULA, capture_output=True, text=True)
        assert "put the formula into a file" in done.stderr and "could not get source" not in done.stderr
