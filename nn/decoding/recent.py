"""Caches that keep the last words of a text alone, and perhaps its first ones."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

from .caches import Cache

SLACK = 16  # words beyond the recent ones that are still there, so that a text can be rolled back


class Window(Cache):
    """The last `recent` words and those of the pass at hand, with their positions in the text.

    Attention of a word appended alone sees the `recent` words before it and itself, which is MultiHeadAttention(...,
    window=recent + 1). When the first words of a text leave, models that were trained without a window collapse: their
    attention is used to rest on them (Xiao, Tian, Chen, Han & Lewis, ICLR 2024, arXiv:2309.17453).

    2 L B G (recent + slack + one pass) d numbers; up to `slack` words can be rolled back.
    """

    sinks, inside = 0, False

    def __init__(self, recent, slack=SLACK):
        self.recent, self.slack = whole("Window", "recent", recent), whole("Window", "slack", slack, 0)

    def start(self, shapes, rows, dtype):
        return RecentMemory(self, shapes, rows, dtype)


class Streaming(Cache):
    """StreamingLLM: the first `sinks` words of the text and the last `recent` ones, with positions inside the cache.

    Keys are kept as they were before rotary positions, and turned when they are used: the first sink by position 0, the
    oldest recent word by `sinks`, and so on without a gap. So no position is larger than what is kept, however long the
    text. Xiao, Tian, Chen, Han & Lewis, ICLR 2024, arXiv:2309.17453, section 3.2. A word sees the `recent` words before
    it, those of its own pass, and itself: cut after each word, as their evaluation does. Nothing is extended: what left
    is forgotten. As long as sinks + recent words hold the text, it is Full.

    Positions that are added to vectors (learned ones, sinusoids) are those inside the cache, too, but a word keeps the
    one that it was given.

    2 L B G (sinks + recent + slack + one pass) d numbers; up to `slack` words can be rolled back.
    """

    inside = True

    def __init__(self, sinks=4, recent=1020, slack=SLACK):
        self.sinks, self.recent = whole("Streaming", "sinks", sinks, 0), whole("Streaming", "recent", recent)
        self.slack = whole("Streaming", "slack", slack, 0)

    def start(self, shapes, rows, dtype):
        return RecentMemory(self, shapes, rows, dtype)


class RecentMemory:
    """Keys and values of the first `sinks` positions, then those from `first` on: (B, G, d, room) for each layer."""

    def __init__(self, cache, shapes, rows, dtype):
        self.cache, self.shapes, self.rows, self.dtype = cache, list(shapes), rows, dtype
        self.first, self.length, self.room = cache.sinks, 0, 0
        self.parts = [self.made(shape, 0) for shape in self.shapes]

    def made(self, shape, room):
        return [backend.empty((self.rows, *shape, room), self.dtype) for _ in range(2)]

    @property
    def nbytes(self):
        return sum(part.nbytes for parts in self.parts for part in parts)

    def position(self, length):
        """The position of the next word, behind `length` others."""
        return min(length, self.cache.sinks + self.cache.recent) if self.cache.inside else length

    def place(self, position):
        """Where a position is kept."""
        return position if position < self.cache.sinks else self.cache.sinks + position - self.first

    def reserve(self, length):
        """Room for a text of `length` words; what nobody will see any more goes."""
        cache = self.cache
        oldest = max(cache.sinks, self.length - cache.recent - cache.slack)
        if self.place(length) <= self.room:
            return
        held = cache.sinks + cache.recent + cache.slack + length - self.length
        room = min(held + cache.recent, 2 * max(length, 64))  # moved once in `recent` words
        begin, end = self.place(oldest), self.place(self.length)
        for i, (shape, parts) in enumerate(zip(self.shapes, self.parts, strict=True)):
            moved = self.made(shape, max(room, held))
            for old, new in zip(parts, moved, strict=True):
                new[..., : cache.sinks] = 0
                there = min(cache.sinks, self.length)
                new[..., :there] = old[..., :there]
                if end > begin:
                    new[..., cache.sinks : cache.sinks + end - begin] = old[..., begin:end]
            self.parts[i] = moved
        self.first, self.room = oldest, max(room, held)

    def extend(self, i, q, k, v, turn, start):
        cache, n = self.cache, k.shape[1]
        if turn is not None and not cache.inside:
            turn(q, start)
            turn(k, start)
        end = start + n
        for part, new in zip(self.parts[i], (k, v), strict=True):
            new = new.transpose(0, 2, 3, 1)
            sunk = max(0, min(n, cache.sinks - start))  # of the new ones
            part[..., start : start + sunk] = new[..., :sunk]
            part[..., self.place(start + sunk) : self.place(end)] = new[..., sunk:]
        self.length = end
        keys, values = (self.seen(part, start, end) for part in self.parts[i])
        first = keys.shape[1] - n
        if turn is not None and cache.inside:
            turn(keys, 0)
            turn(q, first)
        return q, keys, values, first

    def seen(self, part, start, end):
        """(B, S, G, d), without gaps: what the words start..end-1 see."""
        cache, m = self.cache, backend.xp(part)
        oldest = max(cache.sinks, start - cache.recent)
        recent = part[..., self.place(oldest) : self.place(end)] if end > oldest else part[..., :0]
        shown = m.concatenate([part[..., : min(cache.sinks, end)], recent], axis=-1)
        return m.ascontiguousarray(shown.transpose(0, 3, 1, 2))

    def rollback(self, length):
        if length - self.cache.recent < self.first and self.first > self.cache.sinks:
            raise UserError(
                f"{self.cache!r}: the words before {self.first} are gone, so that a text of {length} words cannot go "
                f"on; it can be rolled back by {self.cache.slack} words"
            )
        self.length = length

    def branch(self, rows, length):
        other = RecentMemory(self.cache, self.shapes, len(rows), self.dtype)
        rows = backend.asarray(rows)
        other.parts = [[part[rows] for part in parts] for parts in self.parts]
        other.first, other.length, other.room = self.first, length, self.room
        return other
