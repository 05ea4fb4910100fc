"""Claims: what theory or a paper predicts, what the runs say, and whether it holds.

A claim is a function of the results. It returns (measured, holds) or (measured, holds, note); measured is a number or
a text. It may raise `Undecided("reason")`. Claims are computed, never typed in, and a false one is a result too:

    @experiment.claim("slope", "the gap to SGD shrinks like gamma^2", expected="2 ± 0.3", source="Theorem 3")
    def slope(results):
        slopes = ...                            # one a seed
        return decided(spread(slopes), within(slopes, 1.7, 2.3))

Numbers with noise are judged by lab/verdicts.py alone. `expected` says the margin, and with it what would have made the
claim false.
"""

import dataclasses
import sys
import traceback

from lab.results import MissingRuns
from lab.verdicts import Undecided, close, lower, no_higher, shown, together
from npopt.errors import UserError

import numpy as np


@dataclasses.dataclass
class Claim:
    """One line of the claims table. holds is True, False or None. None means undecided, for the reason in the note, or
    broken: a bug kept the claim from being computed."""

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
    """The claim with what `function()` measured. Undecided or MissingRuns leave it undecided, every other error leaves
    it broken. The reason is in the note."""
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


def decided(text, *verdicts):
    """What a claim returns that holds if all of these verdicts are true. A verdict is True, False or None."""
    verdict = together(verdicts)
    return (text, verdict) if verdict is not None else (text, None, "the 95 % intervals of these seeds cannot tell")


def larger(part, one, two, column, by=None, margin=0.0):
    """The function of a claim: method one ends above method two (see lab/verdicts.py).

    one, two   values of the tag "method", or dicts of tags
    by         None, or a column: each is taken at the value of its tag "lr" that is best by this column
    margin     if no order is seen, the claim also fails where method one is shown to end above by at most this
    """
    return lambda results: compared(results.select(part), one, two, column, by, lambda a, b: lower(b, a, margin))


def no_larger(part, one, two, column, margin, by=None):
    """The function of a claim: method one does not end above method two by more than the margin."""
    return lambda results: compared(results.select(part), one, two, column, by, lambda a, b: no_higher(a, b, margin))


def alike(part, one, two, column, margin, by=None):
    """The function of a claim: two methods end within the margin of each other."""
    return lambda results: compared(results.select(part), one, two, column, by, lambda a, b: close(a, b, margin))


def inside(part, by="validation_loss", over="lr", of="method"):
    """The function of a claim: every method of a part is best inside its grid of values (see Results.tuned)."""

    def judged(results):
        tuned = results.select(part).tuned(over, by, of)
        if min(len(found.scores) for found in tuned.values()) < 3:
            raise Undecided("fewer than three values have no inside")
        names = {", ".join(map(str, m)) if isinstance(m, tuple) else m: found for m, found in tuned.items()}
        ends, edges = (
            {name: f"{found.value:g}" for name, found in names.items() if found.inside is kind}
            for kind in (False, None)
        )
        text = f"{len(names) - len(ends) - len(edges)} of {len(names)} inside"
        text += f"; at an end: {listed(ends)}" if ends else ""
        text += f"; beside a value that diverges: {listed(edges)}" if edges else ""
        return decided(text, *(found.inside for found in names.values()))

    return judged


def on_every(groups, judged):
    """What a claim returns that must hold for each of [(name, runs)]. judged(name, runs) -> (measured, holds)."""
    found = {name: judged(name, runs)[:2] for name, runs in groups}
    return decided(listed({name: text for name, (text, _) in found.items()}), *(holds for _, holds in found.values()))


def paired(results, one, two, by):
    """The runs of two methods, or of two methods at their best rates, with the same seeds."""
    chosen = [results.select(**(which if isinstance(which, dict) else {"method": which})) for which in (one, two)]
    if by is not None:
        chosen = [next(iter(runs.tuned(by=by).values())).runs for runs in chosen]
    first, second = chosen
    if first.seeds != second.seeds:
        raise Undecided(f"the seeds differ: {first.seeds} and {second.seeds}")
    return first, second


def compared(results, one, two, column, by, verdict):
    first, second = paired(results, one, two, by)
    a, b = first.final(column), second.final(column)
    return decided(f"{spread(a)} and {spread(b)}; difference {shown(a, b)}", verdict(a, b))


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
