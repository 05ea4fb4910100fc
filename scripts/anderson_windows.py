"""Anderson acceleration: how wide a window, what is the guard for, and with a box?   Course task A3, second half.

Iterations fall with the window m and flatten at 10 to 20; the state takes 2 (m + 1) d numbers. Without a guard
Anderson(1) cycles for ever on a function of one unknown by Mai & Johansson (ICML 2020). With a box |w_j| <= 0.3 as
penalty it is the proximal form that is accelerated; a window that is kept after a rejection costs gradients.

Full batch in float64, x0 = 0, steps of 1/L, l2 = 1e-4. The seeds are repetitions for the timing.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about two minutes.
"""

from lab import Entry, Experiment, Part, Recipe, on_every
from lab.charts import gaps
from lab.figures import MARKERS, look, panels
from npopt import FISTA, ISTA, Anderson, Events, RandomReshuffling, Stop, minimize
from problems.convex import linear
from problems.kinked import Kinked

import numpy as np

TARGET = 1e-7
experiment = Experiment(
    __doc__,
    task="A3",
    source="Mai & Johansson, Anderson acceleration of proximal gradient methods, ICML 2020",
    parts={
        "c": Part(
            "the window m: iterations, seconds, memory", ("diabetes", "breast_cancer"), ("housing", "splice", "sonar")
        ),
        "d": Part("one unknown: a cycle without the guard"),
        "e": Part(
            "logistic regression with |w_j| <= 0.3: the proximal form",
            "breast_cancer",
            ("splice", "german.numer", "a9a"),
        ),
    },
    seeds=5,
)

FULL = RandomReshuffling(None)
WINDOWS = (1, 2, 3, 5, 8, 10, 15, 20, 30, 50)
STARTS = (2.1, 17.0, 100.0, 246.0)
LONGEST = 5000  # steps
UNTIL = Stop(steps=LONGEST, target=("gap", TARGET))
BOXED = {
    "ISTA": ISTA(),
    "FISTA, restarted": FISTA("gradient"),
    "Anderson 5": Anderson(5),
    "Anderson 10": Anderson(10),
    "Anderson 10, window kept": Anderson(10, patience=None),
    "Anderson 10, no guard": Anderson(10, guard=False),
}


# ---------------------------------------------------------------------------------------------------- own functions
def smooth(data, bound=None):
    """The regression or classification problem of a set, l2 = 1e-4; bound: a box for every weight."""
    return linear(data, l2=1e-4, bound=bound, test=False)


def windowed(data, window, seed, events):
    """A run with Anderson(window) and the bytes of its state."""
    problem = smooth(data)
    method = Anderson(min(window, problem.dim))
    run = minimize(problem, method, FULL, 1 / problem.smoothness(), seed=seed, events=Events(1, "step"), stop=UNTIL)
    method.start(run.x)
    state = [method.history.Q, method.history.steps, method.history.q, method.history.r]
    return {
        "step": run.columns["step"],
        "gap": run.columns["gap"],
        "seconds": run.columns["seconds"],
        "bytes_of_state": [sum(v.nbytes for v in state)] * len(run.columns["step"]),
    }


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    for data in args.data_of("c"):
        dim = smooth(data).dim
        for m in [m for m in WINDOWS if m <= dim]:
            yield Entry("c", run=Recipe(windowed, data=data, window=m), data=data, window=m)
    for start in STARTS:
        for guard in (False, True):
            tags = dict(guard=guard, x0=start)
            how = dict(stop=Stop(steps=600), metrics=1, per="step", seeds=[0])
            yield Entry("d", Recipe(Kinked, start=start), Anderson(1, guard=guard), FULL, 1 / 25, **how, **tags)
    for data in args.data_of("e"):
        recipe = Recipe(smooth, data=data, bound=0.3)
        rate = 1 / recipe().smoothness()
        for name, optimizer in BOXED.items():
            how = dict(stop=UNTIL, metrics=1, per="step", seeds=[0])
            yield Entry("e", recipe, optimizer, FULL, rate, **how, data=data, method=name)


# ----------------------------------------------------------------------------------------------------------- claims
def steps(runs, method):
    """Iterations to 1e-7; infinity where LONGEST were not enough. (They are the same for every seed.)"""
    return float(runs.select(method=method).until("gap", TARGET)[0])


def side_by_side(counts):
    return " / ".join("more" if v == np.inf else f"{v:g}" for v in counts)


def swept(results):
    """[(set, [(m, iterations, median seconds, bytes)])]"""

    def row(m, runs):
        end = runs[0].final
        return m, float(end["step"]), float(np.median(runs.final("seconds"))), end["bytes_of_state"]

    groups = results.select("c").groups("data")
    return [(data, [row(m, some) for m, some in runs.groups("window")]) for data, runs in groups]


@experiment.claim(
    "c-fall",
    "iterations fall with the window and flatten",
    expected="m = 8 needs at most 0.7 of m = 1; the widest window at most 30 % fewer than m = 15 (where d allows both)",
)
def c_fall(results):
    found, holds = {}, True
    for data, rows in swept(results):
        table = {m: n for m, n, _, _ in rows}
        found[data] = ", ".join(f"{m}: {n:g}" for m, n in table.items())
        holds &= 8 not in table or table[8] <= 0.7 * table[1]
        holds &= 15 not in table or table[max(table)] >= 0.7 * table[15]
    return "; ".join(f"{k} {v}" for k, v in found.items()), holds


@experiment.claim("c-memory", "the state takes 2 (m + 1) d numbers", expected="2 (m + 1) d 8 bytes, for every m")
def c_memory(results):
    def judged(data, table):
        d = smooth(data).dim
        exact = all(size == 2 * (m + 1) * d * 8 for m, _, _, size in table)
        return f"{table[0][3]:g} to {table[-1][3]:g} bytes", exact

    return on_every(swept(results), judged)


@experiment.claim(
    "d-cycle",
    "without the guard Anderson (m = 1) runs between +249 and -249 for ever, with it it converges",
    expected="the last 12 iterates reach within 1 of both; guarded: |x| < 1e-9",
    source="Mai & Johansson, ICML 2020, their counterexample",
)
def d_cycle(results):
    def judged(start, runs):
        late, tame = runs.select(guard=False)[0].columns["x"][-12:], runs.select(guard=True)[0].final["x"]
        return (
            f"{late.min():.4g} to {late.max():.4g}, guarded {tame:.1g}",
            abs(late.max() - 249) < 1 and abs(late.min() + 249) < 1 and abs(tame) < 1e-9,
        )

    return on_every([(f"x0={start:g}", runs) for start, runs in results.select("d").groups("x0")], judged)


@experiment.claim(
    "e-box",
    "with a box, guarded Anderson (m = 5) needs fewer iterations than ISTA and restarted FISTA",
    expected="on every set",
)
def e_box(results):
    def judged(data, runs):
        ours, *others = (steps(runs, m) for m in ("Anderson 5", "ISTA", "FISTA, restarted"))
        return side_by_side((ours, *others)), ours < min(others)

    measured, holds = on_every(results.select("e").groups("data"), judged)
    return measured + " (Anderson / ISTA / FISTA)", holds


# ---------------------------------------------------------------------------------------------------------- figures
@experiment.figure(
    "windows.png",
    caption="The window of Anderson acceleration: iterations and seconds until 1e-7 (median of the repetitions), and "
    "the memory of its state.",
)
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


@experiment.figure(
    "cycle.png",
    caption="Mai & Johansson's function of one unknown, Anderson with m = 1, from x0 = 17. Without the guard the "
    "iterates jump between +249 and -249 for ever; with it trials that were rejected (crosses) are left for the plain "
    "step.",
)
def cycle_figure(results):
    figure, axes = panels(1, 2, sharey=True)
    for ax, guard in zip(axes, (False, True), strict=True):
        x = results.select("d", guard=guard, x0=STARTS[1])[0].columns["x"][:41]
        t, f = np.arange(len(x)), np.array([Kinked(0.0).loss(np.array([v]), None, None) for v in x])
        lost = np.array([guard and k > 0 and f[k] > f[:k].min() for k in t])  # the guard accepts descent alone
        ax.plot(t[~lost], x[~lost], "o-", color=look(0)["color"], ms=4, lw=1, label="accepted" if guard else "iterates")
        if lost.any():
            ax.plot(t[lost], x[lost], "x", color=look(1)["color"], label="rejected trials")
        ax.set(xlabel="iterations", ylabel="x", title="guarded" if guard else "no guard")
    axes[1].legend()
    return figure


@experiment.figure(
    "box.png", caption="Logistic regression with |w_j| <= 0.3: proximal gradient methods, F - F* against iterations."
)
def box_figure(results):
    return gaps(results.select("e", seed=0), tuple(BOXED), TARGET, ylabel="F(w) - F*")


if __name__ == "__main__":
    experiment.main()
