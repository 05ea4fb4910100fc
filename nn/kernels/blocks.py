"""What the loops of this folder are made of: small kernels in registers. Arguments are arrays and offsets in numbers.

`block_product` is the inner loop of every convolution and every linear layer here.
"""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .simd import I8, I32, I64, ROWS, Emitter, Lanes, data, each_vector, scalar, width


def block_product(vectors, masked, apart=False):
    """A numba function: one register block of a matrix product, ROWS x (vectors lanes) sums that stay in registers,

        C[i, j] = S[i, j] + sum_{r < times} sum_{k < run} A[i, r, k] B[r run + k, j],    i < m, j < n

        A[i, r, k] = a[a0 + a_rows[a_row + i] + a_jump r + a_step k]        B[k, j] = b[b0 + b_step k + j]
        C[i, j] = c[c0 + c_rows[c_row + i] + j]        S[i, j] = s[s0 + s_scale c_rows[c_row + i] + j]

    S: a bias (s_scale 0), or C itself. m <= ROWS: rows beyond it repeat row m - 1. masked: n <= vectors lanes; else n
    is not looked at and taken as vectors lanes. times and run are at least 1. apart: the `run` terms of each r are
    summed by themselves, from 0, and then added: a long sum loses fewer digits, but short runs cost time.
    """

    @intrinsic
    def call(
        typing,
        a,
        a0,
        a_rows,
        a_row,
        a_jump,
        a_step,
        b,
        b0,
        b_step,
        c,
        c0,
        c_rows,
        c_row,
        s,
        s0,
        s_scale,
        m,
        n,
        times,
        run,
    ):
        number = types.int64
        signature = types.void(
            a,
            number,
            a_rows,
            number,
            number,
            number,
            b,
            number,
            number,
            c,
            number,
            c_rows,
            number,
            s,
            number,
            number,
            number,
            number,
            number,
            number,
        )

        def emit(context, builder, signature, arguments):
            kind = scalar(signature.args[0])
            e = Emitter(builder, kind, width(kind))
            (
                a,
                a0,
                a_rows,
                a_row,
                a_jump,
                a_step,
                b,
                b0,
                b_step,
                c,
                c0,
                c_rows,
                c_row,
                s,
                s0,
                s_scale,
                m,
                n,
                times,
                run,
            ) = [
                data(context, builder, t, v) if isinstance(t, types.Array) else v
                for t, v in zip(signature.args, arguments, strict=True)
            ]
            last, lanes = builder.sub(m, I64(1)), e.lanes
            rows = [I64(0)] + [
                builder.select(builder.icmp_signed("<", I64(i), m), I64(i), last) for i in range(1, ROWS)
            ]
            masks = [e.first(builder.sub(n, I64(j * lanes))) if masked else None for j in range(vectors)]
            a_at, c_at, start = [], [], []
            for row in rows:
                offset = builder.load(builder.gep(a_rows, [builder.add(a_row, row)]))
                a_at.append(e.pointer(a, builder.add(a0, offset)))
                offset = builder.load(builder.gep(c_rows, [builder.add(c_row, row)]))
                c_at.append(builder.add(c0, offset))
                begin = builder.add(s0, builder.mul(s_scale, offset))
                start.append([e.load(s, builder.add(begin, I64(j * lanes)), masks[j]) for j in range(vectors)])

            before = builder.block
            outer, inner, after, end = (
                builder.append_basic_block(f"product.{name}") for name in ("outer", "inner", "after", "end")
            )
            builder.branch(outer)
            builder.position_at_end(outer)
            r, jump, b_outer = (builder.phi(I64) for _ in range(3))
            kept = [[builder.phi(e.type) for _ in range(vectors)] for _ in range(ROWS)]
            builder.branch(inner)

            builder.position_at_end(inner)
            k, at, b_at = (builder.phi(I64) for _ in range(3))
            sums = [[builder.phi(e.type) for _ in range(vectors)] for _ in range(ROWS)]
            right = [e.load(b, builder.add(b_at, I64(j * lanes)), masks[j]) for j in range(vectors)]
            new = []
            for i in range(ROWS):
                left = e.splat(builder.load(e.pointer(a_at[i], at)))
                new.append([e.fma(left, right[j], Lanes(e, sums[i][j])).value for j in range(vectors)])
            next_k, next_at, next_b = builder.add(k, I64(1)), builder.add(at, a_step), builder.add(b_at, b_step)
            builder.cbranch(builder.icmp_signed("<", next_k, run), inner, after)
            for phi, first, following in [(k, I64(0), next_k), (at, jump, next_at), (b_at, b_outer, next_b)]:
                phi.add_incoming(first, outer)
                phi.add_incoming(following, inner)

            builder.position_at_end(after)
            whole = [
                [builder.fadd(kept[i][j], new[i][j]) if apart else new[i][j] for j in range(vectors)]
                for i in range(ROWS)
            ]
            next_r, next_jump = builder.add(r, I64(1)), builder.add(jump, a_jump)
            builder.cbranch(builder.icmp_signed("<", next_r, times), outer, end)
            for phi, first, following in [(r, I64(0), next_r), (jump, I64(0), next_jump), (b_outer, b0, next_b)]:
                phi.add_incoming(first, before)
                phi.add_incoming(following, after)
            for i in range(ROWS):
                for j in range(vectors):
                    kept[i][j].add_incoming(start[i][j].value, before)
                    kept[i][j].add_incoming(whole[i][j], after)
                    sums[i][j].add_incoming(e.constant(0).value if apart else kept[i][j], outer)
                    sums[i][j].add_incoming(new[i][j], inner)

            builder.position_at_end(end)
            for i in range(ROWS):
                for j in range(vectors):
                    e.store(c, builder.add(c_at[i], I64(j * lanes)), Lanes(e, whole[i][j]), masks[j])
            return context.get_dummy_value()

        return signature, emit

    return call


def tile_transform(line, size_in, size_out, bias=False):
    """A numba function that applies a linear map on both axes of a small square tile, channel by channel,

        Y[., ., c] = M X[., ., c] M' + s[s0 + c],    c < count        (s only where bias is set)

        X[i, j, c] = x[x0 + x_down i + x_right j + c]     Y[i, j, c] = y[y0 + y_down i + y_right j + c]

    line: M as a function from a list of size_in values to one of size_out; it sees vectors of channels.
    """

    def whole(tile):
        half = [line([tile[i][j] for i in range(size_in)]) for j in range(size_in)]  # M X, column by column
        return [line([half[j][i] for j in range(size_in)]) for i in range(size_out)]  # and its rows times M'

    @intrinsic
    def call(typing, x, x0, x_down, x_right, y, y0, y_down, y_right, s, s0, count):
        number = types.int64
        signature = types.void(x, number, number, number, y, number, number, number, s, number, number)

        def emit(context, builder, signature, arguments):
            kind = scalar(signature.args[0])
            x, x0, x_down, x_right, y, y0, y_down, y_right, s, s0, count = [
                data(context, builder, t, v) if isinstance(t, types.Array) else v
                for t, v in zip(signature.args, arguments, strict=True)
            ]
            x_at = [
                [
                    builder.add(x0, builder.add(builder.mul(I64(i), x_down), builder.mul(I64(j), x_right)))
                    for j in range(size_in)
                ]
                for i in range(size_in)
            ]
            y_at = [
                [
                    builder.add(y0, builder.add(builder.mul(I64(i), y_down), builder.mul(I64(j), y_right)))
                    for j in range(size_out)
                ]
                for i in range(size_out)
            ]

            def body(e, c, mask):
                tile = [[e.load(x, builder.add(at, c), mask) for at in row] for row in x_at]
                result = whole(tile)
                extra = e.load(s, builder.add(s0, c), mask) if bias else None
                for row, places in zip(result, y_at, strict=True):
                    for value, at in zip(row, places, strict=True):
                        e.store(y, builder.add(at, c), value + extra if bias else value, mask)

            each_vector(builder, kind, count, body)
            return context.get_dummy_value()

        return signature, emit

    return call


def pool_pixel(taps):
    """Two numba functions, for one window of `taps` pixels and all its channels c < count:

        there: y[y0 + c] = max_k x[x0 + offset_k + c], index[y0 + c] = the first k that reaches it (NaN stays)
        back: x[x0 + offset_k + c] = y[y0 + c] where index[y0 + c] = k, else 0

    offset_k = x_down (k // width) + x_right (k % width) for taps = (height, width); index holds uint8.
    """
    places = [(i, j) for i in range(taps[0]) for j in range(taps[1])]

    def prepare(context, builder, signature, arguments):
        kind = scalar(signature.args[0])
        x, x0, x_down, x_right, y, y0, index, count = [
            data(context, builder, t, v) if isinstance(t, types.Array) else v
            for t, v in zip(signature.args, arguments, strict=True)
        ]
        offsets = [
            builder.add(x0, builder.add(builder.mul(I64(i), x_down), builder.mul(I64(j), x_right))) for i, j in places
        ]
        return kind, x, offsets, y, y0, index, count

    def signature_of(x, y, index):
        number = types.int64
        return types.void(x, number, number, number, y, number, index, number)

    @intrinsic
    def there(typing, x, x0, x_down, x_right, y, y0, index, count):
        def emit(context, builder, signature, arguments):
            kind, x, offsets, y, y0, index, count = prepare(context, builder, signature, arguments)

            def body(e, c, mask):
                best, which = None, None
                for k, offset in enumerate(offsets):
                    value = e.load(x, builder.add(offset, c), mask).value
                    number = ir.Constant(ir.VectorType(I8, e.lanes), [I8(k)] * e.lanes)
                    if best is None:
                        best, which = value, number
                        continue
                    better = builder.or_(
                        builder.fcmp_ordered(">", value, best), builder.fcmp_unordered("uno", value, value)
                    )
                    best, which = builder.select(better, value, best), builder.select(better, number, which)
                e.store(y, builder.add(y0, c), Lanes(e, best), mask)
                Emitter(builder, I8, e.lanes).store(index, builder.add(y0, c), Lanes(e, which), mask)

            each_vector(builder, kind, count, body)
            return context.get_dummy_value()

        return signature_of(x, y, index), emit

    @intrinsic
    def back(typing, x, x0, x_down, x_right, y, y0, index, count):
        def emit(context, builder, signature, arguments):
            kind, x, offsets, y, y0, index, count = prepare(context, builder, signature, arguments)

            def body(e, c, mask):
                value = e.load(y, builder.add(y0, c), mask).value
                which = Emitter(builder, I8, e.lanes).load(index, builder.add(y0, c), mask).value
                for k, offset in enumerate(offsets):
                    number = ir.Constant(ir.VectorType(I8, e.lanes), [I8(k)] * e.lanes)
                    mine = builder.select(builder.icmp_unsigned("==", which, number), value, e.constant(0).value)
                    e.store(x, builder.add(offset, c), Lanes(e, mine), mask)

            each_vector(builder, kind, count, body)
            return context.get_dummy_value()

        return signature_of(x, y, index), emit

    return there, back


@intrinsic
def transpose_block(typing, a, a0, a_row, b, b0, b_row):
    """b[b0 + b_row j + i] = a[a0 + a_row i + j] for i, j < lanes, in registers: halves of blocks change places."""
    number = types.int64

    def emit(context, builder, signature, arguments):
        kind = scalar(signature.args[0])
        a, a0, a_row, b, b0, b_row = [
            data(context, builder, t, v) if isinstance(t, types.Array) else v
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
