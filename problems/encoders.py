"""An encoder that has learned to fill gaps in texts, and is to learn what texts are about.

BERT's way, Devlin et al., NAACL 2019, in small: pieces of words are learned from the training texts of two corpora, an
encoder is trained on the same texts with masked words by Adam (`learned`), and its weights, with a new head, are where
the training on labels begins (`finetuned`). Beside it stand the same network from random weights, and published ones.
"""

import functools
import math
import pathlib

from nn import weights as published
from nn.adapters import adapted, adapters, free, merged
from nn.init import Normal
from nn.language import bert, classified
from nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy
from npopt import Adam, Linear, WithWarmup, backend
from npopt.errors import UserError
from problems.datasets import shared
from problems.encoded import Labelled, Masked
from problems.kept import kept_run
from problems.neural import Neural
from problems.vocabulary import SPECIAL, START, Pieces, pieces

import numpy as np

MASK = len(SPECIAL)  # the number of the gap; pieces of words follow
BATCH = 32
THRESHOLD = 0.3  # a label is given where its probability is higher


def corpora_of(data, beside):
    """The corpora from which an encoder learns, each once, in the order of their names."""
    return [shared(name) for name in sorted({data, beside})]


@functools.cache
def vocabulary(data, beside, size):
    """Pieces of words of the training texts of both corpora, in small letters; `size` in all."""
    texts = [text.lower() for corpus in corpora_of(data, beside) for text in corpus.train]
    return pieces(texts, size, (*SPECIAL, "<mask>"))


def spelled(texts, words, around=((START,), ())):
    """Texts as numbers, between those of `around`."""
    first, last = around
    return [np.array([*first, *words.encode(text.lower()), *last], np.int64) for text in texts]


def start_of(features):
    """BERT's 0.02 is 0.55 / sqrt(768): the same gain at another width."""
    return Normal(0.02 * (768 / features) ** 0.5)


def gaps(data, beside, *, size, length, held=300, **shape):
    """The problem of filling gaps in the training texts of both corpora; `held` texts of each one's validation part.

    size     how many pieces of words there are; length: of a row; shape: features, layers and heads of the encoder
    """
    words, found = vocabulary(data, beside, size), corpora_of(data, beside)
    train, validation = ([], [])
    for corpus in found:
        train += spelled(corpus.train, words)
        validation += spelled(corpus.validation[:held], words)
    train = [train[i] for i in np.random.default_rng(0).permutation(len(train))]  # metrics take the first ones
    name = " and ".join(corpus.name for corpus in found)
    feed = Masked(train, length, MASK, (MASK + 1, words.size), validation=validation, name=f"gaps in {name}")
    network = bert(words.size, length, **shape, head="words", init=start_of(shape["features"]))
    loss = SoftmaxCrossEntropy(over="positions")
    return Neural(network, feed, loss, metrics_rows=min(held, feed.count("train")), metrics_batch=64)


@functools.cache
def learned(data, beside, rate, passes, options):
    """(run, problem) of filling gaps: Adam with a warm-up of a tenth and a linear decay, batches of 32, seed 0. It is
    made once and kept in the user's cache; what was made by other code, or with other threads, is made anew."""
    problem = gaps(data, beside, **dict(options))
    steps = max(10, round(passes * problem.n / BATCH))
    schedule = WithWarmup(Linear(rate), steps // 10)
    return kept_run(problem, "encoders", f"{rate:g}-{passes:g}", Adam(), BATCH, schedule, steps), problem


def pretraining(seed, events, data, beside, rate, passes, **options):
    """The columns of `learned`, with "unigram" and "common": loss and accuracy of one who knows how frequent the words
    of the training texts are, and nothing else."""
    run, problem = learned(data, beside, rate, passes, tuple(sorted(options.items())))
    counts = np.bincount(problem.feed.targets()[problem.feed.targets() >= 0], minlength=problem.feed.drawn[1]) + 1
    held = problem.feed.tables["validation"][-1]
    held = held[held >= 0]
    columns, rows = dict(run.columns), len(run.columns["step"])
    columns["unigram"] = [float(-np.log(counts / counts.sum())[held].mean())] * rows
    columns["common"] = [float((held == counts.argmax()).mean())] * rows
    return columns


class Encoded(Neural):
    """An encoder with a head on labelled texts.

    first    {segment: array}: what some segments begin with, in place of random numbers
    idle     words that no training text has: the metric "idle" is the norm of their vectors
    moved    whether metrics say how far each block has gone from `first`: "moved layer1" is |W - first| / |first|

    Where a text may have several labels, there are train_f1, validation_f1 and test_f1, too: the mean over the labels
    of F1 = 2 tp / (2 tp + fp + fn), 0 for a label that neither occurs nor is given, where those are given whose
    probability is above 0.3.
    """

    first, idle, moved = None, None, False

    def x0(self, rng):
        x = super().x0(rng)
        for name, array in (self.first or {}).items():
            self.segments.view(x, name)[...] = backend.asarray(array, self.dtype)
        return x

    def ingredients(self):
        return super().ingredients() | {"first": self.first, "idle": self.idle, "moved": self.moved}

    def _evaluate(self, x, part, batches):
        for z, t in super()._evaluate(x, part, batches):
            if self.counted is not None:
                given, there = z > math.log(THRESHOLD / (1 - THRESHOLD)), t > 0.5
                counts = backend.xp(z).stack([(given & there).sum(0), given.sum(0), there.sum(0)])
                self.counted[part] = self.counted.get(part, 0) + counts
            yield z, t

    counted = None  # {part: (3, labels) right, given and true ones}, while metrics are taken

    def metrics(self, x):
        self.counted = {} if isinstance(self.loss_function, BinaryCrossEntropy) else None
        found = super().metrics(x)
        for part, counts in (self.counted or {}).items():
            right, given, there = backend.to_host(counts)
            found[f"{part}_f1"] = float(np.mean(2 * right / np.maximum(given + there, 1)))
        self.counted = None
        if self.idle is not None:
            table = self.segments.view(x, "encoder.embed.W")
            found["idle"] = backend.to_host(backend.norm(table[backend.asarray(self.idle)]))
        return found | (self.ways(x) if self.moved else {})

    def ways(self, x):
        """{"moved <block>": distance from the first weights, in parts of their norm; of a map under an adapter, that of
        the one map which is both}"""
        squares, segments = {}, self.segments
        if adapters(self.network):
            network, x = merged(self.network, x)
            segments = network.segments
        for segment in segments:
            if segment.name in (self.first or {}):
                at = backend.asarray(self.first[segment.name], self.dtype).reshape(-1)
                own = squares.setdefault(segment.block.rpartition(".")[2], [0.0, 0.0])
                own[0] += float(backend.to_host(backend.norm(x[segment.slice] - at))) ** 2
                own[1] += float(backend.to_host(backend.norm(at))) ** 2
        return {f"moved {block}": math.sqrt(way / size) for block, (way, size) in squares.items()}


def body_of(start, data, beside, options, rate, passes, dropout):
    """(encoder, its first weights, words, what stands around a text) of a start."""
    size, length, shape = options["size"], options["length"], dict(options)
    del shape["size"], shape["length"]
    if start in ("learned", "scratch"):
        words = vocabulary(data, beside, size)
        encoder, first = bert(words.size, length, **shape, dropout=dropout, init=start_of(shape["features"])), None
        if start == "learned":
            run, problem = learned(data, beside, rate, passes, tuple(sorted(options.items())))
            views = {name: problem.segments.view(backend.to_host(run.x), name) for name in problem.segments.names}
            first = {name: view for name, view in views.items() if name.startswith("encoder.")}
        return encoder, first, words, ((START,), ())
    folder = pathlib.Path(start).parent
    words = Pieces.from_file(folder / "tokenizer.json")
    encoder, x = published.hub(folder)
    if encoder.name.split("-")[0] != "bert" or "encoder.embed.W" not in encoder.segments.names or encoder.share:
        raise UserError(f"{folder}: a BertModel is wanted, the folder holds {encoder.name}")
    first = {name: encoder.segments.view(x, name) for name in encoder.segments.names}
    ends = tuple((words.special[token],) for token in ("[CLS]", "[SEP]"))
    return encoder, first, words, ends


def weights_in(folder):
    """The path of the one *.safetensors in a folder."""
    found = sorted(pathlib.Path(folder).glob("*.safetensors"))
    if len(found) != 1:
        raise UserError(f"--weights {folder}: one *.safetensors is wanted there, found {len(found)}")
    return str(found[0])


def finetuned(data, beside, start="learned", rows=None, *, held=None, test_rows=None, l2=0.0, dropout=0.1, rate=1e-3,
              passes=1, moved=False, dtype="float32", adapters=None, alone=False, **options):  # fmt: skip
    """A corpus with labels, learned by an encoder with a new head on the mean of its vectors: nothing in filling gaps
    makes the first one stand for the text. Where a text may have several labels the head's biases begin at the log-odds
    of how often each is given (Lin et al., ICCV 2017, section 3.3): from 0, the first thing that all weights learn is
    that labels are rare, and the tanh before the head is flat when they have. Metrics on at most 300 training texts.

    beside       the other corpus whose texts the encoder has seen
    start        "learned": the weights after filling gaps for `passes` epochs at `rate`; "scratch": random ones; or
                 the path of the *.safetensors of a published BertModel, with its config.json and tokenizer.json beside
    rows         training texts, drawn at random; held, test_rows: the first so many of the other parts; None: all
    adapters     (layer, options) of nn.adapted: in the place of the encoder's maps; None: the network as it is
    alone        of the encoder the adapters alone move, and all begins with values that do not depend on the seed
    moved        of Encoded
    options      size, length and shape of `gaps`
    """
    corpus = shared(data, rows=rows)
    several = corpus.y_train.ndim == 2
    encoder, first, words, around = body_of(start, data, beside, options, rate, passes, dropout)
    start = start_of(encoder.output_shape[-1])
    network = classified(encoder, len(corpus.classes), options["length"], pool="mean", dropout=dropout, init=start)
    if adapters is not None:
        network = adapted(network, adapters[0], ("attention", "feed"), **adapters[1])
    parts = []
    for part, count in (("train", None), ("validation", held), ("test", test_rows)):
        texts, y = getattr(corpus, part), getattr(corpus, f"y_{part}")
        parts.append(None if texts is None else (spelled(texts[:count], words, around), y[:count]))
    train, validation, test = parts
    feed = Labelled(train, options["length"], validation, test, name=corpus.name)
    loss = BinaryCrossEntropy(mean=True) if several else SoftmaxCrossEntropy()
    rows = min(300, feed.count("train"))
    problem = Encoded(network, feed, loss, l2=l2, dtype=dtype, metrics_rows=rows, metrics_batch=100)
    ids, keep, _ = feed.tables["train"]
    problem.moved = moved
    if several:
        given = (train[1].sum(0) + 1) / (len(train[1]) + 2)
        first = (first or {}) | {"head.b": np.log(given / (1 - given))}
    problem.first, problem.idle = first, np.setdiff1d(np.arange(MASK + 1, words.size), ids[keep])
    if alone:
        return problem.restrict(problem.x0(backend.generator(0, "x0")), free(network, ("encoder.",)))
    return problem
