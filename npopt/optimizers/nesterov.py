"""Nesterov momentum as deep-learning libraries write it: Sutskever, Martens, Dahl & Hinton, ICML 2013, rearranged."""

from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def nesterov(x, m, g, lr, beta):
    m = beta * m + g
    x = x - lr * (g + beta * m)
    return x, m


class Nesterov(Optimizer):
    """m <- beta m + g            x <- x - lr (g + beta m)

    x is the look-ahead point. With w = x + lr beta m and v = -lr m (constant lr) this is

        v <- beta v - lr grad f(w + beta v)            w <- w + v

    as in Sutskever et al., equations 3 and 4: the gradient is taken where x stands, which is w + beta v.
    """

    arrays = ("m",)

    def __init__(self, beta=0.9):
        self.beta = number("Nesterov", "beta", beta, low=0, high=1, open_high=True)

    def update(self, x, g, lr, m):
        nesterov(x, m, g, lr, self.beta)
