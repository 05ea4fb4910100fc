"""AMSGrad: Reddi, Kale & Kumar, ICLR 2018, arXiv:1904.09237, Algorithm 2, and two variants in use."""

from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.adam import check_moments
from npopt.optimizers.base import Optimizer


@elementwise
def amsgrad(x, m, v, w, g, lr, b1, b2, eps, c1, before, after):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    w = max(w, before * v)
    x = x - lr * c1 * m / (sqrt(after * w) + eps)  # noqa: F821
    return x, m, v, w


class AMSGrad(Optimizer):
    """m <- b1 m + (1-b1) g            v <- b2 v + (1-b2) g^2            mh = m / (1-b1^t)

        variant      the largest so far              x <- x - lr ...
        "original"   w <- max(w, v)                  m  / (sqrt(w) + eps)                 Algorithm 2, uncorrected
        "raw"        w <- max(w, v)                  mh / (sqrt(w / (1-b2^t)) + eps)      PyTorch
        "corrected"  w <- max(w, v / (1-b2^t))       mh / (sqrt(w) + eps)

    Keras is "raw" with eps / sqrt(1-b2^t) for eps. The variants differ early: at t = 1 "original" moves by
    (1-b1)/sqrt(1-b2) lr, the others by lr. With a constant lr the rate of a coordinate never rises in "original" and
    "corrected". Algorithm 2 has no eps.
    """

    arrays = ("m", "v", "w")
    never_negative = ("v", "w")
    VARIANTS = ("original", "raw", "corrected")

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, variant="raw"):
        self.b1, self.b2, self.eps = check_moments("AMSGrad", b1, b2, eps)
        if variant not in self.VARIANTS:
            raise UserError(f"AMSGrad: variant must be one of {', '.join(self.VARIANTS)}, got {variant!r}")
        self.variant = variant

    def update(self, x, g, lr, m, v, w):
        c1, c2 = 1 / (1 - self.b1**self.t), 1 / (1 - self.b2**self.t)
        corrections = {"original": (1.0, 1.0, 1.0), "raw": (c1, 1.0, c2), "corrected": (c1, c2, 1.0)}[self.variant]
        amsgrad(x, m, v, w, g, lr, self.b1, self.b2, self.eps, *corrections)
