"""Labels of linear models: what y may be, and which classes it names.

Losses speak of y as numbers, as -1 and +1, or as 0, ..., C-1; the caller's labels are the `classes`, in order.
"""

from npopt.errors import UserError

import numpy as np


def numbers(where, y, n):
    """y as float64, (n,), real, finite, with finite squares."""
    if y.shape != (n,):
        raise UserError(f"{where}: X has {n} rows, so y must have shape ({n},), got {y.shape}")
    try:
        if y.dtype.kind in "cmM":
            raise TypeError
        y = y.astype(np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where}: the labels must be numbers, got {y.dtype}, such as {str(y[0])[:40]!r}") from None
    bad = np.flatnonzero(~np.isfinite(y))
    if bad.size:
        raise UserError(f"{where}: label {bad[0]} is {y[bad[0]]}")
    large = np.flatnonzero(abs(y) > np.finfo(np.float64).max ** 0.5)
    if large.size:
        raise UserError(f"{where}: label {large[0]} is {y[large[0]]:g}, whose square is beyond float64; scale y")
    return y


def distinct(where, y):
    found = np.unique(y)
    if found.size == 1:
        raise UserError(f"{where}: all labels are {found[0]:g}; classification needs at least two classes")
    return found


def two(where, y):
    """The two classes of y: (-1, 1) or (0, 1)."""
    found = distinct(where, y)
    if found.size > 2:
        raise UserError(
            f"{where}: this loss separates two classes, got {found.size} different labels, among them {found[2]:g}"
        )
    if list(found) not in ([-1, 1], [0, 1]):
        raise UserError(
            f"{where}: two classes must be labelled -1 and +1 or 0 and 1, got {found[0]:g} and "
            f"{found[1]:g}; use numpy.where(y == {found[1]:g}, 1, -1)"
        )
    return found


def many(where, y):
    """The classes 0, ..., C-1 of y, C > 2."""
    found = distinct(where, y)
    wrong = found[(found < 0) | (found != np.floor(found))]
    if wrong.size or found[-1] + 1 > max(2 * found.size, 1000):
        odd = wrong[0] if wrong.size else found[-1]
        raise UserError(
            f"{where}: labels must be -1 and +1, 0 and 1, or 0, ..., C-1 for C > 2 classes; got "
            f"{found.size} different ones, among them {odd:g}"
        )
    return np.arange(found[-1] + 1)


def numbered(where, y, classes):
    """The class numbers, int64, of labels y; a label that is none of the classes is refused."""
    c = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    strange = np.flatnonzero(classes[c] != y)
    if strange.size:
        raise UserError(f"{where}: the test labels hold {y[strange[0]]:g}, which the training labels do not know")
    return c
