"""Numba loops in place of array code, where NumPy is clearly slow on a CPU: same arguments, same results.

Sums over rows go by blocks that fit the first cache, in the arrays' dtype, and over blocks in float64. The work is cut
into PARTS pieces whatever the number of threads, so that results do not depend on it.
"""

from npopt.backend import elementwise

import numba
import numpy as np
import scipy.special

from . import reference

PARTS = 16
jit = numba.njit(cache=True, error_model="numpy", parallel=True)


def gather_windows(x, out, stride, before):
    if not (x.flags.c_contiguous and out.flags.c_contiguous):
        return reference.gather_windows(x, out, stride, before)
    _gather_windows(x, out, stride[0], stride[1], before[0], before[1])


@jit
def _gather_windows(x, out, down, right, top, left):
    batch, height, width, c = x.shape
    _, rows, columns, kh, kw, _ = out.shape
    run = kw * c                                        # the taps of one row of a window are neighbours in x
    lines, to = x.reshape(batch * height, width * c), out.reshape(batch * rows, columns, kh, run)
    for line in numba.prange(batch * rows):
        b, i = line // rows, np.int64(line % rows)
        for a in range(kh):
            h = i * down - top + a
            if h < 0 or h >= height:
                for j in range(columns):
                    for p in range(run):
                        to[line, j, a, p] = 0
                continue
            source = lines[b * height + h]
            if run < 16:                                # short runs: along the line, one number of the window at a time
                for p in range(run):
                    e = p // c - left                   # window j reads column right j + e
                    first = min(columns, max(0, -(e // right)))
                    last = max(first, min(columns, (width - 1 - e) // right + 1))
                    target = to[line, :, a, p]
                    target[:first] = 0
                    target[last:] = 0
                    inner, numbers = target[first:last], source[right * c * first + p - left * c:]
                    for j in range(last - first):
                        inner[j] = numbers[right * c * j]
                continue
            for j in range(columns):
                w = j * right - left
                lo = min(run, max(0, -w) * c)
                hi = max(lo, min(kw, width - w) * c)
                target = to[line, j, a]
                if lo > 0:
                    target[:lo] = 0
                inner, numbers = target[lo:hi], source[w * c + lo:]
                for p in range(hi - lo):
                    inner[p] = numbers[p]
                if hi < run:
                    target[hi:] = 0


def sum_windows(columns, dx, stride, before):
    _sum_windows(columns, dx, stride[0], stride[1], before[0], before[1])


@jit
def _sum_windows(columns, dx, down, right, top, left):
    batch, height, width, c = dx.shape
    _, rows, across, kh, kw, _ = columns.shape
    run = kw * c
    lines, source = dx.reshape(batch * height, width * c), columns.reshape(batch * rows, across, kh, run)
    for line in numba.prange(batch * height):           # one line of dx is one thread's: the order of terms is fixed
        b, h, target = line // height, np.int64(line % height), lines[line]
        target[:] = 0
        for a in range(kh):
            i = (h + top - a) // down
            if i * down != h + top - a or i < 0 or i >= rows:
                continue
            for j in range(across):
                w = j * right - left
                lo, hi = max(0, -w) * c, min(kw, width - w) * c
                inner, terms = target[w * c + lo:], source[b * rows + i, j, a, lo:]
                for p in range(hi - lo):                # slices start at 0: no index can be negative, the loop is plain
                    inner[p] += terms[p]


NO_ROWS, NO_MOVES = np.empty(0, np.int64), np.empty((0, 3), np.int64)


def gather_images(data, rows, moves, scale, shift, out):
    _gather_images(data, NO_ROWS if rows is None else rows, NO_MOVES if moves is None else moves, scale, shift, out)


@jit
def _gather_images(data, rows, moves, scale, shift, out):
    batch, height, width, c = out.shape
    for b in numba.prange(batch):
        image, target = data[rows[b] if rows.size else np.int64(b)], out[b]     # prange counts unsigned
        down, right, flip = (moves[b, 0], moves[b, 1], moves[b, 2]) if moves.size else (0, 0, 0)
        for i in range(height):
            h = i + down
            for j in range(width):
                w = (width - 1 - j if flip else j) + right
                if 0 <= h < height and 0 <= w < width:
                    for k in range(c):
                        target[i, j, k] = scale[k] * image[h, w, k] + shift[k]
                else:
                    for k in range(c):
                        target[i, j, k] = shift[k]


def moments(x, mean, variance, ctx):
    _moments(x, mean, variance)


@jit
def _moments(x, mean, variance):
    n, d = x.shape
    block = max(1, 4096 // d)
    means, squares, counts = np.zeros((PARTS, d)), np.zeros((PARTS, d)), np.zeros(PARTS)
    for part in numba.prange(PARTS):
        first, last = n * part // PARTS, n * (part + 1) // PARTS
        m, s = np.empty(d, x.dtype), np.empty(d, x.dtype)
        total, square, seen = means[part], squares[part], 0.0
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
            count = float(hi - lo)                      # join the blocks: Chan, Golub & LeVeque 1979
            for j in range(d):
                step = m[j] - total[j]
                total[j] += step * (count / (seen + count))
                square[j] += s[j] + step * step * (seen * count / (seen + count))
            seen += count
        counts[part] = seen
    for j in range(d):
        total, square, seen = 0.0, 0.0, 0.0
        for part in range(PARTS):
            count = counts[part]
            if count > 0:
                step = means[part, j] - total
                total += step * (count / (seen + count))
                square += squares[part, j] + step * step * (seen * count / (seen + count))
                seen += count
        mean[j] = total
        variance[j] = square / n


def normalise(x, mean, scale, offset, y):
    _normalise(x, mean, scale, offset, y)


@jit
def _normalise(x, mean, scale, offset, y):
    n, d = x.shape
    for part in numba.prange(PARTS):
        for i in range(n * part // PARTS, n * (part + 1) // PARTS):
            for j in range(d):
                y[i, j] = (x[i, j] - mean[j]) * scale[j] + offset[j]


def normalise_sums(x, mean, r, dy, da, db, ctx):
    _normalise_sums(x, mean, r, dy, da, db)


@jit
def _normalise_sums(x, mean, r, dy, da, db):
    n, d = x.shape
    block = max(1, 4096 // d)
    products, sums = np.zeros((PARTS, d)), np.zeros((PARTS, d))
    for part in numba.prange(PARTS):
        first, last = n * part // PARTS, n * (part + 1) // PARTS
        p, s = np.empty(d, x.dtype), np.empty(d, x.dtype)
        for lo in range(first, last, block):
            p[:] = 0
            s[:] = 0
            for i in range(lo, min(lo + block, last)):
                for j in range(d):
                    p[j] += (x[i, j] - mean[j]) * dy[i, j]
                    s[j] += dy[i, j]
            for j in range(d):
                products[part, j] += p[j]
                sums[part, j] += s[j]
    for j in range(d):
        product, total = 0.0, 0.0
        for part in range(PARTS):
            product += products[part, j]
            total += sums[part, j]
        da[j] = product * r[j]
        db[j] = total


def normalise_backward(x, mean, scale, dy, slope, offset, dx, ctx):
    _normalise_backward(x, mean, scale, dy, slope, offset, dx)


@jit
def _normalise_backward(x, mean, scale, dy, slope, offset, dx):
    n, d = x.shape
    for part in numba.prange(PARTS):
        for i in range(n * part // PARTS, n * (part + 1) // PARTS):
            for j in range(d):
                dx[i, j] = scale[j] * (dy[i, j] - offset[j] - (x[i, j] - mean[j]) * slope[j])


@elementwise
def _relu_backward(dx, dy, y):
    dx = dy if y > 0 else 0.0
    return dx


def relu_backward(y, dy, dx, ctx):
    _relu_backward(dx, dy, y)


def max_pool(x, y, index, kernel, stride, padding, ctx):
    _max_pool(x, y, index, *kernel, *stride, *padding)


@jit
def _max_pool(x, y, index, kh, kw, down, right, top, left):
    _, height, width, c = x.shape
    batch, rows, columns, _ = y.shape
    for line in numba.prange(batch * rows):
        b, i = line // rows, line % rows
        for j in range(columns):
            best, which = y[b, i, j], index[b, i, j]
            best[:] = -np.inf
            which[:] = 0
            for a in range(max(0, top - i * down), min(kh, height + top - i * down)):
                for e in range(max(0, left - j * right), min(kw, width + left - j * right)):
                    source, tap = x[b, i * down - top + a, j * right - left + e], np.uint8(a * kw + e)
                    for k in range(c):
                        better = source[k] > best[k] or source[k] != source[k]              # NaN stays
                        which[k] = tap if better else which[k]
                        best[k] = source[k] if better else best[k]


def max_pool_backward(dy, index, dx, kernel, stride, padding, ctx):
    _max_pool_backward(dy, index, dx, kernel[1], *stride, *padding)


@jit
def _max_pool_backward(dy, index, dx, kw, down, right, top, left):
    batch, rows, columns, c = dy.shape
    for b in numba.prange(batch):                       # one image is one thread's: the order of additions is fixed
        dx[b] = 0
        for i in range(rows):
            for j in range(columns):
                for k in range(c):
                    tap = index[b, i, j, k]
                    dx[b, i * down - top + tap // kw, j * right - left + tap % kw, k] += dy[b, i, j, k]


def erf(x):
    scipy.special.erf(x, out=x)
