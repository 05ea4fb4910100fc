"""SCAFFOLD: Karimireddy, Kale, Mohri, Reddi, Stich & Suresh, ICML 2020, arXiv:1910.06378, Algorithm 1.

    client:   y <- x;   steps times:  y <- y - lr (g_i(y) - c_i + c)
              c_i+ = g_i(x)  (option 1)   or   c_i - c + (x - y) / (steps lr)  (option 2)
              sends  y - x  and  c_i+ - c_i,   c_i <- c_i+
    server:   x <- x + server_lr mean_S (y_i - x),    c <- c + (|S| / N) mean_S (c_i+ - c_i)

c_i - c corrects the drift of a client with data of its own kind, so the fixed point is the minimum of (1/N) sum f_i for
any number of steps. All clients count alike. Option 1 takes the gradient over all rows of the client.
"""

from npopt.distributed.base import Federated
from npopt.distributed.node import SERVER
from npopt.errors import UserError
from npopt.values import number, whole


class Scaffold(Federated):
    """lr, steps, batch: of the client's SGD; share: of the clients in a round. Twice the bytes of FedAvg.

    If a client's answer is lost, c is no longer the mean of the c_i; the paper does not treat that, and so there is no
    patience here.
    """

    def __init__(self, lr, steps=5, batch=None, share=1.0, server_lr=1.0, option=2):
        self.lr = number("Scaffold", "lr", lr, low=0, open_low=True)
        self.steps = whole("Scaffold", "steps", steps)
        self.batch = None if batch is None else whole("Scaffold", "batch", batch)
        self.share = number("Scaffold", "share", share, low=0, high=1, open_low=True)
        self.server_lr = number("Scaffold", "server_lr", server_lr, low=0)
        if option not in (1, 2):
            raise UserError(f"Scaffold: option must be 1 or 2, got {option!r}")
        self.option = option

    def server(self, me):
        x, c, t = me.state(me.start(), 0 * me.start(), 0)
        while True:
            chosen = me.sample(t, self.share)
            for i in chosen:
                me.send(i, x, c)
            answers = yield me.receive_from(chosen)
            for dx, dc in answers:
                x += self.server_lr / len(chosen) * dx
                c += dc / me.count
            t += 1
            yield me.show(x, c, t)

    def client(self, me):
        mine = me.state(0 * me.start())
        while True:
            x, c = yield me.receive(SERVER)
            y = x.copy()
            for _ in range(self.steps):
                y -= self.lr * (me.gradient(y, me.batch(self.batch)) - mine + c)
            new = me.gradient(x) if self.option == 1 else mine - c + (x - y) / (self.steps * self.lr)
            me.send(SERVER, y - x, new - mine)
            mine = me.keep(new)
