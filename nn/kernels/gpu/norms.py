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
JOIN = (32, 32)  # columns and rows of threads that join parts
ROWS = 64  # rows of a block of an elementwise pass
SPREAD = 1024  # blocks of a pass that sums
ALONE = 512  # rows that one block sums by itself


def moments(x, mean, variance):
    (n, d), how = x.shape, _how(x)
    parts, sums = _parts(n, d, 2, how)
    _run("moments", how, parts, (x, sums, n, d))
    program("join_moments", x)((1, blocks(d, 32)), JOIN, (sums, mean, variance, parts, n, d))


def sum_rows(a, out):
    n, d = a.shape
    parts, sums = _parts(n, d, 1, PLAIN)
    _run("sum_rows", PLAIN, parts, (a, sums, out, n, d))
    if parts > 1:
        program("join_sums", a)((1, blocks(d, 32)), JOIN, (sums, None, out, None, parts, d))


def normalise(x, mean, scale, offset, skip, rectify, y):
    _pass("normalise", _how(x, skip, y), (x, mean, scale, offset, skip, int(rectify), y))


def normalise_sums(x, mean, r, dy, y, da, db):
    (n, d), how = x.shape, _how(x, dy, y)
    parts, sums = _parts(n, d, 2, how)
    _run("normalise_sums", how, parts, (x, mean, dy, y, sums, n, d))
    program("join_sums", x)((2, blocks(d, 32)), JOIN, (sums, r, da, db, parts, d))


def normalise_backward(x, mean, scale, dy, slope, offset, dx):
    _pass("normalise_backward", _how(x, dy, dx), (x, mean, scale, dy, slope, offset, dx))


def add_row(y, bias):
    """y += bias, row by row; y: (N, D)   bias: (D,)"""
    _pass("add_row", PLAIN, (y, bias))


PLAIN, WIDE = ("", 32, (32, 8)), ("_wide", 64, (16, 16))  # a kernel's suffix, a block's columns, its threads


def _how(*matrices):
    """WIDE, where a thread can take four neighbouring numbers of each of these at once."""
    given = [v for v in matrices if v is not None]
    step = 4 * given[0].itemsize
    return PLAIN if given[0].shape[1] % 4 or any(v.data.ptr % step for v in given) else WIDE


def _pass(name, how, arguments):
    n, d = arguments[0].shape
    _run(name, how, blocks(n, ROWS), (*arguments, n, d))


def _run(name, how, parts, arguments):
    (suffix, columns, block), x = how, arguments[0]
    program(name + suffix, x)((parts, blocks(x.shape[1], columns)), block, arguments)


def _parts(n, d, kinds, how):
    """(parts of the rows, memory for the sums of so many kinds over them, float64)."""
    parts = 1 if n <= ALONE else min(blocks(n, ROWS), max(1, SPREAD // blocks(d, how[1])))
    return parts, backend.workspace((parts, kinds, d), "float64")
