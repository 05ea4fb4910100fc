"""Norms along rows, and rotations of pairs. Bytes in units of N D s, s a number's:

    layer_norm, rms_norm        1 read, 1 written
    their backward              2 read, 1 written; each row once more from the caches
    rotate                      1 read, 1 written: of the numbers that are turned

About 10 operations a number, so memory sets the time: at 3 TB/s rows of 50 MB (16,384 of 768 float32 numbers) take
33 us forward and 50 us backward (computed, not measured). Sums over rows go by parts, which are joined in their order.
Rows that are longer than LONGEST numbers go backward as array code.
"""

from npopt import backend

from .. import reference_rows
from . import norms
from .launch import Program, blocks

program = Program("row_norms.cu")
ROWS, LONGEST = 8, 4096  # rows of a block forward; numbers of a row backward
PART, PARTS = 64, 2112  # rows of a block backward, at least; and how many sums are joined at most


def layer_norm(x, a, b, eps, y, m, r):
    _forward("layer_norm", x, a, b, eps, y, m, r)


def layer_norm_backward(x, a, m, r, dy, dx, da, db):
    if x.shape[1] > LONGEST:
        reference_rows.layer_norm_backward(x, a, m, r, dy, dx, da, db)
    else:
        _backward("layer_norm_backward", x, a, m, r, dy, dx, da, db)


def rms_norm(x, a, eps, y, r):
    _forward("rms_norm", x, a, None, eps, y, None, r)


def rms_norm_backward(x, a, r, dy, dx, da):
    if x.shape[1] > LONGEST:
        reference_rows.rms_norm_backward(x, a, r, dy, dx, da)
    else:
        _backward("rms_norm_backward", x, a, None, r, dy, dx, da, None)


def rotate(x, cos, sin, adjacent):
    if cos.dtype != x.dtype:
        reference_rows.rotate(x, cos, sin, adjacent)
        return
    batch, times, heads, d = x.shape
    half = cos.shape[1]
    grid = batch * times, blocks(heads * half)
    program("rotate", x)(grid, (256,), (x, cos, sin, int(adjacent), times, heads, d, half))


def _forward(name, x, a, b, eps, y, m, r):
    n, d = x.shape
    kernel = program(name + _how((x, y), (a, b)), x)
    kernel((blocks(n, ROWS),), (256,), (x, a, b, float(eps), y, m, r, n, d))


def _backward(name, x, a, m, r, dy, dx, da, db):
    (n, d), wanted = x.shape, da is not None or db is not None
    if not wanted and dx is None:
        return
    how = _how((x, dy, dx), (a,))
    threads = blocks(d, 16 // x.itemsize if how else 1)  # of a row
    teams = max(g for g in (1, 2, 4, ROWS) if g == 1 or g * threads <= 256)
    parts = min(blocks(n, PART), PARTS // teams)
    sums = backend.workspace((parts * teams, 2, d), "float64") if wanted else None
    program(name + how, x)((parts,), (256,), (x, a, m, r, dy, dx, sums, teams, n, d))
    if wanted:
        da, db = (backend.workspace(a.shape, a.dtype) if v is None else v for v in (da, db))
        norms.program("join_sums", x)((2, blocks(d, 32)), norms.JOIN, (sums, None, da, db, parts * teams, d))


def _how(matrices, vectors):
    """The suffix of a kernel: _wide, where all rows and vectors can be read 16 bytes at a time."""
    d, item = matrices[0].shape[1], matrices[0].itemsize
    given = [v for v in (*matrices, *vectors) if v is not None]
    return "" if d * item % 16 or any(v.data.ptr % 16 for v in given) else "_wide"
