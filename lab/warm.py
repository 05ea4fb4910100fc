"""Scripts without the start of an interpreter, for `npopt all`: a process that has imported what they need forks into
one after the other.

An interpreter with numba, matplotlib and this library takes two seconds to start, and there are fifty scripts. A fork
takes none, and is the same program from there on: the script runs as the main module, with its words, its folder and
its signals. A warm process has no threads of its own. It ends when the connection to `npopt` does, and its script then
saves and ends, as it would without `npopt` (processes.follow).
"""

import contextlib
import gc
import importlib
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing import Pipe, connection

from lab.processes import PARENT, spawn

# npopt first: it sets how threads wait, before NumPy loads
NEEDED = """npopt nn problems lab.experiment lab.engine lab.figures lab.pictures lab.report lab.turn matplotlib.pyplot
    scipy.sparse scipy.special scipy.stats sklearn.datasets PIL.Image"""


class Warm:
    """One warm process; `run` starts a script in it. Where it cannot fork, or has ended, scripts start as usual."""

    def __init__(self):
        self.connection = self.process = None
        if not hasattr(os, "fork"):
            return
        self.connection, theirs = Pipe()
        call = f"import sys; sys.path[:] = {sys.path!r}; from lab.warm import serve; serve({theirs.fileno()})"
        self.process = spawn(
            [sys.executable, "-c", call],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()

    def run(self, path, words, output):
        """Start a script that writes what it prints into a file. It has wait() and terminate(), as a Popen has."""
        with open(output, "w") as file:
            with contextlib.suppress(AttributeError, OSError, EOFError):
                self.connection.send((str(path), list(words), str(output)))
                return Script(self.connection, self.connection.recv())
            return spawn([sys.executable, str(path), *words], stdout=file, stderr=subprocess.STDOUT)

    def close(self):
        if self.process:
            self.connection.close()
            self.process.wait()


class Script:
    """A script that a warm process has forked into."""

    def __init__(self, answers, pid):
        self.answers, self.pid = answers, pid

    def wait(self):
        """Its exit status, -n for the signal n."""
        try:
            return self.answers.recv()
        except (OSError, EOFError):  # the warm process is gone; so this script is told to end
            return -signal.SIGTERM

    def terminate(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def serve(handle):
    """The life of a warm process, which in each fork becomes that of a script. SIGINT stays blocked, as `spawn` left
    it, until a script listens."""
    caller = connection.Connection(handle)
    for name in NEEDED.split():
        importlib.import_module(name)
    gc.freeze()  # no script looks through all this again
    while True:
        try:
            path, words, output = caller.recv()
        except (EOFError, OSError):
            return
        ended, alive = os.pipe()  # its end is seen at the other end
        me, pid = os.getpid(), os.fork()
        if not pid:
            os.close(ended)
            caller.close()
            os.environ[PARENT] = str(me)
            become(path, words, output)
            return
        os.close(alive)
        caller.send(pid)
        if caller in connection.wait([caller, ended]):  # npopt is gone
            return
        os.close(ended)
        caller.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def become(path, words, output):
    """Run the script as `python PATH WORDS > OUTPUT` does."""
    file = os.open(output, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(file, number)
    os.close(file)
    sys.argv[:] = [path, *words]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")
