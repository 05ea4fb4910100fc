"""Layers made of layers. When built, they settle what may be overwritten and which neighbours are fused.

A fused layer does the work of two in one pass over memory: batch norm with the ReLU behind it, and batch norm with the
sum and the ReLU of a residual block. `--kernels reference` runs the layers as they were given.

On the way back a composite lets go of what a layer kept as soon as that layer is done. For this it makes
`stack = list(saved)` and then `del saved`, so stack.pop() hands over the last reference. A caller that needs `saved`
again keeps a reference of its own.
"""

from npopt import backend
from npopt.errors import UserError

from . import kernels
from .activations import ReLU
from .fused import BatchNormReLU, BatchNormSkip
from .layer import Layer
from .norms import BatchNorm


def fused(layers):
    """[(indices, layer)]: the layers, each batch norm and the ReLU behind it being one layer."""
    found, i = [], 0
    while i < len(layers):
        both = i + 1 < len(layers) and type(layers[i]) is BatchNorm and type(layers[i + 1]) is ReLU
        found.append(((i, i + 1), BatchNormReLU(layers[i])) if both else ((i,), layers[i]))
        i += 1 + both
    return found


class Sequential(Layer):
    """Layers one after the other. Positional children are named "0", "1", ...; keyword children by their keyword.

    y = f_n(...f_1(x)), so dx = J_1' ... J_n' dy, taken from the right. Backward stops at the lowest layer with a
    trained parameter unless dx is wanted. The layers below that one keep nothing.
    """

    def __init__(self, *layers, **named):
        self.names = [str(i) for i in range(len(layers))] + list(named)
        self.layers = list(layers) + list(named.values())
        for name, layer in zip(self.names, self.layers, strict=True):
            if not isinstance(layer, Layer):
                raise UserError(f"Sequential: child {name} must be a Layer, got {layer!r}")
        self.view = all(layer.view for layer in self.layers)
        self.positionwise = all(layer.positionwise for layer in self.layers)
        self.reads_output = self.view or self.layers[-1].view or self.layers[-1].reads_output
        self.fused = fused(self.layers)
        self.plans = {"reference": Chain(self.layers), "fast": Chain([layer for _, layer in self.fused])}

    def children(self):
        return list(zip(self.names, self.layers, strict=True))

    def output_shape(self, shape):
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return tuple(shape)

    def activate(self):
        super().activate()
        for plan in self.plans.values():
            plan.activate()

    def forward(self, x, run):
        return self.plans[kernels.plan()].forward(x, run)

    def backward(self, dy, saved, run):
        stack = [saved]
        del saved
        return self.plans[kernels.plan()].backward(dy, stack.pop(), run)

    def extend(self, x, past):
        for layer in self.layers:
            x = layer.extend(x, past)
        return x

    def extendable(self):
        for layer in self.layers:
            layer.extendable()

    def __repr__(self):
        return listed(self.names, self.fused)


def listed(names, layers):
    """The text of a Sequential of [(indices, layer)]."""
    shown = [("+".join(names[i] for i in indices), layer) for indices, layer in layers]
    return f"Sequential({', '.join(repr(c) if name.isdigit() else f'{name}={c!r}' for name, c in shown)})"


class Chain:
    """Layers one after the other, as a Sequential runs them."""

    def __init__(self, layers):
        self.layers, self.lowest, self.active = layers, 0, False
        # whether a layer may write over its input: not if this is the caller's, or the layer before reads it later
        self.inplace = [i > 0 and not layers[i - 1].reads_output for i in range(len(layers))]

    def activate(self):
        """Find the lowest trained layer. Where there is none, take the number of layers."""
        self.lowest = next((i for i, layer in enumerate(self.layers) if layer.active), len(self.layers))
        self.active = self.lowest < len(self.layers)

    def part(self, run, i):
        """What is asked of layer i: dx where a layer below it is trained or the chain's dx is wanted."""
        backward = run.backward and (run.dx or i >= self.lowest)
        return run.asking(backward, run.dx or i > self.lowest, self.inplace[i])

    def forward(self, x, run):
        kept = []
        for i, layer in enumerate(self.layers):
            here = self.part(run, i)
            x, saved = layer.forward(x, here)
            kept.append(saved if here.backward else None)
        return x, tuple(kept)

    def backward(self, dy, saved, run):
        stack = list(saved)
        del saved
        for i in range(len(self.layers) - 1, -1 if run.dx else self.lowest - 1, -1):
            dy = self.layers[i].backward(dy, stack.pop(), self.part(run, i))
        return dy if run.dx else None


class Residual(Layer):
    """y = act(block(x) + shortcut(x)). Without a shortcut it is x itself; without an activation y is the sum.

    With s = block(x) + shortcut(x) and ds = act'(s) dy:    dx = J_block' ds + J_shortcut' ds.
    The names of the block's children stand directly under this layer's (under "block" where the block is a Residual
    itself), those of the shortcut under "shortcut". A batch norm at the end of the block also does the sum and the
    ReLU.
    """

    is_block = True

    def __init__(self, block, shortcut=None, activation=None):
        self.block, self.shortcut, self.activation = block, shortcut, activation
        self.plans = {"reference": (block, Sum(activation))}
        self.plans["fast"] = self.plans["reference"]
        last = block.layers[-1] if isinstance(block, Sequential) else None
        if type(last) is BatchNorm and (activation is None or type(activation) is ReLU):
            onto = shortcut is not None and not shortcut.view and not shortcut.reads_output
            trunk = Chain([layer for _, layer in block.fused[:-1]])
            self.plans["fast"] = (trunk, BatchNormSkip(last, activation is not None, onto))

    def children(self):
        name = "block" if isinstance(self.block, Residual) else ""
        found = [(name, self.block), ("shortcut", self.shortcut), ("activation", self.activation)]
        return [(name, layer) for name, layer in found if layer is not None]

    def output_shape(self, shape):
        out = tuple(self.block.output_shape(shape))
        other = tuple(shape) if self.shortcut is None else tuple(self.shortcut.output_shape(shape))
        if out != other:
            raise UserError(
                f"Residual: the block makes {out} of {tuple(shape)}, the shortcut {other}; give a shortcut layer that "
                "makes the same shape"
            )
        return out

    def activate(self):
        super().activate()
        trunk, _ = self.plans["fast"]
        trunk.activate()

    def parts(self, run):
        """(trunk, join) of the path that is chosen, and what is asked of trunk, shortcut and join."""
        trunk, join = self.plans[kernels.plan()]
        beside = run.dx or self.shortcut is not None and self.shortcut.active
        through = run.dx or trunk.active
        return (
            trunk,
            join,
            run.asking(run.backward and through, run.dx),
            run.asking(run.backward and beside, run.dx),
            (run.asking(run.backward, through or beside)),
        )

    def forward(self, x, run):
        trunk, join, through, beside, end = self.parts(run)
        skip, short = (x, None) if self.shortcut is None else self.shortcut.forward(x, beside)
        h, kept = trunk.forward(x, through)
        y, last = join.forward(h, skip, end)
        return y, (short if beside.backward else None, kept if through.backward else None, last)

    def backward(self, dy, saved, run):
        trunk, join, through, beside, end = self.parts(run)
        stack = list(saved)
        del saved
        dy, skip = join.backward(dy, stack.pop(), end)
        if through.backward:
            dy = trunk.backward(dy, stack.pop(1), through)
        if self.shortcut is not None:
            skip = self.shortcut.backward(skip, stack.pop(0), beside) if beside.backward else None
        return backend.xp(dy).add(dy, skip, out=dy) if run.dx else None

    def extend(self, x, past):
        skip = x if self.shortcut is None else self.shortcut.extend(x, past)
        return Sum(self.activation).forward(self.block.extend(x, past), skip, past.run)[0]

    def extendable(self):
        for _, layer in self.children():
            layer.extendable()

    def __repr__(self):
        trunk, join = self.plans["fast"]
        inner = repr(self.block)
        if trunk is not self.block:
            inner = f"{listed(self.block.names, self.block.fused[:-1])}, {join!r}"
        return f"Residual({inner}, shortcut={self.shortcut!r}, activation={self.activation!r})"


class Sum(Layer):
    """y = act(h + skip), act possibly None; dh = dskip = act'(h + skip) dy, two arrays."""

    def __init__(self, activation):
        self.activation = activation

    def forward(self, h, skip, run):
        y = h + skip
        if self.activation is None:
            return y, ()
        return self.activation.forward(y, run.asking(run.backward, run.dx, inplace=True))

    def backward(self, dy, saved, run):
        if self.activation is not None:
            dy = self.activation.backward(dy, saved, run)
        return dy, dy.copy()
