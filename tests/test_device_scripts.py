"""Every script on a device whose arrays nobody may read: its recipes step by step, and as a command from end to end."""

import importlib.util
import pathlib
import sys
import warnings

from lab.options import parse
from npopt import Events, Stop, backend, minimize

import pytest

SCRIPTS = sorted((pathlib.Path(__file__).parents[1] / "scripts").glob("[!_]*.py"))
LONG = {"sharpness", "maps", "growth"}                          # recipes that train for long; the slow test has them


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


def ends(entry):
    """The last row of an entry after two steps, or of what its function returns."""
    if entry.run is not None:
        found = entry.run(seed=0, events=Events(entry.metrics, entry.per))
        columns = found if isinstance(found, dict) else found.columns
        return {name: values[-1] for name, values in columns.items()}
    given = {name: getattr(entry, name) for name in ("sampler", "schedule", "estimator", "vary")}
    events = Events(1, "step", variance=entry.variance)
    return minimize(entry.problem(), entry.optimizer, **given, stop=Stop(steps=2), events=events).final


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_recipes_run_where_nothing_may_be_read(path):
    experiment = experiment_of(path)
    backend.use("strict")
    backend.threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for entry in entries(experiment, path.stem):
            assert ends(entry), entry.name
