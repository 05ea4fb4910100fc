"""The code behind a run: a hash of the definitions that its functions and classes reach by name, in our packages and in
the user's own files.

A definition (npopt/syntax.py) leads to the definitions whose names it uses, from module to module. So everything that
it may call is found, except what it calls through objects. The objects of a run are known, and their classes are roots
of their own. Installed packages are not followed. Files are read and never run. What was found in a file is kept in the
cache under the hash of its text.
"""

import contextlib
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from npopt import checkpoint, syntax
from npopt.backend import cache
from npopt.errors import UserError

OURS = ("npopt", "nn", "problems", "lab")
INSTALLED = tuple({os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib")})


class Place(NamedTuple):
    """A definition: the name of its module, the file, its own name."""

    module: str
    path: str
    name: str


def reached(roots, without=()):
    """{Place: hash of the definition} of all that these functions and classes reach, but not through `without`."""
    found, closed = {}, frozenset(map(home, without))
    for place in {home(root) for root in roots} - {None}:
        found |= closure(place, closed)
    return found


def digest(found):
    """16 hexadecimal digits of what was reached. They do not depend on the folder in which a file lies."""
    lines = sorted(f"{place.module} {place.name} {hashed}" for place, hashed in found.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def files(found):
    """{text: path} of the files that the user's own code names by a text. Only code that was reached counts. A text is
    tried as a path from the current folder, and from the folder of the code."""
    named = {}
    for place in sorted(found):
        if place.module.split(".")[0] not in OURS:
            for text in definitions(place.path)[place.name]["texts"]:
                for path in (os.path.join(os.path.dirname(place.path), text), text):
                    if os.path.isfile(path):
                        named[text] = path
    return named


# ----------------------------------------------------------------------------------------------------------- places
def home(root):
    """The Place of a function or class; None if its module is not followed, or it stands in no file."""
    root = root if isinstance(root, type) else inspect.unwrap(root)
    module, name = getattr(root, "__module__", None) or "", getattr(root, "__qualname__", "").split(".")[0]
    path = path_of(module) if module and module != "__main__" else None
    if path is None:  # a script's, or that of a file that was run by hand
        path = file_of(root, module)
    if path is None or not followed(module, path) or name not in definitions(path):
        return None
    return Place(module, path, name)


def file_of(root, module):
    """The file in which a function, or a method of a class, was compiled; in a worker __main__ is another file."""
    inside = [root, *vars(root).values()] if isinstance(root, type) else [root]
    for member in inside:
        code = getattr(getattr(member, "__func__", member), "__code__", None)
        if code is not None and os.path.isfile(code.co_filename):
            return code.co_filename
    path = getattr(sys.modules.get(module), "__file__", None)
    return path if path and os.path.isfile(path) else None


def followed(module, path):
    """Whether a module is ours or the user's, not an installed one."""
    apart = not path.startswith(INSTALLED) and not {"site-packages", "dist-packages"} & set(Path(path).parts)
    return module.split(".")[0] in OURS or apart


@functools.cache
def path_of(module):
    """The .py file of a module, imported or not; None if the module is not followed or not found."""
    top = module.split(".")[0]
    if module != top and path_of(top) is None:
        return None
    try:
        spec = getattr(sys.modules.get(module), "__spec__", None) or importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    path = getattr(spec, "origin", None) or ""
    return path if path.endswith(".py") and followed(module, path) else None


# ---------------------------------------------------------------------------------------------------------- closure
@functools.cache
def closure(start, without):
    """{Place: hash} of all that is reached from one place."""
    found, open_ = {}, [start]
    while open_:
        place = open_.pop()
        if place not in found and place not in without:
            found[place], onward = step(place)
            open_ += onward
    return found


@functools.cache
def step(place):
    """(hash of a definition, the Places that it names)."""
    entry, onward = definitions(place.path)[place.name], set()
    for chain in entry["uses"]:
        onward.update(used(place, entry, *chain.split(".")))
    if place.name == "__getattr__":  # of a module, which looks elsewhere for its names
        for targets in entry["imports"].values():
            onward.update(p for module, name in targets for p in named(place, module, name))
    return entry["hash"] + beside(place, entry["texts"]), sorted(onward)


def used(place, entry, base, *rest):
    """The Places to which base.rest leads from within a definition."""
    here = definitions(place.path)
    found = [Place(place.module, place.path, base)] if base in here else []
    targets = entry["imports"].get(base, []) + (here[base]["imports"].get(base, []) if base in here else [])
    if not targets and not found and "*" in here:
        targets = [[module, base] for module, _ in here["*"]["imports"]["*"]]
    return found + [p for module, name in targets for p in named(place, module, name, *rest)]


def named(place, module, name, *rest):
    """The Places of module.name.rest, as the file of `place` names it. Without a name: all Places of the module."""
    module = absolute(place, module)
    path = path_of(module)
    if path is None:
        return []
    if not name and rest:
        name, *rest = rest
    here = definitions(path)
    if not name:
        return [Place(module, path, each) for each in here if each != "*"]
    there = Place(module, path, name)
    targets = here[name]["imports"].get(name, []) if name in here else []
    itself = [module, name] in [[absolute(there, m), n] for m, n in targets]  # a package imports a part of its own
    if name in here and not itself:
        return [there, *(p for m, n in targets for p in named(there, m, n, *rest))]
    if path_of(f"{module}.{name}") is not None:
        return named(there, f"{module}.{name}", "", *rest)
    if "*" in here:
        return [p for m, _ in here["*"]["imports"]["*"] for p in named(there, m, name, *rest)]
    return [Place(module, path, "__getattr__")] if "__getattr__" in here else []


def absolute(place, module):
    """The full name of a module that the file of `place` names with leading dots."""
    name = module.lstrip(".")
    up = len(module) - len(name) - place.path.endswith("__init__.py")
    if module == name:
        return module
    package = place.module.split(".")
    return ".".join([*package[: len(package) - up], *filter(None, [name])])


def beside(place, texts):
    """Hashes of the files beside a module of ours that are named by one of these texts: CUDA sources."""
    if place.module.split(".")[0] not in OURS:
        return ""
    paths = [os.path.join(os.path.dirname(place.path), text) for text in texts if "/" not in text]
    return "".join(hashlib.sha256(Path(p).read_bytes()).hexdigest()[:16] for p in paths if os.path.isfile(p))


# ----------------------------------------------------------------------------------------------------------- a file
@functools.cache
def definitions(path):
    """syntax.definitions of a file, as it was when it was first asked for."""
    text = Path(path).read_text(encoding="utf-8")
    kept = place_in_cache(f"{sys.version_info[:2]}\n{text}")
    try:
        found = json.loads(kept.read_text())
        if isinstance(found, dict):
            return found
    except (AttributeError, OSError, ValueError):  # no cache, nothing there, or half a file
        pass
    found = syntax.definitions(text)
    if kept is not None:
        with contextlib.suppress(OSError):
            checkpoint.replace(kept, lambda file: file.write(json.dumps(found).encode()))
    return found


@functools.cache
def maker():
    """A hash of npopt/syntax.py, the code that makes what the cache keeps."""
    return hashlib.sha256(Path(syntax.__file__).read_bytes()).hexdigest()


def place_in_cache(text):
    """The cache's file for what was found in a text; None where there is no cache folder: that is only slower."""
    try:
        return cache.folder() / f"code-{hashlib.sha256((maker() + text).encode()).hexdigest()[:32]}.json"
    except (OSError, UserError):
        return None
