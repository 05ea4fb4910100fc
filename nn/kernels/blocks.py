"""What the loops of this folder are made of: small kernels in registers. Arguments are arrays and offsets in numbers.

`block_product` is the inner loop of every convolution and every linear layer here.
"""

import functools
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .simd import I8, I32, I64, ROWS, Emitter, Lanes, data, each_vector, scalar, width


class Product(NamedTuple):
    """The whole numbers of a product, see block_product. (Arrays stay arguments of their own: numba counts references
    of arrays in a tuple at every call, a fifth of the time of a small product. Whole numbers cost nothing.)"""

    left_at: int
    left_jump: int
    left_step: int
    right_at: int
    right_step: int
    out_at: int
    start_at: int
    start_like_out: bool
    n: int
    times: int
    run: int


def block_product(vectors, masked, apart=False, height=ROWS):
    """A numba function: one register block of a matrix product, height x (vectors lanes) sums that stay in registers,

        C[i, j] = S[i, j] + sum_{r < times} sum_{k < run} A[i, r, k] B[r run + k, j],    i < m, j < n

        A[i, r, k] = left[left_at + rows[0, row + i] + left_jump r + left_step k]
        B[k, j] = right[right_at + right_step k + j]
        C[i, j] = out[out_at + rows[1, row + i] + j]
        S[i, j] = start[start_at + (rows[1, row + i] if start_like_out else 0) + j]

    S: a bias, one row for all, or C itself. m <= height: rows beyond m repeat row m - 1. masked: n <= vectors lanes;
    if not set, n is not looked at and taken as vectors lanes. times and run are at least 1. apart: the `run` terms of
    each r are summed by themselves, from 0, and then added. So a long sum loses fewer digits, but short runs cost time.
    """

    @intrinsic
    def call(typing, left, right, out, start, rows, row, m, plan):
        def emit(context, builder, signature, arguments):
            kind = scalar(signature.args[0])
            e = Emitter(builder, kind, width(kind))
            left, right, out, start = (data(context, builder, signature.args[i], arguments[i]) for i in range(4))
            table, (row, m) = context.make_array(signature.args[4])(context, builder, arguments[4]), arguments[5:7]
            plan = Product(*cgutils.unpack_tuple(builder, arguments[7]))
            columns = [I64(j * e.lanes) for j in range(vectors)]
            masks = [e.first(builder.sub(plan.n, j)) if masked else None for j in columns]
            length, last = builder.extract_value(table.shape, 1), builder.sub(m, I64(1))
            left_at, out_at, first = [], [], []
            for i in range(height):
                here = builder.select(builder.icmp_signed("<", I64(i), m), I64(i), last) if i else I64(0)
                at = builder.add(row, here)
                offset = builder.load(builder.gep(table.data, [at]))
                left_at.append(e.pointer(left, builder.add(plan.left_at, offset)))
                offset = builder.load(builder.gep(table.data, [builder.add(length, at)]))
                out_at.append(builder.add(plan.out_at, offset))
                begin = builder.add(plan.start_at, builder.select(plan.start_like_out, offset, I64(0)))
                first.append([e.load(start, builder.add(begin, j), k) for j, k in zip(columns, masks, strict=True)])

            def terms(left_offset, right_offset, sums):
                """The sums with one more product each."""
                factors = [e.load(right, builder.add(right_offset, j), k) for j, k in zip(columns, masks, strict=True)]
                numbers = [e.splat(builder.load(e.pointer(at, left_offset))) for at in left_at]
                return [
                    [e.fma(a, b, s) for b, s in zip(factors, of, strict=True)]
                    for a, of in zip(numbers, sums, strict=True)
                ]

            sums = two_loops(e, plan, first, terms, apart)
            for at, values in zip(out_at, sums, strict=True):
                for j, k, value in zip(columns, masks, values, strict=True):
                    e.store(out, builder.add(at, j), value, k)
            return context.get_dummy_value()

        return types.void(left, right, out, start, rows, types.int64, types.int64, plan), emit

    return call


def two_loops(e, plan, first, terms, apart):
    """The loops over r < times and k < run of a product: sums that begin as `first`, a list of lists of vectors."""
    builder, before = e.builder, e.builder.block
    outer, inner, after, end = (
        builder.append_basic_block(f"product.{name}") for name in ("outer", "inner", "after", "end")
    )

    def registers():
        return [[Lanes(e, builder.phi(e.type)) for _ in row] for row in first]

    def pairs(some, others):
        return [list(zip(a, b, strict=True)) for a, b in zip(some, others, strict=True)]

    def join(phis, values, block):
        for phi, value in sum(pairs(phis, values), []):
            phi.value.add_incoming(value.value, block)

    builder.branch(outer)
    builder.position_at_end(outer)
    r, jump, right_outer = (builder.phi(I64) for _ in range(3))
    kept = registers()
    builder.branch(inner)

    builder.position_at_end(inner)
    k, at, right_at = (builder.phi(I64) for _ in range(3))
    sums = registers()
    new = terms(at, right_at, sums)
    next_k, next_at = builder.add(k, I64(1)), builder.add(at, plan.left_step)
    next_right = builder.add(right_at, plan.right_step)
    builder.cbranch(builder.icmp_signed("<", next_k, plan.run), inner, after)
    for phi, begin, following in [(k, I64(0), next_k), (at, jump, next_at), (right_at, right_outer, next_right)]:
        phi.add_incoming(begin, outer)
        phi.add_incoming(following, inner)
    join(sums, [[e.constant(0)] * len(row) for row in first] if apart else kept, outer)
    join(sums, new, inner)

    builder.position_at_end(after)
    whole = new
    if apart:
        whole = [[Lanes(e, builder.fadd(a.value, b.value)) for a, b in row] for row in pairs(kept, new)]
    next_r, next_jump = builder.add(r, I64(1)), builder.add(jump, plan.left_jump)
    builder.cbranch(builder.icmp_signed("<", next_r, plan.times), outer, end)
    for phi, begin, following in [
        (r, I64(0), next_r),
        (jump, I64(0), next_jump),
        (right_outer, plan.right_at, next_right),
    ]:
        phi.add_incoming(begin, before)
        phi.add_incoming(following, after)
    join(kept, first, before)
    join(kept, whole, after)
    builder.position_at_end(end)
    return whole


def tile_transform(line, size_in, size_out, bias=False, exact=False, edge=None):
    """A numba function that applies a linear map on both axes of a small square tile, channel by channel,

        Y[., ., c] = M X[., ., c] M' + s[c],    c < count        (s only where bias is set)

        X[i, j, c] = x[first + down i + right j + c],  (first, down, right) = x_at,     and Y the same in y

    line: M as a function from a list of size_in values to one of size_out; it sees vectors of channels. exact: float32
    is mapped in float64 and rounded once. edge: the function takes one argument more, inside = (i0, i1, j0, j1). With
    "x" the pixels of X outside of i0 <= i < i1, j0 <= j < j1 are zero, with "y" those of Y are not written; neither are
    touched.
    """

    def emit(context, builder, signature, arguments):
        kind, count = scalar(signature.args[0]), arguments[5]
        x, y, s = (data(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 4))
        from_places, to_places = (
            grid(builder, cgutils.unpack_tuple(builder, arguments[i]), (size, size))
            for i, size in ((1, size_in), (3, size_out))
        )
        inside = dict.fromkeys("xy", None)
        if edge:
            size = size_in if edge == "x" else size_out
            inside[edge] = pixels_inside(builder, cgutils.unpack_tuple(builder, arguments[6]), size)

        def body(e, c, mask):
            masks = {side: functools.partial(narrowed, e, mask, pixels) for side, pixels in inside.items()}
            half = []  # M X, column by column; each is loaded when it is needed: registers are few
            for j in range(size_in):
                pixels = range(j, size_in * size_in, size_in)
                column = [e.load(x, builder.add(from_places[p], c), masks["x"](p)) for p in pixels]
                half.append(line([value.doubled() for value in column] if exact else column))
            extra = e.load(s, c, mask) if bias else None
            for i in range(size_out):  # and its rows times M'
                for j, value in enumerate(line([column[i] for column in half])):
                    p, value = i * size_out + j, value.rounded(e) if exact else value
                    e.store(y, builder.add(to_places[p], c), value + extra if bias else value, masks["y"](p))

        each_vector(builder, kind, count, body)
        return context.get_dummy_value()

    if edge:

        @intrinsic
        def call(typing, x, x_at, y, y_at, s, count, inside):
            return types.void(x, x_at, y, y_at, s, types.int64, inside), emit

    else:

        @intrinsic
        def call(typing, x, x_at, y, y_at, s, count):
            return types.void(x, x_at, y, y_at, s, types.int64), emit

    return call


def narrowed(e, mask, pixels, p):
    """The mask of a vector of pixel p: none of it where the pixel is outside."""
    return mask if pixels is None else e.where(pixels[p], mask)


def pixels_inside(builder, inside, size):
    """Whether i0 <= i < i1 and j0 <= j < j1, for all pixels (i, j) of a tile, row by row."""
    i0, i1, j0, j1 = inside

    def between(low, high):
        return [
            builder.and_(builder.icmp_signed("<=", low, I64(k)), builder.icmp_signed("<", I64(k), high))
            for k in range(size)
        ]

    rows, columns = between(i0, i1), between(j0, j1)
    return [builder.and_(row, column) for row in rows for column in columns]


def grid(builder, at, shape):
    """first + down i + right j for (first, down, right) = at and all (i, j) inside the shape, row by row."""
    first, down, right = at
    return [
        builder.add(first, builder.add(builder.mul(I64(i), down), builder.mul(I64(j), right)))
        for i, j in np.ndindex(*shape)
    ]


def pool_pixel(taps):
    """Two numba functions, for one window of `taps` pixels and all its channels c < count:

        there: y[y0 + c] = max_k x[first + offset_k + c], index[y0 + c] = the first k that reaches it (NaN stays)
        back: x[first + offset_k + c] = y[y0 + c] where index[y0 + c] = k, else 0

    (first, down, right) = x_at and offset_k = down (k // width) + right (k % width) for taps = (height, width); index
    holds uint8.
    """

    def function(make_body):
        @intrinsic
        def call(typing, x, x_at, y, y0, index, count):
            def emit(context, builder, signature, arguments):
                kind = scalar(signature.args[0])
                x, y, index = (data(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 4))
                places = grid(builder, cgutils.unpack_tuple(builder, arguments[1]), taps)
                each_vector(builder, kind, arguments[5], make_body(builder, x, places, y, arguments[3], index))
                return context.get_dummy_value()

            return types.void(x, x_at, y, types.int64, index, types.int64), emit

        return call

    return function(forward_pixel), function(backward_pixel)


def tap(e, k):
    """The number of a tap in all lanes."""
    return ir.Constant(ir.VectorType(I8, e.lanes), [I8(k)] * e.lanes)


def forward_pixel(builder, x, places, y, y0, index):
    def body(e, c, mask):
        best, which = None, None
        for k, place in enumerate(places):
            value = e.load(x, builder.add(place, c), mask).value
            if best is None:
                best, which = value, tap(e, k)
                continue
            better = builder.or_(builder.fcmp_ordered(">", value, best), builder.fcmp_unordered("uno", value, value))
            best, which = builder.select(better, value, best), builder.select(better, tap(e, k), which)
        e.store(y, builder.add(y0, c), Lanes(e, best), mask)
        Emitter(builder, I8, e.lanes).store(index, builder.add(y0, c), Lanes(e, which), mask)

    return body


def backward_pixel(builder, x, places, y, y0, index):
    def body(e, c, mask):
        value = e.load(y, builder.add(y0, c), mask).value
        which = Emitter(builder, I8, e.lanes).load(index, builder.add(y0, c), mask).value
        for k, place in enumerate(places):
            mine = builder.select(builder.icmp_unsigned("==", which, tap(e, k)), value, e.constant(0).value)
            e.store(x, builder.add(place, c), Lanes(e, mine), mask)

    return body


@intrinsic
def transpose_block(typing, a, a0, a_row, b, b0, b_row):
    """b[b0 + b_row j + i] = a[a0 + a_row i + j] for i, j < lanes, in registers: halves of blocks change places."""
    number = types.int64

    def emit(context, builder, signature, arguments):
        kind = scalar(signature.args[0])
        a, a0, a_row, b, b0, b_row = [
            data(context, builder, t, v) if isinstance(t, (types.Array, types.CPointer)) else v
            for t, v in zip(signature.args, arguments, strict=True)
        ]
        e = Emitter(builder, kind, width(kind))
        n = e.lanes
        rows = [e.load(a, builder.add(a0, builder.mul(I64(i), a_row))).value for i in range(n)]
        half = n // 2
        while half:
            low = ir.Constant(ir.VectorType(I32, n), [I32(j if not j & half else n + j - half) for j in range(n)])
            high = ir.Constant(ir.VectorType(I32, n), [I32(j + half if not j & half else n + j) for j in range(n)])
            for i in range(n):
                if not i & half:
                    one, two = rows[i], rows[i + half]
                    rows[i] = builder.shuffle_vector(one, two, low)
                    rows[i + half] = builder.shuffle_vector(one, two, high)
            half //= 2
        for j in range(n):
            e.store(b, builder.add(b0, builder.mul(I64(j), b_row)), Lanes(e, rows[j]))
        return context.get_dummy_value()

    return types.void(a, number, number, b, number, number), emit


@intrinsic
def prefetch(typing, x, at):
    """Ask for the line of the cache that holds x[at], which need not exist, to come near."""

    def emit(context, builder, signature, arguments):
        kind = signature.args[0]
        scalar(kind)
        e = Emitter(builder, I8, 1)
        address = builder.bitcast(
            builder.gep(data(context, builder, kind, arguments[0]), [arguments[1]]), I8.as_pointer()
        )
        f = e._intrinsic("llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [address.type, I32, I32, I32]))
        builder.call(f, [address, I32(0), I32(2), I32(1)])  # to read, into the second cache, data
        return context.get_dummy_value()

    return types.void(x, types.int64), emit
