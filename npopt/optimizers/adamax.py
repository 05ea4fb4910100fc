"""Adamax: Kingma & Ba, ICLR 2015, arXiv:1412.6980, Algorithm 2."""

from npopt.backend import elementwise
from npopt.optimizers.adam import check_moments
from npopt.optimizers.base import Optimizer


@elementwise
def adamax(x, m, u, g, lr, b1, b2, inside, outside, c1):
    m = b1 * m + (1 - b1) * g
    u = max(b2 * u, abs(g) + inside)
    x = x - (lr * c1 * m / (u + outside) if u + outside > 0 else 0.0)
    return x, m, u


class Adamax(Optimizer):
    """Adam with the largest recent |g| in place of the root of v:

        m <- b1 m + (1-b1) g            u <- max(b2 u, |g| + eps)            x <- x - lr / (1-b1^t) m / u

    u is a maximum and needs no correction. eps stands inside the maximum, as in PyTorch and optax, so every u is above
    0. eps_outside=True is Keras' form, m / (u + eps). Algorithm 2 has no eps. With eps = 0 a coordinate whose gradients
    were all 0 stays where it is. The first step is lr sign(g), as Adam's.
    """

    arrays = ("m", "u")
    never_negative = ("u",)

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, eps_outside=False):
        self.b1, self.b2, self.eps = check_moments("Adamax", b1, b2, eps)
        self.eps_outside = bool(eps_outside)

    def update(self, x, g, lr, m, u):
        inside, outside = (0.0, self.eps) if self.eps_outside else (self.eps, 0.0)
        adamax(x, m, u, g, lr, self.b1, self.b2, inside, outside, 1 / (1 - self.b1**self.t))
