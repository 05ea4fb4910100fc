"""Figures of flat_networks: where methods stop, in the plane of sharpness and non-uniformity, and against test rows."""

from lab import Album
from lab.figures import MARKERS, look, panels
from npopt.analysis.stability import box

import numpy as np

album = Album()


def name_of(batch):
    return f"B = {batch}" if batch else "GD"


@album.figure(
    "plane.png",
    caption="Where each run stops, by sharpness and non-uniformity, a panel for each rate. Lines of the same colour: "
    "the bound of the non-uniformity for that batch; dashed: 2/lr. A minimum is stable for SGD left of it and below.",
)
def plane(results):
    groups = sorted(results.select("g").groups("lr"))
    figure, axes = panels(1, len(groups), size=(13, 4.9), squeeze=False)
    for ax, (lr, runs) in zip(axes[0], groups, strict=True):
        for i, (batch, some) in enumerate(runs.groups("batch")):
            colour = look(i)["color"]
            ax.plot(some.final("high"), some.final("uneven"), MARKERS[i], color=colour, ms=6, label=name_of(batch))
            bound = box(lr, batch, some[0].tags["n"])[1] if batch else np.inf
            if np.isfinite(bound):
                ax.plot([0, 2 / lr], [bound, bound], color=colour, lw=1.2)
        ax.axvline(2 / lr, color="#555555", lw=1.2, ls="--")
        top = 1.15 * max(runs.final("uneven"))
        ax.set(xlim=(0, 2.3 / lr), ylim=(0, top), title=f"rate {lr:g}", xlabel="sharpness lmax(H)")
    axes[0, 0].set_ylabel("non-uniformity")
    axes[0, 0].legend(fontsize=10)
    return figure


@album.figure(
    "test.png",
    caption="Test accuracy of the ends of all runs against sharpness, trace and non-uniformity; colours: batches, "
    "marks: rates.",
)
def test(results):
    figure, axes = panels(1, 3, size=(13, 4.8), sharey=True)
    names = {"high": "sharpness lmax(H)", "trace": "trace of H", "uneven": "non-uniformity"}
    some = results.select("g")
    batches, rates = some.values("batch"), some.values("lr")
    for ax, (column, text) in zip(axes, names.items(), strict=True):
        for (batch, lr), runs in some.groups("batch", "lr"):
            style = dict(color=look(batches.index(batch))["color"], marker=MARKERS[rates.index(lr)], ls="", ms=6)
            label = name_of(batch) if lr == rates[0] else None
            ax.plot(runs.final(column), 100 * runs.final("test_accuracy"), label=label, **style)
        ax.set(xscale="log", xlabel=text)
    axes[0].set_ylabel("test accuracy [%]")
    axes[-1].legend(fontsize=10)
    return figure


@album.figure(
    "switch.png",
    caption="Gradient descent until it stops, then SGD at the same rate, and the other way round, with a sixth of the "
    "labels drawn anew. Median over seeds, all of them thin; above: the largest eigenvalue at the end of each phase.",
)
def switch(results):
    groups = results.select("w").groups("order")
    figure, axes = panels(2, len(groups), size=(13, 7), sharey="row", squeeze=False)
    for column, (order, runs) in zip(axes.T, groups, strict=True):
        for ax, name in zip(column, ("train_accuracy", "test_accuracy"), strict=True):
            steps = np.asarray(runs[0].columns["step"])
            lines = np.array(
                [100 * np.asarray(run.columns[name]) for run in runs if len(run.columns[name]) == len(steps)]
            )
            for line in lines:
                ax.plot(steps, line, color=look(0)["color"], lw=0.6, alpha=0.5)
            ax.plot(steps, np.median(lines, 0), **look(0))
            ax.axvline(steps[np.argmax(np.asarray(runs[0].columns["phase"]) == 1)], color="#888888", lw=1, ls=":")
        ends = [[run.columns["high"][i] for i in np.flatnonzero(np.isfinite(run.columns["high"]))] for run in runs]
        text = ", then ".join(f"{v:.2g}" for v in np.median([e for e in ends if len(e) == 2], 0))
        column[0].set_title(f"{order}\nlmax {text}")
        column[1].set_xlabel("step")
    axes[0, 0].set_ylabel("training accuracy [%]")
    axes[1, 0].set_ylabel("test accuracy [%]")
    return figure
