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


from lab import Entry, Experiment, Part, Recipe, Undecided, charts
from lab.claims import decided, inside, larger, listed, spread, spreads
from lab.figures import below, closer, curves, heat, look, panels
from lab.measures import methods, on_surfaces, plans, sharpness
from lab.results import finer
from lab.verdicts import lower, no_higher
from npopt import Cosine, RandomReshuffling, Stop
from npopt.optimizers import HeavyBall
from problems import LANDSCAPES
from problems.classifiers import perceptron, rows_of
from problems.examples import BIG, WELLS, counterexample, rectifier, spike, wells

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
STEPS = 300                                                     # of part e
SHIFTS = (0.002, 0.005, 0.01, 0.02, 0.05)                       # standard deviations of a shift of the weights
SHOWN = ("SGD", "HeavyBall", "AdaGrad", "RMSProp", "Adam", "AdamW", "Lion", "LAMB")


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    rows, epochs = args.pick(None, 1500), args.budget(10, 8)
    sampler, some = RandomReshuffling(BATCH), dict(stop=Stop(epochs=epochs))
    for data in args.data_of("a"):
        problem = Recipe(perceptron, data=data, rows=rows, validation=HELD)
        steps = epochs * -(-rows_of(data, rows, HELD) // BATCH)
        for name, (optimizer, base) in methods(steps).items():
            rates = [base * factor for factor in args.pick(FACTORS, FACTORS[2:4])]
            for lr in finer(rates, found, "a", method=name):
                yield Entry("a", problem, optimizer, sampler, Cosine(lr), method=name, lr=lr, **some)
    for function in (spike, counterexample, rectifier):
        yield Entry("b", run=Recipe(function), seeds=[0], of=function.__name__)
    for data in args.data_of("c"):
        problem = Recipe(perceptron, data=data, rows=rows, validation=HELD)
        steps = epochs * -(-rows_of(data, rows, HELD) // BATCH)
        for name in plans(steps, 0.1):
            for lr in finer(args.pick((0.01, 0.03, 0.1, 0.3), (0.1,)), found, "c", method=name):
                schedule, vary = plans(steps, lr)[name]
                yield Entry("c", problem, HeavyBall(0.9), sampler, schedule, vary=vary, method=name, lr=lr, **some)
    yield Entry("d", run=Recipe(wells), seeds=[0], of="wells")
    for data in args.data_of("d"):
        for method in ("HeavyBall", "Adam"):
            for factor in args.pick((1, 3), (1,)):
                lr = methods(1)[method][1] * factor
                yield Entry("d", run=Recipe(sharpness, data=data, rows=rows, method=method, lr=lr, epochs=epochs,
                                            batch=BATCH, held=HELD, shifts=SHIFTS), method=method, lr=lr)
    for method in args.pick(list(methods(STEPS)), SHOWN):
        if method not in ("LARS", "LAMB"):                      # two numbers have no layers
            rates = [10 ** (k / 2) for k in range(-10, 3, args.pick(1, 3))]
            yield Entry("e", run=Recipe(on_surfaces, method=method, rates=rates, steps=STEPS), seeds=[0], method=method)


# ----------------------------------------------------------------------------------------------------------- claims
def gap(runs):
    return runs.final("train_accuracy") - runs.final("test_accuracy")


experiment.claim("a-edge", "the rates are wide enough: no method is best at an end of its grid",
                 expected="the best of six rates is inside, for every method", source="tuning of this script",
                 )(inside("a"))


@experiment.claim("a-fast", "Adam is faster than momentum SGD: a smaller training loss after the first epoch",
                  expected="smaller (95 %)", source="lecture notes")
def a_fast(results):
    best = results.select("a", method=("Adam", "HeavyBall")).at_best()
    adam, ball = (best.select(method=m).at("train_loss", 1) for m in ("Adam", "HeavyBall"))
    return decided(f"Adam {spread(adam)}, HeavyBall {spread(ball)}", lower(adam, ball))


@experiment.claim("a-gap", "Adam's gap between training and test accuracy is larger than that of momentum SGD",
                  expected="larger (95 %); false where smaller, or alike to 0.2 points",
                  source="lecture notes")
def a_gap(results):
    best = results.select("a", method=("Adam", "HeavyBall")).at_best()
    adam, ball = (gap(best.select(method=m)) for m in ("Adam", "HeavyBall"))
    return decided(f"Adam {spread(100 * adam)}, HeavyBall {spread(100 * ball)} points", lower(ball, adam, 0.002))


experiment.claim("a-test", "momentum SGD generalises better than Adam: a higher test accuracy",
                 expected="higher (95 %); false where lower, or alike to 0.2 points",
                 source="lecture notes")(larger("a", "HeavyBall", "Adam", "test_accuracy", "validation_loss", 0.002))


@experiment.claim("a-close", "tuned alike, all methods end close together on this network",
                  expected="test accuracies within one point of the best (95 %), for every method",
                  source="this script")
def a_close(results):
    ends = {m: 100 * v for m, v in results.select("a").at_best().finals("test_accuracy").items()}
    best = max(ends, key=lambda m: ends[m].mean())
    near = {m: no_higher(ends[best], v, 1) for m, v in ends.items() if m != best}
    behind = {m: f"{ends[m].mean():.2f}" for m in near if near[m] is not True}
    text = f"best {best} {ends[best].mean():.2f} %" + (f"; behind: {listed(behind)}" if behind else "")
    return decided(text, *near.values())


@experiment.claim("b-spike", "one gradient of 1e5 among ones moves Adam by at most sqrt(1/(1-b2)) = 31.6 rates, "
                  "and makes the steps after it small",
                  expected="31.6 after a long time (20 to 31.7 at t = 1001); then below 4e-4")
def b_spike(results):
    run = results.select("b", of="spike")[0]
    largest, after = float(np.max(run.columns["adam"])), float(run.columns["adam"][1010])
    return f"{largest:.2f} rates, then {after:.3g}", 20 < largest < 31.7 and after < 4e-4


@experiment.claim("b-memory", "AMSGrad keeps the largest second moment: after the spike its steps do not grow again",
                  expected="non-increasing after the spike")
def b_memory(results):
    steps = results.select("b", of="spike")[0].columns["amsgrad"][1001:]
    return f"{steps[0]:.3g} to {steps[-1]:.3g}", bool((np.diff(steps) <= 1e-12).all())


@experiment.claim("b-wrong", "on the convex problem of Reddi et al. Adam goes to the worst point, AMSGrad to the best",
                  expected="Adam above 0.95, AMSGrad below -0.95 (C = 3)", source="Reddi, Kale & Kumar, ICLR 2018")
def b_wrong(results):
    run = results.select("b", of="counterexample")[0]
    return (f"Adam {run.final['adam']:.3f}, AMSGrad {run.final['amsgrad']:.3f}",
            run.final["adam"] > 0.95 and run.final["amsgrad"] < -0.95)


@experiment.claim("b-rectifier", "RAdam's rectifier starts at t = 5 and rises as predicted (b2 = 0.999)",
                  expected="0.017, 0.215, 0.307, 0.645, 0.983 at t = 5, 100, 200, 1000, 5000",
                  source="Liu et al., ICLR 2020")
def b_rectifier(results):
    c = results.select("b", of="rectifier")[0].columns
    at = dict(zip(np.asarray(c["step"], int), c["b2 0.999"], strict=True))
    expected = {5: 0.017, 100: 0.215, 200: 0.307, 1000: 0.645, 5000: 0.983}
    first = min(t for t, v in at.items() if np.isfinite(v))
    return (f"first t = {first}; " + listed({t: f"{at[t]:.3f}" for t in expected}),
            first == 5 and all(abs(at[t] - v) < 6e-4 for t, v in expected.items()))


@experiment.claim("c-decay", "a rate that ends near 0 gives a smaller training loss than a constant one",
                  expected="cosine, one-cycle, steps, each at its best rate: smaller (95 %)", source="lecture notes")
def c_decay(results):
    ends = results.select("c").at_best().finals("train_loss")
    decaying = ("cosine", "one-cycle", "steps")
    return decided(spreads({name: ends[name] for name in ("constant", *decaying)}),
                   *(lower(ends[name], ends["constant"]) for name in decaying))


experiment.claim("c-edge", "the rates of the schedules are wide enough", source="tuning of this script",
                 expected="the best rate is inside its grid, always")(inside("c"))


@experiment.claim("d-wells", "a small shift raises a sharp minimum's loss more, by the ratio of the curvatures",
                  expected="25 times as much, to 10 %, at a shift of 0.1", source="lecture notes")
def d_wells(results):
    c = {name: np.asarray(column) for name, column in results.select("d", of="wells")[0].columns.items()}
    flat, sharp = ((c["test"] - c["train"])[np.abs(c["x"] - centre).argmin()] for centre, _ in WELLS)
    return f"{sharp:.4f} and {flat:.5f}, ratio {sharp / flat:.1f}", abs(sharp / flat / 25 - 1) < 0.1


def ended(results):
    """{method and rate: runs} of part d."""
    return {f"{method}: {lr:.3g}": runs for (method, lr), runs in results.select("d").groups("method", "lr")}


def against(column, row=0):
    """A claim's function: Adam above momentum SGD at both of their rates, crosswise."""
    def decide(results):
        found = {name: runs.at(column, row) for name, runs in ended(results).items()}
        if any(np.isnan(values).any() for values in found.values()):
            raise Undecided("a kink of ReLU disturbs an eigenvalue")
        pairs = [lower(found[b], found[a]) for a in found for b in found if a.startswith("Adam") and "Heavy" in b]
        return decided(spreads(found), *pairs)
    return decide


experiment.claim("d-sharp", "Adam ends in a sharper minimum than momentum SGD",
                 expected="largest Hessian eigenvalue larger (95 %), at every pair of rates", source="lecture notes",
                 )(against("high"))
experiment.claim("d-shift", "and there a shift of the weights raises the training loss more",
                 expected=f"for a shift of N(0, {SHIFTS[2]:g}^2): more (95 %), at every pair of rates",
                 source="lecture notes")(against("rise", 2))


def heights(results):
    """(methods, surfaces): the relative heights of part e, and the methods."""
    runs = results.select("e")
    return np.array([run.columns["gap"] for run in runs]), [run.tags["method"].replace("-G", "-H") for run in runs]


@experiment.claim("e-none", "no method is best everywhere: on two variables the winner changes with the surface",
                  expected="at least three methods are lowest on some surface that is not solved to 1e-12 by several",
                  source="no free lunch")
def e_none(results):
    table, names = heights(results)
    open_ones = np.flatnonzero((table < 1e-12).sum(0) < 2)
    winners = {list(LANDSCAPES)[j]: names[int(np.argmin(table[:, j]))] for j in open_ones}
    return listed(winners) or "all are solved by several", len(set(winners.values())) >= 3


# ---------------------------------------------------------------------------------------------------------- figures
def both(axes, results):
    """Training loss and test accuracy by epoch, without the untrained network."""
    for ax, column, text in zip(axes, ("train_loss", "test_accuracy"), ("training loss", "test accuracy"), strict=True):
        curves(ax, results, column, logy=column == "train_loss", ylabel=text, legend=False)
        closer(ax, results, column, *((1 / 11, 0.1) if column == "train_loss" else (0.005, 0.005)))
        ax.set_xlim(0.8, None)


@experiment.figure("methods.png", caption="Each method at its best rate: training loss, and test accuracy, by epoch.")
def methods_figure(results):
    figure, axes = panels(1, 2)
    both(axes, results.select("a", method=SHOWN).at_best())
    return below(figure, axes[0], 4)


@experiment.figure("table.png", caption="Every method at its best rate, sorted by test accuracy: training and "
                   "test accuracy at the end (points: seeds; bars: mean), the rate that was chosen in brackets; on "
                   "the right the generalisation gap in points, and its deviation over seeds.")
def table_figure(results):
    return charts.ranking(results.select("a"))


@experiment.figure("rates.png", caption="Held-out accuracy against the rate, in units of each method's customary one: "
                   "how much tuning matters (mean over seeds); the best nine points.")
def rates_figure(results):
    return charts.rates(results.select("a"), {m: base for m, (_, base) in methods(100).items()},
                        dict(zip(FACTORS, ("1/9", "1/3", "1", "3", "9", "27"), strict=True)))


@experiment.figure("notes.png", caption="The notes' examples. Left: steps around a gradient of 1e5 among ones. "
                   "Middle: the convex problem with its minimum at -1. Right: RAdam's rectifier.")
def notes_figure(results):
    figure, axes = panels(1, 3)
    run = results.select("b", of="spike")[0]
    for i, name in enumerate(("adam", "amsgrad")):
        ax, label = axes[0], {"adam": "Adam", "amsgrad": "AMSGrad"}[name]
        ax.plot(run.columns["step"][980:], run.columns[name][980:], label=label, **look(i))
        other = results.select("b", of="counterexample")[0]
        axes[1].plot(other.columns["step"], other.columns[name], label=label, **look(i))
    axes[0].set(yscale="log", xlabel="step", ylabel="|step| / rate", title="a spike at t = 1001")
    axes[1].set(xscale="log", xlabel="step", ylabel="x", title=f"C = {BIG:g}, minimum at -1")
    c = results.select("b", of="rectifier")[0].columns
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
    some = results.select("c").at_best()
    n, epoch = int(some[0].columns["step"][-1]), some[0].columns["epoch"][-1]
    for i, (schedule, _) in enumerate(plans(n, 0.1).values()):
        schedule.start(max(1, round(n / epoch)), n)
        axes[0].plot(np.arange(n) * epoch / n, [schedule(k) for k in range(n)], lw=1.4, **look(i))
    axes[0].set(xlabel="epoch", ylabel="learning rate")
    both(axes[1:], some)
    return below(figure, axes[1], 4)


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
    c = {name: np.asarray(column) for name, column in results.select("d", of="wells")[0].columns.items()}
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
