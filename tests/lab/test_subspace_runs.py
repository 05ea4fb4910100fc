"""What the script `subspace` measures: costs, ranks, and a quadratic on which GaLore stays where it is."""

from lab.subspace import Scale, bowl, costs, formulas, maps, ranks, trained
from nn.adapters import free
from npopt import SGD, Events, GaLore, GoLore, Stop, WithReplacement, backend, minimize
from problems.language import llama

import numpy as np
import pytest

SIZE = dict(length=8, features=16, layers=1, heads=2, held=100, tokens=500)
SCALE = Scale(steps=6, rank=3, period=2, every=2)


def arguments(method):
    layer, options = SCALE.adapters(method)
    return SIZE | dict(adapters=layer, options=tuple(options.items()))


def learner(method):
    return llama("chain", **arguments(method))


@pytest.mark.parametrize("method", ["AdamW", "GaLore", "GoLore", "Flora", "LoRA"])
def test_costs_are_those_of_the_formulas(method):
    problem = learner(method)
    names = None if method != "LoRA" else free(problem.network)
    found = costs(problem, problem.x0(backend.generator(0, "x0")), SCALE.optimizer(method), names)
    expected = formulas(16, 1, 3, learner("AdamW").dim)[method]
    assert (found["gradients"], found["states"], found["projectors"]) == expected
    assert found["weights"] == 4 * problem.dim and found["trained"] == expected[0] / 4


def test_ranks_are_those_of_the_changes_of_maps():
    problem = learner("AdamW")
    before = problem.x0(backend.generator(0, "x0"))
    after, rng = before.copy(), np.random.default_rng(0)
    for i, name in enumerate(maps(problem.network, before)):
        view = problem.segments.view(after, name)
        for _ in range(i + 1):
            view += 0.1 * np.outer(rng.standard_normal(view.shape[0]), rng.standard_normal(view.shape[1]))
    after[problem.segments.find("embed.W").slice] += 1
    found = ranks(problem.network, before, after)
    assert found == {"rank": 4.0, "largest_rank": 7}  # of seven maps


@pytest.mark.parametrize("method, largest", [("LoRA", 3), ("ReLoRA", 9), ("W = BA", 6), ("SLTrain", 16)])
def test_a_run_has_columns_of_costs_and_ranks(method, largest):
    run = trained(1, Events(3, "step"), data="chain", build=llama, arguments=arguments(method),
                  optimizer=SCALE.optimizer(method), schedule=0.01, steps=6, batch=4)  # fmt: skip
    assert 0 < run.columns["largest_rank"][-1] <= largest and run.reason == "steps"
    assert len(run.columns["states"]) == len(run.columns["step"])
    if method == "ReLoRA":
        assert run.columns["largest_rank"][-1] > 3


def test_a_warm_start_moves_what_lies_under_the_adapters_first():
    run = trained(1, Events(3, "step"), data="chain", build=llama, arguments=arguments("LoRA"),
                  optimizer=SCALE.optimizer("LoRA"), schedule=0.01, steps=12, batch=4, warm=6)  # fmt: skip
    assert run.columns["phase"][-1] == 1 and run.columns["step"][-1] == 12 and run.columns["largest_rank"][-1] > 6


def test_galore_stays_on_the_bowl_whose_noise_lies_elsewhere_and_golore_does_not():
    problem = bowl("block", 20.0, 12, 3)
    x = problem.x0(np.random.default_rng(0))
    g, rows = np.empty(144), [0]
    problem.value_and_gradient(x, rows, out=g)
    G, X = g.reshape(12, 12), x.reshape(12, 12)
    np.testing.assert_allclose(G[:9, :9], X[:9, :9])
    np.testing.assert_allclose(np.abs(G[9:, 9:]), 20 * np.eye(3), atol=1e-12)
    assert not G[:9, 9:].any() and not G[9:, :9].any()
    found = {}
    for o in (GaLore(3, 5, 1.0, SGD()), GoLore(3, 5, 1.0, 0, SGD())):
        run = minimize(problem, o, WithReplacement(1), 0.1, stop=Stop(steps=600), x=x)
        found[type(o)] = run.columns["gap"][-1] / run.columns["gap"][0]
    assert found[GaLore] == pytest.approx(1, abs=1e-9) and found[GoLore] < 1e-6
