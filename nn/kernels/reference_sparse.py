"""Products with a sparse S, (out, in), in array code: S is laid out dense for the time of a product.

places: (count,) int32, where its numbers are in the flat S, ascending   starts: (out + 1,) int64, where rows begin
"""

from npopt.backend import xp


def dense(values, places, shape):
    """S itself."""
    S = xp(values).zeros(shape, dtype=values.dtype)
    S.reshape(-1)[places] = values
    return S


def sparse_linear(x, values, places, starts, y):
    """y <- y + x S'; x: (N, in)   y: (N, out)"""
    y += x @ dense(values, places, (y.shape[1], x.shape[1])).T


def sparse_inputs(dy, values, places, starts, dx):
    """dx <- dx + dy S."""
    dx += dy @ dense(values, places, (dy.shape[1], dx.shape[1]))


def sparse_values(x, dy, places, starts, dvalues):
    """dvalues_k = sum_n dy_{n, row of k} x_{n, column of k}: those numbers of dy' x."""
    dvalues[...] = (dy.T @ x).reshape(-1)[places]
