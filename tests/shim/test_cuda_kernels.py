"""Every CUDA kernel of the layers, run on the CPU, against the reference path in float64 on NumPy arrays.

RUNS names, for each kernel, the piece of a layer that must launch it; a kernel without an entry fails.
"""

import itertools
import pathlib
import re
import shutil
import subprocess
from types import SimpleNamespace
from unittest import mock

import nn
from nn import kernels
from nn.kernels import gpu, reference, reference_recurrent
from nn.kernels.gpu import attention, convolutions, row_norms, tensor, winograd
from npopt import backend
from npopt.backend import cuda
from problems.linear import gpu as stretches

import cudashim
import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 by it)
import numpy as np
import pytest
import scipy.special
from test_cuda_codes import COMPILE as coded_formulas
from test_cuda_stretches import LOSSES, STORAGES

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
ROOT = pathlib.Path(nn.__file__).parent.parent
DTYPES = ("float32", "float64")
HALVES = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # numbers of two bytes, and their rounding
OTHERS = (attention.program, attention.tensor_program, row_norms.program)  # test_cuda_attention.py, test_cuda_rows.py
NEAR = {"float32": 2e-6, "float64": 1e-14}  # rounding of numbers of size 1; sums take more, by their size

WINDOWS = [  # image, kernel, stride, padding, channels, outputs
    ((6, 7), (3, 3), (1, 1), (1, 1), 8, 5),
    ((7, 6), (3, 2), (2, 1), (0, 1), 3, 4),
    ((5, 5), (1, 1), (2, 2), (0, 0), 4, 6),
    ((5, 4), (1, 1), (1, 1), (0, 0), 4, 6),
    ((4, 3), (5, 5), (1, 1), (2, 2), 1, 3),
    ((2, 3), (5, 4), (2, 3), (4, 3), 2, 2),
    ((6, 6), (2, 2), (3, 3), (0, 0), 12, 1),
    ((9, 8), (2, 3), (1, 2), (1, 0), 4, 3),
]


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    cudashim.build([(p.source(), cuda.options(dtype)) for p in gpu.PROGRAMS if p not in OTHERS for dtype in kinds(p)])


def kinds(program):
    """The types of numbers that a program is compiled for."""
    if program is attention.program:
        return ("float32",)
    if program in (tensor.program, attention.tensor_program):
        return ("float32", *HALVES)
    return DTYPES if program in (winograd.program, gpu.recurrent.program) else (*DTYPES, *HALVES)


def counts(size, kernel, stride, padding):
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


def both(name, arrays, dtype, given, near, plain=reference):
    """Run a piece on the stand-in in dtype and as the reference in float64; compare all arrays.

    arrays: {name: NumPy array or None}, floats cast to dtype; given(arrays) the arguments. near: {array name: what
    rounding may do to it}, the others unchanged.
    """

    def cast(a, kind):
        return a.astype(kind) if a is not None and a.dtype.kind not in "iub" else a

    def own(k, a):  # of two bytes are activations; weights are rounded to these on their way
        if dtype not in HALVES or k in STORED:
            return cast(a, np.dtype(dtype))
        return cast(cast(a, np.dtype(dtype)) if k == "w" else a, "float32")

    held = {k: own(k, a) for k, a in arrays.items()}
    slow = {k: cast(a, "float64") for k, a in held.items()}
    fast = {k: None if a is None else backend.asarray(a) for k, a in held.items()}
    getattr(plain, name)(*given(slow))
    getattr(kernels, name)(*given(fast))
    for k, a in fast.items():
        if a is not None:
            tight = near.get(k, 0) * NEAR.get(dtype, NEAR["float32"])
            if dtype in HALVES and k in near and k in STORED:  # a product is rounded before its bias comes, or its sum
                tight += 2 * HALVES[dtype] * np.abs(slow[k][np.isfinite(slow[k])]).max(initial=0)
            got = cast(backend.to_host(a), "float64")
            np.testing.assert_allclose(got, slow[k], rtol=0, atol=tight, err_msg=f"{name}: {k}")


STORED = {"x", "y", "dy", "dx", "skip", "out"}  # activations


def windows(name, dtype, rng, cases, batch, loss=1):
    for size, kernel, stride, padding, c, o in cases:
        count = counts(size, kernel, stride, padding)
        terms = max(np.prod(kernel) * max(c, o), batch * np.prod(count))
        arrays = dict(
            x=rng.standard_normal((batch, *size, c)),
            w=rng.standard_normal((o, *kernel, c)),
            b=rng.standard_normal(o),
            y=rng.standard_normal((batch, *count, o)),
        )
        near = {"convolve": "y", "convolve_inputs": "x", "convolve_weights": "w"}[name]
        order = {"convolve": "xwby", "convolve_inputs": "ywx", "convolve_weights": "xyw"}[name]
        for bias in (True, False) if name == "convolve" else (True,):
            if not bias:
                arrays["b"] = None
            both(
                name,
                arrays,
                dtype,
                lambda a: (*[a[k] for k in order], stride, padding),  # noqa: B023
                {near: 4 * loss * terms**0.5},
            )


def pools(name, dtype, rng):
    for size, kernel, stride, padding, c, _ in WINDOWS:
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            continue
        count = counts(size, kernel, stride, padding)
        x = rng.integers(0, 4, (3, *size, c)).astype(float)  # many ties
        index, y = np.zeros((3, *count, c), "uint8"), np.zeros((3, *count, c))
        reference.max_pool(x, y, index, kernel, stride, padding)
        if name == "max_pool":
            x[0, 0, 0], x[1, :2] = np.nan, -np.inf
            both(
                name,
                dict(x=x, y=y + 1, index=index + 1),
                dtype,
                lambda a: (*[a[k] for k in ("x", "y", "index")], kernel, stride, padding),  # noqa: B023
                {},
            )
        else:
            both(
                name,
                dict(dy=rng.standard_normal(y.shape), index=index, dx=x),
                dtype,
                lambda a: (*[a[k] for k in ("dy", "index", "dx")], kernel, stride, padding),  # noqa: B023
                dict(dx=10),
            )


# one block's rows and more, columns of one block and more; rows of fours are read four numbers at a time
SIZES = [(1, 3), (5, 1), (37, 6), (700, 70), (1500, 33), (1, 4), (13, 8), (77, 72), (1411, 68)]


def matrices(name, dtype, rng):
    for n, d in SIZES:
        m = {k: 2 + rng.standard_normal((n, d)) for k in ("x", "skip")} | {
            k: rng.standard_normal((n, d)) for k in ("dy", "y", "out")
        }
        v = {k: rng.standard_normal(d) for k in ("mean", "scale", "offset", "da", "db")}
        if name == "moments":
            both(name, m | v, dtype, lambda a: (a["x"], a["mean"], a["scale"]), dict(mean=4, scale=40))
        elif name == "sum_rows":
            both(name, m | v, dtype, lambda a: (a["x"], a["da"]), dict(da=10 * n))
        elif name == "normalise":
            for skip in ("skip", "out", None):
                for rectify, y in ((False, "out"), (True, "out"), (True, "x")):
                    both(
                        name,
                        m | v,
                        dtype,
                        lambda a: (a["x"], a["mean"], a["scale"], a["offset"], a.get(skip), rectify, a[y]),  # noqa: B023
                        {y: 40},
                    )
        elif name == "normalise_sums":
            for y in ("y", None):
                both(
                    name,
                    m | v,
                    dtype,
                    lambda a: (a["x"], a["mean"], a["scale"], a["dy"], a.get(y), a["da"], a["db"]),  # noqa: B023
                    dict(da=60 * n, db=10 * n),
                )
        else:
            for dx in ("out", "dy"):
                both(
                    name,
                    m | v,
                    dtype,
                    lambda a: (a["x"], a["mean"], a["scale"], a["dy"], a["da"], a["db"], a[dx]),  # noqa: B023
                    {dx: 200},
                )


def linear(name, dtype, rng):
    for n, i, o in ((1, 1, 1), (5, 7, 3), (1300, 9, 40)):
        arrays = dict(
            x=rng.standard_normal((n, i)),
            w=rng.standard_normal((o, i)),
            b=rng.standard_normal(o),
            y=rng.standard_normal((n, o)),
        )
        order, out = {"linear": ("xwby", "y"), "linear_inputs": ("ywx", "x"), "linear_weights": ("xyw", "w")}[name]
        for bias in (True, False):
            arrays["b"] = arrays["b"] if bias else None
            both(name, arrays, dtype, lambda a: [a[k] for k in order], {out: 4 * max(n, i, o) ** 0.5})  # noqa: B023


def softmax(_, dtype, rng):
    for batch, classes in ((1, 1), (3, 7), (17, 70)):
        for smoothing in (0.0, 0.2):
            for weights in (None, rng.random(batch)):
                z, t = 3 * rng.standard_normal((batch, classes)), rng.integers(0, classes, batch).astype("u1")
                arrays = dict(z=z, t=t, weights=weights, p=np.zeros((batch, classes)), rows=np.zeros(batch))
                both(
                    "softmax",
                    arrays,
                    dtype,
                    lambda a: (a["z"], a["t"], smoothing, a["weights"], a["p"], a["rows"]),  # noqa: B023
                    dict(p=8, rows=40),
                )


def words(dtype, rng):
    for n, v, d in ((1, 1, 1), (40, 9, 3), (700, 30, 70)):
        arrays = dict(dy=rng.standard_normal((n, d)), words=rng.integers(0, v, n), dw=np.ones((v + 2, d)))
        both("sum_by_word", arrays, dtype, lambda a: tuple(a.values()), dict(dw=2 * n))


def images(kind, dtype, rng):
    data = rng.integers(0, 256, (9, 5, 6, 3)).astype(kind or dtype)
    rows, moves = np.array([8, 0, 3, 3]), np.array([[0, 0, 0], [2, -3, 0], [-1, 2, 1], [5, 0, 1]])
    scale, shift = rng.random(3), rng.standard_normal(3)
    for r, m in ((rows, moves), (rows, None), (None, None), (None, np.resize(moves, (9, 3)))):
        out = np.zeros((9 if r is None else 4, 5, 6, 3))
        arrays = dict(data=data, rows=r, moves=m, scale=scale, shift=shift, out=out)
        both("gather_images", arrays, dtype, lambda a: tuple(a.values()), dict(out=1000))


def numbers(name, dtype, rng):
    x = rng.standard_normal(700)
    if name == "erf":
        x[:6] = 0, -0.0, 30, -30, 1e-10, 5
        both(name, dict(x=x), dtype, lambda a: (a["x"],), dict(x=4))
        return
    x[:4] = np.nan, 0, -np.inf, np.inf
    dy = rng.standard_normal(700)
    if name == "relu":
        both(name, dict(x=x, y=dy), dtype, lambda a: (a["x"], a["y"]), {})
        both(name, dict(x=x), dtype, lambda a: (a["x"], a["x"]), {})
    else:
        both(name, dict(y=x, dy=dy, dx=0 * dy), dtype, lambda a: a.values(), {})


TILES = [  # whole tiles, cut ones, images smaller than a tile
    ((8, 8), (3, 3), (1, 1), (1, 1), 5, 6),
    ((5, 11), (3, 3), (1, 1), (0, 2), 7, 3),
    ((3, 1), (3, 3), (1, 1), (1, 1), 3, 2),
]


def tiles(name, dtype, rng, batch=3):
    """Winograd's way: its maps lose about a digit."""
    with mock.patch.object(convolutions, "_by_winograd", lambda *_: True):
        windows(name, dtype, rng, TILES, batch, 10)


def recurrent(name, dtype, rng):
    """Sequences of one time and more, from a state, blocks that end early. What comes back adds up over times."""
    gates, loss = 4 if name.startswith("lstm") else 3, 40
    for batch, times, width in ((1, 1, 1), (3, 4, 5), (20, 3, 37)):
        wide, narrow = (batch, times, gates * width), (batch, times, width)
        state = {k: rng.standard_normal((batch, width)) for k in ("h", "c", "dh", "dc")}
        out = {k: np.zeros(s) for k, s in dict(y=narrow, q=narrow, da=wide, db=wide).items()}
        arrays = dict(a=rng.standard_normal(wide), u=rng.standard_normal((gates * width, width)) / width**0.5)
        arrays |= dict(bias=rng.standard_normal(width), dy=rng.standard_normal(narrow), **state, **out)
        for mask in (None, (rng.random((batch, width)) > 0.4) / 0.6):
            if name.endswith("backward"):
                more = dict(
                    a=rng.random(wide), q=rng.standard_normal(narrow), before=rng.standard_normal(narrow), mask=mask
                )
                order = "a q c u mask dy da dh dc" if gates == 4 else "a q before u mask dy da db dh"
                near = dict(da=loss, db=loss, dh=loss, dc=loss)
            else:
                more, near = dict(mask=mask), dict(a=loss, y=loss, q=loss)
                order = "a u mask h c y q" if gates == 4 else "a u bias mask h y q"
            near = {k: v for k, v in near.items() if k in order.split()}
            given = lambda a, order=order: [a[k] for k in order.split()]  # noqa: E731
            both(name, arrays | more, dtype, given, near, reference_recurrent)


def columns(name, dtype, rng, cases=WINDOWS, batch=3):
    with mock.patch.object(convolutions, "_by_winograd", lambda *_: False):
        windows(name, dtype, rng, cases, batch)


RUNS = {
    "columns_of": lambda *a: columns("convolve", *a),
    "columns_of_wide": lambda *a: columns("convolve_weights", *a),
    "sum_columns": lambda *a: columns("convolve_inputs", *a),
    "sum_columns_wide": lambda *a: columns("convolve_inputs", *a),
    "sum_parts": lambda *a: columns("convolve_weights", *a, [((20, 21), (3, 3), (1, 1), (1, 1), 4, 5)], 2),
    "winograd_inputs": lambda *a: tiles("convolve", *a),
    "winograd_weights": lambda *a: tiles("convolve_inputs", *a),
    "winograd_outputs": lambda *a: tiles("convolve", *a),
    "winograd_outputs_adjoint": lambda *a: tiles("convolve_weights", *a),
    "winograd_weights_adjoint": lambda *a: tiles("convolve_weights", *a),
    "add_row": lambda *a: linear("linear", *a),
    "moments": lambda *a: matrices("moments", *a),
    "moments_wide": lambda *a: matrices("moments", *a),
    "join_moments": lambda *a: matrices("moments", *a),
    "sum_rows": lambda *a: matrices("sum_rows", *a),
    "join_sums": lambda *a: matrices("sum_rows", *a),
    "normalise": lambda *a: matrices("normalise", *a),
    "normalise_wide": lambda *a: matrices("normalise", *a),
    "normalise_sums": lambda *a: matrices("normalise_sums", *a),
    "normalise_sums_wide": lambda *a: matrices("normalise_sums", *a),
    "normalise_backward": lambda *a: matrices("normalise_backward", *a),
    "normalise_backward_wide": lambda *a: matrices("normalise_backward", *a),
    "max_pool": lambda *a: pools("max_pool", *a),
    "max_pool_backward": lambda *a: pools("max_pool_backward", *a),
    "relu": lambda *a: numbers("relu", *a),
    "relu_backward": lambda *a: numbers("relu_backward", *a),
    "erf_in_place": lambda *a: numbers("erf", *a),
    "softmax": lambda *a: softmax("softmax", *a),
    "sum_words": words,
    "lstm_cell": lambda *a: recurrent("lstm", *a),
    "lstm_cell_backward": lambda *a: recurrent("lstm_backward", *a),
    "gru_cell": lambda *a: recurrent("gru", *a),
    "gru_cell_backward": lambda *a: recurrent("gru_backward", *a),
    "gather_images": lambda *a: images(None, *a),
    "gather_bytes": lambda *a: images("uint8", *a),
}


ALL = [
    (name, dtype)
    for p in gpu.PROGRAMS
    if p is not tensor.program and p not in OTHERS
    for name in cudashim.names(p.source())
    for dtype in kinds(p)
]
EXACT = {
    "sum_parts",
    "softmax",
    "gather_images",
    "gather_bytes",
}  # parameters, losses and inputs are never of two bytes


@pytest.mark.parametrize("kernel, dtype", [(k, d) for k, d in ALL if d not in HALVES or k not in EXACT])
def test_kernel(kernel, dtype, rng, shim):
    cudashim.EXECUTED.clear()
    RUNS[kernel](dtype, rng)
    assert (kernel, cuda.options(dtype)) in cudashim.EXECUTED


@pytest.mark.parametrize("dtype", (*DTYPES, *HALVES))
def test_products_of_linear_layers(dtype, rng, shim):
    for name in ("linear_inputs", "linear_weights"):
        linear(name, dtype, rng)


@pytest.mark.parametrize("bytes_", [1, 5000])
def test_columns_come_in_chunks(bytes_, monkeypatch, rng, shim):
    monkeypatch.setattr(convolutions, "WORKSPACE", bytes_)
    monkeypatch.setattr(convolutions, "DEPTH", 8)
    for name in ("convolve", "convolve_inputs", "convolve_weights"):
        columns(name, "float64", rng, batch=5)
        tiles(name, "float64", rng, batch=5)


def test_winograds_way_is_chosen_by_counting():
    wins, plain = convolutions.winograd.wins, ((3, 3), (1, 1), (1, 1))
    f4, f8 = np.dtype("f4"), np.dtype("f8")
    assert wins(*plain, (32, 32), 64, 64, f4) and wins(*plain, (4, 4), 512, 512, f8)
    assert not wins(*plain, (32, 32), 3, 64, f4)  # few columns, many points
    assert not wins(*plain, (1, 1), 64, 64, f4)  # a tile for one output
    assert not wins((3, 3), (2, 2), (1, 1), (16, 16), 64, 128, f4)
    assert not wins((1, 1), (1, 1), (0, 0), (8, 8), 64, 64, f4)


def test_winograds_way_is_not_taken_in_tf32(rng, shim):
    shapes = (2, 8, 8, 32), (32, 3, 3, 32), (2, 8, 8, 32)
    x, w, y = (backend.asarray(rng.standard_normal(s).astype("f4")) for s in shapes)
    for precision, kernel in (("tf32", "convolve_64"), ("float32", "winograd_inputs")):
        backend.precision(precision)
        cudashim.EXECUTED.clear()
        kernels.convolve(x, w, None, y, (1, 1), (1, 1))
        assert kernel in {name for name, _ in cudashim.EXECUTED}


def test_parts_of_a_sum_are_equal_and_fill_the_card():
    for rows, m, n in ((131072, 64, 576), (100 * 784, 6, 25), (64, 120, 400), (2048, 512, 4608), (9973, 64, 64)):
        parts = convolutions._parts(rows, m, n)
        assert rows % parts == 0 and (parts == 1 or rows // parts >= convolutions.DEPTH)
    assert convolutions._parts(131072, 64, 576) == 128 and convolutions._parts(2048, 512, 4608) == 1


def test_moments_of_numbers_far_from_zero(rng, shim):
    """Sums of squares would lose all digits here: 1e6 + noise in float32 has 4 bits of noise."""
    x = (1e6 + rng.integers(0, 8, (5000, 3))).astype("float32")
    x[0] = 0  # nor is the first row a good middle
    mean, variance = backend.empty((3,), "float32"), backend.empty((3,), "float32")
    kernels.moments(backend.asarray(x), mean, variance)
    np.testing.assert_allclose(backend.to_host(mean), x.astype("f8").mean(0), rtol=1e-7)
    np.testing.assert_allclose(backend.to_host(variance), x.astype("f8").var(0), rtol=1e-5)


def test_softmax_with_an_impossible_class_and_with_nan(shim):
    z = backend.asarray(np.array([[1.0, -np.inf, 2.0], [0.0, np.nan, 1.0], [np.nan, 0, 0]]))
    t, p, rows = backend.asarray(np.array([0, 0, 1])), backend.empty((3, 3), "float64"), backend.empty((3,), "float64")
    kernels.softmax(z, t, 0.0, None, p, rows)
    rows = backend.to_host(rows)
    assert rows[0] == pytest.approx(np.log(1 + np.e)) and np.isnan(rows[1:]).all()


def test_arrays_that_the_kernels_cannot_take_go_the_plain_way(rng, shim):
    x, w = rng.standard_normal((2, 6, 6, 4)), rng.standard_normal((3, 3, 3, 4))
    expected = np.empty((2, 6, 6, 3))
    reference.convolve(x, w, None, expected, (1, 1), (1, 1))
    turned = backend.asarray(x.transpose(0, 3, 1, 2).copy()).transpose(0, 2, 3, 1)
    for a in (turned, backend.asarray(x.astype("f4"))):
        cudashim.EXECUTED.clear()
        y = backend.empty((2, 6, 6, 3), "float64")
        kernels.convolve(a, backend.asarray(w), None, y, (1, 1), (1, 1))
        np.testing.assert_allclose(backend.to_host(y), expected, atol=1e-5)
        assert not cudashim.EXECUTED


def test_addresses_that_16_bytes_do_not_divide_take_the_narrow_kernel(rng, shim):
    flat = backend.asarray(rng.standard_normal(2 * 5 * 5 * 4 + 1).astype("f4"))
    x, w = flat[1:].reshape(2, 5, 5, 4), backend.asarray(rng.standard_normal((3, 3, 3, 4)).astype("f4"))
    y, slow = backend.empty((2, 5, 5, 3), "float32"), np.empty((2, 5, 5, 3), "f4")
    cudashim.EXECUTED.clear()
    kernels.convolve(x, w, None, y, (1, 1), (1, 1))
    reference.convolve(backend.to_host(x), backend.to_host(w), None, slow, (1, 1), (1, 1))
    np.testing.assert_allclose(backend.to_host(y), slow, atol=1e-5)
    assert {name for name, _ in cudashim.EXECUTED} == {"columns_of"}


def test_every_cuda_source_is_one_that_tests_run():
    """The folder's files, the formulas' common form, and the kernels written in Python files."""
    here = ROOT / "nn" / "kernels" / "gpu"
    assert {p.name for p in here.glob("*.cu")} == {p.file for p in gpu.PROGRAMS}
    assert {p.stem for p in (ROOT / "problems").rglob("*.cu")} == {*STORAGES, "rows"}
    found = {
        str(p.relative_to(ROOT))
        for folder in ("npopt", "nn", "problems", "scripts")
        for p in (ROOT / folder).rglob("*.py")
        if "__global__" in p.read_text()
    }
    assert found == {f"npopt/backend/{name}.py" for name in ("codes_on_gpu", "formulas", "noise", "sparse")}


def test_reference_values_of_erf_are_those_of_scipy(rng, shim):
    x = backend.asarray(np.linspace(-7, 7, 501))
    kernels.erf(x)
    np.testing.assert_allclose(backend.to_host(x), scipy.special.erf(np.linspace(-7, 7, 501)), rtol=1e-15)


NVCC = [(p, d) for p in gpu.PROGRAMS for d in kinds(p) if d != "bfloat16"] + [
    (stretches.program(LOSSES[loss], storage), dtype)
    for loss, storage, dtype in itertools.product(("binary", "classes"), STORAGES, DTYPES)
]
NVCC += [(SimpleNamespace(source=lambda text=text: text, file="codes.cuh"), "float32") for text in coded_formulas]


def apart(i, program, dtype):
    """A program's text in a namespace of its own, its macros gone behind it, so that one file can hold several."""
    source = program.source()
    defines = [option[2:].replace("=", " ") for option in cuda.options(dtype) if option.startswith("-D")]
    named = {line.split()[0] for line in defines} | set(re.findall(r"^\s*#\s*define\s+(\w+)", source, re.MULTILINE))
    lines = [*(f"#define {line}" for line in defines), f"namespace of_{i} {{", f'#line 1 "{program.file} {dtype}"']
    return "\n".join([*lines, source.replace('extern "C" ', ""), "}", *(f"#undef {name}" for name in sorted(named))])


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler here")
@pytest.mark.parametrize(
    "dtype, long",
    [
        *((dtype, False) for dtype in (*DTYPES, "float16")),
        *(pytest.param(dtype, True, marks=pytest.mark.slow) for dtype in ("float32", "float16")),
    ],
)
def test_nvcc_compiles_them_without_spilling(dtype, long, tmp_path):
    """For sm_90; a local array that is not held in registers would show as bytes of stack frame or spills. All programs
    of a dtype at once: each nvcc takes a third of a second to start. Attention takes long."""
    programs = [program for program, kind in NVCC if kind == dtype and (program in OTHERS[:2]) == long]
    source, out = tmp_path / "k.cu", tmp_path / "k.cubin"
    source.write_text("\n".join(apart(i, program, dtype) for i, program in enumerate(programs)))
    flags = [option for option in cuda.options(dtype) if not option.startswith("-D")]
    command = ["nvcc", *flags, "-arch=sm_90", "-Xptxas", "-v", "-cubin", "-o", out, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    told = {
        kernel: said
        for kernel, said in re.findall(r"entry function '(\w+)'(.*?)(?=entry function|\Z)", done.stderr, re.S)
    }
    for i, program in enumerate(programs):
        for name in cudashim.names(program.source()):
            start = f"_ZN{len(f'of_{i}')}of_{i}{len(name)}{name}E"
            (said,) = [said for kernel, said in told.items() if kernel.startswith(start)]
            found = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
            assert found == [("0", "0", "0")], f"{program.file}: {name}: {found}"
