"""Which node has which rows: lists of arrays of row numbers, int64, on the host.

at_random(n, nodes)              shuffled, sizes as equal as can be
by_label(y, nodes)               sorted by label (ties shuffled), cut into equal parts: the hardest split
dirichlet(y, nodes, alpha)       each class is dealt by shares drawn from Dirichlet(alpha): small alpha for few labels a
                                 node, large for alike nodes, of unequal size
    equal=True                   nodes of one size, each with a mix of classes drawn from Dirichlet(alpha K p), p the K
                                 classes' parts of all rows: Hsu, Qi & Brown, 2019, arXiv:1909.06335, section 3
"""

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np


def at_random(n, nodes, seed=0):
    return cut(backend.generator(seed, "rows at random").permutation(n), nodes)


def by_label(y, nodes, seed=0):
    shuffled = backend.generator(seed, "rows by label").permutation(len(y))
    return cut(shuffled[np.argsort(np.asarray(y)[shuffled], kind="stable")], nodes)


def dirichlet(y, nodes, alpha, seed=0, equal=False):
    """Every node gets at least one row: where the draw left one without, the largest node gives. With `equal` each has
    n // nodes of them; the last ones get what classes are left."""
    nodes, y = whole("dirichlet", "nodes", nodes), np.asarray(y)
    number("dirichlet", "alpha", alpha, low=0, open_low=True)
    check(len(y), nodes)
    rng, parts = backend.generator(seed, "rows by Dirichlet"), [[] for _ in range(nodes)]
    if equal:
        return mixes(y, nodes, alpha, rng)
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        ends = np.round(np.cumsum(rng.dirichlet(np.full(nodes, float(alpha)))) * len(rows)).astype(int)
        for part, piece in zip(parts, np.split(rows, ends[:-1]), strict=True):
            part.extend(piece.tolist())
    for part in parts:
        if not part:
            part.append(max(parts, key=len).pop())
    return [np.sort(np.array(part, dtype=np.int64)) for part in parts]


def mixes(y, nodes, alpha, rng):
    """Each node in turn draws its mix, and then rows of each class while there are any."""
    classes = [rng.permutation(np.flatnonzero(y == label)) for label in np.unique(y)]
    left, parts = np.array([len(rows) for rows in classes]), []
    at = float(alpha) * len(left) * left / left.sum()
    for _ in range(nodes):
        mix, part, missing = rng.dirichlet(at), [], len(y) // nodes
        while missing:
            open_ = np.where(left > 0, mix, 0.0)
            open_ = open_ if open_.sum() > 1e-12 else left.astype(float)
            taken = np.minimum(rng.multinomial(missing, open_ / open_.sum()), left)
            part += [rows[n - k : n] for rows, n, k in zip(classes, left.tolist(), taken.tolist(), strict=True)]
            left, missing = left - taken, missing - int(taken.sum())
        parts.append(np.sort(np.concatenate(part)))
    return parts


def cut(rows, nodes):
    check(len(rows), whole("split", "nodes", nodes))
    return [np.sort(part) for part in np.array_split(rows, nodes)]


def check(n, nodes):
    if n < nodes:
        raise UserError(f"split: {n} rows are too few for {nodes} nodes")
