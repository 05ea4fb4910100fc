"""Memory of the CPU that goes round: an array's block returns to a pool when its last view dies.

A training step asks for the same sizes again and again, so that after the first one the system is asked for nothing.
An array's base is a Loan; views hold their base, and CPython frees the Loan with the last of them. Taking and giving
back cost about a microsecond together. Arrays below SMALL bytes come from NumPy.

Temporaries of plain array expressions come from malloc. Where the C library is glibc it is told to keep large blocks
mapped: to map and clear 33 MB anew for each operation of an expression takes longer than the operation.
"""

import bisect
import contextlib
import ctypes
import platform
from math import prod

import numpy as np

SMALL = 1 << 14                                                 # bytes; below, malloc is as good
GRAIN = 1 << 12                                                 # sizes are multiples of this
AGE = 20_000                                                    # takes after which an unused block goes


class Loan:
    """The base of a lent array; when it dies, its block goes home."""

    __slots__ = ("__array_interface__", "block", "home")

    def __init__(self, block, home, shape, dtype):
        self.block, self.home = block, home
        self.__array_interface__ = {"data": (block[0], False), "shape": shape, "typestr": dtype.str, "version": 3}

    def __del__(self):
        self.home.append(self.block)


class Pool:
    """Free blocks by size. `asked`: how often the system was asked for a block; `held`: bytes taken from it."""

    def __init__(self):
        self.free, self.sizes, self.used = {}, [], {}           # size -> blocks; sizes in order; size -> last take
        self.asked = self.held = self.takes = 0

    def empty(self, shape, dtype, slack):
        """An uninitialised array. A free block of its size, or the smallest up to `slack` times as large, else new."""
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        grain = max(GRAIN, (1 << size.bit_length()) // 16)      # few sizes, however batches and lengths vary
        size = -(-size // grain) * grain
        block, home = self._take(size, slack)
        return np.asarray(Loan(block, home, shape, dtype))

    def _take(self, size, slack):
        self.takes += 1
        i = bisect.bisect_left(self.sizes, size)
        for found in self.sizes[i:]:
            if found > slack * size:
                break
            with contextlib.suppress(IndexError):               # none free, or another thread was first
                block = self.free[found].pop()
                self.used[found] = self.takes
                return block, self.free[found]
        if size not in self.free:
            self.free[size] = []
            bisect.insort(self.sizes, size)
        self.used[size] = self.takes
        self.release(AGE)
        self.asked += 1
        self.held += size
        raw = np.empty(size + 64, np.uint8)
        return (raw.ctypes.data + 63 & ~63, raw), self.free[size]       # vectors like whole cache lines

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


pool = Pool()


def empty(shape, dtype):
    """An uninitialised array of the pool."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if prod(shape) * np.dtype(dtype).itemsize < SMALL:
        return np.empty(shape, dtype)
    return pool.empty(shape, dtype, slack=2)


def workspace(shape, dtype):
    """An uninitialised array that dies within the call of a kernel: any free block that is large enough will do."""
    if prod(shape) * np.dtype(dtype).itemsize < SMALL:
        return np.empty(shape, dtype)
    return pool.empty(shape, dtype, slack=1 << 30)


def keep_mapped():
    """Tell glibc's malloc to keep what it has: no block of its own for a large array, nothing given back at once."""
    with contextlib.suppress(OSError, AttributeError):
        if platform.libc_ver()[0] == "glibc":
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(-4, 0)                                      # M_MMAP_MAX
            mallopt(-1, 2**31 - 1)                              # M_TRIM_THRESHOLD


keep_mapped()
