"""From strings to whole numbers and back.

    characters(texts)                    one number a character
    words(texts, least=2)                one a word, words parted by white space
    pieces(texts, 2000)                  pieces of words, byte-level byte-pair encoding, trained here
    Pieces.from_file("tokenizer.json")   that of a published model

A vocabulary has `size`, `encode(text)`, an int64 vector, and `decode(numbers)`. Characters and words keep the numbers
0 to 3 for PAD, START, STOP and UNKNOWN. Pieces of bytes can spell every text, so they need no UNKNOWN and give each
text back as it was. Sennrich, Haddow & Birch, ACL 2016 (byte-pair encoding); Radford et al. 2019 (of bytes).
"""

import collections
import itertools
import json
import pathlib
import re

from npopt.errors import UserError
from npopt.values import whole
from problems import formats

import numpy as np

PAD, START, STOP, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<stop>", "<unknown>")


class Vocabulary:
    """A list of units, each known by its place in it. Units are characters, joined by "", or words, joined by " "."""

    def __init__(self, units, joint=""):
        self.units, self.joint = tuple(units), joint
        if joint not in ("", " "):
            raise UserError(f'Vocabulary: units are joined by "" or " ", got {joint!r}')
        if self.units[: len(SPECIAL)] != SPECIAL or len(set(self.units)) != len(self.units):
            raise UserError(f"Vocabulary: the units must be distinct and begin with {', '.join(SPECIAL)}")
        self.numbers = {unit: i for i, unit in enumerate(self.units)}
        self.size = len(self.units)

    def __repr__(self):
        return f"Vocabulary({self.size} {'words' if self.joint else 'characters'})"

    def encode(self, text):
        """The numbers of a text's units; UNKNOWN for those that are not in the list. int64."""
        units = text.split() if self.joint else text
        return np.array([self.numbers.get(unit, UNKNOWN) for unit in units], np.int64)

    def decode(self, numbers):
        """The text of numbers, without PAD, START and STOP."""
        return self.joint.join(self.units[i] for i in checked(numbers, self.size) if i not in (PAD, START, STOP))


def checked(numbers, size):
    """Numbers as a list of ints that are below size."""
    numbers = [int(i) for i in np.asarray(numbers).reshape(-1)]
    wrong = next((i for i in numbers if not 0 <= i < size), None)
    if wrong is not None:
        raise UserError(f"decode: number {wrong} is not in a vocabulary of {size}")
    return numbers


def _listed(units, least, joint, owner):
    counts = collections.Counter(units)
    common = (unit for unit, count in counts.items() if count >= whole(owner, "least", least))
    return Vocabulary((*SPECIAL, *sorted(common, key=lambda unit: (-counts[unit], unit))), joint)


def characters(texts, least=1):
    """The characters that occur `least` times in the texts, by falling frequency, equal ones in their order."""
    return _listed((c for text in texts for c in text), least, "", "characters")


def words(texts, least=1):
    """The words, parted by white space, that occur `least` times in the texts."""
    return _listed((word for text in texts for word in text.split()), least, " ", "words")


def _tokenizers():
    try:
        import tokenizers
    except ImportError:
        raise UserError("pieces of words need the package tokenizers: pip install tokenizers") from None
    return tokenizers


class Pieces:
    """A tokenizer of the package `tokenizers`, given as the text of its tokenizer.json.

    special   the names of tokens that stand for no text, as the file lists them: {"<pad>": 0, ...}
    """

    def __init__(self, text):
        self.text = text
        try:
            self._tokenizer = _tokenizers().Tokenizer.from_str(text)
        except Exception as error:  # the package raises Exception itself
            if isinstance(error, UserError):
                raise
            raise UserError(f"Pieces: not a tokenizer.json ({error})") from None
        self._tokenizer.no_padding()  # files may ask to fill or cut every text to one length
        self._tokenizer.no_truncation()
        self.size = self._tokenizer.get_vocab_size()
        self.special = {token["content"]: token["id"] for token in json.loads(text)["added_tokens"] if token["special"]}

    @classmethod
    def from_file(cls, path):
        path = pathlib.Path(path)
        try:
            return cls(formats.text_of(path))
        except UserError as error:
            raise UserError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None

    def __repr__(self):
        return f"Pieces({self.size} pieces)"

    def encode(self, text):
        """int64, without the special tokens that a model wants around a text."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, numbers):
        """The text of numbers, without special tokens."""
        return self._tokenizer.decode(checked(numbers, self.size), skip_special_tokens=True)


def pieces(texts, size, special=SPECIAL):
    """Pieces trained on texts: the special tokens, 256 bytes, then the pairs that are merged first, `size` in all.

    A text is cut before spaces, between letters, digits and other characters, as GPT-2's is; no piece reaches over a
    cut. Fewer pieces are made if the texts have no more pairs.
    """
    package = _tokenizers()
    if whole("pieces", "size", size) < 256 + len(special):
        raise UserError(f"pieces: size must be at least {256 + len(special)}, the bytes and special tokens; got {size}")
    made = package.Tokenizer(package.models.BPE())
    made.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = package.decoders.ByteLevel()
    trainer = package.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=sorted(package.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return Pieces(made.to_str())


class Scored:
    """The tokenizer of llama2.c: pieces with scores, from a tokenizer.bin. Karpathy, llama2.c, 2023.

    A text gets a space in front and is cut into its characters. Those that are no pieces become their UTF-8 bytes,
    which are pieces 3 to 258. Then the neighbours whose union has the highest score are merged, the first of equals,
    until no union is a piece. START is 1 and STOP is 2.
    """

    start, stop = 1, 2

    def __init__(self, pieces, scores):
        self.pieces, self.scores = tuple(pieces), np.asarray(scores, np.float32)
        self.size = len(self.pieces)
        self.numbers = {}
        for i, piece in enumerate(self.pieces):
            self.numbers.setdefault(piece, i)

    @classmethod
    def from_file(cls, path, size):
        """From a tokenizer.bin of `size` pieces: an int32, then for each its float32 score, its length, its bytes."""
        path = pathlib.Path(path)
        with formats.readable(path):
            data = path.read_bytes()
        found, scores, at = [], [], 4
        for i in range(whole("Scored", "size", size)):
            length = int.from_bytes(data[at + 4 : at + 8], "little", signed=True)
            if at + 8 > len(data) or not 0 <= length <= len(data) - at - 8:
                raise UserError(f"{path}: it ends within piece {i} of {size}; is it the tokenizer of this model?")
            scores.append(np.frombuffer(data, "<f4", 1, at)[0])
            found.append(data[at + 8 : at + 8 + length])
            at += 8 + length
        if at != len(data):
            raise UserError(f"{path}: {len(data) - at} bytes follow piece {size}; is it the tokenizer of this model?")
        return cls(found, scores)

    def encode(self, text):
        """int64, without START."""
        found = []
        for character in " " + text if text else "":
            raw = character.encode()
            found += [self.numbers[raw]] if raw in self.numbers else [byte + 3 for byte in raw]
        while len(found) > 1:
            unions = [self.numbers.get(self.pieces[a] + self.pieces[b], -1) for a, b in itertools.pairwise(found)]
            best = max(range(len(unions)), key=lambda i: self.scores[unions[i]] if unions[i] >= 0 else -np.inf)
            if unions[best] < 0:
                break
            found[best : best + 2] = [unions[best]]
        return np.array(found, np.int64)

    def decode(self, numbers):
        """The text, without the space that `encode` put in front."""
        out, before = b"", None
        for i in checked(numbers, self.size):
            piece = self.pieces[i]
            byte = re.fullmatch(rb"<0x([0-9A-F]{2})>", piece)
            piece = bytes([int(byte[1], 16)]) if byte else piece
            if i not in (self.start, self.stop):
                out += piece[1:] if before in (None, self.start) and piece[:1] == b" " else piece
            before = i
        return out.decode(errors="replace")
