"""Figures of adversarial: accuracy under attack, pictures, planes and filters."""

from lab import Album
from lab.figures import below, curves, look, mark, panels, said
from lab.robustness import ENSEMBLE, STRONG, answers, classifier, pixels, plane
from problems.attacks import FGSM, PGD, attacked

import numpy as np

album = Album()
EPS, FIRST = 0.3, "natural"  # the radius of part b; the training that knows no attack


@album.figure(
    "curves.png",
    caption="Plain networks: accuracy on test rows that are attacked, against eps (median and range over seeds).",
)
def curves_figure(results):
    groups = results.select("a").groups("network")
    figure, axes = panels(1, len(groups), sharey=True, squeeze=False)
    for ax, (network, some) in zip(axes[0], groups, strict=True):
        names = [name for name in some[0].columns if name not in ("eps", "clean")]
        for i, name in enumerate(names):
            values = np.array([[run.columns["clean"][0], *run.columns[name]] for run in some]) * 100
            eps = [0, *some[0].columns["eps"]]
            ax.plot(eps, np.median(values, 0), label=name, marker="o", ms=4, **look(i))
            ax.fill_between(eps, values.min(0), values.max(0), color=look(i)["color"], alpha=0.15, lw=0)
        mark(ax, 10, "chance", 0.02)
        ax.set(title=network, xlabel="eps, in units of the image", ylim=(-2, 102))
    axes[0][0].set_ylabel("accuracy [%]")
    return below(figure, axes[0][0], 4)


@album.figure(
    "trainings.png",
    caption="Seven trainings: accuracy of the same test rows, clean and attacked at eps = 0.3 (dots: seeds, bars: "
    "means), and the time of the training's steps.",
)
def trainings_figure(results):
    groups = results.select("b").groups("method")
    figure, (left, right) = panels(1, 2, size=(13, 5.6), gridspec_kw={"width_ratios": (3, 1)}, sharey=True)
    names = {"clean": "clean", "FGSM": "FGSM", STRONG: STRONG, ENSEMBLE[-1]: "ensemble"}
    for i, (column, name) in enumerate(names.items()):
        for y, (_, some) in enumerate(groups):
            values, at = 100 * some.final(column), y + 0.2 * (i - 1.5)
            left.barh(at, values.mean(), 0.18, color=look(i)["color"], alpha=0.75, label=None if y else name)
            left.plot(values, [at] * len(values), "o", color="black", ms=2.5)
    left.set_yticks(range(len(groups)), [method for method, _ in groups])
    left.invert_yaxis()
    left.set(xlabel="accuracy [%]", xlim=(0, 101))
    for y, (_, some) in enumerate(groups):
        right.barh(y, np.median(some.final("seconds")), 0.5, color="#888888")
    right.set(xlabel="time of the steps [s]", title=said(len(results.seeds)).split(",")[0])
    return below(figure, left, 4)


@album.figure(
    "watched.png",
    caption="Accuracy under FGSM and under PGD-10 on the same test rows while training: where the first rises and the "
    "second falls, the network deceives.",
)
def watched_figure(results):
    figure, axes = panels(1, 2, sharey=True)
    for ax, column, text in zip(axes, ("fgsm_accuracy", "pgd_accuracy"), ("FGSM", "PGD-10"), strict=True):
        some = dict(ylabel="accuracy", legend=False, label=lambda tags: tags["method"])
        curves(ax, results.select("b"), column, "gradients", **some)
        ax.set_title(f"under {text}")
    return below(figure, axes[0], 4)


def network_of(run):
    """(problem, x) of a run of part b."""
    return classifier(run.tags["data"], "strided"), run.x


@album.figure(
    "images.png",
    caption="Test images as they are and after attacks at eps = 0.3, with the network's answers (orange: wrong): a "
    "natural network above, one trained with the fast form below.",
)
def images_figure(results):
    figure, axes = panels(4, 6, size=(11, 7.5))
    for half, method in enumerate((FIRST, "fast")):
        problem, x = network_of(results.select("b", method=method)[0])
        images, _ = pixels(problem, range(4))
        for k, attack in enumerate((None, FGSM(EPS), PGD(EPS, 0.03, 20))):
            moved = images
            if attack is not None:
                delta = attacked(problem, x, attack, rows=range(4), keep=True, stop=False).delta
                moved = np.clip(images + delta.reshape(images.shape), 0, 1)
            said_, right = answers(problem, x, moved), problem.pairs("test", range(4))[1]
            for i in range(4):
                ax = axes[2 * half + i // 2, 3 * (i % 2) + k]
                ax.imshow(moved[i], cmap="gray", vmin=0, vmax=1)
                colour = "black" if said_[i] == right[i] else "#D55E00"
                ax.set_title(f"{method}, {('clean', 'FGSM', 'PGD-20')[k]}: {said_[i]}", color=colour, fontsize=10)
                ax.axis("off")
    return figure


@album.figure(
    "planes.png",
    caption="Answers in a plane around a test image: across, the direction of FGSM; up, random signs. Grey: the right "
    "answer. The square is eps = 0.3.",
)
def planes_figure(results):
    shown = [m for m in (FIRST, "FGSM, zero start", "fast", "PGD-5") if m in results.select("b").values("method")]
    figure, axes = panels(2, len(shown), size=(13, 6.6), squeeze=False)
    for column, method in zip(axes.T, shown, strict=True):
        problem, x = network_of(results.select("b", method=method)[0])
        for row, ax in enumerate(column):
            right = int(pixels(problem, [row])[1][0])
            found = plane(problem, x, row, 2 * EPS, 61)
            picture = np.where(found == right, -1, found)
            colours = dict(cmap="tab10", vmin=0, vmax=9, alpha=0.8, interpolation="nearest")
            ax.imshow(np.ma.masked_equal(picture, -1), origin="lower", extent=(-2 * EPS, 2 * EPS) * 2, **colours)
            ax.set_facecolor("#DDDDDD")
            ax.plot(*np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]).T * EPS, color="black", lw=1)
            ax.plot(0, 0, "k+", ms=8)
            for other in np.unique(found):
                ys, xs = np.nonzero(found == other)
                if len(ys) > 60:
                    at = (np.median(v) / 30 * 2 * EPS - 2 * EPS for v in (xs, ys))
                    ax.text(*at, str(other), ha="center", va="center")
            ax.grid(False)
            ax.set(title=f"{method}: a {right}", xlabel="FGSM" if row else "")
    for ax in axes[:, 0]:
        ax.set_ylabel("random signs")
    return figure


@album.figure(
    "filters.png",
    caption="The 16 filters of the first layer, 4x4 pixels, one scale a network: after robust training some of them "
    "are thresholds, a single large weight.",
)
def filters_figure(results):
    some = results.select("b").groups("method")
    some = [(method, runs[0]) for method, runs in some if method in (FIRST, "fast", "PGD-5", "TRADES")]
    figure, axes = panels(len(some), 16, size=(13, 1.1 * len(some) + 0.6), squeeze=False)
    for line, (method, run) in zip(axes, some, strict=True):
        problem, x = network_of(run)
        filters = x[problem.segments.find("conv1.W").slice].reshape(16, 4, 4)
        for ax, one in zip(line, filters[np.argsort(-abs(filters).max((1, 2)))], strict=True):
            ax.imshow(one, cmap="RdBu_r", vmin=-abs(filters).max(), vmax=abs(filters).max())
            ax.axis("off")
        line[0].set_title(method, loc="left")
    return figure
