"""Layers: every gradient against central differences, every value against a formula written here."""

import nn
from npopt import backend

import numpy as np
import pytest
import scipy.special

LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), (5,)),
    "linear on sequences": (lambda: nn.Linear(5, 3), (4, 5)),
    "linear with wide rows": (lambda: nn.Linear(3, 300), (3,)),
    "conv 3x3": (lambda: nn.Conv2d(3, 4, 3), (5, 6, 3)),
    "conv 3x3 same": (lambda: nn.Conv2d(3, 4, 3, padding=1), (5, 4, 3)),
    "conv 3x3 stride 2 on odd sizes": (lambda: nn.Conv2d(3, 4, 3, 2, 1), (7, 6, 3)),
    "conv 3x2, strides 1 and 2, one-sided padding": (
        lambda: nn.Conv2d(2, 3, (3, 2), (1, 2), (0, 1), bias=False),
        (5, 7, 2),
    ),
    "conv 1x1": (lambda: nn.Conv2d(3, 4, 1, bias=False), (4, 5, 3)),
    "conv 1x1 stride 2": (lambda: nn.Conv2d(3, 4, 1, 2), (5, 5, 3)),
    "conv 2x2 stride 3": (lambda: nn.Conv2d(2, 3, 2, 3), (7, 8, 2)),
    "conv 5x5, one channel": (lambda: nn.Conv2d(1, 3, 5, padding=2), (6, 7, 1)),
    "conv with more padding than image": (lambda: nn.Conv2d(2, 2, 5, 2, 4), (2, 3, 2)),
    "conv 4x4 stride 2, wide runs": (lambda: nn.Conv2d(5, 2, 4, 2, 1), (6, 6, 5)),
    "batch norm of rows": (lambda: nn.BatchNorm(5), (5,)),
    "batch norm of images": (lambda: nn.BatchNorm(3, eps=0.1), (4, 5, 3)),
    "layer norm": (lambda: nn.LayerNorm(6, eps=0.1), (6,)),
    "layer norm of images": (lambda: nn.LayerNorm(5), (2, 3, 5)),
    "rms norm": (lambda: nn.RMSNorm(6, eps=0.1), (2, 6)),
    "relu": (nn.ReLU, (7,)),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), (7,)),
    "prelu": (nn.PReLU, (2, 3, 4)),
    "prelu by feature": (lambda: nn.PReLU(4), (2, 3, 4)),
    "tanh": (nn.Tanh, (7,)),
    "sigmoid": (nn.Sigmoid, (7,)),
    "gelu": (nn.GELU, (7,)),
    "gelu by tanh": (lambda: nn.GELU("tanh"), (7,)),
    "silu": (nn.SiLU, (7,)),
    "gated": (lambda: nn.Gated(3, 4, bias=True), (2, 3)),
    "gated, swiglu": (lambda: nn.SwiGLU(3, 4), (3,)),
    "gated, geglu by tanh": (lambda: nn.GEGLU(3, 4, "tanh"), (2, 3)),
    "gated, geglu": (lambda: nn.GEGLU(3, 4, bias=True), (3,)),
    "gated, reglu": (lambda: nn.ReGLU(3, 4), (3,)),
    "positions, learned": (lambda: nn.LearnedPositions(6, 4), (5, 4)),
    "positions, sinusoidal": (lambda: nn.SinusoidalPositions(4, scale=2.0), (5, 4)),
    "attention": (lambda: nn.MultiHeadAttention(6, 2, causal=True, positions=nn.Alibi()), (4, 6)),
    "attention, rotary, few keys, dropout": (
        lambda: nn.MultiHeadAttention(8, 2, 1, dropout=0.3, positions=nn.Rotary()),
        (5, 8),
    ),
    "attention, relative": (lambda: nn.MultiHeadAttention(4, 2, positions=nn.Relative(2)), (5, 4)),
    "encoder layer": (lambda: nn.EncoderLayer(4, 2, 6, norm="rms", activation="swiglu", dropout=0.2), (5, 4)),
    "softmax": (nn.Softmax, (3, 5)),
    "log-softmax": (nn.LogSoftmax, (5,)),
    "max pool": (lambda: nn.MaxPool2d(2), (6, 5, 3)),
    "max pool, overlapping and padded": (lambda: nn.MaxPool2d(3, 2, 1), (7, 6, 3)),
    "max pool 2x3": (lambda: nn.MaxPool2d((2, 3), (1, 2)), (5, 7, 2)),
    "average pool": (lambda: nn.AvgPool2d(2), (6, 5, 3)),
    "average pool, overlapping and padded": (lambda: nn.AvgPool2d(3, 2, 1), (7, 6, 3)),
    "average pool that leaves padding out": (lambda: nn.AvgPool2d(3, 2, 1, count_padding=False), (7, 6, 3)),
    "adaptive average, overlapping": (lambda: nn.AdaptiveAvgPool2d((3, 4)), (7, 6, 2)),
    "adaptive average, larger than the image": (lambda: nn.AdaptiveAvgPool2d(5), (3, 5, 2)),
    "global average": (nn.GlobalAvgPool, (4, 3, 5)),
    "flatten": (nn.Flatten, (4, 3, 2)),
    "dropout": (lambda: nn.Dropout(0.3), (4, 3)),
    "dropout, one mask for all times": (lambda: nn.VariationalDropout(0.3), (4, 3)),
    "lstm": (lambda: nn.LSTM(3, 5), (4, 3)),
    "lstm with dropout in its recurrence": (lambda: nn.LSTM(3, 5, 0.4), (6, 3)),
    "lstm of one time": (lambda: nn.LSTM(2, 3), (1, 2)),
    "two lstms": (lambda: nn.Sequential(nn.LSTM(3, 4), nn.Dropout(0.3), nn.LSTM(4, 2, 0.3)), (5, 3)),
    "gru": (lambda: nn.GRU(3, 5), (4, 3)),
    "gru with dropout in its recurrence": (lambda: nn.GRU(3, 5, dropout=0.4), (6, 3)),
    "gru, reset before the product": (lambda: nn.GRU(3, 5, "before"), (4, 3)),
    "gru, reset before, with dropout": (lambda: nn.GRU(3, 5, "before", 0.4), (4, 3)),
    "residual": (
        lambda: nn.Residual(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)), activation=nn.ReLU()),
        (4,),
    ),
    "residual block with shortcut": (lambda: nn.basic_block(3, 4, 2), (5, 5, 3)),
    "residual of a parameter-free block": (lambda: nn.Residual(nn.Tanh(), nn.Linear(3, 3)), (3,)),
    "residual with a shortcut that could overwrite": (lambda: nn.Residual(nn.Linear(4, 4), nn.BatchNorm(4)), (4,)),
    "residuals in one another": (
        lambda: nn.Sequential(
            nn.Residual(nn.Residual(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))),
            nn.Residual(nn.Sequential(nn.Residual(nn.Linear(4, 4), nn.BatchNorm(4)))),
            nn.Linear(4, 4),
        ),
        (4,),
    ),
    "residual of a block of views": (
        lambda: nn.Residual(nn.Flatten(), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4, eps=0.1)), nn.ReLU()),
        (4,),
    ),
    "residual of dropout": (lambda: nn.Residual(nn.Dropout(0.5), nn.BatchNorm(4), nn.ReLU()), (4,)),
    "residual whose block ends in a rectifier": (
        lambda: nn.Residual(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4))
        ),
        (4,),
    ),
    "lora": (lambda: nn.LoRA(5, 4, 2, 3.0), (5,)),
    "lora on sequences, with dropout, without bias": (lambda: nn.LoRA(5, 4, 3, 1.5, 0.4, bias=False), (6, 5)),
    "flora": (lambda: nn.FLoRA(5, 4, 2, 3.0, 0.3), (2, 5)),
    "flora of a convolution": (lambda: nn.FLoRA2d(3, 4, (3, 2), 2, 3.0, (2, 1), 1), (5, 4, 3)),
    "low rank": (lambda: nn.LowRank(5, 4, 2), (3, 5)),
    "sltrain": (lambda: nn.SLTrain(5, 4, 2, 3.0, 0.3), (5,)),
    "sltrain of many rows, without bias": (lambda: nn.SLTrain(40, 17, 3, 5.0, 0.1, 1, bias=False), (50, 40)),
    "sequential": (lambda: nn.Sequential(nn.Linear(4, 5), act=nn.LeakyReLU(0.1), out=nn.Linear(5, 2)), (4,)),
}


@pytest.fixture(params=["fast", "reference"])
def kernels(request):
    nn.kernels.use(request.param)
    yield request.param
    nn.kernels.use("fast")


TRAINING = nn.Run(training=True, dx=True, seed=7)


def bound(layer, shape, rng, dtype="float64", **options):
    """A network around a layer, bound to random parameters: (network, x, g)."""
    network = nn.Network(layer, shape, **options)
    x = backend.asarray(rng.standard_normal(network.dim).astype(dtype))
    g = backend.zeros(x.shape, dtype)
    network.bind(x, g)
    return network, x, g


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_inputs_and_parameters(name, kernels):
    make, shape = LAYERS[name]
    report = nn.gradcheck_layer(make(), shape)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", ["conv 3x3 stride 2 on odd sizes", "batch norm of images", "layer norm", "max pool"])
def test_gradients_with_a_batch_of_one(name, kernels):
    make, shape = LAYERS[name]
    report = nn.gradcheck_layer(make(), shape, batch=1)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    "name", ["batch norm of rows", "batch norm of images", "dropout", "residual block with shortcut"]
)
def test_gradients_in_evaluation_mode(name, kernels):
    make, shape = LAYERS[name]
    report = nn.gradcheck_layer(make(), shape, training=False)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_never_touch_the_host(name, device, rng):
    """Forward and backward give the same numbers on the strict device as on the CPU."""
    make, shape = LAYERS[name]
    a, weights, c = rng.standard_normal((3, *shape)), None, None
    found = []
    for where in ("cpu", device):
        backend.use(where)
        network = nn.Network(make(), shape)
        weights = np.random.default_rng(0).standard_normal(network.dim) if weights is None else weights
        c = rng.standard_normal((3, *network.output_shape)) if c is None else c
        x, g = backend.asarray(weights), backend.zeros((network.dim,), "float64")
        network.bind(x, g)
        y, saved = network.forward(backend.asarray(a), TRAINING)
        dx = network.backward(backend.asarray(c.copy()), saved, TRAINING)
        network.commit()
        found.append([backend.to_host(v) for v in (y, dx, g)])
    for ours, theirs in zip(*found, strict=True):  # two orders of summation in float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_backward_twice_writes_the_same_gradient(name, rng):
    make, shape = LAYERS[name]
    network, _, g = bound(make(), shape, rng)
    a = rng.standard_normal((3, *shape))
    c, before = rng.standard_normal((3, *network.output_shape)), a.copy()
    _, saved = network.forward(a, TRAINING)
    dx, first = network.backward(c.copy(), saved, TRAINING).copy(), g.copy()
    g[...] = np.nan
    still = c.copy()
    still.flags.writeable = False
    for upstream in (c.copy(), still, np.frombuffer(c.tobytes()).reshape(c.shape)):  # two cannot be written
        np.testing.assert_array_equal(network.backward(upstream, saved, TRAINING), dx)
        np.testing.assert_array_equal(g, first)
    np.testing.assert_array_equal(a, before)


@pytest.mark.parametrize(
    "kernel, stride, padding", [((3, 2), (2, 1), (1, 0)), ((1, 1), (2, 2), (0, 0)), ((5, 5), (1, 1), (2, 2))]
)
def test_convolution_is_the_sum_in_its_docstring(kernel, stride, padding, kernels, rng):
    layer = nn.Conv2d(2, 3, kernel, stride, padding)
    network, _, _ = bound(layer, (6, 7, 2), rng)
    a = rng.standard_normal((2, 6, 7, 2))
    y, _ = network.forward(a, TRAINING)
    expected = np.zeros((2, *network.output_shape)) + layer.b
    for h in range(y.shape[1]):
        for w in range(y.shape[2]):
            for i in range(kernel[0]):
                for j in range(kernel[1]):
                    r, s = stride[0] * h + i - padding[0], stride[1] * w + j - padding[1]
                    if 0 <= r < 6 and 0 <= s < 7:
                        expected[:, h, w] += a[:, r, s] @ layer.W[:, i, j].T
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)


def test_convolution_in_chunks_equals_one_product(monkeypatch, rng):
    make = lambda: bound(nn.Conv2d(3, 4, 3, 2, 1), (7, 7, 3), np.random.default_rng(3))  # noqa: E731
    a, found = rng.standard_normal((5, 7, 7, 3)), []
    monkeypatch.setattr(nn.kernels, "_chosen", "reference")
    for size in (1 << 20, 1):
        monkeypatch.setattr(nn.kernels.reference, "CHUNK", size)
        network, _, g = make()
        y, saved = network.forward(a, TRAINING)
        found.append((y, network.backward(np.cos(y), saved, TRAINING), g))
    for whole, parts in zip(*found, strict=True):
        np.testing.assert_allclose(whole, parts, rtol=1e-12, atol=1e-13)


def test_batch_norm_is_its_formula_and_its_statistics_follow_pytorch(kernels, rng):
    layer = nn.BatchNorm(3, momentum=0.2, eps=0.01)
    network, x, _ = bound(layer, (2, 2, 3), rng)
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(2):
        a = 5 + 2 * rng.standard_normal((4, 2, 2, 3))
        network.begin()
        y, _ = network.forward(a, TRAINING)
        m, v, n = a.mean((0, 1, 2)), a.var((0, 1, 2)), 16
        np.testing.assert_allclose(y, x[:3] * (a - m) / np.sqrt(v + 0.01) + x[3:], rtol=1e-12, atol=1e-12)
        network.forward(a + 1, TRAINING)  # a second pass of the step leaves nothing
        network.commit()
        mean, variance = 0.8 * mean + 0.2 * m, 0.8 * variance + 0.2 * v * n / (n - 1)
    a = rng.standard_normal((4, 2, 2, 3))
    expected = x[:3] * (a - mean) / np.sqrt(variance + 0.01) + x[3:]
    np.testing.assert_allclose(network.forward(a, nn.Run())[0], expected, rtol=1e-12, atol=1e-12)
    before = network.state()
    network.commit()  # nothing is pending any more
    network.forward(a, TRAINING)
    network.begin()  # a step that was not taken leaves nothing
    network.commit()
    for key, value in network.state()[""].items():
        np.testing.assert_array_equal(value, before[""][key])


def test_batch_norm_of_large_means_keeps_float32_accuracy(kernels, rng):
    network, x, _ = bound(nn.BatchNorm(4), (4,), rng, "float32")
    a = (1000 + rng.standard_normal((5000, 4))).astype("float32")
    exact = a.astype("float64")
    exact = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5) * x[:4] + x[4:]
    # Inputs near 1000 are multiples of 6e-5; a mean that is wrong by about one of these is all that may be lost.
    np.testing.assert_allclose(network.forward(a, TRAINING)[0], exact, atol=1e-3)


def test_batch_norm_refuses_one_value_a_feature(rng):
    network, _, _ = bound(nn.BatchNorm(3), (3,), rng)
    with pytest.raises(ValueError, match="needs more than one value"):
        network.forward(rng.standard_normal((1, 3)), TRAINING)


def test_recalibrated_statistics_are_those_of_all_rows(rng):
    layer = nn.BatchNorm(3)
    network, _, _ = bound(layer, (3,), rng)
    a, gathered = 4 + rng.standard_normal((11, 3)), {}
    for part in (a[:4], a[4:5], a[5:]):
        network.forward(part, nn.Run(recalibrating=True, pending=gathered))
    network.recalibrate(gathered)
    np.testing.assert_allclose(layer.mean, a.mean(0), rtol=1e-12)
    np.testing.assert_allclose(layer.variance, a.var(0, ddof=1), rtol=1e-12)


def test_values_of_normalisation_and_activations(kernels, rng):
    a = 3 * rng.standard_normal((4, 6))

    def run(layer):
        network, x, _ = bound(layer, (6,), np.random.default_rng(5))
        return network.forward(a.copy(), TRAINING)[0], x

    y, x = run(nn.LayerNorm(6, eps=0.1))
    expected = (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 0.1) * x[:6] + x[6:]
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)
    cases = [
        (nn.ReLU(), np.maximum(a, 0)),
        (nn.LeakyReLU(0.3), np.where(a > 0, a, 0.3 * a)),
        (nn.Tanh(), np.tanh(a)),
        (nn.Sigmoid(), scipy.special.expit(a)),
        (nn.GELU(), a * scipy.special.ndtr(a)),
        (nn.Softmax(), scipy.special.softmax(a, axis=1)),
        (nn.LogSoftmax(), scipy.special.log_softmax(a, axis=1)),
        (nn.GELU("tanh"), 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))),
    ]
    for layer, expected in cases:
        np.testing.assert_allclose(run(layer)[0], expected, rtol=1e-12, atol=1e-14)
    y, x = run(nn.PReLU())
    np.testing.assert_allclose(y, np.where(a > 0, a, x[0] * a), rtol=1e-12)


def test_sigmoid_does_not_overflow(rng):
    a = np.array([[-1e4, 0.0, 1e4]])
    np.testing.assert_array_equal(nn.Sigmoid().forward(a, TRAINING)[0], [[0.0, 0.5, 1.0]])
    np.testing.assert_array_equal(nn.Softmax().forward(a, TRAINING)[0], [[0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(nn.LogSoftmax().forward(a, TRAINING)[0], [[-2e4, -1e4, 0.0]])


def test_pools_are_the_means_in_their_docstrings(rng):
    a = rng.standard_normal((2, 7, 6, 3))
    y, _ = nn.AvgPool2d((3, 2), (2, 1), (1, 1), count_padding=False).forward(a, TRAINING)
    z, _ = nn.AdaptiveAvgPool2d((3, 4)).forward(a, TRAINING)
    for i, j in np.ndindex(y.shape[1:3]):
        window = a[:, max(0, 2 * i - 1) : 2 * i + 2, max(0, j - 1) : j + 1]
        np.testing.assert_allclose(y[:, i, j], window.mean((1, 2)), rtol=1e-12, atol=1e-14)
    for i, j in np.ndindex(3, 4):
        window = a[:, 7 * i // 3 : -(-7 * (i + 1) // 3), 6 * j // 4 : -(-6 * (j + 1) // 4)]
        np.testing.assert_allclose(z[:, i, j], window.mean((1, 2)), rtol=1e-12, atol=1e-14)


def test_max_pool_gives_a_tie_to_the_first_tap(kernels, rng):
    pool = nn.MaxPool2d(2)
    _, saved = pool.forward(np.ones((1, 2, 2, 1)), TRAINING)
    dx = pool.backward(np.full((1, 1, 1, 1), 3.0), saved, TRAINING)
    np.testing.assert_array_equal(dx.reshape(-1), [3, 0, 0, 0])


def test_dropout_masks_belong_to_rows_not_batches(rng):
    network, _, _ = bound(nn.Sequential(drop=nn.Dropout(0.4)), (50,), rng)
    a = np.ones((6, 50))

    def masked(rows, step=0):
        return network.forward(a[: len(rows)], nn.Run(training=True, seed=7, step=step, rows=np.array(rows)))[0]

    y = masked([3, 1, 4, 1, 5, 9])
    np.testing.assert_array_equal(y[1], y[3])
    np.testing.assert_array_equal(masked([9, 4]), y[[5, 2]])
    assert set(np.unique(y)) == {0.0, 1 / 0.6}
    assert not np.array_equal(masked([9, 4], step=1), y[[5, 2]])


def test_dropout_keeps_the_mean_and_is_off_in_evaluation(rng):
    layer = nn.Dropout(0.25)
    a = np.ones((200, 1000))
    y, _ = layer.forward(a, TRAINING)
    # 2e5 draws: the mean of k/(1-p) has standard deviation sqrt(p/(1-p)/2e5) = 0.0013; six of them
    assert abs(y.mean() - 1) < 0.008
    np.testing.assert_array_equal(layer.forward(a, nn.Run())[0], a)


@pytest.mark.parametrize(
    "make, shape, words",
    [
        (lambda: nn.Conv2d(3, 4, 3), (5, 5, 4), "pass NHWC"),
        (lambda: nn.Conv2d(3, 4, 7), (5, 5, 3), "smaller than the kernel"),
        (lambda: nn.Linear(3, 4), (5,), "x has 5 features, the weight expects 3"),
        (lambda: nn.Residual(nn.Linear(3, 4)), (3,), "give a shortcut"),
        (lambda: nn.MaxPool2d(9), (5, 5, 3), "smaller than the kernel"),
        (lambda: nn.BatchNorm(3), (4,), "x has 4 features, the layer 3"),
        (lambda: nn.Sequential(nn.ReLU), (4,), "must be a Layer"),
        (lambda: nn.Dropout(1.0), (4,), "p must lie in"),
        (lambda: nn.GELU("cubic"), (4,), "form must be"),
    ],
)
def test_what_does_not_fit_gets_one_sentence(make, shape, words):
    with pytest.raises(ValueError, match=words):
        nn.Network(make(), shape)
