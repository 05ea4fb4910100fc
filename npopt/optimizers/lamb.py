"""LAMB: You et al., ICLR 2020, arXiv:1904.00962, Algorithm 2."""

from npopt import backend
from npopt.backend import elementwise
from npopt.optimizers.adam import check_moments
from npopt.optimizers.base import number_or_array
from npopt.optimizers.by_segment import WEIGHTS, BySegment, check_kinds, ratio
from npopt.values import number


@elementwise
def lamb_direction(u, m, v, x, g, b1, b2, eps, weight_decay, c1, c2):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    u = c1 * m / (sqrt(c2 * v) + eps) + weight_decay * x  # noqa: F821
    return u, m, v


@elementwise
def along(x, u, rate):
    x = x - rate * u
    return x


class LAMB(BySegment):
    """m <- b1 m + (1-b1) g        v <- b2 v + (1-b2) g^2        mh = m / (1-b1^t)        vh = v / (1-b2^t)
    u = mh / (sqrt(vh) + eps) + weight_decay x            x <- x - lr trust u

    trust = min(|x|, cap) / |u| segment by segment. It is 1 where |x| or |u| is 0 (else a segment that starts at zero
    would never move), and in segments that are not of `kinds`. cap=None: the paper's phi is the identity.
    corrected=True: the division by 1-b^t, as in Algorithm 2; False: mh = m and vh = v, as in some ports. weight_decay
    may be an array like x.
    """

    arrays = ("m", "v")
    never_negative = ("v",)
    options = ("weight_decay",)

    def __init__(self, b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.01, cap=None, corrected=True, kinds=WEIGHTS):
        self.b1, self.b2, self.eps = check_moments("LAMB", b1, b2, eps)
        self.weight_decay = number_or_array("LAMB", "weight_decay", weight_decay, low=0)
        self.cap = None if cap is None else number("LAMB", "cap", cap, low=0, open_low=True)
        self.corrected, self.kinds = bool(corrected), check_kinds("LAMB", kinds)

    def update_segment(self, segment, x, g, lr, m, v, weight_decay):
        c1, c2 = (1 / (1 - self.b1**self.t), 1 / (1 - self.b2**self.t)) if self.corrected else (1.0, 1.0)
        u, trust = self.work(x), 1.0
        lamb_direction(u, m, v, x, g, self.b1, self.b2, self.eps, weight_decay, c1, c2)
        if segment.kind in self.kinds:
            size = backend.norm(x)
            if self.cap is not None:
                size = min(size, self.cap) if isinstance(size, float) else backend.xp(x).minimum(size, self.cap)
            trust = ratio(size, backend.norm(u))
        along(x, u, lr * trust)
