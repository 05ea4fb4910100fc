"""AdaBound and AMSBound: Luo, Xiong, Liu & Sun, ICLR 2019, arXiv:1902.09843, Algorithms 2 and 3."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.adam import check_moments
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def adabound(x, m, v, g, step, b1, b2, eps, low, high):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    x = x - min(max(step / (sqrt(v) + eps), low), high) * m  # noqa: F821
    return x, m, v


@elementwise
def amsbound(x, m, v, w, g, step, b1, b2, eps, low, high):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    w = max(w, v)
    x = x - min(max(step / (sqrt(w) + eps), low), high) * m  # noqa: F821
    return x, m, v, w


class AdaBound(Optimizer):
    """m <- b1 m + (1-b1) g            v <- b2 v + (1-b2) g^2            s = lr sqrt(1-b2^t) / (1-b1^t)
    x <- x - clip(s / (sqrt(v) + eps), low, high) m

        low = f (1 - 1/(gamma t + 1))        high = f (1 + 1/(gamma t))        f = final_lr lr / base_lr

    It is Adam at first, and SGD with momentum (EMA form) and rate f in the end. At t = 1/gamma the bounds are f/2 and
    2 f. A schedule scales the bounds with the rate. base_lr is the schedule's rate without decay. None means the first
    rate that is not 0; under a warm-up that is far too small, so give base_lr. It must also be given where lr is an
    array. eps is added to the uncorrected root. This is the form of the authors' code; the paper's bounds divide by
    sqrt(t), too.
    """

    arrays = ("m", "v")
    never_negative = ("v", "w")
    numbers = {"first": None}

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, final_lr=0.1, gamma=1e-3, base_lr=None):
        name = type(self).__name__
        self.b1, self.b2, self.eps = check_moments(name, b1, b2, eps)
        self.final_lr = number(name, "final_lr", final_lr, low=0, open_low=True)
        self.gamma = number(name, "gamma", gamma, low=0, open_low=True)
        self.base_lr = None if base_lr is None else number(name, "base_lr", base_lr, low=0, open_low=True)

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.first = self.base_lr

    def bounds(self, lr, t):
        """(low, high) of a coordinate's rate at step t."""
        final = self.final_lr * lr / (self.first or 1.0)
        return final * (1 - 1 / (self.gamma * t + 1)), final * (1 + 1 / (self.gamma * t))

    def update(self, x, g, lr, *arrays):
        if self.first is None:
            if getattr(lr, "ndim", 0):
                raise UserError(f"{type(self).__name__}: where the rate is an array, give base_lr, a number")
            self.first = float(backend.to_host(lr)) or None
        step = lr * (1 - self.b2**self.t) ** 0.5 / (1 - self.b1**self.t)
        formula = adabound if len(arrays) == 2 else amsbound
        formula(x, *arrays, g, step, self.b1, self.b2, self.eps, *self.bounds(lr, self.t))


class AMSBound(AdaBound):
    """AdaBound with w <- max(w, v) in place of v."""

    arrays = ("m", "v", "w")
