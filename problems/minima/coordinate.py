"""Coordinate descent for the LASSO and the elastic net, with a certificate: the solver that a user would pick.

    F(w, c) = 1/(2n) |X w + c - y|^2 + l1 |w|_1 + l2/2 |w|^2          c: an unpenalised intercept, or 0

One step on column j, with the residual r = y - X w - c kept in step:

    w_j <- S_{l1}(x_j.r/n + |x_j|^2/n w_j) / (|x_j|^2/n + l2)

Certificate: with h = X'r/n - l2 w and theta = s r/n (of the augmented data: (r, -sqrt(n l2) w) s/n), feasible when
s max_j |h_j| <= l1,

    gap = F - D >= F - F*,      D = s y.r/n - s^2 (|r|^2 + n l2 |w|^2)/(2n),      s the best feasible factor

Gap Safe screening (Ndiaye, Fercoq, Gramfort & Salmon, JMLR 18, 2017): D is n-strongly concave, so a column with
s |h_j| + (|x_j|^2 + n l2)^(1/2) (2 gap / n)^(1/2) < l1 is 0 in every solution; from then on the certificate is that of
the problem without it, which has the same minimum. What is left is solved on growing working
sets (the columns nearest to the bound first, as in Massias, Gramfort & Salmon, ICML 2018), whose iterates are
extrapolated every five epochs (Bertrand & Massias, AISTATS 2021); an extrapolated point is kept if F is smaller there.

Where rows are many and columns few the same steps run on Q = X'X/n instead: O(d) a step, whatever n. Q is formed for
d <= GRAM and n >= d.
"""

import warnings
from typing import NamedTuple

from npopt.values import number
from problems.loops import OPTIONS
from problems.minima.solve import one_thread

import numba
import numpy as np
import scipy.sparse

GRAM = 1000                                                 # columns up to which X'X/n is formed
POINTS = 6                                                  # iterates that are extrapolated
FEWEST = 100                                                # columns of the first working set


class Solution(NamedTuple):
    """x: (d,); intercept; gap: the certificate, absolute, of F; epochs: passes over (working sets of) columns;
    screened: columns that were proved to be 0; converged: gap <= tol."""

    x: np.ndarray
    intercept: float
    gap: float
    epochs: int
    screened: int
    converged: bool


class Columns:
    """X and y prepared for coordinate descent: columns side by side, their norms, and Q = X'X/n where it pays."""

    def __init__(self, X, y, intercept=False, gram=None):
        sparse = scipy.sparse.issparse(X)
        if getattr(X, "ndim", 0) != 2 or not all(X.shape):
            raise ValueError(f"coordinate: X must have shape (rows, columns), none of them 0, got {np.shape(X)}")
        y = np.asarray(y, np.float64)
        self.n, self.d = X.shape
        if y.shape != (self.n,):
            raise ValueError(f"coordinate: X has {self.n} rows, so y must have shape ({self.n},), got {y.shape}")
        self.y, self.intercept, self.X = y, bool(intercept), X
        dtype = X.dtype if X.dtype in (np.float32, np.float64) else np.float64
        if sparse:
            C = scipy.sparse.csc_matrix(X, dtype=dtype)
            C.sum_duplicates()
            self.storage = (np.ascontiguousarray(C.data), C.indices.astype(np.int32), C.indptr.astype(np.int64))
        else:
            flat = np.asfortranarray(X, dtype).ravel(order="F")
            self.storage = (flat, np.empty(0, np.int32), np.empty(0, np.int64))
        if not (np.isfinite(self.storage[0]).all() and np.isfinite(y).all()):
            raise ValueError("coordinate: X or y holds NaN or inf")
        self.squares = norms(*self.storage, self.n, self.d)
        self.use_gram = (self.d <= GRAM and self.n >= self.d) if gram is None else bool(gram)
        if self.use_gram:
            self.form()

    @one_thread
    def form(self):
        """Q = X'X/n and b = X'y/n, centred with an intercept, whose place the means then take."""
        X, n = self.X.astype(np.float64), self.n
        self.x_mean = np.asarray(X.mean(0), np.float64).ravel() if self.intercept else np.zeros(self.d)
        self.y_mean = self.y.mean() if self.intercept else 0.0
        Q = X.T @ X
        Q = (Q.toarray() if scipy.sparse.issparse(Q) else Q) / n
        self.Q = np.ascontiguousarray(Q - np.outer(self.x_mean, self.x_mean))
        self.b = np.asarray(X.T @ self.y, np.float64).ravel() / n - self.x_mean * self.y_mean
        self.yy = float(np.mean((self.y - self.y_mean) ** 2))

    def residual(self, w, c):
        r = self.y.copy()
        subtract(*self.storage, self.n, np.flatnonzero(w), w, r)
        r -= c
        return r


def prepared(X, y, intercept):
    return X if isinstance(X, Columns) else Columns(X, y, intercept)


def lam_max(X, y=None, intercept=False):
    """The least l1 for which w = 0: max_j |x_j.(y - c)|/n, c = mean(y) with an intercept."""
    columns = prepared(X, y, intercept)
    r = columns.y - (columns.y.mean() if columns.intercept else 0.0)
    return float(np.abs(products(*columns.storage, columns.n, np.arange(columns.d), r)).max() / columns.n)


def duality_gap(X, y, w, l1, l2=0.0, intercept=None):
    """The gap of the docstring at (w, intercept); None: no intercept. With one, the residual's mean is taken out of the
    dual point, and the intercept's own error counts as part of the gap."""
    columns = prepared(X, y, intercept is not None)
    w = np.asarray(w, np.float64)
    r = columns.residual(w, intercept or 0.0)
    return certificate(columns, w, r, l1, l2)[0]


def certificate(columns, w, r, l1, l2, chosen=None):
    """(gap, s, h) at w with the residual r. chosen: the columns that are not known to be 0; h is then theirs alone."""
    n, w = columns.n, w if chosen is None else w[chosen]
    u = r - r.mean() if columns.intercept else r
    h = products(*columns.storage, n, np.arange(columns.d) if chosen is None else chosen, u) / n - l2 * w
    primal = (r @ r) / (2 * n) + l1 * np.abs(w).sum() + l2 / 2 * (w @ w)
    length = u @ u + n * l2 * (w @ w)
    largest = np.abs(h).max()
    s = columns.y @ u / length if length > 0 else 0.0
    limit = l1 / largest if largest > 0 else np.inf
    s = min(max(s, -limit), limit)
    dual = s * (columns.y @ u) / n - s * s * length / (2 * n)
    return max(primal - dual, 0.0), s, h


def solve(X, y=None, l1=None, l2=0.0, intercept=False, tol=1e-7, start=None, epochs=10_000):
    """Minimise F to a duality gap of tol (absolute). X: (n, d) dense or sparse, or Columns; start: (d,) or None.

    Returns a Solution. Stopping at `epochs` is told by a RuntimeWarning, and by `converged`.
    """
    columns = prepared(X, y, intercept)
    number("coordinate", "l1", l1, low=0, open_low=True)
    number("coordinate", "l2", l2, low=0)
    number("coordinate", "tol", tol, low=0)
    w = np.zeros(columns.d) if start is None else np.array(start, np.float64)
    if w.shape != (columns.d,):
        raise ValueError(f"coordinate: start must have shape ({columns.d},), got {w.shape}")
    w[columns.squares == 0] = 0.0                           # an empty column has no part in the loss
    found = (gram_solve if columns.use_gram else set_solve)(columns, w, float(l1), float(l2), tol, epochs)
    if not found.converged:
        warnings.warn(f"coordinate: stopped after {found.epochs} epochs at a duality gap of {found.gap:.2e}, above "
                      f"{tol:.2e}", RuntimeWarning, stacklevel=2)
    return found


def path(X, y=None, l1s=None, l2=0.0, intercept=False, tol=1e-7, epochs=10_000):
    """[Solution] for every l1 of a decreasing list, each started at the one before."""
    columns, found, start = prepared(X, y, intercept), [], None
    for l1 in l1s:
        found.append(solve(columns, None, l1, l2, tol=tol, start=start, epochs=epochs))
        start = found[-1].x
    return found


def gram_solve(columns, w, l1, l2, tol, epochs):
    """By Q; the certificate is then taken from the data, and the goal tightened if Q's roundings hid something."""
    Q, b, goal, used = columns.Q, columns.b, tol, 0
    bounds = np.full(columns.d, l1)
    while True:
        used += quadratic(Q, b, bounds, l2, w, 0.5 * columns.yy, goal, epochs - used, True)
        c = columns.y_mean - columns.x_mean @ w
        gap = certificate(columns, w, columns.residual(w, c), l1, l2)[0]
        if gap <= tol or used >= epochs or goal < 1e-3 * tol:
            return Solution(w, float(c), gap, used, 0, gap <= tol)
        goal /= 10


def set_solve(columns, w, l1, l2, tol, epochs):
    """By the columns themselves: screening, working sets, extrapolation."""
    n, d, storage = columns.n, columns.d, columns.storage
    lengths = np.sqrt(columns.squares + n * l2)
    alive, used, size = np.arange(d), 0, 0                  # alive: columns that are not proved to be 0
    c = columns.y.mean() if columns.intercept and not w.any() else 0.0
    r = columns.residual(w, c)
    while True:
        if columns.intercept:
            c, r = c + r.mean(), r - r.mean()
        gap, s, h = certificate(columns, w, r, l1, l2, alive)
        if gap <= tol or used >= epochs:
            return Solution(w, float(c), gap, used, d - alive.size, gap <= tol)
        slack = l1 - np.abs(s * h)
        stays = (slack <= lengths[alive] * np.sqrt(2 * gap / n)) & (columns.squares[alive] > 0)
        gone = alive[~stays]
        gone = gone[w[gone] != 0]
        if gone.size:
            subtract(*storage, n, gone, -w, r)              # their part goes back into the residual
            w[gone] = 0.0
        alive, slack = alive[stays], slack[stays]
        if alive.size == 0:                                 # w = 0 is proved; one column stays, for the certificate
            alive, slack = np.arange(1), np.ones(1)
        used_columns = w[alive] != 0
        size = min(alive.size, max(FEWEST, 2 * int(used_columns.sum()), size))
        distance = np.where(used_columns, -np.inf, slack / np.maximum(lengths[alive], 1e-300))
        chosen = np.sort(alive[np.argpartition(distance, size - 1)[:size]]) if size < alive.size else alive
        c, passes = inner(*storage, n, columns.squares, chosen, w, r, c, columns.intercept, l1, l2, columns.y,
                          max(0.3 * gap, 0.5 * tol) if size < alive.size else tol, epochs - used)
        used += passes
        size = 2 * size if passes <= POINTS else size


# -------------------------------------------------------------------------------------------------------------- loops
fast = numba.njit(**{**OPTIONS, "cache": True})


@fast
def norms(data, indices, indptr, n, d):
    out = np.zeros(d)
    for j in range(d):
        first, last = (indptr[j], indptr[j + 1]) if indptr.size else (j * n, j * n + n)
        for p in range(first, last):
            out[j] += np.float64(data[p]) * data[p]
    return out


@fast
def dot(data, indices, indptr, n, j, r):
    """x_j . r"""
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
def add(data, indices, indptr, n, j, factor, r):
    """r += factor x_j"""
    if indptr.size:
        for p in range(indptr[j], indptr[j + 1]):
            r[np.uintp(indices[p])] += factor * data[p]
    else:
        column = data[j * n : j * n + n]
        for i in range(n):
            r[i] += factor * column[i]


@fast
def products(data, indices, indptr, n, chosen, r):
    """x_j.r for the chosen columns"""
    out = np.empty(chosen.size)
    for k in range(chosen.size):
        out[k] = dot(data, indices, indptr, n, chosen[k], r)
    return out


@fast
def subtract(data, indices, indptr, n, chosen, w, r):
    """r -= sum over the chosen columns of w_j x_j"""
    for k in range(chosen.size):
        add(data, indices, indptr, n, chosen[k], -w[chosen[k]], r)


@fast
def shrunk(v, t):
    return max(v - t, 0.0) - max(-v - t, 0.0)


@fast
def cycle(data, indices, indptr, n, squares, chosen, w, r, l1, l2):
    """One epoch over the chosen columns."""
    for k in range(chosen.size):
        j = chosen[k]
        q = squares[j] / n
        old = w[j]
        new = shrunk(dot(data, indices, indptr, n, j, r) / n + q * old, l1) / (q + l2)
        if new != old:
            add(data, indices, indptr, n, j, old - new, r)
            w[j] = new


@fast
def value(chosen, w, r, l1, l2):
    """F, with only the chosen columns in use."""
    total = 0.0
    for k in range(chosen.size):
        v = w[chosen[k]]
        total += l1 * abs(v) + 0.5 * l2 * v * v
    return total + (r @ r) / (2 * r.size)


@fast
def set_gap(data, indices, indptr, n, chosen, w, r, l1, l2, y):
    """The duality gap of the problem in the chosen columns alone. With an intercept r has mean 0."""
    largest, square = 0.0, 0.0
    for k in range(chosen.size):
        j = chosen[k]
        largest = max(largest, abs(dot(data, indices, indptr, n, j, r) / n - l2 * w[j]))
        square += w[j] * w[j]
    length, yr = r @ r + n * l2 * square, y @ r
    s = yr / length if length > 0 else 0.0
    if largest > 0:
        s = min(max(s, -l1 / largest), l1 / largest)
    return value(chosen, w, r, l1, l2) - s * yr / n + s * s * length / (2 * n)


@fast
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
def inner(data, indices, indptr, n, squares, chosen, w, r, c, intercept, l1, l2, y, goal, epochs):
    """Coordinate descent on the chosen columns to a gap `goal` of theirs, w and r in place; returns (c, epochs)."""
    kept, point = np.zeros((POINTS, chosen.size)), np.zeros(chosen.size)
    other, trial = np.empty_like(r), w.copy()
    for epoch in range(1, epochs + 1):
        cycle(data, indices, indptr, n, squares, chosen, w, r, l1, l2)
        if intercept:
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
                    add(data, indices, indptr, n, j, w[j] - trial[j], other)
            shift = other.mean() if intercept else 0.0
            other -= shift
            if value(chosen, trial, other, l1, l2) < value(chosen, w, r, l1, l2):
                for k in range(chosen.size):
                    w[chosen[k]] = trial[chosen[k]]
                r[:] = other
                c += shift
        if set_gap(data, indices, indptr, n, chosen, w, r, l1, l2, y) <= goal:
            return c, epoch
    return c, epochs


@fast
def quadratic(Q, b, l1, l2, w, constant, goal, epochs, certified):
    """Coordinate descent on constant - b.w + 1/2 w'Q w + sum_j l1_j |w_j| + l2/2 |w|^2, extrapolated; w in place.

    certified: until the duality gap (constant = |y|^2/(2n), all l1_j equal) is at most goal. Else: until no coordinate
    moves by more than goal times the largest, relative. Returns the epochs.
    """
    d = w.size
    h = b - Q @ w                                           # kept in step: minus the gradient of the quadratic
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
            ours, theirs = 0.0, 0.0                         # twice the objectives, without the constant
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
            length = 2 * constant - bw - wh + l2 * ww       # |r|^2/n + l2 |w|^2
            yr = 2 * constant - bw
            s = yr / length if length > 0 else 0.0
            if top > 0:
                s = min(max(s, -l1[0] / top), l1[0] / top)
            gap = 0.5 * length + l1[0] * w1 - s * yr + 0.5 * s * s * length
            if gap <= goal:
                return epoch
    return epochs
