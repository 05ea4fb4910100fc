"""`npopt generate`: the text is the model's, a draft changes nothing, and what cannot be is said in one sentence."""

import struct

from lab.cli import main
from lab.generate import Printed, Spoken, cache_of
from nn.decoding import KIVI, Decoder, Streaming, generate
from nn.weights.llama2c import layout
from npopt.errors import UserError

import numpy as np
import pytest

SIZES = dict(features=16, hidden=24, layers=2, heads=2, kv_heads=1, words=270, length=40, tied=True)


def written(folder, name="model.bin", seed=0, **other):
    """A llama2.c .bin of random numbers, and its tokenizer.bin: bytes, and some letters."""
    sizes = SIZES | other
    shapes, _ = layout(**sizes)
    rng = np.random.default_rng(seed)
    header = [sizes[key] for key in ("features", "hidden", "layers", "heads", "kv_heads", "words", "length")]
    arrays = [0.6 * rng.standard_normal(shape).astype("<f4") for shape in shapes.values()]
    (folder / name).write_bytes(struct.pack("<7i", *header) + b"".join(a.tobytes() for a in arrays))
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % i for i in range(256))]
    pieces += [bytes([65 + i]) for i in range(sizes["words"] - len(pieces))]
    rows = [struct.pack("<fi", -float(i), len(piece)) + piece for i, piece in enumerate(pieces)]
    (folder / "tokenizer.bin").write_bytes(struct.pack("<i", 9) + b"".join(rows))
    return str(folder / name)


def said(words, capfd):
    """(status, what was printed, what was said beside it)"""
    status = main(["generate", *words])
    out, err = capfd.readouterr()
    return status, out, err


def test_the_text_is_the_models(tmp_path, capfd):
    path = written(tmp_path)
    model = Spoken(path)
    prompt = [1, *map(int, model.tokenizer.encode("ABBA"))]
    numbers = generate(Decoder(model.network, model.x), prompt, 40, stop=[1, 2])
    status, out, err = said(["--model", path, "--prompt", "ABBA"], capfd)
    shown = model.tokenizer.decode(numbers)
    assert status == 0 and out.rstrip("\n") == shown.rstrip("\n") and f"{len(numbers) - len(prompt)} words" in err
    for draft in ("text", written(tmp_path, "small.bin", 1, layers=1)):
        again = said(["--model", path, "--prompt", "ABBA", "--draft", draft], capfd)
        assert again[:2] == (0, out) and "a pass" in again[2]
    drawn = [said(["--model", path, "--prompt", "ABBA", "--temperature", "1.1", "--seed", s], capfd)[1] for s in "112"]
    assert drawn[0] == drawn[1] != drawn[2]
    longer = said(["--model", path, "--prompt", "ABBA", "--length", "90", "--cache", "streaming:2,20"], capfd)
    assert longer[0] == 0


def test_words_are_printed_as_they_come(capfd):
    class Tokenizer:
        def decode(self, numbers):
            return bytes(numbers).decode(errors="replace")

    printed, seen = Printed(Tokenizer(), b"a"), []
    for word in "é!".encode():
        printed([word])
        seen.append(capfd.readouterr().out)
    assert seen == ["a", "é", "!"]


def test_caches_by_name():
    assert cache_of("streaming:3,17") == Streaming(3, 17) and cache_of("kivi") == KIVI()
    for text, says in (
        ("stream", "no cache is called 'stream'; did you mean 'streaming'"),
        ("streaming:a", "numbers are wanted behind the colon"),
        ("full:1,2", "numbers are wanted"),
        ("kivi:3", "bits must be one of"),
    ):
        with pytest.raises(UserError, match=says):
            cache_of(text)


def test_what_cannot_be_is_one_sentence(tmp_path, capfd):
    path = written(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "empty").mkdir()
    for words, says in (
        (["--model", path, "--prompt", "  "], "--prompt is empty"),
        (["--model", path, "--prompt", "A" * 60], "leave none of 40"),
        (["--model", path, "--prompt", "A", "--length", "41"], "was trained for 40 words"),
        (["--model", path, "--prompt", "A", "--length", "0"], "--length 0: at least one word"),
        (["--model", str(tmp_path / "none"), "--prompt", "A"], "cannot be read"),
        (["--model", str(tmp_path / "empty"), "--prompt", "A"], "config.json cannot be read"),
        (["--model", path, "--prompt", "A", "--draft", written(other, words=265)], "the draft knows 265 words"),
        (["--model", path, "--prompt", "A", "--cache", "big"], "no cache is called 'big'"),
        (["--model", path, "--prompt", "A", "--temperature", "-1"], "temperature"),
    ):
        status, _, err = said(words, capfd)
        assert status == 2 and says in err and "Traceback" not in err and err.count("\n") <= 2, (words, err)
