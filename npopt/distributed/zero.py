"""ZeRO, stage 1: Rajbhandari, Rasley, Ruwase & He, SC 2020, arXiv:1910.02054, section 5.1 (P_os).

Data-parallel training in which no optimizer state exists twice. Rank i owns a piece of x, 1/N of it:

    g_i <- (n_i / n) gradient over my rows,       reduce-scatter:  g of my piece <- sum_j g_j
    step of the optimizer on my piece of x,       all-gather:      x <- the pieces of all

Both halves are those of the ring all-reduce, with x in the place of g in the second. So a node sends what data-parallel
training sends, 2 (N - 1)/N of x's bytes, and gets the same x, bit for bit, if the optimizer acts number by number. In
float32, with K bytes of state a parameter, a node has (4 + 4 + K/N) bytes a parameter instead of 4 + 4 + K. The paper's
2 + 2 + 12/N is that of mixed precision, where K counts the float32 weights, too.
"""

from npopt.distributed.base import Algorithm
from npopt.distributed.data_parallel import owned, ring_gather, ring_scatter
from npopt.distributed.steps import checked, started
from npopt.values import number, whole


class ZeRO(Algorithm):
    """lr, an optimizer that acts number by number, `batch` rows a gradient on each node (None: all).

    sharded=False: the same without ZeRO, for comparison: the sum of the gradients goes round, and every node has all of
    the state and takes all of the step.
    """

    def __init__(self, lr, optimizer, batch=None, sharded=True):
        self.lr, self.optimizer = number("ZeRO", "lr", lr, low=0), checked("ZeRO", optimizer)
        self.batch = None if batch is None else whole("ZeRO", "batch", batch)
        self.sharded = bool(sharded)

    def node(self, me):
        x, memory = me.state(me.start(), None)
        part = owned(me, x) if self.sharded else x  # a view
        optimizer = started(self.optimizer, part, memory)
        me.work(0.0, "state", optimizer.bytes())
        while True:
            g = me.gradient(x, me.batch(self.batch)) * me.shares[me.rank]
            yield from ring_scatter(me, g)
            if self.sharded:
                optimizer.step(part, owned(me, g), self.lr)
                yield from ring_gather(me, x)
            else:
                yield from ring_gather(me, g)
                optimizer.step(x, g, self.lr)
            yield me.show(x, optimizer.state())
