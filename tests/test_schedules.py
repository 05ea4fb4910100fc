"""The rate at steps 0, 1, the end of the warm-up, and the last: a table, from the equations."""

import math

from npopt import (
    Adam,
    Anderson,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclical,
    Exponential,
    HeavyBall,
    InverseSquareRoot,
    JaggedCosine,
    Linear,
    OneCycle,
    Piecewise,
    Polynomial,
    RandomReshuffling,
    Stop,
    WithWarmup,
    minimize,
    range_test,
)
from problems import Lasso, LeastSquares
from problems.classifiers import perceptron

import numpy as np
import pytest


def half(k):
    """Half a cosine, from 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * k)) / 2


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
    (InverseSquareRoot(1.0), {0: 1, 1: 0.5**0.5, 3: 0.5, 39: 40**-0.5}),
    (InverseSquareRoot(1.0, cap=0.5, per="epoch"), {0: 0.5, 20: 0.5, 30: 0.5, 39: 0.5}),
    (WithWarmup(InverseSquareRoot(0.8), 4), {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8, 39: 0.8 / 6}),
    (InverseSquareRoot(0.8, warmup=4), {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8 * 0.8**0.5, 15: 0.4, 39: 0.8 / 10**0.5}),
    (InverseSquareRoot(0.8, 0.5, warmup=4), {0: 0.2, 1: 0.4, 3: 0.5, 4: 0.5, 15: 0.4, 39: 0.8 / 10**0.5}),
    (InverseSquareRoot(0.8, per="epoch", warmup=2), {0: 0.4, 10: 0.8, 20: 0.8 * (2 / 3) ** 0.5, 39: 0.8 / 2**0.5}),
    (CosineRestarts(1.0, 1), {0: 1, 1: (1 + math.cos(math.pi / 10)) / 2, 5: 0.5, 10: 1, 15: 0.5, 39: half(0.9)}),
    (CosineRestarts(1.0, 1, grow=2), {0: 1, 9: half(0.9), 10: 1, 20: 0.5, 29: half(0.95), 30: 1, 39: half(9 / 40)}),
    (CosineRestarts(2.0, 0.5, end=1.0), {0: 2, 1: 1 + half(0.2), 4: 1 + half(0.8), 5: 2, 39: 1 + half(0.8)}),
    (CosineRestarts(1.0, 8, unit="step", grow=1.5), {0: 1, 7: half(7 / 8), 8: 1, 20: 1, 38: 1, 39: half(1 / 27)}),
    (CosineRestarts(1.0, 2, per="epoch"), {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 1, 39: 0.5}),
    (WithWarmup(CosineRestarts(1.0, 1), 5), {0: 0.2, 4: 1, 5: 1, 10: 0.5, 15: 1, 39: half(0.4)}),
    (JaggedCosine(1.0, 16, 4, 8), {0: 1 / 8, 7: 1, 8: 1, 15: half(7 / 32), 16: half(12 / 32) / 4, 19: half(12 / 32)}),
    (
        JaggedCosine(1.0, 16, 4, 8),
        {20: half(12 / 32), 24: 0.5, 31: half(23 / 32), 32: half(28 / 32) / 4, 39: half(31 / 32)},
    ),
    (
        JaggedCosine(2.0, 10, 5, end=1.0, length=25),
        {4: 2, 5: 2, 14: 1.5, 15: 1.5, 19: 1 + half(14 / 20), 22: 0.6, 24: 1, 39: 1},
    ),
    (Cyclical(1.0, 3.0, 5), {0: 1, 1: 1.4, 5: 3, 6: 2.6, 10: 1, 15: 3, 39: 1.4}),
    (Cyclical(1.0, 3.0, 5, "triangular2"), {0: 1, 5: 3, 10: 1, 15: 2, 25: 1.5, 35: 1.25, 39: 1.05}),
    (Cyclical(1.0, 3.0, 5, "exp_range", 0.9), {0: 1, 5: 1 + 2 * 0.9**5, 15: 1 + 2 * 0.9**15, 39: 1 + 0.4 * 0.9**39}),
    (Cyclical(1.0, 3.0, 2, down=6), {0: 1, 1: 2, 2: 3, 3: 3 - 1 / 3, 7: 1 + 1 / 3, 8: 1, 10: 3, 39: 1 + 1 / 3}),
    (Cyclical(1.0, 3.0, 6, "triangular2", down=2), {0: 1, 3: 2, 6: 3, 7: 2, 8: 1, 14: 2, 22: 1.5, 39: 1 + 1 / 16}),
    (Cyclical(1.0, 3.0, 6, "exp_range", 0.9, 2), {6: 1 + 2 * 0.9**6, 7: 1 + 0.9**7, 8: 1, 39: 1 + 0.9**39}),
    (OneCycle(1.0, 10, 100, 0.25, phases=3), {0: 0.1, 1: 0.19, 10: 1, 11: 0.91, 20: 0.1, 39: 0.01, 30: 0.1 - 0.9 / 19}),
    (OneCycle(1.0, 10, 100, 0.3, True, phases=3), {0: 0.1, 6: 0.55, 12: 1, 24: 0.1, 27: 0.01 + 0.09 * half(0.2)}),
    (OneCycle(1.0, 10, 100, 0.25, phases=3).mirrored(0.85, 0.95), {5: 0.9, 10: 0.85, 15: 0.9, 20: 0.95, 33: 0.95}),
    (OneCycle(1.0, 10, 100, 0.25), {0: 0.1, 1: 0.19, 5: 0.55, 10: 1, 39: 0.01, 24: 1 - 0.99 * 14 / 29}),
    (OneCycle(1.0, 10, 100, 0.25, cosine=True), {0: 0.1, 5: 0.55, 10: 1, 39: 0.01}),
    (OneCycle(1.0, 10, 100, 0.25).mirrored(0.85, 0.95), {0: 0.95, 5: 0.9, 10: 0.85, 39: 0.95}),
    (OneCycle(1.0, 10, 100, 0.5, length=20), {0: 0.1, 10: 1, 19: 0.01, 39: 0.01}),
]


@pytest.mark.parametrize("schedule, table", TABLE, ids=lambda v: repr(v) if not isinstance(v, dict) else "")
def test_table(schedule, table):
    schedule.start(10, 40)
    for t, rate in table.items():
        assert schedule(t) == pytest.approx(rate, rel=1e-12), t
    assert [schedule(t) for t in range(40)] == [schedule(t) for t in range(40)]  # drawing it changes nothing


def test_a_schedule_that_needs_the_length_says_so():
    cosine = Cosine(1.0)
    cosine.start(10, None)
    with pytest.raises(ValueError, match="length of the run is not known"):
        cosine(0)
    known = Cosine(1.0, length=4)
    known.start(10, None)
    assert known(2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Constant(-0.1), "Constant: lr must lie in"),
        (lambda: Constant(float("nan")), "Constant: lr must lie in"),
        (lambda: Cosine(0.1, length=0), "length"),
        (lambda: Linear(0.1, per="batch"), "per must be"),
        (lambda: Piecewise(1.0, (3, 2)), "milestones must rise"),
        (lambda: Piecewise(1.0, 5), "milestones must be"),
        (lambda: Piecewise(1.0, (float("nan"),)), "a milestone must lie in"),
        (lambda: Constant(float("inf")), "lr must lie"),
        (lambda: Polynomial(1.0, 0), "power"),
        (lambda: WithWarmup(-1.0, 3), "lr must lie in"),
        (lambda: OneCycle(1.0, rise=0.5, phases=3), "rise must lie in"),
        (lambda: OneCycle(1.0, phases=4), "OneCycle: phases must be 2 or 3"),
        (lambda: Cyclical(0.1, 1.0, 5, down=0), "Cyclical: down must be a whole number"),
        (lambda: JaggedCosine(1.0, 5, 6), "JaggedCosine: a warm-up must end within 5 steps"),
        (lambda: InverseSquareRoot(1.0, warmup=-1), "InverseSquareRoot: warmup must be a whole number"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_a_run_no_longer_than_its_warm_up_still_moves(steps):
    schedule = WithWarmup(Cosine(0.1), 10)
    schedule.start(5, steps)
    assert [schedule(t) for t in range(steps)] == pytest.approx([0.01 * (t + 1) for t in range(steps)])


def test_the_inverse_of_the_book():
    """Smith's definition with floor and absolute value, against ours."""
    cyclical, s = Cyclical(0.1, 0.9, 7, "triangular2"), 7
    cyclical.start(10, None)
    for t in range(60):
        c = math.floor(1 + t / (2 * s))
        x = abs(t / s - 2 * c + 1)
        assert cyclical(t) == pytest.approx(0.1 + 0.8 * max(0, 1 - x) * 2.0 ** -(c - 1), rel=1e-12)


def test_one_cycle_moves_momentum_the_other_way():
    rng = np.random.default_rng(0)
    problem, cycle = LeastSquares(rng.standard_normal((40, 3)), rng.standard_normal(40)), OneCycle(0.1, rise=0.4)
    run = minimize(
        problem,
        HeavyBall(0.95),
        RandomReshuffling(8),
        cycle,
        vary={"beta": cycle.mirrored(0.8, 0.95)},
        stop=Stop(epochs=6),
        events=dict(metrics=1, per="step"),
    )
    cycle.start(5, 30)
    assert run.columns["lr"][1:] == pytest.approx([cycle(t) for t in range(30)])
    assert "Mirrored(cycle=OneCycle(high=0.1" in run.config["vary"]["beta"]


@pytest.mark.parametrize(
    "first, grow, steps, unit",
    [
        (0.1, 1, 100, "epoch"),
        (0.3, 1, 1000, "epoch"),
        (0.7, 1, 600, "epoch"),
        (1.1, 1, 600, "epoch"),
        (7, 1, 10, "step"),
        (0.1, 2, 1000, "epoch"),
        (0.3, 1.5, 1000, "epoch"),
        (10, 3, 10, "step"),
    ],
)
def test_every_restart_runs_at_the_highest_rate(first, grow, steps, unit):
    schedule = CosineRestarts(2.0, first, grow, unit=unit)
    schedule.start(steps, None)
    at, length = 0.0, first * (steps if unit == "epoch" else 1)
    for _ in range(12):
        if abs(at - round(at)) < 1e-6:  # a restart between two steps is seen by none
            t = round(at)
            assert schedule(t) == pytest.approx(2.0, abs=1e-9), t
            assert t == 0 or schedule(t - 1) < 1.0
        at, length = at + length, length * grow
    assert schedule(10**9) == pytest.approx(schedule(10**9), abs=0)  # no loop over cycles


def test_a_cycle_of_few_steps():
    for length, expected in ((1, [0.1]), (2, [0.1, 0.01]), (3, [0.1, 1, 0.01])):
        cycle = OneCycle(1.0, 10, 100, 0.9)
        cycle.start(10, length)
        assert [cycle(t) for t in range(length)] == pytest.approx(expected)
    for length, expected in (
        (1, [0.1]),
        (2, [0.1, 0.01]),
        (3, [0.1, 1, 0.01]),
        (4, [0.1, 1, 0.1, 0.01]),
        (5, [0.1, 1, 0.1, 0.055, 0.01]),
        (6, [0.1, 0.55, 1, 0.55, 0.1, 0.01]),
    ):
        cycle = OneCycle(1.0, 10, 100, 0.4, phases=3)
        cycle.start(10, length)
        assert [cycle(t) for t in range(length)] == pytest.approx(expected)
    late = OneCycle(1.0, 10, 100, 0.95)
    late.start(10, 10)
    assert late(9) == pytest.approx(0.01) and late(8) == pytest.approx(1)


def test_range_test_keeps_the_contracts_of_minimize():
    rng = np.random.default_rng(1)
    A = rng.standard_normal((60, 4))
    problem = LeastSquares(A, A @ np.ones(4))
    problem.set_seed(3)
    found = range_test(problem, Anderson(3), RandomReshuffling(60), 1e-6, 1e-5, 6)
    assert found.highest == found.rates[-1] or found.losses[-1] > found.losses.min()  # it never turned up
    neural = perceptron("digits", (4,), rows=40)
    neural.set_seed(3)
    range_test(neural, Adam(), RandomReshuffling(20), 1e-6, 1e-5, 4, seed=17)
    assert neural.seed == 3
    with pytest.raises(ValueError, match="range_test: .* non-smooth penalty"):
        range_test(Lasso(A, A @ np.ones(4), 0.1), Adam())
    with pytest.raises(ValueError, match="range_test: the loss of .* is inf at the start"), np.errstate(over="ignore"):
        range_test(LeastSquares(A, np.full(60, 1.2e154)), Adam())


def test_range_test_finds_where_the_loss_turns_up_and_leaves_nothing():
    rng = np.random.default_rng(1)
    A = rng.standard_normal((200, 5))
    problem = LeastSquares(A, A @ np.ones(5) + 0.01 * rng.standard_normal(200))
    found = range_test(problem, HeavyBall(0.0), RandomReshuffling(20), 1e-4, 1e3, 140, seed=1)
    assert len(found.rates) == len(found.losses) < 140  # it stopped when it diverged
    assert found.rates[0] == 1e-4 and found.rates[1] / found.rates[0] == pytest.approx(1e7 ** (1 / 139))
    largest = np.linalg.eigvalsh(A.T @ A / 200).max()
    assert 0.01 / largest < found.steepest <= found.highest < 2 / largest
    again = range_test(problem, HeavyBall(0.0), RandomReshuffling(20), 1e-4, 1e3, 140, seed=1)
    np.testing.assert_array_equal(found.losses, again.losses)
    with pytest.raises(ValueError, match="high must be above low"):
        range_test(problem, Adam(), low=1.0, high=0.1)


def test_names_that_are_not_there():
    with pytest.raises(ValueError, match="shape must be one of triangular"):
        Cyclical(0.1, 1.0, 5, "round")
    cycle = OneCycle(1.0)
    cycle.start(10, None)
    with pytest.raises(ValueError, match="length of the run is not known"):
        cycle(0)


def test_the_warm_up_of_the_transformer_and_the_root_that_it_continues():
    """Vaswani et al., equation 3: d^(-1/2) min(t^(-1/2), t W^(-3/2)), t = 1, 2, ...; without warm-up the same root."""
    d, W = 64, 7
    warm, root = InverseSquareRoot((d * W) ** -0.5, warmup=W), InverseSquareRoot(d**-0.5)
    for schedule in (warm, root):
        schedule.start(10, None)
    for t in range(1, 60):
        assert warm(t - 1) == pytest.approx(d**-0.5 * min(t**-0.5, t * W**-1.5), rel=1e-12)
        assert t < W or warm(t - 1) == pytest.approx(root(t - 1), rel=1e-12)
