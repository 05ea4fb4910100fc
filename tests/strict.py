"""A stand-in for a GPU that needs none: arrays that live "elsewhere" and say so when code forgets it.

A StrictArray refuses to become a NumPy array, a Python number or a truth value; to_host is the only way back. It
refuses to meet a NumPy array in any operation (0-d NumPy scalars too: they would change the dtype, and on a GPU they
would be copied over in silence, step after step). Reductions give 0-d StrictArrays, as CuPy's do. Functions, methods
and their arguments are CuPy's, not NumPy's: strict_rules.py. What goes to and fro is counted: strict_moves.py.
"""

import numpy as np
import strict_rules as rules
from strict_moves import called, note
from strict_rules import Missing, Refused

PLAIN = {int, float, bool, str, slice, type(None), type(...), type}


def unwrap(value):
    if isinstance(value, StrictArray):
        return value.inner
    if type(value) in PLAIN:
        return value
    if isinstance(value, np.ndarray):
        raise Refused(f"a NumPy array of shape {value.shape} met a device array; move it with backend.asarray")
    if isinstance(value, np.generic) and not isinstance(value, (np.bool_, np.dtype)):
        raise Refused(f"a NumPy scalar {value!r} met a device array; use a Python number or keep it on the device")
    if isinstance(value, (tuple, list)):
        return type(value)(unwrap(v) for v in value)
    return value


def wrap(value, what="this"):
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        rules.check_result(value, what)
        return StrictArray(value)
    if isinstance(value, (tuple, list)):
        return tuple(wrap(v, what) for v in value)
    return value


class Flags:
    """What CuPy's flags say: it has no `writeable` and no `aligned`."""

    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, flags.owndata


class StrictArray:
    """See the module's docstring."""

    __array_ufunc__ = None  # NumPy's operators give up: ours, or a TypeError
    __array_priority__ = 100

    def __init__(self, inner, base=None):
        self.inner, self.base = inner, base  # base: as CuPy's, the array whose memory a view shows

    def _view(self, result, what="this"):
        """The result of a method: a view costs a GPU nothing, everything else is a kernel."""
        if isinstance(result, np.ndarray) and np.may_share_memory(result, self.inner):
            return StrictArray(result, self if self.base is None else self.base)
        called()
        return wrap(result, what)

    def _refuse(self, *_, **__):
        raise Refused("a device array was read on the host; inside a step nobody may, elsewhere use backend.to_host")

    __array__ = __float__ = __int__ = __bool__ = __index__ = __complex__ = __iter__ = tolist = item = _refuse
    __contains__ = __round__ = tobytes = tofile = dump = dumps = _refuse

    def __array_function__(self, function, types, args, kwargs):
        raise Refused(f"numpy.{function.__name__} met a device array; use backend.xp(array).{function.__name__}")

    shape = property(lambda self: self.inner.shape)
    dtype = property(lambda self: self.inner.dtype)
    size = property(lambda self: self.inner.size)
    ndim = property(lambda self: self.inner.ndim)
    nbytes = property(lambda self: self.inner.nbytes)
    itemsize = property(lambda self: self.inner.itemsize)
    strides = property(lambda self: self.inner.strides)
    flags = property(lambda self: Flags(self.inner.flags))
    T = property(lambda self: self._view(self.inner.T))
    real = property(lambda self: self._view(self.inner.real))
    imag = property(lambda self: self._view(self.inner.imag))

    def __len__(self):
        return len(self.inner)

    def __repr__(self):
        return f"StrictArray({self.dtype}, {self.shape})"

    def __getitem__(self, index):
        index = unwrap(index)
        self._noted(index)
        if rules.masks(index):
            note("waits", self.size)
        return self._view(self.inner[index])

    def __setitem__(self, index, value):
        called()
        index, value = unwrap(index), unwrap(value)
        self._noted(index)
        if isinstance(value, (list, tuple)):
            raise Refused(f"a {type(value).__name__} was assigned to a device array; move it with backend.asarray")
        if rules.masks(index) and np.size(value) > 1:
            note("waits", self.size)
        rules.store(self.inner, index, value)

    def _noted(self, index):
        if rules.lists(index):
            note("uploads", rules.lists(index))

    def __deepcopy__(self, memo):
        return StrictArray(self.inner.copy())

    def __getattr__(self, name):
        method = getattr(self.inner, name)  # AttributeError where NumPy has none either
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in rules.TABLE["methods"]:
            raise Missing(f"the arrays of {rules.CUPY} have no {name}")

        def call(*args, **kwargs):
            rules.check_method(name, args, kwargs)
            if name == "dot":
                rules.check_product("dot", (self, args[0]), kwargs.get("out", (*args, None)[1]))
            if name in rules.WAITING:
                note("waits", self.size)
            return self._view(method(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()}), name)

        return call


def _operator(name):
    method, in_place = getattr(np.ndarray, name), name.startswith("__i") and name != "__invert__"

    def binary(self, *others):
        called()
        for other in others:
            if isinstance(other, (list, tuple)):
                kind = type(other).__name__
                raise Refused(f"{name} of a device array and a {kind}; move it with backend.asarray")
            if getattr(other, "__array_ufunc__", 0) is None and not isinstance(other, StrictArray):
                return NotImplemented  # a type of ours, such as a sparse matrix, takes over
        result = method(self.inner, *map(unwrap, others))
        if in_place:
            return self
        return result if result is NotImplemented else wrap(result, name)

    return binary


for _name in (
    "add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv rfloordiv pow rpow ipow mod rmod "
    "matmul rmatmul neg pos abs invert lt le gt ge eq ne and rand iand or ror ior xor lshift rshift"
).split():
    setattr(StrictArray, f"__{_name}__", _operator(f"__{_name}__"))


class Function:
    """One function of the module; ufuncs have reduce, accumulate and so on as well."""

    def __init__(self, path, inner):
        self.path, self.inner, self.__name__ = path, inner, path

    def __call__(self, *args, **kwargs):
        name = self.path
        rules.check_function(name, args, kwargs)
        if name in rules.CREATING and not isinstance(args[0], StrictArray):
            note("uploads", np.size(unwrap(args[0])))
        if name in rules.WAITING or (name == "where" and len(args) + len(kwargs) == 1):
            note("waits", 1)
        result = self.inner(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()})
        if name in rules.HOST_RESULT:
            return result
        called()
        return wrap(result, name)

    def __getattr__(self, name):
        raise Refused(
            f"{self.path}.{name}: methods of ufuncs are not in the table of {rules.CUPY}; "
            "use the function of that meaning"
        )


class Module:
    """NumPy's functions over StrictArrays, as far as CuPy has them."""

    def __init__(self, inner, path=""):
        self.inner, self.path = inner, path

    def __getattr__(self, name):
        path, found = self.path + name, getattr(self.inner, name)
        if isinstance(found, type(np)):
            if name != "linalg":
                raise Refused(f"xp.{path} is not used on devices: draws are npopt.backend's, the rest has no table")
            return Module(found, f"{path}.")
        if isinstance(found, type) or not callable(found):  # float32, pi, ...
            if path not in rules.TABLE["names"]:
                raise Refused(f"{rules.CUPY} has no {path}")
            return found
        if path not in rules.TABLE["ufuncs"] and path not in rules.TABLE["functions"]:
            raise Refused(f"{rules.CUPY} has no {path}")
        return Function(path, found)


class Strict:
    """The device; register it with backend.DEVICES["strict"] = Strict."""

    records, stores = False, ()
    name = "strict"
    array_type = StrictArray

    def __init__(self):
        self.module = Module(np)
        self.empty = self.workspace = self.module.empty

    def asarray(self, a, dtype=None):
        if isinstance(a, StrictArray):
            return a if dtype is None or a.dtype == dtype else a.astype(dtype)
        inner = np.array(unwrap(a) if isinstance(a, (list, tuple)) else a, dtype=dtype)
        rules.check_result(inner, "asarray")
        note("uploads", inner.size)
        return StrictArray(inner)

    def to_host(self, a):
        note("reads", a.size)
        return a.inner.copy()

    def elementwise(self, formula, arguments, offset):
        called()
        for a in arguments:
            if isinstance(a, np.ndarray):  # numbers, NumPy's too, become arguments of the kernel
                raise Refused(f"{formula.name}: a NumPy array of shape {a.shape} met device arrays")
        formula.on_cpu([a.inner if isinstance(a, StrictArray) else a for a in arguments], offset)

    def kernel(self, pair, arguments):
        called()
        for a in arguments:
            if isinstance(a, np.ndarray) and a.ndim:
                raise Refused(f"{pair.name}: a NumPy array of shape {a.shape} met device arrays")
        plain = [a.inner if isinstance(a, StrictArray) else a for a in arguments]
        return pair.cpu(*plain)

    def norm(self, x):
        called()
        return StrictArray(np.asarray(np.sqrt(np.sum(np.square(x.inner, dtype=np.float64)))))

    def synchronize(self):
        pass

    def memory(self):
        return {"device": 0, "device_peak": 0}
