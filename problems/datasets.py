"""Data sets by name: load("mnist"), load("a9a"). `names()` lists them.

    digits, breast_cancer, diabetes      bundled with scikit-learn: nothing to download
    mnist, fashion-mnist                 idx files, 28x28x1
    cifar-10                             binary records, 32x32x3: data_batch_1.bin, ..., test_batch.bin or the tar.gz
    cifar-10-jpeg                        the same pictures after JPEG compression, hence other data: its numbers are not
                                         CIFAR-10's; train.zip and test.zip of class/NNNN.jpg; nowhere to download
    a9a, w8a, abalone, news20, ...       the LIBSVM collection, in its scaled variant where it has one
    ptb, tinyshakespeare, chain          texts of words and of characters: a Text, see problems/texts.py
    sst2, goemotions, openbookqa, ...    short texts with labels, and poems: a Corpus, see problems/corpora.py
    opinions, moods                      the same, drawn by a grammar: problems/drawn.py

Sources: LeCun, Bottou, Bengio & Haffner, Proc. IEEE 86(11), 1998 (mnist); Xiao, Rasul & Vollgraf, arXiv:1708.07747,
2017 (fashion-mnist); Krizhevsky, tech. report, Toronto, 2009 (cifar-10); Chang & Lin, ACM TIST 2(3), 2011 (LIBSVM).
"""

import difflib
import functools
import os

from npopt.errors import UserError
from problems.rows import Dataset
from problems.sources import READERS

import numpy as np

__all__ = ["Dataset", "load", "names", "shared"]


def load(name, validation=0.0, seed=0, standard=None, dense=None, dtype=np.float64, check=True, rows=None, noise=0.0):
    """The Dataset of that name, or the Text, or the Corpus.

    rows         training rows that are kept, drawn at random, or the first tokens of a text; None: all
    noise        share of those rows whose label is drawn anew from all classes, with `seed`; before any are held out:
                 who has noisy labels has no others
    validation   fraction of those rows that is held out, with `seed`
    standard     standardise the columns; None: only breast_cancer and diabetes, whose columns have raw units
    dense        LIBSVM rows as an array (True) or CSR (False); None: an array if at least a quarter of it is non-zero
    dtype        of x (and of y, but for class numbers) where x is not an image: float64 or float32
    check        hold files to the known checksums

    Rows without a test file are split 80/20 with seed 0, which `source` records.
    """
    if is_path(name):
        raise UserError(how_to_read(name))
    if name not in READERS:
        near = difflib.get_close_matches(str(name), READERS, n=1, cutoff=0.0)[0]
        raise UserError(f"no data set is named {name!r}; the nearest name is {near!r}; all: {', '.join(names())}")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise UserError(f"load: dtype must be float32 or float64, got {dtype!r}")
    found = READERS[name](name, np.dtype(dtype), dense, check).measured().part(rows)
    if noise:
        found = found.with_label_noise(noise, seed)
    if validation:
        found = found.with_validation(validation, seed)
    if name in ("breast_cancer", "diabetes") if standard is None else standard:
        found = found.standardised()
    return found


FILES = (".libsvm", ".svm", ".txt", ".csv", ".npy", ".npz", ".gz", ".bz2", ".zip")  # as their names end


def is_path(name):
    """Whether it is a path rather than a name."""
    text = str(name)
    return text not in READERS and (text.endswith(FILES) or os.path.isfile(text) or text != os.path.basename(text))


def how_to_read(path):
    """The sentence for a user who gives a path where a name is wanted."""
    if not os.path.exists(path):
        return f"no data set is named {str(path)!r}, and there is no such file"
    return (
        f"{str(path)!r} is a path, not the name of a data set: problems.libsvm.read({str(path)!r}, kind='regression') "
        "reads LIBSVM text (or kind: binary, multiclass), and arrays go straight into a problem, as in Logistic(X, y)"
    )


@functools.lru_cache(maxsize=4)
def shared(name, **more):
    """`load(name, ...)`, kept: all problems of a process share the arrays, which nobody may write to."""
    return load(name, **more)


def names():
    """The names that `load` knows."""
    return sorted(READERS)
