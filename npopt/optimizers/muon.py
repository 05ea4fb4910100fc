"""Muon: Jordan et al., 2024, kellerjordan.github.io/posts/muon; scale and decay: Liu et al., arXiv:2502.16982."""

import math

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.adam import check_moments
from npopt.optimizers.adamw import adamw
from npopt.optimizers.base import Array, number_or_array
from npopt.optimizers.by_segment import BySegment, check_kinds
from npopt.values import number, whole

QUINTIC = (3.4445, -4.775, 2.0315)  # a, b, c


@elementwise
def look_ahead(u, m, g, beta, keep, add):
    m = beta * m + g
    u = keep * m + add * g
    return u, m


@elementwise
def divided(u, length):
    u = u / (length + 1e-7)
    return u


@elementwise
def muon(x, o, rate, decay):
    x = x - rate * o - decay * x
    return x


class Muon(BySegment):
    """For a segment seen as a matrix (n, k), a convolution as (out, kh kw in):

        m <- beta m + g            U = g + beta m   (nesterov; else U = m)            O = NS(U)
        x <- x - lr scale O - lr weight_decay x

    NS is `steps` times  X <- a X + (b A + c A^2) X,  A = X X',  from X = U / (|U| + 1e-7), (a, b, c) = (3.4445, -4.775,
    2.0315). With U = W S V' its result is W p(S/|U|) V', where p is the scalar iteration: 5 steps of it take numbers
    above 0.002 to between 0.68 and 1.21. So O is near W V', the orthogonal matrix whose singular values are all 1.

        scale "original"    sqrt(max(1, n/k))           Jordan's code; PyTorch's "original"
        scale "rms"         0.2 sqrt(max(n, k))         Liu et al., section 2.2; PyTorch's "match_rms_adamw": the root
                                                        mean square of the step is 0.2 lr, about AdamW's

    Segments that are not of `kinds`, those with one axis, and those named in `others` run AdamW at adam_rate lr, with
    b1, b2 and eps. The authors do so for input embeddings and the last layer, too. adam_rate 0.015 is 3e-4 / 0.02, the
    rates in Jordan's code; with "rms" 1 is the authors' choice. weight_decay may be an array like x; the decay is
    decoupled and multiplied by lr, not by scale. Jordan's code and PyTorch's average g with weight 1-beta, which NS
    cancels. NS runs in x's dtype, where the authors use bfloat16. State: m, and v where AdamW runs.
    """

    never_negative = ("v",)
    by_formulas = ("v",)
    options = ("weight_decay",)
    SCALES = ("original", "rms")

    def __init__(
        self,
        beta=0.95,
        nesterov=True,
        steps=5,
        scale="original",
        weight_decay=0.0,
        kinds=("matrix",),
        *,
        others=(),
        adam_rate=0.015,
        b1=0.9,
        b2=0.95,
        eps=1e-10,
    ):
        self.beta = number("Muon", "beta", beta, low=0, high=1, open_high=True)
        self.nesterov, self.steps = bool(nesterov), whole("Muon", "steps", steps)
        if scale not in self.SCALES:
            raise UserError(f"Muon: scale must be one of {', '.join(self.SCALES)}, got {scale!r}")
        self.scale = scale
        self.weight_decay = number_or_array("Muon", "weight_decay", weight_decay, low=0)
        self.kinds = check_kinds("Muon", kinds)
        self.others = (others,) if isinstance(others, str) else tuple(others)
        self.adam_rate = number("Muon", "adam_rate", adam_rate, low=0)
        self.b1, self.b2, self.eps = check_moments("Muon", b1, b2, eps)

    def takes(self, segment):
        """Whether a segment is moved along an orthogonal matrix."""
        return segment.kind in self.kinds and len(segment.shape) > 1 and segment.name not in self.others

    def start(self, x, oracle=None):
        super().start(x, oracle)
        for name in self.others:
            self.segments.find(name)  # a ValueError where there is no such segment

    @property
    def arrays(self):
        return "m", Array("v", lambda s: None if self.takes(s) else (s.size,))

    def update_segment(self, segment, x, g, lr, m, v, weight_decay):
        if v is not None:
            c1, c2 = 1 / (1 - self.b1**self.t), 1 / (1 - self.b2**self.t)
            adamw(x, m, v, g, self.adam_rate * lr, self.b1, self.b2, self.eps, weight_decay, c1, c2)
            return
        n, u = segment.shape[0], self.work(x)
        k = segment.size // n
        look_ahead(u, m, g, self.beta, *((self.beta, 1.0) if self.nesterov else (1.0, 0.0)))
        divided(u, backend.norm(u))
        U = u.reshape(n, k)
        U[...] = orthogonalised(U, self.steps)
        scale = math.sqrt(max(1, n / k)) if self.scale == "original" else 0.2 * math.sqrt(max(n, k))
        muon(x, u, lr * scale, lr * weight_decay)


def orthogonalised(X, steps):
    """NS of an X of norm at most 1: near the orthogonal factor of its polar decomposition."""
    a, b, c = QUINTIC
    tall = X.shape[0] > X.shape[1]
    X = X.T if tall else X  # A is the smaller of the two squares
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * (A @ A)) @ X
    return X.T if tall else X
