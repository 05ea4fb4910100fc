"""What estimators share. An estimator is a value until `start`; then it is the optimizer's oracle as well."""

from collections.abc import Callable

from npopt import backend
from npopt.contracts import Array, Number, Problem, Shift
from npopt.errors import UserError
from npopt.samplers.base import Batch
from npopt.values import Value

import numpy as np


class Estimator(Value):
    """g = estimator.start(problem, x, seed); loss = estimator(x, batch, out=g). g is a vector like x, or, where that
    would be too much memory, an iterator over its pieces (mezo.py).

    As the oracle it offers `problem`; `seed`; `loss` of this step (set by the loop); `again(y, out)`, the estimate of
    the same batch at another point; `value(y)`, its loss there; and `sampled(y, out, key)`. `counts` has the rows
    differentiated ("gradients"), the rows evaluated ("values") and the "bytes" sent; `shown` has other numbers for the
    columns. `skip` is True when no step may be taken. `variance(x)` is there where it is known. `compiled(optimizer,
    sampler)` is None or a Stretch: a function (x, rows, weights, rates) -> losses, which runs len(rates) steps of one
    batch size with the trajectory of the loop.
    """

    loss = None
    skip = False
    shown = {}

    def start(self, problem: Problem, x: Array, seed: int) -> Array:
        self.ready(problem, seed)
        return backend.xp(x).zeros_like(x)

    def ready(self, problem, seed):
        """What start does beside making g."""
        self.problem, self.counts, self.batch = problem, {"gradients": 0, "values": 0, "bytes": 0}, None
        self.seed = seed

    def __call__(self, x: Array, batch: Batch, out: Array) -> Number:
        """Write the estimate at x for this batch into out; return the loss (a float; on a GPU a 0-d array)."""
        self.batch = batch
        return self.again(x, out)

    def again(self, y: Array, out: Array) -> Number:
        raise UserError(f"{type(self).__name__} does not say how it estimates; define again(self, y, out)")

    def value(self, y: Array, shift: Shift | None = None) -> Number:
        """The loss of this step's batch at another point, or at y + a z for shift = (a, direction); no gradient."""
        rows = self.batch.rows
        self.counts["values"] += self.problem.n if rows is None else len(rows)
        if shift is None:
            return self.problem.value(y, rows, self.batch.weights)
        return self.problem.value(y, rows, self.batch.weights, shift)

    def sampled(self, y: Array, out: Array, key: int) -> int:
        """Write into out the gradient at y of the mean loss of this step's rows, with targets drawn from the model.
        Returns the number of rows."""
        if not hasattr(self.problem, "sampled_gradient"):
            raise UserError(
                f"{self.problem.name} draws no targets from its model; that takes a network with SoftmaxCrossEntropy"
            )
        rows = self.batch.rows
        count = self.problem.n if rows is None else len(rows)
        self.counts["gradients"] += count
        self.problem.sampled_gradient(y, rows, out, key)
        return count

    def variance(self, x: Array, probabilities: np.ndarray | None = None) -> float:
        """E|g - E g|^2 of the estimate at x from one row, drawn with these probabilities (None: uniformly)."""
        raise UserError(
            f"{type(self).__name__} on {self.problem.name}: the variance is measured for linear models and for fixed "
            "batches (problems.batched), with Minibatch, SVRG or SAGA (linear models: table='scalars'); leave "
            "variance=True out"
        )

    def compiled(self, optimizer, sampler) -> Callable | None:
        return None

    def state(self):
        return {"counts": dict(self.counts)}

    def load_state(self, state):
        self.counts.update({name: int(count) for name, count in state["counts"].items()})


class Wrapper(Estimator):
    """An estimator around `inner`: problem, counts, shown and skip are the innermost's."""

    def start(self, problem, x, seed):
        g = self.inner.start(problem, x, seed)
        if not hasattr(g, "dtype"):
            raise UserError(
                f"{type(self).__name__}: {type(self.inner).__name__} makes its gradient in pieces, and this needs it "
                "whole; GaussianSmoothing makes the same estimate as MeZO in a vector"
            )
        self.problem, self.counts, self.batch, self.seed = problem, self.inner.counts, None, seed
        return g

    @property
    def skip(self):
        return self.inner.skip

    @property
    def shown(self):
        return self.inner.shown

    @property
    def batch(self):
        """This step's batch, of the whole chain."""
        return self._batch

    @batch.setter
    def batch(self, batch):
        self._batch = self.inner.batch = batch

    def state(self):
        return {"inner": self.inner.state()}

    def load_state(self, state):
        self.inner.load_state(state["inner"])
