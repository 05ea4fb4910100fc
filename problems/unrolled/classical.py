"""ISTA, FISTA and AMP on a batch of samples: the methods that unrolled networks are measured against.

Each is a generator of x_1, x_2, ... for min_x 1/2 |b - A x|^2 + lam |x|_1, sample by sample, from x_0 = 0:

    for k, x in enumerate(itertools.islice(fista(b, A, 0.1), 16), 1): ...

b: (B, m), A: (m, n), float32 or float64 arrays of one device; x: (B, n), valid until the next one is asked for. With
S_t(z) = sign(z) max(|z| - t, 0) and L = |A|^2. `lam` is a number, or a function of k = 1, 2, ...

npopt's ISTA and FISTA are optimizers of one vector under a penalty; tests hold the two to each other.
"""

import math

from npopt import backend
from npopt.errors import UserError
from npopt.values import number

import numpy as np


def shrink(z, t):
    """S_t(z); t: a number or an array that fits z."""
    m = backend.xp(z)
    return m.sign(z) * m.maximum(abs(z) - t, 0)


def lipschitz(A):
    """L = |A|^2, the largest eigenvalue of A'A, a Python float."""
    return float(np.linalg.norm(np.asarray(backend.to_host(A), np.float64), 2) ** 2)


def decreasing(first, last, factor):
    """lam(k) = max(last, first factor^(k-1)): a threshold that follows the error down."""
    first, last = number("decreasing", "first", first, low=0), number("decreasing", "last", last, low=0)
    factor = number("decreasing", "factor", factor, low=0, high=1)
    return lambda k: max(last, first * factor ** (k - 1))


def checked(name, b, A):
    if b.ndim != 2 or A.ndim != 2 or b.shape[1] != A.shape[0] or b.dtype != A.dtype:
        shapes = f"b {b.dtype} {tuple(b.shape)} and A {A.dtype} {tuple(A.shape)}"
        raise UserError(f"{name}: b must be (B, m), A (m, n), of one dtype, got {shapes}")
    return backend.xp(b).zeros((b.shape[0], A.shape[1]), dtype=b.dtype)


def ista(b, A, lam, L=None):
    """x_{k+1} = S_{lam/L}(x_k + A'(b - A x_k)/L)."""
    x, L = checked("ista", b, A), lipschitz(A) if L is None else L
    k = 0
    while True:
        k += 1
        x = shrink(x + (b - x @ A.T) @ A / L, (lam(k) if callable(lam) else lam) / L)
        yield x


def fista(b, A, lam, L=None):
    """Beck & Teboulle, SIAM J. Imaging Sci. 2, 2009, constant step: with y_1 = x_0 and t_1 = 1

    x_k = S_{lam/L}(y_k + A'(b - A y_k)/L)        t_{k+1} = (1 + sqrt(1 + 4 t_k^2))/2
    y_{k+1} = x_k + (t_k - 1)/t_{k+1} (x_k - x_{k-1})
    """
    x, L = checked("fista", b, A), lipschitz(A) if L is None else L
    y, t, k = x, 1.0, 0
    while True:
        k += 1
        before, x = x, shrink(y + (b - y @ A.T) @ A / L, (lam(k) if callable(lam) else lam) / L)
        last, t = t, (1 + math.sqrt(1 + 4 * t * t)) / 2
        y = x + (last - 1) / t * (x - before)
        yield x


def amp(b, A, alpha=1.14):
    """Approximate message passing: Donoho, Maleki & Montanari, PNAS 106, 2009, with the threshold of each sample's
    residual. z_0 = b;

        x_{k+1} = S_th(x_k + A'z_k)        th = alpha |z_k| / sqrt(m)        z_{k+1} = b - A x_{k+1} + z_k |x_{k+1}|_0/m

    The columns of A have length 1 or nearly so. alpha = 1.14 is about the best for 10 % non-zeros at m = n/2.
    """
    x, alpha = checked("amp", b, A), number("amp", "alpha", alpha, low=0)
    m, z, samples = backend.xp(b), b, A.shape[0]
    while True:
        th = alpha / math.sqrt(samples) * m.sqrt((z * z).sum(axis=1, keepdims=True))
        x = shrink(x + z @ A, th)
        z = b - x @ A.T + z * ((x != 0).sum(axis=1, keepdims=True).astype(b.dtype) / samples)
        yield x
