"""One scalar formula, as the paper writes it, becomes fused loops: numba on the CPU, one CUDA kernel on a GPU.

    @elementwise
    def heavy_ball(x, m, g, lr, beta):
        m = beta * m + g
        x = x - lr * m
        return x, m

    heavy_ball(x, m, g, 0.1, 0.9)             # x and m are written in place, g is read; flat arrays of one length

Each argument is, call by call, an array or a scalar (a Python number, or a 0-d array of the device, so that a norm need
not visit the host). What depends on scalars alone, such as 1 - b2, is computed once, in float64, and rounded to the
arrays' dtype; the rest stays in that dtype. Formulas hold assignments, + - * /, ** (whole powers of arrays),
comparisons, and / or / not, a if c else b, sqrt exp log tanh abs min max sign, and normal(key), uniform(key), which
draw by element index (draws.py has their definition). min, max and sign let NaN through.
"""

import ast
import functools
import hashlib
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import tempfile
import textwrap

from npopt.backend.devices import owner

import numba
import numpy as np

PARALLEL_FROM = 100_000                                         # below, one thread is faster than waking two
UNARY = ("sqrt", "exp", "log", "tanh", "abs", "sign")
DRAWS = ("normal", "uniform")
COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


@numba.njit(inline="always", error_model="numpy")
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(inline="always", error_model="numpy")
def hashed_uniform(key, i):
    """Uniform number i (uint64) of key (uint64), in (0, 1), a multiple of 2^-24."""
    z = _mix(key + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return (np.float64(z >> np.uint64(41)) + 0.5) * 2.0**-23


@numba.njit(inline="always", error_model="numpy")
def hashed_normal(key, i):
    """Standard normal number i (uint64) of key (uint64), float64."""
    g, two = np.uint64(0x9E3779B97F4A7C15), np.uint64(2)
    u = (np.float64(_mix(key + (two * i + np.uint64(1)) * g) >> np.uint64(11)) + 0.5) * 2.0**-53
    v = (np.float64(_mix(key + (two * i + two) * g) >> np.uint64(11)) + 0.5) * 2.0**-53
    return np.sqrt(-2.0 * np.log(u)) * np.cos(6.283185307179586 * v)


# Compiled formulas inline these three: their text is part of the cache's key.
DRAWS_TEXT = "".join(inspect.getsource(f.py_func) for f in (_mix, hashed_uniform, hashed_normal))

CUDA_DRAWS = """
__device__ inline unsigned long long mix64(unsigned long long z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}
__device__ inline double hashed_uniform(unsigned long long key, unsigned long long i) {
    return ((double)(mix64(key + (i + 1) * 0x9E3779B97F4A7C15ULL) >> 41) + 0.5) * 1.1920928955078125e-07;
}
__device__ inline double hashed_normal(unsigned long long key, unsigned long long i) {
    double u = ((double)(mix64(key + (2 * i + 1) * 0x9E3779B97F4A7C15ULL) >> 11) + 0.5) * 1.1102230246251565e-16;
    double v = ((double)(mix64(key + (2 * i + 2) * 0x9E3779B97F4A7C15ULL) >> 11) + 0.5) * 1.1102230246251565e-16;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
"""


class Dialect:
    """How the pieces of a formula are written in a target language; T is the arrays' type, D is double."""


class Python(Dialect):
    def cast(self, T, code):
        return f"np.{T}({code})"

    def call(self, name, code, T):
        one = self.cast(T, "1.0")
        if name == "sign":                                      # 0 and NaN come back as they are
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
            if not term.scalar:
                local = f"v{len(self.body)}"
                self.body.append((local, term.code))
                term = Term(local, False)
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
                return Term(d.logic("and" if isinstance(op, ast.And) else "or", [t.code for t in terms]),
                            all(t.scalar for t in terms))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                t, a, b = self.term(test), self.term(body), self.term(orelse)
                if t.scalar and a.scalar and b.scalar:
                    return Term(d.select(t.code, a.code, b.code), True)
                return Term(d.select(t.code, self.element(a), self.element(b)), False)
            case ast.Call(func=ast.Name(id=("min" | "max") as name), args=[left, right]):
                scalar, (a, b) = self.both(self.term(left), self.term(right))
                order = ">" if name == "max" else "<"
                return Term(d.select(f"({a} {order} {b} {self.dialect_or} {a} != {a})", a, b), scalar)
            case ast.Call(func=ast.Name(id=name), args=[inner]) if name in UNARY:
                t = self.term(inner)
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
        if not base.code.isidentifier():                        # name it, so that it is computed once
            self.body.append((f"v{len(self.body)}", base.code))
            base = Term(self.body[-1][0], False)
        return Term("(" + " * ".join([base.code] * value) + ")", False)


class elementwise:
    """A formula over arrays; see the module's docstring. `formula(*arguments, offset=0)` runs it in place.

    offset shifts the index of normal(key) and uniform(key), for a piece of a longer vector.
    """

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.name = function.__name__
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        self.arguments = [a.arg for a in tree.args.args]
        body = [s for s in tree.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        if not body or not isinstance(body[-1], ast.Return):
            self.refuse(tree, "the last statement must return the arguments that are written")
        self.statements = body[:-1]
        for s in self.statements:
            if not (isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Name)):
                self.refuse(s, "only assignments 'name = expression' and a final return are allowed")
        returned = body[-1].value.elts if isinstance(body[-1].value, ast.Tuple) else [body[-1].value]
        self.written = [r.id for r in returned if isinstance(r, ast.Name)]
        if len(self.written) < len(returned) or not set(self.written) <= set(self.arguments):
            self.refuse(body[-1], "a formula returns arguments, by name")
        names = [*self.arguments, *(s.targets[0].id for s in self.statements)]
        for name in names:
            if name in ("n", "i", "offset") or re.fullmatch(r"[sv]\d+|\w+_i", name):
                self.refuse(tree, f"{name} is a name that the generated loop uses; choose another")
        nodes = [n for s in self.statements for n in ast.walk(s.value)]
        calls = [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in DRAWS]
        self.keys = {n.args[0].id for n in calls if n.args and isinstance(n.args[0], ast.Name)}
        used = {n.id for n in nodes if isinstance(n, ast.Name)} | set(self.written)
        self.read = [a for a in self.arguments if a in used and a not in self.keys]
        self.positions = {a: i for i, a in enumerate(self.arguments)}
        self.table = {}                                         # types of the arguments -> how to run them
        self.compiled = {}                                      # (kinds, dtype, parallel) -> numba function

    def __getstate__(self):
        """Compiled loops stay behind: a formula that a script defines goes to other processes with its optimizer."""
        return {**vars(self), "table": {}, "compiled": {}}

    def refuse(self, node, why):
        raise SyntaxError(f"@elementwise {self.name}, line {getattr(node, 'lineno', '?')} of the function: {why}")

    # ------------------------------------------------------------------------------------------------------- calls
    def __call__(self, *args, offset=0):
        plan = self.table.get(tuple([(a.ndim and a.dtype) if type(a) is np.ndarray else type(a) for a in args]))
        if plan is None:
            plan = self.plan(args)
        first, single, many, numbers = plan
        if first is None:                                       # another device's arrays
            return single.elementwise(self, args, offset)
        if numbers:
            args = [float(a) if i in numbers else a for i, a in enumerate(args)]
        n = args[first].size
        try:
            if n < PARALLEL_FROM or numba.get_num_threads() == 1:
                single(*args, offset)
            else:
                many()(*args, offset)
        except TypeError:
            raise self.complaint(args) from None

    def plan(self, args):
        """How to run arguments of these types; kept, so that a call costs a dictionary look-up."""
        if len(args) != len(self.arguments):
            raise TypeError(f"{self.name} takes {len(self.arguments)} arguments ({', '.join(self.arguments)}), "
                            f"got {len(args)}")
        owners = {owner(a) for a in args if getattr(a, "ndim", 0)}
        if len(owners) != 1:
            raise TypeError(f"{self.name}: the arrays live on {len(owners)} devices; move them with backend.asarray")
        if owners != {owner(np.empty(0))}:
            plan = (None, owners.pop(), None, None)
        else:
            plan = self.plan_on_cpu(args)
        self.table[tuple([(a.ndim and a.dtype) if type(a) is np.ndarray else type(a) for a in args])] = plan
        return plan

    def plan_on_cpu(self, args):
        arrays, dtype = self.pattern(args)
        numbers = {i for i, a in enumerate(args) if type(a) is np.ndarray and not a.ndim}
        many = functools.lru_cache(lambda: self.loop(arrays, dtype, True))          # compiled when first needed
        return (self.positions[next(iter(arrays))], self.loop(arrays, dtype, False), many, numbers)

    def on_cpu(self, args, offset=0):
        return self(*args, offset=offset)

    def pattern(self, args):
        """Which arguments are arrays, and their common dtype name."""
        arrays = {name: a for name, a in zip(self.arguments, args, strict=True) if getattr(a, "ndim", 0)}
        dtypes = {a.dtype.name for a in arrays.values()}
        scalars = [name for name in self.written if name not in arrays]
        if scalars or dtypes not in ({"float32"}, {"float64"}) or any(a.ndim != 1 for a in arrays.values()):
            raise self.complaint(args)
        return tuple(arrays), dtypes.pop()

    def complaint(self, args):
        got = ", ".join(
            f"{name}: {a.dtype.name}{list(a.shape)}{'' if a.flags.c_contiguous else ' not contiguous'}"
            if getattr(a, "ndim", 0) else f"{name}: {type(a).__name__}"
            for name, a in zip(self.arguments, args, strict=True)
        )
        return TypeError(f"{self.name}: expected flat, contiguous arrays of one dtype (float32 or float64), and "
                         f"numbers; {', '.join(self.written)} must be arrays; got {got}")

    # --------------------------------------------------------------------------------------------------------- CPU
    def source(self, arrays, dtype, parallel):
        """The text of the numba module for one pattern of arguments."""
        t = Translation(self, arrays, dtype, Python(), lambda name: name)
        lines = [f"def {self.name}({', '.join(self.arguments)}, offset):", f"    n = {arrays[0]}.size"]
        if len(arrays) > 1:
            unequal = " or ".join(f"{a}.size != n" for a in arrays[1:])
            lines += [f"    if {unequal}:",
                      f"        raise ValueError('{self.name}: the arrays {', '.join(arrays)} differ in length')"]
        lines += [f"    {name} = {code}" for name, code in t.hoisted]
        lines.append(f"    for i in {'numba.prange' if parallel else 'range'}(n):")
        lines += [f"        {name}_i = {name}[i]" for name in self.read if name in arrays]
        lines += [f"        {name} = {code}" for name, code in t.body]
        lines += [f"        {name}[i] = {code}" for name, code in t.stores]
        kinds = [f"{dtype}[::1]" if a in arrays else "uint64" if a in self.keys else "float64" for a in self.arguments]
        options = f'"void({", ".join(kinds)}, int64)", cache=True, error_model="numpy", parallel={parallel}'
        head = ["import numba", "import numpy as np", "",
                "from npopt.backend.formulas import hashed_normal, hashed_uniform", "", "", f"@numba.njit({options})"]
        return "\n".join(head + lines) + "\n"

    def loop(self, arrays, dtype, parallel):
        """The compiled numba function for one pattern of arguments, from the disk cache where it is there."""
        key = (arrays, dtype, parallel)
        if key not in self.compiled:
            self.compiled[key] = getattr(_module(self.name, self.source(*key)), self.name)
        return self.compiled[key]

    # --------------------------------------------------------------------------------------------------------- GPU
    def cuda(self, arrays, dtype, device_scalars=()):
        """Pieces of the ElementwiseKernel: inputs, outputs, operation, loop_prep.

        Written arrays are outputs only (an output can be read too); a 0-d device array is a raw input, read once.
        """
        c = Cuda.C[dtype]
        text = lambda name: f"((double){name}[0])" if name in device_scalars else f"((double){name})"  # noqa: E731
        t = Translation(self, arrays, dtype, Cuda(), text)
        kinds = dict(device_scalars)
        inputs = [
            f"{dtype} {a}" if a in arrays else f"uint64 {a}" if a in self.keys
            else f"raw {kinds[a]} {a}" if a in kinds else f"float64 {a}"
            for a in self.arguments if a not in self.written
        ]
        operation = [f"const {c} {name}_i = {name};" for name in self.read if name in arrays]
        operation += [f"const {c} {name} = {code};" for name, code in t.body]
        operation += [f"{name} = {code};" for name, code in t.stores]
        prepare = [f"const {c} {name} = {code};" for name, code in t.hoisted]
        outputs = [f"{dtype} {a}" for a in self.written]
        return ", ".join(inputs + ["int64 offset"]), ", ".join(outputs), "\n".join(operation), "\n".join(prepare)

    def cuda_source(self, arrays, dtype):
        """A whole CUDA kernel of the same pieces, for compilers without CuPy."""
        inputs, outputs, operation, prepare = self.cuda(arrays, dtype)
        c = {**Cuda.C, "uint64": "unsigned long long", "int64": "long long"}
        parameters, bind = [], []
        for item in f"{inputs}, {outputs}".split(", "):
            kind, name = item.split()
            if name in arrays:
                constant = "" if name in self.written else "const "
                parameters.append(f"{constant}{c[kind]}* __restrict__ {name}_p")
                bind.append(f"{constant}{c[kind]}& {name} = {name}_p[i];")
            else:
                parameters.append(f"const {c[kind]} {name}")
        return (f"{CUDA_DRAWS}\nextern \"C\" __global__ void {self.name}({', '.join(parameters)}, long long n) {{\n"
                f"{prepare}\nfor (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; "
                f"i += blockDim.x * (long long)gridDim.x) {{\n" + "\n".join(bind) + f"\n{operation}\n}}\n}}\n")

    def on_gpu(self, cupy, args, offset):
        arrays, dtype = self.pattern(args)
        scalars = tuple((n, a.dtype.name) for n, a in zip(self.arguments, args, strict=True)
                        if isinstance(a, cupy.ndarray) and not a.ndim)
        key = (arrays, dtype, scalars)
        if key not in self.compiled:
            inputs, outputs, operation, prepare = self.cuda(arrays, dtype, dict(scalars))
            self.compiled[key] = cupy.ElementwiseKernel(
                inputs, outputs, operation, f"npopt_{self.name}", loop_prep=prepare, preamble=CUDA_DRAWS
            )
        by_name = dict(zip(self.arguments, args, strict=True))
        if len({by_name[a].size for a in arrays}) > 1:
            raise ValueError(f"{self.name}: the arrays {', '.join(arrays)} differ in length")
        plain = [np.uint64(v) if a in self.keys else v for a, v in by_name.items() if a not in self.written]
        self.compiled[key](*plain, offset, *[by_name[a] for a in self.written])


def _cache():
    """The folder of generated modules: $NPOPT_CACHE, else the user's cache, else a temporary folder."""
    home = os.environ.get("NPOPT_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "npopt")
    for folder in (pathlib.Path(home) / "kernels", pathlib.Path(tempfile.gettempdir()) / f"npopt-{os.getuid()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
        except OSError:
            continue
    raise OSError("no folder for compiled kernels can be written; set NPOPT_CACHE to one that can")


def _module(name, source):
    """Import generated source from a file named after its hash: numba then caches its machine code beside it."""
    digest = hashlib.sha256((source + DRAWS_TEXT).encode()).hexdigest()[:16]
    path = _cache() / f"{name}_{digest}.py"
    if not path.exists():                                       # whole or absent: another process may be writing too
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            file.write(source)
        os.replace(temporary, path)
    spec = importlib.util.spec_from_file_location(f"npopt_kernel_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)         # numba looks it up there
    spec.loader.exec_module(module)
    return module
