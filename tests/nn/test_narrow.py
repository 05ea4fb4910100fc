"""Networks in narrow formats on a CPU: bit by bit against NumPy's float16, and what layers see, keep and read."""

from types import SimpleNamespace

import nn
from lab.account import bytes_of
from nn import narrow
from nn.layer import Run
from nn.networks import basic_block
from npopt import Adam, HeavyBall, Layerwise, Stop, WithReplacement, backend, minimize
from npopt.backend import rounded
from npopt.directions import Normals
from npopt.errors import UserError
from problems.feeds import Images, Table
from problems.neural import Neural

import ml_dtypes
import numpy as np
import pytest

HALF = np.float16
TYPES = {"float16": HALF, "bfloat16": ml_dtypes.bfloat16}
TYPES |= {"float8_e4m3": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2}


def pictures(rng, count, size):
    """So many grey pictures of noise, with three labels."""
    x, y = rng.integers(0, 256, (count, size, size, 1)).astype("uint8"), rng.integers(0, 3, count)
    none = dict(x_test=None, y_test=None, classes=(0, 1, 2), sha256="")
    return SimpleNamespace(name="noise", x_train=x, y_train=y, mean=[120.0], std=[70.0], scale=1.0, **none)


def half(a):
    """Sums of float64 that are exact in float32, too, as float16."""
    assert (a.astype("float32") == a).all()
    with np.errstate(over="ignore"):
        return a.astype(HALF)


def slow_conv(x, W, b):
    """(B, H, W, C) float16, valid, stride 1: a loop over positions."""
    n, k = x.shape[1] - W.shape[1] + 1, W.shape[1]
    y = np.empty((len(x), n, n, len(W)))
    for i in range(n):
        for j in range(n):
            y[:, i, j] = np.tensordot(x[:, i : i + k, j : j + k].astype(float), W.astype(float), ((1, 2, 3), (1, 2, 3)))
    return half(y + b)


def slow_conv_back(x, W, dy, wanted):
    """(dx float16, dW): a loop over positions."""
    k, dW, dx = W.shape[1], np.zeros(W.shape), np.zeros(x.shape)
    for i in range(dy.shape[1]):
        for j in range(dy.shape[2]):
            d = dy[:, i, j].astype(float)
            dW += np.tensordot(d, x[:, i : i + k, j : j + k].astype(float), (0, 0))
            dx[:, i : i + k, j : j + k] += np.tensordot(d, W.astype(float), (1, 0))
    return half(dx) if wanted else None, dW


def slow_pool(x):
    """2 x 2 maxima, and where they were."""
    b, h, w, c = x.shape
    tiles = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(b, h // 2, w // 2, c, 4)
    return tiles.max(-1), tiles.argmax(-1)


def slow_pool_back(dy, index):
    b, h, w, c = dy.shape
    tiles = np.zeros((b, h, w, c, 4), dy.dtype)
    np.put_along_axis(tiles, index[..., None], dy[..., None], -1)
    return tiles.reshape(b, h, w, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, c)


def slow_lenet(inputs, p, dy):
    """(logits, {name: gradient}) of LeNet-5 in float16 with exact sums."""
    x, kept, g = np.pad(inputs, ((0, 0), (2, 2), (2, 2), (0, 0))).astype(HALF), [], {}
    for name in ("conv1", "conv2"):
        z = slow_conv(x, p[name + ".W"].astype(HALF), p[name + ".b"])
        y, index = slow_pool(np.maximum(z, 0))
        kept.append((x, z, index))
        x = y
    shape, x, rows = x.shape, x.reshape(len(x), -1), []
    for name in ("fc1", "fc2", "fc3"):
        z = half(x.astype(float) @ p[name + ".W"].astype(HALF).astype(float).T + p[name + ".b"])
        rows.append((x, z))
        x = np.maximum(z, 0) if name != "fc3" else z
    d = dy.astype(HALF)
    for name in ("fc3", "fc2", "fc1"):
        before, z = rows.pop()
        d = d if name == "fc3" else np.where(z > 0, d, HALF(0))
        g[name + ".W"], g[name + ".b"] = d.astype(float).T @ before.astype(float), d.astype(float).sum(0)
        d = half(d.astype(float) @ p[name + ".W"].astype(HALF).astype(float))
    d = d.reshape(shape)
    for name in ("conv2", "conv1"):
        before, z, index = kept.pop()
        d = np.where(z > 0, slow_pool_back(d, index), HALF(0))
        g[name + ".b"] = d.astype(float).sum((0, 1, 2))
        d, g[name + ".W"] = slow_conv_back(before, p[name + ".W"].astype(HALF), d, name == "conv2")
    return x.astype("float32"), g


def sparse(rng, shape, values, share):
    return (rng.choice(values, shape) * (rng.random(shape) < share)).astype("float32")


def test_a_pass_of_lenet_is_that_of_float16_bit_by_bit(rng):
    """All sums are exact in float32, so their order does not matter; they have more bits than float16, which rounds."""
    network = nn.lenet5()
    x, g = np.empty(network.dim, "float32"), np.empty(network.dim, "float32")
    p = {}
    for s in network.segments:
        values = (1, -1, 1 + 2.0**-11, 2.0**-9) if s.name == "conv1.W" else (1, -1)
        share = 0.5 if s.name == "conv1.W" else 1.0 if s.name.endswith("b") else 8 / np.prod(s.shape[1:])
        x[s.slice] = sparse(rng, s.size, values, share)
        p[s.name] = x[s.slice].reshape(s.shape)
    inputs = sparse(rng, (3, 28, 28, 1), (1, 2, 3 + 2.0**-7), 0.5)
    dy = sparse(rng, (3, 10), (1, -1, 2.0**-11, 1 + 2.0**-9), 0.8)
    network.bind(x, g)
    run = Run(training=True, backward=True, compute="float16")
    y, saved = network.forward(inputs, run)
    network.backward(dy.copy(), saved, run)
    wanted, gradients = slow_lenet(inputs, p, dy)
    np.testing.assert_array_equal(y, wanted)
    for s in network.segments:
        found, right = g[s.slice].reshape(s.shape), gradients[s.name]
        if s.kind == "conv":  # up to 2,352 terms of 22 bits each: float32 rounds their sum, and in its own order
            assert abs(found - right).max() < 2.0**-24 * 64 * abs(right).max()
        else:
            np.testing.assert_array_equal(found, right.astype("float32"), s.name)
    y32, saved = network.forward(inputs, Run(training=True, backward=True))
    assert (y32 != y).mean() > 0.5  # something was rounded


@pytest.mark.parametrize("format", backend.FORMATS)
def test_a_linear_layer_row_by_row(format, rng):
    """y, dx rounded once; dW, db not at all; W read rounded, b not. By a loop over NumPy's numbers of that format."""
    network = nn.Network(nn.Linear(5, 4), (5,))
    x, g = rng.standard_normal(network.dim).astype("float32"), np.empty(network.dim, "float32")
    W, b = x[:20].reshape(4, 5), x[20:]
    inputs, dy = rng.standard_normal((6, 5)).astype("float32"), rng.standard_normal((6, 4)).astype("float32")
    network.bind(x, g)
    run = Run(training=True, dx=True, compute=format)
    y, saved = network.forward(inputs, run)
    dx = network.backward(dy.copy(), saved, run)
    kind = TYPES[format]
    a, d, w = (v.astype(kind).astype(float) for v in (inputs, dy, W))
    close = dict(rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(y, (a @ w.T + b).astype("float32").astype(kind).astype("float32"))
    np.testing.assert_array_equal(dx, (d @ w).astype("float32").astype(kind).astype("float32"))
    np.testing.assert_allclose(g[:20].reshape(4, 5), d.T @ a, **close)
    np.testing.assert_allclose(g[20:], d.sum(0), **close)
    assert (inputs.astype(kind).astype("float32") != inputs).any()


# ------------------------------------------------------------------------------------------------- what layers see
def residual():
    body = dict(stem=nn.Conv2d(1, 8, 3, 1, 1, bias=False), bn=nn.BatchNorm(8), act=nn.ReLU())
    body |= dict(block=basic_block(8, 8), other=basic_block(8, 16, 2), pool=nn.GlobalAvgPool(), fc=nn.Linear(16, 3))
    return nn.Network(nn.Sequential(**body), (8, 8, 1), "residual")


NETWORKS = {
    "mlp": lambda: nn.mlp((6, 8, 5), nn.Tanh, norm="batch", dropout=0.2),
    "residual": residual,
    "gpt2": lambda: nn.gpt2(13, 6, 16, 2, 2, dropout=0.1),
    "llama": lambda: nn.llama(13, 6, 16, 2, 2),
    "lstm": lambda: nn.language_model(13, 6, 8, 1),
}


def given(network, rng, rows=4):
    """Inputs of a network, and dy of its outputs."""
    shape = (rows, *network.input_shape)
    words = network.name.startswith(("gpt", "llama", "lstm", "language"))
    inputs = rng.integers(0, 13, shape) if words else rng.standard_normal(shape).astype("float32")
    return inputs, rng.standard_normal((rows, *network.output_shape)).astype("float32")


def bound(network, rng):
    x = network.x0(rng)
    x += 0.1 * rng.standard_normal(x.size).astype("float32")
    g = np.zeros_like(x)
    network.bind(x, g)
    return x, g


def spied(network, notes):
    """The layers' own methods, noting a copy of every float array that comes and every matrix that is read."""

    def functions(layer):
        there, back = layer.forward, layer.backward

        def note(*arrays):
            for a in arrays:
                note(*a) if isinstance(a, tuple) else None
                if isinstance(a, np.ndarray) and a.dtype == "float32":
                    notes.append((layer, a.copy()))

        def forward(*arguments):
            note(*arguments[:-1])
            for name, (_, kind) in layer.shapes.items():
                if kind in narrow.TABLES:
                    note(getattr(layer, name))
            return there(*arguments)

        def backward(dy, saved, run):
            note(dy)
            return back(dy, saved, run)

        return {"forward": forward, "backward": backward}

    return narrow.replaced([one for one in narrow.layers_of(network.layer) if not one.children()], functions)


@pytest.mark.parametrize("format", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_given_numbers_of_the_format_alone(name, format, rng):
    """Inputs, slopes and tables of every layer; x stays as it is, and the layers have their own methods again."""
    network = NETWORKS[name]()
    inputs, dy = given(network, rng)
    x, g = bound(network, rng)
    before, notes = x.copy(), []
    run = Run(training=True, backward=True, compute=format, seed=1)
    with spied(network, notes):
        y, saved = network.forward(inputs, run)
        network.backward(dy.copy(), saved, run)
    assert len(notes) > 8 and y.dtype == g.dtype == np.float32
    for layer, a in notes:
        np.testing.assert_array_equal(a, rounded(a, format), repr(layer))
    np.testing.assert_array_equal(y, rounded(y, format))
    np.testing.assert_array_equal(x, before)
    assert (rounded(x, format) != x).any() and (rounded(g, format) != g).any()  # neither is rounded
    for layer in narrow.layers_of(network.layer):
        assert not {"forward", "backward"} & set(vars(layer))
    for layer, parameter in network.owners:
        assert np.shares_memory(getattr(layer, parameter), x)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_differ_from_those_of_float32_by_the_rounding(name, rng):
    network = NETWORKS[name]()
    inputs, dy = given(network, rng)
    x, g = bound(network, rng)
    found = {}
    for compute in (None, "float16", "bfloat16"):
        run = Run(training=True, backward=True, compute=compute, seed=1)
        y, saved = network.forward(inputs, run)
        network.backward(dy.copy(), saved, run)
        found[compute] = g.copy()
    for compute, near in (("float16", 2.0**-11), ("bfloat16", 2.0**-8)):
        error = np.linalg.norm(found[compute] - found[None]) / np.linalg.norm(found[None])
        assert 0 < error < 60 * near, compute


def test_a_network_that_ends_in_a_sum_gives_numbers_of_the_format(rng):
    network = nn.Network(nn.EncoderLayer(8, 2), (3, 8))
    x, g = bound(network, rng)
    inputs, dy = given(network, rng)
    run = Run(training=True, dx=True, compute="bfloat16")
    y, saved = network.forward(inputs, run)
    dx = network.backward(dy.copy(), saved, run)
    for a in (y, dx):
        np.testing.assert_array_equal(a, rounded(a, "bfloat16"))
    y, saved = network.forward(inputs, Run(training=True, dx=True))
    other = network.backward(dy.copy(), saved, Run(training=True, dx=True))
    assert 0 < np.linalg.norm(dx - other) < 20 * 2.0**-8 * np.linalg.norm(other)


def test_a_batch_norm_takes_its_statistics_in_float32(rng):
    """In float16 their sums would be infinite here: 400^2 is more than the largest number."""
    network = nn.Network(nn.BatchNorm(3), (3,))
    x, g = np.ones(6, "float32"), np.empty(6, "float32")
    x[3:] = 0
    network.bind(x, g)
    inputs = (400 + rng.standard_normal((64, 3))).astype("float32")
    y, saved = network.forward(inputs, Run(training=True, backward=True, compute="float16"))
    seen = inputs.astype(HALF).astype(float)
    wanted = (seen - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-5)
    assert abs(y - wanted).max() < 2.0**-10 * 4
    network.layer.running()
    network.commit()
    np.testing.assert_allclose(network.layer.mean, 0.1 * seen.mean(0), rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize("name", ["mlp", "residual", "gpt2"])
def test_what_a_pass_keeps_has_two_bytes_and_loses_nothing(name, rng, monkeypatch):
    network = NETWORKS[name]()
    inputs, dy = given(network, rng, 128)
    x, g = bound(network, rng)
    sizes, gradients = {}, {}
    for compute, stored in ((None, True), ("float16", True), ("float16", False), ("float8_e5m2", True)):
        with monkeypatch.context() as patch:
            if not stored:
                patch.setattr(narrow.Store, "small", lambda self, a: a)
            run = Run(training=True, backward=True, compute=compute, seed=1)
            _, saved = network.forward(inputs, run)
            sizes[compute, stored] = bytes_of(saved)
            network.backward(dy.copy(), saved, run)
            gradients[compute, stored] = g.copy()
    np.testing.assert_array_equal(gradients["float16", True], gradients["float16", False])
    full = sizes["float16", False]
    assert 0.95 * sizes[None, True] <= full and sizes["float16", True] < 0.62 * full
    assert sizes["float8_e5m2", True] < 0.75 * sizes["float16", True]


def test_an_array_that_several_layers_keep_is_stored_once(rng):
    store = narrow.Store("float16")
    a = rounded(rng.standard_normal((8, 64)).astype("float32"), "float16")
    one, other = store.kept((a, a.reshape(16, 32))), store.kept([a.reshape(-1)])
    assert bytes_of((one, other)) == 2 * a.size
    np.testing.assert_array_equal(one.opened()[1], a.reshape(16, 32))
    exact = rng.standard_normal(512).astype("float32")
    assert store.kept((exact,)).opened()[0] is exact  # it would lose bits


# --------------------------------------------------------------------------------------------------------- problems
def problem(compute, build=None, rows=12, **more):
    data = pictures(np.random.default_rng(7), rows, 8)
    return Neural((build or (lambda: nn.mlp((64, 16, 3), norm="batch")))(), Images(data), compute=compute, **more)


def test_function_values_beside_x_are_those_at_the_other_point():
    """MeZO's shift and coordinate differences: parameters are moved, and then read rounded."""
    made = problem("float16")
    x = made.x0(np.random.default_rng(0))
    direction, z = Normals(3), np.zeros_like(x)
    for s in made.segments:
        direction.add(z[s.slice], 1.0, s)
    moved = x.copy()
    for s in made.segments:
        direction.add(moved[s.slice], 0.01, s)
    made.begin(0)
    assert made.value(x, shift=(0.01, direction)) == made.value(moved) != made.value(x)
    i = made.segments[0].start
    other = x.copy()
    other[i] += 0.5
    (found,) = made.moved_values(x, [i], [0.5])
    assert found == [made.value(other)]


def test_gradients_that_are_handed_on_layer_by_layer_are_the_same():
    """Layerwise steps, which write into x while backward goes on (nn/release.py), end where whole gradients do."""

    def run(estimator):
        method = Adam(), WithReplacement(6), 0.01, estimator
        return minimize(problem("float16", loss_scale=64.0), *method, stop=Stop(steps=5), seed=1).x

    np.testing.assert_array_equal(run(Layerwise()), run(None))


@pytest.mark.parametrize("format", backend.FORMATS)
def test_it_trains_and_resumes(format, tmp_path):
    """Loss and statistics as in float32, but for the rounding; broken off and taken up again bit for bit."""

    def run(compute, steps, **events):
        method = HeavyBall(0.9), WithReplacement(6), 0.02
        return minimize(problem(compute), *method, stop=Stop(steps=steps), seed=1, events=events)

    whole = run(format, 30)
    run(format, 13, checkpoint=tmp_path / "run.npz")
    again = run(format, 30, checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(again.x, whole.x)
    curve, exact = (np.array(r.columns["train_loss"]) for r in (whole, run(None, 30)))
    assert curve[-1] < 0.7 * curve[0]
    assert abs(curve - exact).max() < {"float16": 0.03, "bfloat16": 0.2}.get(format, 1.0)


def test_a_zero_gradient_moves_nothing():
    """All rows are right and sure: dy underflows in every format, and nothing is divided by it."""
    data = pictures(np.random.default_rng(7), 12, 8)

    class Sure(nn.losses.SoftmaxCrossEntropy):
        def value_and_gradient(self, z, t, weights=None):
            loss, dz = super().value_and_gradient(z, t, weights)
            return loss, dz * 2.0**-60

    made = Neural(nn.mlp((64, 16, 3)), Images(data), Sure(), compute="float16")
    x = made.x0(np.random.default_rng(0))
    run = minimize(made, Adam(eps=1e-8), WithReplacement(4), 0.1, stop=Stop(steps=5), x=x)
    np.testing.assert_array_equal(run.x, x)


def test_where_it_cannot_be_had():
    with pytest.raises(UserError, match="must be one of 'float16', 'bfloat16', .* or None, got 'half'"):
        problem("half")
    with pytest.raises(UserError, match="float32 parameters; here they are float64"):
        Neural(nn.mlp((4, 3)), Table(pictures(np.random.default_rng(0), 5, 2)), dtype="float64", compute="float16")
