"""A network with its rows and its loss: a Problem like any other.

    L(x) = (1/B) sum_b w_b ( l(network(a_b; x), t_b) + (l2/2) |x|^2 )

a_b and t_b, inputs and target of row b, come from a feed (problems/feeds.py, problems/tokens.py). The l2 term counts
all parameters, and stands in value and gradient, not in the logged train_loss and test_loss.
"""

import contextlib
from math import prod

from nn import Run
from nn.losses import IGNORE, SoftmaxCrossEntropy
from nn.network import Network
from nn.stages import Stages
from npopt import backend
from npopt.directions import as_direction
from npopt.errors import UserError
from npopt.values import arguments_of, number, whole
from problems.base import Problem, Restricted
from problems.curved import Curved
from problems.evaluated import Evaluated
from problems.feeds import Feed
from problems.inputs import OfInputs
from problems.merging import Merging
from problems.recorded import Recordings
from problems.released import Released, add_scaled
from problems.sections import Sections

import numpy as np


def checked(compute, dtype):
    """The type of activations, or None. A UserError where it cannot be had."""
    if compute is None:
        return None
    if compute not in backend.FORMATS:
        known = ", ".join(map(repr, backend.FORMATS))
        raise UserError(f"Neural: compute must be one of {known} or None, got {compute!r}")
    if np.dtype(dtype) != "float32":
        raise UserError(f"Neural: compute={compute!r} goes with float32 parameters; here they are {np.dtype(dtype)}")
    if compute == "bfloat16":
        import ml_dtypes  # noqa: F401 (NumPy and CuPy know bfloat16 by it)
    return compute


class Neural(OfInputs, Evaluated, Curved, Released, Sections, Problem):
    """The problem of a network on the rows of a feed.

    network        nn.Network; it serves this problem alone, because its statistics belong to the problem
    feed           Images, Table, Windows, ...; it serves this problem alone
    loss           nn.losses; SoftmaxCrossEntropy by default
    l2             weight of |x|^2 / 2, at least 0
    compute        the type of activations: "float16", "bfloat16", "float8_e4m3" or "float8_e5m2". Parameters, their
                   gradients, statistics, sums and the loss stay float32. A GPU has arrays of the first two; else the
                   numbers are kept in float32 (nn/narrow.py): exact, on a CPU in half the memory between the passes,
                   and slower.
    loss_scale     with `compute`: dL/dz is multiplied by it before it is rounded, gradients are divided by it; a power
                   of 2. float16 would lose small gradients otherwise (Micikevicius et al., ICLR 2018, section 3.2).
    seed           of dropout and augmentation; minimize sets its own
    metrics_rows   training rows that the metrics use: the first so many, or None for all
    metrics_batch  rows in one evaluation pass

    Training passes (value, value_and_gradient) use batch statistics, dropout and augmentation; between begin(t) and
    commit() they are one fixed function. Metrics are taken in evaluation mode and change nothing. rows=None is one pass
    over all rows and needs memory for all their activations. For gradients of a large set take Accumulated.
    """

    def __init__(
        self,
        network,
        feed,
        loss=None,
        l2=0.0,
        *,
        seed=0,
        dtype="float32",
        metrics_rows=None,
        metrics_batch=500,
        name=None,
        compute=None,
        loss_scale=1.0,
    ):
        for what, value, kind, example in (
            ("network", network, Network, "nn.mlp((784, 128, 10))"),
            ("feed", feed, Feed, "Images(data)"),
        ):
            if not isinstance(value, kind):
                got = " ".join(repr(value).split())[:80]
                raise UserError(f"Neural: {what} must be a {kind.__name__} such as {example}, got {got}")
        self.network, self.feed, self.seed, self.t = network, feed, seed, 0
        self.loss_function, self.plain = SoftmaxCrossEntropy() if loss is None else loss, SoftmaxCrossEntropy()
        self.l2 = number("Neural", "l2", l2, low=0)
        self.metrics_batch = whole("Neural", "metrics_batch", metrics_batch)
        self.compute, self.loss_scale = (
            checked(compute, dtype),
            number("Neural", "loss_scale", loss_scale, low=2.0**-30),
        )
        more = f", l2={self.l2:g}" * bool(l2) + f", {compute}, loss_scale={loss_scale:g}" * bool(compute)
        self.name = name or f"{network.name} on {feed.name}{more}"
        self.set_shape(network.dim, dtype, network.segments)
        feed.place(network, self.loss_function, self.dtype)
        self.n = feed.n
        self.metrics_rows = self.n if metrics_rows is None else whole("Neural", "metrics_rows", metrics_rows)
        self.fresh, self.recordings = network.state(), Recordings(network, self._both_ways, lambda: (self.loss_scale,))

    def ingredients(self):
        """What identifies the problem: the constructor's arguments, network, data and loss among them."""
        return arguments_of(self) | {"loss": self.loss_function}

    def targets(self):
        """The training targets, on the host."""
        return self.feed.targets()

    # ------------------------------------------------------------------------------------------------ passes

    def x0(self, rng):
        return self.network.x0(rng, self.dtype)

    def _rows(self, rows):
        """Row numbers as (B,) int64 of the device, or None."""
        if rows is None:
            return None
        if isinstance(rows, (list, tuple, range)):
            rows = np.asarray(rows, np.int64)
        if rows.dtype.kind not in "iu":
            raise UserError(f"{self.name}: rows must be whole numbers, got {rows.dtype}")
        if rows.ndim != 1 or not rows.shape[0]:
            raise UserError(f"{self.name}: rows must be a vector of at least one row number, got shape {rows.shape}")
        if isinstance(rows, np.ndarray) and not (0 <= rows.min() and rows.max() < self.n):
            raise UserError(f"{self.name}: rows must lie in 0..{self.n - 1}, got {rows.min()} to {rows.max()}")
        return backend.asarray(rows, "int64")

    def inputs(self, rows=None, augmented=False):
        """The inputs of training rows, (B, *input_shape), in the network's scale: where an attack starts."""
        return self.feed.batch("train", self._rows(rows), (self.seed, self.t) if augmented else None)[0]

    def _prepare(self, rows, inputs, backward=True, dx=False):
        """(inputs, targets, run) of a training pass."""
        rows = self._rows(rows)
        run = Run(training=True, backward=backward, dx=dx, seed=self.seed, step=self.t, rows=rows, compute=self.compute)
        own, targets = self.feed.batch("train", rows, (self.seed, self.t))
        if inputs is None:
            return own, targets, run
        shape = (targets.shape[0], *self.network.input_shape)
        if isinstance(own, tuple) or inputs.size != own.size or inputs.dtype != self.dtype:
            raise UserError(
                f"{self.name}: inputs= must be {self.dtype} of shape {shape}, got "
                f"{getattr(inputs, 'dtype', type(inputs).__name__)} {tuple(getattr(inputs, 'shape', ()))}"
            )
        return inputs.reshape(shape), targets, run

    def _l2(self, x, weights):
        """(l2 mean(w), the term of the loss)."""
        strength = self.l2 if weights is None else self.l2 * weights.mean(dtype="float64")
        term = 0.5 * strength * x.dot(x)
        return strength, float(term) if isinstance(term, np.generic) else term

    def value(self, x, rows=None, weights=None, shift=None):
        """The loss; with shift = (a, direction) at x + a z, of which only one layer's parameters exist at a time."""
        inputs, targets, run = self._prepare(rows, None, backward=False)
        self.network.bind(self.check(x))
        with contextlib.nullcontext() if shift is None else self.network.moved(*shift):
            z, _ = self.network.forward(inputs, run)
        loss = self.loss_function.value(z, targets, weights)
        if self.l2:
            pieces = [x] if shift is None else self._pieces(x, *shift)
            for piece in pieces:
                loss = loss + self._l2(piece, weights)[1]
        return loss

    def moved_values(self, x, places, amounts, rows=None, weights=None):
        """As of every problem; layers before the one that changes are not run again."""
        inputs, targets, run = self._prepare(rows, None, backward=False)
        self.network.bind(self.check(x))

        def value(z):
            loss = self.loss_function.value(z, targets, weights)
            return loss + self._l2(x, weights)[1] if self.l2 else loss

        yield from Stages(self.network).moved_values(x, places, amounts, inputs, run, value)

    def _pieces(self, x, a, direction):
        """x + a z, segment by segment."""
        for segment in self.segments:
            piece = x[segment.slice].copy()
            as_direction(direction).add(piece, a, segment)
            yield piece

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        """The loss; out, (dim,), receives the gradient.

        inputs   (B, *input_shape) in the network's scale, in place of the rows' own. (An attack in raw pixels divides
                 its radius by std.) dinputs, of that shape, receives dL / d inputs. out None: no parameter gradient;
                 with dinputs such a pass leaves no batch statistics.
        """
        if out is not None:
            self.check(out, "out")
        return self._pass(self.check(x), rows, weights, out, inputs, dinputs)

    def _pass(self, x, rows, weights, out, inputs, dinputs, active=None, y=None):
        """value_and_gradient; with `active`, out holds those segments alone and y is their part of x."""
        network, need_dx = self.network, dinputs is not None
        inputs, targets, run = self._prepare(rows, inputs, backward=out is not None, dx=need_dx)
        if out is None and need_dx:  # an attack: what the step leaves comes from the pass that trains
            run.pending = {}
        network.bind(x, out, active, compact=active is not None)
        loss, dx = self.recordings(x, out, active, inputs, targets, weights, run)
        if need_dx:
            dinputs[...] = dx.reshape(dinputs.shape)
        if self.loss_scale != 1:
            for g in (out, dinputs):
                if g is not None:
                    g *= 1 / self.loss_scale
        if self.l2:
            strength, term = self._l2(x, weights)
            if out is not None:
                add_scaled(out, x if y is None else y, strength)
            loss = loss + term
        return loss

    def _both_ways(self, inputs, targets, weights, run):
        """(loss, dx), the network being bound."""
        z, *kept = self.network.forward(inputs, run)
        loss, dz = self.loss_function.value_and_gradient(z, targets, weights)
        del z  # logits over many words are large
        self.seen(dz, weights)
        if self.loss_scale != 1:
            dz *= self.loss_scale
        # kept.pop(): our only reference, so that a layer's part goes when it is used
        return loss, self.network.backward(dz, kept.pop(), run)

    def seen(self, dz, weights):
        """Told of dL/dz, (B, ...), before it goes backward. By default nothing is done with it."""

    def sampled_gradient(self, x, rows, out, key):
        """Write into out the gradient of the mean cross-entropy of these rows, with labels drawn by `key` from the
        softmax. Label smoothing is left out: it moves the targets, not the Gauss-Newton matrix diag p - p p'."""
        self.check_draws()
        self._sampled(x, rows, out, key)

    def check_draws(self):
        if not hasattr(self.loss_function, "draw"):
            raise UserError(f"{self.name}: labels are drawn from a softmax; the loss is {self.loss_function!r}")

    def _sampled(self, x, rows, out, key, active=None):
        inputs, targets, run = self._prepare(rows, None)
        self.network.bind(x, out, active, compact=active is not None)
        z, *kept = self.network.forward(inputs, run)
        u = backend.row_uniform(key, run.rows, backend.empty((z.shape[0], prod(z.shape[1:-1])), "float64"))
        drawn = self.plain.draw(z.reshape(-1, z.shape[-1]), u.reshape(-1)).reshape(z.shape[:-1])
        if drawn.ndim > 1:  # positions that do not count still do not
            drawn = backend.xp(z).where(targets == IGNORE, IGNORE, drawn)
        _, dz = self.plain.value_and_gradient(z, drawn)
        self.network.backward(dz, kept.pop(), run)

    # ------------------------------------------------------------------------------------------------ steps

    def begin(self, t):
        self.t = t
        self.network.begin()

    def commit(self):
        self.network.commit()

    def set_seed(self, seed):
        self.seed = seed

    def reset(self):
        self.load_state({"t": 0, "statistics": self.fresh})

    def state(self):
        return {"t": self.t, "statistics": self.network.state()}

    def load_state(self, state):
        self.t = state["t"]
        self.network.begin()
        self.network.load_state(state["statistics"])

    def restrict(self, x, names):
        return RestrictedNeural(self, x, names)


class RestrictedNeural(Merging, Restricted):
    """A network in some of its segments: the others have no gradient, backward stops at the lowest active layer, and
    layers below it keep no activations."""

    def __init__(self, problem, x, names):
        super().__init__(problem, x, names)
        self.active = frozenset(self.segments.names)

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        if out is not None:
            self.check(out, "out")
        return self.problem._pass(self.place(x), rows, weights, out, inputs, dinputs, active=self.active, y=x)

    def sampled_gradient(self, x, rows, out, key):
        self.problem.check_draws()
        self.problem._sampled(self.place(x), rows, self.check(out, "out"), key, active=self.active)

    def recalibrate(self, x, rows=None, batch=500):
        self.problem.recalibrate(self.place(x), rows, batch)
