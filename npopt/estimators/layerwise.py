"""A gradient that is never whole: each layer's is used, and forgotten, while the backward pass goes on to the next."""

from npopt.estimators.base import Estimator


class Handed:
    """Stands for g: each(take) hands out the pieces of this step's gradient, as take(slice of x, piece), once."""

    def __init__(self):
        self.pieces = None

    def each(self, take):
        pieces, self.pieces = self.pieces, None
        pieces(take)


class Layerwise(Estimator):
    """The gradient of the batch, handed to the optimizer piece by piece while the backward pass runs.

    It is that of Minibatch, to the last bit, and so are the steps of a method that takes a gradient in pieces. But the
    backward pass is a part of the optimizer's step: a layer is moved as soon as the pass has left it, and its gradient
    is freed. Of g there is at most what one layer has (and a shared segment's, until its last user is reached), where
    Minibatch has a vector like x. So nothing that needs all of g first goes with it: no clipping by the global norm, no
    check for finite numbers beside that of the loss.

    Lv, Yang, Liu, Guo & Qiu, ACL 2024, arXiv:2306.09782 (LOMO), for SGD; "per-layer weight updates" in GaLore, Zhao et
    al., ICML 2024, arXiv:2403.03507. A problem that has no layers takes its gradient whole.
    """

    names = None

    def start(self, problem, x, seed):
        self.ready(problem, seed)
        return Handed()

    def __call__(self, x, batch, out):
        self.batch = batch
        if hasattr(out, "dtype"):
            return self.again(x, out)
        loss, out.pieces = self.pass_through(x, self.names)
        return loss

    def pass_through(self, x, names):
        """(loss, each) of this step's batch, counted."""
        rows = self.batch.rows
        self.counts["gradients"] += self.problem.n if rows is None else len(rows)
        return self.problem.value_and_pieces(x, rows, self.batch.weights, names)

    def again(self, y, out):
        """The gradient at another point, whole; zero outside the blocks at hand."""
        out[...] = 0

        def take(piece, gradient):
            out[piece] = gradient

        loss, each = self.pass_through(y, self.names)
        each(take)
        return loss
