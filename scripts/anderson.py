"""How many iterations to f - f* <= 1e-7: heavy ball, Nesterov, Anderson?   Course task A3; Mai & Johansson, ICML 2020.

Gradient descent needs about kappa = L/mu iterations, heavy ball and Nesterov with the constants that L and mu give
about sqrt(kappa). Anderson acceleration combines the last m gradient steps, knows no mu, and should need no more: on a
quadratic it is GMRES. A guard rejects points that do not descend, at the cost of one gradient, and the window then
begins anew. Restarted FISTA knows no mu either; L-BFGS is the yardstick, by gradients and by the clock.

On quadratics the counts of gradient descent, heavy ball and Nesterov lie between two numbers (analysis/theory.py): that
of the slowest direction's share of f - f*, and that of all of it with the double root's transient rho^t (1 + c t). On
sets of 6 to 13 columns a window of 10 is nearly the whole space; part l has sets of 123 to 300.

All runs are full batch in float64, x0 = 0, without an intercept: least squares (targets standardised, l2 = 1e-4) and
logistic regression (l2 = 1e-4). f* is that of an independent solver. They do not depend on the seed: the seeds are
repetitions, for the timing, which leaves the measuring of f out; times mean something on an idle machine only.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about ten minutes.
"""

from lab import Entry, Experiment, Part, Recipe, on_every
from lab.charts import gaps
from lab.figures import MARKERS, below, look, panels
from lab.verdicts import within
from npopt import FISTA, SGD, Anderson, HeavyBall, Nesterov, RandomReshuffling, Stop, theory
from problems.convex import linear
from problems.datasets import shared
from problems.minima import yardstick

import numpy as np

TARGET = 1e-7
CLASSES = (
    "splice",
    "german.numer",
    "australian",
    "ionosphere",
    "sonar",
    "heart",
    "mushrooms",
    "phishing",
    "a9a",
    "w8a",
)
experiment = Experiment(
    __doc__,
    task="A3",
    source="Mai & Johansson, Anderson acceleration of proximal gradient methods, ICML 2020",
    parts={
        "a": Part("linear regression: iterations and seconds to 1e-7", "diabetes", ("abalone", "housing", "mg", "mpg")),
        "b": Part("logistic regression: the same", "breast_cancer", CLASSES),
        "l": Part(
            "wide least squares: 4,000 rows of a9a and w8a, and 200 random features",
            "breast_cancer",
            ("a9a", "w8a", "abalone"),
        ),
    },
    seeds=5,
)

FULL = RandomReshuffling(None)
LONGEST = 5000  # steps
UNTIL = Stop(steps=LONGEST, target=("gap", TARGET))
SOON = Stop(steps=2200, target=("gap", TARGET))  # of --quick
TIMED = ("Nesterov", "Anderson 10", "L-BFGS")  # what claims about seconds compare; seeds are repetitions
KINDS = {"a": "linear regression", "l": "wide least squares", "b": "logistic regression"}


# ---------------------------------------------------------------------------------------------------- own functions
def smooth(data, wide=False):
    """The regression or classification problem of a set, l2 = 1e-4; wide: of part l."""
    more = dict(rows=4000, squares=True, features=200 if shared(data).task == "regression" else None) if wide else {}
    return linear(data, l2=1e-4, test=False, **more)


def lbfgs(data, seed, events, wide=False):
    """SciPy's L-BFGS-B with 10 pairs."""
    return yardstick.lbfgs(smooth(data, wide=wide), TARGET, LONGEST)


# ------------------------------------------------------------------------------------------------------------- grid
def methods(L, mu):
    """(name, optimizer, rate)"""
    ball, fast = theory.heavy_ball(L, mu), theory.nesterov(L, mu)
    yield "gradient descent", SGD(), 1 / L
    yield "heavy ball", HeavyBall(ball.beta), ball.lr
    yield "Nesterov", Nesterov(fast.beta), fast.lr
    yield "FISTA, restarted", FISTA("gradient"), 1 / L
    for m in (5, 10):
        yield f"Anderson {m}", Anderson(m), 1 / L
    yield "Anderson 10, window kept", Anderson(10, patience=None), 1 / L
    yield "Anderson 10, no guard", Anderson(10, guard=False), 1 / L


def narrow(optimizer, dim):
    """The same method with a window that is not wider than the problem."""
    wide = isinstance(optimizer, Anderson) and optimizer.window > dim
    return Anderson(dim, guard=optimizer.guard, patience=optimizer.patience) if wide else optimizer


@experiment.runs
def runs(args):
    for part in ("a", "l", "b"):
        yield from comparison(part, args)


def comparison(part, args):
    for data in args.data_of(part):
        tags = dict(data=data, wide=True) if part == "l" else dict(data=data)
        recipe = Recipe(smooth, **tags)
        problem = recipe()
        for name, optimizer, lr in methods(problem.smoothness(), problem.strong_convexity()):
            slow = name == "gradient descent"  # for which one repetition has to do
            often = 10 if slow else 5 if problem.n > 5000 and not isinstance(optimizer, Anderson) else 1
            once = slow or args.quick and name not in TIMED
            seeds = args.seeds[: 1 if once else 3 if problem.n > 5000 else None]
            how = dict(stop=args.pick(UNTIL, SOON), metrics=often, per="step", seeds=seeds)
            yield Entry(part, recipe, narrow(optimizer, problem.dim), FULL, lr, **how, data=data, method=name)
        yield Entry(part, run=Recipe(lbfgs, **tags), data=data, method="L-BFGS")


# ----------------------------------------------------------------------------------------------------------- claims
def steps(runs, method):
    """Iterations to 1e-7; infinity where LONGEST were not enough. (They are the same for every seed.)"""
    return float(runs.select(method=method).until("gap", TARGET)[0])


def predicted(data, runs, part):
    """{method: (least, most, observed)} iterations, for the methods whose constants come from L and mu; the bracket of
    theory.py on least squares, elsewhere from nothing to all of f - f*."""
    problem = smooth(data, wide=part == "l")
    L, mu, found = problem.smoothness(), problem.strong_convexity(), {}
    first = runs.select(method="Nesterov")[0].columns["gap"][0]
    share = slowest(problem) if part != "b" else 0.0
    for name, function in (
        ("gradient descent", theory.gradient_descent),
        ("heavy ball", theory.heavy_ball),
        ("Nesterov", theory.nesterov),
    ):
        tuned = function(L, mu)
        least = theory.iterations(tuned.factor, share, TARGET, tuned.slow)
        found[name] = least, theory.iterations(tuned.factor, first, TARGET, tuned.fast), steps(runs, name)
    return found


def slowest(problem):
    """The part of f - f* at 0 that lies along the eigenvector of mu; least squares."""
    X = problem.host_X.toarray() if hasattr(problem.host_X, "toarray") else problem.host_X
    values, vectors = np.linalg.eigh(X.T @ X / problem.n + problem.l2 * np.eye(problem.dim))
    return float(values[0] * (vectors[:, 0] @ problem.minimum()[0]) ** 2 / 2)


def on_sets(part, judged):
    """A claim's function: judged(data, runs) -> (measured, holds) on every set of a part."""
    return lambda results: on_every(results.select(part).groups("data"), judged)


def ratio(one, *others, most, strict=False):
    """Iterations of a method over the least of others', at most (or strictly below) `most`; they have no noise."""

    def judged(data, runs):
        found = steps(runs, one) / min(steps(runs, m) for m in others)
        return found, found < most if strict else found <= most

    return judged


def faster(one, two, most=1.0, each=False):
    """Whether method one takes at most `most` times the seconds of method two (each: a step), over repetitions."""

    def judged(data, runs):
        a, b = (runs.select(method=m).by_seed() for m in (one, two))
        times = [
            [np.log(v[seed].final["seconds"] / (v[seed].final["step"] if each else 1)) for v in (a, b)]
            for seed in sorted(a.keys() & b.keys())
        ]
        d = -np.diff(times, axis=1)[:, 0]
        return f"{np.exp(d.mean()):.3g} times", within(d, high=np.log(most))

    return judged


for part, kind in KINDS.items():

    @experiment.claim(
        f"{part}-predicted",
        f"{kind}: the iterations are what L and mu predict",
        expected="between the two counts of theory.py (logistic: below the upper), to 5 % and a step",
        source="npopt/analysis/theory.py",
    )
    def as_predicted(results, part=part):
        def judged(data, runs):
            found = predicted(data, runs, part)
            text = ", ".join(f"{name} {n:g} ({least:.0f} to {most:.0f})" for name, (least, most, n) in found.items())
            return text, all(
                least / 1.05 - 1 <= n <= most * 1.05 + 1 or n == np.inf and most > LONGEST
                for least, most, n in found.values()
            )

        return on_every(results.select(part).groups("data"), judged)

    experiment.claim(
        f"{part}-momentum",
        f"{kind}: Nesterov needs fewer iterations than gradient descent",
        expected="on every set",
        source="sqrt(kappa) against kappa",
    )(on_sets(part, ratio("Nesterov", "gradient descent", most=1, strict=True)))
    experiment.claim(
        f"{part}-anderson",
        f"{kind}: Anderson with m = 10, without knowing mu, needs no more iterations than the better of heavy ball and "
        "Nesterov",
        expected="<= 1.1 times, on every set",
    )(on_sets(part, ratio("Anderson 10", "heavy ball", "Nesterov", most=1.1)))
    experiment.claim(f"{part}-fista", f"{kind}: nor more than restarted FISTA", expected="<= 1, on every set")(
        on_sets(part, ratio("Anderson 10", "FISTA, restarted", most=1))
    )
    experiment.claim(
        f"{part}-guard",
        f"{kind}: the guard does not cost much",
        expected="at most 1.3 times the iterations without it, m = 10, on every set",
    )(on_sets(part, ratio("Anderson 10", "Anderson 10, no guard", most=1.3)))
    experiment.claim(
        f"{part}-reset",
        f"{kind}: a window that begins anew after a rejection needs no more iterations than one that is kept",
        expected="at most 1.1 times, m = 10, on every set",
    )(on_sets(part, ratio("Anderson 10", "Anderson 10, window kept", most=1.1)))
    experiment.claim(
        f"{part}-clock",
        f"{kind}: by the clock Anderson (m = 10) beats Nesterov as well",
        expected="less time on every set (95 % of the log over repetitions)",
        source="course task A3",
    )(on_sets(part, faster("Anderson 10", "Nesterov")))
    experiment.claim(
        f"{part}-step",
        f"{kind}: a step of Anderson (m = 10) costs at most 1.5 of Nesterov's",
        expected="at most 1.5 times, d up to 500 (95 % of the log over repetitions)",
    )(on_sets(part, faster("Anderson 10", "Nesterov", 1.5, each=True)))
    experiment.claim(
        f"{part}-lbfgs",
        f"{kind}: L-BFGS with 10 pairs is faster by the clock than Anderson (m = 10)",
        expected="on every set (95 % of the log over repetitions)",
        source="curvature pairs, line search",
    )(on_sets(part, faster("L-BFGS", "Anderson 10")))


# ---------------------------------------------------------------------------------------------------------- figures
SHOWN = ("gradient descent", "heavy ball", "Nesterov", "FISTA, restarted", "Anderson 5", "Anderson 10", "L-BFGS")


for part, kind in KINDS.items():

    @experiment.figure(
        f"iterations_{part}.png",
        caption=f"{kind.capitalize()}: f - f* against iterations, until 1e-7 (dotted). Only heavy ball and Nesterov "
        "know mu. Spikes of Anderson are points that the guard then rejects.",
    )
    def iterations_figure(results, part=part):
        runs = results.select(part, seed=0)
        sets = len(runs.values("data"))
        return gaps(runs, SHOWN, TARGET, columns=4 if sets > 6 else 3, legend=7 if sets > 2 else 4)


@experiment.figure(
    "clock.png",
    caption="To f - f* <= 1e-7, of Nesterov: rows differentiated, and the time of the steps; median, from the lowest "
    "to the highest repetition. Left of 1 is better; crosses: not in 5,000 steps. d: columns, which bound the window.",
)
def clock_figure(results):
    sets = [
        (part, data, runs)
        for part in KINDS
        if part in results.parts
        for data, runs in results.select(part).groups("data")
    ]
    figure, axes = panels(1, 2, size=(13, 7.5), sharey=True)
    for ax, column, text in zip(axes, ("gradients", "seconds"), ("gradients", "time"), strict=True):
        for i, method in enumerate(("heavy ball", "FISTA, restarted", "Anderson 5", "Anderson 10", "L-BFGS")):
            for row, (_, _, runs) in enumerate(sets):
                some = runs.select(method=method)
                if steps(runs, method) == np.inf:
                    ax.plot([0.985], [row], "x", color=look(i + 1)["color"], transform=ax.get_yaxis_transform())
                    continue
                values = some.final(column) / np.median(runs.select(method="Nesterov").final(column))
                middle = np.median(values)
                bar = [[middle - values.min()], [values.max() - middle]]
                kind = dict(fmt=MARKERS[i], ms=6, color=look(i + 1)["color"], label=None if row else method)
                ax.errorbar([middle], [row], xerr=bar, **kind)
        ax.axvline(1, color="#888888", lw=1, ls=":")
        ax.set(xscale="log", xlabel=f"{text}, of Nesterov's", yticks=range(len(sets)))
    dims = [smooth(data, wide=part == "l").dim for part, data, _ in sets]
    names = [f"{data}{', squares' * (part == 'l')}, d = {d}" for d, (part, data, _) in zip(dims, sets, strict=True)]
    axes[0].set_yticklabels(names, fontsize=10)
    axes[0].invert_yaxis()
    return below(figure, axes[0], 5)


@experiment.figure(
    "predicted.png",
    caption="Iterations to 1e-7, observed against what L and mu predict: bars from the least to the most that theory "
    "allows on least squares, an arrow where it sets no least; on logistic regression (open) the most alone, since the "
    "curvature on the way is higher than mu.",
)
def predicted_figure(results):
    figure, ax = panels()
    sets = [(p, d, r) for p in KINDS if p in results.parts for d, r in results.select(p).groups("data")]
    found = [(part, predicted(data, runs, part)) for part, data, runs in sets]
    for i, name in enumerate(("gradient descent", "heavy ball", "Nesterov")):
        for part, (least, most, seen) in ((part, counts[name]) for part, counts in found):
            if np.isfinite(seen):
                colour, fill = look(i)["color"], "none" if part == "b" else "full"
                if part != "b" and least > 1:
                    ax.plot([least, most], [seen, seen], color=colour, lw=2)
                elif part != "b":
                    ax.plot([0.75 * most], [seen], "<", color=colour, ms=6)
                ax.plot([most], [seen], MARKERS[i], color=colour, ms=7, fillstyle=fill)
        ax.plot([], [], MARKERS[i], color=look(i)["color"], label=name)
    ends = [max(a, b) for a, b in zip(ax.get_xlim(), ax.get_ylim(), strict=True)]
    ax.plot([5, ends[1]], [5, ends[1]], color="#888888", lw=1, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="predicted iterations", ylabel="observed iterations")
    ax.legend(loc="upper left")
    return figure


if __name__ == "__main__":
    experiment.main()
