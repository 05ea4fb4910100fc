"""The direction of the gradient alone: normalised gradient descent; Hazan, Levy & Shalev-Shwartz, NIPS 2015."""

from npopt.backend import elementwise, norm
from npopt.estimators.clipped import Clipping
from npopt.estimators.minibatch import Minibatch
from npopt.values import number


@elementwise
def normalise(g, size, beta):
    g = g * (1 / (size + beta) if size + beta > 0 else 1.0)
    return g


class Normalised(Clipping):
    """g <- g / (|g| + beta), |g| the Euclidean norm over all coordinates; a gradient of zeros stays zero.

    With SGD the step is h g, h = lr / (|g| + beta). That of Clipped(c) at the rate lr / c is k g with h <= k <= 2 h
    where beta = c: Zhang, He, Sra & Jadbabaie, ICLR 2020, section 2.
    """

    def __init__(self, beta=0.0, inner=None):
        self.beta = number("Normalised", "beta", beta, low=0)
        self.inner = Minibatch() if inner is None else inner

    def clip(self, g):
        normalise(g, norm(g), self.beta)
