"""A network that has learned one task and is to learn one nearby: where methods without gradients are meant to work.

It is trained by momentum SGD on some rows of a set; then its images change: they are moved to a side by an eighth of
their width, or, with three channels, become negatives. The same rows, changed, are what is learned now, from these
weights and batch statistics, or from scratch.
"""

import dataclasses
import functools

from nn.networks import lenet5, resnet20
from npopt import Cosine, Events, HeavyBall, RandomReshuffling, Stop, backend, minimize
from problems.classifiers import shortened
from problems.datasets import shared
from problems.feeds import Images
from problems.neural import Neural

import numpy as np

NETWORKS = {"lenet": lenet5, "resnet20": resnet20}
BATCH = 64


def changed(x):
    """Images moved right and down, zeros behind them; or the negatives of coloured ones."""
    if x is None:
        return None
    if x.shape[3] == 3:
        return np.iinfo(x.dtype).max - x
    by, out = max(1, x.shape[1] // 8), np.zeros_like(x)
    out[:, by:, by:] = x[:, :-by, :-by]
    return out


def built(network, d, dtype, kind=Neural, **more):
    shape, classes = d.x_train.shape[1:], len(d.classes)
    if network == "resnet20":
        net = resnet20(in_channels=shape[2], image=shape[0], classes=classes, **more)
    else:
        net = lenet5(input_shape=shape, classes=classes, **more)
    return kind(net, Images(d), dtype=dtype, metrics_rows=min(1000, len(d.y_train)))


@functools.cache
def learned(network, data, rows, epochs, options):
    """(weights, batch statistics) after so many epochs of momentum SGD on so many rows; cosine from 0.02, seed 0."""
    problem = built(network, shared(data, rows=rows), "float32", **dict(options))
    run = minimize(problem, HeavyBall(0.9), RandomReshuffling(BATCH), Cosine(0.02), stop=Stop(epochs=epochs),
                   events=Events(None))  # fmt: skip
    return run.x, problem.network.state()


class Adapted(Neural):
    """A network that starts where another has ended."""

    first = None

    def x0(self, rng):
        return super().x0(rng) if self.first is None else backend.asarray(self.first, self.dtype).copy()

    def ingredients(self):
        return super().ingredients() | {"first": self.first}


def adapted(data, network="lenet", start="learned", rows=2000, before=10_000, epochs=3, *, validation=0.2,
            test_rows=None, dtype="float32", **options):  # fmt: skip
    """The second task: `rows` of the training rows, a part of them held out for validation.

    start      "learned": the weights after `epochs` epochs on `before` rows of the first task; "scratch": random ones
    options    of the network
    """
    d = shortened(shared(data, rows=rows, validation=validation), test_rows)
    d = dataclasses.replace(
        d, x_train=changed(d.x_train), x_test=changed(d.x_test), x_validation=changed(d.x_validation)
    )
    problem = built(network, d.measured(), dtype, Adapted, **options)
    if start == "learned":
        problem.first, statistics = learned(network, data, before, epochs, tuple(sorted(options.items())))
        problem.first = backend.to_host(problem.first)
        problem.network.load_state(statistics)
        problem.fresh = problem.network.state()
    return problem
