"""Compiling the loops of this package with numba: for exact argument types, kept on disk."""

import functools
import hashlib
import inspect
import pathlib
import sys
import uuid

import numba

# Sums over features may be reordered (SIMD); NaN and inf keep their meaning, so one sees that a run has diverged.
LOOSE = {"fastmath": {"reassoc", "contract"}}
OPTIONS = {"error_model": "numpy", "cache": True, **LOOSE}


@functools.cache
def compiled(function, *signature, kind=None):
    """The function for exactly these argument types. Anything else is a TypeError, not another compilation.

    kind: the class of losses that is compiled into it. numba's cache looks at the file of the loop alone. So the name
    under which the loop is kept there holds a hash of all that it is made of. A formula that changed is compiled anew.
    And a loss in somebody's own file does not enter a list that other programs read.
    """
    function.__qualname__ = f"{function.__name__}_{made_of(kind)}"
    return numba.njit(signature, **OPTIONS)(function)


@functools.cache
def made_of(kind):
    """A hash of the sources behind a loop."""
    texts = [path.read_text() for path in sorted((pathlib.Path(__file__).parent / "linear").glob("*.py"))]
    if kind is not None:
        try:
            texts += [kind.__module__, kind.__qualname__]
            inspect.getsource(kind)  # raises where the class stands in no file
            homes = {sys.modules[above.__module__] for above in kind.__mro__}
            files = {home.__file__ for home in homes if getattr(home, "__file__", None)}
            texts += [pathlib.Path(file).read_text() for file in sorted(files)]  # with what formulas call and read
        except (OSError, TypeError):  # written at a prompt: never found again
            texts.append(uuid.uuid4().hex)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
