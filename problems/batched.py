"""A problem whose rows are the fixed mini-batches of another: what methods with a memory of each row can keep."""

from npopt import backend
from npopt.errors import UserError
from npopt.estimators.accumulated import add
from npopt.values import whole
from problems.base import Problem, number

import numpy as np


class Batched(Problem):
    """The rows of `problem` in K fixed mini-batches, and f(x) = (1/K) sum_k f_k(x), f_k the mean loss of batch k.

    size     rows a batch: K = n // size batches of a random order; the n - K size rows at its end are left out
    seed     of that order
    lock     augmentation and dropout masks stay as they are for so many steps (transform locking: Defazio & Bottou,
             NeurIPS 2019, section 3.1), a multiple of SVRG's stages; None: for ever
    sampled  batches from which gradient_variance is estimated; None: all
    plain    metrics measure the plain gradient's variance, too: its column is called plain_variance

    With batch normalisation the loss of a row depends on the others of its batch. As f_k is a training pass of batch k,
    it has the statistics of batch k, wherever it is taken, and between two changes of the masks it is a function of x
    alone. So SVRG and SAGA are exactly what their papers say, with batches in place of rows. Passes over more than one
    batch go batch by batch and add up: they need no more memory than one.
    """

    def __init__(self, problem, size, seed=0, lock=None, sampled=None, plain=False):
        if problem.n is None:
            raise UserError(f"Batched: {problem.name} has no fixed rows to divide into batches")
        self.problem, self.size, self.seed, self.plain = problem, whole("Batched", "size", size), seed, bool(plain)
        self.lock = None if lock is None else whole("Batched", "lock", lock)
        self.n = problem.n // self.size
        if not self.n:
            raise UserError(f"Batched: a batch of {self.size} rows is more than the {problem.n} of {problem.name}")
        self.sampled = None if sampled is None else min(whole("Batched", "sampled", sampled, low=2), self.n)
        self.name = f"{problem.name} in {self.n} batches"
        self.set_shape(problem.dim, problem.dtype, problem.segments)
        order = backend.generator(seed, "fixed batches").permutation(problem.n)[: self.n * self.size]
        self.batches = backend.asarray(order.reshape(self.n, self.size))
        self.piece = None

    def ingredients(self):
        """What identifies it: the other problem, and how its rows are divided and measured."""
        kept = dict(size=self.size, seed=self.seed, lock=self.lock, sampled=self.sampled, plain=self.plain)
        return {"problem": self.problem, **kept}

    def over(self, rows, weights, taken):
        """(1/B) sum_b w_b taken(rows of batch b, w_b / B)."""
        count, loss = self.n if rows is None else rows.shape[0], 0.0
        for b in range(count):
            batch = self.batches[b] if rows is None else self.batches[rows[b : b + 1]].reshape(-1)
            w = 1 / count if weights is None else weights[b] / count
            loss = loss + w * taken(batch, w)
        return number(loss)

    def loss(self, x, rows, weights):
        return self.over(rows, weights, lambda batch, w: self.problem.value(x, batch))

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        """As of every problem; rows are numbers of batches."""
        if inputs is not None or dinputs is not None:
            raise UserError("Batched: inputs and dinputs are those of rows, not of batches")
        if out is None:
            return self.value(x, rows, weights)
        if rows is not None and rows.shape[0] == 1 and weights is None:
            return self.problem.value_and_gradient(x, self.batches[rows].reshape(-1), None, out)
        if self.piece is None:
            self.piece = backend.empty((self.dim,), self.dtype)
        out[...] = 0

        def taken(batch, w):
            found = self.problem.value_and_gradient(x, batch, None, self.piece)
            add(out, self.piece, w)
            return found

        return self.over(rows, weights, taken)

    def gradient_variance(self, x, old=None, probabilities=None):
        """(K-1)/K of the sample variance of g_k = grad f_k(x) - grad f_k(old) over batches k drawn uniformly, summed
        over coordinates: E|g_k - E g_k|^2 exactly where all batches are taken, and without bias where `sampled` are.

        old: None; another point, (dim,), as SVRG keeps it; or a table (K, dim) of gradients, as SAGA keeps it.
        """
        if probabilities is not None:
            raise UserError("Batched: the variance is that of batches drawn uniformly; leave variance=True out")
        if self.n < 2:
            raise UserError(f"Batched: one batch of {self.size} rows has no variance; take smaller ones")
        if old is not None and old.ndim == 2 and len(old) != self.n:
            raise UserError(
                f"Batched: the table holds {len(old)} gradients, one for each of {self.n} batches is needed"
            )
        chosen = np.arange(self.n)
        if self.sampled is not None:
            chosen = backend.generator(self.seed, "sampled batches").permutation(self.n)[: self.sampled]
        g, before = backend.empty((self.dim,), self.dtype), backend.empty((self.dim,), self.dtype)
        mean, squares = backend.zeros((self.dim,), "float64"), 0.0
        for count, k in enumerate(chosen.tolist(), 1):  # Welford, Technometrics 4, 1962
            self.problem.value_and_gradient(x, self.batches[k], None, g)
            if old is not None and old.ndim == 1:
                self.problem.value_and_gradient(old, self.batches[k], None, before)
                g -= before
            elif old is not None:
                g -= old[k]
            change = g - mean
            mean += change / count
            squares += float(backend.to_host(change @ (g - mean)))
        return squares / (len(chosen) - 1) * (1 - 1 / self.n)

    # ------------------------------------------------------------------------------------------- the other problem's

    def x0(self, rng):
        return self.problem.x0(rng)

    def metrics(self, x):
        found = self.problem.metrics(x)
        return found | {"plain_variance": self.gradient_variance(x)} if self.plain else found

    def recalibrate(self, x, rows=None, batch=500):
        """Batch statistics of x over these batches (None: over all rows), where the other problem has any."""
        if hasattr(self.problem, "recalibrate"):
            self.problem.recalibrate(x, None if rows is None else self.batches[rows].reshape(-1), batch)

    def begin(self, t):
        self.t = t
        self.problem.begin(0 if self.lock is None else t // self.lock)

    def commit(self):
        self.problem.commit()

    def set_seed(self, seed):
        self.problem.set_seed(seed)

    def reset(self):
        super().reset()
        self.problem.reset()

    def state(self):
        return {"t": self.t, "inner": self.problem.state()}

    def load_state(self, state):
        self.t = state["t"]
        self.problem.load_state(state["inner"])
