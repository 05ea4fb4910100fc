"""The lab on ranks of MPI: the columns of the simulation, one sentence for what is wrong, and resumption after a kill.

The wires of one rank alone stand for MPI where only sentences are looked at.
"""

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lab import Entry, Experiment, Recipe, options, ranks
from npopt.distributed.wire import RUN
from npopt.optional import Absent
from problems.datasets import shared

import numpy as np
import pytest
import rank_script

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
COUNTED = ("round", "bytes", "messages", "busiest", "first")


class Alone:
    """The wires of a rank that hears what it is told to hear."""

    def __init__(self, rank, size, heard=()):
        self.rank, self.size, self.heard, self.posted, self.aborted = rank, size, list(heard), [], False

    def post(self, to, tag, data):
        self.posted.append((to, tag, data.tobytes()))

    def take(self, source, tag):
        return self.heard.pop(0)

    def finish(self):
        pass

    def abort(self):
        self.aborted = True


def refused(monkeypatch, capsys, wires, *words, experiment=rank_script.experiment):
    """What rank 0 says, with status 2, as one line."""
    monkeypatch.setattr(ranks, "MPIWires", lambda: wires)
    with pytest.raises(SystemExit) as ended:
        experiment.main(["--engine", "mpi", *words], script="toy")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    return said


def test_one_sentence_says_what_is_wrong(monkeypatch, capsys, tmp_path):
    other, out = Experiment("Is it?"), ("--out", str(tmp_path))
    other.runs(lambda args: ())
    assert "no runs for ranks of MPI" in refused(monkeypatch, capsys, Alone(0, 3), *out, experiment=other)
    assert "one rank is too few; start it as: mpiexec -n 4" in refused(monkeypatch, capsys, Alone(0, 1), *out)
    assert "--ranks 5: mpiexec started 3" in refused(monkeypatch, capsys, Alone(0, 3), *out, "--ranks", "5")
    assert "all ranks make one run at a time" in refused(monkeypatch, capsys, Alone(0, 3), *out, "--jobs", "2")
    wires = Alone(0, 3)
    assert "no part is called 'z'" in refused(monkeypatch, capsys, wires, *out, "--parts", "z")
    assert wires.posted == [(1, RUN, b""), (2, RUN, b"")] and not wires.aborted  # the others end, too


def test_without_mpi4py_rank_0_says_so(monkeypatch, capsys):
    def absent():
        raise Absent("the engine mpi needs mpi4py, which is not installed: pip install mpi4py")

    monkeypatch.setattr(ranks, "MPIWires", absent)
    for rank, lines in (("0", 1), ("2", 0)):
        monkeypatch.setenv("PMI_RANK", rank)
        with pytest.raises(SystemExit) as ended:
            rank_script.experiment.main(["--engine=mpi"], script="toy")
        said = capsys.readouterr().err
        assert ended.value.code == 2 and said.count("\n") == lines and (not lines or "pip install mpi4py" in said)


def test_an_entry_that_is_not_for_ranks_is_refused(monkeypatch, capsys, tmp_path):
    experiment = Experiment("Is it?", options=[ranks.RANKS])
    experiment.runs(lambda args: [Entry("a", run=Recipe(shared), method="other")])
    said = refused(monkeypatch, capsys, Alone(0, 3), "--out", str(tmp_path), experiment=experiment)
    assert "part a, other is not for ranks; --parts leaves it out" in said


def test_a_rank_that_knows_no_such_run_ends_all(monkeypatch, capsys):
    wires = Alone(2, 3, [np.frombuffer(b"0" * 32, np.uint8)])
    monkeypatch.setattr(ranks, "MPIWires", lambda: wires)
    monkeypatch.setattr(ranks, "PAUSE", 0)
    with pytest.raises(SystemExit):
        rank_script.experiment.main(["--engine", "mpi"], script="toy")
    said = capsys.readouterr()
    assert wires.aborted and not said.out
    assert said.err == "npopt: rank 2: toy: rank 0 makes a run that this rank does not know; give all one command\n"


def test_runs_of_ranks_have_keys_of_their_own():
    """Their seconds are others than simulated ones; and a redraw asks for no MPI."""
    experiment = rank_script.experiment
    found = []
    for words in (["--ranks", "3"], ["--ranks", "3", "--engine", "mpi", "--threads", "1"]):
        args = options.parse(experiment, "toy", [*words, "--threads", "1"])
        found.append({job.key for _, job in experiment.jobs(args)[0]})
    assert len(found[0]) == len(found[1]) == 6 and not found[0] & found[1]
    with ranks.joined(experiment, "toy", ["--engine", "mpi", "--redraw"]) as own:
        assert own is None


# --------------------------------------------------------------------------------------------------------- real ranks
def npopt(*words, count=None, **variables):
    """`npopt run rank_script.py ...`, of `count` ranks. It returns the finished process and its seconds."""
    command = [sys.executable, "-c", "from lab.cli import main; raise SystemExit(main())", "run"]
    command += [str(HERE / "rank_script.py"), *words]
    if count:
        if importlib.util.find_spec("mpi4py") is None:
            pytest.skip("mpi4py is not installed")
        mpiexec = shutil.which("mpiexec", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
        if mpiexec is None:
            pytest.skip("there is no mpiexec")
        command = [mpiexec, "-n", str(count), *command, "--engine", "mpi"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", **variables}
    begin = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    return done, time.perf_counter() - begin


def rows(out):
    """{(name, seed): [the counted columns of each row]}."""
    found = {}
    with open(out / "rank_script" / "runs.csv", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["name"], row["seed"]), []).append([row[name] for name in COUNTED])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_columns_are_those_of_the_simulation(count, tmp_path):
    done, _ = npopt("--parts", "a", "--out", str(tmp_path / "ranks"), count=count)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 to make") == done.stdout.count("report:") == 1  # one rank speaks
    other, _ = npopt("--parts", "a", "--ranks", str(count), "--threads", "1", "--out", str(tmp_path / "simulated"))
    assert other.returncode == 0, other.stderr
    found = rows(tmp_path / "ranks")
    assert len(found) == 4 and len(found["EXTRA", "0"]) == rank_script.ROUNDS and found == rows(tmp_path / "simulated")
    again, _ = npopt("--parts", "a", "--out", str(tmp_path / "ranks"), count=count)
    assert again.returncode == 0 and "4 stored, 0 to make" in again.stdout
    drawn, _ = npopt("--redraw", "--out", str(tmp_path / "ranks"))  # needs no ranks
    assert drawn.returncode == 0 and rows(tmp_path / "ranks") == found


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named_and_the_same_command_goes_on(tmp_path):
    seen, flag = tmp_path / "seen", tmp_path / "flag"
    some = dict(count=3, KILLED=str(flag), SEEN=str(seen))
    done, _ = npopt("--parts", "k", "--out", str(tmp_path / "ranks"), **some)
    assert done.returncode and flag.exists() and time.time() - flag.stat().st_mtime < 10  # the others ended at once
    assert done.stderr.count("npopt: rank 1 ended by SIGKILL") == 1 and "the same command goes on" in done.stderr
    assert len(list((tmp_path / "ranks/rank_script/runs").glob("*.checkpoint.npz"))) == 1
    before = len(seen.read_text())
    done, _ = npopt("--parts", "k", "--out", str(tmp_path / "ranks"), **some)
    assert done.returncode == 0, done.stderr
    assert 30 < before < 42 and len(seen.read_text()) <= rank_script.ROUNDS + 2  # it did not begin again
    other, _ = npopt("--parts", "k", "--ranks", "3", "--threads", "1", "--out", str(tmp_path / "simulated"))
    assert other.returncode == 0 and rows(tmp_path / "ranks") == rows(tmp_path / "simulated")


@pytest.mark.slow
def test_an_error_on_one_rank_is_one_sentence(tmp_path):
    done, seconds = npopt("--parts", "e", "--out", str(tmp_path), count=3)
    assert done.returncode and "npopt: rank 1: part e, wrong, seed 0: no data here" in done.stderr and seconds < 120
    assert done.stderr.count("npopt: ") == 1
    done, _ = npopt("--parts", "z", "--out", str(tmp_path), count=3)
    assert done.returncode == 2 and done.stderr.count("no part is called 'z'") == 1
