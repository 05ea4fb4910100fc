"""Does the order of the rows matter for SGD?   Course tasks A12 and B8; Zhao & Zhang, ICML 2015.

Constant steps, one row a step. With replacement, and with importance sampling, f - f* ends at a floor proportional to
the step; with every row once an epoch, shuffled once or anew, at one proportional to its square, seen at the ends of
epochs (inside an epoch the iterate swings). The square is theory for steps well below 1/(n L): parts a and b have usual
steps, l2 = 1/n, part s has such small ones, with l2 = L_max/10, so that they can be waited for. Floors are measured
from the minimum on, over six times the 1/(step mu n) epochs that a step remembers.
Rows in the order of their class, or of their target, should be worst at usual steps. Importance sampling with p_i
prop. to L_i or |a_i| gains 1 + CV^2 of the row norms in the bound of the variance: nothing on rows of one length, much
on rows that differ; without the weights 1/(n p_i) it goes to another point. Learned probabilities: Yuan et al., 2016.

Run time on 2 cores: --quick about half a minute; --data real --jobs 2 --threads 1 about ten minutes.
"""

from lab import Entry, Experiment, Part, Recipe, listed, lower, on_every, slope, spread
from lab.figures import MARKERS, curves, each, halved, look, panels
from npopt import (
    SGD,
    AdaptiveImportance,
    ByClass,
    Importance,
    Proximal,
    RandomReshuffling,
    ShuffleOnce,
    Stop,
    WithReplacement,
)
from problems.convex import LENGTHS, Binary, lasso, logistic

import numpy as np

experiment = Experiment(
    __doc__,
    task="A12, B8",
    source="Zhao & Zhang, ICML 2015; Mishchenko, Khaled & Richtarik, NeurIPS 2020",
    parts={
        "a": Part("logistic regression: floors, and 20 epochs from 0", "breast_cancer",
                  ("a9a", "phishing", "mushrooms")),
        "b": Part("LASSO: the same, with a proximal step", "diabetes", ("abalone", "housing", "mg", "mpg")),
        "s": Part("logistic regression, steps below 1/(n L): floors", "breast_cancer",
                  ("phishing", "mushrooms", "splice")),
        "i": Part("importance sampling: what it gains, and what the weights are for", "breast_cancer",
                  ("phishing", "splice")),
    },
    seeds=5,
)

HALVINGS = (1, 2, 4, 8, 16)                                     # of the step, in units of 1/L_max
PATHS = (*HALVINGS, 32, 64)                                     # the same, for the runs from 0
SMALL = 8                                                       # part s: the unit of the steps is SMALL/(n L_max)
COMMON = 4                                                      # the step at which all orders are compared
EPOCHS = 20                                                     # from 0


class Unweighted(Importance):
    """Importance sampling with the weights forgotten: what it is not."""

    def epoch(self, e):
        return super().epoch(e)[0], None


ORDERS = {"with replacement": WithReplacement(1), "importance": Importance(1), "shuffle once": ShuffleOnce(1),
          "reshuffling": RandomReshuffling(1), "by class": ByClass(1)}
LABELS = {"by class": "by class, or by target"}


# ---------------------------------------------------------------------------------------------------- own functions
def gains(data, lengths, seed, events):
    """1 + CV^2 of the row norms, and the gains of p_i prop. to |a_i| in E|g|^2 at 0 and in the variance at w*."""
    problem = logistic(data, lengths=lengths)
    plain = Binary(problem.host_X, problem.host_y)              # without l2: its gradient is the same for every row
    norms = np.sqrt(problem.square_norms)
    p, best = np.maximum(norms, 1e-300) / norms.sum(), problem.minimum()[0]
    start = np.zeros(problem.dim)
    mean = plain.exact(start)[1]
    second = [plain.gradient_variance(start, None, q) + mean @ mean for q in (None, p)]
    variance = [plain.gradient_variance(best, None, q) for q in (None, p)]
    return {"predicted": [float(np.mean(norms**2) / np.mean(norms) ** 2)], "at_0": [second[0] / second[1]],
            "at_minimum": [variance[0] / variance[1]]}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    stronger = {"strength": 10} if args.quick else {}           # --quick forgets ten times sooner
    for part, build, more, optimizer in (("a", logistic, stronger, SGD()), ("b", lasso, {}, Proximal(SGD()))):
        for data in args.data_of(part):
            problem = build(data, **more)
            L, epochs = problem.row_smoothness().max(), int(np.ceil(max(20, 6 * problem.memory)))
            for order, sampler in ORDERS.items():
                still = Recipe(build, data=data, at_minimum=True, **more)
                for k in args.pick(HALVINGS, HALVINGS[1:]):
                    yield Entry(part, still, optimizer, sampler, 1 / (k * L), stop=Stop(epochs=epochs * k), metrics=k,
                                data=data, kind="floor", divisor=k, order=order)
                for k in args.pick(PATHS, HALVINGS[1:4]):
                    yield Entry(part, Recipe(build, data=data, **more), optimizer, sampler, 1 / (k * L),
                                stop=Stop(epochs=EPOCHS), data=data, kind="path", divisor=k, order=order)
    for data in args.data_of("s"):
        strength = float(logistic(data, strength=0).row_smoothness().max() * logistic(data).n / 10)
        problem = logistic(data, strength=strength)
        L, still = problem.row_smoothness().max(), Recipe(logistic, data=data, at_minimum=True, strength=strength)
        for order, sampler in ORDERS.items():
            for k in HALVINGS:
                rate = SMALL / (k * problem.n * L)
                epochs = int(np.ceil(max(20, 6 / (rate * problem.strong_convexity() * problem.n))))
                yield Entry("s", still, SGD(), sampler, rate, stop=Stop(epochs=epochs), metrics=max(1, epochs // 40),
                            data=data, kind="floor", divisor=k, order=order)
    for data in args.data_of("i"):
        for lengths in LENGTHS:
            yield Entry("i", run=Recipe(gains, data=data, lengths=lengths), seeds=[0], data=data, lengths=lengths,
                        kind="gain")
            recipe = Recipe(logistic, data=data, lengths=lengths, at_minimum=True, logs=("error",))
            rate = 0.25 / recipe().row_smoothness().max()
            for order, sampler in (("with replacement", WithReplacement(1)), ("importance", Importance(1)),
                                   ("importance by norms", Importance(1, "norms", 0.01)),
                                   ("adaptive", AdaptiveImportance(1)), ("importance, no weights", Unweighted(1))):
                yield Entry("i", recipe, SGD(), sampler, rate, stop=Stop(epochs=args.pick(60, 30)), metrics=1,
                            variance=True, seeds=args.seeds[:3], data=data, lengths=lengths, order=order)


# ----------------------------------------------------------------------------------------------------------- claims
def floors(runs):
    """{order: (steps, gaps)} of a set: the mean gap at the epochs' ends over the second half, for every seed: (seeds,
    steps)."""
    found = {}
    for order, group in runs.select(kind="floor").groups("order"):
        levels = {k: some.late("gap") for k, some in sorted(group.groups("divisor"))}
        found[order] = 1 / np.array(list(levels)), np.array(list(levels.values())).T
    return found


def slopes(runs):
    """{order: the slope of log floor against log step of each seed, over the four smallest steps}"""
    return {order: np.array([slope(steps[-4:], row[-4:]) for row in levels])
            for order, (steps, levels) in floors(runs).items()}


def of_orders(results, part, orders):
    """{set and order: slopes}"""
    return {f"{data} {order}": found for data, runs in results.select(part).groups("data")
            for order, found in slopes(runs).items() if order in orders}


def slope_claim(part, wanted, tolerance, orders):
    def function(results):
        found = of_orders(results, part, orders)
        return (listed({name: spread(v, 3) for name, v in found.items()}),
                all(abs(v.mean() - wanted) <= tolerance for v in found.values()))

    return function


for part, model in (("a", "logistic regression"), ("b", "LASSO"), ("s", "logistic regression, steps below 1/(n L)")):
    experiment.claim(f"{part}-one", f"{model}: with replacement and with importance the floor is proportional to the "
                     "step", expected="slope 1 ± 0.25 over three halvings, mean over seeds")(
        slope_claim(part, 1, 0.25, ("with replacement", "importance")))
    experiment.claim(f"{part}-two", f"{model}: with every row once an epoch the floor falls with the square of the "
                     "step", expected="slope 2 ± 0.4 over three halvings, mean over seeds",
                     source="Mishchenko et al. 2020; Ying et al. 2018")(
        slope_claim(part, 2, 0.4, ("shuffle once", "reshuffling")))


@experiment.claim("s-least", "logistic regression, steps below 1/(n L): with every row once an epoch, by class too, "
                  "the floor falls with the square of the step or faster", expected="slope at least 1.6, over seeds",
                  source="the bounds are upper bounds")
def at_least(results):
    found = of_orders(results, "s", ("shuffle once", "reshuffling", "by class"))
    return listed({k: spread(v, 3) for k, v in found.items()}), all(v.mean() >= 1.6 for v in found.values())


def below(one, two):
    """(text, whether): log levels one above two by more than two deviations."""
    return f"{np.exp(np.mean(one - two)):.3g} times", lower(two, one) is True


for part, model in (("a", "logistic regression"), ("b", "LASSO")):
    @experiment.claim(f"{part}-below", f"{model}: at the smallest step reshuffling has a lower floor than with "
                      "replacement", expected="lower by more than two standard deviations of the log, on every set")
    def lowest(results, part=part):
        def judged(data, runs):
            found = floors(runs)
            return below(*(np.log(found[order][1][:, -1]) for order in ("with replacement", "reshuffling")))
        return on_every(results.select(part).groups("data"), judged)

    @experiment.claim(f"{part}-class", f"{model}: by class (LASSO: by target) has the highest floor of all orders at "
                      f"the step 1/({COMMON} L_max)", expected="above every other, on every set")
    def worst(results, part=part):
        def judged(data, runs):
            levels = {order: runs.select(kind="floor", order=order, divisor=COMMON).late("gap").mean()
                      for order in ORDERS}
            others = max(v for order, v in levels.items() if order != "by class")
            return levels["by class"] / others, levels["by class"] > others
        measured, holds = on_every(results.select(part).groups("data"), judged)
        return measured + " times the next", holds

    @experiment.claim(f"{part}-best", f"{model}: {EPOCHS} epochs from 0, each order at its best step of the grid: "
                      "reshuffling ends lowest, or as low as any", expected="within a factor 1.1 of the best order, on "
                      "every set (geometric means over seeds)")
    def best(results, part=part):
        found, holds = {}, True
        for data, runs in results.select(part).groups("data"):
            levels = at_best(runs)
            found[data] = "; ".join(f"{order} {gap:.2g} at 1/{k}" for order, (gap, k) in levels.items())
            holds &= levels["reshuffling"][0] <= 1.1 * min(gap for gap, _ in levels.values())
        return " | ".join(f"{k}: {v}" for k, v in found.items()), holds


def at_best(runs):
    """{order: (gap after EPOCHS epochs, k)} at the best step of the grid."""
    found = {}
    for order, group in runs.select(kind="path").groups("order"):
        ends = {k: np.exp(np.mean(np.log(np.maximum(gaps, 1e-17)))) if np.isfinite(gaps).all() else np.inf
                for k, gaps in group.finals("gap", "divisor").items()}
        found[order] = min((gap, k) for k, gap in ends.items())
    return found


def gained(results, lengths=LENGTHS):
    """[(set and lengths of rows, final columns of its gain)]"""
    return [(tags["data"] if lengths != LENGTHS else f"{tags['data']} {tags['lengths']}", run.final)
            for run in results.select("i", kind="gain", lengths=lengths) for tags in (run.tags,)]


@experiment.claim("i-predicted", "at w = 0 the gain of p_i prop. to |a_i| in E|g|^2 is 1 + CV^2 of the row norms; on "
                  "rows of one length there is none", expected="equal to 1e-9; 1 on normalised rows",
                  source="Zhao & Zhang 2015: all |l'| are equal there")
def i_predicted(results):
    def judged(name, gain):
        fits = abs(gain["at_0"] / gain["predicted"] - 1) < 1e-9
        fits &= "normalised" not in name or abs(gain["at_0"] - 1) < 1e-9
        return f"{gain['at_0']:.4g} ({gain['predicted']:.4g})", fits
    return on_every(gained(results), judged)


@experiment.claim("i-minimum", "at the minimum, where l' differs from row to row, the variance gains less than the "
                  "norms predict, but still where the lengths differ", expected="on log-normal rows above 1.5 and at "
                  "most 1 + CV^2")
def i_minimum(results):
    return on_every(gained(results, "log-normal"), lambda data, gain: (
        f"{gain['at_minimum']:.3g} (1 + CV² = {gain['predicted']:.3g})", 1.5 < gain["at_minimum"] <= gain["predicted"]))


@experiment.claim("i-floor", "on rows of log-normal length importance sampling has a lower floor than uniform "
                  "sampling at the same step", expected="lower by more than two standard deviations of the log")
def i_floor(results):
    return on_every(results.select("i", lengths="log-normal").groups("data"), lambda data, runs: below(
        *(np.log(runs.select(order=order).late("gap")) for order in ("with replacement", "importance"))))


@experiment.claim("i-adaptive", "learned probabilities lower the variance of the gradient below that of fixed ones",
                  expected="variance at most that of p_i prop. to L_i, and of uniform draws, on every set and length")
def i_adaptive(results):
    def judged(name, runs):
        uniform, fixed, learned = (runs.select(order=order).late("variance").mean()
                                   for order in ("with replacement", "importance", "adaptive"))
        return (f"{learned / uniform:.3g} of uniform, {learned / fixed:.3g} of fixed",
                learned <= min(uniform, fixed))
    return on_every(kinds(results), judged)


def kinds(results):
    """[(set and lengths of rows, runs)] of part i."""
    return [(f"{data} {lengths}", runs) for (data, lengths), runs in results.select("i").groups("data", "lengths")]


@experiment.claim("i-weights", "without the weights 1/(n p_i) the iterates move about another point",
                  expected="on log-normal rows the mean iterate of the second half is over 5 times farther from w* "
                  "than with weights by norms, on every set")
def i_weights(results):
    found = {}
    for data, runs in results.select("i", lengths="log-normal").groups("data"):
        wrong, right = (
            np.mean([np.linalg.norm(run.columns["error"][run.rows // 2 :].mean(0)) for run in runs.select(order=order)])
            for order in ("importance, no weights", "importance by norms"))
        found[data] = wrong / right
    return listed(found), min(found.values()) > 5


# ---------------------------------------------------------------------------------------------------------- figures
def draw_floors(runs, unit, ax):
    found = slopes(runs)
    for i, (order, (steps, levels)) in enumerate(floors(runs).items()):
        middle = np.exp(np.log(levels).mean(0))
        bars = np.maximum([middle - levels.min(0), levels.max(0) - middle], 0)     # of one seed: rounding
        ax.errorbar(steps, middle, bars, **look(i), marker=MARKERS[i], capsize=3, label=LABELS.get(order, order))
        ax.annotate(f"{found[order].mean():.2f}", (0.98, 0.03 + 0.07 * i), xycoords="axes fraction", fontsize=11,
                    ha="right", color=look(i)["color"], fontweight="bold")
    halved(ax, steps, f"step, in units of {unit}", "floor of F(w) - F*")
    ax.set_xlim(steps[-1] / 1.2, steps[0] * 1.9)


for part, model, unit in (("a", "Logistic regression, l2 = 1/n", "1/L_max"),
                          ("b", "LASSO, l1 = 0.05 of the largest", "1/L_max"),
                          ("s", "Logistic regression, l2 = L_max/10, small steps", f"{SMALL}/(n L_max)")):
    @experiment.figure(f"floors_{part}.png", caption=f"{model}: the floor of the gap at the ends of epochs against the "
                       "step, from the lowest to the highest seed; numbers are slopes over the four smallest steps.")
    def floor_figure(results, part=part, unit=unit):
        sets = dict(results.select(part).groups("data"))
        return each(list(sets), lambda ax, data: draw_floors(sets[data], unit, ax))

for part, model in (("a", "Logistic regression, l2 = 1/n"), ("b", "LASSO, l1 = 0.05 of the largest")):
    @experiment.figure(f"paths_{part}.png", caption=f"{model}: from 0 at the step 1/({COMMON} L_max), at the ends of "
                       "epochs; the median over seeds with its band.")
    def path_figure(results, part=part):
        sets = dict(results.select(part, kind="path", divisor=COMMON).groups("data"))
        return each(list(sets), lambda ax, data: curves(
            ax, sets[data], "gap", label=lambda tags: LABELS.get(tags["order"], tags["order"]), logy=True,
            legend=False, ylabel="F(w) - F*"))


@experiment.figure("importance.png", caption="Importance sampling on rows of three kinds. Left: the gain in the bound "
                   "of the variance, 1 + CV² of the row norms, and in the variance at the minimum. Right: variance of "
                   "the gradient, mean over the second half of the run, relative to uniform draws.")
def importance_figure(results):
    figure, (left, right) = panels(1, 2)
    gains, groups = gained(results), dict(kinds(results))
    at = np.arange(len(groups))
    for i, (column, label) in enumerate((("predicted", "1 + CV² of |a_i|"), ("at_minimum", "variance at the minimum"))):
        left.bar(at + 0.38 * (i - 0.5), [gain[column] for _, gain in gains], 0.36, label=label, color=look(i)["color"])
    left.set(ylabel="gain over uniform draws")
    for i, order in enumerate(("importance", "importance by norms", "adaptive")):
        own, plain = (np.array([runs.select(order=o).late("variance").mean() for runs in groups.values()])
                      for o in (order, "with replacement"))
        right.bar(at + 0.27 * (i - 1), own / plain, 0.25, label=order, color=look(i + 2)["color"])
    right.set(ylabel="variance / that of uniform draws")
    for ax in (left, right):
        ax.set_ylim(top=1.3 * ax.get_ylim()[1])
        ax.axhline(1, color="#888888", lw=1, ls=":")
        ax.set_xticks(at, [name.replace(" ", "\n", 1) for name in groups], fontsize=10)
        ax.grid(axis="x", visible=False)
        ax.legend()
    return figure


if __name__ == "__main__":
    experiment.main()
