"""Encoders of padded rows: what all their layers need beside x goes along."""

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

from . import init as initialisers
from .layer import Layer
from .transformer import asked_of

START = initialisers.Normal(0.02)


class Encoder(Layer):
    """(words, keep) -> y: `start` makes vectors of the words, then each of the layers takes (x, keep).

    words: (B, T) whole numbers   keep: (B, T) bool, which words are there   y: (B, T, D)

    y = f_n(... f_1(s(words), keep) ..., keep); backward goes through the layers from the last one, down to the lowest
    that is trained. Words have no gradient. Kept: what the parts keep.
    """

    reads_output = False

    def __init__(self, start, layers):
        self.start, self.layers = start, list(layers)

    def children(self):
        return [("", self.start), *((f"layer{i}", layer) for i, layer in enumerate(self.layers, 1))]

    def output_shape(self, shape):
        if len(shape) != 2 or not all(isinstance(part, tuple) for part in shape):
            raise UserError(f"Encoder: a row must be (words, keep), got the shape {tuple(shape)}")
        words, keep = shape
        found = self.start.output_shape(words)
        for layer in self.layers:
            found = layer.output_shape((found, keep))
        return tuple(found)

    def forward(self, x, run):
        (words, keep), kept = x, []
        parts = [self.start, *self.layers]
        for part, asked in zip(parts, asked_of(parts, run, False), strict=True):  # words have no gradient
            x, saved = part.forward(words if part is self.start else (x, keep), asked)
            kept.append(saved if asked.backward else None)
        return x, tuple(kept)

    def backward(self, dy, saved, run):
        stack, parts = list(saved), [self.start, *self.layers]
        del saved
        for part, asked in zip(parts[::-1], asked_of(parts, run, False)[::-1], strict=True):
            if not asked.backward:
                break
            dy = part.backward(dy, stack.pop(), asked)

    def __repr__(self):
        return f"Encoder({self.start!r}, {len(self.layers)} x {self.layers[0]!r})"


class OneType(Layer):
    """y = x + W_0: the words of a row are all of the first of the types that a network knows.   W: (types, D)

    dx = dy, dW_0 = the sum of dy over all words, and 0 for the other types. BERT marks the sentences of a pair by them.
    """

    reads_output = False

    def __init__(self, types, features, init=START):
        self.shapes = {"W": ((whole("OneType", "types", types), features), "embedding")}
        self.init = {"W": init}

    def output_shape(self, shape):
        return tuple(shape)

    def fans(self, name):
        return self.shapes["W"][0]

    def forward(self, x, run):
        return x + self.W[0], ()

    def backward(self, dy, saved, run):
        if self.dW is not None:  # forward was: y = x + W[0]
            self.dW[...] = 0
            self.dW[0] = backend.xp(dy).sum(dy.reshape(-1, dy.shape[-1]), axis=0)
        return dy if run.dx else None

    def __repr__(self):
        return f"OneType({self.shapes['W'][0][0]})"


class First(Layer):
    """y_b = x_b1: the vector of a row's first word, such as [CLS].   x: (B, T, D)   y: (B, D); dx is 0 elsewhere."""

    reads_output = False

    def output_shape(self, shape):
        return (shape[-1],)

    def forward(self, x, run):
        return x[:, 0].copy(), (x.shape,)

    def backward(self, dy, saved, run):
        (shape,) = saved  # forward was: y = x[:, 0]
        if not run.dx:
            return None
        dx = backend.zeros(shape, dy.dtype)
        dx[:, 0] = dy
        return dx


class Averaged(Layer):
    """(words, keep) -> y_b = sum_t p_bt e_bt, p_bt = keep_bt / n_b: the mean of an encoder's vectors over the n_b words
    that are there.   e: (B, T, D)   y: (B, D)

    de_bt = p_bt dy_b, and the encoder's backward follows. Kept: p, and what the encoder keeps.
    """

    reads_output = False

    def __init__(self, encoder):
        self.encoder = encoder

    def children(self):
        return [("", self.encoder)]

    def output_shape(self, shape):
        return self.encoder.output_shape(shape)[-1:]

    def forward(self, x, run):
        _, keep = x
        vectors, saved = self.encoder.forward(x, run)
        share = keep / keep.sum(axis=1, keepdims=True)
        share = share.astype(vectors.dtype)[..., None]
        return (share * vectors).sum(axis=1), (saved, share)

    def backward(self, dy, saved, run):
        kept, share = saved  # forward was: y = sum_t share_t e_t
        return self.encoder.backward(share * dy[:, None], kept, run)

    def __repr__(self):
        return f"Averaged({self.encoder!r})"
