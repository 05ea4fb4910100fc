"""Methods around a method that report another point than the one that moves: Lookahead, EMA, SWA."""

from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.values import number, whole


@elementwise
def toward(slow, x, alpha):
    slow = slow + alpha * (x - slow)
    return slow


class Around(Optimizer):
    """An optimizer around another, `inner`. It keeps one more vector and reports that one. minimize measures it with
    batch statistics that are computed anew."""

    arrays = ("slow",)
    parts = ("inner",)

    @property
    def proximal(self):
        return self.inner.proximal

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.inner.start(x, oracle)
        self.slot("slow")[...] = x

    def step(self, x, g, lr):
        self.t += 1
        self.inner.step(x, g, lr)
        self.after(x, self.slot("slow"))

    def answer(self, x):
        return self.slot("slow")


def check_inner(owner, inner):
    if not isinstance(inner, Optimizer):
        raise UserError(f"{owner}: inner must be an optimizer such as Adam(), got {inner!r}")
    return inner


class Lookahead(Around):
    """k steps of `inner`, then slow <- slow + alpha (x - slow) and x <- slow; the answer is slow.

    Zhang, Lucas, Hinton & Ba, NeurIPS 2019, arXiv:1907.08610, Algorithm 1. The state of `inner` is kept over the
    synchronisation; reset=True starts it anew. k = 5 and alpha = 0.5.
    """

    def __init__(self, inner, k=5, alpha=0.5, reset=False):
        self.inner, self.k = check_inner("Lookahead", inner), whole("Lookahead", "k", k)
        self.alpha, self.reset = number("Lookahead", "alpha", alpha, low=0, high=1, open_low=True), bool(reset)

    def after(self, x, slow):
        if self.t % self.k == 0:
            toward(slow, x, self.alpha)
            x[...] = slow
            if self.reset:
                self.inner.restart(x)


class EMA(Around):
    """The answer is an exponential moving average beside `inner`: slow <- decay slow + (1-decay) x, slow_0 = x_0.

    Polyak & Juditsky, SIAM J. Control Optim. 30, 1992, with weights that fade.
    """

    def __init__(self, inner, decay=0.999):
        self.inner = check_inner("EMA", inner)
        self.decay = number("EMA", "decay", decay, low=0, high=1, open_high=True)

    def after(self, x, slow):
        toward(slow, x, 1 - self.decay)


class SWA(Around):
    """The answer is the mean of x at steps begin, begin + every, begin + 2 every, ... Before the first it is x itself.

    Izmailov, Podoprikhin, Garipov, Vetrov & Wilson, UAI 2018, arXiv:1803.05407, Algorithm 1.
    """

    def __init__(self, inner, begin, every=1):
        self.inner = check_inner("SWA", inner)
        self.begin, self.every = whole("SWA", "begin", begin), whole("SWA", "every", every)

    def after(self, x, slow):
        late = self.t - self.begin
        if late >= 0 and late % self.every == 0:
            toward(slow, x, 1 / (late // self.every + 1))

    def answer(self, x):
        return self.slot("slow") if self.t >= self.begin else x
