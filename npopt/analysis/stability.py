"""Which minima can SGD stay at?   Wu, Ma & E, NeurIPS 2018, "How SGD selects the global minima".

Near a minimum of which every row's gradient vanishes, rows are quadratics and a step is w <- (I - lr H_B) w, with H_B
the mean Hessian of the batch. With H = mean H_i and Sigma = mean H_i^2 - H^2, E|w|^2 stays bounded if

    lmax( (I - lr H)^2 + lr^2 (n - B) / (B (n - 1)) Sigma ) <= 1        batches without replacement

which asks of the sharpness a = lmax(H) and the non-uniformity s = sqrt(lmax(Sigma)) at least that

    a <= 2 / lr,        s <= sqrt(B (n - 1) / (n - B)) / lr

With all rows, training raises the sharpness until it reaches the largest value at which the method is stable, and holds
it there: Cohen, Kaur, Li, Kolter & Talwalkar, ICLR 2021, arXiv:2103.00065; for Adam, whose curvature is that of
P^(-1/2) H P^(-1/2), Cohen et al., 2022, arXiv:2207.14484. `edge` is that value, `preconditioner` is P.
"""

import math

from npopt import backend, optimizers
from npopt.analysis.curvature import lanczos
from npopt.analysis.products import Nonuniformity
from npopt.errors import UserError

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


EDGES = {  # lr times the largest stable curvature
    optimizers.SGD: lambda method: 2.0,
    optimizers.HeavyBall: lambda method: 2 * (1 + method.beta),
    optimizers.Nesterov: lambda method: 2 * (1 + method.beta) / (1 + 2 * method.beta),
    optimizers.Adam: lambda method: 2 * (1 + method.b1) / (1 - method.b1),
    optimizers.AdamW: lambda method: 2 * (1 + method.b1) / (1 - method.b1),
}


def edge(optimizer, lr):
    """The largest curvature lam of a quadratic at which a method with all rows and the constant rate lr is stable.

        SGD         x+ = (1 - lr lam) x                                            2 / lr
        HeavyBall   r^2 - (1 + beta - lr lam) r + beta = 0                         2 (1 + beta) / lr
        Nesterov    r^2 - (1 + beta) (1 - lr lam) r + beta (1 - lr lam) = 0        2 (1 + beta) / ((1 + 2 beta) lr)
        Adam        as HeavyBall(b1) at the rate (1 - b1) lr                       2 (1 + b1) / ((1 - b1) lr)

    For Adam lam is an eigenvalue of P^(-1/2) H P^(-1/2), with P (`preconditioner`) taken as fixed.
    At these a root r of the step's equation is -1: the iterates change sides. AdamW is as Adam; its decay is left out.
    """
    if type(optimizer) not in EDGES:
        known = ", ".join(kind.__name__ for kind in EDGES)
        raise UserError(f"edge: known for {known}, not for {type(optimizer).__name__}")
    return EDGES[type(optimizer)](optimizer) / lr


def preconditioner(optimizer):
    """P, (dim,), of an Adam or AdamW that has made t steps: x <- x - lr P^-1 m.

        P = (1 - b1^t) (sqrt(v / (1 - b2^t)) + eps)                   Cohen et al. 2022, section 2

    The curvature that counts is lmax of `scaled(product, P**-0.5)` (npopt/analysis/sharpness.py).
    """
    v, t = optimizer.slot("v"), optimizer.t
    return (1 - optimizer.b1**t) * (backend.xp(v).sqrt(v / (1 - optimizer.b2**t)) + optimizer.eps)
