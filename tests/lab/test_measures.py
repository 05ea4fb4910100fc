"""What scripts measure beside runs: surfaces, SWATS's switch, rows a second; the report's schedulers."""

import math

import nn
from lab import Finished, Results, measures
from npopt import SGD, Cosine, Events, Minibatch, RandomReshuffling, Stop, backend, minimize
from problems import LANDSCAPES, Surface
from problems.adapted import adapted
from problems.classifiers import perceptron

import numpy as np
import pytest


def test_surfaces_are_moved_and_left_from_a_start_in_the_window():
    names, rates, shift = ("valley", "ackley"), [1e-3, 0.1, 1e9], (5.0, -7.0)
    found = measures.on_surfaces(3, None, method="SGD", rates=rates, steps=20, names=names, shift=shift)
    assert found["rate"] == rates * 2 and found["surface"] == [list(LANDSCAPES).index(n) for n in names for _ in rates]
    for k, (name, lr) in enumerate((n, r) for n in names for r in rates):
        land = LANDSCAPES[name]
        i = list(LANDSCAPES).index(name)
        low, high = np.array(land.window)[[0, 2]], np.array(land.window)[[1, 3]]
        x = backend.generator(3, "start", i).uniform(low, high)
        assert (low < x).all() and (x < high).all()
        first = land.f(*x) - land.value
        with np.errstate(all="ignore"):
            for _ in range(20):  # plain descent where nothing was moved
                x = x - lr * np.array(land.gradient(*x))
            last = land.f(*x) - land.value
        expected = last / first if math.isfinite(last) else math.inf
        assert found["gap"][k] == pytest.approx(expected, rel=1e-6) or found["gap"][k] == expected == math.inf
    run = minimize(
        Surface("ackley", (6.0, -6.0), shift=shift), SGD(), None, 0.1, stop=Stop(steps=3), events=Events(None)
    )
    assert run.columns["gap"][0] == pytest.approx(LANDSCAPES["ackley"].f(1.0, 1.0))


def test_a_surface_is_solved_by_a_share_of_the_starts_at_the_best_rate():
    names = list(LANDSCAPES)
    columns = {"surface": np.repeat([4, 1], 3), "rate": np.tile([0.1, 1, 10], 2)}
    heights = {
        ("Sophia-G", 0): [1e-7, 1e-7, 1, 0, 1e-3, 1],
        ("Sophia-G", 1): [1, 1e-9, 1e-9, 1, 0, np.inf],
        ("SGD", 0): [1, 1, 1e-6, 1e-3, 1e-3, 1e-3],
        ("SGD", 1): [1, 0, 1, 1e-3, 1e-3, 1],
    }
    runs = Results(
        Finished("e", {"method": method}, seed, {}, columns | {"gap": np.array(gap)}, {}, 1.0, "steps")
        for (method, seed), gap in heights.items()
    )
    shares, methods, surfaces = measures.solved(runs)
    assert methods == ["Sophia-H", "SGD"] and surfaces == [names[4], names[1]]
    np.testing.assert_array_equal(shares, [[1, 0.5], [0.5, 0]])  # 1e-6 itself is not below
    np.testing.assert_array_equal(measures.solved(runs, 1e-2)[0], [[1, 1], [0.5, 1]])


@pytest.mark.parametrize("tolerance", [0.5, 0.3])
def test_swats_switches_where_a_slow_loop_says(tolerance):
    data, epochs, lr, batch = "digits", 12, 3e-3, 50
    given = dict(data=data, rows=300, lr=lr, epochs=epochs, batch=batch, held=1 / 6)
    found = measures.switches(4, None, **given, tolerances=(tolerance, 0.0))
    assert found["switched"][1] == math.inf and math.isnan(found["rate"][1])
    problem, sampler, estimator = perceptron(data, rows=300, validation=1 / 6), RandomReshuffling(batch), Minibatch()
    problem.set_seed(4)
    x = problem.x0(backend.generator(4, "x0"))
    sampler.start(problem, 4)
    g, schedule = estimator.start(problem, x, 4), Cosine(lr)
    steps = epochs * sampler.steps_per_epoch
    schedule.start(sampler.steps_per_epoch, steps)
    m = v = average = 0.0
    for t, rows in enumerate(sampler.take(steps), 1):
        problem.begin(t - 1)
        estimator(x, rows, out=g)
        gradient = g.astype(float)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        p = -schedule(t - 1) * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x += p.astype("float32")
        problem.commit()
        s = p @ p / -(p @ gradient)
        average = 0.999 * average + 0.001 * s
        settled = average / (1 - 0.999**t)
        if t > 1 and settled > 0 and abs(settled - s) < tolerance * settled:
            break
    assert found["switched"][0] == t / sampler.steps_per_epoch
    np.testing.assert_allclose(found["rate"][0], settled / schedule(t - 1), rtol=1e-3)  # float32 steps


def test_throughput_counts_rows_and_leaves_the_threads_as_they_were():
    before = backend.threads()
    found = measures.throughput(0, None, data="digits", rows=100, sizes=(1, 16, 1000), threads=1, at_least=1e-3)
    assert found["B"] == [1, 16, 100] and all(rate > 0 for rate in found["rate"]) and backend.threads() == before


def test_the_reports_scheduler_changes_when_it_is_called():
    scheduler = measures.Factor(0.5, 0.02, 0.2)
    assert [scheduler() for _ in range(5)] == [0.1, 0.05, 0.025, 0.02, 0.02]
    plans = measures.schedulers()
    for plan in plans.values():
        plan.start(10, 100)
    assert plans["factor, drawn first"](0) == 1e-3 and plans["exponential from 2"](0) == 1.8


def test_adabounds_final_rate_moves_with_the_rate_that_is_swept():
    for name in ("AdaBound", "AMSBound"):
        optimizer, base = measures.methods(100)[name]
        optimizer.start(np.zeros(2))
        for lr in (base, 10 * base):
            np.testing.assert_allclose(optimizer.bounds(lr, 10**9), 100 * lr, rtol=1e-5)


def test_what_the_hessian_says_of_mezo_is_that_of_the_point_where_sgd_ends():
    given = dict(data="digits", start="scratch", rows=100, activation=nn.Tanh, pool="avg")
    sampler = RandomReshuffling(64, drop_last=True)
    found = {name: value for name, (value,) in measures.slowdown(3, None, sampler=sampler, after=2, **given).items()}
    problem = adapted(**given, dtype="float64")
    x = minimize(problem, SGD(), sampler, 0.1, stop=Stop(steps=2), seed=3, events=Events(None)).x

    def gradient(at):
        g = np.empty_like(x)
        problem.value_and_gradient(at, np.arange(problem.n), out=g)  # fewer than 256 rows
        return g

    def curved(v):  # v'Hv
        return v @ (gradient(x + 1e-6 * v) - gradient(x - 1e-6 * v)) / 2e-6

    g, draw = gradient(x), backend.generator(3, "signs")
    traces = np.array([curved(draw.choice((-1.0, 1.0), x.size)) for _ in range(20)])
    along, trace = curved(g) / (g @ g), traces.mean()
    expected = dict(trace=trace, trace_error=traces.std(ddof=1) / 20**0.5, along=along, slowdown=trace / along + 2)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)  # both are differences
    assert found["dim"] == x.size and found["largest"] >= along
    assert found["rank"] == pytest.approx(trace / found["largest"], rel=1e-5)
