"""Momentum SGD, Adam, AdamW: which one on LeNet-5 and on ResNet-18, and how much do the betas matter?   Course task A2.

All at equal budgets, each at the best of its rates, chosen on rows that are held out. On MNIST the three should end
together, near 99 %, Adam ahead in the first epoch; on ResNet-18 momentum SGD should end first, Adam with an L2 term
last. Kingma & Ba recommend b1 = 0.9 and b2 = 0.999. Loshchilov & Hutter claim
that decay which is not fed through the moments ("decoupled") can be tuned apart from the rate.

Conventions: the L2 term l2/2 |x|^2 is part of the objective of momentum SGD and Adam, on all parameters. AdamW here
multiplies x by 1 - lr weight_decay; the paper's decay a step is our product lr weight_decay.

Run time on 2 cores: --quick about half a minute; --data real --jobs 2 --threads 1 about an hour.
"""

import math

from lab import (
    Entry,
    Experiment,
    Option,
    Part,
    Recipe,
    Undecided,
    alike,
    decided,
    different,
    inside,
    larger,
    listed,
    lower,
    spread,
)
from lab.figures import heat, panels, tuned
from lab.options import whole
from npopt import Adam, AdamW, Cosine, HeavyBall, RandomReshuffling, Stop
from problems.classifiers import lenet, resnet

import numpy as np

experiment = Experiment(
    __doc__,
    task="A2",
    source="Kingma & Ba, ICLR 2015; Loshchilov & Hutter, ICLR 2019",
    parts={
        "a": Part("LeNet-5: three methods, five rates each", "digits", "mnist"),
        "b": Part("ResNet-18: four methods, five rates each", "digits", "cifar-10-jpeg"),
        "c": Part("LeNet-5: Adam over b1, b2 and the rate", "digits", "mnist"),
        "d": Part("LeNet-5, few rows: decay and rate, L2 against decoupled", "digits", "fashion-mnist"),
    },
    options=[
        Option("--width", type=whole(1, "width"), help="channels of ResNet-18's first stage (default: 8; full: 64)"),
        Option("--rows", type=whole(100, "rows"), help="training rows of part b, a sixth held out (default: 6000)"),
    ],
    seeds=3,
)

L2 = 5e-4
FACTORS = (1 / 9, 1 / 3, 1, 3, 9, 27)
SMALL = {                                                       # part a: optimizer, customary rate, l2 of the objective
    "momentum SGD": (HeavyBall(0.9), 0.01, L2), "Adam": (Adam(), 1e-3, L2),
    "AdamW": (AdamW(weight_decay=0.01), 1e-3, 0.0),
}
DEEP = {                                                        # part b
    "momentum SGD": (HeavyBall(0.9), 0.03, L2), "Adam": (Adam(), 1e-3, L2),
    "AdamW 0.05": (AdamW(weight_decay=0.05), 1e-3, 0.0), "AdamW 0.5": (AdamW(weight_decay=0.5), 1e-3, 0.0),
}
B1, B2, LR = (0.0, 0.8, 0.9, 0.95), (0.9, 0.99, 0.999), (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)                                # part d
DECAY = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)                           # part d: lr weight_decay of AdamW, l2 of Adam


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    test = args.pick(None, 2000)
    for data in args.data_of("a"):
        for method, (optimizer, base, l2) in SMALL.items():
            problem = Recipe(lenet, data=data, validation=1 / 12, test_rows=test, l2=l2)
            for factor in args.pick(FACTORS[:5], FACTORS[2:4]):
                lr = base * factor
                yield Entry("a", f"{method}: {lr:.3g}", problem, optimizer, RandomReshuffling(64), lr,
                            stop=Stop(epochs=args.budget(10, 6)))
    for data in args.data_of("b"):
        width, rows = args.width or args.pick(8, 4), args.rows or args.pick(6000, 600)
        for method, (optimizer, base, l2) in DEEP.items():
            problem = Recipe(resnet, data=data, width=width, rows=rows, validation=1 / 6, test_rows=test, l2=l2)
            for factor in args.pick(FACTORS[1:], (1,)):
                yield Entry("b", f"{method}: {base * factor:.3g}", problem, optimizer, RandomReshuffling(128),
                            Cosine(base * factor), stop=Stop(epochs=args.budget(15, 10)), metrics=args.pick(3, 2))
    for data in args.data_of("c"):
        problem = Recipe(lenet, data=data, test_rows=test)
        some = dict(stop=Stop(epochs=args.budget(2, 3)), metrics=1)
        for b1 in args.pick(B1, B1[::2]):
            for b2 in args.pick(B2, B2[::2]):
                yield Entry("c", f"b1 {b1:g}, b2 {b2:g}", problem, Adam(b1, b2), RandomReshuffling(64), 1e-3, **some)
            for lr in args.pick(LR, LR[2:4]):
                yield Entry("c", f"b1 {b1:g}, lr {lr:g}", problem, Adam(b1), RandomReshuffling(64), lr, **some)
    for data in args.data_of("d"):
        rows = args.pick(6000, 600)
        for lr in args.pick(RATES, RATES[1:3]):
            for decay in args.pick(DECAY, DECAY[::2]):
                for method in ("L2", "decoupled"):
                    l2, optimizer = (decay, Adam()) if method == "L2" else (0.0, AdamW(weight_decay=decay / lr))
                    problem = Recipe(lenet, data=data, rows=rows, validation=1 / 6, test_rows=test, l2=l2)
                    yield Entry("d", f"{method}, lr {lr:g}, decay {decay:g}", problem, optimizer, RandomReshuffling(64),
                                Cosine(lr), stop=Stop(epochs=args.budget(30, 3)), metrics=args.pick(10, 3))


# ----------------------------------------------------------------------------------------------------------- claims
BY = "validation_accuracy"

for part in "ab":
    experiment.claim(f"{part}-edge", "the rates are wide enough", expected="the best rate is inside its grid, always",
                     source="tuning of this script")(inside(part, BY))


@experiment.claim("a-accuracy", "LeNet-5 reaches 98.9 % on MNIST's test set in 10 epochs, with each of the three",
                  expected=">= 98.9 % (mean over seeds)", source="customary results for LeNet-5")
def a_accuracy(results, args):
    if args.data_of("a") != ["mnist"] or args.quick or args.budget(10, 6) != 10:
        raise Undecided("it speaks of 10 epochs on MNIST")
    ends = {m: 100 * t.runs.final("test_accuracy") for m, t in results.select("a").tuned(BY).items()}
    return listed({m: spread(v) for m, v in ends.items()}), min(v.mean() for v in ends.values()) >= 98.9


for other in ("Adam", "AdamW"):
    experiment.claim(f"a-close-{other}".lower(), f"LeNet-5: momentum SGD and {other} end with the same test accuracy",
                     expected="within 0.3 points (95 %)",
                     )(alike("a", "momentum SGD", other, "test_accuracy", 0.003, by=BY))


@experiment.claim("a-first", "LeNet-5: Adam has the smaller training loss after the first epoch",
                  expected="below momentum SGD's by more than two standard deviations")
def a_first(results):
    best = results.select("a").tuned(BY)
    first = {m: np.array([run.columns["train_loss"][1] for run in best[m].runs]) for m in ("Adam", "momentum SGD")}
    mean, _, clear = different(first["Adam"], first["momentum SGD"])
    return listed({m: spread(v) for m, v in first.items()}), clear and mean < 0


for one, two, source in (("momentum SGD", "AdamW 0.05", "customary results"),
                         ("momentum SGD", "Adam", "Wilson et al., NeurIPS 2017"),
                         ("AdamW 0.05", "Adam", "Loshchilov & Hutter, ICLR 2019"),
                         ("AdamW 0.5", "Adam", "Loshchilov & Hutter, ICLR 2019")):
    experiment.claim(f"b-{one}-{two}".lower().replace(" ", "-"), f"ResNet-18: {one} ends above {two}",
                     expected="test accuracy above by more than two standard deviations", source=source,
                     )(larger("b", one, two, "test_accuracy", by=BY))


def grid(results, part, names, column):
    """{name: mean of the last value over seeds, NaN where one diverged} of the runs with these names that exist."""
    groups = dict(results.select(part).groups())
    return {n: math.nan if any(r.diverged for r in groups[n]) else float(np.mean(groups[n].final(column)))
            for n in names if n in groups}


def finite(found):
    return {name: value for name, value in found.items() if math.isfinite(value)}


@experiment.claim("c-default", "b1 = 0.9, b2 = 0.999 is among the best of the grid at lr = 1e-3",
                  expected="loss below 1.2 times the best pair's, by two deviations",
                  source="Kingma & Ba, ICLR 2015, section 2")
def c_default(results):
    losses = finite(grid(results, "c", [f"b1 {b1:g}, b2 {b2:g}" for b1 in B1 for b2 in B2], "train_loss"))
    best = min(losses, key=losses.get)
    default, least = (results.select("c", name).final("train_loss") for name in ("b1 0.9, b2 0.999", best))
    return decided(f"{spread(default)}; best {spread(least)} at {best}", lower(default, 1.2 * least))


@experiment.claim("c-short", "a short memory of the second moment hurts where b1 is large",
                  expected="at b1 = 0.95, the training loss at b2 = 0.9 is above those at the others by two standard "
                  "deviations",
                  source="a rule of thumb: b2 close to 1")
def c_short(results):
    losses = {b2: results.select("c", f"b1 0.95, b2 {b2:g}").final("train_loss") for b2 in B2}
    text = listed({f"b2 {b2:g}": spread(values) for b2, values in losses.items()})
    return decided(text, *(lower(losses[b2], losses[0.9]) for b2 in B2 if b2 != 0.9))


@experiment.claim("c-rate", "the rate matters more than the betas",
                  expected="largest / least training loss over the rates, b1 = 0.9, above that over the pairs "
                  "of betas, by two standard deviations")
def c_rate(results):
    ratios = []
    for names in ([f"b1 0.9, lr {lr:g}" for lr in LR], [f"b1 {b1:g}, b2 {b2:g}" for b1 in B1 for b2 in B2]):
        there = finite(grid(results, "c", names, "train_loss"))
        ends = [results.select("c", name).final("train_loss") for name in there]
        ratios.append(np.max(ends, 0) / np.min(ends, 0))
    over_rates, over_betas = ratios
    text = f"{spread(over_rates)} over the rates, {spread(over_betas)} over the betas"
    return decided(text, lower(over_betas, over_rates))


def surface(results, method, column):
    """(rates, decays) of the last values of a column, NaN where there are none; and the decays and rates that exist."""
    names = {(lr, decay): f"{method}, lr {lr:g}, decay {decay:g}" for lr in RATES for decay in DECAY}
    found = grid(results, "d", names.values(), column)
    here = [key for key, name in names.items() if name in found]
    rates, decays = (sorted({key[i] for key in here}) for i in (0, 1))
    return np.array([[found[names[lr, d]] for d in decays] for lr in rates]), rates, decays


@experiment.claim("d-zero", "without decay the two are one method", expected="equal losses, bit for bit",
                  source="definition")
def d_zero(results):
    pairs = [[results.select("d", f"{m}, lr {lr:g}, decay 0").final("train_loss") for m in ("L2", "decoupled")]
             for lr in surface(results, "L2", "train_loss")[1]]
    worst = max(float(np.abs(a - b).max()) for a, b in pairs)
    return f"largest difference {worst:g}", worst == 0


@experiment.claim("d-apart", "the best decoupled decay a step hardly depends on the rate, the best l2 does",
                  expected="decades between the best decays of two rates: fewer for decoupled than for L2",
                  source="Loshchilov & Hutter, ICLR 2019, figure 2")
def d_apart(results):
    spans, best = {}, {}
    for method in ("L2", "decoupled"):
        values, rates, decays = surface(results, method, "validation_accuracy")
        chosen = [decays[1:][int(np.nanargmax(row[1:]))] for row in values]
        spans[method] = math.log10(max(chosen) / min(chosen))
        best[method] = ", ".join(f"{d:g}" for d in chosen)
    text = "; ".join(f"{m}: {best[m]} (rising rates)" for m in best)
    if max(spans.values()) == 0:
        raise Undecided(f"both have one best decay for all rates: {text}")
    return text, spans["decoupled"] < spans["L2"]


@experiment.claim("d-gain", "at its best pair, decoupled decay generalises better than L2",
                  expected="test accuracy above by more than two standard deviations",
                  source="Loshchilov & Hutter, ICLR 2019")
def d_gain(results):
    ends = {}
    for method in ("decoupled", "L2"):
        values, rates, decays = surface(results, method, "validation_accuracy")
        i, j = np.unravel_index(np.nanargmax(values), values.shape)
        runs = results.select("d", f"{method}, lr {rates[i]:g}, decay {decays[j]:g}")
        ends[method] = runs.final("test_accuracy")
    mean, _, clear = different(ends["decoupled"], ends["L2"])
    return listed({m: spread(v) for m, v in ends.items()}), clear and mean > 0


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("lenet.png", caption="LeNet-5, batch size 64, constant rate, each method at its best rate: training "
                   "loss and test error (median and range over seeds), and held-out accuracy against the rate.")
def lenet_figure(results, args):
    return tuned(results.select("a"), BY, args.pick(97.5, None))


@experiment.figure("resnet.png", caption="ResNet-18 at reduced width on part of the training set, batch size 128, "
                   "cosine, each method at its best rate; right: held-out accuracy against the rate.")
def resnet_figure(results):
    return tuned(results.select("b"), BY)


@experiment.figure("betas.png", caption="Adam on LeNet-5: training loss at the end, mean over seeds. Left: b1 and b2 "
                   "at lr = 1e-3. Right: b1 and the rate at b2 = 0.999.")
def betas_figure(results):
    figure, axes = panels(1, 2)
    for ax, label, values in ((axes[0], "b2", B2), (axes[1], "lr", LR)):
        found = grid(results, "c", [f"b1 {b1:g}, {label} {v:g}" for b1 in B1 for v in values], "train_loss")
        rows, columns = ([v for v in vs if any(f"{n} {v:g}" in name.split(", ") for name in found)]
                         for n, vs in (("b1", B1), (label, values)))
        table = [[found[f"b1 {b1:g}, {label} {v:g}"] for v in columns] for b1 in rows]
        heat(ax, table, rows, columns, "b1", label.replace("lr", "learning rate"), log=True, colour="training loss")
    return figure


@experiment.figure("decay.png", caption="LeNet-5 on few rows, cosine: test accuracy over rate and decay. Left: l2 of "
                   "the objective, through Adam's moments. Right: decoupled, lr weight_decay a step. Colours start at "
                   "the 5th percentile.")
def decay_figure(results):
    figure, axes = panels(1, 2, size=(14.5, 4.6))
    every = 100 * np.array([surface(results, method, "test_accuracy")[0] for method in ("L2", "decoupled")])
    limits = np.nanpercentile(every, 5), np.nanmax(every)
    for ax, method, label in zip(axes, ("L2", "decoupled"), ("l2", "lr weight_decay"), strict=True):
        values, rates, decays = surface(results, method, "test_accuracy")
        heat(ax, 100 * values, rates, decays, "learning rate", label, colour="test accuracy [%]", digits="{:.1f}",
             limits=limits)
        ax.set_title({"L2": "Adam with L2", "decoupled": "AdamW"}[method])
    return figure


if __name__ == "__main__":
    experiment.main()
