"""A quadratic with known answer, whose rows differ by gradient noise of known size."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import arguments_of, whole
from npopt.values import number as checked
from problems.base import Problem, number

import numpy as np


class Quadratic(Problem):
    """f(x) = 1/2 x'A x - b'x, as the mean of n rows f_i(x) = 1/2 x'A x - b'x + e_i'x with sum_i e_i = 0.

    A        (d, d), symmetric; or (d,), the eigenvalues of a diagonal matrix
    b        (d,), zeros if None
    noise    standard deviation of the numbers of e_i, drawn from (seed, row) and then centred over the n rows, so that
             the mean is f exactly; or an (n, d) array of the e_i, which is centred too
    dtype    float32 or float64

    Rows with weights give (1/B) sum_b w_b f_b. With lmin(A) > 0 the minimum is x* = A^{-1} b, f* = -1/2 b'x*. It is
    also exact for a singular A if b lies in its range; if not, there is no minimum.
    """

    def __init__(self, A, b=None, n=1, noise=0.0, seed=0, dtype=np.float64, name="Quadratic"):
        self.name = name
        A = np.asarray(A, dtype=np.float64)
        if A.ndim not in (1, 2) or A.size == 0 or A.shape != A.shape[:1] * A.ndim:
            raise UserError(f"{name}: A must have shape (d, d), or (d,) for eigenvalues, got {A.shape}")
        if not np.isfinite(A).all() or (A.ndim == 2 and not np.allclose(A, A.T, rtol=1e-12, atol=0)):
            raise UserError(f"{name}: A must be finite and symmetric")
        d = A.shape[0]
        b = np.zeros(d) if b is None else np.asarray(b, dtype=np.float64)
        if b.shape != (d,) or not np.isfinite(b).all():
            raise UserError(f"{name}: b must be {d} finite numbers, got shape {b.shape}")
        self.set_shape(d, dtype)
        if np.ndim(noise):
            e = np.array(noise, dtype=np.float64)
            if e.ndim != 2 or e.shape[1] != d or not e.size or not np.isfinite(e).all():
                raise UserError(f"{name}: noise must be finite, of shape (rows, {d}), got {e.shape}")
            self.n = e.shape[0]
        else:
            self.n = whole(name, "n", n)
            checked(name, "noise", noise, low=0, high=1e300)
            e = noise * backend.generator(seed, "quadratic noise").standard_normal((self.n, d)) if noise else None
        self.exact_A, self.exact_b = A, b
        self.A, self.b = backend.asarray(A.astype(self.dtype)), backend.asarray(b.astype(self.dtype))
        self.e = None if e is None else backend.asarray((e - e.mean(0)).astype(self.dtype))

    def x0(self, rng):
        """Standard normal numbers."""
        return backend.asarray(rng.standard_normal(self.dim).astype(self.dtype))

    def ingredients(self):
        """What identifies the problem: the constructor's arguments, and the noise that was drawn."""
        return arguments_of(self) | {"noise": self.e}

    def product(self, A, x):
        return A * x if A.ndim == 1 else A @ x

    def parts(self, x, rows, weights):
        """(A x, b - noise, mean weight). The gradient is the third times the first, minus the second."""
        count = self.n if rows is None else len(rows)
        if rows is not None:
            if not count or (isinstance(rows, np.ndarray) and not 0 <= rows.min() <= rows.max() < self.n):
                raise UserError(f"{self.name}: rows must be one or more of 0..{self.n - 1}")
            rows = backend.asarray(rows)
        if weights is None:
            mean, b = 1.0, self.b
            if self.e is not None and rows is not None:
                b = b - self.e[rows].mean(0)
            return self.product(self.A, x), b, mean
        weights = backend.asarray(weights, self.dtype)
        if weights.shape != (count,):
            raise UserError(f"{self.name}: {count} rows need {count} weights, got shape {weights.shape}")
        mean = weights.mean()
        b = mean * self.b
        if self.e is not None:
            b = b - weights @ (self.e if rows is None else self.e[rows]) / count
        return self.product(self.A, x), b, mean

    @np.errstate(over="ignore", invalid="ignore")  # a run that diverges shows in its loss
    def loss(self, x, rows, weights):
        Ax, b, mean = self.parts(x, rows, weights)
        return number(0.5 * mean * (x @ Ax) - b @ x)

    @np.errstate(over="ignore", invalid="ignore")
    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        if inputs is not None or dinputs is not None:
            raise UserError(f"{self.name}: a quadratic takes no inputs= or dinputs=")
        Ax, b, mean = self.parts(self.check(x), rows, weights)
        if out is not None:
            self.check(out, "out")[:] = mean * Ax - b
        return number(0.5 * mean * (x @ Ax) - b @ x)

    def curvature(self, x, rows=None, weights=None):
        """v -> mean(w) A v."""
        mean = 1.0 if weights is None else backend.asarray(weights, self.dtype).mean()
        return lambda v: mean * self.product(self.A, v)

    def eigenvalues(self):
        """The eigenvalues of A, ascending."""
        return np.sort(self.exact_A) if self.exact_A.ndim == 1 else np.linalg.eigvalsh(self.exact_A)

    def smoothness(self):
        """L, the largest |eigenvalue|."""
        return float(np.abs(self.eigenvalues()).max())

    def row_smoothness(self):
        """L_i = L: the rows differ by a linear term only."""
        return np.full(self.n, self.smoothness())

    def strong_convexity(self):
        """mu = lmin(A); 0 where A is singular or indefinite, and then no linear rate is promised."""
        values = self.eigenvalues()
        noise = 0.0 if self.exact_A.ndim == 1 else self.dim * np.finfo(float).eps * np.abs(values).max()
        return float(values[0]) if values[0] > noise else 0.0

    def minimum(self):
        """(x*, f*) in float64 on the host; a ValueError where f is not bounded below."""
        A, b = self.exact_A, self.exact_b
        values, vectors = (A, None) if A.ndim == 1 else np.linalg.eigh(A)
        c = b if vectors is None else vectors.T @ b
        noise = self.dim * np.finfo(float).eps * np.abs(values).max()
        flat = np.abs(values) <= noise
        if (values < -noise).any() or (np.abs(c[flat]) > 1e-12 * np.linalg.norm(b)).any():
            raise UserError(f"{self.name}: not bounded below: A has a negative eigenvalue, or b leaves the range of A")
        y = np.divide(c, values, out=np.zeros(self.dim), where=~flat)
        x = y if vectors is None else vectors @ y
        return x, float(-0.5 * (b @ x))

    def metrics(self, x):
        """objective, gap = 1/2 (x - x*)'A(x - x*) where a minimum exists, and gradient_norm, in float64."""
        x = np.asarray(backend.to_host(self.check(x)), dtype=np.float64)
        Ax = self.product(self.exact_A, x)
        found = {"objective": float(0.5 * (x @ Ax) - self.exact_b @ x)}
        try:
            e = x - self.minimum()[0]
            found["gap"] = float(0.5 * e @ self.product(self.exact_A, e))
        except ValueError:
            pass
        found["gradient_norm"] = float(np.linalg.norm(Ax - self.exact_b))
        return found
