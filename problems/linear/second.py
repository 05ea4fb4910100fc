"""Products with the exact Hessian of a linear model."""

from npopt import backend
from problems.linear import data
from problems.linear.losses import Loss

import numpy as np


class Second:
    """A part of LinearModel."""

    def curvature(self, x, rows=None, weights=None):
        """v -> H v. With V the rows of v and c their intercepts, row by row

            r = l'' (V a + c)        H v = (1/B) sum_b w_b (r_b a_b', r_b) + l2 mean(w) V

        l'' is computed once, in float64 on the host, and kept: K x K numbers a row. None where the loss does not
        define it. A product costs two passes over the rows. It has no penalty in it. (Newton's method has a product of
        its own, over all rows on the host: problems/minima/exact.py.)
        """
        if type(self.loss).second is Loss.second:
            return None
        self.check(x)
        A, y = self.X, self.host_y
        if rows is not None:
            rows = data.row_numbers(self.name, rows, self.n)
            A, y = self.X[rows], y[np.asarray(backend.to_host(rows))]
        z = np.asarray(backend.to_host(self.along(A, x)), np.float64)
        second = self.loss.second(z, y) / len(y)  # (B, K, K)
        mean = 1.0
        if weights is not None:
            w = np.asarray(backend.to_host(weights), np.float64)
            second, mean = second * w[:, None, None], w.mean()
        second, weighted = backend.asarray(second.astype(self.dtype)), self.outputs * self.d

        def product(v):
            self.check(v, "v")
            r = (second * self.along(A, v)[:, None, :]).sum(2)
            out = backend.xp(v).empty_like(v)
            out[:weighted] = (r.T @ A).reshape(-1) + (self.l2 * float(mean)) * v[:weighted]
            out[weighted:] = r.sum(0)[: self.dim - weighted]
            return out

        return product

    def along(self, A, v):
        """(B, K): v's outputs on the rows of A."""
        weighted = self.outputs * self.d
        z = A @ v[:weighted].reshape(self.outputs, self.d).T
        return z + v[weighted:] if self.intercept else z
