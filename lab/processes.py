"""Processes that end when they are told to, and with the process that started them.

A terminal and its Ctrl-C reach `npopt` and the script. Worker processes have a session of their own, and only the
script tells them to end. Every process follows its parent: when the parent is gone, even by SIGKILL, its child
saves and ends.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time

from npopt.checkpoint import FULL, Unwritable
from npopt.errors import UserError
from npopt.run import Interrupt

PARENT = "NPOPT_PARENT"  # in the environment of a process that `spawn` started: the id of the one that did
worker = False  # whether this process makes runs for a script elsewhere
GRACE = 30.0  # seconds in which a process that was told to end saves its run


class Interrupts:
    """Makes Ctrl-C, TERM and HUP (a closed terminal) one KeyboardInterrupt. Then it is deaf for Interrupt.HASTE
    seconds.

    Within minimize its own Interrupt takes the place of `interrupt`.
    """

    number, at = 0, -math.inf  # the first signal that was heard, and when the last one was

    @classmethod
    def listen(cls):
        """Listen for these signals from now on, in the main thread. One that is ignored, as under nohup, stays
        ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in ((signal.SIGINT, cls.interrupt), (signal.SIGTERM, cls.end), (signal.SIGHUP, cls.end)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    @classmethod
    def interrupt(cls, number, frame):
        now = time.monotonic()
        if now - cls.at >= Interrupt.HASTE:
            cls.number, cls.at = cls.number or number, now
            raise KeyboardInterrupt

    @classmethod
    def end(cls, number, frame):
        """Do as Ctrl-C does: a run under way saves itself and ends."""
        cls.number = cls.number or number
        if number == signal.SIGHUP:
            quiet()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            cls.interrupt(number, frame)
        signal.raise_signal(signal.SIGINT)

    @classmethod
    def due(cls):
        """Raise KeyboardInterrupt again if it was lost. Python drops what a `__del__` raises: for example, when the
        memory of an array goes home. Called where a run begins."""
        if cls.number and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    @classmethod
    def status(cls):
        """The exit status that says which signal came. It is called where an interrupt is dealt with, and the next
        seconds hear no other."""
        number, cls.number, cls.at = cls.number or signal.SIGINT, 0, time.monotonic()
        return 128 + number


def quiet():
    """Throw away what this process still prints: nobody can read it any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())


@contextlib.contextmanager
def ending(script):
    """The life of a script's process. Every end that is not a bug gives one sentence and an exit status."""
    try:
        Interrupts.listen()  # and, if one has waited, hear it
        follow()
        yield
    except BrokenPipeError:  # `| head`: nobody reads any more; everything is written
        quiet()
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        status = Interrupts.status()
        print(f"\n{script}: interrupted; all is kept, the same command goes on from here", file=sys.stderr)
        raise SystemExit(status) from None
    except (UserError, OSError) as error:
        if isinstance(error, OSError):
            if error.errno not in FULL:
                raise
            error = Unwritable(error.filename or "a file", error)
        print(f"{script}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def spawn(command, variables=(), **settings):
    """Start a script or a worker, with more environment variables. The process follows this one. Ctrl-C waits until it
    listens: so no traceback comes out of an import."""
    environment = {**os.environ, **dict(variables), PARENT: str(os.getpid())}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(command, env=environment, **settings)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow():
    """If a process started this one by `spawn`, end when that process is gone."""
    parent = int(os.environ.pop(PARENT, 0))
    if parent:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()


def watch(parent):
    while os.getppid() == parent:
        time.sleep(0.2)
    quiet()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
