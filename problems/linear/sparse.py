"""Compiled steps on CSR rows, for batches of any size and any number of outputs: see problems/linear/steps.py."""

from typing import NamedTuple

from problems.linear.passes import slope
from problems.linear.prefetch import prefetch, prefetch_range
from problems.linear.steps import add_row, finish, inlined, joined, mean_weight, output, settle, square, start

import numpy as np


class State(NamedTuple):
    """cells: (K d, 3), C: (steps + 1,); the intercept and its mean, (K,) each; slopes s and errors e, (size, K)."""

    cells: np.ndarray
    C: np.ndarray
    constant: np.ndarray
    drift: np.ndarray
    s: np.ndarray
    e: np.ndarray


@inlined
def read(loss, data, batches, table, state, t, S, l1, start_loss):
    """The slopes and errors of batch t; returns its loss."""
    values, indices, indptr, d, y = data
    rows, weights, size = batches
    cells, C, constant, _, s, e = state
    K, reduced, total = table.shape[1], table.shape[0] > 0, 0.0
    for b in range(size):
        at = t * size + b
        i = rows[at]
        w = weights[at] if weights.size else 1.0
        if at + 8 < rows.size:
            ahead = rows[at + 8]
            prefetch(indptr, ahead)
            prefetch(y, ahead)
            prefetch(table, ahead * K)
        if at + 4 < rows.size:
            ahead = rows[at + 4]
            prefetch_range(values, indptr[ahead], indptr[ahead + 1], 8)
            prefetch_range(indices, indptr[ahead], indptr[ahead + 1], 16)
        for k in range(K):
            z = output(values, indices, indptr[i], indptr[i + 1], np.uintp(k * d), cells, C, t, l1)
            s[b, k] = S * z + constant[k]
        total += w * (slope(loss, y[i], s[b]) + start_loss)
        for k in range(K):
            e[b, k] = (s[b, k] - table[i, k] if reduced else s[b, k]) * w / size
    return total / size


@joined
def move(data, batches, state, t, d_t, l1, rate):
    """Make the step of the columns of batch t, and of the intercept where its rate is not 0."""
    values, indices, indptr, d, _ = data
    rows, _, size = batches
    cells, C, constant, drift, _, e = state
    K = constant.size
    for k in range(K if rate > 0.0 else 0):
        total = drift[k]
        for b in range(size):
            total += e[b, k]
        constant[k] -= rate * total
    for b in range(size):
        i = rows[t * size + b]
        for k in range(K):
            add_row(values, indices, indptr[i], indptr[i + 1], np.uintp(k * d), cells, 0, -d_t * e[b, k])
    for b in range(size):
        i = rows[t * size + b]
        for k in range(K):
            settle(indices, indptr[i], indptr[i + 1], np.uintp(k * d), cells, C, t, l1)


@joined
def remember(data, batches, table, state, t):
    """SAGA's table and mean after batch t: a row that comes twice in it counts once."""
    values, indices, indptr, d, _ = data
    rows, _, size = batches
    cells, _, _, drift, s, _ = state
    for b in range(size):
        i = rows[t * size + b]
        for k in range(table.shape[1]):
            old = table[i, k]
            table[i, k] = s[b, k]
            shift = (table[i, k] - old) / (indptr.size - 1)  # 0 the second time
            drift[k] += shift
            add_row(values, indices, indptr[i], indptr[i + 1], np.uintp(k * d), cells, 1, shift)


def sparse_stretch(loss, data, x, batches, rule, memory, losses):
    """Make rule.rates.size steps of batches.size rows each. x is written in place, and the memory where it `moves`.

    losses[t] = (1/B) sum_b w_b (l_b + l2/2 |W|^2). Its last term is that of the W at the start, because at each step it
    would cost O(d). The loop ends before a step whose loss is not finite, and leaves the rest of the losses alone.
    Returns the number of steps taken.
    """
    rates, l2, l1, ridge, _ = rule
    table, mean, moves, _ = memory
    size, steps, K = batches.size, rates.size, table.shape[1]
    weighted, reduced = K * data.d, table.shape[0] > 0
    inner = x.size > weighted
    state = State(
        start(x, mean, reduced, weighted),
        np.zeros(steps + 1),
        np.zeros(K),
        np.zeros(K),
        np.empty((size, K)),
        np.empty((size, K)),
    )
    for k in range(K if inner else 0):
        state.constant[k] = x[weighted + k]
        if reduced:
            state.drift[k] = mean[weighted + k]
    C, S, start_loss, taken = state.C, 1.0, 0.5 * l2 * square(x, weighted), 0
    for t in range(steps):
        shrink = 1.0 - rates[t] * (l2 if reduced else l2 * mean_weight(batches.weights, t, size))
        d_t = rates[t] / (S * shrink)
        C[t + 1] = C[t] + d_t
        losses[t] = read(loss, data, batches, table, state, t, S, l1, start_loss)
        if not np.isfinite(losses[t]):
            break
        taken += 1
        move(data, batches, state, t, d_t, l1, rates[t] if inner else 0.0)
        if moves:
            remember(data, batches, table, state, t)
        S *= shrink / (1.0 + rates[t] * ridge)
    finish(state.cells, C, S, taken, l1, x, mean, moves)
    for k in range(K if inner else 0):
        x[weighted + k] = state.constant[k]
        if moves:
            mean[weighted + k] = state.drift[k]
    return taken
