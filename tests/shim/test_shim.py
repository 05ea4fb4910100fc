"""The stand-in sees what a card would not tell: races, reads and writes outside, barriers that not all reach."""

import itertools

from npopt import backend

import cudashim
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)

SOURCE = """
extern "C" __global__ void reverse(const float* x, float* y, long long safe) {
    __shared__ float s[64];
    s[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    if (safe) __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void twice(float* y) {
    __shared__ float s[64];
    s[threadIdx.x / 2] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x / 2];
}
extern "C" __global__ void again(float* y) {
    __shared__ float s[64];
    s[threadIdx.x] = 0.0f;
    __syncthreads();
    const float v = s[(threadIdx.x + 1) % 64];
    s[threadIdx.x] = v + 1;
    __syncthreads();
    y[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void unwritten(float* y) {
    __shared__ float s[64];
    if (threadIdx.x > 0) s[threadIdx.x] = 1.0f;
    y[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void split(float* y) {
    if (threadIdx.x % 2) __syncthreads();
    y[threadIdx.x] = 1.0f;
}
extern "C" __global__ void half_a_warp(float* y) {
    float v = threadIdx.x;
    if (threadIdx.x < 16) v += __shfl_xor_sync(0xffffffffu, v, 1);
    y[threadIdx.x] = v;
}
extern "C" __global__ void trapped(float* y) {
    if (threadIdx.x == 3) __trap();
    y[threadIdx.x] = 1.0f;
}
extern "C" __global__ void sum_of_a_warp(float* y) {
    float v = threadIdx.x;
    for (int far = 16; far > 0; far /= 2) v += __shfl_xor_sync(0xffffffffu, v, far);
    y[threadIdx.x] = v;
}
extern "C" __global__ void down_a_warp(float* y) {
    y[threadIdx.x] = __shfl_down_sync(0xffffffffu, (float)threadIdx.x, 3);
}
extern "C" __global__ void shifted(float* y, long long by) { y[(long long)threadIdx.x + by] = 1.0f; }
extern "C" __global__ void read_shifted(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
extern "C" __global__ void types(float* y, int a, double b, unsigned char c) { y[0] = a + b + c; }
"""


def run(name, *args, threads=64, blocks=1):
    cudashim.RawModule(code=SOURCE).get_function(name)((blocks,), (threads,), args)
    return backend.to_host(next(a for a in reversed(args) if isinstance(a, cudashim.Array)))


def test_barriers_order_what_threads_share(shim):
    x, y = backend.asarray(np.arange(128, dtype="f4")), backend.empty((128,), "f4")
    found = run("reverse", x, y, 1, blocks=2)
    np.testing.assert_array_equal(found, np.arange(128).reshape(2, 64)[:, ::-1].ravel())


@pytest.mark.parametrize(
    "name, args, message",
    [
        ("reverse", (0,), "read before it is written"),
        ("twice", (), "two writes"),
        ("again", (), "another read"),
        ("unwritten", (), "read before it is written"),
        ("split", (), "a barrier that not all reach"),
        ("half_a_warp", (), "a barrier that not all reach"),
        ("trapped", (), "a trap"),
    ],
)
def test_races_and_lost_barriers_are_errors(name, args, message, shim):
    x = (backend.asarray(np.zeros(64, "f4")),) if name == "reverse" else ()
    with pytest.raises(RuntimeError, match=message):
        run(name, *x, backend.empty((64,), "f4"), *args)
    assert run("sum_of_a_warp", backend.empty((64,), "f4"))[40] == sum(range(32, 64))  # and it goes on


def test_a_shuffle_down_leaves_the_last_lanes_as_they_are(shim):
    found = run("down_a_warp", backend.empty((64,), "f4"))
    np.testing.assert_array_equal(found, [i + 3 if i % 32 < 29 else i for i in range(64)])


@pytest.mark.parametrize("by", [-1, 1, 40])
def test_a_write_outside_is_seen_and_a_read_outside_gives_nan(by, shim):
    with pytest.raises(RuntimeError, match="wrote outside"):
        run("shifted", backend.empty((64,), "f4"), by)
    x, y = backend.asarray(np.ones(64, "f4")), backend.empty((64,), "f4")
    assert np.isnan(run("read_shifted", x, y)).sum() == 1


def test_arguments_must_have_the_kernels_types(shim):
    y = backend.empty((1,), "f4")
    assert run("types", y, np.int32(1), 0.5, np.uint8(2), threads=1) == 3.5
    for wrong in ((1, 0.5, np.uint8(2)), (np.int32(1), 1, np.uint8(2)), (np.int32(1), np.float32(1), np.uint8(2))):
        with pytest.raises(TypeError, match="has parameters"):
            run("types", y, *wrong, threads=1)
    with pytest.raises(TypeError, match="move it to the device"):
        run("sum_of_a_warp", np.zeros(64, "f4"), y)
    with pytest.raises(ValueError, match="a launch of"):
        run("sum_of_a_warp", y, threads=2048)


def test_views_know_their_memory(shim):
    a = backend.zeros((6, 4), "f4")
    assert a.base is None and a[2:].T.base is a and a[1:].data.ptr == a.data.ptr + 16
    assert backend.owner(a + 1).name == backend.owner(a.sum(axis=0)).name == "shim"


def test_products_count_by_columns_as_cublas_does(rng, shim):
    for dtype, near in (("float32", 1e-5), ("float64", 1e-13)):
        for turn_a, turn_b in itertools.product((False, True), repeat=2):
            a, b = rng.standard_normal((3, 4, 7)).astype(dtype), rng.standard_normal((3, 7, 5)).astype(dtype)
            turned = [v.swapaxes(1, 2).copy() if turn else v for v, turn in ((a, turn_a), (b, turn_b))]
            moved, out = [backend.asarray(v) for v in turned], backend.empty((3, 4, 5), dtype)
            backend.owner(out).products(*moved, out, turn_a, turn_b)
            np.testing.assert_allclose(backend.to_host(out), a @ b, atol=near)


def test_rows_of_factors_and_of_a_product_may_lie_apart_and_products_be_added(rng, shim):
    """Those of one time of sequences, (B, T, n); a batch of one has no second row."""
    for batch in (1, 3):
        a, b, out = (rng.standard_normal(shape) for shape in ((batch, 4, 7), (5, 7), (batch, 4, 5)))
        moved, factor, sums = (backend.asarray(v) for v in (a, b, out))
        backend.owner(sums).products(moved[:, 2][None], factor[None], sums[:, 1][None], turn_b=True, add=True)
        out[:, 1] += a[:, 2] @ b.T
        np.testing.assert_allclose(backend.to_host(sums), out, rtol=1e-13)


def test_precision_chooses_how_products_are_taken(shim):
    a, out = backend.zeros((2, 4, 4), "f4"), backend.empty((2, 4, 4), "f4")
    for name, compute in (("tf32", 77), ("float32", 68)):
        backend.precision(name)
        backend.owner(out).products(a, a, out)
        assert cudashim.Cublas.computed[-1] == compute
    with pytest.raises(ValueError, match="'float32' or 'tf32'"):
        backend.precision("float16")
    backend.use("cpu")
    backend.precision("float32")
    with pytest.raises(ValueError, match="choose a GPU"):
        backend.precision("tf32")
