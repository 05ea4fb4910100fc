"""Finite differences along coordinates: Kiefer & Wolfowitz, Annals of Mathematical Statistics 23, 1952."""

from npopt import backend
from npopt.errors import UserError
from npopt.estimators.zeroth import ZerothOrder
from npopt.values import whole

import numpy as np


class CoordinateDifferences(ZerothOrder):
    """g_i = (f(x + mu e_i) - f(x)) / mu, or (f(x + mu e_i) - f(x - mu e_i)) / (2 mu), for the coordinates of the step.

    coordinates   None: all d of them; a number c: c drawn anew at every step, without replacement, their g_i multiplied
                  by d/c, which keeps the mean; a list or array: these, the others being 0

    Function values: d + 1 forward, 2 d central. Forward is off by mu H_ii / 2, central by O(mu^2); rounding adds about
    eps |f| / mu, so that mu = 2 sqrt(eps |f| / H_ii), 1e-8 in float64 and 1e-3 in float32, is best forward. A network
    runs the layers before the one that changes once only (Problem.moved_values). x is put back bit for bit.
    """

    def __init__(self, radius=1e-3, difference="forward", coordinates=None):
        super().__init__(radius, 1, difference)
        if coordinates is not None and np.ndim(coordinates) == 0:
            coordinates = whole(type(self).__name__, "coordinates", coordinates)
        self.coordinates = coordinates

    def start(self, problem, x, seed):
        chosen, name = self.coordinates, type(self).__name__
        if isinstance(chosen, int) and chosen > x.size:
            raise UserError(f"{name}: {chosen} coordinates cannot be drawn of {x.size}")
        if np.ndim(chosen):
            places = np.unique(np.asarray(chosen, np.int64))
            if places.size != np.size(chosen) or not 0 <= places[0] <= places[-1] < x.size:
                raise UserError(f"{name}: coordinates must be different numbers from 0 to {x.size - 1}, got {chosen!r}")
        return super().start(problem, x, seed)

    def places(self):
        """(the coordinates of this step, rising, on the host; what their differences are multiplied by)."""
        d = self.problem.dim
        if self.coordinates is None:
            return range(d), 1.0
        if np.ndim(self.coordinates):
            return np.sort(np.asarray(self.coordinates, np.int64)).tolist(), 1.0
        draw = backend.generator(self.seed, "coordinates", self.problem.t)
        some = draw.choice(d, self.coordinates, replace=False, shuffle=False)
        return np.sort(some).tolist(), d / self.coordinates

    def again(self, y, out):
        places, scale = self.places()
        return self.differences(y, out, places, scale)

    def differences(self, y, out, places, scale=1.0):
        """out: 0, and at `places` the differences, multiplied by `scale`; returns the loss."""
        rows, weights = self.batch.rows, self.batch.weights
        size = self.problem.n if rows is None else len(rows)
        first = self.value(y) if self.difference == "forward" else None
        total, out[...] = 0.0, 0
        values = self.problem.moved_values(y, places, self.amounts, rows, weights)
        for i, found in zip(places, values, strict=True):
            self.counts["values"] += size * len(found)
            slope, loss = self.slope(found, first)
            out[i : i + 1] = slope * scale
            total = total + loss
        return total / len(places) if len(places) else self.value(y)
