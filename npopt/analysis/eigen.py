"""Extreme eigenvalues of a symmetric matrix with their vectors, each with a certificate: its residual."""

from dataclasses import dataclass

from npopt import backend
from npopt.analysis.curvature import krylov
from npopt.analysis.products import length
from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np

ORDERS = {"largest": lambda v: -v, "smallest": lambda v: v, "magnitude": lambda v: -np.abs(v)}


@dataclass
class Pairs:
    """Approximate eigenpairs of A.

    values     (k,), Rayleigh quotients v'Av
    vectors    (k, dim), of length 1, on the device in use
    errors     (k,) residuals |A v - value v|: an eigenvalue of A lies within that distance of the value. A more extreme
               one may have been missed.
    products   how many products with A it took
    """

    values: np.ndarray
    vectors: object
    errors: np.ndarray
    products: int

    @property
    def value(self):
        """The first value."""
        return float(self.values[0])


def scalar(value):
    return float(backend.to_host(value))


def power_iteration(product, dim, count=1, steps=100, tol=1e-3, seed=0, dtype="float64"):
    """The `count` eigenvalues of largest magnitude, one after the other: Pairs.

        v <- A v / |A v|, made orthogonal to the pairs before, until |A v - (v'Av) v| <= tol |v'Av|

    or for `steps` products each; whether it got there is in `errors`. It is slow where the next eigenvalue is near in
    magnitude, above all where it has the other sign. `eigenpairs` then needs far fewer products.
    """
    count, steps = min(whole("power_iteration", "count", count), dim), whole("power_iteration", "steps", steps)
    tol = number("power_iteration", "tol", tol, low=0)
    vectors, values, errors, products = backend.empty((count, dim), dtype), [], [], 0
    for k in range(count):
        v, found = vectors[k], vectors[:k]
        backend.normals(backend.key(seed, "power iteration", k), v)
        for step in range(steps + 1):
            for _ in range(2):
                v -= found.T @ (found @ v)
            size = length(v)
            if size == 0:
                raise UserError("power_iteration: the matrix is 0 beside the pairs that were found; ask for fewer")
            v /= size
            w = product(v)
            value, products = scalar(v @ w), products + 1
            error = length(w - value * v)
            if step == steps or error <= tol * abs(value):
                break
            v[...] = w
        values.append(value)
        errors.append(error)
    return Pairs(np.array(values), vectors, np.array(errors), products)


def eigenpairs(product, dim, count=1, steps=40, seed=0, which="largest", dtype="float64"):
    """`count` extreme eigenvalues by `steps` steps of Lanczos with full re-orthogonalisation (curvature.krylov): Pairs.

    which: "largest", "smallest" or "magnitude". `count` more products give the residuals, so that they are true even
    where rounding spoiled the process. Eigenvalues that occur more than once come once. There are fewer pairs than
    asked for where the process ends before it has found as many.
    """
    if which not in ORDERS:
        raise UserError(f"eigenpairs: which must be one of {', '.join(ORDERS)}, got {which!r}")
    q, values, vectors, _ = krylov(product, dim, steps, seed, dtype=dtype)
    chosen = np.argsort(ORDERS[which](values), kind="stable")[: whole("eigenpairs", "count", count)]
    found = backend.asarray(np.ascontiguousarray(vectors[:, chosen].T).astype(dtype)) @ q
    quotients, errors = [], []
    for k in range(len(chosen)):
        v = found[k]
        v /= length(v)
        w = product(v)
        quotients.append(scalar(v @ w))
        errors.append(length(w - quotients[-1] * v))
    return Pairs(np.array(quotients), found, np.array(errors), q.shape[0] + len(chosen))


class Top:
    """The largest eigenvalue of a matrix that changes little from call to call, such as the Hessian along a path.

        top = Top(dim);   value, error = top(product)

    Lanczos of `steps` products begins with the vector v with which the call before ended, and a tenth of a random one,
    lest it keep to an eigenvector that others have overtaken. It begins again with what it found, at most `tries`
    times, until |A v - value v| <= tol |value|: `error` is that length, and some eigenvalue lies within it. Then a call
    takes about `steps` + 1 products. The first vector, and the tenths, are functions of (seed, call).
    """

    def __init__(self, dim, steps=6, tol=1e-2, tries=20, seed=0, dtype="float64"):
        self.dim, self.steps, self.tries = dim, whole("Top", "steps", steps, low=2), whole("Top", "tries", tries)
        self.tol = number("Top", "tol", tol, low=0, open_low=True)
        self.seed, self.dtype, self.calls, self.vector = seed, dtype, 0, None

    def __call__(self, product):
        start = backend.normals(backend.key(self.seed, "top", self.calls), backend.empty((self.dim,), self.dtype))
        if self.vector is not None:
            start = self.vector + (0.1 / length(start)) * start
        self.calls += 1
        for _ in range(self.tries):
            q, values, vectors, _ = krylov(product, self.dim, self.steps, start=start, dtype=self.dtype)
            start = backend.asarray(vectors[:, -1].astype(self.dtype)) @ q
            start /= length(start)
            w = product(start)
            value = scalar(start @ w)
            error = length(w - value * start)
            if error <= self.tol * abs(value):
                break
        self.vector = start
        return value, error
