"""What does learning ISTA's numbers gain, and do they become what theory says?   Course task A13; Chen et al. 2018.

ISTA and FISTA solve a LASSO by a step that is known beforehand. LISTA makes each of K steps a layer and learns its
matrices and thresholds. Theory: if a network's iterates converge to x* for all sparse x*, then its weights become
coupled, W2_k - (I - W1 A) -> 0, and its thresholds fall to 0. With coupled weights (LISTA-CP) some network has an error
below s B exp(-c k): decibels fall linearly in layers, theta_k in proportion to the error that remains; without noise
there is no floor, with noise one that is set by it. FISTA has a floor set by lambda alone, about 6 dB lower for half
the lambda, which it reaches the later. Support selection removes the shrinkage of what surely is no 0.

The setting is that of section 4.1: m = 250, n = 500, 10 % non-zeros, columns of length 1, 1,000 test samples, NMSE in
dB of sums over the set. A seed is another A, with other samples. Training goes layer by layer in the three stages of
the authors' code, with a budget for two cores: 50, 25 and 25 steps of 64 fresh samples, where they have up to 200,000
each. For so few steps the rate is 5e-3 times 0.85^k in layer k, not 5e-4, and a layer starts as a copy of the one
before it, not as ISTA's; both were chosen in pilot runs of seed 0, for all forms alike. Part b varies the steps.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about five minutes.
"""

from figures.learned_ista import album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, larger, listed, no_larger, on_every, spreads
from lab.verdicts import no_higher, shown, within
from problems.unrolled import ALISTA, LISTA, LISTACP, SUPPORT, SparseCodes
from problems.unrolled.recipes import classical, oracle, trained

import numpy as np
import scipy

experiment = Experiment(
    __doc__,
    task="A13",
    source="Chen, Liu, Wang & Yin, NeurIPS 2018, arXiv:1808.10038",
    parts={
        "a": Part("without noise, by layer"),
        "f": Part("ISTA and FISTA: lambda and iterations"),
        "n": Part("noise of 40, 30 and 20 dB"),
        "i": Part("ill-conditioned A"),
        "b": Part("the budget of training"),
    },
    seeds=3,
    figures=album,
)

BASELINES = (("ISTA", 0.4), ("FISTA", 0.1), ("AMP", None))
FORMS = {"LISTA-CP": LISTACP, "LISTA": LISTA, "LISTA-CPSS": LISTACP, "LISTA-SS": LISTA, "ALISTA": ALISTA}
SELECTS = ("LISTA-SS", "LISTA-CPSS")
TRAINING = dict(lr=5e-3, warm=True, fade=0.85)
STEPS = (50, 25, 25)
LAMS = (0.4, 0.2, 0.1, 0.05, 0.025)
FALLING = (0.4, 0.0125, 0.9)  # lambda: first, last, factor
SNRS, CONDITIONS, BUDGETS = (40, 30, 20), (5, 30, 50), (0.5, 1, 2)
KNOWN = {
    ("FISTA", 0.1): {16: -10.3, 32: -17.5, 100: -16.9},
    ("FISTA", 0.05): {16: -7.4, 32: -19.3, 100: -22.2},
    ("ISTA", 0.4): {16: -5.8, 100: -7.4},
    ("ISTA", 0.1): {16: -5.3, 100: -15.4},
    ("AMP", None): {8: -18.8, 16: -30.2, 32: -44.4},
}  # an independent program's, another A


# ------------------------------------------------------------------------------------------------------------- grid
def entries(part, args, names, baselines=(), share=1, seeds=None, tags=None, **source):
    """Classical methods for as many iterations as networks have layers, and networks."""
    codes = SparseCodes(*args.pick((250, 500), (50, 100)), **source)
    layers, held, tags = args.pick(16, 4), args.pick(1000, 300), tags or {}
    steps = tuple(max(4, round(share * value * args.pick(1, 0.5))) for value in STEPS)
    for method, lam in baselines:
        run = Recipe(classical, method=method, source=codes, iterations=layers, lam=lam, held=held)
        yield Entry(part, run=run, seeds=seeds, method=method, lam=str(lam), **tags)
    for name in names:
        form = FORMS[name](layers, support=SUPPORT if name in SELECTS else None)
        run = Recipe(trained, form=form, source=codes, steps=steps, held=held, **TRAINING)
        yield Entry(part, run=run, seeds=seeds, method=name, **tags)


@experiment.runs
def runs(args):
    one, held, size = args.seeds[:1], args.pick(1000, 300), args.pick((250, 500), (50, 100))
    yield from entries("a", args, list(FORMS), BASELINES)
    for method, lam in [(m, v) for m in ("ISTA", "FISTA") for v in LAMS] + [("FISTA", FALLING), ("AMP", None)]:
        some = dict(method=method, lam=lam, iterations=args.pick(200, 60))
        run = Recipe(classical, source=SparseCodes(*size), held=held, **some)
        yield Entry("f", run=run, seeds=one, method=method, lam=str(lam))
    for snr in args.pick(SNRS, SNRS[-1:]):
        yield from entries("n", args, ["LISTA-CPSS"], BASELINES[1:], seeds=one, tags=dict(snr=snr), snr=snr)
        run = Recipe(oracle, source=SparseCodes(*size, snr=snr), held=held)
        yield Entry("n", run=run, seeds=one, method="support known", snr=snr)
    for c in args.pick(CONDITIONS, CONDITIONS[-1:]):
        yield from entries("i", args, ["LISTA-CPSS"], BASELINES[1:2], seeds=one, tags=dict(condition=c), condition=c)
    for share in args.pick(BUDGETS, BUDGETS[:2]):
        yield from entries("b", args, ["LISTA-CPSS"], share=share, seeds=one, tags=dict(budget=share))


# ----------------------------------------------------------------------------------------------------------- claims
def paired(runs, *methods):
    """The runs of each method that have the seeds which all of them have, in the same order."""
    found = [runs.select(method=method).by_seed() for method in methods]
    seeds = sorted(set.intersection(*map(set, found)))
    return [[runs[seed] for seed in seeds] for runs in found]


def networks(results):
    return results.select("a", method=tuple(FORMS))


@experiment.claim(
    "a-untrained",
    "an untrained LISTA or LISTA-CP is ISTA",
    expected="the same dB at every layer as ISTA with lambda 0.4 and L = 1.001 |A|^2, to 1e-3 dB (float32)",
    source="W1 = A'/L, W2 = I - A'A/L",
)
def untrained(results):
    apart = {}
    for m in ("LISTA", "LISTA-CP"):
        pairs = zip(*paired(results.select("a"), m, "ISTA"), strict=True)
        apart[m] = max(np.abs(net.columns["untrained"] - ista.columns["nmse"]).max() for net, ista in pairs)
    return listed({m: f"{v:.1e} dB" for m, v in apart.items()}), max(apart.values()) < 1e-3


@experiment.claim(
    "a-linear",
    "LISTA-CP's decibels fall linearly in layers",
    expected="over layers 1 to K: R^2 at least 0.95 for every seed, and more than 1 dB a layer (95 %)",
    source="Theorem 2: s B exp(-c k)",
)
def linear(results):
    columns = [run.columns for run in results.select("a", method="LISTA-CP")]
    fits = [scipy.stats.linregress(c["layer"][1:], c["nmse"][1:]) for c in columns]
    slopes, squares = np.array([fit.slope for fit in fits]), [fit.rvalue**2 for fit in fits]
    return decided(
        f"slope {shown(slopes)} dB a layer, R² {min(squares):.3f} to {max(squares):.3f}",
        within(slopes, high=-1),
        min(squares) >= 0.95,
    )


experiment.claim(
    "a-fista",
    "after as many layers as iterations LISTA-CP is far below FISTA with lambda 0.1",
    source="Figure 3",
    expected="by more than 10 dB at layer 16 (95 %)",
)(no_larger("a", "LISTA-CP", "FISTA", "nmse", -10.0))
for name in ("LISTA-CP", "LISTA-CPSS"):
    experiment.claim(
        f"a-amp-{name[6:].lower()}",
        f"{name} ends at or below AMP, which knows that A is random",
        expected="after as many layers as iterations at most 1 dB above (95 %)",
        source="Figure 3",
    )(no_larger("a", name, "AMP", "nmse", 1.0))
for one, name in (("LISTA-CP", "LISTA-CPSS"), ("LISTA", "LISTA-SS")):
    experiment.claim(
        f"a-support-{name[6:].lower()}",
        f"support selection lowers the end of {one}",
        expected="the last layer is lower (95 %)",
        source="Theorem 3",
    )(larger("a", one, name, "nmse"))


@experiment.claim(
    "a-falls",
    "the error falls from layer to layer",
    expected="every layer, form and seed",
    source="Theorem 2; training adds a layer to those before it",
)
def falls(results):
    groups = networks(results).groups("method")
    steps = {m: max(np.diff(run.columns["nmse"]).max() for run in runs) for m, runs in groups}
    text = listed({m: f"{v:+.2f} dB" for m, v in steps.items()})
    return f"largest change of a layer: {text}", max(steps.values()) < 0


@experiment.claim(
    "a-inner",
    "at inner layers LISTA-CP is not worse than LISTA",
    expected="at a quarter, half and three quarters of the layers at most 1 dB above (95 %)",
    source="Figure 3",
)
def inner(results):
    both = paired(results.select("a"), "LISTA-CP", "LISTA")
    cp, free = (np.array([run.columns["nmse"] for run in some]) for some in both)
    layers = [(cp.shape[1] - 1) * quarter // 4 for quarter in (1, 2, 3)]
    return decided(
        listed({f"layer {k}": f"{shown(cp[:, k], free[:, k])} dB" for k in layers}),
        *(no_higher(cp[:, k], free[:, k], 1.0) for k in layers),
    )


@experiment.claim(
    "a-theta",
    "LISTA-CP's thresholds fall in proportion to the error that they meet",
    expected="slope 1 ± 0.5 of log theta_k against log mean |x_k - x*|_1 (95 %), rank correlation at least 0.9, every "
    "seed",
    source="Theorem 2: theta_k = mu sup |x_k - x*|_1",
)
def theta(results):
    pairs = [(run.columns["l1"][:-1], run.columns["theta"][1:]) for run in results.select("a", method="LISTA-CP")]
    ranks = [scipy.stats.spearmanr(error, theta).statistic for error, theta in pairs]
    if min(theta.min() for _, theta in pairs) <= 0:
        return "a threshold is not above 0", False
    slopes = np.array([np.polyfit(np.log(error), np.log(theta), 1)[0] for error, theta in pairs])
    return decided(
        f"slope {shown(slopes)}, rank correlation {min(ranks):.3f} to {max(ranks):.3f}",
        within(slopes, 0.5, 1.5),
        min(ranks) >= 0.9,
    )


@experiment.claim(
    "a-coupling",
    "LISTA's weights become coupled layer by layer",
    expected="|W2_k - (I - W1 A)|_2 falls with k: rank correlation below -0.5 and the last at most half of the first, "
    "every seed",
    source="Theorem 1",
)
def coupling(results):
    some = [run.columns["coupling"][2:] for run in results.select("a", method="LISTA")]
    ranks = [scipy.stats.spearmanr(np.arange(len(v)), v).statistic for v in some]
    parts = [v[-1] / v[0] for v in some]
    text = f"rank correlation {min(ranks):.2f} to {max(ranks):.2f}, last / first {min(parts):.2f} to {max(parts):.2f}"
    return text, max(ranks) < -0.5 and max(parts) <= 0.5


@experiment.claim(
    "f-known",
    "ISTA, FISTA and AMP give the numbers of an independent program",
    expected="within 1 dB (another A) at the iterations that it lists; section 4.1's size alone",
    source="computed beforehand",
)
def known(results, args):
    apart = {}
    for (method, lam), wanted in KNOWN.items():
        run = results.select("f", method=method, lam=str(lam))[0]
        at = dict(zip(run.columns["layer"].astype(int), run.columns["nmse"], strict=True))
        near = {k: min(at, key=lambda have, k=k: abs(have - k)) for k in wanted}
        apart[f"{method} {lam or ''}".strip()] = max(abs(at[near[k]] - value) for k, value in wanted.items())
    holds = max(apart.values()) < 1 if not args.quick else None
    return "largest difference " + listed({k: f"{v:.2f} dB" for k, v in apart.items()}), holds


@experiment.claim(
    "f-floor",
    "the floor of FISTA is set by lambda: less for half of it",
    expected="4 to 6.1 dB a halving from 0.2 to 0.05, where 200 iterations reach it",
    source="bias proportional to lambda",
)
def floor(results, args):
    levels = [results.select("f", method="FISTA", lam=str(lam))[0].final["nmse"] for lam in LAMS]
    falls = -np.diff(levels)[1:3]
    text = f"{falls.min():.2f} to {falls.max():.2f} dB a halving"
    return text, None if args.quick else 4 <= falls.min() and falls.max() <= 6.1


@experiment.claim(
    "f-below",
    "no ISTA and no FISTA with a fixed lambda is within 10 dB of LISTA-CP after its number of iterations",
    expected="the best lambda at iteration 16 is more than 10 dB above layer 16 (seed 0)",
    source="Figure 4",
)
def below_all(results):
    net = results.select("a", method="LISTA-CP", seed=0)[0]
    k = int(net.columns["layer"][-1])
    fixed = results.select("f", method=("ISTA", "FISTA"), lam=lambda lam: not lam.startswith("("))
    best = {f"{run.tags['method']} {run.tags['lam']}": run.columns["nmse"][k] for run in fixed}
    name, end = min(best, key=best.get), net.final["nmse"]
    first = results.select("f", method="FISTA").until("nmse", end, "layer").min()
    there = f"iteration {first:.0f}" if np.isfinite(first) else "none"
    return f"{end:.1f} dB; {name} has {best[name]:.1f}; first FISTA there: {there}", end < best[name] - 10


@experiment.claim(
    "n-floor",
    "with noise LISTA-CPSS ends near what the noise allows",
    expected="at 20 and 30 dB from 1 dB below to 6 dB above least squares on the true support (one seed)",
    source="Theorem 2: C sigma",
)
def noise(results):
    def judged(snr, runs):
        net, least = (runs.select(method=m)[0].final["nmse"] for m in ("LISTA-CPSS", "support known"))
        return f"{net - least:+.1f} dB from {least:.1f}", -1 <= net - least <= 6

    return on_every(results.select("n", snr=(20, 30)).groups("snr"), judged)


@experiment.claim(
    "n-order",
    "more noise, higher end",
    expected="LISTA-CPSS, each step of 10 dB",
    source="Theorem 2: C sigma; one seed",
)
def noise_order(results):
    levels = [results.select("n", method="LISTA-CPSS", snr=snr)[0].final["nmse"] for snr in SNRS]
    return ", ".join(f"{level:.1f}" for level in levels) + " dB", bool((np.diff(levels) > 0).all())


@experiment.claim(
    "i-gain",
    "where A is ill-conditioned, learning gains, too",
    expected="LISTA-CPSS more than 5 dB below FISTA with lambda 0.1 at layer 16, each condition (one seed)",
    source="figures on conditions",
)
def condition_claim(results):
    def judged(c, runs):
        net, fista = (runs.select(method=m)[0].final["nmse"] for m in ("LISTA-CPSS", "FISTA"))
        return f"{net - fista:+.1f} dB", net < fista - 5

    return on_every(results.select("i").groups("condition"), judged)


@experiment.claim(
    "b-budget",
    "more training, lower end",
    expected="each doubling of the steps lowers LISTA-CPSS's last layer (one seed: the order alone)",
    source="this script's budget is far below the authors'",
)
def budget(results):
    levels = {share: runs[0].final["nmse"] for share, runs in sorted(results.select("b").groups("budget"))}
    falls = np.diff(list(levels.values()))
    return listed({f"{k:g} times": f"{v:.1f} dB" for k, v in levels.items()}), bool((falls < 0).all())


@experiment.conclusion
def conclusion(results, claims):
    levels = networks(results).finals("nmse")
    return (
        f"NMSE of the last layer, in dB: {spreads(levels)}. Coupled weights: {claims['a-coupling'].measured}. "
        f"Thresholds: {claims['a-theta'].measured}."
    )


if __name__ == "__main__":
    experiment.main()
