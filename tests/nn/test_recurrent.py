"""Recurrent layers: values by loops over units, gradients of the first state, and the state that goes on."""

import nn
from nn import kernels
from nn.decoding import Decoder
from npopt import backend

import numpy as np
import pytest
from scipy.special import expit

TRAINING = nn.Run(training=True, dx=True, seed=7)
MAKE = {
    "lstm": lambda **more: nn.LSTM(3, 4, **more),
    "gru": lambda **more: nn.GRU(3, 4, **more),
    "gru before": lambda **more: nn.GRU(3, 4, "before", **more),
}


@pytest.fixture(params=["fast", "reference"])
def path(request):
    kernels.use(request.param)
    yield request.param
    kernels.use("fast")


def bound(layer, rng, shape=(5, 3), dtype="float64"):
    network = nn.Network(layer, shape)
    x, g = (0.7 * rng.standard_normal(network.dim)).astype(dtype), np.zeros(network.dim, dtype)
    network.bind(x, g)
    return network


def slow(name, layer, x, state):
    """The equations of the docstrings, unit by unit: outputs and the last state of one row, x: (T, in)."""
    H, (h, *rest), outputs = layer.units, [s.copy() for s in state], []
    c = rest[0] if rest else None
    for xt in x:
        pre = lambda j, seen, part=None: float(layer.U[j] @ seen)  # noqa: E731, B023
        a = [float(layer.W[j] @ xt + layer.b[j]) for j in range(len(layer.b))]
        new, new_c = np.empty(H), np.empty(H)
        if name == "lstm":
            for j in range(H):
                i, f, g, o = (a[k * H + j] + pre(k * H + j, h) for k in range(4))
                new_c[j] = expit(f) * c[j] + expit(i) * np.tanh(g)
                new[j] = expit(o) * np.tanh(new_c[j])
        else:
            r = np.array([expit(a[j] + pre(j, h)) for j in range(H)])
            for j in range(H):
                z = expit(a[H + j] + pre(H + j, h))
                if name == "gru":
                    n = np.tanh(a[2 * H + j] + r[j] * (pre(2 * H + j, h) + layer.bu[j]))
                else:
                    n = np.tanh(a[2 * H + j] + pre(2 * H + j, r * h))
                new[j] = (1 - z) * n + z * h[j]
        h, c = new, new_c
        outputs.append(h)
    return np.array(outputs), [h, c][: len(state)]


@pytest.mark.parametrize("name", MAKE)
def test_values_are_the_equations_unit_by_unit(name, path, rng):
    layer = MAKE[name]()
    bound(layer, rng)
    x, state = rng.standard_normal((2, 5, 3)), [rng.standard_normal((2, 4)) for _ in layer.states]
    y, last, _ = layer.unroll(x, state, TRAINING)
    for b in range(2):
        outputs, end = slow(name, layer, x[b], [s[b] for s in state])
        np.testing.assert_allclose(y[b], outputs, rtol=1e-12, atol=1e-14)
        for ours, theirs in zip(last, end, strict=True):
            np.testing.assert_allclose(ours[b], theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("name", MAKE)
def test_gradients_of_the_first_state_and_through_the_last(name, dropout, path, rng):
    """f = sum c y + sum e last, c and e random: along random directions of x and of the first state."""
    layer = MAKE[name](dropout=dropout)
    bound(layer, rng)
    x, state = rng.standard_normal((2, 5, 3)), [rng.standard_normal((2, 4)) for _ in layer.states]
    c, ends = rng.standard_normal((2, 5, 4)), [rng.standard_normal((2, 4)) for _ in state]

    def value(x, state):
        y, last, _ = layer.unroll(x, state, TRAINING)
        return (c * y).sum() + sum((e * s).sum() for e, s in zip(ends, last, strict=True))

    _, _, saved = layer.unroll(x, state, TRAINING)
    dx, first = layer.rolled_back(c.copy(), saved, ends, TRAINING)
    for k, (point, gradient) in enumerate(zip([x, *state], [dx, *first], strict=True)):
        d, h = rng.standard_normal(point.shape), 1e-6
        up, down = ([*[x, *state][:k], point + s * h * d, *[x, *state][k + 1 :]] for s in (1, -1))
        numeric = (value(up[0], up[1:]) - value(down[0], down[1:])) / (2 * h)
        assert abs(numeric - (gradient * d).sum()) < 1e-7 * max(1, abs(numeric))


def walk(network, windows, commit=True, training=True, batch=2):
    """Outputs over the columns of windows, (streams, count, T, in): step j takes rows j, count + j, ..."""
    found, count, kept = [], windows.shape[1], {}
    for j in range(count):
        rows = np.arange(batch) * count + j
        network.begin()
        run = nn.Run(training, rows=rows, seed=7, pending=None if training else kept)
        found.append(network.forward(windows[:, j], run)[0])
        if training:
            again, _ = network.forward(windows[:, j], run)  # a second pass of the step is the same function
            np.testing.assert_array_equal(again, found[-1])
        if commit:
            network.commit()
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MAKE)
def test_windows_in_order_give_the_outputs_of_the_whole_text(name, training, path, rng):
    layer = MAKE[name](streams=2)
    network, text = bound(layer, rng), rng.standard_normal((2, 20, 3))
    whole, _, _ = layer.unroll(text, [np.zeros((2, 4)) for _ in layer.states], nn.Run())
    windows = text.reshape(2, 4, 5, 3)
    np.testing.assert_allclose(walk(network, windows, training=training), whole, rtol=1e-13, atol=1e-14)
    # and again from the beginning: no state is left over from the end of the text
    np.testing.assert_allclose(walk(network, windows, training=training), whole, rtol=1e-13, atol=1e-14)
    alone = np.concatenate(
        [layer.unroll(windows[:, j], [np.zeros((2, 4))] * len(layer.states), nn.Run())[0] for j in range(4)], 1
    )
    assert np.abs(alone - whole)[:, 5:].max() > 1e-3
    if training:  # a step that was not taken leaves nothing: every window starts where the first one did
        network.load_state({"": nn.Network(MAKE[name](streams=2), (5, 3)).state()[""]})
        np.testing.assert_allclose(walk(network, windows, commit=False), alone, rtol=1e-13, atol=1e-14)


def test_the_state_is_saved_and_belongs_to_its_rows(rng):
    layer, other = (nn.LSTM(3, 4, streams=2) for _ in "ab")
    network, second = bound(layer, np.random.default_rng(1)), bound(other, np.random.default_rng(1))
    empty, x = network.state(), rng.standard_normal((2, 5, 3))
    network.begin()
    network.forward(x, nn.Run(True, rows=np.array([3, 8])))
    network.commit()
    state = network.state()
    assert {k: v.shape for k, v in state[""].items()} == {k: v.shape for k, v in empty[""].items()}
    second.load_state(state)
    for rows, on in (([4, 9], [1, 1]), ([4, 8], [1, 0]), ([0, 5], [0, 0]), ([9, 4], [0, 0])):
        run = nn.Run(True, rows=np.array(rows))
        y = second.forward(x, run)[0]
        np.testing.assert_array_equal(network.forward(x, run)[0], y)
        start = [s * np.array(on)[:, None] for s in (state[""]["h"], state[""]["c"])]
        np.testing.assert_allclose(y, other.unroll(x, start, run)[0], rtol=1e-13, atol=1e-14)
    zero = other.unroll(x, [np.zeros((2, 4))] * 2, nn.Run())[0]
    np.testing.assert_array_equal(second.forward(x, nn.Run(rows=np.array([4, 9])))[0], zero)  # evaluation has its own
    y = second.forward(x[:1], nn.Run(True, rows=np.array([4])))[0]  # of another size
    np.testing.assert_allclose(y, zero[:1], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", MAKE)
def test_the_mask_of_recurrent_dropout_belongs_to_the_row_and_lasts_for_all_times(name, path, rng):
    """Columns of U that a row's mask leaves out have no influence on it at any time."""
    layer = MAKE[name](dropout=0.5)
    network = bound(layer, rng)
    run = lambda rows, step=0: nn.Run(True, seed=5, step=step, rows=np.array(rows))  # noqa: E731
    x = rng.standard_normal((3, 5, 3))
    mask = layer.mask(x, run([4, 1, 4]))
    np.testing.assert_array_equal(mask[0], mask[2])
    assert ((mask[0] > 0) & (mask[1] == 0)).any()
    assert set(np.unique(mask)) == {0.0, 2.0} and not np.array_equal(mask, layer.mask(x, run([4, 1, 4], 1)))
    y, _ = network.forward(x, run([4, 1, 4]))
    layer.U[...] *= np.where(mask[1] == 0, 1.5, 1.0)  # columns that row 1 does not see
    again, _ = network.forward(x, run([4, 1, 4]))
    np.testing.assert_allclose(again[1], y[1], rtol=1e-13, atol=1e-14)
    assert np.abs(again[0] - y[0]).max() > 1e-4
    np.testing.assert_allclose(network.forward(x[1:2], run([1]))[0][0], y[1], rtol=1e-13, atol=1e-14)


def test_variational_dropout_has_one_mask_for_all_times(rng):
    network = nn.Network(nn.Sequential(drop=nn.VariationalDropout(0.4)), (6, 50))
    run = nn.Run(True, seed=3, rows=np.array([4, 1]))
    y, _ = network.forward(np.ones((2, 6, 50)), run)
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    assert set(np.unique(y)) == {0.0, 1 / 0.6} and not np.array_equal(y[0], y[1])
    np.testing.assert_array_equal(
        network.forward(np.ones((2, 6, 50)), nn.Run(True, seed=3, rows=np.array([1, 4])))[0], y[::-1]
    )


def test_what_does_not_fit_gets_one_sentence():
    for layer, shape, words in (
        (lambda: nn.LSTM(3, 4), (5, 2), r"LSTM: a row must be \(times, 3\), got \(5, 2\)"),
        (lambda: nn.GRU(3, 4), (3,), r"GRU: a row must be \(times, 3\)"),
        (lambda: nn.GRU(3, 4, "inside"), (5, 3), 'reset must be "after" or "before"'),
        (lambda: nn.LSTM(3, 4, 1.0), (5, 3), "dropout must lie in"),
        (lambda: nn.LSTM(3, 4, streams=-1), (5, 3), "streams must"),
        (lambda: nn.VariationalDropout(0.3), (5,), r"a row must be \(times, features\)"),
    ):
        with pytest.raises(ValueError, match=words):
            nn.Network(layer(), shape)


def test_the_state_goes_on_where_nothing_may_be_read(device, rng):
    text, found = rng.standard_normal((2, 3, 5, 3)), []
    for where in ("cpu", device):
        backend.use(where)
        layer = nn.LSTM(3, 4, 0.3, streams=2)
        network = nn.Network(layer, (5, 3))
        x = backend.asarray(np.random.default_rng(2).standard_normal(network.dim))
        network.bind(x, backend.zeros(x.shape, "float64"))
        for j in range(3):
            network.begin()
            run = nn.Run(True, rows=backend.asarray(np.array([j, 3 + j])), seed=7)
            y, _ = network.forward(backend.asarray(text[:, j]), run)
            network.commit()
        found.append(backend.to_host(y))
    np.testing.assert_allclose(*found, rtol=1e-11, atol=1e-13)


SIZES = [
    (1, 3, 4),
    (9, 2, 37),
    (20, 3, 64),
    (33, 1, 70),
]  # batch, times, units: blocks of units and rows that end early


def passes(gates, sizes, dtype, masked, there=np.asarray):
    """All that the recurrent kernels write, on the path and the threads that are set; `there` moves arrays."""
    (batch, times, units), rng = sizes, np.random.default_rng(sum(sizes))

    def noise(*shape):
        return rng.standard_normal(shape).astype(dtype)

    a, u, h, c, bias = (
        noise(batch, times, gates * units),
        noise(gates * units, units),
        *noise(2, batch, units),
        noise(units),
    )
    mask = ((rng.random(h.shape) > 0.3) / 0.7).astype(dtype) if masked else None
    y, q, da, db = (np.full((batch, times, n * units), np.nan, dtype) for n in (1, 1, gates, gates))
    dy, dh, dc = noise(batch, times, units), *noise(2, batch, units)
    u *= 1 / np.sqrt(units)
    a, u, h, c, bias, y, q, da, db, dy, dh, dc = map(there, (a, u, h, c, bias, y, q, da, db, dy, dh, dc))
    mask = None if mask is None else there(mask)
    if gates == 4:
        kernels.lstm(a, u, mask, h, c, y, q)
        kernels.lstm_backward(a, q, c, u, mask, dy, da, dh, dc)
        return a, y, q, da, dh, dc
    kernels.gru(a, u, bias, mask, h, y, q)
    before = there(np.concatenate([h[:, None], y[:, :-1]], axis=1))
    kernels.gru_backward(a, q, before, u, mask, dy, da, db, dh)
    return a, y, q, da, db, dh


@pytest.mark.parametrize("gates", [4, 3])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype, near", [("float64", 1e-11), ("float32", 2e-5)])
def test_the_fast_path_is_the_reference_and_knows_no_threads(gates, sizes, dtype, near):
    for masked in (False, True):
        fast = passes(gates, sizes, dtype, masked)
        backend.threads(1)
        alone = passes(gates, sizes, dtype, masked)
        backend.threads(min(2, backend.cores()))
        kernels.use("reference")
        plain = passes(gates, sizes, dtype, masked)
        kernels.use("fast")
        for one, two, three in zip(fast, alone, plain, strict=True):
            np.testing.assert_array_equal(one, two)
            # sums of up to 280 terms in another order; dh adds up over the times
            np.testing.assert_allclose(one, three, rtol=near, atol=near)
    assert kernels.lstm.fast["cpu"] and kernels.gru.fast["cpu"]  # nothing fell back to array code


def test_the_quotient_for_tanh_in_float32():
    from nn.kernels import recurrent_parts

    x = np.concatenate([np.linspace(-12, 12, 200_001), [np.inf, -np.inf, 1e-30, 0.0, np.nan]]).astype("float32")
    y = x.copy()
    recurrent_parts.tanh_in_place(y)
    exact = np.tanh(x.astype("float64"))
    # six roundings of float32, 2^-24 each, and what the fit leaves
    np.testing.assert_allclose(y, exact, rtol=4.5e-7, atol=0)
    assert np.nanmax(np.abs(y)) <= 1 and np.isnan(y[-1])


@pytest.mark.parametrize("name", MAKE)
def test_a_text_goes_on_from_any_place(name, path, rng):
    """Word by word, rolled back and with other rows, beside one pass over the whole text."""
    body = dict(embed=nn.Embedding(7, 3), one=MAKE[name](), two=nn.LSTM(4, 2, streams=2), head=nn.Linear(2, 7))
    network = nn.Network(nn.Sequential(**body), (6,))
    x, words = 0.7 * rng.standard_normal(network.dim), rng.integers(0, 7, (2, 6))
    network.bind(x)
    expected, _ = network.forward(words, nn.Run())
    state = Decoder(network, x).start(2)
    z = [state.append(words[:, :4], every=True)[:, :2]]
    state.rollback(2)
    other = state.branch([1, 0, 1])
    z += [state.append(words[:, t : t + 1], every=True) for t in range(2, 6)]
    np.testing.assert_allclose(np.concatenate(z, 1), expected, rtol=1e-12, atol=1e-14)
    z = other.append(words[[1, 0, 1], 2:], every=True)
    np.testing.assert_allclose(z, expected[[1, 0, 1], 2:], rtol=1e-12, atol=1e-14)
    assert state.nbytes == 8 * 2 * 6 * ((2 if name == "lstm" else 1) * 4 + 2 * 2)
    state.rollback(0)
    np.testing.assert_allclose(state.append(words, every=True), expected, rtol=1e-12, atol=1e-14)
