"""Devices: what an array is, where a new one is made, how it comes back to the host. CuPy is imported here alone."""

import functools
import os
import pathlib
import weakref

from npopt.backend import allocator, graphs
from npopt.errors import UserError

import numba
import numpy as np

BLOCK = 1 << 15


@numba.njit(cache=True, fastmath={"reassoc", "nsz", "contract"})  # any order of the sum, so that it is vectorised
def _square_sum(x):
    total = 0.0
    for i in range(x.size):
        v = np.float64(x[i])
        total += v * v
    return total


@numba.njit(cache=True)
def _squares(x):
    total = 0.0
    for i in range(0, x.size, BLOCK):
        total += _square_sum(x[i : i + BLOCK])
    return total


@numba.njit(cache=True, parallel=True)
def _squares_by_many(x):
    sums = np.empty((x.size + BLOCK - 1) // BLOCK)
    for b in numba.prange(sums.size):
        sums[b] = _square_sum(x[np.int64(b) * BLOCK : np.int64(b) * BLOCK + BLOCK])
    total = 0.0
    for b in range(sums.size):
        total += sums[b]
    return total


KINDS = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}  # cudaDataType_t
COEFFICIENTS = {kind: np.array([1, 0], kind) for kind in "fd"}  # 1 and 0 for cuBLAS: out = 1 a b + 0 out
GPU_HELP = (
    "the GPU was asked for, but CuPy cannot be used here ({why}); install it with "
    "'pip install -r requirements-gpu.txt' on a machine with an NVIDIA GPU, or choose the CPU"
)


class Cpu:
    """NumPy arrays; formulas and kernels run as numba loops."""

    name = "cpu"
    module = np
    array_type = np.ndarray
    records = False  # whether what a function launches can be recorded
    stores = ()  # formats whose arrays its kernels take; of others the numbers are kept in float32 (nn/narrow.py)

    empty = staticmethod(allocator.empty)
    workspace = staticmethod(allocator.workspace)

    def asarray(self, a, dtype=None):
        return np.asarray(a, dtype=dtype)

    def to_host(self, a):
        return a

    def elementwise(self, formula, arguments, offset):
        return formula.on_cpu(arguments, offset)

    def kernel(self, pair, arguments):
        return pair.cpu(*arguments)

    def norm(self, x):
        """The norm in float64: there squares of float32 numbers do not overflow. Sums of blocks are added in order."""
        squares = _squares_by_many if x.size > 4 * BLOCK else _squares
        return float(squares(x.reshape(-1))) ** 0.5

    def precision(self, name):
        if name != "float32":
            raise UserError(f"precision: the CPU takes products in float32 alone, got {name!r}; choose a GPU for it")

    def synchronize(self):
        """Wait until the device has done what it was asked to do."""

    def memory(self):
        return {}


class Gpu:
    """CuPy arrays; formulas become ElementwiseKernels, kernels RawKernels."""

    name = "gpu"
    records, stores = True, ("float16", "bfloat16")
    library = recorder = recording = None  # cuBLAS of CuPy; our own for graphs; the latter, while a graph is recorded

    def __init__(self):
        try:
            import cupy

            cupy.cuda.runtime.getDeviceCount()
        except Exception as error:  # ImportError, a driver that is missing or too old, ...
            raise UserError(GPU_HELP.format(why=str(error).split("\n")[0])) from None
        self.module, self.array_type, self.products_in = cupy, cupy.ndarray, "float32"
        self.recordings = weakref.WeakSet()
        self.empty = self.workspace = cupy.empty

    def asarray(self, a, dtype=None):
        return self.module.asarray(a, dtype=dtype)

    def to_host(self, a):
        return self.module.asnumpy(a)

    def elementwise(self, formula, arguments, offset):
        return formula.on_gpu(self.module, arguments, offset)

    def kernel(self, pair, arguments):
        function = pair.compiled.get(self.name)
        if function is None:
            function = pair.compiled[self.name] = self.module.RawKernel(pair.gpu, pair.name)
        threads = 256
        function(((pair.size(*arguments) + threads - 1) // threads,), (threads,), pair.gpu_arguments(*arguments))

    def norm(self, x):
        if not hasattr(self, "squares"):
            self.squares = self.module.ReductionKernel(
                "T x", "float64 y", "(double)x * (double)x", "a + b", "y = sqrt(a)", "0", "npopt_norm"
            )
        return self.squares(x)

    def precision(self, name):
        from cupy._core import _routines_linalg as products

        self.products_in = name
        way = products.COMPUTE_TYPE_TF32 if name == "tf32" else products.COMPUTE_TYPE_DEFAULT
        products.set_compute_type("float32", way)

    @functools.cached_property
    def block_memory(self):
        """Bytes of shared memory that a block of threads may ask for."""
        runtime = self.module.cuda.runtime
        return runtime.deviceGetAttribute(97, runtime.getDevice())  # cudaDevAttrMaxSharedMemoryPerBlockOptin

    def cublas(self):
        """cuBLAS of CuPy and the handle of this device. While a graph is recorded, our own Cublas and its handle."""
        if self.recording is not None:
            return self.recording, self.recording.handle
        if self.library is None:
            from cupy.cuda import device
            from cupy_backends.cuda.libs import cublas

            self.library = cublas, device
        return self.library[0], self.library[1].get_cublas_handle()

    def recorded(self, function):
        """`function`, which takes nothing and works on the same arrays each time, as one launch: see graphs.py."""
        return graphs.Recorded(self, function)

    def products(self, a, b, out, turn_a=False, turn_b=False, add=False):
        """out[p] = a[p] b[p], or that added to out[p], in one call, a[p] or b[p] transposed on request; all (P, rows,
        columns), contiguous but for rows, which may lie apart, as those of one time of a sequence do.

        CuPy's matmul would copy what it transposes, and leaves TF32 out. cuBLAS counts by columns: it sees each matrix
        transposed, and makes out' = b' a'. Factors of two bytes a number are summed in float32. Then out has their
        dtype, or float32.
        """
        cublas, handle = self.cublas()
        (parts, m, k), n = out.shape, a.shape[1] if turn_a else a.shape[2]
        turns = [cublas.CUBLAS_OP_T if turn else cublas.CUBLAS_OP_N for turn in (turn_b, turn_a)]
        sums = np.dtype("d" if a.dtype.char == "d" else "f")
        coefficients = COEFFICIENTS[sums.char].ctypes.data
        compute = cublas.CUBLAS_COMPUTE_64F
        if sums.char == "f":
            fast = a.dtype == sums and self.products_in == "tf32"
            compute = cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if fast else cublas.CUBLAS_COMPUTE_32F
        apart = [max(v.shape[2], v.strides[1] // v.itemsize) for v in (b, a, out)]
        first, second, result = (
            (v.data.ptr, KINDS[v.dtype.name], step, v.shape[1] * step)
            for v, step in zip((b, a, out), apart, strict=True)
        )
        numbers = coefficients, coefficients + (0 if add else sums.itemsize)
        sizes = (*turns, k, m, n, numbers[0], *first, *second, numbers[1], *result, parts)
        cublas.gemmStridedBatchedEx(handle, *sizes, compute, cublas.CUBLAS_GEMM_DEFAULT)

    def synchronize(self):
        self.module.cuda.Stream.null.synchronize()

    def memory(self):
        pools = [self.module.get_default_memory_pool(), *(one.pool for one in self.recordings)]
        return {
            "device": sum(pool.used_bytes() for pool in pools),
            "device_peak": sum(pool.total_bytes() for pool in pools),
        }


DEVICES = {"cpu": Cpu, "gpu": Gpu}  # name -> how to make it
_made = {}
_owner = {}  # array type -> device
_current = None


def _make(name):
    if name not in DEVICES:
        raise UserError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    if name not in _made:
        made = _made[name] = DEVICES[name]()
        _owner[made.array_type] = made
    return _made[name]


def use(name):
    """Choose the device on which new arrays are made: "cpu" or "gpu". Asking for an absent GPU is a UserError."""
    global _current
    _current = _make(name)


def device():
    """The name of the device in use."""
    return _current.name


def owner(array):
    """The device on which an array lives; lists and Python numbers belong to the CPU."""
    return _owner.get(type(array), _made["cpu"])


def xp(array=None):
    """The array module of an array (numpy or cupy); without one, of the device in use."""
    return _current.module if array is None else owner(array).module


def asarray(a, dtype=None):
    """The array on the device in use. It is not copied if it lies there already with that dtype."""
    return _current.asarray(a, dtype)


def to_host(a):
    """A NumPy array of a device array; a Python float of a 0-d one or of a number."""
    a = owner(a).to_host(a)
    return a if isinstance(a, np.ndarray) and a.ndim else float(a)


def empty(shape, dtype):
    """An uninitialised array; on both devices its memory comes from a pool and returns to it with the last view."""
    return _current.empty(shape, dtype)


def workspace(shape, dtype):
    """As `empty`, for an array that dies within the call of a kernel. Its block may be larger."""
    return _current.workspace(shape, dtype)


def zeros(shape, dtype):
    return _current.module.zeros(shape, dtype=dtype)


def norm(x):
    """|x|, Euclidean, of a flat array, summed in float64: a Python float; on a GPU a 0-d array."""
    return owner(x).norm(x)


def precision(name):
    """Choose how the device in use takes matrix products of float32 numbers, also those of convolutions. "float32" is
    the default. "tf32" needs a GPU from Ampere on: factors are rounded to 10 bits after the point, sums are float32."""
    if name not in ("float32", "tf32"):
        raise UserError(f"precision must be 'float32' or 'tf32', got {name!r}")
    _current.precision(name)


def synchronize():
    """Wait for the device in use; call it before reading a clock."""
    _current.synchronize()


def memory():
    """Bytes in use: "host" and "host_peak" (resident set), and on a GPU "device" and "device_peak" (CuPy's pools)."""
    import resource

    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) if os.path.exists("/proc/self/statm") else 0
    unit = 1 if os.uname().sysname == "Darwin" else 1024  # ru_maxrss: bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"host": pages * os.sysconf("SC_PAGE_SIZE"), "host_peak": peak, **_current.memory()}


class kernel:
    """One function on two devices: a numba function, and CUDA source of the kernel called `name`.

    On the CPU the call is cpu(*arguments). On a GPU, size(*arguments) threads run the kernel with
    gpu_arguments(*arguments). Which one runs is decided by the type of the first argument.
    """

    def __init__(self, cpu, gpu, name, size, gpu_arguments=lambda *a: a):
        self.cpu, self.gpu, self.name, self.size, self.gpu_arguments = cpu, gpu, name, size, gpu_arguments
        self.compiled = {}

    def __getstate__(self):
        return {**vars(self), "compiled": {}}

    def __call__(self, *arguments):
        return owner(arguments[0]).kernel(self, arguments)


use("cpu")
