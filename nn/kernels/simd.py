"""Vector code for numba kernels: values that live in vector registers, written as plain arithmetic.

A Python function over `Lanes` emits a kernel as LLVM instructions. It says which values stay in registers; a compiler
need not guess. blocks.py has these kernels. They work on every processor that LLVM knows; the width sets their speed:

    a vector has 64 bytes with AVX-512, 32 with AVX2, else 16

Pointers are an array and an offset in numbers: nothing is checked, callers stay inside.
"""

from llvmlite import binding, ir
from numba.core import cgutils, types

FEATURES = binding.get_host_cpu_features()
BYTES = 64 if FEATURES.get("avx512f") else 32 if FEATURES.get("avx2") else 16
ROWS = 8 if BYTES == 64 else 4  # rows of a register block: ROWS x 2 vectors of sums, 32 or 16 registers in all
F32, F64, I8, I32, I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)


CONTRACT = ("contract",)  # a product and a sum may become one fma


def scalar(array):
    """The LLVM type of the numbers of an array, or of those that a pointer points to."""
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
        f = self._intrinsic(
            f"llvm.masked.load.{self.suffix}.p0", ir.FunctionType(self.type, [p.type, I32, mask.type, self.type])
        )
        return Lanes(self, self.builder.call(f, [p, I32(self.kind_bytes), mask, ir.Constant(self.type, None)]))

    def store(self, base, offset, value, mask=None):
        p = self.builder.bitcast(self.pointer(base, offset), self.type.as_pointer())
        if mask is None:
            self.builder.store(value.value, p, align=self.kind_bytes)
            return
        f = self._intrinsic(
            f"llvm.masked.store.{self.suffix}.p0", ir.FunctionType(ir.VoidType(), [self.type, p.type, I32, mask.type])
        )
        self.builder.call(f, [value.value, p, I32(self.kind_bytes), mask])

    def first(self, count):
        """The mask of the first `count` lanes."""
        b, kind = self.builder, ir.VectorType(I64, self.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        bound = b.shuffle_vector(
            b.insert_element(undefined, count, I32(0)), undefined, ir.Constant(ir.VectorType(I32, self.lanes), None)
        )
        return b.icmp_signed("<", ir.Constant(kind, [I64(i) for i in range(self.lanes)]), bound)

    def where(self, condition, mask=None):
        """The mask with all its lanes (None: all lanes) where a condition holds, else with none."""
        b, kind = self.builder, ir.VectorType(ir.IntType(1), self.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        all_or_none = b.shuffle_vector(
            b.insert_element(undefined, condition, I32(0)), undefined, ir.Constant(ir.VectorType(I32, self.lanes), None)
        )
        return all_or_none if mask is None else b.and_(all_or_none, mask)

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

    def doubled(self):
        """The same numbers in float64."""
        wide = Emitter(self.emitter.builder, F64, self.emitter.lanes)
        same = self.emitter.kind is F64
        return self if same else Lanes(wide, wide.builder.fpext(self.value, wide.type))

    def rounded(self, emitter):
        """The same numbers in the kind of another emitter."""
        same = self.emitter.kind is emitter.kind
        return self if same else Lanes(emitter, emitter.builder.fptrunc(self.value, emitter.type))


def data(context, builder, kind, value):
    """The address of an array's first number, or of what a pointer points to."""
    return value if isinstance(kind, types.CPointer) else context.make_array(kind)(context, builder, value).data


def each_vector(builder, kind, count, body):
    """body(emitter, c, mask) for c = 0, lanes, ... below count: full vectors with mask None, then the last few numbers
    with a mask."""
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
