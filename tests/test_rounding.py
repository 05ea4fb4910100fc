"""Rounding to narrow formats, bit by bit: against NumPy's float16 and the types of ml_dtypes, and by closed forms."""

from math import erf, sqrt

from npopt import backend
from npopt.backend import rounding
from npopt.backend.rounding import FORMATS, packed, reference, rounded, unpacked

import ml_dtypes
import numpy as np
import pytest

TYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
WAYS = {
    "loop": rounded,
    "array code": lambda a, name, out=None, draws=None: reference(a, FORMATS[name], draws),
}


def every(name):
    """All numbers of a format, infinities and NaN among them, as float32."""
    dtype = np.dtype(TYPES[name])
    codes = np.arange(1 << 8 * dtype.itemsize, dtype=f"uint{8 * dtype.itemsize}")
    return codes.view(dtype).astype("float32")


def asked(name):
    """Numbers, the middles between neighbours, past the largest, neighbours in float32 of all these; and others."""
    numbers = every(name)
    finite = np.sort(numbers[np.isfinite(numbers)].astype(float))
    known = FORMATS[name]
    past = known.largest * (1 + 2.0 ** -(known.m + 1) / (2 - 2.0**-known.m)) * np.array([1, 1.01, 2, 1e3])
    with np.errstate(over="ignore", invalid="ignore"):
        a = np.concatenate([numbers, (finite[1:] + finite[:-1]) / 2, past, -past, [3.4028234e38, 1e-45]])
        a = a.astype("float32")
        a = np.concatenate([a, np.nextafter(a, np.float32(np.inf)), np.nextafter(a, np.float32(-np.inf))])
    others = np.random.default_rng(0).integers(0, 1 << 32, 50_000, dtype=np.uint64).astype(np.uint32)
    return np.concatenate([a, others.view("float32")])


def same(one, two):
    """Bit by bit, but for which NaN it is."""
    assert one.dtype == two.dtype == np.float32 and one.shape == two.shape
    both = np.isnan(one) & np.isnan(two)
    np.testing.assert_array_equal(one.view("uint32")[~both], two.view("uint32")[~both])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("way", WAYS)
def test_every_number_and_every_boundary_is_rounded_as_the_type_is(name, way):
    a = asked(name)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = a.astype(np.dtype(TYPES[name])).astype("float32")
    same(WAYS[way](a, name), wanted)
    same(WAYS[way](every(name), name), every(name))  # what is there already stays


def test_the_loop_without_its_compiler():
    a = asked("float16")[::997]
    out = np.empty_like(a)
    with np.errstate(over="ignore", invalid="ignore"):
        for i, u in enumerate(a.view(np.uint32)):
            out[i] = np.uint32(rounding.one.py_func(u, *rounding.numbers_of(FORMATS["float16"]))).view(np.float32)
    same(out, rounded(a, "float16"))


@pytest.mark.parametrize("way", WAYS)
def test_closed_forms(way):
    """1 + half a unit: of two to the even one; the greatest number that is not infinite; the least that is not 0."""
    cases = {
        "float16": [
            (1 + 2.0**-11, 1),
            (1 + 3 * 2.0**-11, 1 + 2.0**-9),
            (65519.996, 65504),
            (65520, np.inf),
            (2.0**-25, 0),
            (1.0001 * 2.0**-25, 2.0**-24),
            (-1.5 * 2.0**-24, -(2.0**-23)),
            (2049, 2048),
        ],
        "bfloat16": [(1 + 2.0**-8, 1), (1 + 3 * 2.0**-8, 1 + 2.0**-6), (2.0**-134, 0), (1.01 * 2.0**-134, 2.0**-133)],
        "float8_e4m3": [(17, 16), (464, 448), (465, np.nan), (2.0**-10, 0), (np.inf, np.nan)],
        "float8_e5m2": [(9, 8), (61439, 57344), (61440, np.inf), (2.0**-17, 0), (-np.inf, -np.inf)],
    }
    for name, some in cases.items():
        given, wanted = np.array(some, "float32").T
        same(WAYS[way](np.ascontiguousarray(given), name), np.ascontiguousarray(wanted))


def test_sums_of_ones_stand_still_where_the_unit_is_two():
    total = np.zeros(1, "float32")
    for _ in range(3000):
        total = rounded(total + 1, "float16")
    assert total[0] == 2048


@pytest.mark.parametrize("name", FORMATS)
def test_shares_of_gaussian_gradients_that_vanish(name):
    """The share of N(0, s^2) within half of the least number: closed form."""
    half, z = FORMATS[name].step / 2, np.random.default_rng(1).standard_normal(200_000).astype("float32")
    for s in (0.3, 1.0, 10.0):
        share = (rounded(np.float32(s * half) * z, name) == 0).mean()
        assert abs(share - erf(1 / (s * sqrt(2)))) < 4e-3


def test_places(rng):
    """In place, into another array, with gaps, by several threads: the same numbers; what is read only stays."""
    a = rng.standard_normal((7, 5, 3)).astype("float32")
    wanted = rounded(a, "float16")
    out = np.empty_like(a)
    assert rounded(a, "float16", out) is out
    same(out, wanted)
    wide = np.zeros((7, 5, 6), "float32")
    wide[..., ::2] = a
    gaps = wide[..., ::2]
    assert rounded(gaps, "float16", gaps) is gaps
    same(np.ascontiguousarray(gaps), wanted)
    assert (wide[..., 1::2] == 0).all()
    same(np.ascontiguousarray(rounded(a.T, "float16")), np.ascontiguousarray(wanted.T))
    a.flags.writeable = False
    same(rounded(a, "float16"), wanted)
    many = rng.standard_normal(rounding.MANY + 3).astype("float32")
    wanted = reference(many, FORMATS["bfloat16"])
    same(rounded(many, "bfloat16"), wanted)
    assert rounded(many, "bfloat16", many) is many
    same(many, wanted)
    assert rounded(np.zeros((0, 3), "float32"), "float16").shape == (0, 3)


def test_float64_is_rounded_once():
    """By way of float32 this number would be rounded up to the middle, and then to the even number above."""
    a = np.array([1 + 3 * 2.0**-11 - 2.0**-40])
    assert rounded(a, "float16")[0] == 1 + 2.0**-10 and rounded(a.astype("float32"), "float16")[0] == 1 + 2.0**-9


@pytest.mark.parametrize("name", FORMATS)
def test_drawn_rounding_keeps_the_mean_and_goes_to_neighbours(name, rng):
    step = FORMATS[name].step
    for a in (1.3, -0.77, 5.3 * step, -0.2 * step):
        many = np.full(40_000, a, "float32")
        draws = rng.random(many.size).astype("float32")
        found = rounded(many, name, draws=draws)
        same(found, reference(many, FORMATS[name], draws))
        low, high = found.min(), found.max()
        assert low < np.float32(a) < high and set(found) == {low, high}
        same(np.sort(rounded(np.array([low, high]), name)), np.array([low, high]))  # numbers of the format
        assert abs(found.mean(dtype=float) - a) < 4 * (high - low) / 2 / many.size**0.5 + 2.0**-13 * (high - low)
    numbers = every(name)
    numbers = numbers[np.isfinite(numbers)]
    same(rounded(numbers, name, draws=rng.random(numbers.size) * 0.999), numbers)


@pytest.mark.parametrize("name", FORMATS)
def test_codes_are_those_of_the_type_and_lose_nothing(name):
    numbers = every(name)
    finite = np.isfinite(numbers)
    codes = packed(numbers[finite], name)
    np.testing.assert_array_equal(codes, np.arange(numbers.size)[finite])  # the type's own, -0 too
    assert codes.itemsize == np.dtype(TYPES[name]).itemsize == FORMATS[name].bytes
    same(unpacked(codes, name, codes.shape), numbers[finite])
    others = asked(name)
    with np.errstate(over="ignore", invalid="ignore"):
        stays = others.astype(TYPES[name]).astype("float32") == others
    stays &= np.isfinite(others)
    for a, good in zip(others[::37], stays[::37], strict=True):
        assert (packed(np.full(3, a), name) is not None) == good, a


def test_refusals():
    with pytest.raises(ValueError, match="a format is one of 'float16', 'bfloat16', .*, got 'half'"):
        rounded(np.zeros(2, "float32"), "half")
    with pytest.raises(ValueError, match="float32 or float64 before they are rounded, got int64"):
        backend.rounded(np.zeros(2, "int64"), "float16")
