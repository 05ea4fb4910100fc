"""Matrix products out of register blocks, for use inside numba loops: one thread each, nothing allocated.

The right-hand matrix comes in panels: PANEL columns beside one another, row after row. A last, narrower panel has rows
of its own width. So K rows of n columns are K n numbers whatever n is.
"""

import functools

from npopt.backend.once import jit, once, spread

import numba
import numpy as np

from . import blocks, simd
from .blocks import Product

ROWS = simd.ROWS
full_two, full_one = blocks.block_product(2, False), blocks.block_product(1, False)
part_two, part_one = blocks.block_product(2, True), blocks.block_product(1, True)
apart_two = blocks.block_product(2, False, apart=True)
part_apart_two, part_apart_one = (blocks.block_product(n, True, apart=True) for n in (2, 1))


def lanes(dtype):
    """Numbers to a vector."""
    return simd.BYTES // np.dtype(dtype).itemsize


def panel(dtype):
    """Columns of a panel."""
    return 2 * lanes(dtype)


@functools.lru_cache(maxsize=256)
def zeros(count, dtype):
    """(count,) zeros, to read."""
    return np.zeros(count, dtype)


@spread
def along(plan):
    """The plan with a left_step of 1 that the compiler sees: then it unrolls the loop."""
    return Product(
        left_at=plan.left_at,
        left_jump=plan.left_jump,
        left_step=1,
        right_at=plan.right_at,
        right_step=plan.right_step,
        out_at=plan.out_at,
        start_at=plan.start_at,
        start_like_out=plan.start_like_out,
        n=plan.n,
        times=plan.times,
        run=plan.run,
    )


@spread
def by_blocks(left, right, out, start, rows, row, m, plan, width):
    """`multiply` as a part of its caller: for a few rows at a time, where a call would cost more than a tenth."""
    for i in range(0, m, ROWS):
        count = min(ROWS, m - i)
        if plan.n == 2 * width:
            full_two(left, right, out, start, rows, row + i, count, plan)
        elif plan.n > width:
            part_two(left, right, out, start, rows, row + i, count, plan)
        elif plan.n == width:
            full_one(left, right, out, start, rows, row + i, count, plan)
        else:
            part_one(left, right, out, start, rows, row + i, count, plan)


@once(bare=True)
def multiply(left, right, out, start, rows, row, m, plan, width):
    """C = S + A B for m rows and plan.n <= 2 width columns of one panel, as blocks.block_product says. S: C itself,
    or one row for all."""
    if plan.left_step == 1:
        by_blocks(left, right, out, start, rows, row, m, along(plan), width)
    else:
        by_blocks(left, right, out, start, rows, row, m, plan, width)


@spread
def by_blocks_apart(left, right, out, start, rows, row, m, plan, width):
    for i in range(0, m, ROWS):
        count = min(ROWS, m - i)
        if plan.n == 2 * width:
            apart_two(left, right, out, start, rows, row + i, count, plan)
        elif plan.n > width:
            part_apart_two(left, right, out, start, rows, row + i, count, plan)
        else:
            part_apart_one(left, right, out, start, rows, row + i, count, plan)


@once(bare=True)
def multiply_apart(left, right, out, start, rows, row, m, plan, width):
    """The same, but the `run` terms of each r are summed by themselves: a long sum loses fewer digits."""
    if plan.left_step == 1:
        by_blocks_apart(left, right, out, start, rows, row, m, along(plan), width)
    else:
        by_blocks_apart(left, right, out, start, rows, row, m, plan, width)


@once(bare=True)
def transpose_part(a, a0, a_row, b, b0, b_row, rows, columns, width):
    """b[b0 + b_row j + i] = a[a0 + a_row i + j] for i < rows, j < columns."""
    whole_rows, whole_columns = rows // width * width, columns // width * width
    for i in range(0, whole_rows, width):
        for j in range(0, whole_columns, width):
            blocks.transpose_block(a, a0 + a_row * i + j, a_row, b, b0 + b_row * j + i, b_row)
    for i in range(rows):
        for j in range(whole_columns if i < whole_rows else 0, columns):
            b[b0 + b_row * j + i] = a[a0 + a_row * i + j]


@jit
def transpose(a, b, width):
    """b = a'."""
    rows, columns = a.shape
    source, to = a.reshape(-1), b.reshape(-1)
    for block in numba.prange((columns + width - 1) // width):
        j = np.int64(block) * width
        transpose_part(source, j, columns, to, j * rows, rows, rows, min(width, columns - j), width)
