"""Clipping of gradient and momentum: Zhang B., Jin, Fang & Wang, NeurIPS 2020, arXiv:2010.02519, Algorithm 1."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def gather(m, g, beta):
    m = beta * m + (1 - beta) * g
    return m


@elementwise
def hard(x, m, g, lr, nu, gamma, long_m, long_g):
    a = gamma / long_m if lr * long_m > gamma else lr
    b = gamma / long_g if lr * long_g > gamma else lr
    x = x - nu * a * m - (1 - nu) * b * g
    return x


@elementwise
def soft(x, m, g, lr, nu, gamma, long_m, long_g):
    a = lr / (1 + lr * long_m / gamma)
    b = lr / (1 + lr * long_g / gamma)
    x = x - nu * a * m - (1 - nu) * b * g
    return x


class MixedClipping(Optimizer):
    """With |.| the Euclidean norm over all coordinates and m_0 = 0, the EMA form of momentum:

        m <- beta m + (1-beta) g
        x <- x - [ nu min(lr, gamma / |m|) m + (1-nu) min(lr, gamma / |g|) g ]

    nu = 1 is momentum clipping, nu = 0 is SGD with Clipped(gamma / lr): gamma bounds the length of the step, where c of
    Clipped bounds that of the gradient before lr multiplies it. The defaults of beta and nu are those of the authors'
    released code, where groups of parameters are clipped by themselves. soft: lr / (1 + lr |.| / gamma) in place of
    the minima, as in that code; between 1/2 and 1 times as long.
    """

    arrays = ("m",)

    def __init__(self, gamma, beta=0.999, nu=0.7, soft=False):
        self.gamma = number("MixedClipping", "gamma", gamma, low=0, open_low=True)
        self.beta = number("MixedClipping", "beta", beta, low=0, high=1, open_high=True)
        self.nu, self.soft = number("MixedClipping", "nu", nu, low=0, high=1), bool(soft)

    def step(self, x, g, lr):
        if not hasattr(g, "dtype"):
            raise UserError("MixedClipping: norms are those of the whole gradient; do not give it in pieces")
        super().step(x, g, lr)

    def update(self, x, g, lr, m):
        gather(m, g, self.beta)
        move = soft if self.soft else hard
        move(x, m, g, lr, self.nu, self.gamma, backend.norm(m), backend.norm(g))
