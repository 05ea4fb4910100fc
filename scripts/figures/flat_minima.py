"""Figures of flat_minima: where walks end, when they leave, against theory."""

from lab import Album
from lab.escapes import ALMOST_SURE, EDGE, KINDS, MEAN_SQUARE, climbs, drift, exits, shape_of, walk
from lab.figures import look, panels
from lab.surfaces import map_of, moving
from npopt import RandomReshuffling, WithReplacement
from problems.landscapes import Landscape
from problems.wells import two_basins, uneven

import numpy as np

album = Album()
METHODS = {"GD": RandomReshuffling(None), "SGD": WithReplacement(1)}
KICK = dict(lr=0.005, steps=500)  # part a
LIMIT = 2000  # part b
BOTH = (("GD", 0.7, 0), ("SGD", 0.54, 0), ("SGD", 0.6, 0), ("SGD", 0.7, 0))  # part t


def land(problem, title, window, start):
    """A problem of this room as a Landscape. Several panels show one map: f is taken once at the same places."""
    known = {}

    def f(x, y):
        places = x.tobytes(), y.tobytes()
        if places not in known:
            known[places] = problem.f(x, y)
        return known[places]

    return Landscape(title, "", f, None, tuple(map(tuple, problem.minima)), 0.0, window, start)


BASINS = (-2.2, 2.0, -2.2, 2.0)
ROWS = (-1.0, 2.0, -0.9, 1.9)
START = (1.008, 1.005)


@album.figure(
    "basins.png",
    caption="Zhu et al.'s function: a sharp basin at (1, 1), a flat one at (-1, -1). Where 200 walks of 500 steps from "
    "(1, 1) end, with kicks of the same trace a step and five shapes; in the corner the shape at the start.",
)
def basins(results):
    figure, axes = panels(2, 3, size=(12, 7.5))
    problem = two_basins()
    drawn = land(problem, "", BASINS, (1.0, 1.0))
    for i, (ax, kind) in enumerate(zip(axes.flat, KINDS, strict=False)):
        map_of(ax, drawn)
        columns = results.select("a", method=kind)[0].columns
        gone = np.isfinite(columns["left"])
        for which, colour in ((~gone, look(0)["color"]), (gone, look(1)["color"])):
            ax.plot(columns["x"][which], columns["y"][which], "o", ms=3.5, color=colour, alpha=0.7, zorder=6)
        ellipse(ax, problem, kind)
        ax.set_title(f"{kind}: {gone.mean():.0%} out")
        ax.set_xlabel("w₁" if i > 1 else "")
        ax.set_ylabel("w₂" if i % 3 == 0 else "")
    laws(axes.flat[-1], results)
    return figure


def ellipse(ax, problem, kind):
    """Two standard deviations of a kick at the start."""
    angle = np.linspace(0, 2 * np.pi, 60)
    values, vectors = np.linalg.eigh(0.01 * shape_of(problem, np.ones(2), kind))
    ring = vectors @ (2 * np.sqrt(np.maximum(values, 0))[:, None] * np.stack([np.cos(angle), np.sin(angle)]))
    ax.plot(1.55 + ring[0], -1.6 + ring[1], color="black", lw=1.4, zorder=6)


def laws(ax, results):
    """Shares by steps against the chain's."""
    for i, kind in enumerate(kind for kind in KINDS if kind != "diagonal"):
        steps, share = share_of(results.select("a", method=kind)[0], KICK["steps"])
        ax.step(steps, share, where="post", label=kind, color=look(i)["color"])
        ax.plot(climbs(kind, total=0.01, **KICK), ls=":", lw=1.2, color="#333333", zorder=5)
    ax.set(xlabel="step", title="share half way down (dotted: chain)", ylim=(0, None), xlim=(0, KICK["steps"]))
    ax.legend(fontsize=9, loc="upper left")


def share_of(run, limit):
    """(steps, share of the walks that left until then)."""
    at = np.sort(run.columns["left"][np.isfinite(run.columns["left"])])
    total = len(run.columns["left"])
    return np.concatenate([[0], at, [limit]]), np.concatenate([[0], np.arange(1, len(at) + 1), [len(at)]]) / total


@album.figure(
    "escapes.png",
    caption="Wu, Ma & E's two rows, 200 walks of SGD with batches of one from 1 + 1e-5. Left: the share past the ridge "
    "by steps, against the exact law (dotted). Middle: after 2,000 steps by rate, with both thresholds. Right: mean "
    "number of steps against log(ridge / start) / E log|factor|.",
)
def escape_figure(results):
    figure, (left, middle, right) = panels(1, 3, size=(13, 4.8))
    groups = [(lr, runs[0]) for lr, runs in results.select("b", method="SGD", first=1e-5).groups("lr")]
    seen = [(lr, run) for lr, run in groups if np.isfinite(run.columns["left"]).any()]
    for i, (lr, run) in enumerate(seen):
        left.step(*share_of(run, LIMIT), where="post", label=f"rate {lr:g}", color=look(i)["color"])
        left.plot(exits((lr,), 1e-5, LIMIT)[0], ls=":", lw=1.2, color="#333333", zorder=5)
    left.set(xscale="log", xlim=(3, LIMIT), xlabel="step", ylabel="share past the ridge", ylim=(0, 1.02))
    left.legend(fontsize=9)
    rates = np.linspace(0.5, 0.62, 61)
    for i, first in enumerate((1e-5, 0.1)):
        found = sorted((lr, runs[0]) for lr, runs in results.select("b", method="SGD", first=first).groups("lr"))
        shares = [np.isfinite(run.columns["left"]).mean() for _, run in found]
        middle.plot(rates, exits(tuple(rates.tolist()), first, LIMIT)[:, -1], color=look(i)["color"], lw=1.2, ls=":")
        label = f"from 1 + {first:g}"
        middle.plot([lr for lr, _ in found], shares, "os"[i], color=look(i)["color"], ms=7, label=label)
    thresholds(middle)
    middle.set(xlim=(0.495, 0.625), xlabel="rate", ylabel=f"share after {LIMIT} steps (dotted: law)")
    middle.legend(fontsize=9, loc="center left")
    rates = np.linspace(0.562, 0.72, 80)
    right.plot(rates, np.log(EDGE / 1e-5) / drift(rates), color="#333333", ls=":", label="theory")
    for i, method in enumerate(("SGD", "SGD, reshuffled")):
        groups = results.select("b", method=method, first=1e-5).groups("lr")
        points = [(lr, runs[0].columns["left"].mean()) for lr, runs in groups]
        points = [p for p in points if np.isfinite(p[1])]
        if points:
            right.plot(*zip(*points, strict=True), "os"[i], color=look(i)["color"], label=method, ms=7 - i)
    right.set(yscale="log", xlabel="rate", ylabel="mean steps to the ridge")
    right.legend(fontsize=9)
    return figure


def thresholds(ax):
    for at, name, side in ((MEAN_SQUARE, "mean square", "right"), (ALMOST_SURE, "almost surely", "left")):
        ax.axvline(at, color="#888888", lw=1)
        ax.annotate(name, (at, 0.5), (-3 if side == "right" else 3, 0), ("data", "axes fraction"), "offset points",
                    rotation=90, ha=side, va="center", fontsize=9, color="#666666")  # fmt: skip


@album.figure(
    "rates.png",
    caption="The same function in the plane, from beside the minimum whose rows disagree: gradient descent and SGD at "
    "six rates. Gradient descent leaves beyond 2/2 = 1, SGD beyond 0.56. Below: the distance to that minimum.",
)
def rates_figure(results):
    rates = (0.3, 0.5, 0.56, 0.6, 0.7, 1.05)
    figure, axes = panels(2, 6, size=(13, 5.6), height_ratios=(1.25, 1))
    drawn = land(uneven(), "", ROWS, START)
    for i, lr in enumerate(rates):
        top, bottom = axes[:, i]
        map_of(top, drawn)
        top.set(title=f"rate {lr:g}", xlabel="w₁", ylabel="w₂" if not i else "")
        for j, (method, sampler) in enumerate(METHODS.items()):
            if method == "SGD" and lr > 1:  # no minimum holds it
                continue
            problem = uneven()
            problem.start = np.array(START)
            way = walk(problem, lr, 120, 3, sampler=sampler)
            top.plot(*way.T, "-", color=look(j)["color"], lw=1, marker=".", ms=4, zorder=5 + j)
            apart = np.maximum(np.linalg.norm(way - 1, axis=1), 1e-12)
            bottom.plot(apart, color=look(j)["color"], label=method)
        bottom.set(yscale="log", xlabel="step", ylim=(1e-6, 5), ylabel="distance to (1, 1)" if not i else "")
    axes[1, 0].legend(fontsize=9)
    for ax in axes[:, 1:].flat:
        ax.set_yticklabels([])
    return figure


@album.figure(
    "escape.gif",
    caption="Started beside (1, 1), whose rows have curvatures 0.2 and 3.8: gradient descent falls into it at rate "
    "0.7, SGD at 0.54; SGD at 0.6 and 0.7 goes away, over the ridge, to (0, 0), where rows agree.",
)
def escape_animation(results, args):
    runs = {f"{m} {lr:g}": results.select("t", method=m, lr=lr)[0] for m, lr, _ in BOTH}
    for run in runs.values():
        run.columns["gap"] = run.columns["f"]
    drawn = land(uneven(), "mean of the two rows", ROWS, START)
    frames = range(0, len(next(iter(runs.values())).columns["f"]), args.pick(1, 40))
    return moving(lambda ax: map_of(ax, drawn), runs, frames)
