"""Activations and gates as formulas: one launch for each, a thread a number. Bytes: two or three read, one or two
written. What has no formula here (the error function) is array code.
"""

from npopt.backend import elementwise

from .. import reference_gates


@elementwise
def silu(y, x):
    u = exp(-abs(x))  # noqa: F821
    y = x * (1.0 if x >= 0 else u) / (1 + u)
    return y


@elementwise
def silu_backward(dx, x):
    u = exp(-abs(x))  # noqa: F821
    s = (1.0 if x >= 0 else u) / (1 + u)
    dx = dx * s * (1 + x * (1 - s))
    return dx


@elementwise
def gelu_tanh(y, x):
    v = 1.5957691216057308 * x * (1 + 0.044715 * x * x)
    u = exp(-abs(v))  # noqa: F821
    y = x * (1.0 if x >= 0 else u) / (1 + u)
    return y


@elementwise
def gelu_tanh_backward(dx, x):
    v = 1.5957691216057308 * x * (1 + 0.044715 * x * x)
    u = exp(-abs(v))  # noqa: F821
    p = (1.0 if x >= 0 else u) / (1 + u)
    dx = dx * (p + x * p * (1 - p) * 1.5957691216057308 * (1 + 0.134145 * x * x))
    return dx


@elementwise
def swiglu(y, a, b):
    u = exp(-abs(a))  # noqa: F821
    y = a * (1.0 if a >= 0 else u) / (1 + u) * b
    return y


@elementwise
def swiglu_backward(da, db, a, b):
    u = exp(-abs(a))  # noqa: F821
    s = (1.0 if a >= 0 else u) / (1 + u)
    da = db * b * s * (1 + a * (1 - s))
    db = db * a * s
    return da, db


FORWARD, BACKWARD = {"silu": silu, "gelu-tanh": gelu_tanh}, {"silu": silu_backward, "gelu-tanh": gelu_tanh_backward}


def plain(kind, formulas, a):
    """Whether a kind is array code for numbers like a's."""
    return kind not in formulas or a.dtype not in ("float32", "float64")


def activate(x, y, kind):
    if plain(kind, FORWARD, x):
        reference_gates.activate(x, y, kind)
    else:
        FORWARD[kind](y.reshape(-1), x.reshape(-1))


def activate_backward(x, dy, dx, kind):
    if plain(kind, BACKWARD, x):
        reference_gates.activate_backward(x, dy, dx, kind)
        return
    if dx is not dy:
        dx[...] = dy
    BACKWARD[kind](dx.reshape(-1), x.reshape(-1))


def gate(a, b, y, kind):
    if plain(kind, ("silu",), a):
        reference_gates.gate(a, b, y, kind)
    else:
        swiglu(y.reshape(-1), a.reshape(-1), b.reshape(-1))


def gate_backward(a, b, dy, da, db, kind):
    if plain(kind, ("silu",), a):
        reference_gates.gate_backward(a, b, dy, da, db, kind)
        return
    if db is not dy:
        db[...] = dy
    swiglu_backward(da.reshape(-1), db.reshape(-1), a.reshape(-1), b.reshape(-1))
