"""Simulated time and simulated misfortune.

A message of b bytes holds its sender's outgoing link for b / bandwidth seconds and arrives `latency` later; what
arrives at one node at the same time comes in one by one, at the same bandwidth. A node that sends goes on at once; one
that receives waits. So with equal clocks a server that hears n clients waits latency + n b / bandwidth.

All draws are functions of (seed, word, round or message), so that a run can be made again.
"""

from npopt import backend
from npopt.errors import UserError
from npopt.values import Value, number, whole


class Clock(Value):
    """latency, in seconds a message; bandwidth, in bytes a second; row_seconds, for the gradient of one row.

    In each round a node is a straggler with probability `stragglers`: its arithmetic takes `slowdown` times as long.
    """

    def __init__(self, latency=1e-4, bandwidth=1.25e9, row_seconds=0.0, stragglers=0.0, slowdown=10.0):
        self.latency = number("Clock", "latency", latency, low=0)
        self.bandwidth = number("Clock", "bandwidth", bandwidth, low=0, open_low=True)
        self.row_seconds = number("Clock", "row_seconds", row_seconds, low=0)
        self.stragglers = number("Clock", "stragglers", stragglers, low=0, high=1)
        self.slowdown = number("Clock", "slowdown", slowdown, low=1)

    def factors(self, seed, t, count):
        """A list of the factors by which arithmetic is slower in round t, by rank; None where all are 1."""
        if not self.stragglers or self.slowdown == 1:
            return None
        slow = backend.generator(seed, "stragglers", t).random(count) < self.stragglers
        return [self.slowdown if s else 1.0 for s in slow.tolist()]


class Faults(Value):
    """What goes wrong: each message is lost with probability `loss`; in each round each node with data is away with
    probability `away`; a rank of `deaths`, {rank: round}, is away from that round on. Rounds count from 0.

    A node that is away neither hears nor is heard. In a gossip a node puts its own x in the place of a message that did
    not come. An all-reduce sends a lost message again; it cannot do without a node. A server that asks with patience
    gets None; without patience it would wait for ever, which is an error.
    """

    def __init__(self, loss=0.0, away=0.0, deaths=None):
        self.loss = number("Faults", "loss", loss, low=0, high=1, open_high=True)
        self.away = number("Faults", "away", away, low=0, high=1)
        self.deaths = {} if deaths is None else deaths
        if not isinstance(self.deaths, dict):
            raise UserError(f"Faults: deaths must be a dict {{rank: round}}, got {deaths!r}")
        for rank, t in self.deaths.items():
            whole("Faults", "a rank of deaths", rank, low=0)
            whole("Faults", f"the round of rank {rank}'s death", t, low=0)

    def absent(self, seed, t, clients):
        """The set of ranks that are away in round t."""
        gone = {rank for rank, since in self.deaths.items() if t >= since}
        if self.away:
            draws = backend.generator(seed, "away", t).random(len(clients))
            gone.update(rank for rank, u in zip(clients, draws.tolist(), strict=True) if u < self.away)
        return gone

    def lost(self, seed, message):
        """Whether the message of this number is lost."""
        return self.loss > 0 and backend.key(seed, "lost", message) < self.loss * 2.0**64
