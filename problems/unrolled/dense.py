"""The passes of unrolled networks in array code, on any device.

With S_t(u) = sign(u) max(|u| - t, 0), the layers of forms.py make, for rows of a batch (one sample a row),

    LISTA         u = b B' + x V                                      (B is W1, V is W2')
    LISTA-CP      r = b - x A'      u = x + r W'                      ALISTA: u = x + gain r W'

and y = S_theta(u), except that entries of the support that was selected keep y = u. Backward, from dy = dL/dy:

    du = dy where |u| > theta, else 0           dtheta = -sum sign(u) du over the entries that were shrunk
    LISTA         dV = x'du        dB = (sum over layers of du)'b        dx = du V'
    LISTA-CP      v = du W         dW = du'r        dx = du - v A        db = v, since dr = v and r = b - x A'
    ALISTA        v = du W         dgain = sum r v                      dx = du - gain v A

Summed over the batch. A matrix that several layers share collects its parts. Where theta is clamped, theta < 0 has no
gradient.
"""

from typing import Any, NamedTuple

from npopt.backend import xp
from problems.base import number


class Net(NamedTuple):
    """What a pass works with: layers, a list of forms.Layer, up to the one whose output counts; At = A', (n, m);
    B, (n, m), or None; clamp: whether theta < 0 is 0."""

    layers: list
    At: Any
    B: Any
    clamp: bool


class Step(NamedTuple):
    """What backward needs of a layer: its input x (None: 0), r, u, where |u| > theta, which of these were shrunk."""

    x: Any
    r: Any
    u: Any
    on: Any
    shrunk: Any
    y: Any


def forward(net, b):
    """The Steps of all layers for b, (B, m)."""
    x, steps = None, []
    c = None if net.B is None else b @ net.B.T
    for layer in net.layers:
        r = None
        if layer.W is None:
            u = c if x is None else c + x @ layer.V
        else:
            r = b if x is None else b - x @ net.At
            u = r @ layer.W.T
            if layer.gain is not None:
                u *= layer.gain
            if x is not None:
                u += x
        y, on, shrunk = shrink(u, layer.theta, layer.kept, net.clamp)
        steps.append(Step(x, r, u, on, shrunk, y))
        x = y
    return steps


def shrink(u, theta, kept, clamp):
    """(y, where |u| > theta, where y = S_theta(u) is not 0)"""
    m, size = xp(u), abs(u)
    th = m.maximum(theta, 0) if clamp else theta
    on = size > th
    y = m.where(on, u - m.sign(u) * th, 0)
    if not kept:
        return y, on, on
    place = u.shape[1] - 1 - kept
    cut = m.partition(size, place, axis=1)[:, place : place + 1]
    free = on & (size > cut)
    return m.where(free, u, y), on, on & ~free


def output(step):
    """y of a Step, (B, n)."""
    return step.y


def loss(steps, truth, weights, gradient=True):
    """(1/2 sum_b w_b |y_b - x*_b|^2 / B, dL/dy or None) of the last layer; truth: (B, n), weights: (B,) or None."""
    error = steps[-1].y - truth
    scaled = error / len(truth) if weights is None else error * (weights[:, None] / len(truth))
    value = 0.5 * (error * scaled).sum(dtype="float64")
    return number(value), scaled if gradient else None


def backward(net, into, steps, b, dy, lowest, db=None):
    """Write the gradient. into: a forms.Layer of arrays for each layer, None where no gradient is wanted, and
    into[-1], beyond the layers, that of B; layers below `lowest` have none; db: (B, m), written, or None."""
    seen, dc, moved = set(), 0, 0
    for k in reversed(range(lowest, len(net.layers))):
        layer, step, wanted = net.layers[k], steps[k], into[k]
        m = xp(dy)
        du = m.where(step.on, dy, 0)
        if wanted.theta is not None:
            s = m.where(step.shrunk, -m.sign(step.u) * du, 0)
            s = s.sum() if wanted.theta.size == 1 else s.sum(axis=0)
            wanted.theta[...] = m.where(layer.theta < 0, 0, s) if net.clamp else s
        down = k > lowest
        if layer.W is None:
            dc = dc + du
            if wanted.V is not None:
                put(wanted.V, step.x.T @ du, seen)
            dy = du @ layer.V.T if down else None
            continue
        v = du @ layer.W if down or db is not None or wanted.gain is not None else None
        if wanted.gain is not None:
            wanted.gain[...] = (step.r * v).sum()
        if wanted.W is not None:
            put(wanted.W, du.T @ step.r, seen)
        if layer.gain is not None and v is not None:
            v *= layer.gain
        moved = moved + v if db is not None else 0
        dy = du - v @ net.At.T if down else None
    if into[-1] is not None:
        into[-1][...] = dc.T @ b
    if db is not None:
        db[...] = moved if net.B is None else dc @ net.B


def put(target, value, seen):
    """Write the first part of a gradient, add the others."""
    if id(target) in seen:
        target += value
    else:
        target[...] = value
        seen.add(id(target))
