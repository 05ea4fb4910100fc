"""Random numbers without a state.

Draws are functions of (seed, stream, counter), stream being a word such as "dropout". `generator` makes a NumPy
generator for the many numbers of an epoch; `key` makes the 64-bit number from which kernels draw by element index:

    mix(z):   z ^= z >> 30;  z *= 0xBF58476D1CE4E5B9;  z ^= z >> 27;  z *= 0x94D049BB133111EB;  z ^= z >> 31
    uniform(key) of element i = ((mix(key + (i+1) G) >> 41) + 1/2) 2^-23              exact in float32, inside (0, 1)
    normal(key) of element i  = sqrt(-2 log u1) cos(2 pi u2)                          Box & Muller 1958, in float64
        u1, u2 = ((mix(key + (2i+1) G) >> 11) + 1/2) 2^-53,  ((mix(key + (2i+2) G) >> 11) + 1/2) 2^-53

with G = 0x9E3779B97F4A7C15 and all integers modulo 2^64: the SplitMix64 generator of Steele, Lea & Flood, OOPSLA 2014,
read at any position.
"""

import functools
import hashlib

from npopt.backend.devices import kernel
from npopt.backend.formulas import CUDA_DRAWS, elementwise, hashed_uniform

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


def generator(seed, stream, counter=0):
    """A NumPy Generator that is a function of (seed, stream, counter); about 10 us, so one an epoch, not one a step."""
    k = key(seed, stream, counter)
    return np.random.Generator(np.random.Philox(key=np.array([k, mix(k)], dtype=np.uint64)))


@elementwise
def _normals(out, key):
    out = normal(key)  # noqa: F821
    return out


@elementwise
def _uniforms(out, key):
    out = uniform(key)  # noqa: F821
    return out


@numba.njit(cache=True, error_model="numpy")
def _row_uniforms_cpu(out, rows, key):
    width = out.shape[1]
    for b in range(out.shape[0]):
        start = np.uint64(rows[b]) * np.uint64(width)
        for j in range(width):
            out[b, j] = hashed_uniform(key, start + np.uint64(j))


_row_uniforms = kernel(
    cpu=_row_uniforms_cpu,
    gpu=CUDA_DRAWS
    + """
extern "C" __global__ void row_uniforms(void* out, const long long* rows, unsigned long long key,
                                        long long width, long long n, int is_double) {
    long long i = blockDim.x * (long long)blockIdx.x + threadIdx.x;
    if (i >= n) return;
    double u = hashed_uniform(key, (unsigned long long)(rows[i / width] * width + i % width));
    if (is_double) ((double*)out)[i] = u; else ((float*)out)[i] = (float)u;
}""",
    name="row_uniforms",
    size=lambda out, rows, key: out.size,
    gpu_arguments=lambda out, rows, key: (
        out, rows, np.uint64(key), np.int64(out.shape[1]), np.int64(out.size), np.int32(out.dtype == np.float64)
    ),
)


def normals(key, out, offset=0):
    """out[i] <- the normal number offset+i of key, for a flat array: the numbers of normal(key) in a formula."""
    _normals(out, key, offset=offset)
    return out


def row_uniform(key, rows, out):
    """out[b, j] <- the number rows[b] D + j of key, U(0, 1); out: (B, D), rows: (B,) int64, or None for 0, 1, ..., B-1.

    A row's numbers depend on the row alone, not on the batch that it came in.
    """
    if rows is None:
        _uniforms(out.reshape(-1), key)
    else:
        _row_uniforms(out, rows, np.uint64(key))
    return out
