"""Linear layers."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

from . import init, kernels
from .layer import Layer

DEFAULT = init.PyTorchDefault()


class Linear(Layer):
    """y = x W' + b.   x: (..., in)   W: (out, in)   b: (out,)   y: (..., out)

    With rows x_n:  y_no = sum_i W_oi x_ni + b_o,   so   dW = dy' x,   db = sum_n dy_n,   dx = dy W.
    Kept: x, for dW. By the product rule

        Ry = x RW' + Rx W' + Rb,   R dW = Rdy' x + dy' Rx,   R db = sum_n Rdy_n,   R dx = Rdy W + dy RW.
    """

    reads_output, positionwise = False, True

    def __init__(self, inputs, outputs, bias=True, init=DEFAULT, bias_init=DEFAULT):
        self.inputs, self.outputs = whole("Linear", "inputs", inputs), whole("Linear", "outputs", outputs)
        self.bias = bool(bias)
        self.shapes, self.init = {"W": ((outputs, inputs), "matrix")}, {"W": init}
        if bias:
            self.shapes["b"], self.init["b"] = ((outputs,), "bias"), bias_init
        self.db = None

    def output_shape(self, shape):
        if shape[-1] != self.inputs:
            raise UserError(f"Linear: x has {shape[-1]} features, the weight expects {self.inputs}")
        return (*shape[:-1], self.outputs)

    def fans(self, name):
        return self.inputs, self.outputs

    def forward(self, x, run):
        y = backend.empty((*x.shape[:-1], self.outputs), x.dtype)
        rows, bias = x.reshape(-1, self.inputs), self.b if self.bias else None
        kernels.linear(rows, self.W, bias, y.reshape(-1, self.outputs))  # y = x W' + b
        return y, (rows, x.shape)

    def backward(self, dy, saved, run):
        x, shape = saved  # forward was: y = x W' + b
        dy = dy.reshape(-1, self.outputs)
        if self.dW is not None:
            kernels.linear_weights(x, dy, self.dW)  # dW = dy' x
        if self.db is not None:
            kernels.sum_rows(dy, self.db)
        if not run.dx:
            return None
        dx = backend.empty(x.shape, dy.dtype)
        kernels.linear_inputs(dy, self.W, dx)  # dx = dy W
        return dx.reshape(shape)

    def tangent(self, rx, saved, run):
        x, shape = saved
        ry = backend.empty((x.shape[0], self.outputs), x.dtype)
        kernels.linear(x, self.vW, self.vb if self.bias else None, ry)  # x RW' + Rb
        if rx is not None:
            rx, more = rx.reshape(x.shape), backend.workspace(ry.shape, ry.dtype)
            kernels.linear(rx, self.W, None, more)  # Rx W'
            ry += more
        return ry.reshape(*shape[:-1], self.outputs), (rx,)

    def note(self, dy, saved):
        return (dy.reshape(-1, self.outputs),)

    def backward_tangent(self, rdy, noted, kept, saved, run):
        (dy,), (rx,), (x, shape) = noted, kept, saved
        rdy = rdy.reshape(-1, self.outputs)
        if self.dW is not None:
            kernels.linear_weights(x, rdy, self.dW)  # Rdy' x
            if rx is not None:
                more = backend.workspace(self.dW.shape, x.dtype)
                kernels.linear_weights(rx, dy, more)  # dy' Rx
                self.dW += more
        if self.db is not None:
            kernels.sum_rows(rdy, self.db)
        if not run.dx:
            return None
        rdx, more = backend.empty(x.shape, x.dtype), backend.workspace(x.shape, x.dtype)
        kernels.linear_inputs(rdy, self.W, rdx)  # Rdy W
        kernels.linear_inputs(dy, self.vW, more)  # dy RW
        rdx += more
        return rdx.reshape(shape)

    def __repr__(self):
        return f"Linear({self.inputs}, {self.outputs}, bias={self.bias})"
