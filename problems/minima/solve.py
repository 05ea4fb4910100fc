"""Exact answers for convex problems, by other methods than the optimizers': Newton's method, extreme eigenvalues."""

import functools

import numpy as np
import scipy
import threadpoolctl

DIRECT = 2000  # up to this many unknowns matrices are formed and factorised


def one_thread(function):
    """Run with one BLAS thread: the answer is then the same whatever the threads of a run.

    And a small factorisation does not wait for a second thread on a busy machine: 0.3 s against 14 s were measured for
    a multinomial model of 640 unknowns.
    """

    @functools.wraps(function)
    def limited(*arguments):
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            return function(*arguments)

    return limited


def newton(function, hessian, product, x, tolerance, accept, steps=200):
    """(x, f, |grad f|) with |grad f| <= tolerance, or as far as float64 goes.

        p = -H^{-1} g, by Cholesky up to DIRECT unknowns, by conjugate gradients beyond
        x <- x + s p, s = 1, 1/2, 1/4, ... until f falls by 1e-4 s |g'p|, or, where f has no digits left, |g| falls

    function(x) -> (f, g); hessian(x, damping) -> (d, d) array; product(x, damping) -> (v -> H v): the Hessian, plus
    `damping` times that of a parabola above the function. Damping is 0 until a step has to be short, and goes back to 0
    afterwards. A step has to be short, for example, where the Hessian of a loss with straight pieces is singular. A
    gradient norm that stays above `accept` is an ArithmeticError: there is no minimiser, or the problem is too
    ill-conditioned to certify one.
    """
    f, g = function(x)
    norm, damping = np.linalg.norm(g), 0.0
    for _ in range(steps):
        if not norm > tolerance:
            break
        p = direction(x, g, norm, damping, hessian, product)
        slope, step = g @ p, 1.0
        for _ in range(60):
            f1, g1 = function(x + step * p)
            norm1 = np.linalg.norm(g1)
            if f1 <= f + 1e-4 * step * slope or (norm1 < norm and f1 <= f + 1e-14 * abs(f)):
                break
            step /= 2
        else:
            if damping >= 1.0:  # a step by that parabola must descend: rounding
                break
            damping = damped(damping, 0.0)
            continue
        x, f, g, norm, damping = x + step * p, f1, g1, norm1, damped(damping, step)
    if not norm <= accept:
        raise ArithmeticError(
            f"no minimum was found: Newton's method stops at a gradient norm of {norm:.1e}, not below {accept:.1e}; "
            "give the problem l2 > 0 or scale its columns"
        )
    return x, f, norm


def damped(damping, step):
    """The next damping after a step shortened by the factor `step`: up while steps are short, else down to 0."""
    if step < 0.1:
        return min(1.0, max(1e-3, 10 * damping))
    return damping / 10 if damping > 1e-6 else 0.0


def direction(x, g, norm, damping, hessian, product):
    if x.size <= DIRECT:
        H = hessian(x, damping)
        # A direction that no row touches has curvature 0 and gradient 0; the tiny shift makes it a step of 0.
        H[np.diag_indices(x.size)] += 1e-13 * max(np.trace(H) / x.size, np.finfo(float).tiny)
        try:
            return -scipy.linalg.cho_solve(scipy.linalg.cho_factor(H, lower=True, overwrite_a=True), g)
        except np.linalg.LinAlgError:
            return -scipy.linalg.lstsq(hessian(x, damping), g)[0]
    return conjugate_gradients(product(x, damping), -g, min(1e-2, norm))


def conjugate_gradients(product, b, relative, steps=2000):
    """v with |H v - b| <= relative |b|, H symmetric and positive semi-definite; stops where curvature ends."""
    v, r = np.zeros_like(b), b.copy()
    p, rr = r.copy(), b @ b
    goal = relative**2 * rr
    for _ in range(steps):
        Hp = product(p)
        curvature = p @ Hp
        if curvature <= 1e-30 * (p @ p):
            return v if v.any() else p
        a = rr / curvature
        v += a * p
        r -= a * Hp
        rr, before = r @ r, rr
        if rr <= goal:
            break
        p = r + (rr / before) * p
    return v


def largest_eigenvalue(product, d, trace):
    """An upper estimate of the largest eigenvalue of a symmetric positive semi-definite (d, d) matrix.

    Lanczos from a fixed start: the value found is a lower bound, so 1 percent is added; the trace is an upper bound.
    """
    if trace == 0:
        return 0.0
    from scipy.sparse.linalg import LinearOperator, eigsh

    start = np.random.Generator(np.random.PCG64(0)).standard_normal(d)
    operator = LinearOperator((d, d), matvec=product, dtype=np.float64)
    top = eigsh(operator, k=1, v0=start, tol=1e-4, return_eigenvectors=False)[0]
    return min(1.01 * top, trace)
