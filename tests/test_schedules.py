"""The rate at steps 0, 1, the end of the warm-up, and the last: a table, from the equations."""

import math

from npopt import Constant, Cosine, Exponential, Linear, Piecewise, Polynomial, WithWarmup

import pytest

# schedule, {step: rate}; the run has 40 steps, 10 an epoch
TABLE = [
    (Constant(0.3), {0: 0.3, 1: 0.3, 39: 0.3}),
    (Exponential(1.0, 0.5), {0: 1, 9: 1, 10: 0.5, 39: 0.125}),
    (Exponential(1.0, 0.5, floor=0.2), {10: 0.5, 20: 0.25, 30: 0.2, 39: 0.2}),
    (Exponential(1.0, 0.9, per="step"), {0: 1, 1: 0.9, 39: 0.9**39}),
    (Piecewise(1.0, (1, 3), 0.1), {0: 1, 9: 1, 10: 0.1, 29: 0.1, 30: 0.01, 39: 0.01}),
    (Piecewise(1.0, (5, 7), 0.5, per="step"), {4: 1, 5: 0.5, 6: 0.5, 7: 0.25, 39: 0.25}),
    (Polynomial(2.0, 2, 1.0), {0: 2, 1: 1 + (39 / 40) ** 2, 39: 1 + (1 / 40) ** 2}),
    (Polynomial(2.0, 0.9, length=20), {0: 2, 10: 2 * 0.5**0.9, 20: 0, 39: 0}),
    (Linear(1.0), {0: 1, 1: 39 / 40, 39: 1 / 40}),
    (Linear(1.0, 0.2, per="epoch"), {0: 1, 9: 1, 10: 0.8, 39: 0.4}),
    (Cosine(1.0), {0: 1, 1: (1 + math.cos(math.pi / 40)) / 2, 20: 0.5, 39: (1 + math.cos(math.pi * 39 / 40)) / 2}),
    (Cosine(1.0, 0.2, length=10), {5: 0.6, 10: 0.2, 39: 0.2}),
    (Cosine(1.0, per="epoch"), {9: 1, 10: (1 + math.cos(math.pi / 4)) / 2, 20: 0.5}),
    (WithWarmup(Constant(0.8), 4), {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8, 39: 0.8}),
    (WithWarmup(0.8, 4, begin=0.4), {0: 0.5, 1: 0.6, 3: 0.8, 4: 0.8}),
    (WithWarmup(Linear(1.0), 8), {0: 1 / 8, 7: 1, 8: 1, 9: 31 / 32, 39: 1 / 32}),
    (WithWarmup(Cosine(1.0, per="epoch"), 1, per="epoch"), {0: 1, 9: 1, 10: 1, 20: 0.75, 39: 0.25}),
    (WithWarmup(Constant(1.0), 2, per="epoch"), {0: 0.5, 9: 0.5, 10: 1, 39: 1}),
]


@pytest.mark.parametrize("schedule, table", TABLE, ids=lambda v: repr(v) if not isinstance(v, dict) else "")
def test_table(schedule, table):
    schedule.start(10, 40)
    for t, rate in table.items():
        assert schedule(t) == pytest.approx(rate, rel=1e-12), t
    assert [schedule(t) for t in range(40)] == [schedule(t) for t in range(40)]       # drawing it changes nothing


def test_a_schedule_that_needs_the_length_says_so():
    cosine = Cosine(1.0)
    cosine.start(10, None)
    with pytest.raises(ValueError, match="length of the run is not known"):
        cosine(0)
    known = Cosine(1.0, length=4)
    known.start(10, None)
    assert known(2) == pytest.approx(0.5)


@pytest.mark.parametrize("wrong, message", [
    (lambda: Constant(-0.1), "Constant: lr must lie in"), (lambda: Constant(float("nan")), "Constant: lr must lie in"),
    (lambda: Cosine(0.1, length=0), "length"), (lambda: Linear(0.1, per="batch"), "per must be"),
    (lambda: Piecewise(1.0, (3, 2)), "milestones must rise"),
    (lambda: Piecewise(1.0, 5), "milestones must be"),
    (lambda: Piecewise(1.0, (float("nan"),)), "a milestone must lie in"),
    (lambda: Constant(float("inf")), "lr must lie"),
    (lambda: Polynomial(1.0, 0), "power"),
    (lambda: WithWarmup(-1.0, 3), "lr must lie in"),
])
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_a_run_no_longer_than_its_warm_up_still_moves(steps):
    schedule = WithWarmup(Cosine(0.1), 10)
    schedule.start(5, steps)
    assert [schedule(t) for t in range(steps)] == pytest.approx([0.01 * (t + 1) for t in range(steps)])
