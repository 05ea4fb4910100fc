"""Weights that are themselves numbers of a narrow format: what is lost without float32 master weights."""

from npopt import backend
from npopt.backend.rounding import format_of
from npopt.optimizers.averaging import check_inner
from npopt.optimizers.base import Optimizer


class Rounded(Optimizer):
    """A step of `inner`, then x is rounded to the format: an update of less than half a unit in the last place is lost.

    Master weights, which this does without, are what Micikevicius et al., ICLR 2018, arXiv:1710.03740, section 3.1,
    keep instead. Near w the numbers of the format are 2^-m |w| apart or a little less (m = 10 for float16, 7 for
    bfloat16), so nothing is left of an update below 2^-(m+2) |w|. The state of `inner` stays in x's type.

    format       "float16", "bfloat16", "float8_e4m3", "float8_e5m2"
    stochastic   round up with the probability of the distance to the number below, a function of (seed, step, index):
                 the mean of the step is kept. Gupta et al., ICML 2015, arXiv:1502.02551, section 3.1
    """

    parts = ("inner",)

    def __init__(self, inner, format="bfloat16", stochastic=False):
        format_of(format)
        self.inner, self.format, self.stochastic = check_inner("Rounded", inner), format, bool(stochastic)

    @property
    def proximal(self):
        return self.inner.proximal

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.inner.start(x, oracle)

    def step(self, x, g, lr):
        self.t += 1
        self.inner.step(x, g, lr)
        draws = None
        if self.stochastic:
            key = backend.key(getattr(self.oracle, "seed", 0), "rounded", self.t)
            draws = backend.uniforms(key, backend.workspace(x.shape, x.dtype))
        backend.rounded(x, self.format, x, draws)

    def answer(self, x):
        return self.inner.answer(x)
