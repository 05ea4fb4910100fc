"""Rprop: Riedmiller & Braun, IEEE ICNN 1993; the variants of Igel & Huesken, NC 2000 and Neurocomputing 50, 2003."""

from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def rprop(x, d, p, g, lr, down, up, low, high, keep):
    turned = sign(p) * sign(g)  # noqa: F821
    d = min(up * d, high) if turned > 0 else (max(down * d, low) if turned < 0 else d)
    p = keep * g if turned < 0 else g
    x = x - lr * d * sign(p)  # noqa: F821
    return x, d, p


@elementwise
def rprop_back(x, d, p, s, g, lr, down, up, low, high):
    turned = sign(p) * sign(g)  # noqa: F821
    d = min(up * d, high) if turned > 0 else (max(down * d, low) if turned < 0 else d)
    s = -s if turned < 0 else -lr * d * sign(g)  # noqa: F821
    p = 0.0 if turned < 0 else g
    x = x + s
    return x, d, p, s


class Rprop(Optimizer):
    """Each coordinate has a step size of its own, which only the signs of its gradients change. p is the last g:

        p g > 0    d <- min(up d, high)                                x <- x - lr d sign(g)
        p g < 0    d <- max(down d, low)    and by the variant:
                       "irprop-"    x stays, p <- 0                    PyTorch; Igel & Huesken's iRprop-
                       "rprop-"     x <- x - lr d sign(g), p <- g      Rprop-
                       "rprop+"     x goes back, by the step before; p <- 0        the paper of 1993
        p g = 0    d stays                                             x <- x - lr d sign(g)

    d_0 = 1, so lr is the first step size and a schedule multiplies all of them; low and high are in units of lr. In the
    papers (0.1) and in PyTorch (lr) d_0 is absolute, with 1e-6 <= d <= 50: divide both bounds by d_0. Meant for full
    batches: the noise of a minibatch turns signs. p g is judged by signs, so small gradients do not underflow.
    """

    never_negative = ("d",)
    VARIANTS = ("irprop-", "rprop-", "rprop+")

    def __init__(self, down=0.5, up=1.2, low=1e-5, high=500.0, variant="irprop-"):
        self.down = number("Rprop", "down", down, low=0, high=1, open_low=True, open_high=True)
        self.up = number("Rprop", "up", up, low=1, open_low=True)
        self.low, self.high = number("Rprop", "low", low, low=0), number("Rprop", "high", high, low=low)
        if variant not in self.VARIANTS:
            raise UserError(f"Rprop: variant must be one of {', '.join(self.VARIANTS)}, got {variant!r}")
        self.variant = variant

    @property
    def arrays(self):
        return ("d", "p", *("s",) * (self.variant == "rprop+"))

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.slot("d")[...] = 1

    def update(self, x, g, lr, d, p, *s):
        if s:
            rprop_back(x, d, p, *s, g, lr, self.down, self.up, self.low, self.high)
        else:
            keep = 1.0 if self.variant == "rprop-" else 0.0
            rprop(x, d, p, g, lr, self.down, self.up, self.low, self.high, keep)
