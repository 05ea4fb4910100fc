"""Clipping by the norm of each parameter tensor, "by layer"."""

from npopt.backend import norm
from npopt.estimators.clipped import Clipping, shrink
from npopt.estimators.minibatch import Minibatch
from npopt.segments import Segments
from npopt.values import number


class ClippedBySegment(Clipping):
    """g_s <- min(1, c / |g_s|) g_s for each segment s of the problem (a weight, a bias, ...), |.| the Euclidean norm.

    The whole is at most c sqrt(number of segments) long, and its direction changes where some segments are cut and
    others not: it is not Clipped, although libraries have used this form under that name. A problem without segments is
    one vector.
    """

    def __init__(self, c, inner=None):
        self.c = number("ClippedBySegment", "c", c, low=0, open_low=True)
        self.inner = Minibatch() if inner is None else inner

    def start(self, problem, x, seed):
        own = getattr(problem, "segments", None)
        self._segments = own or Segments.of(("x", (int(x.size),), "vector", "x"))
        return super().start(problem, x, seed)

    def clip(self, g):
        for segment in self._segments:
            part = g[segment.slice]
            shrink(part, norm(part), self.c)
