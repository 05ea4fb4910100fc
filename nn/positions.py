"""Where a token stands: layers that add a vector, and what attention does with positions itself.

LearnedPositions, SinusoidalPositions       layers, before the first block
Rotary, Alibi, Relative                     values, MultiHeadAttention(..., positions=Rotary())
"""

import functools

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

from . import kernels
from .embedding import START
from .layer import Layer
from .rotary import angles, rounded


class LearnedPositions(Layer):
    """y_bt = x_bt + W_t: a vector for each position.   x: (B, T, D), T <= length   W: (length, D)

    dx = dy, dW_t = sum_b dy_bt for t < T, and 0 beyond. Kept: nothing.   Gehring et al., ICML 2017, section 3.1.
    """

    view, reads_output = True, False

    def __init__(self, length, features, init=START):
        name = "LearnedPositions"
        self.length, self.features = whole(name, "length", length), whole(name, "features", features)
        self.shapes, self.init = {"W": ((length, features), "embedding")}, {"W": init}

    def output_shape(self, shape):
        if len(shape) != 2 or shape[0] > self.length or shape[1] != self.features:
            raise UserError(
                f"LearnedPositions: a row must be (at most {self.length} positions, {self.features}), got {shape}"
            )
        return tuple(shape)

    def fans(self, name):
        return self.length, self.features

    def forward(self, x, run):
        return x + self.W[: x.shape[1]], ()

    def extend(self, x, past):
        places, end = past.places(x.shape[1])
        if end > self.length:
            raise UserError(f"LearnedPositions: there are {self.length} positions, a text would have {end}")
        return x + self.W[places]

    def extendable(self):
        """It knows the position of a further word."""

    def backward(self, dy, saved, run):
        if self.dW is not None:  # forward was: y = x + W
            self.dW[...] = 0
            dy = dy if dy.flags.c_contiguous else dy.copy()
            kernels.sum_rows(dy.reshape(dy.shape[0], -1), self.dW[: dy.shape[1]].reshape(-1))
        return dy if run.dx else None

    def __repr__(self):
        return f"LearnedPositions({self.length}, {self.features})"


class SinusoidalPositions(Layer):
    """y_bt = scale x_bt + p_t,   p_t,2i = sin(t / base^(2i/D)),   p_t,2i+1 = cos(t / base^(2i/D)).   x: (B, T, D)

    Vaswani et al., NeurIPS 2017, section 3.5, with base 10,000; there scale is sqrt(D) (section 3.4). Number by number
    p_t+k is a rotation of p_t that depends on k alone. dx = scale dy. Kept: nothing.
    """

    reads_output = False

    def __init__(self, features, scale=1.0, base=10000.0):
        self.features = whole("SinusoidalPositions", "features", features)
        self.scale = number("SinusoidalPositions", "scale", scale)
        self.base = number("SinusoidalPositions", "base", base, low=0, open_low=True)

    def output_shape(self, shape):
        if len(shape) != 2 or shape[1] != self.features:
            raise UserError(f"SinusoidalPositions: a row must be (positions, {self.features}), got {tuple(shape)}")
        return tuple(shape)

    def forward(self, x, run):
        p = sinusoids(backend.owner(x), x.shape[1], x.shape[2], self.base, x.dtype.name)
        return self.scale * x + p, ()

    def extend(self, x, past):
        places, end = past.places(x.shape[1])
        p = sinusoids(backend.owner(x), rounded(end), x.shape[2], self.base, x.dtype.name)
        return self.scale * x + p[places]

    def extendable(self):
        """It knows the position of a further word."""

    def backward(self, dy, saved, run):
        dy *= self.scale  # forward was: y = scale x + p
        return dy if run.dx else None

    def __repr__(self):
        return f"SinusoidalPositions({self.features}, scale={self.scale:g})"


@functools.lru_cache(maxsize=64)
def sinusoids(owner, length, features, base, dtype):
    """p of SinusoidalPositions, (length, features), on a device."""
    m = owner.module
    turned = angles(m, 0, length, (features + 1) // 2, base, features)
    return m.stack([m.sin(turned), m.cos(turned)], axis=2).reshape(length, -1)[:, :features].astype(dtype)
