"""Does SGD end at flatter minima than gradient descent, and do they generalise better?   Course task A14, on a network.

Linear stability (Wu, Ma & E 2018): where all rows' gradients vanish, SGD of batch B at the rate lr can stay only if

    sharpness       a = lmax(H)                          <= 2 / lr
    non-uniformity  s = lmax(mean H_i^2 - H^2)^(1/2)     <= sqrt(B (n - 1)/(n - B)) / lr.

Gradient descent has the first bound alone, and training pushes it towards it: their gradient descent ends at 3.9 of 4,
19.6 of 20. Small batches have the second bound, which is stricter the smaller they are, and s grows with a: so they
should end at flatter minima. Their test accuracy should be higher; where a tenth or a sixth of the labels is wrong,
more so. Switched at the same rate, SGD must leave the minimum of gradient descent, whose s is above its bound: the
training accuracy falls, comes back at a flatter place, with more test rows right. Gradient descent stays where SGD
stopped.

A perceptron with 64 and 32 hidden units, 1,000 pictures, one-hot targets and the mean of squares over rows and outputs
(which sets the scale of a): small enough for gradient descent to stop. No momentum, no decay, constant rates.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about two and a half hours.
"""

from figures.flat_networks import album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, listed, on_every, spreads
from lab.flatness import stopped, switched
from lab.verdicts import close, lower, within
from npopt.analysis.stability import box

import numpy as np
import scipy

experiment = Experiment(
    __doc__,
    task="A14",
    source="Wu, Ma & E, NeurIPS 2018; Zhu et al., ICML 2019",
    parts={
        "g": Part("where gradient descent and SGD stop", "digits", "fashion-mnist"),
        "w": Part("one after the other, with a sixth of the labels drawn anew", "digits", "fashion-mnist"),
    },
    seeds=5,
    quick_seeds=1,
    figures=album,
)

RATES, BATCHES = (0.2, 0.5, 1.0), (0, 100, 25, 10, 4)  # 0: gradient descent
TIME = {0: 7500, 100: 10_000, 25: 20_000, 10: 30_000, 4: 30_000}  # steps times rate
SWITCH, SMALL = 0.5, 10  # part w: rate, batch
ORDERS = {"GD, then SGD": (0, SMALL), "SGD, then GD": (SMALL, 0), "GD, then GD": (0, 0)}
SLACK = 1.05  # of bounds: the walk is near a minimum, not at one


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    look = args.pick((30, 20, 10), (8, 4, 2))
    for data in args.data_of("g"):
        problem = dict(rows=args.pick(1000, 100), hidden=args.pick((64, 32), (16,)), test_rows=args.pick(None, 300))
        for lr in args.pick(RATES, RATES[-1:]):
            for batch in args.pick(BATCHES, (0, 25, 4)):
                steps = args.pick(round(TIME[batch] / lr), 160)
                some = dict(data=data, problem=problem, batch=batch, lr=lr, steps=steps, piece=1000, look=look)
                rows = dict(metrics=max(1, steps // 40), per="step")
                yield Entry("g", run=Recipe(stopped, **some), batch=batch, lr=lr, n=problem["rows"], **rows)
    for data in args.data_of("w"):
        problem = dict(rows=args.pick(1200, 120), hidden=args.pick((64, 32), (16,)), test_rows=args.pick(None, 300))
        problem |= dict(noise=1 / 6)
        for order, batches in args.pick(ORDERS, dict(list(ORDERS.items())[:2])).items():
            steps = [args.pick(round(TIME[batch] / SWITCH), 160) for batch in batches]
            some = dict(data=data, problem=problem, batches=batches, lr=SWITCH, steps=steps, piece=1200, look=look)
            rows = dict(metrics=args.pick(250, 20), per="step")
            yield Entry("w", run=Recipe(switched, **some), order=order, n=problem["rows"], **rows)


# ----------------------------------------------------------------------------------------------------------- claims
def name_of(batch):
    return f"B = {batch}" if batch else "GD"


@experiment.claim(
    "g-fit",
    "every method fits its rows, so that it is at a minimum of every row",
    expected="training accuracy 1 in all runs",
    source="the premise of linear stability",
)
def g_fit(results):
    least = {
        f"{name_of(b)} at {lr:g}": runs.final("train_accuracy").min()
        for (b, lr), runs in results.select("g").groups("batch", "lr")
    }
    short = {name: v for name, v in least.items() if not v >= 1}
    return listed(short) if short else "all", not short


@experiment.claim(
    "g-bound",
    "no method stops above 2/lr",
    expected=f"lmax at most {SLACK} times 2/lr, all rates and batches (95 %)",
    source="linear stability",
)
def g_bound(results):
    groups = results.select("g").groups("batch", "lr")
    shares = {key: runs.final("high") * key[1] / 2 for key, runs in groups}
    text = listed({f"{name_of(b)} at {lr:g}": f"{v.mean():.2f}" for (b, lr), v in shares.items()})
    return decided(f"lmax lr / 2: {text}", *(within(v, high=SLACK) for v in shares.values()))


@experiment.claim(
    "g-edge",
    "gradient descent stops near 2/lr",
    expected="lmax between 0.8 and 1.05 times 2/lr at every rate (95 %)",
    source="Wu et al., table 1: 3.9 of 4, 19.6 of 20, 39.3 of 40",
)
def g_edge(results):
    groups = [(f"rate {lr:g}", runs) for lr, runs in results.select("g", batch=0).groups("lr")]
    return on_every(groups, lambda _, runs: (f"{np.mean(share(runs)):.2f}", within(share(runs), 0.8, SLACK)))


def share(runs):
    return runs.final("high") * runs[0].tags["lr"] / 2


@experiment.claim(
    "g-box",
    "SGD stops where its non-uniformity allows it",
    expected=f"s at most {SLACK} times its bound, all rates and batches (95 %)",
    source="Wu et al., theorem 1 and figure 5",
)
def g_box(results):
    found = {}
    for (batch, lr), runs in results.select("g", batch=lambda b: b > 0).groups("batch", "lr"):
        found[f"{name_of(batch)} at {lr:g}"] = runs.final("uneven") / box(lr, batch, runs[0].tags["n"])[1]
    text = listed({name: f"{v.mean():.2f}" for name, v in found.items()})
    return decided(f"in parts of the bound: {text}", *(within(v, high=SLACK) for v in found.values()))


def finals(results, column, scale=1.0):
    """{lr: {batch: values over seeds}}"""
    return {
        lr: {b: scale * r.final(column) for b, r in runs.groups("batch")}
        for lr, runs in results.select("g").groups("lr")
    }


@experiment.claim(
    "g-flatter",
    "small batches stop at flatter minima",
    expected="lmax of B = 4 below that of gradient descent at every rate (95 %); false where above",
    source="Wu et al., figure 6",
)
def g_flatter(results):
    found = finals(results, "high")
    text = listed({f"rate {lr:g}:": spreads({"GD": v[0], "B = 4": v[4]}) for lr, v in found.items()})
    return decided(text, *(lower(v[4], v[0]) for v in found.values()))


@experiment.claim(
    "g-together",
    "sharpness and non-uniformity rise together",
    expected="rank correlation over the ends of all runs at least 0.8",
    source="Wu et al., figure 5",
)
def g_together(results):
    some = results.select("g")
    rank = scipy.stats.spearmanr(some.final("high"), some.final("uneven")).statistic
    return float(rank), bool(rank >= 0.8)


@experiment.claim(
    "g-test",
    "they generalise better",
    expected="test accuracy of B = 4 above that of gradient descent at every rate (95 %); false where below",
    source="Wu et al., table 2",
)
def g_test(results):
    found = finals(results, "test_accuracy", 100)
    text = listed({f"rate {lr:g}:": spreads({"GD": v[0], "B = 4": v[4]}, " %") for lr, v in found.items()})
    return decided(text, *(lower(v[0], v[4]) for v in found.values()))


@experiment.claim(
    "g-predicts",
    "the flatter of two ends has more test rows right",
    expected="rank correlation of lmax and test accuracy over all runs at most -0.5",
    source="Wu et al., figure 6",
)
def g_predicts(results):
    some = results.select("g")
    rank = scipy.stats.spearmanr(some.final("high"), some.final("test_accuracy")).statistic
    return float(rank), bool(rank <= -0.5)


def ends(results, order, column):
    """(seeds, 2): a column's value at the end of each phase."""
    found = []
    for run in results.select("w", order=order):
        phase = np.asarray(run.columns["phase"])
        found.append([run.columns[column][np.flatnonzero(phase == i)[-1]] for i in (0, 1)])
    return np.array(found, float)


@experiment.claim(
    "w-leaves",
    "SGD leaves where gradient descent stopped, for a flatter place with more test rows right",
    expected="lmax lower and test accuracy higher at its end (95 %); false where one goes the other way",
    source="Wu et al., figure 1",
)
def w_leaves(results):
    high, test = (ends(results, "GD, then SGD", column) for column in ("high", "test_accuracy"))
    text = f"lmax {spreads({'before': high[:, 0], 'after': high[:, 1]})}; "
    text += spreads({"test before": 100 * test[:, 0], "after": 100 * test[:, 1]}, " %")
    return decided(text, lower(high[:, 1], high[:, 0]), lower(test[:, 0], test[:, 1]))


@experiment.claim(
    "w-falls",
    "at the switch the training accuracy falls",
    expected="its least after the switch below that at it by a point or more (95 %)",
    source="Wu et al., figure 1: from 100 % to about 11 %",
)
def w_falls(results):
    falls = []
    for run in results.select("w", order="GD, then SGD"):
        later = np.asarray(run.columns["phase"]) == 1
        accuracy = np.asarray(run.columns["train_accuracy"])
        falls.append(100 * (accuracy[~later][-1] - accuracy[later].min()))
    return decided(spreads({"fall": np.array(falls)}, " points"), within(falls, 1.0))


@experiment.claim(
    "w-stays",
    "gradient descent stays where SGD stopped",
    expected="lmax within a tenth, test accuracy within half a point (95 %)",
    source="its bound is the weaker one",
)
def w_stays(results):
    high, test = (ends(results, "SGD, then GD", column) for column in ("high", "test_accuracy"))
    text = (
        f"lmax ratio {np.mean(high[:, 1] / high[:, 0]):.3f}; test {100 * (test[:, 1] - test[:, 0]).mean():+.2f} points"
    )
    return decided(
        text, close(np.log(high[:, 1]), np.log(high[:, 0]), 0.1), close(100 * test[:, 1], 100 * test[:, 0], 0.5)
    )


if __name__ == "__main__":
    experiment.main()
