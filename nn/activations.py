"""Activations: y = f(x), number by number, and the softmax of a row."""

from math import pi, sqrt

from npopt import backend
from npopt.backend import xp
from npopt.errors import UserError
from npopt.values import number, whole

from . import init, kernels
from .layer import Layer


class Activation(Layer):
    """y = f(x); dx = f'(x) dy, written over dy. A subclass has two methods. apply(x, y) writes y and returns what
    backward needs. derive(dy, *saved) multiplies dy by f'. y may be written over x if the layer before does not read
    its output and this layer, by `reads_input`, does not read its input.

    R y = f'(x) Rx,    R dx = f'(x) Rdy + f''(x) Rx dy,   with f'' from second(*saved), None where it is 0 everywhere.
    A subclass without a method second has no exact second derivatives."""

    view = positionwise = True
    reads_input = False

    def forward(self, x, run):
        y = None if self.reads_input and run.backward else run.place(x)
        y = backend.empty(x.shape, x.dtype) if y is None else y
        return y, self.apply(x, y)

    def backward(self, dy, saved, run):
        if not run.dx:
            return None
        self.derive(dy, *saved)
        return dy

    def tangent(self, rx, saved, run):
        ry = rx.copy()
        self.derive(ry, *saved)
        return ry, (rx,)

    def note(self, dy, saved):
        bend = self.second(*saved)
        return (None if bend is None else bend * dy,)

    def backward_tangent(self, rdy, noted, kept, saved, run):
        (bent,), (rx,) = noted, kept
        if not run.dx:
            return None
        self.derive(rdy, *saved)
        if bent is not None:
            rdy += bent * rx
        return rdy


class ReLU(Activation):
    """y = max(x, 0); dx = dy where y > 0, else 0 (0 at the kink). Kept: y."""

    def apply(self, x, y):
        kernels.relu(x.reshape(-1), y.reshape(-1))
        return (y,)

    def backward(self, dy, saved, run):
        (y,) = saved  # forward was: y = max(x, 0)
        if not run.dx:
            return None
        dx = dy.reshape(-1)
        kernels.relu_backward(y.reshape(-1), dx, dx)
        return dx.reshape(y.shape)

    def tangent(self, rx, saved, run):
        (y,) = saved
        ry = backend.empty(y.shape, y.dtype)
        kernels.relu_backward(y.reshape(-1), rx.reshape(-1), ry.reshape(-1))
        return ry, ()

    def note(self, dy, saved):
        return ()

    def backward_tangent(self, rdy, noted, kept, saved, run):
        return self.backward(rdy, saved, run)


class LeakyReLU(Activation):
    """y = x where x > 0, else s x (0 < s < 1); dx = dy or s dy. As y has the sign of x, y is kept."""

    def __init__(self, slope=0.01):
        self.slope = number("LeakyReLU", "slope", slope, low=0, high=1, open_low=True, open_high=True)

    def apply(self, x, y):
        xp(x).maximum(x, self.slope * x, out=y)
        return (y,)

    def derive(self, dy, y):
        dy *= xp(dy).where(y > 0, 1, self.slope).astype(dy.dtype)  # forward was: y = max(x, s x)

    def second(self, y):
        """f'' is 0 but at the kink."""
        return None

    def __repr__(self):
        return f"LeakyReLU({self.slope})"


class PReLU(Layer):
    """y = max(x, 0) + a min(x, 0), a one number or one a feature.   He et al., ICCV 2015.

    dx = dy where x > 0, else a dy;    da = sum dy min(x, 0), over all but a's axis. Kept: x.
    """

    positionwise = True

    def __init__(self, features=1, slope=0.25):
        self.features, self.slope = whole("PReLU", "features", features), number("PReLU", "slope", slope)
        self.shapes = {"a": ((features,), "scalar" if features == 1 else "vector")}
        self.init = {"a": init.Constant(slope)}

    def output_shape(self, shape):
        if self.features not in (1, shape[-1]):
            raise UserError(f"PReLU: x has {shape[-1]} features, the layer {self.features}")
        return tuple(shape)

    def forward(self, x, run):
        m = xp(x)
        return m.maximum(x, 0) + self.a * m.minimum(x, 0), (x,)

    def backward(self, dy, saved, run):
        (x,), m = saved, xp(dy)  # forward was: y = max(x, 0) + a min(x, 0)
        if self.da is not None:
            kernels.sum_rows((dy * m.minimum(x, 0)).reshape(-1, self.features), self.da)
        return m.where(x > 0, dy, self.a * dy) if run.dx else None

    def __repr__(self):
        return f"PReLU({self.features}, slope={self.slope})"


class Tanh(Activation):
    """y = tanh x; dx = (1 - y^2) dy. Kept: y."""

    def apply(self, x, y):
        xp(x).tanh(x, out=y)
        return (y,)

    def derive(self, dy, y):
        dy *= 1 - y * y  # forward was: y = tanh x

    def second(self, y):
        return -2 * y * (1 - y * y)


class Sigmoid(Activation):
    """y = 1/(1 + e^(-x)) = (1 + tanh(x/2))/2, which cannot overflow; dx = y (1 - y) dy. Kept: y."""

    def apply(self, x, y):
        xp(x).tanh(0.5 * x, out=y)
        y += 1
        y *= 0.5
        return (y,)

    def derive(self, dy, y):
        dy *= y * (1 - y)  # forward was: y = 1/(1 + e^(-x))

    def second(self, y):
        return y * (1 - y) * (1 - 2 * y)


class Smooth(Activation):
    """An activation of nn/kernels/reference_gates.py, named by `kind`, with its second derivative there. Kept: x."""

    reads_input = True
    kind = "sigmoid"

    def apply(self, x, y):
        x = x if x.flags.c_contiguous else x.copy()
        kernels.activate(x, y, self.kind)
        return (x,)

    def derive(self, dy, x):
        kernels.activate_backward(x, dy, dy, self.kind)

    def second(self, x):
        """With f = x P:  f'' = 2 P' + x P''."""
        p = kernels.reference_gates.share(self.kind, x)
        slope = kernels.reference_gates.share_slope(self.kind, x, p)
        return 2 * slope + x * self.bend(x, p, slope)


class SiLU(Smooth):
    """y = x s, s = 1/(1 + e^(-x)); dx = s (1 + x (1 - s)) dy. Also called swish. Kept: x.   Elfwing et al. 2018.

    f'' = 2 s' + x s'', with s' = s (1 - s), s'' = s' (1 - 2 s).
    """

    kind = "silu"

    def bend(self, x, s, slope):
        return slope * (1 - 2 * s)


class GELU(Smooth):
    """y = x P(x), P the standard normal distribution function.   Hendrycks & Gimpel 2016.

    form "erf":   P = (1 + erf(x/sqrt 2))/2,  P' = e^(-x^2/2)/sqrt(2 pi)                                BERT, RoBERTa
    form "tanh":  P = (1 + tanh u)/2,  u = sqrt(2/pi) (x + 0.044715 x^3),  P' = 2 P (1 - P) u'           GPT-2
    dx = (P + x P') dy. Kept: x. f'' = 2 P' + x P'', with P'' = -x P' (erf),
    or 2 P' (1 - 2 P) u' + 2 P (1 - P) u'' (tanh).
    """

    def __init__(self, form="erf"):
        if form not in ("erf", "tanh"):
            raise UserError(f"GELU: form must be 'erf' or 'tanh', got {form!r}")
        self.form, self.kind = form, "gelu" if form == "erf" else "gelu-tanh"

    def bend(self, x, p, slope):
        if self.form == "erf":
            return -x * slope
        first, bend = sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x), sqrt(2 / pi) * 6 * 0.044715 * x  # u', u''
        return 2 * slope * (1 - 2 * p) * first + 2 * p * (1 - p) * bend

    def __repr__(self):
        return f"GELU({self.form!r})"


class Softmax(Layer):
    """y_k = e^(x_k) / sum_j e^(x_j) over the last axis; dx = y (dy - sum_j dy_j y_j). Kept: y."""

    positionwise = True

    def forward(self, x, run):
        y = xp(x).exp(x - x.max(-1, keepdims=True))  # the largest exponent is 0: no overflow
        y /= y.sum(-1, keepdims=True)
        return y, (y,)

    def backward(self, dy, saved, run):
        (y,) = saved  # forward was: y = e^x / sum e^x
        return y * (dy - (dy * y).sum(-1, keepdims=True)) if run.dx else None


class LogSoftmax(Layer):
    """y_k = x_k - log sum_j e^(x_j) over the last axis; dx = dy - e^y sum_j dy_j. Kept: y."""

    positionwise = True

    def forward(self, x, run):
        m = xp(x)
        y = x - x.max(-1, keepdims=True)
        y -= m.log(m.exp(y).sum(-1, keepdims=True))
        return y, (y,)

    def backward(self, dy, saved, run):
        (y,) = saved  # forward was: y = x - log sum e^x
        return dy - xp(y).exp(y) * dy.sum(-1, keepdims=True) if run.dx else None
