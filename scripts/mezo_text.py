"""Can a language model be fine-tuned by inference alone, from 16 texts of each class?   Course tasks A6 a, b and B4 b.

Prompts, as in MeZO (Malladi et al., NeurIPS 2023): "<text> it was <mask> .", the classes being two words at the gap; k
texts a class to train and k to choose rates by, drawn by the seed; five seeds; the same texts to test. The paper has
RoBERTa-large: 79.0 % untrained, MeZO 90.5 %, fine-tuning 91.9 % on SST-2 at k = 16, after 100,000 steps. --weights
FOLDER takes a published sentence encoder in its place, all-MiniLM-L6-v2 of 22.6 million numbers: the classes are two
sentences, "it was terrible ." and "it was great .", and 7 of 10 texts are sorted without training. Without it the model
is this project's, two layers of 96 that have filled gaps in 50,330 texts (`adam_text`), and guesses. What can be looked
at is the order of the methods and what they cost, not the paper's numbers.

Adam takes the gradient, of all weights, of the head alone (all behind the encoder) and of LoRA's matrices; MeZO, also
on these, MeZO with Adam, LOZO and LOZO-M two losses a step. Part v compares MeZO, MeZO-SVRG and LOZO at equal texts
forward, in batches of 16 of 128. Part r sweeps radius and rate. Part g measures memory and time of a step, of MeZO and
of Adam with the way back, as a model grows: MeZO's paper says up to 12 times less memory.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 --weights FOLDER about two hours for
part a, one each for b and v, half an hour for r, five minutes for g.
"""

import itertools
import time

from figures.mezo_text import album
from lab import Entry, Experiment, MissingRuns, Option, Part, Recipe
from lab.account import KINDS, account_of
from lab.claims import decided, inside, listed, spread, spreads
from lab.verdicts import Undecided, close, lower, within
from nn import LoRA
from npopt import (
    LOZO,
    SGD,
    Adam,
    BlockGradient,
    Blockwise,
    Events,
    Linear,
    MeZO,
    MeZOSVRG,
    RandomReshuffling,
    Stop,
    minimize,
)
from problems.encoders import weights_in
from problems.language import gpt
from problems.prompts import prompts

import numpy as np

experiment = Experiment(
    __doc__,
    task="A6",
    source="Malladi et al., NeurIPS 2023, arXiv:2305.17333; Gautam et al. 2024; Chen et al. 2024, arXiv:2410.07698",
    parts={
        "a": Part("16 texts a class", "opinions", "sst2-socher"),
        "b": Part("512 texts a class", "opinions", "sst2-socher"),
        "v": Part("variance reduction, at equal texts forward", "opinions", "sst2-socher"),
        "r": Part("radius and rate", "opinions", "sst2-socher"),
        "g": Part("memory and time of a step by size", "chain", "tinyshakespeare"),
    },
    options=[Option("--weights", metavar="FOLDER", help="of a published sentence encoder, in place of ours")],
    seeds=5,
    quick_seeds=1,
    figures=album,
)

BESIDE = {"sst2-socher": "goemotions", "opinions": "moods"}
HEAD = ["dense", "norm", "head"]  # blocks behind the encoder, those that there are; words' table is the encoder's
SLOW = {"MeZO": (SGD(), MeZO()), "MeZO-Adam": (Adam(), MeZO()), "LOZO": (SGD(), LOZO(4, 50)),
        "LOZO-M": (SGD(), LOZO(4, 50, momentum=0.9))}  # fmt: skip
RATES = {
    "Adam": (1e-4, 3e-4, 1e-3, 3e-3),
    "head": (1e-3, 3e-3, 1e-2, 3e-2),
    "LoRA": (1e-3, 3e-3, 1e-2, 3e-2),
    "MeZO": (1e-4, 3e-4, 1e-3, 3e-3),
    "MeZO-Adam": (3e-5, 1e-4, 3e-4, 1e-3),
    "LOZO": (1e-4, 3e-4, 1e-3, 3e-3),
    "LOZO-M": (1e-4, 3e-4, 1e-3, 3e-3),
    "MeZO-LoRA": (1e-3, 1e-2, 1e-1, 1.0),
}
PUBLISHED = RATES | dict.fromkeys(SLOW, (3e-5, 1e-4, 3e-4, 1e-3))  # with --weights
PUBLISHED |= {"Adam": (3e-6, 1e-5, 3e-5, 1e-4), "LoRA": (1e-4, 3e-4, 1e-3, 3e-3)}
WAY_BACK = ("Adam", "head", "LoRA")  # methods with gradients
REDUCED = {"MeZO": MeZO(), "MeZO-SVRG": MeZOSVRG(5), "LOZO": LOZO(4, 50)}
RADII = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
WIDTHS = (64, 128, 256, 384)


# ------------------------------------------------------------------------------------------------------------- grid
def sized(args, published, learned, quick):
    """A number of the grid, for each of the three models."""
    return quick if args.quick else published if args.weights else learned


def problem_of(data, args, k, lora=False):
    size = dict(size=2000, length=24, features=96, layers=2, heads=4, rate=1e-3, passes=1)
    size = args.pick(size, dict(size=400, length=20, features=32, layers=2, heads=2, rate=3e-3, passes=1))
    size |= dict(length=32, start=weights_in(args.weights)) if args.weights else {}
    some = dict(k=args.pick(k, min(k, 8)), test_rows=sized(args, 400, 1000, 60), moved=True)
    some |= dict(adapters=(LoRA, {"rank": 8, "alpha": 16.0})) if lora else {}
    return Recipe(prompts, data=data, beside=BESIDE[data], **some, **size)


def method_of(method, args):
    """(optimizer, estimator)"""
    if method in ("Adam", "LoRA"):
        return Adam(), None
    if method == "MeZO-LoRA":
        return SLOW["MeZO"]
    if method == "head":
        layers, head = 6 if args.weights else 2, HEAD[bool(args.weights) :]
        body = ["encoder", *(f"encoder.layer{i}" for i in range(1, layers + 1))]
        return Blockwise(Adam()), BlockGradient(1, size=0, always=head, never=body)
    return SLOW[method]


def steps_of(method, args):
    return sized(args, 32, 100, 8) if method in WAY_BACK else sized(args, 200, 2000, 20)


def few(part, data, args, method, lr, k, **tags):
    """A run of part a or b."""
    (optimizer, estimator), steps = method_of(method, args), steps_of(method, args)
    sampler = RandomReshuffling(min(2 * args.pick(k, min(k, 8)), 64))
    schedule = Linear(lr) if method in WAY_BACK else lr
    return Entry(part, problem_of(data, args, k, "LoRA" in method), optimizer, sampler, schedule, estimator=estimator,
                 stop=Stop(steps=steps), metrics=max(1, steps // sized(args, 4, 10, 10)), per="step", keep=False,
                 method=method, lr=lr, **tags)  # fmt: skip


def best_rate(found, part, **tags):
    """The rate that held-out texts choose with the first two seeds; None before it is known."""
    try:
        return found.select(part, stage="grid", **tags).tuned()[tags["method"]].value
    except (AttributeError, MissingRuns):
        return None


def staged(part, args, found, method, make):
    """A grid of rates with two seeds (with --weights: one), and the best of them with all."""
    rates = (PUBLISHED if args.weights else RATES)[method]
    for lr in args.pick(rates, ()):
        yield make(lr, seeds=args.seeds[: sized(args, 1, 2, 1)], stage="grid")
    best = rates[2] if args.quick else best_rate(found, part, method=method)
    if best:
        yield make(best, stage="chosen")


def grown(seed, events, data, features, method):
    """Memory by kind and seconds of a step of a GPT of four layers of this width on eight windows of 64."""

    def make():
        return gpt(data, 64, features, 4, 4, held=500)

    optimizer, estimator = (Adam(), None) if method == "Adam" else (SGD(), MeZO())
    found = account_of(make, optimizer, RandomReshuffling(8), estimator, 1e-6, seed)
    problem, steps = make(), 6
    problem.metrics = lambda x: {}
    given = dict(sampler=RandomReshuffling(8), schedule=1e-6, estimator=estimator, events=Events(None))
    minimize(problem, optimizer, **given, stop=Stop(steps=2))
    began = time.perf_counter()
    minimize(problem, optimizer, **given, stop=Stop(steps=steps))
    took = (time.perf_counter() - began) / steps
    sizes = {kind: [size] for kind, size in found.measured.items()}
    return sizes | {"numbers": [problem.dim], "step_seconds": [took]}


@experiment.runs
def runs(args, found=None):
    for part, k in (("a", 16), ("b", 512)):
        for data, method in itertools.product(args.data_of(part), RATES if part == "a" else ("Adam", "MeZO")):

            def make(lr, part=part, data=data, method=method, k=k, **tags):
                return few(part, data, args, method, lr, k, **tags)

            yield from staged(part, args, found, method, make)
    for data, (method, estimator) in itertools.product(args.data_of("v"), REDUCED.items()):
        for lr in args.pick((1e-4, 3e-4, 1e-3), (3e-4,)):
            yield Entry("v", problem_of(data, args, 64), SGD(), RandomReshuffling(16), lr, estimator=estimator,
                        stop=Stop(evaluations=sized(args, 6400, 40_000, 640)), metrics=sized(args, 100, 200, 4),
                        per="step", seeds=args.seeds[:3], keep=False, method=method, lr=lr)  # fmt: skip
    for data, radius, lr in itertools.product(args.data_of("r"), args.pick(RADII, RADII[2:4]), (1e-4, 1e-3)):
        sampler = RandomReshuffling(args.pick(32, 16))
        yield Entry("r", problem_of(data, args, 16), SGD(), sampler, lr, estimator=MeZO(radius),
                    stop=Stop(steps=sized(args, 50, 500, 10)), metrics=100, per="step", seeds=args.seeds[:3],
                    keep=False, radius=radius, lr=lr)  # fmt: skip
    for data, features in itertools.product(args.data_of("g"), args.pick(WIDTHS, (32, 64))):
        for method in ("Adam", "MeZO"):
            run = Recipe(grown, data=data, features=features, method=method)
            yield Entry("g", run=run, seeds=[0], method=method, features=features)


# ----------------------------------------------------------------------------------------------------------- claims
def best(results, part, method):
    return results.select(part, method=method, stage="chosen")


def gain(runs):
    """Points of test accuracy above the model that has not been trained on labels, one a run."""
    return 100 * (runs.final("test_accuracy") - runs.at("test_accuracy", 0))


def full(args):
    if args.quick:
        raise Undecided("--quick has too few steps")


@experiment.claim("a-edge", "the rates are wide enough", expected="the best rate is inside its grid, always")
def a_edge(results):
    return inside("a")(results.select("a", stage="grid"))


@experiment.claim(
    "a-zero",
    "the model knows something before it has seen a label",
    expected="without training at least two standard errors above a half: 53.2 % of 1,000 test texts, 55 % of 400",
    source="Malladi et al., Table 18: 79.0 % of SST-2 for RoBERTa-large",
)
def a_zero(results, args):
    start, texts = float(best(results, "a", "Adam").at("test_accuracy", 0)[0]), sized(args, 400, 1000, 60)
    return f"{100 * start:.1f} %", start >= 0.5 + 1 / texts**0.5


@experiment.claim(
    "a-mezo",
    "MeZO gains on the untrained model, from 32 texts",
    expected="test accuracy at least a point higher (95 % over draws of texts); false where it is not",
    source="Malladi et al., Table 18: 11.5 points",
)
def a_mezo(results, args):
    full(args)
    gains = gain(best(results, "a", "MeZO"))
    return f"{spread(gains)} points", within(gains, low=1)


@experiment.claim(
    "a-order",
    "fine-tuning with the gradient ends above MeZO",
    expected="test accuracy higher (95 % over draws of texts); false where lower",
    source="Malladi et al., Table 18: 91.9 against 90.5 %",
)
def a_order(results, args):
    full(args)
    ends = {m: best(results, "a", m).final("test_accuracy") for m in ("MeZO", "Adam")}
    return decided(spreads(ends), lower(*ends.values()))


for method, full_method in (("LoRA", "Adam"), ("MeZO-LoRA", "MeZO")):

    @experiment.claim(
        f"a-{method.lower()}",
        f"{method} ends where {full_method} on all weights does",
        expected="test accuracy within 2 points (95 % over draws of texts); false where they are farther apart",
        source="Malladi et al., Table 18: FT-LoRA 91.4 beside 91.9 %, MeZO-LoRA 91.4 beside 90.5 %",
    )
    def a_adapters(results, args, method=method, full_method=full_method):
        full(args)
        ends = {m: best(results, "a", m).final("test_accuracy") for m in (full_method, method)}
        return decided(spreads(ends), close(*ends.values(), 0.02))


@experiment.claim(
    "a-lozo",
    "LOZO learns the training texts better than MeZO",
    expected="training loss at the end lower by 5 % or more (95 % of the log); false where it is not",
    source="Chen et al. 2024, figures of accuracy",
)
def a_lozo(results, args):
    full(args)
    ends = {m: best(results, "a", m).final("train_loss") for m in ("LOZO", "MeZO")}
    return decided(spreads(ends), lower(*(np.log(v) for v in ends.values()), np.log(1.05)))


@experiment.claim(
    "b-more",
    "more texts help both",
    expected="test accuracy with 512 texts a class above that with 16 (95 %), for Adam and for MeZO",
    source="Malladi et al., Table 18",
)
def b_more(results, args):
    full(args)
    ends = {f"{m}, {n}": best(results, p, m).final("test_accuracy") for m in ("Adam", "MeZO")
            for p, n in (("a", 16), ("b", 512))}  # fmt: skip
    return decided(spreads(ends), *(lower(ends[f"{m}, 16"], ends[f"{m}, 512"]) for m in ("Adam", "MeZO")))


@experiment.claim(
    "v-svrg",
    "at equal texts forward MeZO-SVRG is ahead of MeZO",
    expected="training loss lower by 1 % or more, each at its best rate (95 % of the log); false where it is not",
    source="Gautam et al. 2024, abstract",
)
def v_svrg(results, args):
    full(args)
    tuned = results.select("v").tuned()
    ends = {m: tuned[m].runs.final("train_loss") for m in ("MeZO-SVRG", "MeZO")}
    return decided(spreads(ends), lower(*(np.log(v) for v in ends.values()), 0.01))


@experiment.claim(
    "r-flat",
    "the radius hardly matters between 1e-4 and 1e-2",
    expected="training losses at these radii within 2 % of that at 1e-3, at each rate (mean of the seeds)",
    source="differences are exact to O(mu^2); Malladi et al. take 1e-3",
)
def r_flat(results, args):
    full(args)
    worst = 0.0
    for _, runs in results.select("r").groups("lr"):
        means = runs.means("train_loss", "radius")
        worst = max(worst, *(abs(np.log(means[radius] / means[1e-3])) for radius in (1e-4, 1e-2)))
    return f"at most {100 * worst:.2g} %", bool(worst < 0.02)


def tops(results):
    """{(features, method): bytes at the highest point of a step}"""
    found = results.select("g")
    return {(r.tags["features"], r.tags["method"]): sum(r.final[kind] for kind in KINDS) for r in found}


@experiment.claim(
    "g-memory",
    "MeZO needs several times less memory than Adam with the way back",
    expected="at least 4 times less at each size (weights alone: 4 bytes of Adam's 16, activations aside)",
    source="Malladi et al., Figure 3: up to 12 times",
)
def g_memory(results):
    top = tops(results)
    ratios = {f: top[f, "Adam"] / top[f, "MeZO"] for f, m in top if m == "MeZO"}
    return listed({f"width {f}": f"{v:.1f}" for f, v in ratios.items()}), min(ratios.values()) >= 4


@experiment.claim(
    "g-time",
    "a step of MeZO takes less time than one with the way back",
    expected="less at each size: 2 passes forward against about 3, and the draws",
    source="Malladi et al., Table 23: 0.815 against 0.784 s at 1.3 B, less for larger ones",
)
def g_time(results):
    took = {(r.tags["features"], r.tags["method"]): r.final["step_seconds"] for r in results.select("g")}
    ratios = {f: took[f, "MeZO"] / took[f, "Adam"] for f, m in took if m == "MeZO"}
    return listed({f"width {f}": f"{v:.2f}" for f, v in ratios.items()}), max(ratios.values()) < 1


if __name__ == "__main__":
    experiment.main()
