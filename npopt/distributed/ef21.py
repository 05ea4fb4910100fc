"""EF21: Richtarik, Sokolov & Fatkhullin, NeurIPS 2021, arXiv:2106.05203, Algorithm 2; with momentum (EF21-SGDM):
Fatkhullin, Tyurin & Richtarik, NeurIPS 2023, arXiv:2305.15155, Algorithm 1.

    server:   x <- x - lr g,  sends x;                         g <- g + mean_i c_i
    client:   v_i <- (1 - eta) v_i + eta g_i(x),   c_i = C(v_i - h_i),   sends c_i,   h_i <- h_i + c_i

The client's estimate h_i, which the server's g is the mean of, follows its gradient; what is sent is a compressed
difference, which vanishes at the minimum. So a contractive C does no harm at a constant rate. EF21 is eta = 1 with all
rows. At the first round v_i = g_i(x^0) and h_i = 0, so that h_i becomes C(g_i(x^0)).
"""

import math

from npopt.distributed.base import Federated
from npopt.distributed.node import SERVER
from npopt.values import number, whole


class EF21SGDM(Federated):
    """The rate lr, a contractive compressor, the momentum eta in (0, 1], and `batch` rows a gradient (None: all)."""

    def __init__(self, lr, compressor, eta=0.1, batch=None):
        self.lr, self.compressor = number(type(self).__name__, "lr", lr, low=0), compressor
        self.eta = number(type(self).__name__, "eta", eta, low=0, high=1, open_low=True)
        self.batch = None if batch is None else whole(type(self).__name__, "batch", batch)

    def server(self, me):
        x, g = me.state(me.start(), 0 * me.start())
        while True:
            me.broadcast(x)
            messages = yield me.receive_from(me.clients)
            for c in messages:
                g += self.compressor.decode(parts(c), g) / me.count
            x -= self.lr * g
            yield me.show(x, g)

    def client(self, me):
        v, h = me.state(None, 0 * me.start())
        while True:
            x = yield me.receive(SERVER)
            g = me.gradient(x, me.batch(self.batch))
            v = g if v is None else (1 - self.eta) * v + self.eta * g
            c = self.compressor.encode(v - h, me.key("compressed"))
            me.send(SERVER, *c)
            h += self.compressor.decode(c, h)
            me.keep(v, h)


class EF21(EF21SGDM):
    """Exact gradients, no momentum. `largest_rate` is the rate of its Theorem 1."""

    def __init__(self, lr, compressor):
        self.lr, self.compressor = number("EF21", "lr", lr, low=0), compressor
        self.eta, self.batch = 1.0, None


def parts(message):
    """A message as the tuple of its arrays."""
    return message if isinstance(message, tuple) else (message,)


def ef21_rate(alpha, smoothness, row_smoothness):
    """1 / (L + Lt sqrt(beta / theta)): theta = 1 - sqrt(1 - alpha), beta = (1 - alpha) / theta, Lt^2 the mean of L_i^2
    (row_smoothness: the L_i of the nodes). Richtarik et al., Theorem 1."""
    theta = 1 - math.sqrt(1 - number("ef21_rate", "alpha", alpha, low=0, high=1, open_low=True))
    mean = math.sqrt(sum(L * L for L in row_smoothness) / len(row_smoothness))
    return 1 / (smoothness + mean * math.sqrt((1 - alpha) / theta**2))
