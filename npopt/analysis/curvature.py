"""Curvature without a Hessian: its products with vectors, and its spectrum by the Lanczos process."""

import dataclasses

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np


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
    radius=1e-6. Batch statistics, dropout and augmentation are those of the step that `problem.begin` set last.
    """

    def __init__(self, problem, x, rows=None, radius=1e-10):
        if x.dtype != np.float64:
            raise UserError(f"Hessian: x must be float64, got {x.dtype}; build the problem with dtype='float64'")
        self.problem, self.x, self.rows = problem, x, rows
        self.radius = number("Hessian", "radius", radius, low=0, open_low=True) * (1 + length(x))
        self.right, self.left = backend.xp(x).empty_like(x), backend.xp(x).empty_like(x)

    def __call__(self, v):
        """A new array like v."""
        size = length(v)
        if size == 0:
            return backend.xp(v).zeros_like(v)
        for sign, out in ((1, self.right), (-1, self.left)):
            self.problem.value_and_gradient(self.x + (sign * self.radius / size) * v, self.rows, out=out)
        return (self.right - self.left) * (size / (2 * self.radius))


def stable(problem, x, rows=None, steps=40, seed=0, radius=1e-10, tolerance=1e-3):
    """The Spectrum of the Hessian at x, or None where a kink spoils it. Its extreme values at `radius` and at ten times
    `radius` must agree, to `tolerance` of the largest. Else a kink lies between the points of one of the two."""
    one, two = (lanczos(Hessian(problem, x, rows, r), x.shape[0], steps, seed) for r in (radius, 10 * radius))
    apart = np.abs(one.values[[0, -1]] - two.values[[0, -1]]).max()
    return one if apart <= tolerance * np.abs(one.values).max() else None


def rise(problem, x, shifts, rows=None, draws=10):
    """(loss at x, what a random shift adds to it): for each a in `shifts` the mean over `draws` draws z ~ N(0, I) of
    f(x + a z) - f(x), over `rows`. The problem's value must take a shift."""
    loss, *shifted = (
        float(backend.to_host(problem.value(x, rows, shift=shift)))
        for shift in (None, *((a, backend.key(k, "shift")) for a in shifts for k in range(draws)))
    )
    return loss, [float(v) for v in np.reshape(shifted, (len(shifts), draws)).mean(1) - loss]


@dataclasses.dataclass
class Spectrum:
    """What k steps of Lanczos say of a symmetric matrix, in three arrays of k numbers.

    values    Ritz values, rising: the first and the last approach the extreme eigenvalues from inside
    errors    for each, some eigenvalue of the matrix lies within that distance; a more extreme one may have been missed
    weights   squares of the first components: sum w p(theta) = q' p(A) q for the start q and every polynomial p of
              degree below 2k, the quadrature behind densities (Ubaru, Chen & Saad, SIAM J. Matrix Anal. 38, 2017)
    """

    values: np.ndarray
    errors: np.ndarray
    weights: np.ndarray


def lanczos(product, dim, steps=40, seed=0):
    """The Spectrum of the symmetric matrix behind `product`, a function of float64 vectors (dim,), from a random start.

        q_1 = z / |z|,  z ~ N(0, I)        r = A q_j - b_(j-1) q_(j-1),  a_j = q_j' r,  r <- r - a_j q_j
        b_j = |r|,  q_(j+1) = r / b_j      T = tridiag(b, a, b);  error of a Ritz value: b_k |last entry of its vector|

    Golub & Van Loan, Matrix Computations, 4th ed., section 10.1. Every r is made orthogonal to all q again, twice, so
    that no eigenvalue appears a second time, as a "ghost". For that steps + 1 vectors are kept. The process ends early
    where the q span an invariant space.
    """
    steps = min(whole("lanczos", "steps", steps), dim)
    q = backend.empty((steps + 1, dim), "float64")
    backend.normals(backend.key(seed, "lanczos"), q[0])
    q[0] /= length(q[0])
    a, b = [], []
    for j in range(steps):
        r = product(q[j])
        a.append(float(backend.to_host(q[j] @ r)))
        before = length(r)
        for _ in range(2):
            r = r - q[: j + 1].T @ (q[: j + 1] @ r)
        b.append(length(r))
        if b[-1] <= 1e-12 * max(before, 1e-300):
            break
        q[j + 1] = r / b[-1]
    values, vectors = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    return Spectrum(values, b[-1] * np.abs(vectors[-1]), vectors[0] ** 2)
