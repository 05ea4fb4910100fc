"""Which initial weights can be trained, and what do their singular values say about it?   Course book, section C.1.

The book compares six starts of 784-256-192-128-64-10 (one shared PReLU) by condition number, spectral norm and
effective rank, and after three epochs on Fashion-MNIST by two columns, "error rate" and "convergence speed". Read from
its code: the averages count PReLU's slope as a sixth matrix of norm 0.25; the error rate is the test cross-entropy,
2.30 being ln 10; the speed is (E - last epoch that gained 1 %)/E, so that 0.33 of 3 epochs means "still improving" and
larger is not better; L-momentum's weights all have variance 0.81. Here the table is made again, with and without the
slope, over seeds; the training once as in the book (rate 1e-3) and once for ten epochs, each at its best.
Depth and batch norm are asked for in initialization_depth.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 30 minutes.
"""

import math

from lab import Entry, Experiment, Part, Recipe, Undecided
from lab.charts import tuned
from lab.claims import alike, decided, inside, listed, spread
from lab.figures import COLOURS, below, curves, mark, named, panels
from lab.results import finer
from lab.signals import spectra
from lab.verdicts import close, together, within
from nn import init
from npopt import Cosine, HeavyBall, RandomReshuffling, Stop
from problems.classifiers import book

import numpy as np

experiment = Experiment(
    __doc__,
    task="C.1",
    source="course book, chapter on initialisation; the papers are named in nn/init.py",
    parts={
        "a": Part("spectra of six starts"),
        "b": Part("three epochs at rate 1e-3, as in the book", "digits", "fashion-mnist"),
        "c": Part("ten epochs, each start at its best rate", "digits", "fashion-mnist"),
    },
    seeds=10,
)

STARTS = {
    "LeCun": init.LeCun(),
    "Xavier": init.XavierNormal(),
    "Kaiming": init.KaimingNormal(),
    "orthogonal": init.Orthogonal(),
    "scaled orthogonal": init.ScaledOrthogonal(),
    "L-momentum": init.LMomentum(),
}
BOOK = {  # condition number, spectral norm, effective rank, "error rate"; of two printed values the mean
    "LeCun": (5.76, 1.405, 0.89, 0.48),
    "Xavier": (5.565, 1.63, 0.89, 0.49),
    "Kaiming": (5.685, 1.97, 0.89, 0.45),
    "orthogonal": (1.0, 0.88, 0.95, 0.49),
    "scaled orthogonal": (1.0, 0.13, 0.95, 2.30),
    "L-momentum": (5.63, 19.65, 0.89, math.nan),
}
RATES = (1e-2, 3e-2, 1e-1)  # of part c, before the finer grid


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    rows, few, sampler = args.pick(None, 600), args.seeds[:5], RandomReshuffling(128)
    three, ten = (Stop(epochs=args.budget(*epochs)) for epochs in ((3, 4), (10, 3)))
    for start in STARTS:
        yield Entry("a", run=Recipe(spectra, start=STARTS[start]), start=start)
    for data in args.data_of("b"):
        for start in STARTS:
            problem = Recipe(book, data=data, start=STARTS[start], rows=rows)
            yield Entry("b", problem, HeavyBall(0.9), sampler, 1e-3, stop=three, start=start, seeds=few)
    held = dict(rows=rows, validation=1 / 6)
    for data in args.data_of("c"):
        for start in list(STARTS)[:5]:  # L-momentum diverges at every one of them
            problem = Recipe(book, data=data, start=STARTS[start], **held)
            for lr in finer(args.pick(RATES, RATES[2:3]), found, "c", method=start):
                tags = dict(method=start, lr=lr)
                yield Entry("c", problem, HeavyBall(0.9), sampler, Cosine(lr), stop=ten, seeds=few, **tags)


# ----------------------------------------------------------------------------------------------------------- claims
def averages(results, column, matrices=False):
    """{start: mean over the matrices (with the slope, or without), one a seed}"""
    found = {}
    for start, runs in results.select("a").groups("start"):
        weights = [run.columns["matrix"] if matrices else None for run in runs]
        found[start] = np.array([np.average(r.columns[column], weights=w) for r, w in zip(runs, weights, strict=True)])
    return found


def means(found):
    return listed({name: float(np.mean(values)) for name, values in found.items()})


for id, column, index, tolerance, name in (
    ("a-condition-number", "condition_number", 0, 0.08, "condition number"),
    ("a-spectral-norm", "spectral_norm", 1, 0.05, "spectral norm"),
    ("a-rank-by-share", "rank_by_share", 2, 0.01, "effective rank"),
):

    @experiment.claim(
        id,
        f"the book's {name}s are averages that count PReLU's slope as a matrix",
        expected=f"to {100 * tolerance:g} % for the six starts (95 %); false where one is outside, or where all six "
        "are inside without the slope, too",
        source="book's table",
    )
    def table(results, column=column, index=index, tolerance=tolerance):
        both = [averages(results, column), averages(results, column, matrices=True)]
        fits, others = (
            together(within(found[s] / BOOK[s][index], 1 - tolerance, 1 + tolerance) for s in STARTS) for found in both
        )
        text = f"{means(both[0])}; without the slope {means(both[1])}"
        return decided(text, fits, None if others is None else not others)


@experiment.claim(
    "a-matrices",
    "counting the slope draws the spectral norms to 0.25 and the ranks to 1",
    expected="for every start, beside the average of the five matrices",
    source="correction of the table",
)
def a_matrices(results):
    mean = [
        {s: float(v.mean()) for s, v in averages(results, c, matrices).items()}
        for matrices in (True, False)
        for c in ("spectral_norm", "rank_by_share")
    ]
    norms, ranks, *with_slope = mean
    text = listed({s: f"{norms[s]:.3g} / {ranks[s]:.3f}" for s in STARTS})
    fits = [s for s in STARTS if abs(with_slope[0][s] - 0.25) < abs(norms[s] - 0.25) and ranks[s] < with_slope[1][s]]
    return text, len(fits) == len(STARTS)


@experiment.claim(
    "a-momentum",
    "L-momentum gives every matrix the variance 0.81, whatever its size",
    expected="to 1e-9",
    source="book's code",
)
def a_momentum(results):
    runs = results.select("a", start="L-momentum")
    found = np.array([run.columns["variance"][run.columns["matrix"] == 1] for run in runs])
    return f"{found.min():.9f} to {found.max():.9f}", bool(np.abs(found - 0.81).max() < 1e-9)


def real(args, part):
    if args.data_of(part) != ["fashion-mnist"] or args.quick or args.budget(3, 6) != 3:
        raise Undecided("it speaks of three epochs on Fashion-MNIST")


@experiment.claim(
    "b-error",
    'the book\'s "error rates" 0.48, 0.49, 0.45, 0.49 and 2.30 are test cross-entropies',
    expected="test losses within 0.03 of them (95 %); false where one is outside, or where an error in per cent is "
    "within ten times its number",
    source="book's table and code",
)
def b_error(results, args):
    real(args, "b")
    some = results.select("b", start=list(STARTS)[:5])
    losses = some.finals("test_loss", "start")
    errors = {s: 100 * (1 - v) for s, v in some.finals("test_accuracy", "start").items()}
    text = listed({s: f"loss {spread(losses[s], 3)}, error {errors[s].mean():.1f} %" for s in losses})
    return decided(
        text,
        *(close(v, 0 * v + BOOK[s][3], 0.03) for s, v in losses.items()),
        *(within(v, 10 * BOOK[s][3]) for s, v in errors.items()),
    )


@experiment.claim(
    "b-untrained",
    "scaled orthogonal weights are not trained by then: the loss is that of a uniform guess",
    expected="test loss within 0.01 of ln 10 (95 %); false where outside",
)
def b_untrained(results):
    loss = results.select("b", start="scaled orthogonal").final("test_loss")
    return decided(spread(loss), within(loss, math.log(10) - 0.01, math.log(10) + 0.01))


@experiment.claim("b-nan", "L-momentum diverges", expected="every seed", source="book's table: nan")
def b_nan(results):
    runs = results.select("b", start="L-momentum")
    ends = [run.reason if run.diverged else f"test loss {run.final['test_loss']:.3g}" for run in runs]
    return ", ".join(ends), all(run.diverged for run in runs)


def speed(losses):
    """The book's (E - last epoch, from 0, with an improvement above 1 %)/E of the losses after each epoch."""
    losses, last = np.asarray(losses, float), 0
    for e in range(1, len(losses)):
        if losses[e - 1] - losses[e] > 0.01 * losses[e - 1]:
            last = e
    return (len(losses) - last) / len(losses)


@experiment.claim(
    "b-speed",
    'the book\'s "convergence speed" is least for the starts that still improve',
    expected="1/3 for LeCun, Xavier, Kaiming and orthogonal, larger for the untrained scaled orthogonal, in every seed",
    source="book's code",
)
def b_speed(results, args):
    real(args, "b")
    runs = results.select("b", start=list(STARTS)[:5]).groups("start")
    found = {s: [speed(run.columns["train_loss"][1:]) for run in group] for s, group in runs}
    least = all(abs(v - 1 / 3) < 1e-9 for s in list(STARTS)[:4] for v in found[s])
    larger = min(found["scaled orthogonal"]) > 1 / 3 + 1e-9
    return listed({s: f"{min(v):.2g} to {max(v):.2g}" for s, v in found.items()}), least and larger


experiment.claim(
    "c-edge",
    "the rates are wide enough",
    expected="the best rate is inside its grid, always",
    source="tuning of this script",
)(inside("c"))


for id, start in (("c-close-lecun", "LeCun"), ("c-close-xavier", "Xavier"), ("c-close-orthogonal", "orthogonal")):
    experiment.claim(
        id,
        f"tuned, {start} and Kaiming starts end alike on five layers",
        expected="test accuracies within half a point (95 %); false where further apart",
    )(alike("c", start, "Kaiming", "test_accuracy", 0.005, by="validation_loss"))


@experiment.claim(
    "c-scaled",
    "at a larger rate scaled orthogonal weights can be trained, too",
    expected="test accuracy at the best rate above 80 % (95 %)",
)
def c_scaled(results):
    best = results.select("c").tuned()["scaled orthogonal"]
    values = 100 * best.runs.final("test_accuracy")
    return decided(f"{spread(values)} % at {best.value:g}", within(values, 80))


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure(
    "spectra.png",
    caption="Six starts of the book's network: condition number, spectral norm and three effective ranks, mean over "
    "matrices and seeds. Crosses: as the book averages, with PReLU's slope.",
)
def spectra_figure(results):
    columns = {
        "condition_number": "condition number",
        "spectral_norm": "spectral norm",
        "rank_by_sum": "rank: sum / largest",
        "rank_by_share": "rank: 95 % share",
        "entropy_share": "rank: exp(entropy) / min(out, in)",
    }
    figure, axes = panels(1, 5, size=(13, 4), sharey=True)
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        alone, both = (
            {s: float(v.mean()) for s, v in averages(results, column, some).items()} for some in (True, False)
        )
        ax.barh(range(len(STARTS)), [alone[s] for s in STARTS], color=COLOURS[0], height=0.55, label="five matrices")
        crosses = dict(color=COLOURS[1], ms=9, mew=2.5, label="with the slope, as in the book")
        ax.plot([both[s] for s in STARTS], range(len(STARTS)), "x", **crosses)
        for i, s in enumerate(STARTS):
            side = "left" if column == "spectral_norm" and alone[s] < 0.5 else "right"
            ax.text(alone[s], i + 0.42, f"{alone[s]:.3g}", ha=side, va="center", fontsize=9, color="#444444")
        ax.set_xlabel(title)
        ax.grid(axis="y", visible=False)
        if column == "spectral_norm":
            ax.set_xscale("log")
        if column.endswith("share"):
            ax.set_xlim(0.8, 1.01)
    axes[0].set_yticks(range(len(STARTS)), list(STARTS))
    axes[0].invert_yaxis()
    return below(figure, axes[0], 2)


@experiment.figure(
    "book.png",
    caption='The book\'s training, rate 1e-3: test cross-entropy (its "error rate") and test accuracy. '
    "L-momentum: its first rows, or nothing where it diverged at once.",
)
def book_figure(results):
    figure, (left, right) = panels(1, 2)
    some = results.select("b", start=lambda start: start != "L-momentum")
    curves(left, some, "test_loss", legend=False, logy=True, ylabel="test cross-entropy")
    curves(right, some, "test_accuracy", legend=False, ylabel="test accuracy")
    mark(left, math.log(10), "ln 10")
    named(left)
    named(right)
    return figure


@experiment.figure("tuned.png", caption="Ten epochs, cosine, each start at the best of its rates.")
def tuned_figure(results):
    return tuned(results.select("c"))


if __name__ == "__main__":
    experiment.main()
