"""Recurrent layers by CUDA kernels, run on the CPU: their launches, whole passes, what remains array code."""

import nn
from nn import kernels
from npopt import backend

import cudashim
import numpy as np
import pytest
from test_recurrent import passes

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
MAKE = {"lstm": nn.LSTM, "gru": nn.GRU}


@pytest.fixture
def launches(monkeypatch):
    """Names of the kernels, and "product", in the order of their launches; "array code" for what NumPy would do."""
    found, call, product = [], cudashim.Kernel.__call__, cudashim.Cublas.gemmStridedBatchedEx

    def launched(self, *arguments, **options):
        found.append(self.name)
        return call(self, *arguments, **options)

    def multiplied(self, *arguments):
        found.append("product")
        return product(self, *arguments)

    def computed(self, function, method, *inputs, **options):
        found.append("array code")
        outs = {"out": tuple(np.asarray(a) for a in options.pop("out"))} if "out" in options else {}
        made = getattr(function, method)(*[np.asarray(a) for a in inputs], **outs, **options)
        return cudashim.copied(made) if isinstance(made, np.ndarray) else made

    monkeypatch.setattr(cudashim.Kernel, "__call__", launched)
    monkeypatch.setattr(cudashim.Cublas, "gemmStridedBatchedEx", multiplied)
    monkeypatch.setattr(cudashim.Array, "__array_ufunc__", computed, raising=False)
    return found


def given(rng, gates, masked, shape=(3, 5, 6), dtype="float32"):
    batch, times, units = shape
    noise = lambda *s: backend.asarray(rng.standard_normal(s).astype(dtype))  # noqa: E731
    mask = noise(batch, units) if masked else None
    return noise(batch, times, gates * units), noise(gates * units, units), mask, noise(batch, units), noise(*shape)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind, gates", [("lstm", 4), ("gru", 3)])
def test_a_time_is_two_launches(kind, gates, masked, rng, shim, launches):
    """And nothing else within a sequence: array code only masks what flows in and out at its ends."""
    a, u, mask, h, y = given(rng, gates, masked)
    c, q, dy, da, db = h.copy(), y.copy(), y.copy(), a.copy(), a.copy()
    launches.clear()
    forward, backward = getattr(kernels, kind), getattr(kernels, f"{kind}_backward")
    if kind == "lstm":
        forward(a, u, mask, h, c, y, q)
    else:
        forward(a, u, h[0].copy(), mask, h, y, q)
    assert launches == ["array code"] * masked + 5 * ["product", f"{kind}_cell"]
    launches.clear()
    if kind == "lstm":
        backward(a, q, c, u, mask, dy, da, h, c.copy())
    else:
        backward(a, q, y, u, mask, dy, da, db, h)
    assert launches[:10] == 5 * [f"{kind}_cell_backward", "product"]
    assert launches[10:] == ["array code"] * (masked if kind == "lstm" else 1 + masked)


@pytest.mark.parametrize("gates", [4, 3])
@pytest.mark.parametrize("dtype, near", [("float64", 1e-12), ("float32", 2e-5)])
def test_forward_and_backward_are_those_of_the_cpu(gates, dtype, near, monkeypatch):
    """One after the other, what the first writes being what the second reads."""
    for masked in (False, True):
        found = []
        for device in ("shim", "cpu"):
            backend.use(device)
            kernels.use("fast" if device == "shim" else "reference")
            cudashim.EXECUTED.clear()
            found.append([backend.to_host(a) for a in passes(gates, (9, 4, 37), dtype, masked, backend.asarray)])
            assert len(cudashim.EXECUTED) == (2 if device == "shim" else 0)
        kernels.use("fast")
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=near, atol=near)


def test_gates_beyond_all_bounds_and_nan(shim):
    """Sums of 1e30 or infinite: gates of 0 and 1, no overflow; what is not a number stays in its row."""
    a = np.zeros((3, 2, 4))
    a[0, 0], a[1, 0], a[2, 0] = [np.inf, -np.inf, -np.inf, 1e30], [1e30, 1e30, 1e30, -1e30], [0, np.nan, 0, 0]
    u, zero = backend.zeros((4, 1), "float64"), backend.zeros((3, 1), "float64")
    c0, (y, c) = backend.asarray(np.full((3, 1), 7.0)), (backend.zeros((3, 2, 1), "float64") for _ in "yc")
    kernels.lstm(backend.asarray(a), u, None, zero, c0, y, c)
    np.testing.assert_array_equal(backend.to_host(c)[:2, :, 0], [[-1, -0.5], [8, 4]])
    np.testing.assert_allclose(backend.to_host(y)[:2, 0, 0], [np.tanh(-1), 0], rtol=1e-15)
    assert np.isnan(backend.to_host(c)[2]).all()


def test_numbers_of_two_bytes_are_array_code(rng, shim, launches):
    a, u, _, h, y = given(rng, 4, False)
    a, h, y = (v.astype("float16") for v in (a, h, y))
    launches.clear()
    kernels.lstm(a, u, None, h, h.copy(), y, y.copy())
    assert "array code" in launches and "lstm_cell" not in launches


@pytest.mark.parametrize("kind", MAKE)
def test_layers_are_those_of_the_cpu_and_their_gradients_right(kind, rng, shim):
    report = nn.gradcheck_layer(MAKE[kind](3, 4, dropout=0.3), (5, 3))
    assert report.ok, str(report)
    cudashim.EXECUTED.clear()
    nn.gradcheck_layer(MAKE[kind](3, 4), (2, 3))
    assert {f"{kind}_cell", f"{kind}_cell_backward"} <= {name for name, _ in cudashim.EXECUTED}
