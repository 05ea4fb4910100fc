"""Layers with their gradients derived. Activations are channels-last: (B, D) or (B, H, W, C).

In every docstring dy is dL/dy and dx = dL/dx, of the shapes of y and x; B is the batch, N the number of rows of the
matrix that a layer sees, (N, D) with N = B or B H W.
"""

from math import pi, prod, sqrt

from npopt import backend
from npopt.values import number, whole

from . import init, kernels
from .core import Layer

xp = backend.xp
DEFAULT, ONES, ZEROS = init.PyTorchDefault(), init.Ones(), init.Zeros()


def pair(owner, name, value, low=1):
    """A whole number or a pair of them, as a pair."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise ValueError(f"{owner}: {name} must be a number or a pair, got {value!r}")
    return tuple(whole(owner, name, v, low) for v in both)


class Linear(Layer):
    """y = x W' + b.   x: (..., in)   W: (out, in)   b: (out,)   y: (..., out)

    With rows x_n:  y_no = sum_i W_oi x_ni + b_o,   so   dW = dy' x,   db = sum_n dy_n,   dx = dy W.
    Kept: x, for dW.
    """

    needs_output = False

    def __init__(self, inputs, outputs, bias=True, init=DEFAULT, bias_init=DEFAULT):
        self.inputs, self.outputs = whole("Linear", "inputs", inputs), whole("Linear", "outputs", outputs)
        self.bias = bool(bias)
        self.shapes, self.init = {"W": ((outputs, inputs), "matrix")}, {"W": init}
        if bias:
            self.shapes["b"], self.init["b"] = ((outputs,), "bias"), bias_init
        self.db = None

    def output_shape(self, shape):
        if shape[-1] != self.inputs:
            raise ValueError(f"Linear: x has {shape[-1]} features, the weight expects {self.inputs}")
        return (*shape[:-1], self.outputs)

    def fans(self, name):
        return self.inputs, self.outputs

    def forward(self, x, ctx):
        self.ctx, self.x = ctx, x
        y = ctx.buffer(self, "y", (*x.shape[:-1], self.outputs), x.dtype)
        bias = self.b if self.bias else None
        kernels.linear(x.reshape(-1, self.inputs), self.W, bias, y.reshape(-1, self.outputs), ctx)
        return y

    def backward(self, dy, need_dx=True):
        x, dy2 = self.x.reshape(-1, self.inputs), dy.reshape(-1, self.outputs)
        if self.dW is not None:
            kernels.linear_weights(x, dy2, self.dW, self.ctx)
        if self.db is not None:
            kernels.sum_rows(dy2, self.db, self.ctx)
        if not need_dx:
            return None
        dx = self.ctx.buffer(self, "dx", self.x.shape, dy.dtype)
        kernels.linear_inputs(dy2, self.W, dx.reshape(-1, self.inputs), self.ctx)
        return dx

    def __repr__(self):
        return f"Linear({self.inputs}, {self.outputs}, bias={self.bias})"


class Conv2d(Layer):
    """y_bhwo = sum_{i,j,c} W_oijc x_{b, s h + i - p, s w + j - p, c} + b_o, x being zero outside: a cross-correlation.

    x: (B, H, W, in)   W: (out, kh, kw, in)   y: (B, H', W', out), H' = (H + 2p - kh) // s + 1

    With dy, columns of x and dcolumns as in nn/kernels/reference.py: dW = dy' columns, db = sum of dy over positions,
    dx by its gather. Kept: x, for dW.
    """

    needs_output = False

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
            raise ValueError(
                f"Conv2d: a row of x must be an image (H, W, {self.inputs}), got {tuple(shape)}; pass NHWC arrays"
            )
        size = window_counts(shape, self.kernel, self.stride, self.padding)
        if min(size) < 1:
            raise ValueError(f"Conv2d: an image of {shape[:2]} with padding {self.padding} is smaller than the kernel "
                             f"{self.kernel}")
        return (*size, self.outputs)

    def fans(self, name):
        area = self.kernel[0] * self.kernel[1]
        return self.inputs * area, self.outputs * area

    def forward(self, x, ctx):
        self.ctx, self.x = ctx, x
        y = ctx.buffer(self, "y", (x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        kernels.convolve(x, self.W, self.b if self.bias else None, y, self.stride, self.padding, ctx)
        return y

    def backward(self, dy, need_dx=True):
        x, ctx = self.x, self.ctx
        if self.dW is not None:
            kernels.convolve_weights(x, dy, self.dW, self.stride, self.padding, ctx)
        if self.db is not None:
            kernels.sum_rows(dy.reshape(-1, self.outputs), self.db, ctx)
        if not need_dx:
            return None
        dx = ctx.buffer(self, "dx", x.shape, dy.dtype)
        kernels.convolve_inputs(dy, self.W, dx, self.stride, self.padding, ctx)
        return dx

    def __repr__(self):
        return (f"Conv2d({self.inputs}, {self.outputs}, {self.kernel}, stride={self.stride}, padding={self.padding}, "
                f"bias={self.bias})")


def window_counts(shape, kernel, stride, padding):
    """How many windows fit in each direction of an image (H, W, ...)."""
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[:2], kernel, stride, padding, strict=True))


class BatchNorm(Layer):
    """y = a xh + b, xh = (x - m) r, r = (v + eps)^(-1/2), m, v over all but the last axis.  Ioffe & Szegedy, ICML 2015.

    x: (B, D) or (B, H, W, D), seen as (N, D)   a, b: (D,), kinds norm and bias

    Training: m, v = batch mean and (biased) variance. With h = a dy and xh = (x - m) r, per feature,
        dL = sum_n h_n dxh_n,    dxh_n = r (dx_n - dm) + (x_n - m) dr,    dm = mean dx,
        dr = -(1/2) r^3 dv,      dv = (2/N) sum_k (x_k - m) dx_k,
        dx_n = r (h_n - mean h - xh_n mean(h xh)) = a r (dy_n - db/N - xh_n da/N),
        da = sum dy xh,  db = sum dy.
    Evaluation: m, v are the running estimates, constants, so dx = a r dy.

    Running estimates, as in PyTorch: R <- (1 - momentum) R + momentum (batch value), with the batch's *unbiased*
    variance N/(N-1) v. A training pass leaves them pending; `Network.commit` folds them in. Kept: x, m, r.

    On request the same passes over memory serve y = max(0, a xh + b + skip): see Layer.merges.
    """

    needs_output, merges = False, True

    def __init__(self, features, momentum=0.1, eps=1e-5, init=ONES, bias_init=ZEROS):
        self.features = whole("BatchNorm", "features", features)
        self.momentum = number("BatchNorm", "momentum", momentum, low=0, high=1)
        self.eps = number("BatchNorm", "eps", eps, low=0)
        self.shapes = {"a": ((features,), "norm"), "b": ((features,), "bias")}
        self.init = {"a": init, "b": bias_init}
        self.mean = self.variance = self.pending = self.seen = None

    def output_shape(self, shape):
        if shape[-1] != self.features:
            raise ValueError(f"BatchNorm: x has {shape[-1]} features, the layer {self.features}")
        return tuple(shape)

    def forward(self, x, ctx, skip=None, rectify=False, onto=False):
        n = x.size // self.features
        self.ctx, self.x, self.batch = ctx, x, ctx.training or ctx.recalibrating
        m, r, v = (ctx.lasting(self, name, (self.features,), x.dtype) for name in "mrv")
        x2 = x.reshape(n, self.features)
        if self.batch:
            if n < 2 and ctx.training:
                raise ValueError(
                    f"BatchNorm: {self.path or 'the layer'} needs more than one value per feature in training; use a "
                    "larger batch, or leave a last batch of one row out (drop_last=True)"
                )
            kernels.moments(x2, m, v, ctx)
            if ctx.track:
                self.pending = (m.astype("float64"), v.astype("float64") * (n / (n - 1)))
            if ctx.recalibrating:
                self._accumulate(n, m, v)
        else:
            self._running()
            m[...] = self.mean
            v[...] = self.variance
        xp(x).add(v, self.eps, out=r)
        xp(x).sqrt(r, out=r)
        xp(x).divide(1, r, out=r)
        xp(x).multiply(self.a, r, out=v)                # from here v holds a r
        y = skip if onto else ctx.buffer(self, "y", x.shape, x.dtype)
        y2 = y.reshape(n, self.features)
        kernels.normalise(x2, m, v, self.b, None if skip is None else skip.reshape(n, -1), rectify, y2, ctx)
        self.m, self.r, self.ar, self.y = m, r, v, y2 if rectify else None
        return y

    def backward(self, dy, need_dx=True, ds=None):
        n, ctx, y = dy.size // self.features, self.ctx, self.y
        x2, dy2 = self.x.reshape(n, self.features), dy.reshape(n, self.features)
        da, db = (ctx.scratch(name, (self.features,), dy.dtype) for name in ("norm da", "norm db"))
        if self.active or self.batch and need_dx or ds is not None:
            ds2 = dy2 if ds is dy else None if ds is None else ds.reshape(n, self.features)
            kernels.normalise_sums(x2, self.m, self.r, dy2, y, ds2, da, db, ctx)
        if ds is not None:
            dy, dy2, y = ds, ds2, None
        for sums, target in ((da, self.da), (db, self.db)):
            if target is not None:
                target[...] = sums
        if not need_dx:
            return None
        dx = dy if ctx.spare and ds is None else ctx.buffer(self, "dx", self.x.shape, dy.dtype)
        if self.batch:
            da *= 1 / n
            db *= 1 / n
            da *= self.r                                # dx = a r (dy - db/N - (x - m) r da/N)
        else:
            da[...] = 0
            db[...] = 0
        kernels.normalise_backward(x2, self.m, self.ar, dy2, y, da, db, dx.reshape(n, self.features), ctx)
        return dx

    # running estimates, in float64 on the device in use

    def _running(self):
        if self.mean is None:
            self.mean = backend.zeros((self.features,), "float64")
            self.variance = backend.zeros((self.features,), "float64") + 1

    def commit(self):
        """R <- (1 - momentum) R + momentum (pending)."""
        if self.pending is not None:
            self._running()
            for running, batch in zip((self.mean, self.variance), self.pending, strict=True):
                running *= 1 - self.momentum
                running += self.momentum * batch
            self.pending = None

    def _accumulate(self, n, mean, variance):
        """Join a batch to the statistics of the batches before: Chan, Golub & LeVeque 1979, equation 2.1."""
        mean, square = mean.astype("float64"), variance.astype("float64") * n
        if self.seen is not None:
            before, old, total = self.seen
            step = mean - old
            mean = old + step * (n / (before + n))
            square = total + square + step * step * (before * n / (before + n))
            n += before
        self.seen = (n, mean, square)

    def recalibrate(self):
        """Replace the running estimates by what recalibrating passes accumulated."""
        n, self.mean, square = self.seen
        self.variance, self.seen = square * (1 / max(n - 1, 1)), None

    def state(self):
        self._running()
        return {"mean": backend.to_host(self.mean).copy(), "variance": backend.to_host(self.variance).copy()}

    def load_state(self, state):
        self.mean = backend.asarray(state["mean"], "float64").copy()
        self.variance = backend.asarray(state["variance"], "float64").copy()
        self.pending = None

    def __repr__(self):
        return f"BatchNorm({self.features}, momentum={self.momentum}, eps={self.eps})"


class LayerNorm(Layer):
    """y = a xh + b, xh = (x - m) r, r = (v + eps)^(-1/2), m and v over the last axis.   Ba, Kiros & Hinton 2016.

    x: (..., D)   a, b: (D,)   m, r: (..., 1)

    With h = a dy, row by row as in BatchNorm with the roles of row and feature exchanged:
        dx = r (h - mean h - xh mean(h xh)),    da = sum_rows dy xh,    db = sum_rows dy.
    Kept: xh and r.
    """

    needs_output = False

    def __init__(self, features, eps=1e-5, init=ONES, bias_init=ZEROS):
        self.features, self.eps = whole("LayerNorm", "features", features), number("LayerNorm", "eps", eps, low=0)
        self.shapes = {"a": ((features,), "norm"), "b": ((features,), "bias")}
        self.init = {"a": init, "b": bias_init}

    def output_shape(self, shape):
        if shape[-1] != self.features:
            raise ValueError(f"LayerNorm: x has {shape[-1]} features, the layer {self.features}")
        return tuple(shape)

    def forward(self, x, ctx):
        m = xp(x)
        column = (*x.shape[:-1], 1)
        xh, y = (ctx.buffer(self, name, x.shape, x.dtype) for name in ("xh", "y"))
        mean, r = ctx.scratch("row mean", column, x.dtype), ctx.buffer(self, "r", column, x.dtype)
        m.mean(x, axis=-1, keepdims=True, out=mean)
        m.subtract(x, mean, out=xh)
        m.multiply(xh, xh, out=y)
        m.mean(y, axis=-1, keepdims=True, out=r)
        r += self.eps
        m.sqrt(r, out=r)
        m.divide(1, r, out=r)
        xh *= r
        m.multiply(xh, self.a, out=y)
        y += self.b
        self.ctx, self.xh, self.r = ctx, xh, r
        return y

    def backward(self, dy, need_dx=True):
        m, ctx, xh = xp(dy), self.ctx, self.xh
        product = ctx.scratch("norm product", dy.shape, dy.dtype)
        if self.da is not None:
            m.multiply(dy, xh, out=product)
            kernels.sum_rows(product.reshape(-1, self.features), self.da, ctx)
        if self.db is not None:
            kernels.sum_rows(dy.reshape(-1, self.features), self.db, ctx)
        if not need_dx:
            return None
        mean = ctx.scratch("row mean", self.r.shape, dy.dtype)
        dx = ctx.buffer(self, "dx", dy.shape, dy.dtype)
        m.multiply(dy, self.a, out=dx)                                  # h
        m.multiply(dx, xh, out=product)
        m.mean(product, axis=-1, keepdims=True, out=mean)               # mean(h xh)
        m.multiply(xh, mean, out=product)
        m.mean(dx, axis=-1, keepdims=True, out=mean)                    # mean h
        dx -= mean
        dx -= product
        dx *= self.r
        return dx

    def __repr__(self):
        return f"LayerNorm({self.features}, eps={self.eps})"


class Activation(Layer):
    """y = f(x), number by number; dx = f'(x) dy. It overwrites x where the layer before does not need it."""

    view = True                                         # y may be x
    needs_input = False                                 # backward reads x and not y

    def forward(self, x, ctx):
        self.ctx, self.x = ctx, x if self.needs_input else None
        overwrite = ctx.overwrite and not (self.needs_input and ctx.keep)
        self.y = x if overwrite else ctx.buffer(self, "y", x.shape, x.dtype)
        self.apply(x, self.y)
        return self.y

    def backward(self, dy, need_dx=True):
        if not need_dx:
            return None
        dx = self.ctx.buffer(self, "dx", dy.shape, dy.dtype)
        self.derive(dy, dx)
        return dx


class ReLU(Activation):
    """y = max(x, 0); dx = dy where y > 0, else 0 (0 at the kink). Kept: y."""

    rectifier = True

    def apply(self, x, y):
        kernels.relu(x.reshape(-1), y.reshape(-1))

    def derive(self, dy, dx):
        kernels.relu_backward(self.y.reshape(-1), dy.reshape(-1), dx.reshape(-1), self.ctx)


class LeakyReLU(Activation):
    """y = x where x > 0, else s x (0 < s < 1); dx = dy or s dy. As y has the sign of x, y is kept."""

    def __init__(self, slope=0.01):
        self.slope = number("LeakyReLU", "slope", slope, low=0, high=1, open_low=True, open_high=True)

    def apply(self, x, y):
        scaled = self.ctx.scratch("activation", x.shape, x.dtype)
        xp(x).multiply(x, self.slope, out=scaled)
        xp(x).maximum(x, scaled, out=y)

    def derive(self, dy, dx):
        m = xp(dy)
        positive = self.ctx.scratch("mask", dy.shape, bool)
        m.greater(self.y, 0, out=positive)
        m.multiply(dy, self.slope, out=dx)
        m.copyto(dx, dy, where=positive)

    def __repr__(self):
        return f"LeakyReLU({self.slope})"


class PReLU(Layer):
    """y = max(x, 0) + a min(x, 0), a one number or one a feature.   He et al., ICCV 2015.

    dx = dy where x > 0, else a dy;    da = sum dy min(x, 0), over all but a's axis. Kept: x.
    """

    def __init__(self, features=1, slope=0.25):
        self.features, self.slope = whole("PReLU", "features", features), number("PReLU", "slope", slope)
        self.shapes = {"a": ((features,), "scalar" if features == 1 else "vector")}
        self.init = {"a": init.Constant(slope)}

    def output_shape(self, shape):
        if self.features not in (1, shape[-1]):
            raise ValueError(f"PReLU: x has {shape[-1]} features, the layer {self.features}")
        return tuple(shape)

    def forward(self, x, ctx):
        self.ctx, self.x = ctx, x
        y, low = ctx.buffer(self, "y", x.shape, x.dtype), ctx.scratch("activation", x.shape, x.dtype)
        xp(x).minimum(x, 0, out=low)
        low *= self.a
        xp(x).maximum(x, 0, out=y)
        y += low
        return y

    def backward(self, dy, need_dx=True):
        m, ctx, x = xp(dy), self.ctx, self.x
        work = ctx.scratch("activation", dy.shape, dy.dtype)
        if self.da is not None:
            m.minimum(x, 0, out=work)
            work *= dy
            kernels.sum_rows(work.reshape(-1, self.features), self.da, ctx)
        if not need_dx:
            return None
        dx, positive = ctx.buffer(self, "dx", dy.shape, dy.dtype), ctx.scratch("mask", dy.shape, bool)
        m.greater(x, 0, out=positive)
        m.multiply(dy, self.a, out=dx)
        m.copyto(dx, dy, where=positive)
        return dx

    def __repr__(self):
        return f"PReLU({self.features}, slope={self.slope})"


class Tanh(Activation):
    """y = tanh x; dx = (1 - y^2) dy. Kept: y."""

    def apply(self, x, y):
        xp(x).tanh(x, out=y)

    def derive(self, dy, dx):
        m = xp(dy)
        m.multiply(self.y, self.y, out=dx)
        m.subtract(1, dx, out=dx)
        dx *= dy


class Sigmoid(Activation):
    """y = 1/(1 + e^(-x)) = (1 + tanh(x/2))/2, which cannot overflow; dx = y (1 - y) dy. Kept: y."""

    def apply(self, x, y):
        m = xp(x)
        m.multiply(x, 0.5, out=y)
        m.tanh(y, out=y)
        y += 1
        y *= 0.5

    def derive(self, dy, dx):
        m = xp(dy)
        m.subtract(1, self.y, out=dx)
        dx *= self.y
        dx *= dy


class GELU(Activation):
    """y = x P(x), P the standard normal distribution function.   Hendrycks & Gimpel 2016.

    form "erf":   P = (1 + erf(x/sqrt 2))/2,  P' = e^(-x^2/2)/sqrt(2 pi)
    form "tanh":  P = (1 + tanh u)/2,  u = sqrt(2/pi) (x + 0.044715 x^3),  P' = (1 - tanh^2 u) u'/2
    dx = (P + x P') dy. Kept: x, and P.
    """

    needs_input = True

    def __init__(self, form="erf"):
        if form not in ("erf", "tanh"):
            raise ValueError(f"GELU: form must be 'erf' or 'tanh', got {form!r}")
        self.form = form

    def apply(self, x, y):
        m = xp(x)
        p = self.p = self.ctx.buffer(self, "p", x.shape, x.dtype)
        if self.form == "erf":
            m.multiply(x, sqrt(0.5), out=p)
            kernels.erf(p)
        else:
            m.multiply(x, x, out=p)
            p *= 0.044715 * sqrt(2 / pi)
            p += sqrt(2 / pi)
            p *= x
            m.tanh(p, out=p)
        p += 1
        p *= 0.5
        m.multiply(x, p, out=y)

    def derive(self, dy, dx):
        m, x, p = xp(dy), self.x, self.p
        slope = self.ctx.scratch("activation", x.shape, x.dtype)
        m.multiply(x, x, out=dx)
        if self.form == "erf":
            dx *= -0.5
            m.exp(dx, out=dx)
            dx *= 1 / sqrt(2 * pi)                      # P'
        else:                                           # 1 - tanh^2 = 4 P (1 - P), so P' = 2 P (1 - P) u'
            dx *= 3 * 0.044715 * sqrt(2 / pi)
            dx += sqrt(2 / pi)
            m.subtract(1, p, out=slope)
            slope *= p
            slope *= 2
            dx *= slope
        dx *= x
        dx += p
        dx *= dy

    def __repr__(self):
        return f"GELU({self.form!r})"


class Pool(Layer):
    """Common to the pooling layers: kernel, stride (default: the kernel) and padding, each a number or a pair."""

    needs_output = False

    def __init__(self, kernel, stride=None, padding=0):
        owner = type(self).__name__
        self.kernel = pair(owner, "kernel", kernel)
        self.stride = self.kernel if stride is None else pair(owner, "stride", stride)
        self.padding = pair(owner, "padding", padding, low=0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"{owner}: padding {self.padding} must be at most half of the kernel {self.kernel}")

    def output_shape(self, shape):
        owner = type(self).__name__
        if len(shape) != 3:
            raise ValueError(f"{owner}: a row of x must be an image (H, W, C), got {tuple(shape)}")
        size = window_counts(shape, self.kernel, self.stride, self.padding)
        if min(size) < 1:
            raise ValueError(f"{owner}: an image of {tuple(shape[:2])} is smaller than the kernel {self.kernel}")
        return (*size, shape[2])

    def __repr__(self):
        return f"{type(self).__name__}({self.kernel}, stride={self.stride}, padding={self.padding})"


class MaxPool2d(Pool):
    """y = max over the window; padding counts as minus infinity. Of equal values the first in the window wins.

    dx at an input = sum of dy over the windows whose maximum it is: taken tap by tap, each tap reading disjoint inputs.
    Kept: the number (0 .. kh kw - 1) of the winning tap of each window, one byte.
    """

    def forward(self, x, ctx):
        if prod(self.kernel) > 255:
            raise ValueError(f"MaxPool2d: the kernel {self.kernel} has more than 255 taps")
        self.ctx, self.shape = ctx, x.shape
        shape = (x.shape[0], *self.output_shape(x.shape[1:]))
        y = ctx.buffer(self, "y", shape, x.dtype)
        self.index = ctx.buffer(self, "index", shape, "uint8")
        kernels.max_pool(x, y, self.index, self.kernel, self.stride, self.padding, ctx)
        return y

    def backward(self, dy, need_dx=True):
        if not need_dx:
            return None
        dx = self.ctx.buffer(self, "dx", self.shape, dy.dtype)
        kernels.max_pool_backward(dy, self.index, dx, self.kernel, self.stride, self.padding, self.ctx)
        return dx


class AvgPool2d(Pool):
    """y = (sum over the window) / (kh kw); padding counts as zeros, in the divisor too, as in PyTorch's default.

    dx at an input = (sum of dy over the windows that hold it) / (kh kw), taken tap by tap. Kept: nothing.
    """

    def forward(self, x, ctx):
        self.ctx, self.shape = ctx, x.shape
        y = ctx.buffer(self, "y", (x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        y[...] = 0
        for _, here, there in kernels.taps(x.shape, y.shape, self.kernel, self.stride, self.padding):
            target = y[there]
            target += x[here]
        y *= 1 / prod(self.kernel)
        return y

    def backward(self, dy, need_dx=True):
        if not need_dx:
            return None
        dx = self.ctx.buffer(self, "dx", self.shape, dy.dtype)
        dx[...] = 0
        for _, here, there in kernels.taps(self.shape, dy.shape, self.kernel, self.stride, self.padding):
            target = dx[here]
            target += dy[there]
        dx *= 1 / prod(self.kernel)
        return dx


class GlobalAvgPool(Layer):
    """y_bc = mean over the image of x_bhwc; dx_bhwc = dy_bc / (H W). Kept: nothing."""

    needs_output = False

    def output_shape(self, shape):
        if len(shape) != 3:
            raise ValueError(f"GlobalAvgPool: a row of x must be an image (H, W, C), got {tuple(shape)}")
        return (shape[2],)

    def forward(self, x, ctx):
        self.ctx, self.shape = ctx, x.shape
        y = ctx.buffer(self, "y", (x.shape[0], x.shape[3]), x.dtype)
        return xp(x).mean(x, axis=(1, 2), out=y)

    def backward(self, dy, need_dx=True):
        if not need_dx:
            return None
        dx = self.ctx.buffer(self, "dx", self.shape, dy.dtype)
        dx[...] = dy.reshape(self.shape[0], 1, 1, self.shape[3])
        dx *= 1 / (self.shape[1] * self.shape[2])
        return dx


class Flatten(Layer):
    """y = x as rows, (B, H W C); a view, and so is dx."""

    needs_output, view = True, True

    def output_shape(self, shape):
        return (prod(shape),)

    def forward(self, x, ctx):
        self.shape = x.shape
        return x.reshape(x.shape[0], -1)

    def backward(self, dy, need_dx=True):
        return dy.reshape(self.shape) if need_dx else None


class Dropout(Layer):
    """Training: y = x k / (1 - p), k = 1 with probability 1 - p, else 0; dx = dy k / (1 - p). Evaluation: y = x.

    Srivastava et al., JMLR 2014. The mask of a row is a function of (seed, step, layer name, row), so that neither the
    batch in which a row comes nor the number of passes in a step changes it. Kept: the mask, one byte a number.
    """

    view = True

    def __init__(self, p=0.5):
        self.p = number("Dropout", "p", p, low=0, high=1, open_high=True)

    def forward(self, x, ctx):
        self.ctx, self.mask = ctx, None
        if not ctx.training or self.p == 0:
            return x
        m, flat = xp(x), (x.shape[0], prod(x.shape[1:]))
        y, self.mask = (ctx.buffer(self, name, flat, kind) for name, kind in (("y", x.dtype), ("mask", bool)))
        backend.row_uniform(backend.key(ctx.seed, f"dropout {self.path}", ctx.step), ctx.rows, y)
        m.greater_equal(y, self.p, out=self.mask)
        m.multiply(x.reshape(flat), self.mask, out=y)
        y *= 1 / (1 - self.p)
        return y.reshape(x.shape)

    def backward(self, dy, need_dx=True):
        if self.mask is None or not need_dx:
            return dy if need_dx else None
        dx = self.ctx.buffer(self, "dx", dy.shape, dy.dtype)
        xp(dy).multiply(dy, self.mask.reshape(dy.shape), out=dx)
        dx *= 1 / (1 - self.p)
        return dx

    def __repr__(self):
        return f"Dropout({self.p})"
