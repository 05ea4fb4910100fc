"""Activations and gates on a CPU: one pass over memory each, in loops that make vectors in float32.

P of GELU is e^(-z^2/2) R(z) for x = -z <= 0, and 1 less that of -x for x > 0. R(z) = erfcx(z/sqrt 2)/2 is smooth: MILLS
over BELOW, the quotient of polynomials that a weighted least squares iteration found on [0, 14], is it to 6e-9 of its
value. Beyond 14 the exponential is 0 in float32. So P has float32's digits in its tails, too.
"""

import math
from math import pi, sqrt

from npopt.backend.once import inside, jit, once

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from .functions import exp
from .matrices import SMALL
from .reference_gates import CUBE, KINDS

PARTS = 16
RELU, SIGMOID, SILU, GELU, TANH = map(KINDS.index, ("relu", "sigmoid", "silu", "gelu", "gelu-tanh"))
MILLS = (5.000000028e-01, 4.372506024e-01, 1.824616085e-01, 4.037248083e-02, 4.077599569e-03)
BELOW = (1.672386160e00, 1.199289795e00, 4.674285159e-01, 1.012056120e-01, 1.022089762e-02)
END = 14.0
INLINE = {"forceinline": True}  # a loop with a call in it makes no vectors


def constants(x, *numbers):
    """The numbers in the type of x, where numba compiles for it."""
    return map(np.float32 if x == types.float32 else np.float64, numbers)


def logistic(x):
    """1/(1 + e^(-x)) of one number."""


def normal(x):
    """(P(x), P'(x)) of one number, P the standard normal distribution function."""


def relu(x):
    """(f(x), f'(x)) of one number, as all that follow."""


def sigmoid(x): ...


def silu(x): ...


def gelu(x): ...


def gelu_tanh(x): ...


@overload(logistic, jit_options=INLINE)
def compiled_logistic(x):
    zero, one = constants(x, 0, 1)

    def formula(x):
        u = exp(-abs(x))
        return (one if x >= zero else u) / (one + u)

    return formula


@overload(normal, jit_options=INLINE)
def compiled_normal(x):
    zero, one, half, root, density = constants(x, 0, 1, 0.5, sqrt(0.5), 1 / sqrt(2 * pi))
    if x != types.float32:
        return lambda x: (half * math.erfc(-x * root), density * math.exp(-half * x * x))
    a0, a1, a2, a3, a4, b1, b2, b3, b4, b5, end = constants(x, *MILLS, *BELOW, END)

    def quotient(x):
        z = min(abs(x), end)
        e = exp(-half * z * z)
        r = a0 + z * (a1 + z * (a2 + z * (a3 + z * a4)))
        q = e * r / (one + z * (b1 + z * (b2 + z * (b3 + z * (b4 + z * b5)))))
        return one - q if x > zero else q, density * e

    return quotient


@overload(relu, jit_options=INLINE)
def compiled_relu(x):
    zero, one = constants(x, 0, 1)
    return lambda x: (zero if x < zero else x, one if x > zero else zero)


@overload(sigmoid, jit_options=INLINE)
def compiled_sigmoid(x):
    (one,) = constants(x, 1)

    def formula(x):
        s = logistic(x)
        return s, s * (one - s)

    return formula


@overload(silu, jit_options=INLINE)
def compiled_silu(x):
    (one,) = constants(x, 1)

    def formula(x):
        s = logistic(x)
        return x * s, s * (one + x * (one - s))

    return formula


@overload(gelu, jit_options=INLINE)
def compiled_gelu(x):
    def formula(x):
        p, slope = normal(x)
        return x * p, p + x * slope

    return formula


@overload(gelu_tanh, jit_options=INLINE)
def compiled_gelu_tanh(x):
    one, scale, cube, three = constants(x, 1, 2 * sqrt(2 / pi), CUBE, 3 * CUBE)

    def formula(x):
        s = x * x
        p = logistic(scale * x * (one + cube * s))
        return x * p, p + x * p * (one - p) * (scale * (one + three * s))

    return formula


@inside
def _activate(x, y, kind):
    """y = f(x); y may be x."""
    if kind == RELU:
        for j in range(x.size):
            y[j] = relu(x[j])[0]
    elif kind == SIGMOID:
        for j in range(x.size):
            y[j] = sigmoid(x[j])[0]
    elif kind == SILU:
        for j in range(x.size):
            y[j] = silu(x[j])[0]
    elif kind == GELU:
        for j in range(x.size):
            y[j] = gelu(x[j])[0]
    elif kind == TANH:
        for j in range(x.size):
            y[j] = gelu_tanh(x[j])[0]
    else:
        for j in range(x.size):
            y[j] = x[j]


@inside
def _activate_backward(x, dx, kind):
    """dx <- f'(x) dx"""
    if kind == RELU:
        for j in range(x.size):
            dx[j] *= relu(x[j])[1]
    elif kind == SIGMOID:
        for j in range(x.size):
            dx[j] *= sigmoid(x[j])[1]
    elif kind == SILU:
        for j in range(x.size):
            dx[j] *= silu(x[j])[1]
    elif kind == GELU:
        for j in range(x.size):
            dx[j] *= gelu(x[j])[1]
    elif kind == TANH:
        for j in range(x.size):
            dx[j] *= gelu_tanh(x[j])[1]


@inside
def _gate(a, b, y, kind):
    _activate(a, y, kind)
    for j in range(b.size):
        y[j] *= b[j]


@inside
def _gate_backward(a, b, dy, da, kind):
    """da = f'(a) b dy,   dy <- f(a) dy, CHUNK numbers at a time, so that these passes are in the cache."""
    f = np.empty(min(CHUNK, a.size), a.dtype)
    for first in range(0, a.size, CHUNK):
        last = min(first + CHUNK, a.size)
        part, slope, up, other = a[first:last], da[first:last], dy[first:last], b[first:last]
        for j in range(last - first):
            slope[j] = other[j] * up[j]
        _activate_backward(part, slope, kind)
        _activate(part, f[: last - first], kind)
        for j in range(last - first):
            up[j] *= f[j]


CHUNK = 2048


@once
def part_of(lo, hi, which, a, b, c, d, kind):
    if which == 0:
        _activate(a[lo:hi], b[lo:hi], kind)
    elif which == 1:
        _activate_backward(a[lo:hi], b[lo:hi], kind)
    elif which == 2:
        _gate(a[lo:hi], b[lo:hi], c[lo:hi], kind)
    else:
        _gate_backward(a[lo:hi], b[lo:hi], c[lo:hi], d[lo:hi], kind)


@jit
def _spread(which, a, b, c, d, kind):
    """One of the four on PARTS pieces of flat arrays; what it does not take is a again."""
    n = a.size
    for number in numba.prange(PARTS):
        part = np.int64(number)
        part_of(n * part // PARTS, n * (part + 1) // PARTS, which, a, b, c, d, kind)


def activate(x, y, kind):
    a, b, number = x.reshape(-1), y.reshape(-1), KINDS.index(kind)
    if x.size > SMALL:
        _spread(0, a, b, a, a, number)
    else:
        _activate(a, b, number)


def activate_backward(x, dy, dx, kind):
    if dx is not dy:
        dx[...] = dy
    a, b, number = x.reshape(-1), dx.reshape(-1), KINDS.index(kind)
    if x.size > SMALL:
        _spread(1, a, b, a, a, number)
    else:
        _activate_backward(a, b, number)


def gate(a, b, y, kind):
    flat, number = [v.reshape(-1) for v in (a, b, y)], KINDS.index(kind)
    if a.size > SMALL:
        _spread(2, *flat, flat[0], number)
    else:
        _gate(*flat, number)


def gate_backward(a, b, dy, da, db, kind):
    if db is not dy:
        db[...] = dy
    flat, number = [v.reshape(-1) for v in (a, b, db, da)], KINDS.index(kind)
    if a.size > SMALL:
        _spread(3, *flat, number)
    else:
        _gate_backward(*flat, number)
