"""SGD, momentum, AdaGrad, RMSProp, Adam: how do they move, and which one ends best?   Course task A4.

On surfaces of two variables the five methods start together. What the known animations show is checked by numbers: on
a saddle SGD leaves the ridge at the rate 1 + 2 lr a step, methods with a rate for every coordinate leave at once; the
first step is lr for AdaGrad and Adam, lr/sqrt(1-a) for RMSProp, that of SGD for momentum. Starts and rates are chosen
by hand, where it can be so that the five end in different minima: which one is reached says nothing about a method.
Between two noisy half-moons the gradients are those of four points: momentum smooths its way and overshoots. Then
logistic regression (l2 = 1e-4, batch 64), each method at the best of its rates, chosen by the loss of rows that are
held out: AdaGrad should lead early on sparse features, and all end within half a percent. ResNet-18 is part b of
`resnet18`.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 10 minutes.
"""

import math

from figures.adaptive import SADDLE, album
from lab import Entry, Experiment, Part, Recipe, Undecided
from lab.claims import decided, inside, listed, on_every, spreads
from lab.results import finer
from lab.surfaces import way_of
from lab.verdicts import close, lower, together, within
from npopt import SGD, AdaGrad, Adam, HeavyBall, RandomReshuffling, RMSProp, Stop
from problems import Surface
from problems.convex import Moons, held_out
from problems.landscapes import EVERY

import numpy as np

experiment = Experiment(
    __doc__,
    task="A4",
    source="Duchi et al. 2011; Tieleman & Hinton 2012; Kingma & Ba 2015; after the animations of A. Radford",
    parts={
        "a": Part("surfaces of two variables, with animations"),
        "b": Part("logistic regression, seven rates each", "breast_cancer", ("a9a", "w8a")),
        "c": Part("two noisy half-moons, with an animation"),
    },
    seeds=10,
    figures=album,
)

METHODS = {"SGD": SGD(), "momentum": HeavyBall(0.9), "AdaGrad": AdaGrad(), "RMSProp": RMSProp(), "Adam": Adam()}
STEPS = 300
RIDGE = (0.5, 1e-4)  # the start on the saddle
MOVES = {  # start, and rates of the five, in that order
    "beale": ((1.0, 1.5), (0.01, 0.003, 0.5, 0.02, 0.15)),
    "valley": ((-4.0, 1.0), (0.3, 0.05, 0.5, 0.03, 0.15)),
    SADDLE: (RIDGE, (0.03, 0.01, 0.4, 0.02, 0.05)),
    "rosenbrock": ((-1.2, 1.0), (0.001, 0.0004, 0.3, 0.01, 0.1)),
    "himmelblau": ((0.2, -3.7), (0.01, 0.004, 0.9, 0.06, 0.2)),
    "six-hump camel": ((1.53, 1.09), (0.02, 0.005, 0.4, 0.02, 0.08)),
    "three-hump camel": ((2.1, 2.1), (0.02, 0.005, 0.4, 0.02, 0.1)),
    "goldstein-price": ((-1.45, 0.25), (2e-5, 5e-6, 0.3, 0.01, 0.05)),
    "mccormick": ((3.3, 2.5), (0.2, 0.02, 2.0, 0.1, 0.2)),
    "styblinski-tang": ((-0.2, 0.1), (0.01, 0.003, 0.6, 0.03, 0.1)),
    "rastrigin": ((-1.3, 2.0), (0.004, 0.001, 0.8, 0.02, 0.5)),
    "ackley": ((2.62, -2.33), (0.05, 0.02, 1.2, 0.08, 0.5)),
}
MOONS = dict(zip(METHODS, (1.0, 0.1, 0.5, 0.05, 0.2), strict=True))  # momentum's effective step is that of SGD
RATES = {"SGD": 1.0, "momentum": 0.1, "AdaGrad": 0.1, "RMSProp": 3e-3, "Adam": 3e-3}
FACTORS = (1 / 27, 1 / 9, 1 / 3, 1, 3, 9, 27)


# ------------------------------------------------------------------------------------------------------------- grid
def surfaces(args):
    """Of part a; in --quick those that claims and animations ask for, and one of the last page."""
    return args.pick(tuple(MOVES), ("beale", "valley", SADDLE, "himmelblau", "three-hump camel", "ackley"))


@experiment.runs
def runs(args, found=None):
    way = dict(stop=Stop(steps=STEPS), metrics=1, per="step")
    for name in surfaces(args):
        start, rates = MOVES[name]
        for (method, optimizer), lr in zip(METHODS.items(), rates, strict=True):
            recipe, tags = Recipe(Surface, name=name, start=start), dict(surface=name, method=method)
            yield Entry("a", recipe, optimizer, RandomReshuffling(1), lr, seeds=[0], **way, **tags)
    for method, optimizer in METHODS.items():
        yield Entry("c", Recipe(Moons), optimizer, RandomReshuffling(4), MOONS[method], method=method, **way)
    budget, factors = Stop(epochs=args.budget(30, 5)), args.pick(FACTORS, FACTORS[2:5])
    for data in args.data_of("b")[: args.pick(None, 1)]:
        for method, optimizer in METHODS.items():
            recipe, tags = Recipe(held_out, data=data), dict(data=data, method=method)
            for lr in finer([RATES[method] * k for k in factors], found, "b", **tags):
                yield Entry("b", recipe, optimizer, RandomReshuffling(64), lr, stop=budget, metrics=1, **tags, lr=lr)


# ----------------------------------------------------------------------------------------------------------- claims
def ways(results, surface):
    """{method: its way on a surface, (steps + 1, 2)}"""
    return {method: way_of(runs[0]) for method, runs in results.select("a", surface=surface).groups("method")}


@experiment.claim(
    "a-first",
    "the first step is lr in each coordinate for AdaGrad and Adam, lr/sqrt(1-a) for RMSProp, and that of SGD for "
    "momentum",
    expected="to 1e-3, on every surface",
)
def a_first(results, args):
    worst = 0.0
    for surface in surfaces(args):
        start, rates = MOVES[surface]
        gradient = np.array(EVERY[surface].gradient(*start))
        sign = np.sign(gradient)
        expected = {
            "SGD": rates[0] * gradient,
            "momentum": rates[1] * gradient,
            "AdaGrad": rates[2] * sign,
            "RMSProp": rates[3] / math.sqrt(0.01) * sign,
            "Adam": rates[4] * sign,
        }
        for method, way in ways(results, surface).items():
            step = expected[method]
            worst = max(worst, float(np.abs((way[0] - way[1]) / np.where(step == 0, 1, step) - (step != 0)).max()))
    return f"largest relative error {worst:.1g}", worst < 1e-3


@experiment.claim(
    "a-saddle",
    "from (0.5, 1e-4) on the ridge of x^2 - y^2, SGD needs ln(1/y0)/ln(1 + 2 lr) steps to |y| > 1, methods with a rate "
    "for each coordinate far fewer",
    expected="SGD to a step; AdaGrad, RMSProp and Adam under a third of it",
)
def a_saddle(results):
    predicted, found = math.log(1 / RIDGE[1]) / math.log(1 + 2 * MOVES[SADDLE][1][0]), {}
    for method, way in ways(results, SADDLE).items():
        away = np.flatnonzero(np.abs(way[:, 1]) > 1)
        found[method] = int(away[0]) if len(away) else math.inf
    fast = all(found[m] < predicted / 3 for m in ("AdaGrad", "RMSProp", "Adam"))
    return listed(found) + f"; predicted for SGD {predicted:.1f}", 0 <= found["SGD"] - predicted <= 1 and fast


@experiment.claim(
    "a-valley",
    "in the long valley SGD's first step goes across it, that of AdaGrad, RMSProp and Adam as far along as across",
    expected="|dx/dy| below 0.5 for SGD, 1 to 1e-3 for the others",
)
def a_valley(results):
    found = {m: abs(float(np.divide(*np.diff(way[:2], axis=0)[0]))) for m, way in ways(results, "valley").items()}
    return listed(found), found["SGD"] < 0.5 and all(abs(found[m] - 1) < 1e-3 for m in ("AdaGrad", "RMSProp", "Adam"))


@experiment.claim(
    "a-end",
    "each method comes close to a stationary point of the simpler surfaces within 300 steps",
    expected="|gradient| below 1e-2 of its start, on Beale, the valley, Himmelblau and the three-hump camel (a local "
    "minimum counts)",
)
def a_end(results):
    late = {}
    for surface in ("beale", "valley", "himmelblau", "three-hump camel"):
        for method, way in ways(results, surface).items():
            first, last = (np.hypot(*EVERY[surface].gradient(*way[k])) for k in (0, -1))
            if not last <= 1e-2 * first:
                late[f"{surface} {method}"] = float(last / first)
    return listed(late) if late else "all", not late


@experiment.claim(
    "c-smooth",
    "on noisy gradients momentum and Adam smooth their way, the others follow every batch",
    expected="mean cosine of neighbouring steps, after 100 steps: above 0.5, and below 0.2 (95 %)",
)
def c_smooth(results):
    found = {}
    for method, runs in results.select("c").groups("method"):
        steps = [np.diff(way_of(run), axis=0)[100:] for run in runs]
        steps = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in steps]
        found[method] = np.array([(s[1:] * s[:-1]).sum(1).mean() for s in steps])
    return decided(
        listed({m: float(v.mean()) for m, v in found.items()}),
        *(within(v, low=0.5) if m in ("momentum", "Adam") else within(v, high=0.2) for m, v in found.items()),
    )


@experiment.claim(
    "c-overshoot",
    "with the same effective step momentum overshoots the minimum further than SGD",
    expected="farthest beyond the minimum, in parts of the line from the start to it: more (95 %)",
)
def c_overshoot(results):
    problem = Moons()
    start, line = problem.start, problem.best - problem.start
    past = {
        m: np.array([float(((way_of(run) - start) @ line / (line @ line)).max()) - 1 for run in runs])
        for m, runs in results.select("c").groups("method")
    }
    return decided(listed({m: float(v.mean()) for m, v in past.items()}), lower(past["SGD"], past["momentum"]))


@experiment.claim(
    "b-close",
    "tuned alike, all five end with nearly the same test accuracy",
    expected="each within 0.5 points of the best of them (95 %), on every set",
    source="task A4",
)
def b_close(results):
    def judged(data, runs):
        ends = {m: 100 * v for m, v in runs.at_best().finals("test_accuracy").items()}
        top = max(ends.values(), key=np.mean)
        text = ", ".join(f"{m} {v.mean():.2f}" for m, v in ends.items())
        return text, together(close(v, top, 0.5) for v in ends.values())

    return on_every(results.select("b").groups("data"), judged)


@experiment.claim(
    "b-early",
    "on sparse features AdaGrad leads SGD after the first epoch",
    expected="objective after epoch 1 below (95 %), on every sparse set; false where above, or below by at most 0.001",
    source="Duchi, Hazan & Singer, JMLR 2011",
)
def b_early(results):
    sparse = [(data, runs) for data, runs in results.select("b").groups("data") if data != "breast_cancer"]
    if not sparse:
        raise Undecided("the bundled set is dense")

    def judged(data, runs):
        first = {m: g.at("objective", 1) for m, g in runs.at_best().groups("method")}
        return spreads(first), lower(first["AdaGrad"], first["SGD"], 0.001)

    return on_every(sparse, judged)


experiment.claim(
    "b-edge",
    "the rates are wide enough",
    expected="the best rate is inside its grid, always",
    source="tuning of this script",
)(inside("b", of=("data", "method")))


if __name__ == "__main__":
    experiment.main()
