"""Stochastic variance reduced gradient: Johnson & Zhang, NIPS 2013; Xiao & Zhang, SIAM J. Optim. 24, 2014."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.estimators.accumulated import add
from npopt.estimators.base import Estimator
from npopt.estimators.stretch import Stretch
from npopt.values import number

import numpy as np


@elementwise
def reduced(out, old, mean):
    out = out - old + mean
    return out


class SVRG(Estimator):
    """Stages of m steps. At the start of each:   w~ <- x,   G <- grad f(w~), a pass over all rows. Then

        g = (1/B) sum_b w_b (grad f_b(x) - grad f_b(w~)) + G

    passes  m = passes n / B steps, rounded up; 2 as in the paper for convex problems (5 for others)
    option  "I": the next w~ is the last iterate, as in practice. "II": it is one of w_0, ..., w_{m-1} of the stage,
            drawn uniformly. x itself goes on from there, so the estimator writes x. The proof is about this option

    On a linear model G and the n scalars of w~ are kept. So an inner step differentiates B rows, and a stage n + m B;
    l2 W is then taken at x, outside the difference. On other problems an inner step differentiates 2 B rows, and w~ and
    a work vector like x are kept. With SGD a step is the paper's; with Proximal(SGD()) it is Prox-SVRG.
    """

    def __init__(self, passes=2.0, option="I"):
        self.passes = number("SVRG", "passes", passes, low=0, open_low=True)
        if option not in ("I", "II"):
            raise UserError(f'SVRG: option must be "I" or "II", got {option!r}')
        self.option = option

    def start(self, problem, x, seed):
        g = super().start(problem, x, seed)
        xp = backend.xp(x)
        self.G, self.seed, self.stage, self.left, self.pick = xp.zeros_like(x), seed, 0, 0, -1
        self.linear = hasattr(problem, "scalars")
        if self.linear:
            self.table = backend.zeros((problem.n, problem.outputs), x.dtype)
        else:
            self.snapshot, self._piece = xp.zeros_like(x), xp.zeros_like(x)
        self.chosen = xp.zeros_like(x) if self.option == "II" else None
        return g

    def begin_stage(self, x, size):
        """Take the snapshot and its gradient; size is that of the stage's batches."""
        problem = self.problem
        self.left = max(1, int(np.ceil(self.passes * problem.n / size - 1e-9)))
        lock = getattr(problem, "lock", None)
        if lock is not None and lock % self.left:
            raise UserError(
                f"SVRG: the masks of {problem.name} change every {lock} steps, within stages of {self.left}; G would "
                "be that of other masks. Let `lock` be a multiple of the stage"
            )
        if self.option == "II":
            if self.stage:
                x[...] = self.chosen
            draw = backend.generator(self.seed, "svrg", self.stage)
            self.pick = int(draw.integers(1, self.left, endpoint=True))  # the steps left when x is kept
        self.stage += 1
        self.counts["gradients"] += problem.n
        if self.linear:
            problem.scalars(x, None, self.table)
            problem.combine(self.table, None, self.G)
        else:
            self.snapshot[...] = x
            problem.value_and_gradient(x, None, None, self.G)

    def due(self, x, size):
        """Begin a stage, or keep the iterate that was drawn, when it is time. Returns the steps until the next time."""
        if self.left == 0:
            self.begin_stage(x, size)
        if self.left == self.pick:
            self.chosen[...] = x
        return self.left - self.pick if self.left > self.pick > 0 else self.left

    def passed(self, steps, size):
        self.left -= steps

    def __call__(self, x, batch, out):
        size = self.problem.n if batch.rows is None else len(batch.rows)
        self.due(x, size)
        self.passed(1, size)
        return super().__call__(x, batch, out)

    def again(self, y, out):
        problem, rows, weights = self.problem, self.batch.rows, self.batch.weights
        size = problem.n if rows is None else len(rows)
        if not self.linear:
            self.counts["gradients"] += 2 * size
            loss = problem.value_and_gradient(y, rows, weights, out)
            problem.value_and_gradient(self.snapshot, rows, weights, self._piece)
            reduced(out, self._piece, self.G)
            return loss
        self.counts["gradients"] += size
        s = backend.empty((size, problem.outputs), y.dtype)
        loss = problem.scalars(y, rows, s, weights)
        s -= self.table if rows is None else self.table[rows]
        if weights is not None:
            s *= weights.astype(y.dtype)[:, None]
        problem.combine(s, rows, out)
        add(out, self.G, 1)
        problem.add_l2(y, out)
        return loss

    def variance(self, x, probabilities=None):
        """The variance with the snapshot of the last step. Before the first stage it is that of the plain gradient."""
        if not hasattr(self.problem, "gradient_variance"):
            return super().variance(x)
        old = None if not self.stage else self.table if self.linear else self.snapshot
        return self.problem.gradient_variance(x, old, probabilities)

    def compiled(self, optimizer, sampler):
        return Stretch.where_possible(self, optimizer, sampler) if self.linear else None

    def memory(self):
        return self.table, self.G

    def state(self):
        kept = {"G": self.G, "stage": self.stage, "left": self.left, "pick": self.pick, **super().state()}
        kept["old"] = self.table if self.linear else self.snapshot
        return kept if self.chosen is None else {**kept, "chosen": self.chosen}

    def load_state(self, state):
        super().load_state(state)
        self.stage, self.left, self.pick = int(state["stage"]), int(state["left"]), int(state["pick"])
        old = self.table if self.linear else self.snapshot
        for array, name in ((self.G, "G"), (old, "old"), (self.chosen, "chosen")):
            if array is not None:
                array[...] = backend.asarray(state[name], array.dtype)
