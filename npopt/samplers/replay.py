"""Every batch several times in a row, for adversarial training "for free": Shafahi et al. 2019, arXiv:1904.12843."""

from npopt.errors import UserError
from npopt.samplers.base import Sampler
from npopt.values import whole


class Replay(Sampler):
    """The batches of another sampler, each handed out `times` times.

    Epochs count replays: an epoch has as many steps as one of the other sampler. So a budget in epochs costs what it
    costs without replays, and each row is drawn in one epoch of `times`. A batch's `epoch` is that of its order.
    """

    learns = True  # not in order: a compiled stretch could not cut its batches from an epoch

    def __init__(self, sampler, times):
        if not isinstance(sampler, Sampler) or sampler.learns:
            raise UserError(f"Replay: sampler must be one whose order is known beforehand, got {sampler!r}")
        self.sampler, self.times = sampler, whole("Replay", "times", times)

    def start(self, problem, seed):
        inner = self.sampler
        inner.start(problem, seed)
        self.n, self.seed, self.size, self.steps_per_epoch = inner.n, seed, inner.size, inner.steps_per_epoch
        self.batch_size, self.drop_last, self.probabilities = inner.batch_size, inner.drop_last, inner.probabilities
        self.taken, self._at, self._batch = 0, None, None

    @property
    def fixed(self):
        return self.sampler.fixed

    def epoch(self, e):
        """The order of the other sampler's epoch e."""
        return self.sampler.epoch(e)

    def take(self, k):
        for _ in range(k):
            which = self.taken // self.times
            if which != self._at:
                self.sampler.taken = self._at = which
                (self._batch,) = self.sampler.take(1)
            self.taken += 1
            yield self._batch
