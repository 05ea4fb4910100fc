"""Encoders of padded rows, and decoders that look at what an encoder made of them: what all layers need beside x goes
along."""

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


class EncoderDecoder(Layer):
    """(source, keep, words) -> y, Vaswani et al., NeurIPS 2017, section 3.1, without the logits.

    source: (B, S) whole numbers   keep: (B, S) bool, which of them are there   words: (B, T)   y: (B, T, D)

    m = N(encoder(source, keep)),   y = f_n(... f_1(s(words), m, keep) ..., m, keep)

    With dm_i from layer f_i:  dm = sum_i dm_i, which goes back through N and the encoder; dx_1 goes back through s.

    encoder     an Encoder
    norm        N, for encoders whose last layer has none behind it; None: m is what the encoder gives
    start       s: vectors of the words, with their positions
    layers      DecoderLayers
    """

    reads_output = False

    def __init__(self, encoder, start, layers, norm=None):
        self.encoder, self.norm, self.start, self.layers = encoder, norm, start, list(layers)

    def children(self):
        norm = [] if self.norm is None else [("memory_norm", self.norm)]
        decoder = [("", self.start), *((f"layer{i}", layer) for i, layer in enumerate(self.layers, 1))]
        return [("encoder", self.encoder), *norm, *decoder]

    def output_shape(self, shape):
        if len(shape) != 3 or not all(isinstance(part, tuple) for part in shape):
            raise UserError(f"EncoderDecoder: a row must be (source, keep, words), got the shape {tuple(shape)}")
        source, keep, words = shape
        memory = self.encoder.output_shape((source, keep))
        found = self.start.output_shape(words)
        for layer in self.layers:
            found = layer.output_shape((found, memory, keep))
        return tuple(found)

    def asked(self, run):
        """What is asked of the encoder, of N, of s and of each decoder layer."""
        encoder, norm = self.encoder.active, self.norm is not None and self.norm.active
        below = encoder or norm or self.start.active
        return (
            run.asking(run.backward and encoder, False),
            run.asking(run.backward and (encoder or norm), encoder),
            run.asking(run.backward and self.start.active, False),
            asked_of(self.layers, run, below),
        )

    def encode(self, source, keep, run):
        """(m, saved): what the decoder looks at."""
        of_encoder, of_norm, *_ = self.asked(run)
        memory, below = self.encoder.forward((source, keep), of_encoder)
        if self.norm is None:
            return memory, (below, None)
        memory, saved = self.norm.forward(memory, of_norm)
        return memory, (below, saved)

    def forward(self, x, run):
        source, keep, words = x
        *_, of_start, of_layers = self.asked(run)
        memory, encoded = self.encode(source, keep, run)
        x, started = self.start.forward(words, of_start)
        kept = []
        for layer, asked in zip(self.layers, of_layers, strict=True):
            x, saved = layer.forward((x, memory, keep), asked)
            kept.append(saved if asked.backward else None)
        return x, (*encoded, started, tuple(kept))

    def backward(self, dy, saved, run):
        *first, kept = saved
        stack, total = list(kept), None
        del saved, kept
        started, normed, below = first.pop(), first.pop(), first.pop()
        of_encoder, of_norm, of_start, of_layers = self.asked(run)
        for layer, asked in zip(self.layers[::-1], of_layers[::-1], strict=True):
            if not asked.backward:
                return
            found = layer.backward(dy, stack.pop(), asked)
            dy, more = found if asked.dx else (None, None)
            total = more if total is None else total if more is None else backend.xp(total).add(total, more, out=total)
        if of_start.backward:
            self.start.backward(dy, started, of_start)
        if of_norm.backward:
            total = total if self.norm is None else self.norm.backward(total, normed, of_norm)
        if of_encoder.backward:
            self.encoder.backward(total, below, of_encoder)

    def extend(self, x, past):
        """x: further words; what the decoder looks at, memory and keep, are those of `past`."""
        x = self.start.extend(x, past)
        for layer in self.layers:
            x = layer.extend(x, past)
        return x

    def extendable(self):
        for layer in (self.start, *self.layers):
            layer.extendable()

    def __repr__(self):
        return f"EncoderDecoder({self.encoder!r}, {self.start!r}, {len(self.layers)} x {self.layers[0]!r})"


class OneType(Layer):
    """y = x + W_0: the words of a row are all of the first of the types that a network knows.   W: (types, D)

    dx = dy, dW_0 = the sum of dy over all words, and 0 for the other types. BERT marks the sentences of a pair by them.
    """

    reads_output, positionwise = False, True

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


class AtGap(Layer):
    """(words, keep) -> y_b = e_bt, t the first place of row b whose word is `mask`.   e: (B, T, D)   y: (B, D)

    The vector of a gap that a prompt leaves. A row without a gap gives its first vector. de is dy there and 0
    elsewhere, and the encoder's backward follows. Kept: the places, and what the encoder keeps.
    """

    reads_output = False

    def __init__(self, encoder, mask):
        self.encoder, self.mask = encoder, whole("AtGap", "mask", mask, 0)

    def children(self):
        return [("", self.encoder)]

    def output_shape(self, shape):
        return self.encoder.output_shape(shape)[-1:]

    def forward(self, x, run):
        vectors, saved = self.encoder.forward(x, run)
        places = (x[0] == self.mask).argmax(axis=1)
        rows = backend.xp(vectors).arange(len(places))
        return vectors[rows, places], (saved, places, vectors.shape)

    def backward(self, dy, saved, run):
        kept, places, shape = saved  # forward was: y = e[rows, places]
        de = backend.zeros(shape, dy.dtype)
        de[backend.xp(dy).arange(len(places)), places] = dy
        del saved
        return self.encoder.backward(de, kept, run)

    def __repr__(self):
        return f"AtGap({self.encoder!r}, mask={self.mask})"


class Chosen(Layer):
    """y_bc = x_b,i(c): some of the logits, such as those of the words that stand for labels.   x: (B, V)   y: (B, C)

    dx is dy at these places and 0 elsewhere; a place is chosen once.
    """

    reads_output = False

    def __init__(self, places):
        self.places = tuple(whole("Chosen", "places", place, 0) for place in places)
        if len(set(self.places)) < len(self.places) or not self.places:
            raise UserError(f"Chosen: places must be different ones, one at least, got {self.places}")

    def output_shape(self, shape):
        if max(self.places) >= shape[-1]:
            raise UserError(f"Chosen: place {max(self.places)} of {shape[-1]} numbers")
        return (len(self.places),)

    def forward(self, x, run):
        return backend.xp(x).stack([x[:, place] for place in self.places], axis=1), (x.shape,)

    def backward(self, dy, saved, run):
        (shape,) = saved  # forward was: y = x[:, places]
        if not run.dx:
            return None
        dx = backend.zeros(shape, dy.dtype)
        for i, place in enumerate(self.places):
            dx[:, place] = dy[:, i]
        return dx

    def __repr__(self):
        return f"Chosen({self.places})"
