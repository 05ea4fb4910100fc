"""Figures of speculative: drafts, words a pass and time against k, what a pass costs."""

from lab import Album
from lab.figures import COLOURS, below, look, mark, named, panels

import numpy as np

album = Album()


def formula(a, k):
    """Words that a pass gives on average."""
    a = np.minimum(np.asarray(a, float), 1 - 1e-9)
    return (1 - a ** (k + 1)) / (1 - a)


def predicted(results, a, k):
    """Gain in time from what part c measured: words a pass over (k draft words and a pass over k + 1 words)."""
    runs = results.select("c")
    cost = np.mean([run.columns["pass"] for run in runs], axis=0)
    draft = np.mean([run.columns["draft"][0] for run in runs])
    at = np.interp(k + 1, np.arange(1, len(cost) + 1), cost)
    return float(formula(a, k) / (k * draft + at))


@album.figure(
    "drafts.png",
    caption="Who drafts: characters that a pass of the target gives, guesses that stand, and plain time over time with "
    "the draft, one thread (points: seeds; bars: mean). Below 1, right, a draft costs more than it saves.",
)
def drafts_figure(results):
    figure, axes = panels(1, 3, sharey=True)
    names = list(dict.fromkeys(run.tags["draft"] for run in results.select("a")))
    for i, name in enumerate(names):
        for j, t in enumerate((0.0, 1.0)):
            runs = [r for r in results.select("a") if r.tags["draft"] == name and r.tags["temperature"] == t]
            for ax, values in zip(
                axes,
                (
                    [r.final["a pass"] for r in runs],
                    [100 * r.final["rate"] for r in runs],
                    [r.final["plain"] / r.final["seconds"] for r in runs],
                ),
                strict=True,
            ):
                place, text = i + 0.26 * j - 0.13, "greedy" if not t else "drawn"
                ax.plot(values, [place] * len(values), "o", ms=5, alpha=0.5, color=COLOURS[j])
                if values:
                    label = text if not i else None
                    ax.plot([np.mean(values)], [place], "|", ms=14, mew=2.5, color=COLOURS[j], label=label)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for ax, text in zip(axes, ("characters a pass", "guesses that stand [%]", "gain in time"), strict=True):
        ax.set_xlabel(text)
        ax.set_xlim(left=0)
    axes[2].axvline(1, color="#333333", ls=":", lw=1.2)
    return below(figure, axes[0], 2)


@album.figure(
    "guesses.png",
    caption="The small model guesses k characters. Left: characters a pass, beside the formula at the measured rate "
    "(dashed). Middle: gain in time, beside the prediction from the costs of part c (dashed). Right: time of a pass "
    "over several words, in parts of one over one.",
)
def guesses_figure(results):
    figure, axes = panels(1, 3)
    for i, t in enumerate((0.0, 1.0)):
        runs = results.select("k", temperature=t)
        ks = sorted({run.tags["k"] for run in runs})
        by_k = [runs.select(k=k) for k in ks]
        style, text = look(i), "greedy" if not t else "drawn"
        rates = np.array([some.final("rate").mean() for some in by_k])
        axes[0].plot(ks, [some.final("a pass").mean() for some in by_k], marker="o", ms=5, label=text, **style)
        gains = [(some.final("plain") / some.final("seconds")).mean() for some in by_k]
        axes[1].plot(ks, gains, marker="o", ms=5, label=text, **style)
        dashed = dict(color=style["color"], ls="--", lw=1.2)
        axes[0].plot(ks, formula(rates, np.array(ks)), **dashed)
        axes[1].plot(ks, [predicted(results, a, k) for a, k in zip(rates, ks, strict=True)], **dashed)
    cost = np.array([run.columns["pass"] for run in results.select("c")])
    axes[2].plot(np.arange(1, cost.shape[1] + 1), cost.mean(0), marker="o", ms=5, **look(2))
    mark(axes[1], 1, "no gain", 0.6)
    for ax, text in zip(axes, ("characters a pass", "gain in time", "time of a pass"), strict=True):
        ax.set(xlabel="k" if ax is not axes[2] else "words", ylabel=text)
        ax.set_ylim(bottom=0)
    named(axes[0])
    return figure
