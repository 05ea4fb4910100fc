"""Decentralised SGD: Nedic & Ozdaglar, IEEE Transactions on Automatic Control 54, 2009; Lian et al., NeurIPS 2017,
arXiv:1705.09056, Algorithm 1.

    x_i <- sum_j W_ij x_j - lr g_i(x_i)

With a constant rate and a symmetric W it minimises sum_i f_i(x_i) + (1 / (2 lr)) x'(I - W) x in the place of sum f_i.
So even with exact gradients it stops at a distance of order lr from the minimum, unless all nodes have the same one.
"""

from npopt.distributed.base import Algorithm
from npopt.values import number, whole


class DSGD(Algorithm):
    """The rate lr, on `batch` of my rows (None: all). One exchange a round: d numbers to each neighbour."""

    def __init__(self, lr, batch=None):
        self.lr = number("DSGD", "lr", lr, low=0)
        self.batch = None if batch is None else whole("DSGD", "batch", batch)

    def node(self, me):
        x = me.state(me.start())
        while True:
            g = me.gradient(x, me.batch(self.batch))
            x = yield me.gossip(x)
            x -= self.lr * g
            yield me.show(x)
