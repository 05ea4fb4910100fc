"""Problems of the zeroth-order scripts: a second task for a network that has learned a first, ridge regressions."""

from lab import Finished, Results
from lab.ridge import counts, theory
from npopt import SGD, MeZO, RandomReshuffling, Stop, backend, minimize
from npopt.identity import of_problem
from problems.adapted import adapted, changed, learned
from problems.convex import ridge

import numpy as np
import pytest

SIZE = dict(data="digits", rows=200, before=300, epochs=2)


def test_images_move_or_become_negatives():
    x = np.arange(2 * 8 * 8, dtype="uint8").reshape(2, 8, 8, 1)
    moved = changed(x)
    np.testing.assert_array_equal(moved[:, 1:, 1:], x[:, :-1, :-1])
    assert not moved[:, 0].any() and not moved[:, :, 0].any() and moved.dtype == x.dtype
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).astype("uint8")
    negatives = changed(colours)
    assert negatives.dtype == "uint8"
    np.testing.assert_array_equal(negatives.astype(int) + colours, 255)
    assert changed(None) is None


@pytest.mark.parametrize("network", ["lenet", "resnet20"])
def test_the_second_task_begins_where_the_first_has_ended(network):
    more = {"width": 2} if network == "resnet20" else {}
    problem = adapted(network=network, **SIZE, **more)
    x, statistics = learned(network, "digits", 300, 2, tuple(sorted(more.items())))
    scratch = adapted(network=network, start="scratch", **SIZE, **more)
    for steps, same in ((0, True), (3, False)):
        run = minimize(problem, SGD(), RandomReshuffling(50), 1e-6, MeZO(), stop=Stop(steps=steps), seed=5)
        assert np.array_equal(run.x, x) is same
        state = problem.network.state()
        for layer in statistics:
            assert np.array_equal(state[layer]["mean"], statistics[layer]["mean"]) is same
    assert not np.array_equal(scratch.x0(backend.generator(5, "x0")), x)
    assert of_problem(problem) != of_problem(scratch)
    assert {"validation_loss", "test_accuracy"} <= set(problem.metrics(problem.x0(None)))
    assert (problem.n, problem.feed.count("validation")) == (160, 40)


def test_the_gap_of_a_ridge_regression_is_that_of_its_loss(rng):
    problem = ridge("diabetes", 20)
    H, best, noise = problem.exact
    values = np.linalg.eigvalsh(H)
    assert values[-1] / values[0] == pytest.approx(20, rel=1e-9)
    x, g = rng.standard_normal(best.size), np.empty(best.size)
    found = problem.metrics(x)
    assert found["gap"] == pytest.approx(problem.value(x) - problem.value(best.copy()), rel=1e-10)
    assert problem.metrics(np.zeros(best.size))["relative"] == pytest.approx(1, rel=1e-12)
    problem.value_and_gradient(best.copy(), out=g)
    assert np.abs(g).max() < 1e-15
    rows = []
    for i in range(problem.n):
        problem.value_and_gradient(best.copy(), np.array([i]), out=g)
        rows.append(g.copy())
    np.testing.assert_allclose(noise, np.array(rows).T @ np.array(rows) / problem.n, rtol=1e-9, atol=1e-12)
    assert ridge("diabetes", 20, at_minimum=True).metrics(best)["gap"] < 1e-30
    assert np.array_equal(ridge("diabetes", 20, at_minimum=True).x0(rng), best)


def test_levels_of_theory_meet_where_it_says():
    t = theory("diabetes", 20)
    for kind in ("normal", "sphere", "coordinates"):
        radius = t.best_radius(kind)
        assert t.floor(kind, radius) == pytest.approx(t.rounding(kind, radius), rel=1e-9)
        assert 1e-10 < radius < 1e-6
    assert t.row_floor(0.01, 1, 64) < t.row_floor(0.01, 64, 1)
    assert t.path("sphere", 5)[0] == 1 and t.path("sphere", 5)[5] < 1


def test_what_runs_took_is_counted_in_values_of_the_whole_and_floors_rise_with_the_radius():
    def run(seed, radius, relative):
        columns = {"relative": np.array(relative), "values": np.array([0, 30, 60, 90]), "gap": 7 * np.array(relative)}
        return Finished("b", {"n": 10, "radius": radius}, seed, {}, columns, {}, 1.0, "steps")

    paths = {
        (1e-2, 0): [1, 0.5, 0.25, 0.5],
        (1e-2, 1): [1, 0.2, 0.3, 0.1],
        (1e-5, 0): [1, 1, 1, 1],
        (1e-5, 1): [1, 0, 0, 0],
    }
    runs = Results(run(seed, radius, path) for (radius, seed), path in paths.items())
    np.testing.assert_array_equal(counts(runs, 0.25), [6, 3, np.inf, 3])
    radii, levels = runs.levels("gap", "radius")
    np.testing.assert_array_equal(radii, [1e-5, 1e-2])
    np.testing.assert_allclose(levels, [[7, 7 * 0.375], [0, 7 * 0.2]])  # the mean of the last two rows
