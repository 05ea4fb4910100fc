"""Activations with their derivatives, and gates made of them, in array code for every device.

    kind            f(x)                                                                f'(x)
    "identity"      x                                                                   1
    "relu"          max(x, 0)                                                           1 where x > 0, else 0
    "sigmoid"       s = 1/(1 + e^(-x))                                                  s (1 - s)
    "silu"          x s                                                                 s (1 + x (1 - s))
    "gelu"          x P, P = (1 + erf(x/sqrt 2))/2                                      P + x e^(-x^2/2)/sqrt(2 pi)
    "gelu-tanh"     x P, P = (1 + tanh u)/2, u = sqrt(2/pi) (x + 0.044715 x^3)          P + 2 x P (1 - P) u'

P of "gelu" is the standard normal distribution function; (1 + tanh u)/2 = 1/(1 + e^(-2u)).
s is taken as e^(-|x|)/(1 + e^(-|x|)) or 1 less that, which cannot overflow.
"""

from math import pi, sqrt

from npopt.backend import xp

KINDS = ("identity", "relu", "sigmoid", "silu", "gelu", "gelu-tanh")
CUBE = 0.044715


def logistic(x):
    """1/(1 + e^(-x))"""
    m = xp(x)
    u = m.exp(-m.abs(x))
    return m.where(x >= 0, 1, u).astype(x.dtype) / (1 + u)


def normal(x):
    """P(x), the standard normal distribution function."""
    from . import erf

    p = x * sqrt(0.5)
    erf(p)
    p += 1
    p *= 0.5
    return p


def share(kind, x):
    """P of f = x P, for the three kinds that have this form."""
    if kind == "gelu":
        return normal(x)
    return logistic(x if kind == "silu" else 2 * sqrt(2 / pi) * x * (1 + CUBE * x * x))


def share_slope(kind, x, p):
    """P' where P is p."""
    if kind == "gelu":
        return xp(x).exp(-0.5 * x * x) * (1 / sqrt(2 * pi))
    slope = p * (1 - p)
    return slope if kind == "silu" else slope * (2 * sqrt(2 / pi) * (1 + 3 * CUBE * x * x))


def value(kind, x):
    """f(x), a new array."""
    if kind == "identity":
        return x.copy()
    if kind == "relu":
        return xp(x).maximum(x, 0)
    return logistic(x) if kind == "sigmoid" else x * share(kind, x)


def slope(kind, x):
    """f'(x), a new array."""
    if kind == "identity":
        return xp(x).ones_like(x)
    if kind == "relu":
        return (x > 0).astype(x.dtype)
    if kind == "sigmoid":
        s = logistic(x)
        return s * (1 - s)
    p = share(kind, x)
    return p + x * share_slope(kind, x, p)


def activate(x, y, kind):
    """y = f(x); y may be x."""
    y[...] = value(kind, x)


def activate_backward(x, dy, dx, kind):
    """dx = f'(x) dy; dx may be dy."""
    xp(x).multiply(slope(kind, x), dy, out=dx)


def gate(a, b, y, kind):
    """y = f(a) b"""
    xp(a).multiply(value(kind, a), b, out=y)


def gate_backward(a, b, dy, da, db, kind):
    """da = f'(a) b dy,   db = f(a) dy;   db may be dy."""
    m = xp(a)
    m.multiply(slope(kind, a) * b, dy, out=da)
    m.multiply(value(kind, a), dy, out=db)
