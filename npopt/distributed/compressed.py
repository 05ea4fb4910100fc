"""Compressed gradient steps, plain or with error feedback: Seide et al., Interspeech 2014; Karimireddy, Rebjock, Stich
& Jaggi, ICML 2019, arXiv:1901.09847, Algorithm 2.

    client:   p = e_i + lr g_i(x),   sends c_i = C(p),   e_i <- p - c_i   (feedback; else e_i stays 0)
    server:   x <- x - mean_i c_i

What was not sent is kept and sent later: all that was sent and the memory add up to all gradients. With exact
gradients, a constant rate and a contractive C the plain form may stop anywhere, the other one near the minimum; EF21
at it.
"""

from npopt.distributed.base import Federated
from npopt.distributed.ef21 import parts
from npopt.distributed.node import SERVER
from npopt.values import number, whole


class CompressedSGD(Federated):
    """The rate lr, any compressor, `batch` rows a gradient (None: all), with or without error feedback."""

    def __init__(self, lr, compressor, feedback=True, batch=None):
        self.lr, self.compressor = number("CompressedSGD", "lr", lr, low=0), compressor
        self.feedback = bool(feedback)
        self.batch = None if batch is None else whole("CompressedSGD", "batch", batch)

    def server(self, me):
        x = me.state(me.start())
        while True:
            me.broadcast(x)
            messages = yield me.receive_from(me.clients)
            for c in messages:
                x -= self.compressor.decode(parts(c), x) / me.count
            yield me.show(x)

    def client(self, me):
        e = me.state(0 * me.start())
        while True:
            x = yield me.receive(SERVER)
            p = e + self.lr * me.gradient(x, me.batch(self.batch))
            c = self.compressor.encode(p, me.key("compressed"))
            me.send(SERVER, *c)
            if self.feedback:
                e = me.keep(p - self.compressor.decode(c, p))
