"""What a layer is, and what it is told of a pass.

    y, saved = layer.forward(x, run)            saved: a tuple of what backward needs
    dx = layer.backward(dy, saved, run)         writes self.d<name> (None: frozen); returns None where dx is not wanted

A layer holds its parameters and their gradients, which are views into flat vectors (Network.bind). It holds nothing of
a pass, so any number of passes may be on their way. Gradients are written, not added. Backward owns dy and may write
over it; a layer that gives one dy to two others copies it first. Arrays come from backend.empty and go back to its pool
by themselves.

Second derivatives (nn/twice.py). R is the derivative along a direction: R x of the inputs, self.v<name> of parameters.

    ry, kept = layer.tangent(rx, saved, run)    R y. rx None: zero, below the lowest parameter. rx is only read
    noted = layer.note(dy, saved)               what backward_tangent needs of dy, and may keep
    rdx = layer.backward_tangent(rdy, noted, kept, saved, run)      R dx; writes R d<name> to self.d<name>

backward_tangent owns rdy. Pearlmutter, Neural Computation 6, 1994. A layer may do without these three methods.
"""

import copy

from npopt.contracts import Array
from npopt.errors import UserError


class Run:
    """What a layer is told of a pass. Layers read it and never write it.

    training        batch statistics, dropout and augmentation are on
    recalibrating   batch statistics are gathered for evaluation; dropout is off
    backward        backward will be called for this layer, so it has to keep what backward needs
    dx              that call has to return dx
    inplace         x belongs to nobody else: y may take its place, if x has no gaps (run.place)
    seed, step      with a layer's name they fix its draws
    rows            row numbers of the batch, a device array of whole numbers, or None for 0..B-1
    compute         the type of activations, "float16" or "bfloat16"; None for that of the parameters. On a CPU layers
                    are not told (narrow.py)
    pending         what layers leave for the end of the step, {layer: value}; None where nothing is to be remembered
    """

    def __init__(
        self,
        training=False,
        *,
        recalibrating=False,
        backward=False,
        dx=False,
        seed=0,
        step=0,
        rows=None,
        pending=None,
        compute=None,
    ):
        self.training, self.recalibrating, self.backward, self.dx = training, recalibrating, backward or dx, dx
        self.seed, self.step, self.rows, self.pending, self.inplace = seed, step, rows, pending, False
        self.compute, self._asked = compute, {}

    def asking(self, backward: bool, dx: bool, inplace: bool = False) -> "Run":
        """The same pass for a layer with these values of `backward`, `dx` and `inplace`."""
        wanted = bool(backward), bool(backward and dx), inplace
        if wanted == (self.backward, self.dx, self.inplace):
            return self
        if wanted not in self._asked:
            other = self._asked[wanted] = copy.copy(self)
            (other.backward, other.dx, other.inplace), other._asked = wanted, {}
        return self._asked[wanted]

    def place(self, x: Array) -> Array | None:
        """x, where y may be written over it, else None."""
        return x if self.inplace and x.flags.c_contiguous else None

    def remembering(self, pending: dict) -> "Run":
        """The same pass, but its layers leave in the dict `pending` what the end of the step folds in."""
        other = copy.copy(self)
        other.pending, other._asked = pending, {}
        return other

    def left(self, layer: "Layer"):
        """What this layer left before in this step, or None."""
        return self.pending.get(layer) if self.pending is not None else None

    def leave(self, layer: "Layer", value) -> None:
        """Leave a value for layer.commit(value) at the end of the step."""
        if self.pending is not None:
            self.pending[layer] = value


class Layer:
    """One function with its derivative; a subclass has forward and backward, and says in its docstring what it keeps.

    shapes          {name: (shape, kind)} of the parameters; init {name: initialiser}
    reads_output    backward reads what forward returned, so nobody may overwrite it
    view            forward or backward may return (a view of) what it was given
    active          set by Network.bind: a parameter in or below this layer is trained
    two_bytes       on a GPU it takes arrays of float16 and bfloat16; a network with a layer that does not is computed
                    as on a CPU (narrow.py)
    positionwise    in evaluation, y at a position of a text (axis 1) depends on x at that position alone

    A layer with statistics of its own also has state(), load_state(s) and commit(value). commit folds in the value that
    a training pass left by run.leave.
    """

    shapes, init = {}, {}
    reads_output, view, is_block, two_bytes = True, False, False, True
    path, active, positionwise = "", False, False

    def __getattr__(self, name):
        """A parameter or gradient that is held back until the layer asks for it (Network.moved, nn/release.py)."""
        made = self.__dict__.get("made_when_asked")
        if made is None or not (name in self.shapes or name[1:] in self.shapes):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return made(self, name)

    def children(self) -> list[tuple[str, "Layer"]]:
        """[(name, layer)] in forward order; an empty name adds no level to the path."""
        return []

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one row's output for one row's input shape (no batch axis); checks that the input fits."""
        return tuple(shape)

    def fans(self, name: str) -> tuple[int, int]:
        """(fan_in, fan_out) of a parameter, for its initialiser."""
        return 1, 1

    def leaves(self):
        """Every layer below this one, itself included."""
        yield self
        for _, child in self.children():
            yield from child.leaves()

    def forward(self, x: Array, run: Run) -> tuple[Array, tuple]:
        """(y, saved) for inputs x, (B, ...)."""
        raise UserError(f"{type(self).__name__} has no forward(self, x, run)")

    def backward(self, dy: Array, saved: tuple, run: Run) -> Array | None:
        """Write the gradients of the parameters that are not frozen. Returns dx, or None where run.dx is False."""
        raise UserError(f"{type(self).__name__} has no backward(self, dy, saved, run)")

    def tangent(self, rx: Array | None, saved: tuple, run: Run) -> tuple[Array, tuple]:
        """(R y, kept) of the pass that left `saved`; kept is for backward_tangent."""
        raise UserError(f"{type(self).__name__} has no tangent(self, rx, saved, run)")

    def note(self, dy: Array, saved: tuple) -> tuple:
        """What backward_tangent needs of dy. backward gets the same dy next, so what it writes over is copied here."""
        return ()

    def backward_tangent(self, rdy: Array, noted: tuple, kept: tuple, saved: tuple, run: Run) -> Array | None:
        """R dx. This one is right where dx is linear in dy, by numbers that no parameter or input moves."""
        return self.backward(rdy, saved, run)

    def extend(self, x: Array, past) -> Array:
        """y at further positions of texts, x: (B, n, ...), in evaluation. `past`, a State of nn/decoding, has `length`,
        how many positions came before, and what this layer kept of them."""
        return self.forward(x, past.run)[0]

    def extendable(self) -> None:
        """A UserError where this layer cannot extend a text. A layer that asks others to extend asks them, too."""
        if not self.positionwise:
            raise UserError(
                f"{type(self).__name__} cannot extend a text: give it extend(x, past), or positionwise = True where y "
                "at a position depends on x at that position alone"
            )

    def activate(self) -> None:
        """After bind: find out whether a parameter in or below this layer is trained."""
        self.active = any(getattr(self, "d" + name, None) is not None for name in self.shapes)
        for _, child in self.children():
            child.activate()
            self.active = self.active or child.active

    def __repr__(self):
        return f"{type(self).__name__}()"


def named(layer, parameter):
    """The full name of a layer's parameter: "conv1.W", or "W" where the layer is the whole network."""
    return f"{layer.path}.{parameter}" if layer.path else parameter


def sizes(shape):
    """A shape, or a tuple of shapes, as tuples of ints."""
    return tuple(sizes(part) if isinstance(part, (tuple, list)) else int(part) for part in shape)


def cast(a, dtype):
    """Floating arrays, one or a tuple, in this type. Whole numbers stay as they are. If dtype is None, all do."""
    if isinstance(a, tuple):
        return tuple(cast(one, dtype) for one in a)
    return a if dtype is None or a.dtype.kind in "iub" else a.astype(dtype, copy=False)
