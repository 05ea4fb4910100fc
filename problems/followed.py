"""Networks whose local smoothness is measured along the path of a run."""

import math

from nn.networks import language_model, resnet20
from npopt import backend
from npopt.analysis.smoothness import FRACTIONS, local_smoothness
from problems.datasets import shared
from problems.feeds import Images
from problems.language import windows
from problems.neural import Neural

import numpy as np

NAMES = ("slice_loss", "norm", "smoothness", "midpoint", "other_rows", "moved")


class Followed(Neural):
    """A network whose rows of metrics, one in `every` steps, say how smooth a fixed slice of the data is along the step
    just made, from x to y (npopt.analysis.local_smoothness):

    slice_loss, norm   of the slice's mean loss at x, and of its gradient
    smoothness         the largest ratio over five points of the step; midpoint: that of its middle
    other_rows         the ratio of the middle if the gradient there is taken on other rows, as a warning
    moved              |y - x|

    The gradients are those of `twin`, the same network on its own, which no step touches: in training mode, at its step
    0, on the rows `slice` (and `others`). Its layers have no streams, so each window starts at zero. Rows after steps
    that are no multiple of `every`, and the first, are NaN.
    """

    every, twin, slice, others = 1, None, None, None
    before = None

    def begin(self, t):
        self.before = None
        super().begin(t)

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        if self.before is None and out is not None and (self.t + 1) % self.every == 0:
            self.before = x.copy()  # where this step starts: its first gradient is taken there
        return super().value_and_gradient(x, rows, weights, out, inputs, dinputs)

    def metrics(self, x):
        if self.before is None or not backend.to_host((x != self.before).any()):
            return dict.fromkeys(NAMES, math.nan)
        one = local_smoothness(self.twin, self.before, x, self.slice, others=self.others)
        middle = float(one.ratios[FRACTIONS.index(1 / 2)])
        return dict(zip(NAMES, (one.loss, one.norm, one.largest, middle, one.other, one.moved), strict=True))

    def ingredients(self):
        return super().ingredients() | {"every": self.every, "slice": self.slice, "others": self.others}


def with_twin(build, every, rows):
    """build(kind) followed, with its twin; the slice is `rows` rows spread over all, the others are those behind."""
    problem = build(Followed)
    problem.twin, problem.every, apart = build(Neural), every, problem.n // rows
    problem.slice = np.arange(rows) * apart
    problem.others = problem.slice + max(1, apart // 2)
    return problem


def followed_language(data, units, every, rows, length=20, streams=16, layers=1, tokens=None):
    """The language model of problems/language.py, followed on `rows` windows."""
    text = shared(data, rows=tokens)

    def build(kind):
        network = language_model(len(text.words), length, units, layers, streams=streams if kind is Followed else 0)
        return kind(network, windows(text, length, held=0))

    return with_twin(build, every, rows)


def followed_resnet(data, width, every, rows, images=None):
    """ResNet-20, followed on `rows` images. Batch statistics are those of the slice."""
    d = shared(data, rows=images or 10**9)

    def build(kind):
        network = resnet20(width, d.x_train.shape[3], len(d.classes), d.x_train.shape[1])
        return kind(network, Images(d))

    return with_twin(build, every, rows)
