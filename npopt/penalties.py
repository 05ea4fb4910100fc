"""Penalties h and their proximal operators:   prox_{t h}(x) = argmin_u  h(u) + |u - x|^2 / (2 t).

A penalty is the part of an objective that has no gradient. A problem carries one as `regulariser`; its objective is
then value + penalty, and only proximal methods accept it. The prox is characterised by the three-point inequality:
with p = prox_{t h}(x), for every u

    h(u) + |u - x|^2 / (2t)  >=  h(p) + |p - x|^2 / (2t) + |u - p|^2 / (2t)

`value(x)` is a Python float, so on a device it waits; `prox(x, step)` writes into the flat vector x and returns it.
"""

import math

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.values import Value, number


@elementwise
def soft_threshold(x, t, factor):
    x = (max(x - t, 0) - max(-x - t, 0)) * factor
    return x


@elementwise
def clip(x, low, high):
    x = min(max(x, low), high)
    return x


@elementwise
def subtract_and_cut(x, theta):
    x = max(x - theta, 0)
    return x


class Regulariser(Value):
    """Base: `value(x)` and `prox(x, step)`, step > 0. l1 and l2 are 0 where a penalty has no such part."""

    l1 = 0.0
    l2 = 0.0

    def value(self, x):
        raise UserError(f"{type(self).__name__} does not define value(x)")

    def prox(self, x, step):
        raise UserError(f"{type(self).__name__} does not define prox(x, step)")


class L1(Regulariser):
    """h(x) = l1 sum_j |x_j|          prox: S_{t l1}(x_j) = sign(x_j) max(|x_j| - t l1, 0)"""

    def __init__(self, l1):
        self.l1 = number("L1", "l1", l1, low=0)

    def value(self, x):
        return self.l1 * float(backend.to_host(abs(x).sum()))

    def prox(self, x, step):
        soft_threshold(x, step * self.l1, 1)
        return x


class L2(Regulariser):
    """h(x) = l2/2 |x|^2          prox: x / (1 + t l2)

    As a penalty it is handled implicitly; the same term as a problem's `l2` is part of the smooth f, and its step is
    x - t l2 x. The minimiser is the same, the steps are not.
    """

    def __init__(self, l2):
        self.l2 = number("L2", "l2", l2, low=0)

    def value(self, x):
        return 0.5 * self.l2 * float(backend.to_host((x * x).sum()))

    def prox(self, x, step):
        soft_threshold(x, 0, 1 / (1 + step * self.l2))
        return x


class L1L2(Regulariser):
    """The elastic net's penalty, Zou & Hastie, JRSS B 67, 2005, with the two weights apart:

        h(x) = l1 sum_j |x_j| + l2/2 |x|^2          prox: S_{t l1}(x) / (1 + t l2)

    scikit-learn's alpha and l1_ratio are l1 = alpha l1_ratio, l2 = alpha (1 - l1_ratio).
    """

    def __init__(self, l1, l2):
        self.l1, self.l2 = number("L1L2", "l1", l1, low=0), number("L1L2", "l2", l2, low=0)

    def value(self, x):
        return float(backend.to_host(self.l1 * abs(x).sum() + 0.5 * self.l2 * (x * x).sum()))

    def prox(self, x, step):
        soft_threshold(x, step * self.l1, 1 / (1 + step * self.l2))
        return x


class Box(Regulariser):
    """h(x) = 0 if low <= x_j <= high for every j, else infinity          prox: clip x_j to [low, high]

    None is no bound: Box(0, None) is x >= 0.
    """

    def __init__(self, low, high):
        self.low = None if low is None else number("Box", "low", low)
        self.high = None if high is None else number("Box", "high", high)
        if None not in (low, high) and not low <= high:
            raise UserError(f"Box: low must not exceed high, got low={low}, high={high}")

    @property
    def bounds(self):
        """(low, high) as numbers, infinite where there is none."""
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high

    def value(self, x):
        low, high = (backend.xp(x).asarray(bound, x.dtype) for bound in self.bounds)  # a float32 x meets float32
        return 0.0 if bool(backend.to_host(((x >= low) & (x <= high)).all())) else math.inf

    def prox(self, x, step):
        clip(x, *self.bounds)
        return x


class Simplex(Regulariser):
    """h(x) = 0 if x_j >= 0 and sum_j x_j = radius, else infinity.

    prox: the Euclidean projection max(x - theta, 0), by sorting (Held, Wolfe & Crowder, Math. Prog. 6, 1974):
    with u = x sorted downwards,   theta = max_k (u_1 + ... + u_k - radius) / k.   O(d log d).

    `value` lets the sum miss the radius by what adding d numbers rounds, 4 d eps radius.
    """

    def __init__(self, radius=1.0):
        self.radius = number("Simplex", "radius", radius, low=0, open_low=True)

    def value(self, x):
        xp = backend.xp(x)
        miss = float(backend.to_host(abs(x.sum() - self.radius)))
        inside = bool(backend.to_host((x >= 0).all()))
        return 0.0 if inside and miss <= 4 * x.size * float(xp.finfo(x.dtype).eps) * self.radius else math.inf

    def prox(self, x, step):
        xp = backend.xp(x)
        u = xp.sort(x.astype("float64"))[::-1]
        theta = ((u.cumsum() - self.radius) / xp.arange(1, x.size + 1)).max()
        subtract_and_cut(x, theta)
        return x
