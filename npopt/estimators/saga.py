"""SAGA: Defazio, Bach & Lacoste-Julien, NIPS 2014, equations 1 to 3; a table of past gradients reduces the variance."""

import math

from npopt import backend
from npopt.errors import UserError
from npopt.estimators.accumulated import add
from npopt.estimators.base import Estimator
from npopt.estimators.stretch import Stretch
from npopt.values import number

import numpy as np


class SAGA(Estimator):
    """With a table T_i of past gradients and their mean Tbar = (1/n) sum_i T_i:

        g    = (1/B) sum_b w_b (grad f_b(x) - T_b) + Tbar
        Tbar <- Tbar + (1/n) sum_b (grad f_b(x) - T_b),  T_b <- grad f_b(x)          over the distinct rows of the batch

    g is formed with the old mean (SAG uses the new one, and is biased). With SGD x then moves by -lr g; with
    Proximal(SGD()) it is the paper's proximal form. lr = 1/(3 L_max) needs no mu.

    table    "scalars": for linear models, where grad f_i = s_i a_i + l2 W. The table holds the n numbers s_i (n C for C
             classes), whatever the dimension; l2 W is taken at x, outside the table. "gradients": n vectors, on any
             problem. With fixed batches of B > 1 rows (ShuffleOnce) it holds one vector a batch, weighted so that g
             stays unbiased: g = (B_k K / n) (grad_k - T_k) + Tbar with Tbar = sum_k (B_k / n) T_k, K batches.
    initial  "gradients": the table starts with the gradients at the first x, which takes one pass, and this pass is
             counted. "zeros": the table and Tbar start with zeros, which is unbiased too, with a noisier first pass
             (fixed batches need it)
    refresh  the passes after which Tbar is summed anew from the table, against rounding; None: never

    Memory of "scalars": n C + dim numbers, and dim more in the Python loop or 3 C d while a compiled stretch runs.
    """

    def __init__(self, table="scalars", initial="gradients", refresh=10):
        if table not in ("scalars", "gradients") or initial not in ("gradients", "zeros"):
            raise UserError(
                'SAGA: table must be "scalars" or "gradients", initial "gradients" or "zeros", got '
                f"table={table!r}, initial={initial!r}"
            )
        self.table, self.initial = table, initial
        self.refresh = None if refresh is None else number("SAGA", "refresh", refresh, low=0, open_low=True)

    def start(self, problem, x, seed):
        g = super().start(problem, x, seed)
        if self.table == "scalars" and not hasattr(problem, "scalars"):
            raise UserError(
                f"SAGA: {problem.name} is not a linear model, so there is no number a row to keep; "
                f"table='gradients' keeps {problem.n} x {problem.dim} numbers"
            )
        self.mean = backend.xp(x).zeros_like(x)
        self.kept = (Scalars if self.table == "scalars" else Gradients)(problem, x, self.counts)
        self.seen = 0
        if self.initial == "gradients":
            self.kept.fill(x)
            self.kept.average(self.mean)
        return g

    def __call__(self, x, batch, out):
        size = self.problem.n if batch.rows is None else len(batch.rows)
        self.due(x, size)
        loss = super().__call__(x, batch, out)
        self.kept.store(batch, self.mean)
        self.passed(1, size)
        return loss

    def again(self, y, out):
        return self.kept.estimate(y, self.batch, self.mean, out)

    def due(self, x, size):
        """Sum the mean anew when it is time. Returns the number of steps until the next time."""
        if self.refresh is None:
            return math.inf
        if self.seen >= self.refresh * self.problem.n:
            self.kept.average(self.mean)
            self.seen = 0
        return max(1, math.ceil((self.refresh * self.problem.n - self.seen) / size))

    def passed(self, steps, size):
        self.seen += steps * size

    def variance(self, x, probabilities=None):
        """The variance with the table as it is now."""
        linear = hasattr(self.problem, "scalars")
        if not hasattr(self.problem, "gradient_variance") or linear != (self.table == "scalars"):
            return super().variance(x)
        return self.problem.gradient_variance(x, self.kept.table, probabilities)

    def compiled(self, optimizer, sampler):
        return Stretch.where_possible(self, optimizer, sampler) if self.table == "scalars" else None

    def memory(self):
        return self.kept.table, self.mean, True

    def state(self):
        return {"table": self.kept.table, "mean": self.mean, "seen": self.seen, **super().state()}

    def load_state(self, state):
        super().load_state(state)
        self.seen = int(state["seen"])
        self.kept.load(state["table"])
        self.mean[...] = backend.asarray(state["mean"], self.mean.dtype)


class Scalars:
    """One number a row and output, s_i: the table of a linear model."""

    def __init__(self, problem, x, counts):
        self.problem, self.counts = problem, counts
        self.table = backend.zeros((problem.n, problem.outputs), x.dtype)
        self.piece = None

    def load(self, table):
        self.table[...] = backend.asarray(table, self.table.dtype)

    def fill(self, x):
        self.counts["gradients"] += self.problem.n
        self.problem.scalars(x, None, self.table)

    def average(self, mean):
        self.problem.combine(self.table, None, mean)

    def estimate(self, y, batch, mean, out):
        problem, rows, weights = self.problem, batch.rows, batch.weights
        size = problem.n if rows is None else len(rows)
        self.counts["gradients"] += size
        self.fresh = backend.empty((size, problem.outputs), y.dtype)
        loss = problem.scalars(y, rows, self.fresh, weights)
        self.change = self.fresh - (self.table if rows is None else self.table[rows])
        weighted = self.change if weights is None else self.change * weights.astype(y.dtype)[:, None]
        problem.combine(weighted, rows, out)
        add(out, mean, 1)
        problem.add_l2(y, out)
        return loss

    def store(self, batch, mean):
        rows, change = batch.rows, self.change
        size = len(change)
        if rows is not None and size > 1:  # a row that comes twice counts once
            xp = backend.xp(change)
            order = xp.argsort(rows, kind="stable")
            listed, last = rows[order], xp.ones(size, bool)
            last[order[:-1]] = listed[:-1] != listed[1:]
            change = change * last[:, None]
        if self.piece is None:
            self.piece = backend.xp(mean).zeros_like(mean)
        self.problem.combine(change, rows, self.piece)
        add(mean, self.piece, size / self.problem.n)
        self.table[slice(None) if rows is None else rows] = self.fresh


class Gradients:
    """One vector for each row or each fixed batch. On a linear model it leaves the l2 term out, as Scalars does."""

    def __init__(self, problem, x, counts):
        self.problem, self.counts, self.x = problem, counts, x
        self.table = self.fresh = None
        self.shares = None  # B_k / n of the fixed batches

    def load(self, table):
        self.table = None if table is None else backend.asarray(table, self.x.dtype).copy()

    def allocate(self, rows):
        problem = self.problem
        try:
            self.table = backend.zeros((rows, problem.dim), self.x.dtype)
        except MemoryError:
            need = rows * problem.dim * self.x.dtype.itemsize / 1e9
            raise UserError(
                f"SAGA: a table of {rows} x {problem.dim} numbers takes {need:.3g} GB, and there is less "
                "memory; use fixed batches (ShuffleOnce), or on a linear model table='scalars'"
            ) from None

    def gradient(self, x, rows, out):
        """The mean gradient of the rows, without the l2 term where the model is linear; returns the value there."""
        problem = self.problem
        if not hasattr(problem, "scalars"):
            return problem.value_and_gradient(x, rows, None, out)
        s = backend.empty((len(rows), problem.outputs), x.dtype)
        loss = problem.scalars(x, rows, s)
        problem.combine(s, rows, out)
        return loss

    def fill(self, x):
        n = self.problem.n
        self.allocate(n)
        self.counts["gradients"] += n
        rows = backend.asarray(np.arange(n))
        for i in range(n):
            self.gradient(x, rows[i : i + 1], self.table[i])

    def average(self, mean):
        if self.shares is not None:
            mean[...] = backend.asarray(self.shares, mean.dtype) @ self.table
        elif self.table is not None:
            mean[...] = self.table.mean(0)

    def estimate(self, y, batch, mean, out):
        problem, rows = self.problem, batch.rows
        if batch.key is not None and rows is not None and len(rows) > 1:
            loss = self.estimate_batch(y, batch, mean, out)
        else:
            loss = self.estimate_rows(y, batch, mean, out)
        if hasattr(problem, "add_l2"):
            problem.add_l2(y, out)
        return loss

    def estimate_rows(self, y, batch, mean, out):
        problem = self.problem
        rows = backend.asarray(np.arange(problem.n)) if batch.rows is None else batch.rows
        if self.table is None:
            self.allocate(problem.n)
        size, loss = len(rows), 0.0
        if self.fresh is None or len(self.fresh) != size:
            self.fresh = backend.empty((size, problem.dim), y.dtype)
        self.counts["gradients"] += size
        out[...] = mean
        for b in range(size):
            row, w = rows[b : b + 1], 1.0 if batch.weights is None else batch.weights[b]
            loss = loss + w * self.gradient(y, row, self.fresh[b])
            add(out, self.fresh[b], w / size)
            add(out, self.table[row][0], -w / size)
        return loss / size

    def estimate_batch(self, y, batch, mean, out):
        problem, rows, key = self.problem, batch.rows, batch.key
        if self.shares is None:
            if self.table is not None and len(self.table) == problem.n:
                raise UserError("SAGA: with fixed batches the table holds one gradient a batch; use initial='zeros'")
            count = -(-problem.n // len(rows))
            if self.table is None:
                self.allocate(count)
            self.shares = np.full(count, len(rows) / problem.n)
            self.shares[-1] = 1 - self.shares[:-1].sum()
        self.counts["gradients"] += len(rows)
        if self.fresh is None:
            self.fresh = backend.empty((1, problem.dim), y.dtype)
        loss = self.gradient(y, rows, self.fresh[0])
        out[...] = mean
        scale = float(self.shares[key]) * len(self.shares)
        add(out, self.fresh[0], scale)
        add(out, self.table[key], -scale)
        return loss

    def store(self, batch, mean):
        if self.shares is not None:
            share, key = float(self.shares[batch.key]), batch.key
            add(mean, self.fresh[0], share)
            add(mean, self.table[key], -share)
            self.table[key] = self.fresh[0]
            return
        n = self.problem.n
        rows = backend.asarray(np.arange(n)) if batch.rows is None else batch.rows
        for b in range(len(rows)):
            row = rows[b : b + 1]
            add(mean, self.fresh[b], 1 / n)
            add(mean, self.table[row][0], -1 / n)  # when a row comes a second time, both are the same
            self.table[row] = self.fresh[b][None]
