"""Claims: what theory or a paper predicts, what the runs say, and whether it holds.

A claim is a function of the results. It returns (measured, holds) or (measured, holds, note); measured is a number or
a text. It may raise `Undecided("reason")`. Claims are computed, never typed in, and a false one is a result too:

    @experiment.claim("slope", "the gap to SGD shrinks like gamma^2", expected="2 ± 0.3", source="Theorem 3")
    def slope(results):
        s = ...
        return s, abs(s - 2) <= 0.3
"""

import dataclasses
import math
import sys
import traceback

from lab.results import MissingRuns
from npopt.errors import UserError

import numpy as np
import scipy.stats


class Undecided(Exception):
    """Raised by a claim that the runs at hand cannot decide; the reason is shown beside it."""


@dataclasses.dataclass
class Claim:
    """One line of the claims table. holds is True, False, or None: undecided, for the reason in the note, or broken: a
    bug kept it from being computed."""

    id: str
    statement: str
    expected: str
    source: str = ""
    measured: str = ""
    holds: bool | None = None
    note: str = ""
    broken: bool = False

    @property
    def mark(self):
        return "broken" if self.broken else {True: "holds", False: "does not hold", None: "undecided"}[self.holds]


def judge(claim, function):
    """The claim with what `function()` measured. Undecided or MissingRuns leave it undecided, every other error broken;
    the reason is in the note."""
    try:
        outcome = function()
        if not isinstance(outcome, tuple) or len(outcome) not in (2, 3):
            raise UserError(f"the function must return (measured, holds) or (measured, holds, note), got {outcome!r}")
        measured, holds, note = (*outcome, "")[:3]
        if isinstance(measured, (float, np.floating)) and np.isnan(measured) and holds is not None:
            holds, note = None, note or "the measured value is not a number"
        holds = None if holds is None else bool(holds)
        return dataclasses.replace(claim, measured=show(measured), holds=holds, note=str(note))
    except (Undecided, MissingRuns) as reason:
        return dataclasses.replace(claim, holds=None, note=str(reason))
    except Exception as error:
        print(f"claim {claim.id} could not be computed:", file=sys.stderr)
        traceback.print_exc()
        return dataclasses.replace(claim, broken=True, note=f"not computed, {type(error).__name__}: {error}")


def show(value):
    """A number as a table shows it: 4 digits; everything else as text."""
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:d}"
    if isinstance(value, (float, np.floating)):
        return f"{int(value):d}" if np.isfinite(value) and value == int(value) and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def spread(values, digits=4):
    """'mean +- standard deviation (n seeds)', as claims about noise must report it."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return f"{values.mean():.{digits}g} (1 seed)"
    size = np.abs(values).max()  # scaled, so that squares of huge values do not overflow
    deviation = (values / size).std(ddof=1) * size if 0 < size < np.inf else 0.0 if size == 0 else np.nan
    return f"{values.mean():.{digits}g} ± {deviation:.2g} ({len(values)} seeds)"


def different(a, b):
    """(mean of a - b over paired seeds, twice its standard deviation, whether the first exceeds the second in size).

    a, b: (seeds,), the same seeds in the same order. Under 3 seeds, or with values that are not finite (diverged runs),
    it raises Undecided: one cannot tell from noise.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    lost = int((~np.isfinite(a)).sum() + (~np.isfinite(b)).sum())
    if lost:
        raise Undecided(f"{lost} of {len(a) + len(b)} values are not finite (diverged runs)")
    d = np.asarray(a, float) - np.asarray(b, float)
    if len(d) < 3:
        raise Undecided(f"a difference needs at least 3 seeds, there are {len(d)}")
    mean, two = float(d.mean()), float(2 * d.std(ddof=1))
    return mean, two, abs(mean) > two


def lower(a, b):
    """Whether a is below b over paired seeds: True or False by more than two standard deviations, else None."""
    mean, _, clear = different(a, b)
    return mean < 0 if clear else None


def decided(text, *verdicts):
    """What a claim returns that holds where all of several verdicts (True, False or None) are true."""
    if all(verdict is True for verdict in verdicts):
        return text, True
    if any(verdict is False for verdict in verdicts):
        return text, False
    return text, None, "the difference is below two standard deviations"


def no_difference(part, one, two, column, by=None):
    """The function of a claim: two methods end with the same value, within two standard deviations over seeds.

    one, two   values of the tag "method", or dicts of tags
    by         None, or a column: each is taken at the value of its tag "lr" that is best by this column
    """
    return lambda results: compared(results.select(part), one, two, column, by, lambda mean, clear: not clear)


def larger(part, one, two, column, by=None):
    """The function of a claim: method one ends above method two by more than two standard deviations over seeds."""
    return lambda results: compared(results.select(part), one, two, column, by, lambda mean, clear: clear and mean > 0)


def alike(part, one, two, column, margin, by=None):
    """The function of a claim: two methods end within `margin` of each other. It holds where the 95 % interval of the
    mean difference over paired seeds lies within the margin, fails where it lies beyond, and else is undecided."""

    def judged(results):
        first, second = paired(results.select(part), one, two, by)
        a, b = first.final(column), second.final(column)
        mean, twice, _ = different(a, b)
        half = twice / 2 / math.sqrt(len(a)) * scipy.stats.t.ppf(0.975, len(a) - 1)
        text = f"{spread(a)} and {spread(b)}; difference {mean:.2g} ± {half:.2g} (95 %)"
        if abs(mean) + half <= margin:
            return text, True
        if abs(mean) - half > margin:
            return text, False
        return text, None, f"{len(a)} seeds cannot tell a margin of {margin:g}"

    return judged


def inside(part, by, over="lr", of="method", least=False):
    """The function of a claim: every method of a part is best inside its grid of values (see Results.tuned)."""

    def judged(results):
        tuned = results.select(part).tuned(over, by, least, of)
        if min(len(found.scores) for found in tuned.values()) < 3:
            raise Undecided("fewer than three values have no inside")
        ends = {
            ", ".join(m) if isinstance(m, tuple) else m: f"{found.value:g}"
            for m, found in tuned.items()
            if not found.inside
        }
        text = f"{len(tuned) - len(ends)} of {len(tuned)} inside"
        return text + (f"; at an end: {listed(ends)}" if ends else ""), not ends

    return judged


def on_every(groups, judged):
    """What a claim returns that must hold for each of [(name, runs)]: `judged(name, runs)` -> (measured, holds)."""
    found = {name: judged(name, runs) for name, runs in groups}
    return listed({name: text for name, (text, _) in found.items()}), all(holds for _, holds in found.values())


def paired(results, one, two, by):
    """The runs of two methods, or of two methods at their best rates, with the same seeds."""
    chosen = [results.select(**(which if isinstance(which, dict) else {"method": which})) for which in (one, two)]
    if by is not None:
        chosen = [next(iter(runs.tuned(by=by).values())).runs for runs in chosen]
    first, second = chosen
    if first.seeds != second.seeds:
        raise Undecided(f"the seeds differ: {first.seeds} and {second.seeds}")
    return first, second


def compared(results, one, two, column, by, holds):
    first, second = paired(results, one, two, by)
    a, b = first.final(column), second.final(column)
    mean, twice, clear = different(a, b)
    return f"{spread(a)} and {spread(b)}; difference {mean:.2g}, two deviations {twice:.2g}", holds(mean, clear)


def slope(x, y):
    """The slope of the least-squares line through log y against log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def spreads(found, unit=""):
    """'a 1 ± 0.1 (3 seeds), b ...' of a dict of values over seeds."""
    return listed({name: spread(values) + unit for name, values in found.items()})


def listed(found):
    """'a 0.1, b 0.2' of a dict."""
    return ", ".join(f"{name} {show(value)}" for name, value in found.items())


def counts(claims):
    """(held, failed, undecided) of a list of claims, or of their dicts."""
    holds = [c["holds"] if isinstance(c, dict) else c.holds for c in claims]
    return tuple(sum(h is which for h in holds) for which in (True, False, None))
