"""The fast convolutions and products against the reference path, their maps against the definition of a convolution."""

from nn.kernels import blocks, cpu, direct, matrices, reference, simd, winograd
from nn.kernels import winograd_maps as maps
from nn.kernels.products import lanes, transpose
from npopt import backend

import numba
import numpy as np
import pytest

# One output or input of size 1 takes sums of up to 600 terms of size 1; F(4, 3) loses some digits more than the others.
NEAR = {"float32": 1e-4, "float64": 1e-10}
FORMS = {
    2: (
        maps.inputs2,
        maps.weights2,
        maps.outputs2,
        maps.outputs2_adjoint,
        maps.weights2_adjoint,
    ),
    4: (
        maps.inputs4,
        maps.weights4,
        maps.outputs4,
        maps.outputs4_adjoint,
        maps.weights4_adjoint,
    ),
}
SHAPES = [  # batch, height, width, inputs, outputs, padding
    (2, 8, 8, 16, 32, 1),
    (3, 7, 5, 5, 9, 1),
    (1, 4, 4, 40, 33, 1),
    (2, 6, 9, 3, 70, 0),
    (1, 1, 1, 4, 4, 1),
    (2, 5, 6, 17, 8, 2),
    (65, 2, 2, 3, 5, 1),
    (40, 9, 9, 8, 64, 1),
]
KERNELS = [  # kernel, stride, padding, batch, height, width, inputs, outputs
    ((3, 3), (2, 2), (1, 1), 2, 8, 8, 16, 32),
    ((5, 3), (2, 1), (1, 2), 3, 7, 5, 5, 9),
    ((1, 1), (2, 2), (0, 0), 130, 4, 4, 6, 33),
    ((1, 1), (1, 1), (0, 0), 2, 3, 3, 70, 20),
    ((5, 5), (1, 1), (2, 2), 3, 28, 28, 1, 6),
    ((5, 5), (1, 1), (0, 0), 20, 14, 14, 6, 16),
    ((3, 3), (1, 1), (1, 1), 1, 1, 1, 4, 4),
    ((2, 2), (3, 3), (0, 0), 2, 9, 9, 8, 8),
    ((3, 3), (2, 2), (1, 1), 5, 9, 8, 8, 40),
    ((5, 5), (1, 1), (6, 6), 2, 3, 4, 2, 3),
    ((4, 2), (3, 2), (3, 0), 4, 10, 16, 1, 5),
    ((3, 3), (1, 1), (1, 1), 33, 16, 16, 3, 64),
    ((1, 3), (1, 1), (0, 1), 2, 6, 12, 4, 4),
    ((3, 3), (2, 2), (1, 1), 2, 8, 8, 130, 150),
]


def arrays(dtype, rng, batch, height, width, c, o, kernel, stride, padding):
    """x, w, bias, dy with entries of size 1."""
    out = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip((height, width), padding, kernel, stride, strict=True)]
    shapes = (batch, height, width, c), (o, *kernel, c), (o,), (batch, *out, o)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def three(forward, inputs, weights, x, w, bias, dy):
    """(y, dx, dw) of three functions, in arrays that were full of NaN."""
    found = [np.full_like(v, np.nan) for v in (dy, x, w)]
    for _ in range(2):  # the second time in memory that the first has used
        forward(x, w, bias, found[0])
        inputs(dy, w, found[1])
        weights(x, dy, found[2])
    return found


def reference_three(x, w, bias, dy, stride, padding):
    return three(
        lambda x, w, b, y: reference.convolve(x, w, b, y, stride, padding),
        lambda dy, w, dx: reference.convolve_inputs(dy, w, dx, stride, padding),
        lambda x, dy, dw: reference.convolve_weights(x, dy, dw, stride, padding),
        *(v.astype("f8") for v in (x, w, bias, dy)),
    )


def assert_near(found, expected, dtype):
    for fast, slow in zip(found, expected, strict=True):
        assert fast.dtype == dtype
        np.testing.assert_allclose(fast, slow, rtol=0, atol=NEAR[dtype] * np.abs(slow).max())


@pytest.mark.parametrize("m", FORMS)
def test_winograds_maps_are_a_convolution_in_one_dimension(m, rng):
    inputs, weights, outputs, outputs_adjoint, weights_adjoint = FORMS[m]
    d, g, y, u = (list(rng.standard_normal(n)) for n in (m + 2, 3, m, m + 2))
    found = outputs([a * b for a, b in zip(inputs(d), weights(g), strict=True)])
    np.testing.assert_allclose(found, [sum(d[i + k] * g[k] for k in range(3)) for i in range(m)], rtol=0, atol=1e-13)
    assert np.dot(outputs(u), y) == pytest.approx(np.dot(u, outputs_adjoint(y)), rel=1e-13)
    assert np.dot(weights(g), u) == pytest.approx(np.dot(g, weights_adjoint(u)), rel=1e-13)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("m", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_winograd_equals_the_reference(shape, m, dtype, rng):
    *sizes, p = shape
    x, w, bias, dy = arrays(dtype, rng, *sizes, (3, 3), (1, 1), (p, p))
    found = three(
        lambda x, w, b, y: winograd.forward(x, w, b, y, m, (p, p)),
        lambda dy, w, dx: winograd.backward_inputs(dy, w, dx, m, (p, p)),
        lambda x, dy, dw: winograd.backward_weights(x, dy, dw, m, (p, p)),
        x,
        w,
        bias,
        dy,
    )
    assert_near(found, reference_three(x, w, bias, dy, (1, 1), (p, p)), dtype)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("kernel, stride, padding, batch, height, width, c, o", KERNELS)
def test_direct_convolutions_equal_the_reference(kernel, stride, padding, batch, height, width, c, o, dtype, rng):
    x, w, bias, dy = arrays(dtype, rng, batch, height, width, c, o, kernel, stride, padding)
    found = three(
        lambda x, w, b, y: direct.forward(x, w, b, y, stride, padding),
        lambda dy, w, dx: direct.backward_inputs(dy, w, dx, stride, padding),
        lambda x, dy, dw: direct.backward_weights(x, dy, dw, stride, padding),
        x,
        w,
        bias,
        dy,
    )
    assert_near(found, reference_three(x, w, bias, dy, stride, padding), dtype)


def test_what_was_measured_chooses_the_algorithm():
    one, same = (1, 1), (1, 1)
    assert cpu.algorithm((3, 3), one, same, (32, 32), 64, 64) == 4
    assert cpu.algorithm((3, 3), one, same, (2, 2), 512, 512) == 2
    assert cpu.algorithm((3, 3), one, same, (1, 1), 512, 512) == 0
    assert cpu.algorithm((3, 3), one, same, (32, 32), 3, 64) == 0
    assert cpu.algorithm((3, 3), (2, 2), same, (16, 16), 64, 128) == 0
    assert cpu.algorithm((5, 5), one, (2, 2), (28, 28), 64, 64) == 0
    assert cpu.algorithm((3, 3), one, (3, 3), (32, 32), 64, 64) == 0


def test_no_result_depends_on_the_number_of_threads(rng):
    cases = []
    for c, o, stride in ((16, 40, (1, 1)), (16, 8, (2, 2)), (16, 40, (2, 2)), (3, 8, (1, 1))):
        x, w, bias, dy = arrays("float32", rng, 37, 8, 8, c, o, (3, 3), stride, (1, 1))
        cases.append((x, w, bias, dy, stride))
    chosen = {cpu.algorithm((3, 3), s, (1, 1), dy.shape[1:3], x.shape[3], dy.shape[3]) for x, _, _, dy, s in cases}
    assert chosen == {0, 4}
    found = []
    for n in (1, 2):
        backend.threads(n)
        mine = []
        for x, w, bias, dy, s in cases:
            mine += three(
                lambda x, w, b, y, s=s: cpu.convolve(x, w, b, y, s, (1, 1)),
                lambda dy, w, dx, s=s: cpu.convolve_inputs(dy, w, dx, s, (1, 1)),
                lambda x, dy, dw, s=s: cpu.convolve_weights(x, dy, dw, s, (1, 1)),
                x,
                w,
                bias,
                dy,
            )
        a, total = cases[0][0].reshape(-1, 16), np.empty(16, "f4")
        matrices.sum_rows(a, total)
        product = np.empty((16, 16), "f4")
        matrices.linear_weights(a, a, product)
        found.append([*mine, total, product])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("n, inputs, outputs", [(1, 1, 1), (5, 3, 40), (70, 300, 17), (257, 16, 64), (33, 64, 10)])
def test_linear_products(n, inputs, outputs, dtype, rng):
    shapes = (n, inputs), (outputs, inputs), outputs, (n, outputs)
    x, w, bias, dy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    found = []
    for module in (matrices, reference):
        y, dx, dw, db = (np.full_like(v, np.nan) for v in (dy, x, w, bias))
        plain = np.full_like(dy, np.nan)
        module.linear(x, w, bias, y)
        module.linear(x, w, None, plain)
        module.linear_inputs(dy, w, dx)
        module.linear_weights(x, dy, dw)
        module.sum_rows(dy, db)
        found.append((y, plain, dx, dw, db))
    assert_near(*found, dtype)
    np.testing.assert_allclose(found[0][0], x.astype("f8") @ w.T.astype("f8") + bias, atol=NEAR[dtype] * 20)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("n, d", [(3000, 6), (4001, 5), (4096, 1), (200, 300)])
def test_sum_rows_of_many_numbers(n, d, dtype, rng):
    a, out = rng.standard_normal((n, d)).astype(dtype), np.empty(d, dtype)
    assert a.size > matrices.SMALL or n == 4096
    matrices.sum_rows(a, out)
    np.testing.assert_allclose(out, a.astype("f8").sum(0), rtol=1e-6 if dtype == "float32" else 1e-12, atol=1e-5)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (37, 50), (8, 100)])
def test_transpose(shape, dtype, rng):
    a = rng.standard_normal(shape).astype(dtype)
    b = np.full(shape[::-1], np.nan, dtype)
    transpose(a, b, lanes(dtype))
    np.testing.assert_array_equal(b, a.T)


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("vectors, masked", [(1, False), (2, False), (1, True), (2, True)])
@pytest.mark.parametrize("apart", [False, True])
def test_register_blocks_write_what_they_should_and_nothing_else(vectors, masked, apart, dtype, rng):
    block, width = blocks.block_product(vectors, masked, apart), lanes(dtype)

    @numba.njit
    def run(a, b, c, s, places, scale, m, n, times, count):
        product = blocks.Product(1, 5, 2, 2, n, 3, 0, scale, n, times, count)
        block(a, b, c, s, places, 1, m, product)

    for m in (1, simd.ROWS - 1, simd.ROWS):
        n = vectors * width - (3 if masked else 0)
        rows, ends = np.arange(0, 11 * (m + 1), 11)[::-1], np.arange(m + 1) * (n + 2)
        a, b = rng.standard_normal(11 * m + 31).astype(dtype), rng.standard_normal(2 + 6 * n).astype(dtype)
        for scale in (False, True):
            c = rng.standard_normal(4 + (m + 1) * (n + 2)).astype(dtype)
            before, s = c.copy(), c[3:].copy()
            run(a, b, c, s, np.stack([rows, ends]), scale, m, n, 2, 3)
            expected = before.copy()
            for i in range(m):
                left = np.array([a[1 + rows[1 + i] + 5 * r + 2 * k] for r in range(2) for k in range(3)], "f8")
                at = 3 + ends[1 + i]
                start = s[scale * ends[1 + i] :][:n]
                expected[at : at + n] = start + left @ b[2:].reshape(6, n).astype("f8")
            np.testing.assert_allclose(c, expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)
            untouched = np.ones(c.size, bool)
            for i in range(m):
                untouched[3 + ends[1 + i] : 3 + ends[1 + i] + n] = False
            np.testing.assert_array_equal(c[untouched], before[untouched])


@pytest.mark.parametrize(
    "side, inside", [("x", (1, 4, 0, 3)), ("x", (0, 2, 3, 4)), ("y", (0, 3, 1, 4)), ("y", (2, 2, 0, 4))]
)
def test_a_map_at_an_edge_touches_nothing_outside(side, inside, rng):
    """Outside of an image there may be no memory: NaN stand there, and stay."""
    edged = blocks.tile_transform(lambda v: [2 * v[0] + v[1], v[2], v[3] - v[0], 1 * v[1]], 4, 4, edge=side)
    line = np.array([[2.0, 1, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 1], [0, 1, 0, 0]])

    @numba.njit
    def run(x, y, c, inside):
        edged(x, (3, 5 * c, c), y, (7, 6 * c, c), x, c, inside)

    for c in (lanes("f8") + 3, 2):
        i0, i1, j0, j1 = inside
        tile, part = rng.standard_normal((4, 4, c)), np.zeros((4, 4, 1), bool)
        part[i0:i1, j0:j1] = True
        x, y = np.full((5, 5, c), np.nan), np.full(7 + 24 * c + 5, np.nan)
        x[:4, :4] = np.where(part | (side == "y"), tile, np.nan)
        run(np.concatenate([np.full(3, np.nan), x.reshape(-1)]), y, c, inside)
        expected = np.einsum("ik,jl,klc->ijc", line, line, tile * part if side == "x" else tile)
        found = y[7 : 7 + 24 * c].reshape(4, 6, c)[:, :4]
        np.testing.assert_allclose(found, np.where(part | (side == "x"), expected, np.nan), rtol=0, atol=1e-14)
        assert np.isnan(y).sum() == y.size - np.isfinite(found).sum()


def test_long_sums_keep_their_digits(rng):
    """Relative error of products and convolutions in float32, by the number of terms: it hardly grows."""
    found = []
    for c in (64, 1024):
        x, w = rng.random((40, c)).astype("f4"), rng.standard_normal((40, c)).astype("f4")
        y, image = np.empty((40, 40), "f4"), rng.standard_normal((2, 8, 8, c)).astype("f4")
        matrices.linear(x, w, None, y)
        exact = x.astype("f8") @ w.T.astype("f8")
        filters, z, slow = rng.standard_normal((16, 3, 3, c)).astype("f4"), np.empty((2, 8, 8, 16), "f4"), None
        winograd.forward(image, filters, None, z, 4, (1, 1))
        slow = np.empty(z.shape)
        reference.convolve(image.astype("f8"), filters.astype("f8"), None, slow, (1, 1), (1, 1))
        found.append([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in ((y, exact), (z, slow))])
    assert found[1][0] < 4e-7 and found[1][1] < 1.2e-6  # one running sum of 1024 terms: 8e-7 and 2.7e-6
    assert found[1][0] < 2 * found[0][0] and found[1][1] < 1.6 * found[0][1]


@pytest.mark.parametrize("m", [2, 4])
def test_weights_are_mapped_in_float64_and_rounded_once(m, rng):
    w, width = rng.standard_normal((20, 3, 3, 24)).astype("f4"), lanes("float32")
    points = [np.empty((m + 2) ** 2 * 480, dtype) for dtype in ("f4", "f8")]
    for u in points:
        winograd.weights_to_points(w.astype(u.dtype).reshape(-1), u, m, (20, 24), (0, 216, 72, 24), 480, width)
    np.testing.assert_array_equal(points[0], points[1].astype("f4"))


def test_long_sums_over_channels_are_cut_into_short_ones():
    assert [winograd.run_of(c) for c in (7, 32, 64, 512, 48, 40, 37)] == [7, 32, 32, 32, 24, 20, 37]
