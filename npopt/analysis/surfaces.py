"""The loss on lines and planes: many points on the same rows.

    L(a, b) = f(x + a d1 + b d2)

Goodfellow, Vinyals & Saxe, ICLR 2015 (lines between two points); Li, Xu, Taylor, Studer & Goldstein, NeurIPS 2018,
arXiv:1712.09913 (planes). What a section of two dimensions shows of a function of a million is what these two
directions show: planes.Projection says how much of a path that is.

Batch statistics belong to a point. A network with batch normalisation whose weights are moved and whose running
statistics are kept is another function at every point but x. So `statistics` says whose they are.
"""

from dataclasses import dataclass

from npopt import backend
from npopt.analysis.planes import Plane
from npopt.errors import UserError

import numpy as np


@dataclass
class LossSurface:
    """Losses on a line or a grid.

    a, b       the coefficients of the directions, (n,) and (m,); b is None on a line
    loss       (n, m), the first index that of a; (n,) on a line
    accuracy   of the same shape; NaN where the problem has none
    """

    a: np.ndarray
    b: np.ndarray | None
    loss: np.ndarray
    accuracy: np.ndarray

    @property
    def grid(self):
        """(A, B), (n, m) each: the coefficients of every point of a plane."""
        return np.meshgrid(self.a, self.b, indexing="ij")


def along(problem, plane, coefficients, rows=None, **more):
    """(loss, accuracy) at x + sum_k c_k d_k for each row of coefficients, (points, k), one after the other: numbers of
    the device in use. As the problem does it itself (problems/sections.py), or by its value, with accuracy NaN."""
    known = getattr(problem, "along", None)
    if known is not None:
        yield from known(plane, coefficients, rows, **more)
        return
    if any(v not in (None, "train", "running") for v in more.values()):
        words = ", ".join(f"{k}={v!r}" for k, v in more.items() if v is not None)
        raise UserError(f"loss_surface: {problem.name} has neither parts nor batch statistics; leave out {words}")
    for some in coefficients:
        yield problem.value(plane.at(*some), rows), float("nan")


def loss_surface(problem, plane, a, b=None, rows=None, progress=None, **more):
    """The LossSurface of a problem over a Plane.

    a, b       coefficients of the first and of the second direction; b None on a line
    rows       row numbers, the same at every point; None: all
    progress   a function of the fraction that is done
    more       of networks: part ("train", "validation", "test"), statistics ("running", "rows" or a pair of states),
               batch; see problems.sections.Sections.along. Without these a problem's value is taken, as in training.

    Losses are read once, at the end. Nothing of the problem is changed.
    """
    a, b = coefficients("a", a), None if b is None else coefficients("b", b)
    k = 1 if b is None else 2
    if plane.directions.shape[0] != k:
        raise UserError(f"loss_surface: the plane has {plane.directions.shape[0]} directions, coefficients are for {k}")
    points = a[:, None] if k == 1 else np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    found = backend.empty((len(points), 2), "float64")
    for i, (loss, accuracy) in enumerate(along(problem, plane, points, rows, **more)):
        found[i, 0], found[i, 1] = loss, accuracy
        if progress is not None and i % 20 == 0:
            progress(i / len(points))
    losses, accuracies = np.array(backend.to_host(found)).T.reshape(2, len(a), *(() if b is None else (len(b),)))
    return LossSurface(a, b, losses, accuracies)


def coefficients(name, values):
    """(n,) float64 on the host."""
    values = np.atleast_1d(np.asarray(values, float))
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise UserError(f"loss_surface: {name} must be finite numbers, a vector of at least one")
    return values


def interpolation(problem, x, y, a=None, rows=None, **more):
    """The LossSurface of the line (1 - a) x + a y. a: by default 61 points from -0.5 to 1.5, with 0 and 1 among them.

    `more` as in loss_surface. Two networks with batch normalisation need statistics=(state of x, state of y), or, which
    shows less of a barrier that is none, statistics="rows".
    """
    a = np.linspace(-0.5, 1.5, 61) if a is None else a
    return loss_surface(problem, Plane(x, (y - x).reshape(1, -1)), a, rows=rows, **more)


@dataclass
class Barrier:
    """height: the most by which the loss between two points exceeds the line between their losses, at least 0; `at`:
    where, as the share of the way."""

    height: float
    at: float


def barrier(surface):
    """The Barrier on a line: max over a in [0, 1] of L(a) - (1 - a) L(0) - a L(1), over the points of the surface.

    Frankle, Dziugaite, Roy & Carbin, ICML 2020, arXiv:1912.05671, with the line in place of the mean of the ends, as
    Entezari, Sedghi, Saukh & Neyshabur, ICLR 2022, arXiv:2110.06296, definition 2.1.
    """
    a, loss = surface.a, surface.loss
    first, last = (np.flatnonzero(np.abs(a - end) < 1e-9) for end in (0.0, 1.0))
    if surface.b is not None or not (first.size and last.size):
        raise UserError("barrier: the surface must be a line whose points have 0 and 1 among them")
    inside = (a > -1e-9) & (a < 1 + 1e-9)
    excess = loss - (1 - a) * loss[first[0]] - a * loss[last[0]]
    top = int(np.argmax(np.where(inside, excess, -np.inf)))
    return Barrier(float(max(excess[top], 0.0)), float(a[top]))
