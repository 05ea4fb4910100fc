"""TRADES: Zhang et al., ICML 2019, arXiv:1901.08573, equation 5 and Algorithm 1."""

from npopt.backend import key
from npopt.ball import of_step, row_normals
from npopt.errors import UserError
from npopt.estimators.base import Estimator
from npopt.values import number, whole


class TRADES(Estimator):
    """The gradient of   (1/B) sum_b w_b ( l(z_b, t_b) + beta KL(p_b || q_b) ),   p = softmax(z), q = softmax(z'),

    z = network(a), z' = network(a + delta). Both outputs depend on x. The attack climbs the divergence, with p held:

        delta <- spread N(0, 1);      delta <- P(delta + step sign(d KL / d delta)),  `steps` times

    P: |delta| <= eps, pixels in [0, 1].

    eps, step, spread   in units of the image (npopt/ball.py). The divergence is flat at delta = 0, so spread > 0.
    beta                1/lambda of the paper, which takes 1 to 6

    As in the authors' code the attack is made in evaluation mode and leaves no batch statistics. The two passes of the
    step are in training mode, each normalised by itself; the statistics are those of the natural inputs (the authors'
    code keeps those of both). A step evaluates B rows and differentiates (steps + 2) B.
    """

    def __init__(self, eps, beta, step, steps=10, spread=1e-3):
        self.eps, self.beta = number("TRADES", "eps", eps, low=0), number("TRADES", "beta", beta, low=0)
        self.step, self.steps = number("TRADES", "step", step, low=0), whole("TRADES", "steps", steps)
        self.spread = number("TRADES", "spread", spread, low=0, open_low=True)

    def start(self, problem, x, seed):
        if not hasattr(problem, "divergence"):
            raise UserError(f"TRADES: {problem.name} has no softmax to compare; it takes a network (problems.Neural)")
        return super().start(problem, x, seed)

    def __call__(self, x, batch, out):
        self.batch = batch
        self.attack(x)
        return self.again(x, out)

    def attack(self, x):
        problem, rows = self.problem, self.batch.rows
        found = of_step(problem, rows)
        delta = row_normals(key(self.seed, "trades", problem.t), rows, found.own)
        delta *= self.spread
        found.ascend(delta, found.zeros(), 0.0, self.eps)
        self.counts["values"] += len(found.own)
        natural = problem.scores(x, found.own)
        for _ in range(self.steps):
            self.counts["gradients"] += len(found.own)
            problem.divergence(x, natural, found.at(delta), found.gradient)
            found.ascend(delta, found.gradient, self.step, self.eps)
        self.inputs, self.attacked = found.at(delta), rows

    def again(self, y, out):
        """The gradient of the same perturbed inputs at another point."""
        rows = self.batch.rows
        if self.attacked is not rows:  # a part of a batch, out of its turn
            self.attack(y)
        self.counts["gradients"] += 2 * len(self.inputs)
        return self.problem.compared(y, rows, self.batch.weights, out, self.inputs, self.beta)

    def value(self, y):
        self.counts["values"] += 2 * len(self.inputs)
        return self.problem.compared(y, self.batch.rows, self.batch.weights, None, self.inputs, self.beta)
