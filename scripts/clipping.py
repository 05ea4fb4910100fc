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
from lab import Entry, Experiment, MissingRuns, Part, Recipe, Undecided
from lab.claims import decided, inside, listed, slope, spread, spreads
from lab.verdicts import close, lower, no_higher, within
from npopt import Stop
from npopt.analysis.smoothness import relation
from npopt.estimators import Clipped, ClippedBySegment, ClippedByValue, Normalised
from npopt.optimizers import SGD, Adam, HeavyBall, MixedClipping
from npopt.samplers import RandomReshuffling, Sequential
from problems.followed import followed_language, followed_resnet
from problems.language import language
from problems.steep import clipped_steps, descent_steps, iterations, longest_step, walk

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
    quick_seeds=1,
    figures=album,
)

EPS = 1e-3
MS = tuple(float(f"{10**k:.4g}") for k in np.arange(1, 4.1, 0.5))
RATES = tuple(float(f"{1.05**-k:.4g}") for k in range(-14, 190))  # 2 to 1e-4
TOY = {  # (optimizer, estimator, rates): 0.1 = 1/(10 L0); where the whole is cut, steps of at most 1/(10 L1)
    "gradient descent": (SGD(), None, RATES),
    "clipped": (SGD(), Clipped(1.0), (0.1,)),
    "by value": (SGD(), ClippedByValue(1.0), (0.1,)),
    "by segment": (SGD(), ClippedBySegment(1.0), (0.1,)),
    "normalised": (SGD(), Normalised(1.0), (0.1,)),
    "clipped, momentum": (HeavyBall(0.9), Clipped(1.0), (0.01,)),  # in the long run ten times as far
    "momentum clipped": (MixedClipping(0.1, 0.9, 1.0), None, (0.1,)),
    "mixed": (MixedClipping(0.1, 0.9, 0.7), None, (0.1,)),
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
STEPS, LONG, EVERY = 300, 1200, 5


# ------------------------------------------------------------------------------------------------------------- grid
def best_rate(found, method):
    """The rate that the validation text chooses for a method; None before it is known."""
    try:
        return found.select("p", method=method, stage="all rates").tuned()[method].value
    except (AttributeError, MissingRuns):
        return None


@experiment.runs
def runs(args, found=None):
    for M in args.pick(MS, MS[::2][:3]):
        for name, (optimizer, estimator, rates) in TOY.items():
            rates = args.pick(rates, rates[:150])
            run = Recipe(iterations, optimizer=optimizer, estimator=estimator, M=M, rates=rates, eps=EPS)
            yield Entry("t", run=run, seeds=args.seeds[:1], method=name, M=M)
    run = Recipe(walk, estimator=Clipped(1.0), M=MS[-1], lr=0.1, steps=120)
    yield Entry("t", run=run, seeds=args.seeds[:1], method="path of clipped")
    for data in args.data_of("l"):
        sizes = args.pick(dict(units=100, rows=32), dict(units=16, rows=16))
        problem, stop = Recipe(followed_language, data=data, every=EVERY, **sizes), Stop(steps=args.pick(STEPS, 40))
        for name, (optimizer, estimator, lr) in PATHS["l"].items():
            how = dict(estimator=estimator, stop=stop, metrics=EVERY, per="step")
            yield Entry("l", problem, optimizer, Sequential(16), lr, **how, method=name)
    for data in args.data_of("r"):
        sizes, batch = args.pick(dict(width=4, rows=64), dict(width=2, rows=32)), RandomReshuffling(args.pick(64, 32))
        problem, stop = Recipe(followed_resnet, data=data, every=EVERY, **sizes), Stop(steps=args.pick(200, 10))
        for name, (optimizer, estimator, lr) in PATHS["r"].items():
            how = dict(estimator=estimator, stop=stop, metrics=EVERY, per="step")
            yield Entry("r", problem, optimizer, batch, lr, **how, method=name)
    for data in args.data_of("p"):
        problem = Recipe(language, data=data, units=args.pick(100, 16), held=args.pick(8000, 1000))
        short, long = args.pick((STEPS, LONG), (12, 24))
        for name, (optimizer, estimator, rates) in METHODS.items():
            stages = [(lr, "all rates", short, short // 4) for lr in args.pick(rates, rates[1:2])]
            chosen = rates[1] if args.quick else best_rate(found, name)
            if chosen is not None:
                stages.append((chosen, "chosen", long, long // 12))
            for lr, stage, steps, rows in stages:
                how = dict(estimator=estimator, stop=Stop(steps=steps), metrics=rows, per="step")
                yield Entry("p", problem, optimizer, Sequential(16), lr, **how, method=name, lr=lr, stage=stage)


# --------------------------------------------------------------------------------------------------- claims, part t
def needed(results, method):
    """{M: (the least iterations over rates, the rate that takes them)}"""
    some = {run.tags["M"]: run.columns for run in results.select("t", method=method, M=lambda M: True)}
    at = {M: int(np.nanargmin(columns["iterations"])) for M, columns in some.items()}
    return {M: (some[M]["iterations"][i], some[M]["lr"][i]) for M, i in at.items()}


def ratios(values):
    return f"{min(values):.3f} to {max(values):.3f} times"


@experiment.claim(
    "t-step",
    "gradient descent's best rate falls as the slope at the start rises, like 2u/M",
    expected="of rates 5 % apart the best is 0.8 to 1 times 2u/M, every M from 10 to 10^4",
    source="x - lr phi'(x) is nearer to 0 iff lr < 2 |x| / |phi'(x)|",
)
def t_step(results):
    values = [lr / longest_step(M) for M, (_, lr) in needed(results, "gradient descent").items()]
    return ratios(values), 0.8 <= min(values) and max(values) <= 1


@experiment.claim(
    "t-descent",
    "and its iterations grow as M / log M",
    expected="at its best rate 1 to 1.25 times log(1/eps) / -log(1 - 2u/M), rounded up, every M",
    source="the lower bound of Theorem 4, with a quadratic in place of the slow slope",
)
def t_descent(results):
    values = [count / descent_steps(M, EPS) for M, (count, _) in needed(results, "gradient descent").items()]
    return ratios(values), min(values) >= 1 and max(values) <= 1.25


@experiment.claim(
    "t-clipped",
    "clipped, one pair of constants serves every M: iterations grow as log M",
    expected="10 log M + 66, each M to 5 %; so 23 ± 2 more a decade",
    source="constants of Theorem 3",
)
def t_clipped(results):
    counts = {M: count for M, (count, _) in needed(results, "clipped").items()}
    values = [count / clipped_steps(M, EPS) for M, count in counts.items()]
    decade = np.polyfit(np.log10(list(counts)), list(counts.values()), 1)[0]
    holds = 0.95 <= min(values) and max(values) <= 1.05 and 21 <= decade <= 25
    return f"{ratios(values)}; {decade:.1f} a decade", holds


@experiment.claim(
    "t-forms",
    "so do the other forms: by value, by segment, normalised, of the momentum, mixed",
    expected="slope of log iterations against log M below 0.2 for each, above 0.75 for gradient descent",
    source="their steps are bounded by a constant; M / log M has 0.83 over these decades",
)
def t_forms(results):
    slopes = {}
    for method in TOY:
        found = needed(results, method)
        slopes[method] = slope(list(found), [count for count, _ in found.values()])
    first, *others = slopes.values()
    return listed({m: f"{v:.2f}" for m, v in slopes.items()}), first > 0.75 and max(others) < 0.2


@experiment.claim(
    "t-smooth",
    "the estimate along the path of a clipped run knows L0 and L1",
    expected="nowhere above L0 + L1 |g|; where |g| > 10 its ratio to |g| is 0.95 to 1",
    source="phi'' = max(L0, L1 |phi'|); the step is a tenth long",
)
def t_smooth(results):
    columns = results.select("t", method="path of clipped")[0].columns
    norm, found = columns["norm"], columns["smoothness"]
    over, steep = (found / (1 + norm)).max(), (found / norm)[norm > 10]
    holds = over <= 1 and 0.95 <= steep.min() and steep.max() <= 1
    return f"at most {over:.3f} (L0 + L1 |g|); {steep.min():.3f} to {steep.max():.3f} |g|", holds


# ------------------------------------------------------------------------------------------- claims, parts l, r, p
def on_real(id, statement, expected, source):
    """A claim on the runs of the part that its id begins with, if they are those on real data at full size."""

    def keep(judged):
        def of_part(results, args):
            part = id[0]
            if args.quick or args.data_of(part) != experiment.parts[part].real:
                raise Undecided(f"it speaks of {experiment.parts[part].real[0]} at the full size of this script")
            return judged(results.select(part))

        experiment.claim(id, statement, expected, source)(of_part)
        return judged

    return keep


def related(some, method, column="smoothness"):
    """(correlations, slopes) of log smoothness and log norm along the paths of a method; NaN where one diverged."""
    found = []
    for run in some.select(method=method):
        seen = np.isfinite(run.columns[column])
        line = relation(run.columns["norm"][seen], run.columns[column][seen])
        found.append((np.nan, np.nan) if run.diverged else (line.correlation, line.slope))
    return np.array(found).T


CLIPPED, PLAIN = PATHS["l"]
USUAL, LONG_STEPS = PATHS["r"]
for id, method, region, statement in (
    ("l-clipped", CLIPPED, dict(low=0.5), "clipped, with long steps, the LSTM is rougher where its gradient is longer"),
    ("r-usual", USUAL, dict(high=0.0), "the ResNet with usual momentum is smoother where its gradient is longer"),
    ("r-clipped", LONG_STEPS, dict(low=0.0), "clipped, with long steps, it goes the LSTM's way"),
):
    ((end, bound),) = region.items()
    expected = f"r of the logarithms {'above' if end == 'low' else 'below'} {bound:g} (95 %)"

    @on_real(id, statement, expected, "Figures 2 and 3, second-hand")
    def correlated(some, method=method, region=region):
        r = related(some, method)[0]
        return decided(spread(r, 2), within(r, **region))


@on_real("l-plain", "without clipping, at a small rate, r is smaller", "r lower (95 %, paired)", "Figure 2")
def plain_lower(some):
    r = {name: related(some, name)[0] for name in (CLIPPED, PLAIN)}
    return decided(spreads(r), lower(r[PLAIN], r[CLIPPED]))


@on_real("l-slope", "the clipped cloud rises as L0 + L1 |g| can", "slope from 0 to 1 (95 %)", "L0 >= 0, L1 >= 0")
def as_a_line(some):
    rise = related(some, CLIPPED)[1]
    return decided(spread(rise, 2), within(rise, 0, 1))


@on_real(
    "l-noise",
    "gradients on other rows at the two ends measure noise over the length of the step",
    "without clipping at least twice as much in the median (95 %), as with the released program's draws",
    "(g_a - g_b) / |d| does not vanish with d",
)
def noise(some):
    factors = [np.nanmedian(run.columns["other_rows"] / run.columns["midpoint"]) for run in some.select(method=PLAIN)]
    same, other = (spread(related(some, PLAIN, column)[0], 2) for column in ("midpoint", "other_rows"))
    return decided(f"{spread(factors, 2)} times; r {same}, then {other}", within(factors, low=2))


@on_real("p-edge", "the rates are wide enough", "every method's best rate is inside its grid", "tuning of this script")
def edge(some):
    return inside("p")(some.select(stage="all rates"))


def close_to(a, b):
    return close(a, b, 0.1)


for id, one, two, verdict, statement, expected, source in (
    ("p-clipped", "clipped SGD", "SGD", lower, "clipping lowers SGD's perplexity", "lower", "Zhang J., section 5"),
    ("p-adam", "Adam", "clipped SGD", lower, "Adam ends below clipped SGD", "lower", "Kunstner et al., NeurIPS 2024"),
    (
        "p-normalised",
        "normalised SGD",
        "clipped SGD",
        close_to,
        "both ways to shorten are alike",
        "within 0.1",
        "section 2",
    ),
):

    @on_real(id, statement, f"test loss {expected} (95 %), each at its own rate", source)
    def ordered(some, one=one, two=two, verdict=verdict):
        a, b = (some.select(method=method, stage="chosen").final("test_loss") for method in (one, two))
        return decided(f"perplexity {spread(np.exp(a))} and {spread(np.exp(b))}", verdict(a, b))


@on_real(
    "p-rate",
    "SGD cannot take the rate that clipped SGD wants",
    "at its first rate above a quarter of that it diverges or ends 0.1 above its own best (every seed)",
    "Zhang J. et al.: rate 30 with clipping, smaller without",
)
def rate(some):
    tuned = some.select(stage="all rates").tuned()
    own, wanted = tuned["SGD"], tuned["clipped SGD"].value
    there = [lr for lr in METHODS["SGD"][2] if lr >= wanted / 4]
    if not there:
        raise Undecided(f"clipped at {wanted:g}, and no rate of SGD is near")
    pairs = zip(some.select(method="SGD", lr=there[0], stage="all rates"), own.runs, strict=True)
    worse = [a.diverged or a.final["validation_loss"] - b.final["validation_loss"] > 0.1 for a, b in pairs]
    text = f"clipped at {wanted:g}, SGD best at {own.value:g}; at {there[0]:g} worse in {sum(worse)} of {len(worse)}"
    return text, all(worse)


@on_real(
    "p-budget",
    "the lead of clipping over SGD is no matter of the first steps",
    "in validation loss, at the end at least half of that after a quarter of the steps (95 %)",
    "Zhang B. et al.: ahead until the rate is lowered",
)
def budget(some):
    losses = [some.select(method=m, stage="chosen").stack("validation_loss", "step")[1] for m in ("SGD", "clipped SGD")]
    lead = losses[0] - losses[1]
    early, late = lead[:, lead.shape[1] // 4], lead[:, -1]
    return decided(f"{spread(early, 2)}, then {spread(late, 2)}", no_higher(early / 2, late, 0.0))


if __name__ == "__main__":
    experiment.main()
