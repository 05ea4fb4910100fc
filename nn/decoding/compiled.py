"""The fast way through a decoder for a few words on a CPU: one compiled function, nn/kernels/words.py.

It knows decoders of the kind of Llama and GPT-2: an embedding, learned positions if any, EncoderLayers of one shape,
with norms before each part and causal attention, rotary if any, a norm, and a head. Other networks, and many words at
a time, go layer by layer. Both put the same numbers into the same cache, so that they may take turns.
"""

from npopt import backend

import numpy as np

from .. import kernels
from ..activations import GELU, ReLU, Sigmoid, SiLU
from ..composites import Sequential
from ..dropout import Dropout
from ..embedding import Embedding
from ..gated import Gated
from ..layer_norm import LayerNorm, RMSNorm
from ..linear import Linear
from ..positions import LearnedPositions
from ..rotary import Rotary, rounded
from ..transformer import EncoderLayer
from .caches import Full, FullMemory
from .kivi import KIVI

# It takes so many words at a time. On one core of an EPYC layer by layer is faster beyond 130 to 260 words, whether of
# 0.03 M parameters or of 15 M.
MOST = 128
NONE = np.empty(0, np.int64)
NAMES = {ReLU: "relu", Sigmoid: "sigmoid", SiLU: "silu"}


class Words:
    """What nn/kernels/words.py is told of one decoder. `of` makes it, or gives None where the decoder is of another
    kind. parts: [(attention, feed-forward part)] of the layers."""

    def __init__(self, x, sizes, table, numbers, rotary, limit, parts):
        self.x, self.sizes, self.rotary, self.limit = x, sizes, rotary, limit
        self.n, self.table, self.numbers = np.array(sizes), np.array(table), np.array(numbers)
        self.most, self.parts, self.known = MOST, parts, {}
        self.angles = np.zeros((2, 0, 0), x.dtype)

    def takes(self, words, state):
        """Whether these words are few enough for it, and of a kind that it knows with the cache of a State."""
        if not isinstance(state.cache, FullMemory):
            plain = state.tree is None and not state.skipped and words.shape[1] == 1
            if not plain or not state.cache.reads(self.x.dtype):
                return False
        end = state.length + words.shape[1]
        return words.size <= self.most and (self.limit is None or end <= self.limit) and kernels.plan() == "fast"

    def __call__(self, words, state, every):
        """Logits, (B, 1, V) or (B, n, V); None where a word is not one of the vocabulary's, or it does not compile."""
        end = state.length + words.shape[1]
        if self.rotary is not None and end > self.angles.shape[1]:
            owner = backend.owner(self.x)
            cos, sin = self.rotary.table(owner, 0, rounded(end), self.sizes.width, self.x.dtype.name)
            self.angles = np.stack([cos, sin])
        logits = np.empty((len(words), words.shape[1] if every else 1, self.sizes.words), self.x.dtype)
        try:
            if isinstance(state.cache, FullMemory):
                parents, memory = NONE if state.tree is None else state.tree.parents, state.cache.numbers
                there, net = self.there(state.skipped), (self.table, self.n, self.numbers, self.angles)
                found = kernels.words.run(self.x, memory, words, state.length, parents, there, net, logits)
            else:
                found = self.by_itself(words, state, logits)
        except MemoryError:
            raise
        except Exception as error:  # it does not compile; the loops themselves raise nothing
            kernels.warn(error)
            found, self.most = False, 0
        return logits if found else None

    def by_itself(self, words, state, logits):
        """One word a text, with a cache that attends by itself: compiled stretches between its layers."""
        n, B, length = self.sizes, len(words), state.length
        inner, shared = n.heads * n.width, n.kv_heads * n.width
        columns = n.features, n.features, inner, shared, shared, inner, n.hidden, n.hidden * n.gated
        h, *work = (np.empty((B, count), self.x.dtype) for count in columns)
        arrays = (self.table, self.n, self.numbers, self.angles), h, tuple(work), logits.reshape(B, -1)
        for k in range(n.layers + 1):
            if not kernels.words.stretch(self.x, k, words, length, *arrays):
                return False
            if k < n.layers:
                q, key, value = (part.reshape(B, 1, -1, n.width) for part in work[1:4])
                seen = state.cache.attend(k, q, key, value, None, length, self.numbers[1])
                work[4][...] = seen.reshape(B, -1)
        return True

    def there(self, skipped):
        """(L, 2) bool: which parts are there."""
        if skipped not in self.known:
            self.known[skipped] = np.array([[part not in skipped for part in parts] for parts in self.parts])
        return self.known[skipped]


def of(decoder):
    """Words for a decoder, or None."""
    x, layer = decoder.x, decoder.network.layer
    usable = type(x) is np.ndarray and x.flags.carray and x.dtype.char in "fd" and type(decoder.cache) in (Full, KIVI)
    if not usable or type(layer) is not Sequential or kernels.words.run is None:
        return None
    rest = [part for part in layer.layers if type(part) is not Dropout]
    embed = rest.pop(0)
    positions = rest.pop(0) if rest and type(rest[0]) is LearnedPositions else None
    if type(embed) is not Embedding or len(rest) < 3:
        return None
    *layers, norm, head = rest
    described = [described_layer(part) for part in layers]
    wanted = type(head) is Linear and type(norm) in (LayerNorm, RMSNorm) and None not in described
    if not wanted or len({shape for shape, _ in described}) > 1 or embed.words != head.outputs:
        return None
    (heads, kv_heads, width, hidden, scale, rotary, kinds), _ = described[0]
    (activation, gated), (kind, eps) = kinds[:2], kinds[2:]
    if (type(norm), norm.eps) != (kind, eps):
        return None
    at = lambda layer, name: decoder.network.owners[layer, name].start if name in layer.shapes else -1  # noqa: E731
    d = width if rotary is None or rotary.features is None else rotary.features
    sizes = kernels.words.Sizes(
        *(embed.features, heads, kv_heads, width, hidden, head.outputs, len(layers)),
        *(0 if rotary is None else d // 2, int(rotary is not None and rotary.pairing == "adjacent")),
        *(int(kind is LayerNorm), kernels.reference_gates.KINDS.index(activation), int(gated), at(embed, "W")),
        *(-1 if positions is None else at(positions, "W"), at(norm, "a"), at(norm, "b")),
        *(at(head, "W"), at(head, "b")),
    )
    table = [[-1 if part is None else at(part, name) for part, name in places] for _, places in described]
    limit = None if positions is None else positions.length
    return Words(x, sizes, table, [float(eps), float(scale)], rotary, limit, [layer.parts for layer in layers])


def described_layer(layer):
    """(a layer's shape, [(layer, parameter)] in the order of the table), or None where it is of another kind."""
    if type(layer) is not EncoderLayer:
        return None
    (one, two), own = layer.parts, [part.norm for part in layer.parts]
    attention, feed = one.f, two.f.layers
    fits = one.place == "pre" and type(own[0]) in (LayerNorm, RMSNorm) and type(own[0]) is type(own[1])
    fits = fits and own[0].eps == own[1].eps and not attention.window and not attention.pattern
    if not fits or not (attention.positions is None or type(attention.positions) is Rotary):
        return None
    if isinstance(feed[0], Gated):
        gate, up, name = feed[0].gate, feed[0].up, feed[0].activation
    else:
        gate, up, act = None, feed[0], feed[1]
        name = ("gelu" if act.form == "erf" else "gelu-tanh") if type(act) is GELU else NAMES.get(type(act))
    if name is None:
        return None
    shape = (attention.heads, attention.kv_heads, attention.width, up.outputs, attention.scale, attention.positions)
    parts = [own[0], attention.query, attention.key, attention.value, attention.out, own[1], gate, up, feed[-1]]
    if any(type(part) is not Linear for part in parts if part is not None and part not in own):
        return None  # an adapter, say, whose weight is not all
    places = [(part, name) for part in parts for name in (("a", "b") if part in own else ("W", "b"))]
    return (*shape, (name, gate is not None, type(own[0]), own[0].eps)), places
