"""Weights, spectral gaps in closed form, and how rows are split."""

from npopt.distributed import (
    Graph,
    at_random,
    by_label,
    complete,
    dirichlet,
    exponential,
    largest_rate,
    metropolis,
    ring,
    star,
    torus,
)
from npopt.errors import UserError

import numpy as np
import pytest


def shrinks(W):
    """|W - 1 1'/n|_2 from the eigenvalues of W'W."""
    n = len(W)
    return np.sort(np.linalg.eigvalsh((W - 1 / n).T @ (W - 1 / n)))[-1] ** 0.5


@pytest.mark.parametrize(
    "graph", [ring(1), ring(2), ring(7), torus(3, 4), exponential(6), exponential(7), complete(5), star(6)], ids=str
)
def test_weights_keep_the_mean_and_the_gap_is_that_of_the_matrix(graph, rng):
    W = graph.W.toarray()
    np.testing.assert_allclose(W.sum(0), 1, rtol=1e-15)
    np.testing.assert_allclose(W.sum(1), 1, rtol=1e-15)
    assert (W >= 0).all() and (np.abs(W - W.T).max() < 1e-14) == graph.symmetric
    assert graph.gap == pytest.approx(1 - shrinks(W), abs=1e-12)
    for dtype in (np.float32, np.float64):
        X = rng.standard_normal((graph.n, 3)).astype(dtype)
        mixed = graph.mix(X)
        assert mixed.dtype == dtype
        np.testing.assert_allclose(mixed, W @ X, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-6)
        for i in range(graph.n):  # what one node mixes by itself, bit for bit
            np.testing.assert_array_equal(mixed[i], graph.mix_one(i, X[graph.hears(i)]))
    assert [len(graph.heard_by(i)) for i in range(graph.n)] == graph.degrees.tolist()
    assert all(i in graph.hears(j) for i in range(graph.n) for j in graph.heard_by(i))


def test_gaps_in_closed_form():
    for n in (3, 8, 11, 1200):
        angles = 2 * np.pi * np.arange(1, n) / n
        assert ring(n).gap == pytest.approx(1 - np.abs(1 / 3 + 2 / 3 * np.cos(angles)).max(), rel=1e-6)
    a, b = np.meshgrid(2 * np.pi * np.arange(4) / 4, 2 * np.pi * np.arange(5) / 5)
    values = np.abs(1 / 5 + 2 / 5 * (np.cos(a) + np.cos(b))).ravel()
    assert torus(4, 5).gap == pytest.approx(1 - np.sort(values)[-2])
    for n in (4, 6, 8, 10, 64):  # Ying et al., Proposition 1: even n
        assert exponential(n).gap == pytest.approx(2 / (1 + np.ceil(np.log2(n))))
    assert complete(9).gap == pytest.approx(1)
    assert star(9).gap == pytest.approx(1 / 9)


def test_metropolis_weights_are_the_formula():
    edges, n = [(0, 1), (1, 2), (1, 3), (3, 0), (1, 0), (2, 2)], 5
    graph = metropolis(edges, n)
    degree = [2, 3, 1, 2, 0]
    expected = np.zeros((n, n))
    for i, j in ((0, 1), (1, 2), (1, 3), (0, 3)):
        expected[i, j] = expected[j, i] = 1 / (1 + max(degree[i], degree[j]))
    expected[range(n), range(n)] = 1 - expected.sum(1)
    np.testing.assert_allclose(graph.W.toarray(), expected, rtol=1e-15)
    assert graph.degrees.tolist() == degree


def test_the_largest_rate_of_extra():
    low = np.linalg.eigvalsh((np.eye(8) + ring(8).W.toarray()) / 2)[0]
    assert largest_rate(ring(8), 3.0) == pytest.approx(2 * low / 3)
    with pytest.raises(UserError, match="not symmetric"):
        largest_rate(exponential(8), 1.0)


def test_weights_that_do_not_keep_the_mean_are_refused():
    for W in ([[0.5, 0.5], [0.2, 0.8]], [[1.0, 0.0]], [[np.nan]]):
        with pytest.raises(UserError, match="Graph"):
            Graph(np.array(W))
    with pytest.raises(UserError, match="edges must join nodes"):
        metropolis([(0, 5)], 3)
    swap = Graph(np.array([[0.0, 1.0], [1.0, 0.0]]))  # a W_ii of 0 is stored all the same
    assert swap.W.nnz == 4 and swap.hears(0) == [0, 1] and swap.heard_by(0) == [1]


# ------------------------------------------------------------------------------------------------------------ splits
@pytest.fixture
def labels(rng):
    return rng.integers(0, 3, 100)


def test_every_row_goes_to_one_node(labels):
    for parts in (at_random(100, 7), by_label(labels, 7), dirichlet(labels, 7, 0.1), dirichlet(labels, 40, 0.01)):
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(100))
        assert all(len(p) and (np.diff(p) > 0).all() and p.dtype == np.int64 for p in parts)


def test_splits_differ_in_what_a_node_sees(labels):
    sizes = [len(p) for p in by_label(labels, 7)]
    assert max(sizes) - min(sizes) <= 1
    order = np.concatenate([np.sort(labels[p]) for p in by_label(labels, 7)])
    assert (np.diff(order) >= 0).all()

    def purity(parts):
        return np.mean([np.bincount(labels[p]).max() / len(p) for p in parts])

    assert purity(at_random(100, 5)) < 0.6 < purity(by_label(labels, 5))
    assert purity(dirichlet(labels, 5, 100.0)) < 0.6 < 0.7 < purity(dirichlet(labels, 5, 0.05))
    one, other = (dirichlet(labels, 5, 0.5, seed) for seed in (1, 2))
    assert any(len(a) != len(b) for a, b in zip(one, other, strict=True))


def test_a_class_is_dealt_by_shares_of_the_dirichlet_law():
    """The share of one of 4 nodes in a class has mean 1/4 and variance (1/4)(3/4) / (4 alpha + 1)."""
    y, alpha = np.zeros(5000), 0.7
    shares = np.array([[len(p) / 5000 for p in dirichlet(y, 4, alpha, seed)] for seed in range(300)])
    variance = 3 / 16 / (4 * alpha + 1)
    assert shares.mean(0) == pytest.approx(np.full(4, 0.25), abs=4 * (variance / 300) ** 0.5)
    assert shares.var() == pytest.approx(variance, rel=0.25)


def test_too_few_rows():
    for split in (lambda: at_random(3, 4), lambda: by_label([0, 1], 3), lambda: dirichlet([0], 2, 1.0)):
        with pytest.raises(UserError, match="too few"):
            split()


def test_mixes_of_one_size():
    """Equal sizes, no row twice; the mean mix is that of all rows, and alpha says how far nodes are from it."""
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    share = np.array([0.6, 0.3, 0.1])
    spread = {}
    for alpha in (0.05, 1.0, 1000.0):
        mixes = []
        for seed in range(40):
            parts = dirichlet(labels, 10, alpha, seed, equal=True)
            assert all(len(part) == 100 for part in parts)
            np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
            mixes.append(np.bincount(labels[parts[0]], minlength=3) / 100)  # the first draws from all there are
        spread[alpha] = np.var(mixes, 0)
        at = 3 * alpha * share  # of Dirichlet(at), variance p (1 - p) / (sum + 1), and of 100 draws from it
        expected = share * (1 - share) * (1 / (at.sum() + 1) + (1 - 1 / (at.sum() + 1)) / 100)
        np.testing.assert_allclose(np.mean(mixes, 0), share, atol=4 * np.sqrt(expected.max() / 40))
        assert 0.4 < spread[alpha].sum() / expected.sum() < 1.8
    assert spread[0.05].sum() > 3 * spread[1.0].sum() > 30 * spread[1000.0].sum()
    assert {len(part) for part in dirichlet(labels[:995], 7, 0.1, equal=True)} == {142}
