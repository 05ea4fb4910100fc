"""What CuPy allows: the strict device asks here before it lets NumPy do a thing.

Names and arguments are held to cupy.json, written by cupy_table.py from a CuPy. Beside them stand CuPy's documented
differences from NumPy: no strings and objects, ufuncs take arrays and numbers only, a place that is named twice in an
assignment gets any of its values. matmul's out must be what cuBLAS writes: CuPy copies where it has gaps, and does not
look whether it overlaps an operand.
"""

import functools
import inspect
import json
import pathlib

import numpy as np

TABLE = json.loads(pathlib.Path(__file__).with_name("cupy.json").read_text())
CUPY = f"CuPy {TABLE['cupy']}"
CREATING = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray"}
WAITING = {
    "nonzero",
    "flatnonzero",
    "argwhere",
    "unique",
    "extract",
    "compress",
    "bincount",
    "histogram",
    "trim_zeros",
    "setdiff1d",
    "union1d",
    "intersect1d",
    "setxor1d",
}  # the host must know how much comes out
HOST_RESULT = {
    "can_cast",
    "result_type",
    "promote_types",
    "ndim",
    "shape",
    "size",
    "issubdtype",
    "isscalar",
    "broadcast_shapes",
    "may_share_memory",
    "shares_memory",
    "iscomplexobj",
    "isrealobj",
    "common_type",
    "min_scalar_type",
    "get_printoptions",
    "array2string",
    "array_repr",
    "array_str",
}


class Refused(TypeError):
    """Code asked a device array for something that is not there, or that would move data in silence."""


class Missing(Refused, AttributeError):
    """NumPy's arrays have it, CuPy's do not."""


@functools.cache
def signature(parameters):
    return inspect.signature(eval(f"lambda {parameters}: None"))


@functools.cache
def binder(parameters):
    """A function with these parameters: a call binds the arguments as `signature` does, and many times faster."""
    return eval(f"lambda {parameters}: locals()")


def fits(name, parameters, args, kwargs):
    """The arguments by name, and 0 for those with a default; Refused where CuPy's function does not take them."""
    try:
        return binder(parameters)(*args, **kwargs)
    except TypeError:
        return bind(name, parameters, args, kwargs)  # which says what is wrong


def bind(name, parameters, args, kwargs):
    """The arguments by name, those alone that were given; Refused where CuPy's function does not take them."""
    try:
        return signature(parameters).bind(*args, **kwargs).arguments
    except TypeError as error:
        plain = parameters.replace("=0", "=...")
        raise Refused(f"{CUPY}: {name}({plain}) does not take these arguments: {error}") from None


def check_function(path, args, kwargs):
    """Whether CuPy has the function `path`, such as "linalg.norm", and takes these arguments."""
    if path in TABLE["ufuncs"]:
        return check_ufunc(path, args, kwargs)
    if path not in TABLE["functions"]:
        raise Refused(f"{CUPY} has no {path}")
    given = (bind if path in ("matmul", "dot") else fits)(path, TABLE["functions"][path], args, kwargs)
    if path == "matmul":
        check_product(path, given["args"][:2], given.get("out", (*given["args"], None)[2]))
    elif path == "dot":
        check_product(path, (given["a"], given["b"]), given.get("out"))
    elif path not in CREATING:
        for name in ("a", "x", "array", "arr", "ar"):
            if isinstance(given.get(name), (list, tuple)):
                raise Refused(f"{CUPY}: {path} takes arrays, not a {type(given[name]).__name__}")


def check_ufunc(path, args, kwargs):
    nin, nout = TABLE["ufuncs"][path]
    wrong = sorted(set(kwargs) - set(TABLE["ufunc_keywords"]))
    if wrong:
        raise Refused(f"{CUPY}: the ufunc {path} takes {', '.join(TABLE['ufunc_keywords'])}, not {', '.join(wrong)}=")
    if not nin <= len(args) <= nin + nout:
        raise Refused(f"{CUPY}: the ufunc {path} takes {nin} arguments and {nout} out, got {len(args)}")
    for a in args:
        if not (hasattr(a, "inner") or isinstance(a, (bool, int, float, complex))):
            raise Refused(f"{CUPY}: the ufunc {path} takes arrays and numbers, not {type(a).__name__}")


def check_product(path, operands, out):
    """matmul(a, b, out=): C-contiguous, of the product's dtype, apart from a and b. NumPy looks at the shape."""
    if out is None:
        return
    wanted = np.result_type(*[a.dtype for a in operands])
    if not out.flags.c_contiguous or out.dtype != wanted:
        raise Refused(
            f"{path}: out is {out.dtype}{'' if out.flags.c_contiguous else ' with gaps'}, but cuBLAS writes "
            f"contiguous {wanted}: CuPy would make a temporary array and copy it"
        )
    if any(np.shares_memory(out.inner, a.inner) for a in operands):
        raise Refused(f"{path}: out overlaps an operand, and CuPy does not look")


def check_method(name, args, kwargs):
    """Whether CuPy's arrays have the method and it takes these arguments."""
    fits(f"ndarray.{name}", TABLE["methods"][name], args, kwargs)


def check_result(array, what):
    """Numbers that CuPy can hold."""
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise Refused(f"{what} gives an array of {array.dtype}, which CuPy cannot hold")


def masks(index):
    """Whether an index holds a boolean array (plain NumPy, unwrapped)."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, np.ndarray) and part.dtype == bool and part.ndim for part in parts)


def lists(index):
    """How many numbers of an index stand in lists, which CuPy sends to the device."""
    parts = index if isinstance(index, tuple) else (index,)
    return sum(np.size(part) for part in parts if isinstance(part, list))


def store(inner, index, value):
    """inner[index] = value. Where the index names a place twice, the first value stays: NumPy keeps the last, on a GPU
    it is undefined which one, so that code which depends on it does not agree with the CPU."""
    inner[index] = value
    parts = index if isinstance(index, tuple) else (index,)
    numbered = any(
        isinstance(part, (np.ndarray, list)) and np.ndim(part) and np.asarray(part).dtype.kind in "iu" for part in parts
    )
    if numbered and np.size(value) > 1:
        values = np.broadcast_to(np.asarray(value, inner.dtype), inner[index].shape)
        places = np.arange(inner.size).reshape(inner.shape)[index]
        inner.flat[places.reshape(-1)[::-1]] = values.reshape(-1)[::-1]
