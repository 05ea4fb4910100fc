"""SGD, momentum, AdaGrad, RMSProp, Adam: how do they move, and which one ends best?   Course task A4.

On surfaces of two variables the five methods start together. What the known animations show is checked by numbers: on a
saddle SGD leaves the ridge at the rate 1 + 2 lr a step, methods with a rate for every coordinate leave at once; the
first step is lr for AdaGrad and Adam, lr/sqrt(1-a) for RMSProp, that of SGD for momentum. Between two noisy half-moons
the gradients are those of four points: momentum smooths its way and overshoots. Then logistic regression
(l2 = 1e-4, batch 64), each method at the best of seven rates, chosen on rows that are held out: adaptive methods should
lead early on sparse features, and all end within some tenths of a percent. Then ResNet-18, where full training is known
to end with momentum SGD first and AdaGrad last, the adaptive methods leading early.

Run time on 2 cores: --quick about half a minute; --data real --jobs 2 --threads 1 about 40 minutes.
"""

import functools
import math

from lab import Entry, Experiment, Part, Recipe, Undecided
from lab.charts import tuned
from lab.claims import decided, inside, larger, listed, on_every, spread
from lab.figures import COLOURS, MARKERS, below, closer, curves, panels
from lab.results import finer
from lab.surfaces import map_of, moving, on_relief, relief, way_of
from lab.verdicts import close, lower, together
from npopt import SGD, AdaGrad, Adam, Cosine, HeavyBall, RandomReshuffling, RMSProp, Stop
from problems import LANDSCAPES, Surface
from problems.classifiers import resnet
from problems.convex import Moons, held_out

import numpy as np

experiment = Experiment(
    __doc__,
    task="A4",
    source="Duchi et al. 2011; Tieleman & Hinton 2012; Kingma & Ba 2015; after the animations of A. Radford",
    parts={
        "a": Part("surfaces of two variables, with animations"),
        "b": Part("logistic regression, seven rates each", "breast_cancer", ("a9a", "w8a")),
        "c": Part("ResNet-18, rates a factor 3 apart", "digits", "cifar-10-jpeg"),
        "d": Part("two noisy half-moons, with an animation"),
    },
    seeds=10,
)

METHODS = {"SGD": SGD(), "momentum": HeavyBall(0.9), "AdaGrad": AdaGrad(), "RMSProp": RMSProp(), "Adam": Adam()}
STEPS = 300
MOVES = {                                                       # rates of the five, in that order
    "beale": (0.01, 0.003, 0.5, 0.02, 0.15), "valley": (0.3, 0.05, 0.5, 0.03, 0.15),
    "saddle": (0.03, 0.01, 0.4, 0.02, 0.05), "rosenbrock": (0.001, 0.0004, 0.3, 0.01, 0.1),
    "himmelblau": (0.01, 0.003, 0.8, 0.03, 0.2), "six-hump camel": (0.02, 0.005, 0.4, 0.02, 0.08),
    "three-hump camel": (0.02, 0.005, 0.4, 0.02, 0.1), "goldstein-price": (2e-5, 5e-6, 0.3, 0.01, 0.05),
    "mccormick": (0.05, 0.01, 0.5, 0.03, 0.1), "styblinski-tang": (0.01, 0.003, 0.6, 0.03, 0.1),
    "rastrigin": (0.003, 0.001, 0.4, 0.02, 0.1), "ackley": (0.05, 0.02, 0.4, 0.02, 0.1),
}
MOONS = dict(zip(METHODS, (1.0, 0.1, 0.5, 0.05, 0.2), strict=True))    # momentum's effective step is that of SGD
ANIMATED = ("beale", "valley", "saddle", "himmelblau")
RATES = {"SGD": 1.0, "momentum": 0.1, "AdaGrad": 0.1, "RMSProp": 3e-3, "Adam": 3e-3}
FACTORS = (1 / 27, 1 / 9, 1 / 3, 1, 3, 9, 27)
DEEP = {"SGD": (SGD(), 0.1), "momentum": (HeavyBall(0.9), 0.03), "AdaGrad": (AdaGrad(), 0.01),
        "RMSProp": (RMSProp(), 1e-3), "Adam": (Adam(), 1e-3)}           # of part c: optimizer and customary rate
moons = functools.cache(Moons)


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args, found=None):
    for name, rates in MOVES.items():
        for (method, optimizer), lr in zip(METHODS.items(), rates, strict=True):
            yield Entry("a", Recipe(Surface, name=name, start=LANDSCAPES[name].start), optimizer, RandomReshuffling(1),
                        lr, stop=Stop(steps=STEPS), metrics=1, per="step", seeds=[0], surface=name, method=method)
    for method, optimizer in METHODS.items():
        yield Entry("d", Recipe(Moons), optimizer, RandomReshuffling(4), MOONS[method], stop=Stop(steps=STEPS),
                    metrics=1, per="step", method=method)
    for data in args.data_of("b")[:args.pick(None, 1)]:
        for method, optimizer in METHODS.items():
            for lr in finer([RATES[method] * k for k in args.pick(FACTORS, FACTORS[2:5])], found, "b", data=data,
                            method=method):
                yield Entry("b", Recipe(held_out, data=data), optimizer, RandomReshuffling(64), lr, metrics=1,
                            stop=Stop(epochs=args.budget(30, 10)), data=data, method=method, lr=lr)
    for data in args.data_of("c"):
        problem = Recipe(resnet, data=data, width=args.pick(8, 4), rows=args.pick(6000, 600), validation=1 / 6,
                         test_rows=args.pick(None, 2000), l2=5e-4)
        for method, (optimizer, base) in DEEP.items():
            for lr in finer([base * k for k in args.pick(FACTORS[3:], (1,))], found, "c", method=method):
                yield Entry("c", problem, optimizer, RandomReshuffling(128), Cosine(lr), method=method, lr=lr,
                            stop=Stop(epochs=args.budget(15, 4)), metrics=args.pick(3, 2))


# ----------------------------------------------------------------------------------------------------------- claims
def ways(results, surface):
    """{method: its way on a surface, (steps + 1, 2)}"""
    return {method: way_of(runs[0]) for method, runs in results.select("a", surface=surface).groups("method")}


@experiment.claim("a-first", "the first step is lr in each coordinate for AdaGrad and Adam, lr/sqrt(1-a) for RMSProp, "
                  "and that of SGD for momentum", expected="to 1e-3, on every surface")
def a_first(results):
    worst = 0.0
    for surface, rates in MOVES.items():
        gradient = np.array(LANDSCAPES[surface].gradient(*LANDSCAPES[surface].start))
        sign = np.sign(gradient)
        expected = {"SGD": rates[0] * gradient, "momentum": rates[1] * gradient, "AdaGrad": rates[2] * sign,
                    "RMSProp": rates[3] / math.sqrt(0.01) * sign, "Adam": rates[4] * sign}
        for method, way in ways(results, surface).items():
            step = expected[method]
            worst = max(worst, float(np.abs((way[0] - way[1]) / np.where(step == 0, 1, step) - (step != 0)).max()))
    return f"largest relative error {worst:.1g}", worst < 1e-3


@experiment.claim("a-saddle", "from (0.5, 1e-4) on the saddle, SGD needs about ln(1/y0)/(2 lr) steps to |y| > 1, "
                  "methods with a rate for each coordinate far fewer",
                  expected="SGD within 20 % of the prediction; AdaGrad, RMSProp and Adam under a third of it")
def a_saddle(results):
    y0, lr = LANDSCAPES["saddle"].start[1], MOVES["saddle"][0]
    predicted, found = math.log(1 / y0) / math.log(1 + 2 * lr), {}
    for method, way in ways(results, "saddle").items():
        away = np.flatnonzero(np.abs(way[:, 1]) > 1)
        found[method] = int(away[0]) if len(away) else math.inf
    fast = all(found[m] < predicted / 3 for m in ("AdaGrad", "RMSProp", "Adam"))
    return listed(found) + f"; predicted for SGD {predicted:.0f}", abs(found["SGD"] / predicted - 1) < 0.2 and fast


@experiment.claim("a-valley", "in the long valley SGD's first step goes across it, that of AdaGrad, RMSProp and Adam "
                  "as far along as across", expected="|dx/dy| below 0.5 for SGD, 1 to 1e-3 for the others")
def a_valley(results):
    found = {m: abs(float(np.divide(*np.diff(way[:2], axis=0)[0]))) for m, way in ways(results, "valley").items()}
    return listed(found), found["SGD"] < 0.5 and all(abs(found[m] - 1) < 1e-3 for m in ("AdaGrad", "RMSProp", "Adam"))


@experiment.claim("a-end", "each method comes close to a minimum of the simpler surfaces within 300 steps",
                  expected="|gradient| below 1e-2 of its start, on Beale, the valley, Himmelblau and the three-hump "
                  "camel (a local minimum counts)")
def a_end(results):
    late = {}
    for surface in ("beale", "valley", "himmelblau", "three-hump camel"):
        for method, way in ways(results, surface).items():
            first, last = (np.hypot(*LANDSCAPES[surface].gradient(*way[k])) for k in (0, -1))
            if not last <= 1e-2 * first:
                late[f"{surface} {method}"] = float(last / first)
    return listed(late) if late else "all", not late


@experiment.claim("d-smooth", "on noisy gradients momentum and Adam smooth their way, the others follow every batch",
                  expected="mean cosine of neighbouring steps, after 100 steps: above 0.5, and below 0.2")
def d_smooth(results):
    found = {}
    for method, runs in results.select("d").groups("method"):
        steps = [np.diff(way_of(run), axis=0)[100:] for run in runs]
        steps = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in steps]
        found[method] = float(np.mean([(s[1:] * s[:-1]).sum(1).mean() for s in steps]))
    return listed(found), all((c > 0.5) if m in ("momentum", "Adam") else (c < 0.2) for m, c in found.items())


@experiment.claim("d-overshoot", "with the same effective step momentum overshoots the minimum further than SGD",
                  expected="farthest beyond the minimum, in parts of the line from the start to it: more in every seed")
def d_overshoot(results):
    start = moons().start
    line = moons().best - start
    past = {m: [float(((way_of(run) - start) @ line / (line @ line)).max()) - 1 for run in runs]
            for m, runs in results.select("d").groups("method")}
    return (listed({m: float(np.mean(v)) for m, v in past.items()}),
            all(a > b for a, b in zip(past["momentum"], past["SGD"], strict=True)))


@experiment.claim("b-close", "tuned alike, all five end with nearly the same test accuracy",
                  expected="each within 0.5 points of the best of them (95 %), on every set", source="task A4")
def b_close(results):
    def judged(data, runs):
        ends = {m: 100 * v for m, v in runs.at_best().finals("test_accuracy").items()}
        top = max(ends.values(), key=np.mean)
        return (", ".join(f"{m} {v.mean():.2f}" for m, v in ends.items()),
                together(close(v, top, 0.5) for v in ends.values()))
    return on_every(results.select("b").groups("data"), judged)


def leading(values):
    """(text, verdict): the best adaptive method below the better of SGD and momentum; {method: values over seeds}."""
    adaptive, plain = (min(names, key=lambda m: np.mean(values[m]))
                       for names in (("AdaGrad", "RMSProp", "Adam"), ("SGD", "momentum")))
    text = f"{adaptive} {spread(values[adaptive])}, {plain} {spread(values[plain])}"
    return text, lower(values[adaptive], values[plain])


@experiment.claim("b-early", "on sparse features AdaGrad or Adam leads after the first epoch",
                  expected="objective after epoch 1: the best of AdaGrad, RMSProp and Adam below the better of SGD and "
                  "momentum (95 %), on sparse sets", source="Duchi, Hazan & Singer, JMLR 2011")
def b_early(results):
    sparse = [(data, runs) for data, runs in results.select("b").groups("data") if data != "breast_cancer"]
    if not sparse:
        raise Undecided("the bundled set is dense")
    return on_every(sparse, lambda data, runs: leading(
        {m: g.at("objective", 2) for m, g in runs.at_best().groups("method")}))


for part, of in (("b", ("data", "method")), ("c", "method")):
    experiment.claim(f"{part}-edge", "the rates are wide enough", expected="the best rate is inside its grid, always",
                     source="tuning of this script")(inside(part, of=of))


@experiment.claim("c-early", "ResNet-18: the adaptive methods lead early",
                  expected="after a fifth of the epochs the training loss of the best of AdaGrad, RMSProp and Adam is "
                  "below that of the better of SGD and momentum (95 %)",
                  source="Wilson et al., NeurIPS 2017; Luo et al., ICLR 2019")
def c_early(results):
    stacks = {m: runs.stack("train_loss") for m, runs in results.select("c").at_best().groups("method")}
    return decided(*leading({m: v[:, np.searchsorted(t, t[-1] / 5 - 1e-9)] for m, (t, v) in stacks.items()}))


for one, two in (("momentum", "Adam"), ("SGD", "Adam"), ("Adam", "AdaGrad")):
    experiment.claim(f"c-{one}-{two}".lower(), f"ResNet-18: {one} ends above {two}",
                     expected="test accuracy above (95 %); false where it is below, or alike to 0.2 points",
                     source="pattern of Wilson et al., NeurIPS 2017",
                     )(larger("c", one, two, "test_accuracy", "validation_loss", 0.002))


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure("surfaces.png", caption="Twelve surfaces, the same start for all five methods, 300 steps. Grey: "
                   "log of the height above the minimum, which is white. Formulas: problems/landscapes.py.")
def surfaces_figure(results):
    figure, axes = panels(4, 3, size=(17, 19))
    for ax, name in zip(axes.flat, MOVES, strict=True):
        map_of(ax, LANDSCAPES[name])
        for i, (method, way) in enumerate(ways(results, name).items()):
            ax.plot(*way.T, lw=1.8, label=method, color=COLOURS[i])
    return below(figure, axes.flat[0], 7)


@experiment.figure("gaps.png", caption="The twelve surfaces: height above the least value by step.")
def gaps_figure(results):
    figure, axes = panels(3, 4, size=(19, 11))
    for ax, name in zip(axes.flat, MOVES, strict=True):
        for i, (method, runs) in enumerate(results.select("a", surface=name).groups("method")):
            gap = runs[0].columns["gap"]
            ax.plot(np.where(gap > 1e-14, gap, np.nan), color=COLOURS[i], label=method, lw=1.6)
        ax.set(yscale="log", xlabel="step", ylabel="f - f*", title=LANDSCAPES[name].title)
    return below(figure, axes.flat[0])


@experiment.figure("views.png", caption="Four surfaces in relief, log(1 + f - f*), with the ways of the five methods. "
                   "Cross: start.")
def views_figure(results):
    figure, axes = panels(1, 4, size=(20, 5.6), subplot_kw={"projection": "3d", "computed_zorder": False})
    for ax, name in zip(axes, ANIMATED, strict=True):
        land = LANDSCAPES[name]
        relief(ax, land)
        for i, (method, way) in enumerate(ways(results, name).items()):
            ax.plot(*on_relief(land, way), color=COLOURS[i], lw=2, label=method, zorder=5)
        ax.plot(*on_relief(land, np.array([land.start])), "X", color="black", ms=9, label="start", zorder=6)
    return below(figure, axes[0], 6)


@experiment.figure("saddle_relief.gif", caption="The saddle in relief: SGD stays on the ridge, methods with a rate for "
                   "each coordinate leave it at once.")
def relief_animation(results, args):
    land = LANDSCAPES["saddle"]
    figure, ax = panels(size=(6.4, 5.4), subplot_kw={"projection": "3d", "computed_zorder": False})
    relief(ax, land)
    lines = []
    for i, (method, way) in enumerate(ways(results, "saddle").items()):
        line = ax.plot([], [], [], color=COLOURS[i], lw=2, zorder=5)[0]
        head = ax.plot([], [], [], MARKERS[i], color=COLOURS[i], ms=8, mec="white", label=method, zorder=6)[0]
        lines.append((on_relief(land, way), line, head))
    below(figure, ax, 5, fontsize=9)
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for t in shown(args):
        for points, line, head in lines:
            line.set_data_3d(*points[:, :t + 1])
            head.set_data_3d(*points[:, t:t + 1])
        ax.set_title(f"step {t}")
        yield figure


def shown(args):
    """The steps that are frames: the first one by one, then ever faster."""
    late = np.geomspace(30, STEPS, args.pick(21, 2)).round()
    return sorted({*range(0, 30, args.pick(1, 15)), *late.astype(int).tolist()})


for name in ANIMATED:
    @experiment.figure(f"{name}.gif", caption=f"{LANDSCAPES[name].title}, f = {LANDSCAPES[name].formula}: the first "
                       "steps one by one, then ever faster. Cross: start; star: minimum.")
    def animation(results, args, name=name):
        runs = {m: group[0] for m, group in results.select("a", surface=name).groups("method")}
        return moving(lambda ax: map_of(ax, LANDSCAPES[name]), runs, shown(args))


def moons_map(ax):
    """Contours of the objective in the plane of the two weights, in the greys of the landscapes."""
    problem = moons()
    x, y = np.meshgrid(np.linspace(-1.8, 2.6, 120), np.linspace(-3.2, 1.2, 120))
    margins = problem.signs * (np.stack([x, y], 2) @ problem.points.T)
    height = np.logaddexp(0, -margins).mean(2) + 0.005 * (x**2 + y**2) - problem.least
    ax.contourf(x, y, np.sqrt(height), 12, colors=[str(0.97 - 0.35 * k / 12) for k in range(13)])
    ax.plot(*problem.best, "*", color="black", ms=13, label="minimum", zorder=5)
    ax.plot(*problem.start, "X", color="black", ms=9, label="start", zorder=5)
    ax.set(xlim=(-1.8, 2.6), ylim=(-3.2, 1.2), xlabel="first weight", ylabel="second weight", title="two half-moons")
    ax.grid(False)


@experiment.figure("moons.png", caption="Two noisy half-moons, logistic regression with two weights, four points a "
                   "step: the points with the line of least loss; the ways of seed 0 on the objective (grey: square "
                   "root of its height above the minimum); f - f* by step (median and range over seeds).")
def moons_figure(results):
    problem = moons()
    figure, (left, middle, right) = panels(1, 3, size=(17, 5.2))
    for sign, i, name in ((-1, 5, "class -1"), (1, 6, "class +1")):
        left.plot(*problem.points[problem.signs == sign].T, MARKERS[i], color=COLOURS[i], ms=4, alpha=0.7, label=name)
    ends = np.array([-2.5, 2.5])
    left.plot(ends, -ends * problem.best[0] / problem.best[1], color="black", lw=1.5, label="w.a = 0")
    left.set(xlim=(-2.5, 2.5), ylim=(-2.8, 2.8), xlabel="first feature", ylabel="second feature", title="the points")
    left.legend(fontsize=9)
    moons_map(middle)
    for i, (method, runs) in enumerate(results.select("d").groups("method")):
        middle.plot(*way_of(runs[0]).T, color=COLOURS[i], lw=1.2, label=method)
    middle.legend(fontsize=8, loc="upper right")
    curves(right, results.select("d"), "gap", "step", legend=False)
    right.set(yscale="log", ylim=(3e-5, 3), ylabel="f - f*", title="four points a step, three seeds")
    return figure


@experiment.figure("moons.gif", caption="Two noisy half-moons: the five methods on the objective of all points, led by "
                   "the gradients of four. Cross: start; star: minimum.")
def moons_animation(results, args):
    return moving(moons_map, {m: group[0] for m, group in results.select("d").groups("method")}, shown(args))


@experiment.figure("logistic.png", caption="Logistic regression, each method at its best rate: objective and test "
                   "accuracy by epoch (median and range over seeds).")
def logistic_figure(results):
    groups = results.select("b").groups("data")
    figure, axes = panels(len(groups), 2, squeeze=False)
    for row, (data, runs) in zip(axes, groups, strict=True):
        some = runs.at_best()
        for ax, column, text in zip(row, ("objective", "test_accuracy"), ("training objective", "test accuracy"),
                                    strict=True):
            curves(ax, some, column, ylabel=text, legend=False)
            closer(ax, some, column, 0.001, 0.001, top=99)
            ax.set_title(data)
    return below(figure, axes[0, 0])


@experiment.figure("resnet.png", caption="ResNet-18 at reduced width on part of the training set, each method at its "
                   "best rate, cosine, l2 = 5e-4: training loss and test accuracy by epoch; right: loss of held-out "
                   "rows against the rate.")
def resnet_figure(results):
    return tuned(results.select("c"))


if __name__ == "__main__":
    experiment.main()
