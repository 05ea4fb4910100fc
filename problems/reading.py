"""Language models that have read, for experiments about how a text goes on: trained here, or published."""

import functools
import pathlib

from nn import weights
from npopt import AdamW, Cosine, WithWarmup, backend
from npopt.errors import UserError
from problems.datasets import shared
from problems.kept import kept_run
from problems.language import llama
from problems.vocabulary import Scored

import numpy as np

BATCH = 16


class Reader:
    """network, x, encode(text) -> numbers, text: numbers of a text that it has not read, start: what stands before."""

    def __init__(self, network, x, encode, text, start=()):
        self.network, self.x, self.encode = network, x, encode
        self.text, self.start = np.asarray(text, np.int64), list(start)

    @property
    def length(self):
        """How many words it was trained on at a time."""
        return self.network.input_shape[0]

    def streams(self, rows, length, seed):
        """(rows, length) words that follow each other, from places drawn by the seed."""
        if len(self.text) <= length:
            raise UserError(f"a stream of {length} words is longer than the text of {len(self.text)}")
        places = backend.generator(seed, "streams").integers(0, len(self.text) - length, rows)
        return np.stack([self.text[place : place + length] for place in places])


@functools.cache
def trained(data, steps, rate, options):
    """The Reader of a small decoder that was trained on a text: AdamW, warm-up, cosine, batches of 16 windows; kept in
    the user's cache. Its text is the validation part, then the test part. options: of problems.language.llama"""
    problem, text = llama(data, held=1000, **dict(options)), shared(data)
    schedule = WithWarmup(Cosine(rate), max(1, steps // 10))
    run = kept_run(problem, "readers", f"{rate:g}-{steps}", AdamW(b2=0.95), BATCH, schedule, steps)
    numbers = {word: i for i, word in enumerate(text.words)}

    def encode(words):
        return [numbers[word] for word in words if word in numbers]

    return Reader(problem.network, run.x, encode, np.concatenate([text.validation, text.test]))


@functools.cache
def published(path, beside):
    """The Reader of a llama2.c .bin, its tokenizer.bin (or tok<words>.bin) beside it; its text is that of `beside`, a
    text of words."""
    path = pathlib.Path(path)
    network, x = weights.llama2c(path)
    size = network.output_shape[-1]
    found = [p for p in (path.with_name(f"tok{size}.bin"), path.with_name("tokenizer.bin")) if p.is_file()]
    if not found:
        raise UserError(f"{path}: tok{size}.bin or tokenizer.bin is wanted beside it")
    scored, text = Scored.from_file(found[0], size), shared(beside)
    words = [text.words[i] for i in np.concatenate([text.validation, text.test])[:40_000]]
    lines = " ".join(words).replace(" <eos> ", "\n").split("\n")
    numbers = np.concatenate([scored.encode(line) for line in lines if line.strip()])
    return Reader(network, x, scored.encode, numbers, [Scored.start])
