"""CUDA C++ in files: compiled when it is first used, once for each dtype; the kernels are kept by name."""

import pathlib

from npopt.backend.devices import xp

C = {  # what an array's numbers are called, and those of its sums
    "float32": ("float", "float"),
    "float64": ("double", "double"),
    "float16": ("Half", "float"),
    "bfloat16": ("Bfloat", "float"),
}


class Program:
    """The kernels of some CUDA files, read one after the other. program(name, x) is the kernel for arrays like x.

    In the files Real stands for float or double. Stored stands for the type of the arrays where that may be a shorter
    one. before: text that comes first, such as a formula. shared: {name: bytes of shared memory that its launch asks
    for}, where the source does not say it.
    """

    def __init__(self, *files, before="", shared=None):
        self.files, self.before, self.shared = tuple(pathlib.Path(file) for file in files), before, shared or {}
        self.modules, self.kernels = {}, {}

    @property
    def file(self):
        """The last file's name, by which tests and readers know the program."""
        return self.files[-1].name

    def source(self):
        return self.before + "".join(file.read_text() for file in self.files)

    def __call__(self, name, x):
        key = name, type(x), x.dtype
        kernel = self.kernels.get(key)
        if kernel is None:
            if key[1:] not in self.modules:
                self.modules[key[1:]] = xp(x).RawModule(code=self.source(), options=options(x.dtype.name))
            kernel = self.kernels[key] = self.modules[key[1:]].get_function(name)
            if name in self.shared:
                kernel.max_dynamic_shared_size_bytes = self.shared[name]
        return kernel


def options(dtype):
    """The compiler's command line."""
    stored, real = C[dtype]
    return ("-std=c++17", f"-DReal={real}", f"-DStored={stored}")


def compiles(x):
    """Whether the device of x is one that compiles CUDA."""
    return hasattr(xp(x), "RawModule")
