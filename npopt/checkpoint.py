"""Files that are whole or absent: nested dicts of arrays and plain values, in one .npz, without pickle."""

import contextlib
import errno
import json
import os
import pathlib
import tempfile
import zipfile

from npopt import backend
from npopt.errors import UserError

import numpy as np


class Damaged(UserError):
    """A file that is not a whole checkpoint, or not one of this run."""


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # why a disk takes no more, whoever writes to it


class Unwritable(UserError):
    """A file that cannot be written: a full disk, a folder that takes no files. An older file of that name stays
    whole."""

    def __init__(self, path, error):
        why = error.strerror or error
        super().__init__(f"{path} cannot be written ({why}); make room there or choose another folder")


class Foreign(Damaged):
    """A whole checkpoint of another run: of other code, data or settings."""


def _split(tree, path, arrays):
    """The JSON part of a tree; arrays go into `arrays` under their path."""
    if isinstance(tree, dict):
        return {str(k): _split(v, f"{path}/{k}" if path else str(k), arrays) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_split(v, f"{path}/{i}", arrays) for i, v in enumerate(tree)]
    if isinstance(tree, np.generic):
        return tree.item()
    if getattr(tree, "shape", None) is not None:
        arrays[path] = np.asarray(backend.to_host(tree))
        return {"array": path}
    return tree


def _join(tree, arrays):
    if isinstance(tree, dict):
        return arrays[tree["array"]] if set(tree) == {"array"} else {k: _join(v, arrays) for k, v in tree.items()}
    return [_join(v, arrays) for v in tree] if isinstance(tree, list) else tree


def flat(tree):
    """(JSON text, {name: array}) of a tree."""
    arrays = {}
    return json.dumps(_split(tree, "", arrays)), arrays


def whole(text, arrays):
    """The tree of such a pair. Raises ValueError or KeyError where it is none."""
    return _join(json.loads(text), arrays)


def save(path, tree):
    """Write a tree to a file, through a temporary name beside it: a reader sees the old file or the new one."""
    path = pathlib.Path(path)
    text, arrays = flat(tree)
    replace(
        path,
        lambda file: np.savez(
            file, **{f"array:{k}": v for k, v in arrays.items()}, tree=np.frombuffer(text.encode(), np.uint8)
        ),
    )


def _npz(opened):
    if not zipfile.is_zipfile(opened):  # NumPy takes it for a pickle, and would say how to load that
        raise UserError("it is not a whole .npz file")
    opened.seek(0)
    return np.load(opened, allow_pickle=False)


def load(path):
    """The tree of a file that `save` wrote. A truncated or foreign file raises Damaged, which names it. A file that
    cannot be read may be whole, so it raises a plain UserError."""
    try:
        with open(path, "rb") as opened, _npz(opened) as file:
            packed = [member.filename for member in file.zip.infolist() if member.compress_type != zipfile.ZIP_STORED]
            if packed:  # which could unpack to any size
                raise UserError(f"{packed[0][:40]} is packed, as no checkpoint is")
            arrays = {name[6:]: file[name] for name in file.files if name.startswith("array:")}
            return whole(file["tree"].tobytes().decode(), arrays)
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and json each have their own
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a place before its start
            raise UserError(f"{path} cannot be read ({error.strerror}); see to its permissions") from None
        why = str(error).split("\n")[0][:120]
        raise Damaged(f"{path} is not a whole checkpoint ({why}); remove it to start afresh") from None


def writable(path):
    """Make the file's folder and see that it takes files; if not, raise Unwritable, which names the file."""
    folder = pathlib.Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Unwritable(path, error) from None


def replace(path, write):
    """Atomically replace a file: `write(file)` fills a temporary one in the same folder, which then takes the name.
    Raises Unwritable where the system refuses that."""
    path, temporary = pathlib.Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise Unwritable(path, error) from None
        raise
