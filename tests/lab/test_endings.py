"""How processes end: told to, alone, by a bug of one run, on a full disk; and what is left of them."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab.store import Store

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def npopt(folder, *words):
    """`npopt` for the scripts of a folder, in a session of its own."""
    code = (
        "import sys; sys.argv = ['npopt']; from pathlib import Path; from lab import cli\n"
        "cli.scripts = lambda: {path.stem: path for path in Path('.').glob('*.py')}\n"
        f"sys.exit(cli.main({list(map(str, words))!r}))"
    )
    settings = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}, "text": True}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code], **settings, **pipes, start_new_session=True)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def alive(folder):
    """{process id: command} of the processes that work in this folder; zombies do not count."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            here = process.joinpath("cwd").resolve() == folder.resolve()
            if here and process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found[int(process.name)] = process.joinpath("cmdline").read_text().replace("\0", " ")[:80]
        except OSError:
            continue
    return found


def checkpoints(folder):
    return list((folder / "results/toy/runs").glob("*.checkpoint.npz"))


def summary(folder, script="toy"):
    return json.loads((folder / "results" / script / "summary.json").read_text())


@pytest.fixture
def folder(toy):
    """The folder of a toy whose runs take for ever; what still lives there in the end is killed."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("looks for processes in /proc")
    toy.write_text(toy.read_text().replace("default=60", "default=9_000_000"))
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup processes would inherit it as ignored
    yield toy.parent
    signal.signal(signal.SIGHUP, ignored)
    for process in alive(toy.parent):
        os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize(
    "command, how, group",
    [
        pytest.param("run", signal.SIGKILL, False, marks=pytest.mark.slow),
        pytest.param("run", signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param("run", signal.SIGHUP, True, marks=pytest.mark.slow),  # a closed terminal
        pytest.param("all", signal.SIGKILL, False, marks=pytest.mark.slow),
    ],
)
def test_who_ends_npopt_ends_its_script_and_its_workers(folder, command, how, group):
    """Nothing is left of them, and nobody holds the output open."""
    jobs = 2 if command == "run" else 1
    words = ["toy", "--jobs", jobs] if command == "run" else ["--jobs", jobs]
    process = npopt(folder, command, *words, "--seeds", 1, "--threads", 1)
    wait_for(lambda: len(checkpoints(folder)) == jobs)
    assert len(alive(folder)) == (4 if command == "run" else 3)  # npopt, script, two workers; or a warm process
    (os.killpg if group else os.kill)(process.pid, how)
    out, err = process.communicate(timeout=30)
    assert process.returncode == (-how if how == signal.SIGKILL else 128 + how) and "Traceback" not in err
    wait_for(lambda: not alive(folder), 20)


@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.slow
def test_ctrl_c_four_times_in_a_row_saves_and_prints_one_sentence(folder, jobs):
    process = npopt(folder, "run", "toy", "--jobs", jobs, "--seeds", 1, "--threads", 1)
    wait_for(lambda: len(checkpoints(folder)) == jobs)
    before = [path.stat().st_mtime_ns for path in checkpoints(folder)]
    for _ in range(4):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.1)
    out, err = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT)  # minus: a late one, in Python's own last milliseconds
    assert err.count("toy: interrupted; all is kept") == 1 and "Traceback" not in err
    assert all(path.stat().st_mtime_ns > at for path, at in zip(checkpoints(folder), before, strict=True))
    wait_for(lambda: not alive(folder), 10)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.2, 0.6])
def test_ctrl_c_while_the_script_is_loaded_prints_no_traceback(folder, after):
    process = npopt(folder, "run", "toy")
    wait_for(lambda: len(alive(folder)) == 2)  # the script has begun to import
    time.sleep(after)
    for _ in range(4):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    out, err = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT) and "Traceback" not in err and not alive(folder)


@pytest.mark.slow
def test_a_signal_to_the_script_alone_that_waited_while_it_was_loaded_is_heard(folder):
    process = npopt(folder, "run", "toy")
    wait_for(lambda: len(alive(folder)) == 2)
    (script,) = [number for number in alive(folder) if number != process.pid]
    os.kill(script, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "toy: interrupted" in err and "Traceback" not in err


def test_ctrl_c_while_the_command_itself_is_loaded_prints_nothing(tmp_path):
    """The handlers that are there before lab.cli.main has set its own."""
    code = "import sys; sys.argv = ['/usr/bin/npopt']; import lab, os, signal; os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


BUGS = '''"""Which of these ends the grid?   None."""
import os, signal, sys

from npopt import SGD, RandomReshuffling, Stop
from npopt.values import Value
from lab import Entry, Experiment, Recipe
from problems.quadratic import Quadratic

experiment = Experiment(__doc__, task="T2", source="-", seeds=1)


def problem(how):
    if how == "raises":
        raise ValueError(f"a {how} of the user")
    if how == "exits":
        sys.exit(3)
    if how == "leaves":
        os._exit(3)
    if how == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "is told to end":
        os.kill(os.getpid(), signal.SIGTERM)
    return Quadratic([1.0, 2.0], b=[1.0, 1.0])


class Stubborn(Value):
    def __reduce__(self):
        raise TypeError("cannot pickle a stubborn one")


def with_it(it):
    return Quadratic([1.0, 3.0], b=[1.0, 1.0])


@experiment.runs
def runs(args):
    for how in HOWS:
        recipe = Recipe(with_it, it=Stubborn()) if how == "stays" else Recipe(problem, how=how)
        yield Entry("a", recipe, SGD(), RandomReshuffling(1), stop=Stop(steps=5), method=how)


if __name__ == "__main__":
    experiment.main()
'''


@pytest.mark.slow
def test_one_bug_does_not_end_the_grid(tmp_path, finish):
    hows = ["raises", "one", "exits", "leaves", "two", "is killed", "stays", "is told to end", "three"]
    (tmp_path / "bugs.py").write_text(BUGS.replace("HOWS", repr(hows)))
    done = finish(tmp_path / "bugs.py", "--jobs", 2, "--threads", 1, status=1)
    facts = summary(tmp_path, "bugs")
    page = (tmp_path / "results/bugs/report.html").read_text()
    assert [run["name"] for run in facts["runs"]] == ["one", "two", "three"]
    reasons = {
        "raises": "ValueError: a raises of the user",
        "exits": "SystemExit: 3",
        "leaves": "the process that made the run ended with exit status 3",
        "is killed": "the process that made the run ended by SIGKILL",
        "stays": "TypeError: cannot pickle a stubborn one",
        "is told to end": "the process that made the run ended with exit status 143",
    }
    assert [trouble["name"] for trouble in facts["troubles"]] == list(reasons)
    for trouble in facts["troubles"]:
        assert reasons[trouble["name"]] in trouble["message"] and trouble["status"] == "failed"
        assert f"bugs: part a, {trouble['name']}, seed 0: failed" in done.stderr and trouble["name"] in page


@pytest.mark.slow
def test_a_bug_reads_the_same_here_and_in_a_worker(tmp_path, finish):
    (tmp_path / "bugs.py").write_text(BUGS.replace("HOWS", "['raises', 'one', 'exits']"))
    said = []
    for jobs in (1, 2):
        done = finish(tmp_path / "bugs.py", "--jobs", jobs, "--threads", 1, "--fresh", status=1)
        said.append(sorted(done.stderr.splitlines()))
    assert said[0] == said[1] and any("a raises of the user" in line for line in said[0])


@pytest.mark.slow
def test_one_bug_does_not_end_a_grid_on_dask(tmp_path, finish):
    pytest.importorskip("distributed", reason="Dask is optional: pip install 'dask[distributed]'")
    (tmp_path / "bugs.py").write_text(BUGS.replace("HOWS", "['raises', 'one', 'leaves', 'stays', 'two']"))
    finish(tmp_path / "bugs.py", "--jobs", 2, "--threads", 1, "--engine", "dask", status=1)
    facts = summary(tmp_path, "bugs")
    assert [run["name"] for run in facts["runs"]] == ["one", "two"]
    said = [trouble["message"].splitlines()[-1] for trouble in facts["troubles"]]
    assert said[0] == "ValueError: a raises of the user" and said[1].startswith("Dask says: ")
    assert said[2] == "TypeError: cannot pickle a stubborn one"


@pytest.mark.slow
def test_a_script_that_is_killed_alone_has_a_sentence(tmp_path):
    (tmp_path / "bugs.py").write_text(BUGS.replace("HOWS", "['one', 'is killed']"))
    process = npopt(tmp_path, "run", "bugs", "--threads", 1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 137 and "npopt: bugs ended by SIGKILL" in err and "--jobs 2" in err
    assert len(list((tmp_path / "results/bugs/runs").glob("*.npz"))) == 1


KILLS = int(os.environ.get("NPOPT_KILLS", 6))  # 200 before a release: half an hour


def stored(folder):
    """{key: what is stored of a run, but for what a clock or the memory says}"""
    store = Store(folder / "results/toy/runs")
    runs = {run["key"]: store.load(run["key"]) for run in summary(folder)["runs"]}
    for run in runs.values():
        run["columns"].pop("seconds")
        run["seconds"] = run["memory"] = None
    return runs


def same(a, b):
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[k], b[k]) for k in a)
    return np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b


def strike(rng, folder, process):
    """One signal, to npopt alone, to its session, or to any of the processes. What it was, in words."""
    how, others = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]), sorted(alive(folder))
    if how == signal.SIGINT and len(others) < 2:
        how = signal.SIGTERM  # Python itself answers Ctrl-C in its first milliseconds, by a traceback
    target = rng.choice(["npopt", "session", "another"])
    with contextlib.suppress(ProcessLookupError):
        if target == "session":
            os.killpg(process.pid, how)
        else:
            os.kill(process.pid if target == "npopt" or not others else rng.choice(others), how)
    return f"{how.name} to {target}"


@pytest.mark.slow
def test_a_round_of_kills_changes_no_number_and_leaves_no_process(folder, tmp_path_factory):
    """Started again after each kill, the grid ends bit for bit as one that was left in peace; then from the start."""
    quiet, words = tmp_path_factory.mktemp("quiet"), ["run", "toy", "--jobs", 2, "--threads", 1, "--steps", 15_000]
    shutil.copy(folder / "toy.py", quiet)
    out, err = npopt(quiet, *words).communicate(timeout=120)
    expected, rng, kills, busy, rounds, said = stored(quiet), random.Random(KILLS), 0, 0, 0, []
    assert len(expected) == 4, err
    while kills < KILLS or said:
        process, began = npopt(folder, *words), time.time()
        while process.poll() is None and kills < KILLS and not under_way(folder, began) and rng.random() < 0.99:
            time.sleep(0.05)  # in one of three starts a signal comes before the runs do
        try:
            out, err = process.communicate(timeout=rng.uniform(0, 3) if kills < KILLS else 120)
        except subprocess.TimeoutExpired:
            busy += under_way(folder, began)
            said.append(strike(rng, folder, process))
            kills += 1
            out, err = process.communicate(timeout=60)
        wait_for(lambda: not alive(folder), 45)
        assert "Traceback" not in err, (said, err)
        if process.returncode == 0:
            assert same(stored(folder), expected), said
            left = {path.suffix for path in (folder / "results/toy/runs").iterdir()}
            assert left <= {".npz", ".tmp"}, said  # half a file that was being written; swept an hour later
            shutil.rmtree(folder / "results")
            said, rounds = [], rounds + 1
    print(f"{kills} kills, {busy} of them while runs were under way, in {rounds} rounds")


def under_way(folder, began):
    """Whether a run has saved itself since."""
    times = []
    for path in checkpoints(folder):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return any(at > began for at in times)
