"""Adafactor: Shazeer & Stern, ICML 2018, arXiv:1804.04235, Algorithms 4 and 5."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Array, number_or_array
from npopt.optimizers.by_segment import BySegment
from npopt.values import number


@elementwise
def full_direction(u, V, g, b2, eps):
    V = b2 * V + (1 - b2) * (g * g + eps)
    u = g / sqrt(V)  # noqa: F821
    return u, V


@elementwise
def relative_step(x, u, rate, decay):
    x = x - rate * u - decay * x
    return x


@elementwise
def relative_step_with_memory(x, m, u, rate, b1, decay):
    m = b1 * m + (1 - b1) * rate * u
    x = x - m - decay * x
    return x, m


class Adafactor(BySegment):
    """For a segment seen as a matrix (n, k), a convolution as (out, kh kw in), with A = g^2 + eps1, b_t = 1 - t^-decay:

        R <- b_t R + (1-b_t) row means of A      C <- b_t C + (1-b_t) column means of A      V_ij = R_i C_j / mean(R)
        u = g / sqrt(V)        u <- u / max(1, rms(u) / clip)        s = lr max(eps2, rms(x))
        x <- x - s u - lr weight_decay x
        or, with b1, a first moment:      m <- b1 m + (1-b1) s u        x <- x - m - lr weight_decay x

    Segments with one axis, or with a side shorter than `least`, keep a full V. b_1 = 0, so there is no bias to correct.
    The paper's rate is min(1e-2, 1/sqrt t): schedule=InverseSquareRoot(1.0, cap=1e-2). relative=False: s = lr.
    b1 is None in the paper's final form, which saves m. The rate stands inside m, as in Tensor2Tensor, Transformers and
    optax. m is not corrected: the first step is (1-b1) s u. There is no weight decay in the paper. State: n + k numbers
    in place of n k, and m where there is a b1.
    """

    never_negative = ("R", "C", "V")
    options = ("weight_decay",)

    def __init__(self, decay=0.8, eps1=1e-30, eps2=1e-3, clip=1.0, relative=True, least=2, weight_decay=0.0, b1=None):
        self.decay = number("Adafactor", "decay", decay, low=0, open_low=True)
        self.eps1 = number("Adafactor", "eps1", eps1, low=0)
        self.eps2 = number("Adafactor", "eps2", eps2, low=0)
        self.clip = number("Adafactor", "clip", clip, low=0, open_low=True)
        self.relative, self.least = bool(relative), number("Adafactor", "least", least, low=1)
        self.weight_decay = number_or_array("Adafactor", "weight_decay", weight_decay, low=0)
        self.b1 = None if b1 is None else number("Adafactor", "b1", b1, low=0, high=1, open_high=True)

    @property
    def arrays(self):
        return (
            Array("R", lambda s: self.sides(s) and self.sides(s)[:1]),
            Array("C", lambda s: self.sides(s) and self.sides(s)[1:]),
            Array("V", lambda s: None if self.sides(s) else (s.size,)),
            *("m",) * (self.b1 is not None),
        )

    def sides(self, segment):
        """(n, k) of a segment whose V is factored, else None."""
        if len(segment.shape) < 2:
            return None
        n, k = segment.shape[0], segment.size // segment.shape[0]
        return (n, k) if min(n, k) >= self.least else None

    def update_segment(self, segment, x, g, lr, R, C, V, *memory_and_decay):
        b2, u = 1 - self.t**-self.decay, self.work(x)
        if V is not None:
            full_direction(u, V, g, b2, self.eps1)
        else:
            self.factored_direction(u, R, C, g, b2)
        size = x.size**-0.5
        too_long = over(backend.norm(u) * (size / self.clip), 1.0)
        scale = over(backend.norm(x) * size, self.eps2) if self.relative else 1.0
        *m, weight_decay = memory_and_decay
        if self.b1 is not None and not m:
            raise UserError("Adafactor: b1 varies, but m is not there; start with a number for b1")
        if m:
            relative_step_with_memory(x, *m, u, lr * scale / too_long, self.b1, lr * weight_decay)
        else:
            relative_step(x, u, lr * scale / too_long, lr * weight_decay)

    def factored_direction(self, u, R, C, g, b2):
        """Update R and C, then set u = g / sqrt(V)."""
        g2, u2, m = g.reshape(len(R), -1), u.reshape(len(R), -1), backend.xp(g)
        m.multiply(g2, g2, out=u2)
        for v, axis in ((R, 1), (C, 0)):
            v *= b2
            v += (1 - b2) * (u2.mean(axis=axis) + self.eps1)
        m.multiply(g2, (R.mean() ** 0.5 * R**-0.5).reshape(-1, 1), out=u2)  # R may be 1e-30
        u2 *= C**-0.5


def over(a, b):
    """max(a, b) of a, a Python float or a 0-d array, and b, a number."""
    return max(a, b) if isinstance(a, float) else backend.xp(a).maximum(a, b)
