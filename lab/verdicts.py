"""The one rule by which numbers with noise decide a claim, three ways: it holds, it does not, the runs cannot tell.

A verdict looks at the 95 % interval (Student's t) of a mean over seeds. This is the mean of a value, or of the
difference of two methods, paired by seed. A claim names a region before the runs are made. It holds if the whole
interval lies in the region, fails if no part of it does, and is undecided in between: more seeds shorten the interval.

    lower(a, b)             a is below b: the interval of a - b lies below 0
    lower(a, b, margin)     the same; but if the interval is not off zero, it also fails where a is shown to be lower by
                            no more than the margin
    no_higher(a, b, margin) a is not above b by more than the margin
    close(a, b, margin)     they differ by less than the margin
    within(values, low, high)

Each answers True, False or None. Ratios are differences of logarithms. A margin of 0 is for claims of order alone: then
only the opposite order makes them false.
"""

import math

import numpy as np
import scipy.special

LEVEL = 0.95


class Undecided(Exception):
    """Raised by a claim that the runs at hand cannot decide; the reason is shown beside it."""


def interval(a, b=0.0):
    """(mean of a - b over seeds, half the length of its 95 % interval).

    a, b: (seeds,), the same seeds in the same order; b may be a number. Under 3 seeds, or with values that are not
    finite (diverged runs), it raises Undecided, because then nothing can be told from noise.
    """
    pair = [np.atleast_1d(np.asarray(v, float)) for v in (a, b)]
    lost = sum(int((~np.isfinite(v)).sum()) for v in pair)
    if lost:
        count = sum(len(v) for v in (pair if np.ndim(b) else pair[:1]))
        raise Undecided(f"{lost} of {count} values are not finite (diverged runs)")
    d = pair[0] - pair[1]
    if len(d) < 3:
        raise Undecided(f"an interval needs at least 3 seeds, there {'is' if len(d) == 1 else 'are'} {len(d)}")
    t = scipy.special.stdtrit(len(d) - 1, (1 + LEVEL) / 2)  # the quantile of Student's law
    return float(d.mean()), float(t * d.std(ddof=1) / math.sqrt(len(d)))


def lower(a, b, margin=0.0):
    """Whether a is below b. If no order is seen, it is also False where a is shown to be below by at most the
    margin."""
    mean, half = interval(a, b)
    return True if mean + half < 0 else False if mean - half >= -margin else None


def no_higher(a, b, margin):
    """Whether a is above b by at most the margin."""
    return within(np.subtract(a, b), high=margin)


def close(a, b, margin):
    """Whether a and b differ by at most the margin."""
    return within(np.subtract(a, b), -margin, margin)


def within(values, low=-math.inf, high=math.inf):
    """Whether the mean lies in [low, high]."""
    mean, half = interval(values)
    if low <= mean - half and mean + half <= high:
        return True
    return False if mean + half < low or mean - half > high else None


def together(verdicts):
    """The verdict on "all of them": False where one fails, None where one is undecided."""
    verdicts = [None if v is None else bool(v) for v in verdicts]
    return False if False in verdicts else None if None in verdicts else True


def shown(a, b=0.0, digits=2):
    """'0.3 ± 0.1 (95 %)' of the mean difference."""
    mean, half = interval(a, b)
    return f"{mean:.{digits}g} ± {half:.2g} (95 %)"
