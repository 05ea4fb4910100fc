"""FISTA: Beck & Teboulle, SIAM J. Imaging Sciences 2, 2009, section 4; restarts: O'Donoghue & Candes, FoCM 15, 2015."""

import math

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.ista import ProximalGradient
from npopt.values import number


@elementwise
def extrapolate(y, x, p, beta):
    y = p + beta * (p - x)
    x = p
    return y, x


class FISTA(ProximalGradient):
    """t_1 = 1, y_1 = x_0, and for k = 1, 2, ...

        x_k = prox_{lr h}(y_k - lr grad f(y_k))
        t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2
        y_{k+1} = x_k + (t_k - 1)/t_{k+1} (x_k - x_{k-1})

    The loop moves the vector y, where the gradient is taken; `answer` is x_k, and the metrics are those of x_k. Without
    a penalty this is Nesterov's method of 1983, which needs no mu. With lr = 1/L:
    F(x_k) - F* <= 2 L |x_0 - x*|^2 / (k+1)^2   (Theorem 4.4). F need not fall at every step. Meant for full batches.

    restart  None; "gradient": t = 1 and y = x_k whenever <y_k - x_k, x_k - x_{k-1}> > 0, at no cost. "function": when
             F(x_k) > F(x_{k-1}), which evaluates f once a step. Either gives the linear rate that a known mu would give
    backtracking, eta: see ProximalGradient

    A restart is decided on the host: with `restart` each step waits for the device.
    """

    arrays = ("x",)
    numbers = {**ProximalGradient.numbers, "weight": 1.0, "objective": math.inf, "restarts": 0}

    def __init__(self, restart=None, backtracking=False, eta=2.0):
        if restart not in (None, "function", "gradient"):
            raise UserError(f'FISTA: restart must be None, "function" or "gradient", got {restart!r}')
        self.restart, self.backtracking = restart, bool(backtracking)
        self.eta = number("FISTA", "eta", eta, low=1, open_low=True)

    def step(self, x, g, lr):
        y, x = x, self.slot("x")
        if self.t == 0:
            x[...] = y
        self.t += 1
        p = self.forward_backward(y, g, lr)
        again = False
        if self.restart == "gradient":
            again = bool(backend.to_host(((y - p) * (p - x)).sum()) > 0)
        elif self.restart == "function":
            problem = self.oracle.problem
            value = float(backend.to_host(self.oracle.value(p))) + problem.penalty(p)
            again, self.objective = value > self.objective, value
        after = (1 + math.sqrt(1 + 4 * self.weight**2)) / 2
        beta = (self.weight - 1) / after
        if again:
            after, beta, self.restarts = 1.0, 0.0, self.restarts + 1
        extrapolate(y, x, p, beta)
        self.weight = after

    def answer(self, x):
        """x_k; before the first step x_0."""
        return self.slot("x") if self.t else x
