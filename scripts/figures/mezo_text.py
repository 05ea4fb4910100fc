"""Figures of mezo_text: accuracy by method, loss by texts forward, radius and rate, memory and time by size."""

from lab import Album
from lab.account import KINDS
from lab.figures import COLOURS, below, curves, look, named, panels, plain

import numpy as np

album = Album()
NAMES = {"Adam": "Adam", "head": "Adam, head alone"}


@album.figure(
    "few.png",
    caption="Left: test accuracy at the rate that held-out texts choose, 16 texts a class (points: draws of texts; "
    "bars: mean; dotted: the model before it has seen a label). Right: training loss of the methods without a gradient "
    "by step (median and range of the draws).",
)
def few_figure(results):
    some = results.select("a", stage="chosen")
    figure, (left, right) = panels(1, 2)
    methods = []
    for i, (method, runs) in enumerate(some.groups("method")):
        ends = 100 * runs.final("test_accuracy")
        left.plot(ends, [i] * len(ends), "o", ms=6, alpha=0.5, color=COLOURS[0])
        left.plot([ends.mean()], [i], "|", ms=20, mew=2.5, color=COLOURS[0])
        methods.append(NAMES.get(method, method))
    left.set_yticks(range(len(methods)), methods)
    left.invert_yaxis()
    left.axvline(100 * some.at("test_accuracy", 0)[0], color="#333333", ls=":", lw=1.2)
    left.set_xlabel("test accuracy [%]")
    slow = some.select(method=[m for m in ("MeZO", "MeZO-Adam", "LOZO", "LOZO-M")])
    curves(right, slow, "train_loss", "step", ylabel="training loss", legend=False, label=lambda tags: tags["method"])
    right.set_xlim(left=0)
    named(right)
    return figure


@album.figure(
    "values.png",
    caption="Training loss against texts forward, batches of 16 of 128 texts, each method at its best rate (median and "
    "range of the seeds); and MeZO's loss after its steps against the radius, for two rates (mean and range).",
)
def values_figure(results):
    figure, (left, right) = panels(1, 2)
    curves(left, results.select("v").at_best(), "train_loss", "values", xlabel="texts forward", ylabel="training loss",
           legend=False, label=lambda tags: tags["method"])  # fmt: skip
    left.set_xlim(left=0)
    named(left)
    for i, (lr, runs) in enumerate(results.select("r").groups("lr")):
        radii = sorted({run.tags["radius"] for run in runs})
        ends = [runs.select(radius=radius).final("train_loss") for radius in radii]
        style = look(i)
        right.plot(radii, [v.mean() for v in ends], marker="o", ms=5, label=f"rate {lr:g}", **style)
        right.fill_between(radii, [v.min() for v in ends], [v.max() for v in ends], alpha=0.2, color=style["color"])
    right.set(xscale="log", xlabel="radius", ylabel="training loss")
    plain(right.yaxis)
    named(right)
    return figure


@album.figure(
    "growth.png",
    caption="A GPT of four layers on eight windows of 64 characters, as it grows. Left: bytes at the highest point of "
    "a step, measured. Middle: how many times less MeZO needs. Right: seconds of a step.",
)
def growth_figure(results):
    figure, (left, middle, right) = panels(1, 3)
    tops, numbers = {}, {}
    for i, (method, runs) in enumerate(results.select("g").groups("method")):
        numbers = np.array([run.final["numbers"] for run in runs]) / 1e6
        tops[method] = np.array([sum(run.final[kind] for kind in KINDS) for run in runs]) / 1e6
        text = "Adam, way back" if method == "Adam" else method
        left.plot(numbers, tops[method], marker="o", ms=5, label=text, **look(i))
        right.plot(numbers, [run.final["step_seconds"] for run in runs], marker="o", ms=5, label=text, **look(i))
    middle.plot(numbers, tops["Adam"] / tops["MeZO"], marker="o", ms=5, **look(2))
    for ax, text in ((left, "MB"), (middle, "Adam's bytes / MeZO's"), (right, "seconds a step")):
        ax.set(xscale="log", xlabel="million parameters", ylabel=text)
    for ax in (left, right):
        ax.set_yscale("log")
    for axis in (left.xaxis, middle.xaxis, right.xaxis, left.yaxis, right.yaxis):
        plain(axis)
    middle.set_ylim(0, 1.1 * middle.get_ylim()[1])
    return below(figure, left, 2)
