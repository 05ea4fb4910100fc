"""Adadelta: Zeiler, arXiv:1212.5701, Algorithm 1."""

from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def adadelta(x, v, u, g, lr, rho, eps):
    v = rho * v + (1 - rho) * g * g
    d = sqrt(u + eps) / sqrt(v + eps) * g  # noqa: F821
    u = rho * u + (1 - rho) * d * d
    x = x - lr * d
    return x, v, u


class Adadelta(Optimizer):
    """v <- rho v + (1-rho) g^2        d = sqrt(u + eps) / sqrt(v + eps) g        u <- rho u + (1-rho) d^2
    x <- x - lr d

    eps stands inside both roots, as in the paper. It starts the method: because u_0 = 0, the first step is
    lr sqrt(eps / ((1-rho) g^2 + eps)) g. The paper has lr = 1. rho = 0.9 and eps = 1e-6 as in PyTorch; the paper's
    MNIST runs have rho = 0.95.
    """

    arrays = ("v", "u")
    never_negative = ("v", "u")

    def __init__(self, rho=0.9, eps=1e-6):
        self.rho = number("Adadelta", "rho", rho, low=0, high=1, open_high=True)
        self.eps = number("Adadelta", "eps", eps, low=0, open_low=True)

    def update(self, x, g, lr, v, u):
        adadelta(x, v, u, g, lr, self.rho, self.eps)
