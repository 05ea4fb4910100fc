"""Figures of variance_reduction, with what its claims look at, too: the sets, SGD's floors, the theorem's stages."""

import dataclasses

from lab import Album, Results
from lab.figures import MARKERS, curves, each, fitted, halved, look, panels, ranged, reference, sweep
from problems.convex import linear

import numpy as np

album = Album()
STEPS = ("1/(3L)", "0.1/L")
STAGES = (5, 12.5, 25, 50, 100)  # part t: m / kappa
PASSES = "passes [rows differentiated / n]"


def sets(results, part):
    """[(name of the set, its runs)]"""
    return results.select(part, step=STEPS).groups("data")


def of(runs, method, step=STEPS[0]):
    return runs.select(method=method, step=step).in_passes()


def floor_lines(runs):
    """(steps in units of 1/(3L), floors: (seeds, steps)): mean gap over the last two thirds of each run."""
    levels = {1 / k: some.late("gap", 2 / 3) for k, some in runs.groups("divisor")}
    return np.array(list(levels)), np.array(list(levels.values())).T


def condition(data):
    """L_max / mu."""
    problem = linear(data)
    return problem.row_smoothness().max() / problem.strong_convexity()


def stages(results):
    """{set: (m/kappa, bounds, measured: (seeds, stages))}: the mean gap over the first m steps, of that at the start,
    which is E f(w~) - f* of option II."""
    found = {}
    for data, runs in results.select("t").groups("data"):
        kappa, (steps, gaps) = condition(data), runs.stack("gap", "step")
        known = np.array([k for k in STAGES if k * kappa <= steps[-1] + kappa / 100 + 1])
        mean = np.array([gaps[:, steps <= k * kappa * 1.0001].mean(1) / gaps[:, 0] for k in known]).T
        found[data] = known, 12.5 / known + 0.25, mean
    return found


def grid_of(results, part, column, ylabel, lowest):
    groups = dict(sets(results, part))

    def draw(ax, name):
        some = groups[name].select(step=STEPS[0]).in_passes()
        some = some.with_column(column, lambda c: np.where(c[column] > lowest, c[column], np.nan))  # rounding
        curves(ax, some, column, "passes", logy=True, ylabel=ylabel, xlabel=PASSES, legend=False)

    return each(list(groups), draw, legend=4)


for part, model in (("a", "Linear regression"), ("b", "Logistic regression")):

    @album.figure(
        f"gaps_{part}.png",
        caption=f"{model}: f - f* at the step 1/(3 L_max), l2 = L/n. Below 1e-16 the gap is rounding, and left out.",
    )
    def gaps(results, part=part):
        return grid_of(results, part, "gap", "f(w) - f*", 1e-16)

    @album.figure(
        f"variances_{part}.png",
        caption=f"{model}: exact variance of the gradient estimate of one row, every quarter epoch, at the step 1/(3 "
        "L_max). SVRG's is 0 at each snapshot, between the marks.",
    )
    def variance_figure(results, part=part):
        return grid_of(results, part, "variance", "E|g - grad f|²", 1e-28)


@album.figure(
    "floors.png",
    caption="SGD with a constant step, started at the minimum: the mean gap of the last two thirds of the run against "
    "the step, with least-squares lines.",
)
def floor_figure(results):
    figure, ax = panels()
    for i, (name, runs) in enumerate(results.select(divisor=lambda k: k >= 1).groups("data")):
        steps, levels = floor_lines(runs)
        fitted(ax, steps, levels.mean(0), i, name, MARKERS[i])
    halved(ax, steps, "step, in units of 1/(3 L_max)", "E f(w) - f*")
    ax.legend()
    return figure


@album.figure(
    "accuracy.png",
    caption="Logistic regression: test accuracy by passes, mean with its 95 % interval over seeds. Solid: at the step "
    "1/(3L); dashed: at 0.1/L. The axis does not begin at 0.",
)
def accuracy_figure(results):
    groups = dict(sets(results, "b"))

    def draw(ax, name):
        for i, method in enumerate(("SGD", "SVRG", "SAGA")):
            for step, dash in zip(STEPS, ("-", "--"), strict=True):
                t, values = of(groups[name], method, step).stack("test_accuracy", "passes")
                t, values = t[4::4], 100 * values[:, 4::4]
                half = 2.26 * np.nanstd(values, 0, ddof=1) / np.sqrt(len(values)) if len(values) > 2 else 0
                colour = look(i)["color"]
                mean = np.nanmean(values, 0)
                ax.plot(t, mean, dash, color=colour, lw=1.5, label=f"{method}, {step}")
                ax.fill_between(t, mean - half, mean + half, color=colour, alpha=0.18, lw=0)
        ax.set(xlabel=PASSES, ylabel="test accuracy [%]")

    return each(list(groups), draw, legend=3)


@album.figure(
    "strength.png",
    caption="Logistic regression at 1/(3L): f - f* after the same passes against l2 n, from the lowest to the highest "
    "seed. Below 1e-16 it is rounding.",
)
def strength_figure(results):
    clipped = (dataclasses.replace(run, final={"gap": max(run.final["gap"], 1e-17)}) for run in results.select("h"))
    groups = dict(Results(clipped).groups("data"))

    def draw(ax, data):
        for i, (method, runs) in enumerate(groups[data].groups("method")):
            sweep(ax, runs, "l2n", "gap", method, xlabel="l2 n", ylabel="f(w) - f*", logy=True, index=i)
        ax.get_legend().remove()

    return each(list(groups), draw, legend=3)


@album.figure(
    "theorem.png",
    caption="One stage of SVRG at 0.1/L: E f(w~) - f* after m steps, of that at the start, from the lowest to the "
    "highest seed, and what Johnson & Zhang's theorem promises (dashed).",
)
def theorem_figure(results):
    figure, ax = panels()
    for i, (data, (known, _, mean)) in enumerate(stages(results).items()):
        middle = ranged(ax, known, mean.T, i, capsize=0, label=data)
    ax.plot(known, 12.5 / known + 0.25, "--", color="#555555", label="promised: 12.5 kappa/m + 0.25")
    reference(ax, (known[1], known[-1]), middle[-1] / 2, -1)
    ax.set(xscale="log", yscale="log", xlabel="m / kappa", ylabel="E f(w~) - f*, of the start's")
    ax.set_xticks(known, [f"{k:g}" for k in known])
    ax.minorticks_off()
    ax.legend()
    return figure
