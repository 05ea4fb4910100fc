"""Convolutions of any kernel and stride as matrix products on the images themselves: no columns are written.

In NHWC the taps of one kernel row are neighbours: kw C numbers in a row. So with zeros around the image, output
position q is the sum over kernel rows i of a product of kw C numbers, and rows of positions form a matrix whose row q
starts at (s h Wp + s w) C. Register blocks read it there.

dx is the same on dy. Its pixels h fall into s classes by e = (h + p) mod s; a class meets the taps i = e, e + s, ... :

    dx_h = sum_r W_(e + s r)' dy_((h + p - e)/s - r)

which is a convolution of stride 1 of dy with every s-th tap, turned round. Where x has few channels, dx is instead the
sum of the windows W' dy_q: their rows are kw C numbers long, and no tap meets a border. Windows of one column of
positions do not meet within a kernel row, so register blocks add to dx itself. dW = dy' columns goes panel by panel of
columns, gathered for some positions at a time.
"""

from functools import lru_cache
from math import gcd, prod

from npopt import backend

import numpy as np

from .direct_loops import correlate, correlate_images, correlate_weights, pack, scatter
from .products import ROWS, lanes, panel, transpose, zeros

ENOUGH = 64  # positions that share one pass over the weights


@lru_cache(maxsize=256)
def weights_plan(rows, columns, c, wide, o):
    """Where tap and channel k of the first window lies in an image, where row k of dW' lies: (2, K)."""
    starts = np.arange(rows).reshape(-1, 1) * wide * c + np.arange(columns * c)
    return np.stack([starts.reshape(-1), np.arange(starts.size) * o])


@lru_cache(maxsize=256)
def forward_plan(image, out, channels, o, kernel, stride, padding, group):
    """(buffer height, width, starts and ends, phases) of a convolution."""
    (height, width), (rows, columns) = image, out
    high, wide = height + 2 * padding[0], width + 2 * padding[1]
    h, w = np.arange(rows).reshape(1, -1, 1) * stride[0], np.arange(columns).reshape(1, 1, -1) * stride[1]
    n = np.arange(group).reshape(-1, 1, 1)
    starts = ((n * high + h) * wide + w).reshape(-1) * channels
    phases = np.array([[0, rows * columns, 0, kernel[0], kernel[1] * channels]])
    return high, wide, np.stack([starts, np.arange(starts.size) * o]), phases


@lru_cache(maxsize=256)
def backward_plan(image, out, channels, o, kernel, stride, padding, group):
    """(buffer height, width, top, left, starts and ends, phases, taps of each phase, whether to clear dx), or None."""
    before = [-(-k // s) - 1 for k, s in zip(kernel, stride, strict=True)]
    behind = [max(0, (n - 1 + p) // s - (r - 1)) for n, p, s, r in zip(image, padding, stride, out, strict=True)]
    high, wide = (b + r + a for b, r, a in zip(before, out, behind, strict=True))
    starts, ends, phases, taps, clear, first, begin = [], [], [], [], False, 0, 0
    n = np.arange(group).reshape(-1, 1, 1)
    for e in np.ndindex(*stride):
        pixels = [np.arange((a - p) % s, size, s) for a, p, s, size in zip(e, padding, stride, image, strict=True)]
        mine = [list(range(a, k, s))[::-1] for a, k, s in zip(e, kernel, stride, strict=True)]
        if not all(len(p) for p in pixels):
            continue
        if not all(mine):
            clear = True
            continue
        h, w = (
            (v + p - a) // s - (len(t) - 1) + b
            for v, p, a, s, t, b in zip(pixels, padding, e, stride, mine, before, strict=True)
        )
        start = ((n * high + h.reshape(1, -1, 1)) * wide + w.reshape(1, 1, -1)).reshape(-1) * o
        end = ((n * image[0] + pixels[0].reshape(1, -1, 1)) * image[1] + pixels[1].reshape(1, 1, -1)).reshape(-1)
        starts.append(start)
        ends.append(end * channels)
        phases.append([first, start.size // group, begin, len(mine[0]), len(mine[1]) * o])
        taps.append([(i, j) for i in mine[0] for j in mine[1]])
        first, begin = first + start.size, begin + len(taps[-1]) * o * channels
    if not starts:  # no pixel meets a tap
        return None
    rows = np.stack([np.concatenate(starts), np.concatenate(ends)])
    return high, wide, *before, rows, np.array(phases), taps, clear


def _group(positions, batch):
    return max(1, min(-(-ENOUGH // positions), batch))


def _buffers(x, group, high, wide):
    """A place for each thread to surround images of x with zeros; nobody writes its border."""
    found = backend.workspace((backend.threads(), group * high * wide * x.shape[3]), x.dtype)
    found[...] = 0
    return found


@lru_cache(maxsize=256)
def side_by_side(o, across, columns, stride, lanes):
    """How many neighbouring outputs to treat as one with so many times the channels: few channels would leave most of a
    vector empty. f of them are a convolution of stride f s whose kernel has s (f - 1) more columns."""

    def cost(f):
        return -(-f * o // lanes) * (columns + stride * (f - 1)) / f

    return min((f for f in range(1, 9) if across % f == 0), key=cost)


def forward(x, w, bias, y, stride, padding):
    """y_bhwo = sum_ijc W_oijc x_{b, s h + i - p, s w + j - p, c} + bias_o."""
    batch, *image, c = x.shape
    out, o, (rows, columns), width = y.shape[1:3], y.shape[3], w.shape[1:3], lanes(x.dtype)
    f = side_by_side(o, out[1], columns, stride[1], width)
    if f > 1:
        w = beside(w, f, stride[1])
        o, out, columns = f * o, (out[0], out[1] // f), w.shape[2]
        y, stride = y.reshape(batch, *out, o), (stride[0], stride[1] * f)
        bias = None if bias is None else np.tile(bias, f)
    group = _group(prod(out), batch)
    high, wide, places, phases = forward_plan(tuple(image), out, c, o, (rows, columns), stride, padding, group)
    turned = backend.workspace((w.size // o, o), w.dtype)
    packed = backend.workspace((w.size,), w.dtype)
    transpose(w.reshape(o, -1), turned, width)
    pack(turned, packed, 2 * width)
    buffers = _buffers(x, group, high, wide)
    bias = zeros(o, x.dtype) if bias is None else bias
    correlate(x, packed, bias, y, buffers, places, phases, (group, *padding, high, wide, False, width))


@lru_cache(maxsize=256)
def scatter_plan(image, out, channels, o, kernel, stride, padding, group):
    """(buffer height, width, starts and ends) of dx as sums of windows, column by column."""
    high, wide = (
        max(n + 2 * p, (r - 1) * s + k) for n, p, r, s, k in zip(image, padding, out, stride, kernel, strict=True)
    )
    w, n, h = np.ix_(np.arange(out[1]), np.arange(group), np.arange(out[0]))
    starts = ((n * out[0] + h) * out[1] + w).reshape(-1) * o
    ends = ((n * high + h * stride[0]) * wide + w * stride[1]).reshape(-1) * channels
    return high, wide, np.stack([starts, ends])


def scattered(dy, w, dx, stride, padding):
    """dx as the sum of the windows that dy weights: every product counts, and few channels fill vectors with taps."""
    batch, down, across, o = dy.shape
    (rows, columns), c, width = w.shape[1:3], dx.shape[3], lanes(dy.dtype)
    f = neighbours(across, o, columns, c, stride[1], width)
    if f > 1:
        w, stride = beside(w, f, stride[1]), (stride[0], stride[1] * f)
        dy, o, across, columns = dy.reshape(batch, down, across // f, f * o), f * o, across // f, w.shape[2]
    group, run = min(ROWS // gcd(ROWS, down), batch), columns * c
    image, out = dx.shape[1:3], (down, across)
    high, wide, places = scatter_plan(image, out, c, o, (rows, columns), stride, padding, group)
    packed = backend.workspace((rows * o * run,), w.dtype)
    for i in range(rows):
        pack(w[:, i].reshape(o, run), packed[i * o * run : (i + 1) * o * run], 2 * width)
    buffers = backend.workspace((backend.threads(), group * high * wide * c), dx.dtype)
    scatter(dy, packed, dx, buffers, places, (group, *padding, high, wide, down, run, width))


@lru_cache(maxsize=256)
def neighbours(across, o, columns, c, stride, width):
    """How many neighbouring positions to treat as one with so many times the channels, so that a kernel row fills a
    vector: the largest number that costs least."""

    def cost(f):
        return -(-(columns + stride * (f - 1)) * c // width)

    return min((f for f in range(1, across + 1) if across % f == 0), key=lambda f: (cost(f), -f))


def beside(w, f, stride):
    """The weights of f neighbouring outputs as channels of one: (f O, kh, kw + s (f - 1), C)."""
    o, rows, columns, c = w.shape
    wider = backend.workspace((f, o, rows, columns + stride * (f - 1), c), w.dtype)
    wider[...] = 0
    for k in range(f):
        wider[k, :, :, k * stride : k * stride + columns] = w
    return wider.reshape(f * o, rows, -1, c)


def backward_inputs(dy, w, dx, stride, padding):
    """dx of the convolution."""
    if dx.shape[3] < lanes(dy.dtype):
        scattered(dy, w, dx, stride, padding)
        return
    batch, *image, c = dx.shape
    out, o, kernel = dy.shape[1:3], dy.shape[3], w.shape[1:3]
    if stride == (1, 1) and all(p < k for p, k in zip(padding, kernel, strict=True)):
        turned = np.ascontiguousarray(w[:, ::-1, ::-1].transpose(3, 1, 2, 0))
        forward(dy, turned, None, dx, stride, tuple(k - 1 - p for p, k in zip(padding, kernel, strict=True)))
        return
    group = _group(prod(image) // prod(stride) or 1, batch)
    plan = backward_plan(tuple(image), out, c, o, kernel, stride, padding, group)
    if plan is None:
        dx[...] = 0
        return
    high, wide, top, left, places, phases, taps, clear = plan
    packed = backend.workspace((sum(map(len, taps)) * o * c,), w.dtype)
    turned = backend.workspace((w.size,), w.dtype)
    for (_, _, begin, _, _), some in zip(phases, taps, strict=True):
        these = turned[: len(some) * o * c].reshape(len(some), o, c)
        for k, (i, j) in enumerate(some):
            these[k] = w[:, i, j]
        pack(these.reshape(-1, c), packed[begin : begin + these.size], panel(w.dtype))
    buffers = _buffers(dy, group, high, wide)
    plan = (group, top, left, high, wide, clear, lanes(dy.dtype))
    correlate(dy, packed, zeros(c, dy.dtype), dx, buffers, places, phases, plan)


CHUNK = 256  # positions whose columns are gathered at a time, or a line if that is longer
PARTIAL = 4 << 20  # bytes of partial sums of dW, beyond one
FEW, NEAR = 16, 512 << 10  # positions of an image that are enough where the sums of dW stay in a second cache: bytes


def backward_weights(x, dy, dw, stride, padding):
    """dW, (O, kh, kw, C). Images with many positions one by one, others by columns gathered from several images."""
    batch, down, across, o = dy.shape
    f = side_by_side(o, across, dw.shape[2], stride[1], lanes(x.dtype))
    if f > 1:  # neighbouring outputs as channels: see there
        shape = (f, o, dw.shape[1], dw.shape[2] + stride[1] * (f - 1), dw.shape[3])
        wider = backend.workspace(shape, dw.dtype)
        dy, flat = dy.reshape(batch, down, across // f, f * o), wider.reshape(f * o, *shape[2:])
        backward_weights_of(x, dy, flat, (stride[0], stride[1] * f), padding)
        dw[...] = wider[0, :, :, : dw.shape[2]]
        for k in range(1, f):
            dw += wider[k, :, :, k * stride[1] : k * stride[1] + dw.shape[2]]
    else:
        backward_weights_of(x, dy, dw, stride, padding)


def backward_weights_of(x, dy, dw, stride, padding):
    o, (rows, columns), c, width = dw.shape[0], dw.shape[1:3], dw.shape[3], lanes(x.dtype)
    depth, out = dw.size // o, dy.shape[1:3]
    parts = max(1, min(16, PARTIAL // dw.nbytes))
    if prod(out) >= ENOUGH or prod(out) >= FEW and dw.nbytes <= NEAR:
        high, wide = (n + 2 * p for n, p in zip(x.shape[1:3], padding, strict=True))
        partial = backend.workspace((parts, depth, o), dw.dtype)
        places, buffers = weights_plan(rows, columns, c, wide, o), _buffers(x, 1, high, wide)
        plan = (*stride, *padding, high, wide, width)
        correlate_images(x, dy, dw.reshape(o, depth), partial, buffers, places, plan)
        return
    partial = dw.reshape(1, o, depth) if parts == 1 else backend.workspace((parts, o, depth), dw.dtype)
    lines = max(1, CHUNK // out[1])
    buffers = backend.workspace((backend.threads(), lines * out[1] * panel(x.dtype)), x.dtype)
    places = np.arange(o) * np.array([[1], [depth]])
    correlate_weights(x, dy, dw, partial, buffers, places, (columns, *stride, *padding, lines, width))
