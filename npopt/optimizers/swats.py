"""SWATS: Keskar & Socher, arXiv:1712.07628, Algorithm 1."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.adam import check_moments
from npopt.optimizers.base import Optimizer
from npopt.values import number


@elementwise
def adam_step(p, m, v, g, lr, b1, b2, eps, c1, c2):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    p = -lr * c1 * m / (sqrt(c2 * v) + eps)  # noqa: F821
    return p, m, v


@elementwise
def add(x, p):
    x = x + p
    return x


@elementwise
def sgd_of_swats(x, m, g, rate, b1):
    m = b1 * m + g
    x = x - (1 - b1) * rate * m
    return x, m


class SWATS(Optimizer):
    """Adam, until the rate of SGD that its steps correspond to has settled; then SGD with momentum and that rate.

        p = Adam's step            where p.g != 0:    s = p.p / (-p.g)    a <- b2 a + (1-b2) s    ah = a / (1-b2^t)
        switch when t > 1, ah > 0 and |ah - s| < tolerance:    Lambda = ah (lr_t / lr at the switch)
        m <- b1 m + g            x <- x - (1-b1) Lambda m            m_0 = 0

    tolerance is absolute. With the paper's 1e-9 the switch often never comes; `relative` makes tolerance a share of ah.
    A schedule scales Lambda. While Adam runs, the host reads the two inner products once a step: until the switch a
    step waits for the device. `switched`: the step of the switch.
    """

    arrays = ("m", "v")
    never_negative = ("v",)
    numbers = {"average": 0.0, "rate": 0.0, "switched": 0}

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, tolerance=1e-9, relative=False):
        self.b1, self.b2, self.eps = check_moments("SWATS", b1, b2, eps)
        self.tolerance, self.relative = number("SWATS", "tolerance", tolerance, low=0), bool(relative)

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self._p = backend.xp(x).empty_like(x)

    def step(self, x, g, lr):
        if not hasattr(g, "dtype"):
            raise UserError("SWATS: the switch is decided on the whole gradient; do not give it in pieces")
        if getattr(lr, "ndim", 0):
            raise UserError("SWATS: the rate that it finds for SGD is one number; so must lr be")
        self.t += 1
        m, v = self._slots.values()
        if self.switched:
            sgd_of_swats(x, m, g, self.rate * lr, self.b1)
            return
        p = self._p
        adam_step(p, m, v, g, lr, self.b1, self.b2, self.eps, 1 / (1 - self.b1**self.t), 1 / (1 - self.b2**self.t))
        add(x, p)
        along = float(backend.to_host(p.dot(g)))
        if along != 0:
            s = float(backend.to_host(p.dot(p))) / -along
            self.average = self.b2 * self.average + (1 - self.b2) * s
            settled = self.average / (1 - self.b2**self.t)
            near = abs(settled - s) < self.tolerance * (abs(settled) if self.relative else 1.0)
            if self.t > 1 and settled > 0 and near:
                self.rate, self.switched = settled / float(backend.to_host(lr)), self.t
                m[...] = 0
