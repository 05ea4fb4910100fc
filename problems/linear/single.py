"""Compiled steps of one row and one output on CSR rows: the steps of sparse.py without its loops over B and K.

They are twice as fast.
"""

from problems.linear.passes import slope_of_one
from problems.linear.prefetch import prefetch, prefetch_range
from problems.linear.steps import finish, joined, output, soft, square, start

import numpy as np


@joined
def move(values, indices, span, cells, clock, l1, change, shift):
    """Make the step of the row's columns: v moves by -change a and by the parts of m and l1; then m += shift a."""
    (first, last), (t, d_t, then) = span, clock
    if l1 == 0.0:
        for p in range(first, last):
            j = np.uintp(indices[p])
            m = cells[j, 1]
            cells[j, 0] = cells[j, 0] - change * values[p] - m * (then - cells[j, 2])
            cells[j, 1] = m + shift * values[p]
            cells[j, 2] = then
    else:
        for p in range(first, last):
            j = np.uintp(indices[p])
            m = cells[j, 1]
            cells[j, 0] = soft(cells[j, 0] - change * values[p] - d_t * m, d_t * l1)
            cells[j, 1] = m + shift * values[p]
            cells[j, 2] = t + 1


def single_stretch(loss, data, x, batches, rule, memory, losses):
    """As sparse_stretch, for K = B = 1."""
    values, indices, indptr, d, y = data
    rows, weights, _ = batches
    rates, l2, l1, ridge, _ = rule
    table, mean, moves, _ = memory
    steps, share = rates.size, 1.0 / (indptr.size - 1)
    reduced, inner = table.shape[0] > 0, x.size > d
    cells, C, S = start(x, mean, reduced, d), np.zeros(steps + 1), 1.0
    start_loss, taken = 0.5 * l2 * square(x, d), 0
    constant, drift = x[d] if inner else 0.0, mean[d] if inner and reduced else 0.0
    for t in range(steps):
        i = rows[t]
        if t + 8 < steps:
            ahead = rows[t + 8]
            prefetch(indptr, ahead)
            prefetch(y, ahead)
            prefetch(table, ahead)
        if t + 4 < steps:
            ahead = rows[t + 4]
            prefetch_range(values, indptr[ahead], indptr[ahead + 1], 8)
            prefetch_range(indices, indptr[ahead], indptr[ahead + 1], 16)
        w = weights[t] if weights.size else 1.0
        shrink = 1.0 - rates[t] * (l2 if reduced else l2 * w)
        d_t = rates[t] / (S * shrink)
        C[t + 1] = then = C[t] + d_t
        first, last = indptr[i], indptr[i + 1]
        z = output(values, indices, first, last, np.uintp(0), cells, C, t, l1)
        value, s = slope_of_one(loss, y[i], S * z + constant)
        losses[t] = w * (value + start_loss)
        if not np.isfinite(losses[t]):  # diverged: x stays as it is
            break
        taken += 1
        e, shift = w * s, 0.0
        if reduced:
            old = table[i, 0]
            e = w * (s - old)
            if moves:
                table[i, 0] = s
                shift = (table[i, 0] - old) * share
        if inner:
            constant -= rates[t] * (e + drift)
            drift += shift
        move(values, indices, (first, last), cells, (t, d_t, then), l1, d_t * e, shift)
        S *= shrink / (1.0 + rates[t] * ridge)
    finish(cells, C, S, taken, l1, x, mean, moves)
    if inner:
        x[d] = constant
        if moves:
            mean[d] = drift
    return taken
