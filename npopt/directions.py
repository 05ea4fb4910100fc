"""Directions in which a point is moved: functions of a key, made one segment at a time, so that none is ever whole.

    direction.add(out, a, segment)        out <- out + a z, out the flat piece of a vector like x

A problem takes one as value(x, rows, shift=(a, direction)), the loss at x + a z, x untouched; a 64-bit key stands for
the normal numbers of the key. A network makes the piece of a layer when that layer runs (nn/network.py).
"""

from npopt import backend
from npopt.backend import elementwise


@elementwise
def add_normals(out, a, key):
    out = out + a * normal(key)  # noqa: F821
    return out


class Normals:
    """z ~ N(0, I); its number i is the normal number i of the key: what backend.normals(key, z) writes."""

    def __init__(self, key):
        self.key = key

    def add(self, out, a, segment):
        add_normals(out, a, self.key, offset=segment.start)


class LowRank:
    """z = scale U V' in each matrix, normal numbers elsewhere.   U: (m, r), V: (n, r), normal numbers of two keys.

    A segment is a matrix if it is of one of `kinds`, with its first axis for rows: convolutions (out, kh kw in). There
    r = min(rank, m, n), and scale is 1 or, with `mean`, 1/r. Key u serves the other segments, too.
    """

    def __init__(self, u, v, rank, kinds, mean=False):
        self.u, self.v, self.rank, self.kinds, self.mean = u, v, rank, kinds, mean

    def sizes(self, segment):
        """(m, n, r) of a matrix; None for other segments."""
        return low_rank(segment, self.rank, self.kinds)

    def factor(self, key, rows, r, segment, dtype):
        """(rows, r) normal numbers, those of the key from the segment's first on."""
        factor = backend.empty((rows, r), dtype)
        backend.normals(key, factor.reshape(-1), offset=segment.start)
        return factor

    def add(self, out, a, segment):
        sizes = self.sizes(segment)
        if sizes is None:
            add_normals(out, a, self.u, offset=segment.start)
            return
        m, n, r = sizes
        U, V = (self.factor(key, rows, r, segment, out.dtype) for key, rows in ((self.u, m), (self.v, n)))
        U *= a / r if self.mean else a
        out += (U @ V.T).reshape(-1)


def low_rank(segment, rank, kinds):
    """(rows, columns, rank) of a segment that is a matrix by its kind; None of others and of single rows or columns."""
    if segment.kind not in kinds or len(segment.shape) < 2:
        return None
    m = segment.shape[0]
    n = segment.size // m
    return None if min(m, n) < 2 else (m, n, min(rank, m, n))


def as_direction(given):
    """A direction from itself or from a key."""
    return given if hasattr(given, "add") else Normals(given)


def moved(x, places, amounts, value):
    """value() with x_i + a in the place of x_i: a list over `amounts` for each i of `places`; x is put back."""
    for i in places:
        cell = x[i : i + 1]
        kept = cell.copy()
        found = []
        try:
            for a in amounts:
                cell[...] = kept + a
                found.append(value())
        finally:
            cell[...] = kept
        yield found
