"""How do the rate and the batch size act on SGD?   Course task A1, its last two questions.

Plain SGD on LeNet-5. A rate too small is slow, one too large diverges or sticks at the loss of a uniform guess. After
equally many epochs at one rate smaller batches have the smaller training loss, because they took more steps; after
equally many steps a larger batch is no worse; a rate proportional to the batch size removes most of the gap.

Run time on 2 cores: --quick about 10 seconds; --data real --jobs 2 --threads 1 about half an hour.
"""

import itertools
import math

from lab import Entry, Experiment, Part, Recipe, decided, listed, lower, no_higher
from lab.figures import below, curves, mark, panels, sweep
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

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)               # of part a
SIZES = (1, 16, 64, 256, 1024, 4096)                            # of part b
BASE = 0.02                                                     # rate of part b; scaled: BASE B/64


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    rows = args.pick(None, 2000)
    for data in args.data_of("a"):
        problem = Recipe(lenet, data=data, rows=rows, test_rows=args.pick(None, 1000))
        epochs = Stop(epochs=args.budget(*((10, 3) if data == "digits" else (3, 1))))
        for lr in args.pick(RATES, RATES[::2]):
            yield Entry("a", problem, SGD(), RandomReshuffling(64), lr, stop=epochs, metrics=0.5, lr=lr)
    for data in args.data_of("b"):
        problem = Recipe(lenet, data=data, rows=rows, test_rows=args.pick(None, 1000))
        epochs = args.budget(*((10, 3) if data == "digits" else (3, 1)))
        for B in (B for B in args.pick(SIZES, SIZES[1:5]) if B <= rows_of(data, rows)):
            for equal, lr in (("epochs", BASE), ("scaled", BASE * B / 64))[: 1 if B == 1 else 2]:
                yield Entry("b", problem, SGD(), RandomReshuffling(B), lr, equal=equal, B=B,
                            stop=Stop(epochs=epochs if B > 1 else 1), metrics=0.5)
            yield Entry("b", problem, SGD(), RandomReshuffling(B), BASE, equal="steps", B=B,
                        stop=Stop(steps=args.pick(200, 40)), metrics=args.pick(20, 10), per="step")


# ----------------------------------------------------------------------------------------------------------- claims
@experiment.claim("a-small", "a rate too small is slow: the smallest of the grid ends far above the best",
                  expected="training loss at least twice the best", source="course task A1")
def a_small(results):
    losses = {lr: np.mean(values) for lr, values in results.select("a").finals("train_loss", "lr").items()}
    least, best = min(losses), min(losses, key=lambda lr: losses[lr] if np.isfinite(losses[lr]) else math.inf)
    return (f"{losses[least]:.3g} at {least:g}, {losses[best]:.3g} at the best rate {best:g}",
            losses[least] >= 2 * losses[best])


@experiment.claim("a-large", "a rate too large diverges, or sticks at the loss of a uniform guess",
                  expected="diverged, or training loss >= 2.2 (ln 10 = 2.303), for every seed at the largest rate",
                  source="course task A1")
def a_large(results):
    groups = dict(results.select("a").groups("lr"))
    found = [math.inf if run.diverged else run.final["train_loss"] for run in groups[max(groups)]]
    return f"at {max(groups):g}: {', '.join(f'{v:.3g}' for v in found)}", min(found) >= 2.2


def ends(results, equal):
    """{batch size: mean final training loss}, without batch size 1, which runs for one epoch only."""
    found = results.select("b", equal=equal).finals("train_loss", "B")
    return {size: float(np.mean(values)) for size, values in sorted(found.items()) if size > 1}


@experiment.claim("b-epochs", "after equally many epochs at one rate, smaller batches have the smaller training loss",
                  expected="rising from each batch size (16 and up) to the next (95 %)", source="course task A1")
def b_epochs(results):
    found = results.select("b", equal="epochs", B=lambda size: size > 1).finals("train_loss", "B")
    text = listed({size: float(np.mean(v)) for size, v in found.items()})
    return decided(text, *(lower(found[a], found[b]) for a, b in itertools.pairwise(sorted(found))))


@experiment.claim("b-steps", "after equally many steps at one rate, a larger batch is no worse",
                  expected="training loss at most 1.1 times that of the next smaller batch (95 % of the log)",
                  source="course task A1")
def b_steps(results):
    found = {size: np.log(v) for size, v in results.select("b", equal="steps").finals("train_loss", "B").items()}
    text = listed({size: float(np.exp(np.mean(v))) for size, v in found.items()})
    return decided(text, *(no_higher(found[b], found[a], math.log(1.1)) for a, b in itertools.pairwise(sorted(found))))


@experiment.claim("b-scaling", "a rate proportional to the batch size removes most of the gap between batch sizes "
                  "after equally many epochs", expected="spread of log training loss, B = 16 to 1024, at most half",
                  source="course task A1")
def b_scaling(results):
    spans = []
    for equal in ("epochs", "scaled"):
        found = {size: loss for size, loss in ends(results, equal).items() if size <= 1024}
        if not all(np.isfinite(v) for v in found.values()):
            return f"{equal}: {listed(found)}", False, "a run diverged"
        spans.append(float(np.ptp(np.log(list(found.values())))))
    return f"{spans[1]:.3g} with scaling, {spans[0]:.3g} without", spans[1] <= spans[0] / 2


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("learning_rates.png", caption="Plain SGD on LeNet-5, batch size 64. Left: training loss by epoch. "
                   "Right: its last value against the rate; a run that diverged is a cross at the top.")
def rates_figure(results):
    figure, (left, right) = panels(1, 2)
    curves(left, results.select("a"), "train_loss", logy=True, ylabel="training loss")
    left.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    sweep(right, results.select("a"), "lr", "train_loss", xlabel="learning rate",
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
        curves(ax, results.select("b", equal=equal), "train_loss", x, logy=True, label=lambda tags: f"B={tags['B']}",
               ylabel="training loss", colours=lambda tags: SIZES.index(tags["B"]), legend=False)
        ax.set_title(title)
    below(figure, a, len(SIZES), title="median over seeds, band from the lowest to the highest")
    for i, (equal, label) in enumerate((("epochs", "one rate"), ("scaled", "rate proportional to B"))):
        some = results.select("b", equal=equal, B=lambda size: size > 1)
        sweep(d, some, "B", "train_loss", label=label, xlabel="batch size", ylabel="training loss at the end",
              logy=True, index=i)
    d.set_xticks(some.values("B"), [f"{size:g}" for size in some.values("B")])
    d.minorticks_off()
    d.set_title("after equally many epochs")
    return figure


if __name__ == "__main__":
    experiment.main()
