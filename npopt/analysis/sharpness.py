"""How sharp is a minimum?   Measures that depend on how the same function is written down, and some that do not.

A ReLU network stays the same function where the weights into a unit are multiplied by a > 0 and those out of it are
divided by a: f(D x) = f(x) for all x, D diagonal. The Hessian becomes D^-1 H D^-1. So lambda_max, the trace and SAM's
rise can be made anything (Dinh, Pascanu, Bengio & Bengio, ICML 2017). With T(x), a diagonal with T(D x) = D T(x),

    T H T        stays as it is: T = diag |x_i|, or the norm of its filter for every number of a filter (layers only)

which is the curvature that adaptive SAM sees: Kwon, Kim, Park & Choi, ICML 2021, arXiv:2102.11600, section 3. Likewise

    |x|_FR^2 = x'F x                              Liang, Poggio, Rakhlin & Stokes, AISTATS 2019, arXiv:1711.01530
    sum_(s,s') <w_s, w_s'> tr H_(s,s')            Petzka et al., NeurIPS 2021, arXiv:2001.00939, definition 3
"""

import math
from dataclasses import dataclass

from npopt import backend
from npopt.analysis.densities import Trace, sign_vector
from npopt.analysis.products import exact, length
from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np

WEIGHTS = ("matrix", "conv", "embedding")


def scales(problem, x, by="element"):
    """T(x), (dim,). by: "element", |x_i|, which fits the scaling of single units; or "filter", for each row of a matrix
    and filter of a convolution its norm, and |x_i| elsewhere, which fits the scaling of whole layers."""
    if by not in ("element", "filter"):
        raise UserError(f"scales: by must be 'element' or 'filter', got {by!r}")
    m = backend.xp(x)
    T = m.abs(x)
    for segment in problem.segments:
        if by == "filter" and segment.kind in WEIGHTS:
            rows = T[segment.slice].reshape(segment.shape[0], -1)
            rows[...] = m.sqrt((rows * rows).sum(axis=1)).reshape(-1, 1)
    return T


def scaled(product, T):
    """v -> T H T v: its lambda_max is the adaptive sharpness."""
    return lambda v: T * product(T * v)


@dataclass
class Rise:
    """What the worst step within a ball adds to the loss.

    one     f(x + e) - f(x) for SAM's e = rho T^2 g / |T g|
    most    the largest rise that was found; a lower bound of the true one
    step    e of that, (dim,)
    """

    one: float
    most: float
    step: object


def worst_rise(problem, x, rho, rows=None, T=None, steps=10, seed=0):
    """The Rise for |T^-1 e| <= rho. T None: 1, the ball of Foret, Kleiner, Mobahi & Neyshabur, ICLR 2021.

        e_1 = rho T^2 g(x) / |T g(x)|         e_(k+1) = rho T^2 g(x + e_k) / |T g(x + e_k)|

    Every e_k is the maximum over the ball of the loss linearised at x + e_(k-1), so where f is convex the rise grows
    from step to step. At a minimum of a quadratic it is power iteration with T H T and tends to rho^2 lambda_max / 2.
    Where g = 0 the first direction is random. A gradient at x, and one a step.
    """
    rho, steps = number("worst_rise", "rho", rho, low=0, open_low=True), whole("worst_rise", "steps", steps)
    g, T = backend.xp(x).empty_like(x), 1.0 if T is None else T
    base, found, best = problem.value_and_gradient(x, rows, out=g), [], None
    base = float(backend.to_host(base))
    if not math.isfinite(base):
        raise UserError(f"worst_rise: the loss of {problem.name} at x is {base}")
    if length(T * g) == 0:
        g = sign_vector(x.shape[0], seed, 0, x.dtype)
    for _ in range(steps):
        slope = T * g
        e = (rho / max(length(slope), 1e-300)) * (T * slope)
        found.append(float(backend.to_host(problem.value_and_gradient(x + e, rows, out=g))) - base)
        best = e if best is None or found[-1] == max(found) else best
    return Rise(found[0], max(found), best)


def fisher_rao(problem, x, rows=None, labels="data"):
    """The Fisher-Rao norm sqrt(x'F x), F = mean_b g_b g_b' over rows, g_b = grad l_b. Networks with tangents only.

    labels: "data", or "model": the mean over labels drawn from the network's outputs, for which F is the Gauss-Newton
    matrix. x'g_b = <dl_b/dz, J x>, and J x = k z for a ReLU network of k layers without biases. The l2 term is left
    out.
    """
    found = exact(problem, x, rows)
    if not hasattr(found, "fisher"):
        raise UserError(f"fisher_rao: {problem.name} has no tangents; it must be a network of layers that have them")
    return float(backend.to_host(found.fisher(x, labels))) ** 0.5


def relative_flatness(product, problem, x, name, draws=20, seed=0):
    """The relative flatness of one layer's weight matrix: a Trace of sum_(s,s') <w_s, w_s'> tr H_(s,s').

    product   v -> H v, of the whole Hessian
    name      the segment of W, (outputs, inputs), with rows w_s; H_(s,s') is the block of H at the rows s and s'

    With z and u independent random signs, (inputs,), and V_sj = (w_s'u) z_j in place of W, zero elsewhere, V'H V has
    that sum as its mean. Scaling whole layers of a ReLU network, or the rows of W, leaves it as it is.
    """
    segment = problem.segments.find(name)
    if segment.kind != "matrix":
        raise UserError(f"relative_flatness: {name} is of kind {segment.kind}; it must be a matrix")
    W, found = x[segment.slice].reshape(segment.shape), []
    for k in range(whole("relative_flatness", "draws", draws, low=2)):
        u, z = (sign_vector(segment.shape[1], seed, 2 * k + i, x.dtype) for i in range(2))
        v = backend.zeros(x.shape, x.dtype)
        v[segment.slice] = ((W @ u).reshape(-1, 1) * z).reshape(-1)
        found.append(float(backend.to_host(v @ product(v))))
    return Trace(float(np.mean(found)), float(np.std(found, ddof=1) / len(found) ** 0.5), np.array(found))
