"""Adapters and layers of few parameters: values by the whole weight, supports, merging. Gradients: test_layers.py."""

import nn
from nn.adapters import adapters, carried, free
from nn.kernels import reference_sparse, sparse
from nn.language import llama
from npopt import backend

import numpy as np
import pytest

CASES = {
    "lora": (lambda: nn.LoRA(7, 4, 2, 3.0), (3, 7)),
    "flora": (lambda: nn.FLoRA(7, 4, 2, 3.0, bias=False), (3, 7)),
    "flora of a convolution": (lambda: nn.FLoRA2d(3, 4, (3, 2), 2, 3.0, (2, 1), 1), (5, 4, 3)),
    "low rank": (lambda: nn.LowRank(7, 4, 2), (3, 7)),
    "sltrain": (lambda: nn.SLTrain(7, 4, 2, 3.0, 0.3), (3, 7)),
}
TRAINING = nn.Run(training=True, backward=True, dx=True, seed=7)


def bound(layer, shape, rng):
    network = nn.Network(layer, shape)
    x, g = rng.standard_normal(network.dim), np.empty(network.dim)
    network.bind(x, g)
    return network, x, g


def slow_weight(layer):
    """The whole weight, entry by entry."""
    if isinstance(layer, nn.FLoRA2d):
        W = layer.W.copy()
        for o, i, j, c in np.ndindex(W.shape):
            for p, t, e, q in np.ndindex(layer.G.shape):
                W[o, i, j, c] += (
                    1.5 * layer.G[p, t, e, q] * layer.B[o, p] * layer.U[i, t] * layer.V[j, e] * layer.A[q, c]
                )
        return W
    core, scale = (layer.G if isinstance(layer, nn.FLoRA) else np.eye(2)), layer.scale
    W = layer.W.copy() if isinstance(layer, nn.LoRA) else np.zeros((4, 7))
    for o, i in np.ndindex(W.shape):
        W[o, i] += scale * sum(layer.B[o, p] * core[p, q] * layer.A[q, i] for p in range(2) for q in range(2))
    if isinstance(layer, nn.SLTrain):
        for place, value in zip(layer.places, layer.v, strict=True):
            W[place // 7, place % 7] += value
    return W


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_changed_weight(name, rng):
    make, shape = CASES[name]
    network, _, _ = bound(make(), shape, rng)
    layer, a = network.layer, rng.standard_normal((5, *shape))
    W = slow_weight(layer)
    assert layer.scale == (1.0 if name == "low rank" else 1.5)
    np.testing.assert_allclose(layer.weight(), W, rtol=1e-12, atol=1e-13)
    plain = nn.Conv2d(3, 4, (3, 2), (2, 1), 1) if W.ndim == 4 else nn.Linear(7, 4)
    other, x, _ = bound(plain, shape, rng)
    x[...] = np.concatenate([W.reshape(-1), layer.b if layer.bias else np.zeros(4)])
    expected = other.forward(a, TRAINING)[0]
    np.testing.assert_allclose(network.forward(a, TRAINING)[0], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind, zero", [(nn.LoRA, ("A",)), (nn.FLoRA, ("A", "B"))])
def test_at_the_start_nothing_is_changed_and_one_factor_has_no_gradient(kind, zero, rng):
    """B = 0 (in FLoRA G = 0): y is Linear's, and the first dA is 0 while dB is not (in FLoRA dG)."""
    linear, a = nn.Linear(7, 4), rng.standard_normal((5, 7))
    plain = nn.Network(linear, (7,))
    network = nn.adapted(plain, kind, rank=3, alpha=5.0)
    x = network.x0(np.random.default_rng(3), "float64")
    y = plain.x0(np.random.default_rng(3), "float64")
    g = np.full(network.dim, np.nan)
    network.bind(x, g)
    plain.bind(y)
    found, saved = network.forward(a, TRAINING)
    np.testing.assert_array_equal(found, plain.forward(a, nn.Run())[0])
    network.backward(rng.standard_normal((5, 4)), saved, TRAINING)
    for name in network.segments.names:
        assert network.segments.view(g, name).any() == (name not in zero), name


def small(rng, kind=nn.LoRA, **options):
    """A small Llama with adapters in its layers, its x with numbers everywhere, and tokens."""
    plain = llama(11, 6, 8, 2, 2, 12, tied=False)
    network = nn.adapted(plain, kind, ("attention", "feed"), **options)
    x = network.x0(np.random.default_rng(3), "float64")
    x += 0.1 * rng.standard_normal(network.dim)
    return plain, network, x, rng.integers(0, 11, (3, 6))


def test_adapted_replaces_the_layers_that_were_named_and_nothing_else(rng):
    plain, network, x, words = small(rng, rank=2)
    assert len(adapters(network)) == 14 and all(type(leaf) is nn.LoRA for leaf in adapters(network))
    added = set(network.segments.names) - set(plain.segments.names)
    assert len(added) == 28 and {name.rsplit(".", 1)[1] for name in added} == {"A", "B"}
    assert not adapters(plain) and type(dict(network.layer.children())["head"]) is nn.Linear
    assert set(network.segments.names) - set(free(network)) == {f"{leaf.path}.W" for leaf in adapters(network)}
    some = nn.adapted(plain, nn.LoRA, ("query", "value"), rank=2)
    assert len(adapters(some)) == 4
    tied = nn.adapted(llama(11, 6, 8, 1, 2, 12), nn.SLTrain, rank=2)
    assert len(adapters(tied)) == 7 and len({leaf.seed for leaf in adapters(tied)}) == 7  # the head shares its weight
    first, again = (n.x0(np.random.default_rng(5)) for n in (plain, network))
    for name in plain.segments.names:
        np.testing.assert_array_equal(plain.segments.view(first, name), network.segments.view(again, name))
    with pytest.raises(ValueError, match="has no Conv2d to replace"):
        nn.adapted(plain, nn.FLoRA2d, rank=2)
    images = nn.adapted(nn.lenet5(), nn.FLoRA2d, rank=2)
    assert [leaf.rank for leaf in adapters(images)] == [2, 2]


@pytest.mark.parametrize("kind, options", [(nn.LoRA, {"alpha": 3}), (nn.FLoRA, {}), (nn.SLTrain, {"density": 0.2})])
def test_merging_leaves_the_function_what_it_is(kind, options, rng):
    _, network, x, words = small(rng, kind, rank=2, **options)
    network.bind(x)
    before = network.forward(words, nn.Run())[0]
    source, y = nn.merged(network, x)
    source.bind(y)
    np.testing.assert_allclose(source.forward(words, nn.Run())[0], before, rtol=1e-10, atol=1e-12)
    back = carried(source, y, network, x.copy())
    name = adapters(network)[0].path
    if kind is nn.LoRA:
        change = 1.5 * network.segments.view(x, f"{name}.B") @ network.segments.view(x, f"{name}.A")
        moved = network.segments.view(back, f"{name}.W") - network.segments.view(x, f"{name}.W")
        np.testing.assert_allclose(moved, change, rtol=1e-10, atol=1e-12)
        assert np.linalg.matrix_rank(change) == 2


@pytest.mark.parametrize("kind", [nn.LoRA, nn.LowRank, nn.SLTrain])
def test_decoders_with_adapters_go_on_as_one_pass_does(kind, rng):
    """The compiled decoder reads W alone: it leaves such networks to their layers."""
    _, network, x, words = small(rng, kind, rank=2)
    network.bind(x)
    expected = network.forward(words, nn.Run())[0]
    state = nn.decoding.Decoder(network, x).start(rows=3)
    for i in range(words.shape[1]):
        np.testing.assert_allclose(state.append(words[:, i : i + 1]), expected[:, i], rtol=1e-9, atol=1e-10)


def test_the_support_is_spread_evenly_and_never_changes(rng):
    layer, same, other = (nn.SLTrain(50, 40, 2, density=0.1, seed=s) for s in (1, 1, 2))
    assert len(layer.places) == 200 and len(set(layer.places)) == 200 and layer.places.dtype == np.int32
    np.testing.assert_array_equal(layer.places, same.places)
    assert set(layer.places) != set(other.places)
    counts = np.zeros(40 * 50)
    for seed in range(400):
        counts[nn.SLTrain(50, 40, 2, density=0.1, seed=seed).places] += 1
    assert abs(counts.std() / np.sqrt(400 * 0.1 * 0.9) - 1) < 0.1 and counts.min() > 0
    network, x, g = bound(layer, (50,), rng)
    before = layer.places.copy()
    for _ in range(3):
        y, saved = network.forward(rng.standard_normal((9, 50)), TRAINING)
        network.backward(y, saved, TRAINING)
        x -= 0.1 * g
    np.testing.assert_array_equal(layer.places, before)
    S = layer.weight() - layer.scale * layer.B @ layer.A
    assert set(np.flatnonzero(np.abs(S) > 1e-12)) <= set(before)


@pytest.mark.parametrize("rows", [1, 7, 8, 64, 130])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("shape, density", [((33, 21), 0.1), ((5, 70), 0.5), ((4, 3), 0.08)])
def test_sparse_products_are_those_of_the_dense_matrix(rows, dtype, tolerance, shape, density, rng):
    layer = nn.SLTrain(*shape, 1, density=density)
    S, values = np.zeros(shape[::-1]), rng.standard_normal(len(layer.places)).astype(dtype)
    for place, value in zip(layer.places, values, strict=True):
        S[place // shape[0], place % shape[0]] = value
    x, dy = (rng.standard_normal((rows, n)).astype(dtype) for n in shape)
    for room in (sparse, reference_sparse):
        y, dx, dv = np.ones_like(dy), np.ones_like(x), np.full_like(values, np.nan)
        room.sparse_linear(x, values, layer.places, layer.starts, y)
        room.sparse_inputs(dy, values, layer.places, layer.starts, dx)
        room.sparse_values(x, dy, layer.places, layer.starts, dv)
        np.testing.assert_allclose(y, 1 + x @ S.T, rtol=tolerance, atol=20 * tolerance)
        np.testing.assert_allclose(dx, 1 + dy @ S, rtol=tolerance, atol=20 * tolerance)
        expected = (dy.T.astype("float64") @ x).reshape(-1)[layer.places]
        np.testing.assert_allclose(dv, expected, rtol=tolerance, atol=20 * tolerance)


def test_low_rank_layers_begin_with_the_variance_of_a_linear_weight():
    network = nn.Network(nn.LowRank(200, 150, 20), (200,))
    network.bind(network.x0(np.random.default_rng(0), "float64"))
    assert network.layer.weight().var() == pytest.approx(1 / (3 * 200), rel=0.1)


def test_what_is_refused():
    for wrong, message in (
        (lambda: nn.LoRA(3, 4, 0), "LoRA: rank must be a whole number"),
        (lambda: nn.FLoRA(3, 4, 2, -1.0), "FLoRA: alpha must lie in"),
        (lambda: nn.SLTrain(3, 4, 2, density=0.0), "SLTrain: density must lie in"),
        (lambda: nn.Network(nn.LowRank(3, 4, 2), (5,)), "LowRank: x has 5 features, the weight expects 3"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_restarts_draw_anew_by_layer_and_key(rng):
    _, network, x, words = small(rng, rank=2)
    first = adapters(network)[0].path
    found = []
    for key in (1, 1, 2):
        y = x.copy()
        names = nn.adapters.restarted(network, y, key)
        found.append(network.segments.view(y, f"{first}.A").copy())
        assert len(names) == 28 and not network.segments.view(y, f"{first}.B").any()
        bound_ = 8**-0.5
        assert np.abs(found[-1]).max() < bound_ and found[-1].std() == pytest.approx(bound_ / 3**0.5, rel=0.5)
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).all()
    assert backend.device() == "cpu"
