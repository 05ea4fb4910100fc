"""RMSProp: Tieleman & Hinton, Coursera lecture 6.5, 2012; centred with momentum: Graves, arXiv:1308.0850, eq. 38-45."""

from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def rmsprop(x, v, g, lr, a, inside, outside):
    v = a * v + (1 - a) * g * g
    x = x - lr * g / (sqrt(v + inside) + outside)  # noqa: F821
    return x, v


@elementwise
def rmsprop_momentum(x, v, m, g, lr, a, inside, outside, momentum):
    v = a * v + (1 - a) * g * g
    m = momentum * m + g / (sqrt(v + inside) + outside)  # noqa: F821
    x = x - lr * m
    return x, v, m


@elementwise
def rmsprop_centred(x, v, c, g, lr, a, inside, outside):
    v = a * v + (1 - a) * g * g
    c = a * c + (1 - a) * g
    x = x - lr * g / (sqrt(max(v - c * c, 0.0) + inside) + outside)  # noqa: F821
    return x, v, c


@elementwise
def rmsprop_centred_momentum(x, v, c, m, g, lr, a, inside, outside, momentum):
    v = a * v + (1 - a) * g * g
    c = a * c + (1 - a) * g
    m = momentum * m + g / (sqrt(max(v - c * c, 0.0) + inside) + outside)  # noqa: F821
    x = x - lr * m
    return x, v, c, m


class RMSProp(Optimizer):
    """v <- a v + (1-a) g^2            d = sqrt(v) + eps            x <- x - lr g / d

        centred     c <- a c + (1-a) g,    d = sqrt(max(v - c^2, 0)) + eps    (the variance; rounding may make it < 0)
        momentum    m <- momentum m + g / d,    x <- x - lr m
        eps_inside  d = sqrt(v + eps) instead (TensorFlow, Graves; an eps of 1e-6 or more suits it)

    lr stands outside the momentum, as in PyTorch. TensorFlow and Graves have it inside, m <- momentum m + lr g / d.
    This differs when lr changes. To vary the momentum, start above 0.

    a = 0.99 as in PyTorch; the lecture has 0.9. There is no bias correction: the first step is lr / sqrt(1-a) sign(g),
    ten times lr for a = 0.99. Without momentum and centring the state is v alone.
    """

    never_negative = ("v",)

    def __init__(self, a=0.99, eps=1e-8, centred=False, momentum=0.0, eps_inside=False):
        self.a = number("RMSProp", "a", a, low=0, high=1, open_high=True)
        self.eps = number("RMSProp", "eps", eps, low=0)
        self.centred, self.eps_inside = bool(centred), bool(eps_inside)
        self.momentum = number("RMSProp", "momentum", momentum, low=0, high=1, open_high=True)

    @property
    def arrays(self):
        return ("v", *("c",) * self.centred, *("m",) * (self.momentum > 0))

    def update(self, x, g, lr, *arrays):
        inside, outside = (self.eps, 0.0) if self.eps_inside else (0.0, self.eps)
        moves = "m" in self._slots  # as it started: momentum may vary, the state may not
        formula = {
            (False, False): rmsprop,
            (False, True): rmsprop_momentum,
            (True, False): rmsprop_centred,
            (True, True): rmsprop_centred_momentum,
        }[self.centred, moves]
        if self.momentum > 0 and not moves:
            raise UserError("RMSProp: momentum rises from 0, and has no state for that; start with one above 0")
        more = (self.momentum,) if moves else ()
        formula(x, *arrays, g, lr, self.a, inside, outside, *more)
