"""Numbers kept as codes of 8 or 4 bits: compiled loops over blocks that decode and encode them.

A number is kept as values[code] * scale, where `values` are those of a map (npopt/codes.py) and the scale is the
largest magnitude of its block.

    nearest code    c = base[top 16 bits of q] + (q > bound[there]),   q = w (1 / scale) in float32

bound[c] is the largest q that has the code c or a lower one, and base[k] the lowest code among the float32 numbers
whose top 16 bits are k. That is exact where at most one bound lies among these numbers; codes.py sees to it. With
AVX-512, sixteen.py finds the same codes of 8 bits faster. formulas_on_codes.py has the loops of formulas.
"""

from npopt.backend import sixteen
from npopt.backend.draws import hashed_uniform

import numba
import numpy as np

NORMAL, INFINITE = 0x00800000, 0x7F800000  # bits of the smallest normal number, and of infinity


@numba.njit(inline="always", error_model="numpy")
def code_of(q, base, bound):
    c = np.int64(base[np.float32(q).view(np.uint32) >> np.uint32(16)])
    return c + np.int64(q > bound[c])


@numba.njit(inline="always", error_model="numpy")
def drawn_code_of(q, base, bound, values, key, i):
    """The code below q, or the one above, as often as q is near it; from there on as in a formula's uniform(key)."""
    c = code_of(q, base, bound)
    above = min(c + 1, values.size - 1)
    step = values[above] - values[c]
    return above if np.float32(hashed_uniform(key, np.uint64(i))) * step < q - values[c] else c


@numba.njit(error_model="numpy")
def decode_each(codes, values, scale, w, start, stop):
    for i in range(start, stop):
        w[i] = values[codes[i]] * scale


@numba.njit(error_model="numpy")
def encode_each(w, start, stop, over, base, bound, codes):
    for i in range(start, stop):
        codes[i] = code_of(np.float32(w[i] * over), base, bound)


if sixteen.THERE:

    @numba.njit(error_model="numpy")
    def decode_block(codes, tables, scale, w, start, stop):
        values, lanes, zero, _, _ = tables
        middle = stop - (stop - start) % 16
        if zero:
            sixteen.decode_signed(codes, w, lanes, start, middle, zero, scale)
        else:
            sixteen.decode_unsigned(codes, w, lanes, start, middle, zero, scale)
        if middle < stop:
            decode_each(codes, values, scale, w, middle, stop)

    @numba.njit(error_model="numpy")
    def encode_block(w, start, stop, over, tables, codes):
        _, lanes, zero, base, bound = tables
        middle = stop - (stop - start) % 16
        if zero:
            sixteen.encode_signed(w, codes, lanes, start, middle, zero, over)
        else:
            sixteen.encode_unsigned(w, codes, lanes, start, middle, zero, over)
        if middle < stop:
            encode_each(w, middle, stop, over, base, bound, codes)

else:

    @numba.njit(error_model="numpy")
    def decode_block(codes, tables, scale, w, start, stop):
        decode_each(codes, tables[0], scale, w, start, stop)

    @numba.njit(error_model="numpy")
    def encode_block(w, start, stop, over, tables, codes):
        encode_each(w, start, stop, over, tables[3], tables[4], codes)


# What follows works on a strip of some blocks: w, their numbers; codes and scales, theirs alone.


@numba.njit(error_model="numpy")
def decode_8(codes, scales, tables, block, w):
    for b in range(scales.size):
        start = b * block
        decode_block(codes, tables, scales[b], w, start, min(start + block, codes.size))


@numba.njit(error_model="numpy")
def decode_4(codes, scales, tables, block, w):
    """Two codes a byte, the first in the lower half. One number more is written where w has an odd length."""
    values = tables[0]
    for b in range(scales.size):
        start, scale = b * block // 2, scales[b]
        for i in range(start, min(start + block // 2, codes.size)):
            w[2 * i] = values[codes[i] & 15] * scale
            w[2 * i + 1] = values[codes[i] >> 4] * scale


@numba.njit(error_model="numpy")
def copy(x, before):
    for i in range(x.size):
        before[i] = x[i]


@numba.njit(error_model="numpy")
def measure(w, size, block, scales):
    """scales <- the largest magnitude of each block. Returns the bits of the largest of all; those of infinity, or
    more, where a number is not finite."""
    bits, out, most = w.view(np.uint32), scales.view(np.uint32), np.uint32(0)
    for b in range(scales.size):
        top, start = np.uint32(0), np.uint64(b * block)  # indices without a sign: the loop becomes vector code
        for i in range(min(block, size - b * block)):
            magnitude = np.uint32(bits[start + np.uint64(i)] & np.uint32(0x7FFFFFFF))
            if magnitude > top:
                top = magnitude
        out[b] = top
        if top > most:
            most = top
    return most


@numba.njit(error_model="numpy")
def most(scales):
    """The bits of the largest of all."""
    bits, top = scales.view(np.uint32), np.uint32(0)
    for b in range(scales.size):
        if bits[b] > top:
            top = bits[b]
    return top


@numba.njit(error_model="numpy")
def encode_8(w, size, scales, tables, block, draws, lo, codes):
    """Codes of w[:size]. tables: (values, lanes, zero, base, bound) of a code; draws: (whether to round at random, the
    key, the index of number 0 in the draws); lo: of w[0] in the array."""
    (draw, key, first), (values, _, zero, base, bound) = draws, tables
    bits = scales.view(np.uint32)
    for b in range(scales.size):
        start, stop = b * block, min(b * block + block, size)
        if bits[b] < NORMAL:
            codes[start:stop], scales[b] = zero, 0
        elif draw:
            over = np.float32(1.0) / scales[b]
            for i in range(start, stop):
                codes[i] = drawn_code_of(np.float32(w[i] * over), base, bound, values, key, first + lo + i)
        else:
            encode_block(w, start, stop, np.float32(1.0) / scales[b], tables, codes)


@numba.njit(error_model="numpy")
def encode_4(w, size, scales, tables, block, draws, lo, codes):
    """The same, two codes a byte."""
    (draw, key, first), (values, _, zero, base, bound) = draws, tables
    bits = scales.view(np.uint32)
    for b in range(scales.size):
        start, stop = b * block, min(b * block + block, size)
        if bits[b] < NORMAL:
            codes[start // 2 : (stop + 1) // 2], scales[b] = 17 * zero, 0
            continue
        over = np.float32(1.0) / scales[b]
        for i in range(start, stop):
            q = np.float32(w[i] * over)
            c = drawn_code_of(q, base, bound, values, key, first + lo + i) if draw else code_of(q, base, bound)
            codes[i >> 1] = c if i & 1 == 0 else codes[i >> 1] | (c << 4)


@numba.njit(cache=True, error_model="numpy")
def decode(codes, scales, tables, bits, block, out):
    """All numbers of a coded array, float32; out may be one number longer."""
    if bits == 8:
        decode_8(codes, scales, tables, block, out)
    else:
        decode_4(codes, scales, tables, block, out)


@numba.njit(cache=True, error_model="numpy")
def encode(w, codes, scales, tables, bits, block, draws):
    """Codes and scales of all numbers of w, float32; what is not finite becomes 0, in w, too."""
    if measure(w, w.size, block, scales) >= INFINITE:
        for i in range(w.size):
            if not np.isfinite(w[i]):
                w[i] = 0
        measure(w, w.size, block, scales)
    if bits == 8:
        encode_8(w, w.size, scales, tables, block, draws, 0, codes)
    else:
        encode_4(w, w.size, scales, tables, block, draws, 0, codes)
