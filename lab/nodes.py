"""Runs of npopt.distributed as recipes: one linear model, its rows split among nodes."""

from npopt import backend
from npopt.distributed import at_random, by_label, dirichlet, simulate
from npopt.errors import UserError
from problems.datasets import shared
from problems.linear import Logistic

import numpy as np
import scipy.sparse

FLOOR = 1e-16  # relative errors below it are rounding


def shares(y, nodes, split):
    """A list of the rows of each node, equally many: split is "random", "label" or a Dirichlet alpha, whose parts are
    as unequal as they come."""
    if split == "random":
        parts = at_random(len(y), nodes)
    elif split == "label":
        parts = by_label(y, nodes)
    elif isinstance(split, str):
        raise UserError(f"shares: split must be random, label or a number, got {split!r}")
    else:
        return dirichlet(y, nodes, split)
    return [part[: len(y) // nodes] for part in parts]


def node(X, y, l2):
    """Logistic regression without intercept on a node's rows. Its loss knows (x, y) by y x alone. So where a node has
    one class, its first row stands there as (-x, -y), because a classification wants two classes."""
    if len(np.unique(y)) == 1 and len(y) > 1:
        signs = np.where(np.arange(len(y)), 1.0, -1.0)
        X, y = scipy.sparse.diags_array(signs).tocsr() @ X, signs * y
    return Logistic(X, y, l2)


def clients(data, nodes, split, l2):
    """(logistic regression on the rows of all nodes, that of each node)."""
    d = shared(data)
    parts = shares(d.y_train, nodes, split)
    rows = np.sort(np.concatenate(parts))
    made = [node(d.x_train[part], d.y_train[part], l2) for part in (rows, *parts)]
    return made[0], made[1:]


def trained(seed, events, *, data, nodes, split, l2, method, scale, given, rounds, every, graph=None, clock=None,
            faults=None):  # fmt: skip
    """method(lr=scale / L, **given), L the largest smoothness of a node, for so many rounds from 0.

    Columns, every `every` rounds: those of `simulate`; error, the largest |x_i - w*| / |w*| of a node that shows;
    apart, the root mean square of |x_i - mean x| / |w*|. w* is the minimum over the rows of all nodes.
    """
    whole, problems = clients(data, nodes, split, l2)
    best = whole.minimum()[0]
    rate = scale / max(problem.smoothness() for problem in problems)
    length = np.linalg.norm(best)

    def look(shown):
        X = np.array([backend.to_host(x) for x in shown], float)
        errors = np.linalg.norm(X - best, axis=1) / length
        spread = np.linalg.norm(X - X.mean(0), axis=1) / length
        at[0] += every
        if events is not None and events.progress is not None:
            events.progress(min(1.0, at[0] / rounds), at[0], float(errors.max()))
        return {"error": max(FLOOR, errors.max()), "apart": float(np.sqrt(np.mean(spread**2)))}

    at = [0]
    with np.errstate(over="ignore", invalid="ignore"):  # a rate that is too large diverges, and that is a result
        run = simulate(
            method(lr=rate, **given),
            problems,
            rounds,
            graph=None if graph is None else graph(nodes),
            clock=clock,
            faults=faults,
            seed=seed,
            start=backend.zeros(whole.dim, whole.dtype),
            observe=look,
            every=every,
        )
    return run.columns
