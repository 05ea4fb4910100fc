"""Products with second derivatives of any problem: exact where the problem knows them, else by differences."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np

__all__ = ["Hessian", "Nonuniformity"]


def length(v):
    """|v| as a float."""
    return float(backend.to_host(backend.norm(v)))


class Hessian:
    """v -> H v at a point of a problem, by a central difference of gradients.

        H v = (grad f(x + r u) - grad f(x - r u)) |v| / (2 r)        u = v / |v|,   r = radius (1 + |x|)

    A product costs two gradients over `rows` (None: all). It is exact on quadratics; elsewhere its error is of order
    r^2, plus about 1e-16 / radius from rounding. So x must be float64. The radius is small because of ReLUs: one kink
    of one row between the two points adds an error of order 1/r. Lanczos then shows large eigenvalues of both signs
    that the Hessian does not have. `stable` finds this out: it compares with a second radius. Smooth functions may take
    radius=1e-6. `uncertainty(v)` says what a product is worth. Batch statistics, dropout and augmentation are those of
    the step that `problem.begin` set last.
    """

    def __init__(self, problem, x, rows=None, radius=1e-10):
        if x.dtype != np.float64:
            raise UserError(f"Hessian: x must be float64, got {x.dtype}; build the problem with dtype='float64'")
        self.problem, self.x, self.rows = problem, x, rows
        self.radius = number("Hessian", "radius", radius, low=0, open_low=True) * (1 + length(x))
        self.right, self.left = backend.xp(x).empty_like(x), backend.xp(x).empty_like(x)

    def __call__(self, v):
        """A new array like v."""
        return self.at(v, self.radius)

    def at(self, v, radius):
        """The product with points so far from x."""
        size = length(v)
        if size == 0:
            return backend.xp(v).zeros_like(v)
        for sign, out in ((1, self.right), (-1, self.left)):
            self.problem.value_and_gradient(self.x + (sign * radius / size) * v, self.rows, out=out)
        return (self.right - self.left) * (size / (2 * radius))

    def uncertainty(self, v):
        """|the product at the radius - that at twice the radius|, four gradients. Where f is smooth this is three times
        the error that falls as r^2; where rounding rules, or a kink, it is of the size of that error."""
        return length(self.at(v, 2 * self.radius) - self(v))


def exact(problem, x, rows=None):
    """problem.curvature(x, rows), or None."""
    known = getattr(problem, "curvature", None)
    return known and known(x, rows)


def hessian(problem, x, rows=None, how=None, radius=1e-10, batch=None):
    """v -> H v of the mean loss over `rows` (None: all) at x.

    how      "exact", "differences", or None: exact where the problem knows it
    radius   that of differences; see Hessian
    batch    None, or rows at a time: then H is the mean of the batches' Hessians, by their numbers of rows. Memory is
             that of one batch, and exact products begin anew with each batch, which costs two thirds of a gradient
             more. With batch norm each batch has its own statistics, as in training.
    """
    if how not in (None, "exact", "differences"):
        raise UserError(f"hessian: how must be 'exact', 'differences' or None, got {how!r}")

    def over(some):
        found = exact(problem, x, some) if how != "differences" else None
        if found is None and how == "exact":
            raise UserError(f"hessian: {problem.name} has no exact second derivatives; take how='differences'")
        return Hessian(problem, x, some, radius) if found is None else found

    if batch is None:
        return over(rows)
    parts = batches(problem, rows, batch)
    return lambda v: mean(parts, lambda part: over(part)(v))


def gauss_newton(problem, x, rows=None):
    """v -> J' L'' J v (+ l2 v): exact, for networks whose layers have tangents. For the cross-entropy this is the
    Fisher matrix, with labels drawn from the network's own softmax."""
    found = exact(problem, x, rows)
    if not hasattr(found, "gauss_newton"):
        raise UserError(f"gauss_newton: {problem.name} has no tangents; it must be a network of layers that have them")
    return found.gauss_newton


def batches(problem, rows, size, owner="hessian", name="batch"):
    """The rows in parts of `size`, the last one perhaps smaller."""
    size, rows = whole(owner, name, size), row_numbers(owner, problem, rows)
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def row_numbers(owner, problem, rows):
    """Row numbers on the host, at least one; None: all."""
    if rows is None:
        return np.arange(problem.n)
    rows = np.asarray(rows if isinstance(rows, (list, tuple, range)) else backend.to_host(rows))
    if not rows.size:
        raise UserError(f"{owner}: rows must hold at least one row number of {problem.name}")
    return rows


def mean(parts, function):
    """sum_b n_b function(part b) / n, one at a time."""
    total, n = None, sum(map(len, parts))
    for part in parts:
        found = function(part) * (len(part) / n)
        total = found if total is None else total + found
    return total


class Nonuniformity:
    """v -> S v, S = mean_b H_b^2 - H^2, H_b the Hessian of batch b and H their mean: how the batches disagree.

    Wu, Ma & E, NeurIPS 2018: with batches of one row, s = sqrt(lmax(S)) is the non-uniformity, and a minimum at which
    SGD with rate eta and batches of B of n rows stays has s <= sqrt(B (n - 1) / (n - B)) / eta beside lmax(H) <= 2/eta.
    A product costs three of each batch. `size` rows a batch, `how` and `radius` as in `hessian`.
    """

    def __init__(self, problem, x, rows=None, size=1, how=None, radius=1e-10):
        self.parts = batches(problem, rows, size, "Nonuniformity", "size")
        self.of = lambda part: hessian(problem, x, part, how, radius)

    def __call__(self, v):
        def twice(part):
            product = self.of(part)
            first = product(v)
            return backend.xp(v).stack([first, product(first)])

        both = mean(self.parts, twice)
        return both[1] - mean(self.parts, lambda part: self.of(part)(both[0]))
