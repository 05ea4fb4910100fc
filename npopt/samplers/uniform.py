"""Every row as likely as any other: with replacement, or in an order that holds each row once."""

from npopt import backend
from npopt.samplers.base import Batch, Sampler

import numpy as np


class WithReplacement(Sampler):
    """Rows drawn independently and uniformly; an epoch is n draws, so some rows come twice and about n/e not at all."""

    def epoch(self, e):
        return backend.generator(self.seed, "with replacement", e).integers(0, self.n, self.n), None


class _Shuffled(Sampler):
    def take(self, k):
        return super().take(k) if self.size < self.n else self._whole(k)

    def _whole(self, k):
        """A full batch has no order: one pass over all rows."""
        for _ in range(k):
            self.taken += 1
            yield Batch(None, None, 0, self.taken - 1)

    def rows(self, k):
        return super().rows(k) if self.size < self.n else np.tile(np.arange(self.n), sum(1 for _ in self.take(k)))


class ShuffleOnce(_Shuffled):
    """One random order, the same in every epoch: batch j holds the same rows each time, and has the key j."""

    fixed = True

    def epoch(self, e):
        return backend.generator(self.seed, "shuffle once").permutation(self.n), None


class RandomReshuffling(_Shuffled):
    """A new random order each epoch: every row once an epoch."""

    def epoch(self, e):
        return backend.generator(self.seed, "random reshuffling", e).permutation(self.n), None
