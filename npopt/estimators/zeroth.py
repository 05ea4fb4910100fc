"""What estimators from function values share: the radius, the kind of difference, directions by their number."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.estimators.accumulated import add
from npopt.estimators.base import Estimator
from npopt.values import number, whole


@elementwise
def moved(y, x, u, a):
    y = x + a * u
    return y


class ZerothOrder(Estimator):
    """Differences of losses along q directions u_1, ..., u_q that are drawn anew at every step:

        central     s_k = (f(x + mu u_k) - f(x - mu u_k)) / (2 mu)        2 q function values
        forward     s_k = (f(x + mu u_k) - f(x)) / mu                     q + 1

    f is the loss of the step's batch: both values of a difference see the same rows, dropout and augmentation. mu is
    the `radius`. Direction k of step t is that of key(seed, "direction", t q + k), so that it can be had again. The
    loss that is returned is f(x), or the mean of the 2 q values, which lies O(mu^2) above it. Rows evaluated are
    counted as values.
    """

    def __init__(self, radius=1e-3, q=1, difference="central"):
        name = type(self).__name__
        self.radius = number(name, "radius", radius, low=0, open_low=True)
        self.q, self.difference = whole(name, "q", q), check_difference(name, difference)

    def key(self, k, t=None):
        """The key of direction k of step t; by default of this step."""
        return backend.key(self.seed, "direction", (self.problem.t if t is None else t) * self.q + k)

    @property
    def amounts(self):
        """How far along a direction the values are taken, beside f(x)."""
        return (self.radius,) if self.difference == "forward" else (self.radius, -self.radius)

    def slope(self, found, first):
        """(s, the loss to report) of the values at `amounts`; first: f(x), needed by forward differences."""
        if self.difference == "forward":
            return (found[0] - first) / self.radius, first
        right, left = found
        return (right - left) / (2 * self.radius), (right + left) / 2


def check_difference(owner, difference):
    if difference not in ("central", "forward"):
        raise UserError(f'{owner}: difference must be "central" or "forward", got {difference!r}')
    return difference


class Smoothing(ZerothOrder):
    """g = (factor / q) sum_k s_k u_k, a vector. A subclass draws u_k: draw(key, out), and says which factor makes g the
    gradient of a smoothed f. Memory: two more vectors like x."""

    def start(self, problem, x, seed):
        self._u, self._y = backend.xp(x).empty_like(x), backend.xp(x).empty_like(x)
        self.factor = self.factor_of(x.size)
        return super().start(problem, x, seed)

    def factor_of(self, d):
        return 1.0

    def draw(self, key, out):
        raise UserError(f"{type(self).__name__} does not say how directions are drawn; define draw(self, key, out)")

    def again(self, y, out):
        def value(a):
            moved(self._y, y, self._u, a)
            return self.value(self._y)

        first = self.value(y) if self.difference == "forward" else None
        total, out[...] = 0.0, 0
        for k in range(self.q):
            self.draw(self.key(k), self._u)
            slope, loss = self.slope([value(a) for a in self.amounts], first)
            add(out, self._u, slope * (self.factor / self.q))
            total = total + loss
        return total / self.q
