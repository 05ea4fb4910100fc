"""Memory of the CPU that goes round: an array's block returns to a pool when its last view dies.

A training step asks for the same sizes again and again, so that after the first one the system is asked for nothing.
An array's base is a loan; views hold their base, and CPython frees the loan with the last of them. Taking and giving
back cost about a microsecond together. Arrays below SMALL bytes come from NumPy.

Temporaries of plain array expressions come from malloc. Where the C library is glibc it is told to keep large blocks
mapped: to map and clear 33 MB anew for each operation of an expression takes longer than the operation.
"""

import bisect
import contextlib
import ctypes
import functools
import platform
from math import prod
from operator import itemgetter

import numpy as np

SMALL = 1 << 14  # bytes; below, malloc is as good
GRAIN = 1 << 12  # sizes are multiples of this
AGE = 20_000  # takes after which an unused block goes


@functools.lru_cache(maxsize=4096)
def rounded(size):
    """The bytes of the block for so many: few sizes, however batches and lengths vary."""
    grain = max(GRAIN, (1 << size.bit_length()) // 16)
    return -(-size // grain) * grain


@functools.lru_cache(maxsize=4096)
def loans(size):
    """The class of the bases of arrays in blocks of this size: bytes that go home when they die."""
    return type("Loan", (ctypes.c_char * size,), {"__del__": lambda self: self.home.append(self.block)})


def lend(block, home, shape, dtype):
    """An array in a block, which goes back into `home` with the array's last view."""
    base = block[1].from_address(block[0])
    base.block, base.home = block, home
    return np.ndarray(shape, dtype, base)


def fresh(size):
    """A new block: (address, class of its loans, size, memory). Vectors like whole cache lines."""
    raw = np.empty(size + 64, np.uint8)
    return raw.ctypes.data + 63 & ~63, loans(size), size, raw


class Spaces:
    """The few blocks of what dies within a call, as many as are in use at once: they stay in the caches. The smallest
    that is large enough serves; where none is, a new one takes the place of the largest."""

    def __init__(self):
        self.free, self.asked = [], 0  # blocks in the order of their sizes

    def empty(self, shape, dtype):
        size = prod(shape) * dtype.itemsize
        i = bisect.bisect_left(self.free, size, key=itemgetter(2))
        try:
            block = self.free.pop(i)
        except IndexError:  # none, or another thread was first
            block = None
        if block is None or block[2] < size:
            if self.free:
                self.free.pop()
            self.asked += 1
            block = fresh(rounded(size))
        return lend(block, self, shape, dtype)

    def append(self, block):
        bisect.insort(self.free, block, key=itemgetter(2))


class Pool:
    """Free blocks by size. `asked`: how often the system was asked for a block; `held`: bytes taken from it."""

    def __init__(self):
        self.free, self.sizes, self.used = {}, [], {}  # size -> blocks; sizes in order; size -> last take
        self.asked = self.held = self.takes = 0

    def empty(self, shape, dtype, slack):
        """An uninitialised array. A free block of its size, or the smallest up to `slack` times as large, else new."""
        dtype = np.dtype(dtype)
        size = rounded(prod(shape) * dtype.itemsize)
        self.takes += 1
        home = self.free.get(size)
        try:
            block = home.pop()
            self.used[size] = self.takes
        except (AttributeError, IndexError):  # none of this size, or another thread was first
            block, home = self._larger(size, slack) or self._new(size)
        return lend(block, home, shape, dtype)

    def _larger(self, size, slack):
        for found in self.sizes[bisect.bisect_right(self.sizes, size) :]:
            if found > slack * size:
                break
            with contextlib.suppress(IndexError):
                block = self.free[found].pop()
                self.used[found] = self.takes
                return block, self.free[found]
        return None

    def _new(self, size):
        if size not in self.free:
            self.free[size] = []
            bisect.insort(self.sizes, size)
        self.used[size] = self.takes
        self.release(AGE)
        self.asked += 1
        self.held += size
        return fresh(size), self.free[size]

    def release(self, age=-1):
        """Give free blocks back to the system: of sizes that nobody asked for in so many takes, or all of them."""
        old = [size for size in self.sizes if self.free[size] and self.takes - self.used[size] > age]
        for size in old:
            self.held -= size * len(self.free[size])
            self.free[size].clear()
        if old:
            trim()


def trim():
    """Give what malloc holds free back to the system, where the C library is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


pool, spaces = Pool(), Spaces()


def empty(shape, dtype):
    """An uninitialised array of the pool."""
    shape, dtype = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
    if prod(shape) * dtype.itemsize < SMALL:
        return np.empty(shape, dtype)
    return pool.empty(shape, dtype, 2)


def workspace(shape, dtype):
    """An uninitialised array that dies within the call of a kernel."""
    dtype = np.dtype(dtype)
    if prod(shape) * dtype.itemsize < SMALL:
        return np.empty(shape, dtype)
    return spaces.empty(shape, dtype)


def keep_mapped():
    """Tell glibc's malloc to keep what it has: no block of its own for a large array, nothing given back at once."""
    with contextlib.suppress(OSError, AttributeError):
        if platform.libc_ver()[0] == "glibc":
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-4, 0)  # M_MMAP_MAX
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


keep_mapped()
