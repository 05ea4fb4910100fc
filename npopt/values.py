"""Values: objects that are what their constructor was given. So they can be printed, compared, copied and hashed."""

import dataclasses
import functools
import inspect
import math

from npopt.errors import UserError

import numpy as np


class Value:
    """Base of samplers, schedules, estimators, optimizers, initialisers.

    A subclass's constructor checks its arguments and stores each under its own name, and does nothing else. The printed
    form is then the call that makes the object, with every argument, defaults too: a results store can use it as a key.
    What `start` allocates is not part of the value: it is neither printed nor compared.
    """

    def arguments(self):
        """The constructor's arguments as a dict, in order."""
        found = {}
        if type(self).__init__ is object.__init__:
            return found
        for name, parameter in parameters(type(self).__init__).items():
            if name == "self":
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                found.update({f"*{i}": value for i, value in enumerate(getattr(self, name))})
            else:
                found[name] = getattr(self, name)
        return found

    def __repr__(self):
        parts = [printed(v) if k.startswith("*") else f"{k}={printed(v)}" for k, v in self.arguments().items()]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __eq__(self, other):
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self):
        return hash(repr(self))


@functools.cache
def parameters(function):
    """{name: inspect.Parameter} of a function; a network asks for those of one constructor thousands of times."""
    return inspect.signature(function).parameters


def arguments_of(thing):
    """{name: value} of the arguments of an object's constructors that it keeps under their own names."""
    names = {}
    for kind in type(thing).__mro__[:-1]:
        if "__init__" in vars(kind):
            names |= dict.fromkeys(parameters(kind.__init__))
    return {name: vars(thing)[name] for name in names if name in vars(thing)}


def printed(value):
    """repr(value), exact and short also for arrays: dtype, shape and a hash of the bytes."""
    if isinstance(value, np.ndarray) and value.ndim:
        import hashlib

        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        return f"array({value.dtype}, {value.shape}, {digest})"
    if isinstance(value, (np.generic, np.ndarray)):  # of Python's own kinds of numbers, or of one that rounds otherwise
        ours = value.dtype in (np.float64, np.int64, np.bool_) or value.dtype.kind == "U"
        return repr(value.item()) if ours else f"{value.dtype}({value.item()!r})"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(printed(v) for v in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    if isinstance(value, (set, frozenset)):  # whose own order differs from process to process
        return f"{type(value).__name__}({', '.join(sorted(map(printed, value)))})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = ", ".join(f"{f.name}={printed(getattr(value, f.name))}" for f in dataclasses.fields(value))
        return f"{type(value).__qualname__}({inside})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {printed(v)}" for k, v in value.items()) + "}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def number(owner, name, value, low=None, high=None, open_low=False, open_high=False):
    """Check a scalar argument and return it; the error names owner, range and what came. NaN and inf never pass."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        x = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{owner}: {name} must be a number, got {value!r}") from None
    inside = math.isfinite(x)
    inside = inside and (low is None or (x > low if open_low else x >= low))
    inside = inside and (high is None or (x < high if open_high else x <= high))
    if not inside:
        left = "(-inf" if low is None else f"{'(' if open_low else '['}{low:g}"
        right = "inf)" if high is None else f"{high:g}{')' if open_high else ']'}"
        raise UserError(f"{owner}: {name} must lie in {left}, {right}, got {value!r}")
    return value


def whole(owner, name, value, low=1):
    """Check a whole-number argument and return it as an int."""
    try:
        fits = not isinstance(value, bool) and int(value) == value and value >= low
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise UserError(f"{owner}: {name} must be a whole number of at least {low}, got {value!r}")
    return int(value)


def pair(owner, name, value, low=1):
    """Check a whole number or a pair of them, and return a pair."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise UserError(f"{owner}: {name} must be a number or a pair, got {value!r}")
    return tuple(whole(owner, name, v, low) for v in both)
