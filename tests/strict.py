"""A stand-in for a GPU that needs none: arrays that live "elsewhere" and say so when code forgets it.

A StrictArray refuses to become a NumPy array, a Python number or a truth value; to_host is the only way back. It
refuses to meet a NumPy array in any operation (0-d NumPy scalars too: on a GPU they would be copied over in silence,
step after step). Reductions give 0-d StrictArrays, as CuPy's do. Its module offers what NumPy and CuPy share: a name
that CuPy lacks is refused, so that NumPy-only calls do not creep in.
"""

import numpy as np

# Functions that exist in NumPy but not in CuPy (CuPy 13's comparison table), and that code here might reach for.
NOT_IN_CUPY = {"float128", "errstate", "seterr", "load", "save", "apply_over_axes", "frompyfunc", "nditer",
               "add.reduceat"}
HOST_RESULT = {"dtype", "finfo", "iinfo", "result_type", "ndim", "shape", "issubdtype", "isscalar"}


class Refused(TypeError):
    """Code treated a device array as if it were on the host."""


def unwrap(value):
    if isinstance(value, StrictArray):
        return value.inner
    if isinstance(value, np.ndarray):
        raise Refused(f"a NumPy array of shape {value.shape} met a device array; move it with backend.asarray")
    if isinstance(value, np.generic) and not isinstance(value, (np.bool_, np.dtype)):
        raise Refused(f"a NumPy scalar {value!r} met a device array; use a Python number or keep it on the device")
    if isinstance(value, (tuple, list)):
        return type(value)(unwrap(v) for v in value)
    return value


def wrap(value):
    if isinstance(value, np.ndarray):
        return StrictArray(value)
    if isinstance(value, np.generic):
        return StrictArray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(wrap(v) for v in value)
    return value


class StrictArray:
    """See the module's docstring."""

    __array_ufunc__ = None                                      # NumPy's operators give up: ours, or a TypeError
    __array_priority__ = 1000

    def __init__(self, inner, base=None):
        self.inner, self.base = inner, base                     # base: as CuPy's, the array whose memory a view shows

    def _view(self, result):
        if isinstance(result, np.ndarray) and np.may_share_memory(result, self.inner):
            return StrictArray(result, self if self.base is None else self.base)
        return wrap(result)

    def _refuse(self, *_, **__):
        raise Refused("a device array was read on the host; inside a step nobody may, elsewhere use backend.to_host")

    __array__ = __float__ = __int__ = __bool__ = __index__ = __complex__ = __iter__ = tolist = item = _refuse

    def __array_function__(self, function, types, args, kwargs):
        raise Refused(f"numpy.{function.__name__} met a device array; use backend.xp(array).{function.__name__}")

    shape = property(lambda self: self.inner.shape)
    dtype = property(lambda self: self.inner.dtype)
    size = property(lambda self: self.inner.size)
    ndim = property(lambda self: self.inner.ndim)
    nbytes = property(lambda self: self.inner.nbytes)
    itemsize = property(lambda self: self.inner.itemsize)
    strides = property(lambda self: self.inner.strides)
    flags = property(lambda self: self.inner.flags)
    T = property(lambda self: self._view(self.inner.T))

    def __len__(self):
        return len(self.inner)

    def __repr__(self):
        return f"StrictArray({self.dtype}, {self.shape})"

    def __getitem__(self, index):
        return self._view(self.inner[unwrap(index)])

    def __setitem__(self, index, value):
        self.inner[unwrap(index)] = unwrap(value)

    def __deepcopy__(self, memo):
        return StrictArray(self.inner.copy())

    def __getattr__(self, name):
        method = getattr(self.inner, name)                      # AttributeError where NumPy has none either
        if name.startswith("__") or not callable(method):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._view(method(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()}))


def _operator(name):
    def binary(self, *others):
        result = getattr(self.inner, name)(*[unwrap(o) for o in others])
        if name.startswith("__i") and name not in ("__invert__",):
            return self
        return result if result is NotImplemented else wrap(result)

    return binary


for _name in (
    "add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv rfloordiv pow rpow ipow mod rmod "
    "matmul rmatmul neg pos abs invert lt le gt ge eq ne and rand iand or ror ior xor lshift rshift"
).split():
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__"))


class Module:
    """NumPy's functions over StrictArrays."""

    def __init__(self, inner, path=""):
        self.inner, self.path = inner, path

    def __getattr__(self, name):
        if name in NOT_IN_CUPY:
            raise Refused(f"CuPy has no {self.path}{name}")
        found = getattr(self.inner, name)
        if isinstance(found, type(np)):                         # linalg, random, ...
            return Module(found, f"{self.path}{name}.")
        if isinstance(found, type) or not callable(found):      # float32, pi, ...
            return found

        def call(*args, **kwargs):
            result = found(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()})
            return result if name in HOST_RESULT else wrap(result)

        return call


class Strict:
    """The device; register it with backend.DEVICES["strict"] = Strict."""

    name = "strict"
    array_type = StrictArray

    def __init__(self):
        self.module = Module(np)
        self.empty = self.workspace = self.module.empty

    def asarray(self, a, dtype=None):
        inner = a.inner if isinstance(a, StrictArray) else np.array(a)
        return StrictArray(np.asarray(inner, dtype=dtype))

    def to_host(self, a):
        return a.inner.copy()

    def elementwise(self, formula, arguments, offset):
        for a in arguments:
            if isinstance(a, (np.ndarray, np.generic)):
                raise Refused(f"{formula.name}: a NumPy value met device arrays: {a!r}")
        formula.on_cpu([unwrap(a) for a in arguments], offset)

    def kernel(self, pair, arguments):
        plain = [a.inner if isinstance(a, StrictArray) else a for a in arguments]
        return pair.cpu(*plain)

    def norm(self, x):
        return StrictArray(np.asarray(np.sqrt(np.sum(np.square(x.inner, dtype=np.float64)))))

    def synchronize(self):
        pass

    def memory(self):
        return {"device": 0, "device_peak": 0}
