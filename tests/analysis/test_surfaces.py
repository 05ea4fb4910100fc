"""Surfaces of problems whose values are known, with every kind of batch statistics."""

import nn
from npopt import backend
from npopt.analysis import Barrier, LossSurface, Plane, barrier, interpolation, loss_surface
from problems import Quadratic, Surface
from problems.wells import two_basins

import numpy as np
import pytest
from nets import small

A, B = np.linspace(-1, 1, 4), np.linspace(-0.5, 1, 3)


def plane_at(x, k=2, seed=5):
    return Plane(x, 0.3 * np.random.default_rng(seed).standard_normal((k, x.size)).astype(x.dtype))


def test_the_surface_of_a_quadratic_is_the_quadratic(rng):
    M = rng.standard_normal((6, 6))
    problem, x = Quadratic(M @ M.T, rng.standard_normal(6)), rng.standard_normal(6)
    plane = plane_at(x)
    found = loss_surface(problem, plane, A, B)
    assert isinstance(found, LossSurface) and found.loss.shape == (4, 3) and np.isnan(found.accuracy).all()
    for i, a in enumerate(A):
        for j, b in enumerate(B):
            y = x + a * plane.directions[0] + b * plane.directions[1]
            assert found.loss[i, j] == pytest.approx(0.5 * y @ M @ M.T @ y - problem.exact_b @ y, rel=1e-12)
    line = loss_surface(problem, Plane(x, plane.directions[:1]), A)
    np.testing.assert_allclose(line.loss, loss_surface(problem, plane, A, [0.0]).loss[:, 0], rtol=1e-12)
    assert line.b is None


def test_along_eigenvectors_it_rises_by_half_the_eigenvalue():
    problem, x = Quadratic([9.0, 4.0, 0.0, -2.0]), np.zeros(4)
    found = loss_surface(problem, Plane(x, np.eye(4)[[0, 3]]), A, B)
    a, b = found.grid
    np.testing.assert_allclose(found.loss, 4.5 * a * a - b * b, atol=1e-14)


@pytest.mark.parametrize("batch", [None, 1, 5])
def test_a_network_on_given_rows(batch, rng):
    problem = small(rows=13)
    x, rows = problem.x0(rng), np.array([4, 0, 7, 7, 12])
    plane = plane_at(x)
    found = loss_surface(problem, plane, A, B, rows, batch=batch)
    for i, a in enumerate(A):
        for j, b in enumerate(B):
            y = plane.at(a, b)
            assert found.loss[i, j] == pytest.approx(problem.value(y, rows), rel=1e-12)
            hits = problem.outputs(y, "train", rows).argmax(1) == problem.targets()[rows]
            assert found.accuracy[i, j] == pytest.approx(hits.mean(), rel=1e-12)


def normalised(rows=11, dropout=0.0):
    """A network with batch norm whose running statistics are not those of any x."""
    problem = small(rows=rows, norm="batch", dropout=dropout)
    x = problem.x0(np.random.default_rng(1))
    for t in range(3):
        problem.begin(t)
        problem.value_and_gradient(x + t, None, None, np.empty_like(x))
        problem.commit()
    return problem, x


def test_running_statistics_are_those_of_the_network_at_every_point():
    problem, x = normalised()
    plane, before = plane_at(x), problem.state()
    found = loss_surface(problem, plane, A, B)
    for i, a in enumerate(A):
        for j, b in enumerate(B):
            known = problem.metrics(plane.at(a, b))
            assert found.loss[i, j] == pytest.approx(known["train_loss"], rel=1e-12)
            assert found.accuracy[i, j] == pytest.approx(known["train_accuracy"], rel=1e-12)
    same_state(before, problem.state())


def same_state(one, two):
    for path, kept in one["statistics"].items():
        for name in kept:
            np.testing.assert_array_equal(kept[name], two["statistics"][path][name])


def test_statistics_of_the_rows_are_those_of_a_training_pass():
    problem, x = normalised()
    plane, before, rows = plane_at(x), problem.state(), np.arange(2, 9)
    found = loss_surface(problem, plane, A, B, rows, statistics="rows", batch=2)  # one batch all the same
    for i, a in enumerate(A):
        for j, b in enumerate(B):
            assert found.loss[i, j] == pytest.approx(problem.value(plane.at(a, b), rows), rel=1e-12)
    same_state(before, problem.state())
    running = loss_surface(problem, plane, A, B, rows)
    assert np.abs(running.loss - found.loss).max() > 0.05


def test_dropout_is_off():
    problem, x = normalised(dropout=0.5)
    plain, same = normalised()
    for kind in ("rows", "running"):
        plain.load_state(plain.state() | {"statistics": problem.state()["statistics"]})
        one, two = (loss_surface(p, plane_at(x), A, B, statistics=kind) for p in (problem, plain))
        np.testing.assert_array_equal(one.loss, two.loss)


def test_two_states_are_mixed_as_the_weights_are_and_put_back():
    problem, x = normalised()
    one = problem.state()
    problem.recalibrate(x)
    two, y = problem.state(), x + 0.1
    line = interpolation(problem, x, y, [-0.5, 0.0, 0.25, 1.0, 1.5], statistics=(one, two))
    same_state(two, problem.state())
    for place, share, loss in ((-0.5, 0, 0), (0, 0, 1), (0.25, 0.25, 2), (1, 1, 3), (1.5, 1, 4)):
        kept = {
            path: {name: (1 - share) * v + share * two["statistics"][path][name] for name, v in state.items()}
            for path, state in one["statistics"].items()
        }
        problem.load_state(one | {"statistics": kept})
        assert line.loss[loss] == pytest.approx(problem.metrics((1 - place) * x + place * y)["train_loss"], rel=1e-9)


def test_a_walk_that_is_broken_off_leaves_the_statistics_as_they_were():
    problem, x = normalised()
    before = problem.state()
    states = before, before | {"statistics": problem.network.state()}
    walk = problem.along(plane_at(x, 1), np.array([[0.5], [1.0]]), statistics=states)
    next(walk)
    walk.close()
    same_state(before, problem.state())


def test_test_rows_and_their_share_of_hits():
    problem = nets_with_test()
    x = problem.x0(np.random.default_rng(2))
    found = loss_surface(problem, plane_at(x, 1), [0.0], part="test")
    known = problem.metrics(x)
    assert found.loss[0] == pytest.approx(known["test_loss"], rel=1e-12)
    assert found.accuracy[0] == pytest.approx(known["test_accuracy"], rel=1e-12)


def nets_with_test():
    from types import SimpleNamespace

    from problems import Neural
    from problems.feeds import Table

    rng = np.random.default_rng(0)
    x, t, v, u = rng.standard_normal((9, 3)), rng.integers(0, 4, 9), rng.standard_normal((7, 3)), rng.integers(0, 4, 7)
    none = dict(mean=None, std=None, scale=1.0, classes=(0, 1, 2, 3), sha256="")
    data = SimpleNamespace(name="noise", x_train=x, y_train=t, x_test=v, y_test=u, **none)
    return Neural(nn.mlp((3, 5, 4)), Table(data), dtype="float64", l2=0.7)


def test_the_barrier_between_the_minima_of_a_double_well_is_its_height():
    """x^2 - y^2 + y^4/4 has minima -1 at y = sqrt 2 and -sqrt 2, and the saddle 0 between them."""
    problem = Surface("saddle")
    ends = [np.array([0.0, sign * 2**0.5]) for sign in (1, -1)]
    line = interpolation(problem, *ends)
    assert line.a[0] == -0.5 and line.a[-1] == 1.5 and len(line.a) == 61
    found = barrier(line)
    assert isinstance(found, Barrier)
    assert found.height == pytest.approx(1, abs=1e-12) and found.at == pytest.approx(0.5)


def test_a_barrier_is_measured_from_the_line_between_the_ends():
    problem = two_basins(1)
    line = interpolation(problem, np.ones(2), np.zeros(2) - 1, np.linspace(0, 1, 1001))
    ridge = 2 * 2**0.5 / 11 / 8**0.5  # as a share of the way: both ends have the value 0
    found = barrier(line)
    assert found.at == pytest.approx(ridge, abs=1e-3)
    assert found.height == pytest.approx(0.5 * 200 * (8**0.5 * ridge) ** 2, rel=0.02)
    convex = interpolation(Quadratic([1.0, 2.0]), np.array([3.0, 0.0]), np.array([1.0, 1.0]), np.linspace(0, 1, 11))
    assert barrier(convex).height == 0.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p, x: loss_surface(p, plane_at(x), A), "coefficients are for 1"),
        (lambda p, x: loss_surface(p, plane_at(x, 1), [np.nan]), "finite numbers"),
        (lambda p, x: loss_surface(p, plane_at(x, 1), A, statistics="batch"), "'running', 'rows' or two states"),
        (
            lambda p, x: loss_surface(Quadratic(np.ones(x.size)), plane_at(x, 1), A, part="test"),
            "leave out part='test'",
        ),
        (lambda p, x: barrier(loss_surface(p, plane_at(x, 1), A)), "0 and 1 among them"),
    ],
)
def test_what_is_wrong_is_said(call, message, rng):
    problem = small()
    with pytest.raises(ValueError, match=message):
        call(problem, problem.x0(rng))


def test_progress_is_told():
    told = []
    loss_surface(Quadratic([1.0, 2.0]), plane_at(np.ones(2)), np.arange(8.0), np.arange(8.0), progress=told.append)
    assert told == [0, 20 / 64, 40 / 64, 60 / 64]


@pytest.mark.parametrize("statistics", ["running", "rows"])
def test_the_same_where_nothing_may_be_read(statistics, device):
    found = []
    backend.use("cpu")
    problem, x = normalised()
    for name in (device, "cpu"):
        backend.use(name)
        here = small(rows=11, norm="batch")
        here.load_state(problem.state())
        plane = Plane(backend.asarray(x), backend.asarray(plane_at(x).directions))
        found.append(loss_surface(here, plane, A, B, np.arange(5), statistics=statistics))
    np.testing.assert_allclose(found[0].loss, found[1].loss, rtol=1e-9)
    np.testing.assert_array_equal(found[0].accuracy, found[1].accuracy)
