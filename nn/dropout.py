"""Layers without arithmetic of their own: rows laid out flat, numbers left out at random."""

from math import prod

from npopt import backend
from npopt.backend import xp
from npopt.errors import UserError
from npopt.values import number

from .layer import Layer


class Flatten(Layer):
    """y = x as rows, (B, H W C); a view, and so is dx."""

    view = True

    def output_shape(self, shape):
        return (prod(shape),)

    def forward(self, x, run):
        return x.reshape(x.shape[0], -1), (x.shape,)

    def backward(self, dy, saved, run):
        (shape,) = saved
        return dy.reshape(shape) if run.dx else None

    def tangent(self, rx, saved, run):
        return rx.reshape(rx.shape[0], -1), ()


class Dropout(Layer):
    """Training: y = x k / (1 - p), k = 1 with probability 1 - p, else 0; dx = dy k / (1 - p). Evaluation: y = x.

    Srivastava et al., JMLR 2014. The mask of a row is a function of (seed, step, layer name, row). So it depends
    neither on the batch in which the row comes nor on the number of passes in a step. Kept: the mask, one byte a
    number.
    """

    view = positionwise = True

    def __init__(self, p=0.5):
        self.p = number("Dropout", "p", p, low=0, high=1, open_high=True)

    def forward(self, x, run):
        if not run.training or self.p == 0:
            return x, (None,)
        shape = self.drawn(x.shape)
        u = backend.empty((shape[0], prod(shape[1:])), x.dtype)
        backend.row_uniform(backend.key(run.seed, f"dropout {self.path}", run.step), run.rows, u)
        mask = (u >= self.p).reshape(shape)
        y = u.reshape(x.shape) if shape == x.shape else backend.empty(x.shape, x.dtype)
        xp(x).multiply(x, mask, out=y)
        y *= 1 / (1 - self.p)
        return y, (mask,)

    def drawn(self, shape):
        """The shape of the mask of a batch of this shape."""
        return shape

    def backward(self, dy, saved, run):
        (mask,) = saved  # forward was: y = x mask / (1 - p)
        if not run.dx:
            return None
        if mask is not None:
            dy *= mask
            dy *= 1 / (1 - self.p)
        return dy

    def tangent(self, rx, saved, run):
        (mask,) = saved
        return rx if mask is None else rx * mask * (1 / (1 - self.p)), ()

    def __repr__(self):
        return f"{type(self).__name__}({self.p})"


class VariationalDropout(Dropout):
    """Dropout of sequences with one mask for all times:  y_bt = x_bt k_b / (1 - p), x: (B, T, C), k: (B, C).

    Gal & Ghahramani, NIPS 2016, section 4. Between recurrent layers, and before and behind them; inside them it is
    LSTM(..., dropout=p). Kept: the mask, (B, 1, C).
    """

    def output_shape(self, shape):
        if len(shape) != 2:
            raise UserError(f"VariationalDropout: a row must be (times, features), got {tuple(shape)}")
        return tuple(shape)

    def drawn(self, shape):
        return (shape[0], 1, shape[2])
