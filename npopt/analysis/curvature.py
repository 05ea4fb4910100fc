"""Curvature without a Hessian: its spectrum by the Lanczos process. (Products with it: products.py.)"""

import dataclasses
import math

from npopt import backend
from npopt.analysis.products import Hessian, length
from npopt.errors import UserError
from npopt.values import whole

import numpy as np


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


def lanczos(product, dim, steps=40, seed=0, start=None, dtype="float64"):
    """The Spectrum of the symmetric matrix behind `product`, a function of vectors (dim,) of this dtype.

    The process begins with `start`, (dim,), or with random normal numbers; see krylov.
    """
    _, values, vectors, end = krylov(product, dim, steps, seed, start, dtype)
    return Spectrum(values, end * np.abs(vectors[-1]), vectors[0] ** 2)


def krylov(product, dim, steps=40, seed=0, start=None, dtype="float64"):
    """(q, values, vectors, b_k): the basis q, (k, dim), on the device, and the eigenpairs of T in it, on the host.

        q_1 = z / |z|,  z ~ N(0, I)        r = A q_j - b_(j-1) q_(j-1),  a_j = q_j' r,  r <- r - a_j q_j
        b_j = |r|,  q_(j+1) = r / b_j      T = tridiag(b, a, b);  error of a Ritz value: b_k |last entry of its vector|

    Golub & Van Loan, Matrix Computations, 4th ed., section 10.1. Every r is made orthogonal to all q again, twice, so
    that no eigenvalue appears a second time, as a "ghost". For that steps + 1 vectors are kept. The process ends early
    where the q span an invariant space. In float32 values are good to about 1e-6 of the largest one.
    """
    steps = min(whole("lanczos", "steps", steps), dim)
    q = backend.empty((steps + 1, dim), dtype)
    if start is None:
        backend.normals(backend.key(seed, "lanczos"), q[0])
    else:
        q[0] = start
    q[0] /= length(q[0])
    a, b, least = [], [], 1e-12 if q.dtype == np.float64 else 1e-6
    for j in range(steps):
        r = product(q[j])
        a.append(float(backend.to_host(q[j] @ r)))
        if not math.isfinite(a[-1]):
            raise UserError("lanczos: a product is not finite; look at the point and at the gradient there")
        before = length(r)
        for _ in range(2):
            r = r - q[: j + 1].T @ (q[: j + 1] @ r)
        b.append(length(r))
        if b[-1] <= least * max(before, 1e-300):
            break
        q[j + 1] = r / b[-1]
    values, vectors = np.linalg.eigh(np.diag(a) + np.diag(b[:-1], 1) + np.diag(b[:-1], -1))
    return q[: len(a)], values, vectors, b[-1]
