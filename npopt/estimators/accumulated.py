"""A large batch in pieces that fit into memory: gradient accumulation."""

from npopt import backend
from npopt.backend import elementwise, xp
from npopt.estimators.base import Wrapper
from npopt.estimators.minibatch import Minibatch
from npopt.values import whole


@elementwise
def scale(out, share):
    out = share * out
    return out


@elementwise
def add(out, piece, share):
    out = out + share * piece
    return out


class Accumulated(Wrapper):
    """g = sum_k (B_k / B) g_k over micro-batches of at most `rows` rows, B_k rows in the k-th.

    Weighted by their sizes, the pieces give the batch's mean gradient also when the last one is short. With batch
    norm each micro-batch is normalised by itself, and the step keeps the statistics of the first one.
    Memory: one more vector like x.
    """

    def __init__(self, rows, inner=None):
        self.rows = whole("Accumulated", "rows", rows)
        self.inner = Minibatch() if inner is None else inner

    def start(self, problem, x, seed):
        self._piece, self._all = xp(x).zeros_like(x), None
        return super().start(problem, x, seed)

    def __call__(self, x, batch, out):
        self.batch = batch
        return self.pieces(out, lambda part, piece: self.inner(x, part, piece))

    def again(self, y, out):
        def gradient(part, piece):
            self.inner.batch = part
            return self.inner.again(y, piece)

        return self.pieces(out, gradient)

    def sampled(self, y, out, key):
        def draw(part, piece):
            self.inner.batch = part
            self.inner.sampled(y, piece, key)  # a row's draw does not depend on its piece
            return 0.0

        self.pieces(out, draw)
        return self.problem.n if self.batch.rows is None else len(self.batch.rows)

    def pieces(self, out, gradient):
        """Write the mean of gradient(part, piece) over the micro-batches, weighted by their sizes, into out. Returns
        the mean of their losses, weighted alike."""
        rows, weights = self.batch.rows, self.batch.weights
        if rows is None:
            if self._all is None:
                self._all = backend.asarray(range(self.problem.n), "int64")
            rows = self._all
        size, loss = len(rows), 0.0
        for first in range(0, size, self.rows):
            cut = slice(first, min(first + self.rows, size))
            part = self.batch._replace(rows=rows[cut], weights=None if weights is None else weights[cut])
            share = (cut.stop - first) / size
            loss = loss + share * gradient(part, out if first == 0 else self._piece)
            if first == 0:
                scale(out, share)
            else:
                add(out, self._piece, share)
        return loss
