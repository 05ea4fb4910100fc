"""Momentum SGD, Adam, AdamW on an encoder: which one for labels of texts, before and after it has filled gaps?   A2.

BERT in small: an encoder of two layers of 96 learns masked words from 50,330 short texts (`problems/encoders.py`) in
four passes. Then, with a new head, it learns whether a sentence about a film praises it (SST-2, whole sentences), or
which of 28 emotions a comment has (GoEmotions, all comments once: mean of 28 binary cross-entropies; macro-F1, labels
above probability 0.3 being given; the head's biases begin at how often each label is given). Linear warm-up over a
tenth of the steps, linear decay, rates a factor 3 apart, chosen by the loss of held-out texts.

SGD is said to be far behind Adam on attention (Zhang et al. 2020), in training loss and also without noise (Kunstner et
al. 2023). BERT is tuned at 5e-5; muP's 1/width would make it 4e-4 here (Yang et al. 2021). Momentum SGD and AdamW
shrink x by 1 - 5e-4 a step before the schedule; Adam has no decay, but in part d: there an l2 goes through the moments.
The gradient of a word that no text has is then l2 w alone, and Adam divides it by its own size: the vector loses lr a
step in each coordinate, however small the l2. Decoupled decay leaves it the product of 1 - lr weight_decay.

No published weights are at hand: the encoder is this project's. --weights FOLDER takes a BertModel, such as MiniLM.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about an hour.
"""

import itertools

from figures.adam_text import LEARNED, SCORES, SCRATCH, album, kept, schedule_of, whole_run
from lab import Entry, Experiment, Option, Part, Recipe, Undecided
from lab.claims import alike, decided, inside, larger, spread, spreads
from lab.verdicts import close, lower, no_higher, within
from npopt import Adam, AdamW, HeavyBall, RandomReshuffling, Stop
from npopt.errors import UserError
from problems.encoders import BATCH, finetuned, pretraining, weights_in

import numpy as np

experiment = Experiment(
    __doc__,
    task="A2",
    source="Zhang et al., NeurIPS 2020; Kunstner et al., ICLR 2023; Loshchilov & Hutter, ICLR 2019",
    parts={
        "p": Part("filling gaps in the texts of both corpora", "opinions", "sst2-socher"),
        "a": Part("one of two classes: is it praise?", "opinions", "sst2-socher"),
        "b": Part("several labels of a text: which emotions?", "moods", "goemotions"),
        "d": Part("words that no training text has: L2 against decoupled decay", "opinions", "sst2-socher"),
    },
    options=[Option("--weights", metavar="FOLDER", help="of a published BertModel, in place of the learned encoder")],
    seeds=3,
    quick_seeds=1,
    figures=album,
)

SHRINK = 5e-4  # of x a step, before the schedule
BERT = 5e-5, 768  # the customary rate and the width of BERT-base
RATES = {  # a factor 3 apart; a mean over 28 outputs has smaller gradients
    ("a", "momentum SGD"): (0.01, 0.03, 0.1, 0.3),
    ("b", "momentum SGD"): (0.1, 0.3, 1.0, 3.0),
}
ADAM = {LEARNED: (1e-4, 3e-4, 1e-3, 3e-3), SCRATCH: (3e-4, 1e-3, 3e-3)}
ROWS = {"a": 1600, "b": 43_410, "d": 1600}  # training texts with labels: of part b all that there are
EPOCHS = {"a": 3, "b": 1, "d": 3}
L2, MIDDLE = (1e-5, 1e-4, 1e-3), 1e-3  # of part d
BESIDE = {"sst2-socher": "goemotions", "goemotions": "sst2-socher", "opinions": "moods", "moods": "opinions"}


# ------------------------------------------------------------------------------------------------------------- grid
def size_of(data, args):
    """What the encoder is, and how long it fills gaps."""
    if args.quick:
        return dict(size=400, length=16, features=32, layers=1, heads=2, rate=3e-3, passes=1)
    return dict(size=2000, length=24, features=96, layers=2, heads=4, rate=1e-3, passes=4)


def problem_of(part, data, start, args, l2=0.0):
    if data not in BESIDE:
        raise UserError(f"adam_text: --data is one of {', '.join(BESIDE)}; got {data!r}")
    if args.weights and start == LEARNED:
        start = weights_in(args.weights)
    size = dict(rows=args.pick(ROWS[part], 240), held=args.pick(400, 100), test_rows=args.pick(1000, 100))
    return Recipe(finetuned, data=data, beside=BESIDE[data], start=start, l2=l2, **size, **size_of(data, args))


def method_of(name, lr):
    """(optimizer, l2 of the objective)"""
    if name == "AdamW":
        return AdamW(weight_decay=SHRINK / lr), 0.0
    return (HeavyBall(0.9), SHRINK * (1 - 0.9) / lr) if name == "momentum SGD" else (Adam(), 0.0)


def entry(part, data, start, args, optimizer, l2, lr, **tags):
    epochs, rows = args.budget(EPOCHS[part], 3), args.pick(ROWS[part], 240)
    schedule = schedule_of(lr, round(epochs * -(-rows // BATCH)))
    tags = dict(start=start, lr=lr) | tags
    return Entry(part, problem_of(part, data, start, args, l2), optimizer, RandomReshuffling(BATCH), schedule,
                 stop=Stop(epochs=epochs), metrics=epochs / 3, keep=False, **tags)  # fmt: skip


def labels(part, args):
    """The entries of part a or b."""
    for data, start in itertools.product(args.data_of(part), (LEARNED, SCRATCH)):
        for method in ("momentum SGD", "Adam", "AdamW")[: 3 if start == LEARNED else 2]:
            rates = RATES.get((part, method), ADAM[start])
            smaller = 0.1 if args.weights and start == LEARNED else 1  # wider, and published ones are tuned at 5e-5
            for lr in (float(f"{rate * smaller:g}") for rate in args.pick(rates, rates[-1:])):
                optimizer, l2 = method_of(method, lr)
                yield entry(part, data, start, args, optimizer, l2, lr, method=method)


@experiment.runs
def runs(args):
    for data in args.data_of("p"):
        run = Recipe(pretraining, data=data, beside=BESIDE[data], **size_of(data, args))
        yield Entry("p", run=run, seeds=[0])
    yield from labels("a", args)
    for data in args.data_of("d"):
        for l2 in L2:
            yield entry("d", data, LEARNED, args, Adam(), l2, MIDDLE, method="Adam", decay=l2)
        optimizer, l2 = method_of("AdamW", MIDDLE)
        yield entry("d", data, LEARNED, args, optimizer, l2, MIDDLE, method="AdamW", decay=SHRINK)
    yield from labels("b", args)


# ----------------------------------------------------------------------------------------------------------- claims
def best(results, part, start, method):
    """The runs of a method from a start at its best rate, by the loss of held-out texts."""
    return results.select(part, start=start, method=method).tuned()[method].runs


def full(args):
    if args.quick or args.weights:
        raise Undecided("it speaks of the encoder that is trained here, at full size")


@experiment.claim(
    "p-context",
    "the encoder reads what stands around a gap",
    expected="held-out loss at least half a nat below that of the frequencies of words; one seed",
    source="the customary course: frequencies first, then neighbours",
)
def p_context(results, args):
    full(args)
    (run,) = results.select("p")
    gain = run.final["unigram"] - run.final["validation_loss"]
    text = f"{run.final['validation_loss']:.3f}, frequencies alone {run.final['unigram']:.3f}"
    return text, bool(gain >= 0.5)


for part, corpus, margin in (("a", "SST-2", 0.02), ("b", "GoEmotions", 0.02)):
    score = SCORES[part]
    experiment.claim(
        f"{part}-edge",
        f"{corpus}: the rates are wide enough",
        expected="the best rate is inside its grid, always",
        source="tuning of this script",
    )(inside(part, of=("start", "method")))

    for start, words in ((LEARNED, "after filling gaps"), (SCRATCH, "from random weights")):

        @experiment.claim(
            f"{part}-sgd-{start}",
            f"{corpus}, {words}: momentum SGD ends behind Adam",
            source="Zhang et al., NeurIPS 2020; Kunstner et al., ICLR 2023",
            expected="training loss above Adam's, each at the rate that held-out loss chooses (95 % of the log); false "
            "where below, or above by less than 5 %",
        )
        def behind(results, part=part, start=start):
            ends = {m: best(results, part, start, m).final("train_loss") for m in ("momentum SGD", "Adam")}
            sgd, adam = (np.log(v) for v in ends.values())
            return decided(spreads(ends), lower(adam, sgd, np.log(1.05)))

    experiment.claim(
        f"{part}-close",
        f"{corpus}: Adam and AdamW end alike",
        expected=f"test {score.name} within {100 * margin:g} points (95 %); false where they are farther apart",
        source="a decay of 5 % in all is little",
    )(alike(part, dict(start=LEARNED, method="Adam"), dict(start=LEARNED, method="AdamW"), score.test, margin,
            by="validation_loss"))  # fmt: skip

    experiment.claim(
        f"{part}-gain",
        f"{corpus}: to have filled gaps helps",
        expected=f"Adam's test {score.name} is above that from random weights (95 %); false where it is below, or "
        "above by less than 1 point",
        source="Devlin et al., NAACL 2019, of a far larger encoder and text",
    )(larger(part, dict(start=LEARNED, method="Adam"), dict(start=SCRATCH, method="Adam"), score.test,
             "validation_loss", 0.01))  # fmt: skip

    @experiment.claim(
        f"{part}-rate",
        f"{corpus}: the best rate goes as 1 / width",
        source="Yang et al. 2021, arXiv:2203.03466",
        expected="Adam's rate after filling gaps is within a factor 3.4 (one place of the grid) of 5e-5 x 768 / width",
    )
    def wide(results, args, part=part):
        full(args)
        features = size_of(None, args)["features"]
        predicted, found = BERT[0] * BERT[1] / features, best(results, part, LEARNED, "Adam")[0].tags["lr"]
        return f"{found:g}, predicted {predicted:g}", bool(1 / 3.4 <= found / predicted <= 3.4)


@experiment.claim(
    "d-wiped",
    "an l2 through Adam's moments wipes out the words that no training text has",
    expected="their vectors lose at least half of their norm at every l2 (95 %); false where they keep more",
    source="the gradient l2 w, divided by its own size: lr a step",
)
def d_wiped(results):
    found = {f"l2 {l2:g}": kept(runs) for l2, runs in results.select("d", method="Adam").groups("decay")}
    return decided(spreads(found), *(within(v, high=0.5) for v in found.values()))


@experiment.claim(
    "d-any",
    "how much l2 there is does not matter to them",
    expected="the norms that are left at 1e-5, 1e-4 and 1e-3 differ by less than a twentieth of the norm at the start",
    source="Adam's step does not depend on the scale of the gradient",
)
def d_any(results):
    found = {f"l2 {l2:g}": kept(runs) for l2, runs in results.select("d", method="Adam").groups("decay")}
    pairs = itertools.pairwise(found.values())
    return decided(spreads(found), *(close(a, b, 0.05) for a, b in pairs))


@experiment.claim(
    "d-decoupled",
    "decoupled decay leaves them what the schedule says",
    expected="the product of 1 - lr_t weight_decay, to 1e-4 (float32), every seed",
    source="definition",
)
def d_decoupled(results):
    runs = results.select("d", method="AdamW")
    found, steps = kept(runs), int(runs[0].final["step"])
    predicted = float(np.prod(1 - SHRINK / MIDDLE * whole_run(MIDDLE, steps)))
    return f"{spread(found, 5)}, predicted {predicted:.5f}", bool((np.abs(found - predicted) < 1e-4).all())


@experiment.claim(
    "d-cost",
    "test texts hardly miss the words that are gone",
    expected="test accuracy at l2 = 1e-5 at most 2 points below AdamW's (95 %)",
    source="words that 1,600 sentences lack are rare",
)
def d_cost(results):
    some = results.select("d")
    ends = {m: some.select(method=m, decay=d).final("test_accuracy") for m, d in (("Adam", L2[0]), ("AdamW", SHRINK))}
    return decided(spreads(ends), no_higher(ends["AdamW"], ends["Adam"], 0.02))


if __name__ == "__main__":
    experiment.main()
