"""Convolutions. Images are channels-last, (B, H, W, C)."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import pair, whole

from . import init, kernels
from .layer import Layer

DEFAULT = init.PyTorchDefault()


class Conv2d(Layer):
    """y_bhwo = sum_{i,j,c} W_oijc x_{b, s h + i - p, s w + j - p, c} + b_o, x being zero outside: a cross-correlation.

    x: (B, H, W, in)   W: (out, kh, kw, in)   y: (B, H', W', out), H' = (H + 2p - kh) // s + 1

    One row of `columns` is the window of x that an output sees, kh kw in numbers. So y = columns W' + b is a linear
    layer over B H' W' positions, with
        dW = dy' columns,    db = sum of dy over positions,    dcolumns = dy W.
    An input gathers its dx from the windows that saw it, in a fixed order:
        dx_{b h w c} = sum_{i,j} dcolumns_{b, (h + p - i)/s, (w + p - j)/s, i, j, c}
    over the taps (i, j) for which both quotients are positions. Kept: x, for dW. Along a direction it is a linear layer
    as well, with columns for x: Ry = RW * x + W * Rx + Rb, and the product rule on the way back, as in Linear.
    """

    reads_output = False

    def __init__(self, inputs, outputs, kernel, stride=1, padding=0, bias=True, init=DEFAULT, bias_init=DEFAULT):
        self.inputs, self.outputs = whole("Conv2d", "inputs", inputs), whole("Conv2d", "outputs", outputs)
        self.kernel, self.stride = pair("Conv2d", "kernel", kernel), pair("Conv2d", "stride", stride)
        self.padding, self.bias = pair("Conv2d", "padding", padding, low=0), bool(bias)
        self.shapes, self.init = {"W": ((outputs, *self.kernel, inputs), "conv")}, {"W": init}
        if bias:
            self.shapes["b"], self.init["b"] = ((outputs,), "bias"), bias_init
        self.db = None

    def output_shape(self, shape):
        if len(shape) != 3 or shape[2] != self.inputs:
            raise UserError(
                f"Conv2d: a row of x must be an image (H, W, {self.inputs}), got {tuple(shape)}; pass NHWC arrays"
            )
        size = window_counts(shape, self.kernel, self.stride, self.padding)
        if min(size) < 1:
            raise UserError(
                f"Conv2d: an image of {shape[:2]} with padding {self.padding} is smaller than the kernel {self.kernel}"
            )
        return (*size, self.outputs)

    def fans(self, name):
        area = self.kernel[0] * self.kernel[1]
        return self.inputs * area, self.outputs * area

    def forward(self, x, run):
        y = backend.empty((x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        kernels.convolve(x, self.W, self.b if self.bias else None, y, self.stride, self.padding)
        return y, (x,)

    def backward(self, dy, saved, run):
        (x,) = saved  # forward was: y = columns(x) W' + b
        if self.dW is not None:
            kernels.convolve_weights(x, dy, self.dW, self.stride, self.padding)
        if self.db is not None:
            kernels.sum_rows(dy.reshape(-1, self.outputs), self.db)
        if not run.dx:
            return None
        dx = backend.empty(x.shape, dy.dtype)
        kernels.convolve_inputs(dy, self.W, dx, self.stride, self.padding)
        return dx

    def tangent(self, rx, saved, run):
        (x,) = saved
        ry = backend.empty((x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        kernels.convolve(x, self.vW, self.vb if self.bias else None, ry, self.stride, self.padding)
        if rx is not None:
            more = backend.workspace(ry.shape, ry.dtype)
            kernels.convolve(rx, self.W, None, more, self.stride, self.padding)
            ry += more
        return ry, (rx,)

    def note(self, dy, saved):
        return (dy,)

    def backward_tangent(self, rdy, noted, kept, saved, run):
        (dy,), (rx,), (x,) = noted, kept, saved
        if self.dW is not None:
            kernels.convolve_weights(x, rdy, self.dW, self.stride, self.padding)
            if rx is not None:
                more = backend.workspace(self.dW.shape, x.dtype)
                kernels.convolve_weights(rx, dy, more, self.stride, self.padding)
                self.dW += more
        if self.db is not None:
            kernels.sum_rows(rdy.reshape(-1, self.outputs), self.db)
        if not run.dx:
            return None
        rdx, more = backend.empty(x.shape, x.dtype), backend.workspace(x.shape, x.dtype)
        kernels.convolve_inputs(rdy, self.W, rdx, self.stride, self.padding)
        kernels.convolve_inputs(dy, self.vW, more, self.stride, self.padding)
        rdx += more
        return rdx

    def __repr__(self):
        return (
            f"Conv2d({self.inputs}, {self.outputs}, {self.kernel}, stride={self.stride}, padding={self.padding}, "
            f"bias={self.bias})"
        )


def window_counts(shape, kernel, stride, padding):
    """How many windows fit in each direction of an image (H, W, ...)."""
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[:2], kernel, stride, padding, strict=True))
