"""Does the order of the rows matter for SGD?   Course task A12; Mishchenko, Khaled & Richtarik, NeurIPS 2020.

One row a step, constant steps c/L_max. At the ends of epochs f - f* ends at a floor. With replacement it is
proportional to the step. Every row once an epoch cancels the gradients' noise: shuffled once the floor is n c^2 until c
is 1/n; shuffled anew it is n^2 c^3 between 1/n^2 and 1/n, and c^2 below, where what is left of the noise no longer
counts. Small n and l2 = L_max/10 bring both corners within reach. A prox at every step (LASSO) breaks the cancellation:
the floor is then proportional to c; one prox an epoch, ProxRR, restores it.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 15 minutes.
"""

import functools
import itertools

from figures.sampling import ROWS, album, between
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, inside, listed, on_every, slope, spread
from lab.verdicts import lower, no_higher, together, within
from npopt import SGD, ByClass, Proximal, RandomReshuffling, ShuffleOnce, Stop, WithReplacement
from problems.convex import lasso, logistic

import numpy as np

experiment = Experiment(
    __doc__,
    task="A12",
    source="Mishchenko, Khaled & Richtarik, NeurIPS 2020",
    parts={
        "a": Part("logistic regression on few rows: floors against the step", "breast_cancer", ("phishing", "splice")),
        "b": Part("LASSO: a prox at every step, and one an epoch", "diabetes", ("housing", "mpg")),
        "p": Part(
            "20 epochs from 0, each order at its own step",
            ("breast_cancer", "diabetes"),
            ("phishing", "mushrooms", "abalone", "housing"),
        ),
    },
    seeds=10,
    figures=album,
)

SIZES = {16: 1 / 8, 64: 1 / 2, 256: 8}  # rows: smallest step of the sweep, in units of 1/n^2
KAPPA = 10  # L_max/l2 of part a
EPOCHS = 20  # from 0
COMMON = 1 / 4  # the step at which all orders are compared
ORDERS = {
    "with replacement": WithReplacement(1),
    "shuffle once": ShuffleOnce(1),
    "reshuffling": RandomReshuffling(1),
    "by class": ByClass(1),
}
EVERY = {"every step": 1, "once an epoch": ROWS}  # the prox of part b
WITH_CLASSES = ("breast_cancer", "phishing", "mushrooms")
FREE = SGD()  # of a prox


# ---------------------------------------------------------------------------------------------------- own functions
@functools.cache
def constants(build, **arguments):
    """(largest L_i, steps that SGD remembers at the step 1/L_max)"""
    problem = build(**arguments)
    L = problem.row_smoothness().max()
    return L, L / problem.strong_convexity()


def halvings(low, high=0.5, ratio=2):
    """high, high/2, ... down to low."""
    return [float(f"{high / ratio**k:.6g}") for k in range(int(np.log(high / low) / np.log(ratio) + 1e-9) + 1)]


def floor_entries(part, build, n, steps, orders, data, optimizer=FREE, seeds=None, times=4, **tags):
    """From the minimum on, over so many times what the step remembers; the second half is the floor."""
    more = {"kappa": KAPPA} if build is logistic else {}
    L, memory = constants(build, data=data, rows=n, **more)
    problem = Recipe(build, data=data, rows=n, at_minimum=True, **more)
    for order, c in itertools.product(orders, steps):
        epochs = int(np.ceil(max(20, times * memory / c / n)))
        length = dict(stop=Stop(epochs=epochs), metrics=max(1, epochs // 100))
        named = dict(data=data, n=n, order=order, c=c)
        yield Entry(part, problem, optimizer, ORDERS[order], c / L, seeds=seeds, **named, **tags, **length)


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    independent, shuffled = list(ORDERS)[:1], list(ORDERS)[1:3]
    for data in args.data_of("a"):
        for n, least in SIZES.items() if not args.quick else ((16, 1),):
            some = halvings(least / n**2, ratio=args.pick(2, 4))
            yield from floor_entries("a", logistic, n, some, shuffled, data)
            yield from floor_entries("a", logistic, n, [c for c in some if 4 * c * n > 0.99], independent, data)
    few = args.seeds[:5]
    brief = dict(seeds=few, times=args.pick(4, 1))
    for data in args.data_of("b"):
        some = halvings(args.pick(1 / 128, 1 / 4))
        for prox, every in EVERY.items():
            yield from floor_entries("b", lasso, ROWS, some, shuffled, data, Proximal(SGD(), every), prox=prox, **brief)
        some = halvings(args.pick(1 / 32, 1 / 4))
        yield from floor_entries("b", lasso, ROWS, some, independent, data, Proximal(SGD()), prox="every step", **brief)
    for data in args.data_of("p"):
        build, optimizer = (logistic, SGD()) if data in WITH_CLASSES else (lasso, Proximal(SGD()))
        problem, (L, _) = Recipe(build, data=data), constants(build, data=data)
        some, length = halvings(args.pick(1 / 512, 1 / 4), 1, args.pick(2, 4)), Stop(epochs=args.pick(EPOCHS, 3))
        for (order, sampler), c in itertools.product(ORDERS.items(), some):
            tags = dict(data=data, order=order, c=c)
            yield Entry("p", problem, optimizer, sampler, c / L, stop=length, seeds=few, **tags)


# ----------------------------------------------------------------------------------------------------------- claims
def rises(runs, low, high):
    """The slope of log floor against log step of each seed, for low <= c <= high; None under three steps."""
    steps, levels = runs.levels("gap", "c")
    chosen = (steps >= low * 0.99) & (steps <= high * 1.01)
    return np.array([slope(steps[chosen], row[chosen]) for row in levels]) if chosen.sum() > 2 else None


def slope_claim(part, order, wanted, margin, span, **tags):
    """A claim's function: the slopes over the steps of span(n) are `wanted`, on every set and n with enough steps."""

    def function(results):
        found = {}
        for (data, n), runs in results.select(part, order=order, **tags).groups("data", "n"):
            values = rises(runs, *span(n))
            if values is not None:
                found[f"{data} n={n}"] = values
        return decided(
            listed({k: spread(v, 3) for k, v in found.items()}),
            *([within(v, wanted - margin, wanted + margin) for v in found.values()] or [None]),
        )

    return function


def below(n):
    return 0, 1 / (2 * n**2)


def small(n):
    return 0, 1 / (4 * n)


def whole(n):
    return 0, 1 / 4


for id, text, order, wanted, margin, span in (
    ("a-one", "with replacement the floor is proportional to the step", "with replacement", 1, 0.25, whole),
    ("a-once", "shuffled once the floor falls as the square of the step below 1/n", "shuffle once", 2, 0.15, small),
    ("a-three", "reshuffled, the floor falls as its cube well between 1/n^2 and 1/n", "reshuffling", 3, 0.4, between),
    ("a-two", "reshuffled, the floor falls as the square of it below 1/n^2", "reshuffling", 2, 0.25, below),
):
    experiment.claim(
        id,
        f"logistic regression: {text}",
        source="docstring; Mishchenko et al. bound it by the square",
        expected=f"slope {wanted} ± {margin} (95 % over seeds), every set and n with three steps there",
    )(slope_claim("a", order, wanted, margin, span))


def collapsed(results, order, power, scale):
    """{set: [log of floor / (n^power c^(power + 1)) at c = scale(n), one a seed, for each n]}"""
    found = {}
    for (data, n), runs in results.select("a", order=order, n=lambda n: n > 16).groups("data", "n"):
        steps, levels = runs.levels("gap", "c")
        at = int(np.abs(np.log(steps / scale(n))).argmin())
        found.setdefault(data, []).append(np.log(levels[:, at] / (n**power * steps[at] ** (power + 1))))
    return found


for id, order, power, name in (
    ("a-collapse-1", "shuffle once", 1, "n c^2"),
    ("a-collapse-2", "reshuffling", 2, "n^2 c^3"),
):

    @experiment.claim(
        id,
        f"between the corners {order}'s floor is one number times {name}",
        expected="at c = n^-1.5 the numbers of n = 64 and 256 within a factor 3 (95 %)",
    )
    def collapse(results, order=order, power=power):
        found = {data: v for data, v in collapsed(results, order, power, lambda n: n**-1.5).items() if len(v) == 2}
        return decided(
            listed({data: f"{np.exp(np.mean(b - a)):.3g}" for data, (a, b) in found.items()}) + " times",
            *([within(b - a, -np.log(3), np.log(3)) for a, b in found.values()] or [None]),
        )


for id, prox, wanted, margin, order in (
    ("b-1-reshuffling", "every step", 1, 0.3, "reshuffling"),
    ("b-1-shuffle", "every step", 1, 0.3, "shuffle once"),
    ("b-2-shuffle", "once an epoch", 2, 0.3, "shuffle once"),
):
    experiment.claim(
        id,
        f"LASSO, {order}, prox {prox}: the floor falls as the step to the power {wanted}",
        expected=f"slope {wanted} ± {margin} for c <= 1/32 (95 %), every set",
    )(slope_claim("b", order, wanted, margin, lambda n: (0, 1 / 32), prox=prox))


@experiment.claim(
    "b-prox",
    "LASSO: one prox an epoch (ProxRR) has a lower floor than a prox at every step",
    expected="reshuffling, at the smallest step: lower by a factor 10 or more (95 % of the log)",
    source="Mishchenko, Khaled & Richtarik, ICML 2022",
)
def b_prox(results):
    def judged(data, runs):
        some = runs.select(order="reshuffling")
        each_step, once = (np.log(some.select(prox=prox).levels("gap", "c")[1][:, 0]) for prox in EVERY)
        return f"{np.exp(np.mean(each_step - once)):.3g} times", within(each_step - once, np.log(10))

    return on_every(results.select("b").groups("data"), judged)


@experiment.claim(
    "p-class",
    f"by class (LASSO: by target) is the worst order at the step {COMMON:g}/L_max",
    expected="after 20 epochs above every other (95 % of the log), on every set",
)
def p_class(results):
    def judged(data, runs):
        ends = {order: np.log(v) for order, v in runs.select(c=COMMON).finals("gap", "order").items()}
        worst = ends.pop("by class")
        return (
            f"{np.exp(np.mean(worst) - max(np.mean(v) for v in ends.values())):.3g} times the next",
            together(lower(v, worst) for v in ends.values()),
        )

    return on_every(results.select("p").groups("data"), judged)


@experiment.claim(
    "p-best",
    "after 20 epochs from 0, each order at its best step, reshuffling is as good as any",
    expected="at most 1.1 times each other (95 % of the log), on every set",
)
def p_best(results):
    def judged(data, runs):
        best = runs.tuned("c", "gap", "order")
        ends = {order: np.log(found.runs.final("gap")) for order, found in best.items()}
        return (
            "; ".join(f"{order} {np.exp(v.mean()):.2g} at {best[order].value:.3g}" for order, v in ends.items()),
            together(no_higher(ends["reshuffling"], v, np.log(1.1)) for v in ends.values()),
        )

    return on_every(results.select("p").groups("data"), judged)


experiment.claim(
    "p-edge", "the steps are wide enough", expected="the best inside the grid, always", source="tuning of this script"
)(inside("p", "gap", "c", ("data", "order")))


if __name__ == "__main__":
    experiment.main()
