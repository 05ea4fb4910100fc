"""Figures of block_coordinate: training by methods, rates and periods, orders, how far layers go, memory by kind."""

from lab import Album
from lab.account import KINDS
from lab.figures import COLOURS, below, closer, curves, look, named, panels

import numpy as np

album = Album()
NEVER = 10_000  # steps: a period that does not end
ORDERS = ("ascending", "descending", "random", "uniform", "largest", "importance", "importance, 1/p")


def ways_of(runs):
    """The columns that say how far blocks have gone, the embedding's first."""
    return [name for name in runs[0].columns if name.startswith("moved ")]


@album.figure(
    "methods.png",
    caption="An encoder on sentences about films, each method at its best rate: training loss and test accuracy "
    "(median and range of the seeds), and held-out loss of the first seed against the rate.",
)
def methods_figure(results):
    some = results.select("a", stage="chosen")
    some = some.with_column("score", lambda c: 100 * c["test_accuracy"])
    figure, axes = panels(1, 3)
    for ax, column, text in ((axes[0], "train_loss", "training loss"), (axes[1], "score", "test accuracy [%]")):
        curves(ax, some, column, "step", ylabel=text, legend=False, label=lambda tags: tags["method"])
        closer(ax, some, column, 0.05, 0.05)
        ax.set_xlim(left=0)
    for i, (method, runs) in enumerate(results.select("a").groups("method")):
        first = [run for run in runs if run.seed == runs[0].seed]
        points = sorted({run.tags["lr"]: run.final["validation_loss"] for run in first}.items())
        axes[2].plot(*zip(*points, strict=True), marker="o", ms=5, label=method, **look(i))
    axes[2].set(xscale="log", xlabel="learning rate", ylabel="held-out loss")
    return below(figure, axes[0], 4)


@album.figure(
    "periods.png",
    caption="How often blocks change: held-out loss against the rate, first seed, for LISA (left) and BAdam (right).",
)
def periods_figure(results):
    figure, axes = panels(1, 2, sharey=True)
    for ax, (method, runs) in zip(axes, results.select("b").groups("method"), strict=True):
        for i, (period, some) in enumerate(runs.groups("period")):
            points = sorted({r.tags["lr"]: r.final["validation_loss"] for r in some if r.seed == some[0].seed}.items())
            text = "never" if period == NEVER else f"every {period} steps"
            ax.plot(*zip(*points, strict=True), marker="o", ms=5, label=text, **look(i))
        ax.set(xscale="log", xlabel="learning rate", title=method)
        rates = sorted({run.tags["lr"] for run in runs})
        ax.minorticks_off()
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes[0].set_ylabel("held-out loss")
    return below(figure, axes[0], 4)


@album.figure(
    "orders.png",
    caption="Left: test accuracy of BAdam by the order of its blocks (points: seeds; bars: mean). Right: how far each "
    "block has gone from where it began, in parts of its norm, by method (mean of the seeds).",
)
def orders_figure(results):
    figure, (left, right) = panels(1, 2)
    orders = [order for order in ORDERS if any(run.tags["order"] == order for run in results.select("c"))]
    for i, order in enumerate(orders):
        ends = 100 * results.select("c", order=order).final("test_accuracy")
        left.plot(ends, [i] * len(ends), "o", ms=6, alpha=0.5, color=COLOURS[0])
        left.plot([ends.mean()], [i], "|", ms=20, mew=2.5, color=COLOURS[0])
    left.set_yticks(range(len(orders)), orders)
    left.invert_yaxis()
    left.set_xlabel("test accuracy [%]")
    for i, (method, runs) in enumerate(results.select("a", stage="chosen").groups("method")):
        names = ways_of(runs)
        ways = [runs.final(name).mean() for name in names]
        if method != "head":
            right.plot(range(len(names)), ways, marker="o", ms=5, label=method, **look(i))
    texts = [name.removeprefix("moved ").replace("encoder", "words") for name in names]
    right.set_xticks(range(len(names)), texts, rotation=30)
    right.set(ylabel="|x - x0| / |x0|", ylim=(0, None))
    named(right)
    return figure


@album.figure(
    "memory.png",
    caption="Memory of a training step by kind, measured: what the pool and NumPy have lent out at its highest point. "
    "BAdam with one layer at hand, from the lowest to the highest.",
)
def memory_figure(results):
    runs = results.select("m")
    figure, ax = panels(1, 1, (11, 5.2))
    names, left = [run.tags["method"] for run in runs], np.zeros(len(runs))
    for i, kind in enumerate(KINDS):
        sizes = np.array([run.final[f"measured {kind}"] for run in runs]) / 1e6
        ax.barh(range(len(runs)), sizes, left=left, label=kind, color=COLOURS[i])
        left += sizes
    ax.set_yticks(range(len(runs)), names)
    ax.invert_yaxis()
    ax.set_xlabel("MB")
    return below(figure, ax, 5)
