"""Least squares (also Lasso, elastic net) and logistic regression, binary and multinomial, on dense or CSR rows.

    f(x) = (1/n) sum_i f_i(x)          f_i(x) = l(W a_i + c; y_i) + l2/2 |W|^2

    LeastSquares           l = 1/2 (z - y)^2                    y real              l'' <= 1
    Logistic, binary       l = log(1 + exp(-y z))               y -1 or +1          l'' <= 1/4
    Logistic, multinomial  l = log sum_k exp(z_k) - z_y         y 0, ..., C-1       l'' <= 1/2

so the 1/2 and the 1/n are in the objective, and l2 is not divided by n. a_i is row i of X, shape (n, d). x is W
flattened, (d,) or (C, d), and with intercept=True the 1 or C numbers c behind it; l2 does not touch c. Without it
there is none.

With weights the l2 term is weighted too, as part of f_i: the gradient over rows is (1/B) sum_b w_b grad f_b, exactly.

A penalty h (npopt.proximal) may be added, on W alone: the objective is then f(x) + h(W).
"""

import functools

from npopt import backend
from npopt.proximal import L1, L1L2, L2, Regulariser
from npopt.segments import Segments
from npopt.values import number as checked
from problems import kernels, solve, stretches
from problems.base import Problem, number
from problems.exact import Exact

import numpy as np
import scipy.sparse

DEEPEST = 200.0                                             # exp(-DEEPEST) is the smallest scale of a compiled stretch


class LinearModel(Exact, Problem):
    """What the losses share. A subclass sets kind, curvature (a bound on l''), `labels`, and the loss as array code.

    X: (n, d), dense or any scipy.sparse matrix, float32 or float64 (the dtype of the problem; other numbers become
    float64, or `dtype`); y: (n,). test: None or (X_test, y_test), for `metrics`. On the host, passes over given rows
    are compiled and cost the rows' non-zeros plus dim; all rows of dense data go through BLAS. On another device both
    are array code (sparse data: backend.Csr, a second copy by columns), which does not look whether row numbers are in
    range.
    """

    def __init__(self, X, y, l2=0.0, intercept=False, test=None, name=None, dtype=None, regulariser=None):
        own = type(self).__name__
        self.name = own if name is None else name
        if regulariser is not None and not isinstance(regulariser, Regulariser):
            raise ValueError(f"{self.name}: regulariser must be a penalty such as L1(0.1), got {regulariser!r}")
        self.regulariser = regulariser
        X = self.data(X, dtype)
        self.n, self.d = X.shape
        y = self.labels(np.asarray(y), self.n)
        self.l2, self.intercept = float(checked(own, "l2", l2, low=0, high=1e300)), bool(intercept)
        if name is None:
            self.name = f"{own}({self.n}x{self.d}, {self.terms()})"
        K, d = self.outputs, self.d
        shape, kind = ((d,), "vector") if K == 1 else ((K, d), "matrix")
        ends = [("intercept", (K,), "bias", "intercept")] if intercept else []
        self.set_shape(K * (d + self.intercept), X.dtype, Segments.of(("w", shape, kind, "w"), *ends))
        self.host_X, self.host_y = X, y
        self.test = None if test is None else self.test_data(*test)
        self.rows, self.s_all = None, None                  # of the last pass
        self.place_on_device()

    def terms(self):
        """What the name says beside the data: "l2=0.1, L1(l1=0.2), intercept"."""
        parts = [f"l2={self.l2:g}", "" if self.regulariser is None else repr(self.regulariser)]
        return ", ".join(filter(None, [*parts, "intercept" if self.intercept else ""]))

    @classmethod
    def of(cls, dataset, *arguments, **named):
        """The problem of a Dataset (datasets.load), its test rows for `metrics`; images flattened, in [0, 1].

        The arguments behind the data set are those of the constructor behind y.
        """
        def flat(x):
            return x if x.ndim == 2 else x.reshape(len(x), -1) / dataset.scale

        test = None if dataset.x_test is None else (flat(dataset.x_test), dataset.y_test)
        problem = cls(flat(dataset.x_train), dataset.y_train, *arguments, test=test, **named)
        problem.name = f"{cls.__name__}({dataset.name}, {problem.terms()})"
        return problem

    def regularised(self, x):
        """W, flat: the penalty leaves the intercept alone."""
        return x[: self.outputs * self.d]

    def targets(self):
        return self.host_y

    # ------------------------------------------------------------------------------------------------ the data

    def data(self, X, dtype=None, d=None):
        """X as a C-ordered array or a canonical CSR matrix with int32 indices, finite and writeable."""
        sparse = scipy.sparse.issparse(X)
        if not sparse:
            X = np.asarray(X)
        if X.ndim != 2 or not all(X.shape):
            raise ValueError(f"{self.name}: X must have shape (rows, columns), none of them 0, got {X.shape}")
        if d is not None and X.shape[1] != d:
            raise ValueError(f"{self.name}: the test rows have {X.shape[1]} columns, the training rows {d}")
        kept = X.dtype if X.dtype in (np.float32, np.float64) else np.float64
        dtype = np.dtype(kept if dtype is None else dtype)
        if not sparse:
            X = np.require(X, dtype, ["C", "A", "W", "E"])
        else:
            X = scipy.sparse.csr_matrix(X, dtype=dtype)
            if not X.has_canonical_format:
                X = X.copy()
                X.sum_duplicates()
            if X.nnz > np.iinfo(np.int32).max:
                raise ValueError(f"{self.name}: {X.nnz} non-zeros are more than int32 indices can count")
            X.data = np.require(X.data, dtype, ["C", "A", "W"])
            X.indices = np.require(X.indices, np.int32, ["C", "A", "W"])
            X.indptr = np.require(X.indptr, np.int32, ["C", "A", "W"])
        bad = np.flatnonzero(~(np.isfinite(X.data) if sparse else np.isfinite(X).all(1)))
        if bad.size:
            row = np.searchsorted(X.indptr, bad[0], side="right") - 1 if sparse else bad[0]
            raise ValueError(f"{self.name}: row {row} of X holds NaN or inf")
        return X

    def same_length(self, y, n):
        if y.shape != (n,):
            raise ValueError(f"{self.name}: X has {n} rows, so y must have shape ({n},), got {y.shape}")
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{self.name}: the labels must be numbers, got {y.dtype}, such as {y[0]!r}") from None
        bad = np.flatnonzero(~np.isfinite(y))
        if bad.size:
            raise ValueError(f"{self.name}: label {bad[0]} is {y[bad[0]]}")
        return y

    def test_data(self, X, y):
        """Test rows in float64, where all metrics are computed."""
        X = self.data(X, np.float64, self.d)
        return X, self.same_length(np.asarray(y), X.shape[0])

    def place_on_device(self):
        """Bind the pass over given rows to the data, where the device in use wants it."""
        X, K, kind = backend.xp(), self.outputs, self.dtype
        self.no_weights, self.no_out = backend.empty(0, np.float64), backend.empty(0, kind)
        self.y = backend.asarray(self.host_y.astype(kind))
        if not scipy.sparse.issparse(self.host_X):
            self.X = backend.asarray(self.host_X)
            storage = (self.X,)
        elif X is np:
            self.X = self.host_X
            storage = (self.X.data, self.X.indices, self.X.indptr, self.d)
        else:
            self.X = backend.Csr(self.host_X)
        self.s = backend.empty((64, K), kind)               # slopes of the last pass over given rows; grows
        if isinstance(self.y, np.ndarray):                  # an array type that compiled loops can read
            run, combine = kernels.passes(storage, kind)
            self.run = functools.partial(run, self.kind, *storage, self.y, self.dim)
            self.mix = functools.partial(combine, *storage)
            self.stretch, self.loops = self.compiled_stretch, {}
        else:
            self.run, self.mix, self.stretch = self.array_pass, self.array_combine, None

    # ------------------------------------------------------------------------------------------------ passes

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x, rows, weights)

    def value(self, x, rows=None, weights=None, shift=None):
        return self.value_and_gradient(x if shift is None else self.shifted(x, *shift), rows, weights)

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        if rows is None or inputs is not None or dinputs is not None:
            return self.all_rows(x, weights, out, inputs, dinputs)
        self.rows = rows
        try:
            return self.run(
                x,
                rows,
                self.no_weights if weights is None else weights,
                self.l2,
                self.s,
                self.no_out if out is None else out,
            )
        except (TypeError, ValueError):                     # something did not fit: find out what, or make it fit
            return self.run(*self.fit(x, rows, weights, out))

    def fit(self, x, rows, weights, out):
        """The arguments of a pass, converted where that is harmless, s long enough; otherwise one clear sentence."""
        self.check(x)
        rows = self.rows = self.check_rows(rows)
        B = rows.shape[0]
        if self.s.shape[0] < B:
            self.s = backend.empty((B, self.outputs), self.dtype)
        return x, rows, self.check_weights(weights, B), self.l2, self.s, self.check_out(out)

    def check_rows(self, rows):
        host = np.asarray(rows) if isinstance(rows, (list, tuple, range)) else rows
        if getattr(host, "ndim", 0) != 1 or host.dtype.kind not in "iu" or host.shape[0] == 0:
            raise ValueError(f"{self.name}: rows must be a vector of one or more row numbers, got {rows!r}")
        low, high = int(backend.to_host(host.min())), int(backend.to_host(host.max()))
        if low < 0 or high >= self.n:
            raise ValueError(f"{self.name}: rows must lie in 0..{self.n - 1}, got {low if low < 0 else high}")
        host = backend.asarray(host, np.int64)
        return np.require(host, None, ["C", "W"]) if isinstance(host, np.ndarray) else host

    def check_weights(self, weights, B):
        if weights is None:
            return self.no_weights
        weights = backend.asarray(weights, np.float64)
        if weights.shape != (B,):
            raise ValueError(f"{self.name}: {B} rows need {B} weights, got shape {weights.shape}")
        return np.require(weights, None, ["C", "W"]) if isinstance(weights, np.ndarray) else weights

    def check_out(self, out):
        if out is None:
            return self.no_out
        self.check(out, "out")
        if isinstance(out, np.ndarray) and not out.flags.writeable:
            raise ValueError(f"{self.name}: out is read-only")
        return out

    def all_rows(self, x, weights, out, inputs=None, dinputs=None):
        """A pass over every row in order."""
        if inputs is not None or dinputs is not None:
            raise ValueError(f"{self.name}: a linear model takes no inputs= or dinputs=")
        self.rows = None
        loss, self.s_all = self.whole(self.check(x), self.check_weights(weights, self.n), self.check_out(out))
        return loss

    def whole(self, x, weights, out):
        """(loss, slopes) over all rows, without a trace in this object."""
        if not scipy.sparse.issparse(self.X):
            return self.arrays(self.X, self.y, x, weights, self.l2, out)
        s = np.empty((self.n, self.outputs), self.dtype)
        return self.run(x, np.arange(self.n), weights, self.l2, s, out), s

    @np.errstate(over="ignore", invalid="ignore")           # a run that diverges shows in its loss
    def arrays(self, A, y, x, weights, l2, out):
        """The pass of problems/kernels.py as array code, over the rows A: (B, d), y: (B,); returns (loss, slopes)."""
        xp, K, B = backend.xp(x), self.outputs, A.shape[0]
        weighted = K * self.d
        W = x[:weighted].reshape(K, self.d)
        z = A @ W.T                                         # (B, K)
        if self.intercept:
            z += x[weighted:]
        losses, s = self.losses_and_slopes(z, y, xp)        # (B,), (B, K)
        ones = weights.shape[0] == 0
        weights = weights.astype(x.dtype)
        mean = 1.0 if ones else weights.sum() / B
        if out.shape[0]:
            ws = (s if ones else s * weights[:, None]) / B
            out[:weighted] = (ws.T @ A).reshape(-1) + (l2 * mean) * x[:weighted]
            out[weighted:] = ws.sum(0)[: x.shape[0] - weighted]
        flat = W.reshape(-1)
        loss = (losses if ones else losses * weights).sum() / B + (0.5 * l2 * mean) * (flat @ flat)
        return number(loss), s

    def array_pass(self, x, rows, weights, l2, s, out):
        """The compiled pass's stand-in on devices without one."""
        if x.shape != (self.dim,) or out.shape[0] not in (0, self.dim) or rows.shape[0] > s.shape[0]:
            raise ValueError
        loss, found = self.arrays(self.X[rows], self.y[rows], x, weights, l2, out)
        s[: rows.shape[0]] = found
        return loss

    def array_combine(self, s, rows, out):
        if s.shape[0] != rows.shape[0] or out.shape != (self.dim,):
            raise ValueError
        B, weighted = rows.shape[0], self.outputs * self.d
        out[:weighted] = (s.T @ self.X[rows]).reshape(-1) / B
        out[weighted:] = s.sum(0)[: self.dim - weighted] / B

    # ------------------------------------------------------------------------------------------------ linear structure

    def scalars(self, x, rows, out, weights=None):
        """out[b] = l'(a_i . x; y_i), i = rows[b], so that grad l_i = out[b] a_i; out: (B,), or (B, C) for C classes.

        Returns value(x, rows, weights); the scalars have no weights in them.
        """
        rows = backend.xp(x).arange(self.n) if rows is None else rows
        s = out.reshape(-1, self.outputs)
        try:
            if s.shape[0] != len(rows):
                raise ValueError("lengths differ")          # said below
            return self.run(x, rows, self.no_weights if weights is None else weights, self.l2, s, self.no_out)
        except (TypeError, ValueError):
            rows = self.check_rows(rows)
            self.check(x)
            if out.dtype != self.dtype or s.shape[0] != rows.shape[0]:
                raise ValueError(
                    f"{self.name}: {rows.shape[0]} rows need out of {rows.shape[0] * self.outputs} numbers of "
                    f"{self.dtype}, got {out.shape} of {out.dtype}"
                ) from None
            return self.run(x, rows, self.check_weights(weights, rows.shape[0]), self.l2, s, self.no_out)

    def combine(self, s, rows, out):
        """out = (1/B) sum_b s_b grad (a_i . x): the gradient's data part from its scalars; `add_l2` adds the rest."""
        rows = backend.xp(out).arange(self.n) if rows is None else rows
        s = s.reshape(-1, self.outputs)
        try:
            self.mix(s, rows, out)
        except (TypeError, ValueError):
            rows, s = self.check_rows(rows), backend.xp(out).ascontiguousarray(backend.asarray(s, self.dtype))
            if s.shape[0] != rows.shape[0]:
                raise ValueError(f"{self.name}: {rows.shape[0]} rows, but scalars for {s.shape[0]}") from None
            self.mix(s, rows, self.check(out, "out"))
        return out

    def add_l2(self, x, out):
        """out += l2 W, the gradient of the l2 term; the intercept is left alone."""
        weighted = self.outputs * self.d
        out[:weighted] += self.l2 * x[:weighted]
        return out

    # ------------------------------------------------------------------------------------------------ stretches

    def steps(self, size):
        """The compiled loop for batches of that size."""
        single = size == self.outputs == 1
        if single not in self.loops:                        # finding the loop of a signature takes 0.2 ms
            X = self.X
            storage = (X.data, X.indices, X.indptr, self.d) if scipy.sparse.issparse(X) else (X,)
            loop = stretches.stretch(storage, self.dtype, single)
            self.loops[single] = functools.partial(loop, self.kind, *storage, self.y)
        return self.loops[single]

    def compiled_stretch(self, x, rows, weights, rates, table=None, mean=None, moves=False):
        """Steps of SGD (no table), SVRG or SAGA (`moves`) in compiled code: see problems/stretches.py. Host only.

        rows: the batches one behind the other, all of one size; weights: like rows, or None; rates: one a step. table:
        (n,) or (n, C); mean: like x. x is written in place, and where it `moves` so are table and mean. Returns the
        losses, (steps,); on sparse rows their l2 term is that of the first x.

        The penalty may be L1, L2 or L1L2 (`takes_stretches`), the rates what `allows` allows.
        """
        steps, K = len(rates), self.outputs
        size = len(rows) // steps
        rates, decay = np.ascontiguousarray(rates, np.float64), self.l2
        weights = self.no_weights if weights is None else np.ascontiguousarray(weights, np.float64)
        if table is None:
            if weights.size:                                # SGD weights the l2 term too, as part of f_i
                decay = self.l2 * weights.reshape(steps, size).mean(1)
            table, mean = np.empty((0, K), self.dtype), self.no_out
        l1, ridge = (0.0, 0.0) if self.regulariser is None else (self.regulariser.l1, self.regulariser.l2)
        losses, loop = np.full(steps, np.nan), self.steps(size)
        for first, stop in pieces(rates, decay, ridge):
            cut, part = slice(first, stop), slice(first * size, stop * size)
            loop(x, rows[part], weights[part], size, rates[cut], self.l2, l1, ridge, table.reshape(-1, K), mean, moves,
                 losses[cut])
            if not np.isfinite(losses[stop - 1]):
                break
        return losses

    def allows(self, rates, weights):
        """Whether compiled_stretch takes these rates: positive and, with the weights, below 1/l2."""
        most = 1.0 if weights is None else max(1.0, float(weights.max()))
        return bool((rates > 0).all() and (rates * (self.l2 * most) < 1).all())

    @property
    def takes_stretches(self):
        """Whether compiled_stretch knows the penalty, and the data lie where compiled code reads them."""
        return self.stretch is not None and (self.regulariser is None or type(self.regulariser) in (L1, L2, L1L2))

    def row_norms(self):
        """|grad l_i| of the last pass's rows, without weights and without the l2 term (the same for every row)."""
        if self.rows is None and self.s_all is None:
            return None
        if self.rows is None:
            s, squares = self.s_all, self.square_norms_there
        else:
            s, squares = self.s[: len(self.rows)], self.square_norms_there[self.rows]
        xp = backend.xp(s)
        return xp.sqrt((s * s).sum(1) * squares)

    @functools.cached_property
    def square_norms_there(self):
        """square_norms on the device of the data."""
        return backend.asarray(self.square_norms)

    @functools.cached_property
    def square_norms(self):
        """|a_i|^2 in float64 on the host, plus 1 with an intercept; shape (n,)."""
        X = self.host_X
        if scipy.sparse.issparse(X):
            squares = np.asarray(X.astype(np.float64).multiply(X).sum(1)).reshape(-1)
        else:
            squares = np.einsum("ij,ij->i", X, X, dtype=np.float64)
        return squares + self.intercept


def pieces(rates, decay, ridge):
    """[(first, stop)] of stretches in which the scale S, the product of (1 - lr decay)/(1 + lr ridge), does not
    underflow."""
    top = rates.max()
    if -np.log((1 - top * np.max(decay)) / (1 + top * ridge)) * len(rates) <= DEEPEST:
        return [(0, len(rates))]
    depth = (1 - rates * decay) / (1 + rates * ridge)
    np.log(depth, out=depth)
    np.negative(np.cumsum(depth, out=depth), out=depth)
    first, found = 0, []
    while first < len(depth):
        before = depth[first - 1] if first else 0.0
        stop = max(first + 1, int(np.searchsorted(depth, before + DEEPEST, side="right")))
        found.append((first, stop))
        first = stop
    return found


class LeastSquares(LinearModel):
    """f(x) = 1/(2n) |X w + c - y|^2 + l2/2 |w|^2, y real.

    Smooth with L = lmax(X'X)/n + l2, rows with L_i = |x_i|^2 + l2, strongly convex with mu = lmin(X'X)/n + l2.
    """

    kind, curvature, outputs = kernels.SQUARED, 1.0, 1

    def labels(self, y, n):
        return self.same_length(y, n)

    def losses_and_slopes(self, z, y, xp):
        r = z - y[:, None]
        return 0.5 * r[:, 0] * r[:, 0], r

    def second(self, z):
        return np.ones((len(z), 1, 1))

    def strong_convexity(self):
        """mu: the smallest eigenvalue of X'X/n + l2 (none on the intercept), exact up to 2000 columns; beyond, l2 or 0.

        0 where the matrix is singular and l2 = 0: the minimum is then not unique and this constant promises no linear
        rate.
        """
        found = self.eigenvalues
        floor = 0.0 if self.intercept else self.l2
        if found is None:
            return floor
        noise = found.size * np.finfo(float).eps * found[-1]        # of the eigenvalue solver
        return float(found[0]) if found[0] - floor > noise else floor

    def solve(self):
        """By singular values (lstsq) of the stacked matrix (X / sqrt n; sqrt l2); wide or huge data by Newton-CG."""
        if self.regulariser is not None or self.dim > solve.DIRECT or self.n * self.dim > 5e7:
            return super().solve()
        A = self.design.toarray() if scipy.sparse.issparse(self.design) else self.design
        stacked = np.vstack([A / np.sqrt(self.n), np.diag(np.sqrt(self.penalised))])
        target = np.concatenate([self.host_y / np.sqrt(self.n), np.zeros(self.dim)])
        return np.linalg.lstsq(stacked, target, rcond=None)[0]


class Lasso(LeastSquares):
    """F(x) = 1/(2n) |X w + c - y|^2 + l1 |w|_1, the 1/2 and the 1/n included; the intercept c is not penalised.

    With l1 >= |X'(y - mean)|_inf / n (without an intercept: |X'y|_inf / n) the minimiser is w = 0. scikit-learn's alpha
    is l1; the form 1/2 |X w - y|^2 + lam |w|_1 of many papers has lam = n l1.
    """

    def __init__(self, X, y, l1, intercept=False, **more):
        self.l1 = checked(type(self).__name__, "l1", l1, low=0)
        super().__init__(X, y, 0.0, intercept, regulariser=L1(l1), **more)


class ElasticNet(LeastSquares):
    """F(x) = 1/(2n) |X w + c - y|^2 + l1 |w|_1 + l2/2 |w|^2; the l2 term is part of the smooth f, and of every f_i.

    scikit-learn's alpha and l1_ratio are l1 = alpha l1_ratio, l2 = alpha (1 - l1_ratio).
    """

    def __init__(self, X, y, l1, l2, intercept=False, **more):
        self.l1 = checked(type(self).__name__, "l1", l1, low=0)
        super().__init__(X, y, l2, intercept, regulariser=L1(l1), **more)


class Logistic(LinearModel):
    """f(x) = (1/n) sum_i log(1 + exp(-y_i (w.x_i + c))) + l2/2 |w|^2, labels -1 and +1;

    or, with labels 0, ..., C-1 and C > 2, the multinomial (1/n) sum_i (log sum_k exp(z_ik) - z_{i y_i}) + l2/2 |W|^2,
    z_i = W x_i + c, x = (W flattened, c). Smooth with L = lmax(X'X)/(4n) + l2 (binary) or /(2n) (multinomial).
    """

    outputs = 1

    def labels(self, y, n):
        y = self.same_length(y, n)
        found = np.unique(y)
        if found.size == 1:
            raise ValueError(f"{self.name}: all labels are {found[0]:g}; classification needs at least two classes")
        if found.size == 2:
            if list(found) != [-1, 1]:
                raise ValueError(
                    f"{self.name}: two classes must be labelled -1 and +1, got {found[0]:g} and {found[1]:g}; "
                    f"use numpy.where(y == {found[1]:g}, 1, -1)"
                )
            self.kind, self.curvature = kernels.LOGISTIC, 0.25
        else:
            wrong = found[(found < 0) | (found != np.floor(found))]
            if wrong.size or found[-1] + 1 > max(2 * found.size, 1000):
                odd = wrong[0] if wrong.size else found[-1]
                raise ValueError(
                    f"{self.name}: labels must be -1/+1, or 0, ..., C-1 for C > 2 classes; got {found.size} different "
                    f"ones, among them {odd:g}"
                )
            self.kind, self.curvature, self.outputs = kernels.SOFTMAX, 0.5, int(found[-1]) + 1
        return y

    def test_data(self, X, y):
        X, y = super().test_data(X, y)
        known = (-1, 1) if self.outputs == 1 else range(self.outputs)
        strange = np.setdiff1d(y, known)
        if strange.size:
            raise ValueError(f"{self.name}: the test labels hold {strange[0]:g}, which the training labels do not know")
        return X, y

    def losses_and_slopes(self, z, y, xp):
        if self.outputs == 1:
            m = y * z[:, 0]
            tail = xp.logaddexp(xp.zeros_like(m), m)        # log(1 + exp(m)), so that exp(-tail) = 1 / (1 + exp(m))
            return tail - m, (-y * xp.exp(-tail))[:, None]
        z = z - z.max(1)[:, None]
        own = y[:, None] == xp.arange(self.outputs)         # (B, C), one True a row
        p = xp.exp(z)
        total = p.sum(1)
        return xp.log(total) - (z * own).sum(1), p / total[:, None] - own

    def second(self, z):
        """Second derivatives of l in z: p (1 - p), or diag(p) - p p'; (n, K, K)."""
        if self.outputs == 1:
            s = np.exp(-np.logaddexp(0, z[:, 0]))
            return (s * np.exp(-np.logaddexp(0, -z[:, 0])))[:, None, None]
        p = np.exp(z - z.max(1)[:, None])
        p /= p.sum(1)[:, None]
        return p[:, :, None] * np.eye(self.outputs) - p[:, :, None] * p[:, None, :]

    def strong_convexity(self):
        """mu = l2; 0 with an intercept or without l2: far out the loss is flat, and no linear rate is promised."""
        return 0.0 if self.intercept else self.l2

    def predict(self, x, X):
        """Labels for the rows of X, in the form of y."""
        z = self.outputs_at(np.asarray(backend.to_host(x), np.float64), X)
        return np.where(z[:, 0] > 0, 1.0, -1.0) if self.outputs == 1 else z.argmax(1).astype(np.float64)

    def test_metrics(self, x, X, y):
        return {**super().test_metrics(x, X, y), "test_accuracy": float(np.mean(self.predict(x, X) == y))}

    def solve(self):
        x = super().solve()
        if self.regulariser is None and self.l2 == 0 and np.all(self.predict(x, self.exact_X) == self.host_y):
            raise ArithmeticError(
                "no minimum exists: a hyperplane separates the classes, so the loss falls for ever; give l2 > 0"
            )
        return x
