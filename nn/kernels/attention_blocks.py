"""Attention on a CPU: blocks of QUERIES x KEYS scores in the cache, products out of register blocks.

reference_attention.py has the derivation. A piece of work forward is some blocks of queries against the keys of one row
and key head; backward it is one row and key head, because dk, dv and dq are sums over blocks. K' and V forward, K', V',
K, Q and dO backward are copied into panels once a piece; all other operands are read where they lie. Blocks that nobody
may see into are left out. Relative positions go the way of array code. No result depends on the number of threads.
"""

from npopt import backend

import numba
import numpy as np

from . import reference_attention
from .attention_parts import (
    Settings,
    bounds,
    divide,
    dot,
    dropped,
    exponentials,
    go_on,
    gradient_row,
    limit,
    pack_columns,
    pack_rows,
    product,
)
from .products import inside, jit
from .recurrent_parts import wide_of

QUERIES, KEYS = 64, 128  # of a block
PIECES = 8  # pieces of work forward, at least
NO_ROWS, NO_KEEP = np.empty(0, np.int64), np.empty(0, np.bool_)


@inside
def offsets(left, out, count):
    """The rows of a product: those of its left matrix `left` numbers apart, those of its result `out`."""
    rows = np.empty((2, count), np.int64)
    for i in range(count):
        rows[0, i], rows[1, i] = i * left, i * out
    return rows


@inside
def forward_piece(arrays, there, slopes, row, mine, item, sizes, how):
    """Some blocks of queries of one row b and one key head. arrays: (q, k, v, o, lse)   there: keep of this row"""
    (q, k, v, o, lse), (T, H, D, S, G, pieces, _) = arrays, sizes
    b, g, piece = item // pieces // G, item // pieces % G, item % pieces
    zeros, into, back = np.zeros(wide_of(q), q.dtype), offsets(H * D, KEYS, QUERIES), offsets(KEYS, H * D, QUERIES)
    kt, vp, s = mine[: S * D], mine[S * D : 2 * S * D], mine[2 * S * D :]
    tops, totals = np.empty(QUERIES, q.dtype), np.empty(QUERIES, q.dtype)
    pack_columns(k, (b * S * G + g) * D, G * D, S, D, kt)
    pack_rows(v, (b * S * G + g) * D, G * D, S, D, vp)
    for h in range(g * (H // G), (g + 1) * (H // G)):
        for i0 in range(piece * QUERIES, T, pieces * QUERIES):
            m, at = min(QUERIES, T - i0), ((b * T + i0) * H + h) * D
            for i in range(m):
                tops[i], totals[i] = -np.inf, 0
                o[at + i * H * D : at + i * H * D + D] = 0
            for j0 in range(bounds(i0, S, how)[0] // KEYS * KEYS, bounds(i0 + m - 1, S, how)[1], KEYS):
                n = min(KEYS, S - j0)
                product(q, (at, 1), kt, (j0 * D, D, 0), s, zeros, into, (m, D, n, 0, False))
                for i in range(m):
                    line = s[i * KEYS : i * KEYS + n]
                    limit(line, i0 + i, j0, S, there[j0 : j0 + n], slopes[h], how)
                    go_on(line, o[at + i * H * D : at + i * H * D + D], tops, totals, i)
                    if how.rate > 0:
                        dropped(line, ((row * H + h) * T + i0 + i) * S + j0, how)
                product(s, (0, 1), vp, (0, S, j0), o, o, back, (m, n, D, at, True))
            for i in range(m):
                end = (b * H + h) * T + i0 + i
                lse[end] = divide(o[at + i * H * D : at + i * H * D + D], tops[i], totals[i])


@inside
def backward_piece(arrays, passed, there, slopes, row, mine, item, sizes, how):
    """One row b and one key head. arrays: (q, k, v)   passed: (o, lse, do, dq, dk, dv), the last three zeros"""
    (q, k, v), (o, lse, do, dq, dk, dv), (T, H, D, S, G, _, _) = arrays, passed, sizes
    b, g, block, size = item // G, item % G, QUERIES * KEYS, S * D
    zeros, into, back = np.zeros(wide_of(q), q.dtype), offsets(H * D, KEYS, QUERIES), offsets(KEYS, H * D, QUERIES)
    across, start = offsets(1, G * D, KEYS), (b * S * G + g) * D
    kt, vt, kp, p = mine[:size], mine[size : 2 * size], mine[2 * size : 3 * size], mine[3 * size :]
    dp = p[block:]
    qp, dop, r = p[2 * block :], p[2 * block + T * D :], p[2 * block + 2 * T * D :]
    pack_columns(k, start, G * D, S, D, kt)
    pack_columns(v, start, G * D, S, D, vt)
    pack_rows(k, start, G * D, S, D, kp)
    for h in range(g * (H // G), (g + 1) * (H // G)):
        first = (b * T * H + h) * D
        pack_rows(q, first, H * D, T, D, qp)
        pack_rows(do, first, H * D, T, D, dop)
        for i in range(T):
            at = first + i * H * D
            r[i] = dot(do[at : at + D], o[at : at + D])
        for j0 in range(0, S, KEYS):
            n, key = min(KEYS, S - j0), start + j0 * G * D
            for i0 in range(0, T, QUERIES):
                m, at = min(QUERIES, T - i0), first + i0 * H * D
                if bounds(i0, S, how)[0] >= j0 + n or bounds(i0 + m - 1, S, how)[1] <= j0:
                    continue
                product(q, (at, 1), kt, (j0 * D, D, 0), p, zeros, into, (m, D, n, 0, False))
                product(do, (at, 1), vt, (j0 * D, D, 0), dp, zeros, into, (m, D, n, 0, False))
                for i in range(m):
                    line, up = p[i * KEYS : i * KEYS + n], dp[i * KEYS : i * KEYS + n]
                    limit(line, i0 + i, j0, S, there[j0 : j0 + n], slopes[h], how)
                    exponentials(line, lse[(b * H + h) * T + i0 + i])
                    gradient_row(line, up, r[i0 + i], ((row * H + h) * T + i0 + i) * S + j0, how)
                product(p, (0, KEYS), dop, (0, T, i0), dv, dv, across, (n, m, D, key, True))
                product(dp, (0, KEYS), qp, (0, T, i0), dk, dk, across, (n, m, D, key, True))
                product(dp, (0, 1), kp, (0, S, j0), dq, dq, back, (m, n, D, at, True))


@jit
def _forward(arrays, keep, slopes, rows, scratch, sizes, how):
    """sizes: (T, H, D, S, G, pieces, items)"""
    size, of_row = sizes[3], sizes[6] // rows.size
    for number in numba.prange(sizes[6]):
        item = np.int64(number)
        b = item // of_row
        there = keep[b * size : (b + 1) * size]
        forward_piece(arrays, there, slopes, rows[b], scratch[numba.get_thread_id()], item, sizes, how)


@jit
def _backward(arrays, passed, keep, slopes, rows, scratch, sizes, how):
    size, of_row = sizes[3], sizes[6] // rows.size
    for number in numba.prange(sizes[6]):
        item = np.int64(number)
        b = item // of_row
        there = keep[b * size : (b + 1) * size]
        backward_piece(arrays, passed, there, slopes, rows[b], scratch[numba.get_thread_id()], item, sizes, how)


def plan(q, k, how, pieces):
    """(more, sizes, settings) of a pass."""
    (B, T, H, D), (_, S, G, _) = q.shape, k.shape
    keep = NO_KEEP if how.keep is None else how.keep.reshape(-1)
    slopes = np.zeros(H, q.dtype) if how.slopes is None else how.slopes
    rate, key, rows = how.dropout or (0.0, 0, None)
    rows = np.arange(B) if rows is None else np.asarray(rows, np.int64)
    kind, length, columns = (*how.pattern, 0, 0, 0)[:3] if how.pattern else ("", 1, 0)
    settings = Settings(
        float(how.scale),
        bool(how.causal),
        int(how.window),
        ("", "strided", "fixed").index(kind),
        int(length),
        int(columns),
        int(how.first),
        float(rate),
        np.uint64(key),
    )
    return (keep, slopes, rows), (T, H, D, S, G, pieces, B * G * pieces), settings


def flat(*arrays):
    return [a.reshape(-1) for a in arrays]


def attention(q, k, v, o, lse, how):
    if how.tables is not None:
        reference_attention.attention_in_blocks(q, k, v, o, lse, how)
        return
    (B, T, _, D), (_, S, G, _) = q.shape, k.shape
    pieces = min(-(-T // QUERIES), -(-PIECES // (B * G)))
    scratch = backend.workspace((backend.threads(), 2 * S * D + QUERIES * KEYS), q.dtype)
    more, sizes, settings = plan(q, k, how, pieces)
    _forward(tuple(flat(q, k, v, o, lse)), *more, scratch, sizes, settings)


def attention_backward(q, k, v, o, lse, do, grads, how):
    if how.tables is not None:
        reference_attention.attention_in_blocks_backward(q, k, v, o, lse, do, grads, how)
        return
    (_, T, _, D), S = q.shape, k.shape[1]
    for g in grads[:3]:
        g[...] = 0
    size = 3 * S * D + 2 * T * D + T + 2 * QUERIES * KEYS
    scratch = backend.workspace((backend.threads(), size), q.dtype)
    more, sizes, settings = plan(q, k, how, 1)
    _backward(tuple(flat(q, k, v)), tuple(flat(o, lse, do, *grads[:3])), *more, scratch, sizes, settings)
