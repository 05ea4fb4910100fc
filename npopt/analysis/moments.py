"""What SGD along random directions does to a quadratic, exactly on average: second moments by eigenvector.

On f(x) = 1/2 e'He, e = x - x*, with differences along q directions (radius to 0, or central), a step is

    e+ = e - a (1/q) sum_k c u_k u_k' H e        u ~ N(0, I), c = 1, or uniform on the sphere, c = d

With M_i the mean of the square of e along eigenvector i of eigenvalue l_i (other second moments stay apart):

    M_i+ = M_i (1 - 2 a l_i) + a^2 ( (1/q) F (sum_j l_j^2 M_j + 2 l_i^2 M_i) + (1 - 1/q) l_i^2 M_i )

by Isserlis' theorem, F = 1 (normal) or d/(d+2) (sphere); all coordinates: M_i+ = M_i (1 - a l_i)^2. So M+ = T M, and
the mean of f - f* is 1/2 sum_i l_i M_i. It bounds what a run does: a product of random factors lies mostly below its
mean.
"""

from npopt.errors import UserError

import numpy as np

KINDS = ("normal", "sphere", "coordinates")


def fourth(kind, d):
    """F of the module: E[u_i^2 u_j^2] c^2, i and j different."""
    if kind not in KINDS:
        raise UserError(f"moments: directions must be among {', '.join(KINDS)}, got {kind!r}")
    return d / (d + 2) if kind == "sphere" else 1.0


def spread(values, squares, q, kind):
    """E g_i^2 of estimates of a random gradient with E[its square along i] = squares: F-terms shared by all i."""
    if kind == "coordinates":
        return squares
    F = fourth(kind, len(values))
    return F / q * (squares.sum() + 2 * squares) + (1 - 1 / q) * squares


def transition(values, lr, q=1, kind="normal"):
    """T, (d, d), for eigenvalues `values`, (d,), the step lr and q directions."""
    values = np.asarray(values, float)
    columns = [spread(values, values**2 * unit, q, kind) for unit in np.eye(len(values))]
    return np.diag(1 - 2 * lr * values) + lr**2 * np.array(columns).T


def gaps(values, start, T, steps):
    """(steps + 1,) means of f - f* from M = start, (d,)."""
    M, found = np.asarray(start, float), []
    for _ in range(steps + 1):
        found.append(values @ M / 2)
        M = T @ M
    return np.array(found)


def steps_to(values, start, T, ratios):
    """For each of the falling `ratios` the number of steps until the mean of f - f* is that part of its first value."""
    rate = np.abs(np.linalg.eigvals(T)).max()
    if rate >= 1:
        return [np.inf] * len(ratios)
    found = gaps(values, start, T, int(np.ceil(np.log(ratios[-1] / 100) / np.log(rate))))
    return [int(np.argmax(found <= ratio * found[0])) for ratio in ratios]


def level(values, T, noise):
    """The mean of f - f* at which noise, E of its square along each eigenvector added at every step, keeps M."""
    return float(np.asarray(values) @ np.linalg.solve(np.eye(len(values)) - T, noise) / 2)


def forward_noise(values, lr, radius, kind="normal"):
    """That noise of forward differences along one direction: lr^2 (mu/2)^2 c^2 E[(u'Hu)^2 u_i^2], sixth moments."""
    values = np.asarray(values, float)
    d, trace = len(values), values.sum()
    sixth = trace**2 + 2 * (values**2).sum() + 4 * trace * values + 8 * values**2
    return (lr * radius / 2) ** 2 * sixth * (d / ((d + 2) * (d + 4)) if kind == "sphere" else 1.0)


def coordinate_floor(H, radius):
    """f - f* where forward differences along all coordinates of radius mu stop: H e = -mu diag(H)/2."""
    h = np.diag(H)
    return float((radius / 2) ** 2 * h @ np.linalg.solve(H, h) / 2)
