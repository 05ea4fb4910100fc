"""Networks trained by nodes of npopt.distributed, as recipes: images or a text among nodes, simulated or on ranks."""

import dataclasses

from lab.nodes import run_of, shares, told
from nn.language import gpt2
from nn.networks import lenet5
from npopt import backend
from npopt.distributed import at_random
from npopt.errors import UserError
from problems.classifiers import shortened
from problems.datasets import shared
from problems.feeds import Images
from problems.language import windows
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


def pieces(text, nodes, split, length, seed):
    """The training tokens of each node, equally many: split is "passages", one stretch of the text each, or "random",
    which deals out pieces of 8 `length` tokens. (So 1 target in 8 `length` stands behind a word of another piece.)"""
    if split == "passages":
        size = len(text.train) // nodes
        return [text.train[k * size : (k + 1) * size] for k in range(nodes)]
    if split != "random":
        raise UserError(f"pieces: split must be passages or random, got {split!r}")
    size = 8 * length
    cut = text.train[: len(text.train) // size * size].reshape(-1, size)
    rows = at_random(len(cut), nodes, seed)
    return [cut[part[: len(cut) // nodes]].reshape(-1) for part in rows]


def worded(data, nodes, split, seed, size, held):
    """(a function of k that makes GPT-2's decoder on the tokens of node k, the decoder with `held` tokens each of the
    validation and the test part). size: length, features, layers, heads."""
    text = shared(data)
    parts = pieces(text, nodes, split, size["length"], seed)

    def problem(tokens, held):
        feed = windows(dataclasses.replace(text, train=tokens), size["length"], held)
        return Neural(gpt2(len(text.words), **size), feed, metrics_rows=1)

    return (lambda k: problem(parts[k], 0)), problem(text.train, held)


def taught(seed, events, *, data, nodes, split, validation=0.1, test_rows=None, **more):
    """LeNet-5 on the images of a data set: see by_nodes."""
    return by_nodes(seed, events, *parted(data, nodes, split, seed, validation, test_rows), nodes=nodes, **more)


def spoken(seed, events, *, data, nodes, split, size, held, **more):
    """GPT-2's decoder on a text: see `worded` and by_nodes."""
    return by_nodes(seed, events, *worded(data, nodes, split, seed, size, held), nodes=nodes, **more)


def by_nodes(seed, events, make, judge, *, nodes, method, lr, given, rounds, every, graph=None, clock=None, faults=None,
             wires=None):  # fmt: skip
    """A network trained by method(lr=lr, **given) for so many rounds, all nodes from one start.

    Columns, every `every` rounds: those of the engine; validation_loss, test_loss and what else `judge` knows of the
    mean of all x that are shown; apart, the root mean square of |x_i - mean x|, over the length of that mean.
    """
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
