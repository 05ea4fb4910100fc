"""Arrays full of draws: the numbers of draws.py, by element index or by row."""

from npopt.backend.devices import kernel
from npopt.backend.draws import CUDA_DRAWS, hashed_uniform
from npopt.backend.formulas import elementwise

import numba
import numpy as np


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
        out,
        rows,
        np.uint64(key),
        np.int64(out.shape[1]),
        np.int64(out.size),
        np.int32(out.dtype == np.float64),
    ),
)


def normals(key, out, offset=0):
    """out[i] <- the normal number offset+i of key, for a flat array: the numbers of normal(key) in a formula."""
    _normals(out, key, offset=offset)
    return out


def uniforms(key, out, offset=0):
    """out[i] <- the number offset+i of key, U(0, 1), for a flat array: the numbers of uniform(key) in a formula."""
    _uniforms(out, key, offset=offset)
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
