"""Figures in one style: readable at slide size, safe for colour-blind eyes, with units and the spread over seeds.

    @experiment.figure("loss.png", caption="...")
    def loss(results):
        figure, (left, right) = panels(1, 2)
        curves(left, results.select(part="a"), y="loss", logy=True)
        sweep(right, {0.1: results.select(name="lr 0.1"), ...}, y="loss", xlabel="learning rate", logx=True)
        return figure

Colours: Okabe & Ito 2008, without the yellow that vanishes on white. Lines beyond the seventh change their dashes.
"""

import contextlib
import io

import matplotlib

matplotlib.use("Agg")

from lab.results import middle_and_band
from npopt import checkpoint

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker
from PIL import Image, ImageColor

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
    """(figure, axes) as plt.subplots gives them; panels of 6.4 x 4.4 inches (one: 8 x 4.8) unless `size` is set."""
    size = size or ((8, 4.8) if rows * columns == 1 else (6.4 * columns, 4.4 * rows))
    with style():
        return plt.subplots(rows, columns, figsize=size, **more)


def look(index):
    """The colour and the dashes of line number `index`."""
    n = len(COLOURS)
    return {"color": COLOURS[index % n], "linestyle": DASHES[index // n % len(DASHES)]}


def curves(
    ax,
    results,
    y="loss",
    x="epoch",
    label=None,
    floor=0.0,
    logx=False,
    logy=False,
    xlabel=None,
    ylabel=None,
    first=0,
    legend=True,
    colours=None,
):
    """Draw y against x for every method among the results: the median over seeds as a line, the spread as a band.

    label   function name -> text in the legend (default: the name)
    floor   is subtracted from y, e.g. the minimum of the problem; ylabel should say so
    first   number of the first colour, to keep colours apart where panels are drawn call by call
    colours function name -> number of its colour, to keep a method's colour where panels show different methods
    Against time, the seeds are taken together row by row, each at the median of its times.
    The legend's title says how many seeds there are and what the band is; a long legend stands beside the axes.
    """
    words = set()
    with style():
        for index, (name, runs) in enumerate(results.groups(), first):
            grid, values = by_row(runs, y, x) if x == "seconds" else runs.stack(y, x)
            middle, low, high, _ = middle_and_band(values - floor)
            appearance = look(colours(name) if colours else index)
            text = label(name) if label else name
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


def said(seeds):
    """What a line and its band are, for so many seeds."""
    if seeds < 2:
        return "1 seed"
    return f"median, band: {middle_and_band(np.zeros((seeds, 1)))[3]} of {seeds} seeds"


def by_row(runs, y, x):
    """(median of x, values of y) of the rows that all runs have: (rows,), (seeds, rows)."""
    rows = min(len(run.columns[y]) for run in runs)
    return np.median([run.columns[x][:rows] for run in runs], 0), np.array([run.columns[y][:rows] for run in runs])


def sweep(
    ax, groups, y="loss", label=None, xlabel=None, ylabel=None, logx=True, logy=False, index=0, floor=0.0, top=np.inf
):
    """The last value of y against a hyper-parameter: the median over seeds, with bars from the lowest to the highest.

    groups   {value of the hyper-parameter: Results}
    top      values above it are off the scale
    Runs that diverged or are off the scale are a cross at the upper edge, with their count: no line leads there.
    """
    xs = sorted(groups)
    values = [groups[at].final(y) - floor for at in xs]
    gone = [np.array([run.diverged for run in groups[at]]) for at in xs]
    values = [np.where(d | ~(v <= top), np.nan, v) for d, v in zip(gone, values, strict=True)]
    alive = [np.isfinite(v).any() for v in values]
    with style():
        at = [x for x, a in zip(xs, alive, strict=True) if a]
        some = [v[np.isfinite(v)] for v, a in zip(values, alive, strict=True) if a]
        middle = np.array([np.median(v) for v in some])
        span = np.array([[m - v.min(), v.max() - m] for m, v in zip(middle, some, strict=True)]).reshape(-1, 2).T
        appearance = look(index) | {"marker": MARKERS[index % len(MARKERS)], "capsize": 4}
        ax.errorbar(at, middle, yerr=span, label=label, **appearance)
        for x, v, d in zip(xs, values, gone, strict=True):
            lost = int(np.isnan(v).sum())
            if lost:
                edge, what = ax.get_xaxis_transform(), "diverged" if d.sum() == lost else "off the scale"
                ax.plot([x], [0.97], "x", color=appearance["color"], ms=9, mew=2.2, transform=edge, clip_on=False)
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


def tuned(results, by="validation_accuracy", floor=None):
    """A figure of methods whose runs are named "method: rate", each at its best rate by the column `by`: training loss
    and test error by epoch, and that column against the rate (circles: chosen), from `floor` per cent on."""
    best = results.tuned(by)
    some = results.select(name=[found.runs[0].name for found in best.values()])
    some = some.with_column("test_error", lambda c: 100 * (1 - c["test_accuracy"]))
    figure, (left, middle, right) = panels(1, 3)
    for ax, column, text in ((left, "train_loss", "training loss"), (middle, "test_error", "test error [%]")):
        late = np.concatenate([run.columns[column][1:] for run in some if not run.diverged])
        curves(ax, some, column, label=lambda name: name.rsplit(": ", 1)[0], legend=False)
        ax.set_ylim(np.nanmin(late) / 1.1, np.nanmax(late) * 1.1)       # without the untrained network
        axes(ax, "epoch", column, None, text, False, True)
        ax.set_xlim(left=0)
    with style():
        for i, found in enumerate(best.values()):
            values = sorted(found.scores)
            right.plot(values, [100 * found.scores[v] for v in values], marker="o", ms=4, **look(i))
            right.plot([found.value], [100 * found.scores[found.value]], "o", ms=12, mfc="none", color=look(i)["color"])
        right.set(xscale="log", xlabel="learning rate", ylabel=f"{by.split('_')[0]} accuracy [%]")
        if floor is not None:
            top = 100 * max(np.nanmax(list(found.scores.values())) for found in best.values())
            right.set_ylim(floor, top + 0.05 * (top - floor))
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=min(6, len(best)),
                      title=f"at the best rate; {said(len(results.seeds))}")
    return figure


def range_test(found):
    """A figure of a RangeTest: loss against rate, with both suggestions."""
    figure, ax = panels()
    ax.plot(found.rates, found.losses, color="#bbbbbb", lw=1, label="loss of a batch")
    ax.plot(found.rates, found.smooth, label=f"smoothed ({found.fade:g})")
    for rate, name, dash in ((found.steepest, "falls fastest", ":"), (found.highest, "turns up", "--")):
        ax.axvline(rate, color="#666666", lw=1.2, ls=dash, label=f"{name}: {rate:.2g}")
    finite = found.smooth[np.isfinite(found.smooth)]
    ax.set_ylim(min(finite) - 0.05 * abs(min(finite)), 1.5 * finite[0])
    ax.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    ax.legend()
    return figure


def heat(ax, table, rows, columns, ylabel, xlabel, colour, log=False, digits="{:.3g}", limits=None):
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
            ax.text(j, i, digits.format(value) if np.isfinite(value) else "diverged", ha="center", va="center",
                    fontsize=11, color="white" if dark else "black")
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
        ax.set_xscale("log")
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


def save(figure, path):
    """Write a Figure (PNG, 256 colours: a third of the bytes) or an animation (GIF), whole or not at all."""
    with style():
        if hasattr(figure, "savefig"):
            picture = drawn(figure)
            plt.close(figure)
            picture = paletted(picture, palette(picture, 256))
            checkpoint.replace(path, lambda file: picture.save(file, format="png", optimize=True))
        else:
            first, *rest = animate(figure)
            moving = {"save_all": True, "append_images": rest, "duration": 80, "loop": 0, "optimize": True}
            checkpoint.replace(path, lambda file: first.save(file, format="gif", **moving))


LINES = [ImageColor.getrgb(colour) for colour in ("white", *COLOURS)]


def palette(picture, count):
    """An image that holds `count` colours for a picture: first those of the lines, whose few pixels would lose them to
    the many greys of a map; then its commonest, because a small grey area would be mixed with a line's edge."""
    pixels = picture.width * picture.height
    areas = [colour for n, colour in sorted(picture.getcolors(pixels), reverse=True)
             if n > 5e-4 * pixels and colour not in LINES][: count // 2 - len(LINES)]
    kept = [channel for colour in (*LINES, *areas) for channel in colour]
    others = picture.quantize(count - len(kept) // 3, dither=Image.Dither.NONE).getpalette()
    found = Image.new("P", (1, 1))
    found.putpalette((kept + others + kept[:3] * count)[: 3 * count])
    return found


def paletted(picture, colours):
    """The picture in the colours of a palette; what is near the colour of a line has that (near white are greys)."""
    pixels, places = np.asarray(picture).astype(int), np.array(picture.quantize(palette=colours, dither=0))
    for i, colour in enumerate(LINES[1:], 1):
        places[np.abs(pixels - colour).max(2) <= 16] = i
    known, first = np.unique(np.reshape(colours.getpalette(), (-1, 3)) @ (1 << 16, 1 << 8, 1), return_index=True)
    wanted = pixels @ (1 << 16, 1 << 8, 1)                      # Pillow takes a near colour for one that is there
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    places = np.where(known[at] == wanted, first[at], places).astype(np.uint8)
    out = Image.fromarray(places, "P")
    out.putpalette(colours.getpalette())
    return out


def drawn(figure, **how):
    """The figure as an RGB picture; it is not closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", **how)
    return Image.open(buffer).convert("RGB")


def step(animation, data):
    """Draw the next frame of a matplotlib animation into its figure, and return that."""
    animation._draw_next_frame(data, blit=False)
    return animation._fig


def animate(animation):
    """The frames of a matplotlib animation, or of an iterable of figures, as images in the colours of the last one: so
    what does not move is the same in all frames, and a GIF stores it once."""
    figures = animation
    if hasattr(animation, "new_frame_seq"):
        animation._init_draw()
        figures = (step(animation, data) for data in animation.new_frame_seq())
    frames = []
    for figure in figures:
        frames.append(drawn(figure, dpi=80))
        if not hasattr(animation, "new_frame_seq"):
            plt.close(figure)
    with contextlib.suppress(AttributeError):
        plt.close(animation._fig)
    if not frames:
        raise ValueError("an animation needs at least one frame")
    colours = palette(frames[-1], 64)
    return [paletted(frame, colours) for frame in frames]
