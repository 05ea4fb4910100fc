"""Momentum SGD, Adam, AdamW on ResNet-18: does their order depend on the budget, and where do they cross?   Task A2.

The customary order on pictures, momentum SGD first and Adam with an L2 term last, is a statement about long runs.
After 600 steps at a quarter of the width the order seems to be the opposite. Here the budget is the question: 600,
2,400 and 9,600 steps of 128 pictures, a cosine to each budget's end, at width 16 of 64, on all 50,000 pictures, a
tenth of them held out. The rate of each method at each budget is chosen among five (four at the longest), a factor 3
apart, by the loss of held-out pictures with the first seed; all seeds are run at that rate. If the customary order is
one of long runs, the difference of momentum SGD and Adam in test accuracy grows with the budget and passes 0: where
it does is the finding.

The other methods of tasks A4 (SGD, RMSProp, AdaGrad) and B1 (Adam-mini, Adafactor, Sophia-G) stand beside them in
parts b and c; `adaptive` and `adam_variants` refer to them. Part w is the network at full width (11.2 M parameters),
30 epochs at customary rates.

Conventions: the L2 term l2/2 |x|^2 is part of the objective, on all parameters; methods with decoupled decay multiply
x by 1 - lr weight_decay. At the customary rates (0.1 with momentum, 1e-3) both shrink x by 1 - 5e-4 a step. Metrics
are taken with the statistics of 2,000 training pictures, not the running averages. The pictures are JPEG copies of
CIFAR-10's.

Run time: --quick about 10 seconds on one core. --data real is for a GPU: --device gpu. Part a is 236,000 steps.
"""

import itertools

from figures.resnet18 import ahead, album
from lab import Entry, Experiment, Option, Part, Recipe, Undecided
from lab.claims import decided, inside, larger, listed, spread, spreads
from lab.options import whole
from lab.results import MissingRuns
from lab.verdicts import lower, no_higher, within
from npopt import (
    SGD,
    Adafactor,
    AdaGrad,
    Adam,
    AdamMini,
    AdamW,
    Cosine,
    HeavyBall,
    RandomReshuffling,
    RMSProp,
    SophiaG,
    Stop,
)
from problems.classifiers import resnet

import numpy as np

experiment = Experiment(
    __doc__,
    task="A2, A4, B1",
    source="He et al., CVPR 2016; Kingma & Ba, ICLR 2015; Loshchilov & Hutter, ICLR 2019; Wilson et al., NeurIPS 2017",
    parts={
        "a": Part("momentum SGD, Adam, AdamW at three budgets", "digits", "cifar-10-jpeg"),
        "b": Part("SGD, RMSProp, AdaGrad beside them (A4)", "digits", "cifar-10-jpeg"),
        "c": Part("Adam-mini, Adafactor, Sophia-G beside them (B1)", "digits", "cifar-10-jpeg"),
        "w": Part("full width, 30 epochs, by epoch", "digits", "cifar-10-jpeg"),
    },
    options=[
        Option("--width", type=whole(1, "width"), help="channels of the first stage, parts a, b, c (default: 16)"),
        Option(
            "--compute",
            choices=("float32", "float16", "bfloat16"),
            default="float32",
            help="type of activations; the last two save time on a GPU alone (default: float32)",
        ),
    ],
    seeds=3,
    quick_seeds=1,
    figures=album,
)

BUDGETS = (600, 2400, 9600)
L2, DECAY = 5e-4, 0.5  # of the objective; decoupled
METHODS = {  # part: {name: (optimizer, customary rate, l2)}
    "a": {
        "momentum SGD": (HeavyBall(0.9), 0.1, L2),
        "Adam": (Adam(), 1e-3, L2),
        "AdamW": (AdamW(weight_decay=DECAY), 1e-3, 0.0),
    },
    "b": {"SGD": (SGD(), 0.3, L2), "RMSProp": (RMSProp(), 1e-3, L2), "AdaGrad": (AdaGrad(), 0.01, L2)},
    "c": {
        "Adam-mini": (AdamMini(weight_decay=DECAY), 1e-3, 0.0),
        "Adafactor": (Adafactor(weight_decay=DECAY / 30), 0.03, 0.0),
        "Sophia-G": (SophiaG(weight_decay=DECAY), 1e-3, 0.0),
    },
}
FACTORS = (1 / 3, 1, 3, 9, 27)  # the last one not at the longest budget
EPOCHS, BATCH, SCALE = 30, 512, 1024.0  # of part w; of the loss, with activations of two bytes
WIDE = {"momentum SGD": 0.2, "Adam": 1e-3, "AdamW": 1e-3}  # rates of part w


# ------------------------------------------------------------------------------------------------------------- grid
def best_rate(found, method, steps):
    """The rate that held-out pictures choose for a method at a budget; None before it is known."""
    try:
        return found.select(method=method, steps=steps, stage="grid").tuned()[method].value
    except (AttributeError, MissingRuns):
        return None


@experiment.runs
def runs(args, found=None):
    compute = None if args.compute == "float32" else args.compute
    more = dict(compute=compute, loss_scale=SCALE if compute else 1.0, metrics_batch=2000)
    width, batches = args.width or args.pick(16, 4), RandomReshuffling(args.pick(128, 64))
    budgets, rows = args.pick(BUDGETS, (4, 8)), args.pick(None, 300)
    for part, methods in METHODS.items():
        for data, steps, method in itertools.product(args.data_of(part), budgets, methods):
            optimizer, base, l2 = methods[method]
            problem = Recipe(resnet, data=data, width=width, rows=rows, validation=1 / 10, l2=l2, **more)
            length = dict(stop=Stop(steps=steps), metrics=args.pick(steps // 6, steps), per="step")
            factors = args.pick(FACTORS[: 4 if steps == budgets[-1] else 5], (1,))
            best = base if args.quick else best_rate(found, method, steps)
            for lr, stage in [(base * factor, "grid") for factor in factors] + [(best, "chosen")] * bool(best):
                tags = dict(method=method, steps=steps, lr=lr, stage=stage)
                seeds = args.seeds[:1] if stage == "grid" else None
                yield Entry(part, problem, optimizer, batches, Cosine(lr), seeds=seeds, **tags, **length)
    batches, length = RandomReshuffling(args.pick(BATCH, 64)), dict(stop=Stop(epochs=args.budget(EPOCHS, 2)), metrics=1)
    for data in args.data_of("w"):
        for method, lr in WIDE.items():
            optimizer, _, l2 = METHODS["a"][method]
            problem = Recipe(resnet, data=data, width=args.pick(64, 4), rows=rows, l2=l2, **more)
            yield Entry("w", problem, optimizer, batches, Cosine(lr), method=method, **length)


# ----------------------------------------------------------------------------------------------------------- claims
def asked(results, args, part="a"):
    """The runs at the chosen rates, if this is the experiment that the claims are about."""
    if args.quick or args.data_of(part) != ["cifar-10-jpeg"] or (args.width or 16) != 16:
        raise Undecided("it speaks of width 16, all pictures and these budgets")
    return results.select(stage="chosen")


for id in ("a-edge", "b-edge", "c-edge"):
    experiment.claim(
        id,
        "the rates are wide enough",
        source="tuning of this script",
        expected="the best rate is inside its grid at every budget",
    )(lambda results, part=id[0]: inside(part, of=("method", "steps"))(results.select(stage="grid")))


def above(some, one, two):
    """What a claim returns that holds if one ends above two."""
    return larger(None, one, two, "test_accuracy", margin=0.002)(some)


ABOVE = "test accuracy above (95 %); false where it is below, or alike to 0.2 points"
LATE, PATTERN = BUDGETS[-1], "pattern of Wilson et al., 2017"

for id, one, two, steps, source in (
    ("a-early-adam", "Adam", "momentum SGD", 600, "the earlier runs at width 8"),
    ("a-early-adamw", "AdamW", "momentum SGD", 600, "the earlier runs at width 8"),
    ("a-late-momentum-sgd-adam", "momentum SGD", "Adam", LATE, "Wilson et al., NeurIPS 2017"),
    ("a-late-momentum-sgd-adamw", "momentum SGD", "AdamW", LATE, "customary results"),
    ("a-late-adamw-adam", "AdamW", "Adam", LATE, "Loshchilov & Hutter, ICLR 2019"),
    ("b-momentum-sgd-sgd", "momentum SGD", "SGD", LATE, PATTERN),
    ("b-adam-rmsprop", "Adam", "RMSProp", LATE, PATTERN),
    ("b-rmsprop-adagrad", "RMSProp", "AdaGrad", LATE, PATTERN),
):

    @experiment.claim(id, f"after {steps:,} steps {one} is above {two}", expected=ABOVE, source=source)
    def order(results, args, part=id[0], steps=steps, one=one, two=two):
        return above(asked(results, args, part).select(steps=steps), one, two)


def by_budget(budgets, apart):
    return listed({f"{b:,}:": spread(v, 2) for b, v in zip(budgets, apart.T, strict=True)})


def crossing(budgets, apart):
    """The budget at which a difference passes 0 from below, on a line over log steps; NaN where it does not."""
    for (a, before), (b, after) in itertools.pairwise(zip(budgets, apart, strict=True)):
        if before < 0 <= after:
            return float(a * (b / a) ** (before / (before - after)))
    return float("nan")


for id, name in (("a-crossing-adam", "Adam"), ("a-crossing-adamw", "AdamW")):

    @experiment.claim(
        id,
        f"momentum SGD gains on {name} with the budget, and passes it",
        expected="the difference in test accuracy at 9,600 steps is above that at 600 (95 %), and 0 lies between their "
        "means; false where it falls, or is alike to 0.5 points",
        source="Wilson et al., NeurIPS 2017, of long runs",
    )
    def passes(results, args, name=name):
        budgets, apart = ahead(asked(results, args), "momentum SGD", name)
        at, means = crossing(budgets, apart.mean(0)), apart.mean(0)
        text = by_budget(budgets, apart)
        text += f" points; crossing near {at:,.0f} steps" if np.isfinite(at) else " points; no crossing"
        grows = lower(apart[:, 0], apart[:, -1], 0.5)
        return decided(text, grows if not grows else bool(means[0] < 0 <= means[-1]))


for id, name, text, low in (
    ("c-adam-mini", "Adam-mini", "within half a point of", -0.5),
    ("c-sophia-g", "Sophia-G", "at most half a point above", -np.inf),
    ("c-adafactor", "Adafactor", "at most half a point above", -np.inf),
):

    @experiment.claim(
        id,
        f"at every budget {name} ends {text} AdamW",
        source="hypothesis",
        expected="test accuracies (95 %); false where it is farther away at one budget",
    )
    def beside(results, args, name=name, low=low):
        budgets, apart = ahead(asked(results, args, "c"), name, "AdamW")
        return decided(by_budget(budgets, apart), *(within(v, low, 0.5) for v in apart.T))


def full(results, args):
    """The runs of part w, if this is the experiment that the claims are about."""
    if args.quick or args.data_of("w") != ["cifar-10-jpeg"] or args.budget(EPOCHS, 2) != EPOCHS:
        raise Undecided("it speaks of full width, all pictures and 30 epochs")
    return results.select("w")


@experiment.claim(
    "w-accuracy",
    "full width: momentum SGD reaches 90 % on the test pictures",
    expected=">= 90 % (95 %); networks of this kind reach 93 to 95 % on the original pictures",
    source="He et al., CVPR 2016",
)
def w_accuracy(results, args):
    ends = {m: 100 * v for m, v in full(results, args).finals("test_accuracy").items()}
    return decided(spreads(ends), within(ends["momentum SGD"], 90))


for id, one, two in (
    ("w-momentum-sgd-adam", "momentum SGD", "Adam"),
    ("w-momentum-sgd-adamw", "momentum SGD", "AdamW"),
    ("w-adamw-adam", "AdamW", "Adam"),
):

    @experiment.claim(id, f"full width: {one} ends above {two}", expected=ABOVE)
    def w_order(results, args, one=one, two=two):
        return above(full(results, args), one, two)


@experiment.claim(
    "w-early",
    "full width: after 3 epochs AdamW is not below momentum SGD",
    expected="test accuracy below by at most 1 point (95 %)",
    source="part a at 600 steps",
)
def w_early(results, args):
    early = {m: 100 * full(results, args).select(method=m).at("test_accuracy", 3) for m in ("momentum SGD", "AdamW")}
    return decided(spreads(early), no_higher(*early.values(), 1))


if __name__ == "__main__":
    experiment.main()
