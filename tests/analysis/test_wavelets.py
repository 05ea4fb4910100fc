"""Wavelets of grids, block by block."""

import sys

from npopt.analysis import Wavelets, wavelets

import numpy as np
import pytest

pytest.importorskip("pywt", reason="PyWavelets is optional")


def test_haar_is_that_of_the_blocks(rng):
    grid = rng.standard_normal((8, 12))
    found = wavelets(grid, 2)
    assert isinstance(found, Wavelets)
    for level in range(2):  # the finest first
        n, m = grid.shape[0] // 2, grid.shape[1] // 2
        A, H, V, D = np.empty((4, n, m))
        for i in range(n):
            for j in range(m):
                (a, b), (c, d) = grid[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                A[i, j], H[i, j], V[i, j], D[i, j] = a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d
        for part, wanted in zip(found.details[level], (H, V, D), strict=True):
            np.testing.assert_allclose(part, wanted / 2, atol=1e-12)
        np.testing.assert_allclose(found.strength(level), np.sqrt(H**2 + V**2 + D**2) / 2, atol=1e-12)
        grid = A / 2
    np.testing.assert_allclose(found.coarse, grid, atol=1e-12)


@pytest.mark.parametrize("kind, levels", [("haar", 3), ("db2", 1)])
def test_squares_are_kept_and_the_grid_comes_back(kind, levels, rng):
    grid = rng.standard_normal((16, 8))
    found = wavelets(grid, levels, kind)
    np.testing.assert_allclose(found.inverse(), grid, atol=1e-12)
    total = (found.coarse**2).sum() + sum((part**2).sum() for parts in found.details for part in parts)
    assert total == pytest.approx((grid**2).sum(), rel=1e-12)


def test_a_plane_has_no_diagonal_details_and_a_chessboard_nothing_else():
    a, b = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    found = wavelets(3 * a - b + 1, 2)
    for H, V, D in found.details:
        np.testing.assert_allclose(D, 0, atol=1e-12)
        assert (H < 0).all() and (V > 0).all()  # falls along the first index, rises along the second
    chess = wavelets((-1.0) ** (a + b), 2)
    np.testing.assert_allclose(chess.shares, [1, 0], atol=1e-14)
    np.testing.assert_allclose(chess.details[0][2], 2, atol=1e-12)


def test_shares_are_parts_of_the_variance(rng):
    grid = 5 + rng.standard_normal((8, 8))
    found = wavelets(grid, 3)  # down to one number, which has no variance
    assert found.shares.sum() == pytest.approx(1, rel=1e-12)
    fine = (found.details[0][0] ** 2 + found.details[0][1] ** 2 + found.details[0][2] ** 2).sum()
    assert found.shares[0] == pytest.approx(fine / ((grid - grid.mean()) ** 2).sum(), rel=1e-12)


def test_what_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiples of 4 for 2 levels, got shape"):
        wavelets(np.zeros((51, 51)), 2)


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(ValueError, match="^wavelets needs PyWavelets, which is not installed: pip install PyWavelets$"):
        wavelets(np.zeros((4, 4)))
