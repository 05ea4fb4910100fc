"""AdaGrad: Duchi, Hazan & Singer, JMLR 12, 2011, the diagonal form of Figure 1."""

from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def adagrad(x, s, g, lr, eps):
    s = s + g * g
    x = x - lr * g / (sqrt(s) + eps)  # noqa: F821
    return x, s


class AdaGrad(Optimizer):
    """s <- s + g^2            x <- x - lr g / (sqrt(s) + eps)            s_0 = initial

    eps stands outside the root, as the paper's delta does. Its default is PyTorch's, 1e-10, far below any gradient. So
    the first step is lr sign(g). For gradients of one size the rate falls as 1/sqrt(t). It never rises.
    """

    arrays = ("s",)
    never_negative = ("s",)

    def __init__(self, eps=1e-10, initial=0.0):
        self.eps, self.initial = number("AdaGrad", "eps", eps, low=0), number("AdaGrad", "initial", initial, low=0)

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.slot("s")[...] = self.initial

    def update(self, x, g, lr, s):
        adagrad(x, s, g, lr, self.eps)
