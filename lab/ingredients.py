"""What the key of a run is made of: what is printed, the code that it reaches, the files that it reads.

A key can be trusted only where print says everything. So a recipe's function and all arguments are looked at when the
grid is made, and what has no name, or prints the same for different values, is refused there.
"""

import enum
import functools
import inspect
import os
import sys
import types
from pathlib import PurePath

from npopt import Minibatch, RandomReshuffling, code, identity
from npopt.errors import UserError
from npopt.minimize import code_of_loop
from npopt.schedules import as_schedule
from npopt.values import Value

import numpy as np

PLAIN = (str, bytes, bool, int, float, complex, type(None), PurePath, enum.Enum, range, slice, np.generic, np.dtype)
ADVICE = "give numbers, texts, arrays, lists, tuples, dicts, values of npopt, or functions and classes of a module"


def check_function(where, function):
    """Refuse a recipe's function that is not one of a module, under its own name."""
    wrong = nameless(function) if callable(function) else f"an object of type {type(function).__name__}"
    if wrong:
        raise UserError(
            f"{where}: the first argument must be a function or class of a module, got {wrong}; write def build(n): "
            "... at the left margin, and give what varies as an argument, Recipe(build, n=50)"
        )


def check_value(where, value):
    """Refuse a value that does not print as what it is."""
    for member in identity.members(value):
        wrong = unprintable(member)
        if wrong:
            raise UserError(f"{where}: {wrong} does not print as what it is, so no key could stand for it; {ADVICE}")


def unprintable(value):
    """A value that does not print as what it is, in words; None for other values."""
    if isinstance(value, (*PLAIN, list, tuple, dict, set, frozenset)):
        return None
    if isinstance(value, np.ndarray):
        return "an array of objects" if value.dtype.hasobject else None
    if isinstance(value, Value) or hasattr(type(value), "__dataclass_fields__"):
        return nameless(type(value))
    return nameless(value) if callable(value) else f"a {type(value).__name__}"


def nameless(function):
    """A callable that cannot be found by its name in its module, in words; None for other callables."""
    name = getattr(function, "__qualname__", None)
    if isinstance(function, functools.partial):
        return "a functools.partial"
    if name is None or not isinstance(getattr(function, "__module__", None), str):
        return f"an object of type {type(function).__name__}"
    if "<lambda>" in name:
        return "a lambda"
    if "<locals>" in name:
        return f"{name.replace('.<locals>', '')}, which is made inside a function"
    if isinstance(function, types.MethodType):
        return f"{name}, a method of an object"
    if found_by_name(function, name) not in (function, None):
        return f"{name}, whose name stands for something else by now"
    if function.__module__ == "__main__" and code.home(function) is None:
        return f"{name}, whose text is in no file"
    return None


def found_by_name(function, name):
    """What the name of a function or class stands for in its module; None where that cannot be found out."""
    module = vars(sys.modules[function.__module__]) if function.__module__ in sys.modules else None
    space = getattr(inspect.unwrap(function), "__globals__", module) or {}
    first, *rest = name.split(".")
    found = space.get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found


# ------------------------------------------------------------------------------------------------------------- keys
def of(entry):
    """{"code": a hash, "files": {name: sha256}} of an entry. The code is all that the entry reaches. A file is named by
    an argument of the entry, or by a text in the user's own part of that code."""
    given = [entry.recipe.function, entry.recipe.arguments]
    if entry.run is None:  # with what minimize takes in the place of None
        given += [entry.optimizer, entry.sampler or RandomReshuffling(), as_schedule(entry.schedule)]
        given += [entry.estimator or Minibatch(), entry.vary, entry.stop]
    found = code.reached(identity.roots(*given)) | (code_of_loop() if entry.run is None else {})
    named = {os.fspath(m): m for m in members(given) if isinstance(m, (str, PurePath)) and os.path.isfile(m)}
    named |= code.files(found)
    return {"code": code.digest(found), "files": {name: sha(path) for name, path in named.items()}}


def members(things):
    return [member for thing in things for member in identity.members(thing)]


def sha(path):
    """The sha256 of a file, as it is now."""
    stamp = os.stat(path)
    return sha_at(path, stamp.st_mtime_ns, stamp.st_size)


@functools.lru_cache
def sha_at(path, *stamp):
    from problems.files import digest

    return digest(path)
