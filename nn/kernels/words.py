"""One word of a text through a whole decoder on a CPU, in one compiled function: norms before each part, attention over
a full cache, a feed-forward part, gated or not.

For one word a network is matrices times vectors: each weight is read once, and what the layers' own calls cost in
Python is many times that. The weights stay where they are in the flat x. Rows of a matrix are taken `lanes` at a time:
each has a vector of partial sums, and at the end these vectors are added up together, by halves that change places.
Keys and values lie as in nn/decoding/caches.py, times beside one another: scores are sums over d of vectors of times,
and what is read of the values are products of rows with the vector of probabilities. One thread.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from . import gates, rows
from .attention_parts import exponentials, largest
from .blocks import Product, block_product
from .products import inside
from .recurrent_parts import wide_of
from .simd import I32, I64, Emitter, Lanes, data, each_vector, scalar, width

scores = block_product(4, False, height=1)
LARGE = 1 << 22  # parameters: of a larger network the weights come from memory for every word, not from a cache
PANEL = 64  # times: a multiple of what `scores` takes at a time; the room of a cache is a multiple of it


class Sizes(NamedTuple):
    """The whole numbers of a decoder, in the order of the vector that the loops are given.

    features, heads, kv_heads, width, hidden, words, layers     D, H, G, d, F, V, L
    pairs       how many pairs of a head are turned; 0: none. adjacent: whether a pair's numbers are neighbours
    centred     whether norms are LayerNorm
    activation  its place in KINDS of reference_gates.py; gated: whether it is a gate
    embed, positions, norm, norm_bias, head, head_bias      where they begin in x; -1 for what is not there
    """

    features: int
    heads: int
    kv_heads: int
    width: int
    hidden: int
    words: int
    layers: int
    pairs: int
    adjacent: int
    centred: int
    activation: int
    gated: int
    embed: int
    positions: int
    norm: int
    norm_bias: int
    head: int
    head_bias: int


# The columns of a layer's table: where each of its parameters begins in x, -1 for what is not there.
TABLE = (
    *("attention_norm.a", "attention_norm.b", "query.W", "query.b", "key.W", "key.b", "value.W", "value.b", "out.W"),
    *("out.b", "feed_norm.a", "feed_norm.b", "gate.W", "gate.b", "up.W", "up.b", "down.W", "down.b"),
)


def together(builder, e, values):
    """The vector whose lane r is the sum of the lanes of values[r], for as many vectors as lanes."""
    n, half = e.lanes, e.lanes // 2
    values = list(values)
    while half:
        low = ir.Constant(ir.VectorType(I32, n), [I32(n + j - half if j & half else j) for j in range(n)])
        high = ir.Constant(ir.VectorType(I32, n), [I32(n + j if j & half else j + half) for j in range(n)])
        pairs = [(values[i], values[i + half]) for i in range(half)]
        values = [builder.fadd(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)) for a, b in pairs]
        half //= 2
    return values[0]


@intrinsic
def rows_of(typing, w, at, step, a, count, out, to, rows):
    """dots for 0 < rows <= lanes."""
    number = types.int64

    def emit(context, builder, signature, arguments):
        kind = scalar(signature.args[0])
        w, a, out = (data(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 5))
        at, step, count, to, rows = (arguments[i] for i in (1, 2, 4, 6, 7))
        e, starts, sums = Emitter(builder, kind, width(kind)), [], []
        for r in range(e.lanes):  # rows beyond the last one are the last one again
            starts.append(at)
            at = builder.add(at, builder.select(builder.icmp_signed("<", I64(r + 1), rows), step, I64(0)))
            sums.append(cgutils.alloca_once(builder, e.type))
            builder.store(e.constant(0).value, sums[-1])

        def body(e, j, part):
            value = e.load(a, j, part)
            for start, place in zip(starts, sums, strict=True):
                more = e.load(w, builder.add(start, j), part)
                builder.store(e.fma(more, value, Lanes(e, builder.load(place))).value, place)

        each_vector(builder, kind, count, body)
        total = together(builder, e, [builder.load(place) for place in sums])
        e.store(out, to, Lanes(e, total), e.first(rows))
        return context.get_dummy_value()

    return types.void(w, number, number, a, number, out, number, number), emit


@inside
def dots(w, at, step, a, count, out, to, rows):
    """out[to + r] = sum_j w[at + step r + j] a[j], j < count, r < rows."""
    wide = wide_of(w) // 2
    for r in range(0, rows, wide):
        rows_of(w, at + r * step, step, a, count, out, to + r, min(wide, rows - r))


SUMS = 4  # vectors of partial sums of a row: a product waits for no other


@intrinsic
def row_dot(typing, w, at, a, count):
    """sum_j w[at + j] a[j], j < count."""
    number = types.int64

    def emit(context, builder, signature, arguments):
        kind = scalar(signature.args[0])
        w, a = (data(context, builder, signature.args[i], arguments[i]) for i in (0, 2))
        at, count = arguments[1], arguments[3]
        e = Emitter(builder, kind, width(kind))
        sums = [cgutils.alloca_once(builder, e.type) for _ in range(SUMS)]
        for place in sums:
            builder.store(e.constant(0).value, place)

        def add(place, j, part=None):
            value = e.fma(e.load(w, builder.add(at, j), part), e.load(a, j, part), Lanes(e, builder.load(place)))
            builder.store(value.value, place)

        step = SUMS * e.lanes
        whole = builder.sub(count, builder.srem(count, I64(step)))
        with cgutils.for_range_slice(builder, I64(0), whole, I64(step), intp=I64) as (j, _):
            for u, place in enumerate(sums):
                add(place, builder.add(j, I64(u * e.lanes)))
        each_vector(
            builder, kind, builder.sub(count, whole), lambda e, j, part: add(sums[0], builder.add(whole, j), part)
        )
        first, *others = (Lanes(e, builder.load(place)) for place in sums)
        for other in others:
            first = first + other
        reduced = e._intrinsic(f"llvm.vector.reduce.fadd.{e.suffix}", ir.FunctionType(kind, [kind, e.type]))
        return builder.call(reduced, [ir.Constant(kind, 0.0), first.value], fastmath=("reassoc",))

    return w.dtype(w, number, a, number), emit


@inside
def row_by_row(x, at, a, out, count):
    """As dots, with each row read from one end to the other, as the prefetchers of memory like it best."""
    for r in range(count):
        out[r] = row_dot(x, at + r * a.size, a, a.size)


@inside
def product(x, at, bias, a, out, count):
    """out_r = sum_j W_rj a_j + b_r, r < count; W begins at x[at], b at x[bias] if that is not negative."""
    if x.size > LARGE:
        row_by_row(x, at, a, out, count)
    else:
        dots(x, at, a.size, a, a.size, out, 0, count)
    if bias >= 0:
        b = x[bias : bias + count]
        for r in range(count):
            out[r] += b[r]


@inside
def normed(h, x, at, bias, eps, centred, y):
    """y = a (h - m) r + b, or y = a h r, as in rows.py."""
    size, one = h.size, h.dtype.type(1)
    a = x[at : at + size]
    mean = rows.mean_of(h) if centred else h.dtype.type(0)
    r = one / np.sqrt(rows.mean_square(h, mean) + h.dtype.type(eps))
    for j in range(size):
        y[j] = a[j] * ((h[j] - mean) * r)
    if bias >= 0:
        b = x[bias : bias + size]
        for j in range(size):
            y[j] += b[j]


@inside
def turned(q, width, cos, sin, adjacent):
    """Turn the pairs of each head of q in place."""
    pairs = cos.size
    jump, stride = (1, 2) if adjacent else (pairs, 1)
    for first in range(0, q.size, width):
        for i in range(pairs):
            j = first + stride * i
            u, v = q[j], q[j + jump]
            q[j], q[j + jump] = u * cos[i] - v * sin[i], u * sin[i] + v * cos[i]


@inside
def attended(q, kept, at, shape, count, scale, s, zeros, o):
    """o_h = sum_t p_t v_t, p the softmax over the first `count` times. at: where keys and values of this row begin in
    `kept`; shape: (H, G, d, room); s: (1, room), to work with."""
    (keys, values), (heads, shared, width, room), wide = at, shape, wide_of(q) // 2
    flat, place = s[0], np.zeros((2, 1), np.int64)
    scale = q.dtype.type(scale)
    for h in range(heads):
        group = h // (heads // shared) * width * room
        for t in range(0, count, 4 * wide):
            plan = Product(
                left_at=h * width,
                left_jump=0,
                left_step=1,
                right_at=keys + group + t,
                right_step=room,
                out_at=t,
                start_at=0,
                start_like_out=False,
                n=4 * wide,
                times=1,
                run=width,
            )
            scores(q, kept, flat, zeros, place, 0, 1, plan)
        total = exponentials(s, 0, count, scale, scale * largest(flat, 0, count))
        dots(kept, values + group, room, flat, count, o, h * width, width)
        for i in range(h * width, (h + 1) * width):
            o[i] /= total


@inside
def layer(x, h, t, n, numbers, kept, at, angles, work):
    """One layer: h, (D,), in place. t: its row of the table; n: Sizes as a vector; at: where this row's keys and values
    begin in `kept`, and the position; work: (norms and sums, q, k and v, o, scores, hidden, zeros)"""
    (y, q, kv, o, s, hidden, zeros), (keys, values, position) = work, at
    heads, inner, size, width = n[1], n[1] * n[3], n[2] * n[3], n[3]
    room, hid, eps = s.shape[1], hidden[0], numbers[0]
    k, v = kv[:size], kv[size:]
    normed(h, x, t[0], t[1], eps, n[9], y)
    product(x, t[2], t[3], y, q, inner)
    product(x, t[4], t[5], y, k, size)
    product(x, t[6], t[7], y, v, size)
    if n[7] > 0:
        cos, sin = angles[0, position], angles[1, position]
        turned(q, width, cos, sin, n[8])
        turned(k, width, cos, sin, n[8])
    for i in range(size):
        kept[keys + i * room + position], kept[values + i * room + position] = k[i], v[i]
    attended(q, kept, (keys, values), (heads, n[2], width, room), position + 1, numbers[1], s, zeros, o)
    product(x, t[8], t[9], o, y, h.size)
    for j in range(h.size):
        h[j] += y[j]
    normed(h, x, t[10], t[11], eps, n[9], y)
    product(x, t[14], t[15], y, hid, hid.size)
    if n[11]:
        product(x, t[12], t[13], y, hidden[1], hid.size)
        gates._activate(hidden[1], hidden[1], n[10])
        for j in range(hid.size):
            hid[j] *= hidden[1, j]
    else:
        gates._activate(hid, hid, n[10])
    product(x, t[16], t[17], hid, y, h.size)
    for j in range(h.size):
        h[j] += y[j]


@inside
def run(x, kept, words, length, table, n, numbers, angles, out):
    """Put words, (B, T), behind the `length` ones whose keys and values are `kept`, (L, 2, B, G d, room), flat.

    table: (L, len(TABLE))   n: Sizes   numbers: (eps of the norms, scale of the scores)   angles: (2, times, pairs),
    cosines and sines   out: (B, 1 or T, V), logits behind the last word or behind each

    Returns False, and has done nothing, where a word is none of the V.
    """
    (B, T), D, size = words.shape, n[0], n[2] * n[3]
    room = kept.size // (2 * n[6] * B * size)
    for b in range(B):
        for t in range(T):
            if words[b, t] < 0 or words[b, t] >= n[5]:
                return False
    h, y, s = np.empty(D, x.dtype), np.empty(D, x.dtype), np.empty((1, room), x.dtype)
    q, o, kv = np.empty(n[1] * n[3], x.dtype), np.empty(n[1] * n[3], x.dtype), np.empty(2 * size, x.dtype)
    hidden, zeros = np.empty((2, n[4]), x.dtype), np.zeros(PANEL, x.dtype)
    work = (y, q, kv, o, s, hidden, zeros)
    for b in range(B):
        for i in range(T):
            position = length + i
            row = x[n[12] + words[b, i] * D : n[12] + words[b, i] * D + D]
            for j in range(D):
                h[j] = row[j]
            if n[13] >= 0:
                row = x[n[13] + position * D : n[13] + position * D + D]
                for j in range(D):
                    h[j] += row[j]
            for k in range(n[6]):
                keys = (2 * k * B + b) * size * room
                layer(x, h, table[k], n, numbers, kept, (keys, keys + B * size * room, position), angles, work)
            if i + 1 == T or out.shape[1] == T:
                normed(h, x, n[14], n[15], numbers[0], n[9], y)
                product(x, n[16], n[17], y, out[b, i if out.shape[1] == T else 0], n[5])
    return True
