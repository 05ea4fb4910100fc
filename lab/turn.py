"""Functions of two variables that a reader turns with the mouse: a figure in report.html, and its picture elsewhere.

    @album.figure("bowl.png", caption="...")
    def bowl(results):
        x = y = np.linspace(-1, 1, 51)
        z = x**2 + 4 * y[:, None] ** 2                              # (51, 51): rows belong to y
        return Surface(x, y, z, ("w1", "w2", "loss"), paths={"SGD": way_of(results[0])})

A list of Surfaces is a figure of several panels, on one scale and turned together. The lab draws the picture. A page
with JavaScript shows templates/turn.js in its place: a canvas, without a library and without the network. The values
are in the page as 16-bit numbers: 51 x 51 of them are 7 kB.
"""

import base64
import dataclasses
import math

from lab.figures import COLOURS, STYLE, below, plt
from npopt.errors import UserError

import numpy as np
import scipy
from matplotlib import colors, patheffects, ticker

MOST = 40_000  # values of all panels, so that a page turns smoothly
HOLE = 2**16 - 1  # the code of a value that is not there
TALL = 0.62  # height of the box; its longer side is 1
SQUAT = 0.5  # the shorter side at least
HALO = [patheffects.withStroke(linewidth=4.5, foreground="white")]


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """z over a window of the plane.

    x, y     (columns,) and (rows,), in equal steps
    z        (rows, columns). NaN and infinities are holes, as where a run diverged
    labels   of x, y and z; those of z are the same in all panels of a figure
    title    of the panel
    paths    name -> (points, 2): lines on the surface, with their names at their ends; one point is a mark. They are
             cut at the window and at holes. A name has one colour in all panels
    log      whether colours and heights follow the logarithm; then values <= 0 are holes, too
    view     azimuth and elevation of the eye at the beginning, in degrees; 0 to 90 of elevation
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    labels: tuple = ("x", "y", "f")
    title: str = ""
    paths: dict = dataclasses.field(default_factory=dict)
    log: bool = False
    view: tuple = (-60, 35)

    def __post_init__(self):
        x, y, z = (np.asarray(v, float) for v in (self.x, self.y, self.z))
        for name, v in (("x", x), ("y", y)):
            steps = np.diff(v) if v.ndim == 1 else np.empty(0)
            if not len(steps) or not np.ptp(steps) <= 1e-6 * steps[0]:
                raise UserError(f"Surface: {name} must be one row of numbers that rise in equal steps")
        if z.shape != (len(y), len(x)):
            raise UserError(f"Surface: z must have the shape (len(y), len(x)) = {(len(y), len(x))}, got {z.shape}")
        paths = {name: np.asarray(points, float) for name, points in self.paths.items()}
        for name, points in paths.items():
            if points.ndim != 2 or points.shape[1] != 2:
                raise UserError(f"Surface: the path {name!r} must have the shape (points, 2), got {points.shape}")
        if len(self.labels) != 3:
            raise UserError(f"Surface: labels are three texts, for x, y and z, got {self.labels!r}")
        if not 0 <= self.view[1] <= 90:
            raise UserError(f"Surface: the elevation lies from 0 to 90 degrees, got {self.view[1]}")
        for name, value in (("x", x), ("y", y), ("z", z), ("paths", paths)):
            object.__setattr__(self, name, value)

    @property
    def height(self):
        """What is drawn: z, or log10 z; NaN in holes. (rows, columns)"""
        with np.errstate(all="ignore"):
            found = np.log10(self.z) if self.log else self.z
        return np.where(np.isfinite(found), found, np.nan)

    @property
    def window(self):
        return (self.x[0], self.x[-1]), (self.y[0], self.y[-1])

    @property
    def sides(self):
        """Of the box: as x and y are to each other, but for long windows, which are drawn shorter."""
        a, b = (high - low for low, high in self.window)
        return max(SQUAT, min(1, a / b)), max(SQUAT, min(1, b / a)), TALL

    def inside(self, points):
        """The points, NaN where they lie outside the window."""
        (a, b), (c, d) = self.window
        kept = (a <= points[:, 0]) & (points[:, 0] <= b) & (c <= points[:, 1]) & (points[:, 1] <= d)
        return np.where(kept[:, None], points, np.nan)


def surfaces(shown):
    """The Surfaces that a figure's function returned, as a list; None where it returned something else."""
    found = [shown] if isinstance(shown, Surface) else shown
    if not isinstance(found, list) or not found or not all(isinstance(s, Surface) for s in found):
        return None
    one = found[0]
    if any((s.labels[2], s.log, s.view) != (one.labels[2], one.log, one.view) for s in found):
        raise UserError("Surfaces of one figure need one label of z, one log and one view: they share their scale")
    size = sum(s.z.size for s in found)
    if size > MOST:
        raise UserError(f"Surfaces of one figure have at most {MOST} values together, got {size}")
    return found


def span(some):
    """(low, high) of what is drawn, over all panels."""
    values = np.concatenate([s.height.ravel() for s in some])
    values = values[np.isfinite(values)]
    if not len(values):
        raise UserError("Surface: there is no finite value to draw" + " on a logarithmic scale" * some[0].log)
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def named(some):
    """{name of a path: its colour}"""
    names = dict.fromkeys(name for s in some for name in s.paths)
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


# ------------------------------------------------------------------------------------------------------------ the page
def packed(values, low, high):
    """base64 of 16-bit numbers, the first byte the low one: 0 is low, 65534 is high, 65535 a hole. The values are
    there to (high - low) / 131068."""
    with np.errstate(invalid="ignore"):
        codes = np.rint((np.asarray(values, float) - low) / (high - low) * (HOLE - 1))
    codes = np.where((codes >= 0) & (codes < HOLE), codes, HOLE)
    return base64.b64encode(codes.astype("<u2").tobytes()).decode()


def payload(some):
    """What turn.js gets, as JSON holds it."""
    low, high = span(some)
    colour_of, shades = named(some), plt.get_cmap(STYLE["image.cmap"])(np.linspace(0, 1, 33))
    return {
        "label": some[0].labels[2], "log": some[0].log, "view": list(some[0].view), "range": [low, high],
        "colours": [colors.to_hex(shade) for shade in shades],
        "panels": [
            {
                "title": s.title, "labels": list(s.labels[:2]), "sides": list(s.sides),
                "x": [*s.window[0], len(s.x)], "y": [*s.window[1], len(s.y)], "z": packed(s.height, low, high),
                "paths": [
                    {"name": name, "colour": colour_of[name]}
                    | {axis: packed(v, *w) for axis, v, w in zip("xy", s.inside(points).T, s.window, strict=True)}
                    for name, points in s.paths.items()
                ],
            }
            for s in some
        ],
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the picture
def picture(some):
    """The same as a Figure: one colour bar, every panel from the same side."""
    low, high = span(some)
    n, colour_of = len(some), named(some)
    columns = n if n <= 3 else -(-n // 2)
    rows = -(-n // columns)
    size = (8, 5.6) if n == 1 else (min(13, 5.4 * columns), 4.4 if rows == 1 else 7.5)
    figure = plt.figure(figsize=size, layout="constrained")
    norm, cmap = colors.Normalize(low, high), plt.get_cmap(STYLE["image.cmap"])
    axes = [figure.add_subplot(rows, columns, i + 1, projection="3d", computed_zorder=False) for i in range(n)]
    for ax, surface in zip(axes, some, strict=True):
        panel(ax, surface, norm, cmap, colour_of)
        ax.set_zlim(low, high)
    bar = figure.colorbar(plt.cm.ScalarMappable(norm, cmap), ax=axes, shrink=0.65, aspect=22, label=some[0].labels[2])
    for axis in [bar.ax.yaxis, *(ax.zaxis for ax in axes)]:
        if some[0].log:
            axis.set_ticks(*powers(low, high))
    return below(figure, axes[0], 7) if len(colour_of) > 1 and n == 1 else figure


def powers(low, high, count=5):
    """Ticks of a logarithmic scale from 10^low to 10^high, as relief.js has them: (their exponents, their texts)."""
    if high - low < 0.5:
        values = ticker.MaxNLocator(count).tick_values(10**low, 10**high)
    else:
        most, digits = math.ceil((high - low) / count), (1, 2, 5) if high - low < 3 else (1,)
        exponents = (e for e in range(math.floor(low), math.ceil(high) + 1) if e % most == 0)
        values = [digit * 10.0**e for e in exponents for digit in digits]
    inside = [v for v in values if v > 0 and low - 1e-9 <= math.log10(v) <= high + 1e-9]
    return [math.log10(v) for v in inside], [f"{v:.10g}" for v in inside]


def panel(ax, surface, norm, cmap, colour_of):
    """The surface in its colours, lit from the upper left of the eye, and the paths where they can be seen."""
    azimuth, elevation = surface.view
    x, y = np.meshgrid(surface.x, surface.y)
    faces = cmap(norm(surface.height))
    faces[..., :3] = np.clip(faces[..., :3] * lit(surface, norm)[..., None], 0, 1)
    smooth = dict(rstride=1, cstride=1, lw=0, antialiased=False)
    ax.plot_surface(x, y, surface.height, facecolors=faces, shade=False, zorder=1, **smooth)
    for name, points in surface.paths.items():
        points, seen = on(surface, points, norm)
        line = dict(color=colour_of[name], zorder=3, path_effects=HALO)
        ax.plot(*np.where(seen, points.T, np.nan), lw=2, label=name, **line)
        ends = np.flatnonzero(np.isfinite(points[:, 2]))
        if len(ends):
            start, end = points[ends[0]], points[ends[-1]]
            ax.plot(*start[:, None], "o", ms=5, color="white", mec=colour_of[name], zorder=4)
            ax.plot(*end[:, None], "o", ms=7, color=colour_of[name], mec="white", zorder=4)
            ax.text(*end, f"  {name}", color=colour_of[name], fontsize=11, zorder=5, path_effects=HALO)
    ax.set(xlabel=surface.labels[0], ylabel=surface.labels[1], title=surface.title)
    ax.set_proj_type("ortho")
    ax.set_box_aspect(surface.sides, zoom=1.05)
    ax.view_init(elev=elevation, azim=azimuth)
    ax.locator_params(nbins=5)
    ax.tick_params(labelsize=10)


def lit(surface, norm):
    """Brightness of each value, by the cosine of its normal to the light: as relief.js has it, in the box."""
    azimuth, elevation = np.radians(surface.view)
    toward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([-np.sin(azimuth), np.cos(azimuth), 0])
    light = 0.62 * toward - 0.45 * right + 0.64 * np.cross(toward, right)
    steps = [side / (len(v) - 1) for side, v in zip(surface.sides[1::-1], (surface.y, surface.x), strict=True)]
    by_y, by_x = np.gradient(np.nan_to_num(norm(surface.height)) * TALL, *steps)
    cosine = (light[2] - by_x * light[0] - by_y * light[1]) / np.sqrt(by_x**2 + by_y**2 + 1)
    return 0.69 + 0.39 * np.clip(cosine, 0, 1)


def on(surface, points, norm):
    """((points, 3) on the surface, NaN outside; which of them can be seen). A point is hidden where the surface rises
    above the line from it to the eye."""
    of = scipy.interpolate.RegularGridInterpolator((surface.y, surface.x), surface.height, bounds_error=False)
    found = np.column_stack([points, of(points[:, ::-1])])
    azimuth, elevation = np.radians(surface.view)
    to_eye = np.array([np.cos(azimuth), np.sin(azimuth)]) * np.cos(elevation), np.sin(elevation)
    spans = np.array([high - low for low, high in surface.window]) / surface.sides[:2]
    t = np.linspace(0.01, 1.5, 300)[:, None]
    way = found[:, None, :2] + t * to_eye[0] * spans
    rising = found[:, None, 2] + t[:, 0] * to_eye[1] * (norm.vmax - norm.vmin) / TALL
    return found, ~(of(way[..., ::-1]) > rising).any(1)
