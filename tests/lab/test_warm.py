"""Scripts that a warm process forks into: they run as by themselves, and end as by themselves."""

import os
import pathlib
import signal
import time

from lab.warm import Warm

import pytest

SCRIPT = """
import os, signal, sys, time
os.chdir(os.path.dirname(__file__))
from neighbour import WORD

def here():
    return __name__

print(here(), sys.argv[1:], WORD, sys.modules["__main__"].here is here, flush=True)
if sys.argv[1] == "status":
    raise SystemExit(int(sys.argv[2]))
if sys.argv[1] == "bug":
    raise RuntimeError("a bug")
if sys.argv[1] == "signal":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "wait":
    from lab.processes import Interrupts, follow
    try:
        Interrupts.listen()
        follow()
        print("listens", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        open("saved", "w").close()  # nobody reads what it prints
        raise SystemExit(Interrupts.status())
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(scope="module")
def warm():
    found = Warm()
    yield found
    found.close()


@pytest.fixture
def script(tmp_path):
    (tmp_path / "neighbour.py").write_text("WORD = 'beside it'")
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def until(reached):
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("words", "status"), [(["status", "0"], 0), (["status", "3"], 3), (["bug"], 1), (["signal"], -9)]
)
def test_a_script_runs_as_the_main_module_and_its_end_is_told(warm, script, tmp_path, words, status):
    output = tmp_path / "output.txt"
    assert warm.run(script, words, output).wait() == status
    said = output.read_text()
    assert said.startswith(f"__main__ {words} beside it True\n")
    assert ("RuntimeError: a bug" in said) == (words == ["bug"])


def test_a_script_is_a_fork_of_the_warm_process(warm, script, tmp_path):
    output = tmp_path / "output.txt"
    process = warm.run(script, ["wait"], output)
    until(lambda: "listens" in output.read_text())
    stat = pathlib.Path(f"/proc/{process.pid}/stat")
    parent = int(stat.read_text().rsplit(")", 1)[1].split()[1]) if stat.exists() else None
    process.terminate()
    process.wait()
    if parent is None:
        pytest.skip("this system has no /proc")
    assert parent == warm.process.pid


def test_a_script_that_is_told_to_end_saves_and_ends(warm, script, tmp_path):
    output = tmp_path / "output.txt"
    process = warm.run(script, ["wait"], output)
    until(lambda: "listens" in output.read_text())
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists()
    process.terminate()  # it is gone: nothing happens


@pytest.mark.parametrize("how", ["npopt is gone", "the warm process is killed"])
def test_a_script_ends_with_what_started_it(script, tmp_path, how):
    own, output = Warm(), tmp_path / "output.txt"
    process = own.run(script, ["wait"], output)
    until(lambda: "listens" in output.read_text())
    if how == "npopt is gone":
        own.connection.close()
    else:
        own.process.kill()
        assert process.wait() == -signal.SIGTERM
    own.process.wait()
    until((tmp_path / "saved").exists)
    if how != "npopt is gone":  # the next one starts as usual
        assert own.run(script, ["status", "3"], output).wait() == 3
        assert output.read_text().startswith("__main__ ['status', '3']")


def test_it_ends_quietly_where_nothing_is_asked(capfd):
    own = Warm()
    own.close()
    assert own.process.returncode == 0 and capfd.readouterr().err == ""
