"""Adversarial training for free: Shafahi et al., NeurIPS 2019, arXiv:1904.12843, Algorithm 1."""

from npopt import backend
from npopt.ball import of_step
from npopt.errors import UserError
from npopt.estimators.base import Estimator
from npopt.values import number, whole


class FreeAdversarial(Estimator):
    """One pass gives the gradient of a step and the next perturbation:

        g = (1/B) sum_b w_b grad_x f_b(x; a_b + delta_b),      delta <- P(delta + eps sign(d f / d delta))

    P: |delta| <= eps, pixels in [0, 1]. delta belongs to the places of a batch, not to its rows: it is zero at the very
    start and never again, and meets each batch m times, in m steps, if the sampler is Replay(sampler, m).

    eps          in units of the image (npopt/ball.py); the step is eps as well, not eps/m
    batch_size   rows of delta: those of the sampler's batches. A shorter batch uses the first ones.

    On a new batch delta is cut to its pixels before it is added. Shafahi et al. cut the sum instead; with replays both
    agree from the second one on, but for the sign where a pixel was cut. A step differentiates its rows once.
    """

    def __init__(self, eps, batch_size):
        self.eps = number("FreeAdversarial", "eps", eps, low=0)
        self.batch_size = whole("FreeAdversarial", "batch_size", batch_size)

    def start(self, problem, x, seed):
        g = super().start(problem, x, seed)
        own = of_step(problem, backend.asarray(range(1), "int64")).own
        self.delta = backend.zeros((self.batch_size, *own.shape[1:]), own.dtype)
        return g

    def __call__(self, x, batch, out):
        self.batch = batch
        found = self.perturbed()
        delta = self.delta[: len(found.own)]
        self.counts["gradients"] += len(found.own)
        args = batch.rows, batch.weights, out
        loss = self.problem.value_and_gradient(x, *args, inputs=self.inputs, dinputs=found.gradient)
        found.ascend(delta, found.gradient, self.eps, self.eps)
        return loss

    def perturbed(self):
        """The inputs of this step's rows, and in self.inputs those that delta moved."""
        rows = self.batch.rows
        found = of_step(self.problem, rows)
        if len(found.own) > self.batch_size:
            raise UserError(
                f"FreeAdversarial: a batch has {len(found.own)} rows, batch_size={self.batch_size}; give the sampler's"
            )
        delta = self.delta[: len(found.own)]
        self.inputs = found.at(found.ascend(delta, found.zeros(), 0.0, self.eps))  # cut to these pixels
        return found

    def again(self, y, out):
        """The gradient of the same inputs, as they were moved in this step, at another point; delta stays."""
        self.counts["gradients"] += len(self.inputs)
        return self.problem.value_and_gradient(y, self.batch.rows, self.batch.weights, out, inputs=self.inputs)

    def value(self, y):
        self.counts["values"] += len(self.inputs)
        return self.problem.value_and_gradient(y, self.batch.rows, self.batch.weights, None, inputs=self.inputs)

    def state(self):
        return {"delta": self.delta, **super().state()}

    def load_state(self, state):
        super().load_state(state)
        self.delta[...] = backend.asarray(state["delta"], self.delta.dtype)
