"""The products of a linear layer, and sums over rows, on the same threads as everything else.

A BLAS library has a pool of threads of its own. These would have to be woken and put to sleep around each product. For
layers of a few hundred units that costs more than the product.
"""

from npopt import backend
from npopt.backend.once import inside, jit, once

import numba
import numpy as np

from .blocks import Product
from .products import lanes, multiply, multiply_apart, panel, transpose_part, zeros

ROWS = 32  # rows of a piece of work
DEPTH = 256  # terms of a sum that are taken at a time: a panel of them fits the first cache


@inside
def copy_panel(a, k0, depth, j0, count, out):
    """Rows k0.. and columns j0.. of a, as a panel."""
    for k in range(depth):
        source, to = a[k0 + k, j0 : j0 + count], out[k * count : (k + 1) * count]
        for j in range(count):
            to[j] = source[j]


@once
def piece(item, mine, a, b, bias, c, rows, plan):
    """One panel of columns of C, some of its rows. mine: (DEPTH wide,)"""
    a_row, a_step, transposed, pieces, width = plan
    m, n = c.shape
    depth, wide, flat = b.shape[1] if transposed else b.shape[0], 2 * width, c.reshape(-1)
    j0, number = item // pieces * wide, item % pieces
    first, last, count = m * number // pieces, m * (number + 1) // pieces, min(wide, n - j0)
    for k0 in range(0, depth, DEPTH):
        size = min(DEPTH, depth - k0)
        if transposed:
            transpose_part(b.reshape(-1), j0 * depth + k0, depth, mine, 0, count, count, size, width)
        else:
            copy_panel(b, k0, size, j0, count, mine)
        part = Product(
            left_at=k0 * a_step,
            left_jump=0,
            left_step=a_step,
            right_at=0,
            right_step=count,
            out_at=j0,
            start_at=j0,
            start_like_out=k0 > 0,
            n=count,
            times=1,
            run=size,
        )
        if k0 == 0:
            multiply(a, mine, flat, bias, rows, first, last - first, part, width)
        else:  # by itself, then added: fewer digits are lost
            multiply_apart(a, mine, flat, flat, rows, first, last - first, part, width)


@jit
def product(a, b, bias, c, panels, plan):
    """C = A B + bias, A[i, k] = a[a_row i + a_step k], B = b or b'; work is cut into panels of columns and some pieces
    of the rows each. panels: (threads, DEPTH wide)"""
    m, n = c.shape
    pieces, wide = plan[3], 2 * plan[4]
    rows = np.empty((2, m), np.int64)
    for i in range(m):
        rows[0, i], rows[1, i] = i * plan[0], i * n
    for item in numba.prange((n + wide - 1) // wide * pieces):
        piece(np.int64(item), panels[numba.get_thread_id()], a, b, bias, c, rows, plan)


def _product(a, a_row, a_step, b, transposed, bias, c):
    m, n = c.shape
    threads, wide = backend.threads(), panel(c.dtype)
    panels = -(-n // wide)
    pieces = max(1, min(-(-m // ROWS), -(-2 * threads // panels)))
    mine = backend.workspace((threads, DEPTH * wide), c.dtype)
    bias = zeros(n, c.dtype) if bias is None else bias
    product(a.reshape(-1), b, bias, c, mine, (a_row, a_step, transposed, pieces, lanes(c.dtype)))


def linear(x, w, bias, y):
    _product(x, x.shape[1], 1, w, True, bias, y)


def linear_inputs(dy, w, dx):
    _product(dy, dy.shape[1], 1, w, False, None, dx)


def linear_weights(x, dy, dw):
    _product(dy, 1, dy.shape[1], x, False, None, dw)


PARTS = 16
SMALL = 1 << 14  # numbers that one thread sums before others are awake


def sum_rows(a, out):
    if a.size <= SMALL:
        _sum_few_rows(a, out)
        return
    n, d = a.shape
    joined = 1  # narrow rows are joined: loops over 6 numbers are all overhead
    while d * joined < 64 and n % (2 * joined) == 0:
        joined *= 2
    _sum_rows(a.reshape(n // joined, d * joined), out)


@inside
def _sum_few_rows(a, out):
    n, d = a.shape
    total = np.zeros(d)
    for i in range(n):
        row = a[i]
        for j in range(d):
            total[j] += row[j]
    for j in range(d):
        out[j] = total[j]


@jit
def _sum_rows(a, out):
    n, d = a.shape
    sums = np.zeros((PARTS, d))
    for number in numba.prange(PARTS):
        part = np.int64(number)
        total = sums[part]
        for i in range(n * part // PARTS, n * (part + 1) // PARTS):
            row = a[i]
            for j in range(d):
                total[j] += row[j]
    for j in range(out.size):
        total_j = 0.0
        for part in range(PARTS):
            for k in range(j, d, out.size):
                total_j += sums[part, k]
        out[j] = total_j


def sum_by_word(dy, words, dw):
    dw[...] = 0
    _sum_by_word(dy, words, dw)


@inside
def _sum_by_word(dy, words, dw):
    for n in range(words.size):
        row, to = dy[n], dw[words[n]]
        for j in range(row.size):
            to[j] += row[j]
