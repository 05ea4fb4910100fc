"""Do SVRG and SAGA lower the variance of a network's gradient, and does it help?   Course task A9, its last part.

Both are made for sums of fixed functions. So the rows are fixed mini-batches (problems/batched.py): f_k is the loss of
batch k, with its own batch statistics, and with augmentation that stays as it is within a stage. SVRG's estimate
grad f_k(x) - grad f_k(w) + grad f(w) then has no variance at its snapshot w, and for L-smooth f_k at most
L^2 |x - w|^2: it grows with the square of the distance, so like steps^2 where x drifts, like steps where noise drives
it. A stage of one pass costs three gradients a step, so SVRG gains only if over a stage its variance is below a third
of the plain one's, and loses outright where it is above it (Defazio & Bottou). For linear problems that is a matter of
the rate; networks move far in one pass and curve. A smaller rate keeps x near w, and leaves less noise to be removed.

Part a gives all methods the same number of gradients, each at its best rate by the held-out loss of the first seed.
Parts v and r measure
both variances at the same points, from a sample of the batches, with three seeds. Momentum is left out: the methods'
own papers have none.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 30 minutes for each part.
"""

import itertools

from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, inside, listed, no_larger, spread, spreads
from lab.figures import closer, curves, look, mark, named, panels
from lab.results import MissingRuns, middle_and_band
from lab.verdicts import lower, shown, together, within
from nn.networks import small_cnn
from npopt import SAGA, SGD, SVRG, Minibatch, Stop, WithReplacement
from problems import Neural
from problems.batched import Batched
from problems.classifiers import resnet, shortened
from problems.datasets import shared
from problems.feeds import Images

import matplotlib
import numpy as np
from matplotlib import ticker

experiment = Experiment(
    __doc__,
    task="A9",
    source="Johnson & Zhang, NIPS 2013; Defazio et al., NIPS 2014; Defazio & Bottou, NeurIPS 2019, arXiv:1812.04529",
    parts={
        "a": Part("equal numbers of gradients, small CNN", "digits", "fashion-mnist"),
        "v": Part("variance within stages, small CNN", "digits", "fashion-mnist"),
        "r": Part("variance within stages, ResNet-18 of width 16", "digits", "cifar-10-jpeg"),
    },
    quick_seeds=1,
)

METHODS = {"SGD": Minibatch(), "SVRG": SVRG(1), "SAGA": SAGA("gradients")}
RATES = (0.03, 0.1, 0.3, 1.0)  # of part a
STEPS = {"v": (0.01, 0.03, 0.1, 0.3), "r": (0.1,)}  # rates of parts v and r
LATE = 2  # the first stage that claims look at, counted from 0


def small(data, size, rows=None, validation=0.0, test_rows=None, **more):
    """The small CNN on fixed batches; `more` goes to Batched."""
    d = shortened(shared(data, rows=rows, validation=validation), test_rows)
    network = small_cnn(len(d.classes), d.x_train.shape[1:])
    return Batched(Neural(network, Images(d), metrics_rows=min(10_000, len(d.y_train))), size, **more)


def narrow(data, size, width, rows=None, test_rows=None, **more):
    """ResNet-18 on fixed batches, augmentation locked for a pass."""
    problem = resnet(data, width, rows, test_rows=test_rows)
    return Batched(problem, size, lock=problem.n // size, **more)


# ------------------------------------------------------------------------------------------------------------- grid
def best_rate(found, method):
    """The rate that held-out rows choose with the first seed; None before it is known."""
    try:
        return found.select("a", method=method, stage="grid").tuned()[method].value
    except (AttributeError, MissingRuns):
        return None


@experiment.runs
def runs(args, found=None):
    for data in args.data_of("a"):
        size, rows = args.pick((100, None), (25, 600))
        problem = Recipe(small, data=data, size=size, rows=rows, validation=1 / 6)
        K = batches(data, size, rows, 1 / 6)
        stop = Stop(evaluations=args.pick(20, 4) * K)
        for method, estimator in METHODS.items():
            how = dict(estimator=estimator, stop=stop, metrics=0.5, method=method, K=K)
            best = RATES[2] if args.quick else best_rate(found, method)
            for lr, stage in [(lr, "grid") for lr in args.pick(RATES, ())] + [(best, "chosen")] * bool(best):
                seeds = args.seeds[:1] if stage == "grid" else None
                yield Entry("a", problem, SGD(), WithReplacement(1), lr, seeds=seeds, lr=lr, stage=stage, **how)
    for part, build in (("v", small), ("r", narrow)):
        for data in args.data_of(part):
            yield from watched(part, build, data, args)


def watched(part, build, data, args):
    """SVRG (and SAGA on the small network) with both variances ten times a pass."""
    if part == "v":
        given, most = args.pick(dict(size=100, sampled=60), dict(size=25, rows=600, sampled=4)), args.pick(8, 2)
    else:
        given, most = args.pick(dict(size=128, width=16, sampled=40), dict(size=32, width=2, rows=128, sampled=2)), 3
    problem = Recipe(build, data=data, test_rows=args.pick(2000, 100), plain=True, **given)
    K = batches(data, given["size"], given.get("rows"))
    rates = args.pick(STEPS[part], STEPS[part][-3:-1] or STEPS[part])
    for method, lr in [*(("SVRG", lr) for lr in rates), *[("SAGA", 0.1)] * (part == "v")]:
        yield Entry(
            part,
            problem,
            SGD(),
            WithReplacement(1),
            lr,
            estimator=METHODS[method],
            stop=Stop(epochs=most),
            metrics=max(1, K // 10),
            per="step",
            variance=True,
            seeds=args.seeds[:3],
            method=method,
            lr=lr,
            K=K,
        )


def batches(data, size, rows=None, validation=0.0):
    return len(shared(data, rows=rows, validation=validation).y_train) // size


# ----------------------------------------------------------------------------------------------------------- claims
for name in ("SVRG", "SAGA"):
    experiment.claim(
        f"a-held-{name.lower()}",
        f"{name} does not beat SGD at equal gradients, each at its best rate",
        expected="SGD's held-out loss at most 0.01 above (95 %); false if it is shown to be more",
        source="Defazio & Bottou, section 5",
    )(no_larger("a", dict(method="SGD", stage="chosen"), dict(method=name, stage="chosen"), "validation_loss", 0.01))

experiment.claim("a-edge", "the rates are wide enough", expected="the best inside the grid, always", source="tuning")(
    lambda results: inside("a")(results.select(stage="grid"))
)


def stages(run):
    """[(steps since the snapshot as a share of the stage, SVRG's variance over the plain one)] of the whole stages."""
    K, steps = run.tags["K"], np.asarray(run.columns["step"])
    ratio = run.columns["variance"] / run.columns["plain_variance"]
    which, found = (steps - 1) // K, []
    for stage in range(int(steps[-1]) // K):
        here = (which == stage) & (steps > 0)
        found.append(((steps[here] - stage * K) / K, ratio[here]))
    return found


def over_late(runs, function):
    """The mean of function(at, ratio) over whole stages from LATE on, one a seed; NaN where a run has none."""
    found = [[function(at, ratio) for at, ratio in stages(run)[LATE:]] for run in runs]
    return np.array([np.mean(values) if values else np.nan for values in found])


def late(runs):
    """The ratio's mean over the steps of a stage; it begins as 0."""
    return over_late(runs, lambda at, ratio: np.diff([0, *at]) @ (ratio + [0, *ratio[:-1]]) / 2 / at[-1])


def rises(runs):
    """The slope of log ratio against log steps over the first third of a stage."""
    return over_late(runs, lambda at, ratio: np.polyfit(np.log(at[at < 0.35]), np.log(ratio[at < 0.35]), 1)[0])


def by_rate(results, part="v"):
    return sorted(results.select(part, method="SVRG").groups("lr"))


@experiment.claim(
    "v-rise",
    "early in a stage the ratio grows like steps^p, p from 1 (noise) to 2 (drift)",
    expected=f"each rate: slope over the first third of stages from {LATE} on between 0.75 and 2.25 (95 %)",
    source="|grad f_k(x) - grad f_k(w)| <= L |x - w|",
)
def v_rise(results):
    found = {lr: rises(runs) for lr, runs in by_rate(results)}
    return listed({f"lr {lr:g}": shown(v) for lr, v in found.items()}), together(
        within(v, 0.75, 2.25) for v in found.values()
    )


def judged_late(results, judged, chosen=lambda lr: True, part="v"):
    """What a claim on late stages returns: the ratios of each rate, and the verdict on each chosen one."""
    found = {lr: late(runs) for lr, runs in by_rate(results, part)}
    text = listed({f"lr {lr:g}": spread(v, 2) for lr, v in found.items()})
    return decided(text, *(judged(np.log(v)) for lr, v in found.items() if chosen(lr)))


@experiment.claim(
    "v-third",
    "at rates that train well nothing is gained: over a stage the variance is above 1/3 of the plain one",
    expected=f"rates of 0.1 and more: mean over the steps of stages from {LATE} on above 1/3 (95 % of the log)",
    source="Defazio & Bottou, section 5",
)
def v_third(results):
    return judged_late(results, lambda v: within(v, np.log(1 / 3)), lambda lr: lr >= 0.1)


@experiment.claim(
    "v-small",
    "at rates too small to train well it is gained: x stays near the snapshot",
    expected="rates of 0.03 and less: the same mean below 1/3 (95 % of the log)",
    source="variance at most L^2 |x - w|^2",
)
def v_small(results):
    return judged_late(results, lambda v: within(v, high=np.log(1 / 3)), lambda lr: lr <= 0.03)


@experiment.claim(
    "v-rate",
    "a smaller rate keeps the ratio lower",
    expected="means of late stages: each rate lower than the next larger one (95 % of the log)",
    source="variance at most L^2 |x - w|^2",
)
def v_rate(results):
    levels = {lr: np.log(late(runs)) for lr, runs in by_rate(results)}
    text = listed({f"lr {lr:g}": float(np.exp(v.mean())) for lr, v in levels.items()})
    return decided(text, *(lower(a, b) for a, b in itertools.pairwise(levels.values())))


@experiment.claim(
    "r-sooner",
    "ResNet-18 with batch norm and augmentation leaves the snapshot's neighbourhood sooner than the small CNN",
    expected="at rate 0.1, after a tenth of a stage, the ratio is above the small CNN's (95 % of the log)",
    source="Defazio & Bottou, figure 2",
)
def r_sooner(results):
    early = [
        over_late(results.select(part, method="SVRG", lr=0.1), lambda at, ratio: np.log(ratio[0])) for part in "vr"
    ]
    text = " against ".join(f"{np.exp(v.mean()):.2g} ({len(v)} seeds)" for v in reversed(early))
    return text, lower(early[0][: len(early[1])], early[1])


@experiment.claim(
    "r-third",
    "over the stages of ResNet-18, too, the variance is above 1/3 of the plain one",
    expected=f"each rate, mean over the steps of stages from {LATE} on above 1/3 (95 % of the log)",
    source="Defazio & Bottou, figure 2",
)
def r_third(results):
    return judged_late(results, lambda v: within(v, np.log(1 / 3)), part="r")


# ---------------------------------------------------------------------------------------------------------- figures
COLOURS = {name: i for i, name in enumerate(METHODS)}


@experiment.figure(
    "budget.png",
    caption="Training loss, held-out loss and test error by gradients, in passes over the data; each method at its "
    "best rate of those tried with the first seed. SVRG takes three gradients a step, SAGA one and a first pass.",
)
def budget(results):
    figure, axes = panels(1, 3, size=(13, 4.8))
    some = results.select("a", stage="chosen")
    (K,) = some.values("K")
    some = some.with_column("passes", lambda c: np.asarray(c["gradients"]) / K)
    some = some.with_column("error", lambda c: 100 * (1 - np.asarray(c["test_accuracy"])))
    best = some.at_best()  # drops the tag of the rate
    columns = {"train_loss": "training loss", "validation_loss": "held-out loss", "error": "test error [%]"}
    look_of = dict(logy=True, legend=False, xlabel="gradients [passes]", colours=lambda t: COLOURS[t["method"]])
    for ax, (column, text) in zip(axes, columns.items(), strict=True):
        curves(ax, best, column, "passes", ylabel=text, **look_of)
        closer(ax, best, column)
        named(ax)
    return figure


def stage_lines(ax, runs, first=0):
    """The ratio within each stage: the median over seeds, later stages darker."""
    cuts = [stages(run) for run in runs if not run.diverged]
    if not cuts:
        return
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, len(cuts[0])))
    for stage, shade in enumerate(shades):
        at = cuts[0][stage][0]
        ax.plot(at, np.median([cut[stage][1] for cut in cuts], 0), color=shade, lw=1.8, label=f"stage {stage + 1}")
    ax.set(xscale="log", yscale="log", xlabel="steps since the snapshot [passes]")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(ticker.NullFormatter())
    mark(ax, 1 / 3, "1/3: worth its cost below", 0.03)
    mark(ax, 1, "1: the plain variance", 0.03)


def by_stages(results, part):
    groups = by_rate(results, part)
    figure, axes = panels(1, len(groups), size=(13, 5), sharey=True, squeeze=False)
    for ax, (lr, runs) in zip(axes[0], groups, strict=True):
        stage_lines(ax, runs)
        ax.set_title(f"rate {lr:g}")
    axes[0, 0].set_ylabel("variance of SVRG / plain variance")
    axes[0, -1].legend(loc="lower right", fontsize=9)
    return figure


@experiment.figure(
    "stages.png",
    caption="The small CNN: SVRG's variance over the plain one at the same x, by steps since the snapshot; one line a "
    "stage, median over seeds. Stages of one pass, each panel another rate.",
)
def stages_figure(results):
    return by_stages(results, "v")


@experiment.figure("resnet.png", caption="The same for ResNet-18 of width 16, its augmentation locked.")
def resnet_figure(results):
    return by_stages(results, "r")


@experiment.figure(
    "path.png",
    caption="The small CNN along the whole path at rate 0.1: the variance of a batch's plain gradient, and of the "
    "estimates of SVRG and SAGA, each at the points of its own run.",
)
def path(results):
    figure, ax = panels(size=(10, 5))
    for method in ("SVRG", "SAGA"):
        some = results.select("v", method=method, lr=0.1)
        for column, name in (("variance", method), ("plain_variance", f"plain, along {method}")):
            grid, values = some.stack(column)
            grid, values = grid[1:], values[:, 1:]
            middle, low, high, _ = middle_and_band(values)
            style = look(COLOURS[method]) | {"linestyle": "-" if column == "variance" else ":"}
            ax.plot(grid, middle, label=name, **style)
            ax.fill_between(grid, low, high, color=style["color"], alpha=0.18, linewidth=0)
    ax.set(yscale="log", xlabel="epoch", ylabel="variance of a step's gradient")
    named(ax)
    return figure


@experiment.conclusion
def conclusion(results, claims):
    losses = {
        name: found.runs.final("validation_loss") for name, found in results.select("a", stage="chosen").tuned().items()
    }
    return (
        f"Held-out loss after equal numbers of gradients, best rates: {spreads(losses)}. SVRG's variance over the "
        f"plain one in late stages: small CNN {claims['v-third'].measured}; ResNet-18 {claims['r-third'].measured}."
    )


if __name__ == "__main__":
    experiment.main()
