"""Generated modules, and numba's machine code for them, in a folder that belongs to the user alone.

What lies there is executed, because numba loads machine code from beside the module's file. So the folder must be the
user's own, no link, of mode 0700, and never open to other writers. The folders above it must not belong to another user
or be open to others. Else somebody could put a folder of theirs in its place. (In a sticky folder, such as /tmp, they
cannot.) A module runs the text that was generated now, and never the text in the file. The file is there for numba and
for tracebacks, and is written anew where its text differs.

numba ends the program where a file of its cache was cut short, or cannot be written. Here such a file counts as absent:
what it held is thrown away and compiled again.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import stat
import sys
import tempfile
import types

from npopt.errors import UserError

from numba.core import caching


def candidates():
    """$NPOPT_CACHE or else the user's cache; then a temporary folder."""
    home = os.environ.get("NPOPT_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"), "npopt"
    )
    return pathlib.Path(home) / "kernels", pathlib.Path(tempfile.gettempdir()) / f"npopt-{os.getuid()}"


def folder():
    """The first candidate that is private or can be made so. If there is none, a UserError says why."""
    why = []
    for path in candidates():
        try:
            for part in (*reversed(path.parents), path):
                if not part.exists():
                    part.mkdir(mode=0o700, exist_ok=True)
            make_private(path)
            check_above(path)
            return path
        except OSError as error:
            why.append(f"{path}: {error.strerror or error}")
    raise UserError(f"no folder for compiled kernels ({'; '.join(why)}); set NPOPT_CACHE to a folder of your own")


def make_private(path):
    """Close this user's folder to others. OSError if it belongs to another user, is a link, or was open to writers."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise OSError("it is not a folder")
    if found.st_uid != os.getuid():
        raise OSError(f"it belongs to another user (uid {found.st_uid})")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):  # then nobody knows who wrote what is in it
        raise OSError("others may write to it; remove it")
    if stat.S_IMODE(found.st_mode) != 0o700:
        os.chmod(path, 0o700)
    if not os.access(path, os.W_OK | os.X_OK):  # a file system that is read-only
        raise OSError("it cannot be written")


def check_above(path):
    """OSError if somebody else could move a folder above this one away. That is a folder of another user (but not of
    root), or a folder that others may write to and that is not sticky."""
    for above in path.resolve().parents:
        found = above.stat()
        if found.st_uid not in (0, os.getuid()):
            raise OSError(f"{above} above it belongs to another user (uid {found.st_uid})")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
            raise OSError(f"others may write to {above} above it; close that folder to them (chmod go-w)")


def module(name, source, depends=""):
    """The module of a generated text; its file is named after the hash of the text and of what it `depends` on."""
    digest = hashlib.sha256((source + depends).encode()).hexdigest()[:16]
    path = folder() / f"{name}_{digest}.py"
    if not holds(path, source):  # whole or absent: another process may be writing too
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "w") as file:
                file.write(source)
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}); make room there, or set NPOPT_CACHE to another folder"
            ) from None
    made = sys.modules[f"npopt_kernel_{path.stem}"] = types.ModuleType(f"npopt_kernel_{path.stem}")
    made.__file__ = str(path)  # numba looks the module up in sys.modules
    exec(compile(source, path, "exec"), vars(made))
    return made


def holds(path, source):
    """Whether a file is there, no link, with this text."""
    try:
        return not path.is_symlink() and path.read_bytes() == source.encode()
    except OSError:
        return False


def forgiving(load):
    """numba's `load_overload`, which here answers None, "not there", for whatever cannot be read."""

    @functools.wraps(load)
    def look(self, signature, context):
        try:
            return load(self, signature, context)
        except Exception:  # pickle, struct and LLVM each have their own
            with contextlib.suppress(OSError):
                self.flush()  # the list of what is kept for this function is empty now
            return None

    return look


def optional(save):
    """numba's `save_overload`, which here may fail: what a full disk does not take is compiled again next time."""

    @functools.wraps(save)
    def keep(self, signature, compiled):
        with contextlib.suppress(OSError):
            save(self, signature, compiled)

    return keep


caching.Cache.load_overload = forgiving(caching.Cache.load_overload)
caching.Cache.save_overload = optional(caching.Cache.save_overload)
