"""Random numbers without a state.

Draws are functions of (seed, stream, counter), stream being a word such as "dropout". `generator` makes a NumPy
generator for the many numbers of an epoch; `key` makes the 64-bit number from which kernels draw by element index:

    mix(z):   z ^= z >> 30;  z *= 0xBF58476D1CE4E5B9;  z ^= z >> 27;  z *= 0x94D049BB133111EB;  z ^= z >> 31
    uniform(key) of element i = ((mix(key + (i+1) G) >> 41) + 1/2) 2^-23              exact in float32, inside (0, 1)
    normal(key) of element i  = sqrt(-2 log u1) cos(2 pi u2)                          Box & Muller 1958, in float64
        u1, u2 = ((mix(key + (2i+1) G) >> 11) + 1/2) 2^-53,  ((mix(key + (2i+2) G) >> 11) + 1/2) 2^-53

with G = 0x9E3779B97F4A7C15 and all integers modulo 2^64: the SplitMix64 generator of Steele, Lea & Flood, OOPSLA 2014,
read at any position.

Here they are defined, for one element; noise.py fills arrays with them.
"""

import functools
import hashlib
import inspect

from npopt.backend import elementary
from npopt.backend.elementary import cosine_of_turns, log

import numba
import numpy as np

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    """SplitMix64's finaliser: 64 bits in, 64 well-stirred bits out."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@functools.lru_cache(maxsize=4096)
def _stream(seed, stream):
    return int.from_bytes(hashlib.blake2b(f"{int(seed)}/{stream}".encode(), digest_size=8).digest(), "little")


def key(seed, stream, counter=0):
    """The 64-bit key of (seed, stream, counter): `normal(key)` and `uniform(key)` draw from it by element index."""
    return mix((_stream(seed, stream) + (int(counter) + 1) * GOLDEN) & MASK)


def uniform_at(key, i):
    """Uniform number i of a key, a float: that of row_uniform and of uniform(key), without an array for it."""
    return ((mix((key + (i + 1) * GOLDEN) & MASK) >> 41) + 0.5) * 2.0**-23


def generator(seed, stream, counter=0):
    """A NumPy Generator that is a function of (seed, stream, counter); it takes about 10 us, so make one an epoch, not
    one a step."""
    k = key(seed, stream, counter)
    return np.random.Generator(np.random.Philox(key=np.array([k, mix(k)], dtype=np.uint64)))


@numba.njit(inline="always", error_model="numpy")
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(inline="always", error_model="numpy")
def hashed_uniform(key, i):
    """Uniform number i (uint64) of key (uint64), in (0, 1), a multiple of 2^-24."""
    z = _mix(key + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return (np.float64(z >> np.uint64(41)) + 0.5) * 2.0**-23


@numba.njit(inline="always", error_model="numpy")
def hashed_normal(key, i):
    """Standard normal number i (uint64) of key (uint64), float64."""
    g, two = np.uint64(0x9E3779B97F4A7C15), np.uint64(2)
    u = (np.float64(np.int64(_mix(key + (two * i + np.uint64(1)) * g) >> np.uint64(11))) + 0.5) * 2.0**-53
    v = (np.float64(np.int64(_mix(key + (two * i + two) * g) >> np.uint64(11))) + 0.5) * 2.0**-53
    return np.sqrt(-2.0 * log(u)) * cosine_of_turns(v)


# Compiled formulas inline these: their text is part of the cache's key.
DRAWS_TEXT = inspect.getsource(elementary) + "".join(
    inspect.getsource(f.py_func) for f in (_mix, hashed_uniform, hashed_normal)
)

CUDA_DRAWS = """
__device__ inline unsigned long long mix64(unsigned long long z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}
__device__ inline double hashed_uniform(unsigned long long key, unsigned long long i) {
    return ((double)(mix64(key + (i + 1) * 0x9E3779B97F4A7C15ULL) >> 41) + 0.5) * 1.1920928955078125e-07;
}
__device__ inline double hashed_normal(unsigned long long key, unsigned long long i) {
    double u = ((double)(mix64(key + (2 * i + 1) * 0x9E3779B97F4A7C15ULL) >> 11) + 0.5) * 1.1102230246251565e-16;
    double v = ((double)(mix64(key + (2 * i + 2) * 0x9E3779B97F4A7C15ULL) >> 11) + 0.5) * 1.1102230246251565e-16;
    return sqrt(-2.0 * log(u)) * cospi(2.0 * v);
}
"""
