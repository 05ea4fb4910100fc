"""Figures of clipping: iterations on walls that rise exponentially, clouds of local smoothness, perplexities."""

from lab import Album
from lab.figures import MARKERS, curves, look, named, panels, plain, said, sweep
from npopt.analysis.smoothness import relation

import numpy as np

album = Album()
FORMS = ("gradient descent", "clipped", "by value", "by segment", "normalised", "clipped, momentum",
         "momentum clipped", "mixed")  # fmt: skip
METHODS = ("SGD", "clipped SGD", "normalised SGD", "Adam")
COLOURS = {"gradient descent": 0, "clipped": 1} | {name: i for i, name in enumerate(METHODS)}
WORDS = 320  # of a batch


def best(results, method):
    """(M, the least iterations, the rate that takes them) over M."""
    runs = sorted(results.select("t", method=method, M=lambda M: True), key=lambda run: run.tags["M"])
    at = [int(np.nanargmin(run.columns["iterations"])) for run in runs]
    M = np.array([run.tags["M"] for run in runs])
    return M, *(np.array([run.columns[c][i] for run, i in zip(runs, at, strict=True)]) for c in ("iterations", "lr"))


@album.figure(
    "walls.png",
    caption="From the point (1 + log M, 1) on exponential walls to |grad f| = 1e-3. Left: iterations against M; "
    "gradient descent at the best of rates 5 % apart for each M, all others at one pair of constants; dashed: theory. "
    "Middle: that best rate. Right: local smoothness of each step of the clipped run from M = 10^4; dashed: the bound.",
)
def walls(results):
    figure, axes = panels(1, 3, size=(13, 5))
    for i, method in enumerate(FORMS):
        M, count, lr = best(results, method)
        shown = look(i) if i < 2 else {"color": "#999999", "linestyle": look(7 * (i % 4))["linestyle"], "lw": 1}
        axes[0].plot(M, count, label=method, **shown, **({"marker": MARKERS[i]} if i < 2 else {}))
        if i == 0:
            axes[1].plot(M, lr, MARKERS[0], color=shown["color"], label="best of the grid")
    fine = np.geomspace(M[0], M[-1], 200)
    edge = 2 * (1 + np.log(fine)) / fine
    for ax, line, index in ((axes[0], np.log(1e3) / -np.log1p(-edge), 0), (axes[1], edge, 0),
                            (axes[0], 10 * np.log(fine) + np.log(1e3) / -np.log(0.9), 1)):  # fmt: skip
        ax.plot(fine, line, color=look(index)["color"], ls="--", lw=1, label="2u / M" if ax is axes[1] else None)
    path = results.select("t", method="path of clipped")[0].columns
    axes[2].plot(path["norm"], path["smoothness"], MARKERS[1], color=look(1)["color"], ms=4, label="estimate")
    span = np.geomspace(path["norm"].min(), path["norm"].max(), 100)
    axes[2].plot(span, 1 + span, "k--", lw=1, label="L0 + L1 |grad f|")
    for ax, x, y in zip(axes, ("M", "M", "|grad f|"), ("iterations", "rate", "local smoothness"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    titles = ("how long it takes", "gradient descent's best rate", "what the estimate sees")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
    axes[1].legend()
    axes[2].legend()
    named(axes[0], 9)
    return figure


def cloud(ax, runs, column="smoothness", title=""):
    """One mark a step looked at, darker the earlier; one kind of mark a seed, with the line through each seed's."""
    found = []
    for i, run in enumerate(runs):
        seen = np.isfinite(run.columns[column])
        norm, value, step = (run.columns[name][seen] for name in ("norm", column, "step"))
        marks = ax.scatter(norm, value, c=step, s=22, marker=MARKERS[i], cmap="viridis", alpha=0.8)
        found.append(relation(norm, value))
        at = np.log(norm)
        rise = np.polyfit(at, np.log(value), 1)
        ends = np.array([at.min(), at.max()])
        ax.plot(np.exp(ends), np.exp(np.polyval(rise, ends)), color="#555555", lw=1)
    r, slope = (np.mean([getattr(one, name) for one in found]) for name in ("correlation", "slope"))
    ax.set(xscale="log", yscale="log", xlabel="|grad f| of the slice")
    ax.set_title(f"{title}\nr = {r:.2f}, slope {slope:.2f}", fontsize=12)
    return marks


def clouds(results, part, asides=()):
    groups = results.select(part).groups("method")
    figure, axes = panels(1, len(groups) + len(asides), size=(13, 5.5), sharey=True, squeeze=False)
    shown = [(name, runs, "smoothness") for name, runs in groups]
    shown += [(f"{groups[at][0]}, other rows", groups[at][1], "other_rows") for at in asides]
    for ax, (name, runs, column) in zip(axes[0], shown, strict=True):
        marks = cloud(ax, runs, column, name)
    axes[0][0].set_ylabel("local smoothness")
    for ax in axes[0]:
        plain(ax.xaxis)
    plain(axes[0][0].yaxis)
    figure.colorbar(marks, ax=list(axes[0]), label="step", pad=0.01)
    return figure


@album.figure(
    "lstm.png",
    caption="Local smoothness of the LSTM's loss on a fixed slice of the text, along one step in five, against the "
    "gradient's norm there; colour: the step; a kind of mark and a line for each seed. r and slope: of the logarithms, "
    "means over seeds. Right: the second gradient of each pair on other rows, which measures noise over length.",
)
def lstm(results):
    return clouds(results, "l", (1,))


@album.figure("resnet.png", caption="The same of a narrow ResNet-20 on a fixed slice of the images.")
def resnet(results):
    return clouds(results, "r")


@album.figure(
    "rates.png",
    caption="Validation loss after the budget of all rates, in nats a word, against the rate; median over seeds, bars: "
    "lowest to highest. Rates of different methods mean different things.",
)
def rates(results):
    figure, ax = panels()
    some = results.select("p", stage="all rates")
    for i, method in enumerate(METHODS):
        sweep(ax, some.select(method=method), "lr", "validation_loss", method, index=i, xlabel="rate",
              ylabel="validation loss [nats a word]")  # fmt: skip
    return figure


@album.figure(
    "growth.png",
    caption="Validation perplexity against words seen. Left: each method at the rate that is best after a quarter of "
    "this budget, as long as the budget; right: at each budget the rate that is best there (mean over seeds).",
)
def growth(results):
    figure, axes = panels(1, 2, size=(13, 5.5), sharey=True)
    some = results.select("p").with_column("words", lambda c: WORDS * c["step"] / 1000)
    for method in METHODS:
        runs = some.select(method=method, stage="chosen")
        curves(axes[0], runs, "validation_perplexity", "words", logx=True, logy=True, legend=False,
               label=lambda t: t["method"], colours=lambda t: COLOURS[t["method"]], xlabel="thousand words seen",
               ylabel="validation perplexity")  # fmt: skip
        per_rate = some.select(method=method, stage="all rates").groups("lr")
        rows = min(run.rows for _, group in per_rate for run in group if not run.diverged)
        words = per_rate[0][1][0].columns["words"][1:rows]
        losses = [np.mean([run.columns["validation_loss"][1:rows] for run in group], axis=0)
                  for _, group in per_rate if not any(run.diverged for run in group)]  # fmt: skip
        axes[1].plot(words, np.exp(np.min(losses, axis=0)), label=method, marker=MARKERS[COLOURS[method]],
                     **look(COLOURS[method]))  # fmt: skip
    late = np.concatenate([run.columns["validation_perplexity"][1:] for run in some if not run.diverged])
    axes[0].set_ylim(late.min() / 1.1, np.percentile(late, 98))
    axes[0].set_title(f"one rate a method; {said(len(runs))}", fontsize=12)
    axes[1].set(xscale="log", xlabel="thousand words seen", title="at each budget the best rate")
    for ax in axes:
        plain(ax.xaxis)
        plain(ax.yaxis)
        named(ax)
    return figure
