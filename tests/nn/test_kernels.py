"""Fast kernels against the reference path, in float32 and float64."""

import itertools
import os
import pathlib
import subprocess
import sys

from nn import kernels
from nn.kernels import cpu, matrices, norms, pooling, reference

import numpy as np
import pytest
import scipy.special

WINDOWS = [
    ((6, 7), (3, 3), (1, 1), (1, 1)),
    ((7, 6), (3, 2), (2, 1), (0, 1)),
    ((5, 5), (1, 1), (2, 2), (0, 0)),
    ((4, 3), (5, 5), (1, 1), (2, 2)),
    ((2, 3), (5, 4), (2, 3), (4, 3)),
    ((6, 6), (2, 2), (3, 3), (0, 0)),
    ((7, 5), (2, 2), (2, 2), (0, 0)),
]
TOLERANCE = {"float32": 3e-6, "float64": 1e-12}  # sums of up to 500 terms in another order


def outputs(size, kernel, stride, padding):
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


@pytest.mark.parametrize("channels", [1, 3, 20])
@pytest.mark.parametrize("size, kernel, stride, padding", WINDOWS)
def test_gather_windows_and_its_adjoint(size, kernel, stride, padding, channels, rng):
    x = rng.standard_normal((3, *size, channels))
    shape = (3, *outputs(size, kernel, stride, padding), *kernel, channels)
    gathered, dx = np.full(shape, np.nan), np.full_like(x, np.nan)
    reference.gather_windows(x, gathered, stride, padding)
    for b, h, w, i, j, c in np.ndindex(shape):
        r, s = stride[0] * h + i - padding[0], stride[1] * w + j - padding[1]
        assert gathered[b, h, w, i, j, c] == (x[b, r, s, c] if 0 <= r < size[0] and 0 <= s < size[1] else 0)
    columns = rng.standard_normal(shape)
    reference.sum_windows(columns, dx, stride, padding)
    assert np.vdot(gathered, columns) == pytest.approx(np.vdot(x, dx), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "size, kernel, stride, padding", [w for w in WINDOWS if all(2 * p <= k for p, k in zip(w[3], w[1], strict=True))]
)
def test_max_pool(size, kernel, stride, padding, dtype, rng):
    x = rng.integers(0, 4, (3, *size, 21)).astype(dtype)  # many ties
    shape, found = (3, *outputs(size, kernel, stride, padding), 21), []
    dy = rng.standard_normal(shape).astype(dtype)
    for module in (pooling, reference):
        y, index, dx = np.empty(shape, dtype), np.empty(shape, "uint8"), np.empty_like(x)
        module.max_pool(x, y, index, kernel, stride, padding)
        module.max_pool_backward(dy, index, dx, kernel, stride, padding)
        along, ry = rng.standard_normal(x.shape).astype(dtype), np.full(shape, np.nan, dtype)
        module.max_pool_tangent(along, index, ry, kernel, stride, padding)
        for place in np.ndindex(shape):
            b, i, j, c = place
            a, e = divmod(int(index[place]), kernel[1])
            assert ry[place] == along[b, i * stride[0] - padding[0] + a, j * stride[1] - padding[1] + e, c]
        assert np.vdot(ry, dy.astype(float)) == pytest.approx(np.vdot(along, dx.astype(float)), rel=1e-4, abs=1e-4)
        found.append((y, index, dx))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=0, atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n, d", [(1, 3), (5, 1), (37, 6), (500, 70), (1408, 16), (2 * 4099, 3)])  # rows as one: 4, 2
def test_batch_norm_passes(n, d, dtype, rng):
    x, dy = (2 + rng.standard_normal((n, d))).astype(dtype), rng.standard_normal((n, d)).astype(dtype)
    skip, vectors = rng.standard_normal((n, d)).astype(dtype), [rng.standard_normal(d).astype(dtype) for _ in range(4)]
    for add, rectify in itertools.product((False, True), repeat=2):
        found = []
        for module in (norms, reference):
            mean, variance, da, db = (np.empty(d, dtype) for _ in range(4))
            y, ds, dx = np.empty_like(x), dy.copy(), np.empty_like(x)
            module.moments(x, mean, variance)
            module.normalise(x, *vectors[:3], skip if add else None, rectify, y)
            module.normalise_sums(x, vectors[0], vectors[1], ds, y if rectify else None, da, db)
            module.normalise_backward(x, vectors[0], vectors[1], ds, vectors[2], vectors[3], dx)
            same = ds.copy()
            module.normalise_backward(x, vectors[0], vectors[1], same, vectors[2], vectors[3], same)
            np.testing.assert_array_equal(same, dx)
            found.append((mean, variance, y, da / n, db / n, dx, ds))
        for fast, slow in zip(*found, strict=True):
            np.testing.assert_allclose(fast, slow, rtol=0, atol=10 * TOLERANCE[dtype])
        plain = (x.astype("f8") - vectors[0]) * vectors[1] + vectors[2] + add * skip
        np.testing.assert_allclose(found[0][2], np.maximum(plain, 0) if rectify else plain, atol=20 * TOLERANCE[dtype])
        np.testing.assert_array_equal(found[0][6], dy * (found[0][2] > 0) if rectify else dy)
    np.testing.assert_allclose(found[0][0], x.astype("f8").mean(0), rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(found[0][1], x.astype("f8").var(0), rtol=10 * TOLERANCE[dtype], atol=1e-12)


@pytest.mark.parametrize("data", ["uint8", "float32"])
def test_gathered_images_equal_the_reference_and_a_loop(data, rng):
    images = rng.integers(0, 256, (9, 5, 6, 3)).astype(data)
    rows = np.array([8, 0, 3, 3])
    moves = np.array([[0, 0, 0], [2, -3, 0], [-1, 2, 1], [5, 0, 1]])
    scale, shift = rng.random(3).astype("f4"), rng.standard_normal(3).astype("f4")
    for r, m in ((rows, moves), (rows, None), (None, None)):
        shape = (9 if r is None else 4, 5, 6, 3)
        fast, slow, loop = np.empty(shape, "f4"), np.empty(shape, "f4"), np.empty(shape, "f4")
        cpu.gather_images(images, r, m, scale, shift, fast)
        reference.gather_images(images, r, m, scale, shift, slow)
        for b in range(shape[0]):
            source = images[b if r is None else r[b]]
            down, right, flip = (0, 0, 0) if m is None else m[b]
            for h in range(5):
                for w in range(6):
                    i, j = h + down, (5 - w if flip else w) + right
                    pixel = source[i, j] if 0 <= i < 5 and 0 <= j < 6 else 0
                    loop[b, h, w] = scale * pixel + shift
        np.testing.assert_allclose(fast, loop, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(slow, loop, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("module", [matrices, reference])
def test_sums_by_word(module, rng):
    words, dy, dw = rng.integers(0, 9, 40), rng.standard_normal((40, 3)), np.full((11, 3), np.nan)
    module.sum_by_word(dy, words, dw)
    expected = np.zeros((11, 3))
    np.add.at(expected, words, dy)
    np.testing.assert_allclose(dw, expected, rtol=1e-12, atol=1e-14)


def test_relu_backward_is_zero_at_and_below_the_kink(rng):
    y, dy = np.array([0.0, 2.0, 0.0, 1e-30]), np.array([1.0, 2.0, np.nan, 4.0])
    fast, slow = np.empty(4), np.empty(4)
    cpu.relu_backward(y, dy, fast)
    np.testing.assert_array_equal(fast, [0, 2, 0, 4])
    dy[2] = 3.0
    reference.relu_backward(y, dy, slow)
    np.testing.assert_array_equal(slow, [0, 2, 0, 4])


def test_reference_erf_has_all_digits():
    x = np.concatenate([np.linspace(-7, 7, 4001), [1e-12, -1e-300, 40.0, -np.inf, np.inf]])
    y = x.copy()
    reference.erf(y)
    np.testing.assert_allclose(y, scipy.special.erf(x), rtol=2e-14, atol=0)


def test_results_do_not_depend_on_the_number_of_threads(rng):
    from npopt import backend

    x, found = rng.standard_normal((3000, 17)).astype("f4"), []
    for n in (1, 2):
        backend.threads(n)
        mean, variance = np.empty(17, "f4"), np.empty(17, "f4")
        norms.moments(x, mean, variance)
        found.append((mean, variance))
    np.testing.assert_array_equal(found[0], found[1])


def test_use_chooses_the_path(rng):
    x, out, calls = np.zeros(5), np.empty(5), []
    before = kernels.relu.fast["cpu"]
    kernels.relu.fast["cpu"] = lambda *a: calls.append("fast")
    try:
        kernels.relu(x, out)
        kernels.use("reference")
        assert kernels.chosen() == "reference"
        kernels.relu(x, out)
    finally:
        kernels.use("fast")
        kernels.relu.fast["cpu"] = before
    assert calls == ["fast"]
    with pytest.raises(ValueError, match="one of 'fast', 'accurate', 'reference'"):
        kernels.use("slow")


@pytest.mark.parametrize("chosen", ["fast", "reference"])
def test_max_pool_keeps_nan(chosen):
    from nn import MaxPool2d, Run

    x = np.array([[np.nan, 1.0, 3.0, 2.0], [2.0, 0.0, np.nan, 1.0], [np.nan] * 4, [np.nan] * 4]).reshape(1, 4, 4, 1)
    kernels.use(chosen)
    try:
        assert np.isnan(MaxPool2d(2).forward(x, Run())[0]).all()
    finally:
        kernels.use("fast")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch, classes", [(3, 7), (4000, 7), (5, 64), (300, 71)])  # one thread and more, vectors
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_softmax(batch, classes, weighted, smoothing, dtype, rng):
    z, t = 3 * rng.standard_normal((batch, classes)).astype(dtype), rng.integers(0, classes, batch)
    weights, found = rng.random(batch).astype(dtype) if weighted else None, []
    for module in (cpu, reference):
        p, rows = np.empty_like(z), np.empty(batch, dtype)
        module.softmax(z, t, smoothing, weights, p, rows)
        found.append((rows, p * batch))
    for fast, slow in zip(*found, strict=True):
        np.testing.assert_allclose(fast, slow, rtol=0, atol=10 * TOLERANCE[dtype])
    wide = z.astype("f8")
    logp = wide - scipy.special.logsumexp(wide, axis=1, keepdims=True)
    q = np.full((batch, classes), smoothing / classes)
    q[np.arange(batch), t] += 1 - smoothing
    np.testing.assert_allclose(found[0][0], -(q * logp).sum(1), atol=10 * TOLERANCE[dtype])
    w = 1 if weights is None else weights[:, None]
    np.testing.assert_allclose(found[0][1], w * (np.exp(logp) - q), atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("chosen", [cpu, reference])
def test_a_nan_in_the_outputs_is_one_in_the_loss(chosen):
    for classes, dtype in ((3, "f8"), (70, "f8"), (70, "f4")):
        for places in ([1, 0], [classes - 1, 2]):
            z, rows = np.zeros((2, classes), dtype), np.empty(2, dtype)
            z[[0, 1], places] = np.nan
            chosen.softmax(z, np.array([0, 1]), 0.0, None, np.empty_like(z), rows)
            assert np.isnan(rows).all()


def test_arrays_that_compiled_loops_cannot_take_go_the_plain_way(rng):
    w = rng.standard_normal((20, 3, 3, 20)).astype("f4")
    bias = np.zeros(20, "f4")
    plain = np.ascontiguousarray(rng.standard_normal((2, 8, 8, 20)).astype("f4"))
    turned = np.ascontiguousarray(plain.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    still = plain.copy()
    still.flags.writeable = False
    expected = np.empty((2, 8, 8, 20), "f4")
    kernels.convolve(plain, w, bias, expected, (1, 1), (1, 1))
    for x in (turned, still, plain.astype("f8"), plain[:, ::-1][:, ::-1]):
        y = np.empty((2, 8, 8, 20), x.dtype)
        kernels.convolve(x, w, bias, y, (1, 1), (1, 1))
        np.testing.assert_allclose(y, expected, atol=2e-4)
        dw, other = np.empty_like(w), np.empty_like(w)
        kernels.convolve_weights(x, expected, dw, (1, 1), (1, 1))
        kernels.convolve_weights(plain, expected, other, (1, 1), (1, 1))
        np.testing.assert_allclose(dw, other, atol=1e-4 * np.abs(other).max())
    wide = rng.standard_normal((6, 80)).astype("f4")
    dw = np.empty((3, 40), "f4")
    kernels.linear_weights(wide[:, :40], np.ones((6, 3), "f4"), dw)
    np.testing.assert_allclose(dw, np.tile(wide[:, :40].sum(0), (3, 1)), rtol=1e-5)
    kernels.linear_weights(wide[:0, :40], np.ones((0, 3), "f4"), dw)
    np.testing.assert_array_equal(dw, 0)
    dx = np.full((2, 1, 19, 2), np.nan)
    kernels.convolve_inputs(np.ones((2, 1, 21, 2)), np.ones((2, 1, 1, 2)), dx[:, :, :19], (3, 1), (1, 1))
    np.testing.assert_array_equal(dx, 0)


@pytest.mark.parametrize("module", [cpu, reference])
def test_softmax_takes_an_impossible_class(module):
    rows, p = np.empty(1), np.empty((1, 3))
    module.softmax(np.array([[1.0, -np.inf, 2.0]]), np.array([0]), 0.0, None, p, rows)
    assert rows[0] == pytest.approx(np.log(1 + np.e))
    z, p = np.full((1, 70), -np.inf, "f4"), np.empty((1, 70), "f4")
    z[0, [3, 69]] = 80.0, 79.0  # and classes far below the others
    z[0, 5] = -20.0
    module.softmax(z, np.array([3]), 0.0, None, p, rows.astype("f4"))
    share = 1 / (1 + np.e)
    np.testing.assert_allclose(p[0, [3, 69]], [-share, share], rtol=1e-6)
    assert p[0, 5] < 1e-37 and not p[0, 6:69].any()


def test_exp_in_float32_is_right_to_the_last_bits():
    from nn.kernels import functions
    from npopt.backend.once import inside

    @inside
    def each(x):
        for j in range(x.size):
            x[j] = functions.exp(x[j])

    x = np.concatenate([np.linspace(-87.2, 0, 100_001), [-0.0, -1e-30, -np.log(2) / 2, -88, -1e4, -np.inf, np.nan]])
    x = x.astype("f4")
    y = x.copy()
    each(y)
    np.testing.assert_allclose(y[:-4], np.exp(x[:-4].astype("f8")), rtol=2.5e-7)  # about four roundings of 2^-24
    np.testing.assert_array_equal(y[-4:], [0, 0, 0, np.nan])


@pytest.mark.parametrize("module", [pooling, reference])
def test_a_window_of_minus_infinity_sends_its_gradient_to_a_pixel_of_its_own(module):
    x = np.full((1, 2, 2, 1), -np.inf)
    y, index, dx = np.empty_like(x), np.empty(x.shape, "uint8"), np.empty_like(x)
    module.max_pool(x, y, index, (3, 3), (1, 1), (1, 1))
    module.max_pool_backward(np.arange(1.0, 5.0).reshape(1, 2, 2, 1), index, dx, (3, 3), (1, 1), (1, 1))
    np.testing.assert_array_equal(dx.ravel(), [10, 0, 0, 0])


BREAKS = {
    "import": "import numba.extending; del numba.extending.intrinsic",
    "compile": "from nn.kernels import simd; simd.Emitter.fma = None",
}


@pytest.mark.slow
@pytest.mark.parametrize("where", BREAKS)
def test_without_its_inner_parts_numba_is_done_without(where, tmp_path):
    """llvmlite or numba changed: one warning, and the same step by plain array code."""
    step = """
import warnings
import numpy as np
BREAK
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("default")
    import nn
    network, run = nn.lenet5(), nn.Run(training=True, backward=True)
    x = network.x0(np.random.default_rng(0))
    g = np.empty_like(x)
    network.bind(x, g)
    for _ in range(2):
        y, saved = network.forward(np.random.default_rng(1).standard_normal((4, 28, 28, 1)).astype("f4"), run)
        network.backward(y, saved, run)
    print(sum("cannot be used here" in str(w.message) for w in seen), float(np.abs(g).sum()))
"""
    found = {}
    for name, text in (("whole", ""), ("broken", BREAKS[where])):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / name)}
        done = subprocess.run(
            [sys.executable, "-c", step.replace("BREAK", text)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=pathlib.Path(kernels.__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        found[name] = [float(word) for word in done.stdout.split()]
    assert found["whole"][0] == 0 and found["broken"][0] == 1
    assert found["broken"][1] == pytest.approx(found["whole"][1], rel=1e-4)


def test_compiled_loops_fall_when_any_file_of_the_folder_changes():
    from nn.kernels import products, winograd
    from npopt.backend import once

    functions = winograd.correlate, products.multiply.dispatcher
    keys = [function._cache._index_key("signature", _Codegen()) for function in functions]
    folder = pathlib.Path(kernels.__file__).parent
    assert all(once.digest(folder) in key for key in keys)


class _Codegen:
    def magic_tuple(self):
        return ("magic",)
