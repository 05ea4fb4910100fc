"""What a script asks for: parts, recipes for problems, and the entries of the grid. Nothing here runs anything."""

import dataclasses
import inspect
from typing import Any

from lab import ingredients
from lab.tags import checked, label
from npopt.errors import UserError
from npopt.values import printed

VALUES = (
    "problem",
    "optimizer",
    "sampler",
    "schedule",
    "estimator",
    "vary",
    "stop",
    "metrics",
    "per",
    "variance",
    "run",
)  # what an entry does: the ingredients of its key


@dataclasses.dataclass
class Part:
    """A part of a script: its title, and the names of the data sets that `--data bundled` and `--data real` mean here.

    A part without data sets (a toy function, generated data) leaves both empty.
    """

    title: str
    bundled: Any = ()
    real: Any = ()

    def __post_init__(self):
        self.bundled, self.real = (
            [names] if isinstance(names, str) else list(names) for names in (self.bundled, self.real)
        )

    @property
    def names(self):
        return [*self.bundled, *self.real]


class Recipe:
    """A problem, built when its run starts: Recipe(build, data="abalone", l2=0.1) calls build(data="abalone", l2=0.1).

    Each run builds its own, in its own process, because a problem has state (batch-norm statistics, an LSTM's carry).
    Only the data are worth sharing: `lab.dataset` keeps the last few sets that a process has loaded. The function is
    one of a module, and the arguments print as what they are: both stand for the problem in the key of the run. The
    keyword `data` is the name of a data set, by convention; that set's sha256 goes into the key, and so do those of
    files that an argument names.
    """

    def __init__(self, function, /, **arguments):
        ingredients.check_function("Recipe", function)
        for name, value in arguments.items():
            ingredients.check_value(f"Recipe({function.__qualname__}), argument {name}", value)
        self.function, self.arguments = function, arguments

    def __call__(self, **more):
        return self.function(**self.arguments, **more)

    def __repr__(self):
        name = getattr(self.function, "__qualname__", None) or printed(self.function)
        module = getattr(self.function, "__module__", "__main__")
        inside = ", ".join(f"{k}={printed(v)}" for k, v in self.arguments.items())
        return f"{name if module == '__main__' else f'{module}.{name}'}({inside})"

    def __eq__(self, other):
        return isinstance(other, Recipe) and repr(self) == repr(other)

    def __hash__(self):
        return hash(repr(self))

    @property
    def data(self):
        """The name of the data set, or None."""
        return self.arguments.get("data")


class Entry:
    """One line of the grid: a method on a problem, for every seed. The values are those of `npopt.minimize.minimize`.

        Entry("b", problem, AdamW(), RandomReshuffling(64), 0.01, method="AdamW", data="a9a", lr=0.01)

    part            of the script
    problem         Recipe that builds the problem
    stop            None: Stop(epochs=args.epochs)
    metrics, per    an events row every `metrics` epochs or steps
    variance        a column with the variance of the gradient estimate (linear models)
    seeds           None: those of --seeds
    keep            whether x stays in the store; None: if it has at most a million numbers
    run             instead of all this, Recipe of a function that does the work itself: it is called with the recipe's
                    arguments, seed=, and events= (an Events with the checkpoint path and the progress callable), and
                    returns a Run or a dict of columns (name -> list)
    tags            all other keywords: texts, numbers, truth values, by which results are selected, grouped, named and
                    tuned. No two entries of a part have the same. They decide nothing: the key leaves them out.
    """

    def __init__(
        self,
        part,
        problem=None,
        optimizer=None,
        sampler=None,
        schedule=0.1,
        *,
        estimator=None,
        vary=None,
        stop=None,
        metrics=1,
        per="epoch",
        variance=False,
        seeds=None,
        keep=None,
        run=None,
        **tags,
    ):
        self.problem, self.optimizer, self.sampler, self.schedule = problem, optimizer, sampler, schedule
        self.estimator, self.vary, self.stop, self.metrics, self.per = estimator, vary, stop, metrics, per
        self.variance, self.seeds, self.keep, self.run, self.part = variance, seeds, keep, run, part
        self.tags = checked(f"entry of part {part}", tags, (*VALUES, "part", "seed", "seeds", "keep", "name"))
        where = f"entry {part}/{self.name}"
        if run is None and not (isinstance(problem, Recipe) and optimizer is not None):
            raise UserError(f"{where}: give problem=Recipe(...) and optimizer=..., or run=Recipe(...)")
        if run is not None and not isinstance(run, Recipe):
            raise UserError(f"{where}: run must be a Recipe, got {type(run).__name__}")
        for name in VALUES[1:-1]:
            ingredients.check_value(f"{where}: {name}", getattr(self, name))

    @property
    def name(self):
        """Its tags in print."""
        return label(self.tags)

    @property
    def recipe(self):
        return self.run or self.problem

    @property
    def takes_wires(self):
        """Whether its runs are of nodes: in a simulation, whose clock is its own, or ranks over wires."""
        return self.run is not None and "wires" in inspect.signature(self.run.function).parameters

    def printed(self):
        """The call that the entry stands for, without part and tags: the main ingredient of the key."""
        if self.run is not None:
            names = ("run", "metrics", "per")
        else:
            names = [name for name in VALUES[:-1] if name != "variance" or self.variance]
        return f"Entry({', '.join(f'{name}={printed(getattr(self, name))}' for name in names)})"


def tell_apart(entry, seen):
    """Refuse an entry that has the tags of one before it, or tags that print alike; seen: {(part, name): tags}."""
    name = entry.part, label(dict(sorted(entry.tags.items())))
    if name not in seen:
        seen[name] = entry.tags
        return
    there = seen[name]
    pairs = [f"{tag} {there.get(tag)!r} and {value!r}" for tag, value in entry.tags.items() if there.get(tag) != value]
    if not pairs:
        raise UserError(f"two entries of part {entry.part!r} have the same tags: {entry.name or 'none'}")
    raise UserError(
        f"two entries of part {entry.part!r} print alike, {entry.name}, with {', '.join(pairs)}; "
        "give them a tag that tells them apart, such as a text"
    )
