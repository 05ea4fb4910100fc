"""Rows among nodes, and runs on them as recipes."""

from lab.nodes import clients, node, shares, trained
from npopt import Events
from npopt.distributed import EXTRA, Clock, Faults, FedAvg, ring
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
def test_the_whole_is_the_mean_of_the_nodes(split):
    whole, problems = clients("breast_cancer", 7, split, 0.1)
    x, parts, total = np.linspace(-0.1, 0.1, whole.dim), np.empty((7, whole.dim)), np.empty(whole.dim)
    whole.value_and_gradient(x, out=total)
    for problem, g in zip(problems, parts, strict=True):
        problem.value_and_gradient(x, out=g)
    sizes = np.array([problem.n for problem in problems])
    np.testing.assert_allclose(sizes @ parts / sizes.sum(), total, rtol=1e-9, atol=1e-12)
    assert (np.ptp(sizes) == 0) == (split != 0.3) and isinstance(whole, Logistic)
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
