"""Maps of 8 and 4 bits by the properties that were published, codes against a search, arrays of codes against loops."""

import subprocess
import sys

from npopt import backend
from npopt.backend import elementwise
from npopt.codes import Code, Coded

import numpy as np
import pytest

MAPS = [
    *(Code(kind, signed, bits) for kind in ("dynamic", "linear") for signed in (True, False) for bits in (8, 4)),
    *(Code("positive", False, bits) for bits in (8, 4)),
    *(Code(kind, True, 8, False) for kind in ("dynamic", "linear")),
]


def published(signed, bits):
    """The dynamic map as the authors' library makes it, in float64."""
    found = [0.0, 1.0]
    for i in range(bits - 1):
        ends = np.linspace(0.1, 1, (2**i if signed else 2 ** (i + 1)) + 1)
        for middle in (ends[:-1] + ends[1:]) / 2 * 10.0 ** (i - (bits - 2)):
            found += [middle, -middle] if signed else [middle]
    return np.sort(found)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_dynamic_map_is_the_published_one(bits):
    for signed in (True, False):
        values = Code("dynamic", signed, bits).values
        assert values.dtype == np.float32 and values.size == 2**bits == np.unique(values).size
        np.testing.assert_allclose(values, published(signed, bits), rtol=2e-7)  # a bit and a half
    if bits == 8:
        signed, other = Code().values, Code(signed=False).values
        assert signed[127] == 0 and signed[-1] == 1 and signed[0] == pytest.approx(-0.99297, abs=5e-6)
        assert signed[128] == pytest.approx(5.5e-7) and other[1] == pytest.approx(3.25e-7)
        assert other[0] == 0 and other[-1] == 1 and other[-2] == pytest.approx(0.99648, abs=5e-6)
        np.testing.assert_array_equal(signed[:127], -signed[254:127:-1])


def test_linear_maps_have_equal_steps():
    for bits in (8, 4):
        n = 2**bits
        np.testing.assert_allclose(Code("linear", False, bits).values, np.arange(n) / (n - 1), rtol=2e-7)
        values = Code("linear", True, bits).values
        np.testing.assert_allclose(values[:-1], np.linspace(-1, 1, n - 1), rtol=2e-7)
        assert values[-1] == values[-2] == 1 == -values[0] and values[n // 2 - 1] == 0
        np.testing.assert_array_equal(Code("positive", False, bits).values, np.arange(1, n + 1) / n)


def around(numbers):
    """float32 numbers and their neighbours, both signs of 0 among them."""
    numbers = np.float32(numbers)
    down, up = (np.nextafter(numbers, np.float32(to)) for to in (-np.inf, np.inf))
    return np.unique(np.concatenate([down, numbers, up, np.float32([0.0, 1e-45, -1e-45, 1e-30, -1e-30])]))


@pytest.mark.parametrize("code", MAPS, ids=repr)
@pytest.mark.parametrize("draw", [False, True])
def test_two_tables_find_the_code_that_a_search_among_the_bounds_finds(code, draw, rng):
    """At all bounds, their neighbours, and 200,000 numbers of all sizes."""
    base, bound = code.tables(draw)
    values = code.values.astype(np.float64)
    middles = values[1:] if draw else (values[:-1] + values[1:]) / 2  # sums of two float32 are exact here
    q = np.concatenate([around(middles), np.float32(rng.uniform(-1, 1, 100_000) ** 9), np.float32([-0.0])])
    q = np.concatenate([q, np.float32(10.0 ** rng.uniform(-9, 0, 100_000))])
    bits = q.view(np.uint32)
    c = base[bits >> 16].astype(int)
    c += q > bound[c]
    exact = q.astype(np.float64)
    if draw:  # the largest value that is not above; of two equal ones the first
        expected = np.maximum(np.searchsorted(values, exact, side="right") - 1, 0)
        same = values[c] == values[np.minimum(expected, values.size - 1)]
        assert (same | (exact < values[0])).all() and (c[exact < values[0]] == 0).all()
        return
    distance = np.abs(values[c] - exact)
    for other in (np.maximum(c - 1, 0), np.minimum(c + 1, values.size - 1)):
        nearer = np.abs(values[other] - exact) < distance
        minus = code.signed & code.signs & np.signbit(q) & (values[other] == 0)
        assert not (nearer & ~minus).any()
    tie = np.isin(exact, middles)
    assert (np.abs(values[c]) <= np.abs(exact))[tie & (exact != 0) & ~(code.signed & (c == code.zero - 1))].all()
    whole = np.append(q[np.abs(q) <= 1], np.float32(1))  # in one block of scale 1: the same codes, sixteen at a time
    np.testing.assert_array_equal(unpacked(code.quantise(whole, None))[:-1], c[np.abs(q) <= 1])
    if code.signed and code.signs:
        assert (values[c[np.signbit(q)]] < 0).all() and (values[c[~np.signbit(q)]] >= 0).all()


@pytest.mark.parametrize("code", MAPS, ids=repr)
def test_every_code_comes_back(code):
    """quantise(dequantise(c)) = c, but for the second of two codes with one value; errors of map entries are 0."""
    for scale in (1.0, 0.5, 2.0**-20, 1024.0):
        a = Coded.zeros(2**code.bits, code, None)
        a.write(np.float32(scale) * code.values)
        np.testing.assert_array_equal(a.read(), np.float32(scale) * code.values)
        assert np.float32(scale) == a.scales[0]


def slow(numbers, code, block):
    """(codes, scales) by the definition, a number at a time, in float32 as far as scaling goes."""
    codes, scales = [], []
    for lo in range(0, len(numbers), block):
        part = [x if np.isfinite(x) else np.float32(0) for x in numbers[lo : lo + block]]
        scale = max(abs(x) for x in part)
        scales.append(scale if scale >= np.finfo(np.float32).smallest_normal else np.float32(0))
        for x in part:
            q = x * (np.float32(1) / scale) if scales[-1] else np.float32(0)
            distances = np.abs(code.values.astype(np.float64) - np.float64(q))
            c = int(np.flatnonzero(distances == distances.min())[0])
            codes.append(c - 1 if code.signed and code.signs and scales[-1] and np.signbit(q) and c == code.zero else c)
    return np.array(codes), np.array(scales)


def unpacked(array):
    codes = backend.to_host(array.codes).astype(int)
    if array.code.bits == 8:
        return codes
    return np.stack([codes & 15, codes >> 4], axis=1).reshape(-1)[: array.size]


@pytest.mark.parametrize("code", MAPS, ids=repr)
@pytest.mark.parametrize("size, block", [(1, 4), (8, 4), (61, 16), (61, None)])
def test_arrays_are_kept_by_the_definition(code, size, block, rng, device):
    a = rng.standard_normal(size).astype(np.float32) * np.float32(10.0 ** rng.uniform(-4, 4, size))
    a[::7] = 0
    a[3::11] = np.nan
    a[5::13] = np.inf
    a = a if code.signed else np.abs(a)
    array = code.quantise(backend.asarray(a), block)
    codes, scales = slow(a, code, size if block is None else block)
    np.testing.assert_array_equal(unpacked(array), codes)
    np.testing.assert_array_equal(backend.to_host(array.scales), scales)
    per = np.repeat(scales, size if block is None else block)[:size]
    np.testing.assert_array_equal(backend.to_host(array.read()), code.values[codes] * per)
    assert array.nbytes == -(-size * code.bits // 8) + 4 * len(scales)


@pytest.mark.parametrize("bits, worst", [(8, 0.0071), (4, 0.1126)])
def test_the_error_of_a_round_trip_is_at_most_half_the_widest_step(bits, worst, rng):
    """Of the dynamic maps: 0.9/64 / 2 of a block's largest magnitude where signed (at -1: 0.00703), of 4 bits 0.9/4 / 2
    (at -1: 0.1125). Relative to a number within its decades: at most half a cell of that decade."""
    a = rng.standard_normal(100_000).astype(np.float32)
    for signed in (True, False):
        b = a if signed else np.abs(a)
        array = Code("dynamic", signed, bits).quantise(b, 256)
        size = np.repeat(array.scales, 256)[: a.size]
        assert (np.abs(array.read() - b) / size).max() < (worst if signed else worst / 1.95)
    high = np.abs(array.read() / b - 1)[b / size > 0.11]
    assert high.max() < 0.9 / 2**bits / 0.11 * 1.01  # half a cell of the first decade, beside 0.11


def test_zeros_and_scales_below_the_normal_numbers(device):
    for code in MAPS:
        a = Coded.zeros(37, code, 8)
        np.testing.assert_array_equal(backend.to_host(a.read()), 0)
        before = backend.to_host(a.codes).copy()
        a.write(backend.asarray(np.full(37, 1e-41, np.float32)))
        np.testing.assert_array_equal(backend.to_host(a.read()), 0)
        np.testing.assert_array_equal(backend.to_host(a.codes)[:18], before[:18])


@pytest.mark.parametrize("code", [Code(), Code(signed=False), Code("linear"), Code(bits=4)], ids=repr)
def test_drawn_codes_are_neighbours_and_right_on_average(code, rng, device):
    a = (rng.uniform(0, 1, 60) ** 3).astype(np.float32)
    a[0] = 1
    mean, given = np.zeros(60), backend.asarray(a)
    for key in range(600):
        array = Coded.zeros(60, code, None)
        array.key, array.first = key, 7
        array.write(given)
        mean += backend.to_host(array.read()) / 600
    values = code.values.astype(np.float64)
    below = np.searchsorted(values, a, side="right") - 1
    step = values[np.minimum(below + 1, values.size - 1)] - values[below]
    deviation = np.sqrt(np.maximum((a - values[below]) * (step - (a - values[below])), 0) / 600)
    assert (np.abs(mean - a) <= 5 * deviation + 1e-6).all()
    assert deviation.max() > 0


@elementwise
def pull(x, m, v, g, lr, beta, seed):
    m = beta * m + g
    v = max(beta * v, g * g)
    x = x - lr * m / (1e-3 + sqrt(v)) + 1e-3 * normal(seed)  # noqa: F821
    return x, m, v


@elementwise
def push(x, m, v, g, lr, beta, low):
    """All that goes on sixteen numbers at a time: both branches, signs, minima, a scalar."""
    m = beta * m + (1 - beta) * (g if g > 0 and not x < 0.5 or x == 1 else -abs(g))
    v = max(beta * v, min(g * g, v + g * g)) + beta**2
    x = x - lr * sign(m) * min(max(m, low), v) / sqrt(v)  # noqa: F821
    return x, m, v


EIGHT, FOUR = (Code(), Code(signed=False)), (Code(bits=4), Code("positive", False, 4))
CASES = [
    (formula, dtype, key, codes, *size)
    for formula, dtype, key, codes in (
        (push, "float32", None, EIGHT),
        (push, "float64", None, FOUR),
        (pull, "float32", 5, EIGHT),
        (pull, "float32", 5, FOUR),
        (pull, "float64", 5, EIGHT),
    )
    for size in ((777, 64), (97, None), (5120, 80))
]
CASES += [(push, "float32", None, EIGHT, 22_001, 256)]  # by several threads


@pytest.mark.parametrize("pull, dtype, key, codes, size, block", CASES)
def test_a_formula_over_codes_is_decoding_the_formula_and_encoding(pull, dtype, key, codes, size, block, rng, device):
    """Bit for bit, in one compiled pass and in array code, drawn or not; where a moment is not finite, x stays."""
    x = rng.standard_normal(size).astype(dtype)
    m, v = (Coded.zeros(size, code, block, dtype) for code in codes)
    m.key, v.key, m.first, v.first = key, key, 3, 3
    moving = backend.asarray(x)
    for t in range(3):
        g = (rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 1, size)).astype(dtype)
        if t:
            g[5], g[40], g[96] = np.nan, np.inf, 1e30  # whose square is infinite, in the float32 of scales too
        old, before = [backend.to_host(a.read()) for a in (m, v)], backend.to_host(moving).copy()
        with np.errstate(over="ignore"):  # in array code NumPy says so; CuPy would not
            pull(moving, m, v, backend.asarray(g), 0.1, 0.9, 11, offset=2)
        expected, kept = before.copy(), [a.copy() for a in old]
        backend.use("cpu")
        with np.errstate(over="ignore"):
            pull(expected, *kept, g, 0.1, 0.9, 11, offset=2)
            fine = np.isfinite(kept[0].astype(np.float32)) & np.isfinite(kept[1].astype(np.float32))
        backend.use(device)
        expected[~fine] = before[~fine]
        np.testing.assert_array_equal(backend.to_host(moving), expected)
        assert fine.sum() == size - 3 * (t > 0)
        for array, numbers in ((m, kept[0]), (v, kept[1])):
            again = Coded.zeros(size, array.code, block, dtype)
            again.key, again.first = key, 3
            again.write(backend.asarray(np.where(fine, numbers, 0)))
            np.testing.assert_array_equal(backend.to_host(again.codes), backend.to_host(array.codes))
            np.testing.assert_array_equal(backend.to_host(again.scales), backend.to_host(array.scales))


ELSEWHERE = """
import hashlib
import llvmlite.binding
host = llvmlite.binding.get_host_cpu_features
class Fewer(dict):
    def flatten(self):
        return ",".join(("+" if here else "-") + name for name, here in sorted(self.items()))
def fewer():
    return Fewer({name: here and "avx512" not in name for name, here in host().items()})
if "fewer" in __import__("sys").argv:
    llvmlite.binding.get_host_cpu_features = fewer
import numpy as np
from npopt.backend import sixteen
from npopt.codes import Code, Coded
from npopt.optimizers.adamw import adamw
rng, m, v = np.random.default_rng(1), Coded.zeros(5120, Code(), 256), Coded.zeros(5120, Code(signed=False), 256)
x = rng.standard_normal(5120).astype("float32")
for _ in range(4):
    g = (rng.standard_normal(5120) * 10.0 ** rng.uniform(-4, 0, 5120)).astype("float32")
    adamw(x, m, v, g, 0.1, 0.9, 0.99, 1e-8, 0.1, 1.1, 1.2)
kept = [a.tobytes() for a in (x, m.codes, m.scales, v.codes, v.scales)]
print(sixteen.THERE, hashlib.sha256(b"".join(kept)).hexdigest())
"""


def test_processors_without_avx_512_make_the_same_codes():
    found = []
    for word in ("all", "fewer"):
        done = subprocess.run([sys.executable, "-c", ELSEWHERE, word], capture_output=True, text=True, check=True)
        found.append(done.stdout.split())
    assert found[0][1] == found[1][1] and found[1][0] == "False"


def test_arrays_that_do_not_fit_and_arithmetic_are_refused():
    a, b = Coded.zeros(10, Code(), 4), Coded.zeros(10, Code(signed=False), 8)
    x = np.zeros(10, np.float32)
    with pytest.raises(ValueError, match="blocks of one length"):
        pull(x, a, b, x, 0.1, 0.9, 1)
    with pytest.raises(ValueError, match="of their length"):
        pull(np.zeros(9, np.float32), a, a, np.zeros(9, np.float32), 0.1, 0.9, 1)
    for misuse in (lambda: a * 2, lambda: np.asarray(a), lambda: a[3], lambda: a.write(np.zeros(3))):
        with pytest.raises(ValueError, match="no arithmetic|do not go into"):
            misuse()
    for wrong, words in ((("cubic",), "kind"), (("positive", True), "without a sign"), (("linear", True, 7), "8 or 4")):
        with pytest.raises(ValueError, match=words):
            Code(*wrong)
    with pytest.raises(ValueError, match="even"):
        Coded.zeros(10, Code(), 5)
    assert a.reshape(2, 5).read().shape == (2, 5) and a.reshape(2, 5).reshape(-1).ndim == 1
