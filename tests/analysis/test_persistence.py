"""Persistence of grids whose basins, passes and holes are known."""

import itertools
import sys

from npopt.analysis import Diagram, bottleneck, persistence
from problems.wells import Wells

import numpy as np
import pytest

pytest.importorskip("gudhi", reason="GUDHI is optional")


def basins(grid):
    """Births and deaths of basins by a slow union of neighbours, cell by cell in the order of their values."""
    parent, birth, pairs = {}, {}, []

    def root(cell):
        while parent[cell] != cell:
            cell = parent[cell]
        return cell

    for cell in sorted(np.ndindex(grid.shape), key=lambda cell: grid[cell]):
        parent[cell], birth[cell] = cell, grid[cell]
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            other = (cell[0] + step[0], cell[1] + step[1])
            if other in parent:
                old, young = sorted((root(cell), root(other)), key=lambda c: birth[c])
                if old != young:
                    pairs.append((birth[young], grid[cell]))
                    parent[young] = old
    pairs = [(b, d) for b, d in pairs if d > b] + [(grid.min(), np.inf)]
    return np.array(sorted(pairs))


def test_two_wells_die_at_their_pass():
    """Depths 0 and 0.2, the pass at 0.7: (0, inf) and (0.2, 0.7)."""
    found = persistence([[0.0, 0.7, 0.2], [1, 1, 1]])
    assert isinstance(found, Diagram)
    np.testing.assert_array_equal(found.pairs[0], [[0, np.inf], [0.2, 0.7]])
    assert found.betti == (1, 0, 0) and found.lives() == pytest.approx([0.5])
    assert found.lasting(0.49) == 2 and found.lasting(0.51) == 1


@pytest.mark.parametrize("seed", range(3))
def test_basins_of_noise_are_those_of_a_slow_loop(seed):
    grid = np.random.default_rng(seed).standard_normal((9, 11))
    found = persistence(grid).pairs[0]
    np.testing.assert_allclose(found[np.lexsort(found.T[::-1])], basins(grid), rtol=1e-12)
    lives = found[:, 1] - found[:, 0]
    assert (np.diff(lives[1:]) <= 0).all()


def test_the_life_of_the_shallower_well_is_the_height_of_the_barrier():
    problem = Wells()
    values = problem.minimum()[1]
    saddle = problem.critical(-0.6)
    x, y = np.meshgrid(np.linspace(-2, 3, 401), np.linspace(-2, 2, 321), indexing="ij")
    found = persistence(problem.f(x, y))
    (deep, forever), (shallow, death) = found.pairs[0][:2]
    assert deep == pytest.approx(values.min(), abs=1e-3) and forever == np.inf
    assert shallow == pytest.approx(values.max(), abs=1e-3)
    assert found.lives()[0] == pytest.approx(problem.f(*saddle) - values.max(), abs=1e-3)
    assert found.lasting(1e-3) == 2


def test_a_ring_is_born_with_its_ridge_and_dies_on_the_hill_inside():
    x, y = np.meshgrid(np.linspace(-2, 2, 81), np.linspace(-2, 2, 81), indexing="ij")
    r = np.hypot(x, y)
    found = persistence((r**2 - 1) ** 2)  # a ring of minima about a hill of height 1
    assert found.pairs[1][0] == pytest.approx([0, 1], abs=0.01)
    assert found.lasting(0.5, 1) == 1 and found.lasting(0.5) == 1


def test_a_torus_has_the_betti_numbers_of_a_torus():
    x = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    grid = np.cos(x)[:, None] + 0.5 * np.cos(x)
    found = persistence(grid, periodic=True)
    assert found.betti == (1, 2, 1)
    births = np.sort(found.pairs[1][:, 0])  # its rings close at the two saddles, its surface at the top
    np.testing.assert_allclose(births, [-0.5, 0.5], atol=1e-12)
    assert found.pairs[2][0, 0] == pytest.approx(1.5) and found.pairs[0][0, 0] == pytest.approx(-1.5)
    assert persistence(grid).betti == (1, 0, 0)


def by_hand(one, two):
    """The bottleneck distance over all matchings."""
    a, b = ([p for p in d if np.isfinite(p[1])] for d in (one, two))
    a, b = a + [None] * len(b), b + [None] * len(a)

    def cost(p, q):
        if p is None and q is None:
            return 0.0
        if p is None or q is None:
            birth, death = q if p is None else p
            return (death - birth) / 2
        return max(abs(p[0] - q[0]), abs(p[1] - q[1]))

    finite = min(max(map(cost, a, other), default=0.0) for other in itertools.permutations(b))
    ends = [sorted(p[0] for p in d if np.isinf(p[1])) for d in (one, two)]
    return max([finite, *(abs(p - q) for p, q in zip(*ends, strict=True))])


def test_the_bottleneck_distance_is_that_of_the_best_matching(rng):
    for _ in range(5):
        one, two = (np.array([(0.0, np.inf), *zip(b, b + rng.random(3), strict=True)]) for b in rng.random((2, 3)))
        two[0, 0] = 0.1
        found = bottleneck(Diagram({0: one}), Diagram({0: two}))
        assert found == pytest.approx(by_hand(one, two), rel=1e-9)


def test_it_is_no_larger_than_the_difference_of_the_grids(rng):
    grid = rng.standard_normal((20, 20))
    moved = grid + rng.uniform(-0.1, 0.1, grid.shape)
    for k in (0, 1):
        assert 0 < bottleneck(persistence(grid), persistence(moved), k) <= np.abs(moved - grid).max() + 1e-12


def test_what_is_no_grid_is_refused_and_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    with pytest.raises(ValueError, match="finite numbers"):
        persistence([[0.0, np.nan], [1, 2]])
    monkeypatch.setitem(sys.modules, "gudhi", None)
    with pytest.raises(ValueError, match="^persistence needs gudhi, which is not installed: pip install gudhi$"):
        persistence(np.zeros((4, 4)))
