"""Adam with decoupled weight decay: Loshchilov & Hutter, ICLR 2019, arXiv:1711.05101, Algorithm 2."""

from npopt.backend import elementwise
from npopt.optimizers.adam import check_moments
from npopt.optimizers.base import Optimizer, number_or_array


@elementwise
def adamw(x, m, v, g, lr, b1, b2, eps, weight_decay, c1, c2):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    x = x - lr * (c1 * m / (sqrt(c2 * v) + eps)) - lr * weight_decay * x  # noqa: F821
    return x, m, v


class AdamW(Optimizer):
    """m <- b1 m + (1-b1) g        v <- b2 v + (1-b2) g^2        mh = m / (1-b1^t)        vh = v / (1-b2^t)
    x <- x - lr mh / (sqrt(vh) + eps) - lr weight_decay x                  without decay: Adam, bit for bit

    As in PyTorch and optax, lr multiplies the decay too. The paper multiplies it by the schedule's factor alone. That
    is this form with weight_decay = lambda / base rate. weight_decay may be an array like x, for "no decay on biases".
    """

    arrays = ("m", "v")
    never_negative = ("v",)
    options = ("weight_decay",)

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2):
        self.b1, self.b2, self.eps = check_moments("AdamW", b1, b2, eps)
        self.weight_decay = number_or_array("AdamW", "weight_decay", weight_decay, low=0)

    def update(self, x, g, lr, m, v, weight_decay):
        c1, c2 = 1 / (1 - self.b1**self.t), 1 / (1 - self.b2**self.t)
        adamw(x, m, v, g, lr, self.b1, self.b2, self.eps, weight_decay, c1, c2)
