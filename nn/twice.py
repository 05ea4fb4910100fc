"""A network's pass, kept for derivatives along directions: J v, J' u and the Hessian's products.

R is the derivative along v in the parameters (Pearlmutter, Neural Computation 6, 1994). Each layer knows R y and R dx
(nn/layer.py); here they are strung together:

    z = network(a; x)                 J v = R z                      forward once more, by `tangent`
    g = J' dL/dz                      J' u                           backward, with any u for dL/dz
    H v = R g                         H_L = R dL/dz along R z        backward once more, by `backward_tangent`

A pass is kept for many products. Kept are what the layers keep for backward, dL/dy of layers with parameters and of
bent activations, and within a product R x of the same layers: about three times the activations. With forward and dL/dy
at hand a product is six matrix products a layer, where a gradient is three: two in `tangent`, four on the way back. The
lowest layer has two, as R of the inputs is zero.

Layers run as they were given, not fused. A pass leaves no statistics.
"""

from npopt.errors import UserError

from .composites import Chain, Residual, Sequential
from .layer import Layer
from .losses import Loss

__all__ = ["Twice"]


GOES_WITH = {"tangent": "forward", "backward_tangent": "backward", "second": "derive"}


def fits(kind, new, *old):
    """Whether a class has its method `new` from as near as its methods `old`. What it inherits while it brings one of
    those of its own is the derivative of another function."""
    homes = [vars(base) for base in kind.__mro__]
    depth = {name: next((k for k, home in enumerate(homes) if name in home), len(homes)) for name in (new, *old)}
    return all(depth[new] <= depth[name] for name in old)


def lacking(layer):
    """The first layer of this one's leaves that has no second derivative of its own, or None."""
    if isinstance(layer, (Sequential, Residual)):
        return next((found for _, child in layer.children() if (found := lacking(child)) is not None), None)
    kind, pairs = type(layer), dict(GOES_WITH)
    if kind.backward_tangent is Layer.backward_tangent:  # it is `backward` again, whatever that is
        del pairs["backward_tangent"]
    whole = kind.tangent is not Layer.tangent and all(fits(kind, new, old) for new, old in pairs.items())
    return None if whole else layer


def bent(loss):
    """Whether a loss has a second derivative of its own."""
    return type(loss).second is not Loss.second and fits(type(loss), "second", "gradient", "value_and_gradient")


def trained(layer):
    """Whether the layer, or one below it, has parameters."""
    return any(leaf.shapes for leaf in layer.leaves())


def node(layer, alive):
    """The part of a pass that this layer makes; alive: R of its input is not zero, and dx is wanted."""
    if isinstance(layer, Sequential):
        return Chained(layer, alive)
    return Forked(layer, alive) if isinstance(layer, Residual) else Leaf(layer, alive)


class Leaf:
    """One layer: forward, then `adjoint` or `note`, or tangent and then `second`, any number of times."""

    def __init__(self, layer, alive):
        self.layer, self.alive = layer, alive
        self.idle = not alive and not layer.shapes
        self.saved = self.noted = self.kept = None

    def forward(self, x, run):
        self.run = run.asking(not self.idle, self.alive, run.inplace)
        y, self.saved = self.layer.forward(x, self.run)
        self.shape = y.shape
        return y

    def adjoint(self, dy):
        """J' dy; writes gradients where the network is bound to a vector for them."""
        return None if self.idle else self.layer.backward(dy, self.saved, self.run)

    def note(self, dy):
        """The same, and what `second` needs of dy is kept."""
        self.noted = self.layer.note(dy, self.saved)
        return self.adjoint(dy)

    def tangent(self, rx):
        if self.idle:
            return None
        ry, self.kept = self.layer.tangent(rx, self.saved, self.run)
        return ry.reshape(self.shape)

    def second(self, rdy):
        if self.idle:
            return None
        kept, self.kept = self.kept, None
        return self.layer.backward_tangent(rdy, self.noted, kept, self.saved, self.run)


class Chained:
    """Layers one after the other."""

    def __init__(self, layer, alive):
        self.chain, self.nodes = Chain(layer.layers), []
        for child in layer.layers:
            self.nodes.append(node(child, alive))
            alive = alive or trained(child)
        self.alive = alive

    def forward(self, x, run):
        for one, inplace in zip(self.nodes, self.chain.inplace, strict=True):
            x = one.forward(x, run.asking(True, True, inplace))
        return x

    def adjoint(self, dy):
        return self.back("adjoint", dy)

    def note(self, dy):
        return self.back("note", dy)

    def second(self, rdy):
        return self.back("second", rdy)

    def back(self, what, dy):
        for one in reversed(self.nodes):
            if dy is None:
                return None
            dy = getattr(one, what)(dy)
        return dy

    def tangent(self, rx):
        for one in self.nodes:
            rx = one.tangent(rx)
        return rx


class Forked:
    """act(block(x) + shortcut(x))."""

    def __init__(self, layer, alive):
        self.block, self.short = node(layer.block, alive), layer.shortcut and node(layer.shortcut, alive)
        self.end = layer.activation and Leaf(layer.activation, alive or trained(layer))

    def forward(self, x, run):
        aside = run.asking(True, True, False)  # both read x
        skip = x if self.short is None else self.short.forward(x, aside)
        y = self.block.forward(x, aside) + skip
        return y if self.end is None else self.end.forward(y, run.asking(True, True, True))

    def tangent(self, rx):
        skip = rx if self.short is None else self.short.tangent(rx)
        ry = joined(self.block.tangent(rx), skip)
        return ry if self.end is None or ry is None else self.end.tangent(ry)

    def adjoint(self, dy):
        return self.back("adjoint", dy)

    def note(self, dy):
        return self.back("note", dy)

    def second(self, rdy):
        return self.back("second", rdy)

    def back(self, what, dy):
        if self.end is not None:
            dy = getattr(self.end, what)(dy)
            if dy is None:
                return None
        skip = dy.copy()
        dx = getattr(self.block, what)(dy)
        if self.short is not None:
            skip = getattr(self.short, what)(skip)
        return None if dx is None else joined(dx, skip)


def joined(a, b):
    """a + b as a new array, where None is zero."""
    return b if a is None else a if b is None else a + b


class Twice:
    """A pass of a network that is bound to x: outputs `z`, (B, ...), and products with vectors v, (dim,).

    Bind the network to x and a vector of its own before `adjoint` and `second`, which write it. A UserError where a
    layer has no second derivative; `lacking(network.layer)` says so beforehand.
    """

    def __init__(self, network, inputs, run):
        without = lacking(network.layer)
        if without is not None:
            raise UserError(f"{network.name}: {without.path or without!r}, a {type(without).__name__}, has no tangent")
        self.network, self.root = network, node(network.layer, False)
        self.z = self.root.forward(inputs, run)

    def note(self, dz):
        """Once, before the first `second`, the network being bound to x alone. dz is overwritten."""
        self.root.note(dz)

    def tangent(self, v):
        """J v, (B, ...)."""
        for (layer, parameter), segment in self.network.owners.items():
            setattr(layer, "v" + parameter, v[segment.slice].reshape(segment.shape))
        return self.root.tangent(None)

    def adjoint(self, u):
        """J' u; u is overwritten."""
        self.root.adjoint(u)
        self.network.add_shared()

    def second(self, rdz):
        """H v, after `tangent(v)`; rdz is overwritten."""
        self.root.second(rdz)
        self.network.add_shared()
