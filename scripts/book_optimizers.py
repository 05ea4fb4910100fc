"""The optimizers of the book's chapter 4: do its formulas, its code and its numbers agree?   Chapter 4, C.2.

The text writes momentum as m <- beta m + g, the class averages, m <- beta m + (1-beta) g, but m = g at the first
step: at one rate its steps are ten times smaller, which is why its SGD learns so little in an epoch of 784-512-64-10
(printed: training loss 2.223, test loss 2.129, 34.7 % of the test rows). The text sets Lion's m to the c whose sign is
the step; the class does not. Sophia's curvature is z (H z) with random signs z; the class takes the squared gradient,
which estimates something else. Then the comparison on 784-256-192-128-64-10 with GELU, at the book's rates, in both
forms of momentum, with Adafactor at its paper's rates beside it; the table of memory, which counts one array of the
size of the weights for momentum and Lion, two for Adam, rows and columns for Adafactor; and the book's convolutional
network. Pixels go from -1 to 1, as in the book.

The book trains 20 epochs, and its convolutional network 40 on CIFAR-100, which is not at hand: here they are 6 on
10,000 rows, and 4 on 2,000 pictures of cifar-10-jpeg. That shows early speed, not where the methods end.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 12 minutes.
"""

from types import SimpleNamespace

from figures.book_optimizers import LOSSES, PRINTED, album
from lab import Entry, Experiment, Part, Recipe, Undecided
from lab.claims import alike, decided, listed, no_larger, spread, spreads
from lab.verdicts import lower, within
from nn import GELU
from nn.networks import mlp
from npopt import Adafactor, Adam, HeavyBall, Lion, RandomReshuffling, Stop
from npopt.backend import elementwise
from npopt.optimizers.base import Optimizer
from npopt.schedules import InverseSquareRoot
from problems.classifiers import book_cnn, perceptron

import numpy as np

experiment = Experiment(
    __doc__,
    task="C.2",
    source="the book's chapter 4: text, code and printed numbers",
    parts={
        "a": Part("two forms of momentum, one epoch of 784-512-64-10", "digits", "fashion-mnist"),
        "b": Part("SGD, Adam, Lion and Adafactor on 784-256-192-128-64-10", "digits", "fashion-mnist"),
        "c": Part("squared gradients are no curvature"),
        "d": Part("memory of the states"),
        "e": Part("the book's convolutional network", "digits", "cifar-10-jpeg"),
    },
    seeds=10,
    figures=album,
)

WIDE = (256, 192, 128, 64)  # 283,914 weights
ALLOCATED = {"Adam": 985.1, "Lion": 748.2, "parameters": 62.1e6}  # MB of the book's "transformer"
SAMPLES = (1, 10, 100, 1000, 10_000)
PAPERS = InverseSquareRoot(1.0, cap=1e-2)  # Adafactor's rate: min(1e-2, 1/sqrt t)
FULL = mlp((784, *WIDE, 10)).segments


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


FORMS = {
    "buffer form, 0.001": (HeavyBall(0.9), 1e-3),
    "average, 0.01": (Averaged(0.9), 1e-2),
    "average, 0.001": (Averaged(0.9), 1e-3),
}
METHODS = {  # of part b, at the book's rates
    "SGD, average": (Averaged(0.9), 1e-2),
    "SGD, buffer form": (HeavyBall(0.9), 1e-2),
    "Adam": (Adam(), 1e-3),
    "Lion": (Lion(), 1e-4),
    "Lion of the text": (LionOfTheText(), 1e-4),
    "Adafactor": (Adafactor(), PAPERS),
}
FEWER = ("SGD, average", "Adam", "Lion", "Adafactor")  # of part e


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


def held(seed, events, kind):
    """Bytes of state for a weight of float32, on the network of part b."""
    optimizer = kind()
    optimizer.start(np.zeros(FULL.dim, "float32"), SimpleNamespace(problem=SimpleNamespace(segments=FULL)))
    return {"bytes": [optimizer.bytes() / FULL.dim]}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    sampler, pixels = RandomReshuffling(args.pick(128, 32)), (-1, 1)
    for data in args.data_of("a"):
        problem = Recipe(perceptron, data=data, hidden=(512, 64), rows=args.pick(None, 800), pixels=pixels)
        for form, (optimizer, lr) in FORMS.items():
            yield Entry("a", problem, optimizer, sampler, lr, stop=Stop(epochs=1), metrics=0.125, form=form)
    few, stop, rows = args.seeds[:5], Stop(epochs=args.budget(6, 3)), args.pick(10_000, 400)
    for data in args.data_of("b"):
        problem = Recipe(perceptron, data=data, hidden=WIDE, activation=GELU, rows=rows, pixels=pixels)
        for method, (optimizer, lr) in METHODS.items():
            yield Entry("b", problem, optimizer, sampler, lr, stop=stop, method=method, seeds=few)
    yield Entry("c", run=Recipe(diagonals), on="a quadratic")
    for kind in (HeavyBall, Lion, Adam, Adafactor):
        yield Entry("d", run=Recipe(held, kind=kind), seeds=[0], method=kind.__name__)
    three, stop = args.seeds[:3], Stop(epochs=args.budget(4, 2))
    for data in args.data_of("e"):
        problem = Recipe(book_cnn, data=data, rows=args.pick(2000, 120), test_rows=args.pick(2000, 100))
        for method in FEWER:
            optimizer, lr = METHODS[method]
            yield Entry("e", problem, optimizer, sampler, lr, stop=stop, method=method, seeds=three)


# ----------------------------------------------------------------------------------------------------------- claims
def after_one(results, form):
    """{what the book prints: its values over seeds} after one epoch; the training loss is the mean over batches."""
    runs = results.select("a", form=form)
    return {
        "training loss": np.array([run.columns["loss"][1:].mean() for run in runs]),
        "test loss": runs.final("test_loss"),
        "test accuracy": runs.final("test_accuracy"),
    }


@experiment.claim(
    "a-printed",
    "the book's numbers after one epoch are the class's average at work",
    expected="training loss 2.223 ± 0.02, test loss 2.129 ± 0.03, test accuracy 0.347 ± 0.05 (95 %); false where one "
    "is outside",
    source="book",
)
def a_printed(results, args):
    if args.quick or args.data_of("a") != ["fashion-mnist"]:
        raise Undecided("it speaks of one epoch of Fashion-MNIST")
    found = after_one(results, "average, 0.001")
    wanted = zip(found.values(), (*LOSSES, PRINTED), (0.02, 0.03, 0.05), strict=True)
    return decided(spreads(found), *(within(v, p - margin, p + margin) for v, p, margin in wanted))


@experiment.claim(
    "a-buffer",
    "at the same rate the text's buffer form learns far more in that epoch",
    expected="test accuracy higher by 10 points or more (95 %); false where by less",
)
def a_buffer(results):
    one, two = (100 * after_one(results, form)["test accuracy"] for form in ("buffer form, 0.001", "average, 0.001"))
    return decided(f"{spread(one)} and {spread(two)} %", within(one - two, 10))


experiment.claim(
    "a-map",
    "at lr/(1-beta) the average is the buffer form, but for the first step",
    expected="test accuracies within half a point (95 %)",
    source="npopt/optimizers/heavy_ball.py",
)(alike("a", {"form": "average, 0.01"}, {"form": "buffer form, 0.001"}, "test_accuracy", 0.005))


def trains_further(one, two, part="b", column="train_loss"):
    """A claim's function: the last value of one method lies below that of another."""

    def judged(results):
        a, b = (results.select(part, method=name).final(column) for name in (one, two))
        return decided(f"{one} {spread(a)}, {two} {spread(b)}", lower(a, b, 0.005))

    return judged


SURE = "training loss lower (95 %); false where higher, or lower by at most 0.005"

experiment.claim(
    "b-form",
    "what the book calls SGD loses by its form: at the same rate the buffer form trains further",
    expected=SURE,
)(trains_further("SGD, buffer form", "SGD, average"))
experiment.claim(
    "b-lion",
    "Lion's second average matters: with m = c, as in the text, it trains less far",
    expected=SURE,
    source="Chen et al., NeurIPS 2023, against the book's text",
)(trains_further("Lion", "Lion of the text"))
experiment.claim(
    "b-adam",
    "Adam trains further than what the book calls SGD, each at the book's rate",
    expected=SURE,
    source="book's figures",
)(trains_further("Adam", "SGD, average"))
experiment.claim(
    "b-adafactor",
    "Adafactor, with rows and columns for a second moment, keeps up with Adam",
    expected="training loss at most 0.02 above Adam's (95 %)",
    source="Shazeer & Stern, ICML 2018",
)(no_larger("b", "Adafactor", "Adam", "train_loss", 0.02))


@experiment.claim(
    "c-signs",
    "z (H z) averages to the Hessian's diagonal, squared gradients do not",
    expected="relative error at 10,000 samples below 0.05, and above 0.3 at the best scale (95 %)",
    source="Liu et al. 2024, Algorithm 1; the book's class",
)
def c_signs(results):
    signs, squares = (np.array([run.final[name] for run in results.select("c")]) for name in ("signs", "squares"))
    return decided(f"{spread(signs)} and {spread(squares)}", within(signs, high=0.05), within(squares, 0.3))


@experiment.claim(
    "d-copies",
    "the book's table of memory counts arrays: momentum and Lion keep one, Adam two; Adafactor next to none",
    expected="4, 4 and 8 bytes a weight; Adam less Lion times 62.1 M is the printed 985.1 - 748.2 MB, to 0.1 %; "
    "Adafactor below 0.1 bytes",
    source="book's table",
)
def d_copies(results):
    found = results.select("d").means("bytes")
    more = (found["Adam"] - found["Lion"]) * ALLOCATED["parameters"] / 2**20
    printed = ALLOCATED["Adam"] - ALLOCATED["Lion"]
    *whole, small = found.values()
    return (
        f"{listed(found)}; {more:.1f} MiB (printed {printed:.1f})",
        whole == [4, 4, 8] and small < 0.1 and abs(more / printed - 1) < 1e-3,
    )


@experiment.claim(
    "e-lion",
    "on the convolutional network Lion generalises better than Adam and SGD, as the book says",
    expected="test accuracy higher (95 %); false where lower than one of them, or higher by at most half a point",
    source="book, one seed, CIFAR-100, 40 epochs; here early speed alone",
)
def e_lion(results):
    ends = results.select("e").finals("test_accuracy")
    return decided(spreads(ends), *(lower(ends[name], ends["Lion"], 0.005) for name in ("Adam", "SGD, average")))


if __name__ == "__main__":
    experiment.main()
