"""Can a network be trained by function values alone?   Course tasks A6 c and B4 a; Malladi et al., NeurIPS 2023 (MeZO).

MeZO is SGD with s z, s the difference of two losses along z ~ N(0, I), in the memory of inference. On average it needs
tr H / (g'Hg/|g|^2) + 2 times the steps of SGD (a quadratic model of the loss; the best step of each): d + 2 if all
curvatures were alike, but only about the effective rank tr H / lmax if the gradient lies along the sharpest ones. So it
is meant for a start from which little has to be learned. Here LeNet-5 (tanh, mean pooling, so that it has a Hessian)
has learned 10,000 digits, and is to learn 1,600 that are moved by three pixels, from these weights or from scratch;
ResNet-20 has learned photographs, and is to learn their negatives. Beside SGD and MeZO: ZO-SGD (the same numbers with
the vectors kept), LOZO and LOZO-M (rank 2), DeepZero (differences along 1 % of the coordinates). Axes count batches of
64 rows forward: MeZO 2 a step, DeepZero 1 a coordinate; a gradient counts 3. Language models come later.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 15 minutes for LeNet, 12 for
ResNet-20 (--parts c).
"""

import itertools
import math

import nn
from figures.mezo import album, observed, passes
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, inside, listed, spread
from lab.measures import slowdown
from lab.verdicts import Undecided, close, lower, no_higher, shown
from npopt import LOZO, SGD, DeepZero, GaussianSmoothing, HeavyBall, MeZO, RandomReshuffling, Stop
from problems.adapted import BATCH, adapted

import numpy as np

experiment = Experiment(
    __doc__,
    task="A6",
    source="Malladi et al., NeurIPS 2023, arXiv:2305.17333; Chen et al. 2024, arXiv:2410.07698 and 2310.02025",
    parts={
        "a": Part("LeNet-5 that has learned a task nearby", "digits", "mnist"),
        "s": Part("LeNet-5 from scratch", "digits", "mnist"),
        "r": Part("the radius", "digits", "mnist"),
        "e": Part("effective rank at both starts", "digits", "mnist"),
        "c": Part("ResNet-20 that has learned a task nearby", "digits", "cifar-10-jpeg"),
    },
    seeds=3,
    quick_seeds=1,
    figures=album,
)

RATES = {  # a factor of 3 apart; DeepZero: 1 % of the coordinates
    "SGD": (0.03, 0.1, 0.3, 1.0),
    "MeZO": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "LOZO": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "LOZO-M": (3e-4, 1e-3),
    "DeepZero": (0.3,),
}
SCRATCH = {"SGD": (0.1, 0.3, 1.0), "MeZO": (3e-4, 1e-3, 3e-3), "DeepZero": (0.3,)}
DEEP = {"SGD": (0.01, 0.03, 0.1), "MeZO": (1e-4, 3e-4, 1e-3, 3e-3), "LOZO": (3e-4,), "DeepZero": (0.1,)}
GRIDS = {"a": RATES, "s": SCRATCH, "c": DEEP}
AFTER = (0, 30)  # steps of SGD before the Hessian is looked at
MIDDLE = 3e-4  # of MeZO's rates
RADII = tuple(float(f"1e{k}") for k in range(-6, 1))
START = {"a": "learned", "s": "scratch", "r": "learned", "c": "learned"}
SMOOTH = {"activation": nn.Tanh, "pool": "avg"}
SAMPLER = RandomReshuffling(BATCH, drop_last=True)


# ---------------------------------------------------------------------------------------------------- own functions
def estimators(part):
    sparse = 0.999 if part == "c" else 0.99
    return {
        "SGD": None,
        "MeZO": MeZO(),
        "ZO-SGD": GaussianSmoothing(),
        "LOZO": LOZO(2, 50),
        "LOZO-M": LOZO(2, 50, momentum=0.9),
        "DeepZero": DeepZero(sparse, every=5, queries=48),
    }


def steps_of(method, part, args):
    """(steps, steps between two rows of columns)"""
    full = {"SGD": 100, "DeepZero": 40} if part != "c" else {"SGD": 60, "DeepZero": 4}
    others = args.pick(250, 12) if part == "c" else args.pick(2000, 40)
    steps = args.pick(full, {"SGD": 12, "DeepZero": 2}).get(method, others)
    return steps, max(1, steps // (6 if part == "c" else args.pick(50, 10)))


def problem_of(part, data, args):
    size = dict(rows=args.pick(2000, 200), before=args.pick(10_000, 600), epochs=3, test_rows=args.pick(1000, 100))
    if part == "c":
        size |= {} if args.quick else dict(before=20_000, epochs=3)
        return Recipe(adapted, data=data, network="resnet20", width=args.pick(16, 4), **size)
    return Recipe(adapted, data=data, start=START[part], **size, **SMOOTH)


def entry(part, data, args, optimizer, rate, estimator, lengths, **tags):
    """`lengths`: how many steps, and the steps between two rows of columns."""
    steps, every = lengths
    some = dict(estimator=estimator, stop=Stop(steps=steps), metrics=every, per="step")
    return Entry(part, problem_of(part, data, args), optimizer, SAMPLER, rate, **some, **tags)


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    for part in "asc":
        for data, (method, rates) in itertools.product(args.data_of(part), GRIDS[part].items()):
            momentum = 0.9 if method == "DeepZero" else 0.0  # its rate: lr (1 - momentum)
            rule, lengths = estimators(part)[method], steps_of(method, part, args)
            for lr in args.pick(rates, rates[(len(rates) - 1) // 2 :][:1]):
                given = (HeavyBall(momentum), lr * (1 - momentum), rule, lengths)
                yield entry(part, data, args, *given, method=method, lr=lr)
    for data in args.data_of("a"):
        given = (HeavyBall(0.0), MIDDLE, GaussianSmoothing(), steps_of("ZO-SGD", "a", args))
        yield entry("a", data, args, *given, method="ZO-SGD", lr=MIDDLE)
    for data in args.data_of("r"):
        lengths = args.pick((1000, 100), (30, 15))
        for radius in args.pick(RADII, RADII[1::2]):
            yield entry("r", data, args, SGD(), MIDDLE, MeZO(radius), lengths, radius=radius)
    for data, start in itertools.product(args.data_of("e"), ("learned", "scratch")):
        arguments = problem_of("a", data, args).arguments | {"start": start}
        for after in AFTER:
            run = Recipe(slowdown, sampler=SAMPLER, after=after, **arguments)
            yield Entry("e", run=run, start=start, after=after, seeds=args.pick(None, args.seeds[:1]))


# ----------------------------------------------------------------------------------------------------------- claims
def best(results, part, method):
    """The runs of a method at its best rate, by the loss of held-out rows."""
    return results.select(part, method=method).tuned()[method].runs


def at(runs, column, value):
    """The training loss where a column has this value, between its rows, one a run."""
    return np.array([np.interp(value, run.columns[column], run.columns["train_loss"]) for run in runs])


def full(args):
    if args.quick:
        raise Undecided("--quick has too few steps")


def gain(runs):
    """Points of test accuracy above the start, one a run."""
    return 100 * (runs.final("test_accuracy") - runs.at("test_accuracy", 0))


@experiment.claim(
    "a-works",
    "from a start nearby MeZO learns the moved digits",
    expected="test accuracy at least 20 points above the start (95 % over seeds), at the rate that held-out loss "
    "chooses",
)
def a_works(results, args):
    full(args)
    found = gain(best(results, "a", "MeZO"))
    return decided(f"{spread(found, 3)} points", no_higher(20 - found, 0 * found, 0.0))


@experiment.claim(
    "a-same",
    "MeZO is ZO-SGD without the vectors",
    source="arXiv:2305.17333, section 2.1",
    expected="after all steps at rate 3e-4 training losses within 1 % of each other (95 % of the log)",
)
def a_same(results):
    one, two = (np.log(results.select("a", method=m, lr=MIDDLE).final("train_loss")) for m in ("MeZO", "ZO-SGD"))
    return decided(f"ratio {np.exp((one - two).mean()):.4f}", close(one, two, 0.01))


for part, where in (("a", "a start nearby"), ("s", "scratch")):

    @experiment.claim(
        f"{part}-order",
        f"from {where}, step by step: SGD ahead of DeepZero, DeepZero far ahead of MeZO",
        expected="training loss after all of DeepZero's steps, each at its best rate: lower (95 %)",
        source="differences along all coordinates are the gradient; along 1 % a part of it",
    )
    def order(results, part=part):
        ends = {m: best(results, part, m) for m in ("SGD", "DeepZero", "MeZO")}
        last = int(ends["DeepZero"][0].columns["step"][-1])
        early = {m: at(runs, "step", last) for m, runs in ends.items()}
        text = listed({m: f"{v.mean():.3g}" for m, v in early.items()})
        return decided(text, lower(early["SGD"], early["DeepZero"]), lower(early["DeepZero"], early["MeZO"]))

    @experiment.claim(
        f"{part}-gap",
        f"from {where} MeZO stays behind SGD at the end of both",
        expected="test accuracy lower by 2 points or more (95 %); from scratch by 10 or more",
    )
    def behind(results, part=part):
        sgd, mezo = (100 * best(results, part, m).final("test_accuracy") for m in ("SGD", "MeZO"))
        return decided(f"{shown(sgd, mezo, 3)} points", lower(mezo + (10 if part == "s" else 2), sgd))

    @experiment.claim(
        f"{part}-edge",
        "the rates are wide enough",
        expected="the best inside, where there are three",
        source="tuning of this script",
    )
    def edge(results, part=part):
        return inside(part)(results.select(method=lambda m: m in GRIDS[part] and len(GRIDS[part][m]) > 2))


@experiment.claim(
    "a-lozo",
    "directions of rank 2 are no worse than full ones",
    source="arXiv:2410.07698",
    expected="LOZO's last training loss at most 10 % above MeZO's, each at its best rate (95 %)",
)
def a_lozo(results):
    one, two = (np.log(best(results, "a", m).final("train_loss")) for m in ("LOZO", "MeZO"))
    return decided(f"ratio {np.exp((one - two).mean()):.3f}", no_higher(one, two, math.log(1.1)))


@experiment.claim(
    "a-values",
    "per function value differences along coordinates gain nothing on MeZO",
    expected="at as many values as MeZO's last, DeepZero's training loss is not below MeZO's (95 %)",
)
def a_values(results):
    mezo, deep = (passes(best(results, "a", m)) for m in ("MeZO", "DeepZero"))
    budget = mezo[0].columns["passes"][-1]
    ends, least = at(deep, "passes", budget), mezo.final("train_loss")
    return decided(f"{ends.mean():.3g} and {least.mean():.3g} at {budget:.0f}", no_higher(least, ends, 0.0))


@experiment.claim(
    "r-flat",
    "the radius hardly matters between rounding and curvature",
    expected="from 1e-4 to 1e-2 training losses within 10 % of each other; at 1e-6 (float32 rounds) and at 1 higher "
    "than at 1e-3",
)
def r_flat(results):
    ends = results.select("r").finals("train_loss", "radius")
    flat = [v.mean() for radius, v in ends.items() if 0.5e-4 < radius < 2e-2]
    text = listed({f"{radius:g}": f"{v.mean():.3g}" for radius, v in ends.items()})
    if not {1e-6, 1e-3, 1.0} <= set(ends):
        return text, None, "--quick has no radii at the ends"
    verdicts = [max(flat) <= 1.1 * min(flat)]
    verdicts += [bool(np.nan_to_num(ends[r], nan=np.inf).min() > ends[1e-3].max()) for r in (1e-6, 1.0)]
    return decided(text, *verdicts)


@experiment.claim(
    "e-rank",
    "the Hessian's effective rank is far below the number of weights",
    expected="tr H / lmax below d/100 in size, every seed, both starts, after 0 and 30 steps of SGD",
    source="arXiv:2305.17333, section 4",
)
def e_rank(results):
    found, d = results.select("e").finals("rank", "start", "after"), results.select("e").final("dim")[0]
    text = listed({f"{start} {after}": f"{v.mean():.3g}" for (start, after), v in found.items()})
    return f"{text}, d = {d:.0f}", all((abs(v) < d / 100).all() for v in found.values())


for part, start in (("a", "learned"), ("s", "scratch")):

    @experiment.claim(
        f"e-{start}",
        f"{start}: MeZO needs as many times SGD's steps as trace and curvature along g say",
        expected="steps to 70 % of the first training loss, each at its fastest rate: ratio within a factor 4 of tr H "
        "/ (g'Hg/|g|^2) + 2, after 30 steps of SGD (mean of the log over seeds)",
    )
    def explained(results, part=part, start=start):
        wanted, found = results.select("e", start=start, after=30).final("slowdown"), observed(results, part)
        if not len(found) or not np.isfinite(found).all() or (wanted <= 0).any():
            raise Undecided("no seed comes that far, or the curvature along g is not positive")
        text = f"{np.exp(np.log(found).mean()):.3g}, predicted {wanted.mean():.3g}"
        return text, bool(abs(np.log(found).mean() - np.log(wanted).mean()) <= math.log(4))


@experiment.claim(
    "c-works",
    "ResNet-20: MeZO gains a little of what SGD gains",
    expected="in 500 passes a test accuracy above the start, and less than half of what SGD gains in 180 (95 %)",
    source="no published number",
)
def c_works(results, args):
    full(args)
    sgd, mezo = (gain(best(results, "c", m)) for m in ("SGD", "MeZO"))
    verdicts = lower(0 * mezo, mezo), lower(mezo, sgd / 2)
    return decided(f"{spread(mezo, 3)} of {spread(sgd, 3)} points", *verdicts)


experiment.claim(
    "c-edge",
    "ResNet-20: the rates are wide enough",
    expected="the best inside, where there are three",
    source="tuning of this script",
)(lambda results: inside("c")(results.select("c", method=lambda m: len(DEEP[m]) > 2)))


if __name__ == "__main__":
    experiment.main()
