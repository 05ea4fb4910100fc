"""What the compiled stretches of steps share: their named arguments, and the columns that catch up on sparse rows.

One step over B rows, with a table of scalars T (n, K) and a vector m, both absent for SGD:

    s_b = l'(W a_b + c; y_b)            e_b = s_b - T_b
    g   = (1/B) sum_b w_b e_b a_b' + m                                    the data part of the gradient
    W  <- q_t S_{lr_t l1}(r_t W - lr_t g)          c <- c - lr_t g_c      S: the soft threshold; c has no r, q and l1
    SAGA, after that:   m <- m + (1/n) sum_b e_b a_b' over the distinct rows,   T_b <- s_b

r_t = 1 - lr_t l2 is the smooth l2 term (l2 times the batch's mean weight for SGD, where it is part of f_i), q_t =
1 / (1 + lr_t ridge) that of a penalty; both have to be positive. SVRG keeps T and m. With momentum, on dense rows, a
buffer u like x makes the step instead: u <- beta u + g + l2 W, W <- W - lr u; for c without l2.

On CSR rows a step touches the columns of its rows only. Write W = S_t v with S_{t+1} = S_t r_t q_t, S_0 = 1, and
d_t = lr_t / (S_t r_t): every column j then makes the step

    v_j <- S_{d_t l1}(v_j - d_t (data part + m_j))

A column that no row touches between steps a and b has a constant m_j there. It has to catch up later with the steps
v <- S_{d_t l1}(v - d_t m), t = a..b-1. Without l1 that is v - m (C_b - C_a) with C_t = d_0 + ... + d_{t-1}. With l1, v
moves along a line of slope -(m + l1) while it is positive, -(m - l1) while it is negative, and stays at 0 where
|m| <= l1. These are a few phases. Where v meets 0 is found in the table C by bisection. (Lagged updates: Schmidt, Le
Roux & Bach, Math. Prog. 162, 2017; for SAGA Defazio, Bach & Lacoste-Julien, NIPS 2014. The scale is Bottou's.)

v, m and the column's clock lie side by side in memory, in float64 whatever the data: one cache line a non-zero.
"""

from typing import NamedTuple

from problems.loops import OPTIONS

import numba
import numpy as np

SOME = {name: OPTIONS[name] for name in ("error_model", "fastmath")}
inlined = numba.njit(inline="always", **SOME)
joined = numba.njit(forceinline=True, **SOME)  # LLVM puts it into its caller: typed once for all losses


class Sparse(NamedTuple):
    """CSR rows and their labels y: (n,)."""

    values: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    d: int
    y: np.ndarray


class Dense(NamedTuple):
    """Rows X: (n, d), and their labels y: (n,)."""

    X: np.ndarray
    y: np.ndarray


class Batches(NamedTuple):
    """rows: (steps size,) int64, one batch after the other; weights: like rows, or empty for ones."""

    rows: np.ndarray
    weights: np.ndarray
    size: int


class Rule(NamedTuple):
    """rates: (steps,); l2 of the smooth part; l1, ridge of the penalty l1 |w|_1 + ridge/2 |w|^2; beta of momentum."""

    rates: np.ndarray
    l2: float
    l1: float
    ridge: float
    beta: float


class Memory(NamedTuple):
    """table: (n, K), or (0, K) for SGD; mean: like x, or empty. moves: both follow the steps (SAGA), or stay (SVRG).
    buffer: of momentum, like x, or empty."""

    table: np.ndarray
    mean: np.ndarray
    moves: bool
    buffer: np.ndarray


@joined
def soft(v, t):
    return max(v - t, 0.0) - max(-v - t, 0.0)


@joined
def caught_up(v, m, C, a, b, l1):
    """v after the steps a..b-1 of v <- S_{d_t l1}(v - d_t m), with C[t] = d_0 + ... + d_{t-1} and every d_t > 0."""
    if l1 == 0.0:
        return v - m * (C[b] - C[a])
    while a < b:
        if v == 0.0 and abs(m) <= l1:
            return v
        side = 1.0 if v > 0.0 or (v == 0.0 and m < 0.0) else -1.0
        slide = side * m + l1  # |v| changes by -slide (C_b - C_a) on this side
        size = side * v
        if slide <= 0.0 or size > slide * (C[b] - C[a]):
            return v - side * slide * (C[b] - C[a])  # it never meets 0
        low, high = a, b  # the last step before it does: size > slide (C_low - C_a)
        while high - low > 1:
            middle = (low + high) // 2
            if size > slide * (C[middle] - C[a]):
                low = middle
            else:
                high = middle
        v = v - side * slide * (C[low] - C[a])
        d = C[low + 1] - C[low]
        v = soft(v - d * m, d * l1)  # the step that meets 0, and may pass it
        a = low + 1
    return v


@joined
def output(values, indices, first, last, column, cells, C, t, l1):
    """v . a_i at step t over one output's columns; with l1 the columns are caught up and stored on the way."""
    z = 0.0
    if l1 == 0.0:
        for p in range(first, last):
            j = column + np.uintp(indices[p])
            z += values[p] * (cells[j, 0] - cells[j, 1] * (C[t] - cells[j, 2]))
        return z
    for p in range(first, last):
        j = column + np.uintp(indices[p])
        v = caught_up(cells[j, 0], cells[j, 1], C, int(cells[j, 2]), t, l1)
        cells[j, 0], cells[j, 2] = v, t
        z += values[p] * v
    return z


@joined
def mean_weight(weights, t, size):
    """The mean weight of the rows of batch t; empty weights are ones."""
    total = 0.0
    for b in range(size if weights.size else 0):
        total += weights[t * size + b]
    return total / size if weights.size else 1.0


@joined
def square(x, weighted):
    total = 0.0
    for j in range(weighted):
        total += x[j] * x[j]
    return total


@joined
def start(x, mean, reduced, weighted):
    """(weighted, 3): v, m, and the clock, which is C at the last touch (without l1) or the step after it."""
    cells = np.zeros((weighted, 3))
    for j in range(weighted):
        cells[j, 0] = x[j]
        if reduced:
            cells[j, 1] = mean[j]
    return cells


@joined
def finish(cells, C, S, steps, l1, x, mean, moves):
    """Catch every column up with the last step, and write x and, where it moves, the mean."""
    for j in range(cells.shape[0]):
        if l1 == 0.0:
            v = cells[j, 0] - cells[j, 1] * (C[steps] - cells[j, 2])
        else:
            v = caught_up(cells[j, 0], cells[j, 1], C, int(cells[j, 2]), steps, l1)
        x[j] = S * v
        if moves:
            mean[j] = cells[j, 1]


@joined
def settle(indices, first, last, column, cells, C, t, l1):
    """The rest of the step of a batch's columns, each once, after all its rows were subtracted."""
    d_t, then = C[t + 1] - C[t], C[t + 1]
    for p in range(first, last):
        j = column + np.uintp(indices[p])
        if l1 == 0.0:
            cells[j, 0] -= cells[j, 1] * (then - cells[j, 2])
            cells[j, 2] = then
        elif cells[j, 2] == t:
            cells[j, 0] = soft(cells[j, 0] - d_t * cells[j, 1], d_t * l1)
            cells[j, 2] = t + 1


@joined
def add_row(values, indices, first, last, column, cells, place, factor):
    """cells[:, place] += factor a_i"""
    for p in range(first, last):
        cells[column + np.uintp(indices[p]), place] += factor * values[p]
