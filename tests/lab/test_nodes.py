"""Rows among nodes, and runs on them as recipes."""

import dataclasses

from lab import Entry, Recipe, engine
from lab.node_networks import parted, pieces, spoken, taught, worded
from lab.nodes import clients, node, run_of, shares, trained
from lab.store import Store
from npopt import Events, backend
from npopt.distributed import DSGD, EXTRA, Clock, Faults, FedAvg, Scaffold, ring
from npopt.errors import UserError
from problems import Logistic
from problems.datasets import shared

import numpy as np
import pytest
import scipy.sparse


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix])
def test_a_node_of_one_class_has_the_loss_of_its_rows(kind, rng):
    """log(1 + exp(-y w'x)) + l2/2 |w|^2, a mean over rows; with both classes the rows are as they were."""
    X, w = rng.standard_normal((6, 3)), rng.standard_normal(3)
    for y in (-np.ones(6), np.ones(6), np.array([1.0, -1, -1, 1, 1, -1])):
        problem, g = node(kind(X), y, 0.3), np.empty(3)
        value = problem.value_and_gradient(w, out=g)
        margins = y * (X @ w)
        assert value == pytest.approx(np.log1p(np.exp(-margins)).mean() + 0.15 * w @ w, rel=1e-12)
        slope = -(y / (1 + np.exp(margins))) @ X / 6 + 0.3 * w
        np.testing.assert_allclose(g, slope, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("split", ["random", "label", 0.3])
def test_nodes_have_equally_many_rows_and_seeds_split_otherwise(split):
    y = shared("breast_cancer").y_train
    one, other = (shares(y, 7, split, seed) for seed in (1, 2))
    assert {len(part) for part in one} == {len(y) // 7} and len(np.unique(np.concatenate(one))) == 7 * (len(y) // 7)
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("split", ["random", "label", 0.3])
def test_the_whole_is_the_mean_of_the_nodes(split):
    whole, problems = clients("breast_cancer", 7, split, 0.1)
    x, parts, total = np.linspace(-0.1, 0.1, whole.dim), np.empty((7, whole.dim)), np.empty(whole.dim)
    whole.value_and_gradient(x, out=total)
    for problem, g in zip(problems, parts, strict=True):
        problem.value_and_gradient(x, out=g)
    sizes = np.array([problem.n for problem in problems])
    np.testing.assert_allclose(sizes @ parts / sizes.sum(), total, rtol=1e-9, atol=1e-12)
    assert np.ptp(sizes) == 0 and isinstance(whole, Logistic)
    with pytest.raises(UserError, match="random, label or a number"):
        shares(shared("breast_cancer").y_train, 3, "other")


def test_columns_of_a_run():
    told = []
    events = Events(1)
    events.progress = lambda *args: told.append(args)
    some = dict(data="breast_cancer", nodes=4, l2=0.5, every=10)
    columns = trained(0, events, split="label", method=EXTRA, scale=0.5, given={}, rounds=40, graph=ring, **some)
    np.testing.assert_array_equal(columns["round"], [10, 20, 30, 40])
    assert (np.diff(columns["error"]) < 0).all() and (columns["apart"] <= columns["error"] * 2).all()
    assert [step for _, step, _ in told] == [10, 20, 30, 40] and told[-1][0] == 1.0
    more = dict(clock=Clock(stragglers=0.5), faults=Faults(away=0.2), given=dict(steps=2, patience=1.0))
    again = trained(0, None, split="random", method=FedAvg, scale=0.5, rounds=20, **more, **some)
    assert (again["apart"] == 0).all() and again["error"][-1] < 1


class Broken(Exception):
    pass


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    """The bar's callable breaks it off in round 6."""

    def progress(fraction, step, loss):
        if step == 6:
            raise Broken

    some = dict(data="breast_cancer", nodes=4, l2=0.5, every=1, rounds=9, graph=ring, split=0.5)
    some |= dict(method=EXTRA, scale=0.5, given={})
    with pytest.raises(Broken):
        trained(2, Events(checkpoint=tmp_path / "run.npz", seconds=0, progress=progress), **some)
    steps = []
    events = Events(checkpoint=tmp_path / "run.npz", progress=lambda fraction, step, loss: steps.append(step))
    found, expected = trained(2, events, **some), trained(2, None, **some)
    assert len(steps) == 4  # rounds 6 to 9
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column)


@pytest.mark.parametrize("method, sentence", [(EXTRA, "4 nodes with data need 4"), (FedAvg, "and a server need 5")])
def test_too_few_ranks_are_refused(method, sentence):
    class Wires:
        rank, size = 0, 3

    with pytest.raises(UserError, match=f"{sentence} ranks; mpiexec -n"):
        run_of(method(0.1), None, 4, 10, wires=Wires())


SIZE = dict(length=6, features=8, layers=1, heads=2)
NETWORKS = {
    "LeNet-5": (taught, dict(data="digits", split=0.5, test_rows=50), lambda: parted("digits", 3, 0.5, 1, 0.1, 50)),
    "GPT-2": (
        spoken,
        dict(data="chain", split="passages", size=SIZE, held=301),
        lambda: worded("chain", 3, "passages", 1, SIZE, 301),
    ),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "method, given", [(DSGD, dict(batch=8)), (FedAvg, dict(batch=8, steps=2)), (Scaffold, dict(batch=8, steps=2))]
)
def test_networks_on_nodes_are_the_slow_loop(method, given, network):
    """Rows of each node, one start, gradients of the drawn rows; judged at the mean of all x. SCAFFOLD's correction of
    a node, by option 2, is the mean of the gradients that it took in the round before."""
    recipe, more, made = NETWORKS[network]
    graph = None if method.federated else ring
    columns = recipe(1, None, nodes=3, method=method, lr=0.1, given=given, rounds=4, every=2, graph=graph, **more)
    make, judge = made()
    problems = [make(k) for k in range(3)]
    start = judge.x0(backend.generator(1, "start"))
    X, g, sizes = [start.copy() for _ in range(3)], np.empty_like(start), [problem.n for problem in problems]
    assert len(set(sizes)) == 1
    taken = [np.zeros_like(start) for _ in range(3)]  # of each node, in the round before
    for t in range(4):
        new, corrections = [], [sum(taken) / 3 - one if method is Scaffold else 0 for one in taken]
        for k, problem in enumerate(problems):
            x, taken[k] = X[k].copy(), np.zeros_like(start)
            for step in range(given.get("steps", 1)):
                rank, draw = k + method.federated, t * given.get("steps", 1) + step + 1
                rows = backend.generator(1, f"rows of {rank}", draw).integers(problem.n, size=8)
                problem.value_and_gradient(x, rows, None, out=g)
                x = x - np.float32(0.1) * (g + corrections[k])
                taken[k] += g / given.get("steps", 1)
            new.append(x)
        mean = sum(new) / 3
        if method.federated:
            X = [mean.copy() for _ in X]
        else:  # D-SGD mixes first: W X - lr G, with W = 1/3 on a ring of three
            X = [sum(X) / 3 + (new[k] - X[k]) for k in range(3)]
        if t == 1:
            first = judge.metrics(sum(X) / 3)
    last = judge.metrics(sum(X) / 3)
    np.testing.assert_allclose(columns["test_loss"], [first["test_loss"], last["test_loss"]], rtol=1e-5)
    np.testing.assert_allclose(columns["validation_loss"][-1], last["validation_loss"], rtol=1e-5)
    mean = sum(X) / 3
    apart = np.sqrt(np.mean([np.sum((x - mean) ** 2) for x in X])) / np.linalg.norm(mean)
    assert columns["apart"][-1] == pytest.approx(apart, rel=1e-3, abs=1e-6) and "train_loss" not in columns
    assert judge.feed.count("test") == 50 and (columns["apart"][-1] > 0) == (not method.federated)


def test_pieces_of_a_text_are_dealt_out_evenly():
    """passages: neighbours stay neighbours. random: pieces of 8 lengths, each with one node. No token twice."""
    text = dataclasses.replace(shared("chain"), train=np.arange(1000))
    stretches = pieces(text, 3, "passages", 5, seed=1)
    np.testing.assert_array_equal(np.concatenate(stretches), np.arange(999))
    dealt = pieces(text, 3, "random", 5, seed=1)
    assert [len(part) for part in dealt] == [320] * 3  # 25 pieces of 40: 8 a node
    assert len(np.unique(np.concatenate(dealt))) == 960
    for part in dealt:
        rows = part.reshape(-1, 40)
        assert (np.diff(rows, axis=1) == 1).all() and (rows[:, 0] % 40 == 0).all()
    assert (dealt[0] != pieces(text, 3, "random", 5, seed=2)[0]).any()
    with pytest.raises(UserError, match="passages or random, got 'label'"):
        pieces(text, 3, "label", 5, seed=1)


def test_a_damaged_checkpoint_is_set_aside(tmp_path):
    some = dict(
        data="breast_cancer", nodes=3, split="label", l2=0.5, method=EXTRA, scale=0.5, given={}, rounds=5, every=1
    )
    entry = Entry("a", run=Recipe(trained, graph=ring, **some), method="EXTRA")
    store, job = Store(tmp_path), engine.Job("k" * 32, entry, 0, entry.printed())
    store.checkpoint(job.key).write_bytes(b"half")
    with pytest.warns(UserWarning, match="is damaged"):
        outcome = engine.execute(job, store, engine.Settings())
    assert outcome.status == "done" and len(store.load(job.key)["columns"]["error"]) == 5
    assert [path.name for path in tmp_path.glob("*.damaged")] == [f"{job.key}.checkpoint.npz.damaged"]


def test_seconds_of_a_simulated_clock_are_not_time_that_a_run_took(tmp_path):
    """The column has the clock's seconds; the run's own are what this process took."""
    clock = Clock(latency=1e4)
    some = dict(data="breast_cancer", nodes=3, l2=0.5, every=1, split="random", method=EXTRA, scale=0.5, given={})
    entry = Entry("a", run=Recipe(trained, rounds=3, graph=ring, clock=clock, **some))
    job = engine.Job("k" * 32, entry, 0, entry.printed())
    assert engine.execute(job, Store(tmp_path), engine.Settings()).status == "done"
    stored = Store(tmp_path).load(job.key)
    assert stored["columns"]["seconds"][-1] > 1e4 and 0 < stored["seconds"] < 600
    assert not Entry("a", run=Recipe(node)).takes_wires and entry.takes_wires
