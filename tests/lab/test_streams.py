"""Losses along a text, shares of attention, answers and texts with drafts: each against one pass or a slow loop."""

from lab.speech import chosen_parts, costs, decoder_of, draft_of, spoken
from lab.streams import answered, buckets, clocked, losses, shares, stream
from nn.decoding import Copying, Decoder, Full, Greedy, Streaming, score
from nn.decoding.drafts import parts_of
from nn.language import gpt2, llama
from nn.layer import Run
from npopt.errors import UserError
from problems.corpora import Question
from problems.reading import Reader, trained

import numpy as np
import pytest

V, T = 9, 40


def reader(start=(), kind=llama, seed=0, length=T):
    network = kind(V, length, 16, 2, 2)
    rng = np.random.default_rng(seed)
    numbers = {c: i for i, c in enumerate("abcdefghi")}
    encode = lambda text: [numbers[c] for c in text if c in numbers]  # noqa: E731
    return Reader(network, 0.5 * rng.standard_normal(network.dim), encode, rng.integers(0, V, 500), start)


def test_losses_are_those_of_one_pass():
    one = reader()
    tokens = one.streams(3, 30, 1)
    found = losses(Decoder(one.network, one.x), tokens)
    np.testing.assert_allclose(found, -score(Decoder(one.network, one.x), tokens), atol=1e-10)
    behind = losses(Decoder(one.network, one.x), tokens, [4, 2])
    whole = np.concatenate([np.tile([4, 2], (3, 1)), tokens], axis=1)
    np.testing.assert_allclose(behind, -score(Decoder(one.network, one.x), whole)[:, 2:], atol=1e-10)


def test_streams_are_drawn_by_the_seed_and_cut_into_buckets():
    one = reader()
    a, b, c = (one.streams(4, 20, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    text = one.text.tolist()
    assert all(any(text[i : i + 20] == row.tolist() for i in range(480)) for row in a)
    assert buckets(25, 40) == [(0, 10), (10, 20), (20, 25)]
    found = stream(one, Streaming(2, 6), 2, 90, 0)
    assert found["position"] == [10, 20, 30, 40, 50, 60, 70, 80, 89] and np.isfinite(found["loss"]).all()
    with pytest.raises(UserError, match="longer than the text"):
        one.streams(1, 500, 0)


@pytest.mark.parametrize("kind", [llama, gpt2])
def test_shares_are_those_of_the_probabilities(kind):
    one = reader((3,), kind)
    first, four, keys = shares(one, 2, 12, 5)
    tokens = np.concatenate([np.full((2, 1), 3), one.streams(2, 11, 5)], axis=1)
    one.network.bind(one.x)
    x = one.network.layer.layers[0].forward(tokens, Run())[0]
    layer = one.network.layer.layers[1]
    if kind is gpt2:
        x = one.network.layer.layers[1].forward(x, Run())[0]
        layer = one.network.layer.layers[2]
    attention = layer.parts[0].f
    h = layer.parts[0].norm.forward(x, Run())[0]
    q, k = (
        (h @ part.W.T + (part.b if "b" in part.shapes else 0)).reshape(2, 12, 2, 8)
        for part in (attention.query, attention.key)
    )
    if kind is llama:
        attention.positions.turn(q)
        attention.positions.turn(k)
    shown = np.zeros((2, 6))
    for b in range(2):
        for head in range(2):
            for t in range(6, 12):
                s = k[b, : t + 1, head] @ q[b, t, head] / np.sqrt(8)
                p = np.exp(s - s.max()) / np.exp(s - s.max()).sum()
                shown[0, t - 6] += p[0] / 4
                shown[1, t - 6] += p[:4].sum() / 4
    assert first[0] == pytest.approx(shown[0].mean(), rel=1e-9) and four[0] == pytest.approx(shown[1].mean(), rel=1e-9)
    assert len(keys) == 2 and keys[0].shape == (2, 12, 2, 8)


def test_answers_are_those_of_the_likelihood():
    one = reader((1,))
    questions = [Question("abc", ("d", "eeg", "hh", "ia")), Question("b", ("fg", "a", "cde", "b"))]
    for context in ((), (5, 6, 7)):
        expected, by_byte = [], []
        for question in questions:
            sums = []
            for answer in question.answers:
                words = one.encode(answer)
                row = [1, *context, *one.encode(question.stem), *words]
                sums.append(score(Decoder(one.network, one.x), [row])[0, -len(words) :].sum())
            expected.append(int(np.argmax(sums)))
            by_byte.append(int(np.argmax([s / (1 + len(a)) for s, a in zip(sums, question.answers, strict=True)])))
        for right in ([0, 0], [2, 1], expected):
            found = answered(one, questions, right, Full(), context)
            assert found[0] == np.mean(np.equal(expected, right)) and found[1] == np.mean(np.equal(by_byte, right))


def test_bytes_grow_with_all_words_and_stay_with_a_window():
    full, some = (clocked(reader(), cache, 200, 50, 0) for cache in (Full(), Streaming(2, 10)))
    assert full["position"] == [50, 100, 150, 200] and full["bytes"][-1] > 2 * full["bytes"][0]
    assert len(set(some["bytes"])) == 1 and all(v > 0 for v in some["step_seconds"])


def test_texts_with_drafts_are_counted():
    one, other = reader(length=200), reader(seed=1, length=200)
    target, small = decoder_of(one), decoder_of(other)
    prompts = one.streams(2, 5, 0)
    itself = spoken(target, draft_of(("model", 3), target, target, one.text), prompts, 25, Greedy())
    assert itself["rate"] == [1.0] and itself["a pass"] == [4.0] and itself["same"] == [1.0]
    for kind in (
        ("model", 2),
        ("parts", ("layer1.feed",), 3),
        ("text", 1, 3),
        ("corpus", 400, 3, 9),
        ("cascade", (2, 2)),
    ):
        found = spoken(target, draft_of(kind, target, small, one.text), prompts, 25, Greedy())
        assert found["same"] == [1.0] and 0 <= found["rate"][0] <= 1 and found["seconds"][0] > 0
    assert draft_of(("text", 2, 5), target, small, None) == Copying(None, 2, 5)
    skip, rates = chosen_parts(target, prompts, 15, 2)
    assert len(set(skip)) == 2 and set(skip) <= set(parts_of(target)) and len(rates) == 2
    price = costs(target, small, prompts[0], 4)
    assert price["words"] == [1, 2, 3, 4] and price["pass"][0] == 1 and price["draft"][0] > 0


def test_a_reader_is_trained_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = (("features", 8), ("heads", 2), ("layers", 1), ("length", 8))
    one = trained.__wrapped__("chain", 12, 1e-2, options)
    files = list((tmp_path / "npopt" / "readers").iterdir())
    again = trained.__wrapped__("chain", 12, 1e-2, options)
    np.testing.assert_array_equal(one.x, again.x)
    assert (
        len(files) == 1 and files[0].stat().st_mtime == next((tmp_path / "npopt" / "readers").iterdir()).stat().st_mtime
    )
    assert len(one.text) == 8000 and one.length == 8
