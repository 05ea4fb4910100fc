"""Directions by filters, planes through x, and how much of a path they see."""

import nn
from npopt import backend
from npopt.analysis import Plane, Projection, cosines, loss_surface, random_direction
from npopt.segments import Segments
from problems import Neural, Quadratic
from problems.feeds import Table

import numpy as np
import pytest
from nets import bias_free, small


def test_every_filter_of_the_direction_is_as_long_as_that_of_x(rng):
    network = nn.lenet5(input_shape=(28, 28, 1))

    class Some:
        name, segments = "some", network.segments

    x = network.x0(rng, "float64")
    d = random_direction(Some, x, seed=3)
    for segment in network.segments:
        w, v = (vector[segment.slice].reshape(segment.shape) for vector in (x, d))
        if segment.kind == "bias":
            assert not v.any()
            continue
        for j in range(segment.shape[0]):  # the first axis is the output unit or channel
            assert np.sqrt((v[j] ** 2).sum()) == pytest.approx(np.sqrt((w[j] ** 2).sum()), rel=1e-8)
        assert np.abs(v / w).std() > 0.1  # and it is no multiple of x
    np.testing.assert_array_equal(d, random_direction(Some, x, seed=3))
    assert abs(cosines([d, random_direction(Some, x, seed=3, number=1)])[0, 1]) < 4.5 / network.dim**0.5


def test_parameters_of_normalisation_stay_and_zero_filters_are_zero(rng):
    problem = small(norm="batch")
    x = problem.x0(rng)
    x[problem.segments.find("fc1.W").slice].reshape(6, 3)[2] = 0
    d = random_direction(problem, x)
    for segment in problem.segments:
        assert d[segment.slice].any() == (segment.kind == "matrix")
    assert not d[problem.segments.find("fc1.W").slice].reshape(6, 3)[2].any() and np.isfinite(d).all()


def test_plain_directions_have_the_length_that_they_are_asked_for(rng):
    problem, x = Quadratic([1.0, 2.0, 3.0]), rng.standard_normal(3)
    assert np.linalg.norm(random_direction(problem, x, None)) == pytest.approx(1, rel=1e-12)
    assert np.linalg.norm(random_direction(problem, x, "whole")) == pytest.approx(np.linalg.norm(x), rel=1e-12)
    many = np.array([random_direction(problem, x, None, seed) for seed in range(2000)])
    np.testing.assert_allclose(many.T @ many / 2000, np.eye(3) / 3, atol=0.04)
    with pytest.raises(ValueError, match="has no filters"):
        random_direction(problem, x)
    with pytest.raises(ValueError, match="by must be"):
        random_direction(problem, x, "layer")


def test_scaled_layers_leave_the_filter_normalised_surface_and_change_the_plain_one(rng):
    """f is the same function at x and y, so by Li et al. 2018 its surface has to be."""
    problem = bias_free()
    x = problem.x0(rng)
    y = x.copy()
    y[problem.segments.find("a.W").slice] *= 10
    y[problem.segments.find("b.W").slice] /= 10
    lines = {}
    for by in ("filter", None):
        for name, point in (("x", x), ("y", y)):
            d = random_direction(problem, point, by, seed=1)
            lines[by, name] = loss_surface(problem, Plane(point, d.reshape(1, -1)), np.linspace(-1, 1, 9)).loss
    np.testing.assert_allclose(lines["filter", "x"], lines["filter", "y"], rtol=1e-8)
    assert np.abs(lines[None, "x"] - lines[None, "y"]).max() > 0.01


def test_projections_on_oblique_directions_are_least_squares(rng):
    origin, directions = rng.standard_normal(7), rng.standard_normal((2, 7))
    plane, path = Plane(origin, directions), rng.standard_normal((5, 7))
    seen = plane.project(path)
    assert isinstance(seen, Projection)
    for point, c, share in zip(path, seen.coefficients, seen.shares, strict=True):
        wanted = np.linalg.lstsq(directions.T, point - origin, rcond=None)[0]
        np.testing.assert_allclose(c, wanted, rtol=1e-10)
        left = point - plane.at(*wanted)
        assert share == pytest.approx(1 - left @ left / ((point - origin) @ (point - origin)), rel=1e-10)
        np.testing.assert_allclose(directions @ left, 0, atol=1e-12)
    total = ((path - origin) ** 2).sum()
    left = sum(((p - plane.at(*c)) ** 2).sum() for p, c in zip(path, seen.coefficients, strict=True))
    assert seen.share == pytest.approx(1 - left / total, rel=1e-10)


def test_a_path_in_the_plane_is_seen_whole_and_one_across_it_not_at_all(rng):
    plane = Plane(np.ones(4), np.array([[1.0, 0, 0, 0], [1, 2, 0, 0]]))
    inside = plane.project([plane.at(a, b) for a, b in ((1, 2), (-3, 0.5))])
    np.testing.assert_allclose(inside.coefficients, [(1, 2), (-3, 0.5)], rtol=1e-12)
    assert inside.share == pytest.approx(1, rel=1e-12)
    across = plane.project([np.ones(4), np.array([1.0, 1, 5, 2])])
    assert np.isnan(across.shares[0]) and across.shares[1] == 0


def test_a_random_plane_sees_two_of_dim_parts_of_a_random_path(rng):
    dim, shares = 400, []
    for _ in range(40):
        directions = rng.standard_normal((2, dim))
        shares.append(Plane(np.zeros(dim), directions).project(rng.standard_normal((1, dim))).share)
    assert np.mean(shares) == pytest.approx(2 / dim, abs=4.5 * (2 / dim) / 40**0.5)  # chi square of 2: std = mean


@pytest.mark.parametrize(
    "directions, message",
    [
        (np.ones((2, 3)), "multiple of the first"),
        (np.zeros((1, 3)), "must not be 0"),
        (np.ones((1, 4)), r"must be 1 or 2 vectors"),
        (np.ones((3, 3)), r"must be 1 or 2 vectors"),
        ([1.0, 2.0], "got a list"),
    ],
)
def test_what_spans_no_plane_is_refused(directions, message):
    with pytest.raises(ValueError, match=message):
        Plane(np.zeros(3), directions)


def test_the_same_where_nothing_may_be_read(device, rng):
    found, x0 = [], small().x0(rng)
    data = small().feed.data
    for name in (device, "cpu"):
        backend.use(name)
        problem = Neural(nn.mlp((3, 6, 5, 4)), Table(data), dtype="float64")
        x = backend.asarray(backend.to_host(x0))
        directions = backend.xp().stack([random_direction(problem, x, seed=2, number=k) for k in (0, 1)])
        plane = Plane(x, directions)
        found.append((backend.to_host(directions), plane.project([x + 1, 2 * x]).shares, cosines(directions)))
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-9)


def test_names_of_segments_decide_what_a_filter_is():
    class Words:
        name = "words"
        segments = Segments.of(("embed.W", (3, 2), "embedding", "embed"), ("w", (2,), "vector", "w"))

    x = np.array([3.0, 4, 0, 1, 1, 0, 7, 7])
    d = random_direction(Words, x)
    np.testing.assert_allclose(np.linalg.norm(d[:6].reshape(3, 2), axis=1), [5, 1, 1], rtol=1e-9)
    assert not d[6:].any()
