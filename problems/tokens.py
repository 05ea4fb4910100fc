"""Texts as feeds: whole numbers, one a word, byte or piece of a word.

    Windows(text, 64)                       each row 64 tokens of a long text, the target of each its successor
    Sentences(texts, 32)                    one sentence a row, padded; padding does not count
    Pairs(pairs, 32, 32, start=1, stop=2)   translation: (source, target so far) -> target

Texts are sequences of numbers 0..V-1. `validation` and `test` are further texts of the same kind, or None.
"""

from nn.losses import IGNORE
from npopt import backend
from npopt.errors import UserError
from npopt.values import arguments_of, whole
from problems.feeds import Feed, chosen

import numpy as np


def numbers(owner, text):
    """A text as int64 numbers, checked."""
    found = np.asarray(text)
    if found.ndim != 1 or found.size and (found.dtype.kind not in "iu" or found.min() < 0):
        raise UserError(f"{owner}: a text is a vector of whole numbers of at least 0, got {found.dtype} {found.shape}")
    return found.astype(np.int64)


def filled(texts, length, pad=0):
    """(ids, keep) of texts: (n, length) int64 and bool, cut at the length, `pad` behind their ends and False there."""
    ids = np.full((len(texts), length), pad, np.int64)
    keep = np.zeros(ids.shape, bool)
    for row, text in enumerate(texts):
        text = text[:length]
        ids[row, : len(text)], keep[row, : len(text)] = text, True
    return ids, keep


class Windows(Feed):
    """Windows of one long text: row r holds tokens s .. s + length - 1, s = r stride, and its target at each position
    is the next token. Inputs (B, length) and targets (B, length), int64.

    Evaluation goes through a part in `size` streams side by side (see `walk`), so that layers with a state, those with
    streams, go on from window to window.

    stride   tokens between the beginnings of neighbouring rows; None: length, so that every token is a target once
    moving   training rows begin up to stride - 1 tokens later, by a draw of (seed, t, row); not for layers with
             streams, whose rows have to follow one another without a gap
    """

    perplexity = True

    def __init__(self, train, length, validation=None, test=None, stride=None, moving=False, name="text"):
        self.length, self.moving, self.name = whole("Windows", "length", length), bool(moving), name
        self.stride = self.length if stride is None else whole("Windows", "stride", stride)
        self.texts = {"train": train, "validation": validation, "test": test}
        self.texts = {part: numbers("Windows", text) for part, text in self.texts.items() if text is not None}
        for part, text in self.texts.items():
            if self.starts(text) < 1:
                raise UserError(
                    f"Windows: the {part} text has {len(text)} tokens; a window of {length} and the token "
                    f"behind it need {self.length + 1}"
                )

    def ingredients(self):
        return arguments_of(self) | {"texts": self.texts}

    def starts(self, text):
        """How many windows a text holds."""
        return max(0, (len(text) - 1 - self.length) // self.stride + 1)

    def place(self, network, loss, dtype):
        if network.input_shape != (self.length,):
            raise UserError(f"Windows: a row has {self.length} tokens, the network expects {network.input_shape}")
        self.parts = {}
        for part, text in self.texts.items():
            loss.targets(network.output_shape, np.array([[n] * self.length for n in (text.min(), text.max())]), dtype)
            self.parts[part] = backend.asarray(text)
        self.at = backend.asarray(np.arange(self.length))
        self.n = self.count("train")

    def count(self, part):
        return self.starts(self.texts[part])

    def targets(self):
        return self.texts["train"][self.stride * np.arange(self.n)[:, None] + np.arange(1, self.length + 1)]

    def batch(self, part, rows=None, draw=None):
        text = self.parts[part]
        rows = backend.asarray(np.arange(self.count(part))) if rows is None else rows
        start = rows * self.stride
        if draw is not None and self.moving:
            seed, t = draw
            u = backend.row_uniform(backend.key(seed, "windows", t), rows, backend.empty((rows.shape[0], 1), "float64"))
            start = backend.xp(start).minimum(start + (u[:, 0] * self.stride).astype("int64"), self.last(part))
        places = start.reshape(-1, 1) + self.at
        return text[places], text[places + 1]

    def walk(self, part, count, size):
        """Streams of m = ceil(count / size) rows: batch j holds rows j, m + j, 2 m + j, ... below count."""
        m = -(-count // size)
        return [backend.xp().arange(j, count, m) for j in range(m)]

    def last(self, part):
        """The last place at which a window may begin."""
        return len(self.texts[part]) - 1 - self.length


class Padded(Feed):
    """Rows that were padded to one length. A subclass has `shapes`, the shapes of one row's inputs, and table(rows),
    which gives the inputs and targets of the rows, (n, ...) each."""

    def __init__(self, name, train, validation, test):
        self.name, texts = name, {"train": train, "validation": validation, "test": test}
        self.tables = {part: self.table(rows) for part, rows in texts.items() if rows is not None}

    def place(self, network, loss, dtype):
        if network.input_shape != self.shapes:
            raise UserError(
                f"{type(self).__name__}: inputs have shapes {self.shapes}, the network expects {network.input_shape}"
            )
        self.parts = {}
        for part, (*inputs, targets) in self.tables.items():
            targets = loss.targets(network.output_shape, targets, dtype)
            self.parts[part] = [backend.asarray(a) for a in (*inputs, targets)]
        self.n = self.count("train")

    def ingredients(self):
        return arguments_of(self) | {"tables": self.tables}

    def count(self, part):
        return len(self.tables[part][0])

    def targets(self):
        return self.tables["train"][-1]

    def batch(self, part, rows=None, draw=None):
        *inputs, targets = self.parts[part]
        return tuple(chosen(a, rows) for a in inputs), chosen(targets, rows)


class Sentences(Padded):
    """Sentences of their own, padded: inputs (ids, mask), (B, length) each, int64 and bool, True where there is a
    token; the target at each position is the next token of the sentence, -1 behind it. Longer sentences are cut.

    train, validation, test: lists of texts; pad: the number that fills up
    """

    def __init__(self, train, length, validation=None, test=None, pad=0, name="sentences"):
        self.length, self.pad = whole("Sentences", "length", length), whole("Sentences", "pad", pad, 0)
        self.shapes = ((self.length,), (self.length,))
        super().__init__(name, train, validation, test)

    def table(self, sentences):
        """(ids, mask, targets) of a list of sentences."""
        texts = [numbers("Sentences", text) for text in sentences]
        for row, text in enumerate(texts):
            if len(text) < 2:
                raise UserError(f"Sentences: sentence {row} has {len(text)} tokens; it takes two to predict one")
        return (*filled(texts, self.length, self.pad), filled([text[1:] for text in texts], self.length, IGNORE)[0])


class Pairs(Padded):
    """Translation: inputs (source, its mask, target so far), targets the target; (B, source_length) twice and
    (B, length) twice. The target so far begins with `start`, one place behind; the target ends with `stop`, then -1.

    train, validation, test: lists of (source, target) pairs of texts
    """

    def __init__(self, train, source_length, length, start, stop, *, validation=None, test=None, pad=0, name="pairs"):
        self.source_length, self.length = (
            whole("Pairs", n, v) for n, v in (("source_length", source_length), ("length", length))
        )
        self.start, self.stop, self.pad = (
            whole("Pairs", n, v, 0) for n, v in (("start", start), ("stop", stop), ("pad", pad))
        )
        self.shapes = ((self.source_length,), (self.source_length,), (self.length,))
        super().__init__(name, train, validation, test)

    def table(self, pairs):
        """(source, mask, so far, targets)."""
        sources, complete = [numbers("Pairs", text) for text, _ in pairs], []
        for _, translation in pairs:
            complete.append(np.concatenate([[self.start], numbers("Pairs", translation), [self.stop]]))
        so_far, _ = filled([text[:-1] for text in complete], self.length, self.pad)
        targets, _ = filled([text[1:] for text in complete], self.length, IGNORE)
        return (*filled(sources, self.source_length, self.pad), so_far, targets)
