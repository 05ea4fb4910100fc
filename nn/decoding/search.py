"""Beam search: the likeliest text, among those that begin with one of the likeliest prefixes of each length."""

from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np

from .choosing import masked
from .generation import ends, log_softmax, may_come, prompts


def largest(values, count):
    """The places of the `count` largest numbers, falling; equal ones in their order."""
    places = np.arange(len(values))
    if count < len(values):
        places = np.flatnonzero(values >= np.partition(values, -count)[-count])
    return places[np.argsort(-values[places], kind="stable")][:count]


def beam(decoder, prompt, length, width, length_penalty=0.0, *, stop=(), allowed=None, memory=None, keep=None):
    """[(text, score)], best first: at most `width` texts that begin with a prompt.

    score = log p(words behind the prompt) / n^length_penalty, n being their number: with 0 a longer text never scores
    more than its beginning, with 1 it is the mean. At each position the `width` best of all continuations are taken:
    those that end with a stop are put aside, the best others go on. Of equal ones the one of the better text comes
    first, then the lower number. The search is over where no text that goes on can score more than the worst of
    `width` that ended, or at the length; texts that did not end by then are among the results.

    prompt, length, stop, allowed, memory and keep are those of generate, for one text. With `width` at least the number
    of prefixes it finds the best text of all.
    """
    length, width = whole("beam", "length", length), whole("beam", "width", width)
    alpha = number("beam", "length_penalty", length_penalty, low=0)
    (text, *others), alone = prompts("beam", prompt, None, length)
    if not alone or others:
        raise UserError("beam: the prompt must be the words of one text")
    state, ended = decoder.start(1, memory, keep), ends("beam", stop, decoder.words)
    if state.rows != 1:
        raise UserError(f"beam: there is one text, but a memory of {state.rows} rows")
    texts, sums, finished, V = text[None].astype(np.int64), np.zeros(1), [], decoder.words
    logits, start = state.append(texts), len(text)
    for position in range(start, length):
        logs = log_softmax(logits)
        if allowed is not None:
            where = may_come(allowed, position, texts, np.zeros(len(texts), bool))
            logs = masked(logs, where, "beam")
        total = (sums[:, None] + logs).reshape(-1)
        order = largest(total, width + int(ended.sum()) * len(texts))
        order = order[np.isfinite(total[order])]
        if not len(order) and not finished:
            raise UserError(
                f"beam: no text can go on at position {position}: no word is allowed, or the logits are NaN"
            )
        stops = ended[order % V]
        for i in order[:width][stops[:width]]:
            finished.append((np.append(texts[i // V], i % V), total[i] / (position + 1 - start) ** alpha))
        finished = sorted(finished, key=lambda pair: -pair[1])[:width]
        order = order[~stops][:width]
        rows, sums = order // V, total[order]
        texts = np.concatenate([texts[rows], (order % V)[:, None]], axis=1)
        full = len(finished) == width  # sums only fall, and are divided by (length - start)^alpha at most
        if not len(sums) or full and sums[0] / (length - start) ** alpha <= finished[-1][1]:
            break
        if position + 1 < length:
            if len(rows) != state.rows or (rows != np.arange(len(rows))).any():
                state = state.branch(rows)
            logits = state.append(texts[:, -1:])
    else:
        finished += [(row, total / max(length - start, 1) ** alpha) for row, total in zip(texts, sums, strict=True)]
    return [(row, float(value)) for row, value in sorted(finished, key=lambda pair: -pair[1])[:width]]
