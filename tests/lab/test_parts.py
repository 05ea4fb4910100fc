"""A run of some parts: it keeps the figures and claims of the others, prints its own, and needs its own data alone; and
what becomes of a report whose files are damaged."""

import json
import os

from lab import Entry, Experiment, Option, Part, Recipe, engine, report
from lab import data as data_room
from lab.store import read_summary
from npopt import SGD, RandomReshuffling
from npopt.errors import UserError
from problems.quadratic import Quadratic

import numpy as np
import pytest
from PIL import Image


def bowl(scale, data=None):
    return Quadratic(scale * np.linspace(0.1, 1, 5), n=20, noise=0.1)


@pytest.fixture
def experiment(monkeypatch):
    """Three parts, each with a claim and a figure of its own; one claim for all. The data of part a are not there."""
    parts = {"a": Part("first", "digits", "news20"), "b": Part("second"), "c": Part("third")}
    scale = Option("--scale", type=float, default=1.0)
    made = Experiment("What is asked?", seeds=1, epochs=1, parts=parts, options=[scale])

    def facts(name):
        if name == "news20":
            raise UserError("news20: the file is nowhere")
        return {"name": name, "sha256": "1", "rows": 5, "source": ""}

    monkeypatch.setattr(data_room, "facts", facts)

    @made.runs
    def runs(args):
        for data in args.data_of("a"):
            facts(data)  # what a grid that asks its problem for a rate would do
            yield Entry("a", Recipe(bowl, scale=args.scale, data=data), SGD(), RandomReshuffling(5), of="a")
        for part, scale in (("b", 0.5), ("c", 0.3)):
            yield Entry(part, Recipe(bowl, scale=scale * args.scale), SGD(), RandomReshuffling(5), of=part)

    for part in "abc":
        made.claim(f"claim-{part}", f"part {part} ends well")(
            lambda results, part=part: (results.select(part).final("gap").mean(), True)
        )
        made.figure(f"{part}.png")(lambda results, part=part: figure(results.select(part)))
    made.claim("all", "there are three")(lambda results: (len(results), len(results) == 3))
    return made


def figure(results):
    from lab.figures import curves, panels

    made, ax = panels(size=(2, 2))
    curves(ax, results, y="gap")
    return made


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "toy"


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def held(folder):
    """(claims that are decided, figures that are drawn, parts of the runs) of a report."""
    facts = summary(folder)
    drawn = [f["name"] for f in facts["figures"] if not f["reason"]]
    assert drawn == sorted(path.name for path in folder.glob("*.png"))
    assert all(Image.open(folder / name).size[0] > 50 for name in drawn)
    return [c["id"] for c in facts["claims"] if c["holds"]], drawn, [run["part"] for run in facts["runs"]]


ALL = ["claim-a", "claim-b", "claim-c", "all"], ["a.png", "b.png", "c.png"], ["a", "b", "c"]


def test_a_run_of_one_part_keeps_the_others_and_prints_its_own(experiment, here, capsys):
    experiment.main([], script="toy")
    assert held(here) == ALL
    before = capsys.readouterr().out
    assert all(f"part {part}:" in before and f"claim-{part}:" in before for part in "abc")
    experiment.main(["--parts", "b", "--fresh", "--jobs", "1"], script="toy")
    said = capsys.readouterr().out
    assert held(here) == ALL and summary(here)["kept"] == ["a", "c"]
    assert "1 runs, 0 stored, 1 to make" in said and "part b:" in said and "claim-b:" in said
    assert not any(words in said for words in ("part a:", "part c:", "claim-a:", "claim-c:"))
    assert [d["name"] for d in summary(here)["data_sets"]] == ["digits"]


def test_parts_gather_one_by_one_and_the_claim_on_all_is_printed_with_the_last(experiment, here, capsys):
    for parts, known in (("c", ["c"]), ("a", ["a", "c"]), ("b", ["a", "b", "c"])):
        experiment.main(["--parts", parts], script="toy")
        assert held(here)[2] == known
    assert held(here) == ALL and "all: there are three" in capsys.readouterr().out
    experiment.main(["--redraw"], script="toy")
    assert held(here) == ALL


def test_a_part_needs_its_own_data_alone(experiment, here, capsys):
    with pytest.raises(SystemExit):
        experiment.main(["--data", "real"], script="toy")
    assert "news20: the file is nowhere" in capsys.readouterr().err
    experiment.main(["--data", "real", "--parts", "b"], script="toy")
    assert held(here)[2] == ["b"]


def test_parts_that_were_made_with_other_arguments_are_left_out_and_it_is_said(experiment, here, capsys):
    experiment.main([], script="toy")
    experiment.main(["--parts", "b", "--scale", "2"], script="toy")
    said = capsys.readouterr().out
    assert "the report is of part b alone; the other parts were made with other arguments (scale)" in said
    assert held(here) == (["claim-b"], ["b.png"], ["b"])


def test_a_run_of_another_part_that_is_gone_from_the_store_is_left_out(experiment, here):
    experiment.main([], script="toy")
    key = next(run["key"] for run in summary(here)["runs"] if run["part"] == "a")
    (here / "runs" / f"{key}.npz").unlink()
    experiment.main(["--parts", "b"], script="toy")
    assert held(here)[1:] == (["b.png", "c.png"], ["b", "c"])


# ------------------------------------------------------------------------------------------------- damaged files
DAMAGE = ["", "{", "[1, 2]", "null", '{"runs": [1, 2]}', '{"command": 3, "runs": []}', "\0\0\0"]


@pytest.mark.parametrize("text", DAMAGE)
def test_a_damaged_summary_is_as_good_as_none(tmp_path, text, capsys):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "summary.json").write_text(text)
    assert read_summary(tmp_path / "toy" / "summary.json") == read_summary(tmp_path / "none.json") == {}
    report.write_index(tmp_path)
    said = capsys.readouterr().err
    assert said == f"{tmp_path / 'toy/summary.json'} is damaged and left out of the index; run toy again\n"


@pytest.mark.parametrize("text", DAMAGE[1:3])
def test_a_damaged_summary_is_written_anew_and_never_hides_the_runs(experiment, here, capsys, monkeypatch, text):
    experiment.main(["--scale", "2"], script="toy")
    (here / "summary.json").write_text(text)
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--redraw"], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert "no stored run of this grid" in said and "but 3 others, and no whole summary.json" in said
    experiment.main(["--redraw", "--scale", "2"], script="toy")  # as the sentence says
    assert held(here) == ALL
    (here / "summary.json").write_text(text)
    monkeypatch.setattr(engine, "perform", None)  # nothing is made again
    experiment.main(["--scale", "2", "--parts", "b"], script="toy")
    assert held(here)[2] == ["b"]


def test_a_summary_that_cannot_be_read_is_one_sentence(experiment, here, capsys):
    experiment.main([], script="toy")
    os.remove(here / "summary.json")
    (here / "summary.json").mkdir()
    for words in (["--redraw"], ["--parts", "b"]):
        with pytest.raises(SystemExit) as ended:
            experiment.main(words, script="toy")
        said = capsys.readouterr().err
        assert ended.value.code == 2 and said.count("\n") == 1
        assert "summary.json cannot be read (Is a directory); see to its permissions" in said


def test_a_run_that_cannot_be_read_is_one_sentence_and_is_not_made_again(experiment, here, capsys, monkeypatch):
    experiment.main([], script="toy")
    path = here / "runs" / f"{summary(here)['runs'][0]['key']}.npz"
    os.remove(path)
    path.mkdir()
    monkeypatch.setattr(engine, "perform", None)
    with pytest.raises(SystemExit) as ended:
        experiment.main([], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and "cannot be read (Is a directory)" in said


def test_a_half_written_figure_is_drawn_again_and_its_rest_goes(experiment, here):
    experiment.main([], script="toy")
    (here / "a.png").write_bytes((here / "a.png").read_bytes()[:99])
    (here / ".a.png.x.tmp").write_bytes(b"half")
    os.utime(here / ".a.png.x.tmp", (0, 0))
    experiment.main(["--parts", "b"], script="toy")
    assert held(here) == ALL and not list(here.glob(".*.tmp"))
