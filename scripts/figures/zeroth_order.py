"""Figures of zeroth_order: what the runs took beside theory, by step, radius, directions and rows."""

from lab import Album
from lab.figures import MARKERS, curves, each, look, ranged
from lab.ridge import KAPPA, NAMES, counts, theory

import numpy as np

album = Album()
TARGETS = (1e-2, 1e-4, 1e-6, 1e-8)  # f - f*, in parts of that at the start
SHARES = (1, 4, 16)  # part d: directions of a step
SLOW = 0.1  # part d: the step, in parts of that of one direction


@album.figure(
    "values.png",
    caption=f"f - f* in parts of the first against values of the whole f, L/mu = {KAPPA}, each method at the step of "
    "theory; dashed: the mean that second moments give.",
)
def values_figure(results):
    some = results.select("a", c=1.0).with_column("relative", lambda c: np.maximum(c["relative"], 1e-9))
    sets = dict(some.groups("data"))
    more = dict(logy=True, legend=False, xlabel="values of the whole f", ylabel="(f - f*) / first")

    def draw(ax, data):
        t = theory(data)
        for i, (kind, runs) in enumerate(sets[data].groups("method")):
            runs = runs.with_column("whole", lambda c: c["values"] / t.n)
            curves(ax, runs, "relative", "whole", label=lambda tags: NAMES[tags["method"]], first=i, **more)
            steps = t.steps(kind, t.step(kind), TARGETS)[-1]
            ax.plot(t.cost(kind) * np.arange(steps + 1), t.path(kind, steps), color=look(i)["color"], ls="--", lw=1)
        ax.set_ylim(3e-8, 2)

    return each(list(sets), draw, titles=lambda data: f"{data}, d = {theory(data).d}")


@album.figure(
    "radius.png",
    caption="Floors of f - f*, started at the minimum, against the radius: forward (filled) and central (open) "
    "differences; dotted: forward floors by theory, rounding and curvature.",
)
def radius_figure(results):
    sets = dict(results.select("b").groups("data"))

    def draw(ax, data):
        for i, ((kind, difference), runs) in enumerate(sets[data].groups("method", "difference")):
            (radii, levels), shown = runs.levels("gap", "radius"), look(list(NAMES).index(kind))["color"]
            seen = (levels > 0).all(0)
            middle, label = np.exp(np.log(levels[:, seen]).mean(0)), f"{NAMES[kind]}, {difference}"
            style = dict(ls="-", mfc=shown) if difference == "forward" else dict(ls="--", mfc="white")
            ax.plot(radii[seen], middle, color=shown, marker=MARKERS[i // 2], ms=5, lw=1.3, label=label, **style)
            if difference == "forward":
                wanted = [theory(data).floor(kind, r) + theory(data).rounding(kind, r) for r in radii]
                ax.plot(radii, wanted, color=shown, lw=1.1, ls=":")
        ax.set(xscale="log", yscale="log", xlabel="radius", ylabel="floor of f - f*")

    return each(list(sets), draw)


@album.figure(
    "directions.png",
    caption="Sphere, q directions: function values to 1e-6 at one common step and at each one's own, means over seeds "
    "with their range; dashed: second moments.",
)
def directions_figure(results):
    sets = dict(results.select("c").groups("data"))

    def draw(ax, data):
        for i, (rule, runs) in enumerate(sets[data].groups("rule")):
            qs, t = runs.values("q"), theory(data)
            found = np.array([counts(runs.select(q=q), 1e-6) for q in qs])
            ranged(ax, qs, found, i, np.mean, label=rule)
            rates = [t.step("sphere", q if rule == "own step" else 1) for q in qs]
            wanted = [t.steps("sphere", lr, TARGETS, q)[2] * (q + 1) for lr, q in zip(rates, qs, strict=True)]
            ax.plot(qs, wanted, color=look(i)["color"], ls="--", lw=1)
        ax.set(xscale="log", yscale="log", xlabel="directions q", ylabel="values of the whole f to 1e-6")

    return each(list(sets), draw)


@album.figure(
    "rows.png",
    caption="16 values of rows a side, B rows times q directions, at one step: f - f* against values of rows; dotted: "
    "levels by theory.",
)
def rows_figure(results):
    sets = dict(results.select("d").groups("data"))
    more = dict(logy=True, legend=False, ylabel="f - f*", label=lambda t: f"B = {t['rows']}, q = {t['q']}")
    more |= dict(colours=lambda t: SHARES.index(t["q"]))

    def draw(ax, data):
        t = theory(data)
        curves(ax, sets[data], "gap", "values", **more)
        for (q, rows), _ in sets[data].groups("q", "rows"):
            level = t.row_floor(SLOW * t.step("sphere"), q, rows)
            ax.axhline(level, color=look(SHARES.index(q))["color"], lw=0.9, ls=":")

    return each(list(sets), draw, legend=4)
