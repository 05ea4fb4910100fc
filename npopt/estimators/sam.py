"""Sharpness-aware minimisation: Foret, Kleiner, Mobahi & Neyshabur, ICLR 2021, arXiv:2010.01412, Algorithm 1."""

from npopt.backend import elementwise, norm, xp
from npopt.estimators.base import Wrapper
from npopt.estimators.minibatch import Minibatch
from npopt.values import number


@elementwise
def climb(y, x, g, size, rho):
    y = x + (rho / size if size > 0 else 0.0) * g
    return y


class SAM(Wrapper):
    """The gradient at the top of a ball around x, for a step from x:

        g = grad f_B(x)        e = rho g / |g|        out = grad f_B(x + e)

    rho    radius of the ball, in the units of x: one Euclidean norm over all coordinates
    inner  the estimator that gives both gradients

    This is the gradient of max_{|e| <= rho} f_B(x + e) to first order in rho: how e changes with x is left out, as in
    the paper. Both passes are made on the same batch, with the same masks and augmentation. x is never written: x + e
    stands in a vector of its own. The batch statistics of a step are those of its first pass, at x. A zero gradient
    gives e = 0 (many ports add 1e-12 to |g| for that). A problem's l2 is part of f, and of e, as in the authors' code;
    an optimizer's weight_decay is not. Their code clips after the second gradient: Clipped(5, SAM(0.05)). The loss of a
    step is that at x. A step differentiates 2 B rows, and counts them. Memory: one more vector like x.

    Accumulated(m, SAM(rho)) perturbs every m rows by themselves: the m-sharpness of section 4.1. `again`, of which
    methods take differences (Sophia-H), and `sampled` are those of the inner estimator.
    """

    def __init__(self, rho=0.05, inner=None):
        self.rho = number(type(self).__name__, "rho", rho, low=0)
        self.inner = Minibatch() if inner is None else inner

    def start(self, problem, x, seed):
        self._top = xp(x).empty_like(x)
        return super().start(problem, x, seed)

    def __call__(self, x, batch, out):
        self.batch = batch
        loss = self.inner(x, batch, out)
        self.ascend(self._top, x, out)
        self.inner.again(self._top, out)
        return loss

    def ascend(self, y, x, g):
        """Write x + e into y."""
        climb(y, x, g, norm(g), self.rho)

    def again(self, y, out):
        return self.inner.again(y, out)

    def sampled(self, y, out, key):
        return self.inner.sampled(y, out, key)
