"""Decoders of texts, word by word: what was computed of a text is kept, and only what is new goes through the network.

    decoder = Decoder(network, x)
    state = decoder.start(rows=2)
    logits = state.append([[1, 403], [1, 7]])       (2, V): of the word behind the last one
    state.rollback(1)                               as if the texts ended after one word
    other = state.branch([0, 0, 1])                 a state of three rows, which goes on by itself

The logits are those of one pass over the whole text, up to rounding. Layers have `extend(x, past)` for it, past being
the State: its `run`, its `length`, and what they kept (nn/layer.py, nn/attention.py, nn/positions.py).
"""

import contextlib
import functools

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

import numpy as np

from ..attention import MultiHeadAttention
from ..composites import Sequential
from ..embedding import Embedding
from ..encoder import EncoderDecoder
from ..layer import Run
from ..rotary import Rotary
from . import compiled
from .caches import Full


class Decoder:
    """A network of whole numbers and its parameters, as something that goes on with texts.

    network     a Network that gives logits of the next word at each position, such as llama(...) or gpt2(...), or
                layers of one's own; all attention over the text is causal
    x           its parameters, (dim,). They may change between texts, not while a State is in use
    cache       how keys and values are kept: Full() of nn/decoding/caches.py

    A UserError where a layer does not know how to extend a text, or x is not the network's.
    """

    def __init__(self, network, x, cache=None):
        network.layer.extendable()
        network.bind(x)
        self.network, self.x, self.cache = network, x, Full() if cache is None else cache
        self.words = network.output_shape[-1]
        found = [layer for layer in network.layer.leaves() if isinstance(layer, MultiHeadAttention)]
        self.looks = any(layer.cross for layer in found)  # at a memory
        own = [layer for layer in found if layer.causal]
        self.places = {layer: i for i, layer in enumerate(own)}
        self.cache.check(own)
        self.shapes = [(layer.kv_heads, layer.width) for layer in own]
        self.fast = compiled.of(self)

    def start(self, rows=1, memory=None, keep=None):
        """A State of empty texts.

        rows        B, how many texts; with a memory as many as it has
        memory      what an encoder made of the sources, (B, S, M), for decoders with cross-attention
        keep        which of its positions are there: (B, S) bool, or how many, (B,); None: all
        """
        if (memory is not None) != self.looks:
            wanted = "wants memory=" if self.looks else "has no cross-attention that could look at a memory"
            raise UserError(f"Decoder.start: {self.network.name} {wanted}")
        if memory is not None:
            rows = memory.shape[0]
        memory, keep = (None if part is None else backend.asarray(part) for part in (memory, keep))
        return State(self, whole("Decoder.start", "rows", rows), memory, keep)

    def read(self, source, keep=None):
        """The memory that a network with an encoder makes of sources: `start(memory=..., keep=keep)` goes on from it.

        source: (B, S) whole numbers   keep: (B, S) bool, which of them are there; None: all
        """
        readers = [layer for layer in self.network.layer.leaves() if isinstance(layer, EncoderDecoder)]
        if not readers:
            raise UserError(f"Decoder.read: {self.network.name} has no encoder")
        self.network.bind(self.x)
        embed = next(layer for layer in readers[0].encoder.leaves() if isinstance(layer, Embedding))
        source = backend.asarray(checked("Decoder.read", np.asarray(backend.to_host(source)), embed.words))
        keep = backend.xp(source).ones(source.shape, bool) if keep is None else backend.asarray(keep)
        return readers[0].encode(source, keep, Run())[0]

    def forward(self, tokens, state, every):
        """Logits, (B, n, V), or (B, 1, V) of the last position: what comes after all mixing is done for that alone."""
        self.network.bind(self.x)
        x, layer = backend.asarray(tokens), self.network.layer
        layers = layer.layers if type(layer) is Sequential else [layer]
        for i, each in enumerate(layers):
            if not every and x.shape[1] > 1 and i and all(other.positionwise for other in layers[i:]):
                x = x[:, -1:]
            x = each.extend(x, state)
        return x if every else x[:, -1:]


class Tree:
    """Words that do not follow each other: the parent of each, and how many words stand above it."""

    def __init__(self, parents):
        self.parents, depths = np.asarray(parents, np.int64), []
        for i, parent in enumerate(self.parents.tolist()):
            if not -1 <= parent < i:
                raise UserError(f"a tree: word {i} has the parent {parent}; it must come before it, or be -1")
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
        self.depths = np.array(depths, np.int64)

    @functools.cached_property
    def above(self):
        """(n, n) bool: which words a word sees."""
        found = np.eye(len(self.parents), dtype=bool)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                found[i] |= found[parent]
        return found

    def hidden(self, q, first):
        """(n, first + n) bool: which keys a word does not see."""
        seen = np.concatenate([np.ones((len(self.parents), first), bool), self.above], axis=1)
        return backend.asarray(~seen)


def checked(owner, tokens, words):
    """tokens, if they are of the vocabulary; a UserError where one is not."""
    if tokens.size and (tokens.min() < 0 or tokens.max() >= words):
        wrong = next(int(t) for t in tokens.reshape(-1) if not 0 <= t < words)
        raise UserError(f"{owner}: {wrong} is not one of the {words} words")
    return tokens


class State:
    """Texts of B rows, as far as they were appended: `length` words each. Made by Decoder.start.

    nbytes      what is kept of them: 2 L B G T d numbers with a full cache, keys and values of a memory, and the states
                of recurrent layers at all positions
    """

    def __init__(self, decoder, rows, memory=None, keep=None):
        self.decoder, self.rows, self.length = decoder, rows, 0
        self.memory, self.keep, self.run = memory, keep, Run()
        self.cache = decoder.cache.start(decoder.shapes, rows, decoder.x.dtype)
        self.known = {}  # of cross-attention: {layer: (keys, values) of the memory}
        self.tree = None  # of the words at hand, where they do not follow each other
        self.skipped = frozenset()  # parts of layers that are left out
        self.carried = {}  # of recurrent layers: {layer: their states at all positions, (B, length, H) each}

    @property
    def nbytes(self):
        others = [*self.known.values(), *self.carried.values()]
        return self.cache.nbytes + sum(part.nbytes for parts in others for part in parts)

    def append(self, tokens, every=False):
        """Logits of the words that come next, on the device: (B, V) behind the last of tokens, or with `every`
        (B, n, V), behind each of them.

        tokens: (B, n) whole numbers, n >= 1. A UserError leaves the state as it was.
        """
        tokens = self.shaped(tokens)
        self.cache.reserve(self.length + tokens.shape[1])
        logits = self.passed(tokens, every)
        self.length += tokens.shape[1]
        return logits if every else logits[:, 0]

    def passed(self, tokens, every):
        """Logits, (B, n, V) or (B, 1, V), by the compiled loops where these take them."""
        fast, logits = self.decoder.fast, None
        if fast is not None and fast.takes(tokens, self.length):
            parents = compiled.NONE if self.tree is None else self.tree.parents
            logits = fast(self.cache, tokens, self.length, every, parents, self.skipped)
        return self.decoder.forward(self.known_words(tokens), self, every) if logits is None else logits

    def append_tree(self, tokens, parents):
        """Logits, (n, V), behind each word of a tree: a word sees the text, the words above it, and itself.

        tokens      (n,) whole numbers, for a State of one row
        parents     (n,): the number of the word above each, which comes before it; -1: the text

        The text is not longer for it: `choose_path` keeps a path of the tree. A UserError where the cache is not Full
        or Paged, or attention has positions of its own other than rotary ones.
        """
        tree = Tree(parents)
        if self.rows != 1 or len(tokens) != len(tree.parents):
            raise UserError(
                "State.append_tree: one text and a parent for each word are wanted, got "
                f"{self.rows} texts, {len(tokens)} words, {len(tree.parents)} parents"
            )
        if not hasattr(self.cache, "keep") or any(
            layer.window or layer.pattern or not isinstance(layer.positions, (Rotary, type(None)))
            for layer in self.decoder.places
        ):
            raise UserError("State.append_tree: a tree wants a Full or Paged cache, and no positions but rotary ones")
        tokens = self.shaped(np.asarray(tokens)[None])
        self.cache.reserve(self.length + tokens.shape[1])
        self.tree = tree
        try:
            logits = self.passed(tokens, True)
        finally:
            self.tree = None
        return logits[0]

    def choose_path(self, path):
        """Keep these words of the tree that was just appended, from the text downward, and forget the others."""
        self.cache.keep(self.length, [int(i) for i in path])
        self.length += len(path)

    @contextlib.contextmanager
    def without(self, parts):
        """Within it these parts of EncoderLayers are left out: their sums are what went in (nn/decoding/drafts.py)."""
        before, self.skipped = self.skipped, frozenset(parts)
        try:
            yield
        finally:
            self.skipped = before

    def shaped(self, tokens):
        """tokens as (B, n) int64 on the host."""
        tokens = backend.to_host(tokens) if hasattr(tokens, "dtype") else np.asarray(tokens)
        if tokens.ndim != 2 or len(tokens) != self.rows or not tokens.size or tokens.dtype.kind not in "iu":
            raise UserError(
                f"State.append: tokens must be whole numbers of shape ({self.rows}, n), got {tokens.dtype} "
                f"{tokens.shape}"
            )
        return np.ascontiguousarray(tokens, np.int64)

    def known_words(self, tokens):
        """tokens, if they are of the vocabulary."""
        return checked("State.append", tokens, self.decoder.words)

    def rollback(self, length):
        """Forget all but the first `length` words of each text."""
        if whole("State.rollback", "length", length, 0) > self.length:
            raise UserError(f"State.rollback: the texts have {self.length} words, {length} cannot be kept")
        self.cache.rollback(length)
        self.carried = {layer: tuple(part[:, :length] for part in parts) for layer, parts in self.carried.items()}
        self.length = length

    def branch(self, rows):
        """A State of copies of these rows, in this order; a row may come any number of times."""
        rows = np.asarray(rows)
        if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= self.rows:
            raise UserError(f"State.branch: rows must be some of 0..{self.rows - 1}, got {rows.tolist()}")
        other = object.__new__(State)
        other.decoder, other.rows, other.length, other.run = self.decoder, len(rows), self.length, self.run
        other.skipped, other.tree = self.skipped, None
        other.cache, there = self.cache.branch(rows, self.length), backend.asarray(rows)
        other.memory, other.keep = (None if part is None else part[there] for part in (self.memory, self.keep))
        for name in ("known", "carried"):
            copies = {layer: tuple(p[there] for p in parts) for layer, parts in getattr(self, name).items()}
            setattr(other, name, copies)
        return other

    @property
    def position(self):
        """The position of the next word."""
        return self.cache.position(self.length)

    def places(self, n):
        """(places, the last one + 1) of n further words, for layers that add positions to vectors."""
        start = self.position
        if self.tree is None:
            return slice(start, start + n), start + n
        return backend.asarray(start + self.tree.depths), start + int(self.tree.depths.max()) + 1

    def turning(self, rotary):
        """turn(x, start) of a Rotary, for the words at hand."""
        if self.tree is None:
            return rotary.turn
        return lambda x, start: rotary.turn(x, start, depths=self.tree.depths)

    # --- for layers --------------------------------------------------------------------------------------------------

    def seen(self, layer, q, k, v, turn):
        """(q, keys, values, first) for attention over the text, as in nn/decoding/caches.py."""
        return self.cache.extend(self.decoder.places[layer], q, k, v, turn, self.length)

    def attended(self, layer, q, k, v, turn):
        """Attention over the text by the cache itself, (B, n, H, d), or None where it leaves that to the layer."""
        attend = getattr(self.cache, "attend", None)
        if attend is None or self.tree is not None:
            return None
        return attend(self.decoder.places[layer], q, k, v, turn, self.length, layer.scale)

    def carry(self, layer, states):
        """Keep a recurrent layer's states at further positions, (B, n, H) each, behind those it has."""
        before = self.carried.get(layer)
        if before is not None and self.length:
            m = backend.xp(states[0])
            kept = (part[:, : self.length] for part in before)  # a pass that failed may have left more
            states = [m.concatenate(pair, axis=1) for pair in zip(kept, states, strict=True)]
        self.carried[layer] = tuple(states)

    def of_memory(self, layer, maps):
        """(keys, values) of the memory, made once by maps(memory)."""
        if layer not in self.known:
            self.known[layer] = maps(self.memory)
        return self.known[layer]
