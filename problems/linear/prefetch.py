"""Bringing memory near before it is read: LLVM's prefetch, inside compiled loops.

The rows of a stretch are known. So the numbers of the row four steps ahead are fetched, and for the row eight steps
ahead the place where it lies. On a9a and w8a that takes half of the time away. These are intrinsics and not functions
of arrays, because numba counts the references of arrays that it hands to a function, at every step.
"""

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic, overload


def prefetch(array, i):
    """Ask for array[i] to be brought near, and go on. Any i is allowed. Without the compiler it does nothing."""


def prefetch_range(array, first, last, step):
    """prefetch(array, i) for i in range(first, last, step)"""


def fetch(context, builder, kind, array, i):
    held = context.make_array(kind)(context, builder, array)
    byte, int32 = ir.IntType(8).as_pointer(), ir.IntType(32)
    shape = ir.FunctionType(ir.VoidType(), [byte, int32, int32, int32])
    address = builder.bitcast(builder.gep(held.data, [i]), byte)
    wish = [ir.Constant(int32, value) for value in (0, 3, 1)]  # to read; keep near; data
    builder.call(builder.module.declare_intrinsic("llvm.prefetch", [byte], shape), [address, *wish])


@intrinsic
def _one(typing, array, i):
    def generate(context, builder, signature, arguments):
        fetch(context, builder, signature.args[0], *arguments)
        return context.get_dummy_value()

    return numba.void(array, numba.int64), generate


@intrinsic
def _range(typing, array, first, last, step):
    def generate(context, builder, signature, arguments):
        held, start, stop, by = arguments
        with cgutils.for_range_slice(builder, start, stop, by, inc=True) as (i, _):
            fetch(context, builder, signature.args[0], held, i)
        return context.get_dummy_value()

    return numba.void(array, numba.int64, numba.int64, numba.int64), generate


@overload(prefetch)
def _(array, i):
    return lambda array, i: _one(array, i)


@overload(prefetch_range)
def _(array, first, last, step):
    return lambda array, first, last, step: _range(array, first, last, step)
