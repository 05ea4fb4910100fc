"""Figures of training_dynamics: sharpness against the edges, catapults, the chapter's curves."""

from lab import Album
from lab.claims import spread
from lab.figures import below, look, mark, panels, plain
from lab.surfaces import map_of, moving
from lab.verdicts import within
from problems.landscapes import Landscape

import numpy as np

album = Album()
LAST = 4  # claims on the edge look at the last quarter of the steps
FLIGHT = 80  # steps of part k
TITLES = {"fashion-mnist": "FashionMNIST", "cifar-10-jpeg": "CIFAR-10, JPEG copies", "digits": "digits"}


# ------------------------------------------------------------------------------------- what claims and figures measure
def ratio(run, row, column="high"):
    return run.columns[column][row] / run.tags["edge"]


def late(runs, column, before=0):
    """The mean of a column over the last quarter of the steps, one a run; before=1: over the quarter before."""
    found = []
    for run in runs:
        part = run.rows // LAST
        found.append(np.nanmean(run.columns[column][run.rows - (before + 1) * part : run.rows - before * part]))
    return np.array(found)


def arrival(run, share=0.95):
    """The first row that was looked at whose lmax rises past that share of the edge; the last such row if none does."""
    looked = np.flatnonzero(np.isfinite(run.columns["high"]))
    past = np.array([ratio(run, k) >= share for k in looked])
    found = looked[1:][past[1:] & ~past[:-1]]
    return int(found[0] if len(found) else looked[-1])


def value_at(run, step):
    """lmax at a step, on the line between two looks."""
    known = np.isfinite(run.columns["high"])
    return float(np.interp(step, run.columns["step"][known], run.columns["high"][known]))


def epochs_of(run, column, phase=0):
    """The column of one phase of part f, without the row at its start."""
    return run.columns[column][run.columns["phase"] == phase][1:]


def by_rate(results, part):
    """[(name, runs)] of the rates of each data set."""
    found = results.select(part).groups("data", "edge", "lr")
    several = len({data for (data, _, _), _ in found}) > 1
    return [(f"{data}, rate {lr:.3g}" if several else f"rate {lr:.3g}", runs) for (data, _, lr), runs in found]


def at_edge(runs, column="high"):
    """What a claim returns: the mean of the last quarter, in parts of the edge, within a tenth of 1."""
    share = late(runs, column) / runs[0].tags["edge"]
    return spread(share, 3), within(share, 0.9, 1.1)


# ------------------------------------------------------------------------------------------------------------ drawing
def looked(run, column, scale=1.0):
    """(steps, values) where the column was measured, pairs of neighbours averaged: at the edge every other point lies
    on the other side of the valley."""
    known = np.isfinite(run.columns[column])
    steps, values = run.columns["step"][known], run.columns[column][known] * scale
    return (steps[1:] + steps[:-1]) / 2, (values[1:] + values[:-1]) / 2


def smooth(run, column, width=50):
    """(steps, means over so many steps) of a column that every step has."""
    values = run.columns[column][1:]
    width = min(width, len(values))
    steps = np.arange(1, len(values) + 1)
    mean = np.ones(width) / width
    return np.convolve(steps, mean, "valid"), np.convolve(values, mean, "valid")


def each_seed(ax, runs, points, index, label, unit=1.0):
    """A line for each seed, in one look; unit: of the step."""
    for k, run in enumerate(runs):
        steps, values = points(run)
        ax.plot(unit * steps, values, lw=1.6 if not k else 0.9, alpha=1 if not k else 0.6, label=None if k else label,
                **look(index))  # fmt: skip


@album.figure(
    "edge.png",
    caption="Gradient descent at three rates, by time = rate x steps: the largest eigenvalue of the Hessian, with "
    "2/lr dotted, and the loss, mean over 50 steps. Below the edge the three are one path, but for one start on "
    "FashionMNIST; each leaves it at its own. Three seeds.",
)
def edges(results):
    sets = results.select("g").groups("data")
    figure, axes = panels(2, len(sets), size=(13, 7.5) if len(sets) > 1 else (8, 7.5), squeeze=False, sharex="col")
    for (top, bottom), (data, some) in zip(axes.T, sets, strict=True):
        for i, (lr, runs) in enumerate(some.groups("lr")):
            each_seed(top, runs, lambda run: looked(run, "high"), i, f"rate {lr:.3g}", lr)
            each_seed(bottom, runs, lambda run: smooth(run, "loss"), i, f"rate {lr:.3g}", lr)
            top.axhline(2 / lr, ls=":", lw=1.4, color=look(i)["color"])
            where = dict(xycoords=("axes fraction", "data"), va="bottom", ha="right", fontsize=10)
            top.annotate(f"2/lr = {2 / lr:g}", (0.995, 2 / lr), color=look(i)["color"], **where)
        top.set(title=TITLES[data], ylabel="lmax of the Hessian", ylim=(0, 1.25 * max(some.values("edge"))))
        bottom.set(yscale="log", xlabel="time = rate x steps", ylabel="training loss")
        bottom.set_xlim(0, 1.1 * bottom.get_xlim()[1])
        bottom.legend(fontsize=10, loc="lower left")
        plain(bottom.yaxis)
    return figure


@album.figure(
    "zigzag.png",
    caption="Gradient descent, one seed. Left: the loss of each step where lmax reaches the edge, largest rate. Right: "
    "the cosine of successive gradients at three rates, by time.",
)
def zigzag(results):
    data, some = results.select("g").groups("data")[0]
    figure, (left, right) = panels(1, 2)
    rates = some.groups("lr")
    run = rates[0][1][0]
    at = arrival(run, 1.0)
    cut = slice(max(1, at - 100), at + 300)
    left.plot(run.columns["step"][cut], run.columns["loss"][cut], color=look(0)["color"], lw=1)
    left.set(xlabel="step", ylabel="training loss", title=f"rate {rates[0][0]:g}, {TITLES[data]}")
    twin = left.twinx()
    twin.plot(*looked(run, "high"), color=look(1)["color"], lw=1.6)
    twin.set(ylabel="lmax", ylim=(0, 1.3 * run.tags["edge"]))
    twin.yaxis.label.set_color(look(1)["color"])
    twin.axhline(run.tags["edge"], color=look(1)["color"], ls=":", lw=1.2)
    twin.grid(False)
    left.set_xlim(run.columns["step"][cut][[0, -1]])
    for i, (lr, runs) in enumerate(rates):
        right.plot(lr * runs[0].columns["step"], runs[0].columns["cosine"], lw=1, label=f"rate {lr:.3g}", **look(i))
    right.set(xlabel="time = rate x steps", ylabel="cosine of g and the g before", ylim=(-1.05, 1.05))
    right.legend(loc="center right")
    return figure


@album.figure(
    "methods.png",
    caption="Sharpness in parts of each method's edge: 2/lr, 3.8/lr (heavy ball), 3.8/(2.8 lr) (Nesterov), 38/lr "
    "(Adam, preconditioned). The band is the claim's tenth. Right: Adam's lmax itself. Three seeds, Adam five.",
)
def methods(results):
    figure, (left, middle, right) = panels(1, 3, size=(13, 4.8))
    data, some = results.select("g").groups("data")[0]
    lr, runs = some.groups("lr")[0]
    lines = [(f"gradient descent, {lr:g}", runs), *results.select("m").groups("method")]
    for i, (name, runs) in enumerate(lines):
        each_seed(left, runs, lambda run: looked(run, "high", 1 / run.tags["edge"]), i, name)
    for i, (lr, runs) in enumerate(results.select("a").groups("lr")):
        each_seed(middle, runs, lambda run: looked(run, "conditioned", 1 / run.tags["edge"]), i + 3, f"Adam, {lr:g}")
        each_seed(right, runs, lambda run: looked(run, "high"), i + 3, f"Adam, {lr:g}")
    for ax in (left, middle):
        ax.axhspan(0.9, 1.1, color="#DDDDDD", zorder=0)
        ax.axhline(1, color="#555555", ls=":", lw=1.2)
        ax.set(ylim=(0, 1.6), xlabel="step")
        ax.legend(loc="lower right")
    left.set_ylabel("lmax(H) / edge")
    middle.set_ylabel("lmax(P^-1/2 H P^-1/2) lr / 38")
    right.set(xlabel="step", ylabel="lmax(H)", ylim=(0, None))
    right.legend(loc="lower right")
    return figure


@album.figure(
    "cross_entropy.png",
    caption="Gradient descent on the cross-entropy: lmax reaches 2/lr (dotted) and comes down as rows are fitted; "
    "the loss, mean over 50 steps. Three seeds.",
)
def cross_entropy(results):
    figure, (left, right) = panels(1, 2)
    for i, (lr, runs) in enumerate(results.select("c").groups("lr")):
        each_seed(left, runs, lambda run: looked(run, "high"), i, f"rate {lr:g}")
        each_seed(right, runs, lambda run: smooth(run, "loss"), i, f"rate {lr:g}")
        left.axhline(2 / lr, ls=":", lw=1.4, color=look(i)["color"])
    left.set(xlabel="step", ylabel="lmax of the Hessian", ylim=(0, None))
    right.set(xlabel="step", ylabel="training loss", yscale="log")
    left.legend()
    return figure


@album.figure(
    "sgd.png",
    caption="SGD with batches of 8, 32 and 128 of 1,000 rows, and gradient descent, at one rate: lmax over all rows, "
    "with 2/lr dotted; training loss over all rows; test accuracy. Three seeds.",
)
def sgd(results):
    figure, axes = panels(1, 3, size=(13, 4.8))
    some = results.select("s")
    lines = [(f"B = {batch}", runs) for batch, runs in some.groups("B")]
    try:
        lines.append(("GD", results.select("g", data=some[0].tags["data"], lr=some[0].tags["lr"])))
    except LookupError:
        pass
    for i, (name, runs) in enumerate(lines):
        for ax, column in zip(axes, ("high", "train_loss", "test_accuracy"), strict=True):
            each_seed(ax, runs, lambda run, c=column: looked(run, c, 100 if "acc" in c else 1), i, name)
    axes[0].axhline(some[0].tags["edge"], ls=":", lw=1.4, color="#555555")
    axes[0].set(ylabel="lmax of the Hessian", ylim=(0, 1.3 * some[0].tags["edge"]))
    axes[1].set(ylabel="training loss", yscale="log")
    axes[2].set(ylabel="test accuracy [%]", ylim=(60, None))
    plain(axes[1].yaxis)
    for ax in axes:
        ax.set_xlabel("step")
    return below(figure, axes[0], 4)


@album.figure(
    "catapult.png",
    caption="Above: u'v/sqrt(m), m = 1,000, one seed: the loss, and the kernel times the rate; 2 is the edge. Below: a "
    "ReLU network of 100 units at rates factor / lmax(start), one seed; right: lmax lr after 80 steps, all seeds; "
    "crosses: diverged.",
)
def catapult(results):
    figure, ((a, b), (c, d)) = panels(2, 2, size=(12, 7.5))
    for i, (factor, runs) in enumerate(results.select("t", method="u'v").groups("factor")):
        run = runs[0]
        kept = run.columns["f"] > 1e-12
        a.plot(run.columns["step"][kept], run.columns["f"][kept], label=f"{factor:g}", **look(i))
        b.plot(run.columns["step"], run.columns["kernel"] * run.columns["rate"][0], label=f"{factor:g}", **look(i))
    a.set(yscale="log", ylim=(1e-8, 1e5), xlim=(0, 60), ylabel="loss", xlabel="step")
    b.set(ylim=(0, 5), xlim=(0, 60), ylabel="kernel x rate", xlabel="step")
    a.legend(title="rate x K at the start", ncols=2)
    groups = results.select("k").groups("factor")
    shown = [group for group in groups if group[0] in (0.5, 1, 2.5, 3.5, 5, 8, 16)]
    for i, (factor, runs) in enumerate(shown):
        steps, loss = runs[0].columns["step"][1:], runs[0].columns["loss"][1:]
        c.plot(steps - 1, loss / loss[0], label=f"{factor:g}", **look(i))
    c.set(yscale="log", xlim=(0, 30), ylim=(0.2, 15), xlabel="step", ylabel="loss / loss at the start")
    c.legend(title="rate x lmax at the start", ncols=2)
    for factor, runs in groups:
        for run in runs:
            if run.diverged:
                d.plot([factor], [3.45], "x", color=look(1)["color"], ms=8, mew=2)
            else:
                d.plot([factor], [run.final["high"] * run.final["rate"]], "o", color=look(0)["color"], ms=6, alpha=0.7)
    same = np.geomspace(0.5, 3.5, 50)
    d.plot(same, same, color="#888888", lw=1)
    d.annotate("lmax as at the start", (2.6, 2.6), (-6, 0), textcoords="offset points", ha="right", fontsize=10,
               color="#666666")  # fmt: skip
    mark(d, 2, "2: the edge", 0.02)
    d.set(xscale="log", xlabel="rate x lmax at the start", ylabel=f"rate x lmax after {FLIGHT} steps", ylim=(0, 3.6))
    d.set_xticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"])
    d.minorticks_off()
    return figure


@album.figure(
    "curves.png",
    caption="The chapter's curves by epoch, of its network on 5,000 rows: twelve epochs from the start, then, from the "
    "dotted line, twelve more with the method and all beginnings new, as in the chapter. Dashed: sums of the tensors' "
    "norms, as the chapter has them. Median of three seeds.",
)
def curves_of_the_chapter(results):
    figure, axes = panels(2, 4, size=(13, 7))
    columns = {
        "loss": "loss, mean of batches", "improvement": "loss improvement", "gradient": "gradient norm",
        "change": "change since the start", "weights": "weight norm", "ratio": "update / weights",
        "cosine": "cosine of successive g", "test_accuracy": "test accuracy [%]",
    }  # fmt: skip
    for ax, (column, title) in zip(axes.flat, columns.items(), strict=True):
        for i, (method, runs) in enumerate(results.select("f").groups("method")):
            for name, dash in ((column, "-"), (f"{column}_sum", "--")):
                if name in runs[0].columns:
                    values = np.median([run.columns[name] for run in runs], 0) * (100 if "acc" in name else 1)
                    epochs = runs[0].columns["epoch"]
                    ax.plot(
                        epochs, values, ls=dash, color=look(i)["color"], lw=1.6, label=method if dash == "-" else None
                    )
        ax.axvline(runs[0].columns["epoch"][-1] / 2, color="#888888", ls=":", lw=1.2)
        ax.set(title=title, xlabel="epoch")
        if column in ("loss", "gradient"):
            ax.set_yscale("log")
            plain(ax.yaxis)
    axes[1, 3].set_ylim(75, None)
    return below(figure, axes[0, 0], 2)


def plane():
    def f(u, v):
        return 0.5 * (u * v) ** 2

    return Landscape("f = (u v)² / 2", "", f, None, (), 0.0, (-0.4, 1.15, -1.0, 0.75), (1.0, 0.01))


@album.figure(
    "catapult.gif",
    caption="Gradient descent on (u v)²/2 from beside the minimum (1, 0), whose curvature is u² + v² = 1. At rate 1 "
    "it falls in. At 3 and 3.7, beyond 2, it is thrown from side to side, loses curvature, and lands on an axis where "
    "u² + v² is below 2/rate.",
)
def catapult_animation(results, args):
    runs = {f"rate {r.tags['factor']:g}": r for r in results.select("t", method="moving")}
    for run in runs.values():
        run.columns["gap"] = run.columns["f"]

    def draw(ax):
        map_of(ax, plane())
        ax.axhline(0, color="black", lw=1, zorder=4)
        ax.axvline(0, color="black", lw=1, zorder=4)
        ax.set(xlabel="u", ylabel="v")

    rows = len(next(iter(runs.values())).columns["f"])
    return moving(draw, runs, [t for t in range(rows) for _ in range(args.pick(3, 1))][:: args.pick(1, rows - 1)])
