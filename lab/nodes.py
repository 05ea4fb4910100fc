"""Runs of npopt.distributed as recipes: one linear model, its rows split among nodes, simulated or on ranks."""

from npopt import backend
from npopt.distributed import at_random, by_label, dirichlet, on_ranks, simulate
from npopt.errors import UserError
from problems.datasets import shared
from problems.linear import Logistic

import numpy as np
import scipy.sparse

FLOOR = 1e-16  # relative errors below it are rounding


def shares(y, nodes, split, seed=0):
    """A list of the rows of each node, equally many: split is "random", "label" or the alpha of Dirichlet mixes."""
    if split == "random":
        parts = at_random(len(y), nodes, seed)
    elif split == "label":
        parts = by_label(y, nodes, seed)
    elif isinstance(split, str):
        raise UserError(f"shares: split must be random, label or a number, got {split!r}")
    else:
        return dirichlet(y, nodes, split, seed, equal=True)
    return [part[: len(y) // nodes] for part in parts]


def node(X, y, l2):
    """Logistic regression without intercept on a node's rows. Its loss knows (x, y) by y x alone. So where a node has
    one class, its first row stands there as (-x, -y), because a classification wants two classes."""
    if len(np.unique(y)) == 1 and len(y) > 1:
        signs = np.where(np.arange(len(y)), 1.0, -1.0)
        X, y = scipy.sparse.diags_array(signs).tocsr() @ X, signs * y
    return Logistic(X, y, l2)


def clients(data, nodes, split, l2, seed=0):
    """(logistic regression on the rows of all nodes, that of each node)."""
    d = shared(data)
    parts = shares(d.y_train, nodes, split, seed)
    rows = np.sort(np.concatenate(parts))
    made = [node(d.x_train[part], d.y_train[part], l2) for part in (rows, *parts)]
    return made[0], made[1:]


def run_of(algorithm, make, nodes, rounds, *, events=None, wires=None, graph=None, clock=None, faults=None, **given):
    """The columns of a run of `nodes` nodes with data, the k-th of which has the problem make(k).

    wires    None: simulated; else this rank's part of it, on ranks. There it has no clock, and nothing goes wrong
    given    to both engines. `observe(shown)` is called on rank 0 alone
    """
    if events is not None:
        given |= {"checkpoint": events.checkpoint, "seconds": events.seconds}
    given |= {"graph": None if graph is None else graph(nodes)}
    if wires is None:
        return simulate(algorithm, [make(k) for k in range(nodes)], rounds, clock=clock, faults=faults, **given).columns
    first = int(algorithm.federated)
    if wires.size != nodes + first:
        more = f"{nodes} nodes with data{' and a server' * first}"
        raise UserError(f"{type(algorithm).__name__}: {more} need {nodes + first} ranks; mpiexec -n {nodes + first}")
    own = make(wires.rank - first) if wires.rank >= first else None
    return on_ranks(algorithm, own, rounds, wires=wires, **given).columns


def told(events, rounds, every):
    """A function of the loss, called after every `every` rounds, that tells the bar how far a run is."""
    at = [0]

    def tell(loss):
        at[0] += every
        if events is not None and events.progress is not None:
            events.progress(min(1.0, at[0] / rounds), at[0], loss)

    return tell


def trained(seed, events, *, data, nodes, split, l2, method, scale, given, rounds, every, graph=None, clock=None,
            faults=None, wires=None):  # fmt: skip
    """method(lr=scale / L, **given), L the largest smoothness of a node, for so many rounds from 0.

    Columns, every `every` rounds: those of the engine; error, the largest |x_i - w*| / |w*| of a node that shows;
    apart, the root mean square of |x_i - mean x| / |w*|. w* is the minimum over the rows of all nodes.
    """
    whole, problems = clients(data, nodes, split, l2, seed)
    best = whole.minimum()[0]
    rate = scale / max(problem.smoothness() for problem in problems)
    length, progress = np.linalg.norm(best), told(events, rounds, every)

    def look(shown):
        X = np.array([backend.to_host(x) for x in shown], float)
        errors = np.linalg.norm(X - best, axis=1) / length
        spread = np.linalg.norm(X - X.mean(0), axis=1) / length
        progress(float(errors.max()))
        return {"error": max(FLOOR, errors.max()), "apart": float(np.sqrt(np.mean(spread**2)))}

    given = method(lr=rate, **given), problems.__getitem__, nodes, rounds
    start = backend.zeros(whole.dim, whole.dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # a rate that is too large diverges, and that is a result
        return run_of(*given, events=events, wires=wires, graph=graph, clock=clock, faults=faults, seed=seed,
                      start=start, observe=look, every=every)  # fmt: skip
