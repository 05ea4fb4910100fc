"""Attention's CUDA kernels, run on the CPU, against all T x S probabilities at once in float64."""

import nn
from nn import kernels
from nn.kernels import gpu, reference_attention
from nn.kernels.gpu import attention
from nn.kernels.reference_attention import How
from nn.losses import SoftmaxCrossEntropy
from npopt import backend
from npopt.backend import cuda

import cudashim
import numpy as np
import pytest
from test_cuda_networks import compare
from test_tensor import CUT, TYPES, rounded

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
WAYS = ("plain", *TYPES)  # float32 numbers in float32, and the three of tensor cores: "float32" is TF32
DRAWS = 0.3, 12345678901234567890, np.array([5, 2])
KEEP = np.random.default_rng(0).random((2, 75)) > np.array([[0.5], [1]])  # no key of the second row is there
CASES = {  # T, S, H, G, D and what else: tiles that end early, heads of every width, tiles that nobody sees into
    "grouped": (70, 75, 4, 2, 16, {}),
    "keys that are there": (20, 75, 2, 1, 24, dict(keep=KEEP)),
    "causal, wide": (70, 71, 1, 1, 128, dict(causal=True, first=1)),  # the last query of a tile sees the next keys
    "window": (9, 140, 1, 1, 80, dict(window=9, first=70)),
    "strided": (33, 33, 2, 1, 8, dict(causal=True, pattern=("strided", 4))),
    "dropout, slopes": (20, 40, 2, 1, 40, dict(dropout=DRAWS, slopes=(0.5, 0.25))),
    "one query, one key": (1, 1, 1, 1, 64, {}),
    "fixed": (33, 33, 1, 1, 8, dict(causal=True, pattern=("fixed", 8, 2))),
    "the end of a sequence": (4, 130, 2, 2, 8, dict(causal=True, first=126, slopes=(0.5, 0.25))),
    "causal window": (140, 140, 1, 1, 64, dict(causal=True, window=9)),
    "a wide window": (100, 100, 1, 1, 16, dict(window=18, first=16)),  # spans end one before or behind a tile's edge
    "rows of a batch in order": (20, 30, 2, 1, 8, dict(dropout=(*DRAWS[:2], None))),
    "more queries than keys": (90, 20, 1, 1, 32, dict(causal=True, first=0, window=30)),
}
FEW = {"plain": len(CASES), "float32": 7, "float16": 7, "bfloat16": 4}  # on tensor cores up to a second for each
SLOW = {"bfloat16"}  # float16's code but for conversions and the product itself, which test_tensor.py runs
RUNS = [
    pytest.param(way, case, marks=pytest.mark.slow) if way in SLOW else (way, case)
    for way in WAYS
    for case in list(CASES)[: FEW[way]]
]


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    cudashim.build([(p.source(), cuda.options(kind)) for p, kind in programs(WAYS) if kind not in SLOW])


def programs(ways):
    return [
        (attention.program if w == "plain" else attention.tensor_program, w.replace("plain", "float32")) for w in ways
    ]


def arrays(way, case, seed=3):
    """q, k, v, do in float64, rounded to what the way takes without an error, and its options there."""
    (T, S, H, G, D, more), rng = CASES[case], np.random.default_rng(seed)
    q, k, v, do = (rng.standard_normal((2, n, h, D)) for n, h in ((T, H), (S, G), (S, G), (T, H)))
    q, k, v, do = (a.astype("f4").astype(float) if way == "plain" else rounded(a, way) for a in (q, k, v, do))
    return (q, k, v, do), How(0.3, **{n: np.array(a, float) if n == "slopes" else a for n, a in more.items()})


def both(q, k, v, do, how, forward, backward, dtype):
    """(o, lse, dq, dk, dv) of a way; tables get no gradients."""
    o, lse = (backend.empty(s, kind) for s, kind in ((q.shape, dtype), ((2, q.shape[2], q.shape[1]), "float32")))
    forward(q, k, v, o, lse, how)
    grads = tuple(backend.empty(a.shape, dtype) for a in (q, k, v))
    backward(q, k, v, o, lse, do, (*grads, None, None), how)
    return o, lse, *grads


def exact(given, how):
    (q, k, v, do), o, lse = given, np.empty_like(given[0]), np.empty((2, *given[0].shape[2:0:-1]))
    grads = tuple(np.empty_like(a) for a in (q, k, v))
    backend.use("cpu")
    reference_attention.attention(q, k, v, o, lse, how)
    reference_attention.attention_backward(q, k, v, o, lse, do, (*grads, None, None), how)
    backend.use("shim")
    return o, lse, *grads


def on_device(given, how, kind):
    """The same arrays and options on the stand-in."""
    draws = how.dropout and (*how.dropout[:2], None if how.dropout[2] is None else backend.asarray(how.dropout[2]))
    keep = None if how.keep is None else backend.asarray(how.keep)
    slopes = None if how.slopes is None else backend.asarray(how.slopes.astype(TYPES[kind]))
    moved = [backend.asarray(a.astype(TYPES[kind])) for a in given]
    return moved, how._replace(dropout=draws, keep=keep, slopes=slopes)


def run(way, given, how):
    kind = "float32" if way == "plain" else way
    moved, options = on_device(given, how, kind)
    backend.precision("float32" if way == "plain" else "tf32")
    try:
        found = both(*moved, options, kernels.attention, kernels.attention_backward, moved[0].dtype)
    finally:
        backend.precision("float32")
    return [np.asarray(backend.to_host(a)).astype(float) for a in found]


def near(way):
    """Roundings of a factor, and of a result: p and ds on tensor cores; else sums of up to 140 terms in float32."""
    return 2e-6 if way == "plain" else 4 * CUT[way]


@pytest.mark.parametrize("way, case", RUNS)
def test_it_is_the_reference(way, case, shim):
    cudashim.EXECUTED.clear()
    given, how = arrays(way, case)
    slow, fast = exact(given, how), run(way, given, how)
    assert len(cudashim.EXECUTED) == 3
    where = np.isfinite(slow[1])
    np.testing.assert_array_equal(fast[1][~where], np.inf)
    np.testing.assert_allclose(fast[1][where], slow[1][where], rtol=0, atol=2e-6 * np.abs(slow[1][where]).max())
    for name, a, b in zip(("o", "dq", "dk", "dv"), fast[:1] + fast[2:], slow[:1] + slow[2:], strict=True):
        size = max(np.abs(b).max(), np.abs(slow[4]).max() if name in ("dq", "dk") else 0)  # ds may cancel: one key
        np.testing.assert_allclose(a, b, rtol=0, atol=near(way) * size, err_msg=name)


@pytest.mark.parametrize("ways", [("plain", "float32", "float16"), pytest.param(("bfloat16",), marks=pytest.mark.slow)])
def test_every_kernel_ran_and_no_bit_changes(ways, shim):
    """Two widths of each kernel, each way; and nothing depends on what memory held before."""
    cudashim.EXECUTED.clear()
    for way in ways:
        for case in ("causal, wide", "strided"):
            given, how = arrays(way, case)
            if case == "causal, wide":
                given = [a[:, :9] for a in given]
            one, two = run(way, given, how), run(way, given, how)
            for a, b in zip(one, two, strict=True):
                np.testing.assert_array_equal(a, b)
    wanted = {(name, cuda.options(kind)) for p, kind in programs(ways) for name in cudashim.names(p.source())}
    assert wanted == cudashim.EXECUTED


def test_scores_of_hundreds(shim):
    """Whole numbers, whose products are exact: one key has almost all of the weight."""
    rng = np.random.default_rng(5)
    given = [rng.integers(-8, 9, (2, n, 1, 16)).astype(float) for n in (9, 40, 40, 9)]
    for way in ("plain", "float16"):
        slow, fast = exact(given, How(1.0)), run(way, given, How(1.0))
        assert slow[1].max() > 200
        np.testing.assert_allclose(fast[0], slow[0], rtol=0, atol=8 * (1e-4 if way == "plain" else CUT[way]))
        np.testing.assert_allclose(fast[1], slow[1], rtol=4e-7)


@pytest.mark.parametrize(
    "case", ["float64", "a wide head", "6 numbers", "tables", "an odd address", "a small card", "an old card"]
)
def test_what_goes_as_array_code(case, rng, shim, monkeypatch):
    D, dtype = {"a wide head": 132, "6 numbers": 6, "a small card": 68}.get(case, 8), "float32"
    dtype = "float64" if case == "float64" else dtype
    monkeypatch.setattr(cudashim.Shim, "block_memory", {"a small card": 99, "an old card": 96}.get(case, 227) << 10)
    given = [rng.standard_normal((2, 5, 2, D)).astype(dtype) for _ in range(4)]
    how, moved = How(0.3), [backend.asarray(a) for a in given]
    if case == "tables":
        tables = rng.standard_normal((2, 7, 8)).astype(dtype)
        how = How(0.3, tables=tuple(tables))
    if case == "an odd address":
        flat = backend.empty((moved[0].size + 1,), dtype)
        flat[1:] = moved[0].reshape(-1)
        moved[0] = flat[1:].reshape(moved[0].shape)
    slow = exact([a.astype(float) for a in given], how)
    options = how if case != "tables" else how._replace(tables=tuple(backend.asarray(a) for a in tables))
    cudashim.EXECUTED.clear()
    fast = both(*moved, options, kernels.attention, kernels.attention_backward, dtype)
    assert not {name for name, _ in cudashim.EXECUTED if name.startswith("attention")}
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(backend.to_host(a), b, rtol=1e-4, atol=1e-5)


def decoder():
    """A norm, attention with everything that a decoder's has, and a map to three classes."""
    options = dict(kv_heads=2, causal=True, positions=nn.Rotary(), dropout=0.2)
    layers = dict(norm=nn.RMSNorm(32), attention=nn.MultiHeadAttention(32, 4, **options), flat=nn.Flatten())
    return nn.Network(nn.Sequential(**layers, fc=nn.Linear(9 * 32, 3)), (9, 32), "decoder")


def test_a_layer_runs_through_them(rng):
    cudashim.EXECUTED.clear()
    compare(decoder, SoftmaxCrossEntropy(), "float32", rng, 1e-5)
    ran = {name for name, _ in cudashim.EXECUTED}
    assert {"attention_64", "attention_queries_64", "attention_keys_64", "rotate", "rms_norm_backward_wide"} <= ran


def test_shared_memory_is_what_a_card_has():
    """227 KB a block; and so little that two blocks are on a multiprocessor, of 228 KB, at once."""
    for program in (attention.program, attention.tensor_program):
        assert set(program.shared) == set(cudashim.names(program.source()))
        assert max(program.shared.values()) + 1024 <= 228 * 1024 // 2
    assert all(gpu.PROGRAMS.count(p) == 1 for p in (attention.program, attention.tensor_program))


@pytest.mark.parametrize("way", ["plain", "float32"])
def test_a_kernel_with_other_shared_memory_than_its_tiles_want_ends(way, shim, monkeypatch):
    given, how = arrays(way, "one query, one key")
    size = attention.chunks
    monkeypatch.setattr(attention, "chunks", lambda *args: size(*args) - 1)
    with pytest.raises(RuntimeError, match="a trap"):
        run(way, given, how)
