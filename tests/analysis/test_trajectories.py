"""Components of paths beside those of random walks, and t-SNE."""

from npopt import backend
from npopt.analysis import Components, Plane, components, tsne, walk_coordinates, walk_shares
from npopt.analysis.trajectories import step_lengths

import numpy as np
import pytest


@pytest.mark.parametrize("about", ["mean", "last"])
def test_components_are_those_of_the_singular_value_decomposition(about, rng):
    path = np.cumsum(rng.standard_normal((9, 40)), 0)
    origin = path.mean(0) if about == "mean" else path[-1]
    u, s, vt = np.linalg.svd(path - origin, full_matrices=False)
    found = components(path, 3, about)
    assert isinstance(found, Components)
    np.testing.assert_allclose(found.shares, s**2 / (s**2).sum(), atol=1e-14)
    np.testing.assert_allclose(found.origin, origin, rtol=1e-12, atol=1e-12)
    signs = np.sign(u[0, :3])
    np.testing.assert_allclose(found.coordinates, (u * s)[:, :3] * signs, atol=1e-10)
    np.testing.assert_allclose(found.directions, vt[:3] * signs[:, None], atol=1e-10)
    assert (found.coordinates[0] > 0).all()
    assert isinstance(found.plane, Plane)
    seen = found.plane.project(path)
    np.testing.assert_allclose(seen.coefficients, found.coordinates[:, :2], atol=1e-10)
    assert seen.share == pytest.approx(found.shares[:2].sum(), rel=1e-10)


def test_a_straight_path_is_one_component_and_no_two():
    path = [np.arange(5.0) * t for t in (1, 2, 4, 7)]
    found = components(path, 1)
    assert found.shares[0] == pytest.approx(1, rel=1e-12)
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        components(path, 2)
    with pytest.raises(ValueError, match="at least 4 points"):
        components(path[:3], 3)
    with pytest.raises(ValueError, match="about must be"):
        components(path, 1, "first")


@pytest.mark.parametrize("points", [2, 3, 12, 61])
def test_shares_of_a_walk_are_the_eigenvalues_of_its_centred_inner_products(points):
    G = np.minimum.outer(np.arange(points), np.arange(points)).astype(float)
    C = np.eye(points) - 1 / points
    values, vectors = np.linalg.eigh(C @ G @ C)
    values, vectors = values[::-1][:-1], vectors[:, ::-1]
    shares = walk_shares(points)
    np.testing.assert_allclose(shares, values / values.sum(), rtol=1e-9)
    np.testing.assert_allclose(walk_shares(np.full(points - 1, 0.3)), shares, rtol=1e-9)
    for k in range(min(3, points - 1)):
        along = vectors[:, k] @ walk_coordinates(points, 3)[:, k]
        assert abs(along) == pytest.approx(1, rel=1e-9)


def test_a_long_walk_has_the_shares_of_the_paper():
    """6 / (pi k)^2: Antognini & Sohl-Dickstein 2018, section 3; the first two together 76 %."""
    shares = walk_shares(100_000)
    np.testing.assert_allclose(shares[:5], 6 / (np.pi * np.arange(1, 6)) ** 2, rtol=1e-6)
    assert shares[:2].sum() == pytest.approx(0.76, abs=0.001) and shares.sum() == pytest.approx(1, rel=1e-12)


def test_a_walk_in_many_dimensions_draws_lissajous_curves(rng):
    path = np.cumsum(rng.standard_normal((50, 20_000)), 0)
    found = components(path, 3)
    np.testing.assert_allclose(found.shares[:3], walk_shares(50)[:3], rtol=0.05)
    unit = found.coordinates / np.linalg.norm(found.coordinates, axis=0)
    np.testing.assert_allclose((unit * walk_coordinates(50, 3)).sum(0), 1, atol=0.005)


def test_shorter_steps_at_the_end_are_taken_into_account(rng):
    lengths = np.linspace(1, 0.05, 39)
    steps = rng.standard_normal((39, 20_000))
    steps *= (lengths / np.linalg.norm(steps, axis=1))[:, None]
    path = np.concatenate([np.zeros((1, 20_000)), np.cumsum(steps, 0)])
    np.testing.assert_allclose(step_lengths(path), lengths, rtol=1e-12)
    np.testing.assert_allclose(components(path).shares[:4], walk_shares(lengths)[:4], rtol=0.05)
    assert abs(walk_shares(lengths)[0] - walk_shares(40)[0]) > 0.02  # which the plain formula does not


def test_tsne_keeps_groups_apart_and_is_a_function_of_its_seed(rng):
    path = np.concatenate([10 * k + rng.standard_normal((12, 300)) for k in range(3)])
    found = tsne(path, 5, seed=1)
    assert found.shape == (36, 2)
    apart = np.linalg.norm(found[:, None] - found, axis=2) + np.diag(np.full(36, np.inf))
    assert (apart.argmin(1) // 12 == np.arange(36) // 12).all()
    np.testing.assert_array_equal(found, tsne(path, 5, seed=1))
    with pytest.raises(ValueError, match="below a third of the 36 points, got 12"):
        tsne(path, 12)


def test_the_same_where_nothing_may_be_read(device, rng):
    path, found = rng.standard_normal((7, 30)), []
    for name in (device, "cpu"):
        backend.use(name)
        one = components([backend.asarray(point) for point in path], 2)
        found.append((one.coordinates, one.shares, backend.to_host(one.directions), backend.to_host(one.origin)))
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(here, there, atol=1e-10)
