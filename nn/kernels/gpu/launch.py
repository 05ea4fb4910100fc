"""The CUDA files of this folder: compiled once for each dtype, their kernels kept by name; what arrays they take."""

import pathlib

from npopt import backend

HERE = pathlib.Path(__file__).parent
C = {  # what an array's numbers are called, and those of its sums
    "float32": ("float", "float"),
    "float64": ("double", "double"),
    "float16": ("Half", "float"),
    "bfloat16": ("Bfloat", "float"),
}
THREADS = 256  # of every block, but for the joins of sums: 1024


class Program:
    """The kernels of one CUDA file; program(name, x) is the kernel called `name` for arrays like x."""

    def __init__(self, *files):
        self.files, self.modules, self.kernels = ("common.cuh", *files), {}, {}

    def source(self):
        return "".join((HERE / file).read_text() for file in self.files)

    def __call__(self, name, x):
        key = name, type(x), x.dtype
        kernel = self.kernels.get(key)
        if kernel is None:
            if key[1:] not in self.modules:
                self.modules[key[1:]] = backend.xp(x).RawModule(code=self.source(), options=options(x.dtype.name))
            kernel = self.kernels[key] = self.modules[key[1:]].get_function(name)
        return kernel

    def each(self, name, n, *arguments, like=None):
        """A thread for each of n numbers; the kernel is that for arrays like `like`, or like the first argument."""
        self(name, arguments[0] if like is None else like)((blocks(n),), (THREADS,), (*arguments, n))

    def lines(self, name, shape, wide, *arguments):
        """A thread for each `wide` channels of each pixel of (B, H, W, C); a block has a piece of a line (b, h)."""
        b, height, width, c = shape
        grid = b * height, blocks(width * c // wide)
        self(name, arguments[0])(grid, (THREADS,), (*arguments, c // wide))


def options(dtype):
    """The compiler's command line."""
    stored, real = C[dtype]
    return ("-std=c++17", f"-DReal={real}", f"-DStored={stored}")


def blocks(count, size=THREADS):
    """How many blocks of this size hold so many."""
    return (count + size - 1) // size


def geometry(image, count, kernel, stride, padding):
    """The arguments WINDOW of a kernel: windows over images (B, H, W, C), count (H', W')."""
    return (*image.shape[1:3], *count, *kernel, *stride, *padding)


def takes(arguments):
    """Whether the kernels take these arrays: of one device, contiguous, not empty, floating ones of one dtype; or
    activations of two bytes a number beside float32 parameters and sums."""
    kind, found = type(arguments[0]), set()
    for a in arguments:
        if type(a) is kind:
            if not a.size or not a.flags.c_contiguous:
                return False
            if a.dtype.kind not in "iub":
                found.add(a.dtype.name)
    return found in SETS


SETS = [{"float32"}, {"float64"}, {"float16"}, {"bfloat16"}, {"float16", "float32"}, {"bfloat16", "float32"}]
