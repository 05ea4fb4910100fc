"""Tang couplets: an upper line is given, a network writes the lower one. Which network, and which of its parts matter?

Course task B7, its first part. The two lines of a couplet in regulated verse answer each other: as many characters,
opposite tones at the even places, parallel words; even lines end on a level tone. So a network that reads the upper
line character by character has much to go by, and its losses can be held against n-grams that know a line's form.

Part a compares networks at equal parameters and equal steps, each in its customary form: Vaswani et al.'s
encoder-decoder (norms behind the sums, ReLU, sinusoids), GPT-2's decoder (norms before the parts, GELU, learned
positions), an LSTM. So it compares recipes, not only kinds. Part v changes one thing at a time in the encoder-decoder:
the place of the norms, positions, the activation (gated parts are narrower, at equal parameters), Child's sparse
pattern, tied tables. Part w trains six layers each with and without a warm-up, and takes the gradient of the last
layer at the start by depth: behind each sum ("post") it does not depend on the depth L, before each part ("pre") it
falls like L^(-1/2) (Xiong et al.). Part n has the n-grams. Part p asks what the poems alone say of tones and rhymes
(problems/prosody.py); what it learns judges the lines that networks write.

Conventions: characters rarer than ten in the training lines are one unknown character. Perplexities count the end of a
line as a character, which everybody knows after a few steps. In part a each network runs at the best of its rates,
chosen by the loss of held-out poems after a fifth of the steps, with the first seed; in part v all take the rate that
is best for the base, which favours the base. Poems, not couplets, are split. Of twenty claims one fails by chance.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about an hour.
"""

import itertools

from figures.poems import BASE, PLACES, VARIANTS, album, gap, slopes
from lab import Entry, Experiment, Part, Recipe, Undecided
from lab.claims import decided, listed, spread, spreads
from lab.results import MissingRuns
from lab.verdicts import lower, no_higher, within
from lab.verse import last_gradients, ngrams, tones_and_rhymes
from npopt import Adam, Cosine, RandomReshuffling, Stop
from npopt.schedules import WithWarmup
from problems.verse import KINDS, verse

import numpy as np

experiment = Experiment(
    __doc__,
    task="B7",
    source="Vaswani et al., NeurIPS 2017; Xiong et al., ICML 2020, arXiv:2002.04745; Shazeer 2020, arXiv:2002.05202",
    parts={
        "a": Part("three kinds of networks", "couplets", "tang-poems"),
        "v": Part("one part changed at a time", "couplets", "tang-poems"),
        "w": Part("the place of the norms, warm-up and depth", "couplets", "tang-poems"),
        "n": Part("n-grams", "couplets", "tang-poems"),
        "p": Part("tones and rhymes", "couplets", "tang-poems"),
    },
    seeds=3,
    quick_seeds=1,
    figures=album,
)

RATES = (2e-3, 4e-3, 8e-3)
STEPS = {"a": (3000, 20), "v": (900, 10), "w": (300, 6)}  # real, quick
DEEP_RATE = 2e-3  # of part w
DEPTHS = (1, 2, 4, 8)
ADAM = Adam(0.9, 0.98)


# ------------------------------------------------------------------------------------------------------------- grid
def sizes(args):
    """What real runs and quick ones share with the n-grams, and the sizes of networks."""
    shared = args.pick(dict(rows=None, least=10), dict(rows=250, least=1))
    return shared, args.pick(dict(features=96, heads=4), dict(features=32, heads=2))


def best_rate(found, part, method):
    """The rate that held-out poems choose with the first seed; None before it is known."""
    if found is None:
        return None
    try:
        return found.select(part, method=method, stage="grid").tuned()[method].value
    except MissingRuns:
        return None


def entry(part, args, problem, *, seeds=None, share=1, **tags):
    steps, lr = args.pick(*STEPS[part]) // share, tags["lr"]
    schedule = WithWarmup(Cosine(lr), max(1, steps // 10)) if tags.get("warmup", True) else Cosine(lr)
    some = dict(stop=Stop(steps=steps), metrics=steps // args.pick(6, 2), per="step", seeds=seeds)
    return Entry(part, problem, ADAM, RandomReshuffling(args.pick(64, 32)), schedule, **some, **tags)


@experiment.runs
def runs(args, found=None):
    shared, size = sizes(args)
    size |= dict(layers=args.pick(2, 1), held=args.pick(2000, 100))
    for data in args.data_of("a"):
        for kind in KINDS:
            tags, rates = dict(method=kind), args.pick(RATES, ())
            short = Recipe(verse, data=data, kind=kind, **shared, **size)
            for lr in rates:
                yield entry("a", args, short, seeds=args.seeds[:1], share=5, lr=lr, stage="grid", **tags)
            best = RATES[0] if args.quick else best_rate(found, "a", kind)
            if best:
                problem = Recipe(verse, data=data, kind=kind, drawn=args.pick(500, 20), **shared, **size)
                yield entry("a", args, problem, lr=best, stage="chosen", **tags)
    for data in args.data_of("v"):
        for lr in args.pick(RATES, ()):
            problem = Recipe(verse, data=data, **shared, **size, **VARIANTS[BASE])
            yield entry("v", args, problem, seeds=args.seeds[:1], method=BASE, lr=lr, stage="grid")
        best = RATES[0] if args.quick else best_rate(found, "v", BASE)
        for name in args.pick(list(VARIANTS), list(VARIANTS)[::3]) if best else ():
            problem = Recipe(verse, data=data, **shared, **size, **VARIANTS[name])
            yield entry("v", args, problem, lr=best, method=name, stage="chosen")
    for data, place, warmup in itertools.product(args.data_of("w"), PLACES, (True, False)):
        deep = Recipe(verse, data=data, place=place, **shared, **size | dict(layers=args.pick(6, 3)))
        yield entry("w", args, deep, lr=DEEP_RATE, place=place, warmup=warmup)
    for data, place in itertools.product(args.data_of("w"), PLACES):
        how = dict(depths=args.pick(DEPTHS, DEPTHS[:2]), place=place, features=args.pick(96, 32), batch=64)
        yield Entry("w", run=Recipe(last_gradients, data=data, **shared, **how), place=place, what="gradients")
    for data in args.data_of("n"):
        yield Entry("n", run=Recipe(ngrams, data=data, held=size["held"], **shared), seeds=args.seeds[:1])
    for data in args.data_of("p"):
        groups, least = args.pick((30, 15), (6, 5))
        yield Entry("p", run=Recipe(tones_and_rhymes, data=data, groups=groups, least=least), seeds=args.seeds[:1])


# ----------------------------------------------------------------------------------------------------------- claims
def loss(results, part, method):
    """The last test loss at the chosen rate, one a seed."""
    return results.select(part, method=method, stage="chosen").final("test_loss")


def real(args, part):
    if args.quick or args.data_of(part) != ["tang-poems"]:
        raise Undecided("it speaks of Tang poems and these numbers of steps")


@experiment.claim(
    "a-reads",
    "what networks know of the lower line is more than n-grams with the upper line's characters know",
    expected="test perplexity below that of the best mixture of n-grams (95 %), all three networks; false where one is "
    "above",
)
def a_reads(results, args):
    real(args, "a")
    bound = results.select("n").final("mixture")[0]
    found = {kind: np.exp(loss(results, "a", kind)) for kind in KINDS}
    return decided(f"{spreads(found)}; n-grams {bound:.4g}", *(within(v, high=bound) for v in found.values()))


for one, two, margin, why in (
    ("encoder-decoder", "decoder", 0.01, "both attend to the upper line; the same number of parameters"),
    (
        "encoder-decoder",
        "lstm",
        0.0,
        "attention looks straight at the place above; an LSTM's state must keep all of it",
    ),
):

    @experiment.claim(
        f"a-{two}",
        f"at equal parameters and steps the encoder-decoder is {'no worse than' if margin else 'ahead of'} the {two}",
        source=why,
        expected=f"test loss {f'at most {margin:g} nats above' if margin else 'below'} (95 %); false where it is above "
        "that",
    )
    def order(results, args, one=one, two=two, margin=margin):
        real(args, "a")
        a, b = loss(results, "a", one), loss(results, "a", two)
        return decided(f"{spread(a)} and {spread(b)}", no_higher(a, b, margin) if margin else lower(a, b))


for column, statement, low, high in (
    ("form", "lines have the right length and no special character", 0.98, np.inf),
    ("level", "lines end on a level tone nearly as often as the poets'", -0.05, 0.05),
    ("opposed", "tones at even places are opposite: at least half of the way from chance to the poets'", None, None),
    ("copied", "lines are not copied from the training poems", -np.inf, 0.01),
):

    @experiment.claim(
        f"a-{column}",
        f"{statement}: every network",
        expected={
            "form": "at least 98 % of 500 lines drawn at temperature 1 (95 % over seeds)",
            "level": "within 5 points of the share in held-out poems (95 % over seeds)",
            "opposed": "share above the middle of 50 % and the share in held-out poems",
            "copied": "at most 1 %",
        }[column],
        source="rules of the form" if column != "copied" else "no published number",
    )
    def written(results, args, column=column, low=low, high=high):
        real(args, "a")
        if column in ("level", "opposed"):
            poets = results.select("p").final(f"poets_{column}")[0]
            low, high = (poets + low, poets + high) if column == "level" else ((poets + 0.5) / 2, np.inf)
        found = {m: r.final(column) for m, r in results.select("a", stage="chosen").groups("method")}
        return decided(spreads(found), *(within(v, low, high) for v in found.values()))


NOAM = "arXiv:2002.05202, after 65,536 steps SwiGLU 1.944, GELU 1.983, ReLU 1.997"
for id, one, two, margin, statement, source in (
    ("gated", "SwiGLU", BASE, 0.0, "a gated part is better than ReLU at equal parameters", NOAM),
    ("gelu", "GELU", BASE, 0.01, "GELU is no worse than ReLU", NOAM),
    ("rotary", "rotary", BASE, 0.01, "rotary positions are no worse than sinusoids", "Su et al. 2021"),
    ("relative", "relative", BASE, 0.01, "relative positions are no worse than sinusoids", "Shaw et al., NAACL 2018"),
    ("places", BASE, "no positions", 0.0, "without positions in either stack it is worse", "a set has no order"),
    ("sparse", "strided", BASE, 0.01, "the decoder's sparse pattern costs little", "arXiv:1904.10509"),
    ("tied", BASE, "untied", 0.01, "one table for all is no worse than three", "Press & Wolf, EACL 2017"),
    (
        "post",
        "post",
        BASE,
        0.01,
        "at two layers, with a warm-up, norms behind the sums cost little",
        "arXiv:2002.04745",
    ),
):

    @experiment.claim(
        f"v-{id}",
        statement,
        source=source,
        expected=f"test loss {f'at most {margin:g} nats above' if margin else 'below'} (95 %); false where it is "
        "shown to be higher",
    )
    def changed(results, args, one=one, two=two, margin=margin):
        real(args, "v")
        a, b = loss(results, "v", one), loss(results, "v", two)
        return decided(f"{spread(a)} and {spread(b)}", no_higher(a, b, margin) if margin else lower(a, b))


@experiment.claim(
    "w-post",
    "six layers with norms behind the sums need a warm-up",
    source="Xiong et al., ICML 2020, section 3",
    expected="test loss without a warm-up at least 0.1 nats above that with one (95 %)",
)
def w_post(results, args):
    real(args, "w")
    return decided(*gap(results, "post", lambda a, b: lower(b + 0.1, a)))


@experiment.claim(
    "w-pre",
    "six layers with norms before the parts need no warm-up",
    source="Xiong et al., ICML 2020, section 4",
    expected="test loss without a warm-up at most 0.05 nats above that with one (95 %)",
)
def w_pre(results, args):
    real(args, "w")
    return decided(*gap(results, "pre", lambda a, b: no_higher(a, b, 0.05)))


for place, power in (("post", 0.0), ("pre", -0.5)):

    @experiment.claim(
        f"w-gradient-{place}",
        f"{place}: at the start the last layer's gradient goes with the depth like L^{power:g}",
        source="Xiong et al., ICML 2020, Theorem 1: norms of the second matrix of the last feed-forward part",
        expected=f"slope of the logarithms {power:g} ± 0.15 (95 % over seeds)",
    )
    def gradient(results, place=place, power=power):
        found = slopes(results, place)
        return decided(spread(found, 2), within(found, power - 0.15, power + 0.15))


@experiment.claim(
    "p-rhymes",
    "groups of rhymes found in the training poems are those that held-out poems rhyme by",
    expected="at least 95 % of pairs of even lines in one group, of ends of any two lines at most three times as many "
    "as in groups of one size; at least 90 % of the pairs are of ends whose groups are known",
)
def p_rhymes(results):
    run = results.select("p")[0]
    found, groups = run.final, np.size(run.columns["pairs"]) ** 0.5
    text = listed({name: f"{found[name]:.1%}" for name in ("rhymed", "chance", "pairs_known")})
    holds = found["rhymed"] >= 0.95 and found["chance"] <= 3 / groups and found["pairs_known"] >= 0.9
    return text, bool(holds)


@experiment.claim(
    "p-book",
    "the groups found are the rhymes of the books",
    source="the names of the 30 level rhymes, each a character of its own group (Liu Yuan 1252)",
    expected="of the 30 names at least half stand in a group, and these in as many different groups, but for one",
)
def p_book(results, args):
    real(args, "p")
    found = results.select("p")[0].final
    return f"{found['named']:.0f} names in {found['distinct']:.0f} groups", bool(
        found["distinct"] >= found["named"] - 1
    )


@experiment.claim(
    "p-tones",
    "tones learned from the rules hold in poems that were not seen",
    source="the rules of regulated verse; a tenth of the quatrains are older and do not keep them",
    expected="opposite at 90 % or more of the even places of couplets, level ends in 90 % or more of even lines; at "
    "least 90 % of the places are known",
)
def p_tones(results):
    found = results.select("p")[0].final
    text = listed({name: f"{found[name]:.1%}" for name in ("opposed", "level", "oblique", "tones_known")})
    return text, bool(min(found["opposed"], found["level"], found["tones_known"]) >= 0.9)


if __name__ == "__main__":
    experiment.main()
