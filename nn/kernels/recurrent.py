"""LSTM and GRU on a CPU: the recurrent product of a time step and its gates in one parallel loop over blocks of units.

U is laid out in panels once a pass: PANEL columns of its transposition for each gate of a block forward, of U itself
backward. A piece of work is a block of units: the products of its gates, then everything else for these units, in a
small array of its own thread whose rows have lines of `wide_of` numbers: loops of a constant length make vectors. tanh
in float32 is a quotient of polynomials. No result depends on the number of threads.
"""

import math

from npopt import backend

import numba
import numpy as np
from numba.core import types
from numba.extending import overload
from numba.np.numpy_support import as_dtype

from .blocks import Product
from .products import inside, jit, multiply, multiply_apart, panel

# x P(x^2) / Q(x^2), the fit of tanh on |x| < 8.9 with the least largest relative error that a weighted least squares
# iteration found, 1.9e-8; in float32 arithmetic 4e-7. tanh(8.9) is 1 - 4e-8.
P = (9.99999982e-01, 1.33875344e-01, 3.50332827e-03, 2.07370316e-05, 1.35335433e-08)
Q = (1.0, 4.67208517e-01, 2.59064013e-02, 3.29831525e-04, 7.84940499e-07)
END = 8.9


def wide_of(a):
    """Columns of a panel of numbers like a's, a constant of the compiled code."""
    return panel(a.dtype)


def tanh(x):
    """tanh of one number; in float32 by the quotient above."""
    return np.tanh(x)


@overload(wide_of, inline="always")
def compiled_wide_of(a):
    wide = panel(as_dtype(a.dtype))
    return lambda a: wide


@overload(tanh)
def compiled_tanh(x):
    if x != types.float32:
        return lambda x: math.tanh(x)
    p0, p1, p2, p3, p4, q0, q1, q2, q3, q4, end = map(np.float32, (*P, *Q, END))
    one = np.float32(1)

    def quotient(x):
        x = min(max(x, -end), end)
        s = x * x
        y = x * (p0 + s * (p1 + s * (p2 + s * (p3 + s * p4)))) / (q0 + s * (q1 + s * (q2 + s * (q3 + s * q4))))
        return min(max(y, -one), one)

    return quotient


@inside
def logistic_in_place(x):
    half = x.dtype.type(0.5)
    for j in range(x.size):
        x[j] = half + half * tanh(half * x[j])


@inside
def tanh_in_place(x):
    for j in range(x.size):
        x[j] = tanh(x[j])


@jit
def pack(u, gates, panels):
    """The transposition of U, (gates H, H), for a block of units after the other: for each gate H rows of `wide`
    columns. The last block's columns are filled up with zeros."""
    n, wide = u.shape[1], wide_of(u)
    for block in numba.prange((n + wide - 1) // wide):
        first = np.int64(block) * wide
        count = min(wide, n - first)
        for gate in range(gates):
            to = panels[block, gate]
            to[:, count:] = 0
            for j in range(count):
                row = u[gate * n + first + j]
                for k in range(n):
                    to[k, j] = row[k]


@jit
def pack_back(u, panels):
    """U itself, all its rows, for a block of columns after the other."""
    n, wide = u.shape[1], wide_of(u)
    for block in numba.prange((n + wide - 1) // wide):
        first = np.int64(block) * wide
        count = min(wide, n - first)
        to = panels[block]
        to[:, count:] = 0
        for k in range(u.shape[0]):
            for j in range(count):
                to[k, j] = u[k, first + j]


@inside
def forward_products(seen, panels, out, rows, at, sizes):
    """out[out_at + rows[1, b] + gate n + j] += sum_k seen[left_at + b n + k] U[gate, first + j, k] for j < count."""
    (left_at, out_at), (block, count, n, gates) = at, sizes
    wide = wide_of(out)
    for gate in range(gates):
        plan = Product(
            left_at=left_at,
            left_jump=0,
            left_step=1,
            right_at=(block * gates + gate) * n * wide,
            right_step=wide,
            out_at=out_at + gate * n,
            start_at=out_at + gate * n,
            start_like_out=True,
            n=count,
            times=1,
            run=n,
        )
        multiply(seen, panels, out, out, rows, 0, rows.shape[1], plan, wide // 2)


@inside
def backward_product(da, panels, out, rows, at, sizes):
    """out[first + b n + j] = sum_k da[left_at + rows[0, b] + k] U[k, first + j], the sums over a gate's units by
    themselves."""
    (left_at, first), (block, count, n, gates) = at, sizes
    wide = wide_of(out)
    start = np.zeros(wide, out.dtype)
    plan = Product(
        left_at=left_at,
        left_jump=n,
        left_step=1,
        right_at=block * gates * n * wide,
        right_step=wide,
        out_at=first,
        start_at=0,
        start_like_out=False,
        n=count,
        times=gates,
        run=n,
    )
    multiply_apart(da, panels, out, start, rows, 0, rows.shape[1], plan, wide // 2)


@inside
def offsets(batch, left, out):
    """The rows of a batch in the left matrix of a product and in its result."""
    rows = np.empty((2, batch), np.int64)
    for b in range(batch):
        rows[0, b], rows[1, b] = b * left, b * out
    return rows


@inside
def lstm_cell(gates, before, c, h):
    """Values of the gates (i, f, g, o), c and h for some units of one row."""
    i, f, g, o = gates
    logistic_in_place(i)
    logistic_in_place(f)
    tanh_in_place(g)
    logistic_in_place(o)
    for j in range(c.size):
        c[j] = f[j] * before[j] + i[j] * g[j]
    for j in range(c.size):
        h[j] = o[j] * tanh(c[j])


@jit
def _lstm(a, panels, mask, c0, y, c, seen, shape):
    batch, times, n = shape
    wide = wide_of(a)
    blocks, rows = (n + wide - 1) // wide, offsets(batch, n, times * 4 * n)
    for t in range(times):
        now, after = (t % 2) * batch * n, (1 - t % 2) * batch * n
        for number in numba.prange(blocks):
            block = np.int64(number)
            first = block * wide
            count = min(wide, n - first)
            forward_products(seen, panels, a, rows, (now, t * 4 * n + first), (block, count, n, 4))
            for b in range(batch):
                place, unit = (b * times + t) * n + first, b * n + first
                gates = four(a, (b * times + t) * 4 * n + first, n, count)
                before = c[place - n : place - n + count] if t else c0[unit : unit + count]
                h = y[place : place + count]
                lstm_cell(gates, before, c[place : place + count], h)
                to, k = seen[after + unit : after + unit + count], mask[unit : unit + count]
                for j in range(count):
                    to[j] = k[j] * h[j]


@inside
def four(a, at, n, count):
    """The parts of four gates, n apart."""
    return a[at : at + count], a[at + n : at + n + count], a[at + 2 * n :][:count], a[at + 3 * n :][:count]


@inside
def lstm_cell_backward(gates, c, before, dh, dc, d, w):
    """Gradients d of what the gates are functions of, and dc of the time before, from dh and dc. w: for tanh c."""
    (i, f, g, o), (di, df, dg, do) = gates, d
    one = c.dtype.type(1)
    for j in range(c.size):
        w[j] = tanh(c[j])
    for j in range(c.size):
        do[j] = dh[j] * w[j] * o[j] * (one - o[j])
    for j in range(c.size):
        dc[j] += dh[j] * o[j] * (one - w[j] * w[j])
    for j in range(c.size):
        di[j] = dc[j] * g[j] * i[j] * (one - i[j])
    for j in range(c.size):
        df[j] = dc[j] * before[j] * f[j] * (one - f[j])
    for j in range(c.size):
        dg[j] = dc[j] * i[j] * (one - g[j] * g[j])
    for j in range(c.size):
        dc[j] *= f[j]


@jit
def _lstm_backward(gates, c, c0, panels, mask, dy, da, state, shape):
    """state: (dh, dc), each (B H,)"""
    batch, times, n = shape
    dh, dc = state
    wide = wide_of(da)
    blocks, rows = (n + wide - 1) // wide, offsets(batch, times * 4 * n, n)
    for t in range(times - 1, -2, -1):  # the last turn: what flows to h_0
        for number in numba.prange(blocks):
            block = np.int64(number)
            first = block * wide
            count, w = min(wide, n - first), np.empty(wide, da.dtype)
            if t < times - 1:
                backward_product(da, panels, dh, rows, ((t + 1) * 4 * n, first), (block, count, n, 4))
            for b in range(batch):
                place, unit = (b * times + t) * n + first, b * n + first
                dht, k = dh[unit : unit + count], mask[unit : unit + count]
                if t < times - 1:
                    for j in range(count):
                        dht[j] *= k[j]
                if t >= 0:
                    add(dht, dy[place : place + count])
                    at = (b * times + t) * 4 * n + first
                    before = c[place - n : place - n + count] if t else c0[unit : unit + count]
                    some, d = four(gates, at, n, count), four(da, at, n, count)
                    lstm_cell_backward(some, c[place : place + count], before, dht, dc[unit : unit + count], d, w)


@inside
def add(x, more):
    for j in range(x.size):
        x[j] += more[j]


def packed(u, back=False):
    """U in panels."""
    n, wide = u.shape[1], panel(u.dtype)
    blocks, gates = -(-n // wide), u.shape[0] // n
    panels = backend.workspace((blocks, gates, n, wide), u.dtype)
    if back:
        pack_back(u, panels.reshape(blocks, gates * n, wide))
    else:
        pack(u, gates, panels)
    return panels


def start(h0, mask):
    """What the recurrent product sees at time 0, with room for another time; and the mask, or ones."""
    seen = backend.workspace((2, *h0.shape), h0.dtype)
    mask = np.ones(h0.shape, h0.dtype) if mask is None else mask
    np.multiply(h0, mask, out=seen[0])
    return seen, mask


def flat(*arrays):
    return [a.reshape(-1) for a in arrays]


def lstm(a, u, mask, h0, c0, y, c):
    seen, mask = start(h0, mask)
    _lstm(*flat(a, packed(u), mask, c0, y, c, seen), y.shape)


def lstm_backward(gates, c, c0, u, mask, dy, da, dh, dc):
    mask = np.ones(dh.shape, dh.dtype) if mask is None else mask
    _lstm_backward(*flat(gates, c, c0, packed(u, True), mask, dy, da), tuple(flat(dh, dc)), c.shape)


gru = gru_backward = None
