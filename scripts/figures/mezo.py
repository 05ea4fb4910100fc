"""Figures of mezo: test errors by batches forward, rates and radii, MeZO's steps against SGD's."""

from lab import Album
from lab.figures import MARKERS, below, curves, look, mark, panels, plain, ranged, said
from problems.adapted import BATCH

import numpy as np

album = Album()
COLOURS = {name: i for i, name in enumerate(("SGD", "MeZO", "LOZO", "LOZO-M", "DeepZero"))}


def passes(runs):
    """With a column `passes`: batches forward, a gradient counting 3."""
    return runs.with_column("passes", lambda c: (np.asarray(c["values"]) + 3 * np.asarray(c["gradients"])) / BATCH)


def observed(results, part):
    """(least ratio of MeZO's to SGD's steps until the training loss has fallen by 30 %, one a seed), over all rates."""
    level = 0.7 * results.select(part, method="SGD").at("train_loss", 0).mean()
    groups = (results.select(part, method=m).groups("lr") for m in ("MeZO", "SGD"))
    mezo, sgd = (np.min([runs.until("train_loss", level) for _, runs in some], axis=0) for some in groups)
    there = np.isfinite(mezo)
    return mezo[there] / sgd[there]


def drawn(ax, results, part, x="passes", xlabel="batches forward (a gradient: 3)"):
    """Test error of the methods of a part, each at its best rate."""
    some = passes(results.select(part, method=list(COLOURS)).at_best())
    some = some.with_column("error", lambda c: 100 * (1 - c["test_accuracy"]))
    more = dict(label=lambda t: t["method"], colours=lambda t: COLOURS[t["method"]])
    curves(ax, some, "error", x, logx=True, legend=False, xlabel=xlabel, ylabel="test error [%]", **more)


@album.figure(
    "values.png",
    caption="Test error against batches of 64 rows forward, each method at the rate that held-out loss chooses, median "
    "and range over seeds. Left: a start nearby. Right: from scratch.",
)
def values_figure(results):
    figure, axes = panels(1, 2)
    for ax, part, title in zip(axes, "as", ("LeNet-5 that has learned a task nearby", "from scratch"), strict=True):
        drawn(ax, results, part)
        ax.set(title=title, ylim=(0, None))
    return below(figure, axes[0], title=said(len(results.seeds)))


@album.figure(
    "rates.png",
    caption="Training loss after all steps against the rate (circles: a start nearby; squares: from scratch), up to 5; "
    "and MeZO's against the radius at rate 3e-4.",
)
def rates_figure(results):
    figure, (left, right) = panels(1, 2)
    for i, (part, style) in enumerate((("a", "-"), ("s", "--"))):
        for method, runs in results.select(part, method=list(COLOURS)).groups("method"):
            means = {lr: v for lr, v in runs.means("train_loss", "lr").items() if v < 5}  # others are off the scale
            shown = dict(color=look(COLOURS[method])["color"], label=method if part == "a" else None)
            left.plot(list(means), list(means.values()), marker=MARKERS[i], ls=style, ms=5, **shown)
    left.set(xscale="log", yscale="log", xlabel="rate", ylabel="training loss")
    left.legend(fontsize=10)
    ends = results.select("r").finals("train_loss", "radius")
    ends = {radius: v for radius, v in ends.items() if np.isfinite(v).all()}
    ranged(right, list(ends), list(ends.values()), 1, marker="o")
    mark(right, results.select("r").at("train_loss", 0)[0], "start", 0.05)
    right.set(xscale="log", yscale="log", xlabel="radius", ylabel="training loss")
    plain(right.yaxis)
    return figure


@album.figure(
    "slowdown.png",
    caption="MeZO's steps against SGD's until the training loss has fallen by 30 %, beside what the Hessian after 30 "
    "steps of SGD says: effective rank, its correction, dimension.",
)
def slowdown_figure(results):
    figure, ax = panels()
    for i, (part, start) in enumerate((("a", "learned"), ("s", "scratch"))):
        e = results.select("e", start=start, after=30)
        bars = {
            "effective rank tr H / lmax": e.final("rank"),
            "tr H / (g'Hg/|g|²) + 2": e.final("slowdown"),
            "measured": observed(results, part),
            "d + 2": e.final("dim") + 2,
        }
        for k, v in enumerate(np.where(v > 0, v, np.nan) for v in bars.values()):
            label = start if k == 0 else None
            ax.plot(np.full(v.size, k + 0.2 * i), v, MARKERS[i], ms=9, color=look(i)["color"], label=label)
    ax.set_xticks(np.arange(4) + 0.1, list(bars), fontsize=10)
    ax.set(yscale="log", ylabel="times SGD's steps")
    ax.legend(title="start")
    return figure


@album.figure(
    "resnet.png",
    caption="ResNet-20: test error against batches forward and against seconds of steps, each method at the "
    "rate that held-out loss chooses.",
)
def resnet_figure(results):
    figure, axes = panels(1, 2)
    drawn(axes[0], results, "c")
    axes[0].set_title("photographs learned, their negatives now")
    drawn(axes[1], results, "c", "seconds", None)
    ends = [ax.get_ylim() for ax in axes]
    for ax in axes:
        ax.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    return below(figure, axes[0])
