"""A pass over rows on a device as a few kernels: what `arrays` of model.py does as array code, for losses in CUDA.

z = A W'                    a product
s = l'(z + c; y)            one kernel, with the rows' losses and the slopes times their weights, ws
out = ws' A / B + l2 W      a product and one kernel; the intercepts' part a sum more
value                       one kernel
"""

import functools
import pathlib

from npopt import backend
from npopt.backend import elementwise, kernel
from problems.linear.formula import cuda

import numpy as np

SOURCE = pathlib.Path(__file__).parent / "rows.cu"


@elementwise
def finish(out, g, x, share, c):
    out = share * g + c * x
    return out


class Fused:
    """(value, s) = fused(A, y, x, weights, l2, out): as LinearModel.arrays, for rows A: (B, d) and labels y: (B,)."""

    def __init__(self, loss, intercept):
        self.K, self.intercept = loss.outputs, intercept
        self.slopes, self.value = kernels(loss)
        self.numbers = backend.asarray(np.array([*loss, 0.0]))  # the 0 so that it is not empty

    def __call__(self, A, y, x, weights, l2, out):
        xp, K, (B, d) = backend.xp(x), self.K, A.shape
        weighted = K * d
        weights = weights if weights.shape[0] else None
        z, values = A @ x[:weighted].reshape(K, d).T, backend.empty((B,), np.float64)
        ws = None if weights is None or not out.shape[0] else backend.empty((B, K), x.dtype)
        self.slopes(z, ws, values, x[weighted:] if self.intercept else None, y, weights, self.numbers)
        if out.shape[0]:
            decay, ws = l2 if weights is None else weights.sum() * (l2 / B), z if ws is None else ws
            finish(out[:weighted], (ws.T @ A).reshape(-1), x[:weighted], 1 / B, decay)
            if self.intercept:
                xp.mean(ws, axis=0, out=out[weighted:])
        value = backend.empty((), np.float64)
        self.value(value, values, x, weights, l2, weighted)
        return value, z


@functools.cache
def kernels(loss):
    """(slopes, value) for a loss, or None where it has no text."""
    text = cuda(loss)
    if text is None:
        return None
    source = text + SOURCE.read_text()

    def slopes(z, ws, values, c, y, weights, numbers):
        found, z[...] = loss.arrays(z if c is None else z + c, y, np)
        values[...] = found if weights is None else found * weights
        if ws is not None:
            ws[...] = z * weights[:, None]

    def value(value, values, x, weights, l2, weighted):
        W = x[:weighted].astype(np.float64)
        total = len(values) if weights is None else weights.sum()
        value[...] = (values.sum() + 0.5 * l2 * total * (W @ W)) / len(values)

    return (
        kernel(
            cpu=slopes,
            gpu=source,
            name="rows_slopes",
            size=lambda z, *_: z.shape[0],
            gpu_arguments=lambda z, *rest: (z, *rest, z.shape[1], z.shape[0], np.int32(z.dtype == np.float64)),
        ),
        kernel(
            cpu=value,
            gpu=source,
            name="rows_value",
            size=lambda *_: 256,  # one block
            gpu_arguments=lambda value, values, x, weights, l2, weighted: (
                *(value, values, x, weights, float(l2), values.shape[0], weighted),
                np.int32(x.dtype == np.float64),
            ),
        ),
    )
