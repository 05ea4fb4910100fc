"""One scalar formula, as the paper writes it, becomes fused loops: numba on the CPU, one CUDA kernel on a GPU.

    @elementwise
    def heavy_ball(x, m, g, lr, beta):
        m = beta * m + g
        x = x - lr * m
        return x, m

    heavy_ball(x, m, g, 0.1, 0.9)             # x and m are written in place, g is read; flat arrays of one length

In each call an argument is an array or a scalar. A scalar is a Python number, or a 0-d array of the device: so a norm
need not visit the host. What depends on scalars alone, such as 1 - b2, is computed once, in float64, and rounded to the
arrays' dtype. The rest is computed in that dtype. A formula may hold assignments, + - * /, ** (whole powers of arrays),
comparisons, and / or / not, a if c else b, sqrt exp log log1p tanh abs min max sign, and normal(key), uniform(key),
which draw by element index (defined in draws.py). min, max and sign let NaN through.
"""

import ast
import functools
import inspect
import re
import textwrap

from npopt.backend import cache
from npopt.backend.devices import owner
from npopt.backend.draws import CUDA_DRAWS, DRAWS_TEXT
from npopt.backend.translation import DRAWS, Cuda, Python, Translation
from npopt.errors import UserError

import numba
import numpy as np

PARALLEL_FROM, DRAWN_FROM = 100_000, 10_000  # below, one thread is faster than waking two; with draws


class elementwise:
    """A formula over arrays; see the module's docstring. `formula(*arguments, offset=0)` runs it in place.

    offset shifts the index of normal(key) and uniform(key), for a piece of a longer vector.
    """

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.name = function.__name__
        try:
            source = inspect.getsource(function)
        except OSError:
            raise UserError(
                f"@elementwise {self.name}: Python keeps no source of what was typed at this prompt or "
                "given to exec; put the formula into a file and import it from there"
            ) from None
        tree = ast.parse(textwrap.dedent(source)).body[0]
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
        self.many_from = DRAWN_FROM if self.keys else PARALLEL_FROM
        self.positions = {a: i for i, a in enumerate(self.arguments)}
        self.table = {}  # types of the arguments -> how to run them
        self.compiled = {}  # (kinds, dtype, parallel) -> numba function

    def __getstate__(self):
        """Leave the compiled loops out. A formula that a script defines goes to other processes with its optimizer."""
        return {**vars(self), "table": {}, "compiled": {}}

    def refuse(self, node, why):
        raise UserError(f"@elementwise {self.name}, line {getattr(node, 'lineno', '?')} of the function: {why}")

    # ------------------------------------------------------------------------------------------------------- calls
    def __call__(self, *args, offset=0):
        plan = self.table.get(tuple([(a.ndim and a.dtype) if type(a) is np.ndarray else type(a) for a in args]))
        if plan is None:
            plan = self.plan(args)
        first, single, many, numbers = plan
        if first is None:  # another device's arrays
            return single.elementwise(self, args, offset)
        if numbers:
            args = [float(a) if i in numbers else a for i, a in enumerate(args)]
        n = args[first].size
        try:
            if n < self.many_from or numba.get_num_threads() == 1:
                single(*args, offset)
            else:
                many()(*args, offset)
        except TypeError:
            raise self.complaint(args) from None

    def plan(self, args):
        """How to run arguments of these types. The plan is kept, so a later call costs a dictionary look-up."""
        if len(args) != len(self.arguments):
            raise UserError(
                f"{self.name} takes {len(self.arguments)} arguments ({', '.join(self.arguments)}), got {len(args)}"
            )
        coded = [type(a) for a in args if hasattr(a, "scales")]
        owners = {owner(a) for a in args if getattr(a, "ndim", 0)}
        if coded:  # numbers that are kept as codes: see formulas_on_codes.py
            plan = (None, coded[0], None, None)
        elif len(owners) != 1:
            raise UserError(f"{self.name}: the arrays live on {len(owners)} devices; move them with backend.asarray")
        elif owners != {owner(np.empty(0))}:
            plan = (None, owners.pop(), None, None)
        else:
            plan = self.plan_on_cpu(args)
        self.table[tuple([(a.ndim and a.dtype) if type(a) is np.ndarray else type(a) for a in args])] = plan
        return plan

    def plan_on_cpu(self, args):
        arrays, dtype = self.pattern(args)
        numbers = {i for i, a in enumerate(args) if type(a) is np.ndarray and not a.ndim}
        many = functools.lru_cache(lambda: self.loop(arrays, dtype, True))  # compiled when first needed
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
            if getattr(a, "ndim", 0)
            else f"{name}: {type(a).__name__}"
            for name, a in zip(self.arguments, args, strict=True)
        )
        return UserError(
            f"{self.name}: expected flat, contiguous arrays of one dtype (float32 or float64), and "
            f"numbers; {', '.join(self.written)} must be arrays; got {got}"
        )

    # --------------------------------------------------------------------------------------------------------- CPU
    def source(self, arrays, dtype, parallel):
        """The text of the numba module for one pattern of arguments."""
        t = Translation(self, arrays, dtype, Python(), lambda name: name)
        lines = [f"def {self.name}({', '.join(self.arguments)}, offset):", f"    n = {arrays[0]}.size"]
        if len(arrays) > 1:
            unequal = " or ".join(f"{a}.size != n" for a in arrays[1:])
            lines += [
                f"    if {unequal}:",
                f"        raise UserError('{self.name}: the arrays {', '.join(arrays)} differ in length')",
            ]
        lines += [f"    {name} = {code}" for name, code in t.hoisted]
        lines.append(f"    for i in {'numba.prange' if parallel else 'range'}(n):")
        lines += [f"        {name}_i = {name}[i]" for name in self.read if name in arrays]
        lines += [f"        {name} = {code}" for name, code in t.body]
        lines += [f"        {name}[i] = {code}" for name, code in t.stores]
        kinds = [f"{dtype}[::1]" if a in arrays else "uint64" if a in self.keys else "float64" for a in self.arguments]
        options = f'"void({", ".join(kinds)}, int64)", cache=True, error_model="numpy", parallel={parallel}'
        head = [
            "import numba",
            "import numpy as np",
            "",
            "from npopt.backend.draws import hashed_normal, hashed_uniform",
            "from npopt.errors import UserError",
            "",
            "",
            f"@numba.njit({options})",
        ]
        return "\n".join(head + lines) + "\n"

    def loop(self, arrays, dtype, parallel):
        """The compiled numba function for one pattern of arguments, from the disk cache where it is there."""
        key = (arrays, dtype, parallel)
        if key not in self.compiled:
            self.compiled[key] = getattr(cache.module(self.name, self.source(*key), DRAWS_TEXT), self.name)
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
            f"{dtype} {a}"
            if a in arrays
            else f"uint64 {a}"
            if a in self.keys
            else f"raw {kinds[a]} {a}"
            if a in kinds
            else f"float64 {a}"
            for a in self.arguments
            if a not in self.written
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
        return (
            f'{CUDA_DRAWS}\nextern "C" __global__ void {self.name}({", ".join(parameters)}, long long n) {{\n'
            f"{prepare}\nfor (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; "
            f"i += blockDim.x * (long long)gridDim.x) {{\n" + "\n".join(bind) + f"\n{operation}\n}}\n}}\n"
        )

    def on_gpu(self, cupy, args, offset):
        key = cupy, *[(a.ndim, a.dtype) if isinstance(a, cupy.ndarray) else None for a in args]
        if key not in self.compiled:
            self.compiled[key] = self.made_on_gpu(cupy, args)
        kernel, arrays, read, written = self.compiled[key]
        size = args[arrays[0]].size
        if any([args[i].size != size for i in arrays]):
            raise UserError(f"{self.name}: the arrays {', '.join(self.arguments[i] for i in arrays)} differ in length")
        kernel(*[np.uint64(args[i]) if drawn else args[i] for i, drawn in read], offset, *[args[i] for i in written])

    def made_on_gpu(self, cupy, args):
        """(kernel, places of arrays, [(place, whether it is a key)] of what is only read, places of what is
        written)."""
        arrays, dtype = self.pattern(args)
        scalars = {
            name: a.dtype.name
            for name, a in zip(self.arguments, args, strict=True)
            if isinstance(a, cupy.ndarray) and not a.ndim
        }
        inputs, outputs, operation, prepare = self.cuda(arrays, dtype, scalars)
        kernel = cupy.ElementwiseKernel(
            inputs, outputs, operation, f"npopt_{self.name}", loop_prep=prepare, preamble=CUDA_DRAWS
        )
        read = [(self.positions[a], a in self.keys) for a in self.arguments if a not in self.written]
        return kernel, [self.positions[a] for a in arrays], read, [self.positions[a] for a in self.written]
