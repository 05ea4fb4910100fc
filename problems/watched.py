"""A network whose gradients and curvature are measured while it trains."""

import math

from npopt import backend
from npopt.analysis.curvature import length, stable
from problems.classifiers import perceptron
from problems.neural import Neural

import numpy as np


class Watched(Neural):
    """A network that also measures its gradients. In every row: `norm` of the gradient over 10,000 training rows (or
    all), norm_<layer>, cosine with that of the row before, signal = |g|^2 / mean |g_B|^2 over batches of 256, zeros =
    share of exact zeros in a batch's first-layer weight gradient. At the epochs of `looks`: low and high, the extreme
    eigenvalues of the Hessian over 1,000 rows by 40 steps of Lanczos (NaN where a kink disturbs them). An eigenvalue
    lies as near to them as low_error and high_error say. `twin` is the same problem in float64."""

    before = twin = None
    looks = ()

    def metrics(self, x):
        found, n = super().metrics(x), min(self.n, 10_000)
        g, batch = backend.xp(x).empty_like(x), backend.xp(x).empty_like(x)
        self.value_and_gradient(x, np.arange(n), out=g)
        found["norm"], squares = length(g), {}
        for segment in self.segments:
            layer = segment.name.split(".")[0]
            squares[layer] = squares.get(layer, 0.0) + length(g[segment.slice]) ** 2
        found |= {f"norm_{layer}": math.sqrt(value) for layer, value in squares.items()}
        found["cosine"] = (
            math.nan
            if self.before is None
            else float(backend.to_host(g @ self.before)) / (length(g) * length(self.before))
        )
        self.before, total, count = g, 0.0, n // 256
        for k in range(count):
            self.value_and_gradient(x, np.arange(256 * k, 256 * (k + 1)), out=batch)
            total += length(batch) ** 2
        found["signal"] = found["norm"] ** 2 / (total / count)
        first = next(segment for segment in self.segments if segment.name == "fc1.W")
        found["zeros"] = float((backend.to_host(batch[first.slice]) == 0).mean())
        found |= dict.fromkeys(("low", "low_error", "high", "high_error"), math.nan)
        if round((self.t + 1) / -(-self.n // 256), 6) in self.looks or self.t == 0:
            point = backend.asarray(backend.to_host(x), "float64")
            seen = stable(self.twin, point, np.arange(min(self.n, 1000)), steps=40)
            for name, i in (("low", 0), ("high", -1)) if seen else ():
                found |= {name: float(seen.values[i]), f"{name}_error": float(seen.errors[i])}
        return found

    def ingredients(self):
        return super().ingredients() | {"looks": self.looks}

    def state(self):
        before = backend.zeros(self.dim, self.dtype) if self.before is None else self.before  # zeros: none yet
        return super().state() | {"before": before.copy()}

    def load_state(self, state):
        before = backend.asarray(state.get("before", np.zeros(1)), self.dtype)  # reset gives none
        self.before = before if backend.to_host((before != 0).any()) else None
        super().load_state(state)


def watched(data, init, looks, rows=None):
    """The perceptron with pixels from 0 to 1, watched."""
    problem = perceptron(data, rows=rows, pixels=(0, 1), init=init, kind=Watched)
    problem.twin = perceptron(data, rows=rows, pixels=(0, 1), init=init, dtype="float64")
    problem.looks = looks
    return problem
