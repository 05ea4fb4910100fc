"""Short messages for long vectors. What a compressor promises is one of two things:

    contractive    E|C(v) - v|^2 <= (1 - alpha) |v|^2                       TopK, Sign, RandK(scaled=False)
    unbiased       E C(v) = v,   E|C(v) - v|^2 <= omega |v|^2               RandK(scaled=True), QSGD

`encode(v, key)` gives the arrays of a message, in memory of their own; `decode(message, like)` the vector C(v), of the
length and dtype of `like`. Random choices are functions of the key. Bytes are those of the arrays: what would not be
sent is not in them.
"""

import math

from npopt import backend
from npopt.backend import xp
from npopt.errors import UserError
from npopt.values import Value, whole

import numpy as np


class Compressor(Value):
    """The interface; `alpha(d)` and `omega(d)` are the constants of the promise for vectors of length d, or None."""

    def alpha(self, d):
        return None

    def omega(self, d):
        return None

    def encode(self, v, key):
        raise UserError(f"{type(self).__name__} defines no encode")

    def decode(self, message, like):
        raise UserError(f"{type(self).__name__} defines no decode")

    def __call__(self, v, key=0):
        """C(v)."""
        return self.decode(self.encode(v, key), v)


class Identity(Compressor):
    """C(v) = v."""

    def alpha(self, d):
        return 1.0

    def omega(self, d):
        return 0.0

    def encode(self, v, key):
        return (v.copy(),)

    def decode(self, message, like):
        return message[0]


def kept(owner, k, d):
    if k > d:
        raise UserError(f"{owner}: k = {k} numbers of a vector of {d} cannot be sent")
    return k


class TopK(Compressor):
    """The k numbers of largest magnitude, with their places: 4 bytes a place, 4 or 8 a number. alpha = k / d.

    Stich, Cordonnier & Jaggi, NeurIPS 2018, arXiv:1809.07599, Definition 2.1. Which of several equal magnitudes are
    sent is left to argpartition.
    """

    def __init__(self, k):
        self.k = whole("TopK", "k", k)

    def alpha(self, d):
        return kept("TopK", self.k, d) / d

    def encode(self, v, key):
        d, m = len(v), xp(v)
        places = m.arange(d) if kept("TopK", self.k, d) == d else m.argpartition(-abs(v), self.k - 1)[: self.k]
        places = m.sort(places)
        return v[places], places.astype(np.int32)

    def decode(self, message, like):
        out = xp(like).zeros_like(like)
        out[message[1]] = message[0]
        return out


class RandK(Compressor):
    """k numbers at places drawn without replacement; sent are these and a key of 8 bytes, from which both ends draw.

    scaled: times d / k, unbiased with omega = d / k - 1; else contractive in the mean with alpha = k / d.
    Stich, Cordonnier & Jaggi, NeurIPS 2018, arXiv:1809.07599, Definition 2.1.
    """

    def __init__(self, k, scaled=True):
        self.k, self.scaled = whole("RandK", "k", k), bool(scaled)

    def alpha(self, d):
        return None if self.scaled else kept("RandK", self.k, d) / d

    def omega(self, d):
        return d / kept("RandK", self.k, d) - 1 if self.scaled else None

    def places(self, d, key):
        """The k places, those of the smallest of d uniform numbers."""
        u = uniforms(key, d)
        m = xp(u)
        return m.arange(d) if kept("RandK", self.k, d) == d else m.argpartition(u, self.k - 1)[: self.k]

    def encode(self, v, key):
        sent = v[self.places(len(v), key)]
        if self.scaled:
            sent = sent * (len(v) / self.k)
        return sent, np.array([key], np.uint64)

    def decode(self, message, like):
        out = xp(like).zeros_like(like)
        out[self.places(len(like), int(message[1][0]))] = message[0]
        return out


class Sign(Compressor):
    """(|v|_1 / d) sign(v), a bit for each number and one scale; sign(0) = 1. alpha = |v|_1^2 / (d |v|^2) >= 1 / d.

    Karimireddy, Rebjock, Stich & Jaggi, ICML 2019, arXiv:1901.09847, Algorithm 1.
    """

    def alpha(self, d):
        return 1 / d

    def encode(self, v, key):
        return xp(v).packbits(v >= 0), abs(v).mean().reshape(1)

    def decode(self, message, like):
        bits, scale = message
        positive = xp(like).unpackbits(bits)[: len(like)]
        return (2 * positive.astype(like.dtype) - 1) * scale


class QSGD(Compressor):
    """|v| sign(v_i) z_i / s, z_i one of the two whole numbers beside s |v_i| / |v|, drawn so that the mean is right.

    Unbiased, omega = min(d / s^2, sqrt(d) / s). Alistarh, Grubic, Li, Tomioka & Vojnovic, NeurIPS 2017,
    arXiv:1610.02132, Lemma 3.1. A number is sent in the bits that 2 s + 1 values need, not in the paper's Elias code.
    """

    def __init__(self, levels=4):
        self.levels = whole("QSGD", "levels", levels)
        self.bits = (2 * self.levels).bit_length()

    def omega(self, d):
        return min(d / self.levels**2, math.sqrt(d) / self.levels)

    def encode(self, v, key):
        m = xp(v)
        norm = m.sqrt((v * v).sum()).reshape(1)
        scaled = abs(v) * (self.levels / m.where(norm > 0, norm, 1))
        low = m.floor(scaled)
        z = low + (uniforms(key, len(v)) < scaled - low)
        codes = (m.sign(v) * z + self.levels).astype(np.int64)
        bits = (codes[:, None] >> m.arange(self.bits)) & 1
        return m.packbits(bits.astype(np.uint8).reshape(-1)), norm

    def decode(self, message, like):
        packed, norm = message
        d = len(like)
        bits = xp(like).unpackbits(packed)[: d * self.bits].reshape(d, self.bits)
        codes = (bits * backend.asarray(2 ** np.arange(self.bits))).sum(axis=1)
        return (codes - self.levels).astype(like.dtype) * (norm / self.levels)


def uniforms(key, count):
    """`count` uniform numbers of a key, float64 (multiples of 2^-24), on the device in use."""
    out = backend.empty((1, count), np.float64)
    return backend.row_uniform(key, None, out)[0]
