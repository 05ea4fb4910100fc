"""Lion: Chen et al., NeurIPS 2023, arXiv:2302.06675, Program 1."""

from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer, number_or_array
from npopt.values import number


@elementwise
def lion(x, m, g, lr, b1, b2, weight_decay):
    x = x - lr * (sign(b1 * m + (1 - b1) * g) + weight_decay * x)  # noqa: F821
    m = b2 * m + (1 - b2) * g
    return x, m


class Lion(Optimizer):
    """c = b1 m + (1-b1) g            x <- x - lr (sign(c) + weight_decay x)            m <- b2 m + (1-b2) g

    m follows g with its own b2; it is not set to c. The decay is decoupled and multiplied by lr. Every step has length
    lr in every coordinate. So rates are 3 to 10 times smaller than AdamW's, and decays are as many times larger.
    weight_decay may be an array like x.
    """

    arrays = ("m",)
    options = ("weight_decay",)

    def __init__(self, b1=0.9, b2=0.99, weight_decay=0.0):
        self.b1 = number("Lion", "b1", b1, low=0, high=1, open_high=True)
        self.b2 = number("Lion", "b2", b2, low=0, high=1, open_high=True)
        self.weight_decay = number_or_array("Lion", "weight_decay", weight_decay, low=0)

    def update(self, x, g, lr, m, weight_decay):
        lion(x, m, g, lr, self.b1, self.b2, weight_decay)
