"""Batch norm, sums over rows and row-wise sums with a bias, on matrices (N, D). Bytes in units of N D s, s a number's:

    moments             1 read                              normalise           1 read, 1 with a skip, 1 written
    sum_rows            1 read                              normalise_sums      2 read; with y 1 more, and 1 written
    add_row             1 read, 1 written                   normalise_backward  2 read, 1 written

One pass each, and 2 to 6 operations a number, so memory sets the time. At 3 TB/s a float32 activation of 33.5 MB, the
widest of ResNet-18 at batch 128, takes 11 us to read or to write (computed from published figures, not measured).
"""

from npopt import backend

from .launch import Program, blocks

program = Program("norms.cu")
BLOCK, JOIN = (32, 8), (32, 32)  # columns and rows of threads; of those that join parts
ROWS = 8 * 8  # rows of a block of an elementwise pass
SPREAD = 1024  # blocks of a pass that sums
ALONE = 512  # rows that one block sums by itself


def moments(x, mean, variance):
    n, d = x.shape
    parts, sums = _parts(n, d, 2)
    program("moments", x)((parts, blocks(d, 32)), BLOCK, (x, sums, n, d))
    program("join_moments", x)((1, blocks(d, 32)), JOIN, (sums, mean, variance, parts, n, d))


def sum_rows(a, out):
    n, d = a.shape
    parts, sums = _parts(n, d, 1)
    program("sum_rows", a)((parts, blocks(d, 32)), BLOCK, (a, sums, out, n, d))
    if parts > 1:
        program("join_sums", a)((1, blocks(d, 32)), JOIN, (sums, None, out, None, parts, d))


def normalise(x, mean, scale, offset, skip, rectify, y):
    _pass("normalise", x, mean, scale, offset, skip, int(rectify), y)


def normalise_sums(x, mean, r, dy, y, da, db):
    n, d = x.shape
    parts, sums = _parts(n, d, 2)
    program("normalise_sums", x)((parts, blocks(d, 32)), BLOCK, (x, mean, dy, y, sums, n, d))
    program("join_sums", x)((2, blocks(d, 32)), JOIN, (sums, r, da, db, parts, d))


def normalise_backward(x, mean, scale, dy, slope, offset, dx):
    _pass("normalise_backward", x, mean, scale, dy, slope, offset, dx)


def add_row(y, bias):
    """y += bias, row by row; y: (N, D)   bias: (D,)"""
    _pass("add_row", y, bias)


def _pass(name, x, *arguments):
    n, d = x.shape
    program(name, x)((blocks(n, ROWS), blocks(d, 32)), BLOCK, (x, *arguments, n, d))


def _parts(n, d, kinds):
    """(parts of the rows, memory for the sums of so many kinds over them, float64)."""
    parts = 1 if n <= ALONE else min(blocks(n, ROWS), max(1, SPREAD // blocks(d, 32)))
    return parts, backend.workspace((parts, kinds, d), "float64")
