"""The gradient of the batch itself."""

from npopt.estimators.base import Estimator


class Minibatch(Estimator):
    """g = (1/B) sum_b w_b grad f_b(x), the mean over the batch's B rows; all rows where the batch names none."""

    def again(self, y, out):
        rows = self.batch.rows
        self.counts["gradients"] += self.problem.n if rows is None else len(rows)
        return self.problem.value_and_gradient(y, rows, self.batch.weights, out)
