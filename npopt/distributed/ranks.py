"""The engine of real processes: each rank of MPI is one node, and runs the same code as in the simulation.

    mpiexec -n 4 python program.py          # program.py calls on_ranks(algorithm, my problem, rounds)

Sums are taken in the order of ranks, as in the simulation, so that both engines give the same bits on the same machine.
Nothing is lost here, and `patience` waits as long as it takes. An error on one rank is one line, and ends all.
"""

import sys
import time

from npopt import backend
from npopt.distributed.node import ALL_REDUCE, RECEIVE, SERVER, SHOW, Node, added, bytes_of, check_alike, opened
from npopt.distributed.simulation import History, first_x, settled
from npopt.distributed.wire import MESSAGE, SHOWN, MPIWires, pack, unpack
from npopt.errors import UserError
from npopt.values import whole

import numpy as np

END = np.empty(0, np.uint8)  # what a server sends when all rounds are over


class Over(Exception):
    """The server has ended the run."""


def on_ranks(algorithm, problem, rounds, *, graph=None, seed=0, start=None, observe=None, every=1, wires=None):
    """Run this rank's part of an algorithm and return a History.

    problem    the rows of this rank, a Problem; None on rank 0 of a federated algorithm
    start      as in `simulate`; that of the last rank counts. Of a parted algorithm this rank's own
    observe    as in `simulate`; it is called on rank 0 alone
    wires      how ranks are joined: by default MPIWires()

    On rank 0 History is that of `simulate`, with wall-clock seconds; on other ranks x is [this rank's own], or [] for a
    client, and there are no columns.
    """
    wires = MPIWires() if wires is None else wires
    try:
        rounds, every = whole("on_ranks", "rounds", rounds), whole("on_ranks", "every", every)
        rank = Rank(algorithm, problem, graph, seed, start, wires)
        return rank.run(rounds, every, observe)
    except Exception as error:
        if wires.size == 1:
            raise
        print(f"npopt: rank {wires.rank}: {error}", file=sys.stderr, flush=True)
        wires.abort()
        raise


class Rank:
    """One node, and its end of the wires."""

    def __init__(self, algorithm, problem, graph, seed, start, wires):
        self.algorithm, self.graph, self.wires = algorithm, graph, wires
        self.rank, self.count = wires.rank, wires.size
        self.sent = self.received = self.messages = 0
        first = int(algorithm.federated)
        if self.count <= first:
            raise UserError(
                f"{type(algorithm).__name__}: a server and its clients need two ranks; mpiexec -n 2 or more"
            )
        if (problem is None) != (self.rank < first):
            raise UserError("on_ranks: each node with data needs a problem, and a server has none (None)")
        sizes = [int(a[0]) for a in self.all(np.array([0 if problem is None else problem.n], np.int64))]
        _, clients, shares = settled(algorithm, sizes[first:], graph)
        mine = None if problem is None else backend.to_host(first_x(problem, start, seed))
        common = mine if algorithm.parted else self.from_last(mine)
        if problem is not None:
            check_alike("start", self.count - 1, common, (problem.dim,), problem.dtype)
        self.node = Node(self.rank, problem, shares, clients, seed, backend.asarray(common))
        self.program = algorithm.program(self.node)

    # ------------------------------------------------------------------------------------------------- set up
    def all(self, array):
        """A list of the array of each rank, uncounted."""
        self.post_to_others((array,), SHOWN)
        return [array if j == self.rank else self.take(j, SHOWN)[0] for j in range(self.count)]

    def from_last(self, array):
        if self.rank < self.count - 1:
            return self.take(self.count - 1, SHOWN)[0]
        self.post_to_others((array,), SHOWN)
        return array

    def post_to_others(self, arrays, tag):
        data = pack(arrays)
        for j in range(self.count):
            if j != self.rank:
                self.wires.post(j, tag, data)

    def take(self, source, tag):
        return unpack(self.wires.take(source, tag), source)

    # ----------------------------------------------------------------------------------------------- messages
    def send(self, to, arrays):
        if not 0 <= to < self.count or to == self.rank:
            raise UserError(f"send: rank {self.rank} cannot send to {to!r}; ranks are 0..{self.count - 1}")
        self.sent += bytes_of(arrays)
        self.messages += 1
        self.wires.post(to, MESSAGE, pack([backend.to_host(a) for a in arrays]))

    def receive(self, source):
        data = self.wires.take(source, MESSAGE)
        if not data.size:
            raise Over
        arrays = unpack(data, source)
        self.received += bytes_of(arrays)
        self.messages += int(self.algorithm.federated)  # the server sees all there are
        return tuple(backend.asarray(a) for a in arrays)

    # ------------------------------------------------------------------------------------------------- rounds
    def run(self, rounds, every, observe):
        """All rounds of this node."""
        columns, begin, shown = {}, time.perf_counter(), []
        showing = self.rank == SERVER or not self.algorithm.federated
        try:
            for t in range(rounds if showing else sys.maxsize):
                x = self.round()
                if (t + 1) % every == 0 or t + 1 == rounds:
                    shown = self.gather(x, columns, t, begin, observe)
        except Over:
            pass
        if self.algorithm.federated and self.rank == SERVER:
            for j in range(1, self.count):
                self.wires.post(j, MESSAGE, END)
        self.wires.finish()
        return History(shown, {name: np.array(values) for name, values in columns.items()})

    def round(self):
        """Go on until this node shows its x."""
        answer = None
        while True:
            request = self.program.send(answer)
            for to, arrays, _ in self.node.outbox:
                self.send(to, arrays)
            self.node.outbox.clear()
            self.node.told.clear()
            self.node.busy = 0.0
            kind, payload = request[:2]
            if kind == SHOW:
                return payload
            if kind == RECEIVE:
                answers = [opened(self.receive(j)) for j in payload]
                answer = answers[0] if request[3] else answers
            else:
                answer = self.reduce(payload) if kind == ALL_REDUCE else self.gossip(payload)

    def reduce(self, v):
        """The sum of all, from rank 0."""
        if self.rank != SERVER:
            self.send(SERVER, (v,))
            (total,) = self.receive(SERVER)
            return total
        vectors = [v]
        for j in range(1, self.count):
            (other,) = self.receive(j)
            check_alike("all_reduce", j, other, v.shape, v.dtype)
            vectors.append(other)
        total = added(vectors)
        for j in range(1, self.count):
            self.send(j, (total,))
        return total

    def gossip(self, arrays):
        if self.graph is None:
            raise UserError("gossip: this algorithm needs a graph, for example graph=ring(8)")
        for j in self.graph.heard_by(self.rank):
            self.send(j, arrays)
        heard = []
        for j in self.graph.hears(self.rank):
            others = arrays if j == self.rank else self.receive(j)
            if len(others) != len(arrays):
                raise UserError(f"gossip: rank {j} sent {len(others)} arrays, expected {len(arrays)}")
            for mine, other in zip(arrays, others, strict=True):
                check_alike("gossip", j, other, mine.shape, mine.dtype)
            heard.append(others)
        stacks = (backend.xp(v[0]).stack(v) for v in zip(*heard, strict=True))
        mixed = [self.graph.mix_one(self.rank, X) for X in stacks]
        return mixed[0] if len(mixed) == 1 else mixed

    def gather(self, x, columns, t, begin, observe):
        """Rank 0 gets what all show, and counts; the others send."""
        own = np.array([self.sent, self.received, self.messages], np.int64)
        if self.rank != SERVER:
            self.wires.post(SERVER, SHOWN, pack((backend.to_host(x), own)))
            return [x.copy()]
        shown, counts = [x.copy()], [own]
        if not self.algorithm.federated:
            for j in range(1, self.count):
                other, count = self.take(j, SHOWN)
                shown.append(backend.asarray(other))
                counts.append(count)
        sent, received, messages = np.array(counts).T
        through = sent + received
        total = through.sum() if self.algorithm.federated else sent.sum()
        found = {"round": t + 1, "bytes": total, "messages": messages.sum(), "busiest": through.max()}
        found |= {"seconds": time.perf_counter() - begin} | (observe(shown) if observe else {})
        for name, value in found.items():
            columns.setdefault(name, []).append(float(value))
        return shown
