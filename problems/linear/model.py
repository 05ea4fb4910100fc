"""LinearModel: passes over rows and the linear structure, compiled on the host, as array code elsewhere."""

import functools

from npopt import backend
from npopt.errors import UserError
from npopt.penalties import Regulariser
from npopt.segments import Segments
from npopt.values import arguments_of
from npopt.values import number as checked
from problems.base import Problem, number
from problems.linear import data, fused, labels, passes
from problems.linear.losses import Loss
from problems.linear.second import Second
from problems.linear.stretches import Stretches
from problems.minima.exact import Exact

import numpy as np
import scipy.sparse


class LinearModel(Stretches, Exact, Second, Problem):
    """f(x) = (1/n) sum_i l(W a_i + c; y_i) + l2/2 |W|^2: see problems/linear/__init__.py.

    X: (n, d), dense or any scipy.sparse matrix, float32 or float64 (the dtype of the problem; other numbers become
    float64, or `dtype`); y: (n,). loss: a Loss, or a function (name, y) -> Loss where the labels decide. test: None or
    (X_test, y_test), for `metrics`. regulariser: a penalty on W, or None.

    On the host, passes over given rows are compiled and cost the rows' non-zeros plus dim; all rows of dense data go
    through BLAS. On another device both are array code (sparse data: backend.Csr, a second copy by columns). That code
    does not look whether row numbers are in range. What does not fit is a UserError.
    """

    def __init__(self, X, y, loss, l2=0.0, intercept=False, *, test=None, name=None, dtype=None, regulariser=None):
        self.name = own = type(self).__name__ if name is None else name
        if regulariser is not None and not isinstance(regulariser, Regulariser):
            raise UserError(f"{own}: regulariser must be a penalty such as L1(0.1), got {regulariser!r}")
        self.regulariser = regulariser
        X = data.design(own, X, dtype)
        self.n, self.d = X.shape
        y = labels.numbers(own, np.asarray(y), self.n)
        self.loss = loss if isinstance(loss, Loss) else loss(own, y)
        self.classes, self.outputs = self.loss.classes(own, y), self.loss.outputs
        self.l2, self.intercept = float(checked(own, "l2", l2, low=0, high=1e300)), bool(intercept)
        if name is None:
            self.name = f"{self.kind()}({self.n}x{self.d}, {self.terms()})"
        K, d = self.outputs, self.d
        shape, kind = ((d,), "vector") if K == 1 else ((K, d), "matrix")
        ends = [("intercept", (K,), "bias", "intercept")] if intercept else []
        self.set_shape(K * (d + self.intercept), X.dtype, Segments.of(("w", shape, kind, "w"), *ends))
        self.host_X, self.host_y = X, self.encoded(y)
        self.test = None if test is None else self.test_data(*test)
        self.rows, self.s_all = None, None  # of the last pass
        self.place_on_device()

    def kind(self):
        """The name's first word: that of the class, or the loss."""
        return repr(self.loss) if type(self) is LinearModel else type(self).__name__

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
        problem.name = f"{problem.kind()}({dataset.name}, {problem.terms()})"
        return problem

    def regularised(self, x):
        """W, flat: the penalty leaves the intercept alone."""
        return x[: self.outputs * self.d]

    def targets(self):
        return self.host_y

    def ingredients(self):
        """What identifies the problem: the constructor's arguments, with the data as they lie on the host."""
        return arguments_of(self) | {"X": self.host_X, "y": self.host_y}

    # ------------------------------------------------------------------------------------------------ the data

    def encoded(self, y):
        """Labels in the form that the loss takes."""
        return y if self.classes is None else self.loss.encode(labels.numbered(self.name, y, self.classes))

    def test_data(self, X, y):
        """Test rows in float64, where all metrics are computed."""
        X = data.design(self.name, X, np.float64, self.d)
        return X, self.encoded(labels.numbers(self.name, np.asarray(y), X.shape[0]))

    def place_on_device(self):
        """Bind the pass over given rows to the data, where the device in use wants it."""
        X, K, kind = backend.xp(), self.outputs, self.dtype
        self.no_weights, self.no_out = backend.empty(0, np.float64), backend.empty(0, kind)
        self.y = backend.asarray(self.host_y.astype(kind))
        if not scipy.sparse.issparse(self.host_X):
            self.X = backend.asarray(self.host_X)
        else:
            self.X = self.host_X if X is np else backend.Csr(self.host_X)
        self.s = backend.empty((64, K), kind)  # slopes of the last pass over given rows; grows
        self.loops, self.on_host = {}, X is np  # whether compiled loops can read the data
        if self.on_host:
            X, tail = self.X, (self.y, self.dim)
            held = (X.data, X.indices, X.indptr, self.d, *tail) if scipy.sparse.issparse(X) else (X, *tail)
            self.run, self.mix = passes.passes(self.loss, held)
        else:
            self.run, self.mix = self.array_pass, self.array_combine
        self.over = self.arrays  # the pass over rows that are at hand
        if not self.on_host and fused.kernels(self.loss) is not None:
            self.over = fused.Fused(self.loss, self.intercept)

    # ------------------------------------------------------------------------------------------------ passes

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
        except (TypeError, ValueError):  # something did not fit: find out what, or make it fit
            return self.run(*self.fit(x, rows, weights, out))

    def fit(self, x, rows, weights, out):
        """The arguments of a pass, converted where that is harmless, with s long enough. Otherwise a UserError."""
        self.check(x)
        rows = self.rows = data.row_numbers(self.name, rows, self.n)
        B = rows.shape[0]
        if self.s.shape[0] < B:
            self.s = backend.empty((B, self.outputs), self.dtype)
        return x, rows, self.check_weights(weights, B), self.l2, self.s, self.check_out(out)

    def check_weights(self, weights, B):
        return self.no_weights if weights is None else data.row_weights(self.name, weights, B)

    def check_out(self, out):
        if out is None:
            return self.no_out
        self.check(out, "out")
        if isinstance(out, np.ndarray) and not out.flags.writeable:
            raise UserError(f"{self.name}: out is read-only")
        return out

    def all_rows(self, x, weights, out, inputs=None, dinputs=None):
        """A pass over every row in order."""
        if inputs is not None or dinputs is not None:
            raise UserError(f"{self.name}: a linear model takes no inputs= or dinputs=")
        self.rows = None
        value, self.s_all = self.whole(self.check(x), self.check_weights(weights, self.n), self.check_out(out))
        return value

    def whole(self, x, weights, out):
        """(value, slopes) over all rows; nothing is stored in this object."""
        if not scipy.sparse.issparse(self.X):
            return self.over(self.X, self.y, x, weights, self.l2, out)
        s = np.empty((self.n, self.outputs), self.dtype)
        return self.run(x, np.arange(self.n), weights, self.l2, s, out), s

    @np.errstate(over="ignore", invalid="ignore")  # a run that diverges shows in its loss
    def arrays(self, A, y, x, weights, l2, out):
        """The pass of problems/linear/passes.py as array code, over the rows A: (B, d), y: (B,). Returns (value,
        slopes).

        It runs on the host, and on a device where the loss has no kernel (problems/linear/fused.py).
        """
        xp, K, B = backend.xp(x), self.outputs, A.shape[0]
        weighted = K * self.d
        W = x[:weighted].reshape(K, self.d)
        z = A @ W.T  # (B, K)
        if self.intercept:
            z += x[weighted:]
        losses, s = self.loss.arrays(z, y, xp)  # (B,), (B, K)
        ones = weights.shape[0] == 0
        weights = weights.astype(x.dtype)
        mean = 1.0 if ones else weights.sum() / B
        if out.shape[0]:
            ws = (s if ones else s * weights[:, None]) / B
            out[:weighted] = (ws.T @ A).reshape(-1) + (l2 * mean) * x[:weighted]
            out[weighted:] = ws.sum(0)[: x.shape[0] - weighted]
        flat = W.reshape(-1)
        value = (losses if ones else losses * weights).sum() / B + (0.5 * l2 * mean) * (flat @ flat)
        return number(value), s

    def array_pass(self, x, rows, weights, l2, s, out):
        """The compiled pass's stand-in on devices without one."""
        if x.shape != (self.dim,) or out.shape[0] not in (0, self.dim) or rows.shape[0] > s.shape[0]:
            raise ValueError
        value, found = self.over(self.X[rows], self.y[rows], x, weights, l2, out)
        s[: rows.shape[0]] = found
        return value

    def array_combine(self, s, rows, out):
        if s.shape[0] != rows.shape[0] or out.shape != (self.dim,):
            raise ValueError
        B, weighted = rows.shape[0], self.outputs * self.d
        out[:weighted] = (s.T @ self.X[rows]).reshape(-1) / B
        out[weighted:] = s.sum(0)[: self.dim - weighted] / B

    # ------------------------------------------------------------------------------------------------ linear structure

    def scalars(self, x, rows, out, weights=None):
        """out[b] = l'(a_i . x; y_i), i = rows[b]. So grad l_i = out[b] a_i. out: (B,), or (B, C) for C classes.

        Returns value(x, rows, weights); the scalars have no weights in them.
        """
        rows = backend.xp(x).arange(self.n) if rows is None else rows
        s = out.reshape(-1, self.outputs)
        try:
            if s.shape[0] != len(rows):
                raise UserError("lengths differ")  # said below
            return self.run(x, rows, self.no_weights if weights is None else weights, self.l2, s, self.no_out)
        except (TypeError, ValueError):
            rows = data.row_numbers(self.name, rows, self.n)
            self.check(x)
            if out.dtype != self.dtype or s.shape[0] != rows.shape[0]:
                raise UserError(
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
            rows = data.row_numbers(self.name, rows, self.n)
            s = backend.xp(out).ascontiguousarray(backend.asarray(s, self.dtype))
            if s.shape[0] != rows.shape[0]:
                raise UserError(f"{self.name}: {rows.shape[0]} rows, but scalars for {s.shape[0]}") from None
            self.mix(s, rows, self.check(out, "out"))
        return out

    def add_l2(self, x, out):
        """out += l2 W, the gradient of the l2 term; the intercept is left alone."""
        weighted = self.outputs * self.d
        out[:weighted] += self.l2 * x[:weighted]
        return out

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
        return data.square_norms(self.host_X) + self.intercept
