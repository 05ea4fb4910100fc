"""A formula on sixteen float32 numbers at a time, between the decoding of its coded arguments and their largest
magnitudes: one loop, in which nothing waits for a division. With AVX-512 alone; coding.py has loops that do without.

A formula's text in a dialect of Python is run once, with vectors for its names: it then writes LLVM instructions. They
are those of the plain loop, rounding by rounding. What the dialect has not is refused, and the plain loop remains.
"""

import ast

from npopt.backend import sixteen
from npopt.backend.sixteen import FLOATS, I32, I64, LANES, WORDS, call, floats, load, splat, store, words
from npopt.backend.translation import Dialect, Term, Translation

from numba import types
from numba.core import cgutils


class Refused(Exception):
    """A formula that is not for vectors."""


class Text(Dialect):
    """Python over Lanes. V has what has no operator."""

    def cast(self, T, code):
        return code

    def call(self, name, code, T):
        if name not in ("sqrt", "abs", "sign") and T != "float64":
            raise Refused(name)
        return f"V.{name}({code})"

    def power(self, a, b):
        return f"({a} ** {b})"

    def select(self, test, a, b):
        return f"V.select({test}, {a}, {b})"

    def logic(self, op, parts):
        return f" {'&' if op == 'and' else '|'} ".join(f"({part})" for part in parts)

    def negate(self, code):
        return f"V.invert({code})"

    def draw(self, name, key, T):
        raise Refused(name)


class InVectors(Translation):
    """min and max by select, as they let NaN through."""

    def term(self, node):
        match node:
            case ast.Call(func=ast.Name(id=("min" | "max") as name), args=[left, right]):
                scalar, (a, b) = self.both(self.once(self.term(left)), self.once(self.term(right)))
                order = ">" if name == "max" else "<"
                return Term(f"V.select(({a} {order} {b}) | ({a} != {a}), {a}, {b})", scalar)
        return super().term(node)


def lines_of(formula, arrays, coded, dtype):
    """([(name, text)] of a formula, the same of what it stores, names of scalars), or None where it is not for vectors.
    Scalars have the names s0, s1, ... of the plain translation."""
    if not sixteen.THERE or dtype != "float32":
        return None
    try:
        t = InVectors(formula, (*arrays, *coded), dtype, Text(), lambda name: name)
    except Refused:
        return None
    known = {f"{name}_i" for name in (*arrays, *coded)} | {name for name, _ in (*t.body, *t.hoisted)} | {"V"}
    for _, text in (*t.body, *t.stores):
        names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        if not names <= known:  # a condition on scalars alone
            return None
    return t.body, t.stores, [name for name, _ in t.hoisted]


class Lanes:
    """Sixteen numbers, or sixteen truth values, in a register."""

    def __init__(self, b, value):
        self.b, self.value = b, value

    def _with(self, emit, *others):
        return Lanes(self.b, emit(self.value, *[other.value for other in others]))

    def __add__(self, other):
        return self._with(self.b.fadd, other)

    def __sub__(self, other):
        return self._with(self.b.fsub, other)

    def __mul__(self, other):
        return self._with(self.b.fmul, other)

    def __truediv__(self, other):
        return self._with(self.b.fdiv, other)

    def __neg__(self):
        return self._with(self.b.fneg)

    def __and__(self, other):
        return self._with(self.b.and_, other)

    def __or__(self, other):
        return self._with(self.b.or_, other)

    def _compared(order):  # noqa: N805
        def compare(self, other):
            ask = self.b.fcmp_unordered if order == "!=" else self.b.fcmp_ordered
            return Lanes(self.b, ask(order, self.value, other.value))

        return compare

    __lt__, __le__, __gt__, __ge__, __eq__, __ne__ = map(_compared, ("<", "<=", ">", ">=", "==", "!="))
    __hash__ = None


class V:
    """What formulas have beside operators."""

    @staticmethod
    def sqrt(x):
        return Lanes(x.b, call(x.b, "llvm.sqrt.v16f32", FLOATS, x.value))

    @staticmethod
    def abs(x):
        return Lanes(x.b, call(x.b, "llvm.fabs.v16f32", FLOATS, x.value))

    @staticmethod
    def sign(x):
        zero, one, minus = (Lanes(x.b, floats(number)) for number in (0.0, 1.0, -1.0))
        return V.select(x > zero, one, V.select(x < zero, minus, x))

    @staticmethod
    def select(test, a, b):
        return Lanes(a.b, a.b.select(test.value, a.value, b.value))

    @staticmethod
    def invert(test):
        return Lanes(test.b, test.b.not_(test.value))


def parameters(arrays, written, coded, scalars):
    """The names of what the intrinsic takes: plain arrays, and where to put what written ones were before; for a coded
    one its codes, scales, tables, numbers, code of 0; scalars; the number of the block, its first place, its size."""
    names = [*arrays, *(f"{name}_before" for name in arrays if name in written)]
    names += [f"{name}_{p}" for name in coded for p in ("codes", "scales", "lanes", "w", "zero")]
    return [*names, *scalars, "b", "at", "count"]


def decoder(b, given, name, signed):
    """A function of a place that gives the numbers of sixteen codes there."""
    tables = [load(b, given[f"{name}_lanes"], I64(p), FLOATS) for p in (sixteen.FIRST, sixteen.UNIT, sixteen.VALUE)]
    centre = splat(b, WORDS, b.trunc(given[f"{name}_zero"], I32))
    scale = splat(b, FLOATS, b.load(b.gep(given[f"{name}_scales"], [given["b"]])))

    def numbers(place):
        c = b.zext(load(b, given[f"{name}_codes"], place, sixteen.BYTES), WORDS)
        return sixteen.decoded(b, c, signed, centre, tables, scale)

    return numbers


def step(body, stores, scalars, arrays, coded):
    """The intrinsic that takes the step of one block: coded numbers are decoded, plain arrays written, what is to be
    kept as codes left in w, and its largest magnitude in the scales. coded: {name: whether it has signs}."""
    written = dict(stores)
    names = parameters(arrays, written, coded, scalars)

    def emit(context, b, signature, arguments):
        kinds, given = dict(zip(names, signature.args, strict=True)), dict(zip(names, arguments, strict=True))
        for name, kind in kinds.items():
            if isinstance(kind, types.Array):
                given[name] = context.make_array(kind)(context, b, given[name]).data
        known = {name: Lanes(b, splat(b, FLOATS, given[name])) for name in scalars}
        decoders, tops = {}, {}
        for name in coded:
            decoders[name] = decoder(b, given, name, coded[name])
            tops[name] = cgutils.alloca_once_value(b, words(0))
        with cgutils.for_range_slice(b, I64(0), given["count"], I64(LANES)) as (i, _):
            here = b.add(given["at"], i)
            for name in arrays:
                known[f"{name}_i"] = Lanes(b, load(b, given[name], here, FLOATS))
                if name in written:
                    store(b, given[f"{name}_before"], here, known[f"{name}_i"].value)
            for name in coded:
                known[f"{name}_i"] = Lanes(b, decoders[name](here))
            scope = known | {"V": V}
            for name, text in body:
                scope[name] = eval(text, {}, scope)
            for name, text in stores:
                value = eval(text, {}, scope).value
                if name in arrays:
                    store(b, given[name], here, value)
                    continue
                store(b, given[f"{name}_w"], here, value)
                size = b.and_(b.bitcast(value, WORDS), words(0x7FFFFFFF))
                top = b.load(tops[name])
                b.store(b.select(b.icmp_unsigned(">", size, top), size, top), tops[name])
        for name in coded:
            if name in written:
                top = call(b, "llvm.vector.reduce.umax.v16i32", I32, b.load(tops[name]))
                b.store(b.bitcast(top, sixteen.F32), b.gep(given[f"{name}_scales"], [given["b"]]))
        return context.get_dummy_value()

    space = {"emit": emit, "types": types}
    text = ", ".join(names)
    exec(f"def block(typing, {text}):\n    return types.void({text}), emit\n", space)
    return sixteen.intrinsic(space["block"])
