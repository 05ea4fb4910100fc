"""Poems drawn here, nothing to download: load("couplets"). They keep rules like those of regulated verse, all known.

There are 96 characters, 48 level and 48 oblique ones, each with a partner of the other tone. The level ones are in six
groups that rhyme. A poem has four lines of five or seven characters. Even lines end in one group, drawn for the poem;
odd lines end obliquely. The second, fourth and sixth characters of an odd line take turns in tone. An even line answers
the line above, character by character, but for the last: with probability 1/2 by the partner, or else by a draw from
all characters, at even places from those of the opposite tone. Draws favour the k-th of n characters with weight 1/k.

2,000 / 250 / 250 poems. `floor(corpus)` is the perplexity of who knows the rules.
"""

import hashlib

from problems.corpora import Corpus, Poem

import numpy as np

CHARACTERS = "".join(map(chr, [*range(0x41, 0x5B), *range(0x61, 0x7B), *range(0x410, 0x43C)]))
HALF, GROUPS, ANSWERED = 48, 6, 0.5
TONES = np.repeat([1, -1], HALF)  # by number of the character
RHYMES = np.arange(HALF) % GROUPS  # of the level ones
SIZES = (2000, 250, 250)


def partner(i):
    return (i + HALF) % (2 * HALF)


def shares(allowed):
    """The probabilities of a draw: of the k-th of the allowed characters, in a fixed mixed order, like 1/k."""
    allowed = np.asarray(allowed, bool)
    rank = np.zeros(2 * HALF)
    order = np.random.default_rng(7).permutation(2 * HALF)
    order = order[allowed[order]]
    rank[order] = 1 / np.arange(1.0, len(order) + 1)
    return rank / rank.sum()


LEVEL, OBLIQUE, ANY = shares(TONES > 0), shares(TONES < 0), shares(TONES != 0)
ENDS = [shares([*(group == RHYMES), *[False] * HALF]) for group in range(GROUPS)]
OF_TONE = {1: LEVEL, -1: OBLIQUE}


def answer(upper, place):
    """The law of the lower line's character at a place that is not the last."""
    law = (1 - ANSWERED) * (OF_TONE[-TONES[upper]] if place % 2 else ANY)
    law[partner(upper)] += ANSWERED
    return law


def drawn(rng, law):
    return int(rng.choice(2 * HALF, p=law))


def poem(rng, number):
    length, end = int(rng.choice([5, 7])), ENDS[rng.integers(GROUPS)]
    lines = []
    for _ in range(2):
        tone = int(rng.choice([1, -1]))
        upper = [drawn(rng, OF_TONE[tone * (-1) ** (i // 2)] if i % 2 else ANY) for i in range(length - 1)]
        upper.append(drawn(rng, OBLIQUE))
        lower = [drawn(rng, answer(c, i)) for i, c in enumerate(upper[:-1])]
        lines += [upper, [*lower, drawn(rng, end)]]
    return Poem("drawn", f"number {number}", tuple("".join(CHARACTERS[i] for i in line) for line in lines))


def floor(poems):
    """The perplexity of who knows the rules and sees the upper line alone: of all characters of lower lines and of
    their ends, which are certain."""
    total, count, ends = 0.0, 0, np.mean(ENDS, axis=0)
    for p in poems:
        for upper, lower in zip(p.lines[::2], p.lines[1::2], strict=True):
            places = [(CHARACTERS.index(a), CHARACTERS.index(b)) for a, b in zip(upper, lower, strict=True)]
            laws = [answer(a, i)[b] for i, (a, b) in enumerate(places[:-1])] + [ends[places[-1][1]]]
            total -= np.log(laws).sum()
            count += len(lower) + 1
    return float(np.exp(total / count))


def couplets(name, dtype, dense, check):
    rng = np.random.default_rng(0)
    parts = [tuple(poem(rng, i) for i in range(size)) for size in SIZES]
    text = "\n".join("".join(p.lines) for part in parts for p in part)
    rows = [item for part in parts for item in (part, None)]  # no labels
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Corpus(name, *rows, None, digest, "poems by known rules, drawn here")


READERS = {"couplets": couplets}
