"""Figures of sam: the radius that empties a well, and what the radius does to networks."""

from lab import Album
from lab.charts import with_errors
from lab.figures import closer, curves, look, mark, named, panels
from lab.sharp import highest, predicted, ridge, starts, toy
from lab.surfaces import map_of, moving, way_of
from lab.turn import Surface
from problems.landscapes import Landscape
from problems.wells import Wells

import numpy as np

album = Album()
LRS = {"two bowls": (0.001, 0.0025, 0.005), "wells": (0.001, 0.003, 0.01, 0.03)}
SIDE = 26
START = (-1.5, -0.3)
WINDOW = (-2.5, 2.5, -2.5, 2.5)
COLOURS = {"SGD": 0, "SAM": 1, "ASAM": 2}


def land(problem, title, start):
    minima, _ = problem.minimum()
    low = float(problem.f(*minima[0]))
    return Landscape(title, "", problem.f, None, tuple(map(tuple, minima)), low, WINDOW, start)


@album.figure(
    "surface.png",
    caption="Left: the two wells along y = 0, and the highest value within rho of each point, which SAM lowers: the "
    "narrow well fills up. Middle: the radius from which SAM leaves the sharp basin, measured (marks) and predicted "
    "(lines), in parts of the distance of the ridge. Right: share of 676 starts that end in each well.",
)
def surface(results):
    figure, (left, middle, right) = panels(1, 3, size=(13, 4.8))
    problem, x = Wells(), np.linspace(-2.2, 2.6, 300)
    for i, rho in enumerate((0.0, 0.15, 0.3, 0.5)):
        left.plot(x, highest(problem, x, 0 * x, rho), label=f"rho = {rho:g}" if rho else "f", **look(i))
    left.axvline(ridge(problem), color="#888888", lw=1, ls=":")
    left.set(xlabel="x", ylabel="max f within rho")
    left.legend(fontsize=9)
    for i, (name, groups) in enumerate(results.select("h").groups("toy")):
        D = toy(name)[3]
        at = np.geomspace(min(LRS[name]), max(LRS[name]), 30)
        middle.plot(at, [predicted(name, lr) / D for lr in at], color=look(i)["color"], lw=1.4)
        points = [(run.tags["lr"], (run.final["stays"] + run.final["leaves"]) / 2 / D) for run in groups]
        middle.plot(*zip(*points, strict=True), "os"[i], color=look(i)["color"], ms=7, label=name)
    middle.set(xscale="log", xlabel="rate", ylabel="radius / distance of the ridge")
    middle.legend(fontsize=9)
    for i, (width, runs) in enumerate(results.select("s").groups("width")):
        for well, dash, name in ((0, "-", "sharp"), (1, "--", "flat")):
            found = sorted((run.tags["rho"], np.mean(run.columns["well"] == well)) for run in runs)
            style = dict(color=look(i)["color"], ls=dash, marker="os"[i], ms=5)
            right.plot(*zip(*found, strict=True), label=f"{name}, width {width:g}", **style)
    right.set(xlabel="rho", ylabel="share of the starts", ylim=(-0.02, 1))
    right.legend(fontsize=9, loc="center right", handlelength=3)
    return figure


@album.figure(
    "wells.png",
    caption="What SAM lowers: f, and its highest value within rho of each point, with the ways from one start. Left: "
    "gradient descent into the narrow well, which is the deeper one, and SAM followed by gradient descent. Middle and "
    "right: SAM alone.",
)
def wells(results):
    problem, x, y = Wells(), np.linspace(-2.2, 2.4, 70), np.linspace(-1.6, 1.6, 49)
    runs = {rho: some[0] for rho, some in results.select("w").groups("rho")}
    ways = {rho: {f"SAM {rho:g}": way_of(run)[run.columns["phase"] == 0]} for rho, run in runs.items()}
    ways[0.0] = {"GD": way_of(runs[0.0]), f"SAM {max(runs):g}": way_of(runs[max(runs)])}
    more = dict(labels=("x", "y", "loss"), view=(-68, 48))
    return [
        Surface(x, y, highest(problem, *np.meshgrid(x, y), rho), paths=ways[rho], title=title, **more)
        for rho, title in ((rho, f"highest f within {rho:g}" if rho else "f") for rho in runs)
    ]


@album.figure(
    "starts.png",
    caption="Where SAM leads from each start, and where gradient descent leads from there: the sharp well (orange), "
    "the flat one (blue), neither (grey).",
)
def starts_figure(results):
    radii = (0.0, 0.2, 0.4, 0.5)
    figure, axes = panels(2, 4, size=(13, 7), sharex=True, sharey=True)
    for i, (column, name) in enumerate((("well", "SAM"), ("then", "then gradient descent"))):
        for ax, rho in zip(axes[i], radii, strict=True):
            wells = results.select("s", width=0.15, rho=rho)[0].columns[column]
            map_of(ax, land(Wells(), f"rho = {rho:g}" if not i else "", (9.0, 9.0)))
            points = starts(round(len(wells) ** 0.5))
            for well, colour in ((1, look(0)["color"]), (0, look(1)["color"]), (-1, "#666666")):
                ax.plot(*points[wells == well].T, "o", ms=2.5, color=colour)
            ax.set(xlabel="x" if i else "", ylabel=f"{name}: y" if ax is axes[i, 0] else "")
    return figure


@album.figure(
    "sam.gif",
    caption="From one start, 1,500 steps of gradient descent or of SAM, then 1,500 of gradient descent. The sharp "
    "well, to the left, is the deeper one. SAM with rho 0.3 stays in it; with 0.5 it hovers about the ridge until rho "
    "is 0.",
)
def animation(results, args):
    runs = {f"SAM {rho:g}, then GD" if rho else "GD": some[0] for rho, some in results.select("w").groups("rho")}
    count = len(next(iter(runs.values())).columns["f"])
    lines = [run.columns["f"] for run in runs.values()]
    span = min(v.min() for v in lines) - 0.05, max(v.max() for v in lines) + 0.05

    def draw(ax):
        map_of(ax, land(Wells(), "two wells", START))
        return span

    return moving(draw, runs, range(0, count, args.pick(2, count - 1)), "f", every=args.pick(15, 50))


def error_of(values):
    """The standard error of their mean; 0 of a single value."""
    return values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0


def by_radius(ax, results, part, column, scale=1.0, flip=False):
    """A column's last value against rho: mean and its standard error, SGD's as lines."""

    def values(runs):
        found = runs.final(column)
        return scale * (1 - found if flip else found)

    for method in ("SAM", "ASAM"):
        groups = [
            (rho, values(runs.select(method=method)))
            for rho, runs in sorted(results.select(part, m=0).groups("rho"))
            if method in runs.values("method")
        ]
        if groups:
            at, found = zip(*groups, strict=True)
            style = look(COLOURS[method]) | dict(marker="os"[COLOURS[method] - 1], capsize=3, label=method)
            ax.errorbar(at, [v.mean() for v in found], [error_of(v) for v in found], **style)
    for more, name in ((1, "SGD"), (2, "SGD, twice the epochs")):
        mark(ax, values(results.select(part, method="SGD", more=more)).mean(), name, 0.02)
    ax.set(xscale="log", xlabel="rho")


def radius_figure(results, part):
    figure, axes = panels(1, 3, size=(13, 4.8))
    by_radius(axes[0], results, part, "test_accuracy", 100, True)
    by_radius(axes[1], results, part, "high")
    by_radius(axes[2], results, part, "train_loss")
    for ax, text in zip(axes, ("test error [%]", "largest eigenvalue", "training loss"), strict=True):
        ax.set_ylabel(text)
    axes[1].set_yscale("log")
    axes[0].legend(fontsize=9)
    return figure


@album.figure("radius.png", caption="The small network by radius, equal epochs: mean over the seeds, with its error.")
def radius(results):
    return radius_figure(results, "n")


@album.figure("noise.png", caption="The same with 40 % of the training labels drawn anew; the test labels are right.")
def noise(results):
    return radius_figure(results, "y")


@album.figure(
    "budgets.png",
    caption="Test error of the small network by epoch, by gradients and by time: SGD with as many epochs as SAM and "
    "with twice as many, SAM and ASAM at the radius of the least held-out loss.",
)
def budgets(results):
    figure, axes = panels(1, 3, size=(13, 4.8), sharey=True)
    some = results.select("n", m=0)
    runs = [run for more in (1, 2) for run in some.select(method="SGD", more=more)]
    for method in ("SAM", "ASAM"):
        runs += some.select(method=method).tuned("rho")[method].runs
    shown = with_errors(type(results)(runs))
    more = dict(legend=False, ylabel="test error [%]", label=title_of)
    more["colours"] = lambda tags: COLOURS[tags["method"]] + 3 * (tags["more"] == 2)
    for ax, x, text in zip(axes, ("epoch", "gradients", "seconds"), (None, None, None), strict=True):
        curves(ax, shown, "test_error", x, xlabel=text, **more)
        closer(ax, shown, "test_error", 0.05, 0.02, 90)
        named(ax)
    return figure


def title_of(tags):
    if tags["method"] == "SGD":
        return "SGD" if tags["more"] == 1 else "SGD, twice"
    return f"{tags['method']} {tags['rho']:g}"


@album.figure("m.png", caption="Test error by radius, with a ball for every 128, 32 and 8 rows: mean and its error.")
def m_figure(results):
    figure, ax = panels()
    some = results.select("n", method="SAM")
    for i, (m, runs) in enumerate(some.groups("m")):
        found = sorted((rho, 100 * (1 - r.final("test_accuracy"))) for rho, r in runs.groups("rho"))
        at, values = zip(*found, strict=True)
        style = look(i) | dict(marker="osD"[i], capsize=3, label=f"m = {m or 128}")
        ax.errorbar(at, [v.mean() for v in values], [error_of(v) for v in values], **style)
    ax.set(xscale="log", xlabel="rho", ylabel="test error [%]")
    ax.legend()
    return figure
