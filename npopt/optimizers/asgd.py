"""ASGD, averaged SGD: Polyak & Juditsky, SIAM J. Control Optim. 30, 1992; the rates of Xu, arXiv:1107.2490."""

from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer
from npopt.values import number, whole


@elementwise
def asgd(x, mean, g, eta, lam, mu):
    x = x - eta * (g + lam * x)
    mean = mean + mu * (x - mean)
    return x, mean


class ASGD(Optimizer):
    """eta = lr / (1 + lam lr (t-1))^alpha            x <- x - eta (g + lam x)            mean <- mean + mu (x - mean)

    with mu = 1 / max(1, t - begin + 1). From step `begin` on the answer is the mean of x_begin, ..., x_t; before that
    it is x. alpha between 1/2 and 1, and begin = 1, are the paper's. lam is the l2 term of the loss: it shrinks x and
    sets how fast the rate falls. lam = 0 gives plain SGD at lr, averaged. A schedule is the lr of the formula.

    PyTorch has lambd = lam, and mu = 1 / max(1, t - 1 - t0), which is begin = t0 + 2; its t0 = 1e6 averages nothing in
    most runs. SWA averages the iterates of any method, at the ends of cycles.
    """

    arrays = ("mean",)

    def __init__(self, lam=1e-4, alpha=0.75, begin=1):
        self.lam, self.alpha = number("ASGD", "lam", lam, low=0), number("ASGD", "alpha", alpha, low=0)
        self.begin = whole("ASGD", "begin", begin)

    def update(self, x, g, lr, mean):
        eta = lr / (1 + self.lam * lr * (self.t - 1)) ** self.alpha
        asgd(x, mean, g, eta, self.lam, 1 / max(1, self.t - self.begin + 1))

    def answer(self, x):
        return self.slot("mean") if self.t >= self.begin else x
