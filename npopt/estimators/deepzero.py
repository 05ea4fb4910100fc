"""DeepZero: Chen, Zhang, Jia, Diffenderfer, Liu, Parasyris, Zhang, Zhang, Kailkhura & Liu, ICLR 2024, 2310.02025."""

from npopt import backend
from npopt.estimators.accumulated import add
from npopt.estimators.coordinate import CoordinateDifferences
from npopt.estimators.sphere import unit
from npopt.estimators.zeroth import moved
from npopt.values import number, whole

import numpy as np


class DeepZero(CoordinateDifferences):
    """Differences along some coordinates of every segment; the others have g_i = 0 at this step, and no weight is 0.

    How many: ZO-GraSP, at the first step, from that step's rows. With h the sphere's estimate of `queries` directions

        g0 = h(x)      Hg = (h(x + mu g0) - g0) / mu, the same directions      score = -x Hg

    the part `sparsity` of all coordinates with the least |score| goes, and what is left of a segment is its number of
    coordinates (at least one). Which: drawn at random within each segment, anew every `every` steps (5 epochs in the
    paper). Between redraws SGD is coordinate descent on these. sparsity = 0 leaves nothing out: then it is
    CoordinateDifferences, and no score is needed.

    A network runs the layers before the one that changes once only: feature reuse, Problem.moved_values. The paper
    spreads coordinates over GPUs; here they come one after the other, a pass on a core taking less than its sending. A
    step costs the values of its coordinates and one (forward) or twice as many (central), whatever reuse saves in time;
    the scores cost 4 `queries`. The paper trains by momentum SGD, that is HeavyBall(0.9). The released code's h leaves
    out d/mu, which changes no ranking of Hg alone. Scores are read on the host, once: on a GPU the first step waits for
    them.
    """

    def __init__(self, sparsity=0.9, radius=5e-3, difference="forward", every=1000, queries=192):
        super().__init__(radius, difference)
        self.sparsity = number("DeepZero", "sparsity", sparsity, low=0, high=1, open_high=True)
        self.every, self.queries = whole("DeepZero", "every", every), whole("DeepZero", "queries", queries)

    def start(self, problem, x, seed):
        self.kept = np.array([s.size for s in problem.segments], np.int64)
        self.known = self.sparsity == 0
        self._drawn = None
        return super().start(problem, x, seed)

    def __call__(self, x, batch, out):
        self.batch = batch
        if not self.known:
            self.kept[:], self.known = self.count(x), True
        return self.again(x, out)

    def count(self, x):
        """The number of coordinates that each segment keeps, by ZO-GraSP at x."""
        m, segments = backend.xp(x), self.problem.segments
        g0, h, y = m.empty_like(x), m.empty_like(x), m.empty_like(x)
        self.estimate(x, g0)
        moved(y, x, g0, self.radius)
        self.estimate(y, h)
        score = abs(backend.to_host(x * (h - g0)))
        left = max(1, round((1 - self.sparsity) * score.size))
        chosen = np.argsort(-score, kind="stable")[:left]
        found = np.searchsorted(np.sort(chosen), [[s.start, s.stop] for s in segments])
        return np.maximum(found[:, 1] - found[:, 0], 1)

    def estimate(self, y, out):
        """out: the sphere's central estimate at y, with directions that are the same at every y."""
        m, d = backend.xp(y), y.size
        u, z = m.empty_like(y), m.empty_like(y)
        out[...] = 0
        for k in range(self.queries):
            backend.normals(backend.key(self.seed, "scores", k), u)
            unit(u, backend.norm(u))
            values = []
            for a in (self.radius, -self.radius):
                moved(z, y, u, a)
                values.append(self.value(z))
            add(out, u, (values[0] - values[1]) / (2 * self.radius) * (d / self.queries))

    def places(self):
        number = self.problem.t // self.every
        if self._drawn is None or self._drawn[0] != number:
            draw, found = backend.generator(self.seed, "masks", number), []
            for segment, kept in zip(self.problem.segments, self.kept, strict=True):
                some = draw.choice(segment.size, int(kept), replace=False, shuffle=False)
                found.extend((segment.start + np.sort(some)).tolist())
            self._drawn = number, found
        return self._drawn[1], 1.0

    def state(self):
        return {**super().state(), "kept": self.kept, "known": self.known}

    def load_state(self, state):
        super().load_state(state)
        self.kept[:], self.known, self._drawn = state["kept"], bool(state["known"]), None
