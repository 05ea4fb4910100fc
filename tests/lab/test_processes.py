"""Scripts in processes of their own: killed, interrupted, twice at once, on workers and on a cluster."""

import json
import os
import signal
import time

from lab.store import Store
from npopt import HeavyBall, Stop, WithReplacement, backend, checkpoint, minimize
from problems.quadratic import Quadratic

import numpy as np
import pytest

LONG = 12_000  # steps: about a second a run


def summary(folder):
    return json.loads((folder / "results/toy/summary.json").read_text())


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def reference(steps, seed):
    """The final x of the toy's momentum run, without a break and without the lab."""
    backend.threads(1)
    problem = Quadratic(np.linspace(0.1, 1, 12), n=50, noise=0.5)
    return minimize(problem, HeavyBall(0.9), WithReplacement(2), 0.01, stop=Stop(steps=steps), seed=seed).x


def momentum(folder):
    """The stored momentum run, seed 0."""
    (run,) = [run for run in summary(folder)["runs"] if run["name"] == "momentum" and run["seed"] == 0]
    return Store(folder / "results/toy/runs").load(run["key"])


def test_a_script_killed_and_interrupted_ends_bit_for_bit_where_it_would_have(toy, start, finish):
    """SIGKILL in the middle of the second run, then Ctrl-C in what is left of it, then to the end."""
    runs, words = toy.parent / "results/toy/runs", ("--threads", 1, "--seeds", 1, "--steps", LONG)
    words += ("--log", toy.parent / "log")
    finished, unfinished = [], []

    def in_the_second_run():
        finished[:] = [p for p in runs.glob("*.npz") if "checkpoint" not in p.name]
        done = [p.name for p in finished]
        unfinished[:] = [p for p in runs.glob("*.checkpoint.npz") if p.name.replace(".checkpoint", "") not in done]
        return finished and unfinished

    process = start(toy, *words)
    wait_for(in_the_second_run)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    killed = checkpoint.load(unfinished[0])["t"]
    first, made = finished[0], finished[0].stat().st_mtime_ns

    process = start(toy, *words)
    wait_for(lambda: checkpoint.load(unfinished[0])["t"] > killed)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "toy: interrupted" in err and "Traceback" not in err
    assert 0 < killed < checkpoint.load(unfinished[0])["t"] < LONG and "1 stored, 1 to make" in out

    finish(toy, *words)
    assert first.stat().st_mtime_ns == made  # the finished run was not made again
    assert len((toy.parent / "log").read_text().split()) == 4  # two runs, one of them in three pieces
    assert not list(runs.glob("*.checkpoint.npz")) and not list(runs.glob("*.lock"))
    np.testing.assert_array_equal(momentum(toy.parent)["x"], reference(LONG, seed=0))


@pytest.mark.slow
def test_two_processes_on_one_folder_share_the_runs(toy, start):
    words = ("--threads", 1, "--seeds", 3, "--steps", 4_000, "--log", toy.parent / "log")
    processes = [start(toy, *words) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "6 runs" in out
    assert len((toy.parent / "log").read_text().split()) == 6  # each run was made once
    assert len(summary(toy.parent)["runs"]) == 6
    left = [p.name for p in (toy.parent / "results/toy/runs").iterdir()]
    assert len(left) == 6 and not [name for name in left if "checkpoint" in name or not name.endswith(".npz")]


def numbers(folder):
    """Final numbers of all runs, but for the time they took."""
    return [(r["name"], r["seed"], r["final"] | {"seconds": 0}) for r in summary(folder)["runs"]]


@pytest.mark.slow
def test_jobs_run_functions_of_the_script_in_other_processes_with_the_same_numbers(toy, start, finish):
    words = ("--threads", 1, "--seeds", 2, "--log", toy.parent / "log")
    finish(toy, *words, "--jobs", 1)
    alone = numbers(toy.parent)
    (here,) = set((toy.parent / "log").read_text().split())
    (toy.parent / "log").unlink()
    out = finish(toy, *words, "--jobs", 2, "--fresh").stdout
    assert "4 to make" in out and numbers(toy.parent) == alone
    assert len((toy.parent / "log").read_text().split()) == 4 and here not in (toy.parent / "log").read_text()
    assert summary(toy.parent)["arguments"]["jobs"] == 2


@pytest.mark.slow
def test_a_grid_on_a_dask_cluster_gives_the_same_numbers(toy, finish):
    """A real scheduler with two worker processes, which were there before the script and know nothing of it."""
    dask = pytest.importorskip("distributed", reason="Dask is optional: pip install 'dask[distributed]'")
    words = ("--threads", 1, "--seeds", 2)
    finish(toy, *words)
    alone, before = numbers(toy.parent), time.time_ns()
    with dask.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        out = finish(toy, *words, "--engine", "dask", "--address", cluster.scheduler_address, "--fresh").stdout
    assert "4 to make" in out and numbers(toy.parent) == alone
    files = list((toy.parent / "results/toy/runs").glob("*.npz"))
    assert len(files) == 4 and all(f.stat().st_mtime_ns > before for f in files)


@pytest.mark.slow
def test_dask_without_an_address_starts_its_own_cluster(toy, finish):
    pytest.importorskip("distributed", reason="Dask is optional: pip install 'dask[distributed]'")
    out = finish(toy, "--threads", 1, "--seeds", 2, "--engine", "dask", "--jobs", 2).stdout
    assert "4 to make" in out and len(summary(toy.parent)["runs"]) == 4


@pytest.mark.slow
def test_an_address_where_no_cluster_listens_is_one_sentence(toy, finish):
    pytest.importorskip("distributed", reason="Dask is optional: pip install 'dask[distributed]'")
    said = finish(toy, "--engine", "dask", "--address", "tcp://127.0.0.1:9", status=2).stderr
    assert "no Dask scheduler answers there" in said and "Traceback" not in said


OWN = '''"""An idea of one's own. Beside SGD."""

from npopt import SGD, RandomReshuffling, Stop
from npopt.backend import elementwise
from lab import Entry, Experiment, Part, Recipe
from npopt.optimizers.base import Optimizer
from problems.quadratic import Quadratic

experiment = Experiment(__doc__, task="own", source="-", parts={"a": Part("a quadratic")}, seeds=2)


@elementwise
def half(x, g, lr):
    x = x - 0.5 * lr * g
    return x


class Half(Optimizer):
    def update(self, x, g, lr):
        half(x, g, lr)


@experiment.runs
def runs(args):
    for name, optimizer, lr in (("sgd", SGD(), 0.1), ("half", Half(), 0.2)):
        yield Entry("a", Recipe(Quadratic, A=[1.0, 2.0], b=[1.0, 1.0]), optimizer, RandomReshuffling(1), lr,
                    stop=Stop(steps=5), method=name)


@experiment.claim("same", "half of twice is once", expected="the same x")
def same(results):
    one, two = (results.select("a", method=name).final("gap") for name in ("sgd", "half"))
    return str(one - two), bool((one == two).all())


if __name__ == "__main__":
    experiment.main()
'''


@pytest.mark.slow
def test_a_formula_of_the_script_goes_to_other_processes_and_back(tmp_path, finish):
    (tmp_path / "toy.py").write_text(OWN)
    finish(tmp_path / "toy.py", "--jobs", 2, "--threads", 1)
    (claim,) = summary(tmp_path)["claims"]
    assert claim["holds"] is True, claim


LOSES = """
import os, signal
from npopt import SGD, Stop
from lab import Entry, Experiment, Part, Recipe
from problems.quadratic import Quadratic

experiment = Experiment("A signal comes where Python drops what is raised.", task="-", parts={"a": Part("a")})

class Loan:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(100))  # here KeyboardInterrupt is raised, and dropped

def bowl():
    Loan()
    return Quadratic([1.0, 2.0])

@experiment.runs
def runs(args):
    yield Entry("a", Recipe(bowl), SGD(), schedule=0.1, method="SGD", stop=Stop(steps=10_000_000))

if __name__ == "__main__":
    experiment.main()
"""


def test_a_signal_that_python_dropped_is_heard_before_the_run_begins(tmp_path, start):
    (tmp_path / "toy.py").write_text(LOSES)
    process = start(tmp_path / "toy.py", "--threads", 1, "--seeds", 1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "toy: interrupted; all is kept" in err
    assert "Exception ignored in" in err  # so it was dropped, indeed
