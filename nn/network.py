"""The network: names for the parameters of its layers, their views into flat vectors, passes, statistics."""

import contextlib

from npopt import backend
from npopt.directions import as_direction
from npopt.errors import UserError
from npopt.segments import Segments

import numpy as np

from . import narrow
from .layer import cast, named, sizes
from .release import Release


class Network:
    """A layer with names for its parameters: `segments`, `x0`, `bind`, `forward`, `backward`, and batch statistics.

    layer          usually a Sequential
    input_shape    shape of one row, without the batch axis: (784,) or (28, 28, 1); a tuple of shapes where the layer
                   takes a tuple of arrays
    share          {"head.W": "embed.W"}: the first name uses the second one's segment. In backward order the first user
                   writes into g, the others write into scratch that `backward` adds.

    A segment's block is the outermost Residual around it, or else the network's top-level child.
    """

    recordable = True  # what its passes launch may be recorded and replayed: not while their layers are timed

    def __init__(self, layer, input_shape, name=None, share=None):
        self.layer, self.input_shape, self.name = layer, sizes(input_shape), name or "network"
        self.share = dict(share or {})
        self.output_shape = tuple(layer.output_shape(self.input_shape))
        self.users = {}  # segment name: [(layer, parameter)] in forward order
        entries, seen = [], {}
        for child, path, block in self._walk(layer, "", None):
            if id(child) in seen:
                raise UserError(
                    f"Network: {child!r} occurs twice, as {seen[id(child)]!r} and {path!r}; make two layers and share "
                    "their parameters by share={...}"
                )
            seen[id(child)], child.path = path, path
            for parameter, (shape, kind) in child.shapes.items():
                full = named(child, parameter)
                target = self.share.get(full, full)
                if target == full:
                    entries.append((full, tuple(shape), kind, block or parameter))
                self.users.setdefault(target, []).append((child, parameter))
        self.segments = Segments.of(*entries)
        for target, users in self.users.items():
            segment = self.segments.find(target)
            for child, parameter in users:
                if tuple(child.shapes[parameter][0]) != segment.shape:
                    raise UserError(
                        f"Network: {child.path}.{parameter} has shape {child.shapes[parameter][0]} and "
                        f"cannot share {target} of shape {segment.shape}"
                    )
        self.owners = {user: self.segments.find(name) for name, users in self.users.items() for user in users}
        self.dim = self.segments.dim
        self.two_bytes = all(leaf.two_bytes for leaf in layer.leaves())
        self.keepers = [leaf for leaf in layer.leaves() if hasattr(leaf, "commit")]
        self.pending, self.sums = None, {}
        self._x = self._g = self._active = None
        self._probe = ()
        self._where = "unbound"

    def _walk(self, layer, path, residual):
        """(layer, path, block) for every layer, parents first."""
        if layer.is_block and residual is None:
            residual = path
        yield layer, path, path.split(".")[0] if residual is None else residual
        for name, child in layer.children():
            yield from self._walk(child, f"{path}.{name}" if path and name else path or name, residual)

    # --- parameters ----------------------------------------------------------------------------------------------

    def x0(self, rng, dtype="float32"):
        """Initial parameters, (dim,), on the device in use; rng is a NumPy Generator, used in the order of segments."""
        x = np.empty(self.dim, dtype)
        for segment in self.segments:
            layer, parameter = next(user for user in self.users[segment.name] if named(*user) == segment.name)
            fan_in, fan_out = layer.fans(parameter)
            x[segment.slice] = layer.init[parameter](rng, segment.shape, fan_in, fan_out, dtype).reshape(-1)
        return backend.asarray(x)

    def bind(self, x, g=None, active=None, compact=False):
        """Point every parameter view into x, (dim,), and every gradient view into g.

        active: names of segments that are trained (None: all); the others get a gradient of None. With compact, g holds
        the active segments alone, in order. g may be a Release (nn/release.py): then there is no vector. Nothing
        happens when x, g and active are those of the last call.
        """
        same = x is self._x and g is self._g and (active is self._active or active == self._active)
        if same and all(getattr(*user) is view for *user, view in self._probe):  # another network may share a layer
            return
        if x.shape != (self.dim,):
            raise UserError(f"{self.name}: x must have shape ({self.dim},), got {tuple(x.shape)}")
        where = frozenset() if g is None else frozenset(active) if active is not None else None
        released = isinstance(g, Release)
        if g is not None and not released:
            length = self.dim
            if compact and active is not None:
                length = sum(s.size for s in self.segments if s.name in where)
            if g.shape != (length,) or g.dtype != x.dtype:
                raise UserError(
                    f"{self.name}: g must be {x.dtype} of shape ({length},), got {g.dtype} {tuple(g.shape)}"
                )
        unknown = [name for name in where or () if name not in self.users]
        if unknown:
            raise UserError(f"{self.name}: no segment is named {unknown[0]!r}; there are {', '.join(self.users)}")
        sums, start, self._probe = {}, 0, ()
        for name, begin, stop, shape, _, _ in self.segments:
            view, gradient = x[begin:stop].reshape(shape), None
            if released and (where is None or name in where):
                gradient = g
            elif g is not None and (where is None or name in where):
                first = start if compact else begin
                gradient = g[first : first + stop - begin].reshape(shape)
                start += stop - begin
            *others, (layer, parameter) = self.users[name]
            setattr(layer, parameter, view)
            setattr(layer, "d" + parameter, gradient)
            for i, (layer, parameter) in enumerate(others):
                setattr(layer, parameter, view)
                extra = g if gradient is g else None
                if gradient is not None and gradient is not g:
                    extra = self.sums.get((name, i))
                    if extra is None or extra.dtype != x.dtype:
                        extra = backend.empty(shape, x.dtype)
                    sums[name, i] = extra
                setattr(layer, "d" + parameter, extra)
            self._probe = self._probe or ((*self.users[name][-1], view),)
        self.sums, self._x, self._g, self._active = sums, x, g, active
        if where != self._where:
            self.layer.activate()
            self._where = where

    @contextlib.contextmanager
    def moved(self, a, direction):
        """Within it passes run at x + a z, x being the vector of the last bind, which is only read: a layer's
        parameters are made when it asks for them, and go when the next layer asks for its own. Only for passes that do
        not go back.
        """
        x, direction, held = self._x, as_direction(direction), {}

        def made(layer, parameter):
            if held.get("layer") is not layer:
                held.clear()
                held["layer"] = layer
            if parameter not in held:
                segment = self.owners[layer, parameter]
                piece = backend.empty((segment.size,), x.dtype)
                piece[...] = x[segment.slice]
                direction.add(piece, a, segment)
                held[parameter] = piece.reshape(segment.shape)
            return held[parameter]

        for layer, parameter in self.owners:
            delattr(layer, parameter)
            layer.made_when_asked = made
        try:
            yield
        finally:
            for layer, parameter in self.owners:
                layer.made_when_asked = None
                segment = self.owners[layer, parameter]
                setattr(layer, parameter, x[segment.slice].reshape(segment.shape))
            self._x = None  # these views are new: the next bind makes its own

    # --- passes --------------------------------------------------------------------------------------------------

    def forward(self, inputs, run):
        """(outputs, saved): outputs, (B, *output_shape), of inputs, (B, *input_shape); saved is for backward.

        run.backward=False keeps nothing; run.dx promises that backward is to return the gradient of the inputs. Several
        passes may be on their way before the first goes back.
        """
        found = tuple(tuple(a.shape[1:]) for a in inputs) if isinstance(inputs, tuple) else tuple(inputs.shape[1:])
        if found != self.input_shape:
            raise UserError(f"{self.name}: a row of inputs must have shape {self.input_shape}, got {found}")
        left, part = None, self.part(run)
        if run.training and self.pending is None and run.pending is None:
            left = {}  # a step's first training pass leaves what commit folds in
            part = self.part(run.remembering(left))
        if narrow.narrow(self, run):
            y, saved = narrow.forward(self, inputs, part)
        else:
            y, saved = self.layer.forward(cast(inputs, run.compute), part)
        self.pending = self.pending if left is None else left
        return cast(y, run.compute and self._x.dtype), saved

    def backward(self, dy, saved, run):
        """Write g for the pass that returned `saved`. Returns the gradient of its inputs, or None. dy may be
        overwritten.

        What the layers kept is freed layer by layer, if the caller has no reference to `saved` of its own.
        """
        stack = [saved]
        del saved
        if not getattr(dy.flags, "writeable", True):
            dy = dy.copy()
        here = self.part(run)
        if run.backward and not here.backward and self._g is None:
            raise UserError(
                f"{self.name}: since this pass went forward the network was bound without a gradient; "
                "bind it to x and g again before the pass goes back"
            )
        kind, dx = dy.dtype, None
        if here.backward and narrow.narrow(self, run):
            dx = narrow.backward(self, dy, stack.pop(), here)
        elif here.backward:
            dx = self.layer.backward(cast(dy, run.compute), stack.pop(), here)
        self.add_shared()
        return dx if dx is None else cast(dx, run.compute and kind)

    def add_shared(self):
        """What the users of a shared parameter wrote, summed up."""
        for (name, _), extra in self.sums.items():
            layer, parameter = self.users[name][-1]
            total = getattr(layer, "d" + parameter)
            backend.xp(total).add(total, extra, out=total)

    @property
    def bound_type(self):
        """The type of the vector x that the network is bound to."""
        return self._x.dtype

    def part(self, run):
        return run.asking(run.backward and (run.dx or self.layer.active), run.dx)

    # --- what passes leave -----------------------------------------------------------------------------------------

    def begin(self):
        """A new step: forget what passes left; the next training pass leaves its own."""
        self.pending = None

    def commit(self):
        """Fold what the step's first training pass left into the layers' state, such as running statistics."""
        for layer, left in (self.pending or {}).items():
            layer.commit(left)
        self.pending = None

    def recalibrate(self, gathered):
        """Replace running statistics by those that recalibrating passes left in the dict `gathered`, their pending."""
        for layer, left in gathered.items():
            layer.recalibrate(left)

    @property
    def recalibrates(self):
        """Whether the network has statistics that can be gathered anew."""
        return any(hasattr(layer, "recalibrate") for layer in self.keepers)

    def state(self):
        """The layers' state by their names, NumPy arrays."""
        return {layer.path: layer.state() for layer in self.keepers}

    def load_state(self, state):
        for layer in self.keepers:
            layer.load_state(state[layer.path])

    def __repr__(self):
        return f"Network({self.layer!r}, input_shape={self.input_shape}, name={self.name!r})"
