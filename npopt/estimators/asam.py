"""Adaptive sharpness-aware minimisation: Kwon, Kim, Park & Choi, ICML 2021, arXiv:2102.11600, Algorithm 1."""

from npopt.backend import elementwise, norm
from npopt.estimators.sam import SAM
from npopt.values import number


@elementwise
def weigh(y, x, g, eta):
    y = (abs(x) + eta) * g
    return y


@elementwise
def climb(y, x, size, rho, eta):
    y = x + (rho / size if size > 0 else 0.0) * ((abs(x) + eta) * y)
    return y


class ASAM(SAM):
    """SAM in a ball that is as wide in each coordinate as the coordinate is large:

        T = diag(|x| + eta)        e = rho T^2 g / |T g|        out = grad f_B(x + e)

    the first-order maximum over |T^(-1) e| <= rho. With eta = 0 that is the same for all networks that differ only in
    how their layers are scaled (a ReLU network with one layer times a and the next one by 1/a). So rho has no units,
    and is about ten times SAM's.

    rho, inner   as of SAM
    eta          keeps numbers near 0 in play; 0.01 in the paper

    T weighs all numbers of x. The authors' code leaves biases out (T = 1 there), and the invariance with them.
    """

    def __init__(self, rho=0.5, eta=0.01, inner=None):
        super().__init__(rho, inner)
        self.eta = number("ASAM", "eta", eta, low=0)

    def ascend(self, y, x, g):
        weigh(y, x, g, self.eta)
        climb(y, x, norm(y), self.rho, self.eta)
