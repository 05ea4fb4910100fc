"""Passes from a layer on: where one layer's parameters change, what the layers before it made is not made again.

DeepZero's feature reuse: Chen et al., ICLR 2024, arXiv:2310.02025, section 4. A stage is a layer of the network's
outermost chain, a whole Residual for example; chains inside of chains are taken apart. A change inside of a stage costs
that stage and those behind it.
"""

import bisect

from npopt.directions import moved

from . import kernels, narrow
from .composites import Sequential
from .layer import cast


def taken_apart(layer):
    """(layer, whether it may write over its input) of every stage, in forward order."""
    if not isinstance(layer, Sequential):
        yield layer, False
        return
    chain = layer.plans[kernels.plan()]
    for child, inplace in zip(chain.layers, chain.inplace, strict=True):
        if isinstance(child, Sequential):
            yield from taken_apart(child)
        else:
            yield child, inplace


class Stages:
    """The stages of a network, bound or not."""

    def __init__(self, network):
        self.network, self.stages = network, list(taken_apart(network.layer))
        paths = [layer.path for layer, _ in self.stages]

        def stage(user):
            return next(
                i for i, path in enumerate(paths) if path in ("", user.path) or user.path.startswith(path + ".")
            )

        # the first stage that uses a segment
        self.first = [min(stage(layer) for layer, _ in network.users[s.name]) for s in network.segments]
        self.starts = [s.start for s in network.segments]

    def of(self, i):
        """The number of the first stage that number i of x is used in."""
        return self.first[bisect.bisect_right(self.starts, i) - 1]

    def forward(self, h, run, begin, end=None):
        """Stages begin, ..., end - 1 on h, which the first of them does not write over."""
        with narrow.passing(self.network, run) as run:
            for i, (layer, inplace) in enumerate(self.stages[begin:end]):
                h, _ = layer.forward(h, run.asking(False, False, inplace and i > 0))
        return h

    def moved_values(self, x, places, amounts, inputs, run, value):
        """Problem.moved_values of a network: value(outputs) gives the number. run: without backward."""
        network = self.network
        first = narrow.given(inputs, run.compute) if narrow.narrow(network, run) else cast(inputs, run.compute)
        if run.training and network.pending is None and network.keepers:
            network.forward(inputs, run)  # the step's batch statistics are those of x itself
        h, at = first, 0
        for i in places:
            stage = self.of(i)
            if stage < at:
                h, at = first, 0
            network.bind(x)
            h, at = self.forward(h, run, at, stage), stage

            def changed(h=h, stage=stage):
                network.bind(x)
                return value(cast(self.forward(h, run, stage), run.compute and x.dtype))

            yield from moved(x, (i,), amounts, changed)
