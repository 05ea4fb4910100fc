"""Sparse matrices on a device: some rows times a dense matrix, and a dense matrix times some rows.

    A = Csr(matrix)          a canonical scipy.sparse CSR matrix (n, d), copied to the device in use
    A @ V                    (n, K) for V: (d, K)
    S @ A                    (K, d) for S: (K, n)
    A[rows]                  the rows (B,) int64 of A in that order, repeats allowed; nothing is copied

Both products are one kernel, which multiplies rows of a sparse matrix by a dense one. For S @ A these rows are the
columns of A, of which a second copy is kept, and the columns of S are put where their rows of A are. One warp sums each
number in a fixed order, in float64. So equal calls give equal bits. Sums by atomic additions (as in cuSPARSE) do not
give that. The price: S @ A reads all non-zeros of A, even where A stands for a few of its rows.
"""

from npopt.backend.devices import asarray, kernel, xp
from npopt.errors import UserError

import numba
import numpy as np


@numba.njit(cache=True)
def _rows_times_cpu(out, data, indices, indptr, rows, dense):
    for b in range(rows.size):
        for k in range(dense.shape[1]):
            total = 0.0
            for p in range(indptr[rows[b]], indptr[rows[b] + 1]):
                total += np.float64(data[p]) * dense[indices[p], k]
            out[b, k] = total


_rows_times = kernel(
    cpu=_rows_times_cpu,
    gpu="""
template <typename T> __device__ void rows_times(
    T* out, const T* data, const int* indices, const int* indptr, const long long* rows, const T* dense, long long K,
    long long out_row, long long out_column, long long dense_row, long long dense_column, long long i) {
    long long b = i / 32 / K, k = i / 32 % K;
    double total = 0;
    for (int p = indptr[rows[b]] + (int)(i % 32); p < indptr[rows[b] + 1]; p += 32)
        total += (double)data[p] * (double)dense[indices[p] * dense_row + k * dense_column];
    for (int step = 16; step; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
    if (i % 32 == 0) out[b * out_row + k * out_column] = (T)total;
}
extern "C" __global__ void sparse_rows_times(
    void* out, const void* data, const int* indices, const int* indptr, const long long* rows, const void* dense,
    long long K, long long out_row, long long out_column, long long dense_row, long long dense_column, long long n,
    int is_double) {
    long long i = blockDim.x * (long long)blockIdx.x + threadIdx.x;
    if (i >= n) return;                                       // n is a multiple of 32: whole warps stop here
    if (is_double)
        rows_times((double*)out, (const double*)data, indices, indptr, rows, (const double*)dense, K, out_row,
                   out_column, dense_row, dense_column, i);
    else
        rows_times((float*)out, (const float*)data, indices, indptr, rows, (const float*)dense, K, out_row, out_column,
                   dense_row, dense_column, i);
}""",
    name="sparse_rows_times",
    size=lambda out, data, indices, indptr, rows, dense: 32 * out.size,
    gpu_arguments=lambda out, data, indices, indptr, rows, dense: (
        out,
        data,
        indices,
        indptr,
        rows,
        dense,
        *_numbers(out.shape[1], *_strides(out), *_strides(dense), 32 * out.size),
        np.int32(out.dtype == np.float64),
    ),
)


@numba.njit(cache=True)
def _spread_cpu(out, rows, values):
    for b in range(rows.size):
        for k in range(values.shape[0]):
            out[rows[b], k] += values[k, b]


_spread = kernel(
    cpu=_spread_cpu,
    gpu="""
template <typename T> __device__ void spread(
    T* out, const long long* rows, const T* values, long long K, long long B, long long row, long long column,
    long long i) {
    long long b = i / K, k = i % K;
    for (long long c = 0; c < b; c++)
        if (rows[c] == rows[b]) return;                       // the first of equal rows sums for all of them
    T total = 0;
    for (long long c = b; c < B; c++)
        if (rows[c] == rows[b]) total += values[k * row + c * column];
    out[rows[b] * K + k] = total;
}
extern "C" __global__ void sparse_spread(void* out, const long long* rows, const void* values, long long K, long long B,
                                         long long row, long long column, int is_double) {
    long long i = blockDim.x * (long long)blockIdx.x + threadIdx.x;
    if (i >= K * B) return;
    if (is_double) spread((double*)out, rows, (const double*)values, K, B, row, column, i);
    else spread((float*)out, rows, (const float*)values, K, B, row, column, i);
}""",
    name="sparse_spread",
    size=lambda out, rows, values: values.size,
    gpu_arguments=lambda out, rows, values: (
        out,
        rows,
        values,
        *_numbers(*values.shape, *_strides(values)),
        np.int32(out.dtype == np.float64),
    ),
)


def _numbers(*values):
    return [np.int64(value) for value in values]


def _strides(array):
    """In numbers, not bytes."""
    return [stride // array.itemsize for stride in array.strides]


class Csr:
    """See the module. It has a shape and a dtype, and the dense factor must have the same dtype."""

    __array_ufunc__ = None  # so that S @ A comes to __rmatmul__

    def __init__(self, matrix):
        self.shape, self.dtype = matrix.shape, matrix.dtype
        columns = matrix.tocsc()
        self.by_rows, self.by_columns = (
            [asarray(part.data), asarray(part.indices, np.int32), asarray(part.indptr, np.int32)]
            for part in (matrix, columns)
        )
        self.rows, self.whole = xp().arange(matrix.shape[0]), self
        self.columns = xp().arange(matrix.shape[1])

    def __getitem__(self, rows):
        found = object.__new__(Csr)
        found.__dict__.update(self.__dict__, rows=rows, shape=(rows.shape[0], self.shape[1]))
        return found

    def __matmul__(self, dense):
        self.fits(dense)
        out = xp(dense).empty((self.shape[0], dense.shape[1]), self.dtype)
        _rows_times(out, *self.by_rows, self.rows, dense)
        return out

    def __rmatmul__(self, dense):
        self.fits(dense)
        m, placed = xp(dense), dense.T
        if self is not self.whole:
            placed = m.zeros((self.whole.shape[0], dense.shape[0]), self.dtype)
            _spread(placed, self.rows, dense)
        out = m.empty((dense.shape[0], self.shape[1]), self.dtype)
        _rows_times(out.T, *self.by_columns, self.columns, placed)
        return out

    def fits(self, dense):
        if dense.dtype != self.dtype:
            raise UserError(f"a sparse matrix of {self.dtype} meets {dense.dtype}; convert one of them")
