"""Pairs of a sparse vector and what is seen of it, drawn anew at every step.

The setting of section 4.1 of Chen, Liu, Wang & Yin, NeurIPS 2018, arXiv:1808.10038, with the details of their code.
"""

import functools

from npopt import backend
from npopt.errors import UserError
from npopt.values import Value, number, whole

import numpy as np


def bernoulli_normal(shape, dtype, density, key):
    """(count, n): entry by entry, in order, N(0, 1) with this probability, else 0. The normal numbers of the key go to
    the entries that are not 0, one after the other; on a CPU no others are drawn."""
    m = backend.xp()
    used = backend.row_uniform(backend.key(key, "where"), None, backend.empty(shape, "float32")).reshape(-1) < density
    what = backend.key(key, "what")
    if m is np:
        x, places = np.zeros(used.size, dtype), np.flatnonzero(used)
        x[places] = backend.normals(what, np.empty(places.size, dtype))
    else:
        z = backend.normals(what, backend.empty(used.shape, dtype))
        x = m.where(used, z[m.cumsum(used) - 1], m.zeros((), dtype=dtype))
    return x.reshape(shape)


class SparseCodes(Value):
    """b = A x* + noise with one fixed A, (m, n): each x*_j is N(0, 1) with probability `density`, else 0.

    A           A_ij ~ N(0, 1/m), drawn from `seed`, its columns then scaled to length 1
    condition   None, or the ratio c of the largest to the smallest singular value before the columns are scaled: the
                singular values become 1, ..., 1/c, evenly in the logarithm
    snr         None: no noise; else in dB: a sample's noise has the standard deviation std(A x*) 10^(-snr/20), the
                first that of the sample's m numbers

    What is drawn is a function of a key, such as that of (seed, step); a shorter draw is the start of a longer one.
    """

    def __init__(self, m=250, n=500, density=0.1, snr=None, condition=None, seed=0):
        self.m, self.n = whole("SparseCodes", "m", m, low=2), whole("SparseCodes", "n", n, low=2)
        self.density = number("SparseCodes", "density", density, low=0, high=1, open_low=True)
        self.snr = None if snr is None else number("SparseCodes", "snr", snr, low=-100, high=300)
        self.condition = None if condition is None else number("SparseCodes", "condition", condition, low=1)
        self.seed = whole("SparseCodes", "seed", seed, low=0)

    @functools.lru_cache(maxsize=8)  # noqa: B019 (of values, which are few and hold no array)
    def dictionary(self):
        """A, (m, n) float64 on the host."""
        A = backend.generator(self.seed, "dictionary").standard_normal((self.m, self.n)) / np.sqrt(self.m)
        if self.condition is not None:
            U, s, V = np.linalg.svd(A, full_matrices=False)
            A = U * np.logspace(0, -np.log10(self.condition), len(s)) @ V
        A /= np.sqrt((A * A).sum(0))
        A.setflags(write=False)
        return A

    def draw(self, count, key, At):
        """(b, x*): (count, m) and (count, n), a function of the key; At: A', (n, m), of their dtype and device."""
        if At.shape != (self.n, self.m):
            raise UserError(f"SparseCodes: At must be ({self.n}, {self.m}), got {tuple(At.shape)}")
        x = bernoulli_normal((count, self.n), At.dtype, self.density, key)
        b = x @ At
        if self.snr is not None:
            noise = backend.empty((count, self.m), At.dtype)
            backend.normals(backend.key(key, "noise"), noise.reshape(-1))
            noise *= b.std(axis=1, keepdims=True) * 10.0 ** (-self.snr / 20)
            b += noise
        return b, x

    def held(self, part, count, At):
        """The same `count` samples each time, of "validation" or "test"."""
        return self.draw(count, backend.key(self.seed, part), At)


def nmse(x, truth):
    """10 log10( sum |x - x*|^2 / sum |x*|^2 ), the sums over the whole set, in float64: a Python float, in dB.

    x, truth: (count, n). This is not the mean of the samples' dB.
    """
    error = x - truth
    error, size = (backend.norm(v.reshape(-1)) for v in (error, truth))
    error, size = float(backend.to_host(error)), float(backend.to_host(size))
    if not size:
        raise UserError("nmse: all x* are 0; draw more samples, or denser ones")
    return 20 * np.log10(error / size) if error else -np.inf
