"""One class after the other: the order that stochastic gradients like least."""

from npopt import backend
from npopt.errors import UserError
from npopt.samplers.base import Sampler

import numpy as np


class ByClass(Sampler):
    """Rows in the order of their target, problem.targets(); rows of equal target are reshuffled in each epoch.

    With class numbers or -1/+1 that is class by class. With real targets it is the sorted order. Every row comes once
    an epoch. A batch where one class ends may hold two classes.
    """

    def start(self, problem, seed):
        super().start(problem, seed)
        y = np.asarray(problem.targets())
        if y.shape != (self.n,):
            raise UserError(f"ByClass: {problem.name} has {self.n} rows, but targets of shape {y.shape}")
        self._rank = np.unique(y, return_inverse=True)[1]

    def epoch(self, e):
        mixed = backend.generator(self.seed, "by class", e).permutation(self.n)
        return mixed[np.argsort(self._rank[mixed], kind="stable")], None
