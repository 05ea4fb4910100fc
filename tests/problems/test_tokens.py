"""Texts as feeds: which token is where, what does not count, and that networks learn from them."""

import nn
from npopt import Adam, RandomReshuffling, backend, gradcheck, minimize
from problems.neural import Neural
from problems.tokens import Pairs, Sentences, Windows

import numpy as np
import pytest

TEXT = np.random.default_rng(0).integers(0, 7, 61)


class Mask(nn.Layer):
    """(ids, mask) -> the features of ids, 0 where the mask is False: the smallest layer with two inputs."""

    def __init__(self, words, features):
        self.table = nn.Embedding(words, features)

    def children(self):
        return [("table", self.table)]

    def output_shape(self, shape):
        return self.table.output_shape(shape[0])

    def forward(self, x, run):
        ids, mask = x
        y, saved = self.table.forward(ids, run)
        return y * mask[..., None], (saved, mask)

    def backward(self, dy, saved, run):
        kept, mask = saved
        return self.table.backward(dy * mask[..., None], kept, run)


def small(length, words=7, first=None, shape=None):
    layers = first or nn.Embedding(words, 5), nn.Tanh(), nn.Linear(5, words)
    return nn.Network(nn.Sequential(*layers), shape or (length,))


def test_windows_hold_the_text_and_its_successors():
    feed = Windows(TEXT, 8, test=TEXT[:20])
    problem = Neural(small(8), feed, dtype="float64")
    assert problem.n == 7 and feed.count("test") == 2  # 7 * 8 + 1 = 57 of 61 tokens
    a, t = feed.batch("train", np.array([6, 2]))
    np.testing.assert_array_equal(a, [TEXT[48:56], TEXT[16:24]])
    np.testing.assert_array_equal(t, [TEXT[49:57], TEXT[17:25]])
    np.testing.assert_array_equal(feed.targets()[[6, 2]], t)
    every, after = feed.batch("train")
    np.testing.assert_array_equal(every.reshape(-1), TEXT[:56])
    assert Windows(TEXT, 8, stride=3).starts(TEXT) == 18 and 17 * 3 + 8 == 59


def test_moving_windows_are_a_function_of_seed_step_and_row():
    feed = Windows(TEXT, 8, moving=True)
    Neural(small(8), feed)
    rows = np.array([1, 6, 6])
    a, t = feed.batch("train", rows, (3, 10))
    np.testing.assert_array_equal(a[1], a[2])
    np.testing.assert_array_equal(feed.batch("train", rows[:1], (3, 10))[0], a[:1])
    np.testing.assert_array_equal(feed.batch("train", rows)[0][0], TEXT[8:16])  # evaluation does not move
    starts = set()
    for step in range(60):
        a, t = feed.batch("train", rows, (3, step))
        np.testing.assert_array_equal(a[:, 1:], t[:, :-1])
        starts |= {s for s in range(53) if np.array_equal(TEXT[s : s + 8], a[0])}
    assert starts == set(range(8, 16))


def test_sentences_are_padded_cut_and_masked():
    feed = Sentences([[1, 2, 3], [4, 5, 6, 1, 2, 3], [6, 6]], 4, pad=9)
    ids, mask, targets = feed.tables["train"]
    np.testing.assert_array_equal(ids, [[1, 2, 3, 9], [4, 5, 6, 1], [6, 6, 9, 9]])
    np.testing.assert_array_equal(mask, ids != 9)
    np.testing.assert_array_equal(targets, [[2, 3, -1, -1], [5, 6, 1, 2], [6, -1, -1, -1]])


def test_pairs_teach_the_target_one_token_behind():
    feed = Pairs([([3, 4], [5, 6]), ([3] * 9, [4] * 9)], 3, 4, start=1, stop=2)
    source, mask, so_far, targets = feed.tables["train"]
    np.testing.assert_array_equal(source, [[3, 4, 0], [3, 3, 3]])
    np.testing.assert_array_equal(mask, [[True, True, False], [True] * 3])
    np.testing.assert_array_equal(so_far, [[1, 5, 6, 0], [1, 4, 4, 4]])
    np.testing.assert_array_equal(targets, [[5, 6, 2, -1], [4, 4, 4, 4]])


def sentences(n=12):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 7, rng.integers(2, 9)) for _ in range(n)]


@pytest.mark.parametrize("kind", ["windows", "sentences", "stable"])
def test_gradients_through_the_embedding(kind, rng):
    if kind == "stable":
        network = small(8, first=nn.StableEmbedding(7, 5, eps=0.1))
        problem = Neural(network, Windows(TEXT, 8), dtype="float64")
    elif kind == "windows":
        problem = Neural(small(8), Windows(TEXT, 8, moving=True), nn.SoftmaxCrossEntropy(0.1), l2=0.01, dtype="float64")
    else:
        network = small(6, first=Mask(7, 5), shape=((6,), (6,)))
        problem = Neural(network, Sentences(sentences(), 6), dtype="float64")
    x = rng.standard_normal(problem.dim)
    problem.begin(4)
    report = gradcheck(problem, x, np.array([2, 5, 2, 0]))
    assert report.ok, str(report)


def test_the_stable_embedding_is_layer_norm_of_what_is_looked_up(rng, device):
    network = nn.Network(nn.Sequential(embed=nn.StableEmbedding(30, 7, eps=0.2)), (4,))
    start = backend.to_host(network.x0(np.random.default_rng(0), "float64"))
    W = network.segments.view(start, "embed.W")
    bound = (6 / 37) ** 0.5  # Xavier's
    assert 0.9 * bound < np.abs(W).max() < bound and W.std() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert [s.kind for s in network.segments] == ["embedding", "norm", "bias"]
    x, ids = rng.standard_normal(network.dim), rng.integers(0, 30, (5, 4))
    W, a, b = (network.segments.view(x, name) for name in network.segments.names)
    rows = W[ids]
    expected = a * (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 0.2) + b
    network.bind(backend.asarray(x))
    y, _ = network.forward(backend.asarray(ids), nn.Run())
    np.testing.assert_allclose(backend.to_host(y), expected, rtol=1e-12)


def test_padding_and_what_stands_in_it_change_nothing(rng):
    network = small(6, first=Mask(10, 5), shape=((6,), (6,)), words=10)
    x = rng.standard_normal(network.dim)
    found = []
    for pad in (0, 9):
        problem = Neural(network, Sentences(sentences(), 6, pad=pad), dtype="float64")
        g = np.empty(problem.dim)
        found.append((problem.value_and_gradient(x, out=g), g, problem.metrics(x)))
    assert found[0][0] == found[1][0] and found[0][2] == found[1][2]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_table_of_successors_is_learnt():
    """In a text of cycles 0 1 2 ... 6 the next token is certain."""
    text = np.tile(np.arange(7), 60)
    run = minimize(
        Neural(small(6), Windows(text, 6, test=text[:50])),
        Adam(),
        RandomReshuffling(8),
        0.05,
        stop=dict(epochs=12),
        seed=0,
    )
    assert run.final["test_accuracy"] == 1 and run.final["test_loss"] < 0.05


def test_tokens_on_a_device(device):
    found = []
    for where in ("cpu", device):
        backend.use(where)
        for problem in (
            Neural(small(8), Windows(TEXT, 8, moving=True, test=TEXT), dtype="float64"),
            Neural(small(6, first=Mask(7, 5), shape=((6,), (6,))), Sentences(sentences(), 6), dtype="float64"),
        ):
            x = problem.x0(np.random.default_rng(0))
            g, rows = backend.zeros(x.shape, "float64"), backend.asarray(np.array([1, 4, 1]))
            problem.begin(2)
            loss = problem.value_and_gradient(x, rows, None, g)
            found.append([backend.to_host(loss), backend.to_host(g), *problem.metrics(x).values()])
    for ours, theirs in zip(found[0] + found[1], found[2] + found[3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


def test_what_does_not_fit_gets_one_sentence():
    with pytest.raises(ValueError, match="has 8 tokens; a window of 8 and the token behind it need 9"):
        Windows(TEXT[:8], 8)
    with pytest.raises(ValueError, match="a text is a vector of whole numbers"):
        Windows(TEXT / 2, 8)
    with pytest.raises(ValueError, match="a row has 8 tokens, the network expects"):
        Neural(small(6), Windows(TEXT, 8))
    with pytest.raises(ValueError, match="labels run from 0 to 6, but the network has 5 outputs"):
        Neural(nn.Network(nn.Sequential(nn.Embedding(7, 5)), (8,)), Windows(TEXT, 8))
    with pytest.raises(ValueError, match="sentence 1 has 1 tokens"):
        Sentences([[1, 2], [3]], 4)
    with pytest.raises(ValueError, match="inputs have shapes"):
        Neural(small(6), Sentences([[1, 2]], 6))
    with pytest.raises(ValueError, match="x must be whole numbers"):
        nn.Embedding(7, 5).forward(np.ones((2, 3)), nn.Run())


@pytest.mark.parametrize("batch", [1, 3, 500])
def test_metrics_over_positions_know_no_batches(batch, rng):
    """The mean over all positions, whoever shares a batch of the evaluation."""
    some, loss = sentences(), nn.SoftmaxCrossEntropy(over="positions")
    network = small(6, first=Mask(10, 5), shape=((6,), (6,)), words=10)
    problem = Neural(network, Sentences(some, 6), loss, dtype="float64", metrics_batch=batch)
    x = np.random.default_rng(3).standard_normal(network.dim)
    targets = problem.feed.tables["train"][-1]
    lone = Neural(network, Sentences(some, 6), dtype="float64")
    per_row = np.array([lone.value(x, np.array([row])) for row in range(len(some))])
    counts = (targets >= 0).sum(1)
    assert problem.metrics(x)["train_loss"] == pytest.approx(per_row @ counts / counts.sum(), rel=1e-12)
