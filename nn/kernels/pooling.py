"""Maximum over windows, with the number of the winning tap kept for the way back."""

from npopt.backend.once import jit, once

import numba
import numpy as np

from . import blocks

there2, back2 = blocks.pool_pixel((2, 2))


def apart(kernel, stride, padding):
    """The usual windows: 2 x 2, side by side."""
    return tuple(kernel) == tuple(stride) == (2, 2) and tuple(padding) == (0, 0)


def max_pool(x, y, index, kernel, stride, padding):
    if apart(kernel, stride, padding):
        _max_pool2(x, y, index)
    else:
        _max_pool(x, y, index, (*kernel, *stride, *padding))


@once(bare=True)
def line2(line, x, y, index, shape):
    height, width, c, rows, columns = shape
    at = (line // rows * height + line % rows * 2) * width * c
    for j in range(columns):
        there2(x, (at + 2 * j * c, width * c, c), y, (line * columns + j) * c, index, c)


@jit
def _max_pool2(x, y, index):
    (_, height, width, c), (batch, rows, columns, _) = x.shape, y.shape
    flat, to, which = x.reshape(-1), y.reshape(-1), index.reshape(-1)
    for line in numba.prange(batch * rows):
        line2(np.int64(line), flat, to, which, (height, width, c, rows, columns))


@once
def pool_line(image, i, y, index, plan):
    """Line i of one image; y, index: (columns, C)."""
    kh, kw, down, right, top, left = plan
    height, width, c = image.shape
    for j in range(len(y)):
        best, which = y[j], index[j]
        best[:] = -np.inf
        which[:] = max(0, top - i * down) * kw + max(0, left - j * right)  # the first tap that is inside
        for a in range(max(0, top - i * down), min(kh, height + top - i * down)):
            for e in range(max(0, left - j * right), min(kw, width + left - j * right)):
                source, tap = image[i * down - top + a, j * right - left + e], np.uint8(a * kw + e)
                for k in range(c):
                    better = source[k] > best[k] or source[k] != source[k]  # NaN stays
                    which[k] = tap if better else which[k]
                    best[k] = source[k] if better else best[k]


@jit
def _max_pool(x, y, index, plan):
    batch, rows, _, _ = y.shape
    for line in numba.prange(batch * rows):
        b, i = np.int64(line) // rows, np.int64(line) % rows
        pool_line(x[b], i, y[b, i], index[b, i], plan)


def max_pool_tangent(rx, index, ry, kernel, stride, padding):
    _max_pool_tangent(rx, index, ry, (kernel[1], *stride, *padding))


@once
def tangent_line(image, i, index, ry, plan):
    kw, down, right, top, left = plan
    columns, c = ry.shape
    for j in range(columns):
        for k in range(c):
            tap = np.int64(index[j, k])
            ry[j, k] = image[i * down - top + tap // kw, j * right - left + tap % kw, k]


@jit
def _max_pool_tangent(rx, index, ry, plan):
    batch, rows, _, _ = ry.shape
    for line in numba.prange(batch * rows):
        b, i = np.int64(line) // rows, np.int64(line) % rows
        tangent_line(rx[b], i, index[b, i], ry[b, i], plan)


def max_pool_backward(dy, index, dx, kernel, stride, padding):
    if apart(kernel, stride, padding):
        _max_pool_backward2(dy, index, dx)
    else:
        _max_pool_backward(dy, index, dx, (kernel[1], *stride, *padding))


@once(bare=True)
def line2_backward(line, dx, dy, index, shape):
    height, width, c, rows, columns = shape
    b, i = line // rows, line % rows
    at = (b * height + i * 2) * width * c
    for j in range(columns):
        back2(dx, (at + 2 * j * c, width * c, c), dy, (line * columns + j) * c, index, c)
    if width % 2:
        for k in range(c):
            dx[at + (width - 1) * c + k] = 0
            dx[at + (2 * width - 1) * c + k] = 0
    if height % 2 and i == rows - 1:
        for k in range(width * c):
            dx[at + 2 * width * c + k] = 0


@jit
def _max_pool_backward2(dy, index, dx):
    (_, height, width, c), (batch, rows, columns, _) = dx.shape, dy.shape
    flat, of, which = dx.reshape(-1), dy.reshape(-1), index.reshape(-1)
    for line in numba.prange(batch * rows):
        line2_backward(np.int64(line), flat, of, which, (height, width, c, rows, columns))


@once
def image_backward(dy, index, dx, plan):
    """One image is one thread's: the order of additions is fixed."""
    kw, down, right, top, left = plan
    rows, columns, c = dy.shape
    dx[...] = 0
    for i in range(rows):
        for j in range(columns):
            for k in range(c):
                tap = np.int64(index[i, j, k])
                dx[i * down - top + tap // kw, j * right - left + tap % kw, k] += dy[i, j, k]


@jit
def _max_pool_backward(dy, index, dx, plan):
    for number in numba.prange(len(dy)):
        b = np.int64(number)
        image_backward(dy[b], index[b], dx[b], plan)
