"""The folder of generated modules: private, and nothing that others wrote into it runs."""

import os
import stat

from npopt import elementwise
from npopt.backend import cache
from npopt.errors import UserError

import numba
import numpy as np
import pytest
from numba.core import caching

TEXT = "answer = 41 + 1\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The two candidates, neither there yet."""
    monkeypatch.setenv("NPOPT_CACHE", str(tmp_path / "home"))
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_folder_is_made_private_whatever_the_umask(home):
    before = os.umask(0)
    try:
        assert cache.folder() == home / "home" / "kernels" and mode(cache.folder()) == 0o700
    finally:
        os.umask(before)


def test_a_folder_that_others_may_read_is_closed_and_one_that_they_may_write_is_left_alone(home):
    kernels = home / "home" / "kernels"
    kernels.mkdir(parents=True)
    for open_to, expected in ((0o755, kernels), (0o500, kernels), (0o775, None), (0o707, None)):
        kernels.chmod(open_to)
        found = cache.folder()
        assert found == (expected or home / f"npopt-{os.getuid()}") and mode(found) == 0o700
        assert mode(kernels) == (0o700 if expected else open_to)


def test_a_folder_of_another_user_is_refused(home, monkeypatch):
    (home / "home" / "kernels").mkdir(parents=True, mode=0o700)
    here = os.getuid()
    monkeypatch.setattr(cache.os, "getuid", lambda: here + 1)  # everything here is now another's
    with pytest.raises(UserError, match=rf"kernels: it belongs to another user \(uid {here}\); .*; set NPOPT_CACHE"):
        cache.folder()


def test_a_folder_above_that_others_may_write_is_refused_unless_it_is_sticky(home):
    kernels = home / "home" / "kernels"
    for open_to, expected in ((0o755, kernels), (0o1777, kernels), (0o777, None), (0o775, None)):
        kernels.parent.mkdir(exist_ok=True)
        kernels.parent.chmod(open_to)
        assert cache.folder() == (expected or home / f"npopt-{os.getuid()}")
    home.chmod(0o777)
    with pytest.raises(UserError, match=rf"others may write to {home} above it; close that folder to them"):
        cache.folder()
    home.chmod(0o700)


def test_a_folder_above_of_another_user_is_refused(home, monkeypatch):
    stat_of, theirs = cache.pathlib.Path.stat, home / "home"

    def stat_(path, **options):
        found = stat_of(path, **options)
        return os.stat_result((*found[:4], 12345, *found[5:10])) if path == theirs else found

    monkeypatch.setattr(cache.pathlib.Path, "stat", stat_)
    assert cache.folder() == home / f"npopt-{os.getuid()}"
    with pytest.raises(OSError, match=rf"{theirs} above it belongs to another user \(uid 12345\)"):
        cache.check_above(theirs / "kernels")


def test_a_link_or_a_file_in_the_place_of_the_folder_is_not_followed(home):
    (home / "elsewhere").mkdir()
    (home / "home").mkdir()
    (home / "home" / "kernels").symlink_to(home / "elsewhere")
    (home / f"npopt-{os.getuid()}").write_text("a file")
    with pytest.raises(UserError, match="kernels: it is not a folder"):
        cache.folder()
    assert list((home / "elsewhere").iterdir()) == []


def test_a_module_runs_the_text_that_was_generated_not_what_lies_in_the_file(home):
    made = cache.module("some", TEXT)
    path = cache.pathlib.Path(made.__file__)
    assert made.answer == 42 and path.read_text() == TEXT and path.parent == cache.folder()
    proof = home / "proof"
    for damage in (f"open({str(proof)!r}, 'w').close()\n", "answer = 41 + 2\n", "", "\x00"):
        path.write_text(damage)
        assert cache.module("some", TEXT).answer == 42 and path.read_text() == TEXT
    path.unlink()
    (home / "planted.py").write_text(TEXT)
    path.symlink_to(home / "planted.py")
    assert cache.module("some", TEXT).answer == 42 and not path.is_symlink() and not proof.exists()
    assert cache.module("some", TEXT, "other draws").__file__ != made.__file__


def test_machine_code_is_found_again(home):
    text = "import numba\n\n\n@numba.njit('float64(float64)', cache=True)\ndef half(x):\n    return x / 2\n"
    first, second = (cache.module("half", text).half for _ in range(2))
    assert (len(first.stats.cache_hits), len(second.stats.cache_hits), second(3.0)) == (0, 1, 1.5)


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 40])
def test_machine_code_that_was_cut_short_is_compiled_again_once(home, monkeypatch, kind, left):
    """Without a look at it numba ends in an EOFError, each time."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")  # beside the module, also where $NUMBA_CACHE_DIR says otherwise
    text = "import numba\n\n\n@numba.njit('float64(float64)', cache=True)\ndef half(x):\n    return x / 2\n"
    cache.module("half", text)
    (path,) = cache.folder().rglob(f"*.{kind}")
    path.write_bytes(path.read_bytes()[:left])
    second, third = (cache.module("half", text).half for _ in range(2))
    assert (len(second.stats.cache_hits), len(third.stats.cache_hits), second(3.0), third(3.0)) == (0, 1, 1.5, 1.5)


def test_machine_code_that_cannot_be_kept_runs_all_the_same(home, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    text = "import numba\n\n\n@numba.njit('float64(float64)', cache=True)\ndef half(x):\n    return x / 2\n"
    assert cache.module("half", text).half(3.0) == 1.5


def test_a_formula_whose_file_was_edited_computes_what_it_says(home):
    def once():
        @elementwise
        def twice(x, y):
            x = 2 * y
            return x

        x = np.zeros(3)
        twice(x, np.arange(3.0))
        return x

    np.testing.assert_array_equal(once(), [0, 2, 4])
    (path,) = cache.folder().glob("twice_*.py")
    text = path.read_text()
    path.write_text(text.replace("s0 * ", "s0 + "))
    assert path.read_text() != text
    np.testing.assert_array_equal(once(), [0, 2, 4])
    assert path.read_text() == text
