"""How many iterations to f - f* <= 1e-7: heavy ball, Nesterov, Anderson?   Course task A3; Mai & Johansson, ICML 2020.

Gradient descent needs about kappa = L/mu iterations, heavy ball and Nesterov with the constants that L and mu give
about sqrt(kappa). Anderson acceleration combines the last m gradient steps, knows no mu, and should need no more: on a
quadratic it is GMRES. It can cycle on other functions, which a guard prevents, at the cost of one gradient a rejection.
Iterations should fall with m and flatten at 10 to 20; the cost of a step grows with m, so that with few unknowns the
clock may say otherwise.

All runs are full batch in float64, x0 = 0, without an intercept: least squares (targets standardised, l2 = 1e-4) and
logistic regression (l2 = 1e-4). f* is that of an independent solver. They do not depend on the seed: the seeds are
repetitions, for the timing, which leaves the measuring of f out.

Run time on 2 cores: --quick about 15 seconds; --data real --jobs 1 --threads 1 about ten minutes.
"""

import dataclasses
import math
import time

from lab import Entry, Experiment, Part, Recipe, Results, dataset, listed
from lab.figures import MARKERS, curves, look, panels
from npopt import (
    FISTA,
    ISTA,
    SGD,
    Anderson,
    Box,
    Events,
    HeavyBall,
    Nesterov,
    RandomReshuffling,
    Stop,
    backend,
    minimize,
    theory,
)
from problems import LeastSquares, Logistic, Problem

import numpy as np
import scipy.optimize

TARGET = 1e-7
experiment = Experiment(
    __doc__,
    task="A3",
    source="Mai & Johansson, Anderson acceleration of proximal gradient methods, ICML 2020",
    parts={
        "a": Part("linear regression: iterations and seconds to 1e-7", "diabetes", ("abalone", "housing", "mg", "mpg")),
        "b": Part("logistic regression: the same", "breast_cancer",
                  ("a9a", "w8a", "mushrooms", "phishing", "splice", "german.numer", "australian", "ionosphere", "sonar",
                   "heart")),
        "c": Part("the window m: iterations, seconds, memory", ("diabetes", "breast_cancer"),
                  ("housing", "a9a", "splice")),
        "d": Part("one unknown: a cycle without the guard"),
        "e": Part("logistic regression with |w_j| <= 0.3: the proximal form", "breast_cancer",
                  ("a9a", "splice", "german.numer")),
    },
    seeds=5,
)

FULL = RandomReshuffling(None)
WINDOWS = (1, 2, 3, 5, 8, 10, 15, 20, 30, 50)
STARTS = (2.1, 17.0, 100.0, 246.0)
LONGEST = 5000                                                # steps


# --------------------------------------------------------------------------------------------------------- problems
def linear(data, bound=None):
    """The regression or classification problem of a set, l2 = 1e-4; bound: a box for every weight."""
    d = dataset(data)
    y, kind = d.y_train, Logistic
    if d.task == "regression":
        y, kind = (y - y.mean()) / y.std(), LeastSquares
    return kind(d.x_train, y, 1e-4, name=data, regulariser=None if bound is None else Box(-bound, bound))


class Kinked(Problem):
    """Mai & Johansson's function of one unknown: f' = 0.1 x - 24.9, 25 x, 0.1 x + 24.9 on x < -1, |x| < 1, x >= 1."""

    name, n = "kinked", 1

    def __init__(self, start):
        self.set_shape(1, "float64")
        self.start = start

    def x0(self, rng):
        return backend.asarray(np.array([self.start]))

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        v = float(backend.to_host(x)[0])
        inner = abs(v) < 1
        if out is not None:
            out[0] = 25 * v if inner else 0.1 * v + math.copysign(24.9, v)
        return 12.5 * v * v if inner else 0.05 * v * v + 24.9 * abs(v) - 12.45

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x)

    def metrics(self, x):
        return {"x": float(backend.to_host(x)[0])}


def lbfgs(data, seed, events):
    """SciPy's L-BFGS-B with 10 pairs, until the gap is 1e-7: the yardstick. Seconds without the measuring.

    SciPy works on the host: if the problem lives on a device, x goes there and the gradient comes back at each call.
    """
    problem = linear(data)
    start, g = np.zeros(problem.dim), backend.empty(problem.dim, problem.dtype)
    columns = {"step": [0], "gap": [problem.metrics(backend.asarray(start))["gap"]], "seconds": [0.0], "gradients": [0]}
    calls, begin = 0, time.perf_counter()

    def function(x):
        nonlocal calls
        calls += 1
        value = problem.value_and_gradient(backend.asarray(x), None, None, g)
        return backend.to_host(value), backend.to_host(g).copy()

    def note(x):
        nonlocal begin
        taken = time.perf_counter() - begin
        for name, value in (("step", columns["step"][-1] + 1), ("gap", problem.metrics(backend.asarray(x))["gap"]),
                            ("seconds", columns["seconds"][-1] + taken), ("gradients", calls * problem.n)):
            columns[name].append(value)
        if columns["gap"][-1] <= TARGET:
            raise StopIteration
        begin = time.perf_counter()

    scipy.optimize.minimize(function, start, jac=True, method="L-BFGS-B", callback=note,
                            options={"maxiter": LONGEST, "maxfun": LONGEST, "ftol": 0, "gtol": 0, "maxcor": 10})
    return columns


def windowed(data, window, seed, events):
    """A run with Anderson(window) and the bytes of its state."""
    problem = linear(data)
    method = Anderson(min(window, problem.dim))
    run = minimize(problem, method, FULL, 1 / problem.smoothness(), seed=seed, events=Events(1, "step"),
                   stop=Stop(steps=LONGEST, target=("gap", TARGET)))
    method.start(run.x)
    state = [method.history.Q, method.history.steps, method.history.q, method.history.r]
    return {"step": run.columns["step"], "gap": run.columns["gap"], "seconds": run.columns["seconds"],
            "bytes_of_state": [sum(v.nbytes for v in state)] * len(run.columns["step"])}


# ------------------------------------------------------------------------------------------------------------- grid
def methods(L, mu):
    """(name, optimizer, rate)"""
    ball, fast = theory.heavy_ball(L, mu), theory.nesterov(L, mu)
    yield "gradient descent", SGD(), 1 / L
    yield "heavy ball", HeavyBall(ball.beta), ball.lr
    yield "Nesterov", Nesterov(fast.beta), fast.lr
    yield "FISTA, restarted", FISTA("gradient"), 1 / L
    for m in (5, 10, 20):
        yield f"Anderson {m}", Anderson(m), 1 / L
    yield "Anderson 10, no guard", Anderson(10, guard=False), 1 / L


def narrow(optimizer, dim):
    """The same method with a window that is not wider than the problem."""
    wide = isinstance(optimizer, Anderson) and optimizer.window > dim
    return Anderson(dim, guard=optimizer.guard) if wide else optimizer


@experiment.runs
def runs(args):
    for part in ("a", "b"):
        for data in args.data_of(part):
            problem = linear(data)
            for name, optimizer, lr in methods(problem.smoothness(), problem.strong_convexity()):
                slow = name == "gradient descent"           # for which one repetition has to do
                often = 10 if slow else 5 if problem.n > 5000 and not isinstance(optimizer, Anderson) else 1
                yield Entry(part, f"{data}: {name}", Recipe(linear, data=data), narrow(optimizer, problem.dim), FULL,
                            lr, stop=Stop(steps=LONGEST, target=("gap", TARGET)), metrics=often, per="step",
                            seeds=args.seeds[:1] if slow else None)
            yield Entry(part, f"{data}: L-BFGS (SciPy)", run=Recipe(lbfgs, data=data))
    for data in args.data_of("c"):
        dim = linear(data).dim
        for m in [m for m in WINDOWS if m <= dim]:
            yield Entry("c", f"{data}, m={m}", run=Recipe(windowed, data=data, window=m))
    for start in STARTS:
        for guard in (False, True):
            yield Entry("d", f"{'guarded' if guard else 'no guard'}, x0={start:g}", Recipe(Kinked, start=start),
                        Anderson(1, guard=guard), FULL, 1 / 25, stop=Stop(steps=600), metrics=1, per="step", seeds=[0])
    for data in args.data_of("e"):
        problem = linear(data, 0.3)
        for name, optimizer in (("ISTA", ISTA()), ("FISTA, restarted", FISTA("gradient")), ("Anderson 5", Anderson(5)),
                                ("Anderson 10", Anderson(10)), ("Anderson 10, no guard", Anderson(10, guard=False))):
            yield Entry("e", f"{data}: {name}", Recipe(linear, data=data, bound=0.3), optimizer, FULL,
                        1 / problem.smoothness(), stop=Stop(steps=LONGEST, target=("gap", TARGET)), metrics=1,
                        per="step", seeds=[0])


# ----------------------------------------------------------------------------------------------------------- claims
def sets(results, part):
    return list(dict.fromkeys(name.split(": ")[0] for name in results.select(part).names))


def steps(results, part, data, method):
    """Iterations to 1e-7; infinity where LONGEST were not enough. (They are the same for every seed.)"""
    run = results.select(part, f"{data}: {method}")[0]
    return float(run.final["step"]) if run.final["gap"] <= TARGET else np.inf


def seconds(results, part, data, method):
    return float(np.median(results.select(part, f"{data}: {method}").final("seconds")))


def predicted(results, part, data):
    """{method: (predicted, observed)} for the methods whose constants come from L and mu."""
    problem = linear(data)
    L, mu = problem.smoothness(), problem.strong_convexity()
    first = results.select(part, f"{data}: Nesterov")[0].columns["gap"][0]
    tuned = {"gradient descent": theory.gradient_descent, "heavy ball": theory.heavy_ball, "Nesterov": theory.nesterov}
    return {name: (theory.iterations(f(L, mu).factor, first, TARGET), steps(results, part, data, name))
            for name, f in tuned.items()}


for part, model in (("a", "linear regression"), ("b", "logistic regression")):
    @experiment.claim(f"{part}-predicted", f"{model}: the iterations are what L and mu predict, or fewer",
                      expected="observed <= 1.2 N for gradient descent, Nesterov; <= 1.5 N for heavy ball (transient)",
                      source="N = ln(e0/1e-7) / (-2 ln factor), npopt/analysis/theory.py")
    def as_predicted(results, part=part):
        found, holds = {}, True
        for data in sets(results, part):
            for name, (N, seen) in predicted(results, part, data).items():
                found[f"{data} {name}"] = f"{seen:g} of {N:.0f}"
                holds &= seen <= (1.5 if name == "heavy ball" else 1.2) * N or (seen == np.inf and N > LONGEST)
        return listed(found), holds

    @experiment.claim(f"{part}-momentum", f"{model}: heavy ball and Nesterov need fewer iterations than gradient "
                      "descent", expected="on every set", source="sqrt(kappa) against kappa")
    def momentum(results, part=part):
        found, holds = {}, True
        for data in sets(results, part):
            plain, *others = (steps(results, part, data, m) for m in ("gradient descent", "heavy ball", "Nesterov"))
            found[data] = " / ".join("more" if v == np.inf else f"{v:g}" for v in (plain, *others))
            holds &= max(others) < plain
        return listed(found) + " (gradient descent / heavy ball / Nesterov)", holds

    @experiment.claim(f"{part}-anderson", f"{model}: Anderson with m = 10, without knowing mu, needs no more "
                      "iterations than the better of heavy ball and Nesterov", expected="<= 1.1 times, on every set")
    def anderson(results, part=part):
        found = {}
        for data in sets(results, part):
            best = min(steps(results, part, data, m) for m in ("heavy ball", "Nesterov"))
            found[data] = steps(results, part, data, "Anderson 10") / best
        return listed(found), max(found.values()) <= 1.1

    @experiment.claim(f"{part}-guard", f"{model}: the guard does not cost much", expected="at most 1.3 times the "
                      "iterations without it, m = 10, on every set")
    def guarded(results, part=part):
        found = {data: steps(results, part, data, "Anderson 10") / steps(results, part, data, "Anderson 10, no guard")
                 for data in sets(results, part)}
        return listed(found), max(found.values()) <= 1.3

    @experiment.claim(f"{part}-clock", f"{model}: by the clock Anderson (m = 5) beats Nesterov as well",
                      expected="less time on every set", source="course task A3 asks for CPU time")
    def clock(results, part=part):
        found = {data: seconds(results, part, data, "Anderson 5") / seconds(results, part, data, "Nesterov")
                 for data in sets(results, part)}
        return listed(found) + " (ratio of median seconds)", max(found.values()) < 1

    @experiment.claim(f"{part}-yardstick", f"{model}: Anderson (m = 10) needs fewer iterations than L-BFGS with 10 "
                      "pairs", expected="on every set (an iteration of L-BFGS may take more than one gradient)")
    def yardstick(results, part=part):
        found = {data: steps(results, part, data, "Anderson 10") / steps(results, part, data, "L-BFGS (SciPy)")
                 for data in sets(results, part)}
        return listed(found), max(found.values()) < 1


def swept(results, data):
    """[(m, iterations, median seconds, bytes)]"""
    groups = results.select("c").numbered(f"{data}, m=")
    return [(int(m), float(g[0].final["step"]), float(np.median(g.final("seconds"))), g[0].final["bytes_of_state"])
            for m, g in sorted(groups.items())]


def swept_sets(results):
    return list(dict.fromkeys(name.split(", m=")[0] for name in results.select("c").names))


@experiment.claim("c-fall", "iterations fall with the window and flatten",
                  expected="m = 8 needs at most 0.7 of m = 1; the widest window at most 30 % fewer than m = 15 (where "
                  "d allows both)")
def c_fall(results):
    found, holds = {}, True
    for data in swept_sets(results):
        table = {m: n for m, n, _, _ in swept(results, data)}
        found[data] = ", ".join(f"{m}: {n:g}" for m, n in table.items())
        holds &= 8 not in table or table[8] <= 0.7 * table[1]
        holds &= 15 not in table or table[max(table)] >= 0.7 * table[15]
    return "; ".join(f"{k} {v}" for k, v in found.items()), holds


@experiment.claim("c-cost", "a step costs more with a wider window", expected="seconds a step at the widest window "
                  "above those at m = 1, on every set")
def c_cost(results):
    found, holds = {}, True
    for data in swept_sets(results):
        table = swept(results, data)
        one, wide = (1e6 * s / n for _, n, s, _ in (table[0], table[-1]))
        found[data] = f"{one:.0f} us at m = {table[0][0]}, {wide:.0f} us at m = {table[-1][0]}"
        holds &= wide > one
    return listed(found), holds


@experiment.claim("c-memory", "the state takes 2 (m + 1) d numbers", expected="2 (m + 1) d 8 bytes, for every m")
def c_memory(results):
    found, holds = {}, True
    for data in swept_sets(results):
        table, d = swept(results, data), linear(data).dim
        found[data] = f"{table[0][3]:g} to {table[-1][3]:g} bytes"
        holds &= all(size == 2 * (m + 1) * d * 8 for m, _, _, size in table)
    return listed(found), holds


@experiment.claim("d-cycle", "without the guard Anderson (m = 1) runs between +249 and -249 for ever, with it it "
                  "converges", expected="the last 12 iterates reach within 1 of both; guarded: |x| < 1e-9",
                  source="Mai & Johansson, ICML 2020, their counterexample")
def d_cycle(results):
    found, holds = {}, True
    for start in STARTS:
        wild, tame = (results.select("d", f"{w}, x0={start:g}")[0] for w in ("no guard", "guarded"))
        late = wild.columns["x"][-12:]
        found[f"x0={start:g}"] = f"{late.min():.4g} to {late.max():.4g}, guarded {tame.final['x']:.1g}"
        holds &= abs(late.max() - 249) < 1 and abs(late.min() + 249) < 1 and abs(tame.final["x"]) < 1e-9
    return listed(found), holds


@experiment.claim("e-box", "with a box, guarded Anderson (m = 5) needs fewer iterations than ISTA and restarted FISTA",
                  expected="on every set")
def e_box(results):
    found, holds = {}, True
    for data in sets(results, "e"):
        ours, *others = (steps(results, "e", data, m) for m in ("Anderson 5", "ISTA", "FISTA, restarted"))
        found[data] = " / ".join("more" if v == np.inf else f"{v:g}" for v in (ours, *others))
        holds &= ours < min(others)
    return listed(found) + " (Anderson / ISTA / FISTA)", holds


# ---------------------------------------------------------------------------------------------------------- figures
SHOWN = ("gradient descent", "heavy ball", "Nesterov", "FISTA, restarted", "Anderson 5", "Anderson 20",
         "L-BFGS (SciPy)")


def once(runs):
    """One run a method, its seconds the medians over the repetitions, row by row: these differ in nothing else."""
    medians = {name: np.median([run.columns["seconds"] for run in group], 0) for name, group in runs.groups()}
    return Results(dataclasses.replace(group[0], columns={**group[0].columns, "seconds": medians[name]})
                   for name, group in runs.groups())


def gaps(results, part, x, xlabel, names, chosen=SHOWN):
    columns = min(3, len(names))
    figure, axes = panels(-(-len(names) // columns), columns, squeeze=False)
    for ax, data in zip(axes.flat, names, strict=False):
        some = results.select(part, lambda n, s=data: n.startswith(f"{s}: ") and n.split(": ")[1] in chosen)
        curves(ax, once(some), "gap", x, label=lambda n: n.split(": ")[1], logx=True, logy=True, xlabel=xlabel,
               ylabel="f(w) - f*", legend=False, colours=lambda n: chosen.index(n.split(": ")[1]))
        ax.set_ylim(3e-8, None)
        ax.axhline(TARGET, color="#888888", lw=1, ls=":")
        ax.set_title(data)
        low = min(run.columns[x][1] for run in some)
        ax.set_xlim(max(low, 1e-6), None)
    for ax in axes.flat[len(names):]:
        ax.axis("off")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(chosen)))
    return figure


for part, model in (("a", "Linear regression"), ("b", "Logistic regression")):
    @experiment.figure(f"iterations_{part}.png", caption=f"{model}: f - f* against iterations, until 1e-7 (dotted), at "
                       "most six sets. Only heavy ball and Nesterov know mu. Spikes of Anderson are points that the "
                       "guard then rejects.")
    def iterations_figure(results, part=part):
        return gaps(results, part, "step", "iterations", sets(results, part)[:6])

    @experiment.figure(f"seconds_{part}.png", caption=f"{model}: the same against the time of the steps, the median of "
                       "the repetitions.")
    def seconds_figure(results, part=part):
        return gaps(results, part, "seconds", "time of the steps [s]", sets(results, part)[:6])


@experiment.figure("windows.png", caption="The window of Anderson acceleration: iterations and seconds until 1e-7 "
                   "(median of the repetitions), and the memory of its state.")
def windows_figure(results):
    figure, axes = panels(1, 3)
    for i, data in enumerate(swept_sets(results)):
        m, *values = np.array(swept(results, data)).T
        for ax, y, text in zip(axes, values, ("iterations", "time of the steps [s]", "state [bytes]"), strict=True):
            ax.plot(m, y, **look(i), marker=MARKERS[i], label=data)
            ax.set(xscale="log", yscale="log", xlabel="window m", ylabel=text)
            ax.set_xticks(WINDOWS[::2] + (50,), [str(w) for w in WINDOWS[::2] + (50,)])
            ax.minorticks_off()
    axes[0].legend()
    return figure


@experiment.figure("predicted.png", caption="Iterations to 1e-7, observed against predicted from L and mu. On the line "
                   "the prediction is met; below it the start, or the curvature that matters, was kinder than assumed.")
def predicted_figure(results):
    figure, ax = panels()
    lowest, highest = np.inf, 0
    for i, name in enumerate(("gradient descent", "heavy ball", "Nesterov")):
        for part, fill in (("a", "full"), ("b", "none")):
            if part not in results.parts:
                continue
            pairs = np.array([predicted(results, part, data)[name] for data in sets(results, part)])
            pairs = pairs[np.isfinite(pairs).all(1)]
            ax.plot(*pairs.T, MARKERS[i], color=look(i)["color"], ms=9, fillstyle=fill,
                    label=f"{name}, {'linear' if part == 'a' else 'logistic'}")
            if len(pairs):
                lowest, highest = min(lowest, pairs.min()), max(highest, pairs.max())
    ax.plot([lowest, highest], [lowest, highest], color="#888888", lw=1, ls=":")
    ax.set(xscale="log", yscale="log", xlabel="predicted iterations", ylabel="observed iterations")
    ax.legend(loc="upper left")
    return figure


@experiment.figure("cycle.png", caption="Mai & Johansson's function of one unknown, Anderson with m = 1: without the "
                   "guard the iterates jump between +249 and -249 for ever.")
def cycle_figure(results):
    figure, axes = panels(1, 2, sharey=True)
    for ax, which in zip(axes, ("no guard", "guarded"), strict=True):
        for i, start in enumerate(STARTS):
            x = results.select("d", f"{which}, x0={start:g}")[0].columns["x"][:61]
            ax.plot(np.arange(len(x)), x, **look(i), marker=".", lw=1, label=f"x0 = {start:g}")
        ax.set(xlabel="iterations", ylabel="x", title=which)
    axes[1].legend()
    return figure


@experiment.figure("box.png", caption="Logistic regression with |w_j| <= 0.3: proximal gradient methods, F - F* "
                   "against iterations.")
def box_figure(results):
    names = ("ISTA", "FISTA, restarted", "Anderson 5", "Anderson 10", "Anderson 10, no guard")
    return gaps(results, "e", "step", "iterations", sets(results, "e")[:3], names)


if __name__ == "__main__":
    experiment.main()
