"""Figures of mlp_optimizers: momentum, decay, Adam's rates and betas, and the report's schedulers."""

import math

from lab import Album
from lab.charts import by_epoch
from lab.figures import curves, heat, look, named, panels, sweep
from lab.verdicts import interval
from npopt.analysis.range_test import RangeTest

import numpy as np

album = Album()
BALL, BY = {"method": "HeavyBall", "beta": 0.9}, "validation_loss"


def by_decay(results, column):
    """{l2: last values} of heavy ball at beta 0.9, from 0 on."""
    some = results.select("d")
    return {0.0: some.select(**BALL).final(column)} | some.select(method="decay").finals(column, "l2")


def steepest(results):
    """The rates at which the loss of Adam's range test falls fastest, one a seed."""
    runs = results.select("e", method="range test")
    return np.array([RangeTest(run.columns["rate"], run.columns["batch_loss"]).steepest for run in runs])


@album.figure(
    "momentum.png",
    caption="Momentum at rate 0.02, five epochs: training loss, training and test error by epoch (median and quartiles "
    "of the seeds).",
)
def momentum_figure(results):
    figure, axes = panels(1, 3)
    by_epoch(axes, results.select("d", method=("HeavyBall", "Nesterov")))
    named(axes[-1])
    return figure


@album.figure(
    "decay.png",
    caption="Decay under momentum 0.9 at 0.02 (left, l2) and under Adam at 1e-3 (right: through the moments, L2, and "
    "decoupled, AdamW): test accuracy after five epochs, mean with its 95 per cent interval.",
)
def decay_figure(results):
    figure, axes = panels(1, 2, sharey=True)
    adam = {m: results.select("e", method=m).finals("test_accuracy", "decay") for m in ("L2", "AdamW")}
    for ax, lines in zip(axes, ({"momentum": by_decay(results, "test_accuracy")}, adam), strict=True):
        for i, (name, found) in enumerate(lines.items()):
            means, halves = zip(*(interval(100 * v) for v in found.values()), strict=True)
            ax.errorbar(range(len(found)), means, halves, marker="o", capsize=4, label=name, **look(i))
        ax.set_xticks(range(len(found)), [f"{d:g}" for d in found])
        ax.set(xlabel="decay", ylabel="test accuracy [%]")
        ax.legend()
    return figure


@album.figure(
    "adam.png",
    caption="Adam. Left: loss of held-out rows after three epochs against the rate (circle: chosen), dotted: where the "
    "range test's loss falls fastest, one line a seed. Right: training loss after five epochs over both betas at 1e-3.",
)
def adam_figure(results):
    figure, (a, b) = panels(1, 2)
    some = results.select("e", study="rate")
    sweep(a, some, "lr", BY, ylabel="loss of held-out rows", xlabel="learning rate", logy=True)
    best = some.tuned(by=BY, of="study")["rate"]
    a.plot([best.value], [np.median(best.runs.final(BY))], "o", ms=14, mfc="none", color="black")
    for rate in steepest(results):
        a.axvline(rate, color="#888888", lw=1, ls=":")
    table, rows, columns = results.select("e").table("train_loss", "b1", "b2")
    least, top = np.nanmin(table), min(math.log(10), np.nanmax(table))  # above ln 10 all is lost alike
    limits = (least, max(1.05 * least, top))
    heat(b, table, rows, columns, "b1", "b2", "training loss", log=True, limits=limits)
    return figure


@album.figure(
    "adam_epochs.png",
    caption="Training loss, training and test error by epoch (median and quartiles of the seeds): Adam at 1e-3 and at "
    "0.1, and SGD at 0.1.",
)
def adam_epochs_figure(results):
    figure, axes = panels(1, 3)
    by_epoch(axes, results.select("e", method=("Adam", "Adam, 0.1", "SGD")), top=97)
    named(axes[-1])
    return figure


@album.figure(
    "schedulers.png",
    caption="The report's schedulers under SGD: the rate of each epoch, and the training loss that follows (milestones "
    "15, 30 lie on constant 0.1).",
)
def schedulers_figure(results):
    figure, (left, right) = panels(1, 2)
    some = results.select("h", plan=lambda plan: "milestones" not in plan)
    for i, (name, group) in enumerate(some.groups("plan")):
        epochs, rates = (np.asarray(group[0].columns[c]) for c in ("epoch", "lr"))
        left.plot(np.repeat(epochs, 2)[1:-1], np.repeat(rates[1:], 2), label=name, **look(i))
    left.set(yscale="log", xlabel="epoch", ylabel="learning rate")
    curves(right, some, "train_loss", logy=True, ylabel="training loss", legend=False)
    named(left)
    named(right)
    return figure
