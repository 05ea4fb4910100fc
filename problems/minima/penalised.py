"""Exact minima, certificates and gaps of linear models with a penalty (npopt.penalties): F(x) = f(x) + h(W).

All in float64 on the host, and independent of npopt's optimizers:

    L1, L1L2    up to solve.DIRECT unknowns by proximal Newton: x+ minimises the quadratic model of f, plus h, by
                coordinate descent. Beyond, least squares by coordinate descent on the columns. Then the linear system
                (Newton's method) is solved on the support with fixed signs. Its solution is kept if the optimality
                conditions hold
    L2          Newton's method
    Box         L-BFGS-B, then Newton's method on the coordinates between the bounds
"""

from npopt.errors import UserError
from npopt.penalties import L1, L1L2, L2, Box, Simplex
from problems.minima import coordinate, solve

import numpy as np
import scipy
import scipy.sparse
import scipy.special


def stationarity(problem, x, g=None):
    """The norm of the shortest subgradient of F at x, float64; 0 exactly at a minimum. g: grad f(x), if it is known.

    For a box and the simplex it is the distance of -grad f to the normal cone of the set at x.
    """
    v = (problem.exact(x)[1] if g is None else g).copy()
    h, w = problem.regulariser, problem.regularised(x)
    u = problem.regularised(v)  # a view: W's part of the gradient
    if isinstance(h, (L1, L2, L1L2)):
        u += h.l2 * w
        u[...] = np.where(w != 0, u + h.l1 * np.sign(w), np.sign(u) * np.maximum(np.abs(u) - h.l1, 0))
    elif isinstance(h, Box):
        low, high = h.bounds
        u[...] = np.where(w <= low, np.minimum(u, 0), np.where(w >= high, np.maximum(u, 0), u))
    elif isinstance(h, Simplex):
        inside = w > 0
        level = u[inside].mean() if inside.any() else u.min()
        u[...] = np.where(inside, u - level, np.minimum(u - level, 0))
    else:
        raise UserError(f"{problem.name}: no optimality condition is known for {h!r}")
    return float(np.linalg.norm(v))


def duality_gap(problem, x):
    """F(x) - D >= F(x) - F*, for losses with a conjugate l* and the penalties L1, L2, L1L2 or none, l1 + l2 > 0.

    Fenchel's dual, l2 that of f and of the penalty together:

        D(U) = -(1/n) sum_i l*(u_i; y_i) - sum_j max(|v_j| - l1, 0)^2 / (2 l2),   V = U'X/n,   |v_j| <= l1 where l2 = 0

    at u_i = l'(z_i), which is optimal at the minimum. Where a condition has to hold, u is shrunk towards 0, so l* stays
    finite. For l2 = 0 all u_i are shrunk by one factor. With an intercept sum_i u_i = 0 has to hold: then the positive
    or the negative u_i are shrunk by one factor. A quadratic loss with l1 > 0 has a best factor: see
    problems/minima/coordinate.py. Several outputs with intercepts are refused.
    """
    h = problem.regulariser
    if not (h is None or isinstance(h, (L1, L2, L1L2))):
        raise UserError(f"{problem.name}: the duality gap is known for the penalties L1, L2 and L1L2, and for none")
    l1, l2 = (0.0, problem.l2) if h is None else (float(h.l1), float(problem.l2 + h.l2))
    if l1 + l2 == 0:
        raise UserError(f"{problem.name}: the duality gap takes l1 > 0 or l2 > 0")
    w, loss, y = problem.regularised(x), problem.loss, problem.host_y
    if loss.quadratic and l1 > 0:
        c = float(x[-1]) if problem.intercept else None
        return coordinate.duality_gap(problem.exact_X, y, w, l1, l2, c)
    if problem.intercept and problem.outputs > 1:
        raise UserError(f"{problem.name}: the duality gap of several outputs is known without intercepts only")
    values, U = loss.arrays(problem.outputs_at(x, problem.exact_X), y, np)
    if problem.intercept:
        U = balanced(U)
    V = np.abs((problem.exact_X.T @ U) / problem.n)
    primal = values.mean() + l1 * np.abs(w).sum() + l2 / 2 * (w @ w)
    conjugate = 0.0
    if l2 > 0:
        conjugate = np.sum(np.maximum(V - l1, 0) ** 2) / (2 * l2)
    else:
        U = U * min(1.0, l1 / max(V.max(), 1e-300))
    return float(max(primal + loss.conjugate(U, y).mean() + conjugate, 0.0))


def balanced(U):
    """U with its positive or its negative numbers shrunk by one factor. The sum is then 0."""
    up, down = U[U > 0].sum(), -U[U < 0].sum()
    if up > down:
        return np.where(U > 0, U * (down / up), U)
    return np.where(U < 0, U * (up / down), U) if down > 0 else U


def minimiser(problem):
    """x* in float64. ArithmeticError: the penalty has no solver here, or the minimum could not be certified."""
    h, scale = problem.regulariser, max(1.0, float(np.sqrt(problem.square_norms.mean())))
    direct = problem.dim <= solve.DIRECT
    if isinstance(h, (L1, L1L2)) and not direct and problem.loss.quadratic:
        x = by_columns(problem, h, scale)
    elif not direct or isinstance(h, Simplex) or not isinstance(h, (L1, L2, L1L2, Box)):
        raise ArithmeticError(
            f"the minimum with {h!r} and {problem.dim} unknowns is not computed; L1, L2, L1L2 and "
            f"Box are, up to {solve.DIRECT} unknowns"
        )
    else:
        x = by_box(problem, h, scale) if isinstance(h, Box) else by_newton(problem, h, scale)
    left = stationarity(problem, x)
    if not left <= 1e-9 * scale:
        raise ArithmeticError(
            f"no minimum was found: the shortest subgradient stays at {left:.1e}; "
            "give the problem l2 > 0 or scale its columns"
        )
    return x


def smooth_part(problem, h):
    """(x -> (f + l2'/2 |W|^2, its gradient), x -> its Hessian): the L2 part of a penalty is smooth."""
    mask = np.zeros(problem.dim)
    problem.regularised(mask)[...] = h.l2

    def function(x):
        f, g = problem.exact(x)
        return f + 0.5 * (mask * x) @ x, g + mask * x

    return function, lambda x, damping: problem.hessian(x, damping) + np.diag(mask)


def by_newton(problem, h, scale):
    """Proximal Newton with a line search on F, then Newton's method on the support."""
    function, hessian = smooth_part(problem, h)
    weights = np.zeros(problem.dim)
    problem.regularised(weights)[...] = h.l1
    x, damping = np.zeros(problem.dim), 0.0
    f, g = function(x)
    for _ in range(100):
        if stationarity(problem, x) <= 1e-12 * scale:
            break
        H = hessian(x, damping)
        target = x.copy()
        coordinate.quadratic(H, H @ x - g, weights, 0.0, target, 0.0, 1e-15, 2000, False)
        target = on_support(H, H @ x - g, weights, target)
        step, F, p = 1.0, f + weights @ np.abs(x), target - x
        slope = g @ p + weights @ (np.abs(target) - np.abs(x))
        for _ in range(50):
            trial = target if step == 1.0 else x + step * p
            f1, g1 = function(trial)
            if f1 + weights @ np.abs(trial) <= F + 1e-4 * step * slope + 1e-15 * abs(F):
                break
            step /= 2
        if np.array_equal(trial, x):
            if damping >= 1.0:
                break
            step = 0.0
        x, f, g, damping = trial, f1, g1, solve.damped(damping, step)
    return x


def on_support(H, b, weights, x):
    """The point of least 1/2 x'H x - b.x + sum_j weights_j |x_j| with the support and signs of x, where that is the
    minimiser; else x."""
    used = (x != 0) | (weights == 0)
    if not used.any():
        return x
    signs = weights[used] * np.sign(x[used])
    better = np.zeros_like(x)
    better[used] = np.linalg.lstsq(H[np.ix_(used, used)], b[used] - signs, rcond=1e-14)[0]
    v = H @ better - b
    same = np.all((np.sign(better[used]) == np.sign(x[used])) | (weights[used] == 0))
    return better if same and np.all(np.abs(v[~used]) <= weights[~used] * (1 + 1e-9)) else x


def by_columns(problem, h, scale):
    """Least squares with many columns: coordinate descent, then the linear system on the support."""
    columns = coordinate.Columns(problem.exact_X, problem.host_y, problem.intercept)
    l1, l2, x = float(h.l1), float(problem.l2 + h.l2), None
    if l1 == 0:
        raise ArithmeticError(f"l1 = 0 with {problem.dim} unknowns; give LeastSquares the l2 instead of a penalty")
    for tol in (1e-8, 1e-11, 1e-14):
        found = coordinate.solve(columns, None, l1, l2, tol=tol * scale, start=None if x is None else x[: problem.d])
        x = np.append(found.x, found.intercept) if problem.intercept else found.x.copy()
        used = np.flatnonzero(x) if not problem.intercept else np.union1d(np.flatnonzero(x), [problem.d])
        A = problem.design[:, used]
        A = A.toarray() if scipy.sparse.issparse(A) else A
        ridge = np.where(used < problem.d, l2, 0.0)
        right = A.T @ problem.host_y / problem.n - np.where(used < problem.d, l1 * np.sign(x[used]), 0.0)
        better = np.zeros_like(x)
        better[used] = np.linalg.lstsq(A.T @ A / problem.n + np.diag(ridge), right, rcond=1e-14)[0]
        kept = (np.sign(better) == np.sign(x)) | (np.arange(x.size) >= problem.d)
        if kept.all() and stationarity(problem, better) <= 1e-10 * scale:
            return better
        if stationarity(problem, x) <= 1e-12 * scale:
            break
    return x


def by_box(problem, h, scale):
    """Bounds on W."""
    low, high = h.bounds
    bounds = [(low, high)] * (problem.outputs * problem.d) + [(-np.inf, np.inf)] * (
        problem.dim - problem.outputs * problem.d
    )
    start = np.clip(np.zeros(problem.dim), *np.array(bounds).T)
    x = scipy.optimize.minimize(
        problem.exact,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-9 * scale, "maxcor": 30},
    ).x
    lows, highs = np.array(bounds).T
    for _ in range(50):
        f, g = problem.exact(x)
        free = ~(((x <= lows) & (g >= 0)) | ((x >= highs) & (g <= 0)))
        if np.linalg.norm(g[free]) <= 1e-13 * scale or not free.any():
            break
        p = np.zeros_like(x)
        p[free] = -scipy.linalg.lstsq(problem.hessian(x)[np.ix_(free, free)], g[free])[0]
        step = 1.0
        while step > 1e-10 and problem.exact(np.clip(x + step * p, lows, highs))[0] > f + 1e-15 * abs(f):
            step /= 2
        x = np.clip(x + step * p, lows, highs)
    return x
