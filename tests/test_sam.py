"""Sharpness-aware gradients against loops written from Foret et al. 2021 and Kwon et al. 2021."""

from nn import BatchNorm, Dropout, Linear, Network, ReLU, Sequential
from npopt import (
    ASAM,
    SAM,
    SGD,
    Accumulated,
    Batch,
    Clipped,
    Events,
    HeavyBall,
    Minibatch,
    RandomReshuffling,
    Stop,
    WithReplacement,
    backend,
    minimize,
)
from problems import LeastSquares, Logistic, Neural, datasets
from problems.feeds import CropFlip, Images

import numpy as np
import pytest

BOTH = [SAM(0.3), ASAM(0.4, 0.07)]


def regression():
    rng = np.random.default_rng(5)
    A = rng.standard_normal((20, 9)) * np.geomspace(0.1, 3, 9)
    return A, np.sign(A @ rng.standard_normal(9) + rng.standard_normal(20))


def slow_gradient(A, b, x, rows, weights):
    """Logistic loss with l2 = 0.1, row by row."""
    g = np.zeros_like(x)
    for i, w in zip(rows, weights, strict=True):
        g += w / len(rows) * (-b[i] / (1 + np.exp(b[i] * (A[i] @ x))) * A[i] + 0.1 * x)
    return g


def slow_shift(method, x, g):
    """e of the papers, number by number."""
    T = [abs(v) + method.eta for v in x] if isinstance(method, ASAM) else [1.0] * len(x)
    size = sum((t * v) ** 2 for t, v in zip(T, g, strict=True)) ** 0.5
    return np.array([method.rho * t * t * v / size for t, v in zip(T, g, strict=True)])


@pytest.mark.parametrize("dtype, near", [("float64", 1e-11), ("float32", 3e-4)])
@pytest.mark.parametrize("method", BOTH, ids=repr)
@pytest.mark.parametrize("pieces", [None, 3])
def test_trajectories_with_momentum_on_weighted_batches(method, pieces, dtype, near, device):
    (A, b), rng = regression(), np.random.default_rng(6)
    problem = Logistic(A.astype(dtype), b.astype(dtype), 0.1)
    inner = None if pieces is None else Accumulated(pieces)
    method = SAM(method.rho, inner) if type(method) is SAM else ASAM(method.rho, method.eta, inner)
    optimizer, beta = HeavyBall(0.7), 0.7
    x, m = rng.standard_normal(9), np.zeros(9)
    fast = backend.asarray(x.copy(), dtype)
    g = method.start(problem, fast, 0)
    optimizer.start(fast, method)
    for step in range(1, 16):
        rows, weights, lr = rng.integers(0, 20, 4), rng.uniform(0.5, 2, 4), float(rng.uniform(0.02, 0.1))
        loss = method(fast, Batch(backend.asarray(rows), backend.asarray(weights, dtype)), out=g)
        first = float(backend.to_host(problem.value(fast, backend.asarray(rows), backend.asarray(weights, dtype))))
        assert float(backend.to_host(loss)) == pytest.approx(first, rel=1e-5)  # at x, and x has not moved
        optimizer.step(fast, g, lr)
        e = slow_shift(method, x, slow_gradient(A, b, x, rows, weights))
        m = beta * m + slow_gradient(A, b, x + e, rows, weights)
        x = x - lr * m
        np.testing.assert_allclose(backend.to_host(fast), x, rtol=near, atol=near)
        assert method.counts == {"gradients": 8 * step, "values": 0, "bytes": 0}


@pytest.mark.parametrize("method", BOTH, ids=repr)
def test_micro_batches_outside_give_every_m_rows_their_own_ball(method):
    A, b = regression()
    x, rows = np.random.default_rng(1).standard_normal(9), np.array([3, 7, 0, 12, 5, 19, 2])
    chain, expected = Accumulated(3, method), np.zeros(9)
    g = chain.start(Logistic(A, b, 0.1), x, 0)
    chain(x, Batch(rows), g)
    for part in (rows[:3], rows[3:6], rows[6:]):
        ones = np.ones(len(part))
        e = slow_shift(method, x, slow_gradient(A, b, x, part, ones))
        expected += len(part) / 7 * slow_gradient(A, b, x + e, part, ones)
    np.testing.assert_allclose(g, expected, rtol=1e-11)
    whole = method.start(chain.problem, x, 0)
    method(x, Batch(rows), whole)
    assert abs(whole - g).max() > 1e-3 * abs(g).max()


@pytest.mark.parametrize("method", BOTH, ids=repr)
def test_the_shift_lies_on_the_ball_and_no_other_raises_a_linear_function_more(method, rng):
    x, g = rng.standard_normal((2, 12))
    method.start(LeastSquares(np.eye(12), np.zeros(12)), x, 0)
    y, T = np.empty(12), np.abs(x) + method.eta if isinstance(method, ASAM) else np.ones(12)
    method.ascend(y, x, g)
    assert np.linalg.norm((y - x) / T) == pytest.approx(method.rho, rel=1e-10)
    for _ in range(100):
        u = rng.standard_normal(12)
        assert g @ (method.rho * T * u / np.linalg.norm(u)) < g @ (y - x)
    method.ascend(y, x, np.zeros(12))
    np.testing.assert_array_equal(y, x)


def relu_network(sizes=(64, 12, 10), dtype="float64"):
    layers = Sequential(a=Linear(sizes[0], sizes[1]), r=ReLU(), b=Linear(sizes[1], sizes[2]))
    return Neural(Network(layers, sizes[:1]), Images(datasets.load("digits").part(60)), dtype=dtype)


def test_without_eta_adaptive_sharpness_is_that_of_all_scalings_of_the_layers_and_sams_is_not(rng):
    problem = relu_network()
    x, scaled = problem.x0(rng), None
    x += 0.1 * rng.standard_normal(x.shape)
    scaled = x.copy()
    for name, factor in (("a.W", 4.0), ("a.b", 4.0), ("b.W", 0.25)):
        scaled[problem.segments.find(name).slice] *= factor
    assert problem.value(scaled) == pytest.approx(problem.value(x), rel=1e-12)
    rises = {}
    for method in (ASAM(0.3, eta=0), SAM(0.3)):
        for which, point in (("x", x), ("scaled", scaled)):
            g, y = method.start(problem, point, 0), np.empty_like(x)
            problem.value_and_gradient(point, out=g)
            method.ascend(y, point, g)
            rises[type(method), which] = problem.value(y) - problem.value(point)
    assert rises[ASAM, "scaled"] == pytest.approx(rises[ASAM, "x"], rel=1e-9)
    assert abs(np.log(rises[SAM, "scaled"] / rises[SAM, "x"])) > 0.1


def digits(augment=None, **more):
    layers = Sequential(a=Linear(64, 12), n=BatchNorm(12), r=ReLU(), d=Dropout(0.3), b=Linear(12, 10))
    return Neural(Network(layers, (64,)), Images(datasets.load("digits").part(200), augment), **more)


def test_a_radius_of_zero_changes_nothing_bit_for_bit():
    """Batch statistics, dropout and augmentation, too: both passes are of one function."""
    for method in (SAM(0.0), ASAM(0.0)):
        runs = [
            minimize(
                digits(CropFlip(1), l2=1e-3),
                HeavyBall(0.9),
                RandomReshuffling(15),
                0.05,
                e,
                stop=Stop(steps=15),
                seed=4,
            )
            for e in (Minibatch(), method)
        ]
        np.testing.assert_array_equal(runs[0].x, runs[1].x)
        assert runs[0].columns["test_loss"] == runs[1].columns["test_loss"]
        assert runs[1].final["gradients"] == 2 * runs[0].final["gradients"]


@pytest.mark.parametrize("method", BOTH, ids=repr)
def test_batch_statistics_are_updated_once_a_step_by_the_pass_at_x(method, rng):
    problem, rows = digits(), np.arange(20)
    x = problem.x0(rng)
    g = method.start(problem, x, 0)
    start, before = problem.state(), x.copy()
    problem.begin(0)
    method(x, Batch(rows), g)
    problem.commit()
    np.testing.assert_array_equal(x, before)
    after = problem.state()["statistics"]["n"]
    found = []
    for there in (x, method._top):
        problem.load_state(start)
        problem.begin(0)
        problem.value_and_gradient(there, rows, None, g)
        problem.commit()
        found.append(problem.state()["statistics"]["n"])
    for name, value in after.items():
        np.testing.assert_array_equal(found[0][name], value)
    assert any(abs(found[1][name] - value).max() > 1e-3 for name, value in after.items())


def test_clipping_outside_comes_after_the_second_gradient(rng):
    A, b = regression()
    x, problem = rng.standard_normal(9), Logistic(A, b, 0.1)
    found = {}
    for name, chain in (("plain", SAM(0.3)), ("clipped", Clipped(0.05, SAM(0.3))), ("inside", SAM(0.3, Clipped(0.05)))):
        found[name] = chain.start(problem, x, 0)
        chain(x, Batch(None), found[name])
    np.testing.assert_allclose(found["clipped"], 0.05 * found["plain"] / np.linalg.norm(found["plain"]), rtol=1e-12)
    np.testing.assert_allclose(found["inside"], found["plain"], rtol=1e-12)  # a direction has no length


@pytest.mark.parametrize("method", BOTH, ids=repr)
def test_two_parts_equal_the_whole_bitwise(method, tmp_path):
    def run(steps, name):
        events = Events(metrics=None, checkpoint=tmp_path / name)
        some = dict(stop=Stop(steps=steps), seed=2, events=events)
        return minimize(digits(), HeavyBall(0.9), RandomReshuffling(15), 0.03, Accumulated(8, method), **some)

    whole = run(20, "whole.npz")
    for steps in (1, 13, 20):
        rest = run(steps, "parts.npz")
    np.testing.assert_array_equal(whole.x, rest.x)
    assert whole.columns["test_loss"] == rest.columns["test_loss"]


@pytest.mark.parametrize("method", BOTH, ids=repr)
def test_steps_where_nothing_may_be_read(method, device):
    some = dict(stop=Stop(steps=6), seed=2)
    run = minimize(digits(), HeavyBall(0.9), WithReplacement(15), 0.03, method, **some)
    backend.use("cpu")
    here = minimize(digits(), HeavyBall(0.9), WithReplacement(15), 0.03, method, **some)
    np.testing.assert_allclose(backend.to_host(run.x), here.x, rtol=1e-3, atol=1e-5)


def test_sam_circles_a_quadratic_at_the_amplitude_of_theory():
    """-w = w - lr h (w + rho sign w) has the solution |w| = lr h rho / (2 - lr h)."""
    lr, h, rho = 0.05, 8.0, 0.3
    run = minimize(LeastSquares([[h**0.5]], [0.0]), SGD(), None, lr, SAM(rho), stop=Stop(steps=200), x=np.array([0.1]))
    assert abs(run.x[0]) == pytest.approx(lr * h * rho / (2 - lr * h), rel=1e-9)


@pytest.mark.parametrize("wrong", [lambda: SAM(-1.0), lambda: SAM(float("nan")), lambda: ASAM(-0.1)])
def test_bad_radii(wrong):
    with pytest.raises(ValueError, match="(SAM|ASAM): rho must"):
        wrong()
    with pytest.raises(ValueError, match="ASAM: eta must"):
        ASAM(0.5, -1.0)
