"""What `poems` measures beside trained networks: n-grams of the same split, what poems tell of tones and rhymes,
gradients at the start by depth. Functions for the Recipe of an entry's `run`."""

import collections

from npopt import backend
from problems import prosody
from problems.datasets import shared
from problems.verse import judged, verse, verses
from problems.vocabulary import START

import numpy as np

NAMES = "東冬江支微魚虞齊佳灰真文元寒刪先蕭肴豪歌麻陽庚青蒸尤侵覃鹽咸"  # of the level rhymes, Liu Yuan's book, 1252
SPELT = ("dong1 dong2 jiang zhi wei yu1 yu2 qi jia hui zhen wen yuan han shan xian1 xiao yao hao ge ma yang geng qing "
         "zheng you qin tan yan xian2").split()  # fmt: skip


GRAMS = ("unigram", "place", "bigram", "aligned", "aligned, place", "aligned, bigram")


class Counts:
    """p(c | context) of counts: a context adds `mass` counts, spread like p(c); one that was never seen gives p(c)."""

    MASSES = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
    mass = 5.0

    def __init__(self, contexts, words, size):
        self.plain = (np.bincount(words, minlength=size) + 0.5) / (len(words) + 0.5 * size)
        self.table, self.totals = collections.Counter(zip(contexts, words, strict=True)), collections.Counter(contexts)

    def fitted(self, contexts, words):
        """Itself, with the mass that fits these words best."""
        self.mass = max(self.MASSES, key=lambda mass: np.log(self(contexts, words, mass)).sum())
        return self

    def __call__(self, contexts, words, mass=None):
        mass = self.mass if mass is None else mass
        seen = np.array([self.table[pair] for pair in zip(contexts, words, strict=True)], float)
        totals = np.array([self.totals[c] for c in contexts], float)
        return (seen + mass * self.plain[words]) / (totals + mass)


def contexts(pairs):
    """{name: contexts} and the words they stand before, of lower lines: nothing, the place in the line, the character
    before, the upper line's character at the place, that with the place, and that with the character before."""
    found, words = {name: [] for name in GRAMS}, []
    for upper, lower in pairs:
        before = START
        for i, (above, c) in enumerate(zip(upper.tolist(), lower.tolist(), strict=True)):
            place = 10 * len(upper) + i
            for name, context in zip(found, (0, place, before, above, (above, place), (above, before)), strict=True):
                found[name].append(context)
            words.append(c)
            before = c
    return found, np.array(words)


def mixed(laws, rounds=50):
    """Weights of a mixture of laws, (laws, words) probabilities, that fit it best: expectation maximisation."""
    weights = np.full(len(laws), 1 / len(laws))
    for _ in range(rounds):
        shares = weights[:, None] * laws
        weights = (shares / shares.sum(0)).mean(1)
    return weights


def ngrams(seed, events, *, data, rows, least, held):
    """Perplexities of n-grams on the test couplets, as those of networks are counted: the end of a line is a word more.
    They know where it is, and pay nothing for it. `mixture`: of all. Its weights, and how much each law is smoothed,
    are fitted on the validation couplets."""
    found = verses(data, rows, least)
    train, validation, test = (contexts(found.encoded(part, held if part != "train" else None))
                               for part in ("train", "validation", "test"))  # fmt: skip
    size = found.vocabulary.size
    laws = {name: Counts(train[0][name], train[1], size).fitted(validation[0][name], validation[1]) for name in GRAMS}
    on = lambda part: np.array([law(part[0][name], part[1]) for name, law in laws.items()])  # noqa: E731
    p, count = on(test), len(test[1]) + len(found.test[:held])
    p = np.vstack([p, mixed(on(validation)) @ p])
    names = [*laws, "mixture"]
    return {name: [float(np.exp(-np.log(row).sum() / count))] for name, row in zip(names, p, strict=True)}


def tones_and_rhymes(seed, events, *, data, groups, least, bins=40):
    """What `prosody.kept` says of the test poems, for a Prosody of the training poems; what `judged` says of their
    lower lines, as of lines that networks write; and of the 30 names of rhymes in the books: how many stand in a
    group, `named`, and in how many groups, `distinct`.

    names         the group of each name, -1: none
    pairs         (groups^2,) how often even lines of a test poem end in two groups
    tone_shares   (bins,) of all characters of the training poems, by their t
    """
    poems = shared(data)
    found = prosody.learned(poems.train, groups, least)
    names = [int(found.rhymes.get(c, -1)) for c in NAMES]
    there = [group for group in names if group >= 0]
    pairs = np.zeros((groups, groups))
    for poem in poems.test:
        ends = [found.rhymes[line[-1]] for line in poem.lines[1::2] if line[-1] in found.rhymes]
        for i, a in enumerate(ends):
            for b in ends[:i]:
                pairs[a, b] += 1
                pairs[b, a] += 1
    t = [found.tones[c] for poem in poems.train for line in poem.lines for c in line]
    shares = np.histogram(t, bins, (-1, 1))[0] / len(t)
    numbers = prosody.kept(found, poems.test) | {"named": len(there), "distinct": len(set(there))}
    some = verses(data)
    numbers |= {f"poets_{name}": v for name, v in judged(*zip(*some.test, strict=True), some).items()}
    columns = {name: [float(v)] for name, v in numbers.items()}
    return columns | {"names": [names], "pairs": [pairs.reshape(-1).tolist()], "tone_shares": [shares.tolist()]}


def last_gradients(seed, events, *, data, rows, least, depths, place, features, batch):
    """The norm of the gradient of the last feed-forward part's second matrix at the start, over a batch, by depth."""
    columns = {"layers": list(depths), "norm": []}
    for layers in depths:
        problem = verse(data, features=features, layers=layers, rows=rows, least=least, place=place, held=10)
        problem.set_seed(seed)
        x = problem.x0(backend.generator(seed, "x0"))
        g = backend.xp(x).empty_like(x)
        problem.value_and_gradient(x, np.arange(batch), out=g)
        last = problem.segments.find(f"body.layer{layers}.feed.down.W")
        columns["norm"].append(float(backend.to_host(backend.norm(g[last.slice]))))
    return columns
