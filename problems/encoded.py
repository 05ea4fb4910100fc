"""Texts for encoders as feeds: what a text is about, and which words are missing in it.

    Labelled((texts, y), 32)                        a padded text a row, and its class, or its labels
    Masked(texts, 32, mask=4, drawn=(5, 3000))      the same with words hidden; the target is what they were

Texts are sequences of numbers 0..V-1, as in problems/tokens.py. Inputs are (ids, keep), (B, length) each, int64 and
bool, as nn.language.bert takes them.
"""

from nn.losses import IGNORE
from npopt import backend
from npopt.errors import UserError
from npopt.values import number, whole
from problems.tokens import Padded, filled, numbers

import numpy as np


def rows_of(owner, texts, length, pad):
    """(ids, keep) of texts that have at least one word each: attention needs a key."""
    texts = [numbers(owner, text) for text in texts]
    for row, text in enumerate(texts):
        if not len(text):
            raise UserError(f"{owner}: text {row} is empty; begin each text with a word such as [CLS]")
    return filled(texts, length, pad)


class Labelled(Padded):
    """Texts and what they are about: inputs (ids, keep), targets y. Longer texts are cut.

    train, validation, test: (texts, y), y of shape (n,): class numbers, for SoftmaxCrossEntropy; or (n, classes):
    booleans, for BinaryCrossEntropy, where a text may have several labels or none. pad: the number that fills up
    """

    def __init__(self, train, length, validation=None, test=None, pad=0, name="texts"):
        self.length, self.pad = whole("Labelled", "length", length), whole("Labelled", "pad", pad, 0)
        self.shapes = ((self.length,), (self.length,))
        super().__init__(name, train, validation, test)

    def table(self, part):
        """(ids, keep, y) of (texts, y)."""
        texts, y = part
        if len(texts) != len(y):
            raise UserError(f"Labelled: {len(texts)} texts have {len(y)} labels")
        return (*rows_of("Labelled", texts, self.length, self.pad), np.asarray(y))


class Masked(Padded):
    """Masked language modelling, Devlin et al., NAACL 2019, section 3.1 and appendix A.1: which words were here?

    Each word is chosen with probability `share`. Of those that are, 80 % become `mask`, 10 % a word that is drawn, and
    10 % stay. The target is the word where one was chosen and -1 elsewhere, for SoftmaxCrossEntropy(over="positions").
    BERT chooses 15 % of each text exactly; here their number is binomial.

    In training the draws are a function of (seed, t, row), so that a text has other gaps in every epoch. In evaluation
    they depend on the part and the row alone: losses of two methods are of the same gaps.

    train, validation, test    lists of texts
    mask                       the number that stands for a gap
    drawn                      (low, high): words low .. high - 1 are chosen, and drawn as replacements, evenly. Special
                               ones, such as the first of a text and padding, are left out by it
    """

    def __init__(
        self, train, length, mask, drawn, *, share=0.15, validation=None, test=None, pad=0, name="masked texts"
    ):
        self.length, self.pad = whole("Masked", "length", length), whole("Masked", "pad", pad, 0)
        self.mask, self.share = whole("Masked", "mask", mask, 0), number("Masked", "share", share, low=0, high=1)
        low, high = (whole("Masked", "drawn", value, 0) for value in drawn)
        if not low < high:
            raise UserError(f"Masked: drawn is (low, high), words low to high - 1, got {drawn}")
        self.drawn, self.shapes = (low, high), ((self.length,), (self.length,))
        super().__init__(name, train, validation, test)

    def table(self, texts):
        """(ids, keep, targets) of texts; the targets are all words that may be chosen."""
        ids, keep = rows_of("Masked", texts, self.length, self.pad)
        low, high = self.drawn
        return ids, keep, np.where(keep & (low <= ids) & (ids < high), ids, IGNORE)

    def batch(self, part, rows=None, draw=None):
        (ids, keep), words = super().batch(part, rows)
        m, (low, high) = backend.xp(ids), self.drawn
        seed, t = (0, 0) if draw is None else draw
        key = backend.key(seed, "masked" if draw is not None else f"masked {part}", t)
        u = backend.row_uniform(key, rows, backend.empty((ids.shape[0], 3 * self.length), "float64"))
        chosen, how, other = (u[:, k * self.length : (k + 1) * self.length] for k in range(3))
        chosen = (words != IGNORE) & (chosen < self.share)
        other = low + (other * (high - low)).astype("int64")  # u < 1, so below high
        ids = m.where(chosen & (how < 0.8), self.mask, m.where(chosen & (how >= 0.9), other, ids))
        return (ids, keep), m.where(chosen, words, IGNORE)
