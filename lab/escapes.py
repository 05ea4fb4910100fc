"""Leaving a minimum: walks of the library's methods on problems.wells, and what theory says of when they leave."""

import functools

from npopt import Minibatch, RandomReshuffling, backend
from npopt.estimators import Wrapper
from npopt.optimizers import SGD
from npopt.values import number
from problems.wells import two_basins

import numpy as np
import scipy.special

KINDS = ("constant", "diagonal", "covariance", "Hessian", "eigenvector")
EDGE = 1 / (1 + 1.9**0.5)  # problems.wells.uneven: below 1 - EDGE its second row sees the other bowl
HALF = -1.0  # problems.wells.two_basins: w1 + w2 at a walk that is half way down into the flat basin


def shape_of(problem, x, kind):
    """The covariance of a kind of noise at x, (d, d), of trace 1; zeros where it has none. Zhu et al., section 5.1."""
    x = backend.asarray(x)
    if kind in ("constant", "diagonal", "covariance"):
        M = np.eye(len(x))
        if kind != "constant":
            rows = problem.row_gradients(x)
            M = (rows - rows.mean(0)).T @ (rows - rows.mean(0))
        M = np.diag(np.diag(M)) if kind == "diagonal" else M
    else:
        M = problem.row_hessians(x).mean(0)
        if kind == "eigenvector":
            u = np.linalg.eigh(M)[1][:, -1]
            M = np.outer(u, u)
    size = np.trace(M)
    return M / size if size > 0 else np.zeros_like(M)


class Kicked(Wrapper):
    """g - z / lr: a step of SGD at the rate lr adds z ~ N(0, C) to x. C has the shape of a kind and the trace `total`.

    z is a function of (seed, t). Two numbers on the host: each step waits for x.
    """

    def __init__(self, kind, total, lr, inner=None):
        self.kind, self.total, self.lr = str(kind), number("Kicked", "total", total, low=0), lr
        self.inner = Minibatch() if inner is None else inner

    def __call__(self, x, batch, out):
        self.batch = batch
        loss = self.inner(x, batch, out)
        values, vectors = np.linalg.eigh(self.total * shape_of(self.problem, x, self.kind))
        draw = backend.generator(self.seed, "kick", self.problem.t).standard_normal(len(values))
        out -= backend.asarray(vectors @ (np.sqrt(np.maximum(values, 0)) * draw) / self.lr)
        return loss

    def again(self, y, out):
        return self.inner.again(y, out)


def stepping(problem, x, optimizer, sampler, lr, steps, seed, estimator=None):
    """Make the steps of `minimize` from x, in place, and yield (loss, g) of each when it is made. The optimizer is the
    caller's, who may look at its state, and who ends it where the loss is not finite."""
    estimator = Minibatch() if estimator is None else estimator
    sampler.start(problem, seed)
    g = estimator.start(problem, x, seed)
    optimizer.start(x, estimator)
    for t, batch in enumerate(sampler.take(steps)):
        problem.begin(t)
        estimator.loss = loss = estimator(x, batch, out=g)
        optimizer.step(x, g, lr)
        problem.commit()
        yield loss, g


def walk(problem, lr, steps, seed, sampler=None, estimator=None, until=lambda x: False):
    """(steps + 1, d), on the host: where SGD has been, until(x) or nothing moves it."""
    x = problem.x0(None)
    way = [backend.to_host(x).copy()]
    for _ in stepping(problem, x, SGD(), sampler or RandomReshuffling(None), lr, steps, seed, estimator):
        way.append(backend.to_host(x).copy())
        if until(way[-1]) or not np.isfinite(way[-1]).all():
            break
    return np.array(way)


def escapes(seed, events, *, build, arguments, lr, steps, count, **methods):
    """`count` walks from build(**arguments): columns `left`, the step at which each was past the ridge (inf: never),
    `nearest`, the number of the minimum where it ended (NaN: diverged), and the coordinates x, y there."""
    problem, columns = build(**arguments), {name: [] for name in ("left", "nearest", "x", "y")}
    for k in range(count):
        way = walk(problem, lr, steps, backend.key(seed, "walk", k), until=still(problem), **methods)
        past = np.flatnonzero(beyond(problem, way))
        columns["left"].append(float(past[0]) if len(past) else np.inf)
        end, finite = way[-1], bool(np.isfinite(way[-1]).all())
        columns["nearest"].append(problem.metrics(backend.asarray(end))["nearest"] if finite else np.nan)
        columns["x"].append(float(end[0]))
        columns["y"].append(float(end[-1]))
        if events is not None and events.progress is not None:
            events.progress((k + 1) / count, k + 1, float(np.mean(columns["nearest"])))
    return columns


def still(problem):
    """Whether a walk is over: on the uneven rows where it has arrived, at either minimum, to rounding."""
    if problem.name != "uneven rows":
        return lambda x: False
    return lambda x: abs(x).max() < 1e-9 or abs(x - 1).max() < 1e-15


def beyond(problem, way):
    """(steps + 1,): past the ridge of the uneven rows, or half way down into the flat one of the two basins."""
    return way[:, 0] <= 1 - EDGE if problem.name == "uneven rows" else way.sum(1) < HALF


# ----------------------------------------------------------------------------------------------------------- theory
MEAN_SQUARE = 4 / 7.24  # (1 - 2 lr)^2 + 1.8^2 lr^2 = 1
ALMOST_SURE = float(np.roots((-0.76, 4.0, -2.0)).min())  # (1 - 0.2 lr)(3.8 lr - 1) = 1


def drift(lr):
    """E log |1 - lr h| over both rows at 1: a walk goes away at this rate, exponentially, where it is positive."""
    return 0.5 * (np.log(abs(1 - 0.2 * lr)) + np.log(abs(1 - 3.8 * lr)))


@functools.cache
def exits(rates, first, steps):
    """P(past the ridge after t steps or fewer), t = 0..steps, for SGD of batch 1 from 1 + first, exactly: an array
    (rates, steps + 1) for a tuple of rates above 1/3.8.

    After t steps, k of them with the second row, w - 1 = first (1 - 0.2 lr)^(t-k) (1 - 3.8 lr)^k: the sum over k of the
    paths that have not left. Of k those are kept that are within nine deviations of the mean.
    """
    rates = np.array(rates)[:, None]
    one, two = np.log(1 - 0.2 * rates), np.log(3.8 * rates - 1)
    k, alive, found = np.arange(steps + 2), np.ones((len(rates), 1)), np.zeros((len(rates), steps + 1))
    height, low, nothing = np.log(first) + k * (two - one), 0, np.zeros((len(rates), 1))
    height[:, ::2] = -np.inf  # where w > 1
    for t in range(1, steps + 1):
        alive = 0.5 * (np.append(alive, nothing, 1) + np.append(nothing, alive, 1))
        out = height[:, low : low + alive.shape[1]] + t * one >= np.log(EDGE)
        found[:, t] = found[:, t - 1] + (alive * out).sum(1)
        alive = np.where(out, 0, alive)
        cut, last = max(low, int(t / 2 - 4.5 * np.sqrt(t))), int(t / 2 + 4.5 * np.sqrt(t)) + 2
        alive, low = alive[:, cut - low : last - low], cut
    return found


@functools.cache
def climbs(kind, lr, total, steps, cells=500):
    """P(half way down after t steps or fewer), t = 0..steps, for the two basins with kicks of a kind: a Markov chain
    along the line through both minima, on which every kind of noise keeps its own variance. Left out: the other
    direction."""
    problem, line = two_basins(), np.full(2, np.sqrt(0.5))
    edges = np.linspace(HALF * np.sqrt(0.5), 3.5, cells + 1)
    middle, g = (edges[1:] + edges[:-1]) / 2, backend.empty((2,), "float64")
    there, spread = np.empty(cells), np.empty(cells)
    for i, u in enumerate(middle):
        problem.value_and_gradient(backend.asarray(u * line), out=g)
        there[i] = u - lr * (backend.to_host(g) @ line)
        spread[i] = np.sqrt(total * (line @ shape_of(problem, u * line, kind) @ line))
    below = scipy.special.ndtr((edges[None] - there[:, None]) / np.maximum(spread, 1e-12)[:, None])
    step, found = np.diff(below, axis=1), [0.0]
    step[:, -1] += 1 - below[:, -1]
    p = np.zeros(cells)
    p[np.argmin(abs(middle - np.sqrt(2)))] = 1.0
    for _ in range(steps):
        p = p @ step
        found.append(1 - p.sum())
    return np.array(found)


def median(law):
    """The first t at which a law P(T <= t) is at least a half; inf where it never is."""
    past = np.flatnonzero(law >= 0.5)
    return float(past[0]) if len(past) else np.inf
