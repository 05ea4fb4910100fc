"""Compiled coordinate descent: passes over columns, over their Gram matrix, extrapolation. See coordinate.py."""

from typing import NamedTuple

from npopt.backend import once
from problems.loops import LOOSE

import numpy as np

POINTS = 6  # iterates that are extrapolated

fast, apart = once.compiled(**LOOSE), once.once(**LOOSE)


class Stored(NamedTuple):
    """X by columns: CSC, or, with an empty indptr, all columns one after the other in `data`; n rows; |x_j|^2; y."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    n: int
    squares: np.ndarray
    y: np.ndarray
    intercept: bool


@fast
def norms(data, indices, indptr, n, d):
    out = np.zeros(d)
    for j in range(d):
        first, last = (indptr[j], indptr[j + 1]) if indptr.size else (j * n, j * n + n)
        for p in range(first, last):
            out[j] += np.float64(data[p]) * data[p]
    return out


@fast
def dot(A, j, r):
    """x_j . r"""
    data, indices, indptr, n = A.data, A.indices, A.indptr, A.n
    total = 0.0
    if indptr.size:
        for p in range(indptr[j], indptr[j + 1]):
            total += data[p] * r[np.uintp(indices[p])]
    else:
        column = data[j * n : j * n + n]
        for i in range(n):
            total += column[i] * r[i]
    return total


@fast
def add(A, j, factor, r):
    """r += factor x_j"""
    data, indices, indptr, n = A.data, A.indices, A.indptr, A.n
    if indptr.size:
        for p in range(indptr[j], indptr[j + 1]):
            r[np.uintp(indices[p])] += factor * data[p]
    else:
        column = data[j * n : j * n + n]
        for i in range(n):
            r[i] += factor * column[i]


@fast
def products(A, chosen, r):
    """x_j.r for the chosen columns"""
    out = np.empty(chosen.size)
    for k in range(chosen.size):
        out[k] = dot(A, chosen[k], r)
    return out


@fast
def subtract(A, chosen, w, r):
    """r -= sum over the chosen columns of w_j x_j"""
    for k in range(chosen.size):
        add(A, chosen[k], -w[chosen[k]], r)


@fast
def shrunk(v, t):
    return max(v - t, 0.0) - max(-v - t, 0.0)


@apart
def cycle(A, chosen, w, r, l1, l2):
    """One epoch over the chosen columns."""
    n = A.n
    for k in range(chosen.size):
        j = chosen[k]
        q = A.squares[j] / n
        old = w[j]
        new = shrunk(dot(A, j, r) / n + q * old, l1) / (q + l2)
        if new != old:
            add(A, j, old - new, r)
            w[j] = new


@apart
def value(chosen, w, r, l1, l2):
    """F, with only the chosen columns in use."""
    total = 0.0
    for k in range(chosen.size):
        v = w[chosen[k]]
        total += l1 * abs(v) + 0.5 * l2 * v * v
    return total + (r @ r) / (2 * r.size)


@apart
def set_gap(A, chosen, w, r, l1, l2):
    """The duality gap of the problem in the chosen columns alone. With an intercept r has mean 0."""
    largest, square, n, y = 0.0, 0.0, A.n, A.y
    for k in range(chosen.size):
        j = chosen[k]
        largest = max(largest, abs(dot(A, j, r) / n - l2 * w[j]))
        square += w[j] * w[j]
    length, yr = r @ r + n * l2 * square, y @ r
    s = yr / length if length > 0 else 0.0
    if largest > 0:
        s = min(max(s, -l1 / largest), l1 / largest)
    return value(chosen, w, r, l1, l2) - s * yr / n + s * s * length / (2 * n)


@apart
def extrapolated(kept, point):
    """point = sum_k c_k kept_k with the c of Anderson's method on the differences of the kept iterates; False: none."""
    m = kept.shape[0] - 1
    U = kept[1:] - kept[:-1]
    G = U @ U.T
    size = 0.0
    for i in range(m):
        size = max(size, G[i, i])
    if not size > 0:
        return False
    for i in range(m):
        G[i, i] += 1e-12 * size
    c = np.linalg.solve(G, np.ones(m))
    total = c.sum()
    if not abs(total) > 1e-300 or not np.isfinite(total):
        return False
    point[:] = 0.0
    for k in range(m):
        for j in range(point.size):
            point[j] += c[k] / total * kept[k + 1, j]
    return True


@fast
def inner(A, chosen, w, r, c, l1, l2, goal, epochs):
    """Coordinate descent on the chosen columns until their own gap is `goal`. w and r are written in place; returns
    (c, epochs)."""
    kept, point = np.zeros((POINTS, chosen.size)), np.zeros(chosen.size)
    other, trial = np.empty_like(r), w.copy()
    for epoch in range(1, epochs + 1):
        cycle(A, chosen, w, r, l1, l2)
        if A.intercept:
            mean = r.mean()
            c += mean
            r -= mean
        slot = (epoch - 1) % POINTS
        for k in range(chosen.size):
            kept[slot, k] = w[chosen[k]]
        if slot < POINTS - 1:
            continue
        if extrapolated(kept, point):
            other[:] = r
            for k in range(chosen.size):
                j = chosen[k]
                trial[j] = point[k]
                if trial[j] != w[j]:
                    add(A, j, w[j] - trial[j], other)
            shift = other.mean() if A.intercept else 0.0
            other -= shift
            if value(chosen, trial, other, l1, l2) < value(chosen, w, r, l1, l2):
                for k in range(chosen.size):
                    w[chosen[k]] = trial[chosen[k]]
                r[:] = other
                c += shift
        if set_gap(A, chosen, w, r, l1, l2) <= goal:
            return c, epoch
    return c, epochs


@fast
def quadratic(Q, b, l1, l2, w, constant, goal, epochs, certified):
    """Coordinate descent on constant - b.w + 1/2 w'Q w + sum_j l1_j |w_j| + l2/2 |w|^2, extrapolated; w in place.

    certified: until the duality gap (constant = |y|^2/(2n), all l1_j equal) is at most goal. Else: until no coordinate
    moves by more than goal times the largest, relative. Returns the epochs.
    """
    d = w.size
    h = b - Q @ w  # kept in step: minus the gradient of the quadratic
    kept, point = np.zeros((POINTS, d)), np.zeros(d)
    for epoch in range(1, epochs + 1):
        moved, largest = 0.0, 0.0
        for j in range(d):
            if Q[j, j] + l2 <= 0.0:
                continue
            old = w[j]
            new = shrunk(h[j] + Q[j, j] * old, l1[j]) / (Q[j, j] + l2)
            if new != old:
                step = new - old
                w[j] = new
                for i in range(d):
                    h[i] -= step * Q[j, i]
                moved = max(moved, abs(step))
            largest = max(largest, abs(new))
        slot = (epoch - 1) % POINTS
        kept[slot] = w
        if not certified and moved <= goal * largest:
            return epoch
        if slot < POINTS - 1:
            continue
        h[:] = b - Q @ w
        if extrapolated(kept, point):
            other = b - Q @ point
            ours, theirs = 0.0, 0.0  # twice the objectives, without the constant
            for j in range(d):
                ours += l2 * w[j] * w[j] + 2 * l1[j] * abs(w[j]) - w[j] * (b[j] + h[j])
                theirs += l2 * point[j] * point[j] + 2 * l1[j] * abs(point[j]) - point[j] * (b[j] + other[j])
            if theirs < ours:
                w[:] = point
                h[:] = other
        if certified:
            bw, wh, ww, w1, top = b @ w, w @ h, w @ w, 0.0, 0.0
            for j in range(d):
                w1 += abs(w[j])
                top = max(top, abs(h[j] - l2 * w[j]))
            length = 2 * constant - bw - wh + l2 * ww  # |r|^2/n + l2 |w|^2
            yr = 2 * constant - bw
            s = yr / length if length > 0 else 0.0
            if top > 0:
                s = min(max(s, -l1[0] / top), l1[0] / top)
            gap = 0.5 * length + l1[0] * w1 - s * yr + 0.5 * s * s * length
            if gap <= goal:
                return epoch
    return epochs
