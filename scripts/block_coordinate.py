"""Fine-tuning a few blocks at a time: what do BAdam and LISA save, and what do they cost?   Course task B3.

An encoder of six layers learns from 1,000 sentences whether they praise a film, 120 steps of 16 with warm-up and
linear decay. AdamW moves all of it; LISA embedding, head and two layers drawn anew every 10 steps; BAdam the head and
one layer, in a random order; LoRA the head and adapters of rank 8; and the head alone. Rates are tuned alike, by the
loss of held-out texts, with one seed; the best is run with three.

BAdam is said to end within a point of full fine-tuning (Luo et al. 2024), LISA beside it (Pan et al. 2024), and a
period without end is said to hurt. Memory is 16 bytes a parameter and the activations for AdamW in float32. A block
method keeps gradient and state for the blocks at hand, and activations above the lowest of them alone. LISA's embedding
is the lowest of all, so its activations are those of the whole. Part m measures it; part c sets seven orders side by
side.

--weights FOLDER takes a BertModel such as MiniLM-L6; without it the encoder is one that has filled gaps here.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 --weights FOLDER about an hour.
"""

from figures.block_coordinate import NEVER, ORDERS, album, ways_of
from lab import Entry, Experiment, MissingRuns, Option, Part, Recipe
from lab.account import KINDS, account_of
from lab.claims import decided, inside, listed, spreads
from lab.verdicts import close, lower
from nn import LoRA
from npopt import AdamW, BlockGradient, Blockwise, Layerwise, Linear, Minibatch, RandomReshuffling, Stop, WithWarmup
from npopt.errors import UserError
from problems.encoders import finetuned, weights_in

import numpy as np

experiment = Experiment(
    __doc__,
    task="B3",
    source="Luo, Yu & Li, NeurIPS 2024, arXiv:2404.02827; Pan et al., NeurIPS 2024, arXiv:2403.17919",
    parts={
        "a": Part("all of it, some blocks, the head", "opinions", "sst2-socher"),
        "b": Part("rates and periods", "opinions", "sst2-socher"),
        "c": Part("orders of blocks", "opinions", "sst2-socher"),
        "m": Part("memory of a step", "opinions", "sst2-socher"),
    },
    options=[Option("--weights", metavar="FOLDER", help="of a published BertModel, in place of the learned encoder")],
    seeds=3,
    quick_seeds=1,
    figures=album,
)

BESIDE = {"sst2-socher": "goemotions", "opinions": "moods"}
BATCH, PERIOD, DECAY = 16, 10, 0.01
RATES = {"AdamW": (3e-5, 1e-4, 3e-4, 1e-3), "LISA": (1e-4, 3e-4, 1e-3, 3e-3), "BAdam": (1e-4, 3e-4, 1e-3, 3e-3),
         "LoRA": (3e-4, 1e-3, 3e-3, 1e-2), "head": (1e-3, 3e-3, 1e-2, 3e-2)}  # fmt: skip
WHOLE = ("AdamW", "LoRA")  # methods that move all they have in each step
PERIODS = (2, PERIOD, 20)
HEAD = ["pooler", "head"]  # begins with random numbers, and is always moved


# ------------------------------------------------------------------------------------------------------------- grid
def size_of(args):
    """What the encoder is, and how long it fills gaps."""
    if args.quick:
        return dict(size=400, length=16, features=32, layers=2, heads=2, rate=3e-3, passes=1)
    return dict(size=2000, length=32, features=64, layers=6, heads=4, rate=1e-3, passes=1)


def options_of(data, args, method=None):
    """The arguments of `finetuned`."""
    if data not in BESIDE:
        raise UserError(f"block_coordinate: --data is one of {', '.join(BESIDE)}; got {data!r}")
    start = weights_in(args.weights) if args.weights else "learned"
    some = dict(rows=args.pick(1000, 96), held=args.pick(400, 40), test_rows=args.pick(1000, 40), moved=True)
    some |= dict(adapters=(LoRA, {"rank": 8, "alpha": 16.0}), alone=True) if method == "LoRA" else {}
    return dict(data=data, beside=BESIDE[data], start=start) | some | size_of(args)


def layers_of(args):
    return [f"encoder.layer{i}" for i in range(1, (2 if args.quick else 6) + 1)]


def estimator_of(method, args, period=PERIOD, order="random", **more):
    """What is moved when."""
    if method in WHOLE:
        return Minibatch()
    if method == "LISA":
        return BlockGradient(period, "uniform", 2, ["encoder", *HEAD])
    if method == "head":
        return BlockGradient(1, size=0, always=HEAD, never=["encoder", *layers_of(args)])
    return BlockGradient(period, order, 1, HEAD, ["encoder"], **more)


def optimizer_of(method):
    return AdamW(weight_decay=DECAY) if method in WHOLE else Blockwise(AdamW(weight_decay=DECAY))


def entry(part, data, args, method, lr, estimator, **tags):
    steps = args.pick(120, 12)
    problem = Recipe(finetuned, **options_of(data, args, method))
    return Entry(part, problem, optimizer_of(method), RandomReshuffling(BATCH),
                 WithWarmup(Linear(lr), steps // 10), estimator=estimator, stop=Stop(steps=steps),
                 metrics=args.pick(30, 6), per="step", keep=False, method=method, lr=lr, **tags)  # fmt: skip


def best_rate(found, args, part="a", **tags):
    """The rate that held-out texts choose with the first seed; None before it is known."""
    if args.quick:
        return RATES[tags["method"]][2]
    try:
        return found.select(part, stage="grid", **tags).tuned()[tags["method"]].value
    except (AttributeError, MissingRuns):
        return None


def staged(part, data, args, found, method, rates, estimator, **tags):
    """A grid of rates with one seed, and the best of them with all."""
    for lr in args.pick(rates, ()):
        yield entry(part, data, args, method, lr, estimator, seeds=args.seeds[:1], stage="grid", **tags)
    best = best_rate(found, args, part, method=method, **tags)
    if best:
        yield entry(part, data, args, method, best, estimator, stage="chosen", **tags)


def accounted(seed, events, optimizer, estimator, **options):
    """Bytes by kind of a step: "counted weights", "measured weights", ..."""
    found = account_of(lambda: finetuned(**options), optimizer, RandomReshuffling(BATCH), estimator, seed=seed)
    return {f"measured {kind}": [count] for kind, count in found.measured.items()} | {
        f"counted {kind}": [np.nan if count is None else count] for kind, count in found.counted.items()
    }


def held_at(layer, args):
    """BAdam, with one layer at hand."""
    never = ["encoder", *(name for name in layers_of(args) if name != layer)]
    return BlockGradient(PERIOD, "ascending", 1, HEAD, never)


@experiment.runs
def runs(args, found=None):
    for data in args.data_of("a"):
        for method in RATES:
            yield from staged("a", data, args, found, method, RATES[method], estimator_of(method, args))
    for data in args.data_of("b"):
        for method in ("LISA", "BAdam"):
            for period in args.pick((*PERIODS, NEVER), (PERIOD, NEVER)):
                estimator = estimator_of(method, args, period)
                yield from staged("b", data, args, found, method, RATES[method][1:], estimator, period=period)
    for data in args.data_of("c"):
        for order in ORDERS:
            name, corrected = order.removesuffix(", 1/p"), order.endswith("1/p")
            estimator, best = estimator_of("BAdam", args, PERIOD, name, corrected=corrected), None
            if args.data_of("a"):
                best = best_rate(found, args, method="BAdam")
            if best:
                yield entry("c", data, args, "BAdam", best, estimator, order=order)
    for data in args.data_of("m"):
        cases = {"AdamW": ("AdamW", Minibatch()), "AdamW, layerwise": ("AdamW", Layerwise()),
                 **{name: (name, estimator_of(name, args)) for name in ("LISA", "LoRA", "head")}}  # fmt: skip
        cases |= {f"BAdam, {name.rpartition('.')[2]}": ("BAdam", held_at(name, args)) for name in layers_of(args)}
        for name, (method, estimator) in cases.items():
            given = dict(optimizer=optimizer_of(method), estimator=estimator)
            run = Recipe(accounted, **given, **options_of(data, args, method))
            yield Entry("m", run=run, seeds=[0], method=name)


# ----------------------------------------------------------------------------------------------------------- claims
def best(results, method, part="a"):
    """The runs of a method at the rate that was chosen."""
    return results.select(part, method=method, stage="chosen")


@experiment.claim(
    "a-edge",
    "the rates are wide enough",
    expected="the best rate is inside its grid, always",
    source="tuning of this script",
)
def a_edge(results):
    return inside("a")(results.select("a", stage="grid"))


PAPERS = {
    "BAdam": "Luo et al. 2024, section 4",
    "LISA": "Pan et al. 2024, section 5",
    "LoRA": "Hu et al. 2021, table 2",
}
for name, paper in PAPERS.items():

    @experiment.claim(
        f"a-{name.lower()}",
        f"{name} ends where full fine-tuning does",
        expected="test accuracy within 2 points of AdamW's (95 %); false where they are farther apart",
        source=paper,
    )
    def as_full(results, name=name):
        ends = {m: best(results, m).final("test_accuracy") for m in (name, "AdamW")}
        return decided(spreads(ends), close(*ends.values(), 0.02))


@experiment.claim(
    "a-head",
    "to train the head alone is worse than to move blocks",
    expected="test accuracy of BAdam at least a point above (95 %); false where it is not",
    source="the customary gap of linear probing",
)
def a_head(results):
    ends = {m: best(results, m).final("test_accuracy") for m in ("head", "BAdam")}
    return decided(spreads(ends), lower(*ends.values(), 0.01))


@experiment.claim(
    "a-where",
    "full fine-tuning moves upper layers farther than the embedding",
    expected="the last layer's way, in parts of its norm, above the embedding's (95 %); false where below",
    source="gradients of words reach rows of words that occur alone",
)
def a_where(results):
    runs = best(results, "AdamW")
    ways = {name: runs.final(name) for name in (ways_of(runs)[0], ways_of(runs)[-1])}
    return decided(spreads(ways), lower(*ways.values()))


for name in ("BAdam", "LISA"):

    @experiment.claim(
        f"b-never-{name.lower()}",
        f"{name}: to change blocks every {PERIOD} steps is better than never",
        expected="held-out loss at the best rate of each lower by 1 % or more (95 % of the log); false where it is not",
        source="Pan et al. 2024, table of K",
    )
    def never(results, name=name):
        some = results.select("b", method=name, stage="chosen")
        ends = {str(p): some.select(period=p).final("validation_loss") for p in (PERIOD, NEVER)}
        return decided(spreads(ends), lower(*(np.log(v) for v in ends.values()), 0.01))


@experiment.claim(
    "c-order",
    "the order of blocks does not matter",
    expected="test accuracy of each order within 2 points of the random one's (95 %); false where one is farther off",
    source="Luo et al. 2024, section 4.4",
)
def c_order(results):
    ends = {order: results.select("c", order=order).final("test_accuracy") for order in ORDERS}
    return decided(spreads(ends), *(close(v, ends["random"], 0.02) for name, v in ends.items() if name != "random"))


def measured(results, kind):
    return {run.tags["method"]: run.final[f"measured {kind}"] for run in results.select("m")}


@experiment.claim(
    "m-counted",
    "what is counted is what is measured",
    expected="weights, gradients, states and activations, each within 5 % of the highest point of its step",
    source="definitions",
)
def m_counted(results):
    worst = 0.0
    for run in results.select("m"):
        most = sum(run.final[f"measured {kind}"] for kind in KINDS)
        for kind in KINDS[:-1]:
            worst = max(worst, abs(run.final[f"measured {kind}"] - run.final[f"counted {kind}"]) / most)
    return f"at most {100 * worst:.2g} % apart", bool(worst <= 0.05)


@experiment.claim(
    "m-lowest",
    "BAdam keeps fewer activations the higher its layer, LISA all of them",
    expected="falling from layer to layer; LISA's those of AdamW to 1 %",
    source="the way back ends at the lowest block at hand",
)
def m_lowest(results):
    found = measured(results, "activations")
    layers = [v for name, v in found.items() if name.startswith("BAdam")]
    falls = bool((np.diff(layers) < 0).all())
    text = f"BAdam {', '.join(f'{v / 1e6:.1f}' for v in layers)}; LISA {found['LISA'] / 1e6:.1f}"
    return f"{text}, AdamW {found['AdamW'] / 1e6:.1f} MB", falls and abs(found["LISA"] / found["AdamW"] - 1) < 0.01


@experiment.claim(
    "m-layerwise",
    "AdamW needs no whole gradient",
    expected="layerwise, its gradients are at most the embedding's, and the highest point of a step is lower",
    source="GaLore, section 4.3 (per-layer updates); LOMO",
)
def m_layerwise(results):
    gradients = measured(results, "gradients")
    tops = {run.tags["method"]: sum(run.final[f"measured {kind}"] for kind in KINDS) for run in results.select("m")}
    both = ("AdamW", "AdamW, layerwise")
    text = listed({name: f"{gradients[name] / 1e6:.1f} of {tops[name] / 1e6:.1f} MB" for name in both})
    return text, bool(gradients[both[1]] < 0.75 * gradients[both[0]] and tops[both[1]] < tops[both[0]])


if __name__ == "__main__":
    experiment.main()
