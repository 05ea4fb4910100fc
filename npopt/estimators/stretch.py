"""Many steps of one batch size in one compiled call, where the problem offers it."""

from npopt import backend
from npopt.samplers import Batch

import numpy as np


def says(value, name, *others):
    """Whether a value's class has `name`, and overrides none of `others` below the class that defines `name`. Somebody
    wrote such an override in place of what the compiled loop does, so it has to be called."""
    for kind in type(value).__mro__:
        if name in vars(kind):
            return True
        if any(other in vars(kind) for other in others):
            return False
    return False


class Stretch:
    """losses = stretch(x, rows, weights, rates) makes len(rates) steps of the loop. The optimizer must be `plain` or
    `heavy`: see npopt/optimizers/base.py.

    rows: the batches one after the other, all of one size; weights: like rows, or None; rates: (steps,) float64. x is
    written in place. The losses are those of the steps. A loss that is not finite is the last, and its step is not
    taken.

    The estimator says what lies between the steps, and the stretch is cut there:

        due(x, size)           do what is due before the next step; returns for how many steps nothing else is due
        passed(steps, size)    take note that so many steps were made
        memory()               (table, mean, moves) of problem.compiled_stretch, or () for the plain gradient

    A Proximal may take its prox at every k-th step only. Then the stretch is cut at each prox, too, and the steps
    between are made without the penalty.

    Rates that the compiled code does not take (problem.allows) go through the estimator one by one; on a GPU each of
    these steps waits for its loss.
    """

    def __init__(self, estimator, optimizer):
        self.estimator, self.optimizer = estimator, optimizer

    @classmethod
    def where_possible(cls, estimator, optimizer, sampler):
        """A Stretch; None if the steps are of another kind, or if somebody has to observe the batches."""
        takes = getattr(estimator.problem, "takes_stretches", None)
        kind = "heavy" if optimizer.heavy else "plain"
        known = getattr(optimizer, kind) and says(estimator, "compiled", "__call__", "again")
        for method in (optimizer, getattr(optimizer, "inner", optimizer)):
            known = known and says(method, kind, "update", "step")
        known = known and sampler.size < sampler.n and not sampler.learns
        if known and takes and takes(sampler.size, optimizer.heavy):
            return cls(estimator, optimizer)
        return None

    def __call__(self, x, rows, weights, rates):
        estimator, problem, memory = self.estimator, self.estimator.problem, self.estimator.memory()
        if not problem.allows(rates, None if memory else weights):
            return self.one_by_one(x, rows, weights, rates)
        heavy = {"beta": self.optimizer.beta, "m": self.optimizer.slot("m")} if self.optimizer.heavy else {}
        size, done, losses = len(rows) // len(rates), 0, []
        optimizer, every = self.optimizer, getattr(self.optimizer, "every", 1)
        while done < len(rates):
            k = min(estimator.due(x, size), len(rates) - done)
            if every > 1:
                k = min(k, every - (optimizer.t + done) % every)
            cut = slice(done * size, (done + k) * size)
            part = None if weights is None else weights[cut]
            some, named = rates[done : done + k], dict(penalised=every == 1, **heavy)
            losses.append(problem.compiled_stretch(x, rows[cut], part, some, *memory, **named))
            made = len(losses[-1])
            estimator.counts["gradients"] += made * size
            estimator.passed(made, size)
            if not np.isfinite(losses[-1][-1]):
                break
            done += k
            if every > 1:
                optimizer.passed(x, optimizer.t + done, some)
        return np.concatenate(losses)

    def one_by_one(self, x, rows, weights, rates):
        size, g, losses = len(rows) // len(rates), backend.xp(x).zeros_like(x), []
        rows, weights = (None if part is None else backend.asarray(part) for part in (rows, weights))
        for t, lr in enumerate(rates):
            cut = slice(t * size, t * size + size)
            batch = Batch(rows[cut], None if weights is None else weights[cut])
            losses.append(backend.to_host(self.estimator(x, batch, g)))
            if not np.isfinite(losses[-1]):
                break
            self.optimizer.step(x, g, float(lr))
        return np.array(losses)
