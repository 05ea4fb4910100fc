"""Normalisation by the features, row by row."""

from npopt.backend import xp
from npopt.errors import UserError
from npopt.values import number, whole

from . import kernels
from .layer import Layer
from .norms import ONES, ZEROS


class LayerNorm(Layer):
    """y = a xh + b, xh = (x - m) r, r = (v + eps)^(-1/2), m and v over the last axis.   Ba, Kiros & Hinton 2016.

    x: (..., D)   a, b: (D,)   m, r: (..., 1)

    With h = a dy, row by row as in BatchNorm with the roles of row and feature exchanged:
        dx = r (h - mean h - xh mean(h xh)),    da = sum_rows dy xh,    db = sum_rows dy.
    Kept: xh and r.
    """

    reads_output = False

    def __init__(self, features, eps=1e-5, init=ONES, bias_init=ZEROS):
        self.features, self.eps = whole("LayerNorm", "features", features), number("LayerNorm", "eps", eps, low=0)
        self.shapes = {"a": ((features,), "norm"), "b": ((features,), "bias")}
        self.init = {"a": init, "b": bias_init}

    def output_shape(self, shape):
        if shape[-1] != self.features:
            raise UserError(f"LayerNorm: x has {shape[-1]} features, the layer {self.features}")
        return tuple(shape)

    def forward(self, x, run):
        xh = x - x.mean(-1, keepdims=True)
        r = 1 / xp(x).sqrt((xh * xh).mean(-1, keepdims=True) + self.eps)
        xh *= r
        return self.a * xh + self.b, (xh, r)

    def backward(self, dy, saved, run):
        xh, r = saved  # forward was: y = a xh + b, xh = (x - m) r
        if self.da is not None:
            kernels.sum_rows((dy * xh).reshape(-1, self.features), self.da)
        if self.db is not None:
            kernels.sum_rows(dy.reshape(-1, self.features), self.db)
        if not run.dx:
            return None
        h = self.a * dy
        return r * (h - h.mean(-1, keepdims=True) - xh * (h * xh).mean(-1, keepdims=True))

    def __repr__(self):
        return f"LayerNorm({self.features}, eps={self.eps})"
