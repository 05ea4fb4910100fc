"""Pipelines: each node has some consecutive layers of a network, and a batch goes through in m micro-batches.

Stage s of p gets what stage s - 1 made of a micro-batch, and sends on what its own layers make of that. On the way back
it gets the gradient of what it sent. Several micro-batches are on their way at a time: what the layers keep of each for
its way back is `kept[k]`. The gradients of all are added up, and then all stages step. So the step is that of the whole
batch on the whole network, to rounding, with any order of the passes; batch statistics are those of micro-batches.

In which order a stage takes the passes is all that the methods differ in: gpipe.py, pipedream_flush.py. If every stage
needs the time f forward and b back for a micro-batch, and messages need none, both take (m + p - 1)(f + b), of which a
stage works m (f + b): it idles for the share (p - 1) / (m + p - 1), the bubble.
"""

import itertools

from npopt.distributed.base import Algorithm
from npopt.distributed.steps import checked, started
from npopt.errors import UserError
from npopt.optimizers.sgd import SGD
from npopt.values import number, whole

FORWARD, BACKWARD = "forward", "backward"
THIRD = 1 / 3  # of a gradient's time goes into the way forward: one product of matrices, and two on the way back


class Pipeline(Algorithm):
    """The common part. A subclass gives `order(stage, stages)`, a list of (FORWARD or BACKWARD, micro-batch).

    A node's problem is a problems.parts.Stage. lr and the optimizer (None: SGD) act on each stage by itself. batch is
    the number of rows of all micro-batches together, drawn alike on all nodes (None: all rows), micro is m.
    recompute: kept is the input of a stage alone, and it goes forward once more before it goes back (GPipe, section
    2.3). On the simulated clock a pass takes the stage's share of the network's row_seconds, one third of it forward.
    """

    parted = True

    def __init__(self, lr, micro=4, batch=None, optimizer=None, recompute=False):
        name = type(self).__name__
        self.lr, self.micro = number(name, "lr", lr, low=0), whole(name, "micro", micro)
        self.batch = None if batch is None else whole(name, "batch", batch, low=self.micro)
        self.optimizer = checked(name, SGD() if optimizer is None else optimizer, segments=True)
        self.recompute = bool(recompute)

    def order(self, stage, stages):
        raise UserError(f"{type(self).__name__} defines no order")

    def node(self, me):
        x, begin, memory = me.state(me.start(), 0, None)
        stage, before, behind = me.problem, me.rank - 1, me.rank + 1
        first, last, g = me.rank == 0, behind == me.count, 0 * x
        optimizer, kept = started(self.optimizer, x, memory, stage), {}
        stage.set_seed(me.seed)
        for t in itertools.count(begin):
            stage.begin(t)
            rows = stage.cut(me.common_batch(self.batch, t), self.micro)
            seconds = me.row_seconds * stage.share * len(rows[0])
            g[...] = 0
            for what, k in self.order(me.rank, me.count):
                if what == FORWARD:
                    h = None if first else (yield me.receive(before))
                    y, saved = stage.forward(x, h, rows[k])
                    kept[k] = h if self.recompute else saved
                    del saved
                    stage.seen(kept)
                    me.work(THIRD * seconds, FORWARD, k)
                    if not last:
                        me.send(behind, y)
                else:
                    dy = None if last else (yield me.receive(behind))
                    if self.recompute:
                        kept[k] = stage.forward(x, kept[k], rows[k])[1]
                        stage.seen(kept)
                        me.work(THIRD * seconds, "again", k)
                    dh = stage.backward(dy, kept.pop(k), rows[k], g)
                    me.work((1 - THIRD) * seconds, BACKWARD, k)
                    if not first:
                        me.send(before, dh)
            optimizer.step(x, g, self.lr)
            stage.commit()
            yield me.show(x, t + 1, optimizer.state())
