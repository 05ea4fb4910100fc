"""The passes of dense.py on a CPU, as loops over the entries that are not 0.

After a threshold most entries of x are 0, and backward needs dx on the support of x alone, because du is 0 elsewhere.
So a layer's output is kept as lists of places and values, and its gradient in the same places. Of LISTA-CP's five
products a layer, only r W' is dense; LISTA has none but b B' and its gradient. Samples are shared among threads, and
so are the rows of a gradient: no result depends on their number.

The lists of a batch, (B, n) each: sample b has entries at the places at[b, :c], rising, with c = at[b, n]; `value` has
their values; `sign` is -1 or 1 where u was shrunk, the sign of u, and 0 where it was kept.
"""

from typing import Any, NamedTuple

from npopt import backend
from npopt.backend import once
from problems.loops import LOOSE

import numba
import numpy as np

jit, inside, apart = once.compiled(parallel=True, **LOOSE), once.compiled(**LOOSE), once.once(**LOOSE)
ROWS = 64  # of a matrix's gradient, a piece of work


class Step(NamedTuple):
    """What backward needs of a layer: places of its input (None: 0) and their values, r, (B, m), or None, and the lists
    of its output."""

    x: Any
    inputs: Any
    r: Any
    y: Any
    value: Any
    sign: Any


# ---------------------------------------------------------------------------------------------------------- forward
@apart
def add_rows(at, value, count, M, out):
    """out += sum_i value_i M[at_i], four rows at a time."""
    width, i = M.shape[1], 0
    while i + 4 <= count:
        a, b, c, d = value[i], value[i + 1], value[i + 2], value[i + 3]
        A, B, C, D = M[at[i]], M[at[i + 1]], M[at[i + 2]], M[at[i + 3]]
        for j in range(width):
            out[j] += (a * A[j] + b * B[j]) + (c * C[j] + d * D[j])
        i += 4
    while i < count:
        a, A = value[i], M[at[i]]
        for j in range(width):
            out[j] += a * A[j]
        i += 1


@apart
def combine_row(k, start, at, value, M, row):
    """Row k of `combine`."""
    for j in range(row.size):
        row[j] = start[k, j] if start.shape[0] else row.dtype.type(0)
    add_rows(at, value, at[at.size - 1], M, row)


@jit
def combine(start, at, value, M, out):
    """out = start + x M, x given by lists; start without rows is 0. out: (B, width)"""
    for number in numba.prange(len(out)):
        k = np.int64(number)
        combine_row(k, start, at[k], value[k], M, out[k])


@jit
def residual(b, at, value, At, out):
    """out = b - x A', x given by lists. out: (B, m)"""
    for number in numba.prange(len(out)):
        k = np.int64(number)
        row = out[k]
        combine_row(k, b[:0], at[k], value[k], At, row)
        for j in range(row.size):
            row[j] = b[k, j] - row[j]


@inside
def threshold(u, at, count, kept, one):
    """The size of the (kept + 1)-th largest entry of u. With one theta those above it come first: then it is enough to
    look at them, and all are kept where they are no more."""
    if not one:
        size = np.abs(u)
    elif count <= kept:
        return u.dtype.type(-1)
    else:
        size = np.empty(count, u.dtype)
        for i in range(count):
            size[i] = abs(u[at[i]])
    place = size.size - 1 - kept
    return np.partition(size, place)[place]


@apart
def soften(u, theta, kept, clamp, at, value, sign):
    """The lists of y for one sample's u."""
    count, one = 0, theta.size == 1
    for j in range(u.size):
        t = theta[0] if one else theta[j]
        if clamp and t < 0:
            t = theta.dtype.type(0)
        at[count] = j
        count += abs(u[j]) > t
    at[u.size] = count
    cut = threshold(u, at, count, kept, one) if kept else u.dtype.type(np.inf)
    for i in range(count):
        z = u[at[i]]
        t = theta[0] if one else theta[at[i]]
        if clamp and t < 0:
            t = theta.dtype.type(0)
        sign[i] = 0 if abs(z) > cut or z == 0 else 1 if z > 0 else -1
        value[i] = z - sign[i] * t


@jit
def shrink(u, x, inputs, theta, rule, at, value, sign):
    """The lists of S_theta(u + x); x and its values are lists, too. u: (B, n), changed; rule: (kept, clamp)"""
    kept, clamp = rule
    for number in numba.prange(u.shape[0]):
        k = np.int64(number)
        row = u[k]
        for i in range(x[k, x.shape[1] - 1]):
            row[x[k, i]] += inputs[k, i]
        soften(row, theta, kept, clamp, at[k], value[k], sign[k])


def forward(net, b):
    """The Steps of all layers for b, (B, m)."""
    count, n, dtype = len(b), net.At.shape[0], b.dtype
    nothing, none = np.zeros((count, 1), np.int32), np.empty((0, 0), dtype)
    x, inputs, r, steps = nothing, none, b, []
    c = None if net.B is None else b @ net.B.T
    for k, layer in enumerate(net.layers):
        at, sign = backend.empty((count, n + 1), "int32"), backend.empty((count, n), "int8")
        value, u = backend.empty((count, n), dtype), backend.empty((count, n), dtype)
        rule = layer.kept, net.clamp
        if layer.W is None:
            combine(c, x, inputs, c if layer.V is None else layer.V, u)
            shrink(u, nothing, none, layer.theta, rule, at, value, sign)
        else:
            if k:
                r = backend.empty(b.shape, dtype)
                residual(b, x, inputs, net.At, r)
            np.matmul(r, layer.W.T, out=u)
            if layer.gain is not None:
                u *= layer.gain
            shrink(u, x, inputs, layer.theta, rule, at, value, sign)
        steps.append(Step(x, inputs, r, at, value, sign))
        x, inputs = at, value
    return steps


def output(step):
    """y of a Step, (B, n)."""
    out = np.empty(step.value.shape, step.value.dtype)
    spread(step.y, step.value, out)
    return out


@jit
def spread(at, value, out):
    """Lists as an array, (B, n)."""
    for number in numba.prange(out.shape[0]):
        k = np.int64(number)
        row = out[k]
        for j in range(row.size):
            row[j] = 0
        for i in range(at[k, row.size]):
            row[at[k, i]] = value[k, i]


# --------------------------------------------------------------------------------------------------------- the loss
@apart
def difference_row(at, value, truth, w, share, g):
    """w |y - x*|^2 of one sample; g = w share (y - x*)."""
    n, factor, total, i = truth.size, g.dtype.type(w * share), 0.0, 0
    for j in range(n):
        error = -truth[j]
        if i < at[n] and at[i] == j:
            error += value[i]
            g[i] = factor * error
            i += 1
        total += np.float64(error) * np.float64(error)
    return w * total


@jit
def difference(at, value, truth, weights, g, sums):
    """g = w_b (y - x*)/B in the places of y; sums: w_b |y - x*|^2 of each sample."""
    for number in numba.prange(len(truth)):
        k = np.int64(number)
        w = np.float64(weights[k]) if weights.size else 1.0
        sums[k] = difference_row(at[k], value[k], truth[k], w, 1.0 / len(truth), g[k])


def loss(steps, truth, weights, gradient=True):
    """(1/2 sum_b w_b |y_b - x*_b|^2 / B, dL/dy in the places of y) of the last layer."""
    last, sums = steps[-1], np.empty(len(truth))
    g = backend.empty(truth.shape, truth.dtype)
    difference(last.y, last.value, truth, np.empty(0, truth.dtype) if weights is None else weights, g, sums)
    return 0.5 * float(sums.sum()) / len(truth), g


# --------------------------------------------------------------------------------------------------------- backward
@inside
def dot(a, b):
    total = a.dtype.type(0)
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@apart
def pull_row(x, y, g, M, row, keep, times, dx):
    i, count = 0, y[y.size - 1]
    for p in range(x[x.size - 1]):
        j = x[p]
        while i < count and y[i] < j:
            i += 1
        same = keep * g[i] if i < count and y[i] == j else keep * 0
        dx[p] = same + times * dot(M[j], row)


@jit
def pull(x, y, g, M, v, factors, dx):
    """dx_j = keep g_j + times M_j'v in the places of x; g: in those of y; factors: keep, times. M: (n, width)"""
    for number in numba.prange(len(v)):
        k = np.int64(number)
        pull_row(x[k], y[k], g[k], M, v[k], factors[0], factors[1], dx[k])


@apart
def outer_rows(low, at, value, rows, into, add):
    """ROWS rows of `outer`."""
    samples, last, high = rows.shape[0], at.shape[1] - 1, min(low + ROWS, into.shape[0])
    who, what = np.empty((ROWS, samples), np.int32), np.empty((ROWS, samples), value.dtype)
    count = np.zeros(ROWS, np.int64)  # the samples that have an entry in each of these rows
    for k in range(samples):
        i = first_from(at[k], at[k, last], low)
        while i < at[k, last] and at[k, i] < high:
            r = at[k, i] - low
            who[r, count[r]], what[r, count[r]] = k, value[k, i]
            count[r] += 1
            i += 1
    for r in range(high - low):
        out = into[low + r]
        if not add:
            for j in range(out.size):
                out[j] = 0
        add_rows(who[r], what[r], count[r], rows, out)


@jit
def outer(at, value, rows, into, add):
    """into (+)= sum_b x_b rows_b', x_b the sparse vector of these lists; rows: (B, width), into: (n, width)"""
    for piece in numba.prange((into.shape[0] + ROWS - 1) // ROWS):
        outer_rows(np.int64(piece) * ROWS, at, value, rows, into, add)


@inside
def first_from(places, count, low):
    """The first i with places[i] >= low; places: rising, count of them."""
    i, end = 0, count
    while i < end:
        middle = (i + end) // 2
        if places[middle] < low:
            i = middle + 1
        else:
            end = middle
    return i


@inside
def add_thetas(at, sign, g, theta, clamp, into):
    """dtheta = -sum sign(u) du over the entries that were shrunk; into: (1,) or (n,)."""
    sums = np.zeros(into.size)
    for k in range(g.shape[0]):
        for i in range(at[k, at.shape[1] - 1]):
            sums[at[k, i] if into.size > 1 else 0] -= sign[k, i] * g[k, i]
    for j in range(into.size):
        into[j] = 0 if clamp and theta[j] < 0 else sums[j]


def backward(net, into, steps, b, dy, lowest, db=None):
    """As in dense.py; dy: in the places of the last layer's y."""
    g, seen, shape = dy, set(), (len(b), net.At.shape[0])
    dc = None if net.B is None else np.zeros(shape, b.dtype)
    if db is not None:
        db[...] = 0
    for k in reversed(range(lowest, len(net.layers))):
        layer, step, wanted = net.layers[k], steps[k], into[k]
        if wanted.theta is not None:
            add_thetas(step.y, step.sign, g, layer.theta, net.clamp, wanted.theta)
        below = backend.empty(shape, b.dtype) if k > lowest else None
        through = through_coupled if layer.V is None and layer.W is not None else through_free
        through(net, layer, wanted, step, g, seen, below, db if net.B is None else dc)
        g = below
    if into[-1] is not None:
        np.matmul(dc.T, b, out=into[-1])
    if db is not None and net.B is not None:
        np.matmul(dc, net.B, out=db)


def through_coupled(net, layer, wanted, step, g, seen, below, db):
    """A layer of LISTA-CP or ALISTA: below, if there is one, takes dx in the places of x; db, if wanted, adds its v."""
    one = g.dtype.type(1)
    gain = one if layer.gain is None else layer.gain[0]
    if below is not None or db is not None or wanted.gain is not None:
        v = backend.empty(step.r.shape, g.dtype)
        combine(v[:0], step.y, g, layer.W, v)
        if below is not None:
            pull(step.x, step.y, g, net.At, v, (one, -gain), below)
        if wanted.gain is not None:
            wanted.gain[...] = np.vdot(step.r, v)
        if db is not None:
            db += gain * v
    if wanted.W is not None:
        outer(step.y, g, step.r, wanted.W, id(wanted.W) in seen)
        seen.add(id(wanted.W))


def through_free(net, layer, wanted, step, g, seen, below, dc):
    """A layer of LISTA: dc adds its du."""
    du = backend.empty(dc.shape, g.dtype)
    spread(step.y, g, du)
    dc += du
    if below is not None:
        pull(step.x, step.y, g, layer.V, du, (g.dtype.type(0), g.dtype.type(1)), below)
    if wanted.V is not None:
        outer(step.x, step.inputs, du, wanted.V, id(wanted.V) in seen)
        seen.add(id(wanted.V))
