"""Figures of adam_variants: LeNet-5 by epoch and by work, memory and time of a step, and what Sophia does not clip."""

from lab import Album
from lab.charts import tuned
from lab.figures import COLOURS, below, closer, curves, panels
from npopt import SophiaG

import numpy as np

album = Album()
EVERY = SophiaG().every  # steps that share an estimate


def seconds(results, what):
    """{column: seconds over the rounds}"""
    return {m: np.array(v) for m, v in results.select("b", what=what)[0].columns.items()}


def shares(results):
    """{method: (update, estimate a step) in per cent of the time of a gradient}"""
    network = {name: np.median(v) for name, v in seconds(results, "gradients").items()}
    estimate = {"Sophia-G": 100 * network["sampled"] / network["gradient"] / EVERY}
    updates = seconds(results, "steps").items()
    return {m: (100 * np.median(v) / network["gradient"], estimate.get(m, 0)) for m, v in updates}


@album.figure(
    "lenet.png",
    caption="LeNet-5, batch size 64, cosine, each method at its best rate: training loss, test error, and loss of "
    "held-out rows against the rate.",
)
def lenet_figure(results):
    return tuned(results.select("a"))


@album.figure(
    "work.png",
    caption="LeNet-5, each method at its best rate: training loss by step, and by the rows that were differentiated, "
    "Sophia's estimates among them.",
)
def work_figure(results):
    some = results.select("a").at_best()
    figure, axes = panels(1, 2)
    for ax, x in zip(axes, ("step", "gradients"), strict=True):
        curves(ax, some, "train_loss", x, legend=False, ylabel="training loss", logy=True)
        closer(ax, some, "train_loss", 0.1, 0.05)
        ax.set_xlim(left=0)
    return below(figure, axes[0], 4)


@album.figure(
    "cost.png",
    caption="All 11,173,962 parameters of ResNet-18. Left: bytes of optimizer state a parameter, and (light) the most "
    "that a step holds beside x and g. Middle: time of an update (median, bars: quartiles). Right: update and (light) "
    "Sophia's estimate, a tenth of a gradient a step, in per cent of the time of a gradient of 128 rows.",
)
def cost_figure(results):
    figure, (left, middle, right) = panels(1, 3, size=(13, 4))
    kept, times, parts = results.select("b", what="memory"), seconds(results, "steps"), shares(results)
    peak, state = kept.means("peak"), kept.means("bytes")
    for i, m in enumerate(peak):
        left.barh(i, peak[m], color=COLOURS[i], alpha=0.35)
        left.barh(i, state[m], color=COLOURS[i])
        left.text(peak[m] + 0.1, i, f"{state[m]:.3g}; {peak[m]:.3g}", va="center")
        low, half, high = np.percentile(1000 * times[m], (25, 50, 75))
        middle.barh(i, half, color=COLOURS[i], xerr=[[half - low], [high - half]], capsize=3)
        right.barh(i, sum(parts[m]), color=COLOURS[i], alpha=0.35)
        right.barh(i, parts[m][0], color=COLOURS[i])
        right.text(sum(parts[m]) + 0.1, i, f"{sum(parts[m]):.1f} %", va="center")
    labels = ("state; peak [bytes a parameter]", "time of an update [ms]", "of the time of a gradient [%]")
    for ax, label in zip((left, middle, right), labels, strict=True):
        ax.set_yticks(range(len(peak)), list(peak) if ax is left else [""] * len(peak))
        ax.invert_yaxis()
        ax.set_xlabel(label)
    left.set_xlim(0, 1.35 * max(peak.values()))
    right.set_xlim(0, 1.25 * max(map(sum, parts.values())))
    return figure


@album.figure(
    "clipping.png",
    caption="Sophia-G on LeNet-5: the share of coordinates whose step is not clipped, by rho (bands: seeds). Grey: "
    "where the authors want it.",
)
def clipping_figure(results):
    figure, ax = panels()
    ax.axhspan(0.1, 0.5, color="#DDDDDD", zorder=0)
    curves(ax, results.select("c"), "share", ylabel="share of coordinates not clipped", logy=True, legend=False)
    ax.set_ylim(1e-5, 1)
    return below(figure, ax, 4)
