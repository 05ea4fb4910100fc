"""Compiled passes over given rows of a linear model: loss, slopes and gradient, for dense and for CSR data.

With K outputs a row (1, or the number of classes), W = x[:K d] as (K, d) and, when x has K more numbers, an intercept
c = x[K d:]:

    z = W a_i + c          s_b = l'(z; y_i)          out = (1/B) sum_b w_b (s_b a_i' + l2 W), the intercept without l2

A pass returns (1/B) sum_b w_b (l(z; y_i) + l2/2 |W|^2). Weights are float64 whatever the data; empty `weights` mean
ones. An empty `out` means that no gradient is wanted, only the loss and the slopes s, shape (at least B, K). Cost: the
non-zeros of the rows times K, plus the length of x. Arguments that do not fit raise an error, and the caller then finds
out what was wrong. So a good call pays for no checks.

`loss` is a Loss (losses.py), whose type chooses the formula when a loop is compiled; `data` is (X, y, dim), or (values,
indices, indptr, d, y, dim). A call from Python hands over plain tuples, `held` = (the loss's numbers, data): a named
tuple would cost it 0.45 us, a third of a pass over one row.
"""

import functools

from problems.loops import OPTIONS, compiled

import numba
from numba.extending import overload

part = numba.njit(forceinline=True, **{name: OPTIONS[name] for name in ("error_model", "fastmath")})


def slope_of_one(loss, y, z):
    """(loss, its derivative in z) for one output."""
    return loss.one(y, z)


def slope(loss, y, s):
    """The loss at the outputs z, which s, shape (K,), holds; s becomes the loss's derivative in z."""
    if loss.outputs > 1:
        return loss.many(y, s)
    value, s[0] = loss.one(y, s[0])
    return value


@overload(slope_of_one)
def _(loss, y, z):
    one = numba.njit(loss.instance_class.one)
    return lambda loss, y, z: one(loss, y, z)


@overload(slope)
def _(loss, y, s):
    if "many" in vars(loss.instance_class):
        many = numba.njit(loss.instance_class.many)
        return lambda loss, y, s: many(loss, y, s)

    def by_one(loss, y, s):
        value, s[0] = slope_of_one(loss, y, s[0])
        return value

    return by_one


@numba.njit
def check(dim, n, x, rows, weights, s, out):
    if x.size != dim or s.shape[0] < rows.size or rows.size == 0:
        raise ValueError
    if (out.size != 0 and out.size != dim) or (weights.size != 0 and weights.size != rows.size):
        raise ValueError
    for b in range(rows.size):
        if rows[b] < 0 or rows[b] >= n:
            raise ValueError


@numba.njit
def finish(x, out, loss, total, l2, B, weighted):
    """Divide by B and add the penalty on the first `weighted` numbers; total = sum_b w_b."""
    c, square = l2 * total / B, 0.0
    if out.size:
        for j in range(weighted):
            out[j] = out[j] / B + c * x[j]
        for j in range(weighted, x.size):
            out[j] /= B
    for j in range(weighted):
        square += x[j] * x[j]
    return loss / B + 0.5 * c * square


# How a row is walked: chosen by the data's type, and written into the loop that asks. (k and d are two arguments, so
# the compiler sees that no index k d + j is negative. With k d as one argument the dense loop takes twice the time.)


def shape_of_dense(data):
    return data[0].shape


def shape_of_sparse(data):
    return data[2].size - 1, data[3]


def times_dense(data, i, x, k, d):
    X, z = data[0], 0.0
    for j in range(d):
        z += X[i, j] * x[k * d + j]
    return z


def times_sparse(data, i, x, k, d):
    values, indices, indptr, z = data[0], data[1], data[2], 0.0
    for p in range(indptr[i], indptr[i + 1]):
        z += values[p] * x[k * d + indices[p]]
    return z


def add_dense(data, i, c, out, k, d):
    X = data[0]
    for j in range(d):
        out[k * d + j] += c * X[i, j]


def add_sparse(data, i, c, out, k, d):
    values, indices, indptr = data[0], data[1], data[2]
    for p in range(indptr[i], indptr[i + 1]):
        out[k * d + indices[p]] += c * values[p]


def shape(data):
    """(rows, columns)"""
    return (shape_of_dense if data[0].ndim == 2 else shape_of_sparse)(data)


def times(data, i, x, k, d):
    """a_i . x[k d : k d + d]"""
    return (times_dense if data[0].ndim == 2 else times_sparse)(data, i, x, k, d)


def add(data, i, c, out, k, d):
    """out[k d : k d + d] += c a_i"""
    (add_dense if data[0].ndim == 2 else add_sparse)(data, i, c, out, k, d)


@overload(shape, inline="always")
def _(data):
    return shape_of_dense if data.types[0].ndim == 2 else shape_of_sparse


@overload(times, inline="always")
def _(data, i, x, k, d):
    return times_dense if data.types[0].ndim == 2 else times_sparse


@overload(add, inline="always")
def _(data, i, c, out, k, d):
    return add_dense if data.types[0].ndim == 2 else add_sparse


@part
def rows_pass(loss, data, x, rows, weights, l2, s, out):
    (n, d), y, dim = shape(data), data[-2], data[-1]
    K = s.shape[1]
    check(dim, n, x, rows, weights, s, out)
    out[:] = 0
    value, total = 0.0, 0.0
    for b in range(rows.size):
        i = rows[b]
        w = weights[b] if weights.size else 1.0
        for k in range(K):
            s[b, k] = (x[K * d + k] if dim > K * d else 0.0) + times(data, i, x, k, d)
        value += w * slope(loss, y[i], s[b])
        total += w
        if out.size:
            for k in range(K):
                c = w * s[b, k]
                add(data, i, c, out, k, d)
                if dim > K * d:
                    out[K * d + k] += c
    return finish(x, out, value, total, l2, rows.size, K * d)


@numba.njit
def check_combine(n, weighted, s, rows, out):
    if s.shape[0] != rows.size or rows.size == 0 or out.size not in (weighted, weighted + s.shape[1]):
        raise ValueError
    for b in range(rows.size):
        if rows[b] < 0 or rows[b] >= n:
            raise ValueError


@part
def combine(data, s, rows, out):
    """out = (1/B) sum_b s_b a_i', the intercept's part sum_b s_b / B behind it."""
    (n, d), K, B = shape(data), s.shape[1], rows.size
    check_combine(n, K * d, s, rows, out)
    out[:] = 0
    for b in range(B):
        for k in range(K):
            c = s[b, k] / B
            add(data, rows[b], c, out, k, d)
            if out.size > K * d:
                out[K * d + k] += c


def combine_dense(X, s, rows, out):
    combine((X,), s, rows, out)


def combine_sparse(values, indices, indptr, d, s, rows, out):
    combine((values, indices, indptr, d), s, rows, out)


@functools.cache
def bound(kind):
    """The pass for a class of losses as a function of `held`. (It is a closure over the class alone. numba's cache on
    disk knows a closure by what it holds. It would not find one again that holds a compiled function.)"""

    def step(held, x, rows, weights, l2, s, out):
        numbers, data = held
        return rows_pass(kind(*numbers), data, x, rows, weights, l2, s, out)

    return step


def passes(loss, data):
    """(pass, combine) for a loss and data, in the dtype of y."""
    held, dense = (tuple(loss), data), len(data) == 3
    shared = data[:1] if dense else data[:4]
    real, rows, weights = numba.from_dtype(data[-2].dtype), numba.int64[::1], numba.float64[::1]
    vector, slopes = real[::1], real[:, ::1]
    step = (numba.typeof(held), vector, rows, weights, numba.float64, slopes, vector)
    run = compiled(bound(type(loss)), *step, kind=type(loss))
    mix = compiled(combine_dense if dense else combine_sparse, *map(numba.typeof, shared), slopes, rows, vector)
    return functools.partial(run, held), functools.partial(mix, *shared)
