"""The function of one unknown on which Anderson acceleration without a guard cycles: Mai & Johansson, ICML 2020."""

import math

from npopt import backend
from problems.base import Problem

import numpy as np


class Kinked(Problem):
    """f' = 0.1 x - 24.9, 25 x, 0.1 x + 24.9 on x < -1, |x| < 1, x >= 1; it starts at `start`."""

    name, n = "kinked", 1

    def __init__(self, start):
        self.set_shape(1, "float64")
        self.start = start

    def x0(self, rng):
        return backend.asarray(np.array([self.start]))

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        v = float(backend.to_host(x)[0])
        inner = abs(v) < 1
        if out is not None:
            out[0] = 25 * v if inner else 0.1 * v + math.copysign(24.9, v)
        return 12.5 * v * v if inner else 0.05 * v * v + 24.9 * abs(v) - 12.45

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x)

    def metrics(self, x):
        return {"x": float(backend.to_host(x)[0])}
