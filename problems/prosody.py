"""Tones and rhymes of Chinese characters, learned from poems alone: no dictionary says how a word was spoken then.

Regulated verse has rules that thousands of poems keep. Even lines end on a level tone and rhyme with one another; odd
lines, but for the first, end on an oblique tone. The second, fourth and sixth characters of a line take turns in tone,
and those of a couplet's lines are opposite (Wang Li, Hanyu shilü xue, 1958). Read backwards the rules tell the tones:

    t_c = s_c / (n_c + 4) at first; then again and again  t_c = (2 s_c - sum_j t_j) / (2 n_c + 4 + sum_j |t_j|)

s_c is how often c ends an even line minus how often it ends an odd line (from the third on), n_c is the sum of the two,
and j runs over the characters that c should be opposite to, one for each place. t > 0 means level. Rhymes are groups of
characters that end even lines of the same poems: a_cd counts such pairs of lines, r_c is row c of a_cd / sqrt(a_c a_d),
and characters are joined by the mean cosine of their r (scipy's average linkage) until so many groups are left.
"""

import collections
import dataclasses

from npopt.errors import UserError
from npopt.values import whole

import numpy as np

KNOWN = 0.2  # |t| from which a tone counts as known


@dataclasses.dataclass(frozen=True)
class Prosody:
    """tones: {character: t, -1 to 1}   rhymes: {character: number of its group, from 0, the largest one first}"""

    tones: dict
    rhymes: dict

    def tone(self, character):
        """1 level, -1 oblique, 0 not known."""
        t = self.tones.get(character, 0.0)
        return 0 if abs(t) < KNOWN else 1 if t > 0 else -1

    def group(self, number):
        """The characters of a group, as a text."""
        return "".join(c for c, which in self.rhymes.items() if which == number)

    def rhyming(self, one, two):
        """Whether two characters rhyme; None where the group of one is not known."""
        found = self.rhymes.get(one), self.rhymes.get(two)
        return None if None in found else found[0] == found[1]

    def opposed(self, upper, lower):
        """[whether the tones are opposite] at the second, fourth and sixth characters of a couplet, where both are
        known."""
        tones = [(self.tone(a), self.tone(b)) for a, b in list(zip(upper, lower, strict=False))[1:-1:2]]
        return [a != b for a, b in tones if a and b]


def couplets(poems):
    """[(upper line, lower line)] of poems, one after the other."""
    return [(p.lines[i], p.lines[i + 1]) for p in poems for i in range(0, len(p.lines) - 1, 2)]


def opposites(poems):
    """Two texts of one length: characters that should be opposite in tone, by the rules."""
    one, two = [], []
    for upper, lower in couplets(poems):
        inner = range(1, len(upper) - 1, 2)
        one += [upper[i] for i in inner] + [line[i] for line in (upper, lower) for i in inner[:-1]]
        two += [lower[i] for i in inner] + [line[i + 2] for line in (upper, lower) for i in inner[:-1]]
    return one, two


def tones_of(poems, rounds=20):
    """{character: t}"""
    numbers = {c: i for i, c in enumerate(dict.fromkeys(c for p in poems for line in p.lines for c in line))}
    s, n = np.zeros(len(numbers)), np.zeros(len(numbers))
    for poem in poems:
        for i, line in enumerate(poem.lines):
            if i:
                s[numbers[line[-1]]] += 1 if i % 2 else -1
                n[numbers[line[-1]]] += 1
    one, two = (np.array([numbers[c] for c in text], np.int64) for text in opposites(poems))
    here, there = np.concatenate([one, two]), np.concatenate([two, one])
    t = s / (n + 4)
    for _ in range(whole("tones_of", "rounds", rounds)):
        votes = np.bincount(here, t[there], len(numbers))
        sizes = np.bincount(here, np.abs(t[there]), len(numbers))
        t = (2 * s - votes) / (2 * n + 4 + sizes)
    return {c: float(t[i]) for c, i in numbers.items()}


def rhymes_of(poems, groups, least, allowed):
    """{character: number of its group} of the characters that end `least` even lines and are allowed."""
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    ends = [[line[-1] for line in poem.lines[1::2]] for poem in poems]
    counts = collections.Counter(c for end in ends for c in end)
    names = [c for c, count in counts.most_common() if count >= least and allowed(c)]
    if len(names) < groups:
        raise UserError(f"rhymes: {len(names)} characters end {least} even lines; {groups} groups need as many")
    numbers, a = {c: i for i, c in enumerate(names)}, np.zeros((len(names), len(names)))
    for end in ends:
        known = [numbers[c] for c in end if c in numbers]
        for i, first in enumerate(known):
            for second in known[:i]:
                if first != second:
                    a[first, second] += 1
                    a[second, first] += 1
    size = a.sum(1)
    r = a / np.sqrt(np.outer(size, size)).clip(1e-12)
    r /= np.linalg.norm(r, axis=1, keepdims=True).clip(1e-12)
    apart = 1 - (r @ r.T).clip(0, 1)
    np.fill_diagonal(apart, 0)
    tree = hierarchy.average(squareform(apart, checks=False))
    found = hierarchy.fcluster(tree, groups, "maxclust")
    order = {which: i for i, (which, _) in enumerate(collections.Counter(found.tolist()).most_common())}
    return {c: order[found[i]] for c, i in numbers.items()}


def learned(poems, groups=30, least=15):
    """The Prosody of poems: rhyme groups of level characters alone, 30 as in the books of rhymes."""
    tones = tones_of(poems)
    found = Prosody(tones, {})
    return Prosody(tones, rhymes_of(poems, whole("learned", "groups", groups), least, lambda c: found.tone(c) > 0))


def kept(prosody, poems):
    """How well poems keep the rules, as a Prosody knows them: {name: share}, where tones and groups are known.

    rhymed    pairs of even lines of a poem that end in one group; chance: pairs of any two ends
    level     even lines that end on a level tone; oblique: odd lines, from the third on, on an oblique one
    opposed   places of a couplet at which tones should be opposite and are
    pairs_known, tones_known    share of those pairs, and of those places, about which something is known
    """
    ends = [[prosody.rhymes.get(line[-1]) for line in poem.lines[1::2]] for poem in poems]
    every = [(a, b) for end in ends for i, a in enumerate(end) for b in end[:i]]
    pairs = [a == b for a, b in every if None not in (a, b)]
    places = sum(len(upper) // 2 - 1 + len(upper) % 2 for upper, _ in couplets(poems))
    counts = collections.Counter(g for end in ends for g in end if g is not None)
    even = [prosody.tone(line[-1]) for poem in poems for line in poem.lines[1::2]]
    odd = [prosody.tone(line[-1]) for poem in poems for line in poem.lines[2::2]]
    opposed = [same for upper, lower in couplets(poems) for same in prosody.opposed(upper, lower)]
    return {
        "rhymed": float(np.mean(pairs)),
        "chance": float(sum((n / counts.total()) ** 2 for n in counts.values())),
        "level": float(np.mean([t > 0 for t in even if t])),
        "oblique": float(np.mean([t < 0 for t in odd if t])),
        "opposed": float(np.mean(opposed)),
        "pairs_known": len(pairs) / len(every),
        "tones_known": len(opposed) / places,
    }
