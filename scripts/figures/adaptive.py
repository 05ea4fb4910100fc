"""Figures of adaptive: ways on surfaces, still and moving, two half-moons, and logistic regression by epoch."""

import functools

from lab import Album
from lab.charts import against_rate
from lab.figures import COLOURS, MARKERS, below, closer, curves, panels, plain
from lab.surfaces import map_of, moving, on_relief, relief, way_of
from problems.convex import Moons
from problems.landscapes import EVERY

import numpy as np

album = Album()
SADDLE, ACROSS = "open saddle", (38, 105)  # elevation and azimuth of the eye
ANIMATED = ("beale", "valley", "himmelblau")
PAGES = (
    ("beale", "valley", SADDLE, "rosenbrock"),
    ("himmelblau", "six-hump camel", "three-hump camel", "goldstein-price"),
    ("mccormick", "styblinski-tang", "rastrigin", "ackley"),
)
moons = functools.cache(Moons)


def first(results, part, **tags):
    """{method: its first run}"""
    return {method: runs[0] for method, runs in results.select(part, **tags).groups("method")}


def start_of(runs):
    """Where the runs of {method: run} began."""
    return tuple(way_of(next(iter(runs.values())))[0])


def frames(runs, args):
    """The steps of {method: run} that are frames."""
    last = max(run.rows for run in runs.values()) - 1
    return range(0, last + 1, args.pick(4, last))


for number, names in enumerate(PAGES, 1):

    @album.figure(
        f"surfaces_{number}.png",
        caption="The same start for all five methods, 300 steps. Above: the ways on the log of the height above the "
        "minimum, which is white. Below: that height by step. Formulas: problems/landscapes.py.",
    )
    def surfaces_figure(results, names=names):
        there = results.select("a").values("surface")
        names = [name for name in names if name in there]
        figure, grid = panels(2, len(names), size=(min(13, 1.5 + 3.5 * len(names)), 7.3), squeeze=False)
        for (top, bottom), name in zip(grid.T, names, strict=True):
            runs = first(results, "a", surface=name)
            map_of(top, EVERY[name], start_of(runs))
            for i, (method, run) in enumerate(runs.items()):
                top.plot(*way_of(run).T, lw=1.6, label=method, color=COLOURS[i])
                gap = run.columns["gap"]
                shown = np.where(gap > 1e-12, gap, np.nan) if EVERY[name].minima else gap
                bottom.plot(shown, color=COLOURS[i], lw=1.4)
            if EVERY[name].minima:
                bottom.set(yscale="log", ylabel="f - f*")
                plain(bottom.yaxis)
            else:
                bottom.set(ylim=(-3, 0.5), ylabel="f")
            bottom.set(xlabel="step")
        return below(figure, grid[0, 0], 7 if len(names) > 2 else 3)


@album.figure("views.png", caption="Four surfaces in relief, with the ways of the five methods. Cross: start.")
def views_figure(results):
    figure, axes = panels(2, 2, size=(10.5, 7), subplot_kw={"projection": "3d", "computed_zorder": False})
    for ax, name in zip(axes.flat, (*ANIMATED, SADDLE), strict=True):
        land, runs = EVERY[name], first(results, "a", surface=name)
        relief(ax, land, *(ACROSS if name == SADDLE else ()))
        for i, (method, run) in enumerate(runs.items()):
            ax.plot(*on_relief(land, way_of(run)), color=COLOURS[i], lw=2, label=method, zorder=5)
        ax.plot(*on_relief(land, np.array([start_of(runs)])), "X", color="black", ms=9, label="start", zorder=6)
    return below(figure, axes.flat[0], 6)


@album.figure(
    "saddle.gif",
    caption="The saddle x^2 - y^2, seen across its ridge, which the methods come down: SGD and momentum stay on it, "
    "methods with a rate for each coordinate leave. Four steps a frame.",
)
def saddle_animation(results, args):
    land = EVERY[SADDLE]

    def draw(ax):
        relief(ax, land, *ACROSS)
        ax.set_box_aspect(None, zoom=1.15)
        return -3, 1

    runs = first(results, "a", surface=SADDLE)
    view = dict(projection="3d", computed_zorder=False)
    return moving(draw, runs, frames(runs, args), "f", lambda way: on_relief(land, way), **view)


for name in ANIMATED:

    @album.figure(
        f"{name}.gif",
        caption=f"{EVERY[name].title}, f = {EVERY[name].formula}: four steps a frame. Cross: start; star: minimum.",
    )
    def animation(results, args, name=name):
        runs = first(results, "a", surface=name)
        return moving(lambda ax: map_of(ax, EVERY[name], start_of(runs)), runs, frames(runs, args))


@functools.cache
def moons_land():
    """(x, y, height of the objective above its minimum) in the plane of the two weights, each (120, 120)."""
    problem = moons()
    x, y = np.meshgrid(np.linspace(-1.8, 2.6, 120), np.linspace(-3.2, 1.2, 120))
    margins = problem.signs * (np.stack([x, y], 2) @ problem.points.T)
    return x, y, np.logaddexp(0, -margins).mean(2) + 0.005 * (x**2 + y**2) - problem.least


def moons_map(ax):
    """Contours of the objective in the plane of the two weights, in the greys of the landscapes."""
    problem, (x, y, height) = moons(), moons_land()
    ax.contourf(x, y, np.sqrt(height), 12, colors=[str(0.97 - 0.35 * k / 12) for k in range(13)])
    ax.plot(*problem.best, "*", color="black", ms=13, label="minimum", zorder=5)
    ax.plot(*problem.start, "X", color="black", ms=9, label="start", zorder=5)
    ax.set(xlim=(-1.8, 2.6), ylim=(-3.2, 1.2), xlabel="first weight", ylabel="second weight", title="two half-moons")
    ax.grid(False)


@album.figure(
    "moons.png",
    caption="Two noisy half-moons, logistic regression with two weights, four points a step: the points with the line "
    "of least loss; the ways of seed 0 on the objective (grey: square root of its height above the minimum); f - f* by "
    "step (median and range over seeds).",
)
def moons_figure(results):
    problem = moons()
    figure, (left, middle, right) = panels(1, 3, size=(13, 4.4))
    for sign, i, name in ((-1, 5, "class -1"), (1, 6, "class +1")):
        left.plot(*problem.points[problem.signs == sign].T, MARKERS[i], color=COLOURS[i], ms=4, alpha=0.7, label=name)
    ends = np.array([-2.5, 2.5])
    left.plot(ends, -ends * problem.best[0] / problem.best[1], color="black", lw=1.5, label="w.a = 0")
    left.set(xlim=(-2.5, 2.5), ylim=(-2.8, 2.8), xlabel="first feature", ylabel="second feature", title="the points")
    left.legend(fontsize=9)
    moons_map(middle)
    for i, (method, run) in enumerate(first(results, "c").items()):
        middle.plot(*way_of(run).T, color=COLOURS[i], lw=1.2, label=method)
    middle.legend(fontsize=8, loc="upper right")
    curves(right, results.select("c"), "gap", "step", legend=False)
    right.set(yscale="log", ylim=(3e-5, 3), ylabel="f - f*", title="four points a step")
    return figure


@album.figure(
    "moons.gif",
    caption="Two noisy half-moons: the five methods on the objective of all points, led by the gradients of four. "
    "Cross: start; star: minimum.",
)
def moons_animation(results, args):
    runs = first(results, "c")
    return moving(moons_map, runs, frames(runs, args))


@album.figure(
    "logistic.png",
    caption="Logistic regression, each method at its best rate: objective and test accuracy by epoch (median and "
    "quartiles of the seeds; neither axis begins at 0), and the loss of held-out rows against the rate (circles: "
    "chosen).",
)
def logistic_figure(results):
    groups = results.select("b").groups("data")
    figure, axes = panels(len(groups), 3, squeeze=False, size=(13, 3.7 * len(groups)))
    for (left, middle, right), (data, runs) in zip(axes, groups, strict=True):
        some = runs.at_best().with_column("accuracy", lambda c: 100 * c["test_accuracy"])
        for ax, column, text in ((left, "objective", "training objective"), (middle, "accuracy", "test accuracy [%]")):
            curves(ax, some, column, ylabel=text, legend=False)
            closer(ax, some, column, 0.001, 0.001, top=98)
            ax.set_title(data)
        least = against_rate(right, runs.tuned(), 3)
        right.set(title=data, ylim=(0.98 * least, 1.5 * least))
    return below(figure, axes[0, 0])
