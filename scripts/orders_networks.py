"""Does the order of the rows matter for networks, and why does class by class fail?   Course tasks A12 and B8.

Momentum SGD with rows drawn with replacement, shuffled once, reshuffled in every epoch, class by class, and with
probabilities that follow |softmax - onehot| of a row's last pass (Katharopoulos & Fleuret; weights keep the gradient
unbiased). What theory says of the first three on strongly convex sums, floors of a step to the power 1, 2 and 2, lies
far below what a few epochs on a network can see: they should agree. Class by class the gradient within an epoch points
from class to class. The batch loss then falls within a class and jumps where the next begins: a saw with a tooth for
each class. The network that an epoch ends with calls nearly everything the last class, while its batch loss looks
small. With batch normalisation the running statistics are those of the last class, too: a second failure, which
statistics taken anew over all classes can undo.

All orders have the same rates to choose from, and are compared at the best rate of each and at one common rate
(ResNet-18 at one rate alone). An epoch is n draws for all. Momentum 0.9, batches of 64 (ResNet: 128).

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 50 minutes.
"""

import itertools

from figures.orders_networks import album, borders
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, inside, listed, spreads
from lab.verdicts import close, lower, together, within
from nn.networks import lenet5, resnet18, vgg
from npopt import AdaptiveImportance, ByClass, HeavyBall, RandomReshuffling, ShuffleOnce, Stop, WithReplacement, backend
from problems.classifiers import padded, shortened
from problems.datasets import shared
from problems.feeds import CropFlip, Images
from problems.scored import Scored

import numpy as np

experiment = Experiment(
    __doc__,
    task="A12, B8",
    source="Mishchenko, Khaled & Richtarik, NeurIPS 2020; Katharopoulos & Fleuret, ICML 2018",
    parts={
        "m": Part("LeNet-5", "digits", "mnist"),
        "v": Part("VGG-11 of width 8, batch norm", "digits", "mnist"),
        "r": Part("ResNet-18 of width 16, batch norm", "digits", "cifar-10-jpeg"),
        "t": Part("within the epochs, class by class", "digits", "mnist"),
    },
    quick_seeds=1,
    figures=album,
)

ORDERS = {
    "with replacement": WithReplacement,
    "shuffle once": ShuffleOnce,
    "reshuffling": RandomReshuffling,
    "by score": AdaptiveImportance,
    "by class": ByClass,
}
MIXED = tuple(ORDERS)[:3]
RATES = {"m": (0.003, 0.01, 0.03), "v": (0.003, 0.01, 0.03), "r": (0.03,)}
COMMON = {"m": 0.01, "v": 0.01, "r": 0.03}
MARGINS = {"m": 0.005, "v": 0.005, "r": 0.02}  # accuracies within them are alike; r has few rows
RATE = {part: "at best rates" if len(RATES[part]) > 1 else f"at the rate {RATES[part][0]:g}" for part in RATES}
NAMES = {"m": "LeNet-5", "v": "VGG-11", "r": "ResNet-18"}


class Told(Scored):
    """A network whose metrics say more: `last`, the share of test rows that it puts into the last class, and
    fresh_accuracy, the test accuracy with batch statistics taken anew from the training rows of the metrics."""

    def metrics(self, x):
        found = super().metrics(x)
        answers = self.outputs(x).argmax(1)
        found["last"] = float(np.mean(answers == self.network.output_shape[-1] - 1))
        kept = self.network.state()
        self.recalibrate(x, backend.xp().arange(min(self.n, self.metrics_rows)))
        found["fresh_accuracy"] = super().metrics(x)["test_accuracy"]
        self.network.load_state(kept)
        return found


def network(data, kind, rows=None, validation=0.0, test_rows=None):
    d = shortened(shared(data, rows=rows or 10**9, validation=validation), test_rows)  # in a random order
    classes, shape = len(d.classes), d.x_train.shape[1:]
    if kind == "vgg":
        d, made = padded(d, 32), vgg(width=8, in_channels=shape[2], classes=classes)
    elif kind == "resnet":
        made = resnet18(16 if shape[0] == 32 else 4, in_channels=shape[2], image=shape[0], classes=classes)
    else:
        made = lenet5(input_shape=shape, classes=classes)
    return Told(made, Images(d, CropFlip(4) if shape[0] == 32 else None), metrics_rows=min(2000, len(d.y_train)))


# ------------------------------------------------------------------------------------------------------------- grid
KINDS = {"m": "lenet", "v": "vgg", "r": "resnet"}
SIZES = {
    "m": dict(rows=30_000, test_rows=5000),
    "v": dict(rows=6000, test_rows=2000),
    "r": dict(rows=6000, test_rows=2000),
}


@experiment.runs
def runs(args):
    for part, kind in KINDS.items():
        rows = args.pick(SIZES[part], dict(rows={"m": 600, "v": 96, "r": 96}[part], test_rows=100))
        size, epochs = (
            128 if kind == "resnet" else 64,
            args.budget(6 if kind == "resnet" else 5, 3 if kind == "lenet" else 1),
        )
        for data in args.data_of(part):
            problem = Recipe(network, data=data, kind=kind, validation=1 / 6, **rows)
            for order, sampler in ORDERS.items():
                for lr in args.pick(RATES[part], (COMMON[part],)):
                    yield Entry(
                        part,
                        problem,
                        HeavyBall(0.9),
                        sampler(args.pick(size, 16)),
                        lr,
                        stop=Stop(epochs=epochs),
                        data=data,
                        order=order,
                        lr=lr,
                    )
    for data in args.data_of("t"):
        rows = args.pick(20_000, 300)
        problem = Recipe(network, data=data, kind="lenet", test_rows=300, rows=rows)
        for order in ("by class", "reshuffling"):
            yield Entry(
                "t",
                problem,
                HeavyBall(0.9),
                ORDERS[order](args.pick(64, 16)),
                0.01,
                stop=Stop(epochs=2),
                metrics=args.pick(0.01, 0.05),
                data=data,
                order=order,
                rows=rows,
                seeds=args.seeds[:1],
            )


# ----------------------------------------------------------------------------------------------------------- claims
def at_best(results, part):
    return results.select(part).at_best(of="order")


def alike(part):
    def function(results):
        ends = at_best(results, part).finals("test_accuracy", "order")
        text = spreads({order: ends[order] for order in MIXED})
        return decided(text, *(close(ends[order], ends["reshuffling"], MARGINS[part]) for order in MIXED[:2]))

    return function


def fails(part):
    def function(results):
        runs = results.select(part, lr=COMMON[part])
        ends = runs.finals("test_accuracy", "order")
        worst = ends.pop("by class")
        text = f"{np.mean(worst):.3g}; the others {min(np.mean(v) for v in ends.values()):.3g} or more"
        return decided(text, *(within(v - worst, 0.1) for v in ends.values()))

    return function


def scored(part):
    def function(results):
        ends = {k: np.log(v) for k, v in at_best(results, part).finals("train_loss", "order").items()}
        text = listed({k: f"{np.exp(ends[k].mean()):.3g}" for k in ("by score", "with replacement", "reshuffling")})
        return decided(text, lower(ends["by score"], ends["with replacement"]))

    return function


for part, name in NAMES.items():
    experiment.claim(
        f"{part}-alike",
        f"{name}: drawn with replacement, shuffled once or reshuffled, it ends alike",
        expected=f"test accuracy of the first two within {MARGINS[part]:g} of reshuffling's, {RATE[part]} (95 %)",
        source="floors of theory lie far below",
    )(alike(part))
    experiment.claim(
        f"{part}-class",
        f"{name}: class by class fails",
        expected=f"at the rate {COMMON[part]:g} test accuracy at least 0.1 below every other order's (95 %)",
        source="the last class rules an epoch's end",
    )(fails(part))
    experiment.claim(
        f"{part}-score",
        f"{name}: draws by |softmax - onehot| lower the training loss",
        expected=f"{RATE[part]} below that of uniform draws (95 % of the log); false where it is above",
        source="Katharopoulos & Fleuret, figure 3",
    )(scored(part))


@experiment.claim(
    "last",
    "class by class the network ends with one answer, the last class",
    expected="of test rows more than half (a tenth is right), at the common rates, every network (95 %)",
    source="the gradient of the last batches",
)
def last(results):
    shares = {NAMES[p]: results.select(p, order="by class", lr=COMMON[p]).final("last") for p in NAMES}
    return decided(spreads(shares), *(within(v, 0.5) for v in shares.values()))


@experiment.claim(
    "small",
    "class by class the batch loss looks small and the training loss is not",
    expected="mean batch loss of the last epoch below a third of the training loss at its end (95 % of the log)",
    source="a batch holds the class that was just learned",
)
def small(results):
    found = {}
    for part, name in NAMES.items():
        runs = results.select(part, order="by class", lr=COMMON[part])
        found[name] = np.log(runs.final("loss") / runs.final("train_loss"))
    text = listed({name: f"{np.exp(v.mean()):.2g} of it" for name, v in found.items()})
    return decided(text, *(within(v, high=np.log(1 / 3)) for v in found.values()))


@experiment.claim(
    "statistics",
    "class by class a part of the failure is the batch statistics",
    expected="test accuracy with statistics taken anew above that with running ones, both networks (95 %); reshuffled: "
    "the two within 0.05",
    source="running statistics are the last class's",
)
def statistics(results):
    text, verdicts = {}, []
    for part in ("v", "r"):
        for order in ("by class", "reshuffling"):
            runs = results.select(part, order=order, lr=COMMON[part])
            running, fresh = runs.final("test_accuracy"), runs.final("fresh_accuracy")
            text[f"{NAMES[part]} {order}"] = f"{running.mean():.3g} to {fresh.mean():.3g}"
            verdicts.append(lower(running, fresh) if order == "by class" else close(running, fresh, 0.05))
    return listed(text), together(verdicts)


def teeth(run, ends):
    """For each class of the last epoch the batch loss in the first and in the last quarter of its steps. ends: where
    the classes end, as shares of an epoch; rows of columns that hold batches of two classes are left out."""
    epoch, loss = np.asarray(run.columns["epoch"]), np.asarray(run.columns["loss"])
    at, width = epoch - (np.ceil(epoch[-1] - 1e-9) - 1), epoch[-1] - epoch[-2]
    found = []
    for low, high in itertools.pairwise([0, *ends]):
        place = np.where(
            (at - width >= low - 1e-9) & (at <= high + 1e-9), (at - width / 2 - low) / (high - low), np.nan
        )
        found.append([loss[place < 0.25].mean(), loss[place > 0.75].mean()])
    return np.array(found)


@experiment.claim(
    "teeth",
    "class by class the batch loss of an epoch is a saw with a tooth for each class",
    expected="LeNet-5, last epoch, one seed: for each of ten classes the first quarter of its batches has at least "
    "twice the loss of the last; reshuffled for none",
    source="spec of task B8",
)
def saw(results):
    groups = results.select("t").groups("order", "data", "rows")
    found = {order: teeth(runs[0], borders(data, rows)) for (order, data, rows), runs in groups}
    counts = {order: int((v[:, 0] > 2 * v[:, 1]).sum()) for order, v in found.items()}
    return listed(counts) + " of 10", counts["by class"] == 10 and counts["reshuffling"] == 0


@experiment.claim("edge", "the rates are wide enough", expected="the best inside the grid, always", source="tuning")
def edge(results):
    found = [inside(part, of="order")(results) for part in "mv"]
    return "; ".join(f"{part}: {one[0]}" for part, one in zip("mv", found, strict=True)), together(
        one[1] for one in found
    )


@experiment.conclusion
def conclusion(results, claims):
    ends = {NAMES[p]: at_best(results, p).means("test_accuracy", "order") for p in NAMES}
    text = ". ".join(f"{name}: {listed({k: f'{v:.3g}' for k, v in found.items()})}" for name, found in ends.items())
    return f"Test accuracy at best rates. {text}. Statistics taken anew: {claims['statistics'].measured}."


if __name__ == "__main__":
    experiment.main()
