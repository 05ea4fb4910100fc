"""Data sets by name: the last few that a process has loaded, and what is said about them in keys and summaries."""

import os

from lab.options import BUNDLED, REAL, nearest
from lab.progress import Doing
from npopt.errors import UserError


def dataset(name, **more):
    """`problems.datasets.load(name, ...)`, kept: all runs of a process share the arrays, which nobody may write to."""
    from problems import datasets

    return datasets.shared(name, **more)


def check(name):
    """Raise a UserError with the nearest match, unless `name` is bundled, real, or a data set."""
    if name in (BUNDLED, REAL):
        return
    from problems import datasets

    known = [BUNDLED, REAL, *datasets.names()]
    if name not in known and datasets.is_path(name):
        raise UserError(f"--data: {datasets.how_to_read(name)}")
    if name not in known:
        raise UserError(f"no data set is called {name!r}; {nearest(name, known)}")


def sets_of(recipe):
    """The names of the data sets among a recipe's arguments: `data`, unless that is a file, and texts that name one, in
    tuples, lists and dicts, too."""
    texts = set(texts_in(list(recipe.arguments.values())))
    if not texts:
        return []
    from problems import datasets

    known = datasets.names()
    return sorted({t for t in texts if t in known or t == recipe.data and not os.path.isfile(t)})


def texts_in(value):
    """All str in a value, which may be a nest of tuples, lists and dicts."""
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ():
        yield from texts_in(part)


def facts(name):
    """{"name", "sha256", "rows", "source"} of a data set; rows are the training rows. The set is loaded for that."""
    with Doing(f"loading {name}"):
        found = dataset(name)
    rows = found.train if found.y_train is None else found.y_train  # poems have no labels
    return {"name": name, "sha256": found.sha256, "rows": len(rows), "source": found.source}
