"""Arrays, draws, threads and kernels on two devices. The only module that imports CuPy, or asks which device is in use.

    backend.use("gpu")                      # or "cpu", the default
    x = backend.zeros(10, "float32")        # on the device in use
    backend.xp(x).sqrt(x)                   # the array module of x
    backend.to_host(x)                      # a NumPy array; a float for a 0-d array

Draws are functions of (seed, stream, counter), stream being a word such as "dropout". `generator` makes a NumPy
generator for the many numbers of an epoch; `key` makes the 64-bit number from which kernels draw by element index:

    mix(z):   z ^= z >> 30;  z *= 0xBF58476D1CE4E5B9;  z ^= z >> 27;  z *= 0x94D049BB133111EB;  z ^= z >> 31
    uniform(key) of element i = ((mix(key + (i+1) G) >> 41) + 1/2) 2^-23              exact in float32, inside (0, 1)
    normal(key) of element i  = sqrt(-2 log u1) cos(2 pi u2)                          Box & Muller 1958, in float64
        u1, u2 = ((mix(key + (2i+1) G) >> 11) + 1/2) 2^-53,  ((mix(key + (2i+2) G) >> 11) + 1/2) 2^-53

with G = 0x9E3779B97F4A7C15 and all integers modulo 2^64: the SplitMix64 generator of Steele, Lea & Flood, OOPSLA 2014,
read at any position.
"""

import os

# Waiting threads must sleep: with active waiting, a pool that waits takes the cores from the pool that works (BLAS and
# numba have one each). These settings are read when the libraries load, hence before the imports below.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb workqueue")

import functools
import hashlib
import pathlib

import numba
import numpy as np
import threadpoolctl

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
GPU_HELP = (
    "the GPU was asked for, but CuPy cannot be used here ({why}); install it with "
    "'pip install -r requirements-gpu.txt' on a machine with an NVIDIA GPU, or choose the CPU"
)


# ---------------------------------------------------------------------------------------------------------- devices
class Cpu:
    """NumPy arrays; formulas and kernels run as numba loops."""

    name = "cpu"
    module = np
    array_type = np.ndarray

    def asarray(self, a, dtype=None):
        return np.asarray(a, dtype=dtype)

    def to_host(self, a):
        return a

    def elementwise(self, formula, arguments, offset):
        return formula.on_cpu(arguments, offset)

    def kernel(self, pair, arguments):
        return pair.cpu(*arguments)

    def synchronize(self):
        """Wait until the device has done what it was asked to do."""

    def memory(self):
        return {}


class Gpu:
    """CuPy arrays; formulas become ElementwiseKernels, kernels RawKernels."""

    name = "gpu"

    def __init__(self):
        try:
            import cupy

            cupy.cuda.runtime.getDeviceCount()
        except Exception as error:                              # ImportError, a driver that is missing or too old, ...
            raise RuntimeError(GPU_HELP.format(why=str(error).split("\n")[0])) from None
        self.module, self.array_type = cupy, cupy.ndarray

    def asarray(self, a, dtype=None):
        return self.module.asarray(a, dtype=dtype)

    def to_host(self, a):
        return self.module.asnumpy(a)

    def elementwise(self, formula, arguments, offset):
        return formula.on_gpu(self.module, arguments, offset)

    def kernel(self, pair, arguments):
        function = pair.compiled.get("gpu")
        if function is None:
            function = pair.compiled["gpu"] = self.module.RawKernel(pair.gpu, pair.name)
        threads = 256
        function(((pair.size(*arguments) + threads - 1) // threads,), (threads,), pair.gpu_arguments(*arguments))

    def synchronize(self):
        self.module.cuda.Stream.null.synchronize()

    def memory(self):
        pool = self.module.get_default_memory_pool()
        return {"device": pool.used_bytes(), "device_peak": pool.total_bytes()}


DEVICES = {"cpu": Cpu, "gpu": Gpu}                              # name -> how to make it
_made = {}
_owner = {}                                                     # array type -> device
_current = None


def _make(name):
    if name not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    if name not in _made:
        made = _made[name] = DEVICES[name]()
        _owner[made.array_type] = made
    return _made[name]


def use(name):
    """Choose the device on which new arrays are made: "cpu" or "gpu". Asking for an absent GPU is a RuntimeError."""
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
    """The array on the device in use; no copy where it is there already with that dtype."""
    return _current.asarray(a, dtype)


def to_host(a):
    """A NumPy array of a device array; a Python float of a 0-d one or of a number."""
    a = owner(a).to_host(a)
    return a if isinstance(a, np.ndarray) and a.ndim else float(a)


def empty(shape, dtype):
    return _current.module.empty(shape, dtype=dtype)


def zeros(shape, dtype):
    return _current.module.zeros(shape, dtype=dtype)


def synchronize():
    """Wait for the device in use; call it before reading a clock."""
    _current.synchronize()


def memory():
    """Bytes in use: "host" and "host_peak" (resident set), and on a GPU "device" and "device_peak" (CuPy's pool)."""
    import resource

    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) if os.path.exists("/proc/self/statm") else 0
    unit = 1 if os.uname().sysname == "Darwin" else 1024        # ru_maxrss: bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"host": pages * os.sysconf("SC_PAGE_SIZE"), "host_peak": peak, **_current.memory()}


# ---------------------------------------------------------------------------------------------------------- threads
def cores():
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def threads(n=None):
    """Set the number of threads of BLAS and of numba together; without n, read it."""
    if n is not None:
        if int(n) != n or n < 1:
            raise ValueError(f"threads must be a whole number of at least 1, got {n!r}")
        numba.set_num_threads(min(int(n), numba.config.NUMBA_NUM_THREADS))
        threadpoolctl.threadpool_limits(int(n), user_api="blas")
    return numba.get_num_threads()


# ------------------------------------------------------------------------------------------------------------ draws
def mix(z):
    """SplitMix64's finaliser: 64 bits in, 64 well-stirred bits out."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@functools.lru_cache(maxsize=4096)
def _stream(seed, stream):
    return int.from_bytes(hashlib.blake2b(f"{int(seed)}/{stream}".encode(), digest_size=8).digest(), "little")


def key(seed, stream, counter=0):
    """The 64-bit key of (seed, stream, counter): `normal(key)` and `uniform(key)` draw from it by element index."""
    return mix((_stream(seed, stream) + (int(counter) + 1) * GOLDEN) & MASK)


def generator(seed, stream, counter=0):
    """A NumPy Generator that is a function of (seed, stream, counter); about 10 us, so one an epoch, not one a step."""
    k = key(seed, stream, counter)
    return np.random.Generator(np.random.Philox(key=np.array([k, mix(k)], dtype=np.uint64)))


class kernel:
    """One function on two devices: a numba function, and CUDA source of the kernel called `name`.

    On the CPU the call is cpu(*arguments). On a GPU, size(*arguments) threads run the kernel with
    gpu_arguments(*arguments). Which one runs is decided by the type of the first argument.
    """

    def __init__(self, cpu, gpu, name, size, gpu_arguments=lambda *a: a):
        self.cpu, self.gpu, self.name, self.size, self.gpu_arguments = cpu, gpu, name, size, gpu_arguments
        self.compiled = {}

    def __call__(self, *arguments):
        return owner(arguments[0]).kernel(self, arguments)


# The elementwise compiler needs the device table above, and the draws below need the compiler.
from npopt.elementwise import CUDA_DRAWS, elementwise, hashed_uniform  # noqa: E402


@elementwise
def _normals(out, key):
    out = normal(key)  # noqa: F821
    return out


@elementwise
def _uniforms(out, key):
    out = uniform(key)  # noqa: F821
    return out


@numba.njit(cache=True, error_model="numpy")
def _row_uniforms_cpu(out, rows, key):
    width = out.shape[1]
    for b in range(out.shape[0]):
        start = np.uint64(rows[b]) * np.uint64(width)
        for j in range(width):
            out[b, j] = hashed_uniform(key, start + np.uint64(j))


_row_uniforms = kernel(
    cpu=_row_uniforms_cpu,
    gpu=CUDA_DRAWS
    + """
extern "C" __global__ void row_uniforms(void* out, const long long* rows, unsigned long long key,
                                        long long width, long long n, int is_double) {
    long long i = blockDim.x * (long long)blockIdx.x + threadIdx.x;
    if (i >= n) return;
    double u = hashed_uniform(key, (unsigned long long)(rows[i / width] * width + i % width));
    if (is_double) ((double*)out)[i] = u; else ((float*)out)[i] = (float)u;
}""",
    name="row_uniforms",
    size=lambda out, rows, key: out.size,
    gpu_arguments=lambda out, rows, key: (
        out, rows, np.uint64(key), np.int64(out.shape[1]), np.int64(out.size), np.int32(out.dtype == np.float64)
    ),
)


def normals(key, out, offset=0):
    """out[i] <- the normal number offset+i of key, for a flat array: the numbers of normal(key) in a formula."""
    _normals(out, key, offset=offset)
    return out


def row_uniform(key, rows, out):
    """out[b, j] <- the number rows[b] D + j of key, U(0, 1); out: (B, D), rows: (B,) int64, or None for 0, 1, ..., B-1.

    A row's numbers depend on the row alone, not on the batch that it came in.
    """
    if rows is None:
        _uniforms(out.reshape(-1), key)
    else:
        _row_uniforms(out, rows, np.uint64(key))
    return out


use("cpu")
