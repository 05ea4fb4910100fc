"""Gaussian smoothing: Nesterov & Spokoiny, Foundations of Computational Mathematics 17, 2017, equations 21, 22, 26."""

from npopt import backend
from npopt.estimators.zeroth import Smoothing


class GaussianSmoothing(Smoothing):
    """g = (1/q) sum_k s_k u_k,  u_k ~ N(0, I), s_k the difference along u_k of length about sqrt(d).

    There is no factor d: E[u u'] = I. g has the mean grad f_mu, f_mu(x) = E f(x + mu u); on quadratics that is grad f
    for every mu. As mu -> 0, E|g|^2 = (1 + (d+1)/q) |grad f|^2, so that 1/(L (1 + (d+1)/q)) is the step of SGD (theory
    has 1/(4 (d+4) L) for q = 1). ZO-SGD is SGD with this estimator (Ghadimi & Lan, SIAM J. Optim. 23, 2013), ZO-Adam is
    Adam with it; MeZO is the same without the vectors. f: see ZerothOrder for q, difference and what is counted.
    """

    def draw(self, key, out):
        backend.normals(key, out)
