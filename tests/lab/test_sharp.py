"""SAM on wells, and networks where methods stop: loops over many points against the library's steps, and theory."""

from lab.flatness import OneHot, fitted, stopped, switched
from lab.sharp import ends, highest, in_turn, many, predicted, ridge, starts, threshold, toy, trained
from npopt import SAM, SGD, Constant, Events, Minibatch, RandomReshuffling, Stop, backend, minimize
from problems.classifiers import perceptron
from problems.wells import RIDGE, Wells

import numpy as np
import pytest


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_many_points_take_the_steps_of_the_library(rho):
    points = starts(3)
    found = many(Wells(), points, rho, 0.02, 50)
    for start, end in zip(points, found, strict=True):
        run = minimize(Wells(start=tuple(start)), SGD(), None, 0.02, SAM(rho), stop=Stop(steps=50))
        np.testing.assert_allclose(end, run.x, rtol=1e-9, atol=1e-12)


def test_a_radius_of_zero_leads_to_a_minimum_and_gradient_descent_stays_there():
    found = ends(0, None, rho=0.0, width=0.15, lr=0.02, steps=4000, side=5)
    assert found["well"] == found["then"] and set(found["well"]) == {0.0, 1.0}


def test_thresholds_are_where_theory_says():
    assert predicted("two bowls", 0.005) == pytest.approx(RIDGE / 2) and predicted("two bowls", 1e-9) < RIDGE
    problem, sharp, way, D = toy("wells")
    assert ridge(problem) == pytest.approx(sharp[0] + D) and problem.gradient(ridge(problem), 0.0)[0] == pytest.approx(
        0
    )
    found = threshold(0, None, name="two bowls", lr=0.0025, steps=500, halvings=6)
    assert found["stays"][0] < 1.01 * RIDGE / 1.5 and found["leaves"][0] > 0.99 * RIDGE / 1.5


def test_the_highest_value_in_a_disc():
    x = np.array([-1.0, 0.4])
    np.testing.assert_array_equal(highest(Wells(), x, 0 * x, 0.0), Wells().f(x, 0 * x))
    angle = np.linspace(0, 2 * np.pi, 2000)
    for point, value in zip(x, highest(Wells(), x, 0 * x, 0.3), strict=True):
        rim = Wells().f(point + 0.3 * np.cos(angle), 0.3 * np.sin(angle)).max()
        assert value == pytest.approx(rim, abs=2e-3) and value > Wells().f(point, 0.0)


def test_sam_then_gradient_descent_is_one_run():
    run = in_turn(0, None, start=(-1.5, -0.3), rho=0.5, lr=0.02, steps=300, metrics=50)
    assert list(dict.fromkeys(run.columns["phase"])) == [0, 1] and run.columns["step"][-1] == 600
    assert run.columns["f"][-1] < min(run.columns["f"][: run.columns["phase"].index(1)][-2:])


def test_a_trained_run_ends_with_its_sharpness():
    some = dict(optimizer=SGD(), sampler=RandomReshuffling(20), schedule=Constant(0.1), estimator=SAM(0.1))
    run = trained(0, Events(), data="digits", build=perceptron, arguments=dict(rows=60, hidden=(5,)), epochs=2,
                  look=(60, 40), **some)  # fmt: skip
    assert np.isnan(run.columns["high"][:-1]).all() and run.final["gradients"] == 2 * 2 * 60
    exact = perceptron("digits", rows=60, hidden=(5,), dtype="float64")
    x, g, h, n = run.x.astype(float), np.empty(exact.dim), 1e-7, 12
    d = np.random.default_rng(0).standard_normal((n, exact.dim))
    for v in d:  # lmax is at least every Rayleigh quotient
        exact.value_and_gradient(x + h * v, out=g)
        up = g @ v
        exact.value_and_gradient(x - h * v, out=g)
        assert (up - g @ v) / (2 * h) <= run.final["high"] * (v @ v) * 1.001
    exact.value_and_gradient(x, out=g)
    top = exact.value(x + 0.05 * g / np.linalg.norm(g))
    assert run.final["rise"] == pytest.approx(top - exact.value(x), rel=1e-6)


def test_the_mean_of_squares_over_outputs(rng):
    loss, labels, z = OneHot(), rng.integers(0, 4, 6), rng.standard_normal((6, 4))
    t, e = loss.targets((4,), labels, np.float64), rng.standard_normal((6, 4))
    expected = [sum((z[i, k] - (k == labels[i])) ** 2 for k in range(4)) / 4 for i in range(6)]
    np.testing.assert_allclose(loss.rows(z, t), expected)
    change = (loss.rows(z + 1e-6 * e, t) - loss.rows(z - 1e-6 * e, t)) / 2e-6
    np.testing.assert_allclose((loss.gradient(z, t) * e).sum(1), change, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(loss.right(z, t), z.argmax(1) == labels)
    change = (loss.gradient(z + 1e-6 * e, t) - loss.gradient(z - 1e-6 * e, t)) / 2e-6
    np.testing.assert_allclose(loss.second(z, t, e), change, rtol=1e-7, atol=1e-9)
    assert fitted("digits", 30, (4,)).curvature(fitted("digits", 30, (4,)).x0(rng)) is not None  # exact Hessians


SMALL = dict(data="digits", problem=dict(rows=30, hidden=(4,), test_rows=20), lr=0.5, piece=8, look=(10, 4, 4))


def test_gradient_descent_in_pieces_is_that_of_all_rows():
    events = Events(20, "step")
    one = stopped(3, events, batch=0, steps=40, **SMALL)
    given = dict(stop=Stop(steps=40), seed=3, events=events)
    whole = minimize(fitted("digits", **SMALL["problem"]), SGD(), RandomReshuffling(None), 0.5, Minibatch(), **given)
    np.testing.assert_allclose(one.x, whole.x, rtol=1e-4, atol=1e-6)
    assert one.final["high"] > 0 and one.final["uneven"] > 0 and one.final["trace"] >= one.final["high"] / 2


def test_two_methods_on_one_x():
    run = switched(3, Events(10, "step"), batches=(0, 4), steps=(20, 30), **SMALL)
    phase = np.array(run.columns["phase"])
    assert run.columns["step"][-1] == 50 and set(phase) == {0, 1}
    last, first = np.flatnonzero(phase == 0)[-1], np.flatnonzero(phase == 1)[0]
    assert run.columns["train_loss"][first] == run.columns["train_loss"][last]  # from where the first one stopped
    assert np.isfinite(np.array(run.columns["high"])[[last, -1]]).all()
    assert isinstance(backend.to_host(run.x), np.ndarray)
