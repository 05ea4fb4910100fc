"""Convolutions on tensor cores, executed on the CPU: every way of a filter over an image, in each type of numbers."""

from math import prod

from nn.kernels import gpu, reference
from nn.kernels.gpu import convolutions, tensor
from npopt import backend
from npopt.backend import cuda

import cudashim
import ml_dtypes
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
CUT = {"float32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # rounding of a number
CASES = [  # image, kernel, stride, padding, channels, outputs, images
    ((5, 6), (3, 3), (1, 1), (1, 1), 64, 64, 3),
    ((9, 7), (3, 3), (2, 2), (1, 1), 64, 192, 1),
    ((7, 8), (1, 1), (2, 2), (0, 0), 64, 64, 2),
    ((4, 4), (1, 1), (1, 1), (0, 0), 128, 64, 9),
    ((6, 5), (2, 3), (1, 2), (0, 2), 64, 64, 2),
    ((6, 6), (3, 2), (3, 3), (2, 0), 64, 64, 3),
]


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    cudashim.build([(tensor.program.source(), cuda.options(kind)) for kind in TYPES])


def rounded(a, kind):
    """a as the tensor cores see it: to 10 bits after the point, ties away from 0, or in two bytes."""
    if kind == "float32":
        bits = a.astype("float32").view(np.uint32) + np.uint32(0x1000)
        return (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(float)
    return a.astype(TYPES[kind]).astype(float)


def arrays(case, kind, seed=1):
    rng, (image, kernel, stride, padding, c, o, batch) = np.random.default_rng(seed), case
    count = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(image, kernel, stride, padding, strict=True)]
    x, dy = rng.standard_normal((batch, *image, c)), rng.standard_normal((batch, *count, o))
    return rounded(x, kind), rounded(rng.standard_normal((o, *kernel, c)), kind), rounded(dy, kind)


def placed(a, kind):
    return backend.asarray(a.astype(TYPES[kind]))


def near(got, exact, terms, kind, parameters=False):
    """Sums in float32 of so many products of size 1, then rounded to the type."""
    last = 2.0**-23 if parameters or kind == "float32" else CUT[kind] * np.abs(exact)
    bound = 4e-7 * terms**0.5 * np.log2(terms + 2) + last
    got = np.asarray(backend.to_host(got)).astype(float)
    assert (np.abs(got - exact) <= bound).all(), (np.abs(got - exact) / bound).max()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_three_ways(case, kind, shim):
    _, kernel, stride, padding, c, o, _ = case
    x, w, dy = arrays(case, kind)
    bias = np.linspace(-1, 1, o)
    y, dx, dw = np.empty_like(dy), np.empty_like(x), np.empty_like(w)
    reference.convolve(x, w, bias, y, stride, padding)
    reference.convolve_inputs(dy, w, dx, stride, padding)
    reference.convolve_weights(x, dy, dw, stride, padding)
    backend.precision("tf32")
    cudashim.EXECUTED.clear()
    a, e, weight = placed(x, kind), placed(dy, kind), backend.asarray(w, "float32")
    out, back, got = (backend.empty(v.shape, v.dtype) for v in (e, a, weight))
    assert tensor.takes(a, c, o)
    convolutions.convolve(a, weight, backend.asarray(bias, "float32"), out, stride, padding)
    near(out, y, prod(kernel) * c, kind)
    convolutions.convolve_inputs(e, weight, back, stride, padding)
    near(back, dx, prod(kernel) * o, kind)
    convolutions.convolve_weights(a, e, got, stride, padding)
    near(got, dw, prod(dy.shape[:3]), kind, parameters=True)
    ran = {name for name, _ in cudashim.EXECUTED}
    assert "convolve_64" in ran and ran & {"weights_64", "weights_128"}
    backend.precision("float32")


@pytest.mark.parametrize("kind", TYPES)
def test_wide_blocks_and_parts_of_a_sum(kind, shim, monkeypatch):
    """Blocks of 128 x 128 and of 256 x 64, and a dW in parts."""
    monkeypatch.setattr(tensor, "LEAST", 32)
    cases = [((16, 17), (1, 2), (1, 1), (0, 0), 64, 128, 1), ((12, 12), (1, 1), (1, 1), (0, 0), 64, 128, 1)]
    for wave, case in zip((2, 4, 2), (*cases, ((17, 17), (1, 2), (1, 1), (0, 0), 64, 64, 1)), strict=True):
        monkeypatch.setattr(tensor, "WAVE", wave)
        wide(case, kind, monkeypatch)
    ran = {name for name, _ in cudashim.EXECUTED}
    assert {"convolve_wide", "convolve_128", "convolve_256", "weights_128", "weights_64", "sum_parts"} <= ran


def wide(case, kind, monkeypatch):
    _, kernel, stride, padding, c, o, _ = case
    x, w, dy = arrays(case, kind)
    y, dw = np.empty_like(dy), np.empty_like(w)
    reference.convolve(x, w, None, y, stride, padding)
    reference.convolve_weights(x, dy, dw, stride, padding)
    backend.precision("tf32")
    a, e, weight = placed(x, kind), placed(dy, kind), backend.asarray(w, "float32")
    out, got = backend.empty(e.shape, e.dtype), backend.empty(weight.shape, "float32")
    convolutions.convolve(a, weight, None, out, stride, padding)
    near(out, y, prod(kernel) * c, kind)
    monkeypatch.setattr(tensor, "WAVE", 12)
    convolutions.convolve_weights(a, e, got, stride, padding)
    near(got, dw, prod(dy.shape[:3]), kind, parameters=True)
    backend.precision("float32")


def test_numbers_of_two_bytes(shim):
    """All halves read and written by CUDA code, and floats between them, rounded as NumPy and ml_dtypes round."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    for kind in ("float16", "bfloat16"):
        exact = bits.view(TYPES[kind])
        wide = exact.astype("float32")
        wide = wide[np.isfinite(wide)]
        steps = np.diff(np.sort(wide))
        floats = np.concatenate([wide, np.sort(wide)[:-1] + steps / 2, wide * np.float32(1.0003)]).astype("float32")
        floats = np.concatenate([floats, np.float32([np.inf, -np.inf, np.nan, 1e-45, 65519.9, 65520, 3.4e38])])
        x = backend.asarray(floats)
        got = backend.to_host(tensor.arranged(backend.empty((1,), TYPES[kind]), x))
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(got.astype("float32"), floats.astype(TYPES[kind]).astype("float32"))
        y = backend.asarray(exact.copy())
        gpu.pixels.relu(y, y)
        with np.errstate(invalid="ignore"):
            expected = np.maximum(exact.astype("float32"), 0)
        np.testing.assert_array_equal(backend.to_host(y).astype("float32"), expected)
