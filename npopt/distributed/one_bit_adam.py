"""1-bit Adam: Tang, Gan, Awan, Rajbhandari, Li, Lian, Liu, Zhang & He, ICML 2021, arXiv:2102.02888, Algorithm 1.

    the first `warm` rounds are Adam on the mean gradient, without bias correction as in the paper:
        m <- b1 m + (1 - b1) g,    v <- b2 v + (1 - b2) g^2,    x <- x - lr m / (sqrt(v) + eps)
    then v stays as it is, and momenta are compressed on both ways, each with a memory of what was not sent:
        client:   m_i = b1 m + (1 - b1) g_i,    c_i = C(m_i + e_i),    e_i <- m_i + e_i - c_i
        server:   c = C(mean_i c_i + e),        e <- mean_i c_i + e - c
        all:      m = c,    x <- x - lr m / (sqrt(v) + eps)

Every client has x, m and v; only gradients, and later compressed momenta, are sent. A client hears the m of a round
when the next one begins: a round costs the last one's m down, and its own answers up. eps stands in both phases.
"""

from npopt.backend import xp
from npopt.distributed.base import Federated
from npopt.distributed.compressors import Sign
from npopt.distributed.ef21 import parts
from npopt.distributed.node import SERVER
from npopt.values import number, whole


class OneBitAdam(Federated):
    """lr, b1, b2, eps as in Adam; `warm` rounds of Adam; `batch` rows a gradient (None: all); a compressor (Sign())."""

    def __init__(self, lr, warm=100, b1=0.9, b2=0.999, eps=1e-8, batch=None, compressor=None):
        self.lr, self.warm = number("OneBitAdam", "lr", lr, low=0), whole("OneBitAdam", "warm", warm, low=1)
        self.b1 = number("OneBitAdam", "b1", b1, low=0, high=1, open_high=True)
        self.b2 = number("OneBitAdam", "b2", b2, low=0, high=1, open_high=True)
        self.eps = number("OneBitAdam", "eps", eps, low=0)
        self.batch = None if batch is None else whole("OneBitAdam", "batch", batch)
        self.compressor = Sign() if compressor is None else compressor

    def moved(self, x, m, v):
        return x - self.lr * m / (xp(x).sqrt(v) + self.eps)

    def averaged(self, m, v, g):
        return self.b1 * m + (1 - self.b1) * g, self.b2 * v + (1 - self.b2) * g * g

    def server(self, me):
        x, C = me.start(), self.compressor
        x, m, v, e, message, t = me.state(x, 0 * x, 0 * x, 0 * x, None, 0)
        while True:
            if message is not None:
                me.broadcast(*message)
            messages = yield me.receive_from(me.clients)
            if t < self.warm:
                g = sum(messages) / me.count
                message = (g,)
                m, v = self.averaged(m, v, g)
            else:
                e += sum(C.decode(parts(c), x) for c in messages) / me.count
                message = C.encode(e, me.key("compressed"))
                m = C.decode(message, x)
                e -= m
            x = self.moved(x, m, v)
            t += 1
            yield me.show(x, m, v, e, message, t)

    def client(self, me):
        x, C = me.start(), self.compressor
        x, m, v, e, t = me.state(x, 0 * x, 0 * x, 0 * x, 0)
        while True:
            if t:
                message = parts((yield me.receive(SERVER)))
                m, v = self.averaged(m, v, message[0]) if t <= self.warm else (C.decode(message, x), v)
                x = self.moved(x, m, v)
            g = me.gradient(x, me.batch(self.batch))
            if t < self.warm:
                me.send(SERVER, g)
            else:
                e += self.b1 * m + (1 - self.b1) * g
                c = C.encode(e, me.key("compressed"))
                me.send(SERVER, *c)
                e -= C.decode(c, x)
            t += 1
            me.keep(x, m, v, e, t)
