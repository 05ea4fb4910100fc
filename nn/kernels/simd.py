"""Vector code for numba kernels: values that live in vector registers, written as plain arithmetic.

A kernel of this file is emitted as LLVM instructions by a Python function over `Lanes`, so that what stays in registers
is said and not hoped for. It works on every processor that LLVM knows; only its speed depends on the width:

    a vector has 64 bytes with AVX-512, 32 with AVX2, else 16

`block_product` is the inner loop of every convolution and every linear layer here. Pointers are an array and an offset
in numbers: nothing is checked, callers stay inside.
"""

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

FEATURES = binding.get_host_cpu_features()
BYTES = 64 if FEATURES.get("avx512f") else 32 if FEATURES.get("avx2") else 16
ROWS = 8 if BYTES == 64 else 4          # rows of a register block: ROWS x 2 vectors of sums, 32 or 16 registers in all
F32, F64, I8, I32, I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)


CONTRACT = ("contract",)                # a product and a sum may become one fma


def scalar(array):
    """The LLVM type of an array's numbers."""
    if array.dtype not in (types.float32, types.float64):
        raise TypeError(f"vector kernels are for float32 and float64, got {array.dtype}")
    return F32 if array.dtype == types.float32 else F64


def width(kind):
    """Numbers to a vector."""
    return BYTES // (4 if kind is F32 else 8)


class Emitter:
    """Writes instructions at one place: vectors of `lanes` numbers of one kind (lanes 1: plain numbers)."""

    def __init__(self, builder, kind, lanes):
        self.builder, self.kind, self.lanes = builder, kind, lanes
        self.type = ir.VectorType(kind, lanes) if lanes > 1 else kind

    def constant(self, value):
        one = ir.Constant(self.kind, float(value))
        return Lanes(self, ir.Constant(self.type, [one] * self.lanes) if self.lanes > 1 else one)

    def splat(self, value):
        """A number in all lanes."""
        if self.lanes == 1:
            return Lanes(self, value)
        b, undefined = self.builder, ir.Constant(self.type, ir.Undefined)
        first = b.insert_element(undefined, value, I32(0))
        return Lanes(self, b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, self.lanes), None)))

    def pointer(self, base, offset):
        return self.builder.gep(base, [offset])

    def load(self, base, offset, mask=None):
        p = self.builder.bitcast(self.pointer(base, offset), self.type.as_pointer())
        if mask is None:
            return Lanes(self, self.builder.load(p, align=self.kind_bytes))
        f = self._intrinsic(f"llvm.masked.load.{self.suffix}.p0",
                            ir.FunctionType(self.type, [p.type, I32, mask.type, self.type]))
        return Lanes(self, self.builder.call(f, [p, I32(self.kind_bytes), mask, ir.Constant(self.type, None)]))

    def store(self, base, offset, value, mask=None):
        p = self.builder.bitcast(self.pointer(base, offset), self.type.as_pointer())
        if mask is None:
            self.builder.store(value.value, p, align=self.kind_bytes)
            return
        f = self._intrinsic(f"llvm.masked.store.{self.suffix}.p0",
                            ir.FunctionType(ir.VoidType(), [self.type, p.type, I32, mask.type]))
        self.builder.call(f, [value.value, p, I32(self.kind_bytes), mask])

    def first(self, count):
        """The mask of the first `count` lanes."""
        b, kind = self.builder, ir.VectorType(I64, self.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        bound = b.shuffle_vector(b.insert_element(undefined, count, I32(0)), undefined,
                                 ir.Constant(ir.VectorType(I32, self.lanes), None))
        return b.icmp_signed("<", ir.Constant(kind, [I64(i) for i in range(self.lanes)]), bound)

    def fma(self, a, b, c):
        """a b + c, rounded once."""
        f = self._intrinsic(f"llvm.fma.{self.suffix}", ir.FunctionType(self.type, [self.type] * 3))
        return Lanes(self, self.builder.call(f, [a.value, b.value, c.value]))

    @property
    def kind_bytes(self):
        return {F32: 4, F64: 8, I8: 1}[self.kind]

    @property
    def suffix(self):
        number = {F32: "f32", F64: "f64", I8: "i8"}[self.kind]
        return f"v{self.lanes}{number}" if self.lanes > 1 else number

    def _intrinsic(self, name, signature):
        return cgutils.get_or_insert_function(self.builder.module, signature, name)


class Lanes:
    """A vector of numbers in a register; + - * with others and with Python numbers."""

    def __init__(self, emitter, value):
        self.emitter, self.value = emitter, value

    def _other(self, other):
        return other if isinstance(other, Lanes) else self.emitter.constant(other)

    def __add__(self, other):
        return Lanes(self.emitter, self.emitter.builder.fadd(self.value, self._other(other).value, flags=CONTRACT))

    def __sub__(self, other):
        return Lanes(self.emitter, self.emitter.builder.fsub(self.value, self._other(other).value, flags=CONTRACT))

    def __mul__(self, other):
        return Lanes(self.emitter, self.emitter.builder.fmul(self.value, self._other(other).value, flags=CONTRACT))

    def __rmul__(self, other):
        return self * other


def data(context, builder, kind, value):
    """The address of an array's first number."""
    return context.make_array(kind)(context, builder, value).data


def block_product(vectors, masked):
    """A numba function: one register block of a matrix product, ROWS x (vectors lanes) sums that stay in registers,

        C[i, j] = S[i, j] + sum_{r < times} sum_{k < run} A[i, r, k] B[r run + k, j],    i < m, j < n

        A[i, r, k] = a[a0 + a_rows[a_row + i] + a_jump r + a_step k]        B[k, j] = b[b0 + b_step k + j]
        C[i, j] = c[c0 + c_rows[c_row + i] + j]        S[i, j] = s[s0 + s_scale c_rows[c_row + i] + j]

    S: a bias (s_scale 0), or C itself. m <= ROWS: rows beyond it repeat row m - 1. masked: n <= vectors lanes; else n
    is not looked at and taken as vectors lanes. times and run are at least 1.
    """

    @intrinsic
    def call(typing, a, a0, a_rows, a_row, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row, s, s0, s_scale, m, n,
             times, run):
        number = types.int64
        signature = types.void(a, number, a_rows, number, number, number, b, number, number, c, number, c_rows, number,
                               s, number, number, number, number, number, number)

        def emit(context, builder, signature, arguments):
            kind = scalar(signature.args[0])
            e = Emitter(builder, kind, width(kind))
            (a, a0, a_rows, a_row, a_jump, a_step, b, b0, b_step, c, c0, c_rows, c_row, s, s0, s_scale, m, n, times,
             run) = [data(context, builder, t, v) if isinstance(t, types.Array) else v
                     for t, v in zip(signature.args, arguments, strict=True)]
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
            outer, inner, after, end = (builder.append_basic_block(f"product.{name}")
                                        for name in ("outer", "inner", "after", "end"))
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
            next_r, next_jump = builder.add(r, I64(1)), builder.add(jump, a_jump)
            builder.cbranch(builder.icmp_signed("<", next_r, times), outer, end)
            for phi, first, following in [(r, I64(0), next_r), (jump, I64(0), next_jump), (b_outer, b0, next_b)]:
                phi.add_incoming(first, before)
                phi.add_incoming(following, after)
            for i in range(ROWS):
                for j in range(vectors):
                    kept[i][j].add_incoming(start[i][j].value, before)
                    kept[i][j].add_incoming(new[i][j], after)
                    sums[i][j].add_incoming(kept[i][j], outer)
                    sums[i][j].add_incoming(new[i][j], inner)

            builder.position_at_end(end)
            for i in range(ROWS):
                for j in range(vectors):
                    e.store(c, builder.add(c_at[i], I64(j * lanes)), Lanes(e, new[i][j]), masks[j])
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
        half = [line([tile[i][j] for i in range(size_in)]) for j in range(size_in)]         # M X, column by column
        return [line([half[j][i] for j in range(size_in)]) for i in range(size_out)]        # and its rows times M'

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
            x_at = [[builder.add(x0, builder.add(builder.mul(I64(i), x_down), builder.mul(I64(j), x_right)))
                     for j in range(size_in)] for i in range(size_in)]
            y_at = [[builder.add(y0, builder.add(builder.mul(I64(i), y_down), builder.mul(I64(j), y_right)))
                     for j in range(size_out)] for i in range(size_out)]

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
        offsets = [builder.add(x0, builder.add(builder.mul(I64(i), x_down), builder.mul(I64(j), x_right)))
                   for i, j in places]
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
                    better = builder.or_(builder.fcmp_ordered(">", value, best),
                                         builder.fcmp_unordered("uno", value, value))
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


def each_vector(builder, kind, count, body):
    """body(emitter, c, mask) for c = 0, lanes, ... below count: full vectors with mask None, then what is left."""
    e = Emitter(builder, kind, width(kind))
    before = builder.block
    test, inside, after, rest, end = (
        builder.append_basic_block(f"lanes.{name}") for name in ("test", "body", "after", "rest", "end")
    )
    builder.branch(test)
    builder.position_at_end(test)
    c = builder.phi(I64)
    c.add_incoming(I64(0), before)
    following = builder.add(c, I64(e.lanes))
    builder.cbranch(builder.icmp_signed("<=", following, count), inside, after)
    builder.position_at_end(inside)
    body(e, c, None)
    c.add_incoming(following, builder.block)
    builder.branch(test)
    builder.position_at_end(after)
    builder.cbranch(builder.icmp_signed("<", c, count), rest, end)
    builder.position_at_end(rest)
    body(e, c, e.first(builder.sub(count, c)))
    builder.branch(end)
    builder.position_at_end(end)
