"""Numba loops in place of array code, where NumPy is clearly slow on a CPU: same arguments, same results.

simd emits vector instructions from plain Python over Lanes; blocks makes of them the register block of a matrix
product, a linear map on both axes of a small tile, a 2 x 2 maximum, a transposition. products strings register blocks
together for use inside numba loops. Around them are matrices (linear layers: a BLAS library's threads would have to be
woken around each), direct with its direct_loops (any convolution, on the images themselves, no columns written),
winograd with its winograd_maps (3x3 of stride 1), norms, pooling, recurrent with its recurrent_parts and cells (LSTM,
GRU), attention_blocks with its attention_parts, gates, and rows (norms of rows). functions has tanh and exp.
`algorithm` chooses between direct and winograd.
For dW Winograd's V is made again: in the cache that is cheaper than to keep 2.25 times the activations. No result
depends on the number of threads.

Measured: benchmarks/results/nn_cpu.txt (steps beside PyTorch) and nn_layers.txt (each pass beside the machine's
limits).
"""

from npopt.backend import elementwise
from npopt.backend.once import inside, jit, once

import numba
import numpy as np
import scipy.special

from . import direct, winograd
from .functions import exp
from .matrices import SMALL
from .products import lanes

NO_ROWS = np.empty(0, np.int64)


def gather_images(data, rows, moves, scale, shift, out):
    rows = NO_ROWS if rows is None else rows
    if moves is None:
        _copy_images(data, rows, scale, shift, out)
    else:
        _gather_images(data, rows, moves, scale, shift, out)


@once
def copy_image(source, times, plus, out):
    source, to = source.reshape(-1), out.reshape(-1)
    for j in range(to.size):
        to[j] = times[j] * source[j] + plus[j]


@jit
def _copy_images(data, rows, scale, shift, out):
    batch, height, width, c = out.shape
    size = height * width * c  # the channels' numbers for every pixel: one long plain loop
    times, plus = np.empty(size, out.dtype), np.empty(size, out.dtype)
    for j in range(size):
        times[j], plus[j] = scale[j % c], shift[j % c]
    for number in numba.prange(batch):
        b = np.int64(number)
        copy_image(data[rows[b] if rows.size else b], times, plus, out[b])


@once
def move_image(image, move, scale, shift, out):
    (height, width, c), down, right, flip = out.shape, move[0], move[1], move[2]
    for i in range(height):
        h = i + down
        for j in range(width):
            w = (width - 1 - j if flip else j) + right
            if 0 <= h < height and 0 <= w < width:
                for k in range(c):
                    out[i, j, k] = scale[k] * image[h, w, k] + shift[k]
            else:
                for k in range(c):
                    out[i, j, k] = shift[k]


@jit
def _gather_images(data, rows, moves, scale, shift, out):
    for number in numba.prange(len(out)):
        b = np.int64(number)  # prange counts unsigned
        move_image(data[rows[b] if rows.size else b], moves[b], scale, shift, out[b])


@elementwise
def _relu(y, x):
    y = x if x > 0 or x != x else 0.0  # NaN stays
    return y


def relu(x, y):
    _relu(y, x)


@elementwise
def _relu_backward(dx, dy, y):
    dx = dy if y > 0 else 0.0
    return dx


@elementwise
def _cut(dy, y):
    dy = dy if y > 0 else 0.0
    return dy


def relu_backward(y, dy, dx):
    if dx is dy:  # said so: of two arguments that overlap no loop makes vectors
        _cut(dy, y)
    else:
        _relu_backward(dx, dy, y)


def algorithm(kernel, stride, padding, out, c, o):
    """m for Winograd's F(m x m, 3 x 3), 0 for the direct way, by the products that each needs and what was measured.

    A tile of m x m outputs takes (m + 2)^2 products for each pair of channels, and the maps about as much work as MAPS
    more channels; the direct way takes 9 for each output. Winograd's form works on whole vectors of channels.
    """
    if tuple(kernel) != (3, 3) or tuple(stride) != (1, 1) or max(padding) > 2:
        return 0
    vectors_c, vectors_o = (-(-n // LANES) * LANES for n in (c, o))

    def cost(m):
        tiles = -(-out[0] // m) * -(-out[1] // m)
        return tiles * (m + 2) ** 2 * (c * vectors_o + MAPS * (vectors_c + vectors_o))

    return min(tiles, key=lambda m: cost(m) if m else 9 * out[0] * out[1] * c * o)


MAPS = 16
LANES = lanes(np.float32)
tiles = (0, 2, 4)  # what may be chosen; kernels.use sets it


def convolve(x, w, bias, y, stride, padding):
    m = algorithm(w.shape[1:3], stride, padding, y.shape[1:3], w.shape[3], w.shape[0])
    if m:
        winograd.forward(x, w, bias, y, m, padding)
    else:
        direct.forward(x, w, bias, y, stride, padding)


def convolve_inputs(dy, w, dx, stride, padding):
    m = algorithm(w.shape[1:3], stride, padding, dx.shape[1:3], w.shape[3], w.shape[0])
    if m:
        winograd.backward_inputs(dy, w, dx, m, padding)
    else:
        direct.backward_inputs(dy, w, dx, stride, padding)


def convolve_weights(x, dy, dw, stride, padding):
    m = algorithm(dw.shape[1:3], stride, padding, dy.shape[1:3], dw.shape[3], dw.shape[0])
    if m:
        winograd.backward_weights(x, dy, dw, m, padding)
    else:
        direct.backward_weights(x, dy, dw, stride, padding)


MANY = 64  # classes from which on a row of softmax is taken in vectors


def softmax(z, t, smoothing, weights, p, rows):
    loop = _softmax if z.size > SMALL else _softmax_alone
    loop(z, t, smoothing, rows if weights is None else weights, weights is not None, p, rows)


@inside
def _softmax_row(z, t, smoothing, factor, p):
    """The loss of one row; p = factor times its gradient."""
    k = z.size
    share, top = smoothing / k, z[0]
    for j in range(1, k):
        top = z[j] if z[j] > top or z[j] != z[j] else top
    total, mean = 0.0, 0.0
    for j in range(k):
        p[j] = np.exp(z[j] - top)
        total += p[j]
        mean += z[j] - top
    loss = np.log(total) - (1 - smoothing) * (z[t] - top)
    if smoothing > 0:  # a logit may be -inf
        loss -= share * mean
    for j in range(k):
        p[j] = factor * (p[j] / total - share)
    p[t] -= factor * (1 - smoothing)
    return loss


@inside
def _softmax_wide_row(z, t, smoothing, factor, p):
    """The same for many classes, in loops that make vectors: maxima and sums run in LANES partial ones."""
    k, whole = z.size, z.size // LANES * LANES
    tops, sums = np.full(LANES, z[0], z.dtype), np.zeros(LANES)
    for j in range(0, whole, LANES):
        part = z[j : j + LANES]
        for i in range(LANES):
            tops[i] = part[i] if part[i] > tops[i] or part[i] != part[i] else tops[i]
    top = tops[0]
    for i in range(1, LANES):
        top = tops[i] if tops[i] > top or tops[i] != tops[i] else top
    for j in range(whole, k):
        top = z[j] if z[j] > top or z[j] != z[j] else top
    for j in range(k):
        p[j] = exp(z[j] - top)
    for j in range(0, whole, LANES):
        part = p[j : j + LANES]
        for i in range(LANES):
            sums[i] += part[i]
    total = 0.0
    for i in range(LANES):
        total += sums[i]
    for j in range(whole, k):
        total += p[j]
    loss, share = np.log(total) - (1 - smoothing) * (z[t] - top), smoothing / k
    if smoothing > 0:  # a logit may be -inf
        mean = 0.0
        for j in range(k):
            mean += z[j] - top
        loss -= share * mean
    scale, shift = p.dtype.type(factor / total), p.dtype.type(factor * share)
    for j in range(k):
        p[j] = p[j] * scale - shift
    p[t] -= factor * (1 - smoothing)
    return loss


@once
def _softmax_one(b, z, t, smoothing, weights, weighted, p, rows):
    factor = (weights[b] if weighted else 1.0) / len(rows)
    if z.shape[1] >= MANY:
        rows[b] = _softmax_wide_row(z[b], t[b], smoothing, factor, p[b])
    else:
        rows[b] = _softmax_row(z[b], t[b], smoothing, factor, p[b])


@inside
def _softmax_alone(z, t, smoothing, weights, weighted, p, rows):
    for b in range(len(rows)):
        _softmax_one(b, z, t, smoothing, weights, weighted, p, rows)


@jit
def _softmax(z, t, smoothing, weights, weighted, p, rows):
    for b in numba.prange(len(rows)):
        _softmax_one(np.int64(b), z, t, smoothing, weights, weighted, p, rows)


def erf(x):
    scipy.special.erf(x, out=x)
