"""CUDA C++ behind the layers' pieces: the functions of reference.py for CuPy arrays, one launch or two each.

The sources are the .cu files of this folder, Real standing for float or double; CuPy compiles them when they are first
used. `convolutions`, `norms` and `pixels` call them and count their bytes and operations. Nothing uses atomics, every
sum has an order that depends on shapes alone: a step gives the same bits again. Matrix products are cuBLAS's, float32
in full unless backend.precision("tf32") is set. Arrays of mixed dtypes, with gaps or empty go the plain way.
"""

import functools
import inspect

from .. import reference
from . import convolutions, norms, pixels
from .launch import takes

__all__ = ["FUNCTIONS", "PROGRAMS"]

PROGRAMS = (convolutions.program, norms.program, pixels.rows_program, pixels.pools_program)


def _guarded(name, fast):
    plain = getattr(reference, name)
    # Until the other functions are without their last argument, the context: drop it here. Then these lines go.
    with_context = inspect.signature(plain).parameters.keys() & {"ctx"}

    @functools.wraps(fast)
    def call(x, *arguments):
        if takes(x, arguments):
            return fast(x, *(arguments[:-1] if with_context else arguments))
        return plain(x, *arguments)

    return call


FUNCTIONS = {name: _guarded(name, vars(module)[name]) for module in (convolutions, norms, pixels)
             for name in reference.NAMES if name in vars(module)}
