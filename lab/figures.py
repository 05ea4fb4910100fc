"""Figures in one style: readable at slide size, safe for colour-blind eyes, with units and the spread over seeds.

    @experiment.figure("loss.png", caption="...")
    def loss(results):
        figure, (left, right) = panels(1, 2)
        curves(left, results.select(part="a"), y="loss", logy=True)
        sweep(right, results.select(part="b"), "lr", y="loss", xlabel="learning rate")
        return figure

Colours: Okabe & Ito 2008, without the yellow that vanishes on white. Lines beyond the seventh change their dashes.
"""

import matplotlib

matplotlib.use("Agg")

from lab.results import middle_and_band

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = "os^Dv<>P"

STYLE = {
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "savefig.dpi": 130,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "legend.fontsize": 11,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.75,
    "lines.linewidth": 2.0,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.cmap": "cividis",
    "axes.formatter.useoffset": False,
}

LABELS = {
    "epoch": "epoch",
    "step": "step",
    "seconds": "time of the steps [s]",
    "gradients": "gradients [rows differentiated]",
    "values": "function values [rows evaluated]",
    "bytes": "sent [bytes]",
    "lr": "learning rate",
    "loss": "mini-batch loss, mean since the last row",
}


def style():
    """A context in which matplotlib draws in the style of the house; the lab opens it around every figure function."""
    return matplotlib.rc_context(STYLE)


def panels(rows=1, columns=1, size=None, **more):
    """(figure, axes) as plt.subplots gives them. A panel has 6.4 x 4.4 inches, a single one 8 x 4.8. All panels
    together take at most a slide of 13 x 7.5 inches, then with smaller letters. `size` overrides all this."""
    size = size or ((8, 4.8) if rows * columns == 1 else (min(6.4 * columns, 13), min(4.4 * rows, 7.5)))
    tight = {"font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 10, "lines.linewidth": 1.6}
    with style(), matplotlib.rc_context(tight if columns > 2 or rows > 2 else {}):
        return plt.subplots(rows, columns, figsize=size, **more)


def look(index):
    """The colour and the dashes of line number `index`."""
    n = len(COLOURS)
    return {"color": COLOURS[index % n], "linestyle": DASHES[index // n % len(DASHES)]}


def curves(ax, results, y="loss", x="epoch", *, label=None, floor=0.0, logx=False, logy=False, xlabel=None, ylabel=None,
           first=0, legend=True, colours=None):  # fmt: skip
    """Draw y against x for every method among the results: the median over seeds as a line, the spread as a band.

    label   function of a line's tags -> text in the legend (default: the tags in which the lines differ)
    floor   is subtracted from y, e.g. the minimum of the problem; ylabel should say so
    first   number of the first colour, to keep colours apart where panels are drawn call by call
    colours function of a line's tags -> number of its colour, to keep it where panels show different methods
    Against time, the seeds are taken together row by row: a row stands at the median of its times.
    The legend's title says how many seeds there are and what the band is; a long legend stands beside the axes.
    """
    words = set()
    with style():
        for index, (name, runs) in enumerate(results.lines(), first):
            grid, values = by_row(runs, y, x) if x == "seconds" else runs.stack(y, x)
            middle, low, high, _ = middle_and_band(values - floor)
            appearance = look(colours(runs[0].tags) if colours else index)
            text = label(runs[0].tags) if label else name
            lost = sum(run.diverged for run in runs)
            ax.plot(grid, middle, label=text + (f" ({lost} of {len(runs)} diverged)" if lost else ""), **appearance)
            if len(runs) > 1:
                ax.fill_between(grid, low, high, color=appearance["color"], alpha=0.18, linewidth=0)
            words.add(said(len(runs)))
        axes(ax, x, y, xlabel, ylabel, logx, logy)
        if legend:
            aside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(ax.lines) > 5 else {"loc": "best"}
            box = ax.legend(title="; ".join(sorted(words)), alignment="left", **aside)
            box.get_title().set_fontsize(10)
            box.get_title().set_color("#666666")
    return ax


def below(figure, ax, columns=5, **more):
    """The legend of one of its axes below the whole figure."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns, **more)
    return figure


def named(ax, size=10):
    """The name of each line at its end, in its colour, instead of a legend: in a column at the right, moved apart where
    they would overlap, or beside the end of a line that ends far from there. Call it last: limits stay as they are."""
    low, high = ax.get_ylim()  # asked for: limits are found when they are needed
    ends = []
    for line in ax.lines:
        x, y = (np.ma.filled(np.ma.asarray(v, float), np.nan) for v in line.get_data())
        seen = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if seen.size and not line.get_label().startswith("_"):
            point = ax.transAxes.inverted().transform(ax.transData.transform((x[seen[-1]], y[seen[-1]])))
            ends.append((float(np.clip(point[1], 0, 1)), float(point[0]), line))
    height = 1.25 * size / 72 / (ax.figure.get_size_inches()[1] * ax.get_position().height)  # of a name, in axes
    column = sorted((end for end in ends if end[1] > 0.85), key=lambda end: end[0])
    at = np.array([end[0] for end in column])
    for _ in range(200):  # neighbours move apart
        push = np.maximum(height - np.diff(at), 0) / 2
        if not (push > 1e-9).any():
            break
        at[:-1] -= push
        at[1:] += push
        at = np.maximum(at, 0)
    for place, (_, _, line) in zip(at, column, strict=True):
        tell(ax, line, (1.015, place), (0, 0), size)
    placed = []
    for y, x, line in sorted((end for end in ends if end[1] <= 0.85), key=lambda end: end[0]):
        while any(abs(y - other) < 0.99 * height and abs(x - at) < 0.2 for at, other in placed):
            y += height / 4
        placed.append((x, y))
        tell(ax, line, (x, y), (4, 0), size)
    ax.set_ylim(low, high)


def tell(ax, line, place, away, size):
    ax.annotate(line.get_label(), place, away, "axes fraction", "offset points", color=line.get_color(), fontsize=size,
                va="center", annotation_clip=False)  # fmt: skip


def closer(ax, results, column, low=0.1, high=0.1, top=100):
    """Leave the untrained state out of the picture. Of the values after the first row, y goes from the least, times
    1 - low, to the percentile `top`, times 1 + high. Runs that diverged are not looked at."""
    late = np.concatenate([run.columns[column][1:] for run in results if not run.diverged])
    ax.set_ylim(np.nanmin(late) * (1 - low), np.nanpercentile(late, top) * (1 + high))
    if ax.get_yscale() == "log":
        plain(ax.yaxis)


def each(names, draw, columns=3, legend=3, titles=str):
    """A figure with a panel for each name, drawn by draw(ax, name), and one legend. titles(name) is a panel's title."""
    columns = min(columns, len(names)) if len(names) != 4 else 2
    figure, grid = panels(-(-len(names) // columns), columns, squeeze=False)
    for ax, name in zip(grid.flat, names, strict=False):
        draw(ax, name)
        ax.set_title(titles(name))
    for ax in grid.flat[len(names) :]:
        ax.axis("off")
    return below(figure, grid.flat[0], legend)


def said(seeds):
    """What a line and its band are, for so many seeds."""
    if seeds < 2:
        return "1 seed"
    return f"median, band: {middle_and_band(np.zeros((seeds, 1)))[3]} of {seeds} seeds"


def by_row(runs, y, x):
    """(median of x, values of y) of the rows that all runs have: (rows,), (seeds, rows)."""
    rows = min(len(run.columns[y]) for run in runs)
    return np.median([run.columns[x][:rows] for run in runs], 0), np.array([run.columns[y][:rows] for run in runs])


def ranged(ax, xs, values, index, middle=np.median, **more):
    """The middle of each point's values over seeds against xs, with bars from the lowest to the highest, in the look
    and with the mark of line number `index`; `more` goes to errorbar. Returns the middles."""
    found = np.array([middle(v) for v in values])
    span = [found - [np.min(v) for v in values], [np.max(v) for v in values] - found]
    span = np.maximum(span, 0)  # where rounding puts a mean beyond them
    ax.errorbar(xs, found, span, **look(index) | dict(marker=MARKERS[index % len(MARKERS)], capsize=3) | more)
    return found


def sweep(ax, results, over, y="loss", label=None, *, xlabel=None, ylabel=None, logx=True, logy=False, index=0,
          floor=0.0, top=np.inf):  # fmt: skip
    """The last value of y against the tag `over`: the median over seeds, with bars from the lowest to the highest.

    top      values above it are off the scale
    Runs that diverged or were off the scale are a cross at the upper edge, with their count: no line leads there.
    """
    groups = dict(results.groups(over))
    xs = sorted(groups)
    values = [groups[at].final(y) - floor for at in xs]
    gone = [np.array([run.diverged for run in groups[at]]) for at in xs]
    values = [np.where(d | ~(v <= top), np.nan, v) for d, v in zip(gone, values, strict=True)]
    alive = [np.isfinite(v).any() for v in values]
    with style():
        at = [x for x, a in zip(xs, alive, strict=True) if a]
        some = [v[np.isfinite(v)] for v, a in zip(values, alive, strict=True) if a]
        ranged(ax, at, some, index, capsize=4, label=label)
        for x, v, d in zip(xs, values, gone, strict=True):
            lost = int(np.isnan(v).sum())
            if lost:
                edge, what = ax.get_xaxis_transform(), "diverged" if d.sum() == lost else "off the scale"
                ax.plot([x], [0.97], "x", color=look(index)["color"], ms=9, mew=2.2, transform=edge, clip_on=False)
                ax.annotate(
                    f"{lost}/{len(v)} {what}",
                    (x, 0.97),
                    xycoords=edge,
                    textcoords="offset points",
                    xytext=(0, -8),
                    fontsize=9,
                    color="#666666",
                    ha="center",
                    va="top",
                    rotation=90,
                )
        axes(ax, None, y, xlabel, ylabel, logx, logy)
        if label:
            ax.legend()
    return ax


def mark(ax, y, text, at=0.5):
    """A dotted line at y with `text` on it, at the fraction `at` of the width."""
    ax.axhline(y, color="#888888", lw=1, ls=":")
    ax.annotate(text, (at, y), xycoords=("axes fraction", "data"), fontsize=10, va="bottom", color="#666666")


def fitted(ax, steps, values, index=0, label=None, marker="o", size=8):
    """Values against steps on logarithmic axes, with their least-squares line; the slope follows the label."""
    rise, level = np.polyfit(np.log(steps), np.log(values), 1)
    colour = look(index)["color"]
    ax.plot(steps, values, marker, color=colour, ms=size, label=f"{label}, slope {rise:.2f}")
    ax.plot(steps, np.exp(level) * np.asarray(steps) ** rise, color=colour, lw=1.2)


def reference(ax, span, level, power, at_start=False):
    """A dotted line of slope `power` on logarithmic axes over the two numbers of span, at `level` at its end (or its
    start), with its slope beside it. It shows what theory gives, to compare with what was measured."""
    xs = np.array(span, float)
    if not xs[0] < xs[1]:
        return
    ys = level * (xs / xs[0 if at_start else 1]) ** power
    ax.plot(xs, ys, color="#555555", lw=1.2, ls=":")
    middle = np.exp(np.log(xs).mean()), np.exp(np.log(ys).mean())
    side = "left" if power > 0 else "right"  # below the line
    ax.annotate(f"slope {power:g}", middle, xytext=(0, -5), textcoords="offset points", va="top", ha=side, fontsize=10,
                color="#555555")  # fmt: skip


def halved(ax, steps, xlabel, ylabel):
    """Logarithmic axes for steps 1, 1/2, 1/4, ... with these as ticks."""
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    ax.set_xticks(steps, [f"1/{1 / s:g}" if s < 1 else "1" for s in steps])
    ax.minorticks_off()


def heat(ax, table, rows, columns, ylabel, xlabel, colour, *, log=False, digits="{:.3g}", limits=None):
    """A table (rows, columns) as colours with its numbers in the cells; rows rise upwards.

    rows, columns   the values that belong to them; ylabel, xlabel: what they are; colour: what the numbers are
    log             colours follow the logarithm. Cells without a finite number stay white.
    limits          (least, greatest) number of the colours, for panels that share them
    """
    table = np.asarray(table, float)
    shade = np.ma.masked_invalid(np.log(table) if log else table)
    with style():
        low, high = (None, None) if limits is None else np.log(limits) if log else limits
        picture = ax.imshow(shade, origin="lower", aspect="auto", vmin=low, vmax=high)
        for (i, j), value in np.ndenumerate(table):
            dark = np.isfinite(value) and picture.norm(shade[i, j]) < 0.55
            ax.text(
                j,
                i,
                digits.format(value) if np.isfinite(value) else "diverged",
                ha="center",
                va="center",
                fontsize=11,
                color="white" if dark else "black",
            )
        ax.set_xticks(range(len(columns)), [v if isinstance(v, str) else f"{v:g}" for v in columns])
        ax.set_yticks(range(len(rows)), [v if isinstance(v, str) else f"{v:g}" for v in rows])
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.grid(False)
        bar = ax.figure.colorbar(picture, ax=ax, label=colour)
        if log:
            bar.ax.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{np.exp(value):.3g}"))
    return ax


def axes(ax, x, y, xlabel, ylabel, logx, logy):
    ax.set_xlabel(xlabel or LABELS.get(x, x))
    ax.set_ylabel(ylabel or LABELS.get(y, y))
    if logx:
        ax.set_xscale("log", nonpositive="mask")  # a row at 0 is not drawn
        plain(ax.xaxis)
    if logy:
        ax.set_yscale("log")
        plain(ax.yaxis)


def plain(axis):
    """Numbers such as 0.3 on a logarithmic axis that spans less than two decades, instead of 3 x 10^-1."""
    low, high = axis.get_view_interval()
    if 0 < low and high < 100 * low:
        fine = ticker.MaxNLocator(6) if high < 3 * low else ticker.LogLocator(subs=(1, 2, 5), numticks=12)
        axis.set_major_locator(fine)
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
