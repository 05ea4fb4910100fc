"""3x3 convolutions of stride 1 by Winograd's F(4 x 4, 3 x 3), as in nn/kernels/winograd.py: Lavin & Gray, CVPR 2016.

    U[p] = G W G'  (O, C)     V[p] = B' d B  (T, C)     M[p] = V[p] U[p]'  (T, O)     Y = A' M A + bias

for the 36 points p and T tiles of 4 x 4 outputs: 36 products of matrices in one call of cuBLAS, 72 T C O operations
where columns need 18 P C O, P = 16 T: 4 times fewer. Bytes, s a number's, beside x and y:

    forward, dx     V and M written and read, 72 T (C + O) s; U written and read, 72 C O s
    dW              V and dM written and read, 72 T (C + O) s; dU in parts, at most FILL tiles of 128 x 128 numbers

where columns need 288 T C s. dx is the same convolution of dy, the filter turned round; dW = G' (dM' V) G with
dM = A dY A'. (Computed, not measured.)
"""

import functools

from npopt import backend

from .launch import Program, blocks

program = Program("winograd.cu")
FILL = 512  # tiles of 128 x 128 outputs in work, over all points
OPERATIONS = 16  # operations that take the time of a byte of memory traffic: 50 TFLOP/s against 3 TB/s


def wins(kernel, stride, padding, count, c, o, dtype):
    """Whether Winograd's way is the faster one by operations and bytes; outputs (H', W') are `count`.

    Not in TF32: the maps cancel, and would leave few of its 10 bits.
    """
    if tuple(kernel) != (3, 3) or tuple(stride) != (1, 1) or max(padding) > 2:
        return False
    tiles, positions = blocks(count[0], 4) * blocks(count[1], 4), count[0] * count[1]
    ours = 72 * tiles * (c * o + OPERATIONS * dtype.itemsize * (c + o))
    return ours < 18 * positions * (c * o + OPERATIONS * dtype.itemsize * c)


def convolve(x, w, bias, y, padding, most):
    """y_bhwo = sum_{i,j,c} w_oijc x_{b, h + i - p, w + j - p, c} + bias_o; most: bytes of V and M at a time."""
    _convolve(x, _points(w, False), True, bias, y, padding, most)


def convolve_inputs(dy, w, dx, padding, most):
    """dx_bhwc = sum_{i,j,o} w_{o, 2-i, 2-j, c} dy_{b, h + i - (2-p), w + j - (2-p), o}."""
    _convolve(dy, _points(w, True), False, None, dx, tuple(2 - p for p in padding), most)


def convolve_weights(x, dy, dw, padding, most):
    """dw = G' (sum of dM' V over the tiles) G."""
    o, c = dw.shape[0], dw.shape[3]
    device, tiles = backend.owner(x), (blocks(dy.shape[1], 4), blocks(dy.shape[2], 4))
    for i, part in enumerate(_chunks(x, tiles, c + o, most)):
        v, m = _inputs(x[part], tiles, padding), _outputs_adjoint(dy[part], tiles)
        parts = _parts(v.shape[1], o, c)
        sums = backend.workspace((36 * parts, o, c), dw.dtype)
        device.products(m.reshape(36 * parts, -1, o), v.reshape(36 * parts, -1, c), sums, turn_a=True)
        program.each("winograd_weights_adjoint", o * c, sums, dw, parts, int(i > 0), c)
        del v, m, sums  # their memory is the next chunk's


def _convolve(x, u, turned, bias, y, padding, most):
    """y from the points u of the filters: (36, y's channels, x's) where `turned`, else (36, x's channels, y's)."""
    c, o = x.shape[3], y.shape[3]
    device, tiles = backend.owner(x), (blocks(y.shape[1], 4), blocks(y.shape[2], 4))
    for part in _chunks(x, tiles, c + o, most):
        v, to = _inputs(x[part], tiles, padding), y[part]
        m = backend.workspace((36, v.shape[1], o), x.dtype)
        device.products(v, u, m, turn_b=turned)
        program.each("winograd_outputs", m.shape[1] * o, m, bias, to, *to.shape[1:3], *tiles, o)
        del v, m


def _points(w, turn):
    """(36, O, C) of filters (O, 3, 3, C)."""
    o, c = w.shape[0], w.shape[3]
    u = backend.workspace((36, o, c), w.dtype)
    program.each("winograd_weights", o * c, w, u, int(turn), c)
    return u


def _inputs(x, tiles, padding):
    """(36, tiles, C) of images (B, H, W, C)."""
    count, c = x.shape[0] * tiles[0] * tiles[1], x.shape[3]
    v = backend.workspace((36, count, c), x.dtype)
    program.each("winograd_inputs", count * c, x, v, *x.shape[1:3], *tiles, *padding, c)
    return v


def _outputs_adjoint(dy, tiles):
    """(36, tiles, O) of the gradients of outputs, (B, H', W', O)."""
    count, o = dy.shape[0] * tiles[0] * tiles[1], dy.shape[3]
    m = backend.workspace((36, count, o), dy.dtype)
    program.each("winograd_outputs_adjoint", count * o, dy, m, *dy.shape[1:3], *tiles, o)
    return m


@functools.lru_cache(maxsize=1024)
def _parts(rows, m, n):
    """Parts of dU's sum over so many tiles, equally long, at least 64 each."""
    most = min(FILL // (36 * blocks(m, 128) * blocks(n, 128)), rows // 64)
    return next((p for p in range(most, 1, -1) if rows % p == 0), 1)


def _chunks(x, tiles, channels, most):
    """Slices of the batch, nearly equal. The points of a slice take at most `most` bytes, or are one image's."""
    batch, row = x.shape[0], 36 * tiles[0] * tiles[1] * channels * x.itemsize
    pieces = -(-batch // max(1, most // row))
    ends = [batch * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]
