"""Parts of a network as the problems of nodes: a stage of a pipeline, a shard of every layer.

    problems = [Stage(gpt2(...), feed(), stage=k, stages=4) for k in range(4)]
    run = simulate(GPipe(0.1), problems, rounds=10)
    x = together(problems, run.x)                     # the whole network's

Each node makes a network and a feed of its own. x0 is the node's part of the whole network's, which is made from the
same draws everywhere. What stages send one another is an array of activations, or of their gradients.
"""

from nn import Run, SoftmaxCrossEntropy, parallel
from npopt import backend
from npopt.errors import UserError
from npopt.values import whole
from problems.base import Problem

import numpy as np


class Part(Problem):
    """Common: the whole network without parameters, which knows shapes, names and starts; and this node's network.

    feed, loss, dtype   as of problems.neural.Neural
    """

    def __init__(self, network, feed, loss, dtype, own, name):
        self.whole, self.feed, self.network, self.name, self.seed = network, feed, own, name, 0
        self.loss_function = SoftmaxCrossEntropy() if loss is None else loss
        self.set_shape(own.dim, dtype, own.segments)
        feed.place(network, self.loss_function, self.dtype)
        self.n = feed.n

    def ingredients(self):
        """What identifies the problem."""
        return dict(network=self.whole, feed=self.feed, loss=self.loss_function, dtype=self.dtype.name, part=self.name)

    def x0(self, rng):
        return self.gather(self.whole.x0(rng, self.dtype))

    def gather(self, x):
        """This node's numbers of x, a vector of the whole network."""
        out = backend.empty((self.dim,), x.dtype)
        for segment, mine, there in self.places():
            out[segment.slice].reshape(segment.shape)[...] = x[there.slice].reshape(there.shape)[mine]
        return out

    def scatter(self, own, x):
        """Write this node's numbers to their places in x."""
        for segment, mine, there in self.places():
            x[there.slice].reshape(there.shape)[mine] = own[segment.slice].reshape(segment.shape)
        return x

    def places(self):
        """(this node's segment, its place in the whole network's segment, that segment)"""
        for segment in self.segments:
            there = self.whole.segments.find(segment.name)
            yield segment, self.place(segment, there), there

    def place(self, segment, there):
        return ...

    def set_seed(self, seed):
        self.seed = seed

    def begin(self, t):
        self.t = t
        self.network.begin()

    def commit(self):
        self.network.commit()

    def seen(self, kept):
        """Told of all that is kept for the way back, after each pass forward. By default nothing is done with it."""

    def state(self):
        return super().state() | {"statistics": self.network.state()}

    def load_state(self, state):
        super().load_state(state)
        self.network.load_state(state["statistics"])

    def run(self, rows, **asked):
        return Run(training=True, seed=self.seed, step=self.t, rows=rows, **asked)

    def batch(self, rows):
        return self.feed.batch("train", rows, (self.seed, self.t))


class Stage(Part):
    """Stage number `stage` of `stages`: consecutive children of the network's outermost Sequential (nn.parallel.cuts).

    share: of the network's blocks, by which the simulated clock takes its time
    """

    def __init__(self, network, feed, loss=None, *, stage, stages, dtype="float32"):
        if not 0 <= whole("Stage", "stage", stage, 0) < whole("Stage", "stages", stages):
            raise UserError(f"Stage: stage must lie in 0..{stages - 1}, got {stage}")
        first, stop, self.share = parallel.cuts(network, stages)[stage]
        self.first, self.last, self.gradient = stage == 0, stage == stages - 1, None
        own = parallel.stage(network, first, stop)
        super().__init__(network, feed, loss, dtype, own, f"stage {stage} of {stages} of {network.name}")

    def cut(self, rows, parts):
        """A batch's row numbers, as those of its micro-batches, on the device."""
        if len(rows) < parts:
            raise UserError(f"{self.name}: {len(rows)} rows cannot be cut into {parts} micro-batches")
        if self.last:
            self.counted = self.loss_function.count(self.batch(backend.asarray(rows, "int64"))[1])
        return [backend.asarray(some, "int64") for some in np.array_split(rows, parts)]

    def bind(self, x):
        if self.gradient is None:
            self.gradient = backend.empty((self.dim,), self.dtype)
        self.network.bind(x, self.gradient)

    def forward(self, x, h, rows):
        """(y, saved) of a micro-batch; h is what the stage before made of it, None on the first one."""
        self.bind(x)
        h = self.batch(rows)[0] if self.first else h
        y, saved = self.network.forward(h, self.run(rows, backward=True, dx=not self.first))
        return y, (saved, y if self.last else None)

    def backward(self, dy, saved, rows, g):
        """dh of a micro-batch, None on the first stage; its part of the batch's gradient is added to g. dy is None on
        the last stage, which has the loss."""
        inner, z = saved
        del saved
        if self.last:
            targets = self.batch(rows)[1]
            _, dy = self.loss_function.value_and_gradient(z, targets)
            dy *= self.loss_function.count(targets) / self.counted
        stack = [inner]
        del inner, z
        dh = self.network.backward(dy, stack.pop(), self.run(rows, backward=True, dx=not self.first))
        g += self.gradient
        return dh


class Shard(Part):
    """Rank's share of `ranks` of every feed-forward part and of all attention, and all else whole (nn.parallel)."""

    def __init__(self, network, feed, loss=None, *, rank, ranks, dtype="float32"):
        if not 0 <= whole("Shard", "rank", rank, 0) < whole("Shard", "ranks", ranks):
            raise UserError(f"Shard: rank must lie in 0..{ranks - 1}, got {rank}")
        self.rank = rank
        own, self.parts = parallel.sharded(network, rank, ranks)
        super().__init__(network, feed, loss, dtype, own, f"rank {rank} of {ranks} of {network.name}")

    def place(self, segment, there):
        """The block of the one axis that is cut."""
        where = [slice(None)] * len(there.shape)
        for axis, (own, all_of_it) in enumerate(zip(segment.shape, there.shape, strict=True)):
            if own != all_of_it:
                where[axis] = slice(self.rank * own, (self.rank + 1) * own)
        return tuple(where)

    def enter(self, x, g, rows):
        """(inputs of these rows, the pass), with parameters in x and their gradients in g."""
        rows = backend.asarray(rows, "int64")
        self.network.bind(x, g)
        h, self.targets_of_pass = self.batch(rows)
        return h, self.run(rows, backward=True, dx=True)

    def slope(self, z):
        """dL/dz of the outputs."""
        return self.loss_function.value_and_gradient(z, self.targets_of_pass)[1]

    def done(self):
        self.network.add_shared()


def together(parts, shown):
    """The whole network's x, from what the nodes have, (dim of each,)."""
    x = backend.empty((parts[0].whole.dim,), shown[0].dtype)
    for part, own in zip(parts, shown, strict=True):
        part.scatter(own, x)
    return x
