"""Caches that keep the words to which attention has been paid: H2O and SnapKV. Each head keeps words of its own."""

import math

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

from ..attention import probabilities
from .caches import Cache


class H2O(Cache):
    """The last `recent` words, and `heavy` others: those with the largest sum of attention probabilities so far.

    Zhang et al., NeurIPS 2023, arXiv:2306.14048, Algorithm 1: the probabilities that queries gave to a key are summed
    over all queries since it came (here over the query heads that share the key's head, too); after each pass the
    heads throw away what has the smallest sum and is not recent, until heavy + recent are left. Positions are those of
    the text. As long as heavy + recent words hold the text, it is Full. What was thrown away is gone: a text can be
    rolled back only as long as nothing was.

    2 L B G (heavy + recent) d numbers, and a sum and a position for each key and head.
    """

    def __init__(self, heavy, recent):
        self.heavy, self.recent = whole("H2O", "heavy", heavy, 0), whole("H2O", "recent", recent)

    def check(self, layers):
        super().check(layers)
        check_scale(self, layers)

    def start(self, shapes, rows, dtype):
        return ChosenMemory(self, shapes, rows, dtype)

    def kept(self, sums, p, n, start):
        """Places of the keys to keep, (B, G, S'), and the new sums; p: (B, G, H/G n, S), probabilities of this pass."""
        sums = sums + p.sum(axis=2)
        size = self.heavy + self.recent
        return (None if sums.shape[-1] <= size else chosen(sums, size, self.recent)), sums


class SnapKV(Cache):
    """Of the first pass, the prompt, the last `window` words and `size` others, which those paid most attention to.

    Li et al. 2024, arXiv:2404.14469, section 4: probabilities of the last `window` queries are summed, and smoothed
    over `kernel` neighbours by their largest, so that a word stays with the words about it. All that comes after the
    prompt is kept. Positions are those of the text.
    """

    def __init__(self, size, window=32, kernel=7):
        self.size, self.window = whole("SnapKV", "size", size), whole("SnapKV", "window", window)
        self.kernel = whole("SnapKV", "kernel", kernel)
        if not self.kernel % 2:
            raise UserError(f"SnapKV: kernel must be odd, got {kernel}")

    def check(self, layers):
        super().check(layers)
        check_scale(self, layers)

    def start(self, shapes, rows, dtype):
        return ChosenMemory(self, shapes, rows, dtype)

    def kept(self, sums, p, n, start):
        size = self.size + self.window
        if start or n <= size:
            return None, sums
        B, G, queries, S = p.shape
        votes = p.reshape(B, G, -1, n, S)[:, :, :, -self.window :].sum(axis=(2, 3))
        return chosen(largest_near(votes, self.kernel), size, self.window), sums


def check_scale(cache, layers):
    for layer in layers:
        if not math.isclose(layer.scale, layer.width**-0.5):
            raise UserError(f"{cache!r} takes scores with the scale 1/sqrt(d), and {layer!r} has another")


def largest_near(votes, kernel):
    """The largest of `kernel` neighbours along the last axis."""
    m, half, size = backend.xp(votes), kernel // 2, votes.shape[-1]
    padded = m.zeros((*votes.shape[:-1], size + 2 * half), votes.dtype)
    padded[..., half : half + size] = votes
    found = padded[..., :size]
    for shift in range(1, kernel):
        found = m.maximum(found, padded[..., shift : shift + size])
    return found


def chosen(votes, size, recent):
    """Places of the last `recent` and of the size - recent largest others, in order: (B, G, size). Ties: the first."""
    m, total = backend.xp(votes), votes.shape[-1]
    before = total - recent
    best = m.argsort(-votes[..., :before], axis=-1, kind="stable")[..., : size - recent] if size > recent else None
    last = m.broadcast_to(m.arange(before, total), (*votes.shape[:-1], recent))
    if best is None:
        return last
    return m.concatenate([m.sort(best, axis=-1), last], axis=-1)


class ChosenMemory:
    """Keys, turned, and values of each head's own words: (B, G, S, d) for each layer, S the same for all heads."""

    def __init__(self, cache, shapes, rows, dtype):
        self.cache, self.shapes, self.rows, self.dtype = cache, list(shapes), rows, dtype
        empty = [(rows, heads, 0, width) for heads, width in self.shapes]
        self.keys, self.values = ([backend.zeros(shape, dtype) for shape in empty] for _ in range(2))
        self.sums = [backend.zeros(shape[:3], dtype) for shape in empty]
        self.complete = True

    @property
    def nbytes(self):
        return sum(part.nbytes for parts in (self.keys, self.values, self.sums) for part in parts)

    def position(self, length):
        return length

    def reserve(self, length):
        """Arrays grow as words come."""

    def extend(self, i, q, k, v, turn, start):
        m, n = backend.xp(q), k.shape[1]
        if turn is not None:
            turn(q, start)
            turn(k, start)
        keys, values = (
            m.concatenate([old, new.transpose(0, 2, 1, 3)], axis=2)
            for old, new in ((self.keys[i], k), (self.values[i], v))
        )
        first = keys.shape[2] - n
        sums = m.concatenate([self.sums[i], m.zeros((*k.shape[:1], k.shape[2], n), self.dtype)], axis=2)
        places, sums = self.cache.kept(sums, probabilities(q, keys, later(m, n, first)), n, start)
        shown = [m.ascontiguousarray(part.transpose(0, 2, 1, 3)) for part in (keys, values)]
        if places is not None:
            self.complete = False
            sums = m.take_along_axis(sums, places, axis=2)
            keys, values = (m.take_along_axis(part, places[..., None], axis=2) for part in (keys, values))
        self.keys[i], self.values[i], self.sums[i] = keys, values, sums
        return q, *shown, first

    def rollback(self, length):
        if not self.complete:
            raise UserError(f"{self.cache!r}: some words are gone, and what was summed cannot be taken back")
        for parts in (self.keys, self.values, self.sums):
            parts[:] = [part[:, :, :length] for part in parts]

    def branch(self, rows, length):
        other = ChosenMemory(self.cache, self.shapes, len(rows), self.dtype)
        rows = backend.asarray(rows)
        for name in ("keys", "values", "sums"):
            setattr(other, name, [part[rows] for part in getattr(self, name)])
        other.complete = self.complete
        return other


def later(m, n, first):
    """(n, first + n) bool: which keys come later than each of n queries, the first of which stands at place `first`."""
    return m.arange(first + n)[None, :] > first + m.arange(n)[:, None]
