"""How deep does a start reach, and what does batch norm change about it?   Course book, section C.1, second half.

Theory predicts the factor by which a layer multiplies the variance of its inputs, n std^2 / 2 with ReLU, and that a
deep linear network of orthogonal matrices has a Jacobian of singular values 1 alone, hence Frobenius norm sqrt(n) (the
book prints 1). So 20 layers of ReLU should learn from Kaiming's start, slowly from Xavier's, and from N(0, 0.01^2) not
at all. With batch norm a matrix and its multiples give the same outputs: N(0, 0.01^2) is then Kaiming's start at a
larger relative rate, and all of them should learn. They train on 20,000 rows for four epochs.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 6 minutes.
"""

import math

from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, spread, spreads
from lab.figures import curves, look, mark, named, panels
from lab.signals import ACTIVATIONS, jacobian, power, signals
from lab.verdicts import close, lower, within
from nn import ReLU, Tanh, init
from npopt import Cosine, HeavyBall, RandomReshuffling, Stop
from problems.classifiers import perceptron

import numpy as np

experiment = Experiment(
    __doc__,
    task="C.1",
    source="course book, chapter on initialisation; the papers are named in nn/init.py",
    parts={
        "d": Part("variance through 50 layers, Jacobians, spectral norms"),
        "e": Part("training 20 layers, with batch norm and without", "digits", "fashion-mnist"),
    },
    seeds=10,
)

LINEAR = {"LeCun": init.LeCun(), "orthogonal": init.Orthogonal()}
DEEP = {
    "N(0, 0.01²)": init.Normal(0.01),
    "Xavier": init.XavierNormal(),
    "Kaiming": init.KaimingNormal(),
    "orthogonal √2": init.Orthogonal(math.sqrt(2)),
}
LAYERS, WIDTH = 50, 256


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    rows, few, sampler = args.pick(20_000, 300), args.seeds[:5], RandomReshuffling(128)
    one = args.pick(None, args.seeds[:1])
    for start in DEEP:
        for activation in list(ACTIVATIONS)[: 1 if args.quick and start == "orthogonal √2" else None]:
            recipe = Recipe(signals, start=DEEP[start], activation=activation, layers=LAYERS, width=WIDTH)
            yield Entry("d", run=recipe, activation=activation, start=start)
    for start in LINEAR:
        recipe = Recipe(jacobian, start=LINEAR[start], layers=LAYERS, width=WIDTH)
        yield Entry("d", run=recipe, of="Jacobian", start=start, seeds=one)
    yield Entry("d", run=Recipe(power), of="power iteration", seeds=one)
    length = dict(stop=Stop(epochs=args.budget(4, 2)), metrics=args.pick(0.5, 1))
    for data in args.data_of("e"):
        given = dict(data=data, hidden=(64,) * 19, rows=rows)
        for start, maker in DEEP.items():
            for activation, norm in ((ReLU, None), (Tanh, None), (ReLU, "batch")):
                problem = Recipe(perceptron, **given, init=maker, activation=activation, norm=norm)
                tags = dict(activation=activation.__name__, norm=bool(norm), start=start)
                yield Entry("e", problem, HeavyBall(0.9), sampler, Cosine(0.01), seeds=few, **tags, **length)


# ----------------------------------------------------------------------------------------------------------- claims
def factors(runs):
    """The geometric mean of the factor by which a layer multiplies the mean square, one a seed."""
    logs = [np.log(run.columns["square"]) for run in runs]
    return np.exp([(v[-1] - v[0]) / (LAYERS - 1) for v in logs])


@experiment.claim(
    "d-factors",
    "ReLU: a layer multiplies the mean square by 1 with Kaiming and sqrt(2) x orthogonal, by 1/2 with Xavier, by "
    "0.0128 with N(0, 0.01²)",
    expected="n std² / 2 to 5 %, n = 256 (95 %); false where one is outside",
    source="He et al., ICCV 2015, equation 9",
)
def d_factors(results):
    expected = {"Kaiming": 1.0, "orthogonal √2": 1.0, "Xavier": 0.5, "N(0, 0.01²)": WIDTH * 1e-4 / 2}
    found = {s: factors(results.select("d", activation="ReLU", start=s)) for s in expected}
    return decided(spreads(found), *(within(found[s] / v, 0.95, 1.05) for s, v in expected.items()))


@experiment.claim(
    "d-tanh",
    "tanh: Xavier's signals fade slowly, like 1/layer, not geometrically",
    expected="q = 1/(2 layer): 2 x 50 q in 0.75 to 1.25 at layer 50, 2 x 25 q at layer 25 (95 %); false where outside",
    source="mean field at the critical point: q <- q - 2 q²; Schoenholz et al., ICLR 2017",
)
def d_tanh(results):
    runs = results.select("d", activation="tanh", start="Xavier")
    found = {layer: np.array([2 * layer * run.columns["square"][layer - 1] for run in runs]) for layer in (25, 50)}
    return decided(spreads(found), *(within(v, 0.75, 1.25) for v in found.values()))


@experiment.claim(
    "d-jacobian",
    "orthogonal, linear, 50 layers: all singular values of the Jacobian are 1, its Frobenius norm is sqrt(n)",
    expected="to 1e-9; sqrt(256) = 16 (the book prints 1)",
    source="Saxe, McClelland & Ganguli, ICLR 2014",
)
def d_jacobian(results):
    runs = results.select("d", of="Jacobian", start="orthogonal")
    worst = max(float(np.abs(run.columns["value"] - 1).max()) for run in runs)
    frobenius = float(runs[0].columns["frobenius"][0])
    return (
        f"largest deviation {worst:.1g}, Frobenius norm {frobenius:.9g}",
        worst < 1e-9 and abs(frobenius - math.sqrt(WIDTH)) < 1e-8,
    )


@experiment.claim(
    "d-gaussian",
    "Gaussian weights of the same variance stretch a few directions and lose the others",
    expected="s_1 / s_n of the Jacobian above 1e10",
    source="Saxe, McClelland & Ganguli, ICLR 2014",
)
def d_gaussian(results):
    spectra = [run.columns["value"] for run in results.select("d", of="Jacobian", start="LeCun")]
    ratios = [values[0] / max(values[-1], 1e-15 * values[0]) for values in spectra]
    return f"at least {min(ratios):.2g} (beyond 1e15 rounding hides it)", min(ratios) > 1e10


@experiment.claim(
    "d-power",
    "one power iteration a step follows the spectral norm of a matrix that moves by 1 % a step",
    expected="relative error below 5 % from step 30 on, never below 0",
    source="Miyato et al., ICLR 2018, section 2.1",
)
def d_power(results):
    errors = np.array([run.columns["error"] for run in results.select("d", of="power iteration")])
    return f"{errors[:, 29:].max():.2%} at most", bool(errors[:, 29:].max() < 0.05 and errors.min() > -1e-12)


def deep(results, norm, activation="ReLU"):
    return results.select("e", activation=activation, norm=norm)


@experiment.claim(
    "e-deep",
    "20 layers of ReLU: Kaiming and sqrt(2) x orthogonal learn, N(0, 0.01²) does not",
    expected="test accuracy above 70 %, and a training loss within 0.02 of ln 10 (95 %); false where on the other side",
    source="theory of d: (n std² / 2)^19",
)
def e_deep(results):
    some = deep(results, False)
    ends, loss = some.finals("test_accuracy", "start"), some.select(start="N(0, 0.01²)").final("train_loss")
    return decided(
        f"{spreads(ends)}; training loss of N(0, 0.01²) {spread(loss)}",
        *(within(ends[s], 0.7) for s in ("Kaiming", "orthogonal √2")),
        within(loss, math.log(10) - 0.02, math.log(10) + 0.02),
    )


@experiment.claim(
    "e-xavier",
    "20 layers of ReLU: from Xavier, whose signals shrink by 2^-19, they learn more slowly than from Kaiming",
    expected="a larger training loss after an epoch (95 %); false where smaller",
    source="theory of d",
)
def e_xavier(results):
    runs = deep(results, False)
    first = {s: runs.select(start=s).at("train_loss", row_of(runs, 1)) for s in ("Xavier", "Kaiming")}
    return decided(spreads(first), lower(first["Kaiming"], first["Xavier"]))


def row_of(runs, epoch):
    return int(np.abs(np.asarray(runs[0].columns["epoch"]) - epoch).argmin())


@experiment.claim(
    "e-norm",
    "batch norm makes the start matter less: all four learn, N(0, 0.01²) among them",
    expected="test accuracy above 70 % for each (95 %); false where below",
    source="Ioffe & Szegedy, ICML 2015: BN((a W) u) = BN(W u)",
)
def e_norm(results):
    ends = deep(results, True).finals("test_accuracy", "start")
    return decided(spreads(ends), *(within(v, 0.7) for v in ends.values()))


@experiment.claim(
    "e-alike",
    "but not without trace: of starts that differ by a factor alone the smaller one takes larger relative steps",
    expected="with batch norm N(0, 0.01²) and Kaiming end apart by more than a point of test accuracy (95 %); false "
    "where within one",
    source="the gradient of a W is 1/a times that of W: a rate 312 times as large for n = 64",
)
def e_alike(results):
    ends = deep(results, True).finals("test_accuracy", "start")
    same = close(ends["N(0, 0.01²)"], ends["Kaiming"], 0.01)
    return decided(spreads({s: ends[s] for s in ("N(0, 0.01²)", "Kaiming")}), None if same is None else not same)


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure(
    "depth.png",
    caption="Mean square of the pre-activations through 50 layers of width 256, ReLU and tanh (median and range over "
    "seeds). Right: singular values of the Jacobian of 50 linear layers.",
)
def depth_figure(results):
    figure, axes = panels(1, 3)
    for ax, activation in zip(axes, ACTIVATIONS, strict=False):
        some, shown = results.select("d", activation=activation), dict(logy=True, ylabel="mean square", legend=False)
        curves(ax, some, "square", "layer", xlabel="layer", **shown)
        ax.set_ylim(1e-20, 10)
        ax.set_title(activation)
        named(ax)
    for i, start in enumerate(("LeCun", "orthogonal")):
        run = results.select("d", of="Jacobian", start=start)[0]
        value = np.asarray(run.columns["value"])
        axes[2].plot(run.columns["rank"], np.where(value > 1e-15 * value[0], value, np.nan), label=start, **look(i))
    axes[2].set(yscale="log", xlabel="number of the singular value", ylabel="singular value", title="linear, 50 layers")
    named(axes[2])
    return figure


@experiment.figure(
    "deep.png",
    caption="20 layers of width 64, cosine from 0.01, momentum 0.9: test error by epoch (median and quartiles of the "
    "seeds). Dotted: chance.",
)
def deep_figure(results):
    figure, axes = panels(1, 3, sharey=True)
    some = results.with_column("test_error", lambda c: 100 * (1 - c["test_accuracy"]) if "test_accuracy" in c else [])
    for ax, (activation, norm) in zip(axes, (("ReLU", False), ("Tanh", False), ("ReLU", True)), strict=True):
        curves(ax, deep(some, norm, activation), "test_error", ylabel="test error [%]", legend=False, logy=True)
        ax.set_title(activation + ", batch norm" * norm)
        ax.set_ylim(10, 115)
        mark(ax, 90, "chance", 0.4)
        named(ax)
    return figure


if __name__ == "__main__":
    experiment.main()
