"""Worker processes. Each makes one run at a time, and what ends a worker ends that run alone.

A worker is an interpreter of its own with one connection, over which calls come and answers go. It first loads the
script, up to experiment.main(). So the script's functions are the same there, line for line in a traceback too. The
script waits at all connections at once. If one closes, the run that was under way there is lost, and another worker
takes its place.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
import types
from multiprocessing import Pipe, connection

from lab import processes
from lab.processes import GRACE, Interrupts, follow, spawn

import cloudpickle

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Lost(str):
    """Stands for an answer that is missing: the sentence or the traceback that says why."""


def packed(by_name, function, *arguments):
    """A call as bytes; Lost if that cannot be. by_name: the other process knows by name what the script defines. If
    not, or if that fails, cloudpickle sends it whole."""
    if by_name:
        with contextlib.suppress(Exception):
            return pickle.dumps((function, arguments))
    try:
        return cloudpickle.dumps((function, arguments))
    except Exception as error:
        return Lost(f"the run cannot be sent to another process\n{plain(error)}")


def answered(parcel):
    """What the call in a parcel returns; Lost where the parcel cannot be opened here."""
    try:
        function, arguments = pickle.loads(parcel)
    except Exception as error:
        return Lost(f"the run cannot be opened in another process\n{plain(error)}")
    return function(*arguments)


def plain(error):
    return "".join(traceback.format_exception(error)).rstrip()


class Worker:
    """A process for one call after the other. It knows what the script, a path and a text, defines."""

    def __init__(self, threads, script):
        self.connection, theirs = Pipe()
        serve = f"from lab.workers import serve; serve({theirs.fileno()})"
        self.process = spawn(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {serve}"],
            dict.fromkeys(POOLS, str(threads)),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's Ctrl-C goes to the script alone
        )
        theirs.close()
        self.ask(pickle.dumps(script))

    def ask(self, parcel):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # found out when its answer is read
            self.connection.send_bytes(parcel)

    def answer(self):
        """What came back; Lost where the process has ended instead."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.connection.close()
            return Lost(f"the process that made the run ended {manner(self.process.wait())}")

    def tell(self):
        """Tell it to end; it saves the run under way first."""
        self.connection.close()
        self.process.terminate()


def manner(status):
    """How a process ended, in words."""
    if status >= 0:
        return f"with exit status {status}"
    hint = " (the system sends it where memory is short)" if status == -signal.SIGKILL else ""
    return f"by {signal.Signals(-status).name}{hint}"


@contextlib.contextmanager
def team(size, threads, script):
    """A function (iterator of (name, parcel)) -> (name, answer or Lost) as they come, by `size` workers."""
    workers, idle = [], []

    def work(calls):
        calls, busy = iter(calls), {}
        while True:
            while len(busy) < size and (call := next(calls, None)):
                name, parcel = call
                if isinstance(parcel, Lost):
                    yield name, parcel
                    continue
                if not idle:
                    workers.append(Worker(threads, script))
                    idle.append(workers[-1])
                worker = idle.pop()
                busy[worker.connection] = worker, name
                worker.ask(parcel)
            if not busy:
                return
            for ready in connection.wait(list(busy)):
                worker, name = busy.pop(ready)
                answer = worker.answer()
                idle.extend([] if worker.connection.closed else [worker])
                yield name, answer

    try:
        yield work
    finally:
        try:
            for worker in workers:
                worker.tell()
            for worker in workers:
                worker.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            for worker in workers:
                worker.process.kill()


def serve(handle):
    """The life of a worker: answer, until the script closes the connection, tells it to end, or is gone."""
    status, caller = 0, connection.Connection(handle)
    try:
        try:
            Interrupts.listen()
            follow()
            load(*pickle.loads(caller.recv_bytes()))
            while True:
                caller.send(answered(caller.recv_bytes()))
        except (EOFError, OSError):  # the script has closed the connection, or is gone
            pass
        except Exception:
            traceback.print_exc()
            status = 1
        except KeyboardInterrupt:
            status = Interrupts.status()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:  # whatever threads a recipe has left, and whatever signal comes now
        os._exit(status)


def load(path, text):
    """Run a script as this process's main module, up to its experiment.main(), which in a worker ends the loading."""
    if path is not None:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        main.__file__, processes.worker = path, True
        with contextlib.suppress(SystemExit):
            exec(compile(text, path, "exec"), vars(main))
