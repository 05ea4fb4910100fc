"""The CUDA files of this folder: compiled once for each dtype, their kernels kept by name; what arrays they take."""

import pathlib

from npopt import backend

HERE = pathlib.Path(__file__).parent
C = {"float32": "float", "float64": "double"}
THREADS = 256  # of every block, but for the joins of sums: 1024


class Program:
    """The kernels of one CUDA file; program(name, x) is the kernel called `name` for arrays like x."""

    def __init__(self, file):
        self.file, self.modules, self.kernels = file, {}, {}

    def source(self):
        return "".join((HERE / file).read_text() for file in ("common.cuh", self.file))

    def __call__(self, name, x):
        key = name, type(x), x.dtype
        kernel = self.kernels.get(key)
        if kernel is None:
            if key[1:] not in self.modules:
                self.modules[key[1:]] = backend.xp(x).RawModule(code=self.source(), options=options(x.dtype.name))
            kernel = self.kernels[key] = self.modules[key[1:]].get_function(name)
        return kernel

    def each(self, name, n, *arguments):
        """A thread for each of n numbers."""
        self(name, arguments[0])((blocks(n),), (THREADS,), (*arguments, n))

    def lines(self, name, shape, wide, *arguments):
        """A thread for each `wide` channels of each pixel of (B, H, W, C); a block has a piece of a line (b, h)."""
        b, height, width, c = shape
        grid = b * height, blocks(width * c // wide)
        self(name, arguments[0])(grid, (THREADS,), (*arguments, c // wide))


def options(dtype):
    """The compiler's command line."""
    return ("-std=c++17", f"-DReal={C[dtype]}")


def blocks(count, size=THREADS):
    """How many blocks of this size hold so many."""
    return (count + size - 1) // size


def geometry(image, count, kernel, stride, padding):
    """The arguments WINDOW of a kernel: windows over images (B, H, W, C), count (H', W')."""
    return (*image.shape[1:3], *count, *kernel, *stride, *padding)


def takes(arguments):
    """Whether the kernels take these arrays: of one device, contiguous, not empty, floating ones of one dtype."""
    kind, first = type(arguments[0]), None
    for a in arguments:
        if type(a) is kind:
            if not a.size or not a.flags.c_contiguous:
                return False
            dtype = a.dtype
            if dtype is not first and dtype.kind == "f":
                if first is not None and dtype != first:
                    return False
                first = dtype
    return first is not None and first.char in "fd"
