"""Functions that are compiled once and called: what they return, and what numba's cache on disk keeps of them."""

import os
import subprocess
import sys

from npopt.backend.once import inside, jit, once

import numba
import numpy as np
import pytest


@once
def rows_of(A, first, last):
    return A[first:last].sum(), last - first


@once(bare=True)
def scaled(a, factor, count):
    for i in range(count):
        if a[i] < 0:
            raise ValueError("negative")
        a[i] *= factor


@inside
def both(A, a):
    total, count = rows_of(A, 1, 3)
    scaled(a, 2.0, a.size)
    return total, count


@jit
def on_threads(a, out):
    for k in numba.prange(out.size):
        scaled(a[k * 3 : k * 3 + 3], np.float64(k), 3)
        out[k] = a[3 * k]


def test_it_returns_and_writes_as_a_plain_call_does():
    A, a = np.arange(12.0).reshape(4, 3), np.arange(5.0, dtype="f4")
    assert both(A, a) == (A[1:3].sum(), 2)
    np.testing.assert_array_equal(a, 2 * np.arange(5))
    assert len(scaled.dispatcher.overloads) == 1, "one code for all that call it with these types"


def test_it_runs_in_a_parallel_loop():
    a, out = np.ones(30), np.empty(10)
    on_threads(a, out)
    np.testing.assert_array_equal(out, np.arange(10))
    np.testing.assert_array_equal(a, np.repeat(np.arange(10), 3))


def test_what_it_raises_comes_through():
    with pytest.raises(ValueError, match="negative"):
        both(np.ones((4, 3)), np.array([1.0, -1.0]))


def test_a_bare_one_takes_no_array_with_gaps():
    @inside
    def every_other(a):
        scaled(a[::2], 2.0, 2)

    with pytest.raises(TypeError, match="lie together"):
        every_other(np.ones(4))


PROGRAM = """
import numpy as np
from numba.core import event
seen = []

class Listener(event.Listener):
    def on_start(self, e):
        seen.append(e.data["dispatcher"].py_func.__name__)
    def on_end(self, e):
        pass

event.register("numba:compile", Listener())
from loops import outer
print(outer(np.arange(4.0)), *sorted({name for name in seen if name in ("outer", "part")}))
"""
LOOPS = """
from npopt.backend.once import inside, once

@once
def part(a):
    return a.sum() + 1

@inside
def outer(a):
    return part(a) * 2
"""


def run(folder):
    """What PROGRAM prints in a process of its own: the result, and which of the two were compiled."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), os.getcwd()])
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_another_process_finds_both_in_the_cache_or_makes_what_is_missing(tmp_path):
    (tmp_path / "loops.py").write_text(LOOPS)
    assert run(tmp_path) == ["14.0", "outer", "part"]
    assert run(tmp_path) == ["14.0"]
    for path in (tmp_path / "cache").rglob("loops.part*"):
        path.unlink()
    assert run(tmp_path) == ["14.0", "part"]
    (tmp_path / "loops.py").write_text(LOOPS.replace("sum() + 1", "sum() - 1"))  # its caller is as it was
    assert run(tmp_path) == ["10.0", "outer", "part"]


def test_a_caller_of_what_changed_in_another_folder_is_compiled_again(tmp_path):
    """The caller's own folder is as it was, so its entry is found; what it calls has another symbol now."""
    (tmp_path / "elsewhere").mkdir()
    part, outer = LOOPS.split("@inside")
    (tmp_path / "elsewhere" / "parts.py").write_text(part)
    (tmp_path / "loops.py").write_text(
        "from npopt.backend.once import inside\nfrom elsewhere.parts import part\n@inside" + outer
    )
    assert run(tmp_path) == ["14.0", "outer", "part"]
    assert run(tmp_path) == ["14.0"]
    (tmp_path / "elsewhere" / "parts.py").write_text(part.replace("+ 1", "- 1"))
    assert run(tmp_path) == ["10.0", "outer", "part"]
