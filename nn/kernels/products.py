"""Matrix products out of register blocks, for use inside numba loops: one thread each, nothing allocated.

The right-hand matrix comes in panels: PANEL columns beside one another, row after row. A panel that is the last and
narrower has rows of its own width, so that K rows of n columns are K n numbers whatever n is.
"""

import functools
import hashlib
import pathlib
from typing import NamedTuple

import numba
import numpy as np
from numba.core import caching

from . import blocks, simd

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
full_two, full_one = blocks.block_product(2, False), blocks.block_product(1, False)
part_two, part_one = blocks.block_product(2, True), blocks.block_product(1, True)
long_two, long_one = blocks.block_product(2, True, apart=True), blocks.block_product(1, True, apart=True)
whole_two = blocks.block_product(2, False, apart=True)
RUN = 64                                # terms of a long sum that are summed by themselves


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


class Left(NamedTuple):
    """A[i, r, k] = numbers[at + rows[row + i] + jump r + step k]"""

    numbers: np.ndarray
    at: int
    rows: np.ndarray
    row: int
    jump: int
    step: int


class Right(NamedTuple):
    """A panel: B[k, j] = numbers[at + step k + j]"""

    numbers: np.ndarray
    at: int
    step: int


class Result(NamedTuple):
    """C[i, j] = numbers[at + rows[row + i] + j]"""

    numbers: np.ndarray
    at: int
    rows: np.ndarray
    row: int


class Start(NamedTuple):
    """S[i, j] = numbers[at + scale rows[row + i] + j], rows and row those of C: C itself, or with scale 0 one row."""

    numbers: np.ndarray
    at: int
    scale: int


@inside
def multiply(left, right, result, start, m, n, times, run, width):
    """C[i, j] = S[i, j] + sum_{r < times} sum_{k < run} A[i, r, k] B[r run + k, j] for one panel: i < m,
    j < n <= 2 width."""
    a, a0, a_rows, a_row, a_jump, a_step = left
    b, b0, b_step = right
    c, c0, c_rows, c_row = result
    s, s0, scale = start
    for i in range(0, m, ROWS):
        count = min(ROWS, m - i)
        if n == 2 * width:
            full_two(a, a0, a_rows, a_row + i, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row + i, s, s0, scale,
                     count, n, times, run)
        elif n > width:
            part_two(a, a0, a_rows, a_row + i, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row + i, s, s0, scale,
                     count, n, times, run)
        elif n == width:
            full_one(a, a0, a_rows, a_row + i, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row + i, s, s0, scale,
                     count, n, times, run)
        else:
            part_one(a, a0, a_rows, a_row + i, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row + i, s, s0, scale,
                     count, n, times, run)


@inside
def multiply_long(left, right, result, start, m, n, terms, width):
    """The same for one sum of so many terms, RUN of them at a time by themselves: fewer digits are lost."""
    a, a0, a_rows, a_row, _, a_step = left
    b, b0, b_step = right
    c, c0, c_rows, c_row = result
    s, s0, scale = start
    jump, done = RUN * a_step, 0
    while done < terms:                                 # whole runs, then the rest
        run = min(RUN, terms - done)
        times = (terms - done) // run
        for i in range(0, m, ROWS):
            count = min(ROWS, m - i)
            if n == 2 * width:
                whole_two(a, a0 + done * a_step, a_rows, a_row + i, jump, a_step, b, b0 + done * b_step, b_step, c, c0,
                          c_rows, c_row + i, s, s0, scale, count, n, times, run)
            elif n > width:
                long_two(a, a0 + done * a_step, a_rows, a_row + i, jump, a_step, b, b0 + done * b_step, b_step, c, c0,
                         c_rows, c_row + i, s, s0, scale, count, n, times, run)
            else:
                long_one(a, a0 + done * a_step, a_rows, a_row + i, jump, a_step, b, b0 + done * b_step, b_step, c, c0,
                         c_rows, c_row + i, s, s0, scale, count, n, times, run)
        done += times * run
        s, s0, scale = c, c0, 1


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
