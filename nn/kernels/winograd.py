"""3x3 convolutions of stride 1 by Winograd's minimal filtering.   Lavin & Gray, CVPR 2016; Winograd 1980.

With 1-D maps B', G, A' a tile of m x m outputs of a 3x3 filter g on a tile d of (m+2) x (m+2) inputs is

    Y = A' [ (G g G') . (B' d B) ] A

(. number by number): (m+2)^2 products instead of 9 m^2, summed over channels before the last map. So a layer is

    U[p] = G W G'    (C, O)        V[p] = B' d B    (T, C)        M[p] = V[p] U[p]    (T, O)        Y = A' M A

with T tiles and p over the (m+2)^2 points. m = 4: 4 times fewer products than the direct way, m = 2: 2.25 times. The
gradients are the adjoints of these maps: dx is the same convolution of dy with the filter turned round and its channels
exchanged, and

    dW = G' dU G,    dU[p] = V[p]' dM[p],    dM = A dY A'

In float32 the maps of the filter are taken in float64 and rounded once, and sums over channels are cut into runs: so
ReLUs change sides by rounding 2.3 times as often as PyTorch's (benchmarks/results/nn_accuracy.txt).

Forward and dx: each thread takes some tiles at a time, so few that V and M stay in its second cache. V is made again
for dW: in the cache that costs less than 2.25 times the activations written and read once more.
"""

from functools import lru_cache

from npopt import backend
from npopt.backend.once import jit, once, spread

import numba
import numpy as np

from . import winograd_maps as maps
from .blocks import Product, prefetch
from .products import lanes, multiply_apart, panel, transpose, zeros

LINE = 64  # bytes of a line of the cache


@spread
def window(shape, b, h, w, size):
    """(at, inside, whole) of the tile of size x size pixels whose corner is pixel (h, w) of image b: its place (first,
    down, right) in the numbers of all images, its part inside the image and whether that is all of it, as
    blocks.tile_transform takes them."""
    _, height, width, c = shape
    inside = max(0, -h), min(size, height - h), max(0, -w), min(size, width - w)
    whole = h >= 0 and w >= 0 and h + size <= height and w + size <= width
    return (((b * height + h) * width + w) * c, width * c, c), inside, whole


@spread
def ahead(x, shape, b, h, j, m, lanes):
    """Bring the m lines of pixels from line h on nearer, of which tile j of its row of tiles does its share: memory
    is read in pieces of a tile's width, which no processor foresees."""
    _, height, width, c = shape
    share = m * m * c
    first = (b * height + h) * width * c + j * share
    for k in range(0, share, lanes):
        prefetch(x, first + k)


@once(bare=True)
def inputs_to_points(x, at, v, to, count, inside, whole, m):
    """V of one tile of inputs."""
    if m == 4:
        if whole:
            maps.of_input4(x, at, v, to, v, count)
        else:
            maps.of_input_edge4(x, at, v, to, v, count, inside)
    elif whole:
        maps.of_input2(x, at, v, to, v, count)
    else:
        maps.of_input_edge2(x, at, v, to, v, count, inside)


@once(bare=True)
def points_to_outputs(z, at, y, to, bias, count, inside, whole, m):
    """One tile of outputs, from M."""
    if m == 4:
        if whole:
            maps.of_product4(z, at, y, to, bias, count)
        else:
            maps.of_product_edge4(z, at, y, to, bias, count, inside)
    elif whole:
        maps.of_product2(z, at, y, to, bias, count)
    else:
        maps.of_product_edge2(z, at, y, to, bias, count, inside)


@once(bare=True)
def outputs_to_points(dy, at, z, to, count, inside, whole, m):
    """dM of one tile of outputs."""
    if m == 4:
        if whole:
            maps.of_output4(dy, at, z, to, z, count)
        else:
            maps.of_output_edge4(dy, at, z, to, z, count, inside)
    elif whole:
        maps.of_output2(dy, at, z, to, z, count)
    else:
        maps.of_output_edge2(dy, at, z, to, z, count, inside)


@once(bare=True)
def filter_to_points(w, tap, u, to, count, m):
    """U of one row of filters."""
    if m == 4:
        maps.of_weight4(w, tap, u, to, w, count)
    else:
        maps.of_weight2(w, tap, u, to, w, count)


@once(bare=True)
def points_to_filter(u, at, dw, to, count, m):
    """dW of one row of filters."""
    if m == 4:
        maps.to_weight4(u, at, dw, to, u, count)
    else:
        maps.to_weight2(u, at, dw, to, u, count)


@jit
def weights_to_points(w, u, m, size, taps, stride, width):
    """U[p][panel][row][column] = G W G'. Tap (i, j) of row k and column l is w[first + k row + l + i down + j right];
    (k, l) are inside `size`, and point p starts at p stride."""
    (outer, inner), (first, row, down, right) = size, taps
    points, wide = (m + 2) * stride, 2 * width
    for row_number in numba.prange(outer):
        k = np.int64(row_number)
        for l0 in range(0, inner, wide):
            count = min(wide, inner - l0)
            tap, to = (first + k * row + l0, down, right), (l0 * outer + k * count, points, stride)
            filter_to_points(w, tap, u, to, count, m)


@once
def correlate_part(part, x, u, bias, y, v, z, rows, plan):
    """The tiles of one part."""
    m, top, left, stride, run, width = plan
    c, (out_height, out_across, o) = x.shape[3], y.shape[1:]
    n, wide, source, to = m + 2, 2 * width, x.reshape(-1), y.reshape(-1)
    down, right = (out_height + m - 1) // m, (out_across + m - 1) // m
    tiles, parts, chunk = x.shape[0] * down * right, v.shape[0], rows.shape[1]
    v_point, z_point = v.shape[1] // (n * n), z.shape[1] // (n * n)
    nothing, mine, found = np.zeros(wide, x.dtype), v[part], z[part]
    first, last = tiles * part // parts, tiles * (part + 1) // parts
    for lo in range(first, last, chunk):
        count = min(chunk, last - lo)
        for t in range(count):
            b, i, j = (lo + t) // (down * right), (lo + t) // right % down, (lo + t) % right
            at, inside, whole = window(x.shape, b, i * m - top, j * m - left, n)
            ahead(source, x.shape, b, i * m - top + n, j, m, LINE // x.itemsize)
            inputs_to_points(source, at, mine, (t * c, n * v_point, v_point), c, inside, whole, m)
        for p in range(n * n):
            for o0 in range(0, o, wide):
                columns = min(wide, o - o0)
                product = Product(
                    left_at=p * v_point,
                    left_jump=run,
                    left_step=1,
                    right_at=p * stride + o0 * c,
                    right_step=columns,
                    out_at=p * z_point + o0,
                    start_at=0,
                    start_like_out=False,
                    n=columns,
                    times=c // run,
                    run=run,
                )
                multiply_apart(mine, u, found, nothing, rows, 0, count, product, width)
        for t in range(count):
            b, i, j = (lo + t) // (down * right), (lo + t) // right % down, (lo + t) % right
            at, inside, whole = window(y.shape, b, i * m, j * m, m)
            points_to_outputs(found, (t * o, n * z_point, z_point), to, at, bias, o, inside, whole, m)


@jit
def correlate(x, u, bias, y, v, z, rows, plan):
    """y = the convolution of x with the filter whose points are u, plus bias. v, z: (parts, ...)."""
    for part in numba.prange(len(v)):
        correlate_part(np.int64(part), x, u, bias, y, v, z, rows, plan)


PIECES = 16  # of the maps of dW's tiles, for the threads
DEPTH = 128  # rows of a panel that the first cache holds, twice


@once
def tile_to_points(x, x_shape, dy, dy_shape, v, z, t, tile, plan):
    """V and dM of one tile, (image, row, column) = tile: row t of each point and panel of `chunk` rows. x, dy: flat."""
    (b, i, j), (m, chunk, wide, top, left) = tile, plan
    c, o, n = x_shape[3], dy_shape[3], m + 2
    v_point, z_point = v.size // (n * n), z.size // (n * n)
    (at, below, beside), inside, whole = window(x_shape, b, i * m - top, j * m - left, n)
    ahead(x, x_shape, b, i * m - top + n, j, m, LINE // x.itemsize)
    for c0 in range(0, c, wide):
        count = min(wide, c - c0)
        place, to = (at + c0, below, beside), (c0 * chunk + t * count, n * v_point, v_point)
        inputs_to_points(x, place, v, to, count, inside, whole, m)
    (at, below, beside), inside, whole = window(dy_shape, b, i * m, j * m, m)
    ahead(dy, dy_shape, b, i * m + m, j, m, LINE // x.itemsize)
    for o0 in range(0, o, wide):
        count = min(wide, o - o0)
        place, to = (at + o0, below, beside), (o0 * chunk + t * count, n * z_point, z_point)
        outputs_to_points(dy, place, z, to, count, inside, whole, m)


@once
def points_of_weights(item, u, v, z, rows, size, add, plan):
    """dU of one point and panel of outputs, from `size` tiles; add: to what is there."""
    c, o, chunk, stride, points, width = plan
    wide = 2 * width
    panels, nothing = (o + wide - 1) // wide, np.zeros(wide, u.dtype)
    p, o0 = item // panels, item % panels * wide
    high = min(wide, o - o0)
    for c0 in range(0, c, wide):
        count, to = min(wide, c - c0), p * stride + o0 * c + c0
        for k in range(0, size, DEPTH):
            more = add or k > 0
            start, begin = (u, to) if more else (nothing, np.int64(0))
            product = Product(
                left_at=p * (z.size // points) + o0 * chunk + k * high,
                left_jump=0,
                left_step=high,
                right_at=p * (v.size // points) + c0 * chunk + k * count,
                right_step=count,
                out_at=to,
                start_at=begin,
                start_like_out=more,
                n=count,
                times=1,
                run=min(DEPTH, size - k),
            )
            multiply_apart(z, v, u, start, rows, 0, high, product, width)


@jit
def correlate_weights(x, dy, dw, u, v, z, rows, plan):
    """dW of the convolution; tiles by chunks, whose V and dM all threads share."""
    m, chunk, top, left, stride, width = plan
    c, (out_height, out_across, o) = x.shape[3], dy.shape[1:]
    n, wide = m + 2, 2 * width
    down, right = (out_height + m - 1) // m, (out_across + m - 1) // m
    tiles, points, shape = x.shape[0] * down * right, n * n, (c, o, chunk, stride, n * n, width)
    inputs, outputs = x.reshape(-1), dy.reshape(-1)
    for lo in range(0, tiles, chunk):
        size = min(chunk, tiles - lo)
        for part in numba.prange(PIECES):
            for t in range(size * np.int64(part) // PIECES, size * (np.int64(part) + 1) // PIECES):
                tile = (lo + t) // (down * right), (lo + t) // right % down, (lo + t) % right
                tile_to_points(inputs, x.shape, outputs, dy.shape, v, z, t, tile, (m, chunk, wide, top, left))
        for item in numba.prange(points * ((o + wide - 1) // wide)):
            points_of_weights(np.int64(item), u, v, z, rows, size, lo > 0, shape)
    out = dw.reshape(-1)
    for k in numba.prange(o):
        at, to = (np.int64(k) * c, n * stride, stride), (np.int64(k) * 9 * c, 3 * c, c)
        points_to_filter(u, at, out, to, c, m)


RUN = 32  # channels whose products are summed by themselves, at most: with 64, 11 instead of 7 ReLUs of ResNet-18 flip


@lru_cache(maxsize=256)
def run_of(c):
    """The largest divisor of c up to RUN, unless that is small: then c."""
    return next((r for r in range(min(RUN, c), RUN // 2 - 1, -1) if c % r == 0), c)


NEAR = 640 << 10  # bytes of V and M that a thread works on: most of a second cache
SHARED = 4 << 20  # bytes of V and dM that all threads work on: some of a third cache


def _pad(size):
    """A little more: powers of two apart, the points would fall on the same places of the caches."""
    return size + 32


def _points(w, m, turned):
    """(U in panels, numbers between points) of a filter w, (O, 3, 3, C)."""
    o, c = w.shape[0], w.shape[3]
    stride = _pad(o * c)
    u = backend.workspace(((m + 2) ** 2 * stride,), w.dtype)
    width = lanes(w.dtype)
    if turned:  # rows o, columns c, the filter from its last tap to its first
        weights_to_points(w.reshape(-1), u, m, (o, c), (8 * c, 9 * c, -3 * c, -c), stride, width)
    else:  # rows c, columns o
        turn = backend.workspace((9 * c, o), w.dtype)  # until V is made
        transpose(w.reshape(o, -1), turn, width)
        weights_to_points(turn.reshape(-1), u, m, (c, o), (0, o, 3 * c * o, c * o), stride, width)
    return u, stride


def _correlate(x, w, bias, y, m, padding, turned):
    b, _, _, c = x.shape
    out_height, out_across, o = y.shape[1:]
    u, stride = _points(w, m, turned)
    threads, n = backend.threads(), m + 2
    tiles = b * -(-out_height // m) * -(-out_across // m)
    chunk = max(32, NEAR // (n * n * (c + o) * x.itemsize) // 8 * 8)
    chunk = max(8, min(chunk, -(-tiles // threads)))
    v = backend.workspace((threads, n * n * _pad(chunk * c)), x.dtype)
    z = backend.workspace((threads, n * n * _pad(chunk * o)), x.dtype)
    rows = np.arange(chunk) * np.array([[c], [o]])
    bias = zeros(o, x.dtype) if bias is None else bias
    correlate(x, u, bias, y, v, z, rows, (m, *padding, stride, run_of(c), lanes(x.dtype)))


def forward(x, w, bias, y, m, padding):
    """y = the convolution of x with w plus bias (or None); tiles of m x m outputs."""
    _correlate(x, w, bias, y, m, padding, False)


def backward_inputs(dy, w, dx, m, padding):
    """dx: the convolution of dy with w turned round, channels exchanged, padded by 2 - padding."""
    _correlate(dy, w, None, dx, m, (2 - padding[0], 2 - padding[1]), True)


def backward_weights(x, dy, dw, m, padding):
    """dW, (O, 3, 3, C)."""
    b, out_height, out_across, o = dy.shape
    c, points = x.shape[3], (m + 2) ** 2
    tiles = b * -(-out_height // m) * -(-out_across // m)
    chunk = max(DEPTH, SHARED // (points * (c + o) * x.itemsize) // DEPTH * DEPTH)
    chunk = min(chunk, tiles)
    stride, wide = _pad(o * c), panel(x.dtype)
    u = backend.workspace((points * stride,), x.dtype)
    v = backend.workspace((points * _pad(chunk * c),), x.dtype)
    z = backend.workspace((points * _pad(chunk * o),), x.dtype)
    rows = np.arange(wide) * np.array([[1], [c]])
    correlate_weights(x, dy, dw, u, v, z, rows, (m, chunk, *padding, stride, lanes(x.dtype)))
