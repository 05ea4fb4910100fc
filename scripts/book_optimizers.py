"""The optimizers of the book's chapter 4: do its formulas, its code and its numbers agree?   Chapter 4, C.2.

The text writes momentum as m <- beta m + g, the class averages, m <- beta m + (1-beta) g, but m = g at the first
step: at one rate its steps are ten times smaller, which is why its SGD learns so little in an epoch (printed: 20.6 %
of the training rows, 34.7 % of the test rows). The text sets Lion's m to the c whose sign is the step; the class does
not. Sophia's curvature is z (H z) with random signs z; the class takes the squared gradient, which estimates
something else. Then the comparison on 784-256-192-128-64-10 with GELU, at the book's rates, in both forms of
momentum, and its table of memory, which counts one array of the size of the weights for momentum and Lion, two for
Adam.

Run time on 2 cores: --quick about ten seconds; --data real --jobs 2 --threads 1 about five minutes.
"""

from lab import Entry, Experiment, Part, Recipe, Undecided, alike, decided, listed, lower, spread
from lab.figures import below, curves, look, panels
from nn import GELU
from npopt import Adam, HeavyBall, Lion, RandomReshuffling, Stop
from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer
from problems.classifiers import perceptron

import numpy as np

experiment = Experiment(
    __doc__,
    task="C.2",
    source="the book's chapter 4: text, code and printed numbers",
    parts={
        "a": Part("two forms of momentum, one epoch of 784-512-64-10", "digits", "fashion-mnist"),
        "b": Part("SGD, Adam and Lion on 784-256-192-128-64-10", "digits", "fashion-mnist"),
        "c": Part("squared gradients are no curvature"),
        "d": Part("memory of the states"),
    },
    seeds=3,
)

PRINTED = 34.7                                                  # test accuracy after one epoch, per cent
WIDE = (256, 192, 128, 64)                                      # 283,914 weights
ALLOCATED = {"Adam": 985.1, "Lion": 748.2, "parameters": 62.1e6}        # MB of the book's "transformer"
SAMPLES = (1, 10, 100, 1000, 10_000)


# ------------------------------------------------------------------------------------------------- the book's variants
@elementwise
def averaged(x, m, g, lr, beta, share):
    m = beta * m + share * g
    x = x - lr * m
    return x, m


class Averaged(Optimizer):
    """The book's class: m <- beta m + (1-beta) g, but m = g at the first step;   x <- x - lr m."""

    arrays = ("m",)

    def __init__(self, beta=0.9):
        self.beta = beta

    def update(self, x, g, lr, m):
        averaged(x, m, g, lr, self.beta, 1.0 if self.t == 1 else 1 - self.beta)


@elementwise
def sign_of_average(x, m, g, lr, b1):
    m = b1 * m + (1 - b1) * g
    x = x - lr * sign(m)  # noqa: F821
    return x, m


class LionOfTheText(Optimizer):
    """The book's text: c = b1 m + (1-b1) g;   x <- x - lr sign(c);   m <- c."""

    arrays = ("m",)

    def __init__(self, b1=0.9):
        self.b1 = b1

    def update(self, x, g, lr, m):
        sign_of_average(x, m, g, lr, self.b1)


def diagonals(seed, events, n=20):
    """Estimates of the diagonal of A at a point of 1/2 x'Ax: relative error of the mean of z (A z), z random signs, and
    of the mean of squared gradients at points x + noise, scaled by the best factor, by the number of samples."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (Q * np.geomspace(0.1, 10, n)) @ Q.T
    x, exact, columns = rng.standard_normal(n), np.diag(A), {"samples": list(SAMPLES), "signs": [], "squares": []}
    for k in SAMPLES:
        z = rng.choice([-1.0, 1.0], (k, n))
        squares = (((x + 0.1 * rng.standard_normal((k, n))) @ A) ** 2).mean(0)
        squares *= squares @ exact / (squares @ squares)
        for name, mean in (("signs", (z * (z @ A)).mean(0)), ("squares", squares)):
            columns[name].append(float(np.linalg.norm(mean - exact) / np.linalg.norm(exact)))
    return columns


def held(seed, events, kind, n=100_000):
    """Bytes of state for a weight of float32."""
    x, optimizer = np.zeros(n, "float32"), kind()
    optimizer.start(x)
    optimizer.step(x, x.copy(), 1e-3)
    return {"bytes": [optimizer.bytes() / n]}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    rows, B = args.pick(None, 1200), args.pick(128, 32)
    for data in args.data_of("a"):
        problem = Recipe(perceptron, data=data, hidden=(512, 64), rows=rows)
        for form, optimizer, lr in (("buffer form", HeavyBall(0.9), 1e-3), ("average", Averaged(0.9), 1e-3),
                                    ("average", Averaged(0.9), 1e-2)):
            yield Entry("a", problem, optimizer, RandomReshuffling(B), lr, stop=Stop(epochs=1), metrics=0.125,
                        form=form, lr=lr)
    for data in args.data_of("b"):
        problem = Recipe(perceptron, data=data, hidden=WIDE, activation=GELU, rows=rows)
        for name, optimizer, lr in (
            ("SGD, average", Averaged(0.9), 1e-2), ("SGD, buffer form", HeavyBall(0.9), 1e-2), ("Adam", Adam(), 1e-3),
            ("Lion", Lion(), 1e-4), ("Lion of the text", LionOfTheText(), 1e-4),
        ):
            yield Entry("b", problem, optimizer, RandomReshuffling(B), lr, stop=Stop(epochs=args.budget(20, 4)),
                        method=name)
    yield Entry("c", run=Recipe(diagonals), on="a quadratic")
    for kind in (HeavyBall, Lion, Adam):
        yield Entry("d", run=Recipe(held, kind=kind), seeds=[0], method=kind.__name__)


# ----------------------------------------------------------------------------------------------------------- claims
@experiment.claim("a-printed", "the book's 34.7 % after one epoch is the class's average at work; the buffer form "
                  "of the text learns more", expected="average within 15 points of it in every seed; the buffer form "
                  "above the average by 10 points in every seed", source="book: 20.6 % training, 34.7 % test accuracy")
def a_printed(results, args):
    if args.quick or args.data_of("a") != ["fashion-mnist"]:
        raise Undecided("it speaks of one epoch of Fashion-MNIST")
    buffer, average = (100 * results.select("a", form=form, lr=1e-3).final("test_accuracy")
                       for form in ("buffer form", "average"))
    fits = (np.abs(average - PRINTED) < 15).all() and (buffer > average + 10).all()
    return f"average {spread(average)} %, buffer form {spread(buffer)} %", bool(fits)


experiment.claim("a-map", "at lr/(1-beta) the average is the buffer form, but for the first step",
                 expected="test accuracies within two points (95 %)", source="npopt/optimizers/heavy_ball.py",
                 )(alike("a", {"form": "average", "lr": 1e-2}, {"form": "buffer form", "lr": 1e-3}, "test_accuracy",
                         0.02))


def trains_further(one, two):
    """A claim's function: the training loss of one method ends below that of another."""
    def judged(results):
        a, b = (results.select("b", method=name).final("train_loss") for name in (one, two))
        return decided(f"{one} {spread(a)}, {two} {spread(b)}", lower(a, b))
    return judged


experiment.claim("b-form", "what the book calls SGD loses by its form: at the same rate the buffer form trains further",
                 expected="training loss lower (95 %)",
                 )(trains_further("SGD, buffer form", "SGD, average"))
experiment.claim("b-lion", "Lion's second average matters: with m = c, as in the text, it trains less far",
                 expected="training loss of Lion lower (95 %)",
                 source="Chen et al., NeurIPS 2023, against the book's text",
                 )(trains_further("Lion", "Lion of the text"))
experiment.claim("b-adam", "Adam trains further than what the book calls SGD, each at the book's rate",
                 expected="training loss lower (95 %)", source="book's figures",
                 )(trains_further("Adam", "SGD, average"))


@experiment.claim("c-signs", "z (H z) averages to the Hessian's diagonal, squared gradients do not",
                  expected="relative error at 10,000 samples below 0.05, and above 0.3 at the best scale, every seed",
                  source="Liu et al. 2024, Algorithm 1; the book's class")
def c_signs(results):
    signs, squares = (np.array([run.final[name] for run in results.select("c")]) for name in ("signs", "squares"))
    return f"{spread(signs)} and {spread(squares)}", bool((signs < 0.05).all() and (squares > 0.3).all())


@experiment.claim("d-copies", "the book's table of memory counts arrays: momentum and Lion keep one, Adam two",
                  expected="4, 4 and 8 bytes a weight; Adam less Lion times 62.1 M is the printed 985.1 - 748.2 MB, to "
                  "0.1 %", source="book's table")
def d_copies(results):
    found = results.select("d").means("bytes")
    more = (found["Adam"] - found["Lion"]) * ALLOCATED["parameters"] / 2**20
    printed = ALLOCATED["Adam"] - ALLOCATED["Lion"]
    return (f"{listed(found)}; {more:.1f} MiB (printed {printed:.1f})",
            tuple(found.values()) == (4, 4, 8) and abs(more / printed - 1) < 1e-3)


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("forms.png", caption="One epoch of 784-512-64-10: training loss and test accuracy with the text's "
                   "momentum and with the class's, which is the text's at a tenth of the rate. Dotted: the book's 34.7 "
                   "per cent.")
def forms_figure(results):
    figure, (left, right) = panels(1, 2)
    curves(left, results.select("a"), "train_loss", ylabel="training loss", legend=False)
    curves(right, results.select("a"), "test_accuracy", ylabel="test accuracy")
    right.axhline(PRINTED / 100, color="#888888", ls=":")
    return figure


@experiment.figure("comparison.png", caption="784-256-192-128-64-10 with GELU at the book's rates (SGD 0.01, Adam "
                   "1e-3, Lion 1e-4): training loss and test accuracy by epoch (median and range over seeds).")
def comparison_figure(results):
    figure, axes = panels(1, 2)
    for ax, column, text in zip(axes, ("train_loss", "test_accuracy"), ("training loss", "test accuracy"), strict=True):
        curves(ax, results.select("b"), column, ylabel=text, logy=column == "train_loss", legend=False)
    late = np.concatenate([run.columns["test_accuracy"][1:] for run in results.select("b")])
    axes[1].set_ylim(np.percentile(late, 3) - 0.01, late.max() + 0.01)
    return below(figure, axes[0])


@experiment.figure("diagonal.png", caption="A quadratic in 20 variables: relative error of two estimates of the "
                   "Hessian's diagonal by the number of samples; one line a seed.")
def diagonal_figure(results):
    figure, ax = panels(size=(7.5, 4.8))
    labels = {"signs": "z (H z), random signs", "squares": "squared gradients, best scale"}
    for i, (name, label) in enumerate(labels.items()):
        for k, run in enumerate(results.select("c")):
            ax.plot(run.columns["samples"], run.columns[name], label=label if not k else None, **look(i))
    ax.set(xscale="log", yscale="log", xlabel="samples", ylabel="relative error")
    ax.legend()
    return figure


if __name__ == "__main__":
    experiment.main()
