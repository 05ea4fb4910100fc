"""Tensor parallelism: Shoeybi et al. 2019, arXiv:1909.08053 (Megatron-LM), section 3.

Every node goes through the whole network with the same rows, but has 1/N of each matrix of the feed-forward parts and
of attention. A part is cut first by columns, then by rows:

    Y = phi(X A) B = sum_i phi(X A_i) B_i,       A = [A_1 ... A_N],   B = [B_1; ...; B_N]

In attention A_i are the maps to queries, keys and values of some heads, and B_i the rows of the map behind them. Two
conjugate functions stand around a part: f passes X on and sums dX over all nodes, g sums Y over all and passes dY on. A
layer of a Transformer has two parts, so it needs two all-reduces forward and two back, each of B T D numbers. All else
(vectors of words, norms, the head) every node has whole and computes alike.
"""

import itertools

from npopt.distributed.base import Algorithm
from npopt.distributed.data_parallel import ring_sum
from npopt.distributed.steps import checked, started
from npopt.optimizers.sgd import SGD
from npopt.values import number, whole


class TensorParallel(Algorithm):
    """lr, an optimizer that acts number by number (None: SGD), `batch` rows, drawn alike on all nodes (None: all).

    A node's problem is a problems.parts.Shard. ring: how sums come, see DataParallel; B T D numbers of b bytes cost
    2 (N - 1) b B T D either way. On the simulated clock a node takes 1/N of row_seconds for a row.
    """

    parted = True

    def __init__(self, lr, batch=None, optimizer=None, ring=False):
        self.lr = number("TensorParallel", "lr", lr, low=0)
        self.batch = None if batch is None else whole("TensorParallel", "batch", batch)
        self.optimizer = checked("TensorParallel", SGD() if optimizer is None else optimizer)
        self.ring = bool(ring)

    def total(self, me, v):
        """sum_j v_j of all nodes."""
        flat = v.reshape(-1)
        found = (yield from ring_sum(me, flat)) if self.ring else (yield me.all_reduce(flat))
        return found.reshape(v.shape)

    def node(self, me):
        x, begin, memory = me.state(me.start(), 0, None)
        net, optimizer, g = me.problem, started(self.optimizer, x, memory), 0 * x
        net.set_seed(me.seed)
        for t in itertools.count(begin):
            net.begin(t)
            h, run = net.enter(x, g, me.common_batch(self.batch, t))
            kept = []
            for part in net.parts:
                y, saved = part.forward(h, run)
                h, more = part.join(h, (yield from self.total(me, y)), run) if part.split else (y, None)  # g
                kept.append((saved, more))
            me.work(len(run.rows) * me.row_seconds / me.count, "gradient", t)
            net.seen(kept)
            d = net.slope(h)
            for part in reversed(net.parts):
                saved = kept.pop()
                dh = part.backward(d, saved, run)
                d = part.leave(d, (yield from self.total(me, dh)), saved, run) if part.split else dh  # f
            net.done()
            optimizer.step(x, g, self.lr)
            net.commit()
            yield me.show(x, t + 1, optimizer.state())
