"""Networks whose activations have two bytes a number: beside float32 they differ by the rounding, and they train. On a
CPU the same numbers are kept in float32 (tests/nn/test_narrow.py has more about them)."""

import nn
from nn import narrow
from nn.networks import basic_block
from npopt import HeavyBall, WithReplacement, backend, minimize
from npopt.errors import UserError
from problems.feeds import Images
from problems.neural import Neural

import cudashim
import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 by it)
import numpy as np
import pytest
from noise import pictures

shimmed = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)


def residual():
    """A residual network of two convolutions' widths: the layers of ResNet-18, in a few."""
    body = dict(stem=nn.Conv2d(1, 32, 3, 1, 1, bias=False), bn=nn.BatchNorm(32), act=nn.ReLU())
    body |= dict(
        block1=basic_block(32, 32), block2=basic_block(32, 64, 2), pool=nn.GlobalAvgPool(), fc=nn.Linear(64, 3)
    )
    return nn.Network(nn.Sequential(**body), (8, 8, 1), "residual")


NETWORKS = {
    "mlp": lambda: nn.mlp((64, 32, 3), norm="batch"),
    "lenet5": lambda: nn.lenet5(),
    "residual": residual,
}
NEAR = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.fixture(params=["cpu", pytest.param("shim", marks=shimmed), pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request):
    backend.use(request.param)
    yield request.param
    backend.use("cpu")


def problem(name, **options):
    data = pictures(np.random.default_rng(7), 12, 28 if name == "lenet5" else 8)
    return Neural(NETWORKS[name](), Images(data), **options)


def gradient(made, x):
    x, g = backend.asarray(x), backend.empty(x.shape, x.dtype)
    made.begin(0)
    loss = backend.to_host(made.value_and_gradient(x, np.arange(12), None, g))
    return loss, backend.to_host(g).astype(float)


@pytest.mark.parametrize("kind", NEAR)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "lenet5" else name for name in NETWORKS]
)
def test_gradients_differ_by_the_rounding(name, kind, place):
    """Each layer rounds its activations: some tens of roundings. A loss scale changes next to nothing here."""
    exact = problem(name)
    x = backend.to_host(exact.x0(backend.generator(0, "x0")))
    loss, g = gradient(exact, x)
    for scale in (1.0, 1024.0) if name != "residual" else (64.0,):
        half, h = gradient(problem(name, compute=kind, loss_scale=scale), x)
        assert abs(half - loss) < 20 * NEAR[kind] * (1 + abs(loss))
        # in twelve rows of the residual network a rounding may turn a unit on or off: 38 to 83 roundings over six seeds
        most = 100 if name == "residual" else 60
        assert 0 < np.linalg.norm(h - g) < most * NEAR[kind] * np.linalg.norm(g)


def test_a_loss_scale_saves_small_gradients(place):
    """Gradients of 1e-7 and less: float16 loses them, unless the loss is scaled by 2^14."""
    exact = problem("mlp")
    x = backend.to_host(exact.x0(backend.generator(0, "x0")))
    _, g = gradient(exact, x)
    small = problem("mlp")
    small.loss_function.value_and_gradient = lambda z, t, w, f=small.loss_function.value_and_gradient: tiny(*f(z, t, w))
    lost = {}
    for scale in (1.0, 2.0**24):
        made = problem("mlp", compute="float16", loss_scale=scale)
        whole = made.loss_function.value_and_gradient
        made.loss_function.value_and_gradient = lambda z, t, w, f=whole: tiny(*f(z, t, w))
        lost[scale] = np.linalg.norm(gradient(made, x)[1] * 2**24 - g) / np.linalg.norm(g)
    assert lost[1.0] > 0.2 and lost[2.0**24] < 0.02


def tiny(loss, dz):
    return loss, dz * 2.0**-24


@pytest.mark.parametrize("kind", NEAR)
def test_it_trains(kind, place):
    """The same curve but for the rounding; on a card with convolutions, too."""
    for name in ("mlp",) if place == "shim" else NETWORKS:
        runs = [
            minimize(problem(name, compute=c), HeavyBall(0.9), WithReplacement(6), 0.02, stop=dict(steps=30), seed=1)
            for c in (None, kind)
        ]
        first, other = (np.array(run.columns["train_loss"]) for run in runs)
        assert other[-1] < 0.7 * other[0] and np.abs(first - other).max() < 60 * NEAR[kind]


def bare():
    """Without biases both ways round at the same places."""
    layers = dict(fc1=nn.Linear(64, 32, bias=False), norm=nn.BatchNorm(32), act=nn.ReLU())
    return nn.Network(nn.Sequential(**layers, fc2=nn.Linear(32, 3, bias=False)), (64,), "bare")


@shimmed
@pytest.mark.parametrize("kind", NEAR)
@pytest.mark.parametrize("name", ["bare", "mlp"])
def test_on_a_cpu_the_numbers_are_those_of_a_gpu(name, kind, monkeypatch):
    """Without biases activations are equal, but for sums of float32 that end beside a middle. A bias is added before
    the rounding here, and there to a product that was rounded before: two ways to round, one as near as the other."""
    monkeypatch.setitem(NETWORKS, "bare", bare)
    exact = problem(name)
    x = backend.to_host(exact.x0(backend.generator(2, "x0")))
    _, g = gradient(exact, x)
    found = {}
    for place in ("cpu", "shim"):
        backend.use(place)
        try:
            made = problem(name, compute=kind, loss_scale=256.0)
            found[place] = gradient(made, x)
            assert narrow.narrow(made.network, nn.Run(compute=kind)) == (place == "cpu")  # arrays of two bytes there
        finally:
            backend.use("cpu")
    (loss, one), (other_loss, other) = found.values()
    assert abs(loss - other_loss) < NEAR[kind] * (1 + abs(loss))
    assert np.linalg.norm(one - other) < (1e-3 if name == "bare" else 2) * np.linalg.norm(one - g)


def test_where_it_cannot_be_had():
    with pytest.raises(UserError, match="must be one of 'float16', 'bfloat16', 'float8_e4m3', .*, got 'half'"):
        problem("mlp", compute="half")
