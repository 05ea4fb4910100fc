"""Convolutions of any kernel and stride as matrix products on the images themselves: no columns are written.

In NHWC the taps of one kernel row are neighbours: kw C numbers in a row. So with zeros around the image, output
position q is the sum over kernel rows i of a product of kw C numbers, and rows of positions form a matrix whose row q
starts at (s h Wp + s w) C. Register blocks read it there.

dx is the same on dy. Its pixels h fall into s classes by e = (h + p) mod s; a class meets the taps i = e, e + s, ... :

    dx_h = sum_r W_(e + s r)' dy_((h + p - e)/s - r)

which is a convolution of stride 1 of dy with every s-th tap, turned round. dW = dy' columns goes panel by panel of
columns, gathered for some positions at a time.
"""

from functools import lru_cache
from math import prod

from npopt import backend

import numba
import numpy as np

from .products import inside, jit, lanes, multiply, panel, transpose, transpose_part, zeros

ENOUGH = 64  # positions that share one pass over the weights


@inside
def surround(x, b, buffer, top, left, wide):
    """Copy image b into the middle of a buffer of rows of `wide` pixels whose border is zero."""
    _, height, width, c = x.shape
    for h in range(height):
        source = x[b, h].reshape(-1)
        to = buffer[((h + top) * wide + left) * c : ((h + top) * wide + left + width) * c]
        for k in range(width * c):
            to[k] = source[k]


@jit
def correlate(x, packed, bias, y, buffers, group, top, left, high, wide, starts, ends, phases, clear, width):
    """y at positions `ends` = bias + products of x, surrounded by zeros, from `starts`, with packed panels.

    buffers: (threads, group high wide C), zero but for their middles   phases: (first position, positions an image,
    first number of its panels, kernel rows, numbers a row)   starts, ends: positions of `group` images
    """
    batch, height, across, c = x.shape
    o, flat, image, out_image = y.shape[3], y.reshape(-1), high * wide * c, y.size // batch
    groups, threads, panel_width = (batch + group - 1) // group, buffers.shape[0], 2 * width
    plain = high == height and wide == across
    for part in numba.prange(threads):
        buffer = buffers[part]
        for g in range(groups * np.int64(part) // threads, groups * (np.int64(part) + 1) // threads):
            count = min(group, batch - g * group)
            if clear:
                flat[g * group * out_image : (g * group + count) * out_image] = 0
            source, at = x.reshape(-1), g * group * image
            if not plain:
                source, at = buffer, np.int64(0)
                for b in range(count):
                    surround(x, g * group + b, buffer[b * image : (b + 1) * image], top, left, wide)
            for f in range(len(phases)):
                first, positions, begin, times, run = phases[f]
                for o0 in range(0, o, panel_width):
                    columns = min(panel_width, o - o0)
                    multiply(
                        left=source,
                        left_at=at,
                        left_rows=starts,
                        left_row=first,
                        left_jump=wide * c,
                        left_step=1,
                        right=packed,
                        right_at=begin + o0 * times * run,
                        right_step=columns,
                        out=flat,
                        out_at=g * group * out_image + o0,
                        out_rows=ends,
                        out_row=first,
                        start=bias,
                        start_at=o0,
                        start_scale=0,
                        m=count * positions,
                        n=columns,
                        times=times,
                        run=run,
                        width=width,
                    )


@jit
def pack(a, out, wide):
    """The columns of a, (K, n), in panels: out[o0 K + k w + o] = a[k, o0 + o], w the width of the panel at o0."""
    depth, n = a.shape
    for row in numba.prange(depth):
        k = np.int64(row)
        for o0 in range(0, n, wide):
            count = min(wide, n - o0)
            source, to = a[k, o0 : o0 + count], out[o0 * depth + k * count : o0 * depth + (k + 1) * count]
            for j in range(count):
                to[j] = source[j]


@inside
def gather(line_of_x, out, columns, first, length, step, count, across):
    """out[w, n] = the number first + step w + n of a line of x, n < length; zero outside 0..across - 1."""
    lowest = min(count, max(0, (-first + step - 1) // step))  # windows that begin inside
    highest = max(lowest, min(count, (across - length - first) // step + 1))
    for w in range(lowest):
        for n in range(length):
            at = first + step * w + n
            out[w * columns + n] = line_of_x[at] if 0 <= at < across else 0
    if length < 8:  # short pieces: along the line, one of its numbers at a time
        for n in range(length):
            target, source = out[n:], line_of_x[first + n + step * lowest :]
            for w in range(highest - lowest):
                target[(w + lowest) * columns] = source[step * w]
    else:
        for w in range(lowest, highest):
            target, source = out[w * columns : w * columns + length], line_of_x[first + step * w :]
            for n in range(length):
                target[n] = source[n]
    for w in range(highest, count):
        for n in range(length):
            at = first + step * w + n
            out[w * columns + n] = line_of_x[at] if 0 <= at < across else 0


@jit
def correlate_weights(x, dy, dw, partial, buffers, kw, down, right, top, left, rows, lines, width):
    """dW = dy' columns; `partial`, (parts, O, K): sums over parts of the lines of dy, added in order."""
    batch, height, across, c = x.shape
    _, out_height, out_across, o = dy.shape
    parts, depth, wide, line = partial.shape[0], partial.shape[2], 2 * width, kw * c
    panels, total = (depth + wide - 1) // wide, batch * out_height
    flat, from_dy, to = x.reshape(-1), dy.reshape(-1), partial.reshape(-1)
    nothing = np.zeros(wide, x.dtype)
    for item in numba.prange(parts * panels):
        part, k0 = np.int64(item) // panels, np.int64(item) % panels * wide
        count, buffer = min(wide, depth - k0), buffers[numba.get_thread_id()]
        begin, last, at = total * part // parts, total * (part + 1) // parts, part * o * depth + k0
        if begin == last:
            for k in range(o):
                to[at + k * depth : at + k * depth + count] = 0
        for lo in range(begin, last, lines):
            size = min(lines, last - lo)
            for t in range(size):
                b, h = (lo + t) // out_height, (lo + t) % out_height
                k = k0
                while k < k0 + count:  # the piece that lies in one kernel row
                    i, e = k // line, k % line
                    length, row = min(line - e, k0 + count - k), h * down - top + i
                    target = buffer[t * out_across * count + k - k0 :]
                    if row < 0 or row >= height:
                        for w in range(out_across):
                            target[w * count : w * count + length] = 0
                    else:
                        source = flat[(b * height + row) * across * c : (b * height + row + 1) * across * c]
                        gather(source, target, count, e - left * c, length, right * c, out_across, across * c)
                    k += length
            add = lo > begin
            start, s0 = (to, at) if add else (nothing, np.int64(0))
            multiply(
                left=from_dy,
                left_at=lo * out_across * o,
                left_rows=rows[0],
                left_row=0,
                left_jump=0,
                left_step=o,
                right=buffer,
                right_at=0,
                right_step=count,
                out=to,
                out_at=at,
                out_rows=rows[1],
                out_row=0,
                start=start,
                start_at=s0,
                start_scale=np.int64(add),
                m=o,
                n=count,
                times=1,
                run=size * out_across,
                width=width,
            )
    if parts > 1:
        out = dw.reshape(-1)
        for number in numba.prange(out.size):
            k = np.int64(number)
            total_k = to[k]
            for p in range(1, parts):
                total_k += to[k + p * out.size]
            out[k] = total_k


@jit
def correlate_images(x, dy, dw, partial, buffers, starts, ends, down, right, top, left, high, wide, width):
    """dW = columns' dy, image by image; `partial`, (parts, K, O): sums over parts of the batch, added in order."""
    batch, height, across, c = x.shape
    _, out_height, out_across, o = dy.shape
    parts, depth, columns = partial.shape[0], partial.shape[1], 2 * width
    from_dy, to, positions = dy.reshape(-1), partial.reshape(-1), out_height * out_across
    plain, nothing = high == height and wide == across, np.zeros(columns, x.dtype)
    for item in numba.prange(parts):
        part, buffer = np.int64(item), buffers[numba.get_thread_id()]
        begin, last = batch * part // parts, batch * (part + 1) // parts
        if begin == last:
            partial[part] = 0
        for b in range(begin, last):
            source, at = x.reshape(-1), b * height * across * c
            if not plain:
                source, at = buffer, np.int64(0)
                surround(x, b, buffer, top, left, wide)
            for o0 in range(0, o, columns):
                count, here = min(columns, o - o0), part * depth * o + o0
                add = b > begin
                start, s0 = (to, here) if add else (nothing, np.int64(0))
                multiply(
                    left=source,
                    left_at=at,
                    left_rows=starts,
                    left_row=0,
                    left_jump=down * wide * c,
                    left_step=right * c,
                    right=from_dy,
                    right_at=b * positions * o + o0,
                    right_step=o,
                    out=to,
                    out_at=here,
                    out_rows=ends,
                    out_row=0,
                    start=start,
                    start_at=s0,
                    start_scale=np.int64(add),
                    m=depth,
                    n=count,
                    times=out_height,
                    run=out_across,
                    width=width,
                )
    for number in numba.prange((depth + 15) // 16):
        lo, hi = np.int64(number) * 16, min(np.int64(number) * 16 + 16, depth)
        for p in range(1, parts):
            for k in range(lo, hi):
                for j in range(o):
                    partial[0, k, j] += partial[p, k, j]
        transpose_part(to, lo * o, o, dw.reshape(-1), lo, depth, hi - lo, o, width)


@lru_cache(maxsize=256)
def weights_plan(rows, columns, c, wide, o):
    """(where tap and channel k of the first window lies in an image, where row k of dW' lies)."""
    starts = np.arange(rows).reshape(-1, 1) * wide * c + np.arange(columns * c)
    return starts.reshape(-1), np.arange(starts.size) * o


@lru_cache(maxsize=256)
def forward_plan(image, out, channels, o, kernel, stride, padding, group):
    """(buffer height, width, starts, ends, phases) of a convolution."""
    (height, width), (rows, columns) = image, out
    high, wide = height + 2 * padding[0], width + 2 * padding[1]
    h, w = np.arange(rows).reshape(1, -1, 1) * stride[0], np.arange(columns).reshape(1, 1, -1) * stride[1]
    n = np.arange(group).reshape(-1, 1, 1)
    starts = ((n * high + h) * wide + w).reshape(-1) * channels
    phases = np.array([[0, rows * columns, 0, kernel[0], kernel[1] * channels]])
    return high, wide, starts, np.arange(starts.size) * o, phases


@lru_cache(maxsize=256)
def backward_plan(image, out, channels, o, kernel, stride, padding, group):
    """(buffer height, width, top, left, starts, ends, phases, taps of each phase, whether to clear dx), or None."""
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
    return high, wide, *before, np.concatenate(starts), np.concatenate(ends), np.array(phases), taps, clear


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
        wider = backend.workspace((f, o, rows, columns + stride[1] * (f - 1), c), w.dtype)
        wider[...] = 0
        for k in range(f):
            wider[k, :, :, k * stride[1] : k * stride[1] + columns] = w
        w, o, out, columns = wider.reshape(f * o, rows, -1, c), f * o, (out[0], out[1] // f), wider.shape[3]
        y, stride = y.reshape(batch, *out, o), (stride[0], stride[1] * f)
        bias = None if bias is None else np.tile(bias, f)
    group = _group(prod(out), batch)
    high, wide, starts, ends, phases = forward_plan(tuple(image), out, c, o, (rows, columns), stride, padding, group)
    turned = backend.workspace((w.size // o, o), w.dtype)
    packed = backend.workspace((w.size,), w.dtype)
    transpose(w.reshape(o, -1), turned, width)
    pack(turned, packed, 2 * width)
    buffers = _buffers(x, group, high, wide)
    bias = zeros(o, x.dtype) if bias is None else bias
    correlate(x, packed, bias, y, buffers, group, *padding, high, wide, starts, ends, phases, False, width)


def backward_inputs(dy, w, dx, stride, padding):
    """dx of the convolution."""
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
    high, wide, top, left, starts, ends, phases, taps, clear = plan
    packed = backend.workspace((sum(map(len, taps)) * o * c,), w.dtype)
    turned = backend.workspace((w.size,), w.dtype)
    for (_, _, begin, _, _), some in zip(phases, taps, strict=True):
        these = turned[: len(some) * o * c].reshape(len(some), o, c)
        for k, (i, j) in enumerate(some):
            these[k] = w[:, i, j]
        pack(these.reshape(-1, c), packed[begin : begin + these.size], panel(w.dtype))
    buffers = _buffers(dy, group, high, wide)
    correlate(
        dy,
        packed,
        zeros(c, dy.dtype),
        dx,
        buffers,
        group,
        top,
        left,
        high,
        wide,
        starts,
        ends,
        phases,
        clear,
        lanes(dy.dtype),
    )


CHUNK = 256  # positions whose columns are gathered at a time, or a line if that is longer
PARTIAL = 4 << 20  # bytes of partial sums of dW, beyond one


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
    if prod(out) >= ENOUGH:
        high, wide = (n + 2 * p for n, p in zip(x.shape[1:3], padding, strict=True))
        partial = backend.workspace((parts, depth, o), dw.dtype)
        starts, ends = weights_plan(rows, columns, c, wide, o)
        correlate_images(
            x,
            dy,
            dw.reshape(o, depth),
            partial,
            _buffers(x, 1, high, wide),
            starts,
            ends,
            *stride,
            *padding,
            high,
            wide,
            width,
        )
        return
    partial = dw.reshape(1, o, depth) if parts == 1 else backend.workspace((parts, o, depth), dw.dtype)
    lines = max(1, CHUNK // out[1])
    buffers = backend.workspace((backend.threads(), lines * out[1] * panel(x.dtype)), x.dtype)
    places = np.arange(o) * np.array([[1], [depth]])
    correlate_weights(x, dy, dw, partial, buffers, columns, *stride, *padding, places, lines, width)
