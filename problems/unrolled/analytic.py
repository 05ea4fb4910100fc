"""The weight of ALISTA: Liu, Chen, Wang & Yin, ICLR 2019, "ALISTA: analytic weights are as good as learned weights".

They ask for W, like A, with a small generalised mutual coherence max_{i != j} |w_i'a_j| under w_i'a_i = 1, and replace
the maximum by the sum of squares:

    min_W |W'A|_F^2        w_j'a_j = 1 for every column j.

They solve it by projected gradients. It falls apart by columns, min w'AA'w under w'a_j = 1, where the multiplier gives

    w_j = (AA')^-1 a_j / (a_j' (AA')^-1 a_j).
"""

from npopt.errors import UserError

import numpy as np
import scipy


def analytic_weight(A):
    """W, (m, n) float64, of A, (m, n) of rank m."""
    A = np.asarray(A, np.float64)
    if A.ndim != 2 or A.shape[0] > A.shape[1] or not np.isfinite(A).all():
        raise UserError(f"analytic_weight: A must be finite with no more rows than columns, got shape {A.shape}")
    try:
        W = scipy.linalg.cho_solve(scipy.linalg.cho_factor(A @ A.T), A)
    except np.linalg.LinAlgError:
        raise UserError("analytic_weight: the rows of A must be linearly independent") from None
    return W / (W * A).sum(0)


def coherence(W, A):
    """max_{i != j} |w_i'a_j|, a float; with W = A, of columns of length 1, the mutual coherence of A."""
    products = np.abs(W.T @ A)
    np.fill_diagonal(products, 0)
    return float(products.max())
