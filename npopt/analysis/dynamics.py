"""What the steps of a run say of themselves: the chapter's curves, with norms as it sums them and as they are."""

import math

from npopt import backend
from npopt.analysis.products import length

NAMES = ("gradient", "weights", "change")


class Dynamics:
    """Told of each step, it returns {name: float}. x, (dim,): where the run starts, copied; segments: those of x.

        gradient   |g|                                 weights    |x|, after the step
        change     |x - x_0|                           update     |x - x_before|
        ratio      |x - x_before| / |x_before|         cosine     g'g_before / (|g| |g_before|), NaN at the first step

    These are norms of the whole vector. gradient_sum, weights_sum and change_sum are sums over the segments of their
    norms, sum_s |g_s|, as many logs have them: at least the norm of the whole, at most the root of the number of
    segments times that. On a device a step waits for its numbers. It takes about ten passes over x, and three copies of
    it are kept.
    """

    def __init__(self, segments, x):
        self.segments, self.first, self.before, self.last = segments, x.copy(), x.copy(), None

    def __call__(self, x, g):
        """Of the step that led to x along g, both (dim,) and left as they are."""
        found = {}
        for name, v in zip(NAMES, (g, x, x - self.first), strict=True):
            parts = [length(v[segment.slice]) for segment in self.segments]
            found[name], found[f"{name}_sum"] = math.hypot(*parts), math.fsum(parts)
        found["update"], size = length(x - self.before), length(self.before)
        found["ratio"], found["cosine"] = found["update"] / size if size else math.nan, math.nan
        if self.last is None:
            self.last = g.copy()
        else:
            product, lengths = float(backend.to_host(g @ self.last)), found["gradient"] * length(self.last)
            found["cosine"] = product / lengths if lengths else math.nan
            self.last[...] = g
        self.before[...] = x
        return found
