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


def members(thing, seen=None):
    """The thing, and all that it is made of, each once."""
    seen = {} if seen is None else seen
    if id(thing) not in seen:
        seen[id(thing)] = thing  # it stays alive, so that no other has its id
        yield thing
        for value in (parts(thing) or {}).values():
            yield from members(value, seen)


def roots(*things):
    """The functions and classes that are behind these things."""
    found = [m if named(m) else type(m) for thing in things for m in members(thing)]
    return list(dict.fromkeys(found))


def described(thing):
    """The thing as text: calls of constructors with all that they are made of, and arrays as a hash of their bytes."""
    return _described(thing, (), {})[0]


def _described(thing, above, known):
    """(the text, whether it is the same wherever the thing stands: nothing in it leads back to what is above it).

    known    {id: (a thing, its text)}: layers are arguments and children, so that the way to a deep one forks
             at each level
    """
    if id(thing) in known:
        return known[id(thing)][1], True
    inside, fixed = None if id(thing) in above else parts(thing), id(thing) not in above
    if inside is not None:
        found = {name: _described(value, (*above, id(thing)), known) for name, value in inside.items()}
        fixed = all(same for _, same in found.values())
        text = f"{type(thing).__name__}({', '.join(f'{name}={words}' for name, (words, _) in found.items())})"
    elif getattr(thing, "shape", None) is not None and hasattr(thing, "dtype"):
        text = printed(backend.to_host(thing))
    else:
        text = type(thing).__name__ if type(thing).__repr__ is object.__repr__ else printed(thing)
    if fixed:
        known[id(thing)] = thing, text  # it stays alive, so that no other has its id
    return text, fixed


def of_problem(problem):
    """A hash of what a problem is made of."""
    return hashlib.sha256(described(problem).encode()).hexdigest()[:16]
