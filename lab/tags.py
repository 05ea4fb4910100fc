"""Tags tell the entries of a grid apart: method="Adam", data="a9a", lr=0.01. This file alone makes names of them."""

import difflib
from collections.abc import Collection

from npopt.errors import UserError

import numpy as np


def checked(where, tags, reserved):
    """The tags with plain values; a UserError for other values, and for names that are nearly those of arguments."""
    found = {}
    for tag, value in tags.items():
        value = value.item() if isinstance(value, np.generic) else value
        if not isinstance(value, (str, bool, int, float)):
            raise UserError(
                f"{where}: the tag {tag} must be a text, a number or a truth value, got {type(value).__name__}"
            )
        close = difflib.get_close_matches(tag, reserved, n=1, cutoff=0.8)
        if close:
            raise UserError(f"{where}: {tag!r} is no argument; did you mean {close[0]!r}? A tag needs another name")
        found[tag] = value
    return found


def spoken(tag, value):
    """How a tag reads: 'Adam' for a text, 'lr 0.01' for a number, 'guard' or 'no guard' for a truth value."""
    word = tag.replace("_", " ")
    if isinstance(value, bool):
        return word if value else f"no {word}"
    if isinstance(value, str):
        return value
    return f"{word} {value}" if isinstance(value, int) else f"{word} {value:.3g}"


def label(tags):
    """The name of an entry: its tags in their order."""
    return ", ".join(spoken(tag, value) for tag, value in tags.items())


def matches(value, wanted):
    """Whether a tag's value is the one wanted, one of several (a collection), or one that a function accepts."""
    if callable(wanted):
        return bool(wanted(value))
    if isinstance(wanted, Collection) and not isinstance(wanted, str):
        return value in wanted
    return value == wanted
