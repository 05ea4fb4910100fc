"""What does a gradient made of function values cost?   Course task A5; Nesterov & Spokoiny, FoCM 17, 2017.

Ridge regression, where all answers are known. With L/mu = kappa and steps 1/L (differences along all coordinates),
1/(L (d+2)) (Gaussian directions) and 1/(L d) (the sphere, with its factor d) every method should need about
kappa d log(1/eps) function values. How many exactly, on average, second moments say (npopt/analysis/moments.py); a run
is a product of random factors and lies mostly below that mean. Forward differences leave a floor: (mu/2) u'Hu along u
is noise that does not vanish at the minimum, so f - f* levels out at a number times mu^2. Below some radius rounding,
eps |f| / mu, lifts it again: a U. Averages of q directions allow steps 1/(L (1 + (d-1)/q)), and cost q + 1 values: per
value they gain little. With rows drawn at random, an estimate costs B rows times q directions. Its noise at the minimum
is (q + d - 1)/(B q) of a row's: at equal B q, rows are worth more than directions.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about ten minutes.
"""

import itertools

from figures.zeroth_order import SHARES, SLOW, TARGETS, album
from lab import Entry, Experiment, Part, Recipe, decided, lower, on_every, slope, spread, within
from lab.ridge import KAPPA, NAMES, counts, theory
from npopt import (
    SGD,
    CoordinateDifferences,
    GaussianSmoothing,
    RandomReshuffling,
    SphereSmoothing,
    Stop,
    WithReplacement,
)
from problems.convex import ridge

import numpy as np

SETS = ("abalone", "mg", "housing")
experiment = Experiment(
    __doc__,
    task="A5",
    source="Nesterov & Spokoiny, FoCM 17, 2017; Duchi et al., IEEE Trans. Inf. Theory 61, 2015",
    parts={
        "a": Part("three methods, each at four steps", "diabetes", SETS),
        "b": Part("the radius: floors at the minimum", "diabetes", SETS),
        "c": Part("q directions of the sphere, at one step and at each one's own", "diabetes", SETS),
        "d": Part("rows against directions at equal values a step", "diabetes", SETS),
    },
    seeds=10,
    figures=album,
)

SMALL = 1e-7  # a radius at which differences are good to 1e-9
METHODS = {"coordinates": CoordinateDifferences, "normal": GaussianSmoothing, "sphere": SphereSmoothing}
FACTORS = (0.5, 1.0, 2.0, 4.0)  # of the step of theory
RADII = tuple(float(f"1e{k}") for k in range(-13, 1))
QS = (1, 2, 5, 10, 20, 50)
CELLS = 16  # rows times directions of a step
FULL = RandomReshuffling(None)


# ---------------------------------------------------------------------------------------------------- own functions
def estimator(kind, radius, q=1, difference="forward"):
    more = () if kind == "coordinates" else (q,)
    return METHODS[kind](radius, *more, difference)


def by_method(runs):
    return [(f"{data} {NAMES[kind]}", some) for (data, kind), some in runs.groups("data", "method")]


def by_directions(runs):
    return [(f"{data} q={q}", some) for (data, q), some in runs.groups("data", "q")]


# ------------------------------------------------------------------------------------------------------------- grid
def problem(data, **more):
    return Recipe(ridge, data=data, kappa=KAPPA, **more)


def to_the_end(part, data, kind, lr, q=1, **tags):
    """Forward differences of a small radius, for twice as many steps as theory needs on average to the last target."""
    steps = theory(data).steps(kind, lr, TARGETS, q)[-1]
    steps = int(2 * steps) if np.isfinite(steps) else 4000
    tags = dict(data=data, n=theory(data).n, q=q, **tags)
    some = dict(stop=Stop(steps=steps, target=("relative", TARGETS[-1])), metrics=max(1, steps // 400), per="step")
    return Entry(part, problem(data), SGD(), FULL, lr, estimator=estimator(kind, SMALL, q), **some, **tags)


@experiment.runs
def runs(args):
    some = args.seeds[:3] if args.quick else None
    for data, kind in itertools.product(args.data_of("a"), METHODS):
        seeds = some if kind != "coordinates" else args.seeds[:1]
        for c in args.pick(FACTORS, (1.0,)):
            yield to_the_end("a", data, kind, c * theory(data).step(kind), method=kind, c=c, seeds=seeds)
    kinds = args.pick(tuple(METHODS), ("sphere",))
    for data, kind, difference in itertools.product(args.data_of("b"), kinds, ("forward", "central")):
        lr, memory = theory(data).step(kind), int(theory(data).memory(kind))
        more = dict(stop=Stop(steps=args.pick(10, 4) * memory), metrics=max(1, memory // 20), per="step")
        more |= dict(seeds=args.seeds[:3], data=data, method=kind, difference=difference)
        for radius in args.pick(RADII, (1e-11, 1e-7, 1e-5, 1e-3)):
            rule = estimator(kind, radius, 1, difference)
            yield Entry("b", problem(data, at_minimum=True), SGD(), FULL, lr, estimator=rule, **more, radius=radius)
    for data, q in itertools.product(args.data_of("c"), args.pick(QS, (1, 5))):
        for rule, own in (("common step", 1), ("own step", q)):
            yield to_the_end("c", data, "sphere", theory(data).step("sphere", own), q, seeds=some, rule=rule)
    for data, q in itertools.product(args.data_of("d"), args.pick(SHARES, SHARES[::2])):
        rule, lr, rows = SphereSmoothing(1e-4, q), SLOW * theory(data).step("sphere"), CELLS // q
        steps = int(args.pick(6, 0.5) * theory(data).memory("sphere") / SLOW)
        more = dict(stop=Stop(steps=steps), metrics=max(1, steps // 200), per="step")
        more |= dict(seeds=args.seeds[: args.pick(10, 3)], data=data, q=q, rows=rows)
        yield Entry("d", problem(data), SGD(), WithReplacement(rows), lr, estimator=rule, **more)


# ----------------------------------------------------------------------------------------------------------- claims
@experiment.claim(
    "a-coordinates",
    "differences along all coordinates take as many values as theory says",
    expected="to each of 1e-2, 1e-4, 1e-6, 1e-8 the predicted number, to 3 % or a row of the log",
)
def a_coordinates(results):
    def judged(data, some):
        t, row = theory(data), some[0].columns["values"][1] / theory(data).n
        wanted = np.array(t.steps("coordinates", t.step("coordinates"), TARGETS)) * t.cost("coordinates")
        found = np.array([counts(some, target)[0] for target in TARGETS])
        return f"{found[-1]:.0f} of {wanted[-1]}", bool((abs(found - wanted) <= np.maximum(0.03 * wanted, row)).all())

    return on_every(results.select("a", method="coordinates", c=1.0).groups("data"), judged)


for kind in ("normal", "sphere"):

    @experiment.claim(
        f"a-{kind}",
        f"{NAMES[kind]} directions: about as many values as second moments say, or fewer",
        expected="to 1e-2 .. 1e-8 the mean of log(measured/predicted) in log 0.6 .. log 1.2 (95 %)",
    )
    def a_random(results, kind=kind):
        def judged(data, some):
            wanted = np.array(theory(data).steps(kind, theory(data).step(kind), TARGETS)) * theory(data).cost(kind)
            logs = [np.log(counts(some, target) / w) for target, w in zip(TARGETS, wanted, strict=True)]
            text = " ".join(f"{np.exp(v.mean()):.2f}" for v in logs) + f" of {wanted[-1]}"
            return decided(text, *(within(v, np.log(0.6), np.log(1.2)) for v in logs))

        return on_every(results.select("a", method=kind, c=1.0).groups("data"), judged)


@experiment.claim(
    "a-equal",
    "all three need about as many function values",
    expected="to 1e-8 the largest mean at most 4 times the least, on every set: kappa d log(1/eps)",
)
def a_equal(results):
    def judged(data, some):
        found = [counts(runs, TARGETS[-1]).mean() for _, runs in some.groups("method")]
        return " ".join(f"{v:.0f}" for v in found), max(found) <= 4 * min(found)

    return on_every(results.select("a", c=1.0).groups("data"), judged)


@experiment.claim(
    "a-step",
    "of 1/2, 1, 2 and 4 times the step of theory the fastest is the one that moments name",
    expected="to 1e-8, mean over seeds: at most 10 % above the fastest, every method and set",
)
def a_step(results):
    def judged(name, some):
        t, kind = theory(some[0].tags["data"]), some[0].tags["method"]
        found = {c: counts(runs, TARGETS[-1]).mean() for c, runs in some.groups("c")}
        wanted = {c: t.steps(kind, c * t.step(kind), TARGETS)[-1] for c in found}
        chosen = min(wanted, key=wanted.get)
        text = f"{chosen:g}, ran best at {min(found, key=found.get):g}"
        return text, found[chosen] <= 1.1 * min(found.values()) if len(found) > 2 else None

    return on_every(by_method(results.select("a")), judged)


def floor_claim(id, text, expected, judged, difference="forward", source=""):
    experiment.claim(id, text, expected=expected + ", every method and set", source=source)(
        lambda results: on_every(by_method(results.select("b", difference=difference)), judged)
    )


def slope_of(some, low, high, wanted, margin):
    radii, levels = some.levels("gap", "radius")
    part = (radii > low) & (radii < high) & (levels > 0).all(0)  # 0: differences along coordinates that cancel
    slopes = np.array([slope(radii[part], row[part]) for row in levels])
    return spread(slopes, 3), within(slopes, wanted - margin, wanted + margin)


def levelled(name, some):
    radii, levels = some.levels("gap", "radius")
    at = int(np.abs(np.log(radii / 1e-3)).argmin())
    ratios = np.log(levels[:, at] / theory(some[0].tags["data"]).floor(some[0].tags["method"], radii[at]))
    return f"{np.exp(ratios.mean()):.3f}", within(ratios, np.log(0.8), np.log(1.2))


def turning(name, some):
    radii, levels = some.levels("gap", "radius")
    best = radii[np.log(levels).mean(0).argmin()]
    wanted = theory(some[0].tags["data"]).best_radius(some[0].tags["method"])
    return f"{best:.0e} ({wanted:.1e})", 0.09 <= best / wanted <= 11


def falling(name, some):
    radii, levels = some.levels("gap", "radius")
    last = levels[:, radii < 2e-3][:, -1]
    text, fits = slope_of(some, 0, 2e-3, -2, 0.3)
    return f"{text}, {last.mean():.1e}", fits and bool((last < 1e-24).all())


floor_claim(
    "b-slope",
    "the floor of forward differences rises as the square of the radius",
    "slope 2 ± 0.05 for radii from 1e-5 to 1",
    lambda name, some: slope_of(some, 0.5e-5, 2, 2, 0.05),
)
floor_claim(
    "b-level",
    "its level is that of theory: moments of order six, and H e = -mu diag(H)/2",
    "at radius 1e-3 within 20 % (95 %)",
    levelled,
)
floor_claim(
    "b-best",
    "it is lowest where rounding and curvature meet, each difference being off by eps |f*| / mu",
    "within a factor 10 of the predicted radius",
    turning,
    source="Nocedal & Wright, section 8.1, by moments",
)
floor_claim(
    "b-central",
    "central differences have no such floor: rounding alone, less the larger the radius",
    "slope -2 ± 0.3 for radii up to 1e-3, where it is below 1e-24",
    falling,
    "central",
)


@experiment.claim(
    "c-steps",
    "at their own step more directions need fewer steps, about as many as second moments say",
    expected="to 1e-6 the mean of log(measured/predicted) in log 0.6 .. log 1.2 (95 %), every q and set",
)
def c_steps(results):
    def judged(name, some):
        t, q = theory(some[0].tags["data"]), some[0].tags["q"]
        logs = np.log(counts(some, 1e-6) / (t.steps("sphere", t.step("sphere", q), TARGETS, q)[2] * (q + 1)))
        return f"{np.exp(logs.mean()):.2f}", within(logs, np.log(0.6), np.log(1.2))

    return on_every(by_directions(results.select("c", rule="own step")), judged)


@experiment.claim(
    "c-values",
    "but hardly fewer function values than one direction",
    expected="to 1e-6, own steps, q <= d: between 0.4 and 2.5 times those of q = 1, every set",
)
def c_values(results):
    def judged(data, some):
        means = {q: counts(runs, 1e-6).mean() for q, runs in some.groups("q") if q <= theory(data).d}
        ratios = [v / means[1] for q, v in means.items() if q > 1]
        return " ".join(f"{v:.2f}" for v in ratios), all(0.4 <= v <= 2.5 for v in ratios)

    return on_every(results.select("c", rule="own step").groups("data"), judged)


@experiment.claim(
    "c-common",
    "at one common step more directions save at most half of the steps, and cost values",
    expected="steps to 1e-6 with the most directions 0.45 to 1.1 times those with one (95 % of the log)",
)
def c_common(results):
    def judged(data, some):
        steps = {q: np.log(counts(runs, 1e-6) / (q + 1)) for q, runs in some.groups("q")}
        logs = steps[max(steps)] - steps[1]
        return f"{np.exp(logs.mean()):.2f}", within(logs, np.log(0.45), np.log(1.1))

    return on_every(results.select("c", rule="common step").groups("data"), judged)


@experiment.claim(
    "d-level",
    "with B rows and q directions the floor is that of the rows' noise, (q + d - 1)/(B q)",
    expected="B q = 16: within 25 % of the level of second moments (95 % over seeds), every q and set",
)
def d_level(results):
    def judged(name, some):
        t, tags = theory(some[0].tags["data"]), some[0].tags
        logs = np.log(some.late("gap") / t.row_floor(SLOW * t.step("sphere"), tags["q"], tags["rows"]))
        return f"{np.exp(logs.mean()):.2f}", within(logs, np.log(0.75), np.log(1.25))

    return on_every(by_directions(results.select("d")), judged)


@experiment.claim(
    "d-rows",
    "so rows are worth more than directions",
    expected="16 rows, 1 direction end below 1 row, 16 directions: by (15 + d)/d within 30 % (95 %)",
)
def d_rows(results):
    def judged(data, some):
        rows, directions = (np.log(some.select(q=q).late("gap")) for q in (1, CELLS))
        apart, wanted = directions - rows, np.log((CELLS - 1 + theory(data).d) / theory(data).d)
        text = f"{np.exp(apart.mean()):.2f} times ({np.exp(wanted):.2f})"
        return decided(text, lower(rows, directions), within(apart - wanted, np.log(0.7), np.log(1.3)))

    return on_every(results.select("d").groups("data"), judged)


if __name__ == "__main__":
    experiment.main()
