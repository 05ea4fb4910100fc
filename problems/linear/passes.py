"""Compiled passes over given rows of a linear model: loss, slopes and gradient, for dense and for CSR data.

Both kernels do the same. With K outputs a row (1, or the number of classes), W = x[:K d] as (K, d) and, when x has K
more numbers, an intercept c = x[K d:]:

    z = W a_i + c          s_b = l'(z; y_i)          out = (1/B) sum_b w_b (s_b a_i' + l2 W), the intercept without l2

They return (1/B) sum_b w_b (l(z; y_i) + l2/2 |W|^2). Weights are float64 whatever the data; empty `weights` mean ones.
An empty `out` means that no gradient is wanted, only the loss and the slopes s, shape (at least B, K). Cost: the
non-zeros of the rows times K, plus the length of x. What does not fit raises; the caller then finds out what it was, so
that a good call pays for no checks.

`loss` is a Loss (losses.py), whose type chooses the formula when a loop is compiled; `data` is (X, y, dim), or (values,
indices, indptr, d, y, dim). A call from Python hands over plain tuples, `held` = (the loss's numbers, data): a named
tuple would cost it 0.45 us, a third of a pass over one row.
"""

import functools

from problems.loops import OPTIONS, compiled

import numba
from numba.extending import overload

part = numba.njit(**{name: OPTIONS[name] for name in ("error_model", "fastmath")})


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


@part
def dense_pass(loss, data, x, rows, weights, l2, s, out):
    X, y, dim = data
    d, K = X.shape[1], s.shape[1]
    check(dim, X.shape[0], x, rows, weights, s, out)
    out[:] = 0
    value, total = 0.0, 0.0
    for b in range(rows.size):
        i = rows[b]
        w = weights[b] if weights.size else 1.0
        for k in range(K):
            z = x[K * d + k] if dim > K * d else 0.0
            for j in range(d):
                z += X[i, j] * x[k * d + j]
            s[b, k] = z
        value += w * slope(loss, y[i], s[b])
        total += w
        if out.size:
            for k in range(K):
                c = w * s[b, k]
                for j in range(d):
                    out[k * d + j] += c * X[i, j]
                if dim > K * d:
                    out[K * d + k] += c
    return finish(x, out, value, total, l2, rows.size, K * d)


@part
def sparse_pass(loss, data, x, rows, weights, l2, s, out):
    values, indices, indptr, d, y, dim = data
    K = s.shape[1]
    check(dim, indptr.size - 1, x, rows, weights, s, out)
    out[:] = 0
    value, total = 0.0, 0.0
    for b in range(rows.size):
        i = rows[b]
        w = weights[b] if weights.size else 1.0
        for k in range(K):
            z = x[K * d + k] if dim > K * d else 0.0
            for p in range(indptr[i], indptr[i + 1]):
                z += values[p] * x[k * d + indices[p]]
            s[b, k] = z
        value += w * slope(loss, y[i], s[b])
        total += w
        if out.size:
            for k in range(K):
                c = w * s[b, k]
                for p in range(indptr[i], indptr[i + 1]):
                    out[k * d + indices[p]] += c * values[p]
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


def dense_combine(X, s, rows, out):
    """out = (1/B) sum_b s_b a_i', the intercept's part sum_b s_b / B behind it."""
    d, K, B = X.shape[1], s.shape[1], rows.size
    check_combine(X.shape[0], K * d, s, rows, out)
    out[:] = 0
    for b in range(B):
        i = rows[b]
        for k in range(K):
            c = s[b, k] / B
            for j in range(d):
                out[k * d + j] += c * X[i, j]
            if out.size > K * d:
                out[K * d + k] += c


def sparse_combine(values, indices, indptr, d, s, rows, out):
    K, B = s.shape[1], rows.size
    check_combine(indptr.size - 1, K * d, s, rows, out)
    out[:] = 0
    for b in range(B):
        i = rows[b]
        for k in range(K):
            c = s[b, k] / B
            for p in range(indptr[i], indptr[i + 1]):
                out[k * d + indices[p]] += c * values[p]
            if out.size > K * d:
                out[K * d + k] += c


@functools.cache
def bound(kind, dense):
    """The pass for a class of losses as a function of `held`. (A closure over the class alone: numba's cache on disk
    knows a closure by what it holds, and would not find again one that holds a compiled function.)"""

    def dense_step(held, x, rows, weights, l2, s, out):
        numbers, data = held
        return dense_pass(kind(*numbers), data, x, rows, weights, l2, s, out)

    def sparse_step(held, x, rows, weights, l2, s, out):
        numbers, data = held
        return sparse_pass(kind(*numbers), data, x, rows, weights, l2, s, out)

    return dense_step if dense else sparse_step


def passes(loss, data):
    """(pass, combine) for a loss and data, in the dtype of y."""
    dense = len(data) == 3
    held, shared = (tuple(loss), data), data[:1] if dense else data[:4]
    real, rows, weights = numba.from_dtype(data[-2].dtype), numba.int64[::1], numba.float64[::1]
    vector, slopes = real[::1], real[:, ::1]
    step = (numba.typeof(held), vector, rows, weights, numba.float64, slopes, vector)
    run = compiled(bound(type(loss), dense), *step, kind=type(loss))
    combine = compiled(dense_combine if dense else sparse_combine, *map(numba.typeof, shared), slopes, rows, vector)
    return functools.partial(run, held), functools.partial(combine, *shared)
