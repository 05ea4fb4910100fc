"""Figures of sampling: floors against steps, what theory makes of them, the prox, and paths."""

from lab import Album
from lab.figures import MARKERS, curves, each, look, panels, ranged, reference

import numpy as np

album = Album()
COLOURS = {name: i for i, name in enumerate(("with replacement", "shuffle once", "reshuffling", "by class"))}
ROWS = 64  # of part b


def between(n):
    """The steps well between the corners 1/n^2 and 1/n."""
    return 8 / n**2, 1 / (8 * n)


def levelled(ax, runs, number, label):
    """Floors against steps, geometric means with the range of the seeds."""
    steps, levels = runs.levels("gap", "c")
    ranged(ax, steps, levels.T, number, geometric, ms=5, capsize=2, lw=1.4, label=label)


def geometric(values):
    return np.exp(np.log(values).mean())


@album.figure(
    "floors.png",
    caption="The floor of f - f* at the ends of epochs against the step c/L_max, from the lowest to the highest seed; "
    "dotted: slopes that theory gives, and the corners 1/n^2 and 1/n.",
)
def floors_figure(results):
    groups = dict(results.select("a", data=results.select("a").values("data")[0]).groups("n"))

    def draw(ax, n):
        for order, runs in groups[n].groups("order"):
            levelled(ax, runs, COLOURS[order], order)
        steps, levels = groups[n].select(order="reshuffling").levels("gap", "c")
        low, high = max(between(n)[0], steps[0]), min(between(n)[1], steps[-1])
        reference(ax, (low, high), levels[:, int(np.abs(steps - high).argmin())].mean() / 3, 3)
        reference(ax, (steps[0], 1 / n**2), levels[:, 0].mean() / 3, 2, at_start=True)
        for corner, text in ((1 / n**2, "1/n²"), (1 / n, "1/n")):
            if steps[0] <= corner:
                ax.axvline(corner, color="#999999", lw=1, ls=":")
                ax.annotate(text, (corner, 0.97), xycoords=("data", "axes fraction"), fontsize=10, color="#666666")
        ax.set(xscale="log", yscale="log", xlabel="step c, in units of 1/L_max", ylabel="floor of f - f*")

    return each(list(groups), draw, legend=4, titles=lambda n: f"n = {n}")


@album.figure(
    "collapse.png",
    caption="The same floors, divided by what theory gives: one curve for all n. Left: shuffled once. Right: "
    "reshuffled anew; rising where c^3 rules, level where c^2 does.",
)
def collapse_figure(results):
    figure, axes = panels(1, 2)
    for ax, order, power in zip(axes, ("shuffle once", "reshuffling"), (1, 2), strict=True):
        for i, ((data, n), runs) in enumerate(results.select("a", order=order).groups("data", "n")):
            steps, levels = runs.levels("gap", "c")
            middle, style = np.exp(np.log(levels).mean(0)), dict(marker=MARKERS[i], ms=5, lw=1.4, **look(i))
            ax.plot(n**power * steps, middle / steps**2 / n ** (power % 2), label=f"{data}, n = {n}", **style)
        xlabel, ylabel = ("n c", "floor / (n c²)") if power == 1 else ("n² c", "floor / c²")
        ax.set(xscale="log", yscale="log", title=order, xlabel=xlabel, ylabel=ylabel)
    reference(axes[1], (10, 100), axes[1].get_ylim()[0] * 300, 1)
    axes[0].legend(fontsize=10)
    return figure


@album.figure(
    "prox.png",
    caption=f"LASSO on {ROWS} rows, started at the minimum: the floor of F - F* with a prox at every step, and with "
    "one an epoch; dotted: slopes 1 and 2.",
)
def prox_figure(results):
    groups = dict(results.select("b").groups("data"))

    def draw(ax, data):
        for i, ((order, prox), runs) in enumerate(groups[data].groups("order", "prox")):
            levelled(ax, runs, i, f"{order}, prox {prox}")
        ends = dict(order="shuffle once", prox="once an epoch"), dict(order="with replacement")
        (steps, once), (_, independent) = (groups[data].select(**tags).levels("gap", "c") for tags in ends)
        for levels, above, power in ((once, 3, 2), (independent, 2, 1)):
            reference(ax, (steps[0], 1 / 32), levels[:, 0].mean() * above, power, at_start=True)
        ax.set(xscale="log", yscale="log", xlabel="step c, in units of 1/L_max", ylabel="floor of F - F*")

    return each(list(groups), draw, legend=3)


@album.figure(
    "paths.png",
    caption="20 epochs from 0, each order at its best step (of a grid of halvings): F - F* at the ends of epochs, "
    "median over seeds with its band.",
)
def path_figure(results):
    sets = {data: runs.at_best("c", "gap", "order") for data, runs in results.select("p").groups("data")}

    def draw(ax, data):
        shown = dict(logy=True, legend=False, ylabel="F(w) - F*", colours=lambda t: COLOURS[t["order"]])
        curves(ax, sets[data], "gap", **shown)

    return each(list(sets), draw, legend=4)
