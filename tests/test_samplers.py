"""Orders and batches."""

from types import SimpleNamespace

from npopt import (
    SGD,
    AdaptiveImportance,
    Batch,
    ByClass,
    Events,
    Importance,
    RandomReshuffling,
    Sequential,
    ShuffleOnce,
    Stop,
    WithReplacement,
    backend,
    minimize,
)
from npopt.samplers import importance
from problems import LeastSquares, Logistic, Quadratic, load
from problems.feeds import Images
from problems.neural import Neural

import numpy as np
import pytest

ALL = [WithReplacement, ShuffleOnce, RandomReshuffling, Importance, ByClass]
SIZES = np.array([0.1, 3, 0.5, 0.5, 1, 7, 2, 0.2, 1, 4.0])  # smoothness of the ten rows of the toy


def started(sampler, n=10, seed=3):
    targets = None if n is None else np.arange(n) % 3
    toy = SimpleNamespace(n=n, name="toy", row_smoothness=lambda: SIZES, targets=lambda: targets)
    sampler.start(toy, seed)
    return sampler


def rows(batches):
    return [None if b.rows is None else backend.to_host(b.rows).tolist() for b in batches]


@pytest.mark.parametrize("kind", ALL)
def test_batches_are_slices_of_the_epochs_order(kind, device):
    sampler = started(kind(4))
    assert sampler.steps_per_epoch == 3
    batches = list(sampler.take(7))
    assert [b.epoch for b in batches] == [0, 0, 0, 1, 1, 1, 2]
    assert [len(r) for r in rows(batches)] == [4, 4, 2, 4, 4, 2, 4]
    for e in (0, 1):
        assert sum(rows(batches)[3 * e : 3 * e + 3], []) == sampler.epoch(e)[0].tolist()


@pytest.mark.parametrize("kind", ALL)
def test_an_order_is_a_function_of_seed_and_epoch(kind):
    a, b, c = started(kind(3)), started(kind(3)), started(kind(3), seed=4)
    assert rows(a.take(8)) == rows(b.take(2)) + rows(b.take(1)) + rows(b.take(5)) != rows(c.take(8))


def test_without_replacement_every_row_comes_once_an_epoch():
    for kind in (ShuffleOnce, RandomReshuffling):
        sampler = started(kind(3))
        for _ in range(3):
            assert sorted(sum(rows(sampler.take(4)), [])) == list(range(10))


def test_shuffle_once_repeats_its_batches_and_reshuffling_does_not():
    once, again = started(ShuffleOnce(3)), started(RandomReshuffling(3))
    a, b = list(once.take(4)), list(once.take(4))
    assert rows(a) == rows(b) and [x.key for x in a] == [x.key for x in b] == [0, 1, 2, 3]
    assert rows(again.take(4)) != rows(again.take(4)) and next(again.take(1)).key is None


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [1, 3])
def test_a_span_is_the_next_batches_of_an_epoch_as_arrays(kind, size):
    a, b = started(kind(size)), started(kind(size))
    list(a.take(a.steps_per_epoch)), list(b.take(b.steps_per_epoch))
    order, weights = a.span(2)
    batches = list(b.take(2))
    assert order.tolist() == sum(rows(batches), []) and a.taken == b.taken - 2  # who runs them counts them
    if kind is Importance:
        np.testing.assert_array_equal(weights, np.concatenate([batch.weights for batch in batches]))
    else:
        assert weights is None


@pytest.mark.parametrize("n, size", [(10, 3), (10, 1), (10, 10), (10, None), (12, 4), (7, 5)])
def test_parallel_streams_go_through_the_rows_in_order(n, size, device):
    sampler, streams = started(Sequential(size), n), []
    for start in range(n // (size or n) * (size or n)):  # slow: one stream after the other, row by row
        if start % (n // (size or n)) == 0:
            streams.append([])
        streams[-1].append(start)
    slow = [list(batch) for batch in zip(*streams, strict=True)]
    assert sampler.steps_per_epoch == len(slow)
    batches = list(sampler.take(2 * len(slow)))
    assert [r if r is not None else list(range(n)) for r in rows(batches)] == 2 * slow  # every epoch is the same
    assert [b.key for b in batches] == 2 * list(range(len(slow))) and {b.weights is None for b in batches} == {True}


def test_with_replacement_is_uniform():
    sampler = started(WithReplacement(1), n=8)
    counts = np.bincount(sampler.rows(8000), minlength=8)
    assert ((counts - 1000) ** 2 / 1000).sum() < 29  # chi-square, 7 degrees of freedom: p = 1e-4


def test_a_full_batch_is_all_rows_in_order_for_shuffles_and_a_sample_with_replacement():
    for kind in (ShuffleOnce, RandomReshuffling):
        assert rows(started(kind(10)).take(2)) == rows(started(kind(None)).take(2)) == [None, None]
    (sample,) = rows(started(WithReplacement(10)).take(1))
    assert len(sample) == 10 and len(set(sample)) < 10


def test_the_short_batch_is_used_or_dropped():
    assert [len(r) for r in rows(started(RandomReshuffling(4, drop_last=True)).take(4))] == [4, 4, 4, 4]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [1, 3, 10])
def test_rows_are_the_rows_of_the_same_batches(kind, size):
    a, b = started(kind(size)), started(kind(size))
    flat = [r if r is not None else list(range(10)) for r in rows(a.take(9))]
    assert b.rows(9).tolist() == sum(flat, []) and a.state() == b.state() == {"taken": 9}


def test_resuming_is_setting_one_number():
    a, b = started(RandomReshuffling(3)), started(RandomReshuffling(3))
    list(a.take(6))
    b.load_state(a.state())
    assert rows(a.take(5)) == rows(b.take(5))


def test_a_batch_counts_as_taken_when_it_is_handed_out():
    sampler = started(RandomReshuffling(3))
    for batch in sampler.take(100):
        if batch.epoch == 2:
            break
    assert sampler.taken == 9


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="batch_size 11 is larger than the 10 rows of toy"):
        started(RandomReshuffling(11))
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="batch_size must be a whole number"):
            WithReplacement(wrong)
    with pytest.raises(ValueError, match="no fixed rows"):
        started(WithReplacement(1), n=None)


# ---------------------------------------------------------------------------------------------------------- importance
def heavy(rng, n=40, l2=0.2):
    """Logistic regression whose rows differ in length."""
    X = rng.standard_normal((n, 4)) * rng.lognormal(0, 1, n)[:, None]
    return Logistic(X, np.where(rng.random(n) < 0.5, 1.0, -1.0), l2)


def row_gradients(problem, x):
    g, found = np.empty(problem.dim), []
    for i in range(problem.n):
        problem.value_and_gradient(x, np.array([i]), None, g)
        found.append(g.copy())
    return np.array(found)


@pytest.mark.parametrize(
    "sampler",
    [Importance(), Importance(by="norms"), Importance(by="norms", mix=0.3), Importance(by=np.arange(1, 41) / 820)],
    ids=lambda s: f"{str(s.by)[:8]} {s.mix}",
)
def test_weights_keep_the_gradient_unbiased_and_the_variance_is_the_identity(sampler, rng):
    """sum_i p_i w_i grad f_i = grad f;  Var = sum_i |grad f_i|^2 / (n^2 p_i) - |grad f|^2."""
    problem, x = heavy(rng), rng.standard_normal(4)
    sampler.start(problem, 0)
    p, each, full = sampler.probabilities, row_gradients(problem, x), np.empty(4)
    problem.value_and_gradient(x, None, None, full)
    order, weights = sampler.epoch(0)
    w = np.full(40, np.nan)
    w[order] = weights
    drawn = np.isfinite(w)
    np.testing.assert_allclose(w[drawn], 1 / (40 * p[drawn]), rtol=1e-13)
    np.testing.assert_allclose((each / 40).sum(0), full, rtol=1e-12)
    estimates = each / (40 * p)[:, None]
    np.testing.assert_allclose(p @ estimates, full, rtol=1e-12, atol=1e-15)
    variance = p @ np.sum((estimates - full) ** 2, 1)
    assert variance == pytest.approx(np.sum(np.sum(each**2, 1) / (40**2 * p)) - full @ full, rel=1e-12)
    assert problem.gradient_variance(x, None, p) == pytest.approx(variance, rel=1e-11)


def test_probabilities_follow_the_rule(rng):
    problem = heavy(rng)
    norms = np.linalg.norm(problem.host_X, axis=1)
    for by, size in (("smoothness", norms**2 / 4 + 0.2), ("norms", norms)):
        sampler = Importance(by=by, mix=0.25)
        sampler.start(problem, 0)
        np.testing.assert_allclose(sampler.probabilities, 0.75 * size / size.sum() + 0.25 / 40, rtol=1e-12)


def test_the_optimal_probabilities_have_the_least_variance(rng):
    problem, x = heavy(rng), rng.standard_normal(4)
    norms = np.linalg.norm(row_gradients(problem, x), axis=1)
    full = np.linalg.norm(row_gradients(problem, x).mean(0))
    best = problem.gradient_variance(x, None, norms / norms.sum())
    assert best == pytest.approx(norms.mean() ** 2 - full**2, rel=1e-10)
    for _ in range(20):
        assert problem.gradient_variance(x, None, rng.dirichlet(np.full(40, 5.0))) > best


def chi_square(counts, p):
    expected = p * counts.sum()
    return ((counts - expected) ** 2 / expected).sum()


def test_rows_come_as_often_as_the_probabilities_say():
    sampler = started(Importance(1))
    p = SIZES / SIZES.sum()
    np.testing.assert_allclose(sampler.probabilities, p)
    assert chi_square(np.bincount(sampler.rows(20000), minlength=10), p) < 34  # 9 degrees: p = 1e-4


def test_adaptive_draws_follow_the_probabilities_of_the_moment(rng):
    sampler = AdaptiveImportance(5, 0.4, 0.2)
    sampler.start(SimpleNamespace(n=10, name="toy"), 3)
    sampler.taken = 2  # the first pass is over
    importance.learn(sampler._tree, sampler.psi, np.arange(10), SIZES, 1.0)
    p = 0.8 * SIZES / SIZES.sum() + 0.2 / 10
    np.testing.assert_allclose(sampler.taken + 1, 3)
    counts = np.zeros(10, int)
    for batch in sampler.take(4000):
        counts += np.bincount(batch.rows, minlength=10)
        np.testing.assert_allclose(batch.weights, 1 / (10 * p[batch.rows]), rtol=1e-12)
    np.testing.assert_allclose(sampler.probabilities, p, rtol=1e-12)
    assert chi_square(counts, p) < 34


def test_the_tree_holds_the_cumulative_sums(rng):
    for n in (1, 2, 7, 8, 100):
        tree, psi, slow = np.zeros(n + 1), np.zeros(n), np.zeros(n)
        for _ in range(30):
            rows_, norms = rng.integers(0, n, 3), rng.random(3) * (rng.random(3) < 0.8)
            importance.learn(tree, psi, rows_, norms, 0.3)
            for i, norm in zip(rows_, norms, strict=True):
                slow[i] = 0.7 * slow[i] + 0.3 * norm
        np.testing.assert_allclose(psi, slow, rtol=1e-12)
        u = rng.random((200, 2))
        u[:, 0], u[0, 1], u[1, 1] = 1.0, 0.0, np.nextafter(1, 0)
        found, weights = np.empty(200, np.int64), np.empty(200)
        importance.draw(tree, psi, u, 0.1, found, weights)
        expected = np.searchsorted(np.cumsum(slow), u[:, 1] * slow.sum(), side="right")
        agree = found == np.minimum(expected, n - 1)
        assert agree.mean() > 0.98 and (psi[found] > 0).all()  # a draw on a border may round to either side


def test_adaptive_first_pass_sets_the_norms_and_later_ones_smooth_them(rng):
    problem, x = heavy(rng), rng.standard_normal(4)
    sampler = AdaptiveImportance(3, 0.4, 0.2)
    sampler.start(problem, 5)
    norms = np.linalg.norm(row_gradients(Logistic(problem.host_X, problem.host_y), x), axis=1)
    seen = []
    for batch in sampler.take(sampler.steps_per_epoch):
        assert batch.weights is None and sampler.probabilities is None
        problem.value_and_gradient(x, batch.rows, None, np.empty(4))
        sampler.observe(batch, problem)
        seen += list(batch.rows)
    assert sorted(seen) == list(range(40))
    np.testing.assert_allclose(sampler.psi, norms, rtol=1e-12)
    psi, y = sampler.psi.copy(), rng.standard_normal(4)
    (batch,) = sampler.take(1)
    p = 0.8 * psi / psi.sum() + 0.2 / 40
    np.testing.assert_allclose(batch.weights, 1 / (40 * p[batch.rows]), rtol=1e-12)
    problem.value_and_gradient(y, batch.rows, None, np.empty(4))
    sampler.observe(batch, problem)
    at_y = np.linalg.norm(row_gradients(Logistic(problem.host_X, problem.host_y), y), axis=1)
    for i in batch.rows:  # once for each time that the row came
        psi[i] = 0.6 * psi[i] + 0.4 * at_y[i]
    np.testing.assert_allclose(sampler.psi, psi, rtol=1e-12)


def test_adaptive_runs_resume_bitwise_and_lower_the_variance(rng, tmp_path):
    problem = heavy(rng, 200, 0.05)
    common = dict(optimizer=SGD(), sampler=AdaptiveImportance(4), schedule=0.002, seed=3)
    whole = minimize(problem, **common, stop=Stop(epochs=6), events=Events(1, variance=True))
    minimize(problem, **common, stop=Stop(epochs=2.5), events=Events(1, checkpoint=tmp_path / "c.npz", variance=True))
    rest = minimize(
        problem, **common, stop=Stop(epochs=6), events=Events(1, checkpoint=tmp_path / "c.npz", variance=True)
    )
    np.testing.assert_array_equal(whole.x, rest.x)
    uniform = problem.gradient_variance(whole.x)
    assert whole.loop == "python" and whole.final["variance"] < 0.7 * uniform


def test_adaptive_on_a_device(rng, device):
    problem = heavy(rng)
    found = []
    for name in (device, "cpu"):
        backend.use(name)
        again = Logistic(problem.host_X, problem.host_y, 0.2)
        found.append(backend.to_host(minimize(again, SGD(), AdaptiveImportance(4), 0.01, stop=Stop(epochs=4)).x))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)


# ------------------------------------------------------------------------------------------------------------ by class
def test_classes_come_in_order_and_are_reshuffled_within():
    sampler = started(ByClass(4))
    for e in range(3):
        order, _ = sampler.epoch(e)
        assert (np.diff(order % 3) >= 0).all() and sorted(order) == list(range(10))
    assert started(ByClass()).epoch(0)[0].tolist() != started(ByClass()).epoch(1)[0].tolist()


def test_real_targets_are_sorted_and_networks_have_targets(rng):
    y = rng.standard_normal(9)
    sampler = ByClass(2)
    sampler.start(LeastSquares(rng.standard_normal((9, 2)), y), 0)
    np.testing.assert_array_equal(sampler.epoch(4)[0], np.argsort(y))
    from nn.networks import mlp

    digits = load("digits")
    sampler.start(Neural(mlp((64, 4, 10)), Images(digits)), 0)
    assert (np.diff(digits.y_train[sampler.epoch(1)[0]]) >= 0).all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda p, q: Importance(by="size"), 'by must be "smoothness"'),
        (lambda p, q: Importance(mix=2), "mix must lie"),
        (lambda p, q: Importance(by=[0.5, 0.6]), "sum to 1"),
        (lambda p, q: Importance(by=[1.5, -0.5]), "numbers >= 0"),
        (lambda p, q: Importance(by=[0.5, 0.5]).start(p, 0), "2 probabilities for the 3 rows"),
        (lambda p, q: Importance(by="norms").start(p, 0), "row 1 of .* would never be drawn; give mix > 0"),
        (lambda p, q: Importance(by="norms").start(q, 0), "does not know what"),
        (lambda p, q: AdaptiveImportance(a=0), "a must lie in"),
        (lambda p, q: AdaptiveImportance(c=1.5), "c must lie in"),
        (lambda p, q: minimize(q, SGD(), AdaptiveImportance()), "does not know the gradient norms"),
        (lambda p, q: ByClass().start(q, 0), "has no targets"),
    ],
)
def test_bad_input_gets_one_sentence(wrong, message):
    X = np.array([[1.0, 2.0], [0, 0], [3, 4]])
    with pytest.raises(ValueError, match=message):
        wrong(LeastSquares(X, np.ones(3), 0.1), Quadratic([1.0, 2.0], n=5))


def test_one_row_and_equal_rows(rng):
    for sampler in (Importance(1), Importance(1, "norms"), AdaptiveImportance(1), ByClass(1)):
        problem = LeastSquares(np.ones((1, 2)), np.ones(1))
        assert minimize(problem, SGD(), sampler, 0.1, stop=Stop(epochs=3)).final["step"] == 3
    equal = Importance(1)
    equal.start(LeastSquares(np.ones((7, 2)), np.ones(7)), 0)
    np.testing.assert_allclose(equal.probabilities, 1 / 7)
    assert Batch(np.arange(2)).weights is None
