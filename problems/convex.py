"""Linear models on data sets that scripts share. Each is a function of names and numbers, so its Recipe can be printed.
The arguments below say where it starts, and what it logs beside the usual metrics.

    at_minimum   start at the minimum instead of 0
    logs         more metrics: "w", the iterate; "error", w - w*; "distance", |w - w*|^2; "sigma", the variance of the
                 gradient of one row at w*
"""

import dataclasses
import functools

from npopt import backend
from npopt.errors import UserError
from npopt.penalties import Box
from problems.datasets import shared
from problems.linear import Lasso, LeastSquares, Logistic
from problems.minima.coordinate import lam_max

import numpy as np
import scipy.sparse

LENGTHS = ("as they are", "normalised", "log-normal")  # of rows, see `scaled`


class Traced:
    """Mixed into a linear model: see the module."""

    at_minimum, logs = False, ()

    def x0(self, rng):
        return backend.asarray(self.minimum()[0], self.dtype).copy() if self.at_minimum else super().x0(rng)

    def metrics(self, x):
        found = super().metrics(x)
        if not self.logs:
            return found
        w = np.array(backend.to_host(x), float)
        error = w - self.minimum()[0]
        more = {
            "w": lambda: w,
            "error": lambda: error,
            "distance": lambda: float(np.sum(error**2)),
            "sigma": lambda: self.sigma,
        }
        return found | {name: more[name]() for name in self.logs}

    @functools.cached_property
    def sigma(self):
        return self.gradient_variance(backend.asarray(self.minimum()[0], self.dtype))

    @property
    def memory(self):
        """Epochs that SGD remembers at the step 1/L_max: L_max / (mu n)."""
        return self.row_smoothness().max() / (self.strong_convexity() * self.n)


class Squares(Traced, LeastSquares):
    """Least squares, traced."""


class Binary(Traced, Logistic):
    """Logistic regression, traced."""


class Sparse(Traced, Lasso):
    """LASSO, traced."""


def traced(problem, at_minimum, logs):
    problem.at_minimum, problem.logs = at_minimum, tuple(logs)
    return problem


def regression(data, at_minimum=False, logs=(), test=False):
    """1/2 |Xw + c - y|^2 / n + 1e-3/2 |w|^2 on all rows of a set. With `test` it has the training rows only, and its
    metrics look at the others, too. The intercept c is not penalised."""
    d = shared(data)
    if test:
        problem = Squares(d.x_train, d.y_train, 1e-3, intercept=True, test=(d.x_test, d.y_test))
        return traced(problem, at_minimum, logs)
    stack = scipy.sparse.vstack if scipy.sparse.issparse(d.x_train) else np.vstack
    problem = Squares(stack([d.x_train, d.x_test]), np.concatenate([d.y_train, d.y_test]), 1e-3, intercept=True)
    return traced(problem, at_minimum, logs)


def linear(
    data,
    l2=None,
    strength=None,
    bound=None,
    rows=None,
    *,
    squares=False,
    features=None,
    test=True,
    at_minimum=False,
    logs=(),
):
    """Least squares with standardised targets, or logistic regression, as the set's task is. Of several classes the
    first is set against the rest. There is no intercept.

    l2, strength   the objective's l2 is `l2`, else strength/n, else L/n, where L is the largest row constant without l2
    bound          a box |w_j| <= bound for every weight
    rows           so many rows, drawn once, instead of all
    squares        least squares also where the targets are classes
    features       in place of the columns so many cos(x'a + b), a ~ N(0, 1/d), b uniform (columns standardised first):
                   the random features of Rahimi & Recht, NIPS 2007
    test           whether metrics look at the test rows
    """
    d = chosen(shared(data), rows, features)
    y, y_test, kind = d.y_train, d.y_test, Binary
    if d.task == "regression" or squares:
        y, y_test, kind = (y - y.mean()) / y.std(), (y_test - y.mean()) / y.std(), Squares
    elif len(d.classes) > 2:
        y, y_test = np.where(y == 0, 1.0, -1.0), np.where(y_test == 0, 1.0, -1.0)
    if l2 is None:
        l2 = (kind(d.x_train, y).row_smoothness().max() if strength is None else strength) / len(y)
    problem = kind(
        d.x_train,
        y,
        l2,
        name=data,
        regulariser=None if bound is None else Box(-bound, bound),
        test=(d.x_test, y_test) if test else None,
    )
    return traced(problem, at_minimum, logs)


def chosen(d, rows, features):
    """A data set with so many of its rows, and random features for its columns."""
    if rows is not None:
        some = np.sort(np.random.default_rng(0).permutation(len(d.y_train))[:rows])
        d = dataclasses.replace(d, x_train=d.x_train[some], y_train=d.y_train[some])
    if features is not None:
        rng, mean, spread = np.random.default_rng(1), d.x_train.mean(0), np.maximum(d.x_train.std(0), 1e-12)
        A = rng.standard_normal((d.x_train.shape[1], features)) / np.sqrt(d.x_train.shape[1])
        b = rng.uniform(0, 2 * np.pi, features)
        x_train, x_test = (np.cos((x - mean) / spread @ A + b) for x in (d.x_train, d.x_test))
        d = dataclasses.replace(d, x_train=x_train, x_test=x_test)
    return d


def scaled(X, lengths):
    """The rows of X, their lengths kept, all made 1, or multiplied by exp(N(0, 1))."""
    if lengths == "as they are":
        return X
    if lengths == "normalised":
        norms = np.sqrt(np.asarray(X.multiply(X).sum(1)).ravel() if scipy.sparse.issparse(X) else (X * X).sum(1))
        factors = 1 / np.maximum(norms, 1e-300)
    else:
        factors = np.exp(np.random.default_rng(0).standard_normal(X.shape[0]))
    return scipy.sparse.csr_matrix(X.multiply(factors[:, None])) if scipy.sparse.issparse(X) else X * factors[:, None]


def logistic(data, strength=1, lengths="as they are", rows=None, kappa=None, at_minimum=False, logs=(), test=False):
    """Logistic regression without an intercept.

    strength   l2 = strength/n
    kappa      in place of strength: l2 = L_max / kappa, where L_max is the largest row constant without l2
    lengths    of the rows, see `scaled`
    rows       so many rows, drawn once, instead of all
    test       whether metrics look at the test rows
    """
    d = shared(data)
    some = np.arange(len(d.y_train))
    if rows is not None:
        some = np.sort(np.random.default_rng(0).permutation(len(d.y_train))[:rows])
    X, y = scaled(d.x_train[some], lengths), d.y_train[some]
    l2 = strength / len(y) if kappa is None else Binary(X, y).row_smoothness().max() / kappa
    problem = Binary(X, y, l2, name=f"{data}, rows {lengths}", test=(d.x_test, d.y_test) if test else None)
    return traced(problem, at_minimum, logs)


def lasso(data, rows=None, at_minimum=False, logs=()):
    """The LASSO with standardised columns and targets, without an intercept. l1 is 0.05 of the least that gives w = 0;
    rows: as in logistic."""
    d = shared(data)
    some = np.arange(len(d.y_train))
    if rows is not None:
        some = np.sort(np.random.default_rng(0).permutation(len(d.y_train))[:rows])
    X, y = d.x_train[some].toarray() if scipy.sparse.issparse(d.x_train) else d.x_train[some], d.y_train[some]
    X, y = (X - X.mean(0)) / np.maximum(X.std(0), 1e-12), (y - y.mean()) / y.std()
    return traced(Sparse(X, y, 0.05 * lam_max(X, y), name=data), at_minimum, logs)


class HeldOut(Logistic):
    """Logistic regression with rows held out: validation_loss (without the l2 term) and validation_accuracy beside the
    other metrics."""

    def metrics(self, x):
        scores = np.asarray(self.held @ backend.to_host(x)).ravel()
        more = {
            "validation_loss": float(np.logaddexp(0, -self.labels * scores).mean()),
            "validation_accuracy": float(((scores > 0) == (self.labels > 0)).mean()),
        }
        return {**super().metrics(x), **more}


def held_out(data, l2=1e-4):
    """Logistic regression on a table with two classes, a fifth of its training rows held out."""
    d = shared(data)
    if d.images or d.classes is None or len(d.classes) != 2:
        raise UserError(f"held_out needs a table with two classes, such as a9a; {data} is not one")
    labels = np.where(np.asarray(d.y_train) > 0, 1.0, -1.0)
    order = np.random.default_rng(0).permutation(len(labels))
    cut = len(order) * 4 // 5
    test = None if d.x_test is None else (d.x_test, np.where(np.asarray(d.y_test) > 0, 1.0, -1.0))
    problem = HeldOut(d.x_train[order[:cut]], labels[order[:cut]], l2, test=test, name=data)
    problem.held, problem.labels = d.x_train[order[cut:]], labels[order[cut:]]
    return problem


class Moons(Logistic):
    """Two noisy half-moons, 500 points, standardised; logistic regression with two weights, l2 = 0.01.

    The metrics tell the weights, x and y, and the gap f - f* of the whole objective.
    """

    def __init__(self):
        from sklearn.datasets import make_moons

        points, labels = make_moons(500, noise=0.3, random_state=0)
        self.points, self.signs = (points - points.mean(0)) / points.std(0), 2.0 * labels - 1
        super().__init__(self.points, self.signs, 1e-2, name="moons")
        self.best, self.least = self.minimum()
        self.start = (-1.5, 1.0)

    def x0(self, rng=None):
        return backend.asarray(np.array(self.start))

    def metrics(self, x):
        x = backend.to_host(x)
        return {"gap": super().metrics(x)["objective"] - self.least, "x": float(x[0]), "y": float(x[1])}


class Ridge(LeastSquares):
    """Ridge regression without rounding in its gap: gap = 1/2 (w - w*)'H(w - w*), relative = gap / that at w = 0.

    H, (d, d), w* and the mean of the rows' gradient products at w*, row_noise = (1/n) sum_i g_i g_i', are float64 on
    the host. at_minimum: as above.
    """

    at_minimum = False

    @functools.cached_property
    def exact(self):
        X, n = np.asarray(self.host_X, float), self.n
        H = X.T @ X / n + self.l2 * np.eye(X.shape[1])
        best = np.linalg.solve(H, X.T @ self.host_y / n)
        best += np.linalg.solve(H, X.T @ (self.host_y - X @ best) / n - self.l2 * best)  # one step of refinement
        rows = (X @ best - self.host_y)[:, None] * X + self.l2 * best
        return H, best, rows.T @ rows / n

    def x0(self, rng):
        return backend.asarray(self.exact[1], self.dtype).copy() if self.at_minimum else super().x0(rng)

    def metrics(self, x):
        H, best, _ = self.exact
        e = np.asarray(backend.to_host(x), float) - best
        gap = float(e @ H @ e / 2)
        return {"gap": gap, "relative": gap / float(best @ H @ best / 2)}


def ridge(data, kappa, at_minimum=False):
    """Columns and targets of the training rows standardised, no intercept, and l2 such that L/mu = kappa (none where it
    is less without)."""
    d = shared(data)
    X = d.x_train.toarray() if scipy.sparse.issparse(d.x_train) else d.x_train
    X, y = (X - X.mean(0)) / np.maximum(X.std(0), 1e-12), (d.y_train - d.y_train.mean()) / d.y_train.std()
    low, *_, high = np.linalg.eigvalsh(X.T @ X / len(y))
    problem = Ridge(X, y, max(0.0, (high - kappa * low) / (kappa - 1)), name=data)
    problem.at_minimum = at_minimum
    return problem
