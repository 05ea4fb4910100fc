"""Gradient tracking: Nedic, Olshevsky & Shi, SIAM Journal on Optimization 27, 2017 (DIGing); Qu & Li, IEEE Transactions
on Control of Network Systems 5, 2018.

    x_i+ = sum_j W_ij x_j - lr y_i,      y_i+ = sum_j W_ij y_j + g_i(x_i+) - g_i(x_i),      y_i^0 = g_i(x_i^0)

The mean of the y_i is the mean of the g_i at all times, and they agree in the end: so x stops at the minimum. W need
not be symmetric.
"""

from npopt.distributed.base import Algorithm
from npopt.values import number, whole


class GradientTracking(Algorithm):
    """The rate lr, on `batch` of my rows (None: all). One exchange a round: 2 d numbers to each neighbour."""

    def __init__(self, lr, batch=None):
        self.lr = number("GradientTracking", "lr", lr, low=0)
        self.batch = None if batch is None else whole("GradientTracking", "batch", batch)

    def node(self, me):
        x = me.start()
        g = me.gradient(x, me.batch(self.batch))
        x, g, y = me.state(x, g, g.copy())
        while True:
            Wx, Wy = yield me.gossip(x, y)
            x = Wx - self.lr * y
            old, g = g, me.gradient(x, me.batch(self.batch))
            y = Wy + g - old
            yield me.show(x, g, y)
