"""Figures of adam_text: how gaps are filled, labels by method and start, vectors of words that no training text has."""

from typing import NamedTuple

from lab import Album, MissingRuns
from lab.figures import COLOURS, below, closer, curves, look, mark, named, panels
from npopt import Linear, WithWarmup

import numpy as np

album = Album()
LEARNED, SCRATCH = "learned", "scratch"
METHODS = ("momentum SGD", "Adam", "AdamW")


class Score(NamedTuple):
    """What test texts are judged by: a name, its column, an axis, the title of a row of panels."""

    name: str
    test: str
    label: str
    title: str


SCORES = {
    "a": Score("accuracy", "test_accuracy", "test accuracy [%]", "one of two classes"),
    "b": Score("macro-F1", "test_f1", "test macro-F1 [%]", "several labels"),
}


def schedule_of(lr, steps):
    """A linear rise over a tenth of the steps, then a linear fall."""
    return WithWarmup(Linear(lr), max(1, steps // 10))


def whole_run(lr, steps):
    """The rates of all steps, (steps,)."""
    schedule = schedule_of(lr, steps)
    schedule.start(steps, steps)
    return np.array([schedule(t) for t in range(steps)])


def kept(runs):
    """The norm of the vectors of words that no training text has, in parts of that at the start, one a run."""
    return runs.final("idle") / runs.at("idle", 0)


def number(tags):
    """The same colour for a method from both starts, and other dashes from random weights."""
    return METHODS.index(tags["method"]) + len(COLOURS) * (tags.get("start") == SCRATCH)


def name(tags):
    return tags["method"] + (", from random weights" if tags.get("start") == SCRATCH else "")


@album.figure(
    "gaps.png",
    caption="Before any label: the encoder fills gaps in the texts of both corpora. Left: loss of a gap, in nats. "
    "Right: share of gaps filled with the right piece of a word. Dotted: who knows how frequent pieces are, no more.",
)
def gaps_figure(results):
    (run,) = results.select("p")
    figure, axes = panels(1, 2)
    for ax, column, label, known, scale in (
        (axes[0], "loss", "loss of a gap [nats]", "unigram", 1),
        (axes[1], "accuracy", "gaps filled right [%]", "common", 100),
    ):
        for i, (part, text) in enumerate((("train", "training texts"), ("validation", "held out"))):
            ax.plot(run.columns["step"], scale * run.columns[f"{part}_{column}"], label=text, **look(i))
        mark(ax, scale * run.final[known], "frequencies alone", 0.5)
        ax.set(xlabel="step", ylabel=label)
        ax.set_xlim(left=0)
    axes[0].legend()
    return figure


def chosen(results, part):
    """{(start, method): Tuned} in the order of the grid."""
    return results.select(part).tuned(of=("start", "method"))


@album.figure(
    "labels.png",
    caption="Labels of texts, each method at its best rate; solid: after filling gaps, dashed: from random weights. "
    "Training loss and test score by epoch, and the loss of held-out texts against the rate (circles: chosen; crosses "
    "at the edge: out of the picture).",
)
def labels_figure(results):
    parts = [part for part in SCORES if any(run.part == part for run in results)]
    if not parts:
        raise MissingRuns("no finished run of parts a and b")
    figure, grid = panels(len(parts), 3, squeeze=False)
    for axes, part in zip(grid, parts, strict=True):
        score, tuned = SCORES[part], chosen(results, part)
        some = results.select(part).at_best(of=("start", "method"))
        some = some.with_column("score", lambda c, column=score.test: 100 * c[column])
        more = dict(legend=False, label=name, colours=number)
        curves(axes[0], some, "train_loss", ylabel="training loss", **more)
        curves(axes[1], some, "score", ylabel=score.label, **more)
        axes[1].set_title(score.title)
        against(axes[2], tuned)
        closer(axes[0], some, "train_loss", 0.1, 0.05)
        closer(axes[1], some, "score", 0.05, 0.05)
        for ax in axes[:2]:
            ax.set_xlim(left=0)
    return below(figure, grid[0, 0], 3)


def against(ax, tuned):
    """Scores of {(start, method): Tuned} against the rate, up to a third above the range of the best ones."""
    least = [min(v for v in found.scores.values() if np.isfinite(v)) for found in tuned.values()]
    low, high = min(least), max(least)
    top = high + max(high - low, 0.05 * low) / 2
    for (start, method), found in tuned.items():
        style, values = look(number(dict(method=method, start=start))), np.array(sorted(found.scores))
        scores = np.array([found.scores[v] for v in values])
        lost = ~(scores <= top)
        ax.plot(values, np.where(lost, np.nan, scores), marker="o", ms=4, **style)
        ax.plot(values[lost], [0.98] * lost.sum(), "x", color=style["color"], transform=ax.get_xaxis_transform())
        ax.plot([found.value], [found.scores[found.value]], "o", ms=12, mfc="none", color=style["color"])
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss of held-out texts")
    ax.set_ylim(low - 0.1 * (top - low), top)


@album.figure(
    "idle.png",
    caption="Vectors of words that no training text has, in parts of their norm at the start. Under an l2 their "
    "gradient is l2 w alone, and Adam makes its step as long as any other, whatever the l2; decoupled decay leaves the "
    "product of 1 - lr weight_decay (dotted). Right: test accuracy of the same runs (points: seeds; bars: mean).",
)
def idle_figure(results):
    groups = results.select("d").groups("method", "decay")
    figure, (left, right) = panels(1, 2)
    for i, ((method, decay), runs) in enumerate(groups):
        text = f"Adam, l2 = {decay:g}" if method == "Adam" else "AdamW"
        epochs, norms = runs.stack("idle")
        left.plot(epochs, np.median(norms / norms[:, :1], 0), label=text, **look(i))
        ends = 100 * runs.final("test_accuracy")
        right.plot(ends, [i] * len(ends), "o", alpha=0.5, ms=6, color=look(i)["color"])
        right.plot([ends.mean()], [i], "|", ms=18, mew=2.5, color=look(i)["color"])
    (method, decay), runs = groups[-1]
    steps, lr = int(runs[0].final["step"]), runs[0].tags["lr"]
    left.plot(
        np.arange(steps + 1) / steps * runs[0].final["epoch"],
        np.concatenate([[1], np.cumprod(1 - decay / lr * whole_run(lr, steps))]),
        color="#333333",
        ls=":",
        lw=1.5,
    )
    left.set(xlabel="epoch", ylabel="norm / norm at the start", ylim=(0, 1.05))
    left.set_xlim(left=0)
    right.set_yticks(range(len(groups)), [""] * len(groups))
    right.set_ylim(len(groups) - 0.5, -0.5)
    right.set_xlabel("test accuracy [%]")
    named(left)
    return figure
