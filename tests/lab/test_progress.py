"""What stands at the foot of a terminal: it fits, it moves or says why it does not, and it is gone at the end."""

import contextlib
import io
import os
import re
import subprocess
import sys
from types import SimpleNamespace

from lab import Entry, Experiment, Recipe, experiment, profiling, progress
from lab.claims import Claim
from npopt import SGD, RandomReshuffling, Stop
from problems import Quadratic
from problems.classifiers import perceptron

import pytest

pty = pytest.importorskip("pty")

LONG = "a_script_whose_name_is_long_as_names_go"


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def lines(self):
        """What was shown, one after the other."""
        return [line for line in re.split(r"[\r\n]", re.sub(r"\x1b\[[A-Z]", "", self.getvalue())) if line.strip()]


@pytest.fixture
def terminal(monkeypatch):
    shown, clock = Terminal(), SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(progress.Line, "watch", lambda line: None)  # drawn by hand, below
    return shown, clock


@pytest.mark.parametrize("width, most", [("60", 60), ("40", 40), ("200", 100)])
def test_the_bar_fits_and_says_why_it_stands(terminal, monkeypatch, width, most):
    monkeypatch.setenv("COLUMNS", width)
    shown, clock = terminal
    monkeypatch.setattr(sys, "stderr", shown)
    notes = {}
    keys = [str(i) for i in range(1234)]
    with progress.Bar(SimpleNamespace(note=notes.get), keys, LONG) as bar:
        clock.now = 16.0
        bar.draw()
        notes |= {key: (0.125, 0.123456789) for key in keys[:3]}
        bar.draw()
        clock.now = 32.0
        bar.draw()
        notes["7"] = (0.5, float("nan"))
        bar.draw()
        for key in keys:
            bar.finished(key)
    lines = shown.lines()
    assert max(map(len, lines)) < most and any(LONG[:11] + "…" in line or LONG[:23] + "…" in line for line in lines)
    if most > 40:
        said = [word for line in lines for word in re.findall("loading, compiling|compiling, measuring|loss", line)]
        assert list(dict.fromkeys(said)) == ["loading, compiling", "loss", "compiling, measuring"], lines
        assert "1234.0/1234" in lines[-1]


def test_what_is_done_is_named_and_wiped_out(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown, _ = terminal
    monkeypatch.setattr(sys, "stderr", shown)
    now = ["one", LONG * 3]
    with progress.Doing(lambda: f"done; now: {now[0]}") as line:
        now.reverse()
        line.draw()
    lines = shown.lines()
    assert lines[0].startswith("done; now: one [00:00]") and any("…" in text for text in lines)
    assert max(map(len, lines)) < 60
    assert shown.getvalue().endswith("\r")


def test_a_profile_says_that_it_compiles(terminal, monkeypatch, capsys):
    shown, _ = terminal
    monkeypatch.setattr(sys, "stderr", shown)
    entry = Entry("a", Recipe(perceptron, data="digits", rows=200), SGD(), RandomReshuffling(50), 0.1)
    profiling.profile("toy", [(entry, "toy")])
    assert any("compiling mlp" in line for line in shown.lines())
    assert "ms a step" in capsys.readouterr().out


def test_it_is_silent_where_nobody_watches(capfd):
    with progress.Doing("loading"), progress.Bar(SimpleNamespace(note={}.get), ["a"], "toy") as bar:
        bar.finished("a")
    assert capfd.readouterr() == ("", "")


def test_claims_fit_the_terminal(monkeypatch):
    claim = Claim("long", "a claim of many words " * 9, "a number " * 9, measured="1.5 " * 30, note="undecided " * 9)
    for width in (60, 110):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = experiment.report.claims_text([claim]).splitlines()
        assert width - 20 < max(map(len, lines)) <= width


def bowl():
    return Quadratic([1.0, 2.0])


def test_the_time_at_the_end_has_figures_and_report_in_it(tmp_path, monkeypatch, capsys):
    """By a clock that a figure moves by 100 seconds and the report by 20."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(experiment, "time", clock)
    write = experiment.report.write_report

    def slow(*arguments):
        clock.now += 20
        write(*arguments)

    monkeypatch.setattr(experiment.report, "write_report", slow)
    made = Experiment("What?", seeds=1)

    @made.runs
    def runs(args):
        yield Entry("a", Recipe(bowl), SGD(), None, 0.1, method="SGD", stop=Stop(steps=3))

    @made.figure("late.png")
    def late(results):
        clock.now += 100
        from lab.figures import panels

        return panels()[0]

    made.main(["--out", str(tmp_path)], "toy")
    assert "\n1 runs, 2 min 0 s; report: " in capsys.readouterr().out


SLOW = """
import time
from lab import progress
progress.PATIENCE = 0.1
class Store:
    note = staticmethod(lambda key: None)
with progress.Bar(Store, ["a"], "toy"):
    time.sleep(1.1)
"""


def test_it_is_drawn_while_the_work_goes_on(monkeypatch):
    """On a real terminal, with its thread."""
    leader, follower = pty.openpty()
    done = subprocess.run([sys.executable, "-c", SLOW], stderr=follower, env=os.environ | {"COLUMNS": "60"}, timeout=60)
    os.close(follower)
    said = ""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(leader, 10000).decode(errors="replace"):
            said += piece
    os.close(leader)
    assert done.returncode == 0 and said.count("loading, compiling") >= 3 and "toy" in said
