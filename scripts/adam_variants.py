"""Adam-mini, Adafactor, Sophia: what do they save over AdamW, and what do they cost?   Course task B1.

LeNet-5 at equal budgets, each method at the best of its rates, chosen by the loss of held-out rows. Published: Adam-
mini equals AdamW with half of its state, one second moment for each block of weights (Zhang et al. 2024); Adafactor
keeps a row and a column of the second moment (Shazeer & Stern 2018); Sophia clips m / (rho h), h a Hessian diagonal,
and reaches AdamW's loss in half the steps, on language models (Liu et al. 2024). Nobody seems to have published the
last two on such networks: the hypotheses are Adam-mini as good as AdamW, Sophia not better by more than noise. On
ResNet-18 they are part c of `resnet18`.

State and peak memory are counted on all 11,173,962 parameters of ResNet-18; the times of the steps are interleaved,
and Sophia's, amortised over the ten steps that share an estimate, holds its second gradient. At every rate all
methods shrink x by 1 - 5e-5 a step before the cosine (momentum SGD by an l2).

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 20 minutes.
"""

import copy
import itertools
import time
import tracemalloc
from types import SimpleNamespace

from figures.adam_variants import EVERY, album, seconds
from lab import Entry, Experiment, Option, Part, Recipe
from lab.claims import alike, decided, inside, larger, listed, no_larger, spread, spreads
from lab.methods import arrays
from lab.options import whole
from lab.results import finer
from lab.verdicts import lower, together, within
from nn.networks import resnet18
from npopt import Adafactor, AdamMini, AdamW, Cosine, HeavyBall, Minibatch, RandomReshuffling, SophiaG, Stop, backend
from npopt.backend.allocator import pool, spaces
from problems.classifiers import lenet, resnet

import numpy as np

experiment = Experiment(
    __doc__,
    task="B1",
    source="Zhang et al. 2024, arXiv:2406.16793; Shazeer & Stern, ICML 2018; Liu et al., ICLR 2024",
    parts={
        "a": Part("LeNet-5: six methods, their rates a factor 3 apart", "digits", "mnist"),
        "b": Part("memory and time of a step, all of ResNet-18", "digits", "cifar-10-jpeg"),
        "c": Part("how many coordinates Sophia does not clip", "digits", "mnist"),
    },
    options=[Option("--width", type=whole(1, "width"), help="channels of the first stage in part b (default: 64)")],
    seeds=5,
    figures=album,
)

BY = "validation_loss"
FACTORS = (1 / 3, 1, 3)
SHRINK = 5e-5  # of x a step, before the cosine
HALF = "Sophia-G in half"  # of the epochs, with a cosine of that length
KINDS = {"AdamW": AdamW, "Adam-mini": AdamMini, "Adafactor": Adafactor, "Sophia-G": SophiaG, HALF: SophiaG}
BASES = {"momentum SGD": 0.02, "Adafactor": 0.06}  # the middles of the grids of part a; the others: 2e-3
RHOS = (0.04, 0.4, 4.0, 40.0)
BYTES = {"momentum SGD": 4, "AdamW": 8, "Adam-mini": 4, "Adafactor": 0, "Sophia-G": 8}
LIKE = 4  # bytes of a vector like x, a parameter


# ---------------------------------------------------------------------------------------------------- own functions
def optimizer_of(method, lr=1e-3):
    """The method with the decay a step of all."""
    return HeavyBall(0.9) if method == "momentum SGD" else KINDS[method](weight_decay=SHRINK / lr)


class Stand:
    """All parameters of ResNet-18, a gradient, and the oracle that Sophia asks, which takes no time."""

    def __init__(self, seed):
        self.problem = SimpleNamespace(segments=resnet18().segments)
        self.seed, rng = seed, np.random.default_rng(seed)
        self.x, self.g = (rng.standard_normal(self.problem.segments.dim).astype("float32") for _ in range(2))

    def sampled(self, x, out, key):
        out[...] = self.g
        return 1


def memory(seed, events, optimizer):
    """A parameter: bytes of state, second moments, and the most bytes that are held beside x and g in twelve steps,
    two of them with Sophia's estimate."""
    stand, optimizer, first = Stand(seed), copy.deepcopy(optimizer), copy.deepcopy(optimizer)
    n = stand.x.size
    first.start(stand.x, stand)
    first.step(stand.x, stand.g, 1e-4)  # compiles
    del first
    pool.release()
    spaces.free.clear()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    optimizer.start(stand.x, stand)
    for _ in range(EVERY + 2):
        optimizer.step(stand.x, stand.g, 1e-4)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    kept = arrays(optimizer.state())
    second = sum(a.size for name, a in kept if name != "m")
    return {"bytes": [sum(a.nbytes for _, a in kept) / n], "peak": [peak / n], "moments": [second / n]}


def timed(function, *arguments):
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


def steps(seed, events, optimizers, rounds):
    """Seconds of single updates, a column for each of the optimizers, which take turns."""
    stands = {name: Stand(seed) for name in optimizers}
    optimizers, columns = copy.deepcopy(optimizers), {name: [] for name in optimizers}
    for name, optimizer in optimizers.items():
        optimizer.start(stands[name].x, stands[name])
        optimizer.step(stands[name].x, stands[name].g, 1e-4)
        optimizer.every = rounds + 2  # estimates are gradients: see below
    for _ in range(rounds):
        for name, optimizer in optimizers.items():
            columns[name].append(timed(optimizer.step, stands[name].x, stands[name].g, 1e-4))
    return columns


def gradients(seed, events, data, width, batch, rounds):
    """Seconds of a gradient of ResNet-18, and of one with drawn labels, as Sophia-G takes, in turns."""
    problem = resnet(data, width=width)
    rows, x = np.arange(batch), problem.x0(backend.generator(seed, "x0"))
    g, columns = backend.zeros(x.shape, x.dtype), {"gradient": [], "sampled": []}
    for k in range(rounds + 1):
        problem.begin(k)
        pair = (
            timed(problem.value_and_gradient, x, rows, None, g),
            timed(problem.sampled_gradient, x, rows, g, backend.key(seed, "labels", k)),
        )
        for name, took in zip(columns, pair, strict=True):
            columns[name] += [took] * (k > 0)
    return columns


def unclipped(seed, events, data, rows, rho, epochs):
    """Sophia-G at its customary rate on LeNet-5: the share of coordinates with |m| < rho h, every tenth of an epoch."""
    problem, optimizer, estimator = lenet(data, rows=rows), SophiaG(rho=rho), Minibatch()
    sampler, columns = RandomReshuffling(64), {"epoch": [], "share": []}
    problem.set_seed(seed)
    x = problem.x0(backend.generator(seed, "x0"))
    sampler.start(problem, seed)
    g = estimator.start(problem, x, seed)
    optimizer.start(x, estimator)
    steps = -(-problem.n // 64)
    for t, batch in enumerate(sampler.take(epochs * steps)):
        problem.begin(t)
        estimator.loss = estimator(x, batch, out=g)
        optimizer.step(x, g, 1e-3)
        problem.commit()
        if t % max(1, steps // 10) == 0:
            m, h = (backend.to_host(optimizer.slot(name)) for name in ("m", "h"))
            columns["epoch"].append(t / steps)
            columns["share"].append(float((np.abs(m) < rho * h).mean()))
    return columns


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    rows, test_rows, sampler = args.pick(12_000, 600), args.pick(None, 2000), RandomReshuffling(64)
    for data in args.data_of("a"):
        for method in ("momentum SGD", *KINDS):
            length = dict(stop=Stop(epochs=args.budget(3, 2) / (2 if method == HALF else 1)), metrics=0.5)
            base = BASES.get(method, 2e-3)
            for lr in finer([base * k for k in args.pick(FACTORS, FACTORS[1:2])], found, "a", method=method):
                l2 = SHRINK * (1 - 0.9) / lr if method == "momentum SGD" else 0.0
                problem = Recipe(lenet, data=data, rows=rows, validation=1 / 12, l2=l2, test_rows=test_rows)
                optimizer, schedule = optimizer_of(method, lr), Cosine(lr)
                yield Entry("a", problem, optimizer, sampler, schedule, method=method, lr=lr, **length)
    some = args.pick(tuple(BYTES), ("AdamW", "Adam-mini", "Sophia-G"))
    optimizers = {method: optimizer_of(method) for method in some}
    sizes = dict(width=args.width or args.pick(64, 8), rounds=args.pick(9, 3), batch=args.pick(128, 32))
    for data in args.data_of("b"):
        for method, optimizer in optimizers.items():
            yield Entry("b", run=Recipe(memory, optimizer=optimizer), seeds=[0], what="memory", method=method)
        yield Entry("b", run=Recipe(steps, optimizers=optimizers, rounds=args.pick(41, 3)), seeds=[0], what="steps")
        yield Entry("b", run=Recipe(gradients, data=data, **sizes), seeds=[0], what="gradients")
    for data in args.data_of("c"):
        for rho in RHOS:
            run = Recipe(unclipped, data=data, rows=args.pick(12_000, 300), rho=rho, epochs=args.pick(3, 2))
            yield Entry("c", run=run, rho=rho)


# ----------------------------------------------------------------------------------------------------------- claims
experiment.claim(
    "a-edge",
    "LeNet-5: the rates are wide enough",
    expected="the best rate is inside its grid, always",
    source="tuning of this script",
)(inside("a", BY))

experiment.claim(
    "a-mini",
    "LeNet-5: Adam-mini ends as AdamW does",
    source="hypothesis",
    expected="test accuracies within 0.2 points (95 %); false where they are farther apart",
)(alike("a", "Adam-mini", "AdamW", "test_accuracy", 0.002, by=BY))

experiment.claim(
    "a-sophia",
    "LeNet-5: Sophia-G is not better than AdamW",
    source="hypothesis",
    expected="test accuracy not above AdamW's by more than 0.2 points (95 %); false where it is",
)(no_larger("a", "Sophia-G", "AdamW", "test_accuracy", 0.002, BY))

experiment.claim(
    "a-adafactor",
    "LeNet-5: AdamW ends above Adafactor",
    source="hypothesis",
    expected="test accuracy above (95 %); false where it is below, or alike to 0.2 points",
)(larger("a", "AdamW", "Adafactor", "test_accuracy", BY, 0.002))


@experiment.claim(
    "a-half",
    "LeNet-5: Sophia-G reaches AdamW's last training loss in half of the steps",
    expected="its loss after half of the steps, with a cosine of that length, at most 1.05 times AdamW's (95 % of the "
    "log); false where it is higher",
    source="Liu et al. 2024, of language models",
)
def a_half(results):
    ends = results.select("a", method=(HALF, "AdamW")).at_best(by=BY).finals("train_loss")
    apart = np.log(ends[HALF] / ends["AdamW"])
    return decided(spreads({m: ends[m] for m in (HALF, "AdamW")}), within(apart, high=np.log(1.05)))


@experiment.claim(
    "b-state",
    "bytes of state a parameter, float32",
    expected=listed(BYTES) + "; to 1 % (0: below 0.1)",
    source="definitions of the methods",
)
def b_state(results):
    found = results.select("b", what="memory").means("bytes")
    wanted = {m: BYTES[m] for m in found}
    return listed(found), all(abs(found[m] / b - 1) < 0.01 if b else found[m] < 0.1 for m, b in wanted.items())


@experiment.claim(
    "b-peak",
    "at its peak a step holds the state and at most one more vector like x",
    expected="peak - state at most 4.1 bytes a parameter; false where a method needs more",
    source="Sophia's second gradient, Adafactor's direction",
)
def b_peak(results):
    some = results.select("b", what="memory")
    peak, state = some.means("peak"), some.means("bytes")
    return listed(peak), all(peak[m] - state[m] <= LIKE + 0.1 for m in peak)


@experiment.claim(
    "b-moments",
    "Adam-mini does away with 99.9 % of the second moments",
    expected="second moments / parameters < 1e-3 (here: blocks are convolutions, rows of the last layer, biases alone)",
    source="Zhang et al. 2024, abstract",
)
def b_moments(results):
    found = float(results.select("b", what="memory", method="Adam-mini")[0].final["moments"])
    return f"{found:.2g}", found < 1e-3


@experiment.claim(
    "b-time",
    "an update of Adam-mini takes no longer than one of AdamW",
    expected="at most 1.05 times (95 % of the log over rounds, in turns); false where longer",
    source="it moves 4 bytes a parameter less, but takes norms",
)
def b_time(results):
    found = seconds(results, "steps")
    text = listed({m: f"{1000 * np.median(v):.1f} ms" for m, v in found.items()})
    return decided(text, within(np.log(found["Adam-mini"] / found["AdamW"]), high=np.log(1.05)))


@experiment.claim(
    "b-estimate",
    "Sophia-G's second gradient, every ten steps, costs a tenth of a gradient",
    expected="9 to 11 % of a gradient a step (95 % over rounds)",
    source="Liu et al. 2024 say 5 %, for the gradient of a part of the batch",
)
def b_estimate(results):
    found = seconds(results, "gradients")
    values = 100 * found["sampled"] / found["gradient"] / EVERY
    return decided(f"{spread(values, 3).split(' (')[0]} % ({len(values)} rounds)", within(values, 9, 11))


@experiment.claim(
    "c-rho",
    "the share that is not clipped grows with rho",
    expected="from each rho to the next (95 %), at the end; false where it falls",
)
def c_rho(results):
    found = results.select("c").finals("share", "rho")
    return (
        listed({f"{rho:g}:": v.mean() for rho, v in found.items()}),
        together(lower(a, b) for a, b in itertools.pairwise(found.values())),
    )


@experiment.claim(
    "c-health",
    "at rho = 0.04, between a tenth and a half of the coordinates are not clipped",
    expected="mean share over the second half in 0.1 to 0.5 (95 %)",
    source="the authors' advice for tuning rho",
)
def c_health(results):
    found = {f"rho {rho:g}": runs.late("share") for rho, runs in results.select("c").groups("rho")}
    return decided(spreads(found), within(found["rho 0.04"], 0.1, 0.5))


if __name__ == "__main__":
    experiment.main()
