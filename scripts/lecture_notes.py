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

import itertools

from figures.lecture_notes import STARTS, STEPS, album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, inside, listed, spreads
from lab.measures import methods, on_surfaces, solved, switches
from lab.results import finer
from lab.verdicts import close, lower, within
from npopt import SGD, Adam, Cosine, RAdam, RandomReshuffling, Stop
from npopt.schedules import WithWarmup
from problems.classifiers import perceptron, rows_of
from problems.examples import counterexample, rectifier, spike

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
    figures=album,
)

BATCH, HELD, ROWS = 128, 1 / 6, 9000  # parts w and s; a sixth of the rows is held out
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # part w
LARGE = 3e-2  # one of them, thirty times the customary one
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-9)  # of SWATS, relative; the paper's last is absolute
AT_ZERO = ("rastrigin", "ackley")


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    rows, epochs = args.pick(ROWS, 300), args.budget(8, 3)
    for function in (spike, counterexample, rectifier):
        yield Entry("b", run=Recipe(function), seeds=[0], of=function.__name__)
    for data in args.data_of("w"):
        problem = Recipe(perceptron, data=data, rows=rows, validation=HELD)
        warm = max(1, epochs * -(-rows_of(data, rows, HELD) // BATCH) // 10)
        for lr in args.pick(RATES, RATES[1::3]):
            some = dict(lr=lr, stop=Stop(epochs=epochs), metrics=2)
            for method, optimizer, schedule in (
                ("Adam", Adam(), Cosine(lr)),
                ("RAdam", RAdam(), Cosine(lr)),
                ("Adam, warm-up", Adam(), WithWarmup(Cosine(lr), warm)),
            ):
                yield Entry("w", problem, optimizer, RandomReshuffling(BATCH), schedule, method=method, **some)
    for data in args.data_of("o"):
        few = args.pick(600, 240)
        problem, n = Recipe(perceptron, data=data, rows=few, validation=HELD), rows_of(data, few, HELD)
        for method, size, rates in (("on-line", 1, (1e-3, 1e-2, 1e-1)), ("off-line", n, (3e-2, 3e-1, 3))):
            for lr in finer(args.pick(rates, rates[1:2]), found, "o", method=method):
                some = dict(method=method, lr=lr, stop=Stop(epochs=args.budget(20, 3)))
                yield Entry("o", problem, SGD(), RandomReshuffling(size), lr, **some)
    for data in args.data_of("s"):
        some = dict(lr=1e-3, epochs=epochs, batch=BATCH, held=HELD, tolerances=TOLERANCES)
        yield Entry("s", run=Recipe(switches, data=data, rows=rows, **some), method="SWATS")
    starts = list(range(args.pick(STARTS, 2)))
    for method in args.pick(list(methods(STEPS)), ("SGD", "Adam", "Adafactor")):
        if method not in ("LARS", "LAMB"):  # two numbers have no layers
            rates = [10 ** (k / 2) for k in range(-10, 3, args.pick(1, 4))]
            some = dict(method=method, rates=rates, steps=args.pick(STEPS, 60))
            yield Entry("e", run=Recipe(on_surfaces, **some), seeds=starts, method=method, moved=True)
            if method in ("Adafactor", "Adam"):
                run = Recipe(on_surfaces, **some, names=AT_ZERO, shift=(0.0, 0.0))
                yield Entry("e", run=run, seeds=starts, method=method, moved=False)


# ----------------------------------------------------------------------------------------------------------- claims
@experiment.claim(
    "b-spike",
    "one gradient of 1e5 among ones moves Adam by sqrt(1/(1-b2)) = 31.6 rates, and makes the steps after it small",
    expected="31.62 to 0.01 after 100,000 steps of ones; then below 4e-4",
)
def b_spike(results):
    run = results.select("b", of="spike")[0]
    moves = np.array(run.columns["adam"])
    largest, after = float(moves.max()), float(moves[moves.argmax() + 1])
    return f"{largest:.3f} rates, then {after:.3g}", abs(largest - 1000**0.5) < 0.01 and after < 4e-4


@experiment.claim(
    "b-memory",
    "AMSGrad keeps the largest second moment: after the spike its steps do not grow again, Adam's do",
    expected="AMSGrad non-increasing for 1,000 steps; Adam's grow by (1/b2)^(1/2) a step",
)
def b_memory(results):
    c = results.select("b", of="spike")[0].columns
    at = int(np.argmax(c["adam"]))
    still, adam = np.array(c["amsgrad"][at + 1 :]), np.array(c["adam"][at + 1 :])
    growth = (adam[-1] / adam[0]) ** (1 / (len(adam) - 1))
    text = f"AMSGrad {still[0]:.3g} to {still[-1]:.3g}; Adam {growth:.6f} a step"
    return text, bool((np.diff(still) <= 1e-12).all()) and abs(growth - 0.999**-0.5) < 1e-6


@experiment.claim(
    "b-wrong",
    "on the convex problem of Reddi et al. Adam goes to the worst point, AMSGrad to the best",
    expected="Adam above 0.95, AMSGrad below -0.95 (C = 3)",
    source="Reddi, Kale & Kumar, ICLR 2018",
)
def b_wrong(results):
    adam, amsgrad = (results.select("b", of="counterexample")[0].final[m] for m in ("adam", "amsgrad"))
    return f"Adam {adam:.3f}, AMSGrad {amsgrad:.3f}", adam > 0.95 and amsgrad < -0.95


@experiment.claim(
    "b-rectifier",
    "RAdam's rectifier starts at t = 5 and rises as predicted (b2 = 0.999)",
    expected="0.017, 0.215, 0.307, 0.645, 0.983 at t = 5, 100, 200, 1000, 5000",
    source="Liu et al., ICLR 2020",
)
def b_rectifier(results):
    c = results.select("b", of="rectifier")[0].columns
    at = dict(zip(np.asarray(c["step"], int), c["b2 0.999"], strict=True))
    expected = {5: 0.017, 100: 0.215, 200: 0.307, 1000: 0.645, 5000: 0.983}
    first = min(t for t, v in at.items() if np.isfinite(v))
    text = f"first t = {first}; " + listed({t: f"{at[t]:.3f}" for t in expected})
    return text, first == 5 and all(abs(at[t] - v) < 6e-4 for t, v in expected.items())


@experiment.claim(
    "w-large",
    "at a large rate warm-up helps Adam, and RAdam needs none",
    expected=f"at {LARGE:g} training loss of Adam above that with warm-up, and above RAdam's (95 %); false where below "
    "one",
    source="lecture notes; Liu et al., ICLR 2020",
)
def w_large(results):
    found = results.select("w", lr=LARGE).finals("train_loss")
    return decided(spreads(found), *(lower(found[m], found["Adam"]) for m in ("Adam, warm-up", "RAdam")))


@experiment.claim(
    "w-alike",
    "RAdam does what warm-up does: each at its best rate they end alike",
    expected="test accuracies within half a point (95 %); false where further apart",
    source="lecture notes, their last question",
)
def w_alike(results):
    found = {m: 100 * v for m, v in results.select("w").at_best().finals("test_accuracy").items()}
    return decided(spreads(found, " %"), close(found["RAdam"], found["Adam, warm-up"], 0.5))


@experiment.claim(
    "w-edge",
    "the rates of parts w and o are wide enough",
    expected="the best rate is inside its grid, always",
    source="tuning of this script",
)
def w_edge(results):
    found = [inside(part)(results) for part in "wo"]
    return decided(" and ".join(outcome[0] for outcome in found), *(outcome[1] for outcome in found))


@experiment.claim(
    "o-line",
    "at equal passes on-line steps go further than off-line ones",
    expected="20 passes, each at its best rate: training loss of B = 1 below that of B = n (95 %); false where above",
    source="lecture notes",
)
def o_line(results):
    found = results.select("o").at_best().finals("train_loss")
    return decided(spreads(found), lower(found["on-line"], found["off-line"]))


@experiment.claim(
    "s-switch",
    "SWATS switches at a relative tolerance of 0.01, and never at the paper's 1e-9",
    expected="within the first half of the run (95 %), sooner at 0.1; at 1e-9 in no seed",
    source="ports of SWATS replace 1e-9, which never fires",
)
def s_switch(results):
    at = np.array([run.columns["switched"] for run in results.select("s")])
    end = 8 if len(at) and np.isfinite(at).any() else 0
    middle = np.minimum(at, 2 * end)
    epochs = {f"tolerance {t:g}": column for t, column in zip(TOLERANCES, at.T, strict=True)}
    known = {name: np.isfinite(v) for name, v in epochs.items()}
    text = {
        m: f"epoch {v.mean():.2g}" if known[m].all() else f"{known[m].sum()} of {len(v)}" for m, v in epochs.items()
    }
    early, sooner = within(middle[:, 1], high=end / 2), lower(middle[:, 0], middle[:, 1])
    return decided(listed(text), early, sooner, not np.isfinite(at[:, 3]).any())


@experiment.claim(
    "e-none",
    "no method is best everywhere: each is beaten on some surface, by two starts of four or more",
    expected="true of every method; false where one is within a start of the best on all twelve",
    source="no free lunch",
)
def e_none(results):
    table, names, _ = solved(results.select("e", moved=True))
    behind = (table.max(0) - table).max(1)
    least = int(behind.argmin())
    text = f"{names[least]} is behind least, by {behind[least] * STARTS:.0f} of {STARTS} starts"
    return text, bool((behind > 1.5 / STARTS).all())


@experiment.claim(
    "e-zero",
    "Adafactor finds Rastrigin's and Ackley's minima because they lie at 0, where its steps vanish: moved off it, it "
    "does not",
    expected="from most starts as they are, from fewer by half of all or more once moved, on both; Adam without such a "
    "difference",
    source="its step: rms(x)",
)
def e_zero(results):
    at_zero, moved = {}, {}
    for found, tag in ((at_zero, False), (moved, True)):
        table, methods, surfaces = solved(results.select("e", moved=tag))
        for method, surface in itertools.product(("Adafactor", "Adam"), AT_ZERO):
            found[method, surface] = table[methods.index(method), surfaces.index(surface)]
    lost = {key: share - moved[key] for key, share in at_zero.items()}
    text = listed({f"{m} on {s}": f"{a:.0%} at 0, {moved[m, s]:.0%} moved" for (m, s), a in at_zero.items()})
    special = all(at_zero["Adafactor", s] > 0.5 and lost["Adafactor", s] >= 0.5 for s in AT_ZERO)
    return text, special and all(abs(lost["Adam", s]) < 0.5 for s in AT_ZERO)


if __name__ == "__main__":
    experiment.main()
