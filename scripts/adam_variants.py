"""Adam-mini, Adafactor, Sophia: what do they save over AdamW, and what do they cost?   Course task B1.

LeNet-5 and ResNet-18 at equal budgets, each method at the best of its rates, chosen on held-out rows. Published:
Adam-mini equals AdamW with half of its state, one second moment for each block of weights (Zhang et al. 2024);
Adafactor keeps a row and a column of the second moment (Shazeer & Stern 2018); Sophia clips m / (rho h), h a Hessian
diagonal, and reaches AdamW's loss in half the steps, on language models (Liu et al. 2024). Nobody seems to have
published the last two on these networks: the hypotheses are Adam-mini within half a point of AdamW, Sophia not better
than AdamW by more than noise. State is counted in the arrays of the optimizer, time a step with all 11,173,962
parameters of ResNet-18, alone and as part of training at the width of the runs.

Run time on 2 cores: --quick about half a minute; --data real --jobs 2 --threads 1 about half an hour.
"""

import copy
import time
from types import SimpleNamespace

from lab import Entry, Experiment, Option, Part, Recipe
from lab.charts import tuned
from lab.claims import alike, decided, inside, larger, listed, no_larger, spreads
from lab.figures import COLOURS, below, closer, curves, panels
from lab.options import whole
from lab.results import finer
from lab.verdicts import lower, within
from nn.networks import resnet18
from npopt import (
    Adafactor,
    AdamMini,
    AdamW,
    Cosine,
    HeavyBall,
    Minibatch,
    RandomReshuffling,
    SophiaG,
    SophiaH,
    Stop,
    backend,
)
from problems.classifiers import lenet, resnet

import numpy as np

experiment = Experiment(
    __doc__,
    task="B1",
    source="Zhang et al. 2024, arXiv:2406.16793; Shazeer & Stern, ICML 2018; Liu et al., ICLR 2024",
    parts={
        "a": Part("LeNet-5: eight methods, four rates each", "digits", "mnist"),
        "b": Part("ResNet-18: five methods, five rates each", "digits", "cifar-10-jpeg"),
        "c": Part("state and time of a step, all of ResNet-18"),
        "d": Part("how many coordinates Sophia does not clip", "digits", "mnist"),
    },
    options=[
        Option("--width", type=whole(1, "width"), help="channels of ResNet-18's first stage (default: 8; full: 64)"),
        Option("--rows", type=whole(100, "rows"), help="training rows of part b, a sixth held out (default: 6000)"),
    ],
    seeds=3,
)

BY = "validation_loss"
FACTORS = (1 / 9, 1 / 3, 1, 3, 9, 27)
DECAY, L2 = 0.05, 5e-4
HALF = "Sophia-G in half"                                       # of the epochs, with a cosine of that length
METHODS = {             # optimizer and customary rate; the decay a step is one at customary rates, momentum has an l2
    "momentum SGD": (HeavyBall(0.9), 0.03), "AdamW": (AdamW(weight_decay=DECAY), 1e-3),
    "Adam-mini": (AdamMini(weight_decay=DECAY), 1e-3), "Adafactor": (Adafactor(weight_decay=DECAY / 30), 0.03),
    "Sophia-G": (SophiaG(weight_decay=DECAY), 1e-3), "Sophia-H": (SophiaH(weight_decay=DECAY), 1e-3),
    "Sophia-G, rho 4": (SophiaG(rho=4.0, weight_decay=DECAY), 1e-3),
}
METHODS[HALF] = METHODS["Sophia-G"]
SHALLOW = ("Sophia-H", "Sophia-G, rho 4", HALF)                 # on LeNet-5 alone
RHOS = (0.04, 0.4, 4.0, 40.0)
BYTES = {"momentum SGD": 4, "AdamW": 8, "Adam-mini": 4, "Adafactor": 0, "Sophia-G": 8}


# ---------------------------------------------------------------------------------------------------- own functions
def arrays(state):
    """The arrays of a nested state."""
    for value in state.values():
        if isinstance(value, dict):
            yield from arrays(value)
        elif hasattr(value, "nbytes") and getattr(value, "ndim", 0):
            yield value


def one_step(seed, events, optimizer, rounds):
    """Bytes of state a parameter, second moments a parameter, and seconds of single steps on ResNet-18's parameters."""
    segments, rng, optimizer = resnet18().segments, np.random.default_rng(seed), copy.deepcopy(optimizer)
    x, g = (rng.standard_normal(segments.dim).astype("float32") for _ in range(2))
    optimizer.start(x, SimpleNamespace(problem=SimpleNamespace(segments=segments), seed=seed))
    optimizer.every = rounds + 2                                # Sophia's estimates are gradients, not steps
    optimizer.t, seconds = 1, []
    optimizer.step(x, g, 1e-4)
    for _ in range(rounds):
        begin = time.perf_counter()
        optimizer.step(x, g, 1e-4)
        seconds.append(time.perf_counter() - begin)
    state = optimizer.state()
    held = sum(a.nbytes for a in arrays(state))
    second = sum(a.size for a in arrays({name: value for name, value in state.items() if name != "m"}))
    return {"round": list(range(rounds)), "seconds_a_step": seconds, "bytes": [held / x.size] * rounds,
            "moments": [second / x.size] * rounds}


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
    test = args.pick(None, 2000)
    for data in args.data_of("a"):
        for method, (optimizer, base) in METHODS.items():
            problem = Recipe(lenet, data=data, validation=1 / 12, test_rows=test, l2=L2 * (method == "momentum SGD"))
            epochs = args.budget(3, 3) / (2 if method == HALF else 1)
            scale = 1 / 3 if method == "momentum SGD" else 1
            rates = [base * factor * scale for factor in args.pick(FACTORS[1:5], FACTORS[2:3])]
            for lr in finer(rates, found, "a", method=method):
                yield Entry("a", problem, optimizer, RandomReshuffling(64), Cosine(lr), stop=Stop(epochs=epochs),
                            metrics=0.5, method=method, lr=lr)
    for data in args.data_of("b"):
        width, rows = args.width or args.pick(8, 4), args.rows or args.pick(6000, 600)
        for method, (optimizer, base) in METHODS.items():
            if method in SHALLOW:
                continue
            problem = Recipe(resnet, data=data, width=width, rows=rows, validation=1 / 6, test_rows=test,
                             l2=L2 if method == "momentum SGD" else 0.0)
            rates = [base * factor for factor in args.pick(FACTORS[1:], (1,))]
            for lr in finer(rates, found, "b", method=method):
                yield Entry("b", problem, optimizer, RandomReshuffling(128), Cosine(lr), method=method, lr=lr,
                            stop=Stop(epochs=args.budget(15, 4)), metrics=args.pick(3, 2))
    for method in BYTES:
        yield Entry("c", run=Recipe(one_step, optimizer=METHODS[method][0], rounds=args.pick(21, 5)), seeds=[0],
                    method=method)
    for data in args.data_of("d"):
        for rho in RHOS:
            yield Entry("d", run=Recipe(unclipped, data=data, rows=args.pick(12_000, 500), rho=rho,
                                        epochs=args.pick(3, 2)), rho=rho)


# ----------------------------------------------------------------------------------------------------------- claims
NETWORKS = {"a": "LeNet-5", "b": "ResNet-18"}

for part, network in NETWORKS.items():
    experiment.claim(f"{part}-edge", f"{network}: the rates are wide enough",
                     expected="the best rate is inside its grid, always", source="tuning of this script",
                     )(inside(part, BY))

    experiment.claim(f"{part}-mini", f"{network}: Adam-mini ends within half a point of AdamW",
                     expected="test accuracies, 95 %", source="hypothesis",
                     )(alike(part, "Adam-mini", "AdamW", "test_accuracy", 0.005, by=BY))

    experiment.claim(f"{part}-sophia", f"{network}: Sophia-G is not better than AdamW",
                     expected="test accuracy not above AdamW's by more than half a point (95 %)",
                     source="hypothesis")(no_larger(part, "Sophia-G", "AdamW", "test_accuracy", 0.005, BY))

    experiment.claim(f"{part}-adafactor", f"{network}: AdamW ends above Adafactor",
                     expected="test accuracy above (95 %); false where it is below, or alike to 0.2 points",
                     source="hypothesis")(larger(part, "AdamW", "Adafactor", "test_accuracy", BY, 0.002))


@experiment.claim("a-half", "LeNet-5: Sophia-G reaches AdamW's last training loss in half of the steps",
                  expected="its loss after half of the steps, with a cosine of that length, below AdamW's "
                  "(95 %)",
                  source="Liu et al. 2024, of language models")
def a_half(results):
    ends = results.select("a", method=(HALF, "AdamW")).at_best(by=BY).finals("train_loss")
    return decided(spreads({m: ends[m] for m in (HALF, "AdamW")}), lower(ends[HALF], ends["AdamW"]))


@experiment.claim("c-state", "bytes of state a parameter, float32", expected=listed(BYTES) + "; to 1 % (0: below 0.1)",
                  source="definitions of the methods")
def c_state(results):
    found = results.select("c").means("bytes")
    return listed(found), all(abs(found[m] / b - 1) < 0.01 if b else found[m] < 0.1 for m, b in BYTES.items())


@experiment.claim("c-moments", "Adam-mini does away with 99.9 % of the second moments",
                  expected="second moments / parameters < 1e-3 (here: blocks are convolutions, rows of the last layer, "
                  "biases alone)", source="Zhang et al. 2024, abstract")
def c_moments(results):
    found = float(results.select("c", method="Adam-mini")[0].final["moments"])
    return f"{found:.2g}", found < 1e-3


def times(results):
    """{method: median seconds of a step}"""
    return {m: float(np.median(runs[0].columns["seconds_a_step"])) for m, runs in results.select("c").groups("method")}


@experiment.claim("c-time", "a step of Adam-mini takes no longer than one of AdamW",
                  expected="ratio of the medians <= 1.05", source="it moves 4 bytes a parameter less, but takes norms")
def c_time(results):
    found = times(results)
    text = listed({m: f"{1000 * v:.1f} ms" for m, v in found.items()})
    return text, found["Adam-mini"] <= 1.05 * found["AdamW"]


def a_step(results, part):
    """{method: least seconds of a training step over its rates and seeds: what else the machine does only adds}"""
    return {method: min(run.seconds / run.final["step"] for run in runs)
            for method, runs in results.select(part).groups("method")}


@experiment.claim("b-time", "Sophia-G's second gradient, every ten steps, costs a tenth of the training time",
                  expected="training step of Sophia-G / AdamW in 1.0 to 1.2, ResNet-18",
                  source="Liu et al. 2024 say 5 %, for the gradient of a part of the batch")
def b_time(results):
    found = a_step(results, "b")
    return (listed({m: f"{1000 * v:.1f} ms" for m, v in found.items()}),
            1.0 <= found["Sophia-G"] / found["AdamW"] <= 1.2)


@experiment.claim("d-rho", "the share that is not clipped grows with rho", expected="in this order, at every seed")
def d_rho(results):
    shares = results.select("d").finals("share", "rho")
    return (listed({rho: v.mean() for rho, v in shares.items()}),
            bool((np.diff(list(shares.values()), axis=0) > 0).all()))


@experiment.claim("d-health", "at rho = 0.04, between a tenth and a half of the coordinates are not clipped",
                  expected="mean share over the second half in 0.1 to 0.5 (95 %)",
                  source="the authors' advice for tuning rho")
def d_health(results):
    found = {f"rho {rho:g}": runs.late("share") for rho, runs in results.select("d").groups("rho")}
    return decided(spreads(found), within(found["rho 0.04"], 0.1, 0.5))


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("lenet.png", caption="LeNet-5, batch size 64, cosine, each method at its best rate: training loss, "
                   "test error, and loss of held-out rows against the rate.")
def lenet_figure(results):
    return tuned(results.select("a"))


@experiment.figure("resnet.png", caption="ResNet-18 at reduced width on part of the training set, batch size 128, "
                   "cosine, each method at its best rate.")
def resnet_figure(results):
    return tuned(results.select("b"))


@experiment.figure("time.png", caption="ResNet-18: training loss by step and by the time of the steps, each method at "
                   "its best rate.")
def time_figure(results):
    some = results.select("b").at_best(by=BY)
    figure, axes = panels(1, 2)
    for ax, x in zip(axes, ("step", "seconds"), strict=True):
        curves(ax, some, "train_loss", x, legend=x == "step", ylabel="training loss")
        closer(ax, some, "train_loss", 0.05, 0.05)
    return figure


@experiment.figure("cost.png", caption="All 11,173,962 parameters of ResNet-18: bytes of optimizer state a parameter, "
                   "and the time of a step (median, bars: quartiles).")
def cost_figure(results):
    figure, (left, right) = panels(1, 2)
    for i, m in enumerate(BYTES):
        run = results.select("c", method=m)[0]
        held, seconds = run.final["bytes"], 1000 * np.asarray(run.columns["seconds_a_step"])
        left.barh(i, held, color=COLOURS[i])
        left.text(held + 0.1, i, f"{held:.3g}", va="center")
        low, middle, high = np.percentile(seconds, (25, 50, 75))
        right.barh(i, middle, color=COLOURS[i], xerr=[[middle - low], [high - middle]])
    for ax, label in ((left, "state [bytes a parameter]"), (right, "time of a step [ms]")):
        ax.set_yticks(range(len(BYTES)), list(BYTES))
        ax.invert_yaxis()
        ax.set_xlabel(label)
    left.set_xlim(0, 9.5)
    return figure


@experiment.figure("clipping.png", caption="Sophia-G on LeNet-5: the share of coordinates whose step is not clipped, "
                   "by rho (bands: seeds). Grey: where the authors want it.")
def clipping_figure(results):
    figure, ax = panels()
    ax.axhspan(0.1, 0.5, color="#DDDDDD", zorder=0)
    curves(ax, results.select("d"), "share", ylabel="share of coordinates not clipped", logy=True, legend=False)
    ax.set_ylim(1e-5, 1)
    return below(figure, ax, 4)


if __name__ == "__main__":
    experiment.main()
