"""How many iterations to f - f* <= 1e-7: heavy ball, Nesterov, Anderson?   Course task A3; Mai & Johansson, ICML 2020.

Gradient descent needs about kappa = L/mu iterations, heavy ball and Nesterov with the constants that L and mu give
about sqrt(kappa). Anderson acceleration combines the last m gradient steps, knows no mu, and should need no more: on a
quadratic it is GMRES. It can cycle on other functions, which a guard prevents, at the cost of one gradient a rejection.
Iterations should fall with m and flatten at 10 to 20; the cost of a step grows with m, so that with few unknowns the
clock may say otherwise.

All runs are full batch in float64, x0 = 0, without an intercept: least squares (targets standardised, l2 = 1e-4) and
logistic regression (l2 = 1e-4). f* is that of an independent solver. They do not depend on the seed: the seeds are
repetitions, for the timing, which leaves the measuring of f out.

Run time on 2 cores: --quick about 20 seconds; --data real --jobs 1 --threads 1 about ten minutes.
"""

import dataclasses

from lab import Entry, Experiment, Part, Recipe, Results, listed, on_every
from lab.figures import MARKERS, curves, each, look, panels
from npopt import FISTA, ISTA, SGD, Anderson, Events, HeavyBall, Nesterov, RandomReshuffling, Stop, minimize, theory
from problems.convex import linear
from problems.kinked import Kinked
from problems.minima import yardstick

import numpy as np

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
UNTIL = Stop(steps=LONGEST, target=("gap", TARGET))
BOXED = {"ISTA": ISTA(), "FISTA, restarted": FISTA("gradient"), "Anderson 5": Anderson(5), "Anderson 10": Anderson(10),
         "Anderson 10, no guard": Anderson(10, guard=False)}


# ---------------------------------------------------------------------------------------------------- own functions
def smooth(data, bound=None):
    """The regression or classification problem of a set, l2 = 1e-4; bound: a box for every weight."""
    return linear(data, l2=1e-4, bound=bound, test=False)


def lbfgs(data, seed, events):
    """SciPy's L-BFGS-B with 10 pairs."""
    return yardstick.lbfgs(smooth(data), TARGET, LONGEST)


def windowed(data, window, seed, events):
    """A run with Anderson(window) and the bytes of its state."""
    problem = smooth(data)
    method = Anderson(min(window, problem.dim))
    run = minimize(problem, method, FULL, 1 / problem.smoothness(), seed=seed, events=Events(1, "step"),
                   stop=UNTIL)
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
            recipe = Recipe(smooth, data=data)
            problem = recipe()
            for name, optimizer, lr in methods(problem.smoothness(), problem.strong_convexity()):
                slow = name == "gradient descent"           # for which one repetition has to do
                often = 10 if slow else 5 if problem.n > 5000 and not isinstance(optimizer, Anderson) else 1
                yield Entry(part, recipe, narrow(optimizer, problem.dim), FULL, lr, stop=UNTIL, metrics=often,
                            per="step", seeds=args.seeds[:1] if slow else None, data=data, method=name)
            yield Entry(part, run=Recipe(lbfgs, data=data), data=data, method="L-BFGS (SciPy)")
    for data in args.data_of("c"):
        dim = smooth(data).dim
        for m in [m for m in WINDOWS if m <= dim]:
            yield Entry("c", run=Recipe(windowed, data=data, window=m), data=data, window=m)
    for start in STARTS:
        for guard in (False, True):
            yield Entry("d", Recipe(Kinked, start=start), Anderson(1, guard=guard), FULL, 1 / 25, stop=Stop(steps=600),
                        metrics=1, per="step", seeds=[0], guard=guard, x0=start)
    for data in args.data_of("e"):
        recipe = Recipe(smooth, data=data, bound=0.3)
        rate = 1 / recipe().smoothness()
        for name, optimizer in BOXED.items():
            yield Entry("e", recipe, optimizer, FULL, rate, stop=UNTIL, metrics=1, per="step", seeds=[0], data=data,
                        method=name)


# ----------------------------------------------------------------------------------------------------------- claims
def steps(runs, method):
    """Iterations to 1e-7; infinity where LONGEST were not enough. (They are the same for every seed.)"""
    run = runs.select(method=method)[0]
    return float(run.final["step"]) if run.final["gap"] <= TARGET else np.inf


def predicted(data, runs):
    """{method: (predicted, observed)} for the methods whose constants come from L and mu."""
    problem = smooth(data)
    L, mu = problem.smoothness(), problem.strong_convexity()
    first = runs.select(method="Nesterov")[0].columns["gap"][0]
    tuned = {"gradient descent": theory.gradient_descent, "heavy ball": theory.heavy_ball, "Nesterov": theory.nesterov}
    return {name: (theory.iterations(f(L, mu).factor, first, TARGET), steps(runs, name)) for name, f in tuned.items()}


def side_by_side(counts):
    return " / ".join("more" if v == np.inf else f"{v:g}" for v in counts)


for part, kind in (("a", "linear regression"), ("b", "logistic regression")):
    @experiment.claim(f"{part}-predicted", f"{kind}: the iterations are what L and mu predict, or fewer",
                      expected="observed <= 1.2 N for gradient descent, Nesterov; <= 1.5 N for heavy ball (transient)",
                      source="N = ln(e0/1e-7) / (-2 ln factor), npopt/analysis/theory.py")
    def as_predicted(results, part=part):
        found, holds = {}, True
        for data, runs in results.select(part).groups("data"):
            for name, (N, seen) in predicted(data, runs).items():
                found[f"{data} {name}"] = f"{seen:g} of {N:.0f}"
                holds &= seen <= (1.5 if name == "heavy ball" else 1.2) * N or (seen == np.inf and N > LONGEST)
        return listed(found), holds

    @experiment.claim(f"{part}-momentum", f"{kind}: heavy ball and Nesterov need fewer iterations than gradient "
                      "descent", expected="on every set", source="sqrt(kappa) against kappa")
    def momentum(results, part=part):
        def judged(data, runs):
            plain, *others = (steps(runs, m) for m in ("gradient descent", "heavy ball", "Nesterov"))
            return side_by_side((plain, *others)), max(others) < plain
        measured, holds = on_every(results.select(part).groups("data"), judged)
        return measured + " (gradient descent / heavy ball / Nesterov)", holds

    def ratio(one, *others, most, strict=False, part=part):
        """A claim's function: iterations of a method over the least of others', at most (or strictly below) `most`."""
        def judged(data, runs):
            found = steps(runs, one) / min(steps(runs, m) for m in others)
            return found, found < most if strict else found <= most
        return lambda results: on_every(results.select(part).groups("data"), judged)

    experiment.claim(f"{part}-anderson", f"{kind}: Anderson with m = 10, without knowing mu, needs no more "
                     "iterations than the better of heavy ball and Nesterov", expected="<= 1.1 times, on every set",
                     )(ratio("Anderson 10", "heavy ball", "Nesterov", most=1.1))
    experiment.claim(f"{part}-guard", f"{kind}: the guard does not cost much", expected="at most 1.3 times the "
                     "iterations without it, m = 10, on every set",
                     )(ratio("Anderson 10", "Anderson 10, no guard", most=1.3))

    @experiment.claim(f"{part}-clock", f"{kind}: by the clock Anderson (m = 5) beats Nesterov as well",
                      expected="less time on every set", source="course task A3 asks for CPU time")
    def clock(results, part=part):
        found = {data: np.divide(*(float(np.median(runs.select(method=m).final("seconds")))
                                   for m in ("Anderson 5", "Nesterov")))
                 for data, runs in results.select(part).groups("data")}
        return listed(found) + " (ratio of median seconds)", max(found.values()) < 1

    experiment.claim(f"{part}-yardstick", f"{kind}: Anderson (m = 10) needs fewer iterations than L-BFGS with 10 "
                     "pairs", expected="on every set (an iteration of L-BFGS may take more than one gradient)",
                     )(ratio("Anderson 10", "L-BFGS (SciPy)", most=1, strict=True))


def swept(results):
    """[(set, [(m, iterations, median seconds, bytes)])]"""
    return [(data, [(m, float(g[0].final["step"]), float(np.median(g.final("seconds"))), g[0].final["bytes_of_state"])
                    for m, g in runs.groups("window")])
            for data, runs in results.select("c").groups("data")]


@experiment.claim("c-fall", "iterations fall with the window and flatten",
                  expected="m = 8 needs at most 0.7 of m = 1; the widest window at most 30 % fewer than m = 15 (where "
                  "d allows both)")
def c_fall(results):
    found, holds = {}, True
    for data, rows in swept(results):
        table = {m: n for m, n, _, _ in rows}
        found[data] = ", ".join(f"{m}: {n:g}" for m, n in table.items())
        holds &= 8 not in table or table[8] <= 0.7 * table[1]
        holds &= 15 not in table or table[max(table)] >= 0.7 * table[15]
    return "; ".join(f"{k} {v}" for k, v in found.items()), holds


@experiment.claim("c-cost", "a step costs more with a wider window", expected="seconds a step at the widest window "
                  "above those at m = 1, on every set")
def c_cost(results):
    def judged(data, table):
        one, wide = (1e6 * s / n for _, n, s, _ in (table[0], table[-1]))
        return f"{one:.0f} us at m = {table[0][0]}, {wide:.0f} us at m = {table[-1][0]}", wide > one
    return on_every(swept(results), judged)


@experiment.claim("c-memory", "the state takes 2 (m + 1) d numbers", expected="2 (m + 1) d 8 bytes, for every m")
def c_memory(results):
    def judged(data, table):
        d = smooth(data).dim
        return (f"{table[0][3]:g} to {table[-1][3]:g} bytes",
                all(size == 2 * (m + 1) * d * 8 for m, _, _, size in table))
    return on_every(swept(results), judged)


@experiment.claim("d-cycle", "without the guard Anderson (m = 1) runs between +249 and -249 for ever, with it it "
                  "converges", expected="the last 12 iterates reach within 1 of both; guarded: |x| < 1e-9",
                  source="Mai & Johansson, ICML 2020, their counterexample")
def d_cycle(results):
    def judged(start, runs):
        late, tame = runs.select(guard=False)[0].columns["x"][-12:], runs.select(guard=True)[0].final["x"]
        return (f"{late.min():.4g} to {late.max():.4g}, guarded {tame:.1g}",
                abs(late.max() - 249) < 1 and abs(late.min() + 249) < 1 and abs(tame) < 1e-9)
    return on_every([(f"x0={start:g}", runs) for start, runs in results.select("d").groups("x0")], judged)


@experiment.claim("e-box", "with a box, guarded Anderson (m = 5) needs fewer iterations than ISTA and restarted FISTA",
                  expected="on every set")
def e_box(results):
    def judged(data, runs):
        ours, *others = (steps(runs, m) for m in ("Anderson 5", "ISTA", "FISTA, restarted"))
        return side_by_side((ours, *others)), ours < min(others)
    measured, holds = on_every(results.select("e").groups("data"), judged)
    return measured + " (Anderson / ISTA / FISTA)", holds


# ---------------------------------------------------------------------------------------------------------- figures
SHOWN = ("gradient descent", "heavy ball", "Nesterov", "FISTA, restarted", "Anderson 5", "Anderson 20",
         "L-BFGS (SciPy)")


def once(runs):
    """One run a method, its seconds the medians over the repetitions, row by row: these differ in nothing else."""
    return Results(dataclasses.replace(group[0], columns=group[0].columns | {
        "seconds": np.median([run.columns["seconds"] for run in group], 0)}) for _, group in runs.groups("method"))


def gaps(results, part, x, xlabel, count, chosen=SHOWN):
    sets = dict(results.select(part, method=chosen).groups("data")[:count])

    def draw(ax, data):
        curves(ax, once(sets[data]), "gap", x, logx=True, logy=True, xlabel=xlabel, ylabel="f(w) - f*", legend=False,
               colours=lambda tags: chosen.index(tags["method"]))
        ax.set_ylim(3e-8, None)
        ax.axhline(TARGET, color="#888888", lw=1, ls=":")
        ax.set_xlim(max(min(run.columns[x][1] for run in sets[data]), 1e-6), None)
    return each(list(sets), draw, legend=min(4, len(chosen)))


for part, kind in (("a", "Linear regression"), ("b", "Logistic regression")):
    @experiment.figure(f"iterations_{part}.png", caption=f"{kind}: f - f* against iterations, until 1e-7 (dotted), at "
                       "most six sets. Only heavy ball and Nesterov know mu. Spikes of Anderson are points that the "
                       "guard then rejects.")
    def iterations_figure(results, part=part):
        return gaps(results, part, "step", "iterations", 6)

    @experiment.figure(f"seconds_{part}.png", caption=f"{kind}: the same against the time of the steps, the median of "
                       "the repetitions.")
    def seconds_figure(results, part=part):
        return gaps(results, part, "seconds", "time of the steps [s]", 6)


@experiment.figure("windows.png", caption="The window of Anderson acceleration: iterations and seconds until 1e-7 "
                   "(median of the repetitions), and the memory of its state.")
def windows_figure(results):
    figure, axes = panels(1, 3)
    for i, (data, table) in enumerate(swept(results)):
        m, *values = np.array(table).T
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
            pairs = np.array([predicted(data, runs)[name] for data, runs in results.select(part).groups("data")])
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
        for i, run in enumerate(results.select("d", guard=which == "guarded")):
            x = run.columns["x"][:61]
            ax.plot(np.arange(len(x)), x, **look(i), marker=".", lw=1, label=f"x0 = {run.tags['x0']:g}")
        ax.set(xlabel="iterations", ylabel="x", title=which)
    axes[1].legend()
    return figure


@experiment.figure("box.png", caption="Logistic regression with |w_j| <= 0.3: proximal gradient methods, F - F* "
                   "against iterations.")
def box_figure(results):
    return gaps(results, "e", "step", "iterations", 3, tuple(BOXED))


if __name__ == "__main__":
    experiment.main()
