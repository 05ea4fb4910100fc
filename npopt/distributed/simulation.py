"""The engine of one process: N nodes, a network that copies and counts, and a clock.

Nodes run one after another, each until it needs others. When nobody can go on, the round is over if nodes have shown
their x; those who wait with patience are answered; else all wait for ever, and the error says for whom.
"""

import functools
from collections import deque
from typing import NamedTuple

from npopt import backend
from npopt.distributed.clock import Clock, Faults
from npopt.distributed.node import ALL_REDUCE, RECEIVE, SERVER, SHOW, Node, added, bytes_of, check_alike, opened
from npopt.distributed.saved import Saved, load_state, of_node, on_device, state_of
from npopt.errors import UserError
from npopt.values import whole

import numpy as np


class History(NamedTuple):
    """x: a list of the last x of each node that shows; columns: {name: array, a number for each round observed}."""

    x: list
    columns: dict


def simulate(
    algorithm, problems, rounds, *, graph=None, clock=None, faults=None, seed=0, start=None, observe=None, every=1,
    checkpoint=None, seconds=30.0, watch=None,
):  # fmt: skip
    """Run an algorithm for so many rounds and return a History.

    problems   one Problem a node: its private rows. Of a federated algorithm they are the clients', ranks 1 to N
    graph      a Graph of as many nodes, for what gossips
    start      x^0, (dim,); by default the x0 of the last problem. Of a parted algorithm a list, one a node; by default
               each problem's own
    observe    f([x of each node that shows]) -> {name: number}, after every `every` rounds, free of charge
    checkpoint the path of a file, written every so many `seconds`, and at Ctrl-C, which is raised then: all nodes at
               the end of one round. The same call goes on from there, bit for bit
    watch      f(rank, what, begin, end), told of the work that nodes name (Node.work), in simulated seconds

    Columns, all since the start: round; bytes and messages sent by all nodes; busiest, the bytes that went through the
    links of one node, in and out, at most; seconds, the latest clock of a node that shows.
    """
    rounds, every = whole("simulate", "rounds", rounds), whole("simulate", "every", every)
    clock, faults = clock or Clock(), faults or Faults()
    network = Network(algorithm, list(problems), graph, clock, faults, seed, start)
    network.watch = watch
    asked = dict(engine="simulate", algorithm=algorithm, graph=graph, clock=clock, faults=faults, seed=seed)
    saved = Saved(checkpoint, seconds, asked | dict(rounds=rounds, every=every))
    first, columns, shown = network.resume(saved)
    with saved.interrupts() as interrupt:
        for t in range(first, rounds):
            shown = network.round(t)
            if (t + 1) % every == 0 or t + 1 == rounds:
                found = network.counted() | (observe(shown) if observe else {})
                for name, value in found.items():
                    columns.setdefault(name, []).append(float(value))
            if interrupt.asked or saved.due():
                network.save(saved, t + 1, columns, shown)
            if interrupt.asked:
                raise KeyboardInterrupt
    return History([x.copy() for x in shown], {name: np.array(values) for name, values in columns.items()})


def settled(algorithm, sizes, graph):
    """(number of ranks, range of ranks with data, tuple of shares by rank) of an algorithm on nodes of so many rows
    each."""
    first = int(algorithm.federated)
    total, count = float(sum(sizes)), len(sizes) + first
    algorithm.check(graph)
    if graph is not None and graph.n != count:
        raise UserError(f"{type(algorithm).__name__}: a graph of {graph.n} nodes, and problems for {count}")
    return count, range(first, count), (0.0,) * first + tuple(size / total for size in sizes)


def first_x(problem, start, seed):
    """The common x^0, checked."""
    if start is None:
        start = problem.x0(backend.generator(seed, "start"))
    return problem.check(backend.asarray(start, problem.dtype), "start")


def first_xs(algorithm, problems, start, seed):
    """x^0 by node with data: one for all, or each its own."""
    if not algorithm.parted:
        return [first_x(problems[-1], start, seed)] * len(problems)
    given = zip(problems, start or [None] * len(problems), strict=True)
    return [first_x(problem, one, seed) for problem, one in given]


class Network:
    """The nodes and all that lies between them. No Node refers to it, or to another Node."""

    def __init__(self, algorithm, problems, graph, clock, faults, seed, start=None):
        if not problems:
            raise UserError("simulate: at least one problem is needed, one a node")
        self.algorithm, self.graph, self.clock, self.faults, self.seed = algorithm, graph, clock, faults, seed
        self.count, self.clients, shares = settled(algorithm, [p.n for p in problems], graph)
        self.showing = (SERVER,) if algorithm.federated else self.clients
        first, of = first_xs(algorithm, problems, start, seed), dict(zip(self.clients, problems, strict=True))
        first = first[:1] * (self.count - len(first)) + first  # a server knows the common start, too
        self.nodes = [
            Node(i, of.get(i), shares, self.clients, seed, first[i], clock.row_seconds) for i in range(self.count)
        ]
        self.watch = None
        self.programs = [algorithm.program(node) for node in self.nodes]
        # Lists, of which one number costs less than of arrays. Seconds: a node's clock, when its links are free again.
        self.now, self.out, self.into = ([0.0] * self.count for _ in range(3))
        self.sent, self.received = [0] * self.count, [0] * self.count
        self.messages = self.t = 0
        self.boxes, self.waiting, self.missing, self.group, self.shown = {}, {}, {}, {}, {}
        self.kind = self.factors = None
        self.ready = deque((i, None) for i in range(self.count))

    def counted(self):
        """The columns that every run has."""
        return {
            "round": self.t + 1,
            "bytes": sum(self.sent),
            "messages": self.messages,
            "busiest": max(map(sum, zip(self.sent, self.received, strict=True))),
            "seconds": max(self.now[i] for i in self.showing),
        }

    # -------------------------------------------------------------------------------------------- checkpoints
    LINKS = ("now", "out", "into", "sent", "received", "messages", "t")

    @functools.cached_property
    def made_of(self):
        return [of_node(node, self.algorithm, Network) for node in self.nodes]

    def save(self, saved, t, columns, shown):
        """All nodes and the network after t rounds: every node waits, and nobody is in the middle of anything."""
        boxes = [[i, to, list(box)] for (i, to), box in self.boxes.items() if box]
        links = {name: getattr(self, name) for name in self.LINKS} | {"boxes": boxes}
        nodes = [state_of(node) for node in self.nodes]
        saved.save(t=t, columns=columns, shown=shown, nodes=nodes, links=links, made_of=self.made_of)

    def resume(self, saved):
        """(first round, columns, what was shown last), with all nodes as they were; (0, {}, []) without a file."""
        if not saved.there():
            return 0, {}, []
        found = saved.load(self.made_of)
        for node, state in zip(self.nodes, found["nodes"], strict=True):
            load_state(node, state)
        for name in self.LINKS:
            setattr(self, name, found["links"][name])
        for i, to, box in found["links"]["boxes"]:
            self.boxes[i, to] = deque((when, size, tuple(map(on_device, arrays))) for when, size, arrays in box)
        self.ready = deque((i, None) for i in range(self.count) if i not in self.showing)
        self.run_ready()  # clients go to where they wait; those who show begin the next round
        return found["t"], found["columns"], on_device(found["shown"])

    # ------------------------------------------------------------------------------------------------- rounds
    def round(self, t):
        """Let all nodes go on until each that shows has shown; a list of what they showed."""
        self.t = t
        self.factors = self.clock.factors(self.seed, t, self.count)
        self.absent = self.faults.absent(self.seed, t, self.clients)
        if t:
            self.ready.extend((i, None) for i in self.showing)
            self.shown = {}
        while True:
            self.run_ready()
            if not self.give_up():
                break
        if len(self.shown) != len(self.showing):
            raise UserError(self.stuck())
        return [self.shown[i] for i in self.showing]

    def run_ready(self):
        ready, programs, nodes = self.ready, self.programs, self.nodes
        while ready:
            i, answer = ready.popleft()
            try:
                request = programs[i].send(answer)
            except StopIteration:
                raise UserError(f"rank {i} ended in round {self.t}: a node's code must go on for ever") from None
            node = nodes[i]
            if node.busy or node.outbox or node.told:
                self.settle(i, node)
            kind = request[0]
            if kind == RECEIVE:
                self.waiting[i] = request
                self.missing[i] = {j for j in request[1] if not self.boxes.get((j, i))}
                if not self.missing[i]:
                    self.hand_over(i)
            elif kind == SHOW:
                self.shown[i] = request[1]
            else:
                self.join(i, kind, request[1])

    def settle(self, i, node):
        """Charge what a node computed, and take its messages."""
        factor = 1.0 if self.factors is None else self.factors[i]
        before = self.now[i]
        for to, arrays, busy in node.outbox:
            self.post(i, to, arrays, before + busy * factor)
        if self.watch:
            for what, begin, end in node.told:
                if what:
                    self.watch(i, what, before + begin * factor, before + end * factor)
        node.outbox.clear()
        node.told.clear()
        self.now[i] = before + node.busy * factor
        node.busy = 0.0

    # ----------------------------------------------------------------------------------------------- messages
    def post(self, i, to, arrays, when):
        if not (isinstance(to, (int, np.integer)) and 0 <= to < self.count) or to == i:
            raise UserError(f"send: rank {i} cannot send to {to!r}; ranks are 0..{self.count - 1}, without its own")
        size = bytes_of(arrays)
        self.sent[i] += size
        self.messages += 1
        self.out[i] = max(self.out[i], when) + size / self.clock.bandwidth
        if i in self.absent or to in self.absent or self.faults.lost(self.seed, self.messages):
            return
        self.received[to] += size
        box = self.boxes.setdefault((i, to), deque())
        box.append((self.out[i] + self.clock.latency, size, arrays))
        if to in self.waiting:
            self.missing[to].discard(i)
            if not self.missing[to]:
                self.hand_over(to)

    def hand_over(self, i):
        """Answer a node that waits with what is there and in time."""
        _, sources, patience, single = self.waiting.pop(i)
        limit = np.inf if patience is None else self.now[i] + patience
        found = [self.boxes[j, i].popleft() if self.boxes.get((j, i)) else None for j in sources]
        found = [m if m and m[0] <= limit else None for m in found]
        until = self.into[i]
        for arrival, size, _ in sorted((m for m in found if m), key=lambda m: m[0]):
            until = max(until + size / self.clock.bandwidth, arrival)
        self.into[i] = until
        self.now[i] = max(self.now[i], until if all(found) else limit)
        answers = [m and opened(m[2]) for m in found]
        self.ready.append((i, answers[0] if single else answers))

    def give_up(self):
        """Answer those who wait with patience; whether there were any."""
        patient = [i for i, request in self.waiting.items() if request[2] is not None]
        for i in patient:
            self.hand_over(i)
        return bool(patient)

    def stuck(self):
        waits = [f"rank {i} for {', '.join(map(str, r[1][:5]))}" for i, r in self.waiting.items()][:3]
        waits += [f"{len(self.group)} of {self.count} nodes in {self.kind}"] if self.group else []
        return (
            f"round {self.t}: nobody can go on ({'; '.join(waits) or 'some nodes showed nothing'}); where messages or "
            "nodes may be lost, ask with receive_from(sources, patience)"
        )

    # -------------------------------------------------------------------------------------------- all together
    def join(self, i, kind, payload):
        """A node comes to an all-reduce or a gossip; the last one sets it off."""
        if self.group and kind != self.kind:
            raise UserError(f"round {self.t}: rank {i} is at {kind} while others are at {self.kind}")
        self.kind = kind
        self.group[i] = payload
        if len(self.group) == self.count:
            payloads, self.group = [self.group[j] for j in range(self.count)], {}
            answers = self.reduce(payloads) if kind == ALL_REDUCE else self.gossip(payloads)
            self.ready.extend(enumerate(answers))

    def reduce(self, vectors):
        """All send to rank 0, which adds in the order of ranks and sends the sum to all. Lost messages go again."""
        if self.absent:
            raise UserError(f"round {self.t}: rank {min(self.absent)} is lost; an all-reduce cannot do without a node")
        size, first = vectors[0].nbytes, vectors[0]
        for j, v in enumerate(vectors):
            check_alike("all_reduce", j, v, first.shape, first.dtype)
        slot = size / self.clock.bandwidth
        tries = np.array([(0, 0)] + [(self.tries(), self.tries()) for _ in range(1, self.count)])
        begin = np.maximum(self.now, self.out)
        arrivals = np.sort((begin + tries[:, 0] * (slot + self.clock.latency))[1:])
        done = float(begin[SERVER])
        for arrival in arrivals.tolist():
            done = max(done + slot, arrival)
        back = np.cumsum(tries[:, 1]) * slot
        self.now = (done + back + (tries[:, 1] > 0) * self.clock.latency).tolist()
        self.out = (begin + tries[:, 0] * slot).tolist()
        self.now[SERVER], self.out[SERVER] = done, done + float(back[-1])
        self.count_in(tries[:, 0] * size, (tries[:, 1] > 0) * size)
        self.sent[SERVER] += int(tries[:, 1].sum()) * size
        self.received[SERVER] += (self.count - 1) * size
        total = added(vectors)
        return [total.copy() for _ in vectors]

    def count_in(self, sent, received):
        """Add bytes by rank."""
        self.sent = (self.sent + sent).tolist()
        self.received = (self.received + received).tolist()

    def tries(self):
        """How often a message is sent until it arrives."""
        for k in range(1, 10_000):
            self.messages += 1
            if not self.faults.lost(self.seed, self.messages):
                return k
        raise UserError("all_reduce: a message was lost 10,000 times")

    def gossip(self, payloads):
        """Each node sends its arrays to those who hear it, and mixes what it hears."""
        if self.graph is None:
            raise UserError("gossip: this algorithm needs a graph, for example graph=ring(8)")
        graph, stacks = self.graph, []
        for arrays in zip(*payloads, strict=True):
            for j, v in enumerate(arrays):
                check_alike("gossip", j, v, arrays[0].shape, arrays[0].dtype)
            stacks.append(backend.xp(arrays[0]).stack(arrays))
        data = self.losses()
        mixed = [graph.mix(X, data=data) for X in stacks]
        self.charge(bytes_of(payloads[0]))
        answers = ([rows[i].copy() for rows in mixed] for i in range(self.count))
        return [opened(answer) for answer in answers]

    def losses(self):
        """The weights with what is lost in this round; None where nothing is."""
        first, graph = self.messages + 1, self.graph
        away = graph.receivers != graph.W.indices
        self.messages += int(away.sum())
        if not self.absent and not self.faults.loss:
            self.lost = None
            return None
        lost = np.zeros(len(away), bool)
        for place, message in zip(np.flatnonzero(away).tolist(), range(first, self.messages + 1), strict=True):
            i, j = int(graph.receivers[place]), int(graph.W.indices[place])
            lost[place] = i in self.absent or j in self.absent or self.faults.lost(self.seed, message)
        self.lost = lost
        return graph.without(lost)

    def charge(self, size):
        """The time of a gossip: a node is done when its own last message has left and its neighbours' have come."""
        graph, slot = self.graph, size / self.clock.bandwidth
        begin = np.maximum(self.now, self.out)
        out = begin + graph.degrees * slot
        columns, starts = graph.W.indices, graph.W.indptr[:-1]
        heard = np.diff(graph.W.indptr) - 1
        last = np.where(columns == graph.receivers, begin[columns], (out + self.clock.latency)[columns])
        first = np.where(columns == graph.receivers, np.inf, (begin + slot + self.clock.latency)[columns])
        first = np.minimum.reduceat(first, starts) + (heard - 1) * slot
        self.now = np.maximum(np.maximum.reduceat(last, starts), np.where(heard > 0, first, 0)).tolist()
        self.out = out.tolist()
        arrived = heard if self.lost is None else heard - np.bincount(graph.receivers[self.lost], minlength=graph.n)
        self.count_in(graph.degrees * size, arrived * size)
