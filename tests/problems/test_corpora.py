"""Corpora and vocabularies: published sizes, splits, damaged files, texts that come back as they were."""

import json
import os
import pathlib
import struct

from problems import corpora, files, load, vocabulary
from problems.vocabulary import PAD, START, STOP, UNKNOWN

import numpy as np
import pytest

HERE = pathlib.Path(os.environ.get("NPOPT_DATA", "data"))
POEM = "7x4\t李白\t早發白帝城\t朝辭白帝彩雲間，千里江陵一日還。兩岸猿聲啼不住，輕舟已過萬重山。"
ASKED = {
    "question": {
        "stem": "Ice is",
        "choices": [{"text": text, "label": label} for text, label in zip("wxyz", "ABCD", strict=True)],
    },
    "answerKey": "C",
}


@pytest.fixture
def put(tmp_path, monkeypatch):
    """put(name, file=text, ...): files of a corpus, in a folder that `load` looks into."""
    monkeypatch.setenv("NPOPT_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "cache", lambda: tmp_path / "cache")

    def write(name, **texts):
        folder = tmp_path / "text" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            path = folder / file.replace("__", ".")
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return write


def test_sentences_and_labels_by_line(put):
    put("sst2", train__tsv="sentence\tlabel\na b \t1\nc\u2028d\t0\r\n e\t1\n", dev__tsv="sentence\tlabel\nf\t0\n")
    found = load("sst2", check=False)
    assert found.train == ("a b", "c\u2028d", "e") and found.y_train.tolist() == [1, 0, 1]  # U+2028 ends no line
    assert found.test == ("f",) and found.y_test.tolist() == [0] and found.validation is None
    held = load("sst2", check=False, validation=0.4)
    assert len(held.train) == 2 and len(held.validation) == 1 and held.y_train.dtype == np.int64
    assert sorted(held.train + held.validation) == sorted(found.train) and "40 %" not in held.source
    assert dict(zip(held.train + held.validation, [*held.y_train, *held.y_validation], strict=True)) == dict(
        zip(found.train, found.y_train, strict=True)
    )
    some = load("sst2", check=False, rows=2)
    assert set(some.train) < set(found.train) and "2 of 3 training texts" in some.source
    with pytest.raises(ValueError, match="wrong checksum"):
        load("sst2")


@pytest.mark.parametrize(
    "text, message",
    [
        ("a\t1\n", "train.tsv: the first line must be 'sentence.+label', found 'a.+1'"),
        ("", "train.tsv: the first line must be"),
        ("sentence\tlabel\na\t1\nb\n", "train.tsv, line 3: 2 columns parted by tabs are wanted, found 1"),
        ("sentence\tlabel\n\n", "train.tsv, line 2: 2 columns"),
        ("sentence\tlabel\n  \t1\n", "train.tsv, line 2: the text is empty; delete the line"),
        ("sentence\tlabel\na\t0,1\n", "train.tsv, line 2: one label, 0 or 1, is wanted, found '0,1'"),
        ("sentence\tlabel\na\t2\n", "train.tsv, line 2: labels are numbers of 0 to 1, found '2'"),
        ("sentence\tlabel\na\t-1\n", "train.tsv, line 2: labels are numbers of 0 to 1, found '-1'"),
        (b"sentence\tlabel\na\t1\n\xff\t0\n", "train.tsv, line 3: not UTF-8 .*convert the file"),
    ],
)
def test_damaged_lines_are_one_sentence(put, text, message):
    put("sst2", train__tsv=text, dev__tsv="sentence\tlabel\nf\t0\n")
    with pytest.raises(ValueError, match=message):
        load("sst2", check=False)


def test_several_labels_a_text(put):
    line = "text {}\t{}\tid{}\n".format
    folder = put("goemotions", labels__txt="joy\nfear\nneutral\n", train__tsv=line(0, "0,2", 0) + line(1, "1", 1),
                 dev__tsv=line(2, "2", 2), test__tsv=line(3, "0", 3))  # fmt: skip
    found = load("goemotions", check=False)
    assert found.classes == ("joy", "fear", "neutral") and found.validation == ("text 2",)
    assert found.y_train.tolist() == [[True, False, True], [False, True, False]]
    for more in (dict(validation=0.1), dict(noise=0.1), dict(standard=True)):
        with pytest.raises(ValueError, match="goemotions: .*(leave|no columns)"):
            load("goemotions", check=False, **more)
    (folder / "labels.txt").unlink()
    with pytest.raises(ValueError, match="labels.txt is in none of .* no public address; put it at"):
        load("goemotions", check=False)


def test_questions(put):
    text = json.dumps(ASKED) + "\n"
    put("openbookqa", train__jsonl=2 * text, dev__jsonl=text, test__jsonl=text)
    found = load("openbookqa", check=False)
    assert found.train[0] == corpora.Question("Ice is", tuple("wxyz")) and found.y_train.tolist() == [2, 2]
    for wrong in ("{", json.dumps(ASKED | {"answerKey": "E"}), json.dumps({"question": {"stem": "x", "choices": []}})):
        put("openbookqa", dev__jsonl=text + wrong + "\n")
        with pytest.raises(ValueError, match="dev.jsonl, line 2: not a question with the answers A to D"):
            load("openbookqa", check=False)


def test_poems_are_split_whole(put):
    rows = [POEM.replace("李白", f"poet {i}") for i in range(40)]
    put("tang-poems", tang_quatrain_regulated__tsv="\n".join(rows) + "\n")
    found = load("tang-poems", check=False)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [36, 2, 2]
    assert found.train[0].lines == ("朝辭白帝彩雲間", "千里江陵一日還", "兩岸猿聲啼不住", "輕舟已過萬重山")
    assert len({poem.author for part in (found.train, found.validation, found.test) for poem in part}) == 40
    for wrong in (
        POEM.replace("7x4", "5x4"),
        POEM.replace("7x4", "long"),
        POEM.replace("，", "，，千").replace("。兩", "兩"),
    ):
        put("tang-poems", tang_quatrain_regulated__tsv=POEM + "\n" + wrong + "\n")
        with pytest.raises(ValueError, match="line 2: (.x4|long) is characters x lines, found"):
            load("tang-poems", check=False)


@pytest.mark.parametrize(
    "name, sizes, positive",
    [
        ("sst2", (67_349, 0, 872), 37_569),
        ("sst2-socher", (6_920, 872, 1_821), 3_610),
        ("goemotions", (43_410, 5_426, 5_427), None),
        ("openbookqa", (4_957, 500, 500), None),
        ("tang-poems", (32_743, 1_819, 1_819), None),
    ],
)
def test_the_real_corpora_have_their_published_sizes(name, sizes, positive):
    if not (HERE / "text" / name).is_dir():
        pytest.skip(f"{name} is not there")
    found = load(name)
    assert tuple(len(part or ()) for part in (found.train, found.validation, found.test)) == sizes
    assert positive is None or found.y_train.sum() == positive
    assert name != "goemotions" or (found.y_train.shape == (43_410, 28) and found.y_train[:, 27].sum() == 14_219)


# ---------------------------------------------------------------------------------------------------- vocabularies
TEXTS = ("ab ba", "ab 日本", "c")


def test_characters_and_words_are_numbered_by_frequency():
    found = vocabulary.characters(TEXTS)
    assert found.units[4:] == (" ", "a", "b", "c", "日", "本") or found.units[4:7] == ("a", "b", " ")
    assert found.units[4:] == ("a", "b", " ", "c", "日", "本")  # 3, 3, 2, 1, 1, 1
    assert found.decode([START, *found.encode("ab c"), STOP, PAD]) == "ab c"
    assert found.encode("x").tolist() == [UNKNOWN] and found.encode("").dtype == np.int64
    listed = vocabulary.words(TEXTS, least=2)
    assert listed.units[4:] == ("ab",) and listed.encode("ab  c ab").tolist() == [4, UNKNOWN, 4]
    assert listed.decode([4, UNKNOWN]) == "ab <unknown>"
    with pytest.raises(ValueError, match="number 9 is not in a vocabulary of 5"):
        listed.decode([9])
    with pytest.raises(ValueError, match="distinct and begin with <pad>, <start>"):
        vocabulary.Vocabulary(("a", "b"))


def test_pieces_spell_every_text():
    package = pytest.importorskip("tokenizers")
    texts = ["the cat sat on the mat", "the dog ate the cat's hat"] * 5
    found, again = (vocabulary.pieces(texts, 275) for _ in range(2))
    assert found.text == again.text and found.size == 275 and found.special["<stop>"] == STOP
    for text in (*texts, "Ünïcödé 日本\n\t x", "", " two  spaces ", "<pad>"):
        numbers = found.encode(text)
        assert numbers.dtype == np.int64 and found.decode(numbers) == ("" if text == "<pad>" else text)
    assert len(found.encode(texts[0])) < len(texts[0]) / 2 and vocabulary.pieces(["aa"], 5000).size < 300
    assert vocabulary.Pieces(found.text).encode("the cat").tolist() == found.encode("the cat").tolist()
    assert package.Tokenizer.from_str(found.text).encode("the cat").ids == found.encode("the cat").tolist()
    with pytest.raises(ValueError, match="size must be at least 260"):
        vocabulary.pieces(texts, 100)


def test_pieces_of_a_file(tmp_path):
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    path.write_text(vocabulary.pieces(["ab ab"], 262).text)
    assert vocabulary.Pieces.from_file(str(path)).size == 262
    text = json.loads(path.read_text())
    text["padding"] = dict(strategy={"Fixed": 9}, direction="Right", pad_to_multiple_of=None, pad_id=0, pad_type_id=0,
                           pad_token="<pad>")  # fmt: skip
    text["truncation"] = dict(direction="Right", max_length=2, strategy="LongestFirst", stride=0)
    assert vocabulary.Pieces(json.dumps(text)).encode("ab ab ab").size == vocabulary.Pieces.from_file(path).encode(
        "ab ab ab"
    ).size  # fmt: skip
    path.write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json: Pieces: not a tokenizer.json"):
        vocabulary.Pieces.from_file(path)
    with pytest.raises(ValueError, match="cannot be read"):
        vocabulary.Pieces.from_file(tmp_path / "none.json")


def merged(text, pieces, scores):
    """The merging of llama2.c, by strings."""
    found = list(" " + text)
    while True:
        unions = [(scores[pieces.index(a + b)], -i) for i, (a, b) in enumerate(zip(found, found[1:], strict=False))
                  if a + b in pieces]  # fmt: skip
        if not unions:
            return [pieces.index(piece) for piece in found]
        i = -max(unions)[1]
        found[i : i + 2] = [found[i] + found[i + 1]]


def test_pieces_with_scores_are_merged_as_llama2_c_does(tmp_path, rng):
    letters = [" ", "a", "b", "c"]
    longer = [" a", "ab", "bc", "abc", "aa", "ca", " ab", "cab"]
    raw = [f"<0x{i:02X}>" for i in range(256)]
    pieces, scores = ["<unk>", "<s>", "</s>", *raw, *letters, *longer], rng.standard_normal(271)
    path = tmp_path / "tokenizer.bin"
    units = [piece.encode() for piece in pieces]
    data = struct.pack("<i", 9) + b"".join(
        struct.pack("<fi", score, len(unit)) + unit for score, unit in zip(scores, units, strict=True)
    )
    path.write_bytes(data)
    found = vocabulary.Scored.from_file(path, 271)
    for _ in range(50):
        text = "".join(rng.choice(letters[1:], 12))
        assert found.encode(text).tolist() == merged(text, pieces, np.float32(scores).tolist())
        assert found.decode([found.start, *found.encode(text)]) == text
    assert found.encode("é").tolist()[-2:] == [3 + 0xC3, 3 + 0xA9] and found.decode(found.encode("é")) == "é"
    assert found.encode("").size == 0 and found.decode([]) == ""
    for wrong, message in ((data[:-1], "ends within piece 270 of 271"), (data + b"x", "1 bytes follow piece 271")):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=message):
            vocabulary.Scored.from_file(path, 271)
