"""Every formula's CUDA source, run on the CPU in both its forms, against the formula itself taken number by number.

The two forms are the ElementwiseKernel that CuPy gets and the whole kernel of `cuda_source`. The other side is the
decorated Python function, called with Python numbers: no NumPy, no numba, no translation.
"""

import gc
import math
import types

from npopt import backend
from npopt.backend import draws, elementwise
from npopt.optimizers.adamw import adamw
from npopt.optimizers.sgd import sgd

import cudashim
import numpy as np
import pytest
from test_backend import splitmix
from test_formulas import COMPILED

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
N, KEY, OFFSET, MASK = 37, 0x123456789ABCDEF1, 11, (1 << 64) - 1
# float64: a few roundings and library functions. float32: the same with scalars rounded once; powers and quotients add.
NEAR = {"float32": 1e-5, "float64": 1e-13}


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    pairs = []
    for formula, arrays in COMPILED:
        for dtype in NEAR:
            pairs.append((formula.cuda_source(arrays, dtype), ()))
            inputs, outputs, operation, prepare = formula.cuda(arrays, dtype)
            kernel = cudashim.ElementwiseKernel(
                inputs, outputs, operation, f"npopt_{formula.name}", prepare, draws.CUDA_DRAWS
            )
            pairs.append((kernel.text(set(arrays)), ()))
    cudashim.build(pairs)


def arguments(formula, arrays, dtype, rng):
    """{name: value}: positive arrays, so that roots and logarithms exist, scalars between 0 and 1, keys."""
    return {
        name: (0.1 + np.abs(rng.standard_normal(N))).astype(dtype)
        if name in arrays
        else KEY
        if name in formula.keys
        else float(rng.uniform(0.1, 0.9))
        for name in formula.arguments
    }


def by_hand(formula, given):
    """{name: (N,) float64} of what the formula returns, from its own Python code."""
    index = [0]

    def bits(k, i):
        return splitmix((k + i * draws.GOLDEN) & MASK)

    def normal(key):
        i = OFFSET + index[0]
        u, v = ((bits(key, 2 * i + j) >> 11) + 0.5 for j in (1, 2))
        return math.sqrt(-2 * math.log(u * 2.0**-53)) * math.cos(2 * math.pi * v * 2.0**-53)

    scope = dict(
        sqrt=math.sqrt,
        exp=math.exp,
        log=math.log,
        tanh=math.tanh,
        abs=abs,
        min=min,
        max=max,
        normal=normal,
        sign=lambda a: (a > 0) - (a < 0),
        uniform=lambda key: ((bits(key, OFFSET + index[0] + 1) >> 41) + 0.5) * 2.0**-23,
    )
    code = types.FunctionType(formula.__wrapped__.__code__, scope)
    found = {name: np.empty(N) for name in formula.written}
    for index[0] in range(N):
        result = code(*[float(a[index[0]]) if isinstance(a, np.ndarray) else a for a in given.values()])
        for name, value in zip(formula.written, result if isinstance(result, tuple) else (result,), strict=True):
            found[name][index[0]] = value
    return found


def compare(formula, given, moved, dtype):
    """Written arrays hold what the formula says, the others what they held."""
    expected = by_hand(formula, given)
    for name, a in moved.items():
        if isinstance(a, cudashim.Array) and a.ndim:
            want = expected.get(name, given[name])
            near = NEAR[dtype] * max(1, np.abs(want).max()) if name in expected else 0
            np.testing.assert_allclose(backend.to_host(a), want, rtol=NEAR[dtype], atol=near, err_msg=name)


def moved_to_device(given):
    return {k: backend.asarray(a.copy()) if isinstance(a, np.ndarray) else a for k, a in given.items()}


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("formula, arrays", COMPILED, ids=lambda v: getattr(v, "name", None) or "-".join(v))
def test_formula(formula, arrays, dtype, rng, shim):
    given = arguments(formula, arrays, dtype, rng)
    moved = moved_to_device(given)
    cudashim.EXECUTED.clear()
    formula(*moved.values(), offset=OFFSET)
    compare(formula, given, moved, dtype)
    moved = moved_to_device(given)
    inputs = [np.uint64(moved[k]) if k in formula.keys else moved[k] for k in moved if k not in formula.written]
    kernel = cudashim.RawModule(code=formula.cuda_source(arrays, dtype)).get_function(formula.name)
    kernel((2,), (13,), (*inputs, OFFSET, *[moved[k] for k in formula.written], N))
    compare(formula, given, moved, dtype)
    assert {name for name, _ in cudashim.EXECUTED} == {formula.name, f"npopt_{formula.name}"}


@pytest.mark.parametrize("dtype", NEAR)
def test_scalars_may_be_0d_arrays_of_the_device(dtype, rng, shim):
    for formula, arrays in ((adamw, ("x", "m", "v", "g")), (sgd, ("x", "g"))):
        given = arguments(formula, arrays, dtype, rng)
        moved = moved_to_device(given)
        for kind in ("float32", "float64"):
            moved["lr"] = backend.asarray(np.asarray(0.25, kind))
            given["lr"] = 0.25
            fresh = {**moved_to_device(given), "lr": moved["lr"]}
            formula(*fresh.values())
            compare(formula, given, fresh, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_are_those_of_the_cpu(dtype, shim):
    """Uniform numbers to the bit; normal ones to the rounding of log and cos, in float64, before they are rounded."""
    moved = [backend.empty((501,), dtype) for _ in range(2)]
    backend.normals(KEY, moved[0], offset=5)
    rows = backend.asarray(np.array([7, 0, 1 << 40]))
    u, v = backend.empty((3, 5), dtype), backend.empty((3, 5), dtype)
    cudashim.EXECUTED.clear()
    backend.row_uniform(KEY, rows, u)
    assert ("row_uniforms", ()) in cudashim.EXECUTED
    backend.row_uniform(KEY, None, v)
    backend.use("cpu")
    host = backend.normals(KEY, np.empty(501, dtype), offset=5)
    np.testing.assert_allclose(backend.to_host(moved[0]), host, rtol=1e-15 if dtype == "float64" else 6e-8, atol=1e-16)
    for found, which in ((u, np.array([7, 0, 1 << 40])), (v, None)):
        np.testing.assert_array_equal(backend.to_host(found), backend.row_uniform(KEY, which, np.empty((3, 5), dtype)))


def test_norm_is_taken_in_float64(rng, shim):
    x = (1e30 * rng.standard_normal(100)).astype("float32")  # squares overflow in float32
    found = backend.norm(backend.asarray(x))
    assert isinstance(found, cudashim.Array) and found.ndim == 0
    assert backend.to_host(found) == pytest.approx(np.linalg.norm(x.astype("f8")), rel=1e-14)


def test_min_max_and_sign_let_nan_through(shim):
    @elementwise
    def three(a, b, c, x):
        a = max(x, 0.5)
        b = min(0.5, x)
        c = sign(x)  # noqa: F821
        return a, b, c

    out = [backend.zeros((3,), "float64") for _ in range(3)]
    three(*out, backend.asarray(np.array([np.nan, -2.0, 0.0])))
    found = [backend.to_host(a) for a in out]
    np.testing.assert_array_equal(found, [[np.nan, 0.5, 0.5], [np.nan, -2, 0], [np.nan, -1, 0]])


def test_kernels_with_cuda_source_of_their_own_are_in_the_list():
    """backend.kernel pairs: they run in test_draws_are_those_of_the_cpu, test_cuda_sparse.py and (rows_...) in
    test_cuda_stretches.py."""
    found = {k.name for k in gc.get_objects() if type(k) is backend.kernel}
    assert {"row_uniforms", "sparse_rows_times", "sparse_spread"} <= found
    assert {name for name in found if not name.startswith("rows_")} == {
        "row_uniforms",
        "sparse_rows_times",
        "sparse_spread",
    }
