"""Loss scaling: the scale by a slow loop, what a skipped step leaves alone, the order of unscaling, resuming."""

from types import SimpleNamespace

import nn
from npopt import (
    SAM,
    Accumulated,
    Adam,
    Clipped,
    Cosine,
    HeavyBall,
    LossScaled,
    Minibatch,
    Stop,
    WithReplacement,
    backend,
    minimize,
)
from npopt.estimators import ClippedByValue
from npopt.estimators.base import Wrapper
from problems import Neural, Quadratic
from problems.feeds import Images

import numpy as np
import pytest


def noise(rows=24):
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 256, (rows, 6, 6, 1)).astype("uint8"), rng.integers(0, 3, rows)
    more = dict(x_test=None, y_test=None, mean=[120.0], std=[70.0], scale=1.0, classes=(0, 1, 2), sha256="")
    return SimpleNamespace(name="noise", x_train=x, y_train=y, **more)


def network(compute="float16", **more):
    return Neural(nn.mlp((36, 12, 3), norm="batch"), Images(noise()), compute=compute, **more)


class Spoiled(Wrapper):
    """The gradient, with one number that is not finite in the calls of these numbers; it notes the scale of each."""

    def __init__(self, calls, value=np.inf):
        self.calls, self.value, self.inner = tuple(calls), value, Minibatch()

    def start(self, problem, x, seed):
        self.made, self.scales = 0, []
        return super().start(problem, x, seed)

    def __call__(self, x, batch, out):
        self.batch = batch
        loss = self.inner(x, batch, out)
        if self.made in self.calls:
            out[3] = self.value
        self.made += 1
        self.scales.append(self.problem.loss_scale)
        return loss

    def state(self):
        return super().state() | {"made": self.made}

    def load_state(self, state):
        super().load_state(state)
        self.made = int(state["made"])


def slow_scales(bad, calls, scale, growth, backoff, interval):
    good = 0
    for i in range(calls):
        yield scale
        if i in bad:
            scale, good = scale * backoff, 0
        else:
            good += 1
        if good == interval:
            scale, good = scale * growth, 0


def test_the_scale_is_that_of_a_slow_loop():
    bad = (0, 1, 9, 10, 17)
    given = dict(scale=2.0**10, growth=4.0, backoff=0.25, interval=3)
    problem, method = network(), LossScaled(**given, inner=Spoiled(bad))
    x = problem.x0(np.random.default_rng(0))
    g = method.start(problem, x, 0)
    for i, scale in enumerate(slow_scales(bad, 30, *given.values())):
        assert method.shown["scale"] == scale
        problem.begin(i)
        method(x, SimpleNamespace(rows=np.arange(8), weights=None), out=g)
        assert method.skip == (i in bad)
        assert method.inner.scales[-1] == scale and problem.loss_scale == 1.0  # only for the time of the call
    assert method.counts["skipped"] == 5 and method.counts["gradients"] == 30 * 8
    fixed = LossScaled(2.0**10, interval=None, inner=Spoiled(bad))
    g = fixed.start(problem, x, 0)
    for i in range(12):
        fixed(x, SimpleNamespace(rows=np.arange(8), weights=None), out=g)
        assert fixed.skip == (i in bad)
    assert set(fixed.inner.scales) == {2.0**10}


def test_after_so_many_good_steps_it_doubles_once():
    problem, method = network(), LossScaled(interval=2000)
    method.start(problem, problem.x0(np.random.default_rng(0)), 0)
    for i in range(3999):
        method.learn(True)
        assert method.current == 65536.0 * (2 if i >= 1999 else 1)
    method.learn(True)
    assert method.current == 4 * 65536.0


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_skipped_step_moves_nothing(value, monkeypatch):
    """x, m, v, t, the schedule's step and batch statistics: a run with bad steps is one without them, of the others'
    rows."""
    bad, steps = (0, 3, 4, 11), 12
    rows = [np.random.default_rng(i).integers(0, 24, 6) for i in range(steps + len(bad))]

    def run(estimator, used):
        class Given(WithReplacement):
            def take(self, k):
                for batch in super().take(k):
                    yield batch._replace(rows=used[self.taken - 1])

        made = network(loss_scale=1024.0)
        schedule = Cosine(0.05)
        found = minimize(made, Adam(0.8, 0.9), Given(6), schedule, estimator, stop=Stop(steps=steps), seed=2)
        return found, made

    one, first = run(LossScaled(1024.0, 2.0, 1.0 / 2, None, Spoiled(bad, value)), rows)
    other, second = run(None, [r for i, r in enumerate(rows) if i not in bad])
    np.testing.assert_array_equal(one.x, other.x)
    for name, kept in first.network.state().items():
        for key, array in kept.items():
            np.testing.assert_array_equal(array, second.network.state()[name][key])
    assert one.columns["skipped"][-1] == 4 and one.columns["step"][-1] == other.columns["step"][-1] == steps
    assert one.columns["lr"][-1] == other.columns["lr"][-1]


def test_two_of_them_share_nothing():
    problem = network()
    x = problem.x0(np.random.default_rng(0))
    one, other = LossScaled(inner=Spoiled([0])), LossScaled(inner=Spoiled([]))
    batch = SimpleNamespace(rows=np.arange(8), weights=None)
    for method in (one, other):
        g = method.start(problem, x, 0)
        method(x, batch, out=g)
    assert one.skip and not other.skip
    assert (one.shown["scale"], other.shown["scale"]) == (32768.0, 65536.0)


def test_the_gradient_is_that_of_float32_to_a_thousandth():
    exact, problem = network(None), network()
    x = exact.x0(np.random.default_rng(0))
    batch, found = SimpleNamespace(rows=np.arange(24), weights=None), {}
    for name, p, method in (("exact", exact, Minibatch()), ("half", problem, LossScaled(2.0**10))):
        g = method.start(p, x, 0)
        p.begin(0)
        method(x, batch, out=g)
        found[name] = g
    error = np.linalg.norm(found["half"] - found["exact"]) / np.linalg.norm(found["exact"])
    assert error < 2e-3


@pytest.mark.parametrize("inner", [Minibatch(), Accumulated(5), SAM(0.05)], ids=repr)
def test_in_float32_a_scale_changes_no_bit_and_clipping_comes_after(inner):
    """Pitfall 17: clipped by 0.1 with scale 1 and 2^16, the steps are the same."""

    def run(estimator):
        return minimize(
            network(None, l2=0.01), HeavyBall(0.7), WithReplacement(10), 0.05, estimator, stop=Stop(steps=9)
        )

    plain = run(Clipped(0.1, inner))
    for scale in (1.0, 2.0**16):
        np.testing.assert_array_equal(run(Clipped(0.1, LossScaled(scale, inner=inner))).x, plain.x)
    assert abs(run(inner).x - plain.x).max() > 1e-4  # it clips


def test_small_slopes_survive_only_when_scaled():
    """Course arm: the loss by 1024 and the rate times 1024 are one trajectory, but in float16 without a scale."""

    class Divided(nn.losses.SoftmaxCrossEntropy):
        def value_and_gradient(self, z, t, weights=None):
            loss, dz = super().value_and_gradient(z, t, weights)
            return loss, dz * 2.0**-20

    def run(compute, estimator):
        made = Neural(nn.mlp((36, 12, 3), norm="batch"), Images(noise()), Divided(), compute=compute)
        return minimize(made, HeavyBall(0.7), WithReplacement(12), 0.02 * 2.0**20, estimator, stop=Stop(steps=20)).x

    exact, lost, saved = run(None, None), run("float16", None), run("float16", LossScaled(2.0**20, interval=None))
    start = network(None).x0(backend.generator(0, "x0"))
    moved = np.linalg.norm(exact - start)
    assert np.linalg.norm(saved - exact) < 0.02 * moved < 0.2 * moved < np.linalg.norm(lost - exact)


def test_it_finds_its_scale_and_resumes_bit_for_bit(tmp_path):
    """From 2^40 the first steps overflow; broken off in the middle of them, the run ends where the whole one does."""

    def run(steps, **events):
        method = HeavyBall(0.7), WithReplacement(6), 0.02, LossScaled(2.0**40, interval=7)
        return minimize(network(), *method, stop=Stop(steps=steps), events=events, seed=3)

    whole = run(20)
    assert whole.columns["skipped"][-1] >= 15 and whole.reason == "steps" and whole.columns["scale"][-1] < 2.0**26
    for first in (1, 8):
        path = tmp_path / f"{first}.npz"
        run(first, checkpoint=path)
        again = run(20, checkpoint=path)
        np.testing.assert_array_equal(again.x, whole.x)
        assert again.columns["scale"][-1] == whole.columns["scale"][-1]
        assert again.columns["skipped"][-1] == whole.columns["skipped"][-1]


def test_on_devices(device):
    """Where nothing may be read but the norm of g. (Arrays of two bytes: tests/shim.)"""
    made = network("float16" if device == "gpu" else None)
    method = LossScaled(2.0**10, interval=4, inner=Spoiled([1, 2]))
    run = minimize(made, Adam(), WithReplacement(8), 0.01, method, stop=Stop(steps=12), seed=1)
    losses = run.columns["train_loss"]
    assert run.reason == "steps" and losses[-1] < losses[0]
    assert (run.columns["skipped"][-1], run.columns["scale"][-1]) == (2, 2.0**10 / 4 * 2**2)


def test_what_no_scale_helps_ends_as_diverged():
    run = minimize(network(), HeavyBall(0.7), WithReplacement(6), 0.02, LossScaled(inner=Spoiled(range(10**6))))
    assert run.reason.startswith("diverged: the loss is nan at step") and run.columns["skipped"][-1] == 40


def test_in_some_segments_alone():
    whole = network()
    x = whole.x0(np.random.default_rng(0))
    part = whole.restrict(x, [whole.segments[0].name])
    method = LossScaled(2.0**40)
    g = method.start(part, part.x0(None), 0)
    method(part.x0(None), SimpleNamespace(rows=np.arange(8), weights=None), out=g)
    assert method.skip  # the scale reached the network


def test_refusals():
    for call, why in (
        (lambda: LossScaled(3.0), "scale must be a power of 2"),
        (lambda: LossScaled(growth=1.5), "growth must be a power of 2"),
        (lambda: LossScaled(backoff=0.3), "backoff must be a power of 2"),
        (lambda: LossScaled(backoff=1.0), "backoff must"),
        (lambda: LossScaled(interval=0), "interval must"),
        (lambda: LossScaled(inner=ClippedByValue(0.1)), "ClippedByValue may hide that g is not finite"),
        (lambda: LossScaled(inner=Accumulated(3, Clipped(1.0))), "Clipped may hide"),
        (lambda: minimize(Quadratic([1.0]), HeavyBall(0.1), estimator=LossScaled()), "has no loss_scale"),
    ):
        with pytest.raises(ValueError, match=why):
            call()
