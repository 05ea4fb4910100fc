"""The gradient of the batch itself."""

import math

from npopt.estimators.base import Estimator
from npopt.estimators.stretch import Stretch


class Minibatch(Estimator):
    """g = (1/B) sum_b w_b grad f_b(x), the mean over the batch's B rows; all rows where the batch names none."""

    def again(self, y, out):
        rows = self.batch.rows
        self.counts["gradients"] += self.problem.n if rows is None else len(rows)
        return self.problem.value_and_gradient(y, rows, self.batch.weights, out)

    def variance(self, x, probabilities=None):
        if not hasattr(self.problem, "gradient_variance"):
            return super().variance(x)
        return self.problem.gradient_variance(x, None, probabilities)

    def compiled(self, optimizer, sampler):
        return Stretch.where_possible(self, optimizer, sampler)

    def memory(self):
        return ()

    def due(self, x, size):
        return math.inf

    def passed(self, steps, size):
        """Nothing is kept from step to step."""
