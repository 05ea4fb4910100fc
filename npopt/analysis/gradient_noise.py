"""The covariance of the gradients of batches, along directions, in total, and against curvature, batch by batch."""

from dataclasses import dataclass

from npopt import backend
from npopt.analysis.products import row_numbers
from npopt.errors import UserError
from npopt.values import whole

import numpy as np


@dataclass
class GradientNoise:
    """Of K batches of `size` rows with gradients g_b and mean g: S = sum_b (g_b - g)(g_b - g)' / (K - 1).

    mean         (k,) u_j'g along the directions u_j
    covariance   (k, k) u_i'S u_j
    trace        tr S
    curved       tr(H S), the escape efficiency of Zhu, Wu, Yu, Wu & Ma, ICML 2019, where a product was given; else None
    norm         |g|
    batches      K
    size         rows a batch

    As the batches are disjoint, S is an unbiased estimate of the covariance of the gradients of batches drawn from all
    n rows without replacement, times n / (n - size): of Sigma / size, Sigma the rows' covariance with divisor n - 1.
    With batch norm the loss of a row depends on its batch; then S is that of these batches.
    """

    mean: np.ndarray
    covariance: np.ndarray
    trace: float
    curved: float | None
    norm: float
    batches: int
    size: int


def gradient_noise(problem, x, directions, size, seed=0, rows=None, batches=None, product=None):
    """The GradientNoise at x of disjoint batches of `size` rows, in a random order of (seed).

    directions   (k, dim), on the device in use
    rows         whose batches: None is all rows; what is left over at the end counts nowhere
    batches      at most so many; None: all
    product      v -> H v, for tr(H S): one product a batch

    One pass over the batches (Welford, Technometrics 4, 1962), with one vector of dim numbers in float64.
    """
    rows, size = row_numbers("gradient_noise", problem, rows), whole("gradient_noise", "size", size)
    most = len(rows) if batches is None else whole("gradient_noise", "batches", batches, low=2)
    count = min(len(rows) // size, most)
    if count < 2:
        raise UserError(f"gradient_noise: {len(rows)} rows make {count} batches of {size}; two are needed")
    if directions.ndim != 2 or directions.shape[1] != problem.dim:
        raise UserError(f"gradient_noise: directions must be (k, {problem.dim}), got {directions.shape}")
    order = backend.generator(seed, "gradient noise").permutation(rows)[: count * size].reshape(count, size)
    g, mean = backend.empty((problem.dim,), problem.dtype), backend.zeros((problem.dim,), "float64")
    along, squares, curved = [], 0.0, 0.0
    for number, some in enumerate(order, 1):
        problem.value_and_gradient(x, backend.asarray(some), None, g)
        along.append(np.asarray(backend.to_host(directions @ g), np.float64))
        change = g - mean
        mean += change / number
        squares += float(backend.to_host(change @ (g - mean)))
        if product is not None:  # sum of (g_b - g)'H(g_b - g), by the same update: H is symmetric
            curved += float(backend.to_host((g - mean) @ product(change.astype(g.dtype))))
    along = np.array(along)
    covariance = np.atleast_2d(np.cov(along, rowvar=False))
    return GradientNoise(
        along.mean(0),
        covariance,
        squares / (count - 1),
        None if product is None else curved / (count - 1),
        float(backend.to_host(backend.norm(mean))),
        count,
        size,
    )
