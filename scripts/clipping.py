"""What does clipping a gradient gain, and is a loss really the rougher the longer its gradient?   Course task A11.

A function is (L0, L1)-smooth if |Hess f| <= L0 + L1 |grad f| (Zhang, He, Sra & Jadbabaie, ICLR 2020). Part t has one,
walls that rise like e^u, at M = |grad f| from 10 to 10^4 at the start. On a wall at u, phi'(u) = M = e^(u-1), gradient
descent comes down if and only if lr < 2u/M; the other coordinate then needs log(1/eps) / -log(1 - 2u/M) iterations, of
order M / log M. Clipped with the paper's constants (lr = 1/(10 L0), steps of at most 1/(10 L1)) it is u - 1 = log M,
a tenth a step, and then 0.9^t: 10 log M + 66 iterations, 23 more a decade, with one pair of constants for every M.

Parts l and r estimate the smoothness along the path of an LSTM and of a ResNet: gradients on the same rows at five
points of a step, no noise of sampling (npopt/analysis/smoothness.py). The paper sees it grow with the gradient's norm
where gradients are clipped and steps are long, hardly so in other runs of the LSTM, and the other way round in usual
runs of the ResNet. Part p compares perplexities, each method at the rate that the validation text chooses.

Scale: one LSTM layer of 100 units on the words of PTB (the paper: three of 1,150, 2 epochs for the cloud); 300 batches
of 16 windows of 20 words, a tenth of an epoch, for all rates; 1,200 at the chosen ones. The ResNet-20 has width 4 of 16
and sees 200 batches of 64. Evaluation: 8,000 tokens. No decay of rates, no dropout: early speed, said as such.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 40 minutes (part p: 30).
"""

from figures.clipping import album
from lab import (
    Entry,
    Experiment,
    MissingRuns,
    Part,
    Recipe,
    Undecided,
    decided,
    inside,
    listed,
    lower,
    no_higher,
    slope,
    spread,
    spreads,
    within,
)
from npopt import (
    SGD,
    Adam,
    Clipped,
    ClippedBySegment,
    ClippedByValue,
    Events,
    HeavyBall,
    MixedClipping,
    Normalised,
    RandomReshuffling,
    Sequential,
    Stop,
    minimize,
)
from npopt.analysis.smoothness import local_smoothness, relation
from problems.followed import followed_language, followed_resnet
from problems.language import language
from problems.steep import Steep

import numpy as np

experiment = Experiment(
    __doc__,
    task="A11",
    source="Zhang, He, Sra & Jadbabaie, ICLR 2020, arXiv:1905.11881; Zhang B. et al., NeurIPS 2020, arXiv:2010.02519",
    parts={
        "t": Part("walls that rise exponentially: iterations against M"),
        "l": Part("local smoothness along the path of an LSTM", "chain", "ptb"),
        "r": Part("local smoothness along the path of a ResNet", "digits", "cifar-10-jpeg"),
        "p": Part("perplexity of an LSTM", "chain", "ptb"),
    },
    seeds=3,
    figures=album,
)

EPS, MOST = 1e-3, 50_000
MS = tuple(float(f"{10**k:.4g}") for k in np.arange(1, 4.1, 0.5))
RATES = tuple(float(f"{1.05**-k:.4g}") for k in range(-14, 190))  # 2 to 1e-4
FORMS = {  # name: (optimizer, estimator, lr): 0.1 = 1/(10 L0), and where the whole is cut, steps of at most 1/(10 L1)
    "clipped": (SGD(), Clipped(1.0), 0.1),
    "by value": (SGD(), ClippedByValue(1.0), 0.1),
    "by segment": (SGD(), ClippedBySegment(1.0), 0.1),
    "normalised": (SGD(), Normalised(1.0), 0.1),
    "clipped, momentum": (HeavyBall(0.9), Clipped(1.0), 0.01),  # in the long run ten times as far
    "momentum clipped": (MixedClipping(0.1, 0.9, 1.0), None, 0.1),
    "mixed": (MixedClipping(0.1, 0.9, 0.7), None, 0.1),
}
C = 0.25  # bound of the gradient's norm, as in the authors' program
PATHS = {  # part: {name: (optimizer, estimator, rate)}
    "l": {"clipped, rate 30": (SGD(), Clipped(C), 30.0), "not clipped, rate 2": (SGD(), None, 2.0)},
    "r": {"not clipped, rate 0.1": (HeavyBall(0.9), None, 0.1), "clipped, rate 1": (HeavyBall(0.9), Clipped(0.1), 1.0)},
}
METHODS = {  # name: (optimizer, estimator, rates)
    "SGD": (SGD(), None, (0.5, 1.5, 5.0, 15.0)),
    "clipped SGD": (SGD(), Clipped(C), (3.3, 10.0, 30.0, 90.0)),
    "normalised SGD": (SGD(), Normalised(), (0.83, 2.5, 7.5, 22.0)),
    "Adam": (Adam(), None, (1e-3, 3e-3, 1e-2, 3e-2)),
}
STEPS, LONG = 300, 1200


# ------------------------------------------------------------------------------------------------------------- grid
def iterations(optimizer, estimator, M, rates, seed, events):
    """Iterations until |grad f| <= EPS from (1 + log M, 1), for each rate, falling; NaN where it diverges or takes
    MOST. It ends where a rate takes twice as long as the best."""
    found, best = {"lr": [], "iterations": []}, MOST / 2
    for lr in rates:
        stop = Stop(steps=int(2 * best), target=("gradient_norm", EPS))
        run = minimize(Steep.on_wall(M, 1.0), optimizer, None, lr, estimator, stop=stop, events=Events(1, "step"))
        arrived = run.reason == "target"
        found["lr"].append(lr)
        found["iterations"].append(float(run.final["step"]) if arrived else np.nan)
        best = min(best, run.final["step"]) if arrived else best
        if not arrived and not run.diverged and best < MOST / 2:
            break
    return found


def walls(estimator, M, lr, steps, seed, events):
    """Local smoothness of each step from (1 + log M, 1)."""
    problem, found = Steep.on_wall(M, 1.0), {"step": [], "norm": [], "smoothness": []}
    x = problem.x0(None)
    for t in range(steps):
        y = minimize(problem, SGD(), None, lr, estimator, stop=Stop(steps=1), x=x).x
        seen = local_smoothness(problem, x, y)
        for name, value in zip(found, (t, seen.norm, seen.largest), strict=True):
            found[name].append(value)
        x = y
    return found


def best_rate(found, method):
    """The rate that the validation text chooses for a method; None before it is known."""
    try:
        return found.select("p", method=method, stage="all rates").tuned()[method].value
    except (AttributeError, MissingRuns):
        return None


@experiment.runs
def runs(args, found=None):
    one = args.seeds[:1]
    for M in args.pick(MS, MS[::2][:3]):
        toy = {"gradient descent": (SGD(), None, RATES)} | {name: (*v[:2], v[2:]) for name, v in FORMS.items()}
        for name, (optimizer, estimator, rates) in toy.items():
            run = Recipe(iterations, optimizer=optimizer, estimator=estimator, M=M, rates=rates)
            yield Entry("t", run=run, seeds=one, method=name, M=M)
    run = Recipe(walls, estimator=Clipped(1.0), M=MS[-1], lr=0.1, steps=120)
    yield Entry("t", run=run, seeds=one, method="path of clipped")
    for data in args.data_of("l"):
        every, steps = 5, args.pick(STEPS, 40)
        problem = Recipe(followed_language, data=data, units=args.pick(100, 16), every=every, rows=args.pick(32, 16))
        for name, (optimizer, estimator, lr) in PATHS["l"].items():
            yield Entry("l", problem, optimizer, Sequential(16), lr, estimator=estimator, stop=Stop(steps=steps),
                        metrics=every, per="step", method=name)  # fmt: skip
    for data in args.data_of("r"):
        every, steps = 5, args.pick(200, 20)
        problem = Recipe(followed_resnet, data=data, width=args.pick(4, 2), every=every, rows=args.pick(64, 32))
        for name, (optimizer, estimator, lr) in PATHS["r"].items():
            yield Entry("r", problem, optimizer, RandomReshuffling(args.pick(64, 32)), lr, estimator=estimator,
                        stop=Stop(steps=steps), metrics=every, per="step", method=name)  # fmt: skip
    for data in args.data_of("p"):
        problem = Recipe(language, data=data, units=args.pick(100, 16), held=args.pick(8000, 2000))
        for name, (optimizer, estimator, rates) in METHODS.items():
            some = [(lr, "all rates", args.pick(STEPS, 20)) for lr in args.pick(rates, rates[1:2])]
            chosen = rates[1] if args.quick else best_rate(found, name)
            some += [(chosen, "chosen", args.pick(LONG, 40))] if chosen else []
            for lr, stage, steps in some:
                yield Entry("p", problem, optimizer, Sequential(16), lr, estimator=estimator, stop=Stop(steps=steps),
                            metrics=steps // 4 if stage == "all rates" else args.pick(100, 10), per="step",
                            method=name, lr=lr, stage=stage)  # fmt: skip


# --------------------------------------------------------------------------------------------------- claims, part t
def needed(results, method):
    """({M: the least iterations over rates}, {M: the rate that takes them})"""
    some = {run.tags["M"]: run.columns for run in results.select("t", method=method, M=lambda M: True)}
    at = {M: int(np.nanargmin(c["iterations"])) for M, c in some.items()}
    return {M: some[M]["iterations"][i] for M, i in at.items()}, {M: some[M]["lr"][i] for M, i in at.items()}


def longest(M):
    """The rate from which on gradient descent does not come down a wall of slope M."""
    return 2 * (1 + np.log(M)) / M


def by_theory(M, method):
    """The number of iterations; a part of one is one more."""
    if method == "gradient descent":
        return np.ceil(np.log(1 / EPS) / -np.log1p(-longest(M)))
    return np.ceil(10 * np.log(M) + np.log(1 / EPS) / -np.log(0.9))


def ratios(found, wanted):
    values = [value / wanted(M) for M, value in found.items()]
    return f"{min(values):.3f} to {max(values):.3f} times", values


@experiment.claim("t-step", "gradient descent's best rate falls as the slope at the start rises, like 2u/M",
                  expected="of rates 5 % apart the best is 0.8 to 1 times 2u/M, every M from 10 to 10^4",
                  source="x - lr phi'(x) is nearer to 0 iff lr < 2 |x| / |phi'(x)|")  # fmt: skip
def t_step(results):
    text, values = ratios(needed(results, "gradient descent")[1], longest)
    return text, 0.8 <= min(values) and max(values) <= 1


@experiment.claim("t-descent", "and its iterations grow as M / log M",
                  expected="at its best rate 1 to 1.25 times log(1/eps) / -log(1 - 2u/M), rounded up, every M",
                  source="the lower bound of Theorem 4, with a quadratic in place of the slow slope")  # fmt: skip
def t_descent(results):
    text, values = ratios(needed(results, "gradient descent")[0], lambda M: by_theory(M, "gradient descent"))
    return text, min(values) >= 1 and max(values) <= 1.25


@experiment.claim(
    "t-clipped",
    "clipped, one pair of constants serves every M: iterations grow as log M",
    expected="10 log M + 66, each M to 5 %; so 23 ± 2 more a decade",
    source="constants of Theorem 3",
)
def t_clipped(results):  # fmt: skip
    found = needed(results, "clipped")[0]
    text, values = ratios(found, lambda M: by_theory(M, "clipped"))
    decade = np.polyfit(np.log10(list(found)), list(found.values()), 1)[0]
    return f"{text}; {decade:.1f} a decade", max(abs(v - 1) for v in map(float, values)) <= 0.05 and 21 <= decade <= 25


@experiment.claim("t-forms", "so do the other forms: by value, by segment, normalised, of the momentum, mixed",
                  expected="slope of log iterations against log M below 0.2 for each, above 0.75 for gradient descent",
                  source="their steps are bounded by a constant; M / log M has 0.83 over these decades")  # fmt: skip
def t_forms(results):
    found = {m: needed(results, m)[0] for m in ("gradient descent", *FORMS)}
    slopes = {m: slope(list(some), list(some.values())) for m, some in found.items()}
    first, *others = slopes.values()
    return listed({m: f"{v:.2f}" for m, v in slopes.items()}), first > 0.75 and max(others) < 0.2


@experiment.claim("t-smooth", "the estimate along the path of a clipped run knows L0 and L1",
                  expected="nowhere above L0 + L1 |g|; where |g| > 10 its ratio to |g| is 0.95 to 1",
                  source="phi'' = max(L0, L1 |phi'|); the step is a tenth long")  # fmt: skip
def t_smooth(results):
    columns = results.select("t", method="path of clipped")[0].columns
    norm, found = columns["norm"], columns["smoothness"]
    over, steep = (found / (1 + norm)).max(), (found / norm)[norm > 10]
    return (f"at most {over:.3f} (L0 + L1 |g|); {steep.min():.3f} to {steep.max():.3f}",
            over <= 1 and steep.min() >= 0.95 and steep.max() <= 1)  # fmt: skip


# ------------------------------------------------------------------------------------------- claims, parts l, r, p
def asked(results, args, part):
    """The runs of a part, if the claim is about them."""
    if args.quick or args.data_of(part) != experiment.parts[part].real:
        raise Undecided(f"it speaks of {experiment.parts[part].real[0]} at the full size of this script")
    return results.select(part)


def related(runs, column="smoothness"):
    """(correlations, slopes) of log smoothness and log norm along each run's path."""
    some = [relation(*(run.columns[name][np.isfinite(run.columns[column])] for name in ("norm", column)))
            for run in runs if not run.diverged]  # fmt: skip
    return np.array([found.correlation for found in some]), np.array([found.slope for found in some])


def path_claim(id, part, text, expected, judged, source):
    """A claim on the two paths of a part: judged(runs of the first, of the second) -> what a claim returns."""

    def of_paths(results, args):
        some = asked(results, args, part)
        return judged(*(some.select(method=name) for name in PATHS[part]))

    experiment.claim(id, text, expected=expected, source=source)(of_paths)


def one_sided(first, low, high):
    r = related(first)[0]
    return decided(spread(r, 2), within(r, low, high))


def noisy(clipped, plain):
    factors = [np.nanmedian(run.columns["other_rows"] / run.columns["midpoint"]) for run in plain]
    ours, theirs = related(plain, "midpoint")[0], related(plain, "other_rows")[0]
    return decided(f"{spread(np.array(factors), 2)} times; r {spread(ours, 2)}, then {spread(theirs, 2)}",
                   within(factors, low=2))  # fmt: skip


FIGURES = "Figures 2 and 3"
path_claim("l-clipped", "l", "clipped, with long steps, the LSTM is the rougher the longer its gradient",
           "r of the logarithms above 0.5 (95 %)", lambda one, two: one_sided(one, 0.5, 1), FIGURES)  # fmt: skip
path_claim("l-plain", "l", "without clipping, at a small rate, the correlation is weaker", "r lower (95 %, paired)",
           lambda one, two: decided(spreads({"clipped": related(one)[0], "not": related(two)[0]}),
                                    lower(related(two)[0], related(one)[0])), FIGURES)  # fmt: skip
path_claim("l-slope", "l", "the clipped cloud rises as L0 + L1 |g| allows", "slope from 0 to 1 (95 %)",
           lambda one, two: decided(spread(related(one)[1], 2), within(related(one)[1], 0, 1)),
           "a line with L0 >= 0 has at most slope 1 in logarithms")  # fmt: skip
path_claim("l-noise", "l", "gradients on other rows at the two ends measure noise over the length of the step",
           "without clipping at least twice as much in the median, as with the released program's draws (95 %)",
           noisy, "(g_a - g_b) / |d| does not vanish")  # fmt: skip
path_claim("r-plain", "r", "the ResNet with usual momentum goes the other way: smoother where its gradient is long",
           "r below 0 (95 %)", lambda one, two: one_sided(one, -1, 0), "Figure 3, second-hand")  # fmt: skip
path_claim("r-clipped", "r", "clipped, with long steps, it goes the LSTM's way", "r above 0 (95 %)",
           lambda one, two: one_sided(two, 0, 1), "Figure 3")  # fmt: skip

experiment.claim("p-edge", "the rates are wide enough", source="tuning of this script",
                 expected="every method's best rate is inside its grid")(
    lambda results, args: inside("p")(asked(results, args, "p").select(stage="all rates")))  # fmt: skip


def ends(results, args, method, stage="chosen"):
    return asked(results, args, "p").select(method=method, stage=stage).final("test_loss")


def ordered(id, one, two, text, expected, verdict, source):
    """A claim on the test losses of two methods at their chosen rates after LONG steps."""

    def judged(results, args):
        a, b = (ends(results, args, method) for method in (one, two))
        return decided(f"perplexity {spread(np.exp(a))} and {spread(np.exp(b))}", verdict(a, b))

    experiment.claim(id, text, expected=expected, source=source)(judged)


ordered("p-clipped", "clipped SGD", "SGD", "clipping lowers SGD's perplexity, each at its own rate",
        "test loss lower (95 %)", lower, "Zhang J. et al., section 5; Zhang B. et al., PTB")  # fmt: skip
ordered("p-normalised", "normalised SGD", "clipped SGD", "normalised and clipped SGD are alike",
        "test losses within 0.1 (95 %)", lambda a, b: within(a - b, -0.1, 0.1),
        "their steps differ by at most a factor of two: section 2")  # fmt: skip
ordered("p-adam", "Adam", "clipped SGD", "Adam ends below clipped SGD", "test loss lower (95 %)", lower,
        "Kunstner et al., NeurIPS 2024: words of unequal frequency")  # fmt: skip


@experiment.claim("p-rate", "SGD cannot take the rate that clipped SGD wants",
                  expected="at a quarter or more of it SGD diverges or ends 0.1 above its own best (every seed)",
                  source="Zhang J. et al.: lr 30 and clipping, smaller without")  # fmt: skip
def p_rate(results, args):
    some = asked(results, args, "p").select(stage="all rates")
    own, wanted = some.tuned()["SGD"], some.tuned()["clipped SGD"].value
    there = [lr for lr in METHODS["SGD"][2] if lr >= wanted / 4]
    if not there:
        return f"clipped at {wanted:g}; SGD at most {METHODS['SGD'][2][-1]:g}", None, "the grids do not meet"
    runs = some.select(method="SGD", lr=there[0])
    worse = [run.diverged or run.final["validation_loss"] - best > 0.1
             for run, best in zip(runs, own.runs.final("validation_loss"), strict=True)]  # fmt: skip
    return f"clipped at {wanted:g}, SGD best at {own.value:g}; at {there[0]:g} worse in {sum(worse)} of {len(worse)}", \
        all(worse)  # fmt: skip


@experiment.claim("p-budget", "the lead of clipping is no matter of the first steps",
                  expected="in validation loss, at the end at least half of that after a quarter of the steps (95 %)",
                  source="Zhang B. et al.: ahead until the rate is lowered")  # fmt: skip
def p_budget(results, args):
    some = asked(results, args, "p").select(stage="chosen")
    curves = [np.array([run.columns["validation_loss"] for run in some.select(method=method)])
              for method in ("SGD", "clipped SGD")]  # fmt: skip
    lead = curves[0] - curves[1]
    early, late = lead[:, lead.shape[1] // 4], lead[:, -1]
    return decided(f"{spread(early, 2)}, then {spread(late, 2)}", no_higher(early / 2, late, 0.0))


if __name__ == "__main__":
    experiment.main()
