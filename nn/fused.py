"""Batch norm with what follows it in the same passes over memory: chosen when a Sequential or Residual is built."""

from .layer import Layer


class BatchNormReLU(Layer):
    """y = max(0, batch norm(x)), in batch norm's own passes over memory; dy is cut where y = 0. Kept: y, x, m, r."""

    def __init__(self, norm):
        self.norm = norm

    active = property(lambda self: self.norm.active)
    path = property(lambda self: self.norm.path)

    def forward(self, x, run):
        return self.norm.joint(x, None, True, None if run.backward else run.place(x), run)

    def backward(self, dy, saved, run):
        return self.norm.back(dy, saved, False, run)

    def __repr__(self):
        return repr(self.norm).replace("BatchNorm", "BatchNormReLU", 1)


class BatchNormSkip(Layer):
    """y = batch norm(h) + skip, or the larger of that and 0: the end of a residual block, in batch norm's own passes.

    backward gives (dh, dskip); dskip is dy, cut where y = 0. onto: y may take the place of skip. Kept: y, h, m, r.
    """

    def __init__(self, norm, rectify, onto):
        self.norm, self.rectify, self.onto = norm, rectify, onto

    active = property(lambda self: self.norm.active)
    path = property(lambda self: self.norm.path)

    def forward(self, h, skip, run):
        return self.norm.joint(h, skip, self.rectify, skip if self.onto and skip.flags.c_contiguous else None, run)

    def backward(self, dy, saved, run):
        dy = dy if dy.flags.c_contiguous else dy.copy()  # of a copy only the copy would be cut
        return self.norm.back(dy, saved, True, run), dy

    def __repr__(self):
        name = "BatchNormSkipReLU" if self.rectify else "BatchNormSkip"
        return repr(self.norm).replace("BatchNorm", name, 1)
