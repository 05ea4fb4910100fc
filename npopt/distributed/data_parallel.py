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
    """sum_j v_j by a ring of all nodes: `yield from ring_sum(me, v)`.

    v is cut into p pieces. In p - 1 rounds a piece goes from node to node and each adds its own; then in p - 1 rounds
    the finished pieces go round. A node sends 2 (p - 1) / p of v's bytes.
    """
    p, i = me.count, me.rank
    if p == 1:
        return v.copy()
    total, right, left = v.copy(), (i + 1) % p, (i - 1) % p
    cuts = np.linspace(0, len(v), p + 1).astype(int).tolist()
    piece = [total[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    for k in range(p - 1):
        me.send(right, piece[(i - k) % p])
        piece[(i - k - 1) % p] += yield me.receive(left)
    for k in range(p - 1):
        me.send(right, piece[(i + 1 - k) % p])
        piece[(i - k) % p][...] = yield me.receive(left)
    return total
