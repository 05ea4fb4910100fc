"""Draws are equal in value on every device, so that runs on two devices agree while rounding is small."""

from types import SimpleNamespace

import nn
from npopt import (
    L1,
    SAGA,
    SGD,
    SVRG,
    Accumulated,
    AdaptiveImportance,
    ByClass,
    Events,
    HeavyBall,
    Importance,
    Proximal,
    RandomReshuffling,
    ShuffleOnce,
    SophiaG,
    SophiaH,
    Stop,
    WithReplacement,
    backend,
    minimize,
)
from npopt.analysis.curvature import lanczos
from problems import Logistic, Neural, Quadratic, Surface
from problems.feeds import CropFlip, Images

import numpy as np
import pytest

N = 40


def network(build, augment=None):
    rng = np.random.default_rng(6)
    x, y = rng.integers(0, 256, (N, 8, 8, 3)).astype("uint8"), rng.integers(0, 4, N)
    data = SimpleNamespace(
        name="noise",
        x_train=x,
        y_train=y,
        x_test=x[:9],
        y_test=y[:9],
        mean=[110.0, 120.0, 130.0],
        std=[60.0, 70.0, 80.0],
        scale=255.0,
    )
    return Neural(build(), Images(data, augment), dtype="float64")


def small(dropout=0.0, norm="batch"):
    return nn.mlp((192, 9, 4), nn.Tanh, norm=norm, dropout=dropout)


def plain():
    """Without batch norm: behind a bias before it, whose gradient is rounding alone, Sophia divides by rounding."""
    return small(norm=None)


def linear(**more):
    rng = np.random.default_rng(7)
    return Logistic(rng.standard_normal((N, 5)), np.where(rng.random(N) < 0.4, -1, 1), 0.1, intercept=True, **more)


ORDER = RandomReshuffling(7)
RUNS = {  # problem, optimizer, sampler, estimator
    "dropout": (lambda: network(lambda: small(0.4)), HeavyBall(0.8), ORDER, None),
    "augmentation": (
        lambda: network(lambda: nn.resnet18(width=2, classes=4, image=8), CropFlip(2)),
        HeavyBall(0.8),
        ORDER,
        None,
    ),
    "augmentation, in parts": (lambda: network(plain, CropFlip(1)), SGD(), ORDER, Accumulated(2)),
    "labels from the model": (lambda: network(plain), SophiaG(0.9, 0.8, every=2), ORDER, None),
    "probes of the Hessian": (lambda: network(plain), SophiaH(0.9, 0.8, every=2), ORDER, None),
    "noise of a quadratic": (lambda: Quadratic([1.0, 0.3, 2.0], n=N, noise=0.5), SGD(), ORDER, None),
    **{
        f"rows: {type(sampler).__name__}": (linear, SGD(), sampler, None)
        for sampler in (
            ORDER,
            ShuffleOnce(7),
            WithReplacement(7),
            Importance(7, "norms", 0.2),
            AdaptiveImportance(7, 0.4, 0.3),
            ByClass(7),
        )
    },
    **{
        f"estimates: {estimator!r}": (linear, SGD(), WithReplacement(3), estimator)
        for estimator in (SVRG(0.5, "I"), SVRG(0.5, "II"), SAGA("scalars"), SAGA("gradients", "zeros"))
    },
    "a penalty": (lambda: linear(regulariser=L1(0.02)), Proximal(SGD()), WithReplacement(7), None),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_agree_on_two_devices(name, device):
    build, optimizer, sampler, estimator = RUNS[name]
    found = {}
    for where, seed in ((device, 5), ("cpu", 5), ("cpu", 6)):
        backend.use(where)
        run = minimize(
            build(),
            optimizer,
            sampler,
            0.02,
            estimator,
            stop=Stop(steps=6),
            seed=seed,
            events=Events(metrics=2, per="step"),
        )
        found[where, seed] = np.asarray(backend.to_host(run.x)), run.columns["loss"][1:]
    for ours, theirs in zip(found[device, 5], found["cpu", 5], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)  # sums in another order, six steps
    assert np.abs(found["cpu", 5][0] - found["cpu", 6][0]).max() > 1e-6  # the draws do matter


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_by_index_are_those_of_the_cpu(dtype, device):
    rows = np.array([3, 0, 3, 11])
    found = []
    for where in (device, "cpu"):
        backend.use(where)
        normals = backend.normals(backend.key(8, "z", 2), backend.empty((50,), dtype), offset=1 << 40)
        uniforms = backend.row_uniform(backend.key(8, "u", 3), backend.asarray(rows), backend.empty((4, 5), dtype))
        whole = backend.row_uniform(backend.key(8, "u", 3), None, backend.empty((12, 5), dtype))
        found.append([backend.to_host(v) for v in (normals, uniforms, whole)])
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-14 if dtype == "float64" else 2e-7)  # log, cos
    for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(found[0][1], found[0][2][rows])


def test_starts_orders_and_shifted_points_are_those_of_the_cpu(device):
    found = []
    for where in (device, "cpu"):
        backend.use(where)
        net, model, surface = network(small), linear(), Surface("beale")
        x = net.x0(backend.generator(3, "x0"))
        orders = []
        for sampler in (ORDER, WithReplacement(7), Importance(7, "norms", 0.2)):
            sampler.start(model, 9)
            orders += [backend.to_host(part) for batch in sampler.take(8) for part in batch[:2] if part is not None]
        exact = [backend.to_host(x), backend.to_host(surface.x0(backend.generator(3, "x0"))), *orders]
        shifted = backend.to_host(net.value(x, backend.asarray(np.arange(9)), shift=(0.1, backend.key(2, "s"))))
        top = lanczos(lambda v: v * backend.asarray(np.arange(1.0, 31.0)), 30, 5, seed=4).values
        found.append((exact, [shifted, *top]))
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10)
