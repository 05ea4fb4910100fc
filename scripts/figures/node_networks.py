"""Figures of node_networks: accuracy over gradients, bytes and mixes of classes, how far nodes stand apart; and the
Transformer's loss."""

from lab import Album
from lab.figures import below, each, look, panels, plain, ranged

import numpy as np

album = Album()
SHOWN = {0.03: "-", 0.1: "--"}  # rates at which distances are drawn


def titled(split):
    return "rows at random" if split == "random" else f"Dirichlet, alpha {split:g}"


def chosen(results, split):
    """[(name, runs at the rate that held-out rows choose)] on one mix."""
    return results.select(split=split, stage="chosen").groups("method")


def middle(runs, column):
    return np.median([run.columns[column] for run in runs], 0)


def accuracies(results, xs, xlabel, xscale="linear"):
    """A panel for each mix: the accuracy over xs(run), a line a method."""
    some = results.select("a")

    def draw(ax, split):
        for k, (name, runs) in enumerate(chosen(some, split)):
            ax.plot(xs(runs[0]), 100 * middle(runs, "test_accuracy"), label=name, **look(k))
        ax.set(xlabel=xlabel, ylabel="test accuracy, %", xscale=xscale)
        if xscale == "log":
            plain(ax.xaxis)

    return each(some.values("split"), draw, columns=3, legend=4, titles=titled)


@album.figure(
    "gradients.png",
    caption="Test accuracy of the mean of all x over gradients, in parts of all that are taken; median of the seeds, "
    "each method at the rate that held-out rows choose.",
)
def over_gradients(results):
    return accuracies(results, lambda run: run.columns["round"] / run.columns["round"][-1], "part of all gradients")


@album.figure("bytes.png", caption="The same over what all nodes have sent, up and down.")
def over_bytes(results):
    return accuracies(results, lambda run: run.columns["bytes"] / 1e6, "megabytes", "log")


@album.figure(
    "apart.png",
    caption="Left: test accuracy in the end over alpha (median, lowest and highest of the seeds); the level of rows at "
    "random stands at the right edge. Right: how far the nodes of a ring stand apart, root mean square of |x_i - mean| "
    "over |mean|, at two rates.",
)
def distances(results):
    figure, (left, right) = panels(1, 2)
    some = results.select("a")
    alphas = sorted(split for split in some.values("split") if split != "random")
    for k, name in enumerate(some.values("method")):
        best = {split: dict(chosen(some, split))[name] for split in (*alphas, "random")}
        xs = [*alphas, 10 * alphas[-1]]
        ends = [100 * best[split].final("test_accuracy") for split in (*alphas, "random")]
        ranged(left, xs, ends, k, label=name)
    left.set(xscale="log", xlabel="alpha", ylabel="test accuracy in the end, %")
    left.set_xticks(xs, [*(f"{a:g}" for a in alphas), "random"])
    left.minorticks_off()
    ring = some.select(method="D-SGD, ring")
    ring = ring.select(stage="grid") if "grid" in ring.values("stage") else ring
    for k, split in enumerate(some.values("split")):
        for lr, dash in SHOWN.items():
            runs = ring.select(split=split, lr=lr)
            if not len(runs):
                continue
            style = dict(color=look(k)["color"], ls=dash, lw=1.6)
            right.plot(runs[0].columns["round"], middle(runs, "apart"), label=f"{titled(split)}, lr {lr:g}", **style)
    right.set(xlabel="rounds", ylabel="distance from the mean", yscale="log")
    right.legend(fontsize=9)
    return below(figure, left, 4)


TITLES = {"random": "pieces at random", "passages": "a passage each"}


@album.figure(
    "words.png",
    caption="The Transformer's loss on test text over gradients (top) and over what all nodes have sent (bottom), "
    "pieces of the text at random and a passage for each node; median of the seeds, each method at the rate that "
    "held-out text chooses.",
)
def words(results):
    some = results.select("t")
    figure, axes = panels(2, len(ways := some.values("split")), sharey=True, squeeze=False)
    for (over, sent), split in zip(axes.T, ways, strict=True):
        for k, (name, runs) in enumerate(chosen(some, split)):
            run, loss = runs[0], middle(runs, "test_loss")
            over.plot(run.columns["round"] / run.columns["round"][-1], loss, label=name, **look(k))
            sent.plot(run.columns["bytes"] / 1e6, loss, label=name, **look(k))
        over.set(
            title={"random": "pieces at random", "passages": "a passage each"}[split], xlabel="part of all gradients"
        )
        sent.set(xlabel="megabytes", xscale="log")
        plain(sent.xaxis)
    for ax in axes[:, 0]:
        ax.set(ylabel="loss on test text")
    return below(figure, axes[0, 0], 4)
