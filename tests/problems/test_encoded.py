"""Texts with labels and texts with gaps as feeds, drawn corpora, and an encoder that learns from both."""

import collections
import re

import nn
from nn.language import bert, classified
from npopt import SGD, RandomReshuffling, Stop, backend, gradcheck, minimize
from npopt.identity import of_problem
from problems import drawn, encoders, files, load
from problems.encoded import Labelled, Masked
from problems.neural import Neural

import numpy as np
import pytest
import sklearn.metrics

LENGTH, WORDS, GAP = 7, 20, 4


def texts(n=12, seed=1):
    """Texts that begin with word 1, of words 5 to 19."""
    rng = np.random.default_rng(seed)
    return [np.array([1, *rng.integers(5, WORDS, rng.integers(1, 9))]) for _ in range(n)]


def placed(feed, head="words", loss=None, dtype="float64"):
    network = bert(WORDS, LENGTH, 4, 1, 2, head=head, init=nn.init.Normal(0.5))
    return Neural(network, feed, loss or nn.SoftmaxCrossEntropy(over="positions"), dtype=dtype)


def gaps(**more):
    return Masked(texts(), LENGTH, GAP, (5, WORDS), validation=texts(5, 2), **more)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Encoders are kept in a folder of the test."""
    monkeypatch.setattr(files, "cache", lambda: tmp_path)


# ------------------------------------------------------------------------------------------------------------ feeds
def test_gaps_are_those_of_a_loop_over_words():
    feed = gaps(share=0.4)
    placed(feed)
    rows, (seed, t) = np.array([3, 0, 3, 11]), (5, 8)
    (ids, keep), targets = feed.batch("train", rows, (seed, t))
    u = backend.row_uniform(backend.key(seed, "masked", t), rows, np.empty((4, 3 * LENGTH)))
    for b, row in enumerate(rows):
        text = texts()[row]
        for i in range(LENGTH):
            word = text[i] if i < len(text) else 0
            assert keep[b, i] == (i < len(text))
            if word >= 5 and u[b, i] < 0.4:
                how = u[b, LENGTH + i]
                other = 5 + int(u[b, 2 * LENGTH + i] * 15)
                assert (ids[b, i], targets[b, i]) == (GAP if how < 0.8 else word if how < 0.9 else other, word)
            else:
                assert (ids[b, i], targets[b, i]) == (word, -1)
    np.testing.assert_array_equal(ids[0], ids[2])


def test_gaps_change_with_step_and_seed_and_stay_in_evaluation():
    feed = gaps(share=0.5)
    placed(feed)
    first, *others = (feed.batch("train", np.arange(12), draw)[1] for draw in ((0, 0), (0, 1), (1, 0), None))
    assert all((first != other).any() for other in others)
    np.testing.assert_array_equal(feed.batch("train")[1], others[-1])
    np.testing.assert_array_equal(feed.batch("train", np.array([7]))[0][0], feed.batch("train")[0][0][7:8])
    assert (feed.batch("train", np.arange(5))[1] >= 0).tolist() != (feed.batch("validation")[1] >= 0).tolist()


def test_of_the_chosen_words_eight_tenths_are_gaps_and_a_tenth_is_drawn():
    """n words: shares within four standard deviations."""
    rng = np.random.default_rng(0)
    feed = Masked([np.array([1, *rng.integers(5, WORDS, 99)]) for _ in range(400)], 100, GAP, (5, WORDS))
    feed.place(bert(WORDS, 100, 4, 1, 2, head="words"), nn.SoftmaxCrossEntropy(), "float32")
    (ids, _), t = feed.batch("train", None, (0, 3))
    chosen, n = t >= 0, 400 * 99
    assert abs(chosen.mean() * 400 * 100 / n - 0.15) < 4 * np.sqrt(0.15 * 0.85 / n)
    assert not chosen[:, 0].any() and (ids[~chosen] != GAP).all()
    total, drawn_ones = chosen.sum(), (ids != t) & (ids != GAP) & chosen
    for found, share in ((ids[chosen] == GAP, 0.8), (drawn_ones[chosen], 0.1 * 14 / 15)):  # 1 in 15 draws the word
        assert abs(found.mean() - share) < 4 * np.sqrt(share * (1 - share) / total)
    counts = np.bincount(ids[drawn_ones], minlength=WORDS)[5:]
    assert np.abs(counts - counts.mean()).max() < 4 * np.sqrt(counts.mean()) and counts.sum() == drawn_ones.sum()


def test_labels_stand_beside_padded_texts():
    y = np.array([[True, False], [False, False]])
    feed = Labelled(([[1, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8]], y), LENGTH, test=([[9]], y[:1]), pad=3)
    ids, keep, labels = feed.tables["train"]
    np.testing.assert_array_equal(ids, [[1, 6, 7, 3, 3, 3, 3], [1, 2, 3, 4, 5, 6, 7]])
    np.testing.assert_array_equal(keep, [[True] * 3 + [False] * 4, [True] * 7])
    assert labels is y and feed.count("test") == 1 and set(feed.tables) == {"train", "test"}


@pytest.mark.parametrize("kind", ["gaps", "first", "mean"])
def test_gradients_through_the_encoder(kind, rng):
    if kind == "gaps":
        problem = placed(gaps(share=0.5))
    else:
        y = rng.integers(0, 3, 12) if kind == "first" else rng.random((12, 3)) < 0.4
        loss = nn.SoftmaxCrossEntropy() if kind == "first" else nn.BinaryCrossEntropy(mean=True)
        start = nn.init.Normal(0.5)
        network = classified(bert(WORDS, LENGTH, 4, 1, 2, init=start), 3, pool=kind, init=start)
        problem = Neural(network, Labelled((texts(), y), LENGTH), loss, dtype="float64")
    problem.begin(4)
    report = gradcheck(problem, problem.x0(rng), np.array([2, 5, 2, 0]))
    assert report.ok, str(report)


def test_the_mean_is_of_the_words_that_are_there(rng):
    """The head by hand, on the vectors of the encoder alone; longer encoders take shorter rows."""
    encoder = bert(WORDS, LENGTH + 3, 4, 1, 2, init=nn.init.Normal(0.5))
    network = classified(encoder, 3, LENGTH, pool="mean", init=nn.init.Normal(0.5))
    feed = Labelled((texts(), np.zeros(12, int)), LENGTH)
    problem, (ids, keep, _) = Neural(network, feed, dtype="float64"), feed.tables["train"]
    x = problem.x0(rng)
    found = problem.outputs(x, "train")
    vectors = dict(network.layer.children())["encoder"].encoder.forward((ids, keep), nn.Run())[0]
    view = {name: problem.segments.view(x, name) for name in problem.segments.names}
    for row in range(12):
        y = np.mean([vectors[row, t] for t in range(LENGTH) if keep[row, t]], axis=0)
        h = np.tanh(view["pooler.W"] @ y + view["pooler.b"])
        np.testing.assert_allclose(found[row], view["head.W"] @ h + view["head.b"], rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match='pool must be "first" or "mean"'):
        classified(encoder, 3, pool="last")


def test_feeds_of_encoders_on_a_device(device):
    found, y = [], np.arange(24).reshape(12, 2) % 3 > 0
    for where in ("cpu", device):
        backend.use(where)
        labelled = Labelled((texts(), y), LENGTH, validation=(texts(5, 2), y[:5]))
        mean = Neural(classified(bert(WORDS, LENGTH, 4, 1, 2), 2, pool="mean"), labelled, dtype="float64",
                      loss=nn.BinaryCrossEntropy(mean=True))  # fmt: skip
        for problem in (placed(gaps()), mean):
            x = problem.x0(np.random.default_rng(0))
            g, rows = backend.zeros(x.shape, "float64"), backend.asarray(np.array([1, 4, 1]))
            problem.begin(2)
            loss = problem.value_and_gradient(x, rows, None, g)
            found.append([backend.to_host(loss), backend.to_host(g), *problem.metrics(x).values()])
    for ours, theirs in zip(found[0] + found[1], found[2] + found[3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


def test_what_does_not_fit_gets_one_sentence():
    with pytest.raises(ValueError, match=r"Masked: text 1 is empty; begin each text with a word such as \[CLS\]"):
        Masked([[1, 2], []], LENGTH, GAP, (5, WORDS))
    with pytest.raises(ValueError, match=r"drawn is \(low, high\), words low to high - 1, got \(5, 5\)"):
        Masked([[1, 2]], LENGTH, GAP, (5, 5))
    with pytest.raises(ValueError, match="Labelled: 2 texts have 1 labels"):
        Labelled(([[1], [2]], np.zeros(1)), LENGTH)


# ---------------------------------------------------------------------------------------------------------- corpora
def test_opinions_are_what_their_grammar_says():
    found = load("opinions")
    for text, label in zip(found.train, found.y_train, strict=True):
        clauses = re.split(" (and|but) ", text)
        said = [(bool(set(c.split()) & set(drawn.PRAISE.split()))) ^ (" not " in c) for c in clauses[::2]]
        assert said[-1] == label
        assert len(said) == 1 or (said[0] == said[1]) == (clauses[1] == "and")
    assert [len(part) for part in (found.train, found.validation, found.test)] == list(drawn.SIZES)
    assert 0.45 < found.y_train.mean() < 0.55 and not set(drawn.PRAISE.split()) & set(drawn.BLAME.split())


def test_moods_are_those_whose_words_occur():
    found, words = load("moods"), [set(group.split()) for group in drawn.MOODS.values()]
    for text, labels in zip(found.test, found.y_test, strict=True):
        assert [bool(set(text.split()) & group) for group in words] == labels.tolist()
    assert found.y_train.shape == (1200, 6) and found.classes == tuple(drawn.MOODS) and not found.y_test.all(1).any()
    assert len(set.union(*words)) == sum(map(len, words)) and load("moods").sha256 == found.sha256


# ---------------------------------------------------------------------------------------------------------- encoder
TINY = dict(size=300, length=12, features=8, layers=1, heads=2)
SOME = dict(rate=1e-3, passes=0.2, rows=64, held=20, test_rows=30)


def tiny(data="opinions", start="learned", **more):
    beside = "moods" if data == "opinions" else "opinions"
    return encoders.finetuned(data, beside, start, **TINY, **SOME, **more)


def test_labels_begin_where_gaps_have_ended_with_another_head_for_each_seed():
    problem, scratch, other = tiny(), tiny(start="scratch"), tiny("moods")
    run, gaps = encoders.learned("moods", "opinions", 1e-3, 0.2, tuple(sorted(TINY.items())))
    one, two = (problem.x0(backend.generator(seed, "x0")) for seed in (0, 1))
    for segment in problem.segments:
        views = [problem.segments.view(x, segment.name) for x in (one, two)]
        inside = segment.name.startswith("encoder.")
        assert np.array_equal(*views) == (inside or segment.kind in ("bias", "norm"))
        if inside:
            np.testing.assert_array_equal(views[0], gaps.segments.view(run.x, segment.name))
    assert not np.array_equal(scratch.x0(backend.generator(0, "x0")), one)
    assert of_problem(problem) != of_problem(scratch)
    np.testing.assert_array_equal(other.first["encoder.embed.W"], problem.first["encoder.embed.W"])
    counts = {part: problem.feed.count(part) for part in ("train", "validation", "test")}
    assert counts == {"train": 64, "validation": 20, "test": 30}


def test_an_encoder_is_kept_and_made_anew_where_its_file_does_not_fit(tmp_path):
    options = tuple(sorted(TINY.items()))
    run, _ = encoders.learned("opinions", "moods", 2e-3, 0.1, options)
    (path,) = (tmp_path / "encoders").glob("*-0.002-0.1.npz")
    for damage in (None, b"nothing"):
        if damage:
            path.write_bytes(damage)
        encoders.learned.cache_clear()
        again, _ = encoders.learned("opinions", "moods", 2e-3, 0.1, options)
        np.testing.assert_array_equal(again.x, run.x)
        assert (again.columns["seconds"] == run.columns["seconds"]) is not bool(damage)  # the clock tells them apart


def test_gaps_are_learned_and_frequencies_known():
    columns = encoders.pretraining(0, None, "opinions", "moods", 3e-3, 1, **TINY)
    assert columns["validation_loss"][-1] < columns["validation_loss"][0] - 0.5
    _, gaps = encoders.learned("opinions", "moods", 3e-3, 1, tuple(sorted(TINY.items())))
    words = encoders.vocabulary("opinions", "moods", 300)
    train, held = (
        [
            int(w)
            for name in ("moods", "opinions")
            for text in getattr(load(name), part)
            for w in words.encode(text)[:11]
        ]
        for part in ("train", "validation")
    )
    counts, size = collections.Counter(train), gaps.network.output_shape[-1]
    expected = -np.mean([np.log((counts[w] + 1) / (len(train) + size)) for w in held])
    assert columns["unigram"][0] == pytest.approx(expected, rel=1e-9)
    (common, _), *_ = counts.most_common(1)
    assert columns["common"][0] == pytest.approx(np.mean([w == common for w in held]))


def test_f1_is_scikit_learns_and_idle_words_are_in_no_training_text(rng):
    problem = tiny("moods", dtype="float64")
    x = rng.standard_normal(problem.dim)
    found = problem.metrics(x)
    for part in ("train", "validation", "test"):
        z, t = problem.outputs(x, part), problem.feed.tables[part][-1]
        expected = sklearn.metrics.f1_score(t, 1 / (1 + np.exp(-z)) > 0.3, average="macro", zero_division=0)
        assert found[f"{part}_f1"] == pytest.approx(expected, abs=1e-12)
    ids, keep, _ = problem.feed.tables["train"]
    idle = [word for word in range(5, problem.first["encoder.embed.W"].shape[0]) if not (ids[keep] == word).any()]
    assert found["idle"] == pytest.approx(np.linalg.norm(problem.segments.view(x, "encoder.embed.W")[idle]))
    assert "test_f1" not in tiny().metrics(tiny().x0(rng)) and "idle" in tiny().metrics(tiny().x0(rng))


def test_nothing_but_decay_moves_idle_words():
    problem = tiny(l2=0.1)
    run = minimize(problem, SGD(), RandomReshuffling(32), 0.2, stop=Stop(steps=3), seed=1)
    tables = [
        problem.segments.view(x, "encoder.embed.W")[problem.idle]
        for x in (run.x, problem.x0(backend.generator(1, "x0")))
    ]
    np.testing.assert_allclose(tables[0], tables[1] * (1 - 0.2 * 0.1) ** 3, rtol=1e-5)


@pytest.mark.parametrize("start", ["scratch", "learned"])
def test_rare_labels_begin_at_the_log_odds_of_their_share(start):
    """(s + 1) / (n + 2) of n texts with s of a label; the first loss is near the labels' entropy, not at log 2."""
    problem = tiny("moods", start)
    y = problem.feed.tables["train"][2]
    share = (y.sum(0) + 1) / (len(y) + 2)
    x = problem.x0(backend.generator(1, "x0"))
    np.testing.assert_allclose(problem.segments.view(x, "head.b"), np.log(share / (1 - share)), rtol=1e-6)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share)).mean()
    assert abs(problem.metrics(x)["train_loss"] - entropy) < 0.1 * entropy < 0.07


def test_a_published_encoder_with_a_new_head(published):
    path, arrays, words = published
    problem = tiny(start=path)
    x = problem.x0(backend.generator(0, "x0"))
    for name, ours in (("word", "embed"), ("position", "positions")):
        table = problem.segments.view(x, f"encoder.{ours}.W")
        np.testing.assert_array_equal(table, arrays[f"embeddings.{name}_embeddings.weight"])
    ids, keep, _ = problem.feed.tables["train"]
    assert (ids[:, 0] == words.special["[CLS]"]).all()
    ends = keep.sum(1) - 1
    whole = ends < TINY["length"] - 1
    assert whole.any() and (ids[np.arange(64), ends][whole] == words.special["[SEP]"]).all()
    assert problem.network.output_shape == (2,) and np.isfinite(problem.metrics(x)["test_loss"])
