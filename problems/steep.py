"""Walls that rise exponentially: a function that is (L0, L1)-smooth and has no smoothness constant."""

from npopt import SGD, Events, Stop, backend, minimize
from npopt.analysis.smoothness import local_smoothness
from npopt.errors import UserError
from npopt.segments import Segments
from npopt.values import number
from problems.base import Problem

import numpy as np


class Steep(Problem):
    """f(x) = sum_j phi(x_j),   phi(u) = L0 u^2 / 2 + L0 / (2 L1^2)     where L1 |u| <= 1,
                                       (L0 / L1^2) e^(L1 |u| - 1)     beyond.

    phi is convex and twice differentiable with phi'' = max(L0, L1 |phi'|). So |Hess f| = max(L0, L1 max_j |phi'(x_j)|),
    at most L0 + L1 |grad f|: (L0, L1)-smooth in the words of Zhang, He, Sra & Jadbabaie (ICLR 2020, arXiv:1905.11881),
    whose lower bound for gradient descent uses this phi. No constant bounds phi'', so a fixed step that suits one start
    is too long for another: gradient descent comes down from u if and only if lr < 2 u / phi'(u), and this falls like
    log M / M with M = |phi'(u)|.

    start     (d,), where a run starts; each number is a segment of its own, "x1", "x2", ...
    Metrics: gap f - f*, gradient_norm, curvature |Hess f|, in float64.
    """

    n = 1

    def __init__(self, start, L0=1.0, L1=1.0, dtype="float64"):
        self.L0 = number("Steep", "L0", L0, low=0, open_low=True)
        self.L1 = number("Steep", "L1", L1, low=0, open_low=True)
        self.start = np.atleast_1d(np.asarray(start, float))
        if self.start.ndim != 1 or not self.start.size:
            raise UserError(f"Steep: start must be a vector, got shape {np.shape(start)}")
        self.name = f"steep walls, L0={self.L0:g}, L1={self.L1:g}"
        d = self.start.size
        self.set_shape(d, dtype, Segments.of(*((f"x{j}", (1,), "vector", f"x{j}") for j in range(1, d + 1))))

    @classmethod
    def on_wall(cls, M, *others, L0=1.0, L1=1.0):
        """Started at (u, *others) with phi'(u) = M, at least L0 / L1: u = (1 + log(M L1 / L0)) / L1."""
        number("Steep.on_wall", "M", M, low=L0 / L1)
        return cls(((1 + np.log(M * L1 / L0)) / L1, *others), L0, L1)

    def x0(self, rng):
        return backend.asarray(self.start.astype(self.dtype))  # a copy

    def walls(self, x):
        """(whether each number is on a wall, phi'(|x_j|) there): (d,) each."""
        m, a = backend.xp(x), abs(x) * self.L1
        return a > 1, (self.L0 / self.L1) * m.exp(m.maximum(a, 1) - 1)

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        if inputs is not None or dinputs is not None:
            raise UserError(f"{self.name}: it takes no inputs= or dinputs=")
        m, (outside, slope) = backend.xp(x), self.walls(self.check(x))
        mean = 1.0 if weights is None else weights.mean()
        if out is not None:
            self.check(out, "out")[...] = mean * m.where(outside, m.copysign(slope, x), self.L0 * x)
        f = m.where(outside, slope / self.L1, self.L0 * x * x / 2 + self.L0 / (2 * self.L1**2)).sum()
        return float(mean * f) if isinstance(f, np.generic) else mean * f

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x, rows, weights)

    def minimum(self):
        return np.zeros(self.dim), self.dim * self.L0 / (2 * self.L1**2)

    def metrics(self, x):
        x = np.asarray(backend.to_host(self.check(x)), float)
        with np.errstate(over="ignore", invalid="ignore"):
            outside, slope = self.walls(x)
            g = np.where(outside, slope, self.L0 * np.abs(x))
            phi = np.where(outside, slope / self.L1 - self.L0 / (2 * self.L1**2), self.L0 * x * x / 2)
            norm = float(np.linalg.norm(g))
        return {"gap": float(phi.sum()), "gradient_norm": norm, "curvature": max(self.L0, self.L1 * float(g.max()))}


# ------------------------------------------------------------- from (1 + log M, 1) with L0 = L1 = 1, where |grad f| = M
def longest_step(M):
    """The rate below which, and only below which, gradient descent comes down: 2 u / phi'(u)."""
    return 2 * (1 + np.log(M)) / M


def descent_steps(M, eps):
    """Iterations of gradient descent at that rate until the second number, from 1, is eps: of order M / log M."""
    return np.ceil(np.log(1 / eps) / -np.log1p(-longest_step(M)))


def clipped_steps(M, eps, lr=0.1):
    """Iterations with steps of at most lr: down the wall by lr a step, then (1 - lr)^t."""
    return np.ceil(np.log(M) / lr + np.log(1 / eps) / -np.log1p(-lr))


def iterations(optimizer, estimator, M, rates, eps, seed, events, most=50_000):
    """Columns lr, iterations: how many it takes until |grad f| <= eps, for each rate, falling; NaN where it diverges or
    takes `most`. The column ends where a rate takes twice as long as the best."""
    found, best = {"lr": [], "iterations": []}, most / 2
    for lr in rates:
        stop = Stop(steps=int(2 * best), target=("gradient_norm", eps))
        run = minimize(Steep.on_wall(M, 1.0), optimizer, None, lr, estimator, stop=stop, events=Events(1, "step"))
        arrived = run.reason == "target"
        found["lr"].append(lr)
        found["iterations"].append(float(run.final["step"]) if arrived else np.nan)
        best = min(best, run.final["step"]) if arrived else best
        if not arrived and not run.diverged and best < most / 2:
            break
    return found


def walk(estimator, M, lr, steps, seed, events):
    """Columns step, norm, smoothness: |grad f| at the start of each step and the local smoothness along it."""
    problem, found = Steep.on_wall(M, 1.0), {"step": [], "norm": [], "smoothness": []}
    x = problem.x0(None)
    for t in range(steps):
        y = minimize(problem, SGD(), None, lr, estimator, stop=Stop(steps=1), x=x).x
        seen = local_smoothness(problem, x, y)
        for name, value in zip(found, (t, seen.norm, seen.largest), strict=True):
            found[name].append(value)
        x = y
    return found
