"""Networks at the minima where methods stop: sharpness, trace and non-uniformity, as scripts/flat_networks.py asks."""

import math

from nn.losses import Loss
from nn.networks import mlp
from npopt import SGD, Accumulated, RandomReshuffling, Stop, backend, minimize
from npopt.analysis.curvature import lanczos
from npopt.analysis.densities import trace
from npopt.analysis.products import hessian
from npopt.analysis.stability import non_uniformity
from npopt.phases import joined
from problems import Neural
from problems.classifiers import between, shortened
from problems.datasets import shared
from problems.feeds import Images

import numpy as np


class OneHot(Loss):
    """l = (1/K) sum_k (z_k - [k = t])^2 of labels t, (B,): the mean over outputs, not their sum, and without a 1/2. So
    Wu, Ma & E; sharpness, and with it 2/lr, depends on it. dl/dz = (2/K) (z - [k = t])."""

    def targets(self, outputs, t, dtype):
        return np.eye(outputs[-1], dtype=dtype)[np.asarray(t, np.int64)]

    def rows(self, z, t):
        return ((z - t) ** 2).mean(axis=1)

    def gradient(self, z, t):
        return (2 / z.shape[1]) * (z - t)

    def second(self, z, t, rz):
        return (2 / z.shape[1]) * rz

    def right(self, z, t):
        return z.argmax(axis=1) == t.argmax(axis=1)


def fitted(data, rows, hidden, test_rows=None, noise=0.0, dtype="float32", pixels=(0.0, 1.0), loss=None, **more):
    """A perceptron on the first so many rows of a random order. pixels: (low, high), or None for mean 0 and standard
    deviation 1; loss: OneHot() unless another is given; `more` goes to nn.networks.mlp."""
    d = shortened(shared(data, rows=rows, noise=noise), test_rows)
    d = d if pixels is None else between(d, *pixels)
    network = mlp((d.x_train[0].size, *hidden, len(d.classes)), **more)
    return Neural(network, Images(d), OneHot() if loss is None else loss, dtype=dtype, metrics_batch=1000)


def method(batch, rows, piece):
    """(sampler, estimator): batches of so many rows; 0 or all rows: gradient descent, its gradient in pieces."""
    if batch in (0, rows):
        return RandomReshuffling(None), Accumulated(piece)
    return RandomReshuffling(batch, drop_last=True), None


def measured(exact, x, look):
    """{"high": lmax, with its error; "trace"; "uneven": non-uniformity} of the training loss over all rows. look: steps
    of Lanczos, draws of the trace, steps of Lanczos for the non-uniformity."""
    x = backend.asarray(backend.to_host(x), "float64")
    product = hessian(exact, x)
    found = lanczos(product, x.shape[0], look[0])
    return {
        "high": float(found.values[-1]),
        "error": float(found.errors[-1]),
        "trace": trace(product, x.shape[0], look[1]).value,
        "uneven": non_uniformity(exact, x, None, look[2])[0],
    }


def stage(problem, exact, batch, x, *, lr, steps, piece, look, seed, events, done=1e-7):
    """A run of so many steps, or until the training loss is `done`; what is measured stands in its last row."""
    sampler, estimator = method(batch, problem.n, piece)
    stop = Stop(steps=steps, target=("train_loss", done))
    run = minimize(problem, SGD(), sampler, lr, estimator, stop=stop, seed=seed, x=x, events=events)
    if not run.diverged and run.reason != "interrupted":
        for name, value in measured(exact, run.x, look).items():
            run.columns[name] = [math.nan] * (len(run.columns["step"]) - 1) + [value]
    return run


def stopped(seed, events, *, data, problem, batch, lr, steps, piece, look):
    """Where SGD (batch 0: gradient descent) stops, from a start that is drawn."""
    given, exact = fitted(data, **problem), fitted(data, **problem, dtype="float64")
    some = dict(lr=lr, steps=steps, piece=piece, look=look)
    return stage(given, exact, batch, None, seed=seed, events=events, **some)


def switched(seed, events, *, data, problem, batches, lr, steps, piece, look):
    """One method after the other on one x: the run of the first, until it stops, then that of the second."""
    given, exact = fitted(data, **problem), fitted(data, **problem, dtype="float64")
    columns, run = {}, None
    for i, batch in enumerate(batches):
        told = type(events)(events.metrics, events.per, None, progress=events.progress)
        x = None if run is None else run.x
        some = dict(lr=lr, steps=steps[i], piece=piece, look=look, done=0.0)
        run = stage(given, exact, batch, x, seed=seed + 1000 * i, events=told, **some)
        columns = joined(columns, run.columns, i)
        if run.diverged or run.reason == "interrupted":
            break
    run.columns = columns
    return run
