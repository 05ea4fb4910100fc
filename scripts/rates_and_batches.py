"""How do the rate and the batch size act on SGD?   Course task A1, its last two questions.

Plain SGD on LeNet-5. A rate too small is slow, one too large diverges or sticks at the loss of a uniform guess. After
equally many epochs at one rate smaller batches have the smaller training loss, because they took more steps; after
equally many steps a larger batch is no worse, because its gradients have less noise; a rate proportional to the batch
size removes most of the gap, as long as that rate is one at which the network trains at all.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 20 minutes.
"""

import dataclasses
import itertools
import math

from lab import Entry, Experiment, Part, Recipe, decided, listed, lower, no_higher
from lab.claims import spreads
from lab.figures import curves, mark, named, panels, said, sweep
from lab.results import Results
from lab.verdicts import within
from npopt import SGD, RandomReshuffling, Stop
from problems.classifiers import lenet, rows_of

import numpy as np

experiment = Experiment(
    __doc__,
    task="A1",
    parts={
        "a": Part("learning rates of plain SGD, LeNet-5", "digits", "mnist"),
        "b": Part("batch sizes of plain SGD, LeNet-5", "digits", "mnist"),
    },
)

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of part a
SIZES = (1, 16, 64, 256, 1024, 4096)  # of part b
BASE = 0.02  # by epochs; scaled: BASE B/64
FAST, STEPS = 0.1, 200  # by steps, up to 1024 rows each
STUCK = 2.2  # ln 10 = 2.303 is the loss of a uniform guess


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    rows, test_rows = args.pick(None, 1100), args.pick(None, 200)
    for data in args.data_of("a"):
        problem = Recipe(lenet, data=data, rows=rows, test_rows=test_rows)
        for lr in args.pick(RATES, RATES[::2]):
            yield Entry("a", problem, SGD(), RandomReshuffling(64), lr, stop=epochs_of(args, data), metrics=0.5, lr=lr)
    for data in args.data_of("b"):
        problem, stop = Recipe(lenet, data=data, rows=rows, test_rows=test_rows), epochs_of(args, data)
        for B in (B for B in args.pick(SIZES, SIZES[1:5]) if B <= rows_of(data, rows)):
            for equal, lr in (("epochs", BASE), ("scaled", BASE * B / 64)) if B > 1 else ():
                yield Entry("b", problem, SGD(), RandomReshuffling(B), lr, equal=equal, B=B, stop=stop, metrics=0.5)
            if B < SIZES[-1]:
                how = dict(stop=Stop(steps=args.pick(STEPS, 12)), metrics=args.pick(20, 6), per="step")
                yield Entry("b", problem, SGD(), RandomReshuffling(B), FAST, equal="steps", B=B, **how)


def epochs_of(args, data):
    return Stop(epochs=args.budget(*((10, 2) if data == "digits" else (3, 1))))


# ----------------------------------------------------------------------------------------------------------- claims
@experiment.claim(
    "a-small",
    "a rate too small is slow: the smallest of the grid ends far above the best",
    expected="training loss at least twice the best (95 % of the log)",
    source="course task A1",
)
def a_small(results):
    losses = {lr: v for lr, v in results.select("a").finals("train_loss", "lr").items() if np.isfinite(v).all()}
    least, best = min(losses), min(losses, key=lambda lr: np.mean(losses[lr]))
    return decided(
        f"{np.mean(losses[least]):.3g} at {least:g}, {np.mean(losses[best]):.3g} at the best rate {best:g}",
        within(np.log(losses[least] / losses[best]), math.log(2)),
    )


def stuck(runs):
    """Whether each run diverged or ended at the loss of a uniform guess."""
    return [run.diverged or run.final["train_loss"] >= STUCK for run in runs]


@experiment.claim(
    "a-large",
    "a rate too large diverges, or sticks at the loss of a uniform guess",
    expected=f"diverged, or training loss >= {STUCK} (ln 10 = 2.303), for every seed at the largest rate; false if one "
    "trains",
    source="course task A1",
)
def a_large(results):
    groups = dict(results.select("a").groups("lr"))
    found = stuck(groups[max(groups)])
    return f"at {max(groups):g}: {sum(found)} of {len(found)}", all(found)


def losses(results, equal, most=math.inf):
    """{batch size: final training losses, one a seed}, by rising size."""
    found = results.select("b", equal=equal, B=lambda size: size <= most).finals("train_loss", "B")
    return dict(sorted(found.items()))


@experiment.claim(
    "b-epochs",
    "after equally many epochs at one rate, smaller batches have the smaller training loss",
    expected="rising from each batch size to the next (95 %), until one has not begun to learn; false where it falls",
    source="course task A1",
)
def b_epochs(results):
    found = losses(results, "epochs")
    learning = [size for size, v in found.items() if np.mean(v) < STUCK]
    after = [size for size in found if size not in learning][:1]
    return decided(spreads(found), *(lower(found[a], found[b]) for a, b in itertools.pairwise([*learning, *after])))


@experiment.claim(
    "b-steps",
    "after equally many steps at one rate, a larger batch is no worse",
    expected="training loss at most 1.1 times that of the next smaller batch (95 % of the log)",
    source="course task A1",
)
def b_steps(results):
    found = {size: np.log(v) for size, v in losses(results, "steps").items()}
    text = listed({size: float(np.exp(np.mean(v))) for size, v in found.items()})
    return decided(text, *(no_higher(found[b], found[a], math.log(1.1)) for a, b in itertools.pairwise(found)))


@experiment.claim(
    "b-scaling",
    "a rate proportional to the batch size removes most of the gap between batch sizes after equally many epochs",
    expected="range of log training loss over B = 16 to 1024 at most half of that at one rate (95 % of the difference)",
    source="course task A1",
)
def b_scaling(results):
    one, scaled = (np.ptp(np.log(list(losses(results, equal, 1024).values())), 0) for equal in ("epochs", "scaled"))
    return decided(f"{scaled.mean():.3g} with scaling, {one.mean():.3g} without", within(scaled - one / 2, high=0))


@experiment.claim(
    "b-limit",
    "the rule ends where the rate leaves the range of part a",
    expected=f"at B = 4096, rate {BASE * 64:g}, every seed diverges or ends at {STUCK} or more; false if one trains",
    source="a-large",
)
def b_limit(results):
    found = stuck(results.select("b", equal="scaled", B=SIZES[-1]))
    return f"{sum(found)} of {len(found)}", all(found)


# ---------------------------------------------------------------------------------------------------------- figures
def in_percent(results):
    return results.with_column("accuracy", lambda c: 100 * c["test_accuracy"])


@experiment.figure(
    "learning_rates.png",
    caption="Plain SGD on LeNet-5, batch size 64, each rate: training loss and test accuracy by epoch (it does not "
    "begin at 0), and the last training loss against the rate. A run that diverged is a cross at the top.",
)
def rates_figure(results):
    figure, (left, middle, right) = panels(1, 3, size=(13, 4.6))
    some = in_percent(results.select("a"))
    for ax, column, text in ((left, "train_loss", "training loss"), (middle, "accuracy", "test accuracy [%]")):
        curves(ax, some, column, logy=ax is left, ylabel=text, legend=False, label=lambda tags: f"{tags['lr']:g}")
        named(ax)
    sweep(right, some, "lr", "train_loss", xlabel="learning rate", ylabel="training loss at the end", logy=True)
    for ax in (left, right):
        mark(ax, math.log(10), "ln 10: a uniform guess", 0.2)
    figure.suptitle(said(len(results.seeds)), fontsize=10, color="#666666")
    return figure


@experiment.figure(
    "batch_sizes.png",
    caption="Plain SGD on LeNet-5, each batch size: training loss and test accuracy. Left: one rate, by epoch; small "
    "batches take more steps. Middle: one rate, by step. Right: a rate proportional to the batch size.",
)
def batches_figure(results):
    figure, grid = panels(2, 3, size=(13, 7.5))
    columns = (
        ("epochs", "epoch", f"one rate, {BASE:g}, by epoch"),
        ("steps", "step", f"one rate, {FAST:g}, by step"),
        ("scaled", "epoch", f"rate {BASE:g} B/64, by epoch"),
    )
    by_size = dict(label=lambda tags: f"B={tags['B']}", colours=lambda tags: SIZES.index(tags["B"]), legend=False)
    for (top, bottom), (equal, x, title) in zip(grid.T, columns, strict=True):
        some = in_percent(results.select("b", equal=equal))
        for ax, column, text in ((top, "train_loss", "training loss"), (bottom, "accuracy", "test accuracy [%]")):
            curves(ax, some, column, x, logy=ax is top, ylabel=text, **by_size)
            named(ax)
        top.set_title(title)
    figure.suptitle(said(len(results.seeds)), fontsize=10, color="#666666")
    return figure


@experiment.figure(
    "batch_ends.png",
    caption="The last training loss and test error after equally many epochs against the batch size; bars from the "
    "lowest to the highest seed.",
)
def ends_figure(results):
    figure, axes = panels(1, 2, size=(11, 4.4))
    some = Results(
        dataclasses.replace(run, final={**run.final, "error": 100 * (1 - run.final["test_accuracy"])})
        for run in results.select("b")
        if not run.diverged
    )
    for ax, column, text in zip(axes, ("train_loss", "error"), ("training loss", "test error [%]"), strict=True):
        for i, (equal, label) in enumerate((("epochs", f"rate {BASE:g}"), ("scaled", f"rate {BASE:g} B/64"))):
            names = dict(label=label, xlabel="batch size", ylabel=text)
            sweep(ax, some.select(equal=equal), "B", column, **names, logy=True, index=i)
        sizes = results.select("b", equal="epochs").values("B")
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
        ax.minorticks_off()
    mark(axes[0], math.log(10), "ln 10: a uniform guess", 0.02)
    return figure


if __name__ == "__main__":
    experiment.main()
