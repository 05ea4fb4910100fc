"""Figures of resnet18: test accuracy against the budget, its crossings, curves by step, and full width by epoch."""

from lab import Album
from lab.charts import by_epoch
from lab.figures import MARKERS, below, curves, look, named, panels, said
from lab.verdicts import interval

import numpy as np

album = Album()
NAMES = ("momentum SGD", "Adam", "AdamW", "SGD", "RMSProp", "AdaGrad", "Adam-mini", "Adafactor", "Sophia-G")


def ahead(results, one, two):
    """(budgets, (seeds, budgets) of test accuracy of one less that of two, in points)"""
    budgets = sorted(results.select(method=one).values("steps"))
    ends = [[100 * results.select(method=m, steps=b).final("test_accuracy") for b in budgets] for m in (one, two)]
    return np.array(budgets), np.subtract(*ends).T


def bounds(values):
    """(middle, half the length of the 95 % interval), that of under 3 seeds is 0."""
    return interval(values) if len(values) > 2 else (np.mean(values), 0.0)


def by_steps(ax, budgets, ylabel):
    ax.set(xscale="log", xlabel="budget [steps]", ylabel=ylabel)
    ax.set_xticks(budgets, [f"{steps:,}" for steps in budgets])
    ax.minorticks_off()
    named(ax)


def line(ax, budgets, middle, bars, method, label):
    """A line with bars, in the method's colour, that `named` finds."""
    i = NAMES.index(method)
    ax.errorbar(budgets, middle, bars, **look(i), marker=MARKERS[i % len(MARKERS)], capsize=3)
    ax.plot(budgets, middle, color=look(i)["color"], lw=0, label=label)


def against_budget(ax, results, methods):
    """Test accuracy at the end against the budget, a line for each method; bars from the lowest to the highest seed."""
    for method in methods:
        ends = results.select(method=method).finals("test_accuracy", "steps")
        low, middle, high = np.transpose([np.percentile(100 * v, (0, 50, 100)) for v in ends.values()])
        line(ax, list(ends), middle, [middle - low, high - middle], method, method)
    by_steps(ax, list(ends), "test accuracy at the end [%]")


@album.figure(
    "budget.png",
    caption="Each budget is a run of its own with a cosine to its end, each method at the rate that held-out pictures "
    "chose. Left: test accuracy. Right: by how much momentum SGD is ahead (95 % intervals over seeds); where a line "
    "passes 0 the order turns.",
)
def budget_figure(results):
    figure, (left, right) = panels(1, 2, size=(12, 4.6))
    some = results.select(stage="chosen")
    against_budget(left, some, some.select("a").values("method"))
    for name in ("Adam", "AdamW"):
        budgets, apart = ahead(some, "momentum SGD", name)
        line(right, budgets, *np.transpose([bounds(v) for v in apart.T]), name, f"less {name}")
    right.axhline(0, color="#888888", lw=1)
    by_steps(right, budgets, "momentum SGD's lead [points]")
    return figure


@album.figure(
    "curves.png",
    caption="Training loss and test accuracy by step, a column for each budget, at the chosen rates; metrics with the "
    "statistics of the weights at that step.",
)
def curves_figure(results):
    some = results.select("a", stage="chosen").with_column("accuracy", lambda c: 100 * c["test_accuracy"])
    groups, shown = some.groups("steps"), dict(legend=False, colours=lambda t: NAMES.index(t["method"]))
    figure, grid = panels(2, len(groups), squeeze=False, size=(13, 7.2))
    for (top, bottom), (steps, runs) in zip(grid.T, groups, strict=True):
        for ax, column, text in ((top, "train_loss", "training loss"), (bottom, "accuracy", "test accuracy [%]")):
            curves(ax, runs, column, "step", ylabel=text, label=lambda t: t["method"], **shown)
        top.set_title(f"{steps:,} steps")
    return below(figure, grid[0, 0], 3, title=said(len(some.seeds)))


@album.figure("others.png", caption="All methods against the budget. Left: those of task A4. Right: of task B1.")
def others_figure(results):
    figure, axes = panels(1, 2, size=(12, 4.6))
    some = results.select(stage="chosen")
    for ax, part, beside in zip(axes, "bc", ("Adam", "AdamW"), strict=True):
        against_budget(ax, some, ["momentum SGD", beside, *some.select(part).values("method")])
    return figure


@album.figure(
    "wide.png",
    caption="ResNet-18 at full width, cosine, batch size 512, every epoch: training loss (of 2,000 rows), training and "
    "test error, median and range over seeds.",
)
def wide_figure(results):
    figure, axes = panels(1, 3)
    by_epoch(axes, results.select("w"), logy=True)
    return below(figure, axes[0], 3, title=said(len(results.select("w").seeds)))
