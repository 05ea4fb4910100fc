"""numba functions for loops: those that become part of their caller, and those that are compiled once and called.

numba puts whatever a function calls into it, and compiles all of that again there. The body of a `prange` it compiles
three times. A register block is thousands of instructions, and a dozen loops have one: so most of the time of a first
run went into the same code again and again. A function of `once` is compiled once for its types. Other functions know
its name alone, and LLVM finds its address when they are loaded, from numba's cache too. A call costs some nanoseconds,
more with many arrays. So the body of a long loop is such a function, and what is done a few hundred times in a
microsecond is not.
"""

import functools
import hashlib
import inspect
import pathlib

import numba
from llvmlite import binding
from numba.core import caching, cgutils, types
from numba.extending import intrinsic

PREFIX = "npopt.once."
KNOWN = {}  # the functions of `once` by their names
PLACED = {}  # symbol -> (name, argument types, compiled function): LLVM knows these addresses


class Entries(caching.CompileResultCacheImpl):
    """What the cache keeps of a function: its code, and which functions of `once` it calls."""

    def reduce(self, compiled):
        named = [f.name for f in compiled.library._final_module.functions if f.name.startswith(PREFIX)]
        return [(symbol, *PLACED[symbol][:2]) for symbol in named], super().reduce(compiled)

    def rebuild(self, context, kept):
        called, rest = kept
        for symbol, name, arguments in called:
            if KNOWN[name](arguments)[0] != symbol:  # it stands in a folder that has changed: cache.py drops the caller
                raise LookupError(name)
        return super().rebuild(context, rest)


class Cache(caching.FunctionCache):
    """numba's cache on disk. Its entries are dropped when any file of the function's folder changes, because loops
    contain code of its neighbours, which numba does not look at."""

    _impl_class = Entries

    def __init__(self, function):
        super().__init__(function)
        self.digest = digest(pathlib.Path(function.__code__.co_filename).parent)

    def _index_key(self, signature, codegen):
        return (*super()._index_key(signature, codegen), self.digest)


@functools.cache
def digest(folder):
    """A hash of the sources in a folder."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).hexdigest()


def compiled(**options):
    """numba.njit with that cache."""

    def decorate(function):
        dispatcher = numba.njit(error_model="numpy", **options)(function)
        dispatcher._cache = Cache(function)
        return dispatcher

    return decorate


jit, inside = compiled(parallel=True), compiled()
spread = compiled(forceinline=True)  # part of the loop that calls it: constants that it is given stay constants


def once(function=None, *, bare=False, **options):
    """A function for numba functions to call, compiled once for its types. bare: it sees an array of one axis as a
    pointer to its numbers; all else about an array costs time at each call.
    """
    if function is None:
        return functools.partial(once, bare=bare, **options)
    name = f"{function.__module__}.{function.__qualname__}"
    dispatcher = compiled(no_cpython_wrapper=bare, **options)(function)

    def placed(arguments):
        """(symbol, signature) of the function for these types, compiled and known to LLVM."""
        known = name, arguments, dispatcher._cache.digest
        symbol = PREFIX + hashlib.sha256(repr(known).encode()).hexdigest()[:32]
        if symbol not in PLACED:
            dispatcher.compile(arguments)
            found = dispatcher.overloads[arguments]
            address = found.library.get_pointer_to_function(found.fndesc.llvm_func_name)
            binding.add_symbol(symbol, address)
            PLACED[symbol] = name, arguments, found
        return symbol, PLACED[symbol][2].signature

    KNOWN[name] = placed

    def call(typing, *given):
        passed = tuple(pointer(types.unliteral(kind)) if bare else types.unliteral(kind) for kind in given)
        symbol, signature = placed(passed)

        def emit(context, builder, typed, values):
            kinds = context.call_conv.get_function_type(signature.return_type, passed)
            f = cgutils.get_or_insert_function(builder.module, kinds, symbol)
            values = [
                context.make_array(a)(context, builder, value).data if a != b else value
                for a, b, value in zip(typed.args, passed, values, strict=True)
            ]
            status, found = context.call_conv.call_function(builder, f, signature.return_type, passed, values)
            with cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return found

        return signature.return_type(*map(types.unliteral, given)), emit

    names = [inspect.Parameter("typing", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    call.__signature__ = inspect.Signature([*names, *inspect.signature(function).parameters.values()])
    call.__name__, call.__qualname__, call.__doc__ = function.__name__, function.__qualname__, function.__doc__
    found = intrinsic(call)
    found.dispatcher = dispatcher  # to call it from Python, unless it is bare
    return found


def pointer(kind):
    """The type of a pointer to the numbers of an array of one axis; other types as they are."""
    if not isinstance(kind, types.Array) or kind.ndim > 1:
        return kind
    if kind.layout == "A":
        raise TypeError("a function of `once` takes arrays whose numbers lie together")
    return types.CPointer(kind.dtype)
