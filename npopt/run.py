"""What a run is told, when to stop and what to note, and what it returns."""

import inspect
import math
import os
import platform
import signal
import threading
import time

from npopt import backend
from npopt.errors import UserError
from npopt.values import Value, number, whole
from npopt.version import __version__

import numpy as np

ENDS = ("target", "patience")  # reasons that a row of columns gives


class Stop(Value):
    """When a run ends: by whichever of these comes first. epochs may be a fraction. evaluations are rows differentiated
    plus rows evaluated. seconds are those of steps: metrics and files do not count. target=(column, value) or (column,
    "<=" or ">=", value) is looked at when metrics are taken, and so is patience=(column, rows): the run ends where the
    column's least value is `rows` rows old. Its x is then the last one, not the one of that row."""

    def __init__(self, epochs=None, steps=None, evaluations=None, seconds=None, target=None, patience=None):
        for name, value in dict(epochs=epochs, evaluations=evaluations, seconds=seconds).items():
            if value is not None:
                number("Stop", name, value, low=0)
        if steps is not None:
            steps = whole("Stop", "steps", steps, low=0)
        if target is not None:
            fits = isinstance(target, (tuple, list)) and len(target) in (2, 3) and isinstance(target[0], str)
            if not fits or (len(target) == 3 and target[1] not in ("<=", ">=")):
                raise UserError(
                    f'Stop: target must be (column, value) or (column, "<=" or ">=", value), got {target!r}'
                )
            target = (*target[:-1], number("Stop", "the target's value", target[-1]))
        self.epochs, self.steps, self.evaluations = epochs, steps, evaluations
        if patience is not None:
            if not isinstance(patience, (tuple, list)) or len(patience) != 2 or not isinstance(patience[0], str):
                raise UserError(f"Stop: patience must be (column, number of rows), got {patience!r}")
            patience = patience[0], whole("Stop", "the rows of patience", patience[1])
        self.seconds, self.target, self.patience = seconds, target, patience
        if all(v is None for v in (epochs, steps, evaluations, seconds, target, patience)):
            raise UserError("Stop: give at least one of epochs, steps, evaluations, seconds, target, patience")

    def total(self, steps_per_epoch):
        """The number of steps if epochs or steps decide it; else None."""
        known = [] if self.steps is None else [self.steps]
        if self.epochs is not None:
            known.append(math.ceil(self.epochs * steps_per_epoch - 1e-9))
        return min(known) if known else None

    def budgets(self, total, steps, evaluations, seconds):
        """(reason to end, what is spent, what may be spent or None) three times; total: as above."""
        reason = "steps" if self.steps == total else "epochs"
        spent = (reason, steps, total), ("evaluations", evaluations, self.evaluations)
        return *spent, ("seconds", seconds, self.seconds)

    def ended(self, columns):
        """The reason that the last row of columns gives to end, "target" or "patience", or None."""
        for name, asked in (("target", self.target), ("patience", self.patience)):
            if asked is not None and asked[0] not in columns:
                there = ", ".join(columns)
                raise UserError(f"Stop: the {name}'s column {asked[0]!r} is not measured; there are {there}")
        if self.target is not None:
            last, value = columns[self.target[0]][-1], self.target[-1]
            if last >= value if self.target[1] == ">=" else last <= value:
                return "target"
        if self.patience is not None:
            seen, rows = columns[self.patience[0]], self.patience[1]
            if len(seen) > rows and not min(seen[-rows:]) < min(seen[:-rows]):
                return "patience"
        return None


class Events(Value):
    """What happens between stretches of steps. metrics: a row of columns every so many epochs (may be a fraction) or
    steps (per); None: at the start and the end only. checkpoint: a path, saved every `seconds` and at the end.
    progress: a function of (fraction done, epoch, loss), called about twice a second. variance: a column of that name,
    for linear models and fixed batches (problems.batched): the variance of the estimator's gradient for one drawn row,
    or batch. Each of its numbers takes a pass or two over all rows, which is not timed."""

    def __init__(self, metrics=1, per="epoch", checkpoint=None, seconds=30, progress=None, variance=False):
        if metrics is not None:
            number("Events", "metrics", metrics, low=0, open_low=True)
        if per not in ("epoch", "step"):
            raise UserError(f'Events: per must be "epoch" or "step", got {per!r}')
        number("Events", "seconds", seconds, low=0)
        if checkpoint is not None and (not isinstance(checkpoint, (str, os.PathLike)) or not str(checkpoint)):
            raise UserError(f'Events: checkpoint must be a file\'s path, such as "run.npz", got {checkpoint!r}')
        self.metrics, self.per, self.checkpoint = metrics, per, checkpoint
        self.seconds, self.progress, self.variance = seconds, progress, bool(variance)

    def next(self, step, steps_per_epoch):
        """The first step after `step` at which a row is due."""
        if self.metrics is None:
            return math.inf
        unit = self.metrics * (steps_per_epoch if self.per == "epoch" else 1)
        k = math.floor(step / unit + 1e-9) + 1
        return max(step + 1, math.ceil(k * unit - 1e-9))


class Run:
    """A finished, stopped or interrupted run.

    columns: dict of lists, one entry a row: epoch, step, seconds, gradients, values, bytes, lr, loss (the mean of the
    steps' losses since the row before; NaN in the first row), then the problem's metrics at the optimizer's answer.
    Where steps are compiled on sparse rows, the l2 term of those losses is that at the start of their stretch (an epoch
    or less).
    x, answer: arrays on the device. reason: "epochs", "steps", "evaluations", "seconds", "target", "patience",
    "diverged: ...", "interrupted". config: the printed ingredients. loop: "python" or "compiled".
    """

    def __init__(self, columns, x, answer, reason, config, loop):
        self.columns, self.x, self.answer = columns, x, answer
        self.reason, self.config, self.loop = reason, config, loop

    @property
    def final(self):
        """The last row, a dict."""
        return {name: column[-1] for name, column in self.columns.items() if column}

    @property
    def diverged(self):
        return self.reason.startswith("diverged")

    def __repr__(self):
        numbers = ", ".join(f"{k} {v:.6g}" for k, v in self.final.items() if np.ndim(v) == 0 and v)
        return f"Run({self.config.get('optimizer')} on {self.config.get('problem')}: {self.reason}; {numbers})"


def made(kind, value, default):
    """A Stop or an Events from itself, a dict of its arguments, or None."""
    if value is None:
        return kind(**default)
    if isinstance(value, dict):
        known = list(inspect.signature(kind).parameters)
        unknown = [name for name in value if name not in known]
        if unknown:
            raise UserError(
                f"minimize: {kind.__name__.lower()} has no {', '.join(map(repr, unknown))}; there is {', '.join(known)}"
            )
        return kind(**value)
    if not isinstance(value, kind):
        raise UserError(
            f"minimize: {kind.__name__.lower()} must be a {kind.__name__} or a dict of its arguments, got {value!r}"
        )
    return value


def versions():
    """What a result depends on: npopt, Python, NumPy, numba."""
    import numba

    return {
        "npopt": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


class Interrupt:
    """Within this context the first Ctrl-C sets `asked`, which ends the stretch at hand. A Ctrl-C more than HASTE
    seconds later raises KeyboardInterrupt. One before that is ignored: it comes from impatience, and would only lose
    the stretch."""

    HASTE = 2.0

    def __enter__(self):
        self.asked, self.before = False, None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self.note)
        return self

    def note(self, number, frame):
        if not self.asked:
            self.asked, self.at = True, time.monotonic()
        elif time.monotonic() - self.at > self.HASTE:
            raise KeyboardInterrupt

    def __exit__(self, *error):
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


def on_host(losses):
    """The losses on the host. The array of a compiled stretch stays as it is; losses on a device come in one go."""
    if isinstance(losses, np.ndarray):
        return losses
    if losses and getattr(losses[0], "shape", None) is not None and not isinstance(losses[0], np.generic):
        stacked = backend.to_host(backend.xp(losses[0]).stack(losses))
        return [float(v) for v in stacked]
    return losses
