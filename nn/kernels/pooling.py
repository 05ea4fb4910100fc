"""Maximum over windows, with the number of the winning tap kept for the way back."""

import numba
import numpy as np

from . import blocks
from .products import jit

there2, back2 = blocks.pool_pixel((2, 2))


def apart(kernel, stride, padding):
    """The usual windows: 2 x 2, side by side."""
    return tuple(kernel) == tuple(stride) == (2, 2) and tuple(padding) == (0, 0)


def max_pool(x, y, index, kernel, stride, padding):
    if apart(kernel, stride, padding):
        _max_pool2(x, y, index)
    else:
        _max_pool(x, y, index, *kernel, *stride, *padding)


@jit
def _max_pool2(x, y, index):
    _, height, width, c = x.shape
    batch, rows, columns, _ = y.shape
    flat, to, which = x.reshape(-1), y.reshape(-1), index.reshape(-1)
    for number in numba.prange(batch * rows):
        line = np.int64(number)
        at = (line // rows * height + line % rows * 2) * width * c
        for j in range(columns):
            there2(flat, (at + 2 * j * c, width * c, c), to, (line * columns + j) * c, which, c)


@jit
def _max_pool(x, y, index, kh, kw, down, right, top, left):
    _, height, width, c = x.shape
    batch, rows, columns, _ = y.shape
    for line in numba.prange(batch * rows):
        b, i = line // rows, line % rows
        for j in range(columns):
            best, which = y[b, i, j], index[b, i, j]
            best[:] = -np.inf
            which[:] = max(0, top - i * down) * kw + max(0, left - j * right)  # the first tap that is inside
            for a in range(max(0, top - i * down), min(kh, height + top - i * down)):
                for e in range(max(0, left - j * right), min(kw, width + left - j * right)):
                    source, tap = x[b, i * down - top + a, j * right - left + e], np.uint8(a * kw + e)
                    for k in range(c):
                        better = source[k] > best[k] or source[k] != source[k]  # NaN stays
                        which[k] = tap if better else which[k]
                        best[k] = source[k] if better else best[k]


def max_pool_tangent(rx, index, ry, kernel, stride, padding):
    _max_pool_tangent(rx, index, ry, kernel[1], *stride, *padding)


@jit
def _max_pool_tangent(rx, index, ry, kw, down, right, top, left):
    batch, rows, columns, c = ry.shape
    for line in numba.prange(batch * rows):
        b, i = line // rows, line % rows
        for j in range(columns):
            for k in range(c):
                tap = index[b, i, j, k]
                ry[b, i, j, k] = rx[b, i * down - top + tap // kw, j * right - left + tap % kw, k]


def max_pool_backward(dy, index, dx, kernel, stride, padding):
    if apart(kernel, stride, padding):
        _max_pool_backward2(dy, index, dx)
    else:
        _max_pool_backward(dy, index, dx, kernel[1], *stride, *padding)


@jit
def _max_pool_backward2(dy, index, dx):
    _, height, width, c = dx.shape
    batch, rows, columns, _ = dy.shape
    flat, source, which = dx.reshape(-1), dy.reshape(-1), index.reshape(-1)
    for number in numba.prange(batch * rows):
        line = np.int64(number)
        b, i = line // rows, line % rows
        at = (b * height + i * 2) * width * c
        for j in range(columns):
            back2(flat, (at + 2 * j * c, width * c, c), source, (line * columns + j) * c, which, c)
        if width % 2:
            dx[b, 2 * i : 2 * i + 2, width - 1] = 0
        if height % 2 and i == rows - 1:
            dx[b, height - 1] = 0


@jit
def _max_pool_backward(dy, index, dx, kw, down, right, top, left):
    batch, rows, columns, c = dy.shape
    for b in numba.prange(batch):  # one image is one thread's: the order of additions is fixed
        dx[b] = 0
        for i in range(rows):
            for j in range(columns):
                for k in range(c):
                    tap = index[b, i, j, k]
                    dx[b, i * down - top + tap // kw, j * right - left + tap % kw, k] += dy[b, i, j, k]
