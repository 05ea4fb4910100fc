"""LSTM and GRU on a CPU: the recurrent product of a time step and its gates in one parallel loop over blocks of units.

U is laid out in panels once a pass: PANEL columns of its transposition for each gate of a block forward, of U itself
backward. A piece of work is a block of units: the products of its gates, then, while they are in the cache, everything
else for these units. Those of the LSTM are emitted in vectors (cells.py), those of the GRU loops of one output each,
which compilers make vectors of. No result depends on the number of threads.
"""

from npopt import backend
from npopt.backend.once import inside, jit, once

import numba
import numpy as np

from .cells import lstm_cell, lstm_cell_backward
from .functions import tanh
from .recurrent_parts import (
    add,
    backward_product,
    flat,
    forward_product,
    logistic_in_place,
    offsets,
    packed,
    start,
    wide_of,
)


@once
def lstm_block(block, t, a, panels, mask, states, seen, rows, shape):
    """A block of units at one time. states: (c0, y, c)"""
    (batch, times, n), (c0, y, c), wide = shape, states, wide_of(a)
    now, after, first = (t % 2) * batch * n, (1 - t % 2) * batch * n, block * wide
    count = min(wide, n - first)
    for gate in range(4):
        forward_product(seen, panels, a, a, rows, (now, (t * 4 + gate) * n + first, -1), (block, gate, count, n, 4))
    for b in range(batch):
        place, unit = (b * times + t) * n + first, b * n + first
        at = (b * times + t) * 4 * n + first
        if t:
            lstm_cell(a, c, c, y, seen, mask, (at, n, place, place - n, unit, after + unit, count))
        else:
            lstm_cell(a, c, c0, y, seen, mask, (at, n, place, unit, unit, after + unit, count))


@jit
def _lstm(a, panels, mask, c0, y, c, seen, shape):
    batch, times, n = shape
    rows = offsets(batch, n, times * 4 * n)
    for t in range(times):
        for block in numba.prange((n + wide_of(a) - 1) // wide_of(a)):
            lstm_block(np.int64(block), t, a, panels, mask, (c0, y, c), seen, rows, shape)


@once
def lstm_block_backward(block, t, values, panels, passed, zeros, rows, shape):
    """values: (gates, c, c0, mask)   passed: (dy, da, dh, dc)"""
    (batch, times, n), (gates, c, c0, mask), (dy, da, dh, dc) = shape, values, passed
    first = block * wide_of(da)
    count = min(wide_of(da), n - first)
    if t < times - 1:
        backward_product(da, panels, dh, zeros, rows, ((t + 1) * 4 * n, first), (block, count, n, 4))
    for b in range(batch):
        place, unit = (b * times + t) * n + first, b * n + first
        dht, k = dh[unit : unit + count], mask[unit : unit + count]
        if t < times - 1:
            for j in range(count):
                dht[j] *= k[j]
        at = (b * times + t) * 4 * n + first
        if t > 0:
            lstm_cell_backward(gates, c, c, dy, dh, dc, da, (at, n, place, place - n, unit, count))
        elif t == 0:
            lstm_cell_backward(gates, c, c0, dy, dh, dc, da, (at, n, place, unit, unit, count))


@jit
def _lstm_backward(gates, c, c0, panels, mask, dy, da, state, shape):
    """state: (dh, dc), each (B H,)"""
    batch, times, n = shape
    wide, zeros = wide_of(da), np.zeros(wide_of(da), da.dtype)
    rows, values, passed = offsets(batch, times * 4 * n, n), (gates, c, c0, mask), (dy, da, state[0], state[1])
    for t in range(times - 1, -2, -1):  # the last turn: what flows to h_0
        for block in numba.prange((n + wide - 1) // wide):
            lstm_block_backward(np.int64(block), t, values, panels, passed, zeros, rows, shape)


def lstm(a, u, mask, h0, c0, y, c):
    seen, mask = start(h0, mask)
    _lstm(*flat(a, packed(u), mask, c0, y, c, seen), y.shape)


def lstm_backward(gates, c, c0, u, mask, dy, da, dh, dc):
    mask = np.ones(dh.shape, dh.dtype) if mask is None else mask
    _lstm_backward(*flat(gates, c, c0, packed(u, True), mask, dy, da), tuple(flat(dh, dc)), c.shape)


@inside
def gru_cell(gates, q, before, h):
    """Values of the gates (r, z, n) and h for some units of one row; q as the reference says."""
    r, z, n = gates
    one = h.dtype.type(1)
    logistic_in_place(r)
    logistic_in_place(z)
    for j in range(h.size):
        n[j] = tanh(n[j] + r[j] * q[j])
    for j in range(h.size):
        h[j] = (one - z[j]) * n[j] + z[j] * before[j]


@inside
def three(a, at, n, count):
    """The parts of three gates, n apart."""
    return a[at : at + count], a[at + n : at + n + count], a[at + 2 * n :][:count]


@once
def gru_block(block, t, values, panels, bias, mask, seen, rows, shape):
    """values: (a, h0, y, q)   rows: of a and of q"""
    (batch, times, n), (a, h0, y, q) = shape, values
    now, after, first = (t % 2) * batch * n, (1 - t % 2) * batch * n, block * wide_of(a)
    count = min(wide_of(a), n - first)
    for gate in range(2):
        at = now, (t * 3 + gate) * n + first, -1
        forward_product(seen, panels, a, a, rows[0], at, (block, gate, count, n, 3))
    forward_product(seen, panels, q, bias, rows[1], (now, t * n + first, first), (block, 2, count, n, 3))
    for b in range(batch):
        place, unit = (b * times + t) * n + first, b * n + first
        before = y[place - n : place - n + count] if t else h0[unit : unit + count]
        h = y[place : place + count]
        gru_cell(three(a, (b * times + t) * 3 * n + first, n, count), q[place : place + count], before, h)
        to, k = seen[after + unit : after + unit + count], mask[unit : unit + count]
        for j in range(count):
            to[j] = k[j] * h[j]


@jit
def _gru(a, panels, bias, mask, h0, y, q, seen, shape):
    batch, times, n = shape
    rows, values = (offsets(batch, n, times * 3 * n), offsets(batch, n, times * n)), (a, h0, y, q)
    for t in range(times):
        for block in numba.prange((n + wide_of(a) - 1) // wide_of(a)):
            gru_block(np.int64(block), t, values, panels, bias, mask, seen, rows, shape)


@inside
def gru_cell_backward(gates, q, before, dh, da, db):
    """Gradients da and db of what the gates are functions of, from dh; dh becomes what goes straight to h_(t-1)."""
    (r, z, n), (ar, az, an), (br, bz, bn) = gates, da, db
    one = dh.dtype.type(1)
    for j in range(q.size):
        an[j] = dh[j] * (one - z[j]) * (one - n[j] * n[j])
    for j in range(q.size):
        az[j] = dh[j] * (before[j] - n[j]) * z[j] * (one - z[j])
    for j in range(q.size):
        ar[j] = an[j] * q[j] * r[j] * (one - r[j])
    for j in range(q.size):
        bn[j] = an[j] * r[j]
    for j in range(q.size):
        bz[j] = az[j]
    for j in range(q.size):
        br[j] = ar[j]
    for j in range(q.size):
        dh[j] *= z[j]


@once
def gru_block_backward(block, t, values, panels, mask, passed, zeros, rows, shape):
    """values: (gates, q, before)   passed: (dy, da, db, dh, what comes through z)"""
    (batch, times, n), (gates, q, before), (dy, da, db, dh, straight) = shape, values, passed
    first = block * wide_of(da)
    count = min(wide_of(da), n - first)
    if t < times - 1:
        backward_product(db, panels, dh, zeros, rows, ((t + 1) * 3 * n, first), (block, count, n, 3))
    for b in range(batch):
        place, unit, at = (b * times + t) * n + first, b * n + first, (b * times + t) * 3 * n + first
        dht, k, other = dh[unit : unit + count], mask[unit : unit + count], straight[unit : unit + count]
        if t < times - 1:
            for j in range(count):
                dht[j] = dht[j] * k[j] + other[j]
        if t >= 0:
            add(dht, dy[place : place + count])
            last, mine = before[place : place + count], q[place : place + count]
            d, e = three(da, at, n, count), three(db, at, n, count)
            gru_cell_backward(three(gates, at, n, count), mine, last, dht, d, e)
            for j in range(count):
                other[j] = dht[j]


@jit
def _gru_backward(gates, q, before, panels, mask, dy, da, db, shape):
    """shape: (B, T, H, dh, what comes through z), the last two (B H,)"""
    batch, times, n, dh, straight = shape
    wide, zeros = wide_of(da), np.zeros(wide_of(da), da.dtype)
    rows, values, passed = offsets(batch, times * 3 * n, n), (gates, q, before), (dy, da, db, dh, straight)
    for t in range(times - 1, -2, -1):  # the last turn: what flows to h_0
        for block in numba.prange((n + wide - 1) // wide):
            gru_block_backward(np.int64(block), t, values, panels, mask, passed, zeros, rows, (batch, times, n))


def gru(a, u, bias, mask, h0, y, q):
    seen, mask = start(h0, mask)
    _gru(*flat(a, packed(u), bias, mask, h0, y, q, seen), y.shape)


def gru_backward(gates, q, before, u, mask, dy, da, db, dh):
    mask = np.ones(dh.shape, dh.dtype) if mask is None else mask
    more = flat(dh, backend.workspace(dh.shape, dh.dtype))
    _gru_backward(*flat(gates, q, before, packed(u, True), mask, dy, da, db), (*q.shape, *more))
