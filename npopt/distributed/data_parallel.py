"""Data-parallel SGD: every node takes the gradient over its own rows, and all step along the sum.

    x <- x - lr sum_i (n_i / n) g_i(x)

With all rows this is gradient descent on the whole problem. The sum comes from rank 0 (flat), or goes round a ring
(Patarasuk & Yuan, Journal of Parallel and Distributed Computing 69, 2009).
"""

from npopt.distributed.base import Algorithm
from npopt.values import number, whole

import numpy as np


class DataParallel(Algorithm):
    """x <- x - lr sum_i (n_i / n) g_i(x), g_i the mean over `batch` of its rows (None: all); ring: how the sum comes.

    Bytes a round, of d numbers of b bytes on p nodes: flat 2 (p - 1) b d, all through rank 0; ring 2 (p - 1) b d / p
    by each node.
    """

    def __init__(self, lr, batch=None, ring=False):
        self.lr = number("DataParallel", "lr", lr, low=0)
        self.batch = None if batch is None else whole("DataParallel", "batch", batch)
        self.ring = bool(ring)

    def node(self, me):
        x = me.state(me.start())
        while True:
            g = me.gradient(x, me.batch(self.batch)) * me.shares[me.rank]
            total = (yield from ring_sum(me, g)) if self.ring else (yield me.all_reduce(g))
            x -= self.lr * total
            yield me.show(x)


def ring_sum(me, v):
    """sum_j v_j by a ring of all nodes: `yield from ring_sum(me, v)`. A node sends 2 (p - 1) / p of v's bytes."""
    total = v.copy()
    yield from ring_scatter(me, total)
    yield from ring_gather(me, total)
    return total


def pieces(me, v):
    """v cut into p pieces, views; rank i owns piece (i + 1) mod p."""
    cuts = np.linspace(0, len(v), me.count + 1).astype(int).tolist()
    return [v[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


def owned(me, v):
    """The piece of v that is this rank's."""
    return pieces(me, v)[(me.rank + 1) % me.count]


def ring_scatter(me, v):
    """Reduce-scatter, in place: afterwards the piece of v that a rank owns is the sum over all. In p - 1 rounds a piece
    goes from node to node, and each adds its own."""
    p, i, piece = me.count, me.rank, pieces(me, v)
    for k in range(p - 1):
        me.send((i + 1) % p, piece[(i - k) % p])
        piece[(i - k - 1) % p] += yield me.receive((i - 1) % p)


def ring_gather(me, v):
    """All-gather, in place: the piece that each rank owns goes round, in p - 1 rounds."""
    p, i, piece = me.count, me.rank, pieces(me, v)
    for k in range(p - 1):
        me.send((i + 1) % p, piece[(i + 1 - k) % p])
        piece[(i - k) % p][...] = yield me.receive((i - 1) % p)
