"""Products with a sparse S for many rows at a time: a block of rows of x is turned, so that the numbers of one column
lie together, and each number of S is one multiply-add along them. Nothing is laid out dense.

A thread has a block of rows to itself; sums over rows are made by thread, then over threads.
"""

from npopt import backend
from npopt.backend.once import compiled, once

import numba
import numpy as np

from .products import lanes, transpose_part

WIDE = 64  # rows of a block
FEW = 8  # rows that are not worth turning
loose = dict(fastmath={"reassoc", "nsz", "contract"})  # any order of a sum: it is vectorised
spread, inside = compiled(parallel=True, **loose), compiled(**loose)


@inside
def gather(turned, values, places, first, last, base, out):
    """out_k <- sum over the numbers of a row of S of value * turned[column, k]; base: where that row begins in S."""
    for k in range(WIDE):
        out[k] = 0
    p = first
    while p + 4 <= last:
        a, b, c, d = values[p], values[p + 1], values[p + 2], values[p + 3]
        A, B = turned[places[p] - base], turned[places[p + 1] - base]
        C, D = turned[places[p + 2] - base], turned[places[p + 3] - base]
        for k in range(WIDE):
            out[k] += a * A[k] + b * B[k] + c * C[k] + d * D[k]
        p += 4
    while p < last:
        a, A = values[p], turned[places[p] - base]
        for k in range(WIDE):
            out[k] += a * A[k]
        p += 1


@inside
def add_turned(sums, back, out, width):
    """out += sums', without the columns of sums that are beyond the rows of out. back: memory"""
    count, size = out.shape
    transpose_part(sums.reshape(-1), 0, WIDE, back, 0, size, size, count, width)
    for k in range(count):
        row, more = out[k], back[k * size : (k + 1) * size]
        for i in range(size):
            row[i] += more[i]


@once(**loose)
def linear_block(first, mine, x, values, places, starts, y, width):
    """WIDE rows from `first` on. mine: memory"""
    (n, inputs), outputs = x.shape, y.shape[1]
    count = min(WIDE, n - first)
    turned = mine[: inputs * WIDE].reshape(inputs, WIDE)
    sums = mine[inputs * WIDE : (inputs + outputs) * WIDE].reshape(outputs, WIDE)
    back = mine[(inputs + outputs) * WIDE :]
    transpose_part(x.reshape(-1), first * inputs, inputs, mine, 0, WIDE, count, inputs, width)
    for i in range(outputs):
        gather(turned, values, places, starts[i], starts[i + 1], i * inputs, sums[i])
    add_turned(sums, back, y[first : first + count], width)


@spread
def _linear(x, values, places, starts, y, work, width):
    for block in numba.prange((len(x) + WIDE - 1) // WIDE):
        mine = work[numba.get_thread_id()]
        linear_block(np.int64(block) * WIDE, mine, x, values, places, starts, y, width)


@once(**loose)
def inputs_block(first, mine, dy, values, places, starts, dx, width):
    (n, outputs), inputs = dy.shape, dx.shape[1]
    count = min(WIDE, n - first)
    sums = mine[: inputs * WIDE].reshape(inputs, WIDE)
    turned = mine[inputs * WIDE : (inputs + outputs) * WIDE].reshape(outputs, WIDE)
    back = mine[(inputs + outputs) * WIDE :]
    transpose_part(dy.reshape(-1), first * outputs, outputs, turned.reshape(-1), 0, WIDE, count, outputs, width)
    sums[...] = 0
    for i in range(outputs):
        row = turned[i]
        for p in range(starts[i], starts[i + 1]):
            a, out = values[p], sums[places[p] - i * inputs]
            for k in range(WIDE):
                out[k] += a * row[k]
    add_turned(sums, back, dx[first : first + count], width)


@spread
def _inputs(dy, values, places, starts, dx, work, width):
    for block in numba.prange((len(dy) + WIDE - 1) // WIDE):
        mine = work[numba.get_thread_id()]
        inputs_block(np.int64(block) * WIDE, mine, dy, values, places, starts, dx, width)


@inside
def dot(a, b):
    """sum_k a_k b_k."""
    total = a[0] * b[0]
    for k in range(1, WIDE):
        total += a[k] * b[k]
    return total


@once(**loose)
def values_block(first, mine, x, dy, places, starts, total, width):
    """total: sums for the numbers of S, of this thread"""
    (n, inputs), outputs = x.shape, dy.shape[1]
    turned = mine[: inputs * WIDE].reshape(inputs, WIDE)
    other = mine[inputs * WIDE : (inputs + outputs) * WIDE].reshape(outputs, WIDE)
    count = min(WIDE, n - first)
    if count < WIDE:
        mine[...] = 0
    transpose_part(x.reshape(-1), first * inputs, inputs, turned.reshape(-1), 0, WIDE, count, inputs, width)
    transpose_part(dy.reshape(-1), first * outputs, outputs, other.reshape(-1), 0, WIDE, count, outputs, width)
    for i in range(outputs):
        row = other[i]
        for p in range(starts[i], starts[i + 1]):
            total[p] += dot(row, turned[places[p] - i * inputs])


@spread
def _values(x, dy, places, starts, sums, work, width):
    threads = len(sums)
    for number in numba.prange(threads):
        thread = np.int64(number)
        sums[thread] = 0
        for block in range(thread, (len(x) + WIDE - 1) // WIDE, threads):
            values_block(block * WIDE, work[thread], x, dy, places, starts, sums[thread], width)


@inside
def _few(x, values, places, starts, y):
    inputs = x.shape[1]
    for n in range(x.shape[0]):
        for i in range(y.shape[1]):
            total = y[n, i] * 0
            for p in range(starts[i], starts[i + 1]):
                total += values[p] * x[n, places[p] - i * inputs]
            y[n, i] += total


def room(a, b, more):
    """Memory for each thread's turned blocks of both matrices, and of `more` columns."""
    return backend.workspace((backend.threads(), (a.shape[1] + b.shape[1] + more) * WIDE), a.dtype)


def sparse_linear(x, values, places, starts, y):
    if len(x) < FEW:
        _few(x, values, places, starts, y)
    else:
        _linear(x, values, places, starts, y, room(x, y, y.shape[1]), lanes(x.dtype))


def sparse_inputs(dy, values, places, starts, dx):
    _inputs(dy, values, places, starts, dx, room(dy, dx, dx.shape[1]), lanes(dy.dtype))


def sparse_values(x, dy, places, starts, dvalues):
    sums = backend.workspace((backend.threads(), len(dvalues)), x.dtype)
    _values(x, dy, places, starts, sums, room(x, dy, 0), lanes(x.dtype))
    sums.sum(axis=0, out=dvalues)
