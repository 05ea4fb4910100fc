"""What may a cache of keys and values leave out, and what does that cost?   Course task B6.

A Llama of four layers of 64 learns Shakespeare's characters in windows of 128, and then reads on for 2,000: losses by
position with all keys (Full), the last 64 (Window), the first s and the last 64 - s with positions inside the cache
(StreamingLLM), the heaviest 32 and the last 32 (H2O), and all of them in codes of 2, 4 or 8 bits (KIVI). Said (Xiao et
al. 2024): without the first words a window collapses, and four of them repair it; a full cache fails behind the length
of training. Said (Liu et al. 2024): keys want groups by channel, values by word, because a few channels of keys are
large in every word; two bits cost little. Is it so in a model that has never seen more than 128 characters?

Part w asks the same of published weights (--weights FILE, a llama2.c .bin such as stories260K, on words that it was not
trained on). Part q lets it answer OpenBookQA by likelihood. Models of this size are at chance: what can be asked is
whether caches answer differently. Part t measures bytes and time of a word against the length of the text.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about half an hour.
"""

from figures.kv_cache import album, late
from lab import Entry, Experiment, Option, Part, Recipe
from lab.claims import decided, listed, spread, spreads
from lab.streams import answered, clocked, shares, stream
from lab.verdicts import Undecided, close, lower, within
from nn.decoding import H2O, KIVI, Full, Streaming, Window
from problems import reading
from problems.datasets import shared

import numpy as np

experiment = Experiment(
    __doc__,
    task="B6",
    source="Xiao et al., ICLR 2024, arXiv:2309.17453; Liu et al., ICML 2024, arXiv:2402.02750",
    parts={
        "a": Part("losses far behind the length of training", "chain", "tinyshakespeare"),
        "k": Part("codes of keys and values", "chain", "tinyshakespeare"),
        "t": Part("bytes and time of a word", "chain", "tinyshakespeare"),
        "w": Part("published weights", "chain", "ptb"),
        "q": Part("questions with four answers", "chain", "openbookqa"),
    },
    options=[Option("--weights", metavar="FILE", help="of llama2.c, such as stories260K.bin, for parts w and q")],
    seeds=5,
    quick_seeds=1,
    figures=album,
)

KEEP = 64  # words that caches have which leave words out
SINKS = (0, 1, 2, 4, 8)
CACHES = {
    "full": Full(),
    "window": Window(KEEP),
    **{f"streaming, {s} first": Streaming(s, KEEP - s) for s in SINKS},
    "H2O": H2O(KEEP // 2, KEEP // 2),
    "KIVI, 2 bits": KIVI(2, 16, 32),
}
AXES = ("channel and token", "token and token", "token and channel", "channel and channel")
CODES = {f"2 bits, by {by}": KIVI(2, 16, 32, by) for by in AXES}
CODES |= {f"{bits} bits, by {AXES[0]}": KIVI(bits, 16, 32) for bits in (4, 8)}


# ---------------------------------------------------------------------------------------------------- own functions
def reader_of(model):
    """The Reader of a tuple: ("trained", data, steps, rate, options) or ("published", file, text)."""
    kind, *given = model
    return reading.trained(*given) if kind == "trained" else reading.published(*given)


def streamed(seed, events, model, cache, rows, length):
    return stream(reader_of(model), cache, rows, length, seed)


def attention(seed, events, model, rows, length):
    """By layer: the share of attention on the first word, on the first four, and how uneven channels of keys are: the
    largest range of a channel over the median one, the largest range of a word over the median one."""
    one, few, keys = shares(reader_of(model), rows, length, seed)
    channels, words = [], []
    for k in keys:  # (B, T, G, d)
        by_channel, by_word = np.ptp(k, axis=1), np.ptp(k, axis=3)
        channels.append(float(np.mean(by_channel.max(-1) / np.median(by_channel, -1))))
        words.append(float(np.mean(by_word.max(1) / np.median(by_word, 1))))
    return {"layer": list(range(1, len(one) + 1)), "first": one, "four": few, "channels": channels, "words": words}


def timed(seed, events, model, cache, length, every):
    return clocked(reader_of(model), cache, length, every, seed)


def answers(seed, events, model, cache, data, count, before):
    """Accuracy on the first `count` test questions, behind `before` words of the model's own text."""
    reader, corpus = reader_of(model), shared(data)
    context = reader.streams(1, before, seed)[0].tolist() if before else []
    found = answered(reader, corpus.test[:count], corpus.y_test[:count], cache, context)
    return {"accuracy": [float(found[0])], "a byte": [float(found[1])]}


def small(data, args):
    """The model that is trained here."""
    size = args.pick(dict(length=128, features=64, layers=4, heads=4), dict(length=32, features=16, layers=2, heads=2))
    return "trained", data, args.pick(3000, 60), args.pick(3e-3, 1e-2), tuple(sorted(size.items()))


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    rows, length = args.pick(4, 2), args.pick(2000, 120)
    for data in args.data_of("a"):
        for name, cache in CACHES.items():
            run = Recipe(streamed, model=small(data, args), cache=cache, rows=rows, length=length)
            yield Entry("a", run=run, cache=name)
        run = Recipe(attention, model=small(data, args), rows=rows, length=args.pick(128, 32))
        yield Entry("a", run=run, cache="attention")
    for data in args.data_of("k"):
        for name, cache in {"full": Full(), **CODES}.items():
            run = Recipe(streamed, model=small(data, args), cache=cache, rows=rows, length=args.pick(128, 60))
            yield Entry("k", run=run, cache=name)
    for data in args.data_of("t"):
        for name in ("full", "window", "streaming, 4 first", "H2O", "KIVI, 2 bits"):
            given = dict(length=args.pick(2048, 128), every=args.pick(128, 32))
            run = Recipe(timed, model=small(data, args), cache=CACHES[name], **given)
            yield Entry("t", run=run, cache=name, seeds=[0])
    for data in args.data_of("w") if args.weights else ():
        model = ("published", args.weights, data)
        for name in ("full", "window", "streaming, 0 first", "streaming, 4 first", "KIVI, 2 bits"):
            run = Recipe(streamed, model=model, cache=CACHES[name], rows=rows, length=args.pick(1500, 120))
            yield Entry("w", run=run, cache=name)
        yield Entry("w", run=Recipe(attention, model=model, rows=rows, length=args.pick(256, 32)), cache="attention")
    for data in args.data_of("q") if args.weights else ():
        if data == "openbookqa":
            for name in ("full", "window", "streaming, 4 first", "KIVI, 2 bits"):
                model = ("published", args.weights, "ptb")
                given = dict(data=data, count=args.pick(200, 4), before=args.pick(128, 16))
                run = Recipe(answers, model=model, cache=CACHES[name], **given)
                yield Entry("q", run=run, cache=name, seeds=args.seeds[:1])


# ----------------------------------------------------------------------------------------------------------- claims
def full(args):
    if args.quick:
        raise Undecided("--quick trains too little")


def ends(results, *names, part="a"):
    """{cache: mean loss behind the first 512 words, one a seed}"""
    return {name: late(results.select(part, cache=name)) for name in names}


@experiment.claim(
    "a-length",
    "with all keys the loss rises behind the length of training",
    expected="behind 512 characters at least 0.1 nats above a window of half that length (95 %); false where not",
    source="Xiao et al. 2024, figure 3: dense attention",
)
def a_length(results, args):
    full(args)
    found = ends(results, "streaming, 4 first", "full")
    return decided(spreads(found), lower(*found.values(), 0.1))


@experiment.claim(
    "a-collapse",
    "a window without the first words collapses",
    expected="at least 0.1 nats above four first words and 60 others (95 %); false where it is not",
    source="Xiao et al. 2024, table 1: perplexity 5,158 against 5.4 of a 13 B model",
)
def a_collapse(results, args):
    full(args)
    found = ends(results, "streaming, 4 first", "window")
    return decided(spreads(found), lower(*found.values(), 0.1))


@experiment.claim(
    "a-sinks",
    "one first word does most of what four do",
    expected="within 0.02 nats of four (95 %); false where it is farther off",
    source="Xiao et al. 2024, table 2",
)
def a_sinks(results, args):
    full(args)
    found = ends(results, "streaming, 1 first", "streaming, 4 first")
    return decided(spreads(found), close(*found.values(), 0.02))


@experiment.claim(
    "a-share",
    "the first word draws attention that an even spread would not give it",
    expected="over all layers at least three times its even share, 1/96 of queries 64 to 127 (95 %)",
    source="Xiao et al. 2024, figure 2",
)
def a_share(results, args):
    full(args)
    found = np.array([np.mean(run.columns["first"]) for run in results.select("a", cache="attention")])
    return spread(96 * found), within(96 * found, low=3)


@experiment.claim(
    "k-bits",
    "codes of two bits cost little, of four nothing",
    expected="2 bits within 2 % of the full cache's perplexity, 4 bits within 0.2 % (95 %)",
    source="Liu et al. 2024, tables 3 and 4",
)
def k_bits(results, args):
    full(args)
    base, *found = (
        np.array([np.mean(run.columns["loss"]) for run in results.select("k", cache=name)])
        for name in ("full", "2 bits, by channel and token", "4 bits, by channel and token")
    )
    more = [100 * np.mean(np.exp(v - base) - 1) for v in found]
    text = listed({f"{bits} bits": f"{v:.2g} % more" for bits, v in zip((2, 4), more, strict=True)})
    return decided(text, close(found[0], base, np.log(1.02)), close(found[1], base, np.log(1.002)))


@experiment.claim(
    "k-axes",
    "keys want groups by channel",
    expected="loss with 2 bits above the full cache's at least twice as far by word as by channel (95 % of the first "
    "less twice the second)",
    source="Liu et al. 2024, section 3.2: outlier channels of keys",
)
def k_axes(results, args):
    full(args)
    base, right, wrong = (
        np.array([np.mean(run.columns["loss"]) for run in results.select("k", cache=name)])
        for name in ("full", "2 bits, by channel and token", "2 bits, by token and token")
    )
    found = {"by channel": right - base, "by word": wrong - base}
    return decided(spreads(found), lower(2 * (right - base), wrong - base))


@experiment.claim(
    "t-bytes",
    "what leaves words out does not grow, and codes grow slower",
    expected="bytes at the end: window, streaming and H2O as at a quarter of the text; KIVI at most 0.5 of full",
    source="definitions",
)
def t_bytes(results):
    found = {run.tags["cache"]: run.columns["bytes"] for run in results.select("t")}
    steady = [v for name, v in found.items() if not name.startswith(("full", "KIVI"))]
    kept = all(v[-1] == v[len(v) // 4] for v in steady)
    ratio = found["KIVI, 2 bits"][-1] / found["full"][-1]
    text = listed({name: f"{v[-1] / 1e3:,.0f} kB" for name, v in found.items()})
    return text, bool(kept and ratio < 0.5)


@experiment.claim(
    "w-collapse",
    "published weights: a window without the first words is worse than one with four",
    expected="at least 0.1 nats (95 %); false where it is not",
    source="Xiao et al. 2024, table 1",
)
def w_collapse(results, args):
    full(args)
    found = ends(results, "streaming, 4 first", "window", part="w")
    return decided(spreads(found), lower(*found.values(), 0.1))


@experiment.claim(
    "q-caches",
    "caches answer as the full one does",
    expected="accuracy within 3 points of the full cache's, each, by likelihood and by likelihood a byte; chance is 25",
    source="differences of losses in part w",
)
def q_caches(results):
    runs = {run.tags["cache"]: run.final for run in results.select("q")}
    found = {name: [100 * final["accuracy"], 100 * final["a byte"]] for name, final in runs.items()}
    near = [abs(v - w) <= 3 for values in found.values() for v, w in zip(values, found["full"], strict=True)]
    return listed({name: f"{v:.1f} %, a byte {w:.1f} %" for name, (v, w) in found.items()}), all(near)


if __name__ == "__main__":
    experiment.main()
