"""Texts from a decoder: word by word, and how likely a given text is.

A draw is a function of (seed, stream, position): a text can be made again from any place, alone or beside others.
"""

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

import numpy as np

from .choosing import Greedy

PIECE = 256  # positions of a given text that go through a network at a time


def uniforms(seed, streams, position):
    """(B,) numbers in (0, 1), functions of (seed, stream, position), in steps of 2^-46: two draws of 23 bits each."""
    u = np.empty((len(streams), 2))
    backend.row_uniform(backend.key(seed, "word", position), streams, u)
    return u[:, 0] + (u[:, 1] - 0.5) * 2.0**-23


def number_at(seed, stream, position):
    """One number in (0, 1), a function of (seed, stream, position)."""
    key = backend.key(seed, stream, position)
    return backend.uniform_at(key, 0) + (backend.uniform_at(key, 1) - 0.5) * 2.0**-23


def prompts(owner, prompt, rows, length):
    """([the words of each row, int64], whether there was one row alone)."""
    alone = len(prompt) > 0 and np.ndim(prompt[0]) == 0
    found = [np.asarray(row) for row in ([prompt] if alone else prompt)]
    for row in found:
        if row.ndim != 1 or not row.size or row.dtype.kind not in "iu":
            raise UserError(f"{owner}: a prompt must be one or more whole numbers, such as the start of a text")
        if len(row) > length:
            raise UserError(f"{owner}: a prompt of {len(row)} words is longer than the length {length}")
    if not found:
        raise UserError(f"{owner}: there is no prompt")
    if rows is not None and alone:
        return found * whole(owner, "rows", rows), False
    return found, alone


def ends(owner, stop, words):
    """(V,) bool: the words that end a text. stop: one number, or several."""
    found = np.zeros(words, bool)
    for word in (stop,) if np.ndim(stop) == 0 else stop:
        if whole(owner, "a word of stop", word, 0) >= words:
            raise UserError(f"{owner}: {word} of stop is not one of the {words} words")
        found[word] = True
    return found


def may_come(allowed, position, texts, idle):
    """What `allowed` says for these texts, (V,) or (B, V) bool or None; rows that are idle may have any word."""
    found = allowed(position, texts) if callable(allowed) else allowed
    if found is None or not idle.any():
        return found
    found = np.array(np.broadcast_to(found, (len(texts), np.shape(found)[-1])))
    found[idle] = True
    return found


def generate(
    decoder,
    prompt,
    length,
    choose=None,
    seed=0,
    *,
    stop=(),
    allowed=None,
    rows=None,
    streams=None,
    memory=None,
    keep=None,
    each=None,
):
    """Texts that begin with a prompt, the words behind it chosen one by one.

    prompt      the words of one text; or a list of these, one a row, not all of them as long
    length      how many words a text has at most, those of its prompt too
    choose      Greedy(), the default, or Sample(...)
    stop        a number, or several: a text ends behind such a word, if it is not one of its prompt
    allowed     which words may come: (V,) bool, or a function of (position, texts so far, (B, position) int64) that
                gives (V,) or (B, V) bool or None, all
    rows        with one prompt: how many texts begin with it
    streams     (B,) numbers of the texts, by which they draw; None: 0, 1, ...
    memory, keep    what the decoder looks at, as in Decoder.start: one row a text
    each        a function that is given the words of a position, (B,), as soon as they are chosen

    Returns an int64 vector for each row, prompt and stop included; the vector itself for one prompt without rows.
    """
    length = whole("generate", "length", length)
    texts, alone = prompts("generate", prompt, rows, length)
    choose, B = Greedy() if choose is None else choose, len(texts)
    streams = np.arange(B) if streams is None else np.asarray(streams, np.int64)
    state, ended = decoder.start(B, memory, keep), ends("generate", stop, decoder.words)
    if len(streams) != B or state.rows != B:
        raise UserError(f"generate: there are {B} texts, but {len(streams)} streams and a state of {state.rows} rows")
    starts, stops, done = np.array([len(text) for text in texts]), np.full(B, length), np.zeros(B, bool)
    words = np.zeros((B, length), np.int64)
    for row, text in zip(words, texts, strict=True):
        row[: len(text)] = text
    first, longest, stopping = int(starts.min()), int(starts.max()), ended.any()
    logits = state.append(words[:, :first])
    for position in range(first, length):
        given = position < starts
        where = None if allowed is None else may_come(allowed, position, words[:, :position], done | given)
        u = uniforms(seed, streams, position) if choose.draws else None
        chosen = choose(backend.to_host(logits), u, where)
        words[:, position] = np.where(given, words[:, position], chosen) if position < longest else chosen
        if each is not None:
            each(words[:, position])
        if stopping and (over := ended[words[:, position]] & ~given & ~done).any():
            done |= over
            stops[over] = position + 1
            if done.all():
                break
        if position + 1 < length:
            logits = state.append(words[:, position : position + 1])
    found = [row[:end].copy() for row, end in zip(words, stops, strict=True)]
    return found[0] if alone else found


def log_softmax(logits):
    """log p of logits, (..., V), in float64, on the host."""
    z = np.asarray(backend.to_host(logits), np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def score(decoder, tokens, memory=None, keep=None):
    """(B, n - 1) float64: log p of each word of the texts but their first, given those before it. tokens: (B, n)."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.shape[1] < 2 or tokens.dtype.kind not in "iu":
        raise UserError(
            f"score: tokens must be whole numbers of shape (B, n), n >= 2, got {tokens.dtype} {tokens.shape}"
        )
    state, found = decoder.start(len(tokens), memory, keep), []
    state.known_words(tokens)
    for i in range(0, tokens.shape[1] - 1, PIECE):
        end = min(i + PIECE, tokens.shape[1] - 1)
        logs = log_softmax(state.append(tokens[:, i:end], every=True))
        found.append(np.take_along_axis(logs, tokens[:, i + 1 : end + 1, None], 2)[..., 0])
    return np.concatenate(found, axis=1)
