"""Figures of lecture_notes: the notes' examples, rates, passes, surfaces."""

from lab import Album
from lab.figures import curves, heat, look, named, panels
from lab.measures import solved
from problems import LANDSCAPES
from problems.examples import BIG

import numpy as np
import scipy.special

album = Album()
STEPS, STARTS = 300, 4  # on a surface, also in the grid
ENDS = {"train_loss": "training loss", "test_accuracy": "test accuracy"}


@album.figure(
    "notes.png",
    caption="The notes' examples. Left: steps around a gradient of 1e5 among ones, dotted: sqrt(1/(1-b2)). Middle: the "
    "convex problem with its minimum at -1. Right: RAdam's rectifier.",
)
def notes_figure(results):
    figure, axes = panels(1, 3)
    run, other = results.select("b", of="spike")[0], results.select("b", of="counterexample")[0]
    at = int(np.argmax(run.columns["adam"]))
    for i, (name, label) in enumerate((("adam", "Adam"), ("amsgrad", "AMSGrad"))):
        axes[0].plot(np.arange(len(run.columns[name])) - at, run.columns[name], label=label, **look(i))
        axes[1].plot(other.columns["step"], other.columns[name], label=label, **look(i))
    axes[0].set(yscale="log", xlabel="steps after the spike", ylabel="|step| / rate", title="a spike at t = 100,001")
    axes[0].axhline(1000**0.5, color="#888888", lw=1, ls=":")
    axes[1].set(xscale="log", xlabel="step", ylabel="x", title=f"C = {BIG:g}, minimum at -1")
    c = results.select("b", of="rectifier")[0].columns
    for i, name in enumerate(n for n in c if n != "step"):
        axes[2].plot(c["step"], c[name], label=name, **look(i))
    axes[2].set(xscale="log", xlabel="step", ylabel="r", title="RAdam's rectifier")
    for ax in axes:
        named(ax)
    return figure


@album.figure(
    "warmup.png",
    caption="Adam, Adam with a warm-up of a tenth of the steps, RAdam, cosine: training loss and test accuracy at the "
    "end against the rate, mean with its 95 per cent interval.",
)
def warmup_figure(results):
    figure, axes = panels(1, 2)
    for ax, (column, text) in zip(axes, ENDS.items(), strict=True):
        for i, (method, runs) in enumerate(results.select("w").groups("method")):
            ends = dict(sorted(runs.finals(column, "lr").items()))
            rates, values = np.array(list(ends)) * 1.06 ** (i - 1), np.array(list(ends.values()))
            n = values.shape[1]
            half = scipy.special.stdtrit(n - 1, 0.975) * values.std(1, ddof=1) / n**0.5 if n > 1 else 0
            ax.errorbar(rates, values.mean(1), half, marker="o", capsize=4, label=method, **look(i))
        ax.set(xscale="log", xlabel="highest rate", ylabel=text)
    axes[0].set_yscale("log")
    axes[0].legend()
    return figure


@album.figure(
    "lines.png",
    caption="On-line, one row a step, and off-line, all 500 rows a step, each at its best rate: training loss and test "
    "accuracy by passes (median and quartiles of the seeds).",
)
def lines_figure(results):
    figure, axes = panels(1, 2)
    some = results.select("o").at_best()
    for ax, (column, text) in zip(axes, ENDS.items(), strict=True):
        curves(ax, some, column, ylabel=text, xlabel="passes", legend=False)
        named(ax)
    return figure


@album.figure(
    "surfaces.png",
    caption=f"Share of {STARTS} starts, drawn in the window, from which each method gets to the global minimum (to "
    f"1e-6 of the height at the start) in {STEPS} steps, at its best of 13 rates; in per cent. Surfaces moved by (1.3, "
    "-0.7).",
)
def surfaces_figure(results):
    table, names, surfaces = solved(results.select("e", moved=True))
    figure, ax = panels(size=(13, min(7.5, 0.3 * len(names) + 1.6)))
    titles = [LANDSCAPES[name].title for name in surfaces]
    heat(ax, 100 * table[::-1], names[::-1], titles, "", "", "starts that are solved [%]", digits="{:.0f}")
    ax.tick_params(axis="x", rotation=25)
    return figure
