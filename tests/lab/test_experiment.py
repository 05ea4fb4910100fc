"""A script from its arguments to its files, in this process."""

import copy
import csv
import errno
import html.parser
import importlib.util
import json
import os
import pathlib
import platform
import re
import sys

from lab import Entry, Experiment, Option, Part, Recipe, engine, finer
from lab.figures import COLOURS, curves, panels, sweep
from lab.pictures import animate, save
from lab.store import read_summary
from nn.language import bert
from npopt import SGD, RandomReshuffling, Stop, backend
from npopt.errors import UserError
from problems.batched import Batched
from problems.classifiers import lenet, perceptron
from problems.encoded import Labelled
from problems.neural import Neural
from problems.quadratic import Quadratic
from problems.verse import verse

import numpy as np
import pytest
from matplotlib.animation import FuncAnimation
from PIL import Image, ImageColor


def quadratic(scale=1.0):
    return Quadratic(scale * np.linspace(0.1, 1, 5), n=20, noise=0.1)


def sized(size):
    raise UserError(f"quadratic: size must be positive, got {size}")


def bug():
    return np.zeros(2) + np.zeros(3)


def leave():
    sys.exit("good bye")


def vector_columns(seed, events):
    """The path's last row is missing, as in a run that diverged between two measurements."""
    assert events.checkpoint is not None and events.progress is not None
    return {"epoch": [0, 1, 2], "value": [2.0, 1.5, 1.0 + seed], "path": [np.zeros(2), np.ones(2), np.nan]}


@pytest.fixture
def experiment():
    made = Experiment(
        "What is asked?   And more.\n\nTheory says <this> & that.\n\n    x <- x - lr g\n",
        task="T1", source="a paper", seeds=2, quick_seeds=1, epochs=2,
        parts={"a": Part("first"), "b": Part("second")}, options=[Option("--lr", type=float, default=0.1)],
    )  # fmt: skip

    @made.runs
    def runs(args):
        yield Entry("a", Recipe(quadratic), SGD(), RandomReshuffling(5), args.lr, method="sgd")
        yield Entry("b", Recipe(quadratic, scale=1e150), SGD(), RandomReshuffling(5), 10.0, method="wild")

    @made.claim("down", "it goes down", expected="< 1")
    def down(results):
        last = results.select("a").final("gap")
        return last.mean(), bool((last < 1).all())

    @made.claim("wild", "the wild one diverges", expected="all", source="another paper")
    def wild(results, args):
        lost = sum(run.diverged for run in results.select("b"))
        return lost, lost == len(args.seeds)

    @made.figure("gap.png", caption="The gap & the <epochs>.")
    def gap(results):
        figure, ax = panels(size=(4, 3))
        curves(ax, results.select("a"), y="gap", logy=True)
        return figure

    @made.conclusion
    def conclusion(results, claims, args):
        return f"Down: {claims['down'].holds}, with rate {args.lr}."

    return made


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "toy"


def summary(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "summary.json").read_text(), parse_constant=refuse)


def test_a_script_leaves_all_its_files(experiment, here, capsys):
    experiment.figure("usual.png")(lambda results: panels()[0])
    experiment.main(["--threads", "1"], script="toy")
    facts = summary(here)
    assert (facts["script"], facts["task"], facts["source"]) == ("toy", "T1", "a paper")
    first, second = facts["entries"]
    assert (first["tags"], second["tags"]) == ({"method": "sgd"}, {"method": "wild"}) and "optimizer" in first["config"]
    assert [r["entry"] for r in facts["runs"]] == [0, 0, 1, 1]
    assert [(r["part"], r["name"], r["seed"]) for r in facts["runs"]] == [
        ("a", "sgd", 0), ("a", "sgd", 1), ("b", "wild", 0), ("b", "wild", 1),
    ]  # fmt: skip
    assert all(set(r) >= {"entry", "final", "seconds"} for r in facts["runs"])
    assert facts["runs"][0]["reason"] == "epochs" and facts["runs"][2]["reason"].startswith("diverged")
    assert [(c["id"], c["holds"]) for c in facts["claims"]] == [("down", True), ("wild", True)]
    assert set(facts["claims"][0]) >= {"id", "statement", "expected", "measured", "holds", "note"}
    assert facts["data"] == {"name": "", "sha256": "", "rows": 0} and facts["arguments"]["lr"] == 0.1
    assert facts["command"] == "npopt run toy --threads 1" and facts["versions"]["numpy"] == np.__version__

    rows = list(csv.DictReader((here / "runs.csv").open()))
    assert list(rows[0])[:5] == ["part", "name", "seed", "epoch", "step"]
    first = [row for row in rows if (row["part"], row["seed"]) == ("a", "0")]
    assert [float(row["epoch"]) for row in first] == [0, 1, 2]
    assert float(first[-1]["gap"]) == facts["runs"][0]["final"]["gap"]  # every digit is there

    assert [Image.open(here / name).size for name in ("gap.png", "usual.png")] == [(520, 390), (1040, 624)]  # 130 dpi
    assert (here.parent / "index.html").read_text().count("toy/report.html") == 1
    said = capsys.readouterr().out
    assert "4 runs, 0 stored, 4 to make" in said and "HOLDS" in said and "Down: True, with rate 0.1." in said


def test_a_summary_names_neither_machine_nor_folder(experiment, here, tmp_path):
    experiment.main(["--out", str(tmp_path / "elsewhere")], script="toy")
    text = "".join((tmp_path / "elsewhere/toy" / name).read_text() for name in ("summary.json", "report.html"))
    assert str(tmp_path) not in text and "elsewhere" not in text and not here.exists()
    assert not platform.node() or not re.search(rf"\b{re.escape(platform.node())}\b", text)


class Page(html.parser.HTMLParser):
    """Every address of a page, and its text; HTML that does not close is an error."""

    EMPTY = {"meta", "img", "br", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.links, self.tags, self.text = [], [], [], set(), ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster"):
                self.sources.append(value)
            if name == "href":
                self.links.append((tag, value))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_and_says_everything(experiment, here):
    experiment.main([], script="toy")
    text = (here / "report.html").read_text()
    page = Page(text)
    assert len(page.sources) == 1 and page.sources[0].startswith("data:image/png;base64,")
    assert page.links == [("a", "../index.html")]
    assert not page.tags & {"script", "link", "iframe", "object"} and "@import" not in text and "url(" not in text
    for words in ("Theory says <this> & that.", "x <- x - lr g", "The gap & the <epochs>.", "another paper", "Down: T"):
        assert words in page.text
    assert "✓ holds" in page.text and "diverged" in page.text
    Page((here.parent / "index.html").read_text())


def counted(monkeypatch):
    """A list that grows by (name, seed) whenever a run is really made."""
    made, perform = [], engine.perform

    def noted(job, *rest):
        made.append((job.entry.name, job.seed))
        return perform(job, *rest)

    monkeypatch.setattr(engine, "perform", noted)
    return made


def test_a_finished_run_is_never_run_again(experiment, here, monkeypatch):
    made = counted(monkeypatch)
    experiment.main(["--seeds", "1"], script="toy")
    assert made == [("sgd", 0), ("wild", 0)]
    before = summary(here)["runs"]
    experiment.main(["--seeds", "1"], script="toy")
    assert len(made) == 2 and summary(here)["runs"] == before
    experiment.main(["--seeds", "2", "--parts", "a"], script="toy")
    assert made[2:] == [("sgd", 1)]
    experiment.main(["--seeds", "1", "--lr", "0.2"], script="toy")
    assert made[3:] == [("sgd", 0)]
    experiment.main(["--seeds", "1", "--fresh"], script="toy")
    assert made[4:] == [("sgd", 0), ("wild", 0)]


def test_a_damaged_run_is_made_again_with_the_same_numbers(experiment, here, monkeypatch):
    made = counted(monkeypatch)
    experiment.main(["--seeds", "1"], script="toy")
    facts = summary(here)["runs"][0]
    path = here / "runs" / f"{facts['key']}.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="damaged"):
        experiment.main(["--seeds", "1"], script="toy")
    again = summary(here)["runs"][0]
    assert made == [("sgd", 0), ("wild", 0), ("sgd", 0)]
    assert {**again["final"], "seconds": 0} == {**facts["final"], "seconds": 0}


def test_a_damaged_checkpoint_is_set_aside(experiment, here):
    experiment.main(["--seeds", "1"], script="toy")
    run = summary(here)["runs"][0]
    (here / "runs" / f"{run['key']}.npz").unlink()
    (here / "runs" / f"{run['key']}.checkpoint.npz").write_bytes(b"half")
    with pytest.warns(UserWarning, match="checkpoint.npz is damaged"):
        experiment.main(["--seeds", "1"], script="toy")
    assert summary(here)["runs"][0]["final"]["gap"] == run["final"]["gap"]


def test_workers_that_cannot_reach_the_folder_send_their_runs_back(experiment, here, tmp_path, monkeypatch):
    experiment.main([], script="toy")
    before, asked = summary(here)["runs"], tmp_path / "file"
    asked.write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def far_away(jobs, store, settings, *rest):
        store = copy.copy(store)
        store.folder = asked / "runs"
        yield from (engine.execute(job, store, settings, ship=True) for job in jobs)

    monkeypatch.setattr(engine, "collect", far_away)
    experiment.main(["--fresh"], script="toy")
    again = summary(here)["runs"]
    assert len(list((tmp_path / "temporary/npopt/runs").glob("*.npz"))) == 4
    for run in [*before, *again]:
        run["final"]["seconds"] = run["seconds"] = 0
    assert again == before


def test_a_claim_whose_runs_are_missing_is_undecided(experiment, here):
    experiment.main(["--parts", "b"], script="toy")
    claims = {c["id"]: c for c in summary(here)["claims"]}
    assert claims["wild"]["holds"] is True
    assert claims["down"]["holds"] is None and "no finished run of part 'a'" in claims["down"]["note"]
    figure = summary(here)["figures"][0]
    assert figure["reason"].startswith("not drawn: no finished run of part 'a'") and not (here / "gap.png").exists()
    assert "? undecided" in (here / "report.html").read_text()


def test_a_false_claim_is_a_result(experiment, here):
    experiment.main(["--lr", "1e-9", "--seeds", "4"], script="toy")  # returns: status 0
    assert summary(here)["claims"][0]["holds"] is False
    assert "✗ does not hold" in (here / "report.html").read_text()


def test_a_refused_run_is_one_sentence_and_the_others_are_made(experiment, here, capsys):
    def runs(args):
        yield Entry("a", Recipe(sized, size=-1), SGD(), method="bad")
        yield Entry("a", Recipe(quadratic), SGD(), RandomReshuffling(5), method="sgd")

    experiment.runs(runs)
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--seeds", "1"], script="toy")
    assert ended.value.code == 2
    assert "toy: part a, bad, seed 0: quadratic: size must be positive, got -1" in capsys.readouterr().err
    assert [run["name"] for run in summary(here)["runs"]] == ["sgd"]


def test_a_batch_larger_than_the_data_is_one_sentence(experiment, here, capsys):
    experiment.runs(lambda args: [Entry("a", Recipe(quadratic), SGD(), RandomReshuffling(21), method="big")])
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--seeds", "1"], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "part a, big, seed 0" in said and "21" in said and "Traceback" not in said


def test_a_bug_is_a_failed_run_with_its_traceback_and_the_others_are_made(experiment, here, capsys):
    def runs(args):
        for name, function in (("bug", bug), ("leave", leave), ("sgd", quadratic)):
            yield Entry("a", Recipe(function), SGD(), RandomReshuffling(5), method=name)

    experiment.runs(runs)
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--seeds", "2"], script="toy")
    said, facts, page = capsys.readouterr().err, summary(here), (here / "report.html").read_text()
    assert ended.value.code == 1 and [run["name"] for run in facts["runs"]] == ["sgd", "sgd"]
    assert [(t["name"], t["seed"], t["status"]) for t in facts["troubles"]] == [
        (name, seed, "failed") for name in ("bug", "leave") for seed in (0, 1)
    ]
    for words in ("return np.zeros(2) + np.zeros(3)", "could not be broadcast", "SystemExit: good bye"):
        assert said.count(words) == 1 and words in page  # the second seed fails in the same way
    assert "4</b> could not be made" in page and "lab/engine.py" not in said


def test_a_figure_with_a_bug_is_reported_and_the_rest_written(experiment, here, capsys):
    experiment.figure("broken.png")(lambda results: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--seeds", "1"], script="toy")
    assert ended.value.code == 1 and "ZeroDivisionError" in capsys.readouterr().err
    assert [bool(f["reason"]) for f in summary(here)["figures"]] == [False, True]
    assert "✗ broken: broken.png: not drawn, ZeroDivisionError" in (here / "report.html").read_text()


def test_a_claim_with_a_bug_is_broken_as_a_figure_is_and_the_rest_written(experiment, here, capsys):
    experiment.claim("bad", "one over zero")(lambda results: (1 / 0, True))
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--seeds", "1"], script="toy")
    out, err = capsys.readouterr()
    facts, page = summary(here), (here / "report.html").read_text()
    assert ended.value.code == 1 and "claim bad could not be computed" in err and "BROKEN         bad" in out
    assert [(c["holds"], c["broken"]) for c in facts["claims"]] == [(True, False), (True, False), (None, True)]
    assert "✗ broken" in page and "<b>1</b> broken" in page and "undecided</li>" not in page
    assert "not computed, ZeroDivisionError" in page and facts["figures"][0]["reason"] == ""


@pytest.mark.skipif(backend.cores() < 2, reason="one core")
def test_a_small_step_takes_one_thread_and_the_report_says_so(experiment, here, monkeypatch):
    """Work is parameters times rows of a batch: 5 x 10 for one method, 5 x 20 for the other."""

    def runs(args):
        for rows in (10, None):
            yield Entry("a", Recipe(quadratic), SGD(), RandomReshuffling(rows), method=f"rows {rows}")

    experiment.runs(runs)
    monkeypatch.setattr(engine, "SMALL", 75)
    experiment.main(["--seeds", "1", "--threads", "2"], script="toy")
    facts = summary(here)
    assert [facts["entries"][run["entry"]]["config"].get("threads", 2) for run in facts["runs"]] == [1, 2]
    assert "cpu, 1 thread (1 run), 2 threads (1 run), 1 run at a time" in (here / "report.html").read_text()


def test_threads_are_chosen_by_the_work_of_a_step():
    small, large = perceptron("digits", hidden=(32,)), perceptron("digits", hidden=(512, 512))
    assert engine.threads_of(small, RandomReshuffling(64), 4) == engine.threads_of(small, None, 4) == 1
    assert engine.threads_of(large, RandomReshuffling(64), 4) == 4 and engine.threads_of(large, None, 1) == 1
    assert engine.threads_of(large, RandomReshuffling(8), 4) == 1  # 0.3 M parameters, 8 rows
    assert engine.threads_of(lenet("digits"), RandomReshuffling(256), 4) == 4  # filters count once a pixel
    texts = Neural(bert(90, 4, 8, 1, 2, head=2), Labelled(([[1, 2]] * 3, [0, 1, 0]), 4))  # two arrays a row
    assert engine.threads_of(texts, RandomReshuffling(2), 4) == 1
    pairs = verse("couplets", features=8, heads=2, layers=1, rows=20, held=10)  # three arrays a row
    assert engine.threads_of(pairs, RandomReshuffling(2), 4) == 1
    assert engine.threads_of(Batched(lenet("digits"), 64), RandomReshuffling(1), 4) == 1  # no network of its own


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    "name, error, after, what",
    [
        ("os.fsync", FULL, 0, "checkpoint.npz"),
        ("os.fsync", FULL, 1, ".npz"),
        ("os.fsync", FULL, 2, "gap.png"),
        ("tempfile.mkstemp", READ_ONLY, 0, "checkpoint.npz"),
        ("tempfile.mkstemp", READ_ONLY, 3, "runs.csv"),
    ],
)
def test_a_disk_that_takes_no_more_is_one_sentence_and_loses_nothing(
    experiment, here, monkeypatch, capsys, name, error, after, what
):
    """after: so many files are still written, in the order checkpoint, run, figure, table, summary, report, index."""
    experiment.main(["--seeds", "1", "--parts", "a"], script="toy")
    before, calls = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}, []
    module, function = (sys.modules[name.split(".")[0]], name.split(".")[1])
    real = getattr(module, function)

    def limited(*args, **named):
        calls.append(args)
        if len(calls) > after:
            raise error
        return real(*args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(module, function, limited)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            experiment.main(["--seeds", "2", "--parts", "a"], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and f"{what} cannot be written ({error.strerror})" in said
    assert all(path.read_bytes() == text for path, text in before.items() if path.parent.name == "runs")
    assert not list(here.rglob("*.tmp"))
    experiment.main(["--seeds", "2", "--parts", "a"], script="toy")
    assert len(summary(here)["runs"]) == 2


def test_a_folder_that_lets_nothing_go_is_one_sentence(experiment, here, monkeypatch, capsys):
    def refuse(path, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    experiment.main(["--seeds", "1", "--parts", "a"], script="toy")
    before = sorted(here.rglob("*"))
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(pathlib.Path, "unlink", refuse)
        capsys.readouterr()
        experiment.main(["--seeds", "1", "--parts", "a", "--fresh"], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and "cannot be written (Read-only file system)" in said
    assert set(before) <= set(here.rglob("*"))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_lock_that_cannot_be_opened_is_one_sentence(experiment, here, capsys, jobs):
    experiment.main(["--seeds", "1", "--parts", "a", "--threads", "1"], script="toy")
    (key,) = [run["key"] for run in summary(here)["runs"]]
    (here / "runs" / f"{key}.npz").unlink()
    (here / "runs" / f"{key}.lock").mkdir()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--seeds", "1", "--parts", "a", "--threads", "1", "--jobs", jobs], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and f"{key}.lock cannot be written (Is a directory)" in said


def test_a_conclusion_with_a_bug_is_reported_and_the_rest_written(experiment, here, capsys):
    experiment.conclusion(lambda results, claims: claims["unknown"].measured)
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--seeds", "1"], script="toy")
    assert ended.value.code == 1 and "KeyError" in capsys.readouterr().err
    assert summary(here)["conclusion"] == "No conclusion, KeyError: 'unknown'." and (here / "report.html").exists()


def test_redraw_runs_nothing_and_uses_the_arguments_of_the_results(experiment, here, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--redraw"], script="toy")
    assert ended.value.code == 2 and "no stored run" in capsys.readouterr().err
    experiment.main(["--lr", "0.2", "--seeds", "1", "--threads", "1"], script="toy")
    made, before = counted(monkeypatch), summary(here)
    (here / "report.html").unlink()
    for _ in range(2):
        experiment.main(["--redraw"], script="toy")
        assert made == [] and summary(here) == before and (here / "report.html").exists()


def test_equal_entries_of_two_parts_are_made_once(experiment, here, monkeypatch):
    made = counted(monkeypatch)
    problem, sampler = Recipe(quadratic), RandomReshuffling(5)
    experiment.runs(lambda args: [Entry(part, problem, SGD(), sampler, method=f"as {part}") for part in "ab"])
    experiment.main(["--seeds", "1"], script="toy")
    assert len(made) == 1 and [run["name"] for run in summary(here)["runs"]] == ["as a", "as b"]


def test_a_grid_that_asks_for_its_runs_is_called_again_with_them(experiment, here, capsys):
    @experiment.runs
    def runs(args, found=None):
        for lr in finer([0.2, 0.8, 3.2], found, "a", by="gap"):
            yield Entry("a", Recipe(quadratic), SGD(), RandomReshuffling(5), lr, method="sgd", lr=lr)

    experiment.figures.clear()
    experiment.claims.clear()
    experiment.concluding = None
    experiment.main(["--threads", "1", "--out", str(here.parent)], script=here.name)

    def tried():
        return {run["tags"]["lr"] for run in read_summary(here / "summary.json")["runs"]}

    rates = tried()
    assert rates == {0.2, 0.4, 0.8, 1.6, 3.2}
    capsys.readouterr()
    experiment.main(["--threads", "1", "--out", str(here.parent), "--redraw"], script=here.name)
    assert tried() == rates
    experiment.main(["--threads", "1", "--out", str(here.parent), "--quick"], script=here.name)
    assert tried() == {0.2, 0.8, 3.2}


def test_an_entry_may_do_its_work_itself_and_measure_vectors(experiment, here):
    seen = []
    experiment.runs(lambda args: [Entry("a", run=Recipe(vector_columns), method="own")])
    experiment.concluding = None
    experiment.claim("c", "s")(lambda results: (seen.extend(results), True))
    experiment.main([], script="toy")
    assert [run.final for run in seen] == [{"epoch": 2, "value": 1.0}, {"epoch": 2, "value": 2.0}]
    np.testing.assert_array_equal(seen[0].columns["path"], [[0, 0], [1, 1], [np.nan, np.nan]])
    assert (here / "runs.csv").read_text().splitlines()[0] == "part,name,seed,epoch,value"


def test_x_stays_in_the_store_unless_it_is_large_or_unwanted(experiment, here, monkeypatch):
    seen = {}

    @experiment.runs
    def runs(args):
        for scale, keep in ((1.0, True), (1.1, False), (1.2, None)):
            problem = Recipe(quadratic, scale=scale)
            yield Entry("a", problem, SGD(), RandomReshuffling(5), stop=Stop(steps=3), keep=keep, kept=str(keep))

    experiment.claim("c", "s")(lambda results: (seen.update({r.name: r.x is not None for r in results}), True))
    experiment.main(["--seeds", "1"], script="toy")
    assert seen == {"True": True, "False": False, "None": True}
    monkeypatch.setattr(engine, "KEPT", 4)
    experiment.main(["--seeds", "1", "--fresh"], script="toy")
    assert seen == {"True": True, "False": False, "None": False}


WRONG_GRIDS = {
    "must yield Entry objects, it yielded dict": lambda args: [{}],
    "no part 'c'": lambda args: [Entry("c", Recipe(quadratic), SGD(), method="m")],
    "two entries of part 'a' have the same tags: m": lambda args: (
        [Entry("a", Recipe(quadratic), SGD(), method="m")] * 2
    ),
    "nothing to run: parts a, b have no entries with --data bundled": lambda args: [],
}


@pytest.mark.parametrize("sentence", WRONG_GRIDS)
def test_a_wrong_grid_is_one_sentence(experiment, here, capsys, sentence):
    experiment.runs(WRONG_GRIDS[sentence])
    with pytest.raises(SystemExit) as ended:
        experiment.main([], script="toy")
    assert ended.value.code == 2 and sentence in capsys.readouterr().err


def test_an_unknown_data_set_has_a_nearest_match(experiment, here, capsys):
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--data", "diabets"], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "no data set is called 'diabets'; did you mean 'diabetes'?" in said


def test_a_gpu_that_is_not_there_is_one_sentence(experiment, here, capsys):
    if importlib.util.find_spec("cupy"):
        pytest.skip("CuPy is installed here")
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--device", "gpu"], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "requirements-gpu.txt" in said and said.count("\n") == 1


def test_who_asks_for_ray_or_has_no_dask_gets_one_sentence(experiment, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    for name, sentence in (("ray", "Ray is not supported any more"), ("dask", "pip install 'dask[distributed]'")):
        with pytest.raises(SystemExit) as ended:
            experiment.main(["--engine", name], script="toy")
        said = capsys.readouterr().err
        assert ended.value.code == 2 and sentence in said and said.count("\n") == 1


def test_decorators_refuse_what_cannot_work(experiment):
    with pytest.raises(ValueError, match="two claims are called 'down'"):
        experiment.claim("down", "again")(lambda results: (1, True))
    with pytest.raises(ValueError, match="something.png or something.gif"):
        experiment.figure("../gap.png")
    with pytest.raises(ValueError, match="something.png or something.gif"):
        experiment.figure("gap.pdf")


def test_a_figure_shows_the_median_the_band_and_how_many_diverged(experiment, here):
    drawn = {}

    @experiment.figure("more.png")
    def more(results):
        figure, (left, right) = panels(1, 2)
        curves(left, results, y="gap", logy=True)
        for run in results:
            run.tags["lr"] = {"a": 0.1, "b": 10.0}[run.part]
        sweep(right, results, "lr", y="gap")
        drawn["legend"] = [t.get_text() for t in left.get_legend().get_texts()]
        drawn["title"] = left.get_legend().get_title().get_text()
        drawn["line"] = left.lines[0].get_ydata()
        drawn["bands"] = len(left.collections)
        drawn["note"] = [t.get_text() for t in right.texts]
        drawn["finals"] = results.select("a").stack("gap")[1]
        return figure

    experiment.main(["--seeds", "3"], script="toy")
    assert drawn["legend"] == ["sgd", "wild (3 of 3 diverged)"]
    assert drawn["title"] == "median, band: min to max of 3 seeds"
    np.testing.assert_allclose(drawn["line"], np.median(drawn["finals"], axis=0), rtol=1e-15)
    assert drawn["bands"] == 2 and drawn["note"] == ["3/3 diverged"]


def test_an_animation_is_saved_as_a_gif(tmp_path):
    def frames():
        for k in range(3):
            figure, ax = panels()
            ax.plot([0, k], [0, 1])
            yield figure

    save(frames(), tmp_path / "a.gif")
    figure, ax = panels()
    (line,) = ax.plot([0, 1], [0, 1])
    save(FuncAnimation(figure, lambda k: line.set_ydata([0, k]), frames=4), tmp_path / "b.gif")
    assert [Image.open(tmp_path / name).n_frames for name in ("a.gif", "b.gif")] == [3, 4]
    with pytest.raises(ValueError, match="at least one frame"):
        animate([])


def test_pictures_keep_the_light_greys_of_a_map_and_the_colours_of_lines(tmp_path):
    greys = [247, 240, 232, 158]

    def frames():
        for k in (1, 2):
            figure, ax = panels()
            shades = [(v / 255,) * 3 for v in greys]
            ax.contourf(np.tile(np.arange(5.0), (5, 1)), levels=[0, 1, 2, 3, 4], colors=shades)
            ax.plot([0, k], [0, 4], lw=3, color=COLOURS[0])
            ax.set_axis_off()
            yield figure

    save(frames(), tmp_path / "map.gif")
    save(next(iter(frames())), tmp_path / "map.png")
    for name in ("map.gif", "map.png"):
        picture = Image.open(tmp_path / name)
        picture.seek(picture.n_frames - 1) if name.endswith("gif") else None
        seen = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
        assert {(255,) * 3, *((v,) * 3 for v in greys), ImageColor.getrgb(COLOURS[0])} <= seen
