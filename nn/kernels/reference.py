"""The reference path: array code that runs on NumPy and CuPy alike."""

from math import pi, sqrt

from npopt.backend import xp

NAMES = (
    "gather_windows", "sum_windows", "gather_images", "moments", "normalise", "normalise_sums", "normalise_backward",
    "relu_backward", "max_pool", "max_pool_backward", "erf",
)


def _span(size, count, stride, shift):
    """Outputs i in [lo, hi) whose input stride i + shift lies inside, as (slice of inputs, slice of outputs)."""
    lo = max(0, -(shift // stride))                     # stride lo + shift >= 0
    hi = min(count, (size - 1 - shift) // stride + 1)   # stride (hi - 1) + shift <= size - 1
    if hi <= lo:
        return slice(0, 0), slice(0, 0)
    first = stride * lo + shift
    return slice(first, first + stride * (hi - lo - 1) + 1, stride), slice(lo, hi)


def taps(inputs, outputs, kernel, stride, padding):
    """((i, j), index into inputs, index into outputs) for each tap of a window, over shapes (B, H, W, C).

    Output (h, w) meets input (s h + i - p, s w + j - p) at tap (i, j). Within one tap no input occurs twice.
    """
    for i in range(kernel[0]):
        rows, out_rows = _span(inputs[1], outputs[1], stride[0], i - padding[0])
        for j in range(kernel[1]):
            columns, out_columns = _span(inputs[2], outputs[2], stride[1], j - padding[1])
            yield (i, j), (slice(None), rows, columns), (slice(None), out_rows, out_columns)


def gather_windows(x, out, stride, before):
    """out[b, h, w, i, j] = x[b, s h + i - before, s w + j - before], zero outside.

    x: (B, H, W, C)   out: (B, H', W', kh, kw, C)
    """
    if before != (0, 0) or any(s * (n - 1) + k > size for s, n, k, size in
                               zip(stride, out.shape[1:3], out.shape[3:5], x.shape[1:3], strict=True)):
        out[...] = 0
    for (i, j), here, there in taps(x.shape, out.shape, out.shape[3:5], stride, before):
        out[(*there, i, j)] = x[here]


def sum_windows(columns, dx, stride, before):
    """dx[b, h, w] = sum of columns[b, h', w', i, j] over the windows and taps that read it: gather_windows' adjoint.

    columns: (B, H', W', kh, kw, C)   dx: (B, H, W, C)
    """
    dx[...] = 0
    for (i, j), here, there in taps(dx.shape, columns.shape, columns.shape[3:5], stride, before):
        target = dx[here]
        target += columns[(*there, i, j)]


def gather_images(data, rows, moves, scale, shift, out):
    """out[b] = scale data[rows[b]] + shift, moved: pixel (h, w) comes from (h + moves[b, 0], w' + moves[b, 1]).

    w' = W - 1 - w where moves[b, 2] is 1, else w; outside the image the pixel is 0 before scaling.
    data: (n, H, W, C)   rows: (B,) whole numbers, None for all   moves: (B, 3) whole numbers, or None
    scale, shift: (C,)   out: (B, H, W, C)
    """
    m = xp(data)
    if moves is None:
        picked = data if rows is None else data[rows]
    else:
        h, w = data.shape[1:3]
        rows = m.arange(out.shape[0]) if rows is None else rows
        down, right = m.arange(h).reshape(1, -1), m.arange(w).reshape(1, -1)
        flipped = right + moves[:, 2:] * (w - 1 - 2 * right)
        down, right = down + moves[:, :1], flipped + moves[:, 1:2]
        inside = ((down >= 0) & (down < h))[:, :, None] & ((right >= 0) & (right < w))[:, None, :]
        down, right = m.clip(down, 0, h - 1), m.clip(right, 0, w - 1)
        picked = data[rows[:, None, None], down[:, :, None], right[:, None, :]] * inside[..., None]
    m.multiply(picked, scale, out=out)
    out += shift


def moments(x, mean, variance, ctx):
    """mean and biased variance of the columns of x, (N, D)."""
    m, n = xp(x), x.shape[0]
    one, square = ctx.ones(n, x.dtype), ctx.scratch("kernel a", x.shape, x.dtype)
    m.matmul(one, x, out=mean.reshape(1, -1))
    mean *= 1 / n
    m.subtract(x, mean, out=square)
    square *= square
    m.matmul(one, square, out=variance.reshape(1, -1))
    variance *= 1 / n


def normalise(x, mean, scale, offset, y):
    """y = (x - mean) scale + offset; x, y: (N, D), the others (D,)."""
    xp(x).subtract(x, mean, out=y)
    y *= scale
    y += offset


def normalise_sums(x, mean, r, dy, da, db, ctx):
    """da = r sum_n dy_n (x_n - mean), db = sum_n dy_n; x, dy: (N, D), the others (D,)."""
    m, one, product = xp(x), ctx.ones(x.shape[0], x.dtype), ctx.scratch("kernel a", x.shape, x.dtype)
    m.subtract(x, mean, out=product)
    product *= dy
    m.matmul(one, product, out=da.reshape(1, -1))
    m.matmul(one, dy, out=db.reshape(1, -1))
    da *= r


def normalise_backward(x, mean, scale, dy, slope, offset, dx, ctx):
    """dx = scale (dy - offset - (x - mean) slope); x, dy, dx: (N, D), the others (D,)."""
    m, product = xp(x), ctx.scratch("kernel a", x.shape, x.dtype)
    m.subtract(x, mean, out=product)
    product *= slope
    m.subtract(dy, offset, out=dx)
    dx -= product
    dx *= scale


def relu_backward(y, dy, dx, ctx):
    """dx = dy where y > 0, else 0, for flat arrays."""
    positive = ctx.scratch("mask", y.shape, bool)
    xp(y).greater(y, 0, out=positive)
    xp(y).multiply(dy, positive, out=dx)


def max_pool(x, y, index, kernel, stride, padding, ctx):
    """y = maximum over each window, index = the number of the first tap that reaches it; x: (B, H, W, C)."""
    m = xp(x)
    y[...] = -m.inf
    index[...] = 0
    mask = ctx.scratch("mask", y.shape, bool)
    for (i, j), here, there in taps(x.shape, y.shape, kernel, stride, padding):
        better, best = mask[there], y[there]
        m.greater(x[here], best, out=better)
        m.maximum(best, x[here], out=best)
        m.copyto(index[there], i * kernel[1] + j, where=better)


def max_pool_backward(dy, index, dx, kernel, stride, padding, ctx):
    """dx = sum of dy over the windows whose index points at this input."""
    m = xp(dy)
    dx[...] = 0
    mask, part = ctx.scratch("mask", dy.shape, bool), ctx.scratch("kernel a", dy.shape, dy.dtype)
    for (i, j), here, there in taps(dx.shape, dy.shape, kernel, stride, padding):
        m.equal(index[there], i * kernel[1] + j, out=mask[there])
        m.multiply(dy[there], mask[there], out=part[there])
        target = dx[here]
        target += part[there]


def erf(x):
    """x <- erf(x), in place.

    erf(x) = (2/sqrt(pi)) x e^(-x^2) sum_n (2 x^2)^n / (1 3 5 ... (2n+1)): no term is negative, so nothing cancels
    (Abramowitz & Stegun 7.1.6). Beyond |x| = 6 it is 1 to 17 digits, and up to there 110 terms leave less than 1e-17.
    """
    m = xp(x)
    m.clip(x, -6, 6, out=x)
    square = x * x
    term = m.ones_like(x)
    total = m.ones_like(x)
    for n in range(1, 110):
        term *= square
        term *= 2 / (2 * n + 1)
        total += term
    m.multiply(square, -1, out=square)
    m.exp(square, out=square)
    x *= square
    x *= total
    x *= 2 / sqrt(pi)
