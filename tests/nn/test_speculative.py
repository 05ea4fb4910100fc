"""Speculative decoding: the texts are the target's, drawn or greedy, whoever drafts; counts are those of formulas."""

import itertools

from nn.decoding import (
    KIVI,
    Cascade,
    Copying,
    Datastore,
    Decoder,
    Greedy,
    Model,
    Paged,
    Sample,
    Skipping,
    Streaming,
    generate,
    speculate,
)
from nn.decoding.drafts import parts_of
from nn.decoding.speculative import judge, judge_greedily, judge_tree
from nn.language import gpt2, llama
from npopt.errors import UserError

import numpy as np
import pytest

THREADS = 1  # layers of a few numbers: tests/conftest.py

V, D, T = 6, 16, 48


def decoder(seed=0, kind=llama, layers=2, scale=0.6, cache=None, words=V):
    network = kind(words, 4 * T, D, layers, 2)
    x = np.random.default_rng(seed).standard_normal(network.dim) * scale
    return Decoder(network, x, cache)


def near(of, by=0.05, seed=1, cache=None):
    """A draft that is nearly the target."""
    return Decoder(of.network, of.x + by * np.random.default_rng(seed).standard_normal(of.x.size), cache)


CORPUS = np.random.default_rng(7).integers(0, V, 400)
DRAFTS = {
    "itself": lambda target: Model(target, 3),
    "near": lambda target: Model(near(target), 4),
    "another": lambda target: Model(decoder(5, gpt2, 1), 2),
    "parts": lambda target: Skipping(["layer1.feed", "layer2.attention"], 5, 0.1),
    "all parts": lambda target: Skipping(sorted(parts_of(target)), 3, 0.0),
    "look-up": lambda target: Copying(least=1, k=4),
    "reference": lambda target: Copying(generate(target, [1, 2], 30).tolist(), 2, 6),
    "corpus": lambda target: Datastore(CORPUS, 5, 1, k=4, nodes=1),
    "tree": lambda target: Datastore(CORPUS, 5, 1, k=4, nodes=12),
    "cascade": lambda target: Cascade([Model(near(target)), Copying()], [4, 2]),
    "three": lambda target: Cascade([Model(near(target)), Model(decoder(5, gpt2, 1)), Copying()], [3, 2, 2], 3.0),
    "never right": lambda target: Model(Decoder(target.network, -target.x), 3),
}


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("prompt", [[3], [1, 2, 0, 5]])
def test_greedy_texts_are_those_of_the_target(name, prompt):
    for seed in range(3):
        target = decoder(seed)
        expected = generate(target, prompt, T)
        speech = speculate(target, prompt, T, DRAFTS[name](target))
        np.testing.assert_array_equal(speech.words, expected)
        assert sum(given for given, _ in speech.lengths) >= T - len(prompt) and speech.accepted <= speech.drafted
        if name == "itself":
            assert speech.rate == 1 and speech.passes == -(-(T - len(prompt)) // 4)
        if name == "reference" and prompt == [1, 2]:
            assert speech.passes < T / 3


@pytest.mark.parametrize("stop", [2, (0, 4)])
def test_a_text_ends_behind_a_stop(stop):
    for seed in range(4):
        target = decoder(seed)
        expected = generate(target, [1], T, stop=stop)
        for name in ("near", "parts", "look-up"):
            np.testing.assert_array_equal(speculate(target, [1], T, DRAFTS[name](target), stop=stop).words, expected)


@pytest.mark.parametrize("cache", [Paged(4), Streaming(2, 8)], ids=repr)
def test_with_other_caches(cache):
    target = decoder(2, cache=cache)
    expected = generate(target, [1, 4], T)
    for name in ("look-up", "parts", "never right"):
        np.testing.assert_array_equal(speculate(target, [1, 4], T, DRAFTS[name](target)).words, expected)


def test_words_that_do_not_stand_are_not_rounded():
    """KIVI rounds when the next word comes: a rejected one, at the end of a residual, is gone by then."""
    target = decoder(2, cache=KIVI(8, 8, 16))
    for name in ("never right", "parts", "look-up"):
        assert len(speculate(target, [1, 4], 180, DRAFTS[name](target)).words) == 180


# ------------------------------------------------------------------------------------------------------------- its law
def chi_square(counts, p):
    """The statistic over cells with p > 0; it has their number - 1 degrees of freedom."""
    there = p > 0
    assert not counts[~there].any()
    expected = counts.sum() * p[there]
    return ((counts[there] - expected) ** 2 / expected).sum(), there.sum() - 1


def bound(freedom):
    """Chi-square is above it with probability 1e-4 or so: Wilson & Hilferty."""
    return freedom * (1 - 2 / (9 * freedom) + 3.8 * (2 / (9 * freedom)) ** 0.5) ** 3


@pytest.mark.parametrize("samples", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("drawn", ["words", "nothing"])
def test_a_judged_word_has_the_law_of_the_target(drawn, samples):
    """Samples of one place, with draws of NumPy."""
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.ones(5), 2), rng.dirichlet(np.ones(5))
    p[0, 1] = 0
    p[0] /= p[0].sum()
    counts, after = np.zeros(5), np.zeros(5)
    for u in rng.random((samples, 5)):
        word = int(np.searchsorted(np.cumsum(q), u[0])) if drawn == "words" else 2
        pairs = u[1:].reshape(2, 2)
        count, behind = judge(p, [word], q[None] if drawn == "words" else None, lambda i, pairs=pairs: pairs[i])
        counts[word if count else behind] += 1
        if count:
            after[behind] += 1
    statistic, freedom = chi_square(counts, p[0])
    assert statistic < bound(freedom)
    assert chi_square(after, p[1])[0] < bound(4)
    if drawn == "words":
        assert after.sum() / samples == pytest.approx(np.minimum(p[0], q).sum(), abs=2 / np.sqrt(samples))


def test_greedy_words_are_judged_without_draws():
    """The same as by probabilities that are 0 or 1, whatever the draws."""
    rng = np.random.default_rng(2)
    for _ in range(300):
        k = int(rng.integers(0, 9))
        best, words = rng.integers(0, 3, k + 1), rng.integers(0, 3, k).tolist()
        path, word = judge_greedily(best, words)
        assert (len(path), word) == judge(np.eye(3)[best], words, None, lambda i: rng.random(2))
        assert path == list(range(len(path)))
        parents = [int(rng.integers(-1, i)) if i else -1 for i in range(k)]
        assert judge_greedily(best, words, parents) == judge_tree(
            np.eye(3)[best], words, parents, lambda i: rng.random(2)
        )


def law(target, prompt, n, choose):
    """{text: probability} of all texts of n words behind a prompt."""
    found = {}
    for words in itertools.product(range(V), repeat=n):
        state = target.start()
        logits = state.append([[*prompt, *words[:-1]]], every=True)[0, len(prompt) - 1 :]
        found[words] = float(np.prod(choose.probabilities(logits)[np.arange(n), words]))
    return found


@pytest.mark.parametrize("name", ["near", "another", "parts", "look-up", "corpus", "tree"])
@pytest.mark.parametrize("choose", [Sample(0.8), pytest.param(Sample(1.2, top_k=3), marks=pytest.mark.slow)], ids=repr)
def test_drawn_texts_have_the_law_of_the_target(name, choose):
    target, prompt = decoder(4), [1, 2, 1]
    expected = law(target, prompt, 3, choose)
    counts, order = np.zeros(len(expected)), {text: i for i, text in enumerate(expected)}
    draft = DRAFTS[name](target)
    for seed in range(700):
        words = speculate(target, prompt, 6, draft, choose, seed).words
        counts[order[tuple(map(int, words[3:]))]] += 1
    p = np.array(list(expected.values()))
    small = p * 700 < 5  # cells that are too small go together
    counts, p = (np.append(a[~small], a[small].sum()) for a in (counts, p))
    statistic, freedom = chi_square(counts, p)
    assert statistic < bound(freedom)


def test_words_a_pass_are_those_of_the_formula():
    """A draft that is right with probability a, whatever came before: judge with q = p but for one word."""
    rng, a, k = np.random.default_rng(5), 0.7, 4
    p = np.tile([a, 1 - a], (k + 1, 1))
    lengths = []
    for _ in range(20_000):
        draws = rng.random((k + 1, 2))
        count, _ = judge(p, [0] * k, None, lambda i, draws=draws: draws[i])
        lengths.append(count + 1)
    assert np.mean(lengths) == pytest.approx((1 - a ** (k + 1)) / (1 - a), abs=4 * np.std(lengths) / 141)


# -------------------------------------------------------------------------------------------------------------- drafts
@pytest.mark.parametrize("kind", [llama, gpt2])
@pytest.mark.parametrize("cache", [None, Paged(3)], ids=repr)
@pytest.mark.parametrize("before", [[], [2, 0, 4, 1, 3]], ids=len)
def test_a_tree_gives_the_logits_of_each_of_its_paths(kind, cache, before):
    target = decoder(3, kind, cache=cache)
    words, parents = [1, 2, 3, 1, 5, 0, 2], [-1, 0, 0, 1, -1, 4, 3]
    state = target.start()
    if before:
        state.append([before])
    found = state.append_tree(words, parents)
    for i in range(7):
        path, at = [], i
        while at >= 0:
            path, at = [words[at], *path], parents[at]
        other = target.start()
        expected = other.append([[*before, *path]])[0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-10, atol=1e-10)
    assert state.length == len(before)
    state.choose_path([0, 1, 3])
    other = target.start()
    other.append([[*before, 1, 2, 1]])
    for word in (4, 2):
        np.testing.assert_allclose(state.append([[word]]), other.append([[word]]), rtol=1e-10, atol=1e-10)


def test_trees_that_cannot_be():
    state = decoder(0).start()
    with pytest.raises(UserError, match="word 1 has the parent 1"):
        state.append_tree([1, 2], [-1, 1])
    with pytest.raises(UserError, match="one text and a parent"):
        state.append_tree([1, 2], [-1])
    with pytest.raises(UserError, match="wants a Full or Paged cache"):
        decoder(0, cache=Streaming(2, 4)).start().append_tree([1], [-1])


def test_the_threshold_of_draft_and_verify():
    target = decoder(0)
    drafter = Skipping(["layer1.feed"], 8, 0.8, 0.9).start(target, target.start(), Greedy(), 0)
    share, least = 0.9, 0.8
    for accepted, drafted in ((1, 4), (4, 4), (0, 0), (8, 8), (8, 8), (8, 8), (8, 8)):
        drafter.told([], accepted, drafted)
        if drafted:
            share = 0.5 * share + 0.5 * accepted / drafted
            least = 0.9 * least + 0.1 * (least + (0.01 if share < 0.9 else -0.01))
        assert drafter.least == pytest.approx(least) and drafter.share == pytest.approx(share)


def test_a_draft_ends_behind_an_unlikely_word():
    """With Greedy(), too: the draft's own softmax counts."""
    target, text = decoder(0), [1, 2, 0, 5]
    for least in (0.0, 0.3, 0.6, 1.0):
        state = target.start()
        state.append([text[:-1]])
        words, q = Skipping(["layer1.feed"], 8, least).start(target, state, Greedy(), 0).propose(text, 8)
        assert q is None and state.length == 3
        with state.without([parts_of(target)["layer1.feed"]]):
            z = state.append([[5, *words]], every=True)[0, : len(words)]
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        assert words == p.argmax(1).tolist()
        unlikely = np.flatnonzero(p.max(1) < least)
        assert len(words) == (unlikely[0] + 1 if len(unlikely) else 8)
        assert len(unlikely) or least < 0.5


def test_parts_that_are_left_out_are_sums_without_them():
    target = decoder(1)
    state, tokens = target.start(), np.array([[1, 2, 3, 4]])
    with state.without([parts_of(target)[path] for path in sorted(parts_of(target))]):
        found = state.append(tokens, every=True)
    embed, *_, norm, head = target.network.layer.layers
    target.network.bind(target.x)
    h = embed.W[tokens]
    h = h / np.sqrt((h**2).mean(-1, keepdims=True) + norm.eps) * norm.a
    np.testing.assert_allclose(found, h @ head.W.T, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: speculate(decoder(), [1], 9, Model(decoder(words=9))), "the draft knows 9 words, the target 6"),
        (lambda: speculate(decoder(), [1], 9, Skipping(["layer9.feed"])), "no part is named 'layer9.feed'"),
        (lambda: speculate(decoder(), [[1], [2]], 9, Copying()), "the words of one text"),
        (lambda: Cascade([Copying()], [1, 2]), "1 drafts have 2 numbers"),
        (lambda: Cascade([Copying(), Copying()], [1, 2]), "must be Models"),
        (lambda: speculate(decoder(), [1], 9, Cascade([Copying()], [2]), Sample()), "take choose=Greedy"),
        (lambda: Skipping([], least=2), "least"),
    ],
)
def test_wrong_arguments(wrong, says):
    with pytest.raises(UserError, match=says):
        wrong()
