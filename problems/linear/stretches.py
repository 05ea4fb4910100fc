"""Compiled stretches of SGD, SVRG and SAGA on a linear model: which ones there are, and the call."""

from npopt import backend
from npopt.penalties import L1, L1L2, L2
from problems.linear import gpu
from problems.linear.dense import dense_stretch
from problems.linear.single import single_stretch
from problems.linear.sparse import sparse_stretch
from problems.linear.steps import Batches, Dense, Memory, Rule, Sparse
from problems.loops import compiled

import numba
import numpy as np
import scipy.sparse

DEEPEST = 200.0  # exp(-DEEPEST) is the smallest scale of a compiled stretch


class Stretches:
    """Mixed into LinearModel: many steps in one call, on the host by numba, on a GPU by CUDA."""

    def takes_stretches(self, size, heavy=False):
        """Whether compiled_stretch knows the penalty, and the device has a loop for the loss and batches of this size.

        Momentum moves every column in each step, so heavy steps have a loop on dense rows only.
        """
        known = self.regulariser is None or type(self.regulariser) in (L1, L2, L1L2)
        known = known and not (heavy and isinstance(self.stretch_data(), Sparse))
        return known and (self.on_host or gpu.takes(self, size))

    def allows(self, rates, weights):
        """Whether compiled_stretch takes these rates: positive and, with the weights, below 1/l2."""
        most = 1.0 if weights is None else max(1.0, float(weights.max()))
        return bool((rates > 0).all() and (rates * (self.l2 * most) < 1).all())

    def compiled_stretch(
        self, x, rows, weights, rates, table=None, mean=None, moves=False, *, beta=0.0, m=None, penalised=True
    ):
        """Steps of SGD (no table), SVRG or SAGA (`moves`) in compiled code: see problems/linear/steps.py.

        rows: the batches one after the other, all of one size; weights: like rows, or None; rates: one a step. These
        three are on the host. table: (n,) or (n, C); mean: like x. x is written in place, and where it `moves` so are
        table and mean. Returns the losses of the steps, (steps,), on the host, so it waits for a GPU. A loss that is
        not finite is the last, and its step is not taken. On sparse rows their l2 term is that of the first x. m: the
        buffer of momentum beta on dense rows, like x, written in place; without a penalty.

        The penalty may be L1, L2 or L1L2 (`takes_stretches`), and the rates must be such that `allows` is true.
        penalised=False leaves the penalty out.
        """
        steps, K = len(rates), self.outputs
        size = len(rows) // steps
        rates, decay = np.ascontiguousarray(rates, np.float64), self.l2
        weights = np.empty(0) if weights is None else np.ascontiguousarray(weights, np.float64)
        if table is None:
            if weights.size:  # SGD weights the l2 term too, as part of f_i
                decay = self.l2 * weights.reshape(steps, size).mean(1)
            table, mean = backend.empty((0, K), self.dtype), self.no_out
        penalty = self.regulariser if penalised else None
        l1, ridge = (0.0, 0.0) if penalty is None else (penalty.l1, penalty.l2)
        data, losses = self.stretch_data(), np.empty(steps)
        memory = Memory(table.reshape(-1, K), mean, bool(moves), self.no_out if m is None else m)
        for first, stop in pieces(rates, decay, ridge):
            cut, held = slice(first, stop), slice(first * size, stop * size)
            batches = Batches(rows[held], weights[held], size)
            rule = Rule(rates[cut], self.l2, float(l1), float(ridge), float(beta))
            taken = self.loop(size)(self.loss, data, x, batches, rule, memory, losses[cut])
            if taken < stop - first:
                return losses[: first + taken + 1]
        return losses

    def loop(self, size):
        """The compiled loop for batches of that size."""
        if not self.on_host:
            return gpu.stretch
        single = size == self.outputs == 1
        if single not in self.loops:  # finding the loop of a signature takes 0.2 ms
            self.loops[single] = loop(self.loss, self.stretch_data(), single)
        return self.loops[single]

    def stretch_data(self):
        X = self.X
        if isinstance(X, backend.Csr):
            return Sparse(*X.by_rows, self.d, self.y)
        return Sparse(X.data, X.indices, X.indptr, self.d, self.y) if scipy.sparse.issparse(X) else Dense(X, self.y)


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


def loop(loss, data, single):
    """The compiled loop for a loss and Dense or Sparse data, in the dtype of its labels; single: B = K = 1."""
    real, count = numba.from_dtype(data.y.dtype), numba.int64
    numbers = numba.float64[::1]
    batches = numba.types.NamedTuple((count[::1], numbers, count), Batches)
    rule = numba.types.NamedTuple((numbers, *[numba.float64] * 4), Rule)
    memory = numba.types.NamedTuple((real[:, ::1], real[::1], numba.boolean, real[::1]), Memory)
    function = dense_stretch if isinstance(data, Dense) else single_stretch if single else sparse_stretch
    signature = (numba.typeof(loss), numba.typeof(data), real[::1], batches, rule, memory, numbers)
    return compiled(function, *signature, kind=type(loss))
