"""Which of twenty-three optimizers, each at its best rate, trains and generalises best?   Lecture notes, part N.

One perceptron, one batch size, one budget, a cosine; each method at six rates a factor 3 apart around its customary
one, the best chosen on 10,000 training rows that are held out, never on test rows. The notes say: Adam is fast, and its
gap between training and test is larger; SGD with momentum is stable and generalises better. Beside it their numbers:
what one large gradient does to Adam's memory, the convex problem on which Adam goes the wrong way, RAdam's rectifier,
and the schedules (cyclical, SGDR, one-cycle, warm-up) on momentum SGD. Last their picture of flat and sharp minima, of
which a shifted loss spares the flat one: does Adam end in a sharper one than momentum SGD? And on twelve
surfaces of two variables all methods that need no layers.

Run time on 2 cores: --quick about 40 seconds; --data real --jobs 2 --threads 1 about 25 minutes.
"""

import math

from lab import (
    Entry,
    Experiment,
    Part,
    Recipe,
    Undecided,
    dataset,
    decided,
    different,
    inside,
    larger,
    listed,
    lower,
    spread,
)
from lab.figures import curves, heat, look, panels
from npopt import (
    EMA,
    LAMB,
    LARS,
    SGD,
    SWA,
    SWATS,
    AdaBound,
    Adadelta,
    Adafactor,
    AdaGrad,
    Adam,
    AdamMini,
    AdamW,
    AMSBound,
    AMSGrad,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclical,
    Events,
    HeavyBall,
    Lion,
    Lookahead,
    NAdam,
    Nesterov,
    OneCycle,
    Piecewise,
    RAdam,
    RandomReshuffling,
    RMSProp,
    SophiaG,
    SophiaH,
    Stop,
    WithWarmup,
    backend,
    minimize,
)
from npopt.analysis.curvature import stable
from problems import LANDSCAPES, Surface
from problems.classifiers import perceptron

import numpy as np

experiment = Experiment(
    __doc__,
    task="N",
    source="lecture notes on optimisers; the papers of the methods, named in npopt/optimizers",
    parts={
        "a": Part("all methods at six rates, one perceptron", "digits", "fashion-mnist"),
        "b": Part("the notes' numbers: a spike, a counterexample, a rectifier"),
        "c": Part("schedules for momentum SGD, each at the best of four rates", "digits", "fashion-mnist"),
        "d": Part("flat and sharp minima", "digits", "fashion-mnist"),
        "e": Part("the methods on twelve surfaces, each at the best of 13 rates"),
    },
    seeds=3,
)

BATCH = 128
HELD = 1 / 6                                                    # of the training rows, to choose rates by
FACTORS = (1 / 9, 1 / 3, 1, 3, 9, 27)                           # of the customary rate
BIG = 3.0                                                       # C of the counterexample
WELLS = ((-2.0, 1.0), (2.0, 0.2))                               # centre and width of the wells of part d
STEPS = 300                                                     # of part e
SHIFTS = (0.002, 0.005, 0.01, 0.02, 0.05)                       # standard deviations of a shift of the weights
SHOWN = ("SGD", "HeavyBall", "AdaGrad", "RMSProp", "Adam", "AdamW", "Lion", "LAMB")


def methods(steps):
    """{name: (optimizer, customary rate)}"""
    return {
        "SGD": (SGD(), 0.3), "HeavyBall": (HeavyBall(0.9), 0.03), "Nesterov": (Nesterov(0.9), 0.03), "AdaGrad":
        (AdaGrad(), 0.03), "RMSProp": (RMSProp(), 1e-3), "Adadelta": (Adadelta(), 1.0), "Adam": (Adam(), 1e-3), "AdamW":
        (AdamW(weight_decay=1e-2), 1e-3), "AMSGrad": (AMSGrad(), 1e-3), "NAdam": (NAdam(), 1e-3), "RAdam": (RAdam(),
        1e-3), "AdaBound": (AdaBound(), 1e-3), "AMSBound": (AMSBound(), 1e-3), "SWATS": (SWATS(tolerance=1e-5), 1e-3),
        "Lion": (Lion(), 3e-4), "LARS": (LARS(), 10.0), "LAMB": (LAMB(), 1e-2), "Adam-mini": (AdamMini(), 1e-3),
        "Adafactor": (Adafactor(), 0.03), "Sophia-G": (SophiaG(), 1e-3), "Lookahead (Adam)": (Lookahead(Adam()), 1e-3),
        "EMA (HeavyBall)": (EMA(HeavyBall(0.9), 0.99), 0.03), "SWA (HeavyBall)": (SWA(HeavyBall(0.9), max(1, 3 * steps
        // 4)), 0.03),
    }


# ------------------------------------------------------------------------------------------------ the notes' numbers
def moves(optimizer, gradients, lr):
    """Steps of one number from 0."""
    x, found = np.zeros(1), []
    optimizer.start(x)
    for t, g in enumerate(gradients):
        before = x[0]
        optimizer.step(x, np.array([float(g)]), lr(t))
        found.append(x[0] - before)
    return found


def spike(seed, events):
    """|steps| of Adam and AMSGrad, b1 = 0, for gradients 1, ..., 1, 1e5, 1, ..., 1 and lr 1."""
    gradients, columns = [1.0] * 1000 + [1e5] + [1.0] * 50, {}
    for name, optimizer in (("adam", Adam(0.0, 0.999, 0.0)), ("amsgrad", AMSGrad(0.0, 0.999, 0.0, "corrected"))):
        columns[name] = [abs(v) for v in moves(optimizer, gradients, lambda t: 1.0)]
    return {"step": list(range(1, len(gradients) + 1)), **columns}


def counterexample(seed, events, steps=30_000):
    """x in [-1, 1] under f_t = C x for t mod 3 = 1, else -x, b1 = 0, b2 = 1/(1 + C^2), rate 0.5/sqrt t."""
    columns = {"step": []}
    for name, kind in (("adam", Adam(0.0, 1 / (1 + BIG**2), 0.0)),
                       ("amsgrad", AMSGrad(0.0, 1 / (1 + BIG**2), 0.0, "original"))):
        x, columns[name], columns["step"] = np.zeros(1), [], []
        kind.start(x)
        for t in range(1, steps + 1):
            kind.step(x, np.array([BIG if t % 3 == 1 else -1.0]), 0.5 / math.sqrt(t))
            np.clip(x, -1, 1, out=x)
            if t % 30 == 0 or t < 30:
                columns[name].append(float(x[0]))
                columns["step"].append(t)
    return columns


def rectifier(seed, events):
    """RAdam's factor, NaN while it takes steps of momentum alone, for b2 = 0.9, 0.99 and 0.999."""
    steps = sorted({int(round(10 ** (k / 40))) for k in range(161)} | {5, 6, 100, 200, 1000, 5000})
    columns = {"step": steps}
    for b2 in (0.9, 0.99, 0.999):
        columns[f"b2 {b2:g}"] = [RAdam(b2=b2, threshold=4).rectifier(t) or math.nan for t in steps]
    return columns


# ----------------------------------------------------------------------------------------------------- on surfaces
def on_surfaces(seed, events, method, rates):
    """For every surface the height above the minimum after STEPS steps, in parts of that at the start, and the rate, at
    the best of these; constant rates, exact gradients. Sophia-G, which samples labels, is Sophia-H here."""
    columns = {"surface": list(range(len(LANDSCAPES))), "gap": [], "rate": []}
    for name in LANDSCAPES:
        ends = []
        for lr in rates:
            optimizer = SophiaH() if method == "Sophia-G" else methods(STEPS)[method][0]
            run = minimize(Surface(name), optimizer, RandomReshuffling(1), lr, stop=Stop(steps=STEPS),
                           events=Events(None))
            first, last = run.columns["gap"][0], run.columns["gap"][-1]
            ends.append(last / first if math.isfinite(last) and not run.diverged else math.inf)
        columns["gap"].append(min(ends))
        columns["rate"].append(rates[int(np.argmin(ends))])
    return columns


# ---------------------------------------------------------------------------------------------------- flat and sharp
def well(x):
    """1 - sum_k exp(-(x - c_k)^2 / (2 s_k^2)): minima at the centres, of curvature 1/s_k^2."""
    return 1 - sum(np.exp(-((x - c) ** 2) / (2 * s**2)) for c, s in WELLS)


def wells(seed, events, shift=0.1):
    """A loss of one weight with a flat and a sharp minimum, and the same loss shifted."""
    x = np.linspace(-4.5, 3.5, 1601)
    return {"x": x.tolist(), "train": well(x).tolist(), "test": well(x - shift).tolist()}


def sharpness(seed, events, data, rows, method, lr, epochs):
    """Where a method ends: `high`, the largest eigenvalue of the training loss's Hessian over 1,000 rows (NaN where a
    kink disturbs it), and in a row for each a in SHIFTS the `rise` of the training loss, over 10,000 rows, from w to
    w + a z, z ~ N(0, I), the mean over ten z."""
    problem = perceptron(data, rows=rows, validation=HELD)
    optimizer = methods(1)[method][0]
    run = minimize(problem, optimizer, RandomReshuffling(BATCH), Cosine(lr), stop=Stop(epochs=epochs), seed=seed,
                   events=events)
    if run.diverged or run.reason == "interrupted":
        return run
    exact = perceptron(data, rows=rows, validation=HELD, dtype="float64")
    x = backend.asarray(backend.to_host(run.answer), "float64")
    seen = stable(exact, x, np.arange(min(exact.n, 1000)))
    some = np.arange(min(exact.n, 10_000))
    loss, *shifted = (float(backend.to_host(exact.value(x, some, shift=shift))) for shift in (
        None, *((a, backend.key(k, "shift")) for a in SHIFTS for k in range(10))))
    rise = np.reshape(shifted, (len(SHIFTS), 10)).mean(1) - loss
    return {"shift": list(SHIFTS), "rise": [float(v) for v in rise], "train": [loss] * len(SHIFTS),
            "test_accuracy": [run.final["test_accuracy"]] * len(SHIFTS),
            "high": [float(seen.values[-1]) if seen else math.nan] * len(SHIFTS)}


# ------------------------------------------------------------------------------------------------------------- grid
def schedules(steps, epoch, lr):
    """{name: (schedule, what varies)}, all with lr as their highest rate."""
    cycle = OneCycle(lr, rise=0.3)
    half = max(1, steps // 8)
    return {
        "constant": (Constant(lr), None), "cosine": (Cosine(lr), None), "warm-up, cosine": (WithWarmup(Cosine(lr),
        max(1, steps // 10)), None), "steps": (Piecewise(lr, (steps // 2, 3 * steps // 4), per="step"), None),
        "triangular": (Cyclical(lr / 10, lr, half), None), "triangular2": (Cyclical(lr / 10, lr, half, "triangular2"),
        None), "SGDR": (CosineRestarts(lr, steps / 7, 2, unit="step"), None), "one-cycle": (cycle, {"beta":
        cycle.mirrored(0.85, 0.95)}),
    }


@experiment.runs
def runs(args):
    for data in args.data_of("a"):
        rows = args.pick(None, 1500)
        n = len(dataset(data, rows=rows, validation=HELD).y_train)
        epochs = args.budget(10, 25)
        steps = epochs * -(-n // BATCH)
        some = dict(stop=Stop(epochs=epochs))
        problem = Recipe(perceptron, data=data, rows=rows, validation=HELD)
        for name, (optimizer, base) in methods(steps).items():
            for factor in args.pick(FACTORS, FACTORS[2:4]):
                yield Entry("a", f"{name}: {base * factor:.3g}", problem, optimizer, RandomReshuffling(BATCH),
                            Cosine(base * factor), **some)
    for name, function in (("spike", spike), ("counterexample", counterexample), ("rectifier", rectifier)):
        yield Entry("b", name, run=Recipe(function), seeds=[0])
    for data in args.data_of("c"):
        rows = args.pick(None, 1500)
        n = len(dataset(data, rows=rows, validation=HELD).y_train)
        epochs, epoch = args.budget(10, 25), -(-n // BATCH)
        problem = Recipe(perceptron, data=data, rows=rows, validation=HELD)
        for name in schedules(epochs * epoch, epoch, 0.1):
            for lr in args.pick((0.01, 0.03, 0.1, 0.3), (0.1,)):
                schedule, vary = schedules(epochs * epoch, epoch, lr)[name]
                yield Entry("c", f"{name}: {lr:g}", problem, HeavyBall(0.9), RandomReshuffling(BATCH), schedule,
                            vary=vary, stop=Stop(epochs=epochs))
    yield Entry("d", "wells", run=Recipe(wells), seeds=[0])
    for data in args.data_of("d"):
        for method in ("HeavyBall", "Adam"):
            for factor in args.pick((1, 3), (1,)):
                lr = methods(1)[method][1] * factor
                yield Entry("d", f"{method}: {lr:.3g}", run=Recipe(sharpness, data=data, rows=args.pick(None, 1500),
                                                                   method=method, lr=lr, epochs=args.budget(10, 25)))


    for method in args.pick(list(methods(STEPS)), SHOWN):
        if method in ("LARS", "LAMB"):                          # two numbers have no layers
            continue
        rates = [10 ** (k / 2) for k in range(-10, 3, args.pick(1, 3))]
        yield Entry("e", method, run=Recipe(on_surfaces, method=method, rates=rates), seeds=[0])


# ----------------------------------------------------------------------------------------------------------- claims
def chosen(results):
    """{method: its runs at the rate with the best held-out accuracy}, and {method: rate}."""
    tuned = results.select("a").tuned("validation_accuracy")
    return {m: t.runs for m, t in tuned.items()}, {m: t.value for m, t in tuned.items()}


def gap(runs):
    return runs.final("train_accuracy") - runs.final("test_accuracy")


experiment.claim("a-edge", "the rates are wide enough: no method is best at an end of its grid",
                 expected="the best of six rates is inside, for every method", source="tuning of this script",
                 )(inside("a", "validation_accuracy"))


@experiment.claim("a-fast", "Adam is faster than momentum SGD: a smaller training loss after the first epoch",
                  expected="smaller by more than two standard deviations", source="lecture notes")
def a_fast(results):
    best, _ = chosen(results)
    first = {m: np.array([run.columns["train_loss"][1] for run in best[m]]) for m in ("Adam", "HeavyBall")}
    mean, _, clear = different(first["Adam"], first["HeavyBall"])
    return f"Adam {spread(first['Adam'])}, HeavyBall {spread(first['HeavyBall'])}", bool(clear and mean < 0)


@experiment.claim("a-gap", "Adam's gap between training and test accuracy is larger than that of momentum SGD",
                  expected="larger by more than two standard deviations", source="lecture notes")
def a_gap(results):
    best, _ = chosen(results)
    mean, _, clear = different(gap(best["Adam"]), gap(best["HeavyBall"]))
    shown = {m: spread(100 * gap(best[m])) for m in ("Adam", "HeavyBall")}
    return f"Adam {shown['Adam']}, HeavyBall {shown['HeavyBall']} points", bool(clear and mean > 0)


experiment.claim("a-test", "momentum SGD generalises better than Adam: a higher test accuracy",
                 expected="higher by more than two standard deviations", source="lecture notes",
                 )(larger("a", "HeavyBall", "Adam", "test_accuracy", by="validation_accuracy"))


@experiment.claim("a-close", "tuned alike, all methods end close together on this network",
                  expected="test accuracies within one point of the best, for every method", source="this script")
def a_close(results):
    best, _ = chosen(results)
    ends = {m: 100 * float(np.mean(group.final("test_accuracy"))) for m, group in best.items()}
    top = max(ends.values())
    behind = {m: f"{v:.2f}" for m, v in ends.items() if v < top - 1}
    text = f"best {max(ends, key=ends.get)} {top:.2f} %" + (f"; behind: {listed(behind)}" if behind else "")
    return text, not behind


@experiment.claim("b-spike", "one gradient of 1e5 among ones moves Adam by at most sqrt(1/(1-b2)) = 31.6 rates, "
                  "and makes the steps after it small",
                  expected="31.6 after a long time (20 to 31.7 at t = 1001); then below 4e-4")
def b_spike(results):
    run = results.select("b", "spike")[0]
    largest, after = float(np.max(run.columns["adam"])), float(run.columns["adam"][1010])
    return f"{largest:.2f} rates, then {after:.3g}", 20 < largest < 31.7 and after < 4e-4


@experiment.claim("b-memory", "AMSGrad keeps the largest second moment: after the spike its steps do not grow again",
                  expected="non-increasing after the spike")
def b_memory(results):
    steps = results.select("b", "spike")[0].columns["amsgrad"][1001:]
    return f"{steps[0]:.3g} to {steps[-1]:.3g}", bool((np.diff(steps) <= 1e-12).all())


@experiment.claim("b-wrong", "on the convex problem of Reddi et al. Adam goes to the worst point, AMSGrad to the best",
                  expected="Adam above 0.95, AMSGrad below -0.95 (C = 3)", source="Reddi, Kale & Kumar, ICLR 2018")
def b_wrong(results):
    run = results.select("b", "counterexample")[0]
    return (f"Adam {run.final['adam']:.3f}, AMSGrad {run.final['amsgrad']:.3f}",
            run.final["adam"] > 0.95 and run.final["amsgrad"] < -0.95)


@experiment.claim("b-rectifier", "RAdam's rectifier starts at t = 5 and rises as predicted (b2 = 0.999)",
                  expected="0.017, 0.215, 0.307, 0.645, 0.983 at t = 5, 100, 200, 1000, 5000",
                  source="Liu et al., ICLR 2020")
def b_rectifier(results):
    c = results.select("b", "rectifier")[0].columns
    at = dict(zip(np.asarray(c["step"], int), c["b2 0.999"], strict=True))
    expected = {5: 0.017, 100: 0.215, 200: 0.307, 1000: 0.645, 5000: 0.983}
    first = min(t for t, v in at.items() if np.isfinite(v))
    return (f"first t = {first}; " + listed({t: f"{at[t]:.3f}" for t in expected}),
            first == 5 and all(abs(at[t] - v) < 6e-4 for t, v in expected.items()))


@experiment.claim("c-decay", "a rate that ends near 0 gives a smaller training loss than a constant one",
                  expected="cosine, one-cycle, steps, each at its best rate: smaller by more than two standard "
                  "deviations", source="lecture notes")
def c_decay(results):
    ends = {name: found.runs.final("train_loss")
            for name, found in results.select("c").tuned("validation_accuracy").items()}
    decaying = ("cosine", "one-cycle", "steps")
    return decided(listed({name: spread(ends[name]) for name in ("constant", *decaying)}),
                   *(lower(ends[name], ends["constant"]) for name in decaying))


experiment.claim("c-edge", "the rates of the schedules are wide enough", source="tuning of this script",
                 expected="the best rate is inside its grid, always")(inside("c", "validation_accuracy"))


@experiment.claim("d-wells", "a small shift raises a sharp minimum's loss more, by the ratio of the curvatures",
                  expected="25 times as much, to 10 %, at a shift of 0.1", source="lecture notes")
def d_wells(results):
    c = {name: np.asarray(column) for name, column in results.select("d", "wells")[0].columns.items()}
    flat, sharp = ((c["test"] - c["train"])[np.abs(c["x"] - centre).argmin()] for centre, _ in WELLS)
    return f"{sharp:.4f} and {flat:.5f}, ratio {sharp / flat:.1f}", abs(sharp / flat / 25 - 1) < 0.1


def ended(results):
    """{method and rate: runs} of part d."""
    names = dict.fromkeys(run.name for run in results.select("d"))
    return {name: results.select("d", name) for name in names if name != "wells"}


def against(column, row=0):
    """A claim's function: Adam above momentum SGD by more than two deviations at both of their rates, crosswise."""
    def decide(results):
        found = {name: np.array([run.columns[column][row] for run in group]) for name, group in ended(results).items()}
        if any(np.isnan(values).any() for values in found.values()):
            raise Undecided("a kink of ReLU disturbs an eigenvalue")
        pairs = [different(found[a], found[b]) for a in found for b in found if a.startswith("Adam") and "Heavy" in b]
        return listed({n: spread(v) for n, v in found.items()}), all(clear and mean > 0 for mean, _, clear in pairs)
    return decide


experiment.claim("d-sharp", "Adam ends in a sharper minimum than momentum SGD",
                 expected="largest Hessian eigenvalue larger by more than two standard deviations, at every pair of "
                 "rates", source="lecture notes")(against("high"))
experiment.claim("d-shift", "and there a shift of the weights raises the training loss more",
                 expected=f"for a shift of N(0, {SHIFTS[2]:g}^2): more by two standard deviations, at every pair of "
                 "rates", source="lecture notes")(against("rise", 2))


def heights(results):
    """(methods, surfaces): the relative heights of part e, and the methods."""
    runs = results.select("e")
    return np.array([run.columns["gap"] for run in runs]), [run.name.replace("Sophia-G", "Sophia-H") for run in runs]


@experiment.claim("e-none", "no method is best everywhere: on two variables the winner changes with the surface",
                  expected="at least three methods are lowest on some surface that is not solved to 1e-12 by several",
                  source="no free lunch")
def e_none(results):
    table, names = heights(results)
    open_ones = np.flatnonzero((table < 1e-12).sum(0) < 2)
    winners = {list(LANDSCAPES)[j]: names[int(np.argmin(table[:, j]))] for j in open_ones}
    return listed(winners) or "all are solved by several", len(set(winners.values())) >= 3


# ---------------------------------------------------------------------------------------------------------- figures
def closer(ax, results, column):
    """Leave the untrained network out of the picture."""
    values = np.concatenate([run.columns[column][1:] for run in results])
    low, high = np.nanmin(values), np.nanmax(values)
    ax.set_ylim(*((low / 1.1, high * 1.1) if column == "train_loss" else (low - 0.005, high + 0.005)))
    ax.set_xlim(0.8, None)
    ax.set_ylabel({"train_loss": "training loss", "test_accuracy": "test accuracy"}[column])


@experiment.figure("methods.png", caption="Each method at its best rate: training loss, and test accuracy, by epoch.")
def methods_figure(results):
    best, _ = chosen(results)
    figure, axes = panels(1, 2)
    for ax, column in zip(axes, ("train_loss", "test_accuracy"), strict=True):
        some = results.select("a", [best[m][0].name for m in SHOWN if m in best])
        curves(ax, some, column, label=lambda n: n.rsplit(": ", 1)[0], logy=column == "train_loss", legend=False)
        closer(ax, some, column)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@experiment.figure("table.png", caption="Every method at its best rate, sorted by test accuracy: training and "
                   "test accuracy at the end (points: seeds; bars: mean), the rate that was chosen in brackets; on "
                   "the right the generalisation gap in points, and its deviation over seeds.")
def table_figure(results):
    best, rates = chosen(results)
    order = sorted(best, key=lambda m: np.mean(best[m].final("test_accuracy")))
    figure, ax = panels(size=(9, 0.36 * len(order) + 1.6))
    for i, m in enumerate(order):
        points = 100 * gap(best[m])
        ax.annotate(f"gap {points.mean():.1f} ± {points.std(ddof=1) if len(points) > 1 else 0:.1f}", (1.01, i),
                    xycoords=("axes fraction", "data"), va="center", fontsize=9)
        for column, shade, text in (("train_accuracy", 1, "training"), ("test_accuracy", 0, "test")):
            values, colour = 100 * best[m].final(column), look(shade)["color"]
            ax.plot(values, [i] * len(values), "o", color=colour, alpha=0.5, ms=5)
            ax.plot([values.mean()], [i], "|", color=colour, ms=16, mew=2.5, label=text if not i else None)
    ax.set_yticks(range(len(order)), [f"{m} ({rates[m]:.2g})" for m in order])
    ax.set_xlabel("accuracy [%]")
    ax.legend(loc="lower right")
    return figure


@experiment.figure("rates.png", caption="Held-out accuracy against the rate, in units of each method's customary one: "
                   "how much tuning matters (mean over seeds); the best nine points.")
def rates_figure(results):
    figure, ax = panels(size=(9, 5.4))
    table = {m: t.scores for m, t in results.select("a").tuned("validation_accuracy").items()}
    for i, (method, found) in enumerate(table.items()):
        xs = np.array(sorted(found))
        base = methods(100)[method][1]
        ax.plot(xs / base, [100 * found[x] for x in xs], marker="o", ms=4, label=method, **look(i))
    ax.set(xscale="log", xlabel="rate / customary rate", ylabel="held-out accuracy [%]")
    ax.set_xticks(FACTORS, ["1/9", "1/3", "1", "3", "9", "27"])
    ax.minorticks_off()
    values = 100 * np.array([v for found in table.values() for v in found.values()])
    ax.set_ylim(max(0, np.nanmax(values) - 9), np.nanmax(values) + 0.5)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), ncols=1, fontsize=9)
    return figure


@experiment.figure("notes.png", caption="The notes' examples. Left: steps around a gradient of 1e5 among ones. "
                   "Middle: the convex problem with its minimum at -1. Right: RAdam's rectifier.")
def notes_figure(results):
    figure, axes = panels(1, 3)
    run = results.select("b", "spike")[0]
    for i, name in enumerate(("adam", "amsgrad")):
        ax, label = axes[0], {"adam": "Adam", "amsgrad": "AMSGrad"}[name]
        ax.plot(run.columns["step"][980:], run.columns[name][980:], label=label, **look(i))
        other = results.select("b", "counterexample")[0]
        axes[1].plot(other.columns["step"], other.columns[name], label=label, **look(i))
    axes[0].set(yscale="log", xlabel="step", ylabel="|step| / rate", title="a spike at t = 1001")
    axes[1].set(xscale="log", xlabel="step", ylabel="x", title=f"C = {BIG:g}, minimum at -1")
    c = results.select("b", "rectifier")[0].columns
    for i, name in enumerate(n for n in c if n != "step"):
        axes[2].plot(c["step"], c[name], label=name, **look(i))
    axes[2].set(xscale="log", xlabel="step", ylabel="r", title="RAdam's rectifier")
    for ax in axes:
        ax.legend()
    return figure


@experiment.figure("schedules.png", caption="Momentum SGD under eight schedules of the same highest rate: the rates, "
                   "the training loss and the test accuracy at the best of four highest rates each.")
def schedules_figure(results):
    figure, axes = panels(1, 3)
    best = {name: found.runs for name, found in results.select("c").tuned("validation_accuracy").items()}
    some = results.select("c", [runs[0].name for runs in best.values()])
    n = int(some[0].columns["step"][-1])
    epoch = some[0].columns["epoch"][-1]
    t = np.arange(n)
    for i, (schedule, _) in enumerate(schedules(n, n / epoch, 0.1).values()):
        schedule.start(max(1, round(n / epoch)), n)
        axes[0].plot(t * epoch / n, [schedule(int(k)) for k in t], lw=1.4, **look(i))
    axes[0].set(xlabel="epoch", ylabel="learning rate")
    for ax, column in zip(axes[1:], ("train_loss", "test_accuracy"), strict=True):
        curves(ax, some, column, logy=column == "train_loss", legend=False)
        closer(ax, some, column)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


@experiment.figure("surfaces.png", caption=f"Height above the minimum after {STEPS} steps in parts of that at the "
                   "start, as a power of ten (-16: to the last digit), each method at the best of its rates on each "
                   "surface.")
def surfaces_figure(results):
    table, names = heights(results)
    figure, ax = panels(size=(14, 0.42 * len(names) + 2))
    titles = [land.title for land in LANDSCAPES.values()]
    heat(ax, np.maximum(np.log10(np.maximum(table, 1e-16)), -16)[::-1], names[::-1], titles, "", "",
         "log10 of the relative height", digits="{:.1f}")
    ax.tick_params(axis="x", rotation=25)
    return figure


@experiment.figure("flat.png", caption="Left: the notes' picture, a flat and a sharp minimum of one training loss, "
                   "and the loss shifted by 0.1. Middle: what a random shift of the weights adds to the training loss "
                   "where momentum SGD and Adam end (mean and range over seeds). Right: the largest eigenvalue there.")
def flat_figure(results):
    figure, (left, middle, right) = panels(1, 3, size=(17, 5))
    c = {name: np.asarray(column) for name, column in results.select("d", "wells")[0].columns.items()}
    for i, (name, label) in enumerate((("train", "training loss"), ("test", "shifted loss"))):
        left.plot(c["x"], c[name], label=label, **look(i))
    for centre, _ in WELLS:
        at = np.abs(c["x"] - centre).argmin()
        left.plot([centre] * 2, [c["train"][at], c["test"][at]], "o-", color="black", ms=5)
    left.set(xlabel="w", ylabel="loss", title="curvature 1 and 25, shift 0.1")
    left.legend(loc="lower center", bbox_to_anchor=(0.58, 0.08), fontsize=9)
    found = ended(results)
    for i, (name, group) in enumerate(found.items()):
        style = look(i)
        rises = np.array([run.columns["rise"] for run in group])
        middle.plot(SHIFTS, rises.mean(0), marker="o", ms=4, label=name, **style)
        middle.fill_between(SHIFTS, rises.min(0), rises.max(0), color=style["color"], alpha=0.2, lw=0)
        highs = [run.columns["high"][0] for run in group]
        right.plot([i] * len(highs), highs, "o", color=style["color"])
    middle.set(xscale="log", yscale="log", xlabel="standard deviation of the shift", ylabel="rise of the training loss",
               title="shifted weights")
    middle.set_xticks(SHIFTS, [f"{a:g}" for a in SHIFTS])
    middle.minorticks_off()
    middle.legend()
    right.set_xticks(range(len(found)), [name.replace(": ", "\n") for name in found])
    right.set(ylabel="largest Hessian eigenvalue", xlim=(-0.5, len(found) - 0.5), title="where they end")
    right.set_ylim(0, None)
    return figure


if __name__ == "__main__":
    experiment.main()
