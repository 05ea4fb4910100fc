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

from lab import Entry, Experiment, Part, Recipe, Undecided, alike, dataset, inside, listed, spread
from lab.figures import COLOURS, curves, look, panels, tuned
from nn import Linear, Network, PReLU, ReLU, Sequential, Tanh, init
from nn.spectra import METRICS, PowerIteration, rank_by_entropy, singular_values
from npopt import Cosine, HeavyBall, RandomReshuffling, Stop, backend
from problems.classifiers import between, perceptron
from problems.feeds import feed_of
from problems.neural import Neural

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
HIDDEN = (256, 192, 128, 64)
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
LAYERS, WIDTH = 50, 256
DEEP = {"N(0, 0.01²)": init.Normal(0.01), "Xavier": init.XavierNormal(), "Kaiming": init.KaimingNormal(),
        "orthogonal √2": init.Orthogonal(math.sqrt(2))}
ACTIVATIONS = {"ReLU": lambda z: np.maximum(z, 0), "tanh": np.tanh}


# --------------------------------------------------------------------------------------------------------- problems
def network(size, classes, start):
    """The book's network: one PReLU, whose slope all four activations share."""
    layers, sizes = {}, (size, *HIDDEN, classes)
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True), 1):
        layers[f"fc{i}"] = Linear(a, b, init=start, bias_init=init.Zeros())
        if i < len(sizes) - 1:
            layers[f"act{i}"] = PReLU()
    share = {f"act{i}.a": "act1.a" for i in range(2, len(sizes) - 1)}
    return Network(Sequential(**layers), (size,), "book-" + "-".join(map(str, sizes)), share=share)


def books(data, start, rows=None, validation=0.0):
    """The network on a set with pixels from -1 to 1."""
    d = between(dataset(data, rows=rows, validation=validation), -1.0, 1.0)
    net = network(d.x_train[0].size, len(d.classes), STARTS[start])
    return Neural(net, feed_of(d), metrics_rows=min(10_000, len(d.y_train)), metrics_batch=1000)


def spectra(seed, events, start):
    """One row a matrix of the start: the metrics of nn.spectra, fan-in, variance; on the host."""
    net = network(784, 10, STARTS[start])
    x = backend.to_host(net.x0(np.random.default_rng(seed), "float64"))
    rows = []
    for segment in net.segments:
        if segment.kind == "bias":
            continue
        w = x[segment.slice].reshape(segment.shape if len(segment.shape) > 1 else (1, 1))
        s = singular_values(w)
        rows.append({"fan_in": w.shape[1], "matrix": float(segment.kind != "scalar"), "variance": w.var(),
                     **{name: f(s) for name, f in METRICS.items()}, "entropy_share": rank_by_entropy(s) / len(s)})
        if segment.kind == "scalar":
            rows[-1]["rank_by_share"] = 1.0                     # so the book counts it
    return {name: [row[name] for row in rows] for name in rows[0]} | {"unknowns": [x.size] * len(rows)}


def signals(seed, events, start, activation):
    """Mean square of the pre-activations, layer by layer, for 256 inputs from N(0, I)."""
    rng, f = np.random.default_rng(seed), ACTIVATIONS[activation]
    h, found = rng.standard_normal((256, WIDTH)), []
    for _ in range(LAYERS):
        z = h @ DEEP[start](rng, (WIDTH, WIDTH), WIDTH, WIDTH, "float64").T
        found.append(float((z**2).mean()))
        h = f(z)
    return {"layer": list(range(1, LAYERS + 1)), "square": found}


def jacobian(seed, events, start):
    """Singular values of the product of 50 square matrices, relative to sqrt(n), by their rank."""
    rng, J = np.random.default_rng(seed), np.eye(WIDTH)
    for _ in range(LAYERS):
        J = STARTS[start](rng, (WIDTH, WIDTH), WIDTH, WIDTH, "float64") @ J
    s = singular_values(J)
    return {"rank": list(range(1, WIDTH + 1)), "value": s.tolist(), "frobenius": [float(np.sqrt((s**2).sum()))] * WIDTH}


def power(seed, events):
    """One power iteration a step on a matrix that moves by 1 % a step: the relative error of the spectral norm."""
    rng = np.random.default_rng(seed)
    w = init.KaimingNormal()(rng, (128, 256), 256, 128, "float64")
    estimate, found = PowerIteration(w.shape, rng), []
    for _ in range(100):
        w += 0.01 * np.sqrt(2 / 256) * rng.standard_normal(w.shape)
        found.append(1 - estimate(w) / singular_values(w)[0])
    return {"step": list(range(1, 101)), "error": found}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    rows = args.pick(None, 1200)
    for start in STARTS:
        yield Entry("a", start, run=Recipe(spectra, start=start))
    for data in args.data_of("b"):
        for start in STARTS:
            yield Entry("b", start, Recipe(books, data=data, start=start, rows=rows), HeavyBall(0.9),
                        RandomReshuffling(128), 1e-3, stop=Stop(epochs=args.budget(3, 15)))
    for data in args.data_of("c"):
        for start in list(STARTS)[:5]:                          # L-momentum diverges at every one of them
            for lr in args.pick(RATES, RATES[2:3]):
                yield Entry("c", f"{start}: {lr:g}", Recipe(books, data=data, start=start, rows=rows, validation=1 / 6),
                            HeavyBall(0.9), RandomReshuffling(128), Cosine(lr), stop=Stop(epochs=args.budget(10, 15)))
    for start in DEEP:
        for activation in ACTIVATIONS:
            yield Entry("d", f"{activation}, {start}", run=Recipe(signals, start=start, activation=activation))
    for start in ("LeCun", "orthogonal"):
        yield Entry("d", f"Jacobian, {start}", run=Recipe(jacobian, start=start))
    yield Entry("d", "power iteration", run=Recipe(power))
    for data in args.data_of("e"):
        for start, maker in DEEP.items():
            for activation in (ReLU, Tanh):
                problem = Recipe(perceptron, data=data, hidden=(64,) * 19, rows=rows, init=maker, activation=activation)
                yield Entry("e", f"{activation.__name__}, {start}", problem, HeavyBall(0.9), RandomReshuffling(128),
                            Cosine(0.01), stop=Stop(epochs=args.budget(3, 6)), metrics=args.pick(0.5, 1))


# ----------------------------------------------------------------------------------------------------------- claims
def averages(results, column, matrices=False):
    """{start: mean over the matrices (with the slope, or without) and seeds}"""
    found = {}
    for start, group in results.select("a").groups():
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
    found = np.array([run.columns["variance"][run.columns["matrix"] == 1] for run in results.select("a", "L-momentum")])
    return f"{found.min():.9f} to {found.max():.9f}", bool(np.abs(found - 0.81).max() < 1e-9)


def real(args, part):
    if args.data_of(part) != ["fashion-mnist"] or args.quick or args.budget(3, 15) != 3:
        raise Undecided("it speaks of three epochs on Fashion-MNIST")


@experiment.claim("b-error", "the book's \"error rates\" 0.48, 0.49, 0.45, 0.49 and 2.30 are test cross-entropies",
                  expected="test losses to 0.04; the errors in per cent more than ten times that",
                  source="book's table and code")
def b_error(results, args):
    real(args, "b")
    losses = {s: float(np.mean(results.select("b", s).final("test_loss"))) for s in list(STARTS)[:5]}
    errors = {s: 100 * (1 - float(np.mean(results.select("b", s).final("test_accuracy")))) for s in losses}
    text = listed({s: f"loss {losses[s]:.3f}, error {errors[s]:.1f} %" for s in losses})
    return text, all(abs(losses[s] - BOOK[s][3]) <= 0.04 and errors[s] > 10 * BOOK[s][3] for s in losses)


@experiment.claim("b-untrained", "scaled orthogonal weights are not trained by then: the loss is that of a uniform "
                  "guess", expected="test loss within 0.01 of ln 10")
def b_untrained(results):
    loss = float(np.mean(results.select("b", "scaled orthogonal").final("test_loss")))
    return loss, abs(loss - math.log(10)) < 0.01


@experiment.claim("b-nan", "L-momentum diverges", expected="every seed", source="book's table: nan")
def b_nan(results):
    runs = results.select("b", "L-momentum")
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
    found = {s: speed(np.mean([run.columns["train_loss"][1:] for run in results.select("b", s)], 0))
             for s in list(STARTS)[:5]}
    least = all(abs(found[s] - 1 / 3) < 1e-9 for s in list(STARTS)[:4])
    return listed(found), least and found["scaled orthogonal"] > 1 / 3


experiment.claim("c-edge", "the rates are wide enough", expected="the best rate is inside its grid, always",
                 source="tuning of this script")(inside("c", "validation_accuracy"))


for start in ("LeCun", "Xavier", "orthogonal"):
    experiment.claim(f"c-close-{start.lower()}", f"tuned, {start} and Kaiming starts end alike on five layers",
                     expected="test accuracies within half a point (95 %)",
                     )(alike("c", start, "Kaiming", "test_accuracy", 0.005, by="validation_accuracy"))


@experiment.claim("c-scaled", "at a larger rate scaled orthogonal weights can be trained, too",
                  expected="test accuracy at the best rate above 80 %")
def c_scaled(results):
    best = results.select("c").tuned("validation_accuracy")["scaled orthogonal"]
    values = 100 * best.runs.final("test_accuracy")
    return f"{spread(values)} % at {best.value:g}", values.mean() > 80


def factor(results, name):
    """The geometric mean of the factor by which a layer multiplies the mean square, over seeds."""
    squares = np.mean([np.log(run.columns["square"]) for run in results.select("d", name)], 0)
    return math.exp((squares[-1] - squares[0]) / (LAYERS - 1))


@experiment.claim("d-factors", "ReLU: a layer multiplies the mean square by 1 with Kaiming and sqrt(2) x orthogonal, "
                  "by 1/2 with Xavier, by 0.0128 with N(0, 0.01²)", expected="n std² / 2 to 5 %, n = 256",
                  source="He et al., ICCV 2015, equation 9")
def d_factors(results):
    expected = {"Kaiming": 1.0, "orthogonal √2": 1.0, "Xavier": 0.5, "N(0, 0.01²)": WIDTH * 1e-4 / 2}
    found = {s: factor(results, f"ReLU, {s}") for s in expected}
    return listed(found), all(abs(found[s] / v - 1) < 0.05 for s, v in expected.items())


@experiment.claim("d-tanh", "tanh: Xavier's signals fade slowly, like 1/layer, not geometrically",
                  expected="q = 1/(2 layer): 2 x 50 q in 0.75 to 1.25 at layer 50, 2 x 25 q at layer 25",
                  source="mean field at the critical point: q <- q - 2 q²; Schoenholz et al., ICLR 2017")
def d_tanh(results):
    squares = np.mean([run.columns["square"] for run in results.select("d", "tanh, Xavier")], 0)
    found = {layer: 2 * layer * float(squares[layer - 1]) for layer in (25, 50)}
    return listed(found), all(0.75 <= v <= 1.25 for v in found.values())


@experiment.claim("d-jacobian", "orthogonal, linear, 50 layers: all singular values of the Jacobian are 1, its "
                  "Frobenius norm is sqrt(n)", expected="to 1e-9; sqrt(256) = 16 (the book prints 1)",
                  source="Saxe, McClelland & Ganguli, ICLR 2014")
def d_jacobian(results):
    runs = results.select("d", "Jacobian, orthogonal")
    worst = max(float(np.abs(run.columns["value"] - 1).max()) for run in runs)
    frobenius = float(runs[0].columns["frobenius"][0])
    return (f"largest deviation {worst:.1g}, Frobenius norm {frobenius:.9g}",
            worst < 1e-9 and abs(frobenius - math.sqrt(WIDTH)) < 1e-8)


@experiment.claim("d-gaussian", "Gaussian weights of the same variance stretch a few directions and lose the others",
                  expected="s_1 / s_n of the Jacobian above 1e10", source="Saxe, McClelland & Ganguli, ICLR 2014")
def d_gaussian(results):
    ratios = [run.columns["value"][0] / max(run.columns["value"][-1], 1e-15 * run.columns["value"][0])
              for run in results.select("d", "Jacobian, LeCun")]
    return f"at least {min(ratios):.2g} (beyond 1e15 rounding hides it)", min(ratios) > 1e10


@experiment.claim("d-power", "one power iteration a step follows the spectral norm of a matrix that moves by 1 % a "
                  "step", expected="relative error below 5 % from step 30 on, never below 0",
                  source="Miyato et al., ICLR 2018, section 2.1")
def d_power(results):
    errors = np.array([run.columns["error"] for run in results.select("d", "power iteration")])
    return f"{errors[:, 29:].max():.2%} at most", bool(errors[:, 29:].max() < 0.05 and errors.min() > -1e-12)


@experiment.claim("e-deep", "20 layers of ReLU: Kaiming and sqrt(2) x orthogonal learn, N(0, 0.01²) does not",
                  expected="test accuracy above 70 %, and a training loss within 0.02 of ln 10", source="theory of d")
def e_deep(results):
    ends = {s: 100 * float(np.mean(results.select("e", f"ReLU, {s}").final("test_accuracy"))) for s in DEEP}
    loss = float(np.mean(results.select("e", "ReLU, N(0, 0.01²)").final("train_loss")))
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
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@experiment.figure("book.png", caption="The book's training, rate 1e-3: test cross-entropy (its \"error rate\") and "
                   "test accuracy. L-momentum: its first rows, or nothing where it diverged at once.")
def book_figure(results):
    figure, (left, right) = panels(1, 2)
    some = results.select("b", lambda n: n != "L-momentum")
    curves(left, some, "test_loss", legend=False, logy=True, ylabel="test cross-entropy")
    curves(right, some, "test_accuracy", legend=False, ylabel="test accuracy")
    left.axhline(math.log(10), color="#888888", lw=1, ls=":")
    left.annotate("ln 10", (0.5, math.log(10)), xycoords=("axes fraction", "data"), fontsize=10, va="bottom",
                  color="#666666")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


@experiment.figure("tuned.png", caption="Ten epochs, cosine, each start at the best of its rates.")
def tuned_figure(results, args):
    return tuned(results.select("c"), floor=args.pick(80, None))


@experiment.figure("depth.png", caption="Mean square of the pre-activations through 50 layers of width 256, ReLU and "
                   "tanh (median and range over seeds). Right: singular values of the Jacobian of 50 linear layers.")
def depth_figure(results):
    figure, axes = panels(1, 3)
    for ax, activation in zip(axes, ACTIVATIONS, strict=False):
        some = results.select("d", [f"{activation}, {s}" for s in DEEP])
        curves(ax, some, "square", "layer", label=lambda n: n.split(", ", 1)[1], logy=True, xlabel="layer",
               ylabel="mean square", legend=activation == "tanh")
        ax.set_ylim(1e-20, 10)
        ax.set_title(activation)
    for i, start in enumerate(("LeCun", "orthogonal")):
        run = results.select("d", f"Jacobian, {start}")[0]
        value = np.asarray(run.columns["value"])
        axes[2].plot(run.columns["rank"], np.where(value > 1e-15 * value[0], value, np.nan), label=start, **look(i))
    axes[2].set(yscale="log", xlabel="number of the singular value", ylabel="singular value", title="linear, 50 layers")
    axes[2].legend()
    return figure


@experiment.figure("deep.png", caption="20 layers of width 64, cosine from 0.01, momentum 0.9: training loss by epoch.")
def deep_figure(results):
    figure, axes = panels(1, 2, sharey=True)
    for ax, activation in zip(axes, ("ReLU", "Tanh"), strict=True):
        curves(ax, results.select("e", lambda n, a=activation: n.startswith(a)), "train_loss", ylabel="training loss",
               label=lambda n: n.split(", ", 1)[1], legend=activation == "ReLU")
        ax.set_title(activation)
        ax.set_ylim(0, 3)
    return figure


if __name__ == "__main__":
    experiment.main()
