"""Figures of adam8bit: losses by what the state is kept in, the maps themselves, what they do to outliers and to v."""

from lab import Album
from lab.figures import below, closer, curves, look, panels
from npopt import backend
from npopt.codes import Code

import numpy as np

album = Album()
SAME = ("blocks of 256", "blocks of 2048")
TENSOR, LINEAR, FOUR = "one scale", "one scale, linear", "4 bits, v never 0"
SIGNS = "blocks of 2048, linear, signs kept"
ARMS = {  # what Quantised is given; None: 32 bits
    "32 bits": None,
    "blocks of 256": dict(block=256),
    "blocks of 2048": dict(block=2048),
    TENSOR: dict(block=None),
    "blocks of 2048, linear": dict(block=2048, code="linear", signs=False),
    LINEAR: dict(block=None, code="linear", signs=False),
    SIGNS: dict(block=2048, code="linear"),
    "blocks of 256, drawn": dict(block=256, stochastic=True),
    FOUR: dict(block=128, code=("dynamic", "positive"), bits=4),
    "4 bits, dynamic": dict(block=128, bits=4),
}


SHOWN = ("32 bits", "blocks of 256", TENSOR, "blocks of 2048, linear", LINEAR, FOUR, "4 bits, dynamic")


def colour(tags):
    return list(ARMS).index(tags["method"])


@album.figure(
    "training.png",
    caption="Adam with 32 bits and with codes, at the rate of 32 bits. Left: training loss of the encoder on SST-2; "
    "right: loss of held-out text of the GPT. Medians of the seeds and their range. Drawn codes and blocks of 2048 "
    "are left out: see the next figure. What the legend says of diverged runs is said of the GPT.",
)
def training(results):
    figure, axes = panels(1, 2)
    for ax, part, column, label in (
        (axes[0], "a", "train_loss", "training loss, SST-2"),
        (axes[1], "b", "validation_loss", "held-out loss, GPT"),
    ):
        curves(
            ax,
            results.select(part, method=SHOWN),
            column,
            "epoch" if part == "a" else "step",
            ylabel=label,
            legend=False,
            colours=colour,
        )
        closer(ax, results.select(part, method="32 bits"), column, 0.1, 0.15)
        ax.set_title("fine-tuning an encoder" if part == "a" else "training a GPT")
        ax.set_xlim(left=0)
    return below(figure, axes[1], 3)


@album.figure(
    "gaps.png",
    caption="Loss at the end, in parts of that of 32 bits with the same seed (circles: seeds, bar: mean). Left: the "
    "encoder's training loss; right: the GPT's held-out loss. Crosses at the edge: beyond it, or diverged.",
)
def gaps(results):
    figure, axes = panels(1, 2, sharey=True)
    for ax, part, column, text in (
        (axes[0], "a", "train_loss", "SST-2, training loss"),
        (axes[1], "b", "validation_loss", "GPT, held-out loss"),
    ):
        base = results.select(part, method="32 bits").final(column)
        found = {m: results.select(part, method=m).final(column) / base - 1 for m in ARMS if ARMS[m]}
        inner = np.concatenate([v[np.isfinite(v)] for v in found.values()])
        top = 100 * min(inner.max(), max(0.02, 4 * np.median(np.abs(inner)))) * 1.1
        for k, values in enumerate(found.values()):
            shown, style = 100 * np.where(np.isfinite(values), values, np.inf), look(k + 1)
            inside = shown <= top
            ax.plot(shown[inside], np.full(inside.sum(), k), "o", color=style["color"])
            ax.plot(np.full((~inside).sum(), top), np.full((~inside).sum(), k), "x", color=style["color"], ms=9)
            if inside.all():
                ax.plot([shown.mean()] * 2, [k - 0.3, k + 0.3], "-", color=style["color"], lw=2.5)
        ax.axvline(0, color="#999999", lw=1)
        ax.set(xlabel=f"{text}: above 32 bits [%]", yticks=range(len(found)), yticklabels=list(found))
        ax.set_xlim(right=top * 1.03)
    axes[0].invert_yaxis()
    axes[0].set_title("fine-tuning an encoder")
    axes[1].set_title("training a GPT")
    return figure


@album.figure(
    "maps.png",
    caption="Left: the values of the maps for numbers without a sign, by code (logarithmic; 0 is left out). Right: the "
    "largest relative error of a number that is that share of its block's largest one.",
)
def maps(results):
    figure, (left, right) = panels(1, 2)
    q = np.float32(np.logspace(-8, -0.04, 40_000))
    for k, (code, name) in enumerate(
        (
            (Code("dynamic", False), "dynamic, 8 bits"),
            (Code("linear", False), "linear, 8 bits"),
            (Code("dynamic", False, 4), "dynamic, 4 bits"),
            (Code("positive", False, 4), "never 0, 4 bits"),
        )
    ):
        values = code.values
        at = np.arange(values.size)[values > 0] / (values.size - 1)
        left.plot(at, values[values > 0], label=name, **look(k), marker="." if code.bits == 4 else None)
        error = np.maximum.reduceat(np.abs(after(code, q) / q - 1), range(0, q.size, 200))
        right.plot(q[::200][: error.size], error, label=name, **look(k))
    left.set(yscale="log", xlabel="code, from the first to the last", ylabel="value", title="where the values lie")
    right.set_title("what a small number costs")
    right.set(xscale="log", yscale="log", xlabel="share of the block's largest number", ylabel="largest relative error")
    right.set_ylim(1e-3, 30)
    return below(figure, left, 4)


def after(code, q):
    """Numbers after a round trip in one block with 1."""
    return backend.to_host(code.quantise(backend.asarray(np.append(q, np.float32(1))), None).read())[:-1]


@album.figure(
    "outliers.png",
    caption="262,144 Gaussian numbers, of which 3 are ten thousand times as large. Left: mean error of the others, by "
    "block; dashed: without outliers. Right: share of their squares (no outliers) that become 0.",
)
def outliers(results):
    figure, (left, right) = panels(1, 2)
    some, places = results.select("c"), (256, 2048, "all")
    for k, kind in enumerate(("dynamic", "linear")):
        mine = some.select(kind=kind)
        for dashes, planted in (("-", True), ("--", False)):
            values = [mine.select(block=b, outliers=planted).final("error").mean() for b in places]
            text = f"{kind}, {'with' if planted else 'without'} outliers"
            left.plot(range(3), values, dashes, marker="o", color=look(k)["color"], label=text)
        values = [100 * mine.select(block=b, outliers=False).final("zero_squares").mean() for b in places]
        right.plot(range(3), values, marker="o", label=kind, **look(k))
    for ax, label in ((left, "mean error"), (right, "squares that become 0 [%]")):
        ax.set(yscale="log", xticks=range(3), xticklabels=["256", "2048", "all numbers"], xlabel="block", ylabel=label)
        ax.legend()
    left.set_title("an outlier spoils its block")
    right.set_title("small v become 0 in a linear map")
    return figure


@album.figure(
    "natural.png",
    caption="What a round trip would do to the m and v that AdamW keeps in 32 bits of the GPT, by step. Left: mean "
    "change of the step, in parts of it. Right: share of numbers with v = 0 and m not 0 (below 0.001 %: at the edge).",
)
def natural(results):
    figure, axes = panels(1, 2)
    some = results.select("n")
    for k, method in enumerate(ARMS):
        if f"zeros {method}" not in some[0].columns:
            continue
        for ax, column, scale in ((axes[0], "step_error", 1), (axes[1], "zeros", 100)):
            values = scale * np.mean([run.columns[f"{column} {method}"] for run in some], axis=0)
            ax.plot(some[0].columns["step"], np.maximum(values, 1e-3), label=method, **look(k))
    axes[0].set(
        yscale="log", xlabel="step", ylabel="change of the step, in parts of it", title="how far a step goes astray"
    )
    axes[0].set_title("how far a step goes astray")
    axes[1].set_title("and why")
    axes[1].set(yscale="log", xlabel="step", ylabel="v = 0 beside m that is not [%]")
    return below(figure, axes[0], 4)
