"""Codes of 8 bits, sixteen at a time in vector registers of AVX-512. Elsewhere the loops of coding.py do without.

A map has few pieces on which its values are equally far apart (codes.pieces_of). So a value is computed, not looked up
in memory, and tables of sixteen or thirty-two numbers stay in registers:

    decode    level j = |c - zero| (maps without signs: c + 1), its piece by the leading zeros of j,
              value = v_piece + unit_piece (j - first_piece), with the sign of c - zero, times the scale
    encode    q = |w| / scale; two octaves of q meet at most two pieces, and a threshold tells which one;
              j = floor(min(q C_piece + D_piece, last_piece + 1/2)), c = zero + j or zero - j

Values are those of the map's table bit for bit: the same float32 operations. q C + D is found in units of 2^-14, right
to 1.75 of them: each of three roundings makes at most 1/4, the floor 1. Where it is within two of a whole number, q is
compared with the bound itself, which is looked up.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils

try:
    from numba.extending import intrinsic
except ImportError:  # an inner part of numba, which may go: then the loops do without, too
    intrinsic = None

FEATURES = binding.get_host_cpu_features()
THERE = intrinsic is not None and all(
    FEATURES.get(name) for name in ("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")
)
LANES, DIGITS = 16, 14  # and binary digits of a level behind the point
F32 = ir.FloatType()
I1, I8, I16, I32, I64 = (ir.IntType(width) for width in (1, 8, 16, 32, 64))
FLOATS, WORDS, BYTES, MASK = (ir.VectorType(kind, LANES) for kind in (F32, I32, I8, I1))
FIRST, UNIT, VALUE, SLOPE, SHIFT, LAST, THRESHOLD, PIECE, BOUND = range(0, 9 * 16, 16)  # places in the tables
LEAST = 419  # of the smallest level of a number with a minus


def constant(kind, number):
    return ir.Constant(kind, [ir.Constant(kind.element, number)] * LANES)


def words(number):
    return constant(WORDS, number)


def floats(number):
    return constant(FLOATS, number)


def call(b, name, out, *values):
    """An LLVM function of that name."""
    function = ir.FunctionType(out, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), values)


def splat(b, kind, number):
    vector = b.insert_element(ir.Constant(kind, ir.Undefined), number, I32(0))
    return b.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), ir.Constant(WORDS, None))


def load(b, base, offset, kind):
    p = b.bitcast(b.gep(base, [offset]), kind.as_pointer())
    return b.load(p, align=kind.element.width // 8 if kind.element is not F32 else 4)


def store(b, base, offset, value):
    p = b.bitcast(b.gep(base, [offset]), value.type.as_pointer())
    b.store(value, p, align=4 if value.type.element is F32 else value.type.element.width // 8)


def pick(b, table, index):
    """Sixteen of sixteen numbers, by the last four bits of the index."""
    return call(b, "llvm.x86.avx512.permvar.sf.512", FLOATS, table, index)


def opened(context, b, signature, arguments):
    """(addresses of three arrays, further arguments, a function that loads from the third)."""
    at = [
        context.make_array(kind)(context, b, value).data
        for kind, value in zip(signature.args[:3], arguments, strict=False)
    ]
    return at, arguments[3:], lambda place: load(b, at[2], I64(place), FLOATS)


def decoded(b, c, signed, centre, tables, scale):
    """The numbers of sixteen codes, 32-bit words."""
    away = b.sub(c, centre)
    level = call(b, "llvm.abs.v16i32", WORDS, away, I1(0)) if signed else b.add(c, words(1))
    piece = call(b, "llvm.ctlz.v16i32", WORDS, level, I1(0))
    first, unit, value = (pick(b, table, piece) for table in tables)
    y = b.fadd(value, b.fmul(unit, b.fsub(b.sitofp(level, FLOATS), first)))
    if signed:
        y = b.bitcast(b.xor(b.bitcast(y, WORDS), b.and_(away, words(0x80000000))), FLOATS)
    return b.fmul(y, scale)


def decoding(signed):
    """An intrinsic: w[i] <- the number of codes[i], start <= i < stop, a multiple of 16 of them."""

    @intrinsic
    def decode(typing, codes, w, tables, start, stop, zero, scale):
        def emit(context, b, signature, arguments):
            (codes, w, _), (start, stop, zero, scale), table = opened(context, b, signature, arguments)
            tables = [table(place) for place in (FIRST, UNIT, VALUE)]
            centre, scale = splat(b, WORDS, b.trunc(zero, I32)), splat(b, FLOATS, scale)
            with cgutils.for_range_slice(b, start, stop, I64(LANES)) as (at, _):
                c = b.zext(load(b, codes, at, BYTES), WORDS)
                store(b, w, at, decoded(b, c, signed, centre, tables, scale))
            return context.get_dummy_value()

        return types.void(codes, w, tables, *[types.int64] * 3, types.float32), emit

    return decode


def encoding(signed):
    """An intrinsic: codes[i] <- that of w[i] times `over`, start <= i < stop, a multiple of 16 of them."""

    def level_of(b, q, tables, bounds):
        thresholds, pieces, *lines = tables
        octaves = b.lshr(b.bitcast(q, WORDS), words(24))  # two of them
        beyond = b.fcmp_ordered(">", q, pick(b, thresholds, octaves))
        piece = b.bitcast(pick(b, pieces, octaves), WORDS)
        piece = b.select(beyond, b.add(piece, words(1)), piece)
        slope, shift, last = (pick(b, table, piece) for table in lines)
        y = call(b, "llvm.fma.v16f32", FLOATS, q, slope, shift)
        y = b.fptosi(b.select(b.fcmp_ordered("<", y, last), y, last), WORDS)
        level, upper = b.lshr(y, words(DIGITS)), b.add(y, words(2))
        near = b.icmp_unsigned("==", b.and_(upper, words((1 << DIGITS) - 4)), words(0))
        kept = cgutils.alloca_once_value(b, level)
        with b.if_then(b.icmp_unsigned("!=", b.bitcast(near, I16), I16(0)), likely=False):
            upper = b.lshr(upper, words(DIGITS))  # the level above the bound that is near
            bound = gathered(b, bounds, upper, near)
            exact = b.select(b.fcmp_ordered(">", q, bound), upper, b.sub(upper, words(1)))
            b.store(b.select(near, exact, level), kept)
        return b.load(kept)

    def vector(b, number, over, centre, tables, bounds, lowest):
        size, number, least = number, b.bitcast(number, WORDS), floats(2.0**-31)
        if signed:
            size = b.bitcast(b.and_(number, words(0x7FFFFFFF)), FLOATS)
        q = b.fmul(size, over)
        level = level_of(b, b.select(b.fcmp_ordered(">", q, least), q, least), tables, bounds)
        if not signed:
            return level
        kept = b.select(b.icmp_signed(">", level, lowest), level, lowest)
        c = b.select(b.icmp_signed("<", number, words(0)), b.sub(centre, kept), b.add(centre, level))
        return b.select(b.icmp_signed(">", c, words(0)), c, words(0))  # and -1 has no code

    @intrinsic
    def encode(typing, w, codes, tables, start, stop, zero, over):
        def emit(context, b, signature, arguments):
            (w, codes, base), (start, stop, zero, over), table = opened(context, b, signature, arguments)
            tables, bounds = (
                [table(place) for place in (THRESHOLD, PIECE, SLOPE, SHIFT, LAST)],
                b.gep(base, [I64(BOUND)]),
            )
            centre, over = splat(b, WORDS, b.trunc(zero, I32)), splat(b, FLOATS, over)
            lowest = splat(b, WORDS, b.bitcast(b.load(b.gep(base, [I64(LEAST)])), I32))
            with cgutils.for_range_slice(b, start, stop, I64(LANES)) as (at, _):
                c = vector(b, load(b, w, at, FLOATS), over, centre, tables, bounds, lowest)
                store(b, codes, at, b.trunc(c, BYTES))
            return context.get_dummy_value()

        return types.void(w, codes, tables, *[types.int64] * 3, types.float32), emit

    return encode


def gathered(b, base, index, mask):
    """base[index] where the mask is set."""
    base = b.bitcast(base, I8.as_pointer())
    return call(b, "llvm.x86.avx512.mask.gather.dps.512", FLOATS, floats(0.0), base, index, mask, I32(4))


if THERE:
    decode_signed, decode_unsigned = decoding(True), decoding(False)
    encode_signed, encode_unsigned = encoding(True), encoding(False)
