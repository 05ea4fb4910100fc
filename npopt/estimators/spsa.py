"""Simultaneous perturbation: Spall, IEEE Transactions on Automatic Control 37, 1992, equation 2.2."""

from npopt.backend import elementwise
from npopt.estimators.zeroth import Smoothing


@elementwise
def signs(out, key):
    out = 1.0 if uniform(key) < 0.5 else -1.0  # noqa: F821
    return out


class SPSA(Smoothing):
    """g_i = (1/q) sum_k s_k / u_ki,  u_ki = 1 or -1 with probability 1/2, so that 1/u_ki = u_ki.

    As mu -> 0, E|g|^2 = (1 + (d-1)/q) |grad f|^2, as on the sphere, whose radius sqrt(d) times as long moves as far.
    The paper lets radius and step fall with time; here the radius is constant. See ZerothOrder for q, difference and
    counts.
    """

    def draw(self, key, out):
        signs(out, key)
