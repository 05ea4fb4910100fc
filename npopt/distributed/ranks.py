"""The engine of real processes: each rank of MPI is one node, and runs the same code as in the simulation.

    mpiexec -n 4 python program.py          # program.py calls on_ranks(algorithm, my problem, rounds)

Sums are taken in the order of ranks, as in the simulation, so that both engines give the same bits on the same machine.
Nothing is lost here, and `patience` waits as long as it takes. An error on one rank is one line, and ends all. What
all ranks keep at the end of a round goes to rank 0, which writes it as one file; the same command goes on from there.
A rank that is killed ends all, by mpiexec; one that `npopt run` started is named by it in a sentence.
"""

import functools
import sys
import time

from npopt import backend
from npopt.backend.devices import Cpu
from npopt.distributed.node import (
    ALL_REDUCE,
    DTYPES,
    RECEIVE,
    SERVER,
    SHOW,
    Node,
    added,
    bytes_of,
    check_alike,
    opened,
)
from npopt.distributed.saved import Saved, load_state, of_node, on_device, state_of
from npopt.distributed.simulation import History, first_x, settled
from npopt.distributed.wire import MESSAGE, SHOWN, MPIWires, pack, pack_tree, unpack, unpack_tree
from npopt.errors import UserError
from npopt.values import whole

import numpy as np

SLICED = 1 << 18  # bytes of a vector from which an all-reduce goes by slices

# What a server sends instead of arrays: all rounds are over; and, tell me what you keep.
END, SAVE = np.empty(0, np.uint8), np.zeros(1, np.uint8)


class Over(Exception):
    """The server has ended the run."""


def on_ranks(
    algorithm, problem, rounds, *, graph=None, seed=0, start=None, observe=None, every=1, wires=None, checkpoint=None,
    seconds=30.0,
):  # fmt: skip
    """Run this rank's part of an algorithm and return a History.

    problem    the rows of this rank, a Problem; None on rank 0 of a federated algorithm
    start      as in `simulate`; that of the last rank counts. Of a parted algorithm this rank's own
    observe    as in `simulate`; it is called on rank 0 alone
    wires      how ranks are joined: by default MPIWires()
    checkpoint as in `simulate`: a path, on all ranks or on none. Rank 0 alone reads and writes the file, after a round
               that is observed, where the last one is old enough

    On rank 0 History is that of `simulate`, with wall-clock seconds; on other ranks x is [this rank's own], or [] for a
    client, and there are no columns.
    """
    wires = MPIWires() if wires is None else wires
    try:
        rounds, every = whole("on_ranks", "rounds", rounds), whole("on_ranks", "every", every)
        rank = Rank(algorithm, problem, graph, seed, start, wires)
        asked = dict(engine="on_ranks", ranks=wires.size, algorithm=algorithm, graph=graph, seed=seed)
        if checkpoint is not None:
            rank.resume(
                Saved(checkpoint if wires.rank == SERVER else None, seconds, asked | dict(rounds=rounds, every=every))
            )
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
        self.saved, self.first, self.columns, self.shown, self.before = None, 0, {}, [], 0.0
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
        while data.size == SAVE.size and source == SERVER:
            self.wires.post(SERVER, SHOWN, pack_tree(self.kept))
            data = self.wires.take(source, MESSAGE)
        if not data.size:
            raise Over
        arrays = unpack(data, source)
        self.received += bytes_of(arrays)
        self.messages += int(self.algorithm.federated)  # the server sees all there are
        return tuple(backend.asarray(a) for a in arrays)

    # -------------------------------------------------------------------------------------------- checkpoints
    @functools.cached_property
    def made_of(self):
        return of_node(self.node, self.algorithm, Rank)

    @property
    def kept(self):
        """What rank 0 has to know of this node for a checkpoint."""
        links = [self.sent, self.received, self.messages]
        return {"nodes": state_of(self.node), "links": links, "made_of": self.made_of}

    def save(self, t, columns, shown):
        """Rank 0 says whether it is time, and writes what all tell."""
        others = range(1, self.count)
        if self.rank != SERVER:
            if self.take(SERVER, SHOWN)[0][0]:
                self.wires.post(SERVER, SHOWN, pack_tree(self.kept))
            return
        due = self.saved.due()
        for j in others:
            if not self.algorithm.federated:
                self.wires.post(j, SHOWN, pack((np.array([due], np.uint8),)))
            elif due:
                self.wires.post(j, MESSAGE, SAVE)
        if due:
            told = [self.kept, *(unpack_tree(self.wires.take(j, SHOWN), j) for j in others)]
            if sum(tree["links"][0] - tree["links"][1] for tree in told):
                raise UserError(f"round {t}: a message is under way between two rounds, and no checkpoint can hold it")
            nodes = {name: [tree[name] for tree in told] for name in told[0]}
            self.saved.save(t=t, columns=columns, shown=shown, **nodes)

    def resume(self, saved):
        """Go on from a checkpoint, if rank 0 has one."""
        self.saved = saved
        if not self.all(np.array([saved.there()], np.uint8))[SERVER][0]:
            return
        made_of = self.all(np.frombuffer(self.made_of.encode(), np.uint8))
        if self.rank == SERVER:
            found = saved.load([a.tobytes().decode() for a in made_of])
            self.columns, self.shown = found["columns"], on_device(found["shown"])
            self.before = self.columns["seconds"][-1]
            trees = [dict(t=found["t"], node=n, links=k) for n, k in zip(found["nodes"], found["links"], strict=True)]
            for j in range(1, self.count):
                self.wires.post(j, SHOWN, pack_tree(trees[j]))
        tree = trees[0] if self.rank == SERVER else unpack_tree(self.wires.take(SERVER, SHOWN), SERVER)
        self.first = tree["t"]
        self.sent, self.received, self.messages = tree["links"]
        load_state(self.node, tree["node"])
        if self.rank != SERVER and not self.algorithm.federated:
            self.shown = on_device(tree["node"]["kept"][:1])

    # ------------------------------------------------------------------------------------------------- rounds
    def run(self, rounds, every, observe):
        """All rounds of this node."""
        columns, begin, shown = self.columns, time.perf_counter() - self.before, self.shown
        showing = self.rank == SERVER or not self.algorithm.federated
        try:
            for t in range(self.first, rounds if showing else sys.maxsize):
                x = self.round()
                if (t + 1) % every == 0 or t + 1 == rounds:
                    shown = self.gather(x, columns, t, begin, observe)
                    if self.saved is not None:
                        self.save(t + 1, columns, shown)
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
        """The sum of all, in the order of ranks. It is counted as in the simulation: to rank 0 and back. A long vector
        takes a shorter way, which has as many bytes in all."""
        if v.nbytes >= SLICED and self.count > 1:
            return self.reduce_by_slices(v)
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

    def reduce_by_slices(self, v):
        """Each rank adds one slice of all vectors and sends it to all: none waits for rank 0, and no number is copied
        on its way. Before, all tell the shape of theirs."""
        self.post_to_others((np.array([DTYPES.index(str(v.dtype)), *v.shape], np.int64),), MESSAGE)
        others = [j for j in range(self.count) if j != self.rank]
        for j in others:
            (told,) = self.take(j, MESSAGE)
            if told.dtype == np.int64:
                told = np.broadcast_to(np.zeros((), DTYPES[told[0]]), told[1:])
            check_alike("all_reduce", j, told, v.shape, v.dtype)
        flat, ends = backend.to_host(v).reshape(-1), [v.size * k // self.count for k in range(self.count + 1)]
        parts = [slice(ends[k], ends[k + 1]) for k in range(self.count)]
        mine, total = parts[self.rank], Cpu.empty(v.shape, v.dtype)  # pooled: new pages cost as much as the sum
        heard = {j: Cpu.empty((mine.stop - mine.start,), v.dtype) for j in others}
        sums = total.reshape(-1)
        self.wires.swap({j: flat[parts[j]] for j in others}, heard)
        first, *rest = (flat[mine] if j == self.rank else heard[j] for j in range(self.count))
        for k, other in enumerate(rest):
            np.add(sums[mine] if k else first, other, out=sums[mine])
        self.wires.swap({j: sums[mine] for j in others}, {j: sums[parts[j]] for j in others})
        links = len(others) if self.rank == SERVER else 1
        self.sent, self.received = self.sent + links * v.nbytes, self.received + links * v.nbytes
        self.messages += links
        return backend.asarray(total)

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
