"""ZO-SVRG: Liu, Kailkhura, Chen, Ting, Chang & Amini, NeurIPS 2018, arXiv:1805.10367, Algorithm 2."""

import math

from npopt import backend
from npopt.estimators.base import Wrapper
from npopt.estimators.coordinate import CoordinateDifferences
from npopt.estimators.svrg import reduced
from npopt.values import number


class ZOSVRG(Wrapper):
    """SVRG with estimates h from function values in the place of gradients. Stages of m steps; at the start of each

        w~ <- x,   G <- h(w~) over all rows;    then    g = h_B(x) - h_B(w~) + G

    passes  m = passes n / B steps, rounded up
    inner   makes h: CoordinateDifferences() (ZO-SVRG-Coord, which is SVRG to the error of the differences), or
            GaussianSmoothing or SphereSmoothing with q directions (ZO-SVRG, ZO-SVRG-Ave). Both h of a step take the
            same rows and the same directions, else their difference would be noise. G keeps the noise of its own
            directions for a stage: only more of them, or coordinates, take it away (the paper's error of order d/q).

    Memory: three more vectors like x. A step costs twice the values of `inner`, a stage those over all rows.
    """

    def __init__(self, passes=2.0, inner=None):
        self.passes = number("ZOSVRG", "passes", passes, low=0, open_low=True)
        self.inner = CoordinateDifferences() if inner is None else inner

    def start(self, problem, x, seed):
        g, m, self.left = super().start(problem, x, seed), backend.xp(x), 0
        self.G, self.snapshot, self._old = m.zeros_like(x), m.zeros_like(x), m.empty_like(x)
        return g

    def __call__(self, x, batch, out):
        if self.left == 0:
            size = self.problem.n if batch.rows is None else len(batch.rows)
            self.left = max(1, math.ceil(self.passes * self.problem.n / size - 1e-9))
            self.snapshot[...] = x
            self.inner(x, batch._replace(rows=None, weights=None), self.G)
        self.left -= 1
        self.batch = batch
        return self.again(x, out)

    def again(self, y, out):
        self.inner.again(self.snapshot, self._old)
        loss = self.inner.again(y, out)
        reduced(out, self._old, self.G)
        return loss

    def state(self):
        return {**super().state(), "G": self.G, "snapshot": self.snapshot, "left": self.left}

    def load_state(self, state):
        super().load_state(state)
        self.left = int(state["left"])
        for array, name in ((self.G, "G"), (self.snapshot, "snapshot")):
            array[...] = backend.asarray(state[name], array.dtype)
