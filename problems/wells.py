"""Small functions with a sharp and a flat minimum, of known Hessians: which of them do methods leave, and when?

Bowls               f_i(w) = min_k 1/2 (w - c_ik)' A_ik (w - c_ik), row by row the lowest of some bowls
two_basins          the two basins of Zhu, Wu, Yu, Wu & Ma, ICML 2019, arXiv:1803.00195, section 5.1
uneven              two rows that agree at 0 and differ at (1, 1), of equal mean curvature: Wu, Ma & E, NeurIPS 2018
Wells               Gaussian wells in a weak bowl
"""

from npopt import backend
from npopt.errors import UserError
from problems.base import Problem, number

import numpy as np


class Bowls(Problem):
    """f(w) = (1/n) sum_i min_k 1/2 (w - c_ik)' A_ik (w - c_ik).

    centres   (n, K, d)
    hessians  (n, K, d, d), or (K, d, d) for all rows; symmetric
    start     (d,), where runs begin
    minima    (m, d), points of interest: metrics give the distance to the nearest one, and its number

    Where two bowls meet the gradient is that of the first. Metrics: f, the coordinates x, y, and the `distance` to the
    `nearest` of the minima, a number from 0.
    """

    def __init__(self, centres, hessians, start, minima, name="bowls"):
        centres, hessians = np.asarray(centres, float), np.asarray(hessians, float)
        if centres.ndim != 3:
            raise UserError(f"Bowls: centres must have shape (rows, bowls, d), got {centres.shape}")
        n, count, d = centres.shape
        if hessians.shape not in ((count, d, d), (n, count, d, d)):
            raise UserError(f"Bowls: hessians must have shape ([{n},] {count}, {d}, {d}), got {hessians.shape}")
        self.n, self.name = n, name
        self.set_shape(d, np.float64)
        self.exact_hessians = np.broadcast_to(hessians, (n, count, d, d))
        self.centres, self.hessians = backend.asarray(centres), backend.asarray(self.exact_hessians.copy())
        self.start, self.minima = np.array(start, float), np.array(minima, float)

    def ingredients(self):
        """What identifies it."""
        return {n: getattr(self, n) for n in ("centres", "hessians", "start", "minima")}

    def x0(self, rng):
        return backend.asarray(self.start.copy())

    def bowls(self, x, rows):
        """(slopes A (w - c), (B, K, d); values, (B, K)) of these rows."""
        centres, hessians = (self.centres, self.hessians) if rows is None else (self.centres[rows], self.hessians[rows])
        away = self.check(x) - centres
        slopes = (hessians * away[:, :, None, :]).sum(-1)
        return slopes, 0.5 * (slopes * away).sum(-1)

    @np.errstate(over="ignore", invalid="ignore")  # a run that diverges shows in its loss
    def value_and_gradient(self, x, rows=None, weights=None, out=None):
        slopes, values = self.bowls(x, rows)
        least, count = values.min(1), values.shape[0]
        if out is not None:
            chosen = slopes[backend.xp(x).arange(count), values.argmin(1)]
            out[...] = chosen.mean(0) if weights is None else weights @ chosen / count
        return number(least.mean() if weights is None else weights @ least / count)

    def f(self, x, y):
        """The mean over rows at points of the plane: arrays of one shape; for d = 2, on the host."""
        points = np.stack([x, y], -1)
        total = np.zeros(np.shape(x))
        for centres, hessians in zip(backend.to_host(self.centres), self.exact_hessians, strict=True):
            away = points[..., None, :] - centres
            total += 0.5 * np.einsum("...ka,kab,...kb->...k", away, hessians, away).min(-1)
        return total / self.n

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x, rows, weights)

    def row_hessians(self, x):
        """(n, d, d) at x, on the host."""
        lowest = backend.to_host(self.bowls(x, None)[1].argmin(1))
        return self.exact_hessians[np.arange(self.n), lowest]

    def row_gradients(self, x):
        """(n, d) at x, on the host."""
        slopes, values = (backend.to_host(v) for v in self.bowls(x, None))
        return slopes[np.arange(self.n), values.argmin(1)]

    def metrics(self, x):
        point = np.asarray(backend.to_host(x), float)
        return {"f": float(backend.to_host(self.value(x))), **where(point, self.minima)}


def where(point, minima):
    """{"x", "y": the coordinates; "distance": to the nearest of the minima; "nearest": its number}."""
    apart = np.sqrt(((minima - point) ** 2).sum(1))
    names = dict(zip("xy", point.tolist(), strict=False))
    return names | {"distance": float(apart.min()), "nearest": float(apart.argmin())}


SHARP = ((110.0, 90.0), (90.0, 110.0))  # eigenvalues 200 along (1, 1) and 20


def two_basins(rows=100, seed=0, start=(1.0, 1.0)):
    """f_i = min(sharp bowl at (1, 1) + a_i, 2 I at (-1, -1) + a_i), with both minima (nearly) 0.

    a_i = (z1 sqrt(10), z2) K / 100, z normal, K = ((c, -c), (c, c)), c = cos 45 deg: a cloud that is wide across the
    line of the minima. rows=1: without the cloud. The ridge on that line lies at 2 sqrt(2) / 11 = 0.2571 from (1, 1).
    """
    c = np.sqrt(0.5)
    cloud = np.zeros((1, 2))
    if rows > 1:
        z = backend.generator(seed, "two basins").standard_normal((rows, 2)) * (np.sqrt(10), 1)
        cloud = z @ ((c, -c), (c, c)) / 100
    centres = cloud[:, None] + np.array(((1.0, 1.0), (-1.0, -1.0)))
    return Bowls(centres, (SHARP, 2 * np.eye(2)), start, ((1, 1), (-1, -1)), "two basins")


RIDGE = 2 * np.sqrt(2) / 11  # sqrt(100) D = 2 sqrt(2) - D


def uneven(d=2, start=1 + 1e-5):
    """f_1 = min(|w|^2, 0.1 |w - 1|^2), f_2 = min(|w|^2, 1.9 |w - 1|^2): the mean Hessian is 2 I at 0 and at 1, of rows
    that agree (2, 2) and that do not (0.2, 3.8). d: 1 or 2; start: all coordinates."""
    centres = np.stack([np.zeros((2, d)), np.ones((2, d))], 1)
    hessians = np.array([[2, 0.2], [2, 3.8]])[:, :, None, None] * np.eye(d)
    return Bowls(centres, hessians, np.full(d, start), np.stack([np.ones(d), np.zeros(d)]), "uneven rows")


CENTRES = ((-1.0, 0.0), (1.2, 0.0))


class Wells(Problem):
    """f(w) = bowl |w|^2 - sum_k depth_k exp(-|w - c_k|^2 / (2 s_k^2)), of two variables and one row.

    centres (K, 2), widths (K,), or (K, 2) where both axes have their own, depths (K,), bowl >= 0; by default a sharp
    well at (-1, 0), of width 0.15, and a flat one at (1.2, 0), of width 0.9; the sharp one is the deeper by 0.06.
    Metrics as of Bowls. Two numbers are computed on the host: on a device each pass reads x and sends the gradient
    back.
    """

    n, name = 1, "wells"

    def __init__(self, centres=CENTRES, widths=(0.15, 0.9), depths=(1.0, 1.0), bowl=0.02, start=(0.0, 1.5)):
        self.centres, self.widths = np.array(centres, float), np.array(widths, float)
        self.depths, self.bowl, self.start = np.array(depths, float), float(bowl), np.array(start, float)
        count = len(self.widths)
        if self.centres.shape != (count, 2) or self.depths.shape != (count,):
            raise UserError(f"Wells: {count} widths need as many centres (2 numbers each) and depths")
        if self.widths.shape not in ((count,), (count, 2)):
            raise UserError(f"Wells: widths must be one or two numbers a well, got shape {self.widths.shape}")
        self.axes = self.widths if self.widths.ndim == 2 else np.stack([self.widths] * 2, 1)
        self.set_shape(2, np.float64)
        self.found = None

    def x0(self, rng):
        return backend.asarray(self.start.copy())

    def f(self, x, y):
        """At points: arrays of one shape."""
        return self.bowl * (x * x + y * y) - sum(e for e, *_ in self.terms(x, y))

    def gradient(self, x, y):
        found = [(e * a / s[0] ** 2, e * b / s[1] ** 2) for e, a, b, s in self.terms(x, y)]
        return 2 * self.bowl * x + sum(a for a, _ in found), 2 * self.bowl * y + sum(b for _, b in found)

    def terms(self, x, y):
        for (a, b), s, depth in zip(self.centres, self.axes, self.depths, strict=True):
            yield depth * np.exp(-0.5 * (((x - a) / s[0]) ** 2 + ((y - b) / s[1]) ** 2)), x - a, y - b, s

    def hessian(self, x, y):
        """(2, 2): of -e^(-r^2 / 2 s^2) it is e^(...) (I / s^2 - r r' / s^4), axis by axis."""
        H = 2 * self.bowl * np.eye(2)
        for e, a, b, s in self.terms(x, y):
            r = np.array([a, b]) / s**2
            H = H + e * (np.diag(1 / s**2) - np.outer(r, r))
        return H

    def critical(self, x, y=0.0):
        """The critical point near (x, y), by Newton's method."""
        w = np.array([x, y], float)
        for _ in range(50):
            w = w - np.linalg.solve(self.hessian(*w), self.gradient(*w))
        return w

    def minimum(self):
        """(the minima, one a well, (K, 2), f at each)."""
        if self.found is None:
            self.found = np.array([self.critical(*c) for c in self.centres])
        return self.found, np.array([float(self.f(*w)) for w in self.found])

    def value_and_gradient(self, x, rows=None, weights=None, out=None):
        point = [float(v) for v in backend.to_host(self.check(x))]
        if out is not None:
            out[...] = backend.asarray(np.array(self.gradient(*point)))
        return float(self.f(*point))

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x)

    def metrics(self, x):
        point = np.asarray(backend.to_host(x), float)
        return {"f": float(self.f(*point)), **where(point, self.minimum()[0])}
