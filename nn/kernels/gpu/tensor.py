"""Convolutions on tensor cores, without columns: see tensor.cu. For TF32, float16 and bfloat16, sums in float32.

With P positions, K = kh kw C numbers in a window and s bytes a number, a pass takes 2 P K O operations, as by columns.
It reads and writes x, w and y alone: P (C + O) s bytes of the card's memory at best. Columns would be 2 P K s more.

dx of a stride s is s x s convolutions of dy, one for each remainder of a pixel's row and column, each with the taps
that meet it. dW is summed over parts of the positions; the parts are added in order, in float64.
"""

from math import prod

from npopt import backend

from .launch import Program, blocks, windows

TILES = {  # outputs of a block, its threads, and its chunks of shared memory
    "convolve_wide": (256, 128, 256, 9216),
    "convolve_128": (128, 128, 128, 6144),
    "convolve_256": (256, 64, 128, 5120),
    "convolve_64": (64, 64, 128, 4096),
    "weights_128": (128, 128, 128, 6144),
    "weights_64": (64, 128, 128, 4608),
}
program = Program("tensor.cuh", "tensor.cu", shared={name: 16 * tile[3] for name, tile in TILES.items()})
BYTES = 128  # of the terms that a block takes at a time, for each output
WAVE = 264  # blocks that fill a card: two for each multiprocessor
LEAST = 512  # positions of a part of dW, at least


def takes(x, c, o):
    """Whether a convolution of images x between c and o channels is one for these kernels."""
    exact = x.dtype.name == "float64" or x.dtype.name == "float32" and backend.owner(x).products_in == "float32"
    return not exact and not c * x.itemsize % BYTES and not o * x.itemsize % BYTES


def convolve(x, w, bias, y, stride, padding):
    """y_bhwo = sum_{i,j,c} w_oijc x_{b, s h + i - p, s w + j - p, c} + bias_o."""
    view = _view(x, y, (0, 0), (1, 1), y.shape[1:3], stride, [-p for p in padding], w.shape[1:3], (1, 1))
    _launch(x, arranged(x, w), bias, y, view, y.shape[0] * prod(y.shape[1:3]))


def convolve_inputs(dy, w, dx, stride, padding):
    """dx_bhwc = sum_{i,j,o} w_oijc dy_{b, (h + p - i)/s, (w + p - j)/s, o} over taps whose quotients are positions."""
    for down in range(stride[0]):
        for across in range(stride[1]):
            phase, count, origin, taps = (down, across), [], [], []
            for a, size, k, s, p in zip(phase, dx.shape[1:3], w.shape[1:3], stride, padding, strict=True):
                first = (a + p) % s
                count.append(blocks(size - a, s))
                origin.append((a + p - first) // s)
                taps.append((first, s, blocks(max(0, k - first), s)))
            if min(count) > 0:
                view = _view(dy, dx, phase, stride, count, (1, 1), origin, [n for *_, n in taps], (-1, -1))
                _launch(dy, arranged(dy, w, taps), None, dx, view, dx.shape[0] * prod(count))


def convolve_weights(x, dy, dw, stride, padding):
    """dW_oijc = sum_{b,h,w} dy_bhwo x_{b, s h + i - p, s w + j - p, c}."""
    o, taps, c = dw.shape[0], dw.shape[1:3], dw.shape[3]
    positions, wide = dy.shape[0] * prod(dy.shape[1:3]), prod(taps) * c
    view = _view(x, dy, (0, 0), (1, 1), dy.shape[1:3], stride, [-p for p in padding], taps, (1, 1))
    name = "weights_64" if o % 128 else "weights_128"
    rows, cols = TILES[name][:2]
    tiles, some = (blocks(wide, cols), blocks(o, rows)), BYTES // x.itemsize
    parts = max(1, min(WAVE // prod(tiles), positions // LEAST))
    length = blocks(blocks(positions, parts), some) * some
    parts = blocks(positions, length)
    sums = dw if parts == 1 else backend.workspace((parts, o, wide), "float32")
    _run(name, (*tiles, parts), (dy, x, sums, *view, c, o, positions, length))
    if parts > 1:
        windows.each("sum_parts", dw.size, sums, dw, parts)


def _launch(x, w, bias, y, view, positions):
    c, count = x.shape[3], y.shape[3]
    names = ["convolve_wide", "convolve_128"] if count % 128 == 0 else ["convolve_256"]
    for name in (*names, "convolve_64"):
        rows, cols = TILES[name][:2]
        grid = blocks(positions, rows), blocks(count, cols)
        if prod(grid) >= WAVE // 2:  # the largest blocks of which every multiprocessor has one
            break
    _run(name, grid, (x, w, bias, y, *view, c, count, positions))


def _run(name, grid, arguments):
    program(name, arguments[0])(grid, (TILES[name][2],), arguments, shared_mem=program.shared[name])


def _view(x, y, out_first, out_step, count, step, first, taps, tap_step):
    """The arguments VIEW: positions `count` see images x and write images y."""
    return (*x.shape[1:3], *count, *step, *first, *taps, *tap_step, *y.shape[1:3], *out_step, *out_first)


def arranged(x, w, taps=None):
    """w in the type of x, flat or as it is; with `taps`, (first, step, count) in both directions, as (C, taps, O)."""
    if taps is None and x.dtype == w.dtype:
        return w
    turn, (o, high, wide, c) = (False, (1, 1, 1, w.size)) if taps is None else (True, w.shape)
    down, across = taps or [(0, 1, 1), (0, 1, 1)]
    size = o * c * down[2] * across[2]
    shape = w.shape if taps is None else (max(size, 1),)
    out = backend.workspace(shape, x.dtype)
    if size:
        sizes = int(turn), o, high, wide, c, *down, *across
        program.each("arrange", size, w, out, *sizes, like=x)
    return out
