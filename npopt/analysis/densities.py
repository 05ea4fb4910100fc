"""Trace and density of the spectrum of a symmetric matrix, from its products with random signs.

E[z z'] = I for z_i = 1 or -1 with probability 1/2 each. So E[z' f(A) z] = tr f(A):

    tr A        the mean of z'Az                        Hutchinson, Commun. Stat. Simul. Comput. 18, 1989
    density     Lanczos from z / |z| gives (theta_j, w_j) with sum_j w_j p(theta_j) = z'p(A)z / dim for polynomials p
                                                        Ubaru, Chen & Saad, SIAM J. Matrix Anal. Appl. 38, 2017

Draws are a function of (seed, number): the same for the same seed, whatever was drawn before.
"""

from dataclasses import dataclass

from npopt import backend
from npopt.analysis.curvature import lanczos
from npopt.estimators.spsa import signs
from npopt.values import whole

import numpy as np


@dataclass
class Trace:
    """An estimate of tr A: the mean of `draws` numbers z'Az, and its standard error.

    The variance of one is 2 (|A|_F^2 - sum_i A_ii^2). So it is exact for diagonal matrices.
    """

    value: float
    error: float
    draws: np.ndarray


def sign_vector(dim, seed, k, dtype="float64"):
    """Draw k of (dim,) signs."""
    z = backend.empty((dim,), dtype)
    signs(z, backend.key(seed, "signs of curvature", k))
    return z


def trace(product, dim, draws=20, seed=0, dtype="float64"):
    """Hutchinson's Trace, of `draws` >= 2 products."""
    found = []
    for k in range(whole("trace", "draws", draws, low=2)):
        z = sign_vector(dim, seed, k, dtype)
        found.append(float(backend.to_host(z @ product(z))))
    return Trace(float(np.mean(found)), float(np.std(found, ddof=1) / len(found) ** 0.5), np.array(found))


@dataclass
class Density:
    """Spectra of Lanczos from several random starts: each is a quadrature of the whole spectrum.

    starts    [(values, weights)], the weights of each sum to 1
    dim       of the matrix
    """

    starts: list
    dim: int

    def at(self, grid, width=None):
        """(len(grid),): the density of eigenvalues, its integral 1, each Ritz value being a Gaussian of this standard
        deviation. By default that is sqrt(1e-5 max(1, range)), as in Ghorbani, Krishnan & Xiao, ICML 2019."""
        grid = np.atleast_1d(np.asarray(grid, float))
        if width is None:
            values = np.concatenate([v for v, _ in self.starts])
            width = (1e-5 * max(1.0, np.ptp(values))) ** 0.5
        total = np.zeros(grid.shape)
        for values, weights in self.starts:
            apart = (grid[:, None] - values) / width
            total += np.exp(-0.5 * apart * apart) @ weights
        return total / (len(self.starts) * width * (2 * np.pi) ** 0.5)

    def sum_of(self, f):
        """(estimate, standard error) of the sum of f over all eigenvalues: f = square gives |A|_F^2."""
        found = [self.dim * weights @ f(values) for values, weights in self.starts]
        return float(np.mean(found)), float(np.std(found, ddof=1) / len(found) ** 0.5)

    def share(self, low, high):
        """The share of eigenvalues in [low, high]."""
        return float(np.mean([weights[(low <= values) & (values <= high)].sum() for values, weights in self.starts]))


def density(product, dim, draws=5, steps=50, seed=0, dtype="float64"):
    """The Density of `draws` >= 2 starts with `steps` Lanczos steps each."""
    starts = []
    for k in range(whole("density", "draws", draws, low=2)):
        found = lanczos(product, dim, steps, start=sign_vector(dim, seed, k, dtype), dtype=dtype)
        starts.append((found.values, found.weights))
    return Density(starts, dim)
