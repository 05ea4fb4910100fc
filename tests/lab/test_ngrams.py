"""What `poems` measures: laws of n-grams, mixtures of them, gradients by depth."""

from lab.verse import Counts, contexts, last_gradients, mixed, ngrams, tones_and_rhymes
from problems import couplets as drawn
from problems.datasets import load
from problems.vocabulary import START

import numpy as np


def test_laws_sum_to_one_and_are_their_counts(rng):
    before, words = rng.integers(0, 4, 200).tolist(), rng.integers(0, 7, 200)
    law = Counts(before, words, 7)
    for context in (0, 3, 99):
        p = law([context] * 7, np.arange(7), mass=2.0)
        assert abs(p.sum() - 1) < 1e-12
        here = [w for b, w in zip(before, words.tolist(), strict=True) if b == context]
        expected = [(here.count(w) + 2 * law.plain[w]) / (len(here) + 2) for w in range(7)]
        np.testing.assert_allclose(p, expected, rtol=1e-12)
    assert abs(law.plain.sum() - 1) < 1e-12
    fits = {mass: np.log(law(before[:50], words[:50], mass)).sum() for mass in Counts.MASSES}
    assert law.fitted(before[:50], words[:50]).mass == max(fits, key=fits.get)
    np.testing.assert_array_equal(law(before, words), law(before, words, law.mass))


def test_contexts_of_a_couplet():
    found, words = contexts([(np.array([5, 6]), np.array([7, 8])), (np.array([4]), np.array([9]))])
    assert words.tolist() == [7, 8, 9] and found["bigram"] == [START, 7, START] and found["aligned"] == [5, 6, 4]
    assert found["place"] == [20, 21, 10] and found["aligned, place"] == [(5, 20), (6, 21), (4, 10)]
    assert found["aligned, bigram"] == [(5, START), (6, 7), (4, START)]


def test_mixtures_are_the_best_ones(rng):
    laws = rng.random((3, 500))
    weights = mixed(laws, rounds=500)
    assert abs(weights.sum() - 1) < 1e-12
    value = np.log(weights @ laws).sum()
    for other in rng.dirichlet(np.ones(3), 200):
        assert np.log(other @ laws).sum() <= value + 1e-9


def test_ngrams_lie_between_the_rules_and_the_alphabet():
    found = ngrams(0, None, data="couplets", rows=500, least=1, held=300)
    floor = drawn.floor(load("couplets").test)
    assert floor < found["mixture"][0] <= 1.001 * min(v[0] for v in found.values()) < 40
    assert found["aligned"][0] < found["unigram"][0]


def test_tones_and_rhymes_of_drawn_poems():
    found = tones_and_rhymes(0, None, data="couplets", groups=6, least=5, bins=4)
    pairs = np.array(found["pairs"][0]).reshape(6, 6)
    np.testing.assert_array_equal(pairs, np.diag(np.diag(pairs)))
    assert pairs.sum() == 2 * 250 and found["rhymed"] == [1.0] and found["named"] == [0.0]
    assert abs(sum(found["tone_shares"][0]) - 1) < 1e-12 and max(found["tone_shares"][0][1:3]) == 0


def test_gradients_at_the_start_by_depth():
    """Norms before the parts: the last gradient falls with the depth; behind the sums it does not (Xiong et al.)."""
    some = dict(data="couplets", rows=200, least=1, depths=(1, 4), features=16, batch=32)
    pre, post = (last_gradients(1, None, place=place, **some)["norm"] for place in ("pre", "post"))
    assert pre[1] < 0.75 * pre[0] and post[1] > 0.8 * post[0]
