"""Vectors looked up by whole numbers."""

from npopt.errors import UserError
from npopt.values import whole

from . import init, kernels
from .init import ZeroRow
from .layer import Layer

START = init.Normal(0.02)


class Embedding(Layer):
    """y_... = W_(x_...): row x of the table.   x: (...) whole numbers 0..V-1   W: (V, D)   y: (..., D)

    dW_v = sum of dy over the places where x = v, in the order of the places; rows of words that do not occur are 0.
    There is no dx: x is not a number that could move. Kept: x.

    padding  a word whose vector starts at 0 and is not trained: dW_padding = 0. None: there is no such word
    """

    reads_output, positionwise = False, True

    def __init__(self, words, features, init=START, padding=None):
        self.words, self.features = whole("Embedding", "words", words), whole("Embedding", "features", features)
        if padding is not None and not 0 <= whole("Embedding", "padding", padding, 0) < words:
            raise UserError(f"Embedding: padding must be one of the {words} words, got {padding}")
        self.padding = padding
        start = init if padding is None else ZeroRow(init, padding)
        self.shapes, self.init = {"W": ((words, features), "embedding")}, {"W": start}

    def output_shape(self, shape):
        return (*shape, self.features)

    def fans(self, name):
        return self.words, self.features

    def forward(self, x, run):
        if x.dtype.kind not in "iu":
            raise UserError(f"Embedding: x must be whole numbers, got {x.dtype}")
        return self.W[x], (x,)

    def backward(self, dy, saved, run):
        (x,) = saved  # forward was: y = W[x]
        if run.dx:
            raise UserError("Embedding: whole numbers have no gradient; ask for that of the Embedding's output")
        if self.dW is not None:
            kernels.sum_by_word(dy.reshape(-1, self.features), x.reshape(-1), self.dW)
            if self.padding is not None:
                self.dW[self.padding] = 0

    def __repr__(self):
        more = "" if self.padding is None else f", padding={self.padding}"
        return f"Embedding({self.words}, {self.features}{more})"
