"""What goes between host and strict device, and who sent it.

with strict_moves.counted() as moves:
    run()
moves.reads       to_host: a copy to the host, after waiting for the device
moves.uploads     asarray of host data, and lists as indices
moves.waits       results whose size the host must know (a boolean mask as index, nonzero, unique): reads in hiding
moves.calls       operations that a GPU would be asked to do, a kernel each
"""

import contextlib
import dataclasses
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
OURS = tuple(str(ROOT / room) for room in ("npopt", "nn", "problems", "lab", "scripts"))
BACKEND = str(ROOT / "npopt" / "backend")


@dataclasses.dataclass(frozen=True)
class Move:
    """size: numbers moved; stack: "module.function" of the library's frames, the innermost first."""

    size: int
    stack: tuple

    @property
    def in_step(self):
        """Whether it happened inside the loop of steps of minimize."""
        return "minimize.steps" in self.stack

    def __repr__(self):
        return f"{self.size} numbers by {self.stack[0] if self.stack else 'the test'}"


class Moves:
    def __init__(self):
        self.reads, self.uploads, self.waits, self.calls = [], [], [], 0

    @property
    def all(self):
        return self.reads + self.uploads + self.waits

    def in_steps(self):
        """(reads, uploads, waits) inside of steps."""
        return tuple([m for m in kind if m.in_step] for kind in (self.reads, self.uploads, self.waits))


_open = []


@contextlib.contextmanager
def counted():
    """Counts what happens inside; it may be nested."""
    moves = Moves()
    _open.append(moves)
    try:
        yield moves
    finally:
        _open.remove(moves)


def note(kind, size):
    """One move of a kind: "reads", "uploads" or "waits"."""
    if not _open:
        return
    frame, stack = sys._getframe(1), []
    while frame is not None:
        path = frame.f_code.co_filename
        named = not frame.f_code.co_name.startswith("<")  # a generator's or a lambda's frame says nothing
        if named and path.startswith(OURS) and not path.startswith(BACKEND):
            stack.append(f"{pathlib.PurePath(path).stem}.{frame.f_code.co_name}")
        frame = frame.f_back
    move = Move(int(size), tuple(stack))
    for moves in _open:
        getattr(moves, kind).append(move)


def called():
    for moves in _open:
        moves.calls += 1
