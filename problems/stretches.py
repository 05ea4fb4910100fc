"""Compiled stretches of steps on a linear model: SGD, SVRG and SAGA, the sparse ones with just-in-time updates.

One step over B rows, with a table of scalars T (n, K) and a vector m, both absent for SGD:

    s_b = l'(W a_b + c; y_b)            e_b = s_b - T_b
    g   = (1/B) sum_b w_b e_b a_b' + m                                    the data part of the gradient
    W  <- q_t S_{lr_t l1}(r_t W - lr_t g)          c <- c - lr_t g_c      S: the soft threshold; c has no r, q and l1
    SAGA, after that:   m <- m + (1/n) sum_b e_b a_b' over the distinct rows,   T_b <- s_b

r_t = 1 - lr_t l2 is the smooth l2 term (l2 times the batch's mean weight for SGD, where it is part of f_i), q_t =
1 / (1 + lr_t ridge) that of a penalty; both have to be positive. SVRG keeps T and m.

On CSR rows a step touches the columns of its rows only. Write W = S_t v with S_{t+1} = S_t r_t q_t, S_0 = 1, and
d_t = lr_t / (S_t r_t): every column j then makes the step

    v_j <- S_{d_t l1}(v_j - d_t (data part + m_j))

so that a column untouched between steps a and b, whose m_j is constant there, has to catch up with the steps
v <- S_{d_t l1}(v - d_t m), t = a..b-1. Without l1 that is v - m (C_b - C_a) with C_t = d_0 + ... + d_{t-1}. With l1, v
moves along a line of slope -(m + l1) while it is positive, -(m - l1) while it is negative, and stays at 0 where
|m| <= l1: a few phases, and where it meets 0 is found in the table C by bisection. (Lagged updates: Schmidt, Le Roux &
Bach, Math. Prog. 162, 2017; for SAGA Defazio, Bach & Lacoste-Julien, NIPS 2014. The scale is Bottou's.)

v, m and the column's clock lie side by side in memory, in float64 whatever the data: one cache line a non-zero. The
rows to come are known, so their data are fetched some steps ahead: on a9a and w8a that takes half of the time away.
"""

from problems.loops import OPTIONS, compiled, slope, slope_of_one

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic, overload

inlined = numba.njit(inline="always", **{name: OPTIONS[name] for name in ("error_model", "fastmath")})


def prefetch(array, i):
    """Ask for array[i] to be brought near, and go on. Any i is allowed. Without the compiler it does nothing."""


@intrinsic
def _prefetch(typing, array, i):
    def generate(context, builder, signature, arguments):
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, int32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [byte, int32, int32, int32])
        address = builder.bitcast(builder.gep(held.data, [arguments[1]]), byte)
        wish = [ir.Constant(int32, value) for value in (0, 3, 1)]            # to read; keep near; data
        builder.call(builder.module.declare_intrinsic("llvm.prefetch", [byte], shape), [address, *wish])
        return context.get_dummy_value()

    return numba.void(array, i), generate


@overload(prefetch)
def _(array, i):
    return lambda array, i: _prefetch(array, i)


@inlined
def fetch_ahead(rows, at, data, indices, indptr, y, table):
    """Bring near what row number rows[at + 4] needs, and where that of rows[at + 8] lies."""
    if at + 8 < rows.size:
        i = rows[at + 8]
        prefetch(indptr, i)
        prefetch(y, i)
        prefetch(table, i * table.shape[1])
    if at + 4 < rows.size:
        i = rows[at + 4]
        for p in range(indptr[i], indptr[i + 1], 8):
            prefetch(data, p)
        for p in range(indptr[i], indptr[i + 1], 16):
            prefetch(indices, p)


@inlined
def soft(v, t):
    return max(v - t, 0.0) - max(-v - t, 0.0)


@inlined
def caught_up(v, m, C, a, b, l1):
    """v after the steps a..b-1 of v <- S_{d_t l1}(v - d_t m), with C[t] = d_0 + ... + d_{t-1} and every d_t > 0."""
    if l1 == 0.0:
        return v - m * (C[b] - C[a])
    while a < b:
        if v == 0.0 and abs(m) <= l1:
            return v
        side = 1.0 if v > 0.0 or (v == 0.0 and m < 0.0) else -1.0
        slide = side * m + l1                               # |v| changes by -slide (C_b - C_a) on this side
        size = side * v
        if slide <= 0.0 or size > slide * (C[b] - C[a]):
            return v - side * slide * (C[b] - C[a])         # it never meets 0
        low, high = a, b                                    # the last step before it does: size > slide (C_low - C_a)
        while high - low > 1:
            middle = (low + high) // 2
            if size > slide * (C[middle] - C[a]):
                low = middle
            else:
                high = middle
        v = v - side * slide * (C[low] - C[a])
        d = C[low + 1] - C[low]
        v = soft(v - d * m, d * l1)                         # the step that meets 0, and may pass it
        a = low + 1
    return v


@inlined
def output(data, indices, first, last, column, cells, C, t, l1):
    """v . a_i at step t over one output's columns; with l1 the columns are caught up and stored on the way."""
    z = 0.0
    if l1 == 0.0:
        for p in range(first, last):
            j = column + np.uintp(indices[p])
            z += data[p] * (cells[j, 0] - cells[j, 1] * (C[t] - cells[j, 2]))
        return z
    for p in range(first, last):
        j = column + np.uintp(indices[p])
        v = caught_up(cells[j, 0], cells[j, 1], C, int(cells[j, 2]), t, l1)
        cells[j, 0], cells[j, 2] = v, t
        z += data[p] * v
    return z


@inlined
def mean_weight(weights, t, size):
    """Of the rows of batch t; empty weights are ones."""
    total = 0.0
    for b in range(size if weights.size else 0):
        total += weights[t * size + b]
    return total / size if weights.size else 1.0


@inlined
def square(x, weighted):
    total = 0.0
    for j in range(weighted):
        total += x[j] * x[j]
    return total


@inlined
def start(x, mean, reduced, weighted):
    """(weighted, 3): v, m, and the clock, which is C at the last touch (without l1) or the step after it."""
    cells = np.zeros((weighted, 3))
    for j in range(weighted):
        cells[j, 0] = x[j]
        if reduced:
            cells[j, 1] = mean[j]
    return cells


@inlined
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


@inlined
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


@inlined
def add_row(data, indices, first, last, column, cells, place, factor):
    """cells[:, place] += factor a_i"""
    for p in range(first, last):
        cells[column + np.uintp(indices[p]), place] += factor * data[p]


def single_stretch(kind, data, indices, indptr, d, y, x, rows, weights, size, rates, l2, l1, ridge, table, mean, moves,
                   losses):
    """sparse_stretch for one row a step and one output: the same steps without the loops over B and K, and twice as
    fast. (What fetches ahead is written out: passing arrays to an inlined function counts references at every step.)"""
    steps, n = rates.size, indptr.size - 1
    reduced, inner = table.shape[0] > 0, x.size > d
    cells, C, S = start(x, mean, reduced, d), np.zeros(steps + 1), 1.0
    start_loss, share, taken = 0.5 * l2 * square(x, d), 1.0 / n, 0
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
            low, high = np.int64(indptr[ahead]), np.int64(indptr[ahead + 1])
            for p in range(low, high, 8):
                prefetch(data, p)
            for p in range(low, high, 16):
                prefetch(indices, p)
        w = weights[t] if weights.size else 1.0
        shrink = 1.0 - rates[t] * (l2 if reduced else l2 * w)
        now, d_t = C[t], rates[t] / (S * shrink)
        then = now + d_t
        C[t + 1] = then
        first, last = indptr[i], indptr[i + 1]
        z = 0.0
        if l1 == 0.0:
            for p in range(first, last):
                j = np.uintp(indices[p])
                z += data[p] * (cells[j, 0] - cells[j, 1] * (now - cells[j, 2]))
        else:
            for p in range(first, last):
                j = np.uintp(indices[p])
                v = caught_up(cells[j, 0], cells[j, 1], C, int(cells[j, 2]), t, l1)
                cells[j, 0] = v
                z += data[p] * v
        loss, s = slope_of_one(kind, y[i], S * z + constant)
        losses[t] = w * (loss + start_loss)
        if not np.isfinite(losses[t]):                      # diverged: x stays as it is
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
        change = d_t * e
        if l1 == 0.0:
            for p in range(first, last):
                j = np.uintp(indices[p])
                m = cells[j, 1]
                cells[j, 0] = cells[j, 0] - change * data[p] - m * (then - cells[j, 2])
                cells[j, 1] = m + shift * data[p]
                cells[j, 2] = then
        else:
            for p in range(first, last):
                j = np.uintp(indices[p])
                m = cells[j, 1]
                cells[j, 0] = soft(cells[j, 0] - change * data[p] - d_t * m, d_t * l1)
                cells[j, 1] = m + shift * data[p]
                cells[j, 2] = t + 1
        S *= shrink / (1.0 + rates[t] * ridge)
    finish(cells, C, S, taken, l1, x, mean, moves)
    if inner:
        x[d] = constant
        if moves:
            mean[d] = drift


def sparse_stretch(kind, data, indices, indptr, d, y, x, rows, weights, size, rates, l2, l1, ridge, table, mean, moves,
                   losses):
    """rates.size steps of `size` rows each; x, and where it `moves` table and mean, are written in place.

    table: (n, K), or (0, K) for SGD; mean: like x, or empty.
    losses[t] = (1/B) sum_b w_b (l_b + l2/2 |W|^2), the last with the first W: at each step it would cost O(d). Before a
    step whose loss is not finite the loop ends, and the rest of the losses is left alone.
    """
    steps, n, K = rates.size, indptr.size - 1, table.shape[1]
    weighted, reduced = K * d, table.shape[0] > 0
    inner = x.size > weighted
    cells, constant, drift = start(x, mean, reduced, weighted), np.zeros(K), np.zeros(K)     # the last: the intercept
    for k in range(K if inner else 0):
        constant[k] = x[weighted + k]
        if reduced:
            drift[k] = mean[weighted + k]
    s, e = np.empty((size, K)), np.empty((size, K))
    C, S, start_loss, taken = np.zeros(steps + 1), 1.0, 0.5 * l2 * square(x, weighted), 0
    for t in range(steps):
        shrink = 1.0 - rates[t] * (l2 if reduced else l2 * mean_weight(weights, t, size))
        d_t = rates[t] / (S * shrink)
        C[t + 1] = C[t] + d_t
        loss = 0.0
        for b in range(size):
            i = rows[t * size + b]
            w = weights[t * size + b] if weights.size else 1.0
            fetch_ahead(rows, t * size + b, data, indices, indptr, y, table)
            for k in range(K):
                z = output(data, indices, indptr[i], indptr[i + 1], np.uintp(k * d), cells, C, t, l1)
                s[b, k] = S * z + constant[k]
            loss += w * (slope(kind, y[i], s[b]) + start_loss)
            for k in range(K):
                e[b, k] = (s[b, k] - table[i, k] if reduced else s[b, k]) * w / size
        losses[t] = loss / size
        if not np.isfinite(losses[t]):
            break
        taken += 1
        for k in range(K if inner else 0):
            total = drift[k]
            for b in range(size):
                total += e[b, k]
            constant[k] -= rates[t] * total
        for b in range(size):
            i = rows[t * size + b]
            for k in range(K):
                add_row(data, indices, indptr[i], indptr[i + 1], np.uintp(k * d), cells, 0, -d_t * e[b, k])
        for b in range(size):
            i = rows[t * size + b]
            for k in range(K):
                settle(indices, indptr[i], indptr[i + 1], np.uintp(k * d), cells, C, t, l1)
        for b in range(size if moves else 0):
            i = rows[t * size + b]
            for k in range(K):
                old = table[i, k]
                table[i, k] = s[b, k]
                shift = (table[i, k] - old) / n             # 0 the second time that a row comes in one batch
                drift[k] += shift
                add_row(data, indices, indptr[i], indptr[i + 1], np.uintp(k * d), cells, 1, shift)
        S *= shrink / (1.0 + rates[t] * ridge)
    finish(cells, C, S, taken, l1, x, mean, moves)
    for k in range(K if inner else 0):
        x[weighted + k] = constant[k]
        if moves:
            mean[weighted + k] = drift[k]


def dense_stretch(kind, X, y, x, rows, weights, size, rates, l2, l1, ridge, table, mean, moves, losses):
    """The same on dense rows, where every step touches every column, and the l2 term of the losses is exact."""
    n, d = X.shape
    steps, K = rates.size, table.shape[1]
    weighted, reduced = K * d, table.shape[0] > 0
    inner = x.size > weighted
    s, g = np.empty((size, K)), np.zeros(x.size)
    for t in range(steps):
        loss, rate, start_loss = 0.0, rates[t], 0.5 * l2 * square(x, weighted)
        shrink = 1.0 - rate * (l2 if reduced else l2 * mean_weight(weights, t, size))
        grow = 1.0 / (1.0 + rate * ridge)
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
            loss += w * (slope(kind, y[i], s[b]) + start_loss)
            for k in range(K):
                e = (s[b, k] - table[i, k] if reduced else s[b, k]) * w / size
                for j in range(d):
                    g[k * d + j] += e * X[i, j]
                if inner:
                    g[weighted + k] += e
        losses[t] = loss / size
        if not np.isfinite(losses[t]):
            break
        if l1 == 0.0:
            for j in range(weighted):
                x[j] = grow * (shrink * x[j] - rate * g[j])
        else:
            for j in range(weighted):
                x[j] = grow * soft(shrink * x[j] - rate * g[j], rate * l1)
        for j in range(weighted, x.size):
            x[j] -= rate * g[j]
        for b in range(size if moves else 0):
            i = rows[t * size + b]
            for k in range(K):
                old = table[i, k]
                table[i, k] = s[b, k]
                shift = (table[i, k] - old) / n
                for j in range(d):
                    mean[k * d + j] += shift * X[i, j]
                if inner:
                    mean[weighted + k] += shift


def stretch(storage, dtype, single):
    """The loop for a dense array (X,) or CSR arrays (data, indices, indptr, d) of that dtype; single: B = K = 1."""
    real = numba.from_dtype(np.dtype(dtype))
    held = tuple(numba.int64 if isinstance(a, int) else numba.typeof(a) for a in storage)
    numbers, vector, table = numba.float64[::1], real[::1], real[:, ::1]
    signature = (numba.int64, *held, vector, vector, numba.int64[::1], numbers, numba.int64, numbers, numba.float64,
                 numba.float64, numba.float64, table, vector, numba.boolean, numbers)
    loop = dense_stretch if len(storage) == 1 else single_stretch if single else sparse_stretch
    return compiled(loop, *signature)
