"""Which of twenty-three optimizers, each at its best rate, trains and generalises best?   Lecture notes, part N.

One perceptron, one batch size, one budget, a cosine; each method at three rates a factor 3 apart around its customary
one and at two finer ones about the best, chosen by the loss of held-out rows, never by test rows. The notes say: Adam
is fast, and its gap between training and test is larger; SGD with momentum is stable and generalises better. Then the
schedules (cyclical, SGDR, one-cycle, warm-up) on momentum SGD, and the notes' picture of flat and sharp minima, of
which a shifted loss spares the flat one: does Adam end in a sharper one than momentum SGD? The notes' numbers, and the
methods on surfaces, are in lecture_notes.

784-128-56-10 on 5,000 training rows, 1,000 held-out rows and 5,000 test rows, batches of 128, 8 epochs: few rows, seen
often, so that there is a gap to be compared. AdaBound, SWATS and LARS as lab/measures.py says: AdaBound's final rate
moves with the rate that is swept, SWATS switches at a relative tolerance, LARS's biases take plain steps at the rate.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 10 minutes.
"""

from lab import Entry, Experiment, Part, Recipe, Undecided, charts
from lab.claims import decided, inside, larger, listed, spread, spreads
from lab.figures import closer, curves, look, named, panels
from lab.measures import methods, plans, sharpness
from lab.results import finer
from lab.verdicts import lower, no_higher
from npopt import Cosine, RandomReshuffling, Stop
from npopt.optimizers import HeavyBall
from problems.classifiers import perceptron, rows_of
from problems.examples import WELLS, wells

import numpy as np

experiment = Experiment(
    __doc__,
    task="N",
    source="lecture notes on optimisers; the papers of the methods, named in npopt/optimizers",
    parts={
        "a": Part("all methods at their best rates, one perceptron", "digits", "fashion-mnist"),
        "c": Part("schedules for momentum SGD, each at its best rate", "digits", "fashion-mnist"),
        "d": Part("flat and sharp minima", "digits", "fashion-mnist"),
    },
    seeds=5,
)

BATCH = 128
HELD = 1 / 6  # of the rows, to choose rates by
FACTORS = (1 / 3, 1, 3)  # of the customary rate, before the finer grid
LATE = ("RAdam", "Lookahead (Adam)")  # best at the end of that grid in an earlier run: 9 times the rate, too
SHIFTS = (0.005, 0.01, 0.02)  # standard deviations of a shift of the weights
SHOWN = ("SGD", "HeavyBall", "AdaGrad", "RMSProp", "Adam", "Lion", "LAMB")
FAMILIES = {
    "SGD and its averages": ("SGD", "HeavyBall", "Nesterov", "LARS", "EMA (HeavyBall)", "SWA (HeavyBall)"),
    "a second moment, or signs": ("AdaGrad", "RMSProp", "Adadelta", "Adafactor", "Sophia-G", "Lion"),
    "Adam and what it became": ("Adam", "AdamW", "AMSGrad", "NAdam", "RAdam", "Adam-mini", "LAMB"),
    "between Adam and SGD": ("Adam", "AdaBound", "AMSBound", "SWATS", "Lookahead (Adam)"),
}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    rows, epochs = args.pick(6000, 400), args.budget(8, 4)
    sampler, some = RandomReshuffling(BATCH), dict(stop=Stop(epochs=epochs), metrics=2)
    for data in args.data_of("a"):
        problem = Recipe(perceptron, data=data, rows=rows, validation=HELD, test_rows=args.pick(5000, None))
        steps = epochs * -(-rows_of(data, rows, HELD) // BATCH)
        for name, (optimizer, base) in methods(steps).items():
            factors = args.pick((*FACTORS, 9) if name in LATE else FACTORS, FACTORS[1:2])
            rates = [float(f"{base * factor:.4g}") for factor in factors]
            for lr in finer(rates, found, "a", method=name):
                yield Entry("a", problem, optimizer, sampler, Cosine(lr), method=name, lr=lr, **some)
    for data in args.data_of("c"):
        problem = Recipe(perceptron, data=data, rows=rows, validation=HELD, test_rows=args.pick(5000, None))
        steps = epochs * -(-rows_of(data, rows, HELD) // BATCH)
        for name in plans(steps, 0.1):
            for lr in finer(args.pick((0.01, 0.03, 0.1), (0.1,)), found, "c", method=name):
                schedule, vary = plans(steps, lr)[name]
                yield Entry("c", problem, HeavyBall(0.9), sampler, schedule, vary=vary, method=name, lr=lr, **some)
    yield Entry("d", run=Recipe(wells), seeds=[0], of="wells")
    given = dict(epochs=epochs, batch=BATCH, held=HELD, shifts=SHIFTS)
    for data in args.data_of("d"):
        for method in ("HeavyBall", "Adam"):
            for factor in args.pick((1, 3), (1,)):
                lr = methods(1)[method][1] * factor
                run = Recipe(sharpness, data=data, rows=args.pick(rows, 200), method=method, lr=lr, **given)
                yield Entry("d", run=run, method=method, lr=lr)


# ----------------------------------------------------------------------------------------------------------- claims
def gap(runs):
    return runs.final("train_accuracy") - runs.final("test_accuracy")


experiment.claim(
    "a-edge",
    "the rates are wide enough: no method is best at an end of its grid",
    expected="the best is inside, for every method",
    source="tuning of this script",
)(inside("a"))


@experiment.claim(
    "a-fast",
    "Adam is faster than momentum SGD: a smaller training loss after a quarter of the budget",
    expected="smaller (95 %), each at its best rate; false where larger, or smaller by at most 0.005",
    source="lecture notes",
)
def a_fast(results):
    best = results.select("a", method=("Adam", "HeavyBall")).at_best()
    adam, ball = (best.select(method=m).at("train_loss", 1) for m in ("Adam", "HeavyBall"))
    return decided(f"Adam {spread(adam)}, HeavyBall {spread(ball)}", lower(adam, ball, 0.005))


@experiment.claim(
    "a-gap",
    "Adam's gap between training and test accuracy is larger than that of momentum SGD",
    expected="larger (95 %); false where smaller, or larger by at most 0.2 points",
    source="lecture notes",
)
def a_gap(results):
    best = results.select("a", method=("Adam", "HeavyBall")).at_best()
    adam, ball = (gap(best.select(method=m)) for m in ("Adam", "HeavyBall"))
    return decided(f"Adam {spread(100 * adam)}, HeavyBall {spread(100 * ball)} points", lower(ball, adam, 0.002))


experiment.claim(
    "a-test",
    "momentum SGD generalises better than Adam: a higher test accuracy",
    expected="higher (95 %); false where lower, or higher by at most 0.2 points",
    source="lecture notes",
)(larger("a", "HeavyBall", "Adam", "test_accuracy", "validation_loss", 0.002))


@experiment.claim(
    "a-close",
    "tuned alike, all methods end close together on this network",
    expected="test accuracies within one point of the best (95 %), for every method; false where one is further behind",
    source="this script",
)
def a_close(results):
    ends = {m: 100 * v for m, v in results.select("a").at_best().finals("test_accuracy").items()}
    best = max(ends, key=lambda m: ends[m].mean())
    near = {m: no_higher(ends[best], v, 1) for m, v in ends.items() if m != best}
    behind = {m: f"{ends[m].mean():.2f}" for m in near if near[m] is not True}
    text = f"best {best} {ends[best].mean():.2f} %" + (f"; not surely within a point: {listed(behind)}" * bool(behind))
    return decided(text, *near.values())


@experiment.claim(
    "c-decay",
    "a rate that ends near 0 gives a smaller training loss than a constant one",
    expected="cosine, one-cycle, steps, each at its best rate: smaller (95 %); false where one is larger",
    source="lecture notes",
)
def c_decay(results):
    ends = results.select("c").at_best().finals("train_loss")
    decaying = ("cosine", "one-cycle", "steps")
    return decided(
        spreads({name: ends[name] for name in ("constant", *decaying)}),
        *(lower(ends[name], ends["constant"]) for name in decaying),
    )


experiment.claim(
    "c-edge",
    "the rates of the schedules are wide enough",
    source="tuning of this script",
    expected="the best rate is inside its grid, always",
)(inside("c"))


@experiment.claim(
    "d-wells",
    "a small shift raises a sharp minimum's loss more, by the ratio of the curvatures",
    expected="25 times as much, to 10 %, at a shift of 0.1",
    source="lecture notes",
)
def d_wells(results):
    c = {name: np.asarray(column) for name, column in results.select("d", of="wells")[0].columns.items()}
    flat, sharp = ((c["test"] - c["train"])[np.abs(c["x"] - centre).argmin()] for centre, _ in WELLS)
    return f"{sharp:.4f} and {flat:.5f}, ratio {sharp / flat:.1f}", abs(sharp / flat / 25 - 1) < 0.1


def ended(results):
    """{method and rate: runs} of part d."""
    return {f"{method}: {lr:.3g}": runs for (method, lr), runs in results.select("d").groups("method", "lr")}


def against(column, row=0):
    """A claim's function: Adam above momentum SGD at both of their rates, crosswise. Seeds in which a kink of ReLU
    hides an eigenvalue are left out of all."""

    def decide(results):
        found = {name: runs.at(column, row) for name, runs in ended(results).items()}
        clear = np.isfinite(list(found.values())).all(0)
        if clear.sum() < 3:
            raise Undecided("a kink of ReLU disturbs an eigenvalue in all but two seeds")
        found = {name: np.log(values[clear]) for name, values in found.items()}
        pairs = [lower(found[b], found[a]) for a in found for b in found if a.startswith("Adam") and "Heavy" in b]
        return decided(spreads({name: np.exp(v) for name, v in found.items()}), *pairs)

    return decide


experiment.claim(
    "d-sharp",
    "Adam ends in a sharper minimum than momentum SGD",
    expected="largest Hessian eigenvalue larger (95 % of the log), at every pair of rates; false where smaller at one",
    source="lecture notes",
)(against("high"))
experiment.claim(
    "d-shift",
    "and there a shift of the weights raises the training loss more",
    expected=f"for a shift of N(0, {SHIFTS[1]:g}^2): more (95 % of the log), at every pair of rates; false where less "
    "at one",
    source="lecture notes",
)(against("rise", 1))


# ---------------------------------------------------------------------------------------------------------- figures
def both(axes, results):
    """Training loss and test accuracy by epoch, without the untrained network."""
    for ax, column, text in zip(axes, ("train_loss", "test_accuracy"), ("training loss", "test accuracy"), strict=True):
        curves(ax, results, column, logy=column == "train_loss", ylabel=text, legend=False)
        closer(ax, results, column, *((1 / 11, 0.1) if column == "train_loss" else (0.005, 0.005)))
        ax.set_xlim(1.9, None)
        named(ax)


@experiment.figure(
    "methods.png",
    caption="Seven of the methods at their best rates, from epoch 2 on: training loss, and test accuracy, by epoch "
    "(median and quartiles of the seeds).",
)
def methods_figure(results):
    figure, axes = panels(1, 2)
    both(axes, results.select("a", method=SHOWN).at_best())
    return figure


@experiment.figure(
    "table.png",
    caption="Every method at its best rate, sorted by test accuracy: training and test accuracy at the end (points: "
    "seeds; bars: mean), the rate that was chosen in brackets; on the right the generalisation gap in points, and its "
    "deviation over seeds.",
)
def table_figure(results):
    return charts.ranking(results.select("a"))


@experiment.figure(
    "rates.png",
    caption="Loss of held-out rows against the rate, in units of each method's customary one: how much tuning matters "
    "(mean over seeds); crosses: above three times the least, or diverged.",
)
def rates_figure(results):
    customary = {m: base for m, (_, base) in methods(100).items()}
    ticks = {1 / 9: "1/9", 1 / 3: "1/3", 1: "1", 3: "3", 9: "9", 27: "27"}
    return charts.rates(results.select("a"), customary, ticks, families=FAMILIES)


@experiment.figure(
    "schedules.png",
    caption="Momentum SGD under seven schedules (triangular2 is left out): rates as parts of the highest, the training "
    "loss and the test accuracy, each at its best rate (median and quartiles of the seeds).",
)
def schedules_figure(results):
    figure, axes = panels(1, 3)
    some = results.select("c", method=lambda name: name != "triangular2").at_best()
    n, epoch = int(some[0].columns["step"][-1]), some[0].columns["epoch"][-1]
    shown = {name: plan for name, (plan, _) in plans(n, 1.0).items() if name != "triangular2"}
    for i, (name, schedule) in enumerate(shown.items()):
        schedule.start(max(1, round(n / epoch)), n)
        axes[0].plot(np.arange(n) * epoch / n, [schedule(k) for k in range(n)], lw=1.4, label=name, **look(i))
    axes[0].set(xlabel="epoch", ylabel="rate / highest rate")
    both(axes[1:], some)
    return figure


@experiment.figure(
    "flat.png",
    caption="Left: the notes' picture, a flat and a sharp minimum of one training loss, and the loss shifted by 0.1. "
    "Middle: what a random shift of the weights adds to the training loss where momentum SGD and Adam end (mean and "
    "range over seeds). Right: the largest eigenvalue there.",
)
def flat_figure(results):
    figure, (left, middle, right) = panels(1, 3)
    c = {name: np.asarray(column) for name, column in results.select("d", of="wells")[0].columns.items()}
    for i, (name, label) in enumerate((("train", "training loss"), ("test", "shifted loss"))):
        left.plot(c["x"], c[name], label=label, **look(i))
    for centre, _ in WELLS:
        at = np.abs(c["x"] - centre).argmin()
        left.plot([centre] * 2, [c["train"][at], c["test"][at]], "o-", color="black", ms=5)
    left.set(xlabel="w", ylabel="loss", title="curvature 1 and 25, shift 0.1")
    left.set_ylim(-0.05, 1.25)
    left.legend(loc="upper left", fontsize=9)
    found = ended(results)
    for i, (name, group) in enumerate(found.items()):
        style = look(i)
        rises = np.array([run.columns["rise"] for run in group])
        middle.plot(SHIFTS, rises.mean(0), marker="o", ms=4, label=name, **style)
        middle.fill_between(SHIFTS, rises.min(0), rises.max(0), color=style["color"], alpha=0.2, lw=0)
        highs = [run.columns["high"][0] for run in group]
        right.plot([i] * len(highs), highs, "o", color=style["color"])
    middle.set(xscale="log", yscale="log", title="shifted weights")
    middle.set(xlabel="standard deviation of the shift", ylabel="rise of the training loss")
    middle.set_xticks(SHIFTS, [f"{a:g}" for a in SHIFTS])
    middle.minorticks_off()
    named(middle)
    right.set_xticks(range(len(found)), [name.replace(": ", "\n") for name in found])
    right.set(ylabel="largest Hessian eigenvalue", xlim=(-0.5, len(found) - 0.5), title="where they end")
    right.set_ylim(0, None)
    return figure


if __name__ == "__main__":
    experiment.main()
