"""The loop: trajectory, stops, columns, kill and resume, divergence, interruption."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time

from npopt import (
    L1,
    SGD,
    Accumulated,
    Adam,
    AdamW,
    Clipped,
    Constant,
    Cosine,
    Events,
    HeavyBall,
    Linear,
    Minibatch,
    Nesterov,
    RandomReshuffling,
    ShuffleOnce,
    Stop,
    WithReplacement,
    backend,
    checkpoint,
    minimize,
)
from problems.linear import LeastSquares, Logistic

import numpy as np
import pytest


@pytest.fixture
def problem():
    rng = np.random.default_rng(5)
    return LeastSquares(rng.standard_normal((20, 3)), rng.standard_normal(20), l2=0.1)


@pytest.mark.parametrize("loop", ["python", "compiled"])
def test_the_loop_is_the_five_lines(problem, loop):
    if loop == "python":
        problem.takes_stretches = lambda *_: False
    run = minimize(problem, HeavyBall(0.8), RandomReshuffling(3), Cosine(0.1), stop=Stop(epochs=4), seed=9)
    sampler = RandomReshuffling(3)
    sampler.start(problem, 9)
    A, b = problem.host_X, problem.host_y
    x, m, losses = np.zeros(3), np.zeros(3), []
    for t in range(28):
        rows = sampler.epoch(t // 7)[0][t % 7 * 3 : t % 7 * 3 + 3]
        residual = A[rows] @ x - b[rows]
        losses.append(np.mean(residual**2) / 2 + 0.05 * x @ x)
        m = 0.8 * m + A[rows].T @ residual / len(rows) + 0.1 * x
        x = x - 0.05 * (1 + math.cos(math.pi * t / 28)) * m
    np.testing.assert_allclose(run.x, x, rtol=1e-12)
    assert run.columns["step"] == [0, 7, 14, 21, 28] and run.columns["epoch"] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(run.columns["loss"][1:], np.reshape(losses, (4, 7)).mean(1), rtol=1e-12)
    assert math.isnan(run.columns["loss"][0]) and run.columns["gradients"] == [0, 20, 40, 60, 80]
    assert run.reason == "epochs" and run.loop == loop
    assert run.final["objective"] == pytest.approx(problem.value(x), rel=1e-12)


def test_what_is_given_is_not_started_or_changed(problem):
    method, sampler, x = Adam(), RandomReshuffling(3), np.ones(3)
    a = minimize(problem, method, sampler, 0.1, stop=dict(epochs=2), x=x)
    assert not hasattr(method, "t") and not hasattr(sampler, "taken") and (x == 1).all()
    b = minimize(problem, method, sampler, 0.1, stop=dict(epochs=2), x=x)
    np.testing.assert_array_equal(a.x, b.x)


@pytest.mark.parametrize(
    "stop, reason, step",
    [
        (dict(epochs=2), "epochs", 14),
        (dict(steps=5), "steps", 5),
        (dict(epochs=9, steps=10), "steps", 10),
        (dict(evaluations=31), "evaluations", 11),
        (dict(target=("step", ">=", 7)), "target", 7),
        (dict(epochs=0), "epochs", 0),
        (dict(target=("objective", 1e9)), "target", 0),
        (dict(epochs=0.5), "epochs", 4),
        (dict(seconds=0), "seconds", 0),
    ],
)
def test_stops(problem, stop, reason, step):
    run = minimize(problem, SGD(), RandomReshuffling(3), 0.01, stop=stop)
    assert (run.reason, run.final["step"]) == (reason, step)


def test_seconds_stop_soon_after_their_time(problem):
    run = minimize(problem, SGD(), RandomReshuffling(3), 0.01, stop=dict(seconds=0.2), events=dict(metrics=None))
    assert 0.2 <= run.final["seconds"] < 1.0 and run.reason == "seconds"


def test_metrics_by_step_and_by_part_of_an_epoch(problem):
    run = minimize(problem, SGD(), RandomReshuffling(2), 0.01, stop=dict(epochs=1), events=Events(3, "step"))
    assert run.columns["step"] == [0, 3, 6, 9, 10]
    run = minimize(problem, SGD(), RandomReshuffling(2), 0.01, stop=dict(epochs=2), events=Events(0.5))
    assert run.columns["step"] == [0, 5, 10, 15, 20]
    run = minimize(problem, SGD(), RandomReshuffling(2), 0.01, stop=dict(epochs=2), events=Events(None))
    assert run.columns["step"] == [0, 20]


def test_another_hyper_parameter_can_follow_a_schedule(problem):
    run = minimize(problem, HeavyBall(0.9), ShuffleOnce(None), 0.05, vary={"beta": Linear(0.8)}, stop=dict(steps=10))
    x, m = np.zeros(3), np.zeros(3)
    for t in range(10):
        m = 0.8 * (1 - t / 10) * m + problem.host_X.T @ (problem.host_X @ x - problem.host_y) / 20 + 0.1 * x
        x = x - 0.05 * m
    np.testing.assert_allclose(run.x, x, rtol=1e-12)
    with pytest.raises(ValueError, match="no such argument"):
        minimize(problem, HeavyBall(), vary={"b2": 0.5})


@pytest.mark.filterwarnings("ignore:lr = .* is above 2/L")
def test_a_diverging_run_stops_with_its_reason_and_keeps_what_it_measured(problem, tmp_path):
    path = tmp_path / "c.npz"
    for _ in range(2):  # the second call reads the checkpoint of the first
        run = minimize(problem, SGD(), ShuffleOnce(None), 1e6, stop=dict(epochs=500), events=Events(5, checkpoint=path))
        assert run.diverged and ("at step" in run.reason or "after step" in run.reason)
        assert run.columns["step"][:3] == [0, 5, 10] and math.isnan(run.final["objective"])


@pytest.mark.parametrize("method", [SGD(), HeavyBall(0.8), Nesterov(0.8), Adam(), AdamW()], ids=repr)
@pytest.mark.parametrize("estimator", [Minibatch(), Clipped(0.5, Accumulated(2))], ids=repr)
def test_two_halves_equal_the_whole_bitwise(method, estimator, tmp_path):
    rng = np.random.default_rng(1)
    problem = Logistic(rng.standard_normal((31, 4)), np.sign(rng.standard_normal(31)), l2=0.01)
    common = dict(optimizer=method, sampler=RandomReshuffling(4), schedule=0.1, estimator=estimator, seed=3)
    for first in (4, 13):  # mid-epoch, and mid-epoch beyond the first
        path = tmp_path / f"{first}.npz"
        whole = minimize(problem, **common, stop=Stop(steps=40))
        minimize(problem, **common, stop=Stop(steps=first), events=Events(checkpoint=path))
        rest = minimize(problem, **common, stop=Stop(steps=40), events=Events(checkpoint=path))
        np.testing.assert_array_equal(whole.x, rest.x)
        for name in whole.columns:
            if name != "seconds":
                np.testing.assert_array_equal(whole.columns[name], rest.columns[name], err_msg=name)


KILLED = """
    import sys, numpy as np
    from npopt import *
    from problems.linear import Logistic
    rng = np.random.default_rng(0)
    problem = Logistic(rng.standard_normal((500, 20)), np.sign(rng.standard_normal(500)))
    path = sys.argv[1] if len(sys.argv) > 1 else None
    run = minimize(problem, AdamW(), RandomReshuffling(7), Cosine(0.01), stop=Stop(epochs=1500), seed=2,
                   events=Events(metrics=3, checkpoint=path, seconds=0.05))
    print(run.reason, run.x.tobytes().hex(), repr(run.columns["objective"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_interrupted_run_resumes_bit_identically(how, tmp_path):
    path, script = tmp_path / "c.npz", tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in [os.getcwd(), *sys.path] if p)}
    command = [sys.executable, script]
    whole = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    kills = 0
    for _ in range(30):
        process = subprocess.Popen([*command, path], env=environment, stdout=subprocess.PIPE, text=True)
        deadline = time.time() + 60
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and time.time() < deadline:
            if path.exists() and path.stat().st_mtime_ns > before and checkpoint.load(path)["t"] > 0 and kills < 3:
                process.send_signal(how)
                kills += 1
                break
            time.sleep(0.01)
        out = process.communicate(timeout=60)[0]
        if how == signal.SIGINT and kills and not out.startswith("epochs"):
            assert out.startswith("interrupted"), out
        if out.startswith("epochs"):
            break
    assert out == whole and kills == 3


def test_the_checkpoint_of_another_run_is_refused(problem, tmp_path):
    path = tmp_path / "c.npz"
    minimize(problem, SGD(), RandomReshuffling(3), 0.1, stop=dict(epochs=1), events=Events(checkpoint=path))
    with pytest.raises(ValueError, match=r"checkpoint of another run \(seed 0 there, 1 here\)"):
        minimize(problem, SGD(), RandomReshuffling(3), 0.1, stop=dict(epochs=1), seed=1, events=Events(checkpoint=path))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(checkpoint.Damaged, match="c.npz"):
        minimize(problem, SGD(), RandomReshuffling(3), 0.1, stop=dict(epochs=1), events=Events(checkpoint=path))


class Skipping(Minibatch):
    """Refuses every third batch, as loss scaling does after an overflow."""

    calls = 0

    def again(self, y, out):
        self.calls += 1
        self.skip = self.calls % 3 == 0
        return super().again(y, out)


def test_a_skipped_step_moves_nothing_and_uses_up_its_batch(problem):
    run = minimize(problem, HeavyBall(0.5), ShuffleOnce(2), Linear(0.1), estimator=Skipping(), stop=dict(steps=8))
    sampler = ShuffleOnce(2)
    sampler.start(problem, 0)
    order = sampler.epoch(0)[0]
    x, m, t = np.zeros(3), np.zeros(3), 0
    for call in range(1, 100):
        rows = order[(call - 1) % 10 * 2 : (call - 1) % 10 * 2 + 2]
        g = problem.host_X[rows].T @ (problem.host_X[rows] @ x - problem.host_y[rows]) / 2 + 0.1 * x
        if call % 3 and t < 8:
            m = 0.5 * m + g
            x = x - 0.1 * (1 - t / 8) * m
            t += 1
    np.testing.assert_allclose(run.x, x, rtol=1e-12)
    assert run.final["step"] == 8


class Compiled(Minibatch):
    """SGD in a loop of its own, to test that minimize feeds compiled stretches as it feeds the five lines."""

    def compiled(self, optimizer, sampler):
        def stretch(x, rows, weights, rates):
            losses = []
            for k in range(len(rates)):
                part = rows[k * len(rows) // len(rates) : (k + 1) * len(rows) // len(rates)]
                g = np.empty_like(x)
                losses.append(self.problem.value_and_gradient(x, part, None, g))
                x -= rates[k] * g
            self.counts["gradients"] += len(rows)
            return np.array(losses)

        return stretch


@pytest.mark.parametrize("size", [2, 3, 20])
def test_a_compiled_stretch_sees_the_same_rows_and_rates(problem, size):
    common = dict(optimizer=SGD(), sampler=RandomReshuffling(size), schedule=Linear(0.1), stop=dict(epochs=5), seed=4)
    a, b = minimize(problem, **common), minimize(problem, **common, estimator=Compiled())
    np.testing.assert_allclose(a.x, b.x, rtol=1e-13)
    assert b.loop == "compiled" and a.columns["gradients"] == b.columns["gradients"]
    np.testing.assert_allclose(a.columns["loss"][1:], b.columns["loss"][1:], rtol=1e-13)


def test_the_loop_never_reads_the_device_inside_a_step(device):
    rng = np.random.default_rng(5)
    A, b = rng.standard_normal((20, 3)), rng.standard_normal(20)
    method = (AdamW(), RandomReshuffling(3), 0.1, Clipped(1.0, Accumulated(2)))
    run = minimize(LeastSquares(A, b), *method, stop=dict(epochs=3))
    backend.use("cpu")
    host = minimize(LeastSquares(A, b), *method, stop=dict(epochs=3))
    np.testing.assert_allclose(backend.to_host(run.x), host.x, rtol=1e-10)
    np.testing.assert_allclose(run.columns["loss"][1:], host.columns["loss"][1:], rtol=1e-10)


def test_progress_is_told(problem):
    seen = []
    events = Events(progress=lambda *told: seen.append(told))
    minimize(problem, SGD(), RandomReshuffling(3), 0.01, stop=dict(epochs=3), events=events)
    fractions = [s[0] for s in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and seen[-1][1] == 3.0 and seen[-1][2] > 0


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(4),
        np.zeros(3, int),
        np.zeros((3, 1)),
        [0.0, 0.0, 0.0],
        np.zeros(3, "float32"),
    ],
)
def test_a_wrong_start_is_named(problem, x):
    with pytest.raises(ValueError, match="minimize: x (must be|is float32)"):
        minimize(problem, SGD(), x=x)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda p: minimize(p, SGD(), schedule=-0.1), "lr must lie in"),
        (lambda p: minimize(p, SGD(), schedule=float("nan")), "lr must lie in"),
        (lambda p: minimize(p, SGD(), RandomReshuffling(21)), "batch_size 21 is larger than the 20 rows"),
        (lambda p: minimize(p, SGD(), stop=dict()), "give at least one"),
        (lambda p: minimize(p, SGD(), stop=10), "must be a Stop or a dict"),
        (lambda p: minimize(p, SGD(), stop=dict(epoch=3)), "stop has no 'epoch'; there is epochs, steps"),
        (lambda p: Stop(target=5), "target must be"),
        (lambda p: Stop(target=("a", "b")), "value must be a number"),
        (lambda p: Stop(epochs=float("inf")), "epochs must lie"),
        (lambda p: minimize(p, SGD(), seed="a"), "seed must be"),
        (lambda p: RandomReshuffling(float("nan")), "batch_size must be"),
        (lambda p: RandomReshuffling("all"), "batch_size must be"),
        (lambda p: minimize(p, "adam"), r"optimizer must be a value such as Adam\(\), got 'adam'"),
        (lambda p: minimize(p, SGD), "optimizer must be a value"),
        (lambda p: minimize(p, None), "optimizer must be"),
        (lambda p: minimize(p, SGD(), RandomReshuffling), "sampler must be a value"),
        (lambda p: minimize(p, SGD(), estimator=Clipped), "estimator must be a value"),
        (lambda p: minimize(p, SGD(), events=dict(checkpoint="/proc/nowhere/c.npz")), "c.npz cannot be written"),
        (lambda p: minimize(p, SGD(), stop=Stop(target=("gab", 0.1))), "'gab' is not measured"),
        (lambda p: minimize(p, SGD(), seed=-1), "seed"),
        (lambda p: Events(per="minute"), "per must be"),
        (lambda p: Stop(target=("gap", "<", 1)), "target must be"),
        (lambda p: Stop(epochs=-1), "epochs must lie in"),
    ],
)
def test_bad_input_gets_one_sentence(problem, wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(problem)


def test_a_penalty_is_refused_by_methods_that_would_ignore_it(problem):
    problem.regulariser = L1(0.1)
    with pytest.raises(ValueError, match="use a proximal method"):
        minimize(problem, SGD())


def test_the_config_holds_what_was_run(problem):
    config = minimize(problem, SGD(), RandomReshuffling(3), Constant(0.1), stop=dict(epochs=1), seed=7).config
    assert config["optimizer"] == "SGD()" and config["seed"] == 7 and config["schedule"] == "Constant(lr=0.1)"
    assert config["versions"]["npopt"] and config["threads"] == backend.threads()


def test_with_replacement_sees_rows_twice(problem):
    run = minimize(problem, SGD(), WithReplacement(20), 0.01, stop=dict(steps=1))
    rows = WithReplacement(20)
    rows.start(problem, 0)
    rows = rows.epoch(0)[0]
    np.testing.assert_allclose(run.x, 0.01 * problem.host_X[rows].T @ problem.host_y[rows] / 20, rtol=1e-12)


@pytest.fixture
def network():
    """A network with all that changes from step to step: batch statistics, dropout masks, augmentation."""
    from types import SimpleNamespace

    from nn import BatchNorm, Conv2d, Dropout, Flatten, Linear, Network, ReLU, Sequential
    from problems.feeds import CropFlip, Images
    from problems.neural import Neural

    rng = np.random.default_rng(3)
    x = rng.integers(0, 255, (24, 6, 6, 2)).astype("uint8")
    data = SimpleNamespace(
        name="toy",
        x_train=x[:18],
        y_train=rng.integers(0, 3, 18),
        x_test=x[18:],
        y_test=rng.integers(0, 3, 6),
        mean=np.array([120.0, 130.0]),
        std=np.array([70.0, 60.0]),
        scale=255.0,
        classes=("a", "b", "c"),
    )
    layers = Sequential(Conv2d(2, 4, 3, padding=1), BatchNorm(4), ReLU(), Flatten(), Dropout(0.3), Linear(144, 3))
    return Neural(Network(layers, (6, 6, 2), name="toy"), Images(data, CropFlip(1)), l2=1e-3)


def test_a_network_resumes_bitwise_and_starts_afresh_from_x0(network, tmp_path):
    method = dict(optimizer=HeavyBall(0.9), sampler=RandomReshuffling(5), schedule=Cosine(0.1, length=20), seed=2)
    whole = minimize(network, **method, stop=Stop(steps=18))
    path = tmp_path / "c.npz"
    minimize(network, **method, stop=Stop(steps=7), events=Events(checkpoint=path))
    rest = minimize(network, **method, stop=Stop(steps=18), events=Events(checkpoint=path))
    again = minimize(network, **method, stop=Stop(steps=18))
    for other in (rest, again):
        np.testing.assert_array_equal(whole.x, other.x)
        for name in ("loss", "train_loss", "test_loss", "test_accuracy"):
            np.testing.assert_array_equal(whole.columns[name], other.columns[name], err_msg=name)


def test_given_x_a_run_goes_on_with_the_statistics_that_were_gathered(network):
    half = dict(optimizer=SGD(), sampler=ShuffleOnce(6), schedule=0.05)
    first = minimize(network, **half, stop=Stop(steps=6))
    gathered = network.state()["statistics"]["1"]["mean"].copy()
    second = minimize(network, **half, stop=Stop(steps=0), x=first.x)
    np.testing.assert_array_equal(network.state()["statistics"]["1"]["mean"], gathered)
    assert second.columns["test_loss"][0] == first.final["test_loss"] and np.abs(gathered).max() > 0


def test_accumulated_micro_batches_leave_one_update_of_the_statistics_the_first_ones(network):
    run = minimize(network, SGD(), ShuffleOnce(None), 0.0, Accumulated(5), stop=Stop(steps=1))
    several = network.state()["statistics"]["1"]
    network.reset()
    network.begin(0)
    network.value_and_gradient(run.x, np.arange(5), None, np.empty_like(run.x))
    network.commit()
    once = network.state()["statistics"]["1"]
    for name in ("mean", "variance"):
        np.testing.assert_array_equal(several[name], once[name])
    assert np.abs(once["mean"]).max() > 0


@pytest.mark.parametrize("seconds", [0.5, 1e-9])
def test_the_record_of_a_diverged_run_does_not_depend_on_the_clock(problem, monkeypatch, seconds):
    monkeypatch.setattr(sys.modules["npopt.minimize"], "STRETCH", seconds)
    run = minimize(problem, SGD(), RandomReshuffling(3), 30.0, stop=dict(epochs=500), events=Events(10))
    x, g, losses = np.zeros(3), np.empty(3), []
    sampler = RandomReshuffling(3)
    sampler.start(problem, 0)
    with np.errstate(all="ignore"):
        for batch in sampler.take(3500):
            losses.append(problem.value_and_gradient(x, batch.rows, None, g))
            if not math.isfinite(losses[-1]):
                break
            x -= 30.0 * g
    t = len(losses) - 1
    assert run.reason == f"diverged: the loss is {losses[-1]} at step {t}" and run.final["step"] == t
    since = t - run.columns["step"][-2]
    assert run.final["loss"] == sum(losses[-1 - since : -1]) / since and math.isnan(run.final["objective"])
    assert run.columns["epoch"][-1] == (t + 1) / 7


@pytest.mark.filterwarnings("ignore:lr = .* is above 2/L")
def test_an_x_that_is_not_finite_at_the_end_is_a_divergence(problem):
    steep = LeastSquares(100 * problem.host_X, 100 * problem.host_y)
    run = minimize(steep, SGD(), ShuffleOnce(None), 1e308, stop=dict(steps=1), events=Events(None))
    assert run.reason == "diverged: x is not finite after step 0" and not np.isfinite(run.x).all()


def test_the_seed_reaches_masks_and_augmentation(network):
    x = network.x0(np.random.default_rng(0))
    runs = [minimize(network, SGD(), ShuffleOnce(None), 0.1, stop=Stop(steps=1), x=x, seed=s).x for s in (0, 1, 0)]
    assert not np.array_equal(runs[0], runs[1])
    network.reset()
    np.testing.assert_array_equal(
        minimize(network, SGD(), ShuffleOnce(None), 0.1, stop=Stop(steps=1), seed=3).x,
        minimize(network, SGD(), ShuffleOnce(None), 0.1, stop=Stop(steps=1), seed=3).x,
    )


def test_a_restricted_problem_starts_where_it_was_restricted_each_time(network):
    whole = minimize(network, SGD(), RandomReshuffling(6), 0.1, stop=Stop(steps=2)).x
    part = network.restrict(whole, ["5.W"])
    first, second = (minimize(part, HeavyBall(), RandomReshuffling(6), 0.1, stop=Stop(epochs=2)) for _ in range(2))
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.columns["test_loss"], second.columns["test_loss"])
    assert not np.array_equal(first.x, part.x0(None))


def test_a_longer_run_with_a_schedule_of_the_whole_length_is_not_a_continuation(problem, tmp_path):
    path = tmp_path / "c.npz"
    common = dict(optimizer=SGD(), sampler=RandomReshuffling(3), events=Events(checkpoint=path))
    minimize(problem, **common, schedule=Cosine(0.1), stop=Stop(steps=5))
    with pytest.raises(ValueError, match="steps 5 there, 9 here"):
        minimize(problem, **common, schedule=Cosine(0.1), stop=Stop(steps=9))


def test_what_varies_is_checked_by_the_optimizer(problem):
    with pytest.raises(ValueError, match="HeavyBall: beta must lie in"):
        minimize(problem, HeavyBall(0.9), vary={"beta": 1.5})


def test_a_target_met_in_the_last_row_is_the_reason(problem):
    run = minimize(
        problem,
        SGD(),
        ShuffleOnce(None),
        0.1,
        stop=dict(
            steps=3,
            target=(
                "objective",
                1e9,
            ),
        ),
        events=Events(None),
    )
    assert run.reason == "target" and run.final["step"] == 0
    low = minimize(problem, SGD(), ShuffleOnce(None), 0.1, stop=dict(steps=50)).final["objective"]
    run = minimize(
        problem, SGD(), ShuffleOnce(None), 0.1, stop=dict(steps=50, target=("objective", low)), events=Events(None)
    )
    assert run.reason == "target" and run.final["step"] == 50
