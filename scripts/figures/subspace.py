"""Figures of subspace: perplexity by steps and seconds, bytes, ranks, sweeps, the limit of GaLore, fine-tuning."""

from lab import Album, MissingRuns
from lab.figures import COLOURS, MARKERS, below, closer, curves, look, mark, named, panels, sweep

import numpy as np

album = Album()
BY = "validation_loss"
WITHIN = ("AdamW", "GaLore", "GoLore", "Flora")  # one optimizer each, all weights move
LAYERS = ("LoRA", "ReLoRA", "LoRA, warm", "ReLoRA, warm", "SLTrain", "W = BA")  # other layers
NAMES = (*WITHIN, *LAYERS)
FINE = {"full": 0, "LoRA": 4, "FLoRA": 5, "head alone": 6}  # numbers of colours
WALKS = {("GaLore", 1): 1 + len(COLOURS), ("GaLore", 20): 1, ("GoLore", 20): 2, ("SGD", 1): 6}
BYTES = ("weights", "gradients", "states", "projectors")


def stein(lr, sigma, k):
    """The plateau of f = 1/2 |X|^2, X: (k, k), under noise of deviation sigma in each number of the gradient."""
    return lr * sigma**2 * k * k / (2 * (2 - lr))


def number(tags):
    return NAMES.index(tags["method"])


def name(tags):
    return tags["method"]


def shown(results):
    """The runs of part a with their perplexity, without tags that differ by method alone."""
    some = results.select("a")
    if not some:
        raise MissingRuns("no finished run of part a")
    return some.with_column("perplexity", lambda c: np.exp(c[BY])).at_best(by=BY)


@album.figure(
    "pretraining.png",
    caption="Perplexity of held-out text, each method at its best rate. Left: optimizers, all weights move; right: "
    "layers. AdamW in both. (Seconds: benchmarks/memory.py, alone in a process.)",
)
def pretraining(results):
    some = shown(results)
    figure, axes = panels(1, 2)
    for ax, methods in zip(axes, (WITHIN, ("AdamW", *LAYERS)), strict=True):
        curves(ax, some.select(method=list(methods)), "perplexity", "step", ylabel="perplexity, held out", legend=False,
               label=name, colours=number, logy=True)  # fmt: skip
        closer(ax, some, "perplexity", 0.03, 0.0, 65)
        ax.set_xlim(left=0)
        named(ax)
    return figure


@album.figure(
    "bytes.png",
    caption="What is kept between two steps: weights, gradients, states and projectors (float32), against the "
    "perplexity that it buys; right: the numerical rank of the change of the maps, W_T - W_0, singular values above a "
    "hundredth of the largest (points: mean over maps, one a seed; crosses: the largest map; dotted: the rank that was "
    "given).",
)
def memory(results):
    some = shown(results)
    figure, (left, right) = panels(1, 2, size=(13, 5.4))
    order = [m for m in NAMES if m in some.values("method")]
    for i, method in enumerate(order):
        runs, at = some.select(method=method), 0.0
        for j, part in enumerate(BYTES):
            size = runs[0].final[part] / 1e3
            left.barh(i, size, left=at, color=look(j)["color"], alpha=0.75, label=part if i == 0 else None)
            at += size
        left.annotate(f"{np.exp(runs.final(BY).mean()):.2f}", (at, i), (4, 0), textcoords="offset points", va="center")
        right.plot(runs.final("rank"), [i] * len(runs), "o", ms=6, alpha=0.6, color=look(0)["color"])
        right.plot([runs.final("largest_rank").max()], [i], "x", ms=8, mew=2, color=look(1)["color"])
    left.set_xlim(0, 1.12 * left.get_xlim()[1])
    left.set(xlabel="kilobytes (numbers: perplexity at the end)")
    for ax in (left, right):
        ax.set_yticks(range(len(order)), order if ax is left else [""] * len(order))
        ax.set_ylim(len(order) - 0.5, -0.5)
    given = results.select("a", method="LoRA")[0].final["largest_rank"]
    right.axvline(given, color="#888888", lw=1, ls=":")
    right.set(xlabel="numerical rank of the change")
    right.set_xlim(left=0)
    return below(figure, left, 4)


@album.figure(
    "sweeps.png",
    caption="GaLore at the rate of part a: held-out loss at the end against rank and period, and by how the subspace "
    "is found and by what becomes of the moments (points: seeds; bars: mean). Dotted: AdamW.",
)
def sweeps(results):
    some = results.select("b")
    if not some:
        raise MissingRuns("no finished run of part b")
    figure, axes = panels(1, 3)
    for i, over in enumerate(("rank", "period")):
        ticks = some.select(over=over).values(over)
        sweep(axes[i], some.select(over=over), over, BY, xlabel=over, ylabel="held-out loss")
        axes[i].set_xticks(ticks, [f"{v:g}" for v in ticks])
        axes[i].minorticks_off()
    for i, (_, runs) in enumerate(some.select(over="way").groups("way")):
        values = runs.final(BY)
        axes[2].plot([i] * len(values), values, MARKERS[0], alpha=0.5, color=look(i)["color"])
        axes[2].plot([i], [values.mean()], "_", ms=20, mew=2.5, color=look(i)["color"])
    ways = some.select(over="way").values("way")
    axes[2].set_xticks(range(len(ways)), [way.replace(" ", "\n") for way in ways], rotation=20)
    axes[2].set_xlim(-0.5, len(ways) - 0.5)
    values = np.concatenate([some.final(BY), results.select("a", method="AdamW").final(BY)])
    level = results.select("a", method="AdamW").final(BY).mean()
    margin = 0.08 * (values.max() - values.min())
    for ax in axes:
        ax.set_ylim(values.min() - margin, values.max() + margin)
        mark(ax, level, "AdamW", 0.05)
    return figure


@album.figure(
    "limit.png",
    caption="Left: noise lies where f is flat, and outweighs the gradient: GaLore's subspace is the noise's, and f "
    "stays where it is; GoLore, random from a quarter on, and full batches converge. Right: noise that is the same "
    "in all directions: all end at the plateau of SGD (dotted: lr σ² k² / (2 (2 - lr))).",
)
def limit(results):
    figure, (left, right) = panels(1, 2)
    some, iso = results.select("c", noise="block"), results.select("c", noise="isotropic")
    curves(left, some, "gap", "step", logy=True, ylabel="f - f*", legend=False,
           label=lambda t: f"{t['method']}, {'one row' if t['batch'] == '1' else 'all rows'}",
           colours=lambda t: NAMES.index(t["method"]) + len(COLOURS) * (t["batch"] != "1"))  # fmt: skip
    left.set_ylim(bottom=max(1e-12, left.get_ylim()[0]))
    curves(right, iso, "gap", "step", logy=True, ylabel="f - f*", legend=False,
           label=lambda t: t["method"] + (f", period {t['period']}" if t["method"] != "SGD" else ""),
           colours=lambda t: WALKS[t["method"], t["period"]])  # fmt: skip
    level = stein(float(iso[0].columns["lr"][-1]), 1.0, iso[0].config["dim"] ** 0.5)
    right.axhline(level, color="black", lw=1.2, ls=":", zorder=5, label="predicted")
    for ax in (left, right):
        ax.set_xlim(left=0)
        ax.legend()
    return figure


@album.figure(
    "finetuning.png",
    caption="An encoder that has filled gaps learns the labels of sentences: test accuracy against the bytes of "
    "gradients, states and projectors (points: seeds; bars: mean), and held-out loss against the rate, one seed "
    "(circles: chosen).",
)
def finetuning(results):
    some = results.select("d")
    if not some:
        raise MissingRuns("no finished run of part d")
    figure, (left, right) = panels(1, 2)
    for method, runs in some.groups("method"):
        i = FINE.get(method, NAMES.index("GaLore"))
        style, marker = look(i), MARKERS[i % len(MARKERS)]
        size = sum(runs[0].final[part] for part in BYTES[1:]) / 1e3
        accuracy = 100 * runs.final("test_accuracy")
        left.plot([size] * len(accuracy), accuracy, marker, alpha=0.5, color=style["color"], label=method)
        left.plot([size], [accuracy.mean()], "_", ms=22, mew=2.5, color=style["color"])
        found = results.select("e", method=method).tuned(by=BY)[method]
        rates = sorted(found.scores)
        right.plot(rates, [found.scores[v] for v in rates], marker=marker, ms=5, **style)
        right.plot([found.value], [found.scores[found.value]], "o", ms=13, mfc="none", color=style["color"])
    left.set(xlabel="kilobytes of gradients, states and projectors", ylabel="test accuracy [%]")
    left.set_xlim(left=0)
    left.legend()
    right.set(xscale="log", xlabel="learning rate", ylabel="loss of held-out texts")
    ticks = results.select("e").values("lr")
    right.set_xticks(sorted(ticks), [f"{v:g}" for v in sorted(ticks)])
    right.minorticks_off()
    return figure
