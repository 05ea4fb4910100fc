"""Compiled passes over given rows of a linear model: loss, slopes and gradient, for dense and for CSR data.

Both kernels do the same. With K outputs a row (1, or the number of classes), W = x[:K d] as (K, d) and, when x has K
more numbers, an intercept c = x[K d:]:

    z = W a_i + c          s_b = l'(z; y_i)          out = (1/B) sum_b w_b (s_b a_i' + l2 W), the intercept without l2

They return (1/B) sum_b w_b (l(z; y_i) + l2/2 |W|^2). Weights are float64 whatever the data; empty `weights` mean ones.
An empty `out` means that no gradient is wanted, only the loss and the slopes s, shape (at least B, K). Cost: the
non-zeros of the rows times K, plus the length of x. What does not fit raises; the caller then finds out what it was, so
that a good call pays for no checks.
"""

import functools

import numba
import numpy as np

SQUARED, LOGISTIC, SOFTMAX = 0, 1, 2

# Sums over features may be reordered (SIMD); NaN and inf keep their meaning, so that a diverged run shows.
OPTIONS = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}, "cache": True}


@numba.njit
def slope_of_one(kind, y, z):
    """(loss, its derivative in z) for one output."""
    if kind == SQUARED:                                     # 1/2 (z - y)^2
        return 0.5 * (z - y) * (z - y), z - y
    m = y * z                                               # log(1 + exp(-m));  s = -y / (1 + exp(m))
    e = np.exp(-abs(m))                                     # never overflows
    return max(-m, 0.0) + np.log1p(e), -y * (e / (1.0 + e) if m > 0 else 1.0 / (1.0 + e))


@numba.njit
def slope(kind, y, s):
    """The loss at the outputs z, which s, shape (K,), holds; s becomes the loss's derivative in z."""
    if kind != SOFTMAX:
        loss, s[0] = slope_of_one(kind, y, s[0])
        return loss
    top = s[0]                                              # log sum_k exp(z_k) - z_y;  s_k = p_k - [k = y]
    for k in range(1, s.size):
        top = max(top, s[k])
    own, total = s[int(y)] - top, 0.0
    for k in range(s.size):
        s[k] = np.exp(s[k] - top)
        total += s[k]
    for k in range(s.size):
        s[k] /= total
    s[int(y)] -= 1.0
    return np.log(total) - own


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


def dense_pass(kind, X, y, dim, x, rows, weights, l2, s, out):
    n, d = X.shape
    K = s.shape[1]
    check(dim, n, x, rows, weights, s, out)
    out[:] = 0
    loss, total = 0.0, 0.0
    for b in range(rows.size):
        i = rows[b]
        w = weights[b] if weights.size else 1.0
        for k in range(K):
            z = x[K * d + k] if dim > K * d else 0.0
            for j in range(d):
                z += X[i, j] * x[k * d + j]
            s[b, k] = z
        loss += w * slope(kind, y[i], s[b])
        total += w
        if out.size:
            for k in range(K):
                c = w * s[b, k]
                for j in range(d):
                    out[k * d + j] += c * X[i, j]
                if dim > K * d:
                    out[K * d + k] += c
    return finish(x, out, loss, total, l2, rows.size, K * d)


def sparse_pass(kind, data, indices, indptr, d, y, dim, x, rows, weights, l2, s, out):
    K = s.shape[1]
    check(dim, indptr.size - 1, x, rows, weights, s, out)
    out[:] = 0
    loss, total = 0.0, 0.0
    for b in range(rows.size):
        i = rows[b]
        w = weights[b] if weights.size else 1.0
        for k in range(K):
            z = x[K * d + k] if dim > K * d else 0.0
            for p in range(indptr[i], indptr[i + 1]):
                z += data[p] * x[k * d + indices[p]]
            s[b, k] = z
        loss += w * slope(kind, y[i], s[b])
        total += w
        if out.size:
            for k in range(K):
                c = w * s[b, k]
                for p in range(indptr[i], indptr[i + 1]):
                    out[k * d + indices[p]] += c * data[p]
                if dim > K * d:
                    out[K * d + k] += c
    return finish(x, out, loss, total, l2, rows.size, K * d)


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


def sparse_combine(data, indices, indptr, d, s, rows, out):
    K, B = s.shape[1], rows.size
    check_combine(indptr.size - 1, K * d, s, rows, out)
    out[:] = 0
    for b in range(B):
        i = rows[b]
        for k in range(K):
            c = s[b, k] / B
            for p in range(indptr[i], indptr[i + 1]):
                out[k * d + indices[p]] += c * data[p]
            if out.size > K * d:
                out[K * d + k] += c


@functools.cache
def compiled(function, *signature):
    """The function for exactly these argument types: anything else is a TypeError, not another compilation."""
    return numba.njit(signature, **OPTIONS)(function)


def passes(storage, dtype):
    """(pass, combine) for a dense array (X,) or CSR arrays (data, indices, indptr, d) of that dtype."""
    real, rows = numba.from_dtype(np.dtype(dtype)), numba.int64[::1]
    held = tuple(numba.int64 if isinstance(a, int) else numba.typeof(a) for a in storage)
    vector, slopes = real[::1], real[:, ::1]
    run, combine = (dense_pass, dense_combine) if len(storage) == 1 else (sparse_pass, sparse_combine)
    weights = numba.float64[::1]
    step = (numba.int64, *held, vector, numba.int64, vector, rows, weights, numba.float64, slopes, vector)
    return compiled(run, *step), compiled(combine, *held, slopes, rows, vector)
