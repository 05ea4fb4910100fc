"""Coordinate descent for the LASSO and the elastic net, with a certificate: the solver that a user would pick.

    F(w, c) = 1/(2n) |X w + c - y|^2 + l1 |w|_1 + l2/2 |w|^2          c: an unpenalised intercept, or 0

One step on column j, with the residual r = y - X w - c kept in step:

    w_j <- S_{l1}(x_j.r/n + |x_j|^2/n w_j) / (|x_j|^2/n + l2)

Certificate: with h = X'r/n - l2 w and theta = s r/n (of the augmented data: (r, -sqrt(n l2) w) s/n), feasible when
s max_j |h_j| <= l1,

    gap = F - D >= F - F*,      D = s y.r/n - s^2 (|r|^2 + n l2 |w|^2)/(2n),      s the best feasible factor

Gap Safe screening (Ndiaye, Fercoq, Gramfort & Salmon, JMLR 18, 2017): D is n-strongly concave, so a column with s |h_j|
+ (|x_j|^2 + n l2)^(1/2) (2 gap / n)^(1/2) < l1 is 0 in every solution. From then on the certificate is that of the
problem without it, which has the same minimum. The columns that remain are solved for on growing working sets, those
nearest to the bound first, as in Massias, Gramfort & Salmon, ICML 2018. The iterates are extrapolated every five epochs
(Bertrand & Massias, AISTATS 2021). An extrapolated point is kept if F is smaller there.

With many rows and few columns the same steps run on Q = X'X/n instead: O(d) a step, whatever n. Q is formed for
d <= GRAM and n >= d.
"""

import warnings
from typing import NamedTuple

from npopt.errors import UserError
from npopt.values import number
from problems.minima.columns import POINTS, Stored, inner, norms, products, quadratic, subtract
from problems.minima.solve import one_thread

import numpy as np
import scipy.sparse

GRAM = 1000  # columns up to which X'X/n is formed
FEWEST = 100  # columns of the first working set


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
            raise UserError(f"coordinate: X must have shape (rows, columns), none of them 0, got {np.shape(X)}")
        y = np.asarray(y, np.float64)
        self.n, self.d = X.shape
        if y.shape != (self.n,):
            raise UserError(f"coordinate: X has {self.n} rows, so y must have shape ({self.n},), got {y.shape}")
        self.y, self.intercept, self.X = y, bool(intercept), X
        dtype = X.dtype if X.dtype in (np.float32, np.float64) else np.float64
        if sparse:
            C = scipy.sparse.csc_matrix(X, dtype=dtype)
            C.sum_duplicates()
            storage = (np.ascontiguousarray(C.data), C.indices.astype(np.int32), C.indptr.astype(np.int64))
        else:
            flat = np.asfortranarray(X, dtype).ravel(order="F")
            storage = (flat, np.empty(0, np.int32), np.empty(0, np.int64))
        if not (np.isfinite(storage[0]).all() and np.isfinite(y).all()):
            raise UserError("coordinate: X or y holds NaN or inf")
        self.squares = norms(*storage, self.n, self.d)
        self.stored = Stored(*storage, self.n, self.squares, self.y, self.intercept)
        self.use_gram = (self.d <= GRAM and self.n >= self.d) if gram is None else bool(gram)
        if self.use_gram:
            self.form()

    @one_thread
    def form(self):
        """Form Q = X'X/n and b = X'y/n. With an intercept they are centred, and the means then take its place."""
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
        subtract(self.stored, np.flatnonzero(w), w, r)
        r -= c
        return r


def prepared(X, y, intercept):
    return X if isinstance(X, Columns) else Columns(X, y, intercept)


def lam_max(X, y=None, intercept=False):
    """The least l1 for which w = 0: max_j |x_j.(y - c)|/n, c = mean(y) with an intercept."""
    columns = prepared(X, y, intercept)
    r = columns.y - (columns.y.mean() if columns.intercept else 0.0)
    return float(np.abs(products(columns.stored, np.arange(columns.d), r)).max() / columns.n)


def duality_gap(X, y, w, l1, l2=0.0, intercept=None):
    """The gap of the module's docstring at (w, intercept); None: no intercept. With an intercept the residual's mean is
    taken out of the dual point, and the intercept's own error counts as part of the gap."""
    columns = prepared(X, y, intercept is not None)
    w = np.asarray(w, np.float64)
    r = columns.residual(w, intercept or 0.0)
    return certificate(columns, w, r, l1, l2)[0]


def certificate(columns, w, r, l1, l2, chosen=None):
    """(gap, s, h) at w with the residual r. chosen: the columns that are not known to be 0; h is then theirs alone."""
    n, w = columns.n, w if chosen is None else w[chosen]
    u = r - r.mean() if columns.intercept else r
    h = products(columns.stored, np.arange(columns.d) if chosen is None else chosen, u) / n - l2 * w
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
        raise UserError(f"coordinate: start must have shape ({columns.d},), got {w.shape}")
    w[columns.squares == 0] = 0.0  # an empty column has no part in the loss
    found = (gram_solve if columns.use_gram else set_solve)(columns, w, float(l1), float(l2), tol, epochs)
    if not found.converged:
        warnings.warn(
            f"coordinate: stopped after {found.epochs} epochs at a duality gap of {found.gap:.2e}, above {tol:.2e}",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


def path(X, y=None, l1s=None, l2=0.0, intercept=False, tol=1e-7, epochs=10_000):
    """[Solution] for every l1 of a decreasing list, each started at the one before."""
    columns, found, start = prepared(X, y, intercept), [], None
    for l1 in l1s:
        found.append(solve(columns, None, l1, l2, tol=tol, start=start, epochs=epochs))
        start = found[-1].x
    return found


def gram_solve(columns, w, l1, l2, tol, epochs):
    """Solve by Q. The certificate is then taken from the data, and the goal tightened if Q's rounding hid something."""
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
    """Solve by the columns themselves: screening, working sets, extrapolation."""
    n, d, stored = columns.n, columns.d, columns.stored
    lengths = np.sqrt(columns.squares + n * l2)
    alive, used, size = np.arange(d), 0, 0  # alive: columns that are not proved to be 0
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
            subtract(stored, gone, -w, r)  # their part goes back into the residual
            w[gone] = 0.0
        alive, slack = alive[stays], slack[stays]
        if alive.size == 0:  # w = 0 is proved; one column stays, for the certificate
            alive, slack = np.arange(1), np.ones(1)
        used_columns = w[alive] != 0
        size = min(alive.size, max(FEWEST, 2 * int(used_columns.sum()), size))
        distance = np.where(used_columns, -np.inf, slack / np.maximum(lengths[alive], 1e-300))
        chosen = np.sort(alive[np.argpartition(distance, size - 1)[:size]]) if size < alive.size else alive
        goal = max(0.3 * gap, 0.5 * tol) if size < alive.size else tol
        c, passes = inner(stored, chosen, w, r, c, l1, l2, goal, epochs - used)
        used += passes
        size = 2 * size if passes <= POINTS else size
