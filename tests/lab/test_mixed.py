"""What mixed_precision asks of networks: sums in float16, slopes by size, memory by kind, steps with skips."""

from lab.account import KINDS
from lab.mixed import Divided, HalfStatistics, looked_at, memory, pictures, scales, slopes, steps_of, sums, vanishing
from nn.layer import Run as Pass
from npopt import AdamW, HeavyBall, LossScaled, Stop, WithReplacement, backend, minimize

import numpy as np

SMALL = dict(data="digits", network="MLP", rows=200, test_rows=50)


def test_sums_are_those_of_numpy_s_float16_row_by_row(rng):
    rows = rng.standard_normal((700, 3)).astype("float16")
    total = np.zeros(3, "float16")
    for row in rows:
        total = total + row
    np.testing.assert_array_equal(sums(rows.astype("float32")), total.astype("float32"))
    np.testing.assert_array_equal(sums(np.ones((5000, 2), "float32")), [2048, 2048])


def test_half_statistics_are_those_of_a_slow_loop(rng):
    """By NumPy's float16, number by number; on a few rows they are near the right ones, on many they are not."""
    layer = HalfStatistics(2)
    layer.a = np.ones(2, "float32")
    for count, near in ((50, True), (20_000, False)):
        x = (1 + rng.standard_normal((count, 2))).astype("float16")
        m, v = layer.moments(x.astype("float32"), Pass(training=True))
        total, squares = np.zeros(2, "float16"), np.zeros(2, "float16")
        for row in x:
            total = total + row
        mean = (total.astype("float32") * np.float32(1 / count)).astype("float16")
        for row in x:
            d = row - mean
            squares = squares + d * d
        np.testing.assert_array_equal(m, mean.astype("float32"))
        np.testing.assert_array_equal(v, (squares.astype("float32") * np.float32(1 / count)).astype("float16"))
        assert (abs(m - 1) < 0.4).all() == near


def test_a_divided_loss_with_a_larger_rate_makes_the_same_steps():
    """In float32 powers of 2 change no bit."""

    def run(by):
        made = pictures(**SMALL, divided=by)
        return minimize(made, HeavyBall(0.9), WithReplacement(20), 0.05 * by, stop=Stop(steps=10))

    one, other = run(1), run(2.0**18)
    np.testing.assert_array_equal(one.x, other.x)
    assert other.columns["train_loss"] == one.columns["train_loss"]
    assert np.isclose(other.columns["loss"][-1] * 2.0**18, one.columns["loss"][-1])
    assert Divided(4.0).value(np.zeros((2, 3)), np.array([0, 1])) == np.log(3) / 4


def test_steps_with_skips_are_those_of_minimize():
    method = LossScaled(2.0**36, interval=3)
    problem = pictures(**SMALL, compute="float16")
    run = minimize(problem, HeavyBall(0.9), WithReplacement(20), 0.05, method, stop=Stop(steps=8), seed=4)
    problem = pictures(**SMALL, compute="float16")
    problem.set_seed(4)
    x = problem.x0(backend.generator(4, "x0"))
    batches = 8 + int(run.columns["skipped"][-1])
    made = list(steps_of(problem, x, HeavyBall(0.9), WithReplacement(20), 0.05, batches, 4, method))
    np.testing.assert_array_equal(x, run.x)
    assert sum(skipped for _, skipped in made) == run.columns["skipped"][-1] > 3
    found = scales(4, None, pictures, dict(SMALL, compute="float16"), HeavyBall(0.9), 20, 0.05, batches, method)
    assert found["scale"][-1] == run.columns["scale"][-1] and sum(found["skipped"]) == run.columns["skipped"][-1]


def test_slopes_by_size():
    half = 2.0**-25
    a = np.array([0, half, 1.01 * half, 2.0**-15, 2.0**-14, 1.0, 70000.0, 2.0**-60])
    found = looked_at(a, 2.0)
    assert found["zero"] == 1 / 8 and found["lost"] == 2 / 7 and found["coarse"] == 2 / 7
    assert found["scaled_lost"] == 1 / 7 and found["scaled_over"] == 1 / 7
    assert found["e0"] == found["e-15"] == found["e-14"] == 1 / 8 and found["e-25"] == 2 / 8
    assert found["e-48"] == found["e7"] == 1 / 8  # what is beyond
    run = slopes(0, None, pictures, SMALL, HeavyBall(0.9), 20, 0.05, 3, 2.0**16)
    assert run.config["layers"] == ["fc1", "fc2", "fc3", "fc1.W", "fc2.W", "fc3.W"]
    assert run.columns["size"][:3] == [20 * 128, 20 * 56, 20 * 10]
    law = vanishing(0, None, (1e-6, 1e-7), 2.0**16, 100_000)
    np.testing.assert_allclose(law["lost"], law["law"], atol=4e-3)
    assert max(law["scaled"]) < 1e-3


def test_memory_by_kind():
    activations = []
    for compute in (None, "float16"):
        given = dict(SMALL, network="LeNet-5", compute=compute)
        found = {k: v[0] for k, v in memory(0, None, pictures, given, AdamW(), 64, 1e-3, 3).items()}
        assert [found[n] // found["parameters"] for n in ("weights", "gradients", "states")] == [4, 4, 8]
        counted, measured = (sum(found[m + kind] for kind in KINDS[:-1]) for m in ("", "measured_"))
        assert abs(1 - counted / measured) < 0.05 and np.isfinite(found["losses"]).all()
        activations.append(found["activations"])
    assert 0.45 < activations[1] / activations[0] < 0.65
