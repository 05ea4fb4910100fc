"""EXTRA: Shi, Ling, Wu & Yin, SIAM Journal on Optimization 25, 2015, arXiv:1404.6264, Algorithm 1, W~ = (I + W) / 2.

    x^1     = W x^0 - lr g(x^0), which is the next line with x^{-1} = W x^{-1} = x^0 and g(x^{-1}) = 0
    x^{k+2} = (I + W) x^{k+1} - W~ x^k - lr (g(x^{k+1}) - g(x^k))

Its fixed points are consensual and minimise sum f_i, at any constant rate. It converges for lr < 2 lmin(W~) / L, and
linearly where the sum is strongly convex. `largest_rate(graph, L)` is that bound.
"""

from npopt.distributed.base import Algorithm
from npopt.errors import UserError
from npopt.values import number

import numpy as np


class EXTRA(Algorithm):
    """The rate lr, exact gradients. One exchange a round: d numbers to each neighbour; W must be symmetric."""

    symmetric = True

    def __init__(self, lr):
        self.lr = number("EXTRA", "lr", lr, low=0)

    def node(self, me):
        x, x0, Wx0, g0 = me.state(me.start(), me.start(), me.start(), 0 * me.start())
        while True:
            g = me.gradient(x)
            Wx = yield me.gossip(x)
            x, x0, Wx0, g0 = x + Wx - (x0 + Wx0) / 2 - self.lr * (g - g0), x, Wx, g
            yield me.show(x, x0, Wx0, g0)


def largest_rate(graph, smoothness):
    """2 lmin((I + W) / 2) / L = (1 + lmin(W)) / L, for f_i that all are L-smooth: Shi et al., section 3."""
    if not graph.symmetric:
        raise UserError(f"largest_rate: {graph} has weights that are not symmetric")
    return float(1 + np.linalg.eigvalsh(graph.W.toarray())[0]) / number(
        "largest_rate", "smoothness", smoothness, low=0, open_low=True
    )
