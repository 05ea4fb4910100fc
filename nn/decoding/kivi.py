"""A cache whose old keys and values are whole numbers of 2, 4 or 8 bits: KIVI. Liu, Yuan, Jin, Zhong, Xu, Braverman,
Chen & Hu, ICML 2024, arXiv:2402.02750."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

import numpy as np

from .. import kernels
from .caches import Cache

FAST = "channel and token"

BITS = (2, 4, 8)
SCALE = "float16"  # of the lowest value and the distance of two codes, of each group


class Packed:
    """(..., n) numbers as codes of so many bits, in groups of `group` along the last axis:

        s = (max - min) / (2^bits - 1)        code = round((x - min) / s)        x ~ min + s code

    with min and s of a group rounded to float16 first. A group of equal numbers has s = 0 and codes 0. For x whose
    group spans r the error is at most s / 2 and what float16 leaves of min and s, about r / 2 (2^bits - 1) + 2^-11
    (|min| + r).

    codes: (..., n / group, group bits / 8) uint8; byte j of a group has its numbers j, j + m, j + 2 m, ..., m being the
    number of its bytes, the first in the lowest bits        low, step: (..., n / group) float16
    """

    def __init__(self, x, bits, group):
        m, top = backend.xp(x), (1 << bits) - 1
        grouped = x.reshape(*x.shape[:-1], -1, group)
        low = grouped.min(axis=-1)
        self.low = low.astype(SCALE)
        self.step = ((grouped.max(axis=-1) - self.low.astype(x.dtype)) / top).astype(SCALE)
        low, step = (part.astype(x.dtype)[..., None] for part in (self.low, self.step))
        codes = m.rint((grouped - low) / m.where(step > 0, step, 1))
        codes = m.clip(codes, 0, top).astype("uint8").reshape(*grouped.shape[:-1], 8 // bits, -1)
        packed = codes[..., 0, :]
        for place in range(1, 8 // bits):
            packed = packed | codes[..., place, :] << (bits * place)
        self.codes = packed

    @property
    def arrays(self):
        return self.codes, self.low, self.step

    @property
    def nbytes(self):
        return sum(part.nbytes for part in self.arrays)

    def numbers(self, bits, dtype):
        """(..., n) of this dtype."""
        return unpacked(*self.arrays, bits, dtype)


def unpacked(codes, low, step, bits, dtype):
    """(..., n) numbers of the arrays of a Packed."""
    m, mask = backend.xp(codes), (1 << bits) - 1
    parts = [codes >> (bits * place) & mask for place in range(8 // bits)]
    found = m.concatenate(parts, axis=-1).astype(dtype)
    found = low.astype(dtype)[..., None] + step.astype(dtype)[..., None] * found
    return found.reshape(*low.shape[:-1], -1)


class KIVI(Cache):
    """All words; those that are `residual` or more words old as codes of `bits` bits.

    Keys are rounded by channel, in groups of `group` words that follow each other, since a few channels of keys are
    large in all words; values by word, in groups of channels (section 3). A residual of words is kept as it is: keys go
    `residual` at a time, when so many are there, values one by one; both when the next word comes. A pass sees its own
    words, and the residual, as they are. Keys are rounded after they were turned.

    by     "channel and token", or the other ways round, to compare: "token and token", "channel and channel", "token
           and channel", of keys and values

    With 2 bits and groups of 32 a number takes 3 bits: 2 L B G d (3 T / 8) bytes, and the residual. A text can be
    rolled back into the residual, and always by what the last pass added.
    """

    AXES = ("channel", "token")

    def __init__(self, bits=2, group=32, residual=128, by="channel and token"):
        self.bits, self.group = whole("KIVI", "bits", bits), whole("KIVI", "group", group)
        self.residual, self.by = whole("KIVI", "residual", residual), by
        if self.bits not in BITS:
            raise UserError(f"KIVI: bits must be one of {', '.join(map(str, BITS))}, got {bits}")
        if self.residual % self.group or self.group * self.bits % 8:
            raise UserError(
                f"KIVI: the residual must be a multiple of the group, and a group whole bytes, got "
                f"residual={residual}, group={group}, bits={bits}"
            )
        if not isinstance(by, str) or [part in self.AXES for part in by.split(" and ")] != [True, True]:
            raise UserError(f"KIVI: by must be such as 'channel and token', got {by!r}")

    whole = True

    def start(self, shapes, rows, dtype):
        for _, width in shapes:
            if width % min(self.group, width) or min(self.group, width) * self.bits % 8:
                raise UserError(f"{self!r}: heads of {width} numbers are not cut into groups of {self.group}")
        return KIVIMemory(self, shapes, rows, dtype)


class Rounded:
    """Keys, or values, of one layer. `room`: the arrays of a Packed, with room along axis 2, of which `units` are in
    use, `count` words; a unit is a word, or a group of words. `fresh`, (B, G, room, d): from `first` on it has the
    `there` words that are not rounded yet."""

    def __init__(self, cache, axis, at_once, shape, dtype):
        (B, G, d), self.cache, self.axis, self.at_once = shape, cache, axis, at_once
        group = cache.group if axis == "channel" else min(cache.group, d)
        groups = (d, 1) if axis == "channel" else (d // group,)
        self.room = [
            backend.zeros((B, G, 0, *groups, *more), kind)
            for more, kind in (((group * cache.bits // 8,), "uint8"), ((), SCALE), ((), SCALE))
        ]
        self.fresh, self.units, self.count = backend.zeros((B, G, 2 * cache.residual, d), dtype), 0, 0
        self.first, self.there = 0, 0

    @property
    def old(self):
        """(codes, low, step) in use."""
        return tuple(part[:, :, : self.units] for part in self.room)

    @property
    def new(self):
        """(B, G, t, d): what is not rounded yet."""
        return self.fresh[:, :, self.first : self.first + self.there]

    def append(self, x):
        """Put x, (B, n, G, d), behind the rest."""
        end = self.first + self.there + x.shape[1]
        if end > self.fresh.shape[2]:  # to the front of the same room, or of a larger one
            new, wanted = self.new.copy(), self.there + x.shape[1]
            if wanted > self.fresh.shape[2]:
                B, G, _, d = new.shape
                self.fresh = backend.zeros((B, G, wanted + self.cache.residual, d), new.dtype)
            self.first, end = 0, wanted
            self.fresh[:, :, : self.there] = new
        self.there += x.shape[1]
        self.fresh[:, :, end - x.shape[1] : end] = x.transpose(0, 2, 1, 3)

    def whole(self):
        """All numbers, (B, S, G, d)."""
        m = backend.xp(self.new)
        parts = [self.numbers(), self.new] if self.units else [self.new]
        return m.ascontiguousarray(m.concatenate(parts, axis=2).transpose(0, 2, 1, 3))

    def numbers(self):
        """(B, G, t, d) of what is rounded."""
        found = unpacked(*self.old, self.cache.bits, self.new.dtype)
        if self.axis == "token":
            return found
        return found.transpose(0, 1, 2, 4, 3).reshape(*found.shape[:2], -1, found.shape[3])

    def settle(self):
        """Round what is old enough."""
        residual, there = self.cache.residual, self.there
        if self.axis == "channel" or self.at_once:
            due = there // residual * residual
        else:
            due = max(0, there - residual)
        if not due:
            return
        part = self.new[:, :, :due]
        group = self.cache.group
        if self.axis == "channel":  # (B, G, t / group, d, group)
            B, G, _, d = part.shape
            part = part.reshape(B, G, -1, group, d).swapaxes(3, 4)
        else:
            group = min(group, part.shape[3])
        made = Packed(part, self.cache.bits, group)
        self.reserve(made)
        units = self.units + made.codes.shape[2]
        for mine, more in zip(self.room, made.arrays, strict=True):
            mine[:, :, self.units : units] = more
        self.units, self.count = units, self.count + due
        self.first, self.there = self.first + due, there - due
        if self.fresh.shape[2] > 2 * residual >= self.there:  # many words came at once
            new, self.first = self.new, 0
            self.fresh = backend.zeros((*new.shape[:2], 2 * residual, new.shape[3]), new.dtype)
            self.fresh[:, :, : self.there] = new

    def reserve(self, made):
        """Room for these, too: half as much again, where there is none."""
        wanted = self.units + made.codes.shape[2]
        if wanted > self.room[0].shape[2]:
            rooms = []
            for i, more in enumerate(made.arrays):
                larger = backend.zeros((*more.shape[:2], wanted + wanted // 2, *more.shape[3:]), more.dtype)
                larger[:, :, : self.units] = self.room[i][:, :, : self.units]
                rooms.append(larger)
            self.room = rooms

    def rows(self, rows):
        other = object.__new__(Rounded)
        vars(other).update(vars(self))
        other.fresh, other.room = self.fresh[rows], [part[rows] for part in self.room]
        return other

    @property
    def nbytes(self):
        """In use; there is room for half as much again."""
        return self.new.nbytes + sum(part.nbytes for part in self.old)


class KIVIMemory:
    """[(Rounded keys, Rounded values)] of the layers."""

    rounds = True  # words that have been followed by others cannot all be taken back

    def __init__(self, cache, shapes, rows, dtype):
        self.cache, axes = cache, cache.by.split(" and ")
        self.parts = [
            tuple(Rounded(cache, axis, i == 0, (rows, heads, width), dtype) for i, axis in enumerate(axes))
            for heads, width in shapes
        ]
        codes = [part.room[0] for parts in self.parts for part in parts]
        self.simple = cache.by == FAST and all(type(part) is np.ndarray for part in codes)
        self.simple = self.simple and kernels.packed.fits is not None
        self.simple = self.simple and kernels.packed.fits(*(part.shape[-1] for part in codes))

    @property
    def nbytes(self):
        return sum(part.nbytes for parts in self.parts for part in parts)

    def position(self, length):
        return length

    def reserve(self, length):
        """Arrays grow as words come."""

    def extend(self, i, q, k, v, turn, start):
        if turn is not None:
            turn(q, start)
            turn(k, start)
        self.append(i, k, v)
        return q, *(part.whole() for part in self.parts[i]), start

    def append(self, i, k, v):
        """Put these behind the others, of which what is old enough is rounded now: what the last pass added may have
        been rolled back before."""
        for part, new in zip(self.parts[i], (k, v), strict=True):
            part.settle()
            part.append(new)

    def reads(self, dtype):
        """Whether compiled loops read the codes as they are."""
        return self.simple and dtype == np.float32 and kernels.plan() == "fast"

    def attend(self, i, q, k, v, turn, start, scale):
        """Attention of one word, (B, 1, H, d), that looks at all others and reads codes as they are; None where this
        is not compiled for what is here, and nothing was done."""
        keys, values = self.parts[i]
        if q.shape[1] != 1 or not self.reads(q.dtype):
            return None
        if turn is not None:
            turn(q, start)
            turn(k, start)
        self.append(i, k, v)
        B, _, H, d = q.shape
        G = keys.fresh.shape[1]
        y = np.empty((B, G, H // G, d), np.float32)
        flat, sizes = [], []
        for part in (keys, values):
            codes, low, step = (array.reshape(B, G, -1) for array in part.room)
            flat.append((codes, low.view(np.uint16), step.view(np.uint16)))
            sizes += [part.units, *part.room[0].shape[-1 if part is keys else -2 :], part.first, part.there]
        fresh = (part.fresh.reshape(B, G, -1) for part in (keys, values))
        packed, arrays = kernels.packed, (flat[0], next(fresh), flat[1], next(fresh))
        how = np.float32(scale), packed.HALF, packed.PLACES[self.cache.bits]
        packed.attend(q.reshape(y.shape), *arrays, tuple(sizes), how, y)
        return y.reshape(q.shape)

    def rollback(self, length):
        least = max((part.count for parts in self.parts for part in parts), default=0)
        if length < least:
            raise UserError(
                f"{self.cache!r}: the first {least} words are rounded; a text cannot be rolled back to {length}"
            )
        for parts in self.parts:
            for part in parts:
                part.there = min(part.there, length - part.count)

    def branch(self, rows, length):
        other = object.__new__(KIVIMemory)
        rows = backend.asarray(rows)
        other.cache, other.simple, other.parts = (
            self.cache,
            self.simple,
            [tuple(part.rows(rows) for part in parts) for parts in self.parts],
        )
        return other
