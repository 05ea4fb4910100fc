"""A GPU that is none: arrays in host memory, CUDA sources compiled by g++ behind shim.h, launched as CuPy would.

    device = Shim()                                     # a backend device: npopt's own Gpu over the stand-in `Module`
    kernel = device.module.RawModule(code=text, options=("-DReal=float",)).get_function("relu")
    kernel((2,), (256,), (x, y, 300))

Arguments are taken as CuPy takes them (a Python int is a long long, a float a double, None a null pointer) and must
have the kernel's own types. Arrays lie between guard zones that are checked after each launch; zones and new memory
have every bit set, NaN as numbers, so that a read outside or of what nobody wrote spoils results. Races: see shim.h.
"""

import ctypes
import hashlib
import math
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from npopt.backend import devices

import numpy as np

HERE = pathlib.Path(__file__).parent
COMPILER = shutil.which("g++") or shutil.which("clang++")
WHY = "no C++ compiler here to run CUDA sources with"
ROOM = 227 << 10  # bytes of shared memory that a block may have
GUARD = 256  # bytes on either side of an array, and its alignment
SANITIZE = os.environ.get("SHIM_SANITIZE")  # "undefined" or "address": see test_sanitizers.py
POISON = ctypes.CDLL(None).__asan_poison_memory_region if SANITIZE == "address" else None
LEAST = 1024 if POISON else 0  # NumPy gives shorter memory out again without a free, and poison would stay in it
C = {"float32": "float", "float64": "double", "int64": "long long", "uint64": "unsigned long long"}


class Array(np.ndarray):
    """Memory of the device. `base` is, as CuPy's, the array that a view shows; `data.ptr` its address."""

    @property
    def base(self):
        base = np.ndarray.base.__get__(self)
        return base if isinstance(base, Array) else None

    @property
    def data(self):
        return Pointer(self.ctypes.data)

    def guards(self):
        """Whether the zones around this array's memory are as they were made."""
        root = self
        while root.base is not None:
            root = root.base
        raw = np.ndarray.base.__get__(root)
        if raw is None or raw.dtype != np.uint8 or raw.ndim != 1:  # the result of a NumPy function
            return True
        start = root.ctypes.data - raw.ctypes.data
        return bool((raw[:start] == 255).all() and (raw[start + root.nbytes :] == 255).all())


class Pointer:
    def __init__(self, ptr):
        self.ptr = ptr


def empty(shape, dtype=float):
    dtype = np.dtype(dtype)
    size = math.prod(shape if isinstance(shape, (tuple, list)) else (shape,)) * dtype.itemsize
    raw = np.full(max(3 * GUARD + size, LEAST), 255, np.uint8)
    start = GUARD + -raw.ctypes.data % GUARD
    if POISON:
        for first, stop in ((0, start), (start + size, raw.size)):
            POISON(ctypes.c_void_p(raw.ctypes.data + first), ctypes.c_size_t(stop - first))
    return Array.__new__(Array, shape, dtype, buffer=raw, offset=start)


def copied(a, dtype=None):
    a = np.asarray(a, dtype)
    out = empty(a.shape, a.dtype)
    out[...] = a
    return out


# ------------------------------------------------------------------------------------------------------- compiling
BUILT, EXECUTED = {}, set()  # (source, options) -> {name: function}; (name, options) of the kernels that ran
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([\d, ]+\)\s*)?(\w+)\s*\(")


def names(source):
    """The kernels of a CUDA text."""
    return KERNEL.findall(source)


def translated(source, options, space):
    """One CUDA text as C++ in a namespace of its own."""
    defines = dict(o[2:].split("=") for o in options if o.startswith("-D"))
    text = source.replace('extern "C" ', "")
    text = re.sub(r"__shared__\s+(\w+)\s+(\w+)\[([^\]]+)\]", r"static shim::Shared<\1, \3> \2", text)
    lines = [f"#define {name} {value}" for name, value in defines.items()]
    lines += [f"namespace {space} {{", text, "}"] + [f"#undef {name}" for name in defines]
    for name in names(source):
        lines.append(
            f'extern "C" const char* {space}_{name}(const unsigned* sizes, void** a) '
            f"{{ return shim::launch({space}::{name}, sizes, a); }}"
        )
        lines.append(f'extern "C" void {space}_{name}_kinds(char* out) {{ shim::kinds({space}::{name}, out); }}')
    return "\n".join(lines)


def build(pairs):
    """Compile (source, options) pairs, those that are not there yet, as one library."""
    pairs = [pair for pair in dict.fromkeys(pairs) if pair not in BUILT]
    if not pairs:
        return
    header = HERE / "shim.h"
    text = f'#include "{header}"\n' + "\n".join(translated(*pair, f"k{i}") for i, pair in enumerate(pairs))
    flags = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all", "-g"] if SANITIZE else []
    digest = hashlib.sha256((text + header.read_text() + "".join(flags)).encode()).hexdigest()[:20]
    folder = pathlib.Path(tempfile.gettempdir()) / f"npopt-shim-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    library = folder / f"{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as made:
            source, out = pathlib.Path(made) / "kernels.cpp", pathlib.Path(made) / "kernels.so"
            source.write_text(text)
            command = [
                COMPILER,
                "-std=c++17",
                "-O1",
                "-w",
                "-U_FORTIFY_SOURCE",
                "-ffp-contract=off",
                *flags,
                "-shared",
                "-fPIC",
                "-o",
                out,
                source,
            ]
            alone = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
            done = subprocess.run(command, capture_output=True, text=True, env=alone)
            if done.returncode:
                raise RuntimeError(done.stderr[:4000])
            os.replace(out, library)
    handle = ctypes.CDLL(str(library))
    for i, pair in enumerate(pairs):
        BUILT[pair] = {name: _bound(handle, f"k{i}_{name}") for name in names(pair[0])}


def _bound(handle, symbol):
    function, kinds = getattr(handle, symbol), ctypes.create_string_buffer(256)
    function.restype = ctypes.c_char_p
    getattr(handle, f"{symbol}_kinds")(kinds)
    text = kinds.value.decode()
    return function, [text[i : i + 2] for i in range(0, len(text), 2)]


# ------------------------------------------------------------------------------------------------------- launching
class Kernel:
    def __init__(self, code, name, options=()):
        self.code, self.name, self.options, self.found = code, name, tuple(options), None

    max_dynamic_shared_size_bytes = 49152

    def __call__(self, grid, block, args, shared_mem=0):
        if shared_mem > min(self.max_dynamic_shared_size_bytes, ROOM):
            raise ValueError(f"{self.name}: {shared_mem} bytes of shared memory were not allowed for")
        if self.found is None:
            build([(self.code, self.options)])
            self.found = BUILT[self.code, self.options][self.name]
        function, kinds = self.found
        values = [argument(a) for a in args]
        got = [kind for kind, _ in values]
        if got != kinds:
            raise TypeError(f"{self.name} has parameters {kinds}, was given {got}")
        sizes = [*(tuple(grid) + (1, 1))[:3], *(tuple(block) + (1, 1))[:3]]
        if math.prod(sizes[3:]) > 1024 or max(sizes[1:3]) > 65535 or sizes[0] > 2**31 - 1 or min(sizes) < 1:
            raise ValueError(f"{self.name}: a launch of grid {grid}, block {block}")
        held = [value for _, value in values]
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(v) for v in held])
        problem = function((ctypes.c_uint * 6)(*sizes), pointers)
        if problem:
            raise RuntimeError(f"{self.name}: {problem.decode()}")
        if not all(a.guards() for a in args if isinstance(a, Array)):
            raise RuntimeError(f"{self.name} wrote outside of an array")
        EXECUTED.add((self.name, self.options))


def argument(a):
    """(kind, ctypes value), as CuPy passes it."""
    if a is None:
        return "p8", ctypes.c_void_p(0)
    if isinstance(a, Array):
        return "p8", ctypes.c_void_p(a.ctypes.data)
    if type(a) is int:
        return "i8", ctypes.c_int64(a)
    if type(a) is float:
        return "f8", ctypes.c_double(a)
    if isinstance(a, np.generic):
        return f"{a.dtype.kind}{a.dtype.itemsize}", np.ctypeslib.as_ctypes_type(a.dtype)(a.item())
    raise TypeError(f"a kernel's argument cannot be {type(a).__name__}: move it to the device")


class RawModule:
    def __init__(self, *, code, options=()):
        self.code, self.options = code, options

    def get_function(self, name):
        if name not in names(self.code):
            raise AttributeError(f"there is no kernel {name}")
        return Kernel(self.code, name, self.options)


class ElementwiseKernel:
    """CuPy's, for flat arrays of one length: which parameters are arrays is seen from the first call's arguments."""

    def __init__(self, inputs, outputs, operation, name, loop_prep="", preamble=""):
        self.parts = operation, name, loop_prep, preamble
        self.parameters = [
            (*item.split(), written)
            for side, written in ((inputs, False), (outputs, True))
            for item in side.split(", ")
        ]

    def text(self, arrays):
        """The CUDA source, where the parameters of these names are arrays."""
        operation, name, loop_prep, preamble = self.parts
        declared, bind = [], []
        for *raw, kind, label, written in self.parameters:
            c, constant = C[kind], "" if written else "const "
            if raw:
                declared.append(f"const {c}* __restrict__ {label}")
            elif label in arrays:
                declared.append(f"{constant}{c}* __restrict__ {label}_all")
                bind.append(f"{constant}{c}& {label} = {label}_all[i];")
            else:
                declared.append(f"const {c} {label}")
        return (
            f'{preamble}\nextern "C" __global__ void {name}({", ".join(declared)}, long long size_) {{\n'
            f"{loop_prep}\nfor (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < size_; "
            "i += blockDim.x * (long long)gridDim.x) {\n" + "\n".join(bind) + f"\n{operation}\n}}\n}}\n"
        )

    def __call__(self, *args):
        arrays, values, size = set(), [], None
        for (*raw, kind, label, _), a in zip(self.parameters, args, strict=True):
            if isinstance(a, Array):
                if a.dtype != kind or bool(raw) != (a.ndim == 0):
                    raise TypeError(f"{self.parts[1]}: {label} is {a.dtype} {a.shape}, declared {kind}")
                if not raw:
                    arrays.add(label)
                    size = a.size
                values.append(a)
            else:
                values.append(np.dtype(kind).type(a))
        if size:  # CuPy launches nothing for empty arrays
            kernel = Kernel(self.text(arrays), self.parts[1])
            kernel((2,), (128,), (*values, size))


class ReductionKernel:
    """CuPy's, for one flat array, by one thread."""

    def __init__(self, inputs, output, map_expr, reduce_expr, post_map_expr, identity, name):
        self.label, (self.kind, self.out) = inputs.split()[1], output.split()
        self.parts, self.name = (map_expr, reduce_expr, post_map_expr, identity), name

    def __call__(self, x):
        first, join, last, identity = self.parts
        c, of, out = C[self.kind], C[x.dtype.name], empty((), self.kind)
        text = (
            f'extern "C" __global__ void {self.name}(const {of}* all, {c}* result, long long n) {{\n'
            f"{c} a = {identity};\nfor (long long i = 0; i < n; i++) {{\nconst {of} {self.label} = all[i];"
            f"\nconst {c} b = {first};\na = {join};\n}}\n{c} {self.out};\n{last};\n*result = {self.out};\n}}\n"
        )
        Kernel(text, self.name)((1,), (1,), (np.ascontiguousarray(x).view(Array), out, x.size))
        return out


class Cublas:
    """gemmStridedBatchedEx as NVIDIA defines it: matrices stand column after column, C = op(A) op(B)."""

    CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_GEMM_DEFAULT = 0, 1, -1
    CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32 = 68, 70, 77
    computed = []  # the compute types of the calls

    def gemmStridedBatchedEx(
        self,
        handle,
        ta,
        tb,
        m,
        n,
        k,
        alpha,
        a,
        a_kind,
        lda,
        a_step,
        b,
        b_kind,
        ldb,
        b_step,
        beta,
        c,
        c_kind,
        ldc,
        c_step,
        count,
        compute,
        algorithm,
    ):
        kinds = {0: "float32", 1: "float64", 2: "float16", 14: "bfloat16"}
        factors, result = (np.dtype(kinds[kind]) for kind in (a_kind, c_kind))
        sums = np.dtype("d" if compute == 70 else "f")
        allowed = {70: [(1, 1)], 77: [(0, 0)], 68: [(0, 0), (2, 2), (2, 0), (14, 14), (14, 0)]}
        if a_kind != b_kind or (a_kind, c_kind) not in allowed[compute]:
            raise ValueError(f"cuBLAS: kinds {a_kind}, {b_kind}, {c_kind} in compute type {compute}")

        def matrices(address, dtype, rows, columns, ld, step):
            if ld < rows:
                raise ValueError(f"cuBLAS: a leading dimension {ld} for {rows} rows")
            size = step * (count - 1) + ld * (columns - 1) + rows
            flat = np.ctypeslib.as_array((ctypes.c_char * (size * dtype.itemsize)).from_address(address)).view(dtype)
            item = dtype.itemsize
            return np.lib.stride_tricks.as_strided(flat, (count, rows, columns), (step * item, item, ld * item))

        def operand(address, turn, rows, columns, ld, step):
            found = matrices(address, factors, *((columns, rows) if turn else (rows, columns)), ld, step).astype(sums)
            return found.swapaxes(1, 2) if turn else found

        numbers = [
            np.ctypeslib.as_array((ctypes.c_char * sums.itemsize).from_address(v)).view(sums)[0] for v in (alpha, beta)
        ]
        out = matrices(c, result, m, n, ldc, c_step)
        made = numbers[0] * (operand(a, ta, m, k, lda, a_step) @ operand(b, tb, k, n, ldb, b_step))
        out[...] = made + (numbers[1] * out if numbers[1] else 0)
        self.computed.append(compute)


class Pool:
    """Memory comes from the host: there is nothing to count."""

    def free_all_blocks(self):
        pass

    def used_bytes(self):
        return 0

    total_bytes = used_bytes


class Module:
    """NumPy over Arrays, with what CuPy has beside it."""

    ndarray, empty, RawModule, RawKernel = Array, staticmethod(empty), RawModule, Kernel
    ElementwiseKernel, ReductionKernel = ElementwiseKernel, ReductionKernel

    class cuda:
        class runtime:
            CUDA_R_32F, CUDA_R_64F = 0, 1

        class Stream:
            class null:
                @staticmethod
                def synchronize():
                    pass

    def __getattr__(self, name):
        return getattr(np, name)

    def get_default_memory_pool(self):
        return Pool()

    def zeros(self, shape, dtype=float):
        out = empty(shape, dtype)
        out[...] = 0
        return out

    def ones_like(self, a):
        return copied(np.ones_like(a))

    def where(self, *arrays):
        return copied(np.where(*arrays))

    def arange(self, *numbers, dtype=None):
        return copied(np.arange(*numbers, dtype=dtype))

    def asarray(self, a, dtype=None):
        return a if isinstance(a, Array) and (dtype is None or a.dtype == dtype) else copied(a, dtype)

    def asnumpy(self, a):
        return np.array(a, subok=False)


class Recorded:
    """As a CUDA graph: function's work is done again at each call, into the arrays that its first call made."""

    def __init__(self, function):
        self.function, self.result = function, function()

    def __call__(self):
        self._keep(self.result, self.function())
        return self.result

    def _keep(self, kept, new):
        if isinstance(kept, Array):
            kept[...] = new
        elif isinstance(kept, (tuple, list)):
            for one, other in zip(kept, new, strict=True):
                self._keep(one, other)
        elif isinstance(kept, dict):
            for key, one in kept.items():
                self._keep(one, new[key])
        elif kept != new:
            raise RuntimeError("a recorded function's numbers must not change")


class Shim(devices.Gpu):
    """npopt's own GPU device over the stand-in."""

    name, block_memory = "shim", ROOM

    def __init__(self):
        self.module, self.array_type, self.products_in = Module(), Array, "float32"
        self.recordings = []
        self.empty = self.workspace = empty

    def precision(self, name):
        self.products_in = name

    def recorded(self, function):
        return Recorded(function)

    def cublas(self):
        return Cublas(), 0
