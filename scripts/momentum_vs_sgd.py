"""Is momentum SGD just SGD with the step lr / (1 - beta)?   Course task A1; Yuan, Ying & Sayed, JMLR 17, 2016.

The paper proves it for strongly convex risks, constant small steps and noisy gradients, and finds it in simulations of
others: HeavyBall(beta) at lr and SGD at lr/(1-beta) coincide after a transient of about 1/(1-beta) steps. The mean
square distance of the two iterates is of order lr^2, their distance to the minimum of order lr. The control, SGD at lr
itself, has to lag clearly behind: without that the test has no power. Where lr/(1-beta) is beyond SGD's stable range,
momentum is not SGD. Beside it: how the rate and the batch size act on LeNet.

Run time on 2 cores: --quick about one minute (--data real --quick some minutes); --data real --jobs 2 --threads 1 about
an hour and a quarter.
"""

import math

from lab import (
    Entry,
    Experiment,
    Option,
    Part,
    Recipe,
    Undecided,
    dataset,
    different,
    larger,
    listed,
    no_difference,
    spread,
)
from lab.figures import curves, look, panels, sweep
from lab.options import whole
from npopt import SGD, Cosine, HeavyBall, RandomReshuffling, Stop, WithReplacement, backend
from problems import LeastSquares
from problems.classifiers import lenet, resnet

import numpy as np
import scipy.sparse

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
PAIR, CONTROL = ("momentum", "sgd"), "control"


# --------------------------------------------------------------------------------------------------------- problems
class Traced(LeastSquares):
    """Least squares that logs the iterate and its squared distance to the minimum; it can start at the minimum."""

    at_minimum = False

    def x0(self, rng):
        return backend.asarray(self.minimum()[0], self.dtype).copy() if self.at_minimum else super().x0(rng)

    def metrics(self, x):
        w = np.array(backend.to_host(x), float)
        return {**super().metrics(x), "w": w, "distance": float(np.sum((w - self.minimum()[0]) ** 2))}


def regression(data, at_minimum=False):
    """1/2 |Xw + c - y|^2 / n + 1e-3/2 |w|^2 on all rows of a set; the intercept c is not penalised."""
    d = dataset(data)
    stack = scipy.sparse.vstack if scipy.sparse.issparse(d.x_train) else np.vstack
    problem = Traced(stack([d.x_train, d.x_test]), np.concatenate([d.y_train, d.y_test]), 1e-3, intercept=True)
    problem.at_minimum = at_minimum
    return problem


# ------------------------------------------------------------------------------------------------------------- grid
def methods(lr, beta):
    """The three methods of parts a, b and c: (name, optimizer, rate)."""
    return (("momentum", HeavyBall(beta), lr), ("sgd", SGD(), lr / (1 - beta)), (CONTROL, SGD(), lr))


def slow(problem):
    """1/(rate x curvature) in steps at the largest rate of part a: how long SGD remembers."""
    return problem.row_smoothness().max() / (0.1 * problem.strong_convexity())


@experiment.runs
def runs(args):
    few, test = args.seeds[:3], args.pick(None, 2000)
    for data in args.data_of("a")[: args.pick(None, 1)]:
        problem = regression(data)
        rate = 0.1 / problem.row_smoothness().max()             # lr/(1-beta) of the recipe
        for size in BATCHES:
            for name, optimizer, lr in methods(rate * (1 - args.beta), args.beta):
                yield Entry("a", f"{data}, B={size}: {name}", Recipe(regression, data=data), optimizer,
                            WithReplacement(size), lr, stop=Stop(steps=args.pick(4000, 1500)), metrics=20, per="step")
        for k in HALVINGS:
            steps = int(args.pick(6, 0.5) * k * slow(problem))
            for name, optimizer, lr in methods(rate / k * (1 - args.beta), args.beta)[:2]:
                yield Entry("a", f"{data}, step/{k}: {name}", Recipe(regression, data=data, at_minimum=True), optimizer,
                            WithReplacement(1), lr, stop=Stop(steps=steps), metrics=max(1, steps // 150), per="step")

    for data in args.data_of("b"):
        rows, epochs = args.pick(None, 6000), args.budget(*((30, 15) if data == "digits" else (10, 2)))
        for name, optimizer, lr in methods(0.005, args.beta):
            yield Entry("b", name, Recipe(lenet, data=data, rows=rows, test_rows=test), optimizer,
                        RandomReshuffling(64), lr, stop=Stop(epochs=epochs))

    for data in args.data_of("c"):
        width, rows = args.width or args.pick(8, 4), args.rows or args.pick(4096, 1024)
        epochs = args.budget(15, 6 if data == "digits" else 2)
        for name, optimizer, lr in methods(0.01, args.beta):
            problem = Recipe(resnet, data=data, width=width, rows=rows, test_rows=test, l2=5e-4)
            yield Entry("c", name, problem, optimizer, RandomReshuffling(128), Cosine(lr, per="epoch"),
                        stop=Stop(epochs=epochs), metrics=args.pick(3, 1), seeds=few)

    for data in args.data_of("d"):
        rows, epochs = args.pick(None, 6000), args.budget(*((10, 8) if data == "digits" else (3, 1)))
        for lr in args.pick(RATES, RATES[::2]):
            yield Entry("d", f"lr {lr:g}", Recipe(lenet, data=data, rows=rows, test_rows=test), SGD(),
                        RandomReshuffling(64), lr, stop=Stop(epochs=epochs), metrics=0.5, seeds=few)

    for data in args.data_of("e"):
        rows, epochs = args.pick(None, 6000), args.budget(*((10, 8) if data == "digits" else (3, 1)))
        n = min(len(dataset(data).y_train), rows or 10**9)
        for size in [s for s in args.pick(SIZES, SIZES[1:5]) if s <= n]:
            problem, sampler = Recipe(lenet, data=data, rows=rows, test_rows=test), RandomReshuffling(size)
            some = dict(stop=Stop(epochs=epochs if size > 1 else 1), metrics=0.5, seeds=few)
            yield Entry("e", f"epochs, B={size}", problem, SGD(), sampler, BASE, **some)
            if size > 1:
                yield Entry("e", f"scaled, B={size}", problem, SGD(), sampler, BASE * size / 64, **some)
            yield Entry("e", f"steps, B={size}", problem, SGD(), sampler, BASE, stop=Stop(steps=args.pick(200, 40)),
                        metrics=args.pick(20, 10), per="step", seeds=few)


# ----------------------------------------------------------------------------------------------------------- claims
def sets(results):
    """The data sets of part a."""
    return list(dict.fromkeys(name.split(",")[0] for name in results.select("a").names))


def apart(results, data, size, beta):
    """Mean over the steps after 3/(1-beta) of |log gap - log gap| for the pair, and for SGD and the control."""
    t, gaps = None, {}
    for name in (*PAIR, CONTROL):
        t, values = results.select("a", f"{data}, B={size}: {name}").stack("gap", "step")
        gaps[name] = np.log(values.mean(0))
    late = t >= 3 / (1 - beta)
    return (np.abs(gaps[a] - gaps[b])[late].mean() for a, b in (PAIR, ("sgd", CONTROL)))


@experiment.claim("a-same", "linear regression: the curves of momentum and of SGD at lr/(1-beta) differ, in log gap, "
                  "by less than 5 % of SGD's distance to the control", expected="< 0.05 for every set and batch size")
def a_same(results, args):
    ratios = {}
    for data in sets(results):
        for size in BATCHES:
            pair, control = apart(results, data, size, args.beta)
            ratios[f"{data} B={size}"] = pair / control
    return listed(ratios), max(ratios.values()) < 0.05


@experiment.claim("a-power", "linear regression: the control lags behind, so that the comparison has power",
                  expected="mean |log gap ratio| > 0.1 for every set and batch size", source="control of the recipe")
def a_power(results, args):
    found = {f"{d} B={s}": list(apart(results, d, s, args.beta))[1] for d in sets(results) for s in BATCHES}
    return listed(found), min(found.values()) > 0.1


def steady(results, data, k):
    """(E|w_mom - w_sgd|^2, E|w_mom - w*|^2, E|w_sgd - w*|^2) over the last two thirds of the runs and the seeds."""
    momentum, sgd = (results.select("a", f"{data}, step/{k}: {name}") for name in PAIR)
    one, two = momentum.by_seed(), sgd.by_seed()
    found = []
    for seed in sorted(set(one) & set(two)):
        a, b = one[seed].columns, two[seed].columns
        rows = slice(len(a["step"]) // 3, None)
        found.append((np.sum((a["w"] - b["w"])[rows] ** 2, 1).mean(), a["distance"][rows].mean(),
                      b["distance"][rows].mean()))
    return np.mean(found, 0)


def slopes(results, data):
    """Slopes of log E|w_mom - w_sgd|^2 and of log E|w_sgd - w*|^2 against log step, by least squares."""
    table = np.array([steady(results, data, k) for k in HALVINGS])
    logs = -np.log(HALVINGS)
    return [float(np.polyfit(logs, np.log(table[:, column]), 1)[0]) for column in (0, 2)]


@experiment.claim("a-slope-2", "linear regression: E|w_momentum - w_sgd|^2 is of order step^2",
                  expected="slope 2 ± 0.3")
def a_slope_two(results):
    found = {data: slopes(results, data)[0] for data in sets(results)}
    return listed(found), all(abs(s - 2) <= 0.3 for s in found.values())


@experiment.claim("a-slope-1", "linear regression: the noise floor E|w_sgd - w*|^2 is of order step",
                  expected="slope 1 ± 0.2")
def a_slope_one(results):
    found = {data: slopes(results, data)[1] for data in sets(results)}
    return listed(found), all(abs(s - 1) <= 0.2 for s in found.values())


@experiment.claim("a-floor", "linear regression: both methods have the same noise floor, at every step size",
                  expected="ratio of the mean square errors in 0.9 to 1.1")
def a_floor(results):
    found = {}
    for data in sets(results):
        ratios = [m / s for _, m, s in (steady(results, data, k) for k in HALVINGS)]
        found[data] = f"{min(ratios):.3f} to {max(ratios):.3f}"
        found[data, "ok"] = 0.9 <= min(ratios) and max(ratios) <= 1.1
    return listed({d: found[d] for d in sets(results)}), all(found[d, "ok"] for d in sets(results))


for part, network in (("b", "LeNet-5"), ("c", "ResNet-18")):
    for column, word in (("test_accuracy", "test accuracy"), ("train_loss", "training loss")):
        experiment.claim(f"{part}-same-{column.replace('_', '-')}",
                         f"{network}: momentum and SGD at lr/(1-beta) end with the same {word}",
                         expected="difference under two standard deviations over seeds",
                         )(no_difference(part, *PAIR, column))
    experiment.claim(f"{part}-control", f"{network}: SGD at lr without momentum ends with the larger training loss",
                     expected="more than two standard deviations above SGD at lr/(1-beta)",
                     source="control of the recipe")(larger(part, CONTROL, "sgd", "train_loss"))


@experiment.claim("b-accuracy", "LeNet-5 with momentum reaches 98.8 % on MNIST's test set in 10 epochs",
                  expected=">= 98.8 % (mean over seeds)", source="a target of this project")
def b_accuracy(results, args):
    found = 100 * results.select("b", "momentum").final("test_accuracy")
    if args.data_of("b") != ["mnist"] or args.quick or args.budget(10, 2) != 10:
        raise Undecided(f"it speaks of 10 epochs on all of MNIST; here the accuracy is {spread(found)} %")
    return f"{spread(found)} %", found.mean() >= 98.8


@experiment.claim("d-small", "a rate too small is slow: the smallest of the grid ends far above the best",
                  expected="training loss at least twice the best", source="course task A1")
def d_small(results):
    losses = {lr: np.mean(group.final("train_loss")) for lr, group in results.select("d").numbered("lr ").items()}
    least, best = min(losses), min(losses, key=lambda lr: losses[lr] if np.isfinite(losses[lr]) else math.inf)
    return (f"{losses[least]:.3g} at {least:g}, {losses[best]:.3g} at the best rate {best:g}",
            losses[least] >= 2 * losses[best])


@experiment.claim("d-large", "a rate too large diverges, or sticks at the loss of a uniform guess",
                  expected="diverged, or training loss >= 2.2 (ln 10 = 2.303), for every seed at the largest rate",
                  source="course task A1")
def d_large(results):
    groups = results.select("d").numbered("lr ")
    found = [math.inf if run.diverged else run.final["train_loss"] for run in groups[max(groups)]]
    return f"at {max(groups):g}: {', '.join(f'{v:.3g}' for v in found)}", min(found) >= 2.2


def ends(results, prefix):
    """{batch size: mean final training loss}, without batch size 1, which runs for one epoch only."""
    groups = results.select("e").numbered(prefix)
    return {int(size): float(np.mean(group.final("train_loss"))) for size, group in groups.items() if size > 1}


@experiment.claim("e-epochs", "after equally many epochs at one rate, smaller batches have the smaller training loss",
                  expected="rising from each batch size (16 and up) to the next", source="course task A1")
def e_epochs(results):
    found = ends(results, "epochs, B=")
    order = sorted(found)
    return listed(found), all(found[a] < found[b] for a, b in zip(order, order[1:], strict=False))


@experiment.claim("e-steps", "after equally many steps at one rate, a larger batch is never clearly worse",
                  expected="no batch worse than the next smaller one by more than two standard deviations",
                  source="course task A1")
def e_steps(results):
    groups = {int(k): g for k, g in results.select("e").numbered("steps, B=").items()}
    order = sorted(groups)
    worse = []
    for a, b in zip(order, order[1:], strict=False):
        mean, _, apart_ = different(groups[b].final("train_loss"), groups[a].final("train_loss"))
        if apart_ and mean > 0:
            worse.append(f"{b} against {a}")
    found = {k: float(np.mean(g.final("train_loss"))) for k, g in groups.items()}
    return listed(found), not worse, "worse: " + ", ".join(worse) if worse else ""


@experiment.claim("e-scaling", "a rate proportional to the batch size removes most of the gap between batch sizes "
                  "after equally many epochs", expected="spread of log training loss, B = 16 to 1024, at most half",
                  source="course task A1")
def e_scaling(results):
    spans = []
    for prefix in ("epochs, B=", "scaled, B="):
        found = {k: v for k, v in ends(results, prefix).items() if k <= 1024}
        if not all(np.isfinite(v) for v in found.values()):
            return f"{prefix[:-4]}: {listed(found)}", False, "a run diverged"
        logs = np.log(list(found.values()))
        spans.append(float(logs.max() - logs.min()))
    return f"{spans[1]:.3g} with scaling, {spans[0]:.3g} without", spans[1] <= spans[0] / 2


# ---------------------------------------------------------------------------------------------------------- figures
def legend(args):
    texts = {"momentum": f"momentum {args.beta:g} at lr", "sgd": f"SGD at lr/(1-beta) = {1 / (1 - args.beta):.3g} lr",
             CONTROL: "control: SGD at lr"}
    return lambda name: texts[name.split(": ")[-1]]


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
    names = sets(results)
    figure, grid = panels(len(names), len(BATCHES), squeeze=False)
    for row, data in zip(grid, names, strict=True):
        for ax, size in zip(row, BATCHES, strict=True):
            curves(ax, results.select("a", lambda n, d=data, s=size: n.startswith(f"{d}, B={s}:")), "gap", "step",
                   label=legend(args), logy=True, ylabel="f(w) - f*")
            overlaid(ax)
            ax.set_title(f"{data}, batch size {size}")
    return figure


@experiment.figure("slopes.png", caption="Linear regression, batch size 1, started at the minimum: mean square "
                   "distances in the steady state against the step size, with least-squares lines. The two methods are "
                   "closer to each other than to the minimum, by a factor that grows as the step shrinks.")
def slopes_figure(results):
    names = sets(results)
    figure, grid = panels(1, len(names), squeeze=False)
    for ax, data in zip(grid[0], names, strict=True):
        steps = 1 / np.array(HALVINGS)
        table = np.array([steady(results, data, k) for k in HALVINGS])
        labels = ("E|w_mom - w_sgd|²", "E|w_mom - w*|²", "E|w_sgd - w*|²")
        for i, (label, marker) in enumerate(zip(labels, "os^", strict=True)):
            slope, level = np.polyfit(np.log(steps), np.log(table[:, i]), 1)
            colour = look(i)["color"]
            ax.plot(steps, table[:, i], marker, color=colour, ms=9 - 2 * i, label=f"{label}, slope {slope:.2f}")
            ax.plot(steps, np.exp(level) * steps**slope, color=colour, lw=1.2)
        ax.set(xscale="log", yscale="log", xlabel="step size lr/(1-beta), in units of 0.1 / L_max",
               ylabel="mean square distance")
        ax.set_xticks(steps, [f"1/{k}" if k > 1 else "1" for k in HALVINGS])
        ax.minorticks_off()
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
    sweep(right, results.select("d").numbered("lr "), "train_loss", xlabel="learning rate",
          ylabel="training loss at the end", logy=True)
    for ax in (left, right):
        ax.axhline(math.log(10), color="#888888", lw=1, ls=":")
        ax.annotate("ln 10: a uniform guess", (0.5, math.log(10)), xycoords=("axes fraction", "data"), fontsize=9,
                    ha="center", va="bottom", color="#666666")
    return figure


@experiment.figure("batch_sizes.png", caption="Plain SGD on LeNet-5. Top left: one rate for all batch sizes, by epoch; "
                   "small batches take more steps. Top right: the same rate, by step. "
                   "Bottom left: a rate proportional to the batch size. Bottom right: the last training loss of both.")
def batches_figure(results):
    figure, ((a, b), (c, d)) = panels(2, 2)
    colours = {f"B={size}": i for i, size in enumerate(SIZES)}
    for ax, prefix, x, title in (
        (a, "epochs, ", "epoch", f"one rate, {BASE:g}"), (b, "steps, ", "step", f"one rate, {BASE:g}"),
        (c, "scaled, ", "epoch", f"rate {BASE:g} B/64"),
    ):
        chosen = results.select("e", lambda n, p=prefix: n.startswith(p))
        curves(ax, chosen, "train_loss", x, logy=True, label=lambda name: name.split(", ")[1], ylabel="training loss",
               colours=lambda name: colours[name.split(", ")[1]], legend=False)
        ax.set_title(title)
    figure.legend(*a.get_legend_handles_labels(), loc="outside lower center", ncols=len(SIZES),
                  title="median over seeds, band from the lowest to the highest")
    for i, (prefix, label) in enumerate((("epochs, B=", "one rate"), ("scaled, B=", "rate proportional to B"))):
        groups = {k: g for k, g in results.select("e").numbered(prefix).items() if k > 1}
        sweep(d, groups, "train_loss", label=label, xlabel="batch size", ylabel="training loss at the end", logy=True,
              index=i)
        d.set_xticks(list(groups), [f"{k:g}" for k in groups])
    d.minorticks_off()
    d.set_title("after equally many epochs")
    return figure


if __name__ == "__main__":
    experiment.main()
