"""Keys: every ingredient counts, part and tags do not; what an entry may be given."""

from types import SimpleNamespace

from lab import Entry, Experiment, Part, Recipe
from lab import data as data_room
from lab.options import lasting, merged, parse, seeds
from npopt import SGD, Constant, HeavyBall, Minibatch, RandomReshuffling, Stop, WithReplacement
from npopt.errors import UserError

import numpy as np
import pytest


def build(data=None, l2=0.0):
    raise AssertionError("a key must not build the problem")


def entry(**changes):
    given = dict(
        part="a", method="m", problem=Recipe(build, data="set", l2=0.1), optimizer=HeavyBall(0.9),
        sampler=RandomReshuffling(4), schedule=0.1, estimator=Minibatch(), vary={"beta": Constant(0.5)},
        stop=Stop(epochs=3), metrics=1, per="epoch",
    )  # fmt: skip
    return Entry(**given | changes)


def key(monkeypatch, entry, words=(), sha="1"):
    monkeypatch.setattr(data_room, "facts", lambda name: {"name": name, "sha256": f"{name}{sha}", "rows": 1})
    experiment = Experiment("?", seeds=1, parts={"a": "x", "b": "y"})
    experiment.runs(lambda args: [entry])
    (found,), _ = experiment.jobs(parse(experiment, "s", ["--threads", "1", *words]))
    return found[1].key


CHANGES = {
    "optimizer": dict(optimizer=HeavyBall(0.8)),
    "another optimizer": dict(optimizer=SGD()),
    "sampler": dict(sampler=WithReplacement(4)),
    "batch size": dict(sampler=RandomReshuffling(5)),
    "schedule": dict(schedule=0.1 + 1e-16 * 2),
    "estimator": dict(estimator=None),
    "vary": dict(vary={"beta": Constant(0.6)}),
    "stop": dict(stop=Stop(epochs=4)),
    "metrics": dict(metrics=2),
    "per": dict(per="step"),
    "problem's argument": dict(problem=Recipe(build, data="set", l2=0.2)),
    "name of the data": dict(problem=Recipe(build, data="set2", l2=0.1)),
    "another problem": dict(problem=Recipe(dict, data="set", l2=0.1)),
    "seed": dict(seeds=[1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_key_changes_with_the_entry(monkeypatch, change):
    assert key(monkeypatch, entry(**CHANGES[change])) != key(monkeypatch, entry())


@pytest.mark.parametrize("words", [["--threads", "2"], ["--kernels", "reference"], ["--device", "gpu"]])
def test_key_changes_with_the_settings(monkeypatch, words):
    assert key(monkeypatch, entry(), words) != key(monkeypatch, entry())


def test_key_changes_with_the_data_and_with_the_mark_of_the_library(monkeypatch):
    before = key(monkeypatch, entry())
    assert key(monkeypatch, entry(), sha="2") != before
    monkeypatch.setattr("lab.experiment.RESULTS", -1)
    assert key(monkeypatch, entry()) != before


def test_key_does_not_change_with_part_tags_jobs_or_places(monkeypatch, tmp_path):
    before = key(monkeypatch, entry())
    assert key(monkeypatch, entry(part="b", method="other", lr=0.3, keep=True)) == before
    assert key(monkeypatch, entry(), ["--jobs", "2", "--out", str(tmp_path), "--seeds", "0,", "--quick"]) == before
    assert before == key(monkeypatch, entry())


def test_epochs_fill_in_a_missing_stop(monkeypatch):
    none = entry(stop=None)
    assert key(monkeypatch, none, ["--epochs", "3"]) == key(monkeypatch, entry())
    assert key(monkeypatch, none, ["--epochs", "2"]) == key(monkeypatch, entry(stop=Stop(epochs=2)))


def test_a_recipe_prints_as_its_call_and_is_built_anew_each_time():
    recipe = Recipe(SimpleNamespace, data="set", l2=0.1)
    assert repr(recipe) == "types.SimpleNamespace(data='set', l2=0.1)"
    again = Recipe(SimpleNamespace, data="set", l2=0.1)
    assert recipe == again and hash(recipe) == hash(again) and recipe != Recipe(SimpleNamespace, data="set", l2=0.2)
    assert recipe() is not recipe() and recipe().l2 == 0.1
    assert recipe.data == "set" and Recipe(dict).data is None


def test_an_entry_needs_a_problem_and_a_method():
    with pytest.raises(UserError, match="entry a/m: give problem=Recipe"):
        Entry("a", optimizer=SGD(), method="m")
    with pytest.raises(UserError, match="entry a/m: give problem=Recipe"):
        Entry("a", problem=build, optimizer=SGD(), method="m")
    with pytest.raises(UserError, match="must be a function"):
        Recipe("build")


def test_tags_are_plain_and_no_misspelt_arguments():
    made = entry(lr=np.float64(0.01), guard=False, batch_size=16, data="a9a")
    assert made.tags == {"method": "m", "lr": 0.01, "guard": False, "batch_size": 16, "data": "a9a"}
    assert type(made.tags["lr"]) is float and made.name == "m, lr 0.01, no guard, batch size 16, a9a"
    assert entry(lr=1 / 900).name == "m, lr 0.00111"
    with pytest.raises(UserError, match="the tag lr must be a text, a number or a truth value, got list"):
        entry(lr=[1])
    for wrong, right in (("optimiser", "optimizer"), ("metric", "metrics"), ("seed", "seed"), ("name", "name")):
        with pytest.raises(UserError, match=f"{wrong!r} is no argument; did you mean {right!r}"):
            entry(**{wrong: 1})


def arguments(words, **parts):
    return parse(Experiment("?", parts=parts or {"a": "x"}), "s", words)


def test_data_of_a_part():
    parts = {"a": Part("convex", "diabetes", ["abalone", "housing"]), "b": Part("nets", "digits", "mnist"), "c": "toy"}
    table = {
        "bundled": (["diabetes"], ["digits"], []),
        "real": (["abalone", "housing"], ["mnist"], []),
        "housing": (["housing"], [], []),
        "mnist": ([], ["mnist"], []),
        "a9a": (["a9a"], ["a9a"], ["a9a"]),  # in no part's list: the user's own choice
    }
    for data, wanted in table.items():
        args = arguments(["--data", data], **parts)
        assert tuple(args.data_of(part) for part in parts) == wanted


def test_budget_and_pick():
    assert arguments([]).budget(20, quick=3) == 20 and arguments(["--quick"]).budget(20, quick=3) == 3
    assert arguments(["--quick", "--epochs", "0.5"]).budget(20, quick=3) == 0.5
    assert arguments(["--quick"]).pick("all", "few") == "few"


def test_seeds_are_a_count_or_a_list():
    assert seeds("3") == [0, 1, 2] and seeds("0,3,7") == [0, 3, 7] and seeds("7,") == [7]


BAD = {
    "--seeds 0": "seeds must be a count of at least 1",
    "--seeds 1,1": "different whole numbers",
    "--seeds many": "got 'many'",
    "--jobs 0": "jobs must be a whole number of at least 1, got '0'",
    "--threads 1.5": "threads must be a whole number",
    "--epochs -1": "epochs must be a positive number",
    "--epochs nan": "epochs must be a positive number",
    "--parts b": "no part is called 'b'",
    "--parts ,": "--parts names no part",
    "--engine slurm": "the engines are local, dask and mpi, got 'slurm'",
    "--unknown": "unrecognized arguments",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_arguments_are_one_sentence_and_status_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        arguments(words.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2 and BAD[words] in said and said.count("\n") == 1


def test_the_kept_words_name_no_place():
    words = ["--quick", "--out", "/somewhere", "--address=host:1", "--beta", "0.5", "--redraw", "--fresh", "--out=x"]
    assert lasting(words) == ["--quick", "--beta", "0.5"]


def test_words_said_again_replace_those_said_before():
    words = ["--data", "real", "--quick", "--jobs=2", "--data", "mnist", "--quick", "--jobs", "3"]
    assert merged(words) == ["--data", "mnist", "--quick", "--jobs", "3"]
