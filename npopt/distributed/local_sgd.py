"""Local SGD: Stich, ICLR 2019, arXiv:1805.09767, Algorithm 1.

    steps times:  x_i <- x_i - lr g_i(x_i);        then  x_i <- sum_j (n_j / n) x_j

With unequal data and a constant rate its fixed point for steps > 1 is not the minimum.
"""

from npopt.distributed.base import Algorithm
from npopt.values import number, whole


class LocalSGD(Algorithm):
    """`steps` steps of SGD at home with the rate lr, on `batch` of my rows (None: all); then the mean of all x."""

    def __init__(self, lr, steps=5, batch=None):
        self.lr, self.steps = number("LocalSGD", "lr", lr, low=0), whole("LocalSGD", "steps", steps)
        self.batch = None if batch is None else whole("LocalSGD", "batch", batch)

    def node(self, me):
        x = me.state(me.start())
        while True:
            for _ in range(self.steps):
                x -= self.lr * me.gradient(x, me.batch(self.batch))
            x = yield me.all_reduce(x * me.shares[me.rank])
            yield me.show(x)
