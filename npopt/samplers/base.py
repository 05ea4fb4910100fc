"""Which rows, in which order, with which weights.

A sampler is started with a problem and a seed. The order of an epoch is then a function of (seed, epoch) alone. So the
state of a sampler is one number: how many batches it has handed out. A batch is a slice of the order. The convention
for weights is that of the gradient, g = (1/B) sum_b w_b grad f_b(x): rows drawn with probability p_i carry
w_i = 1/(n p_i).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from npopt import backend
from npopt.contracts import Problem, State
from npopt.errors import UserError
from npopt.values import Value, whole

import numpy as np


class Batch(NamedTuple):
    """rows: (B,) int64 on the device in use, or None for all n rows in order; weights: (B,) or None for ones;
    key: the number of a fixed batch (the same rows in every epoch), or None; epoch: the epoch it belongs to."""

    rows: Any
    weights: Any = None
    key: int | None = None
    epoch: int = 0


class Sampler(Value):
    """Base: subclasses give `epoch(e)`. batch_size None means all n rows."""

    fixed = False  # the same batches in every epoch
    learns = False  # `observe` does something
    probabilities = None  # (n,) on the host where rows are not drawn uniformly

    def __init__(self, batch_size: int | None = 1, drop_last: bool = False):
        if batch_size is not None:
            batch_size = whole(type(self).__name__, "batch_size", batch_size)
        self.batch_size, self.drop_last = batch_size, bool(drop_last)

    def start(self, problem: Problem, seed: int) -> None:
        self.n, self.seed, self.taken, self._held, self._moved = problem.n, seed, 0, (None, None), (None, None)
        if self.n is None:
            raise UserError(f"{self!r}: the problem {problem.name} has no fixed rows to put in order")
        self.size = self.n if self.batch_size is None else self.batch_size
        if self.size > self.n:
            raise UserError(
                f"{type(self).__name__}: batch_size {self.size} is larger than the {self.n} rows of "
                f"{problem.name}; choose 1 to {self.n}, or None for all"
            )
        self.steps_per_epoch = self.n // self.size if self.drop_last else -(-self.n // self.size)

    def epoch(self, e: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The order of epoch e, (n,), and its rows' weights, (n,) or None: NumPy arrays, a function of (seed, e)."""
        raise UserError(f"{type(self).__name__} does not say in which order rows come")

    def _order(self, e):
        """(order, weights or None) of epoch e on the host, where it is drawn."""
        if self._held[0] != e:
            self._held = self._moved = (None, None)  # one order at a time in memory
            self._held = (e, self.epoch(e))
        return self._held[1]

    def _order_there(self, e):
        """The same on the device in use. The whole order is moved once an epoch."""
        if self._moved[0] != e:
            self._moved = (e, tuple(None if part is None else backend.asarray(part) for part in self._order(e)))
        return self._moved[1]

    def take(self, k: int) -> Iterator[Batch]:
        """The next k batches, one by one; each counts as taken when it is handed out."""
        size, fixed = self.size, self.fixed
        while k:
            e, j = divmod(self.taken, self.steps_per_epoch)
            order, weights = self._order_there(e)
            count = min(k, self.steps_per_epoch - j)
            for b in range(j, j + count):
                self.taken += 1
                s = slice(b * size, b * size + size)
                yield Batch(order[s], None if weights is None else weights[s], b if fixed else None, e)
            k -= count

    def rows(self, k: int) -> np.ndarray:
        """The rows of the next k batches as one host array, for compiled loops over batches of one size."""
        return np.concatenate([np.asarray(backend.to_host(b.rows)) for b in self.take(k)])

    def span(self, k: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The next k batches, all of one epoch, as host arrays (rows, weights or None), for compiled loops.

        They are not counted as taken, because a compiled stretch may end early. Who runs it adds its steps to `taken`.
        """
        e, j = divmod(self.taken, self.steps_per_epoch)
        order, weights = self._order(e)
        cut = slice(j * self.size, (j + k) * self.size)
        return order[cut], None if weights is None else weights[cut]

    def observe(self, batch: Batch, problem: Problem) -> None:
        """Told of each pass. A sampler that learns probabilities uses this, and sets `learns`."""

    def state(self) -> State:
        return {"taken": self.taken}

    def load_state(self, state: State) -> None:
        self.taken = int(state["taken"])
