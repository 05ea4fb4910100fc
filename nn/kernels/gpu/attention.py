"""Attention in one launch forward and two backward, scores in registers: attention.cuh has the way they go.

With N pairs that may see each other (B H T S, half of it under a causal mask) and heads of D numbers, operations are
4 N D forward and 14 N D backward. Memory is read and written for q, k, v, o, do and the gradients alone, and for lse
and do . o, one number each for a query and head. float32 numbers are multiplied in float32 (attention.cu), or on
tensor cores if backend.precision("tf32") is set; float16 and bfloat16 on tensor cores (attention_tensor.cu).

These go the way of array code, in blocks: float64, relative positions (tables), heads of more than 128 numbers or of
numbers that do not fill 16 bytes, and arrays that do not begin at a multiple of 16 bytes. So do cards before compute
capability 8.0, and heads of more than 64 numbers where a block may have less than 104 KB of shared memory.
"""

import functools

from npopt import backend
from npopt.backend.draws import CUDA_DRAWS

import numpy as np

from .. import reference_attention
from .launch import Program, blocks

WIDEST = 128  # numbers of a head
SHAPES = {  # (rows, columns, stages) of a block's tiles: float32 numbers in float32, in TF32, numbers of two bytes
    "attention_64": (64, 32, 2),
    "attention_128": (64, 32, 2),
    "attention_queries_64": (64, 32, 2),
    "attention_queries_128": (64, 32, 1),
    "attention_keys_64": (64, 32, 2),
    "attention_keys_128": (64, 32, 1),
}
TENSOR = {  # of numbers of four bytes and of two
    "attention_mma_64": ((128, 32, 2), (128, 64, 2)),
    "attention_mma_128": ((64, 32, 2), (128, 64, 2)),
    "attention_mma_queries_64": ((64, 32, 2), (64, 64, 2)),
    "attention_mma_queries_128": ((64, 32, 1), (64, 64, 2)),
    "attention_mma_keys_64": ((64, 32, 2), (64, 64, 2)),
    "attention_mma_keys_128": ((64, 32, 1), (64, 32, 2)),
}
THREADS = 128
LEAST = 99 << 10  # bytes of shared memory of a block, on cards since 2020: older ones know no copies on their way to it


@functools.cache
def chunks(name, itemsize):
    """The pieces of 16 bytes of shared memory that a block of this kernel has."""
    rows, columns, stages = SHAPES[name] if name in SHAPES else TENSOR[name][itemsize == 2]
    of_row = int(name.rpartition("_")[2]) * itemsize // 16
    spare = rows * columns // 4 if name in SHAPES else 0  # p, on its way from thread to thread
    return ((rows if name.count("_") == 1 + (name in TENSOR) else 2 * rows) + 2 * stages * columns) * of_row + spare


PARTS = "tensor.cuh", "attention.cuh", "attention_passes.cuh"
program = Program(
    *PARTS,
    "attention.cu",
    before=CUDA_DRAWS,
    shared={name: 16 * chunks(name, 4) for name in SHAPES},
)
tensor_program = Program(
    *PARTS,
    "attention_tensor.cu",
    before=CUDA_DRAWS,
    shared={name: 16 * max(chunks(name, 2), chunks(name, 4)) for name in TENSOR},
)


def attention(q, k, v, o, lse, how):
    if not takes(how, lse, (q, k, v, o)):
        reference_attention.attention_in_blocks(q, k, v, o, lse, how)
        return
    _run(0, q, k, how, q.shape[:3], (q, k, v, o, lse))


def attention_backward(q, k, v, o, lse, do, grads, how):
    dq, dk, dv = grads[:3]
    if not takes(how, lse, (q, k, v, o, do, dq, dk, dv)):
        reference_attention.attention_in_blocks_backward(q, k, v, o, lse, do, grads, how)
        return
    dots = backend.workspace(lse.shape, "float32")  # do . o, which the first launch leaves for the second
    _run(1, q, k, how, q.shape[:3], (q, k, v, o, do, lse, dots, dq, None))
    _run(2, q, k, how, k.shape[:3], (q, k, v, o, do, lse, dots, dk, dv))


def takes(how, lse, arrays):
    """Whether the kernels take these arrays, and these options."""
    d, item = arrays[0].shape[3], arrays[0].itemsize
    return (
        how.tables is None
        and d <= WIDEST
        and not d * item % 16
        and max(LEAST, *(16 * chunks(name, item) for name in names(arrays[0]))) <= backend.owner(arrays[0]).block_memory
        and lse.dtype.name == "float32"
        and all(a.dtype == arrays[0].dtype and a.flags.c_contiguous and not a.data.ptr % 16 for a in arrays)
    )


def names(q):
    """The kernels for queries like q: forward, for dq, for dk and dv."""
    exact = q.dtype.name == "float32" and backend.owner(q).products_in == "float32"
    width = 64 if q.shape[3] <= 64 else WIDEST
    return [f"attention_{'' if exact else 'mma_'}{part}{width}" for part in ("", "queries_", "keys_")]


def _run(part, q, k, how, heads, arrays):
    """Launch a block for some rows of each head; part: which of `names`; heads: (B, queries or keys, heads)."""
    name, (batch, length, count) = names(q)[part], heads
    size, exact = chunks(name, q.itemsize), name in SHAPES
    rows = (SHAPES[name] if exact else TENSOR[name][q.itemsize == 2])[0]
    grid, which = (batch * count * blocks(length, rows),), program if exact else tensor_program
    which(name, q)(grid, (THREADS,), (*arrays, *options(q, k, how), size), shared_mem=16 * size)


def options(q, k, how):
    """The arguments OPTIONS of a kernel, but for the last."""
    (_, queries, heads, d), (_, keys, groups, _) = q.shape, k.shape
    kind, length, columns = (*how.pattern, 0, 0)[:3] if how.pattern else ("", 0, 0)
    rate, key, rows = how.dropout or (0.0, 0, None)
    slopes = None if how.slopes is None else how.slopes.astype("float32", copy=False)
    rows = None if rows is None else rows.astype("int64", copy=False)
    return (
        *(queries, keys, heads, groups, d, int(how.first), int(how.causal), int(how.window)),
        *(("", "strided", "fixed").index(kind), int(length), int(columns), float(how.scale)),
        *(a if a is None or a.flags.c_contiguous else a.copy() for a in (how.keep, slopes, rows)),
        np.uint64(key),
        np.uint64(max(0, np.ceil(float(np.float32(rate)) * 2**23 - 0.5))),  # a draw is (n + 1/2) / 2^23, n whole
        float(1 / (1 - rate)) if rate else 0.0,
    )
