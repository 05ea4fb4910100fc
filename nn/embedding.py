"""Vectors looked up by whole numbers."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole

from . import init, kernels
from .init import ZeroRow
from .layer import Layer
from .norms import ONES, ZEROS

START, XAVIER = init.Normal(0.02), init.XavierUniform()


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


class StableEmbedding(Embedding):
    """y = LayerNorm(W_x), with gains a and shifts b.   Dettmers et al., ICLR 2022, arXiv:2110.02861, section 2.3.

    x: (...) whole numbers   W: (V, D), from Xavier's uniform law   a, b: (D,)   y: (..., D)

    Vectors of words of any length enter the network with one variance; positions are added behind. Its optimizer's
    state has 32 bits: Quantised leaves embeddings alone. dW: as Embedding's of what LayerNorm's backward gives. Kept:
    x, the rows W_x, their means and deviations.
    """

    def __init__(self, words, features, init=XAVIER, padding=None, eps=1e-5):
        super().__init__(words, features, init, padding)
        self.eps = number("StableEmbedding", "eps", eps, low=0)
        self.shapes |= {"a": ((features,), "norm"), "b": ((features,), "bias")}
        self.init |= {"a": ONES, "b": ZEROS}

    def forward(self, x, run):
        rows = super().forward(x, run)[0]
        flat = rows.reshape(-1, self.features)
        y, (m, r) = backend.empty(flat.shape, flat.dtype), (backend.empty(flat.shape[:1], flat.dtype) for _ in range(2))
        kernels.layer_norm(flat, self.a, self.b, self.eps, y, m, r)
        return y.reshape(rows.shape), (x, flat, m, r)

    def backward(self, dy, saved, run):
        x, rows, m, r = saved  # forward was: y = a (W[x] - m) r + b
        dy = dy.reshape(rows.shape)
        dy = dy if dy.flags.c_contiguous else dy.copy()
        kernels.layer_norm_backward(rows, self.a, m, r, dy, dy if self.dW is not None else None, self.da, self.db)
        return super().backward(dy, (x,), run)

    def __repr__(self):
        return f"Stable{super().__repr__()[:-1]}, eps={self.eps})"
