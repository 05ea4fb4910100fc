"""A network's exact second derivatives at a point: products with its Hessian, its Gauss-Newton matrix, its Jacobian."""

from nn.losses import weighted_mean
from nn.twice import Twice, bent, lacking
from npopt import backend
from npopt.errors import UserError
from npopt.estimators.accumulated import add

__all__ = ["Linearised"]


class Curved:
    """A part of Neural."""

    def curvature(self, x, rows=None, weights=None):
        """The Linearised pass whose calls are v -> H v, H of the loss of a training pass over `rows`; None where a
        layer or the loss has no second derivative (recurrent layers, embeddings, layer norm, ...) or activations have
        two bytes. A
        kink of a ReLU or a maximum has none either: there it is that of the side which the pass is on."""
        known = bent(self.loss_function) and lacking(self.network.layer) is None
        if self.compute is not None or not known:
            return None
        return Linearised(self, x, rows, weights)


class Linearised:
    """A training pass at x over rows, kept: products with its second derivatives, exact but for rounding.

        H v = J' L'' J v + sum over outputs of dL/dz times their own curvature + l2 v
        gauss_newton(v) = J' L'' J v + l2 v, positive semi-definite for convex losses

    x must stay as it is. A product with H costs two gradients, as forward and dL/dy are kept (nn/twice.py). It changes
    no number of the problem; the network stays bound to the last product's vectors until its next pass. `loss` is the
    value at x.
    """

    def __init__(self, problem, x, rows=None, weights=None):
        self.problem, self.x, self.weights, self.noted = problem, problem.check(x), weights, False
        inputs, self.targets, run = problem._prepare(rows, None)
        self.rows = self.targets.shape[0]
        problem.network.bind(x)
        self.twice = Twice(problem.network, inputs, run)
        self.z = self.twice.z
        self.loss = weighted_mean(problem.loss_function.rows(self.z, self.targets), weights)
        self.strength = 0.0
        if problem.l2:
            self.strength, term = problem._l2(x, weights)
            self.loss = self.loss + term

    def dz(self):
        """dL/dz, (B, ...), a new array."""
        return self.problem.loss_function.value_and_gradient(self.z, self.targets, self.weights)[1]

    def bound(self, like):
        """A new vector for a product, to which the network is bound."""
        out = backend.xp(like).empty_like(self.x)
        self.problem.network.bind(self.x, out)
        return out

    def tangent(self, v):
        """J v, (B, ...): the derivative of the outputs along v, (dim,)."""
        self.problem.network.bind(self.x)
        return self.twice.tangent(self.problem.check(v, "v"))

    def adjoint(self, u):
        """J' u, (dim,), for u, (B, ...), which is overwritten."""
        out = self.bound(u)
        self.twice.adjoint(u)
        return out

    def gauss_newton(self, v):
        """J' L'' J v + l2 v."""
        rz = self.tangent(v)
        out = self.adjoint(self.problem.loss_function.tangent(self.z, self.targets, rz, self.weights))
        if self.problem.l2:
            add(out, v, self.strength)
        return out

    def fisher(self, v, labels="data"):
        """mean_b (v'grad l_b)^2, l_b without weights and l2; labels "model": the mean over labels of the network's own
        distribution, v'J' L'' J v / B."""
        if labels not in ("data", "model"):
            raise UserError(f"labels must be 'data' or 'model', got {labels!r}")
        rz, loss, B = self.tangent(v), self.problem.loss_function, self.rows
        if labels == "model":
            return (rz * loss.tangent(self.z, self.targets, rz)).sum()
        slopes = (rz * loss.value_and_gradient(self.z, self.targets)[1]).reshape(B, -1).sum(axis=1) * B
        return (slopes * slopes).sum() / B

    def __call__(self, v):
        """H v, a new array."""
        if not self.noted:
            self.problem.network.bind(self.x)
            self.twice.note(self.dz())
            self.noted = True
        rz = self.tangent(v)
        out = self.bound(v)
        self.twice.second(self.problem.loss_function.tangent(self.z, self.targets, rz, self.weights))
        if self.problem.l2:
            add(out, v, self.strength)
        return out
