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

from lab import (
    Entry,
    Experiment,
    Part,
    Recipe,
    Undecided,
    dataset,
    decided,
    inside,
    larger,
    listed,
    lower,
    spread,
)
from lab.figures import COLOURS, MARKERS, curves, panels, tuned
from npopt import SGD, AdaGrad, Adam, Cosine, HeavyBall, RandomReshuffling, RMSProp, Stop, backend
from problems import LANDSCAPES, Logistic, Surface
from problems.classifiers import resnet

import numpy as np
from sklearn.datasets import make_moons

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
    seeds=3,
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
DEEP = {                                                        # of part c: optimizer and customary rate
    "SGD": (SGD(), 0.1), "momentum": (HeavyBall(0.9), 0.03), "AdaGrad": (AdaGrad(), 0.01), "RMSProp":
    (RMSProp(), 1e-3), "Adam": (Adam(), 1e-3),
}


# --------------------------------------------------------------------------------------------------------- problems
class HeldOut(Logistic):
    """Logistic regression with a fifth of the training rows held out: validation_accuracy beside the other metrics."""

    def metrics(self, x):
        scores = np.asarray(self.held @ backend.to_host(x)).ravel()
        return {**super().metrics(x), "validation_accuracy": float(((scores > 0) == (self.labels > 0)).mean())}


def logistic(data):
    d = dataset(data)
    if d.images or d.classes is None or len(d.classes) != 2:
        raise ValueError(f"part b needs a table with two classes, such as a9a; {data} is not one")
    labels = np.where(np.asarray(d.y_train) > 0, 1.0, -1.0)
    order = np.random.default_rng(0).permutation(len(labels))
    cut = len(order) * 4 // 5
    test = None if d.x_test is None else (d.x_test, np.where(np.asarray(d.y_test) > 0, 1.0, -1.0))
    problem = HeldOut(d.x_train[order[:cut]], labels[order[:cut]], 1e-4, test=test, name=data)
    problem.held, problem.labels = d.x_train[order[cut:]], labels[order[cut:]]
    return problem


class Moons(Logistic):
    """Two noisy half-moons, 500 points, standardised; logistic regression with two weights, l2 = 0.01.

    The metrics tell the weights, x and y, and the gap f - f* of the whole objective.
    """

    def __init__(self):
        points, labels = make_moons(500, noise=0.3, random_state=0)
        self.points, self.signs = (points - points.mean(0)) / points.std(0), 2.0 * labels - 1
        super().__init__(self.points, self.signs, 1e-2, name="moons")
        self.best, self.least = self.minimum()
        self.start = (-1.5, 1.0)

    def x0(self, rng=None):
        return backend.asarray(np.array(self.start))

    def metrics(self, x):
        x = backend.to_host(x)
        return {"gap": super().metrics(x)["objective"] - self.least, "x": float(x[0]), "y": float(x[1])}


moons = functools.cache(Moons)


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    for name, rates in MOVES.items():
        for (method, optimizer), lr in zip(METHODS.items(), rates, strict=True):
            yield Entry("a", f"{name}: {method}", Recipe(Surface, name=name, start=LANDSCAPES[name].start), optimizer,
                        RandomReshuffling(1), lr, stop=Stop(steps=STEPS), metrics=1, per="step", seeds=[0])
    for method, optimizer in METHODS.items():
        yield Entry("d", method, Recipe(Moons), optimizer, RandomReshuffling(4), MOONS[method], stop=Stop(steps=STEPS),
                    metrics=1, per="step")
    for data in args.data_of("b")[:args.pick(None, 1)]:
        for method, optimizer in METHODS.items():
            for factor in args.pick(FACTORS, FACTORS[2:5]):
                lr = RATES[method] * factor
                yield Entry("b", f"{data}, {method}: {lr:.3g}", Recipe(logistic, data=data), optimizer,
                            RandomReshuffling(64), lr, stop=Stop(epochs=args.budget(30, 10)), metrics=0.5)
    for data in args.data_of("c"):
        problem = Recipe(resnet, data=data, width=args.pick(8, 4), rows=args.pick(6000, 600), validation=1 / 6,
                         test_rows=args.pick(None, 2000), l2=5e-4)
        for method, (optimizer, base) in DEEP.items():
            for factor in args.pick(FACTORS[3:], (1,)):
                yield Entry("c", f"{method}: {base * factor:.3g}", problem, optimizer, RandomReshuffling(128),
                            Cosine(base * factor), stop=Stop(epochs=args.budget(15, 10)), metrics=args.pick(3, 2))


# ----------------------------------------------------------------------------------------------------------- claims
def way_of(run):
    """(steps + 1, 2): where a run has been."""
    return np.stack([run.columns["x"], run.columns["y"]], 1)


def path(results, surface, method):
    """The way of a method on a surface."""
    return way_of(results.select("a", f"{surface}: {method}")[0])


@experiment.claim("a-first", "the first step is lr in each coordinate for AdaGrad and Adam, lr/sqrt(1-a) for RMSProp, "
                  "and that of SGD for momentum", expected="to 1e-3, on every surface")
def a_first(results):
    worst = 0.0
    for surface, rates in MOVES.items():
        gradient = np.array(LANDSCAPES[surface].gradient(*LANDSCAPES[surface].start))
        sign = np.sign(gradient)
        expected = {"SGD": rates[0] * gradient, "momentum": rates[1] * gradient, "AdaGrad": rates[2] * sign,
                    "RMSProp": rates[3] / math.sqrt(0.01) * sign, "Adam": rates[4] * sign}
        for method, step in expected.items():
            way = path(results, surface, method)
            worst = max(worst, float(np.abs((way[0] - way[1]) / np.where(step == 0, 1, step) - (step != 0)).max()))
    return f"largest relative error {worst:.1g}", worst < 1e-3


@experiment.claim("a-saddle", "from (0.5, 1e-4) on the saddle, SGD needs about ln(1/y0)/(2 lr) steps to |y| > 1, "
                  "methods with a rate for each coordinate far fewer",
                  expected="SGD within 20 % of the prediction; AdaGrad, RMSProp and Adam under a third of it")
def a_saddle(results):
    y0, lr = LANDSCAPES["saddle"].start[1], MOVES["saddle"][0]
    predicted, found = math.log(1 / y0) / math.log(1 + 2 * lr), {}
    for method in METHODS:
        away = np.flatnonzero(np.abs(path(results, "saddle", method)[:, 1]) > 1)
        found[method] = int(away[0]) if len(away) else math.inf
    fast = all(found[m] < predicted / 3 for m in ("AdaGrad", "RMSProp", "Adam"))
    return listed(found) + f"; predicted for SGD {predicted:.0f}", abs(found["SGD"] / predicted - 1) < 0.2 and fast


@experiment.claim("a-valley", "in the long valley SGD's first step goes across it, that of AdaGrad, RMSProp and Adam "
                  "as far along as across", expected="|dx/dy| below 0.5 for SGD, 1 to 1e-3 for the others")
def a_valley(results):
    ways = {m: np.diff(path(results, "valley", m)[:2], axis=0)[0] for m in METHODS}
    found = {m: abs(float(d[0] / d[1])) for m, d in ways.items()}
    return listed(found), found["SGD"] < 0.5 and all(abs(found[m] - 1) < 1e-3 for m in ("AdaGrad", "RMSProp", "Adam"))


@experiment.claim("a-end", "each method comes close to a minimum of the simpler surfaces within 300 steps",
                  expected="|gradient| below 1e-2 of its start, on Beale, the valley, Himmelblau and the three-hump "
                  "camel (a local minimum counts)")
def a_end(results):
    late = {}
    for surface in ("beale", "valley", "himmelblau", "three-hump camel"):
        for method in METHODS:
            way = path(results, surface, method)
            first, last = (np.hypot(*LANDSCAPES[surface].gradient(*way[k])) for k in (0, -1))
            if not last <= 1e-2 * first:
                late[f"{surface} {method}"] = float(last / first)
    return listed(late) if late else "all", not late


@experiment.claim("d-smooth", "on noisy gradients momentum and Adam smooth their way, the others follow every batch",
                  expected="mean cosine of neighbouring steps, after 100 steps: above 0.5, and below 0.2")
def d_smooth(results):
    found = {}
    for method in METHODS:
        steps = [np.diff(way_of(run), axis=0)[100:] for run in results.select("d", method)]
        steps = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in steps]
        found[method] = float(np.mean([(s[1:] * s[:-1]).sum(1).mean() for s in steps]))
    return listed(found), all((c > 0.5) if m in ("momentum", "Adam") else (c < 0.2) for m, c in found.items())


@experiment.claim("d-overshoot", "with the same effective step momentum overshoots the minimum further than SGD",
                  expected="farthest beyond the minimum, in parts of the line from the start to it: more in every seed")
def d_overshoot(results):
    start = moons().start
    line = moons().best - start
    past = {m: [float(((way_of(run) - start) @ line / (line @ line)).max()) - 1 for run in results.select("d", m)]
            for m in METHODS}
    return (listed({m: float(np.mean(v)) for m, v in past.items()}),
            all(a > b for a, b in zip(past["momentum"], past["SGD"], strict=True)))


def chosen(results):
    """{data: {method: its runs at the rate with the best held-out accuracy}}."""
    best = {}
    for name, found in results.select("b").tuned("validation_accuracy").items():
        data, method = name.split(", ")
        best.setdefault(data, {})[method] = found.runs
    return best


@experiment.claim("b-close", "tuned alike, all five end with nearly the same test accuracy",
                  expected="within 0.5 points of the best, on every set", source="course task A4")
def b_close(results):
    best = chosen(results)
    found, holds = {}, True
    for data, methods in best.items():
        ends = {m: 100 * float(np.mean(g.final("test_accuracy"))) for m, g in methods.items()}
        found[data] = ", ".join(f"{m} {v:.2f}" for m, v in ends.items())
        holds &= max(ends.values()) - min(ends.values()) <= 0.5
    return listed(found), holds


def leading(values):
    """(text, verdict): the best adaptive method below the better of SGD and momentum; {method: values over seeds}."""
    adaptive, plain = (min(names, key=lambda m: np.mean(values[m]))
                       for names in (("AdaGrad", "RMSProp", "Adam"), ("SGD", "momentum")))
    text = f"{adaptive} {spread(values[adaptive])}, {plain} {spread(values[plain])}"
    return text, lower(values[adaptive], values[plain])


@experiment.claim("b-early", "on sparse features AdaGrad or Adam leads after the first epoch",
                  expected="objective after epoch 1: the best of AdaGrad, RMSProp and Adam below the better of SGD and "
                  "momentum by two standard deviations, on sparse sets",
                  source="Duchi, Hazan & Singer, JMLR 2011")
def b_early(results):
    sparse = {data: methods for data, methods in chosen(results).items() if data != "breast_cancer"}
    if not sparse:
        raise Undecided("the bundled set is dense")
    found = {data: leading({m: [run.columns["objective"][2] for run in g] for m, g in methods.items()})
             for data, methods in sparse.items()}
    return decided(listed({data: text for data, (text, _) in found.items()}), *(v for _, v in found.values()))


for part in "bc":
    experiment.claim(f"{part}-edge", "the rates are wide enough", expected="the best rate is inside its grid, always",
                     source="tuning of this script")(inside(part, "validation_accuracy"))


@experiment.claim("c-early", "ResNet-18: the adaptive methods lead early",
                  expected="after a fifth of the epochs the training loss of the best of AdaGrad, RMSProp and Adam is "
                  "below that of the better of SGD and momentum, by two standard deviations",
                  source="Wilson et al., NeurIPS 2017; Luo et al., ICLR 2019")
def c_early(results):
    found = {}
    for method, best in results.select("c").tuned("validation_accuracy").items():
        epochs, losses = best.runs.stack("train_loss")
        found[method] = losses[:, np.searchsorted(epochs, epochs[-1] / 5 - 1e-9)]
    return decided(*leading(found))


for one, two in (("momentum", "Adam"), ("SGD", "Adam"), ("Adam", "AdaGrad")):
    experiment.claim(f"c-{one}-{two}".lower(), f"ResNet-18: {one} ends above {two}",
                     expected="test accuracy above by more than two standard deviations",
                     source="pattern of Wilson et al., NeurIPS 2017",
                     )(larger("c", one, two, "test_accuracy", by="validation_accuracy"))


# ---------------------------------------------------------------------------------------------------------- figures
def landscape(ax, name):
    """A map of a surface: the log of its height above the minimum in twelve greys, its minima, the start."""
    land = LANDSCAPES[name]
    x, y = np.meshgrid(np.linspace(*land.window[:2], 200), np.linspace(*land.window[2:], 200))
    height = np.log1p(land.f(x, y) - land.value)
    ax.contourf(x, y, height, 12, colors=[str(0.97 - 0.35 * k / 12) for k in range(13)])
    for i, (a, b) in enumerate(land.minima):
        ax.plot(a, b, "*", color="black", ms=13, label="minimum" if not i else None, zorder=5)
    ax.plot(*land.start, "X", color="black", ms=9, label="start", zorder=5)
    ax.set(xlim=land.window[:2], ylim=land.window[2:], xlabel="x", ylabel="y", title=land.title)
    ax.grid(False)


@experiment.figure("surfaces.png", caption="Twelve surfaces, the same start for all five methods, 300 steps. Grey: "
                   "log of the height above the minimum, which is white. Formulas: problems/landscapes.py.")
def surfaces_figure(results):
    figure, axes = panels(4, 3, size=(17, 19))
    for ax, name in zip(axes.flat, MOVES, strict=True):
        landscape(ax, name)
        for i, method in enumerate(METHODS):
            ax.plot(*path(results, name, method).T, lw=1.8, label=method, color=COLOURS[i])
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    return figure


def relief(ax, name):
    """The same surface as a relief; heights are log(1 + f - f*)."""
    land = LANDSCAPES[name]
    x, y = np.meshgrid(np.linspace(*land.window[:2], 60), np.linspace(*land.window[2:], 60))
    ax.plot_surface(x, y, np.log1p(land.f(x, y) - land.value), color="#DDDDDD", rstride=1, cstride=1, lw=0.15,
                    edgecolor="#AAAAAA", alpha=0.75, zorder=1)
    ax.set(xlabel="x", ylabel="y", title=land.title)
    ax.locator_params(nbins=5)
    ax.view_init(elev=48, azim=-35)


def above(name, way):
    """The points of a way on the relief, NaN outside the window: (3, steps)."""
    land, (x, y) = LANDSCAPES[name], way.T
    low_x, high_x, low_y, high_y = land.window
    inside = (low_x <= x) & (x <= high_x) & (low_y <= y) & (y <= high_y)
    with np.errstate(all="ignore"):
        return np.where(inside, [x, y, np.log1p(np.maximum(land.f(x, y) - land.value, 0))], np.nan)


@experiment.figure("gaps.png", caption="The twelve surfaces: height above the least value by step.")
def gaps_figure(results):
    figure, axes = panels(3, 4, size=(19, 11))
    for ax, name in zip(axes.flat, MOVES, strict=True):
        for i, method in enumerate(METHODS):
            gap = results.select("a", f"{name}: {method}")[0].columns["gap"]
            ax.plot(np.where(gap > 1e-14, gap, np.nan), color=COLOURS[i], label=method, lw=1.6)
        ax.set(yscale="log", xlabel="step", ylabel="f - f*", title=LANDSCAPES[name].title)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


@experiment.figure("views.png", caption="Four surfaces in relief, log(1 + f - f*), with the ways of the five methods. "
                   "Cross: start.")
def views_figure(results):
    figure, axes = panels(1, 4, size=(20, 5.6), subplot_kw={"projection": "3d", "computed_zorder": False})
    for ax, name in zip(axes, ANIMATED, strict=True):
        relief(ax, name)
        for i, method in enumerate(METHODS):
            ax.plot(*above(name, path(results, name, method)), color=COLOURS[i], lw=2, label=method, zorder=5)
        ax.plot(*above(name, np.array([LANDSCAPES[name].start])), "X", color="black", ms=9, label="start", zorder=6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


@experiment.figure("saddle_relief.gif", caption="The saddle in relief: SGD stays on the ridge, methods with a rate for "
                   "each coordinate leave it at once.")
def relief_animation(results, args):
    figure, ax = panels(1, 1, size=(6.4, 5.4), subplot_kw={"projection": "3d", "computed_zorder": False})
    relief(ax, "saddle")
    lines = []
    for i, method in enumerate(METHODS):
        line = ax.plot([], [], [], color=COLOURS[i], lw=2, zorder=5)[0]
        head = ax.plot([], [], [], MARKERS[i], color=COLOURS[i], ms=8, mec="white", label=method, zorder=6)[0]
        lines.append((above("saddle", path(results, "saddle", method)), line, head))
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
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
    return sorted({int(round(v)) for v in (*range(0, 30, args.pick(1, 4)), *np.geomspace(30, STEPS, args.pick(21, 7)))})


def moving(draw, runs, frames):
    """Frames of {method: run}: the ways on the map that draw(ax) makes, and f - f* against the step; lines grow."""
    ways, gaps = {m: way_of(run) for m, run in runs.items()}, {m: run.columns["gap"] for m, run in runs.items()}
    low = max(1e-12, min(np.min(g[g > 0]) for g in gaps.values()))
    top = max(np.max(g[np.isfinite(g)]) for g in gaps.values())
    figure, (left, right) = panels(1, 2, size=(11.5, 5))
    draw(left)
    lines = []
    for i, m in enumerate(METHODS):
        style = {"color": COLOURS[i], "lw": 1.8}
        way, curve = left.plot([], [], **style)[0], right.plot([], [], **style)[0]
        head = left.plot([], [], MARKERS[i], color=COLOURS[i], ms=9, mec="white", label=m, zorder=6)[0]
        lines.append((ways[m], np.maximum(gaps[m], low), way, head, curve))
    right.set(yscale="log", xlim=(0, STEPS), ylim=(low / 2, top * 2), xlabel="step", ylabel="f - f*")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=10)
    figure.canvas.draw()
    figure.set_layout_engine("none")                            # the first frame's layout stays
    for t in frames:
        for points, gap, way, head, curve in lines:
            way.set_data(*points[:t + 1].T)
            head.set_data(*points[t:t + 1].T)
            curve.set_data(np.arange(t + 1), gap[:t + 1])
        right.set_title(f"step {t}")
        yield figure


for name in ANIMATED:
    @experiment.figure(f"{name}.gif", caption=f"{LANDSCAPES[name].title}, f = {LANDSCAPES[name].formula}: the first "
                       "steps one by one, then ever faster. Cross: start; star: minimum.")
    def animation(results, args, name=name):
        runs = {m: results.select("a", f"{name}: {m}")[0] for m in METHODS}
        return moving(lambda ax: landscape(ax, name), runs, shown(args))


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
    for i, method in enumerate(METHODS):
        middle.plot(*way_of(results.select("d", method)[0]).T, color=COLOURS[i], lw=1.2, label=method)
    middle.legend(fontsize=8, loc="upper right")
    curves(right, results.select("d"), "gap", "step", legend=False)
    right.set(yscale="log", ylim=(3e-5, 3), ylabel="f - f*", title="four points a step, three seeds")
    return figure


@experiment.figure("moons.gif", caption="Two noisy half-moons: the five methods on the objective of all points, led by "
                   "the gradients of four. Cross: start; star: minimum.")
def moons_animation(results, args):
    return moving(moons_map, {m: results.select("d", m)[0] for m in METHODS}, shown(args))


@experiment.figure("logistic.png", caption="Logistic regression, each method at its best rate: objective and test "
                   "accuracy by epoch (median and range over seeds).")
def logistic_figure(results):
    best = chosen(results)
    figure, axes = panels(len(best), 2, squeeze=False)
    for row, (data, methods) in zip(axes, best.items(), strict=True):
        some = results.select("b", [g[0].name for g in methods.values()])
        for ax, column in zip(row, ("objective", "test_accuracy"), strict=True):
            curves(ax, some, column, label=lambda n: n.split(", ")[1].split(":")[0], legend=False)
            values = np.concatenate([run.columns[column][1:] for run in some])
            ax.set_ylim(np.nanmin(values) * 0.999, np.nanpercentile(values, 99) * 1.001)
            ax.set(title=data, ylabel={"objective": "training objective", "test_accuracy": "test accuracy"}[column])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


@experiment.figure("resnet.png", caption="ResNet-18 at reduced width on part of the training set, each method at its "
                   "best rate, cosine, l2 = 5e-4: training loss and test accuracy by epoch; right: held-out accuracy "
                   "against the rate.")
def resnet_figure(results):
    return tuned(results.select("c"))


if __name__ == "__main__":
    experiment.main()
