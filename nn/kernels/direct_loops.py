"""The loops of direct.py: products on images that are surrounded by zeros, and columns gathered for dW.

`plan` holds whole numbers; the first line of a loop names them.
"""

from npopt.backend.once import inside, jit, once

import numba
import numpy as np

from .blocks import Product
from .products import by_blocks, multiply, transpose_part


@inside
def surround(x, b, buffer, top, left, wide):
    """Copy image b into the middle of a buffer of rows of `wide` pixels whose border is zero."""
    _, height, width, c = x.shape
    for h in range(height):
        source = x[b, h].reshape(-1)
        to = buffer[((h + top) * wide + left) * c : ((h + top) * wide + left + width) * c]
        for k in range(width * c):
            to[k] = source[k]


@inside
def unsurround(buffer, x, b, top, left, wide):
    """Copy the middle of such a buffer to image b."""
    _, height, width, c = x.shape
    for h in range(height):
        source = buffer[((h + top) * wide + left) * c : ((h + top) * wide + left + width) * c]
        to = x[b, h].reshape(-1)
        for k in range(width * c):
            to[k] = source[k]


@once
def correlate_part(part, x, packed, bias, y, buffers, rows, phases, plan):
    """y at positions rows[1] = bias + products of x, surrounded by zeros, from positions rows[0], with packed panels.

    buffers: (parts, group high wide C), zero but for their middles   phases: (first position, positions an image,
    first number of its panels, kernel rows, numbers a row)   rows: positions of `group` images   clear: y begins as 0
    """
    group, top, left, high, wide, clear, width = plan
    batch, height, across, c = x.shape
    o, flat, image, out_image = y.shape[3], y.reshape(-1), high * wide * c, y.size // batch
    groups, parts, panel_width = (batch + group - 1) // group, buffers.shape[0], 2 * width
    plain, buffer = high == height and wide == across, buffers[part]
    for g in range(groups * part // parts, groups * (part + 1) // parts):
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
                product = Product(
                    left_at=at,
                    left_jump=wide * c,
                    left_step=1,
                    right_at=begin + o0 * times * run,
                    right_step=columns,
                    out_at=g * group * out_image + o0,
                    start_at=o0,
                    start_like_out=False,
                    n=columns,
                    times=times,
                    run=run,
                )
                multiply(source, packed, flat, bias, rows, first, count * positions, product, width)


@jit
def correlate(x, packed, bias, y, buffers, rows, phases, plan):
    for part in numba.prange(buffers.shape[0]):
        correlate_part(np.int64(part), x, packed, bias, y, buffers, rows, phases, plan)


@once
def scatter_part(part, dy, packed, dx, buffers, rows, plan):
    """dx, in a border of zeros, plus products of dy with the taps of one kernel row after the other.

    rows: positions of dy, one column of `group` images after the other, and where their windows begin. Those of one
    column do not meet in a kernel row, so a register block may read, add and write them at once. packed: the panels of
    each kernel row   buffers: (parts, group high wide C)   run: numbers of a kernel row
    """
    group, top, left, high, wide, down, run, width = plan
    batch, height, across, c = dx.shape
    o, flat, image, plain = dy.shape[3], dy.reshape(-1), high * wide * c, high == height and wide == across
    groups, parts, kernel_rows = (batch + group - 1) // group, buffers.shape[0], packed.size // (o * run)
    buffer = buffers[part]
    for g in range(groups * part // parts, groups * (part + 1) // parts):
        count = min(group, batch - g * group)
        to, at = dx.reshape(-1), g * group * image
        if not plain:
            to, at = buffer, np.int64(0)
        to[at : at + count * image] = 0
        for w in range(dy.shape[2]):
            for i in range(kernel_rows):
                for o0 in range(0, run, 2 * width):
                    columns = min(2 * width, run - o0)
                    product = Product(
                        left_at=g * group * dy.shape[1] * dy.shape[2] * o,
                        left_jump=0,
                        left_step=1,
                        right_at=(i * run + o0) * o,
                        right_step=columns,
                        out_at=at + i * wide * c + o0,
                        start_at=at + i * wide * c + o0,
                        start_like_out=True,
                        n=columns,
                        times=1,
                        run=o,
                    )
                    by_blocks(flat, packed, to, to, rows, w * group * down, count * down, product, width)
        if not plain:
            for b in range(count):
                unsurround(buffer[b * image : (b + 1) * image], dx, g * group + b, top, left, wide)


@jit
def scatter(dy, packed, dx, buffers, rows, plan):
    for part in numba.prange(buffers.shape[0]):
        scatter_part(np.int64(part), dy, packed, dx, buffers, rows, plan)


@once
def pack_row(k, a, out, wide):
    depth, n = a.shape
    for o0 in range(0, n, wide):
        count = min(wide, n - o0)
        source, to = a[k, o0 : o0 + count], out[o0 * depth + k * count : o0 * depth + (k + 1) * count]
        for j in range(count):
            to[j] = source[j]


@jit
def pack(a, out, wide):
    """The columns of a, (K, n), in panels: out[o0 K + k w + o] = a[k, o0 + o], w the width of the panel at o0."""
    for k in numba.prange(len(a)):
        pack_row(np.int64(k), a, out, wide)


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


@inside
def gather_line(image, out, piece, place):
    """Columns k0.. of the windows that one line of outputs looks at, their rows `count` numbers apart in out.

    piece: (k0, count, windows)   place: (kernel columns, the image's row that the kernel's first row meets, stride,
    padding)
    """
    (k0, count, windows), (kw, top_row, right, left) = piece, place
    height, across, c = image.shape
    k = k0
    while k < k0 + count:  # the piece that lies in one kernel row
        i, e = k // (kw * c), k % (kw * c)
        length, row = min(kw * c - e, k0 + count - k), top_row + i
        target = out[k - k0 :]
        if row < 0 or row >= height:
            for w in range(windows):
                target[w * count : w * count + length] = 0
        else:
            source = image[row].reshape(-1)
            gather(source, target, count, e - left * c, length, right * c, windows, across * c)
        k += length


@once
def correlate_weights_part(item, buffer, x, dy, dw, partial, rows, plan):
    """One panel of one part of the sums."""
    kw, down, right, top, left, lines, width = plan
    out_height, out_across, o = dy.shape[1:]
    parts, depth, wide = partial.shape[0], partial.shape[2], 2 * width
    panels, total = (depth + wide - 1) // wide, dy.shape[0] * out_height
    from_dy, to = dy.reshape(-1), partial.reshape(-1)
    nothing = np.zeros(wide, x.dtype)
    part, k0 = item // panels, item % panels * wide
    count = min(wide, depth - k0)
    begin, last, at = total * part // parts, total * (part + 1) // parts, part * o * depth + k0
    if begin == last:
        for k in range(o):
            to[at + k * depth : at + k * depth + count] = 0
    for lo in range(begin, last, lines):
        size = min(lines, last - lo)
        for t in range(size):
            b, h = (lo + t) // out_height, (lo + t) % out_height
            target = buffer[t * out_across * count :]
            gather_line(x[b], target, (k0, count, out_across), (kw, h * down - top, right, left))
        add = lo > begin
        start, s0 = (to, at) if add else (nothing, np.int64(0))
        product = Product(
            left_at=lo * out_across * o,
            left_jump=0,
            left_step=o,
            right_at=0,
            right_step=count,
            out_at=at,
            start_at=s0,
            start_like_out=add,
            n=count,
            times=1,
            run=size * out_across,
        )
        multiply(from_dy, buffer, to, start, rows, 0, o, product, width)


@jit
def correlate_weights(x, dy, dw, partial, buffers, rows, plan):
    """dW = dy' columns; `partial`, (parts, O, K): sums over parts of the lines of dy, added in order."""
    parts, wide = partial.shape[0], 2 * plan[6]
    for item in numba.prange(parts * ((partial.shape[2] + wide - 1) // wide)):
        correlate_weights_part(np.int64(item), buffers[numba.get_thread_id()], x, dy, dw, partial, rows, plan)
    if parts > 1:
        out, sums = dw.reshape(-1), partial.reshape(-1)
        for number in numba.prange(out.size):
            k = np.int64(number)
            total = sums[k]
            for p in range(1, parts):
                total += sums[k + p * out.size]
            out[k] = total


@once
def correlate_images_part(part, buffer, x, dy, partial, rows, plan):
    """One part of the sums."""
    down, right, top, left, high, wide, width = plan
    batch, height, across, c = x.shape
    _, out_height, out_across, o = dy.shape
    parts, depth, columns = partial.shape[0], partial.shape[1], 2 * width
    from_dy, to, positions = dy.reshape(-1), partial.reshape(-1), out_height * out_across
    plain, nothing = high == height and wide == across, np.zeros(columns, x.dtype)
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
            product = Product(
                left_at=at,
                left_jump=down * wide * c,
                left_step=right * c,
                right_at=b * positions * o + o0,
                right_step=o,
                out_at=here,
                start_at=s0,
                start_like_out=add,
                n=count,
                times=out_height,
                run=out_across,
            )
            multiply(source, from_dy, to, start, rows, 0, depth, product, width)


@once
def add_parts(lo, hi, partial, dw, o, width):
    """Rows lo to hi of the sum over parts, as columns of dw."""
    for p in range(1, partial.shape[0]):
        for k in range(lo, hi):
            for j in range(o):
                partial[0, k, j] += partial[p, k, j]
    depth = partial.shape[1]
    transpose_part(partial.reshape(-1), lo * o, o, dw.reshape(-1), lo, depth, hi - lo, o, width)


@jit
def correlate_images(x, dy, dw, partial, buffers, rows, plan):
    """dW = columns' dy, image by image; `partial`, (parts, K, O): sums over parts of the batch, added in order."""
    depth = partial.shape[1]
    for part in numba.prange(partial.shape[0]):
        correlate_images_part(np.int64(part), buffers[numba.get_thread_id()], x, dy, partial, rows, plan)
    for number in numba.prange((depth + 15) // 16):
        lo = np.int64(number) * 16
        add_parts(lo, min(lo + 16, depth), partial, dw, dy.shape[3], plan[6])
