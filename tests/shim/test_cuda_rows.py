"""Norms along rows and rotations: their CUDA kernels, run on the CPU, against array code in float64."""

from nn import kernels
from nn.kernels import reference_rows
from nn.kernels.gpu import row_norms
from npopt import backend
from npopt.backend import cuda

import cudashim
import ml_dtypes
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
TYPES = {"float32": "f4", "float64": "f8", "float16": "f2", "bfloat16": ml_dtypes.bfloat16}
CUT = {"float32": 2.0**-24, "float64": 2.0**-53, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # rounding of a result
WANTED = [("dy", ()), ("dx", ("db",)), ("dy", ("da", "db")), (None, ()), (None, ("da", "db"))]  # dx, and what is not
# one number; a warp's lanes and more; what registers hold and more, of single numbers and of 16 bytes; parts and teams
SIZES = [(1, 1), (9, 3), (3, 40), (2, 301), (70, 8), (12, 500), (2, 1040), (1, 2056)]


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    cudashim.build([(row_norms.program.source(), cuda.options(kind)) for kind in TYPES])


def both(name, arrays, kind, given, near):
    """Run a piece on the stand-in and as the reference in float64. near: {array name: what may be between them}"""
    vectors = "f4" if np.dtype(TYPES[kind]).itemsize == 2 else TYPES[kind]
    held = {k: None if a is None else a.astype(vectors if a.ndim == 1 else TYPES[kind]) for k, a in arrays.items()}
    slow = {k: None if a is None else a.astype(float) for k, a in held.items()}
    fast = {k: None if a is None else backend.asarray(a) for k, a in held.items()}
    getattr(reference_rows, name)(*given(slow))
    cudashim.EXECUTED.clear()
    getattr(kernels, name)(*given(fast))
    for k, a in fast.items():
        if a is not None:
            room = near.get(k, 0) * np.abs(slow[k]).max()
            got = np.asarray(backend.to_host(a)).astype(float)
            np.testing.assert_allclose(got, slow[k], rtol=0, atol=room, err_msg=f"{name} {k}")
    return {kernel for kernel, _ in cudashim.EXECUTED}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_forward(name, kind, rng, shim):
    ran, exact = set(), CUT["float64" if kind == "float64" else "float32"]
    for n, d in SIZES:
        arrays = dict(x=0.5 + rng.standard_normal((n, d)), a=rng.standard_normal(d), b=rng.standard_normal(d))
        arrays |= dict(y=np.ones((n, d)), m=np.ones(n), r=np.ones(n))
        order = ("xab", "ymr") if name == "layer_norm" else ("xa", "yr")
        near = dict(y=16 * exact + CUT[kind], m=16 * exact, r=16 * exact)  # a row of one number has r = eps^(-1/2)
        ran |= both(name, arrays, kind, lambda a, o=order: [*(a[k] for k in o[0]), 0.1, *(a[k] for k in o[1])], near)
    assert ran == {name, f"{name}_wide"}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["layer_norm_backward", "rms_norm_backward"])
def test_backward(name, kind, rng, shim):
    """dx in an array of its own, in the place of dy, or not wanted; da and db both, one of them, or none."""
    ran, exact = set(), CUT["float64" if kind == "float64" else "float32"]
    order = ("xamr", ("da", "db")) if name == "layer_norm_backward" else ("xar", ("da",))
    for n, d in SIZES:
        v = dict(
            a=rng.standard_normal(d), m=rng.standard_normal(n), r=0.5 + rng.random(n), da=np.ones(d), db=np.ones(d)
        )
        x, dy = rng.standard_normal((2, n, d))
        for dx, left in WANTED if n == 70 else WANTED[:1]:
            arrays = v | dict(x=x, dy=dy, dx=np.ones((n, d))) | dict.fromkeys(left)
            near = {k: 32 * exact for k in ("da", "db")} | {dx: 32 * exact + CUT[kind]}
            given = lambda a, dx=dx: [a.get(k) for k in (*order[0], "dy", dx, *order[1])]  # noqa: E731
            ran |= both(name, arrays, kind, given, near)
    assert ran == {name, f"{name}_wide", "join_sums"}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("adjacent", [False, True])
def test_rotate(adjacent, kind, rng, shim):
    """Heads whose last numbers stay, and lines of more than one block of threads."""
    for shape, half in (((2, 3, 2, 5), 2), ((1, 2, 3, 8), 4), ((1, 2, 70, 8), 4)):
        arrays = dict(x=rng.standard_normal(shape), cos=rng.random((shape[1], half)), sin=rng.random((shape[1], half)))
        ran = both("rotate", arrays, kind, lambda a: (a["x"], a["cos"], a["sin"], adjacent), dict(x=2 * CUT[kind]))
        assert ran == {"rotate"}


def test_sums_have_the_same_bits_again_and_do_not_lose_a_mean_far_from_zero(rng, shim):
    x, ones = (1e4 + rng.integers(0, 8, (70, 96))).astype("f4"), np.ones(96, "f4")
    y, m, r = np.empty((70, 96), "f4"), np.empty(70, "f4"), np.empty(70, "f4")
    reference_rows.layer_norm(x.astype(float), ones, 0 * ones, 1e-5, y, m, r)
    found = []
    for _ in range(2):
        a, b, h = (backend.asarray(v) for v in (ones, 0 * ones, x))
        out = backend.empty(x.shape, "float32"), backend.empty((70,), "float32"), backend.empty((70,), "float32")
        kernels.layer_norm(h, a, b, 1e-5, *out)
        grads = backend.asarray(y), backend.empty((96,), "float32"), backend.empty((96,), "float32")
        kernels.layer_norm_backward(h, a, *out[1:], grads[0], grads[0], *grads[1:])
        found.append([backend.to_host(v) for v in (*out, *grads)])
    np.testing.assert_allclose(found[0][0], y, rtol=0, atol=1e-3)  # the mean has an error of 1e4 2^-24
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_goes_as_array_code(rng, shim):
    """Rows longer than a block of threads holds, and addresses that 16 bytes do not divide as single numbers."""
    n = row_norms.LONGEST + 1
    arrays = dict(x=rng.standard_normal((2, n)), a=rng.random(n), m=np.zeros(2), r=np.ones(2))
    arrays |= dict(dy=rng.standard_normal((2, n)), da=np.ones(n), db=np.ones(n))
    names = "x a m r dy dy da db".split()
    ran = both("layer_norm_backward", arrays, "float64", lambda a: [a[k] for k in names], dict.fromkeys(names, 1e-14))
    assert ran <= {"sum_rows", "join_sums"}
    flat = backend.asarray(rng.standard_normal(2 * 8 + 1).astype("f4"))
    x, a, y, r = flat[1:].reshape(2, 8), *(backend.asarray(np.ones(s, "f4")) for s in (8, (2, 8), 2))
    cudashim.EXECUTED.clear()
    kernels.rms_norm(x, a, 0.1, y, r)
    assert {kernel for kernel, _ in cudashim.EXECUTED} == {"rms_norm"}


def test_every_kernel_has_a_test():
    names = {
        f"{kind}_norm{part}{how}" for kind in ("layer", "rms") for part in ("", "_backward") for how in ("", "_wide")
    }
    assert set(cudashim.names(row_norms.program.source())) == names | {"rotate"}
