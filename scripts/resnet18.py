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

Run time: --quick half a minute on 2 cores. --data real is for a GPU: --device gpu. Part a is 236,000 steps.
"""

import itertools

from lab import Entry, Experiment, Option, Part, Recipe, Undecided
from lab.charts import by_epoch
from lab.claims import compared, decided, inside, listed, spread, spreads
from lab.figures import MARKERS, below, curves, look, named, panels, said
from lab.options import whole
from lab.results import MissingRuns
from lab.verdicts import interval, lower, no_higher, within
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
        Option("--compute", choices=("float32", "float16", "bfloat16"), default="float32",
               help="type of activations; the last two on a GPU (default: float32)"),
    ],
    seeds=3,
)

BUDGETS = (600, 2400, 9600)
L2, DECAY = 5e-4, 0.5                                           # of the objective; decoupled
METHODS = {                                                     # part: {name: (optimizer, customary rate, l2)}
    "a": {"momentum SGD": (HeavyBall(0.9), 0.1, L2), "Adam": (Adam(), 1e-3, L2),
          "AdamW": (AdamW(weight_decay=DECAY), 1e-3, 0.0)},
    "b": {"SGD": (SGD(), 0.3, L2), "RMSProp": (RMSProp(), 1e-3, L2), "AdaGrad": (AdaGrad(), 0.01, L2)},
    "c": {"Adam-mini": (AdamMini(weight_decay=DECAY), 1e-3, 0.0),
          "Adafactor": (Adafactor(weight_decay=DECAY / 30), 0.03, 0.0),
          "Sophia-G": (SophiaG(weight_decay=DECAY), 1e-3, 0.0)},
}
FACTORS = (1 / 3, 1, 3, 9, 27)                                  # the last one not at the longest budget
NAMES = [name for methods in METHODS.values() for name in methods]
EPOCHS, BATCH, SCALE = 30, 512, 1024.0                          # of part w; of the loss, with activations of two bytes
WIDE = {"momentum SGD": 0.2, "Adam": 1e-3, "AdamW": 1e-3}       # rates of part w


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
    budgets, batch = args.pick(BUDGETS, (4, 8)), args.pick(128, 64)
    for part, methods in METHODS.items():
        for data, steps, (method, (optimizer, base, l2)) in itertools.product(
                args.data_of(part), budgets, methods.items()):
            problem = Recipe(resnet, data=data, width=args.width or args.pick(16, 4), rows=args.pick(None, 600),
                             validation=1 / 10, l2=l2, **more)
            factors = args.pick(FACTORS[: 4 if steps == budgets[-1] else 5], (1,))
            grid = [(base * factor, "grid") for factor in factors]
            best = base if args.quick else best_rate(found, method, steps)
            for lr, stage in [*grid, *([(best, "chosen")] if best else [])]:
                yield Entry(part, problem, optimizer, RandomReshuffling(batch), Cosine(lr), stop=Stop(steps=steps),
                            metrics=args.pick(steps // 12, steps), per="step", method=method, steps=steps, lr=lr,
                            stage=stage, seeds=args.seeds[:1] if stage == "grid" else None)
    for data in args.data_of("w"):
        for method, lr in WIDE.items():
            optimizer, _, l2 = METHODS["a"][method]
            problem = Recipe(resnet, data=data, width=args.pick(64, 4), rows=args.pick(None, 600), l2=l2, **more)
            yield Entry("w", problem, optimizer, RandomReshuffling(args.pick(BATCH, 64)), Cosine(lr), method=method,
                        stop=Stop(epochs=args.budget(EPOCHS, 2)), metrics=1)


# ----------------------------------------------------------------------------------------------------------- claims
def asked(results, args, part="a"):
    """The runs at the chosen rates, if this is the experiment that the claims are about."""
    if args.quick or args.data_of(part) != ["cifar-10-jpeg"] or (args.width or 16) != 16:
        raise Undecided("it speaks of width 16, all pictures and these budgets")
    return results.select(stage="chosen")


for part in METHODS:
    experiment.claim(f"{part}-edge", "the rates are wide enough", source="tuning of this script",
                     expected="the best rate is inside its grid at every budget")(
        lambda results, part=part: inside(part, of=("method", "steps"))(results.select(stage="grid")))


def order(id, one, two, steps, source, part="a"):
    """The claim that one ends above two at a budget."""
    @experiment.claim(id, f"after {steps:,} steps {one} is above {two}", source=source,
                      expected="test accuracy above (95 %); false where it is below, or alike to 0.2 points")
    def above(results, args):
        some = asked(results, args, part).select(steps=steps)
        return compared(some, one, two, "test_accuracy", None, lambda a, b: lower(b, a, 0.002))


for name in ("Adam", "AdamW"):
    order(f"a-early-{name}".lower(), name, "momentum SGD", 600, "the earlier runs at width 8")
for one, two, source in (("momentum SGD", "Adam", "Wilson et al., NeurIPS 2017"),
                         ("momentum SGD", "AdamW", "customary results"),
                         ("AdamW", "Adam", "Loshchilov & Hutter, ICLR 2019")):
    order(f"a-late-{one}-{two}".lower().replace(" ", "-"), one, two, BUDGETS[-1], source)
for one, two in (("momentum SGD", "SGD"), ("Adam", "RMSProp"), ("RMSProp", "AdaGrad")):
    order(f"b-{one}-{two}".lower().replace(" ", "-"), one, two, BUDGETS[-1], "pattern of Wilson et al., 2017", "b")


def ahead(results, one, two):
    """(budgets, (seeds, budgets) of test accuracy of one less that of two, in points)"""
    budgets = sorted(results.select(method=one).values("steps"))
    ends = [[100 * results.select(method=m, steps=b).final("test_accuracy") for b in budgets] for m in (one, two)]
    return np.array(budgets), np.subtract(*ends).T


def by_budget(budgets, apart):
    return listed({f"{b:,}:": spread(v, 2) for b, v in zip(budgets, apart.T, strict=True)})


def crossing(budgets, apart):
    """The budget at which a difference passes 0 from below, on a line over log steps; NaN where it does not."""
    for (a, before), (b, after) in itertools.pairwise(zip(budgets, apart, strict=True)):
        if before < 0 <= after:
            return float(a * (b / a) ** (before / (before - after)))
    return float("nan")


for name in ("Adam", "AdamW"):
    @experiment.claim(f"a-crossing-{name}".lower(), f"momentum SGD gains on {name} with the budget, and passes it",
                      expected="the difference in test accuracy at 9,600 steps is above that at 600 (95 %), and 0 lies "
                      "between their means; false where it falls, or is alike to 0.5 points",
                      source="Wilson et al., NeurIPS 2017, of long runs")
    def passes(results, args, name=name):
        budgets, apart = ahead(asked(results, args), "momentum SGD", name)
        at, means = crossing(budgets, apart.mean(0)), apart.mean(0)
        text = by_budget(budgets, apart)
        text += f" points; crossing near {at:,.0f} steps" if np.isfinite(at) else " points; no crossing"
        grows = lower(apart[:, 0], apart[:, -1], 0.5)
        return decided(text, grows if not grows else bool(means[0] < 0 <= means[-1]))


for name, text in (("Adam-mini", "within half a point of"), ("Sophia-G", "at most half a point above"),
                   ("Adafactor", "at most half a point above")):
    @experiment.claim(f"c-{name}".lower(), f"at every budget {name} ends {text} AdamW", source="hypothesis",
                      expected="test accuracies (95 %); false where it is farther away at one budget")
    def beside(results, args, name=name):
        budgets, apart = ahead(asked(results, args, "c"), name, "AdamW")
        low = -0.5 if name == "Adam-mini" else -np.inf
        return decided(by_budget(budgets, apart), *(within(v, low, 0.5) for v in apart.T))


def full(results, args):
    """The runs of part w, if this is the experiment that the claims are about."""
    if args.quick or args.data_of("w") != ["cifar-10-jpeg"] or args.budget(EPOCHS, 2) != EPOCHS:
        raise Undecided("it speaks of full width, all pictures and 30 epochs")
    return results.select("w")


@experiment.claim("w-accuracy", "full width: momentum SGD reaches 90 % on the test pictures",
                  expected=">= 90 % (95 %); networks of this kind reach 93 to 95 % on the original pictures",
                  source="He et al., CVPR 2016")
def w_accuracy(results, args):
    ends = {m: 100 * v for m, v in full(results, args).finals("test_accuracy").items()}
    return decided(spreads(ends), within(ends["momentum SGD"], 90))


for one, two in (("momentum SGD", "Adam"), ("momentum SGD", "AdamW"), ("AdamW", "Adam")):
    @experiment.claim(f"w-{one}-{two}".lower().replace(" ", "-"), f"full width: {one} ends above {two}",
                      expected="test accuracy above (95 %); false where it is below, or alike to 0.2 points")
    def w_order(results, args, one=one, two=two):
        return compared(full(results, args), one, two, "test_accuracy", None, lambda a, b: lower(b, a, 0.002))


@experiment.claim("w-early", "full width: after 3 epochs AdamW is not below momentum SGD",
                  expected="test accuracy below by at most 1 point (95 %)", source="part a at 600 steps")
def w_early(results, args):
    early = {m: 100 * full(results, args).select(method=m).at("test_accuracy", 3) for m in ("momentum SGD", "AdamW")}
    return decided(spreads(early), no_higher(*early.values(), 1))


# ---------------------------------------------------------------------------------------------------------- figures
def colour(tags):
    return NAMES.index(tags["method"])


def against_budget(ax, results, methods):
    """Test accuracy at the end against the budget, a line for each method; bars from the lowest to the highest seed."""
    for method in methods:
        ends = {steps: 100 * v for steps, v in results.select(method=method).finals("test_accuracy", "steps").items()}
        middle = [np.median(v) for v in ends.values()]
        bars = [[m - v.min() for m, v in zip(middle, ends.values(), strict=True)],
                [v.max() - m for m, v in zip(middle, ends.values(), strict=True)]]
        i = NAMES.index(method)
        ax.errorbar(list(ends), middle, bars, **look(i), marker=MARKERS[i % 8], capsize=3)
        ax.plot(list(ends), middle, color=look(i)["color"], lw=0, label=method)
    ax.set(xscale="log", xlabel="budget [steps]", ylabel="test accuracy at the end [%]")
    ax.set_xticks(list(ends), [f"{steps:,}" for steps in ends])
    ax.minorticks_off()
    named(ax)


@experiment.figure("budget.png", caption="Each budget is a run of its own with a cosine to its end, each method at "
                   "the rate that held-out pictures chose. Left: test accuracy. Right: by how much momentum SGD is "
                   "ahead (95 % intervals over seeds); where a line passes 0 the order turns.")
def budget_figure(results):
    figure, (left, right) = panels(1, 2, size=(12, 4.6))
    some = results.select(stage="chosen")
    against_budget(left, some, METHODS["a"])
    for name in ("Adam", "AdamW"):
        budgets, apart = ahead(some, "momentum SGD", name)
        found = np.array([interval(v) for v in apart.T])
        i = NAMES.index(name)
        right.errorbar(budgets, found[:, 0], found[:, 1], **look(i), marker=MARKERS[i], capsize=3)
        right.plot(budgets, found[:, 0], color=look(i)["color"], lw=0, label=f"less {name}")
    right.axhline(0, color="#888888", lw=1)
    right.set(xscale="log", xlabel="budget [steps]", ylabel="momentum SGD's lead [points]")
    right.set_xticks(budgets, [f"{steps:,}" for steps in budgets])
    right.minorticks_off()
    named(right)
    return figure


@experiment.figure("curves.png", caption="Training loss and test accuracy by step, a column for each budget, at the "
                   "chosen rates; metrics with the statistics of the weights at that step.")
def curves_figure(results):
    some = results.select("a", stage="chosen").with_column("accuracy", lambda c: 100 * c["test_accuracy"])
    groups = some.groups("steps")
    figure, grid = panels(2, len(groups), squeeze=False, size=(13, 7.2))
    for (top, bottom), (steps, runs) in zip(grid.T, groups, strict=True):
        for ax, column, text in ((top, "train_loss", "training loss"), (bottom, "accuracy", "test accuracy [%]")):
            curves(ax, runs, column, "step", ylabel=text, legend=False, label=lambda t: t["method"], colours=colour)
        top.set_title(f"{steps:,} steps")
    return below(figure, grid[0, 0], 3, title=said(len(some.seeds)))


@experiment.figure("others.png", caption="All methods against the budget. Left: those of task A4. Right: of task B1.")
def others_figure(results):
    figure, axes = panels(1, 2, size=(12, 4.6))
    some = results.select(stage="chosen")
    against_budget(axes[0], some, ["momentum SGD", "Adam", *METHODS["b"]])
    against_budget(axes[1], some, ["momentum SGD", "AdamW", *METHODS["c"]])
    return figure


@experiment.figure("wide.png", caption="ResNet-18 at full width, cosine, batch size 512, every epoch: training loss "
                   "(of 2,000 rows), training and test error, median and range over seeds.")
def wide_figure(results):
    figure, axes = panels(1, 3)
    by_epoch(axes, results.select("w"), logy=True)
    return below(figure, axes[0], 3, title=said(len(results.select("w").seeds)))


if __name__ == "__main__":
    experiment.main()
