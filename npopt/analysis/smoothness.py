"""How fast a gradient changes along a step, and how that depends on the gradient's length.

A function is (L0, L1)-smooth if |Hess f(x)| <= L0 + L1 |grad f(x)|: Zhang, He, Sra & Jadbabaie, ICLR 2020,
arXiv:1905.11881. Where that holds with a large L1, one step for all of a path has to be as short as its steepest
point demands, and a step that is divided by the gradient's length has not.
"""

from typing import NamedTuple

from npopt import backend
from npopt.analysis.curvature import length
from npopt.errors import UserError
from npopt.values import number

import numpy as np
import scipy

FRACTIONS = (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6)  # of a step: appendix H of the paper (from memory)


class LocalSmoothness(NamedTuple):
    """What gradients along a step from x to y say. ratios: (fractions,), |grad f(x + c d) - grad f(x)| / |c d| for each
    fraction c; norm: |grad f(x)|; moved: |d|; loss: f(x); other: that ratio at c = 1/2 where the second gradient is
    taken on other rows, or NaN."""

    ratios: np.ndarray
    norm: float
    moved: float
    loss: float
    other: float

    @property
    def largest(self):
        return float(self.ratios.max())


def local_smoothness(problem, x, y, rows=None, fractions=FRACTIONS, others=None):
    """The LocalSmoothness of a problem along the step from x to y, d = y - x: a lower bound of its smoothness there.

    All gradients are means over the same `rows` (None: all) of one fixed function: the problem stays in the step that
    `problem.begin` set last, so that batch statistics, dropout and windows are the same in all of them. So no noise of
    sampling is divided by |d|: the authors' released program draws the lengths of its pieces of text anew for each of
    the two gradients. Difference and norm are those of the same mean, too: there the difference is a sum over pieces,
    and the norm a mean. And it looks at c = 1/2 alone; here, as in the paper, the largest of several c counts.

    others   rows of as many as `rows`, for `other`: what noise of sampling would make of the ratio

    In float32 rounding adds about 1e-7 |grad f| / |c d| to a ratio. A step of length 0 has no ratio: a UserError.
    """
    fractions = [number("local_smoothness", "a fraction", c, low=0, high=1, open_low=True) for c in fractions]
    d = y - x
    moved = length(d)
    if not moved > 0:
        raise UserError("local_smoothness: x and y are the same point; give two ends of a step")
    first, there = backend.xp(x).empty_like(x), backend.xp(x).empty_like(x)

    def ratio(c, rows):
        problem.value_and_gradient(x + c * d, rows, out=there)
        return length(there - first) / (c * moved)

    loss = float(backend.to_host(problem.value_and_gradient(x, rows, out=first)))
    ratios = np.array([ratio(c, rows) for c in fractions])
    return LocalSmoothness(ratios, length(first), moved, loss, np.nan if others is None else ratio(1 / 2, others))


class Relation(NamedTuple):
    """Smoothness against gradient norm over the points of a path: correlation and slope of their logarithms, and the
    least-squares fit smoothness = L0 + L1 norm with L0, L1 >= 0."""

    correlation: float
    slope: float
    L0: float
    L1: float


def relation(norms, smoothness):
    """The Relation of two vectors of positive numbers, (points,)."""
    norms, smoothness = np.asarray(norms, float), np.asarray(smoothness, float)
    u, v = np.log(norms), np.log(smoothness)
    u, v = u - u.mean(), v - v.mean()
    (L0, L1), _ = scipy.optimize.nnls(np.stack([np.ones_like(norms), norms], 1), smoothness)
    across = np.sqrt((u @ u) * (v @ v))
    return Relation(
        float(u @ v / across) if across else np.nan, float(u @ v / (u @ u)) if u @ u else np.nan, float(L0), float(L1)
    )
