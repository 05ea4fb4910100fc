"""3x3 convolutions of stride 1 by Winograd's minimal filtering.   Lavin & Gray, CVPR 2016; Winograd 1980.

With 1-D maps B', G, A' a tile of m x m outputs of a 3x3 filter g on a tile d of (m+2) x (m+2) inputs is

    Y = A' [ (G g G') . (B' d B) ] A

(. number by number): (m+2)^2 products instead of 9 m^2, summed over channels before the last map. So a layer is

    U[p] = G W G'    (C, O)        V[p] = B' d B    (T, C)        M[p] = V[p] U[p]    (T, O)        Y = A' M A

with T tiles and p over the (m+2)^2 points. m = 4: 4 times fewer products than the direct way, m = 2: 2.25 times. The
gradients are the adjoints of these maps: dx is the same convolution of dy with the filter turned round and its channels
exchanged, and

    dW = G' dU G,    dU[p] = V[p]' dM[p],    dM = A dY A'

Forward and dx: each thread takes some tiles at a time, so few that V and M stay in its second cache. V is made again
for dW: in the cache that costs less than 2.25 times the activations written and read once more.
"""

from functools import lru_cache

from npopt import backend

import numba
import numpy as np

from . import blocks
from .products import inside, jit, lanes, multiply_apart, panel, transpose, zeros

# The 1-D maps, from a list of values to a list of values; e: anything with + - and * by a number. The points of m = 4
# are 0, +-P, +-Q, infinity, of m = 2 0, +-1, infinity. Any P and Q give a convolution; rounding is least where
# the powers of both stay near 1: in float32, 5/8 and 3/2 leave an error of 7.6e-7 where 1 and 2, the usual ones, leave
# 1.7e-6, and direct sums 3.1e-7 (64 channels of normal numbers, relative norm).
P, Q = 5 / 8, 3 / 2
P2, Q2, P3, Q3 = P**2, Q**2, P**3, Q**3
AT_P, AT_Q = 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * Q2 * (Q2 - P2))  # 1 / prod (p - q) over the other points q


def inputs4(d):
    """B' for m = 4: 6 -> 6. Row p has the coefficients of prod (x - q) over the other points q."""
    d0, d1, d2, d3, d4, d5 = d
    a, b, c, e = d4 - Q2 * d2, P * d3 - P * Q2 * d1, d4 - P2 * d2, Q * d3 - Q * P2 * d1
    return [P2 * Q2 * d0 - (P2 + Q2) * d2 + d4, a + b, a - b, c + e, c - e, P2 * Q2 * d1 - (P2 + Q2) * d3 + d5]


def weights4(g):
    """G for m = 4: 3 -> 6. Row p is (1, p, p^2) / prod (p - q)."""
    g0, g1, g2 = g
    a, b = g0 * AT_P + g2 * (P2 * AT_P), g1 * (P * AT_P)
    c, d = g0 * AT_Q + g2 * (Q2 * AT_Q), g1 * (Q * AT_Q)
    return [g0 * (1 / (P2 * Q2)), a + b, a - b, c + d, c - d, g2 * 1.0]


def outputs4(m):
    """A' for m = 4: 6 -> 4. Column p is (1, p, p^2, p^3)."""
    m0, m1, m2, m3, m4, m5 = m
    a, b, c, d = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return [m0 + a + c, P * b + Q * d, P2 * a + Q2 * c, P3 * b + Q3 * d + m5]


def outputs4_adjoint(y):
    """A for m = 4: 4 -> 6."""
    y0, y1, y2, y3 = y
    a, b, c, d = y0 + P2 * y2, P * y1 + P3 * y3, y0 + Q2 * y2, Q * y1 + Q3 * y3
    return [y0 * 1.0, a + b, a - b, c + d, c - d, y3 * 1.0]


def weights4_adjoint(u):
    """G' for m = 4: 6 -> 3."""
    u0, u1, u2, u3, u4, u5 = u
    a, b, c, d = (u1 + u2) * AT_P, (u1 - u2) * AT_P, (u3 + u4) * AT_Q, (u3 - u4) * AT_Q
    return [u0 * (1 / (P2 * Q2)) + a + c, P * b + Q * d, P2 * a + Q2 * c + u5]


def inputs2(d):
    """B' for m = 2: 4 -> 4."""
    d0, d1, d2, d3 = d
    return [d0 - d2, d1 + d2, d2 - d1, d1 - d3]


def weights2(g):
    """G for m = 2: 3 -> 4."""
    g0, g1, g2 = g
    a, b = (g0 + g2) * 0.5, g1 * 0.5
    return [g0 * 1.0, a + b, a - b, g2 * 1.0]


def outputs2(m):
    """A' for m = 2: 4 -> 2."""
    m0, m1, m2, m3 = m
    return [m0 + m1 + m2, m1 - m2 - m3]


def outputs2_adjoint(y):
    """A for m = 2: 2 -> 4."""
    y0, y1 = y
    return [y0 * 1.0, y0 + y1, y0 - y1, y1 * -1.0]


def weights2_adjoint(u):
    """G' for m = 2: 4 -> 3."""
    u0, u1, u2, u3 = u
    a, b = (u1 + u2) * 0.5, (u1 - u2) * 0.5
    return [u0 + a, b * 1.0, a + u3]


of_input4, of_input2 = blocks.tile_transform(inputs4, 6, 6), blocks.tile_transform(inputs2, 4, 4)
of_weight4, of_weight2 = blocks.tile_transform(weights4, 3, 6), blocks.tile_transform(weights2, 3, 4)
of_product4 = blocks.tile_transform(outputs4, 6, 4, bias=True)
of_product2 = blocks.tile_transform(outputs2, 4, 2, bias=True)
of_output4, of_output2 = blocks.tile_transform(outputs4_adjoint, 4, 6), blocks.tile_transform(outputs2_adjoint, 2, 4)
to_weight4, to_weight2 = blocks.tile_transform(weights4_adjoint, 6, 3), blocks.tile_transform(weights2_adjoint, 4, 3)


@inside
def fetch(x, b, h, w, size, border):
    """(array, first, down, right) of the tile of size x size pixels whose corner is at (h, w): x itself or, where the
    tile reaches outside, a copy with zeros there."""
    _, height, width, c = x.shape
    flat = x.reshape(-1)
    if h >= 0 and w >= 0 and h + size <= height and w + size <= width:
        return flat, ((b * height + h) * width + w) * c, width * c, c
    for i in range(size):
        for j in range(size):
            to = border[(i * size + j) * c : (i * size + j + 1) * c]
            if 0 <= h + i < height and 0 <= w + j < width:
                at = ((b * height + h + i) * width + w + j) * c
                source = flat[at : at + c]
                for k in range(c):
                    to[k] = source[k]
            else:
                to[:] = 0
    return border, np.int64(0), size * c, c


@jit
def weights_to_points(w, u, m, outer, inner, first, down, right, row, stride, width):
    """U[p][panel][row][column] = G W G'. Tap (i, j) of row k and column l is w[first + k row + l + i down + j right];
    k < outer, l < inner, and point p starts at p stride."""
    n, wide = m + 2, 2 * width
    for row_number in numba.prange(outer):
        k = np.int64(row_number)
        for l0 in range(0, inner, wide):
            count = min(wide, inner - l0)
            at, to = first + k * row + l0, l0 * outer + k * count
            if m == 4:
                of_weight4(w, at, down, right, u, to, n * stride, stride, w, 0, count)
            else:
                of_weight2(w, at, down, right, u, to, n * stride, stride, w, 0, count)


@jit
def correlate(x, u, stride, bias, y, v, z, border, rows, m, top, left, run, width):
    """y = the convolution of x with the filter whose points are u, plus bias. v, z, border: (threads, ...)."""
    batch, height, across, c = x.shape
    _, out_height, out_across, o = y.shape
    n, flat, wide = m + 2, y.reshape(-1), 2 * width
    down, right = (out_height + m - 1) // m, (out_across + m - 1) // m
    tiles, threads, chunk = batch * down * right, v.shape[0], rows.shape[1]
    v_point, z_point = v.shape[1] // (n * n), z.shape[1] // (n * n)
    nothing = np.zeros(wide, x.dtype)
    for part in numba.prange(threads):
        first, last = tiles * np.int64(part) // threads, tiles * (np.int64(part) + 1) // threads
        mine, found, edge = v[part], z[part], border[part]
        for lo in range(first, last, chunk):
            count = min(chunk, last - lo)
            for t in range(count):
                b, i, j = (lo + t) // (down * right), (lo + t) // right % down, (lo + t) % right
                source, at, below, beside = fetch(x, b, i * m - top, j * m - left, n, edge)
                if m == 4:
                    of_input4(source, at, below, beside, mine, t * c, n * v_point, v_point, source, 0, c)
                else:
                    of_input2(source, at, below, beside, mine, t * c, n * v_point, v_point, source, 0, c)
            for p in range(n * n):
                for o0 in range(0, o, wide):
                    columns = min(wide, o - o0)
                    multiply_apart(
                        left=mine,
                        left_at=p * v_point,
                        left_rows=rows[0],
                        left_row=0,
                        left_jump=run,
                        left_step=1,
                        right=u,
                        right_at=p * stride + o0 * c,
                        right_step=columns,
                        out=found,
                        out_at=p * z_point + o0,
                        out_rows=rows[1],
                        out_row=0,
                        start=nothing,
                        start_at=0,
                        start_scale=0,
                        m=count,
                        n=columns,
                        times=c // run,
                        run=run,
                        width=width,
                    )
            for t in range(count):
                b, i, j = (lo + t) // (down * right), (lo + t) // right % down, (lo + t) % right
                h, w = i * m, j * m
                at = ((b * out_height + h) * out_across + w) * o
                cut = h + m > out_height or w + m > out_across
                to, to_at, below, beside = (edge, np.int64(0), m * o, o) if cut else (flat, at, out_across * o, o)
                if m == 4:
                    of_product4(found, t * o, n * z_point, z_point, to, to_at, below, beside, bias, 0, o)
                else:
                    of_product2(found, t * o, n * z_point, z_point, to, to_at, below, beside, bias, 0, o)
                if cut:
                    for e in range(min(m, out_height - h)):
                        for f in range(min(m, out_across - w)):
                            for k in range(o):
                                flat[at + (e * out_across + f) * o + k] = edge[(e * m + f) * o + k]


DEPTH = 128  # rows of a panel that the first cache holds, twice


@jit
def correlate_weights(x, dy, dw, u, stride, v, z, border, rows, m, chunk, top, left, width):
    """dW of the convolution; tiles by chunks, whose V and dM all threads share."""
    batch, _, _, c = x.shape
    _, out_height, out_across, o = dy.shape
    n, wide = m + 2, 2 * width
    down, right = (out_height + m - 1) // m, (out_across + m - 1) // m
    tiles, pieces, points = batch * down * right, border.shape[0], n * n
    v_point, z_point = v.size // points, z.size // points
    panels = (o + wide - 1) // wide
    nothing = np.zeros(wide, x.dtype)
    for lo in range(0, tiles, chunk):
        size = min(chunk, tiles - lo)
        for part in numba.prange(pieces):
            edge = border[part]
            for t in range(size * np.int64(part) // pieces, size * (np.int64(part) + 1) // pieces):
                b, i, j = (lo + t) // (down * right), (lo + t) // right % down, (lo + t) % right
                source, at, below, beside = fetch(x, b, i * m - top, j * m - left, n, edge)
                for c0 in range(0, c, wide):
                    count = min(wide, c - c0)
                    to = c0 * chunk + t * count
                    if m == 4:
                        of_input4(source, at + c0, below, beside, v, to, n * v_point, v_point, v, 0, count)
                    else:
                        of_input2(source, at + c0, below, beside, v, to, n * v_point, v_point, v, 0, count)
                source, at, below, beside = fetch(dy, b, i * m, j * m, m, edge)
                for o0 in range(0, o, wide):
                    count = min(wide, o - o0)
                    to = o0 * chunk + t * count
                    if m == 4:
                        of_output4(source, at + o0, below, beside, z, to, n * z_point, z_point, z, 0, count)
                    else:
                        of_output2(source, at + o0, below, beside, z, to, n * z_point, z_point, z, 0, count)
        for item in numba.prange(points * panels):
            p, o0 = np.int64(item) // panels, np.int64(item) % panels * wide
            high = min(wide, o - o0)
            for c0 in range(0, c, wide):
                count, to = min(wide, c - c0), p * stride + o0 * c + c0
                for k in range(0, size, DEPTH):
                    add = lo > 0 or k > 0
                    start, begin = (u, to) if add else (nothing, np.int64(0))
                    multiply_apart(
                        left=z,
                        left_at=p * z_point + o0 * chunk + k * high,
                        left_rows=rows[0],
                        left_row=0,
                        left_jump=0,
                        left_step=high,
                        right=v,
                        right_at=p * v_point + c0 * chunk + k * count,
                        right_step=count,
                        out=u,
                        out_at=to,
                        out_rows=rows[1],
                        out_row=0,
                        start=start,
                        start_at=begin,
                        start_scale=np.int64(add),
                        m=high,
                        n=count,
                        times=1,
                        run=min(DEPTH, size - k),
                        width=width,
                    )
    out = dw.reshape(-1)
    for k in numba.prange(o):
        at, to = np.int64(k) * c, np.int64(k) * 9 * c
        if m == 4:
            to_weight4(u, at, n * stride, stride, out, to, 3 * c, c, u, 0, c)
        else:
            to_weight2(u, at, n * stride, stride, out, to, 3 * c, c, u, 0, c)


RUN = 64  # channels whose products are summed by themselves, at most


@lru_cache(maxsize=256)
def run_of(c):
    """The largest divisor of c up to RUN, unless that is small: then c."""
    return next((r for r in range(min(RUN, c), 31, -1) if c % r == 0), c)


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
        weights_to_points(w.reshape(-1), u, m, o, c, 8 * c, -3 * c, -c, 9 * c, stride, width)
    else:  # rows c, columns o
        turn = backend.workspace((9 * c, o), w.dtype)  # until V is made
        transpose(w.reshape(o, -1), turn, width)
        weights_to_points(turn.reshape(-1), u, m, c, o, 0, 3 * c * o, c * o, o, stride, width)
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
    border = backend.workspace((threads, n * n * max(c, o)), x.dtype)
    rows = np.arange(chunk) * np.array([[c], [o]])
    correlate(
        x,
        u,
        stride,
        zeros(o, x.dtype) if bias is None else bias,
        y,
        v,
        z,
        border,
        rows,
        m,
        *padding,
        run_of(c),
        lanes(x.dtype),
    )


def forward(x, w, bias, y, m, padding):
    """y = the convolution of x with w plus bias (or None); tiles of m x m outputs."""
    _correlate(x, w, bias, y, m, padding, False)


def backward_inputs(dy, w, dx, m, padding):
    """dx: the convolution of dy with w turned round, channels exchanged, padded by 2 - padding."""
    _correlate(dy, w, None, dx, m, (2 - padding[0], 2 - padding[1]), True)


def backward_weights(x, dy, dw, m, padding):
    """dW, (O, 3, 3, C)."""
    b, out_height, out_across, o = dy.shape
    c, n, points = x.shape[3], m + 2, (m + 2) ** 2
    tiles = b * -(-out_height // m) * -(-out_across // m)
    chunk = max(DEPTH, SHARED // (points * (c + o) * x.itemsize) // DEPTH * DEPTH)
    chunk = min(chunk, tiles)
    stride, wide = _pad(o * c), panel(x.dtype)
    u = backend.workspace((points * stride,), x.dtype)
    v = backend.workspace((points * _pad(chunk * c),), x.dtype)
    z = backend.workspace((points * _pad(chunk * o),), x.dtype)
    border = backend.workspace((16, n * n * max(c, o)), x.dtype)
    rows = np.arange(wide) * np.array([[1], [c]])
    correlate_weights(x, dy, dw, u, stride, v, z, border, rows, m, chunk, *padding, lanes(x.dtype))
