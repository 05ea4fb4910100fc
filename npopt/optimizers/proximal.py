"""The proximal gradient step around SGD: stochastic with a minibatch, variance-reduced with SVRG or SAGA."""

from npopt.errors import UserError
from npopt.optimizers.base import Optimizer


class Proximal(Optimizer):
    """x <- prox_{lr h}(x - lr g),     h the problem's penalty; without one it is `inner` itself.

    With full gradients this is ISTA; with Minibatch prox-SGD (Duchi & Singer, JMLR 10, 2009), with SVRG Prox-SVRG
    (Xiao & Zhang, SIAM J. Optim. 24, 2014), with SAGA the proximal form of its paper. `inner` must be SGD(): only a
    step x - lr g has the minimiser of f + h as its fixed point under this prox. HeavyBall's long steps lr/(1-beta) and
    Adam's, one size a coordinate, would stop elsewhere; FISTA is the method with momentum.
    """

    proximal = True

    def __init__(self, inner):
        if not isinstance(inner, Optimizer):
            raise UserError(f"Proximal: give an optimizer such as SGD(), got {inner!r}")
        if not inner.plain:
            raise UserError(
                f"Proximal: {inner!r} does not step along -lr g alone, so that with a prox of step lr it "
                "would stop at another point than the minimum; use SGD() inside, or FISTA()"
            )
        self.inner = inner

    plain = True

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.inner.start(x, oracle)

    def step(self, x, g, lr):
        if getattr(lr, "ndim", 0):
            raise UserError("Proximal: the prox is that of one step size; give a schedule of numbers, not of arrays")
        self.t += 1
        self.inner.step(x, g, lr)
        self.oracle.problem.prox(x, lr)
