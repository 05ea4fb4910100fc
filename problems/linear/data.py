"""The rows of a linear model, checked and in the form that compiled loops read."""

from npopt import backend
from npopt.errors import UserError

import numpy as np
import scipy.sparse


def design(where, X, dtype=None, d=None):
    """X as a C-ordered array or a canonical CSR matrix with int32 indices, finite and writeable.

    float32 and float64 are kept unless `dtype` asks for one; other numbers become float64. d: the columns it must have.
    Text, complex numbers, dates, and numbers whose squares overflow are refused.
    """
    sparse = scipy.sparse.issparse(X)
    X = scipy.sparse.csr_matrix(X) if sparse else rectangle(where, X)
    if X.ndim != 2 or not all(X.shape):
        raise UserError(f"{where}: X must have shape (rows, columns), none of them 0, got {X.shape}")
    if d is not None and X.shape[1] != d:
        raise UserError(f"{where}: the test rows have {X.shape[1]} columns, the training rows {d}")
    X = X if X.dtype.kind in "buif" else converted(where, X)
    dtype = np.dtype(dtype or (X.dtype if X.dtype in (np.float32, np.float64) else np.float64))
    check_sizes(where, X, dtype)
    return csr(where, X, dtype) if sparse else np.require(X, dtype, ["C", "A", "W", "E"])


def rectangle(where, X):
    try:
        return np.asarray(X)
    except ValueError:
        raise UserError(f"{where}: the rows of X differ in length; X must have shape (rows, columns)") from None


def converted(where, X):
    """Objects that are numbers, as float64. Whatever is not a real number is refused."""
    try:
        if X.dtype.kind != "O" or any(isinstance(value, (str, bytes, complex)) for value in X.flat):
            raise TypeError
        return X.astype(np.float64)
    except (TypeError, ValueError):
        some = X.data[:1] if scipy.sparse.issparse(X) else X.reshape(-1)
        raise UserError(
            f"{where}: X must hold real numbers, got {X.dtype}, such as {str(some[0])[:40]!r}; convert it first"
        ) from None


def check_sizes(where, X, dtype):
    """Refuse NaN, inf, and numbers whose squares are beyond the dtype."""
    values, most = X.data if scipy.sparse.issparse(X) else X, np.float64(np.finfo(dtype).max) ** 0.5
    if not values.size or -most <= values.min() and values.max() <= most:
        return
    fits = abs(values) <= most
    if scipy.sparse.issparse(X):
        bad = np.flatnonzero(~fits)[0]
        row, value = np.searchsorted(X.indptr, bad, side="right") - 1, values[bad]
    else:
        row = np.flatnonzero(~fits.all(1))[0]
        value = X[row][~fits[row]][0]
    if not np.isfinite(value):
        raise UserError(f"{where}: row {row} of X holds NaN or inf")
    raise UserError(
        f"{where}: row {row} of X holds {value:g}, whose square is beyond {dtype}; scale the columns, as "
        "problems.standardise does"
    )


def csr(where, X, dtype):
    X = scipy.sparse.csr_matrix(X, dtype=dtype)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    if X.nnz > np.iinfo(np.int32).max:
        raise UserError(f"{where}: {X.nnz} non-zeros are more than int32 indices can count")
    X.data = np.require(X.data, dtype, ["C", "A", "W"])
    X.indices = np.require(X.indices, np.int32, ["C", "A", "W"])
    X.indptr = np.require(X.indptr, np.int32, ["C", "A", "W"])
    return X


def square_norms(X):
    """|a_i|^2 of every row in float64, (n,)."""
    if scipy.sparse.issparse(X):
        return np.asarray(X.astype(np.float64).multiply(X).sum(1)).reshape(-1)
    return np.einsum("ij,ij->i", X, X, dtype=np.float64)


def row_numbers(where, rows, n):
    """Row numbers on the device in use, int64 and contiguous; one outside 0..n-1 is refused."""
    host = np.asarray(rows) if isinstance(rows, (list, tuple, range)) else rows
    if getattr(host, "ndim", 0) != 1 or host.dtype.kind not in "iu" or host.shape[0] == 0:
        came = f"shape {host.shape} of {host.dtype}" if hasattr(host, "dtype") else repr(rows)[:80]
        raise UserError(f"{where}: rows must be a vector of one or more row numbers, got {came}")
    low, high = int(backend.to_host(host.min())), int(backend.to_host(host.max()))
    if low < 0 or high >= n:
        raise UserError(f"{where}: rows must lie in 0..{n - 1}, got {low if low < 0 else high}")
    return contiguous(backend.asarray(host, np.int64))


def row_weights(where, weights, B):
    """Weights on the device in use, float64 and contiguous, (B,)."""
    weights = backend.asarray(weights, np.float64)
    if weights.shape != (B,):
        raise UserError(f"{where}: {B} rows need {B} weights, got shape {weights.shape}")
    return contiguous(weights)


def contiguous(array):
    return np.require(array, None, ["C", "W"]) if isinstance(array, np.ndarray) else array
