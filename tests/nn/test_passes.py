"""Binding, freezing, sharing, several passes at once, memory."""

import nn
from nn.fused import BatchNormReLU, BatchNormSkip
from nn.networks import resnet18
from npopt.backend.allocator import pool, spaces

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
    g, run = np.full(size, np.nan), nn.Run(training=True, backward=True, dx=need_dx, seed=1)
    network.bind(x, g, active, compact)
    y, saved = network.forward(a, run)
    return y, g, network.backward(c.copy(), saved, run)


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
    run = nn.Run(training=True, dx=True, seed=1)
    _, saved = network.forward(a, run)
    np.testing.assert_array_equal(network.backward(c.copy(), saved, run), dx)


def test_backward_stops_at_the_lowest_active_layer(case, monkeypatch):
    network, x, a, c = case
    called = []
    for name, layer in network.layer.children():
        backward = layer.backward
        monkeypatch.setattr(
            layer,
            "backward",
            lambda dy, saved, run, f=backward, n=name: called.append((n, run.dx)) or f(dy, saved, run),
        )
    passes(network, x, a, c, frozenset(["fc1.W"]))
    assert called == [("fc2", True), ("drop", True), ("act2", True), ("fc1", False)]


def test_of_layers_below_the_lowest_active_one_nothing_is_kept(rng):
    layers = {f"fc{i}": nn.Linear(256, 256) for i in range(12)}
    a, run = rng.standard_normal((512, 256)), nn.Run(backward=True)
    pool.release()  # no larger block may serve
    for active, count in ((None, 12), (frozenset(["fc11.W"]), 1), (frozenset(["fc10.b"]), 2)):
        network = nn.Network(nn.Sequential(**layers), (256,))
        x = rng.standard_normal(network.dim)
        network.bind(x, np.empty(network.dim), active)
        before = lent()
        y, saved = network.forward(a, run)
        assert sum(kept is not None for kept in saved) == count
        kept = (lent() - before) / a.nbytes
        assert kept == pytest.approx(12 if active is None else count + 1, rel=0.01)  # the output, and inputs but a
        del saved, y


def lent():
    """Bytes of the pool that are in use."""
    return pool.held - sum(size * len(blocks) for size, blocks in pool.free.items())


def test_what_a_layer_kept_goes_as_soon_as_it_is_used(rng):
    a, seen = rng.standard_normal((512, 256)), []
    pool.release()

    class Watch(nn.Linear):
        def backward(self, dy, saved, run):
            seen.append(lent() / a.nbytes)
            return super().backward(dy, saved, run)

    network = nn.Network(nn.Sequential(nn.Sequential(*[Watch(256, 256) for _ in range(8)])), (256,))
    x, run = rng.standard_normal(network.dim), nn.Run(backward=True)
    network.bind(x, np.empty(network.dim))
    before = lent() / a.nbytes
    y, *kept = network.forward(a, run)
    network.backward(y, kept.pop(), run)
    falling = np.diff(np.array(seen) - before)
    np.testing.assert_allclose(falling, [0, *[-1] * 6], atol=0.01)  # y stays with the caller; the first dx is new


def test_three_passes_at_once(case, rng):
    """Micro-batches of a pipeline: all forward, then back in another order; each gradient is that of a pass alone."""
    network, x, _, _ = case
    batches = [(rng.standard_normal((b, 8, 8, 2)), rng.standard_normal((b, 3))) for b in (5, 2, 7)]
    alone = [passes(network, x, a, c, need_dx=True) for a, c in batches]
    g, runs = np.full(network.dim, np.nan), [nn.Run(training=True, dx=True, seed=1) for _ in batches]
    network.bind(x, g)
    ahead = [network.forward(a, run) for (a, _), run in zip(batches, runs, strict=True)]
    for i in (1, 2, 0):
        y, saved = ahead[i]
        dx = network.backward(batches[i][1].copy(), saved, runs[i])
        for ours, theirs in zip((y, g, dx), alone[i], strict=True):
            np.testing.assert_array_equal(ours, theirs)


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


def everything():
    """A network with every layer that has a fast path, for (16, 16, 2) images."""
    return nn.Network(
        nn.Sequential(
            conv1=nn.Conv2d(2, 8, 3, padding=1),
            bn1=nn.BatchNorm(8),
            act1=nn.ReLU(),
            block=nn.basic_block(8, 8),
            wider=nn.basic_block(8, 16, 2),
            pool=nn.MaxPool2d(2),
            norm=nn.LayerNorm(16),
            gelu=nn.GELU(),
            leak=nn.LeakyReLU(0.1),
            prelu=nn.PReLU(),
            avg=nn.AvgPool2d(2),
            tanh=nn.Tanh(),
            flatten=nn.Flatten(),
            drop=nn.Dropout(0.2),
            fc=nn.Linear(16 * 4, 5),
            sigmoid=nn.Sigmoid(),
        ),
        (16, 16, 2),
    )


@pytest.mark.parametrize("path", ["fast", "reference"])
@pytest.mark.parametrize("make", [everything, nn.lenet5, lambda: resnet18(width=8)])
def test_after_the_first_step_the_pool_asks_the_system_for_nothing(make, path, rng):
    network, loss = make(), nn.SoftmaxCrossEntropy()
    x = network.x0(rng)
    g, a = np.empty_like(x), rng.standard_normal((64, *network.input_shape)).astype("float32")
    t = rng.integers(0, network.output_shape[0], 64)

    def step(batch):
        run = nn.Run(training=True, dx=True)
        network.bind(x, g)
        y, *kept = network.forward(a[:batch], run)
        _, dz = loss.value_and_gradient(y, t[:batch])
        network.backward(dz, kept.pop(), run)
        network.commit()
        network.forward(a[:batch], nn.Run())

    nn.kernels.use(path)
    pool.release()
    try:
        step(64)
        step(48)  # the last batch of an epoch
        asked, held = pool.asked + spaces.asked, lent()
        for batch in (64, 64, 48, 64):
            step(batch)
    finally:
        nn.kernels.use("fast")
    assert pool.asked + spaces.asked == asked and lent() == held


def test_batches_of_all_sizes(rng):
    network, run = small(), nn.Run()
    x, a = rng.standard_normal(network.dim), rng.standard_normal((7, 8, 8, 2))
    network.bind(x)
    found = [network.forward(a[:b], run)[0] for b in (3, 7, 3)]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_allclose(found[1][:3], found[0], rtol=1e-12)


def test_float32_agrees_with_float64(case):
    network, x, a, c = case
    _, g, _ = passes(network, x, a, c)
    h, run = np.empty(network.dim, "float32"), nn.Run(training=True, backward=True, seed=1)
    network.bind(x.astype("float32"), h)
    _, saved = network.forward(a.astype("float32"), run)
    network.backward(c.astype("float32"), saved, run)
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
    x, loss = network.x0(rng, "float64"), nn.SoftmaxCrossEntropy(0.1)
    a, t, w, rows = rng.standard_normal((10, 6, 6, 2)), rng.integers(0, 4, 10), rng.random(10), np.arange(10)

    def gradient(part):
        g, run = np.empty(network.dim), nn.Run(training=True, backward=True, rows=rows[part])
        network.bind(x, g)
        y, saved = network.forward(a[part], run)
        value, dz = loss.value_and_gradient(y, t[part], w[part])
        network.backward(dz, saved, run)
        return value, g

    value, g = gradient(slice(0, 10))
    parts = [(len(rows[p]) / 10, *gradient(p)) for p in (slice(0, 1), slice(1, 7), slice(7, 10))]
    assert value == pytest.approx(sum(share * v for share, v, _ in parts), rel=1e-13)
    np.testing.assert_allclose(g, sum(share * part for share, _, part in parts), rtol=1e-10, atol=1e-13)


def test_fused_layers_are_chosen_printed_and_equal_to_their_parts(rng):
    block = nn.basic_block(4, 4)
    layers = dict(conv=nn.Conv2d(2, 4, 3), bn=nn.BatchNorm(4), act=nn.ReLU(), block=block)
    network = nn.Network(nn.Sequential(**layers), (6, 6, 2))
    assert type(network.layer.plans["fast"].layers[1]) is BatchNormReLU and "bn+act=BatchNormReLU(4" in repr(network)
    assert type(block.plans["fast"][1]) is BatchNormSkip and "BatchNormSkipReLU(4" in repr(network)
    smooth = nn.Sequential(conv=nn.Conv2d(2, 4, 3), bn=nn.BatchNorm(4), act=nn.Tanh())
    assert [type(layer) for layer in smooth.plans["fast"].layers] == [nn.Conv2d, nn.BatchNorm, nn.Tanh]
    x, a, c = rng.standard_normal(network.dim), rng.standard_normal((3, 6, 6, 2)), rng.standard_normal((3, 4, 4, 4))
    fast = passes(network, x, a, c, need_dx=True)
    nn.kernels.use("reference")
    try:
        apart = passes(network, x, a, c, need_dx=True)
    finally:
        nn.kernels.use("fast")
    for one, other in zip(fast, apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_what_does_not_fit_gets_one_sentence(rng):
    network = small()
    with pytest.raises(ValueError, match="x must have shape"):
        network.bind(np.zeros(3))
    with pytest.raises(ValueError, match="g must be float64"):
        network.bind(np.zeros(network.dim), np.zeros(network.dim, "float32"))
    network.bind(np.zeros(network.dim))
    with pytest.raises(ValueError, match="a row of inputs must have shape"):
        network.forward(np.zeros((2, 9, 9, 2)), nn.Run())
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

    net = Network(
        Sequential(one=Linear(3, 3, init=Constant(1.0)), two=Linear(3, 3, init=Constant(2.0))),
        (3,),
        share={"one.W": "two.W"},
    )
    assert (net.segments.view(net.x0(rng), "two.W") == 2.0).all()
