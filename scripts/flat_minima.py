"""Which minima can SGD stay at, and when does it leave the others?   Course task A14; Zhu et al. 2019, Wu et al. 2018.

Near a minimum gradient descent is stable below the rate 2/lmax(H). SGD can be unstable below that: where rows disagree
about the curvature, each step multiplies the distance by the factor of its batch. In mean square it grows beyond

    lmax( (I - lr H)^2 + lr^2 (n - B)/(B (n - 1)) (mean H_i^2 - H^2) ) = 1,

but a single walk leaves only where the mean logarithm of its factors is positive, which is later. Part b has two rows
whose curvatures at 1 are 0.2 and 3.8, and 2 and 2 at 0: mean square to lr = 0.5525, almost surely to 0.5595,
gradient descent to 1. The law of the time at which a walk from 1 + 1e-5 is past the ridge is a sum over paths.

Part a has no such disagreement: all rows have the Hessian of their basin, with eigenvalues 200 and 20, or 2 and 2.
There plain SGD stays wherever gradient descent does (2/200 = 0.01), and noise decides: kicks of equal trace 0.01 a step
climb out the sooner, the more of it lies along the large curvature, tr(H C). A Markov chain on the line through both
minima gives the share of walks that are half way down after 500 steps: 0.015 for isotropic noise, 0.60, 0.42 and 0.56
for noise shaped like the gradients' covariance, like the Hessian and along its first eigenvector.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about five minutes.
"""

from figures.flat_minima import BOTH, KICK, LIMIT, START, album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, listed
from lab.escapes import ALMOST_SURE, EDGE, KINDS, MEAN_SQUARE, Kicked, climbs, drift, escapes, exits
from lab.verdicts import lower, shown, within
from npopt import SGD, RandomReshuffling, Stop, WithReplacement
from problems.wells import two_basins, uneven

import numpy as np

experiment = Experiment(
    __doc__,
    task="A14",
    source="Zhu, Wu, Yu, Wu & Ma, ICML 2019, arXiv:1803.00195; Wu, Ma & E, NeurIPS 2018",
    parts={
        "a": Part("two basins, noise of five shapes"),
        "b": Part("two rows that agree at one minimum and not at the other"),
        "t": Part("walks to look at"),
    },
    seeds=5,
    figures=album,
)

DRAWS = [1]  # the seed of parts a and b; their 200 walks each draw by a key of their own
STEEP = (0.009, 0.0099, 0.0101, 0.05, 0.9, 1.1)  # part a, gradient descent
RATES = (0.5, 0.54, 0.556, 0.56, 0.565, 0.58, 0.6, 0.7)  # part b
METHODS = {"SGD": WithReplacement(1), "SGD, reshuffled": RandomReshuffling(1), "GD": RandomReshuffling(None)}
MARGIN = 0.1  # of shares


# ------------------------------------------------------------------------------------------------------------- grid
def walks(part, build, lr, steps, count, sampler=None, estimator=None, given=None, **tags):
    some = dict(build=build, arguments=given or {}, lr=lr, steps=steps, count=count)
    run = Recipe(escapes, sampler=sampler, estimator=estimator, **some)
    return Entry(part, run=run, seeds=DRAWS, lr=lr, **tags)


@experiment.runs
def runs(args):
    count, few = args.pick(200, 3), args.pick(20, 2)
    for lr in STEEP:
        steps = args.pick(1000, 500)
        yield walks("a", two_basins, lr, steps, 1, given=dict(rows=1, start=(1.001, 1.0)), method="GD")
        yield walks("a", two_basins, lr, steps, 1, given=dict(start=(1.001, 1.0)), method="GD, cloud")
    for batch in args.pick((1, 5, 20), (1,)):
        for lr in args.pick((0.003, 0.0095), (0.0095,)):
            yield walks("a", two_basins, lr, args.pick(2000, 200), few, WithReplacement(batch), method="SGD", B=batch)
    for kind in KINDS:
        yield walks("a", two_basins, **KICK, count=count, estimator=Kicked(kind, 0.01, KICK["lr"]), method=kind)
    for first in (1e-5, 0.1):
        for lr in args.pick(RATES, (0.54, 0.58, 0.7)):
            for method in METHODS if first < 0.1 else ("SGD",):
                if method != "GD":
                    size = count if method == "SGD" else few
                    given = dict(d=1, start=1 + first)
                    yield walks("b", uneven, lr, LIMIT, size, METHODS[method], given=given, method=method, first=first)
    for lr in (0.58, 0.7, 0.95, 1.05):
        yield walks("b", uneven, lr, LIMIT, 1, given=dict(d=1, start=1 + 1e-5), method="GD", first=1e-5)
    for method, lr, seed in BOTH:
        problem = Recipe(uneven, start=START)
        stop = Stop(steps=80)
        more = dict(metrics=1, per="step", seeds=[seed], method=method, lr=lr)
        yield Entry("t", problem, SGD(), METHODS[method], lr, stop=stop, **more)


# ----------------------------------------------------------------------------------------------------------- claims
def left(run, steps=LIMIT):
    """(walks,) 1 where a walk left within so many steps."""
    return (run.columns["left"] <= steps).astype(float)


def one(results, part, **tags):
    (run,) = results.select(part, **tags)
    return run


@experiment.claim(
    "a-gd",
    "gradient descent stays below 2/200, leaves above it, and stays in the flat basin up to 2/2",
    expected="one row, from (1.001, 1): to 0.0099 ends at (1, 1), at 0.0101, 0.05 and 0.9 at (-1, -1), at 1.1 nowhere",
    source="2/lmax",
)
def a_gd(results):
    ends = {lr: one(results, "a", method="GD", lr=lr).columns["nearest"][0] for lr in STEEP}
    far = {lr: one(results, "a", method="GD", lr=lr).columns["x"][0] for lr in STEEP}
    names = {0: "sharp", 1: "flat"}
    found = {lr: "away" if not abs(far[lr]) < 10 else names[end] for lr, end in ends.items()}
    return listed(found), list(found.values()) == ["sharp"] * 2 + ["flat"] * 3 + ["away"]


@experiment.claim(
    "a-sgd",
    "plain SGD never leaves the sharp basin at rates where gradient descent does not: all rows have one Hessian",
    expected="of all walks with B = 1, 5, 20 at 0.003 and 0.0095: none half way down",
    source="growth <= 1",
)
def a_sgd(results):
    some = results.select("a", method="SGD")
    gone = sum(int(np.isfinite(run.columns["left"]).sum()) for run in some)
    return f"{gone} of {sum(len(run.columns['left']) for run in some)}", gone == 0


def kicked(results):
    return {kind: left(one(results, "a", method=kind), KICK["steps"]) for kind in KINDS}


@experiment.claim(
    "a-law",
    "the share of walks that climb out is that of the Markov chain",
    expected=f"each kind of noise: within {MARGIN} of the chain's (95 % over the walks)",
    source="a chain on the line of the minima; Zhu et al., figure 2",
)
def a_law(results):
    found = kicked(results)
    chain = {kind: climbs(kind, total=0.01, **KICK)[-1] for kind in KINDS}
    text = listed({kind: f"{v.mean():.3f} ({chain[kind]:.3f})" for kind, v in found.items()})
    return decided(f"{text} (chain)", *(within(v - chain[k], -MARGIN, MARGIN) for k, v in found.items()))


@experiment.claim(
    "a-order",
    "of noise of equal trace, what lies along the large curvature gets out more often than isotropic noise",
    expected="covariance, Hessian and eigenvector above constant (95 %); constant and diagonal within 0.1",
    source="Zhu et al., section 3: tr(H C)",
)
def a_order(results):
    found = kicked(results)
    aligned = [lower(found["constant"], found[kind]) for kind in KINDS[2:]]
    text = listed({kind: shown(v) for kind, v in found.items()})
    return decided(text, *aligned, within(found["diagonal"] - found["constant"], -0.1, 0.1))


@experiment.claim(
    "b-gd",
    "gradient descent stays at both minima alike, up to the rate 2/2",
    expected="from 1 + 1e-5: stays at 0.58, 0.7 and 0.95, leaves at 1.05",
    source="2/lmax",
)
def b_gd(results):
    found = {lr: runs[0].columns["left"][0] for lr, runs in results.select("b", method="GD").groups("lr")}
    text = listed({lr: "stays" if np.isinf(v) else f"left at step {v:.0f}" for lr, v in found.items()})
    return text, all(np.isinf(v) == (lr < 1) for lr, v in found.items())


@experiment.claim(
    "b-law",
    "walks of SGD leave as the exact law says",
    expected=f"each rate and start: the share gone after {LIMIT} steps within {MARGIN} of the law's (95 %)",
    source="the sum over paths",
)
def b_law(results):
    verdicts, text = [], {}
    for (lr, first), runs in results.select("b", method="SGD").groups("lr", "first"):
        law, seen = exits((lr,), first, LIMIT)[0, -1], left(runs[0])
        verdicts.append(within(seen - law, -MARGIN, MARGIN))
        text[f"{lr:g} from {first:g}:"] = f"{seen.mean():.3f} ({law:.3f})"
    return decided(f"{listed(text)} (law)", *verdicts)


@experiment.claim(
    "b-times",
    "they leave after log(ridge / start) / E log|factor| steps",
    expected="mean number of steps at 0.58, 0.6 and 0.7 from 1 + 1e-5: within a tenth of 342, 179 and 60 (95 %)",
    source="Wald's identity",
)
def b_times(results):
    text, verdicts = {}, []
    for lr, runs in results.select("b", method="SGD", first=1e-5, lr=lambda v: v >= 0.58).groups("lr"):
        steps, wanted = runs[0].columns["left"], np.log(EDGE / 1e-5) / drift(lr)
        text[lr] = f"{shown(steps, digits=3)} ({wanted:.0f})"
        verdicts.append(within(steps / wanted, 0.9, 1.1))
    return decided(f"{listed(text)} (theory)", *verdicts)


@experiment.claim(
    "b-between",
    f"between the mean-square threshold {MEAN_SQUARE:.4f} and the almost-sure one {ALMOST_SURE:.4f} the mean square "
    "grows, but nearly all walks from near the minimum die; from far some leave",
    expected="at 0.556: from 1e-5 at most 0.02 leave; from 0.1 at least 0.15 (95 %)",
    source="E log|factor| < 0 < log E factor^2",
)
def b_between(results):
    near, far = (left(one(results, "b", method="SGD", lr=0.556, first=first)) for first in (1e-5, 0.1))
    return decided(f"{near.mean():.3f} and {far.mean():.3f}", within(near, high=0.02), within(far, 0.15))


@experiment.claim(
    "b-reshuffled",
    "reshuffled, every epoch has the same factor: a sharp threshold at the almost-sure one, and one time for all",
    expected=f"below it no walk leaves in {LIMIT} steps; above, all at the step log(ridge / start) / E log|factor|, to "
    "5 steps at 0.58 and more, to 20 at 0.565; at 0.56 it is 12,807, and none is seen",
    source="(1 - 0.2 lr)(3.8 lr - 1)",
)
def b_reshuffled(results):
    good, text = [], {}
    for lr, runs in results.select("b", method="SGD, reshuffled").groups("lr"):
        steps, wanted = runs[0].columns["left"], np.log(EDGE / 1e-5) / drift(lr)
        if lr < ALMOST_SURE or wanted > LIMIT:
            good.append(bool(np.isinf(steps).all()))
        else:
            good.append(bool((abs(steps - wanted) <= (5 if lr >= 0.58 else 20)).all()))
        text[lr] = "none" if np.isinf(steps).all() else f"{steps.min():.0f} to {steps.max():.0f} ({wanted:.0f})"
    return listed(text), all(good)


if __name__ == "__main__":
    experiment.main()
