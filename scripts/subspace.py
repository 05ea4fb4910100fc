"""Few directions at a time: how far does it get, what does it save, and when does it not converge?   Course task B5.

A Llama of two layers of 64 reads Shakespeare's characters: AdamW on all of it; GaLore, GoLore (random from a quarter of
the steps on) and Flora, whose state lives in 16 directions of each map; LoRA and ReLoRA of rank 16, from scratch and
after a quarter of the steps at full rank; SLTrain, rank 16 and a tenth of all places; and W = B A. All have the same
batches, weights at the start, steps and grid of rates; a rate is chosen with one seed (part r), and run with three.

Predicted (Zhao et al. 2024, table 2; Han et al. 2024; Lialin et al. 2024): full <= SLTrain ~ GaLore < LoRA ~ ReLoRA <<
low rank, and a warm start brings most of what ReLoRA gains. Bytes are sums of arrays, and have to be the formulas'.

Part c asks for the limit. Where noise outweighs the gradient and lies elsewhere (He et al. 2024), GaLore's subspace is
the noise's for ever, and it stays where it is; GoLore and full batches converge. Where the noise is the same in all
directions, Stein's identity says that GaLore loses nothing: as much more noise as comes in, as much faster the
gradient's part shrinks, so its plateau is SGD's, lr sigma^2 k^2 / (2 (2 - lr)) in f. Part d fine-tunes an encoder.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 25 minutes.
"""

import itertools

from figures.subspace import BY, NAMES, WITHIN, album, stein
from lab import Entry, Experiment, MissingRuns, Part, Recipe
from lab.claims import alike, decided, inside, larger, listed, no_larger, spreads
from lab.subspace import Scale, bowl, formulas, trained
from lab.verdicts import close, lower, no_higher, within
from npopt import SGD, Adam, GaLore, GoLore, Linear, RandomReshuffling, Stop, WithReplacement, WithWarmup
from npopt.projectors import RangeFinder
from problems.encoders import BATCH, finetuned
from problems.language import llama

import numpy as np

experiment = Experiment(
    __doc__,
    task="B5",
    source="Zhao et al., ICML 2024; He et al. 2024; Hao et al., ICML 2024; Lialin et al., ICLR 2024; Han et al. 2024",
    parts={
        "r": Part("rates of part a, one seed", "chain", "tinyshakespeare"),
        "a": Part("a small Llama from scratch, at the chosen rates", "chain", "tinyshakespeare"),
        "b": Part("rank, period and kind of subspace", "chain", "tinyshakespeare"),
        "c": Part("where GaLore does not converge, and where it does"),
        "e": Part("rates of part d, one seed", "opinions", "sst2-socher"),
        "d": Part("fine-tuning an encoder, at the chosen rates", "opinions", "sst2-socher"),
    },
    seeds=3,
    quick_seeds=1,
    figures=album,
)

RANK, SMALL = 16, 8  # of parts a and d
RANKS, PERIODS = (4, 16, 32), (10, 50, 200)  # of part b
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
WIDE = (1e-2, 3e-2, 1e-1, 3e-1)  # of methods that move maps by lr / 4
GRIDS = {m: WIDE if m in ("GaLore", "GoLore") else RATES for m in NAMES}
K, R, LR, SIGMA = 20, 4, 0.1, 20.0  # part c: (K, K), rank R; SIGMA is above all singular values of X at the start
ISO = dict(k=32, sigma=1.0, rows=512)
FINE = {"full": (1e-4, 3e-4, 1e-3), "GaLore": (3e-4, 1e-3, 3e-3)}
FINE |= dict.fromkeys(("LoRA", "FLoRA", "head alone"), (1e-3, 3e-3, 1e-2, 3e-2))
BESIDE = {"sst2-socher": "goemotions", "opinions": "moods"}


# ------------------------------------------------------------------------------------------------------------- grid
def scale(args):
    return args.pick(Scale(400, RANK, 50, 100), Scale(24, 4, 6, 8))


def entry(part, data, method, lr, args, seeds=None, tags=None, **more):
    """An entry of parts r, a and b; more: arguments of GaLore."""
    size, (layer, options) = scale(args), scale(args).adapters(method)
    arguments = dict(length=args.pick(64, 16), features=args.pick(64, 16), layers=args.pick(2, 1), heads=4)
    arguments |= dict(held=args.pick(8000, 500), adapters=layer, options=tuple(options.items()))
    warm = dict(warm=size.steps // 4 * ("warm" in method), warm_lr=3e-3)
    run = Recipe(trained, data=data, build=llama, arguments=arguments, optimizer=size.optimizer(method, **more),
                 schedule=size.schedule(method, lr), steps=size.steps, batch=16, **warm)  # fmt: skip
    return Entry(part, run=run, seeds=seeds, metrics=args.pick(80, 12), per="step", keep=False, method=method, lr=lr,
                 **(tags or {}))  # fmt: skip


def fine(part, data, method, lr, args, seeds=None):
    """An entry of parts e and d: an encoder that has filled gaps learns labels."""
    large = dict(size=2000, length=24, features=96, layers=2, heads=4, rate=1e-3, passes=1)
    small = dict(size=400, length=16, features=32, layers=1, heads=2, rate=3e-3, passes=1)
    rank, rows = args.pick(SMALL, 4), args.pick(1600, 100)
    layer, options = Scale(0, rank, 0, 0).adapters(method)
    held = ("encoder.",) if layer or method == "head alone" else ()
    build = dict(rows=rows, held=args.pick(400, 100), test_rows=args.pick(1000, 100))
    build |= args.pick(large, small) | {"adapters": layer and (layer, options)}
    optimizer = GaLore(rank, 50, 1.0, others=("pooler.W", "head.W")) if method == "GaLore" else Adam()
    steps = 3 * -(-rows // BATCH)
    run = Recipe(trained, data=data, beside=BESIDE[data], build=finetuned, arguments=build, optimizer=optimizer,
                 steps=steps, batch=BATCH, held=held, schedule=WithWarmup(Linear(lr), max(1, steps // 10)))  # fmt: skip
    return Entry(part, run=run, seeds=seeds, metrics=args.pick(50, 7), per="step", keep=False, method=method, lr=lr)


def chosen(found, part, args):
    """{method: rate} that part's runs say, {} before they are made; in --quick a middle one."""
    if args.quick:
        return {m: rates[1] for m, rates in (GRIDS if part == "r" else FINE).items()}
    try:
        return {m: t.value for m, t in found.select(part).tuned(by=BY).items()} if found is not None else {}
    except MissingRuns:
        return {}


@experiment.runs
def runs(args, found=None):
    for part, kind, grids in (("r", entry, GRIDS), ("e", fine, FINE)):
        for data, (method, rates) in itertools.product(args.data_of(part), grids.items()):
            for lr in args.pick(rates, rates[1:2]):
                yield kind(part, data, method, lr, args, seeds=[0])
    for part, kind, source in (("a", entry, "r"), ("d", fine, "e")):
        for data, (method, lr) in itertools.product(args.data_of(part), chosen(found, source, args).items()):
            yield kind(part, data, method, lr, args)
    for data in args.data_of("b"):
        yield from swept(data, chosen(found, "r", args).get("GaLore"), args)
    yield from limits(args)


def swept(data, lr, args):
    """The entries of part b, all of GaLore at the rate of part a; none before that is known."""
    if lr is None:
        return
    ways = {"Svd": {}, "RangeFinder": dict(projector=RangeFinder()), "moments reset": dict(moments="reset")}
    for over, values in (("rank", args.pick(RANKS, (2, 4))), ("way", ways), ("period", args.pick(PERIODS, (3, 6)))):
        for value in values:
            more = ways[value] if over == "way" else {over: value}
            yield entry("b", data, "GaLore", lr, args, tags={"over": over, over: value}, **more)


def limits(args):
    """The entries of part c."""
    steps = args.pick(2000, 400)
    block, iso = Recipe(bowl, kind="block", sigma=SIGMA, k=K, r=R), Recipe(bowl, kind="isotropic", r=R, **ISO)
    more = dict(per="step", seeds=range(args.pick(10, 3)))
    for one in (GaLore(R, 10, 1.0, SGD()), GoLore(R, 10, 1.0, steps // 4, SGD())):
        for batch, sampler in (("1", WithReplacement(1)), ("all", RandomReshuffling(None))):
            yield Entry("c", block, one, sampler, LR, stop=Stop(steps=steps), metrics=steps // 40, **more,
                        noise="block", batch=batch, method=type(one).__name__)  # fmt: skip
    for method, T in (("GaLore", 1), ("GaLore", 20), ("GoLore", 20), ("SGD", 1)):
        one = {"GaLore": GaLore(R, T, 1.0, SGD()), "GoLore": GoLore(R, T, 1.0, 0, SGD()), "SGD": SGD()}[method]
        yield Entry("c", iso, one, WithReplacement(1), LR, stop=Stop(steps=2 * steps), metrics=steps // 100,
                    **more, noise="isotropic", method=method, period=T)  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- claims
def ends(results, *methods, part="a", column=BY):
    return {m: results.select(part, method=m).final(column) for m in methods}


for part, text in (("r", "pre-training"), ("e", "fine-tuning")):
    experiment.claim(
        f"{part}-edge", f"{text}: the rates are wide enough", expected="the best rate is inside its grid, always"
    )(inside(part, BY))


@experiment.claim(
    "a-full",
    "full rank is not beaten",
    expected="AdamW's held-out loss at most 0.005 above SLTrain's and GaLore's (95 %), half a per cent of perplexity",
    source="Zhao et al. 2024, table 2: 34.06 against 34.88 and 34.15 (60 M)",
)
def a_full(results):
    found = ends(results, "AdamW", "SLTrain", "GaLore")
    return decided(spreads(found), *(no_higher(found["AdamW"], found[m], 0.005) for m in ("SLTrain", "GaLore")))


@experiment.claim(
    "a-near",
    "SLTrain and GaLore end alike, near full rank",
    expected="held-out losses within 0.03 of one another, and at most 0.05 above AdamW's (95 %)",
    source="Zhao et al. 2024 and Han et al. 2024",
)
def a_near(results):
    adamw, *both = (found := ends(results, "AdamW", "SLTrain", "GaLore")).values()
    return decided(spreads(found), close(*both, 0.03), *(no_higher(v, adamw, 0.05) for v in both))


@experiment.claim(
    "a-lora",
    "GaLore ends below LoRA and ReLoRA from scratch",
    expected="held-out loss below both (95 %); false where it is not, or below by less than 0.5 % of perplexity",
    source="Zhao et al. 2024, table 2",
)
def a_lora(results):
    galore, *others = (found := ends(results, "GaLore", "LoRA", "ReLoRA")).values()
    return decided(spreads(found), *(lower(galore, v, 0.005) for v in others))


experiment.claim(
    "a-relora",
    "from scratch restarts are no loss",
    expected="ReLoRA's held-out loss at most 0.03 above LoRA's (95 %), 3 % of perplexity",
    source="Zhao et al. 2024, table 2: 37.04 and 34.99 (60 M), 29.37 and 33.92 (130 M)",
)(no_larger("a", "ReLoRA", "LoRA", BY, 0.03))


@experiment.claim(
    "a-low-rank",
    "W = BA ends far above all",
    expected="perplexity at least 10 % above each other method's (95 %)",
    source="Zhao et al. 2024, table 2: 78.18 against 34 to 37 (60 M)",
)
def a_low_rank(results):
    found = ends(results, *NAMES)
    low = found.pop("W = BA")
    verdicts = [within(low - v, low=np.log(1.1)) for v in found.values()]
    return decided(spreads({"W = BA": low} | found), *verdicts)


experiment.claim(
    "a-warm",
    "the start at full rank brings most of the gain",
    expected="LoRA after it is below ReLoRA from scratch (95 %)",
    source="Lialin et al. 2024, ablations (as quoted by others): LoRA 25.46, ReLoRA 25.04 after it, 29.77 from scratch",
)(larger("a", "ReLoRA", "LoRA, warm", BY))


experiment.claim(
    "a-golore",
    "random subspaces late cost little",
    expected="GoLore's held-out loss at most 0.03 above GaLore's (95 %)",
    source="He et al. 2024; their tables could not be had",
)(no_larger("a", "GoLore", "GaLore", BY, 0.03))


@experiment.claim(
    "a-rank",
    "the rank of the change is what the methods' forms say",
    expected="LoRA at most r; W = BA at most 2 r; ReLoRA above r, and at most r for each restart; others above 1.5 r",
    source="definitions",
)
def a_rank(results, args):
    steps, rank, _, every, _ = scale(args)
    found = {m: v.max() for m, v in ends(results, *NAMES, column="largest_rank").items()}
    holds = found["LoRA"] <= rank and found["W = BA"] <= 2 * rank
    holds = holds and rank < found["ReLoRA"] <= rank * -(-steps // every)
    return listed(found), bool(holds and all(found[m] > 1.5 * rank for m in (*WITHIN[1:], "SLTrain")))


@experiment.claim(
    "a-bytes",
    "bytes are those of the formulas",
    expected="to the byte: of maps (m, n), m <= n, P takes 4 m r and moments 8 n r; LoRA 12 for each trained number",
    source="Zhao et al. 2024, table 1",
)
def a_bytes(results, args):
    last = {m: results.select("a", method=m)[0].final for m in (*WITHIN, "LoRA")}
    expected = formulas(args.pick(64, 16), args.pick(2, 1), scale(args).rank, last["AdamW"]["trained"])
    found = {m: tuple(v[what] for what in ("gradients", "states", "projectors")) for m, v in last.items()}
    return listed({m: f"{states + P:,.0f}" for m, (_, states, P) in found.items()}), found == expected


@experiment.claim(
    "b-rank",
    "more directions, less loss",
    expected="GaLore's held-out loss at the largest rank is below that at the least (95 %)",
    source="Zhao et al. 2024, figure 5",
)
def b_rank(results):
    found = results.select("b", over="rank").finals(BY, "rank")
    return decided(spreads(found), lower(found[max(found)], found[min(found)]))


@experiment.claim(
    "b-period",
    "how often the subspace changes matters little between 10 and 200 steps",
    expected="held-out losses within 0.03 of one another (95 %)",
    source="Zhao et al. 2024, figure 5: best from 50 to 1000",
)
def b_period(results):
    found = results.select("b", over="period").finals(BY, "period")
    pairs = itertools.combinations([v for T, v in found.items() if T <= 200], 2)
    return decided(spreads(found), *(close(a, b, 0.03) for a, b in pairs))


@experiment.claim(
    "b-ways",
    "a range finder is as good as an SVD, and moments may be kept",
    expected="held-out loss with RangeFinder within 0.01 of Svd's, with kept moments at most 0.01 above reset (95 %)",
    source="Halko et al. 2011; the authors' code keeps them",
)
def b_ways(results):
    found = results.select("b", over="way").finals(BY, "way")
    verdicts = close(found["RangeFinder"], found["Svd"], 0.01), no_higher(found["Svd"], found["moments reset"], 0.01)
    return decided(spreads(found), *verdicts)


def left(results, method, batch):
    """f - f* at the end in parts of that at the start, one a seed."""
    runs = results.select("c", noise="block", method=method, batch=batch)
    return runs.final("gap") / runs.at("gap", 0)


@experiment.claim(
    "c-stays",
    "where noise outweighs the gradient and lies elsewhere, GaLore stays where it is",
    expected="f - f* at the end within 1e-6 of that at the start, every seed",
    source="He et al. 2024, section 3 (from memory): P is the noise's subspace in every step",
)
def c_stays(results):
    change = np.abs(left(results, "GaLore", "1") - 1)
    return f"largest relative change {change.max():.1e}, {len(change)} seeds", bool((change < 1e-6).all())


@experiment.claim(
    "c-converges",
    "GoLore converges there, and full batches do with both",
    expected="f - f* falls below 1e-6 of the start, every seed",
    source="He et al. 2024",
)
def c_converges(results):
    pairs = ("GoLore", "1"), ("GaLore", "all"), ("GoLore", "all")
    worst = {f"{m}, batch {b}": float(left(results, m, b).max()) for m, b in pairs}
    return "at most " + listed(worst), max(worst.values()) < 1e-6


@experiment.claim(
    "c-isotropic",
    "noise that is the same in all directions does not stop GaLore",
    expected="plateaus of GaLore (period 1 and 20), GoLore and SGD are lr sigma^2 k^2 / (2 (2 - lr)), to 15 % (95 %)",
    source="Stein's identity, for period 1 and small rates",
)
def c_isotropic(results):
    some, level = results.select("c", noise="isotropic"), stein(LR, ISO["sigma"], ISO["k"])
    found = {f"{m}, T = {T}": runs.late("gap") / level for (m, T), runs in some.groups("method", "period")}
    return decided(spreads(found), *(within(v, 0.85, 1.15) for v in found.values()))


@experiment.claim(
    "d-alike",
    "fine-tuned, GaLore and LoRA of rank 8 end as all weights do",
    expected="test accuracy at most 1.5 points below (95 %)",
    source="Zhao et al. 2024, table 4: 86.28, GaLore 85.94, LoRA 85.93 (GLUE, RoBERTa-base)",
)
def d_alike(results):
    full, *both = (found := ends(results, "full", "GaLore", "LoRA", part="d", column="test_accuracy")).values()
    return decided(spreads(found), *(no_higher(full, v, 0.015) for v in both))


experiment.claim(
    "d-tucker",
    "a core between LoRA's factors changes little",
    expected="FLoRA's test accuracy within 2 points of LoRA's (95 %)",
    source="Si et al. 2024; their tables could not be had",
)(alike("d", "FLoRA", "LoRA", "test_accuracy", 0.02))


if __name__ == "__main__":
    experiment.main()
