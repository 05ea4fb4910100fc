"""Batch norm in as few passes over memory as it has: two forward (moments, then y), two backward (sums, then dx).

Sums over rows go by blocks that fit the first cache, in the arrays' dtype, and over blocks in float64. The work is cut
into PARTS pieces whatever the number of threads. So results do not depend on that number. Where columns are few, some
rows are taken as one: a sum of 16 columns alone would wait for itself in every row.
"""

from npopt.backend.once import jit, once

import numba
import numpy as np

PARTS = 16


WIDE = 64  # columns of rows taken as one, at most


def together(x):
    """How many rows of x to take as one: a power of two that divides their number."""
    n, d = x.shape
    return max(1, min(n & -n, 1 << (WIDE // d).bit_length() - 1)) if d <= WIDE else 1


def wider(f, *arrays):
    """The arrays with f rows as one; those of one axis are repeated."""
    if f == 1:
        return arrays
    return [np.tile(a, f) if a.ndim == 1 else a.reshape(len(a) // f, -1) for a in arrays]


def moments(x, mean, variance):
    _moments(*wider(together(x), x), mean, variance)


@once
def moments_of_part(part, x, total, square, counts):
    """Mean and sum of squares of some rows, into total and square, (d,), and their number into counts."""
    n, d = x.shape
    block, seen = max(1, 4096 // d), 0.0
    first, last = n * part // PARTS, n * (part + 1) // PARTS
    m, s = np.empty(d, x.dtype), np.empty(d, x.dtype)
    for lo in range(first, last, block):
        hi = min(lo + block, last)
        m[:] = 0
        s[:] = 0
        for i in range(lo, hi):
            for j in range(d):
                m[j] += x[i, j]
        for j in range(d):
            m[j] /= x.dtype.type(hi - lo)
        for i in range(lo, hi):
            for j in range(d):
                s[j] += (x[i, j] - m[j]) * (x[i, j] - m[j])
        count = float(hi - lo)  # join the blocks: Chan, Golub & LeVeque 1979
        for j in range(d):
            step = m[j] - total[j]
            total[j] += step * (count / (seen + count))
            square[j] += s[j] + step * step * (seen * count / (seen + count))
        seen += count
    counts[part] = seen


@jit
def _moments(x, mean, variance):
    d, columns = x.shape[1], mean.size
    means, squares, counts = np.zeros((PARTS, d)), np.zeros((PARTS, d)), np.zeros(PARTS)
    for number in numba.prange(PARTS):
        part = np.int64(number)
        moments_of_part(part, x, means[part], squares[part], counts)
    for j in range(columns):
        total, square, seen = 0.0, 0.0, 0.0
        for part in range(PARTS):
            count = counts[part]
            if count > 0:
                for k in range(j, d, columns):
                    step = means[part, k] - total
                    total += step * (count / (seen + count))
                    square += squares[part, k] + step * step * (seen * count / (seen + count))
                    seen += count
        mean[j] = total
        variance[j] = square / seen


def normalise(x, mean, scale, offset, skip, rectify, y):
    _normalise(x, mean, scale, offset, x if skip is None else skip, skip is not None, rectify, y)


@once
def normalise_part(part, x, mean, scale, offset, skip, add, rectify, y):
    n, d = x.shape
    floor = x.dtype.type(0 if rectify else -np.inf)
    for i in range(n * part // PARTS, n * (part + 1) // PARTS):
        if add:
            for j in range(d):
                v = (x[i, j] - mean[j]) * scale[j] + offset[j] + skip[i, j]
                y[i, j] = floor if v < floor else v  # NaN stays
        else:
            for j in range(d):
                v = (x[i, j] - mean[j]) * scale[j] + offset[j]
                y[i, j] = floor if v < floor else v


@jit
def _normalise(x, mean, scale, offset, skip, add, rectify, y):
    for part in numba.prange(PARTS):
        normalise_part(np.int64(part), x, mean, scale, offset, skip, add, rectify, y)


def normalise_sums(x, mean, r, dy, y, da, db):
    x, mean, dy, mask = wider(together(x), x, mean, dy, dy if y is None else y)
    _normalise_sums(x, mean, r, dy, mask, y is not None, da, db)


@once
def sums_of_part(part, x, mean, dy, y, rectify, products, sums):
    """products, sums: (d,), of this part"""
    n, d = x.shape
    block, zero = max(1, 4096 // d), x.dtype.type(0)
    first, last = n * part // PARTS, n * (part + 1) // PARTS
    p, s = np.empty(d, x.dtype), np.empty(d, x.dtype)
    for lo in range(first, last, block):
        p[:] = 0
        s[:] = 0
        for i in range(lo, min(lo + block, last)):
            if rectify:
                for j in range(d):
                    v = dy[i, j] if y[i, j] > 0 else zero
                    dy[i, j] = v
                    p[j] += (x[i, j] - mean[j]) * v
                    s[j] += v
            else:
                for j in range(d):
                    p[j] += (x[i, j] - mean[j]) * dy[i, j]
                    s[j] += dy[i, j]
        for j in range(d):
            products[j] += p[j]
            sums[j] += s[j]


@jit
def _normalise_sums(x, mean, r, dy, y, rectify, da, db):
    d = x.shape[1]
    products, sums = np.zeros((PARTS, d)), np.zeros((PARTS, d))
    for number in numba.prange(PARTS):
        part = np.int64(number)
        sums_of_part(part, x, mean, dy, y, rectify, products[part], sums[part])
    for j in range(da.size):
        product, total = 0.0, 0.0
        for part in range(PARTS):
            for k in range(j, d, da.size):
                product += products[part, k]
                total += sums[part, k]
        da[j] = product * r[j]
        db[j] = total


def normalise_backward(x, mean, scale, dy, slope, offset, dx):
    _normalise_backward(x, mean, scale, dy, slope, offset, dx)


@once
def backward_part(part, x, mean, scale, dy, slope, offset, dx):
    n, d = x.shape
    for i in range(n * part // PARTS, n * (part + 1) // PARTS):
        for j in range(d):
            dx[i, j] = scale[j] * (dy[i, j] - offset[j] - (x[i, j] - mean[j]) * slope[j])


@jit
def _normalise_backward(x, mean, scale, dy, slope, offset, dx):
    for part in numba.prange(PARTS):
        backward_part(np.int64(part), x, mean, scale, dy, slope, offset, dx)
