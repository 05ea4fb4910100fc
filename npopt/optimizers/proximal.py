"""The proximal gradient step around SGD: stochastic with a minibatch, variance-reduced with SVRG or SAGA."""

from npopt import backend
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.values import whole


class Proximal(Optimizer):
    """x <- prox_{lr h}(x - lr g),     h the problem's penalty; without one it is `inner` itself.

    With full gradients this is ISTA, with Minibatch it is prox-SGD (Duchi & Singer, JMLR 10, 2009), with SVRG Prox-SVRG
    (Xiao & Zhang, SIAM J. Optim. 24, 2014), with SAGA the proximal form of its paper. `inner` must be SGD(): only a
    step x - lr g has the minimiser of f + h as its fixed point under this prox. HeavyBall's long steps lr/(1-beta) and
    Adam's, one size a coordinate, would stop elsewhere; FISTA is the method with momentum.

    every  the number of steps from one prox to the next. The step of the prox is then the sum of their lr. With
           RandomReshuffling and the steps of an epoch this is ProxRR (Mishchenko, Khaled & Richtarik, ICML 2022,
           Algorithm 1). Within an epoch the gradients of all rows cancel as without a penalty; a prox between them
           would break that
    """

    proximal = True
    numbers = {"length": 0.0}  # the sum of lr since the last prox

    def __init__(self, inner, every=1):
        if not isinstance(inner, Optimizer):
            raise UserError(f"Proximal: give an optimizer such as SGD(), got {inner!r}")
        if not inner.plain:
            raise UserError(
                f"Proximal: {inner!r} does not step along -lr g alone, so with a prox of step lr it "
                "would stop at another point than the minimum; use SGD() inside, or FISTA()"
            )
        self.inner, self.every = inner, whole("Proximal", "every", every, low=1)

    plain = True

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.inner.start(x, oracle)

    def step(self, x, g, lr):
        if getattr(lr, "ndim", 0):
            raise UserError("Proximal: the prox is that of one step size; give a schedule of numbers, not of arrays")
        self.t += 1
        self.inner.step(x, g, lr)
        self.passed(x, self.t, [float(backend.to_host(lr))] if self.every > 1 else [lr])

    def passed(self, x, t, rates):
        """Take the prox if it is due after step t. rates: those of the steps that were made since the last call."""
        if self.every == 1:
            self.oracle.problem.prox(x, rates[0])
            return
        for lr in rates:  # in order: a resumed run must round alike
            self.length += float(lr)
        if t % self.every == 0:
            self.oracle.problem.prox(x, self.length)
            self.length = 0.0
