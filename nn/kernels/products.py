"""Matrix products out of register blocks, for use inside numba loops: one thread each, nothing allocated.

The right-hand matrix comes in panels: PANEL columns beside one another, row after row. A last, narrower panel has rows
of its own width. So K rows of n columns are K n numbers whatever n is.
"""

import functools
import hashlib
import pathlib

import numba
import numpy as np
from numba.core import caching

from . import blocks, simd

SOURCES = sorted(pathlib.Path(__file__).parent.glob("*.py"))
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()


class Cache(caching.FunctionCache):
    """numba's cache on disk. Its entries are dropped when any file of this folder changes, because loops here contain
    code of simd and products, which numba does not look at."""

    def _index_key(self, signature, codegen):
        return (*super()._index_key(signature, codegen), DIGEST)


def compiled(**options):
    """numba.njit with that cache."""

    def decorate(function):
        dispatcher = numba.njit(error_model="numpy", **options)(function)
        dispatcher._cache = Cache(function)
        return dispatcher

    return decorate


jit, inside = compiled(parallel=True), compiled()
spread = compiled(forceinline=True)  # part of the loop that calls it: constants in a Product stay constants
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
def multiply(left, right, out, start, rows, row, m, plan, width):
    """C = S + A B for m rows and plan.n <= 2 width columns of one panel, as blocks.block_product says. S: C itself,
    or one row for all."""
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


@spread
def multiply_apart(left, right, out, start, rows, row, m, plan, width):
    """The same, but the `run` terms of each r are summed by themselves: a long sum loses fewer digits."""
    for i in range(0, m, ROWS):
        count = min(ROWS, m - i)
        if plan.n == 2 * width:
            apart_two(left, right, out, start, rows, row + i, count, plan)
        elif plan.n > width:
            part_apart_two(left, right, out, start, rows, row + i, count, plan)
        else:
            part_apart_one(left, right, out, start, rows, row + i, count, plan)


@inside
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
