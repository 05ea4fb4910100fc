"""Memory of the CPU that is used again: an array's block returns to a pool when the last view of the array dies.

A training step asks for the same sizes again and again. So only the first step asks the system for memory. The base of
an array is an object of the class Loan. Views hold their base, and CPython frees it with the last of them. Taking and
giving back cost about a microsecond together. Arrays below SMALL bytes come from NumPy.

Temporaries of plain array expressions come from malloc. Where the C library is glibc, its malloc is told to keep large
blocks mapped. Otherwise each operation of an expression maps and clears, say, 33 MB anew, and that takes longer than
the operation itself.
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
    """The size of the block for an array of `size` bytes: rounded up, so that few sizes occur however batches vary."""
    grain = max(GRAIN, (1 << size.bit_length()) // 16)
    return -(-size // grain) * grain


@functools.lru_cache(maxsize=4096)
def loans(size):
    """The class Loan for blocks of this size. It is the base of arrays, and its block goes home when it dies."""
    return type("Loan", (ctypes.c_char * size,), {"__del__": lambda self: self.home.append(self.block)})


def lend(block, home, shape, dtype):
    """An array in a block. The block goes back into `home` when the array's last view dies."""
    base = block[1].from_address(block[0])
    base.block, base.home = block, home
    return np.ndarray(shape, dtype, base)


def fresh(size):
    """A new block: (address, class of its loans, size, memory). The address is a multiple of 64, a cache line."""
    raw = np.empty(size + 64, np.uint8)
    return raw.ctypes.data + 63 & ~63, loans(size), size, raw


class Spaces:
    """Blocks for arrays that die within a call. They are as many as are in use at once, so they stay in the caches.
    The smallest free block that is large enough serves. If there is none, a new block replaces the largest free one."""

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
        """An uninitialised array: in a free block of its size, else of up to `slack` times its size, else in a new
        one."""
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
        """Give free blocks back to the system: those of sizes that the last `age` takes did not ask for, or all."""
        old = [size for size in self.sizes if self.free[size] and self.takes - self.used[size] > age]
        for size in old:
            self.held -= size * len(self.free[size])
            self.free[size].clear()
        if old:
            trim()


def trim():
    """Give what malloc holds free back to the system. This is done only where the C library is glibc."""
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
    """Tell glibc's malloc to keep what it has. It maps no block of its own for a large array and gives nothing back."""
    with contextlib.suppress(OSError, AttributeError):
        if platform.libc_ver()[0] == "glibc":
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-4, 0)  # M_MMAP_MAX
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


keep_mapped()
