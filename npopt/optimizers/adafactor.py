"""Adafactor: Shazeer & Stern, ICML 2018, arXiv:1804.04235, Algorithms 4 and 5."""

from npopt import backend
from npopt.backend import elementwise
from npopt.optimizers.base import number_or_array
from npopt.optimizers.by_segment import BySegment
from npopt.values import number


@elementwise
def full_direction(u, v, g, b2, eps):
    v = b2 * v + (1 - b2) * (g * g + eps)
    u = g / sqrt(v)  # noqa: F821
    return u, v


@elementwise
def relative_step(x, u, rate, decay):
    x = x - rate * u - decay * x
    return x


class Adafactor(BySegment):
    """For a segment seen as a matrix (n, k), a convolution as (out, kh kw in), with A = g^2 + eps1, b_t = 1 - t^-decay:

        R <- b_t R + (1-b_t) row means of A      C <- b_t C + (1-b_t) column means of A      V_ij = R_i C_j / mean(R)
        u = g / sqrt(V)        u <- u / max(1, rms(u) / clip)
        x <- x - lr max(eps2, rms(x)) u - lr weight_decay x

    Segments with one axis, or with a side shorter than `least`, keep a full V. b_1 = 0, so there is no bias to correct.
    The paper's rate is min(1e-2, 1/sqrt t): schedule=InverseSquareRoot(1.0, cap=1e-2). relative=False: x <- x - lr u.
    There is no first moment, and no weight decay in the paper. State: n + k numbers in place of n k.
    """

    options = ("weight_decay",)

    def __init__(self, decay=0.8, eps1=1e-30, eps2=1e-3, clip=1.0, relative=True, least=2, weight_decay=0.0):
        self.decay = number("Adafactor", "decay", decay, low=0, open_low=True)
        self.eps1 = number("Adafactor", "eps1", eps1, low=0)
        self.eps2 = number("Adafactor", "eps2", eps2, low=0)
        self.clip = number("Adafactor", "clip", clip, low=0, open_low=True)
        self.relative, self.least = bool(relative), number("Adafactor", "least", least, low=1)
        self.weight_decay = number_or_array("Adafactor", "weight_decay", weight_decay, low=0)

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.moments, m = {}, backend.xp(x)
        for s in self.segments:
            n, k = s.shape[0] if s.shape else 1, s.size // (s.shape[0] if s.shape else 1)
            factored = len(s.shape) > 1 and min(n, k) >= self.least
            sizes = (n, k) if factored else (s.size,)
            self.moments[s.name] = tuple(m.zeros(size, dtype=x.dtype) for size in sizes)

    def update_segment(self, segment, x, g, lr, weight_decay):
        b2, u, moments, m = 1 - self.t**-self.decay, self.work(x), self.moments[segment.name], backend.xp(x)
        if len(moments) == 1:
            full_direction(u, *moments, g, b2, self.eps1)
        else:
            rows, columns = moments
            g2, u2 = g.reshape(len(rows), -1), u.reshape(len(rows), -1)
            m.multiply(g2, g2, out=u2)
            for v, axis in ((rows, 1), (columns, 0)):
                v *= b2
                v += (1 - b2) * (u2.mean(axis=axis) + self.eps1)
            m.multiply(g2, (rows.mean() ** 0.5 * rows**-0.5).reshape(-1, 1), out=u2)     # rows may be 1e-30
            u2 *= columns**-0.5
        size = x.size**-0.5
        too_long = over(backend.norm(u) * (size / self.clip), 1.0)
        scale = over(backend.norm(x) * size, self.eps2) if self.relative else 1.0
        relative_step(x, u, lr * scale / too_long, lr * weight_decay)

    def state(self):
        names = ("rows", "columns")
        return {**super().state(), **{
            f"{name}/{names[i] if len(found) > 1 else 'v'}": v
            for name, found in self.moments.items() for i, v in enumerate(found)}}

    def load_state(self, state):
        super().load_state(state)
        for name, found in self.moments.items():
            for v, part in zip(found, ("rows", "columns") if len(found) > 1 else ("v",), strict=True):
                v[...] = backend.asarray(state[f"{name}/{part}"], v.dtype)


def over(a, b):
    """max(a, b) of a Python float or a 0-d array and a number."""
    return max(a, b) if isinstance(a, float) else backend.xp(a).maximum(a, b)
