"""Does it help to draw some rows more often than others?   Course tasks A12 and B8; Zhao & Zhang, ICML 2015.

SGD with row i drawn with probability p_i and weighted by 1/(n p_i), each rule at its own step. p_i prop. to |a_i|, the
bound of the gradients' norms, is Zhao & Zhang's rule for SGD: it gains 1 + CV^2 of the norms in E|g|^2 at w = 0. p_i
prop. to L_i, and half of it mixed with uniform draws, are Needell, Srebro & Ward's (NIPS 2014): at w = 0 the second
moment of a logistic gradient is then exactly that of uniform draws; what is gained is the step, 1/mean L for 1/max L.
Probabilities that are learned on the way are Yuan et al.'s (MLSP 2016). Without the weights SGD goes to another point.
On rows of one length (phishing, mushrooms, a9a) all fixed rules are one; w8a has max L / mean L near 10.

Logistic regression, l2 = 1/n, one row a step, the same number of draws for all, at most 2,000 rows; rows are also
multiplied by exp(N(0, 1)), to have heavy tails.

Run time on one core: --quick about 5 seconds; --data real --jobs 1 --threads 1 about 10 minutes.
"""

import functools

from lab import Entry, Experiment, Part, Recipe
from lab.claims import inside, on_every
from lab.figures import each, ranged
from lab.verdicts import lower, within
from npopt import SGD, AdaptiveImportance, Importance, Stop, WithReplacement
from problems.convex import Binary, logistic

import numpy as np

experiment = Experiment(
    __doc__,
    task="A12, B8",
    source="Zhao & Zhang, ICML 2015; Needell, Srebro & Ward, NIPS 2014; Yuan et al., MLSP 2016",
    parts={
        "a": Part("what a rule gains at w = 0 and at the minimum", "breast_cancer", ("w8a", "splice", "phishing")),
        "b": Part("each rule at its own step", "breast_cancer", ("w8a", "splice", "phishing")),
        "c": Part("what the weights are for", "breast_cancer", ("splice", "phishing")),
    },
    seeds=10,
)

ROWS = 2000  # at most
LENGTHS = {"w8a": ("as they are",), "phishing": ("log-normal",)}  # of rows; of the other sets both
RULES = {
    "uniform": WithReplacement(1),
    "by L": Importance(1),
    "by norms": Importance(1, "norms", 0.01),
    "half by L": Importance(1, "smoothness", 0.5),
    "adaptive": AdaptiveImportance(1),
}


class Unweighted(Importance):
    """Importance sampling with the weights forgotten: what it is not."""

    def epoch(self, e):
        return super().epoch(e)[0], None


# ---------------------------------------------------------------------------------------------------- own functions
def gains(data, lengths, seed, events):
    """1 + CV^2 of the row norms; the gains over uniform of p_i prop. to |a_i|, and to L_i, in E|g|^2 at 0, of |a_i| in
    the variance at w*; max L / mean L; n / (rows that are not 0)."""
    problem = logistic(data, lengths=lengths, rows=ROWS)
    plain = Binary(problem.host_X, problem.host_y)  # without l2: its gradient is the same for every row
    norms, start, best = np.sqrt(problem.square_norms), np.zeros(problem.dim), problem.minimum()[0]
    by_norms, by_L = (np.maximum(v, 1e-300) / v.sum() for v in (norms, norms**2))
    mean = plain.exact(start)[1]
    second = [plain.gradient_variance(start, None, q) + mean @ mean for q in (None, by_norms, by_L)]
    variance = [plain.gradient_variance(best, None, q) for q in (None, by_norms)]
    L = problem.row_smoothness()
    return {
        "predicted": [float(np.mean(norms**2) / np.mean(norms) ** 2)],
        "at_0": [second[0] / second[1]],
        "by_L_at_0": [second[0] / second[2]],
        "at_minimum": [variance[0] / variance[1]],
        "longer": [float(L.max() / L.mean())],
        "never": [float(len(norms) / np.count_nonzero(norms))],
    }


@functools.cache
def largest(**arguments):
    """The largest L_i."""
    return logistic(**arguments).row_smoothness().max()


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    for part in "abc":
        for data in args.data_of(part):
            for lengths in LENGTHS.get(data, ("as they are", "log-normal")):
                yield from entries(part, data, lengths, args)


def entries(part, data, lengths, args):
    tags, some = dict(data=data, lengths=lengths), dict(data=data, lengths=lengths, rows=ROWS)
    L = largest(**some)
    if part == "a":
        yield Entry("a", run=Recipe(gains, data=data, lengths=lengths), seeds=[0], **tags)
    elif part == "b":
        recipe = Recipe(logistic, **some)
        for rule, sampler in RULES.items():
            for k in range(*args.pick((-4, 9), (0, 3))):
                how = dict(stop=Stop(epochs=args.pick(5, 2)), metrics=1)
                yield Entry("b", recipe, SGD(), sampler, 2.0**k / L, **how, rule=rule, c=2.0**k, **tags)
    elif lengths == "log-normal":
        recipe = Recipe(logistic, **some, at_minimum=True, logs=("error",))
        for weights, sampler in (("weights", RULES["by norms"]), ("no weights", Unweighted(1))):
            how = dict(stop=Stop(epochs=args.pick(40, 20)), seeds=args.seeds[:5])
            yield Entry("c", recipe, SGD(), sampler, 0.25 / L, **how, weights=weights, **tags)


# ----------------------------------------------------------------------------------------------------------- claims
def gained(results):
    """[(set and lengths of rows, final columns of its gain)]"""
    return [(f"{run.tags['data']} {run.tags['lengths']}", run.final) for run in results.select("a")]


@experiment.claim(
    "a-zero",
    "at w = 0 p_i prop. to |a_i| gains 1 + CV^2 of the norms in E|g|^2, by L_i nothing",
    expected="both to 1e-9, relative; by L_i n / (rows that are not 0): empty ones are never drawn",
    source="all |l'| are equal there",
)
def a_zero(results):
    def judged(name, gain):
        by_norms, by_L = gain["at_0"], gain["by_L_at_0"]
        exact = abs(by_norms / gain["predicted"] - 1) < 1e-9 and abs(by_L / gain["never"] - 1) < 1e-9
        return f"{by_norms:.4g} and {by_L:.4g}", exact

    return on_every(gained(results), judged)


def kinds(results):
    """[(set and lengths of rows, runs)] of the rules."""
    return [(f"{data} {lengths}", runs) for (data, lengths), runs in results.select("b").groups("data", "lengths")]


@experiment.claim(
    "b-step",
    "p_i prop. to L_i allows a longer step, and that is its gain: its best step is longer than uniform's",
    expected="at least twice as long where max L / mean L is over 5",
    source="Needell, Srebro & Ward, NIPS 2014: mean L for max L",
)
def b_step(results):
    longer = {name: gain["longer"] for name, gain in gained(results)}

    def judged(name, runs):
        best = runs.tuned("c", "gap", "rule")
        found = best["by L"].value / best["uniform"].value
        return f"{found:g} times (max/mean L {longer[name]:.3g})", found >= 2

    return on_every([pair for pair in kinds(results) if longer[pair[0]] > 5], judged)


for rule, source in (
    ("by L", "Needell et al. 2014"),
    ("half by L", "Needell et al. 2014"),
    ("by norms", "Zhao & Zhang 2015"),
    ("adaptive", "Yuan et al. 2016"),
):

    @experiment.claim(
        f"b-{rule.replace(' ', '-').lower()}",
        f"{rule}: at its best step it ends below uniform draws",
        expected="lower after the same epochs (95 % of the log); false where higher, or alike to a factor 1.05",
        source=source,
    )
    def gain_of(results, rule=rule):
        def judged(name, runs):
            best = runs.tuned("c", "gap", "rule")
            ours, uniform = (np.log(best[m].runs.final("gap")) for m in (rule, "uniform"))
            return f"{np.exp(np.mean(ours - uniform)):.3g} of uniform", lower(ours, uniform, np.log(1.05))

        return on_every(kinds(results), judged)


@experiment.claim(
    "c-weights",
    "without the weights 1/(n p_i) the iterates move about another point",
    expected="the mean iterate of the second half is over 5 times farther from w* (95 % of the log)",
)
def c_weights(results):
    def judged(data, runs):
        wrong, right = (
            np.log([np.linalg.norm(run.columns["error"][run.rows // 2 :].mean(0)) for run in runs.select(weights=w)])
            for w in ("no weights", "weights")
        )
        return f"{np.exp(np.mean(wrong - right)):.3g} times", within(wrong - right, np.log(5))

    return on_every(results.select("c").groups("data"), judged)


experiment.claim(
    "b-edge", "the steps are wide enough", expected="the best inside the grid, always", source="tuning of this script"
)(inside("b", "gap", "c", ("data", "lengths", "rule")))


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure(
    "importance.png",
    caption="f - f* after the same number of draws against the step, each rule; from the lowest to the highest seed. "
    "Dotted: the steps 1/max L and 1/mean L.",
)
def importance_figure(results):
    groups, gain = dict(kinds(results)), dict(gained(results))

    def draw(ax, name):
        for i, rule in enumerate(RULES):
            ends = groups[name].select(rule=rule).finals("gap", "c")
            steps = [c for c in sorted(ends) if np.isfinite(ends[c]).all()]
            ranged(ax, steps, [ends[c] for c in steps], i, ms=5, capsize=2, lw=1.4, label=rule)
        for at, text, side in ((1, "1/max L ", "right"), (gain[name]["longer"], " 1/mean L", "left")):
            ax.axvline(at, color="#999999", lw=1, ls=":")
            ax.annotate(text, (at, 0.96), xycoords=("data", "axes fraction"), fontsize=10, color="#666666", ha=side)
        ax.set(xscale="log", yscale="log", xlabel="step, in units of 1/max L", ylabel="f(w) - f*")

    return each(list(groups), draw, legend=5)


if __name__ == "__main__":
    experiment.main()
