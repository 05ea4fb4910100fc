"""Matrix products out of register blocks, for use inside numba loops: one thread each, nothing allocated.

The right-hand matrix comes in panels: PANEL columns beside one another, row after row. A panel that is the last and
narrower has rows of its own width, so that K rows of n columns are K n numbers whatever n is.
"""

import functools
import hashlib
import pathlib

import numba
import numpy as np
from numba.core import caching

from . import simd

SOURCES = sorted(pathlib.Path(__file__).parent.glob("*.py"))
DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()


class Cache(caching.FunctionCache):
    """numba's cache on disk, whose entries fall when any file of this folder changes: loops here contain code of simd
    and products, at which numba does not look."""

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
ROWS = simd.ROWS
full_two, full_one = simd.block_product(2, False), simd.block_product(1, False)
part_two, part_one = simd.block_product(2, True), simd.block_product(1, True)


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


@inside
def multiply(a, a0, a_rows, a_row, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row, s, s0, s_scale, m, n, times,
             run, width):
    """C = S + A B for one panel: m rows, n <= 2 width columns; the arguments are those of simd.block_product."""
    for i in range(0, m, ROWS):
        count = min(ROWS, m - i)
        if n == 2 * width:
            full_two(a, a0, a_rows, a_row + i, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row + i, s, s0, s_scale,
                     count, n, times, run)
        elif n > width:
            part_two(a, a0, a_rows, a_row + i, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row + i, s, s0, s_scale,
                     count, n, times, run)
        elif n == width:
            full_one(a, a0, a_rows, a_row + i, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row + i, s, s0, s_scale,
                     count, n, times, run)
        else:
            part_one(a, a0, a_rows, a_row + i, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row + i, s, s0, s_scale,
                     count, n, times, run)


@inside
def transpose_part(a, a0, a_row, b, b0, b_row, rows, columns, width):
    """b[b0 + b_row j + i] = a[a0 + a_row i + j] for i < rows, j < columns."""
    whole_rows, whole_columns = rows // width * width, columns // width * width
    for i in range(0, whole_rows, width):
        for j in range(0, whole_columns, width):
            simd.transpose_block(a, a0 + a_row * i + j, a_row, b, b0 + b_row * j + i, b_row)
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
