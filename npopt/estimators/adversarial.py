"""Training on attacked inputs: Goodfellow et al. 2015, Madry et al. 2018, and the fast form of Wong et al. 2020."""

from npopt.ball import of_step
from npopt.estimators.base import Estimator
from npopt.values import number, whole


class Adversarial(Estimator):
    """g = (1/B) sum_b w_b grad_x f_b(x; a_b + delta_b), with delta_b found by projected steps of sign ascent:

        delta <- P(delta + step sign(d f_b / d delta)),  `steps` times,      P: |delta| <= eps, pixels in [0, 1]

    eps, step   in units of the image (npopt/ball.py)
    random      delta starts as U(-eps, eps), a function of (seed, t, row); else as 0
    inside      that start is cut to the pixels at once, not only after the first step. It must not be where one step
                follows: a black pixel would start in [0, eps], end at 0 or eps, and the start be as good as 0
    ramp        eps and step grow linearly over the first so many steps, as (t + 1)/ramp: without it small networks may
                get stuck at a constant answer

    Adversarial(eps, eps, random=False) is FGSM training (Goodfellow, Shlens & Szegedy, ICLR 2015, arXiv:1412.6572);
    Adversarial(0.3, 0.01, 40, inside=True) PGD training (Madry et al., ICLR 2018, arXiv:1706.06083; Wong et al.,
    Algorithm 1);
    Adversarial(eps, 1.25 * eps) the fast form (Wong, Rice & Kolter, ICLR 2020, arXiv:2001.03994, Algorithm 3).

    As in their code, the attack is made in training mode, on the function of this step (dropout). Its passes leave no
    batch statistics: those of the step come from the perturbed inputs. Difference from their code for MNIST: all rows
    move, also those that are misclassified already. A step differentiates steps + 1 times its rows, and counts them.
    """

    def __init__(self, eps, step, steps=1, random=True, inside=False, ramp=0):
        self.eps, self.step = number("Adversarial", "eps", eps, low=0), number("Adversarial", "step", step, low=0)
        self.steps, self.random = whole("Adversarial", "steps", steps), bool(random)
        self.inside, self.ramp = bool(inside), whole("Adversarial", "ramp", ramp, low=0)

    def __call__(self, x, batch, out):
        self.batch = batch
        self.attack(x)
        return self.again(x, out)

    def attack(self, x):
        """Perturb the inputs of this step's rows, at x."""
        problem, rows, weights = self.problem, self.batch.rows, self.batch.weights
        found = of_step(problem, rows)
        draw, part = (self.seed, "adversarial", problem.t), min(1.0, (problem.t + 1) / max(1, self.ramp))
        eps, step = self.eps * part, self.step * part
        delta = found.uniform(*draw, eps, self.inside) if self.random else found.zeros()
        for _ in range(self.steps):
            self.counts["gradients"] += len(found.own)
            problem.value_and_gradient(x, rows, weights, None, inputs=found.at(delta), dinputs=found.gradient)
            found.ascend(delta, found.gradient, step, eps)
        self.inputs, self.attacked = found.at(delta), rows

    def again(self, y, out):
        """The gradient of the same perturbed inputs at another point."""
        return self.there(y, out)

    def value(self, y):
        return self.there(y, None)

    def there(self, y, out):
        rows = self.batch.rows
        if self.attacked is not rows:  # a part of a batch, out of its turn
            self.attack(y)
        self.counts["values" if out is None else "gradients"] += len(self.inputs)
        return self.problem.value_and_gradient(y, rows, self.batch.weights, out, inputs=self.inputs)
