"""A method whose state is that of the blocks at hand."""

from npopt import backend
from npopt.errors import UserError
from npopt.optimizers.averaging import check_inner
from npopt.optimizers.base import Optimizer, as_array, visit

import numpy as np


class Blockwise(Optimizer):
    """`inner` in the blocks whose gradient its estimator, a BlockGradient, hands out.

        minimize(problem, Blockwise(Adam()), ..., estimator=BlockGradient(100, never=["embed", "head"]))         BAdam
        minimize(problem, Blockwise(AdamW()), ..., estimator=BlockGradient(20, "uniform", size=2,
                 always=["embed", "norm", "head"]))                                                              LISA

    Each block has a step counter of its own, by which Adam corrects its moments. When the blocks change, the new ones
    begin with a state of zero and at t = 1. The state of blocks that are `always` moved goes on. So its memory is that
    of those, and of the `size` largest others. keep=True: the state of every block is kept until its next turn, in
    vectors like x.

    inner is a method that works number by number and keeps arrays like x: SGD, momentum, Adam, AdamW, Lion and others.

    BAdam: Luo, Yu & Li, NeurIPS 2024, arXiv:2404.02827, Algorithm 1. LISA: Pan, Liu, Diao, Pi, Zhang, Han & Zhang,
    NeurIPS 2024, arXiv:2403.17919, Algorithm 1.
    """

    numbers = {"phase": -1}
    parts = ("inner",)

    def __init__(self, inner, keep=False):
        self.inner, self.keep = check_inner("Blockwise", inner), bool(keep)
        name = type(inner).__name__
        arrays = [as_array(a) for a in inner.arrays]
        if type(inner).step is not Optimizer.step or inner.numbers or inner.parts or any(a.shape for a in arrays):
            raise UserError(f"Blockwise: {name} does not work number by number; take a method such as Adam() or SGD()")
        if any(getattr(getattr(inner, option), "ndim", 0) for option in inner.options):
            raise UserError(f"Blockwise: options of {name} that are arrays like x do not go with it; give numbers")

    def start(self, x, oracle=None):
        if not hasattr(oracle, "active") or not hasattr(oracle, "always"):
            raise UserError("Blockwise: its estimator says which blocks are at hand; give estimator=BlockGradient(...)")
        table = oracle.problem.segments
        self.pieces = {block: [s for s in table if s.block == block] for block in table.blocks}
        sizes = {block: sum(s.size for s in found) for block, found in self.pieces.items()}
        self.kept_part = sum(sizes[block] for block in oracle.always)
        others = sorted((sizes[block] for block in oracle.blocks), reverse=True)
        capacity = self.kept_part + sum(others if self.keep else others[: oracle.size])
        super().start(x, oracle)
        self.inner.start(backend.xp(x).empty(capacity, x.dtype), oracle)
        self.times, self._laid = np.zeros(len(table.blocks), np.int64), None

    def step(self, x, g, lr):
        self.t += 1
        if self.oracle.phase != self.phase:
            self.change()
        if self._laid != self.phase:
            self.lay()
        table = list(self.pieces)
        for block in self.oracle.active:
            self.times[table.index(block)] += 1
        inner, slots = self.inner, list(self.inner._slots.values())
        options = inner.current()

        def take(piece, gradient):
            number, first = self.places[piece.start]
            inner.t = int(self.times[number])
            cut = [slot[first : first + gradient.size] for slot in slots]
            inner.update(x[piece], gradient, lr[piece] if getattr(lr, "ndim", 0) else lr, *cut, *options)

        visit(g, x.size, take)

    def change(self):
        """Other blocks: what they find is a state of zero, unless it is kept."""
        if not self.keep:
            for slot in self.inner._slots.values():
                slot[self.kept_part :] = 0
            for i, block in enumerate(self.pieces):
                if block not in self.oracle.always:
                    self.times[i] = 0
        self.phase = self.oracle.phase

    def lay(self):
        """Where in the state the pieces of x are: those that always move first."""
        oracle, self.places, first = self.oracle, {}, 0
        chosen = oracle.blocks if self.keep else [block for block in oracle.active if block not in oracle.always]
        for block in (*oracle.always, *chosen):
            for segment in self.pieces[block]:
                self.places[segment.start] = list(self.pieces).index(block), first
                first += segment.size
        self._laid = self.phase

    def kept(self):
        return super().kept() | {"times": self.times}
