"""Does half precision work, what does it save, and what must stay float32?   Course tasks A7, B2; Micikevicius et al.

Activations and their slopes are float16, bfloat16 or (as an outlook) float8; weights, their gradients, the optimizer's
state, statistics and the loss stay float32. On a CPU the numbers are exact, but imitated: time is a GPU's matter.

Predictions, written before the runs. (1) What trains in float32 trains alike in bfloat16 and in float16 with a loss
scale: test accuracy to a point. Without a scale small networks do, too: their slopes are 1e-3 to 1e-5. (2) If the loss
is divided by 2^18 and the rate multiplied by it, float32 makes the same steps; float16 loses the slopes, unless the
loss is scaled. (3) Without float32 master weights bfloat16 loses every update below 2^-9 |w|; rounding at random keeps
their mean. (4) Batch norm with float16 sums is wrong by orders: a sum of 100,000 ones is 2048. (5) Between the passes
activations take half the bytes, all else stays, 16 bytes a parameter with Adam: what is saved grows with the batch.
(6) From 2^16 the scale finds its size within five skipped steps; less than 3 % are skipped later. (7) Of numbers of
N(0, s^2) float16 rounds 0.2, 2.4, 23 and 99.7 % to zero at s = 1e-5, ..., 1e-8.

Part b is GPT-2 small's shape with the 10,000 words of the Penn treebank, 100.5 million parameters: a few steps on a CPU
(300 on a GPU). That it converges is shown on the small one of part t. ResNet-18 has width 8 and sees 7,680 pictures.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 40 minutes.
"""

import itertools

from figures.mixed_precision import BATCHES, FORMATS, accounted, album, alike, ends, measured, one, whole_run
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, listed, spreads
from lab.mixed import memory, pictures, scales, slopes, text, vanishing
from lab.verdicts import close, lower, within
from npopt import AdamW, HeavyBall, LossScaled, Minibatch, RandomReshuffling, Rounded, Stop, backend

import numpy as np

experiment = Experiment(
    __doc__,
    task="A7, B2",
    source="Micikevicius et al., ICLR 2018, arXiv:1710.03740; Kalamkar et al. 2019, arXiv:1905.12322",
    parts={
        "a": Part("LeNet-5 and an MLP, over batch sizes", "digits", "mnist"),
        "r": Part("ResNet-18", "digits", "cifar-10-jpeg"),
        "t": Part("a small GPT", "chain", "tinyshakespeare"),
        "w": Part("what must stay float32, and small slopes", "digits", "mnist"),
        "m": Part("memory by kind", "digits", "mnist"),
        "b": Part("memory by kind: a Transformer of 100 million parameters", "chain", "ptb"),
        "h": Part("which slopes float16 can hold", "digits", "mnist"),
        "l": Part("the loss scale by steps", "digits", "mnist"),
    },
    seeds=3,
    quick_seeds=1,
    figures=album,
)

BY, S0, MARGIN = 2.0**18, 65536.0, 0.01  # what part w divides the loss by; the first scale; of test accuracies


# ------------------------------------------------------------------------------------------------------------- grid
def method_of(name):
    """(compute, estimator) of a format's name."""
    kind, _, scaled = name.partition(", ")
    return None if kind == "float32" else kind, LossScaled(S0, interval=200) if scaled else Minibatch()


def images(data, args, network, name, **more):
    compute, estimator = method_of(name)
    size = dict(rows=args.pick(None, 200), test_rows=args.pick(2000, 100))
    size |= dict(rows=args.pick(10_000, 200), width=args.pick(8, 4)) if network == "ResNet-18" else {}
    return Recipe(pictures, data=data, network=network, compute=compute, **size, **more), estimator


def trained(part, problem, estimator, count, rows, lr, optimizer=None, looks=10, **tags):
    length = dict(stop=Stop(steps=count), metrics=max(1, count // looks), per="step")
    method = optimizer or HeavyBall(0.9), RandomReshuffling(rows)
    return Entry(part, problem, *method, lr, estimator=estimator, keep=False, **length, **tags)


def training(args):
    """Parts a, r and t."""
    for data, network, batch in itertools.product(args.data_of("a"), ("MLP", "LeNet-5"), args.pick(BATCHES, (32,))):
        for name in FORMATS if batch == 128 else FORMATS[:4]:
            problem, estimator = images(data, args, network, name)
            steps = args.pick((102_400 if network == "MLP" else 51_200) // batch, 10)
            tags = dict(network=network, batch=batch, format=name)
            yield trained("a", problem, estimator, steps, batch, 0.02 * batch / 128, looks=4, **tags)
    for data, name in itertools.product(args.data_of("r"), FORMATS[:4]):
        problem, estimator = images(data, args, "ResNet-18", name)
        yield trained("r", problem, estimator, args.pick(120, 4), args.pick(64, 32), 0.05, looks=2, format=name)
    for data, name in itertools.product(args.data_of("t"), FORMATS[:4]):
        compute, estimator = method_of(name)
        size = dict(length=args.pick(64, 32), features=64, layers=args.pick(2, 1), heads=4, held=args.pick(16_384, 256))
        problem = Recipe(text, data=data, compute=compute, **size, tokens=args.pick(None, 4000))
        yield trained("t", problem, estimator, args.pick(300, 4), 16, 2e-3, AdamW(), format=name)


def wrong(args):
    """Part w: no master weights, float16 statistics, a loss divided by BY."""
    steps, batch = args.pick(600, 10), args.pick(128, 32)
    for data in args.data_of("w"):

        def entry(study, method, network, name, optimizer=None, lr=0.02, data=data, **more):
            problem, estimator = images(data, args, network, name, **more)
            tags = dict(study=study, method=method)
            return trained("w", problem, estimator, steps, batch, lr, optimizer, **tags)

        small = dict(network="LeNet-5", lr=1e-3)  # late in training rates are small
        yield entry("masters", "float32 weights", name="bfloat16", **small)
        yield entry("masters", "bfloat16", name="bfloat16", optimizer=Rounded(HeavyBall(0.9), "bfloat16"), **small)
        drawn = Rounded(HeavyBall(0.9), "bfloat16", stochastic=True)
        yield entry("masters", "bfloat16, drawn", name="bfloat16", optimizer=drawn, **small)
        for half in (False, True):
            yield entry("statistics", "float16" if half else "float32", "CNN", "float16, scaled", half=half)
        for name in ("float32", "float16", "float16, scaled"):
            yield entry("small slopes", name, "LeNet-5", name, lr=0.02 * BY, divided=BY)


def weighed(args):
    """Parts m and b."""
    for data, network in itertools.product(args.data_of("m"), ("LeNet-5", "CNN")):
        for batch, compute in itertools.product(args.pick(BATCHES, (32,)), (None, "float16", "bfloat16")):
            given = dict(data=data, network=network, compute=compute, rows=args.pick(4000, 200))
            run = Recipe(memory, build=pictures, arguments=given, optimizer=AdamW(), batch=batch, lr=1e-3, steps=3)
            yield Entry("m", run=run, seeds=[0], network=network, batch=batch, format=compute or "float32")
    for data in args.data_of("b"):
        size = args.pick(dict(features=768, layers=12, heads=12), dict(features=32, layers=1, heads=2))
        size |= dict(length=64, tied=False, held=0, tokens=args.pick(None, 4000))
        steps = args.pick(300 if backend.device() == "gpu" else 3, 2)
        for batch, compute in itertools.product(args.pick((2, 4), (2,)), (None, "float16", "bfloat16")):
            given = dict(data=data, compute=compute, **size)
            run = Recipe(memory, build=text, arguments=given, optimizer=AdamW(), batch=batch, lr=1e-4, steps=steps)
            yield Entry("b", run=run, seeds=[0], batch=batch, format=compute or "float32")


@experiment.runs
def runs(args):
    yield from training(args)
    yield from wrong(args)
    yield from weighed(args)
    for data in args.data_of("h"):
        for steps in args.pick((0, 600), (0, 5)):
            given = dict(data=data, network="LeNet-5", rows=args.pick(None, 400))
            more = dict(optimizer=HeavyBall(0.9), batch=args.pick(128, 32), lr=0.02, steps=steps, scale=S0)
            run = Recipe(slopes, build=pictures, arguments=given, **more)
            yield Entry("h", run=run, network="LeNet-5", after=steps)
        run = Recipe(vanishing, sizes=(1e-5, 1e-6, 1e-7, 1e-8), scale=S0, count=1_000_000)
        yield Entry("h", run=run, seeds=[0], after="law")
    for data, interval in itertools.product(args.data_of("l"), (50, 200)):
        given = dict(data=data, network="LeNet-5", compute="float16", rows=args.pick(None, 400))
        more = dict(optimizer=HeavyBall(0.9), batch=args.pick(128, 32), lr=0.02, steps=args.pick(300, 12))
        run = Recipe(scales, build=pictures, arguments=given, estimator=LossScaled(S0, interval=interval), **more)
        yield Entry("l", run=run, interval=interval)


# ----------------------------------------------------------------------------------------------------------- claims
for id, network in (("a-lenet", "LeNet-5"), ("a-mlp", "MLP")):

    @experiment.claim(
        id,
        f"{network}: bfloat16, and float16 with and without a scale, end where float32 does, at every batch size",
        expected=f"test accuracy within {100 * MARGIN:g} point of float32's (95 %, paired), batches of 32, 128, 512",
        source="Micikevicius et al., table 1: networks without tiny slopes need no scale",
    )
    def a_alike(results, args, network=network):
        whole_run(args)
        text, verdicts = {}, []
        for batch in BATCHES:
            found, more = alike(results, "a", MARGIN, "test_accuracy", network=network, batch=batch)
            text |= {f"{name} at {batch}:": f"{100 * v.mean():+.2f}" for name, v in found.items()}
            verdicts += more
        return decided(f"{listed(text)} points", *verdicts)


@experiment.claim(
    "a-float8",
    "outlook: float8 activations with a scale lose accuracy, but train",
    expected="LeNet-5 at 128, e4m3 and e5m2: above 90 %, and below float32 (95 %)",
    source="Micikevicius et al. 2022, arXiv:2209.05433: float8 needs a scale for each array",
)
def a_float8(results, args):
    whole_run(args)
    some = results.select("a", network="LeNet-5", batch=128)
    exact = some.select(format="float32").final("test_accuracy")
    found = {name: some.select(format=name).final("test_accuracy") for name in FORMATS[4:]}
    text = spreads({name: 100 * a for name, a in found.items()}, "%")
    return decided(text, *[v for a in found.values() for v in (within(a, 0.9), lower(a, exact))])


for id, part, column, margin, what in (
    ("r-alike", "r", "test_accuracy", 0.03, "ResNet-18: test accuracy within 3 points of float32's (95 %, paired)"),
    ("t-alike", "t", "test_loss", 0.02, "test loss within 0.02 nats of float32's (95 %, paired)"),
):

    @experiment.claim(
        id,
        f"part {part}: bfloat16, and float16 with and without a scale, end where float32 does",
        expected=what,
        source="Micikevicius et al., tables 1 and 3",
    )
    def end_alike(results, args, part=part, column=column, margin=margin):
        whole_run(args)
        found, verdicts = alike(results, part, margin, column)
        return decided(listed({f"{name}:": f"{v.mean():+.4f}" for name, v in found.items()}), *verdicts)


@experiment.claim(
    "w-masters",
    "without float32 master weights bfloat16 stands still; rounded at random it does not",
    expected="training loss at the end: nearest at least 1.5 times float32 weights', drawn below nearest (95 %)",
    source="Micikevicius et al., section 3.1; Gupta et al., ICML 2015",
)
def w_masters(results, args):
    whole_run(args)
    found = ends(results, "masters")
    nearest, drawn, exact = found["bfloat16"], found["bfloat16, drawn"], found["float32 weights"]
    return decided(spreads(found), lower(1.5 * exact, nearest), lower(drawn, nearest))


@experiment.claim(
    "w-statistics",
    "with float16 statistics batch norm fails",
    expected="training loss at the end at least 1.5 times that with float32 statistics (95 %), or not finite",
    source="sums of 10^5 ones stand still at 2048",
)
def w_statistics(results, args):
    whole_run(args)
    found = ends(results, "statistics")
    gone = not np.isfinite(found["float16"]).any()
    return decided(spreads(found), gone or lower(1.5 * found["float32"], found["float16"]))


@experiment.claim(
    "w-slopes",
    f"with the loss divided by 2^{int(np.log2(BY))} float16 loses its slopes; a scale restores them",
    expected="training loss at the end: without a scale above 2 (chance 2.3), with one within 0.05 of float32's (95 %)",
    source="Micikevicius et al., section 3.2",
)
def w_slopes(results, args):
    whole_run(args)
    found = ends(results, "small slopes")
    return decided(spreads(found), within(found["float16"], 2), close(found["float16, scaled"], found["float32"], 0.05))


for id, part in (("m-account", "m"), ("b-account", "b")):
    experiment.claim(
        id,
        f"part {part}: the bytes of the arrays, kind by kind, are the bytes in use between the passes",
        expected="their sum within 5 % of what is measured, in every run",
        source="task A7",
    )(lambda results, part=part: accounted(results, part))


@experiment.claim(
    "m-half",
    "in two bytes activations take half the memory",
    expected="float16 and bfloat16, all networks and batches: 0.45 to 0.65 of float32's bytes (inputs, logits, "
    "statistics and pooling's places stay)",
    source="two bytes in place of four",
)
def m_half(results):
    found = {}
    for part, network in (("m", "LeNet-5"), ("m", "CNN"), ("b", None)):
        some = results.select(part) if network is None else results.select(part, network=network)
        for run in some.select(format=lambda f: f != "float32"):
            exact = one(some, format="float32", batch=run.tags["batch"])
            found.setdefault(network or "GPT", []).append(run.final["activations"] / exact.final["activations"])
    text = listed({f"{name}:": f"{min(v):.3f} to {max(v):.3f}" for name, v in found.items()})
    return text, all(0.45 <= v <= 0.65 for values in found.values() for v in values)


@experiment.claim(
    "b-bytes",
    "a Transformer of at least 100 million parameters: 16 bytes a parameter stay float32, so little is saved in all",
    expected="parameters >= 1e8; weights, gradient and state 16 bytes each (to 0.001); the rest less than a third of "
    "all bytes at 2 rows of 64 words, and float16 saves more at 4 rows than at 2",
    source="4 + 4 + 8 bytes with Adam",
)
def b_bytes(results, args):
    whole_run(args)
    some = results.select("b")
    exact = {run.tags["batch"]: run for run in some.select(format="float32")}
    half = some.select(format="float16")
    saved = [1 - measured(run) / measured(exact[run.tags["batch"]]) for run in half]
    few = exact[2].final
    fixed = sum(few[k] for k in ("weights", "gradients", "states")) / few["parameters"]
    rest = 1 - fixed * few["parameters"] / measured(exact[2])
    text = (
        f"{few['parameters'] / 1e6:.1f} million, {fixed:g} bytes; rest {rest:.1%}; saved {saved[0]:.1%}, {saved[1]:.1%}"
    )
    return text, few["parameters"] >= 1e8 and abs(fixed - 16) < 1e-3 and rest < 1 / 3 and saved[0] < saved[1]


@experiment.claim(
    "b-losses",
    "its first steps are those of float32",
    expected="the loss of each of the first three steps within 0.01 of float32's, float16 and bfloat16, 2 and 4 rows",
    source="rounding alone",
)
def b_losses(results, args):
    whole_run(args)
    some, worst = results.select("b"), 0.0
    for run in some.select(format=lambda f: f != "float32"):
        exact = one(some, format="float32", batch=run.tags["batch"])
        worst = max(worst, np.abs(run.columns["losses"] - exact.columns["losses"])[0, :3].max())
    return f"at most {worst:.4f}", worst < 0.01


@experiment.claim(
    "h-law",
    "of numbers of N(0, s^2) float16 rounds 0.2, 2.4, 23 and 99.7 % to zero; multiplied by 2^16, next to none",
    expected="s = 1e-5, ..., 1e-8: each within 0.3 points of that and of the law; scaled at most 0.01 %",
    source="erf(2^-25 / (s sqrt 2))",
)
def h_law(results):
    columns = one(results, after="law").columns
    lost = 100 * columns["lost"]
    good = (abs(lost - 100 * columns["law"]) < 0.3).all() and (abs(lost - [0.2, 2.4, 23, 99.7]) < 1).all()
    text = listed({f"{s:g}:": f"{v:.2f} %" for s, v in zip(columns["s"], lost, strict=True)})
    return text, bool(good and columns["scaled"].max() <= 1e-4)


@experiment.claim(
    "h-layers",
    "a scale of 2^16 brings the slopes of every layer into float16's range",
    expected="LeNet-5, at the start and after 600 steps: of the slopes at each layer that are not 0, less than 0.1 % "
    "vanish when scaled, in the mean over seeds; without it more vanish after training than at the start (95 %)",
    source="Micikevicius et al., figure 3",
)
def h_layers(results):
    worst, lost = 0.0, []
    for _, runs in results.select("h", network="LeNet-5").groups("after"):
        layers = np.array([run.columns["gradient"] for run in runs])[0] == 0
        worst = max(worst, np.mean([run.columns["scaled_lost"][layers] for run in runs], 0).max())
        lost.append(np.array([np.average(run.columns["lost"][layers]) for run in runs]))
    text = f"scaled at most {worst:.3%}; unscaled " + " and ".join(f"{v.mean():.1%}" for v in lost)
    return decided(text, bool(worst < 1e-3), lower(*lost))


@experiment.claim(
    "l-skipped",
    "from 2^16 the scale finds its size within five skipped steps, and few are skipped later",
    expected="at most 5 of the first 20 batches, and at most 3 % of the later ones with a growth every 50 (each seed)",
    source="PyTorch's documentation of GradScaler",
)
def l_skipped(results, args):
    whole_run(args)
    some = results.select("l", interval=50)
    first, later = ([run.columns["skipped"][cut] for run in some] for cut in (slice(20), slice(20, None)))
    first, later = [int(v.sum()) for v in first], [float(v.mean()) for v in later]
    text = f"first 20: {', '.join(map(str, first))}; later {', '.join(f'{v:.1%}' for v in later)}"
    return text, max(first) <= 5 and max(later) <= 0.03


if __name__ == "__main__":
    experiment.main()
