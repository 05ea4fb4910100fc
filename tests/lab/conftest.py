"""A small script, as a user would write one, and ways to run it in its own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TOY = '''"""Does the toy descend?   On a noisy quadratic it must.

    x <- x - lr g
"""
import os

import numpy as np

from npopt import SGD, HeavyBall, Stop, WithReplacement
from lab import Entry, Experiment, Option, Recipe, spread
from lab.figures import curves, panels
from problems.quadratic import Quadratic

SIZE = 12
experiment = Experiment(
    __doc__, task="T1", source="algebra", parts={"a": "two methods"}, seeds=2, seconds=0.0,
    options=[Option("--steps", type=int, default=60, help="of a run"), Option("--log", help="file of who built what")],
)


def quadratic(noise):
    if "TOY_LOG" in os.environ:  # no argument: what an argument names is read, for the key
        with open(os.environ["TOY_LOG"], "a") as file:
            file.write(f"{os.getpid()}\\n")
    return Quadratic(np.linspace(0.1, 1, SIZE), n=50, noise=noise)


@experiment.runs
def runs(args):
    problem = Recipe(quadratic, noise=0.5)
    os.environ.update({"TOY_LOG": args.log} if args.log else {})
    for name, method in [("sgd", SGD()), ("momentum", HeavyBall(0.9))]:
        yield Entry("a", problem, method, WithReplacement(2), 0.01, method=name, stop=Stop(steps=args.steps),
                    metrics=max(20, args.steps // 40), per="step")


@experiment.claim("descends", "the gap shrinks", expected="below the start")
def descends(results):
    first = np.array([run.columns["gap"][0] for run in results.select(method="sgd")])
    last = results.select(method="sgd").final("gap")
    return spread(last), bool((last < first).all())


@experiment.figure("gap.png", caption="The gap <over> steps.")
def gap(results):
    figure, ax = panels(size=(4, 3))
    curves(ax, results, y="gap", x="step", logy=True)
    return figure


@experiment.conclusion
def conclusion(results, claims):
    return f"It descends: {claims['descends'].holds}."


if __name__ == "__main__":
    experiment.main()
'''


@pytest.fixture
def toy(tmp_path):
    """The toy script as a file in an empty folder."""
    path = tmp_path / "toy.py"
    path.write_text(TOY)
    return path


@pytest.fixture
def start():
    """start(path, *words): a process that runs the script in its folder. What still runs at the end is killed."""
    processes = []

    def begin(path, *words):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
        processes.append(
            subprocess.Popen(
                [sys.executable, str(path), *map(str, words)],
                cwd=path.parent,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def finish(start):
    """finish(path, *words): run to the end; the CompletedProcess, whose status must be the one given."""

    def complete(path, *words, status=0):
        process = start(path, *words)
        out, err = process.communicate(timeout=120)
        assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return complete
