"""Figures of orders_networks: accuracy by epoch, the saw of an epoch, what the batch statistics cost."""

from lab import Album
from lab.figures import below, curves, look, named, panels, said
from problems.datasets import shared

import numpy as np

album = Album()
NAMES = {"m": "LeNet-5", "v": "VGG-11", "r": "ResNet-18"}


def borders(data, rows):
    """Where the classes end in an epoch class by class, as shares of it."""
    counts = np.unique(shared(data, rows=rows).y_train, return_counts=True)[1]
    return np.cumsum(counts) / counts.sum()


def in_percent(runs):
    runs = runs.with_column("error", lambda c: 100 * (1 - np.asarray(c["test_accuracy"])))
    return runs.with_column("accuracy", lambda c: 100 * np.asarray(c["test_accuracy"]))


def common(results, part):
    """The runs at the rate that all orders share: the middle one."""
    rates = sorted(results.select(part).values("lr"))
    return in_percent(results.select(part, lr=rates[len(rates) // 2]))


@album.figure(
    "orders.png",
    caption="Test error and training loss by epoch, all orders at one common rate (the middle of the grid). Rows "
    "compare networks.",
)
def orders(results):
    parts = [part for part in NAMES if part in results.parts] or results.select("m").parts
    figure, grid = panels(2, len(parts), size=(13, 7.5), squeeze=False)
    for part, (top, bottom) in zip(parts, grid.T, strict=True):
        runs = common(results, part)
        order = runs.values("order")
        for ax, column, text in ((top, "error", "test error [%]"), (bottom, "train_loss", "training loss")):
            curves(
                ax,
                runs,
                column,
                logy=True,
                legend=False,
                ylabel=text,
                label=lambda t: t["order"],
                colours=lambda t, order=order: order.index(t["order"]),
            )
            named(ax, 9)
        top.set_title(f"{NAMES[part]}, {runs.values('data')[0]}")
    figure.suptitle(said(len(results.select(parts[0]).seeds)), fontsize=10, color="#666666")
    return figure


@album.figure(
    "saw.png",
    caption="LeNet-5: the batch loss within two epochs, class by class and reshuffled (means of a hundredth "
    "of an epoch), and what becomes of test accuracy meanwhile; grey: a class ends. Seed 0.",
)
def saw(results):
    figure, axes = panels(2, 1, size=(12, 7), sharex=True)
    runs = in_percent(results.select("t"))
    for ax, column, text in ((axes[0], "loss", "batch loss"), (axes[1], "accuracy", "test accuracy [%]")):
        for end in np.add.outer([0, 1], borders(*runs.groups("data", "rows")[0][0])).reshape(-1):
            ax.axvline(end, color="#dddddd", lw=1 + (end % 1 == 0), zorder=0)
        curves(
            ax,
            runs,
            column,
            logy=column == "loss",
            legend=False,
            ylabel=text,
            label=lambda t: t["order"],
            colours=lambda t: {"by class": 4, "reshuffling": 2}[t["order"]],
        )
        ax.grid(axis="x", visible=False)
        named(ax)
    axes[0].set(xlabel="", ylim=(1e-3, None))  # a class alone is learned to 1e-16
    return figure


@album.figure(
    "statistics.png",
    caption="Test accuracy at the end, at the common rate: with the running batch statistics, and with those taken "
    "anew over 2,000 training rows of all classes; a mark a seed. Dotted: a guess.",
)
def statistics(results):
    parts = [part for part in ("v", "r") if part in results.parts] or results.select("v").parts
    figure, grid = panels(1, len(parts), size=(13, 5), sharey=True, squeeze=False)
    for part, ax in zip(parts, grid[0], strict=True):
        groups = common(results, part).groups("order")
        for i, (_, runs) in enumerate(groups):
            for shift, column, marker in ((-0.15, "test_accuracy", "o"), (0.15, "fresh_accuracy", "^")):
                values = 100 * runs.final(column)
                name = {"o": "running", "^": "taken anew"}[marker] if i == 0 else None
                ax.plot(
                    np.full(len(values), i + shift), values, marker, color=look(i)["color"], ms=7, alpha=0.7, label=name
                )
        ax.axhline(10, color="#888888", lw=1, ls=":")
        ax.set_xticks(range(len(groups)), [order for order, _ in groups], rotation=15)
        ax.set(title=f"{NAMES[part]}, {results.select(part).values('data')[0]}", ylim=(0, 100))
    grid[0, 0].set_ylabel("test accuracy [%]")
    return below(figure, grid[0, -1], title="statistics")


@album.figure(
    "time.png",
    caption="Training loss against the time of the steps, at the common rate: draws by score pay for probabilities "
    "that are learned on the way.",
)
def time(results):
    parts = [part for part in NAMES if part in results.parts] or results.select("m").parts
    figure, grid = panels(1, len(parts), size=(13, 4.8), squeeze=False)
    for part, ax in zip(parts, grid[0], strict=True):
        runs = common(results, part).select(order=("with replacement", "reshuffling", "by score"))
        order = results.select(part).values("order")
        curves(
            ax,
            runs,
            "train_loss",
            "seconds",
            ylabel="training loss",
            logy=True,
            legend=False,
            label=lambda t: t["order"],
            colours=lambda t, order=order: order.index(t["order"]),
        )
        ax.set_title(NAMES[part])
        named(ax, 9)
    return figure
