"""Directions in the space of x, and the lines and planes that they span: what a loss surface is drawn over.

Filter-normalised (Li, Xu, Taylor, Studer & Goldstein, NeurIPS 2018, arXiv:1712.09913, section 4): z ~ N(0, I), and for
each filter j of layer i, a row of a matrix or an output channel of a convolution,

    d_ij = z_ij |w_ij| / |z_ij|,        d = 0 for biases and for the parameters of normalisation.

A network whose layers are scaled so that its function stays the same then has the same surface, and a step of 1 is as
long as the weights. The Hessian's eigenvectors are directions, too (eigen.py), and so are a path's components
(trajectories.py). Axes of different kinds have different scales.
"""

import math
from dataclasses import dataclass

from npopt import backend
from npopt.analysis.products import length
from npopt.analysis.sharpness import WEIGHTS, scales
from npopt.errors import UserError

import numpy as np

LENGTHS = ("filter", "whole", None)


def random_direction(problem, x, by="filter", seed=0, number=0):
    """A random direction at x, (dim,), a function of (seed, number).

    by   "filter": filter-normalised; "whole": |d| = |x|; None: |d| = 1
    """
    if by not in LENGTHS:
        raise UserError(f"random_direction: by must be 'filter', 'whole' or None, got {by!r}")
    z = backend.empty(x.shape, x.dtype)
    backend.normals(backend.key(seed, "direction of a surface", number), z)
    if by != "filter":
        z *= (length(x) if by == "whole" else 1.0) / length(z)
        return z
    if not any(segment.kind in WEIGHTS for segment in problem.segments):
        kinds = ", ".join(sorted({segment.kind for segment in problem.segments}))
        raise UserError(f"random_direction: {problem.name} has no filters (kinds: {kinds}); take by='whole' or None")
    wanted, found = scales(problem, x, "filter"), scales(problem, z, "filter")
    z *= wanted / (found + 1e-10)
    for segment in problem.segments:
        if segment.kind not in WEIGHTS:
            z[segment.slice] = 0
    return z


def cosines(directions):
    """(k, k): the cosines between the rows of (k, dim), on the host. Of two random ones it is about N(0, 1/dim)."""
    G = gram(directions, directions)
    size = np.sqrt(np.diag(G))
    return G / np.outer(size, size)


def vectors(path):
    """A list of vectors, of an array (T, dim) or of an iterable of (dim,)."""
    return [path[i] for i in range(path.shape[0])] if hasattr(path, "shape") else list(path)


def gram(a, b):
    """a b', (j, k), of lists of vectors, in float64 on the host; some numbers of each vector at a time."""
    a, b = vectors(a), vectors(b)
    m, total = backend.xp(a[0]), 0.0
    for first in range(0, a[0].shape[0], 2**17):
        one, two = (m.stack([v[first : first + 2**17] for v in some]).astype("float64") for some in (a, b))
        total = total + one @ two.T
    return np.array(backend.to_host(total), float)


@dataclass
class Plane:
    """The line or plane x + sum_k c_k d_k.

    origin       x, (dim,)
    directions   (1, dim) or (2, dim), independent; they need not be orthogonal or of length 1
    """

    origin: object
    directions: object

    def __post_init__(self):
        shape = getattr(self.directions, "shape", None)
        if shape is None or len(shape) != 2 or shape[0] not in (1, 2) or shape[1:] != self.origin.shape:
            raise UserError(
                f"Plane: directions must be 1 or 2 vectors like x, an array (1 or 2, {self.origin.shape[0]}), "
                f"got {'a ' + type(self.directions).__name__ if shape is None else shape}"
            )
        self.directions = self.directions.astype(self.origin.dtype, copy=False)
        self.gram = gram(self.directions, self.directions)
        sizes = np.sqrt(np.diag(self.gram))
        if not sizes.all() or np.linalg.det(self.gram / np.outer(sizes, sizes)) < 1e-10:
            raise UserError("Plane: the directions must not be 0, nor the second a multiple of the first")

    def at(self, *coefficients):
        """The point x + sum_k c_k d_k, a new array (dim,)."""
        point = self.origin.copy()
        for c, d in zip(coefficients, vectors(self.directions), strict=True):
            point += float(c) * d
        return point

    def project(self, path):
        """The nearest points of the plane to those of a path, (T, dim) or an iterable of (dim,): a Projection."""
        apart = [point - self.origin for point in vectors(path)]
        squares = np.array([length(v) ** 2 for v in apart])
        along = gram(apart, self.directions)
        coefficients = np.linalg.solve(self.gram, along.T).T
        return Projection(coefficients, squares, np.minimum((coefficients * along).sum(1), squares))


@dataclass
class Projection:
    """Where the points of a path lie in a plane, and how much of them the plane sees.

    coefficients   (points, k)
    squares        (points,): |point - origin|^2
    seen           (points,): the part of it that lies in the plane
    """

    coefficients: np.ndarray
    squares: np.ndarray
    seen: np.ndarray

    @property
    def shares(self):
        """(points,): the share of each point's squared distance that the plane explains; NaN at the origin itself."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.squares > 0, self.seen / self.squares, math.nan)

    @property
    def share(self):
        """The share of all squared distances together. A random plane has about k / dim of it."""
        return float(self.seen.sum() / self.squares.sum())
