"""Reader for LIBSVM (svmlight) text: one row a line, `label index:value index:value ...  # comment`.

scikit-learn's reader makes the numbers. Before it runs, one compiled pass over the bytes checks what that reader lets
through: what does not parse, NaN and inf, and indices that are negative, repeated, descending or absurdly large. So a
bad file gives one sentence with file and line. Lines end in LF, CR or both, and an index may have a plus sign, as other
readers have it. Files may be plain, .gz or .bz2; a list of files, or a folder, is read in order as one set. Train and
test get one width, and one index base (0 where any file uses the index 0, else 1).
"""

import io
import pathlib
from typing import NamedTuple

from npopt.errors import UserError
from problems.files import unpacked

import numba
import numpy as np
import scipy.sparse

LARGEST = 100_000_000  # the widest public set (kdd2012) has 54,686,452 columns
KINDS = ("binary", "multiclass", "regression")


class Libsvm(NamedTuple):
    """X: (n, d) CSR, float64 or float32, int32 indices (or a dense array); y: (n,).

    labels[c] is the file's label of class c (binary: labels[0] became -1, labels[1] became +1); None for regression.
    base is the index of the first column, 0 or 1.
    """

    X: object
    y: np.ndarray
    X_test: object
    y_test: np.ndarray
    labels: tuple
    base: int


def read(train, test=None, kind="binary", n_features=None, base=None, dtype=np.float64, dense=False):
    """Read a training and perhaps a test set; train, test: a file, a folder, or a list of files, each.

    kind         "binary": two labels of any value become -1 and +1, in the dtype of X; "multiclass": 0, ..., C-1
                 (int64), in the order of the file's numbers; "regression": kept, in the dtype of X
    n_features   the width; None: the largest index of train and test together
    base         0 or 1; None: found in train and test together
    """
    if kind not in KINDS:
        raise UserError(f"libsvm.read: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if base not in (None, 0, 1):
        raise UserError(f"libsvm.read: base must be 0, 1 or None, got {base!r}")
    texts = [Text(path) for path in files(train)]
    count = len(texts)
    texts += [] if test is None else [Text(path) for path in files(test)]
    low = min((t.low for t in texts if t.low is not None), default=1)
    if base == 1 and low == 0:
        wrong = next(t for t in texts if t.low == 0)
        raise UserError(f"{wrong.path}: an index is 0, but base=1 was asked for")
    base = int(low > 0) if base is None else base
    widest = max(texts, key=lambda t: t.high)
    width = widest.high + 1 - base if n_features is None else int(n_features)
    if widest.high + 1 - base > width:
        raise UserError(
            f"{widest.path}:{widest.high_line}: index {widest.high} is outside the {width} columns "
            f"(the first index is {base})"
        )
    if width < 1:
        raise UserError(f"{texts[0].path}: no line holds a feature; give n_features")
    parts = [t.matrix(width, base, dtype) for t in texts]
    X, y = stack(parts[:count])
    labels, y = labelled(y, texts[:count], kind, dtype)
    X_test, y_test = (None, None) if test is None else stack(parts[count:])
    if test is not None:
        y_test = mapped(y_test, labels, texts[count:], kind, dtype)
    if dense:
        X, X_test = X.toarray(), None if test is None else X_test.toarray()
    return Libsvm(X, y, X_test, y_test, labels, base)


def files(path):
    """The files of an argument: itself, a list's, or a folder's in order of name."""
    if isinstance(path, (list, tuple)):
        found = [pathlib.Path(p) for p in path]
    elif pathlib.Path(path).is_dir():
        found = sorted(p for p in pathlib.Path(path).iterdir() if p.is_file() and not p.name.startswith("."))
    else:
        found = [pathlib.Path(path)]
    if not found:
        raise UserError(f"{path}: there is no file in this folder")
    return found


class Text:
    """One checked file: its bytes, the range of its indices, its number of rows."""

    def __init__(self, path):
        self.path, self.text = path, unpacked(path)
        if b"\r" in self.text:  # lines may end in CR, LF or both
            self.text = self.text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        scanned = scan(np.frombuffer(self.text, np.uint8), LARGEST)
        what, line, start, stop, self.rows, low, high, self.high_line = (int(v) for v in scanned)
        if what:
            token = self.text[start:stop][:40].decode("utf-8", "replace").strip()
            raise UserError(f"{path}:{line}: " + COMPLAINTS[what].format(token=token, largest=f"{LARGEST:,}"))
        if self.rows == 0:
            raise UserError(f"{path}: the file holds no data")
        self.low, self.high = (None, -1) if low > high else (low, high)

    def matrix(self, width, base, dtype):
        """(X, y) by scikit-learn's reader."""
        from sklearn.datasets import load_svmlight_file

        with np.errstate(over="ignore"):
            X, y = load_svmlight_file(io.BytesIO(self.text), n_features=width, zero_based=base == 0, dtype=dtype)
        X = scipy.sparse.csr_matrix((X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)), X.shape)
        for values, row in ((y, lambda i: i), (X.data, lambda i: np.searchsorted(X.indptr, i, side="right") - 1)):
            bad = np.flatnonzero(~np.isfinite(values))  # 1e999 parses, and is inf
            if bad.size:
                raise UserError(f"{self.path}:{self.line(row(bad[0]))}: a number is too large for {np.dtype(dtype)}")
        return X, y

    def line(self, row):
        """The line number of data row `row`, from 0: empty lines and comments are not rows."""
        seen = -1
        for line, text in enumerate(self.text.split(b"\n"), 1):
            seen += bool(text.split(b"#")[0].strip())
            if seen == row:
                return line


def stack(parts):
    if len(parts) == 1:
        return parts[0]
    X = scipy.sparse.vstack([X for X, _ in parts], format="csr")
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return X, np.concatenate([y for _, y in parts])


def place(texts, row):
    """file:line of a row of several files in order."""
    for text in texts:
        if row < text.rows:
            return f"{text.path}:{text.line(row)}"
        row -= text.rows


def labelled(y, texts, kind, dtype):
    """(labels of the file in order, y in our form) for a training set."""
    if kind == "regression":
        return None, y.astype(dtype)
    labels = tuple(float(v) for v in np.unique(y))
    name = texts[0].path
    if len(labels) == 1:
        raise UserError(f"{name}: all labels are {labels[0]:g}; classification needs at least two classes")
    if kind == "binary" and len(labels) > 2:
        raise UserError(
            f"{name}: {len(labels)} different labels, not two; read it with kind='multiclass' or kind='regression'"
        )
    return labels, mapped(y, labels, texts, kind, dtype)


def mapped(y, labels, texts, kind, dtype):
    if kind == "regression":
        return y.astype(dtype)
    c = np.minimum(np.searchsorted(labels, y), len(labels) - 1)
    strange = np.flatnonzero(np.asarray(labels)[c] != y)
    if strange.size:
        known = ", ".join(f"{v:g}" for v in labels[:10]) + (", ..." if len(labels) > 10 else "")
        raise UserError(
            f"{place(texts, strange[0])}: label {y[strange[0]]:g} does not occur in the training set, "
            f"whose labels are {known}"
        )
    return c if kind == "multiclass" else (2 * c - 1).astype(dtype)


# ------------------------------------------------------------------------------------------------------- the check
LABEL, PAIR, NOT_FINITE, NEGATIVE, REPEATED, DESCENDING, LARGE = range(1, 8)
COMPLAINTS = {
    LABEL: "the line must start with a number, the label, got {token!r}",
    PAIR: "expected index:value, got {token!r}",
    NOT_FINITE: "{token!r} is not a finite number",
    NEGATIVE: "the index of {token!r} is negative",
    REPEATED: "the index of {token!r} occurs twice in the line",
    DESCENDING: "the index of {token!r} is smaller than the one before it; indices must rise",
    LARGE: "the index of {token!r} is larger than {largest}",
}


@numba.njit(cache=True)
def is_number(text, i, j):
    """1 if text[i:j] is a decimal number, 2 if it is nan or inf in any spelling, 0 otherwise."""
    if i < j and (text[i] == 43 or text[i] == 45):  # + -
        i += 1
    if i < j and (text[i] | 32 == 110 or text[i] | 32 == 105):  # n i: nan, inf, infinity
        word = text[i:j]
        for name in (b"nan", b"inf", b"infinity"):
            same = len(name) == word.size
            for k in range(min(len(name), word.size)):
                same = same and word[k] | 32 == name[k]
            if same:
                return 2
        return 0
    digits = 0
    while i < j and 48 <= text[i] <= 57:
        i, digits = i + 1, digits + 1
    if i < j and text[i] == 46:  # .
        i += 1
        while i < j and 48 <= text[i] <= 57:
            i, digits = i + 1, digits + 1
    if digits == 0:
        return 0
    if i < j and text[i] | 32 == 101:  # e
        i += 1
        if i < j and (text[i] == 43 or text[i] == 45):
            i += 1
        if i == j:
            return 0
        while i < j and 48 <= text[i] <= 57:
            i += 1
    return int(i == j)


@numba.njit(cache=True)
def scan(text, largest):
    """(complaint or 0, its line, start and stop of its token, rows, lowest and highest index, line of the highest)."""
    n, i, line, rows = text.size, 0, 0, 0
    low, high, high_line = 2**62, -1, 0
    while i < n:
        line += 1
        last, first = -1, True
        while i < n and text[i] != 10:
            c = text[i]
            if c == 35:  # comment: skip to the end of the line
                while i < n and text[i] != 10:
                    i += 1
                break
            if c == 32 or c == 9:
                i += 1
                continue
            start, colon = i, -1
            while i < n and text[i] > 32 and text[i] != 35:
                if text[i] == 58 and colon < 0:
                    colon = i
                i += 1
            if i == start:  # a control character
                return LABEL if first else PAIR, line, start, start + 1, rows, low, high, high_line
            if first:
                what = is_number(text, start, i)
                if what != 1:
                    return LABEL if what == 0 else NOT_FINITE, line, start, i, rows, low, high, high_line
                first, rows = False, rows + 1
                continue
            what = 0 if colon < 0 else is_number(text, colon + 1, i)
            p = start + int(text[start] == 45 or text[start] == 43)  # - +
            if what == 0 or p == colon:
                return PAIR, line, start, i, rows, low, high, high_line
            index = 0
            while p < colon:
                if not 48 <= text[p] <= 57:
                    return PAIR, line, start, i, rows, low, high, high_line
                index = min(10 * index + (text[p] - 48), largest + 1)
                p += 1
            if text[start] == 45:
                return NEGATIVE, line, start, i, rows, low, high, high_line
            if index > largest:
                return LARGE, line, start, i, rows, low, high, high_line
            if index <= last:
                return REPEATED if index == last else DESCENDING, line, start, i, rows, low, high, high_line
            if what == 2:
                return NOT_FINITE, line, start, i, rows, low, high, high_line
            last, low = index, min(low, index)
            if index > high:
                high, high_line = index, line
        i += 1
    return 0, 0, 0, 0, rows, low, high, high_line
