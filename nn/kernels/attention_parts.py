"""What the attention loops of attention_blocks.py are made of: operands in panels, products of a block, one row of scores."""

from typing import NamedTuple

from npopt.backend.draws import hashed_uniform

import numpy as np

from .blocks import Product, block_product
from .functions import exp
from .products import compiled, inside, transpose_part
from .recurrent_parts import wide_of
from .simd import ROWS

sums = compiled(forceinline=True, fastmath={"reassoc", "nsz", "contract"})  # the order of terms is free: vectors
whole, part = (block_product(2, masked, apart=True) for masked in (False, True))
largest = compiled(forceinline=True, fastmath={"nnan", "nsz"})


class Settings(NamedTuple):
    """How of reference_attention.py in numbers. kind: 0 all, 1 strided, 2 fixed; rate, key: dropout."""

    scale: float
    causal: bool
    window: int
    kind: int
    length: int
    columns: int
    first: int
    rate: float
    key: int


@inside
def pack_rows(a, at, step, count, d, out):
    """Rows a[at + step i ...], d numbers each, in panels of wide_of(a) columns."""
    wide = wide_of(a)
    for p in range(0, d, wide):
        n = min(wide, d - p)
        for i in range(count):
            source, to = a[at + step * i + p : at + step * i + p + n], out[p * count + i * n : p * count + (i + 1) * n]
            for j in range(n):
                to[j] = source[j]


@inside
def pack_columns(a, at, step, count, d, out):
    """The same rows as columns: panels of as many rows, d numbers long."""
    wide = wide_of(a)
    for p in range(0, count, wide):
        n = min(wide, count - p)
        transpose_part(a, at + step * p, step, out, p * d, n, n, d, wide // 2)


@inside
def product(left, left_at, right, right_at, out, begin, rows, sizes):
    """out[out_at + rows[1, i] + j] = S + sum_k left[at + rows[0, i] + step k] B[first + k, j], i < m, k < depth, j < n.

    left_at: (at, step)   right_at: (base, total, first): panels from right[base], of `total` rows
    sizes: (m, depth, n, out_at, more)   more: S is what stands in out, begin being out; else begin holds zeros
    """
    (at, step), (base, total, first), (m, depth, n, out_at, more) = left_at, right_at, sizes
    wide = wide_of(out)
    for p in range(0, n, wide):
        count = min(wide, n - p)
        plan = Product(
            left_at=at,
            left_jump=0,
            left_step=step,
            right_at=base + p * total + first * count,
            right_step=count,
            out_at=out_at + p,
            start_at=out_at + p if more else 0,
            start_like_out=more,
            n=count,
            times=1,
            run=depth,
        )
        for i in range(0, m, ROWS):
            if count == wide:
                whole(left, right, out, begin, rows, i, min(ROWS, m - i), plan)
            else:
                part(left, right, out, begin, rows, i, min(ROWS, m - i), plan)


@inside
def bounds(i, keys, how):
    """(lo, hi): query number i may see keys lo <= j < hi at most."""
    at, lo, hi = how.first + i, 0, keys
    if how.causal:
        hi = min(hi, at + 1)
    if how.window > 0:
        lo, hi = max(lo, at - how.window + 1), min(hi, at + how.window)
    return lo, hi


@inside
def limit(row, i, j0, size, keep, slope, how):
    """row <- scale row - slope |i - j|, -inf where query number i may not see key j0 + j. keep: of these keys, or
    empty."""
    scale, inf = row.dtype.type(how.scale), row.dtype.type(-np.inf)
    for j in range(row.size):
        row[j] *= scale
    at = how.first + i
    if slope != 0:
        for j in range(row.size):
            row[j] -= slope * row.dtype.type(abs(at - j0 - j))
    if keep.size:
        for j in range(row.size):
            row[j] = row[j] if keep[j] else inf
    lo, hi = bounds(i, size, how)
    for j in range(0, min(max(lo - j0, 0), row.size)):
        row[j] = inf
    for j in range(max(hi - j0, 0), row.size):
        row[j] = inf
    if how.kind > 0:
        for j in range(row.size):
            key = j0 + j
            if how.kind == 1:
                seen = abs(at - key) < how.length or (at - key) % how.length == 0
            else:
                seen = at // how.length == key // how.length or key % how.length >= how.length - how.columns
            if not seen:
                row[j] = inf


@largest
def top_of(row, top):
    """The largest number of a row and `top`."""
    for j in range(row.size):
        top = row[j] if row[j] > top else top
    return top


@sums
def exponentials(row, top):
    """row <- e^(row - top); their sum."""
    total = row.dtype.type(0)
    for j in range(row.size):
        e = exp(row[j] - top)
        row[j] = e
        total += e
    return total


@sums
def dot(a, b):
    total = a.dtype.type(0)
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@inside
def go_on(row, o, tops, totals, i):
    """One row of scores more: row <- e^(row - m), m the largest so far; o and the sum shrink where m grows."""
    before = tops[i]
    top = top_of(row, before)
    if top == -np.inf:  # nothing to be seen yet
        row[:] = 0
        return
    shrink = exp(before - top)
    totals[i] = totals[i] * shrink + exponentials(row, top)
    tops[i] = top
    if shrink != 1:
        for d in range(o.size):
            o[d] *= shrink


@inside
def dropped(row, start, how):
    """row_j <- row_j M_j, M_j from draw number start + j: 0 or 1/(1 - rate)."""
    scale, zero = row.dtype.type(1 / (1 - how.rate)), row.dtype.type(0)
    for j in range(row.size):
        u = hashed_uniform(np.uint64(how.key), np.uint64(start + j))
        row[j] *= scale if u >= how.rate else zero


@inside
def gradient_row(p, dp, r, start, how):
    """dp <- scale p (M dp - r), p <- p M."""
    scale = p.dtype.type(how.scale)
    if how.rate > 0:
        dropped(dp, start, how)
    for j in range(p.size):
        dp[j] = scale * p[j] * (dp[j] - r)
    if how.rate > 0:
        dropped(p, start, how)


@inside
def divide(o, top, total):
    """o <- o / total, 0 where nothing was seen; the logarithm of the sum of e^s."""
    if total <= 0:
        o[:] = 0
        return np.inf
    for d in range(o.size):
        o[d] /= total
    return top + np.log(total)
