"""Formulas over codes as one CUDA kernel, run on the CPU: codes, scales and numbers are numba's, bit for bit."""

from types import SimpleNamespace

from npopt import AdamW, Quantised, backend, elementwise
from npopt.backend import codes_on_gpu
from npopt.backend.codes_on_gpu import OPTIONS
from npopt.codes import Code, Coded, bounds_of
from npopt.optimizers.adamw import adamw
from npopt.segments import Segments

import cudashim
import numpy as np
import pytest
from test_codes import EIGHT, FOUR, MAPS, around, pull, push

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
HALF = (Code(), Code("positive", False, 4))  # one array of 8 bits, one of 4
CASES = [  # formula, dtype, key of drawn codes, codes, numbers, block: ends within a block, a strip, four numbers
    (push, "float32", None, EIGHT, 777, 64),
    (push, "float32", None, EIGHT, 5123, 256),
    (push, "float64", None, FOUR, 4099, 128),
    (push, "float32", None, HALF, 6101, 2048),
    (pull, "float32", 5, EIGHT, 4200, 4096),
    (pull, "float32", 5, FOUR, 61, 8),
    (push, "float32", None, FOUR, 5, 4),
]


@elementwise
def keep(m, a):
    m = a
    return m


@elementwise
def put(codes, take, put, decode):
    codes = take + put * decode
    return codes


SEGMENTS = Segments.of(("a", (70, 61), "matrix", "a"), ("b", (12,), "bias", "a"), ("c", (300, 3), "matrix", "c"))


def text(formula, dtype, key, codes, block, numbers=0):
    """The kernel for flat arrays but for the first `codes`, of which None is flat, too, and so many scalars."""
    x = cudashim.empty(4, dtype)
    given = [x if code is None else Coded.zeros(4, code, block, dtype) for code in codes]
    for a in given:
        a.key = key
    flat = len(formula.arguments) - len(given) - numbers
    given = given + [x] * flat + [1] * numbers if formula is keep else [x, *given, *[x] * (flat - 1), *[1] * numbers]
    named = dict(zip(formula.arguments, given, strict=True))
    return codes_on_gpu.source(formula, *codes_on_gpu.pattern(formula, named, cudashim.Array))


COMPILE = [  # for nvcc: all ways to encode, blocks within a warp and of several
    text(adamw, "float32", None, EIGHT, 256, 7),
    text(adamw, "float32", 5, EIGHT, 2048, 7),
    text(adamw, "float64", None, FOUR, 128, 7),
]


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    """The kernels of the two tests that have many, by one call of the compiler."""
    made = [text(f, dtype, key, codes, block, 3) for f, dtype, key, codes, _, block in CASES]
    made += [text(keep, "float32", key, (code,), 256) for code in MAPS for key in (None, 9)]
    made += [text(keep, "float32", None, (None, code), 256) for code in MAPS]
    cudashim.build([(one, OPTIONS) for one in made])


def written(formula, args, offset=0):
    """The kernels of codes that ran in a call."""
    cudashim.EXECUTED.clear()
    formula(*args, offset=offset)
    return {name.removeprefix("npopt_") for name, options in cudashim.EXECUTED if options == OPTIONS}


def same(ours, theirs):
    for name in ("codes", "scales"):
        np.testing.assert_array_equal(backend.to_host(getattr(ours, name)), getattr(theirs, name), err_msg=name)


@pytest.mark.parametrize("formula, dtype, key, codes, size, block", CASES)
def test_a_formula_is_that_of_the_cpu_to_the_bit(formula, dtype, key, codes, size, block, rng, shim, monkeypatch):
    """A block of zeros, gradients that are not finite, or too large to square, all powers of ten, draws from a place
    within a vector. x lies at an address that 16 bytes do not divide. CUDA blocks take two strips, one after the other.
    Only normal(seed) is another library's."""
    monkeypatch.setattr(codes_on_gpu, "FULL", 1)
    monkeypatch.setattr(codes_on_gpu, "TURNS", 2)
    x = rng.standard_normal(size).astype(dtype)
    here = backend.asarray(np.concatenate([x[:1], x]))[1:]
    backend.use("cpu")
    theirs = [Coded.zeros(size, code, block, dtype) for code in codes]
    backend.use("shim")
    ours = [Coded.zeros(size, code, block, dtype) for code in codes]
    for array in (*ours, *theirs):
        array.key, array.first = key, 3
    for t in range(3):
        g = (rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 1, size)).astype(dtype)
        if t:
            g[size // 2 :: 1000], g[1], g[-1] = np.nan, np.inf, 1e30
        g[block : 2 * block] = 0
        given = 0.1, 0.9, 11
        assert written(formula, (here, *ours, backend.asarray(g), *given), 2) == {formula.name}
        with np.errstate(over="ignore"):
            formula(x, *theirs, g, *given, offset=2)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
        near = {"float32": 1e-6, "float64": 1e-14}[dtype] if formula is pull else 0
        np.testing.assert_allclose(backend.to_host(here), x, rtol=near, atol=near)
    assert np.isfinite(x).all() and (theirs[0].scales > 0).any()


@pytest.mark.parametrize("draw", [False, True])
@pytest.mark.parametrize("code", MAPS, ids=repr)
def test_codes_are_those_of_the_cpu_at_all_bounds_and_their_neighbours(code, draw, rng, shim):
    """Blocks of 256 whose largest number is 1, beside numbers of all sizes with both signs."""
    bounds = around(bounds_of(code.kind, code.signed, code.bits, draw))
    q = np.concatenate([bounds[np.abs(bounds) <= 1], rng.uniform(-1, 1, 3000).astype("f4") ** 9, np.float32([-0.0])])
    q = np.resize(q, (-(-q.size // 255), 255))
    q = np.concatenate([np.ones((len(q), 1), "f4"), q], axis=1).reshape(-1)
    q = q if code.signed else np.abs(q)
    ours = Coded.zeros(q.size, code, 256)
    backend.use("cpu")
    theirs = Coded.zeros(q.size, code, 256)
    ours.key = theirs.key = 9 if draw else None
    keep(theirs, q)
    backend.use("shim")
    assert written(keep, (ours, backend.asarray(q))) == {"keep"}
    same(ours, theirs)
    out = backend.empty((q.size,), "float32")
    assert written(keep, (out, ours)) == {"keep"}  # and what is only read is decoded
    np.testing.assert_array_equal(backend.to_host(out), theirs.read())


def test_a_search_among_bounds_is_that_of_a_sorted_array(rng):
    for n in (16, 256):
        bounds = np.sort(rng.standard_normal(n - 1)).astype("f4")
        tree, q = codes_on_gpu.tree(bounds), np.concatenate([bounds, rng.standard_normal(500).astype("f4")])
        node = np.ones(q.size, int)
        for _ in range(n.bit_length() - 1):
            node = 2 * node + (q > tree[node])
        np.testing.assert_array_equal(node - n, np.searchsorted(bounds, q))


def test_steps_are_those_of_the_cpu_one_launch_for_a_segment(rng, shim, monkeypatch):
    """A rate that is a 0-d array of the device; segments that begin between blocks, one of 32 bits."""
    there = SimpleNamespace(problem=SimpleNamespace(segments=SEGMENTS), seed=3)
    x, counts = rng.standard_normal(SEGMENTS.dim).astype("f4"), []
    here = backend.asarray(x.copy())
    ours, theirs = (Quantised(AdamW(0.7, 0.95, 1e-2, 0.2), smallest=100) for _ in range(2))
    ours.start(here, there)
    backend.use("cpu")
    theirs.start(x, there)
    launch = cudashim.Kernel.__call__
    monkeypatch.setattr(cudashim.Kernel, "__call__", lambda self, *a, **k: counts.append(1) or launch(self, *a, **k))
    for _ in range(4):
        g = (rng.standard_normal(SEGMENTS.dim) * 10.0 ** rng.uniform(-3, 1, SEGMENTS.dim)).astype("f4")
        backend.use("shim")
        ours.step(here, backend.asarray(g), backend.asarray(np.float32(0.25)))
        backend.use("cpu")
        theirs.step(x, g, 0.25)
    np.testing.assert_array_equal(backend.to_host(here), x)
    for name, shelf in ours.shelves.items():
        same(shelf, theirs.shelves[name])
    assert len(counts) == 4 * 3


def test_other_blocks_are_array_code(rng, shim):
    g = backend.asarray(rng.standard_normal(100).astype("f4"))
    for block in (80, None, 8192, 2):
        m = Coded.zeros(100, Code(), block)
        assert written(keep, (m, g)) == set()
        backend.use("cpu")
        same(m, Code().quantise(backend.to_host(g), block))
        backend.use("shim")


def test_a_formula_may_have_any_names(rng, shim):
    """Those that the kernel's own functions have, too."""
    m, a = Coded.zeros(300, Code(), 256), rng.standard_normal(300).astype("f4")
    assert written(put, (m, backend.asarray(a), 0.5, 2.0)) == {"put"}
    backend.use("cpu")
    same(m, Code().quantise(a + np.float32(1), 256))


def test_arrays_that_do_not_fit_are_refused(shim):
    a, x = Coded.zeros(512, Code(), 256), backend.zeros((511,), "float32")
    with pytest.raises(ValueError, match="of their length"):
        adamw(x, a, a, x, 0.1, 0.9, 0.99, 1e-8, 0.1, 1.0, 1.0)
