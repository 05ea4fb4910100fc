"""Pooling: the largest or the mean of each window, channel by channel. Images are channels-last, (B, H, W, C)."""

from math import prod

from npopt import backend
from npopt.backend import xp
from npopt.errors import UserError
from npopt.values import pair

from . import kernels
from .convolution import window_counts
from .layer import Layer


def image_shape(layer, shape):
    """(H, W, C) of a row of x, checked."""
    if len(shape) != 3:
        raise UserError(f"{type(layer).__name__}: a row of x must be an image (H, W, C), got {tuple(shape)}")
    return tuple(shape)


class Pool(Layer):
    """Common to the pooling layers: kernel, stride (default: the kernel) and padding, each a number or a pair."""

    reads_output = False

    def __init__(self, kernel, stride=None, padding=0):
        owner = type(self).__name__
        self.kernel = pair(owner, "kernel", kernel)
        self.stride = self.kernel if stride is None else pair(owner, "stride", stride)
        self.padding = pair(owner, "padding", padding, low=0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise UserError(f"{owner}: padding {self.padding} must be at most half of the kernel {self.kernel}")

    def output_shape(self, shape):
        size = window_counts(image_shape(self, shape), self.kernel, self.stride, self.padding)
        if min(size) < 1:
            raise UserError(
                f"{type(self).__name__}: an image of {tuple(shape[:2])} is smaller than the kernel {self.kernel}"
            )
        return (*size, shape[2])

    def __repr__(self):
        return f"{type(self).__name__}({self.kernel}, stride={self.stride}, padding={self.padding})"


class MaxPool2d(Pool):
    """y = max over the window; padding counts as minus infinity. Of equal values the first in the window wins.

    dx at an input = sum of dy over the windows whose maximum it is: taken tap by tap, each tap reading disjoint inputs.
    Kept: the number (0 .. kh kw - 1) of the winning tap of each window, one byte.
    """

    def forward(self, x, run):
        if prod(self.kernel) > 255:
            raise UserError(f"MaxPool2d: the kernel {self.kernel} has more than 255 taps")
        shape = (x.shape[0], *self.output_shape(x.shape[1:]))
        y, index = backend.empty(shape, x.dtype), backend.empty(shape, "uint8")
        kernels.max_pool(x, y, index, self.kernel, self.stride, self.padding)
        return y, (index, x.shape)

    def backward(self, dy, saved, run):
        index, shape = saved  # forward was: y = the input at tap `index` of each window
        if not run.dx:
            return None
        dx = backend.empty(shape, dy.dtype)
        kernels.max_pool_backward(dy, index, dx, self.kernel, self.stride, self.padding)
        return dx

    def tangent(self, rx, saved, run):
        index, shape = saved
        ry = backend.empty(index.shape, rx.dtype)
        kernels.max_pool_tangent(rx.reshape(shape), index, ry, self.kernel, self.stride, self.padding)
        return ry, ()


class AvgPool2d(Pool):
    """y = (sum over the window) / n; padding counts as zeros. n = kh kw, as in PyTorch's default; with
    count_padding=False n is how many inputs the window holds.

    dx at an input = sum of dy / n over the windows that hold it, taken tap by tap. Kept: nothing.
    """

    def __init__(self, kernel, stride=None, padding=0, count_padding=True):
        super().__init__(kernel, stride, padding)
        self.count_padding = bool(count_padding)

    def share(self, x, shape):
        """1/n: a number, or (H', W', 1) on the device of x, of an image shape (B, H, W, C)."""
        if self.count_padding or self.padding == (0, 0):
            return 1 / prod(self.kernel)
        m, counts = xp(x), []
        for size, n, k, s, p in zip(
            shape[1:3], self.output_shape(shape[1:]), self.kernel, self.stride, self.padding, strict=False
        ):
            first = m.arange(n) * s - p
            counts.append(m.minimum(first + k, size) - m.maximum(first, 0))
        return (1 / (counts[0].reshape(-1, 1, 1) * counts[1].reshape(1, -1, 1))).astype(x.dtype)

    def forward(self, x, run):
        y = backend.zeros((x.shape[0], *self.output_shape(x.shape[1:])), x.dtype)
        for _, here, there in kernels.taps(x.shape, y.shape, self.kernel, self.stride, self.padding):
            target = y[there]
            target += x[here]
        y *= self.share(x, x.shape)
        return y, (x.shape,)

    def backward(self, dy, saved, run):
        (shape,) = saved
        if not run.dx:
            return None
        dy *= self.share(dy, shape)  # forward was: y = sums / n
        dx = backend.zeros(shape, dy.dtype)
        for _, here, there in kernels.taps(shape, dy.shape, self.kernel, self.stride, self.padding):
            target = dx[here]
            target += dy[there]
        return dx

    def tangent(self, rx, saved, run):
        return self.forward(rx, run)[0], ()  # linear

    def __repr__(self):
        more = "" if self.count_padding else ", count_padding=False"
        return super().__repr__()[:-1] + more + ")"


class AdaptiveAvgPool2d(Layer):
    """An image of any size becomes one of H' x W'. Row i is the mean over rows floor(i H/H') .. ceil((i+1) H/H') - 1,
    and columns are done likewise, as in PyTorch. Neighbouring windows may overlap.

    y = P x Q' for each channel, with the rows of P and Q the windows' means, so dx = P' dy Q. Kept: nothing.
    """

    reads_output = False

    def __init__(self, size):
        self.size = pair("AdaptiveAvgPool2d", "size", size)

    def output_shape(self, shape):
        return (*self.size, image_shape(self, shape)[2])

    def windows(self, x, size, count):
        """(count, size): row i holds 1/n on the n inputs of window i."""
        m = xp(x)
        i, at = m.arange(count).reshape(-1, 1), m.arange(size).reshape(1, -1)
        inside = (at >= i * size // count) & (at < -(-(i + 1) * size // count))
        return (inside / inside.sum(axis=1, keepdims=True)).astype(x.dtype)

    def forward(self, x, run):
        (b, h, w, c), (rows, columns) = x.shape, self.size
        y = xp(x).matmul(self.windows(x, h, rows), x.reshape(b, h, w * c))
        y = xp(x).matmul(self.windows(x, w, columns), y.reshape(b * rows, w, c))
        return y.reshape(b, rows, columns, c), (x.shape,)

    def backward(self, dy, saved, run):
        ((b, h, w, c),), (rows, columns) = saved, self.size  # forward was: y = P x Q'
        if not run.dx:
            return None
        dx = xp(dy).matmul(self.windows(dy, w, columns).T, dy.reshape(b * rows, columns, c))
        dx = xp(dy).matmul(self.windows(dy, h, rows).T, dx.reshape(b, rows, w * c))
        return dx.reshape(b, h, w, c)

    def tangent(self, rx, saved, run):
        return self.forward(rx, run)[0], ()  # linear

    def __repr__(self):
        return f"AdaptiveAvgPool2d({self.size})"


class GlobalAvgPool(Layer):
    """y_bc = mean over the image of x_bhwc; dx_bhwc = dy_bc / (H W). Kept: nothing."""

    reads_output = False

    def output_shape(self, shape):
        return (image_shape(self, shape)[2],)

    def forward(self, x, run):
        return x.mean(axis=(1, 2)), (x.shape,)

    def backward(self, dy, saved, run):
        (shape,) = saved  # forward was: y = mean of x over the image
        if not run.dx:
            return None
        dx = backend.empty(shape, dy.dtype)
        dx[...] = (dy / (shape[1] * shape[2])).reshape(shape[0], 1, 1, shape[3])
        return dx

    def tangent(self, rx, saved, run):
        return self.forward(rx, run)[0], ()  # linear
