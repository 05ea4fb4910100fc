"""Numbers kept in 8 or 4 bits: maps of codes to values, and arrays of codes with a scale for each block.

Dettmers, Lewis, Shleifer & Zettlemoyer, ICLR 2022, arXiv:2110.02861, sections 1.2 and 2; the maps as their library
makes them. Without a zero: Li, Chen & Zhu, NeurIPS 2023, arXiv:2309.01507, section 4.1.
"""

import functools
import math

from npopt import backend
from npopt.backend import codes_on_gpu, coding, formulas_on_codes, sixteen
from npopt.errors import UserError
from npopt.state import Stateful
from npopt.values import Value, whole

import numpy as np

KINDS = ("dynamic", "linear", "positive")


def pieces_of(kind, signed, bits):
    """A map as pieces, on each of which its values are equally far apart: [(first level, unit, value there)].

    A level is the distance of a code from the code of 0 if signed, else the code + 1. A piece begins at a power of two
    and ends before the next one; the last has one level.
    """
    levels = 2 ** (bits - 1) if signed else 2**bits
    if kind == "dynamic":
        decades, found = bits - 1, [(0, 0.0, 0.0)] if signed else [(1, 0.0, 0.0)]
        for i in range(decades):
            cells, size = 2 ** (i + (not signed)), 10.0 ** (i + 1 - decades)
            found.append((cells, 0.9 * size / cells, size * (0.1 + 0.45 / cells)))
        return [*found, (levels, 0.0, 1.0)]
    steps = levels - 1 if kind == "linear" else levels
    starts = [0] * signed + [2**i for i in range(bits - signed)]
    offset = 1 if kind == "linear" and not signed else 0
    return [(j, 1 / steps, (j - offset) / steps) for j in starts] + [(levels, 0.0, 1.0)]


@functools.cache
def values_of(kind, signed, bits):
    """The 2^bits values of a map in ascending order, float32, as first value + unit * (level - first level)."""
    first, unit, value = (np.array(column) for column in zip(*pieces_of(kind, signed, bits), strict=True))
    level = np.arange(not signed, 2**bits // (1 + signed) + 1)
    piece = np.searchsorted(first, level, side="right") - 1
    found = unit.astype(np.float32)[piece] * (level - first[piece]).astype(np.float32)
    found += value.astype(np.float32)[piece]
    return np.append(-found[-2:0:-1], found) if signed else found


@functools.cache
def tables_of(kind, signed, bits, signs, draw):
    """(base, bound) of coding.py. draw: of the largest value that is not above a number, not of the nearest one."""
    values = values_of(kind, signed, bits)
    bound = bounds_of(kind, signed, bits, draw)
    tops = np.arange(1 << 16, dtype=np.uint32) << 16
    minus, ends = tops >> 31 == 1, tops | 0xFFFF
    low, high = (np.where(minus, *pair).view(np.float32) for pair in ((ends, tops), (tops, ends)))
    base, most = (np.searchsorted(bound, np.where(np.isnan(q), 0, q)) for q in (low, high))
    if signs and not draw:
        zero = int(np.argmin(np.abs(values)))
        base, most = (np.where(minus, np.minimum(c, zero - 1), c) for c in (base, most))
        bound = bound.copy()
        bound[zero - 1] = 0  # of the codes that numbers with a minus have, the last one
    assert (most <= base + 1).all()
    return base.astype(np.uint8), np.append(bound, np.float32(np.inf))


@functools.cache
def bounds_of(kind, signed, bits, draw):
    """bound[c], float32: the largest number that has the code c or a lower one, without the rule of signs. A number in
    the middle between two values has the code of the one that is nearer to 0."""
    exact = values_of(kind, signed, bits).astype(np.float64)
    found = exact[1:] if draw else (exact[:-1] + exact[1:]) / 2
    bound = found.astype(np.float32)
    above = bound >= found if draw else np.where(found < 0, bound >= found, bound > found)
    return np.where(above & (exact[1:] > exact[:-1]), np.nextafter(bound, np.float32(-np.inf)), bound)


@functools.cache
def lines_of(kind, signed, bits, signs):
    """The tables of npopt/backend/sixteen.py for a map of 8 bits, (420,) float32."""
    out = np.zeros(420, np.float32)
    first, unit, value = (np.array(column) for column in zip(*pieces_of(kind, signed, bits), strict=True))
    slots = np.array([(32 - int(j).bit_length()) % 16 for j in first])  # by leading zeros
    for place, column in ((sixteen.FIRST, first), (sixteen.UNIT, unit), (sixteen.VALUE, value)):
        out[slots + place] = column
    if kind != "dynamic":  # one line but for the ends
        first, unit, value = first[[0, 1, -1]], unit[[0, 1, -1]], value[[0, 1, -1]]
        unit[0] = 0
    first = first - (not signed)  # from here on the level is code - zero
    slope = np.where(unit > 0, 1 / np.where(unit > 0, unit, 1), 0)
    shift, last = first + 0.5 - value * slope, np.append(first[1:], first[-1] + 1) - 0.5
    for place, column in ((sixteen.SLOPE, slope), (sixteen.SHIFT, shift), (sixteen.LAST, last)):
        out[place : place + first.size] = column * 2**sixteen.DIGITS
    bounds = bounds_of(kind, signed, bits, False)[2 ** (bits - 1) - 1 if signed else 0 :]
    out[sixteen.BOUND + 1 : sixteen.BOUND + 1 + bounds.size] = bounds  # numbers above have this level, or more
    starts = bounds[first[1:].astype(int) - 1]
    where = (np.frexp(starts)[1] + 30) // 2  # octaves [2^(2k - 31), 2^(2k - 29)), k = 0 ... 15
    assert np.unique(where).size == where.size and where.min() >= 0
    out[sixteen.THRESHOLD : sixteen.THRESHOLD + 16] = np.inf
    out[sixteen.THRESHOLD + where] = starts
    out.view(np.int32)[sixteen.LEAST] = signs
    out.view(np.int32)[sixteen.PIECE : sixteen.PIECE + 16] = [(where < k).sum() for k in range(16)]
    return out


class Code(Value):
    """A map of 2^bits codes to values in [-1, 1], or in [0, 1] if not signed. A number q has the code of the nearest.

        dynamic    for i = 0 ... bits-2: 10^(i - bits + 2) times the middles of 2^i (not signed: 2^(i+1)) equal parts of
                   [0.1, 1], with both signs if signed; and 0 and 1. 8 bits: seven decades, signed -0.993 to 1
        linear     0 to 1 in equal steps; signed: -1 to 1 in 2^bits - 2 equal steps, the last two codes being 1 (in the
                   authors' library 0 has two codes)
        positive   (c + 1) / 2^bits, not signed, without 0

    signs: the rule of the authors' optimizers. A number with a minus does not get the code of 0, but the one below. So
    a first moment that is small beside its block's largest one keeps a minus; a small positive one becomes 0. With a
    dynamic map the value below is nearly 0, with a linear one it is a whole step. Drawn codes do without the rule.
    """

    def __init__(self, kind="dynamic", signed=True, bits=8, signs=True):
        if kind not in KINDS:
            raise UserError(f"Code: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if bits not in (4, 8):
            raise UserError(f"Code: bits must be 8 or 4, got {bits!r}")
        if kind == "positive" and signed:
            raise UserError("Code: positive is a map of numbers without a sign; signed=False")
        self.kind, self.signed, self.bits, self.signs = kind, bool(signed), bits, bool(signs)

    @property
    def values(self):
        """(2^bits,) float32, ascending."""
        return values_of(self.kind, self.signed, self.bits)

    @property
    def zero(self):
        """The code of 0."""
        return int(np.argmin(np.abs(self.values)))

    def tables(self, draw=False):
        """(base, bound) of npopt/backend/coding.py."""
        return tables_of(self.kind, self.signed, self.bits, self.signs and self.signed, draw)

    @property
    def lanes(self):
        """The tables of npopt/backend/sixteen.py; none where they do not apply."""
        if self.bits != 8 or not sixteen.THERE:
            return np.zeros(0, np.float32)
        return lines_of(self.kind, self.signed, self.bits, self.signs)

    def there(self, draw=False):
        """(values, bounds, the table of npopt/backend/codes_on_gpu.py) on the device in use."""
        return on_device(backend.device(), self.kind, self.signed, self.bits, self.signs, draw)

    def quantise(self, a, block=256, key=None):
        """A flat array as a Coded one; see there."""
        made = Coded.zeros(a.size, self, block, a.dtype)
        made.key = key
        made.write(a)
        return made


@functools.cache
def on_device(device, kind, signed, bits, signs, draw):
    bounds = bounds_of(kind, signed, bits, draw)
    lines = bits == 8 and not draw
    table = codes_on_gpu.lines(lines_of(kind, signed, bits, signs)) if lines else codes_on_gpu.tree(bounds)
    return tuple(backend.asarray(a) for a in (values_of(kind, signed, bits), bounds, table))


class Coded(Stateful):
    """Numbers as codes: number i is code.values[c_i] times the scale of its block, the largest magnitude there.

    codes   (size,) uint8; of 4 bits (ceil(size / 2),), the first of two in the lower half
    scales  (ceil(size / block),) float32; the last block may be shorter. block None: one for all
    key     rounding to the two values around a number at random, without bias between a map's ends: the 64-bit key of
            the draws. None: to the nearest. first: the index of number 0 in the draws

    A formula (npopt.elementwise) takes it in place of a flat array. On a CPU that is one compiled pass over the blocks,
    in which no more than a block of numbers is ever decoded; on a GPU it is one kernel where blocks are powers of two
    from 4 to 4096, else array code, in parts of some million numbers. Where what a formula gives is not finite, all
    coded numbers of that element are 0 afterwards, and the other arrays keep what they had. Everything else goes by
    read and write.
    """

    __array_ufunc__ = None

    def __init__(self, codes, scales, size, code, block, dtype, *, key=None, first=0, shape=None):
        self.codes, self.scales, self.size, self.code, self.block = codes, scales, size, code, block
        self.dtype, self.key, self.first, self.shape = np.dtype(dtype), key, first, shape or (size,)

    @classmethod
    def zeros(cls, size, code, block=256, dtype="float32"):
        """So many zeros, on the device in use; they are read as numbers of the dtype."""
        width = block_of(size, block)
        codes = backend.zeros((bytes_of(size, code),), "uint8")
        codes[...] = code.zero if code.bits == 8 else 17 * code.zero
        return cls(codes, backend.zeros((-(-size // width),), "float32"), size, code, width, dtype)

    ndim = property(lambda self: len(self.shape))
    nbytes = property(lambda self: self.codes.nbytes + self.scales.nbytes)

    def kept(self):
        return {"codes": self.codes, "scales": self.scales}

    def reshape(self, *shape):
        """The same numbers, as one axis or more."""
        shape = shape[0] if isinstance(shape[0], tuple) else shape
        shape = (self.size,) if shape == (-1,) else shape
        if math.prod(shape) != self.size:
            raise UserError(f"Coded: {self.size} numbers have no shape {shape}")
        return Coded(self.codes, self.scales, self.size, self.code, self.block, self.dtype, key=self.key,
                     first=self.first, shape=shape)  # fmt: skip

    def part(self, lo, hi):
        """Numbers lo to hi, flat, in the same memory; lo begins a block, hi ends one."""
        per = 8 // self.code.bits
        cut = self.codes[lo // per : -(-hi // per)], self.scales[lo // self.block : -(-hi // self.block)]
        return Coded(*cut, hi - lo, self.code, self.block, self.dtype, key=self.key, first=self.first + lo)

    def read(self):
        """The numbers, of the dtype and shape of this array."""
        if backend.owner(self.codes).name == "cpu":
            out = np.empty(self.size + 1, np.float32)
            coding.decode(self.codes, self.scales, self.tables(), self.code.bits, self.block, out)
            out = out[: self.size]
        else:
            m, values = backend.xp(self.codes), self.code.there()[0]
            codes = self.codes
            if self.code.bits == 4:
                codes = m.stack([codes & 15, codes >> 4], axis=1).reshape(-1)[: self.size]
            out = values[codes] * m.repeat(self.scales, self.block)[: self.size]
        return out.astype(self.dtype, copy=False).reshape(self.shape)

    def write(self, a):
        """Keep the numbers of an array of this size; those that are not finite become 0."""
        draw, (w,) = self.key is not None, (a.reshape(-1).astype(np.float32),)
        if w.size != self.size:
            raise UserError(f"Coded: {w.size} numbers do not go into {self.size}")
        if backend.owner(self.codes).name == "cpu":
            draws = draw, np.uint64(self.key or 0), self.first
            coding.encode(w, self.codes, self.scales, self.tables(draw), self.code.bits, self.block, draws)
            return
        m = backend.xp(w)
        w = m.where(m.isfinite(w), w, 0)
        full = self.size // self.block * self.block
        self.scales[: full // self.block] = m.abs(w[:full].reshape(-1, self.block)).max(axis=1)
        if full < self.size:
            self.scales[-1] = m.abs(w[full:]).max()
        self.scales *= self.scales >= SMALLEST
        over = 1 / m.where(self.scales > 0, self.scales, 1)
        q = w * m.repeat(over, self.block)[: self.size]
        codes = self.drawn(q) if draw else self.nearest(q)
        codes = m.where(m.repeat(self.scales, self.block)[: self.size] > 0, codes, self.code.zero).astype(np.uint8)
        if self.code.bits == 8:
            self.codes[...] = codes
        else:
            self.codes[...] = codes[::2]
            self.codes[: self.size // 2] |= codes[1::2] << 4

    def tables(self, draw=False):
        """What the loops of coding.py take: values, tables of sixteen.py, the code of 0, base and bound."""
        return self.code.values, self.code.lanes, self.code.zero, *self.code.tables(draw)

    def nearest(self, q):
        """Codes of q, by array code."""
        m, bounds = backend.xp(q), self.code.there()[1]
        codes = m.searchsorted(bounds, q)
        return codes - ((codes == self.code.zero) & m.signbit(q)) if self.code.signed and self.code.signs else codes

    def drawn(self, q):
        """Codes of q, each of one of its two neighbours, by array code."""
        m, (values, bounds, _) = backend.xp(q), self.code.there(draw=True)
        below = m.searchsorted(bounds, q)
        above = m.minimum(below + 1, len(values) - 1)
        u = backend.uniforms(self.key, backend.empty(q.shape, np.float32), self.first)
        return m.where(u * (values[above] - values[below]) < q - values[below], above, below)

    @staticmethod
    def elementwise(formula, args, offset):
        """What a formula calls that is given coded arrays."""
        first = next(a for a in args if isinstance(a, Coded))
        if backend.owner(first.codes).name == "cpu":
            formulas_on_codes.run(formula, args, offset)
        elif codes_on_gpu.takes(first.codes, first.block):
            codes_on_gpu.run(formula, args, offset)
        else:
            by_arrays(formula, args, offset)

    def _refuse(self, *_, **__):
        raise UserError("an array that is kept as codes has no arithmetic; give it to a formula, or use read and write")

    __array__ = __getitem__ = __setitem__ = __iadd__ = __isub__ = __imul__ = __itruediv__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __neg__ = _refuse


SMALLEST = float(np.finfo(np.float32).smallest_normal)  # a scale below counts as 0
PART = 1 << 22  # numbers that array code decodes at a time


def by_arrays(formula, args, offset):
    """A formula over coded arrays in array code: what formulas_on_codes.run does in one pass."""
    names = formula.arguments
    coded = {name: a for name, a in zip(names, args, strict=True) if isinstance(a, Coded)}
    arrays = {name: a for name, a in zip(names, args, strict=True) if getattr(a, "ndim", 0) and name not in coded}
    formulas_on_codes.check(formula, arrays, coded)
    some = next(iter(coded.values()))
    step, kept = max(1, PART // some.block) * some.block, [name for name in coded if name in formula.written]
    m = backend.xp(some.codes)
    for lo in range(0, some.size, step):
        hi = min(lo + step, some.size)
        parts = {name: a.part(lo, hi) for name, a in coded.items()}
        given = {name: a.read() for name, a in parts.items()} | {name: a[lo:hi] for name, a in arrays.items()}
        before = {name: given[name].copy() for name in arrays if name in formula.written}
        formula(*[given.get(name, a) for name, a in zip(names, args, strict=True)], offset=offset + lo)
        fine = m.ones(hi - lo, dtype=bool)
        for name in kept:
            fine &= m.isfinite(given[name].astype(np.float32))
        for name, old in before.items():
            given[name][...] = m.where(fine, given[name], old)
        for name in kept:
            parts[name].write(m.where(fine, given[name], 0))


def block_of(size, block):
    """Numbers to a block; None: all are one."""
    if block is None:
        return size + size % 2
    if whole("Coded", "block", block) % 2:
        raise UserError(f"Coded: block must be even, got {block}")
    return block


def bytes_of(size, code):
    """Bytes of so many codes."""
    return size if code.bits == 8 else -(-size // 2)
