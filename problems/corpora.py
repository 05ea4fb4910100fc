"""Corpora by name, short texts with or without labels: load("sst2"), load("goemotions"), load("openbookqa"),
load("tang-poems").

sst2          sentences of film reviews and their parts, negative or positive: 67,349 for training, and GLUE's 872
              development sentences as test rows, because GLUE's own test rows have no labels. Socher et al., EMNLP
              2013; Wang et al., ICLR 2019
sst2-socher   whole sentences alone, with the authors' labelled test rows: 6,920 / 872 / 1,821
goemotions    comments with one or several of 27 emotions, or none (neutral): 43,410 / 5,426 / 5,427. Demszky et al.,
              ACL 2020
openbookqa    questions with four answers: 4,957 / 500 / 500. Mihaylov et al., EMNLP 2018
tang-poems    36,381 Chinese poems of four or eight lines, of five or seven characters each. Split by poem, 90 %, 5 %
              and 5 %, so that the lines of one poem stay together

None of them has a public address that is known here. Their files are looked for as those of every set are.
"""

import dataclasses
import json
import typing

from npopt.errors import UserError
from npopt.values import whole
from problems import files, formats
from problems.splits import split

import numpy as np


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Short texts in parts; validation and y_validation are None where nothing is held out.

    train, validation, test   tuples: of strings, of Questions or of Poems
    y_*                       int64 class numbers; (n, classes) booleans where a text may have several; None: no labels
    classes                   names in the order of the labels; None: no labels
    sha256                    of the source files together
    source                    where the texts come from, and what was done to them
    """

    name: str
    train: tuple
    y_train: np.ndarray
    validation: tuple
    y_validation: np.ndarray
    test: tuple
    y_test: np.ndarray
    classes: tuple
    sha256: str
    source: str

    def measured(self):
        return self

    def part(self, rows, seed=0):
        """The corpus with so many of its training texts (all, if it has fewer), in a random order; None: itself."""
        if rows is None:
            return self
        chosen = np.random.default_rng(seed).permutation(len(self.train))[: whole("part", "rows", rows)]
        text = f"{self.source}; {len(chosen)} of {len(self.train)} training texts, seed {seed}"
        train, y_train = taken(self.train, self.y_train, chosen)
        return dataclasses.replace(self, train=train, y_train=y_train, source=text)

    def with_validation(self, fraction=0.1, seed=0):
        """The corpus with that part of its training texts held out, if it has no validation part of its own."""
        if self.validation is not None:
            raise UserError(f"{self.name}: this corpus has a validation part of its own; leave validation out")
        kept, held = split(len(self.train), fraction, seed)
        parts = (*taken(self.train, self.y_train, kept), *taken(self.train, self.y_train, held))
        return dataclasses.replace(
            self,
            **dict(zip(("train", "y_train", "validation", "y_validation"), parts, strict=True)),
            source=f"{self.source}; validation: {fraction:g} of the training texts, seed {seed}",
        )

    def with_label_noise(self, share, seed=0):
        raise UserError(f"{self.name}: noisy labels are for sets of images and tables; leave noise out")

    def standardised(self):
        raise UserError(f"{self.name}: a corpus has no columns to standardise")


class Question(typing.NamedTuple):
    """A question, or the beginning of a sentence, and its possible answers."""

    stem: str
    answers: tuple


class Poem(typing.NamedTuple):
    """A poem; lines are without their punctuation."""

    author: str
    title: str
    lines: tuple


def taken(texts, y, rows):
    return tuple(texts[i] for i in rows), None if y is None else y[rows]


def table(path, columns, header=None):
    """The rows of a file, columns parted by tabs, each with its line number: [(line, fields)]."""
    lines = formats.lines_of(path)
    if header is not None and (not lines or lines[0] != header):
        raise UserError(f"{path}: the first line must be {header!r}, found {(lines or [''])[0][:60]!r}")
    found = []
    for line, text in enumerate(lines[header is not None :], 1 + (header is not None)):
        fields = text.split("\t")
        if len(fields) != columns:
            raise UserError(f"{path}, line {line}: {columns} columns parted by tabs are wanted, found {len(fields)}")
        if not fields[0].strip():
            raise UserError(f"{path}, line {line}: the text is empty; delete the line")
        found.append((line, [field.strip() for field in fields]))
    return found


def numbers(path, line, text, classes):
    """The class numbers in a field such as "3,17"."""
    words = text.split(",")
    if not all(word.isdecimal() and int(word) < classes for word in words):
        raise UserError(f"{path}, line {line}: labels are numbers of 0 to {classes - 1}, found {text!r}")
    return [int(word) for word in words]


def one(path, line, text):
    """The class number, 0 or 1, in a field."""
    found = numbers(path, line, text, 2)
    if len(found) != 1:
        raise UserError(f"{path}, line {line}: one label, 0 or 1, is wanted, found {text!r}")
    return found[0]


def labelled(path, header=None):
    """(texts, labels) of lines "text<TAB>0 or 1"."""
    rows = table(path, 2, header)
    return tuple(text for _, (text, _) in rows), np.array([one(path, n, y) for n, (_, y) in rows], np.int64)


SENTIMENT = ("negative", "positive")
SST2 = {
    "train.tsv": "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1",
    "dev.tsv": "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0",
}
SOCHER = {
    "train.tsv": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
    "dev.tsv": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
    "test.tsv": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
}


def sst2(name, dtype, dense, check):
    paths = given(name, SST2, check)
    (train, y_train), (test, y_test) = (labelled(path, "sentence\tlabel") for path in paths)
    source = "GLUE's SST-2; its development sentences are the test rows, its test rows have no labels"
    parts = (train, y_train, None, None, test, y_test)
    return Corpus(name, *parts, SENTIMENT, files.of_files(paths), source)


def socher(name, dtype, dense, check):
    paths = given(name, SOCHER, check)
    parts = [part for path in paths for part in labelled(path)]
    source = "SST-2, whole sentences, the authors' split"
    return Corpus(name, *parts, SENTIMENT, files.of_files(paths), source)


GOEMOTIONS = {
    "train.tsv": "1c254a142be5c00e80d819b9ae1bbd36d94b2eeb8f4b1271846508d57e57d9c5",
    "dev.tsv": "575489c079c9de1097062a01738f998590d6b7ead66dd1c9fd1d2ba01fd8bc62",
    "test.tsv": "0587b2dd8b27b97352adbfc3fb083d46005c8946657fdc2b1ca8b1cc7f1f8be4",
    "labels.txt": "45c3ef86782d2a4d7fedcd6d8c111aa0d0e94720689bd164fac94fefb4495a89",
}


def goemotions(name, dtype, dense, check):
    *paths, names = given(name, GOEMOTIONS, check)
    classes, parts = tuple(formats.lines_of(names)), []
    for path in paths:
        rows = table(path, 3)
        y = np.zeros((len(rows), len(classes)), bool)
        for i, (line, (_, labels, _)) in enumerate(rows):
            y[i, numbers(path, line, labels, len(classes))] = True
        parts += [tuple(text for _, (text, _, _) in rows), y]
    return Corpus(name, *parts, classes, files.of_files([*paths, names]), "GoEmotions, the authors' split")


OPENBOOKQA = {
    "train.jsonl": "388ce25926fa33b573ba6556d7245a6185f612dedf919871b6acb9340c8497a5",
    "dev.jsonl": "a08f720be757a0f0b6aaf8e1e1162c2b05a882c9c031d2559ba3d5467d023466",
    "test.jsonl": "feb2bd9bfa6161dca4c44ce90e51e8cdada83eb5061407fcdc5005e44aaf2313",
}


def openbookqa(name, dtype, dense, check):
    paths, parts = given(name, OPENBOOKQA, check), []
    for path in paths:
        rows = [question(path, line, text) for line, text in enumerate(formats.lines_of(path), 1)]
        parts += [tuple(asked for asked, _ in rows), np.array([answer for _, answer in rows], np.int64)]
    return Corpus(name, *parts, tuple("ABCD"), files.of_files(paths), "OpenBookQA, main questions, the authors' split")


def question(path, line, text):
    """(Question, number of the right answer) of a line of JSON."""
    try:
        found = json.loads(text)
        stem, choices = found["question"]["stem"], found["question"]["choices"]
        labels = [choice["label"] for choice in choices]
        if labels != list("ABCD"):
            raise ValueError(f"the answers are labelled {labels}")
        return Question(stem, tuple(choice["text"] for choice in choices)), labels.index(found["answerKey"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}, line {line}: not a question with the answers A to D ({error})") from None


POEMS = "tang_quatrain_regulated.tsv"
POEMS_SHA256 = "82a2640ebb3b28689b9858e7a0562dc07b5091a2e46c6aff465e96ad749d7ab9"
STOPS = "，。？；！"


def tang_poems(name, dtype, dense, check):
    path = files.given(name, "text/tang-poems", POEMS, POEMS_SHA256, check)
    poems = [poem(path, line, *fields) for line, fields in table(path, 4)]
    kept, others = split(len(poems), 0.1)
    validation, test = split(len(others), 0.5)
    rows = (kept, others[validation], others[test])
    train, validation, test = (tuple(poems[i] for i in part) for part in rows)
    source = "Complete Tang Poems, those of 4 or 8 lines of 5 or 7 characters; split by poem, 90, 5 and 5 %, seed 0"
    parts = (train, None, validation, None, test, None)
    return Corpus(name, *parts, None, files.of_files([path]), source)


def poem(path, line, form, author, title, text):
    """A Poem from a row; form is such as 5x8: characters a line, lines."""
    lines = tuple(part for part in text.translate(dict.fromkeys(map(ord, STOPS), "\n")).split("\n") if part)
    sizes = {f"{len(part)}x{len(lines)}" for part in lines}
    if sizes != {form}:
        raise UserError(f"{path}, line {line}: {form} is characters x lines, found {[len(part) for part in lines]}")
    return Poem(author, title, lines)


def given(name, known, check):
    return [files.given(name, f"text/{name}", file, sha, check) for file, sha in known.items()]


READERS = {"sst2": sst2, "sst2-socher": socher, "goemotions": goemotions, "openbookqa": openbookqa,
           "tang-poems": tang_poems}  # fmt: skip
