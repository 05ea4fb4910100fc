"""Small networks for nodes that have a part each, and the loop over the whole network that they are held to."""

from nn import Linear, Network, Sequential, feed_forward, gpt2, llama, mlp
from nn.losses import IGNORE, SoftmaxCrossEntropy
from npopt import backend
from problems.datasets import Dataset
from problems.feeds import Table
from problems.neural import Neural
from problems.parts import Shard, Stage, together
from problems.tokens import Windows

import numpy as np

SEED, BATCH, LR, BETA, WORDS, LENGTH, D = 5, 7, 0.3, 0.8, 11, 6, 16


class Gaps(Windows):
    """Windows whose even rows have three targets that do not count."""

    def batch(self, part, rows=None, draw=None):
        inputs, targets = super().batch(part, rows, draw)
        targets = targets.copy()
        targets[rows % 2 == 0, 1:4] = IGNORE
        return inputs, targets


def text():
    rng = np.random.default_rng(2)
    return Gaps(rng.integers(0, WORDS, 20 * LENGTH + 1), LENGTH)


def table():
    rng = np.random.default_rng(3)
    return Table(Dataset("points", "classification", rng.standard_normal((20, 5)), rng.integers(0, 3, 20), None, None,
                         classes=("a", "b", "c"), sha256="", source="made here"))  # fmt: skip


def perceptron():
    """Parts of their own that are cut: without norm, sum or dropout."""
    wide = dict(first=Linear(5, 6), inner=feed_forward(6, 8), more=feed_forward(6, 4, "swiglu", bias=False))
    return Network(Sequential(**wide, head=Linear(6, 3)), (5,), "wide")


NETWORKS = {  # name: (network, feed, loss)
    "gpt2": (lambda: gpt2(WORDS, LENGTH, D, 4, 4, tied=False, dropout=0.2), text, SoftmaxCrossEntropy()),
    "llama": (
        lambda: llama(WORDS, LENGTH, D, 4, 4, hidden=8, kv_heads=2, tied=False),
        text,
        SoftmaxCrossEntropy(0.1, over="positions"),
    ),
    "mlp": (lambda: mlp((5, 9, 8, 7, 3), dropout=0.1), table, SoftmaxCrossEntropy()),
    "norms": (lambda: mlp((5, 9, 8, 7, 3), norm="batch"), table, SoftmaxCrossEntropy()),
    "wide": (perceptron, table, SoftmaxCrossEntropy()),
    "tied": (lambda: gpt2(WORDS, LENGTH, D, 2, 4), text, SoftmaxCrossEntropy()),
}


def stages(name, count, dtype="float64"):
    make, feed, loss = NETWORKS[name]
    return [Stage(make(), feed(), loss, stage=k, stages=count, dtype=dtype) for k in range(count)]


def shards(name, count, dtype="float64"):
    make, feed, loss = NETWORKS[name]
    return [Shard(make(), feed(), loss, rank=k, ranks=count, dtype=dtype) for k in range(count)]


def start(part):
    """A whole x in which every layer counts: the start of GPT-2 is too near to 0 for that."""
    return np.random.default_rng(9).standard_normal(part.whole.dim) * 0.4


def starts(parts):
    return [part.gather(start(part)) for part in parts]


def whole(name, rounds, dtype="float64"):
    """x after so many steps of heavy ball on the whole network, whose batches go through in one pass."""
    make, feed, loss = NETWORKS[name]
    problem = Neural(make(), feed(), loss, dtype=dtype, seed=SEED)
    x, m, g = np.random.default_rng(9).standard_normal(problem.dim) * 0.4, 0.0, np.empty(problem.dim)
    for t in range(rounds):
        rows = backend.generator(SEED, "rows of all", t).integers(problem.n, size=BATCH)
        problem.begin(t)
        problem.value_and_gradient(x, rows, out=g)
        problem.commit()
        m = BETA * m + g
        x = x - LR * m
    return x


def apart(parts, shown, expected):
    """The largest |difference| / largest |number moved| of a segment."""
    x, first, worst = together(parts, shown), start(parts[0]), 0.0
    for segment in parts[0].whole.segments:
        moved = np.abs(expected - first)[segment.slice].max()
        if segment.name.endswith("key.b"):  # a softmax does not see what is added to all its numbers
            moved = 1.0
        assert moved > 1e-6, f"{segment.name} does not move"
        worst = max(worst, np.abs(x - expected)[segment.slice].max() / moved)
    return worst
