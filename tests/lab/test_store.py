"""The store: whole files or none, damage found, one process a run."""

import os
import signal
import subprocess
import sys
import threading
import time

from lab.store import Store, plain
from npopt import checkpoint
from npopt.errors import UserError

import numpy as np
import pytest


def a_run():
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal(50).astype(np.float32),
        "columns": {"loss": np.array([np.nan, 1.5, np.inf]), "step": np.arange(3)},
        "config": {"optimizer": "SGD()", "dim": 50},
        "reason": "epochs",
        "seconds": 0.25,
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return a == b


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def test_a_saved_run_comes_back_bit_for_bit_and_its_checkpoint_goes(store):
    store.checkpoint("k").write_bytes(b"old")
    store.save("k", a_run())
    assert same(store.load("k"), a_run())
    assert sorted(p.name for p in store.folder.iterdir()) == ["k.npz"]


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(store, monkeypatch):
    store.save("k", a_run())
    before = store.path("k").read_bytes()

    def half(file, **arrays):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(checkpoint.Unwritable, match=r"k.npz cannot be written \(disk full\); make room there"):
        store.save("k", a_run() | {"reason": "steps"})
    assert store.path("k").read_bytes() == before
    assert [p.name for p in store.folder.iterdir()] == ["k.npz"]


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_a_truncated_file_is_set_aside_at_every_length(store):
    store.save("k", a_run())
    whole = store.path("k").read_bytes()
    for length in [0, 1, 30, *range(100, len(whole), 97), len(whole) - 1]:
        store.path("k").write_bytes(whole[:length])
        assert store.load("k") is None
        assert not store.has("k")


@pytest.mark.filterwarnings("ignore:.*is damaged")
def test_a_flipped_bit_never_changes_a_run_unseen(store):
    store.save("k", a_run())
    whole, set_aside = store.path("k").read_bytes(), 0
    for position in range(0, len(whole), 7):
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        store.path("k").write_bytes(bytes(broken))
        found = store.load("k")
        set_aside += found is None
        assert found is None or same(found, a_run())  # some bytes, such as the time in a zip header, say nothing
    assert set_aside > len(whole) // 7 // 2


def test_damage_is_reported_and_the_file_kept(store):
    store.save("k", a_run())
    store.path("k").write_bytes(b"not a zip file")
    with pytest.warns(UserWarning, match="k.npz is damaged"):
        assert store.load("k") is None
    assert (store.folder / "k.npz.damaged").read_bytes() == b"not a zip file"


def test_a_file_that_cannot_be_read_is_an_error_and_stays(store, monkeypatch):
    store.path("k").mkdir()  # as unreadable as mode 000, to whom may read everything, too
    with pytest.raises(UserError, match="k.npz cannot be read .Is a directory.; see to its permissions"):
        store.load("k")
    store.save("l", a_run())
    opened = open

    def closed(path, *words, **more):
        if str(path).endswith("l.npz"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *words, **more)

    monkeypatch.setattr("builtins.open", closed)
    with pytest.raises(UserError, match="l.npz cannot be read .Permission denied.") as error:
        store.load("l")
    assert not isinstance(error.value, checkpoint.Damaged)
    monkeypatch.undo()
    assert same(store.load("l"), a_run()) and not list(store.folder.glob("*.damaged"))


def test_a_file_of_another_kind_is_set_aside(store):
    for tree in ({"t": 3}, {"key": "k", "run": [1]}):
        checkpoint.save(store.path("k"), tree)
        with pytest.warns(UserWarning, match="k.npz is damaged.*another kind"):
            assert store.load("k") is None


def test_a_file_under_the_wrong_name_is_not_taken_for_that_run(store):
    store.save("k", a_run())
    os.replace(store.path("k"), store.path("other"))
    with pytest.warns(UserWarning, match="holds run k"):
        assert store.load("other") is None


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="results folder .* is not writable .*--out"):
        Store(tmp_path / "file" / "runs")


def test_a_lock_has_one_holder_and_leaves_nothing_behind(store):
    with store.lock("k") as mine:
        assert mine is not None
        with store.lock("k") as second:
            assert second is None
        with store.lock("other") as free:
            assert free is not None
    with store.lock("k") as again:
        assert again is not None
    assert list(store.folder.iterdir()) == []


def test_waiting_for_a_lock_ends_when_it_is_released_and_only_one_waiter_gets_it(store):
    inside, most, entered = [], [], []

    def work():
        with store.lock("k", wait=True):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
            entered.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(entered) == 8 and max(most) == 1


def test_a_lock_dies_with_its_process(store):
    code = (
        "import sys, time; from lab.store import Store\n"
        "with Store(sys.argv[1]).lock('k'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(store.folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with store.lock("k") as lock:
            assert lock is None
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with store.lock("k") as lock:
        assert lock is not None


def test_a_note_in_the_lock_can_be_read_by_others(store):
    assert store.note("k") is None
    with store.lock("k") as lock:
        assert store.note("k") is None
        lock.note(0.25, 3.0, 1.5)
        assert store.note("k") == (0.25, 1.5)
        lock.note(0.5, 6.0, 1.0)  # too soon after the first
        assert store.note("k") == (0.25, 1.5)
        lock.noted = 0.0
        lock.note(1.0, 12.0, -1e-300)
        assert store.note("k") == (1.0, -1e-300)
    assert store.note("k") is None


def test_discard_spares_a_run_that_is_being_made(store):
    store.save("k", a_run())
    with store.lock("k"):
        store.discard("k")
        assert store.has("k")
    store.discard("k")
    assert not store.has("k")


def test_sweep_removes_old_temporary_files_only(store):
    store.save("k", a_run())
    for name, age in [(".k.npz.old.tmp", 7200), (".k.npz.new.tmp", 0)]:
        (store.folder / name).write_bytes(b"")
        os.utime(store.folder / name, (time.time() - age,) * 2)
    store.sweep()
    assert sorted(p.name for p in store.folder.iterdir()) == [".k.npz.new.tmp", "k.npz"]


def test_plain_is_strict_json():
    given = {"a": np.float32(0.5), "b": [np.nan, np.inf, 1], "c": np.arange(2), 3: (True, None), "d": object}
    assert plain(given) == {"a": 0.5, "b": [None, None, 1], "c": [0, 1], "3": [True, None], "d": repr(object)}


def test_a_checkpoint_of_minimize_lies_where_the_store_expects_it(store):
    checkpoint.save(store.checkpoint("k"), {"t": 3})
    assert checkpoint.load(store.checkpoint("k"))["t"] == 3
    assert not store.has("k")
