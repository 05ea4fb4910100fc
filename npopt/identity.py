"""What decides a run's numbers: the code that it reaches, and what its problem is made of, each as a short hash.

The store's keys hold the first hash, checkpoints hold both. An object is described by those arguments of its
constructor that it keeps under their own names. An object that keeps them otherwise has a method `ingredients()`, which
returns a dict of what it is made of.
"""

import dataclasses
import hashlib
from collections.abc import Mapping

from npopt import backend, code
from npopt.values import Value, arguments_of, printed


def named(thing):
    """Whether it is a class, or a function, compiled and decorated ones too."""
    return isinstance(thing, type) or callable(thing) and hasattr(thing, "__qualname__")


def parts(thing):
    """{name: value} of what a thing is made of. None for things without parts: numbers, texts, arrays, functions."""
    if isinstance(thing, Mapping):
        return {printed(name): value for name, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return dict(enumerate(thing))
    if isinstance(thing, (set, frozenset)):
        return dict(enumerate(sorted(thing, key=printed)))
    if named(thing) or not hasattr(thing, "__dict__"):
        return None
    if hasattr(thing, "indptr"):  # a sparse matrix
        return {name: getattr(thing, name) for name in ("shape", "indptr", "indices", "data")}
    if hasattr(thing, "ingredients"):
        return thing.ingredients()
    if isinstance(thing, Value):
        return thing.arguments()
    if dataclasses.is_dataclass(thing):
        return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
    if code.home(type(thing)) is None:
        return None
    more = {"children": thing.children()} if hasattr(thing, "children") else {}  # layers
    return arguments_of(thing) | more


def members(thing, above=()):
    """The thing, and all that it is made of."""
    yield thing
    if id(thing) not in above:
        for value in (parts(thing) or {}).values():
            yield from members(value, (*above, id(thing)))


def roots(*things):
    """The functions and classes that are behind these things."""
    found = [m if named(m) else type(m) for thing in things for m in members(thing)]
    return list(dict.fromkeys(found))


def described(thing, above=()):
    """The thing as text: calls of constructors with all that they are made of, and arrays as a hash of their bytes."""
    inside = None if id(thing) in above else parts(thing)
    if inside is not None:
        words = (f"{name}={described(value, (*above, id(thing)))}" for name, value in inside.items())
        return f"{type(thing).__name__}({', '.join(words)})"
    if getattr(thing, "shape", None) is not None and hasattr(thing, "dtype"):
        return printed(backend.to_host(thing))
    return type(thing).__name__ if type(thing).__repr__ is object.__repr__ else printed(thing)


def of_problem(problem):
    """A hash of what a problem is made of."""
    return hashlib.sha256(described(problem).encode()).hexdigest()[:16]
