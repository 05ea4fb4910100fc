"""Binding, freezing, sharing, memory."""

import gc
import tracemalloc

import nn
from nn.networks import resnet18
from npopt import backend

import numpy as np
import pytest


def small():
    """Five layers with parameters, batch norm and a residual block among them, 8x8 inputs."""
    return nn.Network(
        nn.Sequential(
            conv1=nn.Conv2d(2, 4, 3, padding=1),
            bn1=nn.BatchNorm(4),
            act1=nn.ReLU(),
            block=nn.basic_block(4, 6, 2),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(24, 9),
            act2=nn.Tanh(),
            drop=nn.Dropout(0.3),
            fc2=nn.Linear(9, 3),
        ),
        (8, 8, 2),
    )


def passes(network, x, a, c, active=None, compact=False, need_dx=False):
    """(y, g, dx) of one training pass; g starts as NaN."""
    size = sum(s.size for s in network.segments if active is None or s.name in active) if compact else network.dim
    g, ctx = np.full(size, np.nan), nn.Context(1)
    ctx.training = True
    network.bind(x, g, active, compact)
    y = network.forward(a, ctx, need_dx=need_dx).copy()
    dx = network.backward(c, need_dx)
    return y, g, dx if dx is None else dx.copy()


@pytest.fixture
def case(rng):
    network = small()
    return network, rng.standard_normal(network.dim), rng.standard_normal((5, 8, 8, 2)), rng.standard_normal((5, 3))


def test_names_kinds_and_blocks():
    network = small()
    names = network.segments.names
    assert names[:4] == ["conv1.W", "conv1.b", "bn1.a", "bn1.b"]
    assert "block.conv1.W" in names and "block.shortcut.conv.W" in names
    assert network.segments.blocks == ["conv1", "bn1", "block", "fc1", "fc2"]
    assert {s.name: s.kind for s in network.segments}["block.shortcut.conv.W"] == "conv"
    assert network.segments.find("bn1.a").kind == "norm" and network.segments.find("fc1.W").kind == "matrix"
    positional = nn.Network(nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), nn.Linear(3, 1)), (2,))
    assert positional.segments.names == ["0.0.W", "0.0.b", "1.W", "1.b"] and positional.segments.blocks == ["0", "1"]


@pytest.mark.parametrize(
    "active",
    [
        ["fc2.W"],
        ["fc1.b"],
        ["block.shortcut.conv.W"],
        ["block.conv2.W", "fc2.b"],
        ["bn1.a"],
        ["conv1.W"],
        ["bn1.b", "fc1.W"],
    ],
)
def test_frozen_gradients_are_those_of_the_full_pass_and_the_rest_is_not_touched(case, active):
    network, x, a, c = case
    y, full, _ = passes(network, x, a, c)
    z, g, dx = passes(network, x, a, c, frozenset(active))
    np.testing.assert_array_equal(y, z)
    assert dx is None
    for segment in network.segments:
        if segment.name in active:
            np.testing.assert_array_equal(g[segment.slice], full[segment.slice])
        else:
            assert np.isnan(g[segment.slice]).all()
    _, compact, _ = passes(network, x, a, c, frozenset(active), compact=True)
    np.testing.assert_array_equal(
        compact, np.concatenate([full[s.slice] for s in network.segments if s.name in active])
    )


def test_need_dx_changes_no_gradient_and_freezing_no_dx(case):
    network, x, a, c = case
    _, g, _ = passes(network, x, a, c)
    _, same, dx = passes(network, x, a, c, need_dx=True)
    np.testing.assert_array_equal(g, same)
    _, _, frozen = passes(network, x, a, c, frozenset(["fc2.W"]), need_dx=True)
    np.testing.assert_array_equal(dx, frozen)
    network.bind(x)
    network.forward(a, network.ctx, need_dx=True)
    np.testing.assert_array_equal(network.backward(c, need_dx=True), dx)


def test_backward_stops_at_the_lowest_active_layer(case, monkeypatch):
    network, x, a, c = case
    called = []
    for name, layer in network.layer.children():
        backward = layer.backward
        monkeypatch.setattr(
            layer,
            "backward",
            lambda dy, need_dx=True, f=backward, n=name: called.append((n, need_dx)) or f(dy, need_dx),
        )
    passes(network, x, a, c, frozenset(["fc1.W"]))
    assert called == [("fc2", True), ("drop", True), ("act2", True), ("fc1", False)]


def test_layers_below_the_lowest_active_one_keep_nothing(rng):
    layers = {f"fc{i}": nn.Linear(200, 200) for i in range(12)}
    a, memory = rng.standard_normal((500, 200)), {}
    for active in (None, frozenset(["fc11.W"])):
        network = nn.Network(nn.Sequential(**layers), (200,))
        ctx, x = nn.Context(), rng.standard_normal(network.dim)
        network.bind(x, np.empty(network.dim), active)
        network.backward(network.forward(a, ctx).copy())
        memory[active] = (
            sum(v.size for v in ctx.owned.values())
            + sum(v.size for v in ctx.free)
            + sum(v.size for held in ctx.lent.values() for v in held)
        ) / a.size
    assert memory[None] > 12  # twelve activations are kept, two gradients lent
    assert memory[frozenset(["fc11.W"])] < 4  # the output, and two or three that go round


def test_shared_segments_sum_the_gradients_of_their_users(rng):
    def make(share):
        return nn.Network(
            nn.Sequential(a=nn.Linear(4, 4), t=nn.Tanh(), b=nn.Linear(4, 4), u=nn.Tanh(), c=nn.Linear(4, 4)),
            (4,),
            share=share,
        )

    tied, free = make({"b.W": "a.W", "c.W": "a.W", "c.b": "b.b"}), make(None)
    x, a, c = rng.standard_normal(tied.dim), rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    table = tied.segments
    assert table.names == ["a.W", "a.b", "b.b"]
    w, b0, b1 = (x[s.slice] for s in table)
    y, g, dx = passes(tied, x, a, c, need_dx=True)
    z, h, dz = passes(free, np.concatenate([w, b0, w, b1, w, b1]), a, c, need_dx=True)
    np.testing.assert_array_equal(y, z)
    np.testing.assert_array_equal(dx, dz)
    parts = {s.name: h[s.slice] for s in free.segments}
    np.testing.assert_allclose(
        g[table.find("a.W").slice], parts["a.W"] + parts["b.W"] + parts["c.W"], rtol=1e-13, atol=1e-14
    )
    np.testing.assert_allclose(g[table.find("b.b").slice], parts["b.b"] + parts["c.b"], rtol=1e-13, atol=1e-14)
    _, only, _ = passes(tied, x, a, c, frozenset(["a.W"]), compact=True)
    np.testing.assert_array_equal(only, g[:16])


def test_a_shared_network_passes_the_gradient_check():
    network = nn.Network(
        nn.Sequential(a=nn.Linear(4, 4), act=nn.PReLU(), b=nn.Linear(4, 4), act2=nn.PReLU()),
        (4,),
        share={"b.W": "a.W", "act2.a": "act.a"},
    )
    report = nn.gradcheck_layer(network, (4,))
    assert report.ok, str(report)


def test_binding_the_same_vectors_again_makes_no_new_views(rng):
    network = resnet18(width=2)
    x, y, g = rng.standard_normal(network.dim), rng.standard_normal(network.dim), np.empty(network.dim)
    network.bind(x, g)
    layer = network.layer.layers[0]
    views = layer.W, layer.dW
    network.bind(x, g)
    assert layer.W is views[0] and layer.dW is views[1]
    network.bind(y, g)
    assert layer.W is not views[0] and np.shares_memory(layer.W, y) and np.shares_memory(layer.dW, g)
    network.bind(x, g)
    assert np.shares_memory(layer.W, x) and not np.shares_memory(layer.W, y)
    assert len(network.segments) == 62


def test_after_the_first_step_nothing_the_size_of_an_activation_is_allocated(rng):
    backend.threads(1)
    network = nn.Network(
        nn.Sequential(
            conv1=nn.Conv2d(2, 8, 3, padding=1),
            bn1=nn.BatchNorm(8),
            act1=nn.ReLU(),
            block=nn.basic_block(8, 8),
            pool=nn.MaxPool2d(2),
            norm=nn.LayerNorm(8),
            gelu=nn.GELU(),
            leak=nn.LeakyReLU(0.1),
            prelu=nn.PReLU(),
            avg=nn.AvgPool2d(2),
            tanh=nn.Tanh(),
            flatten=nn.Flatten(),
            drop=nn.Dropout(0.2),
            fc=nn.Linear(8 * 16, 5),
            sigmoid=nn.Sigmoid(),
        ),
        (16, 16, 2),
    )
    x = network.x0(rng)
    g, ctx, loss = np.empty_like(x), nn.Context(), nn.SoftmaxCrossEntropy()
    a, t = rng.standard_normal((1024, 16, 16, 2)).astype("float32"), rng.integers(0, 5, 1024)

    def step():
        ctx.training = True
        network.bind(x, g)
        _, dz = loss.value_and_gradient(network.forward(a, ctx, need_dx=True), t, None, ctx)
        network.backward(dz, need_dx=True)
        network.commit()
        ctx.training = False
        network.forward(a, ctx, backward=False)

    step()
    gc.collect()
    tracemalloc.start()
    step()
    base, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Activations take 8 MiB before the pools, at least 512 KiB after them (outputs and labels less). NumPy's own work
    # space for mixed types and strides, up to 133 kB whatever the batch, is what is seen.
    assert peak < 200_000, (base, peak)


def test_buffers_serve_smaller_and_larger_batches(rng):
    network = small()
    x, ctx = rng.standard_normal(network.dim), nn.Context()
    network.bind(x, np.empty(network.dim))
    a = rng.standard_normal((7, 8, 8, 2))
    found = [network.forward(a[:b], ctx).copy() for b in (3, 7, 3)]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[1][:3], found[0], rtol=1e-12)


def test_float32_agrees_with_float64(case):
    network, x, a, c = case
    _, g, _ = passes(network, x, a, c)
    h = np.empty(network.dim, "float32")
    ctx = nn.Context(1)
    ctx.training = True
    network.bind(x.astype("float32"), h)
    network.forward(a.astype("float32"), ctx)
    network.backward(c.astype("float32"))
    assert np.linalg.norm(h - g) < 1e-5 * np.linalg.norm(g)  # sums of up to 300 products, 6e-8 each


def test_micro_batches_of_unequal_size_add_up_to_the_full_batch(rng):
    network = nn.Network(
        nn.Sequential(
            conv=nn.Conv2d(2, 3, 3),
            act=nn.ReLU(),
            f=nn.Flatten(),
            norm=nn.LayerNorm(48),
            drop=nn.Dropout(0.5),
            fc=nn.Linear(48, 4),
        ),
        (6, 6, 2),
    )
    x, loss, ctx = network.x0(rng, "float64"), nn.SoftmaxCrossEntropy(0.1), nn.Context()
    ctx.training = True
    a, t, w, rows = rng.standard_normal((10, 6, 6, 2)), rng.integers(0, 4, 10), rng.random(10), np.arange(10)

    def gradient(part):
        g, ctx.rows = np.empty(network.dim), rows[part]
        network.bind(x, g)
        value, dz = loss.value_and_gradient(network.forward(a[part], ctx), t[part], w[part], ctx)
        network.backward(dz)
        return value, g

    value, g = gradient(slice(0, 10))
    parts = [(len(rows[p]) / 10, *gradient(p)) for p in (slice(0, 1), slice(1, 7), slice(7, 10))]
    assert value == pytest.approx(sum(share * v for share, v, _ in parts), rel=1e-13)
    np.testing.assert_allclose(g, sum(share * part for share, _, part in parts), rtol=1e-10, atol=1e-13)


def test_what_does_not_fit_gets_one_sentence(rng):
    network = small()
    with pytest.raises(ValueError, match="x must have shape"):
        network.bind(np.zeros(3))
    with pytest.raises(ValueError, match="g must be float64"):
        network.bind(np.zeros(network.dim), np.zeros(network.dim, "float32"))
    network.bind(np.zeros(network.dim))
    with pytest.raises(ValueError, match="a row of inputs must have shape"):
        network.forward(np.zeros((2, 9, 9, 2)), nn.Context())
    twice = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="occurs twice"):
        nn.Network(nn.Sequential(a=twice, b=twice), (3,))
    with pytest.raises(ValueError, match="cannot share"):
        nn.Network(nn.Sequential(a=nn.Linear(3, 4), b=nn.Linear(4, 3)), (3,), share={"b.W": "a.W"})
    with pytest.raises(ValueError, match="no segment is named"):
        nn.Network(nn.Sequential(a=nn.Linear(3, 3)), (3,), share={"a.W": "z.W"})


def test_a_shared_segment_starts_as_its_owner_says(rng):
    from nn import Linear, Network, Sequential
    from nn.init import Constant

    net = Network(Sequential(one=Linear(3, 3, init=Constant(1.0)), two=Linear(3, 3, init=Constant(2.0))), (3,),
                  share={"one.W": "two.W"})
    assert (net.segments.view(net.x0(rng), "two.W") == 2.0).all()


def test_composites_of_views_do_not_lose_memory(rng):
    layers = [layer for _ in range(12) for layer in (nn.Linear(50, 50), nn.Sequential(nn.ReLU()))]
    network = nn.Network(nn.Sequential(*layers), (50,))
    x, ctx, a = rng.standard_normal(network.dim), nn.Context(), rng.standard_normal((40, 50))
    g, held = np.empty_like(x), []
    for _ in range(3):
        network.bind(x, g)
        network.backward(network.forward(a, ctx).copy())
        ctx.reclaim()
        held.append({id(flat) for flat in ctx.free})
    assert held[0] == held[1] == held[2]
