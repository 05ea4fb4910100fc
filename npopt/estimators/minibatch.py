"""The gradient of the batch itself."""

from npopt.estimators.base import Estimator, takes_stretches


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
        if not takes_stretches(self.problem, optimizer, sampler):
            return None

        def stretch(x, rows, weights, rates):
            if not self.problem.allows(rates, weights):
                return self.one_by_one(optimizer, x, rows, weights, rates)
            self.counts["gradients"] += len(rows)
            return self.problem.compiled_stretch(x, rows, weights, rates)

        return stretch
