"""What a script asks for: parts, recipes for problems, and the entries of the grid. Nothing here runs anything."""

import ast
import dataclasses
import hashlib
import inspect
import textwrap
from typing import Any

from npopt.values import printed


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

    Each run builds its own, in its own process, because a problem has state (batch-norm statistics, an LSTM's carry);
    what is worth sharing is the data, and `lab.dataset` keeps the last few sets that a process has loaded.
    The keyword `data` is the name of a data set, by convention: its sha256 goes into the key of the run.
    """

    def __init__(self, function, /, **arguments):
        if not callable(function):
            raise TypeError(f"Recipe: the first argument must be a function that builds a problem, got {function!r}")
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

    def code(self):
        """A hash of the function's syntax tree if the script itself defines it, '' for one of the library.

        Comments, layout and the docstring do not count. What the function calls is not followed.
        """
        if getattr(self.function, "__module__", None) != "__main__":
            return ""
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(self.function)))
        except (OSError, TypeError, SyntaxError):  # typed at a prompt, or a lambda inside an expression
            return ""
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


@dataclasses.dataclass
class Entry:
    """One line of the grid: a method on a problem, for every seed. The values are those of `npopt.minimize.minimize`.

    part, name      labels; a pair occurs once in a script
    problem         Recipe that builds the problem
    stop            None: Stop(epochs=args.epochs)
    metrics, per    an events row every `metrics` epochs or steps
    variance        a column with the variance of the gradient estimate (linear models)
    seeds           None: those of --seeds
    keep            whether x stays in the store; None: if it has at most a million numbers
    run             instead of all this, Recipe of a function that does the work itself: it is called with the recipe's
                    arguments, seed=, and events= (an Events with the checkpoint path and the progress callable), and
                    returns a Run or a dict of columns (name -> list)
    """

    part: str
    name: str
    problem: Recipe | None = None
    optimizer: Any = None
    sampler: Any = None
    schedule: Any = 0.1
    estimator: Any = None
    vary: Any = None
    stop: Any = None
    metrics: Any = 1
    per: str = "epoch"
    variance: bool = False
    seeds: Any = None
    keep: bool | None = None
    run: Recipe | None = None

    def __post_init__(self):
        where = f"entry {self.part}/{self.name}"
        if self.run is None and not (isinstance(self.problem, Recipe) and self.optimizer is not None):
            raise TypeError(f"{where}: give problem=Recipe(...) and optimizer=..., or run=Recipe(...)")
        if self.run is not None and not isinstance(self.run, Recipe):
            raise TypeError(f"{where}: run must be a Recipe, got {type(self.run).__name__}")

    @property
    def recipe(self):
        return self.run or self.problem

    def printed(self):
        """The call that the entry stands for, without its labels: the main ingredient of the key."""
        shown = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for label in ("part", "name", "seeds", "keep"):
            shown.pop(label)
        if not self.variance:
            shown.pop("variance")
        if self.run is not None:
            shown = {name: shown[name] for name in ("run", "metrics", "per")}
        else:
            shown.pop("run")
        return f"Entry({', '.join(f'{name}={printed(value)}' for name, value in shown.items())})"
