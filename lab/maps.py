"""Loss surfaces as maps with labelled levels, several on one scale of colours, and as reliefs that a reader turns."""

from lab.turn import Surface

import numpy as np
from matplotlib import colors

LEVELS = np.array([m * 10.0**k for k in range(-5, 7) for m in (1, 2, 5)])


def scale_of(surfaces, least=None, most=None):
    """The logarithmic scale of colours that several LossSurfaces share. Losses outside of [least, most] have its
    ends' colours."""
    every = np.concatenate([s.loss[np.isfinite(s.loss) & (s.loss > 0)] for s in surfaces])
    low, high = max(every.min(), least or 0), min(every.max(), most or np.inf)
    return colors.LogNorm(low, max(high, 1.001 * low))


def levels_of(norm, most=9):
    """At most so many levels of LEVELS on a scale, evenly thinned out."""
    inside = LEVELS[(LEVELS > norm.vmin) & (LEVELS < norm.vmax)]
    if len(inside) < 4:
        inside = np.geomspace(norm.vmin, norm.vmax, 7)[1:-1]
    return inside[:: -(-len(inside) // most)]


def said(value):
    """A level in print."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def clipped(surface, norm):
    """Losses within the scale; what is not finite is at its top. (m, n): rows belong to b."""
    loss = np.where(np.isfinite(surface.loss), surface.loss, norm.vmax)
    return np.clip(loss, norm.vmin, norm.vmax).T


def contours(ax, surface, norm, labels=("a", "b"), middle=True, grey=False):
    """A map of a LossSurface with labelled levels, and a cross at the origin if `middle`; in twelve greys for coloured
    paths that move. Returns what `bar` needs."""
    z, levels = clipped(surface, norm), levels_of(norm)
    if grey:
        shades = [str(0.62 + 0.36 * k / 12) for k in range(13)]
        steps = np.geomspace(norm.vmin, norm.vmax * 1.0001, 14)
        picture = ax.contourf(surface.a, surface.b, z, levels=steps, colors=shades)
    else:
        picture = ax.pcolormesh(surface.a, surface.b, z, norm=norm, cmap="cividis", shading="gouraud", rasterized=True)
    shown = [v for v in levels if z.min() < v < z.max()]
    if shown:
        ink = "#555555" if grey else "white"
        lines = ax.contour(surface.a, surface.b, z, levels=shown, colors=ink, linewidths=0.9)
        ax.clabel(lines, fmt=said, fontsize=9)
    if middle:
        ax.plot(0, 0, "+", color="#D55E00", ms=11, mew=2.2)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.grid(False)
    return picture


def bar(figure, picture, axes, label="training loss", **more):
    """The bar of colours that these axes share."""
    found = figure.colorbar(picture, ax=axes, label=label, **more)
    ticks = levels_of(picture.norm, 7)
    found.set_ticks(ticks, labels=[said(v) for v in ticks])
    found.ax.minorticks_off()


def turning(surface, title, paths=None, most=np.inf):
    """A LossSurface as lab.turn has it: a relief whose height is the logarithm. Losses above `most` are cut."""
    loss = np.where(np.isfinite(surface.loss), np.minimum(surface.loss, most), np.nan).T
    return Surface(surface.a, surface.b, loss, ("a", "b", "training loss"), title, paths or {}, log=True)
