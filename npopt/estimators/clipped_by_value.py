"""Clipping number by number: Mikolov, PhD thesis, Brno 2012, section 3.2.2; Graves, arXiv:1308.0850."""

from npopt.backend import elementwise
from npopt.estimators.clipped import Clipping
from npopt.estimators.minibatch import Minibatch
from npopt.values import number


@elementwise
def limit(g, c):
    g = -c if g < -c else c if g > c else g  # NaN stays
    return g


class ClippedByValue(Clipping):
    """g_j <- max(-c, min(g_j, c)) for each coordinate j: the direction changes, and with it the mean of the steps."""

    def __init__(self, c, inner=None):
        self.c = number("ClippedByValue", "c", c, low=0, open_low=True)
        self.inner = Minibatch() if inner is None else inner

    def clip(self, g):
        limit(g, self.c)
