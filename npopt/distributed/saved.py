"""Checkpoints of all nodes at the end of one round: one file, whole or absent, and the same call goes on from it.

    t, columns, shown    rounds that are over, the columns so far, and what was shown last
    nodes                for each rank what it keeps, how often it drew, and its problem's state
    links                what the engine knows beside: counters; in a simulation clocks and messages under way, too

The file also says what it belongs to: the engine and its arguments as they print, and hashes of code and problems. A
file of another run is refused with one sentence.
"""

import contextlib
import functools
import time
from types import SimpleNamespace

from npopt import backend, checkpoint, code, identity
from npopt.errors import UserError
from npopt.run import Interrupt
from npopt.values import number

import numpy as np

PARTS = {"asked", "made_of", "t", "columns", "shown", "nodes", "links"}


class Saved:
    """The checkpoint of a run at `path`, or of one without any (None), written when it is `seconds` old."""

    def __init__(self, path, seconds, asked):
        self.path, self.seconds, self.last = path, number("checkpoint", "seconds", seconds, low=0), time.monotonic()
        if path is not None:
            self.asked = {name: identity.described(value) for name, value in asked.items()}
            checkpoint.writable(path)

    def there(self):
        """Whether there is a file to go on from."""
        if self.path is None:
            return False
        try:
            with open(self.path, "rb"):
                return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}); see to its permissions") from None

    def due(self):
        """Whether the file is to be written after this round, because the last one is old."""
        return self.path is not None and time.monotonic() - self.last >= self.seconds

    def interrupts(self):
        """A context in which Ctrl-C sets `asked`, where there is a file to save to."""
        return contextlib.nullcontext(SimpleNamespace(asked=False)) if self.path is None else Interrupt()

    def load(self, made_of):
        """The tree of the file, checked. made_of: of each node, as `of_node`."""
        found = checkpoint.load(self.path)
        if not isinstance(found, dict) or set(found) != PARTS:
            raise checkpoint.Damaged(f"{self.path} is no checkpoint of nodes; choose another path")
        if found["asked"] != self.asked or found["made_of"] != made_of:
            names = [name for name, value in self.asked.items() if found["asked"].get(name) != value]
            why = ", ".join(names or ["code, problems or start"])
            raise checkpoint.Foreign(
                f"{self.path} is the checkpoint of another run (other {why}); remove it or choose another path"
            )
        return found

    def save(self, **tree):
        """Write the file, whole or not at all: all of PARTS but `asked`."""
        checkpoint.save(self.path, tree | {"asked": self.asked})
        self.last = time.monotonic()


def of_node(node, algorithm, engine):
    """Hashes of what a node's numbers depend on beside what all nodes are told: code, problem and start."""
    problem = [] if node.problem is None else [node.problem]
    parts = [digest(engine, *identity.roots(algorithm, *problem)), *map(identity.of_problem, problem)]
    return " ".join([*parts, identity.described(node.start())])


@functools.lru_cache
def digest(*roots):
    return code.digest(code.reached(roots))


def state_of(node):
    """What a node keeps, a dict of arrays and plain values."""
    if node.kept is None:
        raise UserError("a checkpoint needs nodes that say by me.state(...) what lasts from round to round")
    problem = {} if node.problem is None else node.problem.state()
    return {"kept": list(node.kept), "draws": node.draws, "problem": problem}


def load_state(node, state):
    """Have a node that has not begun yet go on from there."""
    node.resumed = {"kept": tuple(map(on_device, state["kept"])), "draws": state["draws"]}
    if node.problem is not None:
        node.problem.load_state(state["problem"])


def on_device(tree):
    """A tree with its arrays on the device in use."""
    if isinstance(tree, (list, tuple)):
        return [on_device(v) for v in tree]
    if isinstance(tree, dict):
        return {name: on_device(v) for name, v in tree.items()}
    return backend.asarray(tree) if isinstance(tree, np.ndarray) else tree
