"""A report on 784-128-56-10, done again: which of its findings on starts, batches and schedules hold?   Report R.

A student report trained this perceptron with SGD, momentum and Adam under many starts, batch sizes and schedules. It
said MNIST and loaded Fashion-MNIST: here both run, labelled. Nine of its explanations are wrong, each with a test that
decides it: seven are in mlp_optimizers, two here: traces of single weights say nothing of saddles (error-8); a gap of a
point or two is not severe overfitting (error-9). Whether training sticks at a saddle is asked of gradients (norm,
direction, noise) and of the extreme eigenvalues of the Hessian, by Lanczos, with their error bounds.

Pixels go from 0 to 1, batches have 256 rows, 10 epochs and a rate of 0.1, unless said otherwise.

Run time on 2 cores: --quick about 20 seconds; --data real --jobs 2 --threads 1 about 20 minutes.
"""

import itertools
import math

from lab import Entry, Experiment, Part, Recipe, Undecided, charts
from lab.charts import by_epoch, shapes
from lab.claims import decided, listed, on_every, spread, spreads
from lab.figures import below, closer, curves, heat, panels, sweep
from lab.results import Results
from lab.verdicts import lower, together
from nn import init
from npopt import SGD, Adam, HeavyBall, RandomReshuffling, Stop, schedules
from problems.classifiers import perceptron, rows_of
from problems.watched import watched

import numpy as np

experiment = Experiment(
    __doc__,
    task="R",
    source="a course report on the MLP 784-128-56-10, its requirements and its extras",
    parts={
        "a": Part("SGD: three starts", "digits", ("fashion-mnist", "mnist")),
        "b": Part("batch sizes from 1 to n", "digits", "fashion-mnist"),
        "c": Part("seven schedules", "digits", "fashion-mnist"),
        "f": Part("gradients and curvature over 30 epochs", "digits", "fashion-mnist"),
    },
    seeds=3,
)

STARTS = {"N(0, 0.01²)": init.Normal(0.01), "Xavier": init.XavierUniform(), "library default": None}
PRINTED = {256: (0.359, 0.870, 0.854), 500: (0.421, 0.851, 0.833), 1000: (0.518, 0.816, 0.806)}
OWN = {1: (0.005, 2), 64: (0.05, 10), 256: (0.1, 10), 1024: (0.3, 10), "n": (0.5, 100)}       # rate, epochs, of part b
LOOKS = (0, 1, 5, 10, 20, 30)                                   # epochs at which part f asks for eigenvalues
SIZES = (64, 256, 1024)                                         # batches, crossed with methods and starts
METHODS = {"SGD": (SGD(), 0.1), "momentum": (HeavyBall(0.9), 0.05), "Adam": (Adam(), 1e-3)}


# ------------------------------------------------------------------------------------------------------------- grid
def plans(lr, epoch, epochs):
    """{name: schedule} with lr as the highest rate; `epoch` steps an epoch."""
    s = schedules
    return {
        "constant": s.Constant(lr), "exponential": s.Exponential(lr, 0.8),
        "piecewise": s.Piecewise(lr, (max(1, int(epochs / 2)), max(2, int(epochs * 4 / 5)))),
        "polynomial": s.Polynomial(lr, 2), "linear": s.Linear(lr), "cosine": s.Cosine(lr),
        "warm-up, cosine": s.WithWarmup(s.Cosine(lr), epoch),
    }


@experiment.runs
def runs(args):
    epochs, rows = args.budget(10, 4), args.pick(None, 1200)
    sampler, some = RandomReshuffling(args.pick(256, 64)), dict(stop=Stop(epochs=epochs))

    def problem(data, start="Xavier"):
        return Recipe(perceptron, data=data, rows=rows, pixels=(0, 1), init=STARTS[start])

    for data in args.data_of("a"):
        for start in STARTS:
            yield Entry("a", problem(data, start), SGD(), sampler, 0.1, data=data, start=start, **some)
    for data in args.data_of("b"):
        n = min(rows_of(data), rows or 10**9)
        for own, (lr, most) in OWN.items():
            B = n if own == "n" else own
            if own == 1 and args.quick or B > n:
                continue
            yield Entry("b", problem(data), SGD(), RandomReshuffling(B), lr, study="own rate", B=own,
                        stop=Stop(epochs=args.budget(most, min(most, 10))), metrics=5 if own == "n" else 0.25)
        for B in args.pick(tuple(PRINTED), (64, 128)):
            yield Entry("b", problem(data, "library default"), SGD(), RandomReshuffling(B), 0.1, study="rate 0.1", B=B,
                        **some)
        for method, (optimizer, lr) in METHODS.items():
            for start in args.pick(list(STARTS), list(STARTS)[1:2]):
                for B in args.pick(SIZES, SIZES[:2]):
                    yield Entry("b", problem(data, start), optimizer, RandomReshuffling(B), lr, method=method,
                                start=start, B=B, **some)
    for data in args.data_of("c"):
        epoch = -(-min(rows_of(data), rows or 10**9) // sampler.batch_size)
        for method, (optimizer, lr) in METHODS.items():
            for plan, schedule in plans(lr, epoch, epochs).items():
                yield Entry("c", problem(data), optimizer, sampler, schedule, method=method, plan=plan, **some)
        for start in args.pick(list(STARTS), []):
            for plan, schedule in plans(0.1, epoch, epochs).items():
                yield Entry("c", problem(data, start), SGD(), sampler, schedule, start=start, plan=plan, **some)
    for data in args.data_of("f"):
        for start in args.pick(("N(0, 0.01²)", "Xavier"), ("Xavier",)):
            yield Entry("f", Recipe(watched, data=data, init=STARTS[start], looks=LOOKS, rows=rows), SGD(),
                        RandomReshuffling(256), 0.1, stop=Stop(epochs=args.budget(30, 5)), start=start)


# ----------------------------------------------------------------------------------------------------------- claims
@experiment.claim("a-start", "weights of N(0, 0.01²) start slowly: the training loss after one epoch is the largest",
                  expected="above the two others' (95 %), on every set")
def a_start(results):
    def judged(data, runs):
        first = {start: group.at("train_loss", 1) for start, group in runs.groups("start")}
        slow, *others = first.values()
        return (", ".join(f"{start} {spread(v)}" for start, v in first.items()),
                together(lower(other, slow) for other in others))
    return on_every(results.select("a").groups("data"), judged)


@experiment.claim("b-printed", "the report's table of batch sizes 256, 500 and 1000 at rate 0.1 can be reproduced",
                  expected="loss, training and test accuracy to 0.03 (the report: one seed)", source="report, table")
def b_printed(results, args):
    if args.quick or args.data_of("b") != ["fashion-mnist"] or args.budget(10, 4) != 10:
        raise Undecided("it speaks of ten epochs on Fashion-MNIST")

    def judged(B, runs):
        values = [float(runs.final(c).mean()) for c in ("train_loss", "train_accuracy", "test_accuracy")]
        return ("/".join(f"{v:.3f}" for v in values),
                all(abs(v - p) <= 0.03 for v, p in zip(values, PRINTED[B], strict=True)))
    return on_every(results.select("b", study="rate 0.1").groups("B"), judged)


@experiment.claim("b-large", "at one rate, larger batches are worse after equally many epochs",
                  expected="training loss rises with the batch size, each time (95 %)")
def b_large(results):
    found = results.select("b", study="rate 0.1").finals("train_loss", "B")
    return decided(spreads({f"B={B}": v for B, v in found.items()}),
                   *(lower(a, b) for a, b in itertools.pairwise(found.values())))


def seconds_to(run, target):
    """Time of the steps until the training loss is at most `target`."""
    rows = np.flatnonzero(run.columns["train_loss"] <= target)
    return float(run.columns["seconds"][rows[0]]) if len(rows) else math.inf


@experiment.claim("b-time", "in time, batches between the extremes win: full batches and single rows are slowest to a "
                  "training loss of 0.5", expected="median times of B = 1 and n above those of 64, 256 and 1024",
                  source="the textbook's figure on another set")
def b_time(results):
    found = {B: float(np.median([seconds_to(run, 0.5) for run in group]))
             for B, group in results.select("b", study="own rate").groups("B")}
    if len(found) < len(OWN):
        raise Undecided("not all batch sizes were run")
    text = listed({f"B={B}": f"{v:.2g} s" for B, v in found.items()})
    return text, max(found[B] for B in SIZES) < min(found[1], found["n"])


@experiment.claim("c-decay", "momentum SGD ends with a lower training loss under a schedule that decays to 0 "
                  "from the same rate", expected="cosine and linear below constant (95 %)")
def c_decay(results):
    found = results.select("c", method="momentum").finals("train_loss", "plan")
    return decided(spreads({f"momentum, {plan}": found[plan] for plan in ("constant", "cosine", "linear")}),
                   *(lower(found[plan], found["constant"]) for plan in ("cosine", "linear")))


def at(run, column, epoch):
    return float(run.columns[column][int(np.searchsorted(run.columns["epoch"], epoch - 1e-6))])


@experiment.claim("f-curvature", "no trap after the start: the negative eigenvalues of the Hessian are small "
                  "beside the positive ones", expected="-low < high / 5 at the epochs looked at from 5 on, every run, "
                  "with low less its error", source="expected in this setting; the report saw a saddle")
def f_curvature(results):
    seen = np.array([[at(run, "low", e) - at(run, "low_error", e), at(run, "high", e)]
                     for run in results.select("f") for e in LOOKS if 5 <= e <= run.final["epoch"]])
    known = seen[np.isfinite(seen).all(1)] if len(seen) else seen
    if len(known) < max(1, 0.8 * len(seen)):
        raise Undecided(f"only {len(known)} of {len(seen)} spectra are known")
    worst = float((-known[:, 0] / known[:, 1]).max())
    return f"-low/high at most {worst:.3f} in {len(known)} of {len(seen)} spectra", worst < 0.2


@experiment.claim("f-noise", "at the end the steps are noise: a batch's gradient has little to do with the full one",
                  expected="|g|² / mean |g_B|² below 0.2 at the end, every run")
def f_noise(results):
    found = [run.final["signal"] for run in results.select("f")]
    return f"{min(found):.3f} to {max(found):.3f}", max(found) < 0.2


@experiment.claim("f-start", "N(0, 0.01²) starts near a strict saddle, of small gradients, and leaves it: the norm "
                  "grows before it falls", expected="gradient norm at the start below that after an epoch, every "
                  "seed; -low > high / 2 at the start, wherever that spectrum is known, with low plus its error")
def f_start(results):
    runs = results.select("f", start="N(0, 0.01²)")
    grown = [(run.columns["norm"][0], run.columns["norm"][1]) for run in runs]
    ratios = np.array([-(at(run, "low", 0) + at(run, "low_error", 0)) / at(run, "high", 0) for run in runs])
    ratios = ratios[np.isfinite(ratios)]
    if not len(ratios):
        raise Undecided("no spectrum at the start is known")
    return (f"norm {', '.join(f'{a:.3g} to {b:.3g}' for a, b in grown)}; -low/high "
            f"{', '.join(f'{r:.3f}' for r in ratios)} at the start",
            all(a < b for a, b in grown) and bool((ratios > 0.5).all()))


@experiment.claim("error-8", "traces of single weights prove nothing: many first-layer gradients are exactly 0",
                  expected="above 5 % of a batch's first-layer gradient, at the end of every run",
                  source="report: \"a saddle\"; pixels that are always black")
def error_8(results):
    found = [run.final["zeros"] for run in results.select("f")]
    return f"{100 * min(found):.1f} to {100 * max(found):.1f} %", min(found) > 0.05


@experiment.claim("error-9", "the gap between training and test accuracy is a point or two, not severe overfitting",
                  expected="below 3 points (mean over seeds), for the three starts, on every set", source="report")
def error_9(results):
    found = {f"{data}, {start}": 100 * (runs.final("train_accuracy") - runs.final("test_accuracy"))
             for (data, start), runs in results.select("a").groups("data", "start")}
    return spreads(found), max(v.mean() for v in found.values()) < 3


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("starts.png", caption="SGD, rate 0.1, batch size 256, three starts: training loss, training and "
                   "test error by epoch (median and range over seeds), on both sets.")
def starts_figure(results):
    groups = results.select("a").groups("data")
    figure, axes = panels(len(groups), 3, squeeze=False)
    for row, (data, runs) in zip(axes, groups, strict=True):
        by_epoch(row, runs)
        for ax in row:
            ax.set_title(data)
    return below(figure, axes[0, 0], 3)


@experiment.figure("batches.png", caption="Batch sizes from 1 to n, each with its own rate: training loss by epoch and "
                   "by the time of the steps; right: one rate, 0.1, after ten epochs.")
def batches_figure(results):
    figure, (a, b, c) = panels(1, 3)
    some, one = results.select("b", study="own rate"), results.select("b", study="rate 0.1")
    curves(a, some, "train_loss", logy=True, ylabel="training loss", label=lambda tags: f"B={tags['B']}", legend=False)
    curves(b, some, "train_loss", "seconds", logx=True, logy=True, ylabel="training loss", legend=False)
    sweep(c, one, "B", "train_loss", xlabel="batch size", ylabel="training loss")
    c.set_xticks(sorted(one.values("B")))
    c.xaxis.set_major_formatter("{x:g}")
    c.minorticks_off()
    return below(figure, a)


@experiment.figure("schedules.png", caption="Seven schedules under SGD (0.1), momentum SGD (0.05) and Adam (1e-3): the "
                   "rates as parts of the highest, and the training loss by epoch.")
def schedules_figure(results, args):
    figure, axes = panels(1, 4, size=(22, 4.8))
    epochs = args.budget(10, 4)
    shapes(axes[0], plans(1.0, 100, epochs), 100, math.ceil(100 * epochs))
    axes[0].set_ylabel("rate / highest rate")
    for ax, (method, runs) in zip(axes[1:], results.select("c").groups("method"), strict=True):
        curves(ax, runs, "train_loss", ylabel="training loss", legend=False)
        closer(ax, runs, "train_loss", 0.1, 0.05)
        ax.set_title(method)
    return below(figure, axes[0], 7)


@experiment.figure("epochs.png", caption="Training loss, training and test error by epoch (median and range over "
                   "seeds). First row: batch sizes, each with its own rate, of those with ten epochs. Second: "
                   "schedules under momentum SGD.")
def epochs_figure(results):
    figure, axes = panels(2, 3, size=(17, 9))
    for row, some in zip(axes, (results.select("b", study="own rate", B=SIZES), results.select("c", method="momentum")),
                         strict=True):
        by_epoch(row, some, top=97)
        row[2].legend(*row[0].get_legend_handles_labels(), loc="upper right", fontsize=8, ncols=2)
    return figure


@experiment.figure("crossed.png", caption="Test accuracy at the end, mean over seeds: three methods at their customary "
                   "rates over start and batch size, and SGD over start and schedule.")
def crossed_figure(results):
    figure, axes = panels(2, 2, size=(17, 8))
    crossed = [(method, runs, "B") for method, runs in results.select("b").groups("method")]
    from_start = Results(run for run in results.select("c") if "start" in run.tags)
    crossed += [("SGD, batch size 256", from_start, "plan")] if from_start else []
    for ax in axes.flat[len(crossed):]:
        ax.set_axis_off()
    for ax, (title, runs, tag) in zip(axes.flat, crossed, strict=False):
        table, starts, columns = runs.table("test_accuracy", "start", tag)
        heat(ax, 100 * table, starts, columns, "", "batch size" if tag == "B" else "", "test accuracy [%]",
             digits="{:.1f}")
        ax.set_title(title)
    axes.flat[3].tick_params(axis="x", rotation=20)
    return figure


@experiment.figure("gradients.png", caption="SGD at 0.1. Norm of the gradient by layer; cosine of successive epochs' "
                   "gradients, and the part of a batch's gradient that is signal; extreme eigenvalues of the Hessian "
                   "over 1,000 rows (Lanczos; median over the seeds where they are known; bars: error bounds), with "
                   "2/lr.")
def gradients_figure(results):
    return charts.watched(results.select("f"), LOOKS, limit=20)


if __name__ == "__main__":
    experiment.main()
