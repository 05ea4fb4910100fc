"""Whole training steps on the stand-in GPU: npopt's own device code, CUDA kernels and formulas, run on the CPU."""

import nn
from nn.kernels.gpu import convolutions
from nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
from npopt import LOZO, SGD, AdamW, CoordinateDifferences, MeZO, WithReplacement, backend, minimize
from problems.feeds import CropFlip, Images
from problems.neural import Neural

import cudashim
import numpy as np
import pytest
from noise import pictures
from test_layers import LAYERS

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)

NETWORKS = {
    "mlp with batch norm and dropout": lambda: nn.mlp((6, 7, 5, 3), norm="batch", dropout=0.2),
    "mlp with layer norm": lambda: nn.mlp((6, 7, 5, 3), nn.GELU, norm="layer"),
    "lenet5": nn.lenet5,
    "lenet5 as in 1998": lambda: nn.lenet5(nn.Tanh, "avg"),
    "resnet18": lambda: nn.resnet18(width=4, in_channels=1, image=16),
    "vgg11": lambda: nn.vgg(11, width=2),
}
# The same sums in another order, gradients in units of their own size. Winograd's maps, with numbers up to 8 on both
# sides of the sum, lose about a digit.
NEAR = {"float32": 1e-5, "float64": 1e-12}


def on(device, path=None):
    """Work on this device: the stand-in with its kernels, the CPU with array code."""
    backend.use(device)
    nn.kernels.use(path or ("fast" if device == "shim" else "reference"))


def step(make, loss, dtype, device, seed):
    """Outputs, loss, the gradients of inputs and of each segment, and the outputs of an evaluation pass."""
    on(device)
    draws, network, run = np.random.default_rng(seed), make(), nn.Run(training=True, dx=True, seed=3)
    x = network.x0(draws, dtype)
    a = draws.standard_normal((6, *network.input_shape)).astype(dtype)
    outputs = int(np.prod(network.output_shape))
    t = draws.integers(0, outputs, 6) if isinstance(loss, SoftmaxCrossEntropy) else draws.random((6, outputs))
    weights = draws.random(6).astype(dtype)
    t = t.astype(dtype) if t.dtype.kind == "f" else t
    a, t, weights, g = (backend.asarray(v) for v in (a, t, weights, np.full(network.dim, np.nan, dtype)))
    network.bind(x, g)
    z, saved = network.forward(a, run)
    value, dz = loss.value_and_gradient(z, t, weights)
    found = [backend.to_host(z).copy(), np.array(backend.to_host(value))]
    found.append(backend.to_host(network.backward(dz, saved, run)).copy())
    found += [backend.to_host(g[s.slice]).copy() for s in network.segments]
    network.commit()
    return [*found, backend.to_host(network.forward(a, nn.Run())[0]).copy()]


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_is_that_of_the_cpu(name, dtype, rng, monkeypatch):
    monkeypatch.setattr(convolutions, "WINOGRAD", False)
    compare(NETWORKS[name], SoftmaxCrossEntropy(0.1), dtype, rng, NEAR[dtype])


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_a_step_by_winograd_is_that_of_the_cpu(name, dtype, rng):
    cudashim.EXECUTED.clear()
    compare(NETWORKS[name], SoftmaxCrossEntropy(0.1), dtype, rng, 10 * NEAR[dtype])
    assert "winograd_weights_adjoint" in {kernel for kernel, _ in cudashim.EXECUTED}


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("loss", [SquaredError(), BinaryCrossEntropy(), SoftmaxCrossEntropy()])
def test_losses(loss, dtype, rng):
    compare(lambda: nn.mlp((5, 4, 3)), loss, dtype, rng, NEAR[dtype])


def compare(make, loss, dtype, rng, near):
    seed = rng.integers(1 << 30)
    try:
        fast, slow = (step(make, loss, kind, device, seed) for kind, device in ((dtype, "shim"), ("float64", "cpu")))
        again = step(make, loss, dtype, "shim", seed)
    finally:
        on("cpu", "fast")
    scale = np.sqrt(np.mean(np.concatenate([v.ravel() for v in slow[3:-1]]) ** 2))
    for i, (a, b, c) in enumerate(zip(fast, slow, again, strict=True)):
        size = max(np.abs(b).max(), scale if 2 < i < len(slow) - 1 else 0)
        np.testing.assert_allclose(a, b, rtol=0, atol=near * size)
        np.testing.assert_array_equal(a, c)  # the same bits again


def test_training_runs_as_on_the_cpu(rng):
    """minimize, a problem with crops and flips, batch norm and dropout, and optimizers: the same curve on both."""
    data = pictures(rng, 64)
    for optimizer in (AdamW(), SGD()):
        found = []
        for device in ("shim", "cpu"):
            on(device)
            problem = Neural(
                nn.resnet18(width=2, in_channels=1, classes=3, image=8),
                Images(data, CropFlip(2)),
                dtype="float64",
                l2=1e-3,
            )
            run = minimize(problem, optimizer, WithReplacement(8), 1e-3, stop=dict(steps=5), seed=4)
            found.append([run.columns["loss"], run.columns["train_loss"], backend.to_host(run.x)])
        on("cpu", "fast")
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_every_layer(name, shim):
    make, shape = LAYERS[name]
    report = nn.gradcheck_layer(make(), shape)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["lenet5 as in 1998", "resnet18"])
@pytest.mark.parametrize("estimator", [MeZO(1e-2, 2), LOZO(2, 2, 1e-2, 0.5), CoordinateDifferences(1e-2, "central", 5)])
def test_steps_by_function_values_are_those_of_the_cpu(estimator, name, rng):
    size, found = NETWORKS[name]().input_shape[0], []
    data = pictures(rng, 12, size, 10)
    for device in ("shim", "cpu"):
        on(device)
        problem = Neural(NETWORKS[name](), Images(data), dtype="float64")
        run = minimize(problem, SGD(), WithReplacement(4), 1e-4, estimator, stop=dict(steps=3), seed=2)
        found.append(backend.to_host(run.x).copy())
    np.testing.assert_allclose(*found, rtol=1e-7, atol=1e-9)
    assert np.abs(found[0] - problem.x0(backend.generator(2, "x0"))).max() > 1e-6
    on("cpu", "fast")
