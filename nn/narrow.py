"""Passes in a format that a device has no arrays of: float32 arrays that hold numbers of float16, bfloat16 or float8
alone. On a CPU these are all formats, on a GPU those of float8, and all where a layer has no kernels for two bytes
(Layer.two_bytes), as attention.

What a layer is given and what it returns is rounded (npopt/backend/rounding.py), on the way there and on the way back.
A layer that reads a matrix, a kernel or a table of its own reads it rounded. Products, sums, statistics, softmax and
whatever else happens inside of one layer is float32; so are vectors of parameters (biases, scales), all gradients of
parameters, and the loss. That is the arithmetic of a GPU's matrix units, and of the float32 list of PyTorch's autocast.
Layers, fused ones too, are the ones that run in float32: they are told of nothing.

Unlike our GPU's passes (arrays of two bytes), which round more often, this rounds once for a layer: a bias is added
before the rounding, and what a recurrent layer, attention or a gated layer has between its parts is rounded where the
next part reads it. Unlike PyTorch's autocast, biases are not rounded, norms return the format, and gradients of
parameters are not rounded.

On a CPU, what a layer keeps for backward is stored by the format's codes where that loses nothing, so that a pass needs
as little memory for it as on a GPU. Statistics, which are float32, and whole numbers stay as they are.
"""

import contextlib
import copy
import weakref
from typing import NamedTuple

from npopt import backend
from npopt.backend.rounding import packed, rounded, unpacked

import numpy as np

from .composites import Chain

TABLES = ("matrix", "conv", "embedding")  # kinds of parameters that are read rounded
SMALL = 256  # numbers; arrays of fewer stay as they are


def layers_of(layer):
    """Every layer below this one, itself and those that were fused included, each once."""
    found, waiting = {}, [layer]
    while waiting:
        one = waiting.pop()
        if id(one) in found:
            continue
        found[id(one)] = one
        waiting += [child for _, child in one.children()]
        for plan in getattr(one, "plans", {}).values():
            for part in plan if isinstance(plan, tuple) else (plan,):
                waiting += part.layers if isinstance(part, Chain) else [part]
    return list(found.values())


@contextlib.contextmanager
def replaced(layers, functions):
    """Within it the layers have functions(layer), {name: function}, in place of their own methods."""
    layers = list(layers)
    before = [dict(vars(layer)) for layer in layers]
    try:
        for layer in layers:
            vars(layer).update(functions(layer))
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            for name in ("forward", "backward"):
                vars(layer).pop(name, None)
                if name in old:
                    vars(layer)[name] = old[name]


# ------------------------------------------------------------------------------------------------------------- passes
def narrow(network, run):
    """Whether the pass is one of these."""
    if run.compute is None:
        return False
    return not network.two_bytes or run.compute not in backend.owner(network._x).stores


def forward(network, inputs, run):
    """Network.forward's (y, saved)."""
    with passing(network, run) as plain:
        y, saved = network.layer.forward(given(inputs, run.compute), plain)
    return given(y, run.compute), saved  # a composite may end in a sum of its own


def backward(network, dy, saved, run):
    """Network.backward's dx. dy is rounded in its place."""
    stack = [saved]
    del saved
    with passing(network, run) as plain:
        dx = network.layer.backward(rounded(dy, run.compute, dy), stack.pop(), plain)
    return dx if dx is None else given(dx, run.compute)


@contextlib.contextmanager
def passing(network, run):
    """Within it the layers compute in run.compute; gives the run that they are to see. Other passes go on as they
    are."""
    if not narrow(network, run):
        yield run
        return
    plain, layers = copy.copy(run), layers_of(network.layer)
    plain.compute, plain._asked = None, {}
    with Parameters(network, run.compute).read(), replaced(layers, Rounding(network, run.compute)):
        yield plain


def given(a, format):
    """An array or a tuple of them, rounded: new arrays. Whole numbers stay as they are."""
    if isinstance(a, tuple):
        return tuple(given(one, format) for one in a)
    return rounded(a, format) if a is not None and a.dtype == "float32" else a


class Rounding:
    """What the methods of a network's layers are in one pass."""

    def __init__(self, network, format):
        self.network, self.format = network, format
        self.store = Store(format)

    def settled(self, a):
        """a with its floats rounded: in their place, unless that is the caller's, or x."""
        if isinstance(a, tuple):
            return tuple(self.settled(one) for one in a)
        if a is None or a.dtype != "float32":
            return a
        x = self.network._x
        own = getattr(a.flags, "writeable", True) and not backend.xp(x).may_share_memory(a, x)
        return rounded(a, self.format, a if own else None)

    def __call__(self, layer):
        there, back = layer.forward, layer.backward
        settled = (lambda a: a) if layer.children() else self.settled  # a composite's layers do it

        def forward(*arguments):
            *inputs, run = arguments
            y, saved = there(*map(settled, inputs), run)
            return settled(y), self.store.kept(saved) if run.backward else saved

        def backward(dy, saved, run):
            stack = [saved.opened() if isinstance(saved, Kept) else saved]
            del saved
            return settled(back(settled(dy), stack.pop(), run))

        return {"forward": forward, "backward": backward}


class Parameters:
    """A network's matrices and tables, rounded when a layer asks for them, for one layer at a time."""

    def __init__(self, network, format):
        self.network, self.format, self.held = network, format, {}

    @contextlib.contextmanager
    def read(self):
        layers = {id(layer): layer for layer, _ in self.network.owners}
        self.outer = {i: vars(layer).get("made_when_asked") for i, layer in layers.items()}
        self.views = {}
        for layer, parameter in self.network.owners:
            if layer.shapes[parameter][1] in TABLES and parameter in vars(layer):
                self.views[id(layer), parameter] = vars(layer).pop(parameter)
        for layer in layers.values():
            layer.made_when_asked = self.made
        try:
            yield
        finally:
            for i, layer in layers.items():
                layer.made_when_asked = self.outer[i]
            for layer, parameter in self.network.owners:
                if (id(layer), parameter) in self.views:
                    vars(layer)[parameter] = self.views[id(layer), parameter]

    def made(self, layer, parameter):
        if parameter not in layer.shapes:  # a gradient that is handed on: nn/release.py
            return self.outer[id(layer)](layer, parameter)
        if self.held.get("layer") is not layer:
            self.held.clear()
            self.held["layer"] = layer
        if parameter not in self.held:
            view = self.views.get((id(layer), parameter))
            if view is None:  # x + a z, which is made piece by piece, too: Network.moved
                view = self.outer[id(layer)](layer, parameter)
            self.held[parameter] = rounded(view, self.format) if layer.shapes[parameter][1] in TABLES else view
        return self.held[parameter]


# ------------------------------------------------------------------------------------------------------------- memory
class Small(NamedTuple):
    """An array of numbers of a format."""

    codes: np.ndarray
    format: str
    shape: tuple

    def array(self):
        return unpacked(*self)


class Kept(tuple):
    """What a layer keeps for backward, (content,). Layers above it do not look inside."""

    def opened(self):
        return mapped(self[0], Small, Small.array)


def mapped(value, kind, function):
    """A plain tuple or list with `function` of what is of this kind in it."""
    if type(value) in (tuple, list):
        return type(value)([mapped(one, kind, function) for one in value])
    return function(value) if isinstance(value, kind) else value


class Store:
    """Arrays by the codes of a format. An array that several layers keep is stored once."""

    def __init__(self, format):
        self.format, self.known = format, {}

    def kept(self, saved):
        return saved if isinstance(saved, Kept) else Kept((mapped(saved, np.ndarray, self.small),))

    def small(self, a):
        """a as a Small, or a itself where it holds other numbers."""
        if a.dtype != "float32" or a.size < SMALL:
            return a
        place, owner = (a.ctypes.data, a.size, a.flags.c_contiguous), a
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        owner = owner if owner.base is None else owner.base  # a block of the pool, or an array
        alive, codes = self.known.get(place, (lambda: None, None))
        if not place[2] or alive() is not owner:
            codes = packed(a, self.format)
            self.known[place] = weakref.ref(owner), codes
        return a if codes is None else Small(codes, self.format, a.shape)
