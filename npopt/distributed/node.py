"""What the code of an algorithm sees of the world: my rows, my state, my mailbox.

An algorithm is a generator. It computes with what is its own, and yields where it needs others:

    message = yield me.receive(source)          what `source` sent, in the order in which it sent
    answers = yield me.receive_from(sources)    one message of each, a list
    total = yield me.all_reduce(v)              sum_j v_j, over all nodes in the order of their ranks
    mixed = yield me.gossip(x)                  sum_j W_ij x_j, over the neighbours in the order of their ranks
    yield me.show(x, m)                         the round ends; x is what this node has to show, and m stays, too

`me.send(to, a, b)` needs no yield: the message leaves, and the node goes on. Arrays are copied when they are sent and
handed out as copies, so that no two nodes ever hold the same memory. A Node knows no other node and no engine: an
engine empties its outbox and answers what it yields.

State lives in the local variables of the generator. `x, m = me.state(x, m)` says before the loop which of them last
from round to round; in a run that is resumed it returns them as they were. A node that shows hands them to `show`. A
client does not show: it hands them to `me.keep`, and rests where it waits for the server's next message, which must be
where its loop begins. So a checkpoint of all nodes at the end of a round is one of what they kept (saved.py).
"""

from npopt import backend
from npopt.errors import UserError

import numpy as np

RECEIVE, ALL_REDUCE, GOSSIP, SHOW = "receive", "all_reduce", "gossip", "show"
SERVER = 0
DTYPES = ("float32", "float64", "int32", "int64", "uint8", "uint64")
KINDS = frozenset(map(np.dtype, DTYPES))


class Node:
    """One node: `rank`, the number of nodes with data `count`, and `shares`, each rank's part of all rows.

    problem     its own rows, a Problem; None for a server
    shares      tuple of floats by rank, of sum 1: public, as the graph is. A server's is 0
    clients     range of the ranks with data: all of them, or 1 to count where rank 0 is a server
    row_seconds simulated seconds that the gradient of a row takes; real engines ignore what is charged
    """

    def __init__(self, rank, problem, shares, clients, seed, start, row_seconds=0.0):
        self.rank, self.problem, self.shares, self.clients = rank, problem, shares, clients
        self.count, self.seed, self.row_seconds = len(clients), seed, row_seconds
        self.outbox, self.busy, self.draws, self.told = [], 0.0, 0, []
        self.kept = self.resumed = None  # the tuple that lasts, None without `state`; {"kept", "draws"} to go on from
        self._start = start.copy()

    # ------------------------------------------------------------------------------------------------- my rows
    def start(self):
        """The common start x^0, a copy of one's own."""
        return self._start.copy()

    def state(self, *values):
        """What lasts from round to round: arrays, numbers, None, lists of them. Returns the value, or the tuple of
        several: those given or, in a run that is resumed, those that were kept."""
        self.kept = values
        if self.resumed is not None:
            values, self.draws, self.busy = self.resumed["kept"], self.resumed["draws"], 0.0
            self.resumed = None
        return self.keep(*values)

    def keep(self, *values):
        """The same values, noted as what lasts; there are as many as `state` was given."""
        if self.kept is not None:
            if len(values) != len(self.kept):
                raise UserError(
                    f"rank {self.rank} keeps {len(values)} values, and began with {len(self.kept)} in state()"
                )
            self.kept = values
        return opened(values)

    def gradient(self, x, rows=None):
        """The mean gradient over some of my rows (None: all) at x, a new vector like x."""
        g = backend.empty(x.shape, x.dtype)
        self.problem.value_and_gradient(x, rows, None, out=g)
        self.busy += (self.problem.n if rows is None else len(rows)) * self.row_seconds
        return g

    def batch(self, size):
        """`size` of my rows, drawn with replacement, int64; None, which is all of them, for size None."""
        if size is None:
            return None
        self.draws += 1
        return backend.generator(self.seed, f"rows of {self.rank}", self.draws).integers(self.problem.n, size=size)

    def key(self, word):
        """A key of my own for the next draw."""
        self.draws += 1
        return backend.key(self.seed, f"{word} of {self.rank}", self.draws)

    def common_batch(self, size, t):
        """`size` row numbers of round t, drawn with replacement, int64, the same on all nodes; all rows for None."""
        if size is None:
            return np.arange(self.problem.n)
        return backend.generator(self.seed, "rows of all", t).integers(self.problem.n, size=size)

    def work(self, seconds, *what):
        """Charge so many simulated seconds of arithmetic. Who watches the run is told from when to when `what` was."""
        self.told.append((what, self.busy, self.busy + seconds))
        self.busy += seconds

    def sample(self, t, share):
        """The clients of round t: a share of them, at least one, without replacement, in rising order."""
        size = max(1, round(share * self.count))
        if size == self.count:
            return list(self.clients)
        drawn = backend.generator(self.seed, "clients of a round", t).permutation(self.count)[:size]
        return [self.clients[i] for i in np.sort(drawn).tolist()]

    # ---------------------------------------------------------------------------------------------- my mailbox
    def send(self, to, *arrays):
        """Put a message of one or more arrays on its way to a rank."""
        for a in arrays:
            if not hasattr(a, "dtype") or a.dtype not in KINDS:
                raise UserError(f"send: a message holds arrays of {', '.join(DTYPES)}, got {type(a).__name__}")
        self.outbox.append((to, tuple(a.copy() for a in arrays), self.busy))

    def broadcast(self, *arrays):
        """Send one message to each client."""
        for to in self.clients:
            self.send(to, *arrays)

    def receive(self, source):
        return RECEIVE, (source,), None, True

    def receive_from(self, sources, patience=None):
        """A message of each source, a list. With patience, in seconds, None stands for what did not come in time."""
        return RECEIVE, tuple(sources), patience, False

    def all_reduce(self, v):
        return ALL_REDUCE, v

    def gossip(self, *arrays):
        """For one array its mean by the weights of my row of W, for several a list of theirs."""
        return GOSSIP, arrays

    def show(self, x, *more):
        self.keep(x, *more)
        return SHOW, x


def bytes_of(arrays):
    """Bytes of a message: those of its arrays, without any header."""
    return sum(a.nbytes for a in arrays)


def opened(arrays):
    """A message as the receiver sees it: the array, or the tuple of several."""
    return arrays[0] if len(arrays) == 1 else arrays


def added(vectors):
    """The sum of vectors in their order, a new vector. Both engines add by this function."""
    vectors = iter(vectors)
    total = next(vectors).copy()
    for v in vectors:
        total += v
    return total


def check_alike(what, rank, array, shape, dtype):
    """Refuse a message of the wrong shape or dtype where it arrives."""
    if array.shape != shape or array.dtype != dtype:
        raise UserError(
            f"{what}: rank {rank} sent shape {array.shape} of {array.dtype}, expected {shape} of {dtype}; "
            "all nodes must send alike"
        )
