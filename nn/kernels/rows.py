"""Norms of rows on a CPU: x is read once from memory, and once more from the cache; dx takes the place of dy.

Sums along a row run in partial sums of the arrays' dtype, one a lane. Sums over rows go by blocks of BLOCK rows in that
dtype, and over blocks in float64, in PARTS pieces whatever the number of threads.
"""

from npopt.backend.once import compiled, jit, once

import numba
import numpy as np

PARTS, BLOCK = 16, 32
sums = compiled(forceinline=True, fastmath={"reassoc", "nsz", "contract"})  # the order of terms is free: vectors


@sums
def mean_of(x):
    total = x.dtype.type(0)
    for j in range(x.size):
        total += x[j]
    return total / x.dtype.type(x.size)


@sums
def mean_square(x, mean):
    total = x.dtype.type(0)
    for j in range(x.size):
        total += (x[j] - mean) * (x[j] - mean)
    return total / x.dtype.type(x.size)


@sums
def means_of_gradient(x, a, mean, r, dy):
    """(mean h, mean(h xh)), h = a dy, xh = (x - mean) r."""
    plain = product = x.dtype.type(0)
    for j in range(x.size):
        h = a[j] * dy[j]
        plain += h
        product += h * (x[j] - mean)
    size = x.dtype.type(x.size)
    return plain / size, product * r / size


@once
def forward_part(part, x, a, b, eps, y, m, r, centred):
    one, n = x.dtype.type(1), x.shape[0]
    for i in range(n * part // PARTS, n * (part + 1) // PARTS):
        row, to = x[i], y[i]
        mean = mean_of(row) if centred else x.dtype.type(0)
        scale = one / np.sqrt(mean_square(row, mean) + x.dtype.type(eps))
        r[i] = scale
        if centred:
            m[i] = mean
            for j in range(row.size):
                to[j] = (row[j] - mean) * scale * a[j] + b[j]
        else:
            for j in range(row.size):
                to[j] = row[j] * scale * a[j]


@jit
def _forward(x, a, b, eps, y, m, r, centred):
    for part in numba.prange(PARTS):
        forward_part(np.int64(part), x, a, b, eps, y, m, r, centred)


@once
def backward_part(part, x, a, seen, dy, dx, products, totals, plan):
    """products, totals: (d,), of this part   seen: (m, r)"""
    (n, d), (m, r), (centred, wanted) = x.shape, seen, plan
    first, last = n * part // PARTS, n * (part + 1) // PARTS
    p, s = np.empty(d, x.dtype), np.empty(d, x.dtype)
    for lo in range(first, last, BLOCK):
        p[:] = 0
        s[:] = 0
        for i in range(lo, min(lo + BLOCK, last)):
            row, up, to, scale = x[i], dy[i], dx[i], r[i]
            mean = m[i] if centred else x.dtype.type(0)
            plain, product = means_of_gradient(row, a, mean, scale, up)
            plain = plain if centred else x.dtype.type(0)
            for j in range(d):
                xh = (row[j] - mean) * scale
                p[j] += up[j] * xh
                s[j] += up[j]
                if wanted:
                    to[j] = scale * (a[j] * up[j] - plain - xh * product)
        for j in range(d):
            products[j] += p[j]
            totals[j] += s[j]


@jit
def _backward(x, a, m, r, dy, dx, da, db, plan):
    """plan: (with a mean, dx is wanted)"""
    d = x.shape[1]
    products, totals = np.zeros((PARTS, d)), np.zeros((PARTS, d))
    for number in numba.prange(PARTS):
        part = np.int64(number)
        backward_part(part, x, a, (m, r), dy, dx, products[part], totals[part], plan)
    for j in range(d):
        product = total = 0.0
        for part in range(PARTS):
            product += products[part, j]
            total += totals[part, j]
        da[j] = product
        if plan[0]:
            db[j] = total


def layer_norm(x, a, b, eps, y, m, r):
    _forward(x, a, b, eps, y, m, r, True)


def layer_norm_backward(x, a, m, r, dy, dx, da, db):
    da, db = (np.empty(a.shape, a.dtype) if v is None else v for v in (da, db))
    _backward(x, a, m, r, dy, dy if dx is None else dx, da, db, (True, dx is not None))


def rms_norm(x, a, eps, y, r):
    _forward(x, a, a, eps, y, r, r, False)


def rms_norm_backward(x, a, r, dy, dx, da):
    da = np.empty(a.shape, a.dtype) if da is None else da
    _backward(x, a, r, r, dy, dy if dx is None else dx, da, da, (False, dx is not None))


@once
def rotate_heads(rows, c, s, adjacent):
    """rows: (heads, d), of one word   c, s: its cosines and sines"""
    half = c.size
    for h in range(len(rows)):
        row = rows[h]
        if adjacent:
            for i in range(half):
                u, v = row[2 * i], row[2 * i + 1]
                row[2 * i], row[2 * i + 1] = u * c[i] - v * s[i], u * s[i] + v * c[i]
        else:
            one, two = row[:half], row[half : 2 * half]
            for i in range(half):
                u, v = one[i], two[i]
                one[i], two[i] = u * c[i] - v * s[i], u * s[i] + v * c[i]


@jit
def _rotate(x, cos, sin, adjacent):
    batch, times, _, _ = x.shape
    for number in numba.prange(batch * times):
        b, t = np.int64(number) // times, np.int64(number) % times
        rotate_heads(x[b, t], cos[t], sin[t], adjacent)


def rotate(x, cos, sin, adjacent):
    _rotate(x, cos, sin, adjacent)
