"""What do local steps, short messages and a ring cost a network?   Course task B9; SCAFFOLD 2020, EF21-SGDM 2023.

Ten nodes have MNIST's rows among them, at random or by mixes of classes drawn from Dirichlet(alpha K p), and train one
LeNet-5. All methods take as many gradients of 16 rows at each node. What is expected:

    with rows at random local steps are free; the more the nodes' classes differ, the more they cost, and SCAFFOLD mends
    on a ring the nodes' x stand apart, the more the larger the rate and the more the nodes differ
    top-k with EF21 saves bytes on the way up alone: x goes down whole, so that local steps save more in all

In part t the ten nodes have Shakespeare's lines among them, pieces at random or a passage of plays each, and train one
GPT-2 of two layers of 64. A passage has other names and matters than the next, but the same language: that costs local
steps little. And a Transformer wants another rate for each of its parts, which no method here gives it.

The runs are simulated: rounds and bytes are exact. Rates are a factor 3 apart. Held-out rows choose among them with the
first seeds (three, of part t one); then all five run at that rate.

Run time on one core: --quick about 10 seconds; --data real about an hour for each part.
"""

from figures.node_networks import album
from lab import Entry, Experiment, MissingRuns, Part, Recipe
from lab.claims import decided, inside, listed
from lab.node_networks import spoken, taught
from lab.ranks import RANKS
from lab.verdicts import close, lower, no_higher, shown
from npopt.distributed import DSGD, EF21SGDM, Clock, FedAvg, Scaffold, TopK, ring
from problems.datasets import shared

import numpy as np

experiment = Experiment(
    __doc__,
    task="B9",
    source="Karimireddy et al., ICML 2020; Fatkhullin et al., NeurIPS 2023; Lian et al., NeurIPS 2017",
    parts={
        "a": Part("LeNet-5 on ten nodes", ("digits",), ("mnist",)),
        "t": Part("a small Transformer on ten nodes", ("chain",), ("tinyshakespeare",)),
    },
    options=[RANKS],
    figures=album,
    seeds=5,
    quick_seeds=1,
)

NODES, BATCH = 10, 16
CLOCK = Clock(latency=1e-3, bandwidth=12.5e6, row_seconds=1e-4)
LRS, MIXES = (0.01, 0.03, 0.1, 0.3), ("random", 1.0, 0.1)
RATES, WAYS = (0.1, 0.3, 1.0), ("random", "passages")  # of part t
SIZE = dict(length=32, features=64, layers=2, heads=4)
SMALL = dict(length=16, features=32, layers=1, heads=4)  # of --quick
FEW = {"a": TopK(617), "t": TopK(1067)}  # 1 % of the numbers for MNIST and for Shakespeare
METHODS = {  # name: (method, gradients of a node in a round, arguments)
    "D-SGD, ring": (DSGD, 1, dict(graph=ring)),
    "FedAvg": (FedAvg, 5, dict(steps=5)),
    "SCAFFOLD": (Scaffold, 5, dict(steps=5)),
    "EF21-SGDM, top 1 %": (EF21SGDM, 1, dict(eta=0.1)),
}


@experiment.runs
def runs(args, found=None):
    for data in args.data_of("a"):
        for split in args.pick(MIXES, ("random", 0.1)):
            yield from staged(args, found, "a", LRS, args.seeds[:3], data=data, split=split)
    for data in args.data_of("t"):
        for split in WAYS:
            yield from staged(args, found, "t", RATES, args.seeds[:1], data=data, split=split)


def staged(args, found, part, rates, seeds, **tags):
    """All methods on one split: a grid of rates with some seeds, and the best of them with all."""
    for name, (method, gradients, given) in METHODS.items():
        for lr in args.pick(rates, ()):
            yield entry(args, part, name, method, gradients, lr=lr, stage="grid", seeds=seeds, **tags, **given)
        best = rates[-2] if args.quick else best_rate(found, part, tags["split"], name)
        if best:
            yield entry(args, part, name, method, gradients, lr=best, stage="chosen", **tags, **given)


def best_rate(found, part, split, method):
    """The rate that held-out rows choose; None before it is known."""
    try:
        return found.select(part, split=split, method=method, stage="grid").tuned()[method].value
    except (AttributeError, MissingRuns):
        return None


def entry(args, part, name, method, gradients, *, data, split, lr, stage, seeds=None, graph=None, **given):
    """One line of the grid. With --ranks each rank is a node, and a server takes one of them."""
    nodes = NODES if args.ranks is None else args.ranks - int(method.federated)
    rounds = args.pick(600, 10) // gradients
    if method is EF21SGDM:
        given |= {"compressor": FEW[part]}
    some = dict(data=data, nodes=nodes, split=split, method=method, lr=lr, given=given | {"batch": BATCH}, graph=graph)
    some |= dict(rounds=rounds, every=max(1, rounds // args.pick(20, 4)), clock=CLOCK)
    if part == "a":
        run = Recipe(taught, test_rows=2000, **some)
    else:
        run = Recipe(spoken, size=args.pick(SIZE, SMALL), held=args.pick(20_000, 500), **some)
    return Entry(part, run=run, seeds=seeds, data=data, split=split, method=name, lr=lr, stage=stage)


def best(results, split, part="a"):
    """{method: its runs at the rate that held-out rows choose}, on one mix."""
    return dict(results.select(part, split=split, stage="chosen").groups("method"))


def accuracies(results, split, *names):
    return [best(results, split)[name].final("test_accuracy") for name in names]


for part in ("a", "t"):
    experiment.claim(
        f"{part}-edge",
        "the rates are wide enough",
        expected="the best rate is inside its grid, for each method on each split",
    )(lambda results, part=part: inside(part, of=("split", "method"))(results.select(part, stage="grid")))


@experiment.claim(
    "a-home",
    "with rows at random, five steps at home cost a network nothing",
    expected="test accuracy of FedAvg within 1 point of D-SGD's after as many gradients (95 %)",
)
def at_home(results):
    fed, ring_ = accuracies(results, "random", "FedAvg", "D-SGD, ring")
    return f"{shown(100 * fed, 100 * ring_)} points", close(fed, ring_, 0.01)


@experiment.claim(
    "a-mixes",
    "classes that lie apart cost FedAvg accuracy, and SCAFFOLD less",
    expected="FedAvg: alpha 0.1 below rows at random; SCAFFOLD above FedAvg at alpha 0.1 (95 %, paired over seeds)",
    source="Hsu et al., 2019, section 4; Karimireddy et al., ICML 2020, section 7",
)
def mixes(results):
    fed, scaffold = accuracies(results, 0.1, "FedAvg", "SCAFFOLD")
    (even,) = accuracies(results, "random", "FedAvg")
    text = f"FedAvg {shown(100 * fed, 100 * even)} points; SCAFFOLD {shown(100 * scaffold, 100 * fed)} above it"
    return decided(text, lower(fed, even), lower(fed, scaffold))


@experiment.claim(
    "a-bytes",
    "to 90 % on rows at random local steps need fewer bytes than compression on the way up alone",
    expected="FedAvg fewer bytes than EF21-SGDM with 1 % of the numbers, since x goes down whole at each gradient",
    source="2 d / 5 against 1.015 d numbers a gradient",
)
def bytes_of_networks(results):
    ways = [best(results, "random")[name] for name in ("FedAvg", "EF21-SGDM, top 1 %")]
    logs = [np.log([reached(run, "bytes", 0.9) for run in runs]) for runs in ways]
    return " against ".join(f"{np.exp(np.mean(v)):.3g}" for v in logs) + " bytes", lower(*logs)


def reached(run, column, level):
    """A column where the test accuracy first reaches a level; nan if it never does."""
    found = np.flatnonzero(run.columns["test_accuracy"] >= level)
    return float(run.columns[column][found[0]]) if len(found) else np.nan


@experiment.claim(
    "a-apart",
    "on a ring nodes stand farther apart the more their classes differ, and the larger the rate",
    expected="late distance from their mean: alpha 0.1 above rows at random at rates 0.01, 0.03 and 0.1; from the "
    "first to the last it rises with a power of the rate above 1/2 (95 %)",
    source="distance of order lr at equal gradients: Lian et al., NeurIPS 2017, Theorem 1",
)
def apart(results):
    some, rates = results.select("a", method="D-SGD, ring", stage="grid"), LRS[:3]
    ends = {(s, lr): np.log(some.select(split=s, lr=lr).late("apart")) for s in ("random", 0.1) for lr in rates}
    rise = (ends[0.1, rates[-1]] - ends[0.1, rates[0]]) / np.log(rates[-1] / rates[0])
    far = {lr: [shown(np.exp(ends[split, lr])) for split in (0.1, "random")] for lr in rates}
    text = listed({f"lr {lr:g}": ", ".join(both) for lr, both in far.items()})
    verdicts = [lower(ends["random", lr], ends[0.1, lr]) for lr in rates]
    return decided(f"{text}; to the power {shown(rise)} of lr", *verdicts, lower(0.5, rise))


def losses(results, split, *names):
    """Test losses in the end: logarithms of perplexities."""
    return [best(results, split, "t")[name].final("test_loss") for name in names]


@experiment.claim(
    "t-home",
    "passages of one author differ so little that five steps at home cost a Transformer nothing",
    expected="test loss of FedAvg on passages within 0.02 of D-SGD's after as many gradients, and within 0.02 of its "
    "own on pieces at random (95 %)",
)
def at_home_with_words(results):
    fed, ring_ = losses(results, "passages", "FedAvg", "D-SGD, ring")
    (even,) = losses(results, "random", "FedAvg")
    return decided(f"{shown(fed, ring_)}; {shown(fed, even)}", close(fed, ring_, 0.02), close(fed, even, 0.02))


@experiment.claim(
    "t-scaffold",
    "where nodes differ little SCAFFOLD's corrections gain nothing",
    expected="test loss of SCAFFOLD on passages no lower than FedAvg's by 0.02 (95 %)",
    source="Karimireddy et al., ICML 2020, section 7: the gain falls with the nodes' likeness",
)
def corrections(results):
    scaffold, fed = losses(results, "passages", "SCAFFOLD", "FedAvg")
    return shown(scaffold, fed), no_higher(fed, scaffold, 0.02)


@experiment.claim(
    "t-bytes",
    "1 % of the numbers on the way up cost the Transformer at most half the progress",
    expected="EF21-SGDM's test loss falls from ln V by more than half of D-SGD's fall, pieces at random (95 %)",
)
def part_of_the_way(results):
    top = np.log(len(shared(results.select("t").values("data")[0]).words))
    few, ring_ = losses(results, "random", "EF21-SGDM, top 1 %", "D-SGD, ring")
    share = (top - few) / (top - ring_)
    return f"{shown(share)} of D-SGD's fall", lower(0.5, share)


if __name__ == "__main__":
    experiment.main()
