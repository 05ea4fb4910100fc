"""PowerSGD: Vogels, Karimireddy & Jaggi, NeurIPS 2019, arXiv:1905.13727, Algorithms 1 and 2.

    D_i = g_i + e_i, and for each matrix of it, M_i (a, b), with Q (b, r) of the last round:
        P = mean_i M_i Q,    P <- its columns made orthonormal,    Q = mean_i M_i' P,    M = P Q'
    other segments:  M = mean_i M_i
    e_i <- D_i - M,    m <- beta m + M,    x <- x - lr (M + m)

One step of subspace iteration a round, warm-started. A matrix costs r (a + b) numbers in the place of a b. The first Q
is standard normal and the same on all nodes. The memory is D_i less the mean that was decoded, so that the mean memory
and all steps add up to all gradients. A matrix on which r does not save numbers, r (a + b) >= a b, is sent whole.
"""

from npopt import backend
from npopt.backend import xp
from npopt.distributed.base import Algorithm
from npopt.values import number, whole

import numpy as np


class PowerSGD(Algorithm):
    """lr, the rank r, the momentum beta, `batch` rows a gradient (None: all). Matrices are the segments of two or more
    axes: (first axis, the rest)."""

    def __init__(self, lr, rank=2, beta=0.9, batch=None):
        self.lr, self.rank = number("PowerSGD", "lr", lr, low=0), whole("PowerSGD", "rank", rank)
        self.beta = number("PowerSGD", "beta", beta, low=0, high=1, open_high=True)
        self.batch = None if batch is None else whole("PowerSGD", "batch", batch)

    def matrices(self, me, x):
        """[(slice, shape (a, b), first Q)] of what is sent as factors."""
        found = []
        for segment in me.problem.segments:
            a = segment.shape[0] if len(segment.shape) > 1 else 1
            b = (segment.stop - segment.start) // a
            if self.rank * (a + b) < a * b:
                draws = backend.generator(me.seed, "power " + segment.name).standard_normal((b, self.rank))
                found.append((segment.slice, (a, b), backend.asarray(draws.astype(x.dtype))))
        return found

    def node(self, me):
        x = me.start()
        some = self.matrices(me, x)
        x, e, m, Qs = me.state(x, 0 * x, 0 * x, [Q for _, _, Q in some])
        rest = np.ones(len(x), bool)
        for where, _, _ in some:
            rest[where] = False
        rest = backend.asarray(np.flatnonzero(rest))
        while True:
            e += me.gradient(x, me.batch(self.batch))
            M = 0 * x
            if len(rest):
                M[rest] = (yield me.all_reduce(e[rest])) / me.count
            for k, (where, shape, _) in enumerate(some):
                D = e[where].reshape(shape)
                P = orthonormal((yield me.all_reduce(D @ Qs[k])) / me.count)
                Qs[k] = (yield me.all_reduce(D.T @ P)) / me.count
                M[where] = (P @ Qs[k].T).reshape(-1)
            e -= M
            m = self.beta * m + M
            x = x - self.lr * (M + m)
            yield me.show(x, e, m, Qs)


def orthonormal(P):
    """The columns of P, (a, r), made orthonormal one after another (modified Gram-Schmidt); a zero column stays."""
    P, m = P.copy(), xp(P)
    for k in range(P.shape[1]):
        for j in range(k):
            P[:, k] -= (P[:, j] * P[:, k]).sum() * P[:, j]
        norm = m.sqrt((P[:, k] * P[:, k]).sum())
        P[:, k] /= m.where(norm > 0, norm, 1)
    return P
