"""Walks out of minima: laws against enumerated paths and simulated walks, kicks of the shapes that are said."""

import itertools

from lab.escapes import (
    ALMOST_SURE,
    EDGE,
    KINDS,
    MEAN_SQUARE,
    Kicked,
    climbs,
    drift,
    escapes,
    exits,
    median,
    shape_of,
    walk,
)
from npopt import SGD, Batch, Events, Stop, WithReplacement, minimize
from npopt.analysis.stability import growth
from problems.wells import two_basins, uneven

import numpy as np
import pytest


def test_thresholds_are_the_numbers_of_theory():
    assert pytest.approx(0.5525, abs=5e-5) == MEAN_SQUARE and pytest.approx(0.5595, abs=5e-5) == ALMOST_SURE
    assert drift(ALMOST_SURE) == pytest.approx(0, abs=1e-12) and drift(0.99 * MEAN_SQUARE) < 0 < drift(0.6)
    assert growth(uneven(1).row_hessians(np.ones(1) + 1e-9), MEAN_SQUARE, 1) == pytest.approx(1)


def test_the_law_of_exits_is_that_of_all_paths():
    steps, rates, first = 10, (0.6, 0.9), 0.05
    law = exits(rates, first, steps)
    for lr, row in zip(rates, law, strict=True):
        gone = np.zeros(steps + 1)
        for path in itertools.product((0.2, 3.8), repeat=steps):
            z = first * np.concatenate([[1], np.cumprod([1 - lr * h for h in path])])
            past = np.flatnonzero(z <= -EDGE)
            if len(past):
                gone[past[0] :] += 1 / 2**steps
        np.testing.assert_allclose(row, gone, atol=1e-12)
    assert 0 < law[0, -1] < law[1, -1] < 1 and median(law[1]) < np.inf == median(law[0] * 0)


def test_walks_are_those_of_minimize_and_are_past_the_ridge_when_they_say():
    events = Events(metrics=1, per="step")
    way = walk(uneven(2, 1.01), 0.7, 60, 3, WithReplacement(1))
    run = minimize(uneven(2, 1.01), SGD(), WithReplacement(1), 0.7, stop=Stop(steps=60), seed=3, events=events)
    np.testing.assert_array_equal(way[:, 0], run.columns["x"])
    found = escapes(0, None, build=uneven, arguments=dict(d=1, start=1.01), lr=0.7, steps=400, count=6,
                    sampler=WithReplacement(1))  # fmt: skip
    assert np.isfinite(found["left"]).all() and found["nearest"] == [1.0] * 6 and len(set(found["left"])) > 1
    stays = escapes(0, None, build=uneven, arguments=dict(d=1, start=1.01), lr=0.7, steps=400, count=1)
    assert stays["left"] == [np.inf] and stays["nearest"] == [0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_kicks_have_the_trace_and_the_shape(kind):
    problem, lr, x = two_basins(), 0.01, np.ones(2)
    method = Kicked(kind, 0.01, lr)
    g, plain = method.start(problem, x, 5), np.empty(2)
    problem.value_and_gradient(x, out=plain)
    kicks = []
    for t in range(3000):
        problem.begin(t)
        method(x, Batch(None), g)
        kicks.append(-lr * (g - plain))
    wanted = 0.01 * shape_of(problem, x, kind)
    assert np.trace(wanted) == pytest.approx(0.01)
    np.testing.assert_allclose(np.cov(np.transpose(kicks)), wanted, atol=5 * 0.01 * (2 / 3000) ** 0.5)
    aligned = np.array([0.5, 0.5]) @ wanted @ np.ones(2)  # variance along (1, 1)
    low, high = {"constant": (0.49, 0.51), "diagonal": (0.4, 0.6)}.get(kind, (0.85, 1.001))
    assert low < aligned / 0.01 < high


def test_the_chain_on_a_line_is_what_walks_along_the_first_eigenvector_do():
    """There the noise keeps to the line while a walk is in the sharp basin: the share is that of simulated walks."""
    law = climbs("eigenvector", lr=0.005, total=0.01, steps=500)
    assert (np.diff(law) >= -1e-12).all() and 0.4 < law[-1] < 0.7
    finer = climbs("eigenvector", lr=0.005, total=0.01, steps=500, cells=900)
    assert law[-1] == pytest.approx(finer[-1], abs=0.01)
    found = escapes(7, None, build=two_basins, arguments={}, lr=0.005, steps=500, count=40,
                    estimator=Kicked("eigenvector", 0.01, 0.005))  # fmt: skip
    assert np.isfinite(found["left"]).mean() == pytest.approx(law[-1], abs=4 * (0.25 / 40) ** 0.5)
