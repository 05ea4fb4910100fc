"""The shape of a surface: which of its basins and rings last, by sublevel-set persistence. Needs GUDHI.

The set {L <= h} grows with h. A basin is born at its lowest point and dies, merged into a deeper one, at the lowest
pass between them: its life is the height of the barrier that surrounds it. A ring is born where a ridge closes around a
hill and dies at the hill's top. Edelsbrunner, Letscher & Zomorodian, Discrete Comput. Geom. 28, 2002; on grids:
Wagner, Chen & Vucini, 2012. Values belong to the corners of squares, and an edge or a square has the largest of its
corners: neighbours are the four to the left, right, above and below.
"""

from dataclasses import dataclass

from npopt.errors import UserError
from npopt.optional import optional

import numpy as np


@dataclass
class Diagram:
    """pairs: {0: basins, 1: rings, 2: the whole of a closed surface}, each (k, 2) of births and deaths, the longest
    life first; what never dies has the death inf. Pairs without a life are left out."""

    pairs: dict

    @property
    def betti(self):
        """(b0, b1, b2): how many of each dimension never die: the whole grid's Betti numbers."""
        return tuple(int(np.isinf(self.pairs[k][:, 1]).sum()) for k in range(3))

    def lives(self, dimension=0):
        """The lives, death - birth, longest first; those that never die are left out."""
        life = self.pairs[dimension][:, 1] - self.pairs[dimension][:, 0]
        return life[np.isfinite(life)]

    def lasting(self, least, dimension=0):
        """How many live for longer than `least`, those that never die among them."""
        life = self.pairs[dimension][:, 1] - self.pairs[dimension][:, 0]
        return int((life > least).sum())


def persistence(grid, periodic=False):
    """The Diagram of a grid, (n, m). periodic: opposite edges are one, so that the grid is a torus."""
    gudhi = optional("gudhi", "gudhi", "persistence")
    grid = np.asarray(grid, float)
    if grid.ndim != 2 or min(grid.shape) < 2 or not np.isfinite(grid).all():
        raise UserError(f"persistence: the grid must be finite numbers (n, m), both at least 2, got {grid.shape}")
    if periodic:
        complex_ = gudhi.PeriodicCubicalComplex(vertices=grid, periodic_dimensions=[True, True])
    else:
        complex_ = gudhi.CubicalComplex(vertices=grid)
    complex_.compute_persistence()
    found = {}
    for k in range(3):
        some = np.asarray(complex_.persistence_intervals_in_dimension(k), float).reshape(-1, 2)
        some = some[some[:, 1] > some[:, 0]]
        found[k] = some[np.argsort(some[:, 0] - some[:, 1], kind="stable")]
    return Diagram(found)


def bottleneck(one, two, dimension=0):
    """The bottleneck distance of two diagrams: the least t for which their points can be matched, each with one at most
    t away in both coordinates, or left alone if half of its life is at most t. No larger than the largest difference of
    the two grids (Cohen-Steiner, Edelsbrunner & Harer, Discrete Comput. Geom. 37, 2007)."""
    gudhi = optional("gudhi", "gudhi", "bottleneck")
    return float(gudhi.bottleneck_distance(one.pairs[dimension], two.pairs[dimension]))
