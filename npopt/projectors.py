"""Subspaces of matrices, as values: which r directions of a gradient's shorter side a method keeps.

    P = projector.basis(H, r, key, t)       H: (k, l), the gradient seen from the side that is projected   P: (k, r)

P has H's dtype. `stored` says whether the method has to keep P until the next one is due. Otherwise P is a function of
the key alone: it is made again in every step, and takes no memory between them. t counts steps from 0. `npopt/
optimizers/projected.py` says what a method does with P.
"""

from npopt import backend
from npopt.backend import xp
from npopt.errors import UserError
from npopt.values import Value, whole


class Projector(Value):
    """Base: a subclass has basis(H, r, key, t), and stored = False where that looks at the key and H's shape alone."""

    stored = True

    def basis(self, H, r, key, t):
        raise UserError(f"{type(self).__name__} has no basis(self, H, r, key, t)")


def signed(P):
    """P, the number of largest magnitude in each column made positive: singular vectors have free signs, and moments
    that are kept from one basis to the next depend on them."""
    m = xp(P)
    largest = m.take_along_axis(P, abs(P).argmax(axis=0)[None, :], 0)
    return P * m.where(largest < 0, -1, 1).astype(P.dtype)


def finite(H):
    """H with 0 where it is infinite or no number: the loop ends such a run, LAPACK would raise."""
    m = xp(H)
    return m.where(m.isfinite(H), H, 0)


class Svd(Projector):
    """The r left singular vectors of H with the largest singular values: GaLore's, and of all P of rank r the one that
    keeps most of H.   O(k l min(k, l))"""

    def basis(self, H, r, key, t):
        return signed(xp(H).linalg.svd(finite(H), full_matrices=False)[0][:, :r])


class RangeFinder(Projector):
    """Nearly the same in O(k l (r + more)): the singular vectors of H within the range of (H H')^passes H N, N normal.

    Halko, Martinsson & Tropp, SIAM Review 53, 2011, Algorithms 4.4 and 5.1: QR after each product, r + more columns. Of
    |H - P P' H| the mean is above the best one by a factor near 1 + (l/more)^(1 / (2 passes + 1)) at most (Theorem
    10.6), and by far less where the singular values fall.
    """

    def __init__(self, more=8, passes=1):
        self.more, self.passes = whole("RangeFinder", "more", more, 0), whole("RangeFinder", "passes", passes, 0)

    def basis(self, H, r, key, t):
        m, H = xp(H), finite(H)
        N = backend.empty((H.shape[1], min(r + self.more, *H.shape)), H.dtype)
        backend.normals(key, N.reshape(-1))
        Q = m.linalg.qr(H @ N)[0]
        for _ in range(self.passes):
            Q = m.linalg.qr(H @ m.linalg.qr(H.T @ Q)[0])[0]
        return signed(Q @ m.linalg.svd(Q.T @ H, full_matrices=False)[0][:, :r])


class Stiefel(Projector):
    """A random P with orthonormal columns, uniformly: E[P P'] = (r/k) I, whatever H is.

    The Q of a normal matrix, its columns multiplied by sign(diag R); without these signs the law is not uniform
    (Mezzadri, Notices of the AMS 54, 2007). GoLore's code takes the polar factor of a normal matrix: the same law.
    """

    stored = False

    def basis(self, H, r, key, t):
        m, N = xp(H), backend.empty((H.shape[0], r), "float64")
        backend.normals(key, N.reshape(-1))
        Q, R = m.linalg.qr(N)
        return (Q * m.where(m.diagonal(R) < 0, -1.0, 1.0)).astype(H.dtype)


class Gaussian(Projector):
    """Independent N(0, 1/r): E[P P'] = I, so that what is projected there and back is right on average. Flora's."""

    stored = False

    def basis(self, H, r, key, t):
        P = backend.empty((H.shape[0], r), H.dtype)
        backend.normals(key, P.reshape(-1))
        P *= r**-0.5
        return P


class Switching(Projector):
    """`first` where a basis is due before step `at` (steps count from 0), `then` from there on."""

    def __init__(self, first, then, at):
        for name, projector in (("first", first), ("then", then)):
            check_projector("Switching", projector, name)
        self.first, self.then, self.at = first, then, whole("Switching", "at", at, 0)

    @property
    def stored(self):
        return self.first.stored or self.then.stored

    def basis(self, H, r, key, t):
        return (self.first if t < self.at else self.then).basis(H, r, key, t)


def check_projector(owner, projector, name="projector"):
    """The projector; a UserError where it is none."""
    if not isinstance(projector, Projector):
        raise UserError(f"{owner}: {name} must be a projector such as Svd() of npopt.projectors, got {projector!r}")
    return projector
