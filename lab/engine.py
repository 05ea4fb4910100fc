"""Who does the runs: this process, joblib's worker processes, or a Dask or Ray cluster through joblib's own backends.

`execute` is the whole life of a run: is it stored; is it locked; run it; store it. Everything around it only hands out
jobs and collects outcomes as they come. Runs are stored by whoever makes them, so that killing the command that asked
for them loses none; a cluster without a common folder sends them back instead.
"""

import contextlib
import dataclasses
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from lab.store import Store
from nn import kernels
from npopt import backend
from npopt.checkpoint import Damaged
from npopt.errors import UserError

import joblib
import numpy as np

KEPT = 1_000_000  # numbers of x up to which the store keeps it unasked


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a process sets before it runs anything. seconds: between two checkpoints."""

    device: str = "cpu"
    threads: int = 1
    kernels: str = "fast"
    seconds: float = 30.0

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
    """What became of a job. status: done, busy (another process has it), refused (message says why) or interrupted."""

    job: Job
    status: str
    message: str = ""
    run: Any = None  # as the store keeps it, for who cannot read the worker's folder


def execute(job, store, settings, wait=False, ship=False):
    """Make a run unless it exists. wait: for another process that has its lock. ship: the run with the outcome."""
    store = within_reach(store) if ship else store
    if store.has(job.key):
        return Outcome(job, "done", run=store.load(job.key) if ship else None)
    with store.lock(job.key, wait) as lock:
        if lock is None:
            return Outcome(job, "busy")
        if store.has(job.key):  # the process that had the lock has finished it
            return Outcome(job, "done", run=store.load(job.key) if ship else None)
        settings.apply()
        try:
            run = perform(job, store, settings.seconds, lock.note)
        except UserError as error:
            return Outcome(job, "refused", str(error))
        if run.reason == "interrupted":
            return Outcome(job, "interrupted")
        tree = record(job, run)
        store.save(job.key, tree)
        return Outcome(job, "done", run=tree if ship else None)


def within_reach(store):
    """The store, or one in the temporary folder of a machine where the store's folder is not and cannot be made."""
    try:
        return Store(store.folder)
    except ValueError:
        return Store(Path(tempfile.gettempdir()) / "npopt" / "runs")


def perform(job, store, seconds, progress):
    """The Run of a job, from its checkpoint if there is one; a damaged checkpoint is set aside."""
    from npopt import Events, Run, minimize

    entry, path = job.entry, store.checkpoint(job.key)
    events = Events(
        entry.metrics, entry.per, checkpoint=path, seconds=seconds, progress=progress, variance=entry.variance
    )
    if entry.run is not None:
        run = entry.run(seed=job.seed, events=events)
        if isinstance(run, dict):
            run = Run(run, None, None, "finished", {"run": repr(entry.run)}, "python")
        return run
    given = {name: getattr(entry, name) for name in ("sampler", "schedule", "estimator", "vary", "stop")}
    given |= {"seed": job.seed, "events": events}
    try:
        return minimize(entry.problem(), entry.optimizer, **given)
    except Damaged as error:
        store.set_aside(path, error)
        return minimize(entry.problem(), entry.optimizer, **given)


def record(job, run):
    """A finished run as the store keeps it: a dict of arrays and plain values."""
    columns = {name: as_array(values) for name, values in run.columns.items()}
    tree = {
        "method": job.printed,
        "seed": job.seed,
        "config": run.config,
        "columns": columns,
        "reason": run.reason,
        "loop": run.loop,
        "seconds": float(columns["seconds"][-1]) if "seconds" in columns else 0.0,
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
    with pool(engine, address, workers, settings) as run_all:
        busy = []
        for outcome in run_all(jobs, store, settings, wait=False):
            if outcome.status == "busy":
                busy.append(outcome.job)
            else:
                yield outcome
        yield from run_all(busy, store, settings, wait=True) if busy else ()


@contextlib.contextmanager
def pool(engine, address, workers, settings):
    """A function (jobs, store, settings, wait) -> outcomes, for as long as the engine is up."""
    if engine == "local" and workers == 1:
        yield lambda jobs, *rest, wait: (execute(job, *rest, wait) for job in jobs)
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())  # loky replaces workers that hold much memory, and says so
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        config = {"local": local, "dask": dask, "ray": ray}[engine](stack, address, workers, settings)
        stack.enter_context(joblib.parallel_config(**config))
        ship = engine != "local"
        ahead = "all" if ship else "2*n_jobs"
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=ahead)
        yield lambda jobs, *rest, wait: parallel(joblib.delayed(execute)(job, *rest, wait, ship) for job in jobs)


def local(stack, address, workers, settings):
    return {"backend": "loky", "n_jobs": workers, "inner_max_num_threads": settings.threads}


def dask(stack, address, workers, settings):
    """Joblib's Dask backend on the cluster at `address`, or on one of `workers` processes of this machine."""
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise UserError("--engine dask needs Dask: pip install 'dask[distributed]'") from None
    if address is None:
        cluster = stack.enter_context(
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50)
        )
        stack.enter_context(Client(cluster))
    else:
        try:
            stack.enter_context(Client(address, timeout=10))
        except (OSError, ValueError) as error:
            raise UserError(f"--address {address}: no Dask scheduler answers there ({error})") from None
    return {"backend": "dask"}


def ray(stack, address, workers, settings):
    """Joblib's Ray backend, on the cluster at `address` or on this machine."""
    try:
        import ray as ray_package
        from ray.util.joblib import register_ray
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'ray[default]'") from None
    ray_package.init(address=address, num_cpus=None if address else workers, ignore_reinit_error=True)
    stack.callback(ray_package.shutdown)
    register_ray()
    return {"backend": "ray", "n_jobs": -1 if address else workers}
