"""Figures of loss_surface_networks: lines between networks, surfaces with and without skips, their details."""

from lab import Album
from lab.figures import look, panels, plain
from lab.maps import bar, contours, scale_of, turning
from lab.sections import surface_of, with_package
from npopt.analysis import bottleneck, persistence, wavelets

import numpy as np

album = Album()

STATISTICS = {"running": "running ones of the first", "mixed": "running ones, mixed", "rows": "of the rows"}


@album.figure(
    "lines.png",
    caption="Training loss (top) and accuracy (bottom) on the line between two trained perceptrons from different "
    "starts, at 0 and 1, and from epoch 1 of a run to its end. With batch norm by whose statistics are used. Thin: "
    "seeds; thick: their median.",
)
def lines(results):
    groups = dict(results.select("i").groups("norm"))
    figure, axes = panels(2, 3, size=(13, 7), sharex=True, sharey="row")
    panel = [("none", "across rows", "two runs, no batch norm"), ("batch", None, "two runs, batch norm")]
    for column, (norm, only, title) in zip(axes.T, [*panel, (None, "along", "epoch 1 to the end")], strict=True):
        if only == "along":
            shown = {"no batch norm": ("none", "along"), "batch norm, of the rows": ("batch", "along")}
        elif only:
            shown = {"loss": (norm, only)}
        else:
            shown = {text: (norm, f"across {kind}") for kind, text in STATISTICS.items()}
        for i, (text, (which, name)) in enumerate(shown.items()):
            some = [surface_of(run, name) for run in groups.get(which, ())]
            for ax, field in zip(column, ("loss", "accuracy"), strict=True):
                values = np.array([getattr(s, field) for s in some])
                for line in values:
                    ax.plot(some[0].a, line, color=look(i)["color"], lw=0.6, alpha=0.5)
                if len(values):
                    ax.plot(some[0].a, np.median(values, 0), **look(i), label=text)
        for ax in column:
            for end in (0, 1):
                ax.axvline(end, color="#999999", lw=1, ls=":")
        column[0].set(title=title, yscale="log")
        plain(column[0].yaxis)
        column[1].set_xlabel("share of the way")
        if len(shown) > 1:
            column[0].legend(fontsize=9)
    axes[0, 0].set_ylabel("training loss, 1,000 rows")
    axes[1, 0].set_ylabel("accuracy")
    return figure


def planes(results):
    """{(blocks, skip): the run of the first seed}, and the scale that they share."""
    runs = {key: some[0] for key, some in results.select("r").groups("blocks", "skip")}
    return runs, scale_of([surface_of(run, "plane") for run in runs.values()], most=1e3)


def title_of(key):
    return f"{6 * key[0] + 2} layers, {'with' if key[1] else 'without'} skips"


@album.figure(
    "skips.png",
    caption="Training loss (logarithm) over a filter-normalised random plane from -1 to 1 about a trained residual "
    "network, with and without skips, on one scale; losses above 1,000 are cut. Running statistics of the middle.",
)
def skips(results):
    runs, norm = planes(results)
    order = sorted(runs.items(), key=lambda item: (item[0][0], not item[0][1]))
    return [turning(surface_of(run, "plane"), title_of(key), most=norm.vmax) for key, run in order]


@album.figure(
    "maps.png",
    caption="The same as maps with labelled levels. Levels of one scale of colours; cross: the trained network.",
)
def maps(results):
    runs, norm = planes(results)
    figure, axes = panels(1, len(runs), size=(13, 3.9), sharey=True, squeeze=False)
    for ax, (key, run) in zip(axes[0], runs.items(), strict=True):
        picture = contours(ax, surface_of(run, "plane"), norm)
        ax.set_title(title_of(key), fontsize=10)
        ax.set_aspect("equal")
    bar(figure, picture, axes)
    return figure


@album.figure(
    "statistics.png",
    caption="Training loss along a filter-normalised random direction, with the running statistics of the middle and "
    "with those of the rows at each point; a line for each seed.",
)
def statistics(results):
    groups = results.select("r").groups("blocks", "skip")
    figure, axes = panels(1, len(groups), size=(13, 4.2), sharey=True, squeeze=False)
    for ax, (key, some) in zip(axes[0], groups, strict=True):
        for run in some:
            for i, (kind, text) in enumerate((("running", "running"), ("rows", "of the rows"))):
                line = surface_of(run, kind)
                ax.plot(line.a, line.loss, **look(i), label=text if run is some[0] else None)
        ax.set(xlabel="a", title=title_of(key), yscale="log")
        ax.title.set_fontsize(10)
        plain(ax.yaxis)
    axes[0, 0].set_ylabel("training loss")
    axes[0, 0].legend(title="statistics")
    return figure


@album.figure(
    "details.png",
    caption="Haar's transform of the logarithm of the loss: what changes from one point of the grid to the next (level "
    "1) and from one pair to the next (level 2), sqrt(H² + V² + D²), on one scale; below its share of the variance.",
)
def details(results):
    runs, _ = planes(results)
    figure, axes = panels(2, len(runs), size=(13, 6.4), squeeze=False)
    found = {}
    for key, run in runs.items():
        loss = np.log(surface_of(run, "plane").loss)
        even = [n - n % 4 for n in loss.shape]
        found[key] = with_package(wavelets, loss[: even[0], : even[1]], 2)
    top = max(w.strength(level).max() for w in found.values() for level in (0, 1))
    for column, (key, w) in zip(axes.T, found.items(), strict=True):
        for level, ax in enumerate(column):
            picture = ax.imshow(w.strength(level).T, origin="lower", vmin=0, vmax=top, extent=(-1, 1, -1, 1))
            ax.set_title(
                f"{title_of(key)}\n" * (not level) + f"level {level + 1}: {100 * w.shares[level]:.2g} %", fontsize=10
            )
            ax.grid(False)
    figure.colorbar(picture, ax=axes, label="strength of details")
    return figure


@album.figure(
    "persistence.png",
    caption="Basins (circles) and rings (squares) of the logarithm of the loss: born at their lowest point, dead where "
    "they merge or are filled. Far from the diagonal: lasting. All seeds, without the lowest basin, which never dies. "
    "Right: bottleneck distances of the basins, first seed.",
)
def diagrams(results):
    groups = results.select("r").groups("blocks", "skip")
    figure, axes = panels(1, len(groups) + 1, size=(13, 4), squeeze=False)
    known = {}
    for ax, (key, some) in zip(axes[0], groups, strict=False):
        found = [with_package(persistence, np.log10(surface_of(run, "plane").loss)) for run in some]
        known[key], low, high = found[0], np.inf, -np.inf
        for diagram in found:
            low, high = min(low, diagram.pairs[0][0, 0]), max(high, diagram.pairs[0][:, 0].max())
            for k in (0, 1):
                pairs = diagram.pairs[k][np.isfinite(diagram.pairs[k][:, 1])]
                ax.plot(*pairs.T, "os"[k], color=look(k)["color"], ms=5, mfc="none")
                high = max(high, pairs.max(initial=-np.inf))
        ax.plot([low, high], [low, high], color="#888888", lw=1)
        ax.set(title=title_of(key), xlabel="birth (log10 of the loss)", ylabel="death" if ax is axes[0, 0] else "")
        ax.title.set_fontsize(10)
    table = [[with_package(bottleneck, a, b) for a in known.values()] for b in known.values()]
    ax, names = axes[0, -1], [f"{6 * b + 2}{'' if s else ' -'}" for b, s in known]
    ax.imshow(table, origin="lower", vmin=0)
    for (i, j), value in np.ndenumerate(table):
        ax.text(
            j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 * np.max(table) else "black"
        )
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set_title("distance (-: without skips)", fontsize=10)
    ax.grid(False)
    return figure
