"""Prompts: logits at a gap are those of the masked model; few texts are drawn by the seed; gradients by differences."""

import pathlib

from nn import LoRA, Run, weights
from nn.encoder import AtGap, Chosen
from nn.language import bert, gpt2, prompted
from nn.losses import SoftmaxCrossEntropy
from npopt import Adam, Events, MeZO, RandomReshuffling, Stop, backend, gradcheck, minimize
from npopt.errors import UserError
from problems.encoders import MASK
from problems.prompts import FewShot, label_words, prompts

import numpy as np
import pytest

THREADS = 1  # layers of a few numbers: tests/conftest.py

SIZE = dict(size=400, length=20, features=16, layers=2, heads=2, rate=3e-3, passes=1)


def models(dropout=0.0):
    """(masked model, the same as one that is asked for three words)"""
    build = dict(words=30, length=8, features=12, layers=2, heads=2, head="words", dropout=dropout)
    return bert(**build), prompted(bert(**build), 4, (7, 3, 11))


def rows(rng, gap=4):
    ids = rng.integers(5, 30, (6, 8))
    keep = np.arange(8) < np.array([8, 5, 8, 7, 3, 6])[:, None]
    for b, t in enumerate((2, 4, 7, 0, 2, 5)):
        ids[b, t] = gap
    ids[0, 5] = gap  # a second one does not count
    return (ids, keep), np.array([2, 4, 7, 0, 2, 5])


def test_logits_are_those_of_the_masked_model_at_the_gap(device):
    whole, asked = models()
    (ids, keep), places = rows(np.random.default_rng(0))
    assert asked.segments == whole.segments and asked.output_shape == (3,)
    x = whole.x0(np.random.default_rng(1), "float64")
    inputs = backend.asarray(ids), backend.asarray(keep)
    for network in (whole, asked):
        network.bind(x)
    every, some = (backend.to_host(network.forward(inputs, Run())[0]) for network in (whole, asked))
    np.testing.assert_allclose(some, every[np.arange(6), places][:, [7, 3, 11]], rtol=1e-10, atol=1e-12)


def test_gradients_along_random_directions():
    _, network = models()
    rng = np.random.default_rng(2)
    inputs, _ = rows(rng)
    x, g, r = network.x0(rng, "float64"), np.empty(network.dim), rng.standard_normal((6, 3))

    def value(x):
        network.bind(x)
        return float((network.forward(inputs, Run(training=True))[0] * r).sum())

    network.bind(x, g)
    run = Run(training=True, backward=True)
    _, saved = network.forward(inputs, run)
    network.backward(r.copy(), saved, run)
    for _ in range(5):
        d = rng.standard_normal(x.size)
        d /= np.linalg.norm(d)
        ends = [value(x + a * d) for a in (-2e-4, -1e-4, 1e-4, 2e-4)]
        numeric = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / 12e-4
        assert g @ d == pytest.approx(numeric, rel=1e-7)


def test_few_texts_are_drawn_by_the_seed():
    problem = prompts("opinions", "moods", 5, test_rows=30, **SIZE)
    seen = []
    for seed in (3, 4, 3):
        problem.set_seed(seed)
        assert problem.n == 10 == problem.feed.count("validation")
        assert np.bincount(problem.targets()).tolist() == [5, 5]
        ids, keep, _ = problem.feed.tables["train"]
        assert (((ids == MASK) & keep).sum(1) == 1).all()
        held = problem.feed.tables["validation"][0]
        assert not {row.tobytes() for row in ids} & {row.tobytes() for row in held}
        seen.append(ids.copy())
    np.testing.assert_array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[1])
    assert problem.feed.count("test") == 30


def test_the_start_is_the_masked_model_that_was_learned():
    problem = prompts("opinions", "moods", 4, **SIZE)
    x = problem.x0(np.random.default_rng(0))
    for segment in problem.segments:
        np.testing.assert_array_equal(x[segment.slice], problem.first[segment.name].reshape(-1))
    scratch = prompts("opinions", "moods", 4, start="scratch", **SIZE)
    assert scratch.first is None and scratch.dim == problem.dim


@pytest.mark.parametrize("estimator", [None, MeZO()], ids=["backward", "mezo"])
def test_a_run_resumes_bitwise_on_its_own_texts(estimator, tmp_path):
    def run(steps, path):
        problem = prompts("opinions", "moods", 4, test_rows=20, **SIZE)
        return minimize(problem, Adam(), RandomReshuffling(8), 1e-3, estimator, stop=Stop(steps=steps), seed=5,
                        events=Events(3, "step", checkpoint=path))  # fmt: skip

    whole = run(9, None)
    run(4, tmp_path / "run.npz")
    cut = run(9, tmp_path / "run.npz")
    np.testing.assert_array_equal(cut.x, whole.x)
    assert cut.columns["validation_loss"] == whole.columns["validation_loss"]


def test_labels_have_a_word_each():
    class Words:
        def encode(self, text):
            return {" terrible": [1, 2], " great": [3], " bad": [8], " good": [9]}.get(text, [1, 1])

    assert label_words(Words(), 2) == [8, 9]
    with pytest.raises(UserError, match="two classes"):
        label_words(Words(), 3)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: prompted(gpt2(9, 4, 8, 1, 2), 1, (2, 3)), "masked language model"),
        (lambda: prompted(bert(9, 4, 8, 1, 2, head="words"), 1, (2, 30)), "place 30 of 9"),
        (lambda: Chosen((2, 2)), "different ones"),
        (lambda: AtGap(None, -1), "mask"),
        (lambda: prompts("opinions", "moods", 10_000, **SIZE), "k=10000 needs 20000 texts of each class"),
    ],
)
def test_wrong_arguments(wrong, says):
    with pytest.raises(UserError, match=says):
        wrong()


def test_what_is_drawn_is_no_class_more_than_the_loss_knows():
    problem = prompts("opinions", "moods", 4, **SIZE)
    assert isinstance(problem, FewShot) and isinstance(problem.loss_function, SoftmaxCrossEntropy)
    assert problem.metrics(problem.x0(np.random.default_rng(0))).keys() >= {
        "train_loss",
        "validation_loss",
        "test_accuracy",
    }


def test_adapters_alone_move_and_begin_as_the_model_without_them():
    plain, part = (prompts("opinions", "moods", 5, test_rows=30, **more, **SIZE)
                   for more in ({}, dict(adapters=(LoRA, {"rank": 3}), moved=True)))  # fmt: skip
    assert {name.rpartition(".")[2] for name in part.segments.names} == {"A", "B"}
    assert part.dim == 2 * 3 * (4 * 2 * 16 + 2 * (16 + 64))  # two layers: four maps of 16, two of 16 and 64
    y, x = (problem.x0(backend.generator(0, "x0")) for problem in (part, plain))
    for problem in (plain, part):
        problem.set_seed(4)
    assert part.metrics(y)["test_loss"] == pytest.approx(plain.metrics(x)["test_loss"], rel=1e-6)
    run = minimize(part, Adam(), RandomReshuffling(10), 0.01, stop=Stop(steps=20), seed=4, events=Events(None))
    found = part.metrics(run.x)
    assert found["train_loss"] < 0.9 * part.metrics(y)["train_loss"]
    ways = {name: value for name, value in found.items() if name.startswith("moved")}
    assert {name for name, value in ways.items() if value > 0} == {"moved layer1", "moved layer2"}


def test_a_sentence_encoder_is_asked_which_sentence_a_text_is_like(published, device):
    """Logits are 20 cosines of the mean vectors; a text that is the sentence of a class has a cosine of 1."""
    path, arrays, words = published
    problem = prompts("opinions", "moods", 5, test_rows=30, start=path, **SIZE | dict(length=16))
    x = problem.x0(backend.generator(0, "x0"))
    body = {name: backend.to_host(problem.segments.view(x, name)) for name in problem.segments.names}
    np.testing.assert_array_equal(body["encoder.embed.W"], arrays["embeddings.word_embeddings.weight"])
    encoder, first = weights.hub(pathlib.Path(path).parent)
    encoder.bind(backend.asarray(first))

    def vector(row):  # one text alone, no padding
        row = np.array(row)[None]
        found = encoder.layer.forward((backend.asarray(row), backend.asarray(np.ones(row.shape, bool))), Run())[0]
        mean = backend.to_host(found)[0].mean(0)
        return mean / np.linalg.norm(mean)

    def row(text):
        return [words.special["[CLS]"], *words.encode(text), words.special["[SEP]"]]

    classes = [vector(row(f"it was {word} .")) for word in ("terrible", "great")]
    ids, keep, _ = problem.feed.tables["test"]
    expected = [[20 * float(vector(ids[b][keep[b]]) @ c) for c in classes] for b in range(30)]
    np.testing.assert_allclose(problem.outputs(x), expected, rtol=2e-4, atol=2e-4)
    own = np.array([row("it was terrible .")]), np.ones((1, len(row("it was terrible ."))), bool)
    problem.network.bind(x)
    z = problem.network.layer.forward(tuple(backend.asarray(part) for part in own), Run())[0]
    np.testing.assert_allclose(backend.to_host(z)[0], [20, 20 * classes[0] @ classes[1]], rtol=1e-4)


def test_adapters_of_a_sentence_encoder_begin_as_it_is(published):
    plain, part = (prompts("opinions", "moods", 5, test_rows=30, start=published[0], **more, **SIZE)
                   for more in ({}, dict(adapters=(LoRA, {"rank": 3}))))  # fmt: skip
    assert {name.rpartition(".")[2] for name in part.segments.names} == {"A", "B"}
    assert part.dim == 3 * (4 * 2 * 8 + 2 * (8 + 12))  # one layer: four maps of 8, two of 8 and 12
    ends = [problem.metrics(problem.x0(backend.generator(0, "x0")))["test_loss"] for problem in (plain, part)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


def test_gradients_of_likeness(published):
    problem = prompts("opinions", "moods", 5, test_rows=30, start=published[0], dtype="float64", **SIZE)
    x = problem.x0(backend.generator(0, "x0"))
    rng = np.random.default_rng(3)
    assert gradcheck(problem, x + 0.05 * rng.standard_normal(x.size)).worst < 1e-7


def test_a_sentence_encoder_wants_two_classes(published):
    with pytest.raises(UserError, match="prompts: two classes are wanted, moods has 6"):
        prompts("moods", "opinions", 5, start=published[0], **SIZE)
