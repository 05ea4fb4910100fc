"""Splitting rows with a recorded seed, and standardising columns by the training rows alone."""

from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np
import scipy.sparse


def split(n, fraction=0.2, seed=0):
    """(kept, held): sorted row numbers, round(fraction n) of them held, at least one on each side.

    The permutation comes from NumPy's RandomState, whose stream is frozen: the same rows on every version, for ever.
    """
    whole("split", "n", n, low=2)
    number("split", "fraction", fraction, low=0, high=1, open_low=True, open_high=True)
    held = min(max(round(fraction * n), 1), n - 1)
    order = np.random.RandomState(seed).permutation(n)
    return np.sort(order[held:]), np.sort(order[:held])


def column_statistics(X):
    """(mean, std) of the columns of dense rows in float64. A constant column has std 1, so it is only moved to 0."""
    X = np.asarray(X, dtype=np.float64)
    mean, std = X.mean(0), X.std(0)
    # A constant column's computed spread is rounding error of its mean, at most a few eps of its size.
    std[std <= 1e-14 * np.abs(X).max(0)] = 1.0
    return mean, std


def standardise(train, *others):
    """The arrays with every column moved and scaled to mean 0 and standard deviation 1 over `train`; then mean and std.

    Returns (train, *others, mean, std); the dtype of float32 and float64 arrays is kept. Dense rows only: moving the
    columns of a sparse matrix would fill it.
    """
    if any(scipy.sparse.issparse(X) for X in (train, *others)):
        raise UserError("standardise: the rows are sparse, and moving their columns would fill them; use .toarray()")
    mean, std = column_statistics(train)

    def scaled(X):
        X = np.asarray(X)
        return ((X - mean) / std).astype(X.dtype if X.dtype in (np.float32, np.float64) else np.float64)

    return (*(scaled(X) for X in (train, *others)), mean, std)


def channel_statistics(images):
    """(mean, std) of each channel of (n, H, W, C) images in their own units, float64; a constant channel has std 1."""
    pixels = images.reshape(-1, images.shape[-1])
    if pixels.dtype == np.uint8:  # exactly, from counts, without a copy in float64
        counts = np.zeros((pixels.shape[1], 256))
        for start in range(0, len(pixels), 100_000):  # a count converts its piece to 64-bit numbers
            for c, count in enumerate(counts):
                count += np.bincount(pixels[start : start + 100_000, c], minlength=256)
        values, total = np.arange(256.0), len(pixels)
        mean = np.array([c @ values / total for c in counts])
        variance = np.array([c @ (values - m) ** 2 / total for c, m in zip(counts, mean, strict=True)])
        std = np.sqrt(variance)
    else:
        mean, std = pixels.mean(0, dtype=np.float64), pixels.std(0, dtype=np.float64)
    return mean, np.where(std > 0, std, 1.0)
