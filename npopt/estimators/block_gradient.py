"""Gradients in some blocks of x alone: block coordinate descent. BAdam: Luo, Yu & Li, NeurIPS 2024, arXiv:2404.02827,
Algorithm 1. LISA: Pan, Liu, Diao, Pi, Zhang, Han & Zhang, NeurIPS 2024, arXiv:2403.17919, Algorithm 1."""

from npopt import backend
from npopt.errors import UserError
from npopt.estimators.layerwise import Layerwise
from npopt.values import whole

import numpy as np

ORDERS = ("ascending", "descending", "random", "uniform", "largest", "importance")


class BlockGradient(Layerwise):
    """The batch's gradient in `size` blocks of x for `period` steps, then in others; the rest of x is held.

    order     which blocks follow:
                  ascending, descending    as they stand in x, from the first, or the last, one
                  random                   a new permutation each time all of them have been chosen: BAdam
                  uniform                  `size` different ones drawn each time, each with probability size / D: LISA
                  largest                  those of the largest |g_b|, g_b the gradient in block b of the batch at hand
                  importance               drawn without replacement, the first with probability |g_b| / sum_c |g_c|
    always    blocks that are moved at every step and are not among the D: LISA's embedding, norm and head. With
              size=0 there are no others
    never     blocks that are held: BAdam leaves out embedding and head
    corrected with importance and size 1: g_b is multiplied by 1 / (D p_b), which makes the mean over draws the gradient
              up to 1/D. Adam divides that factor out again, except at the change of blocks

    Blocks are those of problem.segments.blocks. Step t belongs to phase t // period, and what is drawn is a function of
    (seed, phase). "largest" and "importance" take one more gradient, of all D blocks, at the first step of a phase, and
    count its rows. They read the norms on the host, which waits for the device. A network goes back to the lowest block
    at hand alone, and keeps no activations below it. LISA's embedding is the lowest one of all, so there the way back
    is whole.

    `active` names the blocks at hand, `phase` their number. The state that goes with them is Blockwise's.
    """

    def __init__(self, period, order="random", size=1, always=(), never=(), corrected=False):
        self.period, self.size = whole("BlockGradient", "period", period), whole("BlockGradient", "size", size, low=0)
        if order not in ORDERS:
            raise UserError(f"BlockGradient: order must be one of {', '.join(ORDERS)}, got {order!r}")
        self.order, self.always, self.never = order, listed("always", always), listed("never", never)
        self.corrected = bool(corrected)
        if self.corrected and (order != "importance" or self.size != 1):
            raise UserError("BlockGradient: corrected goes with order='importance' and size=1, where p is known")

    def start(self, problem, x, seed):
        blocks = problem.segments.blocks
        for name in (*self.always, *self.never):
            if name not in blocks:
                raise UserError(f"BlockGradient: no block is named {name!r}; the blocks are {', '.join(blocks)}")
        self.blocks = [name for name in blocks if name not in self.always and name not in self.never]
        if self.size > len(self.blocks):
            raise UserError(
                f"BlockGradient: size={self.size} blocks at a time, but there are {len(self.blocks)} to choose from: "
                f"{', '.join(self.blocks)}"
            )
        self.phase, self.factor, self.chosen = -1, 1.0, np.full(self.size, -1, np.int64)
        return super().start(problem, x, seed)

    @property
    def active(self):
        """Names of the blocks at hand, in the order of x."""
        chosen = {*self.always, *(self.blocks[i] for i in self.chosen if i >= 0)}
        return [name for name in self.problem.segments.blocks if name in chosen]

    @property
    def names(self):
        return self.active

    def __call__(self, x, batch, out):
        self.batch = batch
        phase = self.problem.t // self.period
        if phase != self.phase:
            chosen = self.choose(x, phase)
            self.chosen[:] = -1
            self.chosen[: len(chosen)] = chosen
            self.phase = phase
        return super().__call__(x, batch, out)

    def pass_through(self, x, names):
        loss, each = super().pass_through(x, names)
        if self.factor == 1:
            return loss, each
        scaled = {self.problem.segments.find(s).start for s in self.segments_of(self.blocks)}

        def corrected(take):
            each(lambda piece, g: take(piece, g * self.factor if piece.start in scaled else g))

        return loss, corrected

    def segments_of(self, blocks):
        return self.problem.segments.select(blocks).names if blocks else []

    def choose(self, x, phase):
        """Numbers of the blocks of a phase."""
        count, size = len(self.blocks), self.size
        if not size:
            return []
        if self.order in ("largest", "importance"):
            norms = self.norms(x)
            if self.order == "largest":
                return np.argsort(-norms, kind="stable")[:size]
            total = norms.sum()
            p = norms / total if total > 0 else np.full(count, 1 / count)
            size = min(size, int((p > 0).sum()))
            chosen = backend.generator(self.seed, "blocks", phase).choice(count, size, replace=False, p=p)
            self.factor = float(1 / (count * p[chosen[0]])) if self.corrected else 1.0
            return chosen
        if self.order == "uniform":
            return backend.generator(self.seed, "blocks", phase).choice(count, size, replace=False)
        cycle, place = divmod(phase, -(-count // size))
        order = np.arange(count)
        if self.order == "descending":
            order = order[::-1]
        elif self.order == "random":
            order = backend.generator(self.seed, "blocks", cycle).permutation(count)
        return order[place * size : (place + 1) * size]

    def norms(self, x):
        """|g_b| of each block, (D,), on the host."""
        squares = dict.fromkeys(self.blocks, 0.0)
        of = {s.start: s.block for s in self.problem.segments}
        loss, each = super().pass_through(x, self.blocks)

        def take(piece, gradient):
            squares[of[piece.start]] += float(backend.to_host(backend.norm(gradient))) ** 2

        each(take)
        return np.sqrt(np.array(list(squares.values())))

    def state(self):
        return super().state() | {"phase": self.phase, "factor": self.factor, "chosen": self.chosen}

    def load_state(self, state):
        super().load_state(state)
        self.phase, self.factor = int(state["phase"]), float(state["factor"])
        self.chosen[:] = backend.to_host(state["chosen"])


def listed(name, blocks):
    """Names of blocks as a tuple."""
    if isinstance(blocks, str):
        raise UserError(f"BlockGradient: {name} is a list of names of blocks, such as ['embed'], got {blocks!r}")
    return tuple(blocks)
