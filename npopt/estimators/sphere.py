"""Smoothing over a ball by directions on a sphere: Flaxman, Kalai & McMahan, SODA 2005, lemma 2.1; two points: Duchi,
Jordan, Wainwright & Wibisono, IEEE Trans. Inf. Theory 61, 2015."""

from npopt import backend
from npopt.backend import elementwise
from npopt.estimators.zeroth import Smoothing


@elementwise
def unit(u, size):
    u = u / size
    return u


class SphereSmoothing(Smoothing):
    """g = (d/q) sum_k s_k u_k,  u_k uniform on the unit sphere, a normal vector divided by its norm.

    The factor d is due to E[u u'] = I/d. g has the mean grad f_mu, f_mu the mean of f over the ball of radius mu about
    x. As mu -> 0, E|g|^2 = (1 + (d-1)/q) |grad f|^2, so that 1/(L (1 + (d-1)/q)) is the step of SGD. The radius here is
    the length of the move; GaussianSmoothing moves by about sqrt(d) radius. See ZerothOrder for q, difference and
    counts.
    """

    def factor_of(self, d):
        return float(d)

    def draw(self, key, out):
        backend.normals(key, out)
        unit(out, backend.norm(out))
