"""Drafts that are looked up: the compiled loops of nn/kernels/suffixes.py find what slow ones find, ties included."""

import collections

from nn.decoding import Copying, Datastore
from nn.kernels import suffixes

import numpy as np
import pytest


def texts(seed):
    """A corpus and ends of texts: of two to six words, so that most ends are there more than once."""
    rng = np.random.default_rng(seed)
    V, n = rng.integers(1, 7), rng.choice([0, 1, 3, 8, 40, 300])
    corpus = rng.integers(0, V, n) * 3 + 1  # not all numbers are words
    cut = [corpus[start : start + 9] for start in rng.integers(0, max(n, 1), 8)]  # the end of the corpus, too
    drawn = [rng.integers(0, 3 * V, size) for size in rng.integers(1, 9, 8)]
    return corpus, [end.tolist() for end in [*cut, *drawn, corpus[-4:]] if len(end)]


def starts_of(corpus, order, text, draft):
    """The places behind the longest end of the text, where a word follows, in the order of the suffix array."""
    for n in range(min(draft.longest, len(text)), draft.least - 1, -1):
        found = [i + n for i in order if tuple(corpus[i : i + n]) == tuple(text[-n:]) and i + n < len(corpus)]
        if found:
            return found[: draft.matches]
    return []


def slow_tree(corpus, starts, most, nodes):
    """(words, parents): all beginnings are counted."""
    counts = collections.Counter()
    for start in starts:
        words = tuple(corpus[start : start + most].tolist())
        counts.update(words[:n] for n in range(1, len(words) + 1))
    best = sorted(counts, key=lambda words: (-counts[words], len(words), words))[:nodes]
    number = {words: i for i, words in enumerate(best)}
    return [words[-1] for words in best], [number.get(words[:-1], -1) for words in best]


def slow_path(corpus, starts, most):
    """The word that most of the places have that agree so far."""
    words, starts = [], np.array(starts, int)
    while len(starts) and len(words) < most:
        found = corpus[starts]
        words.append(int(np.bincount(found).argmax()))
        starts = starts[found == words[-1]] + 1
        starts = starts[starts < len(corpus)]
    return words


@pytest.mark.parametrize("seed", range(30))
def test_suffixes_are_in_order(seed):
    corpus, _ = texts(seed)
    for words in (corpus, corpus % 2, corpus[::-1].copy()):
        expected = sorted(range(len(words)), key=lambda i, w=words: tuple(w[i:]))
        assert Datastore(words).order.tolist() == expected


@pytest.mark.parametrize("matches", [1, 2, 7, 5000])
@pytest.mark.parametrize("seed", range(30))
def test_a_datastore_drafts_what_counting_gives(seed, matches):
    corpus, ends = texts(seed)
    rng, found = np.random.default_rng(seed + 1000), 0
    for text in ends:
        least = rng.integers(1, 4)
        given = dict(longest=least + rng.integers(0, 6), least=least, matches=matches, k=rng.integers(1, 7))
        nodes, most = rng.integers(2, 20), rng.integers(0, 8)
        path, tree = Datastore(corpus, nodes=1, **given), Datastore(corpus, nodes=nodes, **given)
        starts = starts_of(corpus, path.order, text, path) if most else []
        count = min(path.k, most)
        assert path.start(None, None, None, 0).propose(text, most) == (slow_path(corpus, starts, count), None)
        words, above = tree.start(None, None, None, 0).propose(text, most)
        expected, parents = slow_tree(corpus, starts, count, nodes)
        assert words == expected and (above is None if not starts else above.parents.tolist() == parents)
        found += len(words)
    assert found or len(corpus) < 40


def slow_place(source, text, least, most):
    """Each length and each place is tried."""
    source, text = list(source), list(text)
    for n in range(min(most, len(text)), least - 1, -1):
        for place in range(n, len(source)):
            if source[place - n : place] == text[-n:]:
                return place
    return None


@pytest.mark.parametrize("seed", range(30))
def test_the_longest_end_is_copied(seed):
    corpus, ends = texts(seed)
    for least, most in ((1, 8), (2, 3), (3, 2), (1, 1)):
        drafter = Copying(corpus, least, 5, most).start(None, None, None, 0)
        for text in ends:
            place = slow_place(corpus, text, least, most)
            expected = [] if place is None else corpus[place : place + 5].tolist()
            assert drafter.propose(text, 9) == (expected, None)
            drafter.told([], 0, 0)  # another text comes


def test_the_text_itself_is_copied_as_it_grows():
    """Words that did not stand are taken back, past what there was room for at first."""
    rng = np.random.default_rng(0)
    drafter, text = Copying(least=1, k=4).start(None, None, None, 0), [1, 2]
    for _ in range(300):
        longer = [*text, *rng.integers(0, 3, rng.integers(0, 4)).tolist()]
        for so_far in (text, longer):
            place = slow_place(so_far, so_far, 1, 8)
            expected = [] if place is None else so_far[place : place + 4]
            assert drafter.propose(so_far, 9) == (expected, None)
        drafter.told(text, 0, 0)
        text = [*text, *rng.integers(0, 3, 2).tolist()]
        drafter.told(text, 0, 0)


def test_which_of_several_places_is_copied():
    def place(source, text):
        return suffixes.agreement(np.array(source), np.array(text), 1, 8)

    assert place([1, 2, 3, 1, 2, 4], [9, 1, 2]) == 2  # the first of the two
    assert place([1, 2, 3, 9, 1, 2, 4], [9, 1, 2]) == 6  # the longer one
    assert place([1, 2], [0, 1, 2]) == -1  # nothing follows
    assert place([5, 6], [7]) == -1


def test_a_datastore_follows_what_followed_most_often():
    corpus = [1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 0, 5, 1, 2, 3, 4]
    draft = Datastore(corpus, 4, 2, k=3, nodes=1)
    drafter = draft.start(None, None, None, 0)
    assert draft.start(None, None, None, 1).order is drafter.order  # made once
    assert drafter.propose([9, 1, 2], 5) == ([3, 4, 1], None)
    assert drafter.propose([0, 5, 1, 2], 5) == ([3, 4], None)  # the one place of the longest end
    assert drafter.propose([7, 7], 5) == ([], None)
    assert drafter.propose([1, 2], 1) == ([3], None)


def test_the_trie_of_a_datastore():
    corpus = [1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 0, 5, 1, 2, 3, 4]
    words, above = Datastore(corpus, 4, 2, k=2, nodes=4).start(None, None, None, 0).propose([9, 1, 2], 5)
    # 3 follows three times, 3 4 twice, 0, 0 5 and 3 5 once
    assert (words, above.parents.tolist()) == ([3, 4, 0, 5], [-1, 0, -1, 2])
    assert Datastore(corpus, 4, 2, k=2, nodes=4).start(None, None, None, 0).propose([1, 2], 1)[0] == [3, 0]
