"""What attention_blocks.py is made of: operands in panels, products of a block, the rows of a block of scores."""

from typing import NamedTuple

from npopt.backend.draws import hashed_uniform
from npopt.backend.once import compiled, inside, once

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .blocks import Product, block_product
from .functions import exp
from .products import transpose_part
from .recurrent_parts import wide_of
from .simd import I32, ROWS, Emitter, data, each_vector, scalar, width

sums = compiled(forceinline=True, fastmath={"reassoc", "nsz", "contract"})  # the order of terms is free: vectors
whole, part = (block_product(2, masked, apart=True) for masked in (False, True))


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


@intrinsic
def copy(typing, a, at, out, to, count):
    """out[to + j] = a[at + j], j < count. Slices of a few numbers would cost more than their numbers."""

    def emit(context, builder, signature, arguments):
        source, target = (data(context, builder, signature.args[k], arguments[k]) for k in (0, 2))

        def body(e, j, part):
            e.store(target, builder.add(arguments[3], j), e.load(source, builder.add(arguments[1], j), part), part)

        each_vector(builder, scalar(signature.args[0]), arguments[4], body)
        return context.get_dummy_value()

    return types.void(a, types.int64, out, types.int64, types.int64), emit


@once(bare=True)
def copy_rows(a, at, step, out, to, jump, count, d):
    """out[to + jump i ...] = a[at + step i ...], d numbers each, i < count."""
    for i in range(count):
        copy(a, at + step * i, out, to + jump * i, d)


@once(bare=True)
def pack_columns(a, at, step, count, d, out):
    """The same rows as columns: panels of as many rows as wide_of(a), d numbers long."""
    wide = wide_of(a)
    for p in range(0, count, wide):
        n = min(wide, count - p)
        transpose_part(a, at + step * p, step, out, p * d, n, n, d, wide // 2)


@once(bare=True)
def product(left, left_at, right, right_at, out, begin, rows, sizes):
    """out[out_at + rows[1, i] + j] = S + sum_k left[at + rows[0, i] + step k] B[k, j], i < m, k < depth, j < n.

    left_at: (at, step)   right_at: (base, jump, row): columns p, p + 1, ... of B, those of a panel, begin at
    right[base + jump p], and its rows are `row` numbers apart, or as long as the panel is wide, if row is 0
    sizes: (m, depth, n, out_at, more)   more: S is what stands in out, begin being out; else begin holds zeros
    """
    (at, step), (base, jump, row), (m, depth, n, out_at, more) = left_at, right_at, sizes
    wide = wide_of(out)
    for p in range(0, n, wide):
        count = min(wide, n - p)
        plan = Product(
            left_at=at,
            left_jump=0,
            left_step=step,
            right_at=base + p * jump,
            right_step=row if row > 0 else count,
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


@once
def limit(s, block, keep, slope, how):
    """s_ij <- -inf where query i may not see key j; slopes are taken off. block: (m, n, i0, j0, all keys)   keep: of
    these keys, or empty. Scores are not scaled yet."""
    (m, n, i0, j0, size), inf = block, s.dtype.type(-np.inf)
    if keep.size:
        for i in range(m):
            for j in range(n):
                s[i, j] = s[i, j] if keep[j] else inf
    if how.kind == 0 and slope == 0 and bounds(i0 + m - 1, size, how)[0] <= j0 and bounds(i0, size, how)[1] >= j0 + n:
        return
    for i in range(m):
        row, at = s[i, :n], how.first + i0 + i
        if slope != 0:
            each = row.dtype.type(slope / how.scale)
            for j in range(n):
                row[j] -= each * row.dtype.type(abs(at - j0 - j))
        lo, hi = bounds(i0 + i, size, how)
        for j in range(0, min(max(lo - j0, 0), n)):
            row[j] = inf
        for j in range(max(hi - j0, 0), n):
            row[j] = inf
        if how.kind > 0:
            for j in range(n):
                key = j0 + j
                if how.kind == 1:
                    seen = abs(at - key) < how.length or (at - key) % how.length == 0
                else:
                    seen = at // how.length == key // how.length or key % how.length >= how.length - how.columns
                if not seen:
                    row[j] = inf


@intrinsic
def largest(typing, a, at, count):
    """The largest of a[at], ..., a[at + count - 1]; NaN, if one of them is."""

    def emit(context, builder, signature, arguments):
        kind, base = scalar(signature.args[0]), data(context, builder, signature.args[0], arguments[0])
        lanes = Emitter(builder, kind, width(kind))
        low = lanes.constant(float("-inf")).value
        place = cgutils.alloca_once(builder, lanes.type)
        builder.store(low, place)

        def larger(one, two):
            f = lanes._intrinsic(f"llvm.maximum.{lanes.suffix}", ir.FunctionType(lanes.type, [lanes.type] * 2))
            return builder.call(f, [one, two])  # NaN stays

        def body(e, j, part):
            value = e.load(base, builder.add(arguments[1], j), part).value
            value = value if part is None else builder.select(part, value, low)
            builder.store(larger(value, builder.load(place)), place)

        each_vector(builder, kind, arguments[2], body)
        found, half = builder.load(place), lanes.lanes // 2
        while half:
            turn = [I32(i ^ half) for i in range(lanes.lanes)]
            turned = builder.shuffle_vector(found, found, ir.Constant(ir.VectorType(I32, lanes.lanes), turn))
            found, half = larger(found, turned), half // 2
        return builder.extract_element(found, I32(0))

    return a.dtype(a, types.int64, types.int64), emit


@sums
def exponentials(s, i, n, scale, shift):
    """Row i of s <- e^(scale s - shift); its sum."""
    total = s.dtype.type(0)
    for j in range(n):
        e = exp(scale * s[i, j] - shift)
        s[i, j] = e
        total += e
    return total


@sums
def dot(a, b, i):
    """The product of the rows i of a and b."""
    total = a.dtype.type(0)
    for j in range(a.shape[1]):
        total += a[i, j] * b[i, j]
    return total


@once
def go_on(s, block, tops, totals, o, how):
    """A block of scores more: s <- e^(scale (s - top)), top the largest so far; o and the sums shrink where it grows.
    block: (m, n, numbers of a row of o)"""
    (m, n, d), scale = block, s.dtype.type(how.scale)
    for i in range(m):
        before, top = tops[i], largest(s, i * s.shape[1], n)
        top = before if top <= before else top  # NaN stays, too
        if top == -np.inf:  # nothing to be seen yet
            s[i, :n] = 0
            continue
        total = exponentials(s, i, n, scale, scale * top)
        if top != before:
            shrink = exp(scale * (before - top))
            row = o[d * i : d * i + d]
            for k in range(d):
                row[k] *= shrink
            tops[i], totals[i] = top, totals[i] * shrink
        totals[i] += total


@inside
def divide(o, i, top, total):
    """Row i of o <- itself / total, 0 where nothing was seen; the logarithm of the sum of e^s, top being scaled."""
    if total <= 0:
        o[i] = 0
        return np.inf
    for d in range(o.shape[1]):
        o[i, d] /= total
    return top + np.log(total)


@inside
def dropped(row, start, how):
    """row_j <- row_j M_j, M_j from draw number start + j: 0 or 1/(1 - rate)."""
    scale, zero = row.dtype.type(1 / (1 - how.rate)), row.dtype.type(0)
    for j in range(row.size):
        u = hashed_uniform(np.uint64(how.key), np.uint64(start + j))
        row[j] *= scale if u >= how.rate else zero


@once
def gradients(p, dp, block, lse, r, at, draw, how):
    """p <- e^(scale p - lse), dp <- scale p (M dp - r), then p <- p M. Row i has lse[at[0] + i], r[at[1] + i] and the
    draws from draw[0] + draw[1] i on."""
    (m, n), scale = block, p.dtype.type(how.scale)
    for i in range(m):
        shift, mean = lse[at[0] + i], r[at[1] + i]
        if how.rate > 0:
            dropped(dp[i, :n], draw[0] + draw[1] * i, how)
        for j in range(n):
            e = exp(scale * p[i, j] - shift)
            p[i, j] = e
            dp[i, j] = scale * e * (dp[i, j] - mean)
        if how.rate > 0:
            dropped(p[i, :n], draw[0] + draw[1] * i, how)
