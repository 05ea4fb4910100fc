"""The CUDA files of this folder, as programs with common.cuh before them; what arrays their kernels take."""

import pathlib

from npopt.backend import cuda

HERE = pathlib.Path(__file__).parent
THREADS = 256  # of every block, but for the joins of sums: 1024


class Program(cuda.Program):
    """The kernels of one CUDA file; program(name, x) is the kernel called `name` for arrays like x."""

    def __init__(self, file):
        super().__init__(HERE / "common.cuh", HERE / file)

    def each(self, name, n, *arguments):
        """A thread for each of n numbers."""
        self(name, arguments[0])((blocks(n),), (THREADS,), (*arguments, n))

    def lines(self, name, shape, wide, *arguments):
        """A thread for each `wide` channels of each pixel of (B, H, W, C); a block has a piece of a line (b, h)."""
        b, height, width, c = shape
        grid = b * height, blocks(width * c // wide)
        self(name, arguments[0])(grid, (THREADS,), (*arguments, c // wide))


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
