"""Clipping by the norm of the whole gradient: Pascanu, Mikolov & Bengio, ICML 2013, arXiv:1211.5063, Algorithm 1."""

from npopt.backend import elementwise, norm
from npopt.estimators.base import Wrapper
from npopt.estimators.minibatch import Minibatch
from npopt.values import number


@elementwise
def shrink(g, size, c):
    g = g * (c / size if size > c else 1.0)
    return g


class Clipped(Wrapper):
    """g <- min(1, c / |g|) g, with |g| the Euclidean norm over all coordinates.

    PyTorch divides by |g| + 1e-6 instead. The norm is summed in float64 and stays on the device. A gradient that is
    not finite stays so, and the loop sees the divergence. Only the gradient of the step is clipped. `again` is not,
    because methods take differences of it (Sophia-H).
    """

    def __init__(self, c, inner=None):
        self.c = number("Clipped", "c", c, low=0, open_low=True)
        self.inner = Minibatch() if inner is None else inner

    def __call__(self, x, batch, out):
        self.batch = batch
        loss = self.inner(x, batch, out)
        shrink(out, norm(out), self.c)
        return loss

    def again(self, y, out):
        return self.inner.again(y, out)

    def sampled(self, y, out, key):
        return self.inner.sampled(y, out, key)
