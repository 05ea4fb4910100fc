"""Clipping by the norm of the whole gradient: Pascanu, Mikolov & Bengio, ICML 2013, arXiv:1211.5063, Algorithm 1."""

from npopt.backend import elementwise, norm
from npopt.errors import UserError
from npopt.estimators.base import Wrapper
from npopt.estimators.minibatch import Minibatch
from npopt.values import number


@elementwise
def shrink(g, size, c):
    g = g * (c / size if size > c else 1.0)
    return g


class Clipping(Wrapper):
    """What the estimators share that change the step's gradient alone: a subclass has `clip(g)`, which writes into g.

    `again`, which methods take differences of (Sophia-H), and `sampled` are those of the inner estimator.
    """

    def __call__(self, x, batch, out):
        self.batch = batch
        loss = self.inner(x, batch, out)
        self.clip(out)
        return loss

    def clip(self, g):
        raise UserError(f"{type(self).__name__} does not say how it clips; define clip(self, g)")

    def again(self, y, out):
        return self.inner.again(y, out)

    def sampled(self, y, out, key):
        return self.inner.sampled(y, out, key)


class Clipped(Clipping):
    """g <- min(1, c / |g|) g, with |g| the Euclidean norm over all coordinates.

    Exactly so: PyTorch divides by |g| + 1e-6. The norm is summed in float64 and stays on the device. A gradient that is
    not finite stays so, and the loop sees the divergence. With SGD a step is at most lr c long: in the words of Zhang,
    He, Sra & Jadbabaie (ICLR 2020) c is gamma, and their step min(eta, gamma eta / |g|). With a loss that was scaled
    (Neural's loss_scale) g has its own scale again before it comes here.
    """

    def __init__(self, c, inner=None):
        self.c = number("Clipped", "c", c, low=0, open_low=True)
        self.inner = Minibatch() if inner is None else inner

    def clip(self, g):
        shrink(g, norm(g), self.c)
