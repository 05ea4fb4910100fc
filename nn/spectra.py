"""What the singular values of a weight say.

A weight (out, ...) is the matrix (out, rest); s its singular values, falling, r = min(out, rest) of them.

    condition_number     s_1 / s_r, infinite where s_r = 0
    spectral_norm        s_1
    rank_by_sum          sum s / s_1                                      the course book's first definition
    rank_by_entropy      exp(-sum p log p), p = s / sum s                 its second; Roy & Vetterli, EUSIPCO 2007
    rank_by_share        (how many k have s_1 + ... + s_k < 0.95 sum s) / r    what its code computes

Weights may lie on a device; all this is computed on the host, in float64.
"""

from npopt import backend

import numpy as np


def singular_values(w):
    """(r,) float64, falling, on the host."""
    w = np.asarray(backend.to_host(w), np.float64)
    return np.linalg.svd(w.reshape(w.shape[0], -1), compute_uv=False)


def condition_number(s):
    return float(s[0] / s[-1]) if s[-1] > 0 else np.inf


def spectral_norm(s):
    return float(s[0])


def rank_by_sum(s):
    return float(s.sum() / s[0])


def rank_by_entropy(s):
    p = s[s > 0] / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def rank_by_share(s, share=0.95):
    return float((np.cumsum(s) < share * s.sum()).sum() / len(s))


METRICS = {f.__name__: f for f in (condition_number, spectral_norm, rank_by_sum, rank_by_entropy, rank_by_share)}


class PowerIteration:
    """Estimates s_max of a weight that changes slowly, one step a call, from a vector that it keeps.

        v <- W' u / |W' u|        u <- W v / |W v|        s = u' W v

    Miyato, Kataoka, Koyama & Yoshida, ICLR 2018, arXiv:1802.05957, Algorithm 1. s never exceeds s_max.
    u lives on the host, where the weight is read at each call.
    """

    def __init__(self, shape, rng):
        self.u = rng.standard_normal(shape[0])
        self.u /= np.linalg.norm(self.u)

    def __call__(self, w, steps=1):
        """The estimate after `steps` more steps."""
        w = np.asarray(backend.to_host(w), np.float64).reshape(w.shape[0], -1)
        for _ in range(steps):
            v = w.T @ self.u
            v /= np.linalg.norm(v) or 1.0
            wv = w @ v
            size = np.linalg.norm(wv)
            if size > 0:
                self.u = wv / size
        return float(self.u @ w @ v)
