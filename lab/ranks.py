"""The engine mpi: `mpiexec -n 4 npopt run NAME --engine mpi`. Rank 0 is the lab as ever, with its store and its report.

The other ranks lay the same grid from the same command line, and wait. Rank 0 says the key of a run, 32 bytes, and all
ranks make their parts of it: the recipe's function is called on each, with `wires` to the others. So nothing that
another process sends is ever unpickled. Other ranks print nothing, store nothing and draw nothing.

An error on any rank is one sentence with the rank in it, and ends all. A rank that is killed is named by the `npopt`
that started it, whose end mpiexec answers by ending the others.
"""

import contextlib
import os
import sys
import time
import traceback

from lab import options, processes
from lab.engine import Settings
from lab.options import Option
from npopt.distributed.wire import RUN, MPIWires
from npopt.errors import UserError
from npopt.run import Events

import numpy as np

NAMES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")  # where launchers tell a process its rank
END = np.empty(0, np.uint8)
PAUSE = 2.0  # seconds in which rank 0, if it has the same trouble, says so for all

RANKS = Option(
    "--ranks",
    type=options.whole(2, "ranks"),
    metavar="N",
    help="the runs of N ranks, one node a rank: those of --engine mpi, or the same in simulation",
)


def launched():
    """The rank that a launcher gave this process; None outside of mpiexec and its like."""
    found = [os.environ[name] for name in NAMES if os.environ.get(name, "").isdigit()]
    return int(found[0]) if found else None


def asked(words):
    """Whether a command line asks for the engine mpi."""
    return "--engine=mpi" in words or ("--engine", "mpi") in zip(words[:-1], words[1:], strict=True)


@contextlib.contextmanager
def joined(experiment, script, words):
    """The context of a script's main: its Ranks on rank 0, None with other engines. Other ranks live and end here."""
    if not asked(words) or "--redraw" in words:
        yield None
        return
    try:
        own = Ranks(MPIWires())
    except UserError as error:
        if not launched():  # else rank 0 says it
            print(f"{script}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if own.wires.rank:
        own.follow(experiment, script, words)
        raise SystemExit
    try:
        yield own
    finally:
        own.end()


def ingredients(args):
    """What the engine adds to the key of a run: its seconds are others than simulated ones."""
    return {"engine": "mpi"} if args.engine == "mpi" else {}


def check_entry(entry, args):
    """Refuse for this engine an entry whose function does not take `wires`."""
    if args.engine == "mpi" and not entry.takes_wires:
        raise UserError(f"--engine mpi: part {entry.part}, {entry.name} is not for ranks; --parts leaves it out")


class Ranks:
    """All ranks of mpiexec, as one of them sees them."""

    def __init__(self, wires):
        self.wires, self.running = wires, False

    def check(self, args):
        """Refuse what this engine cannot do, and fill in args.ranks."""
        size = self.wires.size
        if not hasattr(args, "ranks"):
            raise UserError("--engine mpi: this script has no runs for ranks of MPI; distributed_nodes has")
        if size < 2:
            raise UserError("--engine mpi: one rank is too few; start it as: mpiexec -n 4 npopt run NAME --engine mpi")
        if args.ranks not in (None, size):
            raise UserError(f"--ranks {args.ranks}: mpiexec started {size}")
        if args.ranks is None:
            args.ranks, args.words = size, [*args.words, "--ranks", str(size)]

    def run(self, job, events):
        """Rank 0: have all ranks make a run, and return this rank's, which is the whole."""
        for j in range(1, self.wires.size):
            self.wires.post(j, RUN, np.frombuffer(job.key.encode(), np.uint8))
        return self.part(job, events)

    def part(self, job, events):
        """This rank's part of a run. An error ends all ranks, because the others wait for this one."""
        self.running = True
        try:
            run = job.entry.run(seed=job.seed, events=events, wires=self.wires)
        except Exception as error:
            self.end_all(f"part {job.entry.part}, {job.entry.name}, seed {job.seed}", error)
            raise
        self.running = False
        return run

    def end_all(self, where, error):
        text = error if isinstance(error, UserError) else "".join(traceback.format_exception(error)).rstrip()
        print(f"npopt: rank {self.wires.rank}: {where}: {text}", file=sys.stderr, flush=True)
        self.wires.abort()

    def follow(self, experiment, script, words):
        """The life of a rank other than 0."""
        processes.follow()
        try:
            with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
                with contextlib.redirect_stderr(null):
                    args = options.parse(experiment, script, words)
                self.check(args)
                Settings(args.device, args.threads, args.kernels).apply()
                jobs = {job.key: job for _, job in experiment.jobs(args)[0]}
                while key := self.wires.take(0, RUN).tobytes().decode():
                    if key not in jobs:
                        raise UserError("rank 0 makes a run that this rank does not know; give all one command")
                    self.part(jobs[key], Events(checkpoint="that of rank 0"))
            self.wires.finish()
        except Exception as error:
            time.sleep(PAUSE)
            self.end_all(script, error)
            raise SystemExit(2) from None

    def end(self):
        """Rank 0: no run comes any more; or one was broken off, and the others are in the middle of it."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.running:
            self.wires.abort()
        for j in range(1, self.wires.size):
            self.wires.post(j, RUN, END)
        self.wires.finish()
