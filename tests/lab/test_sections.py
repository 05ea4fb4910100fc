"""Trained networks and their surfaces, as stored columns; maps and reliefs of them."""

import sys

from lab.engine import as_array
from lab.figures import panels, plt
from lab.maps import bar, contours, levels_of, scale_of, turning
from lab.results import MissingRuns
from lab.sections import between, directions, lasting, paths, scaled_twins, stored, surface_of, train
from npopt import SGD, Adam, Events
from npopt.analysis import LossSurface, quadratic_fit
from problems.classifiers import perceptron

import numpy as np
import pytest

NET = dict(rows=60, test_rows=20, hidden=(6,))
SOME = dict(data="digits", problem=NET, epochs=2, batch=16, look=40)
TOLD = Events(None)


class Stored:
    """As a run comes back from the store."""

    def __init__(self, columns):
        self.columns = {name: as_array(values) for name, values in columns.items()}


def sheet(rng, n=5, m=4):
    a, b = np.linspace(-1, 1, n), np.linspace(-2, 2, m)
    return LossSurface(a, b, rng.uniform(0.1, 30, (n, m)), rng.uniform(0, 1, (n, m)))


def test_a_surface_comes_back_as_it_was(rng):
    for surface in (sheet(rng), LossSurface(np.arange(3.0), None, np.ones(3), np.zeros(3))):
        found = surface_of(Stored(stored("some", surface)), "some")
        for name in ("a", "b", "loss", "accuracy"):
            np.testing.assert_array_equal(getattr(found, name), getattr(surface, name))


def test_lines_begin_and_end_at_the_networks():
    found = Stored(between(0, TOLD, points=13, lr=0.05, **SOME | dict(problem=NET | dict(norm="batch"))))
    ends = []
    for k in (0, 1):
        problem = perceptron("digits", **NET, norm="batch")
        x = train(problem, 1000 * k, TOLD, lr=0.05, epochs=2, batch=16)
        ends.append((problem, x, problem.outputs(x, "train", np.arange(40))))
    for name, places in (("across mixed", (0, 1)), ("across running", (0,))):
        line = surface_of(found, name)
        for end in places:
            problem, _, z = ends[end]
            i = int(np.argmin(np.abs(line.a - end)))
            hits = z.argmax(1) == problem.targets()[:40]
            assert line.accuracy[i] == pytest.approx(hits.mean())
    rows = surface_of(found, "across rows")
    for end in (0, 1):
        i = int(np.argmin(np.abs(rows.a - end)))
        problem, x, _ = ends[end]
        assert rows.loss[i] == pytest.approx(problem.value(x, np.arange(40)), rel=1e-5)


def test_curvatures_of_a_smooth_network_are_the_eigenvalues():
    from nn import Tanh

    smooth = SOME | dict(problem=NET | dict(activation=Tanh))
    found = Stored(directions(1, TOLD, lr=0.05, kinds=("eigen",), side=5, near=0.01, steps=40, **smooth))
    fit = quadratic_fit(surface_of(found, "near"))
    np.testing.assert_allclose(np.linalg.eigvalsh(fit.hessian)[::-1], found.columns["values"][:2], rtol=0.01)
    assert (found.columns["errors"] < 1e-3 * found.columns["values"][0]).all()


def test_paths_begin_at_one_point_and_the_twin_is_the_same_function():
    found = Stored(paths(0, TOLD, methods={"SGD": (SGD(), 0.1), "Adam": (Adam(), 1e-3)}, marks=3, side=5, **SOME))
    np.testing.assert_allclose(found.columns["SGD place"][0], found.columns["Adam place"][0], rtol=1e-9)
    a, b = found.columns["plane_a"], found.columns["plane_b"]
    for name in ("SGD", "Adam"):
        place = found.columns[f"{name} place"]
        assert len(place) == 7 and a[0] < place[:, 0].min() and place[:, 1].max() < b[-1]
        assert 0 < found.columns[f"{name} seen"][0] <= 1
        assert found.columns[f"{name} shares"].sum() == pytest.approx(1, rel=1e-5)
    twins = Stored(scaled_twins(0, TOLD, lr=0.05, points=5, factor=4.0, steps=8, **SOME))
    first, twin = (surface_of(twins, f"{name} filter") for name in ("first", "twin"))
    np.testing.assert_allclose(first.loss, twin.loss, rtol=1e-4)


def test_without_a_package_claims_are_undecided(monkeypatch):
    monkeypatch.setitem(sys.modules, "gudhi", None)
    with pytest.raises(MissingRuns, match="pip install gudhi"):
        lasting(np.zeros((3, 3)))


def test_maps_and_reliefs_share_a_scale(rng):
    one, two = sheet(rng), sheet(rng)
    two.loss[1, 2], two.loss[0, 0] = np.inf, 1e7
    norm = scale_of([one, two], most=100.0)
    assert norm.vmin == min(one.loss.min(), two.loss.min()) and norm.vmax == 100
    levels = levels_of(norm)
    assert 3 < len(levels) <= 9 and norm.vmin < levels[0] and levels[-1] < norm.vmax
    assert (levels_of(scale_of([LossSurface(one.a, one.b, 1 + 1e-3 * one.loss, one.loss)])) > 1).all()
    figure, (left, right) = panels(1, 2)
    for ax, surface in ((left, one), (right, two)):
        bar(figure, contours(ax, surface, norm), ax)
        contours(ax, surface, norm, grey=True)
    figure.canvas.draw()
    plt.close("all")


def test_a_relief_has_the_losses_where_they_belong(rng):
    surface = sheet(rng)
    surface.loss[1, 2], surface.loss[0, 0] = np.inf, 1e7
    found = turning(surface, "some", {"SGD": np.zeros((1, 2))}, most=100.0)
    assert found.z.shape == (4, 5) and np.isnan(found.z[2, 1]) and found.z[0, 0] == 100
    assert found.height[3, 4] == pytest.approx(np.log10(surface.loss[4, 3])) and found.labels[2] == "training loss"
