"""Every script on a device whose arrays nobody may read: its recipes step by step, and as a command from end to end."""

import importlib
import importlib.util
import json
import pathlib
import pkgutil
import sys
import warnings

import lab
import npopt
import problems
from lab import engine
from lab.options import parse
from npopt import Events, Stop, backend, minimize
from npopt.backend import devices
from problems import adapted, encoders, kept, reading

import pytest
import strict

SCRIPTS = sorted((pathlib.Path(__file__).parents[1] / "scripts").glob("[!_]*.py"))
SLOW = (
    "mlp_batches",
    "adam8bit",
    "adam_text",
    "adam_variants",
    "variance_networks",
    "resnet18",
    "mlp_report",
)  # more than five seconds each
LONG = {"sharpness"}  # recipes that train for long; the slow test has them
loop = importlib.import_module("npopt.minimize")  # `npopt.minimize` is the function
for room in (
    lab,
    problems,
):  # whatever trains in them holds the real loop, before a test puts a shorter one in its place
    for found in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
        importlib.import_module(found.name)


BEGINNINGS = (encoders.learned, reading.trained, adapted.learned)  # what networks begin with: trained once, then cached


@pytest.fixture
def short_beginnings(tmp_path, monkeypatch):
    """Networks that other runs begin with are trained for two steps, and kept neither here nor in the user's cache."""
    made = []

    def shortened(*arguments, stop, events, **named):
        made.append(Events(1, "step", checkpoint=events.checkpoint and tmp_path / f"{len(made)}.npz"))
        return loop.minimize(*arguments, stop=Stop(steps=2), events=made[-1], **named)

    for room in (kept, adapted):
        monkeypatch.setattr(room, "minimize", shortened)
    for function in BEGINNINGS:
        function.cache_clear()
    yield
    for function in BEGINNINGS:
        function.cache_clear()


def experiment_of(path):
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found.experiment


def entries(experiment, script):
    """One entry of the quick grid for each pair of a recipe and a method."""
    args, found = parse(experiment, script, ["--quick", "--seeds", "1"]), {}
    for entry in experiment.grid(args):
        kind = (entry.recipe.function, type(entry.optimizer), type(entry.estimator), type(entry.sampler))
        found.setdefault(kind, entry)
    return [entry for entry in found.values() if entry.recipe.function.__name__ not in LONG]


def columns(entry):
    """The columns of an entry after two steps, or those that its function returns."""
    if entry.run is not None:
        found = entry.run(seed=0, events=Events(entry.metrics, entry.per))
        return found if isinstance(found, dict) else found.columns
    given = {name: getattr(entry, name) for name in ("sampler", "schedule", "estimator", "vary")}
    events = Events(1, "step", variance=entry.variance)
    return minimize(entry.problem(), entry.optimizer, **given, stop=Stop(steps=2), events=events).columns


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow) if path.stem in SLOW else path for path in SCRIPTS],
    ids=lambda path: path.stem,
)
def test_recipes_run_where_nothing_may_be_read(path, short_beginnings):
    experiment = experiment_of(path)
    backend.use("strict")
    backend.threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for entry in entries(experiment, path.stem):
            found = columns(entry)
            assert found, entry.name
            for name, values in found.items():
                assert engine.as_array(values).dtype.kind in "biuf", f"{entry.name}: {name}"  # it is on the host


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_commands_run_where_nothing_may_be_read(path, tmp_path, monkeypatch, capsys):
    """`--quick --device gpu` on the stand-in, each run stopped after three steps: the grid, claims, figures and report.

    Figures may find too few rows in such runs, and say so; nothing may be refused.
    """
    real = loop.minimize

    def shortened(problem, optimizer, *arguments, stop=None, **named):
        return real(problem, optimizer, *arguments, stop=Stop(steps=3), **named)

    monkeypatch.setattr(loop, "minimize", shortened)  # the lab's, and below that of the script
    monkeypatch.setattr(npopt, "minimize", shortened)
    monkeypatch.setitem(backend.DEVICES, "gpu", strict.Strict)
    monkeypatch.setitem(devices._made, "gpu", devices._make("strict"))
    words = ["--quick", "--seeds", "1", "--threads", "1", "--device", "gpu", "--out", str(tmp_path)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            experiment_of(path).main(words, script=path.stem)
        except SystemExit as ended:
            assert ended.code == 1
    facts = json.loads((tmp_path / path.stem / "summary.json").read_text())
    assert "Refused" not in capsys.readouterr().err and facts["device"] == "gpu"
    assert all("Refused" not in (claim["note"] or "") for claim in facts["claims"])
