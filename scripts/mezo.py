"""Can a network be trained by function values alone?   Course tasks A6 c and B4 a; Malladi et al., NeurIPS 2023 (MeZO).

MeZO is SGD with s z, s the difference of two losses along z ~ N(0, I), in the memory of inference. On average it needs
tr H / (g'Hg/|g|^2) + 2 times the steps of SGD (a quadratic model of the loss; the best step of each): d + 2 if all
curvatures were alike, but only about the effective rank tr H / lmax if the gradient lies along the sharpest ones. So it
is meant for a start from which little has to be learned. Here LeNet-5 (tanh, mean pooling, so that it has a Hessian)
has learned 10,000 digits, and is to learn 1,600 that are moved by three pixels, from these weights or from scratch;
ResNet-20 has learned photographs, and is to learn grey ones. Beside SGD and MeZO: ZO-SGD (the same numbers with the
vectors kept), LOZO and LOZO-M (rank 2), DeepZero (differences along 1 % of the coordinates). Axes count batches of 64
rows forward: MeZO 2 a step, DeepZero 1 a coordinate; a gradient counts 3. Language models come later.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 20 minutes for LeNet, 15 for
ResNet-20 (--parts c).
"""

import math

import nn
from lab import (
    Entry,
    Experiment,
    Part,
    Recipe,
    Undecided,
    close,
    decided,
    inside,
    listed,
    lower,
    no_higher,
    shown,
    spread,
)
from lab.figures import MARKERS, below, curves, look, mark, panels, plain, said
from npopt import LOZO, SGD, DeepZero, GaussianSmoothing, HeavyBall, MeZO, RandomReshuffling, Stop, backend, minimize
from npopt.analysis.curvature import Hessian, lanczos, length
from problems.adapted import BATCH, adapted

import numpy as np

experiment = Experiment(
    __doc__,
    task="A6",
    source="Malladi et al., NeurIPS 2023, arXiv:2305.17333; Chen et al. 2024, arXiv:2410.07698 and 2310.02025",
    parts={
        "a": Part("LeNet-5 that has learned a task nearby", "digits", "mnist"),
        "s": Part("LeNet-5 from scratch", "digits", "mnist"),
        "r": Part("the radius", "digits", "mnist"),
        "e": Part("effective rank at both starts", "digits", "mnist"),
        "c": Part("ResNet-20 that has learned a task nearby", "digits", "cifar-10-jpeg"),
    },
    seeds=3,
)

RATES = {                                                       # a factor of 3 apart; DeepZero: 1 % of the coordinates
    "SGD": (0.03, 0.1, 0.3, 1.0), "MeZO": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), "LOZO": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "LOZO-M": (3e-4, 1e-3), "DeepZero": (0.3,),
}
SCRATCH = {"SGD": (0.1, 0.3, 1.0), "MeZO": (3e-4, 1e-3, 3e-3), "DeepZero": (0.3,)}
DEEP = {"SGD": (0.03, 0.1), "MeZO": (3e-5, 1e-4), "LOZO": (3e-5,), "DeepZero": (0.1,)}
GRIDS = {"a": RATES, "s": SCRATCH, "c": DEEP}
AFTER = (0, 30)                                                 # steps of SGD before the Hessian is looked at
MIDDLE = 3e-4                                                   # of MeZO's rates
RADII = tuple(float(f"1e{k}") for k in range(-6, 1))
START = {"a": "learned", "s": "scratch", "r": "learned", "c": "learned"}
COLOURS = {name: i for i, name in enumerate((*RATES, "ZO-SGD"))}
SMOOTH = {"activation": nn.Tanh, "pool": "avg"}
SAMPLER = RandomReshuffling(BATCH, drop_last=True)


# ---------------------------------------------------------------------------------------------------- own functions
def estimators(part):
    sparse = 0.999 if part == "c" else 0.99
    return {
        "SGD": None, "MeZO": MeZO(), "ZO-SGD": GaussianSmoothing(), "LOZO": LOZO(2, 50),
        "LOZO-M": LOZO(2, 50, momentum=0.9), "DeepZero": DeepZero(sparse, every=5, queries=48),
    }


def steps_of(method, part, args):
    """(steps, steps between two rows of columns)"""
    full = {"SGD": 100, "DeepZero": 40} if part != "c" else {"SGD": 60, "DeepZero": 4}
    others = args.pick(250, 100) if part == "c" else args.pick(2000, 200)
    steps = args.pick(full, {"SGD": 40, "DeepZero": 5}).get(method, others)
    return steps, max(1, steps // (6 if part == "c" else 50))


def problem_of(part, data, args, **more):
    size = dict(rows=args.pick(2000, 600), before=args.pick(10_000, 1400), epochs=args.pick(3, 15), test_rows=1000)
    if part == "c":
        size |= {} if args.quick else dict(before=6400, epochs=2)
        return Recipe(adapted, data=data, network="resnet20", width=args.pick(16, 4), **size)
    return Recipe(adapted, data=data, start=START[part], **size, **SMOOTH, **more)


def slowdown(seed, events, *, after, **arguments):
    """After so many steps of SGD at rate 0.1: tr H over 256 rows, from 20 vectors of signs; lmax; curvature along the
    gradient; what they say of MeZO's steps against SGD's. H is a difference of gradients in float64."""
    problem, draw = adapted(**arguments, dtype="float64"), backend.generator(seed, "signs")
    x = minimize(problem, SGD(), SAMPLER, 0.1, stop=Stop(steps=after), seed=seed, events=events).x
    rows, g = np.arange(min(256, problem.n)), backend.xp(x).empty_like(x)
    H = Hessian(problem, x, rows, 1e-6)
    problem.value_and_gradient(x, rows, out=g)
    signs = (backend.asarray(draw.choice((-1.0, 1.0), x.size)) for _ in range(20))
    traces = np.array([float(backend.to_host(v @ H(v))) for v in signs])
    along, largest = float(backend.to_host(g @ H(g))) / length(g) ** 2, lanczos(H, x.size, 12, seed).values[-1]
    error, rank = traces.std(ddof=1) / 20**0.5, traces.mean() / largest
    found = dict(trace=traces.mean(), trace_error=error, largest=largest, along=along, dim=x.size, rank=rank,
                 slowdown=traces.mean() / along + 2)
    return {name: [float(value)] for name, value in found.items()}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    for part in "asc":
        for data in args.data_of(part):
            for method, rates in GRIDS[part].items():
                for lr in args.pick(rates, rates[(len(rates) - 1) // 2:][:1]):
                    steps, every = steps_of(method, part, args)
                    momentum = 0.9 if method == "DeepZero" else 0.0         # its rate: lr (1 - momentum)
                    yield Entry(part, problem_of(part, data, args), HeavyBall(momentum), SAMPLER, lr * (1 - momentum),
                                stop=Stop(steps=steps), estimator=estimators(part)[method], metrics=every, per="step",
                                seeds=args.seeds[:1] if part == "c" else None, method=method, lr=lr)
    for data in args.data_of("a"):
        steps, every = steps_of("MeZO", "a", args)
        yield Entry("a", problem_of("a", data, args), HeavyBall(0.0), SAMPLER, MIDDLE, estimator=GaussianSmoothing(),
                    stop=Stop(steps=steps), metrics=every, per="step", method="ZO-SGD", lr=MIDDLE)
    for data in args.data_of("r"):
        for radius in args.pick(RADII, RADII[1::2]):
            steps, every = args.pick(1000, 100), args.pick(100, 50)
            yield Entry("r", problem_of("r", data, args), SGD(), SAMPLER, MIDDLE, estimator=MeZO(radius),
                        stop=Stop(steps=steps), metrics=every, per="step", radius=radius)
    for data in args.data_of("e"):
        for start in ("learned", "scratch"):
            arguments = problem_of("a", data, args).arguments | {"start": start}
            for after in AFTER:
                yield Entry("e", run=Recipe(slowdown, after=after, **arguments), start=start, after=after)


# ----------------------------------------------------------------------------------------------------------- claims
def best(results, part, method):
    """The runs of a method at its best rate, by the loss of held-out rows."""
    return results.select(part, method=method).tuned()[method].runs


def passes(runs):
    """With a column `passes`: batches forward, a gradient counting 3."""
    return runs.with_column("passes", lambda c: (np.asarray(c["values"]) + 3 * np.asarray(c["gradients"])) / BATCH)


def full(args):
    if args.quick:
        raise Undecided("--quick has too few steps")


def gain(runs):
    """Points of test accuracy above the start, one a run."""
    return 100 * (runs.final("test_accuracy") - runs.at("test_accuracy", 0))


@experiment.claim("a-works", "from a start nearby MeZO learns the moved digits", expected="test accuracy at least 20 "
                  "points above the start (95 % over seeds), at the rate that held-out loss chooses")
def a_works(results, args):
    full(args)
    found = gain(best(results, "a", "MeZO"))
    return decided(f"{spread(found, 3)} points", no_higher(20 - found, 0 * found, 0.0))


@experiment.claim("a-same", "MeZO is ZO-SGD without the vectors", source="arXiv:2305.17333, section 2.1",
                  expected="after all steps at rate 3e-4 training losses within 1 % of each other (95 % of the log)")
def a_same(results):
    one, two = (np.log(results.select("a", method=m, lr=MIDDLE).final("train_loss")) for m in ("MeZO", "ZO-SGD"))
    return decided(f"ratio {np.exp((one - two).mean()):.4f}", close(one, two, 0.01))


for part, where in (("a", "a start nearby"), ("s", "scratch")):
    @experiment.claim(f"{part}-order", f"from {where}, step by step: SGD ahead of DeepZero, DeepZero far ahead of MeZO",
                      expected="training loss after all of DeepZero's steps, each at its best rate: lower (95 %)",
                      source="differences along all coordinates are the gradient; along 1 % a part of it")
    def order(results, part=part):
        ends = {m: best(results, part, m) for m in ("SGD", "DeepZero", "MeZO")}
        last = int(ends["DeepZero"][0].columns["step"][-1])
        early = {m: np.array([np.interp(last, r.columns["step"], r.columns["train_loss"]) for r in runs])
                 for m, runs in ends.items()}
        text = listed({m: f"{v.mean():.3g}" for m, v in early.items()})
        return decided(text, lower(early["SGD"], early["DeepZero"]), lower(early["DeepZero"], early["MeZO"]))

    @experiment.claim(f"{part}-gap", f"from {where} MeZO stays behind SGD at the end of both",
                      expected="test accuracy lower by 2 points or more (95 %); from scratch by 10 or more")
    def behind(results, part=part):
        sgd, mezo = (100 * best(results, part, m).final("test_accuracy") for m in ("SGD", "MeZO"))
        return decided(f"{shown(sgd, mezo, 3)} points", lower(mezo + (10 if part == "s" else 2), sgd))

    @experiment.claim(f"{part}-edge", "the rates are wide enough", expected="the best inside, where there are three",
                      source="tuning of this script")
    def edge(results, part=part):
        return inside(part)(results.select(method=lambda m: m in GRIDS[part] and len(GRIDS[part][m]) > 2))


@experiment.claim("a-lozo", "directions of rank 2 are no worse than full ones", source="arXiv:2410.07698",
                  expected="LOZO's last training loss at most 10 % above MeZO's, each at its best rate (95 %)")
def a_lozo(results):
    one, two = (np.log(best(results, "a", m).final("train_loss")) for m in ("LOZO", "MeZO"))
    return decided(f"ratio {np.exp((one - two).mean()):.3f}", no_higher(one, two, math.log(1.1)))


@experiment.claim("a-values", "per function value differences along coordinates gain nothing on MeZO",
                  expected="at as many values as MeZO's last, DeepZero's training loss is not below MeZO's (95 %)")
def a_values(results):
    mezo, deep = (passes(best(results, "a", m)) for m in ("MeZO", "DeepZero"))
    budget = mezo[0].columns["passes"][-1]
    ends = np.array([np.interp(budget, r.columns["passes"], r.columns["train_loss"]) for r in deep])
    return decided(f"{ends.mean():.3g} and {mezo.final('train_loss').mean():.3g} at {budget:.0f}",
                   no_higher(mezo.final("train_loss"), ends, 0.0))


@experiment.claim("r-flat", "the radius hardly matters between rounding and curvature", expected="from 1e-4 to 1e-2 "
                  "training losses within 10 % of each other; at 1e-6 (float32 rounds) and at 1 higher than at 1e-3")
def r_flat(results):
    ends = {radius: runs.final("train_loss") for radius, runs in results.select("r").groups("radius")}
    flat = [v.mean() for radius, v in ends.items() if 0.5e-4 < radius < 2e-2]
    text = listed({f"{radius:g}": f"{v.mean():.3g}" for radius, v in ends.items()})
    if not {1e-6, 1e-3, 1.0} <= set(ends):
        return text, None, "--quick has no radii at the ends"
    verdicts = [max(flat) <= 1.1 * min(flat)]
    verdicts += [bool(np.nan_to_num(ends[r], nan=np.inf).min() > ends[1e-3].max()) for r in (1e-6, 1.0)]
    return decided(text, *verdicts)


@experiment.claim("e-rank", "the Hessian's effective rank is far below the number of weights",
                  expected="tr H / lmax below d/100 in size, every seed, both starts, after 0 and 30 steps of SGD",
                  source="arXiv:2305.17333, section 4")
def e_rank(results):
    found = {f"{start} {after}": runs.final("rank") for (start, after), runs in
             results.select("e").groups("start", "after")}
    d = results.select("e").final("dim")[0]
    return (f"{listed({k: f'{v.mean():.3g}' for k, v in found.items()})}, d = {d:.0f}",
            all((abs(v) < d / 100).all() for v in found.values()))


def reached(runs, level):
    """Steps until the training loss is at most `level`, one a run; inf where it never is."""
    found = []
    for run in runs:
        at = np.flatnonzero(np.asarray(run.columns["train_loss"]) <= level)
        found.append(run.columns["step"][at[0]] if at.size else np.inf)
    return np.array(found)


def observed(results, part):
    """(least ratio of MeZO's to SGD's steps until the training loss has fallen by 30 %, one a seed), over all rates."""
    level = 0.7 * results.select(part, method="SGD").at("train_loss", 0).mean()
    fastest = [np.min([reached(runs, level) for _, runs in results.select(part, method=m).groups("lr")], axis=0)
               for m in ("MeZO", "SGD")]
    return fastest[0][np.isfinite(fastest[0])] / fastest[1][np.isfinite(fastest[0])]


for part, start in (("a", "learned"), ("s", "scratch")):
    @experiment.claim(f"e-{start}", f"{start}: MeZO needs as many times SGD's steps as trace and curvature along g say",
                      expected="steps to 70 % of the first training loss, each at its fastest rate: ratio within a "
                      "factor 4 of tr H / (g'Hg/|g|^2) + 2, after 30 steps of SGD (mean of the log over seeds)")
    def explained(results, part=part, start=start):
        wanted, found = results.select("e", start=start, after=30).final("slowdown"), observed(results, part)
        if not len(found) or not np.isfinite(found).all() or (wanted <= 0).any():
            raise Undecided("no seed comes that far, or the curvature along g is not positive")
        text = f"{np.exp(np.log(found).mean()):.3g}, predicted {wanted.mean():.3g}"
        return text, bool(abs(np.log(found).mean() - np.log(wanted).mean()) <= math.log(4))


@experiment.claim("c-works", "ResNet-20: MeZO gains a little of what SGD gains", expected="test accuracy above the "
                  "start, and less than half of SGD's gain; one seed", source="no published number")
def c_works(results, args):
    full(args)
    sgd, mezo = (gain(best(results, "c", m))[0] for m in ("SGD", "MeZO"))
    return f"{mezo:.1f} of {sgd:.1f} points", bool(0 < mezo < sgd / 2)


# ---------------------------------------------------------------------------------------------------------- figures
def at_best(results, part):
    some = results.select(part, method=lambda m: m != "ZO-SGD").at_best()
    return passes(some).with_column("error", lambda c: 100 * (1 - c["test_accuracy"]))


def drawn(results, axes, parts):
    for ax, (part, title) in zip(axes, parts, strict=True):
        curves(ax, at_best(results, part), "error", x="passes", logx=True, legend=False, ylabel="test error [%]",
               xlabel="batches forward (a gradient: 3)", label=lambda t: t["method"],
               colours=lambda t: COLOURS[t["method"]])
        ax.set(title=title, ylim=(0, None))


@experiment.figure("values.png", caption="Test error against batches of 64 rows forward, each method at the rate that "
                   "held-out loss chooses, median and range over seeds. Left: a start nearby. Right: from scratch.")
def values_figure(results):
    figure, axes = panels(1, 2)
    drawn(results, axes, (("a", "LeNet-5 that has learned a task nearby"), ("s", "from scratch")))
    return below(figure, axes[0], title=said(len(results.seeds)))


@experiment.figure("rates.png", caption="Training loss after all steps against the rate (circles: a start nearby; "
                   "squares: from scratch), up to 5; and MeZO's against the radius at rate 3e-4.")
def rates_figure(results):
    figure, (left, right) = panels(1, 2)
    for i, (part, style) in enumerate((("a", "-"), ("s", "--"))):
        for method, runs in results.select(part, method=lambda m: m in RATES).groups("method"):
            means = {lr: v for lr, v in runs.means("train_loss", "lr").items() if v < 5}  # others are off the scale
            left.plot(list(means), list(means.values()), marker=MARKERS[i], ls=style, ms=5,
                      color=look(COLOURS[method])["color"], label=method if part == "a" else None)
    left.set(xscale="log", yscale="log", xlabel="rate", ylabel="training loss")
    left.legend(fontsize=10)
    ends = [(radius, runs.final("train_loss")) for radius, runs in results.select("r").groups("radius")]
    middle = np.array([[radius, np.median(v), v.min(), v.max()] for radius, v in ends if np.isfinite(v).all()])
    spans = middle[:, 1] - middle[:, 2], middle[:, 3] - middle[:, 1]
    right.errorbar(middle[:, 0], middle[:, 1], spans, **look(1), marker="o", capsize=3)
    mark(right, results.select("r").at("train_loss", 0)[0], "start", 0.05)
    right.set(xscale="log", yscale="log", xlabel="radius", ylabel="training loss")
    plain(right.yaxis)
    return figure


@experiment.figure("slowdown.png", caption="MeZO's steps against SGD's until the training loss has fallen by 30 %, "
                   "beside what the Hessian after 30 steps of SGD says: effective rank, its correction, dimension.")
def slowdown_figure(results):
    figure, ax = panels()
    for i, (part, start) in enumerate((("a", "learned"), ("s", "scratch"))):
        e = results.select("e", start=start, after=30)
        bars = {"effective rank tr H / lmax": e.final("rank"), "tr H / (g'Hg/|g|²) + 2": e.final("slowdown"),
                "measured": observed(results, part), "d + 2": e.final("dim") + 2}
        for k, v in enumerate(np.where(np.asarray(v) > 0, v, np.nan) for v in bars.values()):
            ax.plot(np.full(v.size, k + 0.2 * i), v, MARKERS[i], ms=9, color=look(i)["color"],
                    label=start if k == 0 else None)
    ax.set_xticks(np.arange(4) + 0.1, list(bars), fontsize=10)
    ax.set(yscale="log", ylabel="times SGD's steps")
    ax.legend(title="start")
    return figure


@experiment.figure("resnet.png", caption="ResNet-20: test error against batches forward and against seconds of steps, "
                   "one seed, each method at the rate that held-out loss chooses.")
def resnet_figure(results):
    figure, axes = panels(1, 2)
    drawn(results, axes[:1], (("c", "photographs learned, grey ones now"),))
    curves(axes[1], at_best(results, "c"), "error", x="seconds", logx=True, legend=False, ylabel="test error [%]",
           label=lambda t: t["method"], colours=lambda t: COLOURS[t["method"]])
    return below(figure, axes[0])


if __name__ == "__main__":
    experiment.main()
