"""Step sizes and rates that theory gives for L-smooth, mu-strongly convex functions, k = L/mu.

    tuned = heavy_ball(L, mu)
    minimize(problem, HeavyBall(tuned.beta), RandomReshuffling(None), schedule=tuned.lr)
    iterations(tuned.factor, first_gap, 1e-7, tuned.slow)

On a quadratic the error along an eigenvector of curvature mu is rho^t (1 + slow t) times its value at the start, with
rho = `factor`. Along no eigenvector does it exceed rho^t (1 + fast t) times that. Heavy ball and Nesterov have a double
root there, and its transient is not small. f - f* is a sum over the eigenvectors, so its number of iterations lies
between two counts. `slow` gives the count for the part of f - f* along mu, and `fast` the count for all of f - f*. On
other functions these are local statements. Heavy ball need not converge from afar (Lessard, Recht & Packard, SIAM J.
Optim. 26, 2016, section 4.6). For Nesterov's method f - f* falls at least by 1 - 1/sqrt k a step. npopt's HeavyBall and
Nesterov with a constant lr are the forms used here, with the same lr and beta. HeavyBall is
x+ = x - lr g + beta (x - x_prev). Nesterov is x+ = y - lr g(y), y+ = x+ + beta (x+ - x), and its vector holds y.
"""

import math
import warnings
from typing import NamedTuple

from npopt.errors import UserError
from npopt.values import number


class Tuned(NamedTuple):
    """lr, beta, the factor by which a step multiplies the error, and how fast the transient grows: along mu, and at
    most."""

    lr: float
    beta: float
    factor: float
    slow: float = 0.0
    fast: float = 0.0


def root(name, L, mu):
    """sqrt(mu / L), checked."""
    number(name, "L", L, low=0, open_low=True)
    if not mu > 0:
        raise UserError(
            f"{name}: mu is {mu}, and without strong convexity no linear rate exists; give l2 > 0, or use "
            "a method that needs no mu, such as FISTA(restart='gradient')"
        )
    if mu > L * (1 + 1e-9):
        raise UserError(f"{name}: mu = {mu:.6g} exceeds L = {L:.6g}")
    return math.sqrt(min(mu / L, 1.0))


def gradient_descent(L, mu):
    """lr = 1/L, factor 1 - mu/L on a quadratic (and f - f* at least by 1 - mu/L in general)."""
    r = root("gradient_descent", L, mu)
    return Tuned(1 / L, 0.0, 1 - r**2)


def heavy_ball(L, mu):
    """Polyak's constants for quadratics, USSR Comp. Math. 4(5), 1964:

    lr = 4 / (sqrt L + sqrt mu)^2,   beta = factor^2,   factor = (sqrt k - 1) / (sqrt k + 1)

    With r = 1/sqrt k the roots at mu are both rho, at L both -rho. The first step is a gradient step, so that
    rho (1 + slow) = 1 - lr mu = rho (1 + 3 r) / (1 + r), and -rho (1 + fast) = 1 - lr L = -rho (3 + r) / (1 + r):
    slow = 2 r / (1 + r), fast = 2 / (1 + r).
    """
    r = root("heavy_ball", L, mu)
    factor = (1 - r) / (1 + r)
    return Tuned(4 / (math.sqrt(L) + math.sqrt(mu)) ** 2, factor**2, factor, 2 * r / (1 + r), 2 / (1 + r))


def nesterov(L, mu):
    """Nesterov's constant scheme (Introductory Lectures on Convex Optimization, 2004, section 2.2):

    lr = 1/L,   beta = (sqrt k - 1) / (sqrt k + 1);   on quadratics the error falls by 1 - 1/sqrt k a step

    (f - f* by its square; in general f - f* falls at least by 1 - 1/sqrt k.) With r = 1/sqrt k both roots at mu are
    1 - r, and y's first step is (1 + beta)(1 - r^2) - beta = (1 - r)(1 + 2 r) / (1 + r): slow = fast = r / (1 + r).
    """
    r = root("nesterov", L, mu)
    return Tuned(1 / L, (1 - r) / (1 + r), 1 - r, r / (1 + r), r / (1 + r))


def nesterov_quadratic(L, mu):
    """The constants that are best for quadratics (Lessard, Recht & Packard, 2016, table 1):

    lr = 4 / (3 L + mu),   beta = (sqrt(3 k + 1) - 2) / (sqrt(3 k + 1) + 2),   factor = 1 - 2 / sqrt(3 k + 1)
    """
    root("nesterov_quadratic", L, mu)
    q = math.sqrt(3 * L / mu + 1)
    return Tuned(4 / (3 * L + mu), (q - 2) / (q + 2), 1 - 2 / q)


def iterations(factor, first, target, growth=0.0):
    """Steps t after which first (factor^t (1 + growth t))^2 stays below `target`. first: the gap of f at the start.
    Without growth t is ln(first / target) / (-2 ln factor). It is 0 where the gap is below already.
    """
    number("iterations", "factor", factor, low=0, high=1, open_high=True)
    number("iterations", "target", target, low=0, open_low=True)
    number("iterations", "growth", growth, low=0)
    if first <= target:
        return 0.0
    if not factor > 0:
        return 1.0
    wanted, rate = math.log(first / target) / 2, -math.log(factor)
    t = 2 * wanted / rate + 1 / rate  # above the root: there rate t - ln(1 + growth t) rises; Newton from the right
    while rate * t - math.log1p(growth * t) < wanted:
        t *= 2
    for _ in range(100):
        step = (rate * t - math.log1p(growth * t) - wanted) / (rate - growth / (1 + growth * t))
        t -= step
        if abs(step) <= 1e-12 * t:
            break
    return t


def check_step(lr, L, stacklevel=2):
    """Warn, with the bound, where gradient descent with this lr must be expected to diverge; returns lr."""
    if lr * L > 2 * (1 + 1e-9):
        warnings.warn(
            f"lr = {lr:.4g} is above 2/L = {2 / L:.4g}: gradient descent diverges on a quadratic of this "
            "curvature; take at most 1/L",
            RuntimeWarning,
            stacklevel=stacklevel,
        )
    return lr
