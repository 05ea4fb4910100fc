"""Activations, gates and norms of rows: fast loops against array code, both against what stands written here."""

import nn
from nn import kernels
from nn.kernels import reference_gates, reference_rows
from npopt import backend

import numpy as np
import pytest
import scipy.special

FORMULAS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": scipy.special.expit,
    "silu": lambda x: x * scipy.special.expit(x),
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "gelu-tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}
NEAR = {"float64": 1e-13, "float32": 4e-6}  # of numbers up to 14, a few roundings each


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", [40, 20_011])  # one thread and more
@pytest.mark.parametrize("kind", FORMULAS)
def test_activations_and_gates(kind, size, dtype, rng):
    a, b, dy = (3 * rng.standard_normal((3, size))).astype(dtype)
    a[:30] = np.linspace(-14, 14, 30)
    exact, h = a.astype("float64"), 1e-5
    f = FORMULAS[kind](exact)
    slope = (FORMULAS[kind](exact + h) - FORMULAS[kind](exact - h)) / (2 * h)
    slope[exact == 0] = reference_gates.slope(kind, np.zeros(1))[0]
    for call in ("fast", "reference"):
        kernels.use(call)
        y, dx, da, db, gated = (np.full_like(a, np.nan) for _ in range(5))
        kernels.activate(a, y, kind)
        kernels.activate_backward(a, dy, dx, kind)
        kernels.gate(a, b, gated, kind)
        kernels.gate_backward(a, b, dy, da, db, kind)
        kernels.use("fast")
        np.testing.assert_allclose(y, f, rtol=0, atol=NEAR[dtype])
        np.testing.assert_allclose(gated, f * b, rtol=0, atol=10 * NEAR[dtype])
        np.testing.assert_allclose(db, f * dy, rtol=0, atol=10 * NEAR[dtype])
        rough = max(1e-8, 10 * NEAR[dtype])  # central differences leave 1e-10, times 10
        np.testing.assert_allclose(dx, slope * dy, rtol=0, atol=rough)
        np.testing.assert_allclose(da, slope * b * dy, rtol=0, atol=10 * rough)
    same = dy.copy()
    kernels.activate_backward(a, same, same, kind)
    np.testing.assert_allclose(same, dx, rtol=1e-5, atol=NEAR[dtype])


def test_layers_of_activations_and_gates_are_their_formulas(rng):
    x = rng.standard_normal((2, 3))
    for layer, kind in ((nn.SiLU(), "silu"), (nn.GELU(), "gelu"), (nn.GELU("tanh"), "gelu-tanh")):
        np.testing.assert_allclose(layer.forward(x, nn.Run())[0], FORMULAS[kind](x), rtol=1e-13)
    gates = {
        "sigmoid": nn.Gated(3, 4, bias=True),
        "silu": nn.SwiGLU(3, 4),
        "gelu": nn.GEGLU(3, 4, bias=True),
        "gelu-tanh": nn.GEGLU(3, 4, "tanh"),
        "relu": nn.ReGLU(3, 4),
    }
    for kind, layer in gates.items():
        network = nn.Network(layer, (3,))
        network.bind(rng.standard_normal(network.dim))
        a, b = (x @ part.W.T + (part.b if part.bias else 0) for part in (layer.gate, layer.up))
        np.testing.assert_allclose(network.forward(x, nn.Run())[0], FORMULAS[kind](a) * b, rtol=1e-12, atol=1e-14)


def test_gelu_keeps_its_digits_far_to_the_left():
    x = np.linspace(-12, -0.1, 500)
    for dtype, near in (("float64", 1e-13), ("float32", 2e-5)):  # e^(-z^2/2) multiplies the rounding of z^2/2 by 72
        a, y = x.astype(dtype), np.empty(500, dtype)
        kernels.activate(a, y, "gelu")
        np.testing.assert_allclose(y, a * scipy.special.ndtr(a.astype("float64")), rtol=near)


@pytest.mark.parametrize("dtype, near", [("float64", 1e-12), ("float32", 3e-5)])
@pytest.mark.parametrize("n, d", [(1, 1), (70, 7), (33, 64), (600, 17)])
def test_norms_of_rows(n, d, dtype, near, rng):
    x, dy = (2 + rng.standard_normal((n, d))).astype(dtype), rng.standard_normal((n, d)).astype(dtype)
    a, b = rng.standard_normal((2, d)).astype(dtype)
    found = []
    for fast in (True, False):
        y, m, r, da, db = np.empty_like(x), *np.empty((2, n), dtype), *np.empty((2, d), dtype)
        kernels.use("fast" if fast else "reference")
        kernels.layer_norm(x, a, b, 0.1, y, m, r)
        dx = dy.copy()
        kernels.layer_norm_backward(x, a, m, r, dx, dx, da, db)
        z, s, dz, ds = np.empty_like(x), np.empty(n, dtype), dy.copy(), np.empty(d, dtype)
        kernels.rms_norm(x, a, 0.1, z, s)
        kernels.rms_norm_backward(x, a, s, dz, dz, ds)
        kernels.rms_norm_backward(x, a, s, dy, None, None)  # nothing is wanted: nothing is written
        kernels.use("fast")
        found.append((y, m, r, dx, da / n, db / n, z, s, dz, ds / n))
    for fast, slow in zip(*found, strict=True):
        np.testing.assert_allclose(fast, slow, rtol=near, atol=near)
    wide = x.astype("float64")
    np.testing.assert_allclose(
        found[0][6], wide / np.sqrt((wide * wide).mean(1, keepdims=True) + 0.1) * a, rtol=near, atol=near
    )
    assert reference_rows.rms_norm is not kernels.rms_norm.fast["cpu"]


def test_results_do_not_depend_on_the_number_of_threads(rng):
    x, dy, found = *rng.standard_normal((2, 500, 40)).astype("f4"), []
    for n in (1, 2):
        backend.threads(n)
        network = nn.Network(nn.Sequential(nn.RMSNorm(40), nn.SwiGLU(40, 30), nn.LayerNorm(30)), (40,))
        w, g = network.x0(np.random.default_rng(0)), np.empty(network.dim, "f4")
        network.bind(w, g)
        run = nn.Run(dx=True)
        y, saved = network.forward(x, run)
        found.append((y, network.backward(dy[:, :30].copy(), saved, run), g))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
