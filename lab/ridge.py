"""What theory says of zeroth-order SGD on the ridge regressions of problems.convex.ridge, and what runs took: steps,
values, levels."""

import functools

from npopt import backend
from npopt.analysis import moments
from problems.convex import ridge

import numpy as np

KAPPA = 20  # L/mu
NAMES = {"coordinates": "coordinates", "normal": "Gaussian", "sphere": "sphere"}


class Theory:
    """One data set with L/mu = kappa. kind: one of NAMES (npopt/analysis/moments.py)."""

    def __init__(self, data, kappa):
        problem = ridge(data, kappa)
        self.H, best, noise = problem.exact
        self.values, vectors = np.linalg.eigh(self.H)
        self.d, self.n, self.L = len(self.values), problem.n, self.values[-1]
        self.start = (vectors.T @ best) ** 2
        self.noise = np.einsum("ji,jk,ki->i", vectors, noise, vectors)
        self.least = float(backend.to_host(problem.value(backend.asarray(best))))

    def bound(self, kind, q=1):
        """E|g|^2 / |grad f|^2 as the radius goes to 0."""
        return {"coordinates": 1.0, "normal": 1 + (self.d + 1) / q, "sphere": 1 + (self.d - 1) / q}[kind]

    def step(self, kind, q=1):
        return 1 / (self.L * self.bound(kind, q))

    def memory(self, kind):
        """Steps that SGD remembers at that step."""
        return self.L / self.values[0] * self.bound(kind)

    def cost(self, kind, q=1):
        """Values of a step of forward differences."""
        return (self.d if kind == "coordinates" else q) + 1

    def T(self, kind, lr, q=1):
        return moments.transition(self.values, lr, q, kind)

    def steps(self, kind, lr, ratios, q=1):
        """Until the mean of f - f* is these parts of the first."""
        return moments.steps_to(self.values, self.start, self.T(kind, lr, q), ratios)

    def path(self, kind, steps):
        """The mean of f - f*, in parts of the first, at the step of theory."""
        found = moments.gaps(self.values, self.start, self.T(kind, self.step(kind)), steps)
        return found / found[0]

    def floor(self, kind, radius):
        """Where forward differences stop."""
        if kind == "coordinates":
            return moments.coordinate_floor(self.H, radius)
        lr = self.step(kind)
        return moments.level(self.values, self.T(kind, lr), moments.forward_noise(self.values, lr, radius, kind))

    def rounding(self, kind, radius):
        """Where rounding stops them, if each difference is off by eps |f*| / radius, by chance."""
        lr, size = self.step(kind), np.finfo(float).eps * self.least / radius
        noise = np.full(self.d, (lr * size) ** 2 * (self.d if kind == "sphere" else 1))
        return moments.level(self.values, self.T(kind, lr), noise)

    def best_radius(self, kind):
        """Where the two are equal: floor = a r^2, rounding = b / r^2."""
        return (self.rounding(kind, 1.0) / self.floor(kind, 1.0)) ** 0.25

    def row_floor(self, lr, q, rows):
        """The level of q directions of the sphere on `rows` rows drawn at random."""
        T = self.T("sphere", lr, q)
        return moments.level(self.values, T, lr**2 * moments.spread(self.values, self.noise, q, "sphere") / rows)


@functools.cache
def theory(data, kappa=KAPPA):
    return Theory(data, kappa)


def counts(runs, target):
    """Values of the whole f until f - f* is this part of the first, one a run; inf where it never is. The runs are of
    one data set; their tag n is its number of rows."""
    return runs.until("relative", target, "values") / runs[0].tags["n"]
