"""Products of the weights of a decoder with one word, or with a few, on a CPU: each weight is read once.

The rows of a matrix are taken ROWS at a time, and for one word `lanes` at a time. Each row has a vector of partial sums
for each word, in which the terms are added from the first one on; at the end these vectors are added up together, by
halves that change places. So the number of a row and a word has the same bits whatever other rows and words it is
taken with: a pass over several words gives what passes over one word give.
"""

from npopt.backend.once import inside

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .recurrent_parts import wide_of
from .simd import BYTES, I32, I64, Emitter, Lanes, data, each_vector, scalar, width

ROWS = 4
WORDS = 6 if BYTES == 64 else 3  # ROWS x WORDS sums, WORDS numbers of the words, and a weight: 32 registers, or 16


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


def fetch(builder, pointer):
    """Ask memory for what stands there, into the second cache."""
    pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    signature = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    builder.call(function, [pointer, I32(0), I32(2), I32(1)])


def written(builder, e, sums, out, where):
    """out[to + jump i + r] = the sum of the lanes of sums[i][r], for r < rows."""
    (to, jump, rows), tall = where, len(sums[0])
    few, each = Emitter(builder, e.kind, tall), e.lanes // tall  # words whose sums are added up together
    mask, undefined = few.first(rows), ir.Constant(e.type, ir.Undefined)
    for first in range(0, len(sums), each):
        values = [value for row in sums[first : first + each] for value in row]
        total = together(builder, e, values + [e.constant(0).value] * (e.lanes - len(values)))
        for i in range(first, min(first + each, len(sums))):
            lanes = [I32((i - first) * tall + r) for r in range(tall)]
            part = builder.shuffle_vector(total, undefined, ir.Constant(ir.VectorType(I32, tall), lanes))
            few.store(out, builder.add(to, builder.mul(jump, I64(i))), Lanes(few, part), mask)


def block(height, words, ahead=0):
    """out[to + jump i + r] = sum_j w[at + step r + j] a[a_at + count i + j], j < count, i < words, for 0 < r < rows <=
    height. numbers: (at, step, a_at, count, to, jump, rows). height None: as many as lanes, for one word alone. ahead:
    how many rows further memory is asked for those to come: several rows at a time are no stream that it would see by
    itself."""

    @intrinsic
    def product(typing, w, a, out, numbers):
        def emit(context, builder, signature, arguments):
            kind = scalar(signature.args[0])
            w, a, out = (data(context, builder, signature.args[i], arguments[i]) for i in range(3))
            at, step, a_at, count, to, jump, rows = cgutils.unpack_tuple(builder, arguments[3], 7)
            e = Emitter(builder, kind, width(kind))
            tall, starts = e.lanes if height is None else min(height, e.lanes), []
            for r in range(tall):  # rows beyond the last one are the last one again
                starts.append(at)
                at = builder.add(at, builder.select(builder.icmp_signed("<", I64(r + 1), rows), step, I64(0)))
            begins = [builder.add(a_at, builder.mul(count, I64(i))) for i in range(words)]
            sums = [[cgutils.alloca_once(builder, e.type) for _ in range(tall)] for _ in range(words)]
            for place in (place for row in sums for place in row):
                builder.store(e.constant(0).value, place)

            def body(e, j, part):
                values = [e.load(a, builder.add(begin, j), part) for begin in begins]
                for r, start in enumerate(starts):
                    weight = e.load(w, builder.add(start, j), part)
                    if ahead and part is None:  # lines in their order, whatever the rows
                        far = builder.add(builder.mul(step, I64(ahead)), builder.mul(j, I64(tall)))
                        fetch(builder, e.pointer(w, builder.add(builder.add(starts[0], far), I64(r * e.lanes))))
                    for i, value in enumerate(values):
                        total = e.fma(weight, value, Lanes(e, builder.load(sums[i][r])))
                        builder.store(total.value, sums[i][r])

            each_vector(builder, kind, count, body)
            written(builder, e, [[builder.load(place) for place in row] for row in sums], out, (to, jump, rows))
            return context.get_dummy_value()

        return types.void(w, a, out, types.UniTuple(types.int64, 7)), emit

    return product


AHEAD = 16
rows_of = block(None, 1)
one, two, three, four, five, six = (block(ROWS, words, AHEAD) for words in range(1, 7))


@inside
def dots(w, at, step, a, count, out, to, rows):
    """out[to + r] = sum_j w[at + step r + j] a[j], j < count, r < rows."""
    wide = wide_of(w) // 2
    for r in range(0, rows, wide):
        rows_of(w, a, out, (at + r * step, step, 0, count, to + r, 0, min(wide, rows - r)))


@inside
def several(x, a, out, numbers, words):
    """The product of a few rows with 1 to 6 words; numbers: of `block`."""
    if words == 1:
        one(x, a, out, numbers)
    elif words == 2:
        two(x, a, out, numbers)
    elif words == 3:
        three(x, a, out, numbers)
    elif words == 4:
        four(x, a, out, numbers)
    elif words == 5:
        five(x, a, out, numbers)
    else:
        six(x, a, out, numbers)


@inside
def product(x, at, bias, a, out):
    """out_ir = sum_j W_rj a_ij + b_r; a: (m, K), out: (m, R). W begins at x[at], b at x[bias] if that is not
    negative."""
    (m, count), size = out.shape, a.shape[1]
    tall = min(ROWS, wide_of(x) // 2)
    if m == 1 and x.size <= LARGE:
        dots(x, at, size, a, size, out, 0, count)
    else:
        parts = (m + WORDS - 1) // WORDS
        for r in range(0, count, tall):
            for p in range(parts):
                i, end = m * p // parts, m * (p + 1) // parts
                numbers = at + r * size, size, i * size, size, i * count + r, count, min(tall, count - r)
                several(x, a, out, numbers, end - i)
    if bias >= 0:
        for i in range(m):
            for r in range(count):
                out[i, r] += x[bias + r]


LARGE = 1 << 22  # parameters: of a larger network the weights come from memory for every word, not from a cache
