"""Couplets: what poems tell of tones and rhymes, poems by known rules, feeds, and networks that write lower lines."""

import math

from nn import Run
from nn.decoding import Greedy
from problems import couplets as drawn
from problems import prosody
from problems.corpora import Poem
from problems.datasets import load
from problems.verse import BLANK, Continuations, judged, units_of, verse, verses
from problems.vocabulary import PAD, START, STOP, UNKNOWN

import numpy as np
import pytest

TINY = dict(features=16, heads=2, layers=1, least=1, held=40)


@pytest.fixture(scope="module")
def corpus():
    return load("couplets")


def test_drawn_poems_keep_their_rules(corpus):
    """Each rule of the docstring, looked up in the tables of tones and groups; shares against the laws."""
    number, answered, free = drawn.CHARACTERS.index, 0, 0
    for poem in corpus.train[:300]:
        lines = [[number(c) for c in line] for line in poem.lines]
        assert len(lines) == 4 and len({len(line) for line in lines}) == 1 and len(lines[0]) in (5, 7)
        assert len({drawn.RHYMES[line[-1]] for line in lines[1::2]}) == 1
        assert all(drawn.TONES[line[-1]] == -1 for line in lines[::2])
        for upper, lower in zip(lines[::2], lines[1::2], strict=True):
            inner = drawn.TONES[upper[1:-1:2]]
            assert (inner[1:] == -inner[:-1]).all()
            assert (drawn.TONES[lower[1:-1:2]] == -inner).all()
            for i, (a, b) in enumerate(zip(upper[:-1], lower[:-1], strict=True)):
                answered += b == drawn.partner(a)
                free += 1 - 0.5 - 0.5 * (drawn.OF_TONE[-drawn.TONES[a]] if i % 2 else drawn.ANY)[drawn.partner(a)]
    places = sum(2 * (len(poem.lines[0]) - 1) for poem in corpus.train[:300])
    assert abs(answered - (places - free)) < 5 * math.sqrt(places / 4)


def test_the_floor_is_the_entropy_of_the_rules(corpus):
    """Over many poems -log p is the sum of the entropies of the places, each known in closed form."""
    entropy = lambda law: -(law[law > 0] * np.log(law[law > 0])).sum()  # noqa: E731
    ends, total, count = np.mean(drawn.ENDS, axis=0), 0.0, 0
    for poem in corpus.train:
        for upper in poem.lines[::2]:
            places = [drawn.answer(drawn.CHARACTERS.index(c), i) for i, c in enumerate(upper[:-1])]
            total += sum(map(entropy, places)) + entropy(ends)
            count += len(upper) + 1
    assert abs(math.log(drawn.floor(corpus.train)) - total / count) < 0.02


def test_rules_alone_tell_tones_and_rhymes(corpus):
    found = prosody.learned(corpus.train, groups=6, least=5)
    for i, c in enumerate(drawn.CHARACTERS):
        assert found.tone(c) == drawn.TONES[i]
        assert (c in found.rhymes) == (i < drawn.HALF)
    for one, i in found.rhymes.items():
        for two, j in found.rhymes.items():
            same = drawn.RHYMES[drawn.CHARACTERS.index(one)] == drawn.RHYMES[drawn.CHARACTERS.index(two)]
            assert found.rhyming(one, two) == (i == j) == same
    assert found.rhyming(drawn.CHARACTERS[0], drawn.CHARACTERS[-1]) is None
    kept = prosody.kept(found, corpus.test)
    assert [kept[name] for name in ("rhymed", "level", "oblique", "opposed")] == [1.0] * 4
    assert 0.1 < kept["chance"] < 0.25 and kept["pairs_known"] == kept["tones_known"] == 1


def slow_tones(poems, rounds):
    """t of each character, by the formula, from lists of ends and of pairs that should be opposite."""
    ends, opposite = [], []
    for poem in poems:
        for i, line in enumerate(poem.lines):
            ends += [(line[-1], 1 if i % 2 else -1)] * (i > 0)
            inner = line[1:-1:2]
            opposite += list(zip(inner[:-1], inner[1:], strict=True))
            opposite += list(zip(inner, poem.lines[i + 1][1:-1:2], strict=True)) if i % 2 == 0 else []
    names = {c for poem in poems for line in poem.lines for c in line}
    s = {c: sum(sign for end, sign in ends if end == c) for c in names}
    n = {c: sum(end == c for end, _ in ends) for c in names}
    t = {c: s[c] / (n[c] + 4) for c in names}
    for _ in range(rounds):
        new = {}
        for c in names:
            others = [t[b] for a, b in opposite if a == c] + [t[a] for a, b in opposite if b == c]
            new[c] = (2 * s[c] - sum(others)) / (2 * n[c] + 4 + sum(map(abs, others)))
        t = new
    return t


@pytest.mark.parametrize("rounds", [1, 3])
def test_tones_are_the_formula(corpus, rounds):
    poems = corpus.train[:12]
    expected = slow_tones(poems, rounds)
    found = prosody.tones_of(poems, rounds)
    assert set(found) == set(expected) and max(map(abs, expected.values())) > 0.5
    for c, t in expected.items():
        assert found[c] == pytest.approx(t, rel=1e-12, abs=1e-14)


def test_opposed_and_unknown_tones():
    found = prosody.Prosody({"a": 0.9, "b": -0.8, "c": 0.1}, {"a": 0})
    assert [found.tone(c) for c in "abcz"] == [1, -1, 0, 0]
    assert found.opposed("xaxax", "xbxax") == [True, False]
    assert found.opposed("xcxbx", "xbxzx") == []
    assert found.group(0) == "a" and found.group(1) == ""
    with pytest.raises(ValueError, match="characters end"):
        prosody.rhymes_of([Poem("", "", ("ab", "ab"))], 3, 1, lambda c: True)


def test_continuations_predict_what_pairs_predict():
    pairs = [(np.array([5, 6]), np.array([7, 8])), (np.array([5, 6, 7]), np.array([9]))]
    feed = Continuations(pairs, 7)
    ids, targets = feed.table(pairs)
    np.testing.assert_array_equal(ids, [[5, 6, START, 7, 8, PAD, PAD], [5, 6, 7, START, 9, PAD, PAD]])
    np.testing.assert_array_equal(targets, [[-1, -1, 7, 8, STOP, -1, -1], [-1, -1, -1, 9, STOP, -1, -1]])
    with pytest.raises(ValueError, match="row 0 needs 5 places of 4"):
        Continuations(pairs, 4)


def logits(problem, x, upper, so_far):
    """Of the next character, from one pass over the feed's own row, which expects STOP there."""
    *inputs, targets = problem.feed.table([(upper, so_far)])
    problem.network.bind(x)
    z, _ = problem.network.forward(tuple(inputs) if len(inputs) > 1 else inputs[0], Run())
    return z[0, np.flatnonzero(targets[0] == STOP)[-1]]


@pytest.mark.parametrize("kind", ["encoder-decoder", "decoder", "lstm"])
def test_lines_are_drawn_from_the_network_s_own_law(kind):
    """Greedy takes the likeliest character each time; what is drawn does not depend on lines of the same length."""
    problem = verse("couplets", kind, **TINY)
    x = problem.x0(np.random.default_rng(0)) * 3
    uppers = [upper for upper, _ in problem.verses.test[:6]]
    lines = problem.write(x, uppers, Greedy())
    encode = problem.verses.vocabulary.encode
    for upper, line in zip(uppers, lines, strict=True):
        line = line.split(BLANK)[0]
        so_far = encode(line)
        for t in range(len(line)):
            assert logits(problem, x, encode(upper), so_far[:t]).argmax() == so_far[t]
        if len(line) < 8:
            assert logits(problem, x, encode(upper), so_far).argmax() in (PAD, START, STOP, UNKNOWN)
    drawn_lines = problem.write(x, uppers, seed=4)
    assert problem.write(x, uppers[:3], seed=4) == drawn_lines[:3]
    assert problem.write(x, uppers, seed=5) != drawn_lines


def test_only_what_is_allowed_is_written():
    problem = verse("couplets", "decoder", **TINY)
    words, uppers = problem.verses.vocabulary.size, [upper for upper, _ in problem.verses.test[:5]]

    def allowed(position, texts):
        """Character 10 + t at place t; the end behind as many as the upper line has."""
        may = np.zeros((len(texts), words), bool)
        for row, (t, upper) in enumerate(zip(position, uppers, strict=True)):
            may[row, STOP if t == len(upper) else 10 + t] = True
        return may

    lines = problem.write(problem.x0(np.random.default_rng(0)), uppers, allowed=allowed)
    units = problem.verses.vocabulary.units
    assert lines == ["".join(units[10 : 10 + len(upper)]) for upper in uppers]


def test_lines_are_judged_by_the_form(corpus):
    found = verses("couplets", least=1)
    upper, lower = found.train[0]
    real = judged([upper], [lower], found)
    assert real["form"] == real["level"] == real["opposed"] == real["copied"] == 1
    assert real["repeated"] == float(len(set(lower)) < len(lower) or bool(set(upper) & set(lower)))
    wrong = judged([upper], [lower[:-1]], found)
    assert wrong["form"] == wrong["copied"] == 0
    turned = judged([upper], [lower[:-1] + upper[-1]], found)
    assert turned["level"] == 0 and turned["form"] == 1 and turned["repeated"] == 1
    assert np.isnan(judged([upper], [""], found)["level"])


def test_networks_of_all_kinds_have_as_many_parameters_and_predict_as_many_words():
    found = {
        kind: verse("couplets", kind, features=64, layers=2, held=40) for kind in ("encoder-decoder", "decoder", "lstm")
    }
    dims = [problem.dim for problem in found.values()]
    assert max(dims) < 1.03 * min(dims)
    counts = {problem.loss_function.count(problem.feed.parts["test"][-1]) for problem in found.values()}
    assert len({int(n) for n in counts}) == 1
    for parameters in (1000, 50_000):
        u = units_of(parameters, 24)
        assert abs(4 * u * (24 + u) + u * 24 - parameters) < 10 * u


def test_errors_are_one_sentence():
    with pytest.raises(ValueError, match="no kind is named 'gru'"):
        verse("couplets", "gru", **TINY)
    with pytest.raises(ValueError, match="takes no positions"):
        verse("couplets", "lstm", positions="rotary", **TINY)
    for name in ("chain", "digits", "opinions"):
        with pytest.raises(ValueError, match=f"{name} holds no poems"):
            verses(name)
