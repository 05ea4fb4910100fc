"""Convolutions: one kernel that gathers columns, one product by cuBLAS; or Winograd's way where that costs less.

With P = B H' W' positions, K = kh kw C numbers in a window and s bytes a number, each of the three passes takes 2 P K O
operations, and beside the product's own operands

    forward     columns written and read, 2 P K s bytes, from x, B H W C s; a bias: y read and written, 2 P O s
    dW          the columns again; parts of the sum, at most FILL tiles of 128 x 128 numbers, written and read
    dx          dcolumns written and read, 2 P K s, into dx, B H W C s

so the product has O / s operations for each byte of columns. At 50 TFLOP/s and 3 TB/s product and columns take the same
time for O = 64 in float32. At O = 512 the columns take an eighth of the product's time (computed from published
figures, not measured).
WORKSPACE bytes of columns exist at a time. A 1x1 convolution of stride 1 has none. No atomics: sums have a fixed order.
"""

import functools
from math import prod

from npopt import backend

from . import tensor, winograd
from .launch import blocks, geometry, windows
from .norms import add_row

program = windows
WORKSPACE = 1 << 30  # bytes of columns, or of Winograd's points, at a time
accurate = False  # whether Winograd's form is left out; kernels.use sets it
WINOGRAD = True
FILL = 1024  # tiles of 128 x 128 outputs in work: eight for each multiprocessor, a short last round
FEW = 8  # tiles, from which on cuBLAS fills the card by itself (measured on an H100)
DEPTH = 256  # terms of a part of a sum, at least


def linear(x, w, bias, y):
    product(x, tensor.arranged(x, w), y, turn_b=True)
    if bias is not None:
        add_row(y, bias)


def linear_inputs(dy, w, dx):
    product(dy, tensor.arranged(dy, w), dx)


def linear_weights(x, dy, dw):
    _sum_products([x.shape[0]], [(dy, x)], dw)


def convolve(x, w, bias, y, stride, padding):
    o, kernel, count = w.shape[0], w.shape[1:3], y.shape[1:3]
    if tensor.takes(x, *w.shape[::3]):
        tensor.convolve(x, w, bias, y, stride, padding)
        return
    if _by_winograd(x, w, count, stride, padding):
        winograd.convolve(x, w, bias, y, padding, WORKSPACE)
        return
    weight = tensor.arranged(x, w).reshape(o, -1)  # (O, K)
    for part in _chunks(x, count, kernel, stride, padding):
        product(_windows(x[part], count, kernel, stride, padding), weight, y[part].reshape(-1, o), turn_b=True)
    if bias is not None:
        add_row(y.reshape(-1, o), bias)


def convolve_inputs(dy, w, dx, stride, padding):
    o, kernel, count = w.shape[0], w.shape[1:3], dy.shape[1:3]
    if tensor.takes(dy, *w.shape[::3]):
        tensor.convolve_inputs(dy, w, dx, stride, padding)
        return
    if _by_winograd(dy, w, dx.shape[1:3], stride, padding):
        winograd.convolve_inputs(dy, w, dx, padding, WORKSPACE)
        return
    weight = tensor.arranged(dy, w).reshape(o, -1)  # (O, K)
    for part in _chunks(dx, count, kernel, stride, padding):
        some, to = dy[part].reshape(-1, o), dx[part]
        if plain(kernel, stride, padding):
            product(some, weight, to.reshape(-1, weight.shape[1]))
        else:
            columns = backend.workspace((some.shape[0], weight.shape[1]), dy.dtype)
            product(some, weight, columns)  # what flows back to each position and tap
            sum_windows(columns.reshape(-1, *count, *w.shape[1:]), to, stride, padding)
            del columns  # its memory is the next chunk's


def convolve_weights(x, dy, dw, stride, padding):
    o, kernel, count = dw.shape[0], dw.shape[1:3], dy.shape[1:3]
    if tensor.takes(x, *dw.shape[::3]):
        tensor.convolve_weights(x, dy, dw, stride, padding)
        return
    if _by_winograd(x, dw, count, stride, padding):
        winograd.convolve_weights(x, dy, dw, padding, WORKSPACE)
        return
    chunks = _chunks(x, count, kernel, stride, padding)
    pairs = ((dy[part].reshape(-1, o), _windows(x[part], count, kernel, stride, padding)) for part in chunks)
    _sum_products([(part.stop - part.start) * prod(count) for part in chunks], pairs, dw.reshape(o, -1))


def product(a, b, out, turn_a=False, turn_b=False, add=False):
    """out = a b, or that added to out, matrices; a or b transposed on request."""
    one = (v[None] for v in (a, b, out))
    backend.owner(a).products(*one, turn_a, turn_b, add)


def gather_windows(x, out, stride, before):
    """Columns: reads B H W C numbers, writes B H' W' kh kw C."""
    b, *count, kh, kw, c = out.shape
    wide, name = _wide(x, out, c)
    shape = geometry(x, count, (kh, kw), stride, before)
    program.lines("columns_of" + name, (b, *count, c), wide, x, out, *shape)


def sum_windows(columns, dx, stride, before):
    """Columns carried back: reads B H' W' kh kw C numbers, writes B H W C."""
    count, kernel = columns.shape[1:3], columns.shape[3:5]
    wide, name = _wide(columns, dx, dx.shape[3])
    program.lines("sum_columns" + name, dx.shape, wide, columns, dx, *geometry(dx, count, kernel, stride, before))


def plain(kernel, stride, padding):
    """Every window is one pixel and every pixel a window: the columns are x itself."""
    return tuple(kernel) == (1, 1) and tuple(stride) == (1, 1) and tuple(padding) == (0, 0)


def _by_winograd(x, w, count, stride, padding):
    return (
        WINOGRAD
        and not accurate
        and x.dtype.name in ("float32", "float64")
        and backend.owner(x).products_in == "float32"
        and winograd.wins(w.shape[1:3], stride, padding, count, w.shape[3], w.shape[0], x.dtype)
    )


def _windows(x, count, kernel, stride, padding):
    """Columns (B H' W', kh kw C) of x, (B, H, W, C)."""
    b, c = x.shape[0], x.shape[3]
    if plain(kernel, stride, padding):
        return x.reshape(-1, c)
    out = backend.workspace((b, *count, *kernel, c), x.dtype)
    gather_windows(x, out, stride, padding)
    return out.reshape(-1, prod(kernel) * c)


def _chunks(x, count, kernel, stride, padding):
    """Slices of the batch x, nearly equal. The columns of a slice take WORKSPACE bytes at most, or are one image's."""
    batch, row = x.shape[0], prod(count) * prod(kernel) * x.shape[3] * x.itemsize
    pieces = 1 if plain(kernel, stride, padding) else max(1, -(-batch // max(1, WORKSPACE // row)))
    ends = [batch * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def _wide(a, b, c):
    """(numbers that a thread moves at once, the kernel's suffix): 16 bytes where channels and addresses allow that."""
    wide = 16 // a.itemsize
    return (1, "") if c % wide or (a.data.ptr | b.data.ptr) % 16 else (wide, "_wide")


def _sum_products(rows, pairs, out):
    """out = sum of a' b over the pairs of a, (N, M), and b, (N, K); rows: their N.

    The m x n outputs are few and N is large. So N is cut into parts, and the whole card works. The parts are added in
    order, in float64.
    """
    parts = [_parts(n, *out.shape) for n in rows]
    sums = out.reshape(1, *out.shape) if sum(parts) == 1 else backend.workspace((sum(parts), *out.shape), out.dtype)
    at = 0
    for count, (a, b) in zip(parts, pairs, strict=True):
        if count == 1:
            product(a, b, sums[at], turn_a=True)
        else:
            a, b = (v.reshape(count, -1, v.shape[1]) for v in (a, b))
            backend.owner(a).products(a, b, sums[at : at + count], turn_a=True)
        at += count
    if at > 1:
        program.each("sum_parts", out.size, sums, out, at)


@functools.lru_cache(maxsize=1024)
def _parts(rows, m, n):
    """How many parts of equal length a sum over so many rows has, at least DEPTH rows each. m x n outputs limit it."""
    tiles = blocks(m, 128) * blocks(n, 128)
    most = min(FILL // tiles, rows // DEPTH) if tiles < FEW else 1
    return next((p for p in range(most, 1, -1) if rows % p == 0), 1)
