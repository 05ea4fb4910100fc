"""Compiled steps on dense rows, where every step touches every column: see problems/linear/steps.py."""

from problems.linear.passes import slope
from problems.linear.steps import inlined, mean_weight, soft, square

import numpy as np


@inlined
def estimate(loss, data, x, batches, memory, t, s, g, start_loss):
    """The slopes s and the gradient estimate g of batch t, without l2 terms; returns its loss."""
    X, y = data
    rows, weights, size = batches
    table, mean = memory.table, memory.mean
    d, K, total = X.shape[1], s.shape[1], 0.0
    weighted, reduced = K * d, table.shape[0] > 0
    inner = x.size > weighted
    for j in range(x.size):
        g[j] = mean[j] if reduced else 0.0
    for b in range(size):
        i = rows[t * size + b]
        w = weights[t * size + b] if weights.size else 1.0
        for k in range(K):
            z = x[weighted + k] if inner else 0.0
            for j in range(d):
                z += X[i, j] * x[k * d + j]
            s[b, k] = z
        total += w * (slope(loss, y[i], s[b]) + start_loss)
        for k in range(K):
            e = (s[b, k] - table[i, k] if reduced else s[b, k]) * w / size
            for j in range(d):
                g[k * d + j] += e * X[i, j]
            if inner:
                g[weighted + k] += e
    return total / size


@inlined
def remember(X, batches, memory, t, s):
    """SAGA's table and mean after batch t: a row that comes twice in it counts once."""
    n, d = X.shape
    rows, _, size = batches
    table, mean = memory.table, memory.mean
    weighted = s.shape[1] * d
    for b in range(size):
        i = rows[t * size + b]
        for k in range(s.shape[1]):
            old = table[i, k]
            table[i, k] = s[b, k]
            shift = (table[i, k] - old) / n
            for j in range(d):
                mean[k * d + j] += shift * X[i, j]
            if mean.size > weighted:
                mean[weighted + k] += shift


@inlined
def heavy(x, g, buffer, rate, beta, decay, weighted):
    """The step with momentum beta."""
    for j in range(x.size):
        buffer[j] = beta * buffer[j] + (g[j] + decay * x[j] if j < weighted else g[j])
        x[j] -= rate * buffer[j]


def dense_stretch(loss, data, x, batches, rule, memory, losses):
    """As sparse_stretch, but here the l2 term of the losses is exact."""
    rates, l2, l1, ridge, _ = rule
    size, K = batches.size, memory.table.shape[1]
    weighted, reduced, taken = K * data.X.shape[1], memory.table.shape[0] > 0, 0
    s, g = np.empty((size, K)), np.zeros(x.size)
    for t in range(rates.size):
        rate, start_loss = rates[t], 0.5 * l2 * square(x, weighted)
        decay = l2 if reduced else l2 * mean_weight(batches.weights, t, size)
        shrink = 1.0 - rate * decay
        grow = 1.0 / (1.0 + rate * ridge)
        losses[t] = estimate(loss, data, x, batches, memory, t, s, g, start_loss)
        if not np.isfinite(losses[t]):
            break
        taken += 1
        if memory.buffer.size:
            heavy(x, g, memory.buffer, rate, rule.beta, decay, weighted)
        elif l1 == 0.0:
            for j in range(weighted):
                x[j] = grow * (shrink * x[j] - rate * g[j])
        else:
            for j in range(weighted):
                x[j] = grow * soft(shrink * x[j] - rate * g[j], rate * l1)
        for j in range(weighted, 0 if memory.buffer.size else x.size):
            x[j] -= rate * g[j]
        if memory.moves:
            remember(data.X, batches, memory, t, s)
    return taken
