"""The reference path: array code that runs on NumPy and CuPy alike."""

from math import pi, prod, sqrt

from npopt import backend
from npopt.backend import xp


def _span(size, count, stride, shift):
    """Outputs i in [lo, hi) whose input stride i + shift lies inside, as (slice of inputs, slice of outputs)."""
    lo = max(0, -(shift // stride))  # stride lo + shift >= 0
    hi = min(count, (size - 1 - shift) // stride + 1)  # stride (hi - 1) + shift <= size - 1
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


def linear(x, w, bias, y):
    """y = x w' + bias, bias may be None; x: (N, in)   w: (out, in)   y: (N, out)"""
    xp(x).matmul(x, w.T, out=y)
    if bias is not None:
        add_row(y, bias)


def linear_inputs(dy, w, dx):
    """dx = dy w."""
    xp(dy).matmul(dy, w, out=dx)


def linear_weights(x, dy, dw):
    """dw = dy' x."""
    xp(x).matmul(dy.T, x, out=dw)


def sum_rows(a, out):
    """out = sum over the rows of the matrix a, (N, D). Blocks of 256 rows are summed in a's dtype, the blocks in
    float64.

    One long sum in float32 would lose digits with every row.
    """
    whole = a.shape[0] // 256 * 256
    total = a[whole:].sum(axis=0, dtype="float64")
    if whole:
        total += a[:whole].reshape(-1, 256, a.shape[1]).sum(axis=1).sum(axis=0, dtype="float64")
    out[...] = total


def sum_by_word(dy, words, dw):
    """dw_v = sum of dy_n over the n with words_n = v; dy: (N, D)   words: (N,)   dw: (V, D)"""
    m = xp(dy)
    m.matmul((m.arange(dw.shape[0]).reshape(-1, 1) == words).astype(dy.dtype), dy, out=dw)


def convolve(x, w, bias, y, stride, padding):
    """y_bhwo = sum_{i,j,c} w_oijc x_{b, s h + i - p, s w + j - p, c} + bias_o, x being zero outside; bias may be None.

    Windows of x are gathered into columns, one row a position, (B H' W', kh kw C), and y = columns w' is one product.
    This is done chunk by chunk of the batch, and the columns stay in the cache.
    """
    o, out = w.shape[0], y.shape[1:3]
    weight = w.reshape(o, -1).T  # (kh kw C, O)
    for part in _chunks(x.shape[0], prod(out) * weight.shape[0] * x.dtype.itemsize):
        columns = _windows(x[part], out, w.shape[1:3], stride, padding)
        xp(x).matmul(columns, weight, out=y[part].reshape(-1, o))
    if bias is not None:
        add_row(y, bias)


def convolve_inputs(dy, w, dx, stride, padding):
    """dx of convolve, without scatter-add: dcolumns = dy w is what flows back to an input from a position and a tap,

        dx_{b h w c} = sum_{i,j} dcolumns_{b, (h + p - i)/s, (w + p - j)/s, i, j, c}

    over the taps for which both quotients are positions: every input gathers its own terms in a fixed order.
    """
    o, c, kernel = w.shape[0], w.shape[3], w.shape[1:3]
    weight, plain = w.reshape(o, -1), _is_plain(kernel, stride, padding)
    for part in _chunks(dx.shape[0], prod(dy.shape[1:3]) * weight.shape[1] * dy.dtype.itemsize):
        some = dy[part]
        columns = dx[part] if plain else backend.workspace((*some.shape[:3], *kernel, c), dy.dtype)
        xp(dy).matmul(some.reshape(-1, o), weight, out=columns.reshape(-1, weight.shape[1]))
        if not plain:
            sum_windows(columns, dx[part], stride, padding)


def convolve_weights(x, dy, dw, stride, padding):
    """dw = dy' columns."""
    o, flat = dw.shape[0], dw.reshape(dw.shape[0], -1)
    more = backend.workspace(flat.shape, dw.dtype)
    for part in _chunks(x.shape[0], prod(dy.shape[1:3]) * flat.shape[1] * x.dtype.itemsize):
        columns = _windows(x[part], dy.shape[1:3], dw.shape[1:3], stride, padding)
        xp(x).matmul(dy[part].reshape(-1, o).T, columns, out=more if part.start else flat)
        if part.start:
            flat += more


CHUNK = 4 << 20  # bytes of columns at a time


def _chunks(batch, row_bytes):
    """Slices of the batch, of nearly equal lengths, whose columns take about CHUNK bytes; a row takes row_bytes."""
    count = max(1, min(batch, -(-batch * row_bytes // CHUNK)))
    ends = [batch * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def _is_plain(kernel, stride, padding):
    """Every window is one pixel and every pixel a window: the columns are x itself."""
    return tuple(kernel) == (1, 1) and tuple(stride) == (1, 1) and tuple(padding) == (0, 0)


def _windows(x, count, kernel, stride, padding):
    """Columns (B count_h count_w, kh kw C) of x, (B, H, W, C): row (b, h, w) holds x at s h + i - p, s w + j - p, zero
    outside."""
    b, c = x.shape[0], x.shape[3]
    if _is_plain(kernel, stride, padding):
        return x.reshape(-1, c)
    out = backend.workspace((b, *count, *kernel, c), x.dtype)
    gather_windows(x, out, stride, padding)
    return out.reshape(-1, prod(out.shape[3:]))


def add_row(y, b):
    """y += b over the last axis. Narrow rows are joined into wide ones: a loop over 6 numbers is all overhead."""
    n, d = y.size // y.shape[-1], y.shape[-1]
    times = 1
    while d * times < 256 and n % 2 == 0:
        n, times = n // 2, times * 2
    if times > 1:
        wide = backend.workspace((times, d), y.dtype)
        wide[...] = b
        b = wide.reshape(-1)
    flat = y.reshape(n, d * times)
    flat += b


def gather_windows(x, out, stride, before):
    """out[b, h, w, i, j] = x[b, s h + i - before, s w + j - before], zero outside.

    x: (B, H, W, C)   out: (B, H', W', kh, kw, C)
    """
    if before != (0, 0) or any(
        s * (n - 1) + k > size
        for s, n, k, size in zip(stride, out.shape[1:3], out.shape[3:5], x.shape[1:3], strict=True)
    ):
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


def moments(x, mean, variance):
    """mean and biased variance of the columns of x, (N, D)."""
    n = x.shape[0]
    sum_rows(x, mean)
    mean *= 1 / n
    centred = x - mean
    sum_rows(centred * centred, variance)
    variance *= 1 / n


def normalise(x, mean, scale, offset, skip, rectify, y):
    """y = (x - mean) scale + offset, plus skip unless it is None. Where `rectify` is set, y is the larger of that and
    0.

    x, skip, y: (N, D), the others (D,); y may be x or skip
    """
    m = xp(x)
    h = (x - mean) * scale
    m.add(h, offset, out=h if skip is not None else y)
    if skip is not None:
        m.add(h, skip, out=y)
    if rectify:
        m.maximum(y, 0, out=y)


def normalise_sums(x, mean, r, dy, y, da, db):
    """dy <- dy where y > 0, else 0, unless y is None; then  da = r sum_n dy_n (x_n - mean), db = sum_n dy_n.

    x, dy, y: (N, D), the others (D,)
    """
    if y is not None:
        dy *= y > 0
    sum_rows((x - mean) * dy, da)
    sum_rows(dy, db)
    da *= r


def normalise_backward(x, mean, scale, dy, slope, offset, dx):
    """dx = scale (dy - offset - (x - mean) slope); x, dy, dx: (N, D), the others (D,); dx may be dy."""
    h = dy - offset - (x - mean) * slope
    xp(x).multiply(h, scale, out=dx)


def relu(x, y):
    """y = max(x, 0)."""
    xp(x).maximum(x, 0, out=y)


def relu_backward(y, dy, dx):
    """dx = dy where y > 0, else 0; dx may be dy."""
    xp(y).multiply(dy, y > 0, out=dx)


def max_pool(x, y, index, kernel, stride, padding):
    """y = maximum over each window, index = the number of the first tap that reaches it; x: (B, H, W, C)."""
    m = xp(x)
    y[...] = -m.inf
    first = [m.maximum(p - s * m.arange(n), 0) for p, s, n in zip(padding, stride, y.shape[1:3], strict=True)]
    index[...] = (first[0].reshape(-1, 1, 1) * kernel[1] + first[1].reshape(1, -1, 1)).astype("uint8")
    mask = backend.workspace(y.shape, bool)
    for (i, j), here, there in taps(x.shape, y.shape, kernel, stride, padding):
        better, best = mask[there], y[there]
        m.greater(x[here], best, out=better)
        m.maximum(best, x[here], out=best)
        m.copyto(index[there], i * kernel[1] + j, where=better)


def max_pool_backward(dy, index, dx, kernel, stride, padding):
    """dx = sum of dy over the windows whose index points at this input."""
    m = xp(dy)
    dx[...] = 0
    mask, part = backend.workspace(dy.shape, bool), backend.workspace(dy.shape, dy.dtype)
    for (i, j), here, there in taps(dx.shape, dy.shape, kernel, stride, padding):
        m.equal(index[there], i * kernel[1] + j, out=mask[there])
        m.multiply(dy[there], mask[there], out=part[there])
        target = dx[here]
        target += part[there]


def max_pool_tangent(rx, index, ry, kernel, stride, padding):
    """ry = rx at the tap of each window that index says; rx: (B, H, W, C), as x in max_pool."""
    ry[...] = 0
    for (i, j), here, there in taps(rx.shape, ry.shape, kernel, stride, padding):
        target = ry[there]
        target += rx[here] * (index[there] == i * kernel[1] + j)


def softmax(z, t, smoothing, weights, p, rows):
    """rows_b = l_b and p = (w_b / B) dl_b/dz of the cross-entropy l_b of softmax(z_b) and (1 - s) e_(t_b) + s/K.

    z, p: (B, K)   t: (B,) classes   weights: (B,) or None for ones   rows: (B,)
    """
    m, lane = xp(z), xp(z).arange(z.shape[0])
    m.subtract(z, z.max(axis=1, keepdims=True), out=p)
    m.multiply(p[lane, t], smoothing - 1, out=rows)
    if smoothing:
        rows -= smoothing * p.mean(axis=1)
    m.exp(p, out=p)
    total = p.sum(axis=1)
    p /= total.reshape(-1, 1)
    rows += m.log(total)
    if smoothing:
        p -= smoothing / z.shape[1]
    p[lane, t] -= 1 - smoothing
    p *= 1 / z.shape[0]
    if weights is not None:
        p *= weights.reshape(-1, 1)


def erf(x):
    """x <- erf(x), in place.

    erf(x) = (2/sqrt(pi)) x e^(-x^2) sum_n (2 x^2)^n / (1 3 5 ... (2n+1)): no term is negative, so nothing cancels
    (Abramowitz & Stegun 7.1.6). Beyond |x| = 6 erf is 1 to 17 digits. Up to there 110 terms leave less than 1e-17.
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
