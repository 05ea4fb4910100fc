"""Adam: Kingma & Ba, ICLR 2015, arXiv:1412.6980, Algorithm 1."""

from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer, number_or_array
from npopt.values import number


@elementwise
def adam(x, m, v, g, lr, b1, b2, eps, c1, c2):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    x = x - lr * (c1 * m / (sqrt(c2 * v) + eps))  # noqa: F821
    return x, m, v


@elementwise
def adam_l2(x, m, v, g, lr, b1, b2, eps, l2, c1, c2):
    d = g + l2 * x
    m = b1 * m + (1 - b1) * d
    v = b2 * v + (1 - b2) * d * d
    x = x - lr * (c1 * m / (sqrt(c2 * v) + eps))  # noqa: F821
    return x, m, v


def check_moments(owner, b1, b2, eps):
    """Check what the Adam family shares, and return it."""
    number(owner, "b1", b1, low=0, high=1, open_high=True)
    number(owner, "b2", b2, low=0, high=1, open_high=True)
    return b1, b2, number(owner, "eps", eps, low=0)


class Adam(Optimizer):
    """m <- b1 m + (1-b1) g        v <- b2 v + (1-b2) g^2        mh = m / (1-b1^t)        vh = v / (1-b2^t)
    x <- x - lr mh / (sqrt(vh) + eps)

    eps stands outside the root, added to the corrected one, as in Algorithm 1 (and PyTorch). The "epsilon-hat" form of
    the paper's section 2, lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + epsh), is the same with epsh = eps sqrt(1-b2^t).
    l2: both moments take g + l2 x in place of g. This is not AdamW's decoupled decay. The problem's own l2 does the
    same, and stands in the loss, too. l2 may be an array like x.
    """

    arrays = ("m", "v")
    never_negative = ("v",)
    options = ("l2",)

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, l2=0.0):
        self.b1, self.b2, self.eps = check_moments("Adam", b1, b2, eps)
        self.l2 = number_or_array("Adam", "l2", l2, low=0)

    def update(self, x, g, lr, m, v, l2):
        c1, c2 = 1 / (1 - self.b1**self.t), 1 / (1 - self.b2**self.t)
        if getattr(l2, "ndim", 0) or l2:
            adam_l2(x, m, v, g, lr, self.b1, self.b2, self.eps, l2, c1, c2)
        else:
            adam(x, m, v, g, lr, self.b1, self.b2, self.eps, c1, c2)
