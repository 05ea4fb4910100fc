"""One query over keys and values that are codes of a few bits (nn/decoding/kivi.py), on a CPU: nothing is unpacked into
memory. A byte holds numbers that stand a part of a group apart, so that unpacking is a shift of whole vectors.

    score_t = scale sum_d q_d (low_d + step_d code_dt)          keys by channel: groups of words
    y_d = sum_t p_t (low_t + step_t code_td)                    values by word: groups of channels

Both are sums of code vectors, of eight bytes each, times numbers a_i = q_d step_d or p_t step_t: `weigh`. The lows
add a number to a whole group.
"""

from npopt.backend.once import inside

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .attention_parts import exponentials, largest
from .simd import F32, I64, Emitter, Lanes, data, scalar
from .word_products import dots

HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)  # float16 numbers by their bits
LANES = 8  # bytes that are taken at a time
PLACES = {bits: tuple(range(8 // bits)) for bits in (2, 4, 8)}  # of the parts of a byte: their number is a constant
I8, I32 = ir.IntType(8), ir.IntType(32)


@intrinsic
def weigh(typing, codes, at, stride, a, count, out, where, places):
    """out[to + p jump + j] += sum_i a[i] (part p of codes[at + i stride + j]), i < count, j < 8, p one of the places,
    as many as a byte has parts. where: (to, jump)"""
    parts = places.count
    bits = 8 // parts
    number = types.int64

    def emit(context, builder, signature, arguments):
        if scalar(signature.args[3]) is not F32:
            raise TypeError("weigh is for float32")
        codes, a, out = (data(context, builder, signature.args[i], arguments[i]) for i in (0, 3, 5))
        at, stride, count = (arguments[i] for i in (1, 2, 4))
        to, jump = cgutils.unpack_tuple(builder, arguments[6], 2)
        e, wide, bytes_ = Emitter(builder, F32, LANES), ir.VectorType(I32, LANES), ir.VectorType(I8, LANES)
        constant = lambda value: ir.Constant(wide, [I32(value)] * LANES)  # noqa: E731
        sums = [cgutils.alloca_once(builder, e.type) for _ in range(parts)]
        for place in sums:
            builder.store(e.constant(0).value, place)
        with cgutils.for_range_slice(builder, I64(0), count, I64(1), intp=I64) as (i, _):
            start = builder.add(at, builder.mul(i, stride))
            row = builder.load(builder.bitcast(builder.gep(codes, [start]), bytes_.as_pointer()), align=1)
            row, share = builder.zext(row, wide), e.splat(builder.load(builder.gep(a, [i])))
            for p, place in enumerate(sums):
                part = builder.and_(builder.lshr(row, constant(bits * p)), constant((1 << bits) - 1))
                value = Lanes(e, builder.sitofp(part, e.type))
                builder.store(e.fma(value, share, Lanes(e, builder.load(place))).value, place)
        for p, place in enumerate(sums):
            here = builder.add(to, builder.mul(jump, I64(p)))
            e.store(out, here, e.load(out, here) + Lanes(e, builder.load(place)))
        return context.get_dummy_value()

    return types.void(codes, number, number, a, number, out, types.UniTuple(number, 2), places), emit


@inside
def attend(q, keys, fresh_keys, values, fresh_values, sizes, how, y):
    """y: (B, G, R, d), of q alike. keys, values: (codes, low, step), (B, G, ...), flat behind these axes; lows and
    steps are bits of float16. fresh_keys, fresh_values: words that are not rounded, (B, G, ...), flat, too.

    sizes: of keys (groups of words in use, bytes of one, where fresh ones begin, how many there are), of values
    (words in use, groups of channels, bytes of one, where fresh ones begin, how many there are). All is seen.
    how: (scale, HALF, PLACES of the bits)"""
    scale, table, places = how
    (B, G, R, d), (units, size, first, new, words, groups, width, begin, more) = q.shape, sizes
    parts = len(places)
    old, group = units * size * parts, size * parts
    both, a = np.empty((1, old + new), np.float32), np.empty(max(d, words), np.float32)
    scores = both[0]
    for b in range(B):
        for g in range(G):
            codes, low, step = keys[0][b, g], keys[1][b, g], keys[2][b, g]
            told, below, stair = values[0][b, g], values[1][b, g], values[2][b, g]
            latest, later = fresh_keys[b, g], fresh_values[b, g]
            for r in range(R):
                one, out = q[b, g, r], y[b, g, r]
                for u in range(units):
                    base = np.float32(0)
                    for c in range(d):
                        a[c] = one[c] * table[step[u * d + c]]
                        base += one[c] * table[low[u * d + c]]
                    for t in range(u * group, (u + 1) * group):
                        scores[t] = base
                    for j in range(0, size, LANES):
                        weigh(codes, u * d * size + j, size, a, d, scores, (u * group + j, size), places)
                dots(latest, first * d, d, one, d, scores, old, new)
                total = exponentials(both, 0, old + new, scale, scale * largest(scores, 0, old + new))
                for k in range(groups):
                    base = np.float32(0)
                    for t in range(words):
                        a[t] = scores[t] * table[stair[t * groups + k]]
                        base += scores[t] * table[below[t * groups + k]]
                    start = k * width * parts
                    for c in range(start, start + width * parts):
                        out[c] = base
                    for j in range(0, width, LANES):
                        weigh(told, k * width + j, groups * width, a, words, out, (start + j, width), places)
                for t in range(more):
                    for c in range(d):
                        out[c] += scores[words + t] * later[(begin + t) * d + c]
                for c in range(d):
                    out[c] /= total


def fits(*sizes):
    """Whether groups of so many bytes are taken."""
    return all(size and size % LANES == 0 for size in sizes)
