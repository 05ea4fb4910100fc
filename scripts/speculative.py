"""How many words does a pass of a language model give when something cheaper guesses them?   Course task B10.

A Llama of four layers of 128 and one of one layer of 48 learn Shakespeare's characters. The small one drafts for the
large one (Leviathan et al. 2023), k characters at a time; so do the large one without some of its parts (Draft &
Verify, the parts found by a search), the text itself (LLMA, prompt look-up), a datastore of the training text (REST, a
path or a tree of 16), and a cascade of the small one with a copy (CS Drafting). Ten texts of 160 characters, greedy and
drawn at temperature 1, all with the same cache.

If a guess stands with probability a, a pass gives (1 - a^(k+1)) / (1 - a) words. Time gains (that) / (k c + 1), c being
the draft's time for a word in parts of the target's, if a pass over k + 1 words takes as long as over one. On a CPU it
does not: part c measures both, and the prediction takes what was measured.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 15 minutes.
"""

from figures.speculative import album, formula, predicted
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, listed, spread, spreads
from lab.speech import choice, chosen_parts, costs, decoder_of, draft_of, spoken
from lab.verdicts import Undecided, lower, together, within
from problems import reading
from problems.datasets import shared

import numpy as np

experiment = Experiment(
    __doc__,
    task="B10",
    source="Leviathan et al., ICML 2023, arXiv:2211.17192; Zhang et al., ACL 2024; He et al., NAACL 2024",
    parts={
        "a": Part("drafts, greedy and drawn", "chain", "tinyshakespeare"),
        "k": Part("how many characters are guessed", "chain", "tinyshakespeare"),
        "c": Part("time of a pass over several words", "chain", "tinyshakespeare"),
    },
    seeds=3,
    quick_seeds=1,
    figures=album,
)

KS = (1, 2, 3, 4, 6, 8)
DRAFTS = {
    "small model": ("model", 4),
    "without parts": ("parts", None, 4),
    "the text": ("text", 3, 6),
    "training text, a path": ("corpus", 300_000, 6, 1),
    "training text, a tree": ("corpus", 300_000, 6, 16),
    "cascade": ("cascade", (3, 4)),
}


# ---------------------------------------------------------------------------------------------------- own functions
def sizes(data, args):
    """(the target, the draft), as arguments of reading.trained."""
    length = args.pick(192, 48)
    large = dict(length=length) | args.pick(dict(features=128, layers=4, heads=4), dict(features=24, layers=2, heads=2))
    small = dict(length=length) | args.pick(dict(features=48, layers=1, heads=4), dict(features=8, layers=1, heads=2))
    steps, rates = args.pick(2000, 60), args.pick((2e-3, 5e-3), (1e-2, 1e-2))
    return tuple((data, steps, rate, tuple(sorted(s.items()))) for rate, s in zip(rates, (large, small), strict=True))


def drafted(seed, events, models, kind, temperature, count, before, length):
    """One row of columns: see lab.speech.spoken."""
    readers = [reading.trained(*model) for model in models]
    target, small = map(decoder_of, readers)
    prompts = readers[0].streams(count, before, seed)
    if kind[0] == "parts":
        other = readers[0].streams(2, before, seed + 1000)
        kind = ("parts", tuple(chosen_parts(target, other, min(length, 64), 2)[0]), kind[2])
    draft = draft_of(kind, target, small, shared(models[0][0]).train)
    return spoken(target, draft, prompts, length, choice(temperature))


def priced(seed, events, models, before):
    readers = [reading.trained(*model) for model in models]
    return costs(*map(decoder_of, readers), readers[0].streams(1, before, seed)[0])


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    given = dict(count=args.pick(10, 1), before=args.pick(32, 8), length=args.pick(160, 32))
    for data in args.data_of("a"):
        for name, kind in DRAFTS.items():
            for temperature in (0.0, 1.0) if name != "cascade" else (0.0,):
                run = Recipe(drafted, models=sizes(data, args), kind=kind, temperature=temperature, **given)
                yield Entry("a", run=run, draft=name, temperature=temperature)
    for data in args.data_of("k"):
        for k in args.pick(KS, KS[::3]):
            for temperature in (0.0, 1.0):
                run = Recipe(drafted, models=sizes(data, args), kind=("model", k), temperature=temperature, **given)
                yield Entry("k", run=run, k=k, temperature=temperature)
    for data in args.data_of("c"):
        run = Recipe(priced, models=sizes(data, args), before=args.pick(96, 16))
        yield Entry("c", run=run)


# ----------------------------------------------------------------------------------------------------------- claims
def full(args):
    if args.quick:
        raise Undecided("--quick trains too little")


@experiment.claim(
    "a-same",
    "greedy texts are those of the target alone",
    expected="every text of every draft, character by character",
    source="Leviathan et al. 2023, appendix A.1",
)
def a_same(results):
    runs = [run for part in "ak" for run in results.select(part, temperature=0.0)]
    return f"{sum(run.final['same'] for run in runs):.0f} of {len(runs)} runs", all(run.final["same"] for run in runs)


@experiment.claim(
    "a-greedy",
    "guesses stand more often in greedy texts than in drawn ones",
    expected="the small model's rate higher (95 %); false where it is lower",
    source="Leviathan et al. 2023, table 2: 0.75 against 0.62",
)
def a_greedy(results, args):
    full(args)
    found = {t: results.select("a", draft="small model", temperature=t).final("rate") for t in (1.0, 0.0)}
    return decided(spreads({f"temperature {t:g}": v for t, v in found.items()}), lower(*found.values()))


@experiment.claim(
    "k-formula",
    "words a pass follow the formula",
    expected="within 10 % of (1 - a^(k+1)) / (1 - a), a measured at the same k, for each k and temperature",
    source="Leviathan et al. 2023, equation 1: guesses that stand independently of one another",
)
def k_formula(results, args):
    full(args)
    ratios = {}
    for (k, t), runs in results.select("k").groups("k", "temperature"):
        ratios[f"k {k}, {t:g}"] = runs.final("a pass") / formula(runs.final("rate"), k)
    worst = max(ratios.items(), key=lambda pair: abs(np.log(pair[1].mean())))
    return f"farthest {worst[0]}: {spread(worst[1])}", together([within(v, 0.9, 1.1) for v in ratios.values()])


@experiment.claim(
    "k-time",
    "time follows the formula with what passes cost here",
    expected="gain in time within 25 % of the prediction from part c, for each k and temperature (mean of the seeds)",
    source="Leviathan et al. 2023, theorem 3.8, with the measured cost of a pass over k + 1 words",
)
def k_time(results, args):
    full(args)
    worst = ("", 1.0)
    for (k, t), runs in results.select("k").groups("k", "temperature"):
        gain = float(np.mean(runs.final("plain") / runs.final("seconds")))
        ratio = gain / predicted(results, float(runs.final("rate").mean()), k)
        if abs(np.log(ratio)) > abs(np.log(worst[1])):
            worst = (f"k {k}, {t:g}", ratio)
    return f"farthest {worst[0]}: {worst[1]:.2f} of the prediction", bool(abs(np.log(worst[1])) < np.log(1.25))


@experiment.claim(
    "a-pays",
    "some draft makes greedy texts at least 1.5 times as fast",
    expected="plain time / time with the best draft at least 1.5 (95 %); false where below",
    source="Leviathan et al. 2023: 2.3 to 3.4 times on accelerators",
)
def a_pays(results, args):
    full(args)
    gains = {}
    for name, runs in results.select("a", temperature=0.0).groups("draft"):
        gains[name] = runs.final("plain") / runs.final("seconds")
    best = max(gains, key=lambda name: gains[name].mean())
    return listed({name: f"{v.mean():.2f}" for name, v in gains.items()}), within(gains[best], low=1.5)


@experiment.claim(
    "c-pass",
    "a pass over five words costs less than two over one",
    expected="below 2 in parts of a pass over one (95 %)",
    source="weights are read once: memory's share of a pass",
)
def c_pass(results):
    found = np.array([run.columns["pass"][4] for run in results.select("c")])
    return spread(found), within(found, high=2)


if __name__ == "__main__":
    experiment.main()
