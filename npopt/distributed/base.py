"""The interface of distributed algorithms: what one node does, written once for every engine."""

from npopt.distributed.node import SERVER
from npopt.errors import UserError
from npopt.values import Value


class Algorithm(Value):
    """A value whose `node(me)` is a generator: the life of one node, all of which are alike (see node.py).

    It ends each of its rounds with `yield me.show(x)`. `symmetric` says that the proof needs W = W'. `parted` says that
    each node has an x of its own, a part of one network's: it starts from its own problem's x0.
    """

    symmetric = False
    federated = parted = False

    def node(self, me):
        raise UserError(f"{type(self).__name__} defines no node")

    def program(self, me):
        """The generator of a node."""
        return self.node(me)

    def check(self, graph):
        """Refuse a graph with which the method has no meaning."""
        name = type(self).__name__
        if self.symmetric and (graph is None or not graph.symmetric):
            raise UserError(f"{name}: needs a graph with symmetric weights, got {graph}; ring, torus and metropolis do")


class Federated(Algorithm):
    """Rank 0 is a server without rows, the others are clients: `server(me)` and `client(me)` are generators.

    Only the server shows. A client waits for the server's next message, and rests when none comes.
    """

    federated = True

    def server(self, me):
        raise UserError(f"{type(self).__name__} defines no server")

    def client(self, me):
        raise UserError(f"{type(self).__name__} defines no client")

    def program(self, me):
        return self.server(me) if me.rank == SERVER else self.client(me)
