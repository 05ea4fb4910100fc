"""Losses of a network's outputs against its targets, with row weights.

    L = (1/B) sum_b w_b l_b,    dL/dz_b = (w_b / B) dl_b/dz_b

z: (B, K) outputs; t: targets; w: (B,) or None for ones; l: (B,). `rows(z, t)` gives l, `value(z, t, w)` L, and
`value_and_gradient(z, t, w)` (L, dL/dz). L is summed in float64: a Python float on the host, a 0-d device array
elsewhere.
"""

from nn import kernels
from npopt import backend
from npopt.backend import xp
from npopt.values import Value, number

import numpy as np


def weighted_mean(rows, weights):
    """(1/B) sum_b w_b l_b in float64."""
    if weights is not None:
        rows = rows * weights
    mean = rows.sum(dtype="float64") * (1 / rows.shape[0])
    return float(mean) if isinstance(mean, np.generic) else mean


class Loss(Value):
    """A loss; subclasses define rows(z, t) and gradient(z, t) (of the rows that rows(...) saw last, without
    weights), or value_and_gradient as a whole; check; and right(z, t) where `accuracy`, the share of right answers, has
    a meaning."""

    accuracy = True

    def check(self, outputs, targets):
        """The network's output shape (K,) against all targets, a NumPy array; one sentence where they do not fit."""

    def value(self, z, t, weights=None):
        return weighted_mean(self.rows(z, t), weights)

    def value_and_gradient(self, z, t, weights=None):
        loss = weighted_mean(self.rows(z, t), weights)
        dz = self.gradient(z, t)
        dz *= 1 / z.shape[0]
        if weights is not None:
            dz *= weights.reshape(-1, 1)
        return loss, dz


class SoftmaxCrossEntropy(Loss):
    """l = -sum_k q_k log p_k, p = softmax(z), q = (1 - s) e_t + s/K: cross-entropy with label smoothing s.

    t: (B,) classes 0..K-1. With z_max subtracted and S = log sum_k e^(z_k), log p_k = z_k - S, so
        l = S - (1 - s) z_t - s mean(z),      dl/dz_k = p_k - q_k,    because dS/dz_k = p_k and sum_k q_k = 1.
    Szegedy et al., CVPR 2016, section 7, for the smoothing.
    """

    def __init__(self, label_smoothing=0.0):
        self.label_smoothing = number("SoftmaxCrossEntropy", "label_smoothing", label_smoothing, low=0, high=1)

    def check(self, outputs, targets):
        if len(outputs) != 1:
            raise ValueError(f"SoftmaxCrossEntropy: a row of outputs must be (classes,), got {tuple(outputs)}")
        if targets.ndim != 1 or targets.dtype.kind not in "iu":
            raise ValueError(f"SoftmaxCrossEntropy: targets must be class numbers, shape (n,), got {targets.dtype} "
                             f"{targets.shape}")
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= outputs[0]:
            raise ValueError(
                f"SoftmaxCrossEntropy: the labels run from {low} to {high}, but the network has {outputs[0]} outputs, "
                f"for labels 0 to {outputs[0] - 1}"
            )

    def right(self, z, t):
        """(B,) truth values: the largest output is the target's."""
        return z.argmax(axis=1) == t

    def draw(self, z, u):
        """(B,) labels with the probabilities softmax(z), from uniform numbers u, (B,): the inverse of the cdf."""
        m = xp(z)
        p = m.exp((z - z.max(axis=1, keepdims=True)).astype("float64"))
        below = m.cumsum(p, axis=1) < u.reshape(-1, 1) * p.sum(axis=1).reshape(-1, 1)
        return m.minimum(below.sum(axis=1), z.shape[1] - 1)

    def rows(self, z, t):
        return self._pass(z, t, None)[0]

    def value_and_gradient(self, z, t, weights=None):
        rows, dz = self._pass(z, t, weights)
        return weighted_mean(rows, weights), dz

    def _pass(self, z, t, weights):
        rows, dz = backend.empty(z.shape[:1], z.dtype), backend.empty(z.shape, z.dtype)
        kernels.softmax(z, t, self.label_smoothing, weights, dz, rows)
        return rows, dz


class SquaredError(Loss):
    """l = (1/2) sum_k (z_k - t_k)^2: with the 1/2, the sum and not the mean over outputs; dl/dz = z - t.

    t: (B, K) or, for one output, (B,).
    """

    accuracy = False

    def check(self, outputs, targets):
        width = int(np.prod(targets.shape[1:])) if targets.ndim > 1 else 1
        if len(outputs) != 1 or width != outputs[0]:
            raise ValueError(
                f"SquaredError: a row of targets has {width} numbers, a row of outputs shape {tuple(outputs)}"
            )

    def rows(self, z, t):
        d = self.gradient(z, t)
        return 0.5 * (d * d).sum(axis=1)

    def gradient(self, z, t):
        return z - t.reshape(z.shape)


class BinaryCrossEntropy(Loss):
    """l = sum_k log(1 + e^(z_k)) - t_k z_k, from logits z and targets t in [0, 1]; dl/dz = sigmoid(z) - t.

    With u = e^(-|z|), which cannot overflow: log(1 + e^z) = max(z, 0) + log(1 + u), and sigmoid(z) = 1/(1 + u) for
    z >= 0, u/(1 + u) for z < 0. t: (B, K) or, for one output, (B,).
    """

    def check(self, outputs, targets):
        width = int(np.prod(targets.shape[1:])) if targets.ndim > 1 else 1
        if len(outputs) != 1 or width != outputs[0]:
            raise ValueError(f"BinaryCrossEntropy: a row of targets has {width} numbers, a row of outputs shape "
                             f"{tuple(outputs)}; classes 0..K-1 belong to SoftmaxCrossEntropy")
        if targets.min() < 0 or targets.max() > 1:
            raise ValueError(f"BinaryCrossEntropy: targets must lie in [0, 1], got {targets.min()} to {targets.max()}")

    def right(self, z, t):
        """(B,): the share of a row's outputs whose sign is the target's."""
        return ((z > 0) == (t.reshape(z.shape) > 0.5)).reshape(z.shape[0], -1).mean(axis=1)

    def rows(self, z, t):
        m = xp(z)
        return (m.maximum(z, 0) + m.log1p(m.exp(-m.abs(z))) - t.reshape(z.shape) * z).sum(axis=1)

    def gradient(self, z, t):
        m = xp(z)
        u = m.exp(-m.abs(z))
        return m.where(z >= 0, 1 / (1 + u), u / (1 + u)) - t.reshape(z.shape)
