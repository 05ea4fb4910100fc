"""Runs whose every step is looked at, against the library's loop, whole Hessians and slow sums."""

from lab.dynamics import Table, chapter, sharpened, slung, started
from lab.flatness import fitted
from nn import Tanh, init
from npopt import SGD, Adam, Events, HeavyBall, RandomReshuffling, Stop, backend, minimize
from npopt.analysis import edge, hessian

import numpy as np
import pytest

SMALL = dict(rows=30, hidden=(3,), test_rows=20, activation=Tanh, dtype="float64")
GIVEN = dict(data="digits", problem=SMALL, lr=0.5, steps=12, every=4)


def whole(problem, x):
    product = hessian(problem, x)
    return np.stack([product(e) for e in np.eye(problem.dim)])


@pytest.mark.parametrize("batch", [None, 7])
def test_steps_are_those_of_minimize(batch):
    run = sharpened(3, None, optimizer=HeavyBall(0.8), batch=batch, **GIVEN)
    problem, given = fitted("digits", **SMALL), dict(stop=Stop(steps=12), seed=3, events=Events(1, "step"))
    known = minimize(problem, HeavyBall(0.8), RandomReshuffling(batch), 0.5, **given)
    np.testing.assert_allclose(run.x, known.x, rtol=1e-12)
    for name in ("loss", "epoch", "step"):
        np.testing.assert_allclose(run.columns[name][1:], known.columns[name][1:], rtol=1e-12)
    looked = np.isfinite(run.columns["high"])
    assert np.flatnonzero(looked).tolist() == [0, 4, 8, 12] and run.reason == "steps"
    for name in ("train_loss", "test_accuracy"):
        np.testing.assert_allclose(np.array(run.columns[name])[looked], np.array(known.columns[name])[looked])


def test_sharpness_is_the_top_of_the_whole_hessian_also_behind_adams_preconditioner():
    run = sharpened(3, None, optimizer=Adam(0.8, 0.9, 1e-3), **GIVEN | dict(lr=0.01))
    problem = fitted("digits", **SMALL)
    H = whole(problem, started(problem, 3))
    assert run.columns["high"][0] == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-3)
    H, g, x, v = whole(problem, run.x), np.empty(problem.dim), started(problem, 3), 0.0
    m = np.zeros(problem.dim)
    for t in range(1, 13):  # Adam by hand
        problem.value_and_gradient(x, out=g)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        x = x - 0.01 * m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
    np.testing.assert_allclose(run.x, x, rtol=1e-8)
    root = ((1 - 0.8**12) * (np.sqrt(v / (1 - 0.9**12)) + 1e-3)) ** -0.5
    assert run.columns["high"][-1] == pytest.approx(np.linalg.eigvalsh(H)[-1], rel=1e-3)
    assert run.columns["conditioned"][-1] == pytest.approx(np.linalg.eigvalsh(root[:, None] * H * root)[-1], rel=1e-3)
    assert np.isnan(run.columns["conditioned"][0])


def test_rates_in_parts_of_the_first_sharpness_and_runs_that_leave():
    run = sharpened(3, None, optimizer=SGD(), relative=True, **GIVEN | dict(lr=1.5))
    assert run.columns["rate"][-1] == pytest.approx(1.5 / run.columns["high"][0])
    assert edge(SGD(), run.columns["rate"][0]) == pytest.approx(run.columns["high"][0] / 0.75)
    run = sharpened(3, None, optimizer=SGD(), relative=True, **GIVEN | dict(lr=300.0))
    assert run.reason.startswith("diverged: the loss is") and len(run.columns["step"]) < 13


def test_rows_that_lack_something_have_nan():
    table = Table()
    table.add(a=1)
    table.add(a=2, b=3)
    table.add(b=4)
    np.testing.assert_array_equal([table["a"], table["b"]], [[1, 2, np.nan], [np.nan, 3, 4]])


def test_the_chapters_curves_are_means_over_the_steps_of_an_epoch():
    given = dict(data="digits", rows=60, init=init.KaimingNormal(), optimizer=Adam(), lr=1e-3, batch=25, epochs=2)
    found = chapter(3, None, **given)
    assert found["epoch"] == [0, 1, 2, 2, 3, 4] and found["phase"] == [0, 0, 0, 1, 1, 1]
    assert found["improvement"][1] == found["improvement"][4] == 0
    assert found["improvement"][2] == pytest.approx(found["loss"][1] - found["loss"][2])
    assert found["train_loss"][3] == found["train_loss"][2]  # the second phase goes on from there
    problem = chapter.__globals__["book"]("digits", init.KaimingNormal(), 60)
    known = minimize(problem, Adam(), RandomReshuffling(25), 1e-3, stop=Stop(epochs=2), seed=3, events=Events())
    np.testing.assert_allclose(found["loss"][1:3], known.columns["loss"][1:], rtol=1e-5)
    np.testing.assert_allclose(found["weights"][2], np.linalg.norm(known.x), rtol=1e-5)
    change = np.linalg.norm(known.x - started(problem, 3))
    np.testing.assert_allclose(found["change"][2], change, rtol=1e-4)
    assert found["change"][4] < found["change"][2]  # counted from the beginning of its phase


def test_the_toys_recursion_and_where_it_flies_apart():
    run = slung(3, None, m=50, factor=3.0, steps=40)
    np.testing.assert_allclose(run.columns["kernel"], run.columns["kernel_said"], rtol=1e-9)
    np.testing.assert_allclose(run.columns["f"], run.columns["f_said"], rtol=1e-6, atol=1e-25)
    assert slung(3, None, m=50, factor=6.0, steps=40).reason == "diverged"
    assert isinstance(backend.to_host(run.x), np.ndarray)
