"""CUDA graphs: what a function launches is recorded once, and launched again in one call.

    recorded = Recorded(device, function)       # function() works on the same arrays in every call
    result = recorded()                         # the same arrays each time, written anew

A launch from Python takes about ten microseconds, a launch inside a graph one or two. The step of a small network is a
hundred launches; in a graph its arithmetic limits it. A graph holds addresses and scalars as they were when it was
recorded. So the function may depend on nothing but the contents of arrays that stay where they are, and it must not
read a number on the host.

Memory: what the function allocates comes from a pool of its own. Nobody else takes from this pool, and it keeps its
address as long as the graph lives. CuPy refuses to call cuBLAS while it records. So `Cublas` calls the same library
itself, with a work space that it owns, as NVIDIA's notes on cuBLAS and graphs ask for.
"""

import ctypes
import re

WORKSPACE = 32 << 20  # bytes, what NVIDIA's notes on cublasSetWorkspace give for Hopper
NAMES = ("libcublas.so.13", "libcublas.so.12", "libcublas.so")


class Cublas:
    """cuBLAS by its C functions, on one stream. `gemmStridedBatchedEx` takes the arguments of CuPy's of that name."""

    CUBLAS_OP_N, CUBLAS_OP_T, CUBLAS_GEMM_DEFAULT = 0, 1, -1  # cublas_api.h
    CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32 = 68, 70, 77

    def __init__(self, device, stream):
        self.stream, self.library, self.space = stream, _library(), device.module.empty(WORKSPACE, "uint8")
        self.handle, pointer = ctypes.c_void_p(), ctypes.c_void_p
        self._done(self.library.cublasCreate_v2(ctypes.byref(self.handle)))
        self._done(self.library.cublasSetStream_v2(self.handle, pointer(stream.ptr)))
        size = ctypes.c_size_t(WORKSPACE)
        self._done(self.library.cublasSetWorkspace_v2(self.handle, pointer(self.space.data.ptr), size))
        long, i, p = ctypes.c_longlong, ctypes.c_int, pointer
        # handle, turns, m n k, alpha; address, kind, leading dimension and step of a and b; beta, c, count, two ways
        matrix = [p, i, i, long]
        self.function = self.library.cublasGemmStridedBatchedEx
        self.function.argtypes = [p, i, i, i, i, i, p, *matrix, *matrix, p, *matrix, i, i, i]

    def gemmStridedBatchedEx(self, handle, *arguments):
        self._done(self.function(handle, *arguments))

    def _done(self, status):
        if status:
            raise RuntimeError(f"cuBLAS answered with status {status}")


def _library():
    """The cuBLAS that CuPy has loaded."""
    with open("/proc/self/maps") as maps:
        loaded = re.findall(r"(/\S*libcublas\.so\S*)", maps.read())
    for name in (*dict.fromkeys(loaded), *NAMES):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise RuntimeError("cuBLAS cannot be found")


class Recorded:
    """function(), recorded here. A call replays it. A trial run before compiles kernels and fills the pool."""

    def __init__(self, device, function):
        cuda, stream = device.module.cuda, self._stream(device)
        device.module.get_default_memory_pool().free_all_blocks()  # memory that earlier passes left there
        self.device, self.pool = device, cuda.MemoryPool()
        device.recordings.add(self)
        with stream, cuda.using_allocator(self.pool.malloc):
            device.recording = device.recorder
            try:
                function()
                stream.begin_capture(cuda.runtime.streamCaptureModeRelaxed)
                try:
                    self.result = function()
                finally:
                    self.graph = stream.end_capture()
            finally:
                device.recording = None
        stream.synchronize()  # the trial run's launches are over before a replay begins

    @staticmethod
    def _stream(device):
        """The stream on which graphs of this device are recorded; the first call makes it, and cuBLAS's handle."""
        if device.recorder is None:
            device.cublas()  # CuPy loads the library
            device.recorder = Cublas(device, device.module.cuda.Stream())
        return device.recorder.stream

    def __call__(self):
        self.graph.launch(self.device.module.cuda.get_current_stream())
        return self.result
