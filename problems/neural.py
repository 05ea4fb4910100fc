"""A network with its data and its loss: a Problem like any other.

    L(x) = (1/B) sum_b w_b ( l(network(a_b; x), t_b) + (l2/2) |x|^2 )

a_b: the inputs of row b in the network's scale: pixels minus the mean, divided by the standard deviation of their
channel, both over the training rows (images without statistics: pixel / scale); rows that are not images are taken as
they are. They are made batch by batch, from bytes. The l2 term counts all parameters, and stands in value and gradient,
not in the logged train_loss and test_loss.
"""

from nn.core import Context
from nn.kernels import gather_images
from nn.losses import SoftmaxCrossEntropy, SquaredError
from npopt import backend
from npopt.backend import elementwise
from npopt.values import Value, number, whole
from problems.base import Problem, Restricted

import numpy as np
import scipy.sparse


@elementwise
def add_scaled(y, x, a):
    """y <- y + a x."""
    y = y + a * x
    return y


class CropFlip(Value):
    """Augmentation of images: a crop after `pad` pixels of padding on each side, and a mirror image half of the time.

    A function of (seed, t, row): the row's move is the same in every pass of a step. Padding is black, 0 before
    normalisation, as in the usual pipeline for CIFAR-10 (He et al., CVPR 2016, section 4.2).
    """

    def __init__(self, pad=4, flip=True):
        self.pad, self.flip = whole("CropFlip", "pad", pad, low=0), bool(flip)

    def __call__(self, u):
        """Moves (B, 3) from uniform numbers u, (B, 3): down and right in -pad..pad, and 1 for a mirror image."""
        moves = (u * (2 * self.pad + 1)).astype("int64")        # u < 1, so at most 2 pad
        moves -= self.pad
        moves[:, 2] = (u[:, 2] < 0.5) & self.flip
        return moves


class Neural(Problem):
    """The problem of a network on a data set.

    network        nn.Network; it serves this problem alone, as its statistics belong to it
    data           x_train, y_train, x_test, y_test (None: no test), name; x_validation, y_validation where rows are
                   held out; for images mean, std (per channel, in the units of x), scale
    loss           nn.losses; SoftmaxCrossEntropy by default. Labels -1 and +1 become 0 and 1, except for SquaredError.
    l2             weight of |x|^2 / 2, at least 0
    augment        None or CropFlip(), on training passes only
    seed           of dropout and augmentation; minimize sets its own
    metrics_rows   training rows that the metrics use: the first so many, or None for all
    metrics_batch  rows in one evaluation pass

    Training passes (value, value_and_gradient) use batch statistics, dropout and augmentation; between begin(t) and
    commit() they are one fixed function. Metrics are taken in evaluation mode and change nothing. rows None is one pass
    over all rows: memory for all their activations. Gradients of a large set come from Accumulated.
    """

    def __init__(self, network, data, loss=None, l2=0.0, augment=None, seed=0, dtype="float32", metrics_rows=None,
                 metrics_batch=500, name=None):
        self.network, self.data, self.augment, self.seed = network, data, augment, seed
        self.loss_function, self.plain = SoftmaxCrossEntropy() if loss is None else loss, SoftmaxCrossEntropy()
        self.l2 = number("Neural", "l2", l2, low=0)
        self.metrics_batch = whole("Neural", "metrics_batch", metrics_batch)
        more = [f"l2={self.l2:g}"] * bool(l2) + [repr(augment)] * (augment is not None)
        self.name = name or ", ".join([f"{network.name} on {data.name}", *more])
        self.n, self.t = len(data.y_train), 0
        self.metrics_rows = self.n if metrics_rows is None else whole("Neural", "metrics_rows", metrics_rows)
        self.set_shape(network.dim, dtype, network.segments)
        self.context = Context(seed)
        present = [p for p in ("train", "validation", "test") if getattr(data, f"x_{p}", None) is not None]
        self.parts = {part: self._part(part) for part in present}
        self.scale, self.shift = self._normalisation()
        self.fresh = network.state()
        if augment is not None and len(self.row_shape) != 3:
            raise ValueError(f"{self.name}: {augment!r} is for images (H, W, C), a row has shape {self.row_shape}")

    def targets(self):
        """The training targets, on the host."""
        return np.asarray(self.data.y_train)

    def _part(self, part):
        """(rows as (n, H, W, C) or (n, 1, 1, D), targets), on the device in use."""
        x, y = getattr(self.data, f"x_{part}"), np.asarray(getattr(self.data, f"y_{part}"))
        if scipy.sparse.issparse(x):
            raise ValueError(f"{self.name}: a network needs dense rows; load the data with dense=True")
        if len(x) != len(y):
            raise ValueError(f"{self.name}: {part} has {len(x)} rows and {len(y)} targets")
        if np.prod(x.shape[1:]) != np.prod(self.network.input_shape):
            raise ValueError(
                f"{self.name}: a row has shape {x.shape[1:]}, the network expects {self.network.input_shape}"
            )
        if not isinstance(self.loss_function, SquaredError) and y.dtype.kind in "fi" and np.isin(y, (-1, 1)).all():
            y = (y + 1) / 2                             # -1, +1
        if isinstance(self.loss_function, SoftmaxCrossEntropy):
            if y.dtype.kind == "f" and (y == np.floor(y)).all():
                y = y.astype(np.int64)
        else:
            y = y.astype(self.dtype)
        self.loss_function.check(self.network.output_shape, y)
        self.row_shape = tuple(x.shape[1:])
        images = x if x.ndim == 4 else x.reshape(len(x), 1, 1, -1)
        if images.dtype != np.uint8:
            images = images.astype(self.dtype)
        return backend.asarray(np.ascontiguousarray(images)), backend.asarray(y)

    def _normalisation(self):
        """(scale, shift), (C,) each: a = scale x + shift."""
        channels, mean, std = self.parts["train"][0].shape[3], getattr(self.data, "mean", None), None
        if len(self.row_shape) != 3:
            scale, shift = np.ones(channels), np.zeros(channels)
        elif mean is None:
            scale, shift = np.full(channels, 1 / getattr(self.data, "scale", 1.0)), np.zeros(channels)
        else:
            mean, std = (np.broadcast_to(np.asarray(v, np.float64), (channels,)) for v in (mean, self.data.std))
            scale, shift = 1 / std, -mean / std
        return tuple(backend.asarray(np.ascontiguousarray(v), self.dtype) for v in (scale, shift))

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
            raise ValueError(f"{self.name}: rows must be whole numbers, got {rows.dtype}")
        if rows.ndim != 1 or not rows.shape[0]:
            raise ValueError(f"{self.name}: rows must be a vector of at least one row number, got shape {rows.shape}")
        if isinstance(rows, np.ndarray) and not (0 <= rows.min() and rows.max() < self.n):
            raise ValueError(f"{self.name}: rows must lie in 0..{self.n - 1}, got {rows.min()} to {rows.max()}")
        return backend.asarray(rows, "int64")

    def _gather(self, part, rows, augmented, owner="inputs"):
        """Inputs of these rows of a part, (B, *input_shape), valid until the next call with this owner."""
        images, ctx = self.parts[part][0], self.context
        count = images.shape[0] if rows is None else rows.shape[0]
        out = ctx.lasting(self, owner, (count, *images.shape[1:]), self.dtype)
        moves = None
        if augmented and self.augment is not None:
            u = ctx.lasting(self, "moves", (count, 3), np.dtype("float64"))
            moves = self.augment(backend.row_uniform(backend.key(self.seed, "augment", self.t), rows, u))
        gather_images(images, rows, moves, self.scale, self.shift, out)
        return out.reshape(count, *self.network.input_shape)

    def inputs(self, rows=None, augmented=False):
        """A copy of the inputs of training rows, (B, *input_shape), in the network's scale: where an attack starts."""
        return self._gather("train", self._rows(rows), augmented).copy()

    def _prepare(self, rows, inputs):
        """(inputs, targets) of a training pass; sets the context."""
        rows, ctx, targets = self._rows(rows), self.context, self.parts["train"][1]
        ctx.training, ctx.recalibrating, ctx.step, ctx.rows = True, False, self.t, rows
        if inputs is None:
            inputs = self._gather("train", rows, True)
        else:
            inputs = inputs.reshape(-1, *self.network.input_shape)
        return inputs, targets if rows is None else targets[rows]

    def _l2(self, x, weights):
        """(l2 mean(w), the term of the loss)."""
        strength = self.l2 if weights is None else self.l2 * weights.mean(dtype="float64")
        term = 0.5 * strength * x.dot(x)
        return strength, float(term) if isinstance(term, np.generic) else term

    def loss(self, x, rows, weights):
        inputs, targets = self._prepare(rows, None)
        self.network.bind(x)
        z = self.network.forward(inputs, self.context, backward=False)
        loss = self.loss_function.value(z, targets, weights, self.context)
        return loss + self._l2(x, weights)[1] if self.l2 else loss

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        """The loss; out, (dim,), receives the gradient.

        inputs   (B, *input_shape) in the network's scale (an attack in raw pixels divides its radius by std), in place
                 of the rows' own; dinputs, of that shape, receives dL / d inputs. out None: no parameter gradient.
        """
        if out is not None:
            self.check(out, "out")
        return self._pass(self.check(x), rows, weights, out, inputs, dinputs)

    def _pass(self, x, rows, weights, out, inputs, dinputs, active=None, y=None):
        """value_and_gradient; with `active`, out holds those segments alone and y is their part of x."""
        network, need_dx = self.network, dinputs is not None
        inputs, targets = self._prepare(rows, inputs)
        network.bind(x, out, active, compact=active is not None)
        z = network.forward(inputs, self.context, need_dx=need_dx)
        loss, dz = self.loss_function.value_and_gradient(z, targets, weights, self.context)
        dx = network.backward(dz, need_dx)
        if need_dx:
            dinputs[...] = dx.reshape(dinputs.shape)
        if self.l2:
            strength, term = self._l2(x, weights)
            if out is not None:
                add_scaled(out, x if y is None else y, strength)
            loss = loss + term
        return loss

    def sampled_gradient(self, x, rows, out, key):
        """out: the gradient of the mean cross-entropy of these rows, with labels drawn by `key` from the softmax. Label
        smoothing is left out: it moves the targets, not the Gauss-Newton matrix diag p - p p'."""
        self.check_draws()
        self._sampled(x, rows, out, key)

    def check_draws(self):
        if not hasattr(self.loss_function, "draw"):
            raise ValueError(f"{self.name}: labels are drawn from a softmax; the loss is {self.loss_function!r}")

    def _sampled(self, x, rows, out, key, active=None):
        network, ctx = self.network, self.context
        inputs, targets = self._prepare(rows, None)
        network.bind(x, out, active, compact=active is not None)
        z = network.forward(inputs, ctx)
        u = ctx.lasting(self, "labels", (z.shape[0], 1), np.dtype("float64"))
        backend.row_uniform(key, self._rows(rows), u)
        _, dz = self.plain.value_and_gradient(z, self.plain.draw(z, u[:, 0]), None, ctx)
        network.backward(dz)

    # ------------------------------------------------------------------------------------------------ steps

    def begin(self, t):
        self.t = t
        self.network.begin()

    def commit(self):
        self.network.commit()

    def set_seed(self, seed):
        self.seed = self.context.seed = seed

    def reset(self):
        self.load_state({"t": 0, "statistics": self.fresh})

    def state(self):
        return {"t": self.t, "statistics": self.network.state()}

    def load_state(self, state):
        self.t = state["t"]
        self.network.begin()
        self.network.load_state(state["statistics"])

    # ------------------------------------------------------------------------------------------------ evaluation

    def outputs(self, x, part="test", rows=None):
        """The network's outputs in evaluation mode, (B, *output_shape), a copy on the host; rows of that part."""
        found = [backend.to_host(z).copy() for z, _ in self._evaluate(x, part, rows)]
        return np.concatenate(found)

    def _evaluate(self, x, part, rows=None):
        """(outputs, targets) of the rows of a part, batch by batch, in evaluation mode."""
        network, ctx, targets = self.network, self.context, self.parts[part][1]
        rows = backend.xp().arange(targets.shape[0]) if rows is None else backend.asarray(rows)
        network.bind(self.check(x))
        ctx.training = ctx.recalibrating = False
        for start in range(0, rows.shape[0], self.metrics_batch):
            some = rows[start:start + self.metrics_batch]
            z = network.forward(self._gather(part, some, False, "evaluated"), ctx, backward=False)
            yield z, targets[some]

    def metrics(self, x):
        """train_loss, train_accuracy, test_loss, test_accuracy, and validation_* where rows are held out, without the
        l2 term; no accuracy for SquaredError."""
        found = {}
        for part in self.parts:
            count = self.parts[part][1].shape[0]
            if part == "train":
                count = min(count, self.metrics_rows)
            loss = right = 0.0
            for z, t in self._evaluate(x, part, backend.xp().arange(count)):       # summed there, read once
                loss = loss + self.loss_function.rows(z, t, self.context).sum(dtype="float64")
                if self.loss_function.accuracy:
                    right = right + self.loss_function.right(z, t).sum()
            found[f"{part}_loss"] = backend.to_host(loss) / count
            if self.loss_function.accuracy:
                found[f"{part}_accuracy"] = backend.to_host(right) / count
        return found

    def recalibrate(self, x, rows=None, batch=500):
        """Replace the running batch statistics by those of x over training rows (None: all), without augmentation or
        dropout. Layer by layer they are the mean and variance over all given rows, each batch normalised by itself."""
        network, ctx = self.network, self.context
        if not network.normalisers:
            return
        rows = backend.xp().arange(self.n) if rows is None else self._rows(rows)
        network.bind(self.check(x))
        ctx.training, ctx.recalibrating = False, True
        for start in range(0, rows.shape[0], batch):
            network.forward(self._gather("train", rows[start:start + batch], False, "evaluated"), ctx, backward=False)
        ctx.recalibrating = False
        for layer in network.normalisers:
            layer.recalibrate()

    def restrict(self, x, names):
        return RestrictedNeural(self, x, names)


class RestrictedNeural(Restricted):
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
