"""Networks: parameter counts, names, and gradients of all of them at 1e-7."""

import nn
from nn import init

import numpy as np
import pytest


@pytest.mark.parametrize(
    "make, count",
    [
        (lambda: nn.mlp((784, 128, 56, 10)), 784 * 128 + 128 + 128 * 56 + 56 + 56 * 10 + 10),
        (nn.lenet5, 61_706),
        (nn.small_cnn, 11_330),
        (nn.strided, 166_406),
        (nn.resnet18, 11_173_962),
        (nn.resnet20, 272_474),
        (lambda: nn.resnet20(blocks=9), 853_018 + 2752),  # ResNet-56: the paper's shortcuts have no weights, ours do
        (lambda: nn.resnet20(blocks=9, skip=False), 853_018),
        (lambda: nn.resnet18(in_channels=1), 11_173_962 - 2 * 9 * 64),
        (nn.vgg, 9_231_114),
        (lambda: nn.vgg(16), 14_728_266),
        (lambda: nn.vgg(11, batch_norm=False), 9_231_114 - 2 * 2752),
        (
            lambda: nn.language_model(10_000, 35, 650),
            10_000 * 650 + 2 * 4 * 650 * (2 * 650 + 1) + 650 * 10_000 + 10_000,
        ),
        (lambda: nn.language_model(65, 50, 128, 1, kind=nn.GRU), 2 * 65 * 128 + 65 + 3 * 128 * (2 * 128 + 1) + 128),
        (lambda: nn.language_model(10_000, 35, 200, tied=True), 10_000 * 201 + 2 * 4 * 200 * 401),
    ],
)
def test_parameter_counts(make, count):
    network = make()
    assert network.dim == network.segments.dim == count


def test_names_and_blocks_of_resnet18():
    network = nn.resnet18(width=2)
    names = network.segments.names
    assert len(names) == 62 and names[0] == "conv1.W" and names[-1] == "fc.b"
    assert {"layer1.0.conv1.W", "layer2.0.shortcut.conv.W", "layer4.1.bn2.a"} <= set(names)
    assert network.segments.blocks == ["conv1", "bn1", *(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)), "fc"]


def test_a_norm_stands_before_or_after_the_activation():
    for at, between in (("before", ["norm1.a", "act1.a"]), ("after", ["act1.a", "norm1.a"])):
        order = ["fc1.W", *between, "fc2.W"]
        names = nn.mlp((4, 3, 2), nn.PReLU, norm="layer", norm_at=at).segments.names
        assert [name for name in names if name in order] == order


NETWORKS = {
    "mlp": lambda: nn.mlp((6, 7, 5, 3)),
    "mlp with batch norm and dropout": lambda: nn.mlp((6, 7, 5, 3), nn.Tanh, norm="batch", dropout=0.2),
    "mlp with layer norm": lambda: nn.mlp((6, 7, 5, 3), nn.PReLU, norm="layer", init=init.Orthogonal()),
    "mlp with layer norm after the activation": lambda: nn.mlp((6, 7, 5, 3), nn.Tanh, norm="layer", norm_at="after"),
    "lenet5": nn.lenet5,
    "lenet5 as in 1998": lambda: nn.lenet5(nn.Tanh, "avg", init=init.LeCun()),
    "lenet5 for 8x8 digits": lambda: nn.lenet5(input_shape=(8, 8, 1)),
    "small_cnn": lambda: nn.small_cnn(input_shape=(17, 16, 2)),
    "small_cnn for 8x8 digits": lambda: nn.small_cnn(input_shape=(8, 8, 1)),
    "strided": lambda: nn.strided(input_shape=(12, 12, 2)),
    "resnet18": lambda: nn.resnet18(width=2, in_channels=1, image=16),
    "resnet20": lambda: nn.resnet20(width=2, in_channels=1, image=16),
    "resnet8 without skips": lambda: nn.resnet20(width=2, in_channels=1, image=16, blocks=1, skip=False),
    "vgg11": lambda: nn.vgg(11, width=2),
    "vgg16": lambda: nn.vgg(16, width=1, batch_norm=False, dropout=0.1),
}


SLOW = ("vgg11", "resnet18", "resnet20")  # their layers are those of the others


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NETWORKS]
)
def test_gradients(name):
    network = NETWORKS[name]()
    report = nn.gradcheck_layer(network, network.input_shape, batch=4, directions=1)
    assert report.ok, str(report)


WIDE = ("vgg11", "vgg16", "resnet18 with wide layers")  # Winograd's loops for float64 take 15 s to compile


@pytest.mark.parametrize(
    "name, dtype, near",
    [
        pytest.param(name, dtype, near, marks=[pytest.mark.slow] * (name in WIDE and dtype == "float64"))
        for name in (*NETWORKS, "resnet18 with wide layers")
        for dtype, near in (("float32", 2e-4), ("float64", 1e-10))
    ],
)
def test_the_fast_path_is_the_reference_path(name, dtype, near, rng):
    """One training step of every network on both paths: outputs, gradients of parameters and inputs, and statistics."""
    make = NETWORKS.get(name, lambda: nn.resnet18(width=16, image=16))
    found, seed = [], rng.integers(1 << 30)
    for chosen in ("fast", "reference"):
        draws, network, run = np.random.default_rng(seed), make(), nn.Run(training=True, dx=True, seed=3)
        x, a = network.x0(draws, dtype), draws.standard_normal((6, *network.input_shape)).astype(dtype)
        g = np.full_like(x, np.nan)
        nn.kernels.use(chosen)
        try:
            network.bind(x, g)
            y, saved = network.forward(a, run)
            dx = network.backward(np.cos(y), saved, run)
            network.commit()
            after, _ = network.forward(a, nn.Run())
        finally:
            nn.kernels.use("fast")
        found.append([y, dx, after, *(g[s.slice] for s in network.segments)])
    scale = np.sqrt(np.mean(np.concatenate([v.ravel() for v in found[1][3:]]) ** 2))
    for i, (fast, slow) in enumerate(zip(*found, strict=True)):
        size = max(np.abs(slow).max(), scale if i > 2 else 0)
        np.testing.assert_allclose(fast, slow, rtol=0, atol=near * size)


def test_what_does_not_fit_gets_one_sentence():
    with pytest.raises(ValueError, match="depth must be one of 11, 16"):
        nn.vgg(13)
    with pytest.raises(ValueError, match="pool must be"):
        nn.lenet5(pool="min")
    with pytest.raises(ValueError, match="sizes must name"):
        nn.mlp((3,))
    with pytest.raises(ValueError, match="norm must be"):
        nn.mlp((3, 4), norm="group")
    with pytest.raises(ValueError, match="norm_at must be 'before' or 'after'"):
        nn.mlp((3, 4), norm="layer", norm_at="both")
