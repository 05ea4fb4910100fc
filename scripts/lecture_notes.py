"""What do the lecture notes' examples come to: a spike, a counterexample, warm-up, on-line and off-line?   Part N, too.

The notes' numbers: what one large gradient does to Adam's memory (a step of at most sqrt(1/(1-b2)) = 31.6 rates, then
tiny ones, after 100,000 steps of ones), the convex problem on which Adam goes the wrong way, RAdam's rectifier. Their
last question: does RAdam do what warm-up does? Early in training Adam's second moment is the mean of few squares, and
its ratio has a large variance; warm-up takes small steps meanwhile, RAdam is said to derive them. So at large rates
both should help Adam, alike. Their words on-line, one pair a step, and off-line, all pairs: at equal passes. SWATS's
switch, by its tolerance. And on twelve surfaces of two variables all methods that need no layers: from how many of four
starts, drawn in the window, each gets to the global minimum, at its best of 13 rates.

The surfaces are moved by (1.3, -0.7), because Rastrigin's and Ackley's minima lie at 0 and Adafactor's step is
proportional to rms(x): at 0 it stands still whatever f is. It is run on both as they are, too.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 6 minutes.
"""

from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, inside, listed, spreads
from lab.figures import curves, heat, look, named, panels
from lab.measures import methods, on_surfaces, switches
from lab.results import finer
from lab.verdicts import close, lower, within
from npopt import SGD, Adam, Cosine, RAdam, RandomReshuffling, Stop
from npopt.schedules import WithWarmup
from problems import LANDSCAPES
from problems.classifiers import perceptron, rows_of
from problems.examples import BIG, counterexample, rectifier, spike

import numpy as np

experiment = Experiment(
    __doc__,
    task="N",
    source="lecture notes on optimisers; the papers of the methods, named in npopt/optimizers",
    parts={
        "b": Part("the notes' numbers: a spike, a counterexample, a rectifier"),
        "w": Part("Adam with warm-up, without, and RAdam", "digits", "fashion-mnist"),
        "o": Part("on-line and off-line", "digits", "fashion-mnist"),
        "s": Part("when SWATS switches", "digits", "fashion-mnist"),
        "e": Part("the methods on twelve surfaces, each at the best of 13 rates"),
    },
    seeds=5,
)

BATCH, HELD, ROWS = 128, 1 / 6, 9000                            # parts w and s; a sixth of the rows is held out
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)                    # part w
LARGE = 3e-2                                                    # one of them, thirty times the customary one
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-9)                           # of SWATS, relative; the paper's last is absolute
STEPS, STARTS = 300, 4                                          # part e
SOLVED = 1e-6                                                   # of the height at the start
AT_ZERO = ("rastrigin", "ackley")


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    rows, epochs = args.pick(ROWS, 600), args.budget(8, 3)
    for function in (spike, counterexample, rectifier):
        yield Entry("b", run=Recipe(function), seeds=[0], of=function.__name__)
    for data in args.data_of("w"):
        problem = Recipe(perceptron, data=data, rows=rows, validation=HELD)
        warm = max(1, epochs * -(-rows_of(data, rows, HELD) // BATCH) // 10)
        for lr in args.pick(RATES, RATES[1::3]):
            for method, optimizer, schedule in (("Adam", Adam(), Cosine(lr)), ("RAdam", RAdam(), Cosine(lr)),
                                                ("Adam, warm-up", Adam(), WithWarmup(Cosine(lr), warm))):
                yield Entry("w", problem, optimizer, RandomReshuffling(BATCH), schedule, method=method, lr=lr,
                            stop=Stop(epochs=epochs), metrics=2)
    for data in args.data_of("o"):
        some = args.pick(600, 240)
        problem, n = Recipe(perceptron, data=data, rows=some, validation=HELD), rows_of(data, some, HELD)
        for method, size, rates in (("on-line", 1, (1e-3, 1e-2, 1e-1)), ("off-line", n, (3e-2, 3e-1, 3))):
            for lr in finer(args.pick(rates, rates[1:2]), found, "o", method=method):
                yield Entry("o", problem, SGD(), RandomReshuffling(size), lr, method=method, lr=lr,
                            stop=Stop(epochs=args.budget(20, 3)))
    for data in args.data_of("s"):
        yield Entry("s", run=Recipe(switches, data=data, rows=rows, lr=1e-3, epochs=epochs, batch=BATCH, held=HELD,
                                    tolerances=TOLERANCES), method="SWATS")
    few = list(range(args.pick(STARTS, 2)))
    for method in args.pick(list(methods(STEPS)), ("SGD", "Adam", "Adafactor")):
        if method not in ("LARS", "LAMB"):                      # two numbers have no layers
            rates = [10 ** (k / 2) for k in range(-10, 3, args.pick(1, 4))]
            some = dict(method=method, rates=rates, steps=args.pick(STEPS, 100))
            yield Entry("e", run=Recipe(on_surfaces, **some), seeds=few, method=method, moved=True)
            if method in ("Adafactor", "Adam"):
                yield Entry("e", run=Recipe(on_surfaces, **some, names=AT_ZERO, shift=(0.0, 0.0)), seeds=few,
                            method=method, moved=False)


# ----------------------------------------------------------------------------------------------------------- claims
@experiment.claim("b-spike", "one gradient of 1e5 among ones moves Adam by sqrt(1/(1-b2)) = 31.6 rates, and makes the "
                  "steps after it small", expected="31.62 to 0.01 after 100,000 steps of ones; then below 4e-4")
def b_spike(results):
    run = results.select("b", of="spike")[0]
    moves = np.array(run.columns["adam"])
    largest, after = float(moves.max()), float(moves[moves.argmax() + 1])
    return f"{largest:.3f} rates, then {after:.3g}", abs(largest - 1000**0.5) < 0.01 and after < 4e-4


@experiment.claim("b-memory", "AMSGrad keeps the largest second moment: after the spike its steps do not grow again, "
                  "Adam's do", expected="AMSGrad non-increasing for 1,000 steps; Adam's grow by (1/b2)^(1/2) a step")
def b_memory(results):
    c = results.select("b", of="spike")[0].columns
    at = int(np.argmax(c["adam"]))
    still, adam = np.array(c["amsgrad"][at + 1 :]), np.array(c["adam"][at + 1 :])
    growth = (adam[-1] / adam[0]) ** (1 / (len(adam) - 1))
    return (f"AMSGrad {still[0]:.3g} to {still[-1]:.3g}; Adam {growth:.6f} a step",
            bool((np.diff(still) <= 1e-12).all()) and abs(growth - 0.999**-0.5) < 1e-6)


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


@experiment.claim("w-large", "at a large rate warm-up helps Adam, and RAdam needs none",
                  expected=f"at {LARGE:g} training loss of Adam above that with warm-up, and above RAdam's (95 %); "
                  "false where below one", source="lecture notes; Liu et al., ICLR 2020")
def w_large(results):
    found = results.select("w", lr=LARGE).finals("train_loss")
    return decided(spreads(found), *(lower(found[m], found["Adam"]) for m in ("Adam, warm-up", "RAdam")))


@experiment.claim("w-alike", "RAdam does what warm-up does: each at its best rate they end alike",
                  expected="test accuracies within half a point (95 %); false where further apart",
                  source="lecture notes, their last question")
def w_alike(results):
    found = {m: 100 * v for m, v in results.select("w").at_best().finals("test_accuracy").items()}
    return decided(spreads(found, " %"), close(found["RAdam"], found["Adam, warm-up"], 0.5))


experiment.claim("w-edge", "the rates of parts w and o are wide enough", source="tuning of this script",
                 expected="the best rate is inside its grid, always",
                 )(lambda results: decided(" and ".join(inside(p)(results)[0] for p in "wo"),
                                           *(inside(p)(results)[1] for p in "wo")))


@experiment.claim("o-line", "at equal passes on-line steps go further than off-line ones",
                  expected="20 passes, each at its best rate: training loss of B = 1 below that of B = n (95 %); false "
                  "where above", source="lecture notes")
def o_line(results):
    found = results.select("o").at_best().finals("train_loss")
    return decided(spreads(found), lower(found["on-line"], found["off-line"]))


@experiment.claim("s-switch", "SWATS switches at a relative tolerance of 0.01, and never at the paper's 1e-9",
                  expected="within the first half of the run (95 %), sooner at 0.1; at 1e-9 in no seed",
                  source="ports of SWATS replace 1e-9, which never fires")
def s_switch(results):
    at = np.array([run.columns["switched"] for run in results.select("s")])
    end = 8 if len(at) and np.isfinite(at).any() else 0
    middle = np.minimum(at, 2 * end)
    text = listed({f"tolerance {t:g}": f"epoch {v.mean():.2g}" if np.isfinite(v).all() else
                   f"{np.isfinite(v).sum()} of {len(v)}" for t, v in zip(TOLERANCES, at.T, strict=True)})
    return decided(text, within(middle[:, 1], high=end / 2), lower(middle[:, 0], middle[:, 1]),
                   not np.isfinite(at[:, 3]).any())


def solved(results, moved=True):
    """(shares, methods, surfaces): the share of starts from which each method gets to the global minimum of each
    surface, at the rate with the largest share, of equal ones that with the lowest median height."""
    shares, groups = [], results.select("e", moved=moved).groups("method")
    for _, runs in groups:
        surface, rate = (np.asarray(runs[0].columns[c]) for c in ("surface", "rate"))
        heights = np.array([run.columns["gap"] for run in runs])
        share = {key: (heights[:, k] < SOLVED).mean() for k, key in enumerate(zip(surface, rate, strict=True))}
        shares.append([max(v for (s, _), v in share.items() if s == which) for which in dict.fromkeys(surface)])
    titles = [list(LANDSCAPES)[int(i)] for i in dict.fromkeys(surface)]
    return np.array(shares), [name.replace("-G", "-H") for name, _ in groups], titles


@experiment.claim("e-none", "no method is best everywhere: each is beaten on some surface, by two starts of four or "
                  "more", expected="true of every method; false where one is within a start of the best on all twelve",
                  source="no free lunch")
def e_none(results):
    table, names, _ = solved(results)
    behind = (table.max(0) - table).max(1)
    least = int(behind.argmin())
    return (f"{names[least]} is behind least, by {behind[least] * STARTS:.0f} of {STARTS} starts",
            bool((behind > 1.5 / STARTS).all()))


@experiment.claim("e-zero", "Adafactor finds Rastrigin's and Ackley's minima because they lie at 0, where its steps "
                  "vanish: moved off it, it does not", expected="from most starts as they are, from fewer by half of "
                  "all or more once moved, on both; Adam without such a difference", source="its step: rms(x)")
def e_zero(results):
    (one, names, where), (all_moved, order, titles) = solved(results, False), solved(results)
    found = {}
    for method in ("Adafactor", "Adam"):
        for surface in AT_ZERO:
            found[method, surface] = (one[names.index(method), where.index(surface)],
                                      all_moved[order.index(method), titles.index(surface)])
    text = listed({f"{m} on {s}": f"{a:.0%} at 0, {b:.0%} moved" for (m, s), (a, b) in found.items()})
    return text, all((a > 0.5 and a - b >= 0.5) if m == "Adafactor" else abs(a - b) < 0.5
                     for (m, _), (a, b) in found.items())


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("notes.png", caption="The notes' examples. Left: steps around a gradient of 1e5 among ones, dotted: "
                   "sqrt(1/(1-b2)). Middle: the convex problem with its minimum at -1. Right: RAdam's rectifier.")
def notes_figure(results):
    figure, axes = panels(1, 3)
    run, other = results.select("b", of="spike")[0], results.select("b", of="counterexample")[0]
    at = int(np.argmax(run.columns["adam"]))
    for i, (name, label) in enumerate((("adam", "Adam"), ("amsgrad", "AMSGrad"))):
        axes[0].plot(np.arange(len(run.columns[name])) - at, run.columns[name], label=label, **look(i))
        axes[1].plot(other.columns["step"], other.columns[name], label=label, **look(i))
    axes[0].set(yscale="log", xlabel="steps after the spike", ylabel="|step| / rate", title="a spike at t = 100,001")
    axes[0].axhline(1000**0.5, color="#888888", lw=1, ls=":")
    axes[1].set(xscale="log", xlabel="step", ylabel="x", title=f"C = {BIG:g}, minimum at -1")
    c = results.select("b", of="rectifier")[0].columns
    for i, name in enumerate(n for n in c if n != "step"):
        axes[2].plot(c["step"], c[name], label=name, **look(i))
    axes[2].set(xscale="log", xlabel="step", ylabel="r", title="RAdam's rectifier")
    for ax in axes:
        named(ax)
    return figure


@experiment.figure("warmup.png", caption="Adam, Adam with a warm-up of a tenth of the steps, RAdam, cosine: training "
                   "loss and test accuracy at the end against the rate, mean with its 95 per cent interval.")
def warmup_figure(results):
    figure, axes = panels(1, 2)
    for ax, column, text in zip(axes, ("train_loss", "test_accuracy"), ("training loss", "test accuracy"), strict=True):
        for i, (method, runs) in enumerate(results.select("w").groups("method")):
            by_rate = dict(sorted(runs.groups("lr")))
            values = np.array([some.final(column) for some in by_rate.values()])
            half = 2.776 * values.std(1, ddof=1) / values.shape[1] ** 0.5 if values.shape[1] > 1 else 0
            ax.errorbar(np.array(list(by_rate)) * 1.06 ** (i - 1), values.mean(1), half, marker="o", capsize=4,
                        label=method, **look(i))
        ax.set(xscale="log", xlabel="highest rate", ylabel=text)
    axes[0].set_yscale("log")
    axes[0].legend()
    return figure


@experiment.figure("lines.png", caption="On-line, one row a step, and off-line, all 500 rows a step, each at its "
                   "best rate: training loss and test accuracy by passes (median and quartiles of the seeds).")
def lines_figure(results):
    figure, axes = panels(1, 2)
    some = results.select("o").at_best()
    for ax, column, text in zip(axes, ("train_loss", "test_accuracy"), ("training loss", "test accuracy"), strict=True):
        curves(ax, some, column, ylabel=text, xlabel="passes", legend=False)
        named(ax)
    return figure


@experiment.figure("surfaces.png", caption=f"Share of {STARTS} starts, drawn in the window, from which each method "
                   f"gets to the global minimum (to 1e-6 of the height at the start) in {STEPS} steps, at its best of "
                   "13 rates; in per cent. Surfaces moved by (1.3, -0.7).")
def surfaces_figure(results):
    table, names, titles = solved(results)
    figure, ax = panels(size=(13, min(7.5, 0.3 * len(names) + 1.6)))
    heat(ax, 100 * table[::-1], names[::-1], [LANDSCAPES[name].title for name in titles], "", "",
         "starts that are solved [%]", digits="{:.0f}")
    ax.tick_params(axis="x", rotation=25)
    return figure


if __name__ == "__main__":
    experiment.main()
