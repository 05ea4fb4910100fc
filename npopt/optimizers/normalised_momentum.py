"""Normalised SGD with momentum: Cutkosky & Mehta, ICML 2020, arXiv:2002.03305, section 2."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.optimizers.mixed_clipping import gather
from npopt.values import number


@elementwise
def along(x, m, lr, size):
    x = x - (lr / size if size > 0 else 0.0) * m
    return x


class NormalisedMomentum(Optimizer):
    """m <- beta m + (1-beta) g            x <- x - lr m / |m|            |.| the Euclidean norm over all coordinates

    Every step is lr long; where m is 0 x stays. m_0 = 0: the first direction is that of the first gradient, but later
    steps give that gradient the weight 1-beta, where a start with m_1 = g_1 gives it 1. With Clipped or Normalised
    as the estimator, and HeavyBall, it is each gradient that is shortened, and not their mean.
    """

    arrays = ("m",)

    def __init__(self, beta=0.9):
        self.beta = number("NormalisedMomentum", "beta", beta, low=0, high=1, open_high=True)

    def step(self, x, g, lr):
        if not hasattr(g, "dtype"):
            raise UserError("NormalisedMomentum: the norm is that of the whole momentum; do not give g in pieces")
        super().step(x, g, lr)

    def update(self, x, g, lr, m):
        gather(m, g, self.beta)
        along(x, m, lr, backend.norm(m))
