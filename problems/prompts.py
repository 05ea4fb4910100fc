"""A few labelled texts, put as gaps that a masked language model is to fill: "a fine film it was <mask> ."

The protocol of Gao, Fisch & Chen, ACL 2021, arXiv:2012.15723, which MeZO follows (Malladi et al., NeurIPS 2023,
appendix E): k texts of each class to train, k more to choose rates by, other texts to test; which ones they are depends
on the seed. Each class has a word, and the loss is the cross-entropy over the logits of these words at the gap. So a
model that has filled gaps needs no new parameters. A sentence encoder has not filled gaps: there each class has a
sentence, and the logits are cosines.
"""

from nn import Run
from nn.adapters import adapted, free
from nn.language import bert, likened, prompted
from npopt import backend
from npopt.errors import UserError
from npopt.values import whole
from problems.datasets import shared
from problems.encoded import Labelled, rows_of
from problems.encoders import MASK, START, Encoded, body_of, learned, spelled, start_of, vocabulary

import numpy as np

TEMPLATE = " it was", " ."  # around the gap, behind the text
WORDS = ((" terrible", " great"), (" bad", " good"), ("bad", "good"))  # the first pair that are words of the model
SCALE = 20.0  # of cosines, as in the loss with which sentence-transformers' models learn (MultipleNegativesRankingLoss)


def label_words(words, classes):
    """Numbers of the words that stand for two classes: the first of WORDS of which each is one piece."""
    for pair in WORDS:
        found = [list(words.encode(word)) for word in pair]
        if classes == 2 and all(len(pieces) == 1 for pieces in found) and found[0] != found[1]:
            return [pieces[0] for pieces in found]
    raise UserError(f"a prompt needs two classes and a vocabulary with words such as {WORDS[0]}, got {classes} classes")


class FewShot(Encoded):
    """`texts` of a training part with classes y, of which k a class are rows, and k more the validation part: drawn by
    the seed of the run. test: (texts, y)."""

    def __init__(self, network, texts, y, test, length, k, **more):
        self.texts, self.y, self.test = texts, np.asarray(y), test
        self.length, self.k = length, whole("FewShot", "k", k)
        least = np.bincount(self.y).min()
        if least < 2 * self.k:
            raise UserError(f"FewShot: k={k} needs {2 * k} texts of each class, there are {least} of one")
        super().__init__(network, self.drawn(0), metrics_rows=min(300, self.k * (int(self.y.max()) + 1)), **more)

    def drawn(self, seed):
        """The feed of a seed."""
        rng, parts = backend.generator(seed, "shots"), ([], [])
        for c in range(self.y.max() + 1):
            rows = rng.permutation(np.flatnonzero(self.y == c))[: 2 * self.k]
            parts[0].extend(rows[: self.k])
            parts[1].extend(rows[self.k :])
        train, validation = (([self.texts[i] for i in rows], self.y[rows]) for rows in parts)
        return Labelled(train, self.length, validation, self.test, name=f"{self.k} texts a class")

    def set_seed(self, seed):
        if seed != self.seed:
            self.feed = self.drawn(seed)
            self.feed.place(self.network, self.loss_function, self.dtype)
        super().set_seed(seed)

    def ingredients(self):
        return super().ingredients() | {"texts": self.texts, "y": self.y, "test": self.test}


def by_gap(data, beside, start, rate, passes, dropout, options):
    """(network, {segment: its first values} or None, spell): which of two words fills the gap behind a text?"""
    corpus, words = shared(data), vocabulary(data, beside, options["size"])
    shape = {name: value for name, value in options.items() if name not in ("size", "length")}
    length, labels, first = options["length"], label_words(words, len(corpus.classes)), None
    network = bert(words.size, length, **shape, head="words", dropout=dropout, init=start_of(shape["features"]))
    behind = (*words.encode(TEMPLATE[0]), MASK, *words.encode(TEMPLATE[1]))

    def spell(texts):
        cut = length - 1 - len(behind)
        return [np.array([START, *text[:cut], *behind], np.int64) for text in spelled(texts, words, ((), ()))]

    if start == "learned":
        run, of = learned(data, beside, rate, passes, tuple(sorted(options.items())))
        x = backend.to_host(run.x)
        first = {name: of.segments.view(x, name) for name in of.segments.names}
    return prompted(network, MASK, labels), first, spell


def by_likeness(data, beside, start, options):
    """The same of a published sentence encoder: which of two sentences, one a class, is a text like?"""
    classes = shared(data).classes
    if len(classes) != len(WORDS[0]):
        raise UserError(f"prompts: two classes are wanted, {data} has {len(classes)}")
    encoder, first, words, around = body_of(start, data, beside, options, None, None, 0.0)
    sentences = spelled([f"{TEMPLATE[0]}{word}{TEMPLATE[1]}".strip() for word in WORDS[0]], words, around)
    ids, keep = rows_of("prompts", sentences, options["length"], 0)
    encoder.bind(backend.xp().concatenate([first[name].reshape(-1) for name in encoder.segments.names]))
    vectors = backend.to_host(encoder.layer.forward((backend.asarray(ids), backend.asarray(keep)), Run())[0])
    means = (vectors * keep[..., None]).sum(1) / keep.sum(1, keepdims=True)
    rows = SCALE / means.shape[1] ** 0.5 * means / np.linalg.norm(means, axis=1, keepdims=True)
    network = likened(encoder, len(classes), options["length"])
    return network, first | {"head.W": rows}, lambda texts: spelled(texts, words, around)


def prompts(data, beside, k=16, *, test_rows=None, rate=1e-3, passes=1, moved=False, dropout=0.1, start="learned",
            dtype="float32", adapters=None, **options):  # fmt: skip
    """A corpus of two classes as prompts for the encoder that has filled gaps in its texts and in those of `beside`
    (problems/encoders.py; rate, passes and options as there).

    k            texts of each class        test_rows: the first so many of the test part; None: all
    start        "learned"; "scratch": random weights; or the path of the *.safetensors of a published BertModel, as in
                 `finetuned`, that is a sentence encoder (all-MiniLM-L6-v2): no gap then, a text is compared with "it
                 was terrible ." and "it was great ." (nn.language.likened)
    adapters     (layer, options) of nn.adapted, in the place of the encoder's maps: then these alone move, from values
                 that do not depend on the seed
    """
    corpus = shared(data)
    if start in ("learned", "scratch"):
        network, first, spell = by_gap(data, beside, start, rate, passes, dropout, options)
    else:
        network, first, spell = by_likeness(data, beside, start, options)
    if adapters is not None:
        network = adapted(network, adapters[0], ("attention", "feed"), **adapters[1])
    test = spell(corpus.test[:test_rows]), np.asarray(corpus.y_test[:test_rows])
    problem = FewShot(network, spell(corpus.train), corpus.y_train, test, options["length"], k, dtype=dtype)
    problem.first, problem.moved, problem.name = first, moved, f"{k} prompts a class of {corpus.name}"
    if adapters is None:
        return problem
    return problem.restrict(problem.x0(backend.generator(0, "x0")), free(problem.network, problem.segments.names))
