"""Couplets as a task: the upper line is given, the lower one is to be written. Networks that do it, as a Problem.

    verse("tang-poems")                         an encoder-decoder reads the upper line: (source, keep, so far)
    verse("tang-poems", "decoder")              a decoder alone goes through "upper <start> lower"
    verse("tang-poems", "lstm")                 so does a recurrent network

All predict the same numbers, the lower line's characters and the end behind it, so that their losses compare. With
`drawn` rows, metrics tell what lines they write, see `judged`.
"""

import dataclasses
import functools

from nn import LSTM, Embedding, Linear, Network, Sequential, gpt2, init, transformer
from nn.decoding import Decoder, Sample, generate
from nn.losses import IGNORE, SoftmaxCrossEntropy
from npopt import backend
from npopt.errors import UserError
from problems.corpora import Corpus
from problems.datasets import shared
from problems.neural import Neural
from problems.prosody import couplets, learned
from problems.tokens import Padded, Pairs, numbers
from problems.vocabulary import PAD, SPECIAL, START, STOP, characters

import numpy as np

LONGEST = 7  # characters of a line
BLANK = "\u25a1"  # stands for a special character where one was written


class Continuations(Padded):
    """Texts to be continued: inputs (B, length), "given <start> so far", targets those of Pairs where the continuation
    is predicted, -1 elsewhere. Rows of (given, continuation), both texts."""

    def __init__(self, train, length, start=START, stop=STOP, *, validation=None, test=None, pad=PAD, name="texts"):
        self.length, self.start, self.stop, self.pad, self.shapes = length, start, stop, pad, (length,)
        super().__init__(name, train, validation, test)

    def table(self, pairs):
        ids = np.full((len(pairs), self.length), self.pad, np.int64)
        targets = np.full(ids.shape, IGNORE, np.int64)
        for row, (given, text) in enumerate(pairs):
            given, text = numbers("Continuations", given), numbers("Continuations", text)
            if len(given) + len(text) + 1 > self.length:
                raise UserError(f"Continuations: row {row} needs {len(given) + len(text) + 1} places of {self.length}")
            ids[row, : len(given)], ids[row, len(given)] = given, self.start
            here = slice(len(given), len(given) + len(text) + 1)
            ids[row, len(given) + 1 : here.stop], targets[row, here] = text, [*text, self.stop]
        return ids, targets

    def batch(self, part, rows=None, draw=None):
        (inputs,), targets = super().batch(part, rows, draw)
        return inputs, targets


@dataclasses.dataclass
class Verses:
    """The couplets of a corpus of poems. A part is a list of (upper, lower), two strings.

    vocabulary   of the characters that occur `least` times in the training lines
    known        the lines of the training part, a set
    poems        of the training part; prosody: learned from them, when it is first asked for
    """

    name: str
    train: list
    validation: list
    test: list
    vocabulary: object
    known: frozenset
    poems: tuple

    @functools.cached_property
    def prosody(self):
        """Thirty rhymes, as in the books, or six where there are few characters."""
        return learned(self.poems, *((30, 15) if self.vocabulary.size > 500 else (6, 5)))

    def encoded(self, part, count=None):
        """(upper, lower) of a part's first couplets, as numbers."""
        encode = self.vocabulary.encode
        return [(encode(upper), encode(lower)) for upper, lower in getattr(self, part)[:count]]


def spread_out(pairs, seed=0):
    """The pairs in a random order: those of one poem no longer beside one another."""
    return [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))]


def verses(data, rows=None, least=5):
    """The Verses of a corpus by name; rows: so many of its training poems, None: all."""
    poems = shared(data, rows=rows)
    if not isinstance(poems, Corpus) or not hasattr(poems.train[0], "lines"):
        raise UserError(f"verses: {data} holds no poems; tang-poems and couplets do")
    parts = [spread_out(couplets(part)) for part in (poems.train, poems.validation, poems.test)]
    vocabulary = characters([line for pair in parts[0] for line in pair], least)
    known = frozenset(line for pair in parts[0] for line in pair)
    return Verses(data, *parts, vocabulary, known, poems.train)


def units_of(parameters, features):
    """Units of an LSTM with a map to `features` behind it that has about so many parameters: 4 u (d + u) + u d."""
    return round((-5 * features + (25 * features**2 + 16 * parameters) ** 0.5) / 8)


def recurrent(words, length, features, parameters):
    """embed - LSTM - map to the features - logits by the table of words."""
    units, start = units_of(parameters, features), init.Normal(features**-0.5)
    body = dict(
        embed=Embedding(words, features, start),
        rnn=LSTM(features, units),
        project=Linear(units, features),
        head=Linear(features, words, bias=False, init=start),
    )
    return Network(Sequential(**body), (length,), f"lstm-{units}", share={"head.W": "embed.W"})


KINDS = ("encoder-decoder", "decoder", "lstm")


def network_of(kind, words, features, layers, heads, **more):
    """A network of a kind. With its tables aside, each has about 28 layers features^2 parameters, those of `layers`
    layers each of encoder and decoder."""
    length = 2 * LONGEST + 1
    if kind == "encoder-decoder":
        return transformer(words, LONGEST, LONGEST + 1, features, layers, heads, **more)
    if more or kind not in KINDS:
        raise UserError(f"verse: {kind!r} takes no {', '.join(more)}" if more else f"verse: no kind is named {kind!r}")
    if kind == "decoder":
        return gpt2(words, length, features, 2 * layers, heads, 5 * features)
    return recurrent(words, length, features, 28 * layers * features**2)


class Verse(Neural):
    """A network that writes lower lines, with metrics of what it writes."""

    def __init__(self, network, feed, verses, drawn=0, **more):
        super().__init__(network, feed, SoftmaxCrossEntropy(over="positions"), **more)
        self.verses, self.drawn = verses, drawn

    def metrics(self, x):
        found = super().metrics(x)
        if self.drawn:
            uppers = [upper for upper, _ in self.verses.test[: self.drawn]]
            found |= judged(uppers, self.write(x, uppers, seed=self.seed), self.verses)
        return found

    def begun(self, x, uppers):
        """(decoder, prompts, what it looks at) for lines to be written below these."""
        decoder, encode = Decoder(self.network, self.check(x)), self.verses.vocabulary.encode
        if not decoder.looks:
            return decoder, [[*encode(upper), START] for upper in uppers], {}
        *inputs, _, _ = self.feed.table([(encode(upper), []) for upper in uppers])
        keep = backend.asarray(inputs[1])
        return decoder, [[START]] * len(uppers), dict(memory=decoder.read(inputs[0], keep), keep=keep)

    def write(self, x, uppers, choose=None, seed=0, allowed=None):
        """A lower line for each upper one, chosen character by character; BLANK where a special character was chosen.

        choose      of nn.decoding; None: Sample(), draws at temperature 1
        seed        of the draws, functions of (seed, line, position)
        allowed     as in nn.decoding.generate, `position` counting each line's characters from 0, (B,)

        A line ends at STOP, or after one character more than the longest.
        """
        decoder, prompts, seen = self.begun(x, uppers)
        starts = np.array([len(prompt) for prompt in prompts])
        may = None if allowed is None else lambda position, texts: allowed(position - starts, texts)
        choose = Sample() if choose is None else choose
        texts = generate(decoder, prompts, starts.max() + LONGEST + 1, choose, seed, stop=STOP, allowed=may, **seen)
        lines = [text[start : start + LONGEST + 1] for text, start in zip(texts, starts, strict=True)]
        return [self.spelt(line[:-1] if line[-1] == STOP else line) for line in lines]

    def spelt(self, numbers):
        """The characters of numbers, BLANK for special ones."""
        units = self.verses.vocabulary.units
        return "".join(BLANK if i < len(SPECIAL) else units[i] for i in numbers)


def judged(uppers, lowers, verses):
    """How lower lines keep the form: {name: share of the lines}, and of places for `opposed`.

    form       as long as the upper line, and nothing but characters
    level      the last character's tone, where it is known, is level
    opposed    second, fourth and sixth characters of opposite tone, where both tones are known
    repeated   a character occurs twice, or is one of the upper line's
    copied     the line is one of the training poems', upper or lower
    """
    prosody = verses.prosody
    form = [len(a) == len(b) and BLANK not in b for a, b in zip(uppers, lowers, strict=True)]
    ends = [prosody.tone(line[-1]) for line in lowers if line]
    opposed = [o for a, b in zip(uppers, lowers, strict=True) for o in prosody.opposed(a, b)]
    repeated = [len(set(b)) < len(b) or bool(set(a) & set(b)) for a, b in zip(uppers, lowers, strict=True)]
    found = dict(
        form=form,
        level=[t > 0 for t in ends if t],
        opposed=opposed,
        repeated=repeated,
        copied=[line in verses.known for line in lowers],
    )
    return {name: float(np.mean(values)) if values else np.nan for name, values in found.items()}


def verse(
    data, kind="encoder-decoder", features=64, layers=2, heads=4, *, rows=None, least=5, held=4000, drawn=0, **more
):
    """The Problem of a network that writes lower lines.

    rows, least     see `verses`
    held            couplets of the validation and the test part each that the metrics use
    drawn           test couplets for which metrics draw a line; 0: none
    more            of the encoder-decoder, see nn.transformer
    """
    found = verses(data, rows, least)
    network = network_of(kind, found.vocabulary.size, features, layers, heads, **more)
    train, validation, test = found.encoded("train"), found.encoded("validation", held), found.encoded("test", held)
    others = dict(validation=validation, test=test, pad=PAD, name=data)
    if kind == "encoder-decoder":
        feed = Pairs(train, LONGEST, LONGEST + 1, START, STOP, **others)
    else:
        feed = Continuations(train, 2 * LONGEST + 1, **others)
    return Verse(network, feed, found, drawn, metrics_rows=min(2000, len(train)))
