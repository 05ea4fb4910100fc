"""Runs one after the other on one x: some variables first, then others, with a fresh method each time."""

import numbers

from npopt import backend, checkpoint
from npopt.contracts import Array, Problem
from npopt.errors import UserError
from npopt.estimators import Estimator
from npopt.minimize import _Loop
from npopt.optimizers import Optimizer
from npopt.precautions import check_arguments, starting_point
from npopt.run import Events, Run, Stop, made
from npopt.samplers import Sampler
from npopt.schedules import Schedule
from npopt.values import Value, printed, whole

ADDED = ("epoch", "step", "seconds", "gradients", "values", "bytes")  # columns that go on counting


class Phase(Value):
    """What `minimize` is given, for a part of a run; sampler, schedule, estimator and stop as there.

    names: of the segments (or blocks) of x that move, the others are held; None: all of them.
    depth: for a problem of layers, `problem.upto(depth)` in its place, whose loss looks at the output of that many.
    copies: {"1.W": "0.W"}: before the first step segment 1.W becomes what 0.W is, which has its shape.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule | float = 0.1,
        stop: Stop | None = None,
        names: list[str] | None = None,
        depth: int | None = None,
        sampler: Sampler | None = None,
        estimator: Estimator | None = None,
        copies: dict[str, str] | None = None,
    ):
        self.optimizer, self.schedule, self.names, self.depth = optimizer, schedule, names, depth
        self.copies = copies
        self.stop, self.sampler, self.estimator = made(Stop, stop, dict(epochs=10)), sampler, estimator


class _PhaseLoop(_Loop):
    """The loop of one phase; its checkpoint holds what came before as well: `before`, a dict. A file that is there when
    it starts is the one of the phase before, unless it `resumes`."""

    before, resumes = None, False

    def read(self, path):
        return checkpoint.load(path)["loop"] if self.resumes else None

    def load_state(self, state, path):
        if self.resumes:
            super().load_state(state, path)

    def write(self, path, state):
        checkpoint.save(path, {**self.before, "loop": state})


def in_phases(
    problem: Problem,
    phases: list[Phase],
    *,
    seed: int = 0,
    x: Array | None = None,
    events: Events | dict | None = None,
) -> Run:
    """Run the phases in turn, each from the answer of the one before it, with its own optimizer's state from the start.

    Phase i draws by the seed key(seed, "phase", i), so that no phase sees the draws of another. The other arguments are
    those of `minimize`. With a checkpoint path a run that is killed resumes there, in the phase in which it was, and
    ends bit for bit where it would have ended.

    Returns one Run: its columns are those of the phases after each other, with the number of the phase as a column
    `phase`; epochs, steps, seconds and counts go on. A phase that diverges or is interrupted ends the run.
    """
    phases, events = list(phases), made(Events, events, {})
    if not phases or not all(isinstance(phase, Phase) for phase in phases):
        raise UserError("in_phases: phases must be a list of one Phase or more, such as [Phase(Adam(), 1e-3)]")
    seed = whole("in_phases", "seed", seed, low=0)
    x = starting_point(problem, x, seed)
    asked = {"phases": [repr(phase) for phase in phases], "seed": seed, "start": printed(backend.to_host(x))}
    at, columns = 0, {}
    kept = _before(events.checkpoint, asked)
    if kept is not None:
        at, columns, x = kept["at"], kept["columns"], backend.asarray(kept["x"], x.dtype)
    run = None
    for i in range(at, len(phases)):
        before = {"asked": asked, "at": i, "columns": columns, "x": x}
        run, x = _phase(problem, phases, i, x, before, events, kept is not None and i == at)
        columns = joined(columns, run.columns, i)
        if run.diverged or run.reason == "interrupted":
            break
    config = {**run.config, "problem": problem.name, "phases": asked["phases"], "seed": seed}
    return Run(columns, x, x, run.reason, config, run.loop)


def _phase(problem, phases, i, x, before, events, resumes):
    """(the Run of phase i from the whole x, the whole x after it)"""
    phase, part, x = phases[i], problem, copied(problem, x, phases[i].copies)
    check_arguments(part, phase.optimizer, phase.sampler, phase.estimator, None)
    if phase.depth is not None:
        if not hasattr(problem, "upto"):
            raise UserError(f"in_phases: {problem.name} has no layers to look at; leave depth out")
        part = problem.upto(phase.depth)
    start = x
    if phase.names is not None:
        part = part.restrict(x, list(phase.names))
        start = part.first
    given = {name: getattr(phase, name) for name in ("sampler", "schedule", "estimator", "stop")}
    told = events.arguments() | {"progress": _share(events.progress, i, len(phases))}
    loop = _PhaseLoop(
        part,
        phase.optimizer,
        seed=backend.key(before["asked"]["seed"], "phase", i),
        x=start,
        vary=None,
        events=Events(**told),
        **given,
    )
    loop.before, loop.resumes = before, resumes
    run = loop.run()
    return run, run.answer if phase.names is None else part.place(run.answer).copy()


def copied(problem, x, copies):
    """x, or a copy of it in which some segments are copies of others."""
    if not copies:
        return x
    x, table = x.copy(), problem.segments
    for to, source in copies.items():
        if table.find(to).shape != table.find(source).shape:
            raise UserError(f"in_phases: copies: {to} and {source} have different shapes")
        x[table.find(to).slice] = x[table.find(source).slice]
    return x


def _before(path, asked):
    """What a checkpoint of the same phases says of those before the one that it is in; None where there is none."""
    try:
        kept = None if path is None else checkpoint.load(path)
    except FileNotFoundError:
        return None
    if kept is None:
        return None
    if not isinstance(kept, dict) or set(kept) != {"asked", "at", "columns", "x", "loop"}:
        raise checkpoint.Damaged(f"{path} is no checkpoint of phases; choose another path")
    if kept["asked"] != asked:
        raise checkpoint.Foreign(
            f"in_phases: {path} is the checkpoint of another run (other phases, seed or start); remove it or choose "
            "another path"
        )
    return kept


def _share(progress, i, count):
    """The progress callable of a phase: its fraction is a part of the whole's."""
    if progress is None:
        return None
    return lambda fraction, epoch, loss: progress((i + fraction) / count, epoch, loss)


def joined(columns, more, i):
    """The columns of the phases before, and of phase i; names that one side lacks are NaN there."""
    count, added = len(columns.get("step", ())), len(more["step"])
    nan, found = float("nan"), {}
    more = {"phase": [i] * added, **more}
    for name in dict.fromkeys([*columns, *more]):
        old, new = columns.get(name, [nan] * count), more.get(name, [nan] * added)
        if name in ADDED and count and isinstance(old[-1], numbers.Number):
            new = [old[-1] + v for v in new]
        found[name] = [*old, *new]
    return found
