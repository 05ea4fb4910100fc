"""Texts by name, and recurrent language models on them: truncated back-propagation, perplexity, resuming."""

import math
import os
import pathlib

import nn
from npopt import SGD, Accumulated, Adam, Batch, Clipped, Minibatch, Sequential, Stop, backend, gradcheck, minimize
from problems import load, texts
from problems.language import language
from problems.neural import Neural
from problems.tokens import Windows

import numpy as np
import pytest

THREADS = 1  # layers of a few numbers: tests/conftest.py

TEXT = np.random.default_rng(0).integers(0, 7, 130)


def model(streams=3, **more):
    return nn.language_model(7, 5, 6, 2, streams=streams, **more)


def problem(network, **more):
    return Neural(network, Windows(TEXT, 5, validation=TEXT[:48], test=TEXT[40:]), dtype="float64", **more)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NPOPT_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(texts.files, "cache", lambda: tmp_path / "cache")
    return tmp_path / "text"


def write(folder, **parts):
    folder.mkdir(parents=True)
    for name, text in parts.items():
        (folder / f"ptb.{name}.txt").write_text(text)


def test_words_are_numbered_by_their_frequency_and_lines_end(folder):
    write(folder / "ptb", train=" b a b \n c b \n", valid=" c \n", test=" a a \n\n")
    found = load("ptb", check=False)
    assert found.words == ("b", "<eos>", "a", "c")  # 3, 2, 1, 1
    assert [p.tolist() for p in (found.train, found.validation, found.test)] == [
        [0, 2, 0, 1, 3, 0, 1],
        [3, 1],
        [2, 2, 1, 1],
    ]
    assert (
        load("ptb", check=False, rows=3).train.tolist() == [0, 2, 0]
        and "first 3 of 7" in load("ptb", check=False, rows=3).source
    )
    with pytest.raises(ValueError, match="wrong checksum"):
        load("ptb")
    with pytest.raises(ValueError, match="validation part of its own"):
        load("ptb", check=False, validation=0.1)
    (folder / "ptb" / "ptb.test.txt").write_text("d\n")
    with pytest.raises(ValueError, match="'d' does not occur in the training text"):
        load("ptb", check=False)
    (folder / "ptb" / "ptb.test.txt").unlink()
    with pytest.raises(ValueError, match="ptb.test.txt is in none of .* no public address"):
        load("ptb", check=False)


def test_characters_are_numbered_in_their_order_and_split_in_order(folder):
    (folder / "tinyshakespeare").mkdir(parents=True)
    text = "".join("zé\na"[i % 4] for i in range(200))
    (folder / "tinyshakespeare" / "input.txt").write_text(text, encoding="utf-8")
    found = load("tinyshakespeare", check=False)
    assert found.words == ("\n", "a", "z", "é") and [len(found.train), len(found.validation), len(found.test)] == [
        180,
        10,
        10,
    ]
    whole = np.concatenate([found.train, found.validation, found.test])
    assert "".join(found.words[i] for i in whole) == text
    with pytest.raises(ValueError, match="wrong checksum"):
        load("tinyshakespeare")


def test_a_chain_is_drawn_as_it_says_and_its_perplexities_are_those_in_the_docstring():
    P, found = texts.chain_of(200), load("chain")
    assert (len(found.train), len(found.validation), len(found.test)) == (40_000, 4_000, 4_000)
    np.testing.assert_allclose(P.sum(1), 1, rtol=1e-12)
    values, vectors = np.linalg.eig(P.T)
    often = np.abs(vectors[:, np.argmax(values.real)].real)
    often /= often.sum()
    assert np.exp(-(often[:, None] * P * np.log(P)).sum()) == pytest.approx(31.6, abs=0.05)
    assert np.exp(-(often * np.log(often)).sum()) == pytest.approx(118.4, abs=0.05)
    seen = np.bincount(found.train, minlength=200) / len(found.train)
    assert np.abs(seen - often).max() < 6 * np.sqrt(often.max() / len(found.train))
    pairs = np.exp(
        -np.log(P[found.train[:-1], found.train[1:]]).mean()
    )  # what the drawn words cost who knows the chain
    assert pairs == pytest.approx(31.6, rel=0.03)
    assert found.sha256 == load("chain").sha256 and found.part(100).train.tolist() == found.train[:100].tolist()


def test_the_courses_language_model_is_measured_on_the_first_held_tokens_in_streams():
    found = language("chain", 6, length=5, streams=4, tokens=1000, held=201)
    x = found.x0(backend.generator(0, "x0"))
    seen, text = found.metrics(x), load("chain")
    assert found.n == 199 and (found.feed.count("validation"), found.feed.count("test")) == (40, 40)
    plain = Neural(nn.language_model(200, 5, 6, 1, streams=4), Windows(text.train, 5, test=text.validation[:201]))
    plain.metrics_batch = 8
    assert seen["validation_loss"] == pytest.approx(plain.metrics(x)["test_loss"], rel=1e-6)
    assert seen["validation_perplexity"] == pytest.approx(np.exp(seen["validation_loss"]))
    alone = language("chain", 6, length=5, held=0)
    assert alone.feed.parts.keys() == {"train"} and language("chain", 6).feed.count("test") == 3999 // 20


@pytest.mark.parametrize(
    "name, sizes, words",
    [
        ("ptb", (929_589, 73_760, 82_430), 10_000),
        ("tinyshakespeare", (1_003_854, 55_770, 55_770), 65),
    ],
)
def test_the_real_texts(name, sizes, words):
    root = pathlib.Path(os.environ.get("NPOPT_DATA", "data"))
    if not (root / "text" / name).is_dir():
        pytest.skip(f"{name} is not there")
    found = load(name)
    assert (len(found.train), len(found.validation), len(found.test)) == sizes and len(found.words) == words
    assert found.train.max() == words - 1 and set(found.test) <= set(found.train)


@pytest.mark.parametrize(
    "more",
    [
        dict(),
        dict(kind=nn.GRU, dropout=0.3, inner=0.4, tied=True),
        dict(features=4, dropout=0.3, variational=True, init=nn.init.Uniform(0.4)),
    ],
    ids=["plain", "tied gru", "variational"],
)
def test_gradients_of_the_language_model_in_mid_text(more, rng):
    found = problem(model(**more))
    x = 0.5 * rng.standard_normal(found.dim)
    for t, rows in enumerate(([0, 8, 16], [1, 9, 17])):  # the second step begins with what the first one left
        found.begin(t)
        found.value_and_gradient(x, np.array(rows), None, np.empty(found.dim))
        if t == 0:
            zero = found.value(x, np.array([1, 9, 17]))
            found.commit()
    assert found.value(x, np.array([1, 9, 17])) != zero
    report = gradcheck(found, x, np.array([1, 9, 17]))
    assert report.ok, str(report)


def slow_states(network, layers, x, words, state):
    """A stream's words through embedding and LSTMs: (logits, states), from the states that are given."""
    network.bind(x)
    h, after = network.layer.layers[0].W[words][None], []
    for layer, first in zip(layers, state, strict=True):
        h, last, _ = layer.unroll(h, first, nn.Run())
        after.append(last)
    head = network.layer.layers[-1]
    return h[0] @ head.W.T + head.b, after


def log_loss(logits, targets):
    m = logits.max(1, keepdims=True)
    return (np.log(np.exp(logits - m).sum(1)) + m[:, 0] - logits[np.arange(len(targets)), targets]).sum()


def test_perplexity_is_that_of_the_text_read_in_streams(rng):
    for size in (1, 3, 100):
        network = model()
        found = problem(network, metrics_batch=size)
        x = rng.standard_normal(found.dim)
        layers, total = [network.layer.layers[1], network.layer.layers[2]], 0.0
        count = (len(TEXT) - 1) // 5
        m = -(-count // size)
        for first in range(0, count, m):  # each stream once, from a zero state
            stop = 5 * min(first + m, count)
            words = TEXT[5 * first : stop]
            logits, _ = slow_states(network, layers, x, words, [[np.zeros((1, 6))] * 2] * 2)
            total += log_loss(logits, TEXT[5 * first + 1 : stop + 1])
        measured = found.metrics(x)
        assert measured["train_loss"] == pytest.approx(total / (5 * count), rel=1e-12)
        assert measured["train_perplexity"] == pytest.approx(math.exp(total / (5 * count)), rel=1e-12)
        outputs, batches = found.outputs(x, "train"), found.feed.walk("train", count, size)
        assert sorted(np.concatenate(batches)) == list(range(count)) and outputs.shape == (count, 5, 7)
        logits, _ = slow_states(network, layers, x, TEXT[: 5 * m][: 5 * count], [[np.zeros((1, 6))] * 2] * 2)
        np.testing.assert_allclose(outputs[:m].reshape(-1, 7), logits, rtol=1e-10, atol=1e-12)
    assert "train_perplexity" not in problem(model(), loss=nn.SoftmaxCrossEntropy(0.1)).metrics(x)


def test_steps_of_truncated_back_propagation_are_those_of_a_slow_loop():
    """SGD in three streams; the slow loop's gradients are central differences of a window's loss, its state held."""
    found = problem(nn.language_model(7, 5, 2, 1, streams=3))
    steps, lr, network = 6, 0.5, nn.language_model(7, 5, 2, 1)
    run = minimize(found, SGD(), Sequential(3), lr, stop=Stop(steps=steps), seed=1)
    x, layers = (
        Neural(network, Windows(TEXT, 5), dtype="float64").x0(backend.generator(1, "x0")),
        network.layer.layers[1:2],
    )
    x = starting(found)
    m, state = found.n // 3, [[[np.zeros((1, 2))] * 2] for _ in range(3)]

    def loss(x, j):
        windows = [5 * (b * m + j) for b in range(3)]
        parts = [slow_states(network, layers, x, TEXT[w : w + 5], s) for w, s in zip(windows, state, strict=True)]
        return sum(log_loss(z, TEXT[w + 1 : w + 6]) for (z, _), w in zip(parts, windows, strict=True)) / 15, [
            s for _, s in parts
        ]

    for j in range(steps):
        g = np.empty(len(x))
        for i, e in enumerate(np.eye(len(x))):
            g[i] = (loss(x + 1e-5 * e, j)[0] - loss(x - 1e-5 * e, j)[0]) / 2e-5
        _, after = loss(x, j)
        x, state = x - lr * g, after
    np.testing.assert_allclose(backend.to_host(run.x), x, rtol=0, atol=1e-8)


def starting(found):
    """Where minimize starts: a run of no steps."""
    return backend.to_host(minimize(found, SGD(), Sequential(3), 0.1, stop=Stop(steps=0), seed=1).x).copy()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_micro_batches_of_unequal_sizes_give_the_gradient_of_the_batch(kind, rng):
    """Without streams every row begins at zero, and dropout belongs to rows: pieces add up to the whole."""
    found = problem(model(0, kind=kind, dropout=0.3, inner=0.2))
    x, rows = rng.standard_normal(found.dim), rng.permutation(found.n)[:7]
    gradients = []
    for estimator in (Minibatch(), Accumulated(3)):
        g = estimator.start(found, x, 0)
        estimator(x, Batch(rows), out=g)
        gradients.append(g)
    np.testing.assert_allclose(*gradients, rtol=1e-10, atol=1e-13)


def test_a_run_in_mid_text_resumes_bit_for_bit(tmp_path):
    def run(steps, **events):
        network = model(dropout=0.2, inner=0.3)
        return minimize(
            problem(network), SGD(), Sequential(3), 1.0, Clipped(0.5), stop=Stop(steps=steps), seed=2, events=events
        )

    whole = run(13)  # an epoch has 8 steps
    for steps in (5, 11, 13):
        broken = run(steps, checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(broken.x, whole.x)
    assert broken.final["test_loss"] == whole.final["test_loss"]


def test_language_models_on_a_device(device):
    found = []
    for where in ("cpu", device):
        backend.use(where)
        one = problem(model(dropout=0.2, inner=0.3, tied=True), metrics_batch=3)
        x = one.x0(np.random.default_rng(0))
        g = backend.zeros(x.shape, "float64")
        for t, rows in enumerate(([0, 8, 16], [1, 9, 17])):
            one.begin(t)
            loss = one.value_and_gradient(x, backend.asarray(np.array(rows)), None, g)
            one.commit()
        found.append([backend.to_host(loss), backend.to_host(g), *one.metrics(x).values()])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
def test_what_needs_memory_is_learnt_with_a_state_that_goes_on():
    """Each word comes twice, with three 0s behind it: windows of 5 hold both only now and then."""
    text = np.array([[word, 0, 0, 0] * 2 for word in np.random.default_rng(3).integers(1, 5, 200)]).reshape(-1)
    losses = []
    for streams in (20, 0):
        one = Neural(nn.language_model(5, 5, 12, 1, streams=streams), Windows(text, 5), metrics_batch=20)
        run = minimize(one, Adam(), Sequential(20), 0.03, Clipped(1.0), stop=Stop(epochs=60), seed=0)
        losses.append(run.final["train_loss"])
    # of 8 places one word of four is a guess for both, another for one without memory: log(4) / 8 = 0.173 each
    assert losses[0] < 0.23 and losses[1] > losses[0] + 0.06


def test_what_does_not_fit_gets_one_sentence():
    with pytest.raises(ValueError, match="as many features as units, got 3 and 4"):
        nn.language_model(7, 5, 4, features=3, tied=True)
    with pytest.raises(ValueError, match="kind must be LSTM or GRU"):
        nn.language_model(7, 5, 4, kind="lstm")
