"""What optimizers share that look at the pieces of x: the table of segments, norms, a trust ratio, kinds."""

import math

from npopt import backend
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer, visit
from npopt.segments import KINDS, Segments

WEIGHTS = ("matrix", "conv", "embedding")


def segments_of(x, oracle):
    """The problem's table; without one, x is a single vector."""
    table = getattr(getattr(oracle, "problem", None), "segments", None)
    if table:
        return table
    return Segments.of(("x", (int(x.size),), "vector", "x"))


def ratio(a, b, factor=1.0):
    """factor a / b, or 1 where a or b is 0: Python floats, or 0-d arrays that stay on their device."""
    if isinstance(a, float):
        return factor * a / b if a > 0 and b > 0 else 1.0
    m = backend.xp(a)
    return m.where((a > 0) & (b > 0), factor * a / m.where(b > 0, b, 1), 1)


def check_kinds(owner, kinds):
    """Names of kinds of segments, as a tuple."""
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"{owner}: kinds must be among {', '.join(KINDS)}, got {kind!r}")
    return kinds


def each_segment(owner, segments, g, take):
    """take(segment, its part of the gradient) for a gradient as `visit` takes it, in pieces of whole segments."""

    def cut(piece, gradient):
        first, stop, _ = piece.indices(segments.dim)
        done = first
        for segment in segments:
            if segment.start >= first and segment.stop <= stop:
                take(segment, gradient[segment.start - first : segment.stop - first])
                done = segment.stop
        if done != stop:
            raise UserError(
                f"{owner}: a piece of the gradient, {first}:{stop}, cuts a segment in two; give pieces of whole "
                "segments"
            )

    visit(g, segments.dim, cut)


class BySegment(Optimizer):
    """A subclass gives `update_segment(segment, x, g, lr, *arrays, *options)`, all cut to the segment.

    The pieces are flat. The part of an Array has the shape that the Array gives this segment; where that is None, the
    part is None. Parts lie in one flat array, in the order of the segments. The gradient may come in pieces, each of
    whole segments.
    """

    def start(self, x, oracle=None):
        self.segments, self._places, self._work = segments_of(x, oracle), {}, None
        if self.segments.dim != x.size:
            raise UserError(
                f"{type(self).__name__}: the problem's segments have {self.segments.dim} numbers, x has {x.size}"
            )
        super().start(x, oracle)

    def allocate(self, array, x):
        if array.shape is None:
            return super().allocate(array, x)
        places, stop = {}, 0
        for segment in self.segments:
            shape = array.shape(segment)
            if shape is not None:
                places[segment.name] = (slice(stop, stop + math.prod(shape)), shape)
                stop += math.prod(shape)
        self._places[array.name] = places
        if self.keeper is not None and array.dtype is None and array.name in self.by_formulas:
            return self.keeper(array.name, x, {name: piece for name, (piece, _) in places.items()})
        return backend.xp(x).zeros(stop, dtype=array.dtype or x.dtype)

    def cut(self, segment):
        """The parts of the state's arrays that belong to this segment, as views."""
        parts = []
        for name, slot in self._slots.items():
            if name not in self._places:
                parts.append(slot[segment.slice])
            elif segment.name in self._places[name]:
                piece, shape = self._places[name][segment.name]
                parts.append(slot[piece].reshape(shape))
            else:
                parts.append(None)
        return parts

    def step(self, x, g, lr):
        self.t += 1
        options = self.current()

        def take(segment, part):
            rate, *rest = [v[segment.slice] if getattr(v, "ndim", 0) else v for v in (lr, *options)]
            self.update_segment(segment, x[segment.slice], part, rate, *self.cut(segment), *rest)

        each_segment(type(self).__name__, self.segments, g, take)

    def update_segment(self, segment, x, g, lr, *arrays):
        raise UserError(f"{type(self).__name__} has no update_segment")

    def work(self, x):
        """Memory like x, kept from step to step."""
        if self._work is None or self._work.size < x.size:
            self._work = backend.xp(x).empty_like(x)
        return self._work[: x.size]
