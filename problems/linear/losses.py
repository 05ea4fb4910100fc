"""Losses of linear models: all that a solver may ask of l(z; y), where z = W a + c are a row's outputs and y its label.

    Squared          1/2 (z - y)^2                                                y real
    Huber(delta)     1/2 r^2 for |r| <= delta, else delta |r| - delta^2/2         y real, r = z - y
    SquaredHinge     1/2 max(0, 1 - y z)^2                                        y -1 or +1
    Logit            log(1 + exp(-y z))                                           y -1 or +1
    Softmax(C)       log sum_k exp(z_k) - z_y                                     y 0, ..., C-1

Huber: Huber, Ann. Math. Stat. 35, 1964. SquaredHinge: Chang, Hsieh & Lin, JMLR 9, 2008 (without the 1/2). Conjugates:
l*(u; y) = sup_z <u, z> - l(z; y), infinite outside its domain. For each of these losses 0 lies in the domain,
because l >= 0.

A new loss is one class here; data, passes, compiled steps, constants, minima and duality gaps follow from it.
"""

from collections import namedtuple

from npopt.errors import UserError
from npopt.values import number
from problems.linear import labels

import numpy as np
import scipy.special


class Loss:
    """l(z; y) of one row. It is a value, and a named tuple of its own numbers: compiled loops read them by name.

    A subclass is `class Name(Loss, namedtuple("Name", "its numbers"))` with

        one(y, z) -> (l, l')                  for one output. It is compiled into the loops: arithmetic, and NumPy's
        many(y, s) -> l                       functions of scalars. With K outputs s: (K,) holds z, and takes l'
        arrays(z, y, xp) -> (l, l')           the same as array code: z (B, K), y (B,) to (B,) and (B, K)
        second(z, y) -> l''                   (B, K, K), float64 on the host; at a kink of l' either side's
        conjugate(u, y) -> l*                 (B,) of u: (B, K), float64 on the host, where it is known
        cuda                                  the body of a GPU's `loss_of` (steps.cuh): needed for `many`, and for a
                                              `one` that is no formula of npopt.backend; without it a GPU makes
                                              steps one by one
        curvature                             a bound on the eigenvalues of l'', over all z and y
        majorant(z, y) -> c                   (B,) with l(z + d; y) <= l + l'.d + c/2 |d|^2 for all d, c <= curvature
        classes(where, y)                     the labels that it takes: see problems/linear/labels.py
    """

    __slots__ = ()
    outputs = 1  # K
    quadratic = False  # l'' is a constant: minima solve linear systems
    attained = True  # False: inf l lies at infinity, so on separable data the loss falls for ever

    def __eq__(self, other):
        return type(self) is type(other) and tuple.__eq__(self, other)

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash((type(self), tuple(self)))

    def many(self, y, s):
        raise UserError(f"{type(self).__name__} has one output; call one(y, z)")

    def majorant(self, z, y):
        return np.full(len(z), self.curvature)

    def second(self, z, y):
        raise ArithmeticError(f"{self!r} defines no second derivative, so no minimum is computed")

    def conjugate(self, u, y):
        raise UserError(f"{self!r} defines no conjugate, so no duality gap is known")


class Real(Loss):
    """Losses of a residual: y is a number, and nothing is classified."""

    __slots__ = ()

    def classes(self, where, y):
        return None


class Margin(Loss):
    """Losses of the margin y z, y = -1 or +1."""

    __slots__ = ()

    def classes(self, where, y):
        return labels.two(where, y)

    def encode(self, c):
        """y for the class numbers c, 0 or 1."""
        return 2.0 * c - 1.0

    def decide(self, z):
        """Class numbers for the outputs z: (B, 1)."""
        return (z[:, 0] > 0).astype(np.int64)


class Squared(Real, namedtuple("Squared", "")):
    """l = 1/2 (z - y)^2          l' = z - y          l* = u^2/2 + u y"""

    __slots__ = ()
    curvature = 1.0
    quadratic = True

    def one(self, y, z):
        return 0.5 * (z - y) * (z - y), z - y

    def arrays(self, z, y, xp):
        r = z - y[:, None]
        return 0.5 * r[:, 0] * r[:, 0], r

    def second(self, z, y):
        return np.ones((len(z), 1, 1))

    def conjugate(self, u, y):
        return 0.5 * u[:, 0] ** 2 + u[:, 0] * y


class Huber(Real, namedtuple("Huber", "delta")):
    """l = 1/2 r^2, beyond |r| = delta the tangent delta |r| - delta^2/2, r = z - y.          delta > 0, in units of y

    l' = min(max(r, -delta), delta)          l* = u^2/2 + u y for |u| <= delta
    """

    __slots__ = ()
    curvature = 1.0

    def __new__(cls, delta=1.35):
        return super().__new__(cls, float(number("Huber", "delta", delta, low=0, open_low=True)))

    def one(self, y, z):
        s = min(max(z - y, -self.delta), self.delta)
        return s * (z - y) - 0.5 * s * s, s

    def arrays(self, z, y, xp):
        r = z - y[:, None]
        s = xp.clip(r, -self.delta, self.delta)
        return (s * r - 0.5 * s * s)[:, 0], s

    def second(self, z, y):
        return 1.0 * (np.abs(z[:, 0] - y) <= self.delta)[:, None, None]

    def majorant(self, z, y):
        return self.delta / np.maximum(np.abs(z[:, 0] - y), self.delta)  # of the parabola through both tangents

    def conjugate(self, u, y):
        inside = np.abs(u[:, 0]) <= self.delta * (1 + 1e-14)  # a product may round up
        return np.where(inside, 0.5 * u[:, 0] ** 2 + u[:, 0] * y, np.inf)


class SquaredHinge(Margin, namedtuple("SquaredHinge", "")):
    """l = 1/2 max(0, 1 - m)^2, m = y z          l' = -y max(0, 1 - m)          l* = a^2/2 - a for a = -y u >= 0"""

    __slots__ = ()
    curvature = 1.0

    def one(self, y, z):
        short = max(1.0 - y * z, 0.0)
        return 0.5 * short * short, -y * short

    def arrays(self, z, y, xp):
        short = xp.maximum(1.0 - y * z[:, 0], 0.0)
        return 0.5 * short * short, (-y * short)[:, None]

    def second(self, z, y):
        return 1.0 * (y * z[:, 0] <= 1.0)[:, None, None]

    def conjugate(self, u, y):
        a = -y * u[:, 0]
        return np.where(a >= 0, 0.5 * a * a - a, np.inf)


class Logit(Margin, namedtuple("Logit", "")):
    """l = log(1 + exp(-m)), m = y z          l' = -y a, a = 1 / (1 + exp(m))          l'' = a (1 - a) <= 1/4

    l* = a log a + (1 - a) log(1 - a) for a = -y u in [0, 1]
    """

    __slots__ = ()
    curvature = 0.25
    attained = False

    def one(self, y, z):
        m = y * z
        e = np.exp(-abs(m))  # never overflows
        return max(-m, 0.0) + np.log1p(e), -y * (e / (1.0 + e) if m > 0 else 1.0 / (1.0 + e))

    def arrays(self, z, y, xp):
        m = y * z[:, 0]
        tail = xp.logaddexp(xp.zeros_like(m), m)  # log(1 + exp(m)), so that exp(-tail) = 1 / (1 + exp(m))
        return tail - m, (-y * xp.exp(-tail))[:, None]

    def second(self, z, y):
        a = np.exp(-np.logaddexp(0, z[:, 0]))
        return (a * np.exp(-np.logaddexp(0, -z[:, 0])))[:, None, None]

    def conjugate(self, u, y):
        a = -y * u[:, 0]
        return negative_entropy(np.stack([a, 1 - a], 1))


class Softmax(Loss, namedtuple("Softmax", "C")):
    """l = log sum_k exp(z_k) - z_y          l' = p - e_y, p_k = exp(z_k) / sum_j exp(z_j)          l'' = diag(p) - p p'

    l* = sum_k p_k log p_k for p = u + e_y in the simplex. C classes, and as many outputs.
    """

    __slots__ = ()
    curvature = 0.5
    attained = False

    @property
    def outputs(self):
        return self.C

    def classes(self, where, y):
        return labels.many(where, y)

    def encode(self, c):
        return 1.0 * c

    def decide(self, z):
        return z.argmax(1)

    def many(self, y, s):
        top = s[0]
        for k in range(1, s.size):
            top = max(top, s[k])
        own, total = s[int(y)] - top, 0.0
        for k in range(s.size):
            s[k] = np.exp(s[k] - top)
            total += s[k]
        for k in range(s.size):
            s[k] /= total
        s[int(y)] -= 1.0
        return np.log(total) - own

    cuda = """\
    double top = s[first], total = 0;
    for (int k = first + 1; k < first + K; k++) top = (double)s[k] > top ? (double)s[k] : top;
    const int mine = first + (int)y;
    const double own = (double)s[mine] - top;
    for (int k = first; k < first + K; k++) {
        const double power = exp((double)s[k] - top);
        s[k] = power;
        total += power;
    }
    for (int k = first; k < first + K; k++) s[k] = (double)s[k] / total - (k == mine ? 1.0 : 0.0);
    return log(total) - own;
"""

    def arrays(self, z, y, xp):
        z = z - z.max(1)[:, None]
        own = y[:, None] == xp.arange(self.C)  # (B, C), one True a row
        p = xp.exp(z)
        total = p.sum(1)
        return xp.log(total) - (z * own).sum(1), p / total[:, None] - own

    def second(self, z, y):
        p = np.exp(z - z.max(1)[:, None])
        p /= p.sum(1)[:, None]
        return p[:, :, None] * np.eye(self.C) - p[:, :, None] * p[:, None, :]

    def conjugate(self, u, y):
        return negative_entropy(u + (y[:, None] == np.arange(self.C)))


def negative_entropy(p):
    """sum_k p_k log p_k, (B,), infinite outside the simplex but for rounding."""
    inside = (p >= -1e-14).all(1) & (np.abs(p.sum(1) - 1) <= 1e-12)
    p = np.maximum(p, 0)
    return np.where(inside, scipy.special.xlogy(p, p).sum(1), np.inf)
