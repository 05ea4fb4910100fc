"""Training on attacked inputs, against loops written from the papers; nothing added where eps = 0; one set of batch
statistics a step."""

from nn import BatchNorm, Dropout, Linear, Network, ReLU, Sequential
from nn.losses import KLDivergence
from npopt import (
    SGD,
    TRADES,
    Accumulated,
    Adversarial,
    Batch,
    Clipped,
    Events,
    FreeAdversarial,
    HeavyBall,
    Minibatch,
    RandomReshuffling,
    Replay,
    ShuffleOnce,
    Stop,
    WithReplacement,
    backend,
    minimize,
)
from npopt.ball import row_normals
from problems import LeastSquares, Neural, datasets
from problems.feeds import CropFlip, Images

import numpy as np
import pytest
import written_out as slow

THREADS = 1  # layers of a few numbers: tests/conftest.py

ROWS, EPS, STEP = np.array([3, 7, 0, 12, 5]), 0.13, 0.041


@pytest.fixture
def noise(rng):
    data = slow.images(rng)
    return data, slow.problem(data), 0.7 * rng.standard_normal(slow.HIDDEN * (slow.D + 1) + 4 * (slow.HIDDEN + 1))


def digits(dtype="float32", augment=None, **more):
    layers = Sequential(a=Linear(64, 12), n=BatchNorm(12), r=ReLU(), d=Dropout(0.3), b=Linear(12, 10))
    return Neural(Network(layers, (64,)), Images(datasets.load("digits").part(200), augment), dtype=dtype, **more)


def mean_gradient(x, data, rows, weights, deltas):
    """(loss, gradient) of the weighted mean over rows at pixels + delta, row by row."""
    loss, g = 0.0, np.zeros_like(x)
    for row, w, delta in zip(rows, weights, deltas, strict=True):
        p = slow.pixels(data)[row] + delta
        f, dz = slow.cross_entropy(slow.outputs(x, p)[1], data.y_train[row])
        loss, g = loss + w * f / len(rows), g + w * slow.by_parameters(x, p, dz) / len(rows)
    return loss, g


def slope(x, data, row, delta):
    p = slow.pixels(data)[row] + delta
    return slow.by_pixels(x, p, slow.cross_entropy(slow.outputs(x, p)[1], data.y_train[row])[1])


# ---------------------------------------------------------------------------------------------------- trajectories


@pytest.mark.parametrize(
    "steps, random, inside, ramp",
    [(1, False, False, 0), (1, True, False, 3), (1, True, True, 0), (4, True, True, 2), (3, False, True, 9)],
)
def test_adversarial_training_is_the_loop_written_out(steps, random, inside, ramp, noise):
    data, problem, x = noise
    lr, size = 0.3, 5
    method = Adversarial(EPS, STEP, steps, random, inside, ramp)
    run = minimize(problem, SGD(), ShuffleOnce(size), lr, method, stop=Stop(steps=4), seed=6, x=x)
    order, y = backend.generator(6, "shuffle once").permutation(13), x.copy()
    for t in range(4):
        rows = order[(t % 3) * size : (t % 3 + 1) * size]
        deltas, part = [], min(1, (t + 1) / ramp) if ramp else 1
        for row in rows:
            p, delta = slow.pixels(data)[row], np.zeros(slow.D)
            if random:
                delta = EPS * part * (2 * slow.uniforms(6, "adversarial", t, row) - 1)
                delta = slow.cut(delta, p, EPS * part) if inside else delta
            for _ in range(steps):
                delta = slow.cut(delta + STEP * part * np.sign(slope(y, data, row, delta)), p, EPS * part)
            deltas.append(delta)
        y -= lr * mean_gradient(y, data, rows, np.ones(len(rows)), deltas)[1]
    np.testing.assert_allclose(run.x, y, rtol=1e-10, atol=1e-12)
    assert run.final["gradients"] == (5 + 5 + 3 + 5) * (steps + 1)


def test_free_training_is_the_loop_written_out_and_its_perturbation_persists(noise):
    data, problem, x = noise
    lr, size, times = 0.3, 5, 3
    sampler = Replay(ShuffleOnce(size), times)
    run = minimize(problem, SGD(), sampler, lr, FreeAdversarial(EPS, size), stop=Stop(steps=14), seed=6, x=x)
    order, y, delta = backend.generator(6, "shuffle once").permutation(13), x.copy(), np.zeros((size, slow.D))
    for t in range(14):
        first = (t // times % 3) * size
        rows = order[first : first + size]  # the third batch has three rows
        g = np.zeros_like(y)
        for b, row in enumerate(rows):
            delta[b] = slow.cut(delta[b], slow.pixels(data)[row], EPS)
            g += mean_gradient(y, data, [row], [1.0], [delta[b]])[1] / len(rows)
        for b, row in enumerate(rows):
            delta[b] = slow.cut(delta[b] + EPS * np.sign(slope(y, data, row, delta[b])), slow.pixels(data)[row], EPS)
        y -= lr * g
    np.testing.assert_allclose(run.x, y, rtol=1e-10, atol=1e-12)
    assert run.final["epoch"] == pytest.approx(14 / 3)  # epochs count replays
    assert run.final["gradients"] == 3 * (5 + 5 + 3) + 3 * 5 + 2 * 5


def test_trades_climbs_the_divergence_and_adds_it(noise, rng):
    data, problem, x = noise
    beta, spread, weights = 2.5, 0.02, rng.random(5)
    method = TRADES(EPS, beta, STEP, 4, spread)
    g = method.start(problem, x, 6)
    problem.begin(3)
    loss = method(x, Batch(ROWS, weights), g)
    start = row_normals(backend.key(6, "trades", 3), ROWS, np.empty((5, slow.D)))
    expected, slow_g = 0.0, np.zeros_like(x)
    for row, w, z0 in zip(ROWS, weights, start, strict=True):
        p, t = slow.pixels(data)[row], data.y_train[row]
        delta, natural = slow.cut(spread * z0, p, EPS), slow.softmax(slow.outputs(x, p)[1])
        for _ in range(4):
            q = slow.softmax(slow.outputs(x, p + delta)[1])
            delta = slow.cut(delta + STEP * np.sign(slow.by_pixels(x, p + delta, q - natural)), p, EPS)
        q = slow.softmax(slow.outputs(x, p + delta)[1])
        apart = (natural * np.log(natural / q)).sum()
        f, dz = slow.cross_entropy(slow.outputs(x, p)[1], t)
        expected += w * (f + beta * apart) / 5
        dz = dz + beta * natural * (np.log(natural / q) - apart)
        slow_g += w / 5 * (slow.by_parameters(x, p, dz) + beta * slow.by_parameters(x, p + delta, q - natural))
    assert loss == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(g, slow_g, rtol=1e-8, atol=1e-10)
    assert method.counts == {"gradients": 5 * 6, "values": 5, "bytes": 0}


def test_the_gradient_of_trades_through_batch_norm_and_dropout_by_differences(rng):
    problem, rows, weights = digits("float64", l2=0.01), np.arange(20), rng.random(20)
    x = problem.x0(rng)
    problem.begin(2)
    inputs = problem.inputs(rows) + 0.3 * rng.standard_normal((20, 64))
    g = np.empty_like(x)
    loss = problem.compared(x, rows, weights, g, inputs, 3.0)
    for _ in range(4):
        d, h = rng.standard_normal(x.shape), 1e-6
        up, down = (problem.compared(x + s * h * d, rows, weights, None, inputs, 3.0) for s in (1, -1))
        assert (up - down) / (2 * h) == pytest.approx(g @ d, rel=1e-7, abs=1e-7)
    parts = problem.value_and_gradient(x, rows, weights, np.empty_like(x))
    assert loss > parts and problem.compared(x, rows, weights, None, inputs, 0.0) == pytest.approx(parts, rel=1e-12)
    again = np.empty_like(x)
    problem.compared(x, rows, weights, again, inputs, 3.0)
    np.testing.assert_array_equal(again, g)


def test_the_divergence_is_that_of_its_definition_and_both_gradients_its_derivatives(rng):
    z, t, loss = 2 * rng.standard_normal((6, 5)), 2 * rng.standard_normal((6, 5)), KLDivergence()
    rows, dz, dt = loss.both(z, t)
    for b in range(6):
        p, q = slow.softmax(t[b]), slow.softmax(z[b])
        assert rows[b] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-12) and rows[b] > 0
    for _ in range(3):
        d, h = rng.standard_normal((6, 5)), 1e-6
        by_z = (loss.rows(z + h * d, t) - loss.rows(z - h * d, t)) / (2 * h)
        by_t = (loss.rows(z, t + h * d) - loss.rows(z, t - h * d)) / (2 * h)
        np.testing.assert_allclose((dz * d).sum(axis=1), by_z, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose((dt * d).sum(axis=1), by_t, rtol=1e-7, atol=1e-8)
    for part in loss.both(z, z):
        assert not part.any()
    assert np.isfinite(loss.both(1e4 * z, -1e4 * z)[0]).all()


# ---------------------------------------------------------------------------------------------------- identities

BATCH = 16
THREE = [Adversarial(0.2, 0.1, 3), FreeAdversarial(0.2, 20), TRADES(0.2, 2.0, 0.1, 2)]
METHODS = [
    (Adversarial(0.0, 0.1, 2), RandomReshuffling(BATCH)),
    (Adversarial(0.0, 0.0, random=False), RandomReshuffling(BATCH)),
    (FreeAdversarial(0.0, BATCH), RandomReshuffling(BATCH)),
    (TRADES(0.0, 6.0, 0.1, 2), RandomReshuffling(BATCH)),
    (TRADES(0.3, 0.0, 0.1, 2), RandomReshuffling(BATCH)),
    (Clipped(1e9, Adversarial(0.0, 0.1)), RandomReshuffling(BATCH)),
]


@pytest.mark.parametrize("augment", [None, CropFlip(1)], ids=["", "augmented"])
@pytest.mark.parametrize("method, sampler", METHODS, ids=lambda v: repr(v))
def test_nothing_changes_bit_for_bit_where_nothing_is_added(method, sampler, augment):
    runs = [
        minimize(problem, HeavyBall(0.9), sampler, 0.05, estimator, stop=Stop(steps=15), seed=4)
        for problem, estimator in ((digits(augment=augment, l2=1e-3), e) for e in (Minibatch(), method))
    ]
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
    assert runs[0].columns["loss"][1:] == runs[1].columns["loss"][1:]
    assert runs[0].columns["test_loss"] == runs[1].columns["test_loss"]  # batch statistics too


@pytest.mark.parametrize("method", THREE, ids=repr)
def test_a_loss_scale_is_taken_out_of_both_gradients(method, rng):
    """A power of 2 rounds nothing away: gradients, perturbations and clipping are those without it, bit for bit."""
    found = []
    for scale in (1.0, 2.0**16):
        problem = digits(l2=0.01, loss_scale=scale)
        x, rows = problem.x0(np.random.default_rng(1)), np.arange(20)
        chain = Clipped(0.1, method)
        g = chain.start(problem, x, 0)
        for t in range(2):
            problem.begin(t)
            loss = chain(x, Batch(rows), g)
        inputs, targets = problem.pairs("test", rows)
        slope = np.empty_like(inputs)
        problem.attacked(x, inputs, targets, None, slope)
        found.append([g, slope, loss])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_replay_of_one_is_the_sampler_itself(noise):
    _, problem, x = noise
    one, two = (
        minimize(problem, SGD(), s, 0.1, stop=Stop(steps=9), seed=1, x=x).x
        for s in (WithReplacement(4), Replay(WithReplacement(4), 1))
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", THREE, ids=repr)
def test_batch_statistics_are_updated_once_a_step_by_the_pass_that_trains(method, rng):
    problem, rows = digits(), np.arange(20)
    x = problem.x0(rng)
    g = method.start(problem, x, 0)
    for t in range(2):  # the second step of the free form has a perturbation
        start = problem.state()
        problem.begin(t)
        method(x, Batch(rows), g)
        problem.commit()
    after = problem.state()["statistics"]
    problem.load_state(start)
    problem.begin(1)
    seen = None if isinstance(method, TRADES) else method.inputs.copy()
    problem.value_and_gradient(x, rows, None, g, inputs=seen)
    problem.commit()
    for name, value in problem.state()["statistics"]["n"].items():
        np.testing.assert_array_equal(after["n"][name], value)
    if seen is not None:
        assert abs(seen - problem.inputs(rows)).max() > 0.1


def test_micro_batches_give_the_gradient_of_the_whole(noise):
    _, problem, x = noise
    for method in (Adversarial(EPS, STEP, 2), TRADES(EPS, 2.0, STEP, 2, 0.01)):
        found = []
        for chain in (method, Accumulated(2, method)):
            g, h = chain.start(problem, x, 3), np.empty_like(x)
            problem.begin(5)
            chain(x, Batch(ROWS), g)
            found.append(g)
            chain.again(x, h)
            np.testing.assert_allclose(h, g, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found[0], found[1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", THREE, ids=repr)
def test_elsewhere_the_inputs_stay_those_of_the_step(method, noise, rng):
    _, problem, x = noise
    g, h, y = method.start(problem, x, 0), np.empty_like(x), x + 0.1 * rng.standard_normal(x.shape)
    problem.begin(0)
    for _ in range(2):
        loss = method(x, Batch(ROWS), g)
    assert method.value(x) == pytest.approx(loss, rel=1e-12)
    method.again(y, h)
    d, e = rng.standard_normal(x.shape), 1e-6
    assert (method.value(y + e * d) - method.value(y - e * d)) / (2 * e) == pytest.approx(h @ d, rel=1e-6)


def test_attacked_inputs_raise_the_loss_and_keep_to_ball_and_pixels(noise):
    data, problem, x = noise
    p, before = slow.pixels(data)[ROWS], problem.value(x, ROWS)
    for method in (Adversarial(EPS, EPS, random=False), Adversarial(EPS, 1.25 * EPS), Adversarial(EPS, STEP, 9)):
        loss = method(x, Batch(ROWS), method.start(problem, x, 2))
        q = (method.inputs * slow.STD + slow.MEAN) / 255
        assert loss > before
        assert abs(q - p).max() == pytest.approx(EPS, rel=1e-9) and -1e-12 <= q.min() and q.max() <= 1 + 1e-12


# ---------------------------------------------------------------------------------------------------- runs

TRAINED = [
    (Adversarial(0.1, 0.03, 2), RandomReshuffling(15)),
    (FreeAdversarial(0.1, 15), Replay(RandomReshuffling(15), 3)),
    (TRADES(0.1, 2.0, 0.03, 2), RandomReshuffling(15)),
]


@pytest.mark.parametrize("method, sampler", TRAINED, ids=lambda v: repr(v))
def test_two_parts_equal_the_whole_bitwise(method, sampler, tmp_path):
    def run(steps, name):
        events = Events(metrics=None, checkpoint=tmp_path / name)
        return minimize(digits(), HeavyBall(0.9), sampler, 0.03, method, stop=Stop(steps=steps), seed=2, events=events)

    whole = run(33, "whole.npz")
    for steps in (1, 17, 31, 33):  # 14 batches, the last of five rows; 17 and 31 lie between replays
        rest = run(steps, "parts.npz")
    np.testing.assert_array_equal(whole.x, rest.x)
    assert whole.columns["test_loss"] == rest.columns["test_loss"]


@pytest.mark.parametrize("method, sampler", TRAINED, ids=lambda v: repr(v))
def test_adversarial_steps_where_nothing_may_be_read(method, sampler, device):
    run = minimize(digits(), HeavyBall(0.9), sampler, 0.03, method, stop=Stop(steps=6), seed=2)
    backend.use("cpu")
    here = minimize(digits(), HeavyBall(0.9), sampler, 0.03, method, stop=Stop(steps=6), seed=2)
    assert abs(backend.to_host(run.x) - here.x).max() < 2e-3  # a sign may turn where a slope rounds to 0


def test_replayed_batches_come_in_a_row_and_a_saved_sampler_goes_on(noise):
    _, problem, _ = noise
    plain, sampler = RandomReshuffling(5), Replay(RandomReshuffling(5), 4)
    for one in (plain, sampler):
        one.start(problem, 3)
    batches, found = [b.rows.tolist() for b in plain.take(7)], [b.rows.tolist() for b in sampler.take(26)]
    assert found == [rows for rows in batches for _ in range(4)][:26]
    assert sampler.steps_per_epoch == plain.steps_per_epoch == 3
    other = Replay(RandomReshuffling(5), 4)
    other.start(problem, 3)
    other.load_state({"taken": 9})
    assert [b.rows.tolist() for b in other.take(17)] == found[9:]


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: Adversarial(-0.1, 0.1), "Adversarial: eps must"),
        (lambda: Adversarial(0.1, 0.1, 0), "Adversarial: steps must"),
        (lambda: FreeAdversarial(0.1, 0), "FreeAdversarial: batch_size must"),
        (lambda: TRADES(0.1, -1, 0.1), "TRADES: beta must"),
        (lambda: TRADES(0.1, 1, 0.1, spread=0), "TRADES: spread must"),
        (lambda: Replay(3, 2), "Replay: sampler must"),
        (lambda: Replay(RandomReshuffling(2), 0), "Replay: times must"),
        (lambda: train(FreeAdversarial(0.1, 4)), "a batch has 5 rows"),
        *((lambda m=m: train(m, LeastSquares(np.eye(5), np.ones(5))), "network")
          for m in (Adversarial(0.1, 0.1), FreeAdversarial(0.1, 5), TRADES(0.1, 1.0, 0.1))),
    ],
)  # fmt: skip
def test_bad_arguments(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


def train(method, problem=None):
    problem = slow.problem(slow.images(np.random.default_rng(0))) if problem is None else problem
    return minimize(problem, SGD(), ShuffleOnce(5), 0.1, method, stop=Stop(steps=1))
