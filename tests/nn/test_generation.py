"""Choices of words, texts and beams, beside slow loops from their definitions and enumerations of all texts."""

import itertools
import os
import pathlib

import nn
from nn import weights
from nn.decoding import Decoder, Greedy, Sample, beam, generate, generation, score, search
from nn.language import llama
from nn.layer import Run
from npopt import backend
from npopt.backend.draws import GOLDEN, MASK, key, mix
from npopt.errors import UserError
from problems.vocabulary import Scored

import numpy as np
import pytest
from scipy import stats
from test_decoding import T, Translator, parameters

THREADS = 1  # layers of a few numbers: tests/conftest.py

WEIGHTS = pathlib.Path(os.environ.get("NPOPT_DATA", "data")) / "weights"
V = 5


def decoder_of(seed=1, scale=0.6, length=16):
    """A small decoder whose next words are neither certain nor alike."""
    network = llama(V, length, 8, 2, 2, 12)
    return Decoder(network, scale * np.random.default_rng(seed).standard_normal(network.dim))


def logs_of(decoder, tokens):
    """log p of the next word at each position, from one pass over the whole text: (B, n, V)."""
    decoder.network.bind(decoder.x)
    z = decoder.network.layer.forward(np.asarray(tokens), Run())[0]
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


# ------------------------------------------------------------------------------------------------------------- choices
def slow(z, method, allowed):
    """The distribution of Sample for one row, from its definition."""
    words = [i for i in range(len(z)) if allowed is None or allowed[i]]
    top = max(z[i] for i in words)
    p = {i: np.exp((z[i] - top) / method.temperature) for i in words}
    ranked = sorted(p, key=lambda i: (-p[i], i))
    if method.top_k is not None:
        ranked = ranked[: method.top_k]
    if method.top_p is not None:
        total, kept = sum(p[i] for i in ranked), []
        for i in ranked:
            kept.append(i)
            if sum(p[j] for j in kept) >= method.top_p * total:
                break
        ranked = kept
    if method.min_p is not None:
        ranked = [i for i in ranked if p[i] >= method.min_p * p[ranked[0]]]
    total = sum(p[i] for i in ranked)
    return np.array([p[i] / total if i in ranked else 0.0 for i in range(len(z))])


@pytest.mark.parametrize("temperature", [0.3, 1, 2.5])
@pytest.mark.parametrize("top_k, top_p, min_p", [
    (None, None, None), (3, None, None), (None, 0.6, None), (None, None, 0.3), (4, 0.7, None), (6, None, 0.1),
    (None, 0.8, 0.2), (5, 0.9, 0.1), (99, 1.0, 0.0), (1, 0.0, 1.0),
])  # fmt: skip
def test_distributions_are_the_definitions(temperature, top_k, top_p, min_p, rng):
    method, z = Sample(temperature, top_k, top_p, min_p), rng.standard_normal((6, 9))
    z[0, [2, 5, 7]] = z[0].max()  # equal ones
    z[1] = 0.25
    z[2, 3:] = -np.inf
    masks = rng.random((6, 9)) < 0.5
    masks[:, 1] = True
    for allowed in (None, masks, masks[0]):
        expected = [slow(row, method, np.broadcast_to(allowed, z.shape)[b] if allowed is not None else None)
                    for b, row in enumerate(z)]  # fmt: skip
        np.testing.assert_allclose(method.probabilities(z, allowed), expected, rtol=1e-12, atol=1e-300)


def test_words_are_found_where_the_sum_exceeds_u(rng):
    method, z = Sample(0.8, top_k=6), rng.standard_normal((300, 9))
    p, u = method.probabilities(z), rng.random(300)
    expected = [next(i for i in range(9) if row[: i + 1].sum() > limit) for row, limit in zip(p, u, strict=True)]
    assert method(z, u).tolist() == expected
    likely = np.array([[0.0, 0.3, 0.0, 0.7, 0.0]])
    with np.errstate(divide="ignore"):
        z = np.log(likely)
    assert [int(Sample()(z, np.array([u]))[0]) for u in (1e-15, 0.299, 0.301, 1 - 1e-16, 1.0)] == [1, 1, 3, 3, 3]


def test_the_largest_logit_is_greedy_and_of_equal_ones_the_first(rng):
    z = np.array([[1.0, 3.0, 3.0, 2.0], [-np.inf, -5.0, -5.0, -5.0]])
    assert Greedy()(z).tolist() == [1, 1]
    assert Greedy()(z, allowed=np.array([True, False, True, True])).tolist() == [2, 2]
    assert Greedy().probabilities(z).tolist() == [[0, 1, 0, 0]] * 2
    for cold in (Sample(0), Sample(0, top_k=1, top_p=0.2)):
        assert cold(z, np.array([0.9, 0.9])).tolist() == [1, 1]
        assert cold.probabilities(z).tolist() == [[0, 1, 0, 0]] * 2
    exact = np.log([[0.25, 0.5, 0.25]])  # the smallest sum that is at least top_p
    for top_p, left in (
        (0.5, [0, 1, 0]),
        (0.51, [1 / 3, 2 / 3, 0]),
        (0.75, [1 / 3, 2 / 3, 0]),
        (0.76, [0.25, 0.5, 0.25]),
    ):
        np.testing.assert_allclose(Sample(top_p=top_p).probabilities(exact), [left], rtol=1e-12)
    assert Sample(top_p=0.0)(z, np.array([0.9, 0.9])).tolist() == [1, 1]
    assert Sample(2.0, min_p=0.5) == Sample(2.0, min_p=0.5) != Sample(2.0, min_p=0.4)


def test_where_nothing_can_be_chosen_one_sentence_says_so():
    z = np.zeros((2, 3))
    for call, message in (
        (lambda: Sample(-1), r"Sample: temperature must lie in \[0, inf\), got -1"),
        (lambda: Sample(top_k=0), "top_k must be a whole number of at least 1, got 0"),
        (lambda: Sample(top_p=1.5), r"top_p must lie in \[0, 1\]"),
        (lambda: Sample(min_p=-0.1), r"min_p must lie in \[0, 1\]"),
        (lambda: Greedy()(z, None, np.zeros(3, bool)), "nothing can be chosen for row 0: no word is allowed"),
        (lambda: Sample()(z, [0.5, 0.5], np.array([[True] * 3, [False] * 3])), "for row 1: no word is allowed"),
        (lambda: Sample()(np.full((2, 3), np.nan), [0.5, 0.5]), "for row 0: the largest logit is nan"),
        (lambda: Greedy()(np.array([[1.0, np.nan]])), "for row 0: the largest logit is nan"),
        (lambda: Greedy()(z, None, np.ones(4, bool)), r"allowed must be bool of shape \(3,\) or \(2, 3\), got bool"),
        (lambda: Greedy()(z, None, np.ones(3)), "got float64"),
    ):
        with pytest.raises(UserError, match=message):
            call()


# --------------------------------------------------------------------------------------------------------------- texts
def test_greedy_texts_are_those_of_whole_passes():
    decoder = decoder_of(seed=12)
    text = [3]
    while len(text) < 12:
        text.append(int(logs_of(decoder, [text])[0, -1].argmax()))
    assert generate(decoder, [3], 12).tolist() == text
    assert len(set(text[1:])) > 2
    assert [row.tolist() for row in generate(decoder, [[3], text[:5], text[:12]], 12)] == [text] * 3


def test_draws_are_functions_of_seed_stream_and_position():
    position, streams = 6, np.array([0, 3, 2**40])
    u = generation.uniforms(11, streams, position)
    k = key(11, "word", position)
    for found, stream in zip(u, streams.tolist(), strict=True):
        first, second = (mix((k + (2 * stream + j) * GOLDEN) & MASK) >> 41 for j in (1, 2))
        assert found == first * 2.0**-23 + (second + 0.5) * 2.0**-46
    assert 0 < u.min() and u.max() < 1


def test_a_text_is_made_again_from_any_place_alone_or_beside_others():
    decoder, choose = decoder_of(), Sample(1.3)
    texts = generate(decoder, [2], 14, choose, seed=4, rows=6)
    assert len({tuple(text.tolist()) for text in texts}) == 6
    again = generate(decoder, [2], 14, choose, seed=4, streams=[3])
    np.testing.assert_array_equal(again, texts[3])
    np.testing.assert_array_equal(generate(decoder, texts[3][:9], 14, choose, seed=4, streams=[3]), texts[3])
    mixed = generate(decoder, [texts[5][:4], texts[1][:9], texts[3][:1]], 14, choose, seed=4, streams=[5, 1, 3])
    for found, expected in zip(mixed, (texts[5], texts[1], texts[3]), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(generate(decoder, [2], 14, choose, seed=5, streams=[3]), texts[3])


def test_texts_are_as_frequent_as_their_probabilities_say():
    """20,000 texts of two words behind the prompt: chi-square over all 25, at the level 0.001 for a fixed seed."""
    decoder, choose, n = decoder_of(), Sample(1.5, top_k=4), 20_000
    texts = np.stack(generate(decoder, [1], 3, choose, seed=0, rows=n))
    p = np.zeros((V, V))
    first = choose.probabilities(logs_of(decoder, [[1]])[:, 0])[0]
    for i in range(V):
        p[i] = first[i] * choose.probabilities(logs_of(decoder, [[1, i]])[:, 1])[0]
    counts = np.zeros((V, V))
    np.add.at(counts, (texts[:, 1], texts[:, 2]), 1)
    possible = p > 0
    assert 10 < possible.sum() < V * V and not counts[~possible].any()
    distance = ((counts - n * p)[possible] ** 2 / (n * p)[possible]).sum()
    assert distance < stats.chi2.ppf(0.999, possible.sum() - 1)


def test_a_text_ends_behind_a_stop_that_is_not_of_its_prompt():
    decoder, choose = decoder_of(), Sample(1.5)
    free = generate(decoder, [2], 14, choose, seed=1, rows=8)
    found = generate(decoder, [2], 14, choose, seed=1, rows=8, stop=(2, 4))
    for text, longer in zip(found, free, strict=True):
        end = next((i + 1 for i in range(1, 14) if longer[i] in (2, 4)), 14)
        np.testing.assert_array_equal(text, longer[:end])
    assert {len(text) for text in found} > {2}
    assert generate(decoder, [4, 4], 2, stop=4).tolist() == [4, 4]
    prompts = [[2], [2, 4, 0, 4, 1]]  # the second one is still given words where the first one is chosen some
    for text, prompt in zip(generate(decoder, prompts, 9, choose, stop=4), prompts, strict=True):
        assert text[: len(prompt)].tolist() == prompt and 4 not in text[len(prompt) : -1]
        assert len(text) == 9 or text[-1] == 4 and len(text) > len(prompt)


def test_allowed_words_are_a_mask_or_a_function_of_the_texts():
    decoder = decoder_of()
    even = np.arange(V) % 2 == 0
    for choose in (Greedy(), Sample(2.0)):
        for text in generate(decoder, [1], 12, choose, rows=4, allowed=even):
            assert not (text[1:] % 2).any()
    seen = []

    def rises(position, texts):
        seen.append((position, texts.copy()))
        return None if position == 3 else np.arange(V) >= texts[:, -1:]  # no word is lower than the one before

    texts = generate(decoder, [[1], [2, 0, 0]], 7, Sample(2.0), allowed=rises, stop=4)
    assert [position for position, _ in seen] == list(range(1, 1 + len(seen)))
    for text, start in zip(texts, (1, 3), strict=True):
        assert all(text[i] >= text[i - 1] for i in range(max(start, 4), len(text)))
    for position, so_far in seen:
        assert so_far.shape == (2, position) and so_far[0, 0] == 1
    with pytest.raises(UserError, match="nothing can be chosen for row 1: no word is allowed"):
        generate(decoder, [1], 5, rows=2, allowed=lambda position, texts: np.array([[True] * V, [False] * V]))


def test_generate_says_what_it_wants():
    decoder = decoder_of()
    for call, message in (
        (lambda: generate(decoder, [], 5), "there is no prompt"),
        (lambda: generate(decoder, [[1], []], 5), "a prompt must be one or more whole numbers"),
        (lambda: generate(decoder, [0.5], 5), "a prompt must be one or more whole numbers"),
        (lambda: generate(decoder, [1, 2, 3], 2), "a prompt of 3 words is longer than the length 2"),
        (lambda: generate(decoder, [1], 5, stop=V), "5 of stop is not one of the 5 words"),
        (lambda: generate(decoder, [1], 5, streams=[1, 2]), "there are 1 texts, but 2 streams"),
        (lambda: beam(decoder, [[1]], 5, 2), "the words of one text"),
        (lambda: beam(decoder, [1], 5, 0), "width must be a whole number"),
        (lambda: beam(decoder, [1], 5, 2, -1), "length_penalty must lie in"),
        (lambda: beam(decoder, [1], 5, 2, allowed=np.zeros(V, bool)), "no text can go on at position 1"),
        (lambda: score(decoder, [[1]]), r"n >= 2, got int64 \(1, 1\)"),
        (lambda: score(decoder, [[1, V]]), "5 is not one of the 5 words"),
    ):
        with pytest.raises(UserError, match=message):
            call()


# --------------------------------------------------------------------------------------------------- scores and beams
def test_scores_are_log_probabilities_whatever_the_pieces(monkeypatch, rng):
    decoder, tokens = decoder_of(), rng.integers(0, V, (3, 11))
    logs = logs_of(decoder, tokens)
    expected = np.take_along_axis(logs[:, :-1], tokens[:, 1:, None], 2)[..., 0]
    for piece in (256, 10, 4, 1):
        monkeypatch.setattr(generation, "PIECE", piece)
        np.testing.assert_allclose(score(decoder, tokens), expected, rtol=1e-12, atol=1e-13)


def every_text(decoder, prompt, length, stop, alpha):
    """[(text, score)], best first, of all texts that end with a stop, or at the length."""
    found = []
    for n in range(1, length - len(prompt) + 1):
        for words in itertools.product(range(V), repeat=n):
            if any(word in stop for word in words[:-1]) or words[-1] not in stop and n < length - len(prompt):
                continue
            text = [*prompt, *words]
            logs = logs_of(decoder, [text])[0]
            total = sum(logs[i - 1, text[i]] for i in range(len(prompt), len(text)))
            found.append((text, total / n**alpha))
    return sorted(found, key=lambda pair: -pair[1])


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("stop", [(), (3,), (0, 2)])
def test_a_beam_as_wide_as_all_prefixes_finds_the_best_of_all_texts(stop, alpha):
    decoder, prompt = decoder_of(seed=3), [1, 4]
    expected = every_text(decoder, prompt, 5, stop, alpha)
    found = beam(decoder, prompt, 5, V**3, alpha, stop=stop)
    for (text, value), (right, total) in zip(found[:20], expected[:20], strict=True):
        assert text.tolist() == right and value == pytest.approx(total, rel=1e-12)
    assert len(found) == min(V**3, len(expected))


def test_of_equal_numbers_the_first_are_the_largest(rng):
    values = rng.integers(0, 6, 50).astype(float)
    values[::7] = -np.inf
    for count in (1, 5, 49, 50, 60):
        expected = sorted(range(50), key=lambda i: (-values[i], i))[:count]
        assert search.largest(values, count).tolist() == expected


def slow_beam(decoder, prompt, length, width, alpha, stop):
    """Beam search by whole passes over lists, up to the length: it never ends early."""
    beams, ended = [(list(prompt), 0.0)], []
    for position in range(len(prompt), length):
        more, n = [], (position + 1 - len(prompt)) ** alpha
        for text, total in beams:
            more += [([*text, word], total + value) for word, value in enumerate(logs_of(decoder, [text])[0, -1])]
        more.sort(key=lambda pair: -pair[1])
        ended += [(text, total / n) for text, total in more[:width] if text[-1] in stop]
        beams = [pair for pair in more if pair[0][-1] not in stop][:width]
    ended += [(text, total / n) for text, total in beams]
    return sorted(ended, key=lambda pair: -pair[1])[:width]


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("stop", [(), (3,), (0, 2)])
def test_beams_are_those_of_a_slow_loop(stop, alpha, width):
    for seed in range(6):
        decoder = decoder_of(seed, scale=0.4)
        found = beam(decoder, [2], 9, width, alpha, stop=stop)
        expected = slow_beam(decoder, [2], 9, width, alpha, stop)
        assert [text.tolist() for text, _ in found] == [text for text, _ in expected]
        np.testing.assert_allclose([value for _, value in found], [value for _, value in expected], rtol=1e-12)
        if width == 1 and not alpha:
            assert found[0][0].tolist() == generate(decoder, [2], 9, stop=stop).tolist()


def test_beams_keep_to_what_is_allowed_and_a_beam_without_a_next_word_dies():
    decoder = decoder_of()
    found = beam(decoder, [0], 6, 4, allowed=lambda position, texts: np.arange(V) > texts[:, -1:], stop=4)
    assert found and all((np.diff(text) > 0).all() and text[-1] == 4 for text, _ in found)
    best = max(
        ([0, *words, 4] for n in range(4) for words in itertools.combinations((1, 2, 3), n)),
        key=lambda text: score(decoder, [text]).sum(),
    )
    assert found[0][0].tolist() == best


def test_texts_about_a_memory_are_those_of_each_row_alone(rng):
    network = nn.Network(Translator("pre"), ((T,), (6, 5), (6,)))
    x, memory, keep = 0.5 * parameters(network), rng.standard_normal((3, 6, 5)), np.array([6, 2, 4])
    decoder, choose = Decoder(network, x), Sample(1.4)
    together = generate(decoder, [1], 9, choose, rows=3, memory=memory, keep=keep)
    assert len({tuple(text) for text in together}) == 3
    for b in range(3):
        own = dict(memory=memory[b : b + 1], keep=keep[b : b + 1])
        np.testing.assert_array_equal(generate(decoder, [1], 9, choose, streams=[b], **own), together[b])
        (best, value), *_ = beam(decoder, [1], 6, 300, **own)
        assert value == pytest.approx(score(decoder, best[None], **own).sum(), rel=1e-12)
        others = rng.integers(0, 7, (40, 6))
        others[:, 0] = 1
        many = {name: np.repeat(part, 40, axis=0) for name, part in own.items()}
        assert score(decoder, others, **many).sum(1).max() <= value
    with pytest.raises(UserError, match="there are 2 texts, but 2 streams and a state of 3 rows"):
        generate(decoder, [1], 9, rows=2, memory=memory)
    with pytest.raises(UserError, match="there is one text, but a memory of 3 rows"):
        beam(decoder, [1], 9, 2, memory=memory)


# ------------------------------------------------------------------------------------------------------ a real network
def test_the_small_model_tells_its_documented_story():
    """The text of llama2.c's readme, word by word with a cache; the beam's is likelier."""
    if not (WEIGHTS / "stories260K.bin").is_file():
        pytest.skip("stories260K.bin is not there")
    network, x = weights.llama2c(WEIGHTS / "stories260K.bin")
    tokenizer, decoder = Scored.from_file(WEIGHTS / "tok512.bin", 512), Decoder(network, x)
    text = generate(decoder, [1], 48)
    assert tokenizer.decode(text).startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she "
        "saw a big, red ball."
    )
    network.bind(x)
    for end in (1, 20, 47):
        assert int(network.layer.forward(text[None, :end], Run())[0][0, -1].argmax()) == text[end]
    (best, value), *_ = beam(decoder, text[:10], 48, 4)
    assert value >= score(decoder, text[None])[0, 9:].sum() - 1e-4
    assert value == pytest.approx(score(decoder, best[None])[0, 9:].sum(), abs=1e-3)


@pytest.mark.parametrize("choose", [Greedy(), Sample(1.2, top_p=0.9)])
def test_texts_come_from_every_device(choose, device):
    decoder, found = decoder_of(), []
    for where in ("cpu", device):
        backend.use(where)
        on_device = Decoder(decoder.network, backend.asarray(decoder.x))
        found.append(generate(on_device, [[1], [2, 3]], 12, choose, seed=2, stop=0))
        found[-1] += [text for text, _ in beam(on_device, [1], 8, 3)]
        found[-1] += list(score(on_device, np.array([[1, 2, 0, 4]])))
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)
