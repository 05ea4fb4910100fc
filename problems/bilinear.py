"""u'v / sqrt(m), the smallest network with two layers: gradient descent on it is a recursion of two numbers.

    f = 1/2 z^2,  z = u'v / sqrt(m),  u, v in R^m            the kernel  K = (|u|^2 + |v|^2) / m

A step of gradient descent is u+ = u - lr z v / sqrt(m), v+ = v - lr z u / sqrt(m), and with it, exactly,

    z+ = z (1 - lr K + lr^2 z^2 / m)            K+ = K + (lr z^2 / m) (lr K - 4)

Lewkowycz, Bahri, Dyer, Sohl-Dickstein & Gur-Ari, 2020, arXiv:2003.02218, their warm-up model, with the one row x = 1
and the target 0. Where z = 0 the largest eigenvalue of the Hessian is K. So for lr K < 2 z decays and K hardly moves.
For 2 < lr K < 4 z grows until it is of size sqrt(m); then K falls below 2/lr, and z decays: a catapult. From 4/K on K
grows, too. At m = 1 the minima are the two axes of the plane, and K = u^2 + v^2 is the squared distance to the origin.
"""

from npopt import backend
from npopt.errors import UserError
from npopt.segments import Segments
from problems.base import Problem, number

import numpy as np


class Bilinear(Problem):
    """f of the module, for x = (u, v) of 2 m numbers. start, (2 m,): where runs begin. One row, float64.

    Metrics: f, the kernel K, and for m = 1 the coordinates x, y.
    """

    n, name = 1, "bilinear"

    def __init__(self, start):
        start = np.array(start, float)
        if start.ndim != 1 or start.size % 2 or not start.size:
            raise UserError(f"Bilinear: start must hold 2 m numbers, u and then v, got shape {start.shape}")
        self.start, self.m = start, start.size // 2
        table = Segments.of(("u", (self.m,), "vector", "u"), ("v", (self.m,), "vector", "v"))
        self.set_shape(start.size, np.float64, table)

    def x0(self, rng):
        return backend.asarray(self.start.copy())

    def parts(self, x):
        """(u, v, z)"""
        u, v = self.check(x)[: self.m], x[self.m :]
        return u, v, u @ v / self.m**0.5

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x, rows, weights)

    @np.errstate(over="ignore", invalid="ignore")  # a run that diverges shows in its loss
    def value_and_gradient(self, x, rows=None, weights=None, out=None):
        u, v, z = self.parts(x)
        share = 1.0 if weights is None else backend.asarray(weights, "float64").mean()
        if out is not None:
            out[: self.m], out[self.m :] = share * z / self.m**0.5 * v, share * z / self.m**0.5 * u
        return number(0.5 * share * z * z)

    def curvature(self, x, rows=None, weights=None):
        """p -> H p, H = J J' + z H_z:   J = (v, u) / sqrt(m),   H_z (p, q) = (q, p) / sqrt(m)."""
        u, v, z = self.parts(x)
        J = backend.xp(x).concatenate([v, u]) / self.m**0.5
        share = 1.0 if weights is None else backend.asarray(weights, "float64").mean()
        scale = z / self.m**0.5
        return lambda p: share * (J * (J @ p) + scale * backend.xp(p).concatenate([p[self.m :], p[: self.m]]))

    def kernel(self, x):
        """K, a float."""
        return float(backend.to_host(x @ x)) / self.m

    def metrics(self, x):
        point = np.asarray(backend.to_host(x), float) if self.m == 1 else ()
        return {"f": float(backend.to_host(self.value(x))), "kernel": self.kernel(x)} | dict(
            zip("xy", map(float, point), strict=False)
        )


@np.errstate(over="ignore", invalid="ignore")
def recursion(z, K, lr, m, steps):
    """(f, K), each (steps + 1,): what gradient descent does to them, by the two equations of the module."""
    found = [(0.5 * z * z, K)]
    for _ in range(steps):
        z, K = z * (1 - lr * K + lr**2 * z * z / m), K + lr * z * z / m * (lr * K - 4)
        found.append((0.5 * z * z, K))
    return np.array(found).T
