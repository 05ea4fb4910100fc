"""Does the order of the rows matter for SGD?   Course tasks A12 and B8; Zhao & Zhang, ICML 2015.

Constant steps, one row a step. With replacement, and with importance sampling, f - f* ends at a floor proportional to
the step; with every row once an epoch, shuffled once or anew, at one proportional to its square, seen at the ends of
epochs (inside an epoch the iterate swings). The square is theory for steps well below 1/(n L): parts a and b have usual
steps, l2 = 1/n, part s has such small ones, with l2 = L_max/10, so that they can be waited for. Floors are measured
from the minimum on, over six times the 1/(step mu n) epochs that a step remembers.
Rows in the order of their class, or of their target, should be worst at usual steps. Importance sampling with p_i
prop. to L_i or |a_i| gains 1 + CV^2 of the row norms in the bound of the variance: nothing on rows of one length, much
on rows that differ; without the weights 1/(n p_i) it goes to another point. Learned probabilities: Yuan et al., 2016.

Run time on 2 cores: --quick about 20 seconds; --data real --jobs 2 --threads 1 about ten minutes.
"""

import functools

from lab import Entry, Experiment, Part, Recipe, dataset, different, listed, spread
from lab.figures import MARKERS, curves, look, panels
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
    backend,
)
from problems import Lasso, Logistic
from problems.minima.coordinate import lam_max

import numpy as np
import scipy.sparse

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
LENGTHS = ("as they are", "normalised", "log-normal")           # of the rows, part i


class Unweighted(Importance):
    """Importance sampling with the weights forgotten: what it is not."""

    def epoch(self, e):
        return super().epoch(e)[0], None


ORDERS = {"with replacement": WithReplacement(1), "importance": Importance(1), "shuffle once": ShuffleOnce(1),
          "reshuffling": RandomReshuffling(1), "by class": ByClass(1)}
LABELS = {"by class": "by class, or by target"}


# --------------------------------------------------------------------------------------------------------- problems
class Traced:
    """Can start at the minimum, and log the distance to it, a vector."""

    at_minimum = with_error = False

    def x0(self, rng):
        return backend.asarray(self.minimum()[0], self.dtype).copy() if self.at_minimum else super().x0(rng)

    def metrics(self, x):
        error = {"error": backend.to_host(x) - self.minimum()[0]} if self.with_error else {}
        return {**super().metrics(x), **error}

    @property
    def memory(self):
        """Epochs that SGD remembers at the step 1/L_max: L_max / (mu n)."""
        return self.row_smoothness().max() / (self.strong_convexity() * self.n)


class Binary(Traced, Logistic):
    """Logistic regression, traced."""


class Sparse(Traced, Lasso):
    """LASSO, traced."""


def scaled(X, lengths):
    """The rows of X, their lengths kept, all made 1, or multiplied by exp(N(0, 1))."""
    if lengths == "as they are":
        return X
    if lengths == "normalised":
        norms = np.sqrt(np.asarray(X.multiply(X).sum(1)).ravel() if scipy.sparse.issparse(X) else (X * X).sum(1))
        factors = 1 / np.maximum(norms, 1e-300)
    else:
        factors = np.exp(np.random.default_rng(0).standard_normal(X.shape[0]))
    return scipy.sparse.csr_matrix(X.multiply(factors[:, None])) if scipy.sparse.issparse(X) else X * factors[:, None]


def logistic(data, at_minimum=False, lengths="as they are", with_error=False, strength=1):
    """l2 = strength/n, no intercept."""
    d = dataset(data)
    problem = Binary(scaled(d.x_train, lengths), d.y_train, strength / len(d.y_train), name=f"{data}, rows {lengths}")
    problem.at_minimum, problem.with_error = at_minimum, with_error
    return problem


def lasso(data, at_minimum=False):
    """Columns and targets standardised, no intercept, l1 = 0.05 of the least that gives w = 0."""
    d = dataset(data)
    X = d.x_train.toarray() if scipy.sparse.issparse(d.x_train) else d.x_train
    X, y = (X - X.mean(0)) / np.maximum(X.std(0), 1e-12), (d.y_train - d.y_train.mean()) / d.y_train.std()
    problem = Sparse(X, y, 0.05 * lam_max(X, y), name=data)
    problem.at_minimum = at_minimum
    return problem


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
                    yield Entry(part, f"{data}, floor, 1/{k}: {order}", still, optimizer, sampler, 1 / (k * L),
                                stop=Stop(epochs=epochs * k), metrics=k)
                for k in args.pick(PATHS, HALVINGS[1:]):
                    rate, name = 1 / (k * L), f"1/{k}: {order}"
                    yield Entry(part, f"{data}, path, {name}", Recipe(build, data=data, **more), optimizer, sampler,
                                rate, stop=Stop(epochs=EPOCHS))
    for data in args.data_of("s"):
        strength = float(logistic(data, strength=0).row_smoothness().max() * logistic(data).n / 10)
        problem = logistic(data, strength=strength)
        L, still = problem.row_smoothness().max(), Recipe(logistic, data=data, at_minimum=True, strength=strength)
        for order, sampler in ORDERS.items():
            for k in HALVINGS:
                rate = SMALL / (k * problem.n * L)
                epochs = int(np.ceil(max(20, 6 / (rate * problem.strong_convexity() * problem.n))))
                yield Entry("s", f"{data}, floor, 1/{k}: {order}", still, SGD(), sampler, rate,
                            stop=Stop(epochs=epochs), metrics=max(1, epochs // 40))
    for data in args.data_of("i"):
        for lengths in LENGTHS:
            yield Entry("i", f"{data}, {lengths}: gain", run=Recipe(gains, data=data, lengths=lengths), seeds=[0])
            recipe = Recipe(logistic, data=data, lengths=lengths, at_minimum=True, with_error=True)
            rate = 0.25 / recipe().row_smoothness().max()
            for order, sampler in (("with replacement", WithReplacement(1)), ("importance", Importance(1)),
                                   ("importance by norms", Importance(1, "norms", 0.01)),
                                   ("adaptive", AdaptiveImportance(1)), ("importance, no weights", Unweighted(1))):
                yield Entry("i", f"{data}, {lengths}: {order}", recipe, SGD(), sampler, rate,
                            stop=Stop(epochs=args.pick(60, 30)), metrics=1, variance=True, seeds=args.seeds[:3])


# ----------------------------------------------------------------------------------------------------------- claims
def sets(results, part):
    return list(dict.fromkeys(name.split(", ")[0] for name in results.select(part).names))


def halvings(results, part, kind="floor"):
    names = results.select(part, lambda n: f", {kind}, " in n).names
    return sorted({int(n.split("1/")[1].split(":")[0]) for n in names})


def floors(results, part, data, order):
    """(steps, gaps): the mean gap at the epochs' ends over the second half, for every seed: (seeds, steps)."""
    ks, levels = halvings(results, part), []
    for k in ks:
        group = results.select(part, f"{data}, floor, 1/{k}: {order}")
        levels.append([np.mean(run.columns["gap"][run.rows // 2 :]) for run in group])
    return 1 / np.array(ks), np.array(levels).T


def slopes(results, part, data, order):
    """The slope of log floor against log step of each seed, over the four smallest steps."""
    steps, levels = floors(results, part, data, order)
    return np.array([np.polyfit(np.log(steps[-4:]), np.log(row[-4:]), 1)[0] for row in levels])


def slope_claim(part, wanted, tolerance, orders):
    def function(results):
        found = {(data, order): slopes(results, part, data, order) for data in sets(results, part) for order in orders}
        return (listed({f"{data} {order}": spread(v, 3) for (data, order), v in found.items()}),
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
    found = {f"{data} {order}": slopes(results, "s", data, order) for data in sets(results, "s")
             for order in ("shuffle once", "reshuffling", "by class")}
    return listed({k: spread(v, 3) for k, v in found.items()}), all(v.mean() >= 1.6 for v in found.values())


for part, model in (("a", "logistic regression"), ("b", "LASSO")):
    @experiment.claim(f"{part}-below", f"{model}: at the smallest step reshuffling has a lower floor than with "
                      "replacement", expected="lower by more than two standard deviations of the log, on every set")
    def below(results, part=part):
        found, holds = {}, True
        for data in sets(results, part):
            one, two = (np.log(floors(results, part, data, o)[1][:, -1]) for o in ("with replacement", "reshuffling"))
            mean, twice, clear = different(one, two)
            found[data], holds = f"{np.exp(mean):.3g} times", holds and clear and mean > 0
        return listed(found), holds

    @experiment.claim(f"{part}-class", f"{model}: by class (LASSO: by target) has the highest floor of all orders at "
                      f"the step 1/({COMMON} L_max)", expected="above every other, on every set")
    def worst(results, part=part):
        found, holds = {}, True
        for data in sets(results, part):
            at = halvings(results, part).index(COMMON)
            levels = {order: floors(results, part, data, order)[1][:, at].mean() for order in ORDERS}
            others = max(v for order, v in levels.items() if order != "by class")
            found[data], holds = levels["by class"] / others, holds and levels["by class"] > others
        return listed(found) + " times the next", holds

    @experiment.claim(f"{part}-best", f"{model}: {EPOCHS} epochs from 0, each order at its best step of the grid: "
                      "reshuffling ends lowest, or as low as any", expected="within a factor 1.1 of the best order, on "
                      "every set (geometric means over seeds)")
    def best(results, part=part):
        found, holds = {}, True
        for data in sets(results, part):
            levels = at_best(results, part, data)
            found[data] = "; ".join(f"{order} {gap:.2g} at 1/{k}" for order, (gap, k) in levels.items())
            holds &= levels["reshuffling"][0] <= 1.1 * min(gap for gap, _ in levels.values())
        return " | ".join(f"{k}: {v}" for k, v in found.items()), holds


def at_best(results, part, data):
    """{order: (gap after EPOCHS epochs, k)} at the best step of the grid."""
    found = {}
    for order in ORDERS:
        ends = {}
        for k in halvings(results, part, "path"):
            gaps = results.select(part, f"{data}, path, 1/{k}: {order}").final("gap")
            ends[k] = np.exp(np.mean(np.log(np.maximum(gaps, 1e-17)))) if np.isfinite(gaps).all() else np.inf
        k = min(ends, key=ends.get)
        found[order] = (ends[k], k)
    return found


def gained(results, data, lengths):
    return results.select("i", f"{data}, {lengths}: gain")[0].final


@experiment.claim("i-predicted", "at w = 0 the gain of p_i prop. to |a_i| in E|g|^2 is 1 + CV^2 of the row norms; on "
                  "rows of one length there is none", expected="equal to 1e-9; 1 on normalised rows",
                  source="Zhao & Zhang 2015: all |l'| are equal there")
def i_predicted(results):
    found, holds = {}, True
    for data in sets(results, "i"):
        for lengths in LENGTHS:
            gain = gained(results, data, lengths)
            found[f"{data} {lengths}"] = f"{gain['at_0']:.4g} ({gain['predicted']:.4g})"
            holds &= abs(gain["at_0"] / gain["predicted"] - 1) < 1e-9
            holds &= lengths != "normalised" or abs(gain["at_0"] - 1) < 1e-9
    return listed(found), holds


@experiment.claim("i-minimum", "at the minimum, where l' differs from row to row, the variance gains less than the "
                  "norms predict, but still where the lengths differ", expected="on log-normal rows above 1.5 and at "
                  "most 1 + CV^2")
def i_minimum(results):
    found, holds = {}, True
    for data in sets(results, "i"):
        gain = gained(results, data, "log-normal")
        found[data] = f"{gain['at_minimum']:.3g} (1 + CV² = {gain['predicted']:.3g})"
        holds &= 1.5 < gain["at_minimum"] <= gain["predicted"]
    return listed(found), holds


def late(results, data, lengths, order, column):
    group = results.select("i", f"{data}, {lengths}: {order}")
    return np.array([np.mean(run.columns[column][run.rows // 2 :]) for run in group])


@experiment.claim("i-floor", "on rows of log-normal length importance sampling has a lower floor than uniform "
                  "sampling at the same step", expected="lower by more than two standard deviations of the log")
def i_floor(results):
    found, holds = {}, True
    for data in sets(results, "i"):
        one, two = (np.log(late(results, data, "log-normal", o, "gap")) for o in ("with replacement", "importance"))
        mean, _, clear = different(one, two)
        found[data], holds = f"{np.exp(mean):.3g} times", holds and clear and mean > 0
    return listed(found), holds


@experiment.claim("i-adaptive", "learned probabilities lower the variance of the gradient below that of fixed ones",
                  expected="variance at most that of p_i prop. to L_i, and of uniform draws, on every set and length")
def i_adaptive(results):
    found, holds = {}, True
    for data in sets(results, "i"):
        for lengths in LENGTHS:
            uniform, fixed, learned = (late(results, data, lengths, o, "variance").mean()
                                       for o in ("with replacement", "importance", "adaptive"))
            found[f"{data} {lengths}"] = f"{learned / uniform:.3g} of uniform, {learned / fixed:.3g} of fixed"
            holds &= learned <= min(uniform, fixed)
    return listed(found), holds


@experiment.claim("i-weights", "without the weights 1/(n p_i) the iterates move about another point",
                  expected="on log-normal rows the mean iterate of the second half is over 5 times farther from w* "
                  "than with weights by norms, on every set")
def i_weights(results):
    found = {}
    for data in sets(results, "i"):
        wrong, right = (
            np.mean([np.linalg.norm(run.columns["error"][run.rows // 2 :].mean(0))
                     for run in results.select("i", f"{data}, log-normal: {order}")])
            for order in ("importance, no weights", "importance by norms"))
        found[data] = wrong / right
    return listed(found), min(found.values()) > 5


# ---------------------------------------------------------------------------------------------------------- figures
def colour(order):
    return list(ORDERS).index(order)


def each_set(results, part, draw):
    names = sets(results, part)
    columns = min(3, len(names)) if len(names) != 4 else 2
    figure, axes = panels(-(-len(names) // columns), columns, squeeze=False)
    for ax, data in zip(axes.flat, names, strict=False):
        draw(ax, data)
        ax.set_title(data)
    for ax in axes.flat[len(names):]:
        ax.axis("off")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def draw_floors(results, part, unit, ax, data):
    for order in ORDERS:
        steps, levels = floors(results, part, data, order)
        middle = np.exp(np.log(levels).mean(0))
        i = colour(order)
        ax.errorbar(steps, middle, [middle - levels.min(0), levels.max(0) - middle], **look(i), marker=MARKERS[i],
                    capsize=3, label=f"{LABELS.get(order, order)}")
        slope = slopes(results, part, data, order).mean()
        ax.annotate(f"{slope:.2f}", (0.98, 0.03 + 0.07 * i), xycoords="axes fraction", fontsize=11, ha="right",
                    color=look(i)["color"], fontweight="bold")
    ax.set(xscale="log", yscale="log", xlabel=f"step, in units of {unit}", ylabel="floor of F(w) - F*")
    ax.set_xticks(steps, [f"1/{1 / s:g}" if s < 1 else "1" for s in steps])
    ax.set_xlim(steps[-1] / 1.2, steps[0] * 1.9)
    ax.minorticks_off()


def draw_paths(results, part, ax, data):
    chosen = results.select(part, lambda n: n.startswith(f"{data}, path, 1/{COMMON}:"))
    curves(ax, chosen, "gap", label=lambda n: LABELS.get(n.split(": ")[1], n.split(": ")[1]), logy=True, legend=False,
           ylabel="F(w) - F*", colours=lambda n: colour(n.split(": ")[1]))


for part, model, unit in (("a", "Logistic regression, l2 = 1/n", "1/L_max"),
                          ("b", "LASSO, l1 = 0.05 of the largest", "1/L_max"),
                          ("s", "Logistic regression, l2 = L_max/10, small steps", f"{SMALL}/(n L_max)")):
    @experiment.figure(f"floors_{part}.png", caption=f"{model}: the floor of the gap at the ends of epochs against the "
                       "step, from the lowest to the highest seed; numbers are slopes over the four smallest steps.")
    def floor_figure(results, part=part, unit=unit):
        return each_set(results, part, functools.partial(draw_floors, results, part, unit))

for part, model in (("a", "Logistic regression, l2 = 1/n"), ("b", "LASSO, l1 = 0.05 of the largest")):
    @experiment.figure(f"paths_{part}.png", caption=f"{model}: from 0 at the step 1/({COMMON} L_max), at the ends of "
                       "epochs; the median over seeds with its band.")
    def path_figure(results, part=part):
        return each_set(results, part, functools.partial(draw_paths, results, part))


@experiment.figure("importance.png", caption="Importance sampling on rows of three kinds. Left: the gain in the bound "
                   "of the variance, 1 + CV² of the row norms, and in the variance at the minimum. Right: variance of "
                   "the gradient, mean over the second half of the run, relative to uniform draws.")
def importance_figure(results):
    figure, (left, right) = panels(1, 2)
    groups = [(data, lengths) for data in sets(results, "i") for lengths in LENGTHS]
    at = np.arange(len(groups))
    for i, (column, label) in enumerate((("predicted", "1 + CV² of |a_i|"), ("at_minimum", "variance at the minimum"))):
        left.bar(at + 0.38 * (i - 0.5), [gained(results, *g)[column] for g in groups], 0.36, label=label,
                 color=look(i)["color"])
    left.set(ylabel="gain over uniform draws")
    for i, order in enumerate(("importance", "importance by norms", "adaptive")):
        ratio = [late(results, *g, order, "variance").mean() / late(results, *g, "with replacement", "variance").mean()
                 for g in groups]
        right.bar(at + 0.27 * (i - 1), ratio, 0.25, label=order, color=look(i + 2)["color"])
    right.set(ylabel="variance / that of uniform draws")
    for ax in (left, right):
        ax.set_ylim(top=1.3 * ax.get_ylim()[1])
        ax.axhline(1, color="#888888", lw=1, ls=":")
        ax.set_xticks(at, [f"{data}\n{lengths}" for data, lengths in groups], fontsize=10)
        ax.grid(axis="x", visible=False)
        ax.legend()
    return figure


if __name__ == "__main__":
    experiment.main()
