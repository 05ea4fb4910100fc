"""Is momentum SGD just SGD with the step lr / (1 - beta)?   Course task A1; Yuan, Ying & Sayed, JMLR 17, 2016.

The paper proves it for strongly convex risks, constant small steps and noisy gradients, and finds it in simulations of
others: HeavyBall(beta) at lr and SGD at lr/(1-beta) coincide after a transient of about 1/(1-beta) steps. The mean
square distance of the two iterates is of order lr^2, their distance to the minimum of order lr. The control, SGD at lr
itself, has to lag clearly behind: without that the test has no power. Where lr/(1-beta) is beyond SGD's stable range,
momentum is not SGD. Beside it: how the rate and the batch size act on LeNet.

Run time on 2 cores: --quick half a minute (--data real --quick some minutes); --data real --jobs 2 --threads 1 about
an hour and a quarter.
"""

import itertools
import math

from lab import Entry, Experiment, Option, Part, Recipe, Undecided, alike, larger, listed, lower, slope, spread
from lab.figures import below, curves, fitted, halved, mark, panels, sweep
from lab.options import whole
from npopt import SGD, Cosine, HeavyBall, RandomReshuffling, Stop, WithReplacement
from problems.classifiers import lenet, resnet, rows_of
from problems.convex import regression

import numpy as np

experiment = Experiment(
    __doc__,
    task="A1",
    source="Yuan, Ying & Sayed, On the influence of momentum acceleration on online learning, JMLR 17, 2016",
    parts={
        "a": Part("linear regression: curves, and slopes in the step size", "diabetes", ("abalone", "housing")),
        "b": Part("LeNet-5: momentum, SGD at lr/(1-beta), and the control", "digits", "mnist"),
        "c": Part("ResNet-18: the same", "digits", "cifar-10-jpeg"),
        "d": Part("learning rates of plain SGD, LeNet-5", "digits", "mnist"),
        "e": Part("batch sizes of plain SGD, LeNet-5", "digits", "mnist"),
    },
    options=[
        Option("--beta", type=float, default=0.9, help="momentum"),
        Option("--width", type=whole(1, "width"), help="channels of ResNet-18's first stage (default: 8; full: 64)"),
        Option("--rows", type=whole(1, "rows"), help="training images of part c (default: 4096)"),
    ],
    seeds=5,
)

BATCHES = (1, 16)                                               # of part a
HALVINGS = (1, 2, 4, 8)                                         # of the step, part a
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)               # of part d
SIZES = (1, 16, 64, 256, 1024, 4096)                            # of part e
BASE = 0.02                                                     # rate of part e; scaled: BASE B/64
PAIR, CONTROL, LOGS = ("momentum", "sgd"), "control", ("w", "distance")


# ------------------------------------------------------------------------------------------------------------- grid
def methods(lr, beta):
    """The three methods of parts a, b and c: (name, optimizer, rate)."""
    return (("momentum", HeavyBall(beta), lr), ("sgd", SGD(), lr / (1 - beta)), (CONTROL, SGD(), lr))


@experiment.runs
def runs(args):
    for data in args.data_of("a")[: args.pick(None, 1)]:
        problem = regression(data)
        rate = 0.1 / problem.row_smoothness().max()             # lr/(1-beta) of the recipe
        slow = 1 / (rate * problem.strong_convexity())          # how many steps SGD remembers at that rate
        recipe = Recipe(regression, data=data, logs=LOGS)
        still = Recipe(regression, data=data, logs=LOGS, at_minimum=True)
        for size in BATCHES:
            for name, optimizer, lr in methods(rate * (1 - args.beta), args.beta):
                yield Entry("a", recipe, optimizer, WithReplacement(size), lr, data=data, B=size, method=name,
                            stop=Stop(steps=args.pick(4000, 1000)), metrics=20, per="step")
        for k in HALVINGS:
            steps = int(args.pick(6, 0.5) * k * slow)
            for name, optimizer, lr in methods(rate / k * (1 - args.beta), args.beta)[:2]:
                yield Entry("a", still, optimizer, WithReplacement(1), lr, data=data, divisor=k, method=name,
                            stop=Stop(steps=steps), metrics=max(1, steps // 150), per="step")

    def network(data, build=lenet, **more):
        return Recipe(build, data=data, test_rows=args.pick(None, 2000), **more)

    few, rows = args.seeds[:3], args.pick(None, 6000)
    for data in args.data_of("b"):
        epochs = args.budget(*((30, 5) if data == "digits" else (10, 2)))
        for name, optimizer, lr in methods(0.005, args.beta):
            yield Entry("b", network(data, rows=rows), optimizer, RandomReshuffling(64), lr, stop=Stop(epochs=epochs),
                        method=name)
    for data in args.data_of("c"):
        small = dict(width=args.width or args.pick(8, 4), rows=args.rows or args.pick(4096, 384), l2=5e-4)
        epochs = args.budget(15, 3 if data == "digits" else 2)
        for name, optimizer, lr in methods(0.01, args.beta):
            yield Entry("c", network(data, resnet, **small), optimizer, RandomReshuffling(128),
                        Cosine(lr, per="epoch"), stop=Stop(epochs=epochs), metrics=args.pick(3, 1), seeds=few,
                        method=name)
    epochs = {data: args.budget(*((10, 3) if data == "digits" else (3, 1))) for data in args.data_of("d")}
    for data, some in epochs.items():
        for lr in args.pick(RATES, RATES[::2]):
            yield Entry("d", network(data, rows=rows), SGD(), RandomReshuffling(64), lr, stop=Stop(epochs=some),
                        metrics=0.5, seeds=few, lr=lr)
    for data, some in epochs.items():
        for B in (B for B in args.pick(SIZES, SIZES[1:5]) if B <= rows_of(data, rows)):
            for equal, lr in (("epochs", BASE), ("scaled", BASE * B / 64))[: 1 if B == 1 else 2]:
                yield Entry("e", network(data, rows=rows), SGD(), RandomReshuffling(B), lr, equal=equal, B=B,
                            stop=Stop(epochs=some if B > 1 else 1), metrics=0.5, seeds=few)
            yield Entry("e", network(data, rows=rows), SGD(), RandomReshuffling(B), BASE, equal="steps", B=B, seeds=few,
                        stop=Stop(steps=args.pick(200, 40)), metrics=args.pick(20, 10), per="step")


# ----------------------------------------------------------------------------------------------------------- claims
def curved(results):
    """[("set B=size", its runs)] of part a."""
    return [(f"{data} B={size}", runs) for (data, size), runs in results.select("a").groups("data", "B")]


def apart(runs, beta):
    """Mean over the steps after 3/(1-beta) of |log gap - log gap| for the pair, and for SGD and the control."""
    gaps = {name: group.stack("gap", "step") for name, group in runs.groups("method")}
    late = gaps["sgd"][0] >= 3 / (1 - beta)
    logs = {name: np.log(values.mean(0))[late] for name, (_, values) in gaps.items()}
    return [float(np.abs(logs[a] - logs[b]).mean()) for a, b in (PAIR, ("sgd", CONTROL))]


@experiment.claim("a-same", "linear regression: the curves of momentum and of SGD at lr/(1-beta) differ, in log gap, "
                  "by less than 5 % of SGD's distance to the control", expected="< 0.05 for every set and batch size")
def a_same(results, args):
    found = {name: apart(runs, args.beta) for name, runs in curved(results)}
    ratios = {name: pair / control for name, (pair, control) in found.items()}
    return listed(ratios), max(ratios.values()) < 0.05


@experiment.claim("a-power", "linear regression: the control lags behind, so that the comparison has power",
                  expected="mean |log gap ratio| > 0.1 for every set and batch size", source="control of the recipe")
def a_power(results, args):
    found = {name: apart(runs, args.beta)[1] for name, runs in curved(results)}
    return listed(found), min(found.values()) > 0.1


def steady(results):
    """{set: (halvings, 3) of E|w_mom - w_sgd|^2, E|w_mom - w*|^2, E|w_sgd - w*|^2} over the last two thirds of the runs
    and the seeds."""
    found = {}
    for (data, _), runs in results.select("a").groups("data", "divisor"):
        one, two = (runs.select(method=name).by_seed() for name in PAIR)
        rows = []
        for seed in sorted(set(one) & set(two)):
            a, b = one[seed].columns, two[seed].columns
            late = slice(len(a["step"]) // 3, None)
            rows.append((np.sum((a["w"] - b["w"])[late] ** 2, 1).mean(), a["distance"][late].mean(),
                         b["distance"][late].mean()))
        found.setdefault(data, []).append(np.mean(rows, 0))
    return {data: np.array(table) for data, table in found.items()}


for i, text, wanted, margin in ((0, "E|w_momentum - w_sgd|^2 is of order step^2", 2, 0.3),
                                (2, "the noise floor E|w_sgd - w*|^2 is of order step", 1, 0.2)):
    @experiment.claim(f"a-slope-{wanted}", f"linear regression: {text}", expected=f"slope {wanted} ± {margin}")
    def a_slope(results, i=i, wanted=wanted, margin=margin):
        found = {data: slope(1 / np.array(HALVINGS), table[:, i]) for data, table in steady(results).items()}
        return listed(found), all(abs(s - wanted) <= margin for s in found.values())


@experiment.claim("a-floor", "linear regression: both methods have the same noise floor, at every step size",
                  expected="ratio of the mean square errors in 0.9 to 1.1")
def a_floor(results):
    ratios = {data: table[:, 1] / table[:, 2] for data, table in steady(results).items()}
    return (listed({data: f"{r.min():.3f} to {r.max():.3f}" for data, r in ratios.items()}),
            all(0.9 <= r.min() and r.max() <= 1.1 for r in ratios.values()))


for part, network in (("b", "LeNet-5"), ("c", "ResNet-18")):
    for column, word, margin in (("test_accuracy", "test accuracy", 0.005), ("train_loss", "training loss", 0.01)):
        experiment.claim(f"{part}-same-{column.replace('_', '-')}",
                         f"{network}: momentum and SGD at lr/(1-beta) end with the same {word}",
                         expected=f"within {margin:g} (95 %)")(alike(part, *PAIR, column, margin))
    experiment.claim(f"{part}-control", f"{network}: SGD at lr without momentum ends with the larger training loss",
                     expected="above SGD at lr/(1-beta) (95 %)",
                     source="control of the recipe")(larger(part, CONTROL, "sgd", "train_loss"))


@experiment.claim("b-accuracy", "LeNet-5 with momentum reaches 98.8 % on MNIST's test set in 10 epochs",
                  expected=">= 98.8 % (mean over seeds)", source="a target of this project")
def b_accuracy(results, args):
    found = 100 * results.select("b", method="momentum").final("test_accuracy")
    if args.data_of("b") != ["mnist"] or args.quick or args.budget(10, 2) != 10:
        raise Undecided(f"it speaks of 10 epochs on all of MNIST; here the accuracy is {spread(found)} %")
    return f"{spread(found)} %", found.mean() >= 98.8


@experiment.claim("d-small", "a rate too small is slow: the smallest of the grid ends far above the best",
                  expected="training loss at least twice the best", source="course task A1")
def d_small(results):
    losses = {lr: np.mean(values) for lr, values in results.select("d").finals("train_loss", "lr").items()}
    least, best = min(losses), min(losses, key=lambda lr: losses[lr] if np.isfinite(losses[lr]) else math.inf)
    return (f"{losses[least]:.3g} at {least:g}, {losses[best]:.3g} at the best rate {best:g}",
            losses[least] >= 2 * losses[best])


@experiment.claim("d-large", "a rate too large diverges, or sticks at the loss of a uniform guess",
                  expected="diverged, or training loss >= 2.2 (ln 10 = 2.303), for every seed at the largest rate",
                  source="course task A1")
def d_large(results):
    groups = dict(results.select("d").groups("lr"))
    found = [math.inf if run.diverged else run.final["train_loss"] for run in groups[max(groups)]]
    return f"at {max(groups):g}: {', '.join(f'{v:.3g}' for v in found)}", min(found) >= 2.2


def ends(results, equal):
    """{batch size: mean final training loss}, without batch size 1, which runs for one epoch only."""
    found = results.select("e", equal=equal).finals("train_loss", "B")
    return {size: float(np.mean(values)) for size, values in sorted(found.items()) if size > 1}


@experiment.claim("e-epochs", "after equally many epochs at one rate, smaller batches have the smaller training loss",
                  expected="rising from each batch size (16 and up) to the next", source="course task A1")
def e_epochs(results):
    found = ends(results, "epochs")
    return listed(found), bool((np.diff(list(found.values())) > 0).all())


@experiment.claim("e-steps", "after equally many steps at one rate, a larger batch is never clearly worse",
                  expected="no batch is shown to be worse than the next smaller one (95 %)",
                  source="course task A1")
def e_steps(results):
    found = results.select("e", equal="steps").finals("train_loss", "B")
    worse = [f"{b} against {a}" for a, b in itertools.pairwise(sorted(found)) if lower(found[a], found[b])]
    return (listed({size: float(np.mean(values)) for size, values in found.items()}), not worse,
            "worse: " + ", ".join(worse) if worse else "")


@experiment.claim("e-scaling", "a rate proportional to the batch size removes most of the gap between batch sizes "
                  "after equally many epochs", expected="spread of log training loss, B = 16 to 1024, at most half",
                  source="course task A1")
def e_scaling(results):
    spans = []
    for equal in ("epochs", "scaled"):
        found = {size: loss for size, loss in ends(results, equal).items() if size <= 1024}
        if not all(np.isfinite(v) for v in found.values()):
            return f"{equal}: {listed(found)}", False, "a run diverged"
        spans.append(float(np.ptp(np.log(list(found.values())))))
    return f"{spans[1]:.3g} with scaling, {spans[0]:.3g} without", spans[1] <= spans[0] / 2


# ---------------------------------------------------------------------------------------------------------- figures
def legend(args):
    texts = f"momentum {args.beta:g} at lr", f"SGD at lr/(1-beta) = {1 / (1 - args.beta):.3g} lr", "control: SGD at lr"
    return lambda tags: texts[(*PAIR, CONTROL).index(tags["method"])]


def overlaid(ax):
    """SGD's line dashed, so that momentum's is seen under it."""
    for line in ax.lines:
        if line.get_label().startswith("SGD"):
            line.set_linestyle((0, (4, 3)))
    legend = ax.get_legend()
    ax.legend(title=legend.get_title().get_text(), alignment="left")


@experiment.figure("regression.png", caption="Linear regression: the gap to the minimum under one sampling of rows "
                   "with replacement. Momentum and SGD at lr/(1-beta) run on top of each other after the first steps.")
def regression_figure(results, args):
    groups = results.select("a").groups("data", "B")
    figure, grid = panels(len(groups) // len(BATCHES), len(BATCHES), squeeze=False)
    for ax, ((data, size), runs) in zip(grid.flat, groups, strict=True):
        curves(ax, runs, "gap", "step", label=legend(args), logy=True, ylabel="f(w) - f*")
        overlaid(ax)
        ax.set_title(f"{data}, batch size {size}")
    return figure


@experiment.figure("slopes.png", caption="Linear regression, batch size 1, started at the minimum: mean square "
                   "distances in the steady state against the step size, with least-squares lines. The two methods are "
                   "closer to each other than to the minimum, by a factor that grows as the step shrinks.")
def slopes_figure(results):
    tables, steps = steady(results), 1 / np.array(HALVINGS)
    figure, grid = panels(1, len(tables), squeeze=False)
    for ax, (data, table) in zip(grid[0], tables.items(), strict=True):
        labels = ("E|w_mom - w_sgd|²", "E|w_mom - w*|²", "E|w_sgd - w*|²")
        for i, (label, marker) in enumerate(zip(labels, "os^", strict=True)):
            fitted(ax, steps, table[:, i], i, label, marker, 9 - 2 * i)
        halved(ax, steps, "step size lr/(1-beta), in units of 0.1 / L_max", "mean square distance")
        ax.set_title(data)
        ax.legend()
    return figure


def network_figure(results, part, args):
    figure, (left, right) = panels(1, 2)
    chosen = results.select(part)
    curves(left, chosen, "train_loss", label=legend(args), logy=True, ylabel="training loss")
    curves(right, chosen.with_column("test_error", lambda c: 100 * (1 - c["test_accuracy"])), "test_error",
           label=legend(args), logy=True, ylabel="test error [%]")
    for ax in (left, right):
        overlaid(ax)
    start = max(run.columns["train_loss"][0] for run in chosen)
    if start > 4:                                               # batch norm before its first statistics
        left.set_ylim(top=2.6)
        left.set_title(f"epoch 0: up to {start:.0f}, off the scale", fontsize=11, color="#666666")
    return figure


@experiment.figure("lenet.png", caption="LeNet-5, batch size 64, constant rate (lr = 0.005): at most 10,000 training "
                   "images, and all test images, in evaluation mode.")
def lenet_figure(results, args):
    return network_figure(results, "b", args)


@experiment.figure("resnet.png", caption="ResNet-18 at reduced width on part of the training set, batch size 128, "
                   "l2 = 5e-4, cosine from lr = 0.01: at most 2,000 training images, and all test images, in "
                   "evaluation mode.")
def resnet_figure(results, args):
    return network_figure(results, "c", args)


@experiment.figure("learning_rates.png", caption="Plain SGD on LeNet-5, batch size 64. Left: training loss by epoch. "
                   "Right: its last value against the rate; a run that diverged is a cross at the top.")
def rates_figure(results):
    figure, (left, right) = panels(1, 2)
    curves(left, results.select("d"), "train_loss", logy=True, ylabel="training loss")
    left.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    sweep(right, results.select("d"), "lr", "train_loss", xlabel="learning rate",
          ylabel="training loss at the end", logy=True)
    for ax in (left, right):
        mark(ax, math.log(10), "ln 10: a uniform guess")
    return figure


@experiment.figure("batch_sizes.png", caption="Plain SGD on LeNet-5. Top left: one rate for all batch sizes, by epoch; "
                   "small batches take more steps. Top right: the same rate, by step. "
                   "Bottom left: a rate proportional to the batch size. Bottom right: the last training loss of both.")
def batches_figure(results):
    figure, ((a, b), (c, d)) = panels(2, 2)
    for ax, equal, x, title in ((a, "epochs", "epoch", f"one rate, {BASE:g}"), (b, "steps", "step",
                                f"one rate, {BASE:g}"), (c, "scaled", "epoch", f"rate {BASE:g} B/64")):
        curves(ax, results.select("e", equal=equal), "train_loss", x, logy=True, label=lambda tags: f"B={tags['B']}",
               ylabel="training loss", colours=lambda tags: SIZES.index(tags["B"]), legend=False)
        ax.set_title(title)
    below(figure, a, len(SIZES), title="median over seeds, band from the lowest to the highest")
    for i, (equal, label) in enumerate((("epochs", "one rate"), ("scaled", "rate proportional to B"))):
        some = results.select("e", equal=equal, B=lambda size: size > 1)
        sweep(d, some, "B", "train_loss", label=label, xlabel="batch size", ylabel="training loss at the end",
              logy=True, index=i)
    d.set_xticks(some.values("B"), [f"{size:g}" for size in some.values("B")])
    d.minorticks_off()
    d.set_title("after equally many epochs")
    return figure


if __name__ == "__main__":
    experiment.main()
