"""Stochastic gradient descent: Robbins & Monro, Annals of Mathematical Statistics 22, 1951."""

from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer


@elementwise
def sgd(x, g, lr):
    x = x - lr * g
    return x


class SGD(Optimizer):
    """x <- x - lr g

    It has no weight decay of its own: for SGD the coupled form (the problem's l2) and the decoupled one are the same
    step. Momentum is HeavyBall or Nesterov.
    """

    plain = True

    def update(self, x, g, lr):
        sgd(x, g, lr)
