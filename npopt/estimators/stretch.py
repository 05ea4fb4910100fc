"""Many steps of one batch size in one compiled call, where the problem offers it."""

from npopt import backend
from npopt.samplers import Batch

import numpy as np


class Stretch:
    """losses = stretch(x, rows, weights, rates): the steps of the loop, x <- prox(x - lr g), len(rates) of them.

    rows: the batches one behind the other, all of one size; weights: like rows, or None; rates: (steps,) float64. x is
    written in place. The losses are those of the steps; one that is not finite is the last, and its step is not taken.

    The estimator says what lies between the steps, and the stretch is cut there:

        due(x, size)           do what is due before the next step; for how many steps nothing else is
        passed(steps, size)    so many steps were made
        memory()               (table, mean, moves) of problem.compiled_stretch, or () for the plain gradient

    A Proximal whose prox is not due at every step is asked, too, and the steps between are made without the penalty.

    Rates that the compiled code does not take (problem.allows) go through the estimator one by one.
    """

    def __init__(self, estimator, optimizer):
        self.estimator, self.optimizer = estimator, optimizer

    @classmethod
    def where_possible(cls, estimator, optimizer, sampler):
        """A Stretch, or None where steps are more than x <- prox(x - lr g) on batches that nobody has to observe."""
        known = getattr(estimator.problem, "takes_stretches", False)
        if known and optimizer.plain and sampler.size < sampler.n and not sampler.learns:
            return cls(estimator, optimizer)
        return None

    def __call__(self, x, rows, weights, rates):
        estimator, problem, memory = self.estimator, self.estimator.problem, self.estimator.memory()
        if not problem.allows(rates, None if memory else weights):
            return self.one_by_one(x, rows, weights, rates)
        size, done, losses = len(rows) // len(rates), 0, []
        optimizer, every = self.optimizer, getattr(self.optimizer, "every", 1)
        while done < len(rates):
            k = min(estimator.due(x, size), len(rates) - done)
            if every > 1:
                k = min(k, every - (optimizer.t + done) % every)
            cut = slice(done * size, (done + k) * size)
            part = None if weights is None else weights[cut]
            some = rates[done : done + k]
            losses.append(problem.compiled_stretch(x, rows[cut], part, some, *memory, penalised=every == 1))
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
        for t, lr in enumerate(rates):
            cut = slice(t * size, t * size + size)
            losses.append(self.estimator(x, Batch(rows[cut], None if weights is None else weights[cut]), g))
            if not np.isfinite(losses[-1]):
                break
            self.optimizer.step(x, g, float(lr))
        return np.array(losses)
