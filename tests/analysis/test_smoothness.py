"""Local smoothness along a step against closed forms and a slow reference."""

import math

from npopt import SGD, Batch, Clipped, Events, Minibatch, RandomReshuffling, Sequential, Stop, backend, minimize
from npopt.analysis import LocalSmoothness, Relation, local_smoothness, relation
from npopt.analysis.smoothness import FRACTIONS
from problems import Quadratic
from problems.followed import NAMES, followed_language, followed_resnet
from problems.steep import Steep

import numpy as np
import pytest


def test_on_a_quadratic_it_is_the_length_of_the_product_with_the_direction(rng, device):
    backend.use(device)
    A = rng.standard_normal((7, 7))
    A = A @ A.T
    problem = Quadratic(A, rng.standard_normal(7), n=5, noise=3.0)
    x, d = rng.standard_normal((2, 7))
    found = local_smoothness(problem, *(backend.asarray(v) for v in (x, x + d)))
    np.testing.assert_allclose(found.ratios, np.linalg.norm(A @ d) / np.linalg.norm(d), rtol=1e-9)
    assert isinstance(found, LocalSmoothness)
    assert found.norm == pytest.approx(np.linalg.norm(A @ x - problem.exact_b), rel=1e-12)
    assert found.moved == pytest.approx(np.linalg.norm(d), rel=1e-12) and math.isnan(found.other)
    v = np.linalg.eigh(A)[1][:, -1]
    top = local_smoothness(problem, *(backend.asarray(u) for u in (x, x + 0.1 * v)))
    assert top.largest == pytest.approx(problem.smoothness(), rel=1e-9)


def test_on_a_wall_it_is_the_chord_of_the_exponential_and_its_supremum_at_the_steeper_end():
    L0, L1, u, d, fractions = 0.7, 2.5, 3.0, 0.4, (0.1, 0.35, 1.0)
    problem = Steep([u], L0, L1)

    def chord(c, d):
        return (L0 / L1) * math.exp(L1 * u - 1) * math.expm1(L1 * c * d) / (c * d)

    for step in (d, -d):
        found = local_smoothness(problem, np.array([u]), np.array([u + step]), fractions=fractions)
        np.testing.assert_allclose(found.ratios, [chord(c, step) for c in fractions], rtol=1e-10)
        curvature = L0 * math.exp(L1 * u - 1)  # phi''(u), the supremum where the step goes down
        assert found.largest == pytest.approx(chord(1, d) if step > 0 else chord(0.1, -d), rel=1e-10)
        assert found.largest > curvature if step > 0 else found.largest < curvature
    tiny = local_smoothness(problem, np.array([u]), np.array([u - d]), fractions=(1e-6,))
    assert tiny.largest == pytest.approx(L0 * math.exp(L1 * u - 1), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_slow_loop_finds_no_more_than_the_largest_curvature_on_the_segment(seed):
    """Five points are a lower bound of the supremum over the segment, which is one of |Hess f|; a fine walk says how
    far below."""
    rng = np.random.default_rng(seed)
    x, y = 4 * rng.standard_normal((2, 3))
    problem, g0, g = Steep(x), np.empty(3), np.empty(3)
    problem.value_and_gradient(x, out=g0)
    walk, highest = {}, 0.0
    for c in [*np.linspace(1e-3, 1, 1000), *FRACTIONS]:
        z = np.array([a + c * (b - a) for a, b in zip(x, y, strict=True)])
        problem.value_and_gradient(z, out=g)
        total = sum((float(a) - float(b)) ** 2 for a, b in zip(g, g0, strict=True))
        walk[c] = math.sqrt(total) / (c * math.sqrt(sum((b - a) ** 2 for a, b in zip(x, y, strict=True))))
        highest = max(highest, problem.metrics(z)["curvature"])
    found = local_smoothness(problem, x, y)
    np.testing.assert_allclose(found.ratios, [walk[c] for c in FRACTIONS], rtol=1e-9)
    assert found.largest <= max(walk.values()) * (1 + 1e-12) <= max(highest, problem.metrics(x)["curvature"]) * 1.001


def test_noise_of_the_rows_cancels_on_the_same_rows_and_is_divided_by_the_step_on_others(rng):
    """f_i = x'x/2 + c_i'x: on the same rows the ratio is 1 for every step; on others |d/2 + c_b - c_a| / |d/2|."""
    problem = Quadratic(np.ones(6), np.zeros(6), n=40, noise=2.0)
    x, d, a, b = rng.standard_normal(6), rng.standard_normal(6), np.arange(8), np.arange(8, 16)
    g, apart = np.empty(6), {}
    for name, rows in (("a", a), ("b", b)):
        problem.value_and_gradient(np.zeros(6), rows, out=g)
        apart[name] = g.copy()
    for size in (1.0, 1e-3):
        found = local_smoothness(problem, x, x + size * d, a, others=b)
        np.testing.assert_allclose(found.ratios, 1, rtol=1e-9)
        half = size * d / 2
        wanted = np.linalg.norm(half + apart["b"] - apart["a"]) / np.linalg.norm(half)
        assert found.other == pytest.approx(wanted, rel=1e-9) and found.other > (1.5 if size == 1 else 500)


def test_a_step_of_no_length_is_refused():
    x = np.ones(2)
    with pytest.raises(ValueError, match="the same point"):
        local_smoothness(Steep(x), x, x.copy())
    with pytest.raises(ValueError, match="a fraction"):
        local_smoothness(Steep(x), x, x + 1, fractions=(0.0,))


def test_a_relation_is_that_of_the_logarithms_and_of_the_line():
    norms = np.geomspace(0.1, 50, 40)
    exact = relation(norms, 3 * norms**1.7)
    assert isinstance(exact, Relation) and exact.correlation == pytest.approx(1) and exact.slope == pytest.approx(1.7)
    line = relation(norms, 2 + 0.5 * norms)
    assert line.L0 == pytest.approx(2) and line.L1 == pytest.approx(0.5) and 0 < line.slope < 1
    u, v = np.log(norms), np.log(2 + 0.5 * norms)
    assert line.correlation == pytest.approx(np.corrcoef(u, v)[0, 1], rel=1e-12)
    assert line.slope == pytest.approx(np.polyfit(u, v, 1)[0], rel=1e-9)
    falling = relation(norms, 5 / norms)
    assert falling.correlation == pytest.approx(-1) and falling.L1 == 0  # coefficients are not negative


@pytest.mark.parametrize("kind", ["language", "resnet"])
def test_a_followed_network_measures_its_own_steps_and_changes_nothing(kind):
    """Columns against a loop written out, with the twin's gradients by hand; and the run is that of a plain network."""
    if kind == "language":
        problem, sampler, lr, estimator = (
            followed_language("chain", 6, 3, 8, length=5, streams=4),
            Sequential(4),
            3.0,
            None,
        )
        plain = followed_language("chain", 6, 10**6, 8, length=5, streams=4)
    else:
        problem, sampler, lr, estimator = (
            followed_resnet("digits", 2, 3, 16, 200),
            RandomReshuffling(16),
            0.1,
            Clipped(0.3),
        )
        plain = followed_resnet("digits", 2, 10**6, 16, 200)
    stop = Stop(steps=7)
    run = minimize(problem, SGD(), sampler, lr, estimator, stop=stop, seed=3, events=Events(1, "step"))
    other = minimize(plain, SGD(), sampler, lr, estimator, stop=stop, seed=3, events=Events(None))
    np.testing.assert_array_equal(run.x, other.x)
    seen = np.flatnonzero(np.isfinite(run.columns["smoothness"]))
    assert seen.tolist() == [3, 6] and set(NAMES) <= set(run.columns)

    points = [minimize(plain, SGD(), sampler, lr, estimator, stop=Stop(steps=s), seed=3, events=Events(None)).x
              for s in (5, 6)]  # fmt: skip
    x, d = points[0], points[1] - points[0]
    oracle = Minibatch()
    first, there = (oracle.start(plain.twin, x, 0) for _ in "ab")
    loss = oracle(x, Batch(problem.slice), first)
    ratios = {}
    for c in FRACTIONS:
        oracle(x + c * d, Batch(problem.slice), there)
        ratios[c] = np.linalg.norm(there - first) / np.linalg.norm(c * d)
    oracle(x + d / 2, Batch(problem.others), there)
    wanted = loss, np.linalg.norm(first), max(ratios.values()), ratios[1 / 2]
    wanted = *wanted, np.linalg.norm(there - first) / np.linalg.norm(d / 2), np.linalg.norm(d)
    np.testing.assert_allclose([run.columns[name][6] for name in NAMES], wanted, rtol=1e-4)  # float32
    assert not set(problem.slice) & set(problem.others) and len(problem.slice) == len(problem.others)


def test_a_run_is_followed_where_nothing_may_be_read(device):
    found = []
    for name in (device, "cpu"):
        backend.use(name)
        problem = followed_language("chain", 6, 2, 8, length=5, streams=4)
        found.append(minimize(problem, SGD(), Sequential(4), 3.0, stop=Stop(steps=2), events=Events(2, "step")))
    for name in NAMES:
        np.testing.assert_allclose(
            *(run.columns[name][-1] for run in found), rtol=2e-3
        )  # float32, other orders of sums


def test_a_followed_run_that_is_broken_goes_on_bit_for_bit(tmp_path):
    def go(steps, path=None):
        problem = followed_language("chain", 6, 3, 8, length=5, streams=4)
        return minimize(problem, SGD(), Sequential(4), 3.0, stop=Stop(steps=steps), seed=1,
                        events=Events(3, "step", checkpoint=path))  # fmt: skip

    go(4, tmp_path / "run.npz")
    whole, resumed = go(9), go(9, tmp_path / "run.npz")
    np.testing.assert_array_equal(whole.x, resumed.x)
    for name in NAMES:
        np.testing.assert_array_equal(whole.columns[name], resumed.columns[name])
