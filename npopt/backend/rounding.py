"""Numbers of a few bits, kept in float32: what a narrow format would store, to the last bit.

    format          bits 1-e-m   bytes   largest   least normal   least     beyond the largest
    float16         1-5-10       2       65504     2^-14          2^-24     infinite
    bfloat16        1-8-7        2       3.4e38    2^-126         2^-133    infinite
    float8_e4m3     1-4-3        1       448       2^-6           2^-9      NaN: it has no infinities
    float8_e5m2     1-5-2        1       57344     2^-14          2^-16     infinite

IEEE 754; Micikevicius et al. 2022, arXiv:2209.05433, table 1, for the last two: ml_dtypes' float8_e4m3fn, float8_e5m2.
"""

import functools
from typing import NamedTuple

from npopt.backend import devices
from npopt.errors import UserError

import numba
import numpy as np

MANY = 100_000  # numbers from which on several threads are faster than one


class Format(NamedTuple):
    """A number is +-(1 + k/2^m) 2^e with e >= least, or below 2^least a multiple of 2^(least - m)."""

    m: int  # bits after the point
    least: int
    largest: float
    beyond: float
    bytes: int

    @property
    def step(self):
        """The least positive number."""
        return 2.0 ** (self.least - self.m)


FORMATS = {
    "float16": Format(10, -14, 65504.0, np.inf, 2),
    "bfloat16": Format(7, -126, (2 - 2.0**-7) * 2.0**127, np.inf, 2),
    "float8_e4m3": Format(3, -6, 448.0, np.nan, 1),
    "float8_e5m2": Format(2, -14, 57344.0, np.inf, 1),
}


def format_of(name):
    """The Format of this name; a UserError where there is none."""
    if name not in FORMATS:
        raise UserError(f"a format is one of {', '.join(map(repr, FORMATS))}, got {name!r}")
    return FORMATS[name]


def rounded(a, format, out=None, draws=None):
    """a, of any shape, with every number rounded to the format: to the nearest, of two to the even one.

    A number past the middle between the largest and what would follow is the format's infinity, or NaN. NaN stays NaN.

    a        float32; float64, which is rounded once, takes array code
    format   a name of FORMATS
    out      like a, receives the result; it may be a itself. None: a new array
    draws    uniform numbers in [0, 1) of a's shape, float32 or float64: a number between two neighbours then becomes
             the upper one with the probability of its distance to the lower one, so the mean is a itself (up to 2^-13
             of a step with float16, to the bits of float32 that are cut). Gupta et al., ICML 2015, arXiv:1502.02551
    """
    known = format_of(format)
    if a.dtype not in ("float32", "float64"):
        raise UserError(f"rounded: numbers are float32 or float64 before they are rounded, got {a.dtype}")
    if not isinstance(a, np.ndarray) or a.dtype != "float32":
        found = reference(a, known, draws)
        if out is None:
            return found
        out[...] = found
        return out
    out = devices.Cpu.empty(a.shape, a.dtype) if out is None else out
    given, place = (np.ascontiguousarray(v) for v in (a, out))  # themselves, where they have no gaps
    flat = given.reshape(-1).view(np.uint32), place.reshape(-1).view(np.uint32)
    numbers = numbers_of(known)
    if draws is None:
        many = a.size >= MANY and numba.get_num_threads() > 1
        if given is place:  # said so: of two arguments that overlap no loop makes vectors
            (_round_here_by_many if many else _round_here)(flat[0], *numbers)
        else:
            (_round_by_many if many else _round)(*flat, *numbers)
    else:
        _draw(*flat, np.ascontiguousarray(draws).reshape(-1), *numbers)
    if place is not out:
        out[...] = place.reshape(out.shape)
    return out


@np.errstate(over="ignore", invalid="ignore")  # infinite and NaN are numbers like any others here
def reference(a, known, draws=None):
    """As `rounded`, in array code: the exponent of a number says on which grid it lies."""
    m = devices.xp(a)
    _, exponent = m.frexp(a)  # |a| = f 2^exponent, 1/2 <= f < 1
    power = m.maximum(exponent - 1, known.least) - known.m
    if draws is None:
        steps = m.rint(m.ldexp(a, -power))
    else:
        steps = m.copysign(m.floor(m.ldexp(m.abs(a), -power).astype("float64") + draws), a).astype(a.dtype)
    found = m.ldexp(steps, power)
    beyond = m.copysign(m.full_like(a, known.beyond), a)
    found = m.where((m.abs(found) > known.largest) | m.isinf(a), beyond, found)
    return m.where(m.isnan(a), a, found)


@functools.cache
def numbers_of(known):
    """What the loops read: bits to cut; bits of the least normal number, the largest one and what is beyond; and a
    float32 whose last bit is the format's least number."""
    bits = np.array([2.0**known.least, known.largest, known.beyond], "float32").view(np.uint32) & np.uint32(0x7FFFFFFF)
    return np.uint32(23 - known.m), *bits, np.float32(2.0 ** (23 + known.least - known.m))


@numba.njit(inline="always", error_model="numpy")
def one(u, cut, tiny, largest, beyond, unit):
    """The bits of a float32, rounded. For |x| of at least `tiny` the carry of an addition to the bits does it. Below,
    |x| + unit has a last bit of one step, so the addition itself rounds."""
    sign, a = u & np.uint32(0x80000000), u & np.uint32(0x7FFFFFFF)
    last = np.uint32(1) << cut
    high = (a + ((last >> np.uint32(1)) - np.uint32(1)) + ((a >> cut) & np.uint32(1))) & ~(last - np.uint32(1))
    low = np.float32(np.float32(np.uint32(a).view(np.float32) + unit) - unit).view(np.uint32)
    r = high if a >= tiny else low
    r = beyond if r > largest else r
    r = np.uint32(0x7FC00000) if a > np.uint32(0x7F800000) else r  # NaN
    return sign | r


@numba.njit(cache=True, error_model="numpy")
def _round(given, out, cut, tiny, largest, beyond, unit):
    for i in range(given.size):
        out[i] = one(given[i], cut, tiny, largest, beyond, unit)


@numba.njit(cache=True, error_model="numpy", parallel=True)
def _round_by_many(given, out, cut, tiny, largest, beyond, unit):
    for i in numba.prange(given.size):
        out[i] = one(given[i], cut, tiny, largest, beyond, unit)


@numba.njit(cache=True, error_model="numpy")
def _round_here(out, cut, tiny, largest, beyond, unit):
    for i in range(out.size):
        out[i] = one(out[i], cut, tiny, largest, beyond, unit)


@numba.njit(cache=True, error_model="numpy", parallel=True)
def _round_here_by_many(out, cut, tiny, largest, beyond, unit):
    for i in numba.prange(out.size):
        out[i] = one(out[i], cut, tiny, largest, beyond, unit)


@numba.njit(cache=True, error_model="numpy")
def _draw(given, out, draws, cut, tiny, largest, beyond, unit):
    step = np.float64(unit) * 2.0**-23
    for i in range(given.size):
        sign, a = given[i] & np.uint32(0x80000000), given[i] & np.uint32(0x7FFFFFFF)
        last = np.uint32(1) << cut
        high = (a + np.uint32(np.float64(draws[i]) * last)) & ~(last - np.uint32(1))
        value = np.floor(np.float64(np.uint32(a).view(np.float32)) / step + draws[i]) * step
        r = high if a >= tiny else np.float32(value).view(np.uint32)
        r = beyond if r > largest else r
        out[i] = sign | (np.uint32(0x7FC00000) if a > np.uint32(0x7F800000) else r)


# ------------------------------------------------------------------------------------------------------------ storage
def packed(a, format):
    """The codes of a's numbers in the format, flat, unsigned whole numbers of its size; or None, where a, a float32
    array of the CPU, holds a number that the format has not, or one that is not finite."""
    known = format_of(format)
    given = np.ascontiguousarray(a).reshape(-1)
    codes = np.empty(given.shape, f"uint{8 * known.bytes}")  # a pool's block may be larger, and these live long
    _, *numbers, _ = numbers_of(known)
    lost = _pack(given.view(np.uint32), codes, known.m, known.least, *numbers[:2], known.step)
    return None if lost else codes


def unpacked(codes, format, shape):
    """The numbers that `packed` made codes of: float32 of this shape."""
    out = devices.Cpu.empty(shape, "float32")
    _unpack(codes, table(format), out.reshape(-1))
    return out


@functools.cache
def table(format):
    """The finite numbers of the format by their codes, float32; what stands for infinities and NaN is not used."""
    known = format_of(format)
    code = np.arange(1 << 8 * known.bytes)
    e, k = code >> known.m & (1 << 8 * known.bytes - 1 - known.m) - 1, code & (1 << known.m) - 1
    size = np.ldexp(np.where(e > 0, k + (1 << known.m), k).astype(float), np.maximum(e, 1) - 1 + known.least - known.m)
    with np.errstate(over="ignore"):
        return np.where(code >> 8 * known.bytes - 1, -size, size).astype("float32")


@numba.njit(cache=True, error_model="numpy")
def _pack(given, codes, m, least, tiny, largest, step):
    """Write the codes; return how many numbers have none."""
    cut, base, lost = np.uint32(23 - m), np.uint32(126 + least) << np.uint32(m), 0
    top, below = np.uint32(codes.itemsize * 8 - 1), (np.uint32(1) << np.uint32(23 - m)) - np.uint32(1)
    for i in range(given.size):
        a, sign = given[i] & np.uint32(0x7FFFFFFF), (given[i] >> np.uint32(31)) << top
        steps = np.float64(np.uint32(a).view(np.float32)) / step
        small = np.uint32(steps if steps < 65536.0 else 0.0)
        high = a >= tiny
        lost += a > largest or ((a & below) != 0 if high else np.float64(small) != steps)
        codes[i] = sign | (((a >> cut) - base) if high else small)
    return lost


@numba.njit(cache=True, error_model="numpy")
def _unpack(codes, numbers, out):
    for i in range(codes.size):
        out[i] = numbers[codes[i]]
