"""Which initial weights can be trained, and what do their singular values say about it?   Course book, section C.1.

The book compares six starts of 784-256-192-128-64-10 (one shared PReLU) by condition number, spectral norm and
effective rank, and after three epochs on Fashion-MNIST by two columns, "error rate" and "convergence speed". Read from
its code: the averages count PReLU's slope as a sixth matrix of norm 0.25; the error rate is the test cross-entropy,
2.30 being ln 10; the speed is (E - last epoch that gained 1 %)/E, so that 0.33 of 3 epochs means "still improving" and
larger is not better; L-momentum's weights all have variance 0.81. Here the table is made again, with and without the
slope, over seeds; the training once as in the book (rate 1e-3) and once at the best of five rates. Then depth: theory
predicts the factor by which a layer multiplies the variance of its inputs, and that a deep linear network of orthogonal
matrices has a Jacobian of singular values 1 alone, hence Frobenius norm sqrt(n) (the book prints 1).

Run time on 2 cores: --quick about half a minute; --data real --jobs 2 --threads 1 about ten minutes.
"""

import math

from lab import Entry, Experiment, Part, Recipe, Undecided, alike, decided, finer, inside, listed, spread, within
from lab.charts import tuned
from lab.figures import COLOURS, below, curves, look, mark, panels
from lab.signals import ACTIVATIONS, jacobian, power, signals, spectra
from nn import ReLU, Tanh, init
from npopt import Cosine, HeavyBall, RandomReshuffling, Stop
from problems.classifiers import book, perceptron

import numpy as np

experiment = Experiment(
    __doc__,
    task="C.1",
    source="course book, chapter on initialisation; the papers are named in nn/init.py",
    parts={
        "a": Part("spectra of six starts"),
        "b": Part("three epochs at rate 1e-3, as in the book", "digits", "fashion-mnist"),
        "c": Part("ten epochs at the best of five rates", "digits", "fashion-mnist"),
        "d": Part("variance through 50 layers, Jacobians, spectral norms"),
        "e": Part("training 20 layers", "digits", "fashion-mnist"),
    },
    seeds=3,
)

STARTS = {
    "LeCun": init.LeCun(), "Xavier": init.XavierNormal(), "Kaiming": init.KaimingNormal(), "orthogonal":
    init.Orthogonal(), "scaled orthogonal": init.ScaledOrthogonal(), "L-momentum": init.LMomentum(),
}
BOOK = {            # condition number, spectral norm, effective rank, "error rate"; of two printed values the mean
    "LeCun": (5.76, 1.405, 0.89, 0.48), "Xavier": (5.565, 1.63, 0.89, 0.49), "Kaiming": (5.685, 1.97, 0.89, 0.45),
    "orthogonal": (1.0, 0.88, 0.95, 0.49), "scaled orthogonal": (1.0, 0.13, 0.95, 2.30), "L-momentum":
    (5.63, 19.65, 0.89, math.nan),
}
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
LAYERS, WIDTH = 50, 256
DEEP = {"N(0, 0.01²)": init.Normal(0.01), "Xavier": init.XavierNormal(), "Kaiming": init.KaimingNormal(),
        "orthogonal √2": init.Orthogonal(math.sqrt(2))}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    rows = args.pick(None, 1200)
    for start in STARTS:
        yield Entry("a", run=Recipe(spectra, start=STARTS[start]), start=start)
    for data in args.data_of("b"):
        for start in STARTS:
            yield Entry("b", Recipe(book, data=data, start=STARTS[start], rows=rows), HeavyBall(0.9),
                        RandomReshuffling(128), 1e-3, stop=Stop(epochs=args.budget(3, 6)), start=start)
    for data in args.data_of("c"):
        for start in list(STARTS)[:5]:                          # L-momentum diverges at every one of them
            for lr in finer(args.pick(RATES, RATES[2:3]), found, "c", method=start):
                yield Entry("c", Recipe(book, data=data, start=STARTS[start], rows=rows, validation=1 / 6),
                            HeavyBall(0.9), RandomReshuffling(128), Cosine(lr), stop=Stop(epochs=args.budget(10, 6)),
                            method=start, lr=lr)
    for start in DEEP:
        for activation in ACTIVATIONS:
            recipe = Recipe(signals, start=DEEP[start], activation=activation, layers=LAYERS, width=WIDTH)
            yield Entry("d", run=recipe, activation=activation, start=start)
    for start in ("LeCun", "orthogonal"):
        yield Entry("d", run=Recipe(jacobian, start=STARTS[start], layers=LAYERS, width=WIDTH), of="Jacobian",
                    start=start)
    yield Entry("d", run=Recipe(power), of="power iteration")
    for data in args.data_of("e"):
        for start, maker in DEEP.items():
            for activation in (ReLU, Tanh):
                problem = Recipe(perceptron, data=data, hidden=(64,) * 19, rows=rows, init=maker, activation=activation)
                yield Entry("e", problem, HeavyBall(0.9), RandomReshuffling(128), Cosine(0.01),
                            stop=Stop(epochs=args.budget(3, 4)), metrics=args.pick(0.5, 1),
                            activation=activation.__name__, start=start)


# ----------------------------------------------------------------------------------------------------------- claims
def averages(results, column, matrices=False):
    """{start: mean over the matrices (with the slope, or without) and seeds}"""
    found = {}
    for start, group in results.select("a").groups("start"):
        values = [np.average(run.columns[column], weights=run.columns["matrix"] if matrices else None) for run in group]
        found[start] = float(np.mean(values))
    return found


for column, index, tolerance, name in (("condition_number", 0, 0.05, "condition number"),
                                       ("spectral_norm", 1, 0.05, "spectral norm"),
                                       ("rank_by_share", 2, 0.01, "effective rank")):
    @experiment.claim(f"a-{column.replace('_', '-')}", f"the book's {name}s are averages that count PReLU's slope as a "
                      "matrix", expected=f"to {100 * tolerance:g} % for the six starts; without the slope not all",
                      source="book's table")
    def table(results, column=column, index=index, tolerance=tolerance):
        found, without = averages(results, column), averages(results, column, matrices=True)
        fits = [all(abs(mean[s] / BOOK[s][index] - 1) <= tolerance for s in STARTS) for mean in (found, without)]
        return f"{listed(found)}; without the slope {listed(without)}", fits == [True, False]


@experiment.claim("a-matrices", "counting the slope draws the spectral norms to 0.25 and the ranks to 1",
                  expected="for every start, beside the average of the five matrices", source="correction of the table")
def a_matrices(results):
    norms, ranks = (averages(results, c, True) for c in ("spectral_norm", "rank_by_share"))
    with_slope = [averages(results, c) for c in ("spectral_norm", "rank_by_share")]
    text = listed({s: f"{norms[s]:.3g} / {ranks[s]:.3f}" for s in STARTS})
    fits = [s for s in STARTS if abs(with_slope[0][s] - 0.25) < abs(norms[s] - 0.25) and ranks[s] < with_slope[1][s]]
    return text, len(fits) == len(STARTS)


@experiment.claim("a-momentum", "L-momentum gives every matrix the variance 0.81, whatever its size",
                  expected="to 1e-9", source="book's code")
def a_momentum(results):
    runs = results.select("a", start="L-momentum")
    found = np.array([run.columns["variance"][run.columns["matrix"] == 1] for run in runs])
    return f"{found.min():.9f} to {found.max():.9f}", bool(np.abs(found - 0.81).max() < 1e-9)


def real(args, part):
    if args.data_of(part) != ["fashion-mnist"] or args.quick or args.budget(3, 6) != 3:
        raise Undecided("it speaks of three epochs on Fashion-MNIST")


@experiment.claim("b-error", "the book's \"error rates\" 0.48, 0.49, 0.45, 0.49 and 2.30 are test cross-entropies",
                  expected="test losses to 0.04; the errors in per cent more than ten times that",
                  source="book's table and code")
def b_error(results, args):
    real(args, "b")
    some = results.select("b", start=list(STARTS)[:5])
    losses = {s: float(np.mean(v)) for s, v in some.finals("test_loss", "start").items()}
    errors = {s: 100 * (1 - float(np.mean(v))) for s, v in some.finals("test_accuracy", "start").items()}
    text = listed({s: f"loss {losses[s]:.3f}, error {errors[s]:.1f} %" for s in losses})
    return text, all(abs(losses[s] - BOOK[s][3]) <= 0.04 and errors[s] > 10 * BOOK[s][3] for s in losses)


@experiment.claim("b-untrained", "scaled orthogonal weights are not trained by then: the loss is that of a uniform "
                  "guess", expected="test loss within 0.01 of ln 10")
def b_untrained(results):
    loss = float(np.mean(results.select("b", start="scaled orthogonal").final("test_loss")))
    return loss, abs(loss - math.log(10)) < 0.01


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


@experiment.claim("b-speed", "the book's \"convergence speed\" is least for the starts that still improve",
                  expected="1/3 for LeCun, Xavier, Kaiming and orthogonal, larger for the untrained scaled orthogonal",
                  source="book's code")
def b_speed(results, args):
    real(args, "b")
    found = {s: speed(np.mean([run.columns["train_loss"][1:] for run in runs], 0))
             for s, runs in results.select("b", start=list(STARTS)[:5]).groups("start")}
    least = all(abs(found[s] - 1 / 3) < 1e-9 for s in list(STARTS)[:4])
    return listed(found), least and found["scaled orthogonal"] > 1 / 3


experiment.claim("c-edge", "the rates are wide enough", expected="the best rate is inside its grid, always",
                 source="tuning of this script")(inside("c"))


for start in ("LeCun", "Xavier", "orthogonal"):
    experiment.claim(f"c-close-{start.lower()}", f"tuned, {start} and Kaiming starts end alike on five layers",
                     expected="test accuracies within half a point (95 %)",
                     )(alike("c", start, "Kaiming", "test_accuracy", 0.005, by="validation_loss"))


@experiment.claim("c-scaled", "at a larger rate scaled orthogonal weights can be trained, too",
                  expected="test accuracy at the best rate above 80 % (95 %)")
def c_scaled(results):
    best = results.select("c").tuned()["scaled orthogonal"]
    values = 100 * best.runs.final("test_accuracy")
    return decided(f"{spread(values)} % at {best.value:g}", within(values, 80))


def factor(runs):
    """The geometric mean of the factor by which a layer multiplies the mean square, over seeds."""
    squares = np.mean([np.log(run.columns["square"]) for run in runs], 0)
    return math.exp((squares[-1] - squares[0]) / (LAYERS - 1))


@experiment.claim("d-factors", "ReLU: a layer multiplies the mean square by 1 with Kaiming and sqrt(2) x orthogonal, "
                  "by 1/2 with Xavier, by 0.0128 with N(0, 0.01²)", expected="n std² / 2 to 5 %, n = 256",
                  source="He et al., ICCV 2015, equation 9")
def d_factors(results):
    expected = {"Kaiming": 1.0, "orthogonal √2": 1.0, "Xavier": 0.5, "N(0, 0.01²)": WIDTH * 1e-4 / 2}
    found = {s: factor(results.select("d", activation="ReLU", start=s)) for s in expected}
    return listed(found), all(abs(found[s] / v - 1) < 0.05 for s, v in expected.items())


@experiment.claim("d-tanh", "tanh: Xavier's signals fade slowly, like 1/layer, not geometrically",
                  expected="q = 1/(2 layer): 2 x 50 q in 0.75 to 1.25 at layer 50, 2 x 25 q at layer 25",
                  source="mean field at the critical point: q <- q - 2 q²; Schoenholz et al., ICLR 2017")
def d_tanh(results):
    squares = np.mean([run.columns["square"] for run in results.select("d", activation="tanh", start="Xavier")], 0)
    found = {layer: 2 * layer * float(squares[layer - 1]) for layer in (25, 50)}
    return listed(found), all(0.75 <= v <= 1.25 for v in found.values())


@experiment.claim("d-jacobian", "orthogonal, linear, 50 layers: all singular values of the Jacobian are 1, its "
                  "Frobenius norm is sqrt(n)", expected="to 1e-9; sqrt(256) = 16 (the book prints 1)",
                  source="Saxe, McClelland & Ganguli, ICLR 2014")
def d_jacobian(results):
    runs = results.select("d", of="Jacobian", start="orthogonal")
    worst = max(float(np.abs(run.columns["value"] - 1).max()) for run in runs)
    frobenius = float(runs[0].columns["frobenius"][0])
    return (f"largest deviation {worst:.1g}, Frobenius norm {frobenius:.9g}",
            worst < 1e-9 and abs(frobenius - math.sqrt(WIDTH)) < 1e-8)


@experiment.claim("d-gaussian", "Gaussian weights of the same variance stretch a few directions and lose the others",
                  expected="s_1 / s_n of the Jacobian above 1e10", source="Saxe, McClelland & Ganguli, ICLR 2014")
def d_gaussian(results):
    ratios = [run.columns["value"][0] / max(run.columns["value"][-1], 1e-15 * run.columns["value"][0])
              for run in results.select("d", of="Jacobian", start="LeCun")]
    return f"at least {min(ratios):.2g} (beyond 1e15 rounding hides it)", min(ratios) > 1e10


@experiment.claim("d-power", "one power iteration a step follows the spectral norm of a matrix that moves by 1 % a "
                  "step", expected="relative error below 5 % from step 30 on, never below 0",
                  source="Miyato et al., ICLR 2018, section 2.1")
def d_power(results):
    errors = np.array([run.columns["error"] for run in results.select("d", of="power iteration")])
    return f"{errors[:, 29:].max():.2%} at most", bool(errors[:, 29:].max() < 0.05 and errors.min() > -1e-12)


@experiment.claim("e-deep", "20 layers of ReLU: Kaiming and sqrt(2) x orthogonal learn, N(0, 0.01²) does not",
                  expected="test accuracy above 70 %, and a training loss within 0.02 of ln 10", source="theory of d")
def e_deep(results):
    some = results.select("e", activation="ReLU")
    ends = {s: 100 * float(np.mean(v)) for s, v in some.finals("test_accuracy", "start").items()}
    loss = float(np.mean(some.select(start="N(0, 0.01²)").final("train_loss")))
    good = min(ends["Kaiming"], ends["orthogonal √2"]) > 70 and abs(loss - math.log(10)) < 0.02
    return listed(ends) + f"; training loss of N(0, 0.01²) {loss:.4f}", good


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("spectra.png", caption="Six starts of the book's network: condition number, spectral norm and three "
                   "effective ranks, mean over matrices and seeds. Crosses: as the book averages, with PReLU's slope.")
def spectra_figure(results):
    columns = {"condition_number": "condition number", "spectral_norm": "spectral norm", "rank_by_sum": "rank: sum / "
               "largest", "rank_by_share": "rank: 95 % share", "entropy_share": "rank: exp(entropy) / min(out, in)"}
    figure, axes = panels(1, 5, size=(22, 4.4), sharey=True)
    for ax, (column, title) in zip(axes, columns.items(), strict=True):
        alone, both = averages(results, column, True), averages(results, column)
        ax.barh(range(len(STARTS)), [alone[s] for s in STARTS], color=COLOURS[0], height=0.55, label="five matrices")
        ax.plot([both[s] for s in STARTS], range(len(STARTS)), "x", color=COLOURS[1], ms=9, mew=2.5,
                label="with the slope, as in the book")
        for i, s in enumerate(STARTS):
            left = column == "spectral_norm" and alone[s] < 0.5
            ax.text(alone[s], i + 0.42, f"{alone[s]:.3g}", ha="left" if left else "right", va="center", fontsize=9,
                    color="#444444")
        ax.set_xlabel(title)
        ax.grid(axis="y", visible=False)
        if column == "spectral_norm":
            ax.set_xscale("log")
        if column.endswith("share"):
            ax.set_xlim(0.8, 1.01)
    axes[0].set_yticks(range(len(STARTS)), list(STARTS))
    axes[0].invert_yaxis()
    return below(figure, axes[0], 2)


@experiment.figure("book.png", caption="The book's training, rate 1e-3: test cross-entropy (its \"error rate\") and "
                   "test accuracy. L-momentum: its first rows, or nothing where it diverged at once.")
def book_figure(results):
    figure, (left, right) = panels(1, 2)
    some = results.select("b", start=lambda start: start != "L-momentum")
    curves(left, some, "test_loss", legend=False, logy=True, ylabel="test cross-entropy")
    curves(right, some, "test_accuracy", legend=False, ylabel="test accuracy")
    mark(left, math.log(10), "ln 10")
    return below(figure, left)


@experiment.figure("tuned.png", caption="Ten epochs, cosine, each start at the best of its rates.")
def tuned_figure(results):
    return tuned(results.select("c"))


@experiment.figure("depth.png", caption="Mean square of the pre-activations through 50 layers of width 256, ReLU and "
                   "tanh (median and range over seeds). Right: singular values of the Jacobian of 50 linear layers.")
def depth_figure(results):
    figure, axes = panels(1, 3)
    for ax, activation in zip(axes, ACTIVATIONS, strict=False):
        curves(ax, results.select("d", activation=activation), "square", "layer", logy=True, xlabel="layer",
               ylabel="mean square", legend=activation == "tanh")
        ax.set_ylim(1e-20, 10)
        ax.set_title(activation)
    for i, start in enumerate(("LeCun", "orthogonal")):
        run = results.select("d", of="Jacobian", start=start)[0]
        value = np.asarray(run.columns["value"])
        axes[2].plot(run.columns["rank"], np.where(value > 1e-15 * value[0], value, np.nan), label=start, **look(i))
    axes[2].set(yscale="log", xlabel="number of the singular value", ylabel="singular value", title="linear, 50 layers")
    axes[2].legend()
    return figure


@experiment.figure("deep.png", caption="20 layers of width 64, cosine from 0.01, momentum 0.9: training loss by epoch.")
def deep_figure(results):
    figure, axes = panels(1, 2, sharey=True)
    for ax, activation in zip(axes, ("ReLU", "Tanh"), strict=True):
        curves(ax, results.select("e", activation=activation), "train_loss", ylabel="training loss",
               legend=activation == "ReLU")
        ax.set_title(activation)
        ax.set_ylim(0, 3)
    return figure


if __name__ == "__main__":
    experiment.main()
