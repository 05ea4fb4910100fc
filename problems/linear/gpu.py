"""Stretches on a GPU: one launch of one block makes many steps, one after the other.

    dense.cu   dense_single_steps, dense_batch_steps         sparse.cu   sparse_single_steps, sparse_batch_steps

`single` is one row a step and one output. The block has 32 to 256 threads. What the steps share lies in its shared
memory. x, or the cells of sparse rows, lie there, too, where they fit. All that depends on the rates alone is computed
here, in the order of the CPU's loop. A stretch costs two transfers to the device and one back, the losses.
"""

import functools
import pathlib

from npopt import backend
from npopt.backend.cuda import Program, compiles
from problems.linear.formula import cuda
from problems.linear.steps import Sparse

import numpy as np

HERE = pathlib.Path(__file__).parent
SLOTS, OUTPUTS = 768, 128  # of steps.cuh
WIDEST = 1 << 18  # numbers that a step may read: beyond it kernels of many blocks are faster (estimated, not measured)


def takes(problem, size):
    """Whether batches of this size can be a stretch on the problem's device."""
    K = problem.outputs
    fits = size * K <= SLOTS and K <= OUTPUTS and size * K * width(problem.stretch_data()) <= WIDEST
    return fits and compiles(problem.y) and program(problem.loss, "dense") is not None


def width(data):
    """Numbers of a row, the mean where rows are sparse."""
    return data.values.size / data.y.size if isinstance(data, Sparse) else data.X.shape[1]


@functools.cache
def program(loss, storage):
    """The kernels for a loss, or None. (Losses of one kind share a text, so they also share its compiled form.)"""
    text = cuda(loss)
    return None if text is None else shared(text, storage)


@functools.cache
def shared(text, storage):
    return Program(HERE / "steps.cuh", HERE / f"{storage}.cu", before=text)


def threads(wanted):
    """A power of two from 32 to 256."""
    return min(256, max(32, 1 << int(np.ceil(np.log2(max(wanted, 1))))))


def stretch(loss, data, x, batches, rule, memory, losses):
    """As the loops of dense.py and sparse.py: batches, rates and losses are on the host, the rest on the device."""
    rows, weights, size = batches
    steps, K, dim = rule.rates.size, memory.table.shape[1], x.size
    reduced, sparse = memory.table.shape[0] > 0, isinstance(data, Sparse)
    d = data.d if sparse else data.X.shape[1]
    plan = timetable(rule, batches, reduced, sparse)
    numbers = backend.asarray(np.concatenate([plan.ravel(), weights, np.array(tuple(loss), np.float64)]))
    after = numbers[plan.size :]
    there, found = backend.asarray(np.asarray(rows, np.int64)), backend.empty((steps,), np.float64)
    shapes = data.y.size, steps, d, dim, K, size
    given = (
        *(x, data.y, there, after if weights.size else None, numbers, after[weights.size :]),
        *((memory.table, memory.mean) if reduced else (None, None)),
        *(memory.buffer if memory.buffer.size else None, found, *shapes),
        *(rule.l2, rule.l1, rule.beta, int(memory.moves)),
    )
    single = size == K == 1
    kernel = program(loss, "sparse" if sparse else "dense")(
        f"{'sparse' if sparse else 'dense'}_{'single' if single else 'batch'}_steps", x
    )
    if sparse:
        kept = data.values, data.indices, data.indptr, backend.empty((3 * K * d,), np.float64)
        block = threads(width(data) if single else 32 * size * K)
    else:
        kept, block = (data.X,), threads(dim / 4 if single else max(32 * size * K, dim / 4))
    kernel((1,), (block,), (*kept, *given))
    losses[:] = backend.to_host(found)
    bad = np.flatnonzero(~np.isfinite(losses))
    return bad[0] if bad.size else steps


def timetable(rule, batches, reduced, sparse):
    """What the kernels call `plan`: numbers of each step, (., steps + 1)."""
    rates, steps = rule.rates, rule.rates.size
    decay = np.full(steps, rule.l2)
    if not reduced and batches.weights.size:  # SGD weights the l2 term too, as part of f_i
        decay = rule.l2 * batches.weights.reshape(steps, batches.size).mean(1)
    shrink, grow = 1.0 - rates * decay, 1.0 + rates * rule.ridge
    if not sparse:
        return np.stack([np.append(row, 0.0) for row in (rates, decay, 1.0 / grow)])
    S = np.cumprod(np.append(1.0, shrink / grow))
    d = rates / (S[:-1] * shrink)
    return np.stack([np.append(rates, 0.0), np.append(d, 0.0), np.cumsum(np.append(0.0, d)), S])
