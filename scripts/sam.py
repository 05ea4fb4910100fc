"""Does sharpness-aware minimisation find flat minima, and is that worth two gradients a step?   Course task A15.

SAM takes its gradient at x + rho g / |g|. In a basin of half-width D (the distance of the ridge) it cannot stay once
its ascent point lies past the ridge: beside the minimum, on the far side, a step leads to the distance lr |f'(-rho)| on
the side of the ridge, so it leaves where rho + lr |f'(-rho)| > D, for a quadratic of curvature h at D / (1 + lr h).
Parts h and s measure this on two toys. On two Gaussian wells, the sharp one deeper, fewer of 26 x 26 starts end in the
sharp well as rho grows, none from about 0.5 on. But a ridge is no place that SAM leaves by itself: its ascent point
lies on the other side, from either side. Gradient descent from there, or a rho that falls, decides.

On networks the paper promises lower test error (0.5 to 1 point on CIFAR-10 after 200 epochs), a smaller largest
eigenvalue and a higher training loss, more with small m (the ball of every m rows by itself), far more with wrong
labels, and nothing of it where rho is too large. A step costs two gradients. So SGD is run with as many epochs, and
with twice as many, which is the same number of gradients. rho and rates are chosen by the loss of held-out rows. A
rate is chosen for each method first, at one middle radius.

The small network is that of Wong et al. (two strided convolutions, 100 hidden units), on 10,000 pictures without
augmentation, which it can learn by heart.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1: parts h, s and w a minute, parts l, n
and y about two and a half hours, part r (ResNet-18 of width 16, all pictures, 10 and 20 epochs) about seven hours.
"""

from figures.sam import LRS, SIDE, START, album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, inside, listed, spreads
from lab.results import MissingRuns
from lab.sharp import ends, in_turn, threshold, trained
from lab.verdicts import lower
from nn.networks import strided
from npopt import ASAM, SAM, Accumulated, Cosine, HeavyBall, Minibatch, RandomReshuffling
from problems import Neural
from problems.classifiers import resnet, shortened
from problems.datasets import shared
from problems.feeds import Images

import numpy as np

experiment = Experiment(
    __doc__,
    task="A15",
    source="Foret et al., ICLR 2021, arXiv:2010.01412; Kwon et al., ICML 2021, arXiv:2102.11600",
    parts={
        "h": Part("the radius at which SAM leaves a basin"),
        "s": Part("which of two wells 676 starts lead to"),
        "w": Part("walks to look at"),
        "l": Part("rates of the small network", "digits", "cifar-10-jpeg"),
        "n": Part("the small network by radius, equal epochs and equal gradients", "digits", "cifar-10-jpeg"),
        "y": Part("the same with 40 % of the labels drawn anew", "digits", "cifar-10-jpeg"),
        "r": Part("ResNet-18 of width 16", "digits", "cifar-10-jpeg"),
    },
    seeds=10,
    quick_seeds=1,
    figures=album,
)

BATCH, DECAY, EPOCHS = 128, 5e-4, 20
RADII = {"SAM": (0.02, 0.05, 0.1, 0.2, 0.5), "ASAM": (0.2, 0.5, 1.0, 2.0, 4.0)}
MIDDLE = {"SAM": 0.1, "ASAM": 1.0}  # at which rates are chosen
RATES = (0.01, 0.03, 0.1, 0.3)
SIZES = (32, 8)  # m
SHARES = {0.0: 0.121, 0.1: 0.101, 0.2: 0.074, 0.3: 0.056, 0.4: 0.033, 0.5: 0.0}  # in the sharp well, another program's
WIDER = {0.0: 0.213, 0.1: 0.195, 0.2: 0.163, 0.3: 0.136, 0.5: 0.089, 0.7: 0.0}  # the sharp well 0.25 wide
METHODS = {"SAM": SAM, "ASAM": ASAM}


def small(data, rows, validation=0.0, test_rows=None, noise=0.0, dtype="float32"):
    """The network of Wong et al., with l2."""
    d = shortened(shared(data, rows=rows, validation=validation, noise=noise), test_rows)
    network = strided(len(d.classes), d.x_train.shape[1:])
    return Neural(network, Images(d), l2=DECAY, metrics_rows=min(5000, len(d.y_train)), dtype=dtype)


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    one = [0]
    for toy in ("two bowls", "wells"):
        for lr in LRS[toy]:
            some = dict(name=toy, lr=lr, steps=args.pick(4000, 500), halvings=args.pick(9, 5))
            yield Entry("h", run=Recipe(threshold, **some), seeds=one, toy=toy, lr=lr)
    for width, table in ((0.15, SHARES), (0.25, WIDER)):
        for rho in table:
            some = dict(rho=rho, width=width, lr=0.01, steps=args.pick(6000, 500), side=args.pick(SIDE, 6))
            yield Entry("s", run=Recipe(ends, **some), seeds=one, width=width, rho=rho)
    for rho in (0.0, 0.3, 0.5):
        some = dict(start=START, rho=rho, lr=0.02, steps=args.pick(1500, 300))
        yield Entry("w", run=Recipe(in_turn, **some, metrics=args.pick(15, 50)), seeds=one, rho=rho)
    for data in args.data_of("l"):
        for method in ("SGD", *METHODS):
            for lr in args.pick(RATES, RATES[2:3]):
                yield network("l", args, data, method, MIDDLE.get(method, 0.0), lr, seeds=args.seeds[:3])
    for part in "ny":
        for data in args.data_of(part):
            yield from by_radius(part, args, data, found)
    for data in args.data_of("r"):
        yield from large(args, data)


def network(part, args, data, method, rho, lr, *, m=0, more=1, seeds=None, noise=0.0):
    """A run of the small network. m: the rows of a ball, 0: those of a batch; more: times as many epochs."""
    estimator = METHODS[method](rho) if method in METHODS else Minibatch()
    estimator = Accumulated(m, estimator) if m else estimator
    given = dict(rows=args.pick(10_000, 180), validation=1 / 6, noise=noise, test_rows=args.pick(None, 300))
    some = dict(optimizer=HeavyBall(0.9), estimator=estimator, sampler=RandomReshuffling(BATCH), schedule=Cosine(lr))
    epochs = more * args.budget(EPOCHS, 2)
    run = Recipe(
        trained, build=small, arguments=given, data=data, look=args.pick((1000, 20), (20, 4)), epochs=epochs, **some
    )
    return Entry(part, run=run, seeds=seeds, metrics=args.pick(1, 2), method=method, rho=rho, lr=lr, m=m, more=more)


def by_radius(part, args, data, found):
    """All radii, each method at its rate of part l; nothing before that is known."""
    rates = rates_of(found) if not args.quick else dict.fromkeys(("SGD", *METHODS), RATES[2])
    if not rates:
        return
    radii = args.pick(RADII, {method: values[2:3] for method, values in RADII.items()})
    given = dict(noise=0.4, seeds=args.seeds[:5]) if part == "y" else {}
    for more in (1, 2):
        yield network(part, args, data, "SGD", 0.0, rates["SGD"], more=more, **given)
    for method in METHODS if part == "n" else ("SAM",):
        for rho in radii[method]:
            yield network(part, args, data, method, rho, rates[method], **given)
    for m in SIZES if part == "n" else ():
        for rho in args.pick((0.05, 0.1, 0.2), (0.1,)):
            yield network(part, args, data, "SAM", rho, rates["SAM"], m=m, **given)


def rates_of(found):
    """{method: rate} of part l; {} where it has not been run."""
    try:
        return {} if found is None else {m: t.value for m, t in found.select("l").tuned().items()}
    except MissingRuns:
        return {}


def large(args, data):
    width, rows, epochs = args.pick((16, None, 10), (2, 160, 1))
    given = dict(width=width, rows=rows, test_rows=args.pick(None, 200), l2=DECAY, validation=1 / 10)
    methods = (("SGD", 0.0, 1), ("SGD", 0.0, 2), ("SAM", 0.1, 1), ("SAM", 0.05, 1), ("ASAM", 1.0, 1))
    for method, rho, more in args.pick(methods, methods[:3]):
        estimator = METHODS[method](rho) if rho else Minibatch()
        some = dict(optimizer=HeavyBall(0.9), estimator=estimator, schedule=Cosine(0.1))
        some |= dict(sampler=RandomReshuffling(BATCH), look=args.pick((256, 20), (20, 4)))
        budget = more * args.budget(epochs, epochs)
        run = Recipe(trained, build=resnet, arguments=given, data=data, epochs=budget, **some)
        yield Entry("r", run=run, seeds=args.seeds[:3], method=method, rho=rho, more=more)


# ----------------------------------------------------------------------------------------------------- claims: toys
@experiment.claim(
    "h-radius",
    "SAM leaves the sharp basin from the radius on at which its ascent point passes the ridge",
    expected="both toys, all rates: measured within 1 % of rho + lr |f'(-rho)| = D",
    source="see above",
)
def h_radius(results):
    text, good = {}, []
    for (toy, lr), runs in results.select("h").groups("toy", "lr"):
        middle = (runs[0].final["stays"] + runs[0].final["leaves"]) / 2
        half = (runs[0].final["leaves"] - runs[0].final["stays"]) / 2
        wanted = runs[0].final["predicted"]
        text[f"{toy} at {lr:g}:"] = f"{middle:.4f} ({wanted:.4f})"
        good.append(abs(middle - wanted) <= 0.01 * wanted + half)
    return f"{listed(text)} (theory)", all(good)


def shares(results, width, well=0, column="well"):
    groups = results.select("s", width=width).groups("rho")
    return {rho: float(np.mean(runs[0].columns[column] == well)) for rho, runs in sorted(groups)}


@experiment.claim(
    "s-shares",
    "fewer starts lead to the sharp, deeper well as rho grows, and none from 0.5 (0.7 where it is wider) on",
    expected="shares never rise with rho, end at 0, and are within 0.02 of another program's",
    source="the toy of the task sheet",
)
def s_shares(results):
    text, good = {}, []
    for width, table in ((0.15, SHARES), (0.25, WIDER)):
        found = shares(results, width)
        values = np.array(list(found.values()))
        near = [abs(v - table[rho]) <= 0.02 for rho, v in found.items()]
        good += [bool((np.diff(values) <= 0).all()), values[-1] == 0, *near]
        text[f"width {width:g}:"] = " ".join(f"{v:.3f}" for v in values)
    return listed(text), all(good)


@experiment.claim(
    "s-hover",
    "SAM alone does not take what leaves the sharp well to the flat one: it hovers about the ridge, to which both "
    "sides send it back",
    expected="share near the flat well at rho 0.5 not above that at 0 (width 0.15)",
    source="on either side of a ridge the ascent point lies on the other",
)
def s_hover(results):
    found = shares(results, 0.15, 1)
    return f"{found[0.0]:.3f} at 0, {found[0.5]:.3f} at 0.5", found[0.5] <= found[0.0]


@experiment.claim(
    "s-then",
    "gradient descent after it does: SAM first, then rho = 0, prefers the flat minimum",
    expected="share that ends in the flat well never falls with rho, both widths, and is 0.99 or more at the last",
    source="the toy of the task sheet",
)
def s_then(results):
    text, good = {}, []
    for width in (0.15, 0.25):
        values = np.array(list(shares(results, width, 1, "then").values()))
        good += [bool((np.diff(values) >= 0).all()), values[-1] >= 0.99]
        text[f"width {width:g}:"] = " ".join(f"{v:.3f}" for v in values)
    return listed(text), all(good)


# ------------------------------------------------------------------------------------------------- claims: networks
def error(runs):
    return 100 * (1 - runs.final("test_accuracy"))


def chosen(results, part, method, more=1, m=0):
    """The runs of a method at its best radius by held-out loss."""
    some = results.select(part, method=method, more=more, m=m)
    return some if method == "SGD" else some.tuned("rho")[method].runs


def against(part, method, more):
    """The function of a claim: a method at its best radius has a lower test error than SGD with `more` times its
    epochs."""

    def judged(results):
        ours, theirs = error(chosen(results, part, method)), error(chosen(results, part, "SGD", more))
        return decided(f"{spreads({method: ours, 'SGD': theirs}, ' %')}", lower(ours, theirs))

    return judged


for part, where in (("n", "clean labels"), ("y", "40 % of the labels drawn anew")):
    for more, budget in ((1, "equal epochs"), (2, "equal gradients")):
        experiment.claim(
            f"{part}-sam-{more}",
            f"{where}, {budget}: SAM's test error is below SGD's",
            expected="at the radius of the least held-out loss (95 %); false where above",
            source="Foret et al., tables 1 and 4",
        )(against(part, "SAM", more))

experiment.claim(
    "n-asam",
    "ASAM at its best radius, too, equal epochs",
    expected="below SGD's (95 %); false where above",
    source="Kwon et al., table 1",
)(against("n", "ASAM", 1))


@experiment.claim(
    "n-flat",
    "SAM ends where the largest eigenvalue is smaller and the training loss higher",
    expected="at its best radius: both (95 %), equal epochs",
    source="Foret et al., figure 3",
)
def n_flat(results):
    sam, sgd = chosen(results, "n", "SAM"), chosen(results, "n", "SGD")
    high = {"SAM": sam.final("high"), "SGD": sgd.final("high")}
    loss = {"SAM": sam.final("train_loss"), "SGD": sgd.final("train_loss")}
    verdicts = lower(high["SAM"], high["SGD"]), lower(loss["SGD"], loss["SAM"])
    return decided(f"lmax {spreads(high)}; training loss {spreads(loss)}", *verdicts)


@experiment.claim(
    "n-large",
    "too large a radius hurts",
    expected="SAM's test error at 0.5 above that at its best radius (95 %)",
    source="Foret et al., figure 3",
)
def n_large(results):
    best, wide = error(chosen(results, "n", "SAM")), error(results.select("n", method="SAM", rho=0.5, m=0))
    return decided(spreads({"best": best, "0.5": wide}, " %"), lower(best, wide))


@experiment.claim(
    "n-m",
    "a ball for every 8 rows generalises better than one for 128",
    expected="test error at the best radius of each lower with m = 8 (95 %); false where above",
    source="Foret et al., section 4.1",
)
def n_m(results):
    found = {f"m = {m or BATCH}": error(chosen(results, "n", "SAM", m=m)) for m in (0, *SIZES)}
    return decided(spreads(found, " %"), lower(found["m = 8"], found[f"m = {BATCH}"]))


@experiment.claim("l-edge", "the rates are wide enough", expected="the best inside the grid, always", source="tuning")
def l_edge(results):
    return inside("l")(results)


@experiment.claim(
    "r-sam",
    "ResNet-18 of width 16: SAM with rho 0.1 against SGD with as many epochs, and with twice as many",
    expected="test error lower than both (95 %, three seeds); false where above one",
    source="Foret et al., table 1",
)
def r_sam(results):
    ours = error(results.select("r", method="SAM", rho=0.1))
    theirs = {f"SGD, {more} times": error(results.select("r", method="SGD", more=more)) for more in (1, 2)}
    return decided(spreads({"SAM": ours, **theirs}, " %"), *(lower(ours, v) for v in theirs.values()))


if __name__ == "__main__":
    experiment.main()
