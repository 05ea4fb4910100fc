"""The results store: one file a finished run, one checkpoint an unfinished one, one lock a running one.

    runs/<key>.npz              a finished run: columns, x, config, reason; written whole or not at all
    runs/<key>.checkpoint.npz   where minimize saves an unfinished run, and resumes it
    runs/<key>.lock             held with flock by the process that works on the run, and gone with that process

A key is the sha256 of everything that decides the numbers: the printed method and problem, the code that they reach,
the sha256 of data and files (lab/ingredients.py), the seed, device, threads, kernels, and `RESULTS`. This number
is raised when trajectories move although no code that is followed by name has changed. Part and tags of an entry are
labels, not ingredients: two parts that ask for the same run share it. So nobody has to trust the name of a folder to
know what a run was. A file that is damaged is set aside, and its run made again; one that cannot be read is an error.

Locks are advisory locks of the file system (POSIX; NFS since version 4): no clock, no stale lock after a kill -9.
"""

import fcntl
import hashlib
import json
import os
import tempfile
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

from npopt import checkpoint
from npopt.errors import UserError

import numpy as np

RESULTS = 6  # raised when trajectories change and neither code that is reached by name nor data do


def write_text(path, text):
    """Write a text file whole or not at all."""
    checkpoint.replace(path, lambda file: file.write(text.encode()))


SUMMARY = {"script": str, "task": str, "question": str, "command": str, "arguments": dict, "data_sets": list}
REPORTED = {"part": str, "name": str, "tags": dict, "seed": int, "key": str}  # of every run in a summary


def read_summary(path, reported=REPORTED):
    """The dict of a summary.json, tags and config with each run. {} where there is none, or a damaged one, which the
    script's next run writes anew. reported: what every run must have; older files have less."""
    try:
        facts = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:  # half a file, or none of text
        return {}
    whole = fits(facts, SUMMARY) and all(isinstance(facts.get(name), list) for name in ("runs", "claims", "figures"))
    if whole and isinstance(facts.get("entries"), list):  # older files have them with the run
        entries = {i: entry for i, entry in enumerate(facts["entries"]) if fits(entry, {"tags": dict})}
        known = (entries.get(run["entry"], {}) if fits(run, {"entry": int}) else {} for run in facts["runs"])
        facts["runs"] = [{**run, **more} if more else run for run, more in zip(facts["runs"], known, strict=True)]
    whole = whole and all(fits(run, reported) for run in facts["runs"])
    whole = whole and all(fits(known, {"name": str, "sha256": str}) for known in facts["data_sets"])
    return facts if whole and all(fits(claim, {"id": str}) and "holds" in claim for claim in facts["claims"]) else {}


def fits(facts, kinds):
    """Whether it is a dict with values of these types under these names."""
    return isinstance(facts, dict) and all(isinstance(facts.get(name), kind) for name, kind in kinds.items())


def unreadable(path, error):
    """The error for a file that cannot be read. Such a file may be whole, so nothing is made again."""
    return UserError(f"{path} cannot be read ({error.strerror}); see to its permissions, or remove it")


def plain(value):
    """`value` as JSON can hold it: arrays become lists, NaN and infinities None, unknown objects their repr."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, (str, bool, int)) else repr(value)


def key_of(**ingredients):
    """32 hexadecimal digits, a function of the named ingredients (strings, numbers, dicts, lists)."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()[:32]


class Store:
    """The folder `runs/` of one script. It holds only its path, so it travels to worker processes."""

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UserError(
                f"results folder {str(folder)!r} is not writable ({error.strerror}); choose another one with --out"
            ) from None

    def path(self, key):
        return self.folder / f"{key}.npz"

    def checkpoint(self, key):
        return self.folder / f"{key}.checkpoint.npz"

    def has(self, key):
        return self.path(key).exists()

    def hint(self):
        """The end of a sentence that says what to do if none of the runs that are asked for is stored."""
        count = sum(not path.name.endswith(".checkpoint.npz") for path in self.folder.glob("*.npz"))
        if not count:
            return ": run it first, without --redraw"
        if read_summary(self.folder.parent / "summary.json"):
            return f", but {count} others: the script, the library or the data have changed; run it without --redraw"
        return f", but {count} others, and no whole summary.json that says their arguments: give these with --redraw"

    def save(self, key, tree):
        """Write a finished run, a dict of arrays and plain values, and remove its checkpoint."""
        checkpoint.save(self.path(key), {"key": key, "run": tree})
        self.checkpoint(key).unlink(missing_ok=True)

    def load(self, key):
        """The dict of a finished run; None if there is none, or if its file is damaged. A damaged file is set aside. A
        file that cannot be read is an error."""
        try:
            found = checkpoint.load(self.path(key))
            if not fits(found, {"key": str, "run": dict}):
                raise checkpoint.Damaged("it is a file of another kind")
            if found["key"] != key:
                raise checkpoint.Damaged(f"it holds run {found['key']}")
            return found["run"]
        except FileNotFoundError:
            return None
        except checkpoint.Damaged as error:
            self.set_aside(self.path(key), error)
            return None

    def set_aside(self, path, error):
        """Rename a damaged file, with a warning, so that its run starts again and the file can still be looked at."""
        try:
            os.replace(path, f"{path}.damaged")
        except FileNotFoundError:  # another process was faster
            return
        except OSError as why:
            raise UserError(f"{path} is damaged and cannot be set aside ({why.strerror}); remove it") from None
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'unreadable'}"
        warnings.warn(f"{path.name} is damaged, it is kept as {path.name}.damaged ({reason})", stacklevel=3)

    def discard(self, key):
        """Forget a run, finished or not, unless a process is at work on it."""
        with self.lock(key) as lock:
            if lock:
                self.path(key).unlink(missing_ok=True)
                self.checkpoint(key).unlink(missing_ok=True)

    def sweep(self, age=3600):
        """Remove temporary files, of runs and of figures, that a killed process left more than `age` seconds ago."""
        for file in [*self.folder.glob(".*.tmp"), *self.folder.parent.glob(".*.tmp")]:
            with suppress(OSError):  # gone, or another's
                if time.time() - file.stat().st_mtime > age:
                    file.unlink()

    @contextmanager
    def lock(self, key, wait=False):
        """The lock of a run as a `Lock`, or None if another process (or thread) holds it; `wait` until it is free."""
        path = self.folder / f"{key}.lock"
        while True:
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise checkpoint.Unwritable(path, error) from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(handle)
                yield None
                return
            except BaseException:
                os.close(handle)
                raise
            if is_still(handle, path):
                break
            os.close(handle)  # its holder removed the file while this process waited: take the lock of the new one
        try:
            yield Lock(handle)
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)

    def note(self, key):
        """(fraction, loss) that the run's process last noted in its lock; None if there is no such process or note."""
        try:
            fraction, loss = (self.folder / f"{key}.lock").read_text().split()
            return float(fraction), float(loss)
        except (OSError, ValueError):
            return None


class Lock:
    """A held lock. `note` is minimize's progress callable: it leaves where the run is for whoever draws the bar."""

    def __init__(self, handle):
        self.handle, self.noted = handle, 0.0

    def note(self, fraction, epoch=None, loss=None):
        now = time.monotonic()
        if now - self.noted >= 0.2:
            self.noted = now
            loss = float("nan") if loss is None else float(loss)
            with suppress(OSError):  # a full disk ends no run for the sake of the bar
                os.pwrite(self.handle, f"{fraction:10.6f} {loss:16.8g}\n".encode(), 0)  # always 28 bytes: no truncation


def is_still(handle, path):
    """Whether an open file is the one that the path names now."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
