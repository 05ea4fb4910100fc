"""Functions of two variables as maps and reliefs, and the paths of methods on them, still and moving."""

from lab.figures import COLOURS, MARKERS, below, panels

import numpy as np


def way_of(run):
    """(steps + 1, 2): where a run has been, from its columns x and y."""
    return np.stack([run.columns["x"], run.columns["y"]], 1)


def map_of(ax, land):
    """A map of a Landscape: the log of its height above the minimum in twelve greys, its minima, the start."""
    x, y = np.meshgrid(np.linspace(*land.window[:2], 200), np.linspace(*land.window[2:], 200))
    height = np.log1p(land.f(x, y) - land.value)
    ax.contourf(x, y, height, 12, colors=[str(0.97 - 0.35 * k / 12) for k in range(13)])
    for i, (a, b) in enumerate(land.minima):
        ax.plot(a, b, "*", color="black", ms=13, label="minimum" if not i else None, zorder=5)
    ax.plot(*land.start, "X", color="black", ms=9, label="start", zorder=5)
    ax.set(xlim=land.window[:2], ylim=land.window[2:], xlabel="x", ylabel="y", title=land.title)
    ax.grid(False)


def relief(ax, land):
    """The same surface as a relief; heights are log(1 + f - f*)."""
    x, y = np.meshgrid(np.linspace(*land.window[:2], 60), np.linspace(*land.window[2:], 60))
    ax.plot_surface(
        x,
        y,
        np.log1p(land.f(x, y) - land.value),
        color="#DDDDDD",
        rstride=1,
        cstride=1,
        lw=0.15,
        edgecolor="#AAAAAA",
        alpha=0.75,
        zorder=1,
    )
    ax.set(xlabel="x", ylabel="y", title=land.title)
    ax.locator_params(nbins=5)
    ax.view_init(elev=48, azim=-35)


def on_relief(land, way):
    """The points of a way on the relief, NaN outside the window: (3, steps)."""
    x, y = way.T
    low_x, high_x, low_y, high_y = land.window
    inside = (low_x <= x) & (x <= high_x) & (low_y <= y) & (y <= high_y)
    with np.errstate(all="ignore"):
        return np.where(inside, [x, y, np.log1p(np.maximum(land.f(x, y) - land.value, 0))], np.nan)


def moving(draw, runs, frames):
    """Frames of {method: run}: the paths on the map that draw(ax) makes, and f - f* against the step. The lines grow
    from frame to frame."""
    gaps = {m: run.columns["gap"] for m, run in runs.items()}
    low = max(1e-12, min(np.min(g[g > 0]) for g in gaps.values()))
    top = max(np.max(g[np.isfinite(g)]) for g in gaps.values())
    figure, (left, right) = panels(1, 2, size=(11.5, 5))
    draw(left)
    lines = []
    for i, (m, run) in enumerate(runs.items()):
        style = {"color": COLOURS[i], "lw": 1.8}
        way, curve = left.plot([], [], **style)[0], right.plot([], [], **style)[0]
        head = left.plot([], [], MARKERS[i], color=COLOURS[i], ms=9, mec="white", label=m, zorder=6)[0]
        lines.append((way_of(run), np.maximum(gaps[m], low), way, head, curve))
    steps = max(len(gap) for gap in gaps.values()) - 1
    right.set(yscale="log", xlim=(0, steps), ylim=(low / 2, top * 2), xlabel="step", ylabel="f - f*")
    below(figure, left, 7, fontsize=10)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the first frame's layout stays
    for t in frames:
        for points, gap, way, head, curve in lines:
            way.set_data(*points[: t + 1].T)
            head.set_data(*points[t : t + 1].T)
            curve.set_data(np.arange(t + 1), gap[: t + 1])
        right.set_title(f"step {t}")
        yield figure
