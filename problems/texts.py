"""Texts for language models, by name: load("ptb"), load("tinyshakespeare"), load("chain").

ptb               Penn Treebank as Mikolov et al. (Interspeech 2010) prepared it: 10,000 words, lines end in <eos>;
                  929,589 / 73,760 / 82,430 tokens. Nowhere to download: the text belongs to the LDC
tinyshakespeare   1,115,394 characters, 65 distinct; the first 90 % are for training, then 5 % and 5 %, in order,
                  Karpathy, char-rnn, 2015
chain             drawn here, nothing to download: 200 words of a Markov chain, 40,000 / 4,000 / 4,000 tokens. Every
                  second word, on average, is drawn whatever stands before it, the k-th with weight 1/k; the others from
                  an order of the words that belongs to the word before, the k-th with weight 1/k^2. Whoever knows the
                  chain has a perplexity of 31.6, who knows the frequencies alone 118.4
"""

import collections
import dataclasses
import hashlib

from npopt.errors import UserError
from npopt.values import whole
from problems import files, formats

import numpy as np

END = "<eos>"


@dataclasses.dataclass(frozen=True)
class Text:
    """A long text in three parts, each a vector of numbers 0..V-1: Windows(text.train, 35, text.validation, text.test).

    words    what the numbers stand for, in their order: words by falling frequency in the training part, equal ones in
             the order of their letters; or all characters, sorted
    sha256   of the source files together; source: where they come from, and what was done to them
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    words: tuple
    sha256: str
    source: str

    @property
    def y_train(self):
        """The training tokens: each is a target, but for the first."""
        return self.train

    def measured(self):
        return self

    def part(self, rows):
        """The text with so many of its first training tokens; None: all."""
        if rows is None:
            return self
        train = self.train[: whole("part", "rows", rows)]
        text = f"{self.source}; the first {len(train)} of {len(self.train)} training tokens"
        return dataclasses.replace(self, train=train, source=text)

    def with_validation(self, fraction=0.1, seed=0):
        raise UserError(f"{self.name}: a text has a validation part of its own; leave validation out")

    def with_label_noise(self, share, seed=0):
        raise UserError(f"{self.name}: a text has no labels; leave noise out")

    def standardised(self):
        raise UserError(f"{self.name}: a text has no columns to standardise")


def numbered(tokens, words, where):
    """Tokens as their numbers, int64."""
    known = {word: i for i, word in enumerate(words)}
    strange = next((token for token in tokens if token not in known), None)
    if strange is not None:
        raise UserError(f"{where}: {strange!r} does not occur in the training text")
    return np.array([known[token] for token in tokens], np.int64)


def words_of(path):
    """The words of a file, each line ended by <eos>."""
    return [word for line in formats.lines_of(path) for word in (*line.split(), END)]


PTB = {
    "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}


def ptb(name, dtype, dense, check):
    paths = [files.given(name, "text/ptb", file, known, check) for file, known in PTB.items()]
    parts = [words_of(path) for path in paths]
    counts = collections.Counter(parts[0])
    words = tuple(sorted(counts, key=lambda word: (-counts[word], word)))
    train, validation, test = (numbered(part, words, path) for part, path in zip(parts, paths, strict=True))
    source = "Penn Treebank, the preparation of Mikolov et al., words, lines end in <eos>"
    return Text(name, train, validation, test, words, files.of_files(paths), source)


SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"}


def tinyshakespeare(name, dtype, dense, check):
    path = files.fetch(name, "text/tinyshakespeare", "input.txt", SHAKESPEARE, SHAKESPEARE_SHA256, check)
    text = formats.text_of(path)
    characters = tuple(sorted(set(text)))
    ids = numbered(text, characters, path)
    first, second = (len(ids) * share // 100 for share in (90, 95))
    source = f"characters, in order 90, 5 and 5 % for training, validation and test, from {SHAKESPEARE}"
    return Text(name, ids[:first], ids[first:second], ids[second:], characters, files.of_files([path]), source)


def chain_of(words, seed=0):
    """(words, words) transition probabilities of `chain`: row i is what follows word i."""
    rng, k = np.random.default_rng(seed), np.arange(1.0, words + 1)
    own = np.stack([rng.permutation(1 / k**2) for _ in k])
    return ((1 / k) / (1 / k).sum() + own / own.sum(1, keepdims=True)) / 2


def chain(name, dtype, dense, check, words=200, sizes=(40_000, 4_000, 4_000)):
    below, rng = chain_of(words).cumsum(1), np.random.default_rng(1)
    found, word = np.empty(sum(sizes), np.int64), 0
    for t, u in enumerate(rng.random(len(found))):
        word = min(int(np.searchsorted(below[word], u, side="right")), words - 1)
        found[t] = word
    parts, names = np.split(found, np.cumsum(sizes)[:-1]), tuple(f"w{i}" for i in range(words))
    return Text(name, *parts, names, hashlib.sha256(found.tobytes()).hexdigest(), "a Markov chain of words, drawn here")
