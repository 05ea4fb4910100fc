"""Does training sharpen until the rate stops it?   The book's C.4; Cohen et al., ICLR 2021; Lewkowycz et al., 2020.

With all rows, a quadratic of curvature lam is stable for a method only below an edge: 2/lr for gradient descent,
2 (1 + beta)/lr for heavy ball, 2 (1 + beta)/((1 + 2 beta) lr) for Nesterov, and 38/lr for Adam with b1 = 0.9, whose
curvature is that of P^(-1/2) H P^(-1/2), P the root of its second moments. Training raises lmax(H) of the loss. It
should rise along one path in time = rate x steps, whatever the rate, reach the edge of each method, and stay within a
tenth of it. There successive gradients point against each other, and the loss falls in the long run, not from step to
step. With the cross-entropy lmax comes down again once the rows are fitted. SGD has no such edge; it should stay below.

A rate above 2/lmax at the start need not diverge: up to about 4/lmax (12 for ReLU networks) the loss first rises, lmax
falls below 2/lr, and training goes on there. For u'v/sqrt(m) this catapult is a recursion of two numbers.

The chapter's curves (part f) are loss, improvement, gradient norm, change and weight norm of Adam by epoch. Here they
stand beside update / weights and cosines, from the start and for a network that goes on, with sums of the tensors'
norms, as there, beside the norms of the whole.

Perceptrons with 32 and 32 tanh units (part k: 100 ReLU units) on 1,000 pictures (cifar-10-jpeg: 500), mean squares over
ten outputs. Every Hessian product is exact.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 10 minutes.
"""

from figures.training_dynamics import FLIGHT, LAST, album, arrival, at_edge, by_rate, epochs_of, late, value_at
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, listed, on_every, slope, spread, spreads
from lab.dynamics import chapter, sharpened, slung
from lab.verdicts import lower, within
from nn import ReLU, SoftmaxCrossEntropy, Tanh
from nn.init import KaimingNormal
from npopt import SGD, Adam, HeavyBall, Nesterov, Stop
from npopt.analysis import edge
from problems.bilinear import Bilinear

import numpy as np

experiment = Experiment(
    __doc__,
    task="C.4",
    source="Cohen et al., ICLR 2021, arXiv:2103.00065, and 2022, arXiv:2207.14484; Lewkowycz et al., arXiv:2003.02218",
    parts={
        "g": Part("gradient descent at three rates", "digits", ("fashion-mnist", "cifar-10-jpeg")),
        "c": Part("the same with the cross-entropy", "digits", "fashion-mnist"),
        "m": Part("heavy ball and Nesterov", "digits", "fashion-mnist"),
        "a": Part("Adam with all rows", "digits", "fashion-mnist"),
        "s": Part("SGD", "digits", "fashion-mnist"),
        "k": Part("rates beyond 2/lmax at the start", "digits", "fashion-mnist"),
        "t": Part("the catapult of u'v"),
        "f": Part("the chapter's curves", "digits", "fashion-mnist"),
    },
    seeds=3,
    figures=album,
)

DESCENTS = {  # 2/lr: time, rate x steps
    "fashion-mnist": {8: 300, 10: 300, 12: 400},
    "cifar-10-jpeg": {30: 60, 36: 80, 42: 100},
    "digits": {4: 20, 8: 20},
}
LARGE = 0.25  # part s
FACTORS = (0.5, 1, 2.5, 3, 3.5, 5, 8, 12, 16, 24)


# ------------------------------------------------------------------------------------------------------------- grid
def run_of(args, part, data, optimizer, lr, steps, *, hidden=(32, 32), every=25, given=None, batch=None, **tags):
    """An entry of lab.dynamics.sharpened. `every` is odd: at the edge every other point lies on the same side."""
    relative, rows = "factor" in tags, 500 if data == "cifar-10-jpeg" else 1000
    problem = dict(rows=args.pick(rows, 60), hidden=args.pick(hidden, (8,)), test_rows=args.pick(1000, 60))
    problem |= dict(pixels=None, activation=Tanh) | (given or {})
    some = dict(optimizer=optimizer, lr=lr, steps=args.pick(round(steps), 40), every=args.pick(every, 5), batch=batch)
    run = Recipe(sharpened, data=data, problem=problem, relative=relative, **some)
    if not relative:
        tags |= dict(lr=lr, edge=edge(optimizer, lr))
    return Entry(part, run=run, metrics=1, per="step", data=data, **tags)


@experiment.runs
def runs(args):
    for data in args.data_of("g"):
        for top, time in DESCENTS[data].items():
            yield run_of(args, "g", data, SGD(), 2 / top, time * top / 2, method="GD")
    for data in args.data_of("c"):
        for top, steps in ((20, 1000), (40, 1300)):
            yield run_of(args, "c", data, SGD(), 2 / top, steps, given=dict(loss=SoftmaxCrossEntropy()), method="GD")
    for data in args.data_of("m"):
        for name, method in (("heavy ball", HeavyBall(0.9)), ("Nesterov", Nesterov(0.9))):
            yield run_of(args, "m", data, method, edge(method, 1.0) / 12, 1000, method=name)
    for data in args.data_of("a"):
        for lr, steps in ((1e-3, 1000), (5e-4, 1500)):
            yield run_of(args, "a", data, Adam(), lr, steps, method="Adam", seeds=args.pick([*range(5)], None))
    for data in args.data_of("s"):
        for batch in args.pick((8, 32, 128), (8,)):
            more = dict(every=45, batch=batch, method="SGD", B=batch)
            yield run_of(args, "s", data, SGD(), LARGE, 300 / LARGE, **more)
    for data in args.data_of("k"):
        for factor in args.pick(FACTORS, (1, 3, 16)):
            more = dict(given=dict(activation=ReLU), every=5, method="GD", factor=factor)
            yield run_of(args, "k", data, SGD(), factor, FLIGHT, hidden=(100,), **more)
    for factor in (0.5, 1.9, 2.5, 3, 3.5, 3.9, 4.3):
        run = Recipe(slung, m=1000, factor=factor, steps=args.pick(200, 60))
        yield Entry("t", run=run, metrics=1, per="step", method="u'v", factor=factor)
    for factor in (1.0, 3.0, 3.7):
        given = dict(stop=Stop(steps=26), metrics=1, per="step", seeds=[0], method="moving", factor=factor)
        yield Entry("t", Recipe(Bilinear, start=(1.0, 0.01)), SGD(), None, factor / 1.0001, **given)  # K = 1.0001
    for data in args.data_of("f"):
        some = dict(rows=args.pick(5000, 200), init=KaimingNormal(), batch=128, epochs=args.pick(12, 2))
        for name, method, lr in (("Adam", Adam(), 1e-3), ("momentum SGD", HeavyBall(0.9), 0.01)):
            run = Recipe(chapter, data=data, optimizer=method, lr=lr, **some)
            yield Entry("f", run=run, data=data, method=name, lr=lr)


# ----------------------------------------------------------------------------------------------------------- claims
@experiment.claim(
    "g-edge",
    "the sharpness of gradient descent flattens at 2/lr",
    expected="mean of lmax lr / 2 over the last quarter of the steps within 0.9 to 1.1 at every rate (95 %)",
    source="Cohen et al. 2021, section 3: at, or just above, 2/lr",
)
def g_edge(results):
    return on_every(by_rate(results, "g"), lambda _, runs: at_edge(runs))


@experiment.claim(
    "g-rises",
    "before that it rises: training sharpens",
    expected="lmax where it first reaches the edge at least 1.25 times its least value before, at every rate (95 %)",
    source="Cohen et al. 2021: progressive sharpening",
)
def g_rises(results):
    def judged(_, runs):
        until = [run.columns["high"][: arrival(run) + 1] for run in runs]
        rise = [high[-1] / np.nanmin(high) for high in until]
        return spread(rise, 3), within(rise, 1.25)

    return on_every(by_rate(results, "g"), judged)


@experiment.claim(
    "g-path",
    "below the edge the rate does not matter: lmax is a function of rate x steps",
    expected="when the largest rate is at 0.9 of its edge, lmax of the others at that time within 5 % of it (95 %)",
    source="Cohen et al. 2021: gradient flow, until it is unstable",
)
def g_path(results):
    def judged(_, runs):
        (lr, leads), *others = runs.groups("lr")
        apart = []
        for lead in leads:
            time = lr * arrival(lead, 0.9)
            rest = [value_at(some.by_seed()[lead.seed], time / slower) for slower, some in others]
            apart.append(np.abs(np.log(rest) - np.log(value_at(lead, time / lr))).max())
        return f"at most {100 * np.max(apart):.1f} % apart", within(apart, high=0.05)

    return on_every(results.select("g").groups("data"), judged)


@experiment.claim(
    "g-zigzag",
    "at the edge successive gradients point against each other; before, along",
    expected="mean cosine above 0.9 until 0.9 of the edge, below 0 in the last quarter, at every rate (95 %)",
    source="oscillation along the top eigenvector",
)
def g_zigzag(results):
    def judged(_, runs):
        first = [np.nanmean(run.columns["cosine"][10 : max(12, arrival(run, 0.9))]) for run in runs]
        last = late(runs, "cosine")
        text = f"{np.mean(first):.2f} and {np.mean(last):.2f}"
        return decided(text, within(first, 0.9), within(last, high=0.0))[:2]

    return on_every(by_rate(results, "g"), judged)


@experiment.claim(
    "g-falls",
    "there the loss rises in many steps, and still falls in the long run",
    expected="a fifth of the last quarter's steps raise it; mean over the last eighth below that before (95 %)",
    source="Cohen et al. 2021: it falls non-monotonically",
)
def g_falls(results):
    def judged(_, runs):
        rises, trend = [], []
        for run in runs:
            loss = run.columns["loss"][-(run.rows // LAST) :]
            rises.append(np.mean(np.diff(loss) > 0))
            trend.append(np.log(loss[len(loss) // 2 :].mean() / loss[: len(loss) // 2].mean()))
        text = f"{np.mean(rises):.0%} rise, mean changes by {100 * np.expm1(np.mean(trend)):.0f} %"
        return decided(text, within(rises, 0.2), lower(trend, np.zeros(len(trend))))[:2]

    return on_every(by_rate(results, "g"), judged)


@experiment.claim(
    "c-edge",
    "with the cross-entropy lmax reaches 2/lr and comes down again",
    expected="its largest mean over five looks within 0.9 to 1.3 of 2/lr; at the end below 0.8 of that (95 %)",
    source="Cohen et al. 2021, on the cross-entropy",
)
def c_edge(results):
    def judged(_, runs):
        high = [run.columns["high"][np.isfinite(run.columns["high"])] for run in runs]
        peak = np.array([np.convolve(v, np.ones(5) / 5, "valid").max() for v in high])
        fall, share = [v[-2:].mean() / top for v, top in zip(high, peak, strict=True)], peak / runs[0].tags["edge"]
        text = f"peak {spread(share, 3)}, end {np.mean(fall):.2f} of it"
        return decided(text, within(share, 0.9, 1.3), within(fall, high=0.8))[:2]

    return on_every(by_rate(results, "c"), judged)


@experiment.claim(
    "m-edge",
    "with momentum it flattens at the edge of each method",
    expected="beta = 0.9: last quarter within 0.9 to 1.1 of 3.8/lr (heavy ball), of 3.8/(2.8 lr) (Nesterov) (95 %)",
    source="Cohen et al. 2021, on momentum",
)
def m_edge(results):
    return on_every(results.select("m").groups("method"), lambda _, runs: at_edge(runs))


@experiment.claim(
    "a-edge",
    "Adam's preconditioned sharpness flattens at 38/lr",
    expected="last quarter within 0.9 to 1.1 at every rate (95 %)",
    source="Cohen et al. 2022",
)
def a_edge(results):
    return on_every(by_rate(results, "a"), lambda _, runs: at_edge(runs, "conditioned"))


@experiment.claim(
    "a-plain",
    "while lmax itself goes on rising: P adapts to it",
    expected="mean of lmax over the last quarter above that over the quarter before (95 %); false where below",
    source="Cohen et al. 2022: adaptive methods go on into regions of higher curvature",
)
def a_plain(results):
    def judged(_, runs):
        last, before = late(runs, "high"), late(runs, "high", 1)
        return f"{np.mean(before):.3g} to {np.mean(last):.3g}", lower(before, last)

    return on_every(by_rate(results, "a"), judged)


@experiment.claim(
    "s-below",
    "SGD at the same rate stays below, the more so the smaller the batch",
    expected="last quarter: B = 8 below 32 below 128 below gradient descent (95 %); false where one is above",
    source="Cohen et al. 2021, on SGD; Wu, Ma & E, 2018",
)
def s_below(results):
    found = {f"B = {batch}": late(runs, "high") for batch, runs in results.select("s").groups("B")}
    found["GD"] = late(results.select("g", data="fashion-mnist", lr=LARGE), "high")
    values = list(found.values())
    return decided(spreads(found), *(lower(a, b) for a, b in zip(values[:-1], values[1:], strict=True)))


# ------------------------------------------------------------------------------------------------------ catapults
@experiment.claim(
    "k-lifts",
    "beyond 2/lmax the loss first rises, below it does not",
    expected="largest of 20 losses: at 2.5, 3 and 3.5/lmax at least 1.05 of the first (95 %); at 0.5 and 1 the first",
    source="Lewkowycz et al. 2020",
)
def k_lifts(results):
    found, verdicts = {}, []
    for factor, runs in results.select("k", factor=lambda v: v <= 3.5).groups("factor"):
        top = [np.nanmax(run.columns["loss"][:21]) / run.columns["loss"][1] for run in runs]
        found[f"{factor:g}:"] = f"{np.mean(top):.2f}"
        verdicts.append(within(top, 1.05) if factor > 2 else all(v == 1 for v in top))
    return decided(listed(found), *verdicts)


@experiment.claim(
    "k-lands",
    "and training goes on, flat enough for its rate, up to a rate far beyond 4/lmax",
    expected=f"2.5 to 8/lmax: none diverges, lmax lr / 2 after {FLIGHT} steps at most 1.1 (95 %); 16/lmax: all diverge",
    source="Lewkowycz et al. 2020: 4/lmax for linear networks, about 12/lmax for ReLU",
)
def k_lands(results):
    def judged(name, runs):
        gone = sum(run.diverged for run in runs)
        if gone or name.startswith("16"):
            return f"{gone} of {len(runs)} diverged", name.startswith("16") and gone == len(runs)
        share = [run.final["high"] * run.final["rate"] / 2 for run in runs]
        return f"{np.mean(share):.2f}", within(share, high=1.1)

    groups = results.select("k", factor=lambda v: 2 < v <= 8 or v == 16).groups("factor")
    return on_every([(f"{factor:g}:", runs) for factor, runs in groups], judged)


@experiment.claim(
    "k-flatter",
    "there it is flatter and lower than at a small rate",
    expected="after as many steps: lmax and training loss of 5/lmax below those of 1/lmax (95 %)",
    source="Lewkowycz et al. 2020",
)
def k_flatter(results):
    ends = {factor: results.select("k", factor=factor) for factor in (5, 1)}
    high, loss = ({f"{k:g}:": runs.final(column) for k, runs in ends.items()} for column in ("high", "train_loss"))
    text = f"lmax {spreads(high)}; loss {spreads(loss)}"
    return decided(text, *(lower(v["5:"], v["1:"]) for v in (high, loss)))


@experiment.claim(
    "t-catapult",
    "u'v/sqrt(m), m = 1,000: below 2/K the kernel stays, to 4/K it lands below 2/lr, beyond 4 it flies apart",
    expected="0.5: K within 1 %; 2.5 to 3.9: loss rises, then falls below 1e-3, K lr < 2; 4.3: diverges; all seeds",
    source="the recursion of Lewkowycz et al. 2020",
)
def t_catapult(results):
    good, text = [], {}
    for factor, runs in results.select("t", method="u'v").groups("factor"):
        ends = [run.columns["kernel"][-1] * run.columns["rate"][0] for run in runs]
        text[f"{factor:g}:"] = "diverged" if all(r.diverged for r in runs) else f"K lr {np.mean(ends):.2f}"
        for f, end, gone in ((r.columns["f"], end, r.diverged) for r, end in zip(runs, ends, strict=True)):
            lands = max(f) > f[0] and f[-1] < 1e-3 and end < 2
            stays = max(f) == f[0] and (factor > 1 or abs(end / factor - 1) < 0.01)
            good.append(gone if factor > 4 else lands if factor > 2 else stays)
    return listed(text), all(good)


@experiment.claim(
    "f-change",
    "the distance from the start grows more slowly than a random walk's",
    expected="slope of log change against log epoch from the second epoch on below 1/2, both methods (95 %)",
    source="a random walk would have 1/2",
)
def f_change(results):
    def judged(_, runs):
        slopes = [slope(np.arange(2, len(v) + 1), v[1:]) for v in (epochs_of(run, "change") for run in runs)]
        return spread(slopes, 3), within(slopes, high=0.5)

    return on_every(results.select("f").groups("method"), judged)


@experiment.claim(
    "f-cosine",
    "successive mini-batch gradients agree at first and are strangers later",
    expected="mean cosine of the first epoch above 0.2, of the last below 0.1 in size, both methods (95 %)",
    source="signal falls, noise stays",
)
def f_cosine(results):
    def judged(_, runs):
        first, last = (np.array([epochs_of(run, "cosine")[k] for run in runs]) for k in (0, -1))
        text = f"{spread(first, 2)}, {spread(last, 2)}"
        return decided(text, within(first, 0.2), within(last, -0.1, 0.1))[:2]

    return on_every(results.select("f").groups("method"), judged)


if __name__ == "__main__":
    experiment.main()
