"""Second derivatives of networks: against central differences of gradients, and column by column."""

import nn
from nn import losses
from nn.twice import Twice, lacking
from npopt import backend

import numpy as np
import pytest
from test_layers import LAYERS

KNOWN = [name for name, (make, _) in LAYERS.items() if lacking(make()) is None]
RUNS = {"training": nn.Run(training=True, dx=True, seed=7), "evaluation": nn.Run(dx=True)}


def behind(layer, shape):
    """The layer behind one with parameters, so that its inputs move, too."""
    first = nn.Conv2d(shape[-1], shape[-1], 1) if len(shape) == 3 else nn.Linear(shape[-1], shape[-1])
    return nn.Sequential(first=first, then=layer)


def made(network, inputs, c, v, run):
    """(J v, H v) of f(x) = sum c * network(inputs; x)."""
    x, out = network.start, backend.zeros((network.dim,), "float64")
    network.bind(x)
    twice = Twice(network, inputs, run)
    twice.note(c.copy())
    network.bind(x, out)
    rz = twice.tangent(v)
    twice.second(backend.xp(c).zeros_like(c))
    return rz, out


def differences(network, inputs, c, v, run, h=1e-6):
    """The same by central differences."""
    found = []
    for sign in (1, -1):
        x, g = network.start + sign * h * v, np.zeros(network.dim)
        network.bind(x, g)
        z, saved = network.forward(inputs, run)
        z = z.copy()
        network.backward(c.copy(), saved, run)
        found.append((z, g))
    return [(a - b) / (2 * h) for a, b in zip(*found, strict=True)]


def close(found, expected):
    """To 1e-7 of the largest number."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * max(1, np.abs(expected).max()))


def network_of(layer, shape, **options):
    network = nn.Network(layer, shape, **options)
    rng = np.random.default_rng(3)
    network.start = backend.asarray(rng.standard_normal(network.dim))
    return network, rng


def test_which_layers_have_second_derivatives():
    left = ("lstm", "two lstms", "gru", "prelu", "layer norm", "softmax", "log-softmax")
    left += ("rms norm", "gated", "positions", "attention", "encoder", "lora", "flora", "low rank", "sltrain")
    assert set(KNOWN) == {name for name in LAYERS if not name.startswith(left)}
    network = nn.Network(nn.Sequential(a=nn.Linear(3, 3), b=nn.LayerNorm(3)), (3,))
    with pytest.raises(ValueError, match="'b', a LayerNorm, has no tangent"):
        Twice(network, np.ones((2, 3)), RUNS["training"])


@pytest.mark.parametrize("mode", RUNS)
@pytest.mark.parametrize("name", KNOWN)
def test_tangents_and_second_derivatives(name, mode):
    make, shape = LAYERS[name]
    for layer in (make(), behind(make(), shape)):
        network, rng = network_of(layer, shape)
        inputs, v = rng.standard_normal((3, *shape)), rng.standard_normal(network.dim)
        c = rng.standard_normal((3, *network.output_shape))
        if not network.dim:
            continue
        for found, expected in zip(
            made(network, inputs, c, v, RUNS[mode]), differences(network, inputs, c, v, RUNS[mode]), strict=True
        ):
            close(found, expected)


@pytest.mark.parametrize("name", KNOWN)
def test_second_derivatives_where_nothing_may_be_read(name, device):
    make, shape = LAYERS[name]
    found = []
    for where in ("cpu", device):
        backend.use(where)
        network, rng = network_of(behind(make(), shape), shape)
        numbers = [rng.standard_normal(n) for n in ((3, *shape), (3, *network.output_shape), network.dim)]
        inputs, c, v = map(backend.asarray, numbers)
        found.append([backend.to_host(a).copy() for a in made(network, inputs, c, v, RUNS["training"])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def test_products_come_again_and_adjoints_are_adjoint():
    make, shape = LAYERS["residual block with shortcut"]
    network, rng = network_of(behind(make(), shape), shape)
    inputs, c = rng.standard_normal((3, *shape)), rng.standard_normal((3, *network.output_shape))
    u, v = rng.standard_normal((2, network.dim))
    network.bind(network.start)
    twice = Twice(network, inputs, RUNS["training"])
    twice.note(c.copy())
    out = np.empty((3, network.dim))
    for row, along in zip(out, (u, v, u), strict=True):
        network.bind(network.start, row)
        rz = twice.tangent(along)
        twice.second(np.zeros_like(c))
    np.testing.assert_array_equal(out[0], out[2])
    assert v @ out[0] == pytest.approx(u @ out[1], rel=1e-10)  # H is symmetric
    network.bind(network.start, out[0])
    twice.adjoint(c.copy())
    assert out[0] @ u == pytest.approx(np.vdot(c, rz), rel=1e-12)  # rz = J u
    assert network.pending is None


def test_shared_parameters_add_up():
    body = nn.Sequential(a=nn.Linear(4, 4), act=nn.Tanh(), b=nn.Linear(4, 4), last=nn.Tanh())
    network, rng = network_of(body, (4,), share={"b.W": "a.W"})
    inputs, c, v = (rng.standard_normal(n) for n in ((3, 4), (3, 4), network.dim))
    run = RUNS["training"]
    for found, expected in zip(made(network, inputs, c, v, run), differences(network, inputs, c, v, run), strict=True):
        close(found, expected)


LOSSES = {
    "cross-entropy": (losses.SoftmaxCrossEntropy(0.1), (5, 4), lambda rng: rng.integers(0, 4, 5)),
    "of sequences": (losses.SoftmaxCrossEntropy(), (4, 3, 6), lambda rng: rng.integers(-1, 6, (4, 3))),
    "squared": (losses.SquaredError(), (5, 3), lambda rng: rng.standard_normal((5, 3))),
    "binary": (losses.BinaryCrossEntropy(2.5), (6, 2), lambda rng: rng.random((6, 2))),
    "binary, mean": (losses.BinaryCrossEntropy(2.5, mean=True), (6, 2), lambda rng: rng.random((6, 2))),
    "divergence": (losses.KLDivergence(), (5, 4), lambda rng: rng.standard_normal((5, 4))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_tangents_of_losses(name, device):
    loss, shape, targets = LOSSES[name]
    rng = np.random.default_rng(0)
    t = targets(rng)
    z, rz, w = 2 * rng.standard_normal(shape), rng.standard_normal(shape), rng.random(shape[0])
    found = backend.to_host(loss.tangent(*map(backend.asarray, (z, t, rz, w))))
    backend.use("cpu")
    right, left = (loss.value_and_gradient(z + h * rz, t, w)[1] for h in (1e-6, -1e-6))
    close(found, (right - left) / 2e-6)
