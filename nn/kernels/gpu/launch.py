"""The CUDA files of this folder, as programs with common.cuh before them; what arrays their kernels take."""

import pathlib

from npopt.backend import cuda

HERE = pathlib.Path(__file__).parent
THREADS = 256  # of every block; blocks that join sums have 1024


class Program(cuda.Program):
    """The kernels of some CUDA files of this folder, with common.cuh before them."""

    def __init__(self, *files, shared=None, before=""):
        super().__init__(*(HERE / file for file in ("common.cuh", *files)), shared=shared, before=before)

    def each(self, name, n, *arguments, like=None):
        """Launch a thread for each of n numbers, in the kernel for arrays like `like`, or like the first argument."""
        self(name, arguments[0] if like is None else like)((blocks(n),), (THREADS,), (*arguments, n))

    def lines(self, name, shape, wide, *arguments):
        """Launch a thread for each `wide` channels of each pixel of (B, H, W, C). A block has a piece of a line (b,
        h)."""
        b, height, width, c = shape
        grid = b * height, blocks(width * c // wide)
        self(name, arguments[0])(grid, (THREADS,), (*arguments, c // wide))


windows = Program("windows.cu")  # of all convolutions: columns, and sums of parts


def blocks(count, size=THREADS):
    """How many blocks of this size hold `count` threads."""
    return (count + size - 1) // size


def geometry(image, count, kernel, stride, padding):
    """The arguments WINDOW of a kernel: windows over images (B, H, W, C), count (H', W')."""
    return (*image.shape[1:3], *count, *kernel, *stride, *padding)


def takes(arguments):
    """Whether the kernels take these arrays. They are on one device, contiguous, not empty, and of one floating dtype.
    Or activations have two bytes a number, and parameters and sums are float32."""
    kind, found = type(arguments[0]), set()
    for a in arguments:
        if type(a) is kind:
            if not a.size or not a.flags.c_contiguous:
                return False
            if a.dtype.kind not in "iub":
                found.add(a.dtype.name)
    return found in SETS


SETS = [{"float32"}, {"float64"}, {"float16"}, {"bfloat16"}, {"float16", "float32"}, {"bfloat16", "float32"}]
