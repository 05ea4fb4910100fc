"""Figures of adam, with what its claims look at, too: decays that are chosen, runs that are stuck, norms at the end."""

import math

from lab import Album
from lab.charts import tuned
from lab.figures import COLOURS, heat, look, panels, plain

import numpy as np
from matplotlib.patches import Rectangle

album = Album()
BY = "validation_loss"
MIDDLE = 1e-3  # the rate of the pairs of part b
KINDS, CHANCE = ("L2", "decoupled"), 0.2  # a run whose test accuracy is lower is stuck


def chosen(results, kind):
    """{rate: its best decay by the loss of held-out rows}"""
    return {lr: runs.tuned("decay", BY)[kind].value for lr, runs in results.select("c", method=kind).groups("lr")}


def stuck(runs):
    """How many of the runs end near the accuracy of a uniform guess."""
    return int((runs.final("test_accuracy") < CHANCE).sum())


def against_norm(runs):
    """{seed: (log |x| at the end, test accuracy [%]), each (decays,), by rising norm}"""
    found = {}
    for seed in runs.seeds:
        some = runs.select(seed=seed)
        norms = [math.log(float(np.linalg.norm(run.x.astype(float)))) for run in some]
        found[seed] = np.array(sorted(zip(norms, 100 * some.final("test_accuracy"), strict=True))).T
    return found


def deviation(values):
    return np.std(values, ddof=1)


@album.figure(
    "lenet.png",
    caption="LeNet-5, batch size 64, cosine, each method at its best rate: training loss and test error, and the loss "
    "of held-out rows against the rate.",
)
def lenet_figure(results):
    return tuned(results.select("a"))


@album.figure(
    "betas.png",
    caption="Adam on LeNet-5 with few rows, cosine. Left: test error over b1 and b2 at lr = 1e-3, mean and standard "
    "deviation over seeds. Right: against the rate, b1 = 0.9, b2 = 0.999 (bars: standard deviation), with the range of "
    "the pairs in grey.",
)
def betas_figure(results):
    figure, (left, right) = panels(1, 2)
    errors = {betas: 100 * (1 - v) for betas, v in results.select("b").finals("test_accuracy", "b1", "b2").items()}
    b1, b2 = (sorted({betas[i] for betas in errors}) for i in (0, 1))
    means = np.array([[errors[a, b].mean() for b in b2] for a in b1])
    heat(left, means, b1, b2, "b1", "b2", colour="test error [%]")
    for text, (i, j) in zip(list(left.texts), np.ndindex(means.shape), strict=True):
        text.set_text(f"{means[i, j]:.2f} ± {deviation(errors[b1[i], b2[j]]):.2f}")
    rates = {lr: 100 * (1 - v) for lr, v in results.select("b").finals("test_accuracy", "lr").items()}
    middles, bars = ([measure(v) for v in rates.values()] for measure in (np.mean, deviation))
    right.axhspan(means.min(), means.max(), color="#DDDDDD", label=f"all pairs at {MIDDLE:g}")
    right.errorbar(list(rates), middles, bars, marker="o", capsize=3, **look(0))
    right.set(xscale="log", xlabel="learning rate", ylabel="test error [%]")
    right.legend()
    return figure


@album.figure(
    "decay.png",
    caption="LeNet-5 on few rows, cosine: test accuracy over rate and decay, mean over seeds, in one scale of colours; "
    "white: some seeds are stuck at a uniform guess. Left: l2 of the objective, through Adam's moments. Right: "
    "decoupled, lr weight_decay a step. Boxes: the decay that held-out rows choose at each rate.",
)
def decay_figure(results):
    figure, axes = panels(1, 2, size=(13, 4))
    tables, groups = {}, {}
    for kind in KINDS:
        groups[kind] = dict(results.select("c", method=kind).groups("lr", "decay"))
        values, rates, decays = results.select("c", method=kind).table("test_accuracy", "lr", "decay")
        lost = np.array([[stuck(groups[kind][lr, decay]) for decay in decays] for lr in rates])
        tables[kind] = np.where(lost, np.nan, 100 * values), lost, rates, decays
    every = np.array([values for values, *_ in tables.values()])
    for ax, kind, label in zip(axes, KINDS, ("l2", "lr weight_decay"), strict=True):
        values, lost, rates, decays = tables[kind]
        shade = dict(colour="test accuracy [%]", digits="{:.1f}", limits=(np.nanmin(every), np.nanmax(every)))
        heat(ax, values, rates, decays, "learning rate", label, **shade)
        for text, (i, j) in zip(list(ax.texts), np.ndindex(values.shape), strict=True):
            if lost[i, j]:
                text.set_text(f"{lost[i, j]}/{len(groups[kind][rates[i], decays[j]])}\nstuck")
        for lr, decay in chosen(results, kind).items():
            corner = decays.index(decay) - 0.47, rates.index(lr) - 0.47
            ax.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, ec=COLOURS[1], lw=2.5))
        ax.set_title({"L2": "Adam with L2", "decoupled": "AdamW"}[kind])
    return figure


@album.figure(
    "strength.png",
    caption="The same runs: test accuracy against the norm of all parameters at the end, a panel for each rate (their "
    "scales differ); points: seeds and decays. Crosses at the edge: runs that are stuck at a uniform guess.",
)
def strength_figure(results):
    groups = results.select("c").groups("lr")
    figure, axes = panels(1, len(groups), size=(13, 4.4), squeeze=False)
    for ax, (lr, runs) in zip(axes[0], groups, strict=True):
        for i, kind in enumerate(KINDS):
            norms, accuracy = np.hstack(list(against_norm(runs.select(method=kind)).values()))
            lost, colour = accuracy < 100 * CHANCE, look(i)["color"]
            ax.plot(np.exp(norms[~lost]), accuracy[~lost], "os"[i], ms=4, alpha=0.6, color=colour, label=kind)
            low = [0.02 + 0.03 * i] * lost.sum()
            ax.plot(np.exp(norms[lost]), low, "x", color=colour, transform=ax.get_xaxis_transform())
        ax.set(xscale="log", xlabel="|x| at the end", title=f"rate {lr:g}")
        plain(ax.xaxis)
    axes[0][0].set_ylabel("test accuracy [%]")
    axes[0][0].legend()
    return figure
