"""Normalisation by the features, row by row."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

from . import kernels
from .layer import Layer
from .norms import ONES, ZEROS


class OfRows(Layer):
    """What LayerNorm and RMSNorm share: rows of a batch of any shape, contiguous."""

    reads_output, positionwise = False, True

    def output_shape(self, shape):
        if shape[-1] != self.features:
            raise UserError(f"{type(self).__name__}: x has {shape[-1]} features, the layer {self.features}")
        return tuple(shape)

    def rows(self, x):
        """x as (N, D), without gaps."""
        x = x.reshape(-1, self.features)
        return x if x.flags.c_contiguous else x.copy()

    def __repr__(self):
        return f"{type(self).__name__}({self.features}, eps={self.eps})"


class LayerNorm(OfRows):
    """y = a xh + b, xh = (x - m) r, r = (v + eps)^(-1/2), m and v over the last axis.   Ba, Kiros & Hinton 2016.

    x: (..., D)   a, b: (D,)   m, r: (..., 1)

    With h = a dy, row by row as in BatchNorm with the roles of row and feature exchanged:
        dx = r (h - mean h - xh mean(h xh)),    da = sum_rows dy xh,    db = sum_rows dy.
    Kept: x, m and r. dx takes the place of dy.
    """

    def __init__(self, features, eps=1e-5, init=ONES, bias_init=ZEROS):
        self.features, self.eps = whole("LayerNorm", "features", features), number("LayerNorm", "eps", eps, low=0)
        self.shapes = {"a": ((features,), "norm"), "b": ((features,), "bias")}
        self.init = {"a": init, "b": bias_init}

    def forward(self, x, run):
        rows = self.rows(x)
        y, (m, r) = backend.empty(rows.shape, x.dtype), (backend.empty((len(rows),), self.a.dtype) for _ in range(2))
        kernels.layer_norm(rows, self.a, self.b, self.eps, y, m, r)
        return y.reshape(x.shape), (rows, m, r)

    def backward(self, dy, saved, run):
        x, m, r = saved  # forward was: y = a (x - m) r + b
        rows = self.rows(dy)
        kernels.layer_norm_backward(x, self.a, m, r, rows, rows if run.dx else None, self.da, self.db)
        return rows.reshape(dy.shape) if run.dx else None


class RMSNorm(OfRows):
    """y = a x r, r = (mean x^2 + eps)^(-1/2), the mean over the last axis.   Zhang & Sennrich, NeurIPS 2019.

    x: (..., D)   a: (D,)   r: (..., 1). eps stands inside the root, under the mean, as in Llama's code (1e-5 or 1e-6).

    With h = a dy:  dL = sum_i h_i d(x_i r) = sum_i h_i (r dx_i + x_i dr), and with q = mean x^2 + eps, r = q^(-1/2),
    dr = -(1/2) q^(-3/2) dq = -(r^3 / D) sum_j x_j dx_j. The factor of dx_j, with xh = x r:

        dx = r (h - xh mean(h xh)),    da = sum_rows dy xh.
    Kept: x and r. dx takes the place of dy.
    """

    two_bytes = False

    def __init__(self, features, eps=1e-6, init=ONES):
        self.features, self.eps = whole("RMSNorm", "features", features), number("RMSNorm", "eps", eps, low=0)
        self.shapes, self.init = {"a": ((features,), "norm")}, {"a": init}

    def forward(self, x, run):
        rows = self.rows(x)
        y, r = backend.empty(rows.shape, x.dtype), backend.empty((len(rows),), self.a.dtype)
        kernels.rms_norm(rows, self.a, self.eps, y, r)
        return y.reshape(x.shape), (rows, r)

    def backward(self, dy, saved, run):
        x, r = saved  # forward was: y = a x r
        rows = self.rows(dy)
        kernels.rms_norm_backward(x, self.a, r, rows, rows if run.dx else None, self.da)
        return rows.reshape(dy.shape) if run.dx else None
