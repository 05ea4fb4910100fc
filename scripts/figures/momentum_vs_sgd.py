"""Figures of momentum_vs_sgd, with the steady state and the prediction that its claims look at, too."""

import dataclasses

from lab import Album
from lab.figures import below, curves, fitted, halved, heat, panels, said
from lab.results import Results

import numpy as np

album = Album()


def steady(results):
    """{set: (steps, means)} of part a's runs from the minimum: the steps (k,), of the largest, and (seeds, k, 3) of
    |w_mom - w_sgd|^2, |w_mom - w*|^2, |w_sgd - w*|^2, means over the last two thirds of the runs."""
    found = {}
    for data, group in results.select("a", divisor=lambda k: k >= 1).groups("data"):
        table = {1 / k: distances(runs) for k, runs in group.groups("divisor")}
        found[data] = np.array(list(table)), np.array(list(table.values())).transpose(1, 0, 2)
    return found


def distances(runs):
    """(seeds, 3): see `steady`."""
    one, two = (runs.select(method=name).by_seed() for name in ("momentum", "sgd"))
    rows = []
    for seed in sorted(set(one) & set(two)):
        a, b = one[seed].columns, two[seed].columns
        late = slice(len(a["step"]) // 3, None)
        apart = np.sum((a["w"] - b["w"])[late] ** 2, 1)
        rows.append((apart.mean(), a["distance"][late].mean(), b["distance"][late].mean()))
    return rows


def ratio(beta, scale):
    """Momentum's stationary mean square, of SGD's, on a quadratic; scale: h lr/(1-beta)."""
    return (2 - scale) / (2 - scale * (1 - beta) / (1 + beta))


def legend(args):
    texts = {
        "momentum": f"momentum {args.beta:g} at lr",
        "sgd": f"SGD at lr/(1-beta) = {1 / (1 - args.beta):.3g} lr",
        "control": "control: SGD at lr",
    }
    return lambda tags: texts[tags["method"]]


def overlaid(ax):
    """SGD's line dashed, so that momentum's is seen under it."""
    for line in ax.lines:
        if line.get_label().startswith("SGD"):
            line.set_linestyle((0, (4, 3)))
    legend = ax.get_legend()
    if legend:
        ax.legend(title=legend.get_title().get_text(), alignment="left")


@album.figure(
    "regression.png",
    caption="Linear regression under one sampling of rows with replacement: the gap to the minimum, and the loss of "
    "the test rows. Momentum and SGD at lr/(1-beta) run on top of each other after the first steps.",
)
def regression_figure(results, args):
    groups = results.select("a").groups("data", "B")
    figure, grid = panels(2, len(groups), squeeze=False)
    for column, (((data, size), runs), (top, bottom)) in enumerate(zip(groups, grid.T, strict=True)):
        for ax, y, text in ((top, "gap", "f(w) - f*"), (bottom, "test_loss", "test loss")):
            curves(ax, runs, y, "step", label=legend(args), logy=True, ylabel=text if not column else " ", legend=False)
            overlaid(ax)
        top.set_title(f"{data} B={size}")
    return below(figure, grid[0, 0], 3, title=said(len(results.seeds)))


@album.figure(
    "phase.png",
    caption="A quadratic of curvature h with noise of one size: momentum's stationary mean square, of SGD's at "
    "lr/(1-beta), over beta and e = h lr/(1-beta); in brackets the prediction. Beyond e = 2 SGD diverges.",
)
def phase_figure(results):
    runs = results.select("p").with_column("ratio", lambda c: c["momentum"] / c["sgd"])
    runs = Results(dataclasses.replace(run, final={"ratio": float(run.columns["ratio"][-1])}) for run in runs)
    table, betas, scales = runs.table("ratio", "beta", "scale")
    figure, ax = panels(size=(11, 5))
    heat(ax, table, betas, scales, "beta", "e = h lr/(1-beta)", "momentum / SGD", limits=(0, 1.05))
    for text, ((i, j), value) in zip(list(ax.texts), np.ndenumerate(table), strict=True):
        beta, scale = betas[i], scales[j]
        if np.isfinite(value):
            text.set_text(f"{value:.3f}\n({ratio(beta, scale):.3f})")
        else:
            alone = scale < 2 * (1 + beta) / (1 - beta)
            text.set_text("momentum\nalone" if alone else "both\ndiverge")
        text.set_fontsize(10)
    return figure


@album.figure(
    "slopes.png",
    caption="Linear regression, batch size 1, started at the minimum: mean square distances in the steady state "
    "against the step size, with least-squares lines. The two methods are closer to each other than to the minimum, by "
    "a factor that grows as the step shrinks.",
)
def slopes_figure(results):
    found = steady(results)
    figure, grid = panels(1, len(found), squeeze=False)
    for ax, (data, (steps, table)) in zip(grid[0], found.items(), strict=True):
        labels = ("E|w_mom - w_sgd|²", "E|w_mom - w*|²", "E|w_sgd - w*|²")
        for i, (label, marker) in enumerate(zip(labels, "os^", strict=True)):
            fitted(ax, steps, table[:, :, i].mean(0), i, label, marker, 9 - 2 * i)
        halved(ax, steps, "step size lr/(1-beta), in units of 0.1 / L_max", "mean square distance")
        ax.set_title(data)
        ax.legend()
    return figure


def network_figure(results, part, args):
    figure, axes = panels(1, 2)
    some = results.select(part).with_column("test_error", lambda c: 100 * (1 - c["test_accuracy"]))
    for ax, column, text in zip(axes, ("train_loss", "test_error"), ("training loss", "test error [%]"), strict=True):
        curves(ax, some, column, label=legend(args), logy=True, ylabel=text, legend=False)
        overlaid(ax)
    return below(figure, axes[0], 3, title=said(len(some.seeds)))


@album.figure(
    "lenet.png",
    caption="LeNet-5, batch size 64, constant rate (lr = 0.005): at most 10,000 training images, and all test images, "
    "in evaluation mode.",
)
def lenet_figure(results, args):
    return network_figure(results, "b", args)


@album.figure(
    "resnet.png",
    caption="ResNet-18 at reduced width on part of the training set, batch size 128, l2 = 5e-4, constant rate (lr = "
    "0.002): at most 2,000 training images, and all test images, in evaluation mode.",
)
def resnet_figure(results, args):
    return network_figure(results, "c", args)
