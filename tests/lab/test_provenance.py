"""The head of a readme is what its summary.json says; what a person wrote below it stays."""

import json
import re
from pathlib import Path

from lab import Entry, Experiment, Recipe, provenance
from lab.store import read_summary
from npopt import SGD, Stop
from npopt.errors import UserError
from problems import Quadratic

import pytest

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
MADE = [path for path in sorted(RESULTS.glob("*/readme.txt")) if provenance.MARK in path.read_text(encoding="utf-8")]


def bowl():
    return Quadratic([1.0, 2.0])


def reported(out, argv=()):
    made = Experiment("Does it?", parts={"a": "one", "b": "two"}, seeds=3)

    @made.runs
    def runs(args):
        yield Entry("a", Recipe(bowl), SGD(), None, 0.1, stop=Stop(steps=3))
        yield Entry("b", Recipe(bowl), SGD(), None, 0.2, stop=Stop(steps=3), lr=0.2, seeds=args.seeds[:2])
        yield Entry("b", Recipe(bowl), SGD(), None, 0.3, stop=Stop(steps=3), lr=0.3, seeds=args.seeds[:1])

    for name, verdict in (("one", True), ("two", False), ("three", None), ("four", True)):
        made.claim(name, "it does", expected="yes")(lambda results, verdict=verdict: (1, verdict))
    made.main(["--out", str(out), "--jobs", "1", "--threads", "1", *argv], script="mine")
    return (out / "mine" / "readme.txt").read_text(encoding="utf-8")


def test_a_script_writes_the_head_of_its_readme(tmp_path):
    text = reported(tmp_path)
    words = " ".join(text.split())
    assert text.startswith("mine on bundled data\n====================\n\n    npopt run mine --jobs 1 --threads 1\n")
    assert re.search(r"6 runs \(a: 3, b: 3\), [\d.]+ s of steps, one at a time on one thread \(CPU\)", words)
    assert "3 seeds (a), up to 2 seeds (b); numpy " in words and "Data: generated." in words
    assert "2 of 4 claims hold. Did not hold: two. Undecided: three." in words and text.endswith(provenance.MARK + "\n")


def test_pieces_are_reported_as_the_whole(tmp_path):
    reported(tmp_path, ["--parts", "a"])
    assert "npopt run mine --jobs 1 --threads 1 --parts a\n" in (tmp_path / "mine" / "readme.txt").read_text()
    for words in (["--parts", "b"], ["--parts=b"]):
        text = reported(tmp_path, words)
        assert "    npopt run mine --jobs 1 --threads 1\n" in text
        assert "(a: 3, b: 3)" in text and "(CPU), in pieces (--parts)," in " ".join(text.split())


def test_what_was_written_below_stays(tmp_path):
    path = tmp_path / "mine" / "readme.txt"
    path.parent.mkdir()
    path.write_text("Found. A bowl.\n")
    text = reported(tmp_path)
    assert text.endswith(provenance.MARK + "\n\nFound. A bowl.\n")
    path.write_text(text.replace("bowl", "cup").replace("6 runs", "7 runs"))
    again = reported(tmp_path, ["--redraw"])
    assert "6 runs" in again and again.endswith("\n\nFound. A cup.\n") and again.count(provenance.MARK) == 1
    path.write_text(again.replace("6 runs", "7 runs"))
    provenance.main([str(path.parent)])
    assert path.read_text() == again


def test_without_a_summary_there_is_no_head(tmp_path):
    with pytest.raises(UserError, match="no whole summary.json"):
        provenance.main([str(tmp_path)])


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.parent.name)
def test_a_committed_head_is_what_its_summary_says(path):
    facts = read_summary(path.parent / "summary.json", reported={"part": str, "seed": int})
    text = path.read_text(encoding="utf-8")
    assert provenance.renewed(text, facts) == text
    assert json.loads((path.parent / "summary.json").read_bytes())["runs"]
