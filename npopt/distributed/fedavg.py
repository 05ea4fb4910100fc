"""Federated averaging: McMahan, Moore, Ramage, Hampson & Aguera y Arcas, AISTATS 2017, arXiv:1602.05629, Algorithm 1.

    server, round t:   S_t a share of the clients;   x <- x + server_lr sum_{i in S} n_i (y_i - x) / sum_{i in S} n_i
    client:            y <- x;   steps times:  y <- y - lr g_i(y)

The paper has server_lr = 1. A client's answer is y - x. What does not come in time is left out of both sums.
"""

from npopt.distributed.base import Federated
from npopt.distributed.node import SERVER
from npopt.values import number, whole


class FedAvg(Federated):
    """lr, steps, batch: of the client's SGD; share: of the clients in a round; patience: seconds that a round may take.

    Rounds cost d numbers down and d up for each client that takes part.
    """

    def __init__(self, lr, steps=5, batch=None, share=1.0, server_lr=1.0, patience=None):
        self.lr, self.steps = number(type(self).__name__, "lr", lr, low=0), whole(type(self).__name__, "steps", steps)
        self.batch = None if batch is None else whole(type(self).__name__, "batch", batch)
        self.share = number(type(self).__name__, "share", share, low=0, high=1, open_low=True)
        self.server_lr = number(type(self).__name__, "server_lr", server_lr, low=0)
        self.patience = None if patience is None else number(type(self).__name__, "patience", patience, low=0)

    def server(self, me):
        x, t = me.state(me.start(), 0)
        while True:
            chosen = me.sample(t, self.share)
            for i in chosen:
                me.send(i, x)
            answers = yield me.receive_from(chosen, self.patience)
            came = [(me.shares[i], change) for i, change in zip(chosen, answers, strict=True) if change is not None]
            total = sum(weight for weight, _ in came)
            for weight, change in came:
                x += self.server_lr * weight / total * change
            t += 1
            yield me.show(x, t)

    def client(self, me):
        me.state()
        while True:
            x = yield me.receive(SERVER)
            y = x.copy()
            for _ in range(self.steps):
                y -= self.lr * me.gradient(y, me.batch(self.batch))
            me.send(SERVER, y - x)
