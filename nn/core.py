"""Layers, composites and the network that binds their parameters to flat vectors; the context of a pass.

A layer owns no parameters. `shapes` names them; `Network.bind(x, g)` points every parameter view into the flat vector x
and every gradient view into g. `forward(x, ctx)` keeps only what `backward(dy)` needs, and `backward` *writes* the
gradients (backward twice gives the same g). A gradient view of None means frozen.

Memory. A pass takes its arrays from the context:

    ctx.buffer(layer, name, shape, dtype)    the same memory from step to step where the layer's backward will need it,
                                             else lent from a pool and taken back once the next layer has read it
    ctx.lasting(owner, name, shape, dtype)   the same memory from step to step
    ctx.scratch(name, shape, dtype)          one workspace for all layers, valid inside one call

All are uninitialised, grow to the largest size seen, and are handed out as views, so that a step allocates nothing
after the first. What a network returns, and what its backward pass needs, is valid until the next pass of any network
with the same context.
"""

from math import prod

from npopt import backend
from npopt.segments import Segments


class Context:
    """What a pass knows: the mode, the draws (seed, step, the batch's row numbers), and the memory.

    training        batch statistics, dropout and augmentation are on
    recalibrating   batch statistics are accumulated for evaluation; dropout is off
    seed, step      with a layer's name they fix its draws
    rows            row numbers of the batch, a device array of whole numbers, or None for 0..B-1

    During a pass the composites set, layer by layer: `keep` (this layer's backward will be called), `dx` (it will be
    asked for dx), `overwrite` (its input may be overwritten), `track` (this pass's statistics are to be remembered);
    and on the way back `spare` (dy may be overwritten).
    """

    def __init__(self, seed=0):
        self.training, self.recalibrating, self.seed, self.step, self.rows = False, False, seed, 0, None
        self.keep = self.dx = self.overwrite = self.track = self.spare = False
        self.owned, self.free, self.lent, self.habit, self.widest, self.heirs = {}, [], {}, {}, {}, []

    def buffer(self, layer, name, shape, dtype):
        """An array for a layer: lasting where its backward will read it, else lent."""
        size, key = prod(shape), (id(layer), name)
        self.widest[dtype] = max(self.widest.get(dtype, 0), size)
        if self.keep:
            return self.lasting(layer, name, shape, dtype)
        flat = self._take(key, size, dtype)
        self.lent.setdefault(id(layer), []).append(flat)
        return flat[:size].reshape(shape)

    def lasting(self, owner, name, shape, dtype):
        """The same memory from step to step, for this owner and name."""
        return self._own((id(owner), name), shape, dtype)

    def scratch(self, name, shape, dtype):
        """Workspace shared by all layers: valid until the caller returns."""
        return self._own(name, shape, dtype)

    def ones(self, count, dtype):
        """A row of ones, (1, count): its product with a matrix is the sum over rows, by BLAS."""
        flat = self.owned.get(("ones", dtype))
        if flat is None or flat.size < count:
            flat = self.owned["ones", dtype] = backend.empty((count,), dtype)
            flat[...] = 1
        return flat[:count].reshape(1, count)

    def zeros(self, count, dtype):
        """(count,) zeros, to read."""
        flat = self.owned.get(("zeros", dtype))
        if flat is None or flat.size < count:
            flat = self.owned["zeros", dtype] = backend.zeros((count,), dtype)
        return flat[:count]

    def zeroed(self, owner, shape, dtype):
        """Lasting memory that is zero when it is made; what stays zero after that is up to its user."""
        flat = self.owned.get((owner, dtype))
        if flat is None or flat.size != prod(shape):
            flat = self.owned[owner, dtype] = backend.zeros((prod(shape),), dtype)
        return flat.reshape(shape)

    def release(self, layers, but=None, heir=None):
        """Take back what these layers were lent; the memory of the array `but` goes over to the layer `heir`."""
        kept = None if but is None else root(but)
        for layer in layers:
            for leaf in layer.leaves:
                for flat in self.lent.pop(id(leaf), ()):
                    if flat is kept:
                        self.lent.setdefault(id(heir), []).append(flat)
                    else:
                        self.free.append(flat)

    def adopt(self, array):
        """A token, to be released like a layer, to which the memory of this array is lent from now on."""
        memory, heir = root(array), Layer()
        for flats in self.lent.values():
            for i, flat in enumerate(flats):
                if flat is memory:
                    del flats[i]
                    self.lent[id(heir)] = [memory]
                    self.heirs.append(heir)             # it lives as long as its entry
                    return heir
        return heir

    def reclaim(self):
        """Take back everything that was lent: the start of a pass."""
        for arrays in self.lent.values():
            self.free += arrays
        self.lent.clear()
        self.heirs.clear()

    def _own(self, key, shape, dtype):
        size = prod(shape)
        flat = self.owned.get(key)
        if flat is None or flat.size < size or flat.dtype != dtype:
            flat = self.owned[key] = None               # the old one goes before the new one comes
            flat = self.owned[key] = backend.empty((size,), dtype)
        return flat[:size].reshape(shape)

    def _take(self, key, size, dtype):
        # The array this caller had last time, else the smallest free one that fits, else a new one in place of the
        # largest that does not: the number of arrays stays what one pass needs at once.
        last = self.habit.get(key)
        best = worst = None
        for i, flat in enumerate(self.free):
            if flat.dtype != dtype:
                continue
            if flat.size >= size:
                if flat is last:
                    best = i
                    break
                if best is None or flat.size < self.free[best].size:
                    best = i
            elif worst is None or flat.size > self.free[worst].size:
                worst = i
        if best is not None:
            flat = self.free.pop(best)
        else:
            if worst is not None:
                self.habit = {k: v for k, v in self.habit.items() if v is not self.free[worst]}
                del self.free[worst]
            flat = backend.empty((self.widest[dtype],), dtype)          # room for every layer, so that it need not grow
        self.habit[key] = flat
        return flat


def root(array):
    """The array whose memory this one shows."""
    while array.base is not None:
        array = array.base
    return array


class Layer:
    """One function with its derivative.

    shapes          {name: (shape, kind)} of the parameters; init {name: initialiser}
    needs_output    backward reads what forward returned, so that nobody may overwrite it
    view            forward or backward may return (a view of) what it was given
    rectifier       it is y = max(x, 0)
    merges          forward(x, ctx, skip, rectify, onto) makes y = f(x) + skip, or the larger of that and 0 where
                    `rectify` is set, in its own passes over memory; `onto`: y may take the place of skip.
                    backward(dy, need_dx, ds) fills ds, unless None, with what flows back to skip; ds may be dy
    """

    shapes, init = {}, {}
    needs_output, view, is_block, rectifier, merges = True, False, False, False, False
    path, active = "", False

    def children(self):
        """[(name, layer)] in forward order; an empty name adds no level to the path."""
        return []

    def output_shape(self, shape):
        """Shape of one row's output for one row's input shape (no batch axis); checks that the input fits."""
        return tuple(shape)

    def fans(self, name):
        """(fan_in, fan_out) of a parameter, for its initialiser."""
        return 1, 1

    @property
    def leaves(self):
        """Every layer below this one, itself included."""
        if "_leaves" not in self.__dict__:
            self._leaves = [self] + [leaf for _, child in self.children() for leaf in child.leaves]
        return self._leaves

    def forward(self, x, ctx):
        """y for inputs x, (B, ...)."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def backward(self, dy, need_dx=True):
        """Write the gradients of the parameters that are not frozen; dx, or None where it is not needed.

        dx is new memory of ctx, or dy itself overwritten where ctx.spare allows that, or (a view of) dy where the layer
        is a `view`. A composite that gives dy to two layers clears ctx.spare before the first of them.
        """
        raise TypeError(f"{type(self).__name__} has no backward")

    def activate(self):
        """After bind: `active` says whether a parameter in or below this layer is trained."""
        self.active = any(getattr(self, "d" + name, None) is not None for name in self.shapes)
        for _, child in self.children():
            child.activate()
            self.active = self.active or child.active

    def __repr__(self):
        return f"{type(self).__name__}()"


class Sequential(Layer):
    """Layers one after the other. Positional children are named "0", "1", ...; keyword children by their keyword.

    y = f_n(...f_1(x)), so dx = J_1' ... J_n' dy, taken from the right. Backward stops at the lowest layer with a
    trained parameter unless dx is wanted; layers below that one keep nothing. A rectifier behind a layer that merges is
    that layer's work.
    """

    def __init__(self, *layers, **named):
        self.names = [str(i) for i in range(len(layers))] + list(named)
        self.layers = list(layers) + list(named.values())
        for name, layer in zip(self.names, self.layers, strict=True):
            if not isinstance(layer, Layer):
                raise ValueError(f"Sequential: child {name} must be a Layer, got {layer!r}")
        self.view = all(layer.view for layer in self.layers)
        self.merged = [i > 0 and layer.rectifier and self.layers[i - 1].merges for i, layer in enumerate(self.layers)]
        self.merges = bool(self.layers) and self.layers[-1].merges
        self.needs_output = self.view or self.layers[-1].view or self.layers[-1].needs_output
        self.lowest = 0

    def children(self):
        return list(zip(self.names, self.layers, strict=True))

    def output_shape(self, shape):
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return tuple(shape)

    def activate(self):
        super().activate()
        trained = [i for i, layer in enumerate(self.layers) if layer.active]
        self.lowest = trained[0] if trained else len(self.layers)

    def forward(self, x, ctx, skip=None, rectify=False, onto=False):
        self.ctx, keep, dx, held, previous, last = ctx, ctx.keep, ctx.dx, [], None, len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            if self.merged[i]:
                previous = layer
                continue
            ctx.keep, ctx.dx = keep and (dx or i >= min(self.lowest, last)), keep and (dx or i > self.lowest)
            ctx.overwrite = previous is not None and not previous.needs_output
            if layer.merges and i == last:
                x = layer.forward(x, ctx, skip, rectify, onto)
            elif layer.merges:
                x = layer.forward(x, ctx, None, self.merged[i + 1])
            else:
                x = layer.forward(x, ctx)
            if not layer.view:                          # the input was read; where backward needs it, it stays lent
                if not ctx.keep:
                    ctx.release(held)
                held = []
            held.append(layer)
            previous = layer
        ctx.keep, ctx.dx, ctx.overwrite = keep, dx, False
        return x

    def backward(self, dy, need_dx=True, ds=None):
        last, ctx = len(self.layers) - 1, self.ctx
        held = [ctx.adopt(dy)] if ctx.spare and not self.view else []          # nobody else will read dy
        lowest = 0 if need_dx else self.lowest if ds is None else min(self.lowest, last)
        for i in range(last, lowest - 1, -1):
            layer, below = self.layers[i], need_dx or i > self.lowest
            if self.merged[i]:
                continue
            if layer.merges and i == last:
                dy = layer.backward(dy, below, ds)
            else:
                dy = layer.backward(dy, below)
            if not layer.view:                          # dy is new, or is the old one overwritten
                ctx.release(held, dy, layer)
                held, ctx.spare = [], True
            held.append(layer)
        return dy if need_dx else None

    def __repr__(self):
        parts = [repr(c) if name.isdigit() else f"{name}={c!r}" for name, c in self.children()]
        return f"Sequential({', '.join(parts)})"


class Residual(Layer):
    """y = act(block(x) + shortcut(x)); no shortcut means x itself, no activation means the sum.

    With s = block(x) + shortcut(x) and ds = act'(s) dy:    dx = J_block' ds + J_shortcut' ds.
    The names of the block's children stand directly under this layer's, those of the shortcut under "shortcut". Where
    the block's last layer merges, it adds the shortcut and rectifies.
    """

    is_block = True

    def __init__(self, block, shortcut=None, activation=None):
        self.block, self.shortcut, self.activation = block, shortcut, activation
        self.merged = block.merges and (activation is None or activation.rectifier)

    def children(self):
        found = [("", self.block), ("shortcut", self.shortcut), ("activation", self.activation)]
        return [(name, layer) for name, layer in found if layer is not None]

    def output_shape(self, shape):
        out = tuple(self.block.output_shape(shape))
        other = tuple(shape) if self.shortcut is None else tuple(self.shortcut.output_shape(shape))
        if out != other:
            raise ValueError(
                f"Residual: the block makes {out} of {tuple(shape)}, the shortcut {other}; give a shortcut layer that "
                "makes the same shape"
            )
        return out

    def forward(self, x, ctx):
        self.ctx, keep, dx, skip = ctx, ctx.keep, ctx.dx, x
        inner = [layer for layer in (self.block, self.shortcut) if layer is not None]
        if self.shortcut is not None:
            ctx.keep, ctx.overwrite = keep and (dx or self.shortcut.active), False
            skip = self.shortcut.forward(x, ctx)
        through, beside = dx or self.block.active, self.shortcut is not None and self.shortcut.active
        ctx.keep, ctx.overwrite = keep and (through or self.merged and beside), False
        if self.merged:
            onto = self.shortcut is not None and not self.shortcut.view and not self.shortcut.needs_output
            y = self.block.forward(x, ctx, skip, self.activation is not None, onto)
        else:
            y = self.block.forward(x, ctx)
            ctx.keep = keep
            total = ctx.buffer(self, "y", y.shape, y.dtype)
            backend.xp(y).add(y, skip, out=total)
            y = total
            if not keep:
                ctx.release(inner)
            if self.activation is not None:
                ctx.overwrite, ctx.dx = True, keep
                y = self.activation.forward(y, ctx)
        ctx.keep, ctx.dx, ctx.overwrite = keep, dx, False
        return y

    def backward(self, dy, need_dx=True):
        ctx, inner, skip, given = self.ctx, None, None, self.ctx.spare
        through, beside = need_dx or self.block.active, self.shortcut is not None and self.shortcut.active
        if self.merged:
            ds = None
            if need_dx or beside:
                ds = dy if ctx.spare else ctx.buffer(self, "ds", dy.shape, dy.dtype)
            ctx.spare = False
            inner = self.block.backward(dy, need_dx, ds) if through or beside else None
        else:
            ds = dy if self.activation is None else self.activation.backward(dy, through or beside)
            ctx.spare = False
            inner = self.block.backward(ds, need_dx) if through else None
        if self.shortcut is None:
            skip = ds
        elif need_dx or beside:
            # the last to read ds, unless that is the caller's dy or what a block of views hands on
            ctx.spare = (self.merged or given or root(ds) is not root(dy)) and not self.block.view
            skip = self.shortcut.backward(ds, need_dx)
        if not need_dx:
            return None
        dx = ctx.buffer(self, "dx", inner.shape, inner.dtype) if self.block.view else inner
        backend.xp(dx).add(inner, skip, out=dx)
        ctx.release([layer for _, layer in self.children()], dx, self)
        return dx

    def __repr__(self):
        return f"Residual({self.block!r}, shortcut={self.shortcut!r}, activation={self.activation!r})"


def named(layer, parameter):
    """The full name of a layer's parameter: "conv1.W", or "W" where the layer is the whole network."""
    return f"{layer.path}.{parameter}" if layer.path else parameter


class Network:
    """A layer with names for its parameters: `segments`, `x0`, `bind`, `forward`, `backward`, and batch statistics.

    layer          usually a Sequential
    input_shape    shape of one row, without the batch axis: (784,) or (28, 28, 1)
    share          {"head.W": "embed.W"}: the first name uses the second one's segment. In backward order the first user
                   writes into g, the others write into scratch that `backward` adds.

    A segment's block is the outermost Residual around it, or else the network's top-level child.
    """

    def __init__(self, layer, input_shape, name=None, share=None):
        self.layer, self.input_shape, self.name = layer, tuple(int(i) for i in input_shape), name or "network"
        self.share = dict(share or {})
        self.output_shape = tuple(layer.output_shape(self.input_shape))
        self.users = {}                                 # segment name: [(layer, parameter)] in forward order
        entries, seen = [], {}
        for child, path, block in self._walk(layer, "", None):
            if id(child) in seen:
                raise ValueError(
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
                    raise ValueError(f"Network: {child.path}.{parameter} has shape {child.shapes[parameter][0]} and "
                                     f"cannot share {target} of shape {segment.shape}")
        self.dim = self.segments.dim
        self.normalisers = [leaf for leaf in layer.leaves if hasattr(leaf, "commit")]
        self.open, self.sums = True, {}
        self._x = self._g = self._active = None
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
        import numpy as np

        x = np.empty(self.dim, dtype)
        for segment in self.segments:
            layer, parameter = next(user for user in self.users[segment.name] if named(*user) == segment.name)
            fan_in, fan_out = layer.fans(parameter)
            x[segment.slice] = layer.init[parameter](rng, segment.shape, fan_in, fan_out, dtype).reshape(-1)
        return backend.asarray(x)

    def bind(self, x, g=None, active=None, compact=False):
        """Point every parameter view into x, (dim,), and every gradient view into g.

        active: names of segments that are trained (None: all); the others get a gradient of None. With compact, g holds
        the active segments alone, in order. Nothing happens when x, g and active are those of the last call.
        """
        if x is self._x and g is self._g and (active is self._active or active == self._active):
            return
        if x.shape != (self.dim,):
            raise ValueError(f"{self.name}: x must have shape ({self.dim},), got {tuple(x.shape)}")
        where = frozenset() if g is None else frozenset(active) if active is not None else None
        if g is not None:
            length = self.dim
            if compact and active is not None:
                length = sum(s.size for s in self.segments if s.name in where)
            if g.shape != (length,) or g.dtype != x.dtype:
                raise ValueError(
                    f"{self.name}: g must be {x.dtype} of shape ({length},), got {g.dtype} {tuple(g.shape)}"
                )
        sums, start = {}, 0
        for name, begin, stop, shape, _, _ in self.segments:
            view, gradient = x[begin:stop].reshape(shape), None
            if g is not None and (where is None or name in where):
                first = start if compact else begin
                gradient = g[first:first + stop - begin].reshape(shape)
                start += stop - begin
            *others, (layer, parameter) = self.users[name]
            setattr(layer, parameter, view)
            setattr(layer, "d" + parameter, gradient)
            for i, (layer, parameter) in enumerate(others):
                setattr(layer, parameter, view)
                extra = None
                if gradient is not None:
                    extra = self.sums.get((name, i))
                    if extra is None or extra.dtype != x.dtype:
                        extra = backend.empty(shape, x.dtype)
                    sums[name, i] = extra
                setattr(layer, "d" + parameter, extra)
        self.sums, self._x, self._g, self._active = sums, x, g, active
        if where != self._where:
            self.layer.activate()
            self._where = where

    # --- passes --------------------------------------------------------------------------------------------------

    def forward(self, inputs, ctx, backward=True, need_dx=False):
        """Outputs, (B, *output_shape), of inputs, (B, *input_shape).

        backward=False keeps nothing for a backward pass; need_dx=True promises that it will be asked for dx.
        """
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise ValueError(f"{self.name}: a row of inputs must have shape {self.input_shape}, got "
                             f"{tuple(inputs.shape[1:])}")
        ctx.reclaim()
        self.ctx = ctx
        ctx.keep, ctx.dx, ctx.overwrite = backward and (need_dx or self.layer.active), backward and need_dx, False
        ctx.track = ctx.training and self.open
        y = self.layer.forward(inputs, ctx)
        if ctx.training:
            self.open = False
        ctx.keep = ctx.dx = False                       # what backward asks for is lent
        return y

    def backward(self, dy, need_dx=False):
        """Write g for the last forward pass; the gradient of its inputs, or None."""
        self.ctx.spare = False
        dx = self.layer.backward(dy, need_dx) if need_dx or self.layer.active else None
        for (name, _), extra in self.sums.items():
            layer, parameter = self.users[name][-1]
            total = getattr(layer, "d" + parameter)
            backend.xp(total).add(total, extra, out=total)
        return dx

    # --- batch statistics ----------------------------------------------------------------------------------------

    def begin(self):
        """A new step: forget pending statistics; the next training pass leaves its own."""
        for layer in self.normalisers:
            layer.pending = None
        self.open = True

    def commit(self):
        """Fold the pending statistics into the running ones."""
        for layer in self.normalisers:
            layer.commit()
        self.open = True

    def state(self):
        """Running statistics by layer name, NumPy arrays."""
        return {layer.path: layer.state() for layer in self.normalisers}

    def load_state(self, state):
        for layer in self.normalisers:
            layer.load_state(state[layer.path])

    def __repr__(self):
        return f"Network({self.layer!r}, input_shape={self.input_shape}, name={self.name!r})"
