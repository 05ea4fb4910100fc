"""Functions of two variables as maps and reliefs, and the paths of methods on them, still and moving."""

from lab.figures import COLOURS, MARKERS, below, plt

import numpy as np


def way_of(run):
    """(steps + 1, 2): where a run has been, from its columns x and y."""
    return np.stack([run.columns["x"], run.columns["y"]], 1)


def height(land, x, y):
    """What maps and reliefs show: log(1 + f - f*), or f itself where it has no least value."""
    with np.errstate(all="ignore"):
        f = land.f(x, y) - land.value
        return np.log1p(np.maximum(f, 0)) if land.minima else f


def map_of(ax, land, start=None):
    """A map of a Landscape: its height in twelve greys, its minima, the start."""
    x, y = np.meshgrid(np.linspace(*land.window[:2], 200), np.linspace(*land.window[2:], 200))
    ax.contourf(x, y, height(land, x, y), 12, colors=[str(0.97 - 0.35 * k / 12) for k in range(13)])
    for i, (a, b) in enumerate(land.minima):
        ax.plot(a, b, "*", color="black", ms=13, label="minimum" if not i else None, zorder=5)
    ax.plot(*(start or land.start), "X", color="black", ms=9, label="start", zorder=5)
    ax.set(xlim=land.window[:2], ylim=land.window[2:], xlabel="x", ylabel="y", title=land.title)
    ax.grid(False)


def relief(ax, land, elevation=48, azimuth=-35):
    """The same as a relief."""
    x, y = np.meshgrid(np.linspace(*land.window[:2], 60), np.linspace(*land.window[2:], 60))
    ax.plot_surface(
        x,
        y,
        height(land, x, y),
        color="#DDDDDD",
        rstride=1,
        cstride=1,
        lw=0.15,
        edgecolor="#AAAAAA",
        alpha=0.75,
        zorder=1,
    )
    ax.set(xlabel="x", ylabel="y", zlabel="log(1 + f - f*)" if land.minima else "f", title=land.title)
    ax.locator_params(nbins=5)
    ax.view_init(elev=elevation, azim=azimuth)


def on_relief(land, way):
    """The points of a way on the relief, NaN from where it leaves the window: (3, steps)."""
    x, y = way.T
    low_x, high_x, low_y, high_y = land.window
    inside = (low_x <= x) & (x <= high_x) & (low_y <= y) & (y <= high_y)
    return np.where(inside, [x, y, height(land, x, y)], np.nan)


def moving(draw, runs, frames, column="gap", place=None, every=1, **subplot):
    """Frames of {method: run}: the paths on the map that draw(ax) makes, and a column against the step; lines grow.

    column   "gap", on a logarithmic axis, or another, on a linear one whose span is that of draw(ax), if it gives one
    every    steps between two rows of the runs
    place    function of a way -> (2, steps), or, on a relief, (3, steps); subplot: of the map
    """
    place = place or (lambda way: way.T)
    figure = plt.figure(figsize=(12, 6.4), layout="constrained")
    room = figure.add_gridspec(1, 2, width_ratios=(1.9, 1))
    left, right = figure.add_subplot(room[0], **subplot), figure.add_subplot(room[1])
    span = draw(left)
    lines, values = [], {m: np.asarray(run.columns[column], float) for m, run in runs.items()}
    if column == "gap":
        low = max(1e-12, min(np.min(g[g > 0]) for g in values.values()))
        values = {m: np.where(g < low, np.nan, g) for m, g in values.items()}
        span = low / 2, 2 * max(np.nanmax(np.where(np.isfinite(g), g, np.nan)) for g in values.values())
        right.set_yscale("log")
    for i, (m, run) in enumerate(runs.items()):
        points = place(way_of(run))
        nothing, style = [[]] * len(points), {"color": COLOURS[i], "lw": 2, "zorder": 5}
        way, curve = left.plot(*nothing, **style)[0], right.plot([], [], **style)[0]
        head = left.plot(*nothing, MARKERS[i], color=COLOURS[i], ms=9, mec="white", label=m, zorder=6)[0]
        lines.append((points, values[m], way, head, curve))
    steps = max(map(len, values.values())) - 1
    right.set(xlim=(0, every * steps), ylim=span, xlabel="step", ylabel={"gap": "f - f*"}.get(column, column))
    below(figure, left, 7, fontsize=11)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the first frame's layout stays
    for t in frames:
        for points, value, way, head, curve in lines:
            for line, some in ((way, points[:, : t + 1]), (head, points[:, t : t + 1])):
                (line.set_data if len(points) == 2 else line.set_data_3d)(*some)
            curve.set_data(every * np.arange(len(value))[: t + 1], value[: t + 1])
        right.set_title(f"step {every * t}")
        yield figure
