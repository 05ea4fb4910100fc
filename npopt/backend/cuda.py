"""CUDA C++ in files: compiled when it is first used, once for each dtype; the kernels are kept by name."""

import pathlib

from npopt.backend.devices import xp

C = {"float32": "float", "float64": "double"}


class Program:
    """The kernels of some CUDA files, read one behind the other; program(name, x) is the kernel for arrays like x.

    Real stands for float or double in them. before: text that comes first, such as a formula.
    """

    def __init__(self, *files, before=""):
        self.files, self.before = tuple(pathlib.Path(file) for file in files), before
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
        return kernel


def options(dtype):
    """The compiler's command line."""
    return ("-std=c++17", f"-DReal={C[dtype]}")


def compiles(x):
    """Whether the device of x is one that compiles CUDA."""
    return hasattr(xp(x), "RawModule")
