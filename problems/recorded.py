"""A network's pass as one launch, on a device that can record what is launched (npopt/backend/graphs.py).

A training step repeats the same pass on other rows. When a pass comes for the third time, it is recorded. From then on
rows and targets are copied to where the recorded pass reads them, and everything is launched at once. The arithmetic is
the same, bit for bit. Passes that differ in addresses, shapes or precision have recordings of their own; MOST of them
are kept.

A layer that asks for the step or the rows, as dropout does, does other work in each step. So its network runs launch by
launch.
"""

import warnings

from nn import Run, kernels
from nn.network import Network
from npopt import backend

LEAST, MOST = 3, 4  # how often a pass comes before it is recorded, itself included; recordings kept for a problem


class Changing(Exception):
    """A layer's work depends on more than arrays."""


class Still(Run):
    """What a recorded pass is told: nothing that changes from step to step."""

    @property
    def step(self):
        raise Changing

    @step.setter
    def step(self, value):
        pass

    seed = rows = step


class Recordings:
    """The recorded passes of one problem; `both_ways(inputs, targets, weights, run)` is the pass, (loss, dx).

    numbers() gives the numbers that a pass reads beside arrays. A pass with other numbers has a recording of its own.
    """

    def __init__(self, network, both_ways, numbers=tuple):
        self.network, self.both_ways, self.numbers = network, both_ways, numbers
        self.seen, self.refused = {}, False

    def __call__(self, x, out, active, inputs, targets, weights, run):
        """(loss, dx) of both_ways on a network that is bound to x and out."""
        given = *(inputs if isinstance(inputs, tuple) else (inputs,)), targets, weights
        owner = backend.owner(targets)
        if self.refused or not owner.records or not Network.recordable or kernels.chosen() == "reference":
            return self.both_ways(inputs, targets, weights, run)
        leaves = self.network.pending is None and run.pending is None
        addresses = [None if a is None else a.data.ptr for a in (x, out)]
        shapes = [None if a is None else (a.shape, a.dtype.char) for a in given]
        key = (
            *addresses,
            active,
            *shapes,
            *self.numbers(),
            run.compute,
            x.dtype.char,
            run.backward,
            run.dx,
            leaves,
            kernels.chosen(),
            owner.products_in,
        )
        found = self.seen.get(key, 0)
        if isinstance(found, int):
            if found + 1 < LEAST or sum(not isinstance(one, int) for one in self.seen.values()) >= MOST:
                # points that never come again, as of a line search, must not fill the memory: begin anew
                self.seen = {**self.seen, key: found + 1} if len(self.seen) < 10 * MOST else {}
                return self.both_ways(inputs, targets, weights, run)
            found = self.seen[key] = self._recorded(owner, given, run, leaves)
            if found is None:
                return self.both_ways(inputs, targets, weights, run)
        arrays, replay = found
        for own, a in zip(arrays, given, strict=True):
            if a is not None:
                own[...] = a
        before = self.network.pending
        loss, dx, left = replay()
        self.network.pending = left if leaves else before
        return loss.copy(), dx

    def _recorded(self, owner, given, run, leaves):
        """(the arrays that the recording reads, the recording), or None."""
        network, arrays = self.network, [None if a is None else a.copy() for a in given]
        *inputs, targets, weights = arrays
        inputs = inputs[0] if len(inputs) == 1 else tuple(inputs)
        still = Still(training=run.training, backward=run.backward, dx=run.dx, compute=run.compute)

        def function():
            network.pending = None if leaves else {}
            return *self.both_ways(inputs, targets, weights, still), network.pending

        before = network.pending
        try:
            return arrays, owner.recorded(function)
        except Changing:
            self.refused = True
        except Exception as error:  # a pass that reads a number, a library that does not record
            self.refused = True
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            warnings.warn(f"{network.name} runs launch by launch, it cannot be recorded: {why}", stacklevel=4)
        finally:
            network.pending = before
