"""Finished runs, and the few questions that claims and figures ask of them."""

import dataclasses
import math

from lab.tags import label, matches

import numpy as np


class MissingRuns(LookupError):
    """A claim or a figure asks for runs that are not there: another part, a seed or a method that was not run."""


@dataclasses.dataclass
class Finished:
    """A finished run. columns: name -> array (rows,), or (rows, k) if a metric is a vector. final: the last row. tags:
    those of the run's entry.

    seconds are those of the steps alone; x and answer are None where the entry did not keep them.
    """

    part: str
    tags: dict
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

    @classmethod
    def of(cls, part, tags, seed, key, stored):
        """From what the store keeps under a key."""
        columns = stored["columns"]
        final = {name: values[-1].item() for name, values in columns.items() if values.ndim == 1 and len(values)}
        facts = {name: stored[name] for name in ("config", "reason", "seconds", "loop", "memory")}
        x = stored.get("x")
        return cls(
            part, tags, seed, columns=columns, final=final, key=key, x=x, answer=stored.get("answer", x), **facts
        )

    @property
    def name(self):
        """Its tags in print."""
        return label(self.tags)

    @property
    def diverged(self):
        return self.reason.startswith("diverged")

    @property
    def rows(self):
        return len(next(iter(self.columns.values()), ()))


@dataclasses.dataclass
class Tuned:
    """A method at the value that was chosen. scores: {value: mean score over seeds, NaN where a run diverged}."""

    value: float
    runs: "Results"
    scores: dict

    @property
    def inside(self):
        """Whether the value lies inside the grid: False at an end, None beside a value that diverged. There only a
        finer grid tells how near the edge the best value lies."""
        values = sorted(self.scores)
        at = values.index(self.value)
        if at in (0, len(values) - 1):
            return False
        return True if all(math.isfinite(self.scores[values[at + k]]) for k in (-1, 1)) else None


class Results(list):
    """A list of `Finished` in the order of the grid.

    results.select("a", method="momentum", beta=0.9).final("loss")   one number a seed
    for lr, runs in results.select("b").groups("lr"): ...            the runs by a tag, each group over its seeds
    best = results.select("b").tuned(over="lr", by="validation_loss"); best["Adam"].runs
    t, losses = runs.stack("loss", x="epoch")                        (rows,), (seeds, rows)
    """

    def select(self, part=None, seed=None, **tags):
        """The runs of this part, this seed, and with these tags: a value, several (a list, a tuple), or a function of
        the value -> bool. A run without such a tag is not among them. MissingRuns if no run is left."""
        found = Results(
            run for run in self
            if (part is None or run.part == part) and (seed is None or run.seed == seed)
            and all(tag in run.tags and matches(run.tags[tag], wanted) for tag, wanted in tags.items())
        )  # fmt: skip
        if not found:
            asked = {"part": part, "seed": seed} | {t: "of some kind" if callable(w) else w for t, w in tags.items()}
            asked = ", ".join(f"{k} {v!r}" for k, v in asked.items() if v is not None)
            raise MissingRuns(f"no finished run of {asked or 'that kind'}")
        return found

    def values(self, tag):
        """The different values of a tag, in the order of the grid."""
        return list(dict.fromkeys(run.tags[tag] for run in self if tag in run.tags))

    @property
    def parts(self):
        return list(dict.fromkeys(run.part for run in self))

    @property
    def seeds(self):
        return sorted({run.seed for run in self})

    def groups(self, *tags):
        """[(value of the tag, its runs)] in the order of the grid; of several tags: the tuple of their values. Runs
        that lack one of them are left out."""
        found = {}
        for run in self:
            if all(tag in run.tags for tag in tags):
                key = tuple(run.tags[tag] for tag in tags)
                found.setdefault(key[0] if len(tags) == 1 else key, Results()).append(run)
        return list(found.items())

    def lines(self):
        """[(name, runs)]: the runs by all their tags. The names leave out tags that are the same for all."""
        found = {}
        for run in self:
            found.setdefault((run.part, *run.tags.items()), Results()).append(run)
        common = set.intersection(*(set(run.tags.items()) for run in self)) if len(found) > 1 else set()
        return [
            (label(dict(item for item in runs[0].tags.items() if item not in common)) or runs[0].name, runs)
            for runs in found.values()
        ]

    def tuned(self, over="lr", by="validation_loss", of="method"):
        """{method: Tuned}: for each value of the tag `of` (of several tags: the tuple of their values) the value of the
        tag `over` to use. It is chosen by the last entry of the column `by`, where the least is best: a loss of
        held-out rows, never of test rows. Values within one standard error of the best mean are as good as the best;
        the middle one of these is taken. A value at which any seed diverged is taken only where there is no other."""
        found = {}
        for method, group in self.groups(*([of] if isinstance(of, str) else of)):
            values, scores = dict(group.groups(over)), group.means(by, over)
            if not values:
                continue
            finite = {value: score for value, score in scores.items() if math.isfinite(score)} or scores
            least = min(finite, key=finite.get)
            seeds = values[least].final(by)
            error = float(np.std(seeds, ddof=1) / math.sqrt(len(seeds))) if len(seeds) > 1 else 0.0
            good = [value for value in sorted(finite) if finite[value] <= finite[least] + error] or [least]
            best = good[(len(good) - 1) // 2]
            found[method] = Tuned(best, values[best], scores)
        return found

    def at_best(self, over="lr", by="validation_loss", of="method"):
        """The runs of every method at its best value, without the tag `over`, which no longer tells them apart."""
        best = self.tuned(over, by, of)
        return Results(
            dataclasses.replace(run, tags={k: v for k, v in run.tags.items() if k != over})
            for found in best.values()
            for run in found.runs
        )

    def with_column(self, column, function):
        """The runs with one more column, computed from the dict of the others: with_column("error", lambda c: ...)."""
        return Results(
            dataclasses.replace(run, columns={**run.columns, column: np.asarray(function(run.columns))}) for run in self
        )

    def in_passes(self):
        """The runs with a column "passes": rows differentiated / n."""
        new = [{"passes": run.columns["gradients"] / run.config["n"]} for run in self]
        return Results(dataclasses.replace(run, columns=run.columns | c) for run, c in zip(self, new, strict=True))

    def by_seed(self):
        """{seed: run} of one method."""
        return {run.seed: run for run in self}

    def final(self, column):
        """The last value of a column, one a run, as an array; NaN where a run diverged before it had one."""
        if all(column not in run.final for run in self):
            known = ", ".join(dict.fromkeys(c for run in self for c in run.final))
            raise MissingRuns(f"no run has a column {column!r}; the columns are {known or 'none'}")
        return np.array([run.final.get(column, math.nan) for run in self], float)

    def finals(self, column, *tags):
        """{value of the tag: last values of a column over seeds}; tags as in `groups`, by default the method."""
        return {value: runs.final(column) for value, runs in self.groups(*tags or ("method",))}

    def means(self, column, *tags):
        """{value of the tag: mean of the last values of a column over seeds, NaN where a run diverged}"""
        return {
            value: math.nan if any(run.diverged for run in runs) else float(np.mean(runs.final(column)))
            for value, runs in self.groups(*tags or ("method",))
        }

    def table(self, column, rows, columns):
        """(means, row values, column values) by two tags, in rising order; NaN also where nothing was run."""
        found = self.means(column, rows, columns)
        keys = [sorted({key[i] for key in found}) for i in (0, 1)]
        return np.array([[found.get((a, b), math.nan) for b in keys[1]] for a in keys[0]]), *keys

    def at(self, column, row):
        """The value of a column in a row, one a run."""
        return np.array([run.columns[column][row] for run in self], float)

    def until(self, column, level, count="step"):
        """The value of `count` in the first row whose column is at most `level`, one a run; inf where none is."""
        found = np.full(len(self), math.inf)
        for i, run in enumerate(self):
            rows = np.flatnonzero(run.columns[column] <= level)
            if len(rows):
                found[i] = run.columns[count][rows[0]]
        return found

    def late(self, column, share=1 / 2):
        """The mean of a column over the last `share` of the rows, one a run."""
        return np.array([np.mean(run.columns[column][run.rows - math.ceil(share * run.rows - 1e-9) :]) for run in self])

    def levels(self, column, over):
        """(values, means): the values of the tag `over`, rising, and for each the mean of a column over the last half
        of the rows: (seeds, values)."""
        found = {value: runs.late(column) for value, runs in sorted(self.groups(over))}
        return np.array(list(found)), np.array(list(found.values())).T

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


def middle_and_band(values):
    """(median, low, high, what) over axis 0, NaN left out. The band: min to max under 5 runs, quartiles from 5 on."""
    values = np.asarray(values, float)
    quartiles = len(values) >= 5
    low, high = (25, 75) if quartiles else (0, 100)
    columns = np.isfinite(values).any(0)
    out = np.full((3, values.shape[1]), np.nan)
    out[:, columns] = np.nanpercentile(values[:, columns], (50, low, high), axis=0)
    return (*out, "quartiles" if quartiles else "min to max")


def finer(values, found, part, by="validation_loss", over="lr", **tags):
    """The values of a grid. Once its runs are `found`, there are more, as in a finer grid about the best value: the
    geometric means with its neighbours, and beyond an end one value. For the grid of a script:

        def runs(args, found=None):             # called again with the finished runs of what it yielded first
            for lr in finer(RATES, found, "a", method="Adam"): ...
    """
    values = sorted(values)
    try:
        some = found.select(part, **{over: values}, **tags) if found is not None and len(values) > 2 else None
    except MissingRuns:
        some = None
    if some is None:
        return values
    best = some.tuned(over, by, of=())[()].value
    at = values.index(best)
    wide = [values[0] ** 2 / values[1], *values, values[-1] ** 2 / values[-2]]
    around = [math.sqrt(wide[at + k] * wide[at + k + 1]) for k in (0, 1)]
    ends = [wide[0]] * (at == 0) + [wide[-1]] * (at == len(values) - 1)
    return sorted({*values, *(float(f"{value:.3g}") for value in (*around, *ends))})
