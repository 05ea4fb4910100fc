"""The proximal gradient method, ISTA: Beck & Teboulle, SIAM J. Imaging Sciences 2, 2009, section 3."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.optimizers.sgd import sgd
from npopt.values import number


@elementwise
def descent(x, y, g, lr):
    x = y - lr * g
    return x


class ProximalGradient(Optimizer):
    """What ISTA and FISTA share: p = prox_{lr h}(y - lr g), and the search for an lr that is small enough.

    With backtracking the step is accepted when

        f(p) <= f(y) + <g, p - y> + |p - y|^2 / (2 lr)

    If not, lr is divided by eta, for good: the schedule's rate is an upper bound and is the first one tried. Each
    trial evaluates f (counts["values"]). It is judged on the host, so it waits for the device. Without backtracking lr
    has to be at most 1/L, and nothing is read.
    """

    proximal = True
    numbers = {"shrink": 1.0}

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self._trial = backend.xp(x).zeros_like(x)

    def forward_backward(self, y, g, lr):
        """prox_{lr h}(y - lr g), in a vector that is valid until the next call; sets self.lr."""
        if getattr(lr, "ndim", 0):
            raise UserError(f"{type(self).__name__}: the prox is that of one step size; give a schedule of numbers")
        lr = float(backend.to_host(lr))
        p, oracle = self._trial, self.oracle
        while True:
            self.lr = lr * self.shrink
            descent(p, y, g, self.lr)
            oracle.problem.prox(p, self.lr)
            if not self.backtracking:
                return p
            d = p - y
            bound = oracle.loss + (g * d).sum() + (d * d).sum() / (2 * self.lr)
            value, bound = (float(backend.to_host(v)) for v in (oracle.value(p), bound))
            rounding = 4 * float(backend.xp(p).finfo(p.dtype).eps) * abs(bound)
            if value <= bound + rounding or self.shrink < 1e-30:
                return p
            self.shrink /= self.eta


class ISTA(ProximalGradient):
    """x <- prox_{lr h}(x - lr grad f(x)),     h the problem's penalty; meant for full batches.

    With lr = 1/L:   F(x_k) - F* <= L |x_0 - x*|^2 / (2k)   (Theorem 3.1). Without backtracking it is Proximal(SGD()).
    backtracking, eta: see ProximalGradient; with it each step waits for the device.
    """

    def __init__(self, backtracking=False, eta=2.0):
        self.backtracking = bool(backtracking)
        self.eta = number("ISTA", "eta", eta, low=1, open_low=True)

    def step(self, x, g, lr):
        self.t += 1
        if self.backtracking:
            x[...] = self.forward_backward(x, g, lr)
            return
        sgd(x, g, lr)
        self.oracle.problem.prox(x, lr)
