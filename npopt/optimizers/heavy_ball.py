"""Momentum SGD: Polyak, USSR Comp. Math. 4(5), 1964, in the form of deep-learning libraries."""

from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def heavy_ball(x, m, g, lr, beta):
    m = beta * m + g
    x = x - lr * m
    return x, m


class HeavyBall(Optimizer):
    """The buffer form, m_0 = 0:

        m <- beta m + g            x <- x - lr m

    Four forms are in use; for a constant lr the first three are one method with this one, under these maps:

        EMA         m <- beta m + (1-beta) g;   x <- x - a m          a  = lr / (1-beta)
        lr inside   v <- beta v - lr g;         x <- x + v            v  = -lr m
        position    x+ = x - lr g + beta (x - x_prev)                 lr and beta as here
        damped      m <- beta m + (1-tau) g, but m = g at step 1      tau = 0 is this form, tau = beta the EMA form
                                                                      but for the weight of the first gradient

    When lr changes, the buffer form rescales the whole velocity at once, while "lr inside" and "position" keep what was
    gathered at the old rate. A long run of equal gradients moves by lr/(1-beta) a step; on a quadratic of curvature
    lam the method is stable for lr < 2 (1+beta) / lam.
    """

    arrays = ("m",)
    heavy = True

    def __init__(self, beta=0.9):
        self.beta = number("HeavyBall", "beta", beta, low=0, high=1, open_high=True)

    def update(self, x, g, lr, m):
        heavy_ball(x, m, g, lr, self.beta)
