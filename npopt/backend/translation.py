"""A formula's syntax tree in a target language: Python for numba, or CUDA."""

import ast

UNARY = ("sqrt", "exp", "log", "log1p", "tanh", "abs", "sign")
DRAWS = ("normal", "uniform")
COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


class Dialect:
    """How the pieces of a formula are written in a target language; T is the arrays' type, D is double."""


class Python(Dialect):
    def cast(self, T, code):
        return f"np.{T}({code})"

    def call(self, name, code, T):
        one = self.cast(T, "1.0")
        if name == "sign":  # 0 and NaN come back as they are
            return f"({one} if {code} > 0 else (-{one} if {code} < 0 else {code}))"
        return f"abs({code})" if name == "abs" else f"np.{name}({code})"

    def power(self, a, b):
        return f"({a} ** {b})"

    def select(self, test, a, b):
        return f"({a} if {test} else {b})"

    def logic(self, op, parts):
        return "(" + f" {op} ".join(parts) + ")"

    def negate(self, code):
        return f"(not {code})"

    def draw(self, name, key, T):
        return self.cast(T, f"hashed_{name}({key}, np.uint64(offset + i))")


class Cuda(Dialect):
    C = {"float32": "float", "float64": "double"}

    def cast(self, T, code):
        return f"({self.C[T]})({code})"

    def call(self, name, code, T):
        if name == "sign":
            return f"({code} > 0 ? {self.cast(T, '1.0')} : ({code} < 0 ? {self.cast(T, '-1.0')} : {code}))"
        return f"{'fabs' if name == 'abs' else name}({code})"

    def power(self, a, b):
        return f"pow((double)({a}), (double)({b}))"

    def select(self, test, a, b):
        return f"({test} ? {a} : {b})"

    def logic(self, op, parts):
        return "(" + (" && " if op == "and" else " || ").join(parts) + ")"

    def negate(self, code):
        return f"(!{code})"

    def draw(self, name, key, T):
        return self.cast(T, f"hashed_{name}({key}, (unsigned long long)(offset + i))")


class Term:
    """A translated sub-expression: its text, and whether it depends on scalars alone."""

    def __init__(self, code, scalar):
        self.code, self.scalar = code, scalar


class Translation:
    """A formula for one pattern of arguments in one language: `hoisted` lines, loop `body`, `stores`.

    A scalar sub-expression keeps its float64 text until it meets an array; there it is hoisted into s0, s1, ...
    """

    def __init__(self, formula, arrays, T, dialect, scalar_text):
        self.formula, self.arrays, self.T, self.dialect = formula, arrays, T, dialect
        self.hoisted, self.body, self.names = [], [], {}
        self.scope = {a: Term(scalar_text(a), True) for a in formula.arguments if a not in arrays}
        for name in formula.read:
            if name in arrays:
                self.scope[name] = Term(f"{name}_i", False)
        for statement in formula.statements:
            term = self.term(statement.value)
            if not term.scalar:  # named even where it is a name: that array may be written later
                self.body.append((f"v{len(self.body)}", term.code))
                term = Term(self.body[-1][0], False)
            self.scope[statement.targets[0].id] = term
        self.stores = [(name, self.element(self.scope[name])) for name in formula.written]

    def element(self, term):
        """The text of a term inside the loop, in the arrays' type."""
        if not term.scalar:
            return term.code
        if term.code not in self.names:
            self.names[term.code] = f"s{len(self.names)}"
            self.hoisted.append((self.names[term.code], self.dialect.cast(self.T, term.code)))
        return self.names[term.code]

    def once(self, term):
        """A term that may be written several times: under a name of its own, so that it is computed once. Without names
        the text of nested minima and maxima would grow by a factor of four a level."""
        if term.scalar or term.code.isidentifier():
            return term
        self.body.append((f"v{len(self.body)}", term.code))
        return Term(self.body[-1][0], False)

    def both(self, *terms):
        """Texts of terms that meet in one operation, and whether all are scalars."""
        scalar = all(t.scalar for t in terms)
        return scalar, [t.code if scalar else self.element(t) for t in terms]

    def term(self, node):
        d = self.dialect
        match node:
            case ast.Constant(value=bool()):
                self.formula.refuse(node, "True and False are not numbers here")
            case ast.Constant(value=int() | float() as value):
                return Term(repr(float(value)), True)
            case ast.Name(id=name):
                if name not in self.scope:
                    self.formula.refuse(node, f"{name} is used before it has a value")
                return self.scope[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                t = self.term(operand)
                return Term(f"(-{t.code})", t.scalar)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                t = self.term(operand)
                return Term(d.negate(t.code), t.scalar)
            case ast.BinOp(op=ast.Pow(), left=left, right=right):
                return self.power(node, self.term(left), right)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in ARITHMETIC:
                scalar, (a, b) = self.both(self.term(left), self.term(right))
                return Term(f"({a} {ARITHMETIC[type(op)]} {b})", scalar)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARE:
                scalar, (a, b) = self.both(self.term(left), self.term(right))
                return Term(f"({a} {COMPARE[type(op)]} {b})", scalar)
            case ast.BoolOp(op=op, values=values):
                terms = [self.term(v) for v in values]
                # A scalar condition stays a double-precision test: it is not rounded, so no element() here.
                return Term(
                    d.logic("and" if isinstance(op, ast.And) else "or", [t.code for t in terms]),
                    all(t.scalar for t in terms),
                )
            case ast.IfExp(test=test, body=body, orelse=orelse):
                t, a, b = self.term(test), self.term(body), self.term(orelse)
                if t.scalar and a.scalar and b.scalar:
                    return Term(d.select(t.code, a.code, b.code), True)
                return Term(d.select(t.code, self.element(a), self.element(b)), False)
            case ast.Call(func=ast.Name(id=("min" | "max") as name), args=[left, right]):
                scalar, (a, b) = self.both(self.once(self.term(left)), self.once(self.term(right)))
                order = ">" if name == "max" else "<"
                return Term(d.select(f"({a} {order} {b} {self.dialect_or} {a} != {a})", a, b), scalar)
            case ast.Call(func=ast.Name(id=name), args=[inner]) if name in UNARY:
                t = self.once(self.term(inner)) if name == "sign" else self.term(inner)
                return Term(d.call(name, t.code, "float64" if t.scalar else self.T), t.scalar)
            case ast.Call(func=ast.Name(id=name), args=[ast.Name(id=key)]) if name in DRAWS:
                return Term(d.draw(name, key, self.T), False)
        self.formula.refuse(node, f"'{ast.unparse(node)}' is not part of the language of formulas")

    @property
    def dialect_or(self):
        return "or" if isinstance(self.dialect, Python) else "||"

    def power(self, node, base, exponent):
        if base.scalar:
            e = self.term(exponent)
            if e.scalar:
                return Term(self.dialect.power(base.code, e.code), True)
        value = exponent.value if isinstance(exponent, ast.Constant) else None
        if not isinstance(value, int) or not 1 <= value <= 8:
            self.formula.refuse(node, "an array is raised to whole powers from 1 to 8 only")
        base = self.once(base)
        return Term("(" + " * ".join([base.code] * value) + ")", False)
