"""Unrolled networks as a Problem: a form (forms.py), samples (codes.py), and the squared error of what comes out."""

import copy

from nn import kernels
from npopt import backend
from npopt.errors import UserError
from npopt.segments import Segments
from npopt.values import arguments_of, whole
from problems.base import Problem, Restricted
from problems.unrolled import dense, sparse
from problems.unrolled.codes import SparseCodes, nmse
from problems.unrolled.forms import Layer, Unrolling

import numpy as np


class Unrolled(Problem):
    """f(x) = (1/n) sum_i 1/2 |x_K(b_i) - x*_i|^2 for the samples (b_i, x*_i) of a step, x_K being the network's output.

    form      LISTA(16), LISTACP(16), ALISTA(16), ...: see forms.py
    source    SparseCodes(...), where the samples come from
    n         samples of a step, all of them fresh: sample i of step t is a function of (seed, t, i). A sampler hands
              out numbers 0 to n-1; RandomReshuffling(None) takes all, and an epoch is then one step
    held      samples of the sets that metrics look at, the same at all times: validation, and test

    Chen et al. sum over the batch where this is the mean; Adam does not feel the factor. `upto(k)` is the problem whose
    loss looks at x_k: with `restrict` what layer-wise training needs, see staged.py. Passes: sparse.py on a CPU (with
    kernels "reference" dense.py), dense.py elsewhere.
    """

    def __init__(self, form, source, n=64, *, held=1000, seed=0, dtype="float32", name=None):
        for what, value, kind, example in (
            ("form", form, Unrolling, "LISTACP(16)"),
            ("source", source, SparseCodes, "SparseCodes()"),
        ):
            if not isinstance(value, kind):
                raise UserError(f"Unrolled: {what} must be a {kind.__name__} such as {example}, got {value!r}")
        self.form, self.source, self.seed = form, source, seed
        self.n, self.held = whole("Unrolled", "n", n), whole("Unrolled", "held", held)
        self.depth = form.layers
        self.name = name or f"{type(form).__name__} of {form.layers} layers on {source!r}"
        A = source.dictionary()
        entries = form.entries(source.m, source.n)
        self.set_shape(sum(int(np.prod(shape)) for _, shape, *_ in entries), dtype, Segments.of(*entries))
        self.At = backend.asarray(np.ascontiguousarray(A.T), self.dtype)
        self.constants = {k: backend.asarray(v, self.dtype) for k, v in form.constants(A).items()}
        self._drawn = (None, None)

    def ingredients(self):
        """What identifies the problem: the constructor's arguments."""
        return arguments_of(self)

    def upto(self, depth):
        """The problem whose loss and metrics look at x_depth, after that many layers; of the same x."""
        if not 1 <= whole(self.name, "depth", depth) <= self.form.layers:
            raise UserError(f"{self.name}: depth must lie in 1..{self.form.layers}, got {depth}")
        other = copy.copy(self)
        other.depth, other._shifted = depth, None
        other.name = f"{self.name}, up to layer {depth}"
        return other

    # ------------------------------------------------------------------------------------------------ the network
    def x0(self, rng):
        """The start, which draws nothing: an iteration of ISTA in each layer."""
        x, start = np.empty(self.dim), self.form.initial(self.source.dictionary())
        for segment in self.segments:
            x[segment.slice].reshape(segment.shape)[...] = start[segment.name.split(".")[-1]]
        return backend.asarray(x.astype(self.dtype))

    @property
    def passes(self):
        """The module that makes the passes."""
        fast = isinstance(self.At, np.ndarray) and kernels.chosen() != "reference"
        return sparse if fast else dense

    def net(self, views):
        """The network up to `depth`, of arrays by the names of segments."""
        layers = [self.form.layer(k, views, self.constants, self.source.n) for k in range(self.depth)]
        return dense.Net(layers, self.At, views.get("B"), self.form.clamp)

    def views(self, x):
        return {segment.name: x[segment.slice].reshape(segment.shape) for segment in self.segments}

    def outputs(self, x, b):
        """[x_1, ..., x_depth] of b, (B, m): each (B, n)."""
        passes = self.passes
        return [passes.output(step) for step in passes.forward(self.net(self.views(self.check(x))), b)]

    # ------------------------------------------------------------------------------------------------ samples
    def samples(self, rows=None):
        """(b, x*) of the rows of this step: (B, m), (B, n)."""
        now = self.seed, self.t
        if self._drawn[0] != now:
            self._drawn = now, self.source.draw(self.n, backend.key(self.seed, "samples", self.t), self.At)
        if rows is None:
            return self._drawn[1]
        if not len(rows) or (isinstance(rows, np.ndarray) and not 0 <= rows.min() <= rows.max() < self.n):
            raise UserError(f"{self.name}: rows must be one or more of 0..{self.n - 1}")
        rows = backend.asarray(rows)
        return tuple(v[rows] for v in self._drawn[1])

    def _prepare(self, rows, weights, inputs):
        b, truth = self.samples(rows)
        if inputs is not None:
            if tuple(inputs.shape) != tuple(b.shape) or inputs.dtype != self.dtype:
                raise UserError(
                    f"{self.name}: inputs= must be {self.dtype} of shape {tuple(b.shape)}, got {inputs.dtype} "
                    f"{tuple(inputs.shape)}"
                )
            b = backend.xp(inputs).ascontiguousarray(inputs)
        if weights is not None:
            weights = backend.asarray(weights, self.dtype)
            if weights.shape != (len(b),):
                raise UserError(f"{self.name}: weights must be {len(b)} numbers, got shape {tuple(weights.shape)}")
        return b, truth, weights

    # ------------------------------------------------------------------------------------------------ passes
    def loss(self, x, rows, weights):
        b, truth, weights = self._prepare(rows, weights, None)
        passes = self.passes
        return passes.loss(passes.forward(self.net(self.views(x)), b), truth, weights, gradient=False)[0]

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        """The loss; out, (dim,), receives the gradient; dinputs, (B, m), dL/db. inputs: (B, m), in place of the b."""
        into = None if out is None else self.views(self.check(out, "out"))
        return self._pass(self.views(self.check(x)), into, rows, weights, inputs, dinputs)

    def _pass(self, views, into, rows, weights, inputs, dinputs):
        """value_and_gradient, of arrays by name: `into` holds those that receive a gradient, or is None."""
        b, truth, weights = self._prepare(rows, weights, inputs)
        passes, net = self.passes, self.net(views)
        steps = passes.forward(net, b)
        value, dy = passes.loss(steps, truth, weights)
        if into is None and dinputs is None:
            return value
        into, used = into or {}, [self.form.used(k) for k in range(self.depth)]
        for name in set(into) - {name for names in used for name in names}:
            into[name][...] = 0
        lowest = next((k for k in range(self.depth) if dinputs is not None or into.keys() & set(used[k])), None)
        if lowest is not None:
            wanted = [self.gradients(k, into) for k in range(self.depth)]
            passes.backward(net, [*wanted, into.get("B")], steps, b, dy, lowest, dinputs)
        return value

    def gradients(self, k, into):
        """Where the gradient of layer k's variables goes: a Layer, None for those that have none."""
        names = {name.split(".")[-1]: name for name in self.form.used(k)}
        return Layer(*(into.get(names.get(letter)) if letter != "kept" else 0 for letter in Layer._fields))

    # ------------------------------------------------------------------------------------------------ steps
    def set_seed(self, seed):
        self.seed = seed

    def metrics(self, x):
        """nmse: of x_depth on the validation set, in dB."""
        b, truth = self.source.held("validation", self.held, self.At)
        steps = self.passes.forward(self.net(self.views(self.check(x))), b)
        return {"nmse": nmse(self.passes.output(steps[-1]), truth)}

    def nmse_by_layer(self, x, part="test"):
        """[0, NMSE of x_1, ..., of x_depth] in dB on "test" or "validation"; x_0 = 0 has 0 dB."""
        b, truth = self.source.held(part, self.held, self.At)
        return [0.0] + [nmse(y, truth) for y in self.outputs(x, b)]

    def restrict(self, x, names):
        return RestrictedUnrolled(self, x, names)


class RestrictedUnrolled(Restricted):
    """An unrolled network in some of its variables: backward stops at the lowest layer that has one of them, and
    nothing is copied."""

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        own = {s.name: self.check(x)[s.slice].reshape(s.shape) for s in self.segments}
        into = None
        if out is not None:
            self.check(out, "out")
            into = {s.name: out[s.slice].reshape(s.shape) for s in self.segments}
        views = self.problem.views(self.whole) | own
        return self.problem._pass(views, into, rows, weights, inputs, dinputs)
