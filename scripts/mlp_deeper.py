"""Does a normalised layer, or a layer-wise rate, help a deep perceptron?   A course report, done again: its extra.

The report cited LAMB, a rate for each layer, and put LayerNorm into a network of 32 layers instead (its seventh error).
Here both are tried: on 784-256-128-128-64-64-10 (part g) LARS and LAMB beside SGD with and without LayerNorm and Adam;
on 32 layers of width 64 (part l) momentum and Adam with LayerNorm before the activation, after it, and without. From
Xavier's start a layer of ReLU halves the mean square of its signal: after 31 of them nothing is left, and without a
norm no rate should train that network.

Rows of Fashion-MNIST (6,000 in part g, 12,000 in l) with pixels from 0 to 1, a sixth held out for the choice of the
rate; a cosine; 8 epochs with batches of 256 in part g, 4 with 128 in part l (at four rates).

LARS's coefficient is 1: biases and gains, which LARS and LAMB leave to plain steps, then take them at the rate itself;
at the paper's 0.001 LARS's rate is near 10, and theirs, too.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 8 minutes.
"""

import math

from lab import Entry, Experiment, Part, Recipe, charts
from lab.claims import decided, inside, larger, no_larger, spreads
from lab.results import finer
from lab.verdicts import close, within
from nn import init
from npopt import LAMB, LARS, SGD, Adam, Cosine, HeavyBall, RandomReshuffling, Stop
from problems.classifiers import perceptron

experiment = Experiment(
    __doc__,
    task="R",
    source="a course report on the MLP 784-128-56-10, its requirements and its extras",
    parts={
        "g": Part("a deeper network: LayerNorm, LARS, LAMB", "digits", "fashion-mnist"),
        "l": Part("32 layers: LayerNorm before or after the activation", "digits", "fashion-mnist"),
    },
    seeds=3,
)

DEEPER, DEEPEST = (256, 128, 128, 64, 64), (64,) * 31
METHODS = {"SGD": (SGD(), 0.1), "Adam": (Adam(), 1e-3), "LARS": (LARS(coefficient=1.0), 0.01), "LAMB": (LAMB(), 1e-2)}
DEEP = {"momentum": (HeavyBall(0.9), 0.01), "Adam": (Adam(), 1e-3)}
NORMS = {"none": {}, "before": {"norm": "layer"}, "after": {"norm": "layer", "norm_at": "after"}}
BY = "validation_loss"


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    xavier = init.XavierUniform()
    for part, methods, hidden, factors, rows, batch, epochs in (
        ("g", METHODS, DEEPER, (1 / 3, 1, 3), 6000, 256, 8),
        ("l", DEEP, DEEPEST, (1 / 25, 1 / 5, 1, 5), 12_000, 128, 4),
    ):
        common = dict(rows=args.pick(rows, 400), validation=1 / 6, hidden=hidden, pixels=(0, 1), init=xavier)
        sampler, stop = RandomReshuffling(args.pick(batch, 64)), Stop(epochs=args.budget(epochs, 2))
        for data in args.data_of(part):
            for method, (optimizer, lr) in methods.items():
                for at in NORMS if part == "l" else list(NORMS)[: 2 if method == "SGD" else 1]:
                    name = method + {"none": "", "before": " + LayerNorm", "after": " + LayerNorm after"}[at]
                    problem = Recipe(perceptron, data=data, **common, **NORMS[at])
                    rates = [float(f"{lr * factor:.4g}") for factor in args.pick(factors, (1,))]
                    for rate in finer(rates, found if part == "g" else None, part, method=name):
                        tags = dict(lr=rate, method=name)
                        yield Entry(part, problem, optimizer, sampler, Cosine(rate), stop=stop, **tags)


# ----------------------------------------------------------------------------------------------------------- claims
for id, text in (("g-edge", "the deeper network"), ("l-edge", "32 layers")):
    experiment.claim(
        id,
        f"the rates of {text} are wide enough",
        source="tuning of this script",
        expected="the best is inside its grid, always",
    )(inside(id[0], BY))
experiment.claim(
    "g-norm",
    "LayerNorm helps the deeper network under SGD",
    expected="training loss below that without (95 %), each at its best rate; false where above",
)(larger("g", "SGD", "SGD + LayerNorm", "train_loss", by=BY))


def best_of(results, part, column):
    return {name: found.runs.final(column) for name, found in results.select(part).tuned(by=BY).items()}


@experiment.claim(
    "l-none",
    "32 layers from Xavier's start do not train: 31 ReLUs halve the signal each time",
    expected="training loss within 0.05 of ln 10 at the best rate (95 %), under momentum and Adam; false where outside",
    source="theory of initialization_depth: 2^-31",
)
def l_none(results):
    found = {m: best_of(results, "l", "train_loss")[m] for m in DEEP}
    return decided(spreads(found), *(within(v, math.log(10) - 0.05, math.log(10) + 0.05) for v in found.values()))


@experiment.claim(
    "l-norm",
    "with LayerNorm they do, before the activation or after it",
    expected="test accuracy above 70 % at the best rate (95 %), all four; false where below",
)
def l_norm(results):
    found = {m: v for m, v in best_of(results, "l", "test_accuracy").items() if "Layer" in m}
    return decided(spreads(found), *(within(v, 0.7) for v in found.values()))


@experiment.claim(
    "l-position",
    "where LayerNorm stands matters little",
    expected="test accuracies within two points (95 %), under momentum and Adam; false where not",
)
def l_position(results):
    found = best_of(results, "l", "test_accuracy")
    return decided(
        spreads({m: v for m, v in found.items() if "Layer" in m}),
        *(close(found[f"{m} + LayerNorm"], found[f"{m} + LayerNorm after"], 0.02) for m in DEEP),
    )


experiment.claim(
    "error-7",
    "LayerNorm is not the cited layer-wise method: that is LAMB, a rate for each layer; on this small network it does "
    "not beat Adam",
    expected="LAMB's test accuracy not above Adam's by more than half a point (95 %; deeper network, each at its best "
    "rate); false where above by more",
    source="report; You et al., arXiv:1904.00962",
)(no_larger("g", "LAMB", "Adam", "test_accuracy", 0.005, BY))


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure(
    "deeper.png",
    caption="784-256-128-128-64-64-10, 5,000 rows, cosine: LayerNorm, and the layer-wise methods LARS and LAMB, each "
    "at its best rate.",
)
def deeper_figure(results):
    return charts.tuned(results.select("g"))


@experiment.figure(
    "layers.png",
    caption="32 layers of width 64, 10,000 rows, cosine, from Xavier's start: no norm, LayerNorm before the "
    "activation, after it, each at its best rate.",
)
def layers_figure(results):
    return charts.tuned(results.select("l"))


if __name__ == "__main__":
    experiment.main()
