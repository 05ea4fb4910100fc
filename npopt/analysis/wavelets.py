"""A surface by scale: its two-dimensional wavelet transform. Needs PyWavelets.

With Haar's wavelet every block ((a, b), (c, d)) of two rows and two columns becomes

    A = (a + b + c + d) / 2     H = (a + b - c - d) / 2     V = (a - b + c - d) / 2     D = (a - b - c + d) / 2

(Mallat, IEEE Trans. PAMI 11, 1989), and the next level does so with the A. Sums of squares are kept. H is what changes
along the first index, V along the second, D what no plane has.
"""

from dataclasses import dataclass

from npopt.errors import UserError
from npopt.optional import optional
from npopt.values import whole

import numpy as np


@dataclass
class Wavelets:
    """Coefficients of a grid.

    coarse    (n / 2^levels, m / 2^levels): the A of the last level
    details   [(H, V, D)] from the finest level, of half the grid's size, to the coarsest
    kind      the wavelet's name
    """

    coarse: np.ndarray
    details: list
    kind: str

    def strength(self, level):
        """sqrt(H^2 + V^2 + D^2) of a level, counted from 0, the finest."""
        return np.sqrt(sum(part**2 for part in self.details[level]))

    @property
    def shares(self):
        """(levels,): the part of the grid's variance about its mean that each level's details have, finest first; the
        rest is that of `coarse`."""
        energies = np.array([sum((part**2).sum() for part in parts) for parts in self.details])
        return energies / (energies.sum() + ((self.coarse - self.coarse.mean()) ** 2).sum())

    def inverse(self):
        """The grid again."""
        pywt = optional("pywt", "PyWavelets", "wavelets")
        return pywt.waverec2([self.coarse, *self.details[::-1]], self.kind, mode="periodization")


def wavelets(grid, levels=2, kind="haar"):
    """The Wavelets of a grid, (n, m), n and m multiples of 2^levels. kind: a name of PyWavelets; those that are longer
    than two numbers see the grid as periodic."""
    pywt = optional("pywt", "PyWavelets", "wavelets")
    grid, levels = np.asarray(grid, float), whole("wavelets", "levels", levels)
    if grid.ndim != 2 or not grid.size or any(n % 2**levels for n in grid.shape) or not np.isfinite(grid).all():
        raise UserError(
            f"wavelets: the grid must be finite, its sides multiples of {2**levels} for {levels} levels, "
            f"got shape {grid.shape}"
        )
    coarse, *details = pywt.wavedec2(grid, kind, mode="periodization", level=levels)
    return Wavelets(coarse, [tuple(parts) for parts in details[::-1]], kind)
