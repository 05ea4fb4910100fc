"""Simple functions fitted to a surface: a quadratic, and a Gaussian well."""

from dataclasses import dataclass

from npopt.errors import UserError

import numpy as np
import scipy


@dataclass
class QuadraticFit:
    """value + g'u + 1/2 u'H u, u = (a, b).

    value, slope, hessian   the value, g (2,) and H (2, 2)
    share                   1 - the part of the variance that is left
    """

    value: float
    slope: np.ndarray
    hessian: np.ndarray
    share: float

    @property
    def centre(self):
        """The stationary point, (2,)."""
        return np.linalg.solve(self.hessian, -self.slope)

    def at(self, a, b):
        """Values at arrays of one shape."""
        (p, q), H = self.slope, self.hessian
        return self.value + p * a + q * b + 0.5 * (H[0, 0] * a * a + 2 * H[0, 1] * a * b + H[1, 1] * b * b)


@dataclass
class GaussianFit:
    """top - depth exp(-(a - a0)^2 / (2 sa^2) - (b - b0)^2 / (2 sb^2)), top the largest value of the surface.

    depth, centre, widths   A, (a0, b0), (sa, sb)
    share                   1 - the part of the variance that is left
    """

    depth: float
    centre: np.ndarray
    widths: np.ndarray
    top: float
    share: float

    @property
    def curvatures(self):
        """A / s^2 along both axes at the centre: gradient descent stays there below the rate 2 / the larger one."""
        return self.depth / self.widths**2

    def at(self, a, b):
        """Values at arrays of one shape."""
        return self.top - self.depth * self.bell(a, b)

    def bell(self, a, b):
        u, v = ((z - c) / s for z, c, s in zip((a, b), self.centre, self.widths, strict=True))
        return np.exp(-0.5 * (u * u + v * v))

    def gradient(self, a, b):
        """Both partial derivatives at arrays of one shape."""
        bell = self.depth * self.bell(a, b)
        return tuple(bell * (v - c) / s**2 for v, c, s in zip((a, b), self.centre, self.widths, strict=True))


def explained(values, fit):
    return float(1 - ((values - fit) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def points_of(surface):
    if surface.b is None or min(surface.loss.shape) < 3 or not np.isfinite(surface.loss).all():
        raise UserError("a fit needs a plane of at least 3 x 3 finite losses")
    return *surface.grid, surface.loss


def quadratic_fit(surface):
    """The QuadraticFit of a LossSurface over a plane, by least squares."""
    a, b, z = points_of(surface)
    terms = np.stack([np.ones_like(a), a, b, 0.5 * a * a, a * b, 0.5 * b * b], -1).reshape(-1, 6)
    c = np.linalg.lstsq(terms, z.reshape(-1), rcond=None)[0]
    fit = QuadraticFit(float(c[0]), c[1:3], np.array([[c[3], c[4]], [c[4], c[5]]]), 0.0)
    fit.share = explained(z, fit.at(a, b))
    return fit


def gaussian_fit(surface, start=(1.0, 1.0, 1.0, 1.0, 1.0)):
    """The GaussianFit of a LossSurface over a plane: nonlinear least squares in A, a0, b0, sa, sb from `start`, by the
    method of Levenberg and Marquardt (scipy.optimize.least_squares). `top` is not fitted. A UserError where it does not
    converge."""
    a, b, z = points_of(surface)

    def fit_of(p, share=0.0):
        return GaussianFit(float(p[0]), np.array(p[1:3]), np.abs(p[3:5]), float(z.max()), share)

    found = scipy.optimize.least_squares(lambda p: (fit_of(p).at(a, b) - z).reshape(-1), start, method="lm")
    if not found.success:
        raise UserError(f"gaussian_fit: no convergence from {tuple(start)} ({found.message}); give another start")
    return fit_of(found.x, explained(z, fit_of(found.x).at(a, b)))
