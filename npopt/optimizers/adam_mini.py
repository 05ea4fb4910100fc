"""Adam-mini: Zhang et al., ICLR 2025, arXiv:2406.16793, Algorithm 1, partitioned as in the authors' code (1.1.1)."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.adam import check_moments
from npopt.optimizers.adamw import adamw
from npopt.optimizers.base import Array, number_or_array
from npopt.optimizers.by_segment import BySegment
from npopt.values import whole


@elementwise
def adam_mini(x, m, g, lr, b1, c1, root, weight_decay):
    m = b1 * m + (1 - b1) * g
    x = x - lr * (c1 * m / root + weight_decay * x)
    return x, m


class AdamMini(BySegment):
    """AdamW with one second moment for a block of parameters, v_k <- b2 v_k + (1-b2) mean over the block of g^2:

    m <- b1 m + (1-b1) g            x <- x - lr (mh / (sqrt(v_k / (1-b2^t)) + eps) + weight_decay x)

        kind of segment        blocks
        matrix, embedding      one for each row: an output unit or a token (weights are (out, in))
        ... query.W, key.W     with `heads`: one for each head, whose rows lie together; of shared keys one each, too
        bias                   one for each number: plain AdamW
        all others             one for the segment (convolutions, gains of norms)

    heads   of the queries in every attention layer, as in the paper; a head is (columns of the matrix) / heads rows
            wide. 1: one block for the whole matrix. None: one for each row

    The decay is decoupled and multiplied by lr; weight_decay may be an array like x. State: m, and v with one number a
    block.
    """

    never_negative = ("v",)
    options = ("weight_decay",)

    def __init__(self, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, heads=None):
        self.b1, self.b2, self.eps = check_moments("AdamMini", b1, b2, eps)
        self.weight_decay = number_or_array("AdamMini", "weight_decay", weight_decay, low=0)
        self.heads = None if heads is None else whole("AdamMini", "heads", heads)

    @property
    def arrays(self):
        return "m", Array("v", self.blocks)

    def blocks(self, segment):
        """Shape of the segment's v."""
        if self.heads and segment.kind == "matrix" and segment.name.split(".")[-2:] in (["query", "W"], ["key", "W"]):
            rows, features = segment.shape
            width = features // self.heads
            if features % self.heads or rows % width:
                raise UserError(f"AdamMini: {segment.name} of shape {segment.shape} has no {self.heads} equal heads")
            return (rows // width,)
        if segment.kind in ("matrix", "embedding"):
            return segment.shape[:1]
        return (segment.size,) if segment.kind == "bias" else (1,)

    def update_segment(self, segment, x, g, lr, m, v, weight_decay):
        c1, c2 = 1 / (1 - self.b1**self.t), 1 / (1 - self.b2**self.t)
        rows = v.size
        if rows == x.size:
            adamw(x, m, v, g, lr, self.b1, self.b2, self.eps, weight_decay, c1, c2)
            return
        v *= self.b2
        v += (1 - self.b2) * mean_squares(g, rows)
        root = v * c2
        backend.xp(x).sqrt(root, out=root)
        root += self.eps
        if rows == 1:
            adam_mini(
                x,
                m,
                g,
                lr,
                self.b1,
                c1,
                root.reshape(()) if backend.owner(x).name != "cpu" else float(root[0]),
                weight_decay,
            )
            return
        spread = self.work(x)
        spread.reshape(rows, -1)[...] = root.reshape(-1, 1)
        adam_mini(x, m, g, lr, self.b1, c1, spread, weight_decay)


def mean_squares(g, rows):
    """The mean of g^2 over each of so many rows, (rows,)."""
    table = g.reshape(rows, -1)
    return backend.xp(g).einsum("ij,ij->i", table, table) * (1 / table.shape[1])
