"""Exact numbers of a linear model, in float64 on the host whatever its dtype and device: metrics, constants, minima.

Mixed into LinearModel (problems/linear/). Its `loss` says what they need: l' and l'', bounds, whether inf l is
attained.
"""

import functools

from npopt import backend
from npopt.errors import UserError
from problems.minima import penalised, solve

import numpy as np
import scipy.sparse

GAP_LIMIT = 5000  # unknowns up to which `metrics` finds the minimum unasked


class Exact:
    """What a linear model knows of itself: f and grad f, Hessian, L, mu, variances, minimum."""

    @functools.cached_property
    def exact_X(self):
        return self.host_X if self.dtype == np.float64 else self.host_X.astype(np.float64)

    def exact(self, x):
        """(f, grad f) at x: (dim,) float64 on the host."""
        g = np.empty(self.dim)
        return self.arrays(self.exact_X, self.host_y, x, np.empty(0), self.l2, g)[0], g

    def metrics(self, x):
        """objective f(x), gap f(x) - f* (not clipped: rounding may make it -1e-16), gradient_norm, test_... if given.

        With a penalty h: objective f + h and its gap; gradient_norm is the norm of the shortest subgradient; nonzeros
        counts those of W. The gap is left out where no minimum exists. Beyond GAP_LIMIT unknowns it is also left out,
        unless minimum() was called before.
        """
        x = np.asarray(backend.to_host(self.check(x)), dtype=np.float64)
        f, g = self.exact(x)
        found = {"objective": f + self.penalty(x)}
        if self.dim <= GAP_LIMIT or "answer" in self.__dict__:
            best = self.answer[1]
            if best is not None:
                found["gap"] = found["objective"] - best
        if self.regulariser is None:
            found["gradient_norm"] = float(np.linalg.norm(g))
        else:
            found["gradient_norm"] = penalised.stationarity(self, x, g)
            found["nonzeros"] = int(np.count_nonzero(self.regularised(x)))
        if self.test is not None:
            found.update(self.test_metrics(x, *self.test))
        return found

    def test_metrics(self, x, X, y):
        """test_loss: the mean of l over the test rows, without the l2 term; where there are classes, test_accuracy."""
        found = {"test_loss": self.arrays(X, y, x, np.empty(0), 0.0, np.empty(0))[0]}
        if self.classes is not None:
            found["test_accuracy"] = self.accuracy(x, X, y)
        return found

    def accuracy(self, x, X, y):
        """The share of rows whose class, y in the form of the loss, is predicted."""
        return float(np.mean(self.loss.encode(self.loss.decide(self.outputs_at(x, X))) == y))

    def predict(self, x, X):
        """Labels for the rows of X, float64, as they were given to the constructor; the outputs where y is real."""
        z = self.outputs_at(np.asarray(backend.to_host(x), np.float64), X)
        return z[:, 0] if self.classes is None else np.asarray(self.classes, np.float64)[self.loss.decide(z)]

    def outputs_at(self, x, X):
        """W a + c for the rows a of X, shape (rows, K)."""
        weighted = self.outputs * self.d
        return X @ x[:weighted].reshape(self.outputs, self.d).T + (x[weighted:] if self.intercept else 0.0)

    def duality_gap(self, x):
        """objective(x) - dual(u) >= objective(x) - objective*, with the dual point u of penalised.py."""
        return penalised.duality_gap(self, np.asarray(backend.to_host(self.check(x)), np.float64))

    def gradient_variance(self, x, table=None, probabilities=None):
        """E|g - E g|^2 of the gradient estimate from one drawn row, exactly, by one pass (classical fact; float64).

            plain      g = w_i (s_i(x) a_i + l2 W)                              w_i = 1/(n p_i), p_i = 1/n unless given
            reduced    g = w_i (s_i(x) - table_i) a_i + mean_i table_i a_i + l2 W

        Var = sum_i |v_i|^2 / (n^2 p_i) - |(1/n) sum_i v_i|^2 with v_i = s_i a_i + l2 W, or (s_i - table_i) a_i: no
        gradient is formed row by row. table: (n,) or (n, C), host or device.
        """
        x = np.asarray(backend.to_host(self.check(x)), np.float64)
        z = self.outputs_at(x, self.exact_X)
        a = self.loss.arrays(z, self.host_y, np)[1]
        shares = np.full(self.n, 1 / self.n) if probabilities is None else 1 / (self.n**2 * probabilities)
        weighted = self.outputs * self.d
        if table is None:
            W = x[:weighted]
            inner = (a * (z - (x[weighted:] if self.intercept else 0.0))).sum(1)  # s_i a_i . W
            squares = (a * a).sum(1) * self.square_norms + 2 * self.l2 * inner + self.l2**2 * (W @ W)
            mean = self.from_design((self.design.T @ a).T / self.n)
            mean[:weighted] += self.l2 * W
        else:
            a = a - np.asarray(backend.to_host(table), np.float64).reshape(a.shape)
            squares = (a * a).sum(1) * self.square_norms
            mean = self.from_design((self.design.T @ a).T / self.n)
        return float(max(shares @ squares - mean @ mean, 0.0))

    @functools.cached_property
    def design(self):
        """(X, 1) with an intercept, X without, in float64."""
        X = self.exact_X
        if not self.intercept:
            return X
        if scipy.sparse.issparse(X):
            return scipy.sparse.hstack([X, np.ones((self.n, 1))], format="csr")
        return np.hstack([X, np.ones((self.n, 1))])

    @functools.cached_property
    def penalised(self):
        """l2 for each number of x: l2 on W, 0 on the intercept."""
        diagonal = np.full(self.dim, self.l2)
        diagonal[self.outputs * self.d :] = 0.0
        return diagonal

    def to_design(self, v):
        """x's order (W, then c) to (K, columns of the design), and back with `from_design`."""
        weighted = self.outputs * self.d
        W = v[:weighted].reshape(self.outputs, self.d)
        return np.hstack([W, v[weighted:, None]]) if self.intercept else W

    def from_design(self, V):
        return np.concatenate([V[:, : self.d].reshape(-1), V[:, self.d :].reshape(-1)])

    def gram(self, D):
        """design' diag(D) design / n, dense."""
        A = self.design
        if scipy.sparse.issparse(A):
            return (A.T @ A.multiply(D[:, None]).tocsr()).toarray() / self.n
        return A.T @ (A * D[:, None]) / self.n

    def second(self, x, damping=0.0):
        """l'' of every row at x, (n, K, K), plus `damping` times its majorant: see solve.newton."""
        z = self.outputs_at(x, self.exact_X)
        D = self.loss.second(z, self.host_y)
        return D + damping * self.loss.majorant(z, self.host_y)[:, None, None] * np.eye(self.outputs) if damping else D

    def hessian(self, x, damping=0.0):
        """The Hessian at x, (dim, dim)."""
        D, K, width = self.second(x, damping), self.outputs, self.d + self.intercept
        H = np.empty((K, width, K, width))  # D: (n, K, K), the second derivatives of l in z
        for k in range(K):
            for j in range(k + 1):
                H[k, :, j] = self.gram(D[:, k, j])
                H[j, :, k] = H[k, :, j]
        order = self.from_design(np.arange(K * width).reshape(K, width))
        return H.reshape(K * width, K * width)[np.ix_(order, order)] + np.diag(self.penalised)

    def hessian_product(self, x, damping=0.0):
        """v -> H v at x, for data too wide to form H."""
        A, D = self.design, self.second(x, damping)

        def product(v):
            U = np.einsum("nkj,nj->nk", D, A @ self.to_design(v).T)
            return self.from_design((A.T @ U).T / self.n) + self.penalised * v

        return product

    @functools.cached_property
    @solve.one_thread
    def eigenvalues(self):
        """The eigenvalues of curvature design'design/n + l2 (l2 only on W), one output, ascending. None where that is
        too large to form."""
        width = self.d + self.intercept
        if width > solve.DIRECT:
            return None
        l2 = self.to_design(self.penalised)[0]
        return np.linalg.eigvalsh(self.loss.curvature * self.gram(np.ones(self.n)) + np.diag(l2))

    def smoothness(self):
        """L with |grad f(x) - grad f(y)| <= L |x - y|: the largest eigenvalue of curvature X'X/n + l2.

        Up to 2000 columns it is exact for least squares, and for other losses a bound on every Hessian. Beyond, it is
        Lanczos' value, which is a lower bound, plus 1 percent, and never more than the trace.
        """
        found = self.eigenvalues
        if found is not None:
            return float(max(found[-1], 0.0))
        A, trace = self.design, self.square_norms.mean()
        top = solve.largest_eigenvalue(lambda v: A.T @ (A @ v) / self.n, A.shape[1], trace)
        return float(self.loss.curvature * top + self.l2)

    def row_smoothness(self):
        """L_i of each f_i: curvature |a_i|^2 + l2, (n,) float64 on the host; the intercept counts as a column of 1."""
        return self.loss.curvature * self.square_norms + self.l2

    def strong_convexity(self):
        """mu. For a quadratic loss it is the smallest eigenvalue of X'X/n + l2 (none on the intercept), up to 2000
        columns.

        Beyond, and for losses that are flat somewhere, it is l2, or 0 with an intercept. It is 0 where the matrix is
        singular and l2 = 0: the minimum is then not unique and this constant promises no linear rate.
        """
        floor = 0.0 if self.intercept else self.l2
        found = self.eigenvalues if self.loss.quadratic else None
        if found is None:
            return floor
        noise = found.size * np.finfo(float).eps * found[-1]  # of the eigenvalue solver
        return float(found[0]) if found[0] - floor > noise else floor

    def minimum(self):
        """(x*, objective*) in float64 on the host, found once, by a method independent of the optimizers here.

        The gradient norm at x* (with a penalty: the norm of the shortest subgradient) is kept in `certificate`. It is
        below 1e-12 times the rows' root mean square norm (at least 1) where float64 reaches that. Data without a
        minimiser (separable classes with l2 = 0) are a UserError.
        """
        x, f, why = self.answer
        if x is None:
            raise UserError(f"{self.name}: {why}")
        return x.copy(), f

    @functools.cached_property
    @solve.one_thread
    def answer(self):
        """(x*, f*, None), or (None, None, why there is none)."""
        try:
            x = self.solve()
        except ArithmeticError as error:
            return None, None, str(error)
        f, g = self.exact(x)
        if self.regulariser is not None:
            self.certificate = float(penalised.stationarity(self, x, g))
            return x, f + self.penalty(x), None
        self.certificate = float(np.linalg.norm(g))
        return x, f, None

    def solve(self):
        if self.regulariser is not None:
            return penalised.minimiser(self)
        if self.loss.quadratic and self.dim <= solve.DIRECT and self.n * self.dim <= 5e7:
            return self.by_singular_values()
        scale = max(1.0, float(np.sqrt(self.square_norms.mean())))
        start = np.zeros(self.dim)
        x, _, _ = solve.newton(self.exact, self.hessian, self.hessian_product, start, 1e-12 * scale, 1e-9 * scale)
        if not self.loss.attained and self.l2 == 0 and self.accuracy(x, self.exact_X, self.host_y) == 1.0:
            raise ArithmeticError(
                "no minimum exists: a hyperplane separates the classes, so the loss falls for ever; give l2 > 0"
            )
        return x

    def by_singular_values(self):
        """Least squares by lstsq of the stacked matrix (X / sqrt n; sqrt l2)."""
        A = self.design.toarray() if scipy.sparse.issparse(self.design) else self.design
        stacked = np.vstack([A / np.sqrt(self.n), np.diag(np.sqrt(self.penalised))])
        target = np.concatenate([self.host_y / np.sqrt(self.n), np.zeros(self.dim)])
        return np.linalg.lstsq(stacked, target, rcond=None)[0]
