"""Formulas against the same formulas in plain NumPy, and what a formula may not be."""

import importlib
import pkgutil
import re
import shutil
import subprocess

import nn
import npopt
import problems
from nn.kernels.cpu import _cut, _relu, _relu_backward
from nn.kernels.gpu import gates
from nn.norms import fold, scales, slopes
from npopt import backend, ball
from npopt.backend import elementwise, noise
from npopt.directions import add_normals
from npopt.errors import UserError
from npopt.estimators import asam, sam
from npopt.estimators.accumulated import add, scale
from npopt.estimators.clipped import shrink
from npopt.estimators.clipped_by_value import limit
from npopt.estimators.lozo import average
from npopt.estimators.normalised import normalise
from npopt.estimators.sphere import unit
from npopt.estimators.spsa import signs
from npopt.estimators.svrg import reduced
from npopt.estimators.zeroth import moved
from npopt.optimizers import (
    adabound,
    adadelta,
    adafactor,
    adagrad,
    adam_mini,
    adamax,
    amsgrad,
    asgd,
    averaging,
    lamb,
    lars,
    lion,
    mixed_clipping,
    muon,
    nadam,
    normalised_momentum,
    radam,
    rmsprop,
    rprop,
    sophia,
    swats,
)
from npopt.optimizers.adam import adam, adam_l2
from npopt.optimizers.adamw import adamw
from npopt.optimizers.fista import extrapolate
from npopt.optimizers.heavy_ball import heavy_ball
from npopt.optimizers.history import rotate
from npopt.optimizers.ista import descent
from npopt.optimizers.nesterov import nesterov
from npopt.optimizers.sgd import sgd
from npopt.penalties import clip, soft_threshold, subtract_and_cut
from problems.linear.fused import finish
from problems.released import add_scaled, scaled
from problems.sections import on_line, on_plane

import numpy as np
import pytest


@elementwise
def named_like_a_function(x, s):
    s = s + x * x
    x = x - sqrt(s)  # noqa: F821
    return x, s


@elementwise
def everything(y, z, a, b, c, d):
    t = sqrt(abs(a)) + exp(-(b**2)) * tanh(a) / (1 + c**0.5)  # noqa: F821
    u = min(a, b) - max(t, c) if a > b and not t < 0 or d == 3 else sign(a) * log(1 + abs(b))  # noqa: F821
    y = t + u - a**3
    z = z * (1 - d) + (2.0 if c > 1 else 3.0) * b
    return y, z


def everything_in_numpy(z, a, b, c, d):
    t = np.sqrt(np.abs(a)) + np.exp(-(b**2)) * np.tanh(a) / (1 + c**0.5)
    one, two = np.minimum(a, b) - np.maximum(t, c), np.sign(a) * np.log(1 + np.abs(b))
    u = np.where(((a > b) & ~(t < 0)) | (d == 3), one, two)
    return t + u - a**3, z * (1 - d) + np.where(c > 1, 2.0, 3.0) * b


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-14), ("float32", 2e-6)])
def test_every_operation_equals_numpy(rng, dtype, tolerance, device):
    a, b, y, z = (rng.standard_normal(1003).astype(dtype) for _ in range(4))
    for c, d in ((0.3, 0.7), (1.7, 3.0)):
        expected = everything_in_numpy(z, a, b, c, d)
        moved = [backend.asarray(v.copy()) for v in (y, z, a, b)]
        everything(*moved, c, d)
        for got, want in zip(moved, [*expected, a, b], strict=True):  # a and b are only read
            np.testing.assert_allclose(backend.to_host(got), want, rtol=tolerance, atol=tolerance * 10)
            assert got.dtype == dtype


def test_scalar_arguments_may_be_arrays_and_0d_arrays(rng, device):
    x, g = rng.standard_normal(50), rng.standard_normal(50)
    lr = rng.random(50)
    for rate in (lr, np.asarray(0.25), 0.25):
        moved = backend.asarray(x.copy())
        sgd(moved, backend.asarray(g), backend.asarray(rate) if isinstance(rate, np.ndarray) else rate)
        np.testing.assert_allclose(backend.to_host(moved), x - rate * g, rtol=1e-15, atol=1e-16)


def test_scalar_expressions_are_taken_in_float64_before_they_are_rounded():
    @elementwise
    def complement(x, b2):
        x = x * (1 - b2)
        return x

    x = np.ones(4, "float32")
    complement(x, 0.99999999)  # 1 - float32(b2) would be 0
    np.testing.assert_array_equal(x, np.float32(1 - 0.99999999))


def test_parallel_and_serial_loops_agree_bitwise(rng):
    n = 300_001
    x, m, v, g = (rng.standard_normal(n).astype("float32") for _ in range(4))
    v = np.abs(v)
    results = []
    for threads in (1, 2):
        backend.threads(threads)
        copies = x.copy(), m.copy(), v.copy()
        adamw(*copies, g, 0.1, 0.9, 0.99, 1e-8, 0.1, 1.5, 2.5)
        results.append(copies)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_min_max_and_sign_let_nan_through():
    @elementwise
    def three(a, b, c, x):
        a = max(x, 0.5)
        b = min(0.5, x)
        c = sign(x)  # noqa: F821
        return a, b, c

    out = [np.zeros(3) for _ in range(3)]
    three(*out, np.array([np.nan, -2.0, 0.0]))
    np.testing.assert_array_equal(out, [[np.nan, 0.5, 0.5], [np.nan, -2, 0], [np.nan, -1, 0]])


def test_draws_replay_by_index_and_offset(device):
    @elementwise
    def perturb(x, a, key):
        x = x + a * normal(key)  # noqa: F821
        return x

    key = backend.key(7, "perturb")
    x = backend.zeros(100, "float64")
    perturb(x, 0.5, key)
    whole = backend.to_host(x)
    z = backend.to_host(backend.normals(key, backend.zeros(100, "float64")))
    np.testing.assert_allclose(whole, 0.5 * z, rtol=1e-15)
    piece = backend.zeros(30, "float64")
    perturb(piece, 0.5, key, offset=40)
    np.testing.assert_array_equal(backend.to_host(piece), whole[40:70])
    perturb(x, -0.5, key)
    assert np.abs(backend.to_host(x)).max() < 1e-15


def test_an_empty_vector_is_no_error():
    x = np.empty(0)
    sgd(x, np.empty(0), 0.1)
    assert x.size == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (lambda: (np.zeros(3), np.zeros(4), 0.1), "differ in length"),
        (lambda: (np.zeros(3), np.zeros(3, "float32"), 0.1), "one dtype"),
        (lambda: (np.zeros(6)[::2], np.zeros(3), 0.1), "not contiguous"),
        (lambda: (np.zeros((3, 1)), np.zeros((3, 1)), 0.1), "flat"),
        (lambda: (np.zeros(3, int), np.zeros(3, int), 0.1), "float32 or float64"),
        (lambda: (1.0, np.zeros(3), 0.1), "x must be arrays"),
        (lambda: (np.zeros(3), np.zeros(3)), "takes 3 arguments"),
    ],
)
def test_wrong_arguments_get_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        sgd(*arguments())


def test_what_is_not_a_formula_is_refused_where_it_is_written():
    with pytest.raises(UserError, match="not part of the language"):

        @elementwise
        def wrong(x):
            x = foo(x)  # noqa: F821
            return x

        wrong(np.zeros(2))
    with pytest.raises(UserError, match="only assignments"):

        @elementwise
        def loops(x):
            for _ in range(3):
                x = x + 1
            return x

    with pytest.raises(UserError, match="returns arguments"):

        @elementwise
        def returns(x):
            y = x + 1
            return y

    with pytest.raises(UserError, match="must return"):

        @elementwise
        def nothing(x):
            x = x + 1

    with pytest.raises(UserError, match="the generated loop uses"):

        @elementwise
        def reserved(x, i):
            x = x + i
            return x

    with pytest.raises(UserError, match="whole powers"):

        @elementwise
        def root(x):
            x = x**0.5
            return x

        root(np.zeros(2))


COMPILED = [
    (adamw, ("x", "m", "v", "g")),
    (adamw, ("x", "m", "v", "g", "lr", "weight_decay")),
    (adam, ("x", "m", "v", "g")),
    (heavy_ball, ("x", "m", "g")),
    (nesterov, ("x", "m", "g")),
    (sgd, ("x", "g")),
    (everything, ("y", "z", "a", "b")),
    (everything, ("y", "z", "a", "b", "d")),
    (noise._normals, ("out",)),
    (noise._uniforms, ("out",)),
    (scale, ("out",)),
    (add, ("out", "piece")),
    (shrink, ("g",)),
    (limit, ("g",)),
    (normalise, ("g",)),
    (add_scaled, ("y", "x")),
    (scaled, ("y",)),
    (_relu, ("y", "x")),
    (_relu_backward, ("dx", "dy", "y")),
    (_cut, ("dy", "y")),
    (gates.silu, ("y", "x")),
    (gates.silu_backward, ("dx", "x")),
    (gates.gelu_tanh, ("y", "x")),
    (gates.gelu_tanh_backward, ("dx", "x")),
    (gates.swiglu, ("y", "a", "b")),
    (gates.swiglu_backward, ("da", "db", "a", "b")),
    (reduced, ("out", "old", "mean")),
    (add_normals, ("out",)),
    (moved, ("y", "x", "u")),
    (unit, ("u",)),
    (signs, ("out",)),
    (average, ("N", "U")),
    (finish, ("out", "g", "x")),
    (finish, ("out", "g", "x", "c")),
    (soft_threshold, ("x",)),
    (clip, ("x",)),
    (scales, ("r", "ar", "a", "v")),
    (slopes, ("slope", "shift", "da", "db", "r")),
    (fold, ("mean", "variance", "m", "v")),
    (subtract_and_cut, ("x",)),
    (rotate, ("a", "b")),
    (extrapolate, ("y", "x", "p")),
    (descent, ("x", "y", "g")),
    (on_line, ("y", "x", "d")),
    (on_plane, ("y", "x", "d", "e")),
    (asam.weigh, ("y", "x", "g")),
    (asam.climb, ("y", "x")),
    (sam.climb, ("y", "x", "g")),
    (ball.moved, ("inputs", "own", "unit", "delta")),
    (ball.ascended, ("delta", "g", "lower", "upper")),
    (ball.spread, ("delta", "u", "lower", "upper")),
    (ball.spread, ("delta", "u")),
]


def test_an_array_inside_a_root_is_an_array():
    x, s = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    named_like_a_function(x, s)
    np.testing.assert_array_equal(s, [4, 9])
    np.testing.assert_array_equal(x, [-1, -1])


ARRAYS = set("x y m v V u w s h p c g d o".split()) | {"slow", "right", "left", "mean"}  # vectors in the optimizers
COMPILED += [
    (formula, tuple(name for name in formula.arguments if name in ARRAYS))
    for formula in (
        adabound.adabound,
        adabound.amsbound,
        adadelta.adadelta,
        adafactor.full_direction,
        adafactor.relative_step,
        adafactor.relative_step_with_memory,
        adamax.adamax,
        asgd.asgd,
        muon.look_ahead,
        muon.divided,
        muon.muon,
        rprop.rprop,
        rprop.rprop_back,
        adagrad.adagrad,
        adam_l2,
        adam_mini.adam_mini,
        amsgrad.amsgrad,
        averaging.toward,
        lamb.lamb_direction,
        lamb.along,
        lars.lars_direction,
        lars.lars,
        lion.lion,
        mixed_clipping.gather,
        mixed_clipping.hard,
        mixed_clipping.soft,
        nadam.nadam,
        normalised_momentum.along,
        radam.momentum_and_moment,
        rmsprop.rmsprop,
        rmsprop.rmsprop_momentum,
        rmsprop.rmsprop_centred,
        rmsprop.rmsprop_centred_momentum,
        sophia.sophia,
        sophia.hutchinson,
        sophia.gauss_newton,
        sophia.shifted,
        swats.adam_step,
        swats.add,
        swats.sgd_of_swats,
    )
]


def test_every_formula_of_the_packages_is_in_the_list():
    known, found = {id(formula) for formula, _ in COMPILED}, {}
    for package in (npopt, nn, problems):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(info.name)).items():
                if isinstance(value, elementwise):
                    found[id(value)] = f"{info.name}.{name}"
    assert len(found) >= 12 and not [name for key, name in found.items() if key not in known]


def compiled_by_nvcc(text, folder):
    """What nvcc says of a CUDA text, and the code for the GPU that it made of it."""
    source, made = folder / "kernels.cu", folder / "kernels.ptx"
    source.write_text(text)
    done = subprocess.run(["nvcc", "-ptx", "-o", made, source], capture_output=True, text=True)
    return done.stderr, made.read_text() if done.returncode == 0 else ""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """(what nvcc says of all formulas at once, the code it made) for each dtype: starting nvcc takes longer than a
    formula. Each is in a namespace of its own, so that it has to bring all it needs; an error names it in place of a
    file."""

    def text(i, formula, arrays, dtype):
        name, source = formula.name, formula.cuda_source(arrays, dtype)
        assert source.count(f" void {name}(") == 1
        source = source.replace(f" void {name}(", f" void {name}_{i}(")
        return f'#line 1 "{name} of {" ".join(arrays)}"\nnamespace of_{i} {{\n{source}\n}}\n'

    return {
        dtype: compiled_by_nvcc(
            "".join(text(i, *entry, dtype) for i, entry in enumerate(COMPILED)), tmp_path_factory.mktemp(dtype)
        )
        for dtype in ("float32", "float64")
    }


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler here")
@pytest.mark.parametrize(
    "number", range(len(COMPILED)), ids=lambda i: f"{COMPILED[i][0].name}-{'-'.join(COMPILED[i][1])}"
)
def test_the_cuda_form_compiles(number, together):
    formula, arrays = COMPILED[number]
    for said, made in together.values():
        assert re.search(rf"\.entry {formula.name}_{number}\b", made), said
    if formula is adamw:  # scalars are prepared before the loop, in double
        text = formula.cuda_source(arrays, "float32")
        assert text.index("1.0 - ((double)b2)") < text.index("for (")
        assert "double" not in text[text.index("for (") :]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler here")
def test_the_cuda_kernels_compile(tmp_path):
    said, made = compiled_by_nvcc(noise._row_uniforms.gpu, tmp_path)
    assert ".entry" in made, said


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler here")
def test_what_is_no_cuda_does_not_compile(tmp_path):
    said, made = compiled_by_nvcc('#line 1 "the wrong one"\n__global__ void f(float* x) { x[0] = y; }\n', tmp_path)
    assert "the wrong one" in said and made == ""


def test_nested_minima_and_signs_are_computed_once():
    @elementwise
    def cut(y, x, low, high):
        y = min(max(min(max(x + sign(x - low), -2.0), 2.0), low), high)  # noqa: F821
        return y

    assert len(cut.source(("y", "x", "low", "high"), "float32", False)) < 2000
    assert len(cut.cuda_source(("y", "x", "low", "high"), "float32")) < 5000
    x = np.array([-5, -1, 0, 0.5, np.nan, 7, np.inf])
    y, low, high = np.empty(7), np.full(7, -1.5), np.array([1, 1, 1, 1, 1, np.nan, 1])
    cut(y, x, low, high)
    expected = np.clip(x + np.sign(x - low), -2, 2)
    np.testing.assert_array_equal(y, np.minimum(np.maximum(expected, low), high))
