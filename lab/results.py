"""Finished runs, and the few questions that claims and figures ask of them."""

import dataclasses
import math

import numpy as np


class MissingRuns(LookupError):
    """A claim or a figure asks for runs that are not there: another part, a seed or a method that was not run."""


@dataclasses.dataclass
class Finished:
    """A finished run. columns: name -> array (rows,), or (rows, k) where a metric is a vector; final: the last row.

    seconds are those of the steps alone; x and answer are None where the entry did not keep them.
    """

    part: str
    name: str
    seed: int
    config: dict
    columns: dict
    final: dict
    seconds: float
    reason: str
    loop: str = ""
    x: np.ndarray | None = None
    answer: np.ndarray | None = None
    memory: dict = dataclasses.field(default_factory=dict)
    key: str = ""

    @property
    def diverged(self):
        return self.reason.startswith("diverged")

    @property
    def rows(self):
        return len(next(iter(self.columns.values()), ()))


@dataclasses.dataclass
class Tuned:
    """A method at the value that served it best. scores: {value: mean score over seeds, NaN where a run diverged}."""

    value: float
    runs: "Results"
    scores: dict

    @property
    def inside(self):
        """Whether the best value lies inside the grid, so that a better one beyond its ends is unlikely."""
        return min(self.scores) < self.value < max(self.scores)


class Results(list):
    """A list of `Finished` in the order of the grid.

    results.select(part="a", name="momentum 0.9").final("loss")      one number a seed
    for name, runs in results.select(part="b").groups(): ...         the methods of a part, each over its seeds
    t, losses = runs.stack("loss", x="epoch")                        (rows,), (seeds, rows)
    """

    def select(self, part=None, name=None, seed=None):
        """The runs with this part, this name (or one of these names, or a function name -> bool) and this seed."""
        found = Results(
            run
            for run in self
            if (part is None or run.part == part) and matches(run.name, name) and (seed is None or run.seed == seed)
        )
        if not found:
            asked = {"part": part, "name": None if callable(name) else name, "seed": seed}
            asked = ", ".join(f"{k} {v!r}" for k, v in asked.items() if v is not None)
            raise MissingRuns(f"no finished run of {asked or 'that kind'}")
        return found

    @property
    def names(self):
        return list(dict.fromkeys(run.name for run in self))

    @property
    def parts(self):
        return list(dict.fromkeys(run.part for run in self))

    @property
    def seeds(self):
        return sorted({run.seed for run in self})

    def groups(self):
        """[(name, its runs)] in the order of the grid."""
        return [(name, self.select(name=name)) for name in self.names]

    def numbered(self, prefix):
        """{number behind the prefix of the name: its runs}, for sweeps: numbered("lr ") of "lr 0.1", "lr 1"."""
        chosen = self.select(name=lambda name: name.startswith(prefix))
        return {float(name.removeprefix(prefix)): runs for name, runs in chosen.groups()}

    def tuned(self, column, least=False):
        """{method: Tuned} of runs named "method: value", the value chosen by the last entry of a column (greatest, or
        least): one of held-out rows, never of test rows. A value at which any seed diverged is out of the question
        while another is left."""
        groups = {}
        for name, runs in self.groups():
            method, value = name.rsplit(": ", 1)
            groups.setdefault(method, {})[float(value)] = runs
        found = {}
        for method, values in groups.items():
            scores = {
                value: math.nan if any(run.diverged for run in runs) else float(np.mean(runs.final(column)))
                for value, runs in values.items()
            }
            finite = {value: score for value, score in scores.items() if math.isfinite(score)} or scores
            best = (min if least else max)(finite, key=finite.get)
            found[method] = Tuned(best, values[best], scores)
        return found

    def with_column(self, column, function):
        """The runs with one more column, computed from the dict of the others: with_column("error", lambda c: ...)."""
        return Results(
            dataclasses.replace(run, columns={**run.columns, column: np.asarray(function(run.columns))}) for run in self
        )

    def by_seed(self):
        """{seed: run} of one method."""
        return {run.seed: run for run in self}

    def final(self, column):
        """The last value of a column, one a run, as an array; NaN where a run diverged before it had one."""
        if all(column not in run.final for run in self):
            known = ", ".join(dict.fromkeys(c for run in self for c in run.final))
            raise MissingRuns(f"no run has a column {column!r}; the columns are {known or 'none'}")
        return np.array([run.final.get(column, math.nan) for run in self], float)

    def stack(self, y, x="epoch"):
        """(grid, values): the column y of every run over the common x. grid: (rows,), values: (runs, rows).

        The grid is the union of the runs' x. Between its own rows a run is interpolated, beyond its end it is NaN: a
        run that diverged early drops out of medians from there on, and the legend counts it.
        """
        runs = [run for run in self if y in run.columns and x in run.columns]
        if not runs:
            known = ", ".join(dict.fromkeys(c for run in self for c in run.columns))
            raise MissingRuns(f"no run has the columns {x!r} and {y!r}; the columns are {known or 'none'}")
        grid = np.unique(np.concatenate([np.asarray(run.columns[x], float) for run in runs]))
        values = np.full((len(runs), len(grid)), np.nan)
        for row, run in zip(values, runs, strict=True):
            xs, ys = np.asarray(run.columns[x], float), np.asarray(run.columns[y], float)
            xs, keep = np.unique(xs, return_index=True)
            known = np.isfinite(ys[keep])
            if known.any():
                row[:] = np.interp(grid, xs[known], ys[keep][known], left=np.nan, right=np.nan)
        return grid, values


def matches(name, wanted):
    if wanted is None:
        return True
    if callable(wanted):
        return bool(wanted(name))
    return name == wanted if isinstance(wanted, str) else name in wanted


def middle_and_band(values):
    """(median, low, high, what) over axis 0, NaN left out. The band: min to max under 5 runs, quartiles from 5 on."""
    values = np.asarray(values, float)
    quartiles = len(values) >= 5
    low, high = (25, 75) if quartiles else (0, 100)
    columns = np.isfinite(values).any(0)
    out = np.full((3, values.shape[1]), np.nan)
    out[:, columns] = np.nanpercentile(values[:, columns], (50, low, high), axis=0)
    return (*out, "quartiles" if quartiles else "min to max")
