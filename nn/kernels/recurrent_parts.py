"""What the recurrent loops of recurrent.py are made of: tanh in vectors, U in panels, products of a block of units."""

from npopt import backend
from npopt.backend.once import inside, jit, once

import numba
import numpy as np
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from . import simd
from .blocks import Product, block_product
from .functions import tanh
from .products import panel, transpose_part

# Blocks of two vectors of columns and 10 rows of 32 registers (6 of 16) suit a batch of 20 better than those of 8 do.
ROWS, TALL = simd.ROWS, simd.ROWS + 2
whole, part = block_product(2, False), block_product(2, True)
tall_whole, tall_part = block_product(2, False, height=TALL), block_product(2, True, height=TALL)


def wide_of(a):
    """Columns of a panel of numbers like a's, a constant of the compiled code."""
    return panel(a.dtype)


@overload(wide_of, inline="always")
def compiled_wide_of(a):
    wide = panel(as_dtype(a.dtype))
    return lambda a: wide


@inside
def logistic_in_place(x):
    half = x.dtype.type(0.5)
    for j in range(x.size):
        x[j] = half + half * tanh(half * x[j])


@inside
def tanh_in_place(x):
    for j in range(x.size):
        x[j] = tanh(x[j])


@once
def pack_block(block, u, gates, panels):
    n, wide, source, to = u.shape[1], wide_of(u), u.reshape(-1), panels.reshape(-1)
    first = block * wide
    count = min(wide, n - first)
    for gate in range(gates):
        at = (block * gates + gate) * n * wide
        panels[block, gate, :, count:] = 0
        transpose_part(source, (gate * n + first) * n, n, to, at, wide, count, n, wide // 2)


@jit
def pack(u, gates, panels):
    """The transposition of U, (gates H, H), for a block of units after the other: for each gate H rows of `wide`
    columns. The last block's columns are filled up with zeros."""
    for block in numba.prange((u.shape[1] + wide_of(u) - 1) // wide_of(u)):
        pack_block(np.int64(block), u, gates, panels)


@once
def pack_block_back(first, u, to):
    count = min(wide_of(u), u.shape[1] - first)
    to[:, count:] = 0
    for k in range(len(u)):
        row, line = u[k, first : first + count], to[k]
        for j in range(count):
            line[j] = row[j]


@jit
def pack_back(u, panels):
    """U itself, all its rows, for a block of columns after the other."""
    for number in numba.prange((u.shape[1] + wide_of(u) - 1) // wide_of(u)):
        block = np.int64(number)
        pack_block_back(block * wide_of(u), u, panels[block])


@once(bare=True)
def multiply(left, right, out, begin, rows, plan):
    """C = S + A B for rows.shape[1] rows and one panel, in blocks of the height that wastes less."""
    m, wide = rows.shape[1], wide_of(out)
    tall = (m + TALL - 1) // TALL * TALL <= (m + ROWS - 1) // ROWS * ROWS
    for i in range(0, m, TALL if tall else ROWS):
        if tall and plan.n == wide:
            tall_whole(left, right, out, begin, rows, i, min(TALL, m - i), plan)
        elif tall:
            tall_part(left, right, out, begin, rows, i, min(TALL, m - i), plan)
        elif plan.n == wide:
            whole(left, right, out, begin, rows, i, min(ROWS, m - i), plan)
        else:
            part(left, right, out, begin, rows, i, min(ROWS, m - i), plan)


@inside
def forward_product(seen, panels, out, begin, rows, at, sizes):
    """out[out_at + rows[1, b] + j] = S + sum_k seen[left_at + b n + k] U[gate, first + j, k], j < count. S: what stands
    there, or begin[begin_at + j] if begin_at is not negative."""
    (left_at, out_at, begin_at), (block, gate, count, n, gates) = at, sizes
    wide = wide_of(out)
    plan = Product(
        left_at=left_at,
        left_jump=0,
        left_step=1,
        right_at=(block * gates + gate) * n * wide,
        right_step=wide,
        out_at=out_at,
        start_at=out_at if begin_at < 0 else begin_at,
        start_like_out=begin_at < 0,
        n=count,
        times=1,
        run=n,
    )
    multiply(seen, panels, out, begin, rows, plan)


@inside
def backward_product(da, panels, out, begin, rows, at, sizes):
    """out[first + b n + j] = sum_k da[left_at + rows[0, b] + k] U[k, first + j], j < count; begin: zeros."""
    (left_at, first), (block, count, n, gates) = at, sizes
    wide = wide_of(out)
    plan = Product(
        left_at=left_at,
        left_jump=0,
        left_step=1,
        right_at=block * gates * n * wide,
        right_step=wide,
        out_at=first,
        start_at=0,
        start_like_out=False,
        n=count,
        times=1,
        run=gates * n,
    )
    multiply(da, panels, out, begin, rows, plan)


@inside
def offsets(batch, left, out):
    """The rows of a batch in the left matrix of a product and in its result."""
    rows = np.empty((2, batch), np.int64)
    for b in range(batch):
        rows[0, b], rows[1, b] = b * left, b * out
    return rows


@inside
def add(x, more):
    for j in range(x.size):
        x[j] += more[j]


def packed(u, back=False):
    """U in panels."""
    n, wide = u.shape[1], panel(u.dtype)
    blocks, gates = -(-n // wide), u.shape[0] // n
    panels = backend.workspace((blocks, gates, n, wide), u.dtype)
    if back:
        pack_back(u, panels.reshape(blocks, gates * n, wide))
    else:
        pack(u, gates, panels)
    return panels


def start(h0, mask):
    """What the recurrent product sees at time 0, with room for another time; and the mask, or ones."""
    seen = backend.workspace((2, *h0.shape), h0.dtype)
    mask = np.ones(h0.shape, h0.dtype) if mask is None else mask
    np.multiply(h0, mask, out=seen[0])
    return seen, mask


def flat(*arrays):
    return [a.reshape(-1) for a in arrays]
