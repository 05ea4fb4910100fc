"""LARS: You, Gitman & Ginsburg, arXiv:1708.03888, Algorithm 1."""

from npopt import backend
from npopt.backend import elementwise
from npopt.optimizers.base import number_or_array
from npopt.optimizers.by_segment import WEIGHTS, BySegment, check_kinds, ratio
from npopt.values import number


@elementwise
def lars_direction(u, x, g, weight_decay):
    u = g + weight_decay * x
    return u


@elementwise
def lars(x, m, u, rate, beta):
    m = beta * m + rate * u
    x = x - m
    return x, m


class LARS(BySegment):
    """Segment by segment, with the Euclidean norm |.|:

        u = g + weight_decay x            trust = coefficient |x| / |u|
        m <- beta m + lr trust u          x <- x - m

    trust = 1 where |x| or |u| is 0 (a segment that starts at zero). It is also 1 in segments that are not of `kinds`:
    biases and the gains of norms. Their decay is usually 0 as well (weight_decay may be an array like x). The rate
    stands inside the momentum. The paper's denominator is |g| + weight_decay |x|, an upper bound of |u|; ports use |u|.
    """

    arrays = ("m",)
    options = ("weight_decay",)

    def __init__(self, beta=0.9, weight_decay=0.0, coefficient=0.001, kinds=WEIGHTS):
        self.beta = number("LARS", "beta", beta, low=0, high=1, open_high=True)
        self.weight_decay = number_or_array("LARS", "weight_decay", weight_decay, low=0)
        self.coefficient = number("LARS", "coefficient", coefficient, low=0, open_low=True)
        self.kinds = check_kinds("LARS", kinds)

    def update_segment(self, segment, x, g, lr, m, weight_decay):
        u, trust = self.work(x), 1.0
        lars_direction(u, x, g, weight_decay)
        if segment.kind in self.kinds:
            trust = ratio(backend.norm(x), backend.norm(u), self.coefficient)
        lars(x, m, u, lr * trust, self.beta)
