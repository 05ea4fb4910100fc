"""Which minima can SGD stay at?   Wu, Ma & E, NeurIPS 2018, "How SGD selects the global minima".

Near a minimum of which every row's gradient vanishes, rows are quadratics and a step is w <- (I - lr H_B) w, with H_B
the mean Hessian of the batch. With H = mean H_i and Sigma = mean H_i^2 - H^2, E|w|^2 stays bounded if

    lmax( (I - lr H)^2 + lr^2 (n - B) / (B (n - 1)) Sigma ) <= 1        batches without replacement

which asks of the sharpness a = lmax(H) and the non-uniformity s = sqrt(lmax(Sigma)) at least that

    a <= 2 / lr,        s <= sqrt(B (n - 1) / (n - B)) / lr
"""

import math

from npopt.analysis.curvature import lanczos
from npopt.analysis.products import Nonuniformity

import numpy as np


def share(batch, n):
    """(n - B) / (B (n - 1)), the variance of the mean of B rows over that of one; 0 for all rows."""
    return (n - batch) / (batch * (n - 1)) if batch < n else 0.0


def growth(row_hessians, lr, batch):
    """lmax of the condition, for n rows' Hessians (n, d, d): E|w|^2 cannot grow where it is at most 1."""
    H = row_hessians.mean(0)
    spread = np.einsum("iab,ibc->ac", row_hessians, row_hessians) / len(row_hessians) - H @ H
    step = np.eye(len(H)) - lr * H
    return float(np.linalg.eigvalsh(step @ step + lr**2 * share(batch, len(row_hessians)) * spread)[-1])


def box(lr, batch, n):
    """(largest sharpness, largest non-uniformity) of minima that SGD can stay at; the second is inf for all rows."""
    part = share(batch, n)
    return 2 / lr, 1 / (lr * math.sqrt(part)) if part else math.inf


def non_uniformity(problem, x, rows=None, steps=10, seed=0, how=None, radius=1e-10):
    """(s, error): the root of the largest eigenvalue of Sigma over these rows, by so many steps of Lanczos. Some
    eigenvalue lies within error of s^2; s is a lower bound that rises with the steps. how, radius: as in `hessian`."""
    found = lanczos(Nonuniformity(problem, x, rows, 1, how, radius), x.shape[0], steps, seed)
    return math.sqrt(max(0.0, float(found.values[-1]))), float(found.errors[-1])
