"""What every optimizer shares: a state that is declared and never written by hand, a step counter, pieces of x.

A method of the user's own may move nothing in its first step. Then `Witness` tells its author.
"""

import dis
import warnings
from collections.abc import Callable
from typing import NamedTuple

from npopt import backend, contracts
from npopt.errors import UserError
from npopt.state import Stateful
from npopt.values import Value, number

import numpy as np


def number_or_array(owner, name, value, **bounds):
    """Check an argument that may be a number or an array like x (one value a coordinate), and return it."""
    if not getattr(value, "ndim", 0):
        return number(owner, name, value, **bounds)
    host = backend.to_host(value)
    number(owner, f"the least of {name}", host.min(), **bounds)
    number(owner, f"the largest of {name}", host.max(), **bounds)
    return value


class Array(NamedTuple):
    """One array of an optimizer's state, for arrays that differ from x. A name alone means "like x".

    shape  a function (segment) -> shape of that segment's part, None where it has none; needs a BySegment:
               lambda s: (1,)                       one number a segment
               lambda s: (-(-s.size // 256),)       one for 256 numbers
               lambda s: (4, s.shape[1])            low rank
    dtype  its name, such as "uint8"; None: x's
    """

    name: str
    shape: Callable | None = None
    dtype: str | None = None


class Optimizer(Value, Stateful):
    """A subclass declares its state and gives the formula for a piece of x, `update(x, g, lr, *arrays)`.

        arrays = ("m", Array("h", dtype="float32"))     names (like x) and Arrays, zero at the start, cut to the piece
        numbers = {"product": 1.0, "first": None}       attributes and their first values; None: not known yet
        parts = ("inner",)                              attributes that have a state of their own, or are None

    start allocates and sets them; they are saved, loaded, checked and counted here. t is one of the numbers. All three
    may be properties; start reads `arrays` once.

    x and the state are written in place, g is only read; self.t counts steps from 1 and is already advanced when
    `update` runs. lr may be an array like x. `options` names the hyper-parameters that may be one, too ("no decay on
    biases"): update takes them after the arrays, cut to the piece. A subclass that needs more than elementwise updates
    overrides `step`. `never_negative` names arrays whose numbers are 0 or more, `by_formulas` those with a shape of
    their own that only formulas touch. `keeper` makes what an array is kept in (quantised.py); None: zeros.
    `proximal`: the method applies the problem's prox, too. An estimator may run two kinds of steps in compiled code.
    `plain`: x <- prox_{lr h}(x - lr g) and nothing else. `heavy`: m <- beta m + g, x <- x - lr m and nothing else, with
    the number `beta` and the array "m".
    """

    arrays = ()
    never_negative = by_formulas = ()
    numbers = {}
    parts = ()
    options = ()
    keeper = None
    proximal = False
    plain = False
    heavy = False

    def start(self, x: contracts.Array, oracle=None) -> None:
        """Allocate state for x, shape (n,); the oracle is the started estimator, which most methods never ask."""
        self.t, self.oracle = 0, oracle
        names = ["t", *(as_array(a).name for a in self.arrays), *self.numbers, *self.parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(
                f"{type(self).__name__}: {', '.join(twice)} stands for two things in arrays, numbers and "
                "parts (t counts the steps); only one would be saved"
            )
        self._slots = {a.name: self.allocate(a, x) for a in map(as_array, self.arrays)}
        vars(self).update(self.numbers)
        self._converted = {}
        for name in self.options:
            value = getattr(self, name)
            if getattr(value, "ndim", 0):
                if value.shape != x.shape:
                    raise UserError(f"{type(self).__name__}: {name} has shape {value.shape}, x has {x.shape}")
                self._converted[name] = backend.asarray(value, x.dtype)

    def allocate(self, array, x):
        """Zeros for an Array."""
        if array.shape is not None:
            raise UserError(f"{type(self).__name__}: {array.name} has a shape for each segment; derive from BySegment")
        if self.keeper is not None and array.dtype is None:
            return self.keeper(array.name, x)
        return backend.xp(x).zeros(x.shape, dtype=array.dtype or x.dtype)

    def restart(self, x: contracts.Array) -> None:
        """Forget the state, in the middle of a run."""
        self.start(x, self.oracle)

    def current(self):
        """The hyper-parameters that `options` names, arrays in x's dtype, on its device."""
        return [self._converted.get(name, getattr(self, name)) for name in self.options]

    def update(self, x: contracts.Array, g: contracts.Array, lr: contracts.Number, *arrays: contracts.Array) -> None:
        raise UserError(f"{type(self).__name__} has no update(self, x, g, lr, {', '.join(self._slots)})")

    def step(self, x: contracts.Array, g: contracts.Array, lr: contracts.Number) -> None:
        """One step. g: an array like x, or its pieces (`visit`); what they leave out is not moved."""
        self.t += 1
        options = self.current()
        if hasattr(g, "dtype"):
            self.update(x, g, lr, *self._slots.values(), *options)
            return

        def take(piece, gradient):
            cut = [v[piece] if getattr(v, "ndim", 0) else v for v in (lr, *self._slots.values(), *options)]
            self.update(x[piece], gradient, *cut)

        visit(g, x.size, take)

    def answer(self, x: contracts.Array) -> contracts.Array:
        """The point to report; x itself unless the method keeps a better one."""
        return x

    def slot(self, name):
        """A state array by its name."""
        return self._slots[name]

    def cut(self, segment):
        """The parts of the state's arrays that belong to a segment of x, as views."""
        return [slot[segment.slice] for slot in self._slots.values()]

    def kept(self):
        parts = {name: getattr(self, name) for name in self.parts}
        return {
            "t": self.t,
            **self._slots,
            **{name: getattr(self, name) for name in self.numbers},
            **{name: part for name, part in parts.items() if part is not None},
        }


def visit(g, size, take):
    """take(slice, piece) for all pieces of a gradient. g is a vector of `size` numbers, an iterator over
    (slice, piece), or what hands them out itself, by g.each(take) (estimators/layerwise.py)."""
    if hasattr(g, "dtype"):
        take(slice(0, size), g)
    elif hasattr(g, "each"):
        g.each(take)
    else:
        for piece, gradient in g:
            take(piece, gradient)


def as_array(declared):
    """An Array from itself or from a name."""
    return Array(declared) if isinstance(declared, str) else declared


class Witness:
    """Looks at the first step of a method that was written outside of npopt, where rate and gradient should move x.

    `x = x - lr * g` in an update gives the name x to a new array. The run would then end where it started, without a
    word. If x is as it was, and the update gives its name x to another array or returns one, that is an error. If it
    does neither, but the state is as it was, too, that is a warning: the method may have a warm-up of its own. A method
    that gathers gradients and moves later is left alone. On a device the answer is one number, read once.
    """

    UPDATES = {"update": 1, "step": 1, "update_segment": 2}  # the place of x among the arguments

    def __init__(self, optimizer, x):
        self.x = x.copy()
        self.state = [leaf.copy() if hasattr(leaf, "copy") else leaf for leaf in leaves(optimizer.state())]

    @staticmethod
    def methods(optimizer):
        """The optimizer and its parts that were written elsewhere."""
        inner = [getattr(optimizer, name) for name in optimizer.parts]
        own = [] if type(optimizer).__module__.startswith("npopt.") else [optimizer]
        return own + [m for part in inner if isinstance(part, Optimizer) for m in Witness.methods(part)]

    def check(self, optimizer, x, g, lr):
        """After the step from the x of the constructor, (n,), along g, (n,), at the rate lr."""
        authors = Witness.methods(optimizer)
        lost = any(loses(type(a), name, place) for a in authors for name, place in Witness.UPDATES.items())
        still = (x == self.x).all() & (abs(lr * g) > float(np.finfo(x.dtype).eps) * abs(x)).any()
        for before, now in () if lost else zip(self.state, leaves(optimizer.state()), strict=True):
            same = now == before
            still = still & (same.all() if hasattr(same, "all") else same)
        if bool(backend.to_host(still)):
            said = (
                f"{type(authors[0]).__name__}: the first step left x as it was, though neither gradient nor rate "
                "is 0; update must write into the array x, as x -= lr * g or x[...] = x - lr * g do, while "
                "x = x - lr * g makes a new array that nobody sees"
            )
            if lost:
                raise UserError(said)
            warnings.warn(said, stacklevel=2)


def leaves(state):
    """Arrays and numbers of a state, in order, without the counts of steps."""
    return [
        leaf
        for name, value in state.items()
        if name != "t"
        for leaf in (leaves(value) if isinstance(value, dict) else [value])
    ]


VIEWS = ("reshape", "ravel", "view", "transpose", "T", "squeeze", "swapaxes")  # of a contiguous x: the same memory


def loses(owner, name, place):
    """Whether a method of a class gives the name of its argument x to another array by `x = ...`, or returns one.

    A view of x, such as x.reshape(4, -1) or x[:4], is no other array: what is written into it is written into x.
    """
    code = getattr(vars(owner).get(name), "__code__", None)
    if code is None or code.co_argcount <= place:
        return False
    x, done = code.co_varnames[place], []
    for op in dis.get_instructions(code):
        if op.opname.startswith("STORE_FAST"):
            stored = op.argval if isinstance(op.argval, tuple) else (op.argval,)
            stored = stored[:1] if "LOAD" in op.opname else stored
            inplace = done[-1].opname == "BINARY_OP" and done[-1].argrepr.endswith("=")
            if x in stored and not inplace and not is_view(done, x):
                return True
        if op.opname == "RETURN_VALUE" and not is_view(done, x):
            if not (done[-1].opname == "LOAD_CONST" and done[-1].argval is None):
                return True
        done.append(op)
    return False


def is_view(done, x):
    """Whether the expression that these instructions end with is x, or a view of it: x.reshape(...), x[a:b].T, ..."""
    last, where = done[-1], (done[-1].positions.lineno, done[-1].positions.col_offset)
    here = [op for op in done if (op.positions.lineno, op.positions.col_offset) == where]  # those that begin with its x
    first = next((op for op in here if op.opname.startswith("LOAD")), last)
    loaded = first.argval if isinstance(first.argval, tuple) else (first.argval,)
    if None in where or not first.opname.startswith("LOAD_FAST") or loaded[0] != x:
        return False
    if last.opname == "BINARY_SUBSCR" and done[-2].opname != "BUILD_SLICE":
        return False  # x[rows] is a copy
    names = [op.argval for op in here if op.opname in ("LOAD_ATTR", "LOAD_METHOD")]
    ends = ("LOAD_FAST", "LOAD_ATTR", "CALL", "BINARY_SUBSCR", "BINARY_SLICE")
    return last.opname.startswith(ends) and set(names) <= set(VIEWS)
