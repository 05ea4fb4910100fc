"""Do SVRG and SAGA converge where SGD stops at its noise?   Course task A9; Johnson & Zhang 2013, Defazio et al. 2014.

With one constant step, SGD ends at a floor of f - f* proportional to the step, because the variance of its gradient
does not vanish at the minimum. SVRG and SAGA estimate the same gradient with a variance that goes to 0 with the
iterate: they should fall linearly to the last digit of float64, SAGA at 1/(3 L_max) by exp(-min(1/4, n mu/(3 L_max))) a
pass or faster. SAGA on a linear model needs one number a row: a table compares that form with the one of n vectors.

f is least squares (targets standardised) or logistic, without an intercept; l2 = L/n, L the largest row constant
without l2, so that n mu is near L_max and theory promises a fast linear rate. One set is run with l2 = 0.01/n as well,
where it does not. Cost is counted in passes: rows differentiated / n, full gradients included; a stage of SVRG is 3.

Run time on 2 cores: --quick some seconds; --data real --jobs 2 --threads 1 about five minutes.
"""

import dataclasses

from lab import Entry, Experiment, Option, Part, Recipe, Results, Undecided, dataset, listed, spread
from lab.figures import curves, look, panels
from lab.options import positive
from npopt import SAGA, SGD, SVRG, Stop, WithReplacement, backend
from problems import LeastSquares, Logistic

import numpy as np

experiment = Experiment(
    __doc__,
    task="A9",
    source="Johnson & Zhang, NIPS 2013; Defazio, Bach & Lacoste-Julien, NIPS 2014",
    parts={
        "a": Part("linear regression: gaps and gradient variances", "diabetes", ("abalone", "housing", "mg", "mpg")),
        "b": Part("logistic regression: the same, and test accuracy", "breast_cancer",
                  ("a9a", "w8a", "mushrooms", "phishing")),
        "m": Part("memory and time of SAGA's two tables", ("diabetes", "breast_cancer"),
                  ("abalone", "mushrooms", "a9a", "w8a", "news20")),
    },
    options=[Option("--passes", type=positive, help="rows differentiated / n of each run (default: 120)")],
    seeds=5,
)

METHODS = {"SGD": None, "SVRG": SVRG(2), "SVRG, option II": SVRG(2, "II"), "SAGA": SAGA()}
HALVINGS = (1, 2, 4, 8)                                         # of SGD's step, for its floor
HARD = ("a9a", "breast_cancer")                                 # sets that are run with a small l2 as well
LARGE = 1e9                                                     # bytes: a larger table is not allocated


# --------------------------------------------------------------------------------------------------------- problems
class Traced:
    """Logs the variance of SGD's gradient at the minimum; it can start at the minimum."""

    at_minimum = False

    def x0(self, rng):
        return backend.asarray(self.minimum()[0], self.dtype).copy() if self.at_minimum else super().x0(rng)

    def metrics(self, x):
        return {**super().metrics(x), "sigma": self.noise}

    @property
    def noise(self):
        if "_noise" not in self.__dict__:
            self._noise = self.gradient_variance(backend.asarray(self.minimum()[0], self.dtype))
        return self._noise


class Squares(Traced, LeastSquares):
    """Least squares, traced."""


class Binary(Traced, Logistic):
    """Logistic regression, traced."""


def linear(data, small=False, at_minimum=False):
    """The regression or classification problem of a set, with l2 = L/n, or 0.01/n; of several classes the first against
    the rest."""
    d = dataset(data)
    y, y_test, kind = d.y_train, d.y_test, Binary
    if d.task == "regression":
        y, y_test, kind = (y - y.mean()) / y.std(), (y_test - y.mean()) / y.std(), Squares
    elif len(d.classes) > 2:
        y, y_test = np.where(y == 0, 1.0, -1.0), np.where(y_test == 0, 1.0, -1.0)
    n = len(y)
    largest = 0.01 if small else kind(d.x_train, y).row_smoothness().max()
    problem = kind(d.x_train, y, largest / n, test=(d.x_test, y_test), name=data)
    problem.at_minimum = at_minimum
    return problem


def memory(data, table, steps, seed, events):
    """Bytes of SAGA's table and of its state, and the iterate after some steps; a table above LARGE is computed."""
    from npopt.minimize import minimize

    problem = linear(data)
    size = problem.n * (1 if table == "scalars" else problem.dim) * problem.dtype.itemsize
    found = {"table_bytes": size, "dim": problem.dim, "rows": problem.n, "allocated": int(size <= LARGE)}
    X = problem.host_X
    found["data_bytes"] = X.nbytes if isinstance(X, np.ndarray) else X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    if size <= LARGE:
        estimator = SAGA(table)
        estimator.start(problem, backend.zeros(problem.dim, problem.dtype), seed)
        state = estimator.state()
        run = minimize(problem, SGD(), WithReplacement(1), 1 / (3 * problem.row_smoothness().max()), estimator,
                       stop=Stop(steps=steps), seed=seed, events={"metrics": None})
        w = backend.to_host(run.x)
        found |= {"table_bytes": state["table"].nbytes, "state_bytes": state["table"].nbytes + state["mean"].nbytes,
                  "w": w, "objective": problem.exact(w)[0], "compiled": int(run.loop == "compiled"),
                  "seconds_a_step": run.final["seconds"] / steps}
    return {name: [value] for name, value in found.items()}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    passes = args.passes or 120
    for part in ("a", "b"):
        for data in args.data_of(part):
            for small in (False, True)[: 1 + (data in HARD)]:
                recipe = Recipe(linear, data=data, small=small)
                L = recipe().row_smoothness().max()
                name = f"{data}, l2=0.01/n" if small else data
                for step, rate in (("1/(3L)", 1 / (3 * L)), ("0.1/L", 0.1 / L)):
                    for method, estimator in METHODS.items():
                        yield Entry(part, f"{name}, {step}: {method}", recipe, SGD(), WithReplacement(1), rate,
                                    estimator, stop=Stop(evaluations=passes * recipe().n), metrics=0.25, variance=True)
        for data in args.data_of(part)[:2]:
            recipe = Recipe(linear, data=data, at_minimum=True)
            L = recipe().row_smoothness().max()
            for k in HALVINGS:
                yield Entry(part, f"{data}, floor, 1/{k}: SGD", recipe, SGD(), WithReplacement(1), 1 / (3 * L * k),
                            stop=Stop(epochs=args.pick(40, 20) * k), metrics=k)
    for data in args.data_of("m"):
        for table in ("scalars", "gradients"):
            yield Entry("m", f"{data}: {table}", run=Recipe(memory, data=data, table=table, steps=1000), seeds=[0])


# ----------------------------------------------------------------------------------------------------------- claims
def sets(results, part, hard=False):
    """Names of the sets of a part, those with l2 = 0.01/n only when asked for."""
    names = dict.fromkeys(name.split(": ")[0].rsplit(", ", 1)[0] for name in results.select(part).names)
    return [name for name in names if not name.endswith("floor") and ("l2=" in name) == hard]


def in_passes(results):
    """The runs with a column "passes": rows differentiated / n."""
    return Results(
        dataclasses.replace(run, columns={**run.columns, "passes": run.columns["gradients"] / run.config["n"]})
        for run in results)


def of(results, part, name, method, step="1/(3L)"):
    return in_passes(results.select(part, f"{name}, {step}: {method}"))


def line(runs, high=1e-4, low=1e-13):
    """(rate a pass, R^2) of a least-squares line through the seeds' mean log gap against passes, where the gap is below
    `high` times the first and all seeds' gaps are above `low`."""
    t, gaps = runs.stack("gap", "passes")
    middle = np.exp(np.log(np.maximum(gaps, 1e-300)).mean(0))
    under, below = np.flatnonzero(middle < high * middle[0]), np.flatnonzero(gaps.min(0) < low)
    if not under.size:
        return np.nan, np.nan
    chosen = slice(under[0], below[0] if below.size else None)
    t, y = t[chosen], np.log(middle[chosen])
    if len(t) < 8:
        return np.nan, np.nan
    slope, level = np.polyfit(t, y, 1)
    return -slope, 1 - np.var(y - slope * t - level) / np.var(y)


for part, model in (("a", "linear regression"), ("b", "logistic regression")):
    @experiment.claim(f"{part}-linear", f"{model}: SVRG and SAGA at 1/(3L) fall on a line in log gap, to 1e-12",
                      expected="R² > 0.98 (mean log gap of the seeds, below 1e-4 of the first); ends <= 1e-12")
    def straight(results, part=part):
        found, holds = {}, True
        for name in sets(results, part):
            for method in ("SVRG", "SAGA"):
                chosen = of(results, part, name, method)
                fit, ends = line(chosen)[1], chosen.final("gap")
                found[f"{name} {method}"] = f"R² {fit:.4f}, gap {np.max(ends):.1e}"
                holds &= fit > 0.98 and np.max(ends) <= 1e-12
        return listed(found), holds

    @experiment.claim(f"{part}-rate", f"{model}: SAGA's rate a pass is what theory promises, or better",
                      expected=">= min(1/4, n mu / (3 L_max)), l2 = 0.01/n included",
                      source="Defazio, Bach & Lacoste-Julien, NIPS 2014 (constants from memory)")
    def rates(results, args, part=part):
        found, holds = {}, True
        for name in sets(results, part) + sets(results, part, hard=True):
            problem = linear(name.split(",")[0], small="l2=" in name)
            bound = min(0.25, problem.n * problem.strong_convexity() / (3 * problem.row_smoothness().max()))
            rate = line(of(results, part, name, "SAGA"), high=0.1)[0]
            found[name] = f"{rate:.3g} (bound {bound:.3g})"
            holds &= rate >= bound
        return listed(found), holds

    @experiment.claim(f"{part}-variance", f"{model}: at the end SGD's gradient has over a million times the "
                      "variance of SAGA's and SVRG's", expected="ratio > 1e6 for every set (means over seeds)")
    def variances(results, part=part):
        found = {}
        for name in sets(results, part):
            sgd = of(results, part, name, "SGD").final("variance").mean()
            for method in ("SVRG", "SAGA"):
                found[f"{name} {method}"] = sgd / max(of(results, part, name, method).final("variance").mean(), 1e-300)
        return listed(found), min(found.values()) > 1e6

    @experiment.claim(f"{part}-sigma", f"{model}: SGD's gradient variance tends to that at the minimum, not to 0",
                      expected="ratio in 0.5 to 2 (at 0.1/L, mean over the second half and the seeds)")
    def sigma(results, part=part):
        found = {}
        for name in sets(results, part):
            chosen = of(results, part, name, "SGD", "0.1/L")
            late = [np.mean(run.columns["variance"][run.rows // 2 :]) for run in chosen]
            found[name] = np.mean(late) / chosen[0].final["sigma"]
        return listed(found), all(0.5 <= ratio <= 2 for ratio in found.values())

    @experiment.claim(f"{part}-floor", f"{model}: SGD's floor of f - f* is proportional to its step",
                      expected="slope 1 ± 0.25 over three halvings (started at the minimum)")
    def floors(results, part=part):
        found = {name: slope for name, _, _, slope in floor_lines(results, part)}
        return listed(found), all(abs(slope - 1) <= 0.25 for slope in found.values())

    @experiment.claim(f"{part}-saw", f"{model}: within a stage SVRG's variance rises, across stages it falls",
                      expected="last quarter epoch of a stage above the first in most stages; the maxima of the stages "
                      "fall, on average by more than exp(0.3) a stage", source="its definition: 0 at the snapshot")
    def saw(results, part=part):
        found, holds = {}, True
        for name in sets(results, part):
            rises, falls = [], []
            for run in of(results, part, name, "SVRG"):
                stages = by_stage(run)
                rises += [v[-1] > v[0] for v in stages]
                falls += list(np.diff([np.log(v.max()) for v in stages]))
            found[name] = f"rises in {np.mean(rises):.0%}, falls by exp({np.mean(falls):.2g}) a stage"
            holds &= np.mean(rises) > 0.5 and np.mean(falls) < -0.3
        return listed(found), holds


def by_stage(run):
    """SVRG's variances, stage by stage (2n steps, eight rows), as long as they are above rounding."""
    step, v = np.asarray(run.columns["step"]), np.asarray(run.columns["variance"])
    n = run.config["n"]
    stages = [v[(step > k * 2 * n) & (step <= (k + 1) * 2 * n)] for k in range(int(step[-1] // (2 * n)))]
    return [s for s in stages if len(s) > 2 and s.min() > 1e-24 * v[0]]


def floor_lines(results, part):
    """[(set, steps in units of 1/(3L), floors, slope)]: mean gap over the last two thirds of the runs and the seeds."""
    found = []
    chosen = results.select(part, lambda name: ", floor, " in name)
    for name in dict.fromkeys(n.split(", floor")[0] for n in chosen.names):
        levels = []
        for k in HALVINGS:
            group = chosen.select(name=f"{name}, floor, 1/{k}: SGD")
            levels.append(np.mean([np.mean(run.columns["gap"][run.rows // 3 :]) for run in group]))
        steps = 1 / np.array(HALVINGS)
        found.append((name, steps, np.array(levels), float(np.polyfit(np.log(steps), np.log(levels), 1)[0])))
    return found


@experiment.claim("b-hard", "logistic regression with l2 = 0.01/n, where n mu is far below L_max: the budget does not "
                  "reach 1e-12", expected="SAGA's gap at the end above 1e-12", source="n mu / (3 L_max) a pass")
def hard(results):
    names = sets(results, "b", hard=True)
    if not names:
        raise Undecided("no set was run with l2 = 0.01/n")
    found = {name: of(results, "b", name, "SAGA").final("gap") for name in names}
    return listed({k: spread(v) for k, v in found.items()}), all(v.min() > 1e-12 for v in found.values())


@experiment.claim("b-accuracy", "logistic regression: the exact minimum is not better on test rows than SGD's last "
                  "iterate", expected="test accuracy of SAGA and SGD at 0.1/L within 0.5 points for every set",
                  source="course task A9")
def accuracy(results):
    found, holds = {}, True
    for name in sets(results, "b"):
        one, two = (100 * of(results, "b", name, m, "0.1/L").final("test_accuracy").mean() for m in ("SAGA", "SGD"))
        found[name] = f"{one:.2f} and {two:.2f} %"
        holds &= abs(one - two) <= 0.5
    return listed(found), holds


@experiment.claim("m-memory", "SAGA's table of scalars is d times smaller than its table of gradients, and takes the "
                  "same steps", expected="ratio d; f after 1,000 steps equal to 1e-12, relative, where both "
                  "tables fit")
def m_memory(results):
    found, holds = {}, True
    for name in dict.fromkeys(n.split(": ")[0] for n in results.select("m").names):
        one, two = (results.select("m", f"{name}: {table}")[0] for table in ("scalars", "gradients"))
        ratio = two.final["table_bytes"] / one.final["table_bytes"]
        same = ""
        if two.final["allocated"]:
            apart = np.abs(one.columns["w"][0] - two.columns["w"][0]).max() / np.abs(two.columns["w"][0]).max()
            f = abs(one.final["objective"] / two.final["objective"] - 1)
            same, holds = f", w {apart:.0e} and f {f:.0e} apart", holds and f <= 1e-12
        found[name] = f"{two.final['table_bytes'] / 1e6:.4g} against {one.final['table_bytes'] / 1e6:.3g} MB{same}"
        holds &= ratio == one.final["dim"]
    return listed(found), holds


# ---------------------------------------------------------------------------------------------------------- figures
def grid_of(results, part, column, ylabel, lowest):
    names = sets(results, part) + sets(results, part, hard=True)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = panels(rows, columns, squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        chosen = in_passes(results.select(part, lambda n, s=name: n.startswith(f"{s}, 1/(3L):")))
        chosen = chosen.with_column(column, lambda c: np.where(c[column] > lowest, c[column], np.nan))      # rounding
        curves(ax, chosen, column, "passes", label=lambda n: n.split(": ")[1], logy=True, ylabel=ylabel,
               xlabel="passes [rows differentiated / n]", legend=ax is axes.flat[0])
        ax.set_title(name)
    for ax in axes.flat[len(names):]:
        ax.axis("off")
    return figure


for part, model in (("a", "Linear regression"), ("b", "Logistic regression")):
    @experiment.figure(f"gaps_{part}.png", caption=f"{model}: f - f* at the step 1/(3 L_max), l2 = L/n unless said. "
                       "Below 1e-16 the gap is rounding, and left out.")
    def gaps(results, part=part):
        return grid_of(results, part, "gap", "f(w) - f*", 1e-16)

    @experiment.figure(f"variances_{part}.png", caption=f"{model}: exact variance of the gradient estimate of one row, "
                       "every quarter epoch, at the step 1/(3 L_max). SVRG's is 0 at each snapshot, between the marks.")
    def variance_figure(results, part=part):
        return grid_of(results, part, "variance", "E|g - grad f|²", 1e-28)


@experiment.figure("floors.png", caption="SGD with a constant step, started at the minimum: the mean gap of the last "
                   "two thirds of the run against the step, with least-squares lines.")
def floor_figure(results):
    figure, ax = panels()
    i = 0
    for part in ("a", "b"):
        if part not in results.parts:
            continue
        for name, steps, levels, slope in floor_lines(results, part):
            fit = np.polyfit(np.log(steps), np.log(levels), 1)
            colour = look(i)["color"]
            ax.plot(steps, levels, "os^D"[i % 4], color=colour, ms=8, label=f"{name}, slope {slope:.2f}")
            ax.plot(steps, np.exp(np.polyval(fit, np.log(steps))), color=colour, lw=1.2)
            i += 1
    ax.set(xscale="log", yscale="log", xlabel="step, in units of 1/(3 L_max)", ylabel="E f(w) - f*")
    ax.set_xticks(1 / np.array(HALVINGS), [f"1/{k}" if k > 1 else "1" for k in HALVINGS])
    ax.minorticks_off()
    ax.legend()
    return figure


@experiment.figure("memory.png", caption="What SAGA keeps beside the data: one number a row for a linear model, or n "
                   "vectors. A hatched bar was computed, not allocated.")
def memory_figure(results):
    chosen = results.select("m")
    names = list(dict.fromkeys(n.split(": ")[0] for n in chosen.names))
    figure, ax = panels()
    for i, (table, label) in enumerate((("scalars", "table of scalars"), ("gradients", "table of gradients"))):
        for at, name in enumerate(names):
            run = chosen.select(name=f"{name}: {table}")[0].final
            size = run["table_bytes"] / 1e6
            ax.bar(at + (i - 0.5) * 0.4, size, 0.38, color=look(i)["color"], edgecolor="white",
                   hatch=None if run["allocated"] else "///", label=label if at == 0 else None)
            if table == "gradients":
                ax.annotate(f"{run['dim']:g} times", (at + 0.2, size), ha="center", va="bottom", fontsize=10)
    data = [chosen.select(name=f"{name}: scalars")[0].final["data_bytes"] / 1e6 for name in names]
    ax.plot(np.arange(len(names)), data, "k_", ms=44, mew=2, label="the data X")
    ax.set_yscale("log")
    ax.set_ylim(ax.get_ylim()[0] / 3, ax.get_ylim()[1] * 3)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylabel("megabytes")
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left")
    return figure


if __name__ == "__main__":
    experiment.main()
