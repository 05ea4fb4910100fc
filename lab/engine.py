"""Who does the runs: this process, worker processes of this machine, a Dask cluster, or ranks of MPI (ranks.py).

`execute` is the whole life of a run: look whether it is stored or locked, run it, store it. Everything around it only
hands out jobs and collects outcomes as they come. The process that makes a run stores it. So killing the command that
asked for runs loses none. A cluster without a common folder sends its runs back instead.
"""

import contextlib
import dataclasses
import math
import os
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from lab.processes import Interrupts
from lab.store import Store
from lab.workers import Lost, answered, packed, team
from nn import kernels
from npopt import backend, checkpoint
from npopt.checkpoint import FULL, Damaged, Unwritable
from npopt.errors import UserError

import numpy as np

KEPT = 1_000_000  # numbers of x up to which the store keeps it unasked
SMALL = 1 << 24  # multiply-adds of a step, as threads_of counts them: a millisecond or less of one thread


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a process sets before it runs anything. threads: how many a run may have; seconds: between two checkpoints;
    script: for workers, the path and the text of the experiment's script, or (None, None). ranks: those of the engine
    mpi, a lab.ranks.Ranks, or None."""

    device: str = "cpu"
    threads: int = 1
    kernels: str = "fast"
    seconds: float = 30.0
    script: tuple = (None, None)
    ranks: Any = None

    def apply(self):
        backend.use(self.device)
        backend.threads(self.threads)
        kernels.use(self.kernels)


class Job(NamedTuple):
    """One run to be made: the entry and a seed, and the key of the two."""

    key: str
    entry: Any
    seed: int
    printed: str


class Outcome(NamedTuple):
    """What became of a job. status: done, busy (another process has it), interrupted, and, for the reason that the
    message says, refused (a UserError), failed (a bug) or unwritable (the store)."""

    job: Job
    status: str
    message: str = ""
    run: Any = None  # as the store keeps it, for a reader without access to the worker's folder


def execute(job, store, settings, wait=False, ship=False):
    """Make a run unless it exists. wait: wait for another process that has its lock. ship: send the run back, too.

    Whatever the run raises is its outcome: the sentence of a UserError, the traceback of a bug. So the other runs are
    made.
    """
    try:
        return made(job, within_reach(store) if ship else store, settings, wait, ship)
    except Unwritable as error:
        return Outcome(job, "unwritable", str(error))
    except UserError as error:
        return Outcome(job, "refused", str(error))
    except (Exception, SystemExit) as error:
        if getattr(error, "errno", None) in FULL:
            return Outcome(job, "unwritable", str(Unwritable(error.filename or "a file", error)))
        return Outcome(job, "failed", told(error))


def made(job, store, settings, wait, ship):
    """Make the run of a job, unless it is stored or another process is making it, and return the outcome."""
    if store.has(job.key):
        return Outcome(job, "done", run=store.load(job.key) if ship else None)
    with store.lock(job.key, wait) as lock:
        if lock is None:
            return Outcome(job, "busy")
        if store.has(job.key):  # the process that had the lock has finished it
            return Outcome(job, "done", run=store.load(job.key) if ship else None)
        settings.apply()
        Interrupts.due()
        began = time.perf_counter()
        run = perform(job, store, settings, lock.note)
        if run.reason == "interrupted":
            return Outcome(job, "interrupted")
        tree = record(job, run, time.perf_counter() - began, settings.ranks)
        store.save(job.key, tree)
        return Outcome(job, "done", run=tree if ship else None)


def told(error):
    """The traceback of an error, from the first line outside of the lab on."""
    here, at = os.path.dirname(__file__), error.__traceback__
    while at.tb_next and os.path.dirname(at.tb_frame.f_code.co_filename) == here:
        at = at.tb_next
    return "".join(traceback.format_exception(type(error), error, at)).rstrip()


def within_reach(store):
    """The store. Where its folder does not exist and cannot be made, a store in the machine's temporary folder."""
    try:
        return Store(store.folder)
    except ValueError:
        return Store(Path(tempfile.gettempdir()) / "npopt" / "runs")


def threads_of(problem, sampler, most):
    """Threads for the steps of a run: one where a step is little work, else the most that are allowed.

    Two threads gain little in so short a step. And beside a busy process each waits for the other many times a step: a
    small network then takes three to seven times as long as with one. The rule looks at sizes, not at a clock. So equal
    runs have equal numbers of threads. It counts each parameter once a row, a filter once a pixel.
    """
    if problem.n is None:
        return most
    rows = min(64, problem.n) if sampler is None else sampler.batch_size or problem.n
    shape = getattr(getattr(problem, "network", None), "input_shape", ())
    pixels = math.prod(shape[:2]) if len(shape) == 3 and not isinstance(shape[0], tuple) else 1  # of an image
    work = rows * sum(s.size * (pixels if s.kind == "conv" else 1) for s in problem.segments)
    return 1 if work < SMALL else most


def perform(job, store, settings, progress):
    """The Run of a job, from its checkpoint if there is one; a damaged checkpoint is set aside."""
    from npopt import Events, Run, minimize

    entry, path = job.entry, store.checkpoint(job.key)
    noted = {"checkpoint": path, "seconds": settings.seconds, "progress": progress, "variance": entry.variance}
    events = Events(entry.metrics, entry.per, **noted)
    if entry.run is not None:
        whole_or_aside(store, path)
        run = settings.ranks.run(job, events) if settings.ranks else entry.run(seed=job.seed, events=events)
        if isinstance(run, dict):
            run = Run(run, None, None, "finished", {"run": repr(entry.run)}, "python")
        return run
    given = {name: getattr(entry, name) for name in ("sampler", "schedule", "estimator", "vary", "stop")}
    given |= {"seed": job.seed, "events": events}
    problem = entry.problem()
    backend.threads(threads_of(problem, entry.sampler, settings.threads))
    Interrupts.due()
    try:
        return minimize(problem, entry.optimizer, **given)
    except Damaged as error:
        store.set_aside(path, error)
        return minimize(entry.problem(), entry.optimizer, **given)


def whole_or_aside(store, path):
    """Set a damaged checkpoint aside, so that its run begins again."""
    try:
        checkpoint.load(path)
    except FileNotFoundError:
        pass
    except Damaged as error:
        store.set_aside(path, error)


def record(job, run, took, ranks=None):
    """A finished run as the store keeps it: a dict of arrays and plain values. Its seconds are those of the steps; of
    an entry's own function that does not say them, or says those of a simulated clock, what this process took."""
    columns = {name: as_array(values) for name, values in run.columns.items()}
    said = "seconds" in columns and (ranks or not job.entry.takes_wires)
    tree = {
        "method": job.printed,
        "seed": job.seed,
        "config": run.config,
        "columns": columns,
        "reason": run.reason,
        "loop": run.loop,
        "seconds": float(columns["seconds"][-1]) if said else took,
        "memory": backend.memory(),
    }
    if run.x is not None and (run.x.size <= KEPT if job.entry.keep is None else job.entry.keep):
        tree["x"], answer = np.asarray(backend.to_host(run.x)), np.asarray(backend.to_host(run.answer))
        if not np.array_equal(answer, tree["x"], equal_nan=True):
            tree["answer"] = answer
    return tree


def as_array(values):
    """A column as an array (rows,), or (rows, k) where a metric is a vector; rows that were not measured are NaN."""
    shape = max(map(np.shape, values), key=len, default=())
    return np.array([v if np.shape(v) == shape else np.full(shape, np.nan) for v in values])


def collect(jobs, store, settings, workers=1, engine="local", address=None):
    """Outcomes of the jobs as they come. Jobs that other processes hold are left to them, and waited for at the end."""
    if not jobs:
        return
    alone = engine == "mpi" or engine == "local" and workers == 1  # other ranks are asked by `perform`
    pool = here() if alone else {"local": local, "dask": dask}[engine](settings, workers, address)
    with pool as run_all:
        busy = []
        for outcome in run_all(jobs, store, settings, wait=False):
            if outcome.status == "busy":
                busy.append(outcome.job)
            else:
                yield outcome
        yield from run_all(busy, store, settings, wait=True) if busy else ()


# A pool is a context whose value is a function (jobs, store, settings, wait) -> outcomes, as long as the context lasts.
@contextlib.contextmanager
def here():
    """This process."""
    yield lambda jobs, *rest, wait: (execute(job, *rest, wait) for job in jobs)


@contextlib.contextmanager
def local(settings, workers, address):
    """Worker processes of this machine."""

    def run_all(jobs, *rest, wait):
        for job, answer in work((job, packed(by_name, remote, job, *rest, wait)) for job in jobs):
            yield outcome(job, answer)

    by_name = settings.script[0] is not None
    with team(workers, settings.threads, settings.script) as work:
        yield run_all


@contextlib.contextmanager
def dask(settings, workers, address):
    """The Dask cluster at `address`, or one of `workers` processes of this machine."""
    try:
        from dask import config
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise UserError("--engine dask needs Dask: pip install 'dask[distributed]'") from None

    def run_all(jobs, *rest, wait):
        parcels = [(job, packed(False, remote, job, *rest, wait, True)) for job in jobs]
        yield from (outcome(job, parcel) for job, parcel in parcels if isinstance(parcel, Lost))
        sent = {client.submit(answered, p, pure=False): job for job, p in parcels if not isinstance(p, Lost)}
        for future in as_completed(sent):
            error = future.exception()
            yield outcome(sent.pop(future), future.result() if error is None else Lost(f"Dask says: {error}"))

    with contextlib.ExitStack() as stack:
        if address is None:
            stack.enter_context(config.set({"distributed.scheduler.allowed-failures": 0}))
            own = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
            address = stack.enter_context(LocalCluster(**own))
        try:
            client = stack.enter_context(Client(address, timeout=10))
        except (OSError, ValueError) as error:
            raise UserError(f"--address {address}: no Dask scheduler answers there ({error})") from None
        yield run_all


def remote(*arguments):
    """`execute` in another process. The job stays where it is: what a script defines need not travel back."""
    return execute(*arguments)._replace(job=None)


def outcome(job, answer):
    """What another process said about a job, or why it says nothing."""
    if isinstance(answer, Lost):
        return Outcome(job, "failed", str(answer))
    if answer.status == "interrupted":  # not by Ctrl-C, which the script alone hears
        return Outcome(job, "failed", "the process that made the run was told to end; the steps so far are kept")
    return answer._replace(job=job)
