"""The gates of an LSTM for some units of one row, in registers: each number is read and written once."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .functions import END, P, Q
from .simd import F64, I32, I64, Lanes, data, each_vector, scalar


def tanh(e, x):
    """tanh of a vector: in float32 by the quotient of functions.py, in float64 lane by lane by the library."""
    b = e.builder
    if e.kind is F64:
        f = e._intrinsic("tanh", ir.FunctionType(F64, [F64]))
        value = ir.Constant(e.type, ir.Undefined)
        for lane in range(e.lanes):
            value = b.insert_element(value, b.call(f, [b.extract_element(x.value, I32(lane))]), I32(lane))
        return Lanes(e, value)
    end, low = e.constant(END).value, e.constant(-END).value
    x = b.select(b.fcmp_unordered("<", x.value, end), x.value, end)  # NaN stays
    x = Lanes(e, b.select(b.fcmp_unordered(">", x, low), x, low))
    s = x * x
    above, below = e.constant(P[-1]), e.constant(Q[-1])
    for p, q in zip(P[-2::-1], Q[-2::-1], strict=True):
        above, below = e.fma(above, s, e.constant(p)), e.fma(below, s, e.constant(q))
    y, one, minus = b.fdiv((x * above).value, below.value), e.constant(1).value, e.constant(-1).value
    y = b.select(b.fcmp_unordered("<", y, one), y, one)
    return Lanes(e, b.select(b.fcmp_unordered(">", y, minus), y, minus))


def logistic(e, x):
    return tanh(e, x * 0.5) * 0.5 + 0.5


def addresses(context, builder, signature, arguments, count):
    """(kind, the addresses of `count` arrays, the whole numbers in the tuple behind them)."""
    arrays = [data(context, builder, signature.args[k], arguments[k]) for k in range(count)]
    return scalar(signature.args[0]), arrays, cgutils.unpack_tuple(builder, arguments[count])


@intrinsic
def lstm_cell(typing, a, c, before, y, seen, mask, places):
    """Gates a[at + k n + j] (i, f, g, o), k < 4, of their sums; c[place + j] = f before[before_at + j] + i g;
    y[place + j] = o tanh c; seen[to + j] = mask[unit + j] y, for j < count;
    places = (at, n, place, before_at, unit, to, count)."""

    def emit(context, builder, signature, arguments):
        kind, (a, c, before, y, seen, mask), numbers = addresses(context, builder, signature, arguments, 6)
        at, n, place, before_at, unit, to, count = numbers
        gates = [builder.add(at, builder.mul(n, I64(k))) for k in range(4)]

        def body(e, j, part):
            here = [builder.add(start, j) for start in (*gates, place, before_at, unit, to)]
            i, f, g, o = (e.load(a, here[k], part) for k in range(4))
            i, f, g, o = logistic(e, i), logistic(e, f), tanh(e, g), logistic(e, o)
            state = f * e.load(before, here[5], part) + i * g
            h = o * tanh(e, state)
            for array, k, value in ((a, 0, i), (a, 1, f), (a, 2, g), (a, 3, o), (c, 4, state), (y, 4, h)):
                e.store(array, here[k], value, part)
            e.store(seen, here[7], h * e.load(mask, here[6], part), part)

        each_vector(builder, kind, count, body)
        return context.get_dummy_value()

    return types.void(a, c, before, y, seen, mask, places), emit


@intrinsic
def lstm_cell_backward(typing, gates, c, before, dy, dh, dc, da, places):
    """dh[unit + j] += dy[place + j]; da[at + k n + j], k < 4, the gradients of the gates' sums; dc[unit + j] becomes
    that of the time before: reference_recurrent.lstm_backward, for j < count.
    places = (at, n, place, before_at, unit, count)."""

    def emit(context, builder, signature, arguments):
        kind, (gates, c, before, dy, dh, dc, da), numbers = addresses(context, builder, signature, arguments, 7)
        at, n, place, before_at, unit, count = numbers
        places = [builder.add(at, builder.mul(n, I64(k))) for k in range(4)]

        def body(e, j, part):
            here = [builder.add(start, j) for start in (*places, place, before_at, unit)]
            one = e.constant(1)
            i, f, g, o = (e.load(gates, here[k], part) for k in range(4))
            w, h = tanh(e, e.load(c, here[4], part)), e.load(dh, here[6], part) + e.load(dy, here[4], part)
            state = e.load(dc, here[6], part) + h * o * (one - w * w)
            found = (
                state * g * i * (one - i),
                state * e.load(before, here[5], part) * f * (one - f),
                state * i * (one - g * g),
                h * w * o * (one - o),
            )
            for k, value in enumerate(found):
                e.store(da, here[k], value, part)
            e.store(dh, here[6], h, part)
            e.store(dc, here[6], state * f, part)

        each_vector(builder, kind, count, body)
        return context.get_dummy_value()

    return types.void(gates, c, before, dy, dh, dc, da, places), emit
