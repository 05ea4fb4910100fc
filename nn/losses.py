"""Losses of a network's outputs against its targets, with row weights.

    L = (1/B) sum_b w_b l_b,    dL/dz_b = (w_b / B) dl_b/dz_b

    R(dL/dz_b) = (w_b / B) l''_b R z_b, the derivative of dL/dz along R z

z: (B, ...) outputs; t: targets; w: (B,) or None for ones; l: (B,). `rows(z, t)` gives l, `value(z, t, w)` L,
`value_and_gradient(z, t, w)` (L, dL/dz), and `tangent(z, t, rz, w)` R(dL/dz). L is summed in float64: a Python float on
the host, a 0-d device array elsewhere.
"""

from math import prod

from nn import kernels
from npopt import backend
from npopt.backend import xp
from npopt.errors import UserError
from npopt.values import Value, number

import numpy as np


def weighted_mean(rows, weights):
    """(1/B) sum_b w_b l_b in float64."""
    if weights is not None:
        rows = rows * weights
    mean = rows.sum(dtype="float64") * (1 / rows.shape[0])
    return float(mean) if isinstance(mean, np.generic) else mean


def columns(rows, z):
    """A vector of one number a row, (B,), in the shape (B, 1, ...) that meets z."""
    return rows.reshape(-1, *[1] * (z.ndim - 1))


class Loss(Value):
    """A loss. A subclass defines targets(outputs, t, dtype). It also defines rows(z, t) and gradient(z, t), without
    weights, or value_and_gradient as a whole. Where `accuracy`, the share of right answers, has a meaning, it defines
    right(z, t)."""

    accuracy = True

    def targets(self, outputs, t, dtype):
        """All targets as this loss takes them, a NumPy array, for outputs of this shape (without the batch axis). A
        UserError where they do not fit."""
        return t

    def count(self, t):
        """How many rows, or positions, have a part in the mean over targets t."""
        return len(t)

    def sums(self, z, t):
        """(losses, right answers, how many) of a batch, summed up for a mean over batches; the second is 0 where
        `accuracy` has no meaning."""
        n = self.count(t)
        share = n / len(t)
        loss = self.rows(z, t).sum(dtype="float64") * share
        return loss, self.right(z, t).sum() * share if self.accuracy else 0.0, n

    def value(self, z, t, weights=None):
        return weighted_mean(self.rows(z, t), weights)

    def value_and_gradient(self, z, t, weights=None):
        loss = weighted_mean(self.rows(z, t), weights)
        dz = self.gradient(z, t)
        dz *= 1 / z.shape[0]
        if weights is not None:
            dz *= columns(weights, z)
        return loss, dz

    def second(self, z, t, rz):
        """l'' R z, a new array. t is held fixed."""
        raise UserError(f"{type(self).__name__} has no second(self, z, t, rz)")

    def tangent(self, z, t, rz, weights=None):
        rdz = self.second(z, t, rz)
        rdz *= 1 / z.shape[0]
        if weights is not None:
            rdz *= columns(weights, z)
        return rdz


def softmax_second(z, rz):
    """(diag p - p p') R z, p = softmax(z) over the last axis: l'' where the gradient is p minus a constant."""
    p = xp(z).exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p * (rz - (p * rz).sum(-1, keepdims=True))


def binary(t):
    """Labels -1 and +1, (n,), as 0 and 1; other targets as they are."""
    return (t + 1) / 2 if t.ndim == 1 and t.dtype.kind in "fi" and np.isin(t, (-1, 1)).all() else t


def same_shape(owner, outputs, t, dtype, more=""):
    """Targets (n, ...) of the shape of the outputs, or (n,) for one output, in this dtype."""
    if prod(t.shape[1:]) != prod(outputs):
        raise UserError(
            f"{owner}: a row of targets has {prod(t.shape[1:])} numbers, a row of outputs shape {tuple(outputs)}{more}"
        )
    return t.astype(dtype)


IGNORE = -1  # a position that does not count


class SoftmaxCrossEntropy(Loss):
    """l = -sum_k q_k log p_k, p = softmax(z), q = (1 - s) e_t + s/K: cross-entropy with label smoothing s.

    t: (B,) classes 0..K-1. With z_max subtracted and S = log sum_k e^(z_k), log p_k = z_k - S, so
        l = S - (1 - s) z_t - s mean(z),      dl/dz_k = p_k - q_k,    because dS/dz_k = p_k and sum_k q_k = 1.
    Szegedy et al., CVPR 2016, section 7, for the smoothing.

    Outputs (B, T, K) with targets (B, T) are sequences, in which positions count whose target is not -1.

    over="rows"         l_b is the mean over the n_b positions of row b that count, and 0 where there are none. So rows
                        weigh the same, however many positions they have.
    over="positions"    l_b = (B/n) sum_t l_bt, n = sum_b n_b: without weights L is the mean over all n positions of the
                        batch, and dL/dz = (p - q)/n. So positions weigh the same, as in masked language models. n is
                        the batch's: L is not the mean of the losses of its parts unless n_b is the same for all rows.
    """

    def __init__(self, label_smoothing=0.0, over="rows"):
        self.label_smoothing = number("SoftmaxCrossEntropy", "label_smoothing", label_smoothing, low=0, high=1)
        if over not in ("rows", "positions"):
            raise UserError(f"SoftmaxCrossEntropy: over must be 'rows' or 'positions', got {over!r}")
        self.over = over

    def targets(self, outputs, t, dtype):
        t = binary(t)
        if t.dtype.kind == "f" and (t == np.floor(t)).all():
            t = t.astype(np.int64)
        if t.shape[1:] != tuple(outputs[:-1]) or not 1 <= len(outputs) <= 2:
            raise UserError(
                f"SoftmaxCrossEntropy: a row of outputs must be (classes,), or (positions, classes) for "
                f"targets (n, positions); got outputs {tuple(outputs)} and targets {t.shape}"
            )
        if t.dtype.kind not in "iu":
            raise UserError(f"SoftmaxCrossEntropy: targets must be class numbers, shape (n,), got {t.dtype} {t.shape}")
        low, high = int(t.min()), int(t.max())
        if low < (IGNORE if t.ndim > 1 else 0) or high >= outputs[-1]:
            raise UserError(
                f"SoftmaxCrossEntropy: the labels run from {low} to {high}, but the network has {outputs[-1]} outputs, "
                f"for labels 0 to {outputs[-1] - 1}"
            )
        return t.astype(np.int64)

    def right(self, z, t):
        """(B,): whether the largest output is the target's; for sequences the share of positions where it is."""
        found = z.argmax(axis=-1) == t
        if z.ndim == 2:
            return found
        return (found & (t != IGNORE)).sum(axis=1) / self.divisors(t)

    def shares(self, t):
        """(B, T): the weight of each position in the loss of its row."""
        return (t != IGNORE) / self.divisors(t).reshape(-1, 1)

    def count(self, t):
        if self.over == "positions" and t.ndim > 1:
            return (t != IGNORE).sum()
        return len(t)

    def divisors(self, t):
        """(B,): by how much the sum over a row's positions is divided, n_b or n/B."""
        counts = (t != IGNORE).sum(axis=1)
        if self.over == "positions":
            counts = counts.sum() / len(t) + 0 * counts
        return xp(t).maximum(counts, 1 / len(t) if self.over == "positions" else 1)

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

    def second(self, z, t, rz):
        found = softmax_second(z, rz)
        if z.ndim > 2:
            found *= self.shares(t)[..., None].astype(z.dtype)
        return found

    def _pass(self, z, t, weights):
        flat = z.reshape(-1, z.shape[-1])
        rows, dz = backend.empty(flat.shape[:1], z.dtype), backend.empty(flat.shape, z.dtype)
        if z.ndim == 2:
            kernels.softmax(flat, t, self.label_smoothing, weights, dz, rows)
            return rows, dz
        share = self.shares(t) * t.shape[1]  # the kernel divides by B T
        each = share if weights is None else share * weights.reshape(-1, 1)
        each = each.astype(z.dtype).reshape(-1)
        kernels.softmax(flat, (t * (t != IGNORE)).reshape(-1), self.label_smoothing, each, dz, rows)
        return (rows.reshape(t.shape) * share).sum(axis=1).astype(z.dtype) * (1 / t.shape[1]), dz.reshape(z.shape)


class SquaredError(Loss):
    """l = (1/2) sum_k (z_k - t_k)^2: with the 1/2, the sum and not the mean over outputs; dl/dz = z - t.

    t: of the shape of z or, for one output, (B,).
    """

    accuracy = False

    def targets(self, outputs, t, dtype):
        return same_shape("SquaredError", outputs, t, dtype)

    def rows(self, z, t):
        d = self.gradient(z, t)
        return 0.5 * (d * d).reshape(z.shape[0], -1).sum(axis=1)

    def gradient(self, z, t):
        return z - t.reshape(z.shape)

    def second(self, z, t, rz):
        return rz.copy()


class BinaryCrossEntropy(Loss):
    """l = sum_k (1 - t_k) z_k + c_k log(1 + e^(-z_k)), c_k = 1 + (p - 1) t_k, from logits z and targets t in [0, 1];
    with mean=True the mean over the K outputs of a row instead of the sum, as is usual where a row has several labels.

    p is pos_weight: with s = sigmoid(z) this is -sum_k p t_k log s_k + (1 - t_k) log(1 - s_k), and
        dl/dz = s c - p t = (1 - t) - c (1 - s).
    With u = e^(-|z|), which cannot overflow: log(1 + e^(-z)) = max(-z, 0) + log(1 + u), and 1 - s = u/(1 + u) for
    z >= 0, 1/(1 + u) for z < 0. t: of the shape of z or, for one output, (B,); labels -1 and +1 become 0 and 1.
    """

    def __init__(self, pos_weight=1.0, mean=False):
        self.pos_weight = number("BinaryCrossEntropy", "pos_weight", pos_weight, low=0, open_low=True)
        self.mean = bool(mean)

    def averaged(self, values, z):
        """Values of a row's sum, as they are or divided by its number of outputs."""
        return values * (1 / prod(z.shape[1:])) if self.mean else values

    def targets(self, outputs, t, dtype):
        classes = "; classes 0..K-1 belong to SoftmaxCrossEntropy"
        t = same_shape("BinaryCrossEntropy", outputs, binary(t), dtype, classes)
        if t.min() < 0 or t.max() > 1:
            raise UserError(f"BinaryCrossEntropy: targets must lie in [0, 1], got {t.min()} to {t.max()}")
        return t

    def right(self, z, t):
        """(B,): the share of a row's outputs whose sign is the target's."""
        return ((z > 0) == (t.reshape(z.shape) > 0.5)).reshape(z.shape[0], -1).mean(axis=1)

    def rows(self, z, t):
        m, t = xp(z), t.reshape(z.shape)
        c = 1 + (self.pos_weight - 1) * t
        each = (1 - t) * z + c * (m.maximum(-z, 0) + m.log1p(m.exp(-m.abs(z))))
        return self.averaged(each.reshape(z.shape[0], -1).sum(axis=1), z)

    def gradient(self, z, t):
        m, t = xp(z), t.reshape(z.shape)
        u = m.exp(-m.abs(z))
        return self.averaged((1 - t) - (1 + (self.pos_weight - 1) * t) * m.where(z >= 0, u, 1) / (1 + u), z)

    def second(self, z, t, rz):
        u = xp(z).exp(-xp(z).abs(z))  # s (1 - s) = u / (1 + u)^2
        return self.averaged((1 + (self.pos_weight - 1) * t.reshape(z.shape)) * u / ((1 + u) * (1 + u)) * rz, z)


class KLDivergence(Loss):
    """l = KL(p || q) = sum_k p_k (log p_k - log q_k), p = softmax(t), q = softmax(z), from two rows of logits.

    With log q_k = z_k - S(z), dS/dz_k = q_k, and the same for p and t; sum_k p_k = 1:

        dl/dz_k = q_k - p_k
        dl/dt_k = p_k (log p_k - log q_k - l),     because dp_j/dt_k = p_j (1[j = k] - p_k), and
                  sum_j p_j d(log p_j)/dt_k = sum_j p_j (1[j = k] - p_k) = 0

    t: of the shape of z, (B, K). Where t = z, value and both gradients are 0 exactly.
    """

    accuracy = False

    def targets(self, outputs, t, dtype):
        return same_shape("KLDivergence", outputs, t, dtype)

    def rows(self, z, t):
        return self.both(z, t)[0]

    def gradient(self, z, t):
        return self.both(z, t)[1]

    def second(self, z, t, rz):
        return softmax_second(z, rz)

    def both(self, z, t):
        """(l, dl/dz, dl/dt), without weights: (B,), (B, K), (B, K)."""
        m, logs = xp(z), []
        for logits in (z, t):
            shifted = logits - logits.max(axis=1, keepdims=True)
            logs.append(shifted - m.log(m.exp(shifted).sum(axis=1, keepdims=True)))
        q, p, ratio = m.exp(logs[0]), m.exp(logs[1]), logs[1] - logs[0]
        rows = (p * ratio).sum(axis=1)
        return rows, q - p, p * (ratio - rows.reshape(-1, 1))
