"""Attention on a CPU: blocks of queries x keys, whose scores stay in the cache, products out of register blocks.

reference_attention.py has the derivation. A piece of work forward is some blocks of queries against the keys of one row
and key head; backward it is one row and key head, because dk, dv and dq are sums over blocks. What a piece reads and
writes again and again is copied, one head's numbers beside one another: those of the other heads between them would
push it out of the caches. K' and V' are in panels. Blocks that nobody may see into are left out. Relative positions go
the way of array code. No result depends on the number of threads.
"""

from math import prod

from npopt import backend
from npopt.backend.once import inside, jit, once

import numba
import numpy as np

from . import reference_attention
from .attention_parts import (
    Settings,
    bounds,
    copy_rows,
    divide,
    dot,
    dropped,
    go_on,
    gradients,
    limit,
    pack_columns,
    product,
)
from .recurrent_parts import wide_of

BLOCK, SHORT = (64, 128), (64, 64)  # queries and keys of a block; of a short sequence under a causal mask
PIECES = 8  # pieces of work forward, at least
NO_KEEP = np.empty(0, np.bool_)


@inside
def offsets(left, out, count):
    """The rows of a product: those of its left matrix `left` numbers apart, those of its result `out`."""
    rows = np.empty((2, count), np.int64)
    for i in range(count):
        rows[0, i], rows[1, i] = i * left, i * out
    return rows


@once
def forward_piece(arrays, there, slopes, row, mine, item, sizes, how):
    """Some blocks of queries of one row b and one key head. arrays: (q, k, v, o, lse)   there: keep of this row"""
    (q, k, v, o, lse), (T, H, D, S, G, pieces, _, queries, keys) = arrays, sizes
    b, g, piece, size = item // pieces // G, item // pieces % G, item % pieces, S * D
    zeros, into, back = np.zeros(wide_of(q), q.dtype), offsets(D, keys, queries), offsets(keys, D, queries)
    kt, vc, flat, mine = mine[:size], mine[size : 2 * size], mine[2 * size :], mine[2 * size + queries * keys :]
    qc, oc = mine[: queries * D], mine[queries * D : 2 * queries * D]
    s, rows = flat[: queries * keys].reshape(queries, keys), oc.reshape(queries, D)
    tops, totals = np.empty(queries, q.dtype), np.empty(queries, q.dtype)
    pack_columns(k, (b * S * G + g) * D, G * D, S, D, kt)
    copy_rows(v, (b * S * G + g) * D, G * D, vc, 0, D, S, D)
    for h in range(g * (H // G), (g + 1) * (H // G)):
        for i0 in range(piece * queries, T, pieces * queries):
            m, at, end = min(queries, T - i0), ((b * T + i0) * H + h) * D, (b * H + h) * T + i0
            copy_rows(q, at, H * D, qc, 0, D, m, D)
            tops[:], totals[:], oc[:] = -np.inf, 0, 0
            for j0 in range(bounds(i0, S, how)[0] // keys * keys, bounds(i0 + m - 1, S, how)[1], keys):
                n = min(keys, S - j0)
                product(qc, (0, 1), kt, (j0 * D, D, 0), flat, zeros, into, (m, D, n, 0, False))
                limit(s, (m, n, i0, j0, S), there[j0 : j0 + n], slopes[h], how)
                go_on(s, (m, n, D), tops, totals, oc, how)
                if how.rate > 0:
                    for i in range(m):
                        dropped(s[i, :n], ((row * H + h) * T + i0 + i) * S + j0, how)
                product(flat, (0, 1), vc, (j0 * D, 1, D), oc, oc, back, (m, n, D, 0, True))
            for i in range(m):
                lse[end + i] = divide(rows, i, q.dtype.type(how.scale) * tops[i], totals[i])
            copy_rows(oc, 0, D, o, at, H * D, m, D)


@once
def backward_piece(arrays, passed, there, slopes, row, mine, item, sizes, how):
    """One row b and one key head. arrays: (q, k, v)   passed: (o, lse, do, dq, dk, dv)"""
    (q, k, v), (o, lse, do, dq, dk, dv), (T, H, D, S, G, _, _, queries, keys) = arrays, passed, sizes
    b, g, block, size, long = item // G, item % G, queries * keys, S * D, T * D
    zeros, into, back = np.zeros(wide_of(q), q.dtype), offsets(D, keys, queries), offsets(keys, D, queries)
    across, start = offsets(1, D, keys), (b * S * G + g) * D
    kt, vt, kc, mine = mine[:size], mine[size : 2 * size], mine[2 * size : 3 * size], mine[3 * size :]
    dkc, dvc, mine = mine[:size], mine[size : 2 * size], mine[2 * size :]
    qc, doc, dqc, mine = mine[:long], mine[long : 2 * long], mine[2 * long : 3 * long], mine[3 * long :]
    p, dp, r = mine[:block], mine[block : 2 * block], mine[2 * block :]
    square, other = p.reshape(queries, keys), dp.reshape(queries, keys)
    pack_columns(k, start, G * D, S, D, kt)
    pack_columns(v, start, G * D, S, D, vt)
    copy_rows(k, start, G * D, kc, 0, D, S, D)
    dkc[:], dvc[:] = 0, 0
    for h in range(g * (H // G), (g + 1) * (H // G)):
        first = (b * T * H + h) * D
        copy_rows(q, first, H * D, qc, 0, D, T, D)
        copy_rows(do, first, H * D, doc, 0, D, T, D)
        copy_rows(o, first, H * D, dqc, 0, D, T, D)
        one, two = doc.reshape(T, D), dqc.reshape(T, D)
        for i in range(T):
            r[i] = dot(one, two, i)
        dqc[:] = 0
        for j0 in range(0, S, keys):
            n, key = min(keys, S - j0), j0 * D
            for i0 in range(0, T, queries):
                m, at = min(queries, T - i0), i0 * D
                if bounds(i0, S, how)[0] >= j0 + n or bounds(i0 + m - 1, S, how)[1] <= j0:
                    continue
                product(qc, (at, 1), kt, (key, D, 0), p, zeros, into, (m, D, n, 0, False))
                product(doc, (at, 1), vt, (key, D, 0), dp, zeros, into, (m, D, n, 0, False))
                limit(square, (m, n, i0, j0, S), there[j0 : j0 + n], slopes[h], how)
                draw = ((row * H + h) * T + i0) * S + j0
                gradients(square, other, (m, n), lse, r, ((b * H + h) * T + i0, i0), (draw, S), how)
                product(p, (0, keys), doc, (at, 1, D), dvc, dvc, across, (n, m, D, key, True))
                product(dp, (0, keys), qc, (at, 1, D), dkc, dkc, across, (n, m, D, key, True))
                product(dp, (0, 1), kc, (key, 1, D), dqc, dqc, back, (m, n, D, at, True))
        copy_rows(dqc, 0, D, dq, first, H * D, T, D)
    copy_rows(dkc, 0, D, dk, start, G * D, S, D)
    copy_rows(dvc, 0, D, dv, start, G * D, S, D)


@jit
def _forward(arrays, keep, slopes, rows, scratch, sizes, how):
    """sizes: (T, H, D, S, G, pieces, items, queries, keys)"""
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


def plan(q, k, how, pieces, block):
    """((keep, slopes, rows), sizes, settings) of a pass."""
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
    return (keep, slopes, rows), (T, H, D, S, G, pieces, B * G * pieces, *block), settings


def flat(*arrays):
    return [a.reshape(-1) for a in arrays]


def block_of(k, how):
    """Queries and keys of a block: smaller ones waste less of a small triangle."""
    return SHORT if how.causal and k.shape[1] <= 4 * BLOCK[1] else BLOCK


def attention(q, k, v, o, lse, how):
    if how.tables is not None:
        reference_attention.attention_in_blocks(q, k, v, o, lse, how)
        return
    (B, T, _, D), (_, S, G, _), block = q.shape, k.shape, block_of(k, how)
    pieces = min(-(-T // block[0]), -(-PIECES // (B * G)))
    scratch = backend.workspace((backend.threads(), 2 * S * D + prod(block) + 2 * block[0] * D), q.dtype)
    more, sizes, settings = plan(q, k, how, pieces, block)
    _forward(tuple(flat(q, k, v, o, lse)), *more, scratch, sizes, settings)


def attention_backward(q, k, v, o, lse, do, grads, how):
    if how.tables is not None:
        reference_attention.attention_in_blocks_backward(q, k, v, o, lse, do, grads, how)
        return
    (_, T, _, D), S, block = q.shape, k.shape[1], block_of(k, how)
    scratch = backend.workspace((backend.threads(), 5 * S * D + 3 * T * D + T + 2 * prod(block)), q.dtype)
    more, sizes, settings = plan(q, k, how, 1, block)
    _backward(tuple(flat(q, k, v)), tuple(flat(o, lse, do, *grads[:3])), *more, scratch, sizes, settings)
