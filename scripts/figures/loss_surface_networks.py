"""Figures of loss_surface_networks: lines between networks, surfaces with and without skips, their details."""

from lab import Album
from lab.figures import heat, look, panels, plain
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
    "network, with and without skips, on one scale; losses of 64 pictures, above 1,000 cut. Running "
    "statistics of the middle.",
)
def skips(results):
    runs, norm = planes(results)
    order = sorted(runs.items(), key=lambda item: (item[0][0], not item[0][1]))
    return [turning(surface_of(run, "plane"), title_of(key), most=norm.vmax) for key, run in order]


@album.figure(
    "maps.png",
    caption="The same as maps with labelled levels. Levels of one scale of colours, 64 pictures; cross: the "
    "trained network.",
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
    "with those of the 64 rows at each point; a line for each seed.",
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
    caption="Left: how long basins (circles) and rings (squares) of the logarithm of the loss live, in parts of its "
    "range, all seeds; the lowest basin, which never dies, is left out. Above the line is what lasts. Right: "
    "bottleneck distances of the basins' diagrams (log10 of the loss), first seed.",
)
def diagrams(results):
    groups = results.select("r").groups("blocks", "skip")
    figure, (left, right) = panels(1, 2, size=(11, 4.4), width_ratios=(1.7, 1))
    known, names = {}, []
    for at, (key, some) in enumerate(groups):
        grids = [np.log10(surface_of(run, "plane").loss) for run in some]
        found = [with_package(persistence, grid) for grid in grids]
        known[key] = found[0]
        lives = [[np.r_[f.lives(k)] / np.ptp(g) for f, g in zip(found, grids, strict=True)] for k in (0, 1)]
        for k, values in enumerate(map(np.concatenate, lives)):
            more = dict(
                color=look(k)["color"], ms=7, mfc="none", mew=1.6, label=("basin", "ring")[k] if not at else None
            )
            left.plot(np.full(len(values), at + 0.12 * (k - 0.5)), 100 * values, "os"[k], **more)
        count = sum(len(v) for k in lives for v in k)
        seeds = "1 seed" if len(some) == 1 else f"{len(some)} seeds"
        name = f"{6 * key[0] + 2} layers" + (", no skips" if not key[1] else "")
        names.append(f"{name}\n{seeds}: {count or 'none'}")
    left.axhline(1, color="#888888", lw=1, ls=":")
    left.set(yscale="log", ylabel="life [% of the range]", xlim=(-0.5, len(groups) - 0.5), ylim=(1e-3, 100))
    left.set_xticks(range(len(names)), names, fontsize=10)
    left.legend(loc="upper left")
    table = [[with_package(bottleneck, a, b) for a in known.values()] for b in known.values()]
    short = [f"{6 * b + 2}{'' if s else ', no'}" for b, s in known]
    heat(right, table, short, short, "layers", "layers (no: without skips)", "bottleneck distance", digits="{:.2f}")
    return figure
