"""RAdam: Liu, Jiang, He, Chen, Liu, Gao & Han, ICLR 2020, arXiv:1908.03265, Algorithm 2."""

import math

from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.adam import adam, check_moments
from npopt.optimizers.base import Optimizer


@elementwise
def momentum_and_moment(x, m, v, g, lr, b1, b2, c1):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    x = x - lr * c1 * m
    return x, m, v


class RAdam(Optimizer):
    """Adam with its rate multiplied by r_t, once the variance of 1/sqrt(vh) is finite. Before that a step is lr mh.

        R = 2/(1-b2) - 1        R_t = R - 2 t b2^t / (1-b2^t)
        r_t = sqrt( (R_t - 4) (R_t - 2) R / ((R - 4) (R - 2) R_t) )
        x <- x - lr r_t mh / (sqrt(vh) + eps)    where R_t > 4, else    x <- x - lr mh

    threshold 4 is the paper's R_t > 4; 5 is R_t >= 5, the rule of the authors' code (PyTorch: R_t > 5). With b2 =
    0.999 the first rectified step is t = 5 or t = 6. eps is added to the corrected root, as in Adam (PyTorch: to the
    uncorrected one).
    """

    arrays = ("m", "v")
    never_negative = ("v",)

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, threshold=4):
        self.b1, self.b2, self.eps = check_moments("RAdam", b1, b2, eps)
        if threshold not in (4, 5):
            raise UserError(f"RAdam: threshold must be 4 (the paper's R_t > 4) or 5 (R_t >= 5), got {threshold!r}")
        self.threshold = threshold

    def rectifier(self, t):
        """r_t, or None while the step is one of momentum alone."""
        longest = 2 / (1 - self.b2) - 1
        length = longest - 2 * t * self.b2**t / (1 - self.b2**t)
        if length <= 4 or self.threshold == 5 and length < 5:
            return None
        return math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))

    def update(self, x, g, lr, m, v):
        c1, c2, r = 1 / (1 - self.b1**self.t), 1 / (1 - self.b2**self.t), self.rectifier(self.t)
        if r is None:
            momentum_and_moment(x, m, v, g, lr, self.b1, self.b2, c1)
        else:
            adam(x, m, v, g, lr, self.b1, self.b2, self.eps, r * c1, c2)
