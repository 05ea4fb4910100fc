"""Figures of memory_account: all methods by kind, and batch sizes."""

from lab import Album
from lab.account import KINDS
from lab.figures import COLOURS, below, panels

import numpy as np

album = Album()


def bars(ax, runs, names):
    left = np.zeros(len(runs))
    for i, kind in enumerate(KINDS):
        sizes = np.array([run.final[f"measured {kind}"] for run in runs]) / 1e6
        ax.barh(range(len(runs)), sizes, left=left, label=kind, color=COLOURS[i])
        left += sizes
    counted = [np.nansum([run.final[f"counted {kind}"] for kind in KINDS]) / 1e6 for run in runs]
    ax.plot(counted, range(len(runs)), "|", ms=9, mew=1.6, color="#111111", label="counted, without workspace")
    ax.set_yticks(range(len(runs)), names)
    ax.invert_yaxis()
    ax.set_xlabel("MB")


@album.figure(
    "methods.png",
    caption="Memory of a training step by kind, measured at its highest point, every method on the same Llama and "
    "batch. Marks: counted from arrays, without workspace.",
)
def methods_figure(results):
    runs = results.select("a")
    figure, ax = panels(1, 1, (12, 7.2))
    bars(ax, runs, [run.tags["method"] for run in runs])
    return below(figure, ax, 6)


@album.figure("batches.png", caption="The same of AdamW and of MeZO for batches of several sizes.")
def batches_figure(results):
    figure, axes = panels(1, 2, sharex=True)
    for ax, (method, runs) in zip(axes, results.select("b").groups("method"), strict=True):
        bars(ax, runs, [f"{run.tags['batch']}" for run in runs])
        ax.set(title=method, ylabel="rows")
    return below(figure, axes[0], 6)
