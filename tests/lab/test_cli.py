"""The command npopt: scripts are found without being run, and one that fails does not stop the others."""

import errno
import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path

from lab import Experiment, cli, options
from lab.report import task_order, write_index

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROKEN = '''"""Does it break?  Yes."""
import sys
if False:
    Experiment(__doc__, task="A2")
print("words:", *sys.argv[1:])
raise SystemExit(3)
'''


MEETING = '''"""Do they meet?"""
import pathlib, time
if False:
    Experiment(__doc__, task="A3")
pathlib.Path("{name}.here").touch()
for _ in range(600):
    if pathlib.Path("{other}.here").exists():
        break
    time.sleep(0.05)
else:
    raise SystemExit(1)
'''


@pytest.fixture
def folder(toy, monkeypatch):
    """A folder with the toy and a script that fails, in front of an empty results folder."""
    (toy.parent / "broken.py").write_text(BROKEN)
    (toy.parent / "plain.py").write_text("raise AssertionError('not an experiment')\n")
    found = {path.stem: path for path in sorted(toy.parent.glob("*.py")) if cli.described(path)}
    monkeypatch.setattr(cli, "scripts", lambda: found)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(toy.parent)
    return toy.parent


def test_list_shows_task_name_and_question_without_running(folder, capsys):
    assert cli.main(["list"]) == 0
    assert [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()] == [
        ["A2", "broken", "Does it break?"],
        ["T1", "toy", "Does the toy descend?"],
    ]


def test_an_unknown_name_has_a_nearest_match(folder, capsys):
    for words, said in [
        (["run", "tpy"], "no script is called 'tpy'; did you mean 'toy'?"),
        (["run", "momentum"], "no script is called 'momentum'; there is broken, toy"),
        (["report", "to"], "no script is called 'to'; did you mean 'toy'?"),
        (["rum"], "no command is called 'rum'; did you mean 'run'?"),
        (["run"], "name a script"),
        (["report"], "no results in 'results'"),
    ]:
        assert cli.main(words) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1


def test_help_is_printed_without_a_command(capsys):
    assert cli.main([]) == 0
    assert "npopt run NAME" in capsys.readouterr().out


def test_all_goes_on_after_a_failure_and_writes_the_index(folder, capfd):
    assert cli.main(["all", "--seeds", "1", "--threads", "1"]) == 1
    out, err = capfd.readouterr()
    index = (folder / "results/index.html").read_text()
    assert index.count("toy/report.html") == 1 and "broken" not in index
    assert "failed (3)" in out and "failed: broken" in err and "results/index.html" in out
    assert "words: --seeds 1 --threads 1 --jobs" in (folder / "results/broken/output.txt").read_text()
    assert "      words: --seeds 1" in err  # the end of what it said
    (row,) = [line.split() for line in out.splitlines() if " toy " in line]
    assert row[:2] == ["T1", "toy"] and row[-3:] == ["1", "0", "0"]
    assert json.loads((folder / "results/toy/summary.json").read_text())["seeds"] == [0]

    (folder / "results/toy/report.html").unlink()
    assert cli.main(["report"]) == 0
    assert (folder / "results/toy/report.html").exists() and "0 to make" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "words, count, expected",
    [
        (["--quick"], 12, (2, ["--quick", "--jobs", "1", "--threads", "1"])),
        (["--jobs", "6", "--quick"], 3, (3, ["--quick", "--jobs", "2", "--threads", "1"])),
        (["--jobs=1", "--threads=2"], 3, (1, ["--threads=2", "--jobs", "1"])),
    ],
)
def test_cores_are_shared_out_among_scripts_and_their_runs(monkeypatch, words, count, expected):
    monkeypatch.setattr(cli, "cores", lambda: 2)
    assert cli.shared(words, count) == expected


def test_scripts_run_at_the_same_time(folder, capfd):
    """Each of two scripts waits for the other's file: one after the other would never end."""
    for name, other in (("one", "two"), ("two", "one")):
        (folder / f"{name}.py").write_text(MEETING.format(name=name, other=other))
    cli.scripts().clear()
    cli.scripts().update({name: folder / f"{name}.py" for name in ("one", "two")})
    assert cli.main(["all", "--jobs", "2"]) == 0
    assert "failed" not in capfd.readouterr().out


LONG = '''"""Does it end?   It waits.

    x
"""
import os, sys, time
from lab import Experiment
experiment = Experiment(__doc__, task="X1", source="none", parts={"a": "one"})
if __name__ == "__main__":
    open(os.path.join(os.path.dirname(__file__), "pid"), "w").write(str(os.getpid()))
    time.sleep(60)
'''


def test_told_to_end_it_takes_its_scripts_with_it(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "long.py").write_text(LONG)
    code = (
        "import sys; from lab import cli; from pathlib import Path\n"
        "cli.scripts = lambda: {'long': Path('scripts/long.py')}\n"
        "sys.exit(cli.main(['all', '--quick']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    pid = tmp_path / "scripts" / "pid"
    for _ in range(600):
        if pid.exists() and pid.read_text():
            break
        time.sleep(0.05)
    process.terminate()
    assert process.wait(20) == 143
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int(pid.read_text()), 0)
            time.sleep(0.05)


def test_run_passes_the_status_and_the_words_on(folder, capfd):
    assert cli.main(["run", "broken.py", "--seeds", "3"]) == 3
    assert capfd.readouterr().out == "words: --seeds 3\n"


def test_the_index_is_ordered_by_task(tmp_path):
    assert sorted(["B1", "", "A10", "A2", "A2, B2", "C", "R"], key=task_order) == [
        "A2", "A2, B2", "A10", "B1", "C", "R", "",
    ]  # fmt: skip
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/summary.json").write_text("{")
    assert "No results yet" in write_index(tmp_path).read_text()


@pytest.mark.slow
def test_a_profile_prints_a_table_of_layers_and_stores_nothing(tmp_path):
    script = str(ROOT / "scripts" / "momentum_vs_sgd.py")
    words = [sys.executable, script, "--profile", "--quick", "--out", str(tmp_path)]
    done = subprocess.run([*words, "--parts", "b", "--threads", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any("lenet5 on digits" in line and "ms a step" in line for line in lines)
    assert {"conv1", "fc3", "sum"} <= {line.split()[0] for line in lines if line}
    assert not list(tmp_path.iterdir())
    done = subprocess.run([*words, "--parts", "a"], capture_output=True, text=True)
    assert done.returncode == 2 and "--profile is for networks" in done.stderr and "Traceback" not in done.stderr


def test_help_lists_every_option_that_scripts_take(folder, capsys):
    parser = options.parser(Experiment("Every script."), "npopt")
    for words in ([], ["--help"], ["all", "--help"]):
        assert cli.main(words) == 0
        out = capsys.readouterr().out
        for action in parser._actions[1:]:
            assert f"\n  {action.option_strings[0]}" in out and action.help.split()[0] in out
        for command in ("list", "run NAME", "all", "report", *cli.LIBRARY):
            assert f"\n  npopt {command}" in out


@pytest.mark.parametrize("count, jobs", [(7, 2), (8, 3), (1, 4), (5, 1), (4, 9)])
def test_scripts_that_begin_together_are_not_neighbours(count, jobs):
    order = [f"s{i}" for i in range(count)]
    found = cli.spread(order, jobs)
    assert sorted(found) == sorted(order) and (jobs > 1 or found == order)
    if count > 2 * jobs > 2:
        first = sorted(order.index(name) for name in found[:jobs])
        assert min(b - a for a, b in zip(first, first[1:], strict=False)) == -(-count // jobs)


def test_a_script_that_cannot_be_started_keeps_no_other_waiting(folder):
    """Its warm process goes back to where other threads take theirs."""

    class Full:
        def run(self, path, words, output):
            raise OSError(errno.ENOSPC, "No space left on device")

    homes = queue.SimpleQueue()
    homes.put(home := Full())
    with pytest.raises(OSError, match="No space"):
        cli.quietly(folder / "broken.py", [], homes)
    assert homes.get_nowait() is home
