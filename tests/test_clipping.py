"""Gradients that are shortened before a step: slow loops, and what the forms have in common."""

from types import SimpleNamespace

import nn
from npopt import (
    SGD,
    Accumulated,
    Batch,
    Clipped,
    ClippedBySegment,
    ClippedByValue,
    Constant,
    HeavyBall,
    MixedClipping,
    Normalised,
    NormalisedMomentum,
    RandomReshuffling,
    Stop,
    backend,
    minimize,
)
from npopt.segments import Segments
from problems import LeastSquares
from problems.datasets import Dataset
from problems.feeds import Table
from problems.neural import Neural

import numpy as np
import pytest

PARTS = {"a": slice(0, 3), "b": slice(3, 4), "c": slice(4, 9)}


class Pieces(LeastSquares):
    """Least squares whose unknowns are in three segments."""

    def __init__(self, A, b):
        super().__init__(A, b, l2=0.1)
        self.segments = Segments.of(*((name, (s.stop - s.start,), "vector", name) for name, s in PARTS.items()))


def data():
    rng = np.random.default_rng(5)
    A = rng.standard_normal((20, 9)) * np.geomspace(0.1, 3, 9)
    return A, A @ rng.standard_normal(9) + rng.standard_normal(20)


def length(v):
    return sum(float(a) ** 2 for a in v) ** 0.5


def by_norm(g, c):
    return g if length(g) <= c else g * (c / length(g))


def by_value(g, c):
    return np.array([max(-c, min(c, float(a))) for a in g])


def by_segment(g, c):
    return np.concatenate([by_norm(g[s], c) for s in PARTS.values()])


def normalised(g, beta):
    return g / (length(g) + beta)


SLOW = {Clipped: (by_norm, 6.0), ClippedByValue: (by_value, 0.7), ClippedBySegment: (by_segment, 1.1)}
SLOW |= {Normalised: (normalised, 0.6)}


@pytest.mark.parametrize("dtype, near", [("float64", 1e-12), ("float32", 2e-4)])
@pytest.mark.parametrize("kind", SLOW)
def test_trajectories_of_sgd_on_clipped_gradients(kind, dtype, near, device):
    """Steps on drawn batches at changing rates; numbers that are cut and others that are not must occur."""
    (shorten, c), (A, b), rng = SLOW[kind], data(), np.random.default_rng(6)
    problem = Pieces(A.astype(dtype), b.astype(dtype))
    cut = []
    for inner in (None, Accumulated(3)):
        estimator, optimizer = kind(c, inner), SGD()
        x, fast = np.ones(9), backend.asarray(np.ones(9, dtype))
        g = estimator.start(problem, fast, 0)
        optimizer.start(fast, estimator)
        for _ in range(20):
            rows, lr = rng.integers(0, 20, 4), float(rng.uniform(0.01, 0.05))
            estimator(fast, Batch(backend.asarray(rows)), out=g)
            optimizer.step(fast, g, lr)
            plain = A[rows].T @ (A[rows] @ x - b[rows]) / 4 + 0.1 * x
            short = shorten(plain, c)
            cut.append((short != plain).mean())
            x = x - lr * short
            np.testing.assert_allclose(backend.to_host(fast), x, rtol=near, atol=near)
    assert np.mean(cut) == 1 if kind is Normalised else 0.1 < np.mean(cut) < 0.9


@pytest.mark.parametrize("kind", SLOW)
def test_zeros_stay_zero_and_what_is_not_a_number_stays_so(kind, device):
    def gradient(x, rows, weights, out):
        out[...] = x
        return 1.0

    problem = SimpleNamespace(n=1, value_and_gradient=gradient)
    estimator, x = kind(0.5) if kind is not Normalised else Normalised(), backend.zeros(4, "float64")
    g = estimator.start(problem, x, 0)
    estimator(x, Batch(None), out=g)
    np.testing.assert_array_equal(backend.to_host(g), 0)
    x[1] = np.nan
    estimator(x, Batch(None), out=g)
    assert np.isnan(backend.to_host(g)[1])
    estimator.again(x * 0 + 7, g)  # of which methods take differences: not clipped
    np.testing.assert_array_equal(backend.to_host(g)[[0, 2, 3]], 7)


def gradient_of(estimator, plain):
    x = plain.copy()
    problem = SimpleNamespace(n=1, value_and_gradient=lambda x, rows, weights, out: out.__setitem__(..., x) or 0.0)
    problem.segments = Segments.of(*((name, (s.stop - s.start,), "vector", name) for name, s in PARTS.items()))
    g = estimator.start(problem, x, 0)
    estimator(x, Batch(None), out=g)
    return g


def test_segments_are_clipped_by_themselves_and_the_whole_is_not(rng):
    plain = rng.standard_normal(9)
    plain[PARTS["a"]] *= 100
    g = gradient_of(ClippedBySegment(5.0), plain)
    assert np.linalg.norm(g[PARTS["a"]]) == pytest.approx(5)
    np.testing.assert_array_equal(g[3:], plain[3:])  # a long segment does not shorten the others
    assert np.abs(gradient_of(Clipped(5.0), plain)[3:] / plain[3:] - 5 / np.linalg.norm(plain)).max() < 1e-12
    assert np.linalg.norm(gradient_of(ClippedBySegment(0.01), plain)) == pytest.approx(0.01 * 3**0.5)


def test_normalised_and_clipped_steps_differ_by_at_most_a_factor_of_two(rng):
    """Zhang J. et al., ICLR 2020, section 2: h_c / 2 <= h_n <= h_c with eta_n = gamma eta_c and beta = gamma."""
    eta, gamma = 0.3, 1.7
    ratios = []
    for size in np.geomspace(1e-3, 1e3, 31) * gamma:
        plain = rng.standard_normal(9)
        plain *= size / np.linalg.norm(plain)
        clipped = eta * gradient_of(Clipped(gamma), plain)
        smooth = gamma * eta * gradient_of(Normalised(gamma), plain)
        ratios.append(float(smooth @ plain / (clipped @ plain)))
    assert min(ratios) == pytest.approx(0.5, abs=1e-12) and 0.99 < max(ratios) <= 1  # at |g| = gamma


def test_clipping_comes_after_unscaling():
    """The loss is scaled by 2^16, the gradient that is clipped is not: the same bits as with a scale of 1."""
    rng = np.random.default_rng(2)
    rows = Dataset(
        "n", "classification", rng.standard_normal((30, 4)), rng.integers(0, 3, 30), None, None, None, "", ""
    )
    runs = []
    for scale in (1.0, 2.0**16):
        problem = Neural(nn.mlp((4, 5, 3), nn.Tanh), Table(rows), loss_scale=scale)
        for estimator in (Clipped(0.2), ClippedByValue(0.02), ClippedBySegment(0.1)):
            run = minimize(problem, HeavyBall(0.5), RandomReshuffling(6), 0.3, estimator, stop=Stop(steps=12), seed=1)
            runs.append(run.x)
    for one, other in zip(runs[:3], runs[3:], strict=True):
        np.testing.assert_array_equal(one, other)


def run_of(optimizer, estimator=None, steps=30, lr=0.05):
    problem = Pieces(*data())
    return minimize(problem, optimizer, RandomReshuffling(4), Constant(lr), estimator, stop=Stop(steps=steps), seed=3).x


def test_mixed_clipping_at_its_ends_is_clipped_sgd_and_momentum_clipping():
    gamma, lr = 0.08, 0.05
    for beta in (0.0, 0.9):
        # nu = 0: SGD whose gradient is clipped to gamma / lr, whatever beta is
        np.testing.assert_allclose(
            run_of(MixedClipping(gamma, beta, 0.0)), run_of(SGD(), Clipped(gamma / lr)), rtol=1e-11
        )
    # beta = 0 makes m = g: then nu does not matter
    np.testing.assert_allclose(
        run_of(MixedClipping(gamma, 0.0, 0.4)), run_of(MixedClipping(gamma, 0.0, 1.0)), rtol=1e-11
    )
    # a bound that is never met, nu = 1: heavy ball in its EMA form
    ema = run_of(HeavyBall(0.9), lr=lr * (1 - 0.9))
    for soft in (False, True):
        np.testing.assert_allclose(run_of(MixedClipping(1e12, 0.9, 1.0, soft)), ema, rtol=1e-9)
    moved, optimizer = np.zeros(9), MixedClipping(gamma, 0.5, 1.0)
    optimizer.start(moved)
    for t in range(5):  # momentum clipping: no step is longer than gamma
        before = moved.copy()
        optimizer.step(moved, 1000.0 * np.random.default_rng(t).standard_normal(9), lr)
        assert np.linalg.norm(moved - before) == pytest.approx(gamma, rel=1e-12)


def test_steps_of_normalised_momentum_have_the_length_of_the_rate(rng):
    optimizer, x = NormalisedMomentum(0.8), np.zeros(6)
    optimizer.start(x)
    optimizer.step(x, np.zeros(6), 0.3)
    np.testing.assert_array_equal(x, 0)  # no direction yet
    for scale in (1e-8, 1.0, 1e9):
        before = x.copy()
        optimizer.step(x, scale * rng.standard_normal(6), 0.3)
        assert np.linalg.norm(x - before) == pytest.approx(0.3, rel=1e-9)
    np.testing.assert_allclose(run_of(NormalisedMomentum(0.0)), run_of(SGD(), Normalised()), rtol=1e-10)


def test_gradients_in_pieces_and_bad_arguments_get_one_sentence():
    for optimizer, words in (
        (MixedClipping(1.0), "norms are those of the whole"),
        (NormalisedMomentum(), "the whole momentum"),
    ):
        x = np.zeros(4)
        optimizer.start(x)
        with pytest.raises(ValueError, match=words):
            optimizer.step(x, [(slice(0, 4), np.ones(4))], 0.1)
    for wrong in (lambda: ClippedByValue(0), lambda: ClippedBySegment(-1.0), lambda: Normalised(-1.0)):
        with pytest.raises(ValueError, match=r"\w+: (c|beta) must"):
            wrong()
