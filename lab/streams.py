"""Texts that go on far beyond what a model was trained for: losses word by word, shares of attention, answers."""

import time

from nn.attention import MultiHeadAttention, probabilities
from nn.decoding import Decoder
from nn.decoding.chosen import later
from nn.decoding.generation import log_softmax
from nn.layer import Run
from nn.rotary import Rotary
from npopt import backend

import numpy as np


def losses(decoder, tokens, start=()):
    """-log p of each word but the first, (B, T - 1), appended one by one behind the words of `start`."""
    tokens = np.asarray(tokens)
    state, found = decoder.start(len(tokens)), []
    if start:
        state.append(np.tile(np.asarray(start, np.int64), (len(tokens), 1)))
    for t in range(tokens.shape[1] - 1):
        logs = log_softmax(state.append(tokens[:, t : t + 1]))
        found.append(-logs[np.arange(len(tokens)), tokens[:, t + 1]])
    return np.stack(found, axis=1)


def buckets(count, width):
    """[(first, behind the last)] of positions up to `count`, each a quarter of `width` wide."""
    edges = [*range(0, count, max(1, width // 4)), count]
    return list(zip(edges, edges[1:], strict=False))


def stream(reader, cache, rows, length, seed):
    """{"position", "loss"}: mean -log p in buckets of positions, over `rows` streams that are drawn by the seed."""
    tokens = reader.streams(rows, length, seed)
    found = losses(Decoder(reader.network, reader.x, cache), tokens, reader.start)
    parts = buckets(found.shape[1], reader.length)
    return {"position": [b for _, b in parts], "loss": [float(found[:, a:b].mean()) for a, b in parts]}


def shares(reader, rows, length, seed, first=4):
    """(layers,) lists by layer: the share of attention that goes to the first word, and to the `first` ones, of queries
    in the second half of `length` words; an even spread would give 1 / (place of the query)."""
    tokens = backend.asarray(reader.streams(rows, length - len(reader.start), seed))
    m = backend.xp(tokens)
    if reader.start:
        tokens = m.concatenate([m.tile(m.asarray(reader.start), (rows, 1)), tokens], axis=1)
    reader.network.bind(reader.x)
    one, few, seen = [], [], []
    layers = [part for part in reader.network.layer.leaves() if isinstance(part, MultiHeadAttention)]
    inputs = inputs_of(reader.network, layers, tokens)
    for layer, x in zip(layers, inputs, strict=True):
        q, k = (layer.headed(part, x, Past) for part in (layer.query, layer.key))
        if isinstance(layer.positions, Rotary):
            layer.positions.turn(q)
            layer.positions.turn(k)
        p = probabilities(q, k.transpose(0, 2, 1, 3), later(m, tokens.shape[1], 0))
        late = p.reshape(*p.shape[:2], -1, tokens.shape[1], tokens.shape[1])[..., tokens.shape[1] // 2 :, :]
        one.append(float(backend.to_host(late[..., 0].mean())))
        few.append(float(backend.to_host(late[..., :first].sum(-1).mean())))
        seen.append(backend.to_host(k))
    return one, few, seen


class Past:
    """What `extend` of layers without positions asks: an evaluation."""

    run = Run()


def inputs_of(network, layers, tokens):
    """What each of these layers is given in a pass over the tokens."""
    found, forward = {}, MultiHeadAttention.forward

    def noted(self, x, run):
        found[self] = x
        return forward(self, x, run)

    MultiHeadAttention.forward = noted
    try:
        network.forward(tokens, Run()) if tokens.shape[1] == network.input_shape[0] else network.layer.forward(
            tokens, Run()
        )
    finally:
        MultiHeadAttention.forward = forward
    return [found[layer] for layer in layers]


def answered(reader, questions, right, cache, context=()):
    """(accuracy by the sum of log p, accuracy by the sum a byte): questions with answers, by likelihood. Answers are
    appended to what stands before them, once for each question."""
    hits = np.zeros(2)
    decoder = Decoder(reader.network, reader.x, cache)
    for question, y in zip(questions, right, strict=True):
        stem = [*reader.start, *context, *reader.encode(question.stem)]
        sums, sizes = [], []
        for answer in question.answers:
            words = reader.encode(" " + answer)
            state = decoder.start()
            logits = [state.append([[word]]) for word in [*stem, *words[:-1]]][len(stem) - 1 :]
            logs = log_softmax(np.concatenate([backend.to_host(z) for z in logits]))
            sums.append(logs[np.arange(len(words)), words].sum())
            sizes.append(len(answer.encode()))
        hits += [np.argmax(sums) == y, np.argmax(np.array(sums) / sizes) == y]
    return hits / len(right)


def clocked(reader, cache, length, every, seed):
    """{"position", "step_seconds", "bytes"}: time of a word and bytes of the cache as a text grows."""
    tokens = np.resize(reader.streams(1, min(length, len(reader.text) - 1), seed)[0], length)
    state = Decoder(reader.network, reader.x, cache).start()
    columns = {"position": [], "step_seconds": [], "bytes": []}
    for begin in range(0, length, every):
        took = []
        for word in tokens[begin : begin + every]:
            began = time.perf_counter()
            state.append([[word]])
            took.append(time.perf_counter() - began)
        columns["position"].append(min(length, begin + every))
        columns["step_seconds"].append(float(np.median(took)))
        columns["bytes"].append(state.nbytes)
    return columns
