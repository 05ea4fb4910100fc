"""Losses that attacks climb: differences of logits, which do not vanish where the softmax is sure of itself."""

from nn.losses import Loss
from npopt.backend import xp
from npopt.errors import UserError


def masks(z, t):
    """(of the target, of the largest other output): two (B, K) arrays of truth values."""
    m = xp(z)
    classes = m.arange(z.shape[1]).reshape(1, -1)
    target = classes == t.reshape(-1, 1)
    return target, classes == m.where(target, -m.inf, z).argmax(axis=1).reshape(-1, 1)


class Logits(Loss):
    """Common to both: targets are classes 0..K-1, outputs (B, K) with at least `least` classes."""

    least = 2

    def targets(self, outputs, t, dtype):
        if len(outputs) != 1 or outputs[0] < self.least or t.dtype.kind not in "iu":
            raise UserError(
                f"{type(self).__name__}: outputs must be logits of {self.least} classes or more and targets class "
                f"numbers, got outputs {tuple(outputs)} and targets {t.dtype}"
            )
        return t

    def right(self, z, t):
        return z.argmax(axis=1) == t

    def rows(self, z, t):
        return self.both(z, t)[0]

    def gradient(self, z, t):
        return self.both(z, t)[1]


class LogitMargin(Logits):
    """l = max_{k != t} z_k - z_t, positive where the answer is wrong: f_6 of Carlini & Wagner, S&P 2017, negated and
    not cut at 0. dl/dz = e_j - e_t, j the largest other class."""

    def both(self, z, t):
        """(l, dl/dz): (B,), (B, K)."""
        target, other = masks(z, t)
        slope = other.astype(z.dtype) - target.astype(z.dtype)
        return (slope * z).sum(axis=1), slope


class LogitRatio(Logits):
    """The DLR loss, l = -(z_t - max_{k != t} z_k) / (z_(1) - z_(3)), z_(1) >= z_(2) >= ... the sorted outputs: Croce &
    Hein 2020, equation 6. It changes neither with a shift nor with a scale of the outputs.

    With N = z_t - z_j and D = z_(1) - z_(3):   dl/dz = (e_j - e_t + (N/D)(e_(1) - e_(3))) / D.
    Where the target comes third, l = 1 for all z nearby; the gradient is then 0, without rounding.

    D is at least 1e-12, as in their code. Three classes or more.
    """

    least = 3

    def both(self, z, t):
        """(l, dl/dz): (B,), (B, K)."""
        m = xp(z)
        target, other = (one.astype(z.dtype) for one in masks(z, t))
        order, classes = z.argsort(axis=1), m.arange(z.shape[1]).reshape(1, -1)
        first, third = ((classes == order[:, -k].reshape(-1, 1)).astype(z.dtype) for k in (1, 3))
        n = ((target - other) * z).sum(axis=1).reshape(-1, 1)
        d = m.maximum(((first - third) * z).sum(axis=1).reshape(-1, 1), 1e-12)
        return (-n / d).reshape(-1), (other - target + n / d * (first - third)) / d
