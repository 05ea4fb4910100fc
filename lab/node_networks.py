"""Networks trained by nodes of npopt.distributed, as recipes: images split among nodes, simulated or on ranks."""

import dataclasses

from lab.nodes import run_of, shares, told
from nn.networks import lenet5
from npopt import backend
from problems.classifiers import shortened
from problems.datasets import shared
from problems.feeds import Images
from problems.neural import Neural

import numpy as np


def parted(data, nodes, split, seed, validation, test_rows):
    """(a function of k that makes LeNet-5 on the rows of node k, LeNet-5 with the held-out and the test rows)."""
    d = shortened(shared(data, validation=validation), test_rows)
    rows = shares(d.y_train, nodes, split, seed)
    bare = dataclasses.replace(d, x_validation=None, y_validation=None, x_test=None, y_test=None)

    def problem(d):
        return Neural(lenet5(input_shape=d.x_train.shape[1:], classes=len(d.classes)), Images(d), metrics_rows=1)

    def of(part):
        return problem(dataclasses.replace(bare, x_train=d.x_train[part], y_train=d.y_train[part]))

    return (lambda k: of(rows[k])), problem(dataclasses.replace(d, x_train=d.x_train[:1], y_train=d.y_train[:1]))


def taught(seed, events, *, data, nodes, split, method, lr, given, rounds, every, graph=None, clock=None, faults=None,
           validation=0.1, test_rows=None, wires=None):  # fmt: skip
    """LeNet-5 trained by method(lr=lr, **given) for so many rounds, all nodes from one start.

    Columns, every `every` rounds: those of the engine; validation_loss, test_loss, test_accuracy and more of the mean
    of all x that are shown; apart, the root mean square of |x_i - mean x|, over the length of that mean.
    """
    make, judge = parted(data, nodes, split, seed, validation, test_rows)
    progress = told(events, rounds, every)

    def look(shown):
        mean = sum(shown) / len(shown)
        spread = [float(backend.to_host(backend.norm(x - mean))) for x in shown]
        found = {name: v for name, v in judge.metrics(mean).items() if not name.startswith("train")}
        progress(float(found["validation_loss"]))
        return found | {"apart": float(np.sqrt(np.mean(np.square(spread))) / backend.to_host(backend.norm(mean)))}

    with np.errstate(over="ignore", invalid="ignore"):  # a rate that is too large diverges, and that is a result
        return run_of(method(lr=lr, **given), make, nodes, rounds, events=events, wires=wires, graph=graph, clock=clock,
                      faults=faults, seed=seed, start=judge.x0(backend.generator(seed, "start")), observe=look,
                      every=every)  # fmt: skip
