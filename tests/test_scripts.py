"""Scripts as modules: their help, and their problems on a device whose arrays nobody may read."""

import importlib.util
import pathlib
import sys
from importlib.metadata import packages_distributions
from types import SimpleNamespace

from npopt import SGD, Events, RandomReshuffling, Stop, backend, minimize
from problems import convex

import numpy as np
import pytest
import scipy.sparse

THREADS = 1  # layers of a few numbers: tests/conftest.py
OPTIONAL = ("dask", "distributed", "cupy", "cupyx", "mpi4py", "gudhi", "pywt", "torch", "celer")
SCRIPTS = sorted((pathlib.Path(__file__).parents[1] / "scripts").glob("[!_]*.py"))


def module(path):
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    found = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_help_says_the_question_and_the_parts(path, capsys):
    script = module(path)
    with pytest.raises(SystemExit) as ended:
        script.experiment.main(["--help"], script=path.stem)
    said = capsys.readouterr().out
    assert ended.value.code == 0 and script.__doc__.splitlines()[0] in said
    parts = script.experiment.parts
    assert len(parts) == 1 or all(part.title in said for part in parts.values())


def test_no_script_hides_a_module_that_python_or_a_library_has():
    """`python scripts/NAME.py` puts scripts/ first where modules are looked for: scripts/distributed.py hid Dask's."""
    libraries = {name for names in (packages_distributions(), OPTIONAL) for name in names}
    assert {"numpy", "distributed"} <= libraries and "random" in sys.stdlib_module_names
    ours = {path.stem for path in SCRIPTS[0].parent.iterdir()}
    assert not ours & (libraries | set(sys.stdlib_module_names))


@pytest.mark.parametrize(
    "build, arguments, column",
    [
        ("regression", dict(data="diabetes"), "gap"),
        ("regression", dict(data="diabetes", at_minimum=True, logs=("distance",)), "distance"),
        ("lenet", dict(data="digits", rows=40), "test_loss"),
        ("resnet", dict(data="digits", width=2, rows=40), "test_loss"),
    ],
    ids=lambda v: str(v),
)
def test_the_problems_of_momentum_vs_sgd_run_where_nothing_may_be_read(build, arguments, column, device):
    script = module(SCRIPTS[[p.stem for p in SCRIPTS].index("momentum_vs_sgd")])
    found = []
    for name in (device, "cpu"):
        backend.use(name)
        problem = getattr(script, build)(**arguments)
        found.append(
            minimize(
                problem,
                script.HeavyBall(0.9),
                script.RandomReshuffling(16),
                1e-3,
                stop=Stop(steps=2),
                events=Events(metrics=1, per="step"),
            )
        )
    # the two paths add in different orders: float64 for the regression, float32 for the networks
    np.testing.assert_allclose(found[0].columns[column], found[1].columns[column], rtol=2e-3, atol=1e-12)


def named(stem):
    return module(next(path for path in SCRIPTS if path.stem == stem))


@pytest.mark.parametrize(
    "stem, build, arguments, columns",
    [
        ("adaptive", "Moons", {}, ("gap", "x", "y")),
        ("adaptive", "held_out", dict(data="breast_cancer"), ("objective", "validation_accuracy")),
        (
            "mlp_report",
            "watched",
            dict(data="digits", init=None, looks=(1,), rows=300),
            ("norm", "norm_fc1", "cosine", "signal", "zeros", "test_loss"),
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_problems_that_scripts_build_themselves_run_where_nothing_may_be_read(stem, build, arguments, columns, device):
    script, found = named(stem), []
    for name in (device, "cpu"):
        backend.use(name)
        found.append(
            minimize(
                getattr(script, build)(**arguments),
                SGD(),
                RandomReshuffling(16),
                1e-2,
                stop=Stop(steps=2),
                events=Events(metrics=1, per="step"),
            )
        )
    for column in columns:
        np.testing.assert_allclose(found[0].columns[column], found[1].columns[column], rtol=2e-3, atol=1e-6)


def test_functions_that_measure_where_a_run_ends_read_nothing_on_the_device(device):
    script, found = named("optimizer_zoo"), []
    for name in (device, "cpu"):
        backend.use(name)
        given = dict(data="digits", rows=300, method="HeavyBall", lr=0.03, epochs=2, batch=128, held=1 / 6)
        found.append(script.sharpness(0, Events(None), shifts=(0.01, 0.05), **given))
    for column in ("rise", "train", "high"):
        np.testing.assert_allclose(found[0][column], found[1][column], rtol=5e-3)


def test_part_a_takes_sparse_sets(monkeypatch):
    script = module(SCRIPTS[[p.stem for p in SCRIPTS].index("momentum_vs_sgd")])
    rng = np.random.default_rng(0)
    x = scipy.sparse.random(60, 30, 0.1, "csr", random_state=rng)
    some = SimpleNamespace(x_train=x[:40], x_test=x[40:], y_train=rng.random(40), y_test=rng.random(20))
    monkeypatch.setattr(convex, "shared", lambda name: some)
    problem = script.regression("any")
    assert problem.n == 60 and minimize(problem, script.SGD(), schedule=0.01, stop=Stop(steps=3)).final["gap"] > 0
