"""Rows in their own order, as parallel streams: batches for truncated back-propagation through time."""

from npopt.samplers.base import Sampler

import numpy as np


class Sequential(Sampler):
    """The n rows are cut into B = batch_size streams of m = n // B rows; batch j holds row j of each stream:

        (j, m + j, 2 m + j, ..., (B - 1) m + j),    j = 0, ..., m - 1

    So place b of a batch continues place b of the batch before: with feeds of one long text (Windows) a recurrent layer
    of `streams` = B goes on with its state. Every epoch is the same; n - m B rows behind the last stream are left out.
    """

    fixed = True

    def __init__(self, batch_size=1):
        super().__init__(batch_size, drop_last=True)

    def epoch(self, e):
        return np.arange(self.steps_per_epoch * self.size).reshape(self.size, -1).T.reshape(-1), None
